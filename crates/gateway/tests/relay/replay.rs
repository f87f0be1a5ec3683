//! `replaySecs`: an answer whose client went goes on, for the same request of the same caller; and for nobody else, and no
//! longer than it may.

use std::time::Duration;

use ledger::record::{Outcome, Record};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::client::{BODY, Client, Ended, messages, post};
use crate::common::pipes::{House, Step, TOKEN, in_house, once, peer, plain, send, wait};
use crate::records::begun;
use crate::time::{DELTA, STOP, STREAM, chunk};

fn for_a_minute(settings: &mut Value) {
    settings["routing"] = json!({ "replaySecs": 60 });
    settings["server"]["pingSecs"] = 3600.into();
    settings["providers"]["anthropic"]["idleTimeoutSecs"] = 600.into();
    settings["providers"]["anthropic"]["maxStreamSecs"] = 3000.into();
    once(settings);
}

fn ask() -> Vec<u8> {
    messages(true, "x-stainless-retry-count: 0\r\n")
}

/// The head of a stream whose connection carries nothing else.
fn head() -> Step {
    send(STREAM.replacen("\r\n", "\r\nconnection: close\r\n", 1))
}

/// A stream of which a part comes at once and the rest after so many seconds.
fn slow(seconds: f64) -> Vec<Step> {
    let first = format!("{}{DELTA}", begun("m"));
    let rest = format!("{DELTA}{STOP}");
    vec![Step::Request, head(), chunk(&first), wait(seconds), chunk(&rest), send("0\r\n\r\n"), Step::Hang]
}

