//! Takes thinking of other providers out of a request in place: its upstream would reject it.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cuts::Cuts;
use crate::json::{Str, TextOr};
use crate::loss::{Losses, Place};
use crate::opaque::MARK;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Str<'a>,
    content: TextOr<'a, &'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    thinking: Option<Str<'a>>,
    signature: Option<Str<'a>>,
    data: Option<Str<'a>>,
}

/// What becomes of thinking that has text and no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// It stays: it is the upstream's own, which does not sign.
    Stays,
    /// It goes: Claude takes only what it has signed.
    Goes,
}

impl Block<'_> {
    /// Whether it is thinking that the upstream would not take: marked by us, or text without a signature.
    fn is_foreign(&self, unsigned: Unsigned) -> bool {
        let sealed = self.signature.as_deref().unwrap_or_default();
        match &*self.kind {
            "thinking" => {
                let is_unsigned = || sealed.is_empty() && self.thinking.as_deref().is_some_and(|t| !t.is_empty());
                sealed.starts_with(MARK) || unsigned == Unsigned::Goes && is_unsigned()
            }
            "redacted_thinking" => self.data.as_deref().is_some_and(|data| data.starts_with(MARK)),
            _ => false,
        }
    }
}

/// Where a string ends that begins at the first of these bytes, behind its quote.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr2(b'"', b'\\', &text[at..])?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

/// Whether all thinking is written as Claude's clients send it back and belongs there, which one look at the bytes tells:
/// it is not marked as another provider's and, where that matters, it is signed.
fn is_own(body: &[u8], unsigned: Unsigned) -> bool {
    const KIND: &[u8] = b"thinking\"";
    // What a search needs to know of it is found out once: most bodies are searched faster than that.
    static OF_KIND: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(KIND));
    let is_marked = |sealed: &[u8]| sealed.starts_with(MARK.as_bytes());
    OF_KIND.find_iter(body).all(|at| {
        let (before, rest) = (&body[..at], &body[at + KIND.len()..]);
        if before.ends_with(b"\"redacted_") {
            return rest.strip_prefix(b",\"data\":\"").is_some_and(|data| !is_marked(data));
        }
        // Within a text, or the name of a field, be it of the request or of a block.
        if !before.ends_with(b"\"") || rest.trim_ascii_start().first() == Some(&b':') {
            return true;
        }
        let Some(text) = rest.strip_prefix(b",\"thinking\":\"") else { return false };
        let Some(end) = string(text) else { return false };
        let Some(sealed) = text[end..].strip_prefix(b"\",\"signature\":\"") else { return false };
        let is_signed = end == 0 || sealed.first().is_some_and(|first| *first != b'"');
        !is_marked(sealed) && (unsigned == Unsigned::Stays || is_signed)
    })
}

