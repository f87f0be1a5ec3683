//! The body of an upstream's answer, as it is read. It owns its connection, so that it can outlive the client it is for.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use http1::{BodyDecoder, BodyError, Step};

use super::{Connection, Pool, Sender};
use crate::origin::Origin;

/// Why a body is not whole.
#[derive(Debug)]
pub enum Broken {
    /// The connection failed.
    Io(io::Error),
    /// The framing did not hold.
    Framing(BodyError),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                f.write_str("the upstream reset the connection")
            }
            Self::Io(e) => write!(f, "the connection to the upstream failed ({})", e.kind()),
            Self::Framing(BodyError::Truncated) => f.write_str("the upstream closed the connection before the end"),
            Self::Framing(e) => write!(f, "the upstream's framing is broken: {e}"),
        }
    }
}

/// An answer's body.
#[derive(Debug)]
pub struct UpstreamBody {
    connection: Connection,
    decoder: BodyDecoder,
    keep_alive: bool,
    /// What is left of the request where the answer came before its end.
    sender: Sender,
}

impl UpstreamBody {
    pub(super) fn new(connection: Connection, sender: Sender, decoder: BodyDecoder, keep_alive: bool) -> Self {
        Self { connection, decoder, keep_alive, sender }
    }

    /// What is left of the request, and the connection it goes on.
    pub fn sending(&mut self) -> (&mut Sender, &mut Connection) {
        (&mut self.sender, &mut self.connection)
    }

    /// The payload that one read brought, as slices of the received memory, appended to `into`. `Ready(Ok(true))`: that
    /// was the end. Never reads while something is left to hand out.
    pub fn poll_read(&mut self, into: &mut Vec<Bytes>, cx: &mut Context<'_>) -> Poll<Result<bool, Broken>> {
        loop {
            loop {
                match self.decoder.next(&mut self.connection.inbox) {
                    Ok(Step::Data(data)) => into.push(data),
                    Ok(Step::More) => break,
                    Ok(Step::End) => return Poll::Ready(Ok(true)),
                    // What was whole before the fault is handed on; the fault shows at the next call.
                    Err(_) if !into.is_empty() => return Poll::Ready(Ok(false)),
                    Err(e) => return Poll::Ready(Err(Broken::Framing(e))),
                }
            }
            if !into.is_empty() {
                return Poll::Ready(Ok(false));
            }
            let Connection { io, inbox, .. } = &mut self.connection;
            match inbox.poll_fill(io, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(self.decoder.eof().map(|()| true).map_err(Broken::Framing)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(Broken::Io(e))),
            }
        }
    }

    /// Collects the whole body, at most `limit` bytes: `Ok(None)` where it is longer.
    pub async fn collect(&mut self, limit: usize) -> Result<Option<Vec<u8>>, Broken> {
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        loop {
            let end = std::future::poll_fn(|cx| self.poll_read(&mut pieces, cx)).await?;
            for piece in pieces.drain(..) {
                if whole.len() + piece.len() > limit {
                    return Ok(None);
                }
                whole.extend_from_slice(&piece);
            }
            if end {
                return Ok(Some(whole));
            }
        }
    }

    /// Gives the connection back for the next request, if both sides agree on where this exchange ended.
    pub fn release(self, pool: &Pool, origin: &Origin) {
        if self.decoder.is_done() && self.keep_alive && self.sender.is_done() {
            pool.put(origin, self.connection);
        }
    }
}
