//! Text that does not stand in the open: behind the escapes of JSON, and in pieces over the events of a stream.
//!
//! What is found there is given as places in the body itself. So only these bytes change: every other byte of the body,
//! its events and its JSON stay as they are.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Values within values that are looked into.
const DEEPEST: usize = 64;
/// The names under which streams say a text piece by piece, whatever their protocol.
const TEXTS: [&[u8]; 13] = [
    b"arguments",
    b"content",
    b"delta",
    b"input",
    b"output",
    b"partial_json",
    b"reasoning",
    b"reasoning_content",
    b"reasoning_text",
    b"refusal",
    b"response",
    b"text",
    b"thinking",
];
/// The names of what tells texts apart that are said side by side.
const SIDES: [&[u8]; 5] = [b"content_index", b"index", b"item_id", b"output_index", b"summary_index"];

/// A part of a body that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) place: Range<usize>,
    /// Whether the mark stands there: where a match lies in several pieces, only in the first of them.
    pub(super) marked: bool,
}

/// In their order, none overlapping or touching another.
pub(super) fn merged(mut cuts: Vec<Cut>) -> Vec<Cut> {
    cuts.retain(|cut| !cut.place.is_empty());
    cuts.sort_unstable_by_key(|cut| (cut.place.start, cut.place.end));
    let mut all: Vec<Cut> = Vec::with_capacity(cuts.len());
    for cut in cuts {
        match all.last_mut() {
            Some(last) if cut.place.start <= last.place.end => {
                last.place.end = last.place.end.max(cut.place.end);
                last.marked |= cut.marked;
            }
            _ => all.push(cut),
        }
    }
    all
}

/// A text that stands in one or several places of a body, with the escapes of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spread(Vec<Range<usize>>);

/// A part of it: bytes that stand for themselves, or an escape.
enum Unit {
    Plain,
    Escape([u8; 4], usize),
}

impl Spread {
    /// All of a body of this length.
    pub(super) fn whole(len: usize) -> Self {
        Self(std::iter::once(0..len).collect())
    }

    /// The text without its escapes.
    pub(super) fn text(&self, body: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.0.iter().map(ExactSizeIterator::len).sum());
        self.each(body, |place, unit| match unit {
            Unit::Plain => text.extend_from_slice(&body[place]),
            Unit::Escape(bytes, len) => text.extend_from_slice(&bytes[..len]),
        });
        text
    }

    /// Where parts of the text, which are in order and apart, stand in the body. An escape goes as a whole.
    pub(super) fn places(&self, body: &[u8], parts: &[Cut]) -> Vec<Cut> {
        let (mut cuts, mut next, mut begun, mut at) = (Vec::new(), 0, false, 0);
        self.each(body, |place, unit| {
            let (len, plain) = match unit {
                Unit::Plain => (place.len(), true),
                Unit::Escape(_, len) => (len, false),
            };
            let end = at + len;
            while let Some(part) = parts.get(next).filter(|part| part.place.start < end) {
                let place = if plain {
                    let from = part.place.start.max(at) - at;
                    place.start + from..place.start + part.place.end.min(end) - at
                } else {
                    place.clone()
                };
                cuts.push(Cut { place, marked: part.marked && !begun });
                begun = part.place.end > end;
                if begun {
                    break;
                }
                next += 1;
            }
            at = end;
        });
        cuts
    }

    fn each(&self, body: &[u8], mut take: impl FnMut(Range<usize>, Unit)) {
        for piece in &self.0 {
            let mut at = piece.start;
            while at < piece.end {
                match memchr::memchr(b'\\', &body[at..piece.end]) {
                    None => {
                        take(at..piece.end, Unit::Plain);
                        break;
                    }
                    Some(0) => {
                        let (len, unit) = escape(&body[at..piece.end]);
                        take(at..at + len, unit);
                        at += len;
                    }
                    Some(before) => {
                        take(at..at + before, Unit::Plain);
                        at += before;
                    }
                }
            }
        }
    }
}

