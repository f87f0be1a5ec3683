//! The connections that read.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, params_from_iter};

use super::row::{self, COLUMNS};
use super::sums::{BUCKET_US, COUNTERS};
use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::query::{
    Filter, Found, Group, Groups, Key, LastLimits, Latency, Metrics, More, Row, Sessions, Sums, Totals, UTC, Zone, day,
};
use crate::record::{Fingerprint, Id, Operation};
use crate::store::{Reader, StoreError};

/// Groups that are read from the store for one answer.
pub(super) const GROUPS: usize = if cfg!(test) { 300 } else { 50_000 };
/// Rows that are read for them: a group has one for each kind of exchange.
const ROWS: usize = 3 * GROUPS;
/// Records among which the last sessions are looked for first.
const LOOK_BACK: usize = 20_000;
/// Exchanges over which it is told how long they take.
const LAST: usize = 1000;
/// Names that are counted beside those that are listed.
const OTHERS: u64 = 10_000;
/// Ids that are named when digits stand for more than one.
const NAMED: usize = 10;
/// Outcomes in which nothing went wrong: the words of the index on the others.
const WELL: &str = "outcome NOT IN ('success', 'client_disconnected')";

#[derive(Debug)]
pub(super) struct SqliteReader {
    db: Connection,
    most: Duration,
    /// Nobody else can write while this is there.
    alone: bool,
}

impl SqliteReader {
    pub(super) fn new(db: Connection, most: Duration, alone: bool) -> Self {
        Self { db, most, alone }
    }

    /// In one view of the store, and only for so long.
    fn ask<T>(&mut self, ask: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        super::limit(&mut self.db, self.most)?;
        let view = self.db.unchecked_transaction()?;
        let answer = ask(&view)?;
        view.commit()?;
        Ok(answer)
    }
}

impl Reader for SqliteReader {
    fn may_stay(&self) -> bool {
        !self.alone
    }

    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError> {
        self.ask(|db| {
            let mut meant = Where::rows(filter);
            if filter.since_reset {
                meant.and("epoch = ", Value::Integer(epoch(db)?.0));
            }
            let order = if filter.after_seq.is_some() { "seq" } else { "seq DESC" };
            rows_of(db, &meant, order, filter.limit() as usize)
        })
    }

    fn get(&mut self, id: Id) -> Result<Option<Row>, StoreError> {
        self.ask(|db| {
            let sql = format!("SELECT {COLUMNS} FROM record WHERE id = ?1");
            Ok(db.prepare_cached(&sql)?.query_row([id.to_bytes()], row::read).optional()?)
        })
    }

    fn find(&mut self, word: &str) -> Result<Found, StoreError> {
        self.ask(|db| match word {
            "last" => last(db, &Filter::default()),
            "last-error" => last(db, &Filter { failed: true, ..Filter::default() }),
            _ => begins_with(db, word),
        })
    }

    fn totals(&mut self, filter: &Filter, keys: &[Key], zone: Zone<'_>) -> Result<Groups, StoreError> {
        self.ask(|db| totals(db, filter, keys, zone))
    }

    fn sessions(&mut self, filter: &Filter) -> Result<Sessions, StoreError> {
        self.ask(|db| {
            let epoch = if filter.since_reset { Some(epoch(db)?.0) } else { None };
            let (ids, more) = last_sessions(db, filter, epoch)?;
            let groups = within_sessions(db, filter, epoch, &ids, &Sessions::KEYS)?;
            let totals = totals(db, filter, &[], UTC)?.totals;
            Ok(Sessions { sessions: Sessions::build(&ids, groups), totals, more })
        })
    }

