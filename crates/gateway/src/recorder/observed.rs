//! How long answers took and how many tokens they had since the start: histograms by provider and model.

use std::sync::{Mutex, PoisonError};

use foldhash::HashMap;
use ledger::record::{Operation, Outcome, Record};

/// Models of a provider that are told apart. Callers choose names: only answered ones get a place, others share [`OTHER`].
const MODELS: usize = 50;
/// The model that stands for all without a place.
pub const OTHER: &str = "other";

/// Until the whole answer was there, in microseconds: from 10 ms, each twice as long.
const DURATION: &[u64] = &[
    10_000,
    20_000,
    40_000,
    80_000,
    160_000,
    320_000,
    640_000,
    1_280_000,
    2_560_000,
    5_120_000,
    10_240_000,
    20_480_000,
    40_960_000,
    81_920_000,
    163_840_000,
    327_680_000,
];
/// Until the first token, in microseconds.
const FIRST_TOKEN: &[u64] = &[
    1000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000, 30_000_000, 60_000_000,
];
/// Tokens: each four times as many.
const TOKENS: &[u64] = &[1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304];

/// How many values were at most as large as each of some bounds.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last is for what is beyond them.
    counts: Box<[u64]>,
    /// All values together.
    pub sum: u64,
}

impl Histogram {
    fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    fn add(&mut self, value: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound, and how many values were at most as large.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut below = 0;
        self.bounds.iter().zip(&*self.counts).map(move |(bound, count)| {
            below += count;
            (*bound, below)
        })
    }
}

/// What was observed of one model of one provider.
#[derive(Debug, Clone)]
pub struct Series {
    /// How long answers took, by how they ended; in microseconds.
    pub duration: Vec<(Outcome, Histogram)>,
    /// How long the first token took, in microseconds.
    pub first_token: Histogram,
    /// Tokens of the prompt, cached ones included.
    pub input: Histogram,
    /// Tokens of the answer.
    pub output: Histogram,
}

impl Series {
    fn new() -> Self {
        let first_token = Histogram::new(FIRST_TOKEN);
        Self { duration: Vec::new(), first_token, input: Histogram::new(TOKENS), output: Histogram::new(TOKENS) }
    }

    fn add(&mut self, record: &Record) {
        if let Some(us) = record.duration_us {
            let at = self.duration.iter().position(|(outcome, _)| *outcome == record.outcome).unwrap_or_else(|| {
                self.duration.push((record.outcome, Histogram::new(DURATION)));
                self.duration.len() - 1
            });
            self.duration[at].1.add(us);
        }
        if let Some(us) = record.first_token_us {
            self.first_token.add(us);
        }
        if record.used().is_some() {
            let billed = record.billed();
            self.input.add(billed.prompt());
            self.output.add(billed.output);
        }
    }
}

/// By provider and model. The providers are those of the configuration.
type ByName = HashMap<Box<str>, HashMap<Box<str>, Series>>;

/// What was observed since the start.
#[derive(Debug, Default)]
pub struct Observed(Mutex<ByName>);

impl Observed {
    /// Takes note of an exchange that ended.
    pub(super) fn add(&self, record: &Record) {
        if record.operation != Operation::Generation {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let provider = record.parties.provider.as_deref().unwrap_or_default();
        let models = match all.get_mut(provider) {
            Some(models) => models,
            None => all.entry(provider.into()).or_default(),
        };
        let model = record.parties.model.as_deref().unwrap_or(OTHER);
        if let Some(series) = models.get_mut(model) {
            series.add(record);
            return;
        }
        let is_new = record.outcome == Outcome::Success && models.len() < MODELS;
        let model = if is_new { model } else { OTHER };
        models.entry(model.into()).or_insert_with(Series::new).add(record);
    }

    /// Everything, by provider and model, in the order of their names.
    pub fn all(&self) -> Vec<(Box<str>, Box<str>, Series)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().flat_map(|(provider, models)| {
            models.iter().map(move |(model, series)| (provider.clone(), model.clone(), series.clone()))
        });
        let mut each: Vec<_> = each.collect();
        each.sort_unstable_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        each
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample;

    fn record(model: &str, outcome: Outcome) -> Record {
        let mut record = sample::record(0);
        record.operation = Operation::Generation;
        record.parties.model = Some(model.into());
        record.outcome = outcome;
        (record.duration_us, record.first_token_us) = (Some(10_000), Some(10_001));
        record
    }

    #[test]
    fn a_value_counts_for_every_bound_that_is_not_below_it() {
        let mut histogram = Histogram::new(&[10, 20]);
        [10, 11, 21, 0].into_iter().for_each(|value| histogram.add(value));
        assert_eq!(histogram.up_to().collect::<Vec<_>>(), [(10, 2), (20, 3)]);
        assert_eq!((histogram.count(), histogram.sum), (4, 42));
    }

    #[test]
    fn names_that_callers_make_up_take_no_place() {
        let observed = Observed::default();
        for n in 0..200 {
            observed.add(&record(&format!("made-up-{n}"), Outcome::UpstreamError));
        }
        for n in 0..200 {
            observed.add(&record(&format!("model-{n}"), Outcome::Success));
        }
        observed.add(&record("model-7", Outcome::Timeout));
        let all = observed.all();
        assert_eq!(all.len(), MODELS);
        let of = |name: &str| all.iter().find(|(_, model, _)| &**model == name).map(|(.., series)| series).unwrap();
        assert!(of(OTHER).duration.iter().any(|(outcome, h)| (*outcome, h.count()) == (Outcome::UpstreamError, 200)));
        let seven: Vec<_> = of("model-7").duration.iter().map(|(outcome, h)| (*outcome, h.count())).collect();
        assert_eq!(seven, [(Outcome::Success, 1), (Outcome::Timeout, 1)]);
        let counted: u64 = all.iter().map(|(.., series)| series.first_token.count()).sum();
        assert_eq!(counted, 401);
    }

    #[test]
    fn what_is_no_generation_is_not_observed() {
        let observed = Observed::default();
        observed.add(&Record { operation: Operation::CountTokens, ..record("m", Outcome::Success) });
        assert!(observed.all().is_empty());
    }
}
