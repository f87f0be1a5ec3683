//! Processes that are killed: what was acknowledged is in the store exactly once, what was in flight was interrupted.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ledger::journal::JournalOptions;
use ledger::loader::{LoadError, Recovery, catch_up};
use ledger::query::{Filter, UTC};
use ledger::record::{Id, Outcome};
use ledger::retention::Retention;
use ledger::sample::{id, mix, record};
use ledger::store::sqlite::Sqlite;
use ledger::store::{Store as _, StoreError};
use ledger::{Ledger, LedgerOptions};

/// How often a process is killed.
const CYCLES: u64 = 20;
/// Exchanges of one thread of one process do not meet those of another.
const APART: u64 = 1_000_000;

fn options(home: &Path) -> LedgerOptions {
    let journal = JournalOptions {
        ballast_bytes: 0,
        low_water_bytes: 0,
        // Small, so that kills meet the change of segments as well.
        segment_bytes: 60_000,
        ..JournalOptions::new(home.join("journal"))
    };
    LedgerOptions { journal, retention: Retention::default() }
}

/// What a process runs that will be killed: it reads from its input where its home is and where its numbers begin, works
/// on two threads, and says what was acknowledged. When its input ends, it ends in order.
#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn a_process_that_works_until_it_is_killed() {
    let mut input = std::io::stdin().lines();
    let mut line = || input.next().expect("a line").expect("it can be read");
    let (home, first) = (line(), line().parse::<u64>().expect("a number"));
    let home = Path::new(&home);
    let ledger = Ledger::open(options(home), Arc::new(Sqlite::new(home.join("ledger.db")))).expect("a ledger");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (ledger, stop) = (&ledger, &stop);
            scope.spawn(move || {
                for n in first + thread * APART.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    ledger.start(&mut record(n)).wait().expect("it is written");
                    say('s', n);
                    // Every third exchange goes on for ever.
                    if n % 3 != 2 {
                        ledger.finish(record(n)).wait().expect("it is written");
                        say('r', n);
                    }
                }
            });
        }
        while input.next().is_some() {}
        stop.store(true, Ordering::Relaxed);
    });
    ledger.close();
    say('e', 0);
}

