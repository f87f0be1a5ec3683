use super::*;
use ledger::query::Sums as Of;

fn group(keys: &[&str], cost: i64) -> Group {
    let paid = Of { requests: 1, cost: ledger::money::NanoUsd(cost), ..Of::default() };
    let totals = Totals { paid, ..Totals::default() };
    Group { keys: keys.iter().map(|key| (*key).to_owned()).collect(), totals, first_us: 0, last_us: 0 }
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
