//! The load generator: closed loop (so many connections, each as fast as it is answered) or open loop (so many requests
//! a second, whatever comes back). In the open loop a request that had to wait for a free connection is counted from
//! the moment at which it was due, so that a slow answer shows in all the requests that it delayed.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http1::{BodyDecoder, Limits, ResponseHead, Scan, Step};
use memchr::memmem;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::Fault;
use crate::plan::{HEADER, Plan, STAMP, now};
use crate::process::{Used, machine_busy, used};

/// Samples of one kind that are kept; more are counted only.
const SAMPLES: usize = 8 << 20;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Whom to ask; loopback only
    #[arg(long)]
    target: SocketAddr,
    /// Connections
    #[arg(long, default_value_t = 1)]
    conns: usize,
    /// Requests a second in all; without it, each connection asks as soon as it was answered
    #[arg(long)]
    rate: Option<f64>,
    /// Bytes of a request's body
    #[arg(long, default_value_t = 500)]
    body: usize,
    /// Makes the last 2 KB of every body unlike those of all others, so that nothing can be kept once for many
    #[arg(long)]
    unique: bool,
    /// Bytes of a whole answer
    #[arg(long, default_value_t = 1000)]
    answer: usize,
    /// Deltas of a streamed answer; 0: a whole one
    #[arg(long, default_value_t = 0)]
    events: u32,
    /// So many of the connections ask, and never read a byte of the answer
    #[arg(long, default_value_t = 0)]
    stalled: usize,
    /// Milliseconds between two deltas
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Milliseconds over which the connections begin
    #[arg(long, default_value_t = 0)]
    ramp: u64,
    /// Milliseconds that all connections together may take until each has the beginning of an answer, before anything
    /// counts; 0: nothing waits for them
    #[arg(long, default_value_t = 0)]
    gather: u64,
    /// Milliseconds before anything counts
    #[arg(long, default_value_t = 500)]
    warmup: u64,
    /// Milliseconds that count
    #[arg(long, default_value_t = 2000)]
    time: u64,
    /// A header that is sent with every request, as `name: value`
    #[arg(long)]
    header: Vec<String>,
    /// The process whose CPU and memory count, with all below it
    #[arg(long)]
    watch: Option<u32>,
    /// Another process of the measurement, which is not foreign load
    #[arg(long)]
    also: Option<u32>,
}

/// What came back while it counted.
#[derive(Debug, Default)]
struct Seen {
    counts: bool,
    /// Connections over which an answer began, or that never read one.
    opened: usize,
    /// Told each time that one does.
    opens: Rc<Notify>,
    /// Requests that were begun and answers that came whole, whether they count or not.
    sent: u64,
    whole: u64,
    requests: u64,
    events: u64,
    errors: u64,
    incomplete: u64,
    first_error: Option<String>,
    latencies: Vec<u32>,
    delays: Vec<u32>,
}

impl Seen {
    fn failed(&mut self, error: &dyn std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    fn opened(&mut self) {
        self.opened += 1;
        self.opens.notify_one();
    }

    fn answered(&mut self, from: u64) {
        self.whole += 1;
        if self.counts {
            self.requests += 1;
            keep(&mut self.latencies, from);
        }
    }
}

fn keep(samples: &mut Vec<u32>, from: u64) {
    if samples.len() < SAMPLES {
        samples.push(u32::try_from(now().saturating_sub(from) / 100).unwrap_or(u32::MAX));
    }
}

/// When the next request of the open loop is due.
#[derive(Debug)]
struct Schedule {
    start: u64,
    every: f64,
    next: u64,
}

/// Open files beside the connections.
const SPARE: u64 = 32;

/// What of the options would measure nothing.
fn wrong(options: &Options) -> Option<&'static str> {
    match options {
        Options { rate: Some(rate), .. } if !(*rate > 0.0 && rate.is_finite()) => Some("--rate is above 0"),
        Options { conns: 0, .. } => Some("--conns is at least 1"),
        Options { time: 0, .. } => Some("--time is at least 1"),
        _ => None,
    }
}

