//! `continueOnBreak`: an answer that breaks off is gone on with by a second request, and its client sees one answer.

use ledger::record::{Outcome, Record};
use serde_json::{Value, json};

use crate::common::client::{Ended, Reply, post};
use crate::common::pipes::{House, Step, in_house, once, send, wait};
use crate::records::begun;
use crate::time::{STOP, STREAM, chunk};

const MODEL: &str = "claude-sonnet-4-5";

fn on(settings: &mut Value) {
    settings["routing"] = json!({ "continueOnBreak": true });
    once(settings);
}

fn ask_for(model: &str, more: &str) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"{model}","max_tokens":99,"stream":true{more},"messages":[{{"role":"user","content":"count"}}]}}"#
    );
    post("/v1/messages", "x-api-key: sk-ant-api03-callers-own\r\n", &body)
}

fn ask() -> Vec<u8> {
    ask_for(MODEL, "")
}

fn event(data: &Value) -> String {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
}

fn start(kind: &str) -> String {
    let block = match kind {
        "text" => json!({ "type": "text", "text": "" }),
        kind => json!({ "type": kind, "id": "t", "name": "n", "input": {} }),
    };
    event(&json!({ "type": "content_block_start", "index": 0, "content_block": block }))
}

fn text(text: &str) -> String {
    event(&json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } }))
}

fn end() -> String {
    let stop = event(&json!({ "type": "content_block_stop", "index": 0 }));
    let usage = json!({ "output_tokens": 7 });
    let delta = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage });
    format!("{stop}{}{STOP}", event(&delta))
}

/// An answer that is closed behind this; another connection is needed for the next.
fn broken(events: &str) -> Vec<Step> {
    vec![Step::Request, send(STREAM), chunk(events)]
}

fn whole(events: &str) -> Vec<Step> {
    vec![Step::Request, send(STREAM), chunk(events), send("0\r\n\r\n"), Step::Hang]
}

