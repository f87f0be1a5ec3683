//! What a record says beside numbers: how sure its cost is, who called, whether anybody is paid, and what is left out.

use ledger::journal::{Journal, JournalOptions};
use ledger::money::NanoUsd;
use ledger::price::{Flags, Unpriced};
use ledger::sample;
use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Gateway, prompt, request, streamed, upstream, upstream_with, whole};
use crate::{admin, cco, get, home, printed, recorded, stop, text};

#[tokio::test]
async fn how_sure_a_cost_is_is_kept_and_shown() {
    let mut records: Vec<_> = (0..5).map(sample::record).collect();
    for record in &mut records {
        record.parties.notional = false;
        record.parties.simulated = false;
        record.cost = Some(NanoUsd(1_000_000_000));
    }
    records[0].cost_flags = Flags { rate_assumed: true, ..Flags::default() };
    records[1].cost_flags = Flags { ttl_assumed: true, incomplete: true, ..Flags::default() };
    (records[2].cost, records[2].unpriced) = (None, Some(Unpriced::UnknownRate));
    records[3].usage.as_mut().unwrap().tokens.input = 5_000_000_000;
    (records[3].cost, records[3].unpriced, records[3].usage_unknown) = (None, Some(Unpriced::TooLarge), true);
    let home = recorded(&records);
    let shown = |n: usize| {
        let id = records[n].id.short();
        let home = home.path();
        async move { text(&cco(home, &["logs", "show", &id]).await.stdout).to_owned() }
    };
    assert!(shown(0).await.contains("a rate that was needed is not in the list: the nearest one was taken\n"));
    let said = shown(1).await;
    assert!(
        said.contains("came without a lifetime") && said.contains("something that was used is not in it"),
        "{said}"
    );
    assert!(shown(2).await.contains("not known: the price of this model lacks a rate"), "{}", shown(2).await);
    let said = shown(3).await;
    assert!(said.contains("cost      not known: the reported counts are too large to be believed\n"), "{said}");
    assert!(said.contains("tokens    not known: the upstream's counts cannot be believed"), "{said}");
    let output = cco(home.path(), &["logs", "show", &records[1].id.short(), "--json"]).await;
    let row: Value = serde_json::from_str(printed(&output)).unwrap();
    assert_eq!(row["cost_flags"], json!({ "ttl_assumed": true, "incomplete": true }));
    let output = cco(home.path(), &["logs", "--limit", "5"]).await;
    assert!(printed(&output).contains("≈ $1.00") && printed(&output).contains("≥ $1.00"), "{}", printed(&output));
    let output = cco(home.path(), &["costs"]).await;
    assert!(printed(&output).contains("≥ $"), "{}", printed(&output));
    let notes = text(&output.stderr);
    for part in ["of 1 request a part is not in the cost", "a rate that was needed is not in the list for 2 requests"] {
        assert!(notes.contains(part), "`{part}` is not in {notes}");
    }
    let output = cco(home.path(), &["costs", "--json"]).await;
    let group: Value = serde_json::from_str(printed(&output).lines().next().unwrap()).unwrap();
    let sums =
        ["assumed", "incomplete", "unpriced", "usage_unknown", "cost_is_partial"].map(|name| group[name].clone());
    assert_eq!(json!(sums), json!([2, 1, 1, 1, true]));
    // What is not believed is in no sum.
    assert!(group["input_tokens"].as_u64().unwrap() < 1_000_000, "{group}");
}

#[tokio::test]
async fn who_called_is_known_and_nobody_is_said_to_have_paid_a_simulator() {
    let upstream = upstream_with(SimConfig { says_so: true, ..SimConfig::default() }).await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=fine")).await;
    gateway.ask(streamed("text=fine")).await;
    let output = cco(home.path(), &["logs", "--json"]).await;
    for line in printed(&output).lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&row["caller"], &row["simulated"]), (&json!("this machine"), &json!(true)), "{row}");
        assert!(row["cost_usd"].as_f64().unwrap() > 0.0, "{row}");
    }
    let metrics: Value = gateway.ask(get("/gateway/metrics", &admin(&gateway))).await.json();
    assert_eq!(
        (&metrics["summary"]["total_requests"], &metrics["summary"]["total_cost_usd"]),
        (&json!(2), &json!(0.0))
    );
    assert!(metrics["cost"]["simulated_usd"].as_f64().unwrap() > 0.0, "{metrics}");
    let output = cco(home.path(), &["costs"]).await;
    let notes = text(&output.stderr);
    assert!(notes.contains("not in the cost: what the simulator served would have cost ("), "{notes}");
    let output = cco(home.path(), &["logs", "show", "last"]).await;
    let shown = printed(&output);
    assert!(shown.contains(", which nobody paid: the simulator served\n"), "{shown}");
    assert!(shown.contains("\n  caller    this machine\n"), "{shown}");
    stop(gateway).await;
}

