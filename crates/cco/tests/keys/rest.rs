//! Rows of `translation`, `costTracking`, `audit` and `log`.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::common::{contains, soon, until};
use crate::{Ask, Rig, Row, row, there};

/// A price of which the rates that a row does not change are zero.
fn priced() -> Value {
    let zero = json!({
        "inputPerMillion": 0, "outputPerMillion": 0, "cacheWritePerMillion": 0, "cacheReadPerMillion": 0,
    });
    json!({ "costTracking": { "pricingOverrides": { "claude-sonnet-5-5": zero } } })
}

const TOKENS: &str = "text=ok input_tokens=1000 output_tokens=1000 cache_read=1000 cache_5m=1000";

pub(crate) fn rows() -> Vec<Row> {
    let rate = |at: &'static str| {
        row(at, priced(), json!(1000), ["0.0", "1.0"], |rig: Rig| async move { cost(&rig, TOKENS).await })
    };
    vec![
        row(
            "/translation/onLoss",
            json!({ "providers": { "anthropic": { "providerType": "openai-compatible", "defaultModel": "their-model" } } }),
            json!("refuse"),
            ["200", "400"],
            |rig: Rig| async move { rig.status(Ask::saying(json!({ "top_k": 5 }))).await },
        ),
        row("/costTracking/enabled", json!({}), json!(false), ["a cost", "null"], |rig: Rig| async move {
            let cost = cost(&rig, TOKENS).await;
            if cost == "null" { cost } else { "a cost".into() }
        }),
        rate("/costTracking/pricingOverrides/claude-sonnet-5-5/inputPerMillion"),
        rate("/costTracking/pricingOverrides/claude-sonnet-5-5/outputPerMillion"),
        rate("/costTracking/pricingOverrides/claude-sonnet-5-5/cacheWritePerMillion"),
        rate("/costTracking/pricingOverrides/claude-sonnet-5-5/cacheReadPerMillion"),
        row(
            "/costTracking/pricesFile",
            json!({}),
            json!("prices.json"),
            ["the built-in price", "2.0"],
            |rig: Rig| async move {
                let rates =
                    json!({ "input": 1000, "output": 1000, "cache_read": 0, "cache_write_5m": 0, "cache_write_1h": 0 });
                let prices = json!({
                    "schema": 1, "version": "2026-11-22", "providers": { "anthropic": {
                        "hosts": ["api.anthropic.com"], "models": { "claude-sonnet-5-5": rates },
                    } },
                });
                std::fs::write(rig.path().join("prices.json"), prices.to_string()).unwrap();
                let cost = cost(&rig, TOKENS).await;
                if cost == "2.0" { cost } else { "the built-in price".into() }
            },
        ),
        row("/audit/enabled", json!({}), json!(false), ["1", "0"], |rig: Rig| async move {
            let gateway = rig.gateway().await;
            gateway.ask(Ask::default().request()).await;
            let said = rig.command(&["logs", "--json"]).await;
            said.lines().filter(|line| line.contains("\"outcome\":")).count().to_string()
        }),
        row("/audit/logRequestBodies", json!({}), json!(false), ["kept", "not kept"], |rig: Rig| async move {
            body(&rig, "--request", "the-words-of-the-question").await
        }),
        row("/audit/logResponseBodies", json!({}), json!(false), ["kept", "not kept"], |rig: Rig| async move {
            body(&rig, "--response", "the-words-of-the-answer").await
        }),
        row("/audit/encrypt", json!({}), json!(false), ["not to be read", "plain"], |rig: Rig| async move {
            let mut gateway = rig.gateway().await;
            // It is packed unless that does not pay.
            gateway.ask(words().request()).await;
            gateway.wait_for_health(|health| health["bodies"]["stored"].as_u64() >= Some(2)).await;
            gateway.stop().await;
            let plain = holds(rig.path(), b"audit-words") || holds(rig.path(), &[0x28, 0xb5, 0x2f, 0xfd]);
            if plain { "plain".into() } else { "not to be read".to_owned() }
        }),
        row("/audit/retentionDays", json!({}), json!(0), ["stays", "goes"], |rig: Rig| async move {
            let mut before = rig.config.clone();
            if let Some(audit) = before.get_mut("audit") {
                audit.as_object_mut().unwrap().remove("retentionDays");
            }
            let file = rig.path().join("config.json");
            std::fs::write(&file, before.to_string()).unwrap();
            let mut gateway = rig.gateway().await;
            let id = gateway.ask(Ask::default().request()).await.id().to_owned();
            gateway.stop().await;
            std::fs::write(file, rig.config.to_string()).unwrap();
            // What is too old goes when the next one begins, before it has loaded what comes.
            let gateway = rig.gateway().await;
            let stays = rig.config.get("audit").is_none();
            let is_there = async || rig.command(&["logs", "show", &id]).await.starts_with('0');
            until(async || is_there().await == stays).await;
            drop(gateway);
            if stays { "stays".into() } else { "goes".to_owned() }
        }),
        there("/audit/maxGb", "ledger/src/archive/tests.rs", "the_oldest_packs_go_when_all_together_are_too_large"),
        row("/audit/dbPath", json!({}), json!("elsewhere.db"), ["ledger.db", "elsewhere.db"], |rig: Rig| async move {
            let gateway = rig.gateway().await;
            gateway.ask(Ask::default().request()).await;
            let there = |name: &str| rig.path().join(name).exists();
            until(async || there("ledger.db") || there("elsewhere.db")).await;
            if there("elsewhere.db") { "elsewhere.db".into() } else { "ledger.db".to_owned() }
        }),
        row("/audit/redact", json!({}), json!(["the-words-of-[a-z-]*"]), ["kept", "not kept"], |rig: Rig| async move {
            body(&rig, "--request", "the-words-of-the-question").await
        }),
        row("/audit/onFailure", json!({}), json!("refuse"), ["it serves", "78"], |rig: Rig| async move {
            // A file where a folder has to be: nothing can be recorded.
            std::fs::write(rig.path().join("journal"), "").unwrap();
            let mut child = crate::binary().arg("serve").env("CCO_HOME", rig.path()).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            match soon(lines.next_line()).await.unwrap() {
                Some(_) => "it serves".into(),
                None => soon(child.wait()).await.unwrap().code().unwrap().to_string(),
            }
        }),
        there(
            "/audit/journalWaitMs",
            "cco/tests/crash/order.rs",
            "an_answer_waits_for_its_record_as_long_as_it_may_and_the_record_comes_later",
        ),
        row("/log/level", json!({}), json!("warn"), ["it says that it serves", "it does not"], |rig: Rig| async move {
            let mut gateway = rig.gateway().await;
            gateway.stop().await;
            if gateway.log().contains("serving") { "it says that it serves".into() } else { "it does not".to_owned() }
        }),
        row("/log/format", json!({}), json!("human"), ["json", "human"], |rig: Rig| async move {
            let mut gateway = rig.gateway().await;
            gateway.stop().await;
            let log = gateway.log();
            let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
            let line = log.lines().find(|line| line.contains("serving")).unwrap_or_else(|| panic!("{log}"));
            if is_json(line) { "json".into() } else { "human".to_owned() }
        }),
        row(
            "/log/maxMb",
            json!({ "log": { "level": "debug" } }),
            json!(0.001),
            ["one file", "several"],
            |rig: Rig| async move {
                let n = logged(&rig).await;
                if n > 1 { "several".into() } else { "one file".to_owned() }
            },
        ),
        row(
            "/log/files",
            json!({ "log": { "level": "debug", "maxMb": 0.001 } }),
            json!(2),
            ["5", "2"],
            |rig: Rig| async move { logged(&rig).await.to_string() },
        ),
    ]
}

