//! Counts what the hot pieces of cco cost, in instructions and allocations, and compares with what is written down; and
//! the system calls of a request and an event. None of that depends on how busy the machine is.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{Fault, Places, shell};

/// What was counted when somebody last looked, a line a piece: name, instructions, allocations of one; behind
/// [`CALLS`], name, system calls for the data, all system calls of one.
const BASELINE: &str = "crates/bench/guard.txt";
/// What the names of loads begin with whose system calls are counted.
const CALLS: &str = "calls-";
/// All calls of a load: with those by which threads wait and wake each other, which depends on who is running just
/// then, and those of the start.
const MORE_CALLS: f64 = 1.30;
/// A piece may cost so much more than that before it is a failure.
const MORE: f64 = 1.10;
/// Allocations are few: less than this is no change.
const ALLOCATION: f64 = 0.05;
/// The pieces are done so often, and twice as often; what they share falls out of the difference.
const TIMES: u64 = 40;
const CALLS_LIMIT: Duration = Duration::from_secs(2 * 60);

/// What one piece costs.
#[derive(Debug, Clone, PartialEq)]
struct Cost {
    name: String,
    instructions: f64,
    allocations: f64,
}

/// System calls of a request or of an event.
#[derive(Debug, Clone, PartialEq)]
struct Calls {
    name: String,
    data: f64,
    all: f64,
}

/// `cargo xtask guard [--write]`
pub(crate) fn guard<'a>(mut words: impl Iterator<Item = &'a str>, usage: &str) -> Result<ExitCode, Fault> {
    let write = match words.next() {
        None => false,
        Some("--write") => true,
        Some(other) => return Err(format!("no option `{other}`\n\n{usage}")),
    };
    let places = Places::find()?;
    if write {
        let mut text: String = count(&places)?.iter().fold(String::new(), |mut text, cost| {
            let _ = writeln!(text, "{} {:.0} {:.2}", cost.name, cost.instructions, cost.allocations);
            text
        });
        let (calls, fault) = calls(&places)?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        for Calls { name, data, all } in calls {
            let _ = writeln!(text, "{CALLS}{name} {data:.2} {all:.2}");
        }
        std::fs::write(places.root.join(BASELINE), &text).map_err(|why| format!("`{BASELINE}`: {why}"))?;
        print!("{text}");
        return Ok(ExitCode::SUCCESS);
    }
    let faults = check(&places)?;
    faults.iter().for_each(|fault| println!("✗ {fault}"));
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Counts, prints the table, and says what costs too much.
pub(crate) fn check(places: &Places) -> Result<Vec<String>, Fault> {
    let text = std::fs::read_to_string(places.root.join(BASELINE)).map_err(|why| format!("`{BASELINE}`: {why}"))?;
    let (calls_known, known): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with(CALLS));
    let known = known.into_iter().map(line).collect::<Result<Vec<_>, _>>()?;
    let calls_known = calls_known.into_iter().map(calls_line).collect::<Result<Vec<_>, _>>()?;
    let counted = count(places)?;
    println!("{:<18}{:>14}{:>9}{:>12}", "one of", "instructions", "before", "allocations");
    for cost in &counted {
        let before = known.iter().find(|known| known.name == cost.name);
        let before = before.map_or("new".into(), |known| format!("{:+.1} %", change(cost, known)));
        println!("{:<18}{:>14.0}{before:>9}{:>12.2}", cost.name, cost.instructions, cost.allocations);
    }
    let mut faults = judge(&known, &counted);
    let (calls_counted, fault) = calls(places)?;
    println!("{:<18}{:>14}{:>9}{:>12}{:>9}", "calls of one", "for its data", "before", "all", "before");
    for now in &calls_counted {
        let before = calls_known.iter().find(|known| known.name == now.name);
        let before =
            before.map_or(["new".into(), "new".into()], |known| [known.data, known.all].map(|n| format!("{n:.2}")));
        println!("{:<18}{:>14.2}{:>9}{:>12.2}{:>9}", now.name, now.data, before[0], now.all, before[1]);
    }
    faults.extend(fault);
    faults.extend(judge_calls(&calls_known, &calls_counted));
    Ok(faults)
}

