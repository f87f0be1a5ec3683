//! Minutes of what is hard to bear, on one gateway: a thousand slow streams, thousands of idle ones in waves, readers
//! that never read, large bodies, an upstream that dies, answers that go wrong in every way. What it holds is looked at
//! during each and after it, and so is whether every request has its one record.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use io::{BufRead as _, BufReader, Read as _, Write as _};
use ledger::query::Filter;
use ledger::store::Store as _;
use ledger::store::sqlite::Sqlite;
use serde_json::{Value, json};

use crate::Fault;
use crate::mock::SEEN_PATH;
use crate::plan::{HEADER, Trouble};
use crate::process::{Running, poll, used};
use crate::run::{mock_unpinned, sent};
use crate::subject::{Places, Site, Subject, counted, start};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    site: Site,
    /// Seconds of each phase, once its streams are open where it is about many at once
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Idle streams of a wave
    #[arg(long, default_value_t = 9000)]
    idle: usize,
    /// Slow streams at once
    #[arg(long, default_value_t = 1000)]
    slow: usize,
}

/// Bytes that each wave may leave for each of its streams beyond what the first one left: what leaks a kilobyte a stream
/// goes past it. What an allocator keeps differs by 8 MB from one wave to the next, which is why a fourth is asked where
/// three have grown.
const LEAK: u64 = 768;
/// KiB that are no growth, however few streams there are.
const NO_GROWTH: u64 = 12 * 1024;
/// And the last may leave so much more than the first, in which not all was in use yet that is kept for the next time.
const FIRST: f64 = 1.5;
/// How long what a phase leaves behind may take to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that does not fall for so long has settled.
const STILL: Duration = Duration::from_secs(8);
/// Connections to the upstream that stay open for the next request, files.
const SPARE: usize = 160;
/// Milliseconds after which an event that comes shows that its stream is not served. Not a matter of speed.
const UNSERVED: f64 = 5000.0;
/// What may be kept of 64 bodies of 20 MB, in KiB.
const AFTER_BODIES: u64 = 150 * 1024;
/// How a gateway refuses what it has no room for.
const FULL: &str = "status 529";
/// How often what is held is looked at during a phase.
const LOOK: Duration = Duration::from_millis(500);
/// Milliseconds that the streams of a phase may take until all have begun.
const GATHER: &str = "30000";

/// One phase: what the load is told, and what must hold of it.
#[derive(Debug, Clone, Copy)]
struct Phase<'a> {
    name: &'static str,
    flags: &'a [&'a str],
    /// Streams that are open at once.
    open: u64,
    /// Its streams have events within its time.
    live: bool,
    /// Every answer must be good.
    good: bool,
    /// But for this one, which is the gateway's own: it holds no more bodies than it may.
    refused: Option<&'static str>,
}

