//! The JSON Schema of the configuration, written from the table of keys: editors complete and check by it.

use serde_json::{Map, Value, json};

use super::form::{Effect, Key, Shape};
use super::keys::Config;

impl Config {
    /// The schema of a configuration file (draft 2020-12).
    pub fn schema() -> Value {
        let mut ours = object(&Self::keys());
        let about = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Configuration of cco",
            "description": "The content may also stand under `llmGateway` in a file that is shared with others.",
        });
        let Value::Object(mut whole) = about else { unreachable!("it is written as an object") };
        let properties = ours["properties"].as_object_mut().expect("a section has properties");
        properties.insert("$schema".into(), json!({ "type": "string" }));
        let mut shared = object(&Self::keys());
        shared["description"] = json!("Our section of a shared file; the keys beside it are those of others.");
        whole.insert("if".into(), json!({ "required": ["llmGateway"] }));
        whole.insert("then".into(), json!({ "properties": { "llmGateway": shared } }));
        whole.insert("else".into(), ours);
        Value::Object(whole)
    }
}

fn object(keys: &[Key]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|key| (key.name.into(), property(key))).collect();
    let required: Vec<_> = keys.iter().filter(|key| key.default.is_none()).map(|key| key.name).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(key: &Key) -> Value {
    let mut value = of(&key.shape);
    let idle = if key.effect == Effect::Later { " (No effect in this version.)" } else { "" };
    value["description"] = json!(format!("{}{idle}", key.doc));
    let is_section = matches!(key.shape, Shape::Section(_));
    if let Some(default) = key.default.as_ref().filter(|_| !is_section) {
        value["default"] = default.clone();
    }
    value
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Shape::Text(_) => json!({ "type": "string" }),
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Nullable(inner) => json!({ "anyOf": [of(inner), { "type": "null" }] }),
        Shape::Either(one, other) => json!({ "anyOf": [of(one), of(other)] }),
        Shape::List(inner) => json!({ "type": "array", "items": of(inner) }),
        Shape::Map(inner) => json!({ "type": "object", "additionalProperties": of(inner) }),
        Shape::Section(keys) => object(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As far as our schemas go: enough to see whether they say what the reading says.
    fn accepts(schema: &Value, value: &Value) -> bool {
        let all = |list: &str| schema[list].as_array().map(|list| list.iter().any(|one| accepts(one, value)));
        if let Some(any) = all("anyOf") {
            return any;
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.contains(value);
        }
        match schema["type"].as_str() {
            Some("boolean") => value.is_boolean(),
            Some("string") => value.is_string(),
            Some("null") => value.is_null(),
            Some(kind @ ("integer" | "number")) => value.as_f64().is_some_and(|n| {
                let (min, max) = (schema["minimum"].as_f64().unwrap(), schema["maximum"].as_f64().unwrap());
                (min..=max).contains(&n) && (kind == "number" || n.fract() == 0.0)
            }),
            Some("array") => value.as_array().is_some_and(|list| list.iter().all(|v| accepts(&schema["items"], v))),
            Some("object") => value.as_object().is_some_and(|object| {
                let mut required = schema["required"].as_array().into_iter().flatten();
                required.all(|name| object.contains_key(name.as_str().unwrap()))
                    && object.iter().all(|(name, value)| match &schema["properties"][name] {
                        Value::Null => match &schema["additionalProperties"] {
                            Value::Bool(any) => *any,
                            inner => accepts(inner, value),
                        },
                        property => accepts(property, value),
                    })
            }),
            _ => panic!("{schema}"),
        }
    }

    #[test]
    fn the_schema_accepts_the_reference_and_refuses_what_the_reading_refuses() {
        let schema = Config::schema();
        let ours = &schema["else"];
        let reference = super::super::json_of(&Config::reference()).unwrap();
        assert!(accepts(ours, &reference));
        for wrong in [
            json!({ "servr": {} }),
            json!({ "server": { "listen": 1 } }),
            json!({ "server": { "maxConnections": 0 } }),
            json!({ "log": { "level": "loud" } }),
            json!({ "providers": { "a": { "timeoutSecs": "1" } } }),
            json!({ "routing": { "rules": [{ "name": "a" }] } }),
        ] {
            assert!(!accepts(ours, &wrong), "{wrong}");
            assert!(super::super::parse(&wrong.to_string(), &super::super::Paths::default()).is_err(), "{wrong}");
        }
        assert_eq!(schema["then"]["properties"]["llmGateway"]["properties"]["log"], ours["properties"]["log"]);
    }

    #[test]
    fn every_key_has_a_description_and_its_default() {
        let schema = Config::schema();
        let listen = &schema["else"]["properties"]["server"]["properties"]["listen"];
        assert_eq!(listen["default"], "127.0.0.1:54548");
        assert!(listen["description"].as_str().unwrap().contains("address"));
    }
}
