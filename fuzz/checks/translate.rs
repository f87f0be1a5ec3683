//! Whatever comes in: nothing panics, what goes out is legal, and where bytes are cut does not matter.

use serde::de::IgnoredAny;
use wire::codec::{Back, Front, Inbound, Target, Upstream};
use wire::event::Event;
use wire::grammar::Grammar;
use wire::loss::Losses;
use wire::message::{Fold, Message};
use wire::models;
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::request::Content;
use wire::transcode::{self, Stream};

use crate::cuts;

const FRONT: Front<'static> = Front {
    id: "req_1",
    model: "m",
    created: 1_800_000_000,
    input_estimate: 7,
    stream_usage: true,
    show_reasoning: true,
};

/// The first byte chooses; the rest is what is read.
fn chosen<T>(bytes: &[u8], of: Vec<T>) -> Option<(T, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let n = usize::from(*first) % of.len();
    Some((of.into_iter().nth(n)?, rest))
}

fn upstreams() -> Vec<(Protocol, &'static dyn Upstream)> {
    Protocol::ALL.into_iter().filter_map(|protocol| Some((protocol, transcode::upstream(protocol)?))).collect()
}

fn clients() -> Vec<(Protocol, &'static dyn Inbound)> {
    Protocol::ALL.into_iter().filter_map(|protocol| Some((protocol, transcode::inbound(protocol)?))).collect()
}

/// The events of a stream. Every order is legal, and every stream ends.
fn events(upstream: &dyn Upstream, pieces: &[&[u8]], mut each: impl FnMut(&Event<'_>)) {
    let (mut decoder, mut grammar) = (upstream.decode_stream(), Grammar::default());
    let mut sink = |event: Event<'_>| {
        grammar.event(&event).expect("only legal orders");
        each(&event);
    };
    pieces.iter().for_each(|piece| _ = decoder.push(piece, &mut sink));
    decoder.end(&mut sink);
    decoder.end(&mut sink);
    assert!(grammar.is_over(), "a stream without an end");
}

/// Panics where reading `bytes` as a streamed answer, and writing it to clients, is wrong.
pub(crate) fn check_stream(bytes: &[u8]) {
    let Some(((protocol, upstream), stream)) = chosen(bytes, upstreams()) else { return };
    let (mut want, mut fold) = (Vec::new(), Fold::default());
    events(upstream, &[stream], |event| {
        want.push(format!("{event:?}"));
        fold.event(event);
    });
    cuts::each_way(stream, |pieces| {
        let mut at = 0;
        events(upstream, pieces, |event| {
            assert_eq!(want.get(at), Some(&format!("{event:?}")), "event {at} in {pieces:?}");
            at += 1;
        });
        assert_eq!(at, want.len());
    });
    let whole = fold.finish().expect("every stream ends");
    for (client, inbound) in clients() {
        let back = Back { names: vec![("f".into(), "known".into())], custom: vec!["g".into()] };
        let (mut out, mut translated) = (Vec::new(), Stream::new(upstream, inbound, &back, &FRONT));
        translated.push(stream, &mut out);
        translated.end(&mut out);
        assert!(translated.seen().is_over());
        assert_eq!(translated.seen().error.is_some(), whole.is_err());
        named(&translated.lost());
        std::str::from_utf8(&out).expect("text");
        // What a client's own reader makes of it.
        if let Some(reader) = transcode::upstream(client) {
            let mut again = Fold::default();
            events(reader, &[&out], |event| again.event(event));
            let again = again.finish().expect("every stream ends");
            assert_eq!(again.is_err(), whole.is_err(), "{protocol:?} to {client:?}: {again:?}");
            if let (Ok(whole), Ok(again)) = (&whole, &again) {
                conserved(whole, again);
                taken(again);
            }
        }
    }
    if let Ok(message) = &whole {
        played(message);
    }
}

