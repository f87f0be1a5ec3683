//! Takes reasoning of other providers out of a request in place: OpenAI would reject it.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cuts::Cuts;
use crate::json::Str;
use crate::opaque::MARK;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    input: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Str<'a>>,
    encrypted_content: Option<Str<'a>>,
}

/// The body without reasoning items that we sealed for other providers; `None` where there are none, or where the body
/// cannot be read. No byte moves that need not.
pub fn strip(body: &[u8]) -> Option<Vec<u8>> {
    // Nearly always there is nothing to do, and one look at the bytes tells.
    memchr::memmem::find(body, MARK.as_bytes())?;
    let text = std::str::from_utf8(body).ok()?;
    let Body { input } = serde_json::from_str(text).ok()?;
    let is_foreign = |raw: &&RawValue| {
        let item: Option<Item<'_>> = serde_json::from_str(raw.get()).ok();
        item.is_some_and(|item| {
            let sealed = item.encrypted_content.as_deref().unwrap_or_default();
            item.kind.as_deref() == Some("reasoning") && sealed.starts_with(MARK)
        })
    };
    let foreign: Vec<bool> = input.iter().map(is_foreign).collect();
    let mut cuts = Cuts::default();
    cuts.elements(text, &input, &foreign);
    cuts.apply(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &str, want: Option<&str>) {
        let body = |input: &str| format!("{{ \"model\": \"m\", \"input\": {input}, \"n\": 1.0 }}");
        let got = strip(body(input).as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(got, want.map(body));
    }

    #[test]
    fn only_reasoning_that_openai_did_not_seal_is_taken_out() {
        let own = r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAAA"}"#;
        let foreign = r#"{"encrypted_content": "cco1:anthropic:0:RklY", "type": "reasoning", "summary": []}"#;
        let call = r#"{"type":"function_call","call_id":"c","name":"f","arguments":"\"cco1:\""}"#;
        let output = r#"{"type":"function_call_output","call_id":"c","output":"cco1:anthropic:0:RklY"}"#;
        let list = |items: &[&str]| format!("[{}]", items.join(" , "));
        check("\"cco1: is what?\"", None);
        check(&list(&[own, call, output]), None);
        check(&list(&[foreign, call, output]), Some(&list(&[call, output])));
        check(&list(&[call, foreign, output]), Some(&list(&[call, output])));
        check(&list(&[own, foreign]), Some(&list(&[own])));
        check(&list(&[foreign]), Some("[]"));
        assert_eq!(strip(b"{\"input\": \"cco1:"), None);
    }
}
