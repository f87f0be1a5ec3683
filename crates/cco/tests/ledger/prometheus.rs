//! `/metrics`, read the strict way.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::common::{Gateway, prompt, request, streamed, upstream, whole};
use crate::get;

type Labels = BTreeMap<String, String>;

/// A page as a strict reader sees it.
#[derive(Debug, Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Page {
    #[track_caller]
    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let (mut page, mut family, mut seen) = (Self::default(), String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(!help.is_empty() && seen.insert(name.to_owned()), "{line}: a family stands in one place");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, family, "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                page.kinds.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, labels, value) = sample(line);
                let base = match page.kinds[&family].as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)),
                    _ => Some(&*name),
                };
                assert_eq!(base, Some(&*family), "{line}");
                let value = value.parse().unwrap_or_else(|why| panic!("{why}: {line}"));
                assert!(page.samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        page
    }

    /// The sum of all samples of this name that have these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |has: &Labels| labels.iter().all(|(label, value)| has.get(*label).is_some_and(|has| has == value));
        let all = self.samples.iter().filter(|((known, has), _)| known == name && fits(has));
        all.map(|(_, value)| value).sum()
    }

    /// Checks every histogram: buckets grow, and the last one is the count.
    fn check_histograms(&self) {
        for name in self.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), value) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").unwrap();
                    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                    series.entry(labels).or_default().push((bound, *value));
                }
            }
            assert!(!series.is_empty(), "{name}");
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.windows(2).all(|two| two[0].1 <= two[1].1), "{name} {labels:?}: {buckets:?}");
                let (last, count) = buckets.last().unwrap();
                assert_eq!(*last, f64::INFINITY);
                assert_eq!(self.samples.get(&(format!("{name}_count"), labels.clone())), Some(count));
                assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)));
            }
        }
    }
}

/// Name, labels and value of a line.
#[track_caller]
fn sample(line: &str) -> (String, Labels, &str) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{line}");
    let mut labels = Labels::new();
    if rest.starts_with('{') {
        loop {
            let (label, value) = rest[1..].split_once("=\"").unwrap();
            let (mut text, mut chars) = (String::new(), value.char_indices());
            let after = loop {
                match chars.next().unwrap_or_else(|| panic!("{line}")) {
                    (at, '"') => break &value[at + 1..],
                    (_, '\\') => match chars.next().unwrap().1 {
                        'n' => text.push('\n'),
                        c @ ('\\' | '"') => text.push(c),
                        c => panic!("`\\{c}` in {line}"),
                    },
                    (_, c) => text.push(c),
                }
            };
            assert!(labels.insert(label.to_owned(), text).is_none(), "{line}");
            rest = after;
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            assert!(rest.starts_with(','), "{line}");
        }
    }
    (name.to_owned(), labels, rest.strip_prefix(' ').unwrap())
}

