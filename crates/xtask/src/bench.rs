//! Builds cco and the measuring tools as users get them, and runs the measurement.

use std::process::{Command, ExitCode};

use crate::{Fault, Places, setup, shell, trained};

/// Nanoseconds that one decision among a hundred rules may take.
const ROUTE_LIMIT: &str = "2000";

/// `cargo xtask bench …`: the words are the runner's.
pub(crate) fn bench<'a>(words: impl Iterator<Item = &'a str>) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    let words: Vec<&str> = words.collect();
    let said = |word: &str| words.contains(&word);
    shell::build(&places, &["--release", "--package", "bench"])?;
    let bench = places.target.join("release/bench");
    let mut run = Command::new(&bench);
    run.arg("run");
    let (mut is_slow, mut missing) = (false, Vec::new());
    // Ours: the runner does not know it.
    let own: Vec<&str> = words.iter().copied().filter(|word| *word != "--peers").collect();
    if !said("--help") && !said("-h") {
        // What is wrong with the words is said before minutes of building.
        let mut look = Command::new(&bench);
        look.args(["run", "--only-look", "--cco", ".", "--out", "."]).args(&own);
        if !look.status().map_err(|e| format!("cannot run `bench`: {e}"))?.success() {
            return Ok(ExitCode::FAILURE);
        }
        // What a decision costs is measured without a gateway around it.
        shell::build(&places, &["--release", "--package", "gateway", "--example", "route"])?;
        let route = Command::new(places.target.join("release/examples/route")).arg(ROUTE_LIMIT).status();
        is_slow = !route.map_err(|e| format!("cannot run `route`: {e}"))?.success();
        // What is measured is what is published.
        let cco = if said("--quick") {
            shell::build(&places, &["--profile", "dist", "--package", "cco"])?;
            places.target.join("dist/cco")
        } else {
            trained::build(&places, None)?.program
        };
        run.arg("--cco").arg(cco).arg("--out").arg(places.target.join("bench"));
    }
    if said("--peers") {
        for kit in [&setup::PORTKEY, &setup::LITELLM] {
            match setup::ensure(kit, &places) {
                Ok(_) => _ = run.arg(format!("--{}", kit.name)).arg(kit.home(&places)),
                Err(why) => missing.push(format!("{} is not measured: {why}", kit.name)),
            }
        }
    }
    // Its output is for the user's eyes, line by line, and nothing of it is counted here.
    run.args(own);
    let status = run.status().map_err(|e| format!("cannot run `bench`: {e}"))?;
    // Everything is measured first.
    if is_slow {
        return Err(format!("a decision of the router takes longer than {ROUTE_LIMIT} ns"));
    }
    if !missing.is_empty() {
        return Err(missing.join("\n"));
    }
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `cargo xtask soak …`: the words are the runner's.
pub(crate) fn soak<'a>(words: impl Iterator<Item = &'a str>) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    shell::build(&places, &["--release", "--package", "cco", "--package", "bench"])?;
    let status = soaked(&places, "release").args(words).status().map_err(|e| format!("cannot run `bench`: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that soaks what was built with this profile.
pub(crate) fn soaked(places: &Places, profile: &str) -> Command {
    let built = places.target.join(profile);
    let mut run = Command::new(built.join("bench"));
    run.arg("soak").arg("--cco").arg(built.join("cco")).arg("--out").arg(places.target.join("soak"));
    run
}
