//! What the record of an exchange says of it, whatever its end. That there is one of each is checked by every test here.

use ledger::money::NanoUsd;
use ledger::record::{Outcome, Record};

use crate::common::client::{get, messages, post};
use crate::common::pipes::{Step, every_row, in_house, plain, send, wait};
use crate::time::{START, STOP, STREAM, chunk};

/// A piece of text, 36 bytes of it.
const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"what the model says is counted here\"}}\n\n";
/// The last word about usage.
const USED: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":7}}\n\n";

pub(crate) fn begun(model: &str) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\
         \"model\":\"{model}\",\"content\":[],\"stop_reason\":null,\"usage\":{{\"input_tokens\":100,\"cache_read_input_tokens\":1000,\
         \"cache_creation_input_tokens\":30,\"cache_creation\":{{\"ephemeral_5m_input_tokens\":10,\"ephemeral_1h_input_tokens\":20}},\
         \"output_tokens\":1}}}}}}\n\n"
    )
}

async fn record_of(steps: Vec<Step>, request: Vec<u8>) -> Record {
    in_house(plain, async |house| {
        house.script(steps);
        let mut client = house.client();
        let reply = client.ask(request).await;
        house.settled().await;
        let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
        assert_eq!(reply.header("x-cco-request-id"), Some(&*record.id.to_string()));
        record.clone()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_whole_stream_is_recorded_with_what_it_used_and_what_that_cost() {
    let head = STREAM.replacen("\r\n", "\r\nrequest-id: req_1\r\n", 1);
    let steps = vec![
        Step::Request,
        wait(2.0),
        send(head),
        wait(1.0),
        chunk(&begun("claude-sonnet-4-5-20250929")),
        chunk(TEXT),
        wait(3.0),
        chunk(USED),
        chunk(STOP),
    ];
    let fields = "x-api-key: sk-ant-api03-0123456789abcdef\r\nx-claude-code-session-id: s1\r\nx-cco-project: house\r\n";
    let body = r#"{"model":"claude-sonnet-4-5","stream":true,"messages":[]}"#;
    let record = record_of(steps, post("/v1/messages", fields, body)).await;
    assert_eq!((record.outcome, record.status), (Outcome::Success, Some(200)));
    let parties = &record.parties;
    assert_eq!((parties.session.as_deref(), parties.project.as_deref()), (Some("s1"), Some("house")));
    assert_eq!(parties.requested_model.as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(parties.model.as_deref(), Some("claude-sonnet-4-5-20250929"));
    assert_eq!((parties.provider.as_deref(), parties.stream), (Some("anthropic"), true));
    assert_eq!(record.upstream_request_id.as_deref(), Some("req_1"));
    assert_eq!(record.stop_reason.as_deref(), Some("end_turn"));
    let tokens = record.usage.as_ref().unwrap().tokens;
    assert_eq!((tokens.input, tokens.cache_read, tokens.output), (100, 1000, 7));
    assert_eq!((tokens.cache_write.m5, tokens.cache_write.h1), (10, 20));
    // Dollars a million: input 3, cache read 0.30, write 3.75 (5 minutes) and 6 (an hour), output 15.
    assert_eq!(record.cost, Some(NanoUsd(100 * 3_000 + 1000 * 300 + 10 * 3_750 + 20 * 6_000 + 7 * 15_000)));
    assert_eq!((record.estimated_output, record.usage_unknown), (None, false));
    let seconds = |us: Option<u64>| us.unwrap() / 1_000_000;
    assert_eq!((seconds(record.first_byte_us), seconds(record.first_token_us), seconds(record.duration_us)), (2, 3, 6));
    assert_eq!((record.bytes_in, record.attempts.len()), (body.len() as u64, 1));
    let attempt = &record.attempts[0];
    assert_eq!((attempt.outcome, seconds(Some(attempt.started_us + attempt.duration_us))), (Outcome::Success, 6));
    assert!(!format!("{record:?}").contains("0123456789abcd"), "a key is in the record");
}

#[test]
fn every_end_has_its_outcome_and_what_was_used_until_then_is_not_for_free() {
    let model = "claude-sonnet-4-5";
    let cut = |then: &[Step]| [&[Step::Request, send(STREAM), chunk(&begun(model)), chunk(TEXT)], then].concat();
    let error = "HTTP/1.1 529 Overloaded\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let whole = |body: &str| {
        send(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let message = r#"{"type":"message","model":"claude-sonnet-4-5","stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":2}}"#;
    let failed =
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    // (what the upstream does, streamed, outcome, output tokens: reported and estimated, whether it has a price)
    let rows = [
        (cut(&[]), true, Outcome::Truncated, Some(1), Some(7), true),
        (cut(&[Step::Hang]), true, Outcome::Timeout, Some(1), Some(7), true),
        (cut(&[chunk(failed)]), true, Outcome::UpstreamError, Some(1), Some(7), true),
        (cut(&[chunk(USED), chunk(STOP)]), true, Outcome::Success, Some(7), None, true),
        (
            vec![Step::Request, send(STREAM), chunk(&begun("nobody-knows")), chunk(USED), chunk(STOP)],
            true,
            Outcome::Success,
            Some(7),
            None,
            false,
        ),
        (vec![Step::Request, send(error)], true, Outcome::UpstreamError, None, None, false),
        (vec![Step::Request], true, Outcome::UpstreamError, None, None, false),
        (vec![Step::Request, Step::Hang], true, Outcome::Timeout, None, None, false),
        (vec![Step::Request, whole(message)], false, Outcome::Success, Some(2), None, true),
        (vec![Step::Request, whole("no JSON")], false, Outcome::Success, None, None, false),
    ];
    every_row(&rows, async |(steps, streamed, outcome, output, estimated, priced)| {
        let record = record_of(steps.clone(), messages(*streamed, "")).await;
        assert_eq!(record.outcome, *outcome);
        if let Some(last) = record.attempts.last() {
            assert_eq!(last.outcome, *outcome, "{record:?}");
        }
        assert_eq!(record.usage.as_ref().map(|usage| usage.tokens.output), *output);
        assert_eq!(record.estimated_output, *estimated);
        assert_eq!(record.cost.is_some(), *priced, "{record:?}");
        assert!(record.duration_us.is_some() && record.ended_us >= record.started_us);
    });
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_unknown_and_never_nothing() {
    let unreadable = "event: message_start\ndata: {broken\n\n";
    let record = record_of(vec![Step::Request, send(STREAM), chunk(unreadable), chunk(STOP)], messages(true, "")).await;
    assert_eq!((record.usage.is_none(), record.usage_unknown), (true, true));
    assert_eq!(record.cost, None);
}

#[tokio::test(start_paused = true)]
async fn what_went_up_and_was_never_answered_used_what_nobody_knows() {
    let refused = "HTTP/1.1 529 Overloaded\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    for (steps, unknown) in [
        (vec![Step::Request], true),
        (vec![Step::Request, Step::Hang], true),
        (vec![Step::Request, send(refused)], false),
    ] {
        for streamed in [true, false] {
            let record = record_of(steps.clone(), messages(streamed, "")).await;
            assert_eq!((record.usage.is_none(), record.usage_unknown), (true, unknown), "{record:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_we_refuse_after_routing_is_recorded_and_what_is_no_request_is_not() {
    in_house(plain, async |house| {
        let mut client = house.client();
        let doubled = client.ask(post("/v1/messages", "x-api-key: k\r\n", r#"{"model":"a","model":"b"}"#)).await;
        assert_eq!(doubled.status, 400);
        assert_eq!(house.client().ask(get("/nowhere", "")).await.status, 404);
        let [record] = &house.records()[..] else { panic!("{:?}", house.records()) };
        assert_eq!((record.outcome, record.status, record.attempts.len()), (Outcome::Rejected, Some(400), 0));
        assert!(record.error.as_deref().unwrap().contains("model"));
    })
    .await;
}

/// What the tests of time begin a stream with says nothing of usage.
#[tokio::test(start_paused = true)]
async fn a_stream_that_reports_no_usage_has_none() {
    let record = record_of(vec![Step::Request, send(STREAM), chunk(START), chunk(STOP)], messages(true, "")).await;
    assert_eq!((record.outcome, record.cost), (Outcome::Success, None));
}
