//! How many tokens a request comes to, where nobody counts them for us: never exact, and never zero.

use crate::json::Json;
use crate::request::{Call, Content, Document, Format, Image, Input, Part, Request, Source, ToolKind, ToolResult};

/// Counts the tokens of a text. A real tokenizer can stand here; [`Classes`] needs none.
pub trait Estimator {
    /// The tokens of a text: 0 for an empty one only.
    fn tokens(&self, text: &str) -> u64;
}

/// What a message, a tool, a call or a result costs beside its text.
const FRAME: u64 = 4;
/// What an image comes to: providers scale all of them down to about this.
const IMAGE: u64 = 1500;
/// Bytes of a binary document that make a token: a page of text with its pictures.
const DOCUMENT_BYTES: usize = 24;

/// The tokens of the whole prompt: at least 1.
pub fn request(request: &Request<'_>, estimator: &dyn Estimator) -> u64 {
    let count = Count(estimator);
    let mut sum = count.parts(&request.system);
    for turn in &request.turns {
        sum += FRAME + count.parts(&turn.parts);
    }
    for tool in &request.tools {
        sum += FRAME + count.text(&tool.name) + tool.description.as_deref().map_or(0, |text| count.text(text));
        sum += match &tool.kind {
            ToolKind::Function { schema, .. } => schema.as_ref().map_or(0, |json| count.json(json)),
            ToolKind::Custom { format } => format.as_ref().map_or(0, |json| count.json(json)),
            ToolKind::Server { definition, .. } => count.json(&definition.value),
        };
    }
    if let Format::JsonSchema { schema, .. } = &request.format {
        sum += FRAME + count.json(schema);
    }
    sum.max(1)
}

struct Count<'e>(&'e dyn Estimator);

impl Count<'_> {
    fn text(&self, text: &str) -> u64 {
        self.0.tokens(text)
    }

    fn json(&self, json: &Json<'_>) -> u64 {
        self.text(json.as_str())
    }

    fn parts(&self, parts: &[Part<'_>]) -> u64 {
        parts.iter().map(|part| self.content(&part.content)).sum()
    }

    fn content(&self, content: &Content<'_>) -> u64 {
        match content {
            Content::Text(text) => self.text(&text.text),
            Content::Refusal(text) => self.text(text),
            Content::Thinking(thinking) => self.text(&thinking.text),
            Content::Image(Image { .. }) => IMAGE,
            Content::Document(Document { source, title, context, .. }) => {
                let head = [title.as_deref(), context.as_deref()].into_iter().flatten();
                FRAME + head.map(|text| self.text(text)).sum::<u64>() + self.source(source)
            }
            Content::Call(Call { name, input, .. }) => {
                let input = match input {
                    Input::Json(json) => self.json(json),
                    Input::Text(text) | Input::Cut(text) => self.text(text),
                };
                FRAME + self.text(name) + input
            }
            Content::Result(ToolResult { content, .. }) => FRAME + self.parts(content),
            Content::Extra(extra) => self.json(&extra.value),
        }
    }

    fn source(&self, source: &Source<'_>) -> u64 {
        match source {
            Source::Base64 { data, .. } => IMAGE + (data.len() / 4 * 3 / DOCUMENT_BYTES) as u64,
            Source::Url(_) | Source::File(_) => IMAGE,
            Source::Text(text) => self.text(text),
            Source::Parts(parts) => self.parts(parts),
        }
    }
}

/// Counts by what tokenizers have in common: a short word is a token, so are three digits, a run of blanks and a pair of
/// signs; scripts that are written without blanks take about a token a character.
#[derive(Debug, Clone, Copy, Default)]
pub struct Classes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    Blank,
    Line,
    Sign,
    /// Letters of other alphabets.
    Letter,
    /// Scripts without blanks, and pictures.
    Dense,
}

/// The class of each ASCII character.
const ASCII: [Class; 128] = {
    let mut table = [Class::Sign; 128];
    let mut byte = 0;
    while byte < 128 {
        table[byte as usize] = match byte {
            b'a'..=b'z' => Class::Lower,
            b'A'..=b'Z' => Class::Upper,
            b'0'..=b'9' => Class::Digit,
            b' ' | b'\t' => Class::Blank,
            b'\n' | b'\r' => Class::Line,
            _ => Class::Sign,
        };
        byte += 1;
    }
    table
};

impl Class {
    /// The class of a character by the first of its bytes, and how many it has.
    fn of(first: u8) -> (Self, usize) {
        match first {
            0..0x80 => (ASCII[usize::from(first)], 1),
            0x80..0xe0 => (Self::Letter, 2),
            // Up to U+2FFF.
            0xe0..=0xe2 => (Self::Letter, 3),
            0xe3..0xf0 => (Self::Dense, 3),
            0xf0.. => (Self::Dense, 4),
        }
    }

    /// The tokens of so many characters of it.
    fn tokens(self, count: u64) -> u64 {
        match self {
            Self::Lower | Self::Upper => count.div_ceil(7),
            Self::Digit => count.div_ceil(3),
            // A single blank belongs to the word after it.
            Self::Blank if count == 1 => 0,
            Self::Blank => count.div_ceil(16),
            Self::Line => count.div_ceil(4),
            Self::Sign => count.div_ceil(2),
            Self::Letter => count.div_ceil(3),
            Self::Dense => count,
        }
    }
}

impl Estimator for Classes {
    fn tokens(&self, text: &str) -> u64 {
        let bytes = text.as_bytes();
        let (mut sum, mut class, mut count, mut at) = (0, Class::Blank, 0, 0);
        while at < bytes.len() {
            let (next, length) = Class::of(bytes[at]);
            at += length;
            // A capital letter begins a word and belongs to it.
            if next == class || (class == Class::Upper && next == Class::Lower && count == 1) {
                count += 1;
            } else {
                sum += class.tokens(count);
                count = 1;
            }
            class = next;
        }
        sum += class.tokens(count);
        sum.max(u64::from(!text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::Place;
    use crate::protocol::Protocol;
    use crate::request::{Role, Turn};

    #[test]
    fn texts_of_every_kind_are_estimated_near_what_tokenizers_say() {
        // The second number is what a tokenizer of 200,000 words gives.
        for (text, tokens) in [
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("fn main() {\n    println!(\"{}\", value);\n}\n", 15),
            ("https://example.org/path?x=1&y=2", 14),
            ("1234567890", 4),
            ("Привет, как дела?", 6),
            ("今日はいい天気ですね", 7),
            ("                    ", 1),
        ] {
            let got = Classes.tokens(text);
            assert!((tokens * 6 / 10..=tokens * 17 / 10 + 1).contains(&got), "{text:?}: {got}, not {tokens}");
        }
        assert_eq!((Classes.tokens(""), Classes.tokens(" ")), (0, 1));
    }

    #[test]
    fn no_request_is_for_nothing() {
        let mut empty = Request::new(Protocol::AnthropicMessages);
        assert_eq!(request(&empty, &Classes), 1);
        let place = Place::field("messages");
        let image = Image { source: Source::Url("x".into()), detail: None };
        let parts = vec![Part::new(Content::Image(image), place), Part::new("say", place)];
        empty.turns.push(Turn { role: Role::User, parts, extras: Vec::new(), place });
        assert_eq!(request(&empty, &Classes), FRAME + IMAGE + 1);
    }
}
