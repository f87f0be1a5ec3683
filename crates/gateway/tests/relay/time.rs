//! Every time limit, to the second: pings, silences, heads, bodies, idle connections, the end of the process.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gateway::net::{Cause, Stream};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::common::client::{Client, Ended, Reply, get, messages, post};
use crate::common::pipes::{
    House, Step, Upstream, every_row, in_house, in_house_with_pipes_of, once, peer, plain, send, wait,
};

/// The head of a stream.
pub(crate) const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
pub(crate) const START: &str = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n";
pub(crate) const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n";
pub(crate) const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
pub(crate) const PING: &str = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
const LAST: &str = "0\r\n\r\n";
const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

/// One chunk.
pub(crate) fn chunk(payload: &str) -> Step {
    send(format!("{:x}\r\n{payload}\r\n", payload.len()))
}

/// What came when: pieces that came in the same second are one.
fn timeline(reply: &Reply) -> Vec<(u64, String)> {
    let mut line: Vec<(u64, String)> = vec![];
    for (at, piece) in &reply.pieces {
        let text = String::from_utf8_lossy(piece);
        match line.last_mut() {
            Some((second, before)) if *second == at.as_secs() => before.push_str(&text),
            _ => line.push((at.as_secs(), text.into_owned())),
        }
    }
    line
}

