//! Streams as servers really write them: out of order, without ids, without an end.

use serde_json::{Value, json};
use wire::protocol::Protocol;

use crate::support::short;

/// A chat stream of these choices; a string stands for a finish reason, `null` for no choice at all.
fn chat(choices: Value, end: &str) -> String {
    let mut stream = String::new();
    for choice in choices.as_array().unwrap() {
        let choices = match choice {
            Value::Null => json!([]),
            Value::String(reason) => json!([{ "index": 0, "delta": {}, "finish_reason": reason }]),
            delta => json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
        };
        stream.push_str(&format!("data: {}\n\n", json!({ "id": "x", "model": "m", "choices": choices })));
    }
    stream + end
}

const DONE: &str = "data: [DONE]\n\n";

#[track_caller]
fn check(choices: Value, want: &str) {
    assert_eq!(short(Protocol::OpenAiChat, &chat(choices, DONE)), want);
}

/// A fragment of a call; `""` and `null` leave a member out.
fn call(index: Value, id: &str, name: &str, arguments: &str) -> Value {
    let mut call = json!({ "type": "function", "function": {} });
    if !index.is_null() {
        call["index"] = index;
    }
    if !id.is_empty() {
        call["id"] = id.into();
    }
    if !name.is_empty() {
        call["function"]["name"] = name.into();
    }
    if !arguments.is_empty() {
        call["function"]["arguments"] = arguments.into();
    }
    json!({ "tool_calls": [call] })
}

#[test]
fn calls_of_one_index_are_told_apart_by_their_ids() {
    check(
        json!([
            call(json!(0), "a", "f", "{}"),
            call(json!(0), "b", "g", "{\"x\":"),
            call(json!(0), "", "", "1}"),
            "stop"
        ]),
        "f#a({}|) g#b({\"x\":|1}|) ToolUse",
    );
    check(json!([call(json!(0), "a", "f", "{"), call(json!(0), "a", "f", "}"), "tool_calls"]), "f#a({|}|) ToolUse");
}

#[test]
fn calls_without_an_index_are_known_by_id_or_place() {
    let none = Value::Null;
    check(
        json!([
            call(none.clone(), "a", "f", "{\"x\":"),
            call(none.clone(), "", "", "1}"),
            call(none.clone(), "b", "g", ""),
            call(none.clone(), "b", "", "{}"),
            "tool_calls"
        ]),
        "f#a({\"x\":|1}|) g#b({}|) ToolUse",
    );
}

#[test]
fn a_name_or_an_id_may_come_late_or_never() {
    check(
        json!([
            call(json!(0), "a", "", "{\"x\""),
            call(json!(0), "", "", ":1"),
            call(json!(0), "", "f", "}"),
            "tool_calls"
        ]),
        "f#a({\"x\":1}|) ToolUse",
    );
    check(json!([call(json!(0), "", "f", "{}"), "tool_calls"]), "f#call_0_f({}|) ToolUse");
    check(json!([call(json!(0), "a", "", "{}"), "tool_calls"]), "BadGateway: the upstream calls a tool without a name");
}

#[test]
fn calls_side_by_side_come_one_after_the_other() {
    check(
        json!([
            { "content": "on it" },
            call(json!(0), "a", "f", "{\"p\":"),
            call(json!(1), "b", "g", "{\"q\":"),
            call(json!(0), "", "", "\"}\\\"\""),
            call(json!(1), "", "", "2"),
            call(json!(0), "", "", "}"),
            call(json!(1), "", "", "}"),
            "tool_calls"
        ]),
        "text[on it|] f#a({\"p\":|\"}\\\"\"|}|) g#b({\"q\":2|}|) ToolUse",
    );
}

#[test]
fn text_after_a_call_is_a_block_of_its_own() {
    check(
        json!([{ "content": "a" }, call(json!(0), "c", "f", "{}"), { "content": "b" }, "stop"]),
        "text[a|] f#c({}|) text[b|] ToolUse",
    );
    check(
        json!([call(json!(0), "c", "f", "{\"x\":"), { "content": "b" }, call(json!(0), "", "", "1}"), "stop"]),
        "f#c({\"x\":|1}|) text[b|] ToolUse",
    );
}

