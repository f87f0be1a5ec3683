//! Prices: which one holds for a model of a provider, and what an exchange costs at it.
//!
//! Three layers are asked in turn: what the user's configuration says of a model, the user's price file, and the prices
//! that are built in. A model that none of them knows has no price; it never gets that of another.

mod cost;
mod file;
mod row;

use std::cell::LazyCell;
use std::sync::{Arc, LazyLock};

use foldhash::{HashMap, HashMapExt as _};

pub use self::cost::{Billed, Components, Cost, Flags, Unpriced};
pub use self::file::PriceFileError;
pub use self::row::{Batch, Price, Rates, Tier, Tools, WeekHours};
use self::row::{Layer, Provider};
use crate::money::{NanoUsd, Rate};

/// The provider in a price file that stands for every provider.
const EVERY: &str = "*";

static BUILT_IN: LazyLock<Layer> =
    LazyLock::new(|| file::read(include_str!("prices.json")).expect("a test reads the prices that are built in"));

/// What the configuration says of a model, in billionths of a dollar for a million tokens; `None`: not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Override {
    /// Input that was not cached.
    pub input: Option<NanoUsd>,
    /// Output.
    pub output: Option<NanoUsd>,
    /// Input that was written to the cache for a short time.
    pub cache_write: Option<NanoUsd>,
    /// Input that was read from the cache.
    pub cache_read: Option<NanoUsd>,
}

/// All prices that hold at one time. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceTable {
    /// What comes before the built-in prices, the first one first.
    layers: Arc<Vec<Layer>>,
}

/// A price, and where it is from.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The price.
    pub price: &'a Price,
    /// The version of the list that it is from.
    pub version: &'a Arc<str>,
}

/// One line of the list of prices.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The provider; `*`: every one.
    pub provider: &'a str,
    /// The model.
    pub model: &'a str,
    /// The price, and where it is from.
    pub found: Found<'a>,
}

impl PriceTable {
    /// The prices that are built in.
    pub fn built_in() -> Self {
        Self::default()
    }

    /// These prices, with those of a price file before the built-in ones. A file that is not right in every part is refused
    /// as a whole.
    pub fn load(text: &str) -> Result<Self, PriceFileError> {
        Self::built_in().with_file(text)
    }

    /// These prices, with those of a price file before all others.
    pub fn with_file(self, text: &str) -> Result<Self, PriceFileError> {
        let mut layer = file::read(text)?;
        layer.version = format!("file {}", layer.version).into();
        Ok(self.with_layer(layer))
    }

    /// Names of the list that is asked first which nothing can be found by: not those of hosts, not of the built-in list,
    /// and not `known` otherwise. In order.
    pub fn unused(&self, known: impl Fn(&str) -> bool) -> Vec<&str> {
        let providers = self.layers.first().map(|layer| &layer.providers).into_iter().flatten();
        let unused = providers.filter(|(name, provider)| {
            let is_built_in = ***name == *EVERY || BUILT_IN.providers.contains_key(*name);
            provider.hosts.is_empty() && !is_built_in && !known(name)
        });
        let mut names: Vec<&str> = unused.map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names
    }

    /// These prices, with those of the configuration before all others: they hold for every provider.
    pub fn with_overrides<'a>(
        self,
        overrides: impl IntoIterator<Item = (&'a str, Override)>,
    ) -> Result<Self, PriceFileError> {
        let (mut models, mut digest) = (HashMap::new(), Digest::default());
        for (model, prices) in overrides {
            let rate = |name: &str, nano: Option<NanoUsd>| match nano {
                // A billionth for a million tokens is a thousandth of the unit of a rate.
                Some(NanoUsd(nano)) => match u64::try_from(nano) {
                    Ok(nano) if nano.is_multiple_of(1000) => Ok(Some(Rate(nano / 1000))),
                    _ => Err(PriceFileError(format!(
                        "`{model}.{name}`: write dollars from 0 with at most 6 decimals, for a million tokens"
                    ))),
                },
                None => Ok(None),
            };
            let cache_write = rate("cacheWritePerMillion", prices.cache_write)?;
            let rates = Rates {
                input: rate("inputPerMillion", prices.input)?,
                output: rate("outputPerMillion", prices.output)?,
                cache_read: rate("cacheReadPerMillion", prices.cache_read)?,
                cache_write_5m: cache_write,
                cache_write_30m: cache_write,
                ..Rates::default()
            };
            digest.add(&format!("{model}={rates:?};"));
            models.insert(model.into(), Arc::new(Price { rates, ..Price::default() }));
        }
        if models.is_empty() {
            return Ok(self);
        }
        let provider = Provider { models, ..Provider::default() };
        let version = format!("configuration {:08x}", digest.0).into();
        Ok(self.with_layer(Layer { version, providers: std::iter::once((EVERY.into(), provider)).collect() }))
    }