async fn scrape(gateway: &Gateway) -> Page {
    let answer = gateway.ask(get("/metrics", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    Page::read(answer.text())
}

#[tokio::test]
async fn everything_is_counted_under_the_names_of_opentelemetry() {
    let upstream = upstream().await;
    let gateway = Gateway::start(&upstream, json!({})).await;
    gateway.ask(streamed("text=hi input_tokens=1000 output_tokens=200 cache_read=4000 cache_1h=500")).await;
    gateway.ask(whole("text=hi input_tokens=10 output_tokens=20")).await;
    gateway.ask(whole("fault=529")).await;
    gateway.ask(request("GET", "/v1/models", "", "")).await;
    // A model that nobody knows, with everything in its name that could break a line.
    let odd = prompt("Hello.", false).replace("claude-sonnet-5-5", "a\\\"b\\\\c\\nd");
    gateway.ask(request("POST", "/v1/messages", "", odd)).await;
    let page = scrape(&gateway).await;
    page.check_histograms();

    let of = [("gen_ai_provider_name", "anthropic"), ("gen_ai_response_model", "claude-sonnet-5-5")];
    let with = |more: &[(&'static str, &'static str)]| [&of[..], more].concat();
    let tokens = |kind| page.sum("cco_tokens_total", &with(&[("gen_ai_token_type", kind)]));
    assert_eq!(["input", "cache_read", "cache_write", "output"].map(tokens), [1010.0, 4000.0, 500.0, 220.0]);
    let cost = page.sum("cco_cost_usd_total", &with(&[("billing", "paid")]));
    let want = (1010.0 * 2.0 + 4000.0 * 0.1 + 500.0 * 4.0 + 220.0 * 10.0) / 1e6;
    assert!((cost - want).abs() < 1e-9, "{cost}");
    let first = page.sum("gen_ai_server_time_to_first_token_seconds_count", &of);
    assert_eq!(first, 1.0, "one was streamed");
    assert_eq!(
        page.sum("gen_ai_client_operation_duration_seconds_count", &with(&[("error_type", "upstream_error")])),
        1.0
    );
    assert_eq!(
        page.sum("gen_ai_client_operation_duration_seconds_count", &with(&[("gen_ai_operation_name", "chat")])),
        3.0
    );
    assert_eq!(page.sum("gen_ai_client_token_usage_sum", &with(&[("gen_ai_token_type", "input")])), 5510.0);
    let ended = |operation, outcome| page.sum("cco_requests_total", &[("operation", operation), ("outcome", outcome)]);
    assert_eq!(
        (ended("generation", "success"), ended("generation", "upstream_error"), ended("models", "success")),
        (3.0, 1.0, 1.0)
    );
    let odd = [("gen_ai_response_model", "a\"b\\c\nd"), ("gen_ai_token_type", "output")];
    assert!(page.sum("cco_tokens_total", &odd) > 0.0);
    assert_eq!((page.sum("cco_unpriced_total", &[]), page.sum("cco_requests_unpriced_total", &[])), (1.0, 1.0));

    let version = crate::common::binary().arg("--version").output().await.unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    assert_eq!(page.sum("cco_build_info", &[("version", version.trim().strip_prefix("cco ").unwrap())]), 1.0);
    for (name, value) in [
        ("cco_received_total", 5.0),
        ("cco_ledger_good", 1.0),
        ("cco_store_up", 1.0),
        ("cco_ledger_readable", 1.0),
        ("cco_journal_lost_total", 0.0),
        ("cco_journal_behind_bytes", 0.0),
        ("cco_unsettled_total", 0.0),
        ("cco_held_bytes", 0.0),
        ("cco_connections_refused_total", 0.0),
    ] {
        assert!(page.kinds.contains_key(name), "{name}");
        assert_eq!(page.sum(name, &[]), value, "{name}");
    }
}

#[tokio::test]
async fn a_scrape_that_waits_for_the_ledger_keeps_nobody_from_being_served() {
    let upstream = upstream().await;
    let gateway = Gateway::start_with(
        json!({ "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } } }),
        &["--workers", "1"],
        &[],
    )
    .await;
    gateway.ask(whole("text=hi")).await;
    gateway.wait_for_health(|health| health["ledger"]["journal"]["behind_bytes"] == 0).await;
    // Somebody else writes to the store, and does not end.
    let other = rusqlite::Connection::open(gateway.home().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    gateway.ask(whole("text=there")).await;
    let mut scraping = gateway.client().await;
    scraping.send(get("/metrics", "")).await;
    let began = tokio::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.ask(whole("text=served")).await.status, 200);
    }
    let served = began.elapsed();
    let page = scraping.answer().await;
    assert!(began.elapsed() > served * 2, "the scrape waited, the others did not: {served:?} of {:?}", began.elapsed());
    // It tells what there was.
    let page = Page::read(page.text());
    assert_eq!(page.sum("cco_requests_total", &[]), 1.0);
    assert!(page.sum("cco_journal_behind_bytes", &[]) > 0.0);
    let told = gateway.ask(get("/gateway/metrics", "")).await.json();
    assert_eq!((&told["fresh"], &told["summary"]["total_requests"]), (&json!(false), &json!(1)));
    drop(other);
    gateway.wait_for_health(|health| health["ledger"]["journal"]["behind_bytes"] == 0).await;
    assert_eq!(scrape(&gateway).await.sum("cco_requests_total", &[]), 22.0);
}
