//! `cco prices`: what models cost, and history priced again.

use std::process::ExitCode;

use gateway::config::Env;
use gateway::setup;
use ledger::money::Rate;
use ledger::price::Listed;
use serde_json::{Value, json};

use crate::cli::look::{Prices, PricesCommand, Recompute};
use crate::costs;
use crate::logs::csv;
use crate::source::{self, Failure, Source};
use crate::term::{self, Progress};
use crate::text::{self, Side, Table};

/// Columns of comma-separated values.
const CSV: &[&str] =
    &["provider", "model", "input", "output", "cache_read", "cache_write_5m", "cache_write_1h", "prices"];

/// Shows prices, or computes history again.
pub(crate) fn run(options: &Prices) -> ExitCode {
    source::ended(match &options.command {
        Some(PricesCommand::Recompute(options)) => recompute(options),
        None => prices(options),
    })
}

fn prices(options: &Prices) -> Result<(), Failure> {
    let config = source::configuration(&Env::process());
    let table = setup::prices(&config).map_err(|why| Failure::new("the prices cannot be used").because(why))?;
    let wanted = options.model.as_deref().unwrap_or_default().to_lowercase();
    let fits = |row: &Listed<'_>| row.model.to_lowercase().contains(&wanted) || row.provider == wanted;
    let all = table.list();
    // The lookup that bills knows more names than are listed: with a date, or with a provider before them.
    let asked = options.model.as_deref().unwrap_or_default();
    let bills = |row: &Listed<'_>| {
        let found = table.find(row.provider, asked);
        row.model != asked && found.is_some_and(|found| std::ptr::eq(found.price, row.found.price))
    };
    let billed: Vec<String> = all
        .iter()
        .filter(|row| bills(row))
        .map(|row| format!("`{}` of {} is billed as `{}`", text::line(asked), row.provider, text::line(row.model)))
        .collect();
    let rows: Vec<Listed<'_>> = all.into_iter().filter(|row| fits(row) || bills(row)).collect();
    if rows.is_empty() {
        let what = format!("no price is known for `{wanted}`");
        return Err(Failure::new(what).help("write it into `costTracking.pricingOverrides` of the configuration"));
    }
    if options.form.json {
        rows.iter().map(shown).all(term::data);
        return Ok(());
    }
    if options.form.csv {
        [CSV.join(",")].into_iter().chain(rows.iter().map(|row| csv(&shown(row), CSV))).all(term::data);
        return Ok(());
    }
    let mut table = Table::new(&[
        ("PROVIDER", Side::Left),
        ("MODEL", Side::Left),
        ("IN", Side::Right),
        ("OUT", Side::Right),
        ("CACHE READ", Side::Right),
        ("WRITE 5 MIN", Side::Right),
        ("WRITE 1 H", Side::Right),
        ("PRICES", Side::Left),
    ]);
    for row in &rows {
        let (rates, dollars) =
            (&row.found.price.rates, |rate: Option<Rate>| rate.map_or("-".into(), |rate| rate.to_string()));
        let provider = if row.provider == "*" { "(every)" } else { row.provider };
        table.row(vec![
            text::line(provider).into_owned(),
            text::line(row.model).into_owned(),
            dollars(rates.input),
            dollars(rates.output),
            dollars(rates.cache_read),
            dollars(rates.cache_write_5m),
            dollars(rates.cache_write_1h),
            text::line(row.found.version).into_owned(),
        ]);
    }
    let widths = table.widths(&[]);
    term::line(table.heading(&widths));
    let unread = !table.lines(&widths, None).all(term::heard);
    if !unread {
        term::note("dollars for a million tokens");
        billed.iter().for_each(term::note);
    }
    Ok(())
}

fn shown(row: &Listed<'_>) -> Value {
    let rates = &row.found.price.rates;
    // Rates are millionths of a dollar for a million tokens.
    let dollars = |rate: Option<Rate>| rate.map(|Rate(micro)| micro as f64 / 1e6);
    json!({
        "provider": row.provider,
        "model": row.model,
        "input": dollars(rates.input),
        "output": dollars(rates.output),
        "cache_read": dollars(rates.cache_read),
        "cache_write_5m": dollars(rates.cache_write_5m),
        "cache_write_1h": dollars(rates.cache_write_1h),
        "prices": &**row.found.version,
    })
}

/// Whether a gateway that uses our configuration has other prices than that names now.
fn is_behind(source: &Source, fingerprint: &Value) -> bool {
    let Ok(health) = source.answer("/gateway/health") else { return false };
    let env = Env::process();
    let own = gateway::config::place(None, &env).and_then(|place| std::fs::canonicalize(place.file).ok());
    let its = health["config"]["file"].as_str().and_then(|file| std::fs::canonicalize(file).ok());
    let config = source::configuration(&env);
    // What cannot be used is not behind: the gateway says so.
    let prices = setup::prices(&config).ok().filter(|_| own.is_some() && own == its && config.cost_tracking.enabled);
    prices.is_some_and(|prices| *fingerprint != prices.fingerprint())
}

fn recompute(options: &Recompute) -> Result<(), Failure> {
    let zone = source::here();
    let look =
        crate::cli::look::Look { since: options.since.clone(), model: options.model.clone(), ..Default::default() };
    let words = source::words(&look, &zone)?;
    let mut source = Source::open()?;
    let counted = source.json(&source::target("/gateway/costs", &words, &zone))?;
    let all = counted["total"]["requests"].as_u64().unwrap_or(0);
    let before = counted["total"].clone();
    let (mut seen, mut changed, mut next, mut prices) = (0, 0, Some(0), Value::Null);
    let mut progress = Progress::new("pricing");
    while let Some(after) = next {
        let step = [&words[..], &[("after", after.to_string())]].concat();
        let told = source.change(&source::target("/gateway/prices/recompute", &step, &zone))?;
        seen += told["seen"].as_u64().unwrap_or(0);
        changed += told["changed"].as_u64().unwrap_or(0);
        next = told["next"].as_i64();
        if after == 0 {
            prices = told;
        }
        progress.at(seen, all);
    }
    drop(progress);
    let seen = text::of(i64::try_from(seen).unwrap_or(i64::MAX), "exchange");
    term::line(format_args!("priced again: {seen}, of which {changed} cost something else now"));
    match prices["prices"].as_str() {
        Some(version) => term::note(format_args!("at the prices of {}", text::line(version))),
        None => term::note("no cost was computed: `costTracking.enabled` is false"),
    }
    if is_behind(&source, &prices["fingerprint"]) {
        let help = "`cco config reload`, and price again";
        term::warning("the gateway does not use the prices yet that the configuration names now", Some(help));
    }
    if changed > 0
        && let Source::Gateway(_) = source
    {
        let after = source.json(&source::target("/gateway/costs", &words, &zone))?["total"].clone();
        term::line(format_args!("together: {}, before {}", costs::paid(&after), costs::paid(&before)));
    }
    Ok(())
}
