//! How one upstream, or one of its models, differs from its protocol: facts that an encoder asks, and that a catalog row
//! sets. No encoder asks for a provider's name.

use crate::protocol::Protocol;
use crate::request::Effort;

/// What an upstream takes, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quirks {
    /// The role of instructions.
    pub system_role: SystemRole,
    /// Whether instructions may stand between the turns.
    pub system_within: bool,
    /// Which images the model sees.
    pub images: Images,
    /// Whether it can be said how closely to look at an image.
    pub image_detail: bool,
    /// Whether the model reads PDF documents.
    pub documents: bool,
    /// Whether it reads those at an address.
    pub document_urls: bool,
    /// How thinking is asked for.
    pub reasoning: ReasoningForm,
    /// The efforts that are known, in rising order.
    pub efforts: &'static [Effort],
    /// Whether thinking can be switched off.
    pub reasoning_off: bool,
    /// Which thinking of earlier turns goes back.
    pub thinking_back: ThinkingBack,
    /// Which choices of tools are honoured.
    pub tool_choice: Choices,
    /// Whether calls side by side can be forbidden.
    pub parallel_tools: bool,
    /// Whether there are tools that take plain text.
    pub custom_tools: bool,
    /// Whether the provider searches the web as a tool.
    pub web_search: bool,
    /// Whether the model thinks while it has tools.
    pub reasoning_with_tools: bool,
    /// Which schemas the upstream holds to.
    pub strict: Strict,
    /// The longest name of a tool.
    pub name_most: usize,
    /// The longest id of a call.
    pub id_most: usize,
    /// The longest description of a tool.
    pub description_most: usize,
    /// What stands for a tool's result that is empty.
    pub empty_result: &'static str,
    /// Which forms of an answer can be asked for.
    pub formats: Formats,
    /// How many stop sequences may be given; 0: none.
    pub stop_most: usize,
    /// Whether temperature and `top_p` are taken.
    pub sampling: bool,
    /// Whether they are taken together.
    pub sampling_by_both: bool,
    /// Whether `top_k` is taken.
    pub top_k: bool,
    /// Whether penalties and a seed are taken.
    pub penalties: bool,
    /// The highest temperature, in tenths.
    pub temperature_most: u8,
    /// The field for the most tokens.
    pub max_tokens: MaxTokens,
    /// Whether a stream must be asked for its usage.
    pub stream_usage: bool,
    /// The field that names the end user.
    pub user: UserField,
    /// Whether a cache key is taken.
    pub cache_key: bool,
    /// Whether verbosity is taken.
    pub verbosity: bool,
    /// For upstreams whose context has to be reserved (Ollama's `num_ctx`): the model's limit.
    pub context_most: Option<u64>,
    /// The same: what is reserved whatever a request needs.
    pub context_fixed: Option<u64>,
}

/// The role of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the protocol's own words")]
pub enum SystemRole {
    System,
    Developer,
}

impl SystemRole {
    /// The protocol's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
        }
    }
}

/// Which images a model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Those in the request and those at an address.
    All,
    /// Those in the request.
    Inline,
    /// None.
    None,
}

/// How thinking is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningForm {
    /// Not at all.
    None,
    /// By effort alone.
    Effort,
    /// By a switch and an effort.
    SwitchAndEffort,
    /// By a number of tokens.
    Budget,
}

/// Which schemas an upstream holds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strict {
    /// None.
    None,
    /// Those in which every object lists all its properties as required and allows no others.
    Closed,
    /// Every one.
    Any,
}

/// Which thinking of earlier turns goes back to an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThinkingBack {
    /// None.
    None,
    /// What its own protocol sealed.
    Own,
    /// The same, where what it led to follows.
    Led,
    /// Every text, whoever thought it.
    Text,
}

/// Which choices of tools are honoured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choices {
    /// All.
    All,
    /// All but those that force a call: they are refused.
    Unforced,
    /// All but those that force a call: the model does as it likes, with a warning.
    Softened,
    /// None: the model does as it likes.
    Ignored,
}

/// Which forms of an answer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formats {
    /// JSON, and JSON of a schema.
    Schema,
    /// JSON.
    Object,
    /// JSON of a schema only.
    SchemaOnly,
    /// Free text only.
    Text,
}

/// The field for the most tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokens {
    /// `max_completion_tokens`.
    Completion,
    /// `max_tokens`.
    Plain,
}

/// The field that names the end user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserField {
    /// None.
    None,
    /// `safety_identifier`.
    SafetyIdentifier,
    /// `user`.
    User,
}

