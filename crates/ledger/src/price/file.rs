//! The price file: read strictly, so that a mistake in it is refused and never billed.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::row::{Batch, Layer, Price, Provider, Rates, Tier, Tools, WeekHours};
use crate::money::{Factor, PicoUsd, Rate, decimal};

/// The form of price file that is understood.
const SCHEMA: u32 = 1;
/// The dearest rate that is believed, in dollars for a million tokens.
const MAX_RATE: u64 = 1_000_000;
/// The longest version that is kept in records.
const MAX_VERSION: usize = 64;

/// Why prices are refused: where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceFileError(pub(super) String);

impl fmt::Display for PriceFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PriceFileError {}

/// An object whose names are free, each of them once.
struct Named<T>(Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name.is_empty() || !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!(
                            "`{name}` is empty or stands here twice: name each once"
                        )));
                    }
                    let value = map.next_value()?;
                    entries.push((name, value));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

/// Reads the text of a number with at most `places` decimals and at most `most`.
fn number<'de, D: Deserializer<'de>>(deserializer: D, places: u32, most: u64) -> Result<u64, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    match decimal(text, places) {
        Ok(units) if units <= most * 10_u64.pow(places) => Ok(units),
        Ok(_) => Err(D::Error::custom(format!("`{text}` is too large: write at most {most}"))),
        Err(bad) => Err(D::Error::custom(format!(
            "`{text}` is {bad}: write a plain number from 0 with at most {places} decimals"
        ))),
    }
}

struct RateText(Rate);

impl<'de> Deserialize<'de> for RateText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer, 6, MAX_RATE).map(|units| Self(Rate(units)))
    }
}

struct DollarsText(PicoUsd);

impl<'de> Deserialize<'de> for DollarsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number(deserializer, 9, 1000).map(|nanos| Self(PicoUsd(i128::from(nanos) * 1000)))
    }
}

struct FactorText(Factor);

impl<'de> Deserialize<'de> for FactorText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = number(deserializer, 3, 100)?;
        let factor = u32::try_from(units).ok().filter(|units| *units > 0);
        factor.map(|units| Self(Factor(units))).ok_or_else(|| D::Error::custom("a factor of 0 is no price"))
    }
}

