//! What a protocol has to offer to be spoken by clients, by upstreams, or by both.
//!
//! A protocol's folder implements [`Inbound`] and [`Upstream`] and knows no other protocol: between the two there are only
//! [`Request`], [`Event`] and [`ApiError`].

use crate::error::ApiError;
use crate::event::Event;
use crate::loss::Losses;
use crate::message::Message;
use crate::protocol::Protocol;
use crate::quirks::Quirks;
use crate::request::Request;

/// Takes events.
pub type Sink<'s> = dyn FnMut(Event<'_>) + 's;

/// A protocol as clients speak it to us.
pub trait Inbound: Sync {
    /// Which it is.
    fn protocol(&self) -> Protocol;

    /// Reads a client's request. The error is a 400 that names the field.
    fn decode_request<'a>(&self, body: &'a [u8]) -> Result<Request<'a>, ApiError>;

    /// A writer of one streamed answer.
    fn encode_stream(&self, front: &Front<'_>) -> Box<dyn EncodeStream>;

    /// Writes a whole answer at the end of `out`.
    fn encode_whole(&self, message: &Message<'_>, front: &Front<'_>, out: &mut Vec<u8>);

    /// Writes an answer that is an error, and returns its status.
    fn encode_error(&self, error: &ApiError, front: &Front<'_>, out: &mut Vec<u8>) -> u16;
}

/// A protocol as upstreams speak it to us.
pub trait Upstream: Sync {
    /// Writes a request for the target.
    fn encode_request(&self, request: &Request<'_>, target: &Target<'_>) -> Encoded;

    /// A reader of one streamed answer to a request that [`encode_request`](Self::encode_request) wrote.
    fn decode_stream(&self) -> Box<dyn DecodeStream>;

    /// Reads a whole answer. The error is the one that it holds, or says that it is not readable.
    fn decode_whole<'a>(&self, body: &'a [u8]) -> Result<Message<'a>, ApiError>;
}

/// Reads a streamed answer, in whatever pieces it comes.
pub trait DecodeStream: Send {
    /// The next bytes. After an event that [is the last](Event::is_last) nothing more is emitted. Of server-sent events it
    /// returns the offset after the last one that ends in this piece.
    fn push(&mut self, piece: &[u8], sink: &mut Sink<'_>) -> Option<usize>;

    /// There are no more bytes. An answer that was not whole ends with an error here.
    fn end(&mut self, sink: &mut Sink<'_>);

    /// What it has held so far that is in no event.
    fn lost(&self) -> &Losses;
}

/// Writes a streamed answer.
pub trait EncodeStream: Send {
    /// Writes what the event is in this protocol at the end of `out`: nothing, or whole events of the wire.
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>);
}

/// Who a request is written for.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The model as the upstream names it.
    pub model: &'a str,
    /// The most tokens of output that the model gives: the limit of what is asked for, and what is asked for where the
    /// client says nothing and the protocol wants a number.
    pub max_output: Option<u64>,
    /// How this upstream differs from its protocol.
    pub quirks: &'a Quirks,
    /// How many tokens the prompt comes to, by [estimate](crate::estimate): for upstreams whose context has to be
    /// reserved. 0: that is not known yet.
    pub input_estimate: u64,
}

/// A request as it goes to the upstream.
#[derive(Debug)]
pub struct Encoded {
    /// The JSON body.
    pub body: Vec<u8>,
    /// What it does not carry. If some of it [must not be left out](Losses::refused), the body is not to be sent.
    pub losses: Losses,
    /// What the answer's reader needs to know of it.
    pub back: Back,
    /// Whether nothing is to be generated (`max_tokens: 0`, which only warms Anthropic's cache): such a request is
    /// answered with [nothing](crate::transcode::nothing) and not sent.
    pub is_idle: bool,
}

/// What the reader of an answer needs to know of the request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Back {
    /// Names of tools that were changed for the upstream: as they were sent, and as the client knows them.
    pub names: Vec<(Box<str>, Box<str>)>,
    /// Tools that take plain text from the client's side and were sent as functions with the one string `input`, by the
    /// client's name.
    pub custom: Vec<Box<str>>,
}

impl Back {
    /// The client's name of a tool that was sent under another, by either of them.
    pub fn known(&self, called: &str) -> Option<&str> {
        self.names.iter().find(|(sent, known)| **sent == *called || **known == *called).map(|(_, known)| &**known)
    }
}

/// What the writer of an answer needs to know of the request.
#[derive(Debug, Clone, Copy)]
pub struct Front<'a> {
    /// Our id of the request, unique: ids that the upstream did not give are made from it.
    pub id: &'a str,
    /// The model as the client named it: answers name it again.
    pub model: &'a str,
    /// The time of the answer, in seconds since 1970.
    pub created: u64,
    /// An estimate of the prompt's tokens, for the time until the upstream says them. Clients meter their context by it.
    pub input_estimate: u64,
    /// Whether a Chat client asked for the closing chunk with usage.
    pub stream_usage: bool,
    /// Whether thinking is shown to clients of a protocol that has no official field for it.
    pub show_reasoning: bool,
}
