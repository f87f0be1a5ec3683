//! Requests and answers of Anthropic Messages that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{IDS, MARK, NAMES, count, flag, input, just, list, number, object, one, schema, source, string, words};

fn anthropic_text() -> BoxedStrategy<Value> {
    let mark = just(serde_json::from_str(MARK).unwrap());
    object(vec![("type!", just(json!("text"))), ("text!", string()), ("cache_control", mark), ("more", flag())])
}

fn anthropic_user_block() -> BoxedStrategy<Value> {
    one(vec![
        anthropic_text(),
        anthropic_text(),
        object(vec![
            ("type!", words(&["image", "document"])),
            ("source!", source()),
            ("title", string()),
            ("context", string()),
        ]),
        object(vec![
            ("type!", just(json!("search_result"))),
            ("source", string()),
            ("content!", list(anthropic_text())),
        ]),
        object(vec![("type!", words(&["container_upload", "odd"])), ("file_id", string())]),
    ])
}

fn anthropic_said() -> BoxedStrategy<Value> {
    let signature = || words(&["", "own", "cco1:none:0:", "cco1:openai-chat:2:abc", "cco1:x"]);
    one(vec![
        anthropic_text(),
        object(vec![("type!", just(json!("thinking"))), ("thinking!", string()), ("signature!", signature())]),
        object(vec![("type!", just(json!("redacted_thinking"))), ("data!", signature())]),
        object(vec![
            ("type!", words(&["server_tool_use", "dream"])),
            ("id", words(IDS)),
            ("input", just(json!({"x": 1.0}))),
        ]),
    ])
}

/// A block as it begins in a stream: nearly any.
fn anthropic_block() -> BoxedStrategy<Value> {
    let call = object(vec![
        ("type!", just(json!("tool_use"))),
        ("id!", words(IDS)),
        ("name!", words(NAMES)),
        ("input", just(json!({}))),
    ]);
    one(vec![anthropic_said(), anthropic_said(), call, anthropic_user_block()])
}

/// Turns in which most calls have their results: text, calls, results in another order.
fn anthropic_turns() -> BoxedStrategy<Value> {
    let call = |id: &'static str| {
        object(vec![
            ("type!", just(json!("tool_use"))),
            ("id!", just(json!(id))),
            ("name!", words(NAMES)),
            ("input", input()),
        ])
    };
    let result = |id: &'static str| {
        let content = one(vec![string(), list(anthropic_user_block())]);
        object(vec![
            ("type!", just(json!("tool_result"))),
            ("tool_use_id!", just(json!(id))),
            ("content", content),
            ("is_error", flag()),
        ])
    };
    let turn = |role: &str, content: Vec<Value>| json!({ "role": role, "content": content });
    let round = (
        vec(anthropic_user_block(), 0..3),
        vec(anthropic_said(), 0..3),
        call("an id: odd"),
        call("b"),
        result("an id: odd"),
        result("b"),
        string(),
        0..24u8,
    );
    let rounds = vec(round, 0..3).prop_map(move |rounds| {
        let mut turns = Vec::new();
        for (user, said, a, b, of_a, of_b, note, shape) in rounds {
            turns.push(turn("user", user));
            if shape % 5 == 4 {
                turns.push(json!({ "role": "system", "content": note }));
            }
            let (calls, results) = match shape % 6 {
                0 => (vec![a, b], vec![of_b, of_a]),
                1 => (vec![a], vec![of_a]),
                2 if shape > 18 => (vec![a, b], vec![of_b]),
                _ => (vec![], vec![]),
            };
            turns.push(turn("assistant", said.into_iter().chain(calls).collect()));
            if !results.is_empty() {
                turns.push(turn("user", results));
            }
        }
        Value::from(turns)
    });
    rounds.boxed()
}

pub(super) fn anthropic_request() -> BoxedStrategy<Value> {
    object(vec![
        ("model!", words(&["m"])),
        ("max_tokens!", count()),
        ("system", one(vec![string(), list(anthropic_text())])),
        ("messages!", anthropic_turns()),
        (
            "tools",
            list(object(vec![
                ("type", words(&["custom", "custom", "web_search_1", "bash_1"])),
                ("name!", words(NAMES)),
                ("description", string()),
                ("input_schema!", schema()),
                ("strict", flag()),
                ("defer_loading", flag()),
            ])),
        ),
        (
            "tool_choice",
            object(vec![
                ("type!", words(&["auto", "any", "tool", "none"])),
                ("name!", words(NAMES)),
                ("disable_parallel_tool_use", flag()),
            ]),
        ),
        (
            "thinking",
            object(vec![
                ("type!", words(&["adaptive", "enabled", "disabled", "between_tools"])),
                ("budget_tokens", count()),
                ("display", words(&["summarized", "omitted", "updates"])),
                ("more", flag()),
            ]),
        ),
        (
            "output_config",
            object(vec![
                ("effort", words(&["low", "max", "medium"])),
                ("format", object(vec![("type!", words(&["json_schema"])), ("schema!", schema())])),
                ("more", flag()),
            ]),
        ),
        ("stop_sequences", list(string())),
        ("temperature", number()),
        ("top_k", count()),
        ("metadata", object(vec![("user_id", string()), ("more", string())])),
        ("stream", flag()),
        ("context_management", just(json!({}))),
    ])
}

/// An event of an Anthropic stream.
pub(super) fn anthropic_event() -> BoxedStrategy<Value> {
    object(vec![
        (
            "type",
            words(&[
                "message_start",
                "content_block_start",
                "content_block_start",
                "content_block_delta",
                "content_block_delta",
                "content_block_stop",
                "content_block_stop",
                "message_delta",
                "message_stop",
                "ping",
                "news",
            ]),
        ),
        ("message", object(vec![("id", string()), ("usage", object(vec![("input_tokens", number())]))])),
        ("content_block", anthropic_block()),
        (
            "delta",
            object(vec![
                (
                    "type",
                    words(&[
                        "text_delta",
                        "text_delta",
                        "thinking_delta",
                        "input_json_delta",
                        "signature_delta",
                        "citations_delta",
                        "odd",
                    ]),
                ),
                ("text", string()),
                ("thinking", string()),
                ("partial_json", words(&["{", "}", "{}"])),
                ("signature", string()),
                ("stop_reason", words(&["end_turn", "tool_use", "refusal"])),
            ]),
        ),
        ("usage", object(vec![("input_tokens", number()), ("output_tokens", (0..9u8).prop_map(Value::from).boxed())])),
    ])
}
