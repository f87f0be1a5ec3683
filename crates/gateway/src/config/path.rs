//! The path of a key, as people write it: `server.listen`, `providers."my.one".headers`, `routing.rules[0].name`.

use std::fmt;
use std::str::FromStr;

use super::form::{Key, Shape};
use super::keys::Config;
use super::suggest;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPath(pub(super) Vec<Step>);

/// Why a text is no path of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPath {
    /// What is wrong.
    pub message: String,
    /// What to write.
    pub help: String,
}

impl BadPath {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.help)
    }
}

impl std::error::Error for BadPath {}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.0.iter().fold(super::read::Place::default(), |place, step| match step {
            Step::Key(key) => place.key(key),
            Step::Index(index) => place.index(*index),
        });
        f.write_str(&place.0)
    }
}

impl FromStr for KeyPath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        let bad = || BadPath::new(format!("{text:?} is no key"), "write for example `server.listen`");
        let (mut steps, mut rest) = (Vec::new(), text);
        loop {
            let key = if let Some(quoted) = rest.strip_prefix('"') {
                let (key, after) = quoted.split_once('"').ok_or_else(bad)?;
                rest = after;
                key
            } else {
                let end = rest.find(['.', '[']).unwrap_or(rest.len());
                let (key, after) = rest.split_at(end);
                rest = after;
                key
            };
            if key.is_empty() {
                return Err(bad());
            }
            steps.push(Step::Key(key.into()));
            while let Some(bracket) = rest.strip_prefix('[') {
                let (index, after) = bracket.split_once(']').ok_or_else(bad)?;
                steps.push(Step::Index(index.parse().map_err(|_| bad())?));
                rest = after;
            }
            match rest.strip_prefix('.') {
                Some(more) => rest = more,
                None if rest.is_empty() => {
                    // As it may stand in the file.
                    if matches!(&steps[..], [Step::Key(first), Step::Key(_), ..] if first == super::check::SECTION) {
                        steps.remove(0);
                    }
                    return Ok(Self(steps));
                }
                None => return Err(bad()),
            }
        }
    }
}

impl KeyPath {
    /// The section or key at its beginning.
    pub fn first(&self) -> &str {
        match self.0.first() {
            Some(Step::Key(name)) => name,
            _ => "",
        }
    }

    /// The list that it leads into.
    pub fn list(&self) -> Option<Self> {
        let at = self.0.iter().position(|step| matches!(step, Step::Index(_)))?;
        Some(Self(self.0[..at].to_vec()))
    }

    /// The provider whose keys it leads to.
    pub fn provider(&self) -> Option<&str> {
        match &self.0[..] {
            [Step::Key(section), Step::Key(name), ..] if section == "providers" => Some(name),
            _ => None,
        }
    }

    /// What may stand at this path.
    pub fn shape(&self) -> Result<Shape, BadPath> {
        let mut shape = Shape::Section(Config::keys());
        for (at, step) in self.0.iter().enumerate() {
            let so_far = Self(self.0[..at].to_vec());
            shape = inner(&shape, step).ok_or_else(|| match step {
                Step::Key(name) => match below(&shape) {
                    Some(keys) => {
                        let known: Vec<_> = keys.iter().map(|key| key.name).collect();
                        let wrong = suggest::unknown_key(name, &known);
                        let place = if at == 0 { String::new() } else { format!(" in `{so_far}`") };
                        BadPath::new(
                            format!("there is no key `{name}`{place}"),
                            wrong.help.unwrap_or_else(|| "`cco config show` lists all keys".into()),
                        )
                    }
                    None => BadPath::new(format!("`{so_far}` has no keys of its own"), "leave out what follows it"),
                },
                Step::Index(_) => BadPath::new(format!("`{so_far}` is no list"), "leave out the number in brackets"),
            })?;
        }
        Ok(shape)
    }
}

fn below(shape: &Shape) -> Option<&[Key]> {
    match shape {
        Shape::Section(keys) => Some(keys),
        Shape::Nullable(inner) => below(inner),
        Shape::Either(one, other) => below(one).or_else(|| below(other)),
        _ => None,
    }
}

