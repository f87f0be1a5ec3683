//! What an answer holds and the client's protocol has no place for is named: in streams and in whole answers, wherever it
//! stands, once.

use serde_json::{Value, json};
use wire::codec::Back;
use wire::protocol::Protocol;
use wire::transcode::{self, Stream};

use crate::silent::{Step, at, objects, shown};
use crate::support::{FRONT, clients, transcripts};

const A: Protocol = Protocol::AnthropicMessages;
const C: Protocol = Protocol::OpenAiChat;
const R: Protocol = Protocol::OpenAiResponses;
const O: Protocol = Protocol::Ollama;

/// A streamed answer as a client gets it, and what is named as left out.
fn streamed(from: Protocol, to: Protocol, stream: &str) -> (String, Vec<String>) {
    let mut out = Vec::new();
    let (upstream, client) = (transcode::upstream(from).unwrap(), transcode::inbound(to).unwrap());
    let mut translated = Stream::new(upstream, client, &Back::default(), &FRONT);
    translated.push(stream.as_bytes(), &mut out);
    translated.end(&mut out);
    let lost = translated.lost().iter().map(|loss| loss.path.to_string()).collect();
    (String::from_utf8(out).unwrap(), lost)
}

/// A whole answer, as [`streamed`].
fn whole(from: Protocol, to: Protocol, body: &str) -> (String, Vec<String>) {
    let mut out = Vec::new();
    let (upstream, client) = (transcode::upstream(from).unwrap(), transcode::inbound(to).unwrap());
    let seen = transcode::whole(upstream, client, body.as_bytes(), &Back::default(), &FRONT, false, &mut out);
    let lost = seen.map(|seen| seen.lost).unwrap_or_default();
    (String::from_utf8(out).unwrap(), lost.iter().map(|loss| loss.path.to_string()).collect())
}

fn events(events: &[Value]) -> String {
    let each = |data: &Value| match data["type"].as_str() {
        Some(kind) => format!("event: {kind}\ndata: {data}\n\n"),
        None => format!("data: {data}\n\n"),
    };
    events.iter().map(each).collect()
}

