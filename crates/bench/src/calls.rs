//! System calls of a request and of an event, counted by `strace`: what the path of the data takes is not a matter of how
//! busy the machine is.

use std::fs;
use std::time::Duration;

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
/// A share of these belongs to start and end of the gateway, to a connection's beginning, to what was not counted whole.
const SPARE: f64 = 0.1;

/// One kind of load: its name, its flags, what is counted of it, and how many calls of data one of these takes.
const LOADS: &[(&str, &str, &str, f64)] = &[
    // In from the client, out to the upstream, and back.
    ("request", "--conns 1", "requests", 4.0),
    // In and out at once, alone: nothing waits for the next one, and nothing goes out in two pieces.
    ("event", "--conns 1 --events 400 --delay 5", "events", 2.0),
];

/// Counts, prints a table, and fails where there are more calls than there must be.
pub(crate) fn run(site: &Site) -> Result<(), Fault> {
    let places = site.places(None)?;
    let me = std::env::current_exe()?;
    let (_mock, address) = mock_unpinned(&me)?;
    let mut faults = Vec::new();
    println!("{:<10}{:>8}{:>8}{:>10}{:>8}", "one", "data", "at most", "interest", "all");
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
        println!("{name:<10}{data:>8.2}{most:>8.1}{interest:>10.2}{:>8.1}", each(&[]));
        // Less is no fault: on a busy machine two events are read at once.
        if data > most * (1.0 + SPARE) {
            faults.push(format!("one {name} takes {data:.2} calls for its data, and may take {most}"));
        }
        if interest > SPARE {
            faults.push(format!("one {name} changes {interest:.2} times what is waited for"));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("; ").into()) }
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
    use super::*;

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let with = line(" 13.25    0.001203           1      1012        12 recvfrom");
        assert_eq!(with, Some(("recvfrom".into(), 1012)));
        assert_eq!(line("  0.50    0.000003           1         3           writev"), Some(("writev".into(), 3)));
        assert_eq!(line("100.00    0.009080           1      7012        12 total"), None);
        assert_eq!(line("------ ----------- ----------- --------- --------- ----------------"), None);
    }
}