/// Runs all phases, prints a line for each, and fails where something was lost, doubled, refused or kept.
pub(crate) fn run(options: &Options) -> Result<(), Fault> {
    let places = options.site.places(None)?;
    let _ = fs::remove_dir_all(places.home());
    let me = std::env::current_exe()?;
    let (mock, upstream) = mock_unpinned(&me)?;
    let gateway = start(Subject::Soaked, &places, upstream, "")?;
    let pid = gateway.process.as_ref().map(Running::pid).ok_or("there is no process to look at")?;
    let soak = Soak { me, pid, target: gateway.address, upstream };
    let (slow, idle) = (options.slow.to_string(), options.idle.to_string());
    let mut faults = Vec::new();
    let most = soak.settled(usize::MAX, &mut faults).descriptors + SPARE;
    // The one of the start is in the store, so that all others can be counted.
    soak.recorded()?;
    let seconds = options.seconds;
    println!(
        "{:<20}{:>7}{:>8}{:>7}{:>10}{:>6}{:>7}{:>9}{:>15}{:>14}{:>16}{:>7}{:>7}",
        "phase",
        "sent",
        "whole",
        "errors",
        "recorded",
        "lost",
        "double",
        "p99 ms",
        "RSS MB (peak)",
        "files (peak)",
        "sockets (peak)",
        "open",
        "tasks"
    );
    let slow = &["--conns", &slow, "--events", "40", "--delay", "250", "--ramp", "3000", "--gather", GATHER];
    let open = options.slow as u64;
    soak.phase(
        Phase { name: "slow streams", flags: slow, open, live: true, good: true, refused: None },
        seconds,
        most,
        &mut faults,
    )?;
    let (mut waves, open) = (Vec::new(), options.idle as u64);
    for name in ["idle wave 1", "idle wave 2", "idle wave 3", "idle wave 4"] {
        if waves.len() == 3 && !grows(&waves, options.idle) {
            break;
        }
        let phase = Phase { name, flags: &wave(&idle), open, live: false, good: true, refused: None };
        waves.push(soak.phase(phase, seconds, most, &mut faults)?.rss);
    }
    if grows(&waves, options.idle) {
        faults.push(format!("memory grows from wave to wave: {waves:?} KiB"));
    }
    let flags = &["--conns", "250", "--stalled", "200", "--events", "100", "--delay", "20", "--gather", GATHER];
    soak.phase(
        Phase { name: "readers that stall", flags, open: 250, live: true, good: true, refused: None },
        seconds,
        most,
        &mut faults,
    )?;
    let flags = &["--conns", "64", "--body", "20000000"];
    let bodies = Phase { name: "bodies of 20 MB", flags, open: 0, live: false, good: true, refused: Some(FULL) };
    let kept = soak.phase(bodies, seconds, most, &mut faults)?.rss;
    soak.large(&mut faults)?;
    if kept > AFTER_BODIES {
        faults.push(format!("{kept} KiB are kept after the large bodies, more than {AFTER_BODIES}"));
    }
    // The upstream dies in the middle, and another one listens where it did.
    let died = std::thread::spawn({
        let (wait, me) = (Duration::from_secs(seconds / 2), soak.me.clone());
        move || -> Result<Running, String> {
            std::thread::sleep(wait);
            drop(mock);
            another(&me, upstream).map_err(|why| format!("the second upstream: {why}"))
        }
    });
    let flags = &["--conns", "200", "--events", "50", "--delay", "20"];
    soak.phase(
        Phase { name: "upstream dies", flags, open: 0, live: true, good: false, refused: None },
        seconds,
        most,
        &mut faults,
    )?;
    let _mock = died.join().map_err(|_| "the thread that ends the upstream failed")??;
    if soak.seen()? == 0 {
        faults.push("nothing reached the upstream that was there instead".into());
    }
    soak.troubles(Duration::from_secs(seconds / 2), &places, &mut faults)?;
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}

/// A mock that listens there, once it does.
fn another(me: &Path, listen: SocketAddr) -> io::Result<Running> {
    let command = [me.to_string_lossy().into_owned(), "mock".into(), "--listen".into(), listen.to_string()];
    let mut running = Running::start(&command, None, Stdio::inherit())?;
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?).read_line(&mut line)?;
    if line.trim() == listen.to_string() { Ok(running) } else { Err(io::Error::other("it does not listen")) }
}

/// The load of so many streams that say something every half minute.
const fn wave(streams: &str) -> [&str; 10] {
    ["--conns", streams, "--events", "3", "--delay", "30000", "--ramp", "6000", "--gather", GATHER]
}

/// Whether what is kept after the last wave tells of a leak.
fn grows(kib: &[u64], streams: usize) -> bool {
    let [first, .., last] = kib else { return false };
    let leaked = (kib.len() as u64 - 1) * streams as u64 * LEAK / 1024;
    *last > first + leaked.max(NO_GROWTH) || *last as f64 > *first as f64 * FIRST
}

/// What a gateway keeps after each of three waves of idle streams, for the table of the bench.
pub(crate) fn waves(me: &Path, places: &Places, mock: SocketAddr) -> Result<Value, Fault> {
    let gateway = start(Subject::Soaked, places, mock, "")?;
    let pid = gateway.process.as_ref().map(Running::pid).ok_or("there is no process to look at")?;
    let soak = Soak { me: me.to_owned(), pid, target: gateway.address, upstream: mock };
    let (mut faults, mut rss) = (Vec::new(), Vec::new());
    let most = soak.settled(usize::MAX, &mut faults).descriptors + SPARE;
    for _ in 0..3 {
        let seen = sent(me, soak.target, wave("9000").into_iter(), Duration::from_secs(4))?;
        if seen["errors"].as_u64() > Some(0) {
            faults.push(format!("errors: {}", seen["first_error"]));
        }
        rss.push(soak.settled(most, &mut faults).rss);
    }
    println!("{:>8} of 9,000 idle streams: {rss:?} KiB are kept after each", "waves");
    let growth = rss[2] as f64 / rss[0] as f64;
    let row = json!({ "load": "waves", "subject": Subject::Cco.name(), "rss_kb": rss, "growth": growth });
    if faults.is_empty() { Ok(row) } else { Err(faults.join("; ").into()) }
}

