//! Streams that are unlike the usual: huge events, other line ends, packed answers.

use std::io::Read;
use std::path::Path;

use serde_json::json;
use sim::SimConfig;

use crate::common::{Answer, Client, Ended, Gateway, Upstream, contains, soon, streamed, upstream, upstream_with};

/// A stream whose one delta holds this much text, of characters of every length.
fn stream_with(length: usize, line_end: &str) -> Vec<u8> {
    let text: String = "aé漢🦀 "
        .chars()
        .cycle()
        .scan(0, |size, c| {
            *size += c.len_utf8();
            (*size <= length).then_some(c)
        })
        .collect();
    let start = json!({"type": "message_start", "message": {
        "id": "msg_big", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": {"input_tokens": 3, "output_tokens": 1},
    }});
    let events = [
        start,
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ];
    let lines = events
        .iter()
        .map(|event| format!("event: {}{line_end}data: {event}{line_end}{line_end}", event["type"].as_str().unwrap()));
    lines.collect::<String>().into_bytes()
}

/// A simulator that replays what is in this folder.
async fn replaying(folder: &Path) -> Upstream {
    upstream_with(SimConfig { transcripts: Some(folder.to_owned()), ..SimConfig::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_any_size_pass_byte_equal() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = replaying(folder.path()).await;
    let gateway = Gateway::start(&upstream, json!({ "audit": { "logResponseBodies": false } })).await;
    let mut client = gateway.client().await;
    for (size, line_end) in [
        (64 << 10, "\n"),
        (255 << 10, "\n"),
        (256 << 10, "\r\n"),
        (300 << 10, "\n"),
        (300 << 10, "\r\n"),
        (300 << 10, "\r"),
        (1 << 20, "\n"),
        (1 << 20, "\r\n"),
        (30 << 20, "\n"),
    ] {
        let stream = stream_with(size, line_end);
        std::fs::write(folder.path().join("big.sse"), &stream).unwrap();
        let hows =
            if size > 1 << 20 { &["chunk=65536"][..] } else { &["", "chunk=4093", "chunk=16384", "chunk=262144"] };
        for how in hows {
            let answer = client.ask(streamed(&format!("raw=big.sse {how}"))).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{size} {line_end:?} {how}");
            assert!(answer.body == stream, "{size} {line_end:?} {how}: {} of {}", answer.body.len(), stream.len());
            let line = gateway.log_line(&[answer.id()]).await;
            assert_eq!(line["outcome"], "success", "{line}");
        }
    }
    // 30 MB that came faster than they were read were never all in the gateway at a time. (The archive takes a copy,
    // within a bound of its own: here there is none.)
    assert!(gateway.peak_memory() < 64 << 20, "{} KiB", gateway.peak_memory() >> 10);
}

#[tokio::test]
async fn a_huge_event_that_is_cut_is_aborted_and_never_ended_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = replaying(folder.path()).await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let stream = stream_with(600 << 10, "\n");
    std::fs::write(folder.path().join("big.sse"), &stream).unwrap();
    for (at, passes) in [(200 << 10, false), (500 << 10, true)] {
        let answer = gateway.ask(streamed(&format!("raw=big.sse chunk=10000 fault=cut={at}"))).await;
        if passes {
            assert_ne!(answer.ended, Ended::Whole, "an event of which a part is out cannot be mended");
            assert!(answer.body.len() > 256 << 10 && stream.starts_with(&answer.body));
        } else {
            let border = stream.windows(2).enumerate().filter(|(_, two)| two == b"\n\n").nth(1).unwrap().0 + 2;
            assert_eq!((answer.ended, &answer.body[..border]), (Ended::Whole, &stream[..border]));
            crate::common::error_event(&answer.body[border..], answer.id());
        }
        assert!(gateway.log_line(&[answer.id()]).await["outcome"].as_str().unwrap().starts_with("truncated"));
    }
}

#[tokio::test]
async fn line_ends_and_pings_of_the_upstream_stay_as_they_are() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for script in
        ["crlf text=\"aé漢🦀 and so on\" chunk=1", "pings thinking=hm text=\"one two\" crlf", "pings tool=Bash"]
    {
        let request = streamed(script);
        let direct = Client::connect(upstream.addr).await.ask(&request).await;
        let relayed = gateway.ask(&request).await;
        assert_eq!((relayed.ended, relayed.text()), (Ended::Whole, direct.text()), "{script}");
    }
}

