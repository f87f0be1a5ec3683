//! `cargo xtask test --live`: what can only be seen with a real provider. Without a key nothing is run, and that is said.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use crate::{Fault, Places, shell};

/// One check and the variable without which it cannot be made.
pub(crate) struct Check {
    pub(crate) what: &'static str,
    pub(crate) needs: &'static str,
    run: fn(&Places, &Path) -> Result<(), Fault>,
}

/// A check may take so long.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// All of them.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        what: "the seven checks of `scripts/test-gateway-streaming.sh` against api.anthropic.com",
        needs: "ANTHROPIC_API_KEY",
        run: |places, home| {
            let mut script = Command::new("bash");
            script
                .arg(places.root.join("scripts/test-gateway-streaming.sh"))
                .env("CCO", cco(places))
                .env("CCO_HOME", home);
            with_gateway(places, home, "{}", script)
        },
    },
    Check {
        what: "Anthropic's protocol in front of api.openai.com",
        needs: "OPENAI_API_KEY",
        run: |places, home| translated(places, home, "openai"),
    },
    Check {
        what: "Anthropic's protocol in front of api.deepseek.com",
        needs: "DEEPSEEK_API_KEY",
        run: |places, home| translated(places, home, "deepseek"),
    },
    Check {
        what: "Anthropic's protocol in front of openrouter.ai",
        needs: "OPENROUTER_API_KEY",
        run: |places, home| translated(places, home, "openrouter"),
    },
    Check {
        what: "the real Claude Code with a login of claude.ai, one turn",
        needs: "CLAUDE_CODE_OAUTH_TOKEN",
        run: |places, home| {
            let mut command = Command::new(cco(places));
            command.args(["run", "--pay", "own", "--"]).arg(crate::setup::claude(places)?);
            command.args(["-p", "Say hello.", "--max-turns", "1"]).env("CCO_HOME", home);
            with_gateway(places, home, "{}", command)
        },
    },
];

fn cco(places: &Places) -> std::path::PathBuf {
    places.target.join("debug").join("cco")
}

/// Two answers of a provider that speaks another protocol, judged by the doctor.
fn translated(places: &Places, home: &Path, provider: &str) -> Result<(), Fault> {
    let config = format!(
        "{{ \"providers\": {{ \"{provider}\": {{ \"apiKeyMode\": \"stored\" }} }}, \"server\": {{ \"openStoredKeys\": true }} }}"
    );
    let mut doctor = Command::new(cco(places));
    doctor.args(["doctor", "--url"]).env("CCO_HOME", home).env("ANTHROPIC_API_KEY", "cco");
    with_gateway(places, home, &config, doctor)
}

/// Starts a gateway with this configuration, runs the command, and stops it. `--url` gets its address.
fn with_gateway(places: &Places, home: &Path, config: &str, mut command: Command) -> Result<(), Fault> {
    std::fs::write(home.join("config.json"), config).map_err(|e| e.to_string())?;
    let daemon = |args: &[&str]| {
        let mut daemon = Command::new(cco(places));
        daemon.args(args).env("CCO_HOME", home).env("CCO_SERVER_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
        daemon.output().map_err(|e| format!("cannot run `cco`: {e}"))
    };
    let started = daemon(&["daemon", "start"])?;
    if !started.status.success() {
        return Err(String::from_utf8_lossy(&started.stderr).trim().to_owned());
    }
    let status = daemon(&["status", "--json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).map_err(|e| e.to_string())?;
    if command.get_args().last().is_some_and(|last| last == "--url") {
        command.arg(format!("http://{}", status["address"].as_str().unwrap_or_default()));
    }
    let ended = shell::run(&mut command, LIMIT);
    daemon(&["daemon", "stop"])?;
    match ended?.status {
        status if status.success() => Ok(()),
        status => Err(status.to_string()),
    }
}

/// Runs what can be run; anything that was not is a failure, for this was asked for.
pub(crate) fn run(places: &Places) -> Result<ExitCode, Fault> {
    let mut build = shell::cargo();
    build.args(["build", "--package", "cco", "--locked"]).current_dir(&places.root);
    let given = |check: &Check| std::env::var_os(check.needs).is_some_and(|key| !key.is_empty());
    if CHECKS.iter().any(given) && !shell::run(&mut build, Duration::from_secs(40 * 60))?.status.success() {
        return Err("the build failed".into());
    }
    let (mut lines, mut is_good) = (Vec::new(), true);
    for (n, check) in CHECKS.iter().enumerate() {
        let home = places.target.join("live").join(n.to_string());
        let _ = std::fs::remove_dir_all(&home);
        let outcome = if given(check) {
            let made = std::fs::create_dir_all(&home).map_err(|e| e.to_string());
            made.and_then(|()| private(&home)).and_then(|()| (check.run)(places, &home))
        } else {
            Err(format!("NOT RUN: `{}` is not set", check.needs))
        };
        is_good &= outcome.is_ok();
        lines.push(match outcome {
            Ok(()) => format!("passed   {}", check.what),
            Err(why) if why.starts_with("NOT RUN") => format!("{why}: {}", check.what),
            Err(why) => format!("FAILED   {}: {why}", check.what),
        });
    }
    println!("\n{}", lines.join("\n"));
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(unix)]
fn private(folder: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(|e| e.to_string())
}

#[cfg(not(unix))]
fn private(_: &Path) -> Result<(), Fault> {
    Ok(())
}
