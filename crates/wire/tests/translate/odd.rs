//! Streams and requests as others really write them: out of order, without ids, without an end.

use serde_json::{Value, json};
use wire::codec::Target;
use wire::models;
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::transcode;

use crate::support::{requests, short};

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
fn calls_without_ids_begin_with_their_names() {
    for index in [Value::Null, json!(0)] {
        let call = |name: &str, arguments: &str| call(index.clone(), "", name, arguments);
        check(
            json!([call("f", "{\"a\":1}"), call("g", ""), call("", "{\"b\":"), call("", "2}"), "tool_calls"]),
            "f#({\"a\":1}|) g#({\"b\":2}|) ToolUse",
        );
        check(json!([call("f", "{}"), call("f", "{}"), "tool_calls"]), "f#({}|) f#({}|) ToolUse");
        // A name that is said again is no call.
        check(json!([call("f", "{\"a\":"), call("f", "1}"), call("f", ""), "tool_calls"]), "f#({\"a\":1}|) ToolUse");
    }
}

#[test]
fn an_id_may_be_a_number() {
    let stream = "data: {\"id\":7,\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":3,\"function\":{\"name\":\"f\"}}]}}]}\n\n\
        data: {\"id\":null,\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":null,\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n";
    assert_eq!(short(Protocol::OpenAiChat, &format!("{stream}{DONE}")), "f#3({}|) ToolUse");
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
    check(json!([call(json!(0), "", "f", "{}"), "tool_calls"]), "f#({}|) ToolUse");
    check(json!([call(json!(0), "a", "", "{}"), "tool_calls"]), "BadGateway: the upstream calls a tool without a name");
}

