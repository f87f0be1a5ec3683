//! The protocols that clients and providers speak.

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Anthropic Messages: `/v1/messages` and the paths beside it.
    AnthropicMessages,
}

impl Protocol {
    /// As configuration, logs and records name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnthropicMessages => "anthropic",
        }
    }
}
