//! The journal: what was received, told by an independent witness.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use sim::{EndKind, Received, Sim, SimConfig};

use crate::client::{Ended, body, get, request, soon, start, streamed, whole};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_kept_as_it_came() {
    let server = start(SimConfig::default()).await;
    let body = body("[[sim text=x]]", true);
    let more = "X-Api-Key: sk-1\r\nANTHROPIC-beta: b1\r\nanthropic-beta:  b2 \r\n";
    let raw = request("POST", "/v1/messages?beta=true&x=%2F", more, &body);
    server.ask(&raw).await;
    let received = server.last_ended().await;
    assert_eq!((received.seq, received.connection, received.method.as_str()), (1, 1, "POST"));
    assert_eq!((received.target.as_str(), received.path()), ("/v1/messages?beta=true&x=%2F", "/v1/messages"));
    assert_eq!([received.head.as_ref(), received.body.as_ref()].concat(), raw.as_bytes());
    let names: Vec<&str> = received.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Host", "anthropic-version", "X-Api-Key", "ANTHROPIC-beta", "anthropic-beta", "Content-Length"]);
    assert_eq!(received.header_all("Anthropic-Beta"), ["b1", "b2"]);
    assert_eq!((received.header("x-api-key"), received.body_len), (Some("sk-1"), body.len() as u64));
    assert!(received.body_complete && !received.chunked && received.oddities.is_empty(), "{:?}", received.oddities);
    let end = received.end.clone().unwrap();
    assert_eq!((end.kind, end.status, end.faults), (EndKind::Complete, Some(200), Vec::new()));
    assert_eq!(end.sent_bytes, received.sent_bytes());
    assert!(received.peer.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn the_file_has_the_request_before_the_answer_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let server = start(SimConfig { journal: Some(path.clone()), ..SimConfig::default() }).await;
    let mut client = server.client().await;
    client
        .send(request(
            "POST",
            "/v1/messages",
            "Authorization: Bearer sk-secret\r\n",
            &body("[[sim text=x fault=stall=0]]", true),
        ))
        .await;
    client.response(true).await.unwrap();
    let before = lines(&path);
    assert_eq!(before.len(), 1, "the answer has begun, and not ended");
    let line = &before[0];
    assert_eq!((&line["seq"], &line["method"], &line["target"]), (&json!(1), &json!("POST"), &json!("/v1/messages")));
    assert_eq!(line["headers"][0], json!(["Host", "sim.test"]));
    assert_eq!(line["headers"][2][1].as_str().unwrap().len(), "sha256:".len() + 64, "a credential is a digest");
    assert_eq!(line["body_sha256"], server.sim.requests()[0].body_sha256);
    assert!(line.get("body").is_none() && !line.to_string().contains("sk-secret"));
    drop(client);
    server.last_ended().await;
    let after = lines(&path);
    assert_eq!((after.len(), &after[1]["seq"], &after[1]["end"]), (2, &json!(1), &json!("client_gone")));
    assert_eq!(after[1]["aborted_after_bytes"], after[1]["sent_bytes"]);
    assert!(after[1]["aborted_after_ms"].is_u64());
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn the_file_holds_bodies_and_credentials_if_told_so_and_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let config = || SimConfig {
        journal: Some(path.clone()),
        journal_bodies: true,
        journal_secrets: true,
        ..SimConfig::default()
    };
    let server = start(config()).await;
    server.ask(&request("POST", "/v1/messages", "x-api-key: sk-1\r\n", &body("grüße", false))).await;
    server.last_ended().await;
    let server = start(config()).await;
    let mut client = server.client().await;
    client.send([request("POST", "/v1/files", "", "xx").replace("xx", "").as_bytes(), b"\xff\xfe"].concat()).await;
    client.response(false).await.unwrap();
    server.last_ended().await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["body"], body("grüße", false));
    assert!(lines[0]["headers"].as_array().unwrap().contains(&json!(["x-api-key", "sk-1"])));
    assert_eq!((&lines[2]["body_base64"], &lines[2]["body_len"]), (&json!("//4="), &json!(2)));
    assert_eq!((&lines[3]["end"], &lines[3]["status"]), (&json!("complete"), &json!(400)));
}

