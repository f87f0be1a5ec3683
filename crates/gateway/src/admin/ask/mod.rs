//! Questions to the ledger, as paths and queries: what the command line asks of a running gateway, and of the files where
//! none runs.

mod words;

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use ledger::archive::{self, ArchiveError, GrepLimits, Kind};
use ledger::query::{Agent, BadFilter, Filter, Found, Groups, Key, Row, Session};
use ledger::record::Id;
use ledger::redact::Pattern;
use ledger::store::{Reader, StoreError};
use serde_json::{Map, Value, json};

pub(super) use self::words::words;
pub use self::words::{Zone, encoded};
use super::shape;
use crate::glob::Glob;
use crate::recorder::{Bodies, now_us};

/// Records of which one step of a search looks at the bodies.
const SEARCHED: u32 = 500;
/// Records in one answer, which is made in memory.
const PAGE: u32 = 1000;
/// Keys that sums can be made for at once.
const KEYS: usize = 3;
/// Bytes of heads, which are small.
const HEAD: usize = 256 * 1024;
/// What was handed in for the archive is waited for so long.
const FLUSH: Duration = Duration::from_secs(1);

/// Where bodies are read from.
#[derive(Debug)]
pub enum Bodied<'a> {
    /// There are none.
    None,
    /// They cannot be read, for this reason.
    Lost(&'a str),
    /// The archive that is being written.
    Live(&'a Bodies),
    /// The files of an archive.
    Files(&'a archive::Reader),
}

impl Bodied<'_> {
    fn reader(&self) -> Option<&archive::Reader> {
        match self {
            Self::None | Self::Lost(_) => None,
            Self::Live(bodies) => {
                bodies.archive().flush(FLUSH);
                Some(bodies.archive().reader())
            }
            Self::Files(reader) => Some(reader),
        }
    }
}

/// A question.
#[derive(Debug)]
pub enum Question {
    /// The last records.
    Records(Filter),
    /// Records in whose bodies something stands, among the next so many.
    Search(Filter, Pattern),
    /// One record, with what is kept of its exchange.
    Record(String),
    /// A body of one exchange.
    Body(String, Kind),
    /// Sums.
    Sums(Filter, Vec<Key>, Zone),
    /// Sessions with their agents.
    Sessions(Filter),
    /// What providers said of their limits.
    Limits(Filter),
}

/// An answer.
#[derive(Debug)]
pub enum Told {
    /// JSON.
    Json(Value),
    /// Bytes as they are kept.
    Bytes(Vec<u8>),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Wrong {
    /// The question says nothing that is understood.
    Question(String),
    /// There is no such thing.
    Missing(String),
    /// It could be several things.
    Ambiguous(String, Vec<String>),
    /// The store says no.
    Store(StoreError),
    /// The archive says no.
    Archive(ArchiveError),
    /// The archive cannot be opened, for this reason.
    Lost(String),
    /// Records that were to go are still there, for this reason.
    Unremoved(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Question(why) | Self::Missing(why) => f.write_str(why),
            Self::Ambiguous(word, ids) => write!(f, "`{word}` is more than one: {}", ids.join(", ")),
            Self::Store(why) => write!(f, "the ledger cannot be read: {why}"),
            Self::Archive(why) => write!(f, "the archive cannot be read: {why}"),
            Self::Lost(why) => write!(f, "the archive cannot be read: {why}"),
            Self::Unremoved(why) => write!(f, "the records are not removed: {why}"),
        }
    }
}

impl std::error::Error for Wrong {}

impl From<StoreError> for Wrong {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

impl From<ArchiveError> for Wrong {
    fn from(why: ArchiveError) -> Self {
        Self::Archive(why)
    }
}

impl From<BadFilter> for Wrong {
    fn from(why: BadFilter) -> Self {
        Self::Question(why.to_string())
    }
}

/// The words of a query that are not the filter's.
#[derive(Debug, Default)]
struct Other {
    by: Vec<Key>,
    grep: Option<Pattern>,
    zone: Zone,
}

/// Splits a query into what is a filter and what is not.
fn split(query: &str) -> Result<(Filter, Other), Wrong> {
    let (mut filter, mut other, mut rest) = (Filter::default(), Other::default(), Vec::new());
    for (word, value) in words(query)? {
        match &*word {
            "by" => {
                let unknown = || Wrong::Question(format!("`{value}` cannot stand for `by`: write {BY}"));
                let keys = value.split(',').map(Key::named).collect::<Option<Vec<_>>>().ok_or_else(unknown)?;
                other.by = Some(keys).filter(|keys| keys.len() <= KEYS).ok_or_else(unknown)?;
            }
            "grep" => other.grep = Some(Pattern::new(&value).map_err(|bad| Wrong::Question(bad.message))?),
            "zone" => {
                let wrong = || Wrong::Question("`zone` is seconds east of Greenwich: write `3600`".into());
                other.zone = Zone::read(&value).ok_or_else(wrong)?;
            }
            _ => rest.push((word, value)),
        }
    }
    // Times are the asker's: they are read when the zone is known.
    let now = now_us();
    for (word, value) in rest {
        filter.set(&word, &value, now, &|at| other.zone.at(at))?;
    }
    filter.check()?;
    Ok((filter, other))
}

/// What sums can be made for, in words.
const BY: &str = "`day`, `model`, `session`, `agent`, `agent-type`, `project`, `provider`, `operation` or `outcome`";

impl Question {
    /// From path and query; `None`: the path is none of these.
    pub fn of(target: &str) -> Option<Result<Self, Wrong>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if let Some(rest) = path.strip_prefix("/gateway/audit/") {
            let (word, body) = rest.split_once('/').map_or((rest, None), |(word, body)| (word, Some(body)));
            let kind = match body {
                None => return Some(Ok(Self::Record(word.into()))),
                Some("request") => Kind::Request,
                Some("response") => Kind::Response,
                Some(_) => return None,
            };
            return Some(Ok(Self::Body(word.into(), kind)));
        }
        let make: fn(Filter, Other) -> Self = match path {
            "/gateway/audit" => |filter, other| match other.grep {
                None => Self::Records(filter),
                Some(pattern) => Self::Search(filter, pattern),
            },
            "/gateway/costs" => |filter, other| {
                Self::Sums(filter, if other.by.is_empty() { vec![Key::Day] } else { other.by }, other.zone)
            },
            "/gateway/sessions" => |filter, _| Self::Sessions(filter),
            "/gateway/limits" => |filter, _| Self::Limits(filter),
            _ => return None,
        };
        let made = split(query).map(|(filter, other)| make(filter, other));
        Some(made.and_then(|question| match &question {
            Self::Limits(filter) if !is_of_keys(filter) => Err(Wrong::Question(LIMITS.into())),
            _ => Ok(question),
        }))
    }

    /// Asks the store and, where bodies are wanted, the archive. Blocks.
    pub fn ask(&self, reader: &mut dyn Reader, bodied: &Bodied<'_>) -> Result<Told, Wrong> {
        Ok(Told::Json(match self {
            Self::Records(filter) => {
                let page = filter.limit().min(PAGE);
                let rows = reader.rows(&Filter { limit: Some(page), ..filter.clone() })?;
                let next = rows.last().filter(|_| rows.len() == page as usize && page < filter.limit());
                let next = next.map(|row| row.seq);
                json!({ "records": rows.iter().map(shape::row).collect::<Value>(), "next": next })
            }
            Self::Search(filter, pattern) => search(filter, pattern, reader, bodied)?,
            Self::Record(word) => record(&found(word, reader)?, bodied)?,
            Self::Body(word, kind) => {
                let row = found(word, reader)?;
                let body = match bodied.reader() {
                    Some(archive) => archive.read(row.record.id.to_bytes(), *kind)?,
                    None => None,
                };
                let missing = || {
                    if let Bodied::Lost(why) = bodied {
                        return Wrong::Lost((*why).to_owned());
                    }
                    let why = "it was not taken (`audit`), is older than what is kept, or was removed";
                    Wrong::Missing(format!("{}: nothing of it is kept: {why}", row.record.id))
                };
                return Ok(Told::Bytes(body.ok_or_else(missing)?.bytes()?));
            }
            Self::Sums(filter, keys, zone) => sums(&reader.totals(filter, keys, &|at| zone.at(at))?, keys),
            Self::Sessions(filter) => {
                let told = reader.sessions(filter)?;
                let sessions: Value = told.sessions.iter().map(session).collect();
                json!({ "sessions": sessions, "total": shape::totals(&told.totals), "more": told.more })
            }
            Self::Limits(filter) => limits(reader, filter)?,
        }))
    }
}

/// The one record that a word stands for.
pub(super) fn found(word: &str, reader: &mut dyn Reader) -> Result<Row, Wrong> {
    match reader.find(word)? {
        Found::One(row) => Ok(*row),
        Found::None => Err(Wrong::Missing(format!("no exchange is known as `{word}`"))),
        Found::Many(rows) => {
            // As short as they are told apart by.
            let mut ids: Vec<String> = rows.iter().map(|row| row.record.id.short()).collect();
            ids.sort_unstable();
            if ids.windows(2).any(|pair| pair[0] == pair[1]) {
                ids = rows.iter().map(|row| row.record.id.to_string()).collect();
            }
            Err(Wrong::Ambiguous(word.into(), ids))
        }
    }
}

/// A record, the heads of its exchange, and which bodies there are.
fn record(row: &Row, bodied: &Bodied<'_>) -> Result<Value, Wrong> {
    let mut told = json!({ "record": shape::row(row) });
    if let Bodied::Lost(why) = bodied {
        told["archive"] = (*why).into();
    }
    let Some(archive) = bodied.reader() else { return Ok(told) };
    for (name, kind) in [
        ("request_head", Kind::RequestHead),
        ("request", Kind::Request),
        ("response_head", Kind::ResponseHead),
        ("response", Kind::Response),
    ] {
        // A damaged body must not hide the record.
        let body = match archive.read(row.record.id.to_bytes(), kind) {
            Ok(body) => body,
            Err(why) => {
                told["archive"] = why.to_string().into();
                continue;
            }
        };
        let Some(body) = body else { continue };
        let about = body.about();
        told[name] = match kind {
            Kind::RequestHead | Kind::ResponseHead if about.len <= HEAD as u64 => {
                String::from_utf8_lossy(&body.bytes()?).into()
            }
            _ => {
                json!({ "bytes": about.len, "coding": about.coding, "coded": about.coded, "redacted": about.redacted })
            }
        };
    }
    Ok(told)
}

/// One step of a search: the records of the next few in whose bodies the pattern is found, and where to go on.
fn search(filter: &Filter, pattern: &Pattern, reader: &mut dyn Reader, bodied: &Bodied<'_>) -> Result<Value, Wrong> {
    let Some(archive) = bodied.reader() else {
        if let Bodied::Lost(why) = bodied {
            return Err(Wrong::Lost((*why).to_owned()));
        }
        return Err(Wrong::Missing("no bodies are kept: there is nothing to search".into()));
    };
    let rows = reader.rows(&Filter { limit: Some(SEARCHED), ..filter.clone() })?;
    let times = rows.iter().map(|row| row.record.id.unix_ms());
    let (first, last) = (times.clone().min(), times.max());
    let mut hits: HashMap<Id, Value> = HashMap::new();
    let ids: HashMap<Id, &Row> = rows.iter().map(|row| (row.record.id, row)).collect();
    let limits = GrepLimits {
        since_ms: first.unwrap_or(0),
        until_ms: last.unwrap_or(0).saturating_add(1),
        hits: u64::MAX,
        ..GrepLimits::default()
    };
    let scan = archive.grep(pattern, &limits, |hit| {
        let id = Id::from_bytes(hit.about.exchange);
        if ids.contains_key(&id) {
            let excerpt = String::from_utf8_lossy(&hit.excerpt);
            let of = match hit.about.kind {
                Kind::Request => "request",
                Kind::Response => "response",
                Kind::RequestHead => "request_head",
                Kind::ResponseHead => "response_head",
            };
            hits.entry(id).or_insert_with(|| json!({ "in": of, "excerpt": excerpt }));
        }
        ControlFlow::Continue(())
    })?;
    let most = filter.limit() as usize;
    let hit = |row: &Row| {
        let found = hits.remove(&row.record.id)?;
        let mut shown = shape::row(row);
        shown["found"] = found;
        Some(shown)
    };
    let records: Vec<Value> = rows.iter().filter_map(hit).take(most).collect();
    let more = rows.len() == SEARCHED as usize;
    Ok(json!({
        "records": records,
        "searched": rows.len(),
        "unread": scan.unread,
        "cut": scan.cut,
        "next": rows.last().filter(|_| more).map(|row| row.seq),
    }))
}

fn sums(groups: &Groups, keys: &[Key]) -> Value {
    let group = |group: &ledger::query::Group| {
        let mut shown = shape::totals(&group.totals);
        for (key, value) in keys.iter().zip(&group.keys) {
            shown[name(*key)] = value.as_str().into();
        }
        // Where sums know quarters of an hour only, they are not shown as the times of requests.
        let [first, last] = if group.exact { ["first", "last"] } else { ["from", "until"] };
        shown[first] = shape::time(group.first_us).into();
        shown[last] = shape::time(group.last_us).into();
        shown
    };
    let by: Vec<&str> = keys.iter().map(|key| name(*key)).collect();
    let groups_shown: Value = groups.groups.iter().map(group).collect();
    json!({ "by": by, "groups": groups_shown, "total": shape::totals(&groups.totals), "more": groups.more })
}

/// The name of a key in answers.
fn name(key: Key) -> &'static str {
    match key {
        Key::Day => "day",
        Key::Model => "model",
        Key::Session => "session",
        Key::Agent | Key::AgentId => "agent",
        Key::AgentType => "agent_type",
        Key::ParentAgent => "parent_agent",
        Key::Project => "project",
        Key::Provider => "provider",
        Key::Operation => "operation",
        Key::Outcome => "outcome",
    }
}

