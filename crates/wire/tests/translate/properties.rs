//! The checks of the fuzz targets, on inputs that are made to be nearly right.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::translate::{check_request, check_stream, check_whole};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("say \"hi\"\n".to_owned()), "[a-z é😀\\\\\"]{0,9}", Just(" ".to_owned())]
}

fn word(of: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(of).prop_map(str::to_owned)
}

/// An object of the given members, each there or not, or `null`; one whose key ends with `!` is always there.
fn object(members: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let member = |(key, value): (&'static str, BoxedStrategy<Value>)| match key.strip_suffix('!') {
        Some(key) => value.prop_map(move |value| Some((key, value))).boxed(),
        None => prop_oneof![
            5 => value.prop_map(move |value| Some((key, value))),
            4 => Just(None),
            1 => Just(Some((key, Value::Null))),
        ]
        .boxed(),
    };
    let members: Vec<_> = members.into_iter().map(member).collect();
    let gather = |members: Vec<Option<(&str, Value)>>| {
        members.into_iter().flatten().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
    };
    members.prop_map(gather).boxed()
}

fn just(value: Value) -> BoxedStrategy<Value> {
    Just(value).boxed()
}

fn one(of: Vec<BoxedStrategy<Value>>) -> BoxedStrategy<Value> {
    prop::strategy::Union::new(of).boxed()
}

fn string() -> BoxedStrategy<Value> {
    text().prop_map(Value::from).boxed()
}

fn words(of: &'static [&'static str]) -> BoxedStrategy<Value> {
    word(of).prop_map(Value::from).boxed()
}

fn number() -> BoxedStrategy<Value> {
    prop_oneof![
        (0..3000u64).prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        (0.0..3.0).prop_map(Value::from),
        Just(json!(u64::MAX))
    ]
    .boxed()
}

fn count() -> BoxedStrategy<Value> {
    (0..9000u64).prop_map(Value::from).boxed()
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

fn list(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    vec(of, 0..4).prop_map(Value::from).boxed()
}

const IDS: &[&str] = &["a", "b", "toolu_1", "an id: odd", ""];
const NAMES: &[&str] =
    &["f", "g", "a.name", "a_very_long_name_of_a_tool_that_no_provider_but_one_would_take_as_it_is_really"];

fn schema() -> BoxedStrategy<Value> {
    one(vec![
        Just(json!({})).boxed(),
        Just(json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": false})).boxed(),
        Just(json!({"properties": {"x": {"enum": [1, "a"]}}})).boxed(),
    ])
}

fn source() -> BoxedStrategy<Value> {
    one(vec![
        object(vec![
            ("type!", just(json!("base64"))),
            ("media_type!", words(&["image/png", "application/pdf"])),
            ("data!", string()),
        ]),
        object(vec![("type!", just(json!("url"))), ("url!", string())]),
        object(vec![("type!", just(json!("text"))), ("data!", string())]),
        object(vec![("type!", words(&["file", "content", "odd"])), ("file_id!", string()), ("content!", string())]),
    ])
}

const MARK: &str = r#"{"type":"ephemeral","ttl":"1h"}"#;

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

fn input() -> BoxedStrategy<Value> {
    one(vec![just(json!({"x": 1.0, "a": [null, "é"]})), just(json!({}))])
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

fn anthropic_request() -> BoxedStrategy<Value> {
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

fn chat_request() -> BoxedStrategy<Value> {
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
fn chat_chunk() -> BoxedStrategy<Value> {
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

/// An event of an Anthropic stream.
fn anthropic_event() -> BoxedStrategy<Value> {
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

fn responses_request() -> BoxedStrategy<Value> {
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
fn responses_event() -> BoxedStrategy<Value> {
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

/// A line of Ollama's.
fn ollama_line() -> BoxedStrategy<Value> {
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

/// How many of each kind are made up: few, so that they are tried at every change. `PROPTEST_CASES` asks for more.
#[expect(clippy::disallowed_methods, reason = "it is the variable of the library that makes the cases up")]
fn cases() -> u32 {
    how_many(std::env::var("PROPTEST_CASES").ok().as_deref())
}

fn how_many(asked: Option<&str>) -> u32 {
    asked.and_then(|asked| asked.parse().ok()).unwrap_or(64)
}

#[test]
fn as_many_cases_are_tried_as_are_asked_for() {
    assert_eq!((how_many(None), how_many(Some("5000")), how_many(Some("many"))), (64, 5000, 64));
}

fn with_first(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], body].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_request_says_the_same_when_it_is_written_again(
        anthropic in anthropic_request(),
        chat in chat_request(),
        responses in responses_request(),
    ) {
        check_request(&with_first(0, anthropic.to_string().as_bytes()));
        check_request(&with_first(1, chat.to_string().as_bytes()));
        check_request(&with_first(2, responses.to_string().as_bytes()));
    }

    #[test]
    fn a_chat_stream_is_translated_legally(chunks in vec(chat_chunk(), 0..12), done in any::<bool>()) {
        let mut stream: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
        stream.push_str(if done { "data: [DONE]\n\n" } else { "" });
        check_stream(&with_first(1, stream.as_bytes()));
        for chunk in &chunks {
            check_whole(&with_first(1, chunk.to_string().as_bytes()));
        }
    }

    #[test]
    fn an_anthropic_stream_is_translated_legally(events in vec(anthropic_event(), 0..14)) {
        let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("odd"));
        check_stream(&with_first(0, events.iter().map(event).collect::<String>().as_bytes()));
    }

    #[test]
    fn a_responses_stream_is_translated_legally(events in vec(responses_event(), 0..14)) {
        let event = |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or("odd"));
        check_stream(&with_first(2, events.iter().map(event).collect::<String>().as_bytes()));
        for event in &events {
            check_whole(&with_first(2, event["response"].to_string().as_bytes()));
        }
    }

    #[test]
    fn a_stream_of_ollamas_is_translated_legally(lines in vec(ollama_line(), 0..12)) {
        let stream: String = lines.iter().map(|line| format!("{line}\n")).collect();
        check_stream(&with_first(3, stream.as_bytes()));
        for line in &lines {
            check_whole(&with_first(3, line.to_string().as_bytes()));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        check_stream(&bytes);
        check_whole(&bytes);
        check_request(&bytes);
    }
}
