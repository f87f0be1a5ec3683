//! What becomes of a request: the order of turns, calls and results, and what models of a kind can be asked for.

use serde_json::{Value, json};
use wire::codec::Target;
use wire::models;
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::transcode;

use crate::chat::{DONE, chat};
use crate::support::requests;

/// The request that is sent, and why it cannot be, where it cannot.
pub(crate) fn sent(from: Protocol, request: &Value, to: Protocol, quirks: &Quirks) -> (Value, Option<String>) {
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

pub(crate) fn says(role: &str, content: &str) -> Value {
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
pub(crate) fn targets() -> [(Protocol, Quirks); 4] {
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
fn a_custom_tool_takes_text_or_a_grammar_that_is_defined() {
    let flat = |format: Value| {
        let tool = json!({ "type": "custom", "name": "p", "format": format });
        (Protocol::OpenAiResponses, json!({ "model": "m", "input": "x", "tools": [tool] }))
    };
    let nested = |format: Value| {
        let tool = json!({ "type": "custom", "custom": { "name": "p", "format": format } });
        (Protocol::OpenAiChat, json!({ "model": "m", "messages": [says("user", "x")], "tools": [tool] }))
    };
    let (flat_one, one) = (json!({ "definition": "start: x", "syntax": "lark" }), |rest: Value| {
        let mut format = rest;
        format["type"] = "grammar".into();
        format
    });
    let read = |(from, request): (Protocol, Value)| {
        let body = request.to_string();
        let read = transcode::inbound(from).unwrap().decode_request(body.as_bytes());
        read.map(|_| ()).map_err(|why| why.message.to_string())
    };
    for good in [
        flat(json!({ "type": "text" })),
        flat(one(flat_one.clone())),
        nested(json!({ "type": "text" })),
        nested(one(json!({ "grammar": flat_one }))),
    ] {
        assert_eq!(read(good.clone()), Ok(()), "{good:?}");
    }
    for bad in [
        flat(json!({ "type": "grammar" })),
        flat(json!({ "type": "regex" })),
        nested(json!({ "type": "grammar", "gramkar": flat_one })),
        nested(json!({ "type": "grammar", "grammar": {} })),
        nested(json!({ "type": "regex" })),
    ] {
        let why = read(bad.clone()).unwrap_err();
        assert!(why.ends_with("is a `text`, or a `grammar` with a `definition`"), "{bad:?}: {why}");
    }
}

#[test]
fn a_part_of_the_models_that_only_its_own_protocol_knows_goes_back_as_it_was() {
    let said = json!([{ "type": "text", "text": "look" }, { "type": "hologram", "of": "a cat" }]);
    let turn = json!({ "role": "assistant", "content": said });
    let request = json!({ "model": "m", "messages": [says("user", "a"), turn, says("user", "b")] });
    let (sent, refused) = sent(Protocol::OpenAiChat, &request, Protocol::OpenAiChat, &Quirks::of(Protocol::OpenAiChat));
    assert_eq!(refused, None);
    let roles: Vec<_> = sent["messages"].as_array().unwrap().iter().map(|message| message["role"].as_str()).collect();
    assert_eq!(
        (roles, &sent["messages"][1]["content"]),
        (["user", "assistant", "user"].map(Some).to_vec(), &said),
        "{sent}"
    );
}

#[test]
fn bytes_are_of_a_media_type_that_every_protocol_can_carry() {
    let sent = |media_type: &str, data: &str| {
        let source = json!({ "type": "base64", "media_type": media_type, "data": data });
        let content = json!([{ "type": "image", "source": source }]);
        let request = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": content }] });
        let body = request.to_string();
        let request = transcode::inbound(Protocol::AnthropicMessages).unwrap().decode_request(body.as_bytes())?;
        let target = Target { model: "m", max_output: None, quirks: &Quirks::OPENAI, input_estimate: 7 };
        let body = transcode::upstream(Protocol::OpenAiChat).unwrap().encode_request(&request, &target).body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let url = &body["messages"][0]["content"][0]["image_url"]["url"];
        Ok::<_, wire::error::ApiError>(url.as_str().unwrap().to_owned())
    };
    for (named, want) in [
        ("image/png", "data:image/png;base64,/9j/x"),
        ("image/jpg", "data:image/jpeg;base64,/9j/x"),
        ("", "data:image/jpeg;base64,/9j/x"),
        ("application/octet-stream", "data:image/jpeg;base64,/9j/x"),
        ("image/svg+xml", "data:image/svg+xml;base64,/9j/x"),
    ] {
        assert_eq!(sent(named, "/9j/x").unwrap(), want);
    }
    for none in ["image", "image/", "/png", "image/p,ng", "image/png;base64", "image/png; a=b", "i/m/g", "é/x"] {
        assert!(sent(none, "/9j/x").is_err(), "{none}");
    }
    assert!(sent("", "AAAA").is_err());
}

/// A model may have called so before, and its client sends back what it was told.
#[test]
fn arguments_that_are_no_object_go_back_in_one_where_they_have_to_be_one() {
    let sent = |input: Value, to, quirks: &Quirks| {
        let call = json!([{ "type": "tool_use", "id": "a", "name": "f", "input": input }]);
        let result = json!([{ "type": "tool_result", "tool_use_id": "a", "content": "x" }]);
        let messages = json!([{ "role": "assistant", "content": call }, { "role": "user", "content": result }]);
        let request = json!({ "model": "m", "max_tokens": 9, "messages": messages });
        let (body, refused) = sent(Protocol::AnthropicMessages, &request, to, quirks);
        assert_eq!(refused, None);
        body["messages"][0]["tool_calls"][0]["function"]["arguments"].clone()
    };
    for input in [json!("x"), json!([1]), json!(1)] {
        assert_eq!(sent(input.clone(), Protocol::Ollama, &Quirks::OLLAMA), json!({ "input": input }));
        assert_eq!(sent(input.clone(), Protocol::OpenAiChat, &Quirks::OPENAI), json!(input.to_string()));
    }
    assert_eq!(sent(json!({ "x": 1 }), Protocol::Ollama, &Quirks::OLLAMA), json!({ "x": 1 }));
}
