//! Questions to the ledger: one vocabulary of filters, and what the answers look like.

mod filter;
mod sessions;

use serde::Serialize;

use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::record::{Fingerprint, Record};

pub use self::filter::{BadFilter, DEFAULT_LIMIT, Filter, MOST};
pub use self::sessions::{Agent, Session, Sessions};
pub use crate::calendar::{BadTime, UTC, Zone, day, time};

/// What sums are made for each of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Key {
    /// The day on which the exchange began, as `2026-11-22`, where the user is.
    Day,
    /// The model that served, or else was asked for.
    Model,
    /// The session.
    Session,
    /// The kind of agent where it is known, else the agent.
    Agent,
    /// The agent itself.
    AgentId,
    /// The kind of agent; empty for the main one, and for those of no known kind.
    AgentType,
    /// The agent that called it.
    ParentAgent,
    /// The project.
    Project,
    /// Who served.
    Provider,
    /// What was asked for.
    Operation,
    /// How it ended.
    Outcome,
}

impl Key {
    /// From the name that the command line knows.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "day" => Self::Day,
            "model" => Self::Model,
            "session" => Self::Session,
            "agent" => Self::Agent,
            "agent-type" => Self::AgentType,
            "project" => Self::Project,
            "provider" => Self::Provider,
            "operation" => Self::Operation,
            "outcome" => Self::Outcome,
            _ => return None,
        })
    }
}

/// Sums over exchanges of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Exchanges.
    pub requests: i64,
    /// Of these, those in which something went wrong.
    pub failed: i64,
    /// Input tokens that were neither read from a cache nor written to one.
    pub input: i64,
    /// Input tokens that were read from a cache.
    pub cache_read: i64,
    /// Input tokens that were written to a cache.
    pub cache_write: i64,
    /// Output tokens as billed: where no end was seen, as counted by us.
    pub output: i64,
    /// Web searches.
    pub web_searches: i64,
    /// Exchanges of which the output was counted by us.
    pub estimated: i64,
    /// Exchanges that used something that was not reported.
    pub usage_unknown: i64,
    /// Generations whose use is known and its price is not: they are not in the cost.
    pub unpriced: i64,
    /// What they cost, as far as it is known.
    pub cost: NanoUsd,
    /// Microseconds of all that were timed.
    pub duration_us: i64,
    /// How many were timed.
    pub timed: i64,
    /// Microseconds until the first token, of all that had one.
    pub first_token_us: i64,
    /// How many had one.
    pub first_tokens: i64,
    /// Bytes of requests.
    pub bytes_in: i64,
    /// Bytes of answers.
    pub bytes_out: i64,
    /// Exchanges whose cost rests on a rate or a lifetime that was assumed.
    pub assumed: i64,
    /// Exchanges of whose cost a part is not known.
    pub incomplete: i64,
}

impl Sums {
    /// Exchanges that cost something, or may have, that is not in the cost.
    pub fn cost_unknown(&self) -> i64 {
        self.unpriced.saturating_add(self.usage_unknown).saturating_add(self.incomplete)
    }

    /// Exchanges whose cost is in the sum, and not as exact as others: counted by us, or at an assumed rate.
    pub fn cost_assumed(&self) -> i64 {
        self.assumed.saturating_add(self.estimated)
    }

    /// The whole prompt: input with its cached parts.
    pub fn prompt(&self) -> i64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// The part of the prompt that came from a cache, between 0 and 1; `None` where there was no prompt.
    pub fn cache_hit_rate(&self) -> Option<f64> {
        (self.prompt() > 0).then(|| self.cache_read as f64 / self.prompt() as f64)
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.requests, other.requests),
            (&mut self.failed, other.failed),
            (&mut self.input, other.input),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.output, other.output),
            (&mut self.web_searches, other.web_searches),
            (&mut self.estimated, other.estimated),
            (&mut self.usage_unknown, other.usage_unknown),
            (&mut self.unpriced, other.unpriced),
            (&mut self.cost.0, other.cost.0),
            (&mut self.duration_us, other.duration_us),
            (&mut self.timed, other.timed),
            (&mut self.first_token_us, other.first_token_us),
            (&mut self.first_tokens, other.first_tokens),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.assumed, other.assumed),
            (&mut self.incomplete, other.incomplete),
        ];
        for (to, more) in pairs {
            *to = to.saturating_add(more);
        }
    }
}

