//! What an exchange costs: every part exactly, in trillionths of a dollar, and the sum rounded once.

use std::fmt;
use std::sync::Arc;

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Serialize};
use wire::usage::{IterationKind, ServiceTier, Speed, Tokens, Usage};

use super::{Batch, Price, PriceTable, Rates, Tools};
use crate::money::{Factor, NanoUsd, PicoUsd, Rate};

/// What is to be priced.
#[derive(Debug, Clone, Copy)]
pub struct Billed<'a> {
    /// The provider that served, as price lists name it.
    pub provider: &'a str,
    /// The model that served.
    pub model: &'a str,
    /// When the request was made, in seconds since 1970.
    pub at: i64,
    /// What the provider reported.
    pub usage: &'a Usage,
    /// Output tokens by our own count, where no end of the answer was seen.
    pub estimated_output: Option<u64>,
    /// Whether a subscription pays, so that nobody is billed this amount.
    pub notional: bool,
}

/// What an exchange costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// The sum, rounded once.
    pub nano_usd: NanoUsd,
    /// Its parts.
    pub components: Components,
    /// The version of the prices.
    pub price_version: Arc<str>,
    /// What is to be known about the sum.
    pub flags: Flags,
}

/// The parts of a cost, each exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Components {
    /// Input that was not cached.
    pub input: PicoUsd,
    /// Input from the cache.
    pub cache_read: PicoUsd,
    /// Input into the cache.
    pub cache_write: PicoUsd,
    /// Output.
    pub output: PicoUsd,
    /// Requests of server tools.
    pub tools: PicoUsd,
    /// Turns that are billed beside the tokens of the exchange: summaries and advice.
    pub turns: PicoUsd,
}

impl Components {
    /// All of it.
    pub fn total(&self) -> PicoUsd {
        [self.input, self.cache_read, self.cache_write, self.output, self.tools, self.turns].into_iter().sum()
    }
}

/// What is to be known about a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct Flags {
    /// The end of the answer was not seen: the output is the larger of what was reported and what was estimated.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(0), skip_if = "is_false")]
    pub estimated: bool,
    /// A subscription pays: nobody is billed this amount.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(1), skip_if = "is_false")]
    pub notional: bool,
    /// A rate that was needed is not in the list, for example that of an unknown tier: the nearest one was taken.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(2), skip_if = "is_false")]
    pub rate_assumed: bool,
    /// Cache writes came without a lifetime: the cheapest one was taken.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(3), skip_if = "is_false")]
    pub ttl_assumed: bool,
    /// Something is not in the sum: a part of the usage that could not be read, or a tool whose price is not known.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(4), skip_if = "is_false")]
    pub incomplete: bool,
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl Flags {
    /// Whether there is nothing to be known.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the sum rests on something that was assumed.
    pub fn is_assumed(&self) -> bool {
        self.rate_assumed || self.ttl_assumed
    }

    /// What there is to be known, in words for a person.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let Self { estimated, notional, rate_assumed, ttl_assumed, incomplete } = *self;
        let said = [
            (estimated, "the end was not seen: the output is counted by us where that is more"),
            (notional, "a subscription pays: this is what it would have been"),
            (rate_assumed, "a rate that was needed is not in the list: the nearest one was taken"),
            (ttl_assumed, "cache writes came without a lifetime: the cheapest one was taken"),
            (incomplete, "something that was used is not in it"),
        ];
        said.into_iter().filter_map(|(holds, words)| holds.then_some(words))
    }
}

/// Why an exchange has no cost. It is never 0 for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unpriced {
    /// No list knows the model of the exchange, or that of one of its turns.
    UnknownModel,
    /// The list knows the model, and not the rate of something that was used.
    UnknownRate,
    /// The counts are too large to be believed, or what they would cost is.
    TooLarge,
    /// A newer version knows.
    #[serde(other)]
    Other,
}

