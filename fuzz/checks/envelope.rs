//! The envelope says what a full JSON parser says, wherever that says anything.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use wire::envelope::{Envelope, splice};

/// Panics where the envelope of `body` is wrong.
pub(crate) fn check(body: &[u8]) {
    let envelope = Envelope::read(body);
    let Some(members) = members(body) else { return };
    let all = |key: &str| members.iter().filter(|(k, _)| k == key).map(|(_, v)| v).collect::<Vec<_>>();
    let (models, streams) = (all("model"), all("stream"));
    if models.len() > 1 || streams.len() > 1 {
        assert!(envelope.is_err());
        return;
    }
    let envelope = envelope.expect("no key stands twice");
    assert!(envelope.is_object);
    assert_eq!(envelope.model.as_deref(), models.first().and_then(|v| v.as_str()));
    assert_eq!(envelope.stream, streams.first().and_then(|v| v.as_bool()));
    assert_eq!(envelope.model_span.is_some(), !models.is_empty());
    let at = |span: &std::ops::Range<usize>| serde_json::from_slice::<Value>(&body[span.clone()]).expect("one value");
    assert_eq!(envelope.metadata_span.as_ref().map(at).as_ref(), all("metadata").last().copied());
    let Some(span) = envelope.model_span else { return };
    assert_eq!(&at(&span), models[0]);
    let parts = splice(&Bytes::copy_from_slice(body), span, Bytes::from_static(b"\"another\""));
    let changed = self::members(&parts.concat()).expect("still an object");
    assert_eq!(changed.len(), members.len());
    for (before, after) in members.iter().zip(&changed) {
        assert_eq!(before.0, after.0);
        let want = if before.0 == "model" { Value::from("another") } else { before.1.clone() };
        assert_eq!(after.1, want);
    }
}

/// The members of an object in their order, those with equal keys too; `None` where `body` is no JSON object.
fn members(body: &[u8]) -> Option<Vec<(String, Value)>> {
    struct Members;
    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(String, Value)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            std::iter::from_fn(|| map.next_entry().transpose()).collect()
        }
    }
    let mut parser = serde_json::Deserializer::from_slice(body);
    let members = parser.deserialize_map(Members).ok()?;
    parser.end().ok()?;
    Some(members)
}
