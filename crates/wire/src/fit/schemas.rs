//! Schemas of tools and of answers.

use std::borrow::Cow;

use serde_json::Value;

use super::Fitter;
use crate::json::Json;
use crate::quirks::Strict;

impl Fitter<'_, '_> {
    /// Whether the target holds to a schema.
    pub(super) fn holds_to(&self, schema: Option<&Json<'_>>) -> bool {
        match self.quirks.strict {
            Strict::None => false,
            Strict::Any => true,
            Strict::Closed => schema.is_some_and(is_closed),
        }
    }
}

/// A tool's schema as every provider takes it: an object that says that it is one.
pub(super) fn object_schema<'a>(schema: Option<&'a Json<'_>>) -> Cow<'a, str> {
    const EMPTY: &str = r#"{"type":"object","properties":{}}"#;
    let Some(schema) = schema else { return Cow::Borrowed(EMPTY) };
    let members = crate::json::members(schema);
    let has = |key: &str| members.iter().any(|(name, _)| name == key);
    match (has("type"), has("properties")) {
        _ if members.is_empty() => Cow::Borrowed(EMPTY),
        (true, true) => Cow::Borrowed(schema.as_str()),
        (has_type, has_properties) => {
            let mut out = Vec::new();
            crate::json::object(&mut out, |o| {
                if !has_type {
                    o.str("type", "object");
                }
                o.members(schema, &[]);
                if !has_properties {
                    o.raw("properties", "{}");
                }
            });
            Cow::Owned(String::from_utf8(out).expect("it is written from text"))
        }
    }
}

/// The schema of a function that stands for a tool that takes plain text.
pub(super) const TEXT_INPUT: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}"#;

/// Whether every object in a schema lists all its properties as required and allows no others.
fn is_closed(schema: &Json<'_>) -> bool {
    fn closed(schema: &Value) -> bool {
        let Value::Object(members) = schema else {
            return match schema {
                Value::Array(list) => list.iter().all(closed),
                _ => true,
            };
        };
        let properties = members.get("properties").and_then(Value::as_object);
        if properties.is_some() || members.get("type").is_some_and(|kind| kind == "object") {
            let required = members.get("required").and_then(Value::as_array);
            let lists = |key: &String| required.is_some_and(|list| list.iter().any(|name| name == key));
            if members.get("additionalProperties") != Some(&Value::Bool(false))
                || !properties.into_iter().flatten().all(|(key, schema)| lists(key) && closed(schema))
            {
                return false;
            }
        }
        members
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "properties" | "enum" | "const"))
            .all(|(_, v)| closed(v))
    }
    let is_object = |value: &Value| value.get("properties").is_some() || value["type"] == "object";
    schema.read::<Value>().is_ok_and(|value| is_object(&value) && closed(&value))
}