fn session(session: &Session) -> Value {
    let mut shown = shape::totals(&session.totals);
    let more = json!({
        "id": session.id,
        "projects": session.projects,
        "first": shape::time(session.first_us),
        "last": shape::time(session.last_us),
        "agents": session.agents.iter().map(agent).collect::<Value>(),
    });
    join(&mut shown, more);
    shown
}

fn agent(agent: &Agent) -> Value {
    let mut shown = shape::totals(&agent.totals);
    let more = json!({
        "id": agent.id,
        "kind": agent.kind,
        "first": shape::time(agent.first_us),
        "last": shape::time(agent.last_us),
        "agents": agent.agents.iter().map(self::agent).collect::<Value>(),
    });
    join(&mut shown, more);
    shown
}

fn join(to: &mut Value, more: Value) {
    if let (Some(to), Value::Object(more)) = (to.as_object_mut(), more) {
        to.extend(more);
    }
}

/// A number without a fraction as one that has none.
fn whole(n: f64) -> Value {
    if n.fract() == 0.0 && n.abs() < 1e15 { (n as i64).into() } else { n.into() }
}

/// What may be asked of limits.
const LIMITS: &str = "limits are those of a provider's keys: only `provider`, `since`, `until` and `limit` say which";

/// Whether a filter says only what can be said of limits.
fn is_of_keys(filter: &Filter) -> bool {
    let Filter { provider, since_us, until_us, limit, .. } = filter.clone();
    *filter == Filter { provider, since_us, until_us, limit, ..Filter::default() }
}

