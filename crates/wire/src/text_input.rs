//! Takes plain text out of an object with the one string `input`, while it arrives in pieces.
//!
//! A tool that takes plain text is sent as such a function to upstreams that know functions only; its calls come back as
//! JSON, and are turned into text again without waiting for their end.

use crate::json::Json;

/// Reads the input of one call.
#[derive(Debug, Default)]
pub struct TextInput {
    state: State,
    /// What cannot be understood yet: the beginning of the object, or half an escape.
    pending: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Before,
    Within,
    After,
    /// It is something else: it is handed on as it is.
    Other,
}

impl TextInput {
    /// The next piece; what it has of the text is appended to `out`.
    pub fn push(&mut self, piece: &str, out: &mut String) {
        match self.state {
            State::After => {}
            State::Other => out.push_str(piece),
            State::Before => {
                self.pending.push_str(piece);
                match opening(&self.pending) {
                    Opening::Partial => {}
                    Opening::Whole(at) => {
                        let rest = self.pending.split_off(at);
                        self.pending.clear();
                        self.state = State::Within;
                        self.within(&rest, out);
                    }
                    Opening::Other => {
                        self.state = State::Other;
                        out.push_str(&std::mem::take(&mut self.pending));
                    }
                }
            }
            State::Within => {
                if self.pending.is_empty() {
                    return self.within(piece, out);
                }
                let mut text = std::mem::take(&mut self.pending);
                text.push_str(piece);
                self.within(&text, out);
            }
        }
    }

    /// There are no more pieces.
    pub fn end(&mut self, out: &mut String) {
        if self.state == State::Before {
            // An object with more in it, or in another order, is read after all.
            #[derive(serde::Deserialize)]
            struct Whole {
                input: String,
            }
            let pending = std::mem::take(&mut self.pending);
            let whole = Json::parse(&*pending).and_then(|json| json.read::<Whole>().ok());
            out.push_str(&whole.map_or(pending, |whole| whole.input));
        }
        self.state = State::After;
    }

    fn within(&mut self, text: &str, out: &mut String) {
        let mut rest = text;
        while let Some(at) = rest.find(['"', '\\']) {
            out.push_str(&rest[..at]);
            rest = &rest[at..];
            if rest.starts_with('"') {
                self.state = State::After;
                return;
            }
            match unescape(rest) {
                Some((c, length)) => {
                    out.push(c);
                    rest = &rest[length..];
                }
                None => {
                    self.pending.push_str(rest);
                    return;
                }
            }
        }
        out.push_str(rest);
    }
}

enum Opening {
    Partial,
    Whole(usize),
    Other,
}

/// Looks for `{"input":"` with white space wherever JSON allows it.
fn opening(text: &str) -> Opening {
    let mut rest = text;
    for token in ["{", "\"input\"", ":", "\""] {
        rest = rest.trim_ascii_start();
        match rest.strip_prefix(token) {
            Some(after) => rest = after,
            // Another order of members, or another type: the end will tell.
            None if token.starts_with(rest) || text.trim_ascii_start().starts_with('{') => return Opening::Partial,
            None => return Opening::Other,
        }
    }
    Opening::Whole(text.len() - rest.len())
}

/// The character of the escape at the beginning of `text`, and its length; `None` where it is not whole yet.
fn unescape(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let c = match text.as_bytes().get(1)? {
        b'n' => '\n',
        b't' => '\t',
        b'r' => '\r',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'u' => {
            if text.len() < 6 {
                return None;
            }
            let Some(first) = unit(0) else { return Some(('u', 2)) };
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER), 6));
            }
            let second = &text[6..text.floor_char_boundary(8)];
            if text.len() < 12 && ("\\u".starts_with(second)) {
                return None;
            }
            let pair = unit(6).and_then(|second| char::decode_utf16([first, second]).next()?.ok());
            return Some(pair.map_or((char::REPLACEMENT_CHARACTER, 6), |c| (c, 12)));
        }
        // Quote, backslash, slash; and whatever is no escape stands for itself.
        _ => {
            let c = text[1..].chars().next()?;
            return Some((c, 1 + c.len_utf8()));
        }
    };
    Some((c, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&str]) -> String {
        let (mut input, mut out) = (TextInput::default(), String::new());
        pieces.iter().for_each(|piece| input.push(piece, &mut out));
        input.end(&mut out);
        out
    }

    #[test]
    fn the_text_is_read_however_the_object_is_written() {
        assert_eq!(read(&["{\"input\":\"a\\n\\\"b\\\"\\u00e9\\ud83d\\ude00\"}"]), "a\n\"b\"é😀");
        assert_eq!(read(&[" { ", "\"in", "put\" : ", "\"", "x\\", "ty", "\" }"]), "x\ty");
        assert_eq!(read(&["{\"reason\":1,", "\"input\":\"late\"}"]), "late");
        assert_eq!(read(&["{\"other\":1}"]), "{\"other\":1}");
        assert_eq!(read(&["plain ", "text"]), "plain text");
        assert_eq!(read(&["{\"input\":\"\\ud800x\\ud800\\n\"}"]), "\u{fffd}x\u{fffd}\n");
        assert_eq!(read(&[]), "");
        assert_eq!(read(&["{\"input\":\"cut \\u00"]), "cut ");
    }

    #[test]
    fn the_text_does_not_wait_for_its_end() {
        let (mut input, mut out) = (TextInput::default(), String::new());
        input.push("{\"input\":\"*** Begin", &mut out);
        assert_eq!(out, "*** Begin");
    }

    proptest! {
        #[test]
        fn any_text_is_the_same_wherever_it_is_cut(
            text in "[a\"\\\\\\n\u{e9}\u{1f600}\\x01]{0,20}",
            cuts in proptest::collection::vec(0..200usize, 0..4),
        ) {
            let mut json = Vec::new();
            crate::json::object(&mut json, |o| { o.str("input", &text); });
            let json = String::from_utf8(json).unwrap().replace('\u{1f600}', "\\ud83d\\ude00");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| json.floor_char_boundary(c)).collect();
            cuts.sort_unstable();
            let (mut pieces, mut at) = (vec![], 0);
            for cut in cuts { pieces.push(&json[at..cut]); at = cut; }
            pieces.push(&json[at..]);
            prop_assert_eq!(read(&pieces), text);
        }

        #[test]
        fn nothing_panics(pieces in proptest::collection::vec("[{\"inputu:\\\\d8éx ]{0,12}", 0..6)) {
            read(&pieces.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
