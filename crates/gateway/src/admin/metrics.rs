//! `/gateway/metrics`: totals since the last reset, from the ledger.

use std::sync::Arc;

use ledger::Ledger;
use ledger::query::{Filter, Group, Metrics};
use ledger::record::Outcome;
use ledger::store::StoreError;
use serde_json::{Map, Value, json};

use super::shape;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Gateway;

/// Groups of a list that can be long.
const TOP: u32 = 50;
/// Records among `recent`.
const RECENT: u32 = 20;

/// What was used so far, with the last records for those who may see them.
pub(super) async fn read(gateway: &Gateway, is_admin: bool) -> Result<Value, Refusal> {
    let asked = ledger(gateway)?.read(move |reader| {
        let metrics = reader.metrics(TOP)?;
        let last = Filter { limit: Some(RECENT), ..Filter::default() };
        let recent = is_admin.then(|| reader.rows(&last)).transpose()?;
        Ok((metrics, recent))
    });
    let answer = asked.await.map_err(|why| unreadable(&why))?;
    let (metrics, recent) = answer.value;
    let mut value = shown(&metrics);
    value["fresh"] = answer.fresh.into();
    if let Some(recent) = recent {
        value["recent"] = recent.iter().map(shape::row).collect();
    }
    Ok(value)
}

/// Begins another counting.
pub(super) async fn reset(gateway: &Gateway) -> Result<Value, Refusal> {
    ledger(gateway)?.reset().await.map_err(|why| unreadable(&why))?;
    Ok(json!({ "reset": true }))
}

pub(super) fn ledger(gateway: &Gateway) -> Result<&Arc<Ledger>, Refusal> {
    gateway.recorder.ledger().ok_or_else(|| {
        let why = gateway.recorder.trouble().unwrap_or("`audit.enabled` is false");
        Refusal::new(ErrorKind::Unavailable, format!("nothing is recorded: {why}")).retry(Retry::Never)
    })
}

pub(super) fn unreadable(why: &StoreError) -> Refusal {
    let retry = match why {
        StoreError::Busy | StoreError::Unavailable(_) => Retry::After(1),
        _ => Retry::Never,
    };
    Refusal::new(ErrorKind::Unavailable, format!("the ledger cannot be read: {why}")).retry(retry)
}

fn shown(metrics: &Metrics) -> Value {
    let (all, summary) = (metrics.summary.all(), &metrics.summary);
    let outcomes =
        || metrics.by_outcome.iter().filter_map(|group| Some((group.keys.first()?, group.totals.all().requests)));
    let named = |(outcome, n): (&String, i64)| (outcome.clone(), Value::from(n));
    let by_outcome: Map<String, Value> = outcomes().map(named).collect();
    // Together the total: a client that went away is no error.
    let failed = |outcome: &str| Outcome::known(outcome).is_failure();
    let failed: Map<String, Value> = outcomes().filter(|(outcome, _)| failed(outcome)).map(named).collect();
    json!({
        "summary": {
            "total_requests": all.requests,
            "total_cost_usd": shape::usd(summary.paid.cost),
            "total_input_tokens": all.input,
            "total_output_tokens": all.output,
        },
        "since": (metrics.since_us > 0).then(|| shape::time(metrics.since_us)),
        "cache": {
            "read_tokens": all.cache_read,
            "write_tokens": all.cache_write,
            "hit_rate": all.cache_hit_rate(),
        },
        "cost": {
            "paid_usd": shape::usd(summary.paid.cost),
            "notional_usd": shape::usd(summary.notional.cost),
            "simulated_usd": shape::usd(summary.simulated.cost),
            "unpriced": all.unpriced,
        },
        "usage": { "estimated": all.estimated, "unknown": all.usage_unknown },
        "errors": { "total": all.failed, "by_outcome": failed },
        "by_outcome": by_outcome,
        "latency_ms": {
            "duration": shape::latency(&metrics.duration),
            "first_byte": shape::latency(&metrics.first_byte),
            "first_token": shape::latency(&metrics.first_token),
        },
        // What does not fit into the lists below.
        "more": {
            "by_model": metrics.more.models,
            "by_agent": metrics.more.agents,
            "by_session": metrics.more.sessions,
            "by_project": metrics.more.projects,
        },
        "by_operation": by(&metrics.by_operation, "(none)"),
        "by_provider": by(&metrics.by_provider, "(none)"),
        "by_model": by(&metrics.by_model, "(none)"),
        "by_agent": by(&metrics.by_agent, "(main)"),
        "by_session": by(&metrics.by_session, "(none)"),
        "by_project": by(&metrics.by_project, "(none)"),
    })
}

/// Sums by name.
fn by(groups: &[Group], nameless: &str) -> Value {
    let name = |group: &Group| shape::named(group.keys.first().map_or("", |name| name), nameless).into_owned();
    Value::Object(groups.iter().map(|group| (name(group), shape::totals(&group.totals))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::query::{Sums, Totals};

    #[test]
    fn names_that_are_none_are_shown_as_such_and_are_not_taken_for_those_that_somebody_chose() {
        let group = |name: &str, requests| {
            let paid = Sums { requests, ..Sums::default() };
            let totals = Totals { paid, ..Totals::default() };
            Group { keys: vec![name.into()], totals, first_us: 0, last_us: 0, exact: true }
        };
        let shown = by(&[group("", 2), group("(main)", 3), group("\"(main)\"", 5), group("Explore", 4)], "(main)");
        let of = |name: &str| shown[name]["requests"].as_i64();
        assert_eq!(
            (of("(main)"), of("\"(main)\""), of("\"\"(main)\"\""), of("Explore")),
            (Some(2), Some(3), Some(5), Some(4))
        );
    }
}
