//! A record as a row, and back.

use rusqlite::types::Type;
use rusqlite::{Row as SqlRow, Statement, params};

use super::about::{self, About};
use crate::money::NanoUsd;
use crate::query::Row;
use crate::record::{Fingerprint, Id, Operation, Outcome, Parties, Record};

/// The largest count that is summed; larger ones are nonsense that would make sums overflow.
const LARGEST: u64 = 1_000_000_000_000;

/// Bits of the column `flags`, which say of a record what is counted beside its numbers.
pub(super) const UNKNOWN: i64 = 1;
pub(super) const ESTIMATED: i64 = 2;
pub(super) const UNPRICED: i64 = 4;
pub(super) const ASSUMED: i64 = 8;
pub(super) const INCOMPLETE: i64 = 16;

/// Columns of a record, in the order in which [`read`] takes them.
pub(super) const COLUMNS: &str = "seq, id, operation, outcome, kind, started_us, session, agent, parent_agent, \
    agent_type, project, provider, model, flags, cost, first_byte_us, first_token_us, duration_us, bytes_in, bytes_out, \
    about";

/// The call of `cco run` that a record belongs to, in the table of records.
pub(super) const RUN: &str = "json_extract(CAST(about AS TEXT), '$.run')";

pub(super) const INSERT: &str = "INSERT INTO record (seq, id, epoch, operation, outcome, kind, started_us, session, agent, \
    parent_agent, agent_type, project, provider, model, flags, input, cache_read, cache_write, output, web_searches, cost, \
    first_byte_us, first_token_us, duration_us, bytes_in, bytes_out, about) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
    ?25, ?26, ?27) ON CONFLICT (id) DO NOTHING";

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

pub(super) fn flags(record: &Record) -> i64 {
    let flags = [
        (UNKNOWN, record.usage_unknown || record.usage.is_some() && record.used().is_none()),
        (ESTIMATED, record.is_estimated()),
        (UNPRICED, is_unpriced(record)),
        (ASSUMED, record.cost.is_some() && record.cost_flags.is_assumed()),
        (INCOMPLETE, record.cost.is_some() && record.cost_flags.incomplete),
    ];
    flags.into_iter().map(|(flag, holds)| if holds { flag } else { 0 }).sum()
}

/// Inserts a record at this place; `false` if one of this id is there. `scratch` is memory that is used again.
pub(super) fn insert(
    statement: &mut Statement<'_>,
    seq: i64,
    epoch: i64,
    record: &Record,
    scratch: &mut Vec<u8>,
) -> rusqlite::Result<bool> {
    let p = &record.parties;
    let used = record.used();
    let tokens = record.billed();
    about::write(record, scratch);
    let inserted = statement.execute(params![
        seq,
        record.id.to_bytes(),
        epoch,
        record.operation.as_str(),
        record.outcome.as_str(),
        kind(p),
        record.started_us.max(0),
        p.session,
        p.agent,
        p.parent_agent,
        p.agent_type,
        p.project,
        p.provider,
        p.model.as_ref().or(p.requested_model.as_ref()),
        flags(record),
        count(tokens.input),
        count(tokens.cache_read),
        count(tokens.cache_write.total()),
        count(tokens.output),
        count(used.map_or(0, |usage| usage.web_search)),
        record.cost.map(|cost| cost.0),
        some(record.first_byte_us),
        some(record.first_token_us),
        some(record.duration_us),
        int(record.bytes_in),
        int(record.bytes_out),
        scratch.as_slice(),
    ])?;
    Ok(inserted > 0)
}

/// Whether something is known to be used that has no price. Counting tokens costs nothing; where only a part of the use
/// is known, it is not the price that is missing.
pub(super) fn is_unpriced(record: &Record) -> bool {
    record.operation == Operation::Generation && record.used().is_some() && record.cost.is_none()
}

pub(super) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Row> {
    let unsigned = |at: usize| -> rusqlite::Result<Option<u64>> {
        Ok(row.get::<_, Option<i64>>(at)?.map(|n| u64::try_from(n).unwrap_or(0)))
    };
    let text = |at: usize| row.get::<_, Option<Box<str>>>(at);
    let (kind, flags): (i64, i64) = (row.get(4)?, row.get(13)?);
    let bad =
        |why: Box<dyn std::error::Error + Send + Sync>| rusqlite::Error::FromSqlConversionFailure(20, Type::Blob, why);
    let about: About = serde_json::from_slice(row.get_ref(20)?.as_bytes().map_err(|why| bad(why.into()))?)
        .map_err(|why| bad(why.into()))?;
    let model = text(12)?;
    let requested_model = about.requested_model.or_else(|| model.clone().filter(|_| about.unserved));
    let record = Record {
        id: Id::from_bytes(row.get(1)?),
        operation: Operation::known(row.get_ref(2)?.as_str()?),
        outcome: Outcome::known(row.get_ref(3)?.as_str()?),
        started_us: row.get(5)?,
        ended_us: about.ended_us,
        parties: Parties {
            protocol: about.protocol,
            endpoint: about.endpoint,
            stream: about.stream,
            session: text(6)?,
            agent: text(7)?,
            parent_agent: text(8)?,
            agent_type: text(9)?,
            project: text(10)?,
            caller: about.caller,
            requested_model,
            provider: text(11)?,
            model: model.filter(|_| !about.unserved),
            notional: kind == 1,
            simulated: kind == 2,
            run: about.run,
        },
        status: about.status,
        stop_reason: about.stop_reason,
        upstream_request_id: about.upstream_request_id,
        usage: about.usage,
        estimated_output: about.estimated_output,
        usage_unknown: flags & UNKNOWN > 0,
        cost: row.get::<_, Option<i64>>(14)?.map(NanoUsd),
        cost_flags: about.cost_flags,
        unpriced: about.unpriced,
        price_version: about.price_version,
        first_byte_us: unsigned(15)?,
        first_token_us: unsigned(16)?,
        duration_us: unsigned(17)?,
        bytes_in: unsigned(18)?.unwrap_or(0),
        bytes_out: unsigned(19)?.unwrap_or(0),
        credential: about.credential.map(Fingerprint::stored),
        limits: None,
        error: about.error,
        attempts: about.attempts.unwrap_or_default(),
        losses: about.losses.unwrap_or_default(),
        route: about.route,
        deliveries: about.deliveries,
        continued: about.continued,
    };
    Ok(Row { seq: row.get(0)?, record })
}
