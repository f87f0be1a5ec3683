//! Measures the ledger: what the journal takes, how soon it says so, how fast the store is loaded, how quick it answers.
//!
//! `cargo run --release -p ledger --example measure [FOLDER [RECORDS [journal|live|loading|store|sessions]]]`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may stop, and says what it found")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ledger::journal::{Journal, JournalOptions};
use ledger::query::{Filter, Found, Key, Zone};
use ledger::retention::Retention;
use ledger::sample::{id, mix, record};
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Store as _};
use ledger::{Ledger, LedgerOptions};
use tokio::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(std::env::temp_dir, PathBuf::from).join(format!("ledger-{}", std::process::id()));
    let records = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    let only = arguments.next();
    std::fs::create_dir_all(&folder).unwrap();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if wanted("journal") {
        journal(&folder.join("journal"));
    }
    if wanted("live") {
        live(&folder.join("live"));
    }
    for batch in [12, 200, 1000].into_iter().filter(|_| wanted("loading")) {
        loading(&folder.join(format!("load-{batch}")), records / 5, batch);
    }
    if wanted("store") {
        store(&folder.join("store"), records, false);
    }
    if wanted("sessions") {
        store(&folder.join("sessions"), records, true);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
    println!("{what}: p50 {:.0} µs, p90 {:.0} µs, p99 {:.0} µs, max {:.0} µs", at(0.5), at(0.9), at(0.99), at(1.0));
}

/// What the journal takes, and how soon it says so.
fn journal(folder: &Path) {
    let journal = Arc::new(Journal::open(JournalOptions::new(folder)).unwrap());
    let records: Vec<_> = (0..50_000).map(record).collect();
    let began = Instant::now();
    let mut lost = 0;
    for chunk in records.chunks(2000) {
        let acks: Vec<_> = chunk.iter().map(|record| journal.finish(record.clone())).collect();
        lost += acks.into_iter().filter(|_| true).map(|ack| ack.wait()).filter(Result::is_err).count();
    }
    println!(
        "journal, as many as it takes: {:.0} records/s ({lost} refused)",
        50_000.0 / began.elapsed().as_secs_f64()
    );

    for (workers, pause) in [(1, Duration::from_millis(2)), (2, Duration::ZERO), (64, Duration::from_millis(50))] {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let began = Instant::now();
        let threads = if workers > 1 { 2 } else { 1 };
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let journal = journal.clone();
                std::thread::spawn(move || {
                    let local = tokio::task::LocalSet::new();
                    local.block_on(&runtime(), async {
                        let tasks: Vec<_> = (0..workers / threads)
                            .map(|worker| {
                                let journal = journal.clone();
                                tokio::task::spawn_local(async move {
                                    let (mut starts, mut ends) = (Vec::new(), Vec::new());
                                    for n in 0..(4000 / workers as u64).max(100) {
                                        let n = (thread * 1000 + worker) as u64 * 100_000 + n;
                                        let mut record = record(n);
                                        if !pause.is_zero() {
                                            tokio::time::sleep(pause / 2 + pause * (mix(n) % 100) as u32 / 100).await;
                                        }
                                        let asked = Instant::now();
                                        journal.start(&mut record).await.unwrap();
                                        starts.push(asked.elapsed());
                                        let asked = Instant::now();
                                        journal.finish(record).await.unwrap();
                                        ends.push(asked.elapsed());
                                    }
                                    (starts, ends)
                                })
                            })
                            .collect();
                        let mut all = (Vec::new(), Vec::new());
                        for task in tasks {
                            let (starts, ends) = task.await.unwrap();
                            all.0.extend(starts);
                            all.1.extend(ends);
                        }
                        all
                    })
                })
            })
            .collect();
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for handle in handles {
            let (more_starts, more_ends) = handle.join().unwrap();
            starts.extend(more_starts);
            ends.extend(more_ends);
        }
        let rate = ends.len() as f64 / began.elapsed().as_secs_f64();
        let what = format!("journal, {workers} at a time on {threads} runtimes, {rate:.0} exchanges/s");
        percentiles(&format!("{what}, start acknowledged"), starts);
        percentiles(&format!("{what}, end acknowledged"), ends);
    }
    let began = Instant::now();
    let one: Vec<_> = (0..2000).map(record).collect();
    let acks: Vec<_> = one.into_iter().map(|record| journal.finish(record)).collect();
    println!("worker: {:.2} µs to hand one in", began.elapsed().as_secs_f64() * 1e6 / 2000.0);
    drop(acks);
    journal.close();
}

/// The whole way: journal, loader, question.
fn live(folder: &Path) {
    let options =
        LedgerOptions { journal: JournalOptions::new(folder.join("journal")), retention: Retention::default() };
    let ledger = Ledger::open(options, Arc::new(Sqlite::new(folder.join("ledger.db")))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let before = all_ns();
        for chunk in 0..25 {
            let acks: Vec<_> = (chunk * 2000..(chunk + 1) * 2000).map(|n| ledger.finish(record(n))).collect();
            for ack in acks {
                ack.await.unwrap();
            }
        }
        let written = began.elapsed();
        while !ledger.caught_up(Duration::from_secs(10)).await {}
        let rate = |took: Duration| 50_000.0 / took.as_secs_f64();
        println!(
            "live: {:.1} µs of all processors a record, from handing in to the store",
            (all_ns() - before) / 1e3 / 50_000.0
        );
        println!(
            "live: {:.0} records/s acknowledged, {:.0} records/s in the store",
            rate(written),
            rate(began.elapsed())
        );
        let mut times = Vec::new();
        for n in 50_000..50_300 {
            ledger.finish(record(n)).await.unwrap();
            let asked = Instant::now();
            let last = Filter { limit: Some(1), ..Filter::default() };
            let answer = ledger.read(move |reader| reader.rows(&last)).await.unwrap();
            assert!(answer.fresh && answer.value[0].record.id == id(n));
            times.push(asked.elapsed());
        }
        percentiles("live: a question right after a record", times);
    });
    ledger.close();
}

