//! Between a client and an upstream that speak different protocols: the request on its way up, the answer on its way down.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
pub use wire::anthropic::Unsigned;
use wire::codec::{Back, Front, Target};
use wire::error::{ApiError, ErrorKind};
use wire::estimate::{Classes, Words};
pub use wire::loss::Losses;
use wire::loss::Place;
use wire::meter::{Counts, Metered, Progress, StreamError};
pub use wire::protocol::Protocol;
use wire::quirks::Quirks;
use wire::transcode::{self, Observer, Seen, Stream};
use wire::vocabulary::Vocabulary;
use wire::{anthropic, models, openai_responses, refusal};

/// A header that names what a translation could not carry.
pub const LOSS: &str = "x-cco-loss";

/// Who a request is translated for.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a> {
    /// What it speaks.
    pub protocol: Protocol,
    /// The model as it names it.
    pub model: &'a str,
    /// What it takes.
    pub quirks: &'a Quirks,
    /// The most tokens of output that it gives, where that is said; else what is known of the model by its name.
    pub max_output: Option<u64>,
    /// What the prompt comes to, where that has been [counted](count); else it is estimated by kinds of characters.
    pub prompt: Option<u64>,
}

/// A translated request.
#[derive(Debug)]
pub struct Translated {
    /// The body that goes up; empty where nothing is to be asked.
    pub body: Bytes,
    /// What it does not carry.
    pub losses: Losses,
    /// What the answer needs.
    pub answer: Answer,
    /// Whether nothing is to be generated: then the upstream is not asked, and the answer is [`Answer::nothing`].
    pub is_idle: bool,
}

/// How the answer to one translated request becomes the client's.
#[derive(Debug, Clone)]
pub struct Answer {
    client: Protocol,
    upstream: Protocol,
    back: Back,
    id: Box<str>,
    model: Box<str>,
    created: u64,
    input_estimate: u64,
    stream_usage: bool,
    is_stream: bool,
}

/// The protocol of that name, as the configuration names it.
pub fn named(name: &str) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| protocol.as_str() == name)
}

/// Whether clients speak this protocol to us.
pub fn is_spoken(client: Protocol) -> bool {
    transcode::inbound(client).is_some()
}

/// What an upstream of that protocol takes, for a model of that name; `row` is what the catalog says of its kind.
pub fn quirks(protocol: Protocol, row: Option<fn(&str) -> Quirks>, model: &str) -> Quirks {
    match (row, protocol) {
        (Some(row), _) => row(model),
        (None, Protocol::AnthropicMessages) => models::claude(model),
        (None, Protocol::Ollama) => models::ollama(model),
        (None, other) => Quirks::of(other),
    }
}