fn lines(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn check(got: (String, Vec<String>), want: &[&str]) {
    let (out, mut lost) = got;
    lost.sort();
    assert_eq!(lost, want, "{out}");
}

/// What a server of Chat Completions may say beside its text.
fn extras_of_chat() -> Value {
    json!({ "role": "assistant", "content": "hi", "images": [{ "image_url": { "url": "data:" } }],
        "annotations": [{ "type": "url_citation" }], "reasoning_details": [{ "type": "reasoning.text", "text": "x" }],
        "audio": { "id": "a" } })
}

const OF_CHAT: [&str; 7] = ["images", "annotations", "reasoning_details", "audio", "", "", ""];

#[test]
fn what_chat_servers_say_beside_their_text_is_named() {
    let logprobs = json!({ "content": [{ "token": "hi", "logprob": -0.1 }] });
    for (name, to) in [("delta", A), ("delta", R), ("message", A), ("message", R)] {
        let mut want: Vec<String> = OF_CHAT[..4].iter().map(|member| format!("choices[].{name}.{member}")).collect();
        want.extend(["choices[].logprobs".to_owned(), "citations".to_owned(), "choices".to_owned()]);
        want.sort();
        let want: Vec<&str> = want.iter().map(String::as_str).collect();
        let other = json!({ "index": 1, name: { "content": "another" }, "finish_reason": "stop" });
        let body = json!({ "id": "1", "object": "chat.completion.chunk", "created": 7, "model": "m",
            "system_fingerprint": "f", "provider": "p", "citations": ["https://example.com"], "choices": [
                { "index": 0, name: extras_of_chat(), "logprobs": logprobs, "finish_reason": "stop" }, other] });
        match name {
            // However often it says so.
            "delta" => check(streamed(C, to, &events(&vec![body; 5])), &want),
            _ => check(whole(C, to, &body.to_string()), &want),
        }
    }
}

#[test]
fn what_is_in_calls_of_chat_servers_is_named() {
    let call = json!({ "index": 0, "id": "c", "type": "function", "extra_content": { "google": { "thought": "x" } },
        "function": { "name": "f", "arguments": "{}", "strict": true } });
    for name in ["delta", "message"] {
        let want = [
            format!("choices[].{name}.tool_calls[].extra_content"),
            format!("choices[].{name}.tool_calls[].function.strict"),
        ];
        let body = json!({ "choices": [{ name: { "tool_calls": [call] }, "finish_reason": "tool_calls" }] });
        let got = if name == "delta" { streamed(C, A, &events(&[body])) } else { whole(C, A, &body.to_string()) };
        check(got, &[&want[0], &want[1]]);
    }
    let content = json!([{ "type": "text", "text": "x" }, { "type": "reference", "reference_ids": [1] }]);
    let body = json!({ "choices": [{ "message": { "content": content }, "finish_reason": "stop" }] });
    check(whole(C, A, &body.to_string()), &["choices[].message.content[].reference_ids"]);
}

#[test]
fn what_is_empty_is_not_named() {
    let nothing = json!({ "role": "assistant", "content": "hi", "images": null, "annotations": [], "audio": {},
        "refusal": null, "reasoning_details": [], "function_call": null, "note": "" });
    for name in ["delta", "message"] {
        let body = json!({ "id": "1", "model": "m", "metadata": {}, "choices": [{ "index": 0, name: nothing,
            "logprobs": { "content": [], "refusal": null }, "finish_reason": "stop" }] });
        for to in [A, R] {
            check(streamed(C, to, &events(std::slice::from_ref(&body))), &[]);
            check(whole(C, to, &body.to_string()), &[]);
        }
    }
    let line =
        json!({ "message": { "role": "assistant", "content": "x", "images": null }, "logprobs": [], "done": true });
    check(streamed(O, C, &lines(std::slice::from_ref(&line))), &[]);
    check(whole(O, C, &line.to_string()), &[]);
    let block = json!({ "type": "text", "text": "x", "citations": null, "note": [] });
    let message = json!({ "content": [block], "container": null, "stop_reason": "end_turn", "stop_details": null });
    check(whole(A, C, &message.to_string()), &[]);
    let part = json!({ "type": "output_text", "text": "x", "annotations": [], "logprobs": [] });
    let item = json!({ "type": "message", "role": "assistant", "content": [part] });
    check(whole(R, C, &json!({ "status": "completed", "output": [item] }).to_string()), &[]);
}

/// The blocks of an answer of Anthropic's.
fn blocks() -> [Value; 5] {
    let citation = json!({ "type": "char_location", "cited_text": "x" });
    [
        json!({ "type": "thinking", "thinking": "hm", "signature": "c2ln" }),
        json!({ "type": "redacted_thinking", "data": "ZGF0YQ" }),
        json!({ "type": "server_tool_use", "id": "s", "name": "web_search", "input": {} }),
        json!({ "type": "web_search_tool_result", "tool_use_id": "s", "content": [] }),
        json!({ "type": "text", "text": "x", "citations": [citation], "note": 1 }),
    ]
}

#[test]
fn what_only_anthropics_answers_have_is_named() {
    let chat = [
        "container",
        "content[].citations",
        "content[].note",
        "content[].redacted_thinking",
        "content[].server_tool_use",
        "content[].signature",
        "content[].web_search_tool_result",
        "stop_details",
        "stop_reason",
    ];
    // What Anthropic sealed travels with clients of Responses.
    let responses: Vec<&str> =
        chat.into_iter().filter(|path| !path.ends_with("signature") && !path.ends_with("redacted_thinking")).collect();
    let container = json!({ "id": "c" });
    let ending = json!({ "stop_reason": "pause_turn", "stop_details": { "type": "refusal" }, "container": container });
    let mut message = ending.clone();
    message["content"] = json!(blocks());
    check(whole(A, C, &message.to_string()), &chat);
    check(whole(A, R, &message.to_string()), &responses);
    check(whole(A, A, &message.to_string()), &["container", "content[].note"]);
    let mut stream = vec![json!({ "type": "message_start", "message": { "id": "m", "content": [] } })];
    for (index, mut block) in blocks().into_iter().enumerate() {
        let deltas = match block["type"].as_str().unwrap() {
            "thinking" => vec![json!({ "type": "signature_delta", "signature": block["signature"].take() })],
            "text" => vec![
                json!({ "type": "citations_delta", "citation": block["citations"].take()[0] }),
                json!({ "type": "text_delta", "text": "y" }),
            ],
            _ => vec![],
        };
        stream.push(json!({ "type": "content_block_start", "index": index, "content_block": block }));
        for delta in deltas {
            stream.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        stream.push(json!({ "type": "content_block_stop", "index": index }));
    }
    stream.push(json!({ "type": "message_delta", "delta": ending }));
    stream.push(json!({ "type": "message_stop" }));
    check(streamed(A, C, &events(&stream)), &chat);
    check(streamed(A, R, &events(&stream)), &responses);
    // A kind of event, and of delta, that nobody knows yet.
    let at = stream.len() - 4;
    stream.insert(at, json!({ "type": "content_block_delta", "index": 4, "delta": { "type": "new_delta", "x": 1 } }));
    stream.insert(at, json!({ "type": "new_event", "x": 1 }));
    let (_, lost) = streamed(A, C, &events(&stream));
    assert!(lost.contains(&"content[].new_delta".into()) && lost.contains(&"new_event".into()), "{lost:?}");
}

#[test]
fn a_stop_sequence_that_was_met_is_named_where_nobody_can_be_told() {
    let body = json!({ "content": [], "stop_reason": "stop_sequence", "stop_sequence": "END" }).to_string();
    check(whole(A, C, &body), &["stop_sequence"]);
    check(whole(A, R, &body), &["stop_sequence"]);
}

#[test]
fn items_and_annotations_of_responses_are_named() {
    let part = json!({ "type": "output_text", "text": "x", "annotations": [{ "type": "url_citation" }],
        "logprobs": [{ "token": "x" }] });
    let items = [
        json!({ "type": "web_search_call", "id": "w", "status": "completed", "action": {} }),
        json!({ "type": "image_generation_call", "id": "i", "result": "AAAA" }),
        json!({ "type": "code_interpreter_call", "id": "c", "code": "1" }),
        json!({ "type": "reasoning", "id": "r", "encrypted_content": "gAAA", "note": 1,
            "summary": [{ "type": "summary_text", "text": "hm", "note": 1 }] }),
        json!({ "type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part] }),
    ];
    let both = [
        "moderation",
        "output[].code_interpreter_call",
        "output[].content[].annotations",
        "output[].content[].logprobs",
        "output[].image_generation_call",
        "output[].note",
        "output[].summary[].note",
        "output[].web_search_call",
    ];
    let mut chat = both.to_vec();
    chat.insert(4, "output[].encrypted_content");
    let response = json!({ "id": "resp", "status": "completed", "output": items, "moderation": { "flagged": false } });
    check(whole(R, C, &response.to_string()), &chat);
    check(whole(R, A, &response.to_string()), &both);
    let mut stream = vec![json!({ "type": "response.created", "response": { "id": "resp" } })];
    for (index, item) in items.iter().enumerate() {
        let kind = item["type"].as_str().unwrap();
        let head = json!({ "type": kind, "id": item["id"], "role": "assistant", "content": [] });
        stream.push(json!({ "type": "response.output_item.added", "output_index": index, "item": head }));
        if kind.ends_with("_call") {
            stream
                .push(json!({ "type": format!("response.{kind}.in_progress"), "output_index": index, "item_id": "x" }));
        }
        if kind == "message" {
            let place = |kind: &str| json!({ "type": kind, "output_index": index, "content_index": 0, "item_id": "m" });
            let mut text = place("response.output_text.delta");
            (text["delta"], text["logprobs"]) = ("x".into(), json!([{ "token": "x" }]));
            let mut annotation = place("response.output_text.annotation.added");
            annotation["annotation"] = item["content"][0]["annotations"][0].clone();
            stream.extend([text, annotation]);
        }
        stream.push(json!({ "type": "response.output_item.done", "output_index": index, "item": item }));
    }
    let mut end = response.clone();
    end["output"] = json!([]);
    stream.push(json!({ "type": "response.completed", "response": end }));
    check(streamed(R, C, &events(&stream)), &chat);
    check(streamed(R, A, &events(&stream)), &both);
    stream.insert(1, json!({ "type": "response.audio.delta", "delta": "AAAA" }));
    assert!(streamed(R, A, &events(&stream)).1.contains(&"response.audio.delta".into()));
}

#[test]
fn what_ollama_says_beside_its_text_is_named() {
    let call = json!({ "id": "c", "note": 1, "function": { "name": "f", "arguments": {}, "index": 0, "why": "x" } });
    let message = json!({ "role": "assistant", "content": "x", "images": ["AAAA"], "tool_calls": [call] });
    let line = json!({ "model": "m", "created_at": "2026", "message": message, "logprobs": [{ "token": "x" }],
        "done": true, "total_duration": 5, "eval_count": 1, "prompt_eval_count": 1 });
    let want = ["logprobs", "message.images", "message.tool_calls[].function.why", "message.tool_calls[].note"];
    for to in [A, C, R] {
        check(streamed(O, to, &lines(std::slice::from_ref(&line))), &want);
        check(whole(O, to, &line.to_string()), &want);
    }
}

#[test]
fn an_upstream_that_says_ever_new_things_fills_no_memory() {
    let chunk = |n: usize| json!({ "choices": [{ "delta": { "content": "x", format!("m{n}"): "y".repeat(999) } }] });
    let stream = events(&(0..3000).map(chunk).collect::<Vec<_>>()) + "data: [DONE]\n\n";
    let (upstream, client) = (transcode::upstream(C).unwrap(), transcode::inbound(A).unwrap());
    let mut translated = Stream::new(upstream, client, &Back::default(), &FRONT);
    translated.push(stream.as_bytes(), &mut Vec::new());
    let lost = translated.lost();
    assert_eq!(lost.iter().count(), 64);
    assert!(lost.to_string().ends_with(" more"), "{lost}");
}

/// Objects of answers in which what nobody knows is passed by, by the kind of event and the path within it; a rule that
/// begins with a blank is one of a path alone.
const PASSED: &[(Protocol, &str)] = &[
    // Counts.
    (A, " message.usage"),
    (A, " usage"),
    (C, " usage"),
    (R, " usage"),
    (R, " response.usage"),
    // Failures: the error takes the place of the answer.
    (A, "error "),
    (C, " error"),
    (R, "response.failed response.error"),
    // What a filter let through; what it did not is told by the end of the answer.
    (C, " prompt_filter_results"),
    (C, " choices[].content_filter_results"),
    // What is said once more when the item is whole, and once more when all are.
    (R, "response.output_item.added item"),
    (R, "response.content_part."),
    (R, "response.reasoning_summary_part."),
    (R, "response.reasoning_summary_text.done "),
    (R, "response.completed response.output"),
    // It is named as a whole.
    (A, "content_block_delta delta.citation"),
    (A, "message_delta delta.stop_details"),
    // What only says when.
    (A, "ping "),
    (A, "content_block_stop "),
    (A, "message_stop "),
];

#[test]
fn what_nobody_knows_in_an_answer_is_named_wherever_it_stands() {
    const PROBE: &str = "nobody_knows_it";
    let (mut looked_at, mut silent) = (0, Vec::new());
    for transcript in transcripts() {
        if transcript.expect["outcome"] == "http_error" {
            continue;
        }
        let text = String::from_utf8_lossy(&transcript.body).into_owned();
        // The JSON in it: of a stream that of each event.
        let pieces: Vec<&str> = match (transcript.is_stream, transcript.from) {
            (false, _) => vec![&text],
            (true, O) => text.lines().collect(),
            (true, _) => text.lines().filter_map(|line| line.strip_prefix("data: ")).collect(),
        };
        let mut known = Vec::new();
        for piece in pieces {
            let Ok(value) = serde_json::from_str::<Value>(piece) else { continue };
            let mut found: Vec<Vec<Step>> = Vec::new();
            objects(&value, &mut Vec::new(), &mut found);
            for path in found {
                let plain = format!("{} {}", value["type"].as_str().unwrap_or_default(), shown(&path).1);
                let is_passed = |(from, rule): &(Protocol, &str)| {
                    let of_path = rule.starts_with(' ') && plain.contains(rule);
                    *from == transcript.from && (of_path || plain.starts_with(rule))
                };
                // One of its kind is enough, and of the blocks and items one of each type.
                let types: Vec<_> = (1..=path.len())
                    .filter_map(|n| Some(at(&mut value.clone(), &path[..n]).get("type")?.to_string()))
                    .collect();
                let kind = format!("{plain} {types:?}");
                if known.contains(&kind) || PASSED.iter().any(is_passed) {
                    continue;
                }
                known.push(kind);
                let mut with = value.clone();
                at(&mut with, &path).as_object_mut().unwrap().insert(PROBE.into(), json!(1));
                let answer = text.replacen(piece, &with.to_string(), 1);
                for (to, _) in clients().into_iter().filter(|(to, _)| *to != transcript.from) {
                    let translated = if transcript.is_stream { streamed } else { whole };
                    let (out, lost) = translated(transcript.from, to, &answer);
                    looked_at += 1;
                    let is_named = lost.iter().any(|path| path.contains(PROBE));
                    // It is in a block or an item that is named as a whole.
                    let is_within = (0..=path.len()).any(|n| {
                        let kind = at(&mut value.clone(), &path[..n])["type"].as_str().map(|kind| format!("[].{kind}"));
                        kind.is_some_and(|kind| lost.iter().any(|path| path.ends_with(&kind)))
                    });
                    if !is_named && !is_within && !out.contains(PROBE) {
                        silent.push(format!("{} ({:?}) for {to:?}: {plain}", transcript.name, transcript.from));
                    }
                }
            }
        }
    }
    assert!(silent.is_empty(), "{}", silent.join("\n"));
    assert!(looked_at > 400, "{looked_at}");
}

/// Anthropic's events of one block, its content as it begins, and how the answer ends.
fn of_anthropic(block: &Value, stop: &Value) -> String {
    let message = json!({ "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 } });
    events(&[
        json!({ "type": "message_start", "message": message }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": 1 } }),
        json!({ "type": "message_stop" }),
    ])
}

#[test]
fn how_an_answer_ended_is_named_behind_a_block_that_is_left_out() {
    let block = json!({ "type": "redacted_thinking", "data": "sealed" });
    let stream = of_anthropic(&block, &json!({ "stop_reason": "pause_turn", "stop_sequence": null }));
    check(streamed(A, C, &stream), &["content[].redacted_thinking", "stop_reason"]);
}

#[test]
fn what_is_named_shows_nothing_that_a_terminal_obeys() {
    let strange = "odd \u{1b}[31m\nword";
    let block = json!({ "type": strange });
    let stream = of_anthropic(&block, &json!({ "stop_reason": strange, "stop_sequence": null }));
    let (upstream, client) = (transcode::upstream(A).unwrap(), transcode::inbound(C).unwrap());
    let mut translated = Stream::new(upstream, client, &Back::default(), &FRONT);
    translated.push(stream.as_bytes(), &mut Vec::new());
    translated.end(&mut Vec::new());
    let told: Vec<String> = translated.lost().iter().map(|loss| format!("{} {}", loss.path, loss.reason)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|loss| loss.contains("odd") && !loss.contains(|c: char| c.is_control())), "{told:?}");
}

#[test]
fn arguments_that_a_call_begins_with_are_kept_though_they_are_empty_texts() {
    let block = json!({ "type": "tool_use", "id": "t", "name": "f", "input": { "path": "", "tags": [] } });
    let stream = of_anthropic(&block, &json!({ "stop_reason": "tool_use", "stop_sequence": null }));
    let (out, lost) = streamed(A, C, &stream);
    assert!(out.contains(r#"{\"path\":\"\",\"tags\":[]}"#), "{out}");
    assert!(lost.is_empty(), "{lost:?}");
}
