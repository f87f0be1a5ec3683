//! `/api/streams/subscribe` and `cco watch`: what happens, as it happens, and never at a stream's expense.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::Instant;

use crate::common::{
    Answer, Client, Ended, Gateway, Piece, binary, contains, prompt, request, soon, streamed, until, upstream, whole,
};
use crate::{admin, get, home, stop};

/// Watches, from the moment in which the gateway says so.
async fn watch(gateway: &Gateway) -> (Client, Answer) {
    let mut client = gateway.client().await;
    client.send(get("/api/streams/subscribe", &admin(gateway))).await;
    let mut answer = client.head().await;
    assert_eq!(answer.status, 200);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    client.read_until(&mut answer, ": watching\n\n").await;
    answer.body.clear();
    (client, answer)
}

/// The events so far, by name.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let events = answer.text().split("\n\n").filter(|event| event.starts_with("event: "));
    let read = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        (name, serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap())
    };
    events.map(read).collect()
}

#[tokio::test]
async fn a_viewer_sees_beginning_text_and_end_of_every_exchange() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    gateway.ask(whole("text=unseen")).await;
    let (mut viewer, mut seen) = watch(&gateway).await;
    let script = "x-sim: text=\"caf\\u00e9 and \\u001b[2J\" input_tokens=7 output_tokens=5\r\n\
                  x-claude-code-session-id: s1\r\nx-cco-project: site\r\n";
    let first = gateway.ask(request("POST", "/v1/messages", script, prompt("canary-of-the-prompt", true))).await;
    let second = gateway.ask(whole("fault=529")).await;
    let at_once = gateway.ask(whole("text=\"all at once\"")).await;
    let third = gateway.ask(streamed("fault=truncate text=\"a b c d\"")).await;
    viewer.read_until(&mut seen, "\"outcome\":\"truncated\"").await;
    let all = events(&seen);
    let of = |answer: &Answer| -> Vec<&(String, Value)> {
        all.iter().filter(|(_, event)| event["id"] == answer.id()).collect()
    };
    assert_eq!(
        [&first, &second, &at_once, &third].map(|answer| of(answer).len()).iter().sum::<usize>(),
        all.len(),
        "{all:?}"
    );

    let one = of(&first);
    let (name, started) = one[0];
    assert_eq!(
        (name.as_str(), &started["model"], &started["session"]),
        ("started", &json!("claude-sonnet-5-5"), &json!("s1"))
    );
    assert_eq!(
        (&started["project"], &started["operation"], &started["stream"]),
        (&json!("site"), &json!("generation"), &json!(true))
    );
    let said = |events: &[&(String, Value)]| -> String {
        let texts =
            events.iter().filter(|(name, _)| name == "text_delta").map(|(_, event)| event["text"].as_str().unwrap());
        texts.collect()
    };
    assert_eq!(said(&of(&at_once)), "all at once");
    assert_eq!(said(&one), "café and \u{1b}[2J");
    let (name, ended) = one[one.len() - 1];
    assert_eq!(
        (name.as_str(), &ended["outcome"], &ended["output_tokens"]),
        ("completed", &json!("success"), &json!(5))
    );
    assert!(ended["cost_usd"].as_f64() > Some(0.0) && ended["duration_ms"].as_f64() > Some(0.0), "{ended}");

    let names = |answer: &Answer| of(answer).iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&second), ["started", "error"]);
    assert_eq!((&of(&second)[1].1["status"], &of(&second)[1].1["outcome"]), (&json!(529), &json!("upstream_error")));
    assert_eq!(names(&third).last().map(String::as_str), Some("error"));
    assert!(!contains(&seen.body, b"canary-of-the-prompt") && !contains(&seen.body, crate::common::KEY.as_bytes()));
}

