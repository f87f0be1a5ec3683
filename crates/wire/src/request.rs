//! The request that no protocol owns: rich enough for all of them, borrowed from the client's body where it can be.

use std::borrow::Cow;

use crate::json::Json;
use crate::loss::Place;
use crate::opaque::{Extra, Opaque};
use crate::protocol::Protocol;

/// One request to generate.
///
/// What several protocols can say has a field here; what one alone can say is an [`Extra`], so that no encoder needs to
/// know another protocol's fields. A decoder keeps what it read in the client's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// What the client speaks.
    pub source: Protocol,
    /// The model as the client names it. Encoders write the [target](crate::codec::Target)'s name.
    pub model: Cow<'a, str>,
    /// The system prompt that stands before all turns: [text](Content::Text) and [extra](Content::Extra) parts.
    pub system: Vec<Part<'a>>,
    /// The conversation. Neighbours may have the same role; no decoder merges what an encoder can.
    pub turns: Vec<Turn<'a>>,
    /// The tools in the client's order.
    pub tools: Vec<Tool<'a>>,
    /// Whether and which tool has to be called.
    pub tool_choice: Option<ToolChoice<'a>>,
    /// Whether several tools may be called at once.
    pub parallel_tools: Option<bool>,
    /// The most tokens of output.
    pub max_tokens: Option<u64>,
    /// Texts at which to stop.
    pub stop: Vec<Cow<'a, str>>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Whether and how hard to think.
    pub reasoning: Reasoning,
    /// Which form the answer has.
    pub format: Format<'a>,
    /// How wordy the answer is to be: `low`, `medium`, `high`.
    pub verbosity: Option<Cow<'a, str>>,
    /// Who the end user is, in the client's words. Hashed before it goes to a provider of another protocol.
    pub user: Option<Cow<'a, str>>,
    /// Under which key the provider should look for a cached prefix.
    pub cache_key: Option<Cow<'a, str>>,
    /// Whether the answer is streamed.
    pub stream: bool,
    /// Whether a Chat client asked for the closing chunk with usage. Always true for other protocols.
    pub stream_usage: bool,
    /// Fields that only the source knows.
    pub extras: Vec<Extra<'a>>,
}

impl Request<'_> {
    /// A request that says nothing yet.
    pub fn new(source: Protocol) -> Self {
        Self {
            source,
            model: Cow::Borrowed(""),
            system: Vec::new(),
            turns: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel_tools: None,
            max_tokens: None,
            stop: Vec::new(),
            sampling: Sampling::default(),
            reasoning: Reasoning::default(),
            format: Format::Text,
            verbosity: None,
            user: None,
            cache_key: None,
            stream: false,
            stream_usage: true,
            extras: Vec::new(),
        }
    }
}

/// Whose turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The client's: text, images, documents, results of tools.
    User,
    /// The model's: thinking, text, calls of tools.
    Assistant,
    /// Instructions that stand between the turns.
    System,
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<'a> {
    /// Whose.
    pub role: Role,
    /// What it says, in order.
    pub parts: Vec<Part<'a>>,
    /// Fields of the turn that only the source knows.
    pub extras: Vec<Extra<'a>>,
    /// Where it stands in the client's request.
    pub place: Place,
}

/// One part of a turn, of a tool's result, of the system prompt or of a whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// What it is.
    pub content: Content<'a>,
    /// Whether the prompt up to here should be kept in the cache.
    pub cache: Option<CacheMark>,
    /// Fields of the part that only the source knows.
    pub extras: Vec<Extra<'a>>,
    /// Where it stands in the client's request.
    pub place: Place,
}

