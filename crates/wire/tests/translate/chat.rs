//! Streams of Chat Completions as others really write them: out of order, without ids, without an end.

use serde_json::{Value, json};
use wire::protocol::Protocol;
use wire::transcode;

use crate::asked::{says, sent, targets};
use crate::support::short;

/// A chat stream of these choices; a string stands for a finish reason, `null` for no choice at all.
pub(crate) fn chat(choices: Value, end: &str) -> String {
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

pub(crate) const DONE: &str = "data: [DONE]\n\n";

#[track_caller]
pub(crate) fn check(choices: Value, want: &str) {
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
fn what_is_null_in_a_list_is_passed_over() {
    let nulls = "data: {\"id\":\"x\",\"choices\":[null,{\"delta\":{\"content\":\"a\",\"tool_calls\":[null]}}]}\n\n";
    let call = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[null,{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n";
    assert_eq!(short(Protocol::OpenAiChat, &format!("{nulls}{DONE}")), "text[a|] EndTurn");
    assert_eq!(short(Protocol::OpenAiChat, &format!("{nulls}{call}{DONE}")), "text[a|] f#c({}|) ToolUse");
    let whole = r#"{"choices":[null,{"message":{"content":"a","tool_calls":[null]},"finish_reason":"stop"}]}"#;
    let message = transcode::upstream(Protocol::OpenAiChat).unwrap().decode_whole(whole.as_bytes()).unwrap();
    assert_eq!((message.parts.len(), message.stop.reason.as_str()), (1, "end_turn"));
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
    for odd in ["7", "[1, {\"a\": 2}]", "true"] {
        assert_eq!(stream(odd), format!("f#a({}|) ToolUse", odd.replace("1, ", "1,")));
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
