//! The other protocols: OpenAI's two and Ollama's.

use serde_json::{Value, json};
use sim::SimConfig;

use crate::client::{Response, Server, request, start};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const OLLAMA: &str = "/api/chat";

async fn ask(server: &Server, path: &str, body: &Value) -> Response {
    server.ask(&request("POST", path, "", &body.to_string()).replace("anthropic-version: 2023-06-01\r\n", "")).await
}

fn chat(prompt: &str, stream: bool) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": stream});
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

fn responses(prompt: &str, stream: bool) -> Value {
    json!({"model": "m", "input": prompt, "stream": stream})
}

fn ollama(prompt: &str, stream: bool) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": stream})
}

/// The objects in the data lines of a stream, without the closing word.
fn data(response: &Response) -> Vec<Value> {
    let lines = response.text().lines().filter_map(|line| line.strip_prefix("data: "));
    lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SCRIPT: &str =
    "[[sim thinking=\"so, then\" text=\"a b\" tool=f input={\"x\":1.0} input_tokens=9 cache_read=2 then text=done]]";

#[tokio::test]
async fn chat_completions_say_the_same_in_both_forms() {
    let server = start(SimConfig::default()).await;
    let whole = ask(&server, CHAT, &chat(SCRIPT, false)).await.json();
    let message = &whole["choices"][0]["message"];
    assert_eq!((&message["content"], &message["reasoning_content"]), (&json!("a b"), &json!("so, then")));
    assert_eq!(message["tool_calls"][0]["function"], json!({"name": "f", "arguments": "{\"x\":1.0}"}));
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(
        (&whole["usage"]["prompt_tokens"], &whole["usage"]["prompt_tokens_details"]["cached_tokens"]),
        (&json!(11), &json!(2))
    );
    let response = ask(&server, CHAT, &chat(SCRIPT, true)).await;
    assert!(response.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(response.header("x-request-id").is_some() && response.header("anthropic-organization-id").is_none());
    let chunks = data(&response);
    let join = |pointer: &str| {
        let pieces = chunks.iter().filter_map(|chunk| chunk.pointer(pointer)?.as_str());
        pieces.collect::<String>()
    };
    assert_eq!(join("/choices/0/delta/content"), "a b");
    assert_eq!(join("/choices/0/delta/reasoning_content"), "so, then");
    assert_eq!(join("/choices/0/delta/tool_calls/0/function/arguments"), "{\"x\":1.0}");
    assert_eq!(join("/choices/0/finish_reason"), "tool_calls");
    let last = chunks.last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    // Without being asked there is no usage at all.
    let silent =
        ask(&server, CHAT, &json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}))
            .await;
    assert!(!silent.text().contains("usage"));
}

#[tokio::test]
async fn responses_say_the_same_in_both_forms_and_number_their_events() {
    let server = start(SimConfig::default()).await;
    let whole = ask(&server, RESPONSES, &responses(SCRIPT, false)).await.json();
    let response = ask(&server, RESPONSES, &responses(SCRIPT, true)).await;
    let events = response.events();
    for (n, (_, event)) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], json!(n));
    }
    let (name, last) = events.last().unwrap();
    assert_eq!(name, "response.completed");
    let kinds = |output: &Value| output.as_array().unwrap().iter().map(|item| item["type"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds(&last["response"]["output"]), ["reasoning", "message", "function_call"]);
    assert_eq!(kinds(&whole["output"]), kinds(&last["response"]["output"]));
    assert_eq!(whole["output"][2]["arguments"], "{\"x\":1.0}");
    assert_eq!(whole["usage"], last["response"]["usage"]);
    let done: Vec<_> = events.iter().filter(|(name, _)| name == "response.output_item.done").collect();
    assert_eq!(
        done.iter().map(|(_, event)| event["item"].clone()).collect::<Vec<_>>(),
        *last["response"]["output"].as_array().unwrap()
    );
    let cut = ask(&server, RESPONSES, &responses("[[sim text=x stop=max_tokens]]", true)).await;
    let (name, last) = cut.events().pop().unwrap();
    assert_eq!(
        (name.as_str(), &last["response"]["incomplete_details"]["reason"]),
        ("response.incomplete", &json!("max_output_tokens"))
    );
}

