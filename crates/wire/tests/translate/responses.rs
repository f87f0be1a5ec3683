//! Responses streams as servers really write them, and as clients have to see them.

use serde_json::{Value, json};
use wire::error::{ApiError, ErrorKind};
use wire::event::{Block, Delta, Event, Start, Stop, StopReason};
use wire::protocol::Protocol;
use wire::transcode;

use crate::support::{FRONT, short};

/// A stream of these events: what is named `created`, `output_text.delta` … here, and `error` and `keepalive`.
fn stream(events: &[(&str, Value)]) -> String {
    let event = |(name, data): &(&str, Value)| {
        let prefix = if matches!(*name, "error" | "keepalive") { "" } else { "response." };
        format!("event: {prefix}{name}\ndata: {data}\n\n")
    };
    events.iter().map(event).collect()
}

#[track_caller]
fn check(events: &[(&str, Value)], want: &str) {
    assert_eq!(short(Protocol::OpenAiResponses, &stream(events)), want);
}

fn created() -> (&'static str, Value) {
    ("created", json!({ "response": { "id": "resp_1", "model": "m" } }))
}

fn added(index: u64, item: Value) -> (&'static str, Value) {
    ("output_item.added", json!({ "output_index": index, "item": item }))
}

fn done(index: u64, item: Value) -> (&'static str, Value) {
    ("output_item.done", json!({ "output_index": index, "item": item }))
}

fn completed() -> (&'static str, Value) {
    ("completed", json!({ "response": {} }))
}

fn message(text: &str) -> Value {
    json!({ "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": text }] })
}

fn call(id: &str, arguments: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": "f", "arguments": arguments })
}

fn text(index: u64, part: u64, text: &str) -> (&'static str, Value) {
    ("output_text.delta", json!({ "output_index": index, "content_index": part, "delta": text }))
}

fn input(index: u64, text: &str) -> (&'static str, Value) {
    ("function_call_arguments.delta", json!({ "output_index": index, "delta": text }))
}

fn part(index: u64, part: u64, kind: &str) -> (&'static str, Value) {
    ("content_part.added", json!({ "output_index": index, "content_index": part, "part": { "type": kind } }))
}

#[test]
fn items_side_by_side_come_one_after_the_other() {
    check(
        &[
            created(),
            added(0, message("")),
            added(1, call("a", "")),
            added(2, call("b", "")),
            part(0, 0, "output_text"),
            input(2, "{\"q\":"),
            text(0, 0, "on "),
            input(1, "{}"),
            text(0, 0, "it"),
            done(1, call("a", "{}")),
            done(0, message("on it")),
            input(2, "2}"),
            done(2, call("b", "{\"q\":2}")),
            completed(),
        ],
        "f#a({}|) f#b({\"q\":|2}|) text[on it|] ToolUse",
    );
}

/// As llama.cpp writes them: no event says of which item it is.
#[test]
fn items_without_numbers_come_one_after_the_other() {
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [], "content": [] });
    let mut events = vec![
        created(),
        added(0, thought.clone()),
        ("reasoning_text.delta", json!({ "item_id": "rs_1", "delta": "hm" })),
        done(0, thought),
        added(0, message("")),
        part(0, 0, "output_text"),
        text(0, 0, "on "),
        text(0, 0, "it"),
        done(0, message("on it")),
        added(0, call("a", "")),
        input(0, "{}"),
        done(0, call("a", "{}")),
        completed(),
    ];
    for (_, data) in &mut events {
        data.as_object_mut().unwrap().remove("output_index");
    }
    check(&events, "think[hm|~] text[on |it|] f#a({}|) ToolUse");
}

#[test]
fn what_was_not_told_in_pieces_is_told_when_it_is_whole() {
    let custom = json!({ "type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin" });
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "hm" }] });
    let want = "think[hm|~] text[hi|] f#a({\"x\":1}|) patch!#c(*** Begin|) ToolUse";
    let items = || vec![thought.clone(), message("hi"), call("a", "{\"x\":1}"), custom.clone()];
    let each = |n: usize, item: Value| done(n as u64, item);
    let mut events = vec![created()];
    events.extend(items().into_iter().enumerate().map(|(n, item)| each(n, item)));
    events.push(completed());
    check(&events, want);
    // Some tell nothing before the end.
    check(&[("completed", json!({ "response": { "id": "resp_1", "output": items() } }))], want);
    // The end of a piece has it as well.
    check(
        &[
            created(),
            added(0, call("a", "")),
            ("function_call_arguments.done", json!({ "output_index": 0, "arguments": "{\"x\":1}" })),
            done(0, call("a", "{\"x\":1}")),
            added(1, message("")),
            ("output_text.done", json!({ "output_index": 1, "content_index": 0, "text": "hi" })),
            done(1, message("hi")),
            completed(),
        ],
        "f#a({\"x\":1}|) text[hi|] ToolUse",
    );
}

