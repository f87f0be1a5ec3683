//! One borrowed pass over a JSON request body for the few top-level values that a gateway needs.
//!
//! Nothing is parsed that need not be, no other byte moves when a value is replaced, and a value that two readers could
//! take from different places (a key given twice) is refused.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::members::{self, Malformed, Member, Members};

/// Bytes that the token of a name may have: whatever is longer is none, and nobody should keep or log it as one.
const LONGEST_NAME: usize = 1024;

/// What a request says at its top level. Absent or oddly typed values are `None`: they are the upstream's to judge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// `model`, unescaped.
    pub model: Option<String>,
    /// Where the `model` string token lies in the body, with its quotes.
    pub model_span: Option<Range<usize>>,
    /// `stream`.
    pub stream: Option<bool>,
    /// `agent_type`, unescaped: not of any protocol, but what clients of gateways say.
    pub agent_type: Option<String>,
    /// Where the `metadata` object lies in the body.
    pub metadata_span: Option<Range<usize>>,
    /// Where what the operator says lies: `system`, or `instructions`.
    pub system_span: Option<Range<usize>>,
    /// Where the conversation lies: `messages`, or `input`.
    pub messages_span: Option<Range<usize>>,
    /// Where the list of tools lies.
    pub tools_span: Option<Range<usize>>,
    /// Where it is said how much to think: `thinking`, `reasoning` or `reasoning_effort`.
    pub thinking_span: Option<Range<usize>>,
    /// Whether the body is one JSON object as far as this pass can tell.
    pub is_object: bool,
}

/// Why a body cannot be given one meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnvelopeError {
    /// A key that decides where the request goes stands at the top level twice.
    Twice(&'static str),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(key) => write!(f, "the request body has more than one top-level `{key}`"),
        }
    }
}

impl std::error::Error for EnvelopeError {}

impl Envelope {
    /// Reads the top level of `body`.
    pub fn read(body: &[u8]) -> Result<Self, EnvelopeError> {
        let mut envelope = Self::default();
        let mut members = Members::of(body);
        let mut seen_stream = false;
        loop {
            let Member { key, value, span } = match members.next() {
                Ok(Some(member)) => member,
                Ok(None) => {
                    envelope.is_object = true;
                    return Ok(envelope);
                }
                Err(Malformed) => return Ok(envelope),
            };
            match &*key {
                b"model" => {
                    if envelope.model_span.is_some() {
                        return Err(EnvelopeError::Twice("model"));
                    }
                    envelope.model = text(value);
                    envelope.model_span = Some(span);
                }
                b"stream" => {
                    if std::mem::replace(&mut seen_stream, true) {
                        return Err(EnvelopeError::Twice("stream"));
                    }
                    envelope.stream = match value {
                        b"true" => Some(true),
                        b"false" => Some(false),
                        _ => None,
                    };
                }
                b"metadata" => envelope.metadata_span = Some(span),
                b"agent_type" => envelope.agent_type = text(value),
                b"system" | b"instructions" => envelope.system_span = Some(span),
                b"messages" | b"input" => envelope.messages_span = Some(span),
                b"tools" => envelope.tools_span = Some(span),
                b"thinking" | b"reasoning" | b"reasoning_effort" => envelope.thinking_span = Some(span),
                _ => {}
            }
        }
    }
}

/// Replaces the bytes of one span: two slices of the received memory and the new value between them.
pub fn splice(body: &Bytes, span: Range<usize>, value: Bytes) -> [Bytes; 3] {
    [body.slice(..span.start), value, body.slice(span.end..)]
}

