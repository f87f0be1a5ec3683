//! Reads answers, streamed and whole.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::codec::Sink;
use crate::error::{ApiError, ErrorKind};
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::guard::Guard;
use crate::json::{self, Json, Present, Str, TextOr};
use crate::lanes::Closing;
use crate::loss::Losses;
use crate::message::Message;
use crate::reading::{self, some, unreadable};
use crate::refusal;
use crate::request::{Call, Content, Input, Thinking};
use crate::streaming::{Blocks, Events, Form, ReadEvents};
use crate::unread::answer;
use crate::usage::Usage;
use crate::{openai, openai_usage};

/// Bytes of a call's arguments that may wait for its name.
const PENDING: usize = 1 << 20;
/// Calls in one answer.
const CALLS: usize = 1024;

answer! {
    /// A chunk of a stream, or a whole answer.
    Chunk<'a> {
        id: Id<'a> = "id",
        model: Str<'a> = "model",
        choices: First<'a> = "choices",
        usage: &'a RawValue = "usage",
        service_tier: Str<'a> = "service_tier",
        error: &'a RawValue = "error",
        // What it is and who made it, how long that took, and what was found in the prompt that was let through.
        _ = "object" | "created" | "system_fingerprint" | "provider" | "obfuscation" | "request_id" | "x_groq"
            | "timings" | "time_info" | "prompt_filter_results",
    }
}

answer! {
    Choice<'a> {
        index: u64 = "index",
        delta: Piece<'a> = "delta",
        message: Piece<'a> = "message",
        finish_reason: Str<'a> = "finish_reason",
        error: &'a RawValue = "error",
        // What a filter let through, and what it did not is told by the reason; the reason in another provider's words.
        _ = "content_filter_results" | "content_filter_result" | "content_filter_offsets" | "native_finish_reason",
    }
}

answer! {
    /// What the model says: a piece of it in a chunk, all of it in a whole answer.
    Piece<'a> {
        content: TextOr<'a, ContentPiece<'a>> = "content",
        refusal: Str<'a> = "refusal",
        reasoning_content: Str<'a> = "reasoning_content",
        reasoning: Str<'a> = "reasoning",
        tool_calls: Present<CallPiece<'a>> = "tool_calls",
        function_call: FunctionPiece<'a> = "function_call",
        // `prefix`: whether it goes on from what the request ends with (Mistral), which the client knows.
        _ = "role" | "prefix",
    }
}

impl<'a> Piece<'a> {
    /// The text that it says, where it says nothing else and the text stands in the chunk as it is.
    fn only_text(&self) -> Option<(Kind, &'a str)> {
        // What else is in it has been named, and is the same where the form is.
        let Self {
            content,
            refusal: None,
            reasoning_content,
            reasoning,
            tool_calls: None,
            function_call: None,
            unread: _,
        } = self
        else {
            return None;
        };
        let (kind, text) = match (content, reasoning_content, reasoning) {
            (Some(TextOr::Text(text)), None, None) => (Kind::Text, text),
            (None, Some(Str(text)), None) | (None, None, Some(Str(text))) => (Kind::Thinking, text),
            _ => return None,
        };
        if let Cow::Borrowed(text) = text { Some((kind, text)) } else { None }
    }
}

answer! {
    /// A part of a content that is a list (Mistral): text, or a list of what was thought.
    ContentPiece<'a> {
        text: Str<'a> = "text",
        thinking: TextOr<'a, ContentPiece<'a>> = "thinking",
        _ = "type" | "closed",
    }
}

impl Chunk<'_> {
    /// Names what is in it and not read.
    fn name(&self, lost: &mut Losses) {
        self.unread.name(lost, &[]);
        let Some(First { first, others }) = &self.choices else { return };
        if *others {
            lost.unsaid(&[], "choices", || "there is one answer in every other protocol: the first".into());
        }
        let Some(choice) = first else { return };
        choice.unread.name(lost, &[CHOICES]);
        for (name, piece) in [("delta", &choice.delta), ("message", &choice.message)] {
            if let Some(piece) = piece {
                piece.name(name, lost);
            }
        }
    }
}

/// What a choice is called in a path.
const CHOICES: &str = "choices[]";

