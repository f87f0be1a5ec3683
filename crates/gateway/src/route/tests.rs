//! Whom requests go to: configurations and requests in, targets and reasons out.

use std::time::Duration;

use proptest::prelude::*;
use wire::protocol::Protocol;

use super::facts::tests::with;
use super::*;
use crate::client::inbound::Operation;
use crate::config::{Config, Paths, parse};
use crate::glob::Glob;
use crate::health::{Entry, Outcome, Why};

/// Three providers with a key each, the first of which is the default, and all of them in the chain.
const PROVIDERS: &str = r#"
    "a": { "providerType": "anthropic", "apiKeyRef": "env:A" },
    "b": { "providerType": "anthropic-compatible", "baseUrl": "https://b.test", "apiKeyRef": "env:B" },
    "c": { "providerType": "anthropic-compatible", "baseUrl": "https://c.test", "apiKeyRef": "env:C" }"#;

const CHAIN: &str = r#""fallbackChain": ["a", "b", "c"]"#;

/// A gateway that has seen things.
struct World {
    rules: RuleSet,
    keys: Assumed,
    health: Health,
    affinity: Affinity,
    subscriptions: Subscriptions,
    now: Time,
    chance: u64,
    purse: Purse,
    prices: Cents,
}

/// So many cents a token, by provider.
struct Cents(&'static [u64]);

impl Prices for Cents {
    fn cold(&self, provider: u16, _: &str, tokens: u64) -> Option<NanoUsd> {
        self.0.get(usize::from(provider)).map(|cents| NanoUsd(cents * tokens * 10_000_000))
    }
}

fn config(providers: &str, routing: &str) -> Config {
    let text = format!(r#"{{ "providers": {{ {providers} }}, "routing": {{ "defaultProvider": "a", {routing} }} }}"#);
    parse(&text, &Paths::default()).unwrap_or_else(|faults| panic!("{faults:?} in {text}")).0
}

impl World {
    fn new(providers: &str, routing: &str) -> Self {
        let config = config(providers, routing);
        let mut rules = RuleSet::compile(&config);
        // Rows that come with a later version can be reasoned about already.
        for (known, provider) in rules.providers.iter_mut().zip(&config.providers) {
            known.enabled = provider.enabled || !provider.kind.supported && &*known.name != "off";
        }
        Self {
            rules,
            keys: Assumed::of(&config),
            health: Health::new(config.providers.iter().map(|provider| provider.name.clone())),
            affinity: Affinity::default(),
            subscriptions: Subscriptions::default(),
            now: Time::from_ms(1_000_000),
            chance: 0,
            purse: Purse { own: None, stored: true },
            prices: Cents(&[]),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            now: self.now,
            health: &self.health,
            keys: &self.keys,
            affinity: &self.affinity,
            subscriptions: &self.subscriptions,
            prices: &self.prices,
            chance: self.chance,
        }
    }

    /// Each target as `provider:slot:model`; what stands in the body is marked with `=`, what must be written with `>`.
    fn plan(&self, fields: &str, body: &str) -> String {
        with(fields, body, |facts| self.plan_for(&facts))
    }

    fn plan_for(&self, facts: &Facts<'_>) -> String {
        match self.rules.plan(facts, &self.purse, &self.view()) {
            Ok(plan) => {
                let target = |target: &Target<'_>| {
                    let slot = match target.slot {
                        Slot::Client => "own".to_string(),
                        Slot::Stored(at) => at.to_string(),
                        Slot::None => "-".to_string(),
                    };
                    let sign = if target.renames { '>' } else { '=' };
                    format!("{}:{slot}{sign}{}", self.rules.name(target.provider), target.model)
                };
                plan.targets.iter().map(target).collect::<Vec<_>>().join(" ")
            }
            Err(NoPlan::Refused { message, .. }) => format!("refused: {message}"),
            Err(NoPlan::NoTarget { .. }) => self.rules.refusal(facts, &self.purse, &self.view()).message.into_owned(),
        }
    }

    fn explain(&self, fields: &str, body: &str) -> String {
        with(fields, body, |facts| self.rules.explain(&facts, &self.purse, &self.view()).1.to_string())
    }

    /// What a record keeps of it.
    fn noted(&self, fields: &str, body: &str) -> Option<String> {
        with(fields, body, |facts| self.rules.plan_noted(&facts, &self.purse, &self.view()).1.map(|text| text.into()))
    }

    /// Three failures of this target.
    fn down(&self, provider: u16, slot: Slot, model: &str) {
        let place = Place { provider, slot, model, operation: Operation::Generation };
        for _ in 0..3 {
            let mut pass = self.health.enter(self.now, &place, 0, Entry::LastResort).unwrap();
            pass.record(self.now, Outcome::Failed(Why::Unreachable));
        }
    }

    fn own(&mut self, key: &str) {
        let home = self.rules.home_of_key(key, Protocol::AnthropicMessages);
        self.purse.own = home.map(|home| OwnKey { home, id: self.subscriptions.id(key) });
    }
}

const USED_UP: (&str, &str) = ("a", "…abcd");
const OPUS: &str = r#"{"model":"claude-opus-5-5","stream":true}"#;

#[track_caller]
fn check(routing: &str, fields: &str, body: &str, want: &str) {
    assert_eq!(World::new(PROVIDERS, routing).plan(fields, body), want, "{routing} {fields} {body}");
}

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

/// How often each comes first in a thousand draws.
fn firsts(world: &mut World, fields: &str) -> [u32; 3] {
    let mut counts = [0; 3];
    for n in 0..1000u64 {
        world.chance = n;
        let plan = world.plan(fields, OPUS);
        assert_eq!(plan.split(' ').count(), 3, "{plan}");
        counts[(plan.as_bytes()[0] - b'a') as usize] += 1;
    }
    counts
}

#[test]
fn equals_are_drawn_by_weight_and_a_session_stays_where_it_is() {
    let rule = |weights: [u32; 3]| {
        let [a, b, c] = weights;
        format!(
            r#""rules": [{{ "use": {{ "pick": "weight", "providers": [
                {{ "provider": "a", "weight": {a} }}, {{ "provider": "b", "weight": {b} }}, {{ "provider": "c", "weight": {c} }},
            ] }} }}], "fallbackChain": []"#
        )
    };
    let mut world = World::new(PROVIDERS, &rule([7, 2, 1]));
    let [a, b, c] = firsts(&mut world, "");
    assert!((650..750).contains(&a) && (150..250).contains(&b) && (60..140).contains(&c), "{a} {b} {c}");
    assert_eq!(firsts(&mut World::new(PROVIDERS, &rule([0, 1, 0])), ""), [0, 1000, 0]);
    assert_eq!(firsts(&mut World::new(PROVIDERS, &rule([0, 0, 0])), ""), [1000, 0, 0]);
    let session = "x-claude-code-session-id: s\r\n";
    with(session, OPUS, |facts| {
        let key = world.affinity.key(&facts.party, facts.model).unwrap();
        world.affinity.remember(world.now, key, 2, Slot::Stored(0));
    });
    assert_eq!(firsts(&mut world, session), [0, 0, 1000]);
    assert_ne!(firsts(&mut world, "x-claude-code-session-id: t\r\n")[2], 1000);
    assert_ne!(
        firsts(&mut world, &format!("{session}x-claude-code-agent-id: a\r\n"))[2],
        1000,
        "agents have caches of their own"
    );
}

