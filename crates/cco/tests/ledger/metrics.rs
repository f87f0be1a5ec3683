//! `/gateway/metrics`, its reset, and what health says of the ledger.

use serde_json::{Value, json};

use crate::common::{Gateway, KEY, contains, prompt, request, streamed, upstream, whole};
use crate::{admin, get, home, stop};

async fn metrics(gateway: &Gateway, fields: &str) -> Value {
    let answer = gateway.ask(get("/gateway/metrics", fields)).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.text());
    answer.json()
}

/// With sessions, agents and projects.
fn asked(fields: &str, script: &str) -> Vec<u8> {
    request("POST", "/v1/messages", &format!("x-sim: {script}\r\n{fields}"), prompt("Hello.", true))
}

const USAGE: &str = "text=hi input_tokens=1000 output_tokens=200 cache_read=4000 cache_1h=500";

#[tokio::test]
async fn totals_count_generations_and_tell_everything_apart() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let explorer =
        "x-claude-code-session-id: s1\r\nx-claude-code-agent-id: a1\r\nx-cco-agent: Explore\r\nx-cco-project: site\r\n";
    for bytes in [
        asked("x-claude-code-session-id: s1\r\n", USAGE),
        asked(explorer, USAGE),
        asked("x-claude-code-session-id: s2\r\nx-claude-code-agent-id: a2\r\n", "fault=529"),
        request("POST", "/v1/messages/count_tokens", "", prompt("Hello.", false)),
        request("GET", "/v1/models", "", ""),
    ] {
        gateway.ask(bytes).await;
    }
    let told = metrics(&gateway, "").await;
    // Per token, in millionths of a dollar: 2, 0.10 from the cache, 4 into it for an hour, 10 out.
    let one = (1000.0 * 2.0 + 4000.0 * 0.1 + 500.0 * 4.0 + 200.0 * 10.0) / 1e6;
    let summary = json!({
        "total_requests": 3, "total_cost_usd": 2.0 * one, "total_input_tokens": 2000, "total_output_tokens": 400,
    });
    assert_eq!(told["summary"], summary, "{told}");
    assert_eq!(told["cache"]["read_tokens"], 8000);
    assert_eq!(told["cache"]["write_tokens"], 1000);
    assert_eq!(told["errors"], json!({ "total": 1, "by_outcome": { "upstream_error": 1 } }));
    assert_eq!((&told["fresh"], &told["since"]), (&json!(true), &Value::Null));
    for (by, name, requests, cost) in [
        ("by_operation", "generation", 3, 2.0 * one),
        ("by_operation", "count_tokens", 1, 0.0),
        ("by_operation", "models", 1, 0.0),
        ("by_provider", "anthropic", 3, 2.0 * one),
        ("by_model", "claude-sonnet-5-5", 3, 2.0 * one),
        ("by_agent", "(main)", 1, one),
        // Of no known kind, and still not the main one.
        ("by_agent", "a2", 1, 0.0),
        ("by_agent", "Explore", 1, one),
        ("by_session", "s1", 2, 2.0 * one),
        ("by_session", "s2", 1, 0.0),
        ("by_project", "site", 1, one),
        ("by_project", "(none)", 2, one),
    ] {
        let row = &told[by][name];
        assert_eq!((&row["requests"], &row["cost_usd"]), (&json!(requests), &json!(cost)), "{by} {name}: {told}");
    }
    assert_eq!(told["by_session"]["s2"]["failed"], 1);
    for what in ["duration", "first_token"] {
        let of = &told["latency_ms"][what];
        assert!(of["of"].as_u64() > Some(0) && of["p50"].as_f64() > Some(0.0), "{what}: {told}");
    }
}

#[tokio::test]
async fn totals_survive_a_restart_and_a_reset_moves_a_mark() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole(USAGE)).await;
    gateway.ask(streamed(USAGE)).await;
    let before = metrics(&gateway, "").await;
    assert_eq!(before["summary"]["total_requests"], 2);
    stop(gateway).await;
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let after = metrics(&gateway, "").await;
    assert_eq!(after["summary"], before["summary"]);
    assert_eq!(after["by_model"], before["by_model"]);

    let reset = gateway.ask(request("POST", "/gateway/metrics/reset", &admin(&gateway), "")).await;
    assert_eq!(reset.status, 200, "{}", reset.text());
    let fresh = metrics(&gateway, "").await;
    assert_eq!(fresh["summary"]["total_requests"], 0);
    assert!(fresh["since"].as_str().is_some_and(|since| since.starts_with("20")), "{fresh}");
    gateway.ask(whole(USAGE)).await;
    assert_eq!(metrics(&gateway, "").await["summary"]["total_requests"], 1);
    stop(gateway).await;
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let later = metrics(&gateway, "").await;
    assert_eq!((&later["summary"]["total_requests"], &later["since"]), (&json!(1), &fresh["since"]));
    // What was before the mark is still there.
    let text = gateway.ask(get("/metrics", "")).await;
    assert!(text.text().contains("outcome=\"success\"} 3\n"), "{}", text.text());
}

