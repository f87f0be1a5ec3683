//! The runner: starts mock, gateways and load, in interleaved rounds, and says when the machine was not quiet.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::Fault;
use crate::process::{Running, used};
use crate::records;
use crate::rows::{ALONE, LOADS, Load};
use crate::soak;
use crate::subject::{Peers, Places, Site, Subject, bodies, ensure_nginx, start};
use crate::table::{CANNOT_JUDGE, NOT_MEASURED, table};

/// The core of mock and load, and that of the gateway under test.
const THEIRS: &str = "0";
const OURS: &str = "1";
/// Share of the machine that other programs may take before a measurement is repeated.
const FOREIGN: f64 = 0.08;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    site: Site,
    /// Interleaved rounds [default: 3, quick: 1]
    #[arg(long)]
    rounds: Option<u64>,
    /// About a minute, for a first look
    #[arg(long)]
    quick: bool,
    /// Measure nothing: the options are looked at
    #[arg(long, hide = true)]
    only_look: bool,
    /// Only these loads
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(names()))]
    only: Vec<String>,
    #[command(flatten)]
    peers: Peers,
    /// How often a measurement is repeated at most while other programs use the machine
    #[arg(long, default_value_t = 4)]
    patience: u32,
}

/// Everything that can be asked for by its name.
fn names() -> impl Iterator<Item = &'static str> {
    LOADS.iter().map(|load| load.name).chain(ALONE).chain(records::NAMES)
}

