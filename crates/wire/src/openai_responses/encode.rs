//! Writes answers, streamed and whole.

use std::borrow::Cow;

use super::{OWN, names, sealed};
use crate::codec::{EncodeStream, Front};
use crate::error::{ApiError, ErrorKind};
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::json::{self, Writer};
use crate::message::Message;
use crate::opaque::{Extra, Opaque};
use crate::request::{Call, Content, Input, Part};
use crate::usage::Usage;
use crate::writing::answer_id;
use crate::{openai, openai_usage};

/// The most bytes of an answer that are kept, to be told again at its end.
const MOST: usize = 64 << 20;

/// Writes one stream: every item with all its steps, every event numbered, everything once more in the last one.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Our id of the request, until the answer has its own.
    id: String,
    model: Box<str>,
    created: u64,
    input_estimate: u64,
    begun: bool,
    pinged: bool,
    over: bool,
    /// The number of the next event.
    number: u64,
    /// The number of the open item, or of the next one.
    index: u64,
    open: Option<Item>,
    /// Whether the open block is one that this protocol does not have.
    hidden: bool,
    /// Items that are whole, as JSON, with commas between them.
    output: Vec<u8>,
    refused: bool,
    /// Bytes of text, for an estimate where the upstream gives no counts.
    bytes: u64,
}

/// The item that is open.
#[derive(Debug)]
struct Item {
    kind: Kind,
    id: String,
    /// What every event of a piece begins with, up to the piece itself.
    delta: Vec<u8>,
    /// The text, input or arguments so far, as the inside of a JSON string.
    text: Vec<u8>,
    /// Parts of a message that are whole, as JSON, with commas between them, and how many.
    content: Vec<u8>,
    parts: u64,
    /// Citations of the open part, as JSON with commas between them, and how many.
    citations: Vec<u8>,
    cited: u64,
    /// Whether a part is open.
    in_part: bool,
    /// What stands as `encrypted_content`, and whether it has been said what does.
    sealed: Option<String>,
    is_signed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A message, and whether its open part is a refusal. It stays open as long as its parts follow each other.
    Message {
        refusal: bool,
    },
    Reasoning,
    Call {
        call_id: String,
        name: String,
        custom: bool,
    },
    /// An item that only this protocol knows, as JSON.
    Whole(String),
}

/// The name of an item: no two of one answer have the same.
fn item_id(kind: &str, response: &str, index: u64) -> String {
    format!("{kind}_{}_{index}", response.strip_prefix("resp_").unwrap_or(response))
}

fn push_raw(list: &mut Vec<u8>, raw: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(raw);
}

/// A string whose inside is written already.
fn escaped(out: &mut Vec<u8>, inside: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(inside);
    out.push(b'"');
}

fn raw_list(out: &mut Vec<u8>, inside: &[u8]) {
    out.push(b'[');
    out.extend_from_slice(inside);
    out.push(b']');
}

impl Item {
    fn new(kind: Kind, id: String) -> Self {
        Self {
            kind,
            id,
            delta: Vec::new(),
            text: Vec::new(),
            content: Vec::new(),
            parts: 0,
            citations: Vec::new(),
            cited: 0,
            in_part: false,
            sealed: None,
            is_signed: false,
        }
    }

    /// The item as it begins, or as it has come to be.
    fn write(&self, o: &mut Writer<'_>, is_whole: bool) {
        let status = if is_whole { "completed" } else { "in_progress" };
        match &self.kind {
            Kind::Message { .. } => {
                o.str("id", &self.id).str("type", "message").str("status", status).str("role", "assistant");
                o.with("content", |out| raw_list(out, &self.content));
            }
            Kind::Reasoning => {
                o.str("id", &self.id).str("type", "reasoning");
                o.list("summary", |list| {
                    if is_whole && !self.text.is_empty() {
                        list.push_object(|o| self.part(o));
                    }
                });
                o.str_if("encrypted_content", self.sealed.as_deref());
            }
            Kind::Call { call_id, name, custom: false } => {
                // An answer that was cut at its limit may end within the arguments.
                let is_cut =
                    is_whole && serde_json::from_slice::<serde::de::IgnoredAny>(&unescaped(&self.text)).is_err();
                o.str("id", &self.id).str("type", "function_call");
                o.str("status", if is_cut { "incomplete" } else { status }).str("call_id", call_id);
                named(o, name);
                o.with("arguments", |out| escaped(out, &self.text));
            }
            Kind::Call { call_id, name, custom: true } => {
                o.str("id", &self.id).str("type", "custom_tool_call").str("status", status).str("call_id", call_id);
                named(o, name);
                o.with("input", |out| escaped(out, &self.text));
            }
            Kind::Whole(_) => {}
        }
    }

