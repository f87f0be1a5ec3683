//! Journal, loader and store together, over real files, in one process.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod recovery;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledger::journal::{Journal, JournalOptions, Unwritten};
use ledger::loader::{Counts, Recovery, catch_up};
use ledger::money::NanoUsd;
use ledger::offline::Offline;
use ledger::query::{Filter, Found, UTC};
use ledger::record::{Id, Outcome, Record};
use ledger::retention::Retention;
use ledger::sample::{id, record, start};
use ledger::store::migrations::SQLITE;
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Loaded, Priced, Progress, Purge, Reader, Size, Store, StoreError, Writer};
use ledger::{Ledger, LedgerOptions};
use rusqlite::Connection;
use tokio::time::Instant;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    fn db(&self) -> PathBuf {
        self.0.path().join("ledger.db")
    }

    fn options(&self) -> LedgerOptions {
        let journal = JournalOptions { ballast_bytes: 0, low_water_bytes: 0, ..JournalOptions::new(self.journal()) };
        LedgerOptions { journal, retention: Retention::default() }
    }

    fn store(&self) -> Sqlite {
        Sqlite::new(self.db())
    }

    fn ledger(&self) -> Ledger {
        self.ledger_with(self.options())
    }

    fn ledger_with(&self, options: LedgerOptions) -> Ledger {
        Ledger::open(options, Arc::new(self.store())).unwrap()
    }

    /// The names of the journal's files that end so.
    fn files(&self, end: &str) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.journal()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(end)).collect();
        files.sort();
        files
    }

    fn stored(&self) -> Vec<Record> {
        let filter = Filter { limit: Some(100_000), ..Filter::default() };
        let rows = self.store().reader().unwrap().rows(&filter).unwrap();
        let mut records: Vec<Record> = rows.into_iter().map(|row| row.record).collect();
        records.sort_by_key(|record| record.id);
        records
    }
}

fn samples(range: std::ops::Range<u64>) -> Vec<Record> {
    range.map(record).collect()
}

async fn finish_all(ledger: &Ledger, records: Vec<Record>) {
    let acks: Vec<_> = records.into_iter().map(|record| ledger.finish(record)).collect();
    for ack in acks {
        ack.await.unwrap();
    }
}

/// Waits until it holds, or fails after a long time.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A journal as a process leaves it that ends without a word: its segment is there and nobody holds it.
fn left_behind(home: &Home, write: impl FnOnce(&Journal)) -> PathBuf {
    let before = if home.journal().exists() { home.files("journal") } else { Vec::new() };
    let journal = Journal::open(home.options().journal).unwrap();
    write(&journal);
    journal.close();
    home.files("journal").into_iter().find(|path| !before.contains(path)).unwrap()
}

async fn rows(ledger: &Ledger, filter: Filter) -> Vec<Record> {
    let answer = ledger.read(move |reader| reader.rows(&filter)).await.unwrap();
    assert!(answer.fresh);
    answer.value.into_iter().map(|row| row.record).collect()
}

#[tokio::test]
async fn a_question_sees_what_was_acknowledged_before_it() {
    let home = Home::new();
    let ledger = home.ledger();
    for n in 0..50 {
        ledger.start(&mut record(n)).await.unwrap();
        ledger.finish(record(n)).await.unwrap();
        assert_eq!(rows(&ledger, Filter { limit: Some(1), ..Filter::default() }).await, [record(n)]);
    }
    until("all are counted", || ledger.health().loaded.new == 50).await;
    let health = ledger.health();
    assert!(health.is_good(), "{health:?}");
    assert_eq!((health.journal.written, health.journal.behind_bytes), (100, 0));
    ledger.close();
    assert!(home.files("journal").is_empty(), "everything is in the store: no segment is left");
    assert!(matches!(ledger.finish(record(60)).await, Err(Unwritten::Closed)));
    assert!(matches!(ledger.reset().await, Err(StoreError::Unavailable(_))));
}

/// A store that looks into the journal before it takes anything.
#[derive(Debug)]
struct Witness {
    store: Sqlite,
    journal: PathBuf,
    seen: Arc<AtomicU64>,
}

struct Watched {
    writer: Box<dyn Writer>,
    journal: PathBuf,
    seen: Arc<AtomicU64>,
}

