//! Runs the fuzz targets for a bounded time, where a nightly toolchain and cargo-fuzz are installed.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{Fault, Places, shell};

/// The targets, as `fuzz/Cargo.toml` names them.
const TARGETS: &[&str] = &[
    "sse",
    "envelope",
    "meter",
    "request_head",
    "response_head",
    "body",
    "translate_stream",
    "translate_whole",
    "translate_request",
];
/// Building everything with instrumentation takes its time on a small machine.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// One input may take so long at most.
const INPUT_SECONDS: u64 = 10;
/// Longer inputs find nothing that shorter ones do not, but take their time.
const LONGEST: usize = 1024;

/// `cargo xtask fuzz [--seconds N] [TARGET…]`
pub(crate) fn fuzz<'a>(mut words: impl Iterator<Item = &'a str>, usage: &str) -> Result<ExitCode, Fault> {
    let (mut seconds, mut targets) = (60u64, Vec::new());
    while let Some(word) = words.next() {
        match word {
            "--seconds" => {
                let given = words.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
                seconds = given.ok_or("`--seconds` needs a number above 0")?;
            }
            name if TARGETS.contains(&name) => targets.push(name),
            other => {
                return Err(format!("no fuzz target `{other}`: there are {}\n\n{usage}", TARGETS.join(", ")));
            }
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    let places = Places::find()?;
    if let Some(missing) = missing() {
        for target in targets {
            println!("{target:<16} not run: {missing}");
        }
        println!("The committed corpora are run by `cargo xtask test` all the same.");
        return Ok(ExitCode::SUCCESS);
    }
    let build = cargo_fuzz(&places, &["build"]);
    let built = shell::run(&mut { build }, BUILD_LIMIT)?;
    if !built.status.success() {
        return Err("the fuzz targets do not build".into());
    }
    let mut lines = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for target in targets {
        println!("\n== {target}");
        let line = match run(&places, target, seconds) {
            Ok(how) => format!("{target:<16} {how}"),
            Err(fault) => {
                code = ExitCode::FAILURE;
                format!("{target:<16} FAILED: {fault}")
            }
        };
        lines.push(line);
    }
    println!("\n{}", lines.join("\n"));
    Ok(code)
}

/// What is not installed, and how to install it.
fn missing() -> Option<&'static str> {
    let toolchains = Command::new("rustup").args(["toolchain", "list"]).output();
    let has_nightly = toolchains
        .is_ok_and(|out| String::from_utf8_lossy(&out.stdout).lines().any(|line| line.starts_with("nightly")));
    let has_cargo_fuzz =
        Command::new("cargo").args(["fuzz", "--version"]).output().is_ok_and(|out| out.status.success());
    match (has_nightly, has_cargo_fuzz) {
        (false, _) => Some("there is no nightly toolchain (`rustup toolchain install nightly`)"),
        (true, false) => Some("`cargo-fuzz` is not installed (`cargo install cargo-fuzz`)"),
        (true, true) => None,
    }
}

/// `cargo +nightly fuzz …`: through rustup, because the cargo that runs us is of one toolchain only.
fn cargo_fuzz(places: &Places, args: &[&str]) -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", "nightly", "cargo", "fuzz"]).args(args).current_dir(places.root.join("fuzz"));
    for inherited in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(inherited);
    }
    cargo.env("CARGO_TARGET_DIR", places.target.join("fuzz"));
    cargo
}

/// Fuzzes one target. New inputs go below `target/`; the committed corpus is only read.
fn run(places: &Places, target: &str, seconds: u64) -> Result<String, Fault> {
    let found = places.target.join("fuzz/corpus").join(target);
    let artifacts = places.target.join("fuzz/artifacts").join(target);
    for folder in [&found, &artifacts] {
        fs::create_dir_all(folder).map_err(|e| format!("cannot create `{}`: {e}", folder.display()))?;
    }
    let mut fuzz = cargo_fuzz(places, &["run", target]);
    fuzz.arg(&found).arg(places.root.join("fuzz/corpus").join(target)).arg("--");
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1");
    let ended = shell::run(&mut fuzz, BUILD_LIMIT + Duration::from_secs(seconds * 2))?;
    let runs = ended.lines.iter().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    match (ended.status.success(), runs) {
        (true, Some(runs)) => Ok(format!("{} inputs in {seconds} s, no fault", runs.trim())),
        (true, None) => Err("libFuzzer ended without saying how many inputs it ran".into()),
        (false, _) => Err(format!("the input that shows it lies in `{}`", artifacts.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_those_of_the_fuzz_workspace() {
        let manifest = include_str!("../../../fuzz/Cargo.toml");
        let bins: Vec<&str> = manifest
            .split("[[bin]]")
            .skip(1)
            .filter_map(|bin| bin.trim().strip_prefix("name = \"")?.split('"').next())
            .collect();
        assert_eq!(bins, TARGETS);
    }
}