#[test]
fn a_message_may_begin_with_its_text_and_what_is_null_is_not_there() {
    let unsaid =
        |text: &str| ("output_text.delta", json!({ "output_index": null, "content_index": null, "delta": text }));
    let bare = |text: &str| ("output_text.delta", json!({ "delta": text }));
    check(&[created(), text(0, 0, "a"), text(0, 0, "b"), completed()], "text[a|b|] EndTurn");
    check(&[unsaid("a"), bare("b"), done(0, message("ab")), completed()], "text[a|b|] EndTurn");
    check(
        &[created(), added(0, message("")), done(0, message("x")), text(1, 0, "y"), completed()],
        "text[x|] text[y|] EndTurn",
    );
    // What comes behind the end of its item is none of another.
    check(&[created(), added(0, message("")), done(0, message("x")), text(0, 0, "y"), completed()], "text[x|] EndTurn");
    for nothing in [json!({}), json!({ "response": null })] {
        check(&[("created", nothing.clone()), text(0, 0, "a"), ("completed", nothing)], "text[a|] EndTurn");
    }
}

#[test]
fn parts_of_summaries_are_set_apart_and_the_thought_itself_is_not_told_twice() {
    let piece = |name: &'static str, at: u64, text: &str| {
        (name, json!({ "output_index": 0, "summary_index": at, "delta": text }))
    };
    let whole = |sealed: &str| json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed });
    check(
        &[
            created(),
            added(0, whole("")),
            piece("reasoning_summary_text.delta", 0, "a"),
            piece("reasoning_summary_text.delta", 0, "b"),
            piece("reasoning_text.delta", 0, "raw"),
            piece("reasoning_summary_text.delta", 1, "c"),
            done(0, whole("gAAAA")),
            completed(),
        ],
        "think[a|b|\n\n|c|~] EndTurn",
    );
    check(
        &[created(), added(0, whole("")), piece("reasoning_text.delta", 0, "raw"), done(0, whole("")), completed()],
        "think[raw|~] EndTurn",
    );
}

#[test]
fn every_end_is_told() {
    let end = |name: &'static str, response: Value| (name, json!({ "response": response }));
    let refused =
        json!({ "type": "message", "role": "assistant", "content": [{ "type": "refusal", "refusal": "No." }] });
    check(&[created(), done(0, message("x")), completed()], "text[x|] EndTurn");
    check(&[created(), done(0, refused), completed()], "no[No.|] Refusal");
    let cut = |reason: &str| end("incomplete", json!({ "incomplete_details": { "reason": reason } }));
    check(&[created(), done(0, message("x")), cut("max_output_tokens")], "text[x|] MaxTokens");
    check(&[created(), done(0, message("x")), cut("content_filter")], "text[x|] Refusal");
    let failed = json!({ "error": { "code": "server_is_overloaded", "message": "busy" } });
    check(&[created(), end("failed", failed)], "Overloaded: busy");
    check(&[created(), end("failed", json!({ "error": null }))], "Internal: the upstream failed and did not say why");
    check(
        &[("error", json!({ "type": "error", "code": "rate_limit_exceeded", "message": "slow" }))],
        "RateLimit: slow",
    );
    check(&[created(), ("error", json!({ "error": { "type": "server_error", "message": "m" } }))], "Internal: m");
    let truncated = "BadGateway: the upstream closed the stream before its answer was whole";
    check(&[], truncated);
    check(&[created(), added(0, message("")), text(0, 0, "x")], &format!("text[x|{truncated}"));
}

#[test]
fn arguments_that_are_cut_are_an_error_unless_the_answer_is() {
    let events = |end: (&'static str, Value)| {
        vec![created(), added(0, call("a", "")), input(0, "{\"x\":"), done(0, call("a", "{\"x\":")), end]
    };
    check(&events(completed()), "f#a({\"x\":|) BadGateway: the upstream's answer ends within the arguments of a call");
    let cut = ("incomplete", json!({ "response": { "incomplete_details": { "reason": "max_output_tokens" } } }));
    check(&events(cut.clone()), "f#a({\"x\":|) MaxTokens");
    let open = |end| [created(), added(0, call("a", "")), input(0, "{\"x\":"), end];
    check(&open(completed()), "f#a({\"x\":|BadGateway: the upstream's answer ends within the arguments of a call");
    check(&open(cut), "f#a({\"x\":|) MaxTokens");
}