impl Store for Witness {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        let (journal, seen) = (self.journal.clone(), self.seen.clone());
        Ok(Box::new(Watched { writer: self.store.writer()?, journal, seen }))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        self.store.reader()
    }

    fn name(&self) -> String {
        self.store.name()
    }
}

impl Writer for Watched {
    fn load(&mut self, batch: &Batch<'_>) -> Result<Loaded, StoreError> {
        let journal = std::fs::read(self.journal.join(format!("{}.journal", batch.segment))).unwrap();
        let written = journal.get(..batch.position as usize).expect("no more is loaded than was written");
        for record in batch.records {
            let entry = minicbor::to_vec(record).unwrap();
            assert!(
                written.windows(entry.len()).any(|part| part == entry),
                "{} came before its journal entry",
                record.id
            );
        }
        self.seen.fetch_add(batch.records.len() as u64, Ordering::Relaxed);
        self.writer.load(batch)
    }

    fn position(&mut self, segment: &str) -> Result<u64, StoreError> {
        self.writer.position(segment)
    }

    fn forget_segments_but(&mut self, names: &[String]) -> Result<(), StoreError> {
        self.writer.forget_segments_but(names)
    }

    fn reset(&mut self, now_us: i64) -> Result<(), StoreError> {
        self.writer.reset(now_us)
    }

    fn reprice(
        &mut self,
        filter: &Filter,
        after: i64,
        price: &mut dyn FnMut(&Record) -> Option<Priced>,
    ) -> Result<Progress, StoreError> {
        self.writer.reprice(filter, after, price)
    }

    fn purge(&mut self, what: &Purge) -> Result<Progress, StoreError> {
        self.writer.purge(what)
    }

    fn trim(&mut self, before_us: i64) -> Result<Progress, StoreError> {
        self.writer.trim(before_us)
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.writer.compact()
    }

    fn scrub(&mut self) -> Result<(), StoreError> {
        self.writer.scrub()
    }

    fn idle(&mut self) -> Result<(), StoreError> {
        self.writer.idle()
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        self.writer.size()
    }
}

#[tokio::test]
async fn no_record_is_in_the_store_before_it_is_in_the_journal() {
    let home = Home::new();
    let mut options = home.options();
    options.journal.segment_bytes = 20_000;
    let seen = Arc::new(AtomicU64::new(0));
    let witness = Witness { store: home.store(), journal: home.journal(), seen: seen.clone() };
    let ledger = Ledger::open(options, Arc::new(witness)).unwrap();
    for n in 0..400 {
        ledger.start(&mut record(n)).await.unwrap();
        // Not awaited one by one: loading meets entries of all ages.
        let done = ledger.finish(record(n));
        if n % 7 == 0 {
            done.await.unwrap();
        }
    }
    assert!(ledger.caught_up(Duration::from_secs(20)).await);
    ledger.close();
    assert_eq!(seen.load(Ordering::Relaxed), 400);
    assert_eq!(home.stored(), samples(0..400));
}

#[tokio::test]
async fn segments_go_when_they_are_in_the_store() {
    let home = Home::new();
    let mut options = home.options();
    options.journal.segment_bytes = 10_000;
    let ledger = home.ledger_with(options);
    for n in 0..300 {
        ledger.finish(record(n)).await.unwrap();
    }
    until("only the live segment is left", || home.files("journal").len() == 1).await;
    until("all are counted", || ledger.health().loaded.new == 300).await;
    assert!(ledger.health().loaded.segments > 5);
    ledger.close();
    assert_eq!(home.stored(), samples(0..300));
}