/// What an escape stands for, and its length. A backslash that begins none stands for itself.
fn escape(text: &[u8]) -> (usize, Unit) {
    let one = |byte: u8| (2, Unit::Escape([byte, 0, 0, 0], 1));
    match text.get(1) {
        Some(byte @ (b'"' | b'\\' | b'/')) => one(*byte),
        Some(b'b') => one(8),
        Some(b'f') => one(12),
        Some(b'n') => one(b'\n'),
        Some(b'r') => one(b'\r'),
        Some(b't') => one(b'\t'),
        Some(b'u') => match unit(&text[2..]) {
            None => (1, Unit::Plain),
            Some(first) => {
                let second = text.get(6..8).filter(|mark| *mark == br"\u").and_then(|_| unit(&text[8..]));
                let pair = second.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
                // A pair is one character; half of one is none.
                let pair = pair.filter(|c| c.len_utf16() == 2);
                let whole = pair.or(char::from_u32(first.into())).unwrap_or(char::REPLACEMENT_CHARACTER);
                let mut bytes = [0; 4];
                let len = whole.encode_utf8(&mut bytes).len();
                (if pair.is_some() { 12 } else { 6 }, Unit::Escape(bytes, len))
            }
        },
        _ => (1, Unit::Plain),
    }
}

/// Four hexadecimal digits.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.get(..4)?;
    digits.iter().try_fold(0, |n: u16, digit| Some((n << 4) | char::from(*digit).to_digit(16)? as u16))
}

/// The texts that a stream says in more than one piece: server-sent events, or one JSON object a line.
pub(super) fn streamed(body: &[u8]) -> Vec<Spread> {
    let mut texts: HashMap<u64, Spread> = HashMap::new();
    let (mut at, mut lines) = (0, 0);
    for line in body.split(|byte| *byte == b'\n') {
        let start = at;
        at += line.len() + 1;
        let data = line.strip_prefix(b"data:").unwrap_or(line);
        let lead = line.len() - data.len() + data.iter().take_while(|byte| **byte == b' ').count();
        if line.get(lead) != Some(&b'{') {
            continue;
        }
        lines += 1;
        let mut walk = Walk { body, at: start + lead, end: start + line.len(), found: Vec::new() };
        // Of an event that was cut, what is there is looked at.
        let _ = walk.value(b"", DEEPEST);
        for (key, place) in walk.found {
            texts.entry(key).or_default().0.push(place);
        }
    }
    if lines < 2 {
        return Vec::new();
    }
    texts.into_values().filter(|text| text.0.len() > 1).collect()
}

/// A walk through one JSON value, which finds the strings that are pieces of texts.
struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    end: usize,
    /// What tells the text from others, and where the inside of the string is.
    found: Vec<(u64, Range<usize>)>,
}

