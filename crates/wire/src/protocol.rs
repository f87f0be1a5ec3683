//! The protocols that clients and providers speak.

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Anthropic Messages: `/v1/messages` and the paths beside it.
    AnthropicMessages,
    /// OpenAI Chat Completions: `/v1/chat/completions`.
    OpenAiChat,
    /// OpenAI Responses: `/v1/responses`.
    OpenAiResponses,
    /// Ollama's own `/api/chat`, spoken to upstreams only.
    Ollama,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AnthropicMessages, Self::OpenAiChat, Self::OpenAiResponses, Self::Ollama];

    /// As configuration, logs and records name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnthropicMessages => "anthropic",
            Self::OpenAiChat => "openai-chat",
            Self::OpenAiResponses => "openai-responses",
            Self::Ollama => "ollama",
        }
    }

    /// The protocol of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.as_str() == name)
    }
}
