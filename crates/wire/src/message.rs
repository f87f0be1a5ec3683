//! A whole answer: events folded into one, and one played back as events.

use std::borrow::Cow;

use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::json::{self, Json};
use crate::loss::{Losses, Place};
use crate::opaque::{Extra, Opaque};
use crate::request::{Call, Content, Input, Part, Text, Thinking};

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// The upstream's id of it; empty where it gives none.
    pub id: Cow<'a, str>,
    /// The model that the upstream names.
    pub model: Cow<'a, str>,
    /// What it says: [text](Content::Text), [thinking](Content::Thinking), [calls](Content::Call),
    /// [refusals](Content::Refusal) and [extras](Content::Extra).
    pub parts: Vec<Part<'a>>,
    /// How it ended, and what it used.
    pub stop: Stop<'a>,
    /// What else the upstream's answer held.
    pub lost: Losses,
}

/// The place of a part that is in no request.
const ANSWER: &str = "content";

impl<'a> Message<'a> {
    /// A message of nothing yet.
    pub fn new(id: Cow<'a, str>, model: Cow<'a, str>, stop: Stop<'a>) -> Self {
        Self { id, model, parts: Vec::new(), stop, lost: Losses::default() }
    }

    /// Adds a part.
    pub fn push(&mut self, content: impl Into<Content<'a>>) {
        self.parts.push(Part::new(content, Place::new(ANSWER, self.parts.len())));
    }

    /// Bytes of its text, thinking and inputs, for an estimate of its tokens.
    pub fn text_bytes(&self) -> u64 {
        let bytes = |part: &Part<'_>| match &part.content {
            Content::Text(text) => text.text.len(),
            Content::Refusal(text) => text.len(),
            Content::Thinking(thinking) => thinking.text.len(),
            Content::Call(Call { input: Input::Json(json), .. }) => json.as_str().len(),
            Content::Call(Call { input: Input::Text(text) | Input::Cut(text), .. }) => text.len(),
            _ => 0,
        };
        self.parts.iter().map(|part| bytes(part) as u64).sum()
    }

    /// Plays it back as the events that fold into it.
    pub fn events(&self, mut each: impl FnMut(Event<'_>)) {
        let (id, model) = (Cow::Borrowed(&*self.id), Cow::Borrowed(&*self.model));
        each(Event::Start(Start { id, model, usage: self.stop.usage.clone() }));
        let mut block = |block: Block<'_>, deltas: &mut dyn Iterator<Item = Delta<'_>>| {
            each(Event::Open(block));
            deltas.for_each(|delta| each(Event::Delta(delta)));
            each(Event::Close);
        };
        let piece = |text: &str| (!text.is_empty()).then(|| Cow::<str>::Owned(text.to_owned()));
        for part in &self.parts {
            match &part.content {
                Content::Text(Text { text, citations }) => {
                    let citations = citations.iter().map(|citation| Delta::Citation(citation.borrowed()));
                    block(Block::Text, &mut piece(text).map(Delta::Text).into_iter().chain(citations));
                }
                Content::Refusal(text) => block(Block::Refusal, &mut piece(text).map(Delta::Text).into_iter()),
                Content::Thinking(Thinking { opaque: Some(opaque), redacted: true, .. }) => {
                    block(Block::Redacted(opaque.borrowed()), &mut std::iter::empty());
                }
                Content::Thinking(Thinking { text, opaque, .. }) => {
                    let opaque = opaque.as_ref().map(|opaque| Delta::Opaque(opaque.borrowed()));
                    block(Block::Thinking, &mut piece(text).map(Delta::Text).into_iter().chain(opaque));
                }
                Content::Call(Call { id, name, input }) => {
                    let (text, custom) = match input {
                        Input::Json(json) => (json.as_str(), false),
                        Input::Text(text) => (&**text, true),
                        Input::Cut(text) => (&**text, false),
                    };
                    let head = Block::Call { id: Cow::Borrowed(id), name: Cow::Borrowed(name), custom };
                    block(head, &mut piece(text).map(Delta::Input).into_iter());
                }
                Content::Extra(extra) => block(Block::Extra(extra.borrowed()), &mut std::iter::empty()),
                // No decoder puts these into an answer.
                Content::Image(_) | Content::Document(_) | Content::Result(_) => {}
            }
        }
        each(Event::Stop(self.stop.clone()));
    }
}

