//! What changes the ledger: removing, and pricing again; with a gateway and without.

use serde_json::{Value, json};

use crate::common::{Gateway, contains, prompt, request, upstream};
use crate::{cco, home, printed, recorded, stop, text};

async fn ids(home: &std::path::Path) -> Vec<String> {
    let output = cco(home, &["logs", "--json"]).await;
    let rows = printed(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Whether any file of the home holds this text.
fn holds(folder: &std::path::Path, what: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holds(&path, what)
        } else {
            contains(&std::fs::read(path).unwrap_or_default(), what.as_bytes())
        }
    })
}

#[tokio::test]
async fn what_is_purged_is_gone_for_good() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "audit": { "encrypt": false } }));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let mut made = Vec::new();
    for (n, session) in ["s1", "s1", "s2", "s3", "s4"].into_iter().enumerate() {
        let fields = format!("x-sim: text=hi\r\nx-claude-code-session-id: canary-{session}\r\n");
        let answer =
            gateway.ask(request("POST", "/v1/messages", &fields, prompt(&format!("canary-body-{n}"), true))).await;
        made.push(answer.id().to_owned());
    }
    assert_eq!(ids(home.path()).await, made);
    let output = cco(home.path(), &["audit", "purge", "--session", "canary-s1", "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 2 records, 8 bodies ("), "{}", printed(&output));
    let output = cco(home.path(), &["audit", "purge", &made[2][28..], "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 1 record, 4 bodies ("), "{}", printed(&output));
    assert_eq!(ids(home.path()).await, made[3..]);
    stop(gateway).await;
    for gone in ["canary-s1", "canary-s2"] {
        assert!(!holds(home.path(), gone), "`{gone}` is still there");
    }
    assert!(holds(home.path(), "canary-s3"));
    // Without a gateway.
    let output = cco(home.path(), &["audit", "purge", &made[3], "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 1 record, 4 bodies ("), "{}", printed(&output));
    assert!(text(&output.stderr).starts_with("note: no gateway is running here"), "{}", text(&output.stderr));
    assert_eq!(ids(home.path()).await, made[4..]);
    assert!(!holds(home.path(), "canary-s3"));
    let output = cco(home.path(), &["audit", "purge", "--before", "2h", "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 0 records, 0 bodies ("), "{}", printed(&output));
    let output = cco(home.path(), &["audit", "purge", "--all", "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 1 record, all bodies ("), "{}", printed(&output));
    assert_eq!(ids(home.path()).await, Vec::<String>::new());
    assert!(!holds(home.path(), "canary-s4"));
}