impl Piece<'_> {
    fn name(&self, as_what: &str, lost: &mut Losses) {
        self.unread.name(lost, &[CHOICES, as_what]);
        if let Some(TextOr::List(pieces)) = &self.content {
            pieces.iter().for_each(|piece| piece.name(as_what, lost));
        }
        if let Some(function) = &self.function_call {
            function.unread.name(lost, &[CHOICES, as_what, "function_call"]);
        }
        for call in self.tool_calls.iter().flat_map(|Present(calls)| calls) {
            call.unread.name(lost, &[CHOICES, as_what, "tool_calls[]"]);
            for (name, function) in [("function", &call.function), ("custom", &call.custom)] {
                if let Some(function) = function {
                    function.unread.name(lost, &[CHOICES, as_what, "tool_calls[]", name]);
                }
            }
        }
    }
}

impl ContentPiece<'_> {
    fn name(&self, as_what: &str, lost: &mut Losses) {
        self.unread.name(lost, &[CHOICES, as_what, "content[]"]);
        if let Some(TextOr::List(pieces)) = &self.thinking {
            pieces.iter().for_each(|piece| piece.name(as_what, lost));
        }
    }
}

/// What a content says, in order.
fn each_text<'a>(content: TextOr<'a, ContentPiece<'a>>, kind: Kind, each: &mut dyn FnMut(Kind, Cow<'a, str>)) {
    match content {
        TextOr::Text(text) => each(kind, text),
        TextOr::List(pieces) => {
            for ContentPiece { text, thinking, .. } in pieces {
                if let Some(thinking) = thinking {
                    each_text(thinking, Kind::Thinking, each);
                }
                if let Some(Str(text)) = text {
                    each(kind, text);
                }
            }
        }
    }
}

answer! {
    CallPiece<'a> {
        index: u64 = "index",
        id: Id<'a> = "id",
        function: FunctionPiece<'a> = "function",
        custom: FunctionPiece<'a> = "custom",
        _ = "type",
    }
}

answer! {
    FunctionPiece<'a> {
        name: Str<'a> = "name",
        arguments: Arguments<'a> = "arguments" | "input",
        _ = "",
    }
}

/// Arguments, or a piece of them: a string, by the protocol; some servers send the object itself, or a list where it is
/// empty, and some models write another value.
#[derive(Debug, Default)]
struct Arguments<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ArgumentsVisitor;
        impl<'de> Visitor<'de> for ArgumentsVisitor {
            type Value = Arguments<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("arguments")
            }
            json::texts!('de, Arguments);
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Arguments<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<Str<'de>, &'de RawValue>()? {
                    members.push(member);
                }
                let object = Json::object(|o| members.iter().for_each(|(key, value)| _ = o.raw(key, value.get())));
                Ok(Arguments(Cow::Owned(object.as_str().to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Arguments<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element::<&'de RawValue>()? {
                    elements.push(element.get());
                }
                let is_empty = elements.is_empty();
                Ok(Arguments(if is_empty { "".into() } else { format!("[{}]", elements.join(",")).into() }))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Arguments<'de>, E> {
                Ok(Arguments(n.to_string().into()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Arguments<'de>, E> {
                Ok(Arguments(n.to_string().into()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Arguments<'de>, E> {
                Ok(Arguments(n.to_string().into()))
            }
            fn visit_bool<E>(self, is_true: bool) -> Result<Arguments<'de>, E> {
                Ok(Arguments(is_true.to_string().into()))
            }
        }
        deserializer.deserialize_any(ArgumentsVisitor)
    }
}

/// An id: a string, by the protocol; some servers count.
#[derive(Debug, Default)]
struct Id<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;
        impl<'de> Visitor<'de> for IdVisitor {
            type Value = Id<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id")
            }
            json::texts!('de, Id);
            fn visit_u64<E: Error>(self, id: u64) -> Result<Self::Value, E> {
                Ok(Id(Cow::Owned(id.to_string())))
            }
        }
        deserializer.deserialize_any(IdVisitor)
    }
}

/// The first of the choices, without memory for a list of them.
#[derive(Debug, Default)]
struct First<'a> {
    first: Option<Choice<'a>>,
    /// Whether there are others.
    others: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FirstVisitor;
        impl<'de> Visitor<'de> for FirstVisitor {
            type Value = First<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First<'de>, A::Error> {
                let mut all = First::default();
                while let Some(choice) = list.next_element::<Option<Choice<'de>>>()? {
                    match choice {
                        Some(choice) if choice.index.unwrap_or(0) == 0 && all.first.is_none() => {
                            all.first = Some(choice);
                        }
                        Some(_) => all.others = true,
                        None => {}
                    }
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(FirstVisitor)
    }
}

