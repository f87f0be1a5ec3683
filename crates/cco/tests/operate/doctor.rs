//! `cco doctor` with the real program: it drives what is installed, and examines what is elsewhere.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::broken::{Break, broken};
use crate::common::{Gateway, KEY, Upstream, binary, soon, upstream_with};
use crate::home::{Home, Said};

const DRIVEN: [&str; 7] = ["bytes", "headers", "stream", "disconnect", "errors", "ping", "large body"];

/// The checks of a card with this state.
fn checks(card: &Value, state: &str) -> Vec<String> {
    let all = card["checks"].as_array().unwrap().iter().filter(|check| check["state"] == state);
    all.map(|check| check["what"].as_str().unwrap().to_owned()).collect()
}

fn card(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|why| panic!("{why}: {}{}", said.out, said.err))
}

/// Everything below a folder: names, and how long files are.
fn content(folder: &std::path::Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(content(&entry.path()));
        }
        all.push((entry.path().display().to_string(), entry.metadata().unwrap().len()));
    }
    all.sort();
    all
}

#[test]
fn what_is_installed_is_driven_and_nothing_of_it_is_touched() {
    let mut home = Home::new();
    home.set("CCO_SERVER_LISTEN", "127.0.0.1:0");
    home.configure("127.0.0.1:9".parse().unwrap(), "file:/nonexistent/key");
    let before = content(home.path());
    let said: Said = home.command(&["doctor", "--json", "--load", "20", "--load-secs", "1"]).output().unwrap().into();
    let card = card(&said);
    let good = checks(&card, "good");
    for what in DRIVEN.iter().chain([&"load"]) {
        assert!(good.iter().any(|good| good == what), "{what} in {card}");
    }
    assert_eq!((said.code, card["bad"].as_u64()), (Some(0), Some(0)), "{card}");
    assert_eq!(content(home.path()), before);
}

#[test]
fn a_configuration_that_is_not_good_enough_is_red_and_each_red_line_says_what_to_do() {
    let mut home = Home::new();
    home.set("CCO_SERVER_LISTEN", "127.0.0.1:0");
    std::fs::write(home.file("config.json"), r#"{ "server": { "maxBodyMb": 8, "pingSecs": 300 } }"#).unwrap();
    let said: Said = home.command(&["doctor"]).output().unwrap().into();
    assert_eq!(said.code, Some(1), "{}", said.out);
    let lines: Vec<_> = said.out.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("✗ large body")).unwrap_or_else(|| panic!("{}", said.out));
    assert!(lines[at + 1].contains("-> cco config set server.maxBodyMb --default"), "{}", said.out);
    assert!(said.out.contains("! ping           `server.pingSecs` is 300"), "{}", said.out);
}

/// Examines what is there, with this key.
async fn examined(url: &str, key: Option<&str>) -> Said {
    let home = tempfile::tempdir().unwrap();
    let mut command: Command = binary();
    command.args(["doctor", "--json", "--url", url]).env("CCO_HOME", home.path()).env("HOME", home.path());
    if let Some(key) = key {
        command.env("ANTHROPIC_API_KEY", key);
    }
    soon(command.output()).await.unwrap().into()
}

async fn provider() -> Upstream {
    upstream_with(sim::SimConfig { default: "every=5".parse().unwrap(), ..sim::SimConfig::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_gateway_elsewhere_is_green_and_each_broken_one_is_red() {
    let provider = provider().await;
    let gateway = Gateway::start(&provider, json!({})).await;
    let said = examined(&format!("http://{}", gateway.addr), Some(KEY)).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(
        checks(&card(&said), "good"),
        ["health", "models", "answer", "headers", "order", "increments", "errors"]
    );
    for (how, want) in [
        (Break::Words("\"status\":\"healthy\"", "\"status\":\"unhealt\""), "health"),
        (Break::Words("\"output_tokens\":64", "\"output_tokenz\":64"), "answer"),
        (Break::Words("x-accel-buffering", "x-accel-bufferinq"), "headers"),
        (Break::Words("event: content_block_stop", "event: content_block_stup"), "order"),
        (Break::HeldBack, "increments"),
        (Break::Words("\"type\":\"error\"", "\"type\":\"errir\""), "errors"),
    ] {
        let proxy = broken(gateway.addr, how).await;
        let said = examined(&format!("http://{}", proxy.addr), Some(KEY)).await;
        assert_eq!((said.code, checks(&card(&said), "bad")), (Some(1), vec![want.to_owned()]), "{how:?}: {}", said.out);
    }
}

/// The simulator itself stands for a gateway of somebody else: it has neither our health nor our headers.
#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_gateway_is_judged_by_what_clients_need() {
    let provider = provider().await;
    let said = examined(&format!("http://{}", provider.addr), Some(KEY)).await;
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(checks(&card(&said), "odd").contains(&"health".to_owned()), "{}", said.out);
    let none = examined(&format!("http://{}", provider.addr), None).await;
    assert_eq!((none.code, checks(&card(&none), "bad")), (Some(1), vec!["key".to_owned()]), "{}", none.out);
    let nobody = examined("http://127.0.0.1:9", Some(KEY)).await;
    assert_eq!(nobody.code, Some(1), "{}", nobody.out);
    assert!(nobody.out.contains("127.0.0.1:9"), "{}", nobody.out);
}
