//! Writes answers, streamed and whole.

use super::{OWN, error, write};
use crate::codec::{EncodeStream, Front};
use crate::event::{Block, Delta, Event, Start, Stop};
use crate::json::{self, Writer};
use crate::message::Message;
use crate::opaque::UNSIGNED;
use crate::usage::Usage;
use crate::writing::answer_id;

/// Writes one stream. Blocks are numbered from 0 without a gap.
#[derive(Debug)]
pub(super) struct Encoder {
    id: Box<str>,
    model: Box<str>,
    input_estimate: u64,
    /// The number of the block that is open, or comes next.
    index: u64,
    open: Open,
    /// Bytes of text, for an estimate where the upstream gives no counts.
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Plain,
    /// A block that this protocol does not have.
    Hidden,
    /// A call of whose input nothing is known yet.
    Call,
    /// A call whose input is no object, and becomes the one member of such.
    Wrapped,
    /// Thinking without a signature so far.
    Unsigned,
    /// Plain text that has to become the string of an object, of which the beginning is written or not.
    Custom {
        begun: bool,
    },
}

/// Begins the data of an event of that name.
fn event(out: &mut Vec<u8>, name: &str, fill: impl FnOnce(&mut Writer<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json::object(out, |o| {
        o.str("type", name);
        fill(o);
    });
    out.extend_from_slice(b"\n\n");
}

/// Everything of the usual delta that does not change.
fn delta(out: &mut Vec<u8>, index: u64, kind: &str, field: &str, text: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
    json::digits(out, index);
    for part in [",\"delta\":{\"type\":\"", kind, "\",\"", field, "\":\""] {
        out.extend_from_slice(part.as_bytes());
    }
    text(out);
    out.extend_from_slice(b"\"}}\n\n");
}

impl Encoder {
    pub(super) fn new(front: &Front<'_>) -> Self {
        Self {
            id: front.id.into(),
            model: front.model.into(),
            input_estimate: front.input_estimate.max(1),
            index: 0,
            open: Open::Plain,
            bytes: 0,
        }
    }

    fn start(&mut self, start: &Start<'_>, out: &mut Vec<u8>) {
        let known = start.usage.as_deref().filter(|usage| usage.tokens.prompt() > 0);
        event(out, "message_start", |o| {
            o.object("message", |o| {
                o.str("id", &answer_id("msg_", &start.id, &self.id)).str("type", "message").str("role", "assistant");
                o.str("model", &self.model).raw("content", "[]").null("stop_reason").null("stop_sequence");
                o.object("usage", |o| match known {
                    Some(known) => counts(o, known),
                    None => {
                        o.uint("input_tokens", self.input_estimate).uint("output_tokens", 0);
                    }
                });
            });
        });
    }

    fn open(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        self.open = match block {
            Block::Extra(extra) if extra.origin != OWN => Open::Hidden,
            Block::Redacted(opaque) if opaque.origin != OWN => Open::Hidden,
            Block::Thinking => Open::Unsigned,
            Block::Call { custom: true, .. } => Open::Custom { begun: false },
            Block::Call { .. } => Open::Call,
            _ => Open::Plain,
        };
        if self.open == Open::Hidden {
            return;
        }
        event(out, "content_block_start", |o| {
            o.uint("index", self.index);
            o.object("content_block", |o| match block {
                Block::Text | Block::Refusal => {
                    o.str("type", "text").str("text", "");
                }
                Block::Thinking => {
                    o.str("type", "thinking").str("thinking", "").str("signature", "");
                }
                Block::Redacted(opaque) => {
                    o.str("type", "redacted_thinking").str("data", &opaque.data);
                }
                Block::Call { id, name, .. } => {
                    o.str("type", "tool_use").str("id", id).str("name", name).raw("input", "{}");
                }
                Block::Extra(extra) => o.members(&extra.value, &[]),
            });
        });
    }

    fn delta(&mut self, piece: &Delta<'_>, out: &mut Vec<u8>) {
        if self.open == Open::Hidden {
            return;
        }
        let index = self.index;
        match piece {
            Delta::Text(text) => {
                self.bytes += text.len() as u64;
                let (kind, field) = match self.open {
                    Open::Unsigned => ("thinking_delta", "thinking"),
                    _ => ("text_delta", "text"),
                };
                delta(out, index, kind, field, |out| json::escape(out, text));
            }
            // So some servers say that a call has no arguments.
            Delta::Input(text) if self.open == Open::Call && text.trim_ascii() == "null" => {}
            Delta::Input(text) => {
                self.bytes += text.len() as u64;
                let custom = match &mut self.open {
                    Open::Custom { begun } => Some(std::mem::replace(begun, true)),
                    _ => None,
                };
                let begins_wrapped = self.open == Open::Call && self.begins_wrapped(text);
                delta(out, index, "input_json_delta", "partial_json", |out| match custom {
                    None => {
                        out.extend_from_slice(if begins_wrapped { WRAPPED } else { b"" });
                        json::escape(out, text);
                    }
                    Some(begun) => {
                        let mut inner = Vec::new();
                        json::escape(&mut inner, text);
                        out.extend_from_slice(if begun { b"" } else { CUSTOM });
                        json::escape(out, std::str::from_utf8(&inner).expect("it was written from text"));
                    }
                });
            }
            Delta::Opaque(opaque) => self.sign(&opaque.seal(OWN), out),
            Delta::Citation(citation) if citation.origin == OWN => {
                self.raw(out, |o| {
                    o.str("type", "citations_delta").raw("citation", citation.value.as_str());
                });
            }
            Delta::Extra(extra) if extra.origin == OWN => self.raw(out, |o| o.members(&extra.value, &[])),
            Delta::Citation(_) | Delta::Extra(_) => {}
        }
    }

    /// Whether the input of the open call begins here and is no object: tools are called with objects alone.
    fn begins_wrapped(&mut self, text: &str) -> bool {
        let Some(first) = text.trim_ascii_start().bytes().next() else { return false };
        self.open = if first == b'{' { Open::Plain } else { Open::Wrapped };
        first != b'{'
    }

    fn raw(&self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
        event(out, "content_block_delta", |o| {
            o.uint("index", self.index).object("delta", fill);
        });
    }

    fn sign(&mut self, signature: &str, out: &mut Vec<u8>) {
        self.open = Open::Plain;
        delta(out, self.index, "signature_delta", "signature", |out| json::escape(out, signature));
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        match self.open {
            Open::Hidden => return,
            // Whoever reads it later must see that it is not Claude's.
            Open::Unsigned => self.sign(UNSIGNED, out),
            Open::Custom { begun } => delta(out, self.index, "input_json_delta", "partial_json", |out| {
                out.extend_from_slice(if begun { b"" } else { CUSTOM });
                out.extend_from_slice(b"\\\"}");
            }),
            Open::Wrapped => {
                delta(out, self.index, "input_json_delta", "partial_json", |out| out.extend_from_slice(b"}"));
            }
            Open::Plain | Open::Call => {}
        }
        event(out, "content_block_stop", |o| {
            o.uint("index", self.index);
        });
        self.index += 1;
    }

    fn stop(&mut self, stop: &Stop<'_>, out: &mut Vec<u8>) {
        event(out, "message_delta", |o| {
            o.object("delta", |o| ending(o, stop));
            o.object("usage", |o| match stop.usage.as_deref() {
                Some(usage) => counts(o, usage),
                None => estimate(o, self.input_estimate, self.bytes),
            });
        });
        event(out, "message_stop", |_| {});
    }
}

/// The beginning of an object with the one string `input`, as it stands within a JSON string.
const CUSTOM: &[u8] = b"{\\\"input\\\":\\\"";
/// The beginning of an object with the one member `input`, as it stands within a JSON string.
const WRAPPED: &[u8] = b"{\\\"input\\\":";

fn ending(o: &mut Writer<'_>, stop: &Stop<'_>) {
    o.str("stop_reason", stop.reason.as_str());
    match &stop.sequence {
        Some(sequence) => o.str("stop_sequence", sequence),
        None => o.null("stop_sequence"),
    };
    if let Some(details) = stop.details.as_ref().filter(|details| details.origin == OWN) {
        o.raw("stop_details", details.value.as_str());
    }
}

/// Counts that nobody gave.
fn estimate(o: &mut Writer<'_>, input: u64, bytes: u64) {
    let tokens = Usage::estimate(input, bytes).tokens;
    o.uint("input_tokens", tokens.input).uint("output_tokens", tokens.output);
}

fn counts(o: &mut Writer<'_>, usage: &Usage) {
    let (tokens, writes) = (&usage.tokens, &usage.tokens.cache_write);
    o.uint("input_tokens", tokens.input);
    o.uint("cache_creation_input_tokens", writes.total()).uint("cache_read_input_tokens", tokens.cache_read);
    if writes.total() > 0 && !usage.ttl_assumed {
        o.object("cache_creation", |o| {
            o.uint("ephemeral_5m_input_tokens", writes.m5).uint("ephemeral_1h_input_tokens", writes.h1);
            for (name, n) in [("ephemeral_30m_input_tokens", writes.m30), ("ephemeral_12h_input_tokens", writes.h12)] {
                if n > 0 {
                    o.uint(name, n);
                }
            }
        });
    }
    o.uint("output_tokens", tokens.output);
    if usage.reasoning > 0 {
        o.object("output_tokens_details", |o| {
            o.uint("thinking_tokens", usage.reasoning);
        });
    }
    if usage.web_search > 0 || usage.web_fetch > 0 {
        o.object("server_tool_use", |o| {
            o.uint("web_search_requests", usage.web_search).uint("web_fetch_requests", usage.web_fetch);
        });
    }
    o.str_if("service_tier", usage.service_tier.as_ref().map(|tier| tier.as_str()));
}

impl EncodeStream for Encoder {
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start(start) => self.start(start, out),
            Event::Open(block) => self.open(block, out),
            Event::Delta(piece) => self.delta(piece, out),
            Event::Close => self.close(out),
            Event::Stop(stop) => self.stop(stop, out),
            Event::Ping => out.extend_from_slice(error::PING),
            Event::Error(failed) => {
                out.extend_from_slice(&error::event(failed.kind, &error::message(failed), &self.id))
            }
        }
    }
}

/// Writes a whole answer.
pub(super) fn whole(message: &Message<'_>, front: &Front<'_>, out: &mut Vec<u8>) {
    json::object(out, |o| {
        o.str("id", &answer_id("msg_", &message.id, front.id)).str("type", "message").str("role", "assistant");
        o.str("model", front.model);
        o.list("content", |list| message.parts.iter().for_each(|part| write::answer(list, part)));
        ending(o, &message.stop);
        o.object("usage", |o| match message.stop.usage.as_deref() {
            Some(usage) => counts(o, usage),
            None => estimate(o, front.input_estimate, message.text_bytes()),
        });
    });
}
