//! Measures translation: a request of 200 KB, a stream of 1,000 events, and allocations, for each pair of protocols.
//!
//! `cargo run --release -p wire --example translate_bench`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may stop, and says what it found")]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]
#![expect(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use wire::codec::{Back, Front, Target};
use wire::event::{Block, Delta, Event, Start, Stop, StopReason};
use wire::meter::Meter;
use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::sse::Splitter;
use wire::transcode::{self, Observer, Stream};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRONT: Front<'static> = Front {
    id: "req_1",
    model: "claude-sonnet-5-5",
    created: 1_800_000_000,
    input_estimate: 50_000,
    stream_usage: true,
    show_reasoning: true,
};
const EVENTS: usize = 1000;

fn main() {
    println!("| request of 200 KB | µs | allocations |\n|---|---|---|");
    for from in Protocol::ALL {
        for to in Protocol::ALL {
            request(from, to);
        }
    }
    for (what, said) in [("texts", Said::Text), ("pieces of arguments", Said::Arguments)] {
        println!(
            "\n| stream of 1,000 {what} | translated, events/s | as it passes, events/s | ns more an event | allocations an event |"
        );
        println!("|---|---|---|---|---|");
        for from in Protocol::ALL {
            for to in Protocol::ALL.into_iter().filter(|to| *to != from) {
                stream(from, to, said);
            }
        }
    }
}

/// What the events of a stream say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Text,
    /// Of one call: nearly every piece has quotes.
    Arguments,
}

/// The best of several runs, in nanoseconds, and the allocations of the last.
fn best(rounds: usize, mut run: impl FnMut()) -> (u128, u64) {
    let (mut best, mut allocations) = (u128::MAX, 0);
    for _ in 0..rounds {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let began = Instant::now();
        run();
        best = best.min(began.elapsed().as_nanos());
        allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    }
    (best, allocations)
}

/// A request of a coding agent in the middle of its work: long instructions, twenty tools, forty rounds.
fn sample(protocol: Protocol) -> Option<Vec<u8>> {
    let line = "Read the file \"src/main.rs\" first.\nThen say what it does, in one sentence; nothing more.\n";
    let schema = json!({"type": "object", "properties": {"path": {"type": "string", "description": line}}, "required": ["path"]});
    let tools =
        (0..20).map(|n| json!({"name": format!("tool_{n}"), "description": line.repeat(8), "input_schema": schema}));
    let rounds = (0..40).flat_map(|n| {
        let id = format!("toolu_{n}");
        [
            json!({"role": "assistant", "content": [
                {"type": "text", "text": line},
                {"type": "tool_use", "id": id, "name": "tool_1", "input": {"path": "src/main.rs", "limit": 1.0}},
            ]}),
            json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": line.repeat(38)}]}),
        ]
    });
    let messages: Vec<_> = std::iter::once(json!({"role": "user", "content": line})).chain(rounds).collect();
    let request = json!({
        "model": "claude-sonnet-5-5", "max_tokens": 8000, "stream": true, "system": line.repeat(200),
        "tools": tools.collect::<Vec<_>>(), "messages": messages,
    });
    let anthropic = request.to_string().into_bytes();
    match protocol {
        Protocol::AnthropicMessages => Some(anthropic),
        Protocol::Ollama => None,
        _ => {
            let request = transcode::inbound(Protocol::AnthropicMessages)?.decode_request(&anthropic).unwrap();
            let quirks = Quirks::of(protocol);
            Some(transcode::upstream(protocol)?.encode_request(&request, &target(&quirks)).body)
        }
    }
}

fn target(quirks: &Quirks) -> Target<'_> {
    Target { model: "m", max_output: None, quirks, input_estimate: 50_000 }
}

