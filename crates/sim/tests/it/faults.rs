//! Every fault of the table, as it is on the wire and as the journal tells it.

use std::collections::HashSet;

use serde_json::json;
use sim::{EndKind, FAULTS, Fault, Script, SimConfig};

use crate::client::{Ended, Response, Server, body, get, request, soon, start, streamed, whole};

/// What a stream with this text is without a fault.
const TEXT: &str = "text=\"one two three four\"";

async fn with(server: &Server, fault: &str) -> Response {
    server.ask(&streamed(&format!("[[sim {TEXT} fault={fault}]]"))).await
}

async fn ended_by(server: &Server) -> EndKind {
    server.last_ended().await.end.unwrap().kind
}

fn fault(name: &str) -> EndKind {
    EndKind::Fault(name.to_owned())
}

/// The faults that a test of this file names. The last test reads it.
const TESTED: &str = include_str!("faults.rs");

#[tokio::test]
async fn a_status_is_an_error_in_the_shape_of_the_provider() {
    let server = start(SimConfig::default()).await;
    for (name, kind) in [
        ("400", "invalid_request_error"),
        ("401", "authentication_error"),
        ("402", "billing_error"),
        ("403", "permission_error"),
        ("404", "not_found_error"),
        ("408", "timeout_error"),
        ("409", "conflict_error"),
        ("413", "request_too_large"),
        ("429", "rate_limit_error"),
        ("500", "api_error"),
        ("502", "api_error"),
        ("503", "api_error"),
        ("504", "timeout_error"),
        ("529", "overloaded_error"),
    ] {
        let response = with(&server, name).await;
        assert_eq!((response.status.to_string().as_str(), response.ended), (name, Ended::Whole));
        let error = response.json();
        assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!(kind)));
        assert_eq!(error["request_id"], response.header("request-id").unwrap());
        assert_eq!(response.header("retry-after"), (name == "429").then_some("1"));
        assert_eq!(ended_by(&server).await, EndKind::Complete);
    }
    assert_eq!(with(&server, "429=30").await.header("retry-after"), Some("30"));
    assert_eq!(with(&server, "529=2").await.header("retry-after"), Some("2"));
    let html = with(&server, "502-html").await;
    assert_eq!((html.status, html.header("content-type")), (502, Some("text/html")));
    assert!(html.text().starts_with("<html>"));
}

#[tokio::test]
async fn an_error_comes_first_or_in_the_middle_of_a_stream() {
    let server = start(SimConfig::default()).await;
    let first = with(&server, "error-first").await;
    assert_eq!((first.status, first.names()), (200, vec!["error".to_owned()]));
    assert_eq!(first.events()[0].1["error"]["type"], "overloaded_error");
    assert_eq!(with(&server, "error-first=api_error").await.events()[0].1["error"]["type"], "api_error");

    let middle = with(&server, "error-mid").await;
    let names = middle.names();
    assert_eq!((names.first().unwrap().as_str(), names.last().unwrap().as_str()), ("message_start", "error"));
    assert!(names.contains(&"content_block_delta".to_owned()) && !names.contains(&"message_delta".to_owned()));
    assert_eq!(middle.ended, Ended::Whole);
    assert_eq!(with(&server, "error-mid=2").await.names(), ["message_start", "content_block_start", "error"]);
    assert_eq!(
        with(&server, "error-mid=rate_limit_error").await.events().last().unwrap().1["error"]["type"],
        "rate_limit_error"
    );
    // Without a stream there is no middle: the error is the answer.
    for name in ["error-first", "error-mid"] {
        assert_eq!(server.ask(&whole(&format!("[[sim text=a fault={name}]]"))).await.status, 529);
    }
}

#[tokio::test]
async fn a_truncated_stream_ends_well_and_says_too_little() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "truncate").await;
    assert_eq!(response.ended, Ended::Whole);
    let names = response.names();
    assert!(names.len() > 2 && !names.contains(&"message_stop".to_owned()));
    assert_eq!(with(&server, "truncate=1").await.names(), ["message_start"]);
    assert_eq!(with(&server, "truncate=1000").await.names().last().unwrap(), "message_delta");
    let half = server.ask(&whole("[[sim text=a fault=truncate]]")).await;
    assert_eq!((half.status, half.ended), (200, Ended::Whole));
    assert!(serde_json::from_slice::<serde_json::Value>(&half.body).is_err());
}

