//! Reads answers, streamed and whole.

use serde_json::value::RawValue;

use super::lines::Lines;
use crate::codec::{DecodeStream, Sink};
use crate::error::ApiError;
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::guard::Guard;
use crate::json::{Json, Present, Str};
use crate::loss::Losses;
use crate::message::Message;
use crate::openai;
use crate::reading::{self, some, unreadable};
use crate::refusal;
use crate::request::{Call, Content, Input, Thinking};
use crate::unread::answer;
use crate::usage::{Count, Report, Usage};

/// The longest line that is kept.
const LINE: usize = 16 << 20;

answer! {
    /// A line of a stream, or a whole answer.
    Line<'a> {
        model: Str<'a> = "model",
        message: Said<'a> = "message",
        done: bool = "done",
        done_reason: Str<'a> = "done_reason",
        prompt_eval_count: &'a RawValue = "prompt_eval_count",
        eval_count: &'a RawValue = "eval_count",
        error: &'a RawValue = "error",
        // When it was made and how long that took, and where, for a model that another server runs.
        _ = "created_at" | "total_duration" | "load_duration" | "prompt_eval_duration" | "eval_duration"
            | "remote_model" | "remote_host",
    }
}

answer! {
    /// What the model says: a piece of it in a line, all of it in a whole answer.
    Said<'a> {
        content: Str<'a> = "content",
        thinking: Str<'a> = "thinking",
        tool_calls: Present<ToolCall<'a>> = "tool_calls",
        _ = "role",
    }
}

answer! {
    ToolCall<'a> {
        id: Str<'a> = "id",
        function: Function<'a> = "function",
        _ = "type",
    }
}

answer! {
    Function<'a> {
        name: Str<'a> = "name",
        arguments: Json<'a> = "arguments",
        _ = "index",
    }
}

impl<'a> Line<'a> {
    fn read(line: &'a [u8]) -> Option<Self> {
        serde_json::from_str(std::str::from_utf8(line).ok()?).ok()
    }

    /// Names what is in it and not read.
    fn name(&self, lost: &mut Losses) {
        self.unread.name(lost, &[]);
        let Some(said) = &self.message else { return };
        said.unread.name(lost, &["message"]);
        for call in said.tool_calls.iter().flat_map(|Present(calls)| calls) {
            call.unread.name(lost, &["message", "tool_calls[]"]);
            if let Some(function) = &call.function {
                function.unread.name(lost, &["message", "tool_calls[]", "function"]);
            }
        }
    }

    /// Why the model stopped.
    fn reason(&self, has_calls: bool) -> StopReason {
        match self.done_reason.as_deref() {
            Some("length") => StopReason::MaxTokens,
            // `stop`, and what is said of a model that was only loaded or unloaded.
            _ => StopReason::of_end(has_calls),
        }
    }

    /// The counts, where they can be read; a count of zero is left out by the server.
    fn usage(&self) -> Option<Box<Usage>> {
        let count = |raw: &RawValue| serde_json::from_str(raw.get()).ok().map(|Count(n)| n);
        let input = count(self.prompt_eval_count?)?;
        let output = self.eval_count.map_or(Some(0), count)?;
        let mut usage = Usage::default();
        usage.set(Report { input: Some(input), output: Some(output), ..Report::default() });
        Some(Box::new(usage))
    }
}

impl<'a> ToolCall<'a> {
    /// The call; `None` where it has no name. Arguments are an object, by the protocol; some servers send its text, or an
    /// empty list for none.
    fn called(self) -> Option<Call<'a>> {
        let id = self.id.unwrap_or_default().0;
        let Function { name, arguments, .. } = self.function?;
        let (name, json) = (some(name)?, arguments.filter(|json| !is_empty_list(json)).unwrap_or(Json::EMPTY));
        let within = json.read::<Str<'_>>().ok().map(|Str(text)| openai::input(text.into_owned().into()));
        // A call comes whole: a text that is no JSON is what the model said.
        let input = within.filter(|input| !matches!(input, Input::Cut(_))).unwrap_or(Input::Json(json));
        Some(Call { id, name, input })
    }
}

fn is_empty_list(json: &Json<'_>) -> bool {
    json.as_str().strip_prefix('[').is_some_and(|rest| rest.trim_ascii() == "]")
}

/// Reads one stream.
#[derive(Debug)]
pub(super) struct Decoder {
    lines: Lines,
    state: State,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { lines: Lines::new(LINE), state: State::default() }
    }
}

