use super::*;
use ledger::query::Sums as Of;

fn group(keys: &[&str], cost: i64) -> Group {
    let paid = Of { requests: 1, cost: ledger::money::NanoUsd(cost), ..Of::default() };
    let totals = Totals { paid, ..Totals::default() };
    Group { keys: keys.iter().map(|key| (*key).to_owned()).collect(), totals, first_us: 0, last_us: 0, exact: true }
}

#[test]
fn models_beyond_the_bound_share_one_label_and_none_is_lost() {
    let groups: Vec<Group> = (0..1000).map(|n| group(&["p", &format!("m{n}")], 1000 - n)).collect();
    let groups = Groups { groups, ..Groups::default() };
    let rows = rows(&groups, [PROVIDER, MODEL], MODELS);
    assert_eq!(rows.len(), MODELS + 1);
    assert_eq!(rows[0].0, [(PROVIDER, "p"), (MODEL, "m0")]);
    assert_eq!(rows[MODELS].0, [(PROVIDER, OTHER), (MODEL, OTHER)]);
    assert_eq!(rows.iter().map(|(_, totals)| totals.paid.requests).sum::<i64>(), 1000);
}

#[test]
fn what_a_subscription_paid_is_told_apart_from_what_was_paid() {
    let mut one = group(&["p", "m"], 1_500_000_000);
    one.totals.notional = Of { requests: 2, cost: ledger::money::NanoUsd(250_000_000), ..Of::default() };
    let sums = Sums { requests: Groups::default(), models: Groups { groups: vec![one], ..Groups::default() } };
    let mut page = Page::default();
    sums.write(&mut page);
    let text = page.into_text();
    let costs: Vec<&str> = text.lines().filter(|line| line.starts_with("cco_cost_usd_total")).collect();
    let labels = "gen_ai_provider_name=\"p\",gen_ai_response_model=\"m\"";
    let want = [
        format!("cco_cost_usd_total{{{labels},billing=\"paid\"}} 1.5"),
        format!("cco_cost_usd_total{{{labels},billing=\"notional\"}} 0.25"),
    ];
    assert_eq!(costs, want);
}

fn circuit(model: &str, state: State, why: Option<Why>, first_ms: Option<u32>) -> CircuitReport {
    CircuitReport {
        slot: Slot::Client,
        model: model.into(),
        operation: crate::client::inbound::Operation::Generation,
        state,
        why,
        failed: usize::from(why.is_some()),
        slow: 0,
        recent: 1,
        first_ms,
        left: None,
        spent: None,
    }
}

#[test]
fn circuits_beyond_the_bound_share_one_label_and_those_that_are_open_come_first() {
    let open = State::Open(std::time::Duration::from_secs(1));
    let mut all: Vec<_> = (0..300).map(|n| circuit(&format!("m{n:03}"), State::Closed, None, Some(5))).collect();
    all.push(circuit("z-down", open, Some(Why::Unreachable), None));
    all.push(circuit("z-made-up", open, Some(Why::Status(404)), None));
    all.push(circuit("z-misspelt", State::Closed, Some(Why::Status(404)), None));
    all.push(circuit(OTHER, open, Some(Why::Late), Some(5)));
    let shown = states(all.iter().map(|circuit| ("p", circuit)));
    assert_eq!(shown.len(), MODELS, "one of them is called as those are that share a label");
    let of = |model| shown.get(&("p", model, "generation", Slot::Client)).copied();
    assert_eq!((of("z-down"), of("z-made-up"), of("z-misspelt")), (Some(2), None, None));
    assert_eq!((of("m000"), of("m299"), of(OTHER)), (Some(0), None, Some(2)));
}
