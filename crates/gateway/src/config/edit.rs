//! Changes to a configuration's text that leave its comments and everything else where they are.

use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};
use jsonc_parser::errors::ParseError;
use serde_json::Value as Json;

use super::fault::Lines;
use super::path::{KeyPath, Step};

/// Why a text cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditError {
    /// It is not well-formed.
    Malformed {
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// What lies on the way to the key is no object, or no list of that length.
    NoWay(String),
}

impl std::fmt::Display for EditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Malformed { line, column, why } => {
                write!(f, "the file is not well-formed: line {line}, column {column}: {why}")
            }
            Self::NoWay(place) => write!(f, "`{place}` is not in the file: set what it belongs to first"),
        }
    }
}

impl std::error::Error for EditError {}

fn malformed(text: &str, error: &ParseError) -> EditError {
    let (line, column) = Lines::new(text).at(error.range().start);
    EditError::Malformed { line, column, why: super::lower_first(&error.kind().to_string()) }
}

/// By what editors on Windows mark UTF-8: no part of the text, and kept.
const MARK: char = '\u{feff}';

/// A text with comments as plain JSON.
pub fn plain(text: &str) -> Result<Json, EditError> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    jsonc_parser::parse_to_serde_value(text, &super::options()).map_err(|error| malformed(text, &error))
}

/// Whether the text says something at this key, known or not.
pub fn is_in(text: &str, path: &KeyPath) -> bool {
    edited(text, path, None).is_ok_and(|without| without != text)
}

/// The text with this value at this key; `None` removes the key, so that its default holds.
pub fn edited(text: &str, path: &KeyPath, value: Option<&Json>) -> Result<String, EditError> {
    changed(text, path, value, |whole| whole.object_value(super::check::SECTION).unwrap_or(whole))
}

/// The same of a file of another program, in which a section of ours is nothing to put its keys into.
pub fn edited_of_another(text: &str, path: &KeyPath, value: Option<&Json>) -> Result<String, EditError> {
    changed(text, path, value, |whole| whole)
}

fn changed(
    text: &str,
    path: &KeyPath,
    value: Option<&Json>,
    within: impl Fn(CstObject) -> CstObject,
) -> Result<String, EditError> {
    if let Some(marked) = text.strip_prefix(MARK) {
        return Ok(format!("{MARK}{}", changed(marked, path, value, within)?));
    }
    let start = if text.trim().is_empty() { "{}\n" } else { text };
    let root = CstRootNode::parse(start, &super::options()).map_err(|error| malformed(start, &error))?;
    let whole = root.object_value_or_create().ok_or_else(|| EditError::NoWay("{ … }".into()))?;
    match value {
        Some(value) => put(within(whole), &path.0, value, path)?,
        None => remove(within(whole), &path.0),
    }
    Ok(root.to_string())
}

fn put(object: CstObject, steps: &[Step], value: &Json, path: &KeyPath) -> Result<(), EditError> {
    let no_way = || EditError::NoWay(path.to_string());
    let Some((Step::Key(name), rest)) = steps.split_first() else { return Err(no_way()) };
    let Some(property) = object.get(name) else {
        if rest.iter().any(|step| matches!(step, Step::Index(_))) {
            return Err(no_way());
        }
        let value = rest.iter().rev().fold(input(value), |inner, step| match step {
            Step::Key(key) => CstInputValue::Object(vec![(key.clone(), inner)]),
            Step::Index(_) => inner,
        });
        // An object on one line stays on one line; an empty one gets lines of its own.
        if object.properties().is_empty() {
            object.ensure_multiline();
        }
        object.append(name, value);
        return Ok(());
    };
    match rest {
        [] => property.set_value(input(value)),
        [Step::Key(_), ..] => put(property.object_value().ok_or_else(no_way)?, rest, value, path)?,
        [Step::Index(index), rest @ ..] => {
            let element = property.array_value().and_then(|list| list.elements().into_iter().nth(*index));
            put_in(element.ok_or_else(no_way)?, rest, value, path)?;
        }
    }
    Ok(())
}

/// The same for an element of a list.
fn put_in(element: CstNode, rest: &[Step], value: &Json, path: &KeyPath) -> Result<(), EditError> {
    let no_way = || EditError::NoWay(path.to_string());
    match rest {
        [] => {
            let value = input(value);
            let replaced = match element {
                CstNode::Container(jsonc_parser::cst::CstContainerNode::Object(object)) => object.replace_with(value),
                CstNode::Container(jsonc_parser::cst::CstContainerNode::Array(array)) => array.replace_with(value),
                CstNode::Leaf(jsonc_parser::cst::CstLeafNode::StringLit(text)) => text.replace_with(value),
                CstNode::Leaf(jsonc_parser::cst::CstLeafNode::NumberLit(number)) => number.replace_with(value),
                CstNode::Leaf(jsonc_parser::cst::CstLeafNode::BooleanLit(boolean)) => boolean.replace_with(value),
                CstNode::Leaf(jsonc_parser::cst::CstLeafNode::NullKeyword(null)) => null.replace_with(value),
                _ => None,
            };
            replaced.map(drop).ok_or_else(no_way)
        }
        [Step::Key(_), ..] => put(element.as_object().ok_or_else(no_way)?, rest, value, path),
        [Step::Index(index), rest @ ..] => {
            let list = element.as_array().ok_or_else(no_way)?;
            put_in(list.elements().into_iter().nth(*index).ok_or_else(no_way)?, rest, value, path)
        }
    }
}

