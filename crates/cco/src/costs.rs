//! `cco costs`: what was spent, with a bar a row.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::look::Costs;
use crate::logs::csv;
use crate::source::{self, Failure, Source};
use crate::term;
use crate::text::{self, Side, Table};

/// Characters of the longest bar.
const BAR: usize = 24;
/// Rows that people are shown where nobody says how many.
const ROWS: u32 = 50;

/// Columns of comma-separated values behind the key.
pub(crate) const CSV: &[&str] = &[
    "requests",
    "failed",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "cost_usd",
    "notional_cost_usd",
    "unpriced",
];

/// Shows what was asked for.
pub(crate) fn run(options: &Costs) -> ExitCode {
    source::ended(costs(options))
}

fn costs(options: &Costs) -> Result<(), Failure> {
    let zone = source::here();
    let mut words = source::words(&options.look, &zone)?;
    words.push(("by", options.by.clone()));
    let form = options.look.form;
    // Days are all shown, and files hold everything; nobody reads a thousand sessions.
    if options.look.limit.is_none() && options.by != "day" && !form.json && !form.csv {
        words.push(("limit", ROWS.to_string()));
    }
    let told = Source::open()?.json(&source::target("/gateway/costs", &words, &zone))?;
    let key = options.by.replace('-', "_");
    let groups = told["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    if form.json {
        groups.iter().all(term::heard);
        return Ok(());
    }
    if form.csv {
        let columns = [&[key.as_str()], CSV].concat();
        let rows = groups.iter().map(|group| csv(group, &columns));
        [columns.join(",")].into_iter().chain(rows).all(term::heard);
        return Ok(());
    }
    let most = groups.iter().map(spent).fold(0.0, f64::max);
    let mut table = Table::new(&[
        (heading(&options.by), Side::Left),
        ("COST", Side::Right),
        ("", Side::Left),
        ("REQUESTS", Side::Right),
        ("IN", Side::Right),
        ("CACHED", Side::Right),
        ("OUT", Side::Right),
        ("", Side::Left),
    ]);
    for group in groups {
        let name = group[key.as_str()].as_str().filter(|name| !name.is_empty());
        let none = if options.by.starts_with("agent") { "(main)" } else { "(none)" };
        let part = if most > 0.0 { spent(group) / most } else { 0.0 };
        let name = text::cut(&text::line(name.unwrap_or(none)), 40).into_owned();
        table.row(row(name, group, &text::bar(part, BAR)));
    }
    table.row(row("total".into(), &told["total"], ""));
    let widths = table.widths(&[]);
    term::line(table.heading(&widths));
    table.lines(&widths, None).for_each(term::line);
    if told["more"] == true {
        term::note("there are more rows than these: the total has them all; `--limit` shows more");
    }
    remarks(&told["total"]);
    Ok(())
}

fn heading(by: &str) -> &'static str {
    match by {
        "day" => "DAY",
        "model" => "MODEL",
        "session" => "SESSION",
        "agent" => "AGENT",
        "agent-type" => "KIND OF AGENT",
        "project" => "PROJECT",
        "provider" => "PROVIDER",
        "operation" => "OPERATION",
        _ => "OUTCOME",
    }
}

/// What was paid for by use, and what a subscription paid for: both are shown by the bar's length.
fn spent(group: &Value) -> f64 {
    group["cost_usd"].as_f64().unwrap_or(0.0) + group["notional_cost_usd"].as_f64().unwrap_or(0.0)
}

fn row(name: String, group: &Value, bar: &str) -> Vec<String> {
    let n = |name: &str| group[name].as_i64().unwrap_or(0);
    let notional = group["notional_cost_usd"].as_f64().filter(|usd| *usd > 0.0);
    vec![
        name,
        text::usd(group["cost_usd"].as_f64().unwrap_or(0.0)),
        bar.to_owned(),
        n("requests").to_string(),
        text::count(prompt(group)),
        cached(group),
        text::count(n("output_tokens")),
        notional.map(|usd| format!("+ {} by subscription", text::usd(usd))).unwrap_or_default(),
    ]
}

/// The whole prompt.
pub(crate) fn prompt(group: &Value) -> i64 {
    ["input_tokens", "cache_read_tokens", "cache_write_tokens"].iter().filter_map(|name| group[*name].as_i64()).sum()
}

/// How much of the prompt came from a cache.
pub(crate) fn cached(group: &Value) -> String {
    let prompt = prompt(group);
    let read = group["cache_read_tokens"].as_i64().unwrap_or(0);
    if prompt > 0 { text::percent(read as f64 / prompt as f64) } else { "-".into() }
}

/// What the sums do not show.
pub(crate) fn remarks(total: &Value) {
    if let Some(unpriced) = total["unpriced"].as_i64().filter(|n| *n > 0) {
        term::note(format_args!(
            "not in the cost: {} of models without a price (`cco prices`)",
            text::of(unpriced, "request")
        ));
    }
    if let Some(notional) = total["notional_cost_usd"].as_f64().filter(|usd| *usd > 0.0) {
        let notional = text::usd(notional);
        term::note(format_args!(
            "{notional} of a subscription's use is not in the cost: it is what it would have been"
        ));
    }
}
