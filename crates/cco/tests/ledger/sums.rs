//! What sums hold and what they leave out, and what is told of it: turns beside an answer, tokens that were only counted,
//! subscriptions, prices that are refused or new, names that stand for none, cells of other programs.

use ledger::money::NanoUsd;
use ledger::record::{Operation, Outcome, Record};
use ledger::sample;
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Store};
use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Gateway, Upstream, prompt, request, streamed, upstream, upstream_with, whole};
use crate::{cco, get, home, printed, recorded, stop, text};

/// A stream whose usage has turns beside the answer.
const TURNS: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":100,"cache_read_input_tokens":1000,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":50,"iterations":[{"type":"message","input_tokens":100,"output_tokens":50},{"type":"compaction","input_tokens":10000,"output_tokens":500},{"type":"advisor_message","model":"claude-opus-5-5","input_tokens":2000,"output_tokens":300}]}}

event: message_stop
data: {"type":"message_stop"}

"#;

/// An answer whose provider used a tool that has no name here.
const TOOL: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-5-5","content":[{"type":"text","text":"hi"}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":1000,"output_tokens":100,"server_tool_use":{"web_search_requests":0,"foo_requests":3}}}"#;

/// A simulator that replays these.
async fn replaying() -> (tempfile::TempDir, Upstream) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("turns.sse"), TURNS).unwrap();
    std::fs::write(folder.path().join("tool.json"), TOOL).unwrap();
    let config = SimConfig { transcripts: Some(folder.path().into()), ..SimConfig::default() };
    (folder, upstream_with(config).await)
}

fn rows(output: &std::process::Output) -> Vec<Value> {
    printed(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts records into the store of a home that has a configuration.
fn fill(home: &std::path::Path, records: &[Record]) {
    let store = Sqlite::new(home.join("ledger.db"));
    let batch = Batch { records, segment: "s", position: 1, complete: false };
    store.writer().unwrap().load(&batch).unwrap();
}

/// A generation that somebody paid for.
fn paid(n: u64) -> Record {
    let mut record = sample::record(40 * n);
    (record.parties.notional, record.parties.simulated) = (false, false);
    record.operation = Operation::Generation;
    record
}

#[tokio::test]
async fn tokens_of_turns_beside_an_answer_are_in_every_sum_and_are_shown() {
    let (_folder, upstream) = replaying().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(streamed("raw=turns.sse")).await;
    let output = cco(home.path(), &["logs", "show", "last"]).await;
    let want = "\n  tokens    100 in, 1000 from the cache, 50 out\n            and 2 more turns: 12000 in, 800 out\n";
    assert!(printed(&output).contains(want), "{}", printed(&output));
    let row = rows(&cco(home.path(), &["logs", "--json"]).await).remove(0);
    assert_eq!(row["usage"]["tokens"], json!({ "input": 100, "cache_read": 1000, "output": 50 }), "as it was reported");
    for list in [&["costs", "--json"][..], &["costs", "--by", "model", "--json"], &["sessions", "--json"]] {
        let sums = rows(&cco(home.path(), list).await).remove(0);
        for of in [&row, &sums] {
            let tokens = ["input_tokens", "cache_read_tokens", "output_tokens"].map(|name| of[name].as_i64().unwrap());
            assert_eq!(tokens, [12_100, 1000, 850], "{list:?}: {of}");
        }
        assert_eq!(sums["cost_usd"], row["cost_usd"], "{list:?}");
    }
    let metrics = gateway.ask(get("/gateway/metrics", "")).await.json();
    let summary = &metrics["summary"];
    assert_eq!((&summary["total_input_tokens"], &summary["total_output_tokens"]), (&json!(12_100), &json!(850)));
    let page = gateway.ask(get("/metrics", "")).await;
    for line in ["gen_ai_token_type=\"input\"} 12100\n", "gen_ai_client_token_usage_sum{", "\"input\"} 13100\n"] {
        assert!(page.text().contains(line), "{line}: {}", page.text());
    }
    stop(gateway).await;
}

#[tokio::test]
async fn tokens_that_were_only_counted_are_not_spent() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=hi input_tokens=1000 output_tokens=10")).await;
    let long = prompt(&"word ".repeat(80_000), false);
    assert_eq!(gateway.ask(request("POST", "/v1/messages/count_tokens", "", long)).await.status, 200);
    for by in ["day", "model", "session", "project", "provider"] {
        let row = rows(&cco(home.path(), &["costs", "--by", by, "--json"]).await).remove(0);
        assert_eq!((&row["requests"], &row["input_tokens"]), (&json!(2), &json!(1000)), "{by}: {row}");
    }
    let sums = rows(&cco(home.path(), &["costs", "--json", "--since", "1h"]).await).remove(0);
    assert_eq!(sums["input_tokens"], 1000, "{sums}");
    let session = rows(&cco(home.path(), &["sessions", "--json"]).await).remove(0);
    assert_eq!(session["input_tokens"], 1000, "{session}");
    let metrics = gateway.ask(get("/gateway/metrics", "")).await.json();
    let model = &metrics["by_model"]["claude-sonnet-5-5"];
    assert_eq!((&metrics["summary"]["total_input_tokens"], &model["input_tokens"]), (&json!(1000), &json!(1000)));
    // Whoever asks for each operation gets what was counted too, and a total without it.
    let counted = metrics["by_operation"]["count_tokens"]["input_tokens"].as_i64().unwrap();
    assert!(counted > 50_000, "{metrics}");
    let told = rows(&cco(home.path(), &["costs", "--by", "operation", "--json"]).await);
    assert_eq!(told.iter().filter_map(|row| row["input_tokens"].as_i64()).max(), Some(counted), "{told:?}");
    let table = cco(home.path(), &["costs", "--by", "operation"]).await;
    let total = printed(&table).lines().find(|line| line.starts_with("total")).unwrap();
    assert!(total.contains(" 1.00k "), "{}", printed(&table));
    stop(gateway).await;
}

#[tokio::test]
async fn errors_by_outcome_add_up_to_their_total_and_a_client_that_left_is_none() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let ended =
        [(Outcome::Success, 3), (Outcome::UpstreamError, 1), (Outcome::Timeout, 2), (Outcome::ClientDisconnected, 4)];
    let outcomes = ended.iter().flat_map(|(outcome, n)| std::iter::repeat_n(*outcome, *n));
    let records: Vec<_> = (0..).zip(outcomes).map(|(n, outcome)| Record { outcome, ..paid(n) }).collect();
    fill(home.path(), &records);
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let told = gateway.ask(get("/gateway/metrics", "")).await.json();
    assert_eq!(told["errors"], json!({ "total": 3, "by_outcome": { "upstream_error": 1, "timeout": 2 } }));
    let all = json!({ "success": 3, "upstream_error": 1, "timeout": 2, "client_disconnected": 4 });
    assert_eq!(told["by_outcome"], all);
    stop(gateway).await;
}

