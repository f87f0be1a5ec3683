//! Measures what a plan costs: a request of Claude Code's size against a hundred rules of which the last one matches.
//!
//! `cargo run --release -p gateway --example route [LIMIT_NS]`: with a limit, the exit code says whether it is kept.

#![expect(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measurement")]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use bytes::BytesMut;
use gateway::client::inbound::Operation;
use gateway::config::{Paths, parse};
use gateway::health::{Health, Time};
use gateway::route::{Affinity, Assumed, Facts, Purse, RuleSet, Subscriptions, View};
use http1::{Limits, RequestHead, Scan};
use wire::envelope::Envelope;
use wire::protocol::Protocol;

/// Plans of one round, and rounds.
const PLANS: u32 = 20_000;
const ROUNDS: usize = 15;

const HEAD: &str = "POST /v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    User-Agent: claude-cli/2.1.330 (external, cli)\r\nX-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000001\r\n\
    x-claude-code-agent-id: a134bce030a4e4f22\r\nx-claude-code-agent-type: Explore\r\nx-app: cli\r\n\
    anthropic-version: 2023-06-01\r\nanthropic-dangerous-direct-browser-access: true\r\nX-Stainless-Arch: x64\r\n\
    X-Stainless-Lang: js\r\nX-Stainless-OS: Linux\r\nX-Stainless-Package-Version: 0.128.0\r\n\
    X-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: node\r\nX-Stainless-Timeout: 600\r\nx-api-key: k\r\n\
    anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nx-team: rust\r\nContent-Length: 0\r\n\r\n";

/// A hundred rules of every sort.
fn rules() -> String {
    let sorts = [
        r#""model": "gpt-*""#,
        r#""model": ["*haiku*", "*sonnet*"], "stream": true"#,
        r#""headers": { "x-team": "go" }"#,
        r#""agentType": "Plan""#,
        r#""promptTokensOver": 900000"#,
        r#""session": "x-*""#,
        r#""agent": "main""#,
        r#""project": "cco", "tools": true"#,
        r#""hoursUtc": "sat,sun 00:00-24:00""#,
        r#""inFlightOver": 500"#,
    ];
    let never =
        |n: usize| format!(r#"{{ "when": {{ {} }}, "use": {{ "providers": ["b"] }} }}"#, sorts[n % sorts.len()]);
    let mut rules: Vec<String> = (0..99).map(never).collect();
    rules.push(r#"{ "when": { "model": "claude-*" }, "use": { "providers": ["b"] } }"#.into());
    rules.join(",")
}

fn main() -> ExitCode {
    let limit: Option<f64> = std::env::args().nth(1).map(|limit| limit.parse().unwrap());
    let text = format!(
        r#"{{ "providers": {{
            "a": {{ "providerType": "anthropic", "apiKeyRef": "env:A" }},
            "b": {{ "providerType": "anthropic-compatible", "baseUrl": "https://b.test", "apiKeyRef": "env:B" }},
            "c": {{ "providerType": "anthropic-compatible", "baseUrl": "https://c.test", "apiKeyRef": "env:C" }},
        }}, "routing": {{ "defaultProvider": "a", "fallbackChain": ["a", "b", "c"], "rules": [{}] }} }}"#,
        rules()
    );
    let (config, _) = parse(&text, &Paths::default()).unwrap();
    let rules = RuleSet::compile(&config);
    let head = RequestHead::take(&mut BytesMut::from(HEAD), &mut Scan::default(), &Limits::default());
    let head = head.unwrap().unwrap();
    let filler = "x".repeat(48_000);
    let body = format!(
        r#"{{"model":"claude-opus-5-5","stream":true,"system":"{filler}","messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    let envelope = Envelope::read(body.as_bytes()).unwrap();
    let keys = Assumed::of(&config);
    let health = Health::new(["a", "b", "c"].map(String::from));
    let (affinity, subscriptions) = (Affinity::default(), Subscriptions::default());
    let purse = Purse { own: None, stored: true };
    let plan = |chance: u64| {
        let now = Time::from_ms(1);
        let view = View {
            now,
            health: &health,
            keys: &keys,
            affinity: &affinity,
            subscriptions: &subscriptions,
            prices: &(),
            chance,
        };
        let body = Some((body.as_bytes(), &envelope));
        let facts = Facts::of(&head, body, Protocol::AnthropicMessages, Operation::Generation, rules.guess());
        // As requests do it: with what their records keep of it.
        let (plan, noted) = rules.plan_noted(&facts, &purse, &view);
        black_box(noted);
        plan.unwrap().targets.len()
    };
    assert_eq!(plan(0), 3, "b, then a and c");
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for chance in 0..PLANS {
                black_box(plan(black_box(u64::from(chance))));
            }
            began.elapsed().as_nanos() as f64 / f64::from(PLANS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let (best, median) = (rounds[0], rounds[ROUNDS / 2]);
    println!("facts and plan, 100 rules, 3 targets: median {median:.0} ns, best {best:.0} ns");
    match limit {
        Some(limit) if median > limit => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}
