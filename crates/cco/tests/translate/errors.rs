//! What goes wrong at a provider of another protocol, as its clients are told of it.

use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Answer, upstream, upstream_with};
use crate::{Client, gateway, gateway_of, provider};

/// What an error says: its kind in the client's words, and its message.
fn told(client: Client, answer: &Answer) -> (String, String) {
    let body = answer.json();
    let error = &body["error"];
    let word = if client == Client::Anthropic { &error["type"] } else { &error["code"] };
    let word = word.as_str().or(error["type"].as_str()).unwrap_or_default();
    (word.to_owned(), error["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_error_is_told_in_the_words_of_the_client() {
    let upstream = upstream().await;
    for name in ["openai", "openai-chat", "ollama"] {
        let gateway = gateway_of(name, &upstream).await;
        for (fault, anthropic, openai) in [
            ("400", (400, "invalid_request_error"), (400, "invalid_request_error")),
            ("401", (502, "api_error"), (502, "server_error")),
            ("403", (502, "api_error"), (502, "server_error")),
            ("404", (404, "not_found_error"), (404, "model_not_found")),
            ("429=7", (429, "rate_limit_error"), (429, "rate_limit_exceeded")),
            ("500", (500, "api_error"), (500, "server_error")),
            ("503", (503, "api_error"), (503, "server_error")),
        ] {
            for (client, want) in [(Client::Anthropic, anthropic), (Client::Chat, openai)] {
                if client == Client::Chat && name == "openai-chat" {
                    // Between equal protocols an answer passes as it is.
                    continue;
                }
                let answer = client.ask(&gateway, &client.body(&format!("[[sim text=x fault={fault}]]"), true)).await;
                let (word, message) = told(client, &answer);
                let at = format!("{fault} of {name} to {client:?}: {} {}", answer.status, answer.text());
                assert_eq!((answer.status, &*word), want, "{at}");
                assert!(!message.is_empty(), "{at}");
                if fault == "429=7" {
                    assert_eq!(answer.header("retry-after"), Some("7"), "{at}");
                }
                if fault == "401" {
                    assert!(message.contains("key"), "{at}");
                    assert!(!answer.text().contains("authentication_error"), "{at}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_told_so_that_clients_compact_it() {
    let upstream = upstream().await;
    let mut ollama = provider("ollama", &upstream);
    ollama["numCtx"] = json!(100);
    let gateway = gateway(&[("ollama", ollama)], json!({})).await;
    for (client, word) in [(Client::Anthropic, "invalid_request_error"), (Client::Chat, "context_length_exceeded")] {
        let answer = client.ask(&gateway, &client.body(&"many words ".repeat(100), true)).await;
        let (told, message) = told(client, &answer);
        assert_eq!((answer.status, &*told), (400, word), "{}", answer.text());
        assert!(message.starts_with("prompt is too long"), "{message}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_ends_with_an_error_in_the_clients_protocol() {
    let upstream = upstream().await;
    for name in ["openai", "openai-chat", "ollama"] {
        let gateway = gateway_of(name, &upstream).await;
        for client in Client::ALL {
            for fault in ["error-mid=6", "truncate=6"] {
                if client == Client::Chat && name == "openai-chat" || client == Client::Responses && name == "openai" {
                    continue;
                }
                let script = format!("[[sim text=\"one two three four five six\" fault={fault}]]");
                let answer = client.ask(&gateway, &client.body(&script, true)).await;
                let text = answer.text();
                let at = format!("{fault} of {name} to {client:?}: {text}");
                assert_eq!(answer.status, 200, "{at}");
                let end = text.trim_end().rsplit("\n\n").next().unwrap();
                let data: Value = serde_json::from_str(end.split_once("data: ").unwrap().1).unwrap();
                let error = match client {
                    Client::Responses => &data["response"]["error"],
                    _ => &data["error"],
                };
                assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{at}");
                assert!(!text.contains("message_stop") && !text.contains("[DONE]"), "{at}");
            }
        }
    }
}

#[tokio::test]
async fn another_provider_serves_where_one_of_another_protocol_fails() {
    let good = upstream().await;
    for fault in ["500", "error-first", "401", "429=60", "truncate=0", "close-before-head", "502-html"] {
        let bad =
            upstream_with(SimConfig { default: format!("fault={fault}").parse().unwrap(), ..SimConfig::default() });
        let bad = bad.await;
        for (first, second) in [("openai", "ollama"), ("ollama", "anthropic"), ("anthropic", "openai-chat")] {
            let all = [(first, provider(first, &bad)), (second, provider(second, &good))];
            let gateway = gateway(&all, json!({})).await;
            for client in Client::ALL {
                for stream in [true, false] {
                    if !stream && matches!(fault, "truncate=0" | "error-first") {
                        continue;
                    }
                    let before = bad.sim.requests().len();
                    let mut body = client.body("hello", stream);
                    body["model"] = "claude-opus-5-5".into();
                    let answer = client.ask(&gateway, &body).await;
                    let at = format!("{fault} at {first} for {client:?}, stream {stream}: {}", answer.text());
                    assert_eq!((answer.status, answer.header("x-cco-provider")), (200, Some(second)), "{at}");
                    assert!(answer.text().contains("Hello! "), "{at}");
                    // What is asked of Ollama before the first request is none for an answer.
                    let asked = bad.sim.requests()[before..].to_vec();
                    let asked = asked.iter().filter(|r| r.target != "/api/show");
                    let asked: Vec<_> = asked.map(|r| (r.target.clone(), r.end.clone())).collect();
                    assert!(asked.len() <= 1, "{asked:?} {at}");
                }
            }
            assert!(!bad.sim.requests().is_empty());
        }
    }
}
