//! What records add to the sums, added up before SQLite sees it: one statement a group, not three questions a batch.

use std::hash::Hash;

use rusqlite::{ToSql, Transaction};

use super::row::{self, count};
use crate::money::NanoUsd;
use crate::query::Sums;
use crate::record::Record;
use crate::store::StoreError;

/// The sums that are kept: the table, what they are kept for each of, and between which times and places they lie.
pub(super) const SUMS: [(&str, &str, &[Bound]); 3] = [
    ("usage_total", "kind, epoch, operation, outcome, provider, model, project, agent_type", &TIMES),
    ("usage_time", "bucket, kind, epoch, operation, provider, model, project", &[]),
    (
        "usage_session",
        "session, kind, agent, parent_agent, agent_type, epoch, operation, provider, model, project",
        &BOUNDS,
    ),
];

/// The column of a bound, how it grows, and what it is of.
pub(super) type Bound = (&'static str, &'static str, &'static str);
const TIMES: [Bound; 2] = [("first_us", "min", "started_us"), ("last_us", "max", "started_us")];
const BOUNDS: [Bound; 4] = [TIMES[0], TIMES[1], ("first_seq", "min", "seq"), ("last_seq", "max", "seq")];

/// How many numbers make a sum.
const NUMBERS: usize = 19;
pub(super) const COUNTERS: [&str; NUMBERS] = [
    "requests",
    "failed",
    "input",
    "cache_read",
    "cache_write",
    "output",
    "web_searches",
    "estimated",
    "usage_unknown",
    "unpriced",
    "cost",
    "duration_us",
    "timed",
    "first_token_us",
    "first_tokens",
    "bytes_in",
    "bytes_out",
    "assumed",
    "incomplete",
];
/// No sum grows above it: a few of them can still be added up.
const CEILING: &str = "1000000000000000000";
/// The largest cost that is summed, in nano-dollars; larger ones are nonsense that would make sums overflow.
const DEAREST: i64 = 100_000_000_000_000;
/// Microseconds in a quarter of an hour.
pub(super) const BUCKET_US: i64 = 900_000_000;

/// What sums grow by on a conflict.
pub(super) fn growth(bounds: &[Bound]) -> String {
    let grow = COUNTERS.iter().map(|name| format!("{name} = min({name} + excluded.{name}, {CEILING})"));
    let grow = grow.chain(bounds.iter().map(|(name, grows, _)| format!("{name} = {grows}({name}, excluded.{name})")));
    grow.collect::<Vec<_>>().join(", ")
}

/// The statements that add one group to each table.
pub(super) fn statements() -> [String; 3] {
    SUMS.map(|(table, key, bounds)| {
        let columns: String = bounds.iter().map(|(name, ..)| format!(", {name}")).collect();
        let values = key.split(", ").count() + COUNTERS.len() + bounds.len();
        let values = vec!["?"; values].join(", ");
        let (names, grow) = (COUNTERS.join(", "), growth(bounds));
        format!("INSERT INTO {table} ({key}, {names}{columns}) VALUES ({values}) ON CONFLICT DO UPDATE SET {grow}")
    })
}

/// What one record adds; the view `record_usage` says the same of a row.
fn of(record: &Record) -> Sums {
    let used = record.used();
    let tokens = record.billed();
    let flags = row::flags(record);
    let flag = |flag: i64| i64::from(flags & flag > 0);
    Sums {
        requests: 1,
        failed: i64::from(record.outcome.is_failure()),
        input: count(tokens.input),
        cache_read: count(tokens.cache_read),
        cache_write: count(tokens.cache_write.total()),
        output: count(tokens.output),
        web_searches: count(used.map_or(0, |usage| usage.web_search)),
        estimated: flag(row::ESTIMATED),
        usage_unknown: flag(row::UNKNOWN),
        unpriced: flag(row::UNPRICED),
        cost: NanoUsd(record.cost.unwrap_or_default().0.clamp(-DEAREST, DEAREST)),
        duration_us: count(record.duration_us.unwrap_or(0)),
        timed: i64::from(record.duration_us.is_some()),
        first_token_us: count(record.first_token_us.unwrap_or(0)),
        first_tokens: i64::from(record.first_token_us.is_some()),
        bytes_in: count(record.bytes_in),
        bytes_out: count(record.bytes_out),
        assumed: flag(row::ASSUMED),
        incomplete: flag(row::INCOMPLETE),
    }
}

/// In the order of [`COUNTERS`].
fn counters(sums: &Sums) -> [i64; NUMBERS] {
    let Sums { requests, failed, input, cache_read, cache_write, output, .. } = *sums;
    let Sums { web_searches, estimated, usage_unknown, unpriced, cost, duration_us, timed, .. } = *sums;
    let Sums { first_token_us, first_tokens, bytes_in, bytes_out, assumed, incomplete, .. } = *sums;
    [
        requests,
        failed,
        input,
        cache_read,
        cache_write,
        output,
        web_searches,
        estimated,
        usage_unknown,
        unpriced,
        cost.0,
        duration_us,
        timed,
        first_token_us,
        first_tokens,
        bytes_in,
        bytes_out,
        assumed,
        incomplete,
    ]
}

/// A group: its sums, and its bounds in the order of [`BOUNDS`].
type Group = (Sums, [i64; 4]);

/// A map that lives as long as a batch, so nobody can fill it with what hashes alike.
type Groups<K> = foldhash::HashMap<K, Group>;

/// The groups of a batch, by the numbers and the words of their keys in the order of [`SUMS`].
#[derive(Debug, Default)]
pub(super) struct Added<'a> {
    total: Groups<(i64, [&'a str; 6])>,
    time: Groups<(i64, i64, [&'a str; 4])>,
    session: Groups<(&'a str, i64, [&'a str; 7])>,
    /// Between which places the records of a quarter of an hour lie.
    spans: foldhash::HashMap<i64, (i64, i64)>,
}

impl<'a> Added<'a> {
    pub(super) fn add(&mut self, seq: i64, record: &'a Record) {
        let (p, sums) = (&record.parties, of(record));
        let (kind, at) = (row::kind(p), (record.started_us.max(0), seq));
        let bucket = at.0 / BUCKET_US;
        let span = self.spans.entry(bucket).or_insert((seq, seq));
        *span = (span.0.min(seq), span.1.max(seq));
        let word = |word: &'a Option<Box<str>>| word.as_deref().unwrap_or("");
        let model = p.model.as_deref().or(p.requested_model.as_deref()).unwrap_or("");
        let (operation, outcome) = (record.operation.as_str(), record.outcome.as_str());
        let (provider, project, agent_type) = (word(&p.provider), word(&p.project), word(&p.agent_type));
        let words = [operation, outcome, provider, model, project, agent_type];
        grow(&mut self.total, (kind, words), &sums, at);
        grow(&mut self.time, (bucket, kind, [operation, provider, model, project]), &sums, at);
        let words = [word(&p.agent), word(&p.parent_agent), agent_type, operation, provider, model, project];
        grow(&mut self.session, (word(&p.session), kind, words), &sums, at);
    }

    /// Writes them, with the statements of [`statements`].
    pub(super) fn write(&self, change: &Transaction<'_>, sql: &[String; 3], epoch: i64) -> Result<(), StoreError> {
        for ((kind, [operation, outcome, provider, model, project, agent_type]), group) in &self.total {
            let key: [&dyn ToSql; 8] = [kind, &epoch, operation, outcome, provider, model, project, agent_type];
            upsert(change, &sql[0], &key, group, SUMS[0].2.len())?;
        }
        for ((bucket, kind, [operation, provider, model, project]), group) in &self.time {
            let key: [&dyn ToSql; 7] = [bucket, kind, &epoch, operation, provider, model, project];
            upsert(change, &sql[1], &key, group, SUMS[1].2.len())?;
        }
        for ((session, kind, [agent, parent, agent_type, operation, provider, model, project]), group) in &self.session
        {
            let key: [&dyn ToSql; 10] =
                [session, kind, agent, parent, agent_type, &epoch, operation, provider, model, project];
            upsert(change, &sql[2], &key, group, SUMS[2].2.len())?;
        }
        let sql = "INSERT INTO span (bucket, first_seq, last_seq) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET \
                   first_seq = min(first_seq, excluded.first_seq), last_seq = max(last_seq, excluded.last_seq)";
        for (bucket, (first, last)) in &self.spans {
            change.prepare_cached(sql)?.execute((bucket, first, last))?;
        }
        Ok(())
    }
}

fn grow<K: Hash + Eq>(groups: &mut Groups<K>, key: K, sums: &Sums, (at, seq): (i64, i64)) {
    let (sum, bounds) = groups.entry(key).or_insert((Sums::default(), [at, at, seq, seq]));
    sum.add(sums);
    let [first, last, first_seq, last_seq] = *bounds;
    *bounds = [first.min(at), last.max(at), first_seq.min(seq), last_seq.max(seq)];
}

fn upsert(
    change: &Transaction<'_>,
    sql: &str,
    key: &[&dyn ToSql],
    (sums, bounds): &Group,
    of_bounds: usize,
) -> Result<(), StoreError> {
    let mut statement = change.prepare_cached(sql)?;
    let mut at = 0;
    let counters = counters(sums);
    let numbers = counters.iter().chain(&bounds[..of_bounds]).map(|n| n as &dyn ToSql);
    for value in key.iter().copied().chain(numbers) {
        at += 1;
        statement.raw_bind_parameter(at, value)?;
    }
    statement.raw_execute()?;
    Ok(())
}
