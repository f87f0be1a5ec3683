//! Puts blocks that an upstream sends side by side one after the other, as every answer here is.
//!
//! The block that is open streams through at once; what belongs to others waits, within a bound, until it is closed.

use std::collections::VecDeque;

use crate::codec::Sink;
use crate::event::{Block, Delta, Event};

/// Bytes that may wait in all blocks together.
const CAP: usize = 32 << 20;
/// Blocks that may wait.
const MOST: usize = 1024;

/// When the open block may be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// When the upstream says so.
    Told,
    /// When another block has begun and this one is a text, or a call whose input is a whole JSON object: for upstreams
    /// that never say so.
    Early,
}

/// The blocks of one answer that are not closed yet.
#[derive(Debug)]
pub struct Lanes {
    closing: Closing,
    /// The first one is open.
    lanes: VecDeque<Lane>,
    waiting: usize,
}

#[derive(Debug)]
struct Lane {
    key: u64,
    /// The block, until it is opened.
    block: Option<Block<'static>>,
    /// What waits. The deltas of a block of one kind can be joined.
    deltas: Vec<Delta<'static>>,
    kind: Kind,
    done: bool,
}

/// How the end of a block can be told.
#[derive(Debug)]
enum Kind {
    /// A text, which is as good as over when something else begins.
    Text,
    /// A call whose input is JSON.
    Json(JsonEnd),
    /// A call whose input is any text: only the upstream knows where it ends.
    Plain,
}

impl Kind {
    fn of(block: &Block<'_>) -> Self {
        match block {
            Block::Call { custom: false, .. } => Self::Json(JsonEnd::default()),
            Block::Call { custom: true, .. } => Self::Plain,
            _ => Self::Text,
        }
    }
}

/// More waits than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMuch;

impl Lanes {
    /// No blocks yet.
    pub fn new(closing: Closing) -> Self {
        Self { closing, lanes: VecDeque::new(), waiting: 0 }
    }

    /// Whether the block of that key has begun and not ended.
    pub fn has(&self, key: u64) -> bool {
        self.lanes.iter().any(|lane| lane.key == key)
    }

    /// The key of the block that began last, if it has not ended.
    pub fn last(&self) -> Option<u64> {
        self.lanes.back().map(|lane| lane.key)
    }

    /// Begins a block.
    pub fn open(&mut self, key: u64, block: Block<'_>, sink: &mut Sink<'_>) -> Result<(), TooMuch> {
        let kind = Kind::of(&block);
        let lane = |block| Lane { key, block, deltas: Vec::new(), kind, done: false };
        self.yield_head(sink);
        if self.lanes.is_empty() {
            sink(Event::Open(block));
            self.lanes.push_back(lane(None));
            return Ok(());
        }
        if self.lanes.len() >= MOST {
            return Err(TooMuch);
        }
        self.lanes.push_back(lane(Some(block.into_owned())));
        Ok(())
    }

    /// More of the block of that key; of one that has ended it is left out.
    pub fn delta(&mut self, key: u64, delta: Delta<'_>, sink: &mut Sink<'_>) -> Result<(), TooMuch> {
        let Some(at) = self.lanes.iter().position(|lane| lane.key == key) else { return Ok(()) };
        let lane = &mut self.lanes[at];
        if let (Delta::Input(text), Closing::Early, Kind::Json(input)) = (&delta, self.closing, &mut lane.kind) {
            input.feed(text);
        }
        if at == 0 {
            sink(Event::Delta(delta));
            if self.lanes.len() > 1 {
                self.yield_head(sink);
            }
            return Ok(());
        }
        self.waiting += lane.keep(delta);
        if self.waiting > CAP { Err(TooMuch) } else { Ok(()) }
    }

    /// The block of that key is whole.
    pub fn done(&mut self, key: u64, sink: &mut Sink<'_>) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.key == key) {
            lane.done = true;
        }
        while self.lanes.front().is_some_and(|lane| lane.done) {
            self.next(sink);
        }
    }

    /// Whether the input of every call so far is whole, or nothing, as far as that can be told.
    pub fn is_whole(&self) -> bool {
        self.lanes.iter().all(|lane| match &lane.kind {
            Kind::Json(input) => input.is_whole() || input.is_empty(),
            Kind::Text | Kind::Plain => true,
        })
    }

    /// Ends all blocks.
    pub fn finish(&mut self, sink: &mut Sink<'_>) {
        while !self.lanes.is_empty() {
            self.next(sink);
        }
    }

    /// Closes the open block if it is to give way to those that wait.
    fn yield_head(&mut self, sink: &mut Sink<'_>) {
        while let (Closing::Early, Some(head)) = (self.closing, self.lanes.front())
            && match &head.kind {
                Kind::Text => true,
                Kind::Json(input) => input.is_whole(),
                Kind::Plain => false,
            }
        {
            self.next(sink);
            // The last one stays open: more of it may come.
            if self.lanes.len() <= 1 {
                break;
            }
        }
    }

    /// Closes the open block and opens the one that waits longest.
    fn next(&mut self, sink: &mut Sink<'_>) {
        if self.lanes.pop_front().is_some() {
            sink(Event::Close);
        }
        let Some(lane) = self.lanes.front_mut() else { return };
        if let Some(block) = lane.block.take() {
            sink(Event::Open(block));
        }
        for delta in lane.deltas.drain(..) {
            self.waiting = self.waiting.saturating_sub(size(&delta));
            sink(Event::Delta(delta));
        }
    }
}

fn size(delta: &Delta<'_>) -> usize {
    match delta {
        Delta::Text(text) | Delta::Input(text) => text.len(),
        Delta::Opaque(opaque) => opaque.data.len(),
        Delta::Citation(extra) | Delta::Extra(extra) => extra.value.as_str().len(),
    }
}

impl Lane {
    /// Keeps a delta; returns the bytes that it takes.
    fn keep(&mut self, delta: Delta<'_>) -> usize {
        let bytes = size(&delta);
        match (self.deltas.last_mut(), delta) {
            (Some(Delta::Text(last)), Delta::Text(text)) | (Some(Delta::Input(last)), Delta::Input(text)) => {
                last.to_mut().push_str(&text);
            }
            (_, Delta::Text(text)) => self.deltas.push(Delta::Text(text.into_owned().into())),
            (_, Delta::Input(text)) => self.deltas.push(Delta::Input(text.into_owned().into())),
            (_, Delta::Opaque(opaque)) => self.deltas.push(Delta::Opaque(opaque.into_owned())),
            (_, Delta::Citation(extra)) => self.deltas.push(Delta::Citation(extra.into_owned())),
            (_, Delta::Extra(extra)) => self.deltas.push(Delta::Extra(extra.into_owned())),
        }
        bytes
    }
}

/// Finds the end of a JSON object that comes in pieces.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JsonEnd {
    depth: u32,
    in_string: bool,
    escaped: bool,
    begun: bool,
}

impl JsonEnd {
    /// Takes the next piece.
    pub(crate) fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            self.begun |= !byte.is_ascii_whitespace();
        }
    }

    /// Nothing has come.
    pub(crate) fn is_empty(&self) -> bool {
        !self.begun
    }

    /// What has come is whole, as far as brackets and quotes tell.
    pub(crate) fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}