    /// The open part.
    fn part(&self, o: &mut Writer<'_>) {
        match &self.kind {
            Kind::Message { refusal: true } => {
                o.str("type", "refusal").with("refusal", |out| escaped(out, &self.text));
            }
            Kind::Reasoning => {
                o.str("type", "summary_text").with("text", |out| escaped(out, &self.text));
            }
            _ => {
                o.str("type", "output_text").with("annotations", |out| raw_list(out, &self.citations));
                o.raw("logprobs", "[]").with("text", |out| escaped(out, &self.text));
            }
        }
    }

    /// The events of its pieces and of their end, and the field of the end.
    fn names(&self) -> (&'static str, &'static str, &'static str) {
        match &self.kind {
            Kind::Message { refusal: true } => ("response.refusal.delta", "response.refusal.done", "refusal"),
            Kind::Message { .. } | Kind::Whole(_) => {
                ("response.output_text.delta", "response.output_text.done", "text")
            }
            Kind::Reasoning => {
                ("response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text")
            }
            Kind::Call { custom: true, .. } => {
                ("response.custom_tool_call_input.delta", "response.custom_tool_call_input.done", "input")
            }
            Kind::Call { .. } => {
                ("response.function_call_arguments.delta", "response.function_call_arguments.done", "arguments")
            }
        }
    }

    /// Where it is: what events about it have in common.
    fn place(&self, o: &mut Writer<'_>, index: u64) {
        o.str("item_id", &self.id).uint("output_index", index);
        match &self.kind {
            Kind::Message { .. } => o.uint("content_index", self.parts),
            Kind::Reasoning => o.uint("summary_index", 0),
            _ => o,
        };
    }

    fn sign(&mut self, opaque: Option<&Opaque<'_>>, redacted: bool) {
        self.is_signed = true;
        self.sealed = sealed::seal(opaque, redacted).map(Cow::into_owned);
    }

    fn kept(&self) -> usize {
        self.text.len() + self.content.len() + self.citations.len()
    }
}

/// The text of which this is the inside of a JSON string.
fn unescaped(inside: &[u8]) -> Vec<u8> {
    let mut string = Vec::with_capacity(inside.len() + 2);
    escaped(&mut string, inside);
    serde_json::from_slice::<String>(&string).unwrap_or_default().into_bytes()
}

fn named(o: &mut Writer<'_>, name: &str) {
    let (namespace, name) = names::split(name);
    o.str("name", name).str_if("namespace", namespace);
}

impl Encoder {
    pub(super) fn new(front: &Front<'_>) -> Self {
        Self {
            id: answer_id("resp_", "", front.id),
            model: front.model.into(),
            created: front.created,
            input_estimate: front.input_estimate,
            begun: false,
            pinged: false,
            over: false,
            number: 0,
            index: 0,
            open: None,
            hidden: false,
            output: Vec::new(),
            refused: false,
            bytes: 0,
        }
    }

    /// An event of that name.
    fn tell(&mut self, out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&Self, &mut Writer<'_>)) {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\ndata: ");
        json::object(out, |o| {
            o.str("type", name);
            fill(self, o);
            o.uint("sequence_number", self.number);
        });
        out.extend_from_slice(b"\n\n");
        self.number += 1;
    }

