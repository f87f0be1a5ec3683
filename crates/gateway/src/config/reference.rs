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
    (
        "routing.rules",
        r#"[{
      "name": "long prompts",
      "when": { "promptTokensOver": 150000, "model": "claude-*" },
      "use": { "providers": ["anthropic"], "model": null },
    }]"#,
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
//   credential:NAME  the stored credential (comes with a later version)
//   file:PATH        a file that only you may read (mode 0600)
//   exec:COMMAND     what a helper prints (comes with a later version)
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
        comment(&description(key), &indent, text);
        let example = EXAMPLES.iter().find(|(at, _)| *at == path).map(|(_, example)| *example);
        let entries = match (&key.shape, example) {
            (_, Some(example)) => {
                let _ = writeln!(text, "{indent}\"{}\": {example},", key.name);
                continue;
            }
            (Shape::Section(keys), _) => Some((keys, None)),
            (Shape::Map(value), _) => match &**value {
                Shape::Section(keys) => Some((keys, Some("anthropic"))),
                _ => None,
            },
            _ => None,
        };
        match entries {
            Some((keys, None)) => {
                let _ = writeln!(text, "{indent}\"{}\": {{", key.name);
                section(keys, &path, depth + 1, text);
                let _ = writeln!(text, "{indent}}},");
            }
            Some((keys, Some(name))) => {
                let _ = writeln!(text, "{indent}\"{}\": {{\n{indent}  \"{name}\": {{", key.name);
                section(keys, &format!("{path}.{name}"), depth + 2, text);
                let _ = writeln!(text, "{indent}  }},\n{indent}}},");
            }
            None => {
                let default = key.default.as_ref().map_or("null".into(), ToString::to_string);
                let _ = writeln!(text, "{indent}\"{}\": {default},", key.name);
            }
        }
    }
}

/// The meaning of a key, what may stand there, and whether it works.
fn description(key: &Key) -> String {
    let mut text = key.doc.to_string();
    if let Some(values) = values(&key.shape) {
        let _ = write!(text, " {values}.");
    }
    if key.effect == Effect::Later {
        text.push_str(" (No effect in this version.)");
    }
    if EXAMPLES.iter().any(|(path, _)| path.rsplit('.').next() == Some(key.name)) {
        text.push_str(" By default empty; for example:");
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
