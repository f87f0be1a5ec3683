//! The checks of the fuzz targets, on inputs that are made to be nearly right.

mod anthropic;
mod chat;
mod ollama;
mod responses;

use anthropic::{anthropic_event, anthropic_request};
use chat::{chat_chunk, chat_request};
use ollama::ollama_line;
use proptest::collection::vec;
use proptest::prelude::*;
use responses::{responses_event, responses_request};
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

fn input() -> BoxedStrategy<Value> {
    one(vec![just(json!({"x": 1.0, "a": [null, "é"]})), just(json!({}))])
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