#[tokio::test]
async fn a_tool_that_nobody_knows_is_kept_and_its_cost_is_not_taken_for_nothing() {
    let (_folder, upstream) = replaying().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("raw=tool.json")).await;
    let row = rows(&cco(home.path(), &["logs", "--json"]).await).remove(0);
    assert_eq!(row["usage"]["other_tools"], json!([{ "name": "foo_requests", "requests": 3 }]), "{row}");
    assert_eq!(row["cost_flags"], json!({ "incomplete": true }), "{row}");
    let output = cco(home.path(), &["logs", "show", "last"]).await;
    let shown = printed(&output);
    assert!(shown.contains("\n  tools     3 foo_requests\n"), "{shown}");
    assert!(shown.contains("something that was used is not in it"), "{shown}");
    assert!(printed(&cco(home.path(), &["costs"]).await).contains("≥ $0.0030"));
    stop(gateway).await;
}

#[tokio::test]
async fn circuits_have_a_bounded_number_of_labels_and_none_for_names_that_callers_made_up() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let named = |model: &str| prompt("Hello.", false).replace("claude-sonnet-5-5", model);
    for n in 0..104 {
        let answer = client.ask(request("POST", "/v1/messages", "x-sim: text=hi\r\n", named(&format!("m-{n}")))).await;
        assert_eq!(answer.status, 200);
    }
    for n in 0..4 {
        let made_up = named(&format!("made-up-{n}"));
        assert_eq!(client.ask(request("POST", "/v1/messages", "x-sim: fault=404\r\n", made_up)).await.status, 404);
    }
    let page = gateway.ask(get("/metrics", "")).await;
    let circuits: Vec<&str> = page.text().lines().filter(|line| line.starts_with("cco_circuit_state{")).collect();
    assert_eq!(circuits.len(), 101, "{circuits:?}");
    assert_eq!(circuits.iter().filter(|line| line.contains("model=\"other\"")).count(), 1, "{circuits:?}");
    assert!(!circuits.iter().any(|line| line.contains("made-up")), "{circuits:?}");
}