/// Measures, prints the table and writes all of it as JSON.
pub(crate) fn run(options: &Options) -> Result<(), Fault> {
    if options.only_look {
        return Ok(());
    }
    let places = options.site.places(Some(options.peers.clone()))?;
    let nginx = ensure_nginx();
    match &nginx {
        Ok(version) => println!("{version}"),
        Err(why) => println!("nginx: not run: {why}"),
    }
    let version = Command::new(&places.cco).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    println!("{version}, release build, log to a file");
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let me = std::env::current_exe()?;
    let (pinned, free) = (mock(&me, Some(THEIRS), None)?, mock_unpinned(&me)?);
    let secure = mock(&me, Some(THEIRS), Some(&places.certificate()))?;
    let wanted = |wanted: &str| options.only.is_empty() || options.only.iter().any(|name| name == wanted);
    let mut rows = Vec::new();
    for round in 0..rounds {
        for load in LOADS.iter().filter(|load| wanted(load.name)) {
            for subject in load.subjects.iter().copied() {
                if subject.is_peer() && places.peers.folder(subject).is_none() {
                    continue;
                }
                let (mock, address) = match subject {
                    _ if subject.is_tls() => &secure,
                    _ if subject.is_pinned() => &pinned,
                    _ => &free,
                };
                let (mock, address) = (mock, *address);
                let (quick, patience) = (options.quick, options.patience);
                let bench = Bench { me: &me, quick, patience, places: &places, mock, address };
                let measured = match &nginx {
                    Err(why) if subject.is_nginx() => Err(why.as_str().into()),
                    _ => bench.measured(load, subject),
                };
                let mut row = kept(measured, load.name, subject.name());
                row["round"] = round.into();
                if row["not_run"].is_null() {
                    println!("{}", in_short(&row));
                }
                rows.push(row);
            }
        }
        let [waits, waves] = ALONE;
        if wanted(waits) {
            let mut row = kept(records::waits(&places), waits, Subject::Cco.name());
            row["round"] = round.into();
            rows.push(row);
        }
        // Minutes, and no round is unlike another.
        if round == 0 && wanted(waves) && !options.quick {
            let mut row = kept(soak::waves(&me, &places, free.1), waves, Subject::Cco.name());
            row["round"] = round.into();
            rows.push(row);
        }
    }
    let (mut of_records, [journal, queries]) = (Vec::new(), records::NAMES);
    if wanted(journal) {
        of_records.push(kept(records::journal(&places), journal, Subject::Cco.name()));
    }
    if wanted(queries) {
        match records::queries(&places, options.quick) {
            Ok(rows) => of_records.extend(rows),
            why => of_records.push(kept(why.map(Value::from), queries, Subject::Cco.name())),
        }
    }
    let (text, data) = table(&rows);
    println!("\n{text}");
    let disturbed = rows.iter().filter(|row| row["foreign"].as_f64().is_some_and(|n| n > FOREIGN)).count();
    if disturbed > 0 {
        println!(
            "In {disturbed} of {} measurements other programs took more than {:.0} % of the machine, also when repeated.",
            rows.len(),
            FOREIGN * 100.0
        );
    }
    let noisy = named(&data, CANNOT_JUDGE);
    if !noisy.is_empty() {
        println!("{CANNOT_JUDGE}, since equals differed too much: {}", noisy.join("; "));
    }
    for row in rows.iter().filter(|row| row["bodies"].is_object()) {
        let bodies = &row["bodies"];
        println!(
            "{}, round {}: bodies kept {}, skipped {}",
            row["load"], row["round"], bodies["kept"], bodies["skipped"]
        );
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let all = json!({
        "unix_time": now,
        "machine": machine(),
        "cco": version,
        "nginx": nginx.unwrap_or_else(|why| why),
        "rounds": rounds,
        "quick": options.quick,
        "only": options.only,
        "table": data,
        "text": text,
        "rows": rows,
        "records": of_records,
    });
    let file = options.site.out.join(format!("bench-{now}.json"));
    fs::write(&file, serde_json::to_string_pretty(&all)?)?;
    println!("all figures: {}", file.display());
    // Everything is measured and written first; whoever runs this in a script learns of it all the same.
    let mut missed =
        missed(all["rows"].as_array().map_or(&[], Vec::as_slice), all["records"].as_array().map_or(&[], Vec::as_slice));
    missed.extend(named(&all["table"], NOT_MEASURED).iter().map(|title| format!("{title}: {NOT_MEASURED}")));
    if missed.is_empty() { Ok(()) } else { Err(missed.join("\n").into()) }
}

/// What was measured, or the row that says why it was not: the rest is measured all the same.
fn kept(measured: Result<Value, Fault>, load: &str, subject: &str) -> Value {
    measured.unwrap_or_else(|why| {
        println!("{load:>8} {subject:<20} not run: {why}");
        json!({ "load": load, "subject": subject, "not_run": why.to_string() })
    })
}

/// The figures of which the table says this.
fn named<'a>(table: &'a Value, verdict: &str) -> Vec<&'a str> {
    let lines = table.as_array().into_iter().flatten().filter(|line| line["verdict"] == verdict);
    lines.filter_map(|line| line["figure"].as_str()).collect()
}

/// Why what was measured cannot count.
fn fault(row: &Value) -> Option<String> {
    if let Some(why) = row["not_run"].as_str() {
        return Some(format!("{}, {}, round {}: not run: {why}", row["load"], row["subject"], row["round"]));
    }
    // Only loads have requests; starts and waits have values or fail.
    let n = |name: &str| row[name].as_u64();
    let requests = n("requests")?;
    let is_watched = row["subject"] != Subject::Direct.name();
    let why = match (n("errors"), n("incomplete")) {
        (Some(errors @ 1..), _) => format!("{errors} errors, the first one: {}", row["first_error"]),
        (_, Some(incomplete @ 1..)) => format!("{incomplete} streams were incomplete"),
        _ if requests + n("events").unwrap_or(0) == 0 => "nothing was answered".to_owned(),
        _ if is_watched && !row["cpu_us"].as_f64().is_some_and(|n| n > 0.0) => {
            "a watched process has ended, or used no CPU".to_owned()
        }
        _ => return None,
    };
    Some(format!("{}, {}, round {}: {why}", row["load"], row["subject"], row["round"]))
}

