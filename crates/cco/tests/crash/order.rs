//! The order of writes, witnessed from outside: the thread that writes the journal is held still, and nothing that
//! must come after its write happens until it goes on.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::account::{Row, rows, stored};
use crate::common::{Client, Ended, Gateway, Piece, contains, lay_over, request, soon};
use crate::hold::Held;
use crate::rights::as_root;
use crate::simulator::TAG;

#[test]
fn no_client_knows_the_end_of_an_answer_before_its_record_is_written() {
    as_root("order::ends_wait");
}

#[test]
fn no_request_goes_up_before_its_beginning_is_written() {
    as_root("order::beginnings_wait");
}

#[test]
fn an_answer_waits_for_its_record_as_long_as_it_may_and_the_record_comes_later() {
    as_root("order::late_records");
}

#[test]
fn what_cannot_be_recorded_is_refused_where_the_user_wants_it_so() {
    as_root("order::refusals");
}

/// What does not happen in this time does not happen.
const NEVER: Duration = Duration::from_millis(250);

/// An upstream that says what it is told to.
struct Upstream(TcpListener);

impl Upstream {
    async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    async fn gateway(&self, audit: Value) -> Gateway {
        let url = format!("http://{}", self.0.local_addr().unwrap());
        let mut config = json!({ "providers": { "anthropic": { "baseUrl": url, "maxRetries": 0 } }, "audit": {} });
        lay_over(&mut config["audit"], audit);
        Gateway::start_with(config, &[], &[]).await
    }