    fn limits(&mut self) -> Result<Vec<LastLimits>, StoreError> {
        self.ask(|db| {
            let sql = "SELECT provider, credential, seen_us, headers FROM limits ORDER BY seen_us DESC";
            let mut statement = db.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let credential: Box<str> = row.get(1)?;
                Ok(LastLimits {
                    provider: row.get(0)?,
                    credential: (!credential.is_empty()).then(|| Fingerprint::stored(credential)),
                    seen_us: row.get(2)?,
                    limits: Limits::stored(row.get(3)?),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn metrics(&mut self, top: u32) -> Result<Metrics, StoreError> {
        self.ask(|db| {
            let all = Filter { since_reset: true, limit: Some(top), ..Filter::default() };
            let generations = Filter { operation: Some(Operation::Generation), ..all.clone() };
            let by = |key| totals(db, &generations, &[key], UTC);
            let by_provider = by(Key::Provider)?;
            let (epoch, since_us) = epoch(db)?;
            let more = |key, shown: &[Group]| others(db, &generations, key, epoch, shown.len());
            let (by_model, by_agent, by_project) = (by(Key::Model)?, by(Key::Agent)?, by(Key::Project)?);
            let (sessions, _) = last_sessions(db, &generations, Some(epoch))?;
            let mut by_session = within_sessions(db, &generations, Some(epoch), &sessions, &[Key::Session])?;
            sort(&mut by_session, &[Key::Session]);
            let more = More {
                models: more(Key::Model, &by_model.groups)?,
                agents: more(Key::Agent, &by_agent.groups)?,
                sessions: more(Key::Session, &by_session)?,
                projects: more(Key::Project, &by_project.groups)?,
            };
            let mut generations = Where::rows(&generations);
            generations.and("epoch = ", Value::Integer(epoch));
            let latency = |column: &str| -> Result<Latency, StoreError> {
                let sql = format!(
                    "SELECT {column} FROM record WHERE {} AND {column} IS NOT NULL ORDER BY seq DESC LIMIT {LAST}",
                    generations.sql()
                );
                let mut statement = db.prepare_cached(&sql)?;
                let times = statement.query_map(params_from_iter(&generations.values), |row| row.get::<_, i64>(0))?;
                let times = times.map(|time| time.map(|time| u64::try_from(time).unwrap_or(0)));
                Ok(Latency::of(times.collect::<Result<_, _>>()?))
            };
            Ok(Metrics {
                since_us,
                summary: by_provider.totals,
                by_operation: totals(db, &all, &[Key::Operation], UTC)?.groups,
                by_outcome: by(Key::Outcome)?.groups,
                by_provider: by_provider.groups,
                by_model: by_model.groups,
                by_agent: by_agent.groups,
                by_session,
                by_project: by_project.groups,
                more,
                duration: latency("duration_us")?,
                first_byte: latency("first_byte_us")?,
                first_token: latency("first_token_us")?,
            })
        })
    }
}

/// How many more values of a key there are than are shown.
fn others(db: &Connection, filter: &Filter, key: Key, epoch: i64, shown: usize) -> Result<u64, StoreError> {
    let mut all: i64 = 0;
    for (source, meant) in pieces(filter, &[key], Some(epoch)) {
        let sql = format!(
            "SELECT count(*) FROM (SELECT DISTINCT {} FROM {} WHERE {} AND requests > 0 LIMIT {OTHERS})",
            expression(key),
            source.table(),
            meant.sql()
        );
        let values = params_from_iter(&meant.values);
        all += db.prepare_cached(&sql)?.query_row(values, |row| row.get::<_, i64>(0))?;
    }
    Ok(u64::try_from(all).unwrap_or(0).saturating_sub(shown as u64))
}

/// The exchange that was recorded last of those that are meant.
fn last(db: &Connection, filter: &Filter) -> Result<Found, StoreError> {
    let row = rows_of(db, &Where::rows(filter), "seq DESC", 1)?.pop();
    Ok(row.map_or(Found::None, |row| Found::One(Box::new(row))))
}

/// What people copy is the end of an id, so its beginning is tried first: the other end is the time, which thousands
/// have in common.
fn begins_with(db: &Connection, digits: &str) -> Result<Found, StoreError> {
    let hex: String = digits.chars().filter(|c| *c != '-').collect();
    if hex.is_empty() || hex.len() > 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(Found::None);
    }
    for (of, length) in [("substr(id, 13)", 8), ("id", 32)] {
        if hex.len() > length {
            continue;
        }
        let full = |fill: &str| Value::Text(hex.clone() + &fill.repeat(length - hex.len()));
        // Of the last digits there is no index: the one of the ids is read, which is small, never the records.
        let named = format!(
            "id IN (SELECT id FROM record WHERE {of} BETWEEN unhex(?1) AND unhex(?2) ORDER BY id DESC LIMIT {NAMED})"
        );
        let meant = Where { conditions: vec![named], values: vec![full("0"), full("f")] };
        let mut found = rows_of(db, &meant, "id DESC", NAMED)?;
        match found.len() {
            0 => {}
            1 => return Ok(found.pop().map_or(Found::None, |row| Found::One(Box::new(row)))),
            _ => return Ok(Found::Many(found)),
        }
    }
    Ok(Found::None)
}

/// The sessions that something was recorded of last, and whether there are more than the filter wants.
fn last_sessions(db: &Connection, filter: &Filter, epoch: Option<i64>) -> Result<(Vec<String>, bool), StoreError> {
    let most = filter.limit() as usize;
    let mut meant = Where::rows(filter);
    if let Some(epoch) = epoch {
        meant.and("epoch = ", Value::Integer(epoch));
    }
    let sql =
        format!("SELECT coalesce(session, '') FROM record WHERE {} ORDER BY seq DESC LIMIT {LOOK_BACK}", meant.sql());
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(&meant.values))?;
    let (mut sessions, mut known) = (Vec::new(), HashSet::new());
    while let Some(row) = rows.next()? {
        let session: String = row.get(0)?;
        if known.insert(session.clone()) {
            if sessions.len() == most {
                return Ok((sessions, true));
            }
            sessions.push(session);
        }
    }
    // There are older ones, perhaps some of which only the sums are left.
    let all = Filter { limit: None, ..filter.clone() };
    let mut groups = totals(db, &all, &[Key::Session], UTC)?;
    groups.groups.sort_by_key(|group| std::cmp::Reverse(group.last_us));
    for mut group in groups.groups {
        if let Some(session) = group.keys.pop()
            && known.insert(session.clone())
        {
            if sessions.len() == most {
                return Ok((sessions, true));
            }
            sessions.push(session);
        }
    }
    Ok((sessions, groups.more))
}

/// Sums within these sessions.
fn within_sessions(
    db: &Connection,
    filter: &Filter,
    epoch: Option<i64>,
    sessions: &[String],
    keys: &[Key],
) -> Result<Vec<Group>, StoreError> {
    let list = serde_json::to_string(sessions).map_err(|why| StoreError::Other(why.to_string()))?;
    let mut groups: HashMap<Vec<String>, Group> = HashMap::new();
    for (source, mut meant) in pieces(filter, keys, epoch) {
        meant.within(source, &list);
        piece(db, source, &meant, filter, keys, UTC, &mut |group| merge(&mut groups, group))?;
    }
    Ok(groups.into_values().collect())
}

/// The counting that runs, and when it began.
fn epoch(db: &Connection) -> Result<(i64, i64), StoreError> {
    let sql = "SELECT number, began_us FROM epoch ORDER BY number DESC LIMIT 1";
    Ok(db.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

pub(super) fn rows_of(db: &Connection, meant: &Where, order: &str, limit: usize) -> Result<Vec<Row>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM record WHERE {} ORDER BY {order} LIMIT {limit}", meant.sql());
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(&meant.values), row::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Of records that began before this value.
pub(super) fn before(us: &str) -> String {
    format!("seq <= (SELECT max(last_seq) FROM span WHERE bucket <= {us} / {BUCKET_US}) AND started_us < {us}")
}

/// Of records of the session that is this value.
pub(super) fn of_session(name: &str) -> String {
    format!("session = {name} AND {}", between(&format!("= {name}")))
}

/// Between which places the records of the sessions lie that this is true of.
fn between(which: &str) -> String {
    format!(
        "seq BETWEEN (SELECT min(first_seq) FROM usage_session WHERE session {which}) \
         AND (SELECT max(last_seq) FROM usage_session WHERE session {which})"
    )
}

/// Conditions and their values. Values never become part of the statement.
#[derive(Debug, Clone, Default)]
pub(super) struct Where {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    /// What a filter means in the table of records.
    pub(super) fn rows(filter: &Filter) -> Self {
        let mut meant = Self::names(filter);
        meant.of_records(filter.since_us, filter.until_us, filter);
        if let Some(run) = &filter.run {
            meant.name(&[row::RUN], run);
        }
        if let Some(seq) = filter.after_seq {
            meant.and("seq > ", Value::Integer(seq));
        }
        if let Some(seq) = filter.before_seq {
            meant.and("seq < ", Value::Integer(seq));
        }
        meant
    }

    /// What a filter means wherever the names are the same.
    fn names(filter: &Filter) -> Self {
        let mut meant = Self::default();
        let columns = [
            (&filter.model, "model"),
            (&filter.provider, "provider"),
            (&filter.session, "session"),
            (&filter.project, "project"),
        ];
        for (name, column) in columns {
            if let Some(name) = name {
                meant.name(&[column], name);
            }
        }
        if let Some(agent) = &filter.agent {
            meant.name(&["agent", "agent_type"], agent);
        }
        if let Some(kind) = &filter.agent_type {
            meant.name(&["agent_type"], kind);
        }
        if let Some(operation) = filter.operation {
            meant.and("operation = ", Value::Text(operation.as_str().into()));
        }
        if filter.failed {
            meant.conditions.push(WELL.into());
        }
        match filter.simulated {
            Some(true) => meant.conditions.push("kind = 2".into()),
            Some(false) => meant.conditions.push("kind <> 2".into()),
            None => {}
        }
        meant
    }

    fn name(&mut self, columns: &[&str], name: &str) {
        if name.is_empty() {
            // Those that have none.
            self.conditions.extend(columns.iter().map(|column| format!("coalesce({column}, '') = ''")));
            return;
        }
        let (compare, value) = if name.contains('*') {
            let escaped = name.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_").replace('*', "%");
            (" LIKE ", escaped)
        } else {
            (" = ", name.to_owned())
        };
        self.values.push(Value::Text(value));
        let at = self.values.len();
        let escape = if compare == " LIKE " { " ESCAPE '\\'" } else { "" };
        let any: Vec<String> = columns.iter().map(|column| format!("{column}{compare}?{at}{escape}")).collect();
        self.conditions.push(format!("({})", any.join(" OR ")));
    }

    fn time(&mut self, column: &str, since: Option<i64>, until: Option<i64>) {
        if let Some(since) = since {
            self.and(&format!("{column} >= "), Value::Integer(since));
        }
        if let Some(until) = until {
            self.and(&format!("{column} < "), Value::Integer(until));
        }
    }

    /// These times, and between which places the records lie that can be meant.
    fn of_records(&mut self, since: Option<i64>, until: Option<i64>, filter: &Filter) {
        self.time("started_us", since, until);
        self.places("seq >= (SELECT min(first_seq) FROM span WHERE bucket >= ", since);
        self.places("seq <= (SELECT max(last_seq) FROM span WHERE bucket <= ", until);
        if let Some(session) = filter.session.as_ref().filter(|name| !name.is_empty() && !name.contains('*')) {
            self.values.push(Value::Text(session.clone()));
            let name = format!("?{}", self.values.len());
            self.conditions.push(between(&format!("= {name}")));
        }
    }

    fn places(&mut self, left: &str, us: Option<i64>) {
        if let Some(us) = us {
            self.within_call(left, Value::Integer(us.div_euclid(BUCKET_US)));
        }
    }

    pub(super) fn and(&mut self, left: &str, value: Value) {
        self.values.push(value);
        self.conditions.push(format!("{left}?{}", self.values.len()));
    }

    /// A value within parentheses that are open.
    fn within_call(&mut self, left: &str, value: Value) {
        self.and(left, value);
        self.close();
    }

    /// Only these sessions, given as a JSON list.
    fn within(&mut self, source: Source, list: &str) {
        self.within_call("session IN (SELECT value FROM json_each(", Value::Text(list.into()));
        self.close();
        if source == Source::Records {
            let list = format!("IN (SELECT value FROM json_each(?{}))", self.values.len());
            self.conditions.push(between(&list));
        }
    }

    fn close(&mut self) {
        if let Some(last) = self.conditions.last_mut() {
            last.push(')');
        }
    }

    fn sql(&self) -> String {
        if self.conditions.is_empty() { "1".into() } else { self.conditions.join(" AND ") }
    }
}

/// Where sums come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Sums without time or session.
    Total,
    /// Sums by quarters of an hour.
    Time,
    /// Sums by session and agent.
    Session,
    /// The records themselves.
    Records,
}

impl Source {
    fn table(self) -> &'static str {
        match self {
            Self::Total => "usage_total",
            Self::Time => "usage_time",
            Self::Session => "usage_session",
            Self::Records => "record_usage",
        }
    }

    /// When the first and the last exchange of a group began.
    fn span(self) -> &'static str {
        match self {
            Self::Time => "min(bucket) * 900000000, (max(bucket) + 1) * 900000000",
            Self::Total | Self::Session => "min(first_us), max(last_us)",
            Self::Records => "min(started_us), max(started_us)",
        }
    }
}

fn expression(key: Key) -> &'static str {
    match key {
        Key::Day => "bucket",
        Key::Model => "model",
        Key::Session => "session",
        Key::Agent => "CASE WHEN agent_type <> '' THEN agent_type ELSE agent END",
        Key::AgentId => "agent",
        Key::AgentType => "agent_type",
        Key::ParentAgent => "parent_agent",
        Key::Project => "project",
        Key::Provider => "provider",
        Key::Operation => "operation",
        Key::Outcome => "outcome",
    }
}

/// A part of an answer: from where, and what is meant there.
type Piece = (Source, Where);

/// The pieces of an answer, each from where it is quickest and exact.
fn pieces(filter: &Filter, keys: &[Key], epoch: Option<i64>) -> Vec<Piece> {
    let of_sessions = |key: &Key| matches!(key, Key::Session | Key::Agent | Key::AgentId | Key::ParentAgent);
    let sessions = keys.iter().any(of_sessions) || filter.session.is_some() || filter.agent.is_some();
    // The sums by time know no kinds of agents, those without time do.
    let kinds = keys.contains(&Key::AgentType) || filter.agent_type.is_some();
    let outcomes = filter.failed || keys.contains(&Key::Outcome);
    let (since, until) = (filter.since_us, filter.until_us);
    let timed = since.is_some() || until.is_some();
    let cursor = filter.after_seq.is_some() || filter.before_seq.is_some();
    let meant = |source| {
        let mut meant = Where::names(filter);
        if let Some(epoch) = epoch {
            meant.and("epoch = ", Value::Integer(epoch));
        }
        (source, meant)
    };
    let records = |since, until| {
        let (source, mut meant) = meant(Source::Records);
        meant.of_records(since, until, filter);
        for (seq, compare) in [(filter.after_seq, "seq > "), (filter.before_seq, "seq < ")] {
            if let Some(seq) = seq {
                meant.and(compare, Value::Integer(seq));
            }
        }
        if let Some(run) = &filter.run {
            meant.name(&[&format!("(SELECT {} FROM record WHERE seq = record_usage.seq)", row::RUN)], run);
        }
        (source, meant)
    };
    let day = keys.contains(&Key::Day);
    match (sessions, timed || day) {
        // No sum knows them.
        _ if cursor || filter.run.is_some() => vec![records(since, until)],
        (false, false) => vec![meant(Source::Total)],
        _ if outcomes || ((sessions || kinds) && day) => vec![records(since, until)],
        (false, true) if kinds => by_session(since, until, meant, records),
        (false, true) => by_time(since, until, meant, records),
        (true, false) => vec![meant(Source::Session)],
        (true, true) => by_session(since, until, meant, records),
    }
}

/// Whole quarters of an hour from the sums by time, what is left at the edges from the records.
fn by_time(
    since: Option<i64>,
    until: Option<i64>,
    meant: impl Fn(Source) -> Piece,
    records: impl Fn(Option<i64>, Option<i64>) -> Piece,
) -> Vec<Piece> {
    let up = |us: i64| us.div_euclid(BUCKET_US).saturating_add(i64::from(us.rem_euclid(BUCKET_US) > 0));
    let (from, to) = (since.map(up), until.map(|us| us.div_euclid(BUCKET_US)));
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return vec![records(since, until)];
    }
    let mut whole = meant(Source::Time);
    whole.1.time("bucket", from, to);
    let mut pieces = vec![whole];
    let at = |bucket: i64| bucket.saturating_mul(BUCKET_US);
    if let (Some(since), Some(from)) = (since, from.map(at))
        && since < from
    {
        pieces.push(records(Some(since), Some(from)));
    }
    if let (Some(until), Some(to)) = (until, to.map(at))
        && to < until
    {
        pieces.push(records(Some(to), Some(until)));
    }
    pieces
}

