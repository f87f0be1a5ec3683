//! A record as a row, and back.

use rusqlite::types::Type;
use rusqlite::{Row as SqlRow, Statement, params};

use crate::money::NanoUsd;
use crate::query::Row;
use crate::record::{Fingerprint, Id, Operation, Outcome, Parties, Record};

/// The largest count that is summed; larger ones are nonsense that would make sums overflow.
const LARGEST: u64 = 1_000_000_000_000;

/// Columns of a record, in the order in which [`read`] takes them.
pub(super) const COLUMNS: &str = "seq, id, operation, outcome, kind, started_us, ended_us, protocol, endpoint, stream, \
    session, agent, parent_agent, agent_type, project, caller, requested_model, provider, model, status, stop_reason, \
    upstream_request_id, usage, estimated_output, usage_unknown, cost, price_version, first_byte_us, first_token_us, \
    duration_us, bytes_in, bytes_out, credential, error, attempts, losses";

pub(super) const INSERT: &str = "INSERT INTO record (id, epoch, operation, outcome, kind, started_us, ended_us, protocol, \
    endpoint, stream, session, agent, parent_agent, agent_type, project, caller, requested_model, provider, model, status, \
    stop_reason, upstream_request_id, usage, estimated_output, usage_unknown, cost, price_version, first_byte_us, \
    first_token_us, duration_us, bytes_in, bytes_out, credential, error, attempts, losses, \
    input, cache_read, cache_write, output, web_searches, estimated, unpriced) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
    ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43) \
    ON CONFLICT (id) DO NOTHING";

/// 0 paid, 1 notional, 2 simulated.
pub(super) fn kind(parties: &Parties) -> i64 {
    if parties.simulated { 2 } else { i64::from(parties.notional) }
}

/// SQLite knows no larger numbers.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn some(n: Option<u64>) -> Option<i64> {
    n.map(int)
}

pub(super) fn count(n: u64) -> i64 {
    int(n.min(LARGEST))
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|why| rusqlite::Error::ToSqlConversionFailure(why.into()))
}

fn json_list<T: serde::Serialize>(list: &[T]) -> rusqlite::Result<Option<String>> {
    if list.is_empty() { Ok(None) } else { json(&list).map(Some) }
}

/// Inserts a record; `false` if one of this id is there.
pub(super) fn insert(statement: &mut Statement<'_>, epoch: i64, record: &Record) -> rusqlite::Result<bool> {
    let p = &record.parties;
    let usage = record.usage.as_ref().map(json).transpose()?;
    let tokens = record.usage.as_ref().map(|usage| usage.tokens).unwrap_or_default();
    let searches = record.usage.as_ref().map_or(0, |usage| usage.web_search);
    let inserted = statement.execute(params![
        record.id.to_bytes(),
        epoch,
        record.operation.as_str(),
        record.outcome.as_str(),
        kind(p),
        // The year 1970 is where clocks begin that were never set.
        record.started_us.max(0),
        record.ended_us.max(0),
        p.protocol,
        p.endpoint,
        p.stream,
        p.session,
        p.agent,
        p.parent_agent,
        p.agent_type,
        p.project,
        p.caller,
        p.requested_model,
        p.provider,
        p.model,
        record.status,
        record.stop_reason,
        record.upstream_request_id,
        usage,
        some(record.estimated_output),
        record.usage_unknown,
        record.cost.map(|cost| cost.0),
        record.price_version,
        some(record.first_byte_us),
        some(record.first_token_us),
        some(record.duration_us),
        int(record.bytes_in),
        int(record.bytes_out),
        record.credential.as_ref().map(|key| key.as_str()),
        record.error,
        json_list(&record.attempts)?,
        json_list(&record.losses)?,
        count(tokens.input),
        count(tokens.cache_read),
        count(tokens.cache_write.total()),
        count(record.output()),
        count(searches),
        record.is_estimated(),
        is_unpriced(record),
    ])?;
    Ok(inserted > 0)
}

/// Whether something is known to be used that has no price. Counting tokens costs nothing; where only a part of the use
/// is known, it is not the price that is missing.
pub(super) fn is_unpriced(record: &Record) -> bool {
    record.operation == Operation::Generation && record.usage.is_some() && record.cost.is_none()
}

pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let unsigned = |at: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(at)?.map(|n| u64::try_from(n).unwrap_or(0)))
    };
    let text = |at: usize| row.get::<_, Option<Box<str>>>(at);
    let kind: i64 = row.get(4)?;
    let record = Record {
        id: Id::from_bytes(row.get(1)?),
        operation: Operation::known(&row.get::<_, String>(2)?),
        outcome: Outcome::known(&row.get::<_, String>(3)?),
        started_us: row.get(5)?,
        ended_us: row.get(6)?,
        parties: Parties {
            protocol: row.get(7)?,
            endpoint: row.get(8)?,
            stream: row.get(9)?,
            session: text(10)?,
            agent: text(11)?,
            parent_agent: text(12)?,
            agent_type: text(13)?,
            project: text(14)?,
            caller: text(15)?,
            requested_model: text(16)?,
            provider: text(17)?,
            model: text(18)?,
            notional: kind == 1,
            simulated: kind == 2,
        },
        status: row.get(19)?,
        stop_reason: text(20)?,
        upstream_request_id: text(21)?,
        usage: from_json(row, 22)?,
        estimated_output: unsigned(23)?,
        usage_unknown: row.get(24)?,
        cost: row.get::<_, Option<i64>>(25)?.map(NanoUsd),
        price_version: text(26)?,
        first_byte_us: unsigned(27)?,
        first_token_us: unsigned(28)?,
        duration_us: unsigned(29)?,
        bytes_in: unsigned(30)?.unwrap_or(0),
        bytes_out: unsigned(31)?.unwrap_or(0),
        credential: text(32)?.map(Fingerprint::stored),
        limits: None,
        error: text(33)?,
        attempts: from_json(row, 34)?.unwrap_or_default(),
        losses: from_json(row, 35)?.unwrap_or_default(),
    };
    Ok(Row { seq: row.get(0)?, record })
}

fn from_json<T: serde::de::DeserializeOwned>(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(at)?;
    let bad = |why: serde_json::Error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, why.into());
    text.map(|text| serde_json::from_str(&text).map_err(bad)).transpose()
}
