//! What the store holds, read without the code that wrote it, and the comparison of the three accounts.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::common::until;
use crate::load::{End, Seen, Tokens, Used};
use crate::simulator::Arrived;

/// One record.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) outcome: String,
    pub(crate) status: Option<u16>,
    pub(crate) reported: bool,
    pub(crate) unknown: bool,
    pub(crate) tokens: Tokens,
    pub(crate) cost: Option<i64>,
    pub(crate) bytes_out: u64,
}

/// A look at the store, which others may be writing to.
pub(crate) fn open(home: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(home.join("ledger.db"), flags).unwrap();
    db.busy_timeout(Duration::from_secs(10)).unwrap();
    db
}

/// The records by their sessions, which these tests use as names. None has two.
pub(crate) fn rows(home: &Path) -> HashMap<String, Row> {
    let db = open(home);
    if !db.table_exists(None, "record").unwrap() {
        // It was just made.
        return HashMap::new();
    }
    let mut statement = db
        .prepare(
            "SELECT session, lower(hex(id)), outcome, json_extract(CAST(about AS TEXT), '$.status'), \
             json_extract(CAST(about AS TEXT), '$.usage') IS NOT NULL, flags & 1, input, cache_read, cache_write, \
             output, cost, bytes_out FROM record",
        )
        .unwrap();
    let found = statement
        .query_map([], |row| {
            let tag: Option<String> = row.get(0)?;
            let tokens =
                Tokens { input: row.get(6)?, cache_read: row.get(7)?, cache_write: row.get(8)?, output: row.get(9)? };
            let (reported, unknown) = (row.get(4)?, row.get(5)?);
            let (id, outcome, status) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let (cost, bytes_out) = (row.get(10)?, row.get::<_, i64>(11)? as u64);
            Ok((tag, Row { id, outcome, status, reported, unknown, tokens, cost, bytes_out }))
        })
        .unwrap();
    let mut rows = HashMap::new();
    for found in found {
        let (tag, row) = found.unwrap();
        let tag = tag.unwrap_or_else(|| panic!("nobody asked for {row:?}"));
        if let Some(other) = rows.insert(tag.clone(), row) {
            panic!("`{tag}` is there twice: {other:?} and {:?}", rows[&tag]);
        }
    }
    rows
}

/// The journal's segments that are not in the store yet, those of living processes included.
pub(crate) fn segments(home: &Path) -> usize {
    files(home, "journal")
}

/// Files in the journal's folder with this ending.
pub(crate) fn files(home: &Path, ending: &str) -> usize {
    let Ok(files) = std::fs::read_dir(home.join("journal")) else { return 0 };
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == ending)).count()
}

/// Waits until everything is in the store that processes left which are gone.
pub(crate) async fn recovered(home: &Path) {
    until(async || segments(home) <= 1).await;
}

/// Waits until the store holds a record of each of these.
pub(crate) async fn stored(home: &Path, tags: &[String]) {
    until(async || {
        home.join("ledger.db").exists() && {
            let rows = rows(home);
            tags.iter().all(|tag| rows.contains_key(tag))
        }
    })
    .await;
}

/// The store is whole, and its sums are those of its records.
pub(crate) fn check_store(home: &Path) {
    let db = open(home);
    let sound: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let records = count("SELECT count(*) FROM record");
    for sums in ["usage_total", "usage_time", "usage_session"] {
        assert_eq!(count(&format!("SELECT coalesce(sum(requests), 0) FROM {sums}")), records, "{sums}");
        let cost = |table: &str, column: &str| count(&format!("SELECT coalesce(sum({column}), 0) FROM {table}"));
        assert_eq!(cost(sums, "cost"), cost("record", "cost"), "{sums}");
        assert_eq!(cost(sums, "output"), cost("record", "output"), "{sums}");
    }
}

/// One exchange in the three accounts.
pub(crate) fn check(seen: &Seen, row: Option<&Row>, arrived: Option<&Arrived>) {
    let kind = seen.kind;
    let Some(row) = row else {
        assert!(seen.end != End::Known, "the client saw the end, and there is no record: {seen:?}");
        assert!(arrived.is_none(), "the simulator got it, and there is no record: {seen:?}");
        return;
    };
    if let Some(id) = &seen.id {
        assert_eq!(&id.replace('-', ""), &row.id, "{seen:?}");
    }
    if row.outcome == "interrupted" {
        assert!(seen.end != End::Known, "the client saw the end: {seen:?} {row:?}");
        assert!(!row.reported && row.cost.is_none() && row.status.is_none(), "{row:?}");
        return;
    }
    assert_eq!(row.outcome, kind.outcome, "{seen:?} {row:?}");
    if seen.end == End::Known {
        assert_eq!((seen.status, row.status), (kind.status, Some(kind.status)), "{seen:?} {row:?}");
    }
    let arrivals = arrived.map_or(0, |arrived| arrived.times);
    // A pooled connection that was dead on arrival is replaced once.
    let want = if kind.goes_up { 1..=2 } else { 0..=0 };
    let want = if kind.outcome == "client_disconnected" { 0..=2 } else { want };
    assert!(want.contains(&arrivals), "it went up {arrivals} times: {seen:?} {row:?}");
    let prompt = |tokens: &Tokens| (tokens.input, tokens.cache_read, tokens.cache_write);
    match kind.used {
        Used::All => {
            assert_eq!((row.reported, row.unknown, row.tokens), (true, false, seen.tokens), "{seen:?} {row:?}");
            assert_eq!(row.cost, Some(seen.tokens.cost()), "{seen:?} {row:?}");
            // What a packed stream has behind its last event comes after the record.
            let behind = seen.bytes.saturating_sub(row.bytes_out);
            let most = if kind.name == "a packed stream" { 16 } else { 0 };
            assert!(seen.end != End::Known || behind <= most && row.bytes_out <= seen.bytes, "{seen:?} {row:?}");
        }
        Used::Prompt => {
            assert_eq!(prompt(&row.tokens), prompt(&seen.tokens), "{seen:?} {row:?}");
            assert_eq!(row.cost, Some(row.tokens.cost()), "{seen:?} {row:?}");
        }
        Used::Nothing => assert!(!row.reported && row.cost.is_none(), "{seen:?} {row:?}"),
        Used::Any => {}
    }
}
