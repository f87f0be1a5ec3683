//! What the archive costs: processor time per small pair at a fixed rate, bytes a second for large bodies, reading.
//!
//! `cargo run --release -p ledger --example archive_bench [-- SECONDS]`. Processor time is what the kernel counted for
//! the writer's thread and for the thread that submits. Linux only.
#![expect(clippy::print_stdout, clippy::disallowed_methods, clippy::unwrap_used, reason = "a measurement")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledger::archive::{Archive, Body, GrepLimits, Kind, Options, usage};
use ledger::redact::{Pattern, Redactor};

/// Fast noise; quality does not matter.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Text about as compressible as source code: words of a list, with numbers.
    fn prose(&mut self, len: usize) -> Vec<u8> {
        const WORDS: [&str; 32] = [
            "the",
            "file",
            "function",
            "returns",
            "error",
            "let",
            "mut",
            "self",
            "value",
            "because",
            "test",
            "should",
            "line",
            "import",
            "const",
            "struct",
            "read",
            "write",
            "path",
            "\\n    ",
            "\\\"name\\\":",
            "if",
            "else",
            "match",
            "async",
            "();",
            "Result<",
            "->",
            "{",
            "}",
            "what",
            "user",
        ];
        let mut out = Vec::with_capacity(len + 32);
        while out.len() < len {
            let word = self.next();
            out.extend_from_slice(WORDS[(word >> 20) as usize % 32].as_bytes());
            if word.is_multiple_of(5) {
                out.extend_from_slice(format!("_{}", word % 9973).as_bytes());
            }
            out.push(b' ');
        }
        out.truncate(len);
        out
    }
}

/// Nanoseconds on a processor of all threads of this name.
fn cpu_of(name: &str) -> u64 {
    let mut all = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name) {
            let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
            all += stat.split(' ').next().unwrap().parse::<u64>().unwrap();
        }
    }
    all
}