/// Removes a key, if it is there.
fn remove(object: CstObject, steps: &[Step]) {
    let mut at = Some(CstNode::from(object));
    for (i, step) in steps.iter().enumerate() {
        let Some(node) = at else { return };
        let last = i + 1 == steps.len();
        at = match step {
            Step::Key(name) => {
                let property = node.as_object().and_then(|object| object.get(name));
                match property {
                    Some(property) if last => return property.remove(),
                    property => property.and_then(|property| property.value()),
                }
            }
            Step::Index(index) => {
                let element = node.as_array().and_then(|list| list.elements().into_iter().nth(*index));
                match element {
                    Some(element) if last => return element.remove(),
                    element => element,
                }
            }
        };
    }
}

fn input(value: &Json) -> CstInputValue {
    match value {
        Json::Null => CstInputValue::Null,
        Json::Bool(boolean) => CstInputValue::Bool(*boolean),
        Json::Number(number) => CstInputValue::Number(number.to_string()),
        Json::String(text) => CstInputValue::String(text.clone()),
        Json::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Json::Object(object) => {
            CstInputValue::Object(object.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn check(text: &str, path: &str, value: Option<Json>, want: &str) {
        let got = edited(text, &path.parse().unwrap(), value.as_ref());
        assert_eq!(got.as_deref(), Ok(want), "{path}");
    }

    #[test]
    fn comments_and_everything_else_stay() {
        let text = "{\n  // why this port\n  \"server\": {\n    \"listen\": \"127.0.0.1:1\", // old\n    \"pingSecs\": 5,\n  },\n}\n";
        check(text, "server.listen", Some(json!("127.0.0.1:2")), &text.replace(":1\"", ":2\""));
        check(
            text,
            "server.pingSecs",
            None,
            "{\n  // why this port\n  \"server\": {\n    \"listen\": \"127.0.0.1:1\", // old\n  },\n}\n",
        );
        check(
            text,
            "audit.enabled",
            Some(json!(false)),
            &text.replace("  },\n}", "  },\n  \"audit\": {\n    \"enabled\": false,\n  },\n}"),
        );
    }

    #[test]
    fn a_file_of_an_editor_on_windows_keeps_its_mark_and_its_ends_of_lines() {
        let text = "\u{feff}{\r\n  \"log\": { \"level\": \"warn\" } // loud\r\n}\r\n";
        check(text, "log.level", Some(json!("debug")), &text.replace("warn", "debug"));
        assert_eq!(plain(text).unwrap(), json!({ "log": { "level": "warn" } }));
        assert!(is_in(text, &"log.level".parse().unwrap()) && !is_in(text, &"log.format".parse().unwrap()));
    }

    #[test]
    fn a_key_of_a_shared_file_is_put_into_our_section() {
        let text = "{ \"other\": 1, \"llmGateway\": { \"log\": { \"level\": \"warn\" } } }";
        check(text, "log.level", Some(json!("debug")), &text.replace("warn", "debug"));
    }

    #[test]
    fn elements_of_lists_are_changed_in_their_place() {
        let text = r#"{ "routing": { "rules": [{ "name": "a", "use": { "model": "m" } }] } }"#;
        check(text, "routing.rules[0].name", Some(json!("b")), &text.replace("\"a\"", "\"b\""));
        check(text, "routing.rules[0].use.model", Some(json!("n")), &text.replace("\"m\"", "\"n\""));
        let missing = edited(text, &"routing.rules[1].name".parse().unwrap(), Some(&json!("b")));
        assert_eq!(missing, Err(EditError::NoWay("routing.rules[1].name".into())));
        check(
            r#"{ "server": { "hosts": ["a", "b"] } }"#,
            "server.hosts[1]",
            Some(json!("c")),
            r#"{ "server": { "hosts": ["a", "c"] } }"#,
        );
    }

    #[test]
    fn an_empty_file_becomes_one_with_the_key() {
        for text in ["", "{}\n", "\n"] {
            let got = edited(text, &"log.level".parse().unwrap(), Some(&json!("debug"))).unwrap();
            assert_eq!(super::super::json_of(&got), Some(json!({ "log": { "level": "debug" } })), "{got}");
        }
        assert!(matches!(edited("{", &"log.level".parse().unwrap(), None), Err(EditError::Malformed { line: 1, .. })));
        let wrong = plain("{\n  \"a\": 1,\n  oops\n}").unwrap_err().to_string();
        assert!(wrong.starts_with("the file is not well-formed: line 3, column 3: "), "{wrong}");
    }

    #[test]
    fn a_key_is_in_a_text_whether_it_is_known_or_not() {
        let text = r#"{ "servr": { "a": 1 }, "log": {} }"#;
        let is = |path: &str| is_in(text, &path.parse().unwrap());
        assert_eq!(["servr", "servr.a", "log", "server", "log.level"].map(is), [true, true, true, false, false]);
        assert!(matches!(edited("[1]", &"log.level".parse().unwrap(), Some(&json!(1))), Err(EditError::NoWay(_))));
    }

    proptest! {
        #[test]
        fn what_was_set_is_read_back_and_nothing_else_changes(text in "[ -~äß\n]{0,20}", before in any::<bool>()) {
            let start = if before { "{\n  // c\n  \"server\": { \"pingSecs\": 7 }, // d\n  \"routing\": {}\n}" } else { "{ /* c */ }" };
            let got = edited(start, &"routing.defaultProvider".parse().unwrap(), Some(&json!(text))).unwrap();
            let read = super::super::json_of(&got).unwrap();
            prop_assert_eq!(&read["routing"]["defaultProvider"], &json!(text));
            prop_assert_eq!(before, read["server"]["pingSecs"] == json!(7));
            prop_assert!(got.contains("c"));
        }
    }
}
