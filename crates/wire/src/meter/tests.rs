use super::*;
use crate::sse::Splitter;
use crate::usage::{CacheWrite, ServiceTier, Tokens};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn feed(meter: &mut Meter, pieces: &[&[u8]]) {
    let mut splitter = Splitter::new(1 << 20);
    for piece in pieces {
        splitter.push(piece, |event| meter.event(&event));
    }
}

fn metered(pieces: &[&[u8]]) -> Metered {
    let mut meter = Meter::default();
    feed(&mut meter, pieces);
    meter.metered()
}

fn fold(stream: &str) -> Progress {
    metered(&[stream.as_bytes()]).progress
}

const START: &str = "event: message_start\ndata: {\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n";
const STOP: &str = "event: message_stop\ndata: {}\n\n";

fn delta(usage: &str) -> String {
    format!("event: message_delta\ndata: {{\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{usage}}}\n\n")
}

/// Input, cache read, output of a whole stream with these events between start and stop; `None`: unknown.
#[track_caller]
fn check(events: &[&str], want: Option<(u64, u64, u64)>, unreadable: u32) {
    let got = metered(&[events.concat().as_bytes()]);
    let counts = got.usage.known().map(|u| (u.tokens.input, u.tokens.cache_read, u.tokens.output));
    assert_eq!((counts, got.unreadable), (want, unreadable));
}

#[test]
fn pings_and_comments_are_no_beginning() {
    assert_eq!(fold(": hi\n\nevent: ping\ndata: {}\n\n"), Progress::Nothing);
    assert_eq!(fold("event: ping\ndata: {}\n\nevent: message_start\ndata: {}\n\n"), Progress::Begun);
    assert_eq!(fold("event: content_block_delta\ndata: {}\n\n"), Progress::Begun);
    assert_eq!(fold("event: an_event_of_tomorrow\ndata: {}\n\n"), Progress::Begun);
}

#[test]
fn an_answer_ends_with_its_last_event_and_not_with_its_name_in_a_text() {
    assert_eq!(fold("event: content_block_delta\ndata: event: message_stop\n\n"), Progress::Begun);
    assert_eq!(fold("event: message_stop\ndata: {}\n\n"), Progress::Ended);
    assert_eq!(fold("event: message_stop\ndata: {}"), Progress::Nothing);
    assert_eq!(fold("event: error\ndata: {}\n\nevent: message_stop\ndata: {}\n\n"), Progress::Failed);
}

#[test]
fn an_event_without_a_name_is_known_by_the_type_in_its_data() {
    for path in transcripts() {
        let Ok(stream) = std::fs::read_to_string(path.to_string_lossy().replace(".expect.json", ".sse")) else {
            continue;
        };
        let bare: String = stream.split_inclusive('\n').filter(|line| !line.starts_with("event:")).collect();
        assert_ne!(bare, stream);
        assert_eq!(metered(&[bare.as_bytes()]), metered(&[stream.as_bytes()]), "{}", path.display());
    }
    assert_eq!(fold("data: [DONE]\n\ndata: {\"type\":7}\n\ndata: {}\n\ndata\n\n"), Progress::Nothing);
    assert_eq!(fold("event:\ndata: {\"type\":\"message_stop\"}\n\n"), Progress::Ended);
}