fn limits(reader: &mut dyn Reader, filter: &Filter) -> Result<Value, Wrong> {
    let one = |last: &ledger::query::LastLimits| {
        let windows: Vec<Value> = last
            .limits
            .windows()
            .into_iter()
            .map(|window| {
                json!({
                    "name": window.name,
                    "limit": window.limit.map(whole),
                    "remaining": window.remaining.map(whole),
                    "used": window.used.map(|part| whole((part * 1e6).round() / 1e6)),
                    "resets": window.resets_us.map(shape::time),
                    "status": window.status,
                })
            })
            .collect();
        let said: Map<String, Value> = last.limits.pairs().map(|(name, value)| (name.into(), value.into())).collect();
        json!({
            "provider": last.provider,
            "credential": last.credential,
            "seen": shape::time(last.seen_us),
            "windows": windows,
            "said": said,
        })
    };
    let (all, provider) = (reader.limits()?, filter.provider.as_deref().map(Glob::new));
    let meant = all.iter().filter(|last| {
        provider.as_ref().is_none_or(|name| name.matches(&last.provider))
            && filter.since_us.is_none_or(|since| last.seen_us >= since)
            && filter.until_us.is_none_or(|until| last.seen_us < until)
    });
    Ok(json!({ "limits": meant.take(filter.limit() as usize).map(one).collect::<Value>() }))
}

#[cfg(test)]
mod tests;
