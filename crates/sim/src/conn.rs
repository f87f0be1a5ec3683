//! One connection: bytes out, and an eye on the client while they go.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// The client has closed its side, or the connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// How much of a next request is read ahead while an answer is written. Behind it a client's end is seen only when the
/// next byte is written.
const READ_AHEAD: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Conn<S> {
    io: S,
    pub(crate) input: BytesMut,
    reset: fn(&S),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// `reset` makes the end of `io` a reset instead of a clean one, where the transport can.
    pub(crate) fn new(io: S, reset: fn(&S)) -> Self {
        Self { io, input: BytesMut::new(), reset }
    }

    /// Reads more of a request.
    pub(crate) async fn read(&mut self) -> Result<(), Gone> {
        self.input.reserve(16 << 10);
        match self.io.read_buf(&mut self.input).await {
            Ok(0) | Err(_) => Err(Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Writes all of `data`; ends at once if the client goes.
    pub(crate) async fn send(&mut self, mut data: &[u8], sent: &AtomicU64) -> Result<(), Gone> {
        poll_fn(|cx| {
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            while !data.is_empty() {
                match Pin::new(&mut self.io).poll_write(cx, data) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        sent.fetch_add(n as u64, Ordering::Relaxed);
                        data = &data[n..];
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Pin::new(&mut self.io).poll_flush(cx).map_err(|_| Gone)
        })
        .await
    }

    /// Waits; ends at once if the client goes.
    pub(crate) async fn pause(&mut self, time: Duration) -> Result<(), Gone> {
        if time.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            gone = poll_fn(|cx| self.poll_gone(cx)) => Err(gone),
            () = tokio::time::sleep(time) => Ok(()),
        }
    }

    /// Waits until the client goes.
    pub(crate) async fn hang(&mut self) -> Gone {
        poll_fn(|cx| self.poll_gone(cx)).await
    }

    /// Ends with a reset.
    pub(crate) fn reset(self) {
        (self.reset)(&self.io);
    }

    /// Ends cleanly: says so, and then takes what the client is still sending, for a while, so that unread bytes do not
    /// turn the end into a reset that overtakes the answer.
    pub(crate) async fn close(mut self) {
        if self.io.shutdown().await.is_err() {
            return;
        }
        let mut left = 64u64 << 20;
        let drain = async {
            while left > 0 && self.read().await.is_ok() {
                left = left.saturating_sub(self.input.len() as u64);
                self.input.clear();
            }
        };
        tokio::time::timeout(Duration::from_secs(2), drain).await.ok();
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let mut space = [0; 2048];
        while self.input.len() < READ_AHEAD {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => self.input.extend_from_slice(buf.filled()),
                Poll::Ready(_) => return Poll::Ready(Gone),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}

/// The count of bytes written for one answer, readable while it is written.
pub(crate) type Sent = Arc<AtomicU64>;