/// What is not as it must be: bodies that were not kept, records that were refused, questions that took too long.
fn missed(rows: &[Value], of_records: &[Value]) -> Vec<String> {
    let skipped = rows.iter().filter_map(|row| {
        let skipped = &row["bodies"]["skipped"];
        let all_kept = skipped.is_null() || skipped.as_u64() == Some(0);
        (!all_kept).then(|| format!("{}, round {}: {skipped} bodies were skipped", row["load"], row["round"]))
    });
    let of_records = of_records.iter().filter_map(|row| {
        if let Some(why) = row["not_run"].as_str() {
            return Some(format!("{}: not run: {why}", row["load"]));
        }
        if let Some(refused @ 1..) = row["refused"].as_u64() {
            return Some(format!("journal: {refused} records were refused"));
        }
        let (ms, limit) = (row["ms"].as_f64()?, row["limit_ms"].as_f64()?);
        (ms > limit).then(|| {
            format!("`cco {}` took {ms:.0} ms, the limit is {limit:.0} ms", row["command"].as_str().unwrap_or_default())
        })
    });
    rows.iter().filter_map(fault).chain(skipped).chain(of_records).collect()
}

/// Starts a mock; its address is the first line that it prints.
fn mock(
    me: &std::path::Path,
    core: Option<&str>,
    tls: Option<&std::path::Path>,
) -> Result<(Running, SocketAddr), Fault> {
    let mut command = vec![me.to_string_lossy().into_owned(), "mock".into()];
    command.extend(tls.iter().flat_map(|file| ["--tls".into(), file.to_string_lossy().into_owned()]));
    let mut running = Running::start(&command, core, Stdio::inherit())?;
    let mut line = String::new();
    let out = running.0.stdout.take().ok_or("the mock has no stdout")?;
    BufReader::new(out).read_line(&mut line)?;
    Ok((running, line.trim().parse()?))
}

pub(crate) fn mock_unpinned(me: &std::path::Path) -> Result<(Running, SocketAddr), Fault> {
    mock(me, None, None)
}

/// Loads a gateway that counts which of its ways are taken with all that is measured, each for a moment.
pub(crate) fn train(site: &Site) -> Result<(), Fault> {
    let places = site.places(None)?;
    let me = std::env::current_exe()?;
    let plain = mock(&me, None, None)?;
    let secure = mock(&me, None, Some(&places.certificate()))?;
    for load in LOADS {
        let Some(flags) = load.flags else { continue };
        for subject in load.subjects.iter().copied().filter(|subject| subject.is_trained()) {
            let (mock, address) = if subject.is_tls() { &secure } else { &plain };
            let bench = Bench { me: &me, quick: true, patience: 0, places: &places, mock, address: *address };
            let row = bench.loaded(load, flags, subject)?;
            println!("{:>10} {}: {} requests", load.name, subject.name(), row["requests"]);
            if row["requests"].as_u64() == Some(0) && row["events"].as_u64() == Some(0) {
                return Err(format!("nothing was answered: {}", row["first_error"]).into());
            }
        }
    }
    Ok(())
}

/// One run of the load generator, of which all counts.
pub(crate) fn sent<'a>(
    me: &std::path::Path,
    target: SocketAddr,
    flags: impl Iterator<Item = &'a str>,
    time: Duration,
) -> Result<Value, Fault> {
    let mut command = vec![me.to_string_lossy().into_owned(), "load".into(), "--target".into(), target.to_string()];
    command.extend(["--warmup".into(), "0".into(), "--time".into(), time.as_millis().to_string()]);
    command.extend(flags.map(str::to_owned));
    printed(&command, None)
}

