//! Time: pings, time-outs, slow readers, clients that go away. Limits are short, and conditions are waited for.

use std::time::Duration;

use serde_json::{Value, json};
use sim::SimConfig;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::common::{
    Answer, Client, Ended, Gateway, Piece, Upstream, contains, error_event, prompt, request, soon, streamed, upstream,
    upstream_with, whole, whole_events,
};

const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// A gateway with limits of its provider.
async fn limited(upstream: &Upstream, limits: Value) -> Gateway {
    Gateway::start(upstream, json!({ "providers": { "anthropic": limits } })).await
}

/// Checks that the upstream saw its last request aborted.
async fn check_aborted(upstream: &Upstream) {
    let last = upstream.last_ended().await;
    assert!(last.client_gone(), "{:?}", last.end);
}

/// Takes our pings out of a stream, and says how many there were. Each must stand between two whole events.
#[track_caller]
fn without_pings(stream: &str) -> (String, usize) {
    let mut rest = String::new();
    let mut pings = 0;
    let mut at = 0;
    while at < stream.len() {
        let event = &stream[at..];
        // The end of an event of the upstream's or of ours: from border to border.
        let end = event.find("\n\n").map_or(event.len(), |end| end + 2);
        if &event[..end] == PING {
            pings += 1
        } else {
            rest.push_str(&event[..end])
        }
        at += end;
    }
    assert!(!rest.contains("\"type\": \"ping\""), "a ping within an event: {rest}");
    (rest, pings)
}

#[tokio::test]
async fn pings_come_in_silence_and_only_between_events() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "pingSecs": 0.1 } })).await;
    let mut client = gateway.client().await;
    // Silence before the first event, between events, and within events wherever they are cut.
    for (script, at_least) in [
        ("text=\"one two\" first=450 every=250", 8),
        ("text=\"one two\" cuts=[100,431,500,777] gap=350", 6),
        ("text=\"one two\" crlf cuts=[433,435] gap=350", 3),
    ] {
        let answer = client.ask(streamed(script)).await;
        let plain = script.split(" first").next().unwrap().split(" cuts").next().unwrap();
        let quick = Client::connect(upstream.addr).await.ask(streamed(plain)).await;
        let (rest, pings) = without_pings(&answer.text().replace("\r\n", "\n"));
        assert_eq!(rest, quick.text().replace("\r\n", "\n"), "{script}");
        assert!(pings >= at_least, "{script}: {pings} pings");
    }
    let quick = client.ask(streamed("text=\"one two three\"")).await;
    assert!(!quick.text().contains(PING), "where nothing is silent nothing is added");
    let answer = client.ask(whole("text=hello first=400")).await;
    assert!(answer.ended == Ended::Whole && !answer.text().contains("ping"), "a whole answer gets none");
}

#[tokio::test]
async fn no_ping_comes_within_an_event_of_which_a_part_is_out() {
    let folder = tempfile::tempdir().unwrap();
    let upstream =
        upstream_with(SimConfig { transcripts: Some(folder.path().to_owned()), ..SimConfig::default() }).await;
    let gateway = Gateway::start(&upstream, json!({ "server": { "pingSecs": 0.05 } })).await;
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"usage\":{}}}\n\n";
    let delta = format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{}\"}}}}\n\n",
        "long ".repeat(120_000)
    );
    let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    std::fs::write(folder.path().join("long.sse"), format!("{start}{delta}{stop}")).unwrap();
    let in_delta = start.len() + delta.len() / 2;
    let before_stop = start.len() + delta.len();
    let script = format!("raw=long.sse cuts=[{},{in_delta},{before_stop}] gap=500", start.len());
    let answer = gateway.ask(streamed(&script)).await;
    assert_eq!(answer.ended, Ended::Whole);
    let text = answer.text();
    assert!(text.contains(&delta), "the event is in one piece");
    let (before, after) = text.split_once(&delta).unwrap();
    assert!(before.matches(PING).count() >= 2 && after.matches(PING).count() >= 2, "pings go on around it");
}