/// What a record costs that is loaded with so many others, in time of the processor.
fn loading(folder: &Path, records: u64, batch: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let mut writer = Sqlite::new(folder.join("ledger.db")).writer().unwrap();
    let mut spent = 0;
    for first in (0..records).step_by(batch as usize) {
        let records: Vec<_> = (first..(first + batch).min(records)).map(record).collect();
        let before = processor_ns();
        writer.load(&Batch { records: &records, segment: "measure", position: first, complete: false }).unwrap();
        spent += processor_ns() - before;
    }
    let before = processor_ns();
    writer.idle().unwrap();
    spent += processor_ns() - before;
    println!("store, {batch} records at once: {:.1} µs of the processor a record", spent as f64 / 1e3 / records as f64);
}

/// Nanoseconds that all threads of this process have run.
fn all_ns() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let ran = |thread: std::io::Result<std::fs::DirEntry>| {
        let counts = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        counts.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    threads.map(ran).sum()
}

/// Nanoseconds that this thread has run.
fn processor_ns() -> u64 {
    let counts = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    counts.split(' ').next().unwrap().parse().unwrap()
}

/// Loads and asks a store of this many records.
fn store(folder: &Path, records: u64, session_each: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let store = Sqlite::new(folder.join("ledger.db"));
    let mut writer = store.writer().unwrap();
    let what = if session_each { "a session each" } else { "50 a session" };
    let mut loading = Duration::ZERO;
    for first in (0..records).step_by(200) {
        let mut batch: Vec<_> = (first..(first + 200).min(records)).map(record).collect();
        if session_each {
            batch.iter_mut().for_each(|record| record.parties.session = Some(record.id.to_string().into()));
        }
        let began = Instant::now();
        writer.load(&Batch { records: &batch, segment: "measure", position: first, complete: false }).unwrap();
        loading += began.elapsed();
    }
    writer.idle().unwrap();
    let size = std::fs::metadata(store.path()).unwrap().len();
    println!(
        "store, {records} records, {what}: loaded at {:.0} rows/s, {:.0} bytes a record",
        records as f64 / loading.as_secs_f64(),
        size as f64 / records as f64
    );
    let mut reader = store.clone().question(Duration::from_secs(60)).reader().unwrap();
    let middle = record(records / 2).started_us + 1;
    let all = Filter::default;
    let session = record(records / 2).parties.session.map(String::from);
    let berlin: Zone<'_> = &|_| 3600;
    let mut time = |what: &str, ask: &mut dyn FnMut(&mut dyn ledger::store::Reader) -> usize| {
        let began = Instant::now();
        let cold = (ask(&mut *reader), began.elapsed());
        let began = Instant::now();
        ask(&mut *reader);
        let (first, again) = (cold.1.as_secs_f64() * 1e3, began.elapsed().as_secs_f64() * 1e3);
        println!("  {what}: {first:.1} ms, again {again:.1} ms ({} rows)", cold.0);
    };
    for (name, key) in [
        ("day", Key::Day),
        ("model", Key::Model),
        ("provider", Key::Provider),
        ("project", Key::Project),
        ("agent", Key::Agent),
        ("session", Key::Session),
    ] {
        time(&format!("by {name}"), &mut |reader| reader.totals(&all(), &[key], berlin).unwrap().groups.len());
    }
    let half = Filter { since_us: Some(middle), ..all() };
    time("by day, half of the time", &mut |reader| reader.totals(&half, &[Key::Day], berlin).unwrap().groups.len());
    time("by session, half of the time", &mut |reader| {
        reader.totals(&half, &[Key::Session], berlin).unwrap().groups.len()
    });
    time("last 100 sessions with their agents", &mut |reader| reader.sessions(&all()).unwrap().sessions.len());
    time("metrics", &mut |reader| reader.metrics(100).unwrap().by_session.len());
    time("last 100", &mut |reader| reader.rows(&all()).unwrap().len());
    let failed = Filter { failed: true, limit: Some(1), ..all() };
    time("last error", &mut |reader| reader.rows(&failed).unwrap().len());
    let of = Filter { session: session.clone(), ..all() };
    time("of one session", &mut |reader| reader.rows(&of).unwrap().len());
    let nowhere = Filter { project: Some("nowhere".into()), ..all() };
    time("of a project that does not exist", &mut |reader| reader.rows(&nowhere).unwrap().len());
    let short = id(records / 3).short();
    time("by a short id", &mut |reader| {
        assert!(matches!(reader.find(&short).unwrap(), Found::One(row) if row.record.id == id(records / 3)));
        1
    });
}
