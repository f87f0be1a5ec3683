//! Reads answers, streamed and whole.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;

use super::{OWN, item, names, sealed};
use crate::codec::Sink;
use crate::error::{ApiError, ErrorKind};
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::guard::Guard;
use crate::json::{self, Json, Str};
use crate::lanes::{Closing, JsonEnd};
use crate::loss::{Losses, Place, Weight};
use crate::message::Message;
use crate::opaque::Extra;
use crate::reading::{self, unreadable};
use crate::refusal;
use crate::request::{Content, Input, Part, Text};
use crate::streaming::{Blocks, Events, ReadEvents, name_of};
use crate::unread::answer;
use crate::usage::Usage;
use crate::{openai, openai_usage};

/// Items that may be open at once.
const ITEMS: usize = 1024;

answer! {
    /// An answer: as it begins, as it ends, or whole.
    Response<'a> {
        id: Str<'a> = "id",
        model: Str<'a> = "model",
        status: Str<'a> = "status",
        output: Vec<&'a RawValue> = "output",
        usage: &'a RawValue = "usage",
        service_tier: Str<'a> = "service_tier",
        error: &'a RawValue = "error",
        incomplete_details: Details<'a> = "incomplete_details",
        tool_usage: &'a RawValue = "tool_usage",
        // What it is, when it was made and who pays; the text once more; and how it was asked for, which the client knows.
        _ = "object" | "created_at" | "completed_at" | "billing" | "output_text" | "background" | "conversation"
            | "instructions" | "max_output_tokens" | "max_tool_calls" | "parallel_tool_calls" | "previous_response_id"
            | "prompt" | "prompt_cache_key" | "prompt_cache_retention" | "reasoning" | "safety_identifier" | "store"
            | "temperature" | "text" | "tool_choice" | "tools" | "top_logprobs" | "top_p" | "truncation" | "user"
            | "metadata" | "presence_penalty" | "frequency_penalty" | "content_filters",
    }
}

answer! {
    Details<'a> {
        reason: Str<'a> = "reason",
        _ = "",
    }
}

#[derive(Deserialize)]
struct ToolUsage {
    web_search: Option<Searches>,
}

#[derive(Deserialize)]
struct Searches {
    num_requests: Option<u64>,
}

answer! {
    /// The data of an event about the whole answer.
    Lifecycle<'a> {
        response: Response<'a> = "response",
        _ = "type" | "sequence_number",
    }
}

answer! {
    /// The data of an event about an item.
    OfItem<'a> {
        output_index: u64 = "output_index",
        item: &'a RawValue = "item",
        _ = "type" | "sequence_number",
    }
}

answer! {
    /// An item as it begins, and what is in it beside that when it is whole.
    Head<'a> {
        kind: Str<'a> = "type",
        id: Str<'a> = "id",
        call_id: Str<'a> = "call_id",
        name: Str<'a> = "name",
        namespace: Str<'a> = "namespace",
        status: Str<'a> = "status",
        encrypted_content: Str<'a> = "encrypted_content",
        content: &'a RawValue = "content",
        summary: &'a RawValue = "summary",
        // What is read of a whole item; and who wrote it down and who made the call, which changes nothing.
        _ = "role" | "arguments" | "input" | "phase" | "created_by" | "caller",
    }
}

answer! {
    /// A part of an item: all of it but what is read of it elsewhere.
    Rest<'a> {
        _ = "type" | "text" | "refusal",
    }
}

impl Head<'_> {
    /// Whether the item says of itself that it is not whole: then nobody expects whole arguments.
    fn is_cut(&self) -> bool {
        self.status.as_deref() == Some("incomplete")
    }

    /// Names what is in a whole item and not read. Of a kind that has no neutral form all is carried.
    fn name(&self, lost: &mut Losses) {
        if !matches!(self.kind.as_deref(), Some("message" | "reasoning" | "function_call" | "custom_tool_call") | None)
        {
            return;
        }
        self.unread.name(lost, &[ITEM]);
        for (name, parts) in [("content[]", self.content), ("summary[]", self.summary)] {
            let parts: Option<Vec<Rest<'_>>> = parts.and_then(|raw| serde_json::from_str(raw.get()).ok());
            parts.iter().flatten().for_each(|part| part.unread.name(lost, &[ITEM, name]));
        }
    }
}

/// What an item is called in a path.
const ITEM: &str = "output[]";