#[tokio::test]
async fn a_locked_store_delays_no_acknowledgement_and_loses_nothing() {
    let home = Home::new();
    let ledger = home.ledger();
    ledger.finish(record(0)).await.unwrap();
    assert_eq!(rows(&ledger, Filter::default()).await.len(), 1);
    let other = Connection::open(home.db()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut n = 1;
    while began.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        ledger.finish(record(n)).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        n += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    until("health says it", || ledger.health().store == Some(StoreError::Busy)).await;
    assert!(ledger.health().journal.behind_bytes > 0 && !ledger.health().is_good());
    let asked = Instant::now();
    let stale = ledger.read(|reader| reader.rows(&Filter::default())).await.unwrap();
    assert!(!stale.fresh && stale.value.len() == 1, "it answers with what it has, and says so");
    assert!(asked.elapsed() < Duration::from_secs(3));
    other.execute_batch("ROLLBACK").unwrap();
    until("it is loaded", || ledger.health().is_good() && ledger.health().journal.behind_bytes == 0).await;
    ledger.close();
    assert_eq!(home.stored(), samples(0..n));
}

#[tokio::test]
async fn a_newer_store_is_never_replaced_and_the_journal_keeps_everything() {
    let home = Home::new();
    let first = home.ledger();
    finish_all(&first, samples(0..10)).await;
    first.close();
    Connection::open(home.db()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let ledger = home.ledger();
    finish_all(&ledger, samples(10..20)).await;
    let newer = StoreError::Newer { found: 99, known: SQLITE.len() as u32 };
    until("health says it", || ledger.health().store == Some(newer.clone())).await;
    let refused = ledger.read(|reader| reader.rows(&Filter::default())).await;
    assert_eq!(refused.map(drop), Err(newer.clone()));
    assert_eq!(ledger.reset().await, Err(newer));
    ledger.close();
    assert_eq!(home.files("journal").len(), 1, "the journal keeps what the store does not take");
    let form = format!("PRAGMA user_version = {}", SQLITE.len());
    Connection::open(home.db()).unwrap().execute_batch(&form).unwrap();
    let ledger = home.ledger();
    assert_eq!(rows(&ledger, Filter::default()).await.len(), 20);
    ledger.close();
    assert_eq!(home.stored(), samples(0..20));
}

#[tokio::test]
async fn a_damaged_store_is_tried_again_and_its_successor_gets_what_came_meanwhile() {
    let home = Home::new();
    std::fs::write(home.db(), vec![7; 9000]).unwrap();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..30)).await;
    until("health says it", || matches!(ledger.health().store, Some(StoreError::Corrupt(_)))).await;
    assert_eq!(std::fs::read(home.db()).unwrap(), vec![7; 9000]);
    home.store().set_aside().unwrap();
    until("the new store is good", || ledger.health().is_good() && ledger.health().loaded.new == 30).await;
    ledger.close();
    assert_eq!(home.stored(), samples(0..30));
}

#[tokio::test]
async fn what_was_in_flight_at_the_end_is_interrupted_and_nothing_else() {
    let home = Home::new();
    let mut options = home.options();
    options.journal.segment_bytes = 10_000;
    let ledger = home.ledger_with(options);
    ledger.start(&mut record(1000)).await.unwrap();
    for n in 0..100 {
        ledger.start(&mut record(n)).await.unwrap();
        ledger.finish(record(n)).await.unwrap();
    }
    until("some segments are gone", || ledger.health().loaded.segments > 3).await;
    assert!(
        rows(&ledger, Filter { limit: Some(500), ..Filter::default() })
            .await
            .iter()
            .all(|r| r.outcome != Outcome::Interrupted)
    );
    ledger.close();
    let stored = home.stored();
    assert_eq!(stored[..100], samples(0..100));
    let want = Record { ended_us: stored[100].ended_us, ..Record::interrupted(start(1000), 0) };
    assert_eq!(stored[100..], [want]);
    assert!(home.files("journal").is_empty());
}

#[tokio::test]
async fn a_command_beside_a_daemon_sees_what_the_daemon_wrote() {
    let home = Home::new();
    // A journal without a loader stands for a daemon whose store is behind.
    let journal = Journal::open(home.options().journal).unwrap();
    journal.start(&mut record(5)).await.unwrap();
    journal.finish(record(1)).await.unwrap();
    let mut writer = home.store().writer().unwrap();
    assert_eq!(catch_up(&mut *writer, &home.journal()).unwrap().new, 1);
    journal.finish(record(2)).await.unwrap();
    assert_eq!(catch_up(&mut *writer, &home.journal()).unwrap(), Counts { new: 1, ..Counts::default() });
    assert_eq!(home.stored(), samples(1..3), "what is in flight is in flight, not interrupted");
    assert_eq!(home.files("journal").len(), 1, "and the segment stays its daemon's");
    journal.close();
    assert_eq!(catch_up(&mut *writer, &home.journal()).unwrap().interrupted, 1);
    assert!(home.files("journal").is_empty());
}

fn all(reader: &mut dyn Reader) -> Vec<Record> {
    let rows = reader.rows(&Filter { limit: Some(1000), ..Filter::default() }).unwrap();
    rows.into_iter().rev().map(|row| row.record).collect()
}

