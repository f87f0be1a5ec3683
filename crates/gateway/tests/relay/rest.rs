//! What else passes: old clients, batch objects, connections that wait, and as many of them as there may be.

use std::sync::Arc;
use std::time::Duration;

use gateway::client::Phases;
use gateway::config::{self, Env, Paths};
use gateway::daemon::Server;
use gateway::gateway::Current;
use gateway::net::{Dialer, Settings};
use gateway::recorder::Recorder;
use gateway::setup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::client::{Ended, get, messages, post};
use crate::common::pipes::{Step, TOKEN, every_row, in_house, plain, send, wait};
use crate::time::{START, STOP, STREAM, chunk};

fn old(request: Vec<u8>) -> String {
    String::from_utf8(request).unwrap().replacen("HTTP/1.1", "HTTP/1.0", 1)
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_gets_streams_that_end_with_the_connection() {
    in_house(plain, async |house| {
        let request = messages(true, "");
        let reply = house.client().ask(old(request.clone())).await;
        assert_eq!((reply.status, reply.ended, reply.header("transfer-encoding")), (200, Ended::Closed, None));
        assert_eq!(reply.text(), house.direct(&request).await.text());
        // Whole answers keep their length.
        let reply = house.client().ask(old(messages(false, ""))).await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        // Where the end of the connection says nothing, the last event does.
        let reply = house.client().ask(old(messages(true, "x-sim-fault: cut=1000\r\n"))).await;
        assert_eq!(reply.ended, Ended::Closed);
        let (events, error) = reply.text().split_once("event: error\n").expect("an error event");
        assert!(events.ends_with("\n\n") && error.ends_with("\n\n"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_happens_behind_the_last_event_does_not_concern_the_client() {
    for (then, after, pooled) in [
        (vec![Step::Hang], 60, false),
        (vec![], 0, false),
        (vec![send("zz\r\n"), Step::Hang], 0, false),
        (vec![wait(59.0), send("0\r\n\r\n"), Step::Hang], 59, true),
    ] {
        in_house(plain, async |house| {
            let steps = [Step::Request, send(STREAM), chunk(START), chunk(STOP)];
            house.script(steps.into_iter().chain(then.clone()));
            let reply = house.client().ask(messages(true, "")).await;
            assert_eq!((reply.ended, reply.after.as_secs()), (Ended::Whole, after), "{then:?}");
            assert_eq!(reply.text(), format!("{START}{STOP}"));
            house.settled().await;
            assert_eq!((house.outcomes(), house.worker.pool.len()), (vec![("success", 1)], usize::from(pooled)));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_waited_for_fifty_seconds_is_not_used_again() {
    for (seconds, connections) in [(49, 1), (51, 2)] {
        in_house(plain, async |house| {
            let mut client = house.client();
            for _ in 0..2 {
                assert_eq!(client.ask(messages(false, "")).await.status, 200);
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
            assert_eq!(house.sim.connections_seen(), connections);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_requests_at_a_time_each_gets_its_own_answer() {
    in_house(plain, async |house| {
        let tasks = tokio_util::task::TaskTracker::new();
        let mut answers = vec![];
        for n in 0..40 {
            let (mut client, request) =
                (house.client(), messages(n % 2 == 0, &format!("x-sim: text=answer-{n}. every={n}\r\n")));
            answers.push(tasks.spawn_local(async move {
                for _ in 0..5 {
                    let reply = client.ask(&request).await;
                    assert!(reply.status == 200 && reply.text().contains(&format!("answer-{n}.")));
                }
            }));
        }
        for answer in answers {
            answer.await.unwrap();
        }
        assert!(house.sim.connections_seen() <= 40 && house.worker.pool.len() == house.sim.connections_open());
        assert_eq!(house.outcomes(), [("success", 200)]);
    })
    .await;
}

/// A batch object that names its results.
const OBJECT: &str = r#"{"id":"b","results_url":"http://upstream.test/v1/messages/batches/b/results","x":1.0e5}"#;
const OURS: &str = r#"{"id":"b","results_url":"http://127.0.0.1:54548/v1/messages/batches/b/results","x":1.0e5}"#;

/// What the upstream sends for a batch object; the client's status and, if it is not ours, the body.
type Batch = (&'static str, u16, Option<&'static str>);

const BATCHES: &[Batch] = &[
    ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {N}\r\n\r\n{O}", 200, Some(OURS)),
    (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{X}\r\n{O}\r\n0\r\n\r\n",
        200,
        Some(OURS),
    ),
    ("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{O}", 200, Some(OURS)),
    ("HTTP/1.1 404 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", 404, Some("{}")),
    ("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {N}\r\n\r\n{O}", 200, Some(OBJECT)),
    ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{O}", 502, None),
    (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{X}\r\n{O}\r\n",
        502,
        None,
    ),
    ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{O}\r\n", 502, None),
    ("HTTP/1.1 204 No Content\r\n\r\n", 204, Some("")),
];

#[test]
fn a_batch_object_names_us_as_the_place_of_its_results_or_is_an_error() {
    every_row(BATCHES, async |(answer, status, body)| {
        in_house(plain, async |house| {
            let answer = answer.replace("{O}", OBJECT).replace("{N}", &OBJECT.len().to_string());
            house.script([Step::Request, send(answer.replace("{X}", &format!("{:x}", OBJECT.len())))]);
            let mut client = house.client();
            let reply = client.ask(get("/v1/messages/batches/b", "x-api-key: k\r\n")).await;
            assert_eq!((reply.status, reply.ended), (*status, Ended::Whole), "{}", reply.text());
            match body {
                Some(body) => assert_eq!(reply.text(), *body),
                None => assert_eq!(reply.refusal().0, "api_error"),
            }
            let outcome = match *status {
                200 | 204 => "success",
                _ => "upstream_error",
            };
            house.settled().await;
            assert_eq!(house.outcomes(), [(outcome, 1)]);
            assert_eq!(client.ask(messages(false, "")).await.status, 200);
        })
        .await;
    });
}

#[tokio::test(start_paused = true)]
async fn a_batch_object_that_does_not_come_or_whose_client_goes_ends_as_any_answer() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    in_house(plain, async |house| {
        house.script([Step::Request, send(head), Step::Hang]);
        let reply = house.client().ask(get("/v1/messages/batches/b", "x-api-key: k\r\n")).await;
        assert_eq!((reply.status, reply.after.as_secs(), reply.refusal().0.as_str()), (504, 60, "timeout_error"));
    })
    .await;
    in_house(plain, async |house| {
        house.script([Step::Request, send(head), Step::Hang]);
        let mut client = house.client();
        client.send(get("/v1/messages/batches/b", "x-api-key: k\r\n")).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let gone = tokio::time::Instant::now();
        drop(client);
        house.saw(|seen| seen[0].closed.is_some()).await;
        assert_eq!(gone.elapsed().as_secs(), 0);
        house.settled().await;
        assert_eq!(house.outcomes(), [("client_disconnected", 1)]);
    })
    .await;
    in_house(plain, async |house| {
        let huge = "content-length: 17000000\r\n\r\n";
        house.script([
            Step::Request,
            send(head.replace("content-length: 100\r\n\r\n{", huge)),
            Step::SendForEver(vec![b' '; 60_000]),
        ]);
        let reply = house.client().ask(get("/v1/messages/batches/b", "x-api-key: k\r\n")).await;
        assert_eq!((reply.status, reply.refusal().0.as_str()), (502, "api_error"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_arrives_as_it_was_sent_whatever_its_framing() {
    in_house(plain, async |house| {
        let mut client = house.client();
        let body = "x".repeat(300_000);
        let head = |framing: &str| {
            format!(
                "POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nx-api-key: k\r\nanthropic-version: 2023-06-01\r\n\
                 content-type: application/octet-stream\r\n{framing}\r\n\r\n"
            )
        };
        let chunks: String =
            body.as_bytes().chunks(7001).map(|c| format!("{:x}\r\n{}\r\n", c.len(), "x".repeat(c.len()))).collect();
        for (request, chunked) in [
            (head(&format!("content-length: {}", body.len())) + &body, false),
            (head("transfer-encoding: chunked") + &chunks + "0\r\nx-trailer: y\r\n\r\n", true),
            (head("expect: 100-continue\r\ncontent-length: 300000") + &body, false),
        ] {
            client.send(request).await;
            client.reply().await;
            let arrived = house.sim.requests().pop().unwrap();
            assert_eq!((arrived.body_len, arrived.body_complete, arrived.chunked), (300_000, true, chunked));
            assert!(arrived.oddities.is_empty(), "{:?}", arrived.oddities);
        }
        assert_eq!(client.ask(post("/v1/messages", "x-api-key: k\r\n", "{}")).await.status, 400);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_breaks_off_is_not_whole_because_its_connection_ended() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    for (body, ended) in [
        (r#"{"id":"m","content":[{"text":"a }"}]}"#, Ended::Whole),
        ("{}\n", Ended::Whole),
        ("[]", Ended::Whole),
        ("no object", Ended::Whole),
        ("", Ended::Whole),
        ("{", Ended::Short),
        (r#"{"id":"m","content":[{"text":"a"#, Ended::Short),
        (r#"{"id":"m","content":[{"text":"a }"}]"#, Ended::Short),
    ] {
        in_house(plain, async |house| {
            house.script([Step::Request, send(head), send(body)]);
            let reply = house.client().ask(messages(false, "")).await;
            assert_eq!((reply.status, reply.ended, reply.text()), (200, ended, body));
            let outcome = if ended == Ended::Whole { "success" } else { "truncated" };
            assert_eq!(house.outcomes(), [(outcome, 1)], "{body}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_type_is_a_stream_if_one_was_asked_for() {
    let head = || send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let answer = || [Step::Request, head(), chunk(START), send("0\r\n\r\n")];
    in_house(plain, async |house| {
        house.script(answer().into_iter().chain(answer()).chain([Step::Hang]));
        let reply = house.client().ask(messages(true, "")).await;
        for (name, value) in
            [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
        {
            assert_eq!(reply.header(name), Some(value));
        }
        let (events, error) = reply.text().split_once("event: error\n").expect("an error event");
        assert!(events == START && error.contains("before its last event"), "{error}");
        // Whoever asked for no stream gets what there is.
        let reply = house.client().ask(messages(false, "")).await;
        assert_eq!((reply.header("content-type"), reply.text()), (None, START));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_unpacks_to_far_more_than_it_is_ends_without_an_end() {
    // Read to its end, it would be whole.
    let stream = [START.as_bytes(), &vec![b'\n'; 100 << 20], STOP.as_bytes()].concat();
    let bomb = zstd::encode_all(&stream[..], 1).unwrap();
    assert!(bomb.len() < 64 * 1024);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: zstd\r\n";
    in_house(plain, async |house| {
        house.script([
            Step::Request,
            send(format!("{head}content-length: {}\r\n\r\n", bomb.len())),
            send(bomb),
            Step::Hang,
        ]);
        let mut client = house.client();
        let reply = client.ask(messages(true, "")).await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Short));
        house.settled().await;
        assert_eq!((house.outcomes(), house.worker.pool.len()), (vec![("truncated", 1)], 0));
    })
    .await;
}

/// A gateway on a real socket; it does not accept before it runs.
fn server(workers: usize, max_connections: usize) -> (Server, std::net::SocketAddr) {
    let (config, _) =
        config::parse(r#"{ "server": { "token": "env:TOKEN", "drainSecs": 1 } }"#, &Paths::default()).unwrap();
    let dialer = Arc::new(Dialer::new(Settings::default()));
    let (gateway, _) =
        setup::gateway(&config, &Env::fixed([("TOKEN", TOKEN)]), "test", dialer, Recorder::off()).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (current, phases) = (Current::new(gateway), Phases::default());
    (Server { own: None, place: None, listener, current, phases, workers, max_connections }, address)
}

#[tokio::test]
async fn connections_that_come_in_one_go_are_counted_one_by_one() {
    let (server, address) = server(4, 3);
    let phases = server.phases.clone();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let ask = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n");
        client.write_all(ask.as_bytes()).await.unwrap();
        clients.push(client);
    }
    let thread = std::thread::spawn(move || server.run());
    let mut served = 0;
    for client in &mut clients {
        let mut answer = [0; 12];
        // Who is turned away may miss the answer: what it has sent is not read.
        let read = client.read_exact(&mut answer).await;
        served += usize::from(read.is_ok() && &answer == b"HTTP/1.1 200");
    }
    assert_eq!(served, 3);
    phases.drain.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
}

/// With real sockets, since it is the listener that counts.
#[tokio::test]
async fn a_connection_too_many_is_told_so_and_one_that_ends_makes_room() {
    let (server, address) = server(2, 2);
    let (gateway, phases) = (server.current.get(), server.phases.clone());
    let thread = std::thread::spawn(move || server.run());

    let ask = format!("GET /health HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let open = async || {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(ask.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = socket.read(&mut answer).await.unwrap();
        (socket, String::from_utf8_lossy(&answer[..n]).into_owned())
    };
    let (first, answer) = open().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_second, answer) = open().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut many = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    many.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 529 ") && answer.contains("retry-after: 5\r\n"), "{answer}");
    assert!(answer.contains("overloaded_error") && answer.contains("server.maxConnections"), "{answer}");
    assert_eq!(gateway.counters.connections_refused.load(std::sync::atomic::Ordering::Relaxed), 1);

    drop(first);
    while gateway.counters.connections.load(std::sync::atomic::Ordering::Relaxed) > 1 {
        tokio::task::yield_now().await;
    }
    let (_third, answer) = open().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // Idle connections do not hold the process.
    phases.drain.cancel();
    tokio::task::spawn_blocking(move || thread.join()).await.unwrap().unwrap().unwrap();
}