#[tokio::test]
async fn a_custom_tool_is_called_with_text_in_chat_completions_too() {
    let server = start(SimConfig::default()).await;
    let script = r#"[[sim tool=patch input={"input":"*** Begin"}]]"#;
    let mut body = chat(script, false);
    body["tools"] = json!([{"type": "custom", "custom": {"name": "patch"}}]);
    let call = ask(&server, CHAT, &body).await.json()["choices"][0]["message"]["tool_calls"][0].clone();
    assert_eq!((&call["type"], &call["custom"]), (&json!("custom"), &json!({"name": "patch", "input": "*** Begin"})));
    body["stream"] = true.into();
    let answer = ask(&server, CHAT, &body).await;
    let text = answer.text();
    let chunks = text.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let calls = chunks.map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone());
    let input: String = calls.filter_map(|call| call["custom"]["input"].as_str().map(str::to_owned)).collect();
    assert_eq!(input, "*** Begin");
    assert!(text.contains(r#""type":"custom","custom":{"name":"patch","input":""}"#), "{text}");
}

#[tokio::test]
async fn ollama_answers_in_lines_and_streams_if_it_is_not_told_otherwise() {
    let server = start(SimConfig::default()).await;
    let mut body = ollama(SCRIPT, true);
    body.as_object_mut().unwrap().remove("stream");
    let response = ask(&server, OLLAMA, &body).await;
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = response.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let join = |field: &str| lines.iter().filter_map(|line| line["message"][field].as_str()).collect::<String>();
    assert_eq!((join("content"), join("thinking")), ("a b".into(), "so, then".into()));
    let calls: Vec<_> = lines.iter().filter_map(|line| line["message"]["tool_calls"].as_array()).collect();
    assert_eq!((calls.len(), &calls[0][0]["function"]["arguments"]), (1, &json!({"x": 1.0})));
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"], &last["prompt_eval_count"]),
        (&json!(true), &json!("stop"), &json!(11))
    );
    let whole = ask(&server, OLLAMA, &ollama(SCRIPT, false)).await.json();
    assert_eq!((&whole["message"]["content"], &whole["done"]), (&json!("a b"), &json!(true)));
}

#[tokio::test]
async fn a_tool_loop_comes_to_its_next_turn_in_every_protocol() {
    let server = start(SimConfig::default()).await;
    let mut body = chat(SCRIPT, false);
    let first = ask(&server, CHAT, &body).await.json()["choices"][0]["message"].clone();
    let id = first["tool_calls"][0]["id"].clone();
    body["messages"]
        .as_array_mut()
        .unwrap()
        .extend([first, json!({"role": "tool", "tool_call_id": id, "content": "1"})]);
    assert_eq!(ask(&server, CHAT, &body).await.json()["choices"][0]["message"]["content"], "done");

    let first = ask(&server, RESPONSES, &responses(SCRIPT, false)).await.json()["output"].clone();
    let mut items = vec![json!({"role": "user", "content": SCRIPT})];
    items.extend(first.as_array().unwrap().clone());
    items.push(json!({"type": "function_call_output", "call_id": first[2]["call_id"], "output": "1"}));
    let said = ask(&server, RESPONSES, &json!({"model": "m", "input": items})).await.json();
    assert_eq!(said["output"][0]["content"][0]["text"], "done");

    let mut body = ollama(SCRIPT, false);
    let first = ask(&server, OLLAMA, &body).await.json()["message"].clone();
    body["messages"].as_array_mut().unwrap().extend([first, json!({"role": "tool", "tool_name": "f", "content": "1"})]);
    assert_eq!(ask(&server, OLLAMA, &body).await.json()["message"]["content"], "done");
}