/// Sessions that lie within the time from the sums by session, those that reach over its edges from the records.
fn by_session(
    since: Option<i64>,
    until: Option<i64>,
    meant: impl Fn(Source) -> Piece,
    records: impl Fn(Option<i64>, Option<i64>) -> Piece,
) -> Vec<Piece> {
    let (since, until) = (since.unwrap_or(0), until.unwrap_or(i64::MAX));
    let over = format!(
        "SELECT session FROM usage_session WHERE (first_us < {since} AND last_us >= {since}) \
         OR (first_us < {until} AND last_us >= {until})"
    );
    let mut within = meant(Source::Session);
    within.1.conditions.push(format!("first_us >= {since} AND last_us < {until} AND session NOT IN ({over})"));
    let (source, mut of_those) = records(Some(since), Some(until));
    of_those.conditions.push(format!("session IN ({over})"));
    vec![within, (source, of_those)]
}

fn totals(db: &Connection, filter: &Filter, keys: &[Key], zone: Zone<'_>) -> Result<Groups, StoreError> {
    let epoch = if filter.since_reset { Some(epoch(db)?.0) } else { None };
    let pieces = pieces(filter, keys, epoch);
    if let ([Key::Session], [(Source::Session, meant)]) = (keys, &*pieces) {
        return of_sessions(db, filter, epoch, meant);
    }
    let mut answer = Groups::default();
    let mut groups: HashMap<Vec<String>, Group> = HashMap::new();
    let mut cut = false;
    for (source, meant) in pieces {
        let mut rows = 0;
        piece(db, source, &meant, filter, keys, zone, &mut |group| {
            rows += 1;
            answer.totals.add(&spent(&group, keys));
            if keys.is_empty() {
                return;
            }
            if groups.len() < GROUPS || groups.contains_key(&group.keys) {
                merge(&mut groups, group);
            } else {
                answer.more = true;
            }
        })?;
        cut |= rows >= ROWS && !keys.contains(&Key::Day);
    }
    if cut {
        // The list was cut: its sum must not be.
        answer.more = true;
        answer.totals = totals(db, filter, &[], UTC)?.totals;
    }
    answer.groups = groups.into_values().collect();
    sort(&mut answer.groups, keys);
    let most = filter.limit.unwrap_or(GROUPS as u32) as usize;
    answer.more |= answer.groups.len() > most;
    answer.groups.truncate(most);
    Ok(answer)
}

