//! How an answer is looked at while it passes, by what kind of answer it is.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use ledger::record::Id;
use wire::envelope::Envelope;
use wire::meter::{self, Metered, Progress};
use wire::protocol::Protocol;
use wire::sse::Splitter;

use super::{Events, Joined};
use crate::client::inbound::Claim;
use crate::coding::{self, Coding, Decoder, Unpacked};
use crate::live::{Hub, Tap};
use crate::translation::{self, Streaming};

/// What we know of the bytes that pass.
#[derive(Debug)]
pub enum View {
    /// Nothing.
    Plain,
    /// One JSON object, of which a copy is kept to be read at its end.
    Whole(Whole),
    /// A stream of events, into which events of our own can be put.
    Events(Box<Events>),
    /// A compressed one: looked at through a decoder (`None` once that has failed), never touched.
    Coded(Box<Events>, Option<Box<Decoder>>),
    /// A stream of another protocol, on its way to the client's; unpacked first where it is packed.
    Translated(Box<Streaming>, Option<Box<Decoder>>, Option<Tap>),
    /// A second stream behind one that broke off.
    Joined(Box<Joined>),
}

impl View {
    /// The same of an answer in that protocol.
    pub fn speaking(self, protocol: Protocol) -> Self {
        match self {
            Self::Whole(whole) => Self::Whole(Whole { protocol, ..whole }),
            Self::Events(_) => Self::Events(Box::new(Events::of(protocol))),
            Self::Coded(_, decoder) => Self::Coded(Box::new(Events::of(protocol)), decoder),
            other => other,
        }
    }

    /// Takes the pieces that one read brought; what is to be sent now is appended to `ready`. `false`: they cannot be
    /// unpacked. Only of a stream into which events can be put.
    pub(super) fn pass(&mut self, fresh: &mut Vec<Bytes>, ready: &mut Vec<Bytes>) -> bool {
        match self {
            Self::Events(events) => events.pass(fresh, ready),
            Self::Translated(streaming, decoder, tap) => {
                let mut good = true;
                for piece in fresh.drain(..) {
                    match decoder {
                        None => streaming.push(&piece),
                        Some(machine) => {
                            let unpacked = machine.push(&piece, |plain| streaming.push(plain));
                            good &= matches!(unpacked, Unpacked::Plain);
                        }
                    }
                }
                if let Some(out) = streaming.take() {
                    if let Some(tap) = tap.as_ref().filter(|tap| tap.is_watched()) {
                        Splitter::new(out.len()).push(&out, |event| tap.event(&event));
                    }
                    ready.push(out);
                }
                return good;
            }
            Self::Joined(joined) => {
                let good = fresh.drain(..).all(|piece| joined.push(&piece));
                ready.extend(joined.take());
                return good;
            }
            Self::Plain | Self::Whole(_) | Self::Coded(..) => ready.append(fresh),
        }
        true
    }

    /// The error that it ended with, as the data of an event of Anthropic's, where it is not one already.
    pub(super) fn error_data(&self) -> Option<Vec<u8>> {
        match self {
            Self::Translated(streaming, ..) => Some(streaming.error_data()),
            Self::Events(events) => events.error_data(),
            Self::Plain | Self::Whole(_) | Self::Coded(..) | Self::Joined(_) => None,
        }
    }

    /// Whether its beginning can be held back until it is clear what it begins with.
    pub fn can_wait(&self) -> bool {
        matches!(self, Self::Events(_) | Self::Translated(..))
    }

    /// What the answer has come to; `None`: nobody looks.
    pub fn metered(&self) -> Option<Box<Metered>> {
        Some(Box::new(match self {
            Self::Plain => return None,
            Self::Whole(whole) => whole.metered(),
            Self::Events(events) | Self::Coded(events, _) => events.metered(),
            Self::Translated(streaming, ..) => streaming.metered(),
            Self::Joined(joined) => joined.metered(),
        }))
    }

    /// How far the answer has come, and whether the model has said something.
    pub(super) fn progress(&self) -> (Progress, bool) {
        match self {
            Self::Plain | Self::Whole(_) => (Progress::Nothing, false),
            Self::Events(events) | Self::Coded(events, _) => (events.progress(), events.has_content()),
            Self::Translated(streaming, ..) => (streaming.progress(), streaming.has_content()),
            Self::Joined(joined) => (joined.seen().progress(), true),
        }
    }

    /// The same, which tells those who watch what the answer says, as it is told to a client of that protocol.
    #[must_use]
    pub fn tapped(mut self, live: &Arc<Hub>, id: Id, client: Protocol) -> Self {
        if let Self::Events(events) | Self::Coded(events, _) = &mut self {
            events.tap(Tap::new(live.clone(), id, client));
        }
        if let Self::Translated(.., tap) = &mut self {
            *tap = Some(Tap::new(live.clone(), id, client));
        }
        self
    }
}

/// A copy of a body that is one JSON object, up to a bound.
#[derive(Debug)]
pub struct Whole {
    copy: Vec<u8>,
    coding: Option<Coding>,
    cut: bool,
    protocol: Protocol,
    /// Whether nothing but the end of the connection tells where it ends.
    open_ended: bool,
    /// Whether its status says that all is well.
    pub(super) accepted: bool,
    /// Room for the copy.
    room: Option<Claim>,
}

/// Bytes of a whole answer that are kept to be read; models say less.
const WHOLE: usize = 8 * 1024 * 1024;

impl Whole {
    /// Of a body with this coding; `open_ended`: one that ends with its connection. Its copy takes its share of the room.
    pub fn new(coding: Option<Coding>, open_ended: bool, room: Claim) -> Self {
        let (copy, protocol) = (Vec::new(), Protocol::AnthropicMessages);
        Self { copy, coding, cut: false, protocol, open_ended, accepted: false, room: Some(room) }
    }

    /// Of an answer whose status says that all is well, or not.
    #[must_use]
    pub fn accepted(self, accepted: bool) -> Self {
        Self { accepted, ..self }
    }

    pub(super) fn keep(&mut self, piece: &[u8]) {
        let fits = self.copy.len() + piece.len() <= WHOLE;
        if fits && self.room.as_mut().is_some_and(|room| room.grow(piece.len())) {
            self.copy.extend_from_slice(piece);
        } else {
            // What is known in part is not known.
            (self.copy, self.room, self.cut) = (Vec::new(), None, true);
        }
    }

    /// Whether this is an object that begins and does not end: only of a body whose framing cannot tell.
    pub(super) fn breaks_off(&self) -> bool {
        let readable = self.open_ended && !self.cut && self.coding.is_none();
        readable
            && self.copy.trim_ascii_start().first() == Some(&b'{')
            && Envelope::read(&self.copy).is_ok_and(|envelope| !envelope.is_object)
    }

    pub(super) fn metered(&self) -> Metered {
        let plain = match self.coding {
            _ if self.cut => None,
            Some(coding) => coding::decode(coding, &self.copy, WHOLE).map(Cow::Owned),
            None => Some(Cow::Borrowed(&self.copy[..])),
        };
        let plain = plain.as_deref().unwrap_or_default();
        match self.protocol {
            Protocol::AnthropicMessages => meter::whole(plain),
            other => translation::whole_metered(other, plain),
        }
    }
}
