//! Clients and providers that speak different protocols: the real program between them, the simulator as every provider.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod all;
mod command;
mod errors;
mod left_out;
mod pairs;
mod told;

use serde_json::{Value, json};

use common::{Answer, Gateway, Upstream};

/// The key of all providers.
const PROVIDERS_KEY: &str = "key-of-the-provider";

/// A request of somebody who spends stored keys.
fn post(path: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nauthorization: Bearer cco\r\n{more}content-length: {length}\r\n\r\n{body}"
    )
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The kinds of providers, and where the simulator has to be asked by them for a client of Anthropic's protocol.
const PROVIDERS: &[(&str, &str)] = &[
    ("openai", "/v1/responses"),
    ("openai-chat", "/v1/chat/completions"),
    ("azure", "/openai/v1/responses"),
    ("azure-dated", "/openai/deployments/d/chat/completions"),
    ("deepseek", "/anthropic/v1/messages"),
    ("deepseek-chat", "/v1/chat/completions"),
    ("ollama", "/api/chat"),
    ("openrouter", "/v1/messages"),
    ("vllm", "/v1/chat/completions"),
    ("openai-compatible", "/v1/chat/completions"),
    ("anthropic", "/v1/messages"),
];

/// The configuration of one of them.
fn provider(name: &str, upstream: &Upstream) -> Value {
    let mut config = json!({
        "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "env:PROVIDERS_KEY", "providerType": name,
        "defaultModel": "their-model", "maxRetries": 0,
    });
    match name {
        "openai-chat" => (config["providerType"], config["protocol"]) = ("openai".into(), "openai-chat".into()),
        "deepseek-chat" => (config["providerType"], config["protocol"]) = ("deepseek".into(), "openai-chat".into()),
        "azure-dated" => {
            config["providerType"] = "azure".into();
            (config["deployment"], config["apiVersion"]) = ("d".into(), "2024-10-21".into());
        }
        "azure" => config["deployment"] = "d".into(),
        "ollama" => config["apiKeyRef"] = "".into(),
        _ => {}
    }
    config
}

/// A gateway whose providers are these, the first one the default and the others behind it.
async fn gateway(providers: &[(&str, Value)], more: Value) -> Gateway {
    let mut config = json!({ "providers": {}, "routing": { "defaultProvider": providers[0].0 } });
    for (name, provider) in providers {
        config["providers"][name] = provider.clone();
    }
    let names: Vec<&str> = providers.iter().map(|(name, _)| *name).collect();
    config["routing"]["fallbackChain"] = names.into();
    common::lay_over(&mut config, more);
    Gateway::start_with(config, &[], &[("PROVIDERS_KEY", PROVIDERS_KEY)]).await
}

async fn gateway_of(name: &str, upstream: &Upstream) -> Gateway {
    gateway(&[(name, provider(name, upstream))], json!({})).await
}

/// A client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Anthropic,
    Chat,
    Responses,
}

impl Client {
    const ALL: [Self; 3] = [Self::Anthropic, Self::Chat, Self::Responses];

    fn path(self) -> &'static str {
        match self {
            Self::Anthropic => "/v1/messages",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }

    /// A request that says this and offers the tool `f`.
    fn body(self, text: &str, stream: bool) -> Value {
        let schema = json!({ "type": "object", "properties": { "x": { "type": "number" } } });
        match self {
            Self::Anthropic => json!({ "model": "asked-model", "max_tokens": 100, "stream": stream,
                "messages": [{ "role": "user", "content": text }], "tools": [{ "name": "f", "input_schema": schema }] }),
            Self::Chat => {
                let mut body = json!({ "model": "asked-model", "stream": stream,
                    "messages": [{ "role": "user", "content": text }],
                    "tools": [{ "type": "function", "function": { "name": "f", "parameters": schema } }] });
                if stream {
                    body["stream_options"] = json!({ "include_usage": true });
                }
                body
            }
            Self::Responses => json!({ "model": "asked-model", "stream": stream, "input": text,
                "tools": [{ "type": "function", "name": "f", "parameters": schema }] }),
        }
    }

    async fn ask(self, gateway: &Gateway, body: &Value) -> Answer {
        let version = if self == Self::Anthropic { "anthropic-version: 2023-06-01\r\n" } else { "" };
        gateway.ask(post(self.path(), version, &body.to_string())).await
    }

    /// What an answer says: its text, the arguments of its call, and its tokens of input and output.
    fn read(self, answer: &Answer, stream: bool) -> (String, String, u64, u64) {
        let text = answer.text();
        let data: Vec<Value> =
            text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
        let join = |pointer: &str| data.iter().filter_map(|event| event.pointer(pointer)?.as_str()).collect::<String>();
        match (self, stream) {
            (Self::Anthropic, true) => {
                let usage = data.iter().rev().find(|event| event["type"] == "message_delta").unwrap()["usage"].clone();
                (
                    join("/delta/text"),
                    join("/delta/partial_json"),
                    number(&usage["input_tokens"]),
                    number(&usage["output_tokens"]),
                )
            }
            (Self::Chat, true) => {
                let usage = data.last().unwrap()["usage"].clone();
                let arguments = join("/choices/0/delta/tool_calls/0/function/arguments");
                (
                    join("/choices/0/delta/content"),
                    arguments,
                    number(&usage["prompt_tokens"]),
                    number(&usage["completion_tokens"]),
                )
            }
            (Self::Responses, true) => Self::responses(&data.last().unwrap()["response"]),
            (Self::Anthropic, false) => {
                let body = answer.json();
                let blocks = body["content"].as_array().unwrap().clone();
                let of = |kind: &str, field: &str| {
                    blocks
                        .iter()
                        .find(|block| block["type"] == kind)
                        .map(|block| block[field].clone())
                        .unwrap_or_default()
                };
                let input = of("tool_use", "input");
                let input = if input.is_null() { String::new() } else { input.to_string() };
                let text = of("text", "text").as_str().unwrap_or_default().to_owned();
                (text, input, number(&body["usage"]["input_tokens"]), number(&body["usage"]["output_tokens"]))
            }
            (Self::Chat, false) => {
                let body = answer.json();
                let message = &body["choices"][0]["message"];
                let arguments =
                    message["tool_calls"][0]["function"]["arguments"].as_str().unwrap_or_default().to_owned();
                let text = message["content"].as_str().unwrap_or_default().to_owned();
                (text, arguments, number(&body["usage"]["prompt_tokens"]), number(&body["usage"]["completion_tokens"]))
            }
            (Self::Responses, false) => Self::responses(&answer.json()),
        }
    }

    fn responses(response: &Value) -> (String, String, u64, u64) {
        let items = response["output"].as_array().unwrap();
        let of = |kind: &str| items.iter().find(|item| item["type"] == kind).cloned().unwrap_or_default();
        let text = of("message")["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        let arguments = of("function_call")["arguments"].as_str().unwrap_or_default().to_owned();
        (text, arguments, number(&response["usage"]["input_tokens"]), number(&response["usage"]["output_tokens"]))
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
