//! Minutes of what is hard to bear, on one gateway: a thousand slow streams, thousands of idle ones in waves, readers that
//! never read, large bodies, an upstream that dies. What it keeps is looked at after each; what it recorded, at the end.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{fs, io};

use io::{Read as _, Write as _};
use serde_json::{Value, json};

use crate::Fault;
use crate::process::{Running, poll, used};
use crate::run::{mock_unpinned, sent};
use crate::subject::{Places, Site, Subject, start};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    site: Site,
    /// Seconds of each of the seven phases
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Idle streams of a wave
    #[arg(long, default_value_t = 9000)]
    idle: usize,
    /// Slow streams at once
    #[arg(long, default_value_t = 1000)]
    slow: usize,
}

/// A wave may leave so much more than the first one did.
const GROWTH: f64 = 1.15;
/// How long what a phase leaves behind may take to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Memory that does not fall for so long has settled.
const STILL: Duration = Duration::from_secs(8);
/// Connections that stay open for the next request, listeners, files.
const SPARE: usize = 200;

/// Runs all phases, prints a line for each, and fails where something was lost, doubled or kept.
pub(crate) fn run(options: &Options) -> Result<(), Fault> {
    let places = options.site.places(None)?;
    let _ = fs::remove_dir_all(places.home());
    let me = std::env::current_exe()?;
    let (mock, address) = mock_unpinned(&me)?;
    let gateway = start(Subject::Soaked, &places, address, "")?;
    let pid = gateway.process.as_ref().map(Running::pid).ok_or("there is no process to look at")?;
    let soak = Soak { me, pid, target: gateway.address };
    let (slow, idle) = (options.slow.to_string(), options.idle.to_string());
    let mut faults = Vec::new();
    let before = soak.settled(usize::MAX, &mut faults);
    let mut told = vec![("at the beginning", json!({}), before.clone())];
    let mut phase = |name: &'static str, flags: &[&str], faults: &mut Vec<String>| -> Result<Kept, Fault> {
        let seen = sent(&soak.me, soak.target, flags.iter().copied(), Duration::from_secs(options.seconds))?;
        let kept = soak.settled(before.descriptors + SPARE, faults);
        println!("{}", line(name, &seen, &kept));
        told.push((name, seen, kept.clone()));
        Ok(kept)
    };
    println!(
        "{:<22}{:>9}{:>9}{:>8}{:>12}{:>10}{:>10}{:>12}",
        "phase", "sent", "whole", "errors", "delay p99", "RSS MB", "files", "sockets MB"
    );
    phase("slow streams", &["--conns", &slow, "--events", "40", "--delay", "250", "--ramp", "3000"], &mut faults)?;
    let mut waves = Vec::new();
    for name in ["idle wave 1", "idle wave 2", "idle wave 3"] {
        waves.push(phase(name, &wave(&idle), &mut faults)?.rss);
    }
    if waves.iter().any(|rss| *rss as f64 > waves[0] as f64 * GROWTH) {
        faults.push(format!("memory grows from wave to wave: {waves:?} KiB"));
    }
    phase(
        "readers that stall",
        &["--conns", "250", "--stalled", "200", "--events", "100", "--delay", "20"],
        &mut faults,
    )?;
    phase("bodies of 20 MB", &["--conns", "64", "--body", "20000000"], &mut faults)?;
    // The upstream dies in the middle, and another one listens where it did.
    let port = address;
    let died = std::thread::spawn({
        let (wait, me) = (Duration::from_secs(options.seconds / 2), soak.me.clone());
        move || -> Result<Running, String> {
            std::thread::sleep(wait);
            drop(mock);
            let command = [me.to_string_lossy().into_owned(), "mock".into(), "--listen".into(), port.to_string()];
            Running::start(&command, None, Stdio::inherit()).map_err(|why| why.to_string())
        }
    });
    phase("upstream dies", &["--conns", "200", "--events", "50", "--delay", "20"], &mut faults)?;
    let _mock = died.join().map_err(|_| "the thread that ends the upstream failed")??;
    let (sent, whole) = told.iter().fold((1, 1), |(sent, whole), (_, seen, _)| {
        let n = |name: &str| seen[name].as_u64().unwrap_or(0);
        (sent + n("sent"), whole + n("whole"))
    });
    let recorded = soak.recorded()?;
    println!("sent {sent}, answered whole {whole}, recorded {recorded}");
    if recorded < whole {
        faults.push(format!("{} records are lost", whole - recorded));
    }
    if recorded > sent {
        faults.push(format!("{} records are one too many", recorded - sent));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}

