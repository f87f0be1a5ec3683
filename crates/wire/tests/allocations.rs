//! An event of a translated stream takes no memory of its own.

#![expect(unsafe_code, reason = "counting allocations takes an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use wire::codec::{Back, Front};
use wire::event::{Block, Delta, Event, Start};
use wire::protocol::Protocol;
use wire::transcode::{self, Stream};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRONT: Front<'static> = Front {
    id: "req_1",
    model: "m",
    created: 1_800_000_000,
    input_estimate: 7,
    stream_usage: true,
    show_reasoning: true,
};

/// The beginning of a stream, and its deltas of these texts, one event a piece.
fn pieces(protocol: Protocol, text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut encoder = transcode::inbound(protocol)?.encode_stream(&FRONT);
    let (mut start, mut delta) = (Vec::new(), Vec::new());
    encoder.event(&Event::Start(Start::default()), &mut start);
    encoder.event(&Event::Open(Block::Text), &mut start);
    encoder.event(&Event::Delta(Delta::Text("a".into())), &mut start);
    encoder.event(&Event::Delta(Delta::Text(text.into())), &mut delta);
    Some((start, delta))
}

/// Allocations of a hundred deltas of that text.
fn allocations(from: Protocol, to: Protocol, text: &str) -> Option<u64> {
    let (start, delta) = pieces(from, text)?;
    let (upstream, client) = (transcode::upstream(from)?, transcode::inbound(to)?);
    let mut stream = Stream::new(upstream, client, &Back::default(), &FRONT);
    let mut out = Vec::with_capacity(1 << 16);
    stream.push(&start, &mut out);
    assert!(stream.seen().has_content);
    let before = ALLOCATIONS.with(Cell::get);
    for _ in 0..100 {
        out.clear();
        stream.push(&delta, &mut out);
        assert!(!out.is_empty());
    }
    Some(ALLOCATIONS.with(Cell::get) - before)
}

#[test]
fn a_delta_takes_no_memory_of_its_own() {
    let mut pairs = 0;
    for from in Protocol::ALL {
        for to in Protocol::ALL {
            if let Some(plain) = allocations(from, to, " some words") {
                // Responses says everything once more at the end; what it keeps for that grows by doubling.
                let kept = if to == Protocol::OpenAiResponses { 10 } else { 0 };
                assert!(plain <= kept, "{from:?} to {to:?}: {plain}");
                // Escapes are undone in memory of their own, which grows.
                let escaped = allocations(from, to, "a line\nand \"quotes\"").unwrap_or(0);
                assert!(escaped <= 400 + kept, "{from:?} to {to:?}: {escaped}");
                pairs += 1;
            }
        }
    }
    assert!(pairs >= 9);
}