/// Plays a stream and compares what came when.
async fn check_timeline(steps: impl IntoIterator<Item = Step>, want: &[(u64, &str)]) {
    in_house(plain, async |house| {
        house.script([Step::Request].into_iter().chain(steps).chain([Step::Hang]));
        let reply = house.client().ask(messages(true, "")).await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        let want: Vec<(u64, String)> = want.iter().map(|(at, text)| (*at, text.to_string())).collect();
        assert_eq!(timeline(&reply), want);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pings_come_after_fifteen_seconds_of_silence_each() {
    let rest = format!("{DELTA}{STOP}");
    check_timeline(
        [send(STREAM), chunk(START), wait(50.0), chunk(&rest), send(LAST)],
        &[(0, START), (15, PING), (30, PING), (45, PING), (50, &rest)],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn silence_begins_with_the_last_event() {
    let rest = format!("{DELTA}{STOP}");
    check_timeline(
        [
            send(STREAM),
            chunk(START),
            wait(10.0),
            chunk(DELTA),
            wait(16.0),
            chunk(DELTA),
            wait(14.0),
            chunk(&rest),
            send(LAST),
        ],
        &[(0, START), (10, DELTA), (25, PING), (26, DELTA), (40, &rest)],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_does_not_come_within_an_event() {
    let (half, other) = DELTA.split_at(20);
    // An unfinished event waits here, so that the client is at a border.
    check_timeline(
        [send(STREAM), chunk(START), chunk(half), wait(20.0), chunk(other), chunk(STOP), send(LAST)],
        &[(0, START), (15, PING), (20, &format!("{DELTA}{STOP}"))],
    )
    .await;
    // One that is too long for that passes as it comes, and then nothing may come between.
    let long = format!("event: content_block_delta\ndata: {}", "x".repeat(300 * 1024));
    check_timeline(
        [send(STREAM), chunk(START), chunk(&long), wait(40.0), chunk("\n\n"), wait(16.0), chunk(STOP), send(LAST)],
        &[(0, &format!("{START}{long}")), (40, "\n\n"), (55, PING), (56, STOP)],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn pings_come_neither_before_the_head_nor_after_the_last_event() {
    check_timeline(
        [wait(50.0), send(STREAM), chunk(START), chunk(STOP), send(LAST)],
        &[(50, &format!("{START}{STOP}"))],
    )
    .await;
    check_timeline([send(STREAM), chunk(STOP), wait(40.0), send(LAST)], &[(0, STOP)]).await;
    // Between the head and the first event they do.
    check_timeline([send(STREAM), wait(20.0), chunk(STOP), send(LAST)], &[(15, PING), (20, STOP)]).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_stream_gets_no_pings() {
    let head = WHOLE.strip_suffix("{}").unwrap();
    check_timeline([send(head), wait(40.0), send("{}")], &[(40, "{}")]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_the_upstream_sends_is_a_sign_of_life() {
    let comment = ": still here\n\n";
    let mut steps = vec![send(STREAM)];
    for _ in 0..4 {
        steps.extend([wait(59.0), chunk(comment)]);
    }
    steps.extend([chunk(STOP), send(LAST)]);
    in_house(
        |s| s["server"]["pingSecs"] = 3600.into(),
        async |house| {
            house.script([Step::Request].into_iter().chain(steps).chain([Step::Hang]));
            let reply = house.client().ask(messages(true, "")).await;
            assert_eq!((reply.ended, reply.after.as_secs()), (Ended::Whole, 236));
            assert_eq!(reply.text(), format!("{}{STOP}", comment.repeat(4)));
        },
    )
    .await;
}

/// Request, `timeoutSecs`, seconds after which the head is given up.
type Patience = (&'static str, &'static str, u64, u64);

const PATIENCE: &[Patience] = &[
    ("stream", "", 100, 100),
    ("stream", "x-stainless-timeout: 900\r\n", 100, 100),
    ("stream", "", 700, 700),
    ("whole", "", 100, 600),
    ("whole", "", 700, 700),
    ("whole", "x-stainless-timeout: 900\r\n", 100, 900),
    ("whole", "x-stainless-timeout: 50\r\n", 100, 600),
    ("whole", "x-stainless-timeout: soon\r\n", 100, 600),
    ("whole", "x-stainless-timeout: nan\r\n", 100, 600),
    ("whole", "x-stainless-timeout: -900\r\n", 100, 600),
    ("whole", "x-stainless-timeout: 99999999999999\r\n", 100, 86_400),
    // Python's SDK says it in a header of its own, and with a fraction.
    ("whole", "x-stainless-read-timeout: 900.5\r\n", 100, 900),
    ("whole", "x-stainless-read-timeout: 900\r\nx-stainless-timeout: 800\r\n", 100, 900),
    ("count", "", 100, 600),
    ("models", "", 100, 600),
];

#[test]
fn a_head_is_awaited_as_long_as_its_request_deserves() {
    every_row(PATIENCE, async |(kind, fields, timeout, want)| {
        let edit = |s: &mut Value| s["providers"]["anthropic"]["timeoutSecs"] = (*timeout).into();
        in_house(edit, async |house| {
            house.script([Step::Request, Step::Hang]);
            let request = match *kind {
                "stream" => messages(true, fields),
                "whole" => messages(false, fields),
                "count" => post("/v1/messages/count_tokens", fields, r#"{"model":"m"}"#),
                _ => get("/v1/models", fields),
            };
            let mut client = house.client();
            let reply = client.ask(request).await;
            assert_eq!((reply.status, reply.after.as_secs()), (504, *want));
            assert_eq!(reply.refusal().0, "timeout_error");
            assert_eq!(house.outcomes(), [("timeout", 1)]);
            assert!(house.seen.borrow()[0].closed.is_some());
        })
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_made_is_given_up() {
    in_house(once, async |house| {
        house.next_upstream(Upstream::Never);
        let reply = house.client().ask(messages(true, "")).await;
        assert_eq!((reply.status, reply.refusal().0.as_str()), (504, "timeout_error"));
        assert!((10..12).contains(&reply.after.as_secs()), "{:?}", reply.after);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_cannot_be_reached_is_named_with_its_cause() {
    for (cause, status) in [
        (Cause::Refused, 502),
        (Cause::DnsNotFound, 502),
        (Cause::CertificateExpired, 502),
        (Cause::CertificateUnknownCa, 502),
        (Cause::CertificateWrongName, 502),
        (Cause::ProxyUnreachable, 502),
    ] {
        in_house(once, async |house| {
            house.next_upstream(Upstream::Fails(cause));
            let mut client = house.client();
            let reply = client.ask(messages(false, "")).await;
            let (_, message) = reply.refusal();
            assert_eq!(reply.status, status);
            assert!(message.contains(cause.sentence()) && message.contains("`anthropic`"), "{message}");
            // Nothing was wrong with the client: it goes on.
            assert_eq!(client.ask(messages(false, "")).await.status, 200);
        })
        .await;
    }
}

/// Has always more to read and takes whatever is written, as a socket between two busy programs.
#[derive(Debug, Default)]
struct Busy {
    /// What is read first, and what is read for ever after it.
    first: &'static [u8],
    again: &'static [u8],
    /// The end of what was written.
    taken: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Busy {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A socket that is ready, too, says that it is not when its task has been at it for long.
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        if self.first.is_empty() && self.again.is_empty() {
            return Poll::Pending;
        }
        coop.made_progress();
        let again = self.again;
        buf.put_slice(std::mem::replace(&mut self.first, again));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Busy {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(tokio::task::coop::poll_proceed(cx)).made_progress();
        let mut taken = self.taken.lock().unwrap();
        taken.extend_from_slice(buf);
        let over = taken.len().saturating_sub(2000);
        taken.drain(..over);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a stream between an upstream that always has more and a client that takes everything, until it ends. After each
/// step of it, `then` is called.
async fn check_busy(then: impl AsyncFn(&House), outcome: &str, said: &str) {
    in_house(plain, async |house| {
        let upstream = Busy {
            first: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            again: b"16\r\nevent: a\ndata: 12345\n\n\r\n",
            ..Busy::default()
        };
        house.next_upstream(Upstream::Given(Stream::pipe(upstream)));
        let client = Busy { first: messages(true, "").leak(), ..Busy::default() };
        let taken = client.taken.clone();
        house.serve(client, peer("127.0.0.1:40000", true));
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            then(house).await;
            if let [(ended, 1)] = house.outcomes()[..] {
                assert_eq!(ended, outcome);
                let taken = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
                let (events, error) = taken.split_once("event: error\n").expect("an error event");
                assert!(events.contains("data: 12345") && error.contains(said), "{error}");
                return;
            }
        }
        panic!("it goes on");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_pauses_is_ended_at_its_limit_all_the_same() {
    check_busy(async |_| tokio::time::advance(Duration::from_secs(1)).await, "timeout", "maxStreamSecs").await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_pauses_ends_with_the_process_all_the_same() {
    check_busy(async |house| house.phases.cut.cancel(), "truncated", "shutting down").await;
}

/// Sends pieces with a wait after each.
async fn drip(client: &mut Client, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>, gap: f64) {
    for piece in pieces {
        client.send(piece).await;
        tokio::time::sleep(Duration::from_secs_f64(gap)).await;
    }
}

/// Waits for the answer and says after how many seconds since `from` it was there; the connection must end with it.
async fn refused_after(client: &mut Client, from: Instant, status: u16) -> u64 {
    let reply = client.reply().await;
    let after = from.elapsed().as_secs();
    assert_eq!((reply.status, reply.header("connection")), (status, Some("close")));
    reply.refusal();
    client.closes().await;
    after
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_become_whole_is_refused_after_ten_seconds() {
    in_house(plain, async |house| {
        let from = Instant::now();
        let mut client = house.client();
        client.send("POST /v1/mess").await;
        assert_eq!(refused_after(&mut client, from, 408).await, 10);

        // Bytes that trickle in do not buy time.
        let from = Instant::now();
        let mut client = house.client();
        drip(&mut client, "GET /health".as_bytes().chunks(1), 0.9).await;
        assert_eq!(refused_after(&mut client, from, 408).await, 10);

        // The time begins with the first byte, not with the connection.
        let mut client = house.client();
        tokio::time::sleep(Duration::from_secs(200)).await;
        let from = Instant::now();
        client.send("G").await;
        assert_eq!(refused_after(&mut client, from, 408).await, 10);

        // And with every request anew.
        let mut client = house.client();
        assert_eq!(client.ask(get("/health", "")).await.status, 200);
        tokio::time::sleep(Duration::from_secs(100)).await;
        let from = Instant::now();
        client.send("GET ").await;
        assert_eq!(refused_after(&mut client, from, 408).await, 10);
        assert_eq!(house.dialed(), 0);
    })
    .await;
}

/// The head of a request whose body is still to come.
fn begun(target: &str, framing: &str) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n\
         content-type: application/json\r\n{framing}\r\n\r\n"
    )
}

const BODIES: &[(&str, &str)] = &[
    ("/v1/messages", "content-length: 1000000"),
    ("/v1/messages", "transfer-encoding: chunked"),
    ("/v1/messages/count_tokens", "content-length: 1000000"),
    ("/v1/files", "content-length: 1000000"),
    ("/v1/files", "transfer-encoding: chunked"),
];

#[test]
fn a_body_that_falls_silent_is_refused_after_thirty_seconds() {
    every_row(BODIES, async |(target, framing)| {
        in_house(plain, async |house| {
            let (from, mut client) = (Instant::now(), house.client());
            client.send(begun(target, framing)).await;
            assert_eq!(refused_after(&mut client, from, 408).await, 30);

            // However much has come before.
            let mut client = house.client();
            client.send(begun(target, framing)).await;
            client.send(format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000))).await;
            let from = Instant::now();
            client.send("5\r\n12345\r\n").await;
            assert_eq!(refused_after(&mut client, from, 408).await, 30);
        })
        .await;
    });
}

#[test]
fn a_body_that_trickles_is_refused_and_one_that_is_only_slow_arrives() {
    every_row(BODIES, async |(target, framing)| {
        in_house(
            |s| s["providers"]["anthropic"]["timeoutSecs"] = 5.into(),
            async |house| {
                // A few bytes now and then.
                let (from, mut client) = (Instant::now(), house.client());
                client.send(begun(target, framing)).await;
                let drops = std::iter::repeat_n("1\r\n1\r\n", 10);
                drip(&mut client, drops, 5.0).await;
                let after = refused_after(&mut client, from, 408).await;
                assert!((30..51).contains(&after), "after {after}");

                // Two KiB a second, for longer than any limit of the upstream's.
                let text = format!(
                    r#"{{"model":"m","max_tokens":9,"stream":true,"messages":[{{"role":"user","content":"{}"}}]}}"#,
                    "x".repeat(2048 * 700)
                );
                let (head, body) = if framing.contains("chunked") {
                    let chunks = text.as_bytes().chunks(2048);
                    let body = chunks.map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
                    (begun(target, framing), body.chain([LAST.as_bytes().to_vec()]).collect::<Vec<_>>())
                } else {
                    let head = begun(target, &format!("content-length: {}", text.len()));
                    (head, text.as_bytes().chunks(2048).map(<[u8]>::to_vec).collect())
                };
                let mut client = house.client();
                client.send(head).await;
                drip(&mut client, body, 1.0).await;
                let reply = client.reply().await;
                let want = if target.contains("files") { 400 } else { 200 };
                assert_eq!(reply.status, want, "{}", reply.text());
                let arrived = house.sim.requests().pop().unwrap();
                assert!(arrived.body_complete && arrived.body_len as usize == text.len());
            },
        )
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_nothing_is_closed_after_five_minutes() {
    in_house(plain, async |house| {
        let (from, mut client) = (Instant::now(), house.client());
        client.closes().await;
        assert_eq!(from.elapsed().as_secs(), 300);

        let mut client = house.client();
        for target in ["/health", "/v1/models"] {
            assert_eq!(client.ask(get(target, "x-api-key: k\r\n")).await.status, 200);
            tokio::time::sleep(Duration::from_secs(299)).await;
        }
        let reply = client.ask(messages(true, "")).await;
        assert_eq!(reply.status, 200);
        let from = Instant::now();
        client.closes().await;
        assert_eq!(from.elapsed().as_secs(), 300);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_and_everything_of_it_ends() {
    in_house(plain, async |house| {
        let mut client = house.client_with_pipe_of(1024, peer("127.0.0.1:40000", true));
        let from = Instant::now();
        client.send(messages(true, "x-sim-fault: endless\r\n")).await;
        house.sim.wait_for(|all| all.last().is_some_and(|r| r.client_gone())).await;
        assert_eq!(from.elapsed().as_secs(), 60);
        house.clients_gone().await;
        // The rest of the answer is for nobody: a client that takes nothing does not get more time for it.
        assert!(from.elapsed().as_secs() <= 65, "{:?}", from.elapsed());
        assert_eq!(house.outcomes(), [("client_disconnected", 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_only_slow_gets_everything() {
    in_house(plain, async |house| {
        let mut client = house.client_with_pipe_of(1024, peer("127.0.0.1:40000", true));
        let request = messages(true, "");
        client.send(&request).await;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(55)).await;
            assert!(client.read().await);
        }
        let (reply, direct) = (client.reply().await, house.direct(&request).await);
        assert_eq!((reply.status, reply.text()), (200, direct.text()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_our_own_answers_is_given_up() {
    in_house(plain, async |house| {
        let mut client = house.client_with_pipe_of(256, peer("127.0.0.1:40000", true));
        let from = Instant::now();
        client.send(get("/gateway/health", "")).await;
        house.clients_gone().await;
        assert!((30..36).contains(&from.elapsed().as_secs()), "{:?}", from.elapsed());
    })
    .await;
}

async fn drain(house: &House) -> Instant {
    house.phases.drain.cancel();
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn draining_ends_idle_connections_at_once_and_lets_streams_finish() {
    in_house(plain, async |house| {
        let (mut idle, mut running) = (house.client(), house.client());
        assert_eq!(idle.ask(get("/health", "")).await.status, 200);
        running.send(messages(true, "x-sim: text=hello every=1000\r\n")).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let from = drain(house).await;
        idle.closes().await;
        assert_eq!(from.elapsed().as_secs(), 0);
        let reply = running.reply().await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        assert!(reply.text().ends_with(STOP) && !reply.text().contains("error"));
        running.closes().await;
        assert!(from.elapsed().as_secs() < 10);
        assert_eq!(house.outcomes(), [("success", 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_begun_when_draining_begins_is_answered() {
    in_house(plain, async |house| {
        let mut client = house.client();
        let request = messages(false, "");
        client.send(&request[..10]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain(house).await;
        client.send(&request[10..]).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        client.closes().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn at_the_cut_a_stream_gets_its_error_event() {
    in_house(plain, async |house| {
        let mut client = house.client();
        client.send(messages(true, "x-sim: text=hello every=10000\r\n")).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
        let from = drain(house).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        house.phases.cut.cancel();
        let reply = client.reply().await;
        assert_eq!((reply.ended, from.elapsed().as_secs()), (Ended::Whole, 1));
        let (events, error) = reply.text().split_once("event: error\n").expect("an error event");
        assert!(events.ends_with("\n\n") && error.contains("api_error") && error.contains("shutting down"), "{error}");
        client.closes().await;
        assert_eq!(house.outcomes(), [("truncated", 1)]);
        house.sim.wait_for_connections(|open| open == 0).await;
        assert!(from.elapsed().as_secs() <= 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn at_the_cut_a_request_without_an_answer_is_told_to_try_again() {
    // While dialing, before the head, while its body arrives (held, and on its way up).
    for stage in ["dial", "head", "held body", "upload"] {
        in_house(plain, async |house| {
            let mut client = house.client();
            match stage {
                "dial" => house.next_upstream(Upstream::Never),
                "head" => house.script([Step::Request, Step::Hang]),
                _ => {}
            }
            match stage {
                "held body" => client.send(begun("/v1/messages", "content-length: 100")).await,
                "upload" => client.send(begun("/v1/files", "content-length: 100")).await,
                _ => client.send(messages(true, "")).await,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let from = drain(house).await;
            house.phases.cut.cancel();
            let reply = client.reply().await;
            assert_eq!((reply.status, from.elapsed().as_secs()), (503, 0), "{stage}");
            assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("1"), Some("close")));
            reply.refusal();
            client.closes().await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_cut_a_client_that_takes_nothing_is_left() {
    in_house(plain, async |house| {
        let mut client = house.client_with_pipe_of(1024, peer("127.0.0.1:40000", true));
        client.send(messages(true, "x-sim-fault: endless\r\n")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let from = drain(house).await;
        house.phases.cut.cancel();
        house.sim.wait_for_connections(|open| open == 0).await;
        house.clients_gone().await;
        // Before the process ends its threads.
        assert!(from.elapsed().as_millis() < 2000, "{:?}", from.elapsed());
        assert_eq!(house.outcomes(), [("truncated", 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn at_the_cut_a_client_that_lags_behind_gets_the_rest_and_its_error_event() {
    in_house(plain, async |house| {
        let mut client = house.client_with_pipe_of(1024, peer("127.0.0.1:40000", true));
        client.send(messages(true, "x-sim-fault: endless\r\n")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drain(house).await;
        house.phases.cut.cancel();
        tokio::time::sleep(Duration::from_millis(900)).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        let (events, error) = reply.text().split_once("event: error\n").expect("an error event");
        assert!(events.len() > 1024 && events.ends_with("\n\n"), "whole events");
        assert!(error.contains("shutting down") && error.ends_with("\n\n"), "{error}");
        client.closes().await;
        assert_eq!(house.outcomes(), [("truncated", 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_answers_before_it_has_read_everything_gets_the_rest() {
    in_house_with_pipes_of(4096, plain, async |house| {
        let body = format!(r#"{{"model":"m","stream":true,"x":"{}"}}"#, "x".repeat(100_000));
        let request = post("/v1/messages", "x-api-key: k\r\n", &body);
        // It wants the whole body before its last event.
        house.script([Step::Take(100), send(STREAM), chunk(START), Step::Request, chunk(STOP), send(LAST), Step::Hang]);
        let reply = house.client().ask(request).await;
        assert_eq!((reply.status, reply.ended, reply.after.as_secs()), (200, Ended::Whole, 0));
        assert_eq!(reply.text(), format!("{START}{STOP}"));
        assert!(house.seen.borrow()[0].text().ends_with(&body));
    })
    .await;
}
