//! The way from those who have bodies to the one who writes them: bounded in bytes and entries, and nobody waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Body, Skip};

/// How long the writer waits for more, so that bodies are written together.
const LINGER: Duration = Duration::from_millis(25);
/// With this much waiting, it does not wait for more.
const RUSH_BYTES: usize = 256 * 1024;
const RUSH_ITEMS: usize = 200;
/// What an entry costs beside its bytes.
const OVERHEAD: usize = 256;

/// What the writer is given.
pub(super) enum Item<C> {
    Body(Body),
    Command(C),
}

pub(super) struct Queue<C> {
    state: Mutex<State<C>>,
    ready: Condvar,
    max_bytes: usize,
    max_items: usize,
}

struct State<C> {
    items: VecDeque<Item<C>>,
    /// Bytes that wait.
    waiting: usize,
    /// Bytes that wait or are being written: all that is in memory.
    held: usize,
    rush: bool,
    closed: bool,
}

impl<C> State<C> {
    fn hurried(&self) -> bool {
        self.closed || self.rush || self.waiting >= RUSH_BYTES || self.items.len() >= RUSH_ITEMS
    }
}

/// What `take` brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// So many bytes of bodies, to be given back with `done`.
    Items(usize),
    /// Nothing came.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl<C> Queue<C> {
    pub(super) fn new(max_bytes: usize, max_items: usize) -> Self {
        let state = State { items: VecDeque::new(), waiting: 0, held: 0, rush: false, closed: false };
        Self { state: Mutex::new(state), ready: Condvar::new(), max_bytes, max_items }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never waits for the writer. A body that is larger than the whole queue is taken while nothing else is held.
    pub(super) fn submit(&self, body: Body) -> Result<(), Skip> {
        let cost = body.pieces.iter().map(|piece| piece.len()).sum::<usize>() + OVERHEAD;
        let mut state = self.state();
        if state.closed {
            return Err(Skip::Closed);
        }
        let too_much = state.held > 0 && state.held.saturating_add(cost) > self.max_bytes;
        if too_much || state.items.len() >= self.max_items {
            return Err(Skip::QueueFull);
        }
        let calm = !state.hurried();
        state.items.push_back(Item::Body(body));
        state.held += cost;
        state.waiting += cost;
        // The writer is woken twice at most for all that it takes at once.
        let wake = state.items.len() == 1 || calm && state.hurried();
        drop(state);
        if wake {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// For whoever waits for the answer: that is what bounds the number of commands.
    pub(super) fn command(&self, command: C) -> Result<(), Skip> {
        let mut state = self.state();
        if state.closed {
            return Err(Skip::Closed);
        }
        state.items.push_back(Item::Command(command));
        state.rush = true;
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Moves all that waits into `items`, which is empty.
    pub(super) fn take(&self, items: &mut VecDeque<Item<C>>, idle: Duration) -> Taken {
        let nothing = |state: &mut State<C>| state.items.is_empty() && !state.closed;
        let waited = self.ready.wait_timeout_while(self.state(), idle, nothing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.items.is_empty() {
            return if state.closed { Taken::Closed } else { Taken::Idle };
        }
        if !state.hurried() {
            let waited = self.ready.wait_timeout_while(state, LINGER, |state| !state.hurried());
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut state.items, items);
        state.rush = false;
        Taken::Items(std::mem::take(&mut state.waiting))
    }

    /// These bytes are not in memory any more.
    pub(super) fn done(&self, bytes: usize) {
        let mut state = self.state();
        state.held = state.held.saturating_sub(bytes);
    }

    /// Nothing more is accepted; what waits is still taken.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }

    /// Entries and bytes that are held.
    pub(super) fn load(&self) -> (usize, usize) {
        let state = self.state();
        (state.items.len(), state.held)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::Kind;
    use super::*;

    fn body(len: usize) -> Body {
        Body {
            exchange: [0; 16],
            kind: Kind::Request,
            coding: None,
            session: None,
            pieces: vec![Bytes::from(vec![0; len])],
            time_ms: 0,
        }
    }

    #[test]
    fn bytes_count_until_they_are_written() {
        let queue: Queue<()> = Queue::new(10_000, 100);
        assert_eq!(queue.submit(body(6000)), Ok(()));
        assert_eq!(queue.submit(body(6000)), Err(Skip::QueueFull));
        let mut items = VecDeque::new();
        let Taken::Items(bytes) = queue.take(&mut items, Duration::ZERO) else { panic!() };
        assert_eq!((items.len(), bytes), (1, 6000 + OVERHEAD));
        assert_eq!(queue.submit(body(6000)), Err(Skip::QueueFull), "still in memory");
        queue.done(bytes);
        assert_eq!(queue.submit(body(6000)), Ok(()));
    }

    #[test]
    fn a_body_larger_than_the_queue_is_taken_alone() {
        let queue: Queue<()> = Queue::new(1000, 100);
        assert_eq!(queue.submit(body(5000)), Ok(()));
        assert_eq!(queue.submit(body(1)), Err(Skip::QueueFull));
    }

    #[test]
    fn entries_are_bounded_too() {
        let queue: Queue<()> = Queue::new(1 << 20, 2);
        assert_eq!([0; 3].map(|len| queue.submit(body(len))), [Ok(()), Ok(()), Err(Skip::QueueFull)]);
    }

    #[test]
    fn after_closing_what_waits_is_taken_and_nothing_is_added() {
        let queue: Queue<()> = Queue::new(1 << 20, 2);
        queue.submit(body(1)).unwrap();
        queue.close();
        assert_eq!(queue.submit(body(1)), Err(Skip::Closed));
        assert_eq!(queue.command(()), Err(Skip::Closed));
        let mut items = VecDeque::new();
        assert_eq!(queue.take(&mut items, Duration::ZERO), Taken::Items(1 + OVERHEAD));
        items.clear();
        assert_eq!(queue.take(&mut items, Duration::ZERO), Taken::Closed);
    }
}