#[test]
fn a_journal_that_cannot_be_opened_is_named() {
    let config = SimConfig { journal: Some("/none/journal.jsonl".into()), ..SimConfig::default() };
    assert!(Sim::new(config).unwrap_err().to_string().contains("`/none/journal.jsonl`"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_request_that_cannot_be_written_down_is_not_answered_as_if_it_were() {
    let server = start(SimConfig { journal: Some("/dev/full".into()), ..SimConfig::default() }).await;
    let response = server.ask(&whole("[[sim text=x]]")).await;
    assert_eq!(response.status, 500);
    assert!(response.json()["error"]["message"].as_str().unwrap().contains("journal"));
}

#[tokio::test]
async fn the_memory_of_requests_is_bounded_and_counts_what_fell_out() {
    let server = start(SimConfig { keep_requests: 3, ..SimConfig::default() }).await;
    let mut client = server.client().await;
    for _ in 0..5 {
        client.ask(&get("/v1/models")).await;
    }
    assert_eq!(server.sim.requests().iter().map(|received| received.seq).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(server.sim.requests_fallen_out(), 2);

    let server = start(SimConfig { keep_bytes: 1000, ..SimConfig::default() }).await;
    for _ in 0..3 {
        server.ask(&whole(&"x".repeat(600))).await;
    }
    assert_eq!((server.sim.requests().len(), server.sim.requests_fallen_out()), (1, 2));
}

#[tokio::test]
async fn what_is_odd_about_a_request_is_named_and_ambiguous_ones_are_refused() {
    let server = start(SimConfig::default()).await;
    for (raw, oddity) in [
        ("GET /v1/models HTTP/1.1\r\n\r\n", "no `host`"),
        ("GET /v1/models HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", "more than one `host`"),
        (
            "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "both `content-length`",
        ),
        (
            "POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "more than one `content-length`",
        ),
        ("POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", "no number"),
        ("POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "not just `chunked`"),
        ("GET /v1/models HTTP/1.1\nHost: a\n\n", "carriage return"),
        ("GET http://a/v1/models HTTP/1.1\r\nHost: a\r\n\r\n", "not a path"),
        ("nonsense\r\n\r\n", "cannot be read"),
        ("POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk size"),
        (
            "POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            "longer than its size",
        ),
        ("POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n", "carriage return"),
    ] {
        let mut client = server.client().await;
        let response = client.ask(raw).await;
        assert_eq!((response.status, response.header("connection")), (400, Some("close")), "{raw}");
        assert_eq!(client.rest().await.1, Ended::Short, "{raw}");
        let oddities = server.last_ended().await.oddities;
        assert!(oddities.iter().any(|known| known.contains(oddity)), "{raw}: {oddities:?}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(300_000));
    assert_eq!(server.ask(&long).await.status, 431);
    for more in [
        "te: trailers",
        "proxy-authorization: x",
        "cookie: a=b",
        "x-forwarded-for: ::1",
        "x-cco-tag: 1",
        "x-api-key: 1\r\nAuthorization: Bearer 1",
    ] {
        assert_eq!(server.ask(&request("GET", "/v1/models", &format!("{more}\r\n"), "")).await.status, 200);
        assert_eq!(server.last_ended().await.oddities.len(), 1, "{more}");
    }
}

#[tokio::test]
async fn a_client_that_goes_inside_of_its_body_is_seen() {
    let server = start(SimConfig::default()).await;
    let mut client = server.client().await;
    let whole = whole("never whole");
    client.send(&whole[..whole.len() - 5]).await;
    drop(client);
    let received = server.last_ended().await;
    assert!(received.client_gone() && !received.body_complete);
    assert_eq!(received.body_len, body("never whole", false).len() as u64 - 5);
}

#[tokio::test]
async fn a_body_is_counted_while_it_comes() {
    let server = start(SimConfig::default()).await;
    let mut client = server.client().await;
    let whole = whole("never whole");
    let missing = 5;
    client.send(&whole[..whole.len() - missing]).await;
    let came = (body("never whole", false).len() - missing) as u64;
    soon(server.sim.wait_for_body_bytes(|bytes| bytes == came)).await;
    assert!(server.sim.requests().is_empty());
    client.send(&whole[whole.len() - missing..]).await;
    assert_eq!(client.response(false).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_while_the_simulator_waits_or_writes() {
    let server = start(SimConfig::default()).await;
    for marker in [
        "[[sim text=a first=3600000]]",
        "[[sim events=100 size=10 every=3600000]]",
        "[[sim events=100000 size=10000]]",
        "[[sim fault=delay-head=3600000]]",
    ] {
        let mut client = server.client().await;
        client.send(streamed(marker)).await;
        soon(server.sim.wait_for(|all| all.last().is_some_and(|last| last.end.is_none()))).await;
        drop(client);
        assert!(server.last_ended().await.client_gone(), "{marker}");
        soon(server.sim.wait_for_connections(|open| open == 0)).await;
    }
}

#[tokio::test]
async fn at_shutdown_everything_ends_and_is_told() {
    let server = start(SimConfig::default()).await;
    let mut stalled = server.client().await;
    stalled.send(streamed("[[sim fault=no-bytes]]")).await;
    let idle = server.client().await;
    soon(server.sim.wait_for_connections(|open| open == 2)).await;
    soon(server.sim.wait_for(|all: &[Received]| all.len() == 1)).await;
    assert_eq!(server.sim.connections_seen(), 2);
    server.stop.cancel();
    soon(server.tasks.wait()).await;
    assert_eq!(server.sim.connections_open(), 0);
    assert_eq!(server.sim.requests()[0].end.as_ref().unwrap().kind, EndKind::Stopped);
    assert!(stalled.response(false).await.is_none());
    drop(idle);
}

#[tokio::test]
async fn a_condition_that_never_comes_true_does_not_end_the_waiting() {
    let server = start(SimConfig::default()).await;
    let never = server.sim.wait_for(|_| false);
    assert!(tokio::time::timeout(Duration::from_millis(50), never).await.is_err());
}

#[tokio::test]
async fn a_large_body_is_kept_with_its_digest() {
    let server = start(SimConfig::default()).await;
    let prompt = "x".repeat(30 << 20);
    let response = server.ask(&whole(&prompt)).await;
    assert_eq!(response.status, 200);
    let received = server.last_ended().await;
    assert_eq!(received.body_len as usize, received.body.len());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&received.body).unwrap();
    let sum = std::process::Command::new("sha256sum").arg(file.path()).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&received.body_sha256));
}
