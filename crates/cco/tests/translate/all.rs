//! Every pair of protocols through the running gateway: loops of tools, long streams, recorded ones, and what is passed on
//! at once.

use std::path::Path;

use serde_json::{Value, json};
use sim::SimConfig;

use crate::common::{Answer, Gateway, Upstream, upstream, upstream_with};
use crate::{Client, PROVIDERS, gateway, gateway_of, number, post, provider};

/// What upstreams speak, and a kind of provider that speaks it.
const SPOKEN: [(&str, &str); 4] =
    [("anthropic", "anthropic"), ("openai-chat", "openai"), ("openai-responses", "openai"), ("ollama", "ollama")];

/// A gateway with one provider, which is asked in this protocol whoever asks.
async fn speaking(protocol: &str, upstream: &Upstream) -> Gateway {
    let (_, kind) = SPOKEN.iter().find(|(spoken, _)| *spoken == protocol).unwrap();
    let mut provider = provider(kind, upstream);
    provider["protocol"] = protocol.into();
    gateway(&[("it", provider)], json!({})).await
}

/// What a streamed answer says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    /// Events with text in them.
    deltas: usize,
    /// Id, name and arguments of each call.
    calls: Vec<(String, String, String)>,
    /// As it goes back in the next request.
    turn: Vec<Value>,
    tokens: (u64, u64),
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn said(client: Client, answer: &Answer) -> Said {
    let events: Vec<Value> =
        answer.text().lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    match client {
        Client::Anthropic => anthropic(&events),
        Client::Chat => chat(&events),
        Client::Responses => responses(&events),
    }
}

fn anthropic(events: &[Value]) -> Said {
    let (mut said, mut blocks, mut inputs) = (Said::default(), Vec::new(), Vec::new());
    for event in events {
        let delta = &event["delta"];
        match event["type"].as_str().unwrap_or_default() {
            "content_block_start" => {
                blocks.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let (block, input) = (blocks.last_mut().unwrap(), inputs.last_mut().unwrap());
                input.push_str(delta["partial_json"].as_str().unwrap_or_default());
                for field in ["text", "thinking", "signature"] {
                    if let Some(more) = delta[field].as_str() {
                        block[field] = (text(&block[field]) + more).into();
                    }
                }
                if let Some(more) = delta["text"].as_str() {
                    said.text.push_str(more);
                    said.deltas += 1;
                }
            }
            "message_delta" => {
                let usage = &event["usage"];
                said.tokens = (number(&usage["input_tokens"]), number(&usage["output_tokens"]));
            }
            _ => {}
        }
    }
    for (block, input) in blocks.iter_mut().zip(inputs) {
        if block["type"] == "tool_use" {
            block["input"] = serde_json::from_str(if input.is_empty() { "{}" } else { &input }).unwrap();
            said.calls.push((text(&block["id"]), text(&block["name"]), input));
        }
    }
    said.turn = vec![json!({ "role": "assistant", "content": blocks })];
    said
}

fn chat(events: &[Value]) -> Said {
    let mut said = Said::default();
    for event in events {
        let delta = &event["choices"][0]["delta"];
        if let Some(more) = delta["content"].as_str().filter(|text| !text.is_empty()) {
            said.text.push_str(more);
            said.deltas += 1;
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let (at, function) = (call["index"].as_u64().unwrap() as usize, &call["function"]);
            if at == said.calls.len() {
                said.calls.push((text(&call["id"]), text(&function["name"]), String::new()));
            }
            said.calls[at].2.push_str(function["arguments"].as_str().unwrap_or_default());
        }
        if let (Some(input), Some(output)) =
            (event["usage"]["prompt_tokens"].as_u64(), event["usage"]["completion_tokens"].as_u64())
        {
            said.tokens = (input, output);
        }
    }
    let calls = said.calls.iter().map(|(id, name, arguments)| {
        json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
    });
    let calls: Vec<Value> = calls.collect();
    said.turn = vec![json!({ "role": "assistant", "content": said.text, "tool_calls": calls })];
    said
}

