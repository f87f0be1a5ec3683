//! The only place where the protocols of clients and those of upstreams meet.

use crate::anthropic::Anthropic;
use crate::calls::Calls;
use crate::codec::{Back, DecodeStream, EncodeStream, Encoded, Front, Inbound, Target, Upstream};
use crate::error::{ApiError, ErrorKind};
use crate::estimate::{self, Estimator, Sample};
use crate::event::{Block, Delta, Event, Stop, StopReason};
use crate::grammar::Grammar;
use crate::loss::{Losses, plain};
use crate::message::Message;
use crate::ollama::Ollama;
use crate::opaque::Opaque;
use crate::openai_chat::OpenAiChat;
use crate::openai_responses::OpenAiResponses;
use crate::protocol::Protocol;
use crate::request::{Content, Input};
use crate::text_input::TextInput;
use crate::unread::says;
use crate::usage::{Tokens, Usage};

/// The protocol as clients speak it; `None` where they do not.
pub fn inbound(protocol: Protocol) -> Option<&'static dyn Inbound> {
    match protocol {
        Protocol::AnthropicMessages => Some(&Anthropic),
        Protocol::OpenAiChat => Some(&OpenAiChat),
        Protocol::OpenAiResponses => Some(&OpenAiResponses),
        Protocol::Ollama => None,
    }
}

/// The protocol as upstreams speak it.
pub fn upstream(protocol: Protocol) -> Option<&'static dyn Upstream> {
    match protocol {
        Protocol::AnthropicMessages => Some(&Anthropic),
        Protocol::OpenAiChat => Some(&OpenAiChat),
        Protocol::OpenAiResponses => Some(&OpenAiResponses),
        Protocol::Ollama => Some(&Ollama),
    }
}

/// A request that is to be sent in another protocol than it came in.
#[derive(Debug)]
pub struct Prepared {
    /// As it goes to the upstream.
    pub encoded: Encoded,
    /// How many tokens its prompt comes to, by estimate.
    pub input_estimate: u64,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Whether the client wants the closing chunk with usage.
    pub stream_usage: bool,
}

/// A request in the upstream's protocol, or the refusal to send it: a 400 that names the client's field. Where the target
/// does not say how long its prompt is, that is estimated here.
pub fn request(
    from: &dyn Inbound,
    to: &dyn Upstream,
    body: &[u8],
    target: &Target<'_>,
    estimator: &dyn Estimator,
) -> Result<Prepared, ApiError> {
    let request = from.decode_request(body)?;
    let input_estimate = match target.input_estimate {
        0 => estimate::request(&request, estimator),
        known => known,
    };
    let encoded = to.encode_request(&request, &Target { input_estimate, ..*target });
    if let Some(loss) = encoded.losses.refused() {
        return Err(refusal(&loss.path, &loss.to_string()));
    }
    Ok(Prepared { encoded, input_estimate, stream: request.stream, stream_usage: request.stream_usage })
}

/// The refusal of a request whose losses the configuration does not allow.
pub fn refuse(losses: &Losses) -> Option<ApiError> {
    losses.iter().next().map(|loss| refusal(&loss.path, &loss.to_string()))
}

fn refusal(path: &str, message: &str) -> ApiError {
    let code = Some("unsupported_value".into());
    ApiError { code, ..ApiError::new(ErrorKind::InvalidRequest, message) }.at(path)
}

/// The answer to a request [for which nothing is generated](Encoded::is_idle), whole or streamed.
pub fn nothing(to: &dyn Inbound, is_stream: bool, front: &Front<'_>, out: &mut Vec<u8>) {
    let tokens = Tokens { input: front.input_estimate.max(1), ..Tokens::default() };
    let usage = Some(Box::new(Usage { tokens, ..Usage::default() }));
    let stop = Stop { usage, ..Stop::new(StopReason::EndTurn) };
    let message = Message::new("".into(), front.model.into(), stop);
    if is_stream {
        let mut encoder = to.encode_stream(front);
        message.events(|event| encoder.event(&event, out));
    } else {
        to.encode_whole(&message, front, out);
    }
}

/// How many tokens the prompt of a client's request comes to, by estimate.
pub fn estimate(from: &dyn Inbound, body: &[u8], estimator: &dyn Estimator) -> Result<u64, ApiError> {
    Ok(estimate::request(&from.decode_request(body)?, estimator))
}

/// The event with which an answer ends that breaks off, appended to `out`.
pub fn last_word(to: &dyn Inbound, error: ApiError, front: &Front<'_>, out: &mut Vec<u8>) {
    to.encode_stream(front).event(&Event::Error(error), out);
}