#[tokio::test]
async fn a_silent_upstream_ends_with_an_error_event_in_spite_of_pings() {
    let upstream = upstream().await;
    let more = json!({ "server": { "pingSecs": 0.1 }, "providers": { "anthropic": { "idleTimeoutSecs": 0.6 } } });
    let gateway = Gateway::start(&upstream, more).await;
    for stall in ["fault=stall=4ev", "fault=stall=333", "fault=stall=0"] {
        let answer = gateway.ask(streamed(&format!("text=\"one two three\" {stall}"))).await;
        assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{stall}");
        let (rest, pings) = without_pings(answer.text());
        assert!(pings >= 3, "{stall}: {pings} pings");
        let error = rest.rfind("event: error").unwrap();
        let error = error_event(&rest.as_bytes()[error..], answer.id());
        assert_eq!(error["type"], "timeout_error");
        assert!(error["message"].as_str().unwrap().contains("600ms"), "{error}");
        check_aborted(&upstream).await;
        assert_eq!(gateway.log_line(&[answer.id()]).await["outcome"], "timeout");
    }
    let answer = gateway.ask(whole("text=\"one two three\" fault=stall=100")).await;
    assert_ne!(answer.ended, Ended::Whole, "a whole answer has no place for an error event");
}

#[tokio::test]
async fn a_stream_that_never_ends_is_ended_by_max_stream_secs() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "maxStreamSecs": 0.5 })).await;
    for script in ["fault=endless every=20", "fault=endless"] {
        let started = Instant::now();
        let mut client = gateway.client().await;
        client.send(streamed(script)).await;
        let head = client.head().await;
        let (mut tail, mut total) = (Vec::new(), 0);
        let ended = loop {
            match client.piece().await {
                Piece::Data(data) => {
                    total += data.len();
                    tail = data.to_vec();
                }
                Piece::End(ended) => break ended,
            }
        };
        assert!(started.elapsed() >= Duration::from_millis(500) && total > 1000, "{script}");
        assert_eq!(ended, Ended::Whole, "{script}");
        let error = error_event(&tail, head.id());
        assert!(error["message"].as_str().unwrap().contains("`maxStreamSecs`"), "{error}");
        check_aborted(&upstream).await;
    }
}

#[tokio::test]
async fn a_reader_that_lags_behind_when_its_stream_is_ended_gets_the_rest_and_the_error_event() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "maxStreamSecs": 0.5 })).await;
    let mut client = gateway.client().await;
    client.send(streamed("fault=endless")).await;
    let mut answer = client.head().await;
    let started = Instant::now();
    rests_at(&upstream).await;
    assert!(started.elapsed() > Duration::from_millis(500), "the end came while nothing was read");
    let ended = loop {
        match client.piece().await {
            Piece::Data(data) => answer.body.extend_from_slice(&data),
            Piece::End(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Whole);
    let border = answer.body.len() - 400;
    let event = answer.body[border..].windows(12).position(|part| part == b"event: error").expect("it is told");
    error_event(&answer.body[border + event..], answer.id());
    assert_eq!(gateway.log_line(&[answer.id()]).await["outcome"], "timeout");
}

#[tokio::test]
async fn a_stream_that_is_slow_but_alive_is_never_cut() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "timeoutSecs": 0.3, "idleTimeoutSecs": 0.6 })).await;
    let answer = gateway.ask(streamed("text=\"a b c d e\" every=250")).await;
    assert_eq!(answer.ended, Ended::Whole);
    assert!(answer.text().ends_with("{\"type\":\"message_stop\"}\n\n"), "{}", answer.text());
}

#[tokio::test]
async fn a_stream_whose_head_does_not_come_gets_504_and_a_whole_answer_has_its_time() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "timeoutSecs": 0.4 })).await;
    let answer = gateway.ask(streamed("fault=no-bytes")).await;
    let message = answer.refusal(504, "timeout_error");
    assert!(message.contains("`anthropic`") && message.contains("400ms"), "{message}");
    check_aborted(&upstream).await;
    let answer = gateway.ask(streamed("text=slow fault=drip-head=10")).await;
    let (again, said) =
        (answer.refusal(504, "timeout_error"), |text: &str| text.split_once("; details: ").unwrap().0.to_owned());
    assert_eq!(said(&again), said(&message), "a head that drips is none");
    let answer = gateway.ask(whole("text=late fault=delay-head=900")).await;
    assert!(answer.status == 200 && contains(&answer.body, b"late"), "models think: {}", answer.text());
}

