//! Reads answers, streamed and whole.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{OWN, item, names, sealed};
use crate::codec::Sink;
use crate::error::{ApiError, ErrorKind};
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::guard::Guard;
use crate::json::{self, Json, Str};
use crate::lanes::{Closing, JsonEnd};
use crate::loss::{Place, Weight};
use crate::message::Message;
use crate::opaque::Extra;
use crate::reading::{answer, unreadable};
use crate::refusal;
use crate::request::{Content, Input, Part, Text};
use crate::streaming::{Blocks, Events, ReadEvents, name_of};
use crate::usage::Usage;
use crate::{openai, openai_usage};

/// Items that may be open at once.
const ITEMS: usize = 1024;

/// An answer: as it begins, as it ends, or whole.
#[derive(Deserialize, Default)]
struct Response<'a> {
    #[serde(borrow)]
    id: Option<Str<'a>>,
    model: Option<Str<'a>>,
    status: Option<Str<'a>>,
    output: Option<Vec<&'a RawValue>>,
    usage: Option<&'a RawValue>,
    service_tier: Option<Str<'a>>,
    error: Option<&'a RawValue>,
    incomplete_details: Option<Details<'a>>,
    tool_usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Details<'a> {
    #[serde(borrow)]
    reason: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct ToolUsage {
    web_search: Option<Searches>,
}

#[derive(Deserialize)]
struct Searches {
    num_requests: Option<u64>,
}

/// The data of an event about the whole answer.
#[derive(Deserialize)]
struct Lifecycle<'a> {
    #[serde(borrow)]
    response: Option<Response<'a>>,
}

/// The data of an event about an item.
#[derive(Deserialize)]
struct OfItem<'a> {
    output_index: Option<u64>,
    #[serde(borrow)]
    item: &'a RawValue,
}

/// An item as it begins.
#[derive(Deserialize, Default)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    id: Option<Str<'a>>,
    call_id: Option<Str<'a>>,
    name: Option<Str<'a>>,
    namespace: Option<Str<'a>>,
    status: Option<Str<'a>>,
    encrypted_content: Option<Str<'a>>,
}

impl Head<'_> {
    /// Whether the item says of itself that it is not whole: then nobody expects whole arguments.
    fn is_cut(&self) -> bool {
        self.status.as_deref() == Some("incomplete")
    }
}

/// The data of an event about a piece of an item.
#[derive(Deserialize)]
struct Piece<'a> {
    /// Some servers do not say it: see [`State::piece`].
    #[serde(default = "unsaid", deserialize_with = "index")]
    output_index: u64,
    #[serde(alias = "summary_index")]
    content_index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Str<'a>>,
    text: Option<Str<'a>>,
    refusal: Option<Str<'a>>,
    arguments: Option<Str<'a>>,
    input: Option<Str<'a>>,
    annotation: Option<Json<'a>>,
    part: Option<ContentPart<'a>>,
}

/// No item has this number.
const UNSAID: u64 = u64::MAX;

fn index<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(UNSAID))
}

fn unsaid() -> u64 {
    UNSAID
}

#[derive(Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    text: Option<Str<'a>>,
    refusal: Option<Str<'a>>,
}

/// Reads one stream.
pub(super) fn stream() -> Events<State> {
    Events::new(State {
        blocks: Blocks::new(Closing::Told),
        begun: false,
        progress: false,
        said: false,
        items: Vec::new(),
        next: 0,
        seen: Seen::default(),
    })
}

#[derive(Debug)]
pub(super) struct State {
    blocks: Blocks,
    begun: bool,
    /// Whether it was said that the answer is in progress: from then on it only means that the upstream is alive.
    progress: bool,
    /// Whether there has been an item.
    said: bool,
    /// The items that are open.
    items: Vec<Item>,
    /// The number after those of all items so far.
    next: u64,
    seen: Seen,
}

/// What decides why an answer stopped.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    calls: bool,
    refused: bool,
    /// Whether the arguments of a call are no JSON object.
    broken: bool,
    searches: u64,
}

