//! One among equals: weight, speed, keys of a pool, sessions that stay, subscriptions that are used up.

use super::*;

const USED_UP: (&str, &str) = ("a", "…abcd");

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
        world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().heed(|| world.now, &signals);
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
    world.health.enter(world.now, &place, 0, Entry::IfWell).unwrap().record(world.now, Outcome::KeyRefused(Why::Money));
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
