//! The configuration as a user meets it: texts in, settings, notes and faults out.

use std::collections::BTreeMap;
use std::time::Duration;

use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use proptest::prelude::*;

use super::credential::CredentialRef;
use super::reference::EXAMPLES;
use super::*;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config-full.jsonc");

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

#[test]
fn all_faults_are_told_at_once_in_the_order_of_the_text() {
    check(
        r#"{
  // comments are fine
  "server": { "listen": "0.0.0.0:1", "pingSecs": "15", "maxBodyMB": 64, },
  "providers": {
    "anthropic": { "providerType": "antropic", "baseUrl": "api.anthropic.com", "timeoutSecs": 0 },
    "mine": { "providerType": "anthropic-compatible", "headers": { "a b": "c", "x-api-key": "sk-1" } },
    "gpt": { "providerType": "vertex", "enabled": true },
  },
  "routing": { "defaultProvider": "antropic", "fallbackChain": "anthropic", "affinity": null },
  "audit": { "onFailure": "stop", "retentionDays": -1, "retentionDays": 30 },
  "extra": {}
}"#,
        "c.json:3:25: server.listen: `0.0.0.0:1` can be reached by other machines
  help: set `server.allowRemote` to true and `server.token` to a reference such as \"env:CCO_TOKEN\", or listen on 127.0.0.1
c.json:3:50: server.pingSecs: must be a number, not a string
  help: write `15`, without quotes
c.json:3:56: server.maxBodyMB: unknown key
  help: did you mean `maxBodyMb`?
c.json:5:36: providers.anthropic.providerType: no known kind of provider
  help: did you mean \"anthropic\"? This version speaks to \"anthropic\", \"anthropic-compatible\", \"openai\", \"azure\", \"deepseek\", \"ollama\", \"openrouter\", \"vllm\", \"llamacpp\", \"openai-compatible\"
c.json:5:59: providers.anthropic.baseUrl: no base URL: not a URL (relative URL without a base)
  help: write for example \"https://api.anthropic.com\"
c.json:5:95: providers.anthropic.timeoutSecs: out of range
  help: write a number from 0.05 to 86400
c.json:6:13: providers.mine.baseUrl: is missing
  help: kind `anthropic-compatible` has no default address: add `\"baseUrl\": \"https://…\"`
c.json:6:68: providers.mine.headers.\"a …\": no name for a header
  help: use letters, digits and `-`
c.json:6:80: providers.mine.headers.x-api-key: a key does not belong in a header of the configuration
  help: use `apiKeyRef`
c.json:7:30: providers.gpt.providerType: providers of kind `vertex` come with a later version
  help: set `enabled` to false; this version speaks to \"anthropic\", \"anthropic-compatible\", \"openai\", \"azure\", \"deepseek\", \"ollama\", \"openrouter\", \"vllm\", \"llamacpp\", \"openai-compatible\"
c.json:9:35: routing.defaultProvider: `antropic` is not a configured provider
  help: did you mean `anthropic`?
c.json:9:64: routing.fallbackChain: must be a list, not a string
  help: write for example `[ … ]`
c.json:9:89: routing.affinity: must be true or false, not null
  help: write for example `true`
c.json:10:27: audit.onFailure: \"stop\" is not known here
  help: write one of \"continue\", \"refuse\"
c.json:10:52: audit.retentionDays: out of range
  help: write a number from 0 to 36500
c.json:10:56: audit.retentionDays: `retentionDays` is given twice, first on line 10
  help: remove one of the two
c.json:11:3: extra: unknown key
  help: the keys here are `server`, `network`, `providers`, `routing`, `translation`, `costTracking`, `audit`, `log`",
    );
}