#[test]
fn a_command_without_a_gateway_sees_everything_that_was_written() {
    let home = Home::new();
    let look = || Offline::open(&home.store(), &home.journal());
    assert_eq!(look().map(drop).unwrap_err(), StoreError::Missing(home.db()), "where nothing is, nothing is made");
    assert!(!home.db().exists() && !home.journal().exists());

    // A process wrote this and was gone before anything was loaded.
    left_behind(&home, |journal| {
        journal.start(&mut record(1)).wait().unwrap();
        journal.finish(record(1)).wait().unwrap();
        journal.start(&mut record(2)).wait().unwrap();
    });
    let mut offline = look().unwrap();
    assert_eq!(offline.stale, None);
    let seen = all(&mut *offline.reader);
    assert_eq!(
        seen.iter().map(|r| (r.id, r.outcome)).collect::<Vec<_>>(),
        [(id(1), Outcome::Success), (id(2), Outcome::Interrupted)]
    );
    assert!(home.files("journal").is_empty());

    // One that lives, and does not load.
    let journal = Journal::open(home.options().journal).unwrap();
    journal.start(&mut record(3)).wait().unwrap();
    journal.finish(record(4)).wait().unwrap();
    let mut offline = look().unwrap();
    assert_eq!(all(&mut *offline.reader).last().unwrap().id, id(4));
    assert_eq!(home.files("journal").len(), 1);
    journal.close();
}

#[test]
fn a_command_without_a_gateway_says_when_it_does_not_see_everything() {
    let home = Home::new();
    left_behind(&home, |journal| _ = journal.finish(record(1)).wait().unwrap());
    drop(Offline::open(&home.store(), &home.journal()).unwrap());
    left_behind(&home, |journal| _ = journal.finish(record(2)).wait().unwrap());
    let other = Connection::open(home.db()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut offline = Offline::open(&home.store(), &home.journal()).unwrap();
    assert_eq!(offline.stale, Some(StoreError::Busy));
    assert_eq!(all(&mut *offline.reader), samples(1..2));
    other.execute_batch("ROLLBACK; PRAGMA user_version = 99").unwrap();
    let newer = StoreError::Newer { found: 99, known: SQLITE.len() as u32 };
    let mut offline = Offline::open(&home.store(), &home.journal()).unwrap();
    assert_eq!((offline.stale, offline.is_journal), (Some(newer.clone()), true));
    assert_eq!(all(&mut *offline.reader), samples(2..3), "what the journal holds can be told");
    assert_eq!(home.files("journal").len(), 1, "and nothing is lost");
    std::fs::remove_dir_all(home.journal()).unwrap();
    assert_eq!(Offline::open(&home.store(), &home.journal()).map(drop).unwrap_err(), newer, "there is nothing else");
}

#[tokio::test]
async fn a_store_that_is_gone_or_emptied_is_no_new_one() {
    for emptied in [false, true] {
        let home = Home::new();
        let ledger = home.ledger();
        finish_all(&ledger, samples(0..3)).await;
        ledger.close();
        drop(ledger);
        let copy = std::fs::read(home.db()).unwrap();
        if emptied {
            std::fs::write(home.db(), "").unwrap();
        } else {
            std::fs::remove_file(home.db()).unwrap();
        }
        let gone = StoreError::Gone(home.db());
        assert_eq!(Offline::open(&home.store(), &home.journal()).map(drop).unwrap_err(), gone);
        let ledger = home.ledger();
        for n in 3..6 {
            ledger.finish(record(n)).await.unwrap();
        }
        until("it is told", || ledger.health().store == Some(gone.clone())).await;
        ledger.close();
        drop(ledger);
        assert_eq!(std::fs::metadata(home.db()).map_or(0, |about| about.len()), 0, "no other was begun");
        std::fs::write(home.db(), copy).unwrap();
        let ledger = home.ledger();
        until("it is well", || ledger.health().store.is_none()).await;
        ledger.close();
        assert_eq!(home.stored(), samples(0..6));
    }
}

#[tokio::test]
async fn a_store_that_is_removed_or_replaced_while_it_is_used_costs_nothing_that_came_after() {
    for replaced in [false, true] {
        let home = Home::new();
        let ledger = home.ledger();
        finish_all(&ledger, samples(0..3)).await;
        assert_eq!(rows(&ledger, Filter::default()).await.len(), 3);
        let (aside, copy) = (home.db().with_extension("elsewhere"), home.db().with_extension("copy"));
        Connection::open(home.db()).unwrap().execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        std::fs::rename(home.db(), &aside).unwrap();
        if replaced {
            std::fs::rename(&copy, home.db()).unwrap();
        }
        for n in 3..6 {
            ledger.finish(record(n)).await.unwrap();
        }
        if replaced {
            // It is opened anew, and says itself what it has. Not looked into from here: of two files by one name that are
            // open in one process, SQLite takes what lies beside them for the same.
            until("all is loaded", || ledger.health().loaded.new == 6).await;
        } else {
            until("it is told", || ledger.health().store == Some(StoreError::Gone(home.db()))).await;
            std::fs::rename(&copy, home.db()).unwrap();
        }
        ledger.close();
        drop(ledger);
        home.ledger().close();
        assert_eq!(home.stored(), samples(0..6));
    }
}

#[tokio::test]
async fn what_is_purged_does_not_come_back() {
    let home = Home::new();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..100)).await;
    let gone = record(60).parties.session.unwrap().to_string();
    assert_eq!(ledger.purge(Purge::Session(gone.clone())).await, Ok(50));
    assert_eq!(rows(&ledger, Filter { session: Some(gone.clone()), ..Filter::default() }).await, []);
    assert_eq!(ledger.purge(Purge::Id(id(3))).await, Ok(1));
    ledger.close();
    drop(ledger);
    let ledger = home.ledger();
    let left: Vec<Record> = samples(0..50).into_iter().filter(|record| record.id != id(3)).collect();
    finish_all(&ledger, vec![record(200)]).await;
    ledger.close();
    assert_eq!(home.stored(), [left, samples(200..201)].concat());
    for file in std::fs::read_dir(home.0.path()).unwrap().chain(std::fs::read_dir(home.journal()).unwrap()) {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(gone.len()).any(|part| part == gone.as_bytes());
            assert!(!found, "a trace is left in `{}`", path.display());
        }
    }
}

