//! To how many clients an answer was given: a record that is settled while nobody is there waits for the one who may
//! still come, so that it says so once and for all.

use std::fmt;
use std::sync::{Arc, Mutex};

use ledger::record::{Outcome, Record};

use super::{Recorder, Settling};
use crate::lock::{Locked, lock};

/// Who has got an answer, or is getting it.
pub struct Delivery(Mutex<State>);

struct State {
    /// Somebody is there.
    present: bool,
    /// How many there were.
    count: u64,
    /// Nobody comes any more.
    over: bool,
    /// What was settled while nobody was there.
    waiting: Option<Waiting>,
    /// The answer was whole, and nobody had it.
    in_vain: bool,
}

struct Waiting {
    recorder: Arc<Recorder>,
    record: Box<Record>,
    billed_as: Arc<str>,
}

impl Waiting {
    fn settle(mut self, deliveries: u64) -> Option<Settling> {
        if deliveries > 1 {
            self.record.deliveries = deliveries;
        }
        self.recorder.settle(self.record, &self.billed_as)
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        write!(f, "Delivery({}, present: {})", state.count, state.present)
    }
}

impl Delivery {
    /// To the client that asks.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { present: true, count: 1, over: false, waiting: None, in_vain: false })))
    }

    fn lock(&self) -> Locked<'_, State> {
        lock(&self.0)
    }

    /// The client has gone.
    pub fn left(&self) {
        self.lock().present = false;
    }

    /// One has come back. What is returned is awaited before it gets the end.
    pub fn came(&self) -> Option<Settling> {
        let mut state = self.lock();
        (state.present, state.count) = (true, state.count + 1);
        let (waiting, count) = (state.waiting.take(), state.count);
        drop(state);
        waiting?.settle(count)
    }

    /// Nobody comes any more: what waits is settled as what it was for the client that went.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.over = true;
        let (waiting, count) = (state.waiting.take(), state.count);
        drop(state);
        if let Some(mut waiting) = waiting {
            if waiting.record.outcome == Outcome::Success {
                waiting.record.outcome = Outcome::ClientDisconnected;
                self.lock().in_vain = true;
            }
            drop(waiting.settle(count));
        }
    }

    /// Whether the answer was whole, and nobody had it.
    pub fn was_in_vain(&self) -> bool {
        self.lock().in_vain
    }

    /// Settles the record now if somebody is there, or if nobody will be.
    pub(super) fn settle(
        &self,
        recorder: &Arc<Recorder>,
        record: Box<Record>,
        billed_as: &Arc<str>,
    ) -> Option<Settling> {
        let mut state = self.lock();
        let waiting = Waiting { recorder: recorder.clone(), record, billed_as: billed_as.clone() };
        if state.present || state.over {
            let count = state.count;
            drop(state);
            return waiting.settle(count);
        }
        state.waiting = Some(waiting);
        None
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.give_up();
    }
}