#[tokio::test]
async fn what_a_subscription_paid_is_marked_in_every_list() {
    let mut records = [paid(0), paid(1)];
    records[1].parties.notional = true;
    for record in &mut records {
        record.cost = Some(NanoUsd(4_000_000_000));
    }
    let home = recorded(&records);
    let output = cco(home.path(), &["logs"]).await;
    assert_eq!(printed(&output).matches("$4.00").count(), 2);
    assert_eq!(printed(&output).matches("($4.00)").count(), 1, "{}", printed(&output));
    let note = "note: costs in brackets were not spent: a subscription paid\n";
    assert!(text(&output.stderr).contains(note), "{}", text(&output.stderr));
    let output =
        cco(home.path(), &["logs", "--limit", "1", "--model", &records[0].parties.model.clone().unwrap()]).await;
    assert!(printed(&output).contains("$4.00"));
}

fn price_file(version: &str, input: u64) -> String {
    let models = json!({ "claude-sonnet-5-5": { "input": input, "output": 10 } });
    json!({ "schema": 1, "version": version, "providers": { "anthropic": { "models": models } } }).to_string()
}

#[tokio::test]
async fn a_reload_tells_of_new_prices_and_pricing_again_at_old_ones_is_told() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "costTracking": { "pricesFile": "p.json" } }));
    std::fs::write(home.path().join("p.json"), price_file("v2", 2)).unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=hi input_tokens=1000 output_tokens=100")).await;
    assert_eq!(printed(&cco(home.path(), &["config", "reload"]).await), "loaded: nothing changed\n");
    std::fs::write(home.path().join("p.json"), price_file("v9", 9)).unwrap();
    let behind = "the gateway does not use the prices yet that the configuration names now";
    let output = cco(home.path(), &["prices", "recompute"]).await;
    let said = text(&output.stderr);
    assert!(printed(&output).contains("of which 0 cost something else now") && said.contains(behind), "{said}");
    assert!(said.contains("at the prices of file v2, "), "{said}");
    let output = cco(home.path(), &["config", "reload"]).await;
    let shown = printed(&output);
    let begins = "loaded: 1 change\n  costTracking.pricesFile: new prices, file v9, ";
    assert!(shown.starts_with(begins) && shown.contains("(before: file v2, "), "{shown}");
    gateway.log_line(&["new prices, file v9"]).await;
    let output = cco(home.path(), &["prices", "recompute"]).await;
    let said = text(&output.stderr);
    assert!(printed(&output).contains("of which 1 cost something else now"), "{}", printed(&output));
    assert!(said.contains("at the prices of file v9, ") && !said.contains(behind), "{said}");
    stop(gateway).await;
}

#[tokio::test]
async fn a_price_file_that_is_refused_is_named_and_counted() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "costTracking": { "pricesFile": "p.json" } }));
    std::fs::write(home.path().join("p.json"), price_file("v2", 2)).unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let refused = async |what: &str| {
        let page = gateway.ask(get("/metrics", "")).await;
        let name = format!("cco_config_refused_total{{what=\"{what}\"}} ");
        let value = page.text().lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned);
        value.unwrap_or_else(|| panic!("{}", page.text()))
    };
    assert_eq!((refused("prices").await, refused("configuration").await), ("0".into(), "0".into()));
    std::fs::write(home.path().join("p.json"), "{ 7: 7 }").unwrap();
    let output = cco(home.path(), &["config", "reload"]).await;
    let said = text(&output.stderr);
    let file = home.path().join("p.json").canonicalize().unwrap();
    assert!(!output.status.success() && said.contains("costTracking.pricesFile: `"), "{said}");
    assert!(said.contains(file.to_str().unwrap()) || said.contains("p.json`: "), "{said}");
    assert_eq!((refused("prices").await, refused("configuration").await), ("1".into(), "0".into()));
    std::fs::write(home.path().join("config.json"), "{ nonsense").unwrap();
    gateway
        .wait_for_health(|health| health["config"]["cause"].as_str().is_some_and(|why| !why.contains("p.json")))
        .await;
    assert_eq!((refused("prices").await, refused("configuration").await), ("1".into(), "1".into()));
    stop(gateway).await;
}

