//! The state at a glance: health and providers.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use ledger::LedgerHealth;
use ledger::archive::Skip;
use serde_json::{Map, Value, json};

use super::shape;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Gateway;
use crate::process::NoSuccessor;
use crate::provider::Provider;

pub(super) fn health(gateway: &Gateway) -> Value {
    let disabled = gateway.disabled.iter().map(|name| (name.clone(), Value::Bool(false)));
    let enabled = gateway.providers.iter().map(|p| (p.name.clone(), Value::Bool(p.is_usable())));
    let usable: Map<String, Value> = enabled.chain(disabled).collect();
    let serves = gateway.providers.iter().any(Provider::is_usable);
    let (requests, running, relayed_bytes) = gateway.counters.totals();
    let (ledger, bodies) = (ledger(gateway), bodies(gateway));
    let status = match [&ledger, &bodies].iter().any(|kept| kept["state"] == "failing") {
        _ if !serves => "unhealthy",
        true => "degraded",
        false => "healthy",
    };
    json!({
        "status": status,
        "providers": usable,
        "version": gateway.version,
        "process": process(gateway),
        "uptime_secs": gateway.started.elapsed().unwrap_or_default().as_secs(),
        "requests": { "total": requests, "running": running, "by_outcome": gateway.counters.outcomes() },
        "relayed_bytes": relayed_bytes,
        "connections": {
            "open": gateway.counters.connections.load(Ordering::Relaxed),
            "refused": gateway.counters.connections_refused.load(Ordering::Relaxed),
        },
        "held_bodies": { "bytes": gateway.held.used(), "max_bytes": gateway.held.limit() },
        "held_answers": { "bytes": gateway.kept.used(), "max_bytes": gateway.kept.limit() },
        "ledger": ledger,
        "bodies": bodies,
        "config": config(gateway),
    })
}

/// How the configuration is: whether what the file says is what holds.
fn config(gateway: &Gateway) -> Value {
    let state = gateway.configured.state();
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
    json!({
        "state": if state.fault.is_none() { "good" } else { "invalid" },
        "cause": state.fault,
        "file": state.file,
        "loaded": state.loaded.map(|time| shape::time(seconds(time))),
        "reloads": state.reloads,
        "needs_restart": state.waiting,
    })
}

/// What there is to know of the process.
fn process(gateway: &Gateway) -> Value {
    let started = gateway.started.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
    json!({
        "pid": std::process::id(),
        "address": gateway.process.address.get(),
        "log": gateway.process.log.get(),
        "started": shape::time(started),
    })
}

/// Has another process take this one's place.
pub(super) async fn restart(gateway: &Gateway) -> Result<Value, Refusal> {
    let refused = |kind, message: String| Refusal::new(kind, message).retry(Retry::Never);
    let nobody = || {
        let message = "this gateway cannot be restarted from here, or is being restarted";
        refused(ErrorKind::Unavailable, message.into())
    };
    match gateway.process.succeed().await.ok_or_else(nobody)? {
        Ok(said) => Ok(serde_json::from_str(&said).unwrap_or_default()),
        Err(NoSuccessor { why, is_configuration }) => {
            // The same answer as to a reload with that file.
            let kind = if is_configuration { ErrorKind::InvalidRequest } else { ErrorKind::Unavailable };
            Err(refused(kind, format!("the new process does not start, the old one serves on:\n{why}")))
        }
    }
}

/// Loads the configuration again and tells what came of it.
pub(super) async fn reload(gateway: &Gateway) -> Result<Value, Refusal> {
    let nobody = || Refusal::new(ErrorKind::Unavailable, "this gateway cannot load its configuration again");
    match gateway.configured.reload().await.ok_or_else(nobody)? {
        Ok(report) => Ok(json!({
            "file": report.file,
            "changes": report.changes,
            "needs_restart": report.waiting,
            "notes": report.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })),
        Err(why) => {
            let message = format!("the configuration is not used, what held before holds on:\n{why}");
            Err(Refusal::new(ErrorKind::InvalidRequest, message).retry(Retry::Never))
        }
    }
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

/// Why a ledger is not as it should be; `None`: it is.
fn cause(health: &LedgerHealth) -> Option<String> {
    let (journal, loaded) = (&health.journal, &health.loaded);
    if health.is_good() {
        return None;
    }
    // Why the store takes nothing comes first: the journal's last error may be long past.
    Some(match &health.store {
        Some(why) => why.to_string(),
        None if journal.failing => {
            journal.last_error.clone().unwrap_or_else(|| "the journal cannot be written".to_owned())
        }
        None if journal.low_space => "there is little room on the disk of the journal: free some space".to_owned(),
        None if journal.lost > 0 => {
            format!("{} entries are lost: they could not be written, and there was no room to keep them", journal.lost)
        }
        None if loaded.damaged + loaded.unreadable == 0 => format!(
            "{} damaged files of the journal are kept as `journal/*.damaged`: what could be read of them is in the store; \
             look at them, then remove them",
            health.damaged_files
        ),
        None => format!(
            "{} places of journals are damaged and {} entries cannot be read: the files are kept as `journal/*.damaged`",
            loaded.damaged, loaded.unreadable
        ),
    })
}

/// How the ledger is. Where it fails, requests are served all the same: the status is `degraded`.
fn ledger(gateway: &Gateway) -> Value {
    let recorder = &gateway.recorder;
    let Some(ledger) = recorder.ledger() else {
        return missing(recorder.trouble());
    };
    let health = ledger.health();
    let journal = &health.journal;
    json!({
        "state": match health.is_good() {
            true if recorder.is_recording() => "good",
            true => "off",
            false => "failing",
        },
        "cause": cause(&health),
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
            "damaged_files": health.damaged_files,
        },
        "unsettled": recorder.unsettled(),
        "unpriced": recorder.unpriced(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::journal::JournalHealth;
    use ledger::loader::Counts;
    use ledger::store::StoreError;

    #[test]
    fn a_ledger_that_is_not_good_has_a_cause_whatever_it_is() {
        let good = || LedgerHealth {
            journal: JournalHealth::default(),
            store: None,
            loaded: Counts::default(),
            damaged_files: 0,
        };
        assert_eq!(cause(&good()), None);
        let past = JournalHealth { last_error: Some("long past".into()), ..JournalHealth::default() };
        assert_eq!(cause(&LedgerHealth { journal: past.clone(), ..good() }), None);
        for (journal, want) in [
            (JournalHealth { failing: true, ..JournalHealth::default() }, "cannot be written"),
            (JournalHealth { failing: true, ..past.clone() }, "long past"),
            (JournalHealth { low_space: true, ..past.clone() }, "free some space"),
            (JournalHealth { lost: 3, ..past }, "3 entries are lost"),
        ] {
            let told = cause(&LedgerHealth { journal, ..good() });
            assert!(told.as_deref().is_some_and(|told| told.contains(want)), "{want}: {told:?}");
        }
        let store = Some(StoreError::Unavailable("it is locked".into()));
        assert!(cause(&LedgerHealth { store, ..good() }).is_some_and(|told| told.contains("it is locked")));
        assert!(
            cause(&LedgerHealth { damaged_files: 2, ..good() }).is_some_and(|told| told.starts_with("2 damaged files"))
        );
        let loaded = Counts { damaged: 1, unreadable: 2, ..Counts::default() };
        assert!(cause(&LedgerHealth { loaded, ..good() }).is_some_and(|told| told.contains("1 places")));
    }
}