#[derive(Debug)]
struct Item {
    index: u64,
    kind: Kind,
    /// The blocks that it consists of.
    blocks: Vec<Opened>,
    /// Whether it is thinking that is hidden altogether.
    is_hidden: bool,
    /// The piece of reasoning that came last: of the summary or of the content, and its index.
    piece: Option<(bool, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Reasoning,
    Call,
    Other,
}

#[derive(Debug, Clone, Copy)]
struct Opened {
    /// The index of the content part; 0 for what has none.
    part: u64,
    key: u64,
    fed: bool,
    /// What came of the input of a function in pieces.
    input: JsonEnd,
}

/// The place of an item that is in no request.
fn place(n: usize) -> Place {
    Place::new("output", n)
}

fn within_arguments() -> ApiError {
    ApiError::new(ErrorKind::BadGateway, "the upstream's answer ends within the arguments of a call")
}

impl ReadEvents for State {
    // The last event holds the whole answer again.
    const LONGEST: usize = 32;

    fn guard(&mut self) -> &mut Guard {
        &mut self.blocks.guard
    }

    fn event(&mut self, name: Option<&[u8]>, data: &str, sink: &mut Sink<'_>) {
        if matches!(data.trim_ascii(), "" | "[DONE]") {
            return;
        }
        let Some(name) = name_of(name, data) else {
            // Proxies in between have words of their own.
            if let Some(error) = refusal::unnamed(data) {
                self.blocks.guard.emit(Event::Error(error), sink);
            }
            return;
        };
        if self.named(&name, data, sink).is_err() {
            if let Some(data) = json::whole_characters(data) {
                return self.event(Some(&name), &data, sink);
            }
            let name = String::from_utf8_lossy(&name);
            self.blocks.guard.fail(format!("a `{name}` event of the upstream cannot be read"), sink);
        }
    }
}

impl State {
    fn named(&mut self, name: &[u8], data: &str, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        match name {
            b"response.output_text.delta" | b"response.refusal.delta" => {
                let piece = self.piece(data)?;
                let block = if name == b"response.refusal.delta" { Block::Refusal } else { Block::Text };
                self.text(&piece, block, piece.delta.as_deref(), sink);
            }
            b"response.function_call_arguments.delta" | b"response.custom_tool_call_input.delta" => {
                let piece = self.piece(data)?;
                self.input(piece.output_index, piece.delta.as_deref(), true, sink);
            }
            b"response.reasoning_summary_text.delta" | b"response.reasoning_text.delta" => {
                let piece = self.piece(data)?;
                let of_summary = name == b"response.reasoning_summary_text.delta";
                self.reasoning(&piece, of_summary, sink);
            }
            // Some send the whole without the pieces.
            b"response.output_text.done" | b"response.refusal.done" => {
                let piece = self.piece(data)?;
                let block = if name == b"response.refusal.done" { Block::Refusal } else { Block::Text };
                if !self.is_fed(&piece) {
                    self.text(&piece, block, piece.text.as_deref().or(piece.refusal.as_deref()), sink);
                }
            }
            b"response.function_call_arguments.done" | b"response.custom_tool_call_input.done" => {
                let piece = self.piece(data)?;
                let input = piece.arguments.as_deref().or(piece.input.as_deref());
                self.input(piece.output_index, input, false, sink);
            }
            b"response.content_part.added" => {
                let piece = self.piece(data)?;
                if let Some(part) = &piece.part {
                    let is_refusal = part.kind.as_deref() == Some("refusal");
                    let block = if is_refusal { Block::Refusal } else { Block::Text };
                    self.part(piece.output_index, piece.content_index.unwrap_or(0), block, sink);
                    let first = part.text.as_deref().or(part.refusal.as_deref());
                    self.text(&piece, Block::Text, first, sink);
                }
            }
            b"response.content_part.done" => {
                let piece = self.piece(data)?;
                if let Some(opened) = self.opened(piece.output_index, piece.content_index.unwrap_or(0)) {
                    let key = opened.key;
                    self.blocks.close(key, sink);
                }
            }
            b"response.output_text.annotation.added" => {
                let piece = self.piece(data)?;
                if let (Some(opened), Some(annotation)) =
                    (self.opened(piece.output_index, piece.content_index.unwrap_or(0)), piece.annotation)
                {
                    let key = opened.key;
                    self.blocks.feed(
                        key,
                        Delta::Citation(Extra::new(OWN, "annotations", annotation, Weight::Silent)),
                        sink,
                    );
                }
            }
            b"response.output_item.added" => {
                let OfItem { output_index, item } = serde_json::from_str(data)?;
                let head: Head<'_> = serde_json::from_str(item.get())?;
                self.begin(&Response::default(), sink);
                self.open(output_index.unwrap_or(self.next), head, sink);
            }
            b"response.output_item.done" => {
                let OfItem { output_index, item } = serde_json::from_str(data)?;
                self.begin(&Response::default(), sink);
                self.whole(output_index.unwrap_or_else(|| self.newest()), item, sink)?;
            }
            b"response.created" | b"response.queued" | b"response.in_progress" => {
                let Lifecycle { response } = serde_json::from_str(data)?;
                self.begin(&response.unwrap_or_default(), sink);
                if name == b"response.in_progress" && std::mem::replace(&mut self.progress, true) {
                    self.blocks.guard.emit(Event::Ping, sink);
                }
            }
            b"response.completed" | b"response.incomplete" | b"response.failed" | b"response.cancelled" => {
                let Lifecycle { response } = serde_json::from_str(data)?;
                let mut response = response.unwrap_or_default();
                // The name says it where the object does not.
                let status = name.strip_prefix(b"response.").and_then(|status| std::str::from_utf8(status).ok());
                response.status = status.map(|status| Str(Cow::Owned(status.to_owned())));
                self.finish(response, sink)?;
            }
            b"error" => self.blocks.guard.emit(Event::Error(refusal::within(data)), sink),
            b"keepalive" => self.blocks.guard.emit(Event::Ping, sink),
            // What is told beside the items is in them once more when they are whole.
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, response: &Response<'_>, sink: &mut Sink<'_>) {
        if !std::mem::replace(&mut self.begun, true) {
            let text = |text: &Option<Str<'_>>| Cow::Owned(text.as_deref().unwrap_or_default().to_owned());
            let (id, model) = (text(&response.id), text(&response.model));
            self.blocks.guard.emit(Event::Start(Start { id, model, usage: None }), sink);
        }
    }

    /// An item begins.
    fn open(&mut self, index: u64, head: Head<'_>, sink: &mut Sink<'_>) {
        if self.items.iter().any(|item| item.index == index) {
            return self.blocks.guard.fail("the upstream begins an item twice", sink);
        }
        if self.items.len() >= ITEMS {
            return self.blocks.guard.fail("the upstream's answer has too many items at once", sink);
        }
        self.said = true;
        self.next = self.next.max(index.saturating_add(1));
        let kind = match head.kind.as_deref() {
            Some("message") => Kind::Message,
            Some("reasoning") => Kind::Reasoning,
            Some("function_call" | "custom_tool_call") => Kind::Call,
            _ => Kind::Other,
        };
        self.items.push(Item { index, kind, blocks: Vec::new(), is_hidden: false, piece: None });
        match kind {
            Kind::Reasoning => {
                // Thinking that is hidden altogether comes whole from the beginning.
                let block = match sealed::open(head.id.map(|Str(id)| id), head.encrypted_content.map(|Str(text)| text))
                {
                    (Some(opaque), true) => Block::Redacted(opaque),
                    _ => Block::Thinking,
                };
                self.block(index, 0, block, sink);
            }
            Kind::Call => {
                self.seen.calls = true;
                let custom = head.kind.as_deref() == Some("custom_tool_call");
                let name = head.name.unwrap_or_default().0;
                let name = if name.is_empty() { name } else { names::join(head.namespace.as_deref(), name) };
                let id = head.call_id.filter(|id| !id.is_empty()).or(head.id).unwrap_or_default().0;
                self.block(index, 0, Block::Call { id, name, custom }, sink);
            }
            Kind::Message | Kind::Other => {}
        }
    }

    /// A block of an open item begins.
    fn block(&mut self, index: u64, part: u64, block: Block<'_>, sink: &mut Sink<'_>) {
        let Some(item) = self.items.iter_mut().find(|item| item.index == index) else { return };
        item.is_hidden |= matches!(block, Block::Redacted(_));
        self.seen.refused |= block == Block::Refusal;
        item.blocks.push(Opened { part, key: self.blocks.open(block, sink), fed: false, input: JsonEnd::default() });
    }

    /// A part of a message begins, if it has not.
    fn part(&mut self, index: u64, part: u64, block: Block<'_>, sink: &mut Sink<'_>) {
        let is_message = |item: &&Item| item.index == index && item.kind == Kind::Message;
        let Some(item) = self.items.iter().find(is_message) else { return };
        if item.blocks.len() >= ITEMS {
            return self.blocks.guard.fail("the upstream's answer has too many parts at once", sink);
        }
        if !item.blocks.iter().any(|opened| opened.part == part) {
            self.block(index, part, block, sink);
        }
    }

    /// A piece of an item. llama.cpp does not say of which: its items come one after the other, so it is the newest.
    fn piece<'a>(&self, data: &'a str) -> serde_json::Result<Piece<'a>> {
        let mut piece: Piece<'a> = serde_json::from_str(data)?;
        if piece.output_index == UNSAID {
            piece.output_index = self.newest();
        }
        Ok(piece)
    }