#[tokio::test]
async fn a_body_can_be_cut_behind_every_byte() {
    let server = start(SimConfig::default()).await;
    let length = with(&server, "drip=0").await.body.len();
    for at in (0..length).step_by(97).chain([1, length - 1, length]) {
        let name = format!("cut={at}");
        let response = with(&server, &name).await;
        assert_eq!((response.status, response.body.len(), response.ended), (200, at, Ended::Short), "{name}");
        assert_eq!(ended_by(&server).await, fault(&name));
    }
    let response = with(&server, "cut=3ev").await;
    assert_eq!((response.names().len(), response.ended), (3, Ended::Short));
    let response = server.ask(&whole("[[sim text=abc fault=cut=20]]")).await;
    assert_eq!((response.body.len(), response.ended), (20, Ended::Short));
}

#[tokio::test]
async fn a_reset_is_a_reset_and_what_was_sent_before_it_arrives() {
    let server = start(SimConfig::default()).await;
    for (name, length) in [("reset=0", Some(0)), ("reset=500", Some(500)), ("reset", None)] {
        let response = with(&server, name).await;
        assert_eq!((response.status, response.ended), (200, Ended::Reset), "{name}");
        match length {
            Some(length) => assert_eq!(response.body.len(), length),
            None => assert_eq!(response.names().len(), 4),
        }
        assert_eq!(ended_by(&server).await, fault(name));
    }
}

#[tokio::test]
async fn a_stalled_answer_is_silent_until_the_client_goes() {
    let server = start(SimConfig::default()).await;
    for (at, name) in ["stall=0", "stall=300", "stall", "no-bytes"].into_iter().enumerate() {
        let mut client = server.client().await;
        client.send(streamed(&format!("[[sim {TEXT} fault={name}]]"))).await;
        let expected = match name {
            "no-bytes" => "",
            "stall=0" => "\r\n\r\n",
            "stall" => "content_block_delta",
            _ => "message_start",
        };
        assert!(client.read_until(|input| String::from_utf8_lossy(input).contains(expected)).await);
        soon(server.sim.wait_for(|all| all.len() == at + 1)).await;
        assert_eq!(server.sim.connections_open(), 1, "{name}");
        drop(client);
        let received = server.last_ended().await;
        assert!(received.client_gone(), "{name}");
        let end = received.end.unwrap();
        assert_eq!(end.faults, [name]);
        assert_eq!((end.sent_bytes == 0, end.status.is_none()), (name == "no-bytes", name == "no-bytes"));
        soon(server.sim.wait_for_connections(|open| open == 0)).await;
    }
}

#[tokio::test]
async fn a_connection_is_closed_or_full_of_garbage_instead_of_a_head() {
    let server = start(SimConfig::default()).await;
    for (name, length) in [("close-before-head", 0), ("garbage", 4096)] {
        let mut client = server.client().await;
        client.send(streamed(&format!("[[sim fault={name}]]"))).await;
        let (bytes, ended) = client.rest().await;
        assert_eq!((bytes.len(), ended), (length, Ended::Short), "{name}");
        assert!(!bytes.starts_with(b"HTTP"));
        assert_eq!(ended_by(&server).await, fault(name));
    }
}

#[tokio::test]
async fn endless_answers_go_on_until_the_client_goes() {
    let server = start(SimConfig::default()).await;
    for (name, expected) in [("endless", "and so on"), ("long-line", "xxxx"), ("bomb=100000", "gzip")] {
        let mut client = server.client().await;
        client.send(streamed(&format!("[[sim text=a fault={name}]]"))).await;
        assert!(client.read_until(|input| input.len() > 1 << 20).await, "{name}");
        let start = String::from_utf8_lossy(&client.unread()[..4096]).into_owned();
        assert!(start.contains(expected), "{name}: {start}");
        drop(client);
        assert!(server.last_ended().await.client_gone(), "{name}");
    }
    // Also where no stream was asked for.
    let mut client = server.client().await;
    client.send(request("GET", "/v1/models", "x-sim-fault: endless\r\n", "")).await;
    assert!(client.read_until(|input| input.len() > 1 << 20).await);
}

