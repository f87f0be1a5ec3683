//! Prices against costs that were computed by hand.

use wire::usage::{CacheWrite, Iteration, IterationKind, Report, Usage};

use super::*;
use crate::money::PicoUsd;

/// Monday, the 23rd of November 2026, 00:00 UTC.
const MONDAY: i64 = 1_795_392_000;

/// Counts in words: `in`, `read`, `5m`, `30m`, `1h`, `12h`, `out`, `search`, `fetch`, and `tier:`, `speed:`, `region:`.
fn usage(words: &str) -> Usage {
    let mut report = Report::default();
    let mut writes = CacheWrite::default();
    for word in words.split_whitespace() {
        if let Some((name, value)) = word.split_once(':') {
            match name {
                "tier" => report.service_tier = Some(value.into()),
                "speed" => report.speed = Some(value.into()),
                "region" => report.region = Some(value.into()),
                other => panic!("{other}"),
            }
            continue;
        }
        let (name, count) = word.split_once('=').expect("name=count");
        let count = match count.replace('_', "").as_str() {
            "max" => u64::MAX,
            "2^63" => 1 << 63,
            digits => digits.parse().expect("a count"),
        };
        match name {
            "in" => report.input = Some(count),
            "read" => report.cache_read = Some(count),
            "5m" => writes.m5 = count,
            "30m" => writes.m30 = count,
            "1h" => writes.h1 = count,
            "12h" => writes.h12 = count,
            "out" => report.output = Some(count),
            "search" => report.web_search = Some(count),
            "fetch" => report.web_fetch = Some(count),
            other => panic!("{other}"),
        }
    }
    report.cache_write_by_ttl = Some(writes);
    let mut usage = Usage::default();
    usage.set(report);
    usage
}

fn billed<'a>(provider: &'a str, model: &'a str, usage: &'a Usage) -> Billed<'a> {
    Billed { provider, model, at: MONDAY, usage, estimated_output: None, notional: false }
}

/// The cost in dollars, with `~` before it where a rate was assumed and `+` behind it where something is not in it.
fn said(cost: Result<Cost, Unpriced>) -> String {
    match cost {
        Ok(cost) => {
            let assumed = if cost.flags.rate_assumed { "~" } else { "" };
            let more = if cost.flags.incomplete { "+" } else { "" };
            format!("{assumed}{}{more}", cost.nano_usd)
        }
        Err(unpriced) => unpriced.as_str().into(),
    }
}

