//! The reference of all keys, written from their table: `docs/config-full.jsonc`.

use std::fmt::Write as _;

use super::form::{Effect, Key, Shape};
use super::keys::Config;

/// What the reference shows where the default would show nothing: names of the user's own.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("providers.anthropic.modelAliases", r#"{ "fast": "claude-haiku-5-5" }"#),
    (
        "routing.agentRules",
        r#"{ "Explore": "anthropic", "rust-specialist": { "provider": "deepseek", "model": "deepseek-flash" } }"#,
    ),
    ("routing.modelTierRules", r#"{ "haiku": "anthropic", "gpt": "azure" }"#),
    ("routing.rules[0].name", "\"long prompts\""),
    ("routing.rules[0].when.model", "\"claude-*\""),
    ("routing.rules[0].when.promptTokensOver", "150000"),
    (
        "routing.rules[0].use.providers",
        r#"[{ "provider": "deepseek", "model": "deepseek-flash", "weight": 1 }, "anthropic"]"#,
    ),
    (
        "costTracking.pricingOverrides",
        r#"{
      "my-model": {
        "inputPerMillion": 1.0, "outputPerMillion": 5.0, "cacheWritePerMillion": 1.25, "cacheReadPerMillion": 0.1,
      },
    }"#,
    ),
];

const HEAD: &str = "\
// Every key of cco's configuration with its meaning and its default. JSON, in which comments and trailing commas are
// allowed. The content may also stand under \"llmGateway\" in a file that is shared with others. This file is made from
// the table of keys in the program; the program reads it as it is.
//
// Where a key says \"reference\", it names where a secret is, never the secret itself:
//   env:NAME         the environment variable, else the stored credential of that name
//   credential:NAME  the stored credential (`cco credentials store NAME`)
//   file:PATH        a file that only you may read (mode 0600)
//   exec:COMMAND     what a helper prints: run without a shell, asked again after `apiKeyTtlSecs`
// Paths may begin with ~/; relative ones begin at this file's folder.
";

impl Config {
    /// The reference of all keys, itself a configuration.
    pub fn reference() -> String {
        let mut text = String::from(HEAD);
        text.push_str("{\n");
        section(&Self::keys(), "", 1, &mut text);
        text.push_str("}\n");
        text
    }
}

fn section(keys: &[Key], above: &str, depth: usize, text: &mut String) {
    for key in keys {
        let path = if above.is_empty() { key.name.to_string() } else { format!("{above}.{}", key.name) };
        let indent = "  ".repeat(depth);
        let example = EXAMPLES.iter().find(|(at, _)| *at == path).map(|(_, example)| *example);
        let inner = inner(&key.shape);
        let is_example = example.is_some() || inner.is_some_and(|inner| inner.way == Way::Listed);
        comment(&description(key, is_example), &indent, text);
        match (example, inner) {
            (Some(example), _) => {
                let _ = writeln!(text, "{indent}\"{}\": {example},", key.name);
            }
            (None, Some(Inner { keys, way })) => {
                let name = key.name;
                let (within, deeper, open, close) = match way {
                    Way::Section => ("", 1, "{".into(), "}".into()),
                    Way::Named => {
                        (".anthropic", 2, format!("{{\n{indent}  \"anthropic\": {{"), format!("  }},\n{indent}}}"))
                    }
                    Way::Listed => ("[0]", 1, "[{".to_string(), "}]".to_string()),
                };
                let _ = writeln!(text, "{indent}\"{name}\": {open}");
                section(keys, &format!("{path}{within}"), depth + deeper, text);
                let _ = writeln!(text, "{indent}{close},");
            }
            (None, None) => {
                let default = key.default.as_ref().map_or("null".into(), ToString::to_string);
                let _ = writeln!(text, "{indent}\"{}\": {default},", key.name);
            }
        }
    }
}

/// The keys that are shown below a key.
#[derive(Clone, Copy)]
struct Inner<'a> {
    keys: &'a [Key],
    way: Way,
}

/// How one gets to them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// They are its own.
    Section,
    /// They are those of everything that has a name in it.
    Named,
    /// They are those of everything in its list, which is empty by default.
    Listed,
}

fn inner(shape: &Shape) -> Option<Inner<'_>> {
    let (shape, way) = match shape {
        Shape::Map(value) => (&**value, Way::Named),
        Shape::List(value) => (&**value, Way::Listed),
        shape => (shape, Way::Section),
    };
    let Shape::Section(keys) = shape else { return None };
    Some(Inner { keys, way })
}

/// The meaning of a key, what may stand there, and whether it works.
fn description(key: &Key, is_example: bool) -> String {
    let mut text = key.doc.to_string();
    if let Some(values) = values(&key.shape) {
        let _ = write!(text, " {values}.");
    }
    if key.effect == Effect::Later {
        text.push_str(" (No effect in this version.)");
    }
    if is_example {
        match &key.default {
            Some(serde_json::Value::Null) | None => text.push_str(" For example:"),
            Some(_) => text.push_str(" By default empty; for example:"),
        }
    }
    text
}

fn values(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Integer(min, max) => Some(format!("A whole number from {min} to {max}")),
        Shape::Number(min, max) => Some(format!("A number from {min} to {max}")),
        Shape::Choice(words) => {
            let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            Some(format!("One of {}", words.join(", ")))
        }
        Shape::Nullable(inner) => values(inner).map(|values| format!("{values}; or null")),
        _ => None,
    }
}

/// Writes a comment in lines of at most 120 characters.
fn comment(words: &str, indent: &str, text: &mut String) {
    let mut line = format!("{indent}//");
    for word in words.split_whitespace() {
        if line.len() + 1 + word.len() > 120 {
            let _ = writeln!(text, "{line}");
            line = format!("{indent}//");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}
