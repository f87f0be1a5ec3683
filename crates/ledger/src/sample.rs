//! Made-up exchanges for tests and measurements: the same number gives the same exchange.

use wire::usage::{CacheWrite, Tokens, Usage};

use crate::money::NanoUsd;
use crate::record::{Attempt, Fingerprint, Id, Operation, Outcome, Parties, Record, Start};

/// When the first of them began: 2026-11-01, midnight UTC.
pub const EPOCH_US: i64 = 1_793_491_200_000_000;
/// Between the beginnings of two of them, in microseconds.
pub const STEP_US: i64 = 7_776_000;

const MODELS: [&str; 4] = ["claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-5-5", "deepseek-flash"];
const PROJECTS: [&str; 3] = ["cco", "website", "infra"];
/// Exchanges of one session.
const SESSION: u64 = 50;

/// Numbers that look random and are always the same.
pub fn mix(n: u64) -> u64 {
    let mut z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The id of the exchange with this number.
pub fn id(n: u64) -> Id {
    let ms = (EPOCH_US + n as i64 * STEP_US) / 1000;
    Id::v7(ms as u64, (u128::from(mix(n)) << 64) | u128::from(mix(!n)))
}

/// The beginning of the exchange with this number.
pub fn start(n: u64) -> Start {
    let session = n / SESSION;
    // A session has its model, and a small one for small things.
    let model = MODELS[if n % 5 == 4 { 1 } else { (mix(session) % 4) as usize }];
    let provider = if model.starts_with("claude") { "anthropic" } else { "deepseek" };
    let count = n % 25 == 24;
    let agent = (n % 5 == 3).then(|| Box::from(format!("agent-{}", mix(session) % 1000)));
    Start {
        id: id(n),
        operation: if count { Operation::CountTokens } else { Operation::Generation },
        started_us: EPOCH_US + n as i64 * STEP_US,
        parties: Parties {
            protocol: "anthropic".into(),
            endpoint: if count { "/v1/messages/count_tokens" } else { "/v1/messages" }.into(),
            stream: !count,
            session: Some(format!("{:08x}-70c4-4d8e-9d7e-{:012x}", mix(session) as u32, session).into()),
            parent_agent: agent.as_ref().map(|_| "main".into()),
            agent_type: agent.as_ref().map(|_| "Explore".into()),
            agent,
            project: Some(PROJECTS[(session % 3) as usize].into()),
            caller: None,
            requested_model: Some(model.into()),
            provider: Some(provider.into()),
            model: Some(model.into()),
            notional: session % 5 == 2,
            simulated: session % 20 == 9,
            run: None,
        },
    }
}

/// The record of the exchange with this number: most went well, one in forty failed.
pub fn record(n: u64) -> Record {
    let start = start(n);
    let failed = n % 40 == 17;
    let generation = start.operation == Operation::Generation;
    let tokens = Tokens {
        input: mix(n) % 900,
        cache_read: mix(n ^ 1) % 90_000,
        cache_write: CacheWrite { m5: mix(n ^ 2) % 3000, h1: mix(n ^ 3) % 500, ..Default::default() },
        output: 1 + mix(n ^ 4) % 2000,
    };
    let outcome = if failed { Outcome::UpstreamError } else { Outcome::Success };
    let status = if failed { 529 } else { 200 };
    let duration_us = 400_000 + mix(n ^ 5) % 20_000_000;
    let attempt = Attempt {
        model: start.parties.model.clone(),
        status: Some(status),
        started_us: 150,
        duration_us,
        ..Attempt::new(start.parties.provider.clone().unwrap_or_default(), outcome)
    };
    let known = generation && !failed;
    let cost =
        tokens.input * 3_000 + tokens.cache_read * 300 + tokens.cache_write.total() * 3_750 + tokens.output * 15_000;
    Record {
        ended_us: start.started_us + duration_us as i64,
        status: Some(status),
        attempts: vec![attempt],
        stop_reason: known.then(|| "end_turn".into()),
        upstream_request_id: Some(format!("req_{:016x}", mix(n ^ 6)).into()),
        usage: known.then(|| Usage { tokens, ..Default::default() }),
        cost: known.then_some(NanoUsd(cost as i64)),
        price_version: known.then(|| "2026-11-20".into()),
        first_byte_us: Some(180_000 + mix(n ^ 7) % 900_000),
        first_token_us: known.then(|| 200_000 + mix(n ^ 7) % 900_000),
        duration_us: Some(duration_us),
        bytes_in: 20_000 + mix(n ^ 8) % 400_000,
        bytes_out: 500 + mix(n ^ 9) % 30_000,
        credential: Some(Fingerprint::of("sk-ant-api03-sample-key-ABCD")),
        error: failed.then(|| "the provider `anthropic` is overloaded".into()),
        ..Record::new(start, outcome)
    }
}

/// A record that leaves nothing out. Who adds a field adds it here, so that what is written is seen to hold it.
#[cfg(test)]
pub(crate) fn full() -> Record {
    use wire::usage::{Iteration, IterationKind, Report, ToolUse};

    use crate::limits::Limits;
    use crate::price::{Flags, Unpriced};

    let word = |text: &str| Some(Box::from(text));
    let tokens = Tokens {
        input: 23,
        cache_read: 24,
        cache_write: CacheWrite { m5: 255, m30: 256, h1: 65_535, h12: 65_536 },
        output: u64::MAX,
    };
    let usage = Usage {
        tokens,
        reasoning: 1,
        web_search: u64::from(u32::MAX),
        web_fetch: 1 << 32,
        service_tier: Some("priority".into()),
        speed: Some("odd".into()),
        region: word("eu"),
        iterations: vec![Iteration::new(IterationKind::Advisor, Some("m"), Report::default())],
        ttl_assumed: true,
        incomplete: true,
        other_tools: vec![ToolUse::new("t", 3)],
    };
    let attempt = Attempt {
        provider: "p".into(),
        model: word("m"),
        outcome: Outcome::HedgeLost,
        status: Some(429),
        started_us: 1,
        duration_us: 2,
        error: word("e"),
        usage: Some(Box::new(usage.clone())),
        cost: Some(NanoUsd(-1)),
        queued_us: 3,
    };
    let parties = Parties {
        protocol: "anthropic".into(),
        endpoint: "/v1/messages".into(),
        stream: true,
        session: word("s"),
        agent: word("a"),
        parent_agent: word("b"),
        agent_type: word("c"),
        project: word("d"),
        caller: word("e"),
        requested_model: word("f"),
        provider: word("g"),
        model: word("h"),
        notional: true,
        simulated: true,
        run: word("i"),
    };
    Record {
        id: Id(u128::MAX),
        operation: Operation::Models,
        started_us: i64::MIN,
        ended_us: -1,
        parties,
        outcome: Outcome::Timeout,
        status: Some(599),
        attempts: vec![attempt.clone(), attempt],
        stop_reason: word(&"long ".repeat(20)),
        upstream_request_id: word(&"é".repeat(300)),
        usage: Some(usage),
        estimated_output: Some(0),
        usage_unknown: true,
        cost: Some(NanoUsd(i64::MAX)),
        cost_flags: Flags { estimated: true, notional: true, rate_assumed: true, ttl_assumed: true, incomplete: true },
        unpriced: Some(Unpriced::UnknownRate),
        price_version: word("v"),
        first_byte_us: Some(0),
        first_token_us: Some(1),
        duration_us: Some(2),
        bytes_in: 3,
        bytes_out: 4,
        losses: vec!["a".into(), "b".into()],
        credential: Some(Fingerprint::of("sk-ant-api03-sample-key-ABCD")),
        limits: Limits::of([("anthropic-ratelimit-requests-limit", &b"7"[..])]),
        error: word(""),
        route: word(&"r".repeat(70_000)),
        deliveries: 5,
        continued: 6,
    }
}
