//! Writes answers, streamed and whole.

use super::write::call;
use crate::codec::{EncodeStream, Front};
use crate::event::{Block, Delta, Event, Start, Stop, StopReason};
use crate::json::{self, Writer};
use crate::message::Message;
use crate::plain;
use crate::request::{Call, Content, Part};
use crate::usage::Usage;
use crate::writing::answer_id;
use crate::{openai, openai_usage};

/// Writes one stream.
#[derive(Debug)]
pub(super) struct Encoder {
    id: Box<str>,
    model: Box<str>,
    created: u64,
    input_estimate: u64,
    stream_usage: bool,
    show_reasoning: bool,
    /// What every chunk begins with, up to its choices.
    head: Vec<u8>,
    open: Open,
    /// How many calls have begun.
    calls: u64,
    refused: bool,
    /// Bytes of text, for an estimate where the upstream gives no counts.
    bytes: u64,
}

/// What the open block is in this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Hidden,
    /// Text of this field.
    Text(&'static str),
    /// A call, and whether it has had any input.
    Call {
        fed: bool,
        custom: bool,
    },
}

fn finish_reason(reason: &StopReason, refused: bool) -> &'static str {
    match reason {
        StopReason::ToolUse => "tool_calls",
        StopReason::MaxTokens | StopReason::ContextWindow => "length",
        StopReason::Refusal if !refused => "content_filter",
        _ => "stop",
    }
}

impl Encoder {
    pub(super) fn new(front: &Front<'_>) -> Self {
        Self {
            id: front.id.into(),
            model: front.model.into(),
            created: front.created,
            input_estimate: front.input_estimate,
            stream_usage: front.stream_usage,
            show_reasoning: front.show_reasoning,
            head: Vec::new(),
            open: Open::Hidden,
            calls: 0,
            refused: false,
            bytes: 0,
        }
    }

