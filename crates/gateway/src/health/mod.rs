//! What is known of the upstreams: which targets work, which keys are accepted, how much may still be asked of them.
//!
//! A circuit belongs to a provider, one of its keys, a model and an operation, so that a model that is overloaded does
//! not close the others, and a `count_tokens` that is not there does not close messages. Time is passed in. Each
//! provider has a lock of its own, which is held for a look-up and some arithmetic, never while anything is waited for.

mod circuit;
mod outcome;
mod quota;
mod table;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::ops::Add;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::client::inbound::Operation;
use crate::signals::Signals;

pub use outcome::{Outcome, Why};
pub use table::{CircuitReport, KeyReport, State};

use circuit::Kind;
pub(crate) use table::AsItIs;
use table::Table;

/// A moment, in milliseconds since the gateway began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(u64);

impl Time {
    /// So many milliseconds after the beginning.
    pub fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the beginning.
    pub fn ms(self) -> u64 {
        self.0
    }

    /// Milliseconds since an earlier moment; 0 if it was not earlier.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is until then.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.since(self))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(more.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Which credential goes to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// The caller's own.
    Client,
    /// The stored one at this place of the provider's list.
    Stored(u8),
    /// None: the provider wants none.
    None,
}

impl Slot {
    /// Writes its name.
    pub(crate) fn write(self, out: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Client => out.write_str("the caller's key"),
            Self::Stored(at) => {
                out.write_str("key ")?;
                write_number(usize::from(at) + 1, out)
            }
            Self::None => out.write_str("no key"),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// Writes a number of few digits.
pub(crate) fn write_number(number: usize, out: &mut impl fmt::Write) -> fmt::Result {
    if number >= 10 {
        write_number(number / 10, out)?;
    }
    out.write_char(char::from(b'0' + (number % 10) as u8))
}

/// A target, as far as its health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The provider's place in the configuration.
    pub provider: u16,
    /// The credential.
    pub slot: Slot,
    /// The model as the provider names it; empty where none is named.
    pub model: &'a str,
    /// What is asked.
    pub operation: Operation,
}

/// Whether a target can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It can.
    Well,
    /// The next request finds out for all.
    Probing,
    /// Not until then.
    Open(Time, Option<Why>),
    /// Another request is finding out.
    BeingTried(Option<Why>),
    /// Its rate limits leave no room for this request until then.
    Spent(Time),
    /// Its key was refused, or has no money left; it is tried again then.
    KeyRefused(Time, Why),
}

impl Look {
    /// Whether a request may go there.
    pub fn is_open_to_requests(self) -> bool {
        matches!(self, Self::Well | Self::Probing)
    }

    /// When a request may go there, where that is known.
    pub fn until(self) -> Option<Time> {
        match self {
            Self::Open(until, _) | Self::Spent(until) | Self::KeyRefused(until, _) => Some(until),
            Self::Well | Self::Probing | Self::BeingTried(_) => None,
        }
    }
}

/// What is known of a target beside whether it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whether it can be used.
    pub look: Look,
    /// What is left of its scarcest rate limit, in thousandths.
    pub left: Option<u32>,
    /// How long its first event takes, in milliseconds.
    pub first_ms: Option<u32>,
}

/// What is known of all upstreams.
#[derive(Debug, Default)]
pub struct Health {
    providers: Vec<Arc<One>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct One {
    /// Who it is: what is known survives a new configuration in which it is the same.
    identity: String,
    table: Mutex<Table>,
}

impl One {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// Nothing is known yet of these providers, in the order of the configuration. An identity names all that makes a
    /// provider the same one: its name, its address, where its keys are.
    pub fn new(identities: impl IntoIterator<Item = String>) -> Self {
        Self::default().renewed(identities)
    }

    /// For another configuration: what is known stays with the providers that are the same. Requests that run on see it
    /// too.
    pub fn renewed(&self, identities: impl IntoIterator<Item = String>) -> Self {
        let same = |identity: &String| self.providers.iter().find(|one| one.identity == *identity).cloned();
        let providers = identities
            .into_iter()
            .map(|identity| same(&identity).unwrap_or_else(|| Arc::new(One { identity, table: Mutex::default() })))
            .collect();
        Self { providers, hasher: self.hasher.clone() }
    }