fn id(number: u64) -> [u8; 16] {
    let mut id = [0x70; 16];
    let time = now();
    id[..6].copy_from_slice(&time.to_be_bytes()[2..]);
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

fn body(exchange: [u8; 16], kind: Kind, bytes: Bytes) -> Body {
    Body { exchange, kind, coding: None, session: None, pieces: vec![bytes], time_ms: now() }
}

fn options(home: &Path, level: i32) -> Options {
    Options { level, ..Options::new(home.join("archive"), home.join("archive.key")) }
}

/// 2,000 exchanges a second, 500 bytes up and 1 KB down, open loop.
fn small(seconds: u64, level: i32, patterns: &[&str]) {
    const RATE: u64 = 2000;
    let home = tempfile::tempdir().unwrap();
    let redact = Arc::new(Redactor::new(patterns).unwrap());
    let archive = Archive::open(Options { redact, ..options(home.path(), level) }).unwrap();
    let mut noise = Noise(42);
    // Made before, so that making them is not measured: each differs from all others in most of its bytes.
    let count = RATE * seconds;
    let pairs: Vec<(Bytes, Bytes)> = (0..count)
        .map(|_| {
            let request = [
                &br#"{"model":"claude","max_tokens":1024,"messages":[{"role":"user","content":""#[..],
                &noise.prose(420),
                b"\"}]}",
            ]
            .concat();
            let response = [
                &br#"{"id":"msg_01","type":"message","role":"assistant","content":[{"type":"text","text":""#[..],
                &noise.prose(900),
                b"\"}]}",
            ]
            .concat();
            (request.into(), response.into())
        })
        .collect();
    let raw: usize = pairs.iter().map(|(request, response)| request.len() + response.len()).sum();
    let (never, pause) = sync_channel::<()>(1);
    let (start, before) = (Instant::now(), cpu_of("cco-archive"));
    let mut submitting = Duration::ZERO;
    for (number, (request, response)) in (0..).zip(pairs) {
        let due = Duration::from_micros(number * 1_000_000 / RATE);
        if let Some(early) = due.checked_sub(start.elapsed()) {
            let _ = pause.recv_timeout(early);
        }
        let exchange = id(number);
        let (one, two) = (body(exchange, Kind::Request, request), body(exchange, Kind::Response, response));
        let begin = Instant::now();
        let _ = archive.submit(one);
        let _ = archive.submit(two);
        submitting += begin.elapsed();
    }
    drop(never);
    assert!(archive.flush(Duration::from_secs(60)));
    let cpu = cpu_of("cco-archive") - before;
    let (counts, (_, disk)) = (archive.counts(), usage(&home.path().join("archive")).unwrap());
    println!(
        "small pairs, {RATE}/s, level {level}, {} patterns: writer {:.1} µs CPU + submit {:.1} µs per pair; skipped {}; {} raw -> {disk} (1/{:.1})",
        patterns.len(),
        cpu as f64 / count as f64 / 1000.0,
        submitting.as_nanos() as f64 / count as f64 / 1000.0,
        counts.all_skipped(),
        raw,
        raw as f64 / disk as f64,
    );
}

/// Bodies as fast as they are taken.
fn large(name: &str, level: i32, bodies: impl Iterator<Item = Bytes>) {
    let home = tempfile::tempdir().unwrap();
    let archive = Archive::open(options(home.path(), level)).unwrap();
    let before = cpu_of("cco-archive");
    let (mut raw, mut count) = (0, 0);
    for bytes in bodies {
        raw += bytes.len();
        count += 1;
        archive.submit(body(id(count), Kind::Request, bytes)).unwrap();
        if count.is_multiple_of(8) {
            assert!(archive.flush(Duration::from_secs(60)));
        }
    }
    assert!(archive.flush(Duration::from_secs(60)));
    let cpu = (cpu_of("cco-archive") - before) as f64 / 1e9;
    let (_, disk) = usage(&home.path().join("archive")).unwrap();
    println!(
        "{name}, level {level}: {:.0} MB/s of CPU, {:.0} µs per body; {raw} raw -> {disk} (1/{:.1})",
        raw as f64 / 1e6 / cpu,
        cpu * 1e6 / count as f64,
        raw as f64 / disk as f64
    );
}

fn reading() {
    let home = tempfile::tempdir().unwrap();
    let archive = Archive::open(options(home.path(), 1)).unwrap();
    let mut noise = Noise(7);
    let ids: Vec<[u8; 16]> = (0..150_000).map(id).collect();
    for (at, exchange) in ids.iter().enumerate() {
        archive.submit(body(*exchange, Kind::Response, noise.prose(1500).into())).unwrap();
        if at.is_multiple_of(2000) {
            assert!(archive.flush(Duration::from_secs(60)));
        }
    }
    assert!(archive.flush(Duration::from_secs(60)));
    let (packs, disk) = usage(&home.path().join("archive")).unwrap();
    let mut worst = Duration::ZERO;
    let begin = Instant::now();
    for at in (0..ids.len()).step_by(1501) {
        let one = Instant::now();
        assert!(archive.reader().read(ids[at], Kind::Response).unwrap().unwrap().bytes().is_ok());
        worst = worst.max(one.elapsed());
    }
    let mean = begin.elapsed() / (ids.len() as u32 / 1501);
    let begin = Instant::now();
    assert!(archive.reader().read([9; 16], Kind::Response).unwrap().is_none());
    let absent = begin.elapsed();
    println!(
        "reading one of {} in {packs} packs, {disk} bytes: mean {mean:?}, worst {worst:?}; one that is not there {absent:?}",
        ids.len()
    );
    let begin = Instant::now();
    let limits = GrepLimits { bodies: 1_000_000, ..GrepLimits::default() };
    let scan = archive
        .reader()
        .grep(&Pattern::new("never-[a-z]+-there").unwrap(), &limits, |_| ControlFlow::Continue(()))
        .unwrap();
    let took = begin.elapsed();
    println!("grep over {} bodies: {:.0} MB/s ({took:?})", scan.bodies, scan.bytes as f64 / 1e6 / took.as_secs_f64());
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(10);
    for level in [1, 2, 3] {
        small(seconds, level, &[]);
    }
    small(seconds, 1, &[r"sk-ant-[a-zA-Z0-9_-]+", r"(?i)password\s*=\s*\S+", r"\b\d{16}\b"]);
    for level in [1, 3] {
        let (mut noise, mut context) = (Noise(1), Noise(2).prose(20_000));
        large(
            "growing context of an agent (20 to 520 KB)",
            level,
            (0..100).map(|_| {
                context.extend(noise.prose(5000));
                Bytes::from(context.clone())
            }),
        );
        let mut noise = Noise(3);
        large("unlike bodies of 500 KB, text", level, (0..60).map(|_| Bytes::from(noise.prose(500_000))));
    }
    let mut noise = Noise(4);
    large(
        "unlike bodies of 500 KB, not compressible",
        1,
        (0..60).map(|_| (0..62_500).flat_map(|_| noise.next().to_le_bytes()).collect::<Vec<_>>().into()),
    );
    reading();
}
