//! Rows of `routing`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::common::contains;
use crate::{Ask, Rig, Row, row, there};

/// The test that a session keeps to its provider, and the one that it does not have to.
const ROUTE: &str = "gateway/src/route/tests/choice.rs";

/// A rule that sends everything, or what is `when`, to the second provider.
fn ruled(when: Value, then: Value) -> Value {
    let mut used = json!({ "providers": ["two"] });
    crate::lay_over(&mut used, then);
    json!({ "routing": { "rules": [{ "when": when, "use": used }] } })
}

/// A rule that held without this condition, and with it does not.
fn when(at: &'static str, value: Value, ask: fn() -> Ask) -> Row {
    let all = ruled(json!({}), json!({}));
    row(at, all, value, ["200 two", "200 anthropic"], move |rig: Rig| async move { rig.served(ask()).await })
}

pub(crate) fn rows() -> Vec<Row> {
    let plain = Ask::default;
    let scout = || Ask::with("x-cco-agent: scout\r\n");
    let to_one = |pointer: &'static str, with: Value| {
        row(pointer, with, json!("two"), ["200 anthropic", "200 two"], |rig: Rig| async move {
            rig.served(Ask::with("x-cco-agent: scout\r\n")).await
        })
    };
    vec![
        row(
            "/routing/defaultProvider",
            json!({}),
            json!("two"),
            ["200 anthropic", "200 two"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        row(
            "/routing/fallbackChain",
            json!({ "providers": { "anthropic": { "headers": { "x-sim-fault": "500" } } } }),
            json!(["anthropic", "two"]),
            ["500 anthropic", "200 two"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        to_one(
            "/routing/agentRules/scout/provider",
            json!({ "routing": { "agentRules": { "scout": { "provider": "anthropic" } } } }),
        ),
        row(
            "/routing/agentRules/scout/model",
            json!({ "routing": { "agentRules": { "scout": { "provider": "anthropic" } } } }),
            json!("claude-haiku-5-5"),
            ["\"claude-sonnet-5-5\"", "\"claude-haiku-5-5\""],
            move |rig: Rig| async move { rig.told(scout(), "/model").await },
        ),
        row(
            "/routing/modelTierRules",
            json!({}),
            json!({ "sonnet": "two" }),
            ["200 anthropic", "200 two"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        row(
            "/routing/rules/0/name",
            ruled(json!({}), json!({})),
            json!("my rule"),
            ["rule 1", "my rule"],
            |rig: Rig| async move {
                let said = rig.command(&["route", "explain", "--model", "claude-sonnet-5-5"]).await;
                if said.contains("my rule") {
                    "my rule".into()
                } else if said.contains("rule") {
                    "rule 1".to_owned()
                } else {
                    said
                }
            },
        ),
        when("/routing/rules/0/when/model", json!("gpt-*"), Ask::default),
        when("/routing/rules/0/when/protocol", json!("openai-chat"), Ask::default),
        when("/routing/rules/0/when/agent", json!("sub"), Ask::default),
        when("/routing/rules/0/when/agentType", json!("scout"), Ask::default),
        when("/routing/rules/0/when/session", json!("s-*"), Ask::default),
        when("/routing/rules/0/when/project", json!("cco"), || Ask::with("x-cco-project: another\r\n")),
        when("/routing/rules/0/when/headers", json!({ "x-team": "blue" }), || Ask::with("x-team: red\r\n")),
        row(
            "/routing/rules/0/when/keyId",
            ruled(json!({}), json!({})),
            json!("…zzzz"),
            ["200 two", "200 anthropic"],
            |rig: Rig| async move { rig.served(Ask::with("x-api-key: sk-ant-api03-of-the-caller\r\n")).await },
        ),
        when("/routing/rules/0/when/stream", json!(true), Ask::default),
        when("/routing/rules/0/when/thinking", json!(true), Ask::default),
        when("/routing/rules/0/when/tools", json!(true), Ask::default),
        when("/routing/rules/0/when/images", json!(true), Ask::default),
        when("/routing/rules/0/when/promptTokensOver", json!(100_000), Ask::default),
        when("/routing/rules/0/when/promptTokensUpTo", json!(1), Ask::default),
        when("/routing/rules/0/when/inFlightOver", json!(1000), Ask::default),
        when("/routing/rules/0/when/hoursUtc", json!(another_hour()), Ask::default),
        row(
            "/routing/rules/0/use/providers/0/provider",
            json!({ "routing": { "rules": [{ "use": { "providers": [{ "provider": "anthropic" }] } }] } }),
            json!("two"),
            ["200 anthropic", "200 two"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        row(
            "/routing/rules/0/use/providers/0/model",
            json!({ "routing": { "rules": [{ "use": { "providers": [{ "provider": "anthropic" }] } }] } }),
            json!("claude-haiku-5-5"),
            ["\"claude-sonnet-5-5\"", "\"claude-haiku-5-5\""],
            move |rig: Rig| async move { rig.told(plain(), "/model").await },
        ),
        row(
            "/routing/rules/0/use/providers/0/weight",
            json!({ "routing": { "rules": [{ "use": {
                "providers": [{ "provider": "anthropic", "weight": 1 }, { "provider": "two", "weight": 1 }], "pick": "weight",
            } }] } }),
            json!(1_000_000),
            ["both, or the second", "the first alone"],
            drawn,
        ),
        row(
            "/routing/rules/0/use/pick",
            json!({ "routing": { "rules": [{ "use": {
                "providers": [{ "provider": "two", "weight": 0 }, { "provider": "anthropic", "weight": 1 }],
            } }] } }),
            json!("weight"),
            ["200 two", "200 anthropic"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        row(
            "/routing/rules/0/use/fallback",
            json!({
                "providers": { "two": { "headers": { "x-sim-fault": "500" } } },
                "routing": { "rules": [{ "use": { "providers": ["two"] } }] },
            }),
            json!(false),
            ["200 anthropic", "500 two"],
            move |rig: Rig| async move { rig.served(plain()).await },
        ),
        row(
            "/routing/rules/0/use/model",
            json!({ "routing": { "rules": [{ "use": { "providers": ["anthropic"] } }] } }),
            json!("claude-haiku-5-5"),
            ["\"claude-sonnet-5-5\"", "\"claude-haiku-5-5\""],
            move |rig: Rig| async move { rig.told(plain(), "/model").await },
        ),
        row(
            "/routing/rules/0/use/timeoutSecs",
            ruled(json!({}), json!({ "fallback": false })),
            json!(0.1),
            ["200", "504"],
            |rig: Rig| async move { rig.status(Ask::streamed("text=late fault=delay-head=1500")).await },
        ),
        row(
            "/routing/rules/0/use/idleTimeoutSecs",
            ruled(json!({}), json!({ "fallback": false })),
            json!(0.3),
            ["whole", "cut"],
            |rig: Rig| async move { ended(rig, "events=2 every=2000").await },
        ),
        row(
            "/routing/rules/0/use/maxStreamSecs",
            ruled(json!({}), json!({ "fallback": false })),
            json!(0.5),
            ["whole", "cut"],
            |rig: Rig| async move { ended(rig, "events=30 every=100").await },
        ),
        row(
            "/routing/rules/0/use/headers",
            json!({ "routing": { "rules": [{ "use": { "providers": ["anthropic"] } }] } }),
            json!({ "x-team": "red" }),
            ["nothing", "red"],
            move |rig: Rig| async move { rig.sent(plain(), "x-team").await },
        ),
        row(
            "/routing/rules/0/use/refuse",
            json!({ "routing": { "rules": [{ "use": { "refuse": "come again" } }] } }),
            json!("not today"),
            ["come again", "not today"],
            |rig: Rig| async move {
                let refused = rig.ask(Ask::default()).await.json();
                refused["error"]["message"].as_str().unwrap().split(';').next().unwrap().to_owned()
            },
        ),
        there("/routing/affinity", ROUTE, "affinity_can_be_off"),
        there("/routing/maxSwitchCostUsd", ROUTE, "a_switch_that_costs_too_much_is_refused_while_the_cache_is_warm"),
        there(
            "/routing/hedgeAfterMs",
            "cco/tests/route/beside.rs",
            "a_second_provider_answers_where_the_first_does_not_begin_and_the_first_is_cancelled",
        ),
        there(
            "/routing/replaySecs",
            "cco/tests/route/beside.rs",
            "a_client_whose_connection_broke_gets_its_answer_and_pays_once",
        ),
        there(
            "/routing/continueOnBreak",
            "cco/tests/route/beside.rs",
            "an_answer_that_breaks_off_is_gone_on_with_and_its_client_sees_one_answer",
        ),
        there(
            "/routing/commitAfterSecs",
            "gateway/tests/relay/failover.rs",
            "pings_do_not_commit_and_are_let_go_after_a_while",
        ),
        row(
            "/routing/guessAgentTypes",
            json!({ "routing": { "agentRules": { "Explore": "two" } } }),
            json!(true),
            ["200 anthropic", "200 two"],
            |rig: Rig| async move {
                let prompt = "You are a file search specialist for Claude Code, Anthropic's official CLI for Claude.";
                let ask = Ask {
                    fields: "x-claude-code-agent-id: a134bce030a4e4f22\r\nuser-agent: claude-cli/2.1.330 (external, cli)\r\n",
                    body: json!({ "system": [{ "type": "text", "text": prompt }] }),
                    ..Ask::default()
                };
                rig.served(ask).await
            },
        ),
        there(
            "/routing/onSubscriptionLimit",
            "gateway/tests/relay/failover.rs",
            "a_used_up_subscription_is_replaced_where_that_is_wanted",
        ),
    ]
}

/// An hour of the day that is not now.
fn another_hour() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3600 % 24;
    let from = (now + 6) % 23;
    format!("{from:02}:00-{:02}:00", from + 1)
}

async fn ended(rig: Rig, script: &'static str) -> String {
    let answer = rig.ask(Ask::streamed(script)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    if contains(&answer.body, b"message_stop") { "whole".into() } else { "cut".into() }
}

/// Who is drawn in twenty tries.
async fn drawn(rig: Rig) -> String {
    let gateway = rig.gateway().await;
    for _ in 0..20 {
        let answer = gateway.ask(Ask::default().request()).await;
        if answer.header("x-cco-provider") == Some("two") {
            return "both, or the second".into();
        }
    }
    "the first alone".into()
}
