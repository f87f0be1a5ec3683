//! The answer that no protocol owns, as events. A whole reply is the same events arriving at once.
//!
//! One block is open at a time: `Start (Open Delta* Close)* Stop`, with pings anywhere and an error in place of the rest.
//! [`grammar`](crate::grammar) says it exactly. Decoders put overlapping blocks of their provider in order; encoders
//! number them.

use std::borrow::Cow;

use crate::error::ApiError;
use crate::json::Json;
use crate::opaque::{Extra, Opaque};
use crate::usage::Usage;

/// What happens in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The upstream has accepted the request and begins.
    Start(Start<'a>),
    /// A block begins.
    Open(Block<'a>),
    /// More of the open block.
    Delta(Delta<'a>),
    /// The open block is whole.
    Close,
    /// The answer is whole.
    Stop(Stop<'a>),
    /// A sign of life.
    Ping,
    /// The answer has failed: nothing follows.
    Error(ApiError),
}

/// The beginning of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start<'a> {
    /// The upstream's id of the answer; empty where it gives none.
    pub id: Cow<'a, str>,
    /// The model that the upstream names.
    pub model: Cow<'a, str>,
    /// What the upstream knows of the usage already.
    pub usage: Option<Box<Usage>>,
}

/// A block of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block<'a> {
    /// Text.
    Text,
    /// The text by which the model declines.
    Refusal,
    /// What the model thinks, or its summary.
    Thinking,
    /// Thinking that the provider hides; complete as it is.
    Redacted(Opaque<'a>),
    /// A call of one of the client's tools.
    Call {
        /// The id by which its result will refer to it. Empty where the upstream gives none: who writes it for a client
        /// gives it one.
        id: Cow<'a, str>,
        /// The tool.
        name: Cow<'a, str>,
        /// Whether its input is plain text rather than JSON.
        custom: bool,
    },
    /// A block that only the source knows, as it begins. Deltas of it may follow.
    Extra(Extra<'a>),
}

/// A piece of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta<'a> {
    /// Text of a text, refusal or thinking block.
    Text(Cow<'a, str>),
    /// What the provider wants back with a thinking block: once, and last.
    Opaque(Opaque<'a>),
    /// A piece of the input of a call, or of an extra block. JSON in pieces; nothing at all stands for `{}`.
    Input(Cow<'a, str>),
    /// What the text quotes.
    Citation(Extra<'a>),
    /// A delta that only the source knows.
    Extra(Extra<'a>),
}

/// The end of a whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop<'a> {
    /// Why.
    pub reason: StopReason,
    /// The stop sequence that was met.
    pub sequence: Option<Cow<'a, str>>,
    /// What the provider says about it, in its own form.
    pub details: Option<Extra<'a>>,
    /// What was used; `None` where the upstream did not say. This is not zero.
    pub usage: Option<Box<Usage>>,
}

impl Stop<'_> {
    /// An end of which only the reason is known.
    pub fn new(reason: StopReason) -> Self {
        Self { reason, sequence: None, details: None, usage: None }
    }
}

/// Why an answer is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The model had nothing more to say.
    EndTurn,
    /// The most tokens of output.
    MaxTokens,
    /// A stop sequence.
    StopSequence,
    /// The client is to run tools.
    ToolUse,
    /// The provider pauses: the client sends the same again.
    PauseTurn,
    /// The model, or a filter, declined.
    Refusal,
    /// Prompt and output fill the context window.
    ContextWindow,
    /// The context was compacted.
    Compaction,
    /// A word that has no name here.
    Other(Box<str>),
}

impl StopReason {
    /// Whether an answer that stops for it may end within the input of a call.
    pub fn cuts(&self) -> bool {
        matches!(self, Self::MaxTokens | Self::ContextWindow | Self::Refusal)
    }

    /// As records name it: Anthropic's word, or the upstream's own.
    pub fn as_str(&self) -> &str {
        match self {
            Self::EndTurn => "end_turn",
            Self::MaxTokens => "max_tokens",
            Self::StopSequence => "stop_sequence",
            Self::ToolUse => "tool_use",
            Self::PauseTurn => "pause_turn",
            Self::Refusal => "refusal",
            Self::ContextWindow => "model_context_window_exceeded",
            Self::Compaction => "compaction",
            Self::Other(word) => word,
        }
    }
}

impl Event<'_> {
    /// Whether nothing can follow.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Stop(_) | Self::Error(_))
    }
}

impl Delta<'_> {
    /// The same without a copy.
    pub fn borrowed(&self) -> Delta<'_> {
        match self {
            Self::Text(text) => Delta::Text(Cow::Borrowed(text)),
            Self::Opaque(opaque) => Delta::Opaque(opaque.borrowed()),
            Self::Input(text) => Delta::Input(Cow::Borrowed(text)),
            Self::Citation(extra) => Delta::Citation(extra.borrowed()),
            Self::Extra(extra) => Delta::Extra(extra.borrowed()),
        }
    }
}

impl Block<'_> {
    /// The same in memory of its own.
    pub fn into_owned(self) -> Block<'static> {
        match self {
            Self::Text => Block::Text,
            Self::Refusal => Block::Refusal,
            Self::Thinking => Block::Thinking,
            Self::Redacted(opaque) => Block::Redacted(opaque.into_owned()),
            Self::Call { id, name, custom } => {
                Block::Call { id: Cow::Owned(id.into_owned()), name: Cow::Owned(name.into_owned()), custom }
            }
            Self::Extra(extra) => Block::Extra(extra.into_owned()),
        }
    }
}

impl<'a> Stop<'a> {
    /// The same in memory of its own.
    pub fn into_owned(self) -> Stop<'static> {
        Stop {
            reason: self.reason,
            sequence: self.sequence.map(|text| Cow::Owned(text.into_owned())),
            details: self.details.map(Extra::into_owned),
            usage: self.usage,
        }
    }
}

/// A piece of a call's input that holds all of it.
impl<'a> From<&'a Json<'_>> for Delta<'a> {
    fn from(json: &'a Json<'_>) -> Self {
        Self::Input(Cow::Borrowed(json.as_str()))
    }
}
