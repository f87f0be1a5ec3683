//! What a stream of events looks like while it passes: where events end, and how far the answer has come.

use bytes::Bytes;
use wire::anthropic;
use wire::error::ErrorKind;
use wire::meter::{Meter, Metered, Progress};
use wire::protocol::Protocol;
use wire::sse::{RawEvent, Splitter};

use super::Beginning;
use super::seam::{Partial, Seam};
use crate::live::Tap;
use crate::translation::{self, Observing};

/// Bytes of an unfinished event that wait for their end. A longer event passes as it comes.
const TAIL: usize = 256 * 1024;
/// Bytes of one event that are kept for the observer.
const KEPT: usize = 1024 * 1024;
/// Bytes of the longest event that passes. Providers send some of 30 MB; one without an end has to end somewhere.
const LONGEST: u64 = 64 * 1024 * 1024;
/// Pieces that wait as they came. More of them are so small that joining them costs less than keeping them apart.
const PIECES: usize = 256;

/// Follows the events of one answer; holds back an unfinished one as slices of the received memory.
#[derive(Debug)]
pub struct Events {
    splitter: Splitter,
    meter: Meter,
    /// For those who watch.
    tap: Option<Tap>,
    /// What has been said, where it could be gone on with.
    partial: Option<Box<Partial>>,
    /// In place of the meter, where the protocol is not Anthropic's.
    other: Option<Box<Observing>>,
    tail: Vec<Bytes>,
    tail_len: usize,
    /// Bytes of the unfinished event, those that have passed included.
    unfinished: u64,
    /// Whether the client has the beginning of an event whose end has not come.
    within: bool,
}

impl Default for Events {
    fn default() -> Self {
        let (splitter, meter) = (Splitter::new(KEPT), Meter::default());
        let (tap, partial, other, tail) = (None, None, None, Vec::new());
        Self { splitter, meter, tap, partial, other, tail, tail_len: 0, unfinished: 0, within: false }
    }
}

/// Looks at one event.
fn see(meter: &mut Meter, tap: Option<&Tap>, partial: Option<&mut Partial>, event: &RawEvent<'_>) {
    meter.event(event);
    if let Some(partial) = partial {
        partial.observe(event);
    }
    if let Some(tap) = tap {
        tap.event(event);
    }
}

impl Events {
    /// Tells those who watch what the answer says.
    pub fn tap(&mut self, tap: Tap) {
        self.tap = Some(tap);
    }

    /// Remembers what is said, so that it can be gone on with; its beginning was read before.
    pub fn follow(&mut self, beginning: &Beginning) {
        let (mut partial, mut splitter) = (Box::<Partial>::default(), Splitter::new(KEPT));
        for piece in &beginning.raw {
            splitter.push(piece, |event| partial.observe(&event));
        }
        self.partial = Some(partial);
    }

    /// What it takes to go on from here; `None`: that cannot be done.
    pub(super) fn seam(&mut self) -> Option<Seam> {
        self.partial.take().filter(|_| self.at_border() && !self.is_over())?.seam()
    }

    /// Of an answer in that protocol.
    pub fn of(protocol: Protocol) -> Self {
        let other = (protocol != Protocol::AnthropicMessages).then(|| Box::new(Observing::new(protocol)));
        Self { other, ..Self::default() }
    }

    /// How far the answer has come.
    pub fn progress(&self) -> Progress {
        self.other.as_ref().map_or_else(|| self.meter.progress(), |other| other.progress())
    }

    /// Whether the model has said something.
    pub fn has_content(&self) -> bool {
        self.other.as_ref().map_or_else(|| self.meter.has_content(), |other| other.has_content())
    }

    /// What the answer has come to.
    pub fn metered(&self) -> Metered {
        self.other.as_ref().map_or_else(|| self.meter.metered(), |other| other.metered())
    }

    /// Whether the event that ends the answer has been seen.
    pub fn is_over(&self) -> bool {
        self.progress() >= Progress::Ended
    }

    /// The upstream's body is over. Some streams have no event that says so.
    pub fn end(&mut self) {
        if let Some(other) = &mut self.other {
            other.end();
        }
    }

    /// Whether an answer whose body is over was whole, or cannot be told from one.
    pub fn was_whole(&self) -> bool {
        self.is_over() || self.other.as_ref().is_some_and(|other| other.is_lost())
    }

    /// The error that it ended with, as the data of an event of Anthropic's, where it is not one already.
    pub(super) fn error_data(&self) -> Option<Vec<u8>> {
        self.other.as_ref().map(|other| other.error_data())
    }

    /// An event of ours that ends the stream.
    pub fn last_word(&self, kind: ErrorKind, message: &str, request_id: &str) -> Bytes {
        match &self.other {
            None => anthropic::error::event(kind, message, request_id).into(),
            Some(other) => translation::last_word(other.protocol(), kind, message, request_id),
        }
    }

    /// An event of ours that keeps the stream alive.
    pub fn ping(&self) -> Bytes {
        let protocol = self.other.as_ref().map_or(Protocol::AnthropicMessages, |other| other.protocol());
        translation::ping(protocol)
    }

    /// Whether an event of our own may be put in now: the client has whole events only.
    pub fn at_border(&self) -> bool {
        !self.within
    }

    /// Whether the unfinished event is longer than any may be.
    pub fn is_endless(&self) -> bool {
        self.unfinished > LONGEST
    }

    /// Looks at bytes that are relayed in another form (a compressed stream): nothing is held back.
    pub fn look(&mut self, plain: &[u8]) {
        let Self { splitter, meter, tap, partial, other, .. } = self;
        match other {
            None => {
                splitter.push(plain, |event| see(meter, tap.as_ref(), partial.as_deref_mut(), &event));
            }
            Some(other) => {
                other.push(plain);
                if let Some(tap) = tap {
                    splitter.push(plain, |event| tap.event(&event));
                }
            }
        }
    }

