//! The providers as they are at the moment: keys, circuits and why they are open, requests that wait for their turn.

use ledger::record::Fingerprint;
use serde_json::{Value, json};

use super::ask::{Wrong, words};
use crate::config::KeyMode;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Gateway;
use crate::health::{CircuitReport, KeyReport, Slot, State};
use crate::provider::Provider;

/// What is known of one provider: its circuits, and its keys that were refused.
pub(super) fn known(gateway: &Gateway, provider: &Provider) -> (Vec<CircuitReport>, Vec<KeyReport>) {
    gateway.routing.health.report(gateway.routing.now(), provider.place)
}

fn key(slot: Slot) -> String {
    slot.to_string()
}

fn circuit(report: &CircuitReport) -> Value {
    let (state, opens_in) = match report.state {
        State::Closed => ("closed", None),
        State::HalfOpen => ("half_open", None),
        State::Open(rest) => ("open", Some(rest.as_secs_f64())),
    };
    json!({
        "model": report.model,
        "operation": report.operation.recorded().as_str(),
        "key": key(report.slot),
        "state": state,
        "again_in_secs": opens_in,
        "why": report.why.map(|why| why.to_string()),
        "recent": report.recent,
        "failed": report.failed,
        "slow": report.slow,
        "first_event_ms": report.first_ms,
        "left": report.left.map(|thousandths| f64::from(thousandths) / 1000.0),
        "spent_for_secs": report.spent.map(|rest| rest.as_secs_f64()),
    })
}

fn refused(report: &KeyReport) -> Value {
    json!({
        "key": key(report.slot),
        "why": report.why.to_string(),
        "for_secs": report.refused_for.as_secs(),
        "again_in_secs": report.again_in.as_secs(),
    })
}

/// In a word: "well", "trying" while a request finds out, "resting" while some of it is left alone.
fn state(circuits: &[CircuitReport], keys: &[KeyReport]) -> &'static str {
    let any = |is: fn(&State) -> bool| circuits.iter().any(|circuit| is(&circuit.state));
    let is_spent = circuits.iter().any(|circuit| circuit.spent.is_some());
    if any(|state| matches!(state, State::Open(_))) || is_spent || !keys.is_empty() {
        "resting"
    } else if any(|state| matches!(state, State::HalfOpen)) {
        "trying"
    } else {
        "well"
    }
}

/// Our keys of a provider that are there, as their owner knows them: where each is from, and its end.
fn stored_keys(provider: &Provider) -> Value {
    let keys = provider.keys.iter().filter_map(|key| Some((key.live().reference(), key.live().get()?)));
    keys.map(|(reference, key)| {
        json!({ "reference": reference.map(ToString::to_string), "end": Fingerprint::of(key.expose()).as_str() })
    })
    .collect()
}

/// All providers; `is_admin`: for one who may also know which keys are spent.
pub(super) fn providers(gateway: &Gateway, is_admin: bool) -> Value {
    let rows: Vec<Value> = gateway
        .providers
        .iter()
        .map(|p| {
            let (circuits, keys) = known(gateway, p);
            let turns = p.cap.counts();
            let mut row = json!({
                "name": p.name,
                "type": p.kind.name,
                "base_url": p.base.to_string(),
                "usable": p.is_usable(),
                "key": if p.has_key() { "stored" } else { "none" },
                "keys": p.keys.len(),
                "key_mode": match p.key_mode { KeyMode::Client => "client", KeyMode::Stored => "stored" },
                "serves": gateway.serving().is_some_and(|it| it.name == p.name),
                "state": state(&circuits, &keys),
                "circuits": circuits.iter().map(circuit).collect::<Vec<_>>(),
                "refused_keys": keys.iter().map(refused).collect::<Vec<_>>(),
                "running": turns.running,
                "waiting": turns.waiting,
                "turned_away": turns.refused,
            });
            if is_admin {
                row["stored_keys"] = stored_keys(p);
            }
            row
        })
        .collect();
    json!({ "providers": rows, "disabled": gateway.disabled })
}

/// Forgets what is known of the provider that the query names.
pub(super) fn reset(gateway: &Gateway, target: &str) -> Result<Value, Refusal> {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let wrong = |why: Wrong| Refusal::new(ErrorKind::InvalidRequest, why.to_string()).retry(Retry::Never);
    let mut words = words(query).map_err(wrong)?.into_iter();
    let name = words.find(|(word, _)| word == "name").map(|(_, name)| name).unwrap_or_default();
    let Some(provider) = gateway.providers.iter().find(|provider| provider.name == name) else {
        let message = format!("no provider `{name}` is enabled: `cco providers` lists them");
        return Err(Refusal::new(ErrorKind::NotFound, message).retry(Retry::Never));
    };
    gateway.routing.health.reset(provider.place);
    Ok(json!({ "reset": provider.name }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::inbound::Operation;
    use crate::health::Why;
    use std::time::Duration;

    #[test]
    fn a_provider_is_as_well_as_the_worst_of_it() {
        let circuit = |state| CircuitReport {
            slot: Slot::Stored(0),
            model: "m".into(),
            operation: Operation::Generation,
            state,
            why: Some(Why::Status(529)),
            failed: 3,
            slow: 0,
            recent: 4,
            first_ms: Some(700),
            left: Some(250),
            spent: None,
        };
        let open = State::Open(Duration::from_millis(1500));
        let second = Duration::from_secs(1);
        let key = KeyReport { slot: Slot::Stored(1), why: Why::Money, refused_for: second, again_in: second };
        assert_eq!(refused(&key)["why"], "its account has no money left");
        assert_eq!(state(&[], &[]), "well");
        assert_eq!(state(&[circuit(State::Closed)], &[]), "well");
        assert_eq!(state(&[circuit(State::Closed), circuit(State::HalfOpen)], &[]), "trying");
        assert_eq!(state(&[circuit(State::HalfOpen), circuit(open)], &[]), "resting");
        assert_eq!(state(&[], &[key]), "resting");
        let spent = CircuitReport { spent: Some(second), ..circuit(State::Closed) };
        assert_eq!(
            (state(std::slice::from_ref(&spent), &[]), &super::circuit(&spent)["spent_for_secs"]),
            ("resting", &json!(1.0))
        );
        let told = super::circuit(&circuit(open));
        assert_eq!(
            (&told["state"], &told["again_in_secs"], &told["key"]),
            (&json!("open"), &json!(1.5), &json!("key 1"))
        );
        assert_eq!((&told["why"], &told["left"]), (&json!("it answered with status 529"), &json!(0.25)));
    }
}