impl Unpriced {
    /// As metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::UnknownRate => "unknown_rate",
            Self::TooLarge => "too_large",
            Self::Other => "other",
        }
    }

    /// From what [`as_str`](Self::as_str) gave, here or in a newer version.
    pub(crate) fn known(word: &str) -> Self {
        let all = [Self::UnknownModel, Self::UnknownRate, Self::TooLarge];
        all.into_iter().find(|why| why.as_str() == word).unwrap_or(Self::Other)
    }
}

impl<C> Encode<C> for Unpriced {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Unpriced {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Ok(Self::known(d.str()?))
    }
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownModel => "no price is known for this model: add it to `costTracking.pricingOverrides`",
            Self::UnknownRate => {
                "the price of this model lacks a rate that was needed: complete it in the configuration"
            }
            Self::TooLarge => "the reported counts are too large to be believed",
            Self::Other => "a newer version of cco knows why",
        })
    }
}

impl std::error::Error for Unpriced {}

/// What a cache write of an hour costs where a price says only what one of minutes does: that is what the lists say that
/// tell both.
const LONG_LIVED: Factor = Factor(1600);

impl PriceTable {
    /// What an exchange costs.
    pub fn cost(&self, billed: &Billed<'_>) -> Result<Cost, Unpriced> {
        let usage = billed.usage;
        let model = usage.fallback_model().unwrap_or(billed.model);
        let found = self.find(billed.provider, model).ok_or(Unpriced::UnknownModel)?;
        let mut flags = Flags {
            estimated: billed.estimated_output.is_some(),
            notional: billed.notional,
            ttl_assumed: usage.ttl_assumed,
            // What tools cost that no list knows is not known.
            incomplete: usage.incomplete || !usage.other_tools.is_empty(),
            rate_assumed: false,
        };
        let mut tokens = usage.tokens;
        tokens.output = tokens.output.max(billed.estimated_output.unwrap_or(0));
        let mut components = price_tokens(found.price, &tokens, billed, &mut flags)?;

        for turn in usage.iterations.iter().filter(|turn| turn.kind.is_extra()) {
            let price = match (&turn.kind, &turn.model) {
                (IterationKind::Advisor, None) => return Err(Unpriced::UnknownModel),
                (_, Some(model)) => self.find(billed.provider, model).ok_or(Unpriced::UnknownModel)?.price,
                (_, None) => found.price,
            };
            flags.ttl_assumed |= turn.ttl_assumed;
            let turn = price_tokens(price, &turn.tokens, billed, &mut flags)?;
            components.turns = components.turns + turn.total();
        }

        // Hardly any exchange has used one: their prices need not be looked up.
        let has_tools = usage.web_search > 0 || usage.web_fetch > 0;
        let tools = if has_tools { self.tools(billed.provider) } else { Tools::default() };
        for (requests, price) in [(usage.web_search, tools.web_search), (usage.web_fetch, tools.web_fetch)] {
            match price {
                Some(PicoUsd(each)) => {
                    components.tools = components.tools + PicoUsd(each.saturating_mul(requests.into()));
                }
                None => flags.incomplete |= requests > 0,
            }
        }
        let nano_usd = components.total().to_nano().ok_or(Unpriced::TooLarge)?;
        Ok(Cost { nano_usd, components, price_version: found.version.clone(), flags })
    }
}

