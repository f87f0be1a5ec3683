//! Anthropic Messages.

mod decode;
mod encode;
pub mod error;
mod foreign;
mod read;
mod said;
pub(crate) mod usage;
mod write;

pub use foreign::{Unsigned, strip as strip_foreign_thinking};
pub use said::said;

use crate::codec::{DecodeStream, EncodeStream, Encoded, Front, Inbound, Target, Upstream};
use crate::error::ApiError;
use crate::event::StopReason;
use crate::message::Message;
use crate::protocol::Protocol;
use crate::request::Request;

/// Anthropic Messages, spoken by clients and by upstreams.
#[derive(Debug, Clone, Copy)]
pub struct Anthropic;

/// This protocol.
const OWN: Protocol = Protocol::AnthropicMessages;

impl Inbound for Anthropic {
    fn protocol(&self) -> Protocol {
        OWN
    }

    fn decode_request<'a>(&self, body: &'a [u8]) -> Result<Request<'a>, ApiError> {
        read::request(body)
    }

    fn encode_stream(&self, front: &Front<'_>) -> Box<dyn EncodeStream> {
        Box::new(encode::Encoder::new(front))
    }

    fn encode_whole(&self, message: &Message<'_>, front: &Front<'_>, out: &mut Vec<u8>) {
        encode::whole(message, front, out);
    }

    fn encode_error(&self, error: &ApiError, front: &Front<'_>, out: &mut Vec<u8>) -> u16 {
        out.extend_from_slice(&error::body(error.kind, &error::message(error), front.id));
        error.kind.status()
    }
}

impl Upstream for Anthropic {
    fn encode_request(&self, request: &Request<'_>, target: &Target<'_>) -> Encoded {
        write::request(request, target)
    }

    fn decode_stream(&self) -> Box<dyn DecodeStream> {
        Box::new(decode::stream())
    }

    fn decode_whole<'a>(&self, body: &'a [u8]) -> Result<Message<'a>, ApiError> {
        decode::whole(body)
    }
}

/// The reasons to stop that this protocol has words for.
const STOPS: [StopReason; 8] = [
    StopReason::EndTurn,
    StopReason::MaxTokens,
    StopReason::StopSequence,
    StopReason::ToolUse,
    StopReason::PauseTurn,
    StopReason::Refusal,
    StopReason::ContextWindow,
    StopReason::Compaction,
];

/// What a word means; servers that were made for another protocol say some of its words.
fn stop_reason(word: &str) -> StopReason {
    let known = STOPS.into_iter().find(|reason| reason.as_str() == word);
    known.unwrap_or_else(|| match word {
        "length" => StopReason::MaxTokens,
        "stop" => StopReason::EndTurn,
        "tool_calls" => StopReason::ToolUse,
        _ => StopReason::Other(word.into()),
    })
}
