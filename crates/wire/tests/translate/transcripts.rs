//! Every recorded answer is understood as its `expect.json` says, wherever it is cut.

use serde_json::{Value, json};
use wire::error::{ApiError, ErrorKind};
use wire::event::StopReason;
use wire::message::{Fold, Message};
use wire::protocol::Protocol;
use wire::request::{Content, Input};
use wire::transcode;
use wire::usage::Usage;

use crate::support::{FRONT, Transcript, clients, each_event, events, stream, transcripts};

fn read(transcript: &Transcript) -> Result<Message<'static>, ApiError> {
    let mut fold = Fold::default();
    if transcript.is_stream {
        each_event(transcript.from, &[&transcript.body], |event| fold.event(&event));
    } else {
        let upstream = transcode::upstream(transcript.from).unwrap();
        upstream.decode_whole(&transcript.body)?.events(|event| fold.event(&event));
    }
    fold.finish().expect("every answer ends")
}

fn texts(message: &Message<'_>, of: impl Fn(&Content<'_>) -> Option<String>) -> String {
    message.parts.iter().filter_map(|part| of(&part.content)).collect()
}

fn usage(usage: &Usage) -> Value {
    let tokens = &usage.tokens;
    json!({
        "input_tokens": tokens.input, "output_tokens": tokens.output, "cache_read_tokens": tokens.cache_read,
        "cache_write_5m_tokens": tokens.cache_write.m5, "cache_write_30m_tokens": tokens.cache_write.m30,
        "cache_write_1h_tokens": tokens.cache_write.h1, "reasoning_tokens": usage.reasoning,
        "web_search_requests": usage.web_search,
    })
}