/// Reads one stream.
pub(super) fn stream() -> Events<State> {
    Events::new(State {
        blocks: Blocks::new(Closing::Early),
        begun: false,
        last: None,
        calls: Vec::new(),
        refused: false,
        finish: None,
        usage: None,
        tier: None,
        form: Form::default(),
        lost: Losses::default(),
    })
}

#[derive(Debug)]
pub(super) struct State {
    blocks: Blocks,
    begun: bool,
    /// The block that began last.
    last: Option<(Kind, u64)>,
    calls: Vec<Called>,
    refused: bool,
    finish: Option<Finish>,
    usage: Option<Usage>,
    tier: Option<Box<str>>,
    form: Form<Kind>,
    lost: Losses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
    Thinking,
    Call,
}

/// A call as far as it is known.
#[derive(Debug, Default)]
struct Called {
    index: Option<u64>,
    id: String,
    name: String,
    custom: bool,
    /// Its block, once id and name are known.
    key: Option<u64>,
    pending: String,
}

impl Called {
    /// Whether what waits is the whole input of a function.
    fn is_whole(&self) -> bool {
        // Looked at from its end first: it is asked with each piece, and most of them end nothing.
        let ends = self.pending.trim_ascii_end().ends_with('}');
        ends && !self.custom && serde_json::from_str::<IgnoredAny>(&self.pending).is_ok()
    }
}

/// Why the model stopped, in the protocol's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    Stop,
    Calls,
    Length,
    Filter,
    /// The server gave up.
    Failed,
}

impl Finish {
    fn of(word: &str) -> Self {
        match word {
            "tool_calls" | "function_call" => Self::Calls,
            "length" => Self::Length,
            "content_filter" => Self::Filter,
            "insufficient_system_resource" | "error" => Self::Failed,
            _ => Self::Stop,
        }
    }

    /// What it means for an answer with these contents.
    fn reason(self, has_calls: bool, refused: bool) -> Option<StopReason> {
        Some(match self {
            Self::Failed => return None,
            Self::Length => StopReason::MaxTokens,
            Self::Filter => StopReason::Refusal,
            Self::Stop if refused && !has_calls => StopReason::Refusal,
            Self::Stop | Self::Calls => StopReason::of_end(has_calls),
        })
    }
}

fn gave_up() -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "the upstream gave up before its answer was whole")
}

impl ReadEvents for State {
    const LONGEST: usize = 16;

    fn guard(&mut self) -> &mut Guard {
        &mut self.blocks.guard
    }

    fn lost(&self) -> &Losses {
        &self.lost
    }

    fn event(&mut self, _: Option<&[u8]>, data: &str, sink: &mut Sink<'_>) {
        match data.trim_ascii() {
            "" => {}
            "[DONE]" if self.begun => self.finish(sink),
            "[DONE]" => self.blocks.guard.fail("the upstream's answer is empty", sink),
            data => match self.form.text(data) {
                Some((kind, text)) => self.text(kind, text.into(), sink),
                None => match serde_json::from_str(data) {
                    Ok(chunk) => self.chunk(data, chunk, sink),
                    Err(_) => match json::whole_characters(data) {
                        Some(data) => self.event(None, &data, sink),
                        None => self.blocks.guard.fail("an event of the upstream cannot be read", sink),
                    },
                },
            },
        }
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        // Not every server says `[DONE]`.
        if self.finish.is_some() { self.finish(sink) } else { self.blocks.guard.truncated(sink) }
    }
}

