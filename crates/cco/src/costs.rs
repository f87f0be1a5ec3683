//! `cco costs`: what was spent, with a bar a row.

use std::process::ExitCode;

use gateway::admin::named;
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
    "usage_unknown",
    "estimated",
    "assumed",
    "incomplete",
    "simulated",
];

/// Shows what was asked for.
pub(crate) fn run(options: &Costs) -> ExitCode {
    source::ended(costs(options))
}

fn costs(options: &Costs) -> Result<(), Failure> {
    if options.grep.is_some() {
        return Err(ungreppable("costs"));
    }
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
        groups.iter().all(term::data);
        return Ok(());
    }
    if form.csv {
        let columns = [&[key.as_str()], CSV].concat();
        let rows = groups.iter().map(|group| csv(group, &columns));
        [columns.join(",")].into_iter().chain(rows).all(term::data);
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
        let name = group[key.as_str()].as_str().unwrap_or_default();
        // Where only kinds are told apart, agents without one are among those without a name.
        let none = if options.by == "agent" { "(main)" } else { "(none)" };
        let part = if most > 0.0 { spent(group) / most } else { 0.0 };
        let name = text::cut(&text::line(&named(name, none)), 40).into_owned();
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

/// Sums are kept by names and times, and not by what stands in bodies.
pub(crate) fn ungreppable(what: &str) -> Failure {
    Failure::usage(format!("`cco {what}` knows no `--grep`: it shows sums, which know nothing of bodies"))
        .help("`cco logs --grep REGEX --json` has the exchanges, each with its `cost_usd`")
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
    vec![
        name,
        paid(group),
        bar.to_owned(),
        n("requests").to_string(),
        text::count(prompt(group)),
        cached(group),
        text::count(n("output_tokens")),
        notional(group).map(|usd| format!("+ {usd} by subscription")).unwrap_or_default(),
    ]
}

/// What was paid for by use, as far as it is known.
pub(crate) fn paid(group: &Value) -> String {
    known(&group["cost_usd"], &group["cost_is_partial"], &group["cost_is_assumed"])
}

/// Whether something was paid for by use, or may have been.
pub(crate) fn is_paid(group: &Value) -> bool {
    group["cost_usd"].as_f64() != Some(0.0)
}

/// What a subscription paid for, as far as it is known; `None`: nothing.
pub(crate) fn notional(group: &Value) -> Option<String> {
    let usd = &group["notional_cost_usd"];
    (usd.as_f64() != Some(0.0))
        .then(|| known(usd, &group["notional_cost_is_partial"], &group["notional_cost_is_assumed"]))
}

/// Dollars, of which a part or all may not be known, or rest on something that was assumed.
fn known(usd: &Value, is_partial: &Value, is_assumed: &Value) -> String {
    match usd.as_f64() {
        None => "-".into(),
        Some(usd) if *is_partial == true => format!("≥ {}", text::usd(usd)),
        Some(usd) if *is_assumed == true => format!("≈ {}", text::usd(usd)),
        Some(usd) => text::usd(usd),
    }
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
            "not in the cost: {} without a price (`cco logs show` says why, `cco prices` has what is known)",
            text::of(unpriced, "request")
        ));
    }
    if let Some(unknown) = total["usage_unknown"].as_i64().filter(|n| *n > 0) {
        term::note(format_args!(
            "not in the cost: {} of which nobody said what was used (broken off, or not reported)",
            text::of(unknown, "request")
        ));
    }
    let n = |name: &str| total[name].as_i64().filter(|n| *n > 0);
    if let Some(incomplete) = n("incomplete") {
        term::note(format_args!("of {} a part is not in the cost: it has no price", text::of(incomplete, "request")));
    }
    if let Some(estimated) = n("estimated") {
        term::note(format_args!(
            "the output of {} is counted by cco: the upstream did not say it to the end",
            text::of(estimated, "request")
        ));
    }
    if let Some(assumed) = n("assumed") {
        term::note(format_args!(
            "a rate that was needed is not in the list for {}: the nearest one was taken (`cco logs show` says which)",
            text::of(assumed, "request")
        ));
    }
    if let Some(simulated) = n("simulated") {
        let usd = total["simulated_cost_usd"].as_f64().map(|usd| format!(" ({})", text::usd(usd))).unwrap_or_default();
        term::note(format_args!(
            "not in the cost: what the simulator served would have cost{usd}, {}",
            text::of(simulated, "request")
        ));
    }
    if let Some(notional) = total["notional_cost_usd"].as_f64().filter(|usd| *usd > 0.0) {
        let notional = text::usd(notional);
        term::note(format_args!(
            "{notional} of a subscription's use is not in the cost: it is what it would have been"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_known_of_a_cost_is_not_shown_as_nothing() {
        let of = |usd: Value, is_partial: bool| json!({ "cost_usd": usd, "cost_is_partial": is_partial });
        let shown = [of(json!(0.0), false), of(json!(2.5), false), of(json!(2.5), true), of(Value::Null, true)];
        assert_eq!(shown.each_ref().map(paid), ["$0", "$2.50", "≥ $2.50", "-"]);
        assert_eq!(shown.each_ref().map(is_paid), [false, true, true, true]);
        let assumed = json!({ "cost_usd": 2.5, "cost_is_partial": false, "cost_is_assumed": true });
        assert_eq!(paid(&assumed), "≈ $2.50");
        let of = |usd: Value| notional(&json!({ "notional_cost_usd": usd, "notional_cost_is_partial": true }));
        assert_eq!([json!(1.0), Value::Null].map(of), [Some("≥ $1.00".into()), Some("-".into())]);
        assert_eq!(notional(&json!({ "notional_cost_usd": 0.0, "notional_cost_is_partial": false })), None);
    }
}
