//! Every fault of the first of two targets, and of the second, for clients of every protocol, as it passes and as it is
//! translated: what the client got, who was asked, how the circuit stands, and that there is one record of it.

use std::time::Duration;

use gateway::health::State;
use ledger::record::{Outcome, Record};
use serde_json::{Value, json};

use crate::common::client::{Ended, Reply, post};
use crate::common::pipes::{House, every_row, in_house, once};
use crate::faults::unnumbered;

/// What the client speaks, and what its providers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Chat,
    Responses,
    AnthropicToChat,
    AnthropicToResponses,
    ChatToAnthropic,
    ResponsesToAnthropic,
}
use Lane::{AnthropicToChat, AnthropicToResponses, Chat, ChatToAnthropic, Responses, ResponsesToAnthropic};

const LANES: [Lane; 6] =
    [Chat, Responses, AnthropicToChat, AnthropicToResponses, ChatToAnthropic, ResponsesToAnthropic];

/// Each fault for streams and whole answers: what follows, where it passes as it is.
const FAULTS: &[(&str, After, After)] = &[
    ("400", Final, Final),
    ("401", KeyRefused, KeyRefused),
    ("402", KeyRefused, KeyRefused),
    ("403", Next, Next),
    ("404", Next, Next),
    ("408", Final, Final),
    ("413", Final, Final),
    ("429", Next, Next),
    ("429=30", Next, Next),
    ("500", Next, Next),
    ("502-html", Next, Next),
    ("503", Next, Next),
    ("529", Next, Next),
    ("error-first", Next, Next),
    ("error-mid", Told, Next),
    ("truncate=0", Next, Served),
    ("truncate=12", Told, Served),
    ("cut=0", Next, Short),
    ("cut=900", Skip, Short),
    ("cut=12ev", Told, Skip),
    ("reset=900", Skip, Short),
    ("reset=12ev", Told, Skip),
    ("stall=0", Next, Short),
    ("stall=900", Skip, Short),
    ("stall=12ev", Told, Skip),
    ("no-bytes", Next, Late),
    ("close-before-head", Next, Next),
    ("garbage", Next, Next),
    ("header-bomb", Next, Next),
    ("redirect=http://elsewhere.test/v1/x", Next, Next),
    ("bad-chunk", Next, Short),
    ("drip=50", Served, Served),
    ("surplus", Served, Served),
];

/// What follows a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next target is asked.
    Next,
    /// The same, and our key counts as refused, or as one without money.
    KeyRefused,
    /// The client gets it: nobody would say better.
    Final,
    /// The client has the beginning, and is told that it broke off.
    Told,
    /// The client gets what there is, without an end.
    Short,
    /// The client is told that it took too long.
    Late,
    /// It is no fault.
    Served,
    /// Said of the other kind of answer.
    Skip,
}
use After::{Final, KeyRefused, Late, Next, Served, Short, Skip, Told};

type Row = (Lane, bool, &'static str, After);

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for lane in LANES {
        for (fault, stream, whole) in FAULTS {
            let (stream, whole) = (*stream, lane.of_whole(*whole, fault));
            rows.extend([(lane, true, *fault, stream), (lane, false, *fault, whole)]);
        }
    }
    rows.retain(|(.., after)| *after != Skip);
    rows
}

impl Lane {
    fn is_translated(self) -> bool {
        !matches!(self, Chat | Responses)
    }

    /// A whole answer that is translated has to be at hand first: what breaks off is no answer then, and what is silent is
    /// not asked for twice.
    fn of_whole(self, after: After, fault: &str) -> After {
        match after {
            Short if self.is_translated() && fault.starts_with("stall") => Late,
            Short if self.is_translated() => Next,
            Served if self.is_translated() && fault.starts_with("truncate") => Next,
            after => after,
        }
    }

    fn provider(self, host: &str, key: &str) -> Value {
        let (kind, path, protocol) = match self {
            Chat | AnthropicToChat => ("openai-compatible", "/v1", "openai-chat"),
            Responses | AnthropicToResponses => ("openai-compatible", "/v1", "openai-responses"),
            ChatToAnthropic | ResponsesToAnthropic => ("anthropic-compatible", "", "anthropic"),
        };
        json!({
            "providerType": kind, "baseUrl": format!("http://{host}.test{path}"), "protocol": protocol,
            "apiKeyRef": format!("env:{key}"), "defaultModel": "m", "timeoutSecs": 100, "idleTimeoutSecs": 60,
        })
    }

    fn request(self, stream: bool) -> Vec<u8> {
        let prompt = "hi [[sim events=20 size=40]]";
        let messages = json!([{ "role": "user", "content": prompt }]);
        let (path, body) = match self {
            Chat | ChatToAnthropic => {
                ("/v1/chat/completions", json!({ "model": "m", "stream": stream, "messages": messages }))
            }
            Responses | ResponsesToAnthropic => {
                ("/v1/responses", json!({ "model": "m", "stream": stream, "input": prompt }))
            }
            AnthropicToChat | AnthropicToResponses => {
                ("/v1/messages", json!({ "model": "m", "max_tokens": 1000, "stream": stream, "messages": messages }))
            }
        };
        post(path, "", &body.to_string())
    }

    /// Whether a stream came to its last event.
    fn is_whole(self, text: &str) -> bool {
        match self {
            Chat | ChatToAnthropic => text.contains("data: [DONE]"),
            Responses | ResponsesToAnthropic => text.contains("\"response.completed\""),
            AnthropicToChat | AnthropicToResponses => text.contains("event: message_stop"),
        }
    }