impl State {
    fn chunk(&mut self, data: &str, chunk: Chunk<'_>, sink: &mut Sink<'_>) {
        if chunk.error.is_some() {
            return self.blocks.guard.emit(Event::Error(refusal::within(data)), sink);
        }
        chunk.name(&mut self.lost);
        if let Some(raw) = chunk.usage {
            // The last word counts, also where it cannot be read: then the usage is not known.
            self.usage = openai_usage::read(raw.get());
        }
        if let Some(tier) = chunk.service_tier
            && self.tier.as_deref() != Some(&*tier)
        {
            self.tier = Some((*tier).into());
        }
        // Some begin with a chunk that is about the prompt alone, without name and id.
        let Some(choice) = chunk.choices.and_then(|choices| choices.first) else { return };
        if !self.begun {
            self.begun = true;
            let (id, model) = (chunk.id.unwrap_or_default().0, chunk.model.unwrap_or_default().0);
            self.blocks.guard.emit(Event::Start(Start { id, model, usage: None }), sink);
        }
        if let Some(error) = choice.error {
            return self.blocks.guard.emit(Event::Error(refusal::within(error.get())), sink);
        }
        // Some end with a message in place of a delta, which says everything once more.
        let message = choice.message.filter(|_| self.last.is_none() && self.calls.is_empty());
        let piece = choice.delta.or(message).unwrap_or_default();
        if let (Some((kind, text)), None, None) = (piece.only_text(), chunk.usage, &choice.finish_reason) {
            self.form.keep(data, text, kind);
        }
        if let Some(text) = piece.reasoning_content.or(piece.reasoning) {
            self.text(Kind::Thinking, text.0, sink);
        }
        if let Some(content) = piece.content {
            each_text(content, Kind::Text, &mut |kind, text| self.text(kind, text, sink));
        }
        if let Some(text) = piece.refusal {
            self.refused |= !text.is_empty();
            self.text(Kind::Refusal, text.0, sink);
        }
        if let Some(function) = piece.function_call {
            let call = CallPiece { index: Some(u64::MAX), function: Some(function), ..CallPiece::default() };
            self.call(call, sink);
        }
        for call in piece.tool_calls.unwrap_or_default().0 {
            self.call(call, sink);
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.finish = Some(Finish::of(&reason));
        }
    }

    fn text(&mut self, kind: Kind, text: Cow<'_, str>, sink: &mut Sink<'_>) {
        if text.is_empty() {
            return;
        }
        let key = match self.last {
            Some((last, key)) if last == kind => key,
            _ => {
                let block = match kind {
                    Kind::Refusal => Block::Refusal,
                    Kind::Thinking => Block::Thinking,
                    Kind::Text | Kind::Call => Block::Text,
                };
                self.open(kind, block, sink)
            }
        };
        self.blocks.feed(key, Delta::Text(text), sink);
    }

    fn open(&mut self, kind: Kind, block: Block<'_>, sink: &mut Sink<'_>) -> u64 {
        let key = self.blocks.open(block, sink);
        self.last = Some((kind, key));
        key
    }

    fn call(&mut self, piece: CallPiece<'_>, sink: &mut Sink<'_>) {
        let Id(id) = piece.id.unwrap_or_default();
        let id = &*id;
        let known = match piece.index {
            Some(index) => self.calls.iter().rposition(|call| call.index == Some(index)),
            None if id.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.iter().rposition(|call| call.id == id),
        };
        let is_custom = piece.custom.is_some();
        let function = piece.function.or(piece.custom);
        let (name, arguments) = function.map_or((None, None), |function| (function.name, function.arguments));
        let (name, Arguments(arguments)) = (name.unwrap_or_default(), arguments.unwrap_or_default());
        // Some servers give every call the same index, or none: a new id is a new call. Where there are no ids either, a name
        // behind whole arguments begins one.
        let is_new = |at: &usize| {
            let known = &self.calls[*at];
            match (&*known.id, id) {
                ("", "") => (!name.is_empty() && (*name != *known.name || !arguments.is_empty())) && known.is_whole(),
                (before, id) => !before.is_empty() && !id.is_empty() && before != id,
            }
        };
        let at = match known.filter(|at| !is_new(at)) {
            Some(at) => at,
            None if self.calls.len() >= CALLS => {
                return self.blocks.guard.fail("the upstream makes too many calls", sink);
            }
            None => {
                self.calls.push(Called { index: piece.index, ..Called::default() });
                self.calls.len() - 1
            }
        };
        let call = &mut self.calls[at];
        call.custom |= is_custom;
        if call.id.is_empty() {
            call.id.push_str(id);
        }
        if call.name.is_empty() {
            call.name.push_str(&name);
        }
        if call.key.is_none() {
            if call.pending.len() + arguments.len() > PENDING {
                return self.blocks.guard.fail("the upstream names a call too late", sink);
            }
            call.pending.push_str(&arguments);
            if !call.id.is_empty() && !call.name.is_empty() {
                self.begin(at, sink);
            }
        } else if let (Some(key), false) = (call.key, arguments.is_empty()) {
            self.blocks.feed(key, Delta::Input(arguments), sink);
        }
    }