#[tokio::test]
async fn a_drip_delivers_the_same_answer_byte_by_byte() {
    let server = start(SimConfig::default()).await;
    let response = server.ask(&streamed("[[sim text=x fault=drip=0]]")).await;
    assert!(response.chunks.iter().all(|chunk| chunk.len() == 1));
    assert_eq!(response.message()["content"][0]["text"], "x");
    let response = server.ask(&streamed("[[sim text=x fault=drip-head=0]]")).await;
    assert_eq!(response.message()["content"][0]["text"], "x");
    let response = server.ask(&streamed("[[sim text=x fault=delay-head=1]]")).await;
    assert_eq!(response.message()["content"][0]["text"], "x");
}

#[tokio::test]
async fn a_header_bomb_has_as_many_lines_as_it_was_told() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "header-bomb=5000").await;
    let lines = response.headers.iter().filter(|(name, _)| name.starts_with("x-bomb-")).count();
    assert_eq!((lines, response.ended), (5000, Ended::Whole));
    let default: Fault = "header-bomb".parse().unwrap();
    assert_eq!(default.to_string(), "header-bomb");
}

#[tokio::test]
async fn a_surplus_is_a_second_answer_on_a_connection_that_stays() {
    let server = start(SimConfig::default()).await;
    for request in [streamed("[[sim text=a fault=surplus]]"), whole("[[sim text=a fault=surplus]]")] {
        let mut client = server.client().await;
        assert_eq!(client.ask(&request).await.ended, Ended::Whole);
        let poison = client.ask(&get("/v1/models")).await;
        assert_eq!(poison.json(), json!({"surplus": true}), "who keeps the connection reads somebody else's answer");
        assert!(client.response(false).await.unwrap().json()["data"].is_array());
        assert_eq!(server.sim.requests().iter().rev().nth(1).unwrap().end.as_ref().unwrap().kind, fault("surplus"));
    }
}

#[tokio::test]
async fn a_wrong_length_is_too_long_or_too_short() {
    let server = start(SimConfig::default()).await;
    let right = server.ask(&whole("[[sim text=abc input_tokens=9]]")).await.body.len();
    for (name, difference) in [("wrong-length", 7), ("wrong-length=-5", -5)] {
        let mut client = server.client().await;
        let response = client.ask(&whole(&format!("[[sim text=abc input_tokens=9 fault={name}]]"))).await;
        let said: i64 = response.header("content-length").unwrap().parse().unwrap();
        assert_eq!(said, right as i64 + difference, "{name}");
        assert_eq!(response.ended, if difference > 0 { Ended::Short } else { Ended::Whole });
        assert_eq!(client.rest().await.0.len(), usize::try_from(-difference).unwrap_or(0));
        assert_eq!(ended_by(&server).await, fault(name));
    }
    let stream = with(&server, "wrong-length=3").await;
    assert_eq!((stream.header("transfer-encoding"), stream.ended), (None, Ended::Short));
}

#[tokio::test]
async fn a_bad_chunk_follows_a_good_one() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "bad-chunk").await;
    assert_eq!((response.chunks.len(), response.ended), (1, Ended::Broken));
    assert_eq!(ended_by(&server).await, fault("bad-chunk"));
}