/// A whole answer in the client's protocol, whole or streamed, appended to `out`; and what it came to.
pub fn whole(
    from: &dyn Upstream,
    to: &dyn Inbound,
    body: &[u8],
    back: &Back,
    front: &Front<'_>,
    is_stream: bool,
    out: &mut Vec<u8>,
) -> Result<Seen, ApiError> {
    let mut message = from.decode_whole(body)?;
    let mut calls = Calls::new(back.clone(), front.id);
    for part in &mut message.parts {
        if let Content::Call(call) = &mut part.content {
            call.id = calls.id(std::mem::take(&mut call.id));
            call.name = calls.name(std::mem::take(&mut call.name));
            if let (Input::Json(json), true) = (&call.input, calls.takes_text(&call.name)) {
                let (mut input, mut text) = (TextInput::default(), String::new());
                input.push(json.as_str(), &mut text);
                input.end(&mut text);
                call.input = Input::Text(text.into());
            }
        }
    }
    let mut seen = Seen { lost: std::mem::take(&mut message.lost), ..Seen::default() };
    let mut encoder = is_stream.then(|| to.encode_stream(front));
    let mut hidden = false;
    message.events(|event| {
        seen.event(&event);
        drops(to.protocol(), &event, &mut hidden, &mut seen.lost);
        if let Some(encoder) = &mut encoder {
            encoder.event(&event, out);
        }
    });
    if encoder.is_none() {
        to.encode_whole(&message, front, out);
    }
    Ok(seen)
}

/// What a whole answer of that protocol came to.
pub fn seen(from: &dyn Upstream, body: &[u8]) -> Result<Seen, ApiError> {
    let mut seen = Seen::default();
    from.decode_whole(body)?.events(|event| seen.event(&event));
    Ok(seen)
}

/// A streamed answer on its way from the upstream's protocol to the client's.
pub struct Stream {
    decoder: Box<dyn DecodeStream>,
    out: Writer,
}

/// What is behind the decoder.
struct Writer {
    encoder: Box<dyn EncodeStream>,
    client: Protocol,
    /// Whether the open block has no counterpart.
    hidden: bool,
    calls: Calls,
    /// The input of the open call, where it has to become plain text.
    text_input: Option<TextInput>,
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
    /// Whether the client was told of an estimate of its input at the beginning, because the upstream did not say it.
    pub told_estimate: bool,
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
    /// How that text began.
    pub sample: Sample,
    /// What the client's protocol has no place for; of a whole answer all that it does not carry.
    pub lost: Losses,
}

/// Names what the client's protocol has no place for. `hidden`: the open block is such a thing, and named already.
#[inline]
fn drops(client: Protocol, event: &Event<'_>, hidden: &mut bool, lost: &mut Losses) {
    match event {
        Event::Delta(Delta::Text(_) | Delta::Input(_))
        | Event::Start(_)
        | Event::Close
        | Event::Ping
        | Event::Error(_) => {}
        Event::Open(Block::Text | Block::Refusal | Block::Thinking | Block::Call { .. }) => *hidden = false,
        event => rare(client, event, hidden, lost),
    }
}

#[cold]
fn rare(client: Protocol, event: &Event<'_>, hidden: &mut bool, lost: &mut Losses) {
    let mut drop = |origin: Protocol, at: Option<&str>, name: &str, what: &str| {
        let within = match origin {
            Protocol::OpenAiResponses => "output[]",
            _ => "content[]",
        };
        let reason = || format!("`{}` has no counterpart in the {} protocol", plain(what), client.as_str()).into();
        let within: Vec<&str> = [within].into_iter().chain(at).collect();
        lost.unsaid(&within, name, reason);
    };
    // Chat has no field for what a provider seals; Anthropic's hides thinking of its own alone.
    let keeps = |opaque: &Opaque<'_>, is_redacted: bool| match client {
        Protocol::AnthropicMessages => !is_redacted || opaque.origin == client,
        Protocol::OpenAiResponses => true,
        Protocol::OpenAiChat | Protocol::Ollama => false,
    };
    match event {
        Event::Open(Block::Extra(extra)) => {
            *hidden = extra.origin != client;
            if *hidden {
                drop(extra.origin, None, &extra.name, &extra.name);
            }
        }
        Event::Open(Block::Redacted(opaque)) => {
            *hidden = !keeps(opaque, true);
            if *hidden {
                drop(opaque.origin, None, "redacted_thinking", "redacted_thinking");
            }
        }
        // Whatever the last block was.
        Event::Stop(stop) => ended(client, stop, lost),
        _ if *hidden => {}
        Event::Delta(Delta::Opaque(opaque)) if !keeps(opaque, false) && !opaque.data.is_empty() => {
            let name = if opaque.origin == Protocol::AnthropicMessages { "signature" } else { "encrypted_content" };
            drop(opaque.origin, None, name, name);
        }
        Event::Delta(Delta::Citation(extra)) if extra.origin != client => match extra.origin {
            Protocol::OpenAiResponses => drop(extra.origin, Some("content[]"), &extra.name, &extra.name),
            _ => drop(extra.origin, None, &extra.name, &extra.name),
        },
        Event::Delta(Delta::Extra(extra)) if extra.origin != client => {
            drop(extra.origin, None, &extra.name, &extra.name);
        }
        _ => {}
    }
}

