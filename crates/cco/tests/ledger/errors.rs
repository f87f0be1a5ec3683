//! Every error of ours ends with the command that tells more, and the command does.

use serde_json::json;

use crate::common::{Ended, Gateway, Piece, binary, error_event, prompt, request, streamed, upstream, whole};
use crate::{cco, get, home, printed};

/// The short id that a message of ours ends with.
#[track_caller]
fn hint<'a>(message: &'a str, id: &str) -> &'a str {
    let (_, short) = message.rsplit_once("; details: cco logs show ").unwrap_or_else(|| panic!("{message}"));
    assert!(short.len() == 8 && id.ends_with(short), "{message}");
    short
}

#[tokio::test]
async fn every_refusal_ends_with_a_command_that_tells_more_about_it() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "server": { "maxBodyMb": 0.01 } }));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let large = prompt(&"x".repeat(20_000), false);
    let host = b"GET /health HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_vec();
    for (bytes, status, cause) in [
        // Before they are exchanges …
        (get("/nothing", ""), 404, "there is nothing at `/nothing`"),
        (request("POST", "/gateway/health", "", "x"), 405, "use GET"),
        (get("/gateway/audit", ""), 401, "admin token"),
        (host, 403, "is not this gateway"),
        (b"GET /health HTTP/1.1\r\n\r\n".to_vec(), 400, ""),
        // … and afterwards.
        (request("POST", "/v1/messages", "", "{\"model\":\"a\",\"model\":\"b\"}"), 400, "cco refused the request: "),
        (request("POST", "/v1/messages", "", large), 413, "cco refused the request: "),
        (whole("fault=garbage"), 502, "`anthropic` could not be reached: "),
        (whole("fault=redirect=http://127.0.0.1/x"), 502, "redirect"),
    ] {
        let mut client = gateway.client().await;
        client.send_raw(&located(&bytes, &gateway)).await.unwrap();
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        let short = hint(&message, answer.id());
        let output = cco(home.path(), &["logs", "show", short]).await;
        let shown = printed(&output);
        assert!(shown.starts_with("cause: ") && shown.contains("\nhelp:  "), "{shown}");
        assert!(shown.contains(cause) && shown.contains(answer.id()), "`{cause}` is not in:\n{shown}");
    }
}

fn located(bytes: &[u8], gateway: &Gateway) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).unwrap();
    text.replacen("Host: localhost", &format!("Host: {}", gateway.addr), 1).into_bytes()
}

#[tokio::test]
async fn an_error_event_of_ours_ends_with_it_too_and_one_of_the_upstreams_does_not() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let answer = gateway.ask(streamed("fault=truncate text=\"one two three\"")).await;
    let at = answer.text().rfind("event: error").unwrap();
    let error = error_event(&answer.body[at..], answer.id());
    let short = hint(error["message"].as_str().unwrap(), answer.id());
    let output = cco(home.path(), &["logs", "show", short]).await;
    assert!(printed(&output).starts_with("cause: the answer of `anthropic` stopped before its end: "));
    for script in ["fault=error-mid", "fault=529"] {
        let answer = gateway.ask(streamed(script)).await;
        assert!(!answer.text().contains("cco logs show"), "the upstream's words are its own: {}", answer.text());
    }
}

#[tokio::test]
async fn what_is_refused_while_the_program_ends_says_so_too() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({ "server": { "drainSecs": 0.2 } }));
    let mut gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let mut client = gateway.client().await;
    client.send(streamed("fault=endless every=20")).await;
    let mut answer = client.head().await;
    client.read_until(&mut answer, "and so on").await;
    gateway.signal("TERM").await;
    let ended = loop {
        match client.piece().await {
            Piece::Data(data) => answer.body.extend_from_slice(&data),
            Piece::End(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Whole);
    let at = answer.text().rfind("event: error").unwrap();
    let error = error_event(&answer.body[at..], answer.id());
    let short = hint(error["message"].as_str().unwrap(), answer.id()).to_owned();
    assert!(gateway.ended().await.success());
    let output = cco(home.path(), &["logs", "show", &short]).await;
    assert!(printed(&output).contains("the gateway was stopped"), "{}", printed(&output));
}

#[tokio::test]
async fn messages_on_the_command_line_do_not_send_people_round_in_circles() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let _gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let mut command = binary();
    command.args(["logs", "show", "12345678"]).env("CCO_HOME", home.path());
    let output = command.output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "error: no exchange is known as `12345678`\nhelp: `cco logs` lists what there is\n");
    assert_eq!(output.status.code(), Some(1));
}