fn request(from: Protocol, to: Protocol) {
    let (Some(inbound), Some(upstream), Some(body)) = (transcode::inbound(from), transcode::upstream(to), sample(from))
    else {
        return;
    };
    let quirks = Quirks::of(to);
    let (time, allocations) = best(50, || {
        let request = inbound.decode_request(black_box(&body)).unwrap();
        let encoded = upstream.encode_request(&request, &target(&quirks));
        assert!(encoded.losses.refused().is_none(), "{:?}", encoded.losses);
        black_box(encoded);
    });
    println!("| {} to {} | {} | {allocations} |", from.as_str(), to.as_str(), time / 1000);
}

/// A stream of that many deltas, as an upstream of that protocol sends it: one event a piece.
fn pieces(protocol: Protocol, said: Said) -> Option<Vec<Vec<u8>>> {
    if protocol == Protocol::Ollama {
        let line = |n| json!({"model": "m", "created_at": "2026-11-22T07:00:00.000000Z", "message": {"role": "assistant", "content": format!(" word number {n}")}, "done": false});
        let last = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": 5, "eval_count": 9});
        // Its calls come whole.
        let lines = (0..EVENTS).map(line).chain([last]).map(|line| format!("{line}\n").into_bytes());
        return (said == Said::Text).then(|| lines.collect());
    }
    let mut encoder = transcode::inbound(protocol)?.encode_stream(&FRONT);
    let mut pieces = Vec::new();
    let mut write = |event: Event<'_>| {
        let mut out = Vec::new();
        encoder.event(&event, &mut out);
        pieces.push(out);
    };
    write(Event::Start(Start { id: "1".into(), model: "m".into(), usage: None }));
    match said {
        Said::Text => {
            write(Event::Open(Block::Text));
            (0..EVENTS).for_each(|n| write(Event::Delta(Delta::Text(format!(" word number {n}").into()))));
        }
        Said::Arguments => {
            write(Event::Open(Block::Call { id: "call_0123456789".into(), name: "Edit".into(), custom: false }));
            let first = |n| if n == 0 { '{' } else { ',' };
            (0..EVENTS).for_each(|n| {
                write(Event::Delta(Delta::Input(format!("{}\"key {n}\":\"v\"", first(n)).into())));
            });
            write(Event::Delta(Delta::Input("}".into())));
        }
    }
    write(Event::Close);
    write(Event::Stop(Stop::new(StopReason::EndTurn)));
    Some(pieces)
}

fn stream(from: Protocol, to: Protocol, said: Said) {
    let (Some(upstream), Some(inbound), Some(pieces)) =
        (transcode::upstream(from), transcode::inbound(to), pieces(from, said))
    else {
        return;
    };
    // What is done for an answer that passes untouched: it is followed, by the meter where it is Anthropic's.
    let (passing, _) = best(50, || match from {
        Protocol::AnthropicMessages => {
            let (mut splitter, mut meter) = (Splitter::new(1 << 20), Meter::default());
            for piece in &pieces {
                splitter.push(black_box(piece), |event| meter.event(&event));
            }
            black_box(meter.metered());
        }
        _ => {
            let mut observer = Observer::new(upstream);
            pieces.iter().for_each(|piece| _ = observer.push(black_box(piece)));
            black_box(observer.seen());
        }
    });
    let mut out = Vec::with_capacity(1 << 16);
    let (time, allocations) = best(50, || {
        let mut stream = Stream::new(upstream, inbound, &Back::default(), &FRONT);
        for piece in &pieces {
            out.clear();
            stream.push(black_box(piece), &mut out);
            black_box(&out);
        }
        stream.end(&mut out);
        assert!(stream.seen().stop.is_some(), "{stream:?}");
    });
    let events = EVENTS as u128;
    let a_second = |time: u128| format!("{:.2} million", events as f64 * 1000.0 / time.max(1) as f64);
    println!(
        "| {} to {} | {} | {} | {} | {:.2} |",
        from.as_str(),
        to.as_str(),
        a_second(time),
        a_second(passing),
        time.saturating_sub(passing) / events,
        allocations as f64 / EVENTS as f64,
    );
}
