//! Reads answers, streamed and whole.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{OWN, read, stop_reason, usage};
use crate::codec::Sink;
use crate::error::ApiError;
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::guard::Guard;
use crate::json::{self, Json, Str};
use crate::lanes::JsonEnd;
use crate::loss::{Losses, Place, Weight};
use crate::message::Message;
use crate::opaque::{Extra, Opaque};
use crate::reading::{self, some, unreadable};
use crate::refusal;
use crate::request::{Call, Content, Input, Part};
use crate::streaming::{Events, Form, ReadEvents, name_of};
use crate::unread::{answer, says};
use crate::usage::Usage;

/// Reads one stream.
pub(super) fn stream() -> Events<State> {
    Events::new(State::default())
}

#[derive(Debug, Default)]
pub(super) struct State {
    guard: Guard,
    usage: Usage,
    /// Whether the input has been reported, and all reports could be read.
    counted: bool,
    stop: Option<Stop<'static>>,
    form: Form<()>,
    /// The input of the open call.
    input: Option<JsonEnd>,
    /// The signature that the open block began with. It comes after what it signs.
    signature: Option<Opaque<'static>>,
    /// A call was closed within its input.
    is_cut: bool,
    lost: Losses,
}

answer! {
    MessageStart<'a> {
        message: Reply<'a> = "message",
        _ = "type",
    }
}

answer! {
    /// A message as it begins, or whole.
    Reply<'a> {
        id: Str<'a> = "id",
        model: Str<'a> = "model",
        content: Vec<&'a RawValue> = "content",
        stop_reason: Str<'a> = "stop_reason",
        stop_sequence: Str<'a> = "stop_sequence",
        stop_details: Json<'a> = "stop_details",
        usage: &'a RawValue = "usage",
        error: &'a RawValue = "error",
        _ = "type" | "role",
    }
}

answer! {
    BlockStart<'a> {
        content_block: &'a RawValue = "content_block",
        _ = "type" | "index",
    }
}

answer! {
    BlockDelta<'a> {
        delta: Piece<'a> = "delta",
        _ = "type" | "index",
    }
}

answer! {
    Piece<'a> {
        kind: Str<'a> = "type",
        text: Str<'a> = "text",
        thinking: Str<'a> = "thinking",
        partial_json: Str<'a> = "partial_json",
        signature: Str<'a> = "signature",
        citation: Json<'a> = "citation",
        _ = "",
    }
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    delta: Json<'a>,
}

answer! {
    MessageDelta<'a> {
        delta: Ending<'a> = "delta",
        usage: &'a RawValue = "usage",
        _ = "type",
    }
}

answer! {
    Ending<'a> {
        stop_reason: Str<'a> = "stop_reason",
        stop_sequence: Str<'a> = "stop_sequence",
        stop_details: Json<'a> = "stop_details",
        _ = "",
    }
}

/// What a block is called in a path.
const BLOCK: &str = "content[]";

/// What an event lacks that has to be there.
fn missing(field: &'static str) -> serde_json::Error {
    serde::de::Error::missing_field(field)
}

fn extra<'a>(name: &str, value: impl Into<Json<'a>>) -> Extra<'a> {
    Extra::new(OWN, name.to_owned(), value, Weight::Hint)
}

impl ReadEvents for State {
    // Results of searches and sealed reasoning come in one event.
    const LONGEST: usize = 16;

    fn guard(&mut self) -> &mut Guard {
        &mut self.guard
    }

    fn lost(&self) -> &Losses {
        &self.lost
    }

    fn event(&mut self, name: Option<&[u8]>, data: &str, sink: &mut Sink<'_>) {
        let Some(name) = name_of(name, data) else {
            // Proxies in between have words of their own.
            let event = refusal::unnamed(data).map_or(Event::Ping, Event::Error);
            return self.guard.emit(event, sink);
        };
        let read = match &*name {
            b"content_block_delta" => self.delta(data, sink),
            b"content_block_start" => self.open(data, sink),
            b"message_start" => self.start(data, sink),
            b"message_delta" => self.message_delta(data),
            b"content_block_stop" => {
                self.is_cut |= self.input.take().is_some_and(|input| !input.is_whole() && !input.is_empty());
                if let Some(signature) = self.signature.take() {
                    self.guard.emit(Event::Delta(Delta::Opaque(signature)), sink);
                }
                return self.guard.emit(Event::Close, sink);
            }
            b"message_stop" => return self.stop(sink),
            b"ping" => return self.guard.emit(Event::Ping, sink),
            b"error" => return self.guard.emit(Event::Error(refusal::within(data)), sink),
            // The protocol promises new kinds of events, which clients ignore.
            name => {
                self.lost.left_out(&[], &String::from_utf8_lossy(name));
                return;
            }
        };
        if read.is_err() {
            if let Some(data) = json::whole_characters(data) {
                return self.event(Some(&name), &data, sink);
            }
            let name = String::from_utf8_lossy(&name);
            self.guard.fail(format!("a `{name}` event of the upstream cannot be read"), sink);
        }
    }
}