#[tokio::test]
async fn a_comment_or_a_byte_order_mark_is_as_sacred_as_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = replaying(folder.path()).await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut odd = b"\xef\xbb\xbf: hello\n\n\n\n: two\nretry: 10\nid: 7\n\n".to_vec();
    odd.extend_from_slice(&stream_with(20, "\n"));
    odd.extend_from_slice(b"\n: behind the end\n\n");
    std::fs::write(folder.path().join("odd.sse"), &odd).unwrap();
    let mut client = gateway.client().await;
    for size in 1..80 {
        let answer = client.ask(streamed(&format!("raw=odd.sse chunk={size}"))).await;
        assert_eq!(answer.ended, Ended::Whole);
        assert_eq!(answer.text(), String::from_utf8_lossy(&odd), "in pieces of {size}");
    }
}

const CODINGS: [&str; 4] = ["gzip", "deflate", "zstd", "br"];

fn unpacked(coding: &str, packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match coding {
        "gzip" => flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut plain),
        "deflate" => flate2::read::ZlibDecoder::new(packed).read_to_end(&mut plain),
        "zstd" => zstd::stream::read::Decoder::new(packed).and_then(|mut decoder| decoder.read_to_end(&mut plain)),
        "br" => brotli_decompressor::Decompressor::new(packed, 4096).read_to_end(&mut plain),
        other => panic!("{other}"),
    }
    .unwrap();
    plain
}

/// Asks for the same directly and through the gateway.
async fn both(upstream: &Upstream, gateway: &Gateway, request: &[u8]) -> (Answer, Answer) {
    let mut direct = Client::connect(upstream.addr).await;
    let mut relayed = gateway.client().await;
    let both = async { tokio::join!(direct.ask(request), relayed.ask(request)) };
    soon(both).await
}

#[tokio::test]
async fn packed_streams_pass_as_they_came_and_nothing_is_put_into_them() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "pingSecs": 0.05 } })).await;
    let text = "text=\"one two three\" every=120";
    let plain = gateway.ask(streamed(text)).await;
    assert!(
        plain.text().matches("event: ping").count() > 3,
        "where nothing is packed there are pings: {}",
        plain.text()
    );
    for coding in CODINGS {
        let (direct, relayed) = both(&upstream, &gateway, &streamed(&format!("{text} fault={coding}"))).await;
        assert_eq!((direct.ended, relayed.ended), (Ended::Whole, Ended::Whole), "{coding}");
        assert!(relayed.body == direct.body, "{coding}: {:?} {:?}", direct.body, relayed.body);
        assert_eq!(relayed.header("content-encoding"), Some(coding));
        assert_eq!(relayed.header("cache-control"), Some("no-cache"));
        let events = String::from_utf8(unpacked(coding, &relayed.body)).unwrap();
        assert!(events.ends_with("data: {\"type\":\"message_stop\"}\n\n"), "{coding}: {events}");
        assert_eq!(gateway.log_line(&[relayed.id()]).await["outcome"], "success", "{coding}: its end was seen");
        assert_eq!(upstream.last().header("accept-encoding"), Some("identity"), "nobody asked for it");
    }
}

#[tokio::test]
async fn a_packed_stream_that_breaks_off_is_aborted() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for coding in CODINGS {
        for broken in ["fault=cut=300", "fault=reset=300", "fault=truncate=4"] {
            let (direct, relayed) =
                both(&upstream, &gateway, &streamed(&format!("text=\"one two three\" fault={coding} {broken}"))).await;
            assert_eq!(relayed.status, 200);
            assert!(relayed.body == direct.body, "{coding} {broken}: what came passes");
            assert_ne!(relayed.ended, Ended::Whole, "{coding} {broken}: a clean end would be a lie");
            assert!(!contains(&relayed.body, b"event: error"), "{coding} {broken}");
            let line = gateway.log_line(&[relayed.id()]).await;
            assert!(line["outcome"].as_str().unwrap().starts_with("truncated"), "{coding} {broken}: {line}");
        }
    }
}

#[tokio::test]
async fn a_packed_whole_answer_passes_as_it_came() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for coding in CODINGS {
        let request = crate::common::whole(&format!("text=packed fault={coding}"));
        let (direct, relayed) = both(&upstream, &gateway, &request).await;
        assert!(relayed.ended == Ended::Whole && relayed.body == direct.body, "{coding}");
        assert_eq!(relayed.header("content-encoding"), Some(coding));
        assert_eq!(relayed.header("content-length"), direct.header("content-length"));
        assert!(contains(&unpacked(coding, &relayed.body), b"packed"));
    }
}