    /// Opens the block of a call whose id and name are known.
    fn begin(&mut self, at: usize, sink: &mut Sink<'_>) {
        let call = &mut self.calls[at];
        let pending = std::mem::take(&mut call.pending);
        let (id, name) = (Cow::Owned(call.id.clone()), Cow::Owned(call.name.clone()));
        let block = Block::Call { id, name, custom: call.custom };
        let key = self.open(Kind::Call, block, sink);
        self.calls[at].key = Some(key);
        if !pending.is_empty() {
            self.blocks.feed(key, Delta::Input(pending.into()), sink);
        }
    }

    fn finish(&mut self, sink: &mut Sink<'_>) {
        let finish = self.finish.unwrap_or(Finish::Stop);
        let (has_calls, refused) = (!self.calls.is_empty(), self.refused);
        let Some(reason) = finish.reason(has_calls, refused) else {
            return self.blocks.guard.emit(Event::Error(gave_up()), sink);
        };
        for at in 0..self.calls.len() {
            let call = &mut self.calls[at];
            if call.key.is_some() {
                continue;
            }
            if call.name.is_empty() {
                return self.blocks.guard.fail("the upstream calls a tool without a name", sink);
            }
            // Servers from before calls had ids give none.
            self.begin(at, sink);
        }
        // A filter cuts where it finds something.
        if !matches!(finish, Finish::Length | Finish::Filter) && !self.blocks.is_whole() {
            return self.blocks.guard.fail("the upstream's answer ends within the arguments of a call", sink);
        }
        self.blocks.finish(sink);
        let usage = self.usage.take().map(|mut usage| {
            usage.service_tier = self.tier.as_deref().map(openai::tier);
            Box::new(usage)
        });
        self.blocks.guard.emit(Event::Stop(Stop { usage, ..Stop::new(reason) }), sink);
    }
}

/// Reads a whole answer.
pub(super) fn whole(body: &[u8]) -> Result<Message<'_>, ApiError> {
    let (text, chunk): (_, Chunk<'_>) = reading::answer(body)?;
    if chunk.error.is_some() {
        return Err(refusal::within(text));
    }
    let mut lost = Losses::default();
    chunk.name(&mut lost);
    let choice = chunk.choices.and_then(|choices| choices.first).ok_or_else(unreadable)?;
    if let Some(error) = choice.error {
        return Err(refusal::within(error.get()));
    }
    let finish = Finish::of(choice.finish_reason.as_deref().unwrap_or("stop"));
    let said = choice.message.or(choice.delta).unwrap_or_default();
    let calls = said.tool_calls.unwrap_or_default().0;
    let (has_calls, refused) = (
        !calls.is_empty() || said.function_call.is_some(),
        said.refusal.as_deref().is_some_and(|text| !text.is_empty()),
    );
    let mut stop = Stop::new(finish.reason(has_calls, refused).ok_or_else(gave_up)?);
    if let Some(mut usage) = chunk.usage.and_then(|raw| openai_usage::read(raw.get())) {
        usage.service_tier = chunk.service_tier.as_deref().map(openai::tier);
        stop.usage = Some(Box::new(usage));
    }
    let mut message = Message::new(chunk.id.unwrap_or_default().0, chunk.model.unwrap_or_default().0, stop);
    message.lost = lost;
    if let Some(text) = some(said.reasoning_content.or(said.reasoning)) {
        message.push(Content::Thinking(Thinking { text, opaque: None, redacted: false }));
    }
    if let Some(content) = said.content {
        each_text(content, Kind::Text, &mut |kind, text| match kind {
            _ if text.is_empty() => {}
            Kind::Thinking => message.push(Content::Thinking(Thinking { text, opaque: None, redacted: false })),
            _ => message.push(text),
        });
    }
    if let Some(text) = some(said.refusal) {
        message.push(Content::Refusal(text));
    }
    let legacy = said.function_call.map(|function| CallPiece { function: Some(function), ..CallPiece::default() });
    for call in calls.into_iter().chain(legacy) {
        message.push(Content::Call(called(call, finish).ok_or_else(unreadable)?));
    }
    Ok(message)
}

fn called(call: CallPiece<'_>, finish: Finish) -> Option<Call<'_>> {
    let custom = call.custom.is_some();
    let function = call.function.or(call.custom)?;
    let name = some(function.name)?;
    let Arguments(arguments) = function.arguments.unwrap_or_default();
    let input = if custom { Input::Text(arguments) } else { openai::input(arguments) };
    if matches!(input, Input::Cut(_)) && finish != Finish::Length {
        return None;
    }
    Some(Call { id: call.id.unwrap_or_default().0, name, input })
}
