use serde_json::{Value, json};
use wire::protocol::Protocol::{AnthropicMessages as A, Ollama as O, OpenAiChat as C, OpenAiResponses as R};

use super::*;

fn prompt(protocol: Protocol, more: Value) -> Vec<u8> {
    let mut body = match protocol {
        R => json!({ "model": "asked", "input": "say x" }),
        _ => json!({ "model": "asked", "max_tokens": 9, "messages": [{ "role": "user", "content": "say x" }] }),
    };
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn sent(client: Protocol, upstream: Protocol, more: Value) -> Translated {
    let quirks = Quirks::of(upstream);
    let to = Upstream { protocol: upstream, model: "theirs", quirks: &quirks, max_output: None, prompt: None };
    request(client, &to, &prompt(client, more), "asked", "0193-ab").unwrap()
}

/// What an upstream streams that says "x y".
fn said(upstream: Protocol) -> &'static [u8] {
    match upstream {
        A => b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"theirs\",\"content\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":1}}}\n\n\
               event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
               event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"x \"}}\n\n\
               event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"y\"}}\n\n\
               event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
               event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":2}}\n\n\
               event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        C => b"data: {\"id\":\"c1\",\"model\":\"theirs\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"x \"}}]}\n\n\
               data: {\"id\":\"c1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}]}\n\n\
               data: {\"id\":\"c1\",\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n\
               data: [DONE]\n\n",
        R => b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"model\":\"theirs\"}}\n\n\
               event: response.output_item.added\ndata: {\"type\":\"response.output_item.added\",\"output_index\":0,\"item\":{\"id\":\"m\",\"type\":\"message\"}}\n\n\
               event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"x \"}\n\n\
               event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"output_index\":0,\"content_index\":0,\"delta\":\"y\"}\n\n\
               event: response.output_item.done\ndata: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"x y\"}]}}\n\n\
               event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_1\",\"status\":\"completed\",\"output\":[],\"usage\":{\"input_tokens\":5,\"output_tokens\":2}}}\n\n",
        O => b"{\"model\":\"theirs\",\"message\":{\"content\":\"x \"},\"done\":false}\n\
               {\"model\":\"theirs\",\"message\":{\"content\":\"y\"},\"done\":false}\n\
               {\"model\":\"theirs\",\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":5,\"eval_count\":2}\n",
    }
}

#[test]
fn every_client_is_served_by_every_upstream() {
    for client in [A, C, R] {
        for upstream in [A, C, R, O] {
            let translated = sent(client, upstream, json!({ "stream": true }));
            let body: Value = serde_json::from_slice(&translated.body).unwrap();
            assert_eq!((&body["model"], &body["stream"]), (&json!("theirs"), &json!(true)), "{client:?} {upstream:?}");
            assert!(translated.answer.is_stream() && !translated.is_idle);
            let mut streaming = translated.answer.stream();
            // Each event leaves as it comes.
            let (mut text, mut pieces) = (String::new(), 0);
            for byte in said(upstream) {
                streaming.push(std::slice::from_ref(byte));
                if let Some(out) = streaming.take() {
                    pieces += usize::from(streaming.has_content() && !streaming.is_over());
                    text.push_str(std::str::from_utf8(&out).unwrap());
                }
            }
            assert!(pieces >= 2, "{client:?} {upstream:?}: {text}");
            assert_eq!((streaming.progress(), streaming.error()), (Progress::Ended, None), "{text}");
            assert!(text.contains("x ") && text.contains("\"asked\"") && !text.contains("theirs"), "{text}");
            let metered = streaming.metered();
            let usage = metered.usage.known().unwrap();
            assert_eq!((usage.tokens.input, usage.tokens.output, metered.is_final), (5, 2, true));
            assert_eq!((metered.model.as_deref(), metered.stop_reason.as_deref()), (Some("theirs"), Some("end_turn")));
            // Only one client is told of the input before the end, and only one upstream says it by then.
            let told = (client == A && upstream != A).then(|| translated.answer.input_estimate());
            assert_eq!(metered.told_input, told, "{client:?} {upstream:?}");
            streaming.end();
            assert_eq!(streaming.take(), None);
        }
    }
}

