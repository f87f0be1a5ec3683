//! What must not be kept is taken out before anything is stored: patterns of the user in bodies, credentials in heads.
//!
//! Patterns see a body as it is, without the escapes of JSON (also those of JSON that stands within its strings), and
//! the texts of a stream as they come together from its events. Where something is taken out, the mark takes its place
//! in the body as it is: events stay events, and JSON stays JSON.

mod within;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use self::within::{Cut, Spread, merged, streamed};

use regex::bytes::{Regex, RegexBuilder};

/// What stands where something was taken out. It fits into a JSON string as it is.
pub const MARK: &[u8] = b"[redacted]";
/// What stands where a header's value was.
const MASK: &[u8] = b"***";

/// More patterns than this are refused: each costs a pass over every body.
const MAX_PATTERNS: usize = 64;
/// JSON within strings of JSON is looked into so deep.
const WITHIN: usize = 3;
/// Compiled patterns beyond this size are refused.
const MAX_COMPILED: usize = 1 << 20;

/// A regular expression over bytes. The time that a search takes is proportional to what is searched, whatever it says.
pub struct Pattern(Regex);

/// A pattern may itself be what nobody should read.
impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern(…)")
    }
}

/// A pattern that is not used. Says which and why, without repeating it: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// Its place in the list, from 0.
    pub index: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pattern {} is not used: {}", self.index + 1, self.message)
    }
}

impl std::error::Error for BadPattern {}

impl Pattern {
    /// Compiles one pattern (syntax of the `regex` crate; look-around and back references do not exist).
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let bad = |message: &str| Err(BadPattern { index: 0, message: message.into() });
        match RegexBuilder::new(pattern).size_limit(MAX_COMPILED).dfa_size_limit(MAX_COMPILED).build() {
            Ok(regex) if regex.is_match(b"") => {
                bad("it matches where nothing is: let it ask for at least one character")
            }
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => bad("it is too large when compiled: make its repetitions smaller"),
            Err(regex::Error::Syntax(said)) => {
                // The last line says what is wrong; those before repeat the pattern.
                let why = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                bad(&format!("{why}: correct it"))
            }
            Err(_) => bad("it is no regular expression: correct it"),
        }
    }

    /// Where it matches first.
    pub fn find(&self, text: &[u8]) -> Option<Range<usize>> {
        self.0.find(text).map(|found| found.range())
    }
}

/// The patterns of `audit.redact`.
#[derive(Debug, Default)]
pub struct Redactor {
    patterns: Vec<Pattern>,
}

impl Redactor {
    /// Compiles all patterns; the first that cannot be used is the error.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, BadPattern> {
        if patterns.len() > MAX_PATTERNS {
            let message = format!("there are more than {MAX_PATTERNS}: join some with `|`");
            return Err(BadPattern { index: MAX_PATTERNS, message });
        }
        let compiled = patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| Pattern::new(pattern.as_ref()).map_err(|bad| BadPattern { index, ..bad }));
        Ok(Self { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The body without what any of the patterns matches; `None` where none does. Matches that touch or overlap become
    /// one mark, so that no pattern shields a part of what another one means. Beside the body, this takes the memory of
    /// its decoded text, at most [`WITHIN`] times.
    pub fn apply(&self, body: &[u8]) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let mut cuts = self.cuts(body, WITHIN);
        for text in streamed(body) {
            cuts.extend(text.places(body, &self.cuts(&text.text(body), WITHIN)));
        }
        if cuts.is_empty() {
            return None;
        }
        let (mut clean, mut kept) = (Vec::with_capacity(body.len()), 0);
        for Cut { place, marked } in merged(cuts) {
            clean.extend_from_slice(&body[kept..place.start]);
            if marked {
                clean.extend_from_slice(MARK);
            }
            kept = place.end;
        }
        clean.extend_from_slice(&body[kept..]);
        Some(clean)
    }

    /// A text that is kept outside of bodies, such as the name of a session.
    pub fn clean(&self, text: &mut Box<str>) {
        if !self.is_empty()
            && let Some(clean) = self.apply(text.as_bytes())
        {
            *text = String::from_utf8_lossy(&clean).into();
        }
    }

    /// What goes, as it is and without the escapes.
    fn cuts(&self, text: &[u8], deep: usize) -> Vec<Cut> {
        let found = |pattern: &Pattern| pattern.0.find_iter(text).map(|one| one.range()).collect::<Vec<_>>();
        let found = self.patterns.iter().flat_map(found);
        let mut cuts: Vec<Cut> = found.map(|place| Cut { place, marked: true }).collect();
        if deep > 0 && memchr::memchr(b'\\', text).is_some() {
            let whole = Spread::whole(text.len());
            cuts.extend(whole.places(text, &self.cuts(&whole.text(text), deep - 1)));
        }
        merged(cuts)
    }
}

