//! Requests and answers of Responses that are nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{IDS, NAMES, count, flag, just, list, number, object, one, schema, string, words};

fn responses_part() -> BoxedStrategy<Value> {
    let url = words(&["https://x.example/a.png", "data:image/png;base64,AA"]);
    let text = || object(vec![("type!", just(json!("input_text"))), ("text!", string()), ("more", flag())]);
    one(vec![
        text(),
        text(),
        object(vec![("type!", just(json!("input_image"))), ("image_url!", url), ("detail", words(&["high", "auto"]))]),
        object(vec![
            ("type!", just(json!("input_file"))),
            ("file_data!", words(&["data:application/pdf;base64,JVBERi"])),
            ("filename", string()),
        ]),
    ])
}

fn responses_items() -> BoxedStrategy<Value> {
    let content = || one(vec![string(), list(responses_part())]);
    let call = |id: &'static str| {
        let function = vec![
            ("type!", just(json!("function_call"))),
            ("call_id!", just(json!(id))),
            ("name!", words(NAMES)),
            ("arguments!", words(&["", "{}", "{\"x\":1.0}"])),
        ];
        let custom = vec![
            ("type!", just(json!("custom_tool_call"))),
            ("call_id!", just(json!(id))),
            ("name!", words(NAMES)),
            ("input!", string()),
        ];
        one(vec![object(function), object(custom)])
    };
    let thought = object(vec![
        ("type!", just(json!("reasoning"))),
        ("id", words(IDS)),
        ("summary!", list(object(vec![("type!", just(json!("summary_text"))), ("text!", string())]))),
        ("encrypted_content", words(&["gAAAA", "cco1:none:0:", "cco1:anthropic:0:RklY", "cco1:x"])),
    ]);
    let said = object(vec![
        ("type!", just(json!("message"))),
        ("role!", just(json!("assistant"))),
        (
            "content!",
            list(one(vec![
                object(vec![("type!", just(json!("output_text"))), ("text!", string())]),
                object(vec![("type!", just(json!("refusal"))), ("refusal!", string())]),
            ])),
        ),
    ]);
    let round = (content(), thought, said, call("an id: odd"), call("b"), content(), content(), 0..24u8);
    let rounds = vec(round, 0..3).prop_map(|rounds| {
        let mut items = Vec::new();
        for (user, thought, said, a, b, of_a, of_b, shape) in rounds {
            let role = ["user", "user", "user", "system", "developer"][usize::from(shape % 5)];
            items.push(json!({ "role": role, "content": user }));
            let result = |call: &Value, content: Value| {
                let kind =
                    if call["type"] == "function_call" { "function_call_output" } else { "custom_tool_call_output" };
                json!({ "type": kind, "call_id": call["call_id"], "output": content })
            };
            if shape % 2 == 0 {
                items.push(thought);
            }
            items.push(said);
            match shape % 6 {
                0 => {
                    let (of_a, of_b) = (result(&a, of_a), result(&b, of_b));
                    items.extend([a, b, of_b, of_a]);
                }
                1 => {
                    let of_a = result(&a, of_a);
                    items.extend([a, of_a]);
                }
                2 if shape > 18 => items.push(b),
                _ => {}
            }
        }
        Value::from(items)
    });
    rounds.boxed()
}

pub(super) fn responses_request() -> BoxedStrategy<Value> {
    let function = || {
        object(vec![
            ("type!", just(json!("function"))),
            ("name!", words(NAMES)),
            ("description", string()),
            ("parameters", schema()),
            ("strict", flag()),
        ])
    };
    let custom = || {
        object(vec![
            ("type!", just(json!("custom"))),
            ("name!", words(NAMES)),
            ("format", just(json!({"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}))),
        ])
    };
    let of_text = one(vec![
        object(vec![("type!", words(&["text", "json_object"]))]),
        object(vec![
            ("type!", just(json!("json_schema"))),
            ("name", string()),
            ("schema!", schema()),
            ("strict", flag()),
        ]),
    ]);
    object(vec![
        ("model!", words(&["m"])),
        ("instructions", string()),
        ("input!", one(vec![string(), responses_items()])),
        (
            "tools",
            list(one(vec![
                function(),
                custom(),
                object(vec![("type!", words(&["web_search", "tool_search"]))]),
                object(vec![
                    ("type!", just(json!("namespace"))),
                    ("name!", words(&["space"])),
                    ("tools!", list(one(vec![function(), custom()]))),
                ]),
            ])),
        ),
        (
            "tool_choice",
            one(vec![
                words(&["auto", "none", "required"]),
                object(vec![("type!", words(&["function", "custom"])), ("name!", words(NAMES))]),
            ]),
        ),
        ("parallel_tool_calls", flag()),
        ("max_output_tokens", count()),
        ("temperature", number()),
        (
            "reasoning",
            object(vec![
                ("effort", words(&["none", "minimal", "low", "xhigh"])),
                ("summary", words(&["auto", "concise", "detailed"])),
                ("context", words(&["auto"])),
            ]),
        ),
        ("text", object(vec![("format", of_text), ("verbosity", words(&["low"]))])),
        ("include", just(json!(["reasoning.encrypted_content"]))),
        ("store", flag()),
        ("safety_identifier", string()),
        ("prompt_cache_key", string()),
        ("stream", flag()),
        ("client_metadata", just(json!({}))),
    ])
}

/// An event of a Responses stream.
pub(super) fn responses_event() -> BoxedStrategy<Value> {
    let index = || (0..3u8).prop_map(Value::from).boxed();
    let item = || {
        object(vec![
            ("type!", words(&["message", "function_call", "custom_tool_call", "reasoning", "web_search_call"])),
            ("id", words(IDS)),
            ("call_id", words(IDS)),
            ("name", words(NAMES)),
            ("arguments", words(&["", "{}", "{\"x\":1}", "{"])),
            ("input", string()),
            ("encrypted_content", words(&["gAAAA"])),
            ("summary", list(object(vec![("type!", just(json!("summary_text"))), ("text!", string())]))),
            ("content", list(object(vec![("type!", words(&["output_text", "refusal"])), ("text", string())]))),
        ])
    };
    let usage = just(json!({"input_tokens": 9, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 12}}));
    object(vec![
        (
            "type",
            words(&[
                "response.created",
                "response.output_item.added",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.refusal.delta",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.custom_tool_call_input.delta",
                "response.reasoning_summary_part.added",
                "response.reasoning_summary_text.delta",
                "response.output_item.done",
                "response.output_item.done",
                "response.completed",
                "response.incomplete",
                "response.failed",
                "error",
                "response.news",
            ]),
        ),
        ("output_index!", index()),
        ("content_index", index()),
        ("delta", one(vec![string(), words(&["{", "}", "{}", "\"x\":1"])])),
        ("arguments", words(&["", "{}", "{\"x\":1}"])),
        ("text", string()),
        ("item!", item()),
        (
            "response!",
            object(vec![
                ("id", words(IDS)),
                ("output", list(item())),
                ("usage", usage),
                ("incomplete_details", object(vec![("reason", words(&["max_output_tokens", "content_filter"]))])),
                (
                    "error",
                    object(vec![("code", words(&["server_error", "rate_limit_exceeded"])), ("message", string())]),
                ),
            ]),
        ),
        ("message", string()),
    ])
}
