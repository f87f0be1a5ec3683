//! What the readers of streamed answers share: server-sent events, and blocks that may lie side by side.

use crate::codec::{DecodeStream, Sink};
use crate::event::{Block, Delta, Event};
use crate::guard::Guard;
use crate::lanes::{Closing, Lanes};
use crate::sse::{RawEvent, Splitter};

/// What one protocol makes of the events of a stream.
pub(crate) trait ReadEvents: Send {
    /// The longest event that is kept, in megabytes.
    const LONGEST: usize;

    /// What lets legal orders out alone.
    fn guard(&mut self) -> &mut Guard;

    /// An event: its name, if it has one, and its data.
    fn event(&mut self, name: Option<&[u8]>, data: &str, sink: &mut Sink<'_>);

    /// The upstream has closed.
    fn end(&mut self, sink: &mut Sink<'_>) {
        self.guard().truncated(sink);
    }
}

/// Reads one stream of server-sent events.
#[derive(Debug)]
pub(crate) struct Events<S> {
    splitter: Splitter,
    state: S,
}

impl<S: ReadEvents> Events<S> {
    /// A stream from its beginning.
    pub(crate) fn new(state: S) -> Self {
        Self { splitter: Splitter::new(S::LONGEST << 20), state }
    }
}

impl<S: ReadEvents> DecodeStream for Events<S> {
    fn push(&mut self, piece: &[u8], sink: &mut Sink<'_>) {
        let state = &mut self.state;
        self.splitter.push(piece, |event| read(state, &event, sink));
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        self.state.end(sink);
    }
}

fn read<S: ReadEvents>(state: &mut S, event: &RawEvent<'_>, sink: &mut Sink<'_>) {
    if state.guard().is_over() {
        return;
    }
    if event.is_cut() {
        let message = format!("an event of the upstream is longer than {} MB", S::LONGEST);
        return state.guard().fail(message, sink);
    }
    let (name, data) = (event.name(), event.data());
    if name.is_none() && data.is_none() {
        // A comment: the upstream is alive.
        return state.guard().emit(Event::Ping, sink);
    }
    match std::str::from_utf8(&data.unwrap_or_default()) {
        Ok(data) => state.event(name, data, sink),
        Err(_) => state.guard().fail("an event of the upstream is not UTF-8", sink),
    }
}

/// The blocks of an answer, each under a key of its own, on their way through [`Lanes`] and [`Guard`].
#[derive(Debug)]
pub(crate) struct Blocks {
    pub(crate) guard: Guard,
    lanes: Lanes,
    /// How many there have been.
    keys: u64,
}

impl Blocks {
    /// None yet.
    pub(crate) fn new(closing: Closing) -> Self {
        Self { guard: Guard::default(), lanes: Lanes::new(closing), keys: 0 }
    }

    /// A block begins; returns its key.
    pub(crate) fn open(&mut self, block: Block<'_>, sink: &mut Sink<'_>) -> u64 {
        let (guard, key) = (&mut self.guard, self.keys);
        self.keys += 1;
        if self.lanes.open(key, block, &mut |event| guard.emit(event, sink)).is_err() {
            self.guard.fail("the upstream's answer has too many blocks at once", sink);
        }
        key
    }

    /// More of a block.
    pub(crate) fn feed(&mut self, key: u64, delta: Delta<'_>, sink: &mut Sink<'_>) {
        let guard = &mut self.guard;
        if self.lanes.delta(key, delta, &mut |event| guard.emit(event, sink)).is_err() {
            self.guard.fail("the upstream's answer has too much in parallel", sink);
        }
    }

    /// A block is whole.
    pub(crate) fn close(&mut self, key: u64, sink: &mut Sink<'_>) {
        let guard = &mut self.guard;
        self.lanes.done(key, &mut |event| guard.emit(event, sink));
    }

    /// Whether the input of every call so far is whole JSON, or nothing.
    pub(crate) fn is_whole(&self) -> bool {
        self.lanes.is_whole()
    }

    /// All blocks are whole.
    pub(crate) fn finish(&mut self, sink: &mut Sink<'_>) {
        let guard = &mut self.guard;
        self.lanes.finish(&mut |event| guard.emit(event, sink));
    }
}