fn responses(events: &[Value]) -> Said {
    let end = &events.last().unwrap()["response"];
    let mut said = Said { turn: end["output"].as_array().unwrap().clone(), ..Said::default() };
    said.deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta").count();
    for item in &said.turn {
        for part in item["content"].as_array().into_iter().flatten() {
            said.text.push_str(part["text"].as_str().unwrap_or_default());
        }
        if item["type"] == "function_call" {
            said.calls.push((text(&item["call_id"]), text(&item["name"]), text(&item["arguments"])));
        }
    }
    let usage = &end["usage"];
    said.tokens = (number(&usage["input_tokens"]), number(&usage["output_tokens"]));
    said
}

/// The next request: what was said, and what the calls came to.
fn go_on(client: Client, body: &mut Value, said: &Said) {
    let results = said.calls.iter().map(|(id, ..)| match client {
        Client::Anthropic => json!({ "type": "tool_result", "tool_use_id": id, "content": "42" }),
        Client::Chat => json!({ "role": "tool", "tool_call_id": id, "content": "42" }),
        Client::Responses => json!({ "type": "function_call_output", "call_id": id, "output": "42" }),
    });
    let results: Vec<Value> = results.collect();
    if client == Client::Responses && body["input"].is_string() {
        body["input"] = json!([{ "role": "user", "content": body["input"] }]);
    }
    let list = if client == Client::Responses { "input" } else { "messages" };
    let turns = body[list].as_array_mut().unwrap();
    turns.extend(said.turn.iter().cloned());
    match client {
        Client::Anthropic => turns.push(json!({ "role": "user", "content": results })),
        _ => turns.extend(results),
    }
}

#[tokio::test]
async fn every_pair_comes_to_the_end_of_a_loop_of_tools_in_pieces_of_three_bytes() {
    let upstream = upstream().await;
    let script = "[[sim thinking=\"Ich überlege 🤔\" text=\"Grüße 🚀\" tool=f input={\"x\":1.0} tool=f input={\"x\":2} \
         input_tokens=77 output_tokens=33 chunk=3 then thinking=\"ja\" text=\"All done 🙂\" chunk=1]]";
    for (protocol, _) in SPOKEN {
        let gateway = speaking(protocol, &upstream).await;
        for client in Client::ALL {
            let mut body = client.body(script, true);
            let first = client.ask(&gateway, &body).await;
            let at = format!("{client:?} at {protocol}: {}", first.text());
            assert_eq!(first.status, 200, "{at}");
            let first = said(client, &first);
            assert_eq!((&*first.text, first.tokens), ("Grüße 🚀", (77, 33)), "{at}");
            let inputs: Vec<&str> = first.calls.iter().map(|(.., input)| &**input).collect();
            assert_eq!(inputs, ["{\"x\":1.0}", "{\"x\":2}"], "{at}");
            assert!(first.calls[0].0 != first.calls[1].0 && first.calls.iter().all(|(_, name, _)| name == "f"), "{at}");
            go_on(client, &mut body, &first);
            let second = client.ask(&gateway, &body).await;
            let at = format!("{client:?} at {protocol}, {body}: {}", second.text());
            assert_eq!(second.status, 200, "{at}");
            assert_eq!(said(client, &second).text, "All done 🙂", "{at}");
        }
    }
}

#[tokio::test]
async fn each_of_a_thousand_deltas_is_told_as_one_event_in_every_pair() {
    let upstream = upstream().await;
    for (protocol, _) in SPOKEN {
        let gateway = speaking(protocol, &upstream).await;
        for client in Client::ALL {
            let answer = client.ask(&gateway, &client.body("[[sim events=1000 size=8]]", true)).await;
            let said = said(client, &answer);
            assert_eq!((said.deltas, said.text.len()), (1000, 8000), "{client:?} at {protocol}");
        }
    }
}

#[tokio::test]
async fn what_an_upstream_has_said_reaches_its_client_while_it_says_no_more() {
    let upstream = upstream().await;
    for (protocol, _) in SPOKEN {
        let gateway = speaking(protocol, &upstream).await;
        for client in Client::ALL {
            let body = client.body("[[sim text=\"one two three four five six seven\" fault=stall=6ev]]", true);
            let mut connection = gateway.client().await;
            let version = "anthropic-version: 2023-06-01\r\n";
            connection.send(post(client.path(), version, &body.to_string())).await;
            let mut answer = connection.head().await;
            assert_eq!(answer.status, 200, "{client:?} at {protocol}");
            connection.read_until(&mut answer, "\"one ").await;
        }
    }
}