/// Gathers the events of one answer. The caller bounds what it feeds.
#[derive(Debug, Default)]
pub struct Fold {
    start: Option<Start<'static>>,
    parts: Vec<Part<'static>>,
    open: Option<Open>,
    end: Option<Result<Stop<'static>, crate::error::ApiError>>,
}

#[derive(Debug)]
struct Open {
    block: Block<'static>,
    text: String,
    opaque: Option<Opaque<'static>>,
    citations: Vec<Extra<'static>>,
}

impl Fold {
    /// The next event.
    pub fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Start(start) => {
                let own = |text: &str| Cow::Owned(text.to_owned());
                let (id, model) = (own(&start.id), own(&start.model));
                self.start = Some(Start { id, model, usage: start.usage.clone() });
            }
            Event::Open(block) => {
                let block = block.clone().into_owned();
                self.open = Some(Open { block, text: String::new(), opaque: None, citations: Vec::new() });
            }
            Event::Delta(delta) => self.delta(delta),
            Event::Close => {
                if let Some(open) = self.open.take() {
                    self.parts.push(Part::new(open.close(), Place::new(ANSWER, self.parts.len())));
                }
            }
            Event::Stop(stop) => self.end = Some(Ok(stop.clone().into_owned())),
            Event::Error(error) => self.end = Some(Err(error.clone())),
            Event::Ping => {}
        }
    }

    fn delta(&mut self, delta: &Delta<'_>) {
        let Some(open) = &mut self.open else { return };
        match delta {
            Delta::Text(text) | Delta::Input(text) => open.text.push_str(text),
            Delta::Opaque(opaque) => open.opaque = Some(opaque.clone().into_owned()),
            Delta::Citation(citation) => open.citations.push(citation.clone().into_owned()),
            Delta::Extra(_) => {}
        }
    }

    /// The answer; the error that ended it; or `None` where it has not ended.
    pub fn finish(self) -> Option<Result<Message<'static>, crate::error::ApiError>> {
        let start = self.start.unwrap_or_default();
        let parts = self.parts;
        Some(self.end?.map(|stop| Message { parts, ..Message::new(start.id, start.model, stop) }))
    }
}

impl Open {
    fn close(self) -> Content<'static> {
        let text = Cow::Owned(self.text);
        match self.block {
            Block::Text => Content::Text(Text { text, citations: self.citations }),
            Block::Refusal => Content::Refusal(text),
            Block::Thinking => Content::Thinking(Thinking { text, opaque: self.opaque, redacted: false }),
            Block::Redacted(opaque) => {
                Content::Thinking(Thinking { text: Cow::Borrowed(""), opaque: Some(opaque), redacted: true })
            }
            Block::Call { id, name, custom } => {
                let input = match text {
                    text if custom => Input::Text(text),
                    text if text.trim_ascii().is_empty() => Input::Json(Json::EMPTY),
                    // An answer that was cut at its limit may end within an input.
                    text => Json::read_from(text).map_or_else(Input::Cut, Input::Json),
                };
                Content::Call(Call { id, name, input })
            }
            Block::Extra(mut extra) => {
                if let Some(input) = Json::parse(text) {
                    let mut value = Vec::new();
                    json::object(&mut value, |o| {
                        o.members(&extra.value, &["input"]);
                        o.raw("input", input.as_str());
                    });
                    let value = String::from_utf8(value).expect("it is written from text");
                    extra.value = Json::parse(value).expect("it is written as JSON");
                }
                Content::Extra(extra)
            }
        }
    }
}

impl StopReason {
    /// What a provider's answer means that stopped for no special reason: with calls in it, that the client is to run
    /// them.
    pub fn of_end(has_calls: bool) -> Self {
        if has_calls { Self::ToolUse } else { Self::EndTurn }
    }
}
