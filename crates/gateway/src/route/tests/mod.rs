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

mod choice;
mod rules;
mod serving;
mod words;

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

const OPUS: &str = r#"{"model":"claude-opus-5-5","stream":true}"#;

#[track_caller]
fn check(routing: &str, fields: &str, body: &str, want: &str) {
    assert_eq!(World::new(PROVIDERS, routing).plan(fields, body), want, "{routing} {fields} {body}");
}