#[tokio::test]
async fn what_a_provider_would_not_take_is_refused() {
    let server = start(SimConfig::default()).await;
    let user = json!({"role": "user", "content": "x"});
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let reasoning = json!({"type": "reasoning", "summary": [], "encrypted_content": "gAAAA-not-ours"});
    for (path, body, says) in [
        (CHAT, json!({"model": "m", "messages": [user], "num_ctx": 1}), "Unknown parameter: 'num_ctx'"),
        (CHAT, json!({"model": "m", "messages": [user, call]}), "did not have response messages: c"),
        (CHAT, json!({"model": "m", "messages": [user, call, user]}), "did not have response messages: c"),
        (
            CHAT,
            json!({"model": "m", "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}),
            "preceding message",
        ),
        (CHAT, json!({"model": "m", "messages": [{"role": "assistant", "content": null}]}), "got null"),
        (CHAT, json!({"model": "m", "messages": [user], "stream_options": {"include_usage": true}}), "stream_options"),
        (CHAT, json!({"model": "m", "messages": [user], "tool_choice": "auto"}), "tools"),
        (RESPONSES, json!({"model": "m", "input": "x", "max_tokens": 1}), "Unknown parameter: 'max_tokens'"),
        (RESPONSES, json!({"model": "m", "input": "x", "max_output_tokens": 1}), "minimum value: 16"),
        (
            RESPONSES,
            json!({"model": "m", "input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}),
            "No tool call found",
        ),
        (
            RESPONSES,
            json!({"model": "m", "input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}),
            "No tool output found",
        ),
        (RESPONSES, json!({"model": "m", "input": [reasoning]}), "required following item"),
        (
            RESPONSES,
            json!({"model": "m", "input": [reasoning, {"type": "message", "role": "assistant", "content": "x"}]}),
            "could not be verified",
        ),
        (OLLAMA, json!({"model": "m", "messages": [{"role": "user", "content": []}]}), "no string"),
        (
            OLLAMA,
            json!({"model": "m", "messages": [{"role": "user", "content": "x".repeat(40_000)}], "truncate": false}),
            "exceeds the context length",
        ),
        (OLLAMA, json!({"model": "m", "messages": [{"role": "tool", "content": "x"}]}), "without its call"),
    ] {
        let response = ask(&server, path, &body).await;
        assert_eq!(response.status, 400, "{body}");
        let error = &response.json()["error"];
        let message = error["message"].as_str().or(error.as_str()).unwrap().to_owned();
        assert!(message.contains(says), "{body}: {message}");
    }
}

#[tokio::test]
async fn faults_have_the_shape_of_their_protocol() {
    let server = start(SimConfig::default()).await;
    let limited = ask(&server, CHAT, &chat("[[sim fault=429=7]]", true)).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("7")));
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(
        ask(&server, RESPONSES, &responses("[[sim fault=402]]", true)).await.json()["error"]["type"],
        "insufficient_quota"
    );
    assert!(ask(&server, OLLAMA, &ollama("[[sim fault=404]]", true)).await.json()["error"].is_string());
    let mid = ask(&server, CHAT, &chat("[[sim text=\"a b c d\" fault=error-mid=3]]", true)).await;
    assert!(data(&mid).last().unwrap()["error"]["message"].is_string() && !mid.text().contains("[DONE]"));
    let first = ask(&server, RESPONSES, &responses("[[sim fault=error-first]]", true)).await;
    assert_eq!(first.events()[0].1["response"]["error"]["code"], "server_is_overloaded");
    let first = ask(&server, OLLAMA, &ollama("[[sim fault=error-first]]", true)).await;
    assert!(first.status == 200 && first.json()["error"].is_string());
    let cut = ask(&server, CHAT, &chat("[[sim text=\"a b c d\" fault=truncate=2]]", true)).await;
    assert_eq!(data(&cut).len(), 2);
}

#[tokio::test]
async fn a_provider_is_found_behind_the_paths_of_hosts_that_have_several() {
    let server = start(SimConfig::default()).await;
    for path in [
        "/openai/v1/chat/completions",
        "/openai/deployments/d/chat/completions?api-version=1",
        "/api/v1/chat/completions",
    ] {
        assert_eq!(ask(&server, path, &chat("x", false)).await.json()["object"], "chat.completion", "{path}");
    }
    assert_eq!(ask(&server, "/openai/v1/responses", &responses("x", false)).await.json()["object"], "response");
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]});
    let response = server.ask(&request("POST", "/anthropic/v1/messages", "", &body.to_string())).await;
    assert_eq!(response.json()["type"], "message");
    let list = request("GET", "/v1/models", "authorization: Bearer k\r\n", "")
        .replace("anthropic-version: 2023-06-01\r\n", "");
    assert_eq!(server.ask(&list).await.json()["object"], "list");
    assert!(server.ask(&request("GET", "/api/tags", "", "")).await.json()["models"][0]["name"].is_string());
}
