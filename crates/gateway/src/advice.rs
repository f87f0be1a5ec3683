//! What a configuration's user should know that makes it no worse: models that are gone, will be gone, or have no price.

use std::time::{SystemTime, UNIX_EPOCH};

use ledger::price::PriceTable;

use crate::config::{Config, Note, NoteLevel, ProviderConfig};
use crate::setup;

/// The day, in seconds since 1970.
pub fn today() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A note for each model that the configuration names and that is retired, about to be, or in no price list, and for each
/// rate that its own prices lack.
pub fn models(config: &Config, now: i64) -> Vec<Note> {
    let Ok(prices) = setup::prices(config) else { return Vec::new() };
    let mut notes: Vec<Note> = Vec::new();
    for (model, price) in &config.cost_tracking.pricing_overrides {
        for (rate, key) in [(&price.input, "inputPerMillion"), (&price.output, "outputPerMillion")] {
            if rate.is_none() {
                let path = format!("costTracking.pricingOverrides.{model}.{key}");
                let message = "it is missing: requests that need it get no cost; write the rate, 0 if it is free";
                notes.push(Note { path, ..Note::new(NoteLevel::Warn, message) });
            }
        }
    }
    for (provider, model, path) in named(config) {
        let Some(configured) = config.providers.iter().find(|p| p.name == provider && p.enabled) else { continue };
        if let Some(message) = of_model(&prices, billed_as(&prices, configured), model, now) {
            let note = Note { path, ..Note::new(NoteLevel::Warn, message) };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    notes
}

/// Under which name the prices of a provider are listed.
pub fn billed_as<'a>(prices: &'a PriceTable, provider: &ProviderConfig) -> &'a str {
    let host = provider.base_url.as_ref().map(|base| base.origin.host.as_str()).unwrap_or_default();
    let known = if provider.kind.name.ends_with("-compatible") { prices.provider_of_host(host) } else { None };
    known.unwrap_or(provider.kind.name)
}

/// Every model that is named, with its provider and its place.
fn named(config: &Config) -> Vec<(&str, &str, String)> {
    let mut all = Vec::new();
    for provider in &config.providers {
        let place = |key: &str| format!("providers.{}.{key}", provider.name);
        all.extend(provider.default_model.iter().map(|model| (&*provider.name, &**model, place("defaultModel"))));
        let aliases = provider.model_aliases.iter();
        all.extend(aliases.map(|(from, to)| (&*provider.name, &**to, place(&format!("modelAliases.{from}")))));
    }
    for (agent, target) in &config.routing.agent_rules {
        let model = target.model.iter();
        all.extend(model.map(|model| (&*target.provider, &**model, format!("routing.agentRules.{agent}"))));
    }
    for (at, rule) in config.routing.rules.iter().enumerate() {
        let place = format!("routing.rules[{at}].use");
        for choice in &rule.then.providers {
            let model = choice.model.as_ref().or(rule.then.model.as_ref());
            all.extend(model.map(|model| (&*choice.provider, &**model, place.clone())));
        }
    }
    all
}

/// What there is to say of one model of a provider whose prices are known.
fn of_model(prices: &PriceTable, provider: &str, model: &str, now: i64) -> Option<String> {
    let Some(found) = prices.find(provider, model) else {
        let is_listed = prices.list().iter().any(|row| row.provider == provider);
        return is_listed.then(|| {
            format!(
                "`{model}` is in no price list: its requests get no cost; check the name, or add it to \
                 `costTracking.pricingOverrides`"
            )
        });
    };
    let ends = found.price.ends.as_deref()?;
    let today = ledger::query::day(now, ledger::query::UTC);
    let instead = successor(prices, provider, model, &today).map_or(String::new(), |next| format!(": use `{next}`"));
    Some(match ends {
        "gone" => format!("`{model}` is retired{instead}"),
        date if date <= today.as_str() => format!("`{model}` was retired on {date}{instead}"),
        date if within_a_quarter(date, now) => format!("`{model}` will be retired on {date}{instead}"),
        _ => return None,
    })
}

/// Whether a day is at most 92 days away: earlier nobody wants to hear of it.
fn within_a_quarter(date: &str, now: i64) -> bool {
    date <= ledger::query::day(now + 92 * 86_400, ledger::query::UTC).as_str()
}

/// The newest model of the same family that stays.
fn successor<'a>(prices: &'a PriceTable, provider: &str, model: &str, today: &str) -> Option<&'a str> {
    let (family, version) = parts(model);
    let rows = prices.list().into_iter().filter(|row| row.provider == provider);
    let staying = rows.filter(|row| row.found.price.ends.as_deref().is_none_or(|ends| ends != "gone" && ends > today));
    let lasting = staying.filter(|row| row.found.price.ends.is_none());
    let candidates =
        lasting.map(|row| (parts(row.model), row.model)).filter(|((f, v), _)| *f == family && *v > version);
    candidates.max_by(|((_, one), _), ((_, other), _)| one.cmp(other)).map(|(_, model)| model)
}

/// The words of a model's name, sorted, and the numbers of its version; dates are neither.
fn parts(model: &str) -> (Vec<&str>, Vec<u32>) {
    let (mut words, mut version) = (Vec::new(), Vec::new());
    for part in model.split(['-', '@', '.']) {
        match part.parse::<u32>() {
            Ok(number) if part.len() < 4 => version.push(number),
            Ok(_) => {}
            Err(_) => words.push(part),
        }
    }
    words.sort_unstable();
    (words, version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Paths, parse};

    /// 2026-11-22.
    const NOW: i64 = 1_795_305_600;

    fn told(provider: &str) -> Vec<String> {
        let text = format!(r#"{{ "providers": {{ "anthropic": {provider} }} }}"#);
        let (config, _) = parse(&text, &Paths::default()).unwrap();
        models(&config, NOW).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_model_that_is_gone_is_told_with_day_and_successor() {
        assert_eq!(
            told(r#"{ "defaultModel": "claude-sonnet-4-20250514" }"#),
            [
                "providers.anthropic.defaultModel: `claude-sonnet-4-20250514` was retired on 2026-06-15: use `claude-sonnet-5-5`"
            ]
        );
        assert_eq!(
            told(r#"{ "modelAliases": { "old": "claude-3-5-haiku-20241022", "soon": "claude-sonnet-4-5-20250929" } }"#),
            [
                "providers.anthropic.modelAliases.old: `claude-3-5-haiku-20241022` is retired: use `claude-haiku-5-5`",
                "providers.anthropic.modelAliases.soon: `claude-sonnet-4-5-20250929` will be retired on 2026-11-30: use `claude-sonnet-5-5`"
            ]
        );
    }

    #[test]
    fn a_model_without_a_price_is_told_and_one_with_a_price_is_not() {
        assert!(told(r#"{ "defaultModel": "claude-haiku-4-20250514" }"#)[0].contains("is in no price list"));
        assert!(told(r#"{ "defaultModel": "claude-opus-5-5" }"#).is_empty());
        assert!(told("{}").is_empty(), "what is built in is up to date");
        assert!(told(r#"{ "defaultModel": "claude-sonnet-4-20250514", "enabled": false }"#).is_empty());
    }

    #[test]
    fn a_provider_without_known_prices_is_left_in_peace() {
        let text = r#"{ "providers": { "mine": {
            "providerType": "anthropic-compatible", "baseUrl": "http://127.0.0.1:1", "defaultModel": "whatever"
        } } }"#;
        let (config, _) = parse(text, &Paths::default()).unwrap();
        assert!(models(&config, NOW).is_empty());
    }
}
