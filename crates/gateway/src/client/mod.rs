//! One accepted connection: reading requests off it, writing answers to it, noticing when nobody is there any more.

pub mod edge;
pub mod inbound;
pub mod peer;
pub mod respond;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http1::{HeadError, Limits, RequestHead, Scan};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::client::peer::Peer;
use crate::client::respond::Answer;
use crate::io::{Alarm, Inbox, Io, Outbox, discard};

/// What a client's head may be at most.
const LIMITS: Limits = Limits { bytes: 64 * 1024, fields: 128 };
/// A head must be whole so long after its first byte.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A connection may wait so long for its next request.
const IDLE_TIME: Duration = Duration::from_secs(300);
/// A client that takes nothing of an answer for so long is given up.
const STALL_TIME: Duration = Duration::from_secs(30);
/// What a client may still send of a request that was refused, and for how long, before its connection is closed.
const LINGER_BYTES: usize = 128 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(5);
/// How long one may still say that it has seen the end, where nothing of a request is left to come.
const FAREWELL_TIME: Duration = Duration::from_millis(500);
/// Bytes of a next request that are read while an answer is still under way.
const PIPELINED: usize = 64 * 1024;

/// The steps of a shutdown.
#[derive(Debug, Clone)]
pub struct Phases {
    /// No new requests: idle connections end.
    pub drain: CancellationToken,
    /// No more waiting: running streams end with an error event.
    pub cut: CancellationToken,
    /// No last words either.
    pub kill: CancellationToken,
}

impl Phases {
    /// Phases that follow these, for one worker: its tasks then share no lock with those of others.
    pub fn child(&self) -> Self {
        Self { drain: self.drain.child_token(), cut: self.cut.child_token(), kill: self.kill.clone() }
    }
}

impl Default for Phases {
    fn default() -> Self {
        let new = CancellationToken::new;
        Self { drain: new(), cut: new(), kill: new() }
    }
}

/// Why waiting for something else came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupted {
    /// The client has closed or failed.
    Gone,
    /// The deadline has passed.
    Deadline,
    /// The process ends.
    Cut,
}

/// What came instead of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRequest {
    /// The client has closed, or waited too long, or the process ends: nobody expects an answer.
    Closed,
    /// A head that is refused.
    Bad(HeadError),
    /// A head that did not become whole in time.
    Slow,
}

/// One accepted connection.
pub struct Client<S> {
    /// The transport.
    pub io: S,
    /// What was read and not yet understood.
    pub inbox: Inbox,
    /// What is to be written.
    pub out: Outbox,
    /// The one timer of this connection.
    pub alarm: Alarm,
    /// Who is on the other end.
    pub peer: Peer,
    /// Whether bytes of the current request's body may still be unread.
    pub unread: bool,
    /// Makes the end of the transport a reset.
    reset: fn(&S),
    is_reset: bool,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
}

impl<S> std::fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.peer)
    }
}

impl<S: Io> Client<S> {
    /// A connection that was just accepted. `reset` sees to it that its end, when it comes, is no orderly one.
    pub fn new(io: S, peer: Peer, phases: &Phases, reset: fn(&S)) -> Self {
        Self {
            io,
            inbox: Inbox::default(),
            out: Outbox::default(),
            alarm: Alarm::default(),
            peer,
            unread: false,
            reset,
            is_reset: false,
            drain: Box::pin(phases.drain.clone().cancelled_owned()),
            cut: Box::pin(phases.cut.clone().cancelled_owned()),
            is_cut: false,
        }
    }

    /// The next request's head.
    pub async fn next_head(&mut self) -> Result<RequestHead, NoRequest> {
        let mut scan = Scan::default();
        let mut deadline = None;
        std::future::poll_fn(|cx| {
            loop {
                match RequestHead::take(&mut self.inbox, &mut scan, &LIMITS) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(e) => return Poll::Ready(Err(NoRequest::Bad(e))),
                }
                let begun = !self.inbox.is_empty();
                match self.inbox.poll_fill(&mut self.io, cx) {
                    Poll::Ready(Ok(n)) if n > 0 => {
                        if !begun {
                            deadline = None;
                        }
                        continue;
                    }
                    Poll::Ready(_) => return Poll::Ready(Err(NoRequest::Closed)),
                    Poll::Pending => {}
                }
                if !begun && self.poll_drain(cx).is_ready() || self.poll_cut(cx).is_ready() {
                    return Poll::Ready(Err(NoRequest::Closed));
                }
                // Most heads come whole: nobody asks for the time before it is clear that one has to be waited for.
                let deadline =
                    deadline.get_or_insert_with(|| Instant::now() + if begun { HEAD_TIME } else { IDLE_TIME });
                return match self.alarm.poll(*deadline, cx) {
                    Poll::Ready(()) if begun => Poll::Ready(Err(NoRequest::Slow)),
                    Poll::Ready(()) => Poll::Ready(Err(NoRequest::Closed)),
                    Poll::Pending => Poll::Pending,
                };
            }
        })
        .await
    }

    /// Ready once the client has closed. Bytes of a next request are kept, up to a bound.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.inbox.poll_fill_to(PIPELINED, &mut self.io, cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.drain.as_mut().poll(cx)
    }

    /// Ready once the process ends.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A future that has ended must not be polled again.
        self.is_cut = self.is_cut || self.cut.as_mut().poll(cx).is_ready();
        if self.is_cut { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Writes what is in the outbox. `false`: the client is gone, or takes nothing.
    pub async fn flush(&mut self) -> bool {
        let Self { io, out, alarm, .. } = self;
        let flushed = alarm.within(Instant::now() + STALL_TIME, out.flush(io)).await;
        let flushed = matches!(flushed, Some(Ok(())));
        if !flushed {
            out.clear();
        }
        flushed
    }

    /// Sends an answer of our own. `true`: the connection can carry another request.
    pub async fn answer(&mut self, answer: &Answer, id: &str, keep_alive: bool, to_head: bool) -> bool {
        let keep_alive = keep_alive && !self.unread;
        answer.encode(id, keep_alive, to_head).into_iter().for_each(|part| self.out.push(part));
        self.flush().await && keep_alive
    }

    /// Lets the connection end in a reset: for a client to which an orderly end would be the end of a whole body.
    pub fn reset(&mut self) {
        self.is_reset = true;
    }

    /// Ends the connection so that an answer under way still arrives: closing a socket with unread bytes resets it.
    pub async fn close(mut self) {
        if !self.flush().await {
            return;
        }
        if self.is_reset {
            return (self.reset)(&self.io);
        }
        let time = if self.unread { LINGER_TIME } else { FAREWELL_TIME };
        let Self { io, inbox, alarm, .. } = &mut self;
        let ending = async {
            let _ = tokio::io::AsyncWriteExt::shutdown(io).await;
            discard(inbox, io, LINGER_BYTES).await;
        };
        let _ = alarm.within(Instant::now() + time, ending).await;
    }

    /// Drives `work` until it is ready, the client is gone, the deadline has passed, or the process ends.
    pub async fn watch<T>(
        &mut self,
        deadline: Instant,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, Interrupted> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_interrupted(deadline, cx).map(Err)
        })
        .await
    }

    /// Ready when there is no point in waiting any longer.
    pub fn poll_interrupted(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<Interrupted> {
        if self.poll_gone(cx).is_ready() {
            return Poll::Ready(Interrupted::Gone);
        }
        if self.poll_cut(cx).is_ready() {
            return Poll::Ready(Interrupted::Cut);
        }
        self.alarm.poll(deadline, cx).map(|()| Interrupted::Deadline)
    }
}