/// llama.cpp, where the first token is half a character.
#[test]
fn without_its_beginning_the_input_is_unknown_and_not_zero() {
    let text = "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"🙂\"}}\n\n";
    check(&[text, &delta(r#"{"output_tokens":16}"#), STOP], None, 0);
    check(&[text, &delta(r#"{"output_tokens":16,"input_tokens":37}"#), STOP], Some((37, 0, 16)), 0);
}

#[test]
fn later_counts_replace_and_what_is_missing_or_null_stays() {
    check(&[START, &delta(r#"{"output_tokens":8}"#), STOP], Some((25, 3, 8)), 0);
    let nulls = delta(r#"{"output_tokens":8,"input_tokens":null,"cache_read_input_tokens":null}"#);
    check(&[START, &nulls, STOP], Some((25, 3, 8)), 0);
    let more = delta(r#"{"output_tokens":8,"input_tokens":90,"cache_read_input_tokens":4}"#);
    check(&[START, &more, STOP], Some((90, 4, 8)), 0);
    check(&[START, &more, &more, &more, STOP], Some((90, 4, 8)), 0);
    check(
        &[START, &delta(r#"{"output_tokens":0,"input_tokens":0,"cache_read_input_tokens":0}"#), STOP],
        Some((0, 0, 0)),
        0,
    );
    check(&[START, &delta("null"), STOP], Some((25, 3, 1)), 0);
    check(&[START, &delta(r#"{"output_tokens":18446744073709551615}"#), STOP], Some((25, 3, u64::MAX)), 0);
    check(&[START, &delta(r#"{"output_tokens":8}"#), STOP, &delta(r#"{"output_tokens":9}"#)], Some((25, 3, 8)), 0);
}

#[test]
fn an_event_that_cannot_be_read_makes_unknown_and_never_zero() {
    let good = delta(r#"{"output_tokens":8}"#);
    let whole = delta(r#"{"output_tokens":8,"input_tokens":30}"#);
    for bad in ["{", "", "[]", "{\"message\":3}", "{\"message\":{\"usage\":{\"input_tokens\":-1}}}", "\u{1}"] {
        let start = format!("event: message_start\ndata: {bad}\n\n");
        check(&[&start, &good, STOP], None, 1);
        check(&[&start, STOP], None, 1);
        check(&[&start, &whole, STOP], Some((30, 0, 8)), 1);
    }
    check(&["event: message_start\n\n", &good, STOP], None, 1);
    for bad in [
        r#"{"output_tokens":"8"}"#,
        r#"{"output_tokens":1e99}"#,
        "7",
        "{]",
        r#"{"output_tokens":18446744073709551616}"#,
    ] {
        let bad = delta(bad);
        check(&[START, &bad, STOP], None, 1);
        check(&[START, &good, &bad, STOP], None, 1);
        check(&[START, &bad, &good, STOP], None, 1);
        check(&[START, &bad, &whole, STOP], Some((30, 3, 8)), 1);
    }
    check(&[STOP], None, 0);
    check(&["event: content_block_delta\ndata: garbage\n\n", &good, STOP], None, 0);
    let no_counts = "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":null}}}\n\n";
    check(&[no_counts, &good, STOP], None, 0);
    let mut meter = Meter::default();
    feed(&mut meter, &[b"event: message_delta\ndata: {", &vec![b' '; 2 << 20], b"}\n\n"]);
    assert_eq!((meter.metered().usage, meter.metered().unreadable), (Counts::Unknown, 1), "cut");
}

#[test]
fn counts_are_final_only_when_the_end_was_seen() {
    let text = "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"123456789\"}}\n\n";
    let estimate = |events: &[&str]| metered(&[events.concat().as_bytes()]).estimated_output();
    assert_eq!(estimate(&[START, text]), Some(3));
    assert_eq!(estimate(&[START, text, "event: error\ndata: {}\n\n"]), Some(3));
    assert_eq!(estimate(&[START, text, STOP]), Some(3), "no closing counts");
    assert_eq!(estimate(&[START, text, &delta("null"), STOP]), Some(3));
    assert_eq!(estimate(&[START, text, &delta(r#"{"output_tokens":8}"#)]), None);
    let open = "event: message_delta\ndata: {\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":2}}\n\n";
    assert_eq!(estimate(&[START, text, open]), Some(3), "more may come");
    assert_eq!(estimate(&[START, text, open, STOP]), None);
}

#[test]
fn text_is_measured_without_being_parsed() {
    let mut usual = 0;
    let bytes = |delta: &str| {
        string_bytes(delta_text(format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n").as_bytes()))
    };
    for (delta, want) in [
        (r#"{"type":"text_delta","text":"Cached."}"#, 7),
        (r#"{ "type" : "text_delta", "text" : "Cached." }"#, 7),
        (r#"{"text":"say \"type\"","type":"text_delta"}"#, 10),
        (r#"{"type":"text_delta","text":""}"#, 0),
        (r#"{"type":"text_delta","text":"\\"}"#, 1),
        (r#"{"type":"text_delta","text":"a\nb\u00e9"}"#, 6),
        (r#"{"type":"thinking_delta","thinking":"hm","estimated_tokens":5}"#, 2),
        (r#"{"type":"input_json_delta","partial_json":"{\"a\":"}"#, 5),
        (r#"{"type":"compaction_delta","content":"sum"}"#, 3),
        (r#"{"type":"signature_delta","signature":"RklY"}"#, 0),
        (r#"{"type":"citations_delta","citation":{"text":"quoted"}}"#, 0),
        (r#"{"type":"text"}"#, 0),
        (r#"{"type":"text","text":"ab"}"#, 2),
        (r#"{}"#, 0),
    ] {
        assert_eq!(bytes(delta), want, "{delta}");
        let event = format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n"
        );
        assert_eq!(metered(&[event.as_bytes()]).text_bytes, want, "{delta}");
        if let Some(string) = usual_delta(event.as_bytes()) {
            usual += 1;
            assert_eq!(string_bytes(string), want, "{delta}");
        }
    }
    assert_eq!(usual, 6);
    assert_eq!(string_bytes(delta_text(br#"{"delta":{"text":"cut he"#)), 6);
    assert_eq!(string_bytes(delta_text(br#"{"delta":{"text":"\"#)), 1);
    assert_eq!(string_bytes(delta_text(br#"{"delta":{"text":"\u12"#)), 3);
    assert_eq!(string_bytes(delta_text(br#"{"delta":{"te"#)), 0);
}

#[test]
fn the_upstreams_words_are_bounded() {
    let long = "x".repeat(5000);
    let start = format!("event: message_start\ndata: {{\"message\":{{\"model\":\"{long}\",\"id\":\"{long}\"}}}}\n\n");
    let error = format!("event: error\ndata: {{\"error\":{{\"type\":\"{long}\",\"message\":\"{long}\"}}}}\n\n");
    let got = metered(&[start.as_bytes(), error.as_bytes()]);
    let length = |text: &Option<Box<str>>| text.as_ref().map(|text| text.len());
    assert_eq!((length(&got.model), length(&got.message_id)), (Some(256), Some(128)));
    let error = got.error.unwrap();
    assert_eq!((error.kind.len(), error.message.len()), (128, 1024));
}

#[test]
fn whole_answers_are_read_as_well() {
    let counts = |body: &str| whole(body.as_bytes()).usage.known().map(|u| (u.tokens.input, u.tokens.output));
    assert_eq!(counts(r#"{"input_tokens":2095}"#), Some((2095, 0)));
    assert_eq!(
        counts("\n\n {\"usage\":{\"input_tokens\":1,\"output_tokens\":2},\"content\":[{\"usage\":3}]}"),
        Some((1, 2))
    );
    assert_eq!(counts(r#"{"id":"m","usage":null}"#), None);
    assert_eq!(counts(r#"{"usage":{"output_tokens":2}}"#), None);
    for bad in
        ["", "<html>", r#"{"usage":{"input_tokens":1,"output_tokens":2}"#, r#"{"input_tokens":-1}"#, "[]", "null"]
    {
        let got = whole(bad.as_bytes());
        assert_eq!((got.usage, got.unreadable, got.progress), (Counts::Unknown, 1, Progress::Nothing), "{bad}");
    }
    let error = whole(br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
    assert_eq!(&*error.error.unwrap().kind, "overloaded_error");
    assert_eq!(whole(br#"{"type":"error","error":"odd"}"#).error, Some(StreamError::default()));
    assert_eq!(counts(r#"{"usage":{"input_tokens":1,"output_tokens":2}}"#), Some((1, 2)));
    assert!(whole(br#"{"usage":{"input_tokens":1,"output_tokens":2}}"#).is_final);
    assert!(!whole(br#"{"usage":{"input_tokens":1}}"#).is_final);
}

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".expect.json")).collect();
    files.sort();
    assert!(files.len() >= 19, "only {} transcripts", files.len());
    files
}

/// What `expect.json` says, in the form of what was metered.
fn expected(expect: &Value, got: &Metered) -> Metered {
    let usage = &expect["usage"];
    let n = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
    let some = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
    let tokens = Tokens {
        input: n("input_tokens"),
        cache_read: n("cache_read_tokens"),
        cache_write: CacheWrite {
            m5: n("cache_write_5m_tokens"),
            h1: n("cache_write_1h_tokens"),
            ..Default::default()
        },
        output: n("output_tokens"),
    };
    let seen = got.usage.known().expect("known");
    let word = |name: &str| expect.get(name).and_then(Value::as_str).map(Into::into);
    let error = expect.get("error").map(|error| StreamError {
        kind: error["type"].as_str().unwrap().into(),
        message: error["message"].as_str().unwrap().into(),
    });
    Metered {
        progress: match expect["outcome"].as_str().unwrap() {
            "complete" => Progress::Ended,
            "truncated" => Progress::Begun,
            "error_event" => Progress::Failed,
            other => panic!("outcome {other}"),
        },
        stop_reason: word("stop_reason"),
        usage: Counts::Known(Usage {
            tokens,
            reasoning: some("reasoning_tokens"),
            web_search: some("web_search_requests"),
            service_tier: word("service_tier").map(Into::into).or(seen.service_tier.clone()),
            region: word("inference_geo").or(seen.region.clone()),
            ..Usage::default()
        }),
        is_final: expect["usage_final"].as_bool().unwrap(),
        error,
        unreadable: 0,
        ..got.clone()
    }
}

#[test]
fn every_transcript_gives_its_accounting_at_every_cut() {
    for path in transcripts() {
        let expect: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let name = expect["file"].as_str().unwrap();
        let body = std::fs::read(path.with_file_name(name)).unwrap();
        if expect["outcome"] == "http_error" {
            let got = whole(&body);
            assert_eq!(got.progress, Progress::Failed, "{name}");
            assert_eq!(got.error.unwrap().kind.as_ref(), expect["error"]["type"], "{name}");
            assert_eq!(got.usage, Counts::Known(Usage::default()), "{name}");
            continue;
        }
        if name.ends_with(".json") {
            let got = whole(&body);
            assert_eq!(got, expected(&expect, &got), "{name}");
            continue;
        }
        let got = metered(&[&body]);
        assert_eq!(got, expected(&expect, &got), "{name}");
        assert_eq!(got.model.is_some(), expect["outcome"] != "error_event" || name.starts_with("a08"), "{name}");
        if expect["tool_calls"] == Value::Array(vec![]) && expect.get("server_tool_calls").is_none() {
            let length = |field| expect.get(field).and_then(Value::as_str).map_or(0, str::len) as u64;
            let text = length("text") + length("thinking");
            assert!(got.text_bytes.abs_diff(text) <= 2, "{name}: {} for {text}", got.text_bytes);
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(metered(&bytes), got, "{name} byte by byte");
        for at in 0..body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(metered(&[a, b]), got, "{name} cut at byte {at}");
        }
        let mut pieces = vec![];
        let mut from = 0;
        for cut in expect.get("cuts").and_then(Value::as_array).into_iter().flatten() {
            let cut = cut.as_u64().unwrap() as usize;
            pieces.push(&body[from..cut]);
            from = cut;
        }
        pieces.push(&body[from..]);
        assert_eq!(metered(&pieces), got, "{name} in its own cuts");
    }
}

#[test]
fn a_stream_that_is_cut_off_anywhere_keeps_the_input_it_announced() {
    for path in transcripts() {
        let body = std::fs::read(path.to_string_lossy().replace(".expect.json", ".sse"));
        let Ok(body) = body else { continue };
        let mut before = Counts::Unknown;
        for end in 0..body.len() {
            let got = metered(&[&body[..end]]);
            if before != Counts::Unknown {
                assert_ne!(got.usage, Counts::Unknown, "{} after {end} bytes", path.display());
            }
            assert!(!got.is_final || got.stop_reason.is_some());
            before = got.usage;
        }
    }
}

#[test]
fn the_tier_and_the_region_come_from_the_answer() {
    let read = |name: &str| {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts").join(name)).unwrap()
    };
    let cached = metered(&[&read("a15_cache_5m_1h.sse")]);
    let usage = cached.usage.known().unwrap();
    assert_eq!((usage.region.as_deref(), &usage.service_tier), (Some("us"), &Some(ServiceTier::Standard)));
    assert_eq!(cached.model.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(cached.message_id.as_deref(), Some("msg_01GwFixtureAAAAAAAAAAAA1"));
}

/// `cargo test --release -p wire -- --ignored --nocapture cost_of`
#[test]
#[ignore = "prints numbers and asserts none"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn cost_of_following_a_stream() {
    let deltas: String = (0..1000)
        .map(|n| format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word\\nnumber {n}\"}}}}\n\n"))
        .collect();
    let run = |name: &str, each: &mut dyn FnMut(&RawEvent<'_>)| {
        let mut best = u128::MAX;
        for _ in 0..200 {
            let mut splitter = Splitter::new(1 << 20);
            let began = std::time::Instant::now();
            splitter.push(std::hint::black_box(deltas.as_bytes()), |event| each(&event));
            best = best.min(began.elapsed().as_nanos());
        }
        println!("{name}: {}.{} ns an event", best / 1000, best % 1000 / 100);
    };
    run("splitter alone", &mut |event| {
        std::hint::black_box(event);
    });
    run("with names", &mut |event| {
        std::hint::black_box(event.name());
    });
    let mut meter = Meter::default();
    run("with meter", &mut |event| meter.event(event));
    std::hint::black_box(meter.metered());
}

/// Pieces that usage is made of, put together in any order.
const PARTS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    " ",
    "null",
    "{}",
    "7",
    "\"\\\"\"",
    "\"input_tokens\":5",
    "\"output_tokens\":6,",
    "\"cache_creation\":",
    "{\"ephemeral_1h_input_tokens\":7}",
    "\"output_tokens_details\":",
    "{\"thinking_tokens\":3}",
    "{\"input_tokens\":5,\"cache_creation\":{\"ephemeral_5m_input_tokens\":2}",
];

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

    #[test]
    fn usage_reads_the_same_where_it_stands_as_from_its_text(
        parts in proptest::collection::vec(proptest::sample::select(PARTS), 1..8),
    ) {
        let text = format!("{{\"usage\":{},\"id\":\"x\"}}", parts.concat());
        let (mut here, mut apart) = (Members::of(text.as_bytes()), Members::of(text.as_bytes()));
        proptest::prop_assert_eq!((here.key().is_ok(), apart.key().is_ok()), (true, true));
        let from_text = apart.text().map(|value| given(Some(value)).map(report));
        proptest::prop_assert_eq!(format!("{:?}", here.object(report_of)), format!("{from_text:?}"), "{}", text);
        if from_text.is_ok() {
            proptest::prop_assert_eq!(here.key(), apart.key(), "{}", text);
        }
    }
}

proptest::proptest! {
    #[test]
    fn a_spoilt_stream_harms_nothing_and_reads_the_same_at_every_cut(
        which in 0_usize..100,
        spoilt in proptest::collection::vec((0_usize..4000, proptest::prelude::any::<u8>()), 0..4),
        cut in 0_usize..4000,
    ) {
        let files = transcripts();
        let path = files[which % files.len()].to_string_lossy().replace(".expect.json", ".sse");
        let mut body = std::fs::read(path).unwrap_or_else(|_| b"event: message_stop\n\n".to_vec());
        for (at, byte) in spoilt {
            let at = at % body.len();
            body[at] = byte;
        }
        let (a, b) = body.split_at(cut % body.len());
        proptest::prop_assert_eq!(metered(&[a, b]), metered(&[&body]));
        whole(&body);
    }
}