#[test]
fn thinking_is_read_under_both_its_names_and_may_come_again() {
    check(
        json!([{ "reasoning": "a" }, { "reasoning_content": "b" }, { "content": "" }, { "content": "c" }, { "reasoning": "d" }, "stop"]),
        "think[a|b|] text[c|] think[d|] EndTurn",
    );
}

#[test]
fn every_finish_reason_is_told() {
    let text = || json!({ "content": "x" });
    for (reason, want) in [
        ("stop", "EndTurn"),
        ("length", "MaxTokens"),
        ("content_filter", "Refusal"),
        ("tool_calls", "EndTurn"),
        ("eos", "EndTurn"),
        ("error", "Unavailable: the upstream gave up before its answer was whole"),
        ("insufficient_system_resource", "Unavailable: the upstream gave up before its answer was whole"),
    ] {
        let want = if want.contains(':') { format!("text[x|{want}") } else { format!("text[x|] {want}") };
        assert_eq!(short(Protocol::OpenAiChat, &chat(json!([text(), reason]), DONE)), want, "{reason}");
    }
    check(json!([{ "refusal": "I will not." }, "stop"]), "no[I will not.|] Refusal");
    check(json!([{ "function_call": { "name": "f", "arguments": "{}" } }, "function_call"]), "f#call_0_f({}|) ToolUse");
}

#[test]
fn arguments_that_are_cut_are_an_error_unless_the_answer_is() {
    let half = || call(json!(0), "a", "f", "{\"x\":");
    check(
        json!([half(), "tool_calls"]),
        "f#a({\"x\":|BadGateway: the upstream's answer ends within the arguments of a call",
    );
    check(json!([half(), "length"]), "f#a({\"x\":|) MaxTokens");
    check(json!([call(json!(0), "a", "f", ""), "tool_calls"]), "f#a() ToolUse");
}

#[test]
fn a_stream_that_just_ends_was_whole_if_it_had_finished() {
    let text = || json!({ "content": "x" });
    let end = |choices: Value| short(Protocol::OpenAiChat, &chat(choices, ""));
    assert_eq!(end(json!([text(), "stop"])), "text[x|] EndTurn");
    let truncated = "BadGateway: the upstream closed the stream before its answer was whole";
    assert_eq!(end(json!([text()])), format!("text[x|{truncated}"));
    assert_eq!(end(json!([])), truncated);
    assert_eq!(end(json!([null])), truncated);
    assert_eq!(short(Protocol::OpenAiChat, &chat(json!([text()]), DONE)), "text[x|] EndTurn");
    assert_eq!(short(Protocol::OpenAiChat, DONE), "BadGateway: the upstream's answer is empty");
}

#[test]
fn what_is_no_chunk_ends_the_answer() {
    let odd = |event: &str| short(Protocol::OpenAiChat, &(chat(json!([{ "content": "x" }]), "") + event + DONE));
    for event in
        ["data: {\n\n", "data: []\n\n", "data: \u{1}\n\n", "data: {\"choices\":[{\"delta\":{\"content\":3}}]}\n\n"]
    {
        assert_eq!(odd(event), "text[x|BadGateway: an event of the upstream cannot be read", "{event}");
    }
    assert_eq!(
        odd("data: {\"usage\":{\"prompt_tokens\":-1}}\n\n"),
        "text[x|BadGateway: the upstream's usage cannot be read"
    );
    assert_eq!(odd("data: {\"error\":{\"message\":\"m\",\"code\":429}}\n\n"), "text[x|RateLimit: m");
    assert_eq!(
        odd(
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\",\"error\":{\"message\":\"m\",\"code\":502}}]}\n\n"
        ),
        "text[x|BadGateway: m"
    );
    assert_eq!(odd(": keep-alive\n\n"), "text[x|ping ] EndTurn");
    assert_eq!(odd("data: {\"choices\":null}\n\ndata:\n\nevent: x\ndata: {\"object\":\"y\"}\n\n"), "text[x|] EndTurn");
    assert_eq!(odd("data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"y\"}}]}\n\n"), "text[x|] EndTurn");
}

