//! Measures what a plan costs: a request of Claude Code's size against a hundred rules of which the last one matches.
//!
//! `cargo run --release -p gateway --example route [LIMIT_NS]`: with a limit, the exit code says whether it is kept.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement")]

use std::hint::black_box;
use std::process::ExitCode;

use bytes::BytesMut;
use gateway::client::inbound::Operation;
use gateway::config::{Paths, parse};
use gateway::health::{Health, Time};
use gateway::route::{Affinity, Assumed, Facts, Purse, RuleSet, Subscriptions, View};
use http1::{Limits, RequestHead, Scan};
use rustix::time::{ClockId, clock_gettime};
use wire::envelope::Envelope;
use wire::protocol::Protocol;

/// Plans of one round, and rounds: short ones, since most of those are not disturbed by what else the machine does.
const PLANS: u32 = 250;
const ROUNDS: usize = 401;

const HEAD: &str = "POST /v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    User-Agent: claude-cli/2.1.330 (external, cli)\r\nX-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000001\r\n\
    x-claude-code-agent-id: a134bce030a4e4f22\r\nx-claude-code-agent-type: Explore\r\nx-app: cli\r\n\
    anthropic-version: 2023-06-01\r\nanthropic-dangerous-direct-browser-access: true\r\nX-Stainless-Arch: x64\r\n\
    X-Stainless-Lang: js\r\nX-Stainless-OS: Linux\r\nX-Stainless-Package-Version: 0.128.0\r\n\
    X-Stainless-Retry-Count: 0\r\nX-Stainless-Runtime: node\r\nX-Stainless-Timeout: 600\r\nx-api-key: k\r\n\
    anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nx-team: rust\r\nContent-Length: 0\r\n\r\n";

/// A hundred rules of every sort, no two alike: what rules share is looked at once.
fn rules() -> String {
    let never = |n: usize| {
        let when = match n % 10 {
            0 => format!(r#""model": "gpt-{n}-*""#),
            1 => format!(r#""model": ["*haiku-{n}*", "*opus-{n}*"], "stream": true"#),
            2 => format!(r#""headers": {{ "x-team": "go-{n}" }}"#),
            3 => format!(r#""agentType": "Plan-{n}""#),
            4 => format!(r#""promptTokensOver": {}"#, 900_000 + n),
            5 => format!(r#""session": "x-{n}-*""#),
            6 => format!(r#""agent": "sub", "model": "claude-{n}""#),
            7 => format!(r#""project": "cco-{n}", "tools": true"#),
            8 => format!(r#""hoursUtc": "sat,sun {:02}:00-24:00""#, n / 10),
            _ => format!(r#""inFlightOver": {}"#, 5000 + n),
        };
        format!(r#"{{ "when": {{ {when} }}, "use": {{ "providers": ["b"] }} }}"#)
    };
    let mut rules: Vec<String> = (0..99).map(never).collect();
    rules.push(r#"{ "when": { "model": "claude-*" }, "use": { "providers": ["b"] } }"#.into());
    rules.join(",")
}

/// Nanoseconds that this thread has been on a processor.
fn worked() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
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
            let began = worked();
            for chance in 0..PLANS {
                black_box(plan(black_box(u64::from(chance))));
            }
            (worked() - began) / f64::from(PLANS)
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
