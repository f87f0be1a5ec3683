//! What the rest of the gateway sees of the health of its targets.

use super::*;
use crate::signals::Quota;

fn at(seconds: u64) -> Time {
    Time::from_ms(seconds * 1000)
}

fn place(slot: Slot, model: &str, operation: Operation) -> Place<'_> {
    Place { provider: 0, slot, model, operation }
}

const HERE: Place<'_> = Place { provider: 0, slot: Slot::Stored(0), model: "m", operation: Operation::Generation };

fn health() -> Health {
    Health::new(["a".into(), "b".into()])
}

/// An attempt that comes to this.
fn attempt(health: &Health, now: Time, place: &Place<'_>, outcome: Outcome) {
    health.enter(now, place, 0, Entry::LastResort).unwrap().record(now, outcome);
}

fn down(health: &Health, now: Time, place: &Place<'_>) {
    for _ in 0..3 {
        attempt(health, now, place, Outcome::Failed(Why::Unreachable));
    }
}

fn look(health: &Health, now: Time, place: &Place<'_>) -> Look {
    health.look(now, place, 0).look
}

#[test]
fn a_circuit_is_of_a_provider_a_key_a_model_and_an_operation() {
    let health = health();
    down(&health, at(0), &HERE);
    assert_eq!(look(&health, at(0), &HERE), Look::Open(at(5), Some(Why::Unreachable)));
    for other in [
        place(Slot::Stored(1), "m", Operation::Generation),
        place(Slot::Client, "m", Operation::Generation),
        place(Slot::Stored(0), "n", Operation::Generation),
        place(Slot::Stored(0), "m", Operation::CountTokens),
        Place { provider: 1, ..HERE },
        Place { provider: 9, ..HERE },
    ] {
        assert_eq!(look(&health, at(0), &other), Look::Well, "{other:?}");
    }
}

#[test]
fn while_one_finds_out_the_others_are_told() {
    let health = health();
    down(&health, at(0), &HERE);
    assert!(health.enter(at(4), &HERE, 0, Entry::IfWell).is_none());
    assert_eq!(look(&health, at(5), &HERE), Look::Probing);
    let mut probe = health.enter(at(5), &HERE, 0, Entry::IfWell).unwrap();
    assert_eq!(look(&health, at(6), &HERE), Look::BeingTried(Some(Why::Unreachable)));
    assert!(health.enter(at(6), &HERE, 0, Entry::IfWell).is_none());
    probe.record(at(7), Outcome::Good { first: Some(Duration::from_millis(800)) });
    assert_eq!(look(&health, at(7), &HERE), Look::Well);
    assert_eq!(health.look(at(7), &HERE, 0).first_ms, Some(800));
    // What breaks after its first event is one more outcome, not the probe's again.
    probe.record(at(8), Outcome::Failed(Why::Broken));
    assert_eq!(look(&health, at(8), &HERE), Look::Well);
    assert_eq!(health.report(at(8), 0).0[0].failed, 1);
}

#[test]
fn a_client_that_goes_away_leaves_the_try_to_the_next() {
    let health = health();
    down(&health, at(0), &HERE);
    let probe = health.enter(at(5), &HERE, 0, Entry::IfWell).unwrap();
    drop(probe);
    assert_eq!(look(&health, at(5), &HERE), Look::Probing);
    let mut judged = health.enter(at(5), &HERE, 0, Entry::IfWell).unwrap();
    judged.record(at(6), Outcome::Failed(Why::Late));
    drop(judged);
    assert_eq!(look(&health, at(6), &HERE), Look::Open(at(16), Some(Why::Late)));
}

#[test]
fn a_key_that_is_refused_rests_for_every_model_and_comes_back() {
    let health = health();
    attempt(&health, at(0), &HERE, Outcome::KeyRefused(Why::Status(401)));
    let other = place(Slot::Stored(0), "n", Operation::CountTokens);
    assert_eq!(look(&health, at(1), &other), Look::KeyRefused(at(600), Why::Status(401)));
    assert!(health.enter(at(1), &other, 0, Entry::IfWell).is_none());
    assert_eq!(look(&health, at(1), &place(Slot::Stored(1), "m", Operation::Generation)), Look::Well);
    let [key] = health.report(at(60), 0).1[..] else { panic!("one key was refused") };
    let (minute, rest) = (Duration::from_secs(60), Duration::from_secs(540));
    assert_eq!((key.slot, key.refused_for, key.again_in), (Slot::Stored(0), minute, rest));
    assert_eq!(look(&health, at(600), &HERE), Look::Well, "it is tried again");
    attempt(&health, at(600), &HERE, Outcome::KeyRefused(Why::Status(401)));
    assert_eq!(look(&health, at(601), &HERE), Look::KeyRefused(at(1800), Why::Status(401)));
    attempt(&health, at(1800), &HERE, Outcome::Good { first: None });
    assert_eq!(health.report(at(1800), 0).1, []);
}