#[test]
fn costs_are_those_that_were_computed_by_hand() {
    let table = PriceTable::built_in();
    let mut failed = vec![];
    let rows: &[(&str, &str, &str, &str)] = &[
        // Plain input and output: 4 and 20 dollars a million.
        ("anthropic", "claude-opus-5-5", "in=10 out=2", "0.00008"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000", "4.00"),
        ("anthropic", "claude-opus-5-5", "out=1_000_000", "20.00"),
        ("anthropic", "claude-opus-5-5", "", "0.00"),
        ("anthropic", "claude-opus-5-5", "in=1", "0.000004"),
        // The cache, each lifetime at its own rate: 0.2, 5 and 8 dollars a million.
        ("anthropic", "claude-opus-5-5", "read=1_000_000", "0.20"),
        ("anthropic", "claude-opus-5-5", "5m=1_000_000", "5.00"),
        ("anthropic", "claude-opus-5-5", "1h=1_000_000", "8.00"),
        ("anthropic", "claude-opus-5-5", "5m=1_300 1h=4_000", "0.0385"),
        ("anthropic", "claude-opus-5-5", "in=12 read=48_211 5m=1_300 1h=4_000 out=40", "0.0489902"),
        ("anthropic", "claude-opus-5-5", "in=12 read=48_211 5m=1_300 1h=4_000 out=40 region:us", "0.05388922"),
        ("anthropic", "claude-sonnet-5-5", "read=1_000_000 1h=1_000_000", "4.10"),
        ("anthropic", "claude-fable-5-1", "read=1_000_000", "0.25"),
        ("anthropic", "claude-fable-5", "read=1_000_000", "1.00"),
        ("anthropic", "claude-3-haiku-20240307", "read=1_000_000 5m=1_000_000 1h=1_000_000", "0.83"),
        // A lifetime that the list does not price is never the cheap one.
        ("anthropic", "claude-opus-5-5", "12h=1_000_000", "~8.00"),
        ("openai", "gpt-5.6", "1h=100_000", "~1.00"),
        ("openai", "gpt-5.6", "30m=1_000_000 12h=1_000_000", "30.00"),
        // The border of a tier: at it below, over it every token at the higher row, output included.
        ("anthropic", "claude-haiku-5-5", "in=100_000 out=1_000", "0.0105"),
        ("anthropic", "claude-haiku-5-5", "in=100_001 out=1_000", "0.0525005"),
        ("anthropic", "claude-haiku-5-5", "in=1 read=60_000 5m=30_000 1h=10_000 out=1_000", "0.0342505"),
        ("anthropic", "claude-haiku-5-5", "read=60_000 5m=30_000 1h=10_000 out=1_000", "0.00685"),
        ("anthropic", "claude-haiku-5-5", "in=100_001 out=1_000 region:us", "0.05775055"),
        ("anthropic", "claude-haiku-5-5", "in=100_001 out=1_000 tier:batch", "0.02625025"),
        ("vertex", "claude-sonnet-4-5@20250929", "in=200_000 out=100", "0.6015"),
        ("vertex", "claude-sonnet-4-5@20250929", "in=200_001 out=100", "1.202256"),
        ("vertex", "claude-sonnet-4-5@20250929", "in=200_001 out=100 tier:batch", "0.601128"),
        ("openai", "gpt-5.6", "in=272_000 out=1_000", "1.108"),
        ("openai", "gpt-5.6", "in=272_001 out=1_000", "2.206008"),
        ("openai", "gpt-5.6", "in=272_001 out=1_000 tier:batch", "1.103004"),
        // Batches.
        ("anthropic", "claude-opus-5-5", "in=1_000_000 out=1_000_000 tier:batch", "12.00"),
        ("anthropic", "claude-opus-5-5", "1h=1_000_000 read=1_000_000 tier:batch region:us", "4.51"),
        ("anthropic", "claude-mythos-preview", "in=1_000_000 tier:batch", "~10.00"),
        ("gemini", "gemini-2.5-pro", "in=200_001 tier:batch", "0.25000125"),
        ("openai", "gpt-5.4", "read=200_000 tier:batch", "0.026"),
        ("openai", "gpt-5.4", "read=1_000_000 tier:batch", "0.25"),
        ("azure", "us/gpt-4o-mini", "in=1_000_000 tier:batch", "0.083"),
        ("azure", "us/gpt-4o-mini", "out=1_000_000 tier:batch", "~0.66"),
        // Tiers of service.
        ("anthropic", "claude-opus-5-5", "in=1_000_000 tier:standard", "4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 tier:priority", "~4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 tier:platinum", "~4.00"),
        ("openai", "gpt-5.6", "in=1_000_000 tier:default", "8.00"),
        ("openai", "gpt-5.6", "in=100_000 tier:priority", "0.80"),
        ("openai", "gpt-5.6", "in=100_000 30m=1_000 out=1_000 tier:flex", "0.2125"),
        ("openai", "gpt-5.6", "in=300_000 tier:priority", "~2.40"),
        ("azure", "gpt-5.5", "out=1_000 tier:flex", "~0.03"),
        // Speed and region.
        ("anthropic", "claude-opus-5-5", "in=1_000_000 speed:fast", "8.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 speed:standard", "4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 speed:fast region:us", "8.80"),
        ("anthropic", "claude-sonnet-5-5", "in=1_000_000 speed:fast", "~2.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 speed:warp", "~4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 region:global", "4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 region:not_available", "4.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 region:moon", "~4.00"),
        ("anthropic", "claude-opus-4-5", "in=1_000_000 region:us", "5.00"),
        ("openai", "gpt-5.6", "in=100_000 region:eu", "0.44"),
        ("bedrock", "us.anthropic.claude-opus-5-5", "in=1_000_000", "4.40"),
        // Server tools: a cent a search, whatever the factors.
        ("anthropic", "claude-sonnet-5-5", "in=9_876 out=437 search=1", "0.034122"),
        ("anthropic", "claude-sonnet-5-5", "search=3 fetch=7", "0.03"),
        ("anthropic", "claude-sonnet-5-5", "search=1 tier:batch region:us", "0.01"),
        ("bedrock", "anthropic.claude-opus-5-5", "in=1_000_000 search=1", "4.00+"),
        ("openai", "gpt-5.6", "in=1 fetch=0", "0.000004"),
        // Rounding, once, half to even: 137,500 trillionths a token from the cache.
        ("azure", "eu/gpt-5", "read=1", "0.000000138"),
        ("azure", "eu/gpt-5", "read=2", "0.000000275"),
        ("azure", "eu/gpt-5", "read=3", "0.000000412"),
        ("azure", "eu/gpt-5", "read=5", "0.000000688"),
        ("azure", "eu/gpt-5", "in=1 read=1", "0.000001512"),
        ("anthropic", "claude-haiku-5-5", "5m=1", "0.000000125"),
        // What nobody knows has no cost, and local models are free.
        ("anthropic", "claude-opus-9", "in=1", "unknown_model"),
        ("anthropic", "gpt-5.6", "in=1", "unknown_model"),
        ("anthropic", "", "in=1", "unknown_model"),
        ("", "claude-opus-5-5", "in=1", "unknown_model"),
        ("openrouter", "anthropic/claude-opus-5-5", "in=1", "unknown_model"),
        ("ollama", "qwen3-coder:30b", "in=318 out=21", "0.00"),
        ("ollama", "gpt-oss:120b-cloud", "in=318 out=21", "unknown_model"),
        ("ollama", "glm-5:cloud", "in=318", "unknown_model"),
        // Counts that nobody can have used.
        ("anthropic", "claude-opus-5-5", "in=2^63", "too_large"),
        ("anthropic", "claude-opus-5-5", "in=max read=max 5m=max 1h=max out=max", "too_large"),
        ("anthropic", "claude-opus-5-5", "search=max", "too_large"),
        ("anthropic", "claude-haiku-5-5", "in=9_223_372_036_854_775", "4611686018.4273875"),
        ("ollama", "qwen3", "in=max out=max", "0.00"),
    ];
    for (provider, model, words, want) in rows {
        let usage = usage(words);
        let got = said(table.cost(&billed(provider, model, &usage)));
        if got != *want {
            failed.push(format!("{provider} {model} {words}: {got}, not {want}"));
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
    assert!(rows.len() >= 80);
}

#[test]
fn a_price_of_the_day_holds_from_its_first_second_to_before_its_last() {
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    let table = PriceTable::built_in();
    let usage = usage("in=1_000_000 out=1_000_000 read=1_000_000");
    let cost = |at: i64| said(table.cost(&Billed { at, ..billed("deepseek", "deepseek-flash", &usage) }));
    let (peak, off_peak) = ("1.506", "0.753");
    for day in 0..5 {
        for (hour, before, from) in [
            (1, off_peak, peak),
            (4, peak, off_peak),
            (6, off_peak, peak),
            (10, peak, off_peak),
            (24, off_peak, off_peak),
        ] {
            let at = MONDAY + day * DAY + hour * HOUR;
            assert_eq!((cost(at - 1).as_str(), cost(at).as_str()), (before, from), "day {day}, {hour}:00");
        }
    }
    for hour in 0..48 {
        assert_eq!(cost(MONDAY + 5 * DAY + hour * HOUR), off_peak, "hour {hour} of the weekend");
    }
    assert_eq!(cost(MONDAY - 7 * 53 * 60 * DAY + 2 * HOUR), peak, "before 1970");
    let pro = Billed { at: MONDAY + 2 * HOUR, ..billed("deepseek", "deepseek-v4-pro", &usage) };
    assert_eq!(said(table.cost(&pro)), "5.324");
}

#[test]
fn a_model_is_found_under_its_names_and_under_no_other() {
    let table = PriceTable::built_in();
    let input = |provider: &str, model: &str| {
        table.find(provider, model).map(|found| found.price.rates.input.expect("input").to_string())
    };
    for (provider, model, want) in [
        ("anthropic", "claude-opus-5-5", Some("4")),
        ("anthropic", "claude-opus-5-5-20261101", Some("4")),
        ("anthropic", "claude-opus-5-5@20261101", Some("4")),
        ("anthropic", "claude-opus-5-5[1m]", Some("4")),
        ("anthropic", "anthropic/claude-opus-5-5", Some("4")),
        ("anthropic", "anthropic/claude-opus-5-5-20261101[1m]", Some("4")),
        ("anthropic", "claude-opus-4-0", Some("15")),
        ("anthropic", "claude-opus-4-20250514", Some("15")),
        ("anthropic", "claude-opus-4-20260514", None),
        ("anthropic", "claude-opus-4", None),
        ("anthropic", "claude-opus-5-5-20261301", None),
        ("anthropic", "claude-opus-5-5-20261100", None),
        ("anthropic", "claude-opus-5-5-99991101", None),
        ("anthropic", "claude-opus-5-5-2026110", None),
        ("anthropic", "claude-opus-5-5-202611011", None),
        ("anthropic", "claude-opus-5-5-fast", None),
        ("anthropic", "claude-opus-5-5 ", None),
        ("anthropic", "CLAUDE-OPUS-5-5", None),
        ("anthropic", "openai/claude-opus-5-5", None),
        ("anthropic", "claude-haiku-4-20250514", None),
        ("anthropic", "-20250514", None),
        ("anthropic", "\u{e9}-20250514", None),
        ("anthropic", "caf\u{e9}20250514x", None),
        ("openai", "gpt-4o-2024-05-13", Some("5")),
        ("openai", "gpt-4o-2024-08-06", Some("2.5")),
        ("openai", "gpt-4o-2029-01-01", Some("2.5")),
        ("openai", "openai/gpt-4o", Some("2.5")),
        ("openai", "gpt-4o-2029-13-01", None),
        ("azure", "us/gpt-4o", Some("2.75")),
        ("azure", "azure/us/gpt-4o", Some("2.75")),
        ("azure", "gpt-4o", Some("2.5")),
        ("vertex", "vertex_ai/claude-opus-5-5@default", Some("4")),
        ("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0", Some("1")),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", Some("1.1")),
        ("deepseek", "deepseek/deepseek-flash", Some("0.3")),
    ] {
        assert_eq!(input(provider, model).as_deref(), want, "{provider} {model}");
    }
    assert_eq!(table.provider_of_host("API.DeepSeek.com"), Some("deepseek"));
    assert_eq!(table.provider_of_host("api.anthropic.com"), Some("anthropic"));
    assert_eq!(table.provider_of_host("example.com"), None);
}

#[test]
fn turns_beside_the_answer_are_billed_at_their_own_models() {
    let table = PriceTable::built_in();
    let turn = |kind: IterationKind, model: Option<&str>, input, output| {
        Iteration::new(kind, model, Report { input: Some(input), output: Some(output), ..Report::default() })
    };
    #[track_caller]
    fn check(table: &PriceTable, turns: Vec<Iteration>, want: &str, apart: i128) {
        let mut usage = usage("in=1_000 out=1_000");
        usage.iterations = turns;
        let cost = table.cost(&billed("anthropic", "claude-sonnet-5-5", &usage));
        assert_eq!(cost.as_ref().map_or(0, |cost| cost.components.turns.0), apart);
        assert_eq!(said(cost), want);
    }
    // 2 and 10 dollars a million for the answer: 0.012.
    check(&table, vec![], "0.012", 0);
    check(&table, vec![turn(IterationKind::Message, None, 1_000, 1_000)], "0.012", 0);
    check(&table, vec![turn(IterationKind::Compaction, None, 10_000, 500)], "0.037", 25_000_000_000);
    let advice = || turn(IterationKind::Advisor, Some("claude-opus-5-5"), 10_000, 500);
    check(&table, vec![advice()], "0.062", 50_000_000_000);
    check(
        &table,
        vec![advice(), turn(IterationKind::Compaction, None, 10_000, 500), advice()],
        "0.137",
        125_000_000_000,
    );
    check(&table, vec![turn(IterationKind::Advisor, Some("claude-opus-9"), 1, 1)], "unknown_model", 0);
    check(&table, vec![turn(IterationKind::Advisor, None, 1, 1)], "unknown_model", 0);
    check(&table, vec![turn("novelty".into(), Some("claude-opus-9"), 1, 1)], "0.012", 0);
    // Whoever served in the end is who is paid: 4 and 20 dollars.
    check(&table, vec![turn(IterationKind::Fallback, Some("claude-opus-5-5"), 1_000, 1_000)], "0.024", 0);
    check(&table, vec![turn(IterationKind::Compaction, None, u64::MAX, 0)], "too_large", 0);
}

#[test]
fn where_no_end_was_seen_the_larger_output_counts_and_the_cost_says_so() {
    let table = PriceTable::built_in();
    let usage = usage("in=25 out=100");
    let cost = |estimated_output, notional| {
        let billed = Billed { estimated_output, notional, ..billed("anthropic", "claude-opus-5-5", &usage) };
        let cost = table.cost(&billed).expect("known");
        (cost.nano_usd.0, cost.flags.estimated, cost.flags.notional)
    };
    assert_eq!(cost(None, false), (2_100_000, false, false));
    assert_eq!(cost(Some(3), false), (2_100_000, true, false));
    assert_eq!(cost(Some(200), true), (4_100_000, true, true));
}

#[test]
fn what_was_assumed_about_the_usage_stands_on_the_cost() {
    let table = PriceTable::built_in();
    let mut usage = usage("in=1 5m=1");
    (usage.ttl_assumed, usage.incomplete) = (true, true);
    let cost = table.cost(&billed("anthropic", "claude-opus-5-5", &usage)).expect("known");
    assert!(cost.flags.ttl_assumed && cost.flags.incomplete && !cost.flags.estimated);
    assert_eq!(serde_json::to_string(&cost.flags).unwrap(), r#"{"ttl_assumed":true,"incomplete":true}"#);
    assert_eq!(cost.components.total(), PicoUsd(9_000_000));
    assert_eq!(&*cost.price_version, "2026-11-22");
}

fn over(input: i64, output: i64) -> Override {
    Override { input: Some(NanoUsd(input)), output: Some(NanoUsd(output)), ..Override::default() }
}

const DOLLAR: i64 = 1_000_000_000;

#[test]
fn what_the_configuration_says_comes_first_and_for_every_provider() {
    let whole = Override {
        cache_write: Some(NanoUsd(DOLLAR + DOLLAR / 4)),
        cache_read: Some(NanoUsd(DOLLAR / 10)),
        ..over(DOLLAR, 5 * DOLLAR)
    };
    let input_only = Override { output: None, ..over(DOLLAR, 0) };
    let table = PriceTable::built_in()
        .with_overrides([("my-model", whole), ("claude-opus-5-5", over(0, 7 * DOLLAR)), ("half", input_only)])
        .unwrap();
    for (provider, model, words, want) in [
        ("anthropic-compatible", "my-model", "in=1_000_000 out=1_000_000", "6.00"),
        ("anything", "my-model", "read=1_000_000 5m=1_000_000", "1.35"),
        ("anything", "my-model", "1h=1_000_000", "~2.00"),
        ("anything", "my-model-20260101", "in=1_000_000", "1.00"),
        ("anthropic", "claude-opus-5-5", "in=1_000_000 out=1_000_000", "7.00"),
        ("anthropic", "claude-opus-5-5", "read=1_000_000", "~0.00"),
        ("anthropic", "claude-opus-5-5", "in=1 search=1", "0.01"),
        ("anthropic", "claude-opus-5", "in=1_000_000", "5.00"),
        ("anthropic", "half", "in=1_000_000", "1.00"),
        ("anthropic", "half", "in=1_000_000 out=1", "unknown_rate"),
    ] {
        let usage = usage(words);
        assert_eq!(said(table.cost(&billed(provider, model, &usage))), want, "{provider} {model} {words}");
    }
    let found = table.find("x", "my-model").unwrap();
    assert!(found.version.starts_with("configuration "), "{}", found.version);
    let same = PriceTable::built_in().with_overrides([("my-model", whole)]).unwrap();
    let other = PriceTable::built_in().with_overrides([("my-model", over(DOLLAR, DOLLAR))]).unwrap();
    assert_ne!(same.version(), other.version());
    assert_eq!(PriceTable::built_in().with_overrides([]).unwrap().version(), "2026-11-22");
    for bad in [over(-1, 0), over(0, -DOLLAR), over(1, 0), over(0, 999)] {
        let error = PriceTable::built_in().with_overrides([("m", bad)]).unwrap_err().to_string();
        assert!(error.contains("`m.") && error.contains("PerMillion"), "{error}");
    }
}

/// A price file with this as the models of `anthropic`, which stand from line 2 on.
fn file(models: &str) -> String {
    format!(
        "{{ \"schema\": 1, \"version\": \"v\", \"providers\": {{ \"anthropic\": {{ \"models\": {{\n{models} }} }} }} }}"
    )
}

#[test]
fn a_price_file_comes_before_what_is_built_in() {
    let text =
        file("\"claude-opus-5-5\": { \"input\": 1, \"output\": 2e0 }, \"new\": { \"input\": 0.000001, \"output\": 3 }");
    let table = PriceTable::load(&text).unwrap();
    let usage = usage("in=1_000_000 search=1");
    let cost = |table: &PriceTable, model| said(table.cost(&billed("anthropic", model, &usage)));
    assert_eq!(cost(&table, "claude-opus-5-5"), "1.01");
    assert_eq!(cost(&table, "new"), "0.010001");
    assert_eq!(cost(&table, "claude-opus-5"), "5.01");
    assert_eq!(table.version(), "file v, 2026-11-22");
    let table = table.with_overrides([("new", over(DOLLAR, DOLLAR))]).unwrap();
    assert_eq!(cost(&table, "new"), "1.01");
    let listed = table.list();
    let row = |provider: &str, model: &str| {
        listed.iter().filter(|row| (row.provider, row.model) == (provider, model)).count()
    };
    assert_eq!((row("*", "new"), row("anthropic", "new"), row("anthropic", "claude-opus-5-5")), (1, 1, 1));
    let every = file("\"any\": { \"input\": 1, \"output\": 2 }").replace("anthropic", "*");
    assert_eq!(cost(&PriceTable::load(&every).unwrap(), "any"), "1.01");
}

#[test]
fn a_price_file_with_a_mistake_is_refused_as_a_whole_and_says_where() {
    let row = |fields: &str| file(&format!("\"m\": {{ \"input\": 1, \"output\": 2, {fields} }}"));
    for (text, want) in [
        (String::new(), "line 1"),
        ("null".into(), "line 1"),
        ("{}".into(), "schema"),
        (file("").replace("\"schema\": 1", "\"schema\": 2"), "`schema` is 2"),
        (file("").replace("\"v\"", "\"\""), "`version`"),
        (file("").replace("\"v\"", "7"), "line 1"),
        (file("").replace("\"schema\"", "\"shcema\""), "shcema"),
        (file("\"m\": { \"input\": -1, \"output\": 2 }"), "`-1` is negative"),
        (file("\"m\": { \"input\": -1, \"output\": 2 }"), "line 2"),
        (file("\"m\": { \"input\": \"1\", \"output\": 2 }"), "not a number"),
        (file("\"m\": { \"input\": null, \"output\": 2 }"), "providers.anthropic.models.m"),
        (file("\"m\": { \"input\": 1 }"), "`input` and `output` are both needed"),
        (file("\"m\": { \"input\": 1, \"input\": 1, \"output\": 2 }"), "duplicate field `input`"),
        (
            file("\"m\": { \"input\": 1, \"output\": 2 }, \"m\": { \"input\": 1, \"output\": 2 }"),
            "`m` is empty or stands here twice",
        ),
        (file("\"\": { \"input\": 1, \"output\": 2 }"), "is empty or stands here twice"),
        (row("\"also\": [\"m\"]"), "two prices"),
        (row("\"also\": [\"\"]"), "two prices"),
        (row("\"price\": 3"), "unknown field `price`"),
        (row("\"cache_read\": 0.0000001"), "too many decimals"),
        (row("\"cache_read\": 1000001"), "too large"),
        (row("\"cache_read\": 1e15"), "too large"),
        (row("\"cache_read\": 1.0.0"), "line 2"),
        (row("\"tiers\": [{ \"above\": 2, \"input\": 1 }, { \"above\": 2, \"input\": 1 }]"), "models.m.tiers"),
        (row("\"tiers\": [{ \"above\": -2, \"input\": 1 }]"), "line 2"),
        (row("\"batch\": 0"), "no price"),
        (row("\"batch\": 101"), "too large"),
        (row("\"batch\": 0.5, \"batch_rates\": {}"), "not both"),
        (row("\"batch\": 0.333, \"cache_read\": 0.000001"), "no whole millionth"),
        (row("\"fast\": 1.5, \"cache_read\": 0.000001"), "no whole millionth"),
        (row("\"regions\": { \"us\": 1.1 }, \"cache_read\": 0.000001"), "no whole millionth"),
        (row("\"regions\": { \"us\": 1.1, \"us\": 1.2 }"), "stands here twice"),
        (row("\"off_peak\": { \"input\": 0 }"), "off_peak_utc"),
    ] {
        let error = PriceTable::load(&text).expect_err(&text).to_string();
        assert!(error.contains(want), "{error:?} has no {want:?}");
    }
    let hours = |hours: &str, days: &str| {
        file("").replace(
            "\"models\"",
            &format!("\"off_peak_utc\": [{{ \"days\": [{days}], \"hours\": [{hours}] }}], \"models\""),
        )
    };
    PriceTable::load(&hours("\"00:00-24:00\"", "1, 7")).unwrap();
    for bad in [
        "\"10:00-10:00\"",
        "\"22:00-02:00\"",
        "\"00:00-24:01\"",
        "\"1:00-2:00\"",
        "\"aa:00-bb:00\"",
        "\"10:00\"",
        "\"10:60-11:00\"",
        "",
    ] {
        let error = PriceTable::load(&hours(bad, "1")).expect_err(bad).to_string();
        assert!(error.contains("off_peak_utc"), "{error}");
    }
    assert!(
        PriceTable::load(&hours("\"10:00-11:00\"", "8")).is_err()
            && PriceTable::load(&hours("\"10:00-11:00\"", "")).is_err()
    );
}

#[test]
fn what_is_built_in_is_read_and_every_price_of_it_is_sane() {
    let table = PriceTable::built_in();
    let all = table.list();
    assert!(all.len() > 500, "{}", all.len());
    for row in all {
        let rates = row.found.price.rates;
        let (input, output) = (rates.input.unwrap(), rates.output.unwrap());
        assert!(input > Rate(0) && output >= input, "{} {}", row.provider, row.model);
        assert!(rates.cache_read.is_none_or(|read| read <= input), "{} {}", row.provider, row.model);
        for (long, short) in
            [(rates.cache_write_1h, rates.cache_write_5m), (rates.cache_write_12h, rates.cache_write_30m)]
        {
            assert!(long.is_none() || long > short, "{} {}", row.provider, row.model);
        }
        if row.provider == "anthropic" {
            // A five-minute write costs a quarter more than input, but for two models of old whose lists were rounded.
            let write = rates.cache_write_5m.unwrap();
            assert!(
                write == input.scaled(crate::money::Factor(1250)).unwrap() || row.model.starts_with("claude-3-haiku"),
                "{}",
                row.model
            );
        }
    }
}

#[test]
fn of_several_tiers_the_highest_that_the_prompt_exceeds_holds() {
    let tiers = "\"tiers\": [{ \"above\": 10, \"input\": 2, \"output\": 2 }, { \"above\": 20, \"input\": 3 }]";
    let table = PriceTable::load(&file(&format!("\"m\": {{ \"input\": 1, \"output\": 1, {tiers} }}"))).unwrap();
    for (words, want) in [
        ("in=10", "0.00001"),
        ("in=11", "0.000022"),
        ("in=20", "0.00004"),
        ("in=21", "0.000063"),
        ("in=21 out=1", "~0.000064"),
    ] {
        assert_eq!(said(table.cost(&billed("anthropic", "m", &usage(words)))), want, "{words}");
    }
}

#[test]
fn batch_rates_of_short_prompts_are_not_those_of_long_ones() {
    let row = "\"m\": { \"input\": 2, \"output\": 2, \"batch_rates\": { \"input\": 1 }, \"tiers\": [{ \"above\": 10, \"input\": 4, \"output\": 4 }] }";
    let table = PriceTable::load(&file(row)).unwrap();
    let cost = |words: &str| said(table.cost(&billed("anthropic", "m", &usage(words))));
    assert_eq!((cost("in=10 tier:batch"), cost("in=11 tier:batch")), ("0.00001".into(), "~0.000044".into()));
}

#[test]
fn what_a_file_says_of_a_provider_comes_before_what_it_says_of_every_one() {
    let every = "\"*\": { \"models\": { \"m\": { \"input\": 9, \"output\": 9 } } }, \"anthropic\"";
    let text = file("\"m\": { \"input\": 1, \"output\": 2 }").replace("\"anthropic\"", every);
    let table = PriceTable::load(&text).unwrap();
    let input = |provider| table.find(provider, "m").unwrap().price.rates.input.unwrap().to_string();
    assert_eq!((input("anthropic"), input("openai")), ("1".into(), "9".into()));
}

#[test]
fn a_lifetime_that_was_assumed_for_a_turn_is_assumed_in_the_cost() {
    let mut usage = usage("in=1");
    let report = Report { cache_write: Some(1), ..Report::default() };
    usage.iterations = vec![Iteration::new(IterationKind::Compaction, None, report)];
    let cost = PriceTable::built_in().cost(&billed("anthropic", "claude-opus-5-5", &usage)).unwrap();
    assert!(cost.flags.ttl_assumed && cost.components.turns == PicoUsd(5_000_000));
}

/// `cargo test --release -p ledger -- --ignored --nocapture time_to`
#[test]
#[ignore = "prints numbers and asserts none"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
fn time_to_read_the_prices_and_to_use_them() {
    let began = std::time::Instant::now();
    let table = std::hint::black_box(PriceTable::built_in());
    table.find("anthropic", "x");
    println!("read once: {:?}", began.elapsed());
    let usage = usage("in=12 read=48_211 5m=1_300 1h=4_000 out=40 region:us");
    let began = std::time::Instant::now();
    for _ in 0..100_000 {
        let _ = std::hint::black_box(table.cost(std::hint::black_box(&billed(
            "anthropic",
            "claude-opus-5-5-20261101",
            &usage,
        ))));
    }
    println!("one cost: {:?}", began.elapsed() / 100_000);
}
