//! How much may still be asked, from the last head that said so: a bucket that fills steadily.

use std::time::Duration;

use super::{Prompt, Time};
use crate::signals::{Quota, Signals};

/// Limits are by the minute, where a head does not tell how fast a bucket fills.
const MINUTE_MS: f64 = 60_000.0;

/// A rate limit as it was last told, less what was asked since.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    limit: f64,
    level: f64,
    told: Time,
    per_ms: f64,
}

impl Bucket {
    /// `None`: a limit of nothing says nothing.
    fn of(quota: Quota, now: Time) -> Option<Self> {
        let (limit, level) = (quota.limit as f64, quota.remaining as f64);
        let span = quota.full_in.as_millis() as f64;
        let bucket = match limit - level {
            _ if limit == 0.0 => return None,
            missing if missing > 0.0 && span > 0.0 => Self { limit, level, told: now, per_ms: missing / span },
            _ => Self { limit, level: limit, told: now, per_ms: limit / MINUTE_MS },
        };
        Some(bucket)
    }

    /// What it holds at this time.
    fn level(&self, now: Time) -> f64 {
        (self.level + now.since(self.told) as f64 * self.per_ms).min(self.limit)
    }

    /// When it will hold as much as is needed, unless it does; a need beyond its size is met when it is full. What it was
    /// told last may be later than now: threads read the clock before they come here.
    fn holds(&self, need: u64) -> Option<Time> {
        let missing = (need as f64).min(self.limit) - self.level;
        (missing > 0.0).then(|| self.told + Duration::from_millis((missing / self.per_ms).ceil() as u64))
    }

    fn take(&mut self, amount: u64, now: Time) {
        (self.level, self.told) = ((self.level(now) - amount as f64).max(0.0), now);
    }
}

/// The rate limits of one key for one model.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quotas {
    requests: Option<Bucket>,
    /// Of any sort, of input, of output.
    tokens: [Option<Bucket>; 3],
}

impl Quotas {
    /// Takes over what a head said; what it did not speak of stays.
    pub(super) fn heed(&mut self, signals: &Signals, now: Time) {
        let take = |bucket: &mut Option<Bucket>, quota: Option<Quota>| {
            if let Some(quota) = quota {
                *bucket = Bucket::of(quota, now);
            }
        };
        take(&mut self.requests, signals.requests);
        for (bucket, quota) in self.tokens.iter_mut().zip(signals.tokens) {
            take(bucket, quota);
        }
    }

    /// When a request of this size is within all limits; `None`: it is now.
    pub(super) fn short_until(&self, prompt: impl Prompt, now: Time) -> Option<Time> {
        let [any, input, output] = &self.tokens;
        let of_prompt = any.iter().chain(input).filter_map(|bucket| bucket.holds(prompt.tokens()));
        let of_one = self.requests.iter().chain(output).filter_map(|bucket| bucket.holds(1));
        of_one.chain(of_prompt).max().filter(|until| *until > now)
    }

    /// Counts a request that is about to be sent.
    pub(super) fn take(&mut self, prompt: impl Prompt, now: Time) {
        if let Some(bucket) = &mut self.requests {
            bucket.take(1, now);
        }
        for bucket in self.tokens[..2].iter_mut().flatten() {
            bucket.take(prompt.tokens(), now);
        }
    }

    /// What is left of the scarcest limit, in thousandths of it; `None`: nothing is known.
    pub(super) fn left(&self, now: Time) -> Option<u32> {
        let all = self.requests.iter().chain(self.tokens.iter().flatten());
        all.map(|bucket| (bucket.level(now) / bucket.limit * 1e3) as u32).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_ms(seconds * 1000)
    }

    fn quota(limit: u64, remaining: u64, seconds: u64) -> Option<Quota> {
        Some(Quota { limit, remaining, full_in: Duration::from_secs(seconds) })
    }

    fn told(requests: Option<Quota>, input: Option<Quota>) -> Quotas {
        let mut quotas = Quotas::default();
        quotas.heed(&Signals { requests, tokens: [None, input, None], ..Signals::default() }, at(100));
        quotas
    }

    #[test]
    fn a_request_waits_until_the_bucket_holds_enough_for_it() {
        let none_left = told(quota(60, 0, 60), None);
        assert_eq!(none_left.short_until(1, at(100)), Some(at(101)), "one a second comes back");
        assert_eq!(none_left.short_until(1, at(101)), None);
        let few = told(None, quota(100_000, 20_000, 80));
        assert_eq!(few.short_until(20_000, at(100)), None);
        assert_eq!(few.short_until(20_000, at(99)), None, "another thread's clock was ahead when it was told");
        assert_eq!(few.short_until(50_000, at(100)), Some(at(130)));
        assert_eq!(few.short_until(900_000, at(100)), Some(at(180)), "more than it ever holds");
        assert_eq!(Quotas::default().short_until(1 << 40, at(0)), None, "nothing is known");
        assert_eq!(told(quota(50, 50, 0), None).short_until(1, at(100)), None);
        assert_eq!(told(quota(0, 0, 5), None).short_until(1, at(100)), None, "a limit of nothing is no limit");
    }

    #[test]
    fn what_is_asked_counts_before_the_answer_says_so() {
        let mut quotas = told(quota(60, 2, 58), quota(10_000, 10_000, 0));
        for _ in 0..2 {
            assert_eq!(quotas.short_until(1000, at(100)), None);
            quotas.take(1000, at(100));
        }
        assert!(quotas.short_until(1000, at(100)).is_some());
        assert_eq!(quotas.left(at(100)), Some(0));
        assert_eq!(quotas.short_until(1000, at(101)), None, "one a second comes back");
        assert_eq!(quotas.left(at(200)), Some(1000));
        quotas.take(5000, at(200));
        assert_eq!(quotas.short_until(6000, at(200)), Some(at(206)), "a full bucket fills within a minute");
    }
}