fn first() -> String {
    format!("{}{}{}{}", begun(MODEL), start("text"), text("one "), text("two "))
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

/// The texts of an answer, joined.
fn said(reply: &Reply) -> String {
    let data = reply.text().lines().filter_map(|line| line.strip_prefix("data: "));
    let data = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    data.filter_map(|data| data["delta"]["text"].as_str().map(String::from)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_goes_on_without_a_seam() {
    in_house(on, async |house| {
        // With the beginning of an event that nobody saw the end of.
        house.script(broken(&format!("{}event: content_bl", first())));
        house.script(whole(&rest()));
        let reply = house.client().ask(ask()).await;
        assert_eq!((reply.status, reply.ended, house.dialed()), (200, Ended::Whole, 2), "{}", reply.text());
        assert_eq!(said(&reply), "one two three four");
        for (name, count) in [
            ("message_start", 1),
            ("content_block_start", 1),
            ("content_block_stop", 1),
            ("message_stop", 1),
            ("error", 0),
        ] {
            assert_eq!(reply.text().matches(&format!("event: {name}\n")).count(), count, "{name}: {}", reply.text());
        }
        // What was used is what both used: that of the second one as it said, that of the first by our count.
        let told = reply.text().rsplit_once("\"output_tokens\":").and_then(|(_, rest)| rest.split(['}', ',']).next());
        let told: u64 = told.unwrap().parse().unwrap();
        assert!((8..20).contains(&told), "{}", reply.text());
        let second = house.seen.borrow()[1].text();
        let (_, body) = second.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let turn = json!({ "role": "assistant", "content": [{ "type": "text", "text": "one two" }] });
        assert_eq!((&body["messages"][1], &body["stream"], &body["max_tokens"]), (&turn, &json!(true), &json!(99)));
        house.settled().await;
        let record = only_record(house);
        let outcomes: Vec<_> = record.attempts.iter().map(|one| one.outcome).collect();
        assert_eq!(
            (record.outcome, record.continued, &outcomes[..]),
            (Outcome::Success, 1, &[Outcome::Truncated, Outcome::Success][..])
        );
        let usage = record.usage.as_ref().unwrap();
        assert_eq!((usage.tokens.input, usage.tokens.cache_read, record.output()), (200, 2000, told), "{record:?}");
        assert!(record.is_estimated() && record.cost.is_some() && !record.usage_unknown, "{record:?}");
        assert_eq!(record.stop_reason.as_deref(), Some("end_turn"));
    })
    .await;
}

/// What the first stream said and the second one says behind it.
fn rest() -> String {
    format!("{}{}{}{}{}", begun(MODEL), start("text"), text(" three"), text(" four"), end())
}

#[tokio::test(start_paused = true)]
async fn an_answer_whose_beginning_was_held_back_goes_on_as_well() {
    let two = |settings: &mut Value| {
        settings["providers"]["second"] = json!({
            "providerType": "anthropic-compatible", "baseUrl": "http://second.test", "apiKeyRef": "env:OTHER_KEY",
        });
        settings["routing"] = json!({ "continueOnBreak": true, "fallbackChain": ["anthropic", "second"] });
        once(settings);
    };
    in_house(two, async |house| {
        house.script(broken(&first()));
        house.script(whole(&rest()));
        let reply = house.client().ask(ask()).await;
        assert_eq!((said(&reply), house.dialed()), ("one two three four".into(), 2), "{}", reply.text());
        assert!(!reply.text().contains("event: error"), "{}", reply.text());
        let hosts = house.seen.borrow().iter().filter(|seen| seen.text().contains("host: upstream.test\r\n")).count();
        assert_eq!(hosts, 2, "the same provider");
        house.settled().await;
        assert_eq!((only_record(house).outcome, only_record(house).continued), (Outcome::Success, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_the_rest_hears_that_something_happens() {
    in_house(on, async |house| {
        let mut second = whole(&rest());
        second.insert(1, wait(40.0));
        house.script(broken(&first()));
        house.script(second);
        let reply = house.client().ask(ask()).await;
        assert_eq!((said(&reply), reply.ended), ("one two three four".into(), Ended::Whole), "{}", reply.text());
        assert_eq!((reply.text().matches("event: ping\n").count(), reply.after.as_secs()), (2, 40), "{}", reply.text());
    })
    .await;
}

/// What the client gets where nothing goes on.
async fn check_told(house: &House, request: Vec<u8>, dialed: usize) {
    let reply = house.client().ask(request).await;
    assert_eq!((reply.status, reply.ended, house.dialed()), (200, Ended::Whole, dialed), "{}", reply.text());
    assert_eq!(reply.text().matches("event: error\n").count(), 1, "{}", reply.text());
    assert_eq!(reply.text().matches("event: message_start\n").count(), 1, "{}", reply.text());
    house.settled().await;
    let record = only_record(house);
    assert_eq!((record.outcome, record.continued), (Outcome::Truncated, 0), "{record:?}");
    assert_eq!(record.attempts.len(), dialed, "{record:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_gone_on_with_is_told_as_before() {
    let off = |settings: &mut Value| once(settings);
    in_house(off, async |house| {
        house.script(broken(&first()));
        check_told(house, ask(), 1).await;
    })
    .await;
    // A newer model, one that thinks, a call of a tool, nothing said yet.
    for (request, events) in [
        (ask_for("claude-sonnet-5-5", ""), first()),
        (ask_for(MODEL, r#","thinking":{"type":"enabled","budget_tokens":2000}"#), first()),
        (ask(), format!("{}{}", begun(MODEL), start("tool_use"))),
        (ask(), format!("{}{}", begun(MODEL), start("text"))),
    ] {
        in_house(on, async |house| {
            house.script(broken(&events));
            check_told(house, request, 1).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_request_that_fails_is_none_of_the_clients_business() {
    let refused = "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let busy = event(&json!({ "type": "error", "error": { "type": "overloaded_error", "message": "busy" } }));
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let failed = |status| (Outcome::UpstreamError, status);
    for (second, of_second) in [
        (vec![Step::Request, send(refused), Step::Hang], failed(Some(400))),
        (vec![Step::Request], failed(None)),
        (broken(&begun(MODEL)), (Outcome::Truncated, Some(200))),
        (whole(&busy), failed(Some(200))),
        (vec![Step::Request, send(json)], failed(Some(200))),
    ] {
        in_house(on, async |house| {
            house.script(broken(&first()));
            house.script(second);
            check_told(house, ask(), 2).await;
            let record = only_record(house);
            assert!(record.usage.is_some(), "what the first one used");
            let outcomes: Vec<_> = record.attempts.iter().map(|one| (one.outcome, one.status)).collect();
            assert_eq!(outcomes, [(Outcome::Truncated, Some(200)), of_second], "each try ends as it ended");
        })
        .await;
    }
    // And one that breaks off as well is not gone on with again.
    in_house(on, async |house| {
        house.script(broken(&first()));
        house.script(broken(&format!("{}{}{}", begun(MODEL), start("text"), text(" three"))));
        let reply = house.client().ask(ask()).await;
        assert_eq!((said(&reply), house.dialed()), ("one two three".into(), 2), "{}", reply.text());
        assert!(reply.text().contains("event: error\n"));
        house.settled().await;
        let record = only_record(house);
        assert_eq!((record.outcome, record.continued), (Outcome::Truncated, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_while_the_rest_is_asked_for_takes_it_along() {
    in_house(on, async |house| {
        house.script(broken(&first()));
        house.script([Step::Request, Step::Hang]);
        let mut client = house.client();
        client.send(ask()).await;
        house.saw(|seen| seen.len() == 2 && !seen[1].bytes.is_empty()).await;
        drop(client);
        house.saw(|seen| seen[1].closed.is_some()).await;
        house.settled().await;
        let record = only_record(house);
        assert_eq!((record.continued, record.attempts.len()), (0, 2), "{record:?}");
        assert!(record.outcome == Outcome::Truncated && record.usage_unknown, "{record:?}");
    })
    .await;
}
