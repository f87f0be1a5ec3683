//! The table of keys against the documentation, and every key of it spoiled.

use super::*;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config-full.jsonc");

/// Every value of the tree with its path.
fn walk<'v, 't>(value: &'v Value<'t>, path: &str, visit: &mut dyn FnMut(&str, &'v Value<'t>)) {
    visit(path, value);
    match value {
        Value::Object(object) => {
            for property in &object.properties {
                let name = property.name.as_str();
                let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                walk(&property.value, &path, visit);
            }
        }
        Value::Array(array) => {
            for (i, element) in array.elements.iter().enumerate() {
                walk(element, &format!("{path}[{i}]"), visit);
            }
        }
        _ => {}
    }
}

/// The table of keys, flat: path in the reference → key. Names of the user's own are `anthropic` there.
fn table() -> BTreeMap<String, Key> {
    fn below(shape: &Shape) -> Option<(&[Key], &'static str)> {
        match shape {
            Shape::Section(keys) => Some((keys, "")),
            Shape::Map(value) => below(value).map(|(keys, _)| (keys, ".*")),
            Shape::List(value) => below(value).map(|(keys, _)| (keys, "[0]")),
            Shape::Either(_, second) => below(second),
            _ => None,
        }
    }
    fn add(keys: &[Key], above: &str, table: &mut BTreeMap<String, Key>) {
        for key in keys {
            let path = if above.is_empty() { key.name.to_string() } else { format!("{above}.{}", key.name) };
            if let Some((keys, infix)) = below(&key.shape) {
                add(keys, &format!("{path}{infix}"), table);
            }
            table.insert(path, key.clone());
        }
    }
    let mut flat = BTreeMap::new();
    add(&Config::keys(), "", &mut flat);
    flat
}

/// The path of the table for one of a file: names of the user's own become `*`.
fn in_table(path: &str) -> String {
    ["providers.", "routing.agentRules.", "routing.modelTierRules.", "costTracking.pricingOverrides."]
        .iter()
        .find_map(|map| {
            let rest = path.strip_prefix(map)?;
            let rest = rest.split_once('.').map_or(String::new(), |(_, rest)| format!(".{rest}"));
            Some(format!("{map}*{rest}"))
        })
        .unwrap_or_else(|| path.to_string())
}

const MANUAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");

#[test]
fn the_page_in_the_documentation_is_that_of_the_program() {
    let written = std::fs::read_to_string(MANUAL).unwrap_or_default();
    assert!(
        written == Config::manual(),
        "docs/configuration.md is not what the tables say: run `cargo test -p gateway write_the_reference -- --ignored`"
    );
}

#[test]
fn the_reference_in_the_documentation_is_that_of_the_program() {
    let written = std::fs::read_to_string(REFERENCE).unwrap_or_default();
    assert!(
        written == Config::reference(),
        "docs/config-full.jsonc is not what the table of keys says: run `cargo test -p gateway write_the_reference -- --ignored`"
    );
}

#[test]
#[ignore = "writes docs/config-full.jsonc and docs/configuration.md; run it after a change of the table of keys"]
fn write_the_reference() {
    std::fs::write(REFERENCE, Config::reference()).unwrap();
    std::fs::write(MANUAL, Config::manual()).unwrap();
}

#[test]
fn the_reference_names_every_key_with_its_default() {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let root = tree(&text).unwrap().unwrap();
    let mut table = table();
    walk(&root, "", &mut |path, value| {
        let Some(key) = table.remove(&in_table(path)) else { return };
        let is_example = EXAMPLES.iter().any(|(example, _)| path.starts_with(example));
        if !matches!(key.shape, Shape::Section(_)) && path != "providers" && path != "routing.rules" && !is_example {
            let shown: serde_json::Value = serde_json::from_str(&text[value.range().start..value.range().end]).unwrap();
            assert_eq!(Some(shown), key.default, "{path}");
        }
        assert!(key.doc.ends_with('.') && key.doc.len() > 5, "{path} has no description");
    });
    assert!(table.is_empty(), "not in the reference: {:?}", table.keys());
}