/// Runs one measurement and prints it.
pub(crate) async fn run(options: Options) -> Result<(), Fault> {
    if !options.target.ip().is_loopback() {
        return Err("only loopback addresses are loaded".into());
    }
    if let Some(wrong) = wrong(&options) {
        return Err(wrong.into());
    }
    if gateway::net::raise_nofile_limit() <= options.conns as u64 + SPARE {
        return Err(
            format!("this machine allows too few open files for {} connections (ulimit -n)", options.conns).into()
        );
    }
    if options.unique && options.body < LEAST_UNIQUE {
        return Err(format!("--unique needs bodies of {LEAST_UNIQUE} bytes at least (--body)").into());
    }
    let seen = Rc::new(RefCell::new(Seen::default()));
    let schedule =
        options.rate.map(|rate| Rc::new(RefCell::new(Schedule { start: now(), every: 1e9 / rate, next: 0 })));
    let request: Bytes = request(&options).into();
    for n in 0..options.conns {
        let (options, seen, schedule, request) = (options.clone(), seen.clone(), schedule.clone(), request.clone());
        tokio::task::spawn_local(async move {
            let begin = options.ramp * n as u64 / options.conns as u64;
            tokio::time::sleep(Duration::from_millis(begin)).await;
            if n < options.stalled {
                match stalled(&options, &seen).await {
                    Ok(_stream) => return std::future::pending().await,
                    Err(e) => return seen.borrow_mut().failed(&e),
                }
            }
            let mut is_first = true;
            loop {
                if let Err(e) = connection(&options, &seen, schedule.as_ref(), &request, &mut is_first).await {
                    seen.borrow_mut().failed(&e);
                    // Who is refused asks again, but not as fast as it can.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
    }
    let opens = seen.borrow().opens.clone();
    let gathered = async {
        while seen.borrow().opened < options.conns {
            opens.notified().await;
        }
    };
    // Who is missing then is told in the report.
    let _ = tokio::time::timeout(Duration::from_millis(options.gather), gathered).await;
    tokio::time::sleep(Duration::from_millis(options.warmup)).await;
    seen.borrow_mut().counts = true;
    let all = || [options.watch, options.also, Some(std::process::id())].map(|pid| pid.map(used).unwrap_or_default());
    let (began, before, busy) = (now(), all(), machine_busy());
    let mut peak = before[0].rss;
    while now() < began + options.time * 1_000_000 {
        tokio::time::sleep(Duration::from_millis(100.min(options.time))).await;
        peak = peak.max(options.watch.map_or(0, |pid| used(pid).rss));
    }
    seen.borrow_mut().counts = false;
    let (after, busy, took) = (all(), machine_busy().saturating_sub(busy), now() - began);
    let ours: u64 = after.iter().zip(&before).map(|(a, b)| a.cpu.saturating_sub(b.cpu)).sum();
    let cores = std::thread::available_parallelism().map_or(1, usize::from).max(cores_of_machine());
    let foreign = busy.saturating_sub(ours) as f64 / took as f64 / cores as f64;
    let mut told = report(&mut seen.borrow_mut(), took, after[0], before[0], peak, foreign);
    if options.watch.is_some() {
        told["cpu_us"] = cpu_us(after[0], before[0]).into();
    }
    println!("{told}");
    Ok(())
}

/// We may be pinned to one of them.
fn cores_of_machine() -> usize {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1)
}

/// Microseconds on a core; `None` where nothing can be said: a process that has ended, or a thread or child of it, takes
/// what it used out of the sum, and one that answers uses something. The sum of tasks is kept although it forgets them,
/// since it is exact where the process's own clock counts in steps of 10 ms.
fn cpu_us(after: Used, before: Used) -> Option<f64> {
    after.cpu.checked_sub(before.cpu).filter(|n| *n > 0).map(|n| n as f64 / 1e3)
}

fn report(seen: &mut Seen, took: u64, after: Used, before: Used, peak: u64, foreign: f64) -> Value {
    let (user, system) = (after.user.saturating_sub(before.user), after.system.saturating_sub(before.system));
    json!({
        "seconds": took as f64 / 1e9,
        "sent": seen.sent,
        "whole": seen.whole,
        "opened": seen.opened,
        "requests": seen.requests,
        "events": seen.events,
        "errors": seen.errors,
        "first_error": seen.first_error,
        "incomplete": seen.incomplete,
        "latency_us": percentiles(&mut seen.latencies),
        "delay_us": percentiles(&mut seen.delays),
        "cpu_us": 0.0,
        "user_share": user as f64 / (user + system).max(1) as f64,
        "rss_kb": { "before": before.rss, "peak": peak },
        "foreign": foreign,
    })
}

fn percentiles(samples: &mut [u32]) -> Value {
    samples.sort_unstable();
    let at = |share: f64| {
        samples
            .get(((samples.len() as f64 * share) as usize).min(samples.len().saturating_sub(1)))
            .map_or(0.0, |n| f64::from(*n) / 10.0)
    };
    json!({ "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1.0), "samples": samples.len() })
}

fn request(options: &Options) -> Vec<u8> {
    let plan = Plan { bytes: options.answer, events: options.events, delay: options.delay }.to_value();
    let stream = if options.events > 0 { "true" } else { "false" };
    let opening = format!(
        r#"{{"model":"claude-bench-1","max_tokens":1024,"stream":{stream},"messages":[{{"role":"user","content":""#
    );
    let text = "x".repeat(options.body.saturating_sub(opening.len() + CLOSING.len()));
    let body = opening + &text + CLOSING;
    let headers: String = options.header.iter().map(|header| format!("{header}\r\n")).collect();
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\nx-api-key: bench\r\n\
         anthropic-version: 2023-06-01\r\nuser-agent: {plan}\r\n{HEADER}: {plan}\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        options.target,
        body.len()
    )
    .into_bytes()
}

/// Asks for far more than any buffer on the way takes, and reads nothing.
async fn stalled(options: &Options, seen: &RefCell<Seen>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(options.target).await?;
    let endless = Options { events: 1_000_000, delay: 0, stalled: 0, ..options.clone() };
    stream.write_all(&request(&endless)).await?;
    let mut seen = seen.borrow_mut();
    seen.sent += 1;
    seen.opened();
    drop(seen);
    Ok(stream)
}

/// Asks over one connection until it fails.
async fn connection(
    options: &Options,
    seen: &RefCell<Seen>,
    schedule: Option<&Rc<RefCell<Schedule>>>,
    request: &[u8],
    is_first: &mut bool,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(options.target).await?;
    stream.set_nodelay(true)?;
    let (mut input, mut stamps) = (BytesMut::with_capacity(64 * 1024), Stamps::default());
    let mut own = options.unique.then(|| (request.to_vec(), Noise::new()));
    loop {
        let from = match schedule {
            Some(schedule) => due(schedule).await,
            None => now(),
        };
        let request = match &mut own {
            Some((request, noise)) => {
                noise.fill(request);
                &request[..]
            }
            None => request,
        };
        seen.borrow_mut().sent += 1;
        stream.write_all(request).await?;
        let events = ask(&mut stream, &mut input, &mut stamps, seen, is_first).await?;
        let mut seen = seen.borrow_mut();
        seen.answered(from);
        if events != u64::from(options.events) {
            seen.incomplete += 1;
        }
    }
}

/// Letters that nobody can foresee, and that no two requests share: xorshift64*, begun from the clock.
#[derive(Debug)]
struct Noise(u64);

/// Bytes at the end of a body that are its own, and what stands behind them.
const OWN: usize = 2048;
const CLOSING: &str = r#""}]}"#;
/// A body with less than this in it has no room for them behind its opening.
const LEAST_UNIQUE: usize = OWN + 256;

impl Noise {
    fn new() -> Self {
        Self(now().wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, request: &mut [u8]) {
        let end = request.len() - CLOSING.len();
        let begin = end.saturating_sub(OWN);
        for eight in request[begin..end].chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let random = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            for (byte, random) in eight.iter_mut().zip(random) {
                *byte = b'A' + (random & 63) % 58 % 26 + (random >> 7) * 32;
            }
        }
    }
}

/// Waits until the next request is due, and says from when it counts. Where this connection was free in time, that is
/// when it is sent: our timer's lateness is not the gateway's.
async fn due(schedule: &RefCell<Schedule>) -> u64 {
    let due = {
        let mut schedule = schedule.borrow_mut();
        let due = schedule.start + (schedule.next as f64 * schedule.every) as u64;
        schedule.next += 1;
        due
    };
    let early = due.saturating_sub(now());
    if early == 0 {
        return due;
    }
    tokio::time::sleep(Duration::from_nanos(early)).await;
    now()
}

/// Reads one answer; the number of its deltas.
async fn ask(
    stream: &mut TcpStream,
    input: &mut BytesMut,
    stamps: &mut Stamps,
    seen: &RefCell<Seen>,
    is_first: &mut bool,
) -> io::Result<u64> {
    let other = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    let mut scan = Scan::default();
    let head = loop {
        match ResponseHead::take(input, &mut scan, &Limits::default(), false).map_err(|e| other(&e))? {
            Some(head) => break head,
            None => more(stream, input).await?,
        }
    };
    if head.status != 200 {
        return Err(io::Error::other(format!("status {}", head.status)));
    }
    if std::mem::take(is_first) {
        seen.borrow_mut().opened();
    }
    let (mut body, mut events) = (BodyDecoder::new(head.framing), 0);
    loop {
        match body.next(input).map_err(|e| other(&e))? {
            Step::Data(data) => events += stamps.look(&data, seen),
            Step::End => return Ok(events),
            Step::More => more(stream, input).await?,
        }
    }
}

async fn more(stream: &mut TcpStream, input: &mut BytesMut) -> io::Result<()> {
    input.reserve(64 * 1024);
    if stream.read_buf(input).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Finds the times in a stream that arrives in pieces.
#[derive(Debug, Default)]
struct Stamps {
    /// What has been seen and may hold the beginning of a stamp, then the next piece.
    bytes: Vec<u8>,
}

/// A stamp with its digits and the mark behind them is no longer than this.
const LONGEST: usize = 32;

impl Stamps {
    /// The number of stamps that end in this piece.
    fn look(&mut self, piece: &[u8], seen: &RefCell<Seen>) -> u64 {
        self.bytes.extend_from_slice(piece);
        let (mut found, mut done) = (0, 0);
        let mut seen = seen.borrow_mut();
        for at in memmem::find_iter(&self.bytes, STAMP) {
            let digits = &self.bytes[at + STAMP.len()..];
            let Some(len) = digits.iter().take(LONGEST).position(|b| *b == b';') else { continue };
            let number = |n: u64, digit: &u8| n.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')));
            (found, done) = (found + 1, at + STAMP.len() + len);
            if seen.counts {
                seen.events += 1;
                keep(&mut seen.delays, digits[..len].iter().fold(0, number));
            }
        }
        self.bytes.drain(..done.max(self.bytes.len().saturating_sub(LONGEST)));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stamp_is_counted_once_wherever_the_stream_is_cut() {
        let stream: Vec<u8> =
            (0..5).flat_map(|n| format!("data: {{\"text\":\"t=12345678901{n};\"}}\n\n").into_bytes()).collect();
        for size in 1..stream.len() {
            let (mut stamps, seen) = (Stamps::default(), RefCell::new(Seen::default()));
            let found: u64 = stream.chunks(size).map(|piece| stamps.look(piece, &seen)).sum();
            assert_eq!(found, 5, "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_unique_is_text_and_no_two_are_alike() {
        let mut request = format!("head\r\n\r\n{{\"content\":\"{}{CLOSING}", "x".repeat(4000)).into_bytes();
        let (before, mut noise) = (request.clone(), Noise::new());
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            noise.fill(&mut request);
            let own = request.len() - CLOSING.len() - OWN;
            assert_eq!((&request[..own], request.ends_with(CLOSING.as_bytes())), (&before[..own], true));
            assert!(request[own..own + OWN].iter().all(u8::is_ascii_alphabetic));
            assert!(seen.insert(request.clone()));
        }
    }

    #[test]
    fn percentiles_are_of_the_samples() {
        let mut samples: Vec<u32> = (1..=1000).rev().collect();
        let got = percentiles(&mut samples);
        assert_eq!((got["p50"].as_f64(), got["max"].as_f64()), (Some(50.1), Some(100.0)));
        assert_eq!(percentiles(&mut [])["p50"].as_f64(), Some(0.0));
    }

    #[test]
    fn a_process_that_ended_has_no_cpu_and_no_measurement_of_it_panics() {
        let used = |cpu: u64| Used { cpu, user: cpu, system: cpu, rss: 1 };
        assert_eq!(cpu_us(used(3000), used(1000)), Some(2.0));
        assert_eq!([cpu_us(used(0), used(1000)), cpu_us(used(0), used(0))], [None, None]);
        let told = report(&mut Seen::default(), 1, used(0), used(1000), 0, 0.0);
        assert_eq!(told["user_share"].as_f64(), Some(0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_had_to_wait_counts_from_when_it_was_due() {
        let start = now() - 1_000_000_000;
        let schedule = RefCell::new(Schedule { start, every: 1e6, next: 10 });
        assert_eq!(due(&schedule).await, start + 10_000_000);
        assert_eq!(schedule.borrow().next, 11);
    }
}