fn whole() -> String {
    format!("{}{DELTA}{DELTA}{STOP}", begun("m"))
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

/// A client that asks, gets the beginning, and goes.
async fn goes(house: &House) {
    let mut client = house.client();
    client.send(ask()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(client.read().await);
    drop(client);
    house.clients_gone().await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_while_the_answer_still_comes_gets_all_of_it_and_nobody_is_asked_again() {
    in_house(for_a_minute, async |house| {
        house.script(slow(20.0));
        goes(house).await;
        assert!(house.records().is_empty(), "it goes on");
        let mut client = house.client();
        let reply = client.ask(messages(true, "x-stainless-retry-count: 1\r\n")).await;
        assert_eq!((reply.status, reply.ended, reply.text()), (200, Ended::Whole, &*whole()));
        assert_eq!((reply.after.as_secs(), house.dialed()), (15, 1));
        house.settled().await;
        let record = only_record(house);
        assert_eq!((record.outcome, record.deliveries, record.attempts.len()), (Outcome::Success, 2, 1), "{record:?}");
        assert_eq!(reply.header("x-cco-request-id"), Some(&*record.id.to_string()), "the exchange that it is");
        // The connection carries another request, which is one of its own.
        house.script(slow(0.0));
        let reply = client.ask(ask()).await;
        assert_eq!((reply.status, reply.ended, house.dialed()), (200, Ended::Whole, 2));
        assert_eq!(house.gateway.replays.counts().joined, 1);
    })
    .await;
}

/// A connection that broke and the request that follows reach the gateway in any order.
#[tokio::test(start_paused = true)]
async fn who_comes_back_before_it_is_known_that_it_went_gets_its_answer_too() {
    in_house(for_a_minute, async |house| {
        house.script(slow(20.0));
        let mut client = house.client();
        client.send(ask()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(client.read().await);
        let mut again = house.client();
        again.send(ask()).await;
        drop(client);
        let reply = again.reply().await;
        assert_eq!((reply.text(), reply.ended, house.dialed()), (&*whole(), Ended::Whole, 1));
        house.settled().await;
        assert_eq!(only_record(house).deliveries, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_after_the_end_gets_the_finished_answer_and_is_in_its_record() {
    in_house(for_a_minute, async |house| {
        house.script(slow(10.0));
        goes(house).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(house.records().is_empty(), "its record waits for who gets it");
        let reply = house.client().ask(ask()).await;
        assert_eq!((reply.status, reply.text(), reply.after.as_secs()), (200, &*whole(), 0));
        let record = only_record(house);
        assert_eq!((record.outcome, record.deliveries, house.dialed()), (Outcome::Success, 2, 1));
        // It was delivered: the next one is another request.
        house.script(slow(0.0));
        assert_eq!((house.client().ask(ask()).await.status, house.dialed()), (200, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_the_same_or_not_of_the_same_caller_is_a_request_of_its_own() {
    let other_key = || String::from_utf8(ask()).unwrap().replace("callers-own", "somebody-elses");
    let other_body = || String::from_utf8(ask()).unwrap().replace("\"hi ", "\"ho ");
    let other_header = || String::from_utf8(messages(true, "anthropic-beta: x\r\n")).unwrap();
    for other in [other_key(), other_body(), other_header()] {
        in_house(for_a_minute, async |house| {
            house.script(slow(20.0));
            goes(house).await;
            house.script(slow(0.0));
            let reply = house.client().ask(&other).await;
            assert_eq!((reply.status, house.dialed()), (200, 2), "{other}");
            assert_eq!(house.gateway.replays.counts().joined, 0);
            // The one who asked still gets its own.
            assert_eq!((house.client().ask(ask()).await.text(), house.dialed()), (&*whole(), 2));
        })
        .await;
    }
    // Our keys are spent for both, but from other machines.
    in_house(for_a_minute, async |house| {
        let body = BODY.replace("\"stream\":false", "\"stream\":true");
        let ask = || post("/v1/messages", &format!("x-cco-token: {TOKEN}\r\n"), &body);
        house.script(slow(20.0));
        let mut client = house.client_as(peer("10.0.0.1:1000", false));
        client.send(ask()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(client);
        house.clients_gone().await;
        house.script(slow(0.0));
        let reply = house.client_as(peer("10.0.0.2:1000", false)).ask(ask()).await;
        assert_eq!((reply.status, house.dialed()), (200, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_same_requests_whose_clients_are_both_there_are_two_requests() {
    in_house(for_a_minute, async |house| {
        house.script(slow(20.0));
        house.script(slow(20.0));
        let (mut one, mut other) = (house.client(), house.client());
        let (a, b) = tokio::join!(one.ask(ask()), other.ask(ask()));
        assert_eq!((a.text(), b.text(), house.dialed()), (&*whole(), &*whole(), 2));
        house.settled().await;
        assert!(house.records().iter().all(|record| record.deliveries == 0), "{:?}", house.records());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_which_nobody_comes_ends_in_time_and_its_upstream_with_it() {
    in_house(for_a_minute, async |house| {
        house.script(slow(1000.0));
        let asked = Instant::now();
        goes(house).await;
        house.saw(|seen| seen[0].closed.is_some()).await;
        assert_eq!(asked.elapsed().as_secs(), 65, "five until it went, and a minute");
        house.settled().await;
        let record = only_record(house);
        assert_eq!((record.outcome, record.deliveries), (Outcome::ClientDisconnected, 0), "{record:?}");
        assert_eq!(record.usage.as_ref().map(|usage| usage.tokens.input), Some(100));
        // Too late: that is another request.
        house.script(slow(0.0));
        assert_eq!((house.client().ask(ask()).await.status, house.dialed()), (200, 2));
        assert_eq!(house.gateway.replays.counts().expired, 1);
    })
    .await;
    // One that ended well is what it was for the client that went.
    in_house(for_a_minute, async |house| {
        house.script(slow(10.0));
        goes(house).await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        let record = only_record(house);
        assert_eq!((record.outcome, record.deliveries), (Outcome::ClientDisconnected, 0), "{record:?}");
        assert!(record.usage.is_some() && !record.usage_unknown);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_failed_is_kept_for_nobody() {
    in_house(for_a_minute, async |house| {
        let busy = "HTTP/1.1 529 X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        house.script([Step::Request, wait(10.0), send(busy), Step::Hang]);
        let mut client = house.client();
        client.send(ask()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(client);
        house.clients_gone().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        house.script(slow(0.0));
        let reply = house.client().ask(ask()).await;
        assert_eq!((reply.status, house.dialed()), (200, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_outgrows_its_room_passes_all_the_same_and_is_kept_for_nobody() {
    let little = |settings: &mut Value| {
        for_a_minute(settings);
        settings["server"]["maxHeldMb"] = 1.into();
        settings["server"]["maxBodyMb"] = 1.into();
    };
    let event = format!("event: x\ndata: \"{}\"\n\n", "x".repeat(100_000));
    let long = |seconds: f64| {
        let mut steps = vec![Step::Request, head(), chunk(&begun("m"))];
        for _ in 0..15 {
            steps.extend([chunk(DELTA), chunk(&event), wait(seconds)]);
        }
        steps.extend([chunk(STOP), send("0\r\n\r\n"), Step::Hang]);
        steps
    };
    in_house(little, async |house| {
        house.script(long(0.1));
        let reply = house.client().ask(ask()).await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        assert!(reply.body.len() > 1_500_000 && reply.text().ends_with(STOP));
        assert_eq!(house.gateway.replays.counts().outgrown, 1);
        // Who has outgrown it before its client goes ends with it.
        house.script(long(2.0));
        let mut client = house.client();
        client.send(ask()).await;
        for _ in 0..40 {
            assert!(client.read().await);
            if client.unread().len() > 1_200_000 {
                break;
            }
        }
        drop(client);
        let gone = Instant::now();
        house.saw(|seen| seen[1].closed.is_some()).await;
        assert!(gone.elapsed() < Duration::from_secs(3), "{:?}", gone.elapsed());
        // And who does afterwards, at that moment.
        house.script(long(2.0));
        goes(house).await;
        house.saw(|seen| seen[2].closed.is_some()).await;
        house.settled().await;
        assert_eq!(house.gateway.replays.counts().outgrown, 3);
        assert_eq!(house.records().last().map(|record| record.outcome), Some(Outcome::ClientDisconnected));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_ends_what_waits_and_not_what_is_read() {
    in_house(for_a_minute, async |house| {
        house.script(slow(1000.0));
        goes(house).await;
        let ended = Instant::now();
        house.phases.drain.cancel();
        house.saw(|seen| seen[0].closed.is_some()).await;
        assert_eq!(ended.elapsed(), Duration::ZERO);
        house.settled().await;
        assert_eq!(only_record(house).outcome, Outcome::ClientDisconnected);
    })
    .await;
    in_house(for_a_minute, async |house| {
        house.script(slow(20.0));
        let mut client = house.client();
        client.send(ask()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        house.phases.drain.cancel();
        let reply = client.reply().await;
        assert_eq!((reply.text(), reply.header("connection")), (&*whole(), Some("keep-alive")));
        client.closes().await;
    })
    .await;
    in_house(for_a_minute, async |house| {
        house.script(slow(1000.0));
        let mut client = house.client();
        client.send(ask()).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        house.phases.cut.cancel();
        let reply = client.reply().await;
        assert!(reply.text().contains("event: error"), "{}", reply.text());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whole_answers_and_refusals_come_as_without_it() {
    for edit in [plain as fn(&mut Value), for_a_minute] {
        in_house(edit, async |house| {
            let mut client = house.client();
            let direct = house.direct(&messages(false, "")).await;
            for _ in 0..2 {
                let reply = client.ask(messages(false, "")).await;
                assert_eq!((reply.status, reply.ended, reply.text()), (200, Ended::Whole, direct.text()));
            }
            let reply = client.ask(post("/v1/messages", "x-api-key: k\r\n", r#"{"model":"a","model":"b"}"#)).await;
            assert_eq!((reply.status, reply.keeps()), (400, true));
            let reply = client.ask(messages(true, "x-sim-fault: 429\r\n")).await;
            assert_eq!((reply.status, reply.keeps()), (429, true));
            let reply = client.ask(messages(true, "x-sim-fault: cut=3ev\r\n")).await;
            assert!(reply.text().contains("event: error"), "{}", reply.text());
            let reply = client.ask(messages(false, "x-sim-fault: cut=100\r\n")).await;
            assert_eq!(reply.ended, Ended::Short);
        })
        .await;
    }
}

/// A client that reads nothing is not what the answer of another waits for.
#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_given_up_after_a_while() {
    in_house(for_a_minute, async |house| {
        let event = format!("event: x\ndata: \"{}\"\n\n", "x".repeat(60_000));
        let mut steps = vec![Step::Request, send(STREAM), chunk(&begun("m")), chunk(DELTA)];
        steps.extend((0..4).map(|_| chunk(&event)));
        steps.push(Step::Hang);
        house.script(steps);
        let mut client: Client = house.client_with_pipe_of(1000, peer("127.0.0.1:40000", true));
        client.send(ask()).await;
        let asked = Instant::now();
        house.saw(|seen| seen.first().is_some_and(|one| one.closed.is_some())).await;
        assert!(asked.elapsed() >= Duration::from_secs(60), "{:?}", asked.elapsed());
        house.settled().await;
    })
    .await;
}