impl State {
    /// Takes a report. One that cannot be read harms nothing but the counts: they are not known from then on.
    fn report(&mut self, usage: Option<&RawValue>) {
        match usage.map(|usage| usage::report(usage.get().as_bytes())) {
            None => {}
            Some(Ok(report)) => {
                self.counted |= report.input.is_some();
                self.usage.set(report);
            }
            Some(Err(_)) => self.counted = false,
        }
    }

    fn counts(&self) -> Option<Box<Usage>> {
        self.counted.then(|| Box::new(self.usage.clone()))
    }

    fn start(&mut self, data: &str, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        let MessageStart { message, unread } = serde_json::from_str(data)?;
        let message = message.ok_or_else(|| missing("message"))?;
        unread.name(&mut self.lost, &["message_start"]);
        message.unread.name(&mut self.lost, &[]);
        self.report(message.usage);
        let (id, model) = (message.id.unwrap_or_default().0, message.model.unwrap_or_default().0);
        self.guard.emit(Event::Start(Start { id, model, usage: self.counts() }), sink);
        Ok(())
    }

    fn open(&mut self, data: &str, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        let BlockStart { content_block, unread } = serde_json::from_str(data)?;
        let content_block = content_block.ok_or_else(|| missing("content_block"))?;
        unread.name(&mut self.lost, &["content_block_start"]);
        let Some(part) = part(content_block, 0, &mut self.lost) else {
            self.guard.fail("a block of the upstream's answer cannot be read", sink);
            return Ok(());
        };
        let (mut citations, mut signature) = (Vec::new(), None);
        // The shell is usually empty; what stands in it already is the first piece.
        let (block, first) = match part.content {
            Content::Text(text) => {
                citations = text.citations;
                (Block::Text, Some(Delta::Text(text.text)))
            }
            Content::Thinking(thinking) => match thinking.opaque {
                Some(opaque) if thinking.redacted => (Block::Redacted(opaque), None),
                opaque => {
                    signature = opaque.map(Opaque::into_owned);
                    (Block::Thinking, Some(Delta::Text(thinking.text)))
                }
            },
            Content::Call(call) => {
                let input = match call.input {
                    Input::Json(json) if is_empty(&json) || !json.is_object() => None,
                    Input::Json(json) => Some(Delta::Input(json.as_str().to_owned().into())),
                    Input::Text(text) | Input::Cut(text) => Some(Delta::Input(text)),
                };
                (Block::Call { id: call.id, name: call.name, custom: false }, input)
            }
            Content::Extra(extra) => (Block::Extra(extra), None),
            Content::Refusal(_) | Content::Image(_) | Content::Document(_) | Content::Result(_) => {
                (Block::Extra(extra("block", content_block)), None)
            }
        };
        self.input = matches!(block, Block::Call { .. }).then(JsonEnd::default);
        self.signature = signature;
        self.guard.emit(Event::Open(block), sink);
        match first {
            Some(Delta::Text(text)) if text.is_empty() => {}
            Some(delta) => self.emit(delta, sink),
            None => {}
        }
        citations.into_iter().for_each(|citation| self.emit(Delta::Citation(citation), sink));
        Ok(())
    }