/// The sums of the dearest sessions. There can be a million: which these are is asked first, in few columns, and only
/// then what they came to.
fn of_sessions(db: &Connection, filter: &Filter, epoch: Option<i64>, meant: &Where) -> Result<Groups, StoreError> {
    let most = filter.limit.map_or(GROUPS, |limit| limit as usize);
    let sql = format!(
        "SELECT session FROM {} WHERE {} GROUP BY session \
         ORDER BY sum(CASE kind WHEN 0 THEN cost ELSE 0 END) DESC, sum(cost) DESC, sum(requests) DESC, session LIMIT {}",
        Source::Session.table(),
        meant.sql(),
        most + 1
    );
    let mut statement = db.prepare_cached(&sql)?;
    let sessions = statement.query_map(params_from_iter(&meant.values), |row| row.get(0))?;
    let mut sessions: Vec<String> = sessions.collect::<Result<_, _>>()?;
    let more = sessions.len() > most;
    sessions.truncate(most);
    let mut groups = within_sessions(db, filter, epoch, &sessions, &[Key::Session])?;
    sort(&mut groups, &[Key::Session]);
    let mut all = Totals::default();
    if more {
        // The list was cut: its sum must not be.
        all = totals(db, filter, &[], UTC)?.totals;
    } else {
        groups.iter().for_each(|group| all.add(&group.totals));
    }
    Ok(Groups { groups, totals: all, more })
}