/// What the load saw, and what gateway and upstream counted meanwhile.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    sent: u64,
    whole: u64,
    errors: u64,
    samples: u64,
    p99: f64,
    /// Requests that the upstream has seen; `None`: it was not the same all the time.
    upstream: Option<u64>,
    /// Requests that the gateway says that it was given for an upstream.
    received: u64,
    recorded: u64,
    /// Most requests that were served at once.
    open: u64,
    /// Connections over which an answer began while the load waited for that.
    opened: u64,
}

impl Told {
    /// Records that are missing for certain.
    fn lost(&self) -> u64 {
        let must = self.received.max(self.upstream.unwrap_or(0)).max(self.whole);
        must.saturating_sub(self.recorded)
    }

    /// Records that are too many for certain.
    fn doubled(&self) -> u64 {
        self.recorded.saturating_sub(self.received.min(self.sent))
    }

    /// What is wrong with it.
    fn judge(&self, phase: &Phase<'_>) -> Vec<String> {
        let (name, mut faults) = (phase.name, Vec::new());
        let conns = phase.flags.iter().skip_while(|flag| **flag != "--conns").nth(1).and_then(|n| n.parse().ok());
        let mut fault = |is: bool, text: String| {
            if is {
                faults.push(format!("{name}: {text}"))
            }
        };
        fault(phase.good && phase.refused.is_none() && self.errors > 0, format!("{} errors", self.errors));
        fault(self.sent < conns.unwrap_or(1), format!("only {} requests were sent", self.sent));
        fault(self.open < phase.open, format!("only {} of {} streams were open at once", self.open, phase.open));
        fault(self.opened < phase.open, format!("only {} of {} streams began", self.opened, phase.open));
        fault(phase.live && self.samples == 0, "no event came".into());
        fault(phase.live && self.p99 > UNSERVED, format!("one of a hundred events takes {:.0} ms", self.p99));
        fault(self.lost() > 0, format!("{} records are lost", self.lost()));
        fault(self.doubled() > 0, format!("{} records are one too many", self.doubled()));
        faults
    }
}

fn line(name: &str, told: &Told, peak: &Held, kept: &Held) -> String {
    let mb = |kib: u64| kib as f64 / 1024.0;
    format!(
        "{name:<20}{:>7}{:>8}{:>7}{:>10}{:>6}{:>7}{:>9.1}{:>15}{:>14}{:>16}{:>7}{:>7}",
        told.sent,
        told.whole,
        told.errors,
        told.recorded,
        told.lost(),
        told.doubled(),
        told.p99,
        format!("{:.0} ({:.0})", mb(kept.rss), mb(peak.rss)),
        format!("{} ({})", kept.descriptors, peak.descriptors),
        format!("{:.1} ({:.1})", mb(kept.sockets), mb(peak.sockets)),
        told.open,
        kept.running
    )
}

/// What a gateway holds.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    /// Resident memory, in KiB.
    rss: u64,
    descriptors: usize,
    /// Memory of all TCP sockets of the machine, in KiB.
    sockets: u64,
    /// Requests that are being served: each is a task with what belongs to it.
    running: u64,
}

impl Held {
    fn or_more(self, other: Self) -> Self {
        Self {
            rss: self.rss.max(other.rss),
            descriptors: self.descriptors.max(other.descriptors),
            sockets: self.sockets.max(other.sockets),
            running: self.running.max(other.running),
        }
    }
}

struct Soak {
    me: PathBuf,
    pid: u32,
    target: SocketAddr,
    upstream: SocketAddr,
}