#[tokio::test]
async fn the_last_records_are_for_the_admin_only() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let answer = gateway.ask(asked("x-claude-code-session-id: secret-session\r\n", USAGE)).await;
    let own_user = metrics(&gateway, "").await;
    assert_eq!(own_user.get("recent"), None);
    let wrong = metrics(&gateway, "Authorization: Bearer cco-wrong\r\n").await;
    assert_eq!(wrong.get("recent"), None);
    let told = metrics(&gateway, &admin(&gateway)).await;
    let recent = told["recent"].as_array().unwrap();
    assert_eq!(recent.len(), 1);
    let row = &recent[0];
    assert_eq!((&row["id"], &row["session"]), (&json!(answer.id()), &json!("secret-session")));
    assert_eq!((&row["outcome"], &row["output_tokens"]), (&json!("success"), &json!(200)));
    assert!(row["short"].as_str().is_some_and(|short| answer.id().ends_with(short)), "{row}");
    assert!(!told.to_string().contains(KEY), "{told}");
}

#[tokio::test]
async fn a_reset_is_for_the_admin_only() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    gateway.ask(whole("text=hi")).await;
    let token = std::fs::read_to_string(gateway.home().join("token")).unwrap();
    for fields in ["", "Authorization: Bearer cco-wrong\r\n", &format!("x-cco-token: {}\r\n", token.trim())] {
        let refused = gateway.ask(request("POST", "/gateway/metrics/reset", fields, "")).await;
        let message = refused.refusal(401, "authentication_error");
        assert!(message.contains("`cco token`"), "{message}");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    let wrong = gateway.ask(request("GET", "/gateway/metrics/reset", &admin(&gateway), "")).await;
    wrong.refusal(405, "invalid_request_error");
    assert_eq!(wrong.header("allow"), Some("POST"));
    assert_eq!(metrics(&gateway, "").await["summary"]["total_requests"], 1);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_makes_health_degraded_and_requests_are_served() {
    let upstream = upstream().await;
    let good = Gateway::start(&upstream, json!({})).await;
    good.ask(whole("text=hi")).await;
    let ledger = &good.health().await["ledger"];
    assert_eq!((&ledger["state"], &ledger["cause"], &ledger["unsettled"]), (&json!("good"), &Value::Null, &json!(0)));

    let home = home(&upstream, json!({ "audit": { "dbPath": "notes.db" } }));
    let text = "this is no database, and it stays as it is ".repeat(200);
    std::fs::write(home.path().join("notes.db"), text).unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    assert_eq!(gateway.ask(whole("text=hi")).await.status, 200);
    gateway.wait_for_health(|health| health["ledger"]["state"] == "failing").await;
    let health = gateway.health().await;
    assert_eq!((&health["status"], &health["ledger"]["store"]), (&json!("degraded"), &json!(false)));
    assert!(health["ledger"]["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{health}");
    let refused = gateway.ask(get("/gateway/metrics", "")).await;
    assert!(refused.refusal(503, "api_error").starts_with("the ledger cannot be read: "), "{}", refused.text());
    let page = gateway.ask(get("/metrics", "")).await;
    assert_eq!(page.status, 200);
    for line in [&b"\ncco_ledger_good 0\n"[..], b"\ncco_store_up 0\n", b"\ncco_ledger_readable 0\n"] {
        assert!(contains(&page.body, line), "{}", page.text());
    }

    let off = Gateway::start(&upstream, json!({ "audit": { "enabled": false } })).await;
    assert_eq!(off.ask(whole("text=hi")).await.status, 200);
    assert_eq!(off.health().await["ledger"], json!({ "state": "off" }));
    let refused = off.ask(get("/gateway/metrics", "")).await;
    assert!(refused.refusal(503, "api_error").contains("`audit.enabled`"), "{}", refused.text());
}