/// What a load generator prints when it is done.
fn printed(command: &[String], core: Option<&str>) -> Result<Value, Fault> {
    let mut running = Running::start(command, core, Stdio::inherit())?;
    let out = running.0.stdout.take().ok_or("the load generator has no stdout")?;
    let text = std::io::read_to_string(out)?;
    let status = running.0.wait()?;
    if !status.success() {
        return Err(format!("`{}` failed: {status}", command.join(" ")).into());
    }
    Ok(serde_json::from_str(&text)?)
}

struct Bench<'a> {
    me: &'a std::path::Path,
    quick: bool,
    patience: u32,
    places: &'a Places,
    mock: &'a Running,
    address: SocketAddr,
}

impl Bench<'_> {
    /// One measurement, repeated while others disturb it; of all that were, the quietest.
    fn measured(&self, load: &Load, subject: Subject) -> Result<Value, Fault> {
        let mut best: Option<Value> = None;
        let noise = |row: &Value| row["foreign"].as_f64().unwrap_or(0.0);
        for attempt in 0..=self.patience {
            let mut row = match load.flags {
                Some(flags) => self.loaded(load, flags, subject)?,
                None => self.started(subject)?,
            };
            row["load"] = load.name.into();
            row["subject"] = subject.name().into();
            row["attempts"] = (attempt + 1).into();
            if best.as_ref().is_none_or(|best| noise(&row) < noise(best)) {
                best = Some(row);
            }
            if best.as_ref().is_some_and(|best| noise(best) <= FOREIGN) {
                break;
            }
        }
        best.ok_or_else(|| "nothing was measured".into())
    }

    fn loaded(&self, load: &Load, flags: &str, subject: Subject) -> Result<Value, Fault> {
        // What the loads before have left to be loaded into the store is not what this one costs.
        let _ = fs::remove_dir_all(self.places.home());
        let gateway = start(subject, self.places, self.address, OURS)?;
        let (warmup, time) = if self.quick { (300, 900) } else { (700, 3000) };
        let mut command = vec![self.me.to_string_lossy().into_owned(), "load".into()];
        command.extend(["--target".into(), gateway.address.to_string(), "--also".into(), self.mock.pid().to_string()]);
        command.extend(flags.split_ascii_whitespace().map(String::from));
        command.extend(subject.headers(self.address).into_iter().flat_map(|header| ["--header".into(), header]));
        command.extend(["--warmup".into(), load.warmup.max(warmup).to_string(), "--time".into(), time.to_string()]);
        if let Some(process) = &gateway.process {
            command.extend(["--watch".into(), process.pid().to_string()]);
        }
        let mut row = printed(&command, subject.is_pinned().then_some(THEIRS))
            .map_err(|why| format!("{}, {}: {why}", subject.name(), load.what))?;
        if subject == Subject::CcoBodies {
            row["bodies"] = bodies(gateway.address)?;
        }
        Ok(row)
    }

    /// Several starts, and the memory of what then waits.
    fn started(&self, subject: Subject) -> Result<Value, Fault> {
        let mut took = Vec::new();
        let mut idle = 0;
        for _ in 0..5 {
            let gateway = start(subject, self.places, self.address, OURS)?;
            took.push(gateway.started_in.as_secs_f64() * 1e3);
            // What is measured is a gateway that has nothing to do; that it has begun to wait, nothing tells.
            std::thread::sleep(Duration::from_millis(50));
            idle = gateway.process.as_ref().map_or(0, |process| used(process.pid()).rss);
        }
        took.sort_by(f64::total_cmp);
        Ok(json!({ "start_ms": took[took.len() / 2], "idle_kb": idle }))
    }
}