fn say(what: char, n: u64) {
    // One write a line: the lines of two threads must not mix.
    let line = format!("@{what}{n}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("somebody listens");
}

struct Worker {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

#[derive(Debug, Default)]
struct Seen {
    starts: BTreeSet<Id>,
    records: BTreeSet<Id>,
}

impl Worker {
    fn new(home: &Path, first: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_process_that_works_until_it_is_killed", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(process.stdin.as_mut().unwrap(), "{}\n{first}", home.display()).unwrap();
        let said = BufReader::new(process.stdout.take().unwrap());
        Self { process, said }
    }

    /// Hears this many words, or all there are.
    fn hear(&mut self, seen: &mut Seen, most: usize) {
        let mut heard = 0;
        let mut line = String::new();
        while heard < most {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return;
            }
            let Some((_, word)) = line.split_once('@').filter(|_| line.ends_with('\n')) else { continue };
            let n: u64 = word[1..].trim_end().parse().unwrap();
            match &word[..1] {
                "s" => drop(seen.starts.insert(id(n))),
                "r" => drop(seen.records.insert(id(n))),
                _ => return,
            }
            heard += 1;
        }
    }

    /// Without a word: SIGKILL. What it still had said is heard.
    fn kill(mut self, seen: &mut Seen) {
        self.process.kill().unwrap();
        self.hear(seen, usize::MAX);
        self.process.wait().unwrap();
    }

    fn end(mut self, seen: &mut Seen) {
        drop(self.process.stdin.take());
        self.hear(seen, usize::MAX);
        assert!(self.process.wait().unwrap().success());
    }
}

/// What the store has, after everybody is gone and everything was taken over.
fn check(home: &Path, seen: &Seen) {
    let store = Sqlite::new(home.join("ledger.db"));
    let mut writer = store.writer().unwrap();
    let counts = Recovery::default().take_over(&mut *writer, &home.join("journal")).unwrap();
    assert_eq!((counts.damaged, counts.unreadable), (0, 0));
    let filter = Filter { limit: Some(100_000), ..Filter::default() };
    let mut reader = store.reader().unwrap();
    let rows = reader.rows(&filter).unwrap();
    let mut outcomes = BTreeMap::new();
    for row in &rows {
        assert!(outcomes.insert(row.record.id, row.record.outcome).is_none(), "{} is there twice", row.record.id);
    }
    for id in &seen.records {
        let outcome = outcomes.get(id).unwrap_or_else(|| panic!("{id} was acknowledged and is lost"));
        assert!(*outcome != Outcome::Interrupted, "{id} had an end");
    }
    for id in &seen.starts {
        let outcome = outcomes.get(id).unwrap_or_else(|| panic!("{id} had begun and is lost"));
        // An end may have been written that nobody heard of; without one it was interrupted.
        assert!(
            seen.records.contains(id) || *outcome == Outcome::Interrupted || is_end_of(*id, &rows),
            "{id}: {outcome}"
        );
    }
    let totals = reader.totals(&filter, &[], UTC).unwrap().totals;
    assert_eq!(totals.all().requests as usize, rows.len(), "the sums count each of them once");
    let rest: Vec<_> = std::fs::read_dir(home.join("journal")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(rest, Vec::<std::path::PathBuf>::new(), "nothing is left in the journal");
}

fn is_end_of(id: Id, rows: &[ledger::query::Row]) -> bool {
    rows.iter().any(|row| row.record.id == id && row.record.duration_us.is_some())
}

#[test]
fn a_process_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut seen = Seen::default();
    for cycle in 0..CYCLES {
        let mut worker = Worker::new(home.path(), cycle * 10_000);
        worker.hear(&mut seen, 20 + (mix(cycle) % 400) as usize);
        worker.kill(&mut seen);
    }
    assert!(seen.records.len() > 200, "{}", seen.records.len());
    check(home.path(), &seen);
    // And once more, with nobody left to take over from.
    check(home.path(), &seen);
}

#[test]
fn two_processes_write_side_by_side_and_one_takes_over_when_the_other_is_killed() {
    let home = tempfile::tempdir().unwrap();
    let (mut seen, mut killed_seen) = (Seen::default(), Seen::default());
    let mut first = Worker::new(home.path(), 0);
    first.hear(&mut killed_seen, 50);
    let mut second = Worker::new(home.path(), 500_000);
    second.hear(&mut seen, 200);
    first.hear(&mut killed_seen, 200);
    let store = Sqlite::new(home.path().join("ledger.db"));
    let mut writer = store.writer().unwrap();
    // The loaders of both are at work: whoever comes third may have to ask again.
    let caught_up = || match catch_up(&mut *writer, &home.path().join("journal")) {
        Ok(_) => true,
        Err(LoadError::Store(StoreError::Busy)) => false,
        Err(why) => panic!("{why:?}"),
    };
    assert!(std::iter::repeat_with(caught_up).take(50).any(|done| done), "the store stays busy");
    let rows = store.reader().unwrap().rows(&Filter { limit: Some(100_000), ..Filter::default() }).unwrap();
    let there: BTreeSet<Id> = rows.iter().map(|row| row.record.id).collect();
    assert!(seen.records.is_subset(&there) && killed_seen.records.is_subset(&there), "both are seen while they live");
    assert!(rows.iter().all(|row| row.record.outcome != Outcome::Interrupted), "neither is thought to be gone");
    drop(writer);
    first.kill(&mut killed_seen);
    second.hear(&mut seen, 200);
    second.end(&mut seen);
    let rows = store.reader().unwrap().rows(&Filter { limit: Some(100_000), ..Filter::default() }).unwrap();
    let there: BTreeSet<Id> = rows.iter().map(|row| row.record.id).collect();
    assert!(seen.starts.is_subset(&there), "one that ends in order leaves nothing for others");
    assert!(killed_seen.starts.is_subset(&there), "and takes over what the other one left");
    seen.starts.append(&mut killed_seen.starts);
    seen.records.append(&mut killed_seen.records);
    check(home.path(), &seen);
}
