//! From what a request is to whom it goes: an ordered list of targets, or a refusal.
//!
//! Nothing here waits, looks at a clock or throws dice: time and chance are passed in. The rules are compiled once a
//! configuration; a plan then costs one list of targets and one short look at the health of each candidate.

mod affinity;
mod answers;
mod candidates;
mod explain;
mod facts;
mod model;
mod plan;
pub mod rehearsal;
mod rules;
mod subscription;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::config::{NanoUsd, Rule};
use crate::health::{Health, Place, Slot, Time};
use crate::secret::Secret;

pub use affinity::{Affinity, Home, Measured, SessionKey};
pub use explain::{Candidate, Explanation, Ruled, Verdict};
pub use facts::Facts;
pub use plan::NoPlan;
pub use rules::{Assumed, RuleSet, vendor_of_key};
pub use subscription::{Subscriptions, UsedUp};

/// The most targets that one request can have.
pub const TARGETS: usize = 16;

/// What a request may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purse {
    /// The caller's own key, if it brought one.
    pub own: Option<OwnKey>,
    /// Whether it may spend stored keys.
    pub stored: bool,
}

/// A caller's own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnKey {
    /// The one provider that it goes to; see [`RuleSet::home_of_key`].
    pub home: u16,
    /// By which its subscription is known again; see [`Subscriptions::id`].
    pub id: u64,
}

/// What is known of the world at this moment.
#[derive(Clone, Copy)]
pub struct View<'v> {
    /// The moment.
    pub now: Time,
    /// Which targets work.
    pub health: &'v Health,
    /// Which of our keys are there.
    pub keys: &'v dyn Keys,
    /// Where sessions were served last.
    pub affinity: &'v Affinity,
    /// Which callers' subscriptions are used up.
    pub subscriptions: &'v Subscriptions,
    /// What it costs to read a prompt that a cache elsewhere holds.
    pub prices: &'v dyn Prices,
    /// Any number.
    pub chance: u64,
}

impl std::fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View(at {} ms)", self.now.ms())
    }
}

/// Which of our keys are there: they come and go while the gateway runs.
pub trait Keys {
    /// One bit for each of a provider's references that leads to a key, the first the lowest.
    fn stored(&self, provider: u16) -> u64;

    /// Why there is none, and what to do; `None`: there is no reference to one.
    fn why_none(&self, provider: u16) -> Option<String>;
}

/// What a switch to another target costs.
pub trait Prices {
    /// What reading so many tokens anew costs there; `None`: that is not known, or nothing is charged.
    fn cold(&self, provider: u16, model: &str, tokens: u64) -> Option<NanoUsd>;
}

/// Nothing is known of prices.
impl Prices for () {
    fn cold(&self, _: u16, _: &str, _: u64) -> Option<NanoUsd> {
        None
    }
}

/// Whom a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'p> {
    /// The provider's place in the configuration.
    pub provider: u16,
    /// The credential.
    pub slot: Slot,
    /// The model to ask for; empty where the request names none.
    pub model: &'p str,
    /// Whether the body must be changed to say so.
    pub renames: bool,
}

impl<'p> Target<'p> {
    /// The target, as far as its health is concerned.
    pub fn place(&self, facts: &Facts<'_>) -> Place<'p> {
        Place { provider: self.provider, slot: self.slot, model: self.model, operation: facts.operation }
    }
}

/// What decided who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause<'p> {
    /// A rule, by its place and its name.
    Rule(usize, Option<&'p str>),
    /// `agentRules`, by the agent's type as it stands there.
    Agent(&'p str),
    /// `modelTierRules`, by the text that the model's name contains.
    Tier(&'p str),
    /// `defaultProvider`.
    Default,
    /// `onSubscriptionLimit`: the caller's subscription is used up.
    Subscription,
}

/// What a rule changes for all targets of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Changes<'p> {
    /// In place of the provider's time for a head.
    pub timeout: Option<Duration>,
    /// In place of its longest silence.
    pub idle_timeout: Option<Duration>,
    /// In place of its longest stream.
    pub max_stream: Option<Duration>,
    /// Added, in place of the provider's own of the same names.
    pub headers: &'p [(String, Secret)],
}

impl<'p> Changes<'p> {
    fn of(rule: &'p Rule) -> Self {
        let then = &rule.then;
        Self {
            timeout: then.timeout,
            idle_timeout: then.idle_timeout,
            max_stream: then.max_stream,
            headers: &then.headers,
        }
    }
}

impl<'p> Plan<'p> {
    /// This target and no other.
    pub fn of(target: Target<'p>, changes: Changes<'p>) -> Self {
        let (cause, rule, session) = (Cause::Default, None, None);
        Self { targets: vec![target], cause, rule, changes, last_resort: false, session }
    }
}

/// Whom a request goes to, one after the other.
#[derive(Debug, Clone)]
pub struct Plan<'p> {
    /// In the order in which they are tried; never empty.
    pub targets: Vec<Target<'p>>,
    /// What decided who comes first.
    pub cause: Cause<'p>,
    /// The rule that matched, by its place, though it may leave the choice of providers to others.
    pub rule: Option<usize>,
    /// What that rule changes.
    pub changes: Changes<'p>,
    /// Nothing can be used as far as is known: the one target is tried all the same.
    pub last_resort: bool,
    /// The session, to be remembered at the target that serves it.
    pub session: Option<SessionKey>,
}
