//! Takes thinking of other providers out of a request in place: Claude would reject it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cuts::Cuts;
use crate::json::{Str, TextOr};
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

impl Block<'_> {
    /// Whether it is thinking that no Claude model signed: marked by us, or text without a signature.
    fn is_foreign(&self) -> bool {
        let sealed = self.signature.as_deref().unwrap_or_default();
        match &*self.kind {
            "thinking" => {
                sealed.starts_with(MARK)
                    || (sealed.is_empty() && self.thinking.as_deref().is_some_and(|t| !t.is_empty()))
            }
            "redacted_thinking" => self.data.as_deref().is_some_and(|data| data.starts_with(MARK)),
            _ => false,
        }
    }
}

/// The body without thinking blocks of other providers, and without messages that consist of nothing else; `None` where
/// there are none, or where the body cannot be read. No byte moves that need not.
pub fn strip(body: &[u8]) -> Option<Vec<u8>> {
    // Nearly always there is nothing to do, and one look at the bytes tells.
    let thinks = memchr::memmem::find(body, b"thinking\"").is_some();
    if !thinks {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    let Body { messages } = serde_json::from_str(text).ok()?;
    let mut cuts = Cuts::default();
    let mut gone = vec![false; messages.len()];
    for (n, raw) in messages.iter().enumerate() {
        let Ok(Message { role, content: TextOr::List(blocks) }) = serde_json::from_str(raw.get()) else { continue };
        if &*role != "assistant" {
            continue;
        }
        let foreign =
            |raw: &&RawValue| serde_json::from_str::<Block<'_>>(raw.get()).is_ok_and(|block| block.is_foreign());
        let leave: Vec<bool> = blocks.iter().map(foreign).collect();
        gone[n] = !leave.is_empty() && leave.iter().all(|leave| *leave);
        if !gone[n] {
            cuts.elements(text, &blocks, &leave);
        }
    }
    cuts.elements(text, &messages, &gone);
    cuts.apply(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(messages: &str, want: Option<&str>) {
        let body = |messages: &str| format!("{{ \"model\": \"m\", \"messages\": [{messages}], \"n\": 1.0 }}");
        let got = strip(body(messages).as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(got, want.map(body));
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
        assert_eq!(strip(b"{\"messages\": \"thinking\""), None);
    }
}