impl Soak {
    /// Runs one phase and waits for its end; what is kept then.
    fn phase(&self, phase: Phase<'_>, seconds: u64, most: usize, faults: &mut Vec<String>) -> Result<Held, Fault> {
        let time = Duration::from_secs(seconds);
        let (received, recorded, upstream) = (self.received()?, self.counted()?, self.seen()?);
        let (seen, peak) = self.watched(|| sent(&self.me, self.target, phase.flags.iter().copied(), time));
        poll(PATIENCE, Duration::from_millis(100), || (self.held().running == 0).then_some(()));
        // Asked before memory is looked at: what a question over all records takes belongs to every phase alike.
        let (recorded, received) = (self.recorded()? - recorded, self.received()? - received);
        let (seen, kept) = (seen?, self.settled(most, faults));
        let n = |name: &str| seen[name].as_u64().unwrap_or(0);
        let told = Told {
            sent: n("sent"),
            whole: n("whole"),
            errors: n("errors"),
            samples: seen["delay_us"]["samples"].as_u64().unwrap_or(0),
            p99: seen["delay_us"]["p99"].as_f64().unwrap_or(0.0) / 1000.0,
            upstream: if phase.good { Some(self.seen()? - upstream) } else { None },
            recorded,
            received,
            open: peak.running,
            opened: n("opened"),
        };
        println!("{}", line(phase.name, &told, &peak.or_more(kept), &kept));
        faults.extend(told.judge(&phase));
        if let Some(why) = seen["first_error"].as_str().filter(|why| phase.good && phase.refused != Some(*why)) {
            faults.push(format!("{}: {why}", phase.name));
        }
        Ok(kept)
    }

