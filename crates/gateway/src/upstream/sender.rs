//! The request's way up: what is at hand, then what still arrives from the client, without collecting it.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http1::{BodyDecoder, BodyError, Framing, Step};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::io::{Inbox, Outbox};

/// Bytes of a body that are read ahead while the upstream takes none.
const AHEAD: usize = 256 * 1024;

/// A body that goes up while it arrives.
#[derive(Debug)]
pub struct Upload {
    decoder: BodyDecoder,
    chunked: bool,
}

impl Upload {
    /// Of a request with this framing; `None` where there is no body.
    pub fn new(framing: Framing) -> Option<Self> {
        let decoder = BodyDecoder::new(framing);
        (!decoder.is_done()).then_some(Self { decoder, chunked: framing == Framing::Chunked })
    }
}

/// Why a body does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadError {
    /// The client closed or failed before its body was whole.
    ClientGone,
    /// The client's framing does not hold.
    Framing(BodyError),
}

/// Writes one request.
#[derive(Debug, Default)]
pub struct Sender {
    out: Outbox,
    upload: Option<Upload>,
    /// Why the upstream takes no more: it may have answered before it read everything, so this shows only when no
    /// answer comes.
    failed: Option<io::Error>,
}

impl Sender {
    /// Starts with what is at hand.
    pub fn new(parts: impl IntoIterator<Item = Bytes>, upload: Option<Upload>) -> Self {
        let mut out = Outbox::default();
        parts.into_iter().for_each(|part| out.push(part));
        Self { out, upload, failed: None }
    }

    /// Whether the whole request has been handed to the kernel.
    pub fn is_done(&self) -> bool {
        self.out.is_empty() && self.upload.is_none() && self.failed.is_none()
    }

    /// Whether bytes are still to come from the client: then its reads belong to this upload.
    pub fn is_uploading(&self) -> bool {
        self.upload.is_some()
    }

    /// Bytes that the upstream has taken.
    pub fn written(&self) -> u64 {
        self.out.written()
    }

    /// Whether it is the client whose bytes are missing, and not the upstream that does not take them.
    pub fn awaits_client(&self) -> bool {
        self.upload.is_some() && self.out.is_empty() && self.failed.is_none()
    }

    /// Why the upstream takes no more.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// Writes what is at hand.
    pub fn poll_write<W: AsyncWrite + Unpin>(&mut self, upstream: &mut W, cx: &mut Context<'_>) -> Poll<()> {
        if self.failed.is_some() || self.out.is_empty() {
            return Poll::Ready(());
        }
        match self.out.poll_flush(upstream, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(e)) => {
                self.failed = Some(e);
                Poll::Ready(())
            }
        }
    }

    /// Takes the body from the client as fast as the upstream takes it. Ready when there is no more to do.
    pub fn poll_upload<W: AsyncWrite + Unpin, R: AsyncRead + Unpin>(
        &mut self,
        upstream: &mut W,
        client: &mut R,
        inbox: &mut Inbox,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), UploadError>> {
        loop {
            if self.poll_write(upstream, cx).is_pending() {
                // The client's end shows also while the upstream takes nothing.
                return poll_ahead(client, inbox, cx).map(Err);
            }
            let Some(upload) = &mut self.upload else { return Poll::Ready(Ok(())) };
            if self.failed.is_some() {
                return Poll::Ready(Ok(()));
            }
            match upload.decoder.next(inbox) {
                Ok(Step::Data(data)) if upload.chunked => self.out.push_chunk([data]),
                Ok(Step::Data(data)) => self.out.push(data),
                Ok(Step::End) => {
                    if upload.chunked {
                        self.out.push_last_chunk();
                    }
                    self.upload = None;
                    continue;
                }
                Ok(Step::More) => match inbox.poll_fill(client, cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(n)) if n > 0 => continue,
                    Poll::Ready(_) => return Poll::Ready(Err(UploadError::ClientGone)),
                },
                Err(e) => return Poll::Ready(Err(UploadError::Framing(e))),
            }
            // A length-delimited body ends with its last byte, not with an empty read.
            if self.upload.as_ref().is_some_and(|u| !u.chunked && u.decoder.is_done()) {
                self.upload = None;
            }
        }
    }
}

/// Reads ahead, up to a bound. Ready once the client has gone.
fn poll_ahead<R: AsyncRead + Unpin>(client: &mut R, inbox: &mut Inbox, cx: &mut Context<'_>) -> Poll<UploadError> {
    loop {
        match inbox.poll_fill_to(AHEAD, client, cx) {
            Poll::Ready(Ok(n)) if n > 0 => {}
            Poll::Ready(_) => return Poll::Ready(UploadError::ClientGone),
            Poll::Pending => return Poll::Pending,
        }
    }
}