/// Counts the system calls of a request and of an event with the real program, and says what must not be, whatever they
/// were before.
fn calls(places: &Places) -> Result<(Vec<Calls>, Option<Fault>), Fault> {
    // How it is optimized makes no difference to what is counted here.
    shell::build(places, &["--package", "cco"])?;
    let mut run = Command::new(places.target.join("release/bench"));
    run.arg("calls").arg("--cco").arg(places.target.join("debug/cco")).arg("--out").arg(places.target.join("calls"));
    let ended = shell::run(&mut run, CALLS_LIMIT)?;
    let why = || ended.lines.iter().find_map(|line| line.strip_prefix("bench: ")).unwrap_or("`bench calls` failed");
    let fault = (!ended.status.success()).then(|| why().to_owned());
    Ok((ended.lines.iter().filter_map(|line| calls_row(line)).collect(), fault))
}

/// A row of the table that `bench calls` prints: name, calls for the data, changes of what is waited for, all calls,
/// delays.
fn calls_row(row: &str) -> Option<Calls> {
    let words: Vec<&str> = row.split_ascii_whitespace().collect();
    let [name, data, _, all, ..] = words[..] else { return None };
    Some(Calls { name: name.into(), data: data.parse().ok()?, all: all.parse().ok()? })
}

/// The same as the baseline has it.
fn calls_line(text: &str) -> Result<Calls, Fault> {
    let Cost { name, instructions: data, allocations: all } = line(text)?;
    Ok(Calls { name: name.trim_start_matches(CALLS).into(), data, all })
}

/// What takes more calls than it did, and what is not counted any more.
fn judge_calls(known: &[Calls], counted: &[Calls]) -> Vec<String> {
    let mut faults = Vec::new();
    for before in known {
        let Some(now) = counted.iter().find(|now| now.name == before.name) else {
            faults.push(format!("`{CALLS}{}` is in `{BASELINE}` and is not counted", before.name));
            continue;
        };
        for (of, was, is, more) in
            [("data", before.data, now.data, MORE), ("everything", before.all, now.all, MORE_CALLS)]
        {
            if is > was * more {
                faults.push(format!("one {} takes {is:.2} calls for {of}, and took {was:.2}", now.name));
            }
        }
    }
    for now in counted.iter().filter(|now| !known.iter().any(|known| known.name == now.name)) {
        faults.push(format!("`{CALLS}{}` is not in `{BASELINE}`: `cargo xtask guard --write`", now.name));
    }
    faults
}

fn change(now: &Cost, before: &Cost) -> f64 {
    (now.instructions / before.instructions - 1.0) * 100.0
}

/// What is dearer than it was, and what is not counted any more.
fn judge(known: &[Cost], counted: &[Cost]) -> Vec<String> {
    let mut faults = Vec::new();
    for before in known {
        let Some(now) = counted.iter().find(|now| now.name == before.name) else {
            faults.push(format!("`{}` is in `{BASELINE}` and is not counted", before.name));
            continue;
        };
        if now.instructions > before.instructions * MORE {
            faults.push(format!("`{}` takes {:+.1} % instructions", before.name, change(now, before)));
        }
        if now.allocations > before.allocations * MORE + ALLOCATION {
            let (name, was, now) = (&before.name, before.allocations, now.allocations);
            faults.push(format!("`{name}` takes {now:.2} allocations, and took {was:.2}"));
        }
    }
    for now in counted.iter().filter(|now| !known.iter().any(|known| known.name == now.name)) {
        faults.push(format!("`{}` is not in `{BASELINE}`: `cargo xtask guard --write`", now.name));
    }
    faults
}

fn line(line: &str) -> Result<Cost, Fault> {
    let mut words = line.split_ascii_whitespace();
    let wrong = || format!("`{BASELINE}` has a line that is not `name instructions allocations`: {line}");
    let number = |word: Option<&str>| word.and_then(|word| word.parse().ok()).ok_or_else(wrong);
    let name = words.next().ok_or_else(wrong)?.to_owned();
    Ok(Cost { name, instructions: number(words.next())?, allocations: number(words.next())? })
}

