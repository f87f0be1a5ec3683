//! The state at a glance: health and providers.

use std::sync::atomic::Ordering;

use ledger::archive::Skip;
use serde_json::{Map, Value, json};

use crate::config::KeyMode;
use crate::gateway::Gateway;
use crate::provider::Provider;

/// Whether a request can be sent there: with a key of ours or the caller's.
fn is_usable(provider: &Provider) -> bool {
    provider.key_mode == KeyMode::Client || provider.has_key()
}

pub(super) fn health(gateway: &Gateway) -> Value {
    let disabled = gateway.disabled.iter().map(|name| (name.clone(), Value::Bool(false)));
    let enabled = gateway.providers.iter().map(|p| (p.name.clone(), Value::Bool(is_usable(p))));
    let usable: Map<String, Value> = enabled.chain(disabled).collect();
    let serves = gateway.target().is_ok_and(is_usable);
    let (requests, running, relayed_bytes) = gateway.counters.totals();
    json!({
        "status": if serves { "healthy" } else { "unhealthy" },
        "providers": usable,
        "version": gateway.version,
        "uptime_secs": gateway.started.elapsed().unwrap_or_default().as_secs(),
        "requests": { "total": requests, "running": running, "by_outcome": gateway.counters.outcomes() },
        "relayed_bytes": relayed_bytes,
        "connections": {
            "open": gateway.counters.connections.load(Ordering::Relaxed),
            "refused": gateway.counters.connections_refused.load(Ordering::Relaxed),
        },
        "held_bodies": { "bytes": gateway.held.used(), "max_bytes": gateway.held.limit() },
        "ledger": ledger(gateway),
        "bodies": bodies(gateway),
    })
}

/// What there is none of: because it should not be, or for a reason.
fn missing(why: Option<&str>) -> Value {
    match why {
        Some(why) => json!({ "state": "failing", "cause": why }),
        None => json!({ "state": "off" }),
    }
}

/// How the archive of bodies is.
fn bodies(gateway: &Gateway) -> Value {
    let Some(bodies) = gateway.recorder.bodies() else {
        return missing(gateway.recorder.no_bodies());
    };
    let (counts, trouble) = (bodies.counts(), bodies.trouble());
    let skipped: Map<String, Value> =
        Skip::ALL.iter().map(|why| (why.name().to_owned(), counts.skipped(*why).into())).collect();
    json!({
        "state": if trouble.is_none() { "good" } else { "failing" },
        "cause": trouble,
        "stored": counts.stored,
        "stored_bytes": counts.raw_bytes,
        "disk_bytes": counts.disk_bytes,
        "waiting_bytes": counts.queue_bytes,
        "skipped": skipped,
    })
}

/// How the ledger is. It is no part of the status: requests are served whatever becomes of their records.
fn ledger(gateway: &Gateway) -> Value {
    let recorder = &gateway.recorder;
    let Some(ledger) = recorder.ledger() else {
        return missing(recorder.trouble());
    };
    let health = ledger.health();
    let journal = &health.journal;
    // Why the store takes nothing comes first: the journal's last error may be long past.
    let cause = health.store.as_ref().map(ToString::to_string).or_else(|| journal.last_error.clone());
    json!({
        "state": if health.is_good() { "good" } else { "failing" },
        "cause": cause.filter(|_| !health.is_good()),
        "store": health.store.is_none(),
        "journal": {
            "failing": journal.failing,
            "low_space": journal.low_space,
            "written": journal.written,
            "late": journal.late,
            "lost": journal.lost,
            "pending_bytes": journal.pending_bytes,
            "behind_bytes": journal.behind_bytes,
        },
        "loaded": {
            "records": health.loaded.new,
            "interrupted": health.loaded.interrupted,
            "damaged": health.loaded.damaged,
            "unreadable": health.loaded.unreadable,
        },
        "unsettled": recorder.unsettled(),
        "unpriced": recorder.unpriced(),
    })
}

pub(super) fn providers(gateway: &Gateway) -> Value {
    let rows: Vec<Value> = gateway
        .providers
        .iter()
        .map(|p| {
            json!({
                "name": p.name,
                "type": p.kind.name,
                "base_url": p.base.to_string(),
                "usable": is_usable(p),
                "key": if p.has_key() { "stored" } else { "none" },
                "key_mode": match p.key_mode { KeyMode::Client => "client", KeyMode::Stored => "stored" },
                "serves": gateway.target().is_ok_and(|t| t.name == p.name),
            })
        })
        .collect();
    json!({ "providers": rows, "disabled": gateway.disabled })
}
