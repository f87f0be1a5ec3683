//! A client that goes: whatever was done for it ends in the same instant.

use serde_json::Value;
use tokio::time::Instant;

use crate::common::client::{messages, post};
use crate::common::pipes::{House, Step, Upstream, every_row, in_house_with_pipes_of, plain, send, wait};
use crate::time::{DELTA, START, STOP, STREAM, chunk};

/// When the client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Dialing,
    HeldBodyArrives,
    BodyGoesUp,
    UploadIdle,
    UploadBlocked,
    BeforeHead,
    WithinHead,
    AfterHead,
    MidStream,
    MidEvent,
    MidWhole,
    TakesNothing,
    AfterMessageStop,
}
use Stage::*;

const STAGES: &[Stage] = &[
    Dialing,
    HeldBodyArrives,
    BodyGoesUp,
    UploadIdle,
    UploadBlocked,
    BeforeHead,
    WithinHead,
    AfterHead,
    MidStream,
    MidEvent,
    MidWhole,
    TakesNothing,
    AfterMessageStop,
];

fn script(house: &House, stage: Stage) {
    let steps = match stage {
        Dialing => return house.next_upstream(Upstream::Never),
        HeldBodyArrives => return,
        BodyGoesUp | UploadBlocked => vec![Step::Take(1), Step::Deaf, Step::Hang],
        UploadIdle | BeforeHead => vec![Step::Hang],
        WithinHead => vec![Step::Request, send(&STREAM[..20]), Step::Hang],
        AfterHead => vec![Step::Request, send(STREAM), Step::Hang],
        MidStream => vec![Step::Request, send(STREAM), chunk(START), wait(5.0), chunk(DELTA), Step::Hang],
        MidEvent => vec![Step::Request, send(STREAM), chunk(&START[..10]), Step::Hang],
        MidWhole => vec![Step::Request, send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"), Step::Hang],
        TakesNothing => {
            vec![Step::Request, send(STREAM), Step::SendForEver(format!("{:x}\r\n{DELTA}\r\n", DELTA.len()).into())]
        }
        AfterMessageStop => vec![Step::Request, send(STREAM), chunk(START), chunk(STOP), Step::Hang],
    };
    house.script(steps);
}

fn request(stage: Stage) -> Vec<u8> {
    let large = "x".repeat(200_000);
    match stage {
        HeldBodyArrives => messages(true, "")[..290].to_vec(),
        BodyGoesUp => post("/v1/messages", "x-api-key: k\r\n", &large),
        UploadIdle => post("/v1/files", "x-api-key: k\r\n", &large)[..1000].to_vec(),
        UploadBlocked => post("/v1/files", "x-api-key: k\r\n", &large)[..30_000].to_vec(),
        MidWhole => messages(false, ""),
        _ => messages(true, ""),
    }
}

async fn check(stage: Stage) {
    in_house_with_pipes_of(4096, plain, async |house| {
        script(house, stage);
        let mut client = house.client();
        client.send(request(stage)).await;
        // Everything has come to rest: time moves only then.
        tokio::time::sleep(std::time::Duration::from_secs(7)).await;
        let upstreams = usize::from(!matches!(stage, Dialing | HeldBodyArrives));
        assert_eq!(house.seen.borrow().len(), upstreams);
        let gone = Instant::now();
        drop(client);
        house.clients_gone().await;
        house.hear();
        house.saw(|seen| seen.iter().all(|s| s.closed.is_some())).await;
        assert_eq!(gone.elapsed().as_millis(), 0, "it took time");
        // Who has the last event has the answer, whatever becomes of the connection.
        let outcome = if matches!(stage, AfterMessageStop) { "success" } else { "client_disconnected" };
        assert_eq!(house.outcomes(), [(outcome, 1)]);
        assert_eq!((house.worker.pool.len(), house.gateway.held.used()), (0, 0));
    })
    .await;
}

#[test]
fn a_client_that_goes_takes_its_upstream_with_it_at_once() {
    every_row(STAGES, async |stage| check(*stage).await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_between_requests_leaves_the_upstream_to_others() {
    in_house_with_pipes_of(
        4096,
        |_: &mut Value| {},
        async |house| {
            let mut client = house.client();
            assert_eq!(client.ask(messages(true, "")).await.status, 200);
            drop(client);
            house.clients_gone().await;
            assert_eq!(house.worker.pool.len(), 1);
            assert_eq!(house.client().ask(messages(false, "")).await.status, 200);
            assert_eq!(house.sim.connections_seen(), 1);
        },
    )
    .await;
}