/// A client's request in the upstream's protocol, or the refusal to send it. `model` is what the client calls it, `id` ours
/// of the request.
pub fn request(
    client: Protocol,
    upstream: &Upstream<'_>,
    body: &[u8],
    model: &str,
    id: &str,
) -> Result<Translated, ApiError> {
    let max_output = upstream.max_output.or_else(|| models::max_output(upstream.model));
    let input_estimate = upstream.prompt.unwrap_or(0);
    let target = Target { model: upstream.model, max_output, quirks: upstream.quirks, input_estimate };
    let (from, to) = (inbound(client), outbound(upstream.protocol));
    let prepared = transcode::request(from, to, body, &target, &Classes)?;
    let encoded = prepared.encoded;
    let answer = Answer {
        client,
        upstream: upstream.protocol,
        back: encoded.back,
        id: id.into(),
        model: model.into(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        input_estimate: prepared.input_estimate,
        stream_usage: prepared.stream_usage,
        is_stream: prepared.stream,
    };
    Ok(Translated { body: encoded.body.into(), losses: encoded.losses, answer, is_idle: encoded.is_idle })
}

/// The refusal of a request where nothing may be lost; `None`: nothing is.
pub fn refuse(losses: &Losses) -> Option<ApiError> {
    transcode::refuse(losses)
}

/// A request that passes between equal protocols, without the reasoning of other providers in its history, which its
/// upstream would not take, and what that was. `None`: there is none, as nearly always.
pub fn without_foreign_reasoning(protocol: Protocol, body: &[u8], unsigned: Unsigned) -> Option<(Bytes, Losses)> {
    match protocol {
        Protocol::AnthropicMessages => {
            anthropic::strip_foreign_thinking(body, unsigned).map(|(body, losses)| (body.into(), losses))
        }
        Protocol::OpenAiResponses => openai_responses::strip_foreign_reasoning(body).map(|body| {
            let mut losses = Losses::default();
            losses.hint(Place::field("input"), "reasoning of another provider");
            (body.into(), losses)
        }),
        Protocol::OpenAiChat | Protocol::Ollama => None,
    }
}

/// The size of a client's prompt, by estimate: for upstreams that do not count. The tokenizer sees about `most` bytes of
/// it, at some ten million of them a second; the first time, it has to be made ready for some tens of milliseconds.
pub fn count(client: Protocol, body: &[u8], most: usize) -> Result<u64, ApiError> {
    transcode::estimate(inbound(client), body, &Words::new(body.len(), most))
}

/// Whether [`count`] is ready, so that a small prompt is counted in no time.
pub fn is_ready_to_count() -> bool {
    Vocabulary::at_hand().is_some()
}

/// An error answer in a client's protocol: its status, its fields and its body.
pub fn error(client: Protocol, error: &ApiError, id: &str) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    let (mut body, front) = (Vec::new(), Front { id, ..EMPTY });
    let status = inbound(client).encode_error(error, &front, &mut body);
    let mut fields = Vec::new();
    if let Some(wait) = error.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        fields.push(("retry-after", seconds.to_string()));
    }
    if matches!(error.kind, ErrorKind::Quota | ErrorKind::Billing) {
        fields.push(("x-should-retry", "false".into()));
    }
    (status, fields, body)
}

/// What an upstream's error answer says; `retry_after` is what its head said. What it says of a credential is for whose
/// credential it is.
pub fn upstream_error(status: u16, body: &[u8], retry_after: Option<Duration>) -> ApiError {
    let mut error = refusal::read(status, body);
    error.retry_after = retry_after.or(error.retry_after);
    error
}

/// The name under which a client's protocol tells the id of an answer, and the id that its errors tell too.
pub fn own_id(client: Protocol, id: &str) -> (&'static str, String) {
    let name = if client == Protocol::AnthropicMessages { "request-id" } else { "x-request-id" };
    (name, anthropic::error::request_id(id).into_owned())
}

/// A model in a client's list of them; `owner` is who has it.
pub fn model(client: Protocol, id: &str, owner: &str) -> Value {
    match client {
        Protocol::AnthropicMessages => {
            json!({ "type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z" })
        }
        _ => json!({ "id": id, "object": "model", "created": 0, "owned_by": owner }),
    }
}

/// A client's list of models: names, and who has them.
pub fn models(client: Protocol, all: &[(&str, &str)]) -> Value {
    let data: Vec<Value> = all.iter().map(|(id, owner)| model(client, id, owner)).collect();
    let (first, last) = (all.first().map(|(id, _)| *id), all.last().map(|(id, _)| *id));
    match client {
        Protocol::AnthropicMessages => json!({ "data": data, "has_more": false, "first_id": first, "last_id": last }),
        _ => json!({ "object": "list", "data": data }),
    }
}

/// An error as the data of an event of Anthropic's.
pub fn error_event(error: &ApiError) -> Vec<u8> {
    anthropic::error::body(error.kind, &error.message, "")
}

/// The end of a stream that breaks off, in a client's protocol.
pub fn last_word(client: Protocol, kind: ErrorKind, message: &str, id: &str) -> Bytes {
    let mut out = Vec::new();
    transcode::last_word(inbound(client), ApiError::new(kind, message), &Front { id, ..EMPTY }, &mut out);
    out.into()
}

/// A sign of life in a client's protocol.
pub fn ping(client: Protocol) -> Bytes {
    Bytes::from_static(match client {
        Protocol::AnthropicMessages => anthropic::error::PING,
        _ => b": ping\n\n",
    })
}

const EMPTY: Front<'static> =
    Front { id: "", model: "", created: 0, input_estimate: 1, stream_usage: true, show_reasoning: true };

fn inbound(client: Protocol) -> &'static dyn wire::codec::Inbound {
    transcode::inbound(client).unwrap_or(&anthropic::Anthropic)
}

