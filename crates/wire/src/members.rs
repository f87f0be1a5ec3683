//! The members of a JSON object one by one, borrowed: what nobody asks for is skipped by its brackets and never parsed.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr_iter;

/// Text that is no JSON object as far as this pass can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A key and its value, as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// The key, with its escapes undone; one whose escapes are wrong is empty.
    pub(crate) key: Cow<'a, [u8]>,
    /// The value's text, without the space around it.
    pub(crate) value: &'a [u8],
    /// Where that lies.
    pub(crate) span: Range<usize>,
}

/// Walks over one object, which has to be all of the text.
pub(crate) struct Members<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    Over,
}

impl<'a> Members<'a> {
    /// Of an object that is all of this text.
    pub(crate) fn of(text: &'a [u8]) -> Self {
        Self { text, at: 0, state: State::Before }
    }

    /// The next member; `None` behind the last one. What came before a fault was there all the same.
    pub(crate) fn next(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        match self.state {
            State::Over => return Ok(None),
            State::Before => {
                self.byte(b'{')?;
                if self.peek() == Some(b'}') {
                    self.at += 1;
                    return self.end();
                }
                self.state = State::Within;
            }
            State::Within => match self.any()? {
                b',' => {}
                b'}' => return self.end(),
                _ => return Err(Malformed),
            },
        }
        self.space();
        let key = self.string()?;
        let key = &self.text[key.start + 1..key.end - 1];
        let key = match key.contains(&b'\\') {
            true => Cow::Owned(unescape(key).unwrap_or_default().into_bytes()),
            false => Cow::Borrowed(key),
        };
        self.byte(b':')?;
        let span = self.value()?;
        Ok(Some(Member { key, value: &self.text[span.clone()], span }))
    }

    fn end(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        self.state = State::Over;
        if self.peek().is_none() { Ok(None) } else { Err(Malformed) }
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    fn any(&mut self) -> Result<u8, Malformed> {
        let byte = self.peek().ok_or(Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn byte(&mut self, want: u8) -> Result<(), Malformed> {
        if self.any()? == want { Ok(()) } else { Err(Malformed) }
    }

    /// The string token at the cursor, with its quotes.
    fn string(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        if self.text.get(start) != Some(&b'"') {
            return Err(Malformed);
        }
        // Texts are full of escaped line ends, which need no look: only what stands before a quote decides about it.
        for quote in memchr_iter(b'"', &self.text[start + 1..]) {
            let inner = &self.text[start + 1..start + 1 + quote];
            let escapes = inner.iter().rev().take_while(|byte| **byte == b'\\').count();
            if escapes.is_multiple_of(2) {
                self.at = start + quote + 2;
                return Ok(start..self.at);
            }
        }
        Err(Malformed)
    }

    /// The value at the cursor; what is nested in it is skipped by counting brackets outside of strings.
    fn value(&mut self) -> Result<Range<usize>, Malformed> {
        self.space();
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.string()?;
                    if depth == 0 {
                        break;
                    }
                }
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') if depth == 0 => break,
                Some(_) => self.at += 1,
                None => return Err(Malformed),
            }
        }
        if self.at == start { Err(Malformed) } else { Ok(start..self.at) }
    }
}

/// The text of a JSON string token; `None` where it is none.
pub(crate) fn text(token: &[u8]) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\""))?;
    match inner.contains(&b'\\') {
        true => unescape(inner).map(Cow::Owned),
        false => std::str::from_utf8(inner).ok().map(Cow::Borrowed),
    }
}

/// The text between the quotes of a JSON string token that has escapes; `None` where it is not valid.
fn unescape(inner: &[u8]) -> Option<String> {
    let mut token = Vec::with_capacity(inner.len() + 2);
    token.push(b'"');
    token.extend_from_slice(inner);
    token.push(b'"');
    serde_json::from_slice(&token).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    fn all(text: &[u8]) -> (Vec<(String, String)>, bool) {
        let (mut members, mut seen) = (Members::of(text), Vec::new());
        loop {
            match members.next() {
                Ok(Some(Member { key, value, span })) => {
                    assert_eq!(&text[span], value);
                    let word = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    seen.push((word(&key), word(value)));
                }
                Ok(None) => return (seen, true),
                Err(Malformed) => return (seen, false),
            }
        }
    }

    #[track_caller]
    fn check(text: &str, want: &[(&str, &str)], is_whole: bool) {
        let want: Vec<_> = want.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(all(text.as_bytes()), (want, is_whole), "{text}");
    }

    #[test]
    fn each_member_comes_as_it_is_written() {
        check(r#" { "a" : [1,{"b":"}"}] ,"c\u0064":"x\"" } "#, &[("a", r#"[1,{"b":"}"}]"#), ("cd", r#""x\"""#)], true);
        check("{}", &[], true);
        check(r#"{"a":1}"#, &[("a", "1")], true);
        check(r#"{"a":1} x"#, &[("a", "1")], false);
        check(r#"{"a":1,"b"#, &[("a", "1")], false);
        check(r#"{"a":1,}"#, &[("a", "1")], false);
        check(r#"{"a":}"#, &[], false);
        check("[]", &[], false);
        check("", &[], false);
        check(r#"{"\ud800":1}"#, &[("", "1")], true);
    }

    #[test]
    fn a_text_is_that_of_a_string_and_of_nothing_else() {
        assert_eq!(text(br#""a\n""#).as_deref(), Some("a\n"));
        assert!(matches!(text(b"\"plain\""), Some(Cow::Borrowed("plain"))));
        for none in [&b"7"[..], b"null", b"\"", b"", b"\"\xff\"", br#""\x""#] {
            assert_eq!(text(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_over_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            all(&bytes);
        }

        #[test]
        fn the_members_are_those_that_a_parser_sees(keys in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..6), pretty in any::<bool>()) {
            let object: Map<String, Value> = keys.iter().map(|(key, text)| (key.clone(), serde_json::json!([{ "x": text }, text]))).collect();
            let written = if pretty { serde_json::to_vec_pretty(&object) } else { serde_json::to_vec(&object) }.unwrap();
            let (seen, is_whole) = all(&written);
            prop_assert!(is_whole);
            let read: Map<String, Value> = seen.into_iter().map(|(key, value)| (key, serde_json::from_str(&value).unwrap())).collect();
            prop_assert_eq!(read, object);
        }
    }
}