#[test]
fn a_text_that_is_not_json_is_one_fault_with_its_place() {
    for (text, at, message) in [
        ("{", (1, 1), "unterminated object"),
        ("{\n  \"server\": {\n    \"listen\" \"x\"\n  }\n}", (3, 14), "colon"),
        ("{ \"server\": {} \"log\": {} }", (1, 15), "comma"),
        ("{ server: {} }", (1, 3), "string"),
        ("{ 'server': {} }", (1, 3), "quoted"),
        ("{} {}", (1, 4), "more than one"),
        ("{ \"a\": \"ä\n\" ,, }", (2, 4), "unexpected"),
        ("{ \"a\": .5 }", (1, 8), ""),
        ("{ \"a\": 0x10 }", (1, 8), ""),
        ("{ \"a\": NaN }", (1, 8), ""),
        ("{ /* never closed", (1, 3), "comment"),
        (&"[".repeat(100_000), (1, 513), "nesting"),
    ] {
        check_one(text, at, "", message, "comments and trailing commas are allowed");
    }
}

#[test]
fn a_key_pasted_where_a_reference_belongs_is_not_repeated() {
    let key = "sk-ant-api03-hunter2hunter2";
    for text in [
        format!(r#"{{ "providers": {{ "anthropic": {{ "apiKeyRef": "{key}" }} }} }}"#),
        format!(r#"{{ "providers": {{ "anthropic": {{ "apiKeyRef": ["env:A", "{key}"] }} }} }}"#),
        format!(r#"{{ "server": {{ "token": "{key}" }} }}"#),
        format!(r#"{{ "network": {{ "proxy": "http://u:{key}@host/path" }} }}"#),
        format!(r#"{{ "network": {{ "proxy": "ftp://u:{key}@host" }} }}"#),
        format!(r#"{{ "providers": {{ "anthropic": {{ "baseUrl": "https://u:{key}@host" }} }} }}"#),
        format!(r#"{{ "providers": {{ "anthropic": {{ "headers": {{ "x": "{key}\n" }} }} }} }}"#),
        format!(r#"{{ "providers": {{ "anthropic": {{ "headers": {{ "authorization": "{key}" }} }} }} }}"#),
    ] {
        let all = faults(&text);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(!format!("{all:?}").contains("hunter2"), "{all:?}");
    }
    let text = r#"{ "network": { "proxy": "http://u:hunter2@p.test:3128" }, "providers": { "anthropic": { "headers": { "x": "hunter2" }, "apiKeyRef": "exec:h --password hunter2" } } }"#;
    let (config, notes) = good(text);
    assert!(!format!("{config:?} {notes:?}").contains("hunter2"), "{config:?}");
}

#[test]
fn values_of_every_sort_are_judged() {
    let server = |text: &str| format!("{{ \"server\": {{ {text} }} }}");
    let col = "{ \"server\": { ".len();
    for (text, key, message, help) in [
        (r#""listen": "54548""#, "listen", "not an address", "IP address and port"),
        (r#""listen": "localhost:80""#, "listen", "not an address", "\"127.0.0.1:80\""),
        (r#""listen": "::1""#, "listen", "not an address", "[::1]:54548"),
        (r#""listen": 54548"#, "listen", "must be a string, not a number", "127.0.0.1:54548"),
        (r#""maxConnections": 1.5"#, "maxConnections", "whole number", "without sign"),
        (r#""maxConnections": 0"#, "maxConnections", "0 is out of range", "from 1 to 1000000"),
        (r#""maxConnections": 99999999999999999999"#, "maxConnections", "whole number", ""),
        (r#""maxConnections": 1e3"#, "maxConnections", "whole number", "exponent"),
        (r#""pingSecs": 1e999"#, "pingSecs", "out of range", "from 0.05 to 3600"),
        (r#""pingSecs": -0.5"#, "pingSecs", "out of range", ""),
        (r#""allowRemote": "yes""#, "allowRemote", "true or false", "`true`"),
        (r#""allowRemote": "false""#, "allowRemote", "true or false", "`false`, without quotes"),
        (r#""token": """#, "token", "empty", "null"),
        (r#""token": "vault:x""#, "token", "no credential reference", "env:NAME"),
        (r#""token": "env:a b""#, "token", "`env:` is not followed", "env:ANTHROPIC_API_KEY"),
        (r#""hosts": ["*.test"]"#, "hosts[0]", "not a host name", "wildcard"),
        (r#""hosts": ["http://a"]"#, "hosts[0]", "not a host name", "without scheme"),
        (r#""origins": ["*"]"#, "origins[0]", "not an origin", "vscode-webview"),
        (r#""origins": ["null"]"#, "origins[0]", "not an origin", "null"),
        (r#""origins": ["https://a.test/path"]"#, "origins[0]", "not an origin", "scheme and host"),
        (r#""maxHeldMb": 10"#, "maxHeldMb", "less than `maxBodyMb`", "room of one"),
        (r#""maxBodyMb": 600"#, "maxBodyMb", "less than `maxBodyMb`", "room of one"),
    ] {
        let before = text.find(':').unwrap() + 2 + usize::from(text.contains('['));
        check_one(&server(text), (1, col + before + 1), &format!("server.{key}"), message, help);
    }
}

#[test]
fn an_address_for_other_machines_needs_leave_and_a_token() {
    let text = |more: &str| format!(r#"{{ "server": {{ "listen": "[::]:1"{more} }} }}"#);
    let at = (1, 25);
    check_one(&text(""), at, "server.listen", "`[::]:1` can be reached", "allowRemote` to true and");
    check_one(&text(r#", "allowRemote": true"#), at, "server.listen", "reached", "set `server.token`");
    check_one(&text(r#", "token": "env:A""#), at, "server.listen", "reached", "set `server.allowRemote` to true, or");
    // A token that is wrong is one fault, not two.
    check_one(&text(r#", "allowRemote": true, "token": 7"#), (1, 65), "server.token", "must be a string", "");
    let (config, _) = good(&text(r#", "allowRemote": true, "token": "env:A""#));
    assert_eq!(config.server.may_listen_on("0.0.0.0:1".parse().unwrap()), Ok(()));
    for loopback in ["127.9.9.9:1", "[::1]:0", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(Config::default().server.may_listen_on(loopback.parse().unwrap()), Ok(()), "{loopback}");
    }
    for remote in ["0.0.0.0:1", "192.168.0.1:1", "[::]:0", "[::ffff:10.0.0.1]:1"] {
        assert!(Config::default().server.may_listen_on(remote.parse().unwrap()).is_err(), "{remote}");
    }
}

#[test]
fn the_kind_of_a_provider_is_stated_or_its_name_says_it() {
    let one = |text: &str| format!(r#"{{ "providers": {{ {text} }} }}"#);
    let kind = |text: &str| good(&one(text)).0.providers[0].kind.name;
    assert_eq!(kind(r#""anthropic": {}"#), "anthropic");
    assert_eq!(
        kind(r#""anthropic": { "providerType": "anthropic-compatible", "baseUrl": "http://localhost:1" }"#),
        "anthropic-compatible"
    );
    check_one(&one(r#""mine": {}"#), (1, 26), "providers.mine.providerType", "is missing", "add `\"providerType\": …`");
    check_one(
        &one(r#""mine": { "providerType": null }"#),
        (1, 44),
        "providers.mine.providerType",
        "string, not null",
        "\"anthropic\"",
    );
    check_one(&one(r#""vertex": {}"#), (1, 28), "providers.vertex.providerType", "later version", "`enabled` to false");
    let forced = r#""deepseek": { "protocol": "ollama" }"#;
    check_one(
        &one(forced),
        (1, 44),
        "providers.deepseek.protocol",
        "does not speak",
        "\"openai-chat\" or \"anthropic\"",
    );
    let dated = r#""azure": { "baseUrl": "https://r.test", "apiVersion": "v" }"#;
    check_one(&one(dated), (1, 72), "providers.azure.apiVersion", "needs a `deployment`", "v1 API");
    check_one(
        &one(r#""a b": { "providerType": "anthropic" }"#),
        (1, 18),
        "providers.\"a …\"",
        "no name for a provider",
        "at most 64",
    );
    check_one(&one(r#""x": 7"#), (1, 23), "providers.x", "must be an object", "{ … }");
}

#[test]
fn a_provider_of_a_later_kind_may_stand_by_while_it_is_off() {
    let text = r#"{ "providers": {
        "anthropic": {},
        "bedrock": { "enabled": false, "providerType": "bedrock" },
    } }"#;
    let (config, notes) = good(text);
    assert_eq!(config.providers.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["anthropic", "bedrock"]);
    assert_eq!(config.providers[1].base_url, None);
    assert!(
        notes.contains(&"providers.bedrock: providers of kind `bedrock` come with a later version".to_string()),
        "{notes:?}"
    );
}

#[test]
fn the_default_provider_is_named_or_the_only_one() {
    let both = r#"{ "providers": {
        "a": { "providerType": "anthropic" }, "b": { "providerType": "anthropic", "enabled": ENABLED }
    } }"#;
    check_one(&both.replace("ENABLED", "true"), (1, 1), "routing.defaultProvider", "is missing", "\"a\" or \"b\"");
    let (config, _) = good(&both.replace("ENABLED", "false"));
    assert_eq!(
        (config.routing.default_provider.as_str(), &config.routing.fallback_chain[..]),
        ("a", &["a".to_string()][..])
    );
    let (config, notes) = good(r#"{ "providers": { "anthropic": { "enabled": false } } }"#);
    assert!(!config.providers[0].enabled);
    assert_eq!(
        notes,
        [
            "routing.defaultProvider: `anthropic` is not enabled: others serve in its place, where rules or the chain name them"
        ]
    );
    let text = r#"{ "routing": { "onSubscriptionLimit": "other" } }"#;
    check_one(text, (1, 39), "routing.onSubscriptionLimit", "`other` is not a configured provider", "\"pass\"");
}

#[test]
fn what_is_odd_but_usable_is_a_note() {
    let provider = |text: &str| format!(r#"{{ "providers": {{ "anthropic": {{ {text} }} }} }}"#);
    for (text, note) in [
        (
            r#""baseUrl": "http://example.org""#,
            "providers.anthropic.baseUrl: requests, with their key, go over the network unencrypted: use https",
        ),
        (
            r#""baseUrl": "https://example.org/v1""#,
            "providers.anthropic.baseUrl: requests will go to `https://example.org/v1/v1/…`: leave out the `/v1` at the end if that is one too many",
        ),
    ] {
        assert_eq!(good(&provider(text)).1, [note]);
    }
    for fine in [
        r#""baseUrl": "http://127.0.0.1:1""#,
        r#""baseUrl": "http://localhost""#,
        r#""apiKeyRef": """#,
        r#""apiKeyRef": []"#,
        r#""apiKeyRef": ["env:A", "env:B"]"#,
    ] {
        assert_eq!(good(&provider(fine)).1, [""; 0]);
    }
    let typo = r#"{ "routing": { "fallbackChain": ["antropic", "anthropic", "anthropic"] } }"#;
    let (config, notes) = good(typo);
    assert_eq!(config.routing.fallback_chain, ["anthropic"]);
    assert_eq!(
        notes,
        ["routing.fallbackChain: `antropic` (did you mean `anthropic`?) is not configured and is skipped"]
    );
}

#[test]
fn the_proxy_is_none_the_environments_or_a_url() {
    let network = |proxy: &str| good(&format!(r#"{{ "network": {{ "proxy": "{proxy}" }} }}"#)).0.network;
    let upstream = "https://llm.example".parse::<crate::origin::BaseUrl>().unwrap().origin;
    let env = Env::fixed([("HTTPS_PROXY", "http://e.example:1"), ("NO_PROXY", "direct.example")]);
    let through =
        |proxy: &str, env: &Env| network(proxy).proxy(env).unwrap().for_origin(&upstream).map(ToString::to_string);
    assert_eq!(through("none", &env), None);
    assert_eq!(through("env", &env).as_deref(), Some("http://e.example:1"));
    assert_eq!(through("env", &Env::fixed([])), None);
    assert_eq!(through("env", &Env::fixed([("HTTPS_PROXY", "http://e.example:1"), ("no_proxy", "llm.example")])), None);
    assert_eq!(through("http://u:p@c.example:2", &env).as_deref(), Some("http://c.example:2"));
    let error = network("env").proxy(&Env::fixed([("https_proxy", "socks5://u:hunter2@x")])).unwrap_err().to_string();
    assert!(error.contains("HTTPS_PROXY") && !error.contains("hunter2"), "{error}");
    for bad in ["", "proxy.example:3128", "socks5://a"] {
        let text = format!(r#"{{ "network": {{ "proxy": "{bad}" }} }}"#);
        check_one(&text, (1, 25), "network.proxy", "no proxy", "\"none\", \"env\" or a URL");
    }
}

/// A configuration with these rules.
fn ruled(rules: &str) -> String {
    format!(r#"{{ "routing": {{ "rules": [{rules}] }} }}"#)
}

#[test]
fn a_rule_says_when_and_what() {
    let text = ruled(
        r#"{
            "name": "nights", "when": {
                "model": ["claude-*", "gpt-*"], "protocol": "anthropic", "agent": "sub", "agentType": "Explore",
                "session": null, "project": ["cco"], "headers": { "X-Team": "a*" }, "keyId": "…abcd", "stream": true,
                "thinking": false, "tools": true, "images": false, "promptTokensOver": 10, "promptTokensUpTo": 20,
                "inFlightOver": 3, "hoursUtc": "mon-fri 22:00-06:00",
            },
            "use": {
                "providers": ["anthropic", { "provider": "anthropic", "model": "m", "weight": 3 }], "pick": "weight",
                "fallback": false, "model": "n", "timeoutSecs": 5, "headers": { "X-Team": "b" },
            },
        }, { "use": { "refuse": "not now" } }"#,
    );
    let (config, _) = good(&text);
    let [Rule { name, when, then }, last] = &config.routing.rules[..] else { panic!("two rules") };
    assert_eq!(name.as_deref(), Some("nights"));
    assert!(when.model.iter().any(|glob| glob.matches("gpt-6")) && when.session.is_empty());
    assert_eq!((when.agent, when.protocol), (Some(Agent::Sub), Some(wire::protocol::Protocol::AnthropicMessages)));
    assert_eq!(
        (when.stream, when.thinking, when.tools, when.images),
        (Some(true), Some(false), Some(true), Some(false))
    );
    assert_eq!((when.prompt_tokens_over, when.prompt_tokens_up_to, when.in_flight_over), (Some(10), Some(20), Some(3)));
    assert_eq!(when.hours, ["mon-fri 22:00-06:00".parse().unwrap()]);
    assert_eq!(when.headers[0].0, "X-Team");
    let plain = Choice { provider: "anthropic".into(), model: None, weight: 1 };
    assert_eq!(then.providers, [plain.clone(), Choice { model: Some("m".into()), weight: 3, ..plain }]);
    assert_eq!((then.pick, then.fallback, then.timeout), (Pick::Weight, false, Some(Duration::from_secs(5))));
    assert_eq!(last.then.refuse.as_deref(), Some("not now"));
}

#[test]
fn a_rule_that_cannot_be_meant_is_told() {
    let one = |rule: &str, path: &str, message: &str, help: &str| {
        let text = ruled(rule);
        let all = faults(&text);
        let [fault] = &all[..] else { panic!("one fault expected in {text}, not {all:#?}") };
        assert_eq!(fault.path, format!("routing.rules[0].{path}"));
        assert!(fault.message.contains(message) && fault.help.as_deref().unwrap().contains(help), "{fault:?}");
    };
    one(r#"{ "use": {} }"#, "use", "does nothing", "set `providers`");
    one(r#"{ "when": {} }"#, "use", "is missing", "add");
    one(r#"{ "use": { "refuse": "no", "model": "m" } }"#, "use", "beside other keys", "remove");
    one(r#"{ "use": { "providers": [{}] } }"#, "use.providers[0].provider", "is missing", "add");
    one(r#"{ "use": { "model": 7 } }"#, "use.model", "must be a string", "write");
    one(r#"{ "use": { "pick": "best", "model": "m" } }"#, "use.pick", "not known here", "\"latency\"");
    one(r#"{ "when": { "hoursUtc": "9-5" }, "use": { "model": "m" } }"#, "when.hoursUtc", "no hours", "mon-fri");
    one(r#"{ "when": { "model": [""] }, "use": { "model": "m" } }"#, "when.model[0]", "pattern is empty", "claude-*");
    one(
        r#"{ "when": { "headers": { "x-api-key": "sk-*" } }, "use": { "model": "m" } }"#,
        "when.headers.x-api-key",
        "a key does not belong",
        "keyId",
    );
    one(
        r#"{ "when": { "headers": { "x-a": [] } }, "use": { "model": "m" } }"#,
        "when.headers.x-a",
        "no pattern",
        "`*`",
    );
    one(
        r#"{ "when": { "promptTokensOver": 100, "promptTokensUpTo": 100 }, "use": { "model": "m" } }"#,
        "when",
        "no prompt is longer",
        "smaller",
    );
    let (_, notes) = good(&ruled(r#"{ "name": "all", "use": { "model": "m" } }, { "use": { "model": "n" } }"#));
    assert!(
        notes[0].contains("`all` has no conditions") && notes[0].contains("`rules[1]` is never reached"),
        "{notes:?}"
    );
}

#[test]
fn amounts_of_money_are_exact() {
    let price = |text: &str| {
        format!(r#"{{ "costTracking": {{ "pricingOverrides": {{ "m": {{ "inputPerMillion": {text} }} }} }} }}"#)
    };
    for (text, nanos) in
        [("0.0375", 37_500_000), ("1", 1_000_000_000), ("0.000000001", 1), ("1000000", 1_000_000_000_000_000), ("0", 0)]
    {
        let config = good(&price(text)).0;
        assert_eq!(config.cost_tracking.pricing_overrides[0].1.input, Some(NanoUsd(nanos)), "{text}");
        assert_eq!(config.cost_tracking.pricing_overrides[0].1.output, None);
    }
    for text in ["-1", "1e-3", "0.0000000001", "1000000.1", "\"1\"", "99999999999999999999"] {
        assert_eq!(faults(&price(text)).len(), 1, "{text}");
    }
}

#[test]
fn paths_begin_at_the_users_folder_or_at_the_files() {
    let paths = Paths { folder: Some("/etc/cco".into()), user_home: Some("/u".into()) };
    let text = r#"{ "network": { "caFile": "ca.pem" }, "audit": { "dbPath": "/abs/db" },
        "providers": { "anthropic": { "apiKeyRef": "file:~/key" } } }"#;
    let (config, _) = parse(text, &paths).unwrap();
    assert_eq!(config.network.ca_file, Some("/etc/cco/ca.pem".into()));
    assert_eq!(config.audit.db_path, Some("/abs/db".into()));
    assert_eq!(config.providers[0].api_keys, [CredentialRef::File("/u/key".into())]);
}

#[test]
fn the_file_is_sought_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, ping: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!(r#"{{ "server": {{ "pingSecs": {ping} }} }}"#)).unwrap();
        path
    };
    let home = folder.path().to_str().unwrap();
    let ping = |named: Option<&Path>, env: Env| load(named, &env).map(|loaded| loaded.config.server.ping.as_secs());
    assert_eq!(ping(None, Env::fixed([("CCO_HOME", home)])).unwrap(), 15, "no file: defaults");
    assert_eq!(ping(None, Env::fixed([])).unwrap(), 15, "not even a home: defaults");
    let in_home = write("config.json", 1);
    let (by_variable, by_option) = (write("b.json", 2), write("c.json", 3));
    let variable = by_variable.to_str().unwrap();
    let loaded = load(None, &Env::fixed([("CCO_HOME", home)])).unwrap();
    assert_eq!((loaded.config.server.ping.as_secs(), loaded.file), (1, Some(in_home)));
    assert_eq!(ping(None, Env::fixed([("CCO_HOME", home), ("CCO_CONFIG", variable)])).unwrap(), 2);
    assert_eq!(ping(Some(&by_option), Env::fixed([("CCO_HOME", home), ("CCO_CONFIG", variable)])).unwrap(), 3);
    let missing = folder.path().join("missing.json");
    let error = ping(Some(&missing), Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("missing.json") && error.contains("`--config`"), "{error}");
    let error = ping(None, Env::fixed([("CCO_CONFIG", missing.to_str().unwrap())])).unwrap_err().to_string();
    assert!(error.contains("`CCO_CONFIG`"), "{error}");
}

#[test]
fn a_file_that_is_no_text_is_a_fault_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    std::fs::write(&path, b"{\n  \"x\": \"\xff\" }").unwrap();
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("c.json:2:9: not UTF-8\n  help: save"), "{error}");
    std::fs::write(&path, vec![b' '; MAX_FILE as usize + 1]).unwrap();
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.contains("larger than 4 MiB"), "{error}");
}

/// Whoever opens one waits until somebody writes: for ever.
#[test]
fn a_pipe_is_no_configuration_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.json");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = load(Some(&path), &Env::fixed([])).unwrap_err().to_string();
    assert!(error.ends_with("named by `--config`: it is a pipe: write it to a file"), "{error}");
}

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

/// Whatever the text: no panic, and every fault lies inside it.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    let lines: Vec<_> = text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').map(|l| l.chars().count()).collect();
    match parse(text, &Paths::default()) {
        Ok((config, _)) => {
            prop_assert!(config.server.may_listen_on(config.server.listen).is_ok());
            prop_assert!(config.providers.iter().any(|p| p.name == config.routing.default_provider));
            prop_assert!(config.providers.iter().all(|p| !p.enabled || p.base_url.is_some() && p.kind.supported));
        }
        Err(faults) => {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                let inside = lines.get(fault.line - 1).is_some_and(|&length| (1..=length + 1).contains(&fault.column));
                prop_assert!(inside, "{fault:?} is outside of the text");
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_makes_the_reading_panic(text in "\\PC{0,200}") {
        check_any(&text)?;
    }

    #[test]
    fn no_tokens_make_the_reading_panic(tokens in prop::collection::vec(prop::sample::select(vec![
        "{", "}", "[", "]", ":", ",", "\"server\"", "\"providers\"", "\"anthropic\"", "\"llmGateway\"", "\"baseUrl\"", "\"http://[\"",
        "1", "-1e400", "true", "null", "\n", "// x\n", "/*", "\"\\ud800\"", "\"ä\u{1F600}\"",
    ]), 0..40)) {
        check_any(&tokens.concat())?;
    }

    #[test]
    fn a_damaged_reference_gives_faults_inside_the_file(
        at in any::<prop::sample::Index>(), length in 0usize..40,
        new in prop::sample::select(vec!["", "{", "}", "]", ",", "\"", "\"x\"", "-1", "null", "[]", "{}", "é\n", "//", "\u{0}", "\\"]),
    ) {
        let mut chars: Vec<char> = Config::reference().chars().collect();
        let start = at.index(chars.len());
        let end = (start + length).min(chars.len());
        chars.splice(start..end, new.chars());
        check_any(&chars.into_iter().collect::<String>())?;
    }
}