    /// An event about the whole answer.
    fn lifecycle(&mut self, out: &mut Vec<u8>, name: &str, end: &End<'_>) {
        self.tell(out, name, |encoder, o| {
            o.object("response", |o| {
                response(o, &encoder.id, &encoder.model, encoder.created, end, |out| raw_list(out, &encoder.output));
            });
        });
    }

    fn start(&mut self, id: &str, out: &mut Vec<u8>) {
        self.begun = true;
        if !id.is_empty() {
            self.id = answer_id("resp_", id, "");
        }
        self.lifecycle(out, "response.created", &End::InProgress);
        self.lifecycle(out, "response.in_progress", &End::InProgress);
    }

    fn open(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        self.hidden = matches!(block, Block::Extra(extra) if extra.origin != OWN);
        if self.hidden {
            return;
        }
        let kind = match block {
            Block::Text | Block::Refusal => Kind::Message { refusal: *block == Block::Refusal },
            Block::Thinking | Block::Redacted(_) => Kind::Reasoning,
            Block::Call { id, name, custom } => {
                Kind::Call { call_id: id.clone().into_owned(), name: name.clone().into_owned(), custom: *custom }
            }
            Block::Extra(extra) => Kind::Whole(extra.value.as_str().to_owned()),
        };
        self.refused |= *block == Block::Refusal;
        match (&mut self.open, &kind) {
            // A part of the same message.
            (Some(Item { kind: open @ Kind::Message { .. }, .. }), Kind::Message { .. }) => *open = kind,
            _ => {
                self.end_item(out);
                let hidden = if let Block::Redacted(opaque) = block { Some(opaque) } else { None };
                self.begin_item(kind, hidden, out);
            }
        }
        match self.open.as_ref().map(|item| &item.kind) {
            Some(Kind::Message { .. }) => self.begin_part("response.content_part.added", out),
            Some(Kind::Call { .. }) => self.set_delta(),
            _ => {}
        }
    }

    /// An item begins; thinking that is `hidden` altogether is whole with it.
    fn begin_item(&mut self, kind: Kind, hidden: Option<&Opaque<'_>>, out: &mut Vec<u8>) {
        let prefix = match &kind {
            Kind::Message { .. } => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { custom: false, .. } => "fc",
            Kind::Call { custom: true, .. } => "ctc",
            Kind::Whole(_) => "item",
        };
        let mut item = Item::new(kind, item_id(prefix, &self.id, self.index));
        if hidden.is_some() {
            item.sign(hidden, true);
        }
        self.tell(out, "response.output_item.added", |encoder, o| {
            o.uint("output_index", encoder.index);
            match &item.kind {
                Kind::Whole(raw) => o.raw("item", raw),
                _ => o.object("item", |o| item.write(o, false)),
            };
        });
        self.open = Some(item);
    }

    /// A part of the open item begins.
    fn begin_part(&mut self, name: &str, out: &mut Vec<u8>) {
        let Some(mut item) = self.open.take() else { return };
        item.in_part = true;
        item.text.clear();
        item.citations.clear();
        item.cited = 0;
        self.tell(out, name, |encoder, o| {
            item.place(o, encoder.index);
            o.object("part", |o| item.part(o));
        });
        self.open = Some(item);
        self.set_delta();
    }

    fn set_delta(&mut self) {
        let Some(item) = &mut self.open else { return };
        let (name, ..) = item.names();
        let mut head = Vec::with_capacity(256);
        for part in ["event: ", name, "\ndata: "] {
            head.extend_from_slice(part.as_bytes());
        }
        json::object(&mut head, |o| {
            o.str("type", name);
            item.place(o, self.index);
        });
        head.pop();
        head.extend_from_slice(b",\"delta\":\"");
        item.delta = head;
    }