    /// The number of the item that began last and is open; of the next one, where none is.
    fn newest(&self) -> u64 {
        self.items.iter().map(|item| item.index).max().unwrap_or(self.next)
    }

    fn opened(&mut self, index: u64, part: u64) -> Option<&mut Opened> {
        let item = self.items.iter_mut().find(|item| item.index == index)?;
        item.blocks.iter_mut().find(|opened| opened.part == part)
    }

    fn is_fed(&mut self, piece: &Piece<'_>) -> bool {
        self.opened(piece.output_index, piece.content_index.unwrap_or(0)).is_some_and(|opened| opened.fed)
    }

    fn text(&mut self, piece: &Piece<'_>, block: Block<'_>, text: Option<&str>, sink: &mut Sink<'_>) {
        let (index, part) = (piece.output_index, piece.content_index.unwrap_or(0));
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if index == self.next {
            // Some say nothing of a message before its text.
            self.begin(&Response::default(), sink);
            self.open(index, Head { kind: Some(Str("message".into())), ..Head::default() }, sink);
        }
        self.part(index, part, block, sink);
        if let Some(opened) = self.opened(index, part) {
            opened.fed = true;
            let key = opened.key;
            self.blocks.feed(key, Delta::Text(text.into()), sink);
        }
    }

    /// Input of a call: a piece of it, or all of it where there were no pieces.
    fn input(&mut self, index: u64, input: Option<&str>, is_piece: bool, sink: &mut Sink<'_>) {
        let Some(input) = input.filter(|input| !input.is_empty()) else { return };
        if let Some(opened) = self.opened(index, 0)
            && (is_piece || !opened.fed)
        {
            opened.fed = true;
            opened.input.feed(input);
            let key = opened.key;
            self.blocks.feed(key, Delta::Input(input.into()), sink);
        }
    }