    fn start(&mut self, start: &Start<'_>, out: &mut Vec<u8>) {
        let head = &mut self.head;
        head.extend_from_slice(b"data: {\"id\":");
        json::string(head, &answer_id("chatcmpl-", &start.id, &self.id));
        head.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        json::digits(head, self.created);
        head.extend_from_slice(b",\"model\":");
        json::string(head, &self.model);
        head.extend_from_slice(b",\"choices\":[");
        self.chunk(out, b"null", |out| out.extend_from_slice(br#""role":"assistant","content":"""#));
    }

    /// A chunk with one choice; `fill` writes the members of its delta.
    fn chunk(&self, out: &mut Vec<u8>, finish: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b"{\"index\":0,\"delta\":{");
        fill(out);
        out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
        out.extend_from_slice(finish);
        out.extend_from_slice(if self.stream_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" });
    }

    fn text(&self, field: &str, text: &str, out: &mut Vec<u8>) {
        self.chunk(out, b"null", |out| {
            json::string(out, field);
            out.push(b':');
            json::string(out, text);
        });
    }

    fn open(&mut self, block: &Block<'_>, out: &mut Vec<u8>) {
        self.open = match block {
            Block::Text => Open::Text("content"),
            Block::Refusal => Open::Text("refusal"),
            Block::Thinking if self.show_reasoning => Open::Text("reasoning_content"),
            Block::Thinking | Block::Redacted(_) | Block::Extra(_) => Open::Hidden,
            Block::Call { custom, .. } => Open::Call { fed: false, custom: *custom },
        };
        self.refused |= *block == Block::Refusal;
        if let Block::Call { id, name, custom } = block {
            let (kind, input) = if *custom { ("custom", "input") } else { ("function", "arguments") };
            self.call(self.calls, out, |o| {
                o.str("id", id).str("type", kind).object(kind, |o| {
                    o.str("name", name).str(input, "");
                });
            });
            self.calls += 1;
        }
    }

    fn call(&self, index: u64, out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
        self.chunk(out, b"null", |out| {
            out.extend_from_slice(b"\"tool_calls\":");
            json::list(out, |list| {
                list.push_object(|o| {
                    o.uint("index", index);
                    fill(o);
                });
            });
        });
    }

    fn input(&self, text: &str, custom: bool, out: &mut Vec<u8>) {
        let (kind, input) = if custom { ("custom", "input") } else { ("function", "arguments") };
        // The call that is open is the last one that began.
        self.call(self.calls - 1, out, |o| {
            o.object(kind, |o| {
                o.str(input, text);
            });
        });
    }

    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match (delta, self.open) {
            (Delta::Text(text), Open::Text(field)) => {
                self.bytes += text.len() as u64;
                self.text(field, text, out);
            }
            (Delta::Input(text), Open::Call { custom, .. }) => {
                self.bytes += text.len() as u64;
                self.open = Open::Call { fed: true, custom };
                self.input(text, custom, out);
            }
            _ => {}
        }
    }

    fn stop(&mut self, stop: &Stop<'_>, out: &mut Vec<u8>) {
        let finish = format!("\"{}\"", finish_reason(&stop.reason, self.refused));
        self.chunk(out, finish.as_bytes(), |_| {});
        if self.stream_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            let estimate = Usage::estimate(self.input_estimate, self.bytes);
            json::object(out, |o| {
                openai_usage::write(o, stop.usage.as_deref().unwrap_or(&estimate), openai_usage::Names::Chat)
            });
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl EncodeStream for Encoder {
    fn event(&mut self, event: &Event<'_>, out: &mut Vec<u8>) {
        match event {
            Event::Start(start) => self.start(start, out),
            Event::Open(block) => self.open(block, out),
            Event::Delta(delta) => self.delta(delta, out),
            Event::Close => {
                if let Open::Call { fed: false, custom: false } = self.open {
                    self.input("{}", false, out);
                }
                self.open = Open::Hidden;
            }
            Event::Stop(stop) => self.stop(stop, out),
            Event::Ping => out.extend_from_slice(b": ping\n\n"),
            Event::Error(failed) => {
                out.extend_from_slice(b"data: ");
                openai::error(failed, out);
                out.extend_from_slice(b"\n\n");
            }
        }
    }
}

/// Writes a whole answer.
pub(super) fn whole(message: &Message<'_>, front: &Front<'_>, out: &mut Vec<u8>) {
    let refused = message.parts.iter().any(|part| matches!(part.content, Content::Refusal(_)));
    json::object(out, |o| {
        o.str("id", &answer_id("chatcmpl-", &message.id, front.id)).str("object", "chat.completion");
        o.uint("created", front.created).str("model", front.model);
        o.list("choices", |list| {
            list.push_object(|o| {
                o.uint("index", 0).object("message", |o| said(o, &message.parts, front));
                o.null("logprobs").str("finish_reason", finish_reason(&message.stop.reason, refused));
            });
        });
        let estimate = Usage::estimate(front.input_estimate, message.text_bytes());
        o.object("usage", |o| {
            openai_usage::write(o, message.stop.usage.as_deref().unwrap_or(&estimate), openai_usage::Names::Chat)
        });
    });
}

fn said(o: &mut Writer<'_>, parts: &[Part<'_>], front: &Front<'_>) {
    let joined = |pick: for<'p> fn(&'p Content<'_>) -> Option<&'p str>| {
        let mut texts = parts.iter().filter_map(|part| pick(&part.content)).peekable();
        texts.peek().is_some().then(|| texts.collect::<String>())
    };
    let (text, refusal) = (joined(plain::text), joined(plain::refusal));
    o.str("role", "assistant").str_or_null("content", text.as_deref()).str_or_null("refusal", refusal.as_deref());
    let thought = joined(plain::thought).filter(|text| front.show_reasoning && !text.is_empty());
    o.str_if("reasoning_content", thought.as_deref());
    let calls = || {
        parts.iter().filter_map(|part| match &part.content {
            Content::Call(call) => Some(call),
            _ => None,
        })
    };
    if calls().next().is_none() {
        return;
    }
    o.list("tool_calls", |list| {
        for Call { id, name, input } in calls() {
            list.push_object(|o| call(o, id, name, input, true));
        }
    });
}
