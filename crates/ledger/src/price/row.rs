//! What a price is made of: rates, and what changes them.

use std::sync::Arc;

use foldhash::HashMap;

use crate::money::{Factor, PicoUsd, Rate};

/// Rates by what a token was. In a row that stands for another, `None` means that the other one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of the counts in `Usage`")]
pub struct Rates {
    pub input: Option<Rate>,
    pub output: Option<Rate>,
    pub cache_read: Option<Rate>,
    pub cache_write_5m: Option<Rate>,
    pub cache_write_30m: Option<Rate>,
    pub cache_write_1h: Option<Rate>,
    pub cache_write_12h: Option<Rate>,
}

impl Rates {
    pub(super) fn writes(&self) -> [Option<Rate>; 4] {
        [self.cache_write_5m, self.cache_write_30m, self.cache_write_1h, self.cache_write_12h]
    }

    fn all(&self) -> impl Iterator<Item = Rate> {
        [self.input, self.output, self.cache_read].into_iter().chain(self.writes()).flatten()
    }

    /// These rates, and where there is none, those.
    pub(super) fn or(self, those: Self) -> Self {
        Self {
            input: self.input.or(those.input),
            output: self.output.or(those.output),
            cache_read: self.cache_read.or(those.cache_read),
            cache_write_5m: self.cache_write_5m.or(those.cache_write_5m),
            cache_write_30m: self.cache_write_30m.or(those.cache_write_30m),
            cache_write_1h: self.cache_write_1h.or(those.cache_write_1h),
            cache_write_12h: self.cache_write_12h.or(those.cache_write_12h),
        }
    }

    /// Every rate times a factor; `None` where one of them would not be exact.
    pub(super) fn scaled(&self, factor: Factor) -> Option<Self> {
        let scale = |rate: Option<Rate>| match rate {
            Some(rate) => rate.scaled(factor).map(Some),
            None => Some(None),
        };
        Some(Self {
            input: scale(self.input)?,
            output: scale(self.output)?,
            cache_read: scale(self.cache_read)?,
            cache_write_5m: scale(self.cache_write_5m)?,
            cache_write_30m: scale(self.cache_write_30m)?,
            cache_write_1h: scale(self.cache_write_1h)?,
            cache_write_12h: scale(self.cache_write_12h)?,
        })
    }
}

/// What a batch costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// A part of the ordinary rates.
    Factor(Factor),
    /// Rates of its own.
    Rates(Rates),
}

/// Rates for long prompts: they hold for every token of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Holds for prompts of more tokens than this.
    pub above: u64,
    /// The rates.
    pub rates: Rates,
    /// What a batch costs; `None`: as below the tier, where that is a factor.
    pub batch: Option<Batch>,
}

/// The price of one model of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Price {
    /// The ordinary rates.
    pub rates: Rates,
    /// What a batch costs.
    pub batch: Option<Batch>,
    /// Rates for long prompts, the smallest border first.
    pub tiers: Vec<Tier>,
    /// Rates of the tier `priority`.
    pub priority: Option<Rates>,
    /// Rates of the tier `flex`.
    pub flex: Option<Rates>,
    /// Rates of the hours in `week`.
    pub off_peak: Option<Rates>,
    /// When `off_peak` holds.
    pub week: Arc<WeekHours>,
    /// Factors by region.
    pub regions: Vec<(Box<str>, Factor)>,
    /// The factor of the fast mode.
    pub fast: Option<Factor>,
    /// When the provider stops to serve the model, in its words.
    pub ends: Option<Box<str>>,
    /// What is doubtful about this price.
    pub note: Option<Box<str>>,
}

impl Price {
    /// Whether every rate is exact after every factor that can be put on it.
    pub(super) fn is_exact(&self) -> bool {
        let mut rows = vec![self.rates];
        rows.extend(self.tiers.iter().map(|tier| tier.rates));
        rows.extend([self.priority, self.flex, self.off_peak].into_iter().flatten());
        let mut batches = Vec::new();
        for batch in self.tiers.iter().map(|tier| tier.batch).chain([self.batch]).flatten() {
            match batch {
                Batch::Rates(rates) => batches.push(Some(rates)),
                Batch::Factor(factor) => batches.extend(rows.iter().map(|row| row.scaled(factor))),
            }
        }
        rows.iter().copied().map(Some).chain(batches).all(|row| {
            let Some(row) = row else { return false };
            let regions = self.regions.iter().map(|(_, factor)| *factor).chain([Factor(1000)]);
            regions.flat_map(|region| [(region, self.fast), (region, None)]).all(|(region, fast)| {
                let row = row.scaled(region).and_then(|row| row.scaled(fast.unwrap_or(Factor(1000))));
                row.is_some()
            })
        })
    }

    /// Whether nothing is ever charged.
    pub fn is_free(&self) -> bool {
        let special = [self.priority, self.flex, self.off_peak].into_iter().flatten();
        let mut rows = self.tiers.iter().map(|tier| tier.rates).chain(special).chain([self.rates]);
        rows.all(|row| row.all().all(|rate| rate == Rate(0)))
    }
}

/// Hours of the week, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WeekHours(pub(super) Vec<(u8, u16, u16)>);

impl WeekHours {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a moment, in seconds since 1970, is within. A window holds its first minute and not its last.
    pub fn contains(&self, at: i64) -> bool {
        let (days, seconds) = (at.div_euclid(86_400), at.rem_euclid(86_400));
        // The first of January 1970 was a Thursday, day 4 of its week.
        let weekday = (days + 3).rem_euclid(7) + 1;
        let minute = seconds / 60;
        self.0
            .iter()
            .any(|(day, from, to)| i64::from(*day) == weekday && (i64::from(*from)..i64::from(*to)).contains(&minute))
    }
}

/// What one request of a server tool costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the names are those of the counts in `Usage`")]
pub struct Tools {
    pub web_search: Option<PicoUsd>,
    pub web_fetch: Option<PicoUsd>,
}

/// The prices of one provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Provider {
    pub(super) hosts: Vec<Box<str>>,
    /// What may stand before its models' names.
    pub(super) prefixes: Vec<Box<str>>,
    pub(super) tools: Option<Tools>,
    pub(super) models: HashMap<Box<str>, Arc<Price>>,
    /// Of models that are not listed.
    pub(super) every_other: Option<Arc<Price>>,
    pub(super) except_suffixes: Vec<Box<str>>,
}

/// Prices from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) version: Arc<str>,
    pub(super) providers: HashMap<Box<str>, Provider>,
}