answer! {
    /// The data of an event about a piece of an item.
    Piece<'a> {
        /// Some servers do not say it: see [`State::piece`].
        output_index: u64 = "output_index",
        content_index: u64 = "content_index" | "summary_index",
        delta: Str<'a> = "delta",
        text: Str<'a> = "text",
        refusal: Str<'a> = "refusal",
        arguments: Str<'a> = "arguments",
        input: Str<'a> = "input",
        annotation: Json<'a> = "annotation",
        part: ContentPart<'a> = "part",
        // Where it belongs; and what is in the whole item once more.
        _ = "type" | "sequence_number" | "item_id" | "obfuscation" | "logprobs" | "annotation_index"
            | "call_id" | "name" | "namespace",
    }
}

impl Piece<'_> {
    /// The number of its item.
    fn item(&self) -> u64 {
        self.output_index.unwrap_or(u64::MAX)
    }

    /// The number of its part.
    fn part(&self) -> u64 {
        self.content_index.unwrap_or(0)
    }
}

#[derive(Debug, Deserialize)]
struct ContentPart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    text: Option<Str<'a>>,
    refusal: Option<Str<'a>>,
}

/// Whether an event that is not read tells of an item what is in it once more when it is whole.
fn is_once_more(name: &str, data: &str) -> bool {
    #[derive(Deserialize)]
    struct Beside<'a> {
        #[serde(borrow)]
        item_id: Option<&'a RawValue>,
        output_index: Option<&'a RawValue>,
    }
    let is_end = name == "ping" || [".added", ".done"].iter().any(|end| name.ends_with(end));
    let is_beside = |beside: Beside<'_>| beside.item_id.or(beside.output_index).is_some();
    is_end || serde_json::from_str(data).is_ok_and(is_beside)
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
        lost: Losses::default(),
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
    lost: Losses,
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

    fn lost(&self) -> &Losses {
        &self.lost
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
                let piece = self.piece(name, data)?;
                let block = if name == b"response.refusal.delta" { Block::Refusal } else { Block::Text };
                self.text(&piece, block, piece.delta.as_deref(), sink);
            }
            b"response.function_call_arguments.delta" | b"response.custom_tool_call_input.delta" => {
                let piece = self.piece(name, data)?;
                self.input(piece.item(), piece.delta.as_deref(), true, sink);
            }
            b"response.reasoning_summary_text.delta" | b"response.reasoning_text.delta" => {
                let piece = self.piece(name, data)?;
                let of_summary = name == b"response.reasoning_summary_text.delta";
                self.reasoning(&piece, of_summary, sink);
            }
            // Some send the whole without the pieces.
            b"response.output_text.done" | b"response.refusal.done" => {
                let piece = self.piece(name, data)?;
                let block = if name == b"response.refusal.done" { Block::Refusal } else { Block::Text };
                if !self.is_fed(&piece) {
                    self.text(&piece, block, piece.text.as_deref().or(piece.refusal.as_deref()), sink);
                }
            }
            b"response.function_call_arguments.done" | b"response.custom_tool_call_input.done" => {
                let piece = self.piece(name, data)?;
                let input = piece.arguments.as_deref().or(piece.input.as_deref());
                self.input(piece.item(), input, false, sink);
            }
            b"response.content_part.added" => {
                let piece = self.piece(name, data)?;
                if let Some(part) = &piece.part {
                    let is_refusal = part.kind.as_deref() == Some("refusal");
                    let block = if is_refusal { Block::Refusal } else { Block::Text };
                    self.part(piece.item(), piece.part(), block, sink);
                    let first = part.text.as_deref().or(part.refusal.as_deref());
                    self.text(&piece, Block::Text, first, sink);
                }
            }
            b"response.content_part.done" => {
                let piece = self.piece(name, data)?;
                if let Some(opened) = self.opened(piece.item(), piece.part()) {
                    let key = opened.key;
                    self.blocks.close(key, sink);
                }
            }
            b"response.output_text.annotation.added" => {
                let piece = self.piece(name, data)?;
                if let (Some(opened), Some(annotation)) = (self.opened(piece.item(), piece.part()), piece.annotation) {
                    let key = opened.key;
                    self.blocks.feed(
                        key,
                        Delta::Citation(Extra::new(OWN, "annotations", annotation, Weight::Silent)),
                        sink,
                    );
                }
            }
            b"response.output_item.added" => {
                let (output_index, item) = self.of_item("response.output_item.added", data)?;
                let head: Head<'_> = serde_json::from_str(item.get())?;
                self.begin(&Response::default(), sink);
                self.open(output_index.unwrap_or(self.next), head, sink);
            }
            b"response.output_item.done" => {
                let (output_index, item) = self.of_item("response.output_item.done", data)?;
                self.begin(&Response::default(), sink);
                self.whole(output_index.unwrap_or_else(|| self.newest()), item, sink)?;
            }
            b"response.created" | b"response.queued" | b"response.in_progress" => {
                let response = self.response(name, data)?;
                self.begin(&response, sink);
                if name == b"response.in_progress" && std::mem::replace(&mut self.progress, true) {
                    self.blocks.guard.emit(Event::Ping, sink);
                }
            }
            b"response.completed" | b"response.incomplete" | b"response.failed" | b"response.cancelled" => {
                let mut response = self.response(name, data)?;
                // The name says it where the object does not.
                let status = name.strip_prefix(b"response.").and_then(|status| std::str::from_utf8(status).ok());
                response.status = status.map(|status| Str(Cow::Owned(status.to_owned())));
                self.finish(response, sink)?;
            }
            b"error" => self.blocks.guard.emit(Event::Error(refusal::within(data)), sink),
            b"keepalive" => self.blocks.guard.emit(Event::Ping, sink),
            name => {
                let name = String::from_utf8_lossy(name);
                if !is_once_more(&name, data) {
                    self.lost.left_out(&[], &name);
                }
            }
        }
        Ok(())
    }

    /// The number of an item, and the item.
    fn of_item<'a>(&mut self, name: &str, data: &'a str) -> serde_json::Result<(Option<u64>, &'a RawValue)> {
        let OfItem { output_index, item, unread } = serde_json::from_str(data)?;
        unread.name(&mut self.lost, &[name]);
        Ok((output_index, item.ok_or_else(|| Error::missing_field("item"))?))
    }

    /// The answer that an event is about.
    fn response<'a>(&mut self, name: &[u8], data: &'a str) -> serde_json::Result<Response<'a>> {
        let Lifecycle { response, unread } = serde_json::from_str(data)?;
        let response: Response<'_> = response.unwrap_or_default();
        if !unread.is_empty() {
            unread.name(&mut self.lost, &[&String::from_utf8_lossy(name)]);
        }
        response.name(&mut self.lost);
        Ok(response)
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
    fn piece<'a>(&mut self, name: &[u8], data: &'a str) -> serde_json::Result<Piece<'a>> {
        let mut piece: Piece<'a> = serde_json::from_str(data)?;
        if piece.output_index.is_none() {
            piece.output_index = Some(self.newest());
        }
        if !piece.unread.is_empty() {
            piece.unread.name(&mut self.lost, &[&String::from_utf8_lossy(name)]);
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
        self.opened(piece.item(), piece.part()).is_some_and(|opened| opened.fed)
    }

    fn text(&mut self, piece: &Piece<'_>, block: Block<'_>, text: Option<&str>, sink: &mut Sink<'_>) {
        let (index, part) = (piece.item(), piece.part());
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
        let is_reasoning = |item: &&mut Item| item.index == piece.item() && item.kind == Kind::Reasoning;
        let Some(item) = self.items.iter_mut().find(is_reasoning) else { return };
        let now = (of_summary, piece.part());
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
        head.name(&mut self.lost);
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
    /// Names what is in it and not read.
    fn name(&self, lost: &mut Losses) {
        self.unread.name(lost, &[]);
        if let Some(details) = &self.incomplete_details {
            details.unread.name(lost, &["incomplete_details"]);
        }
    }

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
    let (_, mut response): (_, Response<'_>) = reading::answer(body)?;
    let cut = response.cut()?;
    let output = response.output.take().ok_or_else(unreadable)?;
    let (mut seen, mut parts, mut lost) = (Seen::default(), Vec::new(), Losses::default());
    response.name(&mut lost);
    for (n, raw) in output.into_iter().enumerate() {
        let turn = item::read(raw, place(n)).map_err(|_| unreadable())?;
        let head: Option<Head<'_>> = serde_json::from_str(raw.get()).ok();
        if let Some(head) = &head {
            head.name(&mut lost);
        }
        let is_cut = head.is_some_and(|head| head.is_cut());
        turn.parts.iter().for_each(|part| seen.part(&part.content, is_cut));
        parts.extend(turn.parts);
    }
    if seen.broken && cut.is_none() {
        return Err(within_arguments());
    }
    let usage = response.usage(seen.searches);
    let stop = Stop { usage, ..Stop::new(cut.unwrap_or_else(|| seen.reason())) };
    let mut message = Message::new(response.id.unwrap_or_default().0, response.model.unwrap_or_default().0, stop);
    (message.parts, message.lost) = (parts, lost);
    Ok(message)
}
