//! Helpers of the tests that run the real program: `cco serve` as a process of its own, the simulator as its upstream,
//! and a client that shows every byte.

pub(crate) mod client;
pub(crate) mod dice;
pub(crate) mod gateway;
pub(crate) mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

pub(crate) use client::{Answer, Client, Ended, Piece, contains};
pub(crate) use gateway::{Gateway, binary};
pub(crate) use upstream::{Upstream, upstream, upstream_with};

/// The client's own key: it must arrive at the upstream and nowhere else.
pub(crate) const KEY: &str = "sk-ant-api03-canary-of-the-key";

/// A time-out for what should happen at once: a test that hangs says where.
#[track_caller]
pub(crate) fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(Duration::from_secs(60), what).await;
        done.unwrap_or_else(|_| panic!("hangs at {place}"))
    }
}

/// Looks again and again until it holds, or says where it never did: for what other processes do and tell nobody.
#[track_caller]
pub(crate) fn until<Held: Future<Output = bool>>(mut holds: impl FnMut() -> Held) -> impl Future<Output = ()> {
    soon(async move {
        while !holds().await {
            pause().await;
        }
    })
}

/// Between two looks at another process: leaves it the processor.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

/// The folder of the recorded answers.
pub(crate) fn transcripts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata/transcripts")
}

/// A request with the fields that the API wants, `more` of them (each with its line end), and a body.
pub(crate) fn request(method: &str, target: &str, more: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {KEY}\r\nanthropic-version: 2023-06-01\r\n{more}"
    );
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    [head.as_bytes(), length.as_bytes(), b"\r\n", body].concat()
}

/// The body of a request for an answer.
pub(crate) fn prompt(text: &str, stream: bool) -> String {
    json!({
        "model": "claude-sonnet-5-5", "max_tokens": 1000, "stream": stream,
        "messages": [{ "role": "user", "content": text }],
    })
    .to_string()
}

/// A request for a stream that the simulator answers as this script says.
pub(crate) fn streamed(script: &str) -> Vec<u8> {
    request("POST", "/v1/messages", &format!("x-sim: {script}\r\n"), prompt("Hello.", true))
}

/// The same, answered whole.
pub(crate) fn whole(script: &str) -> Vec<u8> {
    request("POST", "/v1/messages", &format!("x-sim: {script}\r\n"), prompt("Hello.", false))
}

/// Where the last whole event of a stream ends, found the slow and obvious way.
pub(crate) fn whole_events(stream: &[u8]) -> usize {
    let (mut at, mut line, mut border) = (0, 0, 0);
    while at < stream.len() {
        let end = match stream[at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        if end > 0 && at == line {
            border = at + end;
        }
        at += end.max(1);
        if end > 0 {
            line = at;
        }
    }
    border
}

/// Checks that `tail` is exactly one error event of ours, and returns its `error` object.
#[track_caller]
pub(crate) fn error_event(tail: &[u8], id: &str) -> Value {
    let text = std::str::from_utf8(tail).unwrap();
    let data = text.strip_prefix("event: error\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
    let data = data.unwrap_or_else(|| panic!("not one error event: {text:?}"));
    assert!(!data.contains(['\n', '\r']), "{text:?}");
    let event: Value = serde_json::from_str(data).unwrap();
    let id = format!("req_{}", id.replace('-', ""));
    assert_eq!((&event["type"], &event["request_id"]), (&json!("error"), &json!(id)), "{text}");
    assert!(event["error"]["type"].is_string(), "{text}");
    assert!(event["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
    event["error"].clone()
}

/// Lays `over` on `value`: objects are joined, everything else is replaced.
pub(crate) fn lay_over(value: &mut Value, over: Value) {
    match (value, over) {
        (Value::Object(object), Value::Object(over)) => {
            for (name, over) in over {
                lay_over(object.entry(name).or_insert(Value::Null), over);
            }
        }
        (value, over) => *value = over,
    }
}
