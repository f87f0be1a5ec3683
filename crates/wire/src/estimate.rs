//! How many tokens a request comes to, where nobody counts them for us: never exact, and never zero.

use std::cell::Cell;

use crate::json::Json;
use crate::request::{Call, Content, Document, Format, Image, Input, Part, Request, Source, ToolKind, ToolResult};
use crate::vocabulary::Vocabulary;

/// Counts the tokens of texts: [`Classes`] at once, [`Words`] with a tokenizer.
pub trait Estimator {
    /// The tokens of a text: 0 for an empty one only.
    fn tokens(&self, text: &str) -> u64;

    /// What all texts so far come to, by the sum of what [`tokens`](Self::tokens) said of each.
    fn settle(&self, sum: u64) -> u64 {
        sum
    }
}

/// What a message, a tool, a call or a result costs beside its text.
const FRAME: u64 = 4;
/// What an image comes to: providers scale all of them down to about this.
const IMAGE: u64 = 1500;
/// Bytes of a binary document that make a token: a page of text with its pictures.
const DOCUMENT_BYTES: usize = 24;

/// The tokens of the whole prompt: at least 1.
pub fn request(request: &Request<'_>, estimator: &dyn Estimator) -> u64 {
    let count = Count { estimator, texts: Cell::new(0) };
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
    (sum + estimator.settle(count.texts.get())).max(1)
}

/// Adds up what a request consists of. Texts are summed apart, because their estimator has the last word on them.
struct Count<'e> {
    estimator: &'e dyn Estimator,
    texts: Cell<u64>,
}

impl Count<'_> {
    /// Adds a text to the texts; what is not text comes to nothing by it.
    fn text(&self, text: &str) -> u64 {
        self.texts.set(self.texts.get() + self.estimator.tokens(text));
        0
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

/// Counts with a tokenizer, but never more than so many bytes with it: of what is longer, it counts samples, and what is
/// between them comes out at the same rate to [`Classes`].
#[derive(Debug)]
pub struct Words {
    vocabulary: &'static Vocabulary,
    /// Every how many pieces one is counted.
    every: usize,
    /// How many pieces there have been.
    pieces: Cell<usize>,
    /// What the samples come to with the tokenizer, and to [`Classes`].
    sampled: Cell<(u64, u64)>,
}

impl Words {
    /// Bytes of a sample.
    const PIECE: usize = 512;

    /// For texts that come to at most `bytes` bytes, of which about `most` are to be counted with the tokenizer.
    pub fn new(bytes: usize, most: usize) -> Self {
        let (pieces, sampled) = (Cell::new(0), Cell::new((0, 0)));
        Self { vocabulary: Vocabulary::shared(), every: bytes.div_ceil(most.max(1)).max(1), pieces, sampled }
    }
}

impl Estimator for Words {
    fn tokens(&self, text: &str) -> u64 {
        if self.every == 1 {
            return self.vocabulary.tokens(text);
        }
        let (mut rest, mut sum) = (text, 0);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.floor_char_boundary(Self::PIECE));
            let (classes, nth) = (Classes.tokens(piece), self.pieces.get());
            if nth.is_multiple_of(self.every) {
                let (words, all) = self.sampled.get();
                self.sampled.set((words + self.vocabulary.tokens(piece), all + classes));
            }
            self.pieces.set(nth + 1);
            sum += classes;
            rest = more;
        }
        sum
    }

    fn settle(&self, sum: u64) -> u64 {
        match self.sampled.get() {
            (_, 0) => sum,
            (words, classes) => (u128::from(sum) * u128::from(words)).div_ceil(u128::from(classes)) as u64,
        }
    }
}

/// The beginning of a text that passes: what it comes to tells what all of it comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    bytes: [u8; Self::MOST],
    length: usize,
}

impl Sample {
    /// Bytes that are kept.
    const MOST: usize = 256;

    /// More of the text. Nearly always there is enough of it already.
    pub fn push(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(Self::MOST - self.length)];
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    /// More of the text, as it stands in a JSON string, from after its opening quote.
    pub fn push_json(&mut self, string: &[u8]) {
        let mut rest = &string[..string.len().min(Self::MOST)];
        while self.length < Self::MOST {
            let plain = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
            self.push(&rest[..plain]);
            let Some(escaped) = rest.get(plain..).and_then(|rest| rest.strip_prefix(b"\\")) else { return };
            // What it stands for does not matter here, but a line is no letter.
            let stands_for = match escaped.first() {
                Some(b'n' | b'r' | b't') => b"\n",
                _ => b"\"",
            };
            self.push(stands_for);
            let is_code = escaped.first() == Some(&b'u');
            rest = escaped.get(if is_code { 5 } else { 1 }..).unwrap_or_default();
        }
    }

    /// The tokens of a text of so many bytes that begins like this: with the tokenizer, if it is at hand.
    pub fn tokens(&self, bytes: u64) -> u64 {
        let text = self.bytes[..self.length].utf8_chunks().next().map_or("", |chunk| chunk.valid());
        if text.is_empty() {
            return bytes.div_ceil(4);
        }
        let tokens = Vocabulary::at_hand().map_or_else(|| Classes.tokens(text), |words| words.tokens(text));
        (u128::from(bytes) * u128::from(tokens)).div_ceil(text.len() as u128) as u64
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self { bytes: [0; Self::MOST], length: 0 }
    }
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sample({} bytes)", self.length)
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
    fn a_text_that_passed_is_estimated_by_its_beginning() {
        let sampled = |text: &str| {
            let (mut plain, mut escaped) = (Sample::default(), Sample::default());
            let json = serde_json::to_string(text).unwrap();
            for chunk in text.as_bytes().chunks(7) {
                plain.push(chunk);
            }
            escaped.push_json(&json.as_bytes()[1..]);
            [plain, escaped].map(|sample| sample.tokens(text.len() as u64))
        };
        assert_eq!(sampled(""), [0, 0]);
        for (text, about) in
            [("a text of words, and then more of them\n", 10), ("日本語の文章は漢字でできています", 12)]
        {
            for times in [1, 4, 50] {
                for tokens in sampled(&text.repeat(times)) {
                    assert!((about * times as u64).abs_diff(tokens) <= about * times as u64 * 2 / 5, "{text} {tokens}");
                }
            }
        }
        assert_eq!(Sample::default().tokens(9), 3, "nothing was kept");
    }

    #[test]
    fn of_a_long_text_samples_are_counted() {
        let prose = "The gateway keeps what it has received until the upstream has answered. ";
        let code = "    let Some(at) = self.slots.get(&key) else { return Err(Missing(key)) };\n";
        let texts: Vec<String> = (0..40).map(|n| [prose, code][n % 2].repeat(100)).collect();
        let all: usize = texts.iter().map(String::len).sum();
        let count = |words: &Words| words.settle(texts.iter().map(|text| words.tokens(text)).sum());
        let sampling = || Words::new(all, all / 8);
        let (exact, sampled) = (count(&Words::new(all, all)), count(&sampling()));
        assert_eq!(exact, texts.iter().map(|text| Vocabulary::shared().tokens(text)).sum::<u64>());
        assert!(sampled.abs_diff(exact) * 20 < exact, "{sampled}, not {exact}");
        assert_eq!(sampling().settle(0), 0);
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
