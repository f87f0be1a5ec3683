//! The connection that writes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params_from_iter};

use super::read::{Where, before, of_session, rows_of};
use super::sums::{self, Added, COUNTERS, SUMS};
use super::{Sqlite, about, row};
use crate::journal::free_space;
use crate::query::Filter;
use crate::record::{Fingerprint, Outcome, Record};
use crate::store::{Batch, Loaded, Priced, Progress, Purge, Size, StoreError, Writer};

/// Records of one step of long work: short enough that loading goes on between.
const STEP: usize = 500;
/// On a full disk.
const SMALL_STEP: usize = 20;
const SMALL_PAGES: u32 = 16;
/// Pages that are given back to the file system in one step.
const PAGES: u32 = 4096;
/// Room on the disk that is not used for tidying up.
const SPARE: u64 = 64 * 1024 * 1024;

/// Credentials of which it is kept what was said about their limits.
pub(super) const LIMITS: u32 = 100;
#[derive(Debug)]
pub(super) struct SqliteWriter {
    db: Connection,
    store: Sqlite,
    /// Adds records, given by their `seq` in a JSON list, to the sums, or takes them away.
    change_sums: [String; 3],
    /// Adds a group that was added up already.
    add_group: [String; 3],
    /// Whether something was written since the last tidying up.
    busy: bool,
    /// The file that was opened, and what lies beside it.
    files: [Option<File>; 2],
}

/// What tells a file from another one of the same name: device and inode.
type File = (u64, u64);

fn file(path: &Path) -> Option<File> {
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

impl SqliteWriter {
    pub(super) fn new(db: Connection, store: Sqlite) -> Self {
        let sums: String = COUNTERS.iter().map(|name| format!(", ?2 * sum({name})")).collect();
        let names = COUNTERS.join(", ");
        let from = "FROM record_usage WHERE seq IN (SELECT value FROM json_each(?1)) GROUP BY";
        let change_sums = SUMS.map(|(table, key, bounds)| {
            let columns: String = bounds.iter().map(|(name, ..)| format!(", {name}")).collect();
            let values: String = bounds.iter().map(|(_, grows, of)| format!(", {grows}({of})")).collect();
            let grow = sums::growth(bounds);
            format!(
                "INSERT INTO {table} ({key}, {names}{columns}) SELECT {key}{sums}{values} {from} {key} \
                 ON CONFLICT DO UPDATE SET {grow}"
            )
        });
        let files = store.files().map(|path| file(&path));
        Self { db, store, change_sums, add_group: sums::statements(), busy: true, files }
    }

    pub(super) fn into_db(self) -> Connection {
        self.db
    }

    /// Whether the file that is open is still the one that has its name: what is written into any other is lost with it.
    fn stay(&mut self) -> Result<(), StoreError> {
        let [path, beside] = self.store.files();
        let now = [&path, &beside].map(|path| file(path));
        if now[0] == self.files[0] {
            self.files = now;
            return Ok(());
        }
        // What lies beside the file belongs into it, wherever it is now; whoever opens another of its name would take it
        // for a part of that one.
        let _ = drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)");
        let is_left = std::fs::metadata(&beside).is_ok_and(|about| about.len() > 0);
        if is_left && now[1] == self.files[1] {
            let _ = std::fs::rename(&beside, self.store.aside("-wal"));
        }
        let why = format!("`{}` was removed or replaced while it was in use", path.display());
        Err(StoreError::Unavailable(why))
    }

    fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        self.stay()?;
        let known = self.store.form();
        let change = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A newer program may have changed the form under our feet.
        let found: u32 = change.prepare_cached("PRAGMA user_version")?.query_row([], |row| row.get(0))?;
        if found != known {
            return Err(StoreError::Newer { found, known });
        }
        Ok(change)
    }

    /// A reader that stands still keeps what others write beside the file, where it grows. The journal holds it as well
    /// and takes less room.
    fn catch_up(&self) -> Result<(), StoreError> {
        if self.store.is_behind() {
            drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
            if self.store.is_behind() {
                return Err(StoreError::Busy);
            }
        }
        Ok(())
    }

    /// Takes some records, which `seqs` names, and changes them with their sums.
    fn remove(&mut self, seqs: &[i64], sums_too: bool) -> Result<(), StoreError> {
        let change_sums = self.change_sums.clone();
        let change = self.begin()?;
        let list = list(seqs);
        if sums_too {
            count(&change, &change_sums, &list, -1)?;
        }
        change.execute("DELETE FROM record WHERE seq IN (SELECT value FROM json_each(?1))", [&list])?;
        change.commit()?;
        Ok(())
    }

    fn seqs(&self, condition: &str, value: Value) -> Result<Vec<i64>, StoreError> {
        let sql = format!("SELECT seq FROM record WHERE {condition} LIMIT {STEP}");
        let mut statement = self.db.prepare_cached(&sql)?;
        let seqs = statement.query_map([value], |row| row.get(0))?.collect::<Result<_, _>>()?;
        Ok(seqs)
    }
}