#[tokio::test]
async fn a_price_that_lacks_a_rate_and_a_cost_that_was_not_computed_are_told_as_what_they_are() {
    let upstream = upstream().await;
    let half = json!({ "half": { "inputPerMillion": 1 } });
    let home = home(&upstream, json!({ "costTracking": { "enabled": false, "pricingOverrides": half } }));
    let output = cco(home.path(), &["config", "validate"]).await;
    let want = "costTracking.pricingOverrides.half.outputPerMillion: it is missing: requests that need it get no cost";
    assert!(printed(&output).contains(want), "{}", printed(&output));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=hi")).await;
    let output = cco(home.path(), &["costs"]).await;
    let said = text(&output.stderr);
    assert!(said.contains("not in the cost: 1 request without a price") && !said.contains("models"), "{said}");
    let output = cco(home.path(), &["logs", "show", "last"]).await;
    let want = "\n  cost      not known: none was computed (`costTracking.enabled`); ";
    assert!(printed(&output).contains(want), "{}", printed(&output));
    stop(gateway).await;
}

#[tokio::test]
async fn times_that_are_not_those_of_requests_are_not_called_so() {
    let record = paid(0);
    let home = recorded(std::slice::from_ref(&record));
    let day = rows(&cco(home.path(), &["costs", "--json"]).await).remove(0);
    assert_eq!((&day["first"], &day["last"]), (&Value::Null, &Value::Null), "{day}");
    assert_eq!((&day["from"], &day["until"]), (&json!("2026-11-01T00:00:00.000Z"), &json!("2026-11-01T00:15:00.000Z")));
    let session = rows(&cco(home.path(), &["costs", "--by", "session", "--json"]).await).remove(0);
    assert_eq!((&session["first"], &session["last"]), (&json!("2026-11-01T00:00:00.000Z"), &session["first"]));
    assert_eq!((&session["from"], &session["until"]), (&Value::Null, &Value::Null), "{session}");
}

#[tokio::test]
async fn files_for_spreadsheets_have_projects_and_agents_and_no_formulas() {
    let mut records = [paid(0), paid(1)];
    for (record, (project, agent)) in records.iter_mut().zip([("site", "=HYPERLINK(1)"), ("@api", "a2")]) {
        let parties = &mut record.parties;
        (parties.session, parties.project, parties.agent) =
            (Some("s1".into()), Some(project.into()), Some(agent.into()));
        (parties.parent_agent, parties.agent_type) = (None, None);
    }
    records[1].parties.agent_type = Some("Explore".into());
    let home = recorded(&records);
    let output = cco(home.path(), &["sessions", "--csv"]).await;
    let lines: Vec<&str> = printed(&output).lines().collect();
    assert!(lines[0].starts_with("id,first,last,projects,agents,requests,"), "{}", lines[0]);
    assert!(lines[1].contains(",'@api; site,'=HYPERLINK(1); Explore a2,2,"), "{}", lines[1]);
    let output = cco(home.path(), &["logs", "--csv"]).await;
    assert!(printed(&output).contains(",'=HYPERLINK(1),") && !printed(&output).contains(",="), "{}", printed(&output));
    let output = cco(home.path(), &["costs", "--by", "project", "--csv"]).await;
    assert!(printed(&output).contains("\n'@api,1,"), "{}", printed(&output));
    // Programs read names as they are.
    let names = rows(&cco(home.path(), &["costs", "--by", "project", "--json"]).await);
    assert!(names.iter().any(|row| row["project"] == "@api"), "{names:?}");
}

#[tokio::test]
async fn what_a_list_cannot_be_asked_is_refused_with_the_reason() {
    let home = recorded(&[paid(0)]);
    for (args, want) in [
        (&["limits", "--model", "claude-*"][..], "limits are those of a provider's keys"),
        (&["limits", "--failed"], "limits are those of a provider's keys"),
        (&["costs", "--grep", "x"], "it shows sums, which know nothing of bodies"),
        (&["sessions", "--grep", "x"], "`cco logs --grep REGEX --json`"),
    ] {
        let output = cco(home.path(), args).await;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(want), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn a_name_that_reads_like_none_is_told_from_none() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let mut records = [paid(0), paid(1)];
    (records[0].parties.session, records[1].parties.session) = (None, Some("(none)".into()));
    fill(home.path(), &records);
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let metrics = gateway.ask(get("/gateway/metrics", "")).await.json();
    let of = |name: &str| metrics["by_session"][name]["requests"].as_i64();
    assert_eq!((of("(none)"), of("\"(none)\"")), (Some(1), Some(1)), "{metrics}");
    for list in [&["sessions"][..], &["costs", "--by", "session"]] {
        let output = cco(home.path(), list).await;
        let shown = printed(&output);
        assert!(shown.contains("\n(none) ") && shown.contains("\n\"(none)\" "), "{list:?}: {shown}");
    }
    stop(gateway).await;
}