    fn reasoning(&mut self, piece: &Piece<'_>, of_summary: bool, sink: &mut Sink<'_>) {
        let Some(text) = piece.delta.as_deref().filter(|text| !text.is_empty()) else { return };
        let is_reasoning = |item: &&mut Item| item.index == piece.output_index && item.kind == Kind::Reasoning;
        let Some(item) = self.items.iter_mut().find(is_reasoning) else { return };
        let now = (of_summary, piece.content_index.unwrap_or(0));
        // Where there is a summary as well as the thought itself, the first is told.
        if item.piece.is_some_and(|(before, _)| before != of_summary) {
            return;
        }
        let before = item.piece.replace(now);
        let Some(opened) = item.blocks.first_mut() else { return };
        opened.fed = true;
        let key = opened.key;
        if before.is_some_and(|before| before != now) {
            self.blocks.feed(key, Delta::Text("\n\n".into()), sink);
        }
        self.blocks.feed(key, Delta::Text(text.into()), sink);
    }

    /// An item is whole: what has not been told of it is told now.
    fn whole(&mut self, index: u64, raw: &RawValue, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        let head: Head<'_> = serde_json::from_str(raw.get())?;
        let Ok(turn) = item::read(raw, place(0)) else {
            if let Some(text) = json::whole_characters(raw.get()) {
                return self.whole(index, &RawValue::from_string(text)?, sink);
            }
            self.blocks.guard.fail("an item of the upstream's answer cannot be read", sink);
            return Ok(());
        };
        let is_cut = head.is_cut();
        if !self.items.iter().any(|item| item.index == index) {
            self.open(index, head, sink);
        }
        for (n, part) in turn.parts.into_iter().enumerate() {
            self.seen.part(&part.content, is_cut);
            self.rest(index, n as u64, part, sink);
        }
        if let Some(at) = self.items.iter().position(|item| item.index == index) {
            for opened in self.items.swap_remove(at).blocks {
                self.blocks.close(opened.key, sink);
            }
        }
        Ok(())
    }

