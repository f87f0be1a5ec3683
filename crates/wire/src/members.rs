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

/// Walks over one object.
pub(crate) struct Members<'a> {
    text: &'a [u8],
    at: usize,
    state: State,
    /// Whether nothing may follow the object.
    is_all: bool,
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
        Self { text, at: 0, state: State::Before, is_all: true }
    }

    /// The next member; `None` behind the last one. What came before a fault was there all the same.
    pub(crate) fn next(&mut self) -> Result<Option<Member<'a>>, Malformed> {
        let Some(key) = self.key()? else { return Ok(None) };
        let span = self.value()?;
        Ok(Some(Member { key, value: &self.text[span.clone()], span }))
    }

    /// The key of the next member; its value has to be asked for before the next key is.
    pub(crate) fn key(&mut self) -> Result<Option<Cow<'a, [u8]>>, Malformed> {
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
        let start = self.at;
        let string = string(self.text, start).ok_or(Malformed)?;
        let key = &self.text[start + 1..string.end - 1];
        let key = match string.is_plain || !key.contains(&b'\\') {
            true => Cow::Borrowed(key),
            false => unescaped(key),
        };
        self.at = string.end;
        self.byte(b':')?;
        self.space();
        Ok(Some(key))
    }

    /// Where the value lies whose key was read.
    fn value(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at;
        self.at = value(self.text, start).ok_or(Malformed)?;
        Ok(start..self.at)
    }

    /// The value whose key was read.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        self.value().map(|span| &self.text[span])
    }

    /// What `read` makes of the members of the object whose key was read, which it walks over to the end; `None` for
    /// `null`. What it cannot read is skipped, as what is no object is.
    pub(crate) fn object<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<Result<T, Malformed>>, Malformed> {
        let mut members = Self { text: self.text, at: self.at, state: State::Before, is_all: false };
        if let Ok(read) = read(&mut members) {
            self.at = members.at;
            return Ok(Some(Ok(read)));
        }
        Ok((self.text()? != b"null").then_some(Err(Malformed)))
    }

    fn end<T>(&mut self) -> Result<Option<T>, Malformed> {
        self.state = State::Over;
        if self.is_all && self.peek().is_some() { Err(Malformed) } else { Ok(None) }
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
}

/// A string token.
struct Token {
    /// Behind its closing quote.
    end: usize,
    /// Whether it is known to have no escapes.
    is_plain: bool,
}

/// Bytes of a string that are looked at eight by eight. Most strings are names and short words, for which a search for
/// one byte in a long text takes long to begin.
const SHORT: usize = 64;

/// The string token whose opening quote is at `start`.
#[inline]
fn string(text: &[u8], start: usize) -> Option<Token> {
    let inside = text.get(start..)?.strip_prefix(b"\"")?;
    let plain = plain(&inside[..inside.len().min(SHORT)]);
    if inside.get(plain) == Some(&b'"') {
        return Some(Token { end: start + plain + 2, is_plain: true });
    }
    Some(Token { end: start + 1 + long(inside, plain)?, is_plain: false })
}

/// Behind the closing quote of a string, from after its opening quote; the first bytes are known to have none.
#[inline(never)]
fn long(inside: &[u8], known: usize) -> Option<usize> {
    // Texts are full of escaped line ends, which need no look: only what stands before a quote decides about it.
    for quote in memchr_iter(b'"', &inside[known..]) {
        let quote = known + quote;
        let escapes = inside[..quote].iter().rev().take_while(|byte| **byte == b'\\').count();
        if escapes.is_multiple_of(2) {
            return Some(quote + 1);
        }
    }
    None
}

/// How many bytes come before the first quote or backslash.
fn plain(text: &[u8]) -> usize {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // Sets the highest bit of the first byte that is zero, and perhaps of some above it.
    let zeros = |eight: u64| eight.wrapping_sub(each(1)) & !eight & each(0x80);
    let (eights, rest) = text.as_chunks();
    for (n, eight) in eights.iter().enumerate() {
        let eight = u64::from_le_bytes(*eight);
        let hits = zeros(eight ^ each(b'"')) | zeros(eight ^ each(b'\\'));
        if hits != 0 {
            return n * 8 + hits.trailing_zeros() as usize / 8;
        }
    }
    eights.len() * 8 + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count()
}

/// What a byte means to what looks for the end of a value.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    Quote,
    Open,
    Close,
    /// What can stand after a value.
    After,
}

static KINDS: [Kind; 256] = {
    let mut kinds = [Kind::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'"' => Kind::Quote,
            b'{' | b'[' => Kind::Open,
            b'}' | b']' => Kind::Close,
            b',' | b' ' | b'\t' | b'\n' | b'\r' => Kind::After,
            _ => Kind::Plain,
        };
        byte += 1;
    }
    kinds
};

/// Where the value ends that begins at `start`; what is nested in it is skipped by counting brackets outside of strings.
fn value(text: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0usize);
    loop {
        match KINDS[usize::from(*text.get(at)?)] {
            Kind::Plain => at += 1,
            Kind::Quote => {
                at = string(text, at)?.end;
                if depth == 0 {
                    return Some(at);
                }
            }
            Kind::After if depth > 0 => at += 1,
            Kind::Open => {
                depth += 1;
                at += 1;
            }
            Kind::Close if depth > 0 => {
                depth -= 1;
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            Kind::Close | Kind::After => return (at > start).then_some(at),
        }
    }
}

/// The text of a JSON string token; `None` where it is none.
pub(crate) fn text(token: &[u8]) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix(b"\"").and_then(|token| token.strip_suffix(b"\""))?;
    match inner[plain(inner)..].contains(&b'\\') {
        true => unescape(inner).map(Cow::Owned),
        false => std::str::from_utf8(inner).ok().map(Cow::Borrowed),
    }
}

/// A key that has escapes.
#[inline(never)]
fn unescaped(key: &[u8]) -> Cow<'_, [u8]> {
    Cow::Owned(unescape(key).unwrap_or_default().into_bytes())
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
