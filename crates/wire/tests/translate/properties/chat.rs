//! Requests and answers of Chat Completions that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{IDS, NAMES, count, flag, just, list, number, object, one, schema, string, words};

fn chat_part() -> BoxedStrategy<Value> {
    let url = words(&["https://x.example/a.png", "data:image/png;base64,AA", "data:;base64,/9j/"]);
    let text = || object(vec![("type!", just(json!("text"))), ("text!", string()), ("more", flag())]);
    one(vec![
        text(),
        text(),
        object(vec![
            ("type!", just(json!("image_url"))),
            ("image_url!", object(vec![("url!", url), ("detail", words(&["high", "auto"]))])),
        ]),
        object(vec![
            ("type!", just(json!("file"))),
            (
                "file!",
                object(vec![("file_data!", words(&["data:application/pdf;base64,JVBERi"])), ("filename", string())]),
            ),
        ]),
    ])
}

fn chat_turns() -> BoxedStrategy<Value> {
    let content = || one(vec![string(), list(chat_part())]);
    let arguments = || words(&["", "{}", "{\"x\":1.0}", " { } "]);
    let call = |id: &'static str| {
        let function = object(vec![("name!", words(NAMES)), ("arguments!", arguments())]);
        let custom = object(vec![("name!", words(NAMES)), ("input!", string())]);
        one(vec![
            object(vec![("id!", just(json!(id))), ("function!", function)]),
            object(vec![("id!", just(json!(id))), ("custom!", custom)]),
        ])
    };
    let said = object(vec![
        ("role!", just(json!("assistant"))),
        ("content", string()),
        ("refusal", string()),
        ("reasoning_content", string()),
    ]);
    let round = (content(), said, call("an id: odd"), call("b"), content(), content(), 0..24u8);
    let rounds = vec(round, 0..3).prop_map(|rounds| {
        let mut turns = Vec::new();
        for (user, mut said, a, b, of_a, of_b, shape) in rounds {
            let role = ["user", "user", "user", "system", "developer"][usize::from(shape % 5)];
            turns.push(json!({ "role": role, "content": user }));
            let result = |id: &str, content| json!({ "role": "tool", "tool_call_id": id, "content": content });
            let (calls, results) = match shape % 6 {
                0 => (vec![a, b], vec![result("b", of_b), result("an id: odd", of_a)]),
                1 => (vec![a], vec![result("an id: odd", of_a)]),
                2 if shape > 18 => (vec![a, b], vec![result("b", of_b)]),
                _ => (vec![], vec![]),
            };
            if !calls.is_empty() {
                said["tool_calls"] = calls.into();
            }
            turns.push(said);
            turns.extend(results);
        }
        Value::from(turns)
    });
    rounds.boxed()
}

pub(super) fn chat_request() -> BoxedStrategy<Value> {
    let named = || object(vec![("name!", words(NAMES))]);
    let function = || {
        object(vec![("name!", words(NAMES)), ("description", string()), ("parameters", schema()), ("strict", flag())])
    };
    let choice = || object(vec![("type!", just(json!("function"))), ("function!", named())]);
    object(vec![
        ("model!", words(&["m"])),
        ("messages!", chat_turns()),
        (
            "tools",
            list(one(vec![
                object(vec![("type!", just(json!("function"))), ("function!", function())]),
                object(vec![
                    ("type!", just(json!("custom"))),
                    ("custom!", object(vec![("name!", words(NAMES)), ("format", just(json!({"type": "text"})))])),
                ]),
                object(vec![("type!", just(json!("web_search")))]),
            ])),
        ),
        (
            "tool_choice",
            one(vec![
                words(&["auto", "none", "required"]),
                choice(),
                object(vec![
                    ("type!", just(json!("allowed_tools"))),
                    (
                        "allowed_tools!",
                        object(vec![("mode!", words(&["auto", "required"])), ("tools!", list(choice()))]),
                    ),
                ]),
            ]),
        ),
        ("parallel_tool_calls", flag()),
        ("max_completion_tokens", count()),
        ("temperature", number()),
        ("seed", count()),
        ("n", just(json!(1))),
        ("stop", one(vec![string(), list(string())])),
        ("reasoning_effort", words(&["none", "minimal", "low", "xhigh"])),
        ("thinking", object(vec![("type!", words(&["enabled", "disabled"]))])),
        (
            "response_format",
            one(vec![
                object(vec![("type!", words(&["text", "json_object"]))]),
                object(vec![
                    ("type!", just(json!("json_schema"))),
                    ("json_schema!", object(vec![("name", string()), ("schema!", schema()), ("strict", flag())])),
                ]),
            ]),
        ),
        ("user", string()),
        ("stream", flag()),
        ("logprobs", flag()),
    ])
}

/// A chunk of a chat stream.
pub(super) fn chat_chunk() -> BoxedStrategy<Value> {
    let pieces = || words(&["", "{", "}", "{}", "\"x\":1", "[\"}\"", "\\"]);
    object(vec![
        ("id", words(&["", "c1"])),
        ("choices", list(object(vec![
            ("index", prop_oneof![9 => Just(json!(0)), 1 => Just(json!(1))].boxed()),
            ("delta", object(vec![
                ("content", string()),
                ("refusal", string()),
                ("reasoning", string()),
                ("tool_calls", list(object(vec![
                    ("index!", (0..3u8).prop_map(Value::from).boxed()),
                    ("id", words(IDS)),
                    ("function", object(vec![("name", words(NAMES)), ("arguments", pieces())])),
                ]))),
            ])),
            ("finish_reason", prop_oneof![9 => Just(Value::Null), 1 => words(&["stop", "length", "tool_calls", "error"])].boxed()),
        ]))),
        ("usage", prop_oneof![5 => Just(Value::Null), 1 => Just(json!({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 12}}))].boxed()),
    ])
}
