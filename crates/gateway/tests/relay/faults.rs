//! What a client gets when its upstream does one thing wrong: every fault of the simulator, for streams and whole
//! answers, on a fresh connection and on one that was used before.

use crate::common::client::{Client, Ended, Reply, messages};
use crate::common::pipes::{House, every_row, in_house, once};

/// What the client is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// The upstream's status and bytes, as a whole answer.
    Verbatim(u16),
    /// Status 200, all whole events that the upstream sent, and one error event of ours.
    ErrorEvent,
    /// What the upstream sent, without a proper end.
    Short,
    /// An error of ours with this status.
    Ours(u16),
}
use Want::{ErrorEvent, Ours, Short, Verbatim};

/// What becomes of the upstream's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Pooled,
    Closed,
    /// The upstream closes at about the same time: either is right.
    Any,
}
use Then::{Any, Closed, Pooled};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Stream,
    Whole,
}
use Mode::{Stream, Whole};

/// Mode, what the simulator does (its script, then its faults), what the client gets, after how many seconds, own pings
/// before that, the upstream's connection, how the exchange is counted.
pub(crate) type Row = (Mode, &'static str, &'static str, Want, std::ops::Range<u64>, usize, Then, &'static str);

pub(crate) const FAULTS: &[Row] = &[
    // Statuses pass as they are.
    (Stream, "", "400", Verbatim(400), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "401", Verbatim(401), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "402", Verbatim(402), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "403", Verbatim(403), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "404", Verbatim(404), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "408", Verbatim(408), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "409", Verbatim(409), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "413", Verbatim(413), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "429", Verbatim(429), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "429=30", Verbatim(429), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "500", Verbatim(500), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "500", Verbatim(500), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "502", Verbatim(502), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "503", Verbatim(503), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "504", Verbatim(504), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "529", Verbatim(529), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "529=7", Verbatim(529), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "502-html", Verbatim(502), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "502-html", Verbatim(502), 0..1, 0, Pooled, "upstream_error"),
    // Errors inside of a stream are the upstream's own.
    (Stream, "", "error-first", Verbatim(200), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "error-first", Verbatim(529), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "error-mid", Verbatim(200), 0..1, 0, Pooled, "upstream_error"),
    (Stream, "", "error-mid=api_error", Verbatim(200), 0..1, 0, Pooled, "upstream_error"),
    (Whole, "", "error-mid", Verbatim(529), 0..1, 0, Pooled, "upstream_error"),
    // A stream that ends too early, in whatever way.
    (Stream, "", "truncate", ErrorEvent, 0..1, 0, Pooled, "truncated"),
    (Stream, "", "truncate=0", ErrorEvent, 0..1, 0, Pooled, "truncated"),
    (Stream, "", "truncate=1", ErrorEvent, 0..1, 0, Pooled, "truncated"),
    (Stream, "", "truncate=99", ErrorEvent, 0..1, 0, Pooled, "truncated"),
    (Stream, "crlf", "truncate", ErrorEvent, 0..1, 0, Pooled, "truncated"),
    (Stream, "", "cut=0", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "cut=1", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "cut=1000", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "cut=3ev", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "chunk=7", "cut=1001", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "crlf chunk=5", "cut=1002", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "reset", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "reset=1000", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "stall", ErrorEvent, 60..61, 3, Closed, "timeout"),
    (Stream, "", "stall=1000", ErrorEvent, 60..61, 3, Closed, "timeout"),
    (Stream, "", "stall=0", ErrorEvent, 60..61, 3, Closed, "timeout"),
    (Stream, "", "http10 truncate", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "http10 cut=1000", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "wrong-length=-5", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "", "bad-chunk", ErrorEvent, 0..1, 0, Closed, "truncated"),
    (Stream, "every=1000", "endless", ErrorEvent, 300..301, 0, Closed, "timeout"),
    (Whole, "every=1000", "endless", ErrorEvent, 300..301, 0, Closed, "timeout"),
    // A fault behind the last event is none of the client's business.
    (Stream, "", "cut=1000000", Verbatim(200), 0..1, 0, Closed, "success"),
    (Stream, "", "reset=1000000", Verbatim(200), 0..1, 0, Closed, "success"),
    (Stream, "", "wrong-length", Verbatim(200), 0..1, 0, Closed, "success"),
    // Whole answers that end too early.
    (Whole, "", "cut=0", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "", "cut=100", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "chunk=10", "cut=101", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "", "reset=100", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "", "stall=100", Short, 60..61, 0, Closed, "timeout"),
    (Whole, "", "wrong-length", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "", "bad-chunk", Short, 0..1, 0, Closed, "truncated"),
    (Whole, "", "cut=1000000", Verbatim(200), 0..1, 0, Any, "success"),
    (Whole, "", "wrong-length=-5", Verbatim(200), 0..1, 0, Closed, "success"),
    // No answer, or none that can be read.
    (Stream, "", "no-bytes", Ours(504), 100..101, 0, Closed, "timeout"),
    (Whole, "", "no-bytes", Ours(504), 600..601, 0, Closed, "timeout"),
    (Stream, "", "close-before-head", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Whole, "", "close-before-head", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Stream, "", "garbage", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Whole, "", "garbage", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Stream, "", "header-bomb", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Whole, "", "header-bomb=300", Ours(502), 0..1, 0, Closed, "upstream_error"),
    (Stream, "", "redirect=http://elsewhere.test/v1/messages", Ours(502), 0..1, 0, Any, "upstream_error"),
    (Whole, "", "redirect=https://upstream.test/", Ours(502), 0..1, 0, Any, "upstream_error"),
    // A line without an end, and a body that unpacks to far more than it is.
    (Stream, "", "long-line", Short, 0..1, 0, Closed, "truncated"),
    (Stream, "", "bomb=4", Short, 0..1, 0, Closed, "truncated"),
    // Slow, large or odd, and whole.
    (Stream, "", "header-bomb=100", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "drip=5", Verbatim(200), 16..25, 0, Pooled, "success"),
    (Whole, "", "drip=5", Verbatim(200), 5..10, 0, Pooled, "success"),
    (Stream, "", "drip-head=5", Verbatim(200), 3..10, 0, Pooled, "success"),
    (Whole, "", "drip-head=5", Verbatim(200), 3..10, 0, Pooled, "success"),
    (Stream, "", "delay-head=99000", Verbatim(200), 99..100, 0, Pooled, "success"),
    (Stream, "", "delay-head=101000", Ours(504), 100..101, 0, Closed, "timeout"),
    (Whole, "", "delay-head=599000", Verbatim(200), 599..600, 0, Pooled, "success"),
    (Stream, "every=11000", "", Verbatim(200), 275..276, 0, Pooled, "success"),
    (Stream, "", "surplus", Verbatim(200), 0..1, 0, Closed, "success"),
    (Whole, "", "surplus", Verbatim(200), 0..1, 0, Closed, "success"),
    (Stream, "", "set-cookie", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Whole, "", "set-cookie", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "http10", Verbatim(200), 0..1, 0, Closed, "success"),
    (Whole, "", "http10", Verbatim(200), 0..1, 0, Closed, "success"),
    (Stream, "crlf pings chunk=3", "", Verbatim(200), 0..1, 0, Pooled, "success"),
    // Compressed although we asked for plain text: as it came, and never with a word of ours in it.
    (Stream, "", "gzip", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "deflate", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "zstd", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "br", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "every=10000", "gzip", Verbatim(200), 250..251, 0, Pooled, "success"),
    (Whole, "", "gzip", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Whole, "", "zstd", Verbatim(200), 0..1, 0, Pooled, "success"),
    (Stream, "", "gzip cut=100", Short, 0..1, 0, Closed, "truncated"),
    (Stream, "", "gzip truncate", Short, 0..1, 0, Closed, "truncated"),
    (Stream, "", "br cut=100", Short, 0..1, 0, Closed, "truncated"),
    (Stream, "", "zstd reset=100", Short, 0..1, 0, Closed, "truncated"),
    (Stream, "", "gzip stall=100", Short, 60..61, 0, Closed, "timeout"),
    (Whole, "", "gzip cut=100", Short, 0..1, 0, Closed, "truncated"),
];

/// Our own ping, which differs from the simulator's in a space.
const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// The simulator numbers its requests.
pub(crate) fn unnumbered(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let mut from = 0;
    while let Some(at) = text[from..].find("req_sim_") {
        from += at + "req_sim_".len();
        text.replace_range(from..from + 8, "########");
    }
    text
}

/// Whole events only.
fn whole_events(text: &str) -> &str {
    let ends = [text.rfind("\n\n").map(|at| at + 2), text.rfind("\r\n\r\n").map(|at| at + 4)];
    &text[..ends.into_iter().flatten().max().unwrap_or(0)]
}

pub(crate) fn check_answer(row: &Row, got: &Reply, direct: &Reply) {
    let (_, _, faults, want, within, pings, ..) = row;
    assert!(within.contains(&got.after.as_secs()), "after {:?}", got.after);
    if *faults == "long-line" {
        assert_eq!((got.status, got.ended), (200, Ended::Short));
        assert!(got.body.starts_with(b"event: content_block_delta\ndata: ") && got.body.ends_with(b"xxxx"));
        assert!((32 << 20..65 << 20).contains(&got.body.len()), "{} bytes", got.body.len());
        return;
    }
    let body = unnumbered(&got.body);
    let direct_body = unnumbered(&direct.body);
    match want {
        Verbatim(status) => {
            assert_eq!((got.status, got.ended), (*status, Ended::Whole));
            assert!(body == direct_body, "got {body:?}\nwant {direct_body:?}");
            for (name, value) in &direct.headers {
                let ours = ["connection", "transfer-encoding", "content-length", "request-id"];
                let hidden = [
                    "set-cookie",
                    "authorization",
                    "x-api-key",
                    "www-authenticate",
                    "proxy-authenticate",
                    "alt-svc",
                    "access-control-allow-origin",
                    "access-control-allow-credentials",
                    "strict-transport-security",
                    "server",
                    "location",
                ];
                let name = name.to_ascii_lowercase();
                if hidden.contains(&name.as_str()) {
                    assert!(!got.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(&name)), "`{name}` came through");
                } else if !ours.contains(&name.as_str()) {
                    assert_eq!(got.header(&name), Some(value.as_str()), "`{name}`");
                }
            }
        }
        ErrorEvent => {
            assert_eq!((got.status, got.ended), (200, Ended::Whole));
            let own = body.matches(PING).count();
            let rest = body.replace(PING, "");
            let events = whole_events(&direct_body);
            let error = if faults.contains("endless") {
                // Where exactly the stream is when its time is up is the upstream's matter.
                let at = rest.find("event: error").expect("an error event");
                assert!(rest[..at].contains("and so on") && whole_events(&rest[..at]) == &rest[..at]);
                &rest[at..]
            } else {
                rest.strip_prefix(events).unwrap_or_else(|| panic!("got {rest:?}\nwant {events:?}"))
            };
            assert_eq!(own, *pings, "pings of ours");
            let data = error.strip_prefix("event: error\ndata: ").and_then(|e| e.strip_suffix("\n\n"));
            let data: serde_json::Value = serde_json::from_str(data.unwrap_or_else(|| panic!("{error:?}"))).unwrap();
            assert_eq!(data["type"], "error");
            let own = got.header("x-cco-request-id").expect("an id").replace('-', "");
            assert_eq!(data["request_id"], format!("req_{own}"));
            let kind =
                if faults.contains("stall") || faults.contains("endless") { "timeout_error" } else { "api_error" };
            assert_eq!(data["error"]["type"], kind);
        }
        Short => {
            assert_eq!((got.status, got.ended), (200, Ended::Short));
            assert!(got.body == direct.body, "got {body:?}\nwant {direct_body:?}");
            assert!(!body.contains("event: error") && !body.contains(PING));
        }
        Ours(status) => {
            assert_eq!((got.status, got.ended), (*status, Ended::Whole));
            let kind = if *status == 504 { "timeout_error" } else { "api_error" };
            assert_eq!(got.refusal().0, kind);
            assert_eq!(got.header("location"), None);
        }
    }
}

