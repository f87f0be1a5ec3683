//! What the client calls a field that each protocol names in its own way.

use crate::protocol::Protocol;

/// A field that is named by each protocol in its own way.
#[derive(Debug, Clone, Copy)]
pub enum Field {
    Thinking,
    Effort,
    Format,
    Stop,
    Verbosity,
    Parallel,
    MaxTokens,
}

impl Field {
    /// Its path in a request of that protocol.
    pub fn of(self, source: Protocol) -> &'static str {
        use Protocol::{AnthropicMessages as A, OpenAiChat as C, OpenAiResponses as R};
        match (self, source) {
            (Self::Thinking, A) => "thinking",
            (Self::Effort, A) => "output_config.effort",
            (Self::Thinking | Self::Effort, R) => "reasoning",
            (Self::Thinking | Self::Effort, _) => "reasoning_effort",
            (Self::Format, A) => "output_config.format",
            (Self::Format, R) => "text.format",
            (Self::Format, _) => "response_format",
            (Self::Stop, C) => "stop",
            (Self::Stop, _) => "stop_sequences",
            (Self::Verbosity, R) => "text.verbosity",
            (Self::Verbosity, _) => "verbosity",
            (Self::Parallel, A) => "tool_choice.disable_parallel_tool_use",
            (Self::Parallel, _) => "parallel_tool_calls",
            (Self::MaxTokens, C) => "max_completion_tokens",
            (Self::MaxTokens, R) => "max_output_tokens",
            (Self::MaxTokens, _) => "max_tokens",
        }
    }
}
