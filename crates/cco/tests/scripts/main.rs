//! The scripts that users run against their gateway: they pass where all is well, and each way in which a gateway can be
//! broken turns the check red that is meant for it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

#[expect(dead_code, reason = "what these tests leave out others need")]
mod broken;
mod manual;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::json;
use sim::SimConfig;
use tokio::process::Command;

use broken::{Break, broken};
use common::{Gateway, Upstream, soon, upstream_with};

const KEY: &str = "sk-ant-api03-of-the-script-0123-4f2a";
const CHECKS: [&str; 7] = ["daemon", "key", "health", "answer", "stream", "metrics", "audit"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

/// Runs a script with this home; `PATH` leads to the usual programs only.
async fn run(name: &str, home: &Path, args: &[&str], key: Option<&str>) -> Output {
    let mut command = Command::new("bash");
    command.arg(script(name)).args(args).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("CCO", env!("CARGO_BIN_EXE_cco")).env("CCO_HOME", home).env("HOME", home).kill_on_drop(true);
    if let Some(key) = key {
        command.env("ANTHROPIC_API_KEY", key);
    }
    soon(command.output()).await.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The checks that failed, in their order; all seven must have been made.
#[track_caller]
fn red(output: &Output) -> Vec<&'static str> {
    let lines: Vec<&str> = text(&output.stdout).lines().filter(|line| line.contains("/7 ")).collect();
    assert_eq!(lines.len(), 7, "{}{}", text(&output.stdout), text(&output.stderr));
    let check = |(n, line): (usize, &&str)| {
        let rest = line.strip_prefix(&format!("{}/7 ", n + 1)).expect(line);
        assert!(rest[3..].trim_start().starts_with(CHECKS[n]), "{line}");
        assert!(rest.starts_with('✓') || rest.starts_with('✗'), "{line}");
        rest.starts_with('✗').then_some(CHECKS[n])
    };
    let red: Vec<&str> = lines.iter().enumerate().filter_map(check).collect();
    assert_eq!(output.status.code(), Some(i32::from(!red.is_empty())));
    red
}

/// A provider that takes its time between the pieces of a stream.
async fn provider() -> Upstream {
    upstream_with(SimConfig { default: "every=5".parse().unwrap(), ..SimConfig::default() }).await
}

#[tokio::test]
async fn a_gateway_that_keeps_its_promises_passes_all_seven() {
    let provider = provider().await;
    let gateway = Gateway::start(&provider, json!({})).await;
    let output = run("test-gateway-streaming.sh", gateway.home(), &[], Some(KEY)).await;
    assert!(red(&output).is_empty(), "{}{}", text(&output.stdout), text(&output.stderr));
    let out = text(&output.stdout);
    assert!(out.contains("(…4f2a), accepted") && out.ends_with("all 7 checks passed\n"), "{out}");
    assert!(!out.contains('\u{1b}') && !out.contains(KEY), "{out}");
}

#[tokio::test]
async fn a_simulated_run_needs_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = run("test-gateway-streaming.sh", home.path(), &["--simulated"], None).await;
    assert!(red(&output).is_empty(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "it left something");
}

#[tokio::test]
async fn without_a_key_nothing_passes() {
    let home = tempfile::tempdir().unwrap();
    for (name, args) in [
        ("test-gateway-streaming.sh", &[][..]),
        ("test-gateway-streaming-with-creds.sh", &[]),
        ("test-gateway-streaming.sh", &["--nonsense"]),
        ("test-gateway-streaming.sh", &["--model"]),
        ("test-gateway-streaming.sh", &["--url", ""]),
        ("test-gateway-streaming-with-creds.sh", &["--name"]),
    ] {
        let output = run(name, home.path(), args, None).await;
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output.stderr));
        assert!(!text(&output.stdout).contains("passed"));
    }
}

#[tokio::test]
async fn the_key_can_come_from_the_credential_store_and_is_never_printed() {
    let provider = provider().await;
    let gateway = Gateway::start(&provider, json!({})).await;
    let mut store = Command::new(env!("CARGO_BIN_EXE_cco"));
    store.args(["credentials", "store", "ANTHROPIC_API_KEY", KEY, "--backend", "file"]).env_clear();
    let stored = soon(store.env("CCO_HOME", gateway.home()).output()).await.unwrap();
    assert!(stored.status.success(), "{}", text(&stored.stderr));
    let output = run("test-gateway-streaming-with-creds.sh", gateway.home(), &[], None).await;
    assert!(red(&output).is_empty(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(!text(&output.stdout).contains(KEY) && !text(&output.stderr).contains(KEY));
}

#[tokio::test]
async fn each_way_to_be_broken_turns_its_check_red() {
    let provider = provider().await;
    let gateway = Gateway::start(&provider, json!({})).await;
    for (how, want) in [
        (Break::Words("\"status\":\"healthy\"", "\"status\":\"unhealt\""), &["health"][..]),
        (Break::Words("\"output_tokens\":64", "\"output_tokenz\":64"), &["answer"]),
        (Break::Words("x-accel-buffering", "x-accel-bufferinq"), &["stream"]),
        (Break::Words("event: message_delta", "event: massage_delta"), &["stream"]),
        (Break::Words("event: content_block_stop", "event: content_block_stup"), &["stream"]),
        (Break::HeldBack, &["stream"]),
        (Break::Twice, &["metrics"]),
        (Break::Words("x-cco-request-id", "x-cco-request-ix"), &["audit"]),
        (Break::Words("\"total_requests\"", "\"total_requestz\""), &["metrics"]),
    ] {
        let said = format!("{how:?}");
        let proxy = broken(gateway.addr, how).await;
        let url = format!("http://{}", proxy.addr);
        let output = run("test-gateway-streaming.sh", gateway.home(), &["--url", &url], Some(KEY)).await;
        assert_eq!(red(&output), want, "{said}: {}", text(&output.stdout));
    }
}

#[tokio::test]
async fn a_key_that_is_refused_and_a_gateway_of_somebody_else_are_seen() {
    let keys = SimConfig { keys: vec!["sk-ant-api03-the-right-one-0000".into()], ..SimConfig::default() };
    let provider = upstream_with(keys).await;
    let gateway = Gateway::start(&provider, json!({})).await;
    let output = run("test-gateway-streaming.sh", gateway.home(), &[], Some(KEY)).await;
    assert_eq!(red(&output), ["key", "answer", "stream", "metrics", "audit"]);
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://{}", gateway.addr);
    let output = run("test-gateway-streaming.sh", home.path(), &["--url", &url], Some(KEY)).await;
    assert_eq!(red(&output).first(), Some(&"daemon"));
}