/// A request after the fault gets its own answer, on the client's connection if that goes on.
async fn check_next(house: &House, client: Client, got: &Reply) {
    let mut client = if got.keeps() {
        client
    } else {
        let mut old = client;
        old.closes().await;
        house.client()
    };
    for stream in [false, true] {
        let request = messages(stream, "");
        let (next, want) = (client.ask(&request).await, house.direct(&request).await);
        assert_eq!((next.status, next.ended), (200, Ended::Whole));
        assert_eq!(String::from_utf8_lossy(&next.body), String::from_utf8_lossy(&want.body));
    }
}

/// The faults of a row for a client that asks the simulator itself, and has no time limits.
pub(crate) fn comparable((.., faults, want, _, _, _, _): &Row) -> String {
    let faults = match *faults {
        "stall" => "cut=4ev".to_string(),
        "endless" | "long-line" => String::new(),
        stalls if stalls.contains("stall=") => stalls.replace("stall", "cut"),
        _ if matches!(want, Ours(_)) => String::new(),
        faults => faults.to_string(),
    };
    if faults.is_empty() { faults } else { format!("x-sim-fault: {faults}\r\n") }
}

async fn check(row: &Row, pooled: bool) {
    let (mode, script, faults, .., then, outcome) = row;
    in_house(once, async |house| {
        let marked = format!("x-sim: events=20 size=40 {script}\r\n");
        let faulty = if faults.is_empty() { String::new() } else { format!("x-sim-fault: {faults}\r\n") };
        let request = messages(*mode == Stream, &(marked.clone() + &faulty));
        let direct = house.direct(&messages(*mode == Stream, &(marked.clone() + &comparable(row)))).await;
        let mut client = house.client();
        if pooled {
            assert_eq!(client.ask(messages(false, "")).await.status, 200);
            assert_eq!((house.worker.pool.len(), house.sim.connections_seen()), (1, 1));
        }
        let before = house.gateway.counters.outcomes();
        let requests = house.sim.requests().len();
        let got = client.ask(&request).await;
        house.settled().await;
        check_answer(row, &got, &direct);
        assert_eq!(house.outcomes_since(&before), [(*outcome, 1)]);
        // What a dead connection is asked again arrives twice at most, anything else once.
        let arrived = house.sim.requests().len() - requests;
        assert_eq!(arrived, if pooled && *faults == "close-before-head" { 2 } else { 1 });
        match then {
            Pooled => assert_eq!(house.worker.pool.len(), 1, "the upstream's connection is not pooled"),
            Closed => {
                assert_eq!(house.worker.pool.len(), 0, "the upstream's connection is pooled");
                house.sim.wait_for_connections(|open| open == 0).await;
            }
            Any => {}
        }
        check_next(house, client, &got).await;
        for request in house.sim.requests() {
            assert_eq!(request.oddities, [""; 0], "what arrived was well-formed");
        }
    })
    .await;
}

#[test]
fn every_fault_on_a_fresh_connection_ends_as_the_table_says() {
    every_row(FAULTS, async |row| check(row, false).await);
}

#[test]
fn every_fault_on_a_pooled_connection_ends_as_the_table_says() {
    every_row(FAULTS, async |row| check(row, true).await);
}

/// A fault that the table leaves out would never be looked at.
#[test]
fn the_table_names_every_fault_of_the_simulator() {
    for (name, ..) in sim::FAULTS {
        let named = |row: &&Row| row.2.split(' ').any(|f| f.split('=').next() == Some(name));
        assert!(FAULTS.iter().any(|row| named(&row)), "`{name}`");
    }
}
