//! What attempts leave behind that came to nothing: what they used, what is said of them, and whom they count against.

use std::io::Write;
use std::time::Duration;

use gateway::health::State;
use ledger::record::{Outcome, Record};
use serde_json::{Value, json};

use crate::common::client::{BODY, Ended, get, messages, post};
use crate::common::pipes::{House, Step, in_house, once, peer, send, wait};
use crate::records::begun;
use crate::time::{STOP, STREAM, chunk};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

/// Two providers that speak Anthropic's protocol, each with a key of ours.
fn two(settings: &mut Value) {
    settings["providers"]["second"] = json!({
        "providerType": "anthropic-compatible", "baseUrl": "http://second.test", "apiKeyRef": "env:OTHER_KEY",
    });
    settings["routing"] = json!({ "fallbackChain": ["anthropic", "second"], "commitAfterSecs": 200 });
    once(settings);
}

/// The first of two speaks another protocol.
fn translated(settings: &mut Value) {
    two(settings);
    let first = &mut settings["providers"]["anthropic"];
    first["providerType"] = "openai-compatible".into();
    first["apiKeyRef"] = "env:KEY_B".into();
    first["defaultModel"] = "m".into();
}

fn ask(stream: bool) -> Vec<u8> {
    let body = if stream { BODY.replace("\"stream\":false", "\"stream\":true") } else { BODY.to_string() };
    post("/v1/messages", "", &body)
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

fn input(record: &Record) -> Option<u64> {
    record.usage.as_ref().map(|usage| usage.tokens.input)
}

/// A stream that has said what the prompt came to, and nothing else.
fn opening() -> [Step; 3] {
    [Step::Request, send(STREAM), chunk(&begun("claude-sonnet-4-5"))]
}

#[tokio::test(start_paused = true)]
async fn what_a_held_back_stream_has_used_is_recorded_when_its_client_goes() {
    in_house(two, async |house| {
        house.script(opening().into_iter().chain([Step::Hang]));
        let mut client = house.client();
        client.send(ask(true)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(client);
        house.clients_gone().await;
        let record = only_record(house);
        assert_eq!(
            (record.outcome, input(&record), record.usage_unknown),
            (Outcome::ClientDisconnected, Some(100), false)
        );
        assert!(record.cost.is_some() && record.attempts.len() == 1, "{record:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_held_back_stream_has_used_is_recorded_when_the_process_ends() {
    in_house(two, async |house| {
        house.script(opening().into_iter().chain([Step::Hang]));
        let mut client = house.client();
        client.send(ask(true)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        house.phases.cut.cancel();
        assert_eq!(client.reply().await.status, 503);
        house.settled().await;
        let record = only_record(house);
        assert_eq!((input(&record), record.attempts.len()), (Some(100), 1), "{record:?}");
        assert_eq!(record.attempts[0].outcome, Outcome::Truncated);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_opening_used_is_known_to_be_missing_from_what_another_target_cost() {
    in_house(two, async |house| {
        house.script(opening());
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts")), (200, Some("2")));
        house.settled().await;
        let record = only_record(house);
        assert!(record.usage.is_some() && record.usage_unknown, "{record:?}");
        assert_ne!(input(&record), Some(100), "what the second one used is not what the first one did");
    })
    .await;
    // A stream that begins with an error used nothing.
    in_house(two, async |house| {
        let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
        house.script([Step::Request, send(STREAM), chunk(failed)]);
        assert_eq!(house.client().ask(ask(true)).await.header("x-cco-attempts"), Some("2"));
        house.settled().await;
        let record = only_record(house);
        assert!(record.usage.is_some() && !record.usage_unknown, "{record:?}");
    })
    .await;
}

const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_is_translated_may_take_as_long_as_it_is_not_silent() {
    in_house(translated, async |house| {
        let length = format!("{OK}content-length: {}\r\n\r\n", CHAT.len() + 5);
        let mut steps = vec![Step::Request, send(length)];
        // As OpenRouter does it: the head at once, and blanks until the model is done.
        for _ in 0..5 {
            steps.extend([wait(50.0), send(" ")]);
        }
        steps.extend([send(CHAT), Step::Hang]);
        house.script(steps);
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts")), (200, Some("1")), "{}", reply.text());
        assert_eq!((reply.after.as_secs(), house.dialed()), (250, 1));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_that_is_translated_and_does_not_come_is_not_paid_twice() {
    in_house(translated, async |house| {
        house.script([Step::Request, send(format!("{OK}content-length: 99\r\n\r\n{{")), Step::Hang]);
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, reply.after.as_secs(), house.dialed()), (504, 60, 1), "{}", reply.text());
        let record = only_record(house);
        assert_eq!((record.outcome, record.usage_unknown), (Outcome::Timeout, true));
        assert_eq!(record.attempts[0].outcome, Outcome::Timeout);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn two_requests_that_find_a_subscription_used_up_both_go_elsewhere() {
    let used_up = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nanthropic-ratelimit-unified-status: rejected\r\n\
                   anthropic-ratelimit-unified-reset: 4102444800\r\ncontent-length: 2\r\n\r\n{}";
    let edit = |settings: &mut Value| {
        two(settings);
        settings["routing"]["fallbackChain"] = json!(["anthropic"]);
        settings["routing"]["onSubscriptionLimit"] = "second".into();
    };
    in_house(edit, async |house| {
        for _ in 0..2 {
            house.script([Step::Request, wait(1.0), send(used_up)]);
        }
        let request = post("/v1/messages", "authorization: Bearer sk-ant-oat01-callers-own\r\n", BODY);
        let (mut one, mut other) = (house.client(), house.client());
        one.send(&request).await;
        other.send(&request).await;
        for client in [&mut one, &mut other] {
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")), "{}", reply.text());
            assert_eq!(reply.header("x-cco-subscription"), Some("used-up"));
        }
    })
    .await;
}

/// A process of another user brings its own login and may spend nothing of ours.
#[tokio::test(start_paused = true)]
async fn a_caller_without_a_right_to_our_keys_hears_of_its_subscription_from_the_provider_each_time() {
    let used_up = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nanthropic-ratelimit-unified-status: rejected\r\n\
                   anthropic-ratelimit-unified-reset: 4102444800\r\ncontent-length: 2\r\n\r\n{}";
    let edit = |settings: &mut Value| {
        two(settings);
        settings["routing"]["fallbackChain"] = json!(["anthropic"]);
        settings["routing"]["onSubscriptionLimit"] = "second".into();
    };
    in_house(edit, async |house| {
        let request = post("/v1/messages", "authorization: Bearer sk-ant-oat01-callers-own\r\n", BODY);
        let stranger = peer("127.0.0.1:40000", false);
        for asked in 1..=3 {
            house.script([Step::Request, send(used_up)]);
            let reply = house.client_as(stranger.clone()).ask(&request).await;
            let got = (reply.status, reply.header("x-cco-provider"), reply.header("x-cco-attempts"), house.dialed());
            assert_eq!(got, (429, Some("anthropic"), Some("1"), asked), "{}", reply.text());
            assert_eq!((reply.header("x-cco-subscription"), reply.text()), (None, "{}"));
        }
    })
    .await;
}

/// So answer proxies that want a login, and addresses that are wrong.
#[tokio::test(start_paused = true)]
async fn a_web_page_in_place_of_an_answer_is_none() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: Text/HTML; charset=utf-8\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>";
    for stream in [true, false] {
        in_house(two, async |house| {
            house.script([Step::Request, send(page)]);
            let reply = house.client().ask(ask(stream)).await;
            assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")), "{}", reply.text());
            house.settled().await;
            let record = only_record(house);
            assert_eq!((record.attempts.len(), record.attempts[0].outcome), (2, Outcome::UpstreamError));
            assert!(!record.usage_unknown, "a page has used nothing");
        })
        .await;
    }
    // Where nobody else can be asked it passes as it is.
    in_house(once, async |house| {
        house.script([Step::Request, send(page)]);
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.text()), (200, "<html>"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_that_says_that_it_failed_is_recorded_as_what_it_says() {
    let says = r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#;
    in_house(two, async |house| {
        for (stream, times) in [(false, 1), (true, 2)] {
            house.script([
                Step::Request,
                send(format!("{OK}content-length: {}\r\n\r\n{says}", says.len())),
                Step::Hang,
            ]);
            let reply = house.client().ask(ask(stream)).await;
            assert_eq!((reply.status, reply.text()), (200, says), "its bytes are the client's");
            house.settled().await;
            let record = house.records().pop().unwrap();
            assert_eq!(
                (record.outcome, record.attempts.last().map(|one| one.outcome), record.error.as_deref()),
                (Outcome::UpstreamError, Some(Outcome::UpstreamError), Some("overloaded_error"))
            );
            house.worker.pool.clear();
            let routing = &house.gateway.routing;
            let (circuits, _) = routing.health.report(routing.now(), 0);
            assert_eq!(circuits[0].failed, times, "it counts against its target: {circuits:?}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_window_that_ends_at_once_is_asked_for_once() {
    let used_up = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nanthropic-ratelimit-unified-status: rejected\r\n\
                   anthropic-ratelimit-unified-reset: 1\r\ncontent-length: 2\r\n\r\n{}";
    let edit = |settings: &mut Value| {
        two(settings);
        settings["routing"]["fallbackChain"] = json!(["anthropic"]);
        settings["routing"]["onSubscriptionLimit"] = "second".into();
    };
    in_house(edit, async |house| {
        for _ in 0..3 {
            house.script([Step::Request, send(used_up)]);
        }
        let request = post("/v1/messages", "authorization: Bearer sk-ant-oat01-callers-own\r\n", BODY);
        let reply = house.client().ask(&request).await;
        assert!(reply.status == 429 || reply.header("x-cco-provider") == Some("second"), "{}", reply.text());
        assert!(house.dialed() <= 2, "{} tries", house.dialed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_that_we_answer_ourselves_is_not_taken_for_the_next_request() {
    let edit = |settings: &mut Value| {
        settings["providers"]["anthropic"]["providerType"] = "ollama".into();
    };
    in_house(edit, async |house| {
        let smuggled = "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:54548\r\n\r\n";
        let fields = format!("content-length: {}\r\n", smuggled.len());
        let mut client = house.client();
        client.send([&get("/v1/models", &fields)[..], smuggled.as_bytes()].concat()).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        client.closes().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_an_upstream_said_of_itself_is_recorded_of_refusals_and_of_translated_answers() {
    let said = "x-request-id: req_theirs\r\nx-ratelimit-limit-requests: 500\r\nx-ratelimit-remaining-requests: 499\r\n\
                x-ratelimit-reset-requests: 120ms\r\n";
    let refused = r#"{"error":{"message":"busy","type":"server_error"}}"#;
    for (status, body) in [("200 OK", CHAT), ("503 Service Unavailable", refused)] {
        let edit = |settings: &mut Value| {
            translated(settings);
            settings["routing"]["fallbackChain"] = json!(["anthropic"]);
        };
        in_house(edit, async |house| {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after-ms: 3500\r\n"
            );
            house.script([Step::Request, send(format!("{head}{said}content-length: {}\r\n\r\n{body}", body.len()))]);
            let reply = house.client().ask(ask(false)).await;
            let record = only_record(house);
            assert_eq!(record.upstream_request_id.as_deref(), Some("req_theirs"), "{status}");
            let limits = record.limits.expect("limits");
            assert!(limits.pairs().any(|pair| pair == ("requests-limit", "500")), "{limits:?}");
            if status.starts_with("503") {
                assert_eq!((reply.status, reply.header("retry-after")), (503, Some("4")));
            }
        })
        .await;
    }
}

/// A gzip stream: a head, and one stored block with these bytes, which is the last one; what follows it is missing.
fn packed(text: &str) -> Vec<u8> {
    let n = u16::try_from(text.len()).unwrap();
    let head = [31, 139, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    [&head[..], &n.to_le_bytes(), &(!n).to_le_bytes(), text.as_bytes()].concat()
}

#[tokio::test(start_paused = true)]
async fn a_packed_stream_that_stops_short_of_its_length_ends_its_clients_connection() {
    in_house(once, async |house| {
        let body = packed(&format!("{}{STOP}", begun("claude-sonnet-4-5")));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len() + 8
        );
        house.script([Step::Request, send(head), Step::Send(body), Step::Hang]);
        let mut client = house.client();
        let reply = client.ask(messages(true, "")).await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Short));
        assert_eq!(only_record(house).outcome, Outcome::Success, "its last event was seen");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_fits_nobody_is_told_why() {
    let edit = |settings: &mut Value| {
        once(settings);
        settings["providers"]["anthropic"]["modelAliases"] = json!({ "*": "other" });
        settings["providers"]["anthropic"]["defaultModel"] = "other".into();
        settings["routing"]["rules"] = json!([{ "use": { "model": "other" } }]);
    };
    in_house(edit, async |house| {
        let body = "not to be read";
        let fields = "content-encoding: x-unknown\r\n";
        let reply = house.client().ask(post("/v1/messages", fields, body)).await;
        let (kind, message) = reply.refusal();
        assert_eq!(
            (reply.status, &*kind, reply.header("x-should-retry")),
            (400, "invalid_request_error", Some("false"))
        );
        assert!(message.contains("`other`") && message.contains("cannot be written into this body"), "{message}");
        assert_eq!(house.dialed(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_after_attempts_say_who_was_asked_and_how_often() {
    in_house(two, async |house| {
        house.take_down("upstream.test");
        house.take_down("second.test");
        let reply = house.client().ask(ask(true)).await;
        assert_eq!((reply.status, reply.header("x-cco-attempts")), (502, Some("2")));
        assert_eq!(reply.header("x-cco-provider"), Some("anthropic"), "{}", reply.text());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_turn_while_another_target_is_free() {
    let edit = |settings: &mut Value| {
        two(settings);
        settings["providers"]["anthropic"]["maxConcurrent"] = 1.into();
        settings["providers"]["anthropic"]["maxQueued"] = 5.into();
    };
    in_house(edit, async |house| {
        house.script([Step::Request, wait(90.0), send(format!("{OK}content-length: 2\r\n\r\n{{}}")), Step::Hang]);
        let mut first = house.client();
        first.send(ask(false)).await;
        house.saw(|seen| seen.iter().any(|seen| !seen.bytes.is_empty())).await;
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, reply.header("x-cco-provider")), (200, Some("second")), "{}", reply.text());
        assert!(reply.after <= Duration::from_secs(10), "{:?}", reply.after);
        assert_eq!(house.gateway.providers[0].cap.counts().refused, 1);
        assert_eq!(first.reply().await.status, 200);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_that_is_translated_does_not_count_against_its_target() {
    in_house(translated, async |house| {
        for _ in 0..3 {
            house.script([
                Step::Request,
                send(format!("{OK}content-length: {}\r\n\r\n", CHAT.len())),
                wait(50.0),
                send(CHAT),
            ]);
            house.worker.pool.clear();
            assert_eq!(house.client().ask(ask(false)).await.status, 200);
        }
        let (circuits, _) = house.gateway.routing.health.report(house.gateway.routing.now(), 0);
        assert!(circuits.iter().all(|circuit| circuit.state == State::Closed), "{circuits:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_bodies_and_kept_of_answers_has_a_bound_in_sum() {
    let edit = |settings: &mut Value| {
        translated(settings);
        settings["server"]["maxHeldMb"] = json!(0.1);
        settings["server"]["maxBodyMb"] = json!(0.1);
        settings["routing"]["fallbackChain"] = json!(["anthropic"]);
    };
    in_house(edit, async |house| {
        // The body that came has room, the one that is made of it has none beside it.
        let long = BODY.replace("hi ", &"x".repeat(60 << 10));
        let reply = house.client().ask(post("/v1/messages", "", &long)).await;
        assert_eq!((reply.status, reply.refusal().0.as_str(), house.dialed()), (529, "overloaded_error", 0));
        let text = "y".repeat(120 << 10);
        let body = CHAT.replace("hi", &text);
        house.script([Step::Request, send(format!("{OK}content-length: {}\r\n\r\n{body}", body.len()))]);
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, house.dialed()), (529, 1), "{}", reply.text());
        assert!(reply.refusal().1.contains("server.maxHeldMb"));
        let record = &house.records()[1];
        assert!(record.usage_unknown, "{record:?}");
    })
    .await;
    // What passes as it came passes, but nobody knows what it used.
    let edit = |settings: &mut Value| {
        once(settings);
        settings["server"]["maxHeldMb"] = json!(0.1);
        settings["server"]["maxBodyMb"] = json!(0.1);
    };
    in_house(edit, async |house| {
        let message = format!(
            r#"{{"type":"message","model":"claude-sonnet-4-5","content":[{{"type":"text","text":"{}"}}],"usage":{{"input_tokens":1,"output_tokens":2}}}}"#,
            "z".repeat(120 << 10)
        );
        house.script([Step::Request, send(format!("{OK}content-length: {}\r\n\r\n{message}", message.len()))]);
        let reply = house.client().ask(ask(false)).await;
        assert_eq!((reply.status, reply.body.len()), (200, message.len()));
        let record = only_record(house);
        assert_eq!((record.usage.is_none(), record.usage_unknown), (true, true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_watches_a_process_that_another_has_replaced_is_sent_away() {
    in_house(once, async |house| {
        let admin = format!("authorization: Bearer {}\r\n", house.gateway.admin_token.expose());
        let mut viewer = house.client();
        viewer.send(get("/api/streams/subscribe", &admin)).await;
        assert_eq!(viewer.head().await.status, 200);
        house.worker.retired.cancel();
        viewer.rest().await;
        // Without a body to send there is nothing to watch.
        let head = String::from_utf8(get("/api/streams/subscribe", &admin)).unwrap().replacen("GET", "HEAD", 1);
        let mut other = house.client();
        other.send(head).await;
        assert_eq!(other.reply_to("HEAD").await.status, 405);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_default_without_a_key_does_not_make_the_gateway_unwell_while_another_serves() {
    let edit = |settings: &mut Value| {
        two(settings);
        let first = &mut settings["providers"]["anthropic"];
        first["apiKeyMode"] = "stored".into();
        first["apiKeyRef"] = "env:NOT_SET".into();
    };
    in_house(edit, async |house| {
        let health = house.client().ask(get("/gateway/health", "")).await.json();
        assert_eq!(health["status"], "healthy", "{health}");
        let providers = house.client().ask(get("/gateway/providers", "")).await.json();
        let serves: Vec<_> =
            providers["providers"].as_array().unwrap().iter().map(|p| (&p["name"], &p["serves"])).collect();
        assert_eq!(serves, [(&json!("anthropic"), &json!(false)), (&json!("second"), &json!(true))]);
    })
    .await;
}

fn answers(status: &str, fields: &str, body: &[u8]) -> [Step; 2] {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{fields}content-length: {}\r\n\r\n",
        body.len()
    );
    [Step::Request, Step::Send([head.as_bytes(), body].concat())]
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_is_packed_is_read_all_the_same() {
    let said = br#"{"error":{"message":"Insufficient Balance","type":"insufficient_quota"}}"#;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(said).unwrap();
    let packed = gzip.finish().unwrap();
    // Translated, and passing as it is.
    for (edit, is_translated) in [(translated as fn(&mut Value), true), (two, false)] {
        in_house(edit, async |house| {
            house.script(answers("429 Too Many Requests", "content-encoding: gzip\r\n", &packed));
            house.script(answers("429 Too Many Requests", "content-encoding: gzip\r\n", &packed));
            let reply = house.client().ask(ask(false)).await;
            assert_eq!(reply.status, 429);
            let routing = &house.gateway.routing;
            let (_, keys) = routing.health.report(routing.now(), 0);
            assert!(keys[0].why.to_string().contains("money"), "{keys:?}");
            if is_translated {
                assert_eq!(reply.header("content-encoding"), None);
                assert!(reply.json()["error"]["message"].as_str().unwrap().contains("Insufficient Balance"));
            } else {
                assert_eq!((reply.header("content-encoding"), &reply.body[..]), (Some("gzip"), &packed[..]));
            }
        })
        .await;
    }
    // What cannot be unpacked is told by its status alone.
    for (coding, body) in [("gzip", &b"no gzip"[..]), ("x-unknown", said)] {
        in_house(translated, async |house| {
            house.script(answers("400 Bad Request", &format!("content-encoding: {coding}\r\n"), body));
            let reply = house.client().ask(ask(false)).await;
            let (kind, message) = reply.refusal();
            assert_eq!((reply.status, &*kind), (400, "invalid_request_error"), "{message}");
            assert!(message.contains("400") && !message.contains("gzip"), "{message}");
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_was_flagged_rests_no_key_and_goes_to_nobody_else() {
    let flagged = br#"{"error":{"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"x"}}}"#;
    for (edit, is_translated) in [(translated as fn(&mut Value), true), (two, false)] {
        in_house(edit, async |house| {
            house.script(answers("403 Forbidden", "", flagged));
            let reply = house.client().ask(ask(false)).await;
            assert_eq!(house.dialed(), 1, "nobody else was asked");
            let routing = &house.gateway.routing;
            let (circuits, keys) = routing.health.report(routing.now(), 0);
            assert!(keys.is_empty() && circuits.iter().all(|circuit| circuit.failed == 0), "{circuits:?}");
            if is_translated {
                assert_eq!(reply.status, 400);
                let (kind, message) = reply.refusal();
                assert_eq!(
                    (&*kind, &*message),
                    ("invalid_request_error", "Your input was flagged (flagged for: violence)")
                );
            } else {
                assert_eq!((reply.status, &reply.body[..]), (403, &flagged[..]), "it passes as it is");
            }
        })
        .await;
    }
}