    /// A piece of the open item.
    fn piece(&mut self, text: &str, out: &mut Vec<u8>) {
        if let Some(Item { kind: Kind::Reasoning, in_part: false, .. }) = &self.open {
            self.begin_part("response.reasoning_summary_part.added", out);
        }
        let Some(item) = self.open.as_mut().filter(|item| !matches!(item.kind, Kind::Whole(_))) else { return };
        self.bytes += text.len() as u64;
        out.extend_from_slice(&item.delta);
        let from = out.len();
        json::escape(out, text);
        item.text.extend_from_slice(&out[from..]);
        let tail: &[u8] = match item.kind {
            Kind::Message { refusal: false } => b"\",\"logprobs\":[],\"sequence_number\":",
            _ => b"\",\"sequence_number\":",
        };
        out.extend_from_slice(tail);
        json::digits(out, self.number);
        out.extend_from_slice(b"}\n\n");
        self.number += 1;
        if item.kept() + self.output.len() > MOST {
            let error = ApiError::new(ErrorKind::BadGateway, "the answer is longer than 64 MB");
            self.fail(&error, out);
        }
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match delta {
            _ if self.hidden => {}
            Delta::Text(text) | Delta::Input(text) => self.piece(text, out),
            Delta::Opaque(opaque) => {
                if let Some(item) = &mut self.open {
                    item.sign(Some(opaque), false);
                }
            }
            Delta::Citation(citation) if citation.origin == OWN => self.cite(citation, out),
            Delta::Citation(_) | Delta::Extra(_) => {}
        }
    }

    fn cite(&mut self, citation: &Extra<'_>, out: &mut Vec<u8>) {
        let Some(mut item) = self.open.take() else { return };
        push_raw(&mut item.citations, citation.value.as_str().as_bytes());
        self.tell(out, "response.output_text.annotation.added", |encoder, o| {
            item.place(o, encoder.index);
            o.uint("annotation_index", item.cited).raw("annotation", citation.value.as_str());
        });
        item.cited += 1;
        self.open = Some(item);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.hidden) {
            return;
        }
        if let Some(Item { kind: Kind::Call { custom: false, .. }, text, .. }) = &self.open
            && text.is_empty()
        {
            self.piece("{}", out);
        }
        let Some(mut item) = self.open.take() else { return };
        if item.in_part || matches!(item.kind, Kind::Call { .. }) {
            let (_, name, field) = item.names();
            self.tell(out, name, |encoder, o| {
                item.place(o, encoder.index);
                o.with(field, |out| escaped(out, &item.text));
                if item.kind == (Kind::Message { refusal: false }) {
                    o.raw("logprobs", "[]");
                }
            });
        }
        if item.in_part {
            let is_message = matches!(item.kind, Kind::Message { .. });
            let name = if is_message { "response.content_part.done" } else { "response.reasoning_summary_part.done" };
            self.tell(out, name, |encoder, o| {
                item.place(o, encoder.index);
                o.object("part", |o| item.part(o));
            });
            item.in_part = false;
        }
        let is_message = matches!(item.kind, Kind::Message { .. });
        if is_message {
            let mut part = Vec::with_capacity(item.text.len() + 64);
            json::object(&mut part, |o| item.part(o));
            push_raw(&mut item.content, &part);
            item.parts += 1;
        } else if item.kind == Kind::Reasoning && !item.is_signed {
            item.sign(None, false);
        }
        self.open = Some(item);
        // The next block may be a part of the same message.
        if !is_message {
            self.end_item(out);
        }
    }

    fn end_item(&mut self, out: &mut Vec<u8>) {
        let Some(item) = self.open.take() else { return };
        let mut raw = Vec::with_capacity(item.kept() + 256);
        match &item.kind {
            Kind::Whole(json) => raw.extend_from_slice(json.as_bytes()),
            _ => json::object(&mut raw, |o| item.write(o, true)),
        }
        self.tell(out, "response.output_item.done", |encoder, o| {
            o.uint("output_index", encoder.index).with("item", |out| out.extend_from_slice(&raw));
        });
        push_raw(&mut self.output, &raw);
        self.index += 1;
    }

    fn stop(&mut self, stop: &Stop<'_>, out: &mut Vec<u8>) {
        self.end_item(out);
        let estimate = Usage::estimate(self.input_estimate, self.bytes);
        let end = End::of(&stop.reason, self.refused, stop.usage.as_deref().unwrap_or(&estimate));
        let name = if matches!(end, End::Completed(_)) { "response.completed" } else { "response.incomplete" };
        self.lifecycle(out, name, &end);
    }

    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        if !self.begun {
            self.start("", out);
        }
        self.open = None;
        self.lifecycle(out, "response.failed", &End::Failed(error));
        self.over = true;
    }

    fn ping(&mut self, out: &mut Vec<u8>) {
        // Clients measure silence in events, so a comment is too little for long; but some providers ping at once, and
        // what has just begun need not be said twice.
        if !self.begun || !std::mem::replace(&mut self.pinged, true) {
            out.extend_from_slice(b": ping\n\n");
        } else {
            self.lifecycle(out, "response.in_progress", &End::InProgress);
        }
    }
}

