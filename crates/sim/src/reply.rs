//! A whole answer of the model, and its two forms: one JSON object, or a stream of events.

use std::fmt::Write as _;
use std::iter;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::digest::{base64, sha256_hex};
use crate::script::{Block, SaidUsage, Turn};

/// A part of a body, and how long to wait before it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) after: Duration,
    pub(crate) bytes: Bytes,
}

pub(crate) type Pieces = Box<dyn Iterator<Item = Piece> + Send>;

impl Piece {
    pub(crate) fn now(bytes: impl Into<Bytes>) -> Self {
        Self { after: Duration::ZERO, bytes: bytes.into() }
    }
}

/// What the model says.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) blocks: Vec<Part>,
    pub(crate) stop_reason: String,
    pub(crate) usage: Usage,
}

/// A block with everything decided.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Text(String),
    Filler { deltas: u64, size: usize, fill: String },
    Thinking { text: String, signature: String },
    Redacted { data: String },
    Tool { id: String, name: String, input: String },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) thinking: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_5m: u64,
    pub(crate) cache_1h: u64,
}

/// The most that a generated text may measure where it has to be held whole.
const MAX_WHOLE: u64 = 128 << 20;

impl Reply {
    /// `offered` are the tools of the request, if it names any.
    pub(crate) fn new(turn: &Turn, key: &str, model: &str, input_tokens: u64, offered: Option<&[String]>) -> Self {
        let mut blocks = Vec::new();
        let mut tools = 0;
        for (place, block) in turn.blocks.iter().enumerate() {
            blocks.push(match block {
                Block::Text(text) => Part::Text(text.clone()),
                Block::Filler { deltas, size, fill } => {
                    Part::Filler { deltas: *deltas, size: *size, fill: fill.clone() }
                }
                Block::Thinking(text) => Part::Thinking { text: text.clone(), signature: signature(text) },
                Block::Redacted => Part::Redacted { data: base64(format!("sim-redacted-{key}-{place}").as_bytes()) },
                Block::Tool { names, input } => match choose_tool(names, offered) {
                    Some(name) => {
                        tools += 1;
                        let id = format!("toolu_sim_{}{place:02}", &key[..20]);
                        Part::Tool { id, name: name.clone(), input: input.clone() }
                    }
                    None => Part::Text(format!(
                        "The script calls the tool `{}`, which this request does not offer.",
                        names.join("` or `")
                    )),
                },
            });
        }
        if blocks.is_empty() && turn.stop.as_deref() != Some("refusal") {
            blocks.push(Part::Text(GREETING.to_owned()));
        }
        let natural = if tools > 0 { "tool_use" } else { "end_turn" };
        Self {
            id: format!("msg_sim_{}", &key[..20]),
            model: model.to_owned(),
            stop_reason: turn.stop.clone().unwrap_or_else(|| natural.to_owned()),
            usage: Usage::new(&turn.usage, input_tokens, &blocks),
            blocks,
        }
    }

    /// How long the text is if it is held whole.
    pub(crate) fn too_large_to_hold(&self) -> bool {
        let of = |part: &Part| match part {
            Part::Filler { deltas, size, .. } => deltas.saturating_mul(*size as u64),
            _ => 0,
        };
        self.blocks.iter().map(of).fold(0, u64::saturating_add) > MAX_WHOLE
    }

    /// The answer to a request without `stream`.
    pub(crate) fn whole(&self) -> String {
        let mut content = String::new();
        for part in &self.blocks {
            if !content.is_empty() {
                content.push(',');
            }
            match part {
                Part::Filler { .. } => content.push_str(&part.block(&part.all())),
                part => content.push_str(&part.block(part.said())),
            }
        }
        self.envelope(&content, Some(&self.stop_reason), self.usage.whole())
    }

