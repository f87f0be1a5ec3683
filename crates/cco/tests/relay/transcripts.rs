//! Recorded answers pass byte for byte, wherever the network cuts them.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::{
    Client, Ended, Gateway, Upstream, contains, error_event, soon, streamed, transcripts, upstream, whole, whole_events,
};

/// One recorded answer.
pub(crate) struct Transcript {
    pub(crate) file: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) outcome: String,
    expected: Value,
}

impl Transcript {
    pub(crate) fn read(folder: &Path, name: &str) -> Self {
        let expected = std::fs::read(folder.join(format!("{name}.expect.json"))).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let file = expected["file"].as_str().unwrap().to_owned();
        let bytes = std::fs::read(folder.join(&file)).unwrap();
        Self { file, bytes, outcome: expected["outcome"].as_str().unwrap().to_owned(), expected }
    }
}

/// The recorded streams of this protocol.
pub(crate) fn streams() -> Vec<Transcript> {
    let folder = transcripts();
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with('a'))
        .filter_map(|name| name.strip_suffix(".sse").map(str::to_owned))
        .collect();
    names.sort();
    assert!(names.len() >= 17, "the transcripts are there: {names:?}");
    names.iter().map(|name| Transcript::read(&folder, name)).collect()
}

/// Asks for a transcript, cut as `how` says, and checks what arrives.
async fn check_stream(client: &mut Client, transcript: &Transcript, how: &str) {
    let Transcript { file, bytes, outcome, .. } = transcript;
    let answer = client.ask(streamed(&format!("raw={file} {how}"))).await;
    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{file} {how}");
    let sent = match outcome.as_str() {
        "complete" | "error_event" => bytes.len(),
        "truncated" => whole_events(bytes),
        other => panic!("an outcome `{other}`"),
    };
    let (events, tail) = answer.body.split_at_checked(sent).unwrap_or((&answer.body, b""));
    assert!(events == &bytes[..sent], "{file} {how}: {:?}", String::from_utf8_lossy(&answer.body));
    if outcome == "truncated" {
        let error = error_event(tail, answer.id());
        assert_eq!(error["type"], "api_error", "{error}");
    } else {
        assert_eq!(String::from_utf8_lossy(tail), "", "{file} {how}");
    }
}

/// Every transcript on a connection of its own, all at a time.
pub(crate) async fn check_streams(gateway: &Gateway, cuts: impl Fn(&Transcript) -> Vec<String> + Copy) {
    let transcripts = streams();
    let checks = transcripts.iter().map(async |transcript| {
        let mut client = gateway.client().await;
        for how in cuts(transcript) {
            check_stream(&mut client, transcript, &how).await;
        }
    });
    let mut checks: Vec<_> = checks.map(Box::pin).collect();
    soon(std::future::poll_fn(|cx| {
        checks.retain_mut(|check| check.as_mut().poll(cx).is_pending());
        if checks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }))
    .await;
}

/// Cuts of which each byte border is in one, many of them in each answer.
pub(crate) fn every_border(transcript: &Transcript) -> Vec<String> {
    const STRIDE: usize = 41;
    let cuts = |first| (first..transcript.bytes.len()).step_by(STRIDE).map(|at| at.to_string()).collect::<Vec<_>>();
    (1..=STRIDE).map(|first| format!("cuts=[{}]", cuts(first).join(","))).collect()
}

/// The same, each in an answer of its own.
fn each_border(transcript: &Transcript) -> Vec<String> {
    (1..transcript.bytes.len()).map(|at| format!("cuts=[{at}]")).collect()
}

#[tokio::test]
async fn recorded_streams_arrive_byte_equal_when_cut_at_any_byte() {
    // Alone in its answer stands each cut of those whose borders are unlike the others'; the rest has many in each.
    const ALONE: [&str; 4] = ["a01_text", "a09_truncated", "a10_crlf", "a13_utf8_splits"];
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    check_streams(&gateway, |transcript| match ALONE.iter().any(|name| transcript.file.starts_with(name)) {
        true => each_border(transcript),
        false => every_border(transcript),
    })
    .await;
}

#[tokio::test]
async fn recorded_streams_arrive_byte_equal_in_pieces_of_any_size() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    check_streams(&gateway, |_| (1..=64).map(|size| format!("chunk={size}")).collect()).await;
}

#[tokio::test]
async fn recorded_streams_arrive_byte_equal_when_each_byte_is_a_packet_of_its_own() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    check_streams(&gateway, |_| vec!["chunk=1 gap=1".into()]).await;
}