/// Declares an object that has rates among its fields.
macro_rules! with_rates {
    ($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            input: Option<RateText>,
            output: Option<RateText>,
            cache_read: Option<RateText>,
            cache_write_5m: Option<RateText>,
            cache_write_30m: Option<RateText>,
            cache_write_1h: Option<RateText>,
            cache_write_12h: Option<RateText>,
            $($(#[$attribute])* $field: $type,)*
        }

        impl $name {
            fn rates(&self) -> Rates {
                let rate = |text: &Option<RateText>| text.as_ref().map(|RateText(rate)| *rate);
                Rates {
                    input: rate(&self.input),
                    output: rate(&self.output),
                    cache_read: rate(&self.cache_read),
                    cache_write_5m: rate(&self.cache_write_5m),
                    cache_write_30m: rate(&self.cache_write_30m),
                    cache_write_1h: rate(&self.cache_write_1h),
                    cache_write_12h: rate(&self.cache_write_12h),
                }
            }
        }
    };
}

with_rates!(RatesText {});

with_rates!(TierText {
    above: u64,
    batch: Option<FactorText>,
    batch_rates: Option<RatesText>,
});

with_rates!(RowText {
    batch: Option<FactorText>,
    batch_rates: Option<RatesText>,
    #[serde(default)]
    tiers: Vec<TierText>,
    priority: Option<RatesText>,
    flex: Option<RatesText>,
    off_peak: Option<RatesText>,
    #[serde(default)]
    regions: Named<FactorText>,
    fast: Option<FactorText>,
    #[serde(default)]
    also: Vec<String>,
    ends: Option<Box<str>>,
    note: Option<Box<str>>,
});

/// What one request of a server tool costs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolsText {
    web_search: Option<DollarsText>,
    web_fetch: Option<DollarsText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowText {
    /// 1 is Monday, 7 Sunday.
    days: Vec<u8>,
    hours: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderText {
    #[serde(default)]
    hosts: Vec<Box<str>>,
    #[serde(default)]
    prefixes: Vec<Box<str>>,
    tools: Option<ToolsText>,
    #[serde(default)]
    off_peak_utc: Vec<WindowText>,
    #[serde(default)]
    models: Named<RowText>,
    every_other: Option<RowText>,
    #[serde(default)]
    except_suffixes: Vec<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "`unit` and `sources` are for the reader of the file")]
struct FileText {
    schema: u32,
    version: String,
    unit: Option<String>,
    #[serde(default)]
    sources: Vec<String>,
    providers: Named<ProviderText>,
}

/// Reads a price file.
pub(super) fn read(text: &str) -> Result<Layer, PriceFileError> {
    let file: FileText = serde_json::from_str(text).map_err(|error| PriceFileError(error.to_string()))?;
    if file.schema != SCHEMA {
        return Err(PriceFileError(format!("`schema` is {}: this version reads {SCHEMA}", file.schema)));
    }
    if file.version.is_empty() || file.version.len() > MAX_VERSION || file.version.contains(char::is_control) {
        return Err(PriceFileError(format!("`version` is empty or longer than {MAX_VERSION} bytes: write a date")));
    }
    let mut layer = Layer { version: file.version.into(), providers: HashMap::new() };
    for (name, provider) in file.providers.0 {
        let provider =
            provider.build().map_err(|(path, what)| PriceFileError(format!("`providers.{name}.{path}`: {what}")))?;
        layer.providers.insert(name.into(), provider);
    }
    Ok(layer)
}

/// Where in a provider, and what is wrong there.
type Fault = (String, &'static str);

impl ProviderText {
    fn build(self) -> Result<Provider, Fault> {
        let week = WeekHours::new(&self.off_peak_utc).ok_or_else(|| {
            ("off_peak_utc".into(), "write days 1 to 7 and hours as `04:00-06:00`, not empty, not over midnight")
        })?;
        let week = Arc::new(week);
        let mut models: HashMap<Box<str>, Arc<Price>> = HashMap::new();
        for (id, row) in self.models.0 {
            let also = row.also.clone();
            let price = Arc::new(row.build(&week).map_err(|(path, what)| (format!("models.{id}{path}"), what))?);
            for name in std::iter::once(id.clone()).chain(also) {
                if name.is_empty() || models.insert(name.into(), price.clone()).is_some() {
                    return Err((
                        format!("models.{id}"),
                        "this model, or one in its `also`, has two prices: name each once",
                    ));
                }
            }
        }
        let tool = |text: Option<DollarsText>| text.map(|DollarsText(price)| price);
        let every_other = self.every_other.map(|row| row.build(&week)).transpose();
        let tools =
            self.tools.map(|tools| Tools { web_search: tool(tools.web_search), web_fetch: tool(tools.web_fetch) });
        Ok(Provider {
            hosts: self.hosts,
            prefixes: self.prefixes,
            tools,
            models,
            every_other: every_other.map_err(|(path, what)| (format!("every_other{path}"), what))?.map(Arc::new),
            except_suffixes: self.except_suffixes,
        })
    }
}

fn batch(factor: Option<FactorText>, rates: Option<&RatesText>) -> Result<Option<Batch>, Fault> {
    match (factor, rates) {
        (Some(_), Some(_)) => Err((".batch".into(), "write `batch` or `batch_rates`, not both")),
        (Some(FactorText(factor)), None) => Ok(Some(Batch::Factor(factor))),
        (None, Some(rates)) => Ok(Some(Batch::Rates(rates.rates()))),
        (None, None) => Ok(None),
    }
}

impl RowText {
    fn build(mut self, week: &Arc<WeekHours>) -> Result<Price, Fault> {
        let rates = self.rates();
        if rates.input.is_none() || rates.output.is_none() {
            return Err((String::new(), "`input` and `output` are both needed: write 0 for what is free"));
        }
        let batch_rates = batch(self.batch.take(), self.batch_rates.as_ref())?;
        let mut tiers = Vec::new();
        for tier in std::mem::take(&mut self.tiers) {
            let rates = tier.rates();
            let above = tier.above;
            tiers.push(Tier { above, rates, batch: batch(tier.batch, tier.batch_rates.as_ref())? });
        }
        if !tiers.is_sorted_by(|a, b| a.above < b.above) {
            return Err((".tiers".into(), "write each `above` once, the smallest first"));
        }
        let regions = std::mem::take(&mut self.regions.0);
        let part = |text: &Option<RatesText>| text.as_ref().map(RatesText::rates);
        if self.off_peak.is_some() && week.is_empty() {
            return Err((".off_peak".into(), "the provider has no `off_peak_utc` that says when"));
        }
        let price = Price {
            rates,
            batch: batch_rates,
            tiers,
            priority: part(&self.priority),
            flex: part(&self.flex),
            off_peak: part(&self.off_peak),
            week: week.clone(),
            regions: regions.into_iter().map(|(name, FactorText(factor))| (name.into(), factor)).collect(),
            fast: self.fast.map(|FactorText(factor)| factor),
            ends: self.ends,
            note: self.note,
        };
        if price.is_exact() {
            Ok(price)
        } else {
            Err((String::new(), "a rate times its factors is no whole millionth of a dollar for a million tokens"))
        }
    }
}

impl WeekHours {
    fn new(texts: &[WindowText]) -> Option<Self> {
        let clock = |text: &str| {
            let (hours, minutes) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            let at = hours * 60 + minutes;
            (minutes < 60 && at <= 24 * 60).then_some(at)
        };
        let mut windows = Vec::new();
        for text in texts {
            if text.days.is_empty() || text.hours.is_empty() {
                return None;
            }
            for day in &text.days {
                for hours in &text.hours {
                    let (from, to) = hours.split_once('-')?;
                    let (from, to) = (clock(from)?, clock(to)?);
                    if from >= to || !(1..=7).contains(day) {
                        return None;
                    }
                    windows.push((*day, from, to));
                }
            }
        }
        Some(Self(windows))
    }
}