fn list(seqs: &[i64]) -> String {
    let numbers: Vec<String> = seqs.iter().map(i64::to_string).collect();
    format!("[{}]", numbers.join(","))
}

/// Adds these records to the sums (1), or takes them away (-1).
fn count(change: &Transaction<'_>, change_sums: &[String; 3], seqs: &str, sign: i64) -> Result<(), StoreError> {
    for sql in change_sums {
        change.prepare_cached(sql)?.execute((seqs, sign))?;
    }
    Ok(())
}

impl Writer for SqliteWriter {
    fn load(&mut self, batch: &Batch<'_>) -> Result<Loaded, StoreError> {
        self.busy = true;
        self.catch_up()?;
        if batch.complete {
            // Brings this transaction to the disk, and with it all before it: the segment goes after this.
            self.db.pragma_update(None, "synchronous", "FULL")?;
        }
        let loaded = self.load_in_one(batch);
        if batch.complete {
            self.db.pragma_update(None, "synchronous", "NORMAL")?;
        }
        loaded
    }

    fn position(&mut self, segment: &str) -> Result<u64, StoreError> {
        let mut statement = self.db.prepare_cached("SELECT position FROM segment WHERE name = ?1")?;
        let position: Option<i64> = statement.query_row([segment], |row| row.get(0)).optional()?;
        Ok(position.map_or(0, |n| u64::try_from(n).unwrap_or(0)))
    }

    fn forget_segments_but(&mut self, names: &[String]) -> Result<(), StoreError> {
        let names = serde_json::to_string(names).map_err(|why| StoreError::Other(why.to_string()))?;
        let gone = "SELECT 1 FROM segment WHERE name NOT IN (SELECT value FROM json_each(?1)) LIMIT 1";
        if self.db.query_row(gone, [&names], |_| Ok(())).optional()?.is_some() {
            let change = self.begin()?;
            let sql = "DELETE FROM segment WHERE name NOT IN (SELECT value FROM json_each(?1))";
            change.execute(sql, [&names])?;
            change.commit()?;
        }
        Ok(())
    }

    fn reset(&mut self, now_us: i64) -> Result<(), StoreError> {
        let change = self.begin()?;
        change.execute("INSERT INTO epoch (number, began_us) SELECT max(number) + 1, ?1 FROM epoch", [now_us])?;
        change.commit()?;
        Ok(())
    }

