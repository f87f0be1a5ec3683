//! Who can take a request, and with whose key.

use super::*;

#[test]
fn who_cannot_serve_is_skipped_and_told() {
    let providers = r#"
        "a": { "providerType": "anthropic", "enabled": false },
        "b": { "providerType": "anthropic-compatible", "baseUrl": "https://b.test" },
        "c": { "providerType": "anthropic-compatible", "baseUrl": "https://c.test", "apiKeyRef": "env:C" },
        "d": { "providerType": "openai", "apiKeyRef": "env:D" },
        "e": { "providerType": "deepseek", "apiKeyRef": "env:E" },
        "off": { "providerType": "ollama", "enabled": false }"#;
    let mut world = World::new(providers, r#""fallbackChain": ["a", "b", "c", "d", "e", "off"]"#);
    assert_eq!(world.plan("", OPUS), "c:0=claude-opus-5-5");
    assert_eq!(
        world.explain("", OPUS),
        "`defaultProvider`, then `fallbackChain`
-  a, model claude-opus-5-5: it is not enabled
-  b, model claude-opus-5-5: there is no key for it: set `apiKeyRef`, or send your own key
1. c, model claude-opus-5-5, key 1: taken
-  d, model claude-opus-5-5: it does not have this model: set its `modelAliases` or `defaultModel`
-  e, model claude-opus-5-5: it does not have this model: set its `modelAliases` or `defaultModel`
-  off, model claude-opus-5-5: it is not enabled
"
    );
    world.purse.stored = false;
    let told = world.plan("", OPUS);
    assert!(told.starts_with("no key: send your own"), "{told}");
    let keyless = World::new(r#""a": { "providerType": "anthropic", "apiKeyRef": "" }"#, r#""fallbackChain": []"#);
    let told = keyless.plan("", OPUS);
    assert!(
        told.starts_with("there is no key for the provider `a`: set `ANTHROPIC_API_KEY` where the gateway runs"),
        "{told}"
    );
    let disabled = World::new(r#""a": { "providerType": "anthropic", "enabled": false }"#, r#""fallbackChain": []"#);
    assert!(disabled.plan("", OPUS).starts_with("no provider is enabled"));
}

#[test]
fn the_callers_own_key_stays_with_its_provider() {
    let mut world = World::new(PROVIDERS, CHAIN);
    world.own("sk-ant-oat01-x");
    assert_eq!(world.plan("", OPUS), "a:own=claude-opus-5-5 b:0=claude-opus-5-5 c:0=claude-opus-5-5");
    world.purse.stored = false;
    assert_eq!(world.plan("", OPUS), "a:own=claude-opus-5-5", "nothing else may be spent");
    // A rule that sends the request elsewhere does not send the key along.
    let mut ruled = World::new(PROVIDERS, r#""agentRules": { "x": "b" }, "fallbackChain": ["a", "c"]"#);
    ruled.own("sk-ant-oat01-x");
    let agent = "x-cco-agent: x\r\n";
    assert_eq!(ruled.plan(agent, OPUS), "b:0=claude-opus-5-5 a:own=claude-opus-5-5 c:0=claude-opus-5-5");
    ruled.purse.stored = false;
    assert_eq!(ruled.plan(agent, OPUS), "a:own=claude-opus-5-5");
}

#[test]
fn a_key_goes_to_the_provider_whose_form_it_has_and_any_other_to_the_default() {
    let providers = r#"
        "a": { "providerType": "anthropic-compatible", "baseUrl": "https://a.test" },
        "b": { "providerType": "anthropic", "enabled": false },
        "c": { "providerType": "anthropic" }"#;
    let world = World::new(providers, r#""fallbackChain": ["c"]"#);
    let home_for = |world: &World, key: &str, protocol| {
        world
            .rules
            .home_of_key(key, protocol)
            .map_or_else(|| "-".to_string(), |home| world.rules.name(home).to_string())
    };
    let home = |world: &World, key: &str| home_for(world, key, Protocol::AnthropicMessages);
    assert_eq!((home(&world, "sk-ant-api03-x"), home(&world, "sk-other")), ("c".into(), "a".into()));
    assert_eq!((home(&world, "sk-proj-x"), home(&world, "sk-or-v1-x")), ("-".into(), "-".into()));
    let stored =
        World::new(&providers.replace("\"anthropic\" }", "\"anthropic\", \"apiKeyMode\": \"stored\" }"), CHAIN);
    assert_eq!(home(&stored, "sk-ant-api03-x"), "-", "Anthropic takes no caller's key here");
    let first = World::new(&PROVIDERS.replacen('{', "{ \"enabled\": false, ", 1), CHAIN);
    assert_eq!((home(&first, "k"), home(&first, "sk-ant-x")), ("b".into(), "-".into()), "the default is off");
    let all = r#"
        "a": { "providerType": "anthropic" },
        "b": { "providerType": "deepseek" },
        "c": { "providerType": "openai" },
        "d": { "providerType": "openrouter" }"#;
    let (chat, responses) = (Protocol::OpenAiChat, Protocol::OpenAiResponses);
    let all = World::new(all, r#""fallbackChain": []"#);
    for (key, protocol, want) in [
        ("sk-ant-oat01-x", chat, "a"),
        ("sk-proj-x", Protocol::AnthropicMessages, "c"),
        ("sk-svcacct-x", chat, "c"),
        ("sk-or-v1-x", chat, "d"),
        ("sk-0123", chat, "c"),
        ("sk-0123", responses, "c"),
        ("sk-0123", Protocol::AnthropicMessages, "a"),
        ("k", chat, "a"),
    ] {
        assert_eq!(home_for(&all, key, protocol), want, "{key} {protocol:?}");
    }
    // A default that wants keys and is asked in its own protocol is meant by a key that many vendors could have given.
    let other = r#""a": { "providerType": "deepseek" }, "c": { "providerType": "openai" }"#;
    let other = World::new(other, r#""fallbackChain": []"#);
    assert_eq!((home_for(&other, "sk-0123", chat), home_for(&other, "sk-proj-x", chat)), ("a".into(), "c".into()));
    assert_eq!(home_for(&other, "sk-ant-api03-x", chat), "-");
    let ours = r#""a": { "providerType": "openai-compatible", "baseUrl": "https://a.test" }"#;
    let ours = World::new(ours, r#""fallbackChain": []"#);
    assert_eq!((home_for(&ours, "sk-proj-x", chat), home(&ours, "sk-ant-x")), ("a".into(), "-".into()));
}

#[test]
fn a_provider_that_always_uses_its_own_key_gets_no_other() {
    let providers = PROVIDERS.replacen('{', "{ \"apiKeyMode\": \"stored\", ", 1);
    let mut world = World::new(&providers, r#""fallbackChain": []"#);
    world.own("sk-other");
    assert_eq!(world.plan("", OPUS), "a:0=claude-opus-5-5");
    world.purse.stored = false;
    assert!(world.plan("", OPUS).starts_with("no key"));
}

#[test]
fn what_does_not_work_is_left_out_until_nothing_else_is_there() {
    let world = World::new(PROVIDERS, CHAIN);
    world.down(0, Slot::Stored(0), "claude-opus-5-5");
    assert_eq!(world.plan("", OPUS), "b:0=claude-opus-5-5 c:0=claude-opus-5-5");
    assert!(
        world
            .explain("", OPUS)
            .contains("-  a, model claude-opus-5-5, key 1: it rests for 5 s: it could not be reached")
    );
    assert_eq!(
        world.plan("", r#"{"model":"claude-haiku-5-5"}"#),
        "a:0=claude-haiku-5-5 b:0=claude-haiku-5-5 c:0=claude-haiku-5-5",
        "another model is not concerned"
    );
    world.down(1, Slot::Stored(0), "claude-opus-5-5");
    let rest = Outcome::Limited(Some(Duration::from_secs(2)), Why::Status(429));
    let place =
        Place { provider: 2, slot: Slot::Stored(0), model: "claude-opus-5-5", operation: Operation::Generation };
    world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().record(world.now, rest);
    assert_eq!(world.plan("", OPUS), "c:0=claude-opus-5-5", "the first to come back is tried all the same");
    assert!(world.explain("", OPUS).ends_with(
        "1. c, model claude-opus-5-5, key 1: taken, because nothing else can be used, though it rests for 2 s: it was asked too often (429)\n"
    ));
    let later = World { now: world.now + Duration::from_secs(6), ..world };
    assert_eq!(later.plan("", OPUS), "a:0=claude-opus-5-5 b:0=claude-opus-5-5 c:0=claude-opus-5-5");
}

#[test]
fn what_is_not_held_has_one_target() {
    let world = World::new(PROVIDERS, CHAIN);
    let targets = |operation, body: &str| {
        with("", body, |mut facts| {
            facts.operation = operation;
            world.rules.plan(&facts, &world.purse, &world.view()).unwrap().targets.len()
        })
    };
    assert_eq!(targets(Operation::Generation, OPUS), 3);
    assert_eq!(targets(Operation::CountTokens, OPUS), 3);
    for single in [Operation::Models, Operation::Batches, Operation::Opaque] {
        assert_eq!(targets(single, "{}"), 1, "{single:?}");
    }
}

#[test]
fn the_long_context_suffix_is_for_us_alone() {
    check(r#""fallbackChain": []"#, "", r#"{"model":"claude-opus-5-5[1m]"}"#, "a:0>claude-opus-5-5");
}

#[test]
fn no_list_of_targets_is_endless() {
    let many: Vec<String> = (0..40)
        .map(|n| format!(r#""p{n}": {{ "providerType": "anthropic-compatible", "baseUrl": "https://p.test", "apiKeyRef": "env:A" }}"#))
        .collect();
    let names: Vec<String> = (0..40).map(|n| format!("\"p{n}\"")).collect();
    let providers = format!("{PROVIDERS}, {}", many.join(","));
    let world = World::new(&providers, &format!(r#""fallbackChain": [{}]"#, names.join(",")));
    assert_eq!(world.plan("", OPUS).split(' ').count(), TARGETS);
}
