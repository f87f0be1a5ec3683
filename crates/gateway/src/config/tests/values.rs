//! What values may be, and what is told of those that are wrong.

use super::*;

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