fn in_short(row: &Value) -> String {
    let n = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut text = format!("{:>8} {:<20}", row["load"].as_str().unwrap_or(""), row["subject"].as_str().unwrap_or(""));
    if row["start_ms"].is_number() {
        return text + &format!(" start {:.1} ms, idle {:.1} MB", n(&row["start_ms"]), n(&row["idle_kb"]) / 1024.0);
    }
    let seconds = n(&row["seconds"]).max(0.001);
    text += &format!(
        " {:>7.0} requests/s, p50 {:>7.1} µs, p99 {:>8.1} µs",
        n(&row["requests"]) / seconds,
        n(&row["latency_us"]["p50"]),
        n(&row["latency_us"]["p99"])
    );
    if n(&row["events"]) > 0.0 {
        let delay = &row["delay_us"];
        text += &format!(
            ", {:>7.0} events/s, delay p50 {:.0} µs, p99 {:.0} µs",
            n(&row["events"]) / seconds,
            n(&delay["p50"]),
            n(&delay["p99"])
        );
    }
    if row["subject"] != "direct" {
        text += &format!(
            ", {:.0} % of a core ({:.0} % of it user), {:.1} MB",
            n(&row["cpu_us"]) / seconds / 1e4,
            n(&row["user_share"]) * 100.0,
            n(&row["rss_kb"]["peak"]) / 1024.0
        );
    }
    text + &format!(", foreign {:.0} %", n(&row["foreign"]) * 100.0)
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let models: Vec<&str> = info
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()))
        .collect();
    json!({ "cpu": models.first(), "cores": models.len(), "kernel": read("/proc/sys/kernel/osrelease").trim() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_ended_or_failed_is_missed_by_its_name() {
        let row = |cpu: Value, requests: u64, errors: u64, incomplete: u64| {
            json!({ "load": "small", "subject": "cco", "round": 2, "cpu_us": cpu, "requests": requests, "events": 0,
                    "errors": errors, "incomplete": incomplete, "first_error": "refused" })
        };
        assert_eq!(missed(&[row(json!(5.0), 9, 0, 0)], &[]), [""; 0]);
        for (bad, why) in [
            (row(json!(5.0), 9, 1, 0), "1 errors"),
            (row(json!(5.0), 9, 0, 3), "3 streams"),
            (row(json!(5.0), 0, 0, 0), "nothing was answered"),
            (row(json!(0.0), 9, 0, 0), "has ended"),
            (row(Value::Null, 9, 0, 0), "has ended"),
        ] {
            let missed = missed(&[bad], &[]);
            assert!(missed[0].starts_with("\"small\", \"cco\", round 2: ") && missed[0].contains(why), "{missed:?}");
        }
        let mut direct = row(json!(0.0), 9, 0, 0);
        direct["subject"] = "direct".into();
        assert_eq!(fault(&direct), None);
    }

    #[test]
    fn what_did_not_start_is_a_row_and_is_missed() {
        let mut row = kept(Err("it does not answer".into()), "small", "Portkey");
        row["round"] = 0.into();
        let missed = missed(&[row.clone()], &[kept(Err("no room".into()), "journal", "cco")]);
        assert_eq!(
            missed,
            [r#""small", "Portkey", round 0: not run: it does not answer"#, r#""journal": not run: no room"#]
        );
        assert_eq!(table(&[row]).1.as_array().map(Vec::len), Some(4), "three of ours, and that one");
    }

    #[test]
    fn what_was_skipped_or_took_too_long_is_missed_and_nothing_else() {
        let row =
            |skipped: Value| json!({ "load": "archive", "round": 1, "bodies": { "kept": 4, "skipped": skipped } });
        let query = |ms: f64, limit: Option<f64>| json!({ "command": "costs --by day", "ms": ms, "limit_ms": limit });
        let good = [json!({ "load": "small", "bodies": null }), row(json!(0))];
        assert!(missed(&good, &[query(999.0, Some(1000.0)), query(5000.0, None), json!({ "refused": 0 })]).is_empty());
        let bad = missed(&[row(json!(3))], &[query(1001.0, Some(1000.0)), json!({ "refused": 2 })]);
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(
            bad[0].contains("3 bodies were skipped") && bad[1].contains("`cco costs --by day` took 1001 ms"),
            "{bad:?}"
        );
    }
}