fn count(places: &Places) -> Result<Vec<Cost>, Fault> {
    shell::build(places, &["--release", "--package", "bench"])?;
    let bench = places.target.join("release/bench");
    let listed = Command::new(&bench).arg("count").output().map_err(|why| format!("cannot run `bench`: {why}"))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let scratch = places.target.join("guard");
    std::fs::create_dir_all(&scratch).map_err(|why| format!("`{}`: {why}", scratch.display()))?;
    let pieces = listed.lines().filter_map(|line| line.split_once(' '));
    pieces
        .map(|(name, things)| {
            let things: f64 = things.parse().map_err(|_| format!("`{name}` says not how many things it does"))?;
            let each = |tool: fn(&Path, &Path, &str, u64) -> Result<u64, Fault>| -> Result<f64, Fault> {
                let (once, twice) = (tool(&bench, &scratch, name, TIMES)?, tool(&bench, &scratch, name, 2 * TIMES)?);
                Ok(twice.saturating_sub(once) as f64 / TIMES as f64 / things)
            };
            Ok(Cost { name: name.into(), instructions: each(instructions)?, allocations: each(allocations)? })
        })
        .collect()
}

/// Instructions of a whole run.
fn instructions(bench: &Path, scratch: &Path, piece: &str, times: u64) -> Result<u64, Fault> {
    let out: PathBuf = scratch.join("callgrind.out");
    let mut run = Command::new("valgrind");
    run.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
    valgrind(run.arg(bench).args(["count", piece, "--times", &times.to_string()]), "Collected :")
}

/// Allocations of a whole run.
fn allocations(bench: &Path, _: &Path, piece: &str, times: u64) -> Result<u64, Fault> {
    let mut run = Command::new("valgrind");
    run.args(["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"]);
    valgrind(run.arg(bench).args(["count", piece, "--times", &times.to_string()]), "total heap usage:")
}

/// The first number behind these words in what valgrind says.
fn valgrind(run: &mut Command, words: &str) -> Result<u64, Fault> {
    let output = run.output().map_err(|why| format!("cannot run `valgrind`: {why}"))?;
    let ended = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("what is counted failed: {ended}"));
    }
    let number = ended.split_once(words).and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    let number = number.and_then(|number| number.replace(',', "").parse().ok());
    number.ok_or_else(|| format!("valgrind does not say `{words}`:\n{ended}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(name: &str, instructions: f64, allocations: f64) -> Cost {
        Cost { name: name.into(), instructions, allocations }
    }

    #[test]
    fn what_costs_more_than_a_tenth_more_is_told_and_less_is_not() {
        let known = [cost("a", 1000.0, 2.0), cost("b", 1000.0, 0.0)];
        assert_eq!(judge(&known, &[cost("a", 1099.0, 2.2), cost("b", 500.0, 0.01)]), Vec::<String>::new());
        let faults = judge(&known, &[cost("a", 1101.0, 2.0), cost("b", 1000.0, 1.0)]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(
            faults[0].contains("`a` takes +10.1 %") && faults[1].contains("`b` takes 1.00 allocations"),
            "{faults:?}"
        );
    }

    #[test]
    fn what_is_not_written_down_or_not_counted_is_told() {
        let faults = judge(&[cost("a", 1.0, 0.0)], &[cost("b", 1.0, 0.0)]);
        assert!(faults[0].contains("`a` is in") && faults[1].contains("`b` is not in"), "{faults:?}");
        assert!(line("a 1 2").is_ok() && line("a 1").is_err() && line("a x 2").is_err());
    }

    #[test]
    fn calls_have_a_margin_for_their_data_and_a_wider_one_for_all() {
        let calls = |data: f64, all: f64| Calls { name: "event".into(), data, all };
        let known = [calls_line("calls-event 2.00 10.00").unwrap()];
        assert_eq!(known, [calls(2.0, 10.0)]);
        assert_eq!(judge_calls(&known, &[calls(2.19, 12.9)]), Vec::<String>::new());
        let faults = judge_calls(&known, &[calls(2.3, 13.1)]);
        assert!(faults[0].contains("2.30 calls for data") && faults[1].contains("13.10 calls for every"), "{faults:?}");
        assert!(judge_calls(&known, &[])[0].contains("is not counted"));
        assert!(judge_calls(&[], &known)[0].contains("is not in"));
    }

    #[test]
    fn the_table_of_calls_is_read_and_its_head_is_not() {
        let row = calls_row("event         2.00      0.00    9.50      0.40      1.20");
        assert_eq!(row, Some(Calls { name: "event".into(), data: 2.0, all: 9.5 }));
        assert_eq!(calls_row("one           data  interest     all delay p50    p99 ms"), None);
        assert_eq!(calls_row("bench: one event takes 3 calls"), None);
    }
}
