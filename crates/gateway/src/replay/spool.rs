//! One answer on its way through memory: written by its exchange, read by the client that asked for it, or by the one
//! that comes back.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::inbound::Claim;
use crate::lock::{Locked, lock};
use crate::recorder::Delivery;

/// Bytes of one answer that are kept for a client that comes back.
const ANSWER: usize = 16 * 1024 * 1024;
/// Bytes that wait for a reader where they are not kept anyway.
const AHEAD: usize = if cfg!(test) { 8 } else { 256 * 1024 };

/// How an answer ended, as far as its bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The connection can carry another request.
    pub keep: bool,
    /// It is worth giving to a client that comes back.
    pub good: bool,
}

/// In which state an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Somebody reads it.
    Read,
    /// Nobody has read it since then.
    Waits(Instant),
    /// It was read to its end, or given up.
    Over,
}

/// An answer: head and body, as they go to the client.
pub struct Spool {
    state: Mutex<State>,
    /// Its stage has changed.
    changed: Notify,
    delivery: Arc<Delivery>,
}

struct State {
    pieces: VecDeque<Bytes>,
    /// How many pieces came before the first that is there.
    before: usize,
    /// Bytes that came in all.
    bytes: usize,
    /// Bytes that were not read.
    ahead: usize,
    /// All of it is there, for another one who asks for it; else only what was not read.
    keeps: bool,
    /// Its share of the memory.
    claim: Option<Claim>,
    /// The next piece of the reader's; `None`: nobody reads.
    next: Option<usize>,
    left: Instant,
    end: Option<End>,
    over: bool,
    writer: Option<Waker>,
    closer: Option<Waker>,
    reader: Option<Waker>,
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "Spool({} bytes, keeps: {}, {:?}, over: {})", state.bytes, state.keeps, state.end, state.over)
    }
}

impl State {
    fn wake(&mut self) {
        [self.writer.take(), self.closer.take(), self.reader.take()].into_iter().flatten().for_each(Waker::wake);
    }

    /// It is for nobody any more.
    fn give_up(&mut self) {
        (self.over, self.keeps, self.claim) = (true, false, None);
        self.pieces = VecDeque::new();
        self.wake();
    }

    /// From here on only what was not read is held.
    fn stop_keeping(&mut self) {
        (self.keeps, self.claim) = (false, None);
        match self.next {
            Some(next) => {
                self.pieces.drain(..next - self.before);
                self.before = next;
            }
            None => self.give_up(),
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        self.ahead += bytes.len();
        self.pieces.push_back(bytes);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Spool {
    /// A new answer with its first reader.
    pub fn new(claim: Claim) -> (Arc<Self>, Reader) {
        let state = State {
            pieces: VecDeque::new(),
            before: 0,
            bytes: 0,
            ahead: 0,
            keeps: true,
            claim: Some(claim),
            next: Some(0),
            left: Instant::now(),
            end: None,
            over: false,
            writer: None,
            closer: None,
            reader: None,
        };
        let delivery = Delivery::new();
        let this = Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), delivery });
        (this.clone(), Reader { spool: this })
    }