#[track_caller]
fn check_anthropic(events: &[(&str, Value)], want: &str) {
    let event = |(name, data): &(&str, Value)| format!("event: {name}\ndata: {data}\n\n");
    let stream: String = events.iter().map(event).collect();
    assert_eq!(short(Protocol::AnthropicMessages, &stream), want);
}

#[test]
fn an_anthropic_stream_out_of_order_ends_with_an_error() {
    let start = || ("message_start", json!({ "message": { "id": "m", "usage": { "input_tokens": 1 } } }));
    let open =
        |kind: &str| ("content_block_start", json!({ "index": 0, "content_block": { "type": kind, "text": "" } }));
    let text = || ("content_block_delta", json!({ "index": 0, "delta": { "type": "text_delta", "text": "x" } }));
    let close = || ("content_block_stop", json!({ "index": 0 }));
    let delta =
        || ("message_delta", json!({ "delta": { "stop_reason": "end_turn" }, "usage": { "output_tokens": 1 } }));
    let stop = || ("message_stop", json!({}));
    check_anthropic(&[start(), open("text"), text(), close(), delta(), stop()], "text[x|] EndTurn");
    let order = "BadGateway: the upstream's answer is out of order: ";
    check_anthropic(&[start(), text()], &format!("{order}a delta outside of a block"));
    check_anthropic(&[text()], &format!("{order}an event before the start"));
    check_anthropic(&[start(), open("text"), open("text")], &format!("text[{order}a block within a block"));
    check_anthropic(&[start(), open("text"), delta(), stop()], &format!("text[{order}the end within a block"));
    check_anthropic(&[start(), stop()], "BadGateway: the upstream's answer ended without a reason");
    let unread = |name: &str| format!("BadGateway: a `{name}` event of the upstream cannot be read");
    check_anthropic(&[start(), ("content_block_start", json!({}))], &unread("content_block_start"));
    check_anthropic(&[("message_start", json!([]))], &unread("message_start"));
    let odd = ("content_block_start", json!({ "content_block": { "type": "tool_use" } }));
    check_anthropic(&[start(), odd], "BadGateway: a block of the upstream's answer cannot be read");
    let truncated = "BadGateway: the upstream closed the stream before its answer was whole";
    check_anthropic(&[start(), open("text"), text(), close(), delta()], &format!("text[x|] {truncated}"));
}

#[test]
fn blocks_and_deltas_of_tomorrow_ride_along() {
    let start = ("message_start", json!({ "message": {} }));
    let open = ("content_block_start", json!({ "content_block": { "type": "dream", "depth": 1 } }));
    let piece = ("content_block_delta", json!({ "delta": { "type": "dream_delta", "more": 1 } }));
    let close = ("content_block_stop", json!({}));
    let news = ("news", json!({}));
    let delta = ("message_delta", json!({ "delta": { "stop_reason": "woke_up" } }));
    check_anthropic(
        &[start, open, piece, close, news, delta, ("message_stop", json!({}))],
        "dream[~] Other(\"woke_up\")",
    );
    // Some servers send the whole block in its beginning.
    let whole = json!({ "content_block": { "type": "tool_use", "id": "a", "name": "f", "input": { "x": 1.0 } } });
    check_anthropic(
        &[
            ("message_start", json!({ "message": {} })),
            ("content_block_start", whole),
            ("content_block_stop", json!({})),
            ("message_delta", json!({ "delta": { "stop_reason": "tool_use" } })),
            ("message_stop", json!({})),
        ],
        "f#a({\"x\":1.0}|) ToolUse",
    );
}
