//! A build that knows what it is for: the program is run under load once, and the compiler is told which ways through it
//! are taken often. What is published is built so; it takes two builds and a minute of load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Fault, Places, shell};

const LOAD_LIMIT: Duration = Duration::from_secs(10 * 60);
const TOOLS_LIMIT: Duration = Duration::from_secs(5 * 60);

/// A program, and the profile with which the same sources give the same program again.
pub(crate) struct Trained {
    pub(crate) program: PathBuf,
    pub(crate) profile: PathBuf,
}

/// Builds cco with this profile of an earlier training, or with one that is made now.
pub(crate) fn build(places: &Places, profile: Option<&Path>) -> Result<Trained, Fault> {
    let folder = places.target.join("trained");
    fs::create_dir_all(&folder).map_err(|why| format!("cannot create `{}`: {why}", folder.display()))?;
    let profile = match profile {
        Some(profile) => profile.to_owned(),
        None => train(places, &folder)?,
    };
    // Cargo looks at the words for the compiler and not into the file they name, so its name says what is in it.
    let bytes = fs::read(&profile).map_err(|why| format!("cannot read `{}`: {why}", profile.display()))?;
    let (named, build) = (folder.join(format!("{:016x}.profdata", fnv(&bytes))), folder.join("build"));
    if !named.exists() {
        // A gigabyte that no other profile has any use for.
        let _ = fs::remove_dir_all(&build);
        forget_profiles(&folder);
    }
    fs::write(&named, bytes).map_err(|why| format!("cannot write `{}`: {why}", named.display()))?;
    let program = compiled(places, &build, &format!("-Cprofile-use={}", named.display()))?;
    Ok(Trained { program, profile: named })
}

/// Removes what earlier trainings have left.
fn forget_profiles(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|kind| kind == "profdata") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Runs an instrumented build under load, and says what became of it.
fn train(places: &Places, folder: &Path) -> Result<PathBuf, Fault> {
    let merge = merge_tool()?;
    let counts = folder.join("counts");
    let _ = fs::remove_dir_all(&counts);
    let program = compiled(places, &folder.join("counting"), &format!("-Cprofile-generate={}", counts.display()))?;
    shell::build(places, &["--release", "--package", "bench"])?;
    let mut load = Command::new(places.target.join("release/bench"));
    load.arg("train").arg("--cco").arg(program).arg("--out").arg(folder.join("load"));
    let profile = folder.join("last.profdata");
    let mut merged = Command::new(merge);
    merged.arg("merge").arg("--output").arg(&profile).arg(&counts);
    for (command, limit, what) in [
        (&mut load, LOAD_LIMIT, "the load of the training failed"),
        (&mut merged, TOOLS_LIMIT, "`llvm-profdata` failed"),
    ] {
        if !shell::run(command, limit)?.status.success() {
            return Err(what.into());
        }
    }
    Ok(profile)
}

/// Builds cco with this word for the compiler, which may have spaces in it, in a folder of its own.
fn compiled(places: &Places, folder: &Path, flag: &str) -> Result<PathBuf, Fault> {
    let host = host()?;
    // With a target named, the flag does not reach build scripts and macros, which run on this machine.
    let words = ["--package", "cco", "--profile", "dist", "--target", &host];
    shell::build_with(places, &words, |cargo| {
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flag).env("CARGO_TARGET_DIR", folder);
    })?;
    Ok(folder.join(host).join("dist/cco"))
}

/// What we build on is what we build for.
pub(crate) fn host() -> Result<String, Fault> {
    let told = shell::told(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc -vV` does not say the host".into())
}

/// The program of the compiler's own LLVM that puts counts together; rustup is asked for it where it is missing.
fn merge_tool() -> Result<PathBuf, Fault> {
    let root = shell::told(Command::new("rustc").args(["--print", "sysroot"]))?;
    let tool = Path::new(root.trim()).join("lib/rustlib").join(host()?).join("bin/llvm-profdata");
    if !tool.exists() {
        let added = shell::run(Command::new("rustup").args(["component", "add", "llvm-tools"]), TOOLS_LIMIT);
        if !added.is_ok_and(|ended| ended.status.success()) || !tool.exists() {
            return Err("there is no `llvm-profdata` of this compiler: `rustup component add llvm-tools`, or build \
                        without training: `cargo xtask dist --profile release`"
                .into());
        }
    }
    Ok(tool)
}

/// Fowler, Noll and Vo's hash: enough to tell two profiles apart.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