impl<'a> Part<'a> {
    /// A part without a cache mark.
    pub fn new(content: impl Into<Content<'a>>, place: Place) -> Self {
        Self { content: content.into(), cache: None, extras: Vec::new(), place }
    }
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// Text.
    Text(Text<'a>),
    /// An image.
    Image(Image<'a>),
    /// A document.
    Document(Document<'a>),
    /// A call of one of the client's tools.
    Call(Call<'a>),
    /// What such a call came to.
    Result(ToolResult<'a>),
    /// What the model thought.
    Thinking(Thinking<'a>),
    /// The text by which the model declined, where the protocol tells it from an answer.
    Refusal(Cow<'a, str>),
    /// A block or item that only the source knows.
    Extra(Extra<'a>),
}

/// Text, and what it quotes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    /// Citations or annotations in the source's form.
    pub citations: Vec<Extra<'a>>,
}

impl<'a> From<Cow<'a, str>> for Content<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Text(Text { text, citations: Vec::new() })
    }
}

impl<'a> From<&'a str> for Content<'a> {
    fn from(text: &'a str) -> Self {
        Cow::Borrowed(text).into()
    }
}

/// How long a cached prefix should live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheMark {
    /// As long as the provider keeps it by default.
    #[default]
    Default,
    /// Five minutes.
    Minutes5,
    /// One hour.
    Hour1,
}

/// Where the bytes of an image or a document are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source<'a> {
    /// In the request, in base64.
    Base64 {
        /// `image/png` and the like.
        media_type: Cow<'a, str>,
        /// The base64 text.
        data: Cow<'a, str>,
    },
    /// At an address that the provider fetches.
    Url(Cow<'a, str>),
    /// At the provider, under an id that only it knows.
    File(Cow<'a, str>),
    /// In the request, as plain text (documents only).
    Text(Cow<'a, str>),
    /// In the request, as parts (documents only).
    Parts(Vec<Part<'a>>),
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<'a> {
    /// Its bytes.
    pub source: Source<'a>,
    /// `low`, `high`, `auto`: how closely it is looked at.
    pub detail: Option<Cow<'a, str>>,
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its bytes.
    pub source: Source<'a>,
    /// Its title or file name.
    pub title: Option<Cow<'a, str>>,
    /// What the model is told about it and does not quote.
    pub context: Option<Cow<'a, str>>,
    /// Whether the answer is to quote it.
    pub citations: bool,
}

/// A call of one of the client's tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The id by which its result refers to it.
    pub id: Cow<'a, str>,
    /// The tool.
    pub name: Cow<'a, str>,
    /// What it is called with.
    pub input: Input<'a>,
}

/// What a tool is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// JSON, as the model wrote it: an object, by all protocols; but some models write a list or a bare value.
    Json(Json<'a>),
    /// Plain text, for a [custom](ToolKind::Custom) tool.
    Text(Cow<'a, str>),
    /// JSON that breaks off where the answer reached its limit. Only answers have it.
    Cut(Cow<'a, str>),
}

impl Input<'_> {
    /// Whether it may stand in a request. JSON that is no object may: whoever was told of such a call sends it back with
    /// every turn that follows, and a conversation must not end at it.
    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::Cut(_))
    }
}

/// What a call of a tool came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult<'a> {
    /// The id of the call.
    pub id: Cow<'a, str>,
    /// What it gave: text, images, documents, extras.
    pub content: Vec<Part<'a>>,
    /// Whether the tool failed.
    pub is_error: bool,
}

/// What the model thought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinking<'a> {
    /// The text, or its summary; empty where the provider shows none.
    pub text: Cow<'a, str>,
    /// What the provider wants back; `None` where nothing says whose the text is.
    pub opaque: Option<Opaque<'a>>,
    /// Whether the provider hides the text altogether (`redacted_thinking`).
    pub redacted: bool,
}

/// A tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// What it does.
    pub description: Option<Cow<'a, str>>,
    /// Who runs it and what it takes.
    pub kind: ToolKind<'a>,
    /// Whether the prompt up to here should be kept in the cache.
    pub cache: Option<CacheMark>,
    /// Fields that only the source knows.
    pub extras: Vec<Extra<'a>>,
    /// Where it stands in the client's request.
    pub place: Place,
}

/// Who runs a tool and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolKind<'a> {
    /// The client runs it; it takes a JSON object.
    Function {
        /// The JSON schema of its input; `None` where the client gave none.
        schema: Option<Json<'a>>,
        /// Whether the provider must keep to the schema.
        strict: Option<bool>,
    },
    /// The client runs it; it takes plain text, possibly of some grammar.
    Custom {
        /// The grammar, in OpenAI's form.
        format: Option<Json<'a>>,
    },
    /// The provider runs it, or knows its input by its type. Other protocols have it only where they have the ability.
    Server {
        /// What it can do, where other protocols can do it too.
        ability: Option<Ability>,
        /// The whole definition, in the source's form.
        definition: Extra<'a>,
    },
}