#[tokio::test]
async fn an_upstream_that_does_not_say_that_it_is_simulated_is_paid() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let token = std::fs::read_to_string(gateway.home().join("token")).unwrap_or_default();
    let fields = format!("x-sim: text=fine\r\nx-cco-simulated: 1\r\nx-cco-token: {}\r\n", token.trim());
    gateway.ask(request("POST", "/v1/messages", &fields, prompt("Hello.", false))).await;
    let output = cco(home.path(), &["logs", "show", "last", "--json"]).await;
    let row: Value = serde_json::from_str(printed(&output)).unwrap();
    assert!(row["simulated"].is_null(), "a client cannot say so: {row}");
    assert_eq!(row["caller"], if token.is_empty() { "this machine" } else { "token" });
    stop(gateway).await;
}

#[tokio::test]
async fn what_must_not_be_kept_is_in_no_record_and_no_body_however_it_is_cut() {
    let upstream = upstream().await;
    let secret = "hunter2secret";
    let home = home(&upstream, json!({ "audit": { "redact": ["hunter[0-9] ?secret"] } }));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let fields = format!(
        "x-sim: text=\"my hunter2 secret is out\"\r\nx-claude-code-session-id: s-{secret}\r\nx-cco-project: {secret}\r\n\
         x-claude-code-agent-id: a-{secret}\r\n"
    );
    let body = prompt("Hello.", true).replace("Hello.", "it is hunter2\\u0073ecret, you know");
    let answer = gateway.ask(request("POST", "/v1/messages", &fields, body)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let output = cco(home.path(), &["logs", "show", "last", "--json"]).await;
    let row: Value = serde_json::from_str(printed(&output)).unwrap();
    let names = ["session", "project", "agent"].map(|name| row[name].clone());
    assert_eq!(json!(names), json!(["s-[redacted]", "[redacted]", "a-[redacted]"]));
    for (what, want) in [("--request", "it is [redacted], you know"), ("--response", "[redacted]")] {
        let output = cco(home.path(), &["logs", "show", "last", what, "--raw"]).await;
        let kept = printed(&output);
        assert!(kept.contains(want) && !kept.contains(secret), "{what}: {kept}");
    }
    // The archive's stream can still be read as one: every event is whole, and the text has the mark once.
    let output = cco(home.path(), &["logs", "show", "last", "--response", "--raw"]).await;
    let events = printed(&output).lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
    let said: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(said, "my [redacted] is out");
    let pieces = events.iter().filter(|event| event["delta"]["text"].is_string()).count();
    assert!(pieces > 1, "the secret must have been cut for this test to say something");
    stop(gateway).await;
}

#[tokio::test]
async fn a_gateway_that_stands_still_is_not_waited_for() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let id = gateway.ask(whole("text=fine")).await.id().to_owned();
    // It has made its store: one that stopped while it does so would hold it.
    printed(&cco(home.path(), &["logs"]).await);
    gateway.signal("STOP").await;
    let began = tokio::time::Instant::now();
    let output = cco(home.path(), &["logs", "--json"]).await;
    let took = began.elapsed();
    gateway.signal("CONT").await;
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
    let notes = text(&output.stderr);
    assert!(notes.contains("note: the gateway does not answer: this is from the files in `"), "{notes}");
    assert!(printed(&output).contains(&id), "what it wrote before is there: {}", printed(&output));
    stop(gateway).await;
}

