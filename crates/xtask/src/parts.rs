//! The parts of `cargo xtask test`: what each runs, what it needs first, and how its tests are counted.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::report::{Line, Outcome, Report, Tally};
use crate::shell;
use crate::{Fault, Places, bench, clients, dist, guard, setup};

/// No part may take longer: a hanging test must not hang CI.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// One part of the run.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Parts that must have succeeded before; they are run even when `--only` does not name them.
    needs: &'static [&'static str],
    run: fn(&Places) -> Outcome,
}

/// Which parts the user asked for.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) only: Vec<String>,
    pub(crate) skip_clients: bool,
}

/// Cheap parts first: a slip in the format should not take half an hour to show.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "format", what: "cargo fmt", needs: &[], run: format },
    Part { name: "lints", what: "cargo clippy, warnings are errors", needs: &[], run: lints },
    Part { name: "system", what: "programs of the system that the tests run", needs: &[], run: system_setup },
    Part { name: "tests", what: "unit and integration tests, fuzz corpora among them", needs: &[], run: tests },
    Part { name: "doc-tests", what: "examples in the documentation", needs: &[], run: doc_tests },
    Part { name: "licences", what: "cargo-deny, where it is installed", needs: &[], run: licences },
    Part {
        name: "guard",
        what: "instructions and allocations of the hot pieces, under valgrind, and system calls, under strace",
        needs: &[],
        run: guard,
    },
    Part { name: "build", what: "the `cco` binary", needs: &[], run: build },
    Part { name: "soak", what: "three minutes of what is hard to bear, on one gateway", needs: &["build"], run: soak },
    Part { name: "dist", what: "packages, and the life of an installation", needs: &["build"], run: dist },
    Part { name: "clients:setup", what: "pinned clients under `target/clients/`", needs: &[], run: clients_setup },
    Part {
        name: "clients:py-anthropic",
        what: "the official Python SDK through the gateway",
        needs: &["build"],
        run: |places| clients::run(&clients::PY_ANTHROPIC, places),
    },
    Part {
        name: "clients:py-translated",
        what: "both official Python SDKs at providers of other protocols",
        needs: &["build"],
        run: |places| clients::run(&clients::PY_TRANSLATED, places),
    },
    Part {
        name: "clients:node-anthropic",
        what: "the official TypeScript SDK through the gateway",
        needs: &["build"],
        run: |places| clients::run(&clients::NODE_ANTHROPIC, places),
    },
    Part {
        name: "clients:node-translated",
        what: "the official TypeScript SDK at providers of other protocols",
        needs: &["build"],
        run: |places| clients::run(&clients::NODE_TRANSLATED, places),
    },
    Part {
        name: "clients:node-openai",
        what: "OpenAI's TypeScript SDK at providers of every protocol",
        needs: &["build"],
        run: |places| clients::run(&clients::NODE_OPENAI, places),
    },
    Part {
        name: "clients:codex",
        what: "the real Codex at providers of every protocol",
        needs: &["build"],
        run: |places| clients::run(&clients::CODEX, places),
    },
    Part {
        name: "clients:claude-code",
        what: "the real Claude Code through the gateway",
        needs: &["build"],
        run: |places| clients::run(&clients::CLAUDE_CODE, places),
    },
    Part {
        name: "clients:claude-code-providers",
        what: "the real Claude Code with every kind of provider, and a session that changes between them",
        needs: &["build"],
        run: |places| clients::run(&clients::CLAUDE_CODE_PROVIDERS, places),
    },
    Part {
        name: "clients:claude-code-run",
        what: "the real Claude Code as `cco run` starts it: who pays, and what it cost",
        needs: &["build"],
        run: |places| clients::run(&clients::CLAUDE_CODE_RUN, places),
    },
    Part {
        name: "clients:claude-code-agents",
        what: "the real Claude Code with two sub-agents: each at its own provider, and the tree adds up",
        needs: &["build"],
        run: |places| clients::run(&clients::CLAUDE_CODE_AGENTS, places),
    },
    Part {
        name: "clients:judges",
        what: "programs of others judge requests, answers and streams, and stand in as providers",
        needs: &["build"],
        run: |places| clients::run(&clients::JUDGES, places),
    },
    Part {
        name: "clients:real-model",
        what: "a real model as a provider of three protocols",
        needs: &["build"],
        run: |places| clients::run(&clients::REAL_MODEL, places),
    },
];

impl Part {
    /// `clients` names every part that begins with `clients:`.
    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.group() == Some(name)
    }

    fn group(&self) -> Option<&'static str> {
        self.name.split_once(':').map(|(group, _)| group)
    }
}

impl Wanted {
    /// A name that fits no part is a slip that would otherwise test nothing.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self.only.iter().find(|name| !PARTS.iter().any(|part| part.answers_to(name))) {
            Some(name) => Err(format!("no part is called `{name}`: see `cargo xtask test --list`")),
            None => Ok(()),
        }
    }

    fn takes(&self, part: &Part) -> bool {
        let named = |part: &Part| self.only.is_empty() || self.only.iter().any(|name| part.answers_to(name));
        named(part) || PARTS.iter().any(|other| named(other) && other.needs.contains(&part.name))
    }
}

