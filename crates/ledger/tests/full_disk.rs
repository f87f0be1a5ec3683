//! A small file system that is full: what is acknowledged is safe, nobody waits, and it heals by itself.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use ledger::journal::{JournalOptions, Unwritten, free_space};
use ledger::offline::Offline;
use ledger::query::Filter;
use ledger::retention::Retention;
use ledger::sample::{EPOCH_US, STEP_US, record};
use ledger::store::sqlite::Sqlite;
use ledger::store::{Purge, Store as _};
use ledger::{Ledger, LedgerOptions};
use tokio::time::Instant;

/// Runs one of the tests below as a process of its own, on a file system of its own: `unshare` needs to be root, or a
/// kernel that lets users have name spaces. Without either this fails; it does not pass.
fn on_a_small_disk(test: &str, size: &str) {
    let home = tempfile::tempdir().unwrap();
    let mount =
        format!("mount -t tmpfs -o size={size} tmpfs \"$1\" && exec \"$2\" --exact {test} --ignored --nocapture");
    let root = std::fs::metadata("/proc/self").map(|about| std::os::unix::fs::MetadataExt::uid(&about)).unwrap() == 0;
    let mut process = Command::new("unshare")
        .args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] })
        .args(["sh", "-c", &mount, "sh"])
        .arg(home.path())
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`unshare` of util-linux can be run");
    writeln!(process.stdin.as_mut().unwrap(), "{}", home.path().display()).unwrap();
    let ran = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    // A name that no test has is no failure for whoever runs tests by their names.
    let is_done = ran.status.success() && said.contains("\ntest result: ok. 1 passed; ");
    assert!(is_done, "on a file system of its own, `{test}` failed, or there could be none: {}\n{said}", ran.status);
}

#[test]
fn a_disk_that_fills_up_loses_no_acknowledged_record_and_heals() {
    on_a_small_disk("fill_up_and_heal", "8m");
}

#[test]
fn records_can_be_purged_on_a_full_disk() {
    on_a_small_disk("purge_when_full", "16m");
}

#[test]
fn a_ledger_begins_on_a_disk_that_takes_no_other_file() {
    on_a_small_disk("begin_when_full", "8m,nr_inodes=40");
}

fn home() -> PathBuf {
    let home = std::io::stdin().lines().next().expect("a line").expect("it can be read");
    let home = PathBuf::from(home);
    let size = free_space(&home).unwrap();
    assert!(size < 17_000_000, "this is no small file system: {size} bytes are free");
    home
}

fn open(home: &Path, ballast_bytes: u64) -> Ledger {
    let journal = JournalOptions {
        ballast_bytes,
        low_water_bytes: 500_000,
        segment_bytes: 300_000,
        ..JournalOptions::new(home.join("journal"))
    };
    let store = Arc::new(Sqlite::new(home.join("ledger.db")));
    Ledger::open(LedgerOptions { journal, retention: Retention::default() }, store).unwrap()
}

/// Takes all the room that is left.
fn fill(home: &Path) {
    let mut file = std::fs::File::create(home.join("filler")).unwrap();
    let block = vec![7; 4096];
    while file.write_all(&block).is_ok() {}
    while file.write_all(b"7").is_ok() {}
}

async fn until(what: &str, most: Duration, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + most;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn stored(home: &Path) -> usize {
    let filter = Filter { limit: Some(100_000), ..Filter::default() };
    Sqlite::new(home.join("ledger.db")).reader().unwrap().rows(&filter).unwrap().len()
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_and_heal() {
    let home = home();
    let ledger = open(&home, 1_000_000);
    assert!(ledger.health().is_good(), "{:?}", ledger.health());
    assert!(home.join("journal/ballast").exists());
    let mut n = 0;
    while n < 100 {
        ledger.finish(record(n)).await.unwrap();
        n += 1;
    }
    until("all are loaded", Duration::from_secs(10), || ledger.health().loaded.new == 100).await;
    fill(&home);

    // The reserve lets some more through, and then it is over; nobody waits for that.
    let mut safe = n;
    let mut slowest = Duration::ZERO;
    loop {
        let asked = Instant::now();
        let done = ledger.finish(record(n)).within(Duration::from_secs(5)).await;
        slowest = slowest.max(asked.elapsed());
        n += 1;
        match done {
            Ok(_) => safe += 1,
            Err(why) => {
                assert_eq!(why, Unwritten::DiskFailing);
                break;
            }
        }
        assert!(n < 20_000, "the disk never became full");
    }
    assert!(safe > 200, "the reserve let only {} through", safe - 100);
    assert!(!home.join("journal/ballast").exists());
    for _ in 0..500 {
        let asked = Instant::now();
        let _ = ledger.finish(record(n)).within(Duration::from_secs(5)).await;
        slowest = slowest.max(asked.elapsed());
        n += 1;
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let health = ledger.health();
    assert!(health.journal.low_space && !health.is_good(), "{health:?}");

    // Room again: everything that was handed in is there, without a restart.
    std::fs::remove_file(home.join("filler")).unwrap();
    let healthy = || {
        let health = ledger.health();
        !health.journal.failing
            && !health.journal.low_space
            && health.store.is_none()
            && health.journal.behind_bytes == 0
    };
    let healing = Instant::now();
    until("it is well again", Duration::from_secs(30), healthy).await;
    assert!(healing.elapsed() < Duration::from_secs(5), "{:?}", healing.elapsed());
    assert_eq!(ledger.health().journal.lost, 0, "{:?}", ledger.health());
    ledger.finish(record(n)).await.unwrap();
    n += 1;
    until("the reserve is there again", Duration::from_secs(10), || home.join("journal/ballast").exists()).await;
    ledger.close();
    assert_eq!(stored(&home) as u64, n);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn purge_when_full() {
    let home = home();
    let ledger = open(&home, 4_000_000);
    for n in 0..1500 {
        ledger.finish(record(n)).await.unwrap();
    }
    until("all are loaded", Duration::from_secs(20), || ledger.health().loaded.new == 1500).await;
    fill(&home);
    let left = free_space(&home).unwrap();
    assert!(left < 4096, "{left} bytes are left");
    let removed = ledger.purge(Purge::Before(EPOCH_US + 1400 * STEP_US)).await;
    assert_eq!(removed, Ok(1400), "{:?}", ledger.health());
    assert!(free_space(&home).unwrap() > 4_500_000, "the disk has room again");
    until("the reserve is there again", Duration::from_secs(10), || home.join("journal/ballast").exists()).await;
    ledger.close();
    drop(ledger);
    assert_eq!(stored(&home), 100);

    // The same by a command that comes when nobody else is there; it looks first.
    fill(&home);
    let mut offline = Offline::open(&Sqlite::new(home.join("ledger.db")), &home.join("journal")).unwrap();
    assert_eq!(offline.reader.rows(&Filter { limit: Some(1000), ..Filter::default() }).unwrap().len(), 100);
    drop(offline);
    let ledger = open(&home, 4_000_000);
    assert_eq!(ledger.purge(Purge::All).await, Ok(100), "{:?}", ledger.health());
    ledger.close();
    assert_eq!(stored(&home), 0);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn begin_when_full() {
    let home = home();
    open(&home, 1_000_000).close();
    let mut files = 0;
    while std::fs::File::create(home.join(format!("filler-{files}"))).is_ok() {
        files += 1;
    }
    assert!(files > 5);
    let ledger = open(&home, 1_000_000);
    ledger.finish(record(1)).await.unwrap();
    assert!(ledger.health().journal.low_space && !home.join("journal/ballast").exists());
    ledger.close();
}