fn outbound(upstream: Protocol) -> &'static dyn wire::codec::Upstream {
    transcode::upstream(upstream).unwrap_or(&anthropic::Anthropic)
}

impl Answer {
    /// For an answer whose request is not known.
    pub fn unasked(client: Protocol, upstream: Protocol, model: &str, is_stream: bool) -> Self {
        Self {
            client,
            upstream,
            back: Back::default(),
            id: "unasked".into(),
            model: model.into(),
            created: 0,
            input_estimate: 1,
            stream_usage: true,
            is_stream,
        }
    }

    fn front(&self) -> Front<'_> {
        Front {
            id: &self.id,
            model: &self.model,
            created: self.created,
            input_estimate: self.input_estimate,
            stream_usage: self.stream_usage,
            show_reasoning: true,
        }
    }

    /// How many tokens the prompt comes to, by estimate.
    pub fn input_estimate(&self) -> u64 {
        self.input_estimate
    }

    /// What the client speaks.
    pub fn client(&self) -> Protocol {
        self.client
    }

    /// Whether the client wants a stream.
    pub fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// What a whole answer, or a streamed one, is sent as.
    pub fn content_type(&self) -> &'static str {
        if self.is_stream { "text/event-stream" } else { "application/json" }
    }

    /// The name under which the client's protocol tells the id of an answer, and the id.
    pub fn own_id(&self) -> (&'static str, String) {
        own_id(self.client, &self.id)
    }

    /// The answer where nothing is to be generated.
    pub fn nothing(&self) -> Vec<u8> {
        let mut out = Vec::new();
        transcode::nothing(inbound(self.client), self.is_stream, &self.front(), &mut out);
        out
    }

    /// A whole answer, in the form that the client asked for.
    pub fn whole(&self, body: &[u8]) -> Result<(Vec<u8>, Metered), ApiError> {
        let (from, to) = (outbound(self.upstream), inbound(self.client));
        let mut out = Vec::with_capacity(body.len());
        let seen = transcode::whole(from, to, body, &self.back, &self.front(), self.is_stream, &mut out)?;
        Ok((out, metered(&seen)))
    }

    /// The way of a streamed answer.
    pub fn stream(&self) -> Streaming {
        let (from, to) = (outbound(self.upstream), inbound(self.client));
        // Only these clients are told of the input at the beginning.
        let told = (self.client == Protocol::AnthropicMessages).then_some(self.input_estimate);
        Streaming { stream: Stream::new(from, to, &self.back, &self.front()), out: Vec::new(), told }
    }
}

/// A streamed answer on its way to the client. What comes out of one piece that goes in is whole events.
#[derive(Debug)]
pub struct Streaming {
    stream: Stream,
    out: Vec<u8>,
    /// What its client is told of the input at the beginning, where the upstream does not say it by then.
    told: Option<u64>,
}

impl Streaming {
    /// The next bytes of the upstream.
    pub fn push(&mut self, piece: &[u8]) {
        // Memory is owned only while there is something to send, and is taken at once.
        self.out.reserve(piece.len() + piece.len() / 2);
        self.stream.push(piece, &mut self.out);
    }

    /// The upstream has closed.
    pub fn end(&mut self) {
        self.stream.end(&mut self.out);
    }

    /// A sign of life.
    pub fn ping(&mut self) {
        self.stream.ping(&mut self.out);
    }

    /// Ends the answer with an error of our own.
    pub fn fail(&mut self, kind: ErrorKind, message: &str) {
        self.stream.fail(ApiError::new(kind, message), &mut self.out);
    }

    /// What is to be sent to the client now.
    pub fn take(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }

    /// How far the answer has come.
    pub fn progress(&self) -> Progress {
        progress(self.stream.seen())
    }

    /// Whether nothing can follow.
    pub fn is_over(&self) -> bool {
        self.stream.seen().is_over()
    }

    /// Whether the model has said something.
    pub fn has_content(&self) -> bool {
        self.stream.seen().has_content
    }

    /// What the answer has come to.
    pub fn metered(&self) -> Metered {
        let seen = self.stream.seen();
        Metered { told_input: self.told.filter(|_| seen.told_estimate), lost: self.stream.lost(), ..metered(seen) }
    }

    /// The error that it ended with, as the data of an event of Anthropic's.
    pub fn error_data(&self) -> Vec<u8> {
        error_data(self.stream.seen())
    }