/// The recorded streams in a folder: their names, the files, the protocols, and what they say if they are whole.
fn recorded(folder: &Path) -> Vec<(String, &'static str, Option<String>)> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let expected = names.filter(|path| path.to_string_lossy().ends_with(".expect.json"));
    let read = |path: std::path::PathBuf| -> Option<_> {
        let expected: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let (file, protocol) = (text(&expected["file"]), text(&expected["protocol"]));
        if !file.ends_with("sse") && !file.ends_with("ndjson") {
            return None;
        }
        let protocol = match &*protocol {
            spoken if spoken.starts_with("anthropic") => "anthropic",
            spoken if spoken.starts_with("openai-responses") => "openai-responses",
            spoken if spoken.starts_with("ollama") => "ollama",
            _ => "openai-chat",
        };
        // A refusal is text of another kind.
        let whole =
            (expected["outcome"] == "complete" && expected["refusal"].is_null()).then(|| text(&expected["text"]));
        Some((file, protocol, whole))
    };
    expected.filter_map(read).collect()
}

#[tokio::test]
async fn every_recorded_stream_is_told_to_every_client_of_another_protocol() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata");
    let mut told = 0;
    for folder in [data.join("transcripts"), data.join("upstreams")] {
        let upstream = upstream_with(SimConfig { transcripts: Some(folder.clone()), ..SimConfig::default() }).await;
        for (file, protocol, whole) in recorded(&folder) {
            let gateway = speaking(protocol, &upstream).await;
            let own = match protocol {
                "anthropic" => Some(Client::Anthropic),
                "openai-chat" => Some(Client::Chat),
                "openai-responses" => Some(Client::Responses),
                _ => None,
            };
            for client in Client::ALL.into_iter().filter(|client| Some(*client) != own) {
                let answer = client.ask(&gateway, &client.body(&format!("[[sim raw={file} chunk=7]]"), true)).await;
                let at = format!("{file} to {client:?}: {} {}", answer.status, answer.text());
                match &whole {
                    Some(whole) => assert_eq!(said(client, &answer).text, *whole, "{at}"),
                    // What it began with may be an error: then that is the answer.
                    None => assert!(
                        answer.status >= 400 || answer.text().contains("error") || answer.text().contains("refusal"),
                        "{at}"
                    ),
                }
                told += 1;
            }
        }
    }
    assert!(told > 60, "{told}");
}

#[tokio::test]
async fn the_long_context_behind_a_models_name_reaches_no_provider() {
    let upstream = upstream().await;
    for (name, _) in PROVIDERS {
        let gateway = gateway_of(name, &upstream).await;
        for client in Client::ALL {
            for stream in [true, false] {
                let mut body = client.body("[[sim text=x]]", stream);
                body["model"] = "claude-opus-5-5[1m]".into();
                let answer = client.ask(&gateway, &body).await;
                let sent = upstream.last_ended().await;
                let at = format!("{client:?} at {name}, stream {stream}: {} {}", sent.target, answer.text());
                assert_eq!(answer.status, 200, "{at}");
                let model = serde_json::from_slice::<Value>(&sent.body).unwrap()["model"].clone();
                assert!(["claude-opus-5-5", "their-model", "d"].iter().any(|known| model == *known), "{model} {at}");
                if *name == "ollama" && !stream {
                    assert_eq!(answer.json()["model"], "claude-opus-5-5[1m]", "{at}");
                }
            }
        }
        let body = json!({ "model": "claude-opus-5-5[1m]", "messages": [{ "role": "user", "content": "how many?" }] });
        let head = "anthropic-version: 2023-06-01\r\n";
        let answer = gateway.ask(post("/v1/messages/count_tokens", head, &body.to_string())).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert!(answer.json()["input_tokens"].as_u64().unwrap() > 0, "{name}");
    }
}