/// Days in order, anything else by what it cost.
fn sort(groups: &mut [Group], keys: &[Key]) {
    if keys.first() == Some(&Key::Day) {
        groups.sort_unstable_by(|a, b| a.keys.cmp(&b.keys));
        return;
    }
    let cost = |group: &Group| {
        let all = group.totals.all();
        (group.totals.paid.cost, all.cost, all.requests)
    };
    groups.sort_unstable_by(|a, b| cost(b).cmp(&cost(a)).then_with(|| a.keys.cmp(&b.keys)));
}

fn merge(groups: &mut HashMap<Vec<String>, Group>, group: Group) {
    match groups.get_mut(&group.keys) {
        Some(known) => {
            known.totals.add(&group.totals);
            known.first_us = known.first_us.min(group.first_us);
            known.last_us = known.last_us.max(group.last_us);
            known.exact &= group.exact;
        }
        None => drop(groups.insert(group.keys.clone(), group)),
    }
}

/// What a group adds to the whole. Where operations are told apart, each has its tokens; what is spent are those of
/// generations.
fn spent(group: &Group, keys: &[Key]) -> Totals {
    let operation = keys.iter().position(|key| *key == Key::Operation).and_then(|at| group.keys.get(at));
    if operation.is_none_or(|operation| operation == Operation::Generation.as_str()) {
        return group.totals;
    }
    let without = |sums: Sums| Sums { input: 0, cache_read: 0, cache_write: 0, output: 0, ..sums };
    let Totals { paid, notional, simulated } = group.totals;
    Totals { paid: without(paid), notional: without(notional), simulated: without(simulated) }
}

