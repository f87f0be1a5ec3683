//! Ollama's streams as they come, and what is reserved and asked for.

use serde_json::{Value, json};
use wire::codec::Target;
use wire::estimate::{Classes, Estimator};
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::transcode;

use crate::support::short;

#[track_caller]
fn check(lines: &[Value], want: &str) {
    let stream: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(short(Protocol::Ollama, &stream), want);
}

fn said(message: Value) -> Value {
    json!({ "model": "m", "created_at": "2026-11-22T07:00:00.123Z", "message": message, "done": false })
}

fn done(reason: &str) -> Value {
    json!({ "model": "m", "message": { "role": "assistant", "content": "" }, "done": true, "done_reason": reason,
        "prompt_eval_count": 3, "eval_count": 1 })
}

#[test]
fn thinking_text_and_calls_follow_each_other_as_they_come() {
    check(
        &[
            said(json!({ "thinking": "a" })),
            said(json!({ "thinking": "b", "content": "c" })),
            said(
                json!({ "content": "d", "tool_calls": [{ "id": "x", "function": { "name": "f", "arguments": { "n": 1.0 } } }] }),
            ),
            said(json!({ "content": "e" })),
            done("stop"),
        ],
        "think[a|b|] text[c|d|] f#x({\"n\":1.0}|) text[e|] ToolUse",
    );
    check(&[said(json!({ "content": "x" })), done("length")], "text[x|] MaxTokens");
    check(&[done("load")], "EndTurn");
    check(&[done("stop")], "EndTurn");
}

#[test]
fn a_call_may_have_no_id() {
    let call = || {
        said(
            json!({ "tool_calls": [{ "function": { "name": "f" } }, { "id": "", "function": { "name": "g", "arguments": {} } }] }),
        )
    };
    check(&[call(), done("stop")], "f#({}|) g#({}|) ToolUse");
    for (odd, want) in [
        (json!([1]), "[1]"),
        (json!([]), "{}"),
        (json!("{}"), "{}"),
        (json!(""), "{}"),
        (json!("null"), "{}"),
        (json!("x"), "\"x\""),
        (json!(3), "3"),
    ] {
        let call = said(json!({ "tool_calls": [{ "function": { "name": "f", "arguments": odd } }] }));
        check(&[call, done("stop")], &format!("f#({want}|) ToolUse"));
    }
    let nameless = said(json!({ "tool_calls": [{ "function": { "name": "", "arguments": {} } }] }));
    check(&[nameless], "BadGateway: a call of the upstream cannot be read");
}

#[test]
fn what_is_null_or_comes_twice_harms_no_answer() {
    let call = json!({ "function": { "name": "f", "arguments": null } });
    check(
        &[
            json!({ "model": null, "message": null, "done": null, "error": null }),
            said(json!({ "content": null, "thinking": null, "tool_calls": null })),
            said(json!({ "content": "a", "tool_calls": [null] })),
            said(json!({ "tool_calls": [null, call] })),
            json!({ "done": true, "done_reason": null, "prompt_eval_count": null, "message": null }),
            done("stop"),
            said(json!({ "content": "after the end" })),
        ],
        "text[a|] f#({}|) ToolUse",
    );
    let lines = "\r\n{\"message\":{\"content\":\"a\"},\"news\":[1]}\r\n{\"done\":true}";
    assert_eq!(short(Protocol::Ollama, lines), "text[a|] EndTurn");
}

#[test]
fn an_error_line_ends_the_answer() {
    check(
        &[said(json!({ "content": "x" })), json!({ "error": "the input length exceeds the context length" })],
        "text[x|PromptTooLong: prompt is too long: the input length exceeds the context length",
    );
    check(&[json!({ "error": "out of memory" })], "Internal: out of memory");
    let text = || format!("{}\n", said(json!({ "content": "x" })));
    let truncated = "BadGateway: the upstream closed the stream before its answer was whole";
    assert_eq!(short(Protocol::Ollama, &text()), format!("text[x|{truncated}"));
    assert_eq!(short(Protocol::Ollama, ""), truncated);
    for odd in ["{", "[]", "{\"message\":3}", "\u{1}"] {
        let want = "text[x|BadGateway: a line of the upstream cannot be read";
        assert_eq!(short(Protocol::Ollama, &format!("{}{odd}\n", text())), want, "{odd}");
    }
    // The last line needs no end.
    assert_eq!(short(Protocol::Ollama, &format!("{}{}", text(), done("stop"))), "text[x|] EndTurn");
}

