//! The configuration as a user meets it: texts in, settings, notes and faults out.

use std::collections::BTreeMap;
use std::time::Duration;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use proptest::prelude::*;

use super::credential::CredentialRef;
use super::reference::EXAMPLES;
use super::*;

mod files;
mod reference;
mod rules;
mod values;

/// The smallest configuration that people have, from the days before cco.
const EXAMPLE: &str = r#"{
  "providers": {
    "anthropic": {
      "enabled": true,
      "providerType": "anthropic",
      "baseUrl": "https://api.anthropic.com",
      "apiKeyRef": "env:ANTHROPIC_API_KEY",
      "defaultModel": "claude-sonnet-4-20250514",
      "maxRetries": 3,
      "timeoutSecs": 120
    }
  },
  "routing": {
    "defaultProvider": "anthropic",
    "fallbackChain": ["anthropic", "azure", "deepseek", "ollama"]
  },
  "audit": {
    "enabled": true,
    "logRequestBodies": true,
    "logResponseBodies": true
  }
}"#;

#[track_caller]
fn good(text: &str) -> (Config, Vec<String>) {
    match parse(text, &Paths::default()) {
        Ok((config, notes)) => (config, notes.iter().map(ToString::to_string).collect()),
        Err(faults) => panic!("{}", Faults { file: "config.json".into(), faults }),
    }
}

fn faults(text: &str) -> Vec<Fault> {
    parse(text, &Paths::default()).err().unwrap_or_default()
}

/// The whole message as the user sees it.
#[track_caller]
fn check(text: &str, want: &str) {
    let got = Faults { file: "c.json".into(), faults: faults(text) }.to_string();
    assert_eq!(got, want, "for {text}");
}

/// One fault at this place of the text, with this message and help.
#[track_caller]
fn check_one(text: &str, at: (usize, usize), path: &str, message: &str, help: &str) {
    let all = faults(text);
    let [fault] = &all[..] else { panic!("one fault expected in {text}, not {all:#?}") };
    let shown: String = text.chars().take(200).collect();
    assert_eq!((fault.line, fault.column), at, "{fault:?} in {shown}");
    assert_eq!(fault.path, path, "{fault:?}");
    assert!(fault.message.contains(message), "`{message}` is not in {fault:?}");
    assert!(fault.help.as_deref().unwrap_or("").contains(help), "`{help}` is not in {fault:?}");
}

#[test]
fn nothing_at_all_means_the_defaults() {
    for text in
        ["", "  \n", "// only a comment\n", "{}", "\u{feff}{}", "{ \"providers\": {} }", "{ \"llmGateway\": {} }"]
    {
        assert_eq!(good(text), (Config::default(), Vec::new()), "{text:?}");
    }
    let config = Config::default();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:54548");
    assert_eq!((config.server.max_body, config.server.max_held), (64 << 20, 512 << 20));
    let [provider] = &config.providers[..] else { panic!("{:?}", config.providers) };
    assert_eq!((provider.name.as_str(), provider.kind.name, provider.enabled), ("anthropic", "anthropic", true));
    assert_eq!(provider.base_url.as_ref().unwrap().to_string(), "https://api.anthropic.com");
    assert_eq!(provider.api_keys, [CredentialRef::Env("ANTHROPIC_API_KEY".into())]);
    assert_eq!(provider.key_mode, KeyMode::Client);
    assert_eq!((provider.timeout, provider.idle_timeout), (Duration::from_secs(600), Duration::from_secs(300)));
    assert_eq!(
        (config.routing.default_provider.as_str(), &config.routing.fallback_chain[..]),
        ("anthropic", &["anthropic".into()][..])
    );
}

#[test]
fn the_known_example_loads_and_says_what_it_skips() {
    let (config, notes) = good(EXAMPLE);
    assert_eq!(config.providers[0].timeout, Duration::from_secs(120));
    assert_eq!(config.routing.fallback_chain, ["anthropic"]);
    assert_eq!(notes, ["routing.fallbackChain: `azure`, `deepseek`, `ollama` are not configured and are skipped"]);
}

#[test]
fn a_section_of_a_shared_file_is_read_and_its_neighbours_are_named_once() {
    let text = r#"{ "$schema": "x", "editor": {}, "llmGateway": { "server": { "pingSecs": 7 } }, "theme": 1 }"#;
    let (config, notes) = good(text);
    assert_eq!(config.server.ping, Duration::from_secs(7));
    assert_eq!(
        notes,
        ["the configuration is read from `llmGateway`; `editor`, `theme` stand beside it and are ignored"]
    );
    check_one(r#"{ "llmGateway": { "sever": {} }, "x": 1 }"#, (1, 19), "sever", "unknown key", "`server`");
    check_one(r#"{ "llmGateway": {}, "llmGateway": {} }"#, (1, 21), "llmGateway", "given twice", "remove one");
    check_one(r#"{ "llmGateway": 3 }"#, (1, 17), "", "must be an object, not a number", "{");
}