#[tokio::test]
async fn records_that_are_too_old_go_and_their_sums_stay() {
    let home = Home::new();
    let ledger = home.ledger();
    let mut young = record(2000);
    young.started_us = i64::MAX / 2;
    finish_all(&ledger, [samples(0..1100), vec![young.clone()]].concat()).await;
    ledger.close();
    let retention = Retention { keep: Some(Duration::from_secs(3600)), max_bytes: None };
    let ledger = home.ledger_with(LedgerOptions { retention, ..home.options() });
    until("they are gone", || home.stored().len() == 1).await;
    assert_eq!(home.stored(), [young]);
    let totals = ledger.read(|reader| reader.totals(&Filter::default(), &[], UTC)).await.unwrap().value.totals;
    assert_eq!(totals.all().requests, 1101);
    ledger.close();
}

#[tokio::test]
async fn a_store_that_is_too_large_loses_its_oldest_records() {
    let home = Home::new();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..1500)).await;
    ledger.close();
    let full = home.store().writer().unwrap().size().unwrap();
    let retention = Retention { keep: None, max_bytes: Some(full.bytes / 2) };
    let ledger = home.ledger_with(LedgerOptions { retention, ..home.options() });
    let small = || home.store().writer().is_ok_and(|mut writer| writer.size().unwrap().bytes <= full.bytes / 2);
    until("it is small enough", small).await;
    ledger.close();
    let stored = home.stored();
    assert!(stored.len() > 200, "no more went than had to: {} are left", stored.len());
    assert_eq!(stored, samples(1500 - stored.len() as u64..1500));
}

#[tokio::test]
async fn prices_are_computed_again_while_records_come() {
    let home = Home::new();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..1200)).await;
    let priced = || Priced { cost: Some(NanoUsd(5)), version: Some("v".into()), ..Priced::default() };
    let price = move |record: &Record| record.usage.as_ref().map(|_| priced());
    let progress = ledger.reprice(Filter::default(), price);
    finish_all(&ledger, samples(1200..1210)).await;
    let progress = progress.await.unwrap();
    let priced = samples(0..1200).iter().filter(|record| record.usage.is_some()).count() as u64;
    assert!(progress.changed >= priced && progress.seen >= 1200, "{progress:?}");
    ledger.close();
}