#[derive(Debug, Default)]
struct State {
    guard: Guard,
    begun: bool,
    open: Option<Kind>,
    has_calls: bool,
    lost: Losses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
}

impl DecodeStream for Decoder {
    fn push(&mut self, piece: &[u8], sink: &mut Sink<'_>) -> Option<usize> {
        if self.state.guard.is_over() {
            return None;
        }
        let state = &mut self.state;
        if self.lines.push(piece, |line| state.line(line, sink)).is_err() {
            self.state.guard.fail("a line of the upstream is longer than 16 MB", sink);
        }
        None
    }

    fn end(&mut self, sink: &mut Sink<'_>) {
        let state = &mut self.state;
        self.lines.end(|line| state.line(line, sink));
        self.state.guard.truncated(sink);
    }

    fn lost(&self) -> &Losses {
        &self.state.lost
    }
}

impl State {
    fn line(&mut self, line: &[u8], sink: &mut Sink<'_>) {
        if self.guard.is_over() {
            return;
        }
        let Some(mut line) = Line::read(line) else {
            return self.guard.fail("a line of the upstream cannot be read", sink);
        };
        if let Some(error) = line.error {
            return self.guard.emit(Event::Error(failed(error)), sink);
        }
        line.name(&mut self.lost);
        if !std::mem::replace(&mut self.begun, true) {
            let model = line.model.as_deref().unwrap_or_default();
            self.guard.emit(Event::Start(Start { id: "".into(), model: model.into(), usage: None }), sink);
        }
        let said = line.message.take().unwrap_or_default();
        self.text(Kind::Thinking, said.thinking, sink);
        self.text(Kind::Text, said.content, sink);
        for call in said.tool_calls.unwrap_or_default().0 {
            let Some(call) = call.called() else {
                return self.guard.fail("a call of the upstream cannot be read", sink);
            };
            self.close(sink);
            self.has_calls = true;
            self.guard.emit(Event::Open(Block::Call { id: call.id, name: call.name, custom: false }), sink);
            if let Input::Json(json) = &call.input {
                self.guard.emit(Event::Delta(json.into()), sink);
            }
            self.guard.emit(Event::Close, sink);
        }
        if line.done == Some(true) {
            self.close(sink);
            let reason = line.reason(self.has_calls);
            self.guard.emit(Event::Stop(Stop { usage: line.usage(), ..Stop::new(reason) }), sink);
        }
    }

    fn text(&mut self, kind: Kind, text: Option<Str<'_>>, sink: &mut Sink<'_>) {
        let Some(text) = some(text) else { return };
        if self.open != Some(kind) {
            self.close(sink);
            self.open = Some(kind);
            let block = if kind == Kind::Text { Block::Text } else { Block::Thinking };
            self.guard.emit(Event::Open(block), sink);
        }
        self.guard.emit(Event::Delta(Delta::Text(text)), sink);
    }

    fn close(&mut self, sink: &mut Sink<'_>) {
        if self.open.take().is_some() {
            self.guard.emit(Event::Close, sink);
        }
    }
}

/// What stands as `error`: nearly always a text.
fn failed(error: &RawValue) -> ApiError {
    let wrapped = Json::object(|o| {
        o.raw("error", error.get());
    });
    refusal::within(wrapped.as_str())
}

/// Reads a whole answer.
pub(super) fn whole(body: &[u8]) -> Result<Message<'_>, ApiError> {
    let (_, mut line): (_, Line<'_>) = reading::answer(body)?;
    if let Some(error) = line.error {
        return Err(failed(error));
    }
    let mut lost = Losses::default();
    line.name(&mut lost);
    let said = line.message.take().ok_or_else(unreadable)?;
    let calls = said.tool_calls.unwrap_or_default().0;
    let stop = Stop { usage: line.usage(), ..Stop::new(line.reason(!calls.is_empty())) };
    let mut parts = Vec::new();
    if let Some(text) = some(said.thinking) {
        parts.push(Content::Thinking(Thinking { text, opaque: None, redacted: false }));
    }
    if let Some(text) = some(said.content) {
        parts.push(text.into());
    }
    for call in calls {
        parts.push(Content::Call(call.called().ok_or_else(unreadable)?));
    }
    let mut message = Message::new("".into(), line.model.unwrap_or_default().0, stop);
    message.lost = lost;
    parts.into_iter().for_each(|part| message.push(part));
    Ok(message)
}
