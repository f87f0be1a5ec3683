//! Which rule decides, and who comes first where none does.

use super::*;

/// Only the rule's condition decides whether the request goes to `b`.
#[track_caller]
fn check_when(when: &str, fields: &str, body: &str, holds: bool) {
    let rule = format!(r#""rules": [{{ "when": {{ {when} }}, "use": {{ "providers": ["b"], "fallback": false }} }}]"#);
    let got = World::new(PROVIDERS, &rule).plan(fields, body);
    assert_eq!(got.starts_with("b:"), holds, "{when} for {fields} {body}: {got}");
}

#[test]
fn without_rules_the_default_comes_first_and_then_the_chain() {
    check(r#""fallbackChain": []"#, "", OPUS, "a:0=claude-opus-5-5");
    check(CHAIN, "", OPUS, "a:0=claude-opus-5-5 b:0=claude-opus-5-5 c:0=claude-opus-5-5");
    check(r#""fallbackChain": ["c", "a"]"#, "", OPUS, "a:0=claude-opus-5-5 c:0=claude-opus-5-5");
    check(CHAIN, "", "{}", "a:0= b:0= c:0=");
    // A name that nobody knows is asked for as it is, once: the default does not come again with a model of its own.
    check(CHAIN, "", r#"{"model":"mine"}"#, "a:0=mine b:0=mine c:0=mine");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = r#""rules": [
        { "when": { "model": "gpt-*" }, "use": { "providers": ["c"] } },
        { "when": { "model": "claude-*" }, "use": { "providers": ["b", { "provider": "c", "model": "x" }] } },
        { "use": { "providers": ["c"] } },
    ], "#;
    let routing = format!("{rules}{CHAIN}");
    let chain = "a:0=claude-opus-5-5 c:0=claude-opus-5-5";
    check(&routing, "", OPUS, &format!("b:0=claude-opus-5-5 c:0>x {chain}"));
    check(&routing, "", r#"{"model":"gpt-6"}"#, "c:0=gpt-6 a:0>claude-sonnet-5-5 b:0=gpt-6");
    check(&routing, "", r#"{"model":"mine"}"#, "c:0=mine a:0>claude-sonnet-5-5 b:0=mine");
    let alone = r#""rules": [{ "use": { "providers": ["b"], "fallback": false, "model": "m" } }]"#;
    check(alone, "", OPUS, "b:0>m");
    let refuses = r#""rules": [{ "when": { "model": "*opus*" }, "use": { "refuse": "no opus today" } }]"#;
    check(refuses, "", OPUS, "refused: no opus today");
}

#[test]
fn a_rule_without_providers_changes_what_the_others_decide() {
    let routing = r#""rules": [{ "use": { "model": "claude-haiku-5-5", "timeoutSecs": 7, "headers": { "x-a": "b" } } }],
        "agentRules": { "scout": "b" }, "fallbackChain": []"#;
    let world = World::new(PROVIDERS, routing);
    assert_eq!(world.plan("", OPUS), "a:0>claude-haiku-5-5");
    assert_eq!(world.plan("x-cco-agent: Scout\r\n", OPUS), "b:0>claude-haiku-5-5");
    with("", OPUS, |facts| {
        let plan = world.rules.plan(&facts, &world.purse, &world.view()).unwrap();
        assert_eq!((plan.rule, plan.cause), (Some(0), Cause::Default));
        assert_eq!((plan.changes.timeout, plan.changes.headers.len()), (Some(Duration::from_secs(7)), 1));
    });
}

#[test]
fn agents_come_before_tiers_and_tiers_before_the_default() {
    let routing = r#""agentRules": { "Explore": "b", "rust-*": { "provider": "c", "model": "x" } },
        "modelTierRules": { "haiku": "c", "opus": "b" }, "fallbackChain": []"#;
    let explore = "x-claude-code-agent-id: a\r\nx-claude-code-agent-type: Explore\r\n";
    check(routing, explore, r#"{"model":"claude-haiku-5-5"}"#, "b:0=claude-haiku-5-5");
    check(routing, "x-cco-agent: rust-specialist\r\n", OPUS, "c:0>x");
    check(routing, "", r#"{"model":"claude-HAIKU-5-5"}"#, "c:0=claude-HAIKU-5-5");
    check(routing, "", OPUS, "b:0=claude-opus-5-5");
    check(routing, "", r#"{"model":"claude-sonnet-5-5"}"#, "a:0=claude-sonnet-5-5");
    check(routing, "", "{}", "a:0=");
}

#[test]
fn every_condition_of_a_rule_counts() {
    let sub = "x-claude-code-agent-id: a\r\n";
    for (when, fields, body, holds) in [
        (r#""model": ["gpt-*", "*opus*"]"#, "", OPUS, true),
        (r#""model": "opus""#, "", OPUS, false),
        (r#""protocol": "anthropic""#, "", OPUS, true),
        (r#""protocol": "openai-chat""#, "", OPUS, false),
        (r#""agent": "sub""#, sub, OPUS, true),
        (r#""agent": "sub""#, "", OPUS, false),
        (r#""agent": "main""#, "", OPUS, true),
        (r#""agentType": "scout""#, "x-cco-agent: scout\r\n", OPUS, true),
        (r#""agentType": "*""#, "", OPUS, false),
        (r#""session": "s-*""#, "x-claude-code-session-id: s-1\r\n", OPUS, true),
        (r#""session": "s-*""#, "", OPUS, false),
        (r#""project": ["x", "cco"]"#, "x-cco-project: cco\r\n", OPUS, true),
        (r#""headers": { "X-Team": "r*", "x-b": "1" }"#, "x-team: Rust\r\nx-b: 1\r\n", OPUS, true),
        (r#""headers": { "X-Team": "r*", "x-b": "1" }"#, "x-team: Rust\r\n", OPUS, false),
        (r#""stream": true"#, "", OPUS, true),
        (r#""stream": false"#, "", OPUS, false),
        (r#""stream": false"#, "", "{}", true),
        (r#""thinking": true"#, "", r#"{"thinking":{"type":"adaptive"}}"#, true),
        (r#""thinking": false"#, "", r#"{"thinking":{"type":"adaptive"}}"#, false),
        (r#""tools": true"#, "", r#"{"tools":[{}]}"#, true),
        (r#""tools": true"#, "", r#"{"tools":[]}"#, false),
        (r#""images": true"#, "", r#"{"messages":[{"type":"image"}]}"#, true),
        (r#""images": false"#, "", OPUS, true),
        (r#""model": "*opus*", "stream": true, "agent": "main""#, "", OPUS, true),
        (r#""model": "*opus*", "stream": false, "agent": "main""#, "", OPUS, false),
    ] {
        check_when(when, fields, body, holds);
    }
    let long = format!(r#"{{"messages":"{}"}}"#, "x".repeat(4000));
    check_when(r#""promptTokensOver": 900"#, "", &long, true);
    check_when(r#""promptTokensOver": 1100"#, "", &long, false);
    check_when(r#""promptTokensUpTo": 1100"#, "", &long, true);
    check_when(r#""promptTokensUpTo": 900"#, "", &long, false);
}

#[test]
fn what_the_network_tells_counts_too() {
    let world = |when: &str| {
        World::new(PROVIDERS, &format!(r#""rules": [{{ "when": {{ {when} }}, "use": {{ "providers": ["b"] }} }}]"#))
    };
    let first = |world: World, key: Option<&'static str>, in_flight, unix| {
        with("", OPUS, |mut facts| {
            (facts.key_id, facts.in_flight, facts.unix) = (key, in_flight, unix);
            world.plan_for(&facts).starts_with("b:")
        })
    };
    assert!(first(world(r#""keyId": "…abcd""#), Some("…abcd"), 0, 0));
    assert!(!first(world(r#""keyId": "…abcd""#), None, 0, 0));
    assert!(first(world(r#""inFlightOver": 5"#), None, 6, 0));
    assert!(!first(world(r#""inFlightOver": 5"#), None, 5, 0));
    assert!(first(world(r#""hoursUtc": "thu 00:00-01:00""#), None, 0, 59 * 60));
    assert!(!first(world(r#""hoursUtc": ["thu 00:00-01:00", "fri 00:00-24:00"]"#), None, 0, 60 * 60));
}

/// Conditions of names of few letters, some of which a request has.
fn conditions() -> impl Strategy<Value = Vec<(usize, String)>> {
    let pattern = prop_oneof![
        4 => "[ab1-]{1,3}",
        4 => "[ab1]{0,2}\\*[ab1]{0,2}",
        1 => Just("*".to_owned()),
    ];
    proptest::collection::vec((0..SUBJECTS.len(), pattern), 1..4)
}

/// Where patterns can stand, and how a request says the text that they are held against.
const SUBJECTS: [(&str, &str); 6] = [
    ("model", ""),
    ("session", "session-id"),
    ("project", "x-cco-project"),
    ("agentType", "x-cco-agent"),
    ("headers.x-a", "x-a"),
    ("headers.x-b", "x-b"),
];

proptest! {
    #[test]
    fn the_first_rule_of_which_all_conditions_hold_is_the_one_that_matches(
        rules in proptest::collection::vec((conditions(), any::<bool>()), 1..20),
        texts in proptest::collection::vec(proptest::option::of("[ab1A-]{1,4}"), SUBJECTS.len()),
        stream in any::<bool>(),
    ) {
        let fits = |(subject, pattern): &(usize, String)| {
            texts[*subject].as_ref().is_some_and(|text| Glob::new(pattern).matches(text))
        };
        let want = rules.iter().position(|(conditions, streams)| {
            let mut subjects: Vec<usize> = conditions.iter().map(|(subject, _)| *subject).collect();
            subjects.sort_unstable();
            subjects.dedup();
            let holds = |subject: &usize| conditions.iter().filter(|one| one.0 == *subject).any(fits);
            subjects.iter().all(holds) && *streams == stream
        });
        let written = rules.iter().map(|(conditions, streams)| {
            let mut when = serde_json::json!({ "stream": streams, "headers": {} });
            for (subject, pattern) in conditions {
                let (name, _) = SUBJECTS[*subject];
                let at = match name.strip_prefix("headers.") {
                    Some(header) => &mut when["headers"][header],
                    None => &mut when[name],
                };
                if at.is_null() {
                    *at = serde_json::json!([]);
                }
                at.as_array_mut().unwrap().push(pattern.as_str().into());
            }
            serde_json::json!({ "when": when, "use": { "model": "m" } }).to_string()
        });
        let world = World::new(PROVIDERS, &format!(r#""rules": [{}]"#, written.collect::<Vec<_>>().join(",")));
        let fields: String = SUBJECTS.iter().zip(&texts).skip(1)
            .filter_map(|((_, header), text)| Some(format!("{header}: {}\r\n", text.as_ref()?)))
            .collect();
        let model = texts[0].as_ref().map(|model| format!(r#","model":"{model}""#)).unwrap_or_default();
        let body = format!(r#"{{"stream":{stream}{model}}}"#);
        with(&fields, &body, |facts| {
            let plan = world.rules.plan(&facts, &world.purse, &world.view()).unwrap();
            assert_eq!(plan.rule, want, "{fields}{body}");
        });
    }
}
