//! What is done for a request beside the request: a second target, an answer that waits for its client, and what is told
//! of a decision.

use serde_json::{Value, json};

use crate::common::{Ended, Gateway, Upstream, contains, prompt, request, soon, upstream};
use crate::failover::{cco, check_served, printed, unsigned};

fn provider(upstream: &Upstream, key: &str) -> Value {
    json!({
        "providerType": "anthropic-compatible", "baseUrl": format!("http://{}", upstream.addr),
        "apiKeyRef": format!("env:{key}"), "maxRetries": 0,
    })
}

const KEYS: [(&str, &str); 2] = [("FIRST", "sk-key-of-the-first"), ("SECOND", "sk-key-of-the-second")];

/// The last record, as `cco logs --json` has it.
async fn last(gateway: &Gateway) -> Value {
    let shown = printed(&cco(gateway, &["logs", "show", "last", "--json"]).await);
    serde_json::from_str(&shown).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_provider_answers_where_the_first_does_not_begin_and_the_first_is_cancelled() {
    let (first, second) = (upstream().await, upstream().await);
    let mut config = json!({
        "providers": { "first": provider(&first, "FIRST"), "second": provider(&second, "SECOND") },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first", "second"], "hedgeAfterMs": 100 },
    });
    config["providers"]["first"]["headers"] = json!({ "x-sim-fault": "no-bytes" });
    let gateway = Gateway::start_with(config, &[], &KEYS).await;
    let answer = gateway.ask(unsigned(true)).await;
    check_served(&answer, "second", "2");
    assert_eq!(String::from_utf8_lossy(&answer.body).matches("event: message_start").count(), 1);
    let end = first.last_ended().await.end.unwrap();
    assert_eq!(end.kind, sim::EndKind::ClientGone, "it was told");
    assert_eq!((first.sim.requests().len(), second.sim.requests().len()), (1, 1));
    let record = last(&gateway).await;
    let outcomes: Vec<_> = record["attempts"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(outcomes, ["hedge_lost", "success"], "{record}");
    // Why it went there, and how.
    let told = printed(&cco(&gateway, &["logs", "show", "last", "--route"]).await);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..2], ["route", "  `defaultProvider`, then `fallbackChain`"], "{told}");
    assert!(lines[2].starts_with("  1. first, model claude-") && lines[2].ends_with(", key 1: taken"), "{told}");
    assert!(lines[3].starts_with("  2. second, model claude-"), "{told}");
    assert!(told.contains("\nattempts\n") && told.contains("hedge_lost"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_connection_broke_gets_its_answer_and_pays_once() {
    let upstream = upstream().await;
    let config = json!({
        "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } },
        "routing": { "replaySecs": 600 },
    });
    let gateway = Gateway::start_with(config, &[], &[]).await;
    let ask = |retry: u32| {
        let fields = format!("x-sim: events=40 every=50\r\nx-stainless-retry-count: {retry}\r\n");
        request("POST", "/v1/messages", &fields, prompt("Hello.", true))
    };
    let mut client = gateway.client().await;
    client.send(ask(0)).await;
    let mut answer = client.head().await;
    assert_eq!(answer.status, 200);
    client.read_until(&mut answer, "content_block_delta").await;
    drop(client);
    // Not before the gateway has seen that it went.
    let waiting = async {
        loop {
            let metrics = gateway.ask(request("GET", "/metrics", "", "")).await;
            if metrics.text().contains("cco_replays_waiting 1") {
                return;
            }
        }
    };
    soon(waiting).await;
    let again = gateway.ask(ask(1)).await;
    assert_eq!((again.status, again.ended), (200, Ended::Whole));
    assert!(contains(&again.body, b"event: message_stop") && again.body.starts_with(&answer.body));
    assert_eq!(upstream.sim.requests().len(), 1, "nobody was asked again");
    assert_eq!(again.id(), answer.id());
    let record = last(&gateway).await;
    assert_eq!((&record["deliveries"], &record["outcome"]), (&json!(2), &json!("success")), "{record}");
    let shown = printed(&cco(&gateway, &["logs", "--json"]).await);
    assert_eq!(shown.lines().count(), 1, "one record: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_gone_on_with_and_its_client_sees_one_answer() {
    let upstream = upstream().await;
    let config = json!({
        "providers": { "first": provider(&upstream, "FIRST") },
        "routing": { "defaultProvider": "first", "fallbackChain": ["first"], "continueOnBreak": true },
    });
    let gateway = Gateway::start_with(config, &[], &KEYS).await;
    let body = prompt("Hello.", true).replace("claude-sonnet-5-5", "claude-sonnet-4-5");
    let fields = "x-sim: text=\"one two three four\" fault=cut=4ev times=1\r\nx-api-key: cco\r\n";
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nanthropic-version: 2023-06-01\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = gateway.ask([head.as_bytes(), body.as_bytes()].concat()).await;
    let text = answer.text();
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{text}");
    assert_eq!(upstream.sim.requests().len(), 2, "{text}");
    let second: Value = serde_json::from_slice(&upstream.sim.requests()[1].body).unwrap();
    assert_eq!(second["messages"][1]["role"], "assistant", "{second}");
    assert_eq!(text.matches("event: message_start").count(), 1, "{text}");
    assert_eq!(text.matches("event: message_stop").count(), 1, "{text}");
    assert!(!text.contains("event: error"), "{text}");
    let record = last(&gateway).await;
    assert_eq!((&record["continued"], record["attempts"].as_array().map(Vec::len)), (&json!(1), Some(2)), "{record}");
}
