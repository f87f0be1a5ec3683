//! A chain of providers: what its client gets when one of them fails, who is asked for it, with which key, and what the
//! record says.

use std::time::Duration;

use gateway::net::Cause;
use ledger::record::{Outcome, Record};
use serde_json::{Value, json};

use crate::common::client::{BODY, Ended, Reply, messages, post};
use crate::common::pipes::{House, STORED_KEY, Step, Upstream, every_row, in_house, once, peer, send, wait};
use crate::faults::{FAULTS, Mode, Row, Want, check_answer};
use crate::time::{STREAM, chunk};

/// Two providers, each with a key of ours, and no second try at either.
fn two(settings: &mut Value) {
    settings["providers"]["second"] = json!({
        "providerType": "anthropic-compatible",
        "baseUrl": "http://second.test",
        "apiKeyRef": "env:OTHER_KEY",
        "timeoutSecs": 100,
        "idleTimeoutSecs": 60,
        "maxStreamSecs": 300,
    });
    settings["routing"] = json!({ "fallbackChain": ["anthropic", "second"], "commitAfterSecs": 200 });
    once(settings);
}

fn faulty(settings: &mut Value, provider: &str, fault: &str) {
    if !fault.is_empty() {
        settings["providers"][provider]["headers"] = json!({ "x-sim-fault": fault });
    }
}

/// A request without a key of its caller's.
fn request(stream: bool, script: &str) -> Vec<u8> {
    let body = if stream { BODY.replace("\"stream\":false", "\"stream\":true") } else { BODY.to_string() };
    post("/v1/messages?beta=true", &format!("x-sim: events=20 size=40 {script}\r\n"), &body)
}