#[test]
fn what_is_no_event_of_the_protocol_ends_the_answer_or_is_passed_over() {
    let unread = |name: &str| format!("BadGateway: a `response.{name}` event of the upstream cannot be read");
    for name in ["created", "output_item.added", "output_item.done", "output_text.delta", "completed"] {
        check(&[(name, json!([]))], &unread(name));
    }
    check(
        &[created(), done(0, json!({ "type": "function_call" }))],
        "BadGateway: an item of the upstream's answer cannot be read",
    );
    check(&[created(), added(0, message("")), added(0, message(""))], "BadGateway: the upstream begins an item twice");
    let nameless = added(0, json!({ "type": "function_call", "call_id": "a" }));
    check(&[created(), nameless], "BadGateway: the upstream's answer is out of order: a call without a name");
    check(
        &[
            created(),
            ("in_progress", json!({ "response": {} })),
            ("in_progress", json!({ "response": {} })),
            ("keepalive", json!({ "type": "keepalive" })),
            ("dream.delta", json!({ "delta": "x" })),
            text(7, 0, "of no item"),
            input(7, "of no item"),
            done(0, message("x")),
            completed(),
            text(0, 0, "late"),
        ],
        "ping ping text[x|] EndTurn",
    );
    // Some leave the name to the data, or end like another protocol.
    let event = |(name, mut data): (&str, Value)| {
        data["type"] = format!("response.{name}").into();
        format!(": comment\ndata: {data}\n\n")
    };
    let typed: String = [created(), done(0, message("x")), completed()].into_iter().map(event).collect();
    assert_eq!(short(Protocol::OpenAiResponses, &(typed + "data: [DONE]\n\n")), "text[x|] EndTurn");
}

#[test]
fn a_search_of_the_providers_is_an_item_and_is_counted() {
    let search = json!({ "type": "web_search_call", "id": "ws_1", "status": "completed", "action": {} });
    let events = stream(&[created(), added(0, search.clone()), done(0, search.clone()), completed()]);
    assert_eq!(short(Protocol::OpenAiResponses, &events), "web_search_call[] EndTurn");
    let upstream = transcode::upstream(Protocol::OpenAiResponses).unwrap();
    let counted = |more: Value| {
        let mut body = json!({ "status": "completed", "output": [search], "usage": { "input_tokens": 9 } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = body.to_string();
        let message = upstream.decode_whole(body.as_bytes()).unwrap();
        message.stop.usage.unwrap().web_search
    };
    assert_eq!(counted(json!({})), 1);
    assert_eq!(counted(json!({ "tool_usage": { "web_search": { "num_requests": 3 } } })), 3);
}

/// What a client of Responses is sent for these events: each by its name, with the data.
fn written(events: &[Event<'_>]) -> Vec<(String, Value)> {
    let mut encoder = transcode::inbound(Protocol::OpenAiResponses).unwrap().encode_stream(&FRONT);
    let mut out = Vec::new();
    events.iter().for_each(|event| encoder.event(event, &mut out));
    let text = String::from_utf8(out).unwrap();
    let read = |event: &str| {
        let Some((name, data)) = event.strip_prefix("event: ").and_then(|event| event.split_once("\ndata: ")) else {
            return (event.to_owned(), Value::Null);
        };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        (name.trim_start_matches("response.").to_owned(), data)
    };
    text.split_terminator("\n\n").map(read).collect()
}

fn names(written: &[(String, Value)]) -> Vec<&str> {
    written.iter().map(|(name, _)| &**name).collect()
}

fn start() -> Event<'static> {
    Event::Start(Start::default())
}

fn stop(reason: StopReason) -> Event<'static> {
    Event::Stop(Stop::new(reason))
}

fn opened(id: &'static str, name: &'static str, custom: bool) -> Event<'static> {
    Event::Open(Block::Call { id: id.into(), name: name.into(), custom })
}