    /// Whether a stream says within itself that it failed, in the client's words.
    fn says_that_it_failed(self, text: &str) -> bool {
        match self {
            Chat | ChatToAnthropic => text.contains("data: {\"error\""),
            Responses | ResponsesToAnthropic => {
                text.contains("\"response.failed\"") || text.contains("\"type\":\"error\"")
            }
            AnthropicToChat | AnthropicToResponses => text.contains("event: error\n"),
        }
    }
}

fn edit(settings: &mut Value, lane: Lane, faults: [&str; 2]) {
    settings["providers"] =
        json!({ "first": lane.provider("first", "KEY_B"), "second": lane.provider("second", "KEY_C") });
    settings["routing"] =
        json!({ "defaultProvider": "first", "fallbackChain": ["first", "second"], "commitAfterSecs": 200 });
    for (name, fault) in ["first", "second"].into_iter().zip(faults) {
        if !fault.is_empty() {
            settings["providers"][name]["headers"] = json!({ "x-sim-fault": fault });
        }
    }
    once(settings);
}

#[track_caller]
fn only_record(house: &House) -> Record {
    let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
    record.clone()
}

/// Whether something is held against a provider, and whether a key of its is.
fn held_against(house: &House, provider: u16) -> (bool, bool) {
    let routing = &house.gateway.routing;
    let (circuits, keys) = routing.health.report(routing.now(), provider);
    (circuits.iter().any(|circuit| circuit.failed > 0 || circuit.state != State::Closed), !keys.is_empty())
}

/// What a client got that nobody else could serve.
fn check_failed((lane, stream, fault, after): &Row, reply: &Reply) {
    let text = String::from_utf8_lossy(&reply.body);
    match after {
        Told => {
            assert_eq!((reply.status, reply.ended), (200, Ended::Whole), "{text}");
            assert!(!lane.is_whole(&text) && lane.says_that_it_failed(&text), "{text}");
        }
        Short => assert_eq!((reply.status, reply.ended), (200, Ended::Short), "{text}"),
        Late => assert!(matches!(reply.status, 500 | 504) && reply.ended == Ended::Whole, "{text}"),
        Served | Skip => {
            assert_eq!((reply.status, reply.ended), (200, Ended::Whole), "{text}");
            assert!(!stream || lane.is_whole(&text), "{text}");
        }
        Final | Next | KeyRefused if reply.status == 200 => {
            assert!(*stream && !lane.is_whole(&text) && lane.says_that_it_failed(&text), "{fault}: {text}");
        }
        Final | Next | KeyRefused => {
            assert!(reply.status >= 400 && reply.ended == Ended::Whole, "{fault}: {} {text}", reply.status);
            if *after == Final {
                assert_eq!(Some(reply.status.to_string().as_str()), fault.split('=').next(), "{text}");
            }
        }
    }
}

#[test]
fn every_fault_of_the_first_target_is_invisible_in_every_protocol_where_that_is_possible() {
    every_row(&rows(), async |row| {
        let (lane, stream, fault, after) = *row;
        in_house(
            |settings| edit(settings, lane, [fault, ""]),
            async |house| {
                let request = lane.request(stream);
                let reply = house.client().ask(&request).await;
                house.settled().await;
                let record = only_record(house);
                let attempts: Vec<_> = record.attempts.iter().map(|one| (&*one.provider, one.outcome)).collect();
                let (failed, refused) = held_against(house, 0);
                match after {
                    Next | KeyRefused => {
                        let got = (reply.status, reply.ended, reply.header("x-cco-provider"));
                        assert_eq!(got, (200, Ended::Whole, Some("second")), "{}", reply.text());
                        assert!(!stream || lane.is_whole(reply.text()), "{}", reply.text());
                        if !lane.is_translated() {
                            let good = house.direct(&request).await;
                            assert_eq!(unnumbered(&reply.body), unnumbered(&good.body), "every byte");
                        }
                        let [(_, first), second] = attempts[..] else { panic!("{record:?}") };
                        assert!(first.is_failure() && second == ("second", Outcome::Success), "{record:?}");
                        assert_eq!(record.outcome, Outcome::Success);
                        let want = if after == KeyRefused { (false, true) } else { (true, false) };
                        assert_eq!((failed, refused), want, "{fault}");
                    }
                    _ => {
                        check_failed(row, &reply);
                        assert_eq!(attempts.len(), 1, "{record:?}");
                        assert_eq!(record.outcome == Outcome::Success, after == Served, "{record:?}");
                        let counts = matches!(after, Told | Short | Late);
                        assert_eq!((failed, refused), (counts, false), "{fault}");
                    }
                }
                assert_eq!(held_against(house, 1), (false, false));
            },
        )
        .await;
    });
}

#[test]
fn every_fault_of_the_second_target_is_told_in_the_clients_protocol_when_the_first_has_failed() {
    every_row(&rows(), async |row| {
        let (lane, stream, fault, after) = *row;
        in_house(
            |settings| edit(settings, lane, ["500", fault]),
            async |house| {
                let reply = house.client().ask(lane.request(stream)).await;
                house.settled().await;
                let record = only_record(house);
                check_failed(row, &reply);
                assert_eq!(record.attempts.len(), 2, "{record:?}");
                assert_eq!(record.attempts[0].status, Some(500), "{record:?}");
                assert_eq!(record.outcome == Outcome::Success, after == Served, "{record:?}");
                // What is long ago does not count any more.
                if reply.after < Duration::from_secs(100) {
                    assert_eq!(held_against(house, 0), (true, false));
                }
            },
        )
        .await;
    });
}
