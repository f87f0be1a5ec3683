//! What a provider's answer holds and the client's protocol has no place for: named in header, record and log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::common::Gateway;
use crate::told::recorded;
use crate::{Client, common, gateway};

/// A server of Chat Completions that always says the same; returns its address. It ends with the test.
fn saying(content_type: &'static str, body: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut asked = vec![0; length];
            reader.read_exact(&mut asked).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nconnection: close\r\n");
            let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    addr
}

/// The answer of such a server, whole or as the one chunk of a stream, with a picture and a source.
fn answer(said: &str) -> Value {
    let message = json!({ "role": "assistant", "content": "hello", "refusal": null, "reasoning_details": [],
        "images": [{ "image_url": { "url": "data:image/png;base64,AAAA" } }],
        "annotations": [{ "type": "url_citation", "url_citation": { "url": "https://example.com" } }] });
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 2 });
    json!({ "id": "c1", "object": "chat.completion", "created": 7, "model": "m", "usage": usage,
        "choices": [{ "index": 0, said: message, "logprobs": null, "finish_reason": "stop" }] })
}

async fn before(upstream: SocketAddr, more: Value) -> Gateway {
    let provider = json!({ "providerType": "openai-compatible", "baseUrl": format!("http://{upstream}"),
        "apiKeyRef": "env:PROVIDERS_KEY", "maxRetries": 0 });
    let mut config = json!({ "log": { "level": "debug", "format": "json" } });
    common::lay_over(&mut config, more);
    gateway(&[("theirs", provider)], config).await
}

/// What the record says of these members of the answer.
fn lines(paths: [&str; 2]) -> Vec<String> {
    paths.map(|path| format!("{path}: it is left out of translated answers")).into()
}

#[tokio::test]
async fn a_whole_answer_names_in_its_head_what_it_leaves_out() {
    let upstream = saying("application/json", answer("message").to_string());
    let gateway = before(upstream, json!({})).await;
    let mut body = Client::Anthropic.body("draw", false);
    let paths = ["choices[].message.annotations", "choices[].message.images"];
    let told = Client::Anthropic.ask(&gateway, &body).await;
    assert_eq!((told.status, told.header("x-cco-loss")), (200, Some(&*paths.join(", "))), "{}", told.text());
    assert_eq!(recorded(&gateway, told.id()).await, lines(paths));
    let line = gateway.log_line(&["not carried of the answer", told.id()]).await;
    assert!(line.to_string().contains(&paths.join(", ")), "{line}");
    // Behind what the request loses.
    body["metadata"] = json!({ "nobody_knows_it": "x" });
    let told = Client::Anthropic.ask(&gateway, &body).await;
    let header = told.header("x-cco-loss").unwrap_or_default();
    assert_eq!(header, format!("metadata.nobody_knows_it, {}", paths.join(", ")));
    let losses = recorded(&gateway, told.id()).await;
    assert!(losses.len() == 3 && losses[0].starts_with("metadata.nobody_knows_it: "), "{losses:?}");
    assert_eq!(losses[1..], lines(paths));
    // A client of the provider's own protocol gets every byte, and nothing is lost.
    let straight = Client::Chat.ask(&gateway, &Client::Chat.body("draw", false)).await;
    assert!(straight.header("x-cco-loss").is_none() && straight.text().contains("url_citation"));
    assert!(recorded(&gateway, straight.id()).await.is_empty());
}

#[tokio::test]
async fn a_stream_is_named_in_record_and_log_for_its_head_was_sent_before() {
    let chunk = answer("delta");
    let stream = format!("data: {chunk}\n\ndata: {chunk}\n\ndata: [DONE]\n\n");
    let gateway = before(saying("text/event-stream", stream), json!({})).await;
    for client in [Client::Anthropic, Client::Responses] {
        let told = client.ask(&gateway, &client.body("draw", true)).await;
        assert_eq!((told.status, told.header("x-cco-loss")), (200, None), "{}", told.text());
        let mut losses = recorded(&gateway, told.id()).await;
        // That the client was told of an estimate is another thing.
        losses.retain(|loss| !loss.starts_with("usage."));
        let left_out = lines(["choices[].delta.annotations", "choices[].delta.images"]);
        assert_eq!(losses, left_out);
        let line = gateway.log_line(&["not carried of the answer", told.id()]).await;
        assert!(line.to_string().contains("choices[].delta.annotations, choices[].delta.images"), "{line}");
    }
}

#[tokio::test]
async fn an_answer_is_given_and_named_also_where_requests_may_lose_nothing() {
    let upstream = saying("application/json", answer("message").to_string());
    let gateway = before(upstream, json!({ "translation": { "onLoss": "refuse" } })).await;
    let told = Client::Anthropic.ask(&gateway, &Client::Anthropic.body("draw", false)).await;
    let paths = "choices[].message.annotations, choices[].message.images";
    assert_eq!((told.status, told.header("x-cco-loss")), (200, Some(paths)), "{}", told.text());
    assert!(told.text().contains("hello"));
}
