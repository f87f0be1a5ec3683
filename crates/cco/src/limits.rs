//! `cco limits`: what is left of the providers' rate limits, as they said last.

use std::process::ExitCode;

use serde_json::Value;

use crate::cli::look::{Limits, Look};
use crate::logs::csv;
use crate::source::{self, Failure, Source};
use crate::term;
use crate::text::{self, Side, Table};

/// Characters of a full bar.
const BAR: usize = 20;

/// Columns of comma-separated values.
const CSV: &[&str] = &["provider", "credential", "seen", "name", "limit", "remaining", "used", "resets", "status"];

/// Shows them.
pub(crate) fn run(options: &Limits) -> ExitCode {
    source::ended(limits(options))
}

fn limits(options: &Limits) -> Result<(), Failure> {
    let zone = source::here();
    let Limits { since, until, provider, limit, form, others } = options;
    let look = Look {
        since: since.clone(),
        until: until.clone(),
        provider: provider.clone(),
        limit: *limit,
        form: *form,
        model: others.model.clone(),
        agent: others.agent.clone(),
        session: others.session.clone(),
        project: others.project.clone(),
        failed: others.failed,
    };
    let words = source::words(&look, &zone)?;
    let told = Source::open()?.json(&source::target("/gateway/limits", &words, &zone))?;
    let all = told["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    if options.form.json {
        all.iter().all(term::data);
        return Ok(());
    }
    if options.form.csv {
        let rows = all.iter().flat_map(|one| {
            let windows = one["windows"].as_array().map(Vec::as_slice).unwrap_or_default();
            windows.iter().map(move |window| {
                let mut row = window.clone();
                for name in ["provider", "credential", "seen"] {
                    row[name] = one[name].clone();
                }
                csv(&row, CSV)
            })
        });
        [CSV.join(",")].into_iter().chain(rows).all(term::data);
        return Ok(());
    }
    if all.is_empty() {
        let note = if words.is_empty() {
            "no provider has said anything of its limits yet"
        } else {
            "nothing that was said fits"
        };
        term::note(note);
        return Ok(());
    }
    let now = gateway::recorder::now_us();
    for (n, one) in all.iter().enumerate() {
        let text = |name: &str| text::line(one[name].as_str().unwrap_or("(no key)")).into_owned();
        let seen = one["seen"].as_str().and_then(source::micros).unwrap_or(now);
        let gap = if n == 0 { "" } else { "\n" };
        let ago = text::span((now - seen) / 1_000_000);
        term::line(format_args!(
            "{gap}{} {}, as of {} ({ago} ago)",
            text("provider"),
            text("credential"),
            source::clock(seen, &zone)
        ));
        let mut table = Table::new(&[
            ("LIMIT", Side::Left),
            ("", Side::Left),
            ("USED", Side::Right),
            ("LEFT", Side::Right),
            ("OF", Side::Right),
            ("RESETS IN", Side::Right),
            ("", Side::Left),
        ]);
        for window in one["windows"].as_array().map(Vec::as_slice).unwrap_or_default() {
            table.row(row(window, now));
        }
        let widths = table.widths(&[]);
        term::line(format_args!("  {}", table.heading(&widths)));
        table.lines(&widths, None).for_each(|line| term::line(format_args!("  {line}")));
    }
    Ok(())
}

fn row(window: &Value, now: i64) -> Vec<String> {
    let name = window["name"].as_str().unwrap_or_default();
    // The words for what people know by other names.
    let name = match name {
        "unified-5h" => "subscription, 5 hours",
        "unified-7d" => "subscription, week",
        "unified-7d_opus" | "unified-7d-opus" => "subscription, week, opus",
        "unified" => "subscription",
        name => name,
    };
    let count = |name: &str| window[name].as_f64().map_or("-".into(), |n| text::count(n as i64));
    let used = window["used"].as_f64();
    let resets = window["resets"].as_str().and_then(source::micros);
    vec![
        text::line(name).into_owned(),
        used.map(|used| format!("{:░<BAR$}", text::bar(used, BAR))).unwrap_or_default(),
        used.map_or("-".into(), text::percent),
        count("remaining"),
        count("limit"),
        match resets.map(|at| (at - now) / 1_000_000) {
            Some(seconds) if seconds > 0 => text::span(seconds),
            Some(_) => "now".into(),
            None => "-".into(),
        },
        text::line(window["status"].as_str().unwrap_or_default()).into_owned(),
    ]
}
