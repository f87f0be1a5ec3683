//! OpenAI Responses.

mod decode;
mod encode;
mod foreign;
mod item;
mod names;
mod read;
mod sealed;
mod write;

pub use foreign::strip as strip_foreign_reasoning;

use crate::codec::{DecodeStream, EncodeStream, Encoded, Front, Inbound, Target, Upstream};
use crate::error::ApiError;
use crate::message::Message;
use crate::openai;
use crate::protocol::Protocol;
use crate::request::Request;

/// OpenAI Responses, spoken by clients and by upstreams.
#[derive(Debug, Clone, Copy)]
pub struct OpenAiResponses;

/// This protocol.
const OWN: Protocol = Protocol::OpenAiResponses;

impl Inbound for OpenAiResponses {
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

    fn encode_error(&self, error: &ApiError, _: &Front<'_>, out: &mut Vec<u8>) -> u16 {
        openai::error(error, out);
        openai::status(error.kind)
    }
}

impl Upstream for OpenAiResponses {
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