    /// Why it broke off, where the upstream's answer was not whole.
    pub fn error(&self) -> Option<&ApiError> {
        self.stream.seen().error.as_ref()
    }
}

fn error_data(seen: &Seen) -> Vec<u8> {
    seen.error.as_ref().map(error_event).unwrap_or_default()
}

fn progress(seen: &Seen) -> Progress {
    match seen {
        Seen { error: Some(_), .. } => Progress::Failed,
        Seen { stop: Some(_), .. } => Progress::Ended,
        Seen { begun: true, .. } => Progress::Begun,
        _ => Progress::Nothing,
    }
}

/// What is seen of an answer in any protocol, as the ledger takes it.
pub fn metered(seen: &Seen) -> Metered {
    let usage = seen.usage.as_deref().cloned();
    let refused = seen.error.is_some() && !seen.has_content && usage.is_none();
    let error = seen.error.as_ref().map(|error| StreamError {
        kind: anthropic::error::kind_name(error.kind).into(),
        message: error.message.clone(),
    });
    Metered {
        progress: progress(seen),
        model: Some(seen.model.clone()).filter(|model| !model.is_empty()),
        message_id: None,
        stop_reason: seen.stop.as_ref().map(|stop| stop.as_str().into()),
        is_final: seen.stop.is_some() && usage.is_some(),
        usage: match usage {
            Some(usage) => Counts::Known(usage),
            None if refused => Counts::Known(wire::usage::Usage::default()),
            None => Counts::Unknown,
        },
        text_bytes: seen.text_bytes,
        sample: seen.sample,
        told_input: None,
        error,
        unreadable: 0,
        lost: seen.lost.clone(),
    }
}

/// Follows an answer that passes untouched and is not Anthropic's.
#[derive(Debug)]
pub struct Observing {
    observer: Observer,
    client: Protocol,
    /// What cannot be told from the events alone.
    state: Reading,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Good,
    /// Our reader gave up: then nothing is known against the answer, which passes as it is.
    Lost,
    /// It ended before it was whole.
    CutShort,
}

impl Observing {
    /// Of an answer in that protocol.
    pub fn new(protocol: Protocol) -> Self {
        Self { observer: Observer::new(outbound(protocol)), client: protocol, state: Reading::Good }
    }

    /// The protocol.
    pub fn protocol(&self) -> Protocol {
        self.client
    }

    /// The next bytes; returns the offset after the last event that ends in this piece.
    pub fn push(&mut self, piece: &[u8]) -> Option<usize> {
        let border = self.observer.push(piece);
        if self.is_broken() {
            self.state = Reading::Lost;
        }
        border
    }

    /// The upstream has closed.
    pub fn end(&mut self) {
        if self.state == Reading::Good {
            self.observer.end();
            if self.is_broken() {
                self.state = Reading::CutShort;
            }
        }
    }

    /// Whether the error is our reader's word and not the upstream's.
    fn is_broken(&self) -> bool {
        self.observer.seen().error.as_ref().is_some_and(|error| error.kind == ErrorKind::BadGateway)
    }

    /// Whether it cannot be read any more.
    pub fn is_lost(&self) -> bool {
        self.state == Reading::Lost
    }

    /// The error that it ended with, as the data of an event of Anthropic's.
    pub fn error_data(&self) -> Vec<u8> {
        error_data(self.observer.seen())
    }

    /// How far the answer has come.
    pub fn progress(&self) -> Progress {
        if self.state == Reading::Good { progress(self.observer.seen()) } else { Progress::Begun }
    }

    /// Whether the model has said something.
    pub fn has_content(&self) -> bool {
        self.observer.seen().has_content
    }

    /// What the answer has come to.
    pub fn metered(&self) -> Metered {
        let metered = metered(self.observer.seen());
        match self.state {
            Reading::Good => metered,
            Reading::Lost => Metered { error: None, usage: Counts::Unknown, progress: Progress::Begun, ..metered },
            Reading::CutShort => Metered { error: None, progress: Progress::Begun, ..metered },
        }
    }
}

/// What a whole answer of that protocol came to that passes untouched.
pub fn whole_metered(protocol: Protocol, body: &[u8]) -> Metered {
    metered(&transcode::seen(outbound(protocol), body).unwrap_or_default())
}

#[cfg(test)]
mod tests;
