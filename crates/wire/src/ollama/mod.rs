//! Ollama's own protocol, `/api/chat`: the only one of its protocols that can set how much context is reserved.

mod context;
mod decode;
mod lines;
mod write;

use crate::codec::{DecodeStream, Encoded, Target, Upstream};
use crate::error::ApiError;
use crate::message::Message;
use crate::protocol::Protocol;
use crate::request::Request;

/// Ollama's own protocol, spoken by upstreams.
#[derive(Debug, Clone, Copy)]
pub struct Ollama;

/// This protocol.
const OWN: Protocol = Protocol::Ollama;

impl Upstream for Ollama {
    fn encode_request(&self, request: &Request<'_>, target: &Target<'_>) -> Encoded {
        write::request(request, target)
    }

    fn decode_stream(&self) -> Box<dyn DecodeStream> {
        Box::<decode::Decoder>::default()
    }

    fn decode_whole<'a>(&self, body: &'a [u8]) -> Result<Message<'a>, ApiError> {
        decode::whole(body)
    }
}