#[tokio::test]
async fn an_answer_is_compressed_although_nobody_asked() {
    let server = start(SimConfig::default()).await;
    let plain = |response: &Response| {
        let packed = response.body.as_slice();
        let mut plain = Vec::new();
        match response.header("content-encoding").unwrap() {
            "gzip" => std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut plain).unwrap(),
            "deflate" => std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(packed), &mut plain).unwrap(),
            other => panic!("{other}"),
        };
        String::from_utf8(plain).unwrap()
    };
    for name in ["gzip", "deflate"] {
        let response = with(&server, name).await;
        assert_eq!(response.ended, Ended::Whole);
        assert!(plain(&response).ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
        let response = server.ask(&whole(&format!("[[sim text=abc fault={name}]]"))).await;
        assert!(response.header("content-length").is_some());
        assert!(plain(&response).contains("\"abc\""));
    }
    // Stored blocks: the text is there as it is, between headers of the coding.
    for (name, start) in [("zstd", &[0x28, 0xb5, 0x2f, 0xfd][..]), ("br", &[][..])] {
        let response = with(&server, name).await;
        assert_eq!(response.header("content-encoding"), Some(name));
        assert!(response.body.starts_with(start));
        assert!(String::from_utf8_lossy(&response.body).contains("message_stop"));
    }
    // A compressed stream that breaks.
    let response = server.ask(&streamed("[[sim text=abc fault=gzip fault=cut=3ev]]")).await;
    assert_eq!((response.header("content-encoding"), response.ended), (Some("gzip"), Ended::Short));
}

#[tokio::test]
async fn a_bomb_is_small_on_the_wire() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "bomb=64").await;
    assert_eq!((response.header("content-encoding"), response.ended), (Some("gzip"), Ended::Whole));
    assert!(response.body.len() < 200_000, "{}", response.body.len());
    let mut length = 0;
    let mut unpacker = flate2::read::GzDecoder::new(response.body.as_slice());
    let mut space = vec![0; 1 << 20];
    while let n @ 1.. = std::io::Read::read(&mut unpacker, &mut space).unwrap() {
        length += n;
    }
    assert!(length > 64 << 20);
}

#[tokio::test]
async fn headers_that_are_not_for_clients_are_there_on_demand() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "redirect=http://127.0.0.1:1/elsewhere").await;
    assert_eq!((response.status, response.header("location")), (307, Some("http://127.0.0.1:1/elsewhere")));
    let response = with(&server, "set-cookie").await;
    assert_eq!(response.status, 200);
    for name in ["set-cookie", "authorization", "x-api-key", "access-control-allow-origin", "server"] {
        assert!(response.header(name).is_some(), "{name}");
    }
    assert!(with(&server, "gzip").await.header("set-cookie").is_none());
}

#[tokio::test]
async fn an_old_answer_ends_with_its_connection() {
    let server = start(SimConfig::default()).await;
    let response = with(&server, "http10").await;
    assert_eq!((response.version.as_str(), response.header("content-length")), ("HTTP/1.0", None));
    assert_eq!((response.header("transfer-encoding"), response.ended), (None, Ended::Whole));
    assert_eq!(response.message()["content"][0]["text"], "one two three four");
}

#[tokio::test]
async fn a_fault_goes_by_header_by_marker_and_by_default_on_every_path() {
    let default: Script = "fault=503".parse().unwrap();
    let server = start(SimConfig { default, default_for: Some(1), ..SimConfig::default() }).await;
    assert_eq!(server.ask("HEAD /api/hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.status, 200);
    assert_eq!(server.ask(&get("/v1/models")).await.status, 503);
    assert_eq!(server.ask(&get("/v1/models")).await.status, 200);
    for target in ["/v1/models", "/v1/files", "/v1/messages/batches"] {
        assert_eq!(server.ask(&request("GET", target, "x-sim-fault: 403\r\n", "")).await.status, 403);
    }
    let two = request("POST", "/v1/messages", "X-Sim-Fault: gzip\r\nx-sim-fault: cut=5\r\n", &body("a", true));
    let response = server.ask(&two).await;
    assert_eq!(
        (response.header("content-encoding"), response.body.len(), response.ended),
        (Some("gzip"), 5, Ended::Short)
    );
    assert_eq!(server.ask(&request("GET", "/v1/models", "x-sim-fault: nonsense\r\n", "")).await.status, 400);
}

#[test]
fn every_fault_of_the_table_is_in_a_test() {
    let words: HashSet<&str> = TESTED.split(['"', '=', ' ', ']']).collect();
    let missing: Vec<_> = FAULTS.iter().map(|(name, ..)| *name).filter(|name| !words.contains(name)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
