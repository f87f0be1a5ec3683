//! `cargo xtask …`: sets up what the tests need and runs them, the same way on a developer's machine and in CI.

#![expect(clippy::print_stdout, reason = "a build tool talks to its user on stdout")]
#![expect(
    clippy::disallowed_methods,
    reason = "the rules on clock and environment are for the gateway, not for the tool that builds it"
)]

mod bench;
mod clients;
mod dist;
mod fuzz;
mod guard;
mod live;
mod parts;
mod report;
mod sbom;
mod servers;
mod setup;
mod shell;
mod tar;
mod trained;
mod verification;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

Commands:
  setup                 install what the tests drive: pinned clients under `target/clients/`, a keyring for the system
  test                  run every check: format, lints, tests, real clients, licences
    --only PART[,PART]  run only these parts (a group name such as `clients` takes all of its parts)
    --skip-clients      leave the real clients out (they are then listed as not run)
    --live              run what needs real providers and keys instead; what is not run is a failure
    --list              print the parts and end
  fuzz [TARGET…]        fuzz the parsers (needs a nightly toolchain and cargo-fuzz)
    --seconds N         so long each [default: 60]
  dist                  build what is published: archive, Debian package, checksums, list of contents, installer
    --training FILE     with the profile of an earlier training [default: trains: two builds and a minute of load]
    --profile NAME      without training, with this profile of cargo's
    --out DIR           where to [default: `package` below the target folder]
  verification          write docs/GATEWAY_STREAMING_VERIFICATION.md anew
    --measure PROGRAM   after that program has driven itself for half a minute
  soak                  load one gateway with what is hard to bear, and look at what it keeps and records
    --seconds N         so long each phase, once its streams are open [default: 20]
  guard                 count instructions, allocations and system calls of the hot pieces (valgrind, strace) and compare
    --write             write down what is counted now
  bench                 measure cco beside nginx; on a machine that does nothing else (`bench --help` for all options)
    --quick             about a minute, for a first look, of a build without training
    --peers             beside Portkey's gateway and LiteLLM's proxy too, which are installed, pinned";

/// A fault that ends the command, said in words for the user.
type Fault = String;

/// Where the repository and its build output lie.
struct Places {
    root: PathBuf,
    target: PathBuf,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(fault) => {
            println!("xtask: {fault}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode, Fault> {
    let mut words = args.iter().map(String::as_str);
    match words.next() {
        Some("setup") => match words.next() {
            None => setup_all(&Places::find()?),
            Some(other) => Err(format!("`setup` takes no argument, but got `{other}`\n\n{USAGE}")),
        },
        Some("test") => test(words),
        Some("dist") => dist::dist(words, USAGE),
        Some("verification") => verification::verification(words, USAGE),
        Some("bench") => bench::bench(words),
        Some("soak") => bench::soak(words),
        Some("guard") => guard::guard(words, USAGE),
        Some("fuzz") => fuzz::fuzz(words, USAGE),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(format!("no command `{other}`\n\n{USAGE}")),
        None => Err(format!("say what to do\n\n{USAGE}")),
    }
}

fn setup_all(places: &Places) -> Result<ExitCode, Fault> {
    let mut code = ExitCode::SUCCESS;
    match setup::ensure_system() {
        Ok(how) => println!("system: {how}"),
        Err(fault) => {
            println!("system: {fault}");
            code = ExitCode::FAILURE;
        }
    }
    for kit in setup::KITS {
        match setup::ensure(kit, places) {
            Ok(how) => println!("{}: {how}", kit.name),
            Err(fault) => {
                println!("{}: {fault}", kit.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn test<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<ExitCode, Fault> {
    let mut wanted = parts::Wanted::default();
    while let Some(word) = words.next() {
        match word {
            "--only" => {
                let names = words.next().ok_or("`--only` needs the name of a part: see `cargo xtask test --list`")?;
                wanted.only.extend(names.split(',').map(str::to_owned));
            }
            "--live" => return live::run(&Places::find()?),
            "--skip-clients" => wanted.skip_clients = true,
            "--list" => {
                for part in parts::PARTS {
                    println!("{:<24} {}", part.name, part.what);
                }
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("`test` knows no `{other}`\n\n{USAGE}")),
        }
    }
    wanted.check()?;
    let places = Places::find()?;
    let report = parts::run(&wanted, &places);
    print!("{report}");
    Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Places {
    /// Asks cargo, which knows about `CARGO_TARGET_DIR` and the configuration files.
    fn find() -> Result<Self, Fault> {
        let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let out = shell::cargo()
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(manifest)
            .output()
            .map_err(|e| format!("cannot run `cargo metadata`: {e}"))?;
        let told: serde_json::Value = serde_json::from_slice(&out.stdout).map_err(|e| {
            format!("`cargo metadata` printed no JSON ({e}): {}", String::from_utf8_lossy(&out.stderr).trim())
        })?;
        let path = |key: &str| {
            told[key].as_str().map(PathBuf::from).ok_or_else(|| format!("`cargo metadata` does not say `{key}`"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// Where the pinned client programs lie.
    fn clients(&self) -> PathBuf {
        self.target.join("clients")
    }

    /// The manifests and scripts of the client tests.
    fn client_tests(&self) -> PathBuf {
        self.root.join("tests/clients")
    }
}
