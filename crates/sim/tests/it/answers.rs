//! Answers of the API: messages in both forms, what the markers choose, and the other paths.

use serde_json::json;
use sim::{FAULTS, HELP, SimConfig};

use crate::client::{Ended, body, get, request, start, streamed, whole};

#[tokio::test]
async fn an_unmarked_prompt_gets_a_friendly_text_that_quotes_nothing() {
    let server = start(SimConfig::default()).await;
    let response = server.ask(&streamed("my secret is 4711")).await;
    assert_eq!((response.status, response.ended), (200, Ended::Whole));
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(response.header("request-id").unwrap().starts_with("req_sim_"));
    assert!(response.header("anthropic-organization-id").is_some());
    assert!(response.header("anthropic-ratelimit-requests-remaining").is_some());
    let message = response.message();
    assert_eq!((&message["stop_reason"], &message["model"]), (&json!("end_turn"), &json!("claude-opus-5-5")));
    let text = message["content"][0]["text"].as_str().unwrap();
    assert!(text.len() > 100 && !text.contains("4711"), "{text}");
    assert!(response.events().len() > 20, "it comes in many events");
}

#[tokio::test]
async fn both_forms_of_an_answer_say_the_same() {
    let server = start(SimConfig::default()).await;
    let marker = r#"[[sim thinking="one, two" redacted text="Grüße 🚀\n" tool=Read input={"file_path": "/tmp/ä", "n": 1.0}
        tool=Bash input={"command":"ls"} tool=Now cache_read=7 cache_5m=5 cache_1h=3 input_tokens=11]]"#;
    let streamed = server.ask(&streamed(marker)).await.message();
    let mut whole = server.ask(&whole(marker)).await.json();
    // The two bodies differ, and the ids come from the body.
    whole["id"] = streamed["id"].clone();
    for block in [3, 4, 5] {
        whole["content"][block]["id"] = streamed["content"][block]["id"].clone();
    }
    whole["content"][1]["data"] = streamed["content"][1]["data"].clone();
    assert_eq!(streamed, whole);
    assert_eq!(streamed["content"].as_array().unwrap().len(), 6);
    assert_eq!(streamed["content"][2]["text"], "Grüße 🚀\n");
    assert_eq!(streamed["content"][3]["input"], json!({"file_path": "/tmp/ä", "n": 1.0}));
    assert_eq!(streamed["content"][5]["input"], json!({}));
    assert_eq!(streamed["stop_reason"], "tool_use");
    let usage = &streamed["usage"];
    assert_eq!(usage["cache_creation"], json!({"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 3}));
    assert_eq!((&usage["cache_creation_input_tokens"], &usage["cache_read_input_tokens"]), (&json!(8), &json!(7)));
    assert_eq!((&usage["input_tokens"], &usage["output_tokens_details"]["thinking_tokens"]), (&json!(11), &json!(2)));
}

#[tokio::test]
async fn equal_requests_get_equal_bodies() {
    let server = start(SimConfig::default()).await;
    let first = server.ask(&streamed("[[sim text=a tool=Read]]")).await;
    let second = server.ask(&streamed("[[sim text=a tool=Read]]")).await;
    assert_eq!(first.body, second.body);
    assert_ne!(first.header("request-id"), second.header("request-id"));
    let other = server.ask(&streamed("[[sim text=a tool=Read ]]")).await;
    assert_ne!(first.body, other.body);
}

#[tokio::test]
async fn a_script_chooses_the_stop_reason_and_the_status_and_adds_headers() {
    let server = start(SimConfig::default()).await;
    for reason in ["max_tokens", "pause_turn", "stop_sequence", "refusal"] {
        let message = server.ask(&streamed(&format!("[[sim text=x stop={reason}]]"))).await.message();
        assert_eq!(message["stop_reason"], reason);
        assert_eq!(message["stop_details"]["type"] == "refusal", reason == "refusal");
        assert_eq!(message["stop_sequence"].is_string(), reason == "stop_sequence");
    }
    assert_eq!(server.ask(&streamed("[[sim stop=refusal]]")).await.message()["content"], json!([]));
    let response = server.ask(&whole(r#"[[sim text=x status=202 header="x-more: one two"]]"#)).await;
    assert_eq!((response.status, response.header("x-more")), (202, Some("one two")));
    let usage = server.ask(&whole("[[sim text=x output_tokens=99 thinking_tokens=50]]")).await.json()["usage"].clone();
    assert_eq!((&usage["output_tokens"], &usage["output_tokens_details"]["thinking_tokens"]), (&json!(99), &json!(50)));
}

#[tokio::test]
async fn the_shape_of_a_stream_follows_the_marker() {
    let server = start(SimConfig::default()).await;
    let deltas = |response: &crate::client::Response| {
        let events = response.events().into_iter().filter(|(name, _)| name == "content_block_delta");
        events.map(|(_, data)| data["delta"]["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let response = server.ask(&streamed("[[sim events=3 size=1000 fill=é]]")).await;
    assert_eq!(deltas(&response).iter().map(String::len).collect::<Vec<_>>(), [1000; 3]);
    let response = server.ask(&streamed("[[sim text=abcdefg size=3]]")).await;
    assert_eq!(deltas(&response), ["abc", "def", "g"]);

    let plain = server.ask(&streamed("[[sim text=\"a b\"]] ")).await;
    assert_eq!(plain.names().iter().filter(|name| *name == "ping").count(), 1);
    let crlf = server.ask(&streamed("[[sim text=\"a b\" crlf]]")).await;
    assert!(!crlf.text().replace("\r\n", "").contains('\n'), "every line ends with both");
    assert_eq!(crlf.names(), plain.names());
    let pings = server.ask(&streamed("[[sim text=\"a b\" pings]]")).await.names();
    assert!(pings.iter().skip(1).step_by(2).all(|name| name == "ping") && pings.len() == 13, "{pings:?}");

    let pieces = server.ask(&streamed("[[sim text=\"a b\" chunk=10]]")).await;
    let (last, full) = pieces.chunks.split_last().unwrap();
    assert!(full.iter().all(|chunk| chunk.len() == 10) && last.len() <= 10);
    let cut = server.ask(&streamed("[[sim text=\"a b\" cuts=[1,700,3]]]")).await;
    assert_eq!(cut.chunks.iter().map(Vec::len).take(3).collect::<Vec<_>>(), [1, 2, 697]);
    assert_eq!(cut.chunks.len(), 4);
}

#[tokio::test]
async fn a_transcript_is_replayed_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = b"event: x\r\ndata: {\"type\":\"x\",\"text\":\"\xf0\x9f\x9a\x80\"}\n\n: half".as_slice();
    std::fs::write(folder.path().join("one.sse"), bytes).unwrap();
    std::fs::write(folder.path().join("two.json"), b"{}").unwrap();
    let server = start(SimConfig { transcripts: Some(folder.path().into()), ..SimConfig::default() }).await;
    for marker in ["[[sim raw=one.sse]]", "[[sim raw=one.sse chunk=1]]", "[[sim raw=one.sse cuts=[3,39]]]"] {
        let response = server.ask(&streamed(marker)).await;
        assert_eq!(response.body, bytes, "{marker}");
        assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    }
    let response = server.ask(&streamed("[[sim raw=two.json status=529]]")).await;
    assert_eq!(
        (response.status, response.header("content-type"), response.text()),
        (529, Some("application/json"), "{}")
    );
    for wrong in ["../one.sse", "none.sse", ".hidden", "a/b"] {
        assert!(matches!(server.ask(&streamed(&format!("[[sim raw={wrong}]]"))).await.status, 400 | 404), "{wrong}");
    }
    let server = start(SimConfig::default()).await;
    assert_eq!(server.ask(&streamed("[[sim raw=one.sse]]")).await.status, 400);
}

#[tokio::test]
async fn every_transcript_of_the_repository_is_replayed_as_it_is() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/testdata/transcripts");
    let server = start(SimConfig { transcripts: Some(folder.clone()), ..SimConfig::default() }).await;
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        if !name.ends_with(".sse") {
            continue;
        }
        let response = server.ask(&streamed(&format!("[[sim raw={name} chunk=7]]"))).await;
        assert_eq!(response.body, std::fs::read(entry.unwrap().path()).unwrap(), "{name}");
        count += 1;
    }
    assert!(count >= 10);
}

#[tokio::test]
async fn tokens_are_counted_the_same_everywhere_and_are_never_none() {
    let server = start(SimConfig::default()).await;
    let count = |body: String| request("POST", "/v1/messages/count_tokens?beta=true", "", &body);
    let plain = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]}).to_string();
    assert!(server.ask(&count(plain)).await.json()["input_tokens"].as_u64().unwrap() > 0);
    let long = body(&"word ".repeat(1000), false);
    let counted = server.ask(&count(long.clone())).await.json()["input_tokens"].as_u64().unwrap();
    assert!((1000..2000).contains(&counted));
    let said = server.ask(&request("POST", "/v1/messages", "", &long)).await.json()["usage"]["input_tokens"].as_u64();
    assert_eq!(said, Some(counted));
}

#[tokio::test]
async fn models_are_listed_page_by_page_and_found_by_id() {
    let server = start(SimConfig::default()).await;
    let all = server.ask(&get("/v1/models?limit=1000")).await.json();
    let ids: Vec<&str> = all["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    for id in ["claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"] {
        assert!(ids.contains(&id));
    }
    assert_eq!((&all["has_more"], &all["first_id"]), (&json!(false), &json!(ids[0])));
    assert!(all["data"][0]["display_name"].is_string() && all["data"][0]["type"] == "model");
    let page = server.ask(&get(&format!("/v1/models?limit=2&after_id={}", ids[1]))).await.json();
    assert_eq!(
        (&page["first_id"], &page["last_id"], &page["has_more"]),
        (&json!(ids[2]), &json!(ids[3]), &json!(true))
    );
    let page = server.ask(&get(&format!("/v1/models?before_id={}", ids[1]))).await.json();
    assert_eq!((&page["last_id"], &page["has_more"]), (&json!(ids[0]), &json!(false)));
    assert_eq!(server.ask(&get("/v1/models/claude-opus-5-5")).await.json()["display_name"], "Claude Opus 5.5");
    assert_eq!(server.ask(&get("/v1/models/none")).await.json()["error"]["type"], "not_found_error");
    assert_eq!(server.ask(&get("/v1/models?limit=0")).await.status, 400);
}

#[tokio::test]
async fn a_batch_moves_on_when_it_is_read_and_gives_a_line_for_each_request() {
    let server = start(SimConfig::default()).await;
    let params =
        |prompt: &str| json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": prompt}]});
    let requests = json!({"requests": [
        {"custom_id": "a", "params": params("[[sim text=one]]")},
        {"custom_id": "b", "params": params("[[sim fault=529]]")},
        {"custom_id": "c", "params": {"model": "m"}},
    ]});
    let create = request("POST", "/v1/messages/batches", "", &requests.to_string());
    let batch = server.ask(&create).await.json();
    let id = batch["id"].as_str().unwrap().to_owned();
    assert_eq!((&batch["processing_status"], &batch["results_url"]), (&json!("in_progress"), &json!(null)));
    assert_eq!(server.ask(&get(&format!("/v1/messages/batches/{id}/results"))).await.status, 404);

    let batch = server.ask(&get(&format!("/v1/messages/batches/{id}"))).await.json();
    assert_eq!(batch["processing_status"], "ended");
    assert_eq!((&batch["request_counts"]["succeeded"], &batch["request_counts"]["errored"]), (&json!(1), &json!(2)));
    let url = format!("http://sim.test/v1/messages/batches/{id}/results");
    assert_eq!(batch["results_url"], url);
    let results = server.ask(&get(url.strip_prefix("http://sim.test").unwrap())).await;
    assert_eq!(results.header("content-type"), Some("application/x-jsonl"));
    let lines: Vec<serde_json::Value> =
        results.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["custom_id"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(lines[0]["result"]["message"]["content"][0]["text"], "one");
    assert_eq!(lines[1]["result"]["error"]["error"]["type"], "overloaded_error");
    assert_eq!(lines[2]["result"]["type"], "errored");

    let other = server.ask(&create).await.json()["id"].as_str().unwrap().to_owned();
    let delete = request("DELETE", &format!("/v1/messages/batches/{other}"), "", "");
    assert_eq!(server.ask(&delete).await.status, 400);
    let cancel = request("POST", &format!("/v1/messages/batches/{other}/cancel"), "", "");
    assert_eq!(server.ask(&cancel).await.json()["processing_status"], "canceling");
    let batch = server.ask(&get(&format!("/v1/messages/batches/{other}"))).await.json();
    assert_eq!((&batch["processing_status"], &batch["request_counts"]["canceled"]), (&json!("ended"), &json!(3)));
    let results = server.ask(&get(&format!("/v1/messages/batches/{other}/results"))).await;
    assert_eq!(results.text().lines().next(), Some(r#"{"custom_id":"a","result":{"type":"canceled"}}"#));
    let list = server.ask(&get("/v1/messages/batches?limit=1")).await.json();
    assert_eq!((&list["first_id"], &list["has_more"]), (&json!(other), &json!(true)));
    assert_eq!(server.ask(&delete).await.json()["type"], "message_batch_deleted");
    assert_eq!(server.ask(&delete).await.status, 404);
    for wrong in ["{}", r#"{"requests":[]}"#, r#"{"requests":[{"custom_id":"a"},{"custom_id":"a"}]}"#] {
        assert_eq!(server.ask(&request("POST", "/v1/messages/batches", "", wrong)).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_file_comes_back_as_it_was_uploaded() {
    let server = start(SimConfig::default()).await;
    let form = "--xyz\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: image/png\r\n\r\n\
        line\r\n--xy\r\n\r\n--xyz--\r\n";
    // In chunks, cut anywhere: as a client does that streams a file.
    let (one, two) = form.split_at(100);
    let upload = format!(
        "POST /v1/files HTTP/1.1\r\nHost: h\r\nanthropic-version: 2023-06-01\r\ncontent-type: multipart/form-data; boundary=xyz\r\n\
         transfer-encoding: chunked\r\n\r\n{:x};ext=1\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\nx-trailer: 1\r\n\r\n",
        one.len(),
        two.len()
    );
    let file = server.ask(&upload).await.json();
    let id = file["id"].as_str().unwrap().to_owned();
    assert_eq!(
        (&file["filename"], &file["mime_type"], &file["size_bytes"]),
        (&json!("a.bin"), &json!("image/png"), &json!(12))
    );
    let content = server.ask(&get(&format!("/v1/files/{id}/content"))).await;
    assert_eq!((content.text(), content.header("content-type")), ("line\r\n--xy\r\n", Some("image/png")));
    assert_eq!(server.ask(&get(&format!("/v1/files/{id}"))).await.json(), file);
    assert_eq!(server.ask(&get("/v1/files")).await.json()["data"], json!([file]));
    let delete = request("DELETE", &format!("/v1/files/{id}"), "", "");
    assert_eq!(server.ask(&delete).await.json(), json!({"id": id, "type": "file_deleted"}));
    assert_eq!(server.ask(&get(&format!("/v1/files/{id}/content"))).await.status, 404);
    assert_eq!(server.ask(&request("POST", "/v1/files", "content-type: text/plain\r\n", "x")).await.status, 400);
}

#[tokio::test]
async fn warm_ups_are_answered_and_other_paths_are_not_found() {
    let server = start(SimConfig::default()).await;
    for target in ["/", "/api/hello"] {
        let mut client = server.client().await;
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let response = client.response(true).await.unwrap();
        assert_eq!(response.status, 200);
        // No body follows the head: the next answer starts right behind it.
        assert_eq!(client.ask(&get("/v1/models")).await.status, 200);
    }
    for (method, target, status) in
        [("GET", "/v1/none", 404), ("GET", "/none", 404), ("GET", "/v1/messages", 405), ("PUT", "/v1/models", 405)]
    {
        let response = server.ask(&request(method, target, "", "")).await;
        assert_eq!((response.status, &response.json()["type"]), (status, &json!("error")), "{method} {target}");
    }
}

#[tokio::test]
async fn a_request_is_judged_as_the_provider_would() {
    let keys = SimConfig { keys: vec!["k1".into()], known_models_only: true, ..SimConfig::default() };
    let server = start(keys).await;
    let check = async |more: &str, body: &str, status: u16, kind: &str| {
        let response = server.ask(&request("POST", "/v1/messages", more, body)).await;
        assert_eq!((response.status, &response.json()["error"]["type"]), (status, &json!(kind)), "{more}{body}");
    };
    let good = body("hi", false);
    check("", &good, 401, "authentication_error").await;
    check("x-api-key: k2\r\n", &good, 401, "authentication_error").await;
    check("x-api-key: k1\r\n", "{", 400, "invalid_request_error").await;
    check("Authorization: Bearer k1\r\n", &good.replace("claude-opus-5-5", "gpt"), 404, "not_found_error").await;
    check("Authorization: Bearer k1\r\n", &body("[[sim colour=red]]", false), 400, "invalid_request_error").await;
    assert_eq!(server.ask(&request("POST", "/v1/messages", "authorization: bearer k1\r\n", &good)).await.status, 200);
    let without =
        request("POST", "/v1/messages", "x-api-key: k1\r\n", &good).replace("anthropic-version: 2023-06-01\r\n", "");
    assert!(server.ask(&without).await.json()["error"]["message"].as_str().unwrap().contains("anthropic-version"));

    let server = start(SimConfig { require_key: true, max_body: 100, ..SimConfig::default() }).await;
    assert_eq!(server.ask(&get("/v1/models")).await.status, 401);
    assert_eq!(server.ask(&request("GET", "/v1/models", "x-api-key: any\r\n", "")).await.status, 200);
    let large = server.ask(&request("POST", "/v1/messages", "x-api-key: any\r\n", &"x".repeat(101))).await;
    assert_eq!((large.status, &large.json()["error"]["type"]), (413, &json!("request_too_large")));
}

#[tokio::test]
async fn a_compressed_request_is_read_and_its_marker_obeyed() {
    let server = start(SimConfig::default()).await;
    let plain = body("[[sim text=unpacked]]", false);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, plain.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    let mut client = server.client().await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: h\r\nanthropic-version: 2023-06-01\r\nContent-Encoding: gzip\r\n";
    client.send(format!("{head}Content-Length: {}\r\n\r\n", packed.len())).await;
    client.send(&packed).await;
    assert_eq!(client.response(false).await.unwrap().json()["content"][0]["text"], "unpacked");
    assert_eq!(server.sim.requests()[0].body, packed, "the journal holds what came");
    for (coding, status) in [("compress", 400), ("gzip", 400), ("zstd", 400), ("br", 400)] {
        let more = format!("content-encoding: {coding}\r\n");
        assert_eq!(server.ask(&request("POST", "/v1/messages", &more, &plain)).await.status, status);
    }
}

#[tokio::test]
async fn connections_are_kept_and_requests_may_come_ahead_of_answers() {
    let server = start(SimConfig::default()).await;
    let mut client = server.client().await;
    client.send([streamed("[[sim text=1]]"), whole("[[sim text=2]]"), get("/v1/models/none")].concat()).await;
    assert_eq!(client.response(false).await.unwrap().message()["content"][0]["text"], "1");
    assert_eq!(client.response(false).await.unwrap().json()["content"][0]["text"], "2");
    assert_eq!(client.response(false).await.unwrap().status, 404);
    assert_eq!(server.sim.requests().iter().map(|received| received.connection).collect::<Vec<_>>(), [1, 1, 1]);
    client
        .send(
            get("/v1/models")
                .replace("Host: h", "Connection: close\r\nHost: h")
                .replace("sim.test", "sim.test\r\nConnection: close"),
        )
        .await;
    let last = client.response(false).await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(client.rest().await, (Vec::new(), Ended::Short));

    let mut client = server.client().await;
    client.send(streamed("[[sim text=old]]").replace("HTTP/1.1", "HTTP/1.0")).await;
    let old = client.response(false).await.unwrap();
    assert_eq!((old.header("transfer-encoding"), old.ended), (None, Ended::Whole));
    assert_eq!(old.message()["content"][0]["text"], "old");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let server = start(SimConfig::default()).await;
    let asking = request("POST", "/v1/messages", "Expect: 100-continue\r\n", &body("[[sim text=x]]", false));
    let (head, body) = asking.split_once("\r\n\r\n").unwrap();
    let mut client = server.client().await;
    client.send(format!("{head}\r\n\r\n")).await;
    assert_eq!(client.response(false).await.unwrap().status, 100);
    client.send(body).await;
    assert_eq!(client.response(false).await.unwrap().json()["content"][0]["text"], "x");
}

#[test]
fn the_documentation_names_every_fault() {
    for (name, ..) in FAULTS {
        assert!(HELP.contains(&format!("`{name}")), "`{name}` is not in docs/simulator.md");
    }
}