#[test]
fn a_key_without_money_rests_for_every_model_and_no_longer_each_time() {
    let health = health();
    for began in [0, 600, 1200] {
        attempt(&health, at(began), &HERE, Outcome::KeyRefused(Why::Money));
        let other = place(Slot::Stored(0), "n", Operation::Generation);
        assert_eq!(look(&health, at(began + 1), &other), Look::KeyRefused(at(began + 600), Why::Money));
    }
    let (circuits, keys) = health.report(at(1201), 0);
    assert_eq!((circuits[0].failed, keys[0].why.to_string()), (0, "its account has no money left".into()));
    health.reset(0);
    assert_eq!(look(&health, at(1201), &HERE), Look::Well);
}

#[test]
fn a_key_that_is_refused_where_tokens_are_counted_serves_what_is_asked_otherwise() {
    let health = health();
    let counting = place(Slot::Stored(0), "m", Operation::CountTokens);
    for why in [Why::Status(401), Why::Money] {
        for second in 0..10 {
            attempt(&health, at(second), &counting, Outcome::KeyRefused(why));
        }
        assert_eq!(look(&health, at(10), &HERE), Look::Well);
        assert!(matches!(look(&health, at(10), &counting), Look::Open(_, Some(told)) if told == why));
        health.reset(0);
    }
}

#[test]
fn rate_limits_close_a_target_before_it_has_to_refuse() {
    let health = health();
    let spent = Signals {
        requests: Some(Quota { limit: 60, remaining: 1, full_in: Duration::from_secs(59) }),
        tokens: [None, Some(Quota { limit: 1000, remaining: 400, full_in: Duration::from_secs(60) }), None],
        ..Signals::default()
    };
    let pass = health.enter(at(0), &HERE, 0, Entry::IfWell).unwrap();
    pass.heed(|| at(0), &spent);
    assert_eq!(health.look(at(0), &HERE, 400).look, Look::Well);
    assert_eq!(health.look(at(0), &HERE, 700).look, Look::Spent(at(30)));
    assert_eq!(health.look(at(0), &HERE, 0).left, Some(16));
    let _next = health.enter(at(0), &HERE, 100, Entry::IfWell).unwrap();
    assert_eq!(health.look(at(0), &HERE, 0).look, Look::Spent(at(1)), "the last request of this second is out");
    assert!(health.enter(at(0), &HERE, 0, Entry::IfWell).is_none());
    let client = place(Slot::Client, "m", Operation::Generation);
    health.enter(at(0), &client, 0, Entry::IfWell).unwrap().heed(|| at(0), &spent);
    assert_eq!(health.look(at(0), &client, 700).look, Look::Well, "another caller has other limits");
}

#[test]
fn callers_who_name_ever_new_models_find_an_end() {
    let health = health();
    for n in 0..2000u64 {
        let name = format!("model-{n}-{}", "x".repeat(500));
        attempt(&health, at(n), &place(Slot::Client, &name, Operation::Generation), Outcome::Failed(Why::Status(404)));
        // One that is used all the time stays.
        attempt(&health, at(n), &HERE, Outcome::Answered);
    }
    let (circuits, _) = health.report(at(2000), 0);
    assert_eq!(circuits.len(), 256);
    assert!(circuits.iter().all(|circuit| circuit.model.len() <= 128));
    assert!(circuits.iter().any(|circuit| &*circuit.model == "m"));
}

#[test]
fn a_new_configuration_keeps_what_is_known_of_those_who_stay() {
    let old = health();
    down(&old, at(0), &HERE);
    let new = old.renewed(["c".into(), "a".into()]);
    assert_eq!(look(&new, at(0), &HERE), Look::Well);
    let moved = Place { provider: 1, ..HERE };
    assert!(matches!(look(&new, at(0), &moved), Look::Open(..)));
    new.reset(1);
    assert_eq!(look(&old, at(0), &HERE), Look::Well, "they share it");
}

#[test]
fn a_report_says_what_is_wrong_in_words() {
    let health = health();
    attempt(&health, at(0), &HERE, Outcome::Limited(Some(Duration::from_secs(30)), Why::Status(429)));
    let report = &health.report(at(10), 0).0[0];
    assert_eq!(
        (report.state, report.slot, &*report.model),
        (State::Open(Duration::from_secs(20)), Slot::Stored(0), "m")
    );
    assert_eq!(report.why.unwrap().to_string(), "it was asked too often (429)");
    assert_eq!(health.report(at(31), 0).0[0].state, State::HalfOpen);
    assert_eq!(Slot::Stored(0).to_string(), "key 1");
}