/// Counters of which only those of generations are spent: a prompt whose tokens were counted was read by no model.
const TOKENS: [&str; 4] = ["input", "cache_read", "cache_write", "output"];

/// The sum of a counter. Whoever asks for an operation, or for each, gets its tokens.
fn sum(name: &str, filter: &Filter, keys: &[Key]) -> String {
    let apart = filter.operation.is_some() || keys.contains(&Key::Operation);
    if TOKENS.contains(&name) && !apart {
        format!("sum(CASE operation WHEN 'generation' THEN {name} ELSE 0 END), ")
    } else {
        format!("sum({name}), ")
    }
}

fn piece(
    db: &Connection,
    source: Source,
    meant: &Where,
    filter: &Filter,
    keys: &[Key],
    zone: Zone<'_>,
    take: &mut dyn FnMut(Group),
) -> Result<(), StoreError> {
    let (mut columns, mut grouped) = (String::new(), String::new());
    for key in keys {
        columns += &format!("{}, ", expression(*key));
        grouped += &format!("{}, ", expression(*key));
    }
    let sums: String = COUNTERS.iter().map(|name| sum(name, filter, keys)).collect();
    // Lists can be long: the dearest come first, and then no more. Quarters of an hour must all come.
    let limit = if keys.contains(&Key::Day) { String::new() } else { format!("ORDER BY sum(cost) DESC LIMIT {ROWS}") };
    let sql = format!(
        "SELECT {columns}kind, {sums} {} FROM {} WHERE {} GROUP BY {grouped}kind {limit}",
        source.span(),
        source.table(),
        meant.sql()
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(&meant.values))?;
    while let Some(row) = rows.next()? {
        let mut values = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            values.push(match key {
                Key::Day => day(row.get::<_, i64>(at)? * (BUCKET_US / 1_000_000), zone),
                _ => row.get(at)?,
            });
        }
        let (kind, at) = (row.get::<_, i64>(keys.len())?, keys.len() + 1);
        let n = |i: usize| row.get::<_, i64>(at + i);
        let sums = Sums {
            requests: n(0)?,
            failed: n(1)?,
            input: n(2)?,
            cache_read: n(3)?,
            cache_write: n(4)?,
            output: n(5)?,
            web_searches: n(6)?,
            estimated: n(7)?,
            usage_unknown: n(8)?,
            unpriced: n(9)?,
            cost: NanoUsd(n(10)?),
            duration_us: n(11)?,
            timed: n(12)?,
            first_token_us: n(13)?,
            first_tokens: n(14)?,
            bytes_in: n(15)?,
            bytes_out: n(16)?,
            assumed: n(17)?,
            incomplete: n(18)?,
        };
        let mut totals = Totals::default();
        match kind {
            0 => totals.paid = sums,
            1 => totals.notional = sums,
            _ => totals.simulated = sums,
        }
        take(Group { keys: values, totals, first_us: n(19)?, last_us: n(20)?, exact: source != Source::Time });
    }
    Ok(())
}
