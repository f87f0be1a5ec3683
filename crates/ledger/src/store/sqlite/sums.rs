//! What records add to the sums, added up before SQLite sees it: one statement a group, not three questions a batch.

use std::collections::HashMap;
use std::hash::Hash;

use rusqlite::{ToSql, Transaction};

use super::row::{self, count};
use crate::money::NanoUsd;
use crate::query::Sums;
use crate::record::Record;
use crate::store::StoreError;

/// The sums that are kept: the table, what they are kept for each of, and whether it is kept when they began and ended.
pub(super) const SUMS: [(&str, &str, bool); 3] = [
    ("usage_total", "kind, epoch, operation, outcome, provider, model, project, agent_type", true),
    ("usage_time", "bucket, kind, epoch, operation, provider, model, project", false),
    (
        "usage_session",
        "session, kind, agent, parent_agent, agent_type, epoch, operation, provider, model, project",
        true,
    ),
];
pub(super) const COUNTERS: [&str; 17] = [
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
];
/// No sum grows above it: a few of them can still be added up.
const CEILING: &str = "1000000000000000000";
/// The largest cost that is summed, in nano-dollars; larger ones are nonsense that would make sums overflow.
const DEAREST: i64 = 100_000_000_000_000;
/// Microseconds in a quarter of an hour.
pub(super) const BUCKET_US: i64 = 900_000_000;

/// What sums grow by on a conflict.
pub(super) fn growth(span: bool) -> String {
    let grow: Vec<String> =
        COUNTERS.iter().map(|name| format!("{name} = min({name} + excluded.{name}, {CEILING})")).collect();
    let span = if span {
        ", first_us = min(first_us, excluded.first_us), last_us = max(last_us, excluded.last_us)"
    } else {
        ""
    };
    grow.join(", ") + span
}

/// The statements that add one group to each table.
pub(super) fn statements() -> [String; 3] {
    SUMS.map(|(table, key, span)| {
        let columns = if span { ", first_us, last_us" } else { "" };
        let values = key.split(", ").count() + COUNTERS.len() + if span { 2 } else { 0 };
        let values = vec!["?"; values].join(", ");
        let (names, grow) = (COUNTERS.join(", "), growth(span));
        format!("INSERT INTO {table} ({key}, {names}{columns}) VALUES ({values}) ON CONFLICT DO UPDATE SET {grow}")
    })
}

/// What one record adds; the view `record_usage` says the same of a row.
fn of(record: &Record) -> Sums {
    let tokens = record.usage.as_ref().map(|usage| usage.tokens).unwrap_or_default();
    Sums {
        requests: 1,
        failed: i64::from(record.outcome.is_failure()),
        input: count(tokens.input),
        cache_read: count(tokens.cache_read),
        cache_write: count(tokens.cache_write.total()),
        output: count(record.output()),
        web_searches: count(record.usage.as_ref().map_or(0, |usage| usage.web_search)),
        estimated: i64::from(record.is_estimated()),
        usage_unknown: i64::from(record.usage_unknown),
        unpriced: i64::from(row::is_unpriced(record)),
        cost: NanoUsd(record.cost.unwrap_or_default().0.clamp(-DEAREST, DEAREST)),
        duration_us: count(record.duration_us.unwrap_or(0)),
        timed: i64::from(record.duration_us.is_some()),
        first_token_us: count(record.first_token_us.unwrap_or(0)),
        first_tokens: i64::from(record.first_token_us.is_some()),
        bytes_in: count(record.bytes_in),
        bytes_out: count(record.bytes_out),
    }
}

/// In the order of [`COUNTERS`].
fn counters(sums: &Sums) -> [i64; 17] {
    let Sums { requests, failed, input, cache_read, cache_write, output, .. } = *sums;
    let Sums { web_searches, estimated, usage_unknown, unpriced, cost, duration_us, timed, .. } = *sums;
    let Sums { first_token_us, first_tokens, bytes_in, bytes_out, .. } = *sums;
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
    ]
}

/// A group: its sums, and when the first and the last of it began.
type Group = (Sums, i64, i64);

/// The groups of a batch, by the numbers and the words of their keys in the order of [`SUMS`].
#[derive(Debug, Default)]
pub(super) struct Added<'a> {
    total: HashMap<(i64, [&'a str; 6]), Group>,
    time: HashMap<(i64, i64, [&'a str; 4]), Group>,
    session: HashMap<(&'a str, i64, [&'a str; 7]), Group>,
}

impl<'a> Added<'a> {
    pub(super) fn add(&mut self, record: &'a Record) {
        let (p, sums) = (&record.parties, of(record));
        let (kind, at) = (row::kind(p), record.started_us.max(0));
        let word = |word: &'a Option<Box<str>>| word.as_deref().unwrap_or("");
        let model = p.model.as_deref().or(p.requested_model.as_deref()).unwrap_or("");
        let (operation, outcome) = (record.operation.as_str(), record.outcome.as_str());
        let (provider, project, agent_type) = (word(&p.provider), word(&p.project), word(&p.agent_type));
        let words = [operation, outcome, provider, model, project, agent_type];
        grow(&mut self.total, (kind, words), &sums, at);
        grow(&mut self.time, (at / BUCKET_US, kind, [operation, provider, model, project]), &sums, at);
        let words = [word(&p.agent), word(&p.parent_agent), agent_type, operation, provider, model, project];
        grow(&mut self.session, (word(&p.session), kind, words), &sums, at);
    }

    /// Writes them, with the statements of [`statements`].
    pub(super) fn write(&self, change: &Transaction<'_>, sql: &[String; 3], epoch: i64) -> Result<(), StoreError> {
        for ((kind, [operation, outcome, provider, model, project, agent_type]), group) in &self.total {
            let key: [&dyn ToSql; 8] = [kind, &epoch, operation, outcome, provider, model, project, agent_type];
            upsert(change, &sql[0], &key, group, true)?;
        }
        for ((bucket, kind, [operation, provider, model, project]), group) in &self.time {
            let key: [&dyn ToSql; 7] = [bucket, kind, &epoch, operation, provider, model, project];
            upsert(change, &sql[1], &key, group, false)?;
        }
        for ((session, kind, [agent, parent, agent_type, operation, provider, model, project]), group) in &self.session
        {
            let key: [&dyn ToSql; 10] =
                [session, kind, agent, parent, agent_type, &epoch, operation, provider, model, project];
            upsert(change, &sql[2], &key, group, true)?;
        }
        Ok(())
    }
}

fn grow<K: Hash + Eq>(groups: &mut HashMap<K, Group>, key: K, sums: &Sums, at: i64) {
    let (sum, first, last) = groups.entry(key).or_insert((Sums::default(), at, at));
    sum.add(sums);
    *first = at.min(*first);
    *last = at.max(*last);
}

fn upsert(
    change: &Transaction<'_>,
    sql: &str,
    key: &[&dyn ToSql],
    (sums, first, last): &Group,
    span: bool,
) -> Result<(), StoreError> {
    let mut statement = change.prepare_cached(sql)?;
    let mut at = 0;
    let counters = counters(sums);
    let values = key.iter().copied().chain(counters.iter().map(|n| n as &dyn ToSql));
    for value in values.chain([first as &dyn ToSql, last].into_iter().take(if span { 2 } else { 0 })) {
        at += 1;
        statement.raw_bind_parameter(at, value)?;
    }
    statement.raw_execute()?;
    Ok(())
}