/// Sums, with what nobody paid for apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// What was paid for by use.
    pub paid: Sums,
    /// What a subscription paid for: the cost is what it would have been.
    pub notional: Sums,
    /// What the simulator served.
    pub simulated: Sums,
}

impl Totals {
    /// Everything together: for counts, never for money.
    pub fn all(&self) -> Sums {
        let mut all = self.paid;
        all.add(&self.notional);
        all.add(&self.simulated);
        all
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        self.paid.add(&other.paid);
        self.notional.add(&other.notional);
        self.simulated.add(&other.simulated);
    }
}

/// Sums for one value of every key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The values, in the order of the keys; empty where the exchanges have none.
    pub keys: Vec<String>,
    /// The sums.
    pub totals: Totals,
    /// When the first of them began, in microseconds since 1970.
    pub first_us: i64,
    /// When the last of them began.
    pub last_us: i64,
    /// Whether these are the times; else all began between them, which are whole quarters of an hour.
    pub exact: bool,
}

/// Sums for every value of some keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Groups {
    /// By day, the days in order; else the dearest first.
    pub groups: Vec<Group>,
    /// Over everything that is meant, also what did not fit into the list.
    pub totals: Totals,
    /// Whether there are more groups than these.
    pub more: bool,
}

/// A record with its place in the order of recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Grows with every record. Clocks may jump; this does not.
    pub seq: i64,
    /// The record.
    #[serde(flatten)]
    pub record: Record,
}

/// What a word stands for that was given for one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This one.
    One(Box<Row>),
    /// Nothing.
    None,
    /// More than one: some of them, the last begun first.
    Many(Vec<Row>),
}

/// What a provider said last about the limits of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastLimits {
    /// The provider.
    pub provider: Box<str>,
    /// The credential; `None`: there was none.
    pub credential: Option<Fingerprint>,
    /// When that was, in microseconds since 1970.
    pub seen_us: i64,
    /// What it said.
    pub limits: Limits,
}

/// How long exchanges took, over the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// Over how many.
    pub of: u64,
    /// Half were at most as slow, in microseconds.
    pub p50_us: u64,
    /// Nineteen of twenty were at most as slow.
    pub p95_us: u64,
    /// Ninety-nine of a hundred were at most as slow.
    pub p99_us: u64,
}

impl Latency {
    /// Of these times.
    pub fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0);
        Self { of: times.len() as u64, p50_us: at(50), p95_us: at(95), p99_us: at(99) }
    }
}

/// How many names there are beside those that are listed, counted up to some thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct More {
    /// Models.
    pub models: u64,
    /// Kinds of agents, and agents without a kind.
    pub agents: u64,
    /// Sessions.
    pub sessions: u64,
    /// Projects.
    pub projects: u64,
}

/// What `/gateway/metrics` tells, counted since the last reset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// When the counting began, in microseconds since 1970; 0 if it was never reset.
    pub since_us: i64,
    /// Generations only.
    pub summary: Totals,
    /// Everything, by what was asked for.
    pub by_operation: Vec<Group>,
    /// Generations, by how they ended.
    pub by_outcome: Vec<Group>,
    /// Generations.
    pub by_provider: Vec<Group>,
    /// Generations.
    pub by_model: Vec<Group>,
    /// Generations, by the kind of agent, or by the agent where that is not known; the dearest.
    pub by_agent: Vec<Group>,
    /// Generations; the sessions that were recorded last.
    pub by_session: Vec<Group>,
    /// Generations; the dearest.
    pub by_project: Vec<Group>,
    /// What is not in these lists.
    pub more: More,
    /// How long the last generations took.
    pub duration: Latency,
    /// How long the first byte of their answer took.
    pub first_byte: Latency,
    /// How long their first token took.
    pub first_token: Latency,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(Latency::of(vec![]), Latency::default());
        assert_eq!(Latency::of(vec![7]), Latency { of: 1, p50_us: 7, p95_us: 7, p99_us: 7 });
        let many = Latency::of((1..=100).rev().collect());
        assert_eq!(many, Latency { of: 100, p50_us: 50, p95_us: 95, p99_us: 99 });
    }

    #[test]
    fn the_rate_of_cache_hits_is_none_without_a_prompt() {
        assert_eq!(Sums::default().cache_hit_rate(), None);
        let sums = Sums { input: 1, cache_read: 2, cache_write: 1, ..Sums::default() };
        assert_eq!(sums.cache_hit_rate(), Some(0.5));
    }
}