#[tokio::test]
async fn metrics_begin_anew_after_a_reset_and_survive_a_restart() {
    let home = Home::new();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..20)).await;
    ledger.reset().await.unwrap();
    finish_all(&ledger, samples(20..23)).await;
    ledger.close();
    let ledger = home.ledger();
    let metrics = ledger.read(|reader| reader.metrics(10)).await.unwrap().value;
    assert_eq!(metrics.by_operation.iter().map(|group| group.totals.all().requests).sum::<i64>(), 3);
    assert!(metrics.since_us > 0);
    ledger.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_that_takes_long_does_not_hold_up_loading_or_the_other() {
    let home = Home::new();
    let ledger = Arc::new(home.ledger());
    finish_all(&ledger, samples(0..10)).await;
    let (release, held) = std::sync::mpsc::sync_channel::<()>(1);
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let slow = {
        let ledger = ledger.clone();
        tokio_task(async move {
            ledger
                .read(move |reader| {
                    begun.send(()).unwrap();
                    held.recv().unwrap();
                    reader.rows(&Filter::default())
                })
                .await
        })
    };
    has_begun.await.unwrap();
    finish_all(&ledger, samples(10..20)).await;
    assert_eq!(rows(&ledger, Filter::default()).await.len(), 20);
    release.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap().value.len(), 20);
    ledger.close();
}

#[expect(clippy::disallowed_methods, reason = "a test waits for its task itself")]
fn tokio_task<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

#[tokio::test]
async fn nothing_of_ours_can_be_read_by_others() {
    let home = Home::new();
    let ledger = home.ledger();
    finish_all(&ledger, samples(0..3)).await;
    check_modes(home.0.path());
    ledger.close();
}

fn check_modes(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            check_modes(&path);
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

/// The whole way, over the service: the clock goes back by an hour while a gateway serves, and again at the next start.
#[tokio::test]
async fn a_clock_that_goes_back_loses_and_doubles_nothing_and_lists_stay_in_the_order_of_recording() {
    let home = Home::new();
    let hour = 3_600_000_000;
    let mut recorded = Vec::new();
    for (times, back) in [(0..40, 0), (40..80, hour), (80..120, 3 * hour)] {
        let ledger = home.ledger();
        let mut records = samples(times);
        for record in &mut records {
            record.started_us -= back;
            record.ended_us -= back;
            record.id = Id::v7(record.started_us.unsigned_abs() / 1000, record.id.0);
        }
        recorded.extend(records.iter().map(|record| record.id));
        finish_all(&ledger, records).await;
        let last = ledger.read(|reader| reader.find("last")).await.unwrap().value;
        assert!(matches!(last, Found::One(row) if Some(&row.record.id) == recorded.last()));
        ledger.close();
    }
    let ledger = home.ledger();
    let all = Filter { limit: Some(1000), after_seq: Some(0), ..Filter::default() };
    let rows = ledger.read(move |reader| reader.rows(&all)).await.unwrap().value;
    assert_eq!(rows.iter().map(|row| row.record.id).collect::<Vec<_>>(), recorded);
    // What is asked by time is found wherever it was recorded.
    let (from, to) = (ledger::sample::EPOCH_US - hour, ledger::sample::EPOCH_US - hour + 600_000_000);
    let meant = |record: &Record| (from..to).contains(&record.started_us);
    let want: Vec<Id> = rows.iter().filter(|row| meant(&row.record)).map(|row| row.record.id).collect();
    let some =
        Filter { since_us: Some(from), until_us: Some(to), ..Filter { after_seq: Some(0), ..Filter::default() } };
    let found = ledger.read(move |reader| reader.rows(&some)).await.unwrap().value;
    assert_eq!(found.iter().map(|row| row.record.id).collect::<Vec<_>>(), want);
    assert!(!want.is_empty());
    let sums = ledger.read(|reader| reader.totals(&Filter::default(), &[], UTC)).await.unwrap().value;
    assert_eq!(sums.totals.all().requests, 120);
    ledger.close();
}

#[test]
fn who_must_not_wait_is_not_kept_by_one_who_holds_the_store() {
    let home = Home::new();
    drop(home.store().writer().unwrap());
    let other = Connection::open(home.db()).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; DELETE FROM limits").unwrap();
    let began = Instant::now();
    let opened = Offline::open(&home.store().impatient(), &home.journal());
    assert!(opened.is_err(), "nobody can read it");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}