    fn reprice(
        &mut self,
        filter: &Filter,
        after: i64,
        price: &mut dyn FnMut(&Record) -> Option<Priced>,
    ) -> Result<Progress, StoreError> {
        self.busy = true;
        let change_sums = self.change_sums.clone();
        let change = self.begin()?;
        let mut meant = Where::rows(filter);
        meant.and("seq > ", Value::Integer(after));
        let rows = rows_of(&change, &meant, "seq", STEP)?;
        let mut changes = Vec::new();
        for row in &rows {
            if let Some(priced) = price(&row.record)
                && !priced.is_of(&row.record)
            {
                let Priced { cost, flags, unpriced, version } = priced;
                let record = Record { cost, cost_flags: flags, unpriced, price_version: version, ..row.record.clone() };
                changes.push((row.seq, record));
            }
        }
        let seqs = list(&changes.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
        count(&change, &change_sums, &seqs, -1)?;
        {
            let sql = "UPDATE record SET cost = ?2, flags = ?3, about = ?4 WHERE seq = ?1";
            let mut statement = change.prepare_cached(sql)?;
            let mut about = Vec::new();
            for (seq, record) in &changes {
                about::write(record, &mut about);
                statement.execute((seq, record.cost.map(|cost| cost.0), row::flags(record), &about))?;
            }
        }
        count(&change, &change_sums, &seqs, 1)?;
        change.commit()?;
        let next = (rows.len() == STEP).then(|| rows.last().map(|row| row.seq)).flatten();
        Ok(Progress { seen: rows.len() as u64, changed: changes.len() as u64, next })
    }

    fn purge(&mut self, what: &Purge) -> Result<Progress, StoreError> {
        if std::mem::take(&mut self.busy) {
            // While there is the room that the reserve gave: afterwards what lies beside the file needs none.
            drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        let mut seqs = match what {
            Purge::Id(id) => self.seqs("id = ?1", Value::Blob(id.to_bytes().into()))?,
            Purge::Session(session) => self.seqs(&of_session("?1"), Value::Text(session.clone()))?,
            Purge::Before(us) => self.seqs(&before("?1"), Value::Integer(*us))?,
            Purge::All => self.seqs("seq > ?1", Value::Integer(0))?,
        };
        let step = seqs.len();
        match self.remove(&seqs, true) {
            Err(StoreError::Full) => {
                // What lies beside the file goes into it, where it needs no room; and then less at a time.
                drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
                seqs.truncate(SMALL_STEP);
                self.remove(&seqs, true)?;
                drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
            }
            done => done?,
        }
        if step == STEP || seqs.len() < step {
            return Ok(Progress { seen: seqs.len() as u64, changed: seqs.len() as u64, next: Some(0) });
        }
        let change = self.begin()?;
        for (table, _, bounds) in SUMS {
            change.execute(&format!("DELETE FROM {table} WHERE requests <= 0"), [])?;
            // What is left may be sums of records that went by age: they go as well, as far as they can be told apart.
            match what {
                Purge::All => {
                    change.execute(&format!("DELETE FROM {table}"), [])?;
                }
                Purge::Session(session) if table == "usage_session" => {
                    change.execute("DELETE FROM usage_session WHERE session = ?1", [session])?;
                }
                Purge::Before(us) => {
                    let timed = !bounds.is_empty();
                    let ended = if timed { "last_us < ?1" } else { "(bucket + 1) * 900000000 <= ?1" };
                    change.execute(&format!("DELETE FROM {table} WHERE {ended}"), [us])?;
                }
                Purge::Id(_) | Purge::Session(_) => {}
            }
        }
        forget_spans(&change)?;
        match what {
            Purge::All => drop(change.execute("DELETE FROM limits", [])?),
            Purge::Before(us) => drop(change.execute("DELETE FROM limits WHERE seen_us < ?1", [us])?),
            Purge::Id(_) | Purge::Session(_) => {}
        }
        change.commit()?;
        for form in 1..=self.store.form() {
            let _ = std::fs::remove_file(self.store.copy(form));
        }
        Ok(Progress { seen: seqs.len() as u64, changed: seqs.len() as u64, next: None })
    }

    fn trim(&mut self, before_us: i64) -> Result<Progress, StoreError> {
        self.busy = true;
        let seqs = self.seqs(&before("?1"), Value::Integer(before_us))?;
        self.remove(&seqs, false)?;
        // What a copy holds is older than itself.
        let before = u64::try_from(before_us).ok().and_then(|us| UNIX_EPOCH.checked_add(Duration::from_micros(us)));
        self.store.forget_copies(before.unwrap_or(UNIX_EPOCH));
        let next = (seqs.len() == STEP).then_some(0);
        // At every step: when the oldest record began is asked before the next one.
        let change = self.begin()?;
        forget_spans(&change)?;
        change.commit()?;
        Ok(Progress { seen: seqs.len() as u64, changed: seqs.len() as u64, next })
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        let mut pages = PAGES;
        loop {
            let free: u32 = self.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if free == 0 {
                break;
            }
            match drain(&self.db, &format!("PRAGMA incremental_vacuum({pages})")) {
                // On a full disk, a little at a time.
                Err(StoreError::Full) if pages > SMALL_PAGES => pages = SMALL_PAGES,
                done => done?,
            }
            drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
            let left: u32 = self.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if left >= free && pages == SMALL_PAGES {
                break;
            }
        }
        drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")
    }

    fn scrub(&mut self) -> Result<(), StoreError> {
        let needed = self.size()?.bytes.saturating_mul(2).saturating_add(SPARE);
        let folder = self.store.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if free_space(folder.unwrap_or(Path::new("."))).is_some_and(|bytes| bytes > needed) {
            // Rows that were moved before they were removed left copies behind: only a new file has none.
            self.db.execute_batch("VACUUM")?;
        }
        self.compact()
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        if std::mem::take(&mut self.busy) {
            self.forget_old_limits()?;
            drain(&self.db, "PRAGMA optimize")?;
            drain(&self.db, "PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        Ok(())
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        let number = |sql: &str| self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        let bytes = pages.saturating_mul(number("PRAGMA page_size")?);
        // Within the first quarter of an hour of which anything is left.
        let oldest = "SELECT min(started_us) FROM record WHERE seq BETWEEN \
                      (SELECT first_seq FROM span ORDER BY bucket LIMIT 1) AND \
                      (SELECT last_seq FROM span ORDER BY bucket LIMIT 1)";
        Ok(Size {
            bytes: u64::try_from(bytes).unwrap_or(0),
            records: number("SELECT coalesce(max(seq) - min(seq) + 1, 0) FROM record")?.unsigned_abs(),
            oldest_us: self.db.query_row(oldest, [], |row| row.get(0))?,
        })
    }
}

/// Nothing is left of these quarters of an hour. What is kept of others may be more than what is left of them.
fn forget_spans(change: &Transaction<'_>) -> Result<(), StoreError> {
    let gone = "DELETE FROM span WHERE NOT EXISTS \
                (SELECT 1 FROM record WHERE seq BETWEEN first_seq AND last_seq AND started_us / 900000000 = bucket)";
    change.execute(gone, [])?;
    Ok(())
}

/// Runs a pragma that gives rows which nobody needs.
fn drain(db: &Connection, sql: &str) -> Result<(), StoreError> {
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

impl SqliteWriter {
    /// Tokens of subscriptions change every few hours: the words about old ones must not grow without end.
    fn forget_old_limits(&mut self) -> Result<(), StoreError> {
        let known: u32 = self.db.query_row("SELECT count(*) FROM limits", [], |row| row.get(0))?;
        if known > LIMITS {
            let sql = "DELETE FROM limits WHERE seen_us < (SELECT seen_us FROM limits ORDER BY seen_us DESC LIMIT 1 OFFSET ?1)";
            let change = self.begin()?;
            change.execute(sql, [LIMITS - 1])?;
            change.commit()?;
        }
        Ok(())
    }

    fn load_in_one(&mut self, batch: &Batch<'_>) -> Result<Loaded, StoreError> {
        let (change_sums, add_group) = (self.change_sums.clone(), self.add_group.clone());
        let change = self.begin()?;
        let epoch: i64 = change.prepare_cached("SELECT max(number) FROM epoch")?.query_row([], |row| row.get(0))?;
        let first: i64 = change.prepare_cached("SELECT next FROM sequence")?.query_row([], |row| row.get(0))?;
        let (mut next, mut scratch) = (first, Vec::with_capacity(1024));
        let mut loaded = Loaded::default();
        let mut new: Vec<(i64, &Record)> = Vec::with_capacity(batch.records.len());
        {
            let mut insert = change.prepare_cached(row::INSERT)?;
            for record in batch.records {
                if row::insert(&mut insert, next, epoch, record, &mut scratch)? {
                    loaded.new += 1;
                } else if record.outcome != Outcome::Interrupted
                    && forget_interrupted(&change, &change_sums, &mut new, record)?
                {
                    row::insert(&mut insert, next, epoch, record, &mut scratch)?;
                    loaded.corrected += 1;
                } else {
                    loaded.known += 1;
                    continue;
                }
                new.push((next, record));
                next += 1;
            }
        }
        let mut added = Added::default();
        new.iter().for_each(|(seq, record)| added.add(*seq, record));
        added.write(&change, &add_group, epoch)?;
        if next > first {
            change.prepare_cached("UPDATE sequence SET next = ?1")?.execute([next])?;
        }
        keep_limits(&change, batch.records)?;
        let sql = "INSERT INTO segment (name, position, complete) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO UPDATE SET \
                   position = max(position, excluded.position), complete = max(complete, excluded.complete)";
        let position = i64::try_from(batch.position).unwrap_or(i64::MAX);
        change.prepare_cached(sql)?.execute((batch.segment, position, batch.complete))?;
        change.commit()?;
        Ok(loaded)
    }
}

/// Keeps what providers said last about their limits. Segments are not loaded in the order of time, so an older word
/// does not take the place of a newer one; unless that is from a clock that went wrong.
fn keep_limits(change: &Transaction<'_>, records: &[Record]) -> Result<(), StoreError> {
    let mut last = HashMap::new();
    for record in records {
        if let Some(limits) = &record.limits {
            let provider = record.parties.provider.as_deref().unwrap_or_default();
            let credential = record.credential.as_ref().map_or("", Fingerprint::as_str);
            last.insert((provider, credential), (record.ended_us.max(0), limits));
        }
    }
    for ((provider, credential), (seen_us, limits)) in last {
        let sql = "INSERT INTO limits (provider, credential, seen_us, headers) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO UPDATE SET seen_us = excluded.seen_us, headers = excluded.headers \
                   WHERE excluded.seen_us >= seen_us OR excluded.seen_us < seen_us - 86400000000";
        change.prepare_cached(sql)?.execute((provider, credential, seen_us, limits.as_str()))?;
    }
    Ok(())
}

/// Takes back that an exchange was interrupted, now that its end is known.
fn forget_interrupted(
    change: &Transaction<'_>,
    change_sums: &[String; 3],
    new: &mut Vec<(i64, &Record)>,
    record: &Record,
) -> Result<bool, StoreError> {
    let sql = "SELECT seq FROM record WHERE id = ?1 AND outcome = 'interrupted'";
    let found: Option<i64> =
        change.query_row(sql, params_from_iter([record.id.to_bytes()]), |row| row.get(0)).optional()?;
    let Some(seq) = found else { return Ok(false) };
    // One that came in this very batch is not in the sums yet.
    let known = new.len();
    new.retain(|(new, _)| *new != seq);
    if new.len() == known {
        count(change, change_sums, &list(&[seq]), -1)?;
    }
    change.execute("DELETE FROM record WHERE seq = ?1", [seq])?;
    Ok(true)
}
