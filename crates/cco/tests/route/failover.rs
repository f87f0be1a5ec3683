//! A chain of two providers over the network, and what is told of them.

use std::process::Output;

use serde_json::{Value, json};

use crate::common::{Answer, Ended, Gateway, Upstream, binary, contains, prompt, soon, upstream, upstream_with};

/// A request of a client that brings no key.
pub(crate) fn unsigned(stream: bool) -> Vec<u8> {
    let body = prompt("Hello.", stream);
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A gateway in front of two upstreams of which the first has a fault.
async fn start(first: &Upstream, second: &Upstream, fault: &str) -> Gateway {
    let provider = |upstream: &Upstream, key: &str| {
        json!({
            "providerType": "anthropic-compatible",
            "baseUrl": format!("http://{}", upstream.addr),
            "apiKeyRef": format!("env:{key}"),
            "timeoutSecs": 2,
            "maxRetries": 0,
        })
    };
    let mut config = json!({
        "providers": { "first": provider(first, "FIRST"), "second": provider(second, "SECOND") },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first", "second"] },
    });
    if !fault.is_empty() {
        config["providers"]["first"]["headers"] = json!({ "x-sim-fault": fault });
    }
    Gateway::start_with(config, &[], &[("FIRST", "sk-key-of-the-first"), ("SECOND", "sk-key-of-the-second")]).await
}

pub(crate) async fn cco(gateway: &Gateway, args: &[&str]) -> Output {
    binary().env("CCO_HOME", gateway.home()).args(args).output().await.unwrap()
}

pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
pub(crate) fn check_served(answer: &Answer, provider: &str, attempts: &str) {
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{}", answer.text());
    assert_eq!((answer.header("x-cco-provider"), answer.header("x-cco-attempts")), (Some(provider), Some(attempts)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_first_provider_is_invisible_and_seen_in_what_is_told_of_it() {
    let (first, second) = (upstream().await, upstream().await);
    for (fault, stream) in [
        ("529", true),
        ("500", false),
        ("no-bytes", true),
        ("cut=0", true),
        ("error-first", true),
        ("close-before-head", false),
    ] {
        let gateway = start(&first, &second, fault).await;
        let (asked, served) = (first.sim.requests().len(), second.sim.requests().len());
        let answer = gateway.ask(unsigned(stream)).await;
        check_served(&answer, "second", "2");
        assert!(!stream || contains(&answer.body, b"event: message_stop") && !contains(&answer.body, b"event: error"));
        assert_eq!((first.sim.requests().len() - asked, second.sim.requests().len() - served), (1, 1), "{fault}");
        assert_eq!(first.last().header_all("x-api-key"), ["sk-key-of-the-first"]);
        assert_eq!(second.last().header_all("x-api-key"), ["sk-key-of-the-second"]);
        // Its record names both.
        let shown = printed(&cco(&gateway, &["logs", "--json"]).await);
        let record: Value = serde_json::from_str(shown.lines().last().unwrap()).unwrap();
        assert_eq!(record["outcome"], "success", "{record}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_left_alone_is_told_with_the_reason_and_can_be_tried_anew() {
    let (first, second) = (upstream().await, upstream().await);
    let gateway = start(&first, &second, "503").await;
    for _ in 0..3 {
        check_served(&gateway.ask(unsigned(true)).await, "second", "2");
    }
    check_served(&gateway.ask(unsigned(true)).await, "second", "1");
    let shown = printed(&cco(&gateway, &["providers"]).await);
    let line = |begins: &str| shown.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{shown}"));
    assert!(line("first ").contains("resting") && line("second ").contains("well"), "{shown}");
    assert!(
        line("first: ").contains("with key 1 is left alone for")
            && line("first: ").ends_with("it answered with status 503")
    );
    let told: Value = serde_json::from_str(&printed(&cco(&gateway, &["providers", "--json"]).await)).unwrap();
    let circuit = &told["providers"][0]["circuits"][0];
    assert_eq!((&circuit["state"], &circuit["operation"]), (&json!("open"), &json!("generation")), "{told}");
    let metrics = gateway.ask(crate::common::request("GET", "/metrics", "", "")).await;
    assert!(metrics.text().contains("cco_circuit_state{provider=\"first\","), "{}", metrics.text());
    assert_eq!(printed(&cco(&gateway, &["providers", "reset", "first"]).await), "`first` is tried anew\n");
    check_served(&gateway.ask(unsigned(true)).await, "second", "2");
    let missing = cco(&gateway, &["providers", "reset", "nobody"]).await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no provider `nobody` is enabled"), "{missing:?}");
    let nobody = tempfile::tempdir().unwrap();
    let output = binary().env("CCO_HOME", nobody.path()).args(["providers", "reset", "first"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no gateway is running here"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_replaced_is_tried_at_once_though_the_old_one_was_refused() {
    let right = "sk-ant-api03-the-right-one";
    let first = upstream_with(sim::SimConfig { keys: vec![right.into()], ..Default::default() }).await;
    let second = upstream().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    write_key(&key, "sk-ant-api03-the-wrong-one");
    let provider = |upstream: &Upstream, reference: String| json!({ "providerType": "anthropic-compatible", "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": reference });
    let config = json!({
        "providers": { "first": provider(&first, format!("file:{}", key.display())), "second": provider(&second, "env:SECOND".into()) },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first", "second"] },
    });
    let gateway = Gateway::start_with(config, &[], &[("SECOND", "sk-key-of-the-second")]).await;
    check_served(&gateway.ask(unsigned(false)).await, "second", "2");
    check_served(&gateway.ask(unsigned(false)).await, "second", "1");
    let shown = printed(&cco(&gateway, &["providers"]).await);
    assert!(shown.contains("first: key 1 is not accepted"), "{shown}");
    write_key(&key, right);
    let answer = soon(async {
        loop {
            let answer = gateway.ask(unsigned(false)).await;
            if answer.header("x-cco-provider") == Some("first") {
                return answer;
            }
        }
    });
    check_served(&answer.await, "first", "1");
}

/// Keys are for their owner alone.
fn write_key(path: &std::path::Path, key: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, key).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