fn piece(text: &'static str) -> Event<'static> {
    Event::Delta(Delta::Input(text.into()))
}

#[test]
fn every_item_goes_through_all_its_steps_and_every_event_has_a_number() {
    let said = |text: &'static str| Event::Delta(Delta::Text(text.into()));
    let events = written(&[
        start(),
        Event::Open(Block::Thinking),
        said("hm"),
        Event::Close,
        Event::Open(Block::Text),
        said("a"),
        Event::Close,
        Event::Open(Block::Refusal),
        said("b"),
        Event::Close,
        opened("c", "f", false),
        Event::Close,
        opened("d", "patch", true),
        piece("x\n"),
        piece("\"y\""),
        Event::Close,
        stop(StopReason::ToolUse),
    ]);
    assert_eq!(
        names(&events),
        [
            "created",
            "in_progress",
            "output_item.added",
            "reasoning_summary_part.added",
            "reasoning_summary_text.delta",
            "reasoning_summary_text.done",
            "reasoning_summary_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "content_part.added",
            "refusal.delta",
            "refusal.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.delta",
            "custom_tool_call_input.done",
            "output_item.done",
            "completed",
        ]
    );
    for (n, (_, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], n);
    }
    let output = &events.last().unwrap().1["response"]["output"];
    let done = events.iter().filter(|(name, _)| name == "output_item.done").map(|(_, data)| data["item"].clone());
    assert_eq!(*output, Value::from_iter(done), "the end tells all items once more");
    assert_eq!(output[0]["encrypted_content"], "cco1:none:0:");
    assert_eq!(
        output[1]["content"],
        json!([
            { "type": "output_text", "text": "a", "annotations": [], "logprobs": [] }, { "type": "refusal", "refusal": "b" }
        ])
    );
    assert_eq!((&output[2]["arguments"], &output[3]["input"]), (&json!("{}"), &json!("x\n\"y\"")));
    let ids: Vec<_> = output.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["rs_req_1_0", "msg_req_1_1", "fc_req_1_2", "ctc_req_1_3"]);
}

#[test]
fn a_tool_in_a_namespace_is_called_in_it_and_a_call_that_is_cut_says_so() {
    let events = written(&[
        start(),
        opened("a", "clock/sleep", false),
        piece("{\"ms\":"),
        Event::Close,
        stop(StopReason::MaxTokens),
    ]);
    let (name, end) = events.last().unwrap();
    let item = &end["response"]["output"][0];
    assert_eq!((&**name, &item["namespace"], &item["name"]), ("incomplete", &json!("clock"), &json!("sleep")));
    assert_eq!(
        (&item["status"], &end["response"]["incomplete_details"]),
        (&json!("incomplete"), &json!({ "reason": "max_output_tokens" }))
    );
}

#[test]
fn an_answer_that_fails_says_what_went_wrong_in_the_words_that_clients_know() {
    use ErrorKind::*;
    let failed = |kind: ErrorKind, message: &str, wait: Option<u64>| {
        let retry_after = wait.map(std::time::Duration::from_millis);
        let error = ApiError { retry_after, ..ApiError::new(kind, message) };
        let mut events = written(&[Event::Error(error), Event::Ping]);
        assert_eq!(names(&events), ["created", "in_progress", "failed"]);
        events.pop().unwrap().1["response"]["error"].clone()
    };
    let error = |code: &str, message: &str| json!({ "code": code, "message": message });
    assert_eq!(
        failed(RateLimit, "Slow down.", Some(1750)),
        error("rate_limit_exceeded", "Slow down. Please try again in 1.8s.")
    );
    let told = "Please try again in 1.8s.";
    assert_eq!(failed(RateLimit, told, Some(1800)), error("rate_limit_exceeded", told));
    assert_eq!(failed(PromptTooLong, "m", None), error("context_length_exceeded", "m"));
    assert_eq!(failed(Quota, "m", None), error("insufficient_quota", "m"));
    assert_eq!(failed(Overloaded, "m", None), error("server_error", "m"));
    assert_eq!(failed(BadGateway, "m", None), error("server_error", "m"));
    assert_eq!(failed(InvalidRequest, "m", None), error("invalid_prompt", "m"));
}

#[test]
fn signs_of_life_are_events_once_the_answer_has_begun_for_long() {
    let events = written(&[Event::Ping, start(), Event::Ping, Event::Ping, Event::Ping, stop(StopReason::EndTurn)]);
    assert_eq!(
        names(&events),
        [": ping", "created", "in_progress", ": ping", "in_progress", "in_progress", "completed"]
    );
}

#[test]
fn a_call_whose_pieces_are_not_all_there_is_no_call() {
    let events = |pieces: &[&str], whole: &str| {
        let mut events = vec![created(), added(0, call("a", ""))];
        events.extend(pieces.iter().map(|piece| input(0, piece)));
        events.extend([done(0, call("a", whole)), completed()]);
        events
    };
    let cut = "f#a({\"q\":|) BadGateway: the upstream's answer ends within the arguments of a call";
    check(&events(&["{\"q\":"], "{\"q\":2}"), cut);
    check(&events(&["{\"q\":", "2}"], "{ \"q\": 2 }"), "f#a({\"q\":|2}|) ToolUse");
    check(&events(&[], "{\"q\":2}"), "f#a({\"q\":2}|) ToolUse");
    check(&events(&[], "{}"), "f#a() ToolUse");
}