#[tokio::test]
async fn where_nobody_can_be_asked_nothing_is_removed() {
    let home = recorded(&[ledger::sample::record(0)]);
    let output = cco(home.path(), &["audit", "purge", "--all"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    assert!(said.contains("error: nothing was removed") && said.contains("help: `--yes` removes it"), "{said}");
    assert_eq!(ids(home.path()).await.len(), 1);
}

#[tokio::test]
async fn what_was_recorded_before_recording_was_turned_off_can_be_looked_at_and_removed() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    for _ in 0..3 {
        gateway.ask(request("POST", "/v1/messages", "x-sim: text=hi\r\n", prompt("Hello.", true))).await;
    }
    stop(gateway).await;
    let mut config: Value = serde_json::from_slice(&std::fs::read(home.path().join("config.json")).unwrap()).unwrap();
    config["audit"] = json!({ "enabled": false });
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    gateway.ask(request("POST", "/v1/messages", "x-sim: text=hi\r\n", prompt("Hello.", true))).await;
    let kept = ids(home.path()).await;
    assert_eq!(kept.len(), 3, "nothing comes to it");
    let health = cco(home.path(), &["status", "--json"]).await;
    let health: Value = serde_json::from_str(printed(&health)).unwrap();
    assert_eq!(health["ledger"], "off");
    let output = cco(home.path(), &["audit", "purge", &kept[0], "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 1 record, 4 bodies ("), "{}", printed(&output));
    stop(gateway).await;
    let output = cco(home.path(), &["audit", "purge", "--all", "--yes"]).await;
    assert!(printed(&output).starts_with("removed: 2 records, all bodies ("), "{}", printed(&output));
}

#[tokio::test]
async fn a_purge_says_exactly_what_goes() {
    let home = tempfile::tempdir().unwrap();
    for args in [
        &["audit", "purge"][..],
        &["audit", "purge", "--all", "--session", "x"],
        &["audit", "purge", "--before", "soon"],
    ] {
        let output = cco(home.path(), args).await;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn history_is_priced_again_at_the_prices_of_now() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let mine = prompt("Hello.", true).replace("claude-sonnet-5-5", "my-own");
    let usage = "x-sim: text=hi input_tokens=1000 output_tokens=100\r\n";
    for _ in 0..3 {
        gateway.ask(request("POST", "/v1/messages", usage, &mine)).await;
    }
    gateway.ask(request("POST", "/v1/messages", usage, prompt("Hello.", true))).await;
    // Counting costs nothing, whatever the model.
    let counted = prompt("Hello.", false).replace("claude-sonnet-5-5", "not-mine");
    gateway.ask(request("POST", "/v1/messages/count_tokens", "", counted)).await;
    let costs = async || {
        let output = cco(home.path(), &["costs", "--by", "model", "--json"]).await;
        let rows = printed(&output).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut rows: Vec<(String, Option<f64>, i64)> = rows
            .map(|row| {
                (row["model"].as_str().unwrap().into(), row["cost_usd"].as_f64(), row["unpriced"].as_i64().unwrap())
            })
            .collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        rows
    };
    let sonnet = ("claude-sonnet-5-5".to_owned(), Some(0.003), 0);
    let nothing = ("not-mine".to_owned(), Some(0.0), 0);
    assert_eq!(costs().await, [sonnet.clone(), ("my-own".into(), None, 3), nothing.clone()]);
    let output = cco(home.path(), &["costs", "--by", "model"]).await;
    let shown = |name: &str| {
        let mut lines = printed(&output).lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.find(|line| line[0] == name).unwrap()[1..3].join(" ")
    };
    assert_eq!((shown("my-own"), shown("not-mine"), shown("total")), ("- 3".into(), "$0 1".into(), "≥ $0.0030".into()));
    let told = text(&output.stderr);
    assert!(told.contains("not in the cost: 3 requests without a price"), "{told}");
    assert!(!told.contains("nobody said"), "{told}");
    let output = cco(home.path(), &["costs", "--by", "model", "--csv"]).await;
    let cell = |line: &str| line.split(',').nth(7).map(str::to_owned);
    let cells: Vec<_> = printed(&output).lines().filter(|line| line.starts_with("my-own")).filter_map(cell).collect();
    assert_eq!(cells, [""], "{}", printed(&output));
    // The prices of the gateway that runs are asked, not those of the file.
    let mut config: Value = serde_json::from_slice(&std::fs::read(home.path().join("config.json")).unwrap()).unwrap();
    config["costTracking"] =
        json!({ "pricingOverrides": { "my-own": { "inputPerMillion": 10, "outputPerMillion": 20 } } });
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let output = cco(home.path(), &["prices", "recompute"]).await;
    assert_eq!(printed(&output), "priced again: 5 exchanges, of which 0 cost something else now\n");
    stop(gateway).await;
    // Without one, those of the file.
    let output = cco(home.path(), &["prices", "recompute", "--model", "my-*"]).await;
    assert_eq!(printed(&output), "priced again: 3 exchanges, of which 3 cost something else now\n");
    assert_eq!(costs().await, [sonnet.clone(), ("my-own".into(), Some(0.036), 0), nothing.clone()]);
    // And by one that knows others.
    config["costTracking"] =
        json!({ "pricingOverrides": { "my-own": { "inputPerMillion": 1, "outputPerMillion": 2 } } });
    std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let output = cco(home.path(), &["prices", "recompute", "--since", "1h"]).await;
    let want = "priced again: 5 exchanges, of which 3 cost something else now\ntogether: $0.0066, before $0.0390\n";
    assert_eq!(printed(&output), want);
    assert_eq!(costs().await, [sonnet, ("my-own".into(), Some(0.0036), 0), nothing]);
    stop(gateway).await;
}
