//! Records and sums as JSON: what answers and the command line's `--json` consist of.

use std::borrow::Cow;

use ledger::money::NanoUsd;
use ledger::query::{Latency, Row, Sums, Totals, UTC, day};
use serde_json::{Value, json};

/// Dollars. Nine decimals and seven digits before them are exact enough for a number of JSON.
pub(super) fn usd(NanoUsd(nano): NanoUsd) -> f64 {
    nano as f64 / 1e9
}

/// A time as RFC 3339 writes it, to the millisecond.
pub(super) fn time(us: i64) -> String {
    let (seconds, rest) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
    let of_day = seconds.rem_euclid(86_400);
    let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{}T{h:02}:{m:02}:{s:02}.{:03}Z", day(seconds, UTC), rest / 1000)
}

/// A name as it is shown where another word stands for none. Whoever chose that very word is told apart by quotes.
pub fn named<'a>(name: &'a str, nameless: &'a str) -> Cow<'a, str> {
    let bare = |name: &'a str| name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let mut core = name;
    while let Some(within) = bare(core) {
        core = within;
    }
    match name {
        "" => nameless.into(),
        name if core == nameless => format!("\"{name}\"").into(),
        name => name.into(),
    }
}

/// Sums: counts over everything, what was paid for by use, and apart from it what was not.
pub(super) fn totals(totals: &Totals) -> Value {
    let all = totals.all();
    json!({
        "requests": all.requests,
        "failed": all.failed,
        "input_tokens": all.input,
        "cache_read_tokens": all.cache_read,
        "cache_write_tokens": all.cache_write,
        "output_tokens": all.output,
        "cost_usd": known(&totals.paid),
        "cost_is_partial": totals.paid.cost_unknown() > 0,
        "notional_cost_usd": known(&totals.notional),
        "cost_is_assumed": totals.paid.cost_assumed() > 0,
        "notional_cost_is_partial": totals.notional.cost_unknown() > 0,
        "notional_cost_is_assumed": totals.notional.cost_assumed() > 0,
        "simulated": totals.simulated.requests,
        "simulated_cost_usd": known(&totals.simulated),
        "unpriced": all.unpriced,
        "usage_unknown": all.usage_unknown,
        "estimated": all.estimated,
        "assumed": all.assumed,
        "incomplete": all.incomplete,
    })
}

/// What is known of a cost; `None`: nothing, which is not the same as nothing to pay.
fn known(sums: &Sums) -> Option<f64> {
    (sums.cost != NanoUsd(0) || sums.cost_unknown() == 0).then(|| usd(sums.cost))
}

/// How long things took, in milliseconds.
pub(super) fn latency(latency: &Latency) -> Value {
    let ms = |us: u64| us as f64 / 1e3;
    json!({ "of": latency.of, "p50": ms(latency.p50_us), "p95": ms(latency.p95_us), "p99": ms(latency.p99_us) })
}

/// A record with what people look for first; the rest is as it is stored, money in billionths of a dollar.
pub(super) fn row(row: &Row) -> Value {
    let record = &row.record;
    let mut value = serde_json::to_value(record).unwrap_or_default();
    let (billed, known) = (record.billed(), record.used().is_some());
    let tokens = known.then_some(billed);
    let more = json!({
        "seq": row.seq,
        "short": record.id.short(),
        "time": time(record.started_us),
        "input_tokens": tokens.map(|t| t.input),
        "cache_read_tokens": tokens.map(|t| t.cache_read),
        "cache_write_tokens": tokens.map(|t| t.cache_write.total()),
        "output_tokens": (known || record.estimated_output.is_some()).then_some(billed.output),
        "cost_usd": record.cost.map(usd),
    });
    if let (Some(to), Value::Object(more)) = (value.as_object_mut(), more) {
        to.extend(more);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_to_the_millisecond_in_utc() {
        assert_eq!(time(1_795_355_900_123_456), "2026-11-22T13:58:20.123Z");
        assert_eq!(time(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_cost_of_which_nothing_is_known_is_none_and_not_zero() {
        let of = |requests, unpriced, usage_unknown, cost| {
            let paid = Sums { requests, unpriced, usage_unknown, cost: NanoUsd(cost), ..Sums::default() };
            let shown = totals(&Totals { paid, ..Totals::default() });
            assert_eq!((&shown["notional_cost_usd"], &shown["notional_cost_is_partial"]), (&json!(0.0), &json!(false)));
            (shown["cost_usd"].as_f64(), shown["cost_is_partial"] == true, shown["usage_unknown"].as_i64())
        };
        assert_eq!(of(2, 0, 0, 0), (Some(0.0), false, Some(0)));
        assert_eq!(of(2, 0, 0, 2_000_000_000), (Some(2.0), false, Some(0)));
        assert_eq!(of(2, 1, 0, 2_000_000_000), (Some(2.0), true, Some(0)));
        assert_eq!(of(2, 2, 0, 0), (None, true, Some(0)));
        assert_eq!(of(2, 0, 2, 0), (None, true, Some(2)));
    }

    #[test]
    fn a_row_shows_its_tokens_and_cost_and_keeps_what_is_stored() {
        let record = ledger::sample::record(3);
        let shown = row(&Row { seq: 7, record: record.clone() });
        assert_eq!((&shown["seq"], &shown["id"]), (&json!(7), &json!(record.id.to_string())));
        assert_eq!(shown["short"], record.id.short());
        assert_eq!(shown["cost_usd"].as_f64(), record.cost.map(usd));
        assert_eq!(shown["output_tokens"], record.output());
        assert_eq!(shown["outcome"], record.outcome.as_str());
    }
}