    /// Answers that go wrong in every way, beside some that do not. Each request has a session of its own, by which its
    /// records are found: whoever got an answer has one, and nobody has two.
    fn troubles(&self, time: Duration, places: &Places, faults: &mut Vec<String>) -> Result<(), Fault> {
        const CLIENTS: usize = 32;
        self.recorded()?;
        let until = Instant::now() + time;
        let (answered, peak) = self.watched(|| {
            std::thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|client| {
                        scope.spawn(move || {
                            let mut asked = Vec::new();
                            while Instant::now() < until {
                                let n = asked.len();
                                let session = format!("trouble-{client}-{n}");
                                let answered = self.troubled(TROUBLES[(client + n) % TROUBLES.len()], &session);
                                asked.push((session, answered));
                            }
                            asked
                        })
                    })
                    .collect();
                clients.into_iter().flat_map(|client| client.join().unwrap_or_default()).collect::<Vec<_>>()
            })
        });
        self.recorded()?;
        let mut records: HashMap<String, u64> = HashMap::new();
        let filter = Filter { limit: Some(ledger::query::MOST), ..Filter::default() };
        for row in Sqlite::new(places.home().join("ledger.db")).reader()?.rows(&filter)? {
            if let Some(session) = row.record.parties.session {
                *records.entry(session.into()).or_default() += 1;
            }
        }
        let of = |session: &String| records.get(session).copied().unwrap_or(0);
        let lost = answered.iter().filter(|(session, got)| *got && of(session) == 0).count();
        let doubled = answered.iter().filter(|(session, _)| of(session) > 1).count();
        let got = answered.iter().filter(|(_, got)| *got).count();
        println!(
            "{:<20}{:>7} sent, {got} of them got an answer, {lost} without a record, {doubled} with two; \
             {:.0} MB at most",
            "mixed faults",
            answered.len(),
            peak.rss as f64 / 1024.0
        );
        if got == 0 || got == answered.len() {
            faults.push(format!("mixed faults: {got} of {} requests got an answer", answered.len()));
        }
        if lost + doubled > 0 {
            faults.push(format!("mixed faults: {lost} records are lost, {doubled} requests have two"));
        }
        // It comes back from that.
        if poll(PATIENCE, Duration::from_millis(200), || self.ask("f=0", "after").ok().filter(|a| a.contains(" 200 ")))
            .is_none()
        {
            faults.push("after the mixed faults there is no good answer".into());
        }
        Ok(())
    }

    /// Asks once; whether there was the beginning of an answer.
    fn troubled(&self, trouble: Option<Trouble>, session: &str) -> bool {
        let wanted = trouble.map_or_else(|| "e=5,d=5".to_owned(), Trouble::to_value);
        self.ask(&wanted, session).is_ok_and(|answer| answer.starts_with("HTTP/1.1 "))
    }

    /// The answer to a request, as far as it comes.
    fn ask(&self, wanted: &str, session: &str) -> io::Result<String> {
        let body =
            r#"{"model":"claude-bench-1","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: bench\r\n{HEADER}: {wanted}\r\n\
             x-claude-code-session-id: {session}\r\ncontent-type: application/json\r\n\
             anthropic-version: 2023-06-01\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            self.target,
            body.len()
        );
        read(self.target, &request, GIVES_UP)
    }

    /// After so many large bodies, most of which were in each other's way, a single one comes through.
    fn large(&self, faults: &mut Vec<String>) -> Result<(), Fault> {
        let text = "x".repeat(20_000_000);
        let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"{text}"}}]}}"#);
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: {}\r\nx-api-key: bench\r\ncontent-type: application/json\r\n\
             anthropic-version: 2023-06-01\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            self.target,
            body.len()
        );
        let answer = read(self.target, &(head + &body), PATIENCE)?;
        if !answer.starts_with("HTTP/1.1 200") {
            faults.push(format!("a body of 20 MB is answered with {:?}", answer.lines().next()));
        }
        self.recorded().map(|_| ())
    }

    /// Does it, and looks meanwhile at the most that is held.
    fn watched<T>(&self, work: impl FnOnce() -> T) -> (T, Held) {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut peak = Held::default();
                while !done.load(Ordering::Relaxed) {
                    peak = peak.or_more(self.held());
                    std::thread::park_timeout(LOOK);
                }
                peak
            });
            let seen = work();
            done.store(true, Ordering::Relaxed);
            watch.thread().unpark();
            (seen, watch.join().unwrap_or_default())
        })
    }

    /// What is held now.
    fn held(&self) -> Held {
        let descriptors =
            fs::read_dir(Path::new("/proc").join(self.pid.to_string()).join("fd")).map_or(0, Iterator::count);
        let running = self.told("cco_running").unwrap_or(0);
        Held { rss: used(self.pid).rss, descriptors, sockets: sockets(), running }
    }

    /// What is kept once the streams of a phase are gone: waits until no more than `most` descriptors are open, and
    /// nothing is served any more.
    fn settled(&self, most: usize, faults: &mut Vec<String>) -> Held {
        let is_quiet = || {
            let held = self.held();
            (held.descriptors <= most && held.running == 0).then_some(())
        };
        if poll(PATIENCE, Duration::from_millis(100), is_quiet).is_none() {
            let Held { descriptors, running, .. } = self.held();
            faults.push(format!("{descriptors} descriptors (at most {most}) and {running} requests are still open"));
        }
        // What is free goes back to the system within seconds.
        let mut rss = u64::MAX;
        poll(PATIENCE, STILL, || {
            let before = std::mem::replace(&mut rss, used(self.pid).rss);
            (rss as f64 > before as f64 * 0.98).then_some(())
        });
        Held { rss, ..self.held() }
    }

    /// A number of the gateway's metrics.
    fn told(&self, name: &str) -> Result<u64, Fault> {
        let page = get(self.target, "/metrics")?;
        counted(&page, name).ok_or_else(|| format!("the metrics tell no `{name}`").into())
    }

    /// Requests for an upstream that the gateway says it was given since its start.
    fn received(&self) -> Result<u64, Fault> {
        self.told("cco_received_total")
    }

    /// Requests that the upstream has seen.
    fn seen(&self) -> Result<u64, Fault> {
        Ok(get(self.upstream, SEEN_PATH)?.trim().parse()?)
    }

    /// Records of all outcomes, as the gateway itself counts them once everything is loaded.
    fn recorded(&self) -> Result<u64, Fault> {
        let mut last = None;
        // Whoever was interrupted is recorded a moment later.
        let same = poll(PATIENCE, Duration::from_secs(1), || match self.counted() {
            Ok(count) => (last.replace(count) == Some(count)).then_some(Ok(count)),
            Err(why) => Some(Err(why)),
        });
        same.unwrap_or_else(|| Err(format!("the records do not come to rest, lately {last:?}").into()))
    }

    /// Records of all outcomes as the gateway counts them now.
    fn counted(&self) -> Result<u64, Fault> {
        let all: Value = serde_json::from_str(&get(self.target, "/gateway/metrics")?)?;
        Ok(all["summary"]["total_requests"].as_u64().ok_or("the metrics tell no `total_requests`")?)
    }
}

