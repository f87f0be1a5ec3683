//! Bad weather between the gateway and the first of two providers: whatever happens to the bytes on their way, at whatever
//! byte, the client gets one whole answer of one of them, or the beginning of one and a word that it broke off.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::common::client::{BODY, Ended, post};
use crate::common::pipes::{every_row, in_house, once};

/// What happens to the bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// The connection ends behind so many bytes.
    Cut(usize),
    /// Nothing more comes from there on.
    Silence(usize),
    /// The answer's direction ends there, the other one stays open.
    HalfClosed(usize),
    /// Every piece is late by so many milliseconds.
    Latency(u64),
    /// They come in pieces of this size.
    Slices(usize),
    /// So many bytes a second.
    Bandwidth(usize),
}
use Weather::{Bandwidth, Cut, HalfClosed, Latency, Silence, Slices};

/// Hands requests on as they are, and answers as the weather is.
async fn blow(weather: Weather, near: DuplexStream, far: DuplexStream) {
    let (mut from_gateway, mut to_gateway) = tokio::io::split(near);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(far);
    let up = async {
        let _ = tokio::io::copy(&mut from_gateway, &mut to_upstream).await;
    };
    let down = async {
        let mut space = vec![0; 16 * 1024];
        let mut passed = 0;
        loop {
            let n = match from_upstream.read(&mut space).await {
                Ok(n) if n > 0 => n,
                _ => return,
            };
            let left = match weather {
                Cut(at) | Silence(at) | HalfClosed(at) => at.saturating_sub(passed).min(n),
                _ => n,
            };
            if let Latency(ms) = weather {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            let size = match weather {
                Slices(size) | Bandwidth(size) => size,
                _ => left.max(1),
            };
            for piece in space[..left].chunks(size) {
                if to_gateway.write_all(piece).await.is_err() {
                    return;
                }
                match weather {
                    Bandwidth(_) => tokio::time::sleep(Duration::from_secs(1)).await,
                    _ => tokio::task::yield_now().await,
                }
            }
            passed += left;
            if left < n {
                match weather {
                    Cut(_) => return,
                    Silence(_) => std::future::pending().await,
                    _ => {
                        let _ = to_gateway.shutdown().await;
                        std::future::pending().await
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = up => {}
        () = down => {}
    }
}

fn two(settings: &mut Value) {
    settings["providers"]["second"] = json!({
        "providerType": "anthropic-compatible",
        "baseUrl": "http://second.test",
        "apiKeyRef": "env:OTHER_KEY",
    });
    settings["routing"] = json!({ "fallbackChain": ["anthropic", "second"] });
    once(settings);
}

/// What the simulator numbers.
fn unnumbered(text: &str) -> String {
    crate::faults::unnumbered(text.as_bytes())
}

async fn check(weather: Weather) {
    in_house(two, async |house| {
        let request = post("/v1/messages", "x-sim: events=6 size=20\r\n", &BODY.replace("false", "true"));
        let good = house.direct(&request).await;
        house.through(|near, far| blow(weather, near, far));
        let reply = house.client().ask(&request).await;
        house.settled().await;
        assert_eq!((reply.status, reply.ended), (200, Ended::Whole));
        let text = reply.text();
        assert!(text.matches("event: message_start").count() <= 1, "one answer, not two: {text}");
        let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
        match text.split_once("event: error\n") {
            None => {
                assert_eq!(unnumbered(text), unnumbered(good.text()));
                let (provider, attempts) = (reply.header("x-cco-provider"), reply.header("x-cco-attempts"));
                let told = (provider.unwrap(), attempts.unwrap());
                assert!(told == ("anthropic", "1") || told == ("second", "2"), "{told:?}");
                assert_eq!(record.outcome.as_str(), "success");
            }
            Some((begun, _)) => {
                // It had begun: what came whole is there, and nothing else.
                assert_eq!(reply.header("x-cco-provider"), Some("anthropic"));
                // An accepted answer that is silent is kept after `commitAfterSecs`; any other only with its first content.
                let may_be_bare = matches!(weather, Silence(_));
                assert!(may_be_bare || begun.contains("event: content_block_start"), "committed too early: {begun}");
                let begun = begun.replace("event: ping\ndata: {\"type\": \"ping\"}\n\n", "");
                assert!(unnumbered(good.text()).starts_with(&unnumbered(&begun)), "{begun}");
                assert!(["truncated", "timeout"].contains(&record.outcome.as_str()), "{record:?}");
            }
        }
    })
    .await;
}

#[test]
fn wherever_an_answer_is_cut_silenced_or_closed_its_client_gets_a_whole_one_or_is_told() {
    // A prime, so that over all of them every sort of place is met.
    let places = (0..3000).step_by(53);
    let rows: Vec<Weather> = places.flat_map(|at| [Cut(at), Silence(at), HalfClosed(at)]).collect();
    every_row(&rows, async |weather| check(*weather).await);
}

#[test]
fn slow_sliced_and_late_answers_are_whole() {
    let rows = [
        Latency(1),
        Latency(900),
        Latency(15_000),
        Slices(1),
        Slices(7),
        Slices(4096),
        Bandwidth(100),
        Bandwidth(1000),
    ];
    every_row(&rows, async |weather| check(*weather).await);
}
