//! What holds, key by key, and where it comes from: for people, with secrets masked.

use std::fmt;

use jsonc_parser::ast::Value;
use serde_json::Value as Json;

use super::form::Shape;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// The file, at this line.
    File(usize),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(line) => write!(f, "line {line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// One key and what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Where it is: `providers.anthropic.baseUrl`.
    pub path: String,
    /// As the file would write it, secrets masked.
    pub shown: Json,
    /// Where that comes from.
    pub source: Source,
    /// Tells two values apart that are shown the same.
    digest: blake3::Hash,
}

impl Setting {
    pub(super) fn new(path: &str, value: &Json, shape: &Shape, source: Source) -> Self {
        let digest = blake3::hash(value.to_string().as_bytes());
        Self { path: path.into(), shown: masked(value, shape), source, digest }
    }

    /// Whether both hold the same value, wherever it comes from.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// What changed between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which key.
    pub path: String,
    /// What held before; `None`: the key was not there.
    pub before: Option<Json>,
    /// What holds now; `None`: the key is gone.
    pub after: Option<Json>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Json>| value.as_ref().map_or_else(|| "nothing".into(), ToString::to_string);
        match (shown(&self.before), shown(&self.after)) {
            (before, after) if before == after => write!(f, "{}: changed (not shown)", self.path),
            (before, after) => write!(f, "{}: {before} -> {after}", self.path),
        }
    }
}

/// What is different, in the order of the keys.
pub fn differences(before: &[Setting], after: &[Setting]) -> Vec<Difference> {
    let find = |all: &[Setting], path: &str| all.iter().find(|setting| setting.path == path).cloned();
    let changed = after.iter().filter_map(|now| {
        let was = find(before, &now.path);
        let same = was.as_ref().is_some_and(|was| was.is_same(now));
        let before = was.map(|was| was.shown);
        (!same).then(|| Difference { path: now.path.clone(), before, after: Some(now.shown.clone()) })
    });
    let gone = before.iter().filter(|was| find(after, &was.path).is_none());
    let gone = gone.map(|was| Difference { path: was.path.clone(), before: Some(was.shown.clone()), after: None });
    changed.chain(gone).collect()
}

/// A value with what may be a secret in it taken out.
fn masked(value: &Json, shape: &Shape) -> Json {
    match (value, shape) {
        (Json::String(_), Shape::Text("header value")) => "…".into(),
        (Json::String(text), Shape::Text("proxy" | "url")) => without_password(text).into(),
        (Json::String(text), Shape::Text("credential")) => without_arguments(text).into(),
        (Json::Object(object), Shape::Map(inner)) => {
            object.iter().map(|(name, value)| (name.clone(), masked(value, inner))).collect()
        }
        (Json::Object(object), Shape::Section(keys)) => object
            .iter()
            .map(|(name, value)| {
                let key = keys.iter().find(|key| key.name == name);
                (name.clone(), key.map_or(Json::Null, |key| masked(value, &key.shape)))
            })
            .collect(),
        (Json::Array(list), Shape::List(inner)) => list.iter().map(|value| masked(value, inner)).collect(),
        (value, Shape::Nullable(inner)) => masked(value, inner),
        (Json::String(_), Shape::Either(one, _)) => masked(value, one),
        (value, Shape::Either(_, other)) => masked(value, other),
        (value, _) => value.clone(),
    }
}

fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?))) {
        Some((scheme, (_, host))) => format!("{scheme}://…@{host}"),
        None => url.into(),
    }
}

/// A helper's name without what follows it.
fn without_arguments(reference: &str) -> String {
    let Some(command) = reference.strip_prefix("exec:") else { return reference.into() };
    match command.trim().split_once(char::is_whitespace) {
        Some((program, _)) => format!("exec:{program} …"),
        None => reference.into(),
    }
}