/// Every provider takes the ids and names of the calls, should it be the next that is asked; and no two have one id.
fn taken(told: &Message<'_>) {
    let is_taken = |word: &str, most: usize| {
        (1..=most).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let mut ids = Vec::new();
    for part in &told.parts {
        let Content::Call(call) = &part.content else { continue };
        assert!(is_taken(&call.id, 40) && !ids.contains(&&call.id), "{call:?}");
        assert!(call.name == "known" || is_taken(&call.name, 128), "{call:?}");
        ids.push(&call.id);
    }
}

/// What is named as left out is bounded, and nothing twice; a header can hold it.
fn named(lost: &Losses) {
    let mut paths: Vec<_> = lost.iter().map(|loss| &*loss.path).collect();
    let all = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert!(all <= 64 && paths.len() == all, "{paths:?}");
    let header = lost.to_string();
    assert!(header.len() < 1600 && header.bytes().all(|b| b.is_ascii_graphic() || b == b' '), "{header}");
}

/// The tokens that a client is told of are those that the upstream told of.
fn conserved(sent: &Message<'_>, got: &Message<'_>) {
    let tokens = |message: &Message<'_>| {
        let tokens = message.stop.usage.as_ref()?.tokens;
        Some((tokens.prompt(), tokens.cache_read, tokens.output))
    };
    let told = tokens(got).expect("a client is always told of tokens");
    match tokens(sent) {
        Some(sent) => assert_eq!(sent, told),
        None => assert!(told.0 > 0 && told.2 > 0, "an estimate is never zero"),
    }
}

/// A whole answer and its events are the same.
fn played(message: &Message<'_>) {
    let (mut fold, mut grammar) = (Fold::default(), Grammar::default());
    message.events(|event| {
        grammar.event(&event).expect("only legal orders");
        fold.event(&event);
    });
    let again = fold.finish().expect("it ends").expect("it ends well");
    assert_eq!((&again.parts, &again.stop), (&message.parts, &message.stop));
}

/// Panics where reading `bytes` as a whole answer, and writing it to clients, is wrong.
pub(crate) fn check_whole(bytes: &[u8]) {
    let Some(((_, upstream), body)) = chosen(bytes, upstreams()) else { return };
    wire::refusal::read(400, body);
    let Ok(message) = upstream.decode_whole(body) else { return };
    for (client, inbound) in clients() {
        let mut out = Vec::new();
        let back = Back::default();
        let seen = transcode::whole(upstream, inbound, body, &back, &FRONT, false, &mut out).expect("it was read");
        named(&seen.lost);
        out.clear();
        inbound.encode_whole(&message, &FRONT, &mut out);
        serde_json::from_slice::<IgnoredAny>(&out).expect("JSON");
        if let Some(reader) = transcode::upstream(client) {
            let again = reader.decode_whole(&out).expect("what is written is read");
            conserved(&message, &again);
        }
    }
}

/// Panics where reading `bytes` as a request, and writing it for upstreams, is wrong.
pub(crate) fn check_request(bytes: &[u8]) {
    let Some(((_, inbound), body)) = chosen(bytes, clients()) else { return };
    let request = match inbound.decode_request(body) {
        Ok(request) => request,
        Err(error) => {
            let mut out = Vec::new();
            inbound.encode_error(&error, &FRONT, &mut out);
            serde_json::from_slice::<IgnoredAny>(&out).expect("JSON");
            return;
        }
    };
    for (protocol, upstream) in upstreams() {
        let others = match protocol {
            Protocol::AnthropicMessages => vec![models::claude("claude-sonnet-4-5")],
            Protocol::OpenAiChat => vec![Quirks::OPENAI, Quirks::OPENAI_REASONING, Quirks::DEEPSEEK],
            _ => Vec::new(),
        };
        for quirks in others.into_iter().chain([Quirks::of(protocol)]) {
            let target = Target { model: "m", max_output: Some(5000), quirks: &quirks, input_estimate: 7 };
            let encoded = upstream.encode_request(&request, &target);
            serde_json::from_slice::<IgnoredAny>(&encoded.body).expect("JSON");
            // What was sent says the same when it is read and sent again.
            let Some(own) = transcode::inbound(protocol).filter(|_| encoded.losses.refused().is_none()) else {
                continue;
            };
            let again = own.decode_request(&encoded.body).expect("what is written is read");
            let again = upstream.encode_request(&again, &target);
            let text = |body: &[u8]| String::from_utf8(body.to_vec()).expect("text");
            assert_eq!(again.losses.refused(), None);
            assert_eq!(text(&again.body), text(&encoded.body), "written again for {protocol:?}");
        }
    }
}
