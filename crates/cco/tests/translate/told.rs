//! What clients and records are told beside the answer itself: limits of providers, and what we had to estimate.

use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Answer, Gateway, binary, soon, upstream, upstream_with};
use crate::{Client, gateway_of, post};

/// The limits that an answer names, under the prefix of either protocol.
fn limits(answer: &Answer) -> [Option<&str>; 4] {
    [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-tokens-remaining",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-tokens",
    ]
    .map(|name| answer.header(name))
}

/// What the newest record says was not carried, once `holds` is true of it.
pub(crate) async fn recorded(gateway: &Gateway, id: &str) -> Vec<String> {
    let looked_up = async {
        loop {
            let mut command = binary();
            command.args(["logs", "show", id, "--json"]).env("CCO_HOME", gateway.home());
            let output = command.output().await.unwrap();
            if let Ok(record) = serde_json::from_slice::<Value>(&output.stdout) {
                let losses = record["losses"].as_array().cloned().unwrap_or_default();
                return losses.iter().map(|loss| loss.as_str().unwrap().to_owned()).collect();
            }
        }
    };
    soon(looked_up).await
}

#[tokio::test]
async fn limits_are_told_in_the_words_of_the_client() {
    let upstream = upstream().await;
    let (openai, claude) = (gateway_of("openai-chat", &upstream).await, gateway_of("anthropic", &upstream).await);
    for stream in [true, false] {
        for fault in ["", " fault=429=7"] {
            let script = format!("[[sim text=x{fault}]]");
            let answer = Client::Anthropic.ask(&openai, &Client::Anthropic.body(&script, stream)).await;
            assert_eq!(limits(&answer), [Some("4000"), Some("1999000"), None, None], "{script} {stream}");
            let reset = answer.header("anthropic-ratelimit-requests-reset").unwrap();
            assert!(reset.len() == 20 && reset.ends_with('Z'), "{reset}");
            let answer = Client::Chat.ask(&claude, &Client::Chat.body(&script, stream)).await;
            assert_eq!(limits(&answer), [None, None, Some("4000"), Some("1999000")], "{script} {stream}");
        }
    }
}

#[tokio::test]
async fn an_estimate_that_a_client_was_told_is_marked_in_the_record() {
    let upstream = upstream().await;
    for (name, client, is_told) in [
        ("openai-chat", Client::Anthropic, true),
        ("ollama", Client::Anthropic, true),
        ("ollama", Client::Chat, false),
        ("anthropic", Client::Responses, false),
    ] {
        let gateway = gateway_of(name, &upstream).await;
        let answer = client.ask(&gateway, &client.body("[[sim text=x input_tokens=123]]", true)).await;
        let losses = recorded(&gateway, answer.id()).await;
        let marked = losses.iter().any(|loss| loss.starts_with("usage.input_tokens: the client was first told of "));
        assert_eq!(marked, is_told, "{name} {client:?}: {losses:?}");
    }
}

#[tokio::test]
async fn a_prompt_is_counted_where_a_provider_of_the_same_protocol_does_not_and_that_is_marked() {
    let default = "fault=404".parse().unwrap();
    let upstream = upstream_with(SimConfig { default, ..SimConfig::default() }).await;
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "how many tokens is this?" }] });
    let count = post("/v1/messages/count_tokens", "anthropic-version: 2023-06-01\r\n", &body.to_string());
    let gateway = gateway_of("deepseek", &upstream).await;
    // However often: it says nothing of how the provider is.
    for _ in 0..8 {
        let answer = gateway.ask(&count).await;
        assert_eq!((answer.status, answer.header("x-cco-loss")), (200, Some("input_tokens")), "{}", answer.text());
        assert!((5..12).contains(&answer.json()["input_tokens"].as_u64().unwrap()), "{}", answer.text());
        let losses = recorded(&gateway, answer.id()).await;
        assert_eq!(losses, ["input_tokens: `deepseek` does not count: this is our estimate"]);
    }
    // Anthropic itself counts: what it does not find is the model.
    let claude = gateway_of("anthropic", &upstream).await;
    assert_eq!(claude.ask(&count).await.status, 404);
}

#[tokio::test]
async fn no_more_context_is_reserved_than_the_model_holds() {
    let upstream = upstream().await;
    let gateway = gateway_of("ollama", &upstream).await;
    let mut body = Client::Anthropic.body("[[sim text=x]]", true);
    // The simulator's models hold 65,536 tokens.
    for (most, reserved) in [(4000, 8192), (40_000, 65_536), (200_000, 65_536)] {
        body["max_tokens"] = json!(most);
        let answer = Client::Anthropic.ask(&gateway, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent: Value = serde_json::from_slice(&upstream.last_ended().await.body).unwrap();
        assert_eq!(sent["options"]["num_ctx"], reserved, "for {most}");
    }
    let asked = upstream.sim.requests().iter().filter(|request| request.target == "/api/show").count();
    assert_eq!(asked, 1, "a model is asked for once");
}

#[tokio::test]
async fn a_token_of_entras_goes_to_azure_as_a_bearers() {
    let upstream = upstream().await;
    let azure = json!({ "providerType": "azure", "baseUrl": format!("http://{}", upstream.addr), "deployment": "d",
        "apiKeyRef": "env:TOKEN" });
    let config = json!({ "providers": { "azure": azure }, "routing": { "defaultProvider": "azure" } });
    for (key, want) in [("eyJ0eXAi.eyJhdWQi.c2ln", "authorization"), ("0123456789abcdef", "api-key")] {
        let gateway = Gateway::start_with(config.clone(), &[], &[("TOKEN", key)]).await;
        let answer = Client::Anthropic.ask(&gateway, &Client::Anthropic.body("[[sim text=x]]", true)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent = upstream.last_ended().await.headers;
        let shown = sent.iter().find(|(_, value)| String::from_utf8_lossy(value).ends_with(key));
        assert_eq!(shown.map(|(name, _)| name.to_ascii_lowercase()).as_deref(), Some(want));
    }
}