/// The body without thinking blocks of other providers, and without messages that consist of nothing else, and where
/// these stood; `None` where there are none, or where the body cannot be read. No byte moves that need not.
pub fn strip(body: &[u8], unsigned: Unsigned) -> Option<(Vec<u8>, Losses)> {
    // Nearly always there is nothing to do, and one look at the bytes tells.
    if is_own(body, unsigned) {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let Body { messages } = serde_json::from_str(text).ok()?;
    let (mut cuts, mut losses) = (Cuts::default(), Losses::default());
    let mut gone = vec![false; messages.len()];
    for (n, raw) in messages.iter().enumerate() {
        let Ok(Message { role, content: TextOr::List(blocks) }) = serde_json::from_str(raw.get()) else { continue };
        if &*role != "assistant" {
            continue;
        }
        let foreign = |raw: &&RawValue| {
            serde_json::from_str::<Block<'_>>(raw.get()).is_ok_and(|block| block.is_foreign(unsigned))
        };
        let leave: Vec<bool> = blocks.iter().map(foreign).collect();
        for (part, _) in leave.iter().enumerate().filter(|(_, leave)| **leave) {
            losses.hint(Place::new("messages", n).part("content", part), "reasoning of another provider");
        }
        gone[n] = !leave.is_empty() && leave.iter().all(|leave| *leave);
        if !gone[n] {
            cuts.elements(text, &blocks, &leave);
        }
    }
    cuts.elements(text, &messages, &gone);
    Some((cuts.apply(body)?, losses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_for(unsigned: Unsigned, messages: &str, want: Option<&str>) {
        let body = |messages: &str| {
            format!("{{ \"model\": \"m\", \"thinking\": {{}}, \"messages\": [{messages}], \"n\": 1.0 }}")
        };
        let got = strip(body(messages).as_bytes(), unsigned);
        let got = got.map(|(bytes, losses)| {
            assert!(losses.iter().next().is_some());
            String::from_utf8(bytes).unwrap()
        });
        assert_eq!(got, want.map(body));
    }

    #[track_caller]
    fn check(messages: &str, want: Option<&str>) {
        check_for(Unsigned::Goes, messages, want);
    }

    #[test]
    fn only_thinking_that_claude_did_not_sign_is_taken_out() {
        let user = r#"{"role":"user","content":"say \"thinking\""}"#;
        let own = r#"{"type":"thinking","thinking":"a","signature":"RklY"}"#;
        let hidden = r#"{"type":"thinking","thinking":"","signature":""}"#;
        let foreign = r#"{"type":"thinking","thinking":"b","signature":"cco1:openai-chat:0:"}"#;
        let unsigned = r#"{"thinking": "c", "type": "thinking"}"#;
        let text = r#"{"type":"text","text":"cco1: is not mine"}"#;
        let said = |blocks: &[&str]| format!(r#"{{"role":"assistant","content":[{}]}}"#, blocks.join(" , "));
        check(user, None);
        check(&said(&[own, hidden, text]), None);
        check(&said(&[foreign, text]), Some(&said(&[text])));
        check(&said(&[text, foreign]), Some(&said(&[text])));
        check(&said(&[foreign, unsigned, own, foreign, text]), Some(&said(&[own, text])));
        check(&format!("{user}, {}, {user}", said(&[foreign, unsigned])), Some(&format!("{user}, {user}")));
        check(&format!("{}, {user}", said(&[foreign])), Some(user));
        check(&said(&[foreign]), Some(""));
        check(r#"{"role":"user","content":[{"type":"thinking","thinking":"x"}]}"#, None);
        assert_eq!(strip(b"{\"messages\": \"thinking\"", Unsigned::Goes), None);
        let (_, losses) =
            strip(format!(r#"{{"messages":[{user},{}]}}"#, said(&[text, foreign])).as_bytes(), Unsigned::Goes).unwrap();
        assert_eq!(losses.to_string(), "messages[1].content[1]");
    }

    #[test]
    fn an_upstream_that_does_not_sign_keeps_its_own_thinking() {
        let unsigned = r#"{"type":"thinking","thinking":"c","signature":""}"#;
        let foreign = r#"{"type":"thinking","thinking":"b","signature":"cco1:openai-chat:0:"}"#;
        let text = r#"{"type":"text","text":"t"}"#;
        let said = |blocks: &[&str]| format!(r#"{{"role":"assistant","content":[{}]}}"#, blocks.join(","));
        check_for(Unsigned::Stays, &said(&[unsigned, text]), None);
        check_for(Unsigned::Stays, &said(&[unsigned, foreign, text]), Some(&said(&[unsigned, text])));
        check_for(Unsigned::Goes, &said(&[unsigned, foreign, text]), Some(&said(&[text])));
    }

    #[test]
    fn a_look_at_the_bytes_tells_what_belongs_there() {
        let block = |rest: &str| format!(r#"{{"thinking":{{"type":"adaptive"}},"x":[{{"type":"thinking"{rest}}}]}}"#);
        for signed in [
            r#","thinking":"a \" b \\","signature":"RklY""#,
            r#","thinking":"","signature":"""#,
            r#","thinking":"say \"thinking\"","signature":"R""#,
        ] {
            assert!(is_own(block(signed).as_bytes(), Unsigned::Goes), "{signed}");
        }
        for other in [
            r#","thinking":"a","signature":"""#,
            r#","thinking":"a""#,
            r#", "thinking":"a","signature":"R""#,
            r#","signature":"R","thinking":"a""#,
            r#","thinking":"a\"#,
            "",
        ] {
            assert!(!is_own(block(other).as_bytes(), Unsigned::Goes), "{other}");
        }
        assert!(is_own(block(r#","thinking":"a","signature":"""#).as_bytes(), Unsigned::Stays));
        let marked = block(r#","thinking":"a","signature":"cco1:ollama:0:""#);
        assert!(!is_own(marked.as_bytes(), Unsigned::Stays));
        let hidden = |data: &str| format!(r#"{{"x":[{{"type":"redacted_thinking","data":"{data}"}}]}}"#);
        assert!(is_own(hidden("RklY").as_bytes(), Unsigned::Goes));
        assert!(!is_own(hidden("cco1:ollama:0:").as_bytes(), Unsigned::Stays));
        assert!(is_own(br#"{"x":"your thinking","y":"cco1:"}"#, Unsigned::Goes));
    }
}