/// Lets the upstream break off after each byte of a transcript, and checks that the client gets the whole events and
/// then, unless the last of them ends the message, one error event.
async fn check_broken_off(upstream: &Upstream, gateway: &Gateway, name: &str, fault: &str, step: usize) {
    let transcript = Transcript::read(&transcripts(), name);
    let (file, bytes) = (&transcript.file, &transcript.bytes);
    let mut client = gateway.client().await;
    for at in (0..bytes.len()).step_by(step) {
        let answer = client.ask(streamed(&format!("raw={file} fault={fault}={at}"))).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{name} {fault}={at}");
        let (events, tail) = answer.body.split_at(whole_events(&bytes[..at]));
        assert_eq!(String::from_utf8_lossy(events), String::from_utf8_lossy(&bytes[..events.len()]), "{fault}={at}");
        if contains(events, b"message_stop") || contains(events, b"event: error") {
            assert_eq!(String::from_utf8_lossy(tail), "", "{name} {fault}={at}");
        } else {
            assert_eq!(error_event(tail, answer.id())["type"], "api_error");
        }
    }
    assert_eq!(upstream.sim.requests_fallen_out(), 0, "no request was sent twice and none is missing");
    assert_eq!(upstream.sim.requests().len(), bytes.len().div_ceil(step));
}

#[tokio::test]
async fn a_stream_that_breaks_off_at_any_byte_ends_with_one_error_event() {
    for name in ["a01_text", "a08_error_midstream", "a10_crlf", "a11_multiline_data_and_comments"] {
        let upstream = upstream().await;
        let gateway = Gateway::start(&upstream, json!({})).await;
        check_broken_off(&upstream, &gateway, name, "cut", 1).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_with_one_error_event() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    check_broken_off(&upstream, &gateway, "a13_utf8_splits", "reset", 29).await;
}

#[tokio::test]
async fn a_stream_that_ends_well_formed_but_without_its_last_event_ends_with_one_error_event() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    let script = "text=\"one two three\"";
    let all = client.ask(streamed(script)).await;
    let events = all.text().matches("\n\n").count();
    assert!(events > 6, "{}", all.text());
    for kept in 0..events {
        let answer = client.ask(streamed(&format!("{script} fault=truncate={kept}"))).await;
        let sent = all.text().match_indices("\n\n").nth(kept.wrapping_sub(1)).map_or(0, |(at, _)| at + 2);
        assert_eq!(&answer.body[..sent], &all.body[..sent], "{kept} events");
        let error = error_event(&answer.body[sent..], answer.id());
        assert!(error["message"].as_str().unwrap().contains("before its last event"), "{error}");
    }
}

#[tokio::test]
async fn a_recorded_whole_answer_arrives_byte_equal() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let transcript = Transcript::read(&transcripts(), "a23_nonstream");
    let mut client = gateway.client().await;
    for at in 1..transcript.bytes.len() {
        let answer = client.ask(whole(&format!("raw={} cuts=[{at}]", transcript.file))).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("content-length"), Some(&*transcript.bytes.len().to_string()));
        assert!(answer.body == transcript.bytes, "cut at {at}: {:?}", answer.text());
    }
}

#[tokio::test]
async fn recorded_errors_keep_status_headers_and_body() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for name in [
        "e01_anthropic_400",
        "e02_anthropic_401",
        "e03_anthropic_429",
        "e04_anthropic_429_spend_limit",
        "e05_anthropic_529",
        "e06_anthropic_413",
    ] {
        let Transcript { file, bytes, expected, outcome } = Transcript::read(&transcripts(), name);
        assert_eq!(outcome, "http_error");
        let status = expected["http_status"].as_u64().unwrap();
        let fields =
            expected["headers"].as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap()));
        let script: String = fields.clone().map(|(name, value)| format!(" header=\"{name}: {value}\"")).collect();
        let script = format!("raw={file} status={status}{script}");
        for request in [streamed(&script), whole(&script)] {
            let before = upstream.sim.requests().len();
            let answer = gateway.ask(request).await;
            assert_eq!((u64::from(answer.status), answer.ended), (status, Ended::Whole), "{name}");
            assert_eq!(answer.text(), String::from_utf8_lossy(&bytes), "{name}");
            assert_eq!(answer.header("content-type"), expected["content_type"].as_str(), "{name}");
            for (field, value) in fields.clone() {
                let found = answer.headers.iter().rfind(|(known, _)| known.eq_ignore_ascii_case(field));
                assert_eq!(found.map(|(_, value)| &value[..]), Some(value.as_bytes()), "{name}: {field}");
            }
            assert!(answer.header("request-id").is_some_and(|id| id.starts_with("req_")), "{name}: the upstream's id");
            assert_eq!(upstream.sim.requests().len(), before + 1, "{name} is not repeated by us");
        }
    }
}

#[tokio::test]
async fn a_stream_says_of_itself_what_clients_and_proxies_between_need() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let answer = gateway.ask(streamed("text=hello")).await;
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("connection", "keep-alive"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ] {
        let found: Vec<_> = answer.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", answer.headers);
        assert_eq!(answer.header(name), Some(value));
    }
}
