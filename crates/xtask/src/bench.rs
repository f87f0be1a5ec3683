//! Builds cco and the measuring tools as users get them, and runs the measurement.

use std::process::{Command, ExitCode};
use std::time::Duration;

use crate::{Fault, Places, shell};

/// A release build of everything on a small machine.
const BUILD_LIMIT: Duration = Duration::from_secs(40 * 60);

/// Nanoseconds that one decision among a hundred rules may take.
const ROUTE_LIMIT: &str = "2000";

/// `cargo xtask bench …`: the words are the runner's.
pub(crate) fn bench<'a>(words: impl Iterator<Item = &'a str>) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    // What is measured is what is published; what measures needs no more than a release build.
    for (profile, package) in [("dist", "cco"), ("release", "bench")] {
        let mut build = shell::cargo();
        build.args(["build", "--profile", profile, "--locked", "--package", package]).current_dir(&places.root);
        if !shell::run(&mut build, BUILD_LIMIT)?.status.success() {
            return Err(format!("the build of `{package}` failed"));
        }
    }
    let mut words = words.peekable();
    let (built, published) = (places.target.join("release"), places.target.join("dist").join("cco"));
    if words.peek() != Some(&"--help") {
        // What a decision costs is measured without a gateway around it.
        let mut build = shell::cargo();
        build.args(["build", "--release", "--locked", "--package", "gateway", "--example", "route"]);
        if !shell::run(build.current_dir(&places.root), BUILD_LIMIT)?.status.success() {
            return Err("the release build failed".into());
        }
        let route = Command::new(built.join("examples").join("route")).arg(ROUTE_LIMIT).status();
        if !route.map_err(|e| format!("cannot run `route`: {e}"))?.success() {
            return Err(format!("a decision of the router takes longer than {ROUTE_LIMIT} ns"));
        }
    }
    let mut run = Command::new(built.join("bench"));
    run.arg("run").arg("--cco").arg(published).arg("--out").arg(places.target.join("bench"));
    // Its output is for the user's eyes, line by line, and nothing of it is counted here.
    let status = run.args(words).status().map_err(|e| format!("cannot run `bench`: {e}"))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `cargo xtask soak …`: the words are the runner's.
pub(crate) fn soak<'a>(words: impl Iterator<Item = &'a str>) -> Result<ExitCode, Fault> {
    let places = Places::find()?;
    let mut build = shell::cargo();
    build.args(["build", "--release", "--locked", "--package", "cco", "--package", "bench"]).current_dir(&places.root);
    if !shell::run(&mut build, BUILD_LIMIT)?.status.success() {
        return Err("the release build failed".into());
    }
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
