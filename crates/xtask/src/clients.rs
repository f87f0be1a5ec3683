//! Drives real client programs through the gateway and reads what each script says of its checks.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::report::{Outcome, Tally};
use crate::servers::{GATEWAY_TOKEN, STORED_KEY, Servers};
use crate::setup::{self, Kit};
use crate::shell;
use crate::{Fault, Places};

/// A script that has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// One script in `tests/clients/` and what runs it.
pub(crate) struct Client {
    script: &'static str,
    kits: &'static [&'static Kit],
    program: fn(&Places) -> PathBuf,
    /// What this script is told beyond what all are.
    more: fn(&Places) -> Result<Vec<PathBuf>, Fault>,
}

pub(crate) const PY_ANTHROPIC: Client =
    Client { script: "py_anthropic.py", kits: &[&setup::PYTHON], program: setup::python, more: |_| Ok(Vec::new()) };

pub(crate) const PY_TRANSLATED: Client =
    Client { script: "py_translated.py", kits: &[&setup::PYTHON], program: setup::python, more: |_| Ok(Vec::new()) };

pub(crate) const NODE_ANTHROPIC: Client = node("node_anthropic.mjs");

pub(crate) const NODE_TRANSLATED: Client = node("node_translated.mjs");

pub(crate) const NODE_OPENAI: Client = node("node_openai.mjs");

pub(crate) const CLAUDE_CODE: Client =
    agent("claude_code.py", |places| Ok(vec!["--claude".into(), setup::claude(places)?]));

pub(crate) const CLAUDE_CODE_PROVIDERS: Client =
    agent("claude_code_providers.py", |places| Ok(vec!["--claude".into(), setup::claude(places)?]));

pub(crate) const CLAUDE_CODE_RUN: Client = agent("claude_code_run.py", |places| {
    let cco = places.target.join("debug").join("cco");
    Ok(vec!["--claude".into(), setup::claude(places)?, "--cco".into(), cco])
});

pub(crate) const CLAUDE_CODE_AGENTS: Client = agent("claude_code_agents.py", |places| {
    let cco = places.target.join("debug").join("cco");
    Ok(vec!["--claude".into(), setup::claude(places)?, "--cco".into(), cco])
});

pub(crate) const CODEX: Client = agent("codex.py", |places| Ok(vec!["--codex".into(), setup::codex(places)?]));

/// They judge what the other scripts sent up too, where these ran before.
pub(crate) const JUDGES: Client =
    agent("judges.py", |places| Ok([judges(places), vec!["--model".into(), "".into()]].concat()));

/// One check of the same script, with a provider that is a real model.
pub(crate) const REAL_MODEL: Client = Client {
    kits: &[&setup::PYTHON, &setup::NODE, &setup::MODEL],
    ..agent("judges.py", |places| {
        let python = setup::MODEL.home(places).join("bin/python");
        Ok([judges(places), vec!["--model".into(), python, "--only".into(), "a real model".into()]].concat())
    })
};

/// The programs that judge, and what they judge.
fn judges(places: &Places) -> Vec<PathBuf> {
    let program = |name: &str| setup::NODE.home(places).join("node_modules/.bin").join(name);
    vec![
        "--steady".into(),
        program("steady"),
        "--aimock".into(),
        program("llmock"),
        "--cco".into(),
        places.target.join("debug").join("cco"),
        "--runs".into(),
        places.clients().join("run"),
    ]
}

const fn node(script: &'static str) -> Client {
    Client {
        script,
        kits: &[&setup::NODE],
        program: |_| "node".into(),
        more: |places| Ok(vec!["--modules".into(), setup::NODE.home(places).join("node_modules")]),
    }
}

/// The script needs only Python's own library, but the interpreter of the SDK's tests is one that is known to be there.
const fn agent(script: &'static str, more: fn(&Places) -> Result<Vec<PathBuf>, Fault>) -> Client {
    Client { script, kits: &[&setup::PYTHON, &setup::NODE], program: setup::python, more }
}

/// Starts fresh servers, runs the script against them, and counts its checks.
pub(crate) fn run(client: &Client, places: &Places) -> Outcome {
    match drive(client, places) {
        Ok(outcome) => outcome,
        Err(fault) => Outcome::Failed(Tally::default(), fault),
    }
}

fn drive(client: &Client, places: &Places) -> Result<Outcome, Fault> {
    for kit in client.kits {
        setup::ensure(kit, places)?;
    }
    let home = places.clients().join("run").join(client.script);
    let mut servers = Servers::start(places, &home)?;
    let mut command = Command::new((client.program)(places));
    command
        .arg(places.client_tests().join(client.script))
        .args(["--base-url", &servers.gateway, "--upstream", &servers.upstream])
        .args(["--stored-key", STORED_KEY, "--gateway-token", GATEWAY_TOKEN])
        .arg("--journal")
        .arg(&servers.journal)
        .arg("--work")
        .arg(home.join("work"))
        .args((client.more)(places)?);
    // Nothing of the user's keys, proxies or settings may reach a client.
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("HOME", &home).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(&home);
    let ended = shell::run(&mut command, LIMIT);
    let gone = servers.ended();
    let outcome = match ended {
        Err(fault) => Outcome::Failed(Tally::default(), fault),
        Ok(ended) => match (verdict(&ended.lines), ended.status.success(), gone) {
            (Err(fault), ..) => Outcome::Failed(Tally::default(), fault),
            (Ok(tally), _, Some(gone)) => Outcome::Failed(tally, gone),
            (Ok(tally), false, None) if tally.failed == 0 => {
                Outcome::Failed(tally, format!("every check is good, but the script ended with {}", ended.status))
            }
            (Ok(tally), _, None) if tally.passed + tally.failed == 0 => {
                Outcome::Failed(tally, "the script checked nothing".into())
            }
            (Ok(tally), ..) => Outcome::Ran(tally),
        },
    };
    if !matches!(&outcome, Outcome::Ran(tally) if tally.failed == 0) {
        println!("{}", servers.logs());
    }
    Ok(outcome)
}

/// Reads the last `{"checks":[{"name":…,"ok":…,"detail":…}]}`; what came by the other pipe may stand behind it.
fn verdict(lines: &[String]) -> Result<Tally, Fault> {
    let Some(last) = lines.iter().rev().find(|line| line.starts_with("{\"checks\"")) else {
        return Err(format!("the script ended without a result: {}", lines.last().map_or("", String::as_str)));
    };
    let told: Value =
        serde_json::from_str(last).map_err(|e| format!("the script's result is no JSON ({e}): {last}"))?;
    let checks = told["checks"].as_array().ok_or_else(|| format!("the script's result has no `checks`: {last}"))?;
    let failed = checks.iter().filter(|check| check["ok"] != true).count();
    Ok(Tally { passed: checks.len() - failed, failed, skipped: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scripts_verdict_is_read_among_its_other_lines() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let said = r#"{"checks":[{"name":"a","ok":true},{"name":"b","ok":false,"detail":"x"},{"name":"c"}]}"#;
        let tally = Tally { passed: 1, failed: 2, skipped: 0 };
        assert_eq!(verdict(&lines(&format!("a: ok\n{said}\n\n"))), Ok(tally));
        assert_eq!(verdict(&lines(&format!("{said}\na warning"))), Ok(tally));
        assert!(verdict(&lines(r#"{"checks":[{"name":"a""#)).is_err());
        assert!(verdict(&[]).is_err());
        assert!(verdict(&lines("{}")).is_err());
    }
}
