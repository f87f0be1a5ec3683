//! What is known of one provider: its circuits, bounded in number, and its keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slotted;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use super::circuit::{self, Circuit, Kind};
use super::quota::Quotas;
use super::{Entry, Look, Outcome, Place, Prompt, Seen, Slot, Time, Why};
use crate::client::inbound::Operation;
use crate::signals::Signals;

/// Circuits of one provider: callers choose the names of models, so there must be an end to it.
const CIRCUITS: usize = 256;
/// Bytes that are kept of a model's name.
const NAME: usize = 128;
/// A key that was refused is tried again after this time; one without money each time, since nothing says that there is
/// some again.
const FIRST_REST: Duration = Duration::from_secs(600);
/// And at least so often.
const LONGEST_REST: Duration = Duration::from_secs(24 * 3600);

/// For keys that are hashes already.
#[derive(Debug, Default, Clone)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("ids are numbers");
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// One target.
#[derive(Debug)]
struct Known {
    slot: Slot,
    model: Box<str>,
    operation: Operation,
    circuit: Circuit,
    quotas: Quotas,
    /// A moving average.
    first_ms: Option<u32>,
    used: Time,
}

/// A stored key that was refused.
#[derive(Debug, Clone, Copy)]
struct Refusals {
    slot: Slot,
    why: Why,
    since: Time,
    until: Time,
    times: u32,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    targets: HashMap<u64, Known, BuildHasherDefault<AsItIs>>,
    /// Few, if any: a list is all they need.
    refused: Vec<Refusals>,
}

impl Table {
    pub(super) fn look(&self, now: Time, id: u64, slot: Slot, prompt: impl Prompt) -> Seen {
        let key = self.refused.iter().find(|refusals| refusals.slot == slot && now < refusals.until);
        let known = self.targets.get(&id);
        let look = match (key, known) {
            (Some(refusals), _) => Look::KeyRefused(refusals.until, refusals.why),
            (None, None) => Look::Well,
            (None, Some(known)) => match known.circuit.look(now) {
                circuit::Look::Closed => known.quotas.short_until(prompt, now).map_or(Look::Well, Look::Spent),
                circuit::Look::Ready => Look::Probing,
                circuit::Look::Open(until) => Look::Open(until, known.circuit.why()),
                circuit::Look::Trying => Look::BeingTried(known.circuit.why()),
            },
        };
        Seen {
            look,
            left: known.and_then(|known| known.quotas.left(now)),
            first_ms: known.and_then(|known| known.first_ms),
        }
    }

    pub(super) fn enter(
        &mut self,
        now: Time,
        id: u64,
        place: &Place<'_>,
        prompt: impl Prompt,
        entry: Entry,
    ) -> Option<Kind> {
        let look = self.look(now, id, place.slot, &prompt).look;
        if entry == Entry::IfWell && !look.is_open_to_requests() {
            return None;
        }
        let known = self.known(now, id, place);
        known.quotas.take(prompt, now);
        match entry {
            Entry::IfWell => known.circuit.enter(now),
            Entry::LastResort => Some(known.circuit.force(now)),
        }
    }

    /// The target of this id; where there is no room for one more, the one that was not used for longest goes.
    fn known(&mut self, now: Time, id: u64, place: &Place<'_>) -> &mut Known {
        if self.targets.len() >= CIRCUITS
            && !self.targets.contains_key(&id)
            && let Some(oldest) = self.targets.iter().min_by_key(|(_, known)| known.used).map(|(id, _)| *id)
        {
            self.targets.remove(&oldest);
        }
        let known = match self.targets.entry(id) {
            Slotted::Occupied(known) => known.into_mut(),
            Slotted::Vacant(free) => free.insert(Known {
                slot: place.slot,
                model: place.model.get(..place.model.floor_char_boundary(NAME)).unwrap_or_default().into(),
                operation: place.operation,
                circuit: Circuit::default(),
                quotas: Quotas::default(),
                first_ms: None,
                used: now,
            }),
        };
        known.used = now;
        known
    }

    pub(super) fn record(&mut self, now: Time, id: u64, slot: Slot, kind: Kind, outcome: Outcome) {
        let outcome = match outcome {
            // Who does not count may say so by refusing the key, which says nothing of what else that is good for.
            Outcome::KeyRefused(why) if self.targets.get(&id).is_some_and(Known::counts) => Outcome::Failed(why),
            outcome => outcome,
        };
        match outcome {
            Outcome::KeyRefused(why) => self.refuse(now, slot, why),
            Outcome::Good { .. } => self.refused.retain(|refusals| refusals.slot != slot),
            Outcome::Answered | Outcome::Overtaken | Outcome::Failed(_) | Outcome::Limited(..) => {}
        }
        let Some(known) = self.targets.get_mut(&id) else { return };
        if let Outcome::Good { first: Some(first) } = outcome {
            let first = u32::try_from(first.as_millis()).unwrap_or(u32::MAX);
            known.first_ms = Some(known.first_ms.map_or(first, |before| before - before / 8 + first / 8));
        }
        known.circuit.record(now, kind, outcome.verdict());
    }