#[test]
fn arguments_may_be_the_object_itself_or_hold_half_a_character() {
    let stream = |arguments: &str| {
        let call = r#"data: {"id":"x","choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"#;
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n";
        short(Protocol::OpenAiChat, &format!("{call}{arguments}}}}}]}}}}]}}\n\n{end}{DONE}"))
    };
    assert_eq!(stream(r#""{\"a\": 1.0}""#), "f#a({\"a\": 1.0}|) ToolUse");
    assert_eq!(stream(r#"{"b":1.0, "a\u0022":{"c": 1e3}}"#), "f#a({\"b\":1.0,\"a\\\"\":{\"c\": 1e3}}|) ToolUse");
    for empty in ["null", "[]", "\"\""] {
        assert_eq!(stream(empty), "f#a() ToolUse", "{empty}");
    }
    assert_eq!(stream(r#""{\"a\":\"\ud83d\"}""#), "f#a({\"a\":\"\u{fffd}\"}|) ToolUse");
    for odd in ["7", "[1]", "true"] {
        assert_eq!(stream(odd), "BadGateway: an event of the upstream cannot be read", "{odd}");
    }
}

#[test]
fn a_message_at_the_end_that_says_everything_once_more_is_not_told_twice() {
    let choice = |choice: &str| format!("data: {{\"id\":\"x\",\"choices\":[{{\"index\":0,{choice}}}]}}\n\n");
    let whole = choice(r#""finish_reason":"stop","message":{"role":"assistant","content":"ab"}"#);
    let (a, b) = (choice(r#""delta":{"content":"a"}"#), choice(r#""delta":{"content":"b"}"#));
    assert_eq!(short(Protocol::OpenAiChat, &format!("{a}{b}{whole}{DONE}")), "text[a|b|] EndTurn");
    assert_eq!(short(Protocol::OpenAiChat, &format!("{whole}{DONE}")), "text[ab|] EndTurn");
    let both = choice(r#""delta":{"content":"b"},"message":{"content":"ab"}"#);
    assert_eq!(short(Protocol::OpenAiChat, &format!("{a}{both}{DONE}")), "text[a|b|] EndTurn");
    let call = r#""tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]"#;
    let (calls, again) = (choice(&format!("\"delta\":{{{call}}}")), choice(&format!("\"message\":{{{call}}}")));
    assert_eq!(short(Protocol::OpenAiChat, &format!("{calls}{again}{DONE}")), "f#a({}|) ToolUse");
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
fn text_that_a_tool_takes_is_not_judged_as_json() {
    let custom = |index: u32, id: &str, name: &str, input: &str| json!({ "tool_calls": [{ "index": index, "id": id, "type": "custom", "custom": { "name": name, "input": input } }] });
    check(
        json!([custom(0, "a", "patch", "- if x {"), custom(0, "", "", " \""), "tool_calls"]),
        "patch!#a(- if x {| \"|) ToolUse",
    );
    // What looks whole is not: only the end tells.
    check(
        json!([
            custom(0, "a", "patch", "{}"),
            custom(1, "b", "patch", "[1"),
            custom(0, "", "", " and more"),
            custom(1, "", "", ", 2"),
            "tool_calls"
        ]),
        "patch!#a({}| and more|) patch!#b([1, 2|) ToolUse",
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
fn a_content_may_be_a_list_of_what_was_thought_and_said() {
    let thinks = |text: &str| json!([{ "type": "thinking", "thinking": [{ "type": "text", "text": text }] }]);
    check(
        json!([
            { "content": thinks("a") },
            { "content": [{ "type": "thinking", "thinking": "b", "closed": true }, { "type": "text", "text": "c" }] },
            { "content": [{ "type": "reference", "reference_ids": [1] }] },
            { "content": "d" },
            "stop"
        ]),
        "think[a|b|] text[c|d|] EndTurn",
    );
    let upstream = transcode::upstream(Protocol::OpenAiChat).unwrap();
    let content = json!([thinks("a")[0], { "type": "text", "text": "b" }]);
    let body = json!({ "choices": [{ "message": { "content": content }, "finish_reason": "stop" }] }).to_string();
    let parts = upstream.decode_whole(body.as_bytes()).unwrap().parts;
    let parts: Vec<_> = parts.iter().map(|part| format!("{:?}", part.content)).collect();
    assert!(parts.len() == 2 && parts[0].starts_with("Thinking") && parts[1].starts_with("Text"), "{parts:?}");
}

#[test]
fn arguments_may_be_the_object_itself() {
    let function = json!({ "name": "f", "arguments": { "b": 1.0, "a": "x" } });
    let calls = json!([{ "index": 0, "id": "call_abc", "function": function }]);
    check(json!([{ "tool_calls": calls }, "tool_calls"]), "f#call_abc({\"a\":\"x\",\"b\":1.0}|) ToolUse");
    let whole = r#"{"choices":[{"message":{"tool_calls":[{"id":"call_abc","function":{"name":"f","arguments":{"b":1.0,"a":2}}}]},"finish_reason":"stop"}]}"#;
    let message = transcode::upstream(Protocol::OpenAiChat).unwrap().decode_whole(whole.as_bytes()).unwrap();
    assert!(format!("{:?}", message.parts).contains(r#"{"b":1.0,"a":2}"#), "{message:?}");
}

#[test]
fn arguments_may_be_null_for_none() {
    let call = json!({ "id": "call_abc", "type": "function", "function": { "name": "f", "arguments": "null" } });
    let whole =
        json!({ "choices": [{ "message": { "tool_calls": [call] }, "finish_reason": "tool_calls" }] }).to_string();
    let message = transcode::upstream(Protocol::OpenAiChat).unwrap().decode_whole(whole.as_bytes()).unwrap();
    assert!(format!("{:?}", message.parts).contains("Json({})"), "{message:?}");
    let request = json!({ "model": "m", "messages": [
        says("user", "a"), { "role": "assistant", "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "call_abc", "content": "b" }] });
    for (to, quirks) in targets() {
        assert_eq!(sent(Protocol::OpenAiChat, &request, to, &quirks).1, None, "{to:?}");
    }
}

#[test]
fn half_a_character_costs_no_answer() {
    let halves = |head: &str, tail: &str| format!("{head}a\\ud83d{tail}{head}\\ude00b{tail}");
    let chat = halves(r#"data: {"id":"x","choices":[{"delta":{"content":""#, "\"}}]}\n\n");
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    assert_eq!(short(Protocol::OpenAiChat, &(chat + end)), "text[a\u{fffd}|\u{fffd}b|] EndTurn");
    let claude = halves(
        "event: content_block_delta\ndata: {\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"",
        "\"}}\n\n",
    );
    let begin = "event: message_start\ndata: {\"message\":{\"content\":null}}\n\n\
        event: content_block_start\ndata: {\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let end = "event: content_block_stop\ndata: {}\n\n\
        event: message_delta\ndata: {\"delta\":{\"stop_reason\":\"end_turn\"}}\n\nevent: message_stop\ndata: {}\n\n";
    let stream = format!("{begin}{claude}{end}");
    assert_eq!(short(Protocol::AnthropicMessages, &stream), "text[a\u{fffd}|\u{fffd}b|] EndTurn");
    let item = "event: response.output_item.done\ndata: {\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"i\",\
        \"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"a\\ud83d\"}]}}\n\n";
    let end = "event: response.completed\ndata: {\"response\":{\"id\":\"r\"}}\n\n";
    assert_eq!(short(Protocol::OpenAiResponses, &format!("{item}{end}")), "text[a\u{fffd}|] EndTurn");
    let delta = halves("event: response.output_text.delta\ndata: {\"output_index\":0,\"delta\":\"", "\"}\n\n");
    let begin = "event: response.output_item.added\ndata: {\"output_index\":0,\"item\":{\"type\":\"message\",\"id\":\"i\"}}\n\n";
    assert_eq!(short(Protocol::OpenAiResponses, &format!("{begin}{delta}{end}")), "text[a\u{fffd}|\u{fffd}b|] EndTurn");
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
    check(json!([{ "function_call": { "name": "f", "arguments": "{}" } }, "function_call"]), "f#({}|) ToolUse");
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
    // Counts alone are no content.
    assert_eq!(odd("data: {\"usage\":{\"prompt_tokens\":-1}}\n\n"), "text[x|] EndTurn");
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
fn events_without_a_name_are_known_by_the_type_in_their_data() {
    let mut bare = 0;
    for transcript in crate::support::transcripts() {
        let named = matches!(transcript.from, Protocol::AnthropicMessages | Protocol::OpenAiResponses);
        if !(named && transcript.is_stream) {
            continue;
        }
        let stream = String::from_utf8(transcript.body).unwrap();
        let lines = stream.split_inclusive('\n').filter(|line| !line.starts_with("event:"));
        let (whole, unnamed) = (short(transcript.from, &stream), short(transcript.from, &lines.collect::<String>()));
        assert_eq!(unnamed, whole, "{}", transcript.name);
        bare += 1;
    }
    assert!(bare >= 15, "{bare}");
    let start = "event:\ndata: {\"type\":\"message_start\",\"message\":{}}\n\n";
    let odd = "data: {\"type\":3}\n\ndata: [DONE]\n\ndata: {\"type\":\"news\"}\n\n";
    let end = "data: {\"delta\":{\"stop_reason\":\"end_turn\"},\"type\":\"message_delta\"}\n\n\
        data: {\"type\":\"message_stop\"}\n\n";
    assert_eq!(short(Protocol::AnthropicMessages, &format!("{start}{odd}{end}")), "ping ping EndTurn");
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

/// The request that is sent, and why it cannot be, where it cannot.
fn sent(from: Protocol, request: &Value, to: Protocol, quirks: &Quirks) -> (Value, Option<String>) {
    let body = request.to_string();
    let request = transcode::inbound(from).unwrap().decode_request(body.as_bytes()).unwrap();
    let target = Target { model: "m", max_output: Some(5000), quirks, input_estimate: 7 };
    let encoded = transcode::upstream(to).unwrap().encode_request(&request, &target);
    let refused = encoded.losses.refused().map(|loss| loss.reason.to_string());
    (serde_json::from_slice(&encoded.body).unwrap(), refused)
}

fn responses(input: Value) -> Value {
    json!({ "model": "m", "input": input, "store": false })
}

fn says(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

fn calls(id: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": "{}" })
}

fn outputs(id: &str) -> Value {
    json!({ "type": "function_call_output", "call_id": id, "output": id })
}

fn reasoning() -> Value {
    json!({ "type": "reasoning", "id": "a", "summary": [], "encrypted_content": "gAAAA" })
}

/// Every upstream that has an order of calls and results, with and without instructions between turns.
fn targets() -> [(Protocol, Quirks); 4] {
    [
        (Protocol::AnthropicMessages, models::claude("claude-sonnet-4-5")),
        (Protocol::AnthropicMessages, Quirks::of(Protocol::AnthropicMessages)),
        (Protocol::OpenAiChat, Quirks::OPENAI),
        (Protocol::OpenAiResponses, Quirks::of(Protocol::OpenAiResponses)),
    ]
}

#[test]
fn instructions_do_not_stand_for_the_results_of_calls() {
    let waiting = [
        json!([calls("b"), says("developer", "wait")]),
        json!([calls("b"), says("developer", "wait"), says("assistant", "and then")]),
    ];
    for (request, (to, quirks)) in waiting.iter().flat_map(|request| targets().map(|target| (request, target))) {
        let (_, refused) = sent(Protocol::OpenAiResponses, &responses(request.clone()), to, &quirks);
        assert!(refused.is_some_and(|why| why.contains("immediately after: b")), "{to:?}: {request}");
    }
    let silent = responses(json!([calls("b"), says("developer", "")]));
    for (to, quirks) in targets() {
        assert_eq!(sent(Protocol::OpenAiResponses, &silent, to, &quirks).1, None, "{to:?}: nothing follows the call");
    }
}

#[test]
fn instructions_wait_until_every_call_has_its_result() {
    let request = responses(json!([
        calls("a"),
        calls("b"),
        says("developer", "one"),
        outputs("a"),
        says("developer", "two"),
        outputs("b"),
        says("user", "go on"),
    ]));
    let straight = responses(json!([
        calls("a"),
        calls("b"),
        outputs("a"),
        outputs("b"),
        says("developer", "one"),
        says("developer", "two"),
        says("user", "go on"),
    ]));
    for (to, quirks) in targets() {
        let sent = |request| sent(Protocol::OpenAiResponses, request, to, &quirks);
        assert_eq!(sent(&request), sent(&straight), "{to:?}");
        assert_eq!(sent(&request).1, None, "{to:?}");
    }
}

#[test]
fn a_turn_that_says_nothing_stands_between_no_others() {
    let nothing = || json!({ "type": "message", "role": "assistant", "content": [] });
    let pairs = [
        (
            json!([says("system", ""), reasoning(), nothing(), says("system", "say \"hi\"\n"), nothing()]),
            json!([says("system", "say \"hi\"\n")]),
        ),
        (json!([says("user", "a"), reasoning(), says("user", "b")]), json!([says("user", "a"), says("user", "b")])),
        (
            json!([calls("a"), calls("b"), outputs("a"), reasoning(), nothing(), outputs("b")]),
            json!([calls("a"), calls("b"), outputs("a"), outputs("b")]),
        ),
    ];
    for (request, bare) in pairs {
        for (to, quirks) in targets() {
            let sent = |input: &Value| sent(Protocol::OpenAiResponses, &responses(input.clone()), to, &quirks);
            assert_eq!(sent(&request), sent(&bare), "{to:?}: {request}");
            assert_eq!(sent(&request).1, None, "{to:?}: {request}");
        }
    }
}

#[test]
fn reasoning_goes_back_with_what_it_led_to_though_instructions_stand_between() {
    let request =
        responses(json!([calls("a"), reasoning(), says("developer", "x"), calls("b"), outputs("a"), outputs("b")]));
    let quirks = Quirks::of(Protocol::OpenAiResponses);
    let (body, refused) = sent(Protocol::OpenAiResponses, &request, Protocol::OpenAiResponses, &quirks);
    let items = body["input"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap());
    let want =
        ["function_call", "reasoning", "function_call", "function_call_output", "function_call_output", "message"];
    assert_eq!((items.collect::<Vec<_>>(), refused), (want.to_vec(), None));
}

#[test]
fn texts_of_every_kind_are_read_the_same_in_events_that_are_alike() {
    let texts = ["a", " b", "", "c\n", "\"d\"", "\\", "\u{e9}", "\u{1f600}\u{0}", "e", "}}", "\",\"x\":\"", "f"];
    let chat: String = texts
        .iter()
        .map(|text| {
            format!("data: {}\n\n", json!({ "id": "x", "choices": [{ "index": 0, "delta": { "content": text } }] }))
        })
        .collect();
    let whole = texts.iter().filter(|text| !text.is_empty()).map(|text| format!("{text}|")).collect::<String>();
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    assert_eq!(short(Protocol::OpenAiChat, &(chat + end)), format!("text[{whole}] EndTurn"));
    // What looks alike to its end and says more at it.
    let thinks = |text: &str| json!({ "reasoning_content": text });
    check(
        json!([thinks("a"), thinks("b"), json!({ "content": "c" }), json!({ "content": "d" }), thinks("e"), "stop"]),
        "think[a|b|] text[c|d|] think[e|] EndTurn",
    );
    let mut events = vec![
        ("message_start", json!({ "message": {} })),
        ("content_block_start", json!({ "index": 0, "content_block": { "type": "text", "text": "" } })),
    ];
    let delta = |text: &&str| json!({ "index": 0, "delta": { "type": "text_delta", "text": text } });
    events.extend(texts.iter().map(|text| ("content_block_delta", delta(text))));
    events.push(("content_block_stop", json!({ "index": 0 })));
    events.push(("message_delta", json!({ "delta": { "stop_reason": "end_turn" } })));
    events.push(("message_stop", json!({})));
    check_anthropic(&events, &format!("text[{whole}] EndTurn"));
}

#[test]
fn nobody_says_what_only_others_can_say() {
    let image = json!({ "type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=" });
    let seen = json!({ "type": "message", "role": "assistant", "content": [image] });
    for (to, quirks) in targets() {
        let input = json!([says("user", "draw"), seen, says("user", "and now?")]);
        let (_, refused) = sent(Protocol::OpenAiResponses, &responses(input), to, &quirks);
        assert_eq!(refused.as_deref(), Some("no model shows images or documents in its turns"), "{to:?}");
        let blocks = json!([{ "type": "tool_use", "id": "a", "name": "f", "input": {} }]);
        let request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": blocks }] });
        let (_, refused) = sent(Protocol::AnthropicMessages, &request, to, &quirks);
        assert_eq!(refused.as_deref(), Some("only the model calls tools and thinks"), "{to:?}");
    }
}

#[test]
fn what_is_lost_is_named_by_its_path_in_the_clients_request() {
    let mut named = 0;
    for case in requests() {
        let Ok(request) = transcode::inbound(case.from).unwrap().decode_request(&case.body) else { continue };
        let body: Value = serde_json::from_slice(&case.body).unwrap();
        for to in crate::support::targets() {
            for loss in &to.upstream().encode_request(&request, &to.target(&request)).losses {
                let field = loss.path.split(['.', '[']).next().unwrap();
                assert!(body.get(field).is_some(), "{}, for {}: {loss}", case.name, to.name);
                named += 1;
            }
        }
    }
    assert!(named > 100, "{named}");
}

#[test]
fn a_tool_that_is_not_offered_cannot_be_forced() {
    let function = json!({ "type": "function", "function": { "name": "a" } });
    let chat = json!({ "model": "m", "messages": [says("user", "hi")], "tools": [function],
        "tool_choice": { "type": "function", "function": { "name": "b" } } });
    let anthropic = json!({ "model": "m", "max_tokens": 9, "messages": [says("user", "hi")],
        "tools": [{ "name": "a", "input_schema": {} }], "tool_choice": { "type": "tool", "name": "b" } });
    let responses = json!({ "model": "m", "input": "hi", "tools": [{ "type": "function", "name": "a" }],
        "tool_choice": { "type": "function", "name": "b" } });
    for (from, mut request) in
        [(Protocol::OpenAiChat, chat), (Protocol::AnthropicMessages, anthropic), (Protocol::OpenAiResponses, responses)]
    {
        for (to, quirks) in targets() {
            let (_, refused) = sent(from, &request, to, &quirks);
            assert_eq!(refused.as_deref(), Some("there is no tool `b` to call"), "{from:?} to {to:?}");
        }
        let choice = &mut request["tool_choice"];
        let name = if from == Protocol::OpenAiChat { &mut choice["function"]["name"] } else { &mut choice["name"] };
        *name = "a".into();
        for (to, quirks) in targets() {
            assert_eq!(sent(from, &request, to, &quirks).1, None, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn a_tool_has_the_clients_name_in_every_answer_and_no_id_that_another_provider_would_refuse() {
    let tools = json!([{ "name": "my.tool", "input_schema": {} }, { "name": "Bash", "input_schema": {} }]);
    let request =
        json!({ "model": "m", "max_tokens": 9, "messages": [says("user", "hi")], "tools": tools }).to_string();
    let (from, to) =
        (transcode::inbound(Protocol::AnthropicMessages).unwrap(), transcode::upstream(Protocol::OpenAiChat).unwrap());
    let target = Target { model: "m", max_output: None, quirks: &Quirks::COMPATIBLE, input_estimate: 1 };
    let back = to.encode_request(&from.decode_request(request.as_bytes()).unwrap(), &target).back;
    let sent = &*back.names[0].0;
    let called = |index: u8, id: &str, name: &str| json!({ "index": index, "id": id, "function": { "name": name, "arguments": "{}" } });
    let calls = [called(0, "functions.Bash:0", "Bash"), called(1, "0", sent), called(2, "0", "functions.Bash")];
    let whole =
        json!({ "id": "x", "choices": [{ "message": { "tool_calls": calls }, "finish_reason": "tool_calls" }] });
    let pieces = calls.iter().map(|call| json!({ "tool_calls": [call] }));
    let stream = chat(pieces.chain(["tool_calls".into()]).collect(), DONE);
    let front = &crate::support::FRONT;
    let (mut body, mut out) = (Vec::new(), Vec::new());
    transcode::whole(to, from, whole.to_string().as_bytes(), &back, front, false, &mut body).unwrap();
    let mut streamed = transcode::Stream::new(to, from, &back, front);
    streamed.push(stream.as_bytes(), &mut out);
    streamed.end(&mut out);
    let body: Value = serde_json::from_slice(&body).unwrap();
    let head = |block: &Value| (block["id"].as_str().unwrap().to_owned(), block["name"].as_str().unwrap().to_owned());
    let told: Vec<_> = body["content"].as_array().unwrap().iter().map(head).collect();
    let out = String::from_utf8(out).unwrap();
    let data = out.lines().filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let begun: Vec<_> =
        data.filter(|data| data["type"] == "content_block_start").map(|data| head(&data["content_block"])).collect();
    assert_eq!(told, begun, "streamed and whole");
    assert_eq!((&*told[0].1, &*told[1].1), ("Bash", "my.tool"));
    assert!(told[2].1.starts_with("functions_Bash_"), "a name that the model made up: {told:?}");
    assert!(told[0].0.starts_with("functions_Bash_0_"), "{told:?}");
    assert_eq!((&*told[1].0, &*told[2].0), ("call_req_1_1", "call_req_1_2"));
}

/// A streamed and a whole answer of one upstream, with `USAGE` where its usage stands.
fn answers(protocol: Protocol) -> [(bool, String); 2] {
    let (stream, whole) = match protocol {
        Protocol::AnthropicMessages => (
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"m\",\"usage\":{\"input_tokens\":3}}}\n\n\
             event: content_block_start\ndata: {\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
             event: content_block_delta\ndata: {\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"good\"}}\n\n\
             event: content_block_stop\ndata: {\"index\":0}\n\n\
             event: message_delta\ndata: {\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":USAGE}\n\n\
             event: message_stop\ndata: {}\n\n",
            r#"{"id":"m","model":"m","content":[{"type":"text","text":"good"}],"stop_reason":"end_turn","usage":USAGE}"#,
        ),
        Protocol::OpenAiChat => (
            "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"good\"},\"finish_reason\":\"stop\"}]}\n\n\
             data: {\"id\":\"x\",\"choices\":[],\"usage\":USAGE}\n\ndata: [DONE]\n\n",
            r#"{"id":"x","choices":[{"message":{"content":"good"},"finish_reason":"stop"}],"usage":USAGE}"#,
        ),
        Protocol::OpenAiResponses => (
            "event: response.completed\ndata: {\"response\":{\"id\":\"r\",\"output\":[{\"type\":\"message\",\"id\":\"i\",\
             \"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"good\",\"annotations\":[]}]}],\"usage\":USAGE}}\n\n",
            r#"{"id":"r","output":[{"type":"message","id":"i","role":"assistant","content":[{"type":"output_text","text":"good","annotations":[]}]}],"usage":USAGE}"#,
        ),
        Protocol::Ollama => (
            "{\"message\":{\"content\":\"good\"}}\n{\"message\":{\"content\":\"\"},\"done\":true,\"prompt_eval_count\":USAGE,\"eval_count\":3}\n",
            r#"{"message":{"content":"good"},"done":true,"prompt_eval_count":3,"eval_count":USAGE}"#,
        ),
    };
    [(true, stream.to_owned()), (false, whole.to_owned())]
}

#[test]
fn usage_that_cannot_be_read_harms_no_answer() {
    for from in Protocol::ALL {
        for (is_stream, answer) in answers(from) {
            for odd in [r#""many""#, "[]", "-1", r#"{"input_tokens":"7"}"#] {
                let body = answer.replace("USAGE", odd);
                for (to, client) in crate::support::clients() {
                    let mut out = Vec::new();
                    let upstream = transcode::upstream(from).unwrap();
                    let front = &crate::support::FRONT;
                    let seen = if is_stream {
                        let mut stream = transcode::Stream::new(upstream, client, &Default::default(), front);
                        stream.push(body.as_bytes(), &mut out);
                        stream.end(&mut out);
                        stream.seen().clone()
                    } else {
                        transcode::whole(upstream, client, body.as_bytes(), &Default::default(), front, false, &mut out)
                            .unwrap()
                    };
                    let what = format!("{from:?} to {to:?}, {odd}: {}", String::from_utf8_lossy(&out));
                    assert!(seen.error.is_none() && seen.stop.is_some() && seen.usage.is_none(), "{seen:?} {what}");
                    assert!(out.windows(4).any(|word| word == b"good"), "{what}");
                }
            }
        }
    }
}

#[test]
fn more_output_than_a_model_gives_is_not_asked_for_and_named() {
    let chat = json!({ "model": "m", "max_tokens": 70_000, "messages": [{ "role": "user", "content": "hi" }] });
    let anthropic = chat.clone();
    let responses = json!({ "model": "m", "max_output_tokens": 70_000, "input": "hi" });
    for (from, body, path) in [
        (Protocol::OpenAiChat, chat, "max_completion_tokens"),
        (Protocol::AnthropicMessages, anthropic, "max_tokens"),
        (Protocol::OpenAiResponses, responses, "max_output_tokens"),
    ] {
        let body = body.to_string();
        for to in crate::support::targets() {
            let request = transcode::inbound(from).unwrap().decode_request(body.as_bytes()).unwrap();
            let target = Target { max_output: Some(16_384), ..to.target(&request) };
            let encoded = to.upstream().encode_request(&request, &target);
            assert!(String::from_utf8_lossy(&encoded.body).contains("16384"), "{}", to.name);
            let named = encoded.losses.iter().any(|loss| &*loss.path == path && loss.reason.contains("16384"));
            assert!(named, "{}: {:?}", to.name, encoded.losses);
        }
    }
}

#[test]
fn a_model_that_thinks_is_not_asked_for_a_temperature() {
    let body = |effort: &str| {
        json!({ "model": "m", "max_tokens": 9000, "reasoning_effort": effort, "temperature": 0.2, "top_p": 0.5,
            "messages": [{ "role": "user", "content": "hi" }] })
        .to_string()
    };
    let quirks = models::claude("claude-sonnet-4");
    let target = Target { model: "m", max_output: None, quirks: &quirks, input_estimate: 1 };
    let sent = |body: &str| {
        let request = transcode::inbound(Protocol::OpenAiChat).unwrap().decode_request(body.as_bytes()).unwrap();
        let encoded = transcode::upstream(Protocol::AnthropicMessages).unwrap().encode_request(&request, &target);
        (serde_json::from_slice::<Value>(&encoded.body).unwrap(), encoded.losses.to_string())
    };
    let (thinks, lost) = sent(&body("medium"));
    assert_eq!(thinks["thinking"]["type"], "enabled");
    assert_eq!((&thinks["temperature"], &thinks["top_p"]), (&Value::Null, &Value::Null));
    assert!(lost.contains("temperature") && lost.contains("top_p"), "{lost}");
    let (plain, lost) = sent(&body("none"));
    assert_eq!((&plain["temperature"], &plain["top_p"]), (&json!(0.2), &json!(0.5)));
    assert!(!lost.contains("temperature"), "{lost}");
}

#[test]
fn a_claude_model_gets_only_one_of_temperature_and_top_p_where_it_takes_no_two() {
    let sent = |model: &str, temperature: f64, top_p: f64| {
        let quirks = models::claude(model);
        let target = Target { model, max_output: None, quirks: &quirks, input_estimate: 1 };
        let body =
            json!({ "model": "m", "temperature": temperature, "top_p": top_p, "messages": [says("user", "hi")] });
        let body = body.to_string();
        let request = transcode::inbound(Protocol::OpenAiChat).unwrap().decode_request(body.as_bytes()).unwrap();
        let encoded = transcode::upstream(Protocol::AnthropicMessages).unwrap().encode_request(&request, &target);
        let sent: Value = serde_json::from_slice(&encoded.body).unwrap();
        (sent["temperature"].as_f64(), sent["top_p"].as_f64(), encoded.losses.to_string().contains("top_p"))
    };
    assert_eq!(sent("claude-sonnet-4", 0.2, 0.5), (Some(0.2), Some(0.5), false));
    for model in ["claude-opus-4-1", "claude-haiku-4-5", "claude-sonnet-4-6"] {
        assert_eq!(sent(model, 0.2, 0.5), (Some(0.2), None, true), "{model}");
        // What is as it would be anyway is not missed.
        assert_eq!(sent(model, 0.2, 1.0), (Some(0.2), None, false), "{model}");
        assert_eq!(sent(model, 1.0, 0.5), (None, Some(0.5), false), "{model}");
    }
}

#[test]
fn who_asks_for_an_effort_gets_a_model_that_thinks() {
    let sent = |model: &str, effort: &str, choice: &str| {
        let quirks = models::claude(model);
        let target = Target { model, max_output: None, quirks: &quirks, input_estimate: 1 };
        let tool = json!({ "type": "function", "function": { "name": "f" } });
        let body = json!({ "model": "m", "reasoning_effort": effort, "messages": [says("user", "hi")], "tools": [tool],
            "tool_choice": choice });
        let body = body.to_string();
        let request = transcode::inbound(Protocol::OpenAiChat).unwrap().decode_request(body.as_bytes()).unwrap();
        let encoded = transcode::upstream(Protocol::AnthropicMessages).unwrap().encode_request(&request, &target);
        let sent: Value = serde_json::from_slice(&encoded.body).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (word(&sent["thinking"]["type"]), word(&sent["output_config"]["effort"]), encoded.losses.to_string())
    };
    let thinks = |model, effort| {
        let (thinking, effort, lost) = sent(model, effort, "auto");
        assert_eq!(lost, "");
        thinking + " " + &effort
    };
    // These think only if they are told to.
    assert_eq!(thinks("claude-opus-4-6", "medium"), "adaptive medium");
    assert_eq!(thinks("claude-opus-4-7", "xhigh"), "adaptive xhigh");
    assert_eq!(thinks("claude-opus-4-7", "none"), "disabled -");
    assert_eq!(thinks("claude-opus-5-5", "medium"), "- medium");
    assert_ne!(sent("claude-opus-4-6", "xhigh", "auto").1, "xhigh", "it does not know that one");
    let (thinking, _, lost) = sent("claude-opus-4-7", "medium", "required");
    assert_eq!((&*thinking, &*lost), ("-", "reasoning_effort"), "a model that is made to call a tool does not think");
}

#[test]
fn what_azure_says_of_its_filters_is_no_content_and_a_cut_by_them_is_a_refusal() {
    let first = r#"data: {"id":"","model":"","choices":[],"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]}"#;
    let says = r#"data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"a"},"content_filter_results":{"hate":{"filtered":false}}}]}"#;
    // With the asynchronous filter these come at any time, without a delta.
    let later = r#"data: {"id":"","choices":[{"index":0,"content_filter_offsets":{"start_offset":0,"end_offset":1},"content_filter_results":{}}]}"#;
    let end = |reason: &str| {
        format!(r#"data: {{"id":"x","choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#)
    };
    let stream = |events: &[&str]| short(Protocol::OpenAiChat, &(events.join("\n\n") + "\n\n" + DONE));
    assert_eq!(stream(&[first, says, later, &end("stop"), later]), "text[a|] EndTurn");
    assert_eq!(stream(&[first, later, says, &end("content_filter")]), "text[a|] Refusal");
    assert_eq!(stream(&[first, &end("content_filter")]), "Refusal");
}

#[test]
fn a_sign_of_life_of_any_upstream_reaches_every_client_as_one_of_its_own() {
    let in_progress = "event: response.in_progress\ndata: {\"response\":{\"id\":\"r\"}}\n\n";
    for (from, begins, alive) in [
        (
            Protocol::AnthropicMessages,
            "event: message_start\ndata: {\"message\":{\"id\":\"m\"}}\n\n",
            &["event: ping\ndata: {\"type\": \"ping\"}\n\n", ": waiting\n\n"][..],
        ),
        (
            Protocol::OpenAiChat,
            "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
            &[": keep-alive\n\n", ": OPENROUTER PROCESSING\n\n"],
        ),
        (
            Protocol::OpenAiResponses,
            in_progress,
            &[in_progress, "event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n", ": waiting\n\n"],
        ),
    ] {
        for sign in alive {
            for (to, client) in crate::support::clients() {
                let upstream = transcode::upstream(from).unwrap();
                let mut stream = transcode::Stream::new(upstream, client, &Default::default(), &crate::support::FRONT);
                let mut out = Vec::new();
                // Also before anything was said: it may take minutes until then.
                for before in ["", begins] {
                    stream.push(before.as_bytes(), &mut out);
                    out.clear();
                    if before.is_empty() && *sign == in_progress {
                        continue;
                    }
                    stream.push(sign.as_bytes(), &mut out);
                    let want = match to {
                        Protocol::AnthropicMessages => "event: ping\ndata: {\"type\": \"ping\"}\n\n",
                        _ => ": ping\n\n",
                    };
                    assert_eq!(String::from_utf8_lossy(&out), want, "{sign:?} of {from:?} to {to:?}");
                    out.clear();
                }
            }
        }
    }
    // Lines without anything are none.
    let blank = "\n{\"message\":{\"content\":\"\"}}\n\n{\"message\":{\"content\":\"a\"}}\n{\"done\":true}\n";
    assert_eq!(short(Protocol::Ollama, blank), "text[a|] EndTurn");
}