    /// A request, whole, on a connection of its own.
    async fn take(&self) -> TcpStream {
        let (mut stream, _) = soon(self.0.accept()).await.unwrap();
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let n = soon(stream.read(&mut piece)).await.unwrap();
            bytes.extend_from_slice(&piece[..n]);
            // The messages come last in a body, so that its end can be told.
            if bytes.ends_with(b"}]}") || bytes.starts_with(b"GET ") && bytes.ends_with(b"\r\n\r\n") {
                return stream;
            }
            assert!(n > 0, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// Whether nobody comes.
    async fn is_alone(&self) -> bool {
        tokio::time::timeout(NEVER, self.0.accept()).await.is_err()
    }
}

/// A request for the default model: for another one, the default would be tried next.
fn ask(tag: &str, stream: bool) -> Vec<u8> {
    let body = format!(
        "{{\"model\":\"claude-sonnet-5-5\",\"max_tokens\":9,\"stream\":{stream},\"messages\":[{{\"role\":\"user\",\"content\":\"Hello.\"}}]}}"
    );
    request("POST", "/v1/messages", &format!("{TAG}: {tag}\r\n"), body)
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// How an answer comes: what is there before the journal is held, and what comes then.
struct Case {
    name: &'static str,
    request: fn(&str) -> Vec<u8>,
    before: String,
    after: String,
    /// The upstream's connection ends after that.
    closes: bool,
    outcome: &'static str,
}

fn cases() -> Vec<Case> {
    let stream: fn(&str) -> Vec<u8> = |tag| ask(tag, true);
    let whole: fn(&str) -> Vec<u8> = |tag| ask(tag, false);
    let models: fn(&str) -> Vec<u8> = |tag| request("GET", "/v1/models", &format!("{TAG}: {tag}\r\n"), "");
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{more}\r\n");
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = |name: &str, data: &str| chunk(&format!("event: {name}\ndata: {{\"type\":\"{name}\"{data}}}\n\n"));
    let start = event(
        "message_start",
        ",\"message\":{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\
         \"stop_reason\":null,\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}",
    );
    let used = event("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}");
    let stop = event("message_stop", "");
    let error = event("error", ",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}");
    let begun = format!("{events}{start}");
    let body = "{\"type\":\"message\",\"usage\":{\"input_tokens\":3,\"output_tokens\":7}}";
    let (half, rest) = body.split_at(20);
    let lengthy = |status: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{half}", body.len())
    };
    let case = |name, request, before: &str, after: &str, outcome| {
        let (before, after) = (before.to_owned(), after.to_owned());
        Case { name, request, before, after, closes: false, outcome }
    };
    let closing = |case| Case { closes: true, ..case };
    vec![
        case("stream", stream, &begun, &format!("{used}{stop}0\r\n\r\n"), "success"),
        case("last-event", stream, &format!("{begun}{used}"), &stop, "success"),
        case("error-event", stream, &begun, &error, "upstream_error"),
        closing(case("broken-stream", stream, &begun, "", "truncated")),
        case("stream-at-once", stream, "", &format!("{begun}{used}{stop}0\r\n\r\n"), "success"),
        case("whole", whole, &lengthy("200 OK"), rest, "success"),
        case(
            "whole-in-chunks",
            whole,
            &(head("transfer-encoding: chunked\r\n") + &chunk(body)),
            "0\r\n\r\n",
            "success",
        ),
        closing(case("until-the-end", whole, &(head("") + half), rest, "success")),
        case("overload", whole, &lengthy("529 Overloaded"), rest, "upstream_error"),
        case("no-body", whole, "", "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "upstream_error"),
        closing(case("no-answer", stream, "", "", "upstream_error")),
        case("no-http", stream, "", "What?\r\n\r\n", "upstream_error"),
        case("models", models, &lengthy("200 OK"), rest, "success"),
    ]
}

/// What a client has of an answer.
#[derive(Default)]
struct Came {
    head: bool,
    body: Vec<u8>,
    ended: Option<Ended>,
}

impl Came {
    /// Reads on, until the client knows the end or this time is over.
    async fn read(&mut self, client: &mut Client, most: Duration) {
        let reading = async {
            if !self.head {
                client.head().await;
                self.head = true;
            }
            while !self.knows_the_end() {
                match client.piece().await {
                    Piece::Data(data) => self.body.extend_from_slice(&data),
                    Piece::End(ended) => self.ended = Some(ended),
                }
            }
        };
        let _ = tokio::time::timeout(most, reading).await;
    }

    fn knows_the_end(&self) -> bool {
        self.ended.is_some()
            || contains(&self.body, b"event: message_stop\n")
            || contains(&self.body, b"event: error\n")
    }
}

async fn row(gateway: &Gateway, tag: &str) -> Row {
    stored(gateway.home(), &[tag.to_owned()]).await;
    rows(gateway.home()).remove(tag).unwrap()
}

#[tokio::test]
#[ignore = "run by another test, which sees to its rights"]
async fn ends_wait() {
    let upstream = Upstream::new().await;
    let gateway = upstream.gateway(json!({ "journalWaitMs": 60_000 })).await;
    for case in cases() {
        let mut client = gateway.client().await;
        client.send((case.request)(case.name)).await;
        let mut theirs = upstream.take().await;
        let mut came = Came::default();
        theirs.write_all(case.before.as_bytes()).await.unwrap();
        if !case.before.is_empty() {
            let all_there = |came: &Came| came.head && !came.body.is_empty();
            soon(async {
                while !all_there(&came) {
                    came.read(&mut client, Duration::from_millis(20)).await;
                }
            })
            .await;
        }
        let held = Held::thread(gateway.pid(), "journal");
        theirs.write_all(case.after.as_bytes()).await.unwrap();
        if case.closes {
            theirs.shutdown().await.unwrap();
        }
        came.read(&mut client, NEVER).await;
        let early = String::from_utf8_lossy(&came.body).into_owned();
        assert!(!came.knows_the_end(), "{}: the end came before its record: {early}", case.name);
        assert_eq!(gateway.health().await["status"], "healthy", "everything else goes on");
        drop(held);
        came.read(&mut client, Duration::from_secs(30)).await;
        assert!(came.knows_the_end(), "{}: the end never came", case.name);
        assert_eq!(row(&gateway, case.name).await.outcome, case.outcome, "{}", case.name);
    }
}

#[tokio::test]
#[ignore = "run by another test, which sees to its rights"]
async fn beginnings_wait() {
    let upstream = Upstream::new().await;
    let gateway = upstream.gateway(json!({ "journalWaitMs": 60_000 })).await;
    let mut client = gateway.client().await;
    let held = Held::thread(gateway.pid(), "journal");
    client.send(ask("up", true)).await;
    assert!(upstream.is_alone().await, "the request went up before its beginning was written");
    drop(held);
    let _theirs = upstream.take().await;
}

#[tokio::test]
#[ignore = "run by another test, which sees to its rights"]
async fn late_records() {
    let upstream = Upstream::new().await;
    let gateway = upstream.gateway(json!({ "journalWaitMs": 400 })).await;
    let mut client = gateway.client().await;
    client.send(ask("late", false)).await;
    let mut theirs = upstream.take().await;
    let held = Held::thread(gateway.pid(), "journal");
    let began = Instant::now();
    theirs
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    gateway.log_line(&["WARN", "not known to be written"]).await;
    drop(held);
    assert_eq!(row(&gateway, "late").await.outcome, "success");
}

#[tokio::test]
#[ignore = "run by another test, which sees to its rights"]
async fn refusals() {
    let upstream = Upstream::new().await;
    let mut gateway = upstream.gateway(json!({ "journalWaitMs": 100, "onFailure": "refuse" })).await;
    let held = Held::thread(gateway.pid(), "journal");
    let mut client = gateway.client().await;
    let refused = client.ask(ask("refused", true)).await;
    let message = refused.refusal(503, "api_error");
    for part in ["cannot be recorded", "`audit.onFailure` is \"refuse\""] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(refused.header("retry-after").is_some());
    drop(held);
    // Nobody came for it; the first who comes, comes for the next one.
    client.send(ask("served", false)).await;
    let mut theirs = upstream.take().await;
    theirs
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        .await
        .unwrap();
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(row(&gateway, "refused").await.outcome, "rejected");
    assert_eq!(row(&gateway, "served").await.outcome, "success");
    gateway.stop().await;
    assert_eq!(rows(gateway.home()).len(), 2);
}
