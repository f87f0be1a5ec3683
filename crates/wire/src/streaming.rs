//! What the readers of streamed answers share: server-sent events, and blocks that may lie side by side.

use std::borrow::Cow;

use serde::Deserialize;

use crate::codec::{DecodeStream, Sink};
use crate::event::{Block, Delta, Event};
use crate::guard::Guard;
use crate::json::Str;
use crate::lanes::{Closing, Lanes};
use crate::loss::Losses;
use crate::sse::{RawEvent, Splitter};

/// What one protocol makes of the events of a stream.
pub(crate) trait ReadEvents: Send {
    /// The longest event that is kept, in megabytes.
    const LONGEST: usize;

    /// What lets legal orders out alone.
    fn guard(&mut self) -> &mut Guard;

    /// What has been left out.
    fn lost(&self) -> &Losses;

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
    fn push(&mut self, piece: &[u8], sink: &mut Sink<'_>) -> Option<usize> {
        let state = &mut self.state;
        self.splitter.push(piece, |event| read(state, &event, sink))
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        self.state.end(sink);
    }

    fn lost(&self) -> &Losses {
        self.state.lost()
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

/// The name of an event; some servers leave it to the `type` in the data.
pub(crate) fn name_of<'e>(name: Option<&'e [u8]>, data: &'e str) -> Option<Cow<'e, [u8]>> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(borrow, rename = "type")]
        kind: Str<'a>,
    }
    match name {
        // What is called a message is not called anything: so the format has it.
        Some(name) if !matches!(name, b"" | b"message") => Some(Cow::Borrowed(name)),
        _ => match serde_json::from_str::<Typed<'_>>(data).ok()?.kind.0 {
            Cow::Borrowed(kind) => Some(Cow::Borrowed(kind.as_bytes())),
            Cow::Owned(kind) => Some(Cow::Owned(kind.into_bytes())),
        },
    }
}

/// The form of the last event, where it said one text and nothing else. Most events of a stream differ from the one before
/// in that text alone: what stands around it has been read already, and is compared instead of read again.
#[derive(Debug)]
pub(crate) struct Form<T> {
    head: Vec<u8>,
    tail: Vec<u8>,
    /// What the text is; `None`: there is no such event.
    what: Option<T>,
}

impl<T> Default for Form<T> {
    fn default() -> Self {
        Self { head: Vec::new(), tail: Vec::new(), what: None }
    }
}

impl<T: Copy> Form<T> {
    /// The longest form that is kept.
    const LONGEST: usize = 4096;

    /// The text of an event of this form, and what it is.
    pub(crate) fn text<'d>(&self, data: &'d str) -> Option<(T, &'d str)> {
        let what = self.what?;
        let rest = data.as_bytes().strip_prefix(&*self.head)?.strip_suffix(&*self.tail)?;
        // Within a string, these alone mean more than themselves.
        let is_plain = rest.iter().all(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'));
        is_plain.then(|| (what, &data[self.head.len()..data.len() - self.tail.len()]))
    }

    /// Keeps the form of an event that says `text` and nothing else; `text` is a part of `data`.
    pub(crate) fn keep(&mut self, data: &str, text: &str, what: T) {
        let from = (text.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
        self.what = None;
        let (Some(head), Some(tail)) = (data.get(..from), data.get(from.wrapping_add(text.len())..)) else { return };
        if head.len() + tail.len() <= Self::LONGEST {
            self.head.clear();
            self.head.extend_from_slice(head.as_bytes());
            self.tail.clear();
            self.tail.extend_from_slice(tail.as_bytes());
            self.what = Some(what);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_same_form_is_read_by_what_stands_around_its_text() {
        let mut form = Form::default();
        let event = |text: &str| format!("{{\"a\":{{\"text\":\"{text}\"}},\"n\":1}}");
        let first = event("one");
        assert_eq!(form.text(&first), None);
        form.keep(&first, &first[14..17], 7);
        for text in ["two", "", "dr\u{e4}i 😀", "one"] {
            assert_eq!(form.text(&event(text)), Some((7, text)), "{text}");
        }
        for other in ["a\\n", "a\"b", "a\nb", "\\"] {
            assert_eq!(form.text(&event(other)), None, "{other}");
        }
        assert_eq!(form.text("{\"a\":{\"text\":\"two\"},\"n\":2}"), None);
        // Head and tail may not share a byte.
        assert_eq!(form.text("{\"a\":{\"text\":\"},\"n\":1}"), None);
        let long = event(&"x".repeat(9)) + &" ".repeat(5000);
        form.keep(&long, &long[14..23], 8);
        assert_eq!(form.text(&long), None);
    }
}