#[test]
fn of_equals_the_quickest_comes_first_and_a_stranger_gets_its_chance() {
    let routing = r#""rules": [{ "use": { "providers": ["a", "b", "c"], "pick": "latency" } }]"#;
    let world = World::new(PROVIDERS, routing);
    let took = |provider, ms| {
        let place =
            Place { provider, slot: Slot::Stored(0), model: "claude-opus-5-5", operation: Operation::Generation };
        let first = Some(Duration::from_millis(ms));
        world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().record(world.now, Outcome::Good { first });
    };
    took(0, 900);
    took(1, 300);
    assert!(world.plan("", OPUS).starts_with("c:"), "nobody knows how quick it is");
    took(2, 400);
    assert_eq!(world.plan("", OPUS), "b:0=claude-opus-5-5 c:0=claude-opus-5-5 a:0=claude-opus-5-5");
}

#[test]
fn a_pool_of_keys_is_used_by_what_is_left_of_each() {
    let providers = r#""a": { "providerType": "anthropic", "apiKeyRef": ["env:A", "env:B", "env:C"] }"#;
    let mut world = World::new(providers, r#""fallbackChain": []"#);
    let m = r#"{"model":"m"}"#;
    assert_eq!(world.plan("", m), "a:0=m a:1=m a:2=m");
    world.chance = 1;
    assert_eq!(world.plan("", m), "a:2=m a:0=m a:1=m", "chance shifts the order");
    world.chance = 0;
    let heed = |slot, remaining| {
        let place = Place { provider: 0, slot: Slot::Stored(slot), model: "m", operation: Operation::Generation };
        let full_in = Duration::from_secs(60);
        let requests = Some(crate::signals::Quota { limit: 100, remaining, full_in });
        let signals = crate::signals::Signals { requests, ..Default::default() };
        world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().heed(world.now, &signals);
    };
    heed(0, 20);
    heed(1, 0);
    assert_eq!(world.plan("", m), "a:2=m a:0=m", "the second is used up");
    let session = "x-claude-code-session-id: s\r\n";
    with(session, m, |facts| {
        let key = world.affinity.key(&facts.party, facts.model).unwrap();
        world.affinity.remember(world.now, key, 0, Slot::Stored(0));
    });
    assert_eq!(world.plan(session, m), "a:0=m a:2=m", "a session stays at its key");
    let place = Place { provider: 0, slot: Slot::Stored(0), model: "m", operation: Operation::Generation };
    world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().record(world.now, Outcome::KeyRefused);
    assert_eq!(world.plan(session, m), "a:2=m", "unless it is refused");
}

#[test]
fn a_switch_that_costs_too_much_is_refused_while_the_cache_is_warm() {
    let routing = |limit: &str| format!(r#""maxSwitchCostUsd": {limit}, "agentRules": {{ "x": "b" }}, {CHAIN}"#);
    let session = "x-claude-code-session-id: s\r\nx-cco-agent: x\r\n";
    let mut world = World::new(PROVIDERS, &routing("0.50"));
    world.prices = Cents(&[0, 1, 2]);
    with(session, OPUS, |facts| {
        let key = world.affinity.key(&facts.party, facts.model).unwrap();
        world.affinity.remember(world.now, key, 0, Slot::Stored(0));
        let seen = Measured { prompt: (400, 100), warm: 40, keeps: Duration::from_secs(300) };
        world.affinity.measure(world.now, key, (0, Slot::Stored(0)), &seen);
    });
    assert_eq!(
        world.plan(session, OPUS),
        "b:0=claude-opus-5-5 a:0=claude-opus-5-5",
        "40 cents are within it, 80 are not"
    );
    assert!(
        world
            .explain(session, OPUS)
            .contains("-  c, model claude-opus-5-5, key 1: its cold prompt cache would cost $0.80")
    );
    world.now = world.now + Duration::from_secs(300);
    assert_eq!(world.plan(session, OPUS).split(' ').count(), 3, "the cache is cold");
    world.now = Time::from_ms(1_000_000);
    let off = PROVIDERS.replacen('{', "{ \"enabled\": false, ", 1);
    let moved = World { rules: World::new(&off, &routing("0")).rules, ..world };
    assert_eq!(moved.plan(session, OPUS), "b:0=claude-opus-5-5 c:0=claude-opus-5-5", "it cannot stay where it was");
}

#[test]
fn no_price_keeps_a_session_at_a_home_that_is_no_target() {
    let session = "x-claude-code-session-id: s\r\n";
    let at_b = |routing: &str| {
        let mut world = World::new(PROVIDERS, routing);
        world.prices = Cents(&[2, 0, 1]);
        with(session, OPUS, |facts| {
            let key = world.affinity.key(&facts.party, facts.model).unwrap();
            world.affinity.remember(world.now, key, 1, Slot::Stored(0));
            let seen = Measured { prompt: (400, 100), warm: 100, keeps: Duration::from_secs(300) };
            world.affinity.measure(world.now, key, (1, Slot::Stored(0)), &seen);
        });
        world
    };
    let limit = r#""maxSwitchCostUsd": 0.50"#;
    let alone = at_b(&format!(r#"{limit}, "fallbackChain": ["a"]"#));
    assert_eq!(alone.plan(session, OPUS), "a:0=claude-opus-5-5");
    let cheapest = at_b(&format!(r#"{limit}, "fallbackChain": ["a", "c"]"#));
    assert_eq!(cheapest.plan(session, OPUS), "c:0=claude-opus-5-5 a:0=claude-opus-5-5");
    assert_eq!(at_b(&format!("{limit}, {CHAIN}")).plan(session, OPUS), "b:0=claude-opus-5-5");
    // Another model of the same session has no cache there.
    let other = r#"{"model":"claude-sonnet-5-5"}"#;
    assert!(at_b(&format!("{limit}, {CHAIN}")).plan(session, other).starts_with("a:0="));
    // A home that rests is still the home.
    let resting = at_b(&format!("{limit}, {CHAIN}"));
    resting.down(1, Slot::Stored(0), "claude-opus-5-5");
    assert_eq!(resting.plan(session, OPUS), "b:0=claude-opus-5-5");
}

#[test]
fn affinity_can_be_off() {
    let world = World::new(PROVIDERS, r#""affinity": false, "fallbackChain": []"#);
    with("x-claude-code-session-id: s\r\n", OPUS, |facts| {
        assert_eq!(world.rules.plan(&facts, &world.purse, &world.view()).unwrap().session, None);
    });
}

#[test]
fn a_used_up_subscription_is_replaced_only_where_that_is_wanted_and_only_by_a_stored_key() {
    for (limit, want) in [
        ("pass", "a:own=claude-opus-5-5 b:0=claude-opus-5-5"),
        ("c", "c:0=claude-opus-5-5"),
        ("a", "a:0=claude-opus-5-5"),
    ] {
        let routing = format!(r#""onSubscriptionLimit": "{limit}", "fallbackChain": ["b"]"#);
        let mut world = World::new(PROVIDERS, &routing);
        world.own("sk-ant-oat01-x");
        assert_eq!(world.plan("", OPUS), "a:own=claude-opus-5-5 b:0=claude-opus-5-5");
        let id = world.purse.own.unwrap().id;
        world.subscriptions.used_up(world.now, id, &USED_UP, Some(Duration::from_secs(60)));
        assert_eq!(world.plan("", OPUS), want, "{limit}");
        world.now = world.now + Duration::from_secs(60);
        assert_eq!(world.plan("", OPUS), "a:own=claude-opus-5-5 b:0=claude-opus-5-5");
    }
}

#[test]
fn a_caller_whom_nobody_else_can_serve_stays_where_its_subscription_is() {
    let chain = "a:own=claude-opus-5-5 b:0=claude-opus-5-5";
    let alone = "a:own=claude-opus-5-5";
    for (limit, stored, want) in [("c", false, alone), ("a", false, alone), ("off", true, chain)] {
        let providers = format!(
            r#"{PROVIDERS}, "off": {{ "enabled": false, "providerType": "anthropic-compatible", "baseUrl": "https://off.test" }}"#
        );
        let routing = format!(r#""onSubscriptionLimit": "{limit}", "fallbackChain": ["b"]"#);
        let mut world = World::new(&providers, &routing);
        world.own("sk-ant-oat01-x");
        world.purse.stored = stored;
        let id = world.purse.own.unwrap().id;
        world.subscriptions.used_up(world.now, id, &USED_UP, Some(Duration::from_secs(60)));
        assert_eq!(world.plan("", OPUS), want, "{limit} {stored}");
    }
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
fn no_list_of_targets_is_endless() {
    let many: Vec<String> = (0..40)
        .map(|n| format!(r#""p{n}": {{ "providerType": "anthropic-compatible", "baseUrl": "https://p.test", "apiKeyRef": "env:A" }}"#))
        .collect();
    let names: Vec<String> = (0..40).map(|n| format!("\"p{n}\"")).collect();
    let providers = format!("{PROVIDERS}, {}", many.join(","));
    let world = World::new(&providers, &format!(r#""fallbackChain": [{}]"#, names.join(",")));
    assert_eq!(world.plan("", OPUS).split(' ').count(), TARGETS);
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