/// What tools of several providers can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ability {
    /// Search the web.
    WebSearch,
}

/// Whether and which tool has to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice<'a> {
    /// As the model likes.
    Auto,
    /// Some tool.
    Any,
    /// No tool.
    None,
    /// This one.
    Tool(Cow<'a, str>),
    /// One of these, and some one of them if `required`.
    Among {
        /// The names.
        names: Vec<Cow<'a, str>>,
        /// Whether one has to be called.
        required: bool,
    },
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// From 0 to 2 (Anthropic: to 1).
    pub temperature: Option<f64>,
    /// The share of the likeliest tokens.
    pub top_p: Option<f64>,
    /// The number of the likeliest tokens.
    pub top_k: Option<u64>,
    /// Against tokens that occurred.
    pub presence_penalty: Option<f64>,
    /// Against tokens that occurred often.
    pub frequency_penalty: Option<f64>,
    /// For answers that can be repeated.
    pub seed: Option<i64>,
}

/// Whether and how hard to think.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reasoning {
    /// Whether to think.
    pub mode: Option<Thought>,
    /// How hard.
    pub effort: Option<Effort>,
    /// What is shown of it.
    pub display: Option<Display>,
}

/// Whether to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thought {
    /// Not at all.
    Off,
    /// As much as the model finds right.
    Adaptive,
    /// At most so many tokens.
    Budget(u64),
    /// Only between calls of tools.
    BetweenTools,
}

/// How hard to think, in rising order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the providers' own words")]
pub enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    /// All, in rising order.
    pub const ALL: [Self; 6] = [Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The providers' word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The effort of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|effort| effort.as_str() == word)
    }

    /// The effort that a number of thinking tokens stands for.
    pub fn of_budget(tokens: u64) -> Self {
        match tokens {
            0..=4096 => Self::Low,
            4097..=16384 => Self::Medium,
            _ => Self::High,
        }
    }

    /// The number of thinking tokens that stands for it.
    pub fn budget(self) -> u64 {
        match self {
            Self::Minimal => 1024,
            Self::Low => 4096,
            Self::Medium => 16384,
            Self::High => 32768,
            Self::XHigh | Self::Max => 65536,
        }
    }

    /// The nearest of `known`, the higher one of two that are as near.
    pub fn nearest(self, known: &[Self]) -> Option<Self> {
        known.iter().rev().min_by_key(|effort| (**effort as u8).abs_diff(self as u8)).copied()
    }
}

/// What is shown of the thinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Display {
    /// Nothing.
    Omitted,
    /// A summary, as long as the provider finds right.
    Summary,
    /// A short one.
    Concise,
    /// A long one.
    Detailed,
    /// Short notes on the progress.
    Updates,
}

/// Which form the answer has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format<'a> {
    /// Free text.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON of a schema.
    JsonSchema {
        /// Its name, where the protocol wants one.
        name: Option<Cow<'a, str>>,
        /// What it is for.
        description: Option<Cow<'a, str>>,
        /// The schema.
        schema: Json<'a>,
        /// Whether the provider must keep to it.
        strict: Option<bool>,
    },
}