    fn lock(&self) -> Locked<'_, State> {
        lock(&self.state)
    }

    /// To whom it is given.
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Whether another client could still have all of it.
    pub fn keeps(&self) -> bool {
        let state = self.lock();
        state.keeps && !state.over && state.end.is_none_or(|end| end.good)
    }

    /// The answer is over.
    pub fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        if !end.good && state.next.is_none() {
            state.give_up();
        }
        state.wake();
        drop(state);
        self.changed.notify_waiters();
    }

    /// Nobody comes for it any more.
    pub fn give_up(&self) {
        self.lock().give_up();
        self.changed.notify_waiters();
        self.delivery.give_up();
    }

    /// Nobody has come for it in time. `false`: somebody has, in this moment.
    pub fn expire(&self) -> bool {
        let mut state = self.lock();
        if state.next.is_some() {
            return false;
        }
        state.give_up();
        drop(state);
        self.changed.notify_waiters();
        self.delivery.give_up();
        true
    }

    /// In which state it is.
    pub fn stage(&self) -> Stage {
        let state = self.lock();
        match (state.over, state.next) {
            (true, _) => Stage::Over,
            (false, Some(_)) => Stage::Read,
            (false, None) => Stage::Waits(state.left),
        }
    }

    /// Waits until it is in another state than this one.
    pub async fn leaves(&self, stage: Stage) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.stage() != stage {
                return;
            }
            changed.await;
        }
    }

    /// For a client that comes back, from its beginning, if nobody reads it.
    pub(super) fn read_again(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        let good = state.end.is_none_or(|end| end.good);
        if state.over || !state.keeps || state.next.is_some() || !good {
            return None;
        }
        (state.next, state.ahead) = (Some(0), state.bytes);
        drop(state);
        self.changed.notify_waiters();
        Some(Reader { spool: self.clone() })
    }
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes for the client.
    Data(Bytes),
    /// That was all.
    End(End),
}

/// The one reader of an answer. Dropped before its end it leaves the answer to the next, or ends it.
#[derive(Debug)]
pub struct Reader {
    spool: Arc<Spool>,
}

impl Reader {
    /// The answer.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.spool
    }

    /// What comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let mut state = self.spool.lock();
        let next = state.next.unwrap_or_default();
        if let Some(piece) = state.pieces.get(next - state.before).cloned() {
            state.next = Some(next + 1);
            state.ahead -= piece.len();
            if !state.keeps {
                state.pieces.pop_front();
                state.before += 1;
                if let Some(writer) = state.writer.take() {
                    writer.wake();
                }
            }
            return Poll::Ready(Piece::Data(piece));
        }
        if let Some(end) = state.end {
            return Poll::Ready(Piece::End(end));
        }
        if state.over {
            return Poll::Ready(Piece::End(End { keep: false, good: false }));
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The client has it all.
    pub fn delivered(self) {
        self.spool.lock().give_up();
        self.spool.changed.notify_waiters();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.spool.lock().over {
            return;
        }
        // First of all: a record that is settled from now on waits.
        self.spool.delivery.left();
        let mut state = self.spool.lock();
        (state.next, state.left) = (None, Instant::now());
        let ends = !state.keeps || state.end.is_some_and(|end| !end.good);
        if ends {
            state.give_up();
        }
        drop(state);
        if ends {
            self.spool.delivery.give_up();
        }
        self.spool.changed.notify_waiters();
    }
}

/// The exchange's side of it: in place of the client's connection. It says nothing; it closes when nobody comes any more.
#[derive(Debug)]
pub struct Pump {
    spool: Arc<Spool>,
    /// Counts answers that became too large to be kept.
    pub(super) outgrown: Arc<std::sync::atomic::AtomicU64>,
}

impl Pump {
    pub(super) fn new(spool: Arc<Spool>, outgrown: Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { spool, outgrown }
    }

    fn take(&self, slices: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let len = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let mut state = self.spool.lock();
        if !state.over && state.keeps {
            let fits = state.bytes + len <= ANSWER && state.claim.as_mut().is_some_and(|claim| claim.grow(len));
            if !fits {
                self.outgrown.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                state.stop_keeping();
                if state.over {
                    drop(state);
                    self.spool.changed.notify_waiters();
                    self.spool.delivery.give_up();
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
        if state.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !state.keeps && state.ahead > AHEAD {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = Vec::with_capacity(len);
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        state.push(bytes.into());
        Poll::Ready(Ok(len))
    }
}

impl AsyncRead for Pump {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.spool.lock();
        if state.over {
            return Poll::Ready(Ok(()));
        }
        state.closer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Pump {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.take(&[IoSlice::new(bytes)], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(slices, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