    /// The answer to a request with `stream`: one piece for each event, the timing and the line ends as the turn says.
    pub(crate) fn events(&self, turn: &Turn) -> Pieces {
        let start = self.envelope("", None, self.usage.at_start());
        let mut events: Pieces = Box::new(iter::once(event("message_start", &format!(r#""message":{start}"#))));
        for (index, part) in self.blocks.iter().enumerate() {
            let shell = part.shell();
            let opened = event("content_block_start", &format!(r#""index":{index},"content_block":{shell}"#));
            // The provider sends a ping behind the start of the first block.
            let ping = (index == 0 && !turn.pings).then(ping);
            let closed = event("content_block_stop", &format!(r#""index":{index}"#));
            let block = iter::once(opened).chain(ping).chain(part.deltas(index, turn.size)).chain(iter::once(closed));
            events = Box::new(events.chain(block));
        }
        let (reason, sequence, details) = self.stop();
        let delta = event(
            "message_delta",
            &format!(
                r#""delta":{{"stop_reason":{reason},"stop_sequence":{sequence},"stop_details":{details}}},"usage":{}"#,
                self.usage.at_end()
            ),
        );
        events = Box::new(events.chain([delta, event("message_stop", "")]));
        dress(events, turn, PING)
    }

    fn stop(&self) -> (String, &'static str, &'static str) {
        let sequence = if self.stop_reason == "stop_sequence" { r#""STOP""# } else { "null" };
        let details = match self.stop_reason.as_str() {
            "refusal" => r#"{"type":"refusal","category":null,"explanation":"declined by the simulator's script"}"#,
            _ => "null",
        };
        (quoted(&self.stop_reason), sequence, details)
    }

    fn envelope(&self, content: &str, stop_reason: Option<&str>, usage: Value) -> String {
        let (reason, sequence, details) = match stop_reason {
            Some(_) => self.stop(),
            None => ("null".to_owned(), "null", "null"),
        };
        format!(
            r#"{{"id":{},"type":"message","role":"assistant","model":{},"content":[{content}],"stop_reason":{reason},"stop_sequence":{sequence},"stop_details":{details},"usage":{usage}}}"#,
            quoted(&self.id),
            quoted(&self.model),
        )
    }
}

/// What an unmarked prompt is told. It quotes nothing of the request.
const GREETING: &str = "Hello! This is the simulator speaking: no model runs here, and nothing left this machine. \
Your request arrived whole, and this text travelled back to you as a real stream would. \
Put a marker such as [[sim text=\"…\"]] into a prompt to choose the answer.";

fn choose_tool<'a>(names: &'a [String], offered: Option<&[String]>) -> Option<&'a String> {
    match offered {
        Some(offered) => names.iter().find(|name| offered.contains(name)),
        None => names.first(),
    }
}

/// The signature of a thinking text. The simulator knows its own when they come back.
pub(crate) fn signature(text: &str) -> String {
    base64(format!("sim-signature-{}", sha256_hex([b"sim".as_slice(), text.as_bytes()])).as_bytes())
}

/// How every signature of ours starts.
pub(crate) fn signature_start() -> String {
    // 12 bytes are a whole number of base64 groups.
    base64(b"sim-signatur")
}

impl Part {
    /// The text of the block as it is streamed; a generated one has none.
    fn said(&self) -> &str {
        match self {
            Self::Text(text) | Self::Thinking { text, .. } => text,
            Self::Tool { input, .. } => input,
            Self::Redacted { .. } | Self::Filler { .. } => "",
        }
    }

    /// The whole text of the block.
    pub(crate) fn all(&self) -> String {
        match self {
            Self::Filler { deltas, size, fill } => {
                filler(*size, fill).repeat(usize::try_from(*deltas).unwrap_or(usize::MAX))
            }
            part => part.said().to_owned(),
        }
    }

    /// The same in the pieces of a stream.
    pub(crate) fn pieces(&self, size: Option<usize>) -> Box<dyn Iterator<Item = String> + Send> {
        match self {
            Self::Filler { deltas, size, fill } => {
                let text = filler(*size, fill);
                Box::new((0..*deltas).map(move |_| text.clone()))
            }
            part => Box::new(split(part.said(), size).into_iter()),
        }
    }

    /// The block as it stands in a whole message.
    fn block(&self, text: &str) -> String {
        match self {
            Self::Text(_) | Self::Filler { .. } => format!(r#"{{"type":"text","text":{}}}"#, quoted(text)),
            Self::Thinking { signature, .. } => {
                format!(r#"{{"type":"thinking","thinking":{},"signature":{}}}"#, quoted(text), quoted(signature))
            }
            Self::Redacted { data } => format!(r#"{{"type":"redacted_thinking","data":{}}}"#, quoted(data)),
            Self::Tool { id, name, input } => {
                format!(r#"{{"type":"tool_use","id":{},"name":{},"input":{input}}}"#, quoted(id), quoted(name))
            }
        }
    }

    /// The block as a stream opens it.
    fn shell(&self) -> String {
        match self {
            Self::Tool { id, name, .. } => {
                Self::Tool { id: id.clone(), name: name.clone(), input: "{}".into() }.block("")
            }
            Self::Thinking { .. } => r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned(),
            part => part.block(""),
        }
    }

    fn deltas(&self, index: usize, size: Option<usize>) -> Pieces {
        let delta = move |kind: &str, field: &str, text: &str| {
            let text = quoted(text);
            event("content_block_delta", &format!(r#""index":{index},"delta":{{"type":"{kind}","{field}":{text}}}"#))
        };
        match self {
            Self::Text(text) => {
                let texts = split(text, size);
                Box::new(texts.into_iter().map(move |text| delta("text_delta", "text", &text)))
            }
            Self::Filler { deltas, size, fill } => {
                let piece = delta("text_delta", "text", &filler(*size, fill));
                Box::new((0..*deltas).map(move |_| piece.clone()))
            }
            Self::Thinking { text, signature } => {
                let texts = split(text, size).into_iter().map(move |text| delta("thinking_delta", "thinking", &text));
                Box::new(texts.chain(iter::once(delta("signature_delta", "signature", signature))))
            }
            Self::Redacted { .. } => Box::new(iter::empty()),
            // The first fragment is empty, as the provider's is.
            Self::Tool { input, .. } if input == "{}" => {
                Box::new(iter::once(delta("input_json_delta", "partial_json", "")))
            }
            Self::Tool { input, .. } => {
                let texts = iter::once(String::new()).chain(split(input, size));
                Box::new(texts.map(move |text| delta("input_json_delta", "partial_json", &text)))
            }
        }
    }
}

impl Usage {
    fn new(said: &SaidUsage, input: u64, blocks: &[Part]) -> Self {
        let tokens = |part: &Part| match part {
            Part::Filler { deltas, size, .. } => deltas.saturating_mul(*size as u64).div_ceil(4),
            part => part.said().len().div_ceil(4) as u64,
        };
        let thinking: u64 = blocks.iter().filter(|part| matches!(part, Part::Thinking { .. })).map(tokens).sum();
        let all = blocks.iter().map(tokens).fold(0, u64::saturating_add).max(1);
        let thinking = said.thinking.unwrap_or(thinking);
        Self {
            input: said.input.unwrap_or(input),
            output: said.output.unwrap_or(all.max(thinking)),
            thinking,
            cache_read: said.cache_read,
            cache_5m: said.cache_5m,
            cache_1h: said.cache_1h,
        }
    }

    fn at_start(&self) -> Value {
        let mut usage = self.whole();
        usage["output_tokens"] = 1.into();
        if let Some(usage) = usage.as_object_mut() {
            usage.remove("output_tokens_details");
        }
        usage
    }

    fn whole(&self) -> Value {
        let mut usage = json!({
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.cache_5m + self.cache_1h,
            "cache_read_input_tokens": self.cache_read,
            "cache_creation": {"ephemeral_5m_input_tokens": self.cache_5m, "ephemeral_1h_input_tokens": self.cache_1h},
            "output_tokens": self.output,
            "service_tier": "standard",
            "inference_geo": "global",
        });
        if self.thinking > 0 {
            usage["output_tokens_details"] = json!({"thinking_tokens": self.thinking});
        }
        usage
    }

    /// Running totals, as the last event of a stream repeats them.
    fn at_end(&self) -> Value {
        let mut usage = self.whole();
        if let Some(usage) = usage.as_object_mut() {
            for start_only in ["cache_creation", "service_tier", "inference_geo"] {
                usage.remove(start_only);
            }
        }
        usage
    }
}

/// `fields` are the inside of the object behind its `type`.
pub(crate) fn event(name: &str, fields: &str) -> Piece {
    let mut text = String::with_capacity(fields.len() + 2 * name.len() + 40);
    let comma = if fields.is_empty() { "" } else { "," };
    write!(text, "event: {name}\ndata: {{\"type\":\"{name}\"{comma}{fields}}}\n\n").expect("a string takes all");
    Piece::now(text)
}

const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

fn ping() -> Piece {
    Piece::now(PING)
}

/// The timing, the line ends and the pings that the turn asks for; `alive` is how the protocol writes one.
pub(crate) fn dress(events: Pieces, turn: &Turn, alive: &'static str) -> Pieces {
    let (first, every, crlf) = (turn.first, turn.every, turn.crlf);
    let mut dressed = events;
    if turn.pings && !alive.is_empty() {
        let mut behind_first = false;
        dressed = Box::new(dressed.flat_map(move |event| {
            let ping = behind_first.then(|| Piece::now(alive));
            behind_first = true;
            ping.into_iter().chain(iter::once(event))
        }));
    }
    if crlf {
        dressed = Box::new(dressed.map(|piece| {
            // JSON holds no raw line feed, so every one in an event is a line's end.
            let text = String::from_utf8_lossy(&piece.bytes).replace('\n', "\r\n");
            Piece { bytes: text.into(), ..piece }
        }));
    }
    let mut at_first = true;
    Box::new(dressed.map(move |piece| {
        let after = if std::mem::take(&mut at_first) { first } else { every };
        Piece { after, ..piece }
    }))
}

/// An event with an error in it.
pub(crate) fn error_event(kind: &str, message: &str, request_id: &str) -> Piece {
    let (kind, message, id) = (quoted(kind), quoted(message), quoted(request_id));
    event("error", &format!(r#""error":{{"type":{kind},"message":{message}}},"request_id":{id}"#))
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `size` bytes made of whole characters of `fill`, and full stops for what is left over.
fn filler(size: usize, fill: &str) -> String {
    let mut text = fill.repeat(size / fill.len() + 1);
    let mut end = size;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.extend(iter::repeat_n('.', size - end));
    text
}

/// The deltas of a text: words with the space behind them, or pieces of about `size` bytes.
fn split(text: &str, size: Option<usize>) -> Vec<String> {
    let mut deltas = Vec::new();
    let mut delta = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        delta.push(c);
        let full = match size {
            Some(size) => delta.len() >= size,
            None => delta.len() >= 24 || (c.is_whitespace() && chars.peek().is_some_and(|next| !next.is_whitespace())),
        };
        if full {
            deltas.push(std::mem::take(&mut delta));
        }
    }
    if !delta.is_empty() {
        deltas.push(delta);
    }
    deltas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_text_has_exactly_its_size() {
        for size in 1..40 {
            assert_eq!(filler(size, "é🚀 x").len(), size);
        }
    }

    #[test]
    fn the_deltas_of_a_text_join_to_it() {
        let text = "Grüße  to 日本語, and a-word-that-is-longer-than-a-delta-may-be\n";
        for size in [None, Some(1), Some(5), Some(1000)] {
            assert_eq!(split(text, size).concat(), text);
        }
        assert_eq!(split("one two", None), ["one ", "two"]);
        assert!(split("", None).is_empty());
    }

    #[test]
    fn the_start_of_a_signature_is_that_of_all() {
        assert!(signature("any").starts_with(&signature_start()));
    }
}