#[tokio::test]
async fn the_time_for_the_answer_begins_when_the_request_is_whole() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "timeoutSecs": 0.4 })).await;
    let bytes = streamed("text=patient");
    let (start, end) = bytes.split_at(bytes.len() - 1);
    let mut client = gateway.client().await;
    client.send(start).await;
    // Longer than the upstream may take.
    let silent = tokio::time::timeout(Duration::from_millis(900), client.is_closed()).await;
    assert!(silent.is_err(), "nothing is said before the request is whole");
    client.send(end).await;
    let answer = client.answer().await;
    assert!(answer.status == 200 && contains(&answer.body, b"patient"), "{}", answer.text());
}

#[tokio::test]
async fn an_upstream_that_nobody_is_at_gets_502_with_the_cause() {
    let upstream = upstream().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gateway = limited(&upstream, json!({ "baseUrl": format!("http://{closed}") })).await;
    for bytes in [streamed("text=hi"), whole("text=hi"), request("GET", "/v1/models", "", "")] {
        let answer = gateway.ask(bytes).await;
        let message = answer.refusal(502, "api_error");
        for part in ["`anthropic`", &closed.to_string(), "the connection was refused"] {
            assert!(message.contains(part), "{message}");
        }
        let line = gateway.log_line(&[answer.id()]).await;
        assert_eq!((&line["status"], &line["outcome"]), (&json!(502), &json!("upstream_error")));
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_gets_502_with_the_cause() {
    let upstream = upstream().await;
    let limits = json!({ "baseUrl": "http://llm.invalid", "connectTimeoutSecs": 50 });
    let gateway = limited(&upstream, limits).await;
    let message = gateway.ask(whole("text=hi")).await.refusal(502, "api_error");
    assert!(message.contains("llm.invalid") && message.contains("the name "), "{message}");
}

#[tokio::test]
async fn an_upstream_that_takes_no_connection_gets_504() {
    let upstream = upstream().await;
    // A listener whose backlog is full takes no further connection, and does not refuse it either.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let full = socket.listen(1).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(connected) =
        tokio::time::timeout(Duration::from_millis(300), tokio::net::TcpStream::connect(address)).await
    {
        waiting.push(connected.unwrap());
    }
    let limits = json!({ "baseUrl": format!("http://{address}"), "connectTimeoutSecs": 0.4 });
    let gateway = limited(&upstream, limits).await;
    let message = gateway.ask(whole("text=hi")).await.refusal(504, "timeout_error");
    assert!(message.contains("connecting took too long"), "{message}");
}

/// Reads until nothing has come from the upstream for a while, and returns how much it has sent.
async fn rests_at(upstream: &Upstream) -> u64 {
    let mut before = u64::MAX;
    let mut ticks = tokio::time::interval(Duration::from_millis(400));
    soon(async {
        loop {
            ticks.tick().await;
            let now = upstream.sim.requests().last().map_or(0, |last| last.sent_bytes());
            if now == before && now > 0 {
                return now;
            }
            before = now;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_the_upstream_and_fills_no_memory() {
    // The archive's copy has a bound of its own: here there is none.
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({ "audit": { "logResponseBodies": false } })).await;
    gateway.ask(streamed("text=warm")).await;
    let before = gateway.peak_memory();
    for script in ["fault=endless", "fault=long-line", "fault=endless fault=zstd"] {
        let mut client = gateway.client().await;
        client.send(streamed(script)).await;
        let head = client.head().await;
        assert_eq!(head.status, 200);
        let resting = rests_at(&upstream).await;
        assert!(resting < 24 << 20, "{script}: {} KiB are under way", resting >> 10);
        // Whoever reads again gets more.
        let mut read = 0;
        while read < resting + (1 << 20) {
            match client.piece().await {
                Piece::Data(data) => read += data.len() as u64,
                Piece::End(ended) => panic!("{script}: {ended:?}"),
            }
        }
        drop(client);
        check_aborted(&upstream).await;
    }
    let grown = gateway.peak_memory() - before;
    assert!(grown < 16 << 20, "the gateway has grown by {} KiB", grown >> 10);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_at_all_is_given_up() {
    let upstream = upstream().await;
    let gateway = limited(&upstream, json!({ "idleTimeoutSecs": 0.5 })).await;
    let mut client = gateway.client().await;
    client.send(streamed("fault=endless")).await;
    let head: Answer = client.head().await;
    check_aborted(&upstream).await;
    let line = gateway.log_line(&[head.id()]).await;
    assert_eq!(line["outcome"], "client_disconnected");
    assert!(line["cause"].as_str().unwrap().contains("took nothing"), "{line}");
}

/// When the upstream saw the end of its last request, on its own clock.
async fn aborted_at(upstream: &Upstream) -> Instant {
    let last = upstream.last_ended().await;
    assert!(last.client_gone(), "{:?}", last.end);
    upstream.born + last.at + last.end.unwrap().after
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_the_upstream_within_100_ms() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for (bytes, read) in [
        (streamed("fault=endless every=20"), "content_block_delta"),
        (streamed("text=hello fault=stall=2ev"), "content_block_start"),
        (streamed("fault=no-bytes"), ""),
        (streamed("text=hello fault=delay-head=60000"), ""),
        (whole("text=hello first=60000"), ""),
        (whole("text=hello fault=stall=50"), "msg_"),
        (request("POST", "/v1/messages/count_tokens", "x-sim: fault=no-bytes\r\n", prompt("Hi.", false)), ""),
        (request("GET", "/v1/models", "x-sim: fault=no-bytes\r\n", ""), ""),
    ] {
        let mut took = Vec::new();
        for _ in 0..5 {
            let arrived = upstream.sim.requests().len();
            let mut client = gateway.client().await;
            client.send(&bytes).await;
            soon(upstream.sim.wait_for(|all| all.len() > arrived)).await;
            if !read.is_empty() {
                let mut head = client.head().await;
                client.read_until(&mut head, read).await;
            }
            let left = Instant::now();
            drop(client);
            took.push(aborted_at(&upstream).await.duration_since(left));
        }
        // The median: a busy machine may be late once or twice.
        took.sort();
        assert!(took[2] < Duration::from_millis(100), "{:?}: {took:?}", String::from_utf8_lossy(&bytes));
    }
    gateway.wait_for_health(|health| health["requests"]["running"] == 0).await;
    let health = gateway.health().await;
    assert_eq!(health["requests"]["by_outcome"], json!({ "client_disconnected": 40 }), "{health}");
}

#[tokio::test]
async fn a_client_that_goes_away_behind_its_upload_cancels_the_upstream() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    for script in ["fault=no-bytes", "fault=delay-head=60000"] {
        for (framing, body) in
            [("Content-Length: 2\r\n", "{}"), ("Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")]
        {
            let arrived = upstream.sim.requests().len();
            let mut client = gateway.client().await;
            let head = format!("x-sim: {script}\r\n{framing}");
            client.send(request("POST", "/v1/messages/batches", &head, "")).await;
            // The body comes when the upstream is connected: its last byte is the last that is read of this client.
            soon(upstream.sim.wait_for_connections(|open| open == 1)).await;
            client.send(body).await;
            soon(upstream.sim.wait_for(|all| all.len() > arrived)).await;
            let left = Instant::now();
            drop(client);
            let took = aborted_at(&upstream).await.duration_since(left);
            assert!(took < Duration::from_secs(1), "{script}, {framing}: {took:?}");
            soon(upstream.sim.wait_for_connections(|open| open == 0)).await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_drips_byte_by_byte_arrives_event_by_event() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut client = gateway.client().await;
    client.send(streamed("text=\"one two\" fault=drip=1")).await;
    client.head().await;
    let mut events = 0;
    loop {
        match client.piece().await {
            Piece::Data(data) => {
                assert_eq!(whole_events(&data), data.len(), "whole events only: {data:?}");
                events += 1;
            }
            Piece::End(ended) => {
                assert_eq!(ended, Ended::Whole);
                break;
            }
        }
    }
    assert!(events >= 6, "each event comes when it is whole, not at the end: {events}");
}