#[test]
fn the_reference_is_accepted_and_without_its_examples_it_is_the_default() {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let (mut config, _) = good(&text);
    assert_eq!(config.routing.agent_rules[1].1.model.as_deref(), Some("deepseek-flash"));
    let rule = &config.routing.rules[0];
    assert_eq!((rule.when.prompt_tokens_over, rule.then.providers[0].weight), (Some(150_000), 1));
    assert_eq!(config.cost_tracking.pricing_overrides[0].1.cache_read, Some(NanoUsd(100_000_000)));
    config.providers[0].model_aliases.clear();
    config.routing.agent_rules.clear();
    config.routing.model_tier_rules.clear();
    config.routing.rules.clear();
    config.cost_tracking.pricing_overrides.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn of_a_configuration_nothing_is_noted_but_what_has_no_effect() {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let notes = good(&text).1;
    assert_eq!(
        notes,
        [
            "routing.agentRules: `deepseek` is not configured and is skipped",
            "routing.modelTierRules: `azure` is not configured and is skipped",
            "routing.rules: `deepseek` is not configured and is skipped",
        ],
        "the reference sets nothing but its examples"
    );
    let text = r#"{ "routing": { "replaySecs": 1, "continueOnBreak": true }, "translation": { "onLoss": "refuse" } }"#;
    assert_eq!(good(text).1, [""; 0], "every key has its effect");
}

/// Replaces each value of the reference in turn.
fn each_value_replaced(mut check: impl FnMut(&str, &Value<'_>, &dyn Fn(&str) -> String)) {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let root = tree(&text).unwrap().unwrap();
    walk(&root, "", &mut |path, value| {
        let range = value.range();
        check(path, value, &|new| format!("{}{new}{}", &text[..range.start], &text[range.end..]));
    });
}

#[test]
fn a_value_of_the_wrong_type_is_a_fault_at_its_own_place() {
    let mut seen = 0;
    each_value_replaced(|path, value, replaced| {
        // A list where no list belongs, and a boolean where one does.
        let list_belongs =
            matches!(value, Value::Array(_)) || path.ends_with("apiKeyRef") || path.ends_with("when.model");
        let text = replaced(if list_belongs { "true" } else { "[[]]" });
        let (line, column) = fault::Lines::new(&text).at(value.range().start);
        let all = faults(&text);
        assert!(
            all.iter().any(|fault| (fault.line, fault.column) == (line, column)
                && fault.path == path
                && fault.help.is_some()),
            "no fault at {line}:{column} {path}: {all:#?}"
        );
        seen += 1;
    });
    assert!(seen > 90, "only {seen} values were looked at");
}

#[test]
fn every_key_that_is_misspelled_or_repeated_is_a_fault_at_its_own_place() {
    let text = std::fs::read_to_string(REFERENCE).unwrap();
    let root = tree(&text).unwrap().unwrap();
    let lines = fault::Lines::new(&text);
    let mut seen = 0;
    walk(&root, "", &mut |path, value| {
        let Value::Object(object) = value else { return };
        for property in &object.properties {
            let name = property.name.as_str();
            let place = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            let range = property.range;
            let source = &text[range.start..range.end];
            let twice = format!("{}{source}, {source}{}", &text[..range.start], &text[range.end..]);
            let again = fault::Lines::new(&twice).at(range.end + 2);
            let all = faults(&twice);
            assert_eq!(all.len(), 1, "{place}: {all:#?}");
            assert_eq!(((all[0].line, all[0].column), &all[0].path), (again, &place), "{all:#?}");
            if table().contains_key(&in_table(&place)) {
                let misspelled =
                    format!("{}\"{name}x\"{}", &text[..range.start], &text[range.start + name.len() + 2..]);
                let want = format!("did you mean `{name}`?");
                let at = lines.at(range.start);
                let all = faults(&misspelled);
                assert!(
                    all.iter().any(|f| (f.line, f.column) == at
                        && f.path == format!("{place}x")
                        && f.help.as_ref() == Some(&want)),
                    "{place}: {all:#?}"
                );
                seen += 1;
            }
        }
    });
    assert!(seen > 70, "only {seen} keys were looked at");
}