/// The load of so many streams that say something every half minute.
const fn wave(streams: &str) -> [&str; 8] {
    ["--conns", streams, "--events", "3", "--delay", "30000", "--ramp", "6000"]
}

/// What a gateway keeps after each of three waves of idle streams, for the table of the bench.
pub(crate) fn waves(me: &Path, places: &Places, mock: SocketAddr) -> Result<Value, Fault> {
    let gateway = start(Subject::Soaked, places, mock, "")?;
    let pid = gateway.process.as_ref().map(Running::pid).ok_or("there is no process to look at")?;
    let soak = Soak { me: me.to_owned(), pid, target: gateway.address };
    let (mut faults, mut rss) = (Vec::new(), Vec::new());
    let most = soak.settled(usize::MAX, &mut faults).descriptors + SPARE;
    for _ in 0..3 {
        let seen = sent(me, soak.target, wave("9000").into_iter(), Duration::from_secs(12))?;
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

fn line(name: &str, seen: &Value, kept: &Kept) -> String {
    let n = |name: &str| seen[name].as_u64().unwrap_or(0);
    format!(
        "{name:<22}{:>9}{:>9}{:>8}{:>9.1} ms{:>10.1}{:>10}{:>12.1}",
        n("sent"),
        n("whole"),
        n("errors"),
        seen["delay_us"]["p99"].as_f64().unwrap_or(0.0) / 1000.0,
        kept.rss as f64 / 1024.0,
        kept.descriptors,
        kept.sockets as f64 / 1024.0
    )
}

/// What a gateway holds when nobody asks for anything.
#[derive(Debug, Clone)]
struct Kept {
    /// Resident memory, in KiB.
    rss: u64,
    descriptors: usize,
    /// Memory of all TCP sockets of the machine, in KiB.
    sockets: u64,
}

struct Soak {
    me: PathBuf,
    pid: u32,
    target: SocketAddr,
}

impl Soak {
    /// What is kept once the streams of a phase are gone: waits until no more than `most` descriptors are open.
    fn settled(&self, most: usize, faults: &mut Vec<String>) -> Kept {
        let open = || fs::read_dir(Path::new("/proc").join(self.pid.to_string()).join("fd")).map_or(0, Iterator::count);
        poll(PATIENCE, Duration::from_millis(100), || (open() <= most).then_some(()));
        let descriptors = open();
        if descriptors > most {
            faults.push(format!("{descriptors} descriptors are still open, more than {most}"));
        }
        // What is free goes back to the system within seconds.
        let mut rss = u64::MAX;
        poll(PATIENCE, STILL, || {
            let before = std::mem::replace(&mut rss, used(self.pid).rss);
            (rss as f64 > before as f64 * 0.98).then_some(())
        });
        Kept { rss, descriptors, sockets: sockets() }
    }

    /// Records of all outcomes, as the gateway itself counts them once everything is loaded.
    fn recorded(&self) -> Result<u64, Fault> {
        let mut last = None;
        // Whoever was interrupted is recorded a moment later.
        let same = poll(PATIENCE, Duration::from_secs(2), || match self.counted() {
            Ok(count) => (last.replace(count) == Some(count)).then_some(Ok(count)),
            Err(why) => Some(Err(why)),
        });
        same.unwrap_or_else(|| Err(format!("the records do not come to rest, lately {last:?}").into()))
    }

    /// Records of all outcomes as the gateway counts them now.
    fn counted(&self) -> Result<u64, Fault> {
        let mut stream = TcpStream::connect(self.target)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET /gateway/metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.target)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        let all: Value = serde_json::from_str(body)?;
        Ok(all["summary"]["total_requests"].as_u64().ok_or("the metrics tell no `total_requests`")?)
    }
}

/// Memory of TCP sockets, in KiB.
fn sockets() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1).and_then(|n| n.parse().ok());
    pages.map_or(0, |pages: u64| pages * rustix::param::page_size() as u64 / 1024)
}
