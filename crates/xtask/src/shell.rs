//! Runs one command: shows its output as it comes, keeps it, and ends the command when its time is up.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Fault, Places};

/// A build of everything on a small machine, with all that makes a program smaller and faster.
const BUILD_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Of more lines than this the first are shown but not kept.
const KEPT_LINES: usize = 200_000;

/// What a command said before it ended by itself.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<String>,
}

/// Lines that are repeated where a command failed, and how much of each.
const LAST_LINES: usize = 20;
const LAST_CHARS: usize = 2000;

impl Ended {
    /// Why it failed, and behind that what it said last: whoever sees the end of a long log alone must see the cause.
    pub(crate) fn failed(&self, why: impl std::fmt::Display) -> Fault {
        let said: Vec<&String> = self.lines.iter().filter(|line| !line.trim().is_empty()).collect();
        said[said.len().saturating_sub(LAST_LINES)..]
            .iter()
            .fold(why.to_string(), |told, line| told + "\n  " + &line.chars().take(LAST_CHARS).collect::<String>())
    }
}

/// The cargo that runs us, or the one in the path.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    if std::env::var_os("CARGO_BUILD_JOBS").is_none() {
        cargo.env("CARGO_BUILD_JOBS", "2");
    }
    cargo
}

/// Has cargo build what these words say, locked.
pub(crate) fn build(places: &Places, words: &[&str]) -> Result<(), Fault> {
    build_with(places, words, |_| {})
}

/// The same, with what else cargo is to know.
pub(crate) fn build_with(places: &Places, words: &[&str], more: impl FnOnce(&mut Command)) -> Result<(), Fault> {
    let mut build = cargo();
    build.args(["build", "--locked"]).args(words).current_dir(&places.root);
    more(&mut build);
    if run(&mut build, BUILD_LIMIT)?.status.success() {
        Ok(())
    } else {
        Err(format!("`cargo build {}` failed", words.join(" ")))
    }
}

/// What a program that succeeds says on its standard output.
pub(crate) fn told(command: &mut Command) -> Result<String, Fault> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|why| format!("cannot run `{name}`: {why}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(format!("`{name}` failed: {}", String::from_utf8_lossy(&out.stderr).trim()))
    }
}

/// Whether `program` can be run here at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` to its end, or kills it after `limit`.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Ended, Fault> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run `{name}`: {e}"))?;
    let result = follow(&mut child, limit);
    if result.is_err() {
        // It may have ended by itself in the meantime.
        let _ = child.kill();
        let _ = child.wait();
    }
    result.map_err(|fault| format!("`{name}` {fault}"))
}

fn follow(child: &mut Child, limit: Duration) -> Result<Ended, Fault> {
    let until = Instant::now() + limit;
    let (tx, rx) = sync_channel(1024);
    if let Some(out) = child.stdout.take() {
        send_lines(out, tx.clone());
    }
    if let Some(err) = child.stderr.take() {
        send_lines(err, tx.clone());
    }
    drop(tx);
    let mut lines = VecDeque::new();
    loop {
        match rx.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("{line}");
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => return Err(format!("was ended after {} s", limit.as_secs())),
            // Both pipes are closed: the command has ended or is about to.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|e| format!("cannot be waited for: {e}"))?;
    Ok(Ended { status, lines: lines.into() })
}

/// Hands on `from` line by line until it ends or nobody listens.
pub(crate) fn send_lines(from: impl Read + Send + 'static, to: SyncSender<String>) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            match from.read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if to.send(text).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", script]);
        sh
    }

    #[test]
    fn both_pipes_and_the_status_are_kept() {
        let ended = run(&mut sh("echo out; echo err >&2; exit 3"), Duration::from_secs(30)).unwrap();
        let mut lines = ended.lines;
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        assert_eq!(ended.status.code(), Some(3));
    }

    #[test]
    fn why_a_command_failed_is_told_with_what_it_said_last() {
        let ended = run(&mut sh("seq 1 50; echo; echo last; exit 1"), Duration::from_secs(30)).unwrap();
        let told = ended.failed("why");
        assert_eq!(told.lines().next(), Some("why"));
        assert_eq!(told.lines().nth(1), Some("  32"));
        assert_eq!(told.lines().last(), Some("  last"));
        assert_eq!(told.lines().count(), 1 + LAST_LINES);
    }

    #[test]
    fn a_command_that_hangs_is_ended_and_is_a_fault() {
        let started = Instant::now();
        let fault = run(&mut sh("exec sleep 600"), Duration::from_millis(50)).err().unwrap();
        assert_eq!(fault, "`sh` was ended after 0 s");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_program_that_is_not_there_is_a_fault() {
        let fault = run(&mut Command::new("no-such-program"), Duration::from_secs(1)).err().unwrap();
        assert!(fault.starts_with("cannot run `no-such-program`"), "{fault}");
        assert!(!exists("no-such-program"));
    }
}