#[test]
fn a_whole_answer_is_read_like_a_stream() {
    let upstream = transcode::upstream(Protocol::Ollama).unwrap();
    let whole = |body: Value| upstream.decode_whole(body.to_string().as_bytes()).map(|m| format!("{m:?}"));
    let mut body = done("stop");
    body["message"] = json!({ "content": "x", "thinking": "y" });
    let message = upstream.decode_whole(body.to_string().as_bytes()).unwrap().parts.len();
    assert_eq!(message, 2);
    assert!(whole(json!({ "error": "model 'x' not found" })).unwrap_err().message.contains("not found"));
    assert!(whole(json!({ "done": true })).is_err() && whole(json!([])).is_err());
    // Counts of zero are left out by the server; those of a prompt that was never counted are not zero.
    body.as_object_mut().unwrap().remove("eval_count");
    assert!(whole(body.clone()).unwrap().contains("input: 3"));
    body.as_object_mut().unwrap().remove("prompt_eval_count");
    assert!(whole(body).unwrap().contains("usage: None"));
}

fn sent(request: &Value, quirks: &Quirks) -> Value {
    let inbound = transcode::inbound(Protocol::AnthropicMessages).unwrap();
    let upstream = transcode::upstream(Protocol::Ollama).unwrap();
    let target = Target { model: "m", max_output: None, quirks, input_estimate: 0 };
    let encoded =
        transcode::request(inbound, upstream, request.to_string().as_bytes(), &target, &Classes).unwrap().encoded;
    assert_eq!(encoded.losses.refused(), None);
    serde_json::from_slice(&encoded.body).unwrap()
}

#[test]
fn enough_context_is_reserved_for_prompt_and_answer() {
    let request = |text: usize, most: u64| json!({ "model": "m", "max_tokens": most, "messages": [{ "role": "user", "content": "x".repeat(text) }] });
    let reserved = |request: Value, limit: Option<u64>| {
        let body = sent(&request, &Quirks { context_most: limit, ..Quirks::OLLAMA });
        assert_eq!((&body["truncate"], &body["stream"]), (&json!(false), &json!(false)));
        body["options"]["num_ctx"].as_u64().unwrap()
    };
    assert_eq!(reserved(request(10, 100), None), 8192);
    // 30,000 bytes are at most 10,000 tokens of prose, and code needs more: there is room for both.
    assert_eq!(reserved(request(30_000, 4000), None), 16_384);
    assert_eq!(reserved(request(30_000, 64_000), None), 131_072);
    assert_eq!(reserved(request(30_000, 64_000), Some(40_960)), 40_960);
    let fixed = sent(&request(30_000, 4000), &Quirks { context_fixed: Some(10_000), ..Quirks::OLLAMA });
    assert_eq!(fixed["options"]["num_ctx"], 10_000);
    // An image is not read as text.
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "A".repeat(900_000) } });
    let image = json!({ "model": "m", "max_tokens": 100, "messages": [{ "role": "user", "content": [image] }] });
    assert_eq!(reserved(image, None), 8192);
}

#[test]
fn what_is_asked_is_counted_once() {
    struct Times(std::cell::Cell<u32>);
    impl Estimator for Times {
        fn tokens(&self, text: &str) -> u64 {
            self.0.set(self.0.get() + 1);
            text.len() as u64
        }
    }
    let inbound = transcode::inbound(Protocol::AnthropicMessages).unwrap();
    let upstream = transcode::upstream(Protocol::Ollama).unwrap();
    let target = Target { model: "m", max_output: None, quirks: &Quirks::OLLAMA, input_estimate: 0 };
    let body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "x".repeat(9000) }] });
    let times = Times(0.into());
    let prepared = transcode::request(inbound, upstream, body.to_string().as_bytes(), &target, &times).unwrap();
    // One count serves both: what is reserved, and what the client is told of.
    let body: Value = serde_json::from_slice(&prepared.encoded.body).unwrap();
    assert_eq!((times.0.get(), prepared.input_estimate), (1, 9004));
    assert_eq!(body["options"]["num_ctx"], 16_384, "a byte a token, by this count");
}
