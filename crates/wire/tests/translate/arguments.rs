//! Calls whose arguments are JSON and no object: a client is told of them, and a conversation goes on behind them.

use serde_json::{Value, json};
use wire::codec::Back;
use wire::protocol::Protocol;
use wire::transcode::{self, Stream};

use crate::support::{FRONT, targets};

/// What models write in place of an object, and how often it was seen does not matter.
fn odd() -> [Value; 5] {
    [json!([1]), json!("x"), json!(3), json!(-1.5), json!(true)]
}

/// The answer of an upstream that calls a tool so, as a stream and whole; `is_text`: the arguments are a text of JSON.
fn answers(from: Protocol, input: &Value, is_text: bool) -> [String; 2] {
    let arguments = if is_text { json!(input.to_string()) } else { input.clone() };
    match from {
        Protocol::OpenAiChat => {
            let calls = json!([{ "index": 0, "id": "call_1", "type": "function",
                "function": { "name": "f", "arguments": arguments } }]);
            let with = |name: &str| {
                json!({ "choices": [{ "index": 0, name: { "role": "assistant", "tool_calls": calls },
                "finish_reason": "tool_calls" }] })
            };
            [format!("data: {}\n\ndata: [DONE]\n\n", with("delta")), with("message").to_string()]
        }
        Protocol::OpenAiResponses => {
            let item = json!({ "type": "function_call", "id": "fc", "call_id": "call_1", "name": "f",
                "arguments": arguments, "status": "completed" });
            let done = json!({ "type": "response.output_item.done", "output_index": 0, "item": item });
            let whole = json!({ "id": "r", "status": "completed", "output": [item] });
            let end = json!({ "type": "response.completed", "response": whole });
            [format!("data: {done}\n\ndata: {end}\n\n"), whole.to_string()]
        }
        Protocol::Ollama => {
            let call = json!({ "id": "call_1", "function": { "name": "f", "arguments": arguments } });
            let line = json!({ "message": { "role": "assistant", "tool_calls": [call] }, "done": true }).to_string();
            [format!("{line}\n"), line]
        }
        Protocol::AnthropicMessages => {
            let block = json!({ "type": "tool_use", "id": "call_1", "name": "f", "input": {} });
            let delta = json!({ "type": "input_json_delta", "partial_json": input.to_string() });
            let events = [
                json!({ "type": "message_start", "message": {} }),
                json!({ "type": "content_block_start", "index": 0, "content_block": block }),
                json!({ "type": "content_block_delta", "index": 0, "delta": delta }),
                json!({ "type": "content_block_stop", "index": 0 }),
                json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" } }),
                json!({ "type": "message_stop" }),
            ];
            let block = json!({ "type": "tool_use", "id": "call_1", "name": "f", "input": input });
            let whole = json!({ "content": [block], "stop_reason": "tool_use" });
            [events.iter().map(|event| format!("data: {event}\n\n")).collect(), whole.to_string()]
        }
    }
}

/// What a client of Chat Completions, or of Anthropic's, takes the input for.
fn told(to: Protocol, [stream, whole]: &[String; 2], from: Protocol) -> [Value; 2] {
    let (upstream, client) = (transcode::upstream(from).unwrap(), transcode::inbound(to).unwrap());
    let (mut out, mut translated) = (Vec::new(), Stream::new(upstream, client, &Back::default(), &FRONT));
    translated.push(stream.as_bytes(), &mut out);
    translated.end(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(translated.seen().error.is_none(), "{text}");
    let mut input = String::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        let Ok(event) = serde_json::from_str::<Value>(data) else { continue };
        input.push_str(event["delta"]["partial_json"].as_str().unwrap_or_default());
        let call = &event["choices"][0]["delta"]["tool_calls"][0];
        input.push_str(call["function"]["arguments"].as_str().unwrap_or_default());
    }
    let mut out = Vec::new();
    transcode::whole(upstream, client, whole.as_bytes(), &Back::default(), &FRONT, false, &mut out).unwrap();
    let whole: Value = serde_json::from_slice(&out).unwrap();
    let whole = match to {
        Protocol::AnthropicMessages => whole["content"][0]["input"].clone(),
        _ => {
            let call = &whole["choices"][0]["message"]["tool_calls"][0];
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap()
        }
    };
    // Clients take no input at all for an empty object.
    let input = if input.is_empty() { "{}" } else { &*input };
    [serde_json::from_str(input).unwrap_or_else(|_| panic!("{input}: {text}")), whole]
}