#[test]
fn a_stream_that_breaks_off_says_so_in_the_clients_words() {
    for client in [A, C, R] {
        for upstream in [A, C, R, O] {
            let mut streaming = sent(client, upstream, json!({ "stream": true })).answer.stream();
            streaming.push(&said(upstream)[..said(upstream).len() / 2]);
            streaming.end();
            let text = String::from_utf8(streaming.take().unwrap().to_vec()).unwrap();
            let why = if upstream == O { "a line of the upstream cannot be read" } else { "closed the stream" };
            assert!(text.contains(why), "{client:?} {upstream:?}: {text}");
            assert_eq!(streaming.progress(), Progress::Failed);
            assert_eq!(streaming.error().unwrap().kind, ErrorKind::BadGateway);
        }
    }
}

#[test]
fn a_refused_credential_of_ours_is_never_the_clients_fault() {
    for (status, body) in [
        (401, &br#"{"error":{"message":"Incorrect API key provided: sk-x","code":"invalid_api_key"}}"#[..]),
        (403, br#"{"error":{"message":"no","type":"permission_error"}}"#),
        (401, b"<html>"),
    ] {
        let told = upstream_error(status, body, None).of_our_credential();
        for client in [A, C, R] {
            let (status, _, body) = error(client, &told, "id");
            let text = String::from_utf8(body).unwrap();
            assert_eq!(status, 502, "{text}");
            assert!(text.contains("rejected the gateway's credential") && !text.contains("sk-x"), "{text}");
        }
    }
    let limited = upstream_error(
        429,
        br#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#,
        Some(Duration::from_secs(7)),
    );
    let (status, fields, _) = error(A, &limited, "id");
    assert_eq!((status, &fields[..]), (429, &[("retry-after", "7".to_owned())][..]));
    let broke = upstream_error(402, br#"{"error":{"message":"Insufficient Balance"}}"#, None);
    assert_eq!(error(A, &broke, "id").0, 402);
    assert!(error(C, &broke, "id").1.contains(&("x-should-retry", "false".to_owned())));
}

#[test]
fn what_an_answer_loses_is_metered_with_it() {
    let said = |name: &str| json!({ "choices": [{ name: { "content": "x", "audio": { "id": "a" } }, "finish_reason": "stop" }] });
    for client in [A, R] {
        let answer = sent(client, C, json!({ "stream": true })).answer;
        let mut streaming = answer.stream();
        streaming.push(format!("data: {}\n\ndata: [DONE]\n\n", said("delta")).as_bytes());
        assert_eq!(streaming.metered().lost.to_string(), "choices[].delta.audio");
        // A client that asked for a stream gets one of a whole answer too.
        let (_, metered) = answer.whole(said("message").to_string().as_bytes()).unwrap();
        assert_eq!(metered.lost.to_string(), "choices[].message.audio");
        let (_, metered) = sent(client, C, json!({})).answer.whole(said("message").to_string().as_bytes()).unwrap();
        assert_eq!(metered.lost.to_string(), "choices[].message.audio");
    }
    // What passes untouched loses nothing.
    assert!(whole_metered(C, said("message").to_string().as_bytes()).lost.is_empty());
}

#[test]
fn losses_are_told_or_refused_as_the_configuration_says() {
    let more = json!({ "top_k": 5, "stream": true });
    let translated = sent(A, C, more);
    assert_eq!(translated.losses.to_string(), "top_k");
    let refused = refuse(&translated.losses).unwrap();
    assert!(refused.kind == ErrorKind::InvalidRequest && refused.message.contains("top_k"), "{refused}");
    assert_eq!(refuse(&sent(A, C, json!({})).losses), None);
    // What changes the meaning is refused whatever the configuration says.
    let image = json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "source": { "type": "url", "url": "https://x.test/a.png" } }] }] });
    let quirks = Quirks::of(O);
    let to = Upstream { protocol: O, model: "m", quirks: &quirks, max_output: None, prompt: None };
    let refused = request(A, &to, &prompt(A, image), "m", "id").unwrap_err();
    assert_eq!(refused.param.as_deref(), Some("messages[0].content[0]"));
}