    fn refuse(&mut self, now: Time, slot: Slot, why: Why) {
        let before =
            self.refused.iter().position(|refusals| refusals.slot == slot).map(|at| self.refused.swap_remove(at));
        let (since, times) = before.map_or((now, 0), |refusals| (refusals.since, refusals.times));
        let rest = match why {
            Why::Money => FIRST_REST,
            _ => FIRST_REST.saturating_mul(1 << times.min(16)).min(LONGEST_REST),
        };
        self.refused.push(Refusals { slot, why, since, until: now + rest, times: times + 1 });
    }

    /// Whether this key was refused, and not accepted since.
    pub(super) fn is_refused(&self, slot: Slot) -> bool {
        self.refused.iter().any(|refusals| refusals.slot == slot)
    }

    pub(super) fn heed(&mut self, now: Time, id: u64, signals: &Signals) {
        if let Some(known) = self.targets.get_mut(&id) {
            known.quotas.heed(signals, now);
        }
    }

    pub(super) fn abandon(&mut self, id: u64, kind: Kind) {
        if let Some(known) = self.targets.get_mut(&id) {
            known.circuit.abandon(kind);
        }
    }

    pub(super) fn forgive(&mut self, slot: Slot) {
        self.refused.retain(|refusals| refusals.slot != slot);
        for known in self.targets.values_mut().filter(|known| known.slot == slot) {
            (known.circuit, known.quotas) = (Circuit::default(), Quotas::default());
        }
    }

    pub(super) fn reset(&mut self) {
        self.refused.clear();
        for known in self.targets.values_mut() {
            (known.circuit, known.quotas) = (Circuit::default(), Quotas::default());
        }
    }

    pub(super) fn report(&self, now: Time) -> (Vec<CircuitReport>, Vec<KeyReport>) {
        let mut circuits: Vec<_> = self.targets.values().map(|known| known.report(now)).collect();
        circuits
            .sort_by(|a, b| (&a.model, a.operation.as_str(), a.slot).cmp(&(&b.model, b.operation.as_str(), b.slot)));
        let keys = self.refused.iter().map(|refusals| KeyReport {
            slot: refusals.slot,
            why: refusals.why,
            refused_for: refusals.since.until(now),
            again_in: now.until(refusals.until),
        });
        (circuits, keys.collect())
    }
}

/// The state of a circuit, as reports name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests go through.
    Closed,
    /// They do not, for this time.
    Open(Duration),
    /// One finds out, or the next one does.
    HalfOpen,
}

/// What is known of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitReport {
    /// The credential.
    pub slot: Slot,
    /// The model.
    pub model: Box<str>,
    /// What was asked.
    pub operation: Operation,
    /// Whether requests go through.
    pub state: State,
    /// Why it is open, or what went wrong last.
    pub why: Option<Why>,
    /// Of the recent outcomes, how many failed.
    pub failed: usize,
    /// How many were slow.
    pub slow: usize,
    /// How many there are.
    pub recent: usize,
    /// How long the first event takes, in milliseconds.
    pub first_ms: Option<u32>,
    /// What is left of the scarcest rate limit, in thousandths.
    pub left: Option<u32>,
    /// For how long the rate limits leave no room for another request.
    pub spent: Option<Duration>,
}

/// A stored key that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyReport {
    /// Which one.
    pub slot: Slot,
    /// It is not accepted, or has no money left.
    pub why: Why,
    /// For how long it has been refused.
    pub refused_for: Duration,
    /// When it is tried again.
    pub again_in: Duration,
}

impl Known {
    fn counts(&self) -> bool {
        self.operation == Operation::CountTokens
    }

    fn report(&self, now: Time) -> CircuitReport {
        let (failed, slow, recent) = self.circuit.counts(now);
        CircuitReport {
            slot: self.slot,
            model: self.model.clone(),
            operation: self.operation,
            state: match self.circuit.look(now) {
                circuit::Look::Closed => State::Closed,
                circuit::Look::Open(until) => State::Open(now.until(until)),
                circuit::Look::Ready | circuit::Look::Trying => State::HalfOpen,
            },
            why: self.circuit.why(),
            failed,
            slow,
            recent,
            first_ms: self.first_ms,
            left: self.quotas.left(now),
            spent: self.quotas.short_until(1u64, now).map(|until| now.until(until)),
        }
    }
}