#[test]
fn a_client_is_told_of_input_that_is_no_object_and_anthropics_of_an_object_with_it() {
    for input in odd() {
        for (from, is_text) in [
            (Protocol::OpenAiChat, true),
            (Protocol::OpenAiChat, false),
            (Protocol::OpenAiResponses, true),
            (Protocol::Ollama, false),
            (Protocol::AnthropicMessages, false),
        ] {
            // A text that is no JSON in itself is a piece of some.
            if (from, is_text, input.is_string()) == (Protocol::OpenAiChat, false, true) {
                continue;
            }
            let answers = answers(from, &input, is_text);
            let chat = told(Protocol::OpenAiChat, &answers, from);
            assert_eq!(chat, [input.clone(), input.clone()], "{from:?}");
            let anthropic = told(Protocol::AnthropicMessages, &answers, from);
            let wrapped = json!({ "input": input });
            assert_eq!(anthropic, [wrapped.clone(), wrapped], "{from:?}");
        }
    }
}

#[test]
fn a_text_of_json_is_what_it_says_where_ollama_sends_an_object() {
    let answers = answers(Protocol::Ollama, &json!({ "a": 1 }), true);
    assert_eq!(told(Protocol::OpenAiChat, &answers, Protocol::Ollama), [json!({ "a": 1 }), json!({ "a": 1 })]);
}

/// A conversation in which the model called a tool so, as the client of that protocol sends it.
fn history(from: Protocol, arguments: &str) -> Value {
    match from {
        Protocol::OpenAiResponses => json!({ "model": "m", "input": [
            { "role": "user", "content": "hi" },
            { "type": "function_call", "call_id": "c", "name": "f", "arguments": arguments },
            { "type": "function_call_output", "call_id": "c", "output": "no such thing" },
        ] }),
        _ => {
            let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": arguments } });
            json!({ "model": "m", "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": null, "tool_calls": [call] },
                { "role": "tool", "tool_call_id": "c", "content": "no such thing" },
            ] })
        }
    }
}

#[test]
fn a_conversation_goes_on_behind_arguments_that_are_no_object() {
    for from in [Protocol::OpenAiChat, Protocol::OpenAiResponses] {
        for input in odd() {
            let body = history(from, &input.to_string()).to_string();
            let request = transcode::inbound(from).unwrap().decode_request(body.as_bytes()).unwrap();
            for to in targets() {
                let encoded = to.upstream().encode_request(&request, &to.target(&request));
                assert_eq!(encoded.losses.refused(), None, "{input} for {}", to.name);
                let sent: Value = serde_json::from_slice(&encoded.body).unwrap();
                let wrapped = json!({ "input": input });
                let (is, want) = match to.protocol {
                    Protocol::AnthropicMessages => (&sent["messages"][1]["content"][0]["input"], wrapped),
                    Protocol::Ollama => (&sent["messages"][1]["tool_calls"][0]["function"]["arguments"], wrapped),
                    Protocol::OpenAiChat => {
                        (&sent["messages"][1]["tool_calls"][0]["function"]["arguments"], json!(input.to_string()))
                    }
                    Protocol::OpenAiResponses => (&sent["input"][1]["arguments"], json!(input.to_string())),
                };
                assert_eq!(*is, want, "for {}: {sent}", to.name);
            }
        }
        let body = history(from, "{\"a\":").to_string();
        let refused = transcode::inbound(from).unwrap().decode_request(body.as_bytes()).unwrap_err();
        assert!(refused.message.ends_with("its `arguments` are no JSON"), "{}", refused.message);
    }
}

#[test]
fn a_call_whose_arguments_are_null_has_none() {
    for from in [Protocol::OpenAiChat, Protocol::OpenAiResponses] {
        let [stream, whole] = told(Protocol::AnthropicMessages, &answers(from, &Value::Null, true), from);
        assert_eq!((stream, whole), (json!({}), json!({})), "{from:?}");
    }
}
