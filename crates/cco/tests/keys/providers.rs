//! Rows of `providers`.

use serde_json::{Value, json};

use crate::common::contains;
use crate::server::until;
use crate::{Ask, Rig, Row, row, there};

/// The first provider is of this kind, and the rest of this.
fn of(kind: &str, more: Value) -> Value {
    let mut provider = json!({ "providerType": kind, "defaultModel": "their-model" });
    crate::lay_over(&mut provider, more);
    json!({ "providers": { "anthropic": provider } })
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("/providers/anthropic/enabled", json!({}), json!(false), ["anthropic", "nobody"], |rig: Rig| async move {
            rig.ask(Ask::default()).await.header("x-cco-provider").unwrap_or("nobody").to_owned()
        }),
        row(
            "/providers/anthropic/providerType",
            of("anthropic-compatible", json!({})),
            json!("openai-compatible"),
            ["/v1/messages", "/v1/chat/completions"],
            |rig: Rig| async move { rig.target(Ask::default()).await },
        ),
        row(
            "/providers/anthropic/protocol",
            of("openai", json!({})),
            json!("openai-chat"),
            ["/v1/responses", "/v1/chat/completions"],
            |rig: Rig| async move { rig.target(Ask::default()).await },
        ),
        row(
            "/providers/anthropic/baseUrl",
            json!({}),
            json!("http://ONE/behind"),
            ["/v1/messages", "/behind/v1/messages"],
            |rig: Rig| async move {
                rig.ask(Ask::default()).await;
                rig.one.last().target
            },
        ),
        row(
            "/providers/anthropic/apiKeyRef",
            json!({}),
            json!("env:THREE"),
            ["key-of-the-first", "a-third-key"],
            |rig: Rig| async move { rig.sent(Ask::default(), "x-api-key").await },
        ),
        row("/providers/anthropic/apiKeyTtlSecs", json!({}), json!(0.05), ["once", "again"], helper),
        row(
            "/providers/anthropic/apiKeyMode",
            json!({}),
            json!("stored"),
            ["sk-ant-api03-of-the-caller", "key-of-the-first"],
            |rig: Rig| async move { rig.sent(Ask::with("x-api-key: sk-ant-api03-of-the-caller\r\n"), "x-api-key").await },
        ),
        row(
            "/providers/anthropic/defaultModel",
            of("openai", json!({})),
            json!("another-model"),
            ["\"their-model\"", "\"another-model\""],
            |rig: Rig| async move { rig.told(Ask::default(), "/model").await },
        ),
        row(
            "/providers/anthropic/modelAliases",
            json!({}),
            json!({ "fast": "claude-haiku-5-5" }),
            ["\"fast\"", "\"claude-haiku-5-5\""],
            |rig: Rig| async move { rig.told(Ask::model("fast"), "/model").await },
        ),
        row("/providers/anthropic/maxRetries", json!({}), json!(0), ["2", "1"], |rig: Rig| async move {
            let before = rig.one.sim.requests().len();
            rig.ask(Ask::streamed("text=ok fault=529=1")).await;
            (rig.one.sim.requests().len() - before).to_string()
        }),
        row("/providers/anthropic/timeoutSecs", json!({}), json!(0.1), ["200", "504"], |rig: Rig| async move {
            rig.status(Ask::streamed("text=late fault=delay-head=1500")).await
        }),
        there(
            "/providers/anthropic/connectTimeoutSecs",
            "cco/tests/relay/time.rs",
            "an_upstream_that_takes_no_connection_gets_504",
        ),
        row("/providers/anthropic/idleTimeoutSecs", json!({}), json!(0.3), ["whole", "cut"], |rig: Rig| async move {
            ended(&rig.ask(Ask::streamed("events=2 every=2000")).await)
        }),
        row("/providers/anthropic/maxStreamSecs", json!({}), json!(0.5), ["whole", "cut"], |rig: Rig| async move {
            ended(&rig.ask(Ask::streamed("events=30 every=100")).await)
        }),
        row(
            "/providers/anthropic/headers",
            json!({}),
            json!({ "x-team": "blue" }),
            ["nothing", "blue"],
            |rig: Rig| async move { rig.sent(Ask::default(), "x-team").await },
        ),
        row(
            "/providers/anthropic/deployment",
            of("azure", json!({ "deployment": "d", "apiVersion": "2024-10-21" })),
            json!("e"),
            [
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
                "/openai/deployments/e/chat/completions?api-version=2024-10-21",
            ],
            |rig: Rig| async move { rig.target(Ask::default()).await },
        ),
        row(
            "/providers/anthropic/apiVersion",
            of("azure", json!({ "deployment": "d", "apiVersion": "2024-10-21" })),
            json!("2025-01-01"),
            [
                "/openai/deployments/d/chat/completions?api-version=2024-10-21",
                "/openai/deployments/d/chat/completions?api-version=2025-01-01",
            ],
            |rig: Rig| async move { rig.target(Ask::default()).await },
        ),
        row(
            "/providers/anthropic/numCtx",
            of("ollama", json!({ "numCtx": 16384 })),
            json!(32768),
            ["16384", "32768"],
            |rig: Rig| async move { rig.told(Ask::default(), "/options/num_ctx").await },
        ),
        row(
            "/providers/anthropic/maxOutputTokens",
            of("openai", json!({ "protocol": "openai-chat" })),
            json!(500),
            ["1000", "500"],
            |rig: Rig| async move { rig.told(Ask::default(), "/max_completion_tokens").await },
        ),
        row(
            "/providers/anthropic/maxConcurrent",
            json!({ "providers": { "anthropic": { "maxQueued": 0 } } }),
            json!(1),
            ["200", "529"],
            second,
        ),
        row(
            "/providers/anthropic/maxQueued",
            json!({ "providers": { "anthropic": { "maxConcurrent": 1 } } }),
            json!(0),
            ["200", "529"],
            second,
        ),
    ]
}

fn ended(answer: &crate::common::Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    if contains(&answer.body, b"message_stop") { "whole".into() } else { "cut".into() }
}

/// What a request gets while another one runs.
async fn second(rig: Rig) -> String {
    let gateway = rig.gateway().await;
    let mut first = gateway.client().await;
    first.send(Ask::streamed("events=20 every=100").request()).await;
    let mut answer = first.head().await;
    first.read_until(&mut answer, "content_block_delta").await;
    gateway.ask(Ask::default().request()).await.status.to_string()
}

/// Whether a helper that prints a key is asked a second time.
async fn helper(mut rig: Rig) -> String {
    let (script, asked) = (rig.path().join("helper"), rig.path().join("asked"));
    std::fs::write(&script, format!("#!/bin/sh\necho x >> {}\necho a-key\n", asked.display())).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let lives_long = rig.config["providers"]["anthropic"].get("apiKeyTtlSecs").is_none();
    rig.config["providers"]["anthropic"]["apiKeyRef"] = format!("exec:{}", script.display()).into();
    std::fs::write(rig.path().join("config.json"), rig.config.to_string()).unwrap();
    let gateway = rig.gateway().await;
    let times = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    until(&gateway, Ask::default, |_| times() > usize::from(!lives_long)).await;
    // Of the long one: it has had the time in which the other one is asked anew.
    if lives_long {
        for _ in 0..20 {
            gateway.ask(Ask::whole("text=ok first=100").request()).await;
        }
    }
    if times() > 1 { "again".into() } else { "once".into() }
}
