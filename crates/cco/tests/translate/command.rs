//! `cco translate`.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn translate(args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cco"));
    command.env_clear().arg("translate").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const REQUEST: &str = r#"{"model":"m","max_tokens":9,"top_k":5,"messages":[{"role":"user","content":"hi"}]}"#;

#[test]
fn a_request_is_shown_as_it_would_be_sent_and_what_is_lost_beside_it() {
    let args = ["--from", "anthropic", "--to", "openai-chat"];
    let done = translate(&args, REQUEST);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let body: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(body, json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "max_tokens": 9 }));
    assert!(text(&done.stderr).starts_with("note: not carried: top_k: "), "{}", text(&done.stderr));
    let strict = translate(&["--strict", "--from", "anthropic", "--to", "openai-chat"], REQUEST);
    assert_eq!(strict.status.code(), Some(1));
    assert!(text(&strict.stderr).contains("top_k") && strict.stdout.is_empty());
    let whole = translate(&["--json", "--from", "anthropic", "--to", "ollama", "--model", "qwen3:8b"], REQUEST);
    let whole: Value = serde_json::from_slice(&whole.stdout).unwrap();
    assert_eq!(
        (&whole["is"], &whole["result"]["model"], &whole["losses"]),
        (&json!("request"), &json!("qwen3:8b"), &json!([]))
    );
    let azure =
        translate(&["--from", "anthropic", "--to", "openai-chat", "--provider", "azure", "--model", "gpt-5"], REQUEST);
    assert!(text(&azure.stdout).contains("max_completion_tokens"), "{}", text(&azure.stdout));
}

#[test]
fn an_answer_is_told_from_a_stream_and_an_error() {
    let stream = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let done = translate(&["--from", "openai-chat", "--to", "anthropic"], stream);
    assert!(text(&done.stdout).starts_with("event: message_start\n") && text(&done.stdout).ends_with("\n\n"));
    let answer = r#"{"model":"m","message":{"content":"x"},"done":true,"prompt_eval_count":3,"eval_count":1}"#;
    let done = translate(&["--json", "--from", "ollama", "--to", "openai-responses"], answer);
    let whole: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&whole["is"], &whole["tokens"]["input"]), (&json!("answer"), &json!(3)), "{whole}");
    let done = translate(&["--from", "ollama", "--to", "anthropic"], r#"{"error":"model 'x' not found"}"#);
    assert!(text(&done.stdout).contains("model 'x' not found"));
}

#[test]
fn what_an_answer_loses_is_shown_beside_it() {
    let choice = |said: &str| json!({ "choices": [{ "index": 0, said: { "content": "x", "images": ["y"] }, "finish_reason": "stop" }] });
    let args = ["--json", "--from", "openai-chat", "--to", "anthropic"];
    let stream = format!("data: {}\n\ndata: [DONE]\n\n", choice("delta"));
    for (input, path) in
        [(stream, "choices[].delta.images"), (choice("message").to_string(), "choices[].message.images")]
    {
        let whole: Value = serde_json::from_slice(&translate(&args, &input).stdout).unwrap();
        assert_eq!(whole["losses"][0]["path"], path, "{whole}");
        let plain = translate(&args[1..], &input);
        let want = format!("note: not carried: {path}: it is left out of translated answers");
        assert!(text(&plain.stderr).starts_with(&want), "{}", text(&plain.stderr));
    }
}

#[test]
fn the_long_context_behind_a_models_name_is_not_sent() {
    let asked = REQUEST.replace(r#""m""#, r#""claude-opus-5-5[1m]""#);
    let done = translate(&["--from", "anthropic", "--to", "openai-chat"], &asked);
    let body: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(body["model"], "claude-opus-5-5");
}

#[test]
fn a_body_that_is_no_json_is_not_taken_for_a_stream() {
    for broken in [r#"{"model":"m","messages":[{"role":"user","content":"\ud83d"}]}"#, r#" {"model":"m","messages":["#]
    {
        let done = translate(&["--from", "anthropic", "--to", "openai-chat"], broken);
        assert_eq!(done.status.code(), Some(1), "{broken}");
        assert!(text(&done.stderr).contains("it begins like JSON and is none"), "{}", text(&done.stderr));
        assert!(done.stdout.is_empty(), "{}", text(&done.stdout));
    }
}

#[test]
fn what_is_not_a_clients_protocol_is_refused() {
    let done = translate(&["--from", "ollama", "--to", "anthropic"], r#"{"model":"m","messages":[]}"#);
    assert_eq!(done.status.code(), Some(1));
    assert!(text(&done.stderr).contains("protocol of upstreams alone"));
    assert_eq!(translate(&["--from", "x", "--to", "anthropic"], "").status.code(), Some(2));
}