    fn with_layer(self, layer: Layer) -> Self {
        let layers = std::iter::once(layer).chain(self.layers.iter().cloned()).collect();
        Self { layers: Arc::new(layers) }
    }

    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().chain([&*BUILT_IN])
    }

    /// The versions of all lists that are asked, the first one first.
    pub fn version(&self) -> String {
        self.layers().map(|layer| &*layer.version).collect::<Vec<_>>().join(", ")
    }

    /// A number that is the same for the same prices in every process, whatever their version is called.
    pub fn fingerprint(&self) -> u32 {
        let mut digest = Digest::default();
        for row in self.list() {
            digest.add(&format!("{row:?}{:?};", self.tools(row.provider)));
        }
        digest.0
    }

    /// The price of a model: by its exact name, else without the provider's prefix, else without `[1m]`, else without a
    /// date at its end.
    pub fn find(&self, provider: &str, model: &str) -> Option<Found<'_>> {
        // Most models are listed by their exact name.
        let shorter = LazyCell::new(|| self.shorter(provider, model));
        self.layers().find_map(|layer| {
            let price = [provider, EVERY].iter().find_map(|name| {
                let provider = layer.providers.get(*name)?;
                let models = &provider.models;
                let listed = models.get(model).or_else(|| shorter.iter().flatten().find_map(|name| models.get(*name)));
                listed.or_else(|| {
                    let except = provider.except_suffixes.iter().any(|suffix| model.ends_with(&**suffix));
                    provider.every_other.as_ref().filter(|_| !except)
                })
            })?;
            Some(Found { price, version: &layer.version })
        })
    }

    /// The names under which a model may be listed beside the exact one, each shorter than the one before.
    fn shorter<'a>(&self, provider: &str, model: &'a str) -> [Option<&'a str>; 3] {
        let mut providers = self.layers().filter_map(|layer| layer.providers.get(provider));
        let bare =
            providers.find_map(|provider| provider.prefixes.iter().find_map(|prefix| model.strip_prefix(&**prefix)));
        let short = bare.unwrap_or(model);
        let plain = short.strip_suffix("[1m]");
        let short = plain.unwrap_or(short);
        let dateless = without_date(short);
        [bare, plain, (dateless.len() < short.len()).then_some(dateless)]
    }

    /// What a request of the provider's server tools costs.
    pub fn tools(&self, provider: &str) -> Tools {
        self.layers().find_map(|layer| layer.providers.get(provider)?.tools).unwrap_or_default()
    }

    /// The provider whose prices hold at a host.
    pub fn provider_of_host(&self, host: &str) -> Option<&str> {
        self.layers().find_map(|layer| {
            let mut all = layer.providers.iter();
            all.find(|(_, provider)| provider.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
                .map(|(name, _)| &**name)
        })
    }

    /// All prices, sorted by provider and model; one that another layer hides is left out.
    pub fn list(&self) -> Vec<Listed<'_>> {
        let mut all: Vec<Listed<'_>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for layer in self.layers() {
            for (provider, prices) in &layer.providers {
                for (model, price) in &prices.models {
                    if seen.insert((&**provider, &**model)) {
                        let found = Found { price, version: &layer.version };
                        all.push(Listed { provider, model, found });
                    }
                }
            }
        }
        all.sort_by_key(|row| (row.provider, row.model));
        all
    }
}

/// The name without a date at its end: `-20250929`, `@20250929` or `-2025-09-29`.
fn without_date(name: &str) -> &str {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let date = |year: &str, month: &str, day: &str| {
        let within = |text: &str, most: u8| text.parse::<u8>().is_ok_and(|n| (1..=most).contains(&n));
        [year, month, day].iter().all(|part| digits(part))
            && year.starts_with("20")
            && within(month, 12)
            && within(day, 31)
    };
    let Some(cut) = name.len().checked_sub(9).filter(|cut| *cut > 0 && name.is_char_boundary(*cut)) else {
        return name;
    };
    let (head, tail) = name.split_at(cut);
    if tail.is_ascii() && tail.starts_with(['-', '@']) && date(&tail[1..5], &tail[5..7], &tail[7..9]) {
        return head;
    }
    let Some(cut) = name.len().checked_sub(11).filter(|cut| *cut > 0 && name.is_char_boundary(*cut)) else {
        return name;
    };
    let (head, tail) = name.split_at(cut);
    let dashes = tail.is_ascii() && tail.starts_with('-') && &tail[5..6] == "-" && &tail[8..9] == "-";
    if dashes && date(&tail[1..5], &tail[6..8], &tail[9..11]) { head } else { name }
}

/// FNV-1a: the same prices give the same version in every process.
struct Digest(u32);

impl Default for Digest {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Digest {
    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests;
