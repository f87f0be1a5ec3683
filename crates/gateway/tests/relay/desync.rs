//! One meaning per answer: whatever an upstream sends beside it never reaches a client as the answer to something else.

use crate::common::client::{Ended, get, messages};
use crate::common::pipes::{Step, every_row, in_house, plain, send, wait};
use crate::time::{START, STOP, STREAM, chunk};

/// What would be another request's answer.
const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"evil\":true}";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// What the upstream sends (`{EVIL}` and `{OK}` expanded), the status that the client gets, and the body; `None`: ours.
type Row = (&'static str, u16, Option<(&'static str, Ended)>);

const WHOLE: Ended = Ended::Whole;
const SHORT: Ended = Ended::Short;

const ANSWERS: &[Row] = &[
    ("{OK}content-length: 2\r\n\r\n{}", 200, Some(("{}", WHOLE))),
    // Two answers at once, or bytes behind one that has no body.
    ("{OK}content-length: 2\r\n\r\n{}{EVIL}", 200, Some(("{}", WHOLE))),
    ("{OK}content-length: 0\r\n\r\n{EVIL}", 200, Some(("", WHOLE))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n{EVIL}", 200, Some(("{}", WHOLE))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nset-cookie: a\r\n\r\n{EVIL}", 200, Some(("{}", WHOLE))),
    ("HTTP/1.1 204 No Content\r\n\r\n{EVIL}", 204, Some(("", WHOLE))),
    ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\nhello", 204, Some(("", WHOLE))),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nhello", 304, Some(("", WHOLE))),
    ("HTTP/1.1 304 Not Modified\r\n\r\n{EVIL}", 304, Some(("", WHOLE))),
    ("HTTP/1.1 400 Bad\r\ncontent-length: 2\r\n\r\n{}{EVIL}", 400, Some(("{}", WHOLE))),
    // Interim heads are not for the client; nor are many of them.
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nset-cookie: a\r\n\r\n{OK}content-length: 2\r\n\r\n{}",
        200,
        Some(("{}", WHOLE)),
    ),
    ("HTTP/1.1 100 Continue\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n{EVIL}", 502, None),
    // Framing in two ways.
    ("{OK}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 502, None),
    ("{OK}content-length: 2\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("{OK}content-length: 2\r\nContent-Length: 79\r\n\r\n{}{EVIL}", 502, None),
    ("{OK}content-length: 2, 2\r\n\r\n{}", 502, None),
    ("{OK}content-length: +2\r\n\r\n{}", 502, None),
    ("{OK}content-length: two\r\n\r\n{}", 502, None),
    ("{OK}content-length:\r\n\r\n{}", 502, None),
    ("{OK}transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 502, None),
    ("{OK}transfer-encoding: identity\r\n\r\n{}", 502, None),
    ("{OK}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 502, None),
    ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 502, None),
    // Heads that are none.
    ("HTTP/1.1 200 OK\ncontent-length: 2\n\n{}", 502, None),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\n\r\n{}", 502, None),
    ("HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 200 OK\r\nx: y\r\n folded: z\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 200OK\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 99 Low\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 000 None\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/1.1 1000 High\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/2 200\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("ICY 200 OK\r\ncontent-length: 2\r\n\r\n{}", 502, None),
    ("<html>\r\n\r\n", 502, None),
    ("SSH-2.0-OpenSSH_9.2\r\n\r\n", 502, None),
    // Bodies that break off or run over.
    ("{OK}content-length: 20\r\n\r\n{}", 200, Some(("{}", SHORT))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n{EVIL}", 200, Some(("{}", SHORT))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}{EVIL}", 200, Some(("{}", SHORT))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: y\n\r\n{EVIL}", 200, Some(("{}", SHORT))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n", 200, Some(("", SHORT))),
    ("{OK}transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", 200, Some(("{}", SHORT))),
    // An answer that an injected line end has split: everything behind is this answer's, up to the close.
    (
        "{OK}x: y\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        200,
        Some(("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", WHOLE)),
    ),
    // An error answer is passed on as it is, whatever it says it is.
    ("HTTP/1.1 500 Oops\r\ncontent-type: text/event-stream\r\ncontent-length: 2\r\n\r\n{}", 500, Some(("{}", WHOLE))),
];

/// The scripted connection, then the simulator: whoever asks next must get the simulator's answer.
async fn check(steps: Vec<Step>, status: u16, body: Option<(&str, Ended)>) {
    in_house(plain, async |house| {
        house.script(steps);
        let mut client = house.client();
        let reply = client.ask(messages(false, "")).await;
        assert_eq!(reply.status, status, "{:?}", String::from_utf8_lossy(&reply.body));
        match body {
            Some((body, ended)) => assert_eq!((reply.text(), reply.ended), (body, ended)),
            None => assert_eq!(reply.refusal().0, "api_error"),
        }
        assert!(reply.header("set-cookie").is_none());
        house.settled().await;
        for request in [messages(false, ""), messages(true, "")] {
            let mut next = house.client();
            let (got, want) = (next.ask(&request).await, house.direct(&request).await);
            assert_eq!((got.status, got.text()), (200, want.text()));
        }
        assert_eq!(house.sim.requests().len(), 2, "the next requests went elsewhere");
    })
    .await;
}

fn expand(text: &str) -> String {
    text.replace("{OK}", OK).replace("{EVIL}", EVIL)
}

#[test]
fn what_an_upstream_sends_beside_its_answer_is_nobodys_answer() {
    every_row(ANSWERS, async |(text, status, body)| {
        // It closes behind what it has sent, so that it is not the connection's being there that decides.
        check(vec![Step::Request, send(expand(text))], *status, *body).await;
    });
}

#[test]
fn nor_is_it_when_the_upstream_keeps_its_connection_open() {
    // Those whose end does not show without the connection's, or that are not even begun, wait for their time-out.
    let shows = |row: &&Row| {
        let ended = row.2.is_none_or(|(_, ended)| ended == WHOLE);
        ended && !row.0.contains("{OK}x: y") && !row.0.starts_with("HTTP/1.1 100 Continue\r\ncontent")
    };
    let table: Vec<Row> = ANSWERS.iter().filter(shows).copied().collect();
    every_row(&table, async |(text, status, body)| {
        // Where nothing is wrong with it the connection would be used again: it ends when it is asked again.
        check(vec![Step::Request, send(expand(text)), Step::Request], *status, *body).await;
    });
}

#[test]
fn what_comes_while_a_connection_waits_for_work_closes_it() {
    let late = [
        EVIL.to_string(),
        "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_string(),
        "HTTP/1.1 100 Continue\r\n\r\n".to_string(),
        "\r\n".to_string(),
    ];
    every_row(&late, async |late| {
        in_house(plain, async |house| {
            house.script([
                Step::Request,
                send(expand("{OK}content-length: 2\r\n\r\n{}")),
                wait(5.0),
                send(late.as_str()),
                Step::Hang,
            ]);
            let mut client = house.client();
            assert_eq!(client.ask(messages(false, "")).await.text(), "{}");
            assert_eq!(house.worker.pool.len(), 1);
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
            let request = messages(true, "");
            let (got, want) = (client.ask(&request).await, house.direct(&request).await);
            assert_eq!((got.status, got.text()), (200, want.text()));
            // The request did not go where it was not wanted.
            house.saw(|seen| seen[0].closed.is_some()).await;
            assert_eq!(house.seen.borrow()[0].text().matches("POST").count(), 1);
        })
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_while_it_waited_costs_nothing_and_the_request_arrives_once() {
    in_house(plain, async |house| {
        house.script([Step::Request, send(expand("{OK}content-length: 2\r\n\r\n{}")), wait(5.0)]);
        let mut client = house.client();
        assert_eq!(client.ask(messages(false, "")).await.text(), "{}");
        house.saw(|seen| seen[0].over).await;
        assert_eq!(client.ask(messages(false, "")).await.status, 200);
        assert_eq!((house.sim.requests().len(), house.dialed()), (1, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_only_if_nothing_was_answered() {
    let pooled = [Step::Request, send(expand("{OK}content-length: 2\r\n\r\n{}")), Step::Request];
    // What the upstream does with a second request on its connection; how many more connections there are.
    for (then, status, again) in [
        (vec![], 200, 1),
        (vec![wait(0.5)], 200, 1),
        (vec![wait(2.0)], 502, 0),
        (vec![send("H")], 502, 0),
        (vec![send("HTTP/1.1 100 Continue\r\n\r\n")], 502, 0),
        (vec![send(expand("{OK}content-length: 2\r\n\r\n{"))], 200, 0),
    ] {
        in_house(plain, async |house| {
            let steps = pooled.iter().cloned().chain(then.clone());
            house.script(steps);
            let mut client = house.client();
            assert_eq!(client.ask(messages(false, "")).await.text(), "{}");
            let reply = client.ask(messages(false, "")).await;
            assert_eq!((reply.status, house.sim.requests().len()), (status, again), "{then:?}");
        })
        .await;
    }
    // A fresh connection that closes is no reason to ask again.
    in_house(plain, async |house| {
        house.script([Step::Request]);
        assert_eq!(house.client().ask(messages(false, "")).await.status, 502);
        assert_eq!(house.dialed(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn interim_heads_are_read_over_as_long_as_they_are_few() {
    let hint = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n";
    check(
        vec![Step::Request, send(hint.repeat(8)), send(expand("{OK}content-length: 2\r\n\r\n{}"))],
        200,
        Some(("{}", WHOLE)),
    )
    .await;
    check(vec![Step::Request, Step::SendForEver(hint.into())], 502, None).await;
    // One after the other they are not fewer.
    let slow = (0..50).flat_map(|_| [send(hint), wait(0.1)]);
    check([Step::Request].into_iter().chain(slow).chain([Step::Hang]).collect(), 502, None).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_has_no_body_whatever_it_says() {
    in_house(plain, async |house| {
        house.script([
            Step::Request,
            send(expand("{OK}content-length: 13\r\n\r\n")),
            send("{\"evil\":true}"),
            Step::Hang,
        ]);
        let mut client = house.client();
        let head = String::from_utf8(get("/v1/models", "x-api-key: k\r\n")).unwrap().replacen("GET", "HEAD", 1);
        client.send(head).await;
        let reply = client.reply_to("HEAD").await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("13")));
        let request = messages(false, "");
        let (got, want) = (client.ask(&request).await, house.direct(&request).await);
        assert_eq!((got.status, got.text()), (200, want.text()));
        assert_eq!(house.dialed(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_follows_the_last_event_is_not_anothers() {
    in_house(plain, async |house| {
        let over = format!("{START}{STOP}");
        house.script([Step::Request, send(STREAM), chunk(&over), send(format!("0\r\n\r\n{EVIL}")), Step::Hang]);
        let mut client = house.client();
        let reply = client.ask(messages(true, "")).await;
        assert_eq!((reply.text(), reply.ended), (over.as_str(), WHOLE));
        let request = messages(false, "");
        let (got, want) = (client.ask(&request).await, house.direct(&request).await);
        assert_eq!((got.status, got.text()), (200, want.text()));
    })
    .await;
}
