//! The only place where the protocols of clients and those of upstreams meet.

use crate::anthropic::Anthropic;
use crate::codec::{Back, DecodeStream, EncodeStream, Encoded, Front, Inbound, Target, Upstream};
use crate::error::{ApiError, ErrorKind};
use crate::event::{Event, StopReason};
use crate::grammar::Grammar;
use crate::loss::Losses;
use crate::protocol::Protocol;
use crate::usage::Usage;

/// The protocol as clients speak it; `None` where they do not.
pub fn inbound(protocol: Protocol) -> Option<&'static dyn Inbound> {
    match protocol {
        Protocol::AnthropicMessages => Some(&Anthropic),
        _ => None,
    }
}

/// The protocol as upstreams speak it.
pub fn upstream(protocol: Protocol) -> Option<&'static dyn Upstream> {
    match protocol {
        Protocol::AnthropicMessages => Some(&Anthropic),
        _ => None,
    }
}

/// A request in the upstream's protocol, or the refusal to send it: a 400 that names the client's field.
pub fn request(from: &dyn Inbound, to: &dyn Upstream, body: &[u8], target: &Target<'_>) -> Result<Encoded, ApiError> {
    let request = from.decode_request(body)?;
    let encoded = to.encode_request(&request, target);
    match encoded.losses.refused() {
        Some(loss) => Err(refusal(&loss.path, &loss.to_string())),
        None => Ok(encoded),
    }
}

/// The refusal of a request whose losses the configuration does not allow.
pub fn refuse(losses: &Losses) -> Option<ApiError> {
    losses.iter().next().map(|loss| refusal(&loss.path, &loss.to_string()))
}

fn refusal(path: &str, message: &str) -> ApiError {
    ApiError::new(ErrorKind::InvalidRequest, message).at(path)
}

/// A whole answer in the client's protocol, appended to `out`.
pub fn whole(
    from: &dyn Upstream,
    to: &dyn Inbound,
    body: &[u8],
    back: &Back,
    front: &Front<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ApiError> {
    to.encode_whole(&from.decode_whole(body, back)?, front, out);
    Ok(())
}

/// A streamed answer on its way from the upstream's protocol to the client's.
pub struct Stream {
    decoder: Box<dyn DecodeStream>,
    out: Writer,
}

/// What is behind the decoder.
struct Writer {
    encoder: Box<dyn EncodeStream>,
    grammar: Grammar,
    seen: Seen,
}

/// What a streamed answer has come to so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Whether the upstream has begun.
    pub begun: bool,
    /// Whether a block has begun: the moment of the first token.
    pub has_content: bool,
    /// Why the answer stopped, once it is whole.
    pub stop: Option<StopReason>,
    /// The error that ended it.
    pub error: Option<ApiError>,
    /// What the upstream said of the usage: at the end, or so far.
    pub usage: Option<Box<Usage>>,
    /// The model that the upstream names.
    pub model: Box<str>,
    /// Bytes of text, thinking and input.
    pub text_bytes: u64,
}

impl Seen {
    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.stop.is_some() || self.error.is_some()
    }

    fn event(&mut self, event: &Event<'_>) {
        use crate::event::Delta::{Input, Text};
        match event {
            Event::Start(start) => {
                self.begun = true;
                self.model = (*start.model).into();
                self.usage.clone_from(&start.usage);
            }
            Event::Open(_) => self.has_content = true,
            Event::Delta(Text(text) | Input(text)) => self.text_bytes += text.len() as u64,
            Event::Stop(stop) => {
                self.stop = Some(stop.reason.clone());
                if stop.usage.is_some() {
                    self.usage.clone_from(&stop.usage);
                }
            }
            Event::Error(error) => self.error = Some(error.clone()),
            Event::Delta(_) | Event::Close | Event::Ping => {}
        }
    }
}

impl Stream {
    /// The answer to a request that `encode_request` wrote and `back` came with.
    pub fn new(from: &dyn Upstream, to: &dyn Inbound, back: &Back, front: &Front<'_>) -> Self {
        let out = Writer { encoder: to.encode_stream(front), grammar: Grammar::default(), seen: Seen::default() };
        Self { decoder: from.decode_stream(back), out }
    }

    /// The next bytes of the upstream; what they are for the client is appended to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let writer = &mut self.out;
        self.decoder.push(piece, &mut |event| writer.event(&event, out));
    }

    /// The upstream has closed. If its answer was not whole, the client's ends with an error.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let writer = &mut self.out;
        self.decoder.end(&mut |event| writer.event(&event, out));
    }

    /// A sign of life of our own.
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        self.out.event(&Event::Ping, out);
    }

    /// Ends the answer with an error of our own.
    pub fn fail(&mut self, error: ApiError, out: &mut Vec<u8>) {
        self.out.event(&Event::Error(error), out);
    }

    /// What the answer has come to so far.
    pub fn seen(&self) -> &Seen {
        &self.out.seen
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.out.seen.fmt(f)
    }
}

impl Writer {
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.seen.is_over() {
            return;
        }
        let legal = self.grammar.event(event);
        debug_assert_eq!(legal, Ok(()), "{event:?}");
        self.seen.event(event);
        self.encoder.event(event, out);
    }
}
