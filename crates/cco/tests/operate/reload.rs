//! The configuration changes while the gateway serves.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    Answer, Ended, Gateway, KEY, Upstream, contains, prompt, request, streamed, until, upstream, whole,
};

/// Writes the configuration of a gateway anew; a half of it is never seen.
fn write(gateway: &Gateway, text: &str) {
    let (file, beside) = (gateway.home().join("config.json"), gateway.home().join("config.json.new"));
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, file).unwrap();
}

/// A configuration whose only provider is this simulator.
fn config(upstream: &Upstream, more: Value) -> String {
    let mut config = json!({ "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } } });
    crate::common::lay_over(&mut config, more);
    config.to_string()
}

/// Has it loaded again, and waits for what comes of it.
async fn reload(gateway: &Gateway) -> Answer {
    let token = std::fs::read_to_string(gateway.home().join("admin-token")).unwrap();
    let more = format!("authorization: Bearer {}\r\n", token.trim());
    gateway.ask(request("POST", "/gateway/reload", &more, "").as_slice()).await
}

/// Puts another configuration in place.
async fn change(gateway: &Gateway, upstream: &Upstream, more: Value) -> Value {
    write(gateway, &config(upstream, more));
    let told = reload(gateway).await;
    assert_eq!(told.status, 200, "{}", told.text());
    told.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_ends_because_the_configuration_changes_or_is_wrong() {
    const STREAMS: usize = 200;
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut client = gateway.client().await;
        streams.spawn(async move { client.ask(streamed("events=60 every=100")).await });
    }
    gateway.wait_for_health(|health| health["requests"]["running"] == STREAMS).await;
    for n in 0..100 {
        if n % 2 == 0 {
            let told = change(&gateway, &upstream, json!({ "server": { "pingSecs": 20 + n } })).await;
            assert!(told["changes"][0].as_str().unwrap().starts_with("server.pingSecs: "), "{told}");
        } else {
            write(&gateway, "{ \"server\": { \"pingSecs\": \"never\" } }");
            let refused = reload(&gateway).await.refusal(400, "invalid_request_error");
            assert!(refused.contains("what held before holds on") && refused.contains(":1:"), "{refused}");
        }
    }
    let health = gateway.health().await;
    assert_eq!(
        (&health["requests"]["running"], &health["config"]["reloads"]),
        (&json!(STREAMS), &json!(50)),
        "{health}"
    );
    while let Some(answer) = streams.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        assert!(contains(&answer.body, b"event: message_stop") && !contains(&answer.body, b"event: error"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_file_is_noticed_and_a_wrong_one_is_told_until_it_is_put_right() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    write(&gateway, &config(&upstream, json!({ "server": { "maxBodyMb": 0.001 } })));
    gateway.wait_for_health(|health| health["config"]["reloads"] == 1).await;
    let line = gateway.log_line(&["server.maxBodyMb: 64 -> 0.001"]).await;
    assert_eq!(line["target"], "cco::config", "{line}");
    let large = request("POST", "/v1/messages", "", prompt(&"x".repeat(4000), false));
    assert_eq!(gateway.ask(&large).await.status, 413);
    write(&gateway, "{ nonsense");
    gateway.wait_for_health(|health| health["config"]["state"] == "invalid").await;
    let health = gateway.health().await;
    assert!(health["config"]["cause"].as_str().unwrap().contains("not well-formed"), "{health}");
    assert_eq!(health["status"], "healthy", "it serves on");
    assert_eq!(gateway.ask(&large).await.status, 413, "what held before holds on");
    write(&gateway, &config(&upstream, json!({ "server": { "maxBodyMb": 0.001 } })));
    gateway.wait_for_health(|health| health["config"]["state"] == "good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_has_the_same_effect() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    gateway.signal("HUP").await;
    gateway.wait_for_health(|health| health["config"]["reloads"] == 1).await;
    assert_eq!(gateway.ask(whole("text=ok")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_start_is_said_and_no_secret_is() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let told = change(
        &gateway,
        &upstream,
        json!({
            "server": { "listen": "127.0.0.1:1" }, "audit": { "retentionDays": 3 }, "log": { "files": 3 },
            "providers": { "anthropic": { "headers": { "x-team": "geheim" } } },
        }),
    )
    .await;
    assert_eq!(told["needs_restart"], json!(["server.listen", "audit.retentionDays", "log.files"]), "{told}");
    gateway.log_line(&["takes effect at the next start", "server.listen"]).await;
    assert!(!told.to_string().contains("geheim") && !gateway.log().contains("geheim"));
    assert_eq!(gateway.health().await["config"]["needs_restart"], told["needs_restart"]);
    let told = change(&gateway, &upstream, json!({})).await;
    assert_eq!(told["needs_restart"], json!([]), "taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_more_and_in_another_form_at_once() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "log": { "level": "warn" } })).await;
    assert!(!gateway.log().contains("serving"), "{}", gateway.log());
    let told = change(&gateway, &upstream, json!({ "log": { "level": "debug" } })).await;
    assert_eq!(told["needs_restart"], json!([]), "{told}");
    gateway.ask(whole("text=one")).await;
    gateway.log_line(&["\"level\":\"DEBUG\""]).await;
    change(&gateway, &upstream, json!({ "log": { "level": "info", "format": "human" } })).await;
    change(&gateway, &upstream, json!({ "log": { "level": "info", "format": "json" } })).await;
    // What came in between is written for people.
    gateway.log_line(&["log.format", "\"timestamp\""]).await;
    assert!(gateway.log().lines().any(|line| line.contains(" INFO cco::config: ")), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_the_configuration_that_it_began_with_and_the_next_has_the_new_one() {
    let (first, second) = (upstream().await, upstream().await);
    let gateway = Gateway::start(&first, json!({})).await;
    let mut client = gateway.client().await;
    client.send(streamed("events=4 every=300")).await;
    let mut answer = client.head().await;
    change(&gateway, &second, json!({})).await;
    client.read_until(&mut answer, "event: message_stop").await;
    assert_eq!(second.sim.requests().len(), 0);
    // A new connection and the one that was there before.
    assert_eq!(gateway.ask(whole("text=ok")).await.status, 200);
    assert_eq!(client_again(client, &mut answer).await, 200);
    assert_eq!((first.sim.requests().len(), second.sim.requests().len()), (1, 2));
}

/// Reads to the end of an answer, then asks once more on the same connection.
async fn client_again(mut client: crate::common::Client, _answer: &mut Answer) -> u16 {
    while !matches!(client.piece().await, crate::common::Piece::End(_)) {}
    client.ask(whole("text=ok")).await.status
}

/// Changes one thing, and sees that it has become true.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_work_without_a_start_work_after_a_change() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let get = |more: &str| request("GET", "/v1/models", more, "");
    let unsigned = "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let messages = |script: &str| whole(script);

    // server.hosts, server.origins
    let foreign = "GET /health HTTP/1.1\r\nHost: my-container\r\n\r\n";
    assert_eq!(gateway.ask(foreign).await.status, 403);
    change(&gateway, &upstream, json!({ "server": { "hosts": ["my-container"] } })).await;
    assert_eq!(gateway.ask(foreign).await.status, 200);
    let webview = "GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: vscode-webview://abc\r\n\r\n";
    assert_eq!(gateway.ask(webview).await.status, 403);
    change(&gateway, &upstream, json!({ "server": { "origins": ["vscode-webview://abc"] } })).await;
    assert_eq!((gateway.ask(webview).await.status, gateway.ask(foreign).await.status), (200, 403));

    // providers.NAME.headers
    change(&gateway, &upstream, json!({ "providers": { "anthropic": { "headers": { "x-team": "blue" } } } })).await;
    gateway.ask(get("")).await;
    assert_eq!(sent(&upstream, "x-api-key").as_deref(), Some(KEY));
    assert_eq!(sent(&upstream, "x-team").as_deref(), Some("blue"));

    // providers.NAME.apiKeyRef, apiKeyMode
    let file = gateway.home().join("key");
    std::fs::write(&file, "sk-ant-api03-from-a-file").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let stored = json!({ "providers": { "anthropic": { "apiKeyRef": format!("file:{}", file.display()), "apiKeyMode": "stored" } } });
    change(&gateway, &upstream, stored).await;
    gateway.ask(get("")).await;
    assert_eq!(sent(&upstream, "x-api-key").as_deref(), Some("sk-ant-api03-from-a-file"));

    // providers.NAME.timeoutSecs, enabled
    change(&gateway, &upstream, json!({ "providers": { "anthropic": { "timeoutSecs": 0.1 } } })).await;
    assert_eq!(gateway.ask(streamed("text=late fault=delay-head=3000")).await.status, 504);
    change(&gateway, &upstream, json!({ "providers": { "anthropic": { "enabled": false } } })).await;
    let refused = gateway.ask(messages("text=ok")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("the provider `anthropic`, which is disabled"), "{}", refused.text());

    // routing.defaultProvider
    let other = json!({
        "providers": { "anthropic": { "headers": { "x-team": "blue" } }, "b": {
            "providerType": "anthropic", "baseUrl": format!("http://{}", upstream.addr), "headers": { "x-team": "red" }
        } },
        "routing": { "defaultProvider": "b" },
    });
    change(&gateway, &upstream, other).await;
    assert_eq!(gateway.ask(messages("text=ok")).await.status, 200);
    assert_eq!(sent(&upstream, "x-team").as_deref(), Some("red"));

    // audit.logRequestBodies, logResponseBodies
    let kept = async || gateway.health().await["bodies"]["stored"].as_u64().unwrap();
    change(&gateway, &upstream, json!({ "audit": { "logRequestBodies": false, "logResponseBodies": false } })).await;
    let before = kept().await;
    gateway.ask(messages("text=one")).await;
    change(&gateway, &upstream, json!({})).await;
    gateway.ask(messages("text=two")).await;
    until(async || kept().await != before).await;

    // costTracking.pricingOverrides
    let dear = json!({ "costTracking": { "pricingOverrides": { "claude-sonnet-5-5": { "inputPerMillion": 1000, "outputPerMillion": 1000 } } } });
    change(&gateway, &upstream, dear).await;
    let id = gateway.ask(messages("text=dear input_tokens=1000 output_tokens=1000")).await.id().to_owned();
    let shown = shown(&gateway, &id).await;
    assert_eq!(shown["record"]["cost_usd"], 2.0, "{shown}");

    // server.openStoredKeys changes who may, audit.onFailure what follows: both are read when a request comes.
    assert_eq!(gateway.ask(unsigned).await.status, 401);
}

/// A field of what the upstream received last.
fn sent(upstream: &Upstream, name: &str) -> Option<String> {
    let last = upstream.last();
    let found = last.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
}

/// What the ledger says of an exchange.
async fn shown(gateway: &Gateway, id: &str) -> Value {
    let token = std::fs::read_to_string(gateway.home().join("admin-token")).unwrap();
    let more = format!("authorization: Bearer {}\r\n", token.trim());
    gateway.ask(request("GET", &format!("/gateway/audit/{id}"), &more, "").as_slice()).await.json()
}