fn price_tokens(
    price: &Price,
    tokens: &Tokens,
    billed: &Billed<'_>,
    flags: &mut Flags,
) -> Result<Components, Unpriced> {
    let row = row(price, tokens.prompt(), billed, flags);
    let factors = factors(price, billed.usage, flags);
    let written = tokens.cache_write;
    let mut assumed = false;
    let mut cost = |count: u64, rate: fn(&Rates) -> Option<Rate>, nearest: &dyn Fn() -> Option<Rate>| {
        if count == 0 {
            return Ok(PicoUsd(0));
        }
        assumed |= rate(&row.stated).is_none();
        let rate = rate(&row.rates).or_else(nearest).ok_or(Unpriced::UnknownRate)?;
        // Exact: it was tried when the price was read.
        let rate = factors.iter().try_fold(rate, |rate, factor| rate.scaled(*factor));
        Ok(rate.ok_or(Unpriced::UnknownRate)?.times(count))
    };
    // A cache that has no rate saves nothing and is not free; the dearest lifetime is the safe one.
    let input = || row.rates.input;
    let dearest = || row.rates.writes().into_iter().chain([row.rates.input]).flatten().max();
    let is_exact = |rate: &Rate| factors.iter().try_fold(*rate, |rate, factor| rate.scaled(*factor)).is_some();
    let long = || {
        let long = row.rates.cache_write_5m.and_then(|rate| rate.scaled(LONG_LIVED)).filter(is_exact);
        long.max(dearest())
    };
    let none = || None;
    let components = Components {
        input: cost(tokens.input, |rates| rates.input, &none)?,
        cache_read: cost(tokens.cache_read, |rates| rates.cache_read, &input)?,
        cache_write: [
            cost(written.m5, |rates| rates.cache_write_5m, &dearest)?,
            cost(written.m30, |rates| rates.cache_write_30m, &dearest)?,
            cost(written.h1, |rates| rates.cache_write_1h, &long)?,
            cost(written.h12, |rates| rates.cache_write_12h, &long)?,
        ]
        .into_iter()
        .sum(),
        output: cost(tokens.output, |rates| rates.output, &none)?,
        ..Components::default()
    };
    flags.rate_assumed |= assumed;
    Ok(components)
}

/// The rates that hold for a request.
struct Row {
    /// All rates, where the list has them.
    rates: Rates,
    /// The row that the list has for this very case. What it leaves out is taken from a more ordinary one.
    stated: Rates,
}

fn row(price: &Price, prompt: u64, billed: &Billed<'_>, flags: &mut Flags) -> Row {
    let base = price.rates;
    let tier = price.tiers.iter().rev().find(|tier| prompt > tier.above);
    let stated = match (tier, price.off_peak) {
        (Some(tier), _) => tier.rates,
        (None, Some(off_peak)) if price.week.contains(billed.at) => off_peak,
        (None, _) => base,
    };
    let ordinary = Row { rates: stated.or(base), stated };
    let short_only = |rates: Rates| {
        let stated = if tier.is_none() { rates } else { Rates::default() };
        Row { rates: rates.or(base), stated }
    };
    let special = match &billed.usage.service_tier {
        None | Some(ServiceTier::Standard) => return ordinary,
        Some(ServiceTier::Batch) => {
            let below = price.batch.filter(|batch| tier.is_none() || matches!(batch, Batch::Factor(_)));
            match tier.and_then(|tier| tier.batch).or(below) {
                Some(Batch::Rates(rates)) => return Row { rates: rates.or(ordinary.rates), stated: rates },
                Some(Batch::Factor(factor)) => ordinary.rates.scaled(factor).map(|rates| Row { rates, stated }),
                None => None,
            }
        }
        // No list says what these cost for long prompts: what they cost for short ones is taken.
        Some(ServiceTier::Priority) => price.priority.map(short_only),
        Some(ServiceTier::Flex) => price.flex.map(short_only),
        Some(ServiceTier::Other(name)) => {
            flags.rate_assumed |= !matches!(&**name, "default" | "auto" | "standard_only" | "on_demand");
            return ordinary;
        }
    };
    flags.rate_assumed |= special.is_none();
    special.unwrap_or(ordinary)
}

/// The factors of region and speed.
fn factors(price: &Price, usage: &Usage, flags: &mut Flags) -> [Factor; 2] {
    const ONE: Factor = Factor(1000);
    let region = match usage.region.as_deref() {
        None | Some("global" | "not_available" | "default") => ONE,
        Some(region) => match price.regions.iter().find(|(name, _)| **name == *region) {
            Some((_, factor)) => *factor,
            None => {
                // A price without any region is the same everywhere, as far as is known.
                flags.rate_assumed |= !price.regions.is_empty();
                ONE
            }
        },
    };
    let speed = match &usage.speed {
        None | Some(Speed::Standard) => ONE,
        Some(Speed::Fast) => price.fast.unwrap_or_else(|| {
            flags.rate_assumed = true;
            ONE
        }),
        Some(Speed::Other(_)) => {
            flags.rate_assumed = true;
            ONE
        }
    };
    [region, speed]
}
