//! Streams of the other protocols as they are really written, and what holds for those of all.

use serde_json::{Value, json};
use wire::protocol::Protocol;
use wire::transcode;

use crate::chat::check;
use crate::support::short;

#[test]
fn an_error_needs_no_name() {
    for from in [Protocol::AnthropicMessages, Protocol::OpenAiResponses] {
        for name in ["", "event: message\n", "event:\n"] {
            for (error, want) in [
                (r#"{"error":{"message":"m","code":429}}"#, "RateLimit: m"),
                (r#"{"error":"m"}"#, "Internal: m"),
                (r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, "Overloaded: m"),
                (r#"{"error":{}}"#, "Internal: the upstream failed and did not say why"),
            ] {
                assert_eq!(short(from, &format!("{name}data: {error}\n\n")), want, "{from:?} {name}{error}");
            }
        }
        let nothing = short(from, "data: {\"error\":null}\n\n");
        assert!(nothing.ends_with("the upstream closed the stream before its answer was whole"), "{nothing}");
    }
}

#[test]
fn an_event_that_is_called_a_message_is_known_by_its_type() {
    let mut tried = 0;
    for transcript in crate::support::transcripts() {
        let named = matches!(transcript.from, Protocol::AnthropicMessages | Protocol::OpenAiResponses);
        let stream = String::from_utf8_lossy(&transcript.body);
        if !(named && transcript.is_stream) || stream.contains('\r') {
            continue;
        }
        let line =
            |line: &str| if line.starts_with("event:") { "event: message\n".to_owned() } else { line.to_owned() };
        let renamed: String = stream.split_inclusive('\n').map(line).collect();
        assert_eq!(short(transcript.from, &renamed), short(transcript.from, &stream), "{}", transcript.name);
        tried += 1;
    }
    assert!(tried >= 10, "{tried}");
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
fn a_block_of_claudes_may_begin_with_less_than_it_has() {
    let of = |block: Value, delta: Value, want: &str| {
        check_anthropic(
            &[
                (
                    "message_start",
                    json!({ "message": { "id": null, "model": null, "usage": null, "stop_reason": null } }),
                ),
                ("content_block_start", json!({ "index": 7, "content_block": block })),
                ("content_block_delta", json!({ "index": null, "delta": delta })),
                ("content_block_stop", json!(null)),
                ("message_delta", json!({ "delta": { "stop_reason": null }, "usage": null })),
                ("message_delta", json!({ "delta": null, "usage": { "output_tokens": 1 } })),
                ("message_delta", json!({ "delta": { "stop_reason": "end_turn", "stop_sequence": null } })),
                ("message_stop", json!(null)),
            ],
            want,
        );
    };
    let text = || json!({ "type": "text_delta", "text": "x" });
    let input = || json!({ "type": "input_json_delta", "partial_json": "{}" });
    for block in [
        json!({ "type": "text" }),
        json!({ "type": "text", "text": null }),
        json!({ "type": "text", "citations": null }),
    ] {
        of(block, text(), "text[x|] EndTurn");
    }
    for block in [json!({ "type": "thinking" }), json!({ "type": "thinking", "thinking": null, "signature": null })] {
        of(block, json!({ "type": "thinking_delta", "thinking": "x" }), "think[x|] EndTurn");
    }
    let signed = || json!({ "type": "thinking", "thinking": "w", "signature": "c2ln" });
    of(signed(), json!({ "type": "thinking_delta", "thinking": "x" }), "think[w|x|~] EndTurn");
    of(signed(), json!({ "type": "signature_delta", "signature": "bWlu" }), "think[w|~] EndTurn");
    for more in [json!({}), json!({ "input": null }), json!({ "input": "" }), json!({ "input": {} })] {
        let mut block = json!({ "type": "tool_use", "id": "a", "name": "f" });
        block.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(block, input(), "f#a({}|) EndTurn");
    }
    of(json!({ "type": "tool_use", "id": null, "name": "f", "input": {} }), input(), "f#({}|) EndTurn");
    of(json!({ "type": "text", "text": "" }), json!({ "type": "text_delta", "text": null }), "text[] EndTurn");
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
    // Some servers end in the words of another protocol.
    for (word, want) in [("length", "MaxTokens"), ("stop", "EndTurn"), ("tool_calls", "ToolUse")] {
        let (start, delta) = (
            ("message_start", json!({ "message": {} })),
            ("message_delta", json!({ "delta": { "stop_reason": word } })),
        );
        check_anthropic(&[start, delta, ("message_stop", json!({}))], want);
    }
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

#[test]
fn a_call_that_lost_a_piece_of_its_arguments_is_an_error() {
    let call = |pieces: &[(&str, &str)], reason: &str| {
        let piece = |(kind, text): &(&str, &str)| {
            let delta = json!({ "index": 0, "delta": { "type": kind, "partial_json": text } });
            format!("event: content_block_delta\ndata: {delta}\n\n")
        };
        let pieces: String = pieces.iter().map(piece).collect();
        let begin = "event: message_start\ndata: {\"message\":{}}\n\nevent: content_block_start\ndata: \
            {\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{}}}\n\n";
        let end = "event: content_block_stop\ndata: {}\n\nevent: message_delta\ndata: {\"delta\":{\"stop_reason\":\"";
        short(
            Protocol::AnthropicMessages,
            &format!("{begin}{pieces}{end}{reason}\"}}}}\n\nevent: message_stop\ndata: {{}}\n\n"),
        )
    };
    let (known, unknown) = ("input_json_delta", "input_of_another_kind");
    let (head, middle, tail) = ("{\"a\": \"1", ", 2\", \"b\": {", "}}");
    let whole = call(&[(known, head), (known, middle), (known, tail)], "tool_use");
    assert!(whole.ends_with("ToolUse") && !whole.contains("Error"), "{whole}");
    let lost = [(known, head), (unknown, middle), (known, tail)];
    let told = call(&lost, "tool_use");
    assert!(told.ends_with("the upstream's answer ends within the arguments of a call"), "{told}");
    // There it is no wonder.
    for (reason, want) in [("max_tokens", "MaxTokens"), ("refusal", "Refusal")] {
        let told = call(&lost, reason);
        assert!(told.ends_with(want), "{told}");
    }
    let none = call(&[], "tool_use");
    assert!(none.ends_with("ToolUse"), "{none}");
}