fn stream() -> Vec<u8> {
    request(true, "")
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

/// Who was asked, and how that ended.
fn attempts(record: &Record) -> Vec<(&str, Outcome, Option<u16>)> {
    record.attempts.iter().map(|attempt| (&*attempt.provider, attempt.outcome, attempt.status)).collect()
}

#[track_caller]
fn check_served(reply: &Reply, provider: &str, attempts: &str) {
    let got = (reply.status, reply.ended, reply.header("x-cco-provider"), reply.header("x-cco-attempts"));
    assert_eq!(got, (200, Ended::Whole, Some(provider), Some(attempts)), "{}", reply.text());
}

/// Whether another target is asked after this.
fn follows((mode, _, fault, ..): &Row) -> bool {
    let streamed = *mode == Mode::Stream;
    match fault.split('=').next().unwrap_or_default() {
        "401" | "402" | "403" | "404" | "429" | "500" | "502" | "502-html" | "503" | "504" | "529" => true,
        "error-first" | "close-before-head" | "garbage" | "redirect" => true,
        "error-mid" => !streamed,
        "header-bomb" => *fault != "header-bomb=100",
        "truncate" => ["truncate=0", "truncate=1"].contains(fault),
        "cut" => streamed && ["cut=0", "cut=1"].contains(fault),
        "stall" => *fault == "stall=0",
        "delay-head" => *fault == "delay-head=101000",
        "bad-chunk" | "no-bytes" => streamed,
        _ => false,
    }
}

/// The same without the upstream's fault.
fn without_fault(body: &[u8]) -> String {
    crate::faults::unnumbered(body)
}

#[test]
fn every_fault_of_the_first_target_is_invisible_where_that_is_possible() {
    every_row(FAULTS, async |row| {
        let (mode, script, fault, ..) = row;
        let edit = |settings: &mut Value| {
            two(settings);
            faulty(settings, "anthropic", fault);
        };
        in_house(edit, async |house| {
            let request = request(*mode == Mode::Stream, script);
            let mut client = house.client();
            let got = client.ask(&request).await;
            house.settled().await;
            let record = only_record(house);
            if follows(row) {
                let good = house.direct(&request).await;
                check_served(&got, "second", "2");
                assert_eq!(without_fault(&got.body), without_fault(&good.body));
                let [(first, failed, _), second] = attempts(&record)[..] else { panic!("{record:?}") };
                assert!(first == "anthropic" && failed.is_failure(), "{record:?}");
                assert_eq!((second, record.outcome), (("second", Outcome::Success, Some(200)), Outcome::Success));
            } else {
                let faults = crate::faults::comparable(row);
                let fields = format!("x-sim: events=20 size=40 {script}\r\n{faults}");
                let direct = house.direct(&messages(*mode == Mode::Stream, &fields)).await;
                check_answer(row, &got, &direct);
                assert_eq!(record.attempts.len(), 1, "{record:?}");
            }
            assert_eq!(house.sim.requests().len(), house.sim.requests().iter().filter(|r| r.body_complete).count());
        })
        .await;
    });
}

#[test]
fn of_two_targets_that_fail_the_client_gets_the_answer_that_tells_it_most() {
    every_row(FAULTS, async |row| {
        let (mode, script, fault, want, ..) = row;
        let edit = |settings: &mut Value| {
            two(settings);
            faulty(settings, "anthropic", "529");
            faulty(settings, "second", fault);
        };
        in_house(edit, async |house| {
            let streamed = *mode == Mode::Stream;
            let got = house.client().ask(&request(streamed, script)).await;
            house.settled().await;
            let record = only_record(house);
            assert_eq!(attempts(&record)[0], ("anthropic", Outcome::UpstreamError, Some(529)));
            assert_eq!(record.attempts.len(), 2, "{record:?}");
            assert_ne!(got.header("x-should-retry"), Some("false"));
            // The last one is streamed as it comes; only what says less gives way to the one before.
            let has_head = matches!(want, Want::Verbatim(200) | Want::ErrorEvent | Want::Short);
            let says_less = follows(row) && !has_head && !fault.starts_with("429");
            if says_less || matches!(want, Want::Ours(_)) {
                let direct = house.direct(&messages(streamed, "x-sim-fault: 529\r\n")).await;
                assert_eq!((got.status, got.header("x-cco-provider")), (529, Some("anthropic")));
                assert_eq!(without_fault(&got.body), without_fault(&direct.body));
                assert_eq!(record.parties.provider.as_deref(), Some("anthropic"));
            } else {
                let faults = crate::faults::comparable(row);
                let fields = format!("x-sim: events=20 size=40 {script}\r\n{faults}");
                let direct = house.direct(&messages(streamed, &fields)).await;
                check_answer(row, &got, &direct);
                assert_eq!(record.parties.provider.as_deref(), Some("second"));
            }
        })
        .await;
    });
}

/// Four providers on four hosts: the caller's own, and three of ours.
fn four(settings: &mut Value) {
    let other = |host: &str, variable: &str| json!({ "providerType": "anthropic-compatible", "baseUrl": format!("http://{host}.test"), "apiKeyRef": format!("env:{variable}") });
    settings["providers"]["b"] = other("b", "KEY_B");
    settings["providers"]["c"] = other("c", "KEY_C");
    settings["providers"]["d"] = other("d", "KEY_D");
    settings["routing"] = json!({ "fallbackChain": ["anthropic", "b", "c", "d"] });
    for (provider, fault) in [("anthropic", "529"), ("b", "503"), ("c", "500")] {
        faulty(settings, provider, fault);
    }
    once(settings);
}

#[tokio::test(start_paused = true)]
async fn each_upstream_of_a_chain_gets_its_own_key_and_no_other() {
    in_house(four, async |house| {
        let own = "sk-ant-api03-callers-own";
        let body = BODY.replace("false", "true");
        let fields = format!("x-api-key: {own}\r\ncookie: {own}\r\nx-cco-token: nothing\r\n");
        let reply = house.client().ask(post("/v1/messages", &fields, &body)).await;
        check_served(&reply, "d", "4");
        let requests = house.sim.requests();
        let keys = [("upstream.test", own), ("b.test", "sk-key-b"), ("c.test", "sk-key-c"), ("d.test", "sk-key-d")];
        assert_eq!(requests.len(), keys.len());
        for (request, (host, key)) in requests.iter().zip(keys) {
            let head = String::from_utf8_lossy(&request.head);
            assert_eq!(request.header_all("host"), [host]);
            assert_eq!(request.header_all("x-api-key"), [key]);
            for other in [own, "sk-key-b", "sk-key-c", "sk-key-d", STORED_KEY, "sk-other-key"] {
                assert!(other == key || !head.contains(other), "{host} got `{other}`: {head}");
            }
            assert_eq!(request.body, body.as_bytes(), "the body is the client's");
        }
        let record = only_record(house);
        assert_eq!(
            record.credential.map(|shown| shown.as_str().to_string()),
            Some("…".into()),
            "of a short key nothing"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_chain_in_which_only_the_caller_has_a_key_has_one_target() {
    let edit = |settings: &mut Value| {
        two(settings);
        faulty(settings, "anthropic", "529");
    };
    in_house(edit, async |house| {
        let stranger = peer("127.0.0.1:40000", false);
        let reply = house.client_as(stranger).ask(messages(true, "")).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts")), (529, Some("1")));
        assert_eq!(house.sim.requests().len(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_model_is_renamed_without_another_byte_being_moved() {
    let edit = |settings: &mut Value| {
        two(settings);
        faulty(settings, "anthropic", "503");
        settings["providers"]["second"]["modelAliases"] = json!({ "sonnet": "ours \"one\"" });
    };
    in_house(edit, async |house| {
        let body = r#"{ "max_tokens":1,"model" : "claude-sonnet-4-5" ,"odd": [1, 2.50],"messages":[{"role":"user","content":"hi"}]}"#;
        let reply = house.client().ask(post("/v1/messages", "", body)).await;
        check_served(&reply, "second", "2");
        let requests = house.sim.requests();
        assert_eq!(requests[0].body, body.as_bytes());
        assert_eq!(requests[1].body, body.replace("\"claude-sonnet-4-5\"", "\"ours \\\"one\\\"\"").as_bytes());
        let record = only_record(house);
        assert_eq!(record.parties.requested_model.as_deref(), Some("claude-sonnet-4-5"));
        let models: Vec<_> = record.attempts.iter().map(|attempt| attempt.model.as_deref()).collect();
        assert_eq!(models, [Some("claude-sonnet-4-5"), Some("ours \"one\"")]);
    })
    .await;
}

/// `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`, packed.
const PACKED: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 13, 139, 193, 10, 128, 32, 16, 5, 255, 101, 207, 121, 8, 234, 210, 175, 68, 132,
    232, 163, 34, 221, 5, 87, 33, 16, 255, 189, 61, 206, 48, 211, 41, 75, 68, 162, 141, 66, 242, 45, 194, 169, 48, 163,
    186, 197, 173, 52, 81, 246, 223, 89, 229, 5, 43, 109, 179, 33, 84, 253, 5, 131, 189, 83, 145, 4, 219, 154, 162, 88,
    25, 132, 43, 184, 154, 184, 31, 26, 199, 248, 1, 194, 188, 224, 219, 88, 0, 0, 0,
];

#[tokio::test(start_paused = true)]
async fn a_packed_body_goes_up_as_it_came_unless_its_model_is_another_one() {
    let edit = |settings: &mut Value| {
        two(settings);
        faulty(settings, "anthropic", "503");
        settings["providers"]["second"]["modelAliases"] = json!({ "sonnet": "other" });
    };
    in_house(edit, async |house| {
        let head = format!(
            "POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nanthropic-version: 2023-06-01\r\n\
             content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            PACKED.len()
        );
        let reply = house.client().ask([head.as_bytes(), PACKED].concat()).await;
        check_served(&reply, "second", "2");
        let requests = house.sim.requests();
        assert_eq!((&requests[0].body[..], requests[0].header_all("content-encoding")), (PACKED, vec!["gzip"]));
        let plain = r#"{"model":"other","max_tokens":1,"messages":[{"role":"user","content":"hi"}]}"#;
        assert_eq!(requests[1].body, plain.as_bytes());
        assert!(requests[1].header_all("content-encoding").is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_chooses_changes_or_refuses() {
    let edit = |settings: &mut Value| {
        two(settings);
        settings["routing"]["rules"] = json!([
            { "when": { "headers": { "x-team": "toys" } }, "use": { "refuse": "toys get nothing" } },
            { "when": { "agentType": "scout" }, "use": { "providers": ["second"], "model": "small", "headers": { "x-lane": "slow" } } },
        ]);
    };
    in_house(edit, async |house| {
        let refused = house.client().ask(post("/v1/messages", "x-team: toys\r\n", BODY)).await;
        let (kind, message) = refused.refusal();
        assert_eq!((refused.status, &*kind), (403, "permission_error"));
        assert!(message.starts_with("toys get nothing"), "{message}");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        let record = only_record(house);
        assert_eq!((record.outcome, record.attempts.len()), (Outcome::Rejected, 0));
        let reply = house.client().ask(post("/v1/messages", "x-cco-agent: scout\r\n", BODY)).await;
        check_served(&reply, "second", "1");
        let [request] = &house.sim.requests()[..] else { panic!("one request") };
        assert_eq!((request.header_all("x-lane"), request.header_all("x-cco-agent")), (vec!["slow"], vec![]));
        assert!(String::from_utf8_lossy(&request.body).contains(r#""model":"small""#));
    })
    .await;
}

/// A stream whose first content comes after a ping and a while.
fn slow_stream(seconds: f64) -> Vec<Step> {
    let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    vec![Step::Request, send(STREAM), chunk(ping), wait(seconds), chunk(CONTENT), chunk(LAST), Step::Hang]
}

const CONTENT: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
const LAST: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[tokio::test(start_paused = true)]
async fn pings_do_not_commit_and_are_let_go_after_a_while() {
    for (commit_after, seconds, first) in [(200, 50.0, 50), (20, 50.0, 20), (0, 50.0, 0)] {
        let edit = |settings: &mut Value| {
            two(settings);
            settings["routing"]["commitAfterSecs"] = commit_after.into();
        };
        in_house(edit, async |house| {
            house.script(slow_stream(seconds));
            let mut client = house.client();
            client.send(stream()).await;
            let began = tokio::time::Instant::now();
            let mut reply = client.head().await;
            assert_eq!(began.elapsed().as_secs(), first, "the head, with {commit_after}");
            reply.body = client.unread().to_vec();
            while !reply.text().contains("message_stop") {
                assert!(client.read().await);
                reply.body = client.unread().to_vec();
            }
            assert_eq!(began.elapsed().as_secs(), 50);
            assert!(reply.text().contains("event: ping") && reply.text().contains("content_block_start"));
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_asks_for_a_moment_gets_it_and_is_asked_again_once() {
    let edit = |settings: &mut Value| {
        two(settings);
        settings["providers"]["anthropic"]["maxRetries"] = 1.into();
    };
    let busy = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 2\r\n\r\n{}";
    in_house(edit, async |house| {
        house.script([Step::Request, send(busy)]);
        let reply = house.client().ask(stream()).await;
        check_served(&reply, "anthropic", "2");
        assert!((1000..1200).contains(&reply.after.as_millis()), "{:?}", reply.after);
        // And no more than once: then it is the next one's turn.
        for _ in 0..2 {
            house.script([Step::Request, send(busy)]);
        }
        house.worker.pool.clear();
        check_served(&house.client().ask(stream()).await, "second", "3");
        let all: Vec<_> = house.records().iter().map(|record| record.attempts.len()).collect();
        assert_eq!(all, [2, 3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_is_tried_again_and_then_the_next_target_is() {
    let edit = |settings: &mut Value| {
        two(settings);
        settings["providers"]["anthropic"]["maxRetries"] = 2.into();
    };
    in_house(edit, async |house| {
        for _ in 0..3 {
            house.next_upstream(Upstream::Fails(Cause::Refused));
        }
        let reply = house.client().ask(stream()).await;
        check_served(&reply, "second", "4");
        assert!(reply.after < Duration::from_secs(1));
        let record = only_record(house);
        assert!(record.attempts[..3].iter().all(|a| &*a.provider == "anthropic" && a.error.is_some()), "{record:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_repeating_cannot_help_the_client_is_told() {
    for (first, second, status, said) in [
        ("404", "404", 404, Some("false")),
        ("401", "404", 404, Some("false")),
        ("401", "401", 502, Some("false")),
        ("401", "500", 500, None),
        ("404", "529", 529, None),
        ("404", "402", 404, Some("false")),
        ("402", "402", 402, Some("false")),
        ("402", "529", 529, None),
    ] {
        let edit = |settings: &mut Value| {
            two(settings);
            faulty(settings, "anthropic", first);
            faulty(settings, "second", second);
        };
        in_house(edit, async |house| {
            let reply = house.client().ask(stream()).await;
            assert_eq!((reply.status, reply.header("x-should-retry")), (status, said), "{first} {second}");
            if status == 502 {
                let (kind, message) = reply.refusal();
                assert!(kind == "api_error" && message.contains("does not accept the gateway's key"), "{message}");
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_of_ours_without_money_rests_and_another_provider_serves() {
    let error =
        |kind: &str, message: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#);
    for (status, body) in [
        ("402 Payment Required", error("billing_error", "spend limit reached")),
        ("402 Payment Required", "no words".into()),
        ("400 Bad Request", error("invalid_request_error", "Your credit balance is too low to access the API.")),
        ("429 Too Many Requests", r#"{"error":{"message":"m","type":"x","code":"insufficient_quota"}}"#.into()),
    ] {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        in_house(two, async |house| {
            let routing = &house.gateway.routing;
            let rests = || routing.health.report(routing.now(), 0).1.first().map(|key| key.why.to_string());
            // The caller's own money is the caller's own matter.
            house.script([Step::Request, send(&*answer)]);
            let own = messages(true, "x-api-key: sk-ant-api03-callers-own\r\n");
            let reply = house.client().ask(own).await;
            assert_eq!((reply.status, reply.text()), (status[..3].parse().unwrap(), &*body));
            assert_eq!((reply.header("x-cco-attempts"), rests()), (Some("1"), None));
            // Ours is ours to know, and no model is asked for with it for a while.
            house.script([Step::Request, send(&*answer)]);
            check_served(&house.client().ask(stream()).await, "second", "2");
            assert_eq!(rests().as_deref(), Some("its account has no money left"), "{status}");
            let other = String::from_utf8(stream()).unwrap().replace("claude-sonnet-4-5", "claude-sonnet-9-5");
            check_served(&house.client().ask(other.into_bytes()).await, "second", "1");
            let [.., first, second] = &house.records()[..] else { panic!("three records") };
            assert_eq!(attempts(first)[0].1, Outcome::UpstreamError, "{first:?}");
            assert!(second.route.as_deref().unwrap().contains("its key has no money left; it is tried again in"));
            tokio::time::sleep(Duration::from_secs(601)).await;
            check_served(&house.client().ask(stream()).await, "anthropic", "1");
            assert_eq!(rests(), None);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_not_asked_until_one_request_finds_it_well() {
    in_house(two, async |house| {
        let mut client = house.client();
        for _ in 0..3 {
            house.next_upstream(Upstream::Fails(Cause::Refused));
            check_served(&client.ask(stream()).await, "second", "2");
        }
        check_served(&client.ask(stream()).await, "second", "1");
        let (circuits, _) = house.gateway.routing.health.report(house.gateway.routing.now(), 0);
        assert_eq!(circuits.len(), 1, "{circuits:?}");
        tokio::time::sleep(Duration::from_secs(6)).await;
        check_served(&client.ask(stream()).await, "anthropic", "1");
        check_served(&client.ask(stream()).await, "anthropic", "1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_after_it_began_is_not_begun_anew_and_counts_against_its_target() {
    let edit = |settings: &mut Value| {
        two(settings);
        faulty(settings, "anthropic", "cut=8ev");
    };
    in_house(edit, async |house| {
        for _ in 0..3 {
            let reply = house.client().ask(stream()).await;
            assert!(reply.text().contains("event: error"), "{}", reply.text());
            assert_eq!(reply.text().matches("event: message_start").count(), 1);
        }
        check_served(&house.client().ask(stream()).await, "second", "1");
        assert_eq!(house.records()[0].attempts[0].outcome, Outcome::Truncated);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_used_up_subscription_is_replaced_where_that_is_wanted() {
    let used_up = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nanthropic-ratelimit-unified-status: rejected\r\n\
                   anthropic-ratelimit-unified-reset: 4102444800\r\nretry-after: 3600\r\ncontent-length: 2\r\n\r\n{}";
    for (limit, provider) in [("second", "second"), ("pass", "anthropic")] {
        let edit = |settings: &mut Value| {
            two(settings);
            settings["routing"]["onSubscriptionLimit"] = limit.into();
        };
        in_house(edit, async |house| {
            house.script([Step::Request, send(used_up)]);
            let fields = "authorization: Bearer sk-ant-oat01-callers-own\r\n";
            let request = post("/v1/messages", fields, BODY);
            let mut client = house.client();
            let reply = client.ask(&request).await;
            if limit == "pass" {
                assert_eq!((reply.status, reply.header("x-cco-provider")), (429, Some(provider)));
                return;
            }
            check_served(&reply, provider, "2");
            assert_eq!(reply.header("x-cco-subscription"), Some("used-up"));
            let again = client.ask(&request).await;
            check_served(&again, provider, "1");
            assert_eq!(again.header("x-cco-subscription"), Some("used-up"));
            assert!(house.sim.requests().iter().all(|r| !String::from_utf8_lossy(&r.head).contains("oat01")));
            let other = post("/v1/messages", "authorization: Bearer sk-ant-oat01-another\r\n", BODY);
            let other = client.ask(&other).await;
            check_served(&other, "anthropic", "1");
            assert_eq!(other.header("x-cco-subscription"), None);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_with_as_many_requests_as_it_may_have_gets_no_more() {
    let edit = |settings: &mut Value| {
        once(settings);
        settings["providers"]["anthropic"]["maxConcurrent"] = 1.into();
        settings["providers"]["anthropic"]["maxQueued"] = 1.into();
    };
    in_house(edit, async |house| {
        let slow =
            [Step::Request, wait(30.0), send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")];
        house.script(slow);
        let (mut first, mut second, mut third) = (house.client(), house.client(), house.client());
        first.send(messages(false, "")).await;
        house.saw(|seen| seen.iter().any(|seen| !seen.bytes.is_empty())).await;
        second.send(messages(false, "")).await;
        while house.gateway.providers[0].cap.counts().waiting == 0 {
            tokio::task::yield_now().await;
        }
        let refused = third.ask(messages(false, "")).await;
        assert_eq!((refused.status, refused.refusal().0.as_str()), (529, "overloaded_error"));
        assert!(refused.after < Duration::from_secs(1));
        assert_eq!(first.reply().await.status, 200);
        let served = second.reply().await;
        assert_eq!(served.status, 200);
        assert!(served.after >= Duration::from_secs(29), "{:?}", served.after);
        assert_eq!(house.gateway.providers[0].cap.counts().running, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_while_targets_are_tried_cancels_them() {
    in_house(two, async |house| {
        house.script([Step::Request, send(STREAM), Step::Hang]);
        let mut client = house.client();
        client.send(stream()).await;
        house.saw(|seen| seen.iter().any(|seen| !seen.bytes.is_empty())).await;
        drop(client);
        house.saw(|seen| seen.iter().all(|seen| seen.closed.is_some())).await;
        house.settled().await;
        let record = only_record(house);
        assert_eq!((record.outcome, record.attempts.len()), (Outcome::ClientDisconnected, 1));
        assert_eq!(house.dialed(), 1, "nobody else is asked for it");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn several_keys_of_one_provider_are_a_pool() {
    let edit = |settings: &mut Value| {
        once(settings);
        settings["providers"]["anthropic"]["apiKeyRef"] = json!(["env:KEY_B", "env:KEY_C"]);
    };
    in_house(edit, async |house| {
        let refuse =
            |status: &str| send(format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"));
        house.script([Step::Request, refuse("401 Unauthorized")]);
        let mut client = house.client();
        check_served(&client.ask(stream()).await, "anthropic", "2");
        let tried = house.seen.borrow()[0].text();
        let (refused, good) =
            if tried.contains("sk-key-b") { ("sk-key-b", "sk-key-c") } else { ("sk-key-c", "sk-key-b") };
        assert!(tried.contains(refused));
        for _ in 0..4 {
            check_served(&client.ask(stream()).await, "anthropic", "1");
        }
        assert!(house.sim.requests().iter().all(|request| request.header_all("x-api-key") == [good]), "{refused}");
        let (_, keys) = house.gateway.routing.health.report(house.gateway.routing.now(), 0);
        assert_eq!(keys.len(), 1, "the refused key is named");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn five_hundred_streams_while_the_first_provider_dies_and_comes_back() {
    const BEGUN: usize = 250;
    const WAITING: usize = 250;
    in_house(two, async |house| {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..BEGUN + WAITING {
            let mut client = house.client();
            // Half of them have begun when it happens, of the others not even the head is there.
            let request = request(true, if n < BEGUN { "every=1000" } else { "fault=delay-head=8000" });
            tasks.spawn_local(async move { (n, client.ask(request).await) });
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(house.gateway.counters.totals().1, (BEGUN + WAITING) as u64);
        house.take_down("upstream.test");
        let down = tokio::time::Instant::now();
        let (mut told, mut served) = (0, 0);
        while let Some(done) = tasks.join_next().await {
            let (n, reply) = done.unwrap();
            assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
            if n < BEGUN {
                let (whole, error) = reply.text().split_once("event: error\ndata: ").expect("an error event");
                assert!(whole.ends_with("\n\n") && error.contains("\"type\":\"api_error\""), "{error}");
                assert!(reply.after < Duration::from_secs(5), "at once");
                told += 1;
            } else {
                check_served(&reply, "second", "2");
                served += 1;
            }
        }
        assert_eq!((told, served), (BEGUN, WAITING));
        assert_eq!(house.gateway.held.used(), 0);
        // While it is down nobody notices, and after it has come back it is found within the time of its circuit.
        let mut client = house.client();
        while down.elapsed() < Duration::from_secs(60) {
            let reply = client.ask(stream()).await;
            assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")), "{}", reply.text());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let tried = house
            .records()
            .iter()
            .flat_map(|r| &*r.attempts)
            .filter(|a| a.error.as_deref() == Some("connect_refused"))
            .count();
        assert!(tried < 20, "it is left alone meanwhile: {tried} attempts");
        house.bring_back("upstream.test");
        let back = tokio::time::Instant::now();
        while client.ask(stream()).await.header("x-cco-provider") != Some("anthropic") {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(back.elapsed() < Duration::from_secs(121), "{:?}", back.elapsed());
        check_served(&client.ask(stream()).await, "anthropic", "1");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_stays_where_it_was_served() {
    let edit = |settings: &mut Value| {
        two(settings);
        settings["routing"]["rules"] = json!([{ "use": { "providers": ["anthropic", "second"], "pick": "weight" } }]);
    };
    in_house(edit, async |house| {
        let mut client = house.client();
        let mut homes = std::collections::BTreeSet::new();
        for session in 0..12 {
            let fields = format!("x-claude-code-session-id: s{session}\r\n");
            let mut served = Vec::new();
            for _ in 0..4 {
                let reply = client.ask(post("/v1/messages", &fields, BODY)).await;
                served.push(reply.header("x-cco-provider").unwrap().to_string());
            }
            assert!(served.iter().all(|provider| *provider == served[0]), "{served:?}");
            homes.insert(served[0].clone());
        }
        assert_eq!(homes.len(), 2, "not all of twelve sessions are at the same place");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_says_nothing_against_its_provider() {
    in_house(two, async |house| {
        let lost = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}";
        house.script((0..6).flat_map(|_| [Step::Request, send(lost)]).chain([Step::Hang]));
        let mut client = house.client();
        for _ in 0..6 {
            let reply = client.ask(crate::common::client::get("/v1/files/nothing", "")).await;
            assert_eq!((reply.status, reply.header("x-cco-attempts")), (404, Some("1")));
        }
        let (circuits, _) = house.gateway.routing.health.report(house.gateway.routing.now(), 0);
        assert!(circuits.iter().all(|circuit| circuit.why.is_none()), "{circuits:?}");
    })
    .await;
}