fn word(reason: &StopReason) -> &str {
    match reason {
        StopReason::EndTurn => "end_turn",
        StopReason::MaxTokens => "max_tokens",
        StopReason::StopSequence => "stop_sequence",
        StopReason::ToolUse => "tool_use",
        StopReason::Refusal => "refusal",
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_answer_is_understood_as_it_has_to_be() {
    for transcript in transcripts() {
        let (name, expect) = (&transcript.name, &transcript.expect);
        let got = match expect["outcome"].as_str().unwrap() {
            "http_error" => continue,
            "complete" => read(&transcript).unwrap_or_else(|error| panic!("{name}: {error:?}")),
            _ => {
                let error = read(&transcript).expect_err(name);
                if let Some(message) = expect["error"]["message"].as_str() {
                    assert_eq!(&*error.message, message, "{name}");
                }
                continue;
            }
        };
        let text = texts(&got, |content| match content {
            Content::Text(text) => Some(text.text.to_string()),
            _ => None,
        });
        assert_eq!(text, expect["text"].as_str().unwrap(), "{name}");
        let refusal = texts(&got, |content| match content {
            Content::Refusal(text) => Some(text.to_string()),
            _ => None,
        });
        assert_eq!(refusal, expect["refusal"].as_str().unwrap_or_default(), "{name}");
        let thinking = texts(&got, |content| match content {
            Content::Thinking(thinking) => Some(thinking.text.to_string()),
            _ => None,
        });
        assert_eq!(thinking, expect["thinking"].as_str().unwrap_or_default(), "{name}");
        let calls = got.parts.iter().filter_map(|part| match &part.content {
            Content::Call(call) => {
                let Input::Json(input) = &call.input else { panic!("{name}: {call:?}") };
                Some(json!({ "id": call.id, "name": call.name, "input": input.read::<Value>().unwrap() }))
            }
            _ => None,
        });
        assert_eq!(Value::from_iter(calls), expect["tool_calls"], "{name}");
        assert_eq!(word(&got.stop.reason), expect["stop_reason"], "{name}");
        assert_eq!(got.stop.sequence.as_deref(), expect.get("stop_sequence").and_then(Value::as_str), "{name}");
        match &got.stop.usage {
            None => assert_eq!(expect["usage"], Value::Null, "{name}"),
            Some(known) => {
                for (key, count) in usage(known).as_object().unwrap() {
                    assert_eq!(*count, expect["usage"].get(key).cloned().unwrap_or(json!(0)), "{name}: {key}");
                }
            }
        }
    }
}

#[test]
fn every_refusal_is_shown_as_what_it_is() {
    let mut count = 0;
    for transcript in transcripts().iter().filter(|transcript| transcript.expect["outcome"] == "http_error") {
        let error = wire::refusal::read(transcript.status, &transcript.body);
        let mut out = Vec::new();
        let anthropic = transcode::inbound(Protocol::AnthropicMessages).unwrap();
        let status = anthropic.encode_error(&error, &FRONT, &mut out);
        let body: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(body["error"]["type"], transcript.expect["error"]["type"], "{}", transcript.name);
        assert_eq!(status, transcript.status, "{}", transcript.name);
        let retryable = transcript.expect["retryable"].as_bool().unwrap();
        assert_eq!(error.kind.is_passing(), retryable, "{}", transcript.name);
        count += 1;
    }
    assert!(count >= 15, "only {count}");
}

#[test]
fn an_answer_is_the_same_wherever_it_is_cut() {
    for transcript in transcripts().iter().filter(|transcript| transcript.is_stream) {
        let body = &transcript.body[..];
        let whole = events(transcript.from, &[body]);
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(events(transcript.from, &bytes), whole, "{} byte by byte", transcript.name);
        for at in 0..body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(events(transcript.from, &[a, b]), whole, "{} cut at byte {at}", transcript.name);
        }
    }
}

#[test]
fn what_a_client_reads_is_what_the_upstream_said() {
    for transcript in transcripts().iter().filter(|transcript| transcript.is_stream) {
        let sent = read(transcript);
        for (protocol, client) in clients() {
            let written = stream(transcript.from, client, &[&transcript.body]);
            let mut fold = Fold::default();
            each_event(protocol, &[&written], |event| fold.event(&event));
            let name = format!("{} as {}", transcript.name, protocol.as_str());
            match (&sent, fold.finish().expect("every answer ends")) {
                // A stream has one word for all failures of a server, and in that of Responses for too much to do as well.
                (Err(sent), Err(got)) => {
                    let one_word = |error: &ApiError| match error.kind {
                        ErrorKind::BadGateway => ErrorKind::Internal,
                        ErrorKind::Overloaded if protocol == Protocol::OpenAiResponses => ErrorKind::Internal,
                        kind => kind,
                    };
                    assert_eq!((one_word(sent), &sent.message), (one_word(&got), &got.message), "{name}");
                }
                (Ok(sent), Ok(got)) => same(sent, &got, &name),
                (sent, got) => panic!("{name}: {sent:?} and {got:?}"),
            }
        }
    }
}

fn same(sent: &Message<'_>, got: &Message<'_>, name: &str) {
    let said = |message: &Message<'_>| {
        let text = texts(message, |content| match content {
            Content::Text(text) => Some(text.text.to_string()),
            Content::Refusal(text) => Some(text.to_string()),
            Content::Thinking(thinking) => Some(thinking.text.to_string()),
            _ => None,
        });
        let calls = message.parts.iter().filter_map(|part| match &part.content {
            // Ids that count the calls of one answer are not told: the next answer has them again.
            Content::Call(call) if call.id.len() < 8 => Some(format!("call_req_1 {} {:?}", call.name, call.input)),
            Content::Call(call) => {
                let id = if call.id.starts_with("call_req_1_") { "call_req_1" } else { &*call.id };
                Some(format!("{id} {} {:?}", call.name, call.input))
            }
            _ => None,
        });
        (text, calls.collect::<Vec<_>>())
    };
    let tokens = |message: &Message<'_>| {
        let usage = message.stop.usage.as_ref().map(|usage| usage.tokens);
        usage.map(|tokens| (tokens.prompt(), tokens.cache_read, tokens.output))
    };
    assert_eq!(said(sent), said(got), "{name}");
    if let Some(sent) = tokens(sent) {
        assert_eq!(Some(sent), tokens(got), "{name}");
    }
}