#[tokio::test]
async fn a_viewer_that_does_not_read_loses_events_and_slows_nobody() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let quick = streamed("events=2000 size=2000");
    // Without and with one that does not read.
    let began = Instant::now();
    let alone = gateway.ask(&quick).await;
    let alone_took = began.elapsed();
    let (mut stalled, mut seen) = watch(&gateway).await;
    let began = Instant::now();
    for _ in 0..4 {
        let answer = gateway.ask(&quick).await;
        assert_eq!((answer.ended, answer.body.len()), (Ended::Whole, alone.body.len()));
    }
    let took = began.elapsed() / 4;
    assert!(took < alone_took * 5 + Duration::from_secs(1), "{took:?} with a viewer, {alone_took:?} without");
    // 8000 events of 2 KB are more than sockets and ring hold.
    let skipped = loop {
        let lost: u64 = events(&whole_part(&seen))
            .iter()
            .filter(|(name, _)| name == "lag")
            .map(|(_, event)| event["skipped"].as_u64().unwrap())
            .sum();
        let done = seen.text().matches("event: completed").count();
        if lost > 0 && done > 0 {
            break lost;
        }
        match stalled.piece().await {
            Piece::Data(data) => seen.body.extend_from_slice(&data),
            Piece::End(ended) => panic!("{ended:?}"),
        }
    };
    let page = gateway.ask(get("/metrics", "")).await;
    let counted =
        page.text().lines().find_map(|line| line.strip_prefix("cco_live_skipped_total ")).unwrap().parse::<u64>();
    assert!(counted.unwrap() >= skipped, "{skipped} were told");
    assert!(contains(&page.body, b"\ncco_live_viewers 1\n"), "{}", page.text());
    drop(stalled);
    until(async || contains(&gateway.ask(get("/metrics", "")).await.body, b"\ncco_live_viewers 0\n")).await;
}

/// The part that consists of whole events.
fn whole_part(answer: &Answer) -> Answer {
    let end = crate::common::whole_events(&answer.body);
    Answer {
        version: String::new(),
        reason: String::new(),
        headers: Vec::new(),
        status: 200,
        ended: Ended::Whole,
        body: answer.body[..end].to_vec(),
    }
}

#[tokio::test]
async fn viewers_do_not_hold_up_the_end() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let (mut viewer, mut seen) = watch(&gateway).await;
    let (silent, _) = watch(&gateway).await;
    let began = Instant::now();
    stop(gateway).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let ended = loop {
        match viewer.piece().await {
            Piece::Data(data) => seen.body.extend_from_slice(&data),
            Piece::End(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Whole);
    drop(silent);
}

#[tokio::test]
async fn there_are_only_so_many_viewers() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    let mut viewers = Vec::new();
    for _ in 0..32 {
        viewers.push(watch(&gateway).await);
    }
    let refused = gateway.ask(get("/api/streams/subscribe", &admin(&gateway))).await;
    refused.refusal(529, "overloaded_error");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gateway.ask(whole("text=served")).await.status, 200);
}

#[tokio::test]
async fn the_command_shows_what_happens() {
    let upstream = upstream().await;
    let home = home(&upstream, json!({}));
    let gateway = Gateway::start_in(home.path(), &[], &[]).await;
    let mut command = binary();
    command.arg("watch").env("CCO_HOME", home.path()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    until(async || contains(&gateway.ask(get("/metrics", "")).await.body, b"\ncco_live_viewers 1\n")).await;
    let answer = gateway.ask(streamed("text=\"one\\ntwo \\u001b[2J\" output_tokens=3")).await;
    let short = &answer.id()[28..];
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || soon(out.next_line()).await.unwrap().unwrap();
    assert_eq!(next().await, format!("{short} ▶ generation anthropic claude-sonnet-5-5"));
    assert_eq!(next().await, format!("{short} │ one"));
    assert_eq!(next().await, format!("{short} │ two \\u{{1b}}[2J"));
    let end = next().await;
    assert!(end.starts_with(&format!("{short} ✓ success anthropic claude-sonnet-5-5, ")), "{end}");
    assert!(end.contains(", 3 tokens, "), "{end}");
    stop(gateway).await;
    assert!(soon(child.wait()).await.unwrap().success());
    let output = crate::cco(home.path(), &["watch"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(crate::text(&output.stderr), "error: no gateway is running here\nhelp: cco daemon start\n");
}