/// What an exchange cost, as its record says.
async fn cost(rig: &Rig, script: &'static str) -> String {
    let gateway = rig.gateway().await;
    let answer = gateway.ask(Ask::whole(script).request()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = rig.command(&["logs", "show", answer.id(), "--json"]).await;
    let row: Value = serde_json::from_str(said.trim_start_matches("0 ")).unwrap_or_else(|why| panic!("{why}: {said}"));
    row["cost_usd"].to_string()
}

/// Whether a body of an exchange is kept with these words.
async fn body(rig: &Rig, which: &str, words: &str) -> String {
    let mut gateway = rig.gateway().await;
    let ask = Ask {
        script: "text=the-words-of-the-answer",
        body: json!({ "system": "the-words-of-the-question" }),
        ..Ask::default()
    };
    let id = gateway.ask(ask.request()).await.id().to_owned();
    gateway.stop().await;
    let said = rig.command(&["logs", "show", &id, which]).await;
    if said.contains(words) { "kept".into() } else { "not kept".to_owned() }
}

fn words() -> Ask {
    Ask::saying(json!({ "system": "audit-words ".repeat(300) }))
}

/// Whether these bytes are in a file of the archive.
fn holds(home: &Path, what: &[u8]) -> bool {
    let (folder, _) = gateway::setup::archive_paths(home);
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        path.is_file() && contains(&std::fs::read(path).unwrap(), what)
    })
}

/// How many files of the log there are after a while of work: it ends with as many as there are unless it is said
/// otherwise. Lines that come together are written together, into one file.
async fn logged(rig: &Rig) -> usize {
    let said = rig.daemon("start").await;
    let address = said.split_once("http://").expect(&said).1.lines().next().unwrap().parse().unwrap();
    let files = || {
        let folder = std::fs::read_dir(rig.path().join("log")).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("cco.log") && !name.ends_with(".lock")).count()
    };
    let (mut client, mut asked) = (crate::common::Client::connect(address).await, 0);
    while asked < 40 || asked < 1000 && files() < 5 {
        client.ask(Ask::default().request()).await;
        asked += 1;
    }
    rig.daemon("stop").await;
    files()
}