#[test]
fn no_more_output_is_asked_for_than_the_model_gives() {
    let asked = |model: &str, max_output: Option<u64>| {
        let quirks = Quirks::of(C);
        let to = Upstream { protocol: C, model, quirks: &quirks, max_output, prompt: None };
        let translated = request(A, &to, &prompt(A, json!({ "max_tokens": 64_000 })), "asked", "id").unwrap();
        serde_json::from_slice::<Value>(&translated.body).unwrap()["max_tokens"].clone()
    };
    assert_eq!(asked("gpt-4.1", None), 32_768);
    assert_eq!(asked("mine", None), 64_000);
    assert_eq!(asked("gpt-4.1", Some(5000)), 5000);
}

#[test]
fn a_whole_answer_is_played_to_whoever_asked_for_a_stream() {
    let body = br#"{"id":"c1","model":"theirs","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#;
    let (whole, metered) = sent(A, C, json!({})).answer.whole(body).unwrap();
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!((&whole["content"][0]["text"], &whole["model"]), (&json!("x"), &json!("asked")));
    assert_eq!(metered.usage.known().unwrap().tokens.input, 5);
    let (played, _) = sent(A, C, json!({ "stream": true })).answer.whole(body).unwrap();
    assert!(String::from_utf8(played).unwrap().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    assert_eq!(sent(A, C, json!({})).answer.whole(b"<html>").unwrap_err().kind, ErrorKind::BadGateway);
}

#[test]
fn a_prompt_that_only_warms_a_cache_is_answered_without_an_upstream() {
    let idle = sent(A, C, json!({ "max_tokens": 0 }));
    assert!(idle.is_idle);
    let nothing: Value = serde_json::from_slice(&idle.answer.nothing()).unwrap();
    assert_eq!((&nothing["content"], &nothing["stop_reason"]), (&json!([]), &json!("end_turn")));
}

#[test]
fn what_passes_untouched_is_followed_in_its_own_protocol() {
    for protocol in [C, R] {
        let mut observing = Observing::new(protocol);
        said(protocol).chunks(7).for_each(|piece| _ = observing.push(piece));
        observing.end();
        assert_eq!(observing.progress(), Progress::Ended);
        assert_eq!(observing.metered().usage.known().unwrap().tokens.output, 2);
        let mut cut = Observing::new(protocol);
        cut.push(&said(protocol)[..said(protocol).len() / 2]);
        cut.end();
        assert!(!cut.is_lost() && cut.progress() == Progress::Begun);
        // What we cannot read is not the upstream's fault.
        let mut odd = Observing::new(protocol);
        odd.push(b"event: response.output_text.delta\ndata: {\"choices\": 3, \"output_index\": \"first\"}\n\n");
        odd.end();
        assert!(odd.is_lost() && odd.progress() == Progress::Begun && odd.metered().usage == Counts::Unknown);
    }
    let body = br#"{"id":"r","status":"completed","output":[],"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":2}}"#;
    let tokens = whole_metered(R, body).usage.known().unwrap().tokens;
    assert_eq!((tokens.input, tokens.cache_read), (5, 4));
}

#[test]
fn reasoning_of_others_is_taken_out_of_what_passes() {
    let body = br#"{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"cco1:openai-chat:0:x"},{"type":"text","text":"a"}]}]}"#;
    for unsigned in [Unsigned::Stays, Unsigned::Goes] {
        let (without, losses) = without_foreign_reasoning(A, body, unsigned).unwrap();
        assert!(!String::from_utf8(without.to_vec()).unwrap().contains("cco1:"));
        assert_eq!(losses.to_string(), "messages[0].content[0]");
        assert_eq!(without_foreign_reasoning(A, &prompt(A, json!({})), unsigned), None);
        assert_eq!(without_foreign_reasoning(C, body, unsigned), None);
    }
}

#[test]
fn a_prompt_is_counted_for_upstreams_that_do_not() {
    assert!(count(A, &prompt(A, json!({})), 1 << 20).unwrap() > 0);
    assert!(count(A, b"{", 1).is_err());
}