    fn id(&self, place: &Place<'_>) -> u64 {
        let slot = match place.slot {
            Slot::Stored(at) => u64::from(at),
            Slot::Client => 0x100,
            Slot::None => 0x200,
        };
        // One number and one text: a hasher has as much to do for each piece as for what is in it.
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(slot << 8 | place.operation as u64);
        hasher.write(place.model.as_bytes());
        hasher.finish()
    }

    fn table(&self, provider: u16) -> Option<MutexGuard<'_, Table>> {
        Some(self.providers.get(usize::from(provider))?.lock())
    }

    /// Looks at a target for a prompt. Nothing changes.
    pub fn look(&self, now: Time, place: &Place<'_>, prompt: impl Prompt) -> Seen {
        let well = Seen { look: Look::Well, left: None, first_ms: None };
        self.table(place.provider).map_or(well, |table| table.look(now, self.id(place), place.slot, &prompt))
    }

    /// Begins an attempt, unless the target cannot be used any more. Where there is nothing else, `last_resort` goes in
    /// any case.
    pub fn enter(&self, now: Time, place: &Place<'_>, prompt: impl Prompt, entry: Entry) -> Option<Pass<'_>> {
        let id = self.id(place);
        let kind = match self.table(place.provider) {
            Some(mut table) => table.enter(now, id, place, &prompt, entry)?,
            None => Kind::Normal,
        };
        Some(Pass { health: self, provider: place.provider, slot: place.slot, id, kind, judged: false })
    }

    /// What is known, in words and numbers, of the provider at this place of the configuration.
    pub fn report(&self, now: Time, provider: u16) -> (Vec<CircuitReport>, Vec<KeyReport>) {
        self.table(provider).map_or_else(Default::default, |table| table.report(now))
    }

    /// Forgets what is known of one of a provider's keys.
    pub fn forgive(&self, provider: u16, slot: Slot) {
        if let Some(mut table) = self.table(provider) {
            table.forgive(slot);
        }
    }

    /// Forgets what is known of a provider: everything is tried anew.
    pub fn reset(&self, provider: u16) {
        if let Some(mut table) = self.table(provider) {
            table.reset();
        }
    }
}

/// A prompt, whose size is asked for only where there is a limit to compare it with: it may have to be looked for.
pub trait Prompt {
    /// Its size in tokens, by estimate.
    fn tokens(&self) -> u64;
}

impl Prompt for u64 {
    fn tokens(&self) -> u64 {
        *self
    }
}

impl<P: Prompt> Prompt for &P {
    fn tokens(&self) -> u64 {
        (**self).tokens()
    }
}

/// How an attempt wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// If the target can be used.
    IfWell,
    /// In any case: there is nothing else.
    LastResort,
}

/// An attempt that has begun. Dropped without a word it leaves no trace: its client has gone.
#[derive(Debug)]
pub struct Pass<'h> {
    health: &'h Health,
    provider: u16,
    slot: Slot,
    id: u64,
    kind: Kind,
    judged: bool,
}

impl Pass<'_> {
    /// What it came to: once when its first event is there or it has failed, and once more if it fails after that.
    pub fn record(&mut self, now: Time, outcome: Outcome) {
        if let Some(mut table) = self.health.table(self.provider) {
            table.record(now, self.id, self.slot, self.kind, outcome);
        }
        (self.judged, self.kind) = (true, Kind::Normal);
    }

    /// Whether its key was refused before, and not accepted since.
    pub fn is_key_refused(&self) -> bool {
        self.health.table(self.provider).is_some_and(|table| table.is_refused(self.slot))
    }

    /// Whether it was said what it came to.
    pub fn is_judged(&self) -> bool {
        self.judged
    }

    /// What the head of an answer said about rate limits.
    pub fn heed(&self, now: impl FnOnce() -> Time, signals: &Signals) {
        // What one caller may ask says nothing about another.
        if self.slot != Slot::Client
            && (signals.requests.is_some() || signals.tokens.iter().any(Option::is_some))
            && let Some(mut table) = self.health.table(self.provider)
        {
            table.heed(now(), self.id, signals);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.judged
            && self.kind != Kind::Normal
            && let Some(mut table) = self.health.table(self.provider)
        {
            table.abandon(self.id, self.kind);
        }
    }
}

#[cfg(test)]
mod tests;