    /// What has not been told of a part of an item.
    fn rest(&mut self, index: u64, part: u64, whole: Part<'_>, sink: &mut Sink<'_>) {
        let is_fed = self.opened(index, part).is_some_and(|opened| opened.fed);
        match whole.content {
            Content::Text(Text { text, citations }) if !is_fed => {
                self.part(index, part, Block::Text, sink);
                let Some(key) = self.feeds(index, part) else { return };
                if !text.is_empty() {
                    self.blocks.feed(key, Delta::Text(text), sink);
                }
                for citation in citations {
                    self.blocks.feed(key, Delta::Citation(citation), sink);
                }
            }
            Content::Refusal(text) if !is_fed => {
                self.part(index, part, Block::Refusal, sink);
                if let (Some(key), false) = (self.feeds(index, part), text.is_empty()) {
                    self.blocks.feed(key, Delta::Text(text), sink);
                }
            }
            Content::Thinking(_) if self.items.iter().any(|item| item.index == index && item.is_hidden) => {}
            Content::Thinking(thinking) => {
                let Some(key) = self.feeds(index, 0) else { return };
                if !is_fed && !thinking.text.is_empty() {
                    self.blocks.feed(key, Delta::Text(thinking.text), sink);
                }
                if let Some(opaque) = thinking.opaque {
                    self.blocks.feed(key, Delta::Opaque(opaque), sink);
                }
            }
            Content::Call(call) => {
                let input = match &call.input {
                    Input::Json(json) => json.as_str(),
                    Input::Text(text) | Input::Cut(text) => text,
                };
                // Nothing at all stands for an empty object.
                if input != "{}" {
                    self.input(index, Some(input), false, sink);
                }
                // A piece of it was lost: what was told is not what the model said.
                let is_whole = self.opened(index, 0).is_none_or(|opened| !opened.fed || opened.input.is_whole());
                self.seen.broken |= matches!(call.input, Input::Json(_)) && !is_whole;
            }
            Content::Extra(extra) => {
                self.block(index, 0, Block::Extra(extra), sink);
            }
            _ => {}
        }
    }

    /// Notes that the rest of a block follows.
    fn feeds(&mut self, index: u64, part: u64) -> Option<u64> {
        let opened = self.opened(index, part)?;
        opened.fed = true;
        Some(opened.key)
    }

