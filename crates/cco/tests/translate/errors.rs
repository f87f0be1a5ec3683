//! What goes wrong at a provider of another protocol, as its clients are told of it.

use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Answer, upstream, upstream_with};
use crate::{Client, PROVIDERS_KEY, gateway, gateway_of, provider};

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
async fn whether_to_try_again_is_told_as_the_provider_said_it() {
    let upstream = upstream().await;
    let gateway = gateway_of("anthropic", &upstream).await;
    for word in ["true", "false"] {
        for client in [Client::Chat, Client::Responses] {
            let script = format!("[[sim text=x fault=529 header=\"x-should-retry: {word}\"]]");
            let answer = client.ask(&gateway, &client.body(&script, true)).await;
            let told: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "x-should-retry").collect();
            assert_eq!((answer.status, told.len()), (503, 1), "{told:?}");
            assert_eq!(told[0].1, word);
        }
    }
}

#[tokio::test]
async fn an_error_within_many_lists_ends_no_gateway() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("deep.json"), "[".repeat(100_000) + &"]".repeat(100_000)).unwrap();
    let config = SimConfig { transcripts: Some(folder.path().to_owned()), ..SimConfig::default() };
    let upstream = upstream_with(config).await;
    let gateway = gateway_of("openai", &upstream).await;
    for script in ["raw=deep.json status=500", "text=good"] {
        let answer = Client::Anthropic.ask(&gateway, &Client::Anthropic.body(&format!("[[sim {script}]]"), true)).await;
        assert_eq!(answer.status, if script.starts_with("raw") { 500 } else { 200 }, "{}", answer.text());
    }
}

/// A recorded error: the file without its ending, the provider that says it, and what a client of Anthropic's protocol
/// and one of OpenAI's are told: status and word.
type Recorded = (&'static str, &'static str, (u16, &'static str), (u16, &'static str));

const RECORDED: &[Recorded] = &[
    ("e01_anthropic_400", "anthropic", (400, "invalid_request_error"), (400, "context_length_exceeded")),
    ("e02_anthropic_401", "anthropic", (502, "api_error"), (502, "server_error")),
    ("e03_anthropic_429", "anthropic", (429, "rate_limit_error"), (429, "rate_limit_exceeded")),
    ("e04_anthropic_429_spend_limit", "anthropic", (429, "rate_limit_error"), (429, "insufficient_quota")),
    ("e05_anthropic_529", "anthropic", (529, "overloaded_error"), (503, "overloaded")),
    ("e06_anthropic_413", "anthropic", (413, "request_too_large"), (413, "invalid_request_error")),
    ("e07_openai_401", "openai", (502, "api_error"), (502, "server_error")),
    ("e08_openai_429_quota", "openai", (429, "rate_limit_error"), (429, "insufficient_quota")),
    ("e10_openai_400_context", "openai", (400, "invalid_request_error"), (400, "context_length_exceeded")),
    ("e11_azure_401", "azure", (502, "api_error"), (502, "server_error")),
    ("e12_azure_404_deployment", "azure-dated", (404, "not_found_error"), (404, "model_not_found")),
    ("e15_deepseek_402", "deepseek-chat", (402, "billing_error"), (429, "insufficient_quota")),
    ("e17_ollama_404_native", "ollama", (404, "not_found_error"), (404, "model_not_found")),
    // No kind of ours, but what stands behind a compatible server may say them.
    ("e19_bedrock_429", "openai-compatible", (429, "rate_limit_error"), (429, "rate_limit_exceeded")),
    ("e20_vertex_429", "openai-compatible", (429, "rate_limit_error"), (429, "rate_limit_exceeded")),
    ("e21_proxy_html_502", "vllm", (502, "api_error"), (502, "server_error")),
    ("e22_openrouter_402", "openai-compatible", (402, "billing_error"), (429, "insufficient_quota")),
];

/// The folders of recorded errors: Anthropic's, and everybody else's.
fn folders() -> [std::path::PathBuf; 2] {
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata");
    [data.join("transcripts"), data.join("upstreams")]
}

#[test]
fn every_recorded_error_is_in_the_table() {
    let mut names: Vec<String> = folders()
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".expect.json").map(str::to_owned))
        .filter(|name| name.starts_with('e'))
        .collect();
    names.sort();
    assert_eq!(names, RECORDED.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
}

#[tokio::test]
async fn every_recorded_error_of_every_provider_is_told_in_the_words_of_every_client() {
    for folder in folders() {
        let config = SimConfig { transcripts: Some(folder.clone()), ..SimConfig::default() };
        let upstream = upstream_with(config).await;
        for (name, kind, anthropic, openai) in RECORDED {
            let Ok(expected) = std::fs::read(folder.join(format!("{name}.expect.json"))) else { continue };
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            let (file, status) = (expected["file"].as_str().unwrap(), expected["http_status"].as_u64().unwrap());
            let recorded = std::fs::read(folder.join(file)).unwrap();
            let headers = expected["headers"].as_object().unwrap();
            let headers: String = headers
                .iter()
                .map(|(name, value)| format!(" header={}", json!(format!("{name}: {}", value.as_str().unwrap()))))
                .collect();
            for client in Client::ALL {
                // A gateway of its own: what one answer said of a key or a limit is not to be remembered at the next.
                let gateway = gateway_of(kind, &upstream).await;
                let script = format!("[[sim raw={file} status={status}{headers}]]");
                let answer = client.ask(&gateway, &client.body(&script, true)).await;
                let at = format!("{name} to {client:?}: {} {}", answer.status, answer.text());
                let asked = upstream.last_ended().await.target;
                let same = match client {
                    Client::Anthropic => asked.contains("/messages"),
                    Client::Chat => asked.contains("/chat/completions"),
                    Client::Responses => asked.contains("/responses"),
                };
                let ours_was_refused = status == 401;
                if same && !ours_was_refused {
                    assert_eq!((u64::from(answer.status), &*answer.body), (status, &*recorded), "{at}");
                    continue;
                }
                let (word, message) = told(client, &answer);
                let want = if client == Client::Anthropic { anthropic } else { openai };
                assert_eq!((answer.status, &*word), *want, "{at}");
                assert!(!message.is_empty() && !message.contains('<'), "{at}");
                assert!(!answer.text().contains("user_x") && !answer.text().contains(PROVIDERS_KEY), "{at}");
                assert_eq!(answer.header("content-type"), Some("application/json"), "{at}");
                if want.1 == "context_length_exceeded" || name.contains("context") || name.starts_with("e01") {
                    assert!(message.starts_with("prompt is too long: "), "{at}");
                    let acts = message.contains("capability_rejected: prompt_too_long");
                    assert_eq!(acts, client == Client::Anthropic, "{at}");
                }
                if client == Client::Anthropic {
                    let id = answer.header("request-id").expect("an id");
                    assert!(id.starts_with("req_") && answer.json()["request_id"] == id, "{at}");
                    // What waiting does not heal is said to be so; a request that is wrong is not sent again anyway.
                    let for_good = ours_was_refused || want.0 == 402 || name.contains("quota");
                    if for_good || !matches!(want.0, 400 | 404 | 413) {
                        assert_eq!(answer.header("x-should-retry") == Some("false"), for_good, "{at}");
                    }
                }
                if name.starts_with("e03") {
                    assert_eq!(answer.header("retry-after"), Some("17"), "{at}");
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
        let acts = message.ends_with("(capability_rejected: prompt_too_long)");
        assert_eq!(acts, client == Client::Anthropic, "the word by which Claude Code knows what to do: {message}");
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