/// A value of the tree as plain JSON.
pub(super) fn json(value: &Value<'_>) -> Json {
    match value {
        Value::StringLit(text) => text.value.clone().into_owned().into(),
        Value::NumberLit(number) => serde_json::from_str(number.value).unwrap_or(Json::Null),
        Value::BooleanLit(boolean) => boolean.value.into(),
        Value::Object(object) => {
            object.properties.iter().map(|p| (p.name.as_str().to_owned(), json(&p.value))).collect()
        }
        Value::Array(array) => array.elements.iter().map(json).collect(),
        Value::NullKeyword(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Overrides, Paths, read_all};
    use super::*;

    const TEXT: &str = r#"{
  // the port of the team
  "server": { "listen": "127.0.0.1:9" },
  "network": { "proxy": "http://me:geheim@proxy.example.org:1" },
  "providers": {
    "anthropic": { "headers": { "X-Team": "geheim" }, "apiKeyRef": "exec:vault get geheim" },
  },
  "routing": { "agentRules": { "Explore": { "provider": "anthropic" } } },
}"#;

    fn settings(text: &str) -> Vec<Setting> {
        read_all(text, &Paths::default(), &Overrides::default()).unwrap().settings
    }

    fn of<'a>(all: &'a [Setting], path: &str) -> (String, &'a Source) {
        let setting = all.iter().find(|setting| setting.path == path).unwrap_or_else(|| panic!("no {path} in {all:?}"));
        (setting.shown.to_string(), &setting.source)
    }

    #[test]
    fn every_key_shows_its_value_and_where_it_comes_from() {
        let all = settings(TEXT);
        assert_eq!(of(&all, "server.listen"), ("\"127.0.0.1:9\"".into(), &Source::File(3)));
        assert_eq!(of(&all, "server.pingSecs"), ("15".into(), &Source::Default));
        assert_eq!(of(&all, "providers.anthropic.timeoutSecs"), ("600".into(), &Source::Default));
        assert_eq!(of(&all, "routing.fallbackChain"), ("[\"anthropic\"]".into(), &Source::Default));
        assert_eq!(of(&all, "routing.agentRules").1, &Source::File(8));
        assert!(all.iter().all(|setting| !setting.path.starts_with("routing.agentRules.")), "{all:?}");
        let mut paths: Vec<_> = all.iter().map(|setting| &setting.path).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all.len(), "each once");
        for (_, path) in super::super::overrides::documented() {
            let path = path.replace("NAME", "anthropic");
            assert!(all.iter().any(|setting| setting.path == path), "{path} is shown");
        }
    }

    #[test]
    fn no_secret_is_shown_and_a_changed_one_is_noticed() {
        let all = settings(TEXT);
        assert!(!format!("{all:?}").contains("geheim"));
        assert_eq!(of(&all, "network.proxy").0, "\"http://…@proxy.example.org:1\"");
        assert_eq!(of(&all, "providers.anthropic.apiKeyRef").0, "\"exec:vault …\"");
        let other = settings(&TEXT.replace("\"geheim\"", "\"anders\""));
        let changed = differences(&all, &other);
        assert_eq!(changed.len(), 1, "{changed:?}");
        assert_eq!(changed[0].to_string(), "providers.anthropic.headers: changed (not shown)");
    }

    #[test]
    fn what_changed_is_told_key_by_key() {
        let after = settings(
            r#"{ "server": { "listen": "127.0.0.1:9", "pingSecs": 7 }, "providers": { "x": { "providerType": "anthropic" } } }"#,
        );
        let told: Vec<_> = differences(&settings("{ \"server\": { \"listen\": \"127.0.0.1:9\" } }"), &after)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(told.contains(&"server.pingSecs: 15 -> 7".into()), "{told:?}");
        assert!(told.contains(&"routing.defaultProvider: \"anthropic\" -> \"x\"".into()), "{told:?}");
        assert!(told.contains(&"providers.x.enabled: nothing -> true".into()), "{told:?}");
        assert!(told.contains(&"providers.anthropic.enabled: true -> nothing".into()), "{told:?}");
        assert!(!told.iter().any(|line| line.starts_with("server.listen")), "{told:?}");
        assert!(differences(&after, &after).is_empty());
    }
}
