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
    let used_up = told["used_up"].as_array().map(Vec::as_slice).unwrap_or_default();
    if options.form.json {
        all.iter().chain(used_up).all(term::data);
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
    let now = gateway::recorder::now_us();
    for one in used_up {
        let word = |name: &str| text::line(one[name].as_str().unwrap_or("-")).into_owned();
        let left = one["until"].as_str().and_then(source::micros).map_or(0, |until| (until - now) / 1_000_000);
        term::line(format_args!(
            "{} {}: the subscription is used up for {}; `{}` serves (`onSubscriptionLimit`)",
            word("provider"),
            word("credential"),
            text::span(left.max(0)),
            word("served_by")
        ));
    }
    if all.is_empty() && !used_up.is_empty() {
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
    for (n, one) in all.iter().enumerate() {
        let text = |name: &str| text::line(one[name].as_str().unwrap_or("(no key)")).into_owned();
        let seen = one["seen"].as_str().and_then(source::micros).unwrap_or(now);
        let gap = if n == 0 && used_up.is_empty() { "" } else { "\n" };
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

/// Limits that a short account names.
const NAMED: usize = 3;

/// The limits that are nearest, of each key the one of which most is used: at most three lines.
pub(crate) fn nearest(limits: &Value, now: i64) -> Vec<String> {
    let mut all: Vec<(f64, String)> = Vec::new();
    for one in limits.as_array().map(Vec::as_slice).unwrap_or_default() {
        let windows = one["windows"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = windows.iter().filter_map(|window| {
            let resets = window["resets"].as_str().and_then(source::micros);
            // What has begun anew since is not known yet.
            let left = resets.map(|at| (at - now) / 1_000_000);
            (left.is_none_or(|left| left > 0)).then_some((window["used"].as_f64()?, window, left))
        });
        let Some((used, window, left)) = known.max_by(|a, b| a.0.total_cmp(&b.0)) else { continue };
        let word = |name: &str| text::line(one[name].as_str().unwrap_or_default()).into_owned();
        let whose = [word("provider"), word("credential")].join(" ");
        let resets = left.map(|left| format!(", begins anew in {}", text::span(left))).unwrap_or_default();
        let what = text::line(known_as(window));
        all.push((used, format!("{}: {what}, {} used{resets}", whose.trim_end(), text::percent(used))));
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let more = all.len().saturating_sub(NAMED);
    let mut lines: Vec<String> = all.into_iter().take(NAMED).map(|(_, line)| line).collect();
    if more > 0 {
        lines.push(format!("{more} more, see `cco limits`"));
    }
    lines
}

/// The words for what people know by other names.
fn known_as(window: &Value) -> &str {
    match window["name"].as_str().unwrap_or_default() {
        "unified-5h" => "subscription, 5 hours",
        "unified-7d" => "subscription, week",
        "unified-7d_opus" | "unified-7d-opus" => "subscription, week, opus",
        "unified" => "subscription",
        name => name,
    }
}

fn row(window: &Value, now: i64) -> Vec<String> {
    let name = known_as(window);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_each_key_the_limit_is_named_of_which_most_is_used() {
        let now = source::micros("2026-11-23T06:00:00.000Z").unwrap();
        let window =
            |name: &str, used: Option<f64>, resets: &str| json!({ "name": name, "used": used, "resets": resets });
        let later = "2026-11-23T08:05:00.000Z";
        let one = |credential: &str, windows: Value| json!({ "provider": "anthropic", "credential": credential, "windows": windows });
        let limits = json!([
            one("…aaaa", json!([window("requests", Some(0.1), later), window("unified-5h", Some(0.42), later)])),
            one(
                "…bbbb",
                json!([window("requests", Some(1.0), "2026-11-23T05:59:00.000Z"), window("tokens", None, later)])
            ),
            one("…cccc", json!([window("requests", Some(0.97), later)])),
        ]);
        assert_eq!(
            nearest(&limits, now),
            [
                "anthropic …cccc: requests, 97 % used, begins anew in 2 h 5 min",
                "anthropic …aaaa: subscription, 5 hours, 42 % used, begins anew in 2 h 5 min",
            ]
        );
        let many: Value = (0..5).map(|_| one("…cccc", json!([window("requests", Some(0.5), later)]))).collect();
        assert_eq!(nearest(&many, now).len(), NAMED + 1);
        assert_eq!(nearest(&many, now)[NAMED], "2 more, see `cco limits`");
        assert_eq!(nearest(&Value::Null, now), Vec::<String>::new());
    }
}