/// Names what the client's protocol cannot say of how an answer ended.
fn ended(client: Protocol, stop: &Stop<'_>, lost: &mut Losses) {
    let reason =
        |what: &str| format!("`{}` has no counterpart in the {} protocol", plain(what), client.as_str()).into();
    if let Some(details) =
        stop.details.as_ref().filter(|details| details.origin != client && says(details.value.as_str()))
    {
        lost.unsaid(&[], &details.name, || reason(&details.name));
    }
    if client == Protocol::AnthropicMessages {
        return;
    }
    if stop.sequence.as_ref().is_some_and(|sequence| !sequence.is_empty()) {
        lost.unsaid(&[], "stop_sequence", || reason("stop_sequence"));
    }
    if let StopReason::PauseTurn | StopReason::Compaction | StopReason::Other(_) = &stop.reason {
        lost.unsaid(&[], "stop_reason", || reason(stop.reason.as_str()));
    }
}

impl Seen {
    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.stop.is_some() || self.error.is_some()
    }

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(start) => {
                self.begun = true;
                self.told_estimate = start.usage.as_ref().is_none_or(|usage| usage.tokens.prompt() == 0);
                self.model = (*start.model).into();
                self.usage.clone_from(&start.usage);
            }
            Event::Open(_) => self.has_content = true,
            Event::Delta(Delta::Text(text) | Delta::Input(text)) => {
                self.text_bytes += text.len() as u64;
                self.sample.push(text.as_bytes());
            }
            Event::Stop(stop) => {
                self.stop = Some(stop.reason.clone());
                // What the beginning said is not what it came to.
                self.usage.clone_from(&stop.usage);
            }
            Event::Error(error) => self.error = Some(error.clone()),
            Event::Delta(_) | Event::Close | Event::Ping => {}
        }
    }
}

/// Follows an answer that passes untouched between equal protocols: what [`Stream`] sees, without writing anything.
pub struct Observer {
    decoder: Box<dyn DecodeStream>,
    seen: Seen,
}

impl Observer {
    /// Follows an answer of that protocol.
    pub fn new(from: &dyn Upstream) -> Self {
        Self { decoder: from.decode_stream(), seen: Seen::default() }
    }

    /// The next bytes. Of server-sent events it returns the offset after the last one that ends in this piece.
    pub fn push(&mut self, piece: &[u8]) -> Option<usize> {
        let seen = &mut self.seen;
        self.decoder.push(piece, &mut |event| seen.event(&event))
    }

    /// The upstream has closed.
    pub fn end(&mut self) {
        let seen = &mut self.seen;
        self.decoder.end(&mut |event| seen.event(&event));
    }

    /// What the answer has come to so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.seen.fmt(f)
    }
}

impl Stream {
    /// The answer to a request that `encode_request` wrote and `back` came with.
    pub fn new(from: &dyn Upstream, to: &dyn Inbound, back: &Back, front: &Front<'_>) -> Self {
        let out = Writer {
            encoder: to.encode_stream(front),
            client: to.protocol(),
            hidden: false,
            calls: Calls::new(back.clone(), front.id),
            text_input: None,
            grammar: Grammar::default(),
            seen: Seen::default(),
        };
        Self { decoder: from.decode_stream(), out }
    }

    /// The next bytes of the upstream; what they are for the client is appended to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let writer = &mut self.out;
        self.decoder.push(piece, &mut |event| writer.restore(event, out));
    }

    /// The upstream has closed. If its answer was not whole, the client's ends with an error.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let writer = &mut self.out;
        self.decoder.end(&mut |event| writer.restore(event, out));
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

    /// What of the answer so far is not carried.
    pub fn lost(&self) -> Losses {
        let mut lost = self.out.seen.lost.clone();
        lost.complete(self.decoder.lost());
        lost
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.out.seen.fmt(f)
    }
}

impl Writer {
    /// Names calls and tools as the client knows them, and turns the input of those that take plain text into such.
    fn restore(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Open(Block::Call { id, name, custom }) => {
                let (id, name) = (self.calls.id(id), self.calls.name(name));
                let is_custom = self.calls.takes_text(&name);
                self.text_input = (is_custom && !custom).then(TextInput::default);
                self.event(&Event::Open(Block::Call { id, name, custom: custom || is_custom }), out);
            }
            Event::Delta(Delta::Input(piece)) if self.text_input.is_some() => {
                self.text(|input, text| input.push(&piece, text), out);
            }
            Event::Close => {
                self.text(TextInput::end, out);
                self.text_input = None;
                self.event(&Event::Close, out);
            }
            event => self.event(&event, out),
        }
    }

    fn text(&mut self, read: impl FnOnce(&mut TextInput, &mut String), out: &mut Vec<u8>) {
        let Some(input) = &mut self.text_input else { return };
        let mut text = String::new();
        read(input, &mut text);
        if !text.is_empty() {
            self.event(&Event::Delta(Delta::Input(text.into())), out);
        }
    }

    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.seen.is_over() {
            return;
        }
        let legal = self.grammar.event(event);
        debug_assert_eq!(legal, Ok(()), "{event:?}");
        self.seen.event(event);
        drops(self.client, event, &mut self.hidden, &mut self.seen.lost);
        self.encoder.event(event, out);
    }
}
