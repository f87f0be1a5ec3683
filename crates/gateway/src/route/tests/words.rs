//! What is told of a decision.

use super::*;

#[test]
fn an_explanation_says_which_condition_failed() {
    let routing = r#""rules": [
        { "name": "gpt", "when": { "model": "gpt-*" }, "use": { "providers": ["b"] } },
        { "when": { "headers": { "x-team": "rust" } }, "use": { "providers": ["b"] } },
        { "when": { "promptTokensOver": 10 }, "use": { "providers": ["b"] } },
        { "when": { "session": "*" }, "use": { "providers": ["nobody"] } },
        { "name": "rest", "when": { "stream": true }, "use": { "providers": ["b"], "fallback": false } },
    ]"#;
    assert_eq!(
        World::new(PROVIDERS, routing).explain("x-team: go\r\nx-claude-code-session-id: s\r\n", OPUS),
        "rule 1 `gpt`: no, `model` does not hold: `claude-opus-5-5`
rule 2: no, `headers` does not hold: another value of `x-team`
rule 3: no, `promptTokensOver` does not hold: about 0
rule 4: no, `providers` does not hold: none of them is configured
rule 5 `rest`: yes
1. b, model claude-opus-5-5, key 1: taken
"
    );
}

#[test]
fn a_rule_that_matched_is_named_where_nobody_can_serve_too() {
    let routing = r#""rules": [{ "name": "later", "when": { "model": "claude-*" }, "use": { "providers": ["off"] } }]"#;
    let off = r#""off": { "providerType": "anthropic-compatible", "baseUrl": "https://off.test", "enabled": false }"#;
    let mut world = World::new(&format!("{PROVIDERS}, {off}"), routing);
    world.rules.chain = Box::default();
    let explained = world.explain("", OPUS);
    assert!(explained.starts_with("rule 1 `later`: yes\nno provider can take this request\n"), "{explained}");
    let refuses =
        r#""rules": [{ "name": "dear", "when": { "model": "*opus*" }, "use": { "refuse": "no opus today" } }]"#;
    assert_eq!(World::new(PROVIDERS, refuses).explain("", OPUS), "rule 1 `dear` refuses: no opus today\n");
}

#[test]
fn a_plan_and_its_explanation_are_the_same_plan() {
    let world = World::new(PROVIDERS, CHAIN);
    with("", OPUS, |facts| {
        let plan = world.rules.plan(&facts, &world.purse, &world.view()).unwrap();
        let (explained, _) = world.rules.explain(&facts, &world.purse, &world.view());
        assert_eq!(plan.targets, explained.unwrap().targets);
        assert_eq!(facts.protocol, Protocol::AnthropicMessages);
    });
}

#[test]
fn what_a_record_keeps_of_a_decision_is_what_explains_it_but_for_the_rules_that_do_not_match() {
    let rules = r#""rules": [
        { "name": "never", "when": { "model": "x*" }, "use": { "providers": ["c"] } },
        { "name": "long", "when": { "model": "claude*" }, "use": { "providers": ["b"] } },
        { "when": { "model": "gpt*" }, "use": { "refuse": "no" } } ]"#;
    let world = World::new(PROVIDERS, &format!("{CHAIN}, {rules}"));
    world.down(2, Slot::Stored(0), "claude-sonnet-5-5");
    for (body, unmatched) in [(r#"{"model":"claude-sonnet-5-5"}"#, 1), (r#"{"model":"gpt-5"}"#, 2)] {
        let all = world.explain("", body);
        let want: Vec<&str> = all.lines().skip(unmatched).collect();
        assert_eq!(world.noted("", body).as_deref(), Some(&*want.join("\n")), "{all}");
    }
    let noted = world.noted("", r#"{"model":"claude-sonnet-5-5"}"#).unwrap();
    assert!(noted.starts_with("rule 2 `long`: yes\n1. b, model claude-sonnet-5-5, key 1: taken\n"), "{noted}");
    assert!(noted.contains("-  c, model claude-sonnet-5-5, key 1: it rests for"), "{noted}");
}

#[test]
fn where_there_is_nothing_to_choose_from_nothing_is_noted() {
    let one = World::new(r#""a": { "providerType": "anthropic", "apiKeyRef": "env:A" }"#, r#""fallbackChain": ["a"]"#);
    assert_eq!(one.noted("", r#"{"model":"claude-sonnet-5-5"}"#), None);
    let pool = World::new(
        r#""a": { "providerType": "anthropic", "apiKeyRef": ["env:A", "env:B"] }"#,
        r#""fallbackChain": ["a"]"#,
    );
    assert!(pool.noted("", r#"{"model":"claude-sonnet-5-5"}"#).is_some());
}