const OPENAI_EFFORTS: &[Effort] = &[Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::XHigh];
const CLAUDE_EFFORTS: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High, Effort::XHigh, Effort::Max];

impl Quirks {
    /// A Claude model behind the Messages API.
    pub const ANTHROPIC: Self = Self {
        system_role: SystemRole::System,
        system_within: true,
        images: Images::All,
        image_detail: false,
        documents: true,
        document_urls: true,
        reasoning: ReasoningForm::Effort,
        efforts: CLAUDE_EFFORTS,
        reasoning_off: true,
        thinking_back: ThinkingBack::Own,
        tool_choice: Choices::All,
        parallel_tools: true,
        custom_tools: false,
        web_search: false,
        reasoning_with_tools: true,
        strict: Strict::Any,
        name_most: 128,
        id_most: 128,
        description_most: usize::MAX,
        empty_result: "",
        formats: Formats::SchemaOnly,
        stop_most: usize::MAX,
        sampling: false,
        sampling_by_both: true,
        top_k: false,
        penalties: false,
        temperature_most: 10,
        max_tokens: MaxTokens::Plain,
        stream_usage: false,
        user: UserField::User,
        cache_key: false,
        verbosity: false,
        context_most: None,
        context_fixed: None,
    };

    /// A model of OpenAI's that does not reason.
    pub const OPENAI: Self = Self {
        system_role: SystemRole::System,
        system_within: true,
        images: Images::All,
        image_detail: true,
        documents: true,
        document_urls: false,
        reasoning: ReasoningForm::None,
        efforts: &[],
        reasoning_off: true,
        thinking_back: ThinkingBack::None,
        tool_choice: Choices::All,
        parallel_tools: true,
        custom_tools: true,
        web_search: false,
        reasoning_with_tools: true,
        strict: Strict::Closed,
        name_most: 64,
        id_most: 40,
        description_most: usize::MAX,
        empty_result: "",
        formats: Formats::Schema,
        stop_most: 4,
        sampling: true,
        sampling_by_both: true,
        top_k: false,
        penalties: true,
        temperature_most: 20,
        max_tokens: MaxTokens::Completion,
        stream_usage: true,
        user: UserField::SafetyIdentifier,
        cache_key: true,
        verbosity: true,
        context_most: None,
        context_fixed: None,
    };

    /// A model of OpenAI's that reasons.
    pub const OPENAI_REASONING: Self = Self {
        system_role: SystemRole::Developer,
        reasoning: ReasoningForm::Effort,
        efforts: OPENAI_EFFORTS,
        stop_most: 0,
        sampling: false,
        penalties: false,
        ..Self::OPENAI
    };

    /// A server of unknown make that speaks Chat Completions.
    pub const COMPATIBLE: Self = Self {
        image_detail: false,
        documents: false,
        reasoning: ReasoningForm::None,
        custom_tools: false,
        strict: Strict::None,
        max_tokens: MaxTokens::Plain,
        user: UserField::None,
        cache_key: false,
        verbosity: false,
        ..Self::OPENAI
    };

    /// DeepSeek's Chat Completions.
    pub const DEEPSEEK: Self = Self {
        images: Images::None,
        reasoning: ReasoningForm::SwitchAndEffort,
        efforts: &[Effort::Low, Effort::High, Effort::Max],
        thinking_back: ThinkingBack::Text,
        parallel_tools: false,
        formats: Formats::Object,
        empty_result: " ",
        stop_most: 16,
        ..Self::COMPATIBLE
    };

    /// Ollama's own protocol.
    pub const OLLAMA: Self = Self {
        images: Images::Inline,
        thinking_back: ThinkingBack::Text,
        reasoning: ReasoningForm::SwitchAndEffort,
        efforts: &[Effort::Low, Effort::Medium, Effort::High, Effort::Max],
        tool_choice: Choices::Ignored,
        parallel_tools: false,
        stop_most: 64,
        top_k: true,
        stream_usage: false,
        ..Self::COMPATIBLE
    };

    /// A model of OpenAI's that reasons, behind the Responses API.
    pub const RESPONSES: Self =
        Self { document_urls: true, web_search: true, thinking_back: ThinkingBack::Own, ..Self::OPENAI_REASONING };

    /// What is usual for a protocol where nothing more is known of the upstream.
    pub fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::AnthropicMessages => Self::ANTHROPIC,
            Protocol::OpenAiChat => Self::COMPATIBLE,
            Protocol::OpenAiResponses => Self::RESPONSES,
            Protocol::Ollama => Self::OLLAMA,
        }
    }
}