    fn finish(&mut self, response: Response<'_>, sink: &mut Sink<'_>) -> serde_json::Result<()> {
        let cut = match response.cut() {
            Ok(cut) => cut,
            Err(error) => {
                self.blocks.guard.emit(Event::Error(error), sink);
                return Ok(());
            }
        };
        self.begin(&response, sink);
        if !self.said {
            for (n, raw) in response.output.iter().flatten().enumerate() {
                self.whole(n as u64, raw, sink)?;
            }
        }
        let is_open = self.items.iter().any(|item| item.kind == Kind::Call);
        if (self.seen.broken || is_open) && cut.is_none() {
            self.blocks.guard.emit(Event::Error(within_arguments()), sink);
            return Ok(());
        }
        let usage = response.usage(self.seen.searches);
        self.blocks.finish(sink);
        let reason = cut.unwrap_or_else(|| self.seen.reason());
        self.blocks.guard.emit(Event::Stop(Stop { usage, ..Stop::new(reason) }), sink);
        Ok(())
    }
}

impl Seen {
    /// Why an answer stopped that was not cut.
    fn reason(self) -> StopReason {
        if self.refused && !self.calls { StopReason::Refusal } else { StopReason::of_end(self.calls) }
    }

    fn part(&mut self, content: &Content<'_>, is_cut: bool) {
        match content {
            Content::Call(call) => {
                self.calls = true;
                self.broken |= matches!(call.input, Input::Cut(_)) && !is_cut;
            }
            Content::Refusal(_) => self.refused = true,
            Content::Extra(extra) => self.searches += u64::from(extra.name == "web_search_call"),
            _ => {}
        }
    }
}

impl Response<'_> {
    /// Why the answer was cut short; `None` for one that is whole.
    fn cut(&self) -> Result<Option<StopReason>, ApiError> {
        match self.status.as_deref() {
            Some("completed") | None if self.error.is_none() => Ok(None),
            Some("incomplete") => {
                let reason = self.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
                Ok(Some(if reason == Some("content_filter") { StopReason::Refusal } else { StopReason::MaxTokens }))
            }
            _ => Err(match self.error {
                Some(error) => refusal::within(error.get()),
                None => ApiError::new(ErrorKind::Internal, "the upstream failed and did not say why"),
            }),
        }
    }

    fn usage(&self, searches: u64) -> Option<Box<Usage>> {
        let mut usage = openai_usage::read(self.usage?.get())?;
        usage.service_tier = self.service_tier.as_deref().map(openai::tier);
        let told = || serde_json::from_str::<ToolUsage>(self.tool_usage?.get()).ok()?.web_search?.num_requests;
        usage.web_search = told().unwrap_or(searches);
        Some(Box::new(usage))
    }
}

/// Reads a whole answer.
pub(super) fn whole(body: &[u8]) -> Result<Message<'_>, ApiError> {
    let (_, mut response): (_, Response<'_>) = answer(body)?;
    let cut = response.cut()?;
    let output = response.output.take().ok_or_else(unreadable)?;
    let (mut seen, mut parts) = (Seen::default(), Vec::new());
    for (n, raw) in output.into_iter().enumerate() {
        let turn = item::read(raw, place(n)).map_err(|_| unreadable())?;
        let is_cut = serde_json::from_str::<Head<'_>>(raw.get()).is_ok_and(|head| head.is_cut());
        turn.parts.iter().for_each(|part| seen.part(&part.content, is_cut));
        parts.extend(turn.parts);
    }
    if seen.broken && cut.is_none() {
        return Err(within_arguments());
    }
    let usage = response.usage(seen.searches);
    let stop = Stop { usage, ..Stop::new(cut.unwrap_or_else(|| seen.reason())) };
    let mut message = Message::new(response.id.unwrap_or_default().0, response.model.unwrap_or_default().0, stop);
    message.parts = parts;
    Ok(message)
}