    /// Takes the pieces that one read brought; what is to be sent now is appended to `ready`.
    pub fn pass(&mut self, fresh: &mut Vec<Bytes>, ready: &mut Vec<Bytes>) {
        for piece in fresh.drain(..) {
            let Self { splitter, meter, tap, partial, other, tail, within, .. } = &mut *self;
            let border = match other {
                None => splitter.push(&piece, |event| see(meter, tap.as_ref(), partial.as_deref_mut(), &event)),
                Some(other) => {
                    let border = other.push(&piece);
                    // Whole events alone, so that those who begin to watch do not begin within one.
                    if let (Some(tap), Some(border), false) = (tap.as_ref(), border, *within)
                        && tap.is_watched()
                    {
                        let whole = tail.iter().map(|part| &part[..]).chain([&piece[..border]]);
                        whole.for_each(|part| _ = splitter.push(part, |event| tap.event(&event)));
                    }
                    border
                }
            };
            match border {
                Some(border) => {
                    ready.append(&mut self.tail);
                    (self.tail_len, self.unfinished, self.within) = (0, 0, false);
                    if border == piece.len() {
                        ready.push(piece);
                    } else {
                        ready.push(piece.slice(..border));
                        self.hold(piece.slice(border..), ready);
                    }
                }
                None => self.hold(piece, ready),
            }
        }
    }

    fn hold(&mut self, piece: Bytes, ready: &mut Vec<Bytes>) {
        self.tail_len += piece.len();
        self.unfinished += piece.len() as u64;
        self.tail.push(piece);
        if self.tail.len() > PIECES {
            let joined = self.tail.concat();
            self.tail.clear();
            self.tail.push(joined.into());
        }
        if self.within || self.tail_len > TAIL {
            self.release(ready);
            self.within = true;
        }
    }

    /// Sends what is held back although its end has not come.
    pub fn release(&mut self, ready: &mut Vec<Bytes>) {
        ready.append(&mut self.tail);
        self.tail_len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Hub;
    use ledger::record::Id;
    use std::sync::Arc;

    fn pass(events: &mut Events, piece: &Bytes) -> Vec<Bytes> {
        let mut ready = vec![];
        events.pass(&mut vec![piece.clone()], &mut ready);
        ready
    }

    #[test]
    fn whole_events_pass_as_the_memory_they_came_in_and_the_rest_waits() {
        let mut events = Events::default();
        let first = Bytes::from_static(b"event: a\ndata: 1\n\nevent: b\nda");
        let second = Bytes::from_static(b"ta: 2\n\n");
        let sent = pass(&mut events, &first);
        assert_eq!((sent.len(), sent[0].as_ptr(), sent[0].len()), (1, first.as_ptr(), 18));
        let sent = pass(&mut events, &second);
        assert_eq!(sent.concat(), b"event: b\ndata: 2\n\n");
        assert_eq!((sent[0].as_ptr(), sent[1].as_ptr()), (first[18..].as_ptr(), second.as_ptr()));
        assert!(events.at_border());
    }

    #[test]
    fn who_watches_an_answer_of_another_protocol_is_told_of_whole_events() {
        let hub = Arc::new(Hub::default());
        let mut events = Events::of(Protocol::OpenAiChat);
        events.tap(Tap::new(hub.clone(), Id(1), Protocol::OpenAiChat));
        let said = |text: &str| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let stream = Bytes::from(["one", "two", "three", "four"].map(said).concat());
        let (early, late) = (stream.slice(..70), stream.slice(70..));
        let mut sent = pass(&mut events, &early);
        let mut viewer = hub.watch().unwrap();
        late.chunks(9).for_each(|piece| sent.extend(pass(&mut events, &Bytes::copy_from_slice(piece))));
        assert_eq!(sent.concat(), stream);
        let told = std::iter::from_fn(|| viewer.more()).map(|event| String::from_utf8(event.to_vec()).unwrap());
        let told: Vec<_> = told.map(|event| event.rsplit('"').nth(1).unwrap().to_owned()).collect();
        assert_eq!(told, ["two", "three", "four"]);
    }

    #[test]
    fn an_event_that_comes_in_crumbs_waits_in_few_pieces() {
        let mut events = Events::default();
        for _ in 0..10_000 {
            assert!(pass(&mut events, &Bytes::from_static(b"x")).is_empty());
            assert!(events.tail.len() <= PIECES + 1);
        }
        assert_eq!(pass(&mut events, &Bytes::from_static(b"\n\n")).concat(), [&[b'x'; 10_000][..], b"\n\n"].concat());
    }

    #[test]
    fn an_event_without_an_end_is_known_as_such() {
        let mut events = Events::default();
        let part = Bytes::from(vec![b'x'; 1024 * 1024]);
        for _ in 0..64 {
            pass(&mut events, &part);
            assert!(!events.is_endless());
        }
        pass(&mut events, &part);
        assert!(events.is_endless());
        pass(&mut events, &Bytes::from_static(b"\n\n"));
        assert!(!events.is_endless());
    }

    #[test]
    fn an_event_beyond_the_bound_passes_as_it_comes() {
        let mut events = Events::default();
        let part = Bytes::from(vec![b'x'; 100 * 1024]);
        assert!(pass(&mut events, &part).is_empty() && pass(&mut events, &part).is_empty());
        assert_eq!(pass(&mut events, &part).len(), 3);
        assert!(!events.at_border());
        assert_eq!(pass(&mut events, &part).len(), 1);
        assert_eq!(pass(&mut events, &Bytes::from_static(b"\n\n")).len(), 1);
        assert!(events.at_border());
    }
}