/// Runs the wanted parts one after the other; a failure does not stop the others.
pub(crate) fn run(wanted: &Wanted, places: &Places) -> Report {
    let mut report = Report::default();
    for part in PARTS.iter().filter(|part| wanted.takes(part)) {
        println!("\n== {}: {}", part.name, part.what);
        let started = Instant::now();
        let outcome = if wanted.skip_clients && part.group() == Some("clients") {
            Outcome::NotRun("`--skip-clients` was given".into())
        } else if let Some(needed) = part.needs.iter().find(|needed| !report.succeeded(needed)) {
            Outcome::Failed(Tally::default(), format!("it needs `{needed}`, which failed"))
        } else {
            (part.run)(places)
        };
        report.lines.push(Line { part: part.name, took: started.elapsed(), outcome });
    }
    report
}

fn format(places: &Places) -> Outcome {
    whole(cargo(places, &["fmt", "--all", "--check"]))
}

fn lints(places: &Places) -> Outcome {
    whole(cargo(places, &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn build(places: &Places) -> Outcome {
    whole(cargo(places, &["build", "--package", "cco", "--locked"]))
}

/// Where a program cannot be had, the tests that need it fail too, and say so.
fn system_setup(_: &Places) -> Outcome {
    match setup::ensure_system() {
        Ok(how) => {
            println!("{how}");
            Outcome::Ran(Tally::ONE)
        }
        Err(fault) => Outcome::Failed(Tally::default(), fault),
    }
}

fn tests(places: &Places) -> Outcome {
    if shell::exists("cargo-nextest") {
        let command = cargo(places, &["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
        counted(command, nextest_line, AtLeast::One)
    } else {
        let command =
            cargo(places, &["test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-fail-fast"]);
        counted(command, libtest_line, AtLeast::One)
    }
}

fn doc_tests(places: &Places) -> Outcome {
    counted(cargo(places, &["test", "--workspace", "--doc", "--locked", "--no-fail-fast"]), libtest_line, AtLeast::None)
}

fn licences(places: &Places) -> Outcome {
    if !shell::exists("cargo-deny") {
        return Outcome::NotRun("`cargo-deny` is not installed (`cargo install cargo-deny`)".into());
    }
    whole(cargo(places, &["deny", "--offline", "check", "bans", "licenses", "sources"]))
}

/// The short form, on the development build; `cargo xtask soak` takes longer.
fn soak(places: &Places) -> Outcome {
    if let built @ (Outcome::Failed(..) | Outcome::NotRun(_)) =
        whole(cargo(places, &["build", "--package", "bench", "--locked"]))
    {
        return built;
    }
    let mut command = bench::soaked(places, "debug");
    command.args(["--seconds", "8"]);
    whole(command)
}

fn guard(places: &Places) -> Outcome {
    for program in ["valgrind", "strace"] {
        if let Err(fault) = setup::ensure_program(program, program) {
            return Outcome::NotRun(fault);
        }
    }
    match guard::check(places) {
        Ok(faults) if faults.is_empty() => Outcome::Ran(Tally::ONE),
        Ok(faults) => Outcome::Failed(Tally::default(), faults.join("; ")),
        Err(fault) => Outcome::Failed(Tally::default(), fault),
    }
}

/// What is packed is the development build: how it is optimized makes no difference to what is looked at.
fn dist(places: &Places) -> Outcome {
    let out = places.target.join("package-test");
    match dist::make(places, &dist::Build::Plain("dev"), &out) {
        Err(fault) => Outcome::Failed(Tally::default(), fault),
        Ok(_) => {
            let mut life = Command::new("bash");
            life.arg(places.root.join("tests/install/life.sh")).arg(&out);
            counted(life, checked_line, AtLeast::One)
        }
    }
}

/// `✓ what was checked` and `✗ what failed`
fn checked_line(line: &str) -> Option<Tally> {
    match line.chars().next()? {
        '✓' => Some(Tally::ONE),
        '✗' => Some(Tally { passed: 0, failed: 1, skipped: 0 }),
        _ => None,
    }
}

fn clients_setup(places: &Places) -> Outcome {
    let mut faults = Vec::new();
    let mut tally = Tally::default();
    for kit in setup::KITS {
        match setup::ensure(kit, places) {
            Ok(how) => {
                println!("{}: {how}", kit.name);
                tally.passed += 1;
            }
            Err(fault) => {
                println!("{}: {fault}", kit.name);
                tally.failed += 1;
                faults.push(format!("{}: {fault}", kit.name));
            }
        }
    }
    if faults.is_empty() { Outcome::Ran(tally) } else { Outcome::Failed(tally, faults.join("; ")) }
}

fn cargo(places: &Places, args: &[&str]) -> Command {
    let mut cargo = shell::cargo();
    cargo.args(args).current_dir(&places.root);
    cargo
}

/// A command that is one check as a whole.
fn whole(mut command: Command) -> Outcome {
    match shell::run(&mut command, LIMIT) {
        Ok(ended) if ended.status.success() => Outcome::Ran(Tally::ONE),
        Ok(ended) => Outcome::Failed(Tally::default(), ended.failed(ended.status)),
        Err(fault) => Outcome::Failed(Tally::default(), fault),
    }
}

/// How many tests a runner must have run to be believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtLeast {
    None,
    One,
}

/// A test runner, whose closing lines are read for counts.
fn counted(mut command: Command, read: fn(&str) -> Option<Tally>, least: AtLeast) -> Outcome {
    let ended = match shell::run(&mut command, LIMIT) {
        Ok(ended) => ended,
        Err(fault) => return Outcome::Failed(Tally::default(), fault),
    };
    let mut tally = Tally::default();
    for line in ended.lines.iter().filter_map(|line| read(line)) {
        tally.passed += line.passed;
        tally.failed += line.failed;
        tally.skipped += line.skipped;
    }
    if !ended.status.success() {
        Outcome::Failed(tally, ended.failed(format_args!("{}, {} tests failed", ended.status, tally.failed)))
    } else if least == AtLeast::One && tally.passed == 0 {
        Outcome::Failed(tally, "no test was run".into())
    } else {
        Outcome::Ran(tally)
    }
}

/// `Summary [   0.212s] 8 tests run: 6 passed (1 slow), 1 failed, 1 timed out, 2 skipped`
fn nextest_line(line: &str) -> Option<Tally> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once(" run: ")?;
    let failed = before(counts, "failed") + before(counts, "timed out") + before(counts, "exec failed");
    Some(Tally { passed: before(counts, "passed"), failed, skipped: before(counts, "skipped") })
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn libtest_line(line: &str) -> Option<Tally> {
    let counts = line.strip_prefix("test result: ")?;
    Some(Tally {
        passed: before(counts, "passed"),
        failed: before(counts, "failed"),
        skipped: before(counts, "ignored"),
    })
}

/// The number that stands right before `word`, or 0.
fn before(text: &str, word: &str) -> usize {
    text.split([',', ';', '.', '(']).find_map(|piece| piece.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(only: &[&str]) -> Vec<&'static str> {
        let wanted = Wanted { only: only.iter().map(|&name| name.into()).collect(), skip_clients: false };
        wanted.check().unwrap();
        PARTS.iter().filter(|part| wanted.takes(part)).map(|part| part.name).collect()
    }

    #[test]
    fn without_a_choice_every_part_runs() {
        assert_eq!(wanted(&[]).len(), PARTS.len());
    }

    #[test]
    fn a_chosen_part_brings_what_it_needs() {
        assert_eq!(wanted(&["format"]), ["format"]);
        assert_eq!(wanted(&["clients:claude-code"]), ["build", "clients:claude-code"]);
    }

    #[test]
    fn a_group_name_takes_all_of_its_parts() {
        let clients = PARTS.iter().filter(|part| part.group() == Some("clients")).count();
        assert_eq!(wanted(&["clients"]).len(), clients + 1, "and `build`");
    }

    #[test]
    fn a_name_that_fits_no_part_is_a_fault() {
        let wanted = Wanted { only: vec!["test".into()], skip_clients: false };
        assert_eq!(wanted.check(), Err("no part is called `test`: see `cargo xtask test --list`".into()));
    }

    #[test]
    fn what_a_part_needs_is_a_part_that_comes_before_it() {
        for (at, part) in PARTS.iter().enumerate() {
            for need in part.needs {
                assert!(PARTS[..at].iter().any(|earlier| earlier.name == *need), "`{}` needs `{need}`", part.name);
            }
        }
    }

    #[test]
    fn the_closing_line_of_nextest_is_read() {
        let tally = |passed, failed, skipped| Some(Tally { passed, failed, skipped });
        assert_eq!(nextest_line("     Summary [   0.006s] 6 tests run: 6 passed, 0 skipped"), tally(6, 0, 0));
        assert_eq!(
            nextest_line("     Summary [   0.2s] 8/9 tests run: 6 passed (1 slow), 1 failed, 1 timed out, 2 skipped"),
            tally(6, 2, 2)
        );
        assert_eq!(nextest_line("        PASS [   0.005s] a test: 3 passed"), None);
    }

    #[test]
    fn the_closing_line_of_cargo_test_is_read() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(libtest_line(line), Some(Tally { passed: 3, failed: 2, skipped: 1 }));
        assert_eq!(libtest_line("running 3 tests"), None);
    }

    #[test]
    fn a_runner_that_ran_nothing_or_failed_is_not_believed() {
        let sh = |script: &str| {
            let mut sh = Command::new("sh");
            sh.args(["-c", script]);
            sh
        };
        let ok = "echo 'test result: ok. 1 passed; 0 failed'";
        assert!(matches!(counted(sh(ok), libtest_line, AtLeast::One), Outcome::Ran(Tally::ONE)));
        assert!(matches!(counted(sh("true"), libtest_line, AtLeast::One), Outcome::Failed(..)));
        assert!(matches!(counted(sh("true"), libtest_line, AtLeast::None), Outcome::Ran(_)));
        assert!(matches!(counted(sh(&format!("{ok}; exit 1")), libtest_line, AtLeast::One), Outcome::Failed(..)));
    }
}