/// Headers whose value is shown. Of any other, only the name is kept: a header that nobody thought of may be a key.
const SHOWN: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "anthropic-version",
    "cache-control",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "host",
    "openai-beta",
    "openai-model",
    "openai-processing-ms",
    "openai-version",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "server",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "x-accel-buffering",
    "x-app",
    "x-request-id",
    "x-should-retry",
];
/// Families of headers whose value is shown.
const SHOWN_FAMILIES: &[&str] = &["anthropic-ratelimit-", "x-cco-", "x-claude-code-", "x-ratelimit-", "x-stainless-"];
/// Words that make a header's name the name of a secret, also within a family.
const SECRET_WORDS: &[&str] =
    &["apikey", "auth", "bearer", "cookie", "credential", "jwt", "key", "passw", "secret", "signature", "token"];

/// Whether the value of a header of this name may be kept.
pub fn is_shown(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if SHOWN.contains(&name.as_str()) {
        return true;
    }
    let Some(rest) = SHOWN_FAMILIES.iter().find_map(|family| name.strip_prefix(family)) else { return false };
    // How many tokens are left is a number, not a token.
    let counted = |word: &&str| !matches!(*word, "tokens");
    !rest.split(['-', '_', '.']).filter(counted).any(|word| SECRET_WORDS.iter().any(|secret| word.contains(secret)))
}

/// The head of a request or response as it may be kept: its first line, then a line for each header, with `***` for
/// the value of each that is not known to be harmless. Line breaks within a value cannot forge a line.
pub fn head<'a>(first_line: &str, headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut text = vec![];
    let mut line = |parts: [&[u8]; 3]| {
        for part in parts {
            text.extend(part.iter().map(|byte| if matches!(byte, b'\r' | b'\n' | 0) { b' ' } else { *byte }));
        }
        text.push(b'\n');
    };
    line([without_query(first_line).as_bytes(), b"", b""]);
    for (name, value) in headers {
        line([name.as_bytes(), b": ", if is_shown(name) { value } else { MASK }]);
    }
    text
}

/// A request line or target without what follows `?`, where keys travel as well, and without those within its path.
pub fn without_query(line: &str) -> String {
    let Some((before, query)) = line.split_once('?') else { return path(line).into() };
    // `GET /path?query HTTP/1.1`: the version stays.
    let after = query.find(' ').map_or("", |at| &query[at..]);
    format!("{}?***{after}", path(before))
}

/// How the keys of providers begin.
const KEYS: &[&str] = &["sk-", "sk_", "AIza", "gsk_", "xai-", "pplx-", "key-", "Bearer"];
/// Shorter words are none.
const KEY_BYTES: usize = 20;

