//! System calls of a request and of an event, counted by `strace`: what the path of the data takes is not a matter of
//! how busy the machine is. And whether events wait for each other on their way, as they do where Nagle's algorithm is
//! on.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::Fault;
use crate::process::poll;
use crate::run::{mock_unpinned, sent};
use crate::subject::{Places, Site, Subject, start};

/// Calls that carry bytes of a client or an upstream.
const DATA: &[&str] = &["recvfrom", "recvmsg", "sendto", "sendmsg", "writev", "readv"];
/// Calls that say for which sockets to wait.
const INTEREST: &[&str] = &["epoll_ctl"];
/// So long each.
const TIME: Duration = Duration::from_secs(3);
/// A share of these belongs to start and end of the gateway, to a connection's beginning, to what was not counted
/// whole.
const SPARE: f64 = 0.1;
/// With less than this share of the calls that are expected, events went out together, or the calls have other names.
const LEAST: f64 = 0.8;
/// Milliseconds that an event may take through the gateway, at the median and at 99 of 100. Where Nagle's algorithm
/// holds it, or we do, it waits for an acknowledgement that the other side delays by 40 ms; a gateway under strace, on
/// a machine that is busy, stays far below both. This is a bound on what is right, not on speed.
const HELD: (f64, f64) = (5.0, 35.0);

/// One kind of load: its name, its flags, what is counted of it, and how many calls of data one of these takes.
const LOADS: &[(&str, &str, &str, f64)] = &[
    // In from the client, out to the upstream, and back.
    ("request", "--conns 1", "requests", 4.0),
    // In and out at once, alone: nothing waits for the next one, and nothing goes out in two pieces.
    ("event", "--conns 1 --events 400 --delay 5", "events", 2.0),
];

/// Counts, prints a table (`cargo xtask guard` reads the numbers), and fails where there are more calls than there must
/// be, or fewer than there can be.
pub(crate) fn run(site: &Site) -> Result<(), Fault> {
    let places = site.places(None)?;
    let me = std::env::current_exe()?;
    let (_mock, address) = mock_unpinned(&me)?;
    let mut faults = Vec::new();
    println!("{:<10}{:>8}{:>10}{:>8}{:>10}{:>10}", "one", "data", "interest", "all", "delay p50", "p99 ms");
    for (name, flags, of, most) in LOADS {
        let _ = fs::remove_file(places.calls());
        let gateway = start(Subject::Traced, &places, address, "")?;
        let row = sent(&me, gateway.address, flags.split_ascii_whitespace(), TIME)?;
        drop(gateway);
        let n = row[of].as_f64().filter(|n| *n > 100.0).ok_or_else(|| format!("too few were answered: {row}"))?;
        let calls = counted(&places)?;
        let each = |names: &[&str]| {
            let these = calls.iter().filter(|(name, _)| names.is_empty() || names.contains(&name.as_str()));
            these.map(|(_, n)| *n).sum::<u64>() as f64 / n
        };
        let (data, interest) = (each(DATA), each(INTEREST));
        let delay = ["p50", "p99"].map(|at| row["delay_us"][at].as_f64().unwrap_or(0.0) / 1000.0);
        println!("{name:<10}{data:>8.2}{interest:>10.2}{:>8.2}{:>10.2}{:>10.2}", each(&[]), delay[0], delay[1]);
        faults.extend(judge(name, *most, data, interest));
        faults.extend(held(&row));
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
}

/// What is wrong with the calls of one of these.
fn judge(name: &str, most: f64, data: f64, interest: f64) -> Vec<String> {
    let mut faults = Vec::new();
    if data > most * (1.0 + SPARE) {
        faults.push(format!("one {name} takes {data:.2} calls for its data, and may take {most}"));
    }
    if data < most * LEAST {
        faults.push(format!(
            "one {name} takes {data:.2} calls for its data, where {most} are expected: what is counted?"
        ));
    }
    if interest > SPARE {
        faults.push(format!("one {name} changes {interest:.2} times what is waited for"));
    }
    faults
}

/// Whether events were held back; a load without events has none.
fn held(row: &Value) -> Option<String> {
    let ms = |at: &str| row["delay_us"][at].as_f64().unwrap_or(f64::MAX) / 1000.0;
    let (half, most) = (ms("p50"), ms("p99"));
    let is_held = row["delay_us"]["samples"].as_u64() != Some(0) && (half > HELD.0 || most >= HELD.1);
    is_held.then(|| format!("events are held back: they take {half:.1} ms, and one of a hundred {most:.1} ms"))
}

/// Names and numbers of all calls, once the process that counts has written them.
fn counted(places: &Places) -> Result<Vec<(String, u64)>, Fault> {
    let text = poll(Duration::from_secs(20), Duration::from_millis(20), || {
        let text = fs::read_to_string(places.calls()).ok()?;
        text.trim_end().ends_with("total").then_some(text)
    });
    let text = text.ok_or("`strace` has written no summary: may it trace here?")?;
    Ok(text.lines().filter_map(line).collect())
}

/// A line of the summary: share, seconds, microseconds a call, calls, errors where there were any, name.
fn line(line: &str) -> Option<(String, u64)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let name = words.last().filter(|name| **name != "total")?;
    Some(((*name).to_owned(), words.get(3)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn calls_that_are_too_many_or_cannot_be_all_are_told() {
        assert_eq!(judge("event", 2.0, 2.1, 0.0), Vec::<String>::new());
        assert!(judge("event", 2.0, 2.3, 0.0)[0].contains("may take 2"));
        assert!(judge("event", 2.0, 1.5, 0.0)[0].contains("are expected"));
        assert!(judge("event", 2.0, 2.0, 1.0)[0].contains("waited for"));
    }

    #[test]
    fn events_that_wait_for_an_acknowledgement_are_told() {
        let row = |p50: f64, p99: f64, n: u64| json!({"delay_us": {"p50": p50, "p99": p99, "samples": n}});
        assert_eq!(held(&row(400.0, 9000.0, 600)), None);
        assert_eq!(held(&row(0.0, 0.0, 0)), None);
        assert!(held(&row(20_000.0, 21_000.0, 600)).is_some());
        assert!(held(&row(400.0, 40_000.0, 600)).is_some());
        assert!(held(&json!({})).is_some());
    }

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let with = line(" 13.25    0.001203           1      1012        12 recvfrom");
        assert_eq!(with, Some(("recvfrom".into(), 1012)));
        assert_eq!(line("  0.50    0.000003           1         3           writev"), Some(("writev".into(), 3)));
        assert_eq!(line("100.00    0.009080           1      7012        12 total"), None);
        assert_eq!(line("------ ----------- ----------- --------- --------- ----------------"), None);
    }
}