/// The text of a JSON string token; `None` where it is none.
fn text(token: &[u8]) -> Option<String> {
    let name = (token.len() <= LONGEST_NAME).then_some(token)?;
    members::text(name).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(body: &str, model: Option<&str>, stream: Option<bool>) {
        let envelope = Envelope::read(body.as_bytes()).unwrap();
        assert_eq!((envelope.model.as_deref(), envelope.stream), (model, stream), "{body}");
    }

    #[test]
    fn model_and_stream_are_found_wherever_they_stand() {
        check(r#"{"model":"m","stream":true,"messages":[]}"#, Some("m"), Some(true));
        check(
            r#"{"messages":[{"model":"no","stream":false}],"stream" : false , "model" : "m"}"#,
            Some("m"),
            Some(false),
        );
        check(r#"{"a":"}\"{","model":"m"}"#, Some("m"), None);
        check("\n{ \"model\"\t:\r\"m\" }\n", Some("m"), None);
        check(r#"{"mod\u0065l":"m\u002f\"1"}"#, Some("m/\"1"), None);
        check(r#"{"n":1e5,"b":null,"c":-1.0,"model":"m"}"#, Some("m"), None);
        check("{}", None, None);
    }

    #[test]
    fn oddities_are_left_to_the_upstream() {
        check(r#"{"model":7,"stream":"yes"}"#, None, None);
        check("not json", None, None);
        check(r#"{"model":"m""#, Some("m"), None);
        check("[1,2]", None, None);
        check("", None, None);
        let name = |length| format!(r#"{{"model":"{}","stream":true}}"#, "m".repeat(length));
        check(&name(1022), Some(&"m".repeat(1022)), Some(true));
        check(&name(1023), None, Some(true));
        assert!(!Envelope::read(br#"{"model":"m"} x"#).unwrap().is_object);
        assert!(Envelope::read(br#"{"model":"m"}"#).unwrap().is_object);
    }

    #[test]
    fn a_key_given_twice_is_refused_also_when_it_is_spelt_differently() {
        for (body, key) in [
            (r#"{"model":"a","model":"b"}"#, "model"),
            (r#"{"model":"a","x":{},"mod\u0065l":"b"}"#, "model"),
            (r#"{"stream":true,"stream":true}"#, "stream"),
            (r#"{"stream":1,"\u0073tream":true}"#, "stream"),
        ] {
            assert_eq!(Envelope::read(body.as_bytes()), Err(EnvelopeError::Twice(key)), "{body}");
        }
        check(r#"{"max_tokens":1,"max_tokens":2,"model":"m"}"#, Some("m"), None);
    }

    #[test]
    fn a_changed_model_moves_no_other_byte() {
        let body = Bytes::from(r#"{"n":1.0, "model" : "old" ,"x":"\u00e9"}"#);
        let span = Envelope::read(&body).unwrap().model_span.unwrap();
        let parts = splice(&body, span, Bytes::from_static(b"\"new\""));
        assert_eq!(parts.concat(), br#"{"n":1.0, "model" : "new" ,"x":"\u00e9"}"#);
        assert_eq!(parts[0].as_ptr(), body.as_ptr());
    }

    #[test]
    fn the_parts_that_routing_asks_for_are_found() {
        let body =
            r#"{"system":[1],"messages":[2],"tools":[3],"thinking":{"a":4},"agent_type":"x\u0079","metadata":{}}"#;
        let found = Envelope::read(body.as_bytes()).unwrap();
        let at = |span: &Option<Range<usize>>| span.clone().map(|span| &body[span]);
        assert_eq!((at(&found.system_span), at(&found.messages_span)), (Some("[1]"), Some("[2]")));
        assert_eq!((at(&found.tools_span), at(&found.thinking_span)), (Some("[3]"), Some(r#"{"a":4}"#)));
        assert_eq!((found.agent_type.as_deref(), at(&found.metadata_span)), (Some("xy"), Some("{}")));
        let body = r#"{"instructions":"i","input":"q","reasoning":{"effort":"low"}}"#;
        let found = Envelope::read(body.as_bytes()).unwrap();
        let at = |span: &Option<Range<usize>>| span.clone().map(|span| &body[span]);
        assert_eq!((at(&found.system_span), at(&found.messages_span)), (Some("\"i\""), Some("\"q\"")));
        assert_eq!((at(&found.thinking_span), found.agent_type), (Some(r#"{"effort":"low"}"#), None));
    }

    #[test]
    fn nesting_has_no_depth_that_breaks_the_reader() {
        let deep = format!(r#"{{"a":{}{},"model":"m"}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
        check(&deep, Some("m"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::read(&body);
        }

        #[test]
        fn every_json_object_gives_what_a_full_parser_gives(
            model in any::<String>(), stream in any::<bool>(), text in any::<String>(), number in any::<f64>(), pretty in any::<bool>(),
        ) {
            let value = serde_json::json!({ "a": { "model": text, "b": [number, text] }, "model": model, "stream": stream, "z": [text] });
            let body = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let envelope = Envelope::read(&body).unwrap();
            prop_assert_eq!((envelope.model, envelope.stream, envelope.is_object), (Some(model), Some(stream), true));
        }
    }
}