fn hashed(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Walk<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.at < self.end && self.body[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
        self.body[..self.end].get(self.at).copied()
    }

    /// A value under this name; how it tells the texts beside it apart from others.
    fn value(&mut self, name: &[u8], deep: usize) -> Option<u64> {
        let deep = deep.checked_sub(1)?;
        let is_side = SIDES.contains(&name);
        match self.peek()? {
            b'"' => {
                let place = self.string();
                if is_side {
                    return Some(hashed((name, &self.body[place])));
                }
                if TEXTS.contains(&name) {
                    self.found.push((hashed(name), place));
                }
            }
            b'{' => {
                let (first, mut sides) = (self.found.len(), 0);
                let whole = self.members(&mut sides, deep);
                for (key, _) in &mut self.found[first..] {
                    *key = key.wrapping_add(sides);
                }
                whole?;
            }
            b'[' => {
                self.at += 1;
                loop {
                    match self.peek()? {
                        b']' => break,
                        b',' => self.at += 1,
                        // A list of texts has the name of the list.
                        _ => drop(self.value(name, deep)?),
                    }
                }
                self.at += 1;
            }
            _ => {
                let rest = &self.body[self.at..self.end];
                let len = rest.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).unwrap_or(rest.len());
                let number = rest[..len].trim_ascii();
                self.at += len.max(1);
                if is_side {
                    return Some(hashed((name, number)));
                }
            }
        }
        Some(0)
    }

    /// The members of an object; what tells its texts apart is added to `sides`.
    fn members(&mut self, sides: &mut u64, deep: usize) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'}' => break self.at += 1,
                b',' => self.at += 1,
                b'"' => {
                    let (body, name) = (self.body, self.string());
                    if self.peek()? != b':' {
                        return None;
                    }
                    self.at += 1;
                    *sides = sides.wrapping_add(self.value(&body[name], deep)?);
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// The inside of a string. One that does not end is as long as the event.
    fn string(&mut self) -> Range<usize> {
        let start = self.at + 1;
        let mut at = start;
        while at < self.end {
            match memchr::memchr2(b'"', b'\\', &self.body[at..self.end]) {
                Some(found) if self.body[at + found] == b'\\' => at += found + 2,
                Some(found) => {
                    self.at = at + found + 1;
                    return start..at + found;
                }
                None => break,
            }
        }
        self.at = self.end;
        start..self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Vec<String> {
        let mut texts: Vec<String> = streamed(body.as_bytes())
            .iter()
            .map(|text| String::from_utf8(text.text(body.as_bytes())).unwrap())
            .collect();
        texts.sort_unstable();
        texts
    }

    #[test]
    fn escapes_are_what_they_stand_for() {
        let body = br#"a\"\\\/\b\f\n\r\t\u0041\u00e9\u20ac\ud83d\ude00\ud83d.\x\u12"#;
        let text = String::from_utf8(Spread::whole(body.len()).text(body)).unwrap();
        assert_eq!(text, "a\"\\/\u{8}\u{c}\n\r\tA\u{e9}\u{20ac}\u{1f600}\u{fffd}.\\x\\u12");
    }

    #[test]
    fn texts_that_are_said_side_by_side_are_told_apart() {
        let body = "event: x\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a\\n\"}}\n\n\
                    data: {\"index\":1,\"delta\":{\"partial_json\":\"{\"}}\n\ndata: {\"delta\":{\"text\":\"b\"},\"index\":0}\n\n\
                    data: {\"index\":1,\"delta\":{\"partial_json\":\"}\"}}\n\ndata: {\"index\":1,\"delta\":{\"text\":\"lone\"}}\n\n";
        assert_eq!(texts(body), ["a\nb", "{}"]);
        let chat = "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"x\"}},{\"index\":1,\"function\":{\"arguments\":\"1\"}}]}}]}\n\n\
                    data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"2\"}}]}}]}\n\n\
                    data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"y\"}}]}}]}\n\ndata: [DONE]\n\n";
        assert_eq!(texts(chat), ["12", "xy"]);
        let lines = "{\"message\":{\"content\":\"one \"}}\n{\"message\":{\"content\":\"two\"}}\n";
        assert_eq!(texts(lines), ["one two"]);
        assert!(texts("{\"content\":[{\"text\":\"a\"},{\"text\":\"b\"}]}").is_empty(), "one object is no stream");
    }

    #[test]
    fn of_an_event_that_was_cut_what_is_there_is_seen() {
        let body = "data: {\"index\":0,\"delta\":{\"text\":\"a\"}}\n\ndata: {\"index\":0,\"delta\":{\"text\":\"b";
        assert_eq!(texts(body), ["ab"]);
    }

    #[test]
    fn nothing_makes_the_walk_stumble() {
        let deep = "data: ".to_owned() + &"{\"text\":[".repeat(5000) + "\n{\"text\":\"a\"}\n";
        for body in ["data: {\n{", "{\"\n{\"a\"", "{\"a\":}\n{,}\n{\"text\"\n", "{\"text\":\"\\\n{\"text\":\"\\", &deep]
        {
            let _ = texts(body);
        }
    }
}
