//! Routing with the real program: `cco route` as a user runs it (a configuration and a request in, targets, reasons and
//! exit codes out), a chain of providers, and `cco providers`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod beside;
mod failover;
#[cfg(target_os = "linux")]
mod hosts;
mod weather;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const CONFIG: &str = r#"{
  // the default stays as it is
  "providers": {
    "anthropic": {},
    "cheap": { "providerType": "anthropic-compatible", "baseUrl": "https://cheap.test", "apiKeyRef": "env:CHEAP" },
  },
  "routing": {
    "fallbackChain": ["anthropic", "cheap"],
    "agentRules": { "Explore": { "provider": "cheap", "model": "small" } },
    "rules": [
      { "name": "no opus", "when": { "model": "*opus*", "project": "toys" }, "use": { "refuse": "toys get no opus" } },
    ],
  },
}"#;

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), CONFIG).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cco"));
        command.env_clear().env("CCO_HOME", self.0.path()).arg("route").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that does not read it may be gone already.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    #[track_caller]
    fn check(&self, arguments: &[&str], stdin: &str, code: i32, out: &str) {
        let output = self.run(arguments, stdin);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*stdout), (Some(code), out), "{arguments:?}\n{stderr}");
    }
}

#[test]
fn a_request_is_explained_from_options_a_body_or_as_it_came() {
    let home = Home::new();
    let cheap = "rule 1 `no opus`: no, `model` does not hold: `claude-haiku-5-5`
agent type `Explore` is in `agentRules`
1. cheap, model small, key 1: taken
2. anthropic, model claude-haiku-5-5, the caller's key: taken
3. cheap, model claude-haiku-5-5, key 1: taken
";
    home.check(
        &["explain", "--model", "claude-haiku-5-5", "--sub-agent", "--agent-type", "Explore", "--stream"],
        "",
        0,
        cheap,
    );
    let body = r#"{"model":"claude-haiku-5-5","metadata":{"agent_type":"explore"}}"#;
    home.check(&["explain", "--request", "-"], body, 0, cheap);
    let whole = "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-cco-agent: Explore\r\n\r\n{\"model\":\"claude-haiku-5-5\"}";
    let file = home.file("request.http", whole);
    home.check(&["explain", "--request", file.to_str().unwrap()], "", 0, cheap);
    home.check(
        &["explain", "--model", "claude-opus-5-5", "--header", "x-cco-project: toys"],
        "",
        0,
        "rule 1 `no opus` refuses: toys get no opus\nrefused: toys get no opus\n",
    );
}

#[test]
fn an_explanation_can_be_read_by_a_machine() {
    let home = Home::new();
    let output = home.run(&["explain", "--model", "claude-opus-5-5", "--key", "own-only", "--json"], "");
    let got: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let want = serde_json::json!({
        "targets": [{ "provider": "anthropic", "model": "claude-opus-5-5", "key": "the caller's key" }],
        "rule": null,
        "cause": "defaultProvider",
        "refused": null,
        "unmatched": [{ "rule": 1, "name": "no opus", "condition": "project", "found": "no project" }],
        "candidates": [
            { "provider": "anthropic", "model": "claude-opus-5-5", "verdict": "taken" },
            { "provider": "cheap", "model": "claude-opus-5-5", "verdict": "no_right" },
        ],
    });
    assert_eq!(got, want);
}

#[test]
fn expectations_are_checked_one_by_one_and_the_exit_code_says_whether_all_are_met() {
    let home = Home::new();
    let met = r#"[
        { "name": "agents search cheaply", "request": { "agentType": "Explore" }, "expect": { "provider": "cheap", "model": "small" } },
        { "request": { "model": "claude-opus-5-5", "project": "toys" }, "expect": { "refused": "no opus", "rule": "no opus" } }
    ]"#;
    home.check(&["test", "-"], met, 0, "ok      agents search cheaply\nok      case 2\n2 met, 0 not met\n");
    let unmet =
        r#"[{ "name": "wrong", "request": { "model": "claude-opus-5-5" }, "expect": { "provider": "cheap" } }]"#;
    home.check(
        &["test", "-"],
        unmet,
        1,
        "FAILED  wrong
        provider: expected `cheap`, got `anthropic`
        rule 1 `no opus`: no, `project` does not hold: no project
        `defaultProvider`, then `fallbackChain`
        1. anthropic, model claude-opus-5-5, the caller's key: taken
        2. cheap, model claude-opus-5-5, key 1: taken
0 met, 1 not met
",
    );
}

#[test]
fn what_cannot_be_used_is_told_with_an_exit_code_of_its_own() {
    let home = Home::new();
    for (arguments, stdin, code, told) in [
        (&["test", "-"][..], "[]", 2, "expects nothing"),
        (&["test", "-"], r#"[{ "request": { "modle": "x" }, "expect": {} }]"#, 2, "unknown field `modle`"),
        (&["test", "/nowhere/at-all.json"], "", 2, "cannot be used"),
        (&["explain", "--request", "/nowhere/at-all.json"], "", 2, "cannot read"),
        (&["explain", "--request", "-"], "hello", 2, "this is no request"),
        (&["explain", "--at", "soon"], "", 2, "`soon` is no time"),
        (&["explain", "--header", "x"], "", 2, "NAME: VALUE"),
        (&["explain", "--config", "/nowhere/at-all.json"], "", 78, "there is no configuration"),
    ] {
        let output = home.run(arguments, stdin);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(told), "{arguments:?}: {stderr}");
    }
}
