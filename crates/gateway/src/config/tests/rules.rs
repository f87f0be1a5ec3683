//! Rules of routing, as they are written.

use super::*;

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
