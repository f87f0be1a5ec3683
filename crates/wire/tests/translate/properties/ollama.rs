//! Answers of Ollama's protocol that are nearly right.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{IDS, NAMES, count, input, just, list, object, one, string, words};

/// A line of Ollama's.
pub(super) fn ollama_line() -> BoxedStrategy<Value> {
    let call = object(vec![
        ("id", words(IDS)),
        (
            "function!",
            object(vec![("name!", words(NAMES)), ("arguments", one(vec![input(), just(json!({})), string()]))]),
        ),
    ]);
    object(vec![
        ("model", words(&["m"])),
        ("created_at", words(&["2026-11-22T07:00:00.123Z"])),
        ("message", object(vec![("content", string()), ("thinking", string()), ("tool_calls", list(call))])),
        ("done", prop_oneof![9 => Just(json!(false)), 1 => Just(json!(true))].boxed()),
        ("done_reason", words(&["stop", "length", "load"])),
        ("prompt_eval_count", count()),
        ("eval_count", count()),
        ("error", prop_oneof![20 => Just(Value::Null), 1 => string()].boxed()),
    ])
}
