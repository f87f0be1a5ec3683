//! A request under way: written while the answer's head is awaited.

use std::fmt;
use std::io;
use std::task::{Context, Poll};

use http1::{BodyDecoder, HeadError, Limits, ResponseHead, Scan};

use super::{Connection, Sender, UpstreamBody};

/// What an upstream's head may be at most: generous to proxies, deadly to none of us.
const LIMITS: Limits = Limits { bytes: 64 * 1024, fields: 200 };

/// Why a request got no answer.
#[derive(Debug)]
pub enum SendError {
    /// The connection ended before the first byte of an answer.
    Closed(Option<io::Error>),
    /// It ended within the answer's head.
    HeadCut,
    /// What came is not an HTTP answer that has one meaning.
    Head(HeadError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(Some(e)) if e.kind() == io::ErrorKind::ConnectionReset => {
                f.write_str("it reset the connection before it answered")
            }
            Self::Closed(Some(e)) => write!(f, "the connection failed before it answered ({})", e.kind()),
            Self::Closed(None) => f.write_str("it closed the connection before it answered"),
            Self::HeadCut => f.write_str("it closed the connection within the head of its answer"),
            Self::Head(e) => write!(f, "its answer is not valid HTTP/1.1: {e}"),
        }
    }
}

/// A request on its connection, until the head of the answer is there.
#[derive(Debug)]
pub struct Flight {
    connection: Connection,
    sender: Sender,
    scan: Scan,
    to_head: bool,
}

impl Flight {
    /// Starts a request on a connection. `to_head`: whether its method is HEAD, whose answers have no body.
    pub fn new(connection: Connection, sender: Sender, to_head: bool) -> Self {
        Self { connection, sender, scan: Scan::default(), to_head }
    }

    /// The request's way up, and the connection it goes on.
    pub fn sending(&mut self) -> (&mut Sender, &mut Connection) {
        (&mut self.sender, &mut self.connection)
    }

    /// Writes, and reads the answer's head. An upstream that answers before it has read the whole request is heard.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, SendError>> {
        let Connection { io, inbox, .. } = &mut self.connection;
        // Progress shows in the answer, which is read below in any case.
        let _ = self.sender.poll_write(io, cx);
        loop {
            match ResponseHead::take(inbox, &mut self.scan, &LIMITS, self.to_head) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(e) => return Poll::Ready(Err(SendError::Head(e))),
            }
            // An interim answer is one, too: whoever gave it has taken the request.
            let started = !inbox.is_empty() || self.scan.is_behind_interim();
            match inbox.poll_fill(io, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) if started => return Poll::Ready(Err(SendError::HeadCut)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(SendError::Closed(self.sender.take_failure()))),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) if started => return Poll::Ready(Err(SendError::HeadCut)),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(SendError::Closed(Some(e)))),
            }
        }
    }

    /// The body of the answer whose head was read.
    pub fn into_body(self, head: &ResponseHead) -> UpstreamBody {
        UpstreamBody::new(self.connection, self.sender, BodyDecoder::new(head.framing), head.keep_alive)
    }
}