    fn delta(&mut self, data: &str, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        if let Some(((), text)) = self.form.text(data) {
            if !text.is_empty() {
                self.guard.emit(Event::Delta(Delta::Text(text.into())), sink);
            }
            return Ok(());
        }
        let BlockDelta { delta: Some(piece), unread } = serde_json::from_str(data)? else {
            return Err(missing("delta"));
        };
        let Some(kind) = piece.kind else { return Err(missing("type")) };
        unread.name(&mut self.lost, &["content_block_delta"]);
        if !piece.unread.is_empty() && is_known(&kind) {
            piece.unread.name(&mut self.lost, &["content_block_delta", "delta"]);
        }
        let text = match &*kind {
            "text_delta" => piece.text.map(|Str(text)| Delta::Text(text)),
            "thinking_delta" => piece.thinking.map(|Str(text)| Delta::Text(text)),
            "input_json_delta" => piece.partial_json.map(|Str(text)| Delta::Input(text)),
            "signature_delta" => {
                self.signature = None;
                piece.signature.filter(|s| !s.is_empty()).and_then(|Str(s)| Opaque::open(OWN, s)).map(Delta::Opaque)
            }
            "citations_delta" => piece.citation.map(|citation| Delta::Citation(extra("citations", citation))),
            kind => Some(Delta::Extra(extra(kind, serde_json::from_str::<RawDelta<'_>>(data)?.delta))),
        };
        if let Some(Delta::Text(Cow::Borrowed(text))) = text {
            self.form.keep(data, text, ());
        }
        match text {
            Some(Delta::Text(text) | Delta::Input(text)) if text.is_empty() => {}
            Some(delta) => self.emit(delta, sink),
            None => {}
        }
        Ok(())
    }

    fn emit(&mut self, delta: Delta<'_>, sink: &mut Sink<'_>) {
        if let (Some(input), Delta::Input(text)) = (&mut self.input, &delta) {
            input.feed(text);
        }
        self.guard.emit(Event::Delta(delta), sink);
    }

    fn message_delta(&mut self, data: &str) -> serde_json::Result<()> {
        let message: MessageDelta<'_> = serde_json::from_str(data)?;
        message.unread.name(&mut self.lost, &[]);
        self.report(message.usage);
        if let Some(ending) = &message.delta {
            ending.unread.name(&mut self.lost, &[]);
        }
        if let Some(ending) = message.delta
            && let Some(reason) = &ending.stop_reason
        {
            self.stop = Some(stop_of(stop_reason(reason), ending.stop_sequence, ending.stop_details).into_owned());
        }
        Ok(())
    }

    fn stop(&mut self, sink: &mut Sink<'_>) {
        match self.stop.take() {
            // A limit or a filter cuts where it finds something. Else it is said to be a call, and cannot be one: a piece
            // of it was lost, or is of a kind that we do not know.
            Some(Stop { reason, .. }) if self.is_cut && !reason.cuts() => {
                self.guard.fail("the upstream's answer ends within the arguments of a call", sink);
            }
            Some(stop) => self.guard.emit(Event::Stop(Stop { usage: self.counts(), ..stop }), sink),
            None => self.guard.fail("the upstream's answer ended without a reason", sink),
        }
    }
}

/// Whether deltas of this kind are read; of others all is carried.
fn is_known(kind: &str) -> bool {
    matches!(kind, "text_delta" | "thinking_delta" | "input_json_delta" | "signature_delta" | "citations_delta")
}

/// Names what is in a block and has no neutral form.
fn name(part: &Part<'_>, lost: &mut Losses) {
    for extra in &part.extras {
        if extra.weight > Weight::Silent && says(extra.value.as_str()) {
            lost.left_out(&[BLOCK], &extra.name);
        }
    }
}

answer! {
    Sparse<'a> {
        kind: Str<'a> = "type",
        text: Str<'a> = "text",
        id: Str<'a> = "id",
        name: Str<'a> = "name",
        input: &'a RawValue = "input",
        _ = "",
    }
}

/// A block of an answer; what is in it and not carried is named. Some servers leave out a text, or the id of a call.
fn part<'a>(raw: &'a RawValue, n: usize, lost: &mut Losses) -> Option<Part<'a>> {
    let place = Place::new("content", n);
    match read::block(raw, place, 4) {
        // No model shows images: what looks like one is a block that only the source knows.
        Ok(Part { content: Content::Image(_) | Content::Document(_) | Content::Result(_), .. }) => {
            let Sparse { kind, .. } = serde_json::from_str(raw.get()).ok()?;
            return Some(Part::new(Content::Extra(extra(&kind?, raw)), place));
        }
        Ok(part) => {
            name(&part, lost);
            return Some(part);
        }
        Err(_) => {}
    }
    let block: Sparse<'_> = serde_json::from_str(raw.get()).ok()?;
    let content = match &*block.kind? {
        "text" => block.text.unwrap_or_default().0.into(),
        "tool_use" => Content::Call(Call {
            id: block.id.unwrap_or_default().0,
            name: some(block.name)?,
            input: Input::Json(block.input.map_or(Json::EMPTY, Json::from)),
        }),
        _ => return None,
    };
    block.unread.name(lost, &[BLOCK]);
    Some(Part::new(content, place))
}

fn stop_of<'a>(reason: StopReason, sequence: Option<Str<'a>>, details: Option<Json<'a>>) -> Stop<'a> {
    let details = details.map(|details| extra("stop_details", details));
    Stop { reason, sequence: sequence.map(|Str(text)| text), details, usage: None }
}

/// Reads a whole answer.
pub(super) fn whole(body: &[u8]) -> Result<Message<'_>, ApiError> {
    let (text, reply): (_, Reply<'_>) = reading::answer(body)?;
    if reply.error.is_some() {
        return Err(refusal::within(text));
    }
    let reason = reply.stop_reason.as_deref().map(stop_reason).ok_or_else(unreadable)?;
    let mut stop = stop_of(reason, reply.stop_sequence, reply.stop_details);
    let mut state = State::default();
    state.report(reply.usage);
    stop.usage = state.counts();
    let mut message = Message::new(reply.id.unwrap_or_default().0, reply.model.unwrap_or_default().0, stop);
    reply.unread.name(&mut message.lost, &[]);
    for (n, raw) in reply.content.into_iter().flatten().enumerate() {
        message.parts.push(part(raw, n, &mut message.lost).ok_or_else(unreadable)?);
    }
    Ok(message)
}

/// Whether it is an object without a member.
fn is_empty(json: &Json<'_>) -> bool {
    json.is_object() && json.as_str()[1..].trim_ascii_start().starts_with('}')
}
