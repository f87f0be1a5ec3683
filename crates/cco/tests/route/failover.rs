//! A chain of two providers over the network, and what is told of them.

use std::process::Output;

use serde_json::{Value, json};

use crate::common::{
    Answer, Ended, Gateway, Upstream, binary, contains, lay_over, prompt, soon, upstream, upstream_with,
};

/// A request of a client that brings no key.
pub(crate) fn unsigned(stream: bool) -> Vec<u8> {
    unsigned_to("/v1/messages", &prompt("Hello.", stream))
}

fn unsigned_to(target: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

const KEYS: [(&str, &str); 2] = [("FIRST", "sk-key-of-the-first"), ("SECOND", "sk-key-of-the-second")];

/// Two providers with a key of ours each.
fn two(first: &Upstream, second: &Upstream) -> Value {
    let provider = |upstream: &Upstream, key: &str| {
        json!({
            "providerType": "anthropic-compatible",
            "baseUrl": format!("http://{}", upstream.addr),
            "apiKeyRef": format!("env:{key}"),
            "timeoutSecs": 2,
            "idleTimeoutSecs": 2,
            "maxStreamSecs": 4,
            "maxRetries": 0,
        })
    };
    json!({
        "providers": { "first": provider(first, "FIRST"), "second": provider(second, "SECOND") },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first", "second"] },
    })
}

/// A gateway in front of two upstreams of which the first has a fault.
async fn start(first: &Upstream, second: &Upstream, fault: &str) -> Gateway {
    let mut config = two(first, second);
    if !fault.is_empty() {
        config["providers"]["first"]["headers"] = json!({ "x-sim-fault": fault });
    }
    Gateway::start_with(config, &[], &KEYS).await
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
    assert_eq!(output.status.code(), Some(3));
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
    assert!(shown.contains("first: key 1 rests: it does not accept the key (401)"), "{shown}");
    gateway.log_line(&["a stored key is not accepted (401)", "\"provider\":\"first\"", "\"key\":\"key 1\""]).await;
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

/// Each fault of the simulator with an argument where it wants one.
fn every_fault() -> impl Iterator<Item = String> {
    sim::FAULTS.iter().map(|(name, wants, _)| match *name {
        "redirect" => "redirect=http://127.0.0.1:9/".into(),
        "cut" => "cut=0".into(),
        "drip" | "drip-head" => format!("{name}=1"),
        "delay-head" => "delay-head=3000".into(),
        name => {
            assert!(wants.is_empty() || wants.starts_with('['), "`{name}` wants `{wants}`");
            name.into()
        }
    })
}

/// Whether a second provider has to answer in place of one that does this.
fn is_invisible(fault: &str, stream: bool) -> bool {
    match fault.split('=').next().unwrap() {
        "401" | "402" | "403" | "404" | "429" | "500" | "502" | "503" | "504" | "529" | "502-html" => true,
        "error-first" | "close-before-head" | "garbage" | "header-bomb" | "redirect" => true,
        "error-mid" => !stream,
        "no-bytes" | "delay-head" | "cut" | "bad-chunk" => stream,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_the_first_provider_once_over_the_network() {
    let (first, second) = (upstream().await, upstream().await);
    for fault in every_fault() {
        let gateway = start(&first, &second, &fault).await;
        for stream in [true, false] {
            // What is not streamed may take ten minutes to begin.
            if !stream && fault == "no-bytes" {
                continue;
            }
            // What one of them says of limits and keys holds for the next.
            printed(&cco(&gateway, &["providers", "reset", "first"]).await);
            let (asked, served) = (first.sim.requests().len(), second.sim.requests().len());
            let answer = gateway.ask(unsigned(stream)).await;
            let (text, by) = (String::from_utf8_lossy(&answer.body), answer.header("x-cco-provider"));
            assert_eq!(first.sim.requests().len() - asked, 1, "{fault} {stream}: the first was asked once");
            if is_invisible(&fault, stream) {
                check_served(&answer, "second", "2");
                assert!(!stream || text.contains("event: message_stop") && !text.contains("event: error"), "{fault}");
            } else {
                // What comes byte by byte may come too late on a machine that is busy.
                let is_first = by == Some("first") && second.sim.requests().len() == served;
                assert!(is_first || fault.starts_with("drip"), "{fault} {stream}: {by:?}");
                let is_whole =
                    text.contains(if stream { "event: message_stop" } else { "\"stop_reason\":\"end_turn\"" });
                let is_told = answer.status >= 400 || answer.ended != Ended::Whole || text.contains("event: error");
                let is_packed = answer.header("content-encoding").is_some();
                // An object that ends too early within a body that ends in order passes as it came.
                let is_as_it_came = !stream && fault == "truncate";
                assert!(
                    is_whole || is_told || is_packed || is_as_it_came,
                    "{fault} {stream}: {} {text}",
                    answer.status
                );
            }
        }
        // One record of each, and nothing is left running.
        let shown = printed(&cco(&gateway, &["logs", "--json"]).await);
        assert_eq!(shown.lines().count(), if fault == "no-bytes" { 1 } else { 2 }, "{fault}: {shown}");
        gateway.wait_for_health(|health| health["requests"]["running"] == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_alone_is_told_with_what_was_asked_of_it_and_limits_are_told_as_such() {
    let (first, second) = (upstream().await, upstream().await);
    let gateway = start(&first, &second, "404").await;
    let count = json!({ "model": "claude-sonnet-5-5", "messages": [{ "role": "user", "content": "Hello." }] });
    for _ in 0..3 {
        let counted = gateway.ask(unsigned_to("/v1/messages/count_tokens", &count.to_string())).await;
        assert_eq!((counted.status, counted.header("x-cco-provider")), (200, Some("second")), "{}", counted.text());
    }
    let shown = printed(&cco(&gateway, &["providers"]).await);
    assert!(shown.contains("\nfirst: claude-sonnet-5-5 (count_tokens) with key 1 is left alone for"), "{shown}");
    // One whose limits are used up is not asked, and is said to be so.
    let left = "header=\"anthropic-ratelimit-requests-limit: 50\" header=\"anthropic-ratelimit-requests-remaining: 0\" \
                header=\"anthropic-ratelimit-requests-reset: 2099-01-01T00:00:00Z\"";
    let mut config = two(&first, &second);
    lay_over(&mut config, json!({ "providers": { "first": { "headers": { "x-sim": left } } } }));
    let gateway = Gateway::start_with(config, &[], &KEYS).await;
    check_served(&gateway.ask(unsigned(true)).await, "first", "1");
    check_served(&gateway.ask(unsigned(true)).await, "second", "1");
    let shown = printed(&cco(&gateway, &["providers"]).await);
    assert!(shown.contains("\nfirst: claude-sonnet-5-5 with key 1 has no room in its rate limits for"), "{shown}");
    let told: Value = serde_json::from_str(&printed(&cco(&gateway, &["providers", "--json"]).await)).unwrap();
    assert!(told["providers"][0]["circuits"][0]["spent_for_secs"].as_f64() > Some(0.0), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_subscription_is_told_by_the_limits_with_who_serves() {
    let (first, second) = (upstream().await, upstream().await);
    let used_up = "status=429 header=\"anthropic-ratelimit-unified-status: rejected\" \
                   header=\"anthropic-ratelimit-unified-reset: 4102444800\"";
    let mut config = two(&first, &second);
    let home = json!({ "providerType": "anthropic", "headers": { "x-sim": used_up } });
    lay_over(&mut config, json!({ "providers": { "first": home }, "routing": { "onSubscriptionLimit": "second" } }));
    let gateway = Gateway::start_with(config, &[], &KEYS).await;
    assert_eq!(printed(&cco(&gateway, &["limits"]).await), "");
    let ask = String::from_utf8(unsigned(true)).unwrap();
    let ask = ask.replacen("Host", "Authorization: Bearer sk-ant-oat01-of-the-caller-9876\r\nHost", 1);
    check_served(&gateway.ask(&ask).await, "second", "2");
    let shown = printed(&cco(&gateway, &["limits"]).await);
    assert!(shown.starts_with("first …9876: the subscription is used up for "), "{shown}");
    assert!(shown.lines().next().unwrap().ends_with("; `second` serves (`onSubscriptionLimit`)"), "{shown}");
    let told = printed(&cco(&gateway, &["limits", "--json"]).await);
    let told: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    assert_eq!((&told["provider"], &told["served_by"]), (&json!("first"), &json!("second")), "{told}");
    let others = printed(&cco(&gateway, &["limits", "--provider", "sec*"]).await);
    assert!(!others.contains("used up"), "{others}");
}

/// Keys are for their owner alone.
fn write_key(path: &std::path::Path, key: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, key).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