impl EncodeStream for Encoder {
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match event {
            Event::Start(Start { id, .. }) => self.start(id, out),
            Event::Open(block) => self.open(block, out),
            Event::Delta(delta) => self.delta(delta, out),
            Event::Close => self.close(out),
            Event::Stop(stop) => self.stop(stop, out),
            Event::Ping => self.ping(out),
            Event::Error(error) => self.fail(error, out),
        }
    }
}

/// How far an answer is.
enum End<'e> {
    InProgress,
    Completed(&'e Usage),
    /// Cut short, in the protocol's word for the reason.
    Incomplete(&'static str, &'e Usage),
    Failed(&'e ApiError),
}

impl<'e> End<'e> {
    fn of(reason: &StopReason, refused: bool, usage: &'e Usage) -> Self {
        match reason {
            StopReason::MaxTokens | StopReason::ContextWindow => Self::Incomplete("max_output_tokens", usage),
            // A filter; a model that declines says so in words.
            StopReason::Refusal if !refused => Self::Incomplete("content_filter", usage),
            _ => Self::Completed(usage),
        }
    }
}

/// The members of an answer; `output` writes the list of its items.
fn response(o: &mut Writer<'_>, id: &str, model: &str, created: u64, end: &End<'_>, output: impl FnOnce(&mut Vec<u8>)) {
    let (status, usage) = match end {
        End::InProgress => ("in_progress", None),
        End::Completed(usage) => ("completed", Some(*usage)),
        End::Incomplete(_, usage) => ("incomplete", Some(*usage)),
        End::Failed(_) => ("failed", None),
    };
    o.str("id", id).str("object", "response").uint("created_at", created).str("status", status);
    o.null("completed_at").bool("background", false);
    match end {
        End::Failed(error) => o.object("error", |o| {
            o.str("code", code(error)).str("message", &message(error));
        }),
        _ => o.null("error"),
    };
    match end {
        End::Incomplete(reason, _) => o.object("incomplete_details", |o| {
            o.str("reason", reason);
        }),
        _ => o.null("incomplete_details"),
    };
    o.null("instructions").null("max_output_tokens").null("max_tool_calls").str("model", model);
    match end {
        End::InProgress => o.raw("output", "[]"),
        _ => o.with("output", output),
    };
    // What follows says how the answer was asked for, which the client knows; it has to be there.
    o.bool("parallel_tool_calls", true).null("previous_response_id").null("prompt_cache_key");
    o.raw("reasoning", r#"{"effort":null,"summary":null}"#).null("safety_identifier");
    let tier = usage.and_then(|usage| usage.service_tier.as_ref()).map_or("default", openai::tier_word);
    o.str("service_tier", tier).bool("store", false);
    for (name, value) in [("temperature", "1"), ("top_p", "1"), ("presence_penalty", "0"), ("frequency_penalty", "0")] {
        o.raw(name, value);
    }
    o.raw("text", r#"{"format":{"type":"text"}}"#).str("tool_choice", "auto").raw("tools", "[]");
    o.uint("top_logprobs", 0).str("truncation", "disabled");
    match usage {
        Some(usage) => o.object("usage", |o| openai_usage::write(o, usage, openai_usage::Names::Responses)),
        None => o.null("usage"),
    };
    o.null("user").raw("metadata", "{}");
}

/// The words by which clients know what to do.
fn code(error: &ApiError) -> &'static str {
    use ErrorKind::*;
    match error.kind {
        PromptTooLong => "context_length_exceeded",
        RateLimit => "rate_limit_exceeded",
        Billing | Quota => "insufficient_quota",
        Internal | BadGateway | Unavailable | UpstreamTimeout | Overloaded | Authentication | Permission => {
            "server_error"
        }
        InvalidRequest | NotFound | MethodNotAllowed | RequestTimeout | Conflict | TooLarge | HeadTooLarge => {
            "invalid_prompt"
        }
    }
}

/// The message, with the time to wait in it: that is where clients look.
fn message(error: &ApiError) -> Cow<'_, str> {
    match error.retry_after {
        Some(wait) if !error.message.contains("try again in") => {
            format!("{} Please try again in {:.1}s.", error.message, wait.as_secs_f64().max(0.1)).into()
        }
        _ => (&*error.message).into(),
    }
}

/// Writes a whole answer.
pub(super) fn whole(answer: &Message<'_>, front: &Front<'_>, out: &mut Vec<u8>) {
    let refused = answer.parts.iter().any(|part| matches!(part.content, Content::Refusal(_)));
    let estimate = Usage::estimate(front.input_estimate, answer.text_bytes());
    let end = End::of(&answer.stop.reason, refused, answer.stop.usage.as_deref().unwrap_or(&estimate));
    let id = answer_id("resp_", &answer.id, front.id);
    json::object(out, |o| {
        response(o, &id, front.model, front.created, &end, |out| {
            json::list(out, |list| items(list, &answer.parts, &id))
        });
    });
}

fn items(list: &mut Writer<'_>, parts: &[Part<'_>], response: &str) {
    let is_said = |part: &Part<'_>| matches!(part.content, Content::Text(_) | Content::Refusal(_));
    // Parts of a message that follow each other are one message.
    for (index, group) in parts.chunk_by(|a, b| is_said(a) && is_said(b)).enumerate() {
        let name = |kind: &str| item_id(kind, response, index as u64);
        match &group[0].content {
            Content::Text(_) | Content::Refusal(_) => list.push_object(|o| {
                o.str("id", &name("msg")).str("type", "message").str("status", "completed").str("role", "assistant");
                o.list("content", |list| group.iter().for_each(|part| list.push_object(|o| said(o, &part.content))));
            }),
            Content::Thinking(thinking) => list.push_object(|o| {
                o.str("id", &name("rs")).str("type", "reasoning");
                sealed::write(o, thinking);
            }),
            Content::Call(Call { id, name: tool, input: Input::Text(input) }) => list.push_object(|o| {
                o.str("id", &name("ctc")).str("type", "custom_tool_call").str("status", "completed");
                o.str("call_id", id);
                named(o, tool);
                o.str("input", input);
            }),
            Content::Call(Call { id, name: tool, input }) => list.push_object(|o| {
                let status = if matches!(input, Input::Cut(_)) { "incomplete" } else { "completed" };
                o.str("id", &name("fc")).str("type", "function_call").str("status", status).str("call_id", id);
                named(o, tool);
                o.str("arguments", &openai::arguments(input));
            }),
            Content::Extra(extra) if extra.origin == OWN => list.push_raw(extra.value.as_str()),
            _ => {}
        }
    }
}

fn said(o: &mut Writer<'_>, content: &Content<'_>) {
    match content {
        Content::Text(text) => {
            let own = || text.citations.iter().filter(|citation| citation.origin == OWN);
            o.str("type", "output_text");
            o.list("annotations", |list| own().for_each(|citation| list.push_raw(citation.value.as_str())));
            o.raw("logprobs", "[]").str("text", &text.text);
        }
        Content::Refusal(text) => {
            o.str("type", "refusal").str("refusal", text);
        }
        _ => {}
    }
}
