//! `cco providers add|list|test|remove`: the configuration and the store of keys that they leave behind.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Upstream, upstream_with};
use crate::home::{Home, KEY, OTHER, Said};
use crate::terminal::Session;

async fn upstream() -> Upstream {
    upstream_with(SimConfig { keys: vec![KEY.into()], ..SimConfig::default() }).await
}

/// `cco providers …` with nobody at a terminal, and this on standard input.
fn providers(home: &Home, args: &[&str], input: &str) -> Said {
    let args = [&["--wait", env!("CARGO_BIN_EXE_cco"), "providers"], args].concat();
    let mut child = home.wrapped("setsid", &args).stdin(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

fn written(home: &Home) -> Value {
    let text = std::fs::read_to_string(home.file("config.json")).unwrap();
    let plain: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    serde_json::from_str(&plain).unwrap_or_else(|why| panic!("{why}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_added_with_its_key_and_tried_and_comments_stay() {
    let (upstream, home) = (upstream().await, Home::new());
    std::fs::write(home.file("config.json"), "{\n  // mine\n  \"server\": { \"pingSecs\": 7 }\n}\n").unwrap();
    let at = format!("http://{}", upstream.addr);
    let said =
        providers(&home, &["add", "deepseek", "--base-url", &at, "--model", "deepseek-v4-pro", "--key-stdin"], KEY);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("stored `DEEPSEEK_API_KEY` (…6789)\n"), "{}", said.out);
    assert!(said.out.contains("`deepseek` answers: deepseek-v4-pro in "), "{}", said.out);
    assert!(said.out.contains("price of deepseek-v4-pro: $") && said.out.contains("million tokens"), "{}", said.out);
    assert!(!said.out.contains("canary") && !said.err.contains("canary"), "{}{}", said.out, said.err);
    // One request, in the way of that kind, with the key.
    let all = upstream.sim.requests();
    let [asked] = &*all else { panic!("{} requests", all.len()) };
    assert_eq!(asked.target, "/anthropic/v1/messages");
    assert_eq!(asked.header_all("authorization"), [format!("Bearer {KEY}")]);

    let text = std::fs::read_to_string(home.file("config.json")).unwrap();
    assert!(text.contains("// mine") && !text.contains("canary"), "{text}");
    // The provider that was there by itself stays, and stays the default.
    let want = json!({
        "anthropic": {},
        "deepseek": {
            "providerType": "deepseek", "baseUrl": at, "apiKeyRef": "credential:DEEPSEEK_API_KEY",
            "defaultModel": "deepseek-v4-pro",
        },
    });
    let config = written(&home);
    assert_eq!((&config["providers"], &config["server"]), (&want, &json!({ "pingSecs": 7 })));
    assert!(said.err.contains("cco config set routing.fallbackChain anthropic,deepseek"), "{}", said.err);
    // Nothing of it is recorded.
    assert!(!home.file("journal").exists() && !home.file("ledger.db").exists());

    // It is listed without a gateway that runs, tested again, and removed; its key stays.
    let listed = providers(&home, &["list", "--json"], "");
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed["providers"][1]["name"], "deepseek", "{listed}");
    assert_eq!(providers(&home, &[], "").out, providers(&home, &["list"], "").out);
    let tested = providers(&home, &["test", "deepseek", "--json"], "");
    let told: Value = serde_json::from_str(&tested.out).unwrap();
    assert_eq!((tested.code, &told["ok"], &told["model"]), (Some(0), &json!(true), &json!("deepseek-v4-pro")));
    assert!(told["price"]["input"].is_string() && told["output_tokens"].as_u64() > Some(0), "{told}");
    let again = providers(&home, &["add", "deepseek", "--base-url", &at, "--model", "x"], "");
    assert!(again.failed(1).contains("has a provider `deepseek` already"));
    let removed = providers(&home, &["remove", "deepseek"], "");
    assert!(
        removed.code == Some(0) && removed.err.contains("cco credentials delete DEEPSEEK_API_KEY"),
        "{}",
        removed.err
    );
    assert_eq!(written(&home)["providers"], json!({ "anthropic": {} }));
    assert!(providers(&home, &["remove", "deepseek"], "").failed(1).contains("has no provider `deepseek`"));
    assert_eq!(home.retrieve("DEEPSEEK_API_KEY"), format!("{KEY}\n"));
}

#[test]
fn who_removes_a_provider_is_told_what_still_names_it() {
    let home = Home::new();
    let config = |default: &str| {
        json!({
            "providers": { "anthropic": {}, "vllm": { "providerType": "vllm", "defaultModel": "m" } },
            "routing": {
                "defaultProvider": default, "fallbackChain": ["anthropic", "vllm"], "agentRules": { "Explore": "vllm" },
                "rules": [{ "name": "r", "use": { "providers": ["vllm"] } }],
            },
        })
        .to_string()
    };
    std::fs::write(home.file("config.json"), config("vllm")).unwrap();
    let refused = providers(&home, &["remove", "vllm"], "").failed(1);
    assert!(refused.contains("it is the default provider") && refused.contains("routing.defaultProvider"), "{refused}");
    assert!(written(&home)["providers"]["vllm"].is_object());
    std::fs::write(home.file("config.json"), config("anthropic")).unwrap();
    let removed = providers(&home, &["remove", "vllm"], "");
    assert_eq!(removed.code, Some(0), "{}", removed.err);
    for key in ["fallbackChain", "agentRules", "rules"] {
        let note = format!("note: routing.{key}: `vllm` is not configured and is skipped");
        assert!(removed.err.contains(&note), "{note}: {}", removed.err);
    }
    assert_eq!(written(&home)["providers"], json!({ "anthropic": {} }));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_added_from_flags_and_answers() {
    let (upstream, home) = (upstream().await, Home::new());
    let at = format!("http://{}", upstream.addr);
    let with_path = format!("{at}/api/v1");
    home.store("K", KEY);
    for (args, target) in [
        (vec!["openai", "--base-url", &at, "--model", "gpt-5"], "/v1/responses"),
        (vec!["azure", "--base-url", &at, "--deployment", "gpt-5"], "/openai/v1/responses"),
        (
            vec!["azure", "--name", "dated", "--base-url", &at, "--deployment", "d", "--api-version", "2024-10-21"],
            "/openai/deployments/d/chat/completions?api-version=2024-10-21",
        ),
        (
            vec![
                "azure",
                "--name",
                "foundry",
                "--base-url",
                &at,
                "--deployment",
                "my-claude",
                "--protocol",
                "anthropic",
            ],
            "/anthropic/v1/messages",
        ),
        (vec!["ollama", "--base-url", &at, "--model", "qwen3:30b", "--num-ctx", "65536"], "/api/chat"),
        (vec!["openrouter", "--base-url", &with_path, "--model", "qwen/qwen3"], "/api/v1/messages"),
        (vec![&*with_path, "--name", "other", "--model", "qwen3"], "/api/v1/chat/completions"),
        (vec![&*at, "--name", "like", "--protocol", "anthropic", "--model", "m"], "/v1/messages"),
    ] {
        let said = providers(&home, &[&["add"], &*args, &["--key-ref", "credential:K"]].concat(), "");
        assert_eq!(said.code, Some(0), "{args:?}: {}{}", said.out, said.err);
        let asked = upstream.last();
        assert_eq!(asked.target, target, "{args:?}");
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        if args.contains(&"my-claude") {
            assert_eq!(body["model"], "my-claude");
        }
        if args.contains(&"ollama") {
            assert_eq!((&body["options"]["num_ctx"], &body["truncate"]), (&json!(65536), &json!(false)), "{body}");
        }
    }
    let all = written(&home)["providers"].as_object().unwrap().len();
    assert_eq!(all, 9, "these, and the one that was there by itself");
    assert!(home.command(&["config", "validate"]).output().unwrap().status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_told_with_the_reason_and_stays_written() {
    let (upstream, home) = (upstream().await, Home::new());
    let at = format!("http://{}", upstream.addr);
    let said = providers(&home, &["add", "openai", "--base-url", &at, "--model", "gpt-5", "--key-stdin"], OTHER);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("error: `openai` did not answer") && said.err.contains("key (401)"), "{}", said.err);
    assert!(!said.err.contains("cco logs"), "nothing is recorded: {}", said.err);
    assert!(!said.err.contains("kanarie") && !said.out.contains("kanarie"), "{}{}", said.out, said.err);
    assert_eq!(written(&home)["providers"]["openai"]["apiKeyRef"], "credential:OPENAI_API_KEY");
    let said = providers(&home, &["test", "openai", "--json"], "");
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert!(said.code == Some(1) && told["ok"] == false && told["error"].is_string(), "{told}");
    home.store("OPENAI_API_KEY", KEY);
    assert_eq!(providers(&home, &["test", "openai"], "").code, Some(0));
    let nobody = providers(&home, &["add", "http://127.0.0.1:1", "--name", "nobody", "--model", "m"], "");
    assert!(nobody.code == Some(1) && nobody.err.contains("`nobody` did not answer"), "{}", nobody.err);
}

#[test]
fn what_a_kind_needs_is_asked_of_flags_where_there_is_no_terminal() {
    let home = Home::new();
    for (args, code, says) in [
        (vec!["deepsek"], 2, "there is no kind of provider `deepsek`"),
        (vec!["bedrock"], 2, "there is no kind of provider `bedrock`"),
        (vec!["deepseek"], 2, "`--model`"),
        (vec!["azure", "--deployment", "d"], 2, "`--base-url`"),
        (vec!["azure", "--base-url", "https://x.openai.azure.com"], 2, "`--deployment`"),
        (vec!["openai-compatible", "--model", "m"], 2, "`--base-url`"),
        (vec!["deepseek", "--model", "m"], 1, "`--key-stdin`"),
        (vec!["deepseek", "--model", "m", "--base-url", "nowhere"], 2, "`nowhere` is no address"),
        (vec!["https://x.test", "--base-url", "https://y.test"], 2, "there are two addresses"),
        (vec!["ollama", "--model", "m", "--name", "a.b"], 2, "cannot be the name of a provider"),
    ] {
        let told = providers(&home, &[&["add"], &*args].concat(), "").failed(code);
        assert!(told.contains(says), "{args:?}: {told}");
    }
    assert!(!home.file("config.json").exists(), "nothing was written");
    assert!(providers(&home, &["test", "nobody"], "").failed(1).contains("has no provider `nobody`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_terminal_what_is_missing_is_asked_for() {
    let (upstream, home) = (upstream().await, Home::new());
    let url = format!("http://{}", upstream.addr);
    let mut session = Session::run(&home, "providers add azure");
    session.answer("https://NAME.openai.azure.com: ", &format!("{url}\r"));
    session.answer("Deployment: ", "gpt-5\r");
    session.answer("Key for `AZURE_OPENAI_API_KEY` (it is not shown): ", &format!("{KEY}\r"));
    let (code, seen) = session.end();
    assert!(code == Some(0) && seen.contains("`azure` answers: gpt-5") && !seen.contains("canary"), "{seen}");
    assert_eq!(written(&home)["providers"]["azure"]["deployment"], "gpt-5");
}
