//! `hedgeAfterMs`: a second target beside one that does not begin. One of them answers, the other ends in that moment.

use std::time::Duration;

use ledger::record::{Outcome, Record};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::common::client::{BODY, Ended, post};
use crate::common::pipes::{House, Step, Upstream, in_house, once, send, wait};
use crate::records::begun;
use crate::time::{DELTA, PING, STOP, STREAM, chunk};

/// Two providers, each with a key of ours; the second is asked after two seconds.
fn two(settings: &mut Value) {
    settings["providers"]["second"] = json!({
        "providerType": "anthropic-compatible", "baseUrl": "http://second.test", "apiKeyRef": "env:OTHER_KEY",
        "timeoutSecs": 100, "idleTimeoutSecs": 60,
    });
    settings["routing"] =
        json!({ "fallbackChain": ["anthropic", "second"], "hedgeAfterMs": 2000, "commitAfterSecs": 200 });
    once(settings);
}

fn ask(stream: bool) -> Vec<u8> {
    let body = if stream { BODY.replace("\"stream\":false", "\"stream\":true") } else { BODY.to_string() };
    post("/v1/messages", "", &body)
}

/// A stream that begins after so many seconds.
fn late(seconds: f64, model: &str) -> Vec<Step> {
    let answer = format!("{}{DELTA}{STOP}", begun(model));
    vec![Step::Request, wait(seconds), send(STREAM), chunk(&answer), send("0\r\n\r\n"), Step::Hang]
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

fn attempts(record: &Record) -> Vec<(&str, Outcome, u64)> {
    record.attempts.iter().map(|one| (&*one.provider, one.outcome, one.started_us / 1_000_000)).collect()
}

#[tokio::test(start_paused = true)]
async fn of_two_targets_the_one_that_begins_first_answers_and_the_other_is_cancelled_in_that_moment() {
    in_house(two, async |house| {
        house.script(late(30.0, "slow"));
        house.script(late(1.0, "quick"));
        let mut client = house.client();
        let asked = Instant::now();
        let reply = client.ask(ask(true)).await;
        assert_eq!((reply.status, reply.ended, reply.after.as_secs()), (200, Ended::Whole, 3));
        assert_eq!((reply.header("x-cco-provider"), reply.header("x-cco-attempts")), (Some("second"), Some("2")));
        assert!(reply.text().contains("\"quick\"") && !reply.text().contains("\"slow\""), "{}", reply.text());
        assert_eq!(reply.text().matches("message_start\n").count(), 1, "one answer");
        house.saw(|seen| seen[0].closed.is_some()).await;
        let closed = house.seen.borrow()[0].closed.unwrap();
        assert!(closed - asked < Duration::from_millis(3100), "the slow one heard of it after {:?}", closed - asked);
        house.settled().await;
        let record = only_record(house);
        let both = [("anthropic", Outcome::HedgeLost, 0), ("second", Outcome::Success, 2)];
        assert_eq!((&attempts(&record)[..], record.outcome), (&both[..], Outcome::Success));
        assert_eq!(record.parties.provider.as_deref(), Some("second"));
        assert!(record.usage_unknown, "the slow one may have used something");
        assert_eq!(record.credential.as_ref().map(|key| key.as_str()), Some("…"), "the key that paid");
        // What was used is that of the one that answered.
        assert_eq!(record.usage.as_ref().map(|usage| usage.tokens.input), Some(100));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_first_target_that_begins_before_the_second_wins_and_what_the_second_used_is_in_the_cost() {
    let model = "claude-sonnet-4-5";
    in_house(two, async |house| {
        house.script(late(5.0, model));
        // It says what the prompt came to, and nothing else yet.
        house.script([Step::Request, send(STREAM), chunk(&begun(model)), Step::Hang]);
        let reply = house.client().ask(ask(true)).await;
        let got = (reply.status, reply.header("x-cco-provider"), reply.header("x-cco-attempts"), reply.after.as_secs());
        assert_eq!(got, (200, Some("anthropic"), Some("2"), 5), "{}", reply.text());
        house.saw(|seen| seen[1].closed.is_some()).await;
        house.settled().await;
        let record = only_record(house);
        assert_eq!(attempts(&record), [("second", Outcome::HedgeLost, 2), ("anthropic", Outcome::Success, 0)]);
        assert_eq!(record.parties.provider.as_deref(), Some("anthropic"));
        let lost = &record.attempts[0];
        let (used, price) = (lost.usage.as_ref().map(|usage| usage.tokens.input), lost.cost.map(|cost| cost.0));
        assert_eq!(used, Some(100), "{record:?}");
        let Some(price) = price else { return assert!(record.cost.is_some(), "{record:?}") };
        assert!(price > 0 && record.cost.is_some_and(|all| all.0 > price), "{record:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_second_target_is_asked_where_the_first_has_begun_or_does_not_stream() {
    in_house(two, async |house| {
        // It has begun, and takes its time.
        let rest = format!("{DELTA}{STOP}");
        house.script([
            Step::Request,
            send(STREAM),
            chunk(&begun("m")),
            wait(20.0),
            chunk(&rest),
            send("0\r\n\r\n"),
            Step::Hang,
        ]);
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts"), house.dialed()), (200, Some("1"), 1));
    })
    .await;
    // What comes whole would be paid twice.
    in_house(two, async |house| {
        house.script([Step::Request, wait(20.0), send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Step::Hang]);
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts"), house.dialed()), (200, Some("1"), 1));
    })
    .await;
    // Pings are no beginning.
    in_house(two, async |house| {
        house.script([Step::Request, send(STREAM), chunk(PING), Step::Hang]);
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider"), reply.after.as_secs()), (200, Some("second"), 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_leaves_the_other_to_answer_and_of_both_the_first_is_told() {
    let busy = "HTTP/1.1 529 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    // The first fails while the second runs.
    in_house(two, async |house| {
        house.script([Step::Request, wait(3.0), send(busy), Step::Hang]);
        house.script(late(4.0, "m"));
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider"), reply.after.as_secs()), (200, Some("second"), 6));
        house.settled().await;
        let record = only_record(house);
        assert_eq!(attempts(&record), [("anthropic", Outcome::UpstreamError, 0), ("second", Outcome::Success, 2)]);
    })
    .await;
    // The second fails, or does not like the request, while the first runs.
    for answer in [busy.to_string(), busy.replace("529 X", "400 X")] {
        in_house(two, async |house| {
            house.script(late(5.0, "m"));
            house.script([Step::Request, send(&*answer), Step::Hang]);
            let reply = house.client().ask(ask(true)).await;
            assert_eq!(
                (reply.status, reply.header("x-cco-provider"), reply.after.as_secs()),
                (200, Some("anthropic"), 5)
            );
            house.settled().await;
            let record = only_record(house);
            assert_eq!(attempts(&record), [("second", Outcome::UpstreamError, 2), ("anthropic", Outcome::Success, 0)]);
        })
        .await;
    }
    // Both fail.
    in_house(two, async |house| {
        house.script([Step::Request, wait(3.0), send(busy), Step::Hang]);
        house.script([Step::Request, wait(2.0), send(busy.replace("529", "500")), Step::Hang]);
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider"), reply.after.as_secs()), (529, Some("anthropic"), 4));
        assert_eq!((only_record(house).attempts.len(), house.dialed()), (2, 2));
    })
    .await;
    // What the first says of the request is the last word.
    in_house(two, async |house| {
        house.script([Step::Request, wait(3.0), send(busy.replace("529", "400")), Step::Hang]);
        house.script(late(4.0, "m"));
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider"), reply.after.as_secs()), (400, Some("anthropic"), 3));
        house.saw(|seen| seen[1].closed.is_some()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_takes_both_with_it() {
    in_house(two, async |house| {
        house.script([Step::Request, Step::Hang]);
        house.script([Step::Request, send(STREAM), chunk(&begun("m")), Step::Hang]);
        let mut client = house.client();
        client.send(ask(true)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(house.seen.borrow().len(), 2);
        let gone = Instant::now();
        drop(client);
        house.clients_gone().await;
        house.saw(|seen| seen.iter().all(|one| one.closed.is_some())).await;
        assert_eq!(gone.elapsed(), Duration::ZERO);
        let record = only_record(house);
        assert_eq!((record.outcome, record.attempts.len()), (Outcome::ClientDisconnected, 2), "{record:?}");
        assert!(record.attempts.iter().all(|one| one.outcome == Outcome::ClientDisconnected), "{record:?}");
        assert!(record.usage_unknown);
    })
    .await;
    in_house(two, async |house| {
        house.script([Step::Request, Step::Hang]);
        house.script([Step::Request, Step::Hang]);
        let mut client = house.client();
        client.send(ask(true)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        house.phases.cut.cancel();
        assert_eq!(client.reply().await.status, 503);
        house.settled().await;
        assert_eq!(only_record(house).attempts.len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_hour_does_not_double_the_load_and_opens_the_circuit_of_who_is_always_late() {
    let quiet = |settings: &mut Value| {
        two(settings);
        settings["providers"]["anthropic"]["timeoutSecs"] = 20.into();
    };
    in_house(quiet, async |house| {
        let mut hedged = 0;
        for _ in 0..6 {
            house.next_upstream(Upstream::Never);
            let reply = house.client().ask(ask(true)).await;
            assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")));
            hedged += usize::from(reply.after.as_secs() == 2);
        }
        assert_eq!(hedged, 6);
        // It was overtaken six times in a row: the next request does not even try it.
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.header("x-cco-provider"), reply.after.as_secs()), (Some("second"), 0), "{}", reply.text());
    })
    .await;
    in_house(quiet, async |house| {
        while house.gateway.routing.budget.withdraw() {}
        house.next_upstream(Upstream::Never);
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")));
        assert!(reply.after.as_secs() >= 10, "nobody paid for a second try: {:?}", reply.after);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_target_that_is_full_is_not_waited_for() {
    let full = |settings: &mut Value| {
        two(settings);
        settings["providers"]["second"]["maxConcurrent"] = 1.into();
    };
    in_house(full, async |house| {
        let provider = house.gateway.provider(1).expect("the second");
        let _turn = provider.cap.try_enter().expect("nobody is there");
        house.script(late(5.0, "m"));
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.header("x-cco-provider"), reply.header("x-cco-attempts")), (Some("anthropic"), Some("1")));
        assert_eq!((reply.after.as_secs(), house.dialed()), (5, 1));
    })
    .await;
}
