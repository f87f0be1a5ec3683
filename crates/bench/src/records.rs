//! What the ledger takes and how quick it answers: the journal by itself, and commands over a store of a million records.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ledger::journal::{Journal, JournalOptions};
use ledger::sample;
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Store as _};
use serde_json::{Value, json};

use crate::Fault;
use crate::subject::{Places, Subject};

/// The names by which these are asked for, beside those of the loads.
pub(crate) const NAMES: [&str; 2] = ["journal", "queries"];

/// Records in the store that is asked; a first look makes do with fewer.
const RECORDS: u64 = 1_000_000;
const QUICK: u64 = 100_000;
/// Records that are loaded at once.
const BATCH: u64 = 1000;
/// Records that the journal is given, so many at a time.
const WRITTEN: u64 = 50_000;
const AT_ONCE: u64 = 2000;
/// Records of which each waits for its acknowledgement, so many a second.
const WAITS: u32 = 2000;
const WAITS_PER_SECOND: u32 = 500;
/// How often a command is run; the median counts.
const TIMES: usize = 5;

/// What users ask most, and the milliseconds that it may take.
const COMMANDS: [(&str, Option<f64>); 6] = [
    ("costs --by day", Some(1000.0)),
    ("costs --by model", None),
    ("costs --by session", None),
    ("sessions", None),
    ("logs", None),
    ("logs show last-error", None),
];

/// Records a second that the journal says are written.
pub(crate) fn journal(places: &Places) -> Result<Value, Fault> {
    let folder = fresh(places)?;
    let journal = Arc::new(Journal::open(JournalOptions::new(folder.join("journal")))?);
    let records: Vec<_> = (0..WRITTEN).map(sample::record).collect();
    let (begun, mut refused) = (Instant::now(), 0_u64);
    for chunk in records.chunks(AT_ONCE as usize) {
        let handed: Vec<_> = chunk.iter().map(|record| journal.finish(record.clone())).collect();
        refused += handed.into_iter().map(|ack| u64::from(ack.wait().is_err())).sum::<u64>();
    }
    let per_second = WRITTEN as f64 / begun.elapsed().as_secs_f64();
    journal.close();
    println!("{:>8} {per_second:.0} records/s acknowledged, {refused} refused", "journal");
    Ok(json!({ "load": "journal", "records_per_second": per_second, "refused": refused }))
}

/// How long a record waits for its acknowledgement at a low rate, on a runtime like the gateway's: as many changes of
/// thread as there can be, since nobody else's entry goes out in the same write.
pub(crate) fn waits(places: &Places) -> Result<Value, Fault> {
    let folder = fresh(places)?;
    let journal = Journal::open(JournalOptions::new(folder.join("journal")))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut took = runtime.block_on(async {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / WAITS_PER_SECOND);
        let mut took = Vec::new();
        for n in 0..WAITS {
            ticks.tick().await;
            let record = sample::record(n.into());
            let begun = Instant::now();
            journal.finish(record).await?;
            took.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok::<_, Fault>(took)
    })?;
    journal.close();
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[((took.len() as f64 * share) as usize).min(took.len() - 1)];
    let (half, most) = (at(0.5), at(0.99));
    println!("{:>8} for the journal's acknowledgement: p50 {half:.0} µs, p99 {most:.0} µs", "waits");
    Ok(json!({ "load": "waits", "subject": Subject::Cco.name(), "p50_us": half, "p99_us": most }))
}

/// How long commands take that read a large store, from their start to their end.
pub(crate) fn queries(places: &Places, quick: bool) -> Result<Vec<Value>, Fault> {
    let (folder, records) = (fresh(places)?, if quick { QUICK } else { RECORDS });
    load(&folder, records)?;
    let rows = COMMANDS.iter().map(|(command, limit)| {
        let mut took = (0..TIMES).map(|_| timed(places, &folder, command)).collect::<Result<Vec<f64>, Fault>>()?;
        took.sort_by(f64::total_cmp);
        let (ms, slowest) = (took[TIMES / 2], took[TIMES - 1]);
        let verdict = match limit {
            Some(limit) if ms > *limit => "OVER THE LIMIT",
            Some(_) => "under the limit",
            None => "",
        };
        let shown = format!("`cco {command}`");
        println!("{:>8} {shown:<24} {ms:>7.0} ms, slowest {slowest:.0} ms, {records} records {verdict}", "queries");
        Ok(json!({
            "load": "queries", "command": command, "records": records,
            "ms": ms, "slowest_ms": slowest, "limit_ms": limit, "verdict": verdict,
        }))
    });
    rows.collect()
}

fn fresh(places: &Places) -> Result<std::path::PathBuf, Fault> {
    let folder = places.home();
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn load(folder: &Path, records: u64) -> Result<(), Fault> {
    let mut writer = Sqlite::new(folder.join("ledger.db")).writer()?;
    let begun = Instant::now();
    for first in (0..records).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..(first + BATCH).min(records)).map(sample::record).collect();
        writer.load(&Batch { records: &batch, segment: "bench", position: first, complete: false })?;
    }
    writer.idle()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{:>8} {records} records loaded in {seconds:.0} s, {:.0} a second", "queries", records as f64 / seconds);
    Ok(())
}

/// Milliseconds of one command, as its user waits for them.
fn timed(places: &Places, home: &Path, command: &str) -> Result<f64, Fault> {
    let mut run = Command::new(&places.cco);
    run.args(command.split(' ')).env("CCO_HOME", home).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let output = run.output()?;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        return Err(format!("`cco {command}` failed: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(ms)
}