#[tokio::test]
async fn what_an_error_names_can_be_shown_while_the_store_takes_nothing() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let known = gateway.ask(whole("text=fine")).await.id().to_owned();
    printed(&cco(home.path(), &["logs", "show", &known]).await);
    let holder = rusqlite::Connection::open(home.path().join("ledger.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let id = gateway.ask(whole("text=later")).await.id().to_owned();
    let output = cco(home.path(), &["logs", "show", &id]).await;
    assert!(printed(&output).contains(&id), "{}", printed(&output));
    let notes = text(&output.stderr);
    assert!(notes.contains("note: only what waits in the journal is shown: "), "{notes}");
    let nothing = cco(home.path(), &["logs", "show", "ffffffff"]).await;
    assert!(text(&nothing.stderr).contains("error: no exchange is known"), "{}", text(&nothing.stderr));
    holder.execute_batch("ROLLBACK").unwrap();
    stop(gateway).await;
    // A newer form: nothing of the store can be shown.
    holder.execute_batch("PRAGMA user_version = 99").unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let id = gateway.ask(whole("text=last")).await.id().to_owned();
    for args in [&["logs", "--json"][..], &["logs", "show", &id, "--json"]] {
        let output = cco(home.path(), args).await;
        assert!(printed(&output).contains(&id), "{args:?}: {}", printed(&output));
        assert!(text(&output.stderr).contains("only what waits in the journal"), "{}", text(&output.stderr));
    }
    stop(gateway).await;
    let output = cco(home.path(), &["logs", "--json"]).await;
    assert!(printed(&output).contains(&id), "{}", printed(&output));
    assert!(text(&output.stderr).contains("form 99"), "{}", text(&output.stderr));
}

/// A journal that a process left, damaged in the middle.
fn damaged_journal(home: &std::path::Path) {
    let journal = Journal::open(JournalOptions::new(home.join("journal"))).unwrap();
    for n in 0..5 {
        journal.finish(sample::record(n)).wait().unwrap();
    }
    journal.close();
    let mut segment = std::fs::read_dir(home.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.find(|path| path.extension().is_some_and(|end| end == "journal")).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    std::fs::write(&segment, bytes).unwrap();
}

#[tokio::test]
async fn a_journal_damaged_in_the_middle_is_told_by_who_loads_it_and_by_who_comes_later() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    damaged_journal(home.path());
    for _ in 0..2 {
        let output = cco(home.path(), &["logs", "--json"]).await;
        assert_eq!(printed(&output).lines().count(), 4);
        let notes = text(&output.stderr);
        assert!(notes.contains("note: the journal was damaged (1 file): "), "{notes}");
    }
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let health: Value = gateway.ask(get("/gateway/health", "")).await.json();
    assert_eq!(health["ledger"]["loaded"]["damaged_files"], 1, "{health}");
    assert!(health["ledger"]["cause"].as_str().unwrap().contains("journal/*.damaged"), "{health}");
    stop(gateway).await;
}

#[tokio::test]
async fn bodies_go_where_the_store_is_damaged_and_the_reason_is_told() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(whole("text=fine")).await;
    stop(gateway).await;
    let packs = || {
        let files = std::fs::read_dir(home.path().join("archive")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|end| end == "pack")).count()
    };
    assert!(packs() > 0);
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.path().join(format!("ledger.db{end}")));
    }
    std::fs::write(home.path().join("ledger.db"), vec![0x5A; 40_000]).unwrap();
    let output = cco(home.path(), &["audit", "purge", "--all", "--yes"]).await;
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("the store is damaged"), "{said}");
    assert!(said.contains("The bodies are removed ("), "{said}");
    assert_eq!(packs(), 0);
}

#[tokio::test]
async fn an_id_that_is_not_whole_enough_is_answered_with_short_ones() {
    let mut records: Vec<_> = (0..2).map(sample::record).collect();
    records[1].id = ledger::record::Id((records[1].id.0 & !0xFFFF_FFFF) | (records[0].id.0 & 0xFFFF_FF00) | 0x17);
    let home = recorded(&records);
    let word = &records[0].id.short()[..6];
    let output = cco(home.path(), &["logs", "show", word]).await;
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("is more than one: "), "{said}");
    for record in &records {
        assert!(said.contains(&record.id.short()) && !said.contains(&record.id.to_string()), "{said}");
    }
}

#[tokio::test]
async fn what_is_said_twice_and_what_cannot_be_read_is_refused_and_lists_say_what_they_leave_out() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    for query in ["since=1h&since=2h", "model=%ff", "since=1h&until=2h", "failed=perhaps"] {
        let answer = gateway.ask(get(&format!("/gateway/audit?{query}"), &admin(&gateway))).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    let answer = gateway.ask(get("/gateway/metrics?by=model", "")).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    for args in [&["logs", "--since", "1h", "--until", "2h"][..], &["costs", "--since", "1h", "--since", "2h"]] {
        let output = cco(home.path(), args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    for n in 0..53 {
        let fields = format!("x-sim: text=fine\r\nx-claude-code-session-id: session-{n}\r\n");
        gateway.ask(request("POST", "/v1/messages", &fields, prompt("Hello.", false))).await;
    }
    let metrics: Value = gateway.ask(get("/gateway/metrics", "")).await.json();
    assert_eq!(metrics["by_session"].as_object().unwrap().len(), 50);
    assert_eq!(metrics["more"], json!({ "by_model": 0, "by_agent": 0, "by_session": 3, "by_project": 0 }));
    stop(gateway).await;
}