/// A path (or what holds one) as it may be kept: what begins like the key of a provider is not shown. Who mistakes a path
/// for a header should not find the key in the log.
pub fn path(path: &str) -> Cow<'_, str> {
    let is_end = |c: char| matches!(c, '/' | ' ' | ';' | '&' | '=');
    let is_key = |word: &str| word.len() >= KEY_BYTES && KEYS.iter().any(|key| word.starts_with(key));
    if !path.split(is_end).any(is_key) {
        return path.into();
    }
    let masked = path.split_inclusive(is_end).map(|piece| {
        let word = piece.trim_end_matches(is_end);
        if is_key(word) { format!("***{}", &piece[word.len()..]) } else { piece.into() }
    });
    masked.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(patterns: &[&str], text: &[u8], want: &[u8]) {
        let got = Redactor::new(patterns).unwrap().apply(text);
        assert_eq!(String::from_utf8_lossy(got.as_deref().unwrap_or(text)), String::from_utf8_lossy(want));
    }

    #[test]
    fn what_matches_is_replaced() {
        check(&[], b"sk-abc", b"sk-abc");
        check(&["sk-[a-z]+"], b"no key", b"no key");
        check(&["sk-[a-z]+"], b"a sk-abc b sk-d", b"a [redacted] b [redacted]");
        check(&["a+", "b+"], b"xaabbx", b"x[redacted]x");
        check(&[r"\d{4}"], b"12345678 \xff\xfe 1234", b"[redacted] \xff\xfe [redacted]");
    }

    #[test]
    fn a_short_match_does_not_shield_a_longer_one() {
        check(&["sk-", "sk-[a-z]+"], b"sk-secret!", b"[redacted]!");
        check(&["abcd", "cdef"], b"abcdefg", b"[redacted]g");
    }

    #[test]
    fn nothing_found_copies_nothing() {
        assert_eq!(Redactor::new(&["x"]).unwrap().apply(b"abc"), None);
    }

    #[test]
    fn escapes_hide_nothing() {
        check(&["Secret"], br#"{"a":"my \u0053ecret\n"}"#, br#"{"a":"my [redacted]\n"}"#);
        check(&["a\nb"], br#"{"a":"xa\nby"}"#, br#"{"a":"x[redacted]y"}"#);
        check(&["\u{1f600}!"], br#"["\ud83d\ude00!"]"#, br#"["[redacted]"]"#);
        // What a tool was given is JSON within JSON.
        check(&["Secret"], br#"{"json":"{\"a\":\"\\u0053ecret\"}"}"#, br#"{"json":"{\"a\":\"[redacted]\"}"}"#);
        check(&["hunter2"], br#"{"a":"C:\new\x hunter2"}"#, br#"{"a":"C:\new\x [redacted]"}"#);
    }

    #[test]
    fn what_a_stream_says_piece_by_piece_is_found_and_its_events_stay() {
        let event = |index: u8, field: &str, text: &str| {
            let delta = serde_json::json!({ "type": "content_block_delta", "index": index, "delta": { field: text } });
            format!("event: content_block_delta\ndata: {delta}\n\n")
        };
        let of = |pieces: [&str; 4]| {
            let [a, b, c, d] = pieces;
            [
                event(0, "text", a),
                event(1, "partial_json", "{"),
                event(0, "text", b),
                event(0, "text", c),
                event(0, "text", d),
            ]
            .concat()
        };
        let (said, kept) = (of(["my sk-a", "bc", "de", "f! bye"]), of(["my [redacted]", "", "", "! bye"]));
        check(&["sk-[a-f]{6}"], said.as_bytes(), kept.as_bytes());
        // A piece that hides it behind an escape as well.
        let hidden = said.replace("\"bc\"", "\"\\u0062c\"");
        check(&["sk-[a-f]{6}"], hidden.as_bytes(), kept.as_bytes());
    }

    #[test]
    fn a_key_in_a_path_is_not_shown() {
        const KEY: &str = "sk-ant-api03-0123456789";
        for (line, shown) in [
            ("/v1/messages", "/v1/messages"),
            ("/v1/sk-learn/x", "/v1/sk-learn/x"),
            ("GET /v1/KEY/models HTTP/1.1", "GET /v1/***/models HTTP/1.1"),
            ("/KEY?key=KEY", "/***?***"),
            ("/v1/x;k=KEY&y", "/v1/x;k=***&y"),
        ] {
            assert_eq!(without_query(&line.replace("KEY", KEY)), shown);
        }
        assert!(matches!(path("/v1/messages"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_pattern_that_nothing_fits_changes_no_stream() {
        let said =
            "data: {\"index\":0,\"delta\":{\"text\":\"a\"}}\n\ndata: {\"index\":1,\"delta\":{\"text\":\"b\"}}\n\n";
        check(&["ab"], said.as_bytes(), said.as_bytes());
    }

    #[test]
    fn a_bad_pattern_is_named_by_its_place_and_never_repeated() {
        let bad = Redactor::new(&["fine", "hunter2("]).unwrap_err();
        assert_eq!(bad.index, 1);
        assert!(bad.to_string().starts_with("pattern 2 is not used: unclosed group"), "{bad}");
        for pattern in ["hunter2(", "hunter2{1000}{1000}", "(hunter2)*", "(?P<hunter2>a)(?P<hunter2>b)", r"hunter2\8"] {
            let bad = Pattern::new(pattern).unwrap_err();
            assert!(!format!("{bad} {bad:?}").contains("hunter2"), "{bad}");
        }
        assert!(!format!("{:?}", Pattern::new("hunter2").unwrap()).contains("hunter2"));
        assert!(Redactor::new(&["a"; 65]).is_err());
    }

    #[test]
    fn headers_are_shown_only_when_they_are_known_to_be_harmless() {
        for name in [
            "Content-Type",
            "anthropic-version",
            "anthropic-ratelimit-unified-5h-utilization",
            "request-id",
            "anthropic-ratelimit-output-tokens-remaining",
            "x-ratelimit-remaining-tokens",
            "x-claude-code-session-id",
        ] {
            assert!(is_shown(name), "{name}");
        }
        for name in [
            "authorization",
            "Authorization",
            "proxy-authorization",
            "x-api-key",
            "x-goog-api-key",
            "api-key",
            "cookie",
            "set-cookie",
            "x-amz-security-token",
            "x-cco-token",
            "x-cco-auth",
            "x-ratelimit-secret",
            "x-stainless-key",
            "x-claude-code-oauth_token",
            "x-never-heard-of",
            "referer",
            "x-hub-signature-256",
            "location",
            "",
        ] {
            assert!(!is_shown(name), "{name}");
        }
    }

    #[test]
    fn a_head_is_kept_without_credentials_and_without_a_query() {
        let headers: [(&str, &[u8]); 3] =
            [("host", b"api.example"), ("x-api-key", b"sk-ant-1"), ("user-agent", b"a\r\nx-forged: 1")];
        assert_eq!(
            String::from_utf8(head("POST /v1/messages?key=sk-ant-2&beta=true HTTP/1.1", headers)).unwrap(),
            "POST /v1/messages?*** HTTP/1.1\nhost: api.example\nx-api-key: ***\nuser-agent: a  x-forged: 1\n"
        );
    }

    proptest! {
        #[test]
        fn a_secret_is_found_however_it_is_cut_and_escaped(
            cuts in prop::collection::vec(1..40_usize, 0..6),
            escaped in prop::collection::vec(any::<bool>(), 60),
            before in "[a-z \"\\\\\n]{0,12}",
            after in "[a-z \"\\\\\n]{0,12}",
        ) {
            let text = format!("{before}SECRET-0123456789{after}");
            let mut events = String::new();
            let (mut event, mut cuts) = (String::new(), cuts);
            cuts.push(text.chars().count());
            for (at, c) in text.chars().enumerate() {
                match c {
                    _ if escaped[at % 60] || c < ' ' => event += &format!("\\u{:04x}", c as u32),
                    '"' | '\\' => event.extend(['\\', c]),
                    _ => event.push(c),
                }
                if cuts.contains(&(at + 1)) {
                    events += &format!("data: {{\"delta\":{{\"text\":\"{event}\"}},\"index\":0}}\n\n");
                    event.clear();
                }
            }
            let clean = Redactor::new(&["SECRET-[0-9]+"]).unwrap().apply(events.as_bytes()).unwrap();
            let mut said = String::new();
            for line in String::from_utf8(clean).unwrap().lines().filter_map(|line| line.strip_prefix("data: ")) {
                said += serde_json::from_str::<serde_json::Value>(line).unwrap()["delta"]["text"].as_str().unwrap();
            }
            prop_assert_eq!(said, format!("{before}[redacted]{after}"));
        }

        #[test]
        fn nothing_that_matches_is_left_and_nothing_else_is_lost(text in "[ak-]{0,40}") {
            let redactor = Redactor::new(&["k-", "ak", "-a+k"]).unwrap();
            let clean = redactor.apply(text.as_bytes()).unwrap_or(text.clone().into_bytes());
            // What is between the marks stood in the text, in this order, and holds no match.
            let clean = String::from_utf8(clean).unwrap();
            let mut rest = text.as_str();
            for part in clean.split("[redacted]") {
                prop_assert!(redactor.apply(part.as_bytes()).is_none(), "{part:?} is left of {text:?}");
                let at = rest.find(part);
                prop_assert!(at.is_some());
                rest = &rest[at.unwrap() + part.len()..];
            }
        }
    }
}