/// What goes wrong, one after the other.
const TROUBLES: [Option<Trouble>; 8] = [
    None,
    Some(Trouble::Cut),
    None,
    Some(Trouble::Refused(500)),
    None,
    Some(Trouble::Closed),
    Some(Trouble::Refused(529)),
    Some(Trouble::Never),
];
/// How long a client of the mixed faults waits for the next byte.
const GIVES_UP: Duration = Duration::from_secs(2);

/// The body of what is told there.
fn get(from: SocketAddr, path: &str) -> Result<String, Fault> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {from}\r\nconnection: close\r\n\r\n");
    let answer = read(from, &request, PATIENCE)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer to {path}: {answer}"))?;
    Ok(body.to_owned())
}

/// What comes until the other side closes, or what came where it falls silent for so long.
fn read(from: SocketAddr, request: &str, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect(from)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(why) if answer.is_empty() => Err(why),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Memory of TCP sockets, in KiB.
fn sockets() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1).and_then(|n| n.parse().ok());
    pages.map_or(0, |pages: u64| pages * rustix::param::page_size() as u64 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASE: Phase<'static> =
        Phase { name: "p", flags: &["--conns", "10"], open: 10, live: true, good: true, refused: None };
    const GOOD: Told = Told {
        sent: 12,
        whole: 2,
        errors: 0,
        samples: 90,
        p99: 3.0,
        upstream: Some(12),
        received: 12,
        recorded: 12,
        open: 10,
        opened: 10,
    };

    #[test]
    fn a_phase_in_which_all_is_well_has_no_fault() {
        assert_eq!(GOOD.judge(&PHASE), Vec::<String>::new());
        let interrupted = Told { errors: 3, upstream: None, received: 9, recorded: 9, ..GOOD };
        assert_eq!(interrupted.judge(&Phase { good: false, ..PHASE }), Vec::<String>::new());
    }

    #[test]
    fn memory_that_leaks_is_told_from_memory_that_varies() {
        let grows = |mb: &[u64], streams| grows(&mb.iter().map(|mb| mb * 1024).collect::<Vec<_>>(), streams);
        for varies in [&[50, 51, 43][..], &[51, 43, 51], &[43, 51, 50], &[43, 43, 51, 50], &[40, 55, 58, 59]] {
            assert!(!grows(varies, 9000), "{varies:?}");
            assert!(!grows(&varies[1..], 10), "{varies:?}");
        }
        // A kilobyte a stream, in gateways that are small and large without it; and what is there at once.
        for leaks in [&[43, 52, 61][..], &[52, 61, 70, 79], &[100, 109, 118], &[40, 40, 55], &[30, 46]] {
            assert!(grows(leaks, 9000), "{leaks:?}");
        }
    }

    #[test]
    fn a_phase_that_was_refused_or_not_served_is_told() {
        for (told, word) in [
            (Told { errors: 1, ..GOOD }, "1 errors"),
            (Told { sent: 9, recorded: 9, received: 9, upstream: Some(9), ..GOOD }, "only 9 requests"),
            (Told { open: 9, ..GOOD }, "only 9 of 10 streams were open"),
            (Told { opened: 9, ..GOOD }, "only 9 of 10 streams began"),
            (Told { samples: 0, ..GOOD }, "no event"),
            (Told { p99: 5001.0, ..GOOD }, "takes 5001 ms"),
            (Told { recorded: 11, ..GOOD }, "1 records are lost"),
            (Told { recorded: 11, received: 11, ..GOOD }, "1 records are lost"),
            (Told { recorded: 13, ..GOOD }, "1 records are one too many"),
            (Told { recorded: 13, received: 13, ..GOOD }, "1 records are one too many"),
        ] {
            let faults = told.judge(&PHASE);
            assert!(faults.iter().any(|fault| fault.contains(word)), "{faults:?} tell nothing of `{word}`");
        }
    }
}