fn inner(shape: &Shape, step: &Step) -> Option<Shape> {
    match (shape, step) {
        (Shape::Section(keys), Step::Key(name)) => {
            keys.iter().find(|key| key.name == name).map(|key| key.shape.clone())
        }
        (Shape::Map(value), Step::Key(_)) | (Shape::List(value), Step::Index(_)) => Some((**value).clone()),
        (Shape::Nullable(shape), _) => inner(shape, step),
        (Shape::Either(one, other), _) => inner(one, step).or_else(|| inner(other, step)),
        _ => None,
    }
}

impl Shape {
    /// What somebody typed as a value for this place, as JSON: words need no quotation marks, and commas make a list.
    pub fn value_of(&self, typed: &str) -> serde_json::Value {
        let text = || serde_json::Value::String(typed.into());
        let json = || super::json_of(typed);
        match self {
            Self::Text(_) | Self::Choice(_) => text(),
            Self::Nullable(_) if typed == "null" => serde_json::Value::Null,
            Self::Nullable(inner) => inner.value_of(typed),
            Self::Either(one, other) if typed.starts_with(['[', '{']) => match (&**one, &**other) {
                (Self::Text(_) | Self::Choice(_), other) => other.value_of(typed),
                (one, _) => one.value_of(typed),
            },
            Self::Either(one, _) => one.value_of(typed),
            Self::List(one) if !typed.starts_with('[') => match typed.trim() {
                "" => serde_json::Value::Array(Vec::new()),
                some => some.split(',').map(|part| one.value_of(part.trim())).collect(),
            },
            // What is no JSON is told by the reading of it.
            _ => json().unwrap_or_else(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shape(path: &str) -> Result<Shape, String> {
        path.parse::<KeyPath>().and_then(|path| path.shape()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn a_path_leads_through_sections_names_and_lists() {
        for path in ["server.listen", "providers.a.baseUrl", "routing.rules[2].use.providers[0].weight", "providers"] {
            assert!(shape(path).is_ok(), "{path}: {:?}", shape(path));
            assert_eq!(path.parse::<KeyPath>().unwrap().to_string(), path);
        }
        let path: KeyPath = "providers.\"my.one\".headers".parse().unwrap();
        assert_eq!(path.0[1], Step::Key("my.one".into()));
        assert!(path.shape().is_ok());
        // As it may stand in a file that is shared.
        let path: KeyPath = "llmGateway.log.level".parse().unwrap();
        assert_eq!(path, "log.level".parse().unwrap());
        for odd in ["llmGateway", "llmGateway[0].log"] {
            assert!(shape(odd).unwrap_err().contains("there is no key `llmGateway`"), "{odd}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_names_the_way() {
        assert_eq!(shape("server.lisen").unwrap_err(), "there is no key `lisen` in `server`: did you mean `listen`?");
        assert_eq!(
            shape("timeoutSecs").unwrap_err(),
            "there is no key `timeoutSecs`: this key belongs at `providers.NAME.timeoutSecs`"
        );
        assert!(shape("server.listen.port").unwrap_err().contains("has no keys"));
        assert!(shape("server[0]").unwrap_err().contains("is no list"));
        for bad in ["", ".", "server.", "server..listen", "a[", "a[x]", "\"a"] {
            assert!(bad.parse::<KeyPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_typed_becomes_what_the_key_takes() {
        for (path, typed, want) in [
            ("server.listen", "127.0.0.1:1", json!("127.0.0.1:1")),
            ("server.allowRemote", "true", json!(true)),
            ("server.allowRemote", "yes", json!("yes")),
            ("server.maxBodyMb", "1.5", json!(1.5)),
            ("server.token", "null", json!(null)),
            ("server.token", "env:A", json!("env:A")),
            ("server.hosts", "a, b", json!(["a", "b"])),
            ("server.hosts", "[\"a\"]", json!(["a"])),
            ("server.hosts", "", json!([])),
            ("providers.a.apiKeyRef", "env:A", json!("env:A")),
            ("providers.a.apiKeyRef", "[\"env:A\",\"env:B\"]", json!(["env:A", "env:B"])),
            ("providers.a.defaultModel", "12", json!("12")),
            ("providers.a.headers", "{\"a\": \"b\"}", json!({ "a": "b" })),
            ("routing.agentRules.Explore", "anthropic", json!("anthropic")),
            ("routing.agentRules.Explore", "{\"provider\":\"a\"}", json!({ "provider": "a" })),
        ] {
            assert_eq!(shape(path).unwrap().value_of(typed), want, "{path} = {typed}");
        }
    }
}
