//! The text in one event of a stream, for those who watch it.

use std::borrow::Cow;

use serde::Deserialize;

use crate::sse::RawEvent;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

/// What the model says in this event; `None` where it says nothing, thinks, or calls a tool.
pub fn said(event: &RawEvent<'_>) -> Option<String> {
    if event.name() != Some(b"content_block_delta") || event.is_cut() {
        return None;
    }
    let data = event.data()?;
    let Event { delta } = serde_json::from_slice(&data).ok()?;
    (delta.kind == "text_delta" && !delta.text.is_empty()).then(|| delta.text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Splitter;

    fn all(stream: &str) -> Vec<String> {
        let mut found = Vec::new();
        Splitter::new(1 << 20).push(stream.as_bytes(), |event| found.extend(said(&event)));
        found
    }

    #[test]
    fn only_text_is_said() {
        let event = |delta: &str| {
            format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n"
            )
        };
        let stream = [
            "event: ping\ndata: {\"type\": \"ping\"}\n\n",
            &event(r#"{"type":"text_delta","text":"caf\u00e9\n"}"#),
            &event(r#"{"type":"thinking_delta","thinking":"hm"}"#),
            &event(r#"{"type":"input_json_delta","partial_json":"{}"}"#),
            &event(r#"{"text":"b","type":"text_delta","later":[1]}"#),
            &event(r#"{"type":"text_delta","text":""}"#),
            "event: content_block_delta\ndata: no json\n\n",
        ];
        assert_eq!(all(&stream.concat()), ["café\n", "b"]);
    }
}
