//! What a request came to, as far as the health of its target is concerned.

use std::fmt;
use std::time::Duration;

use super::circuit::Verdict;
use crate::retry::{Failure, Owner, QUICK, Refused, UsedUp};

/// An answer whose first event takes longer counts as slow.
const SLOW: Duration = Duration::from_secs(30);
/// The longest that an overload is believed to last.
const LONGEST_OVERLOAD: Duration = Duration::from_secs(600);
/// The longest that a rate limit is believed to last; a subscription's window can be as long as it likes.
const LONGEST_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A good answer, whose first event (or head, where it does not stream) took this long.
    Good {
        /// From the last byte of the request to the first event of a stream.
        first: Option<Duration>,
    },
    /// It had not begun when another target, which was asked later, had.
    Overtaken,
    /// An answer that speaks of the request, not of its target.
    Answered,
    /// The target failed.
    Failed(Why),
    /// Our key was not accepted, or nothing can be bought with it: no model is to be asked for with it.
    KeyRefused(Why),
    /// It is not to be asked again for this time.
    Limited(Option<Duration>, Why),
}

/// Why a target is avoided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// No connection.
    Unreachable,
    /// The head did not come in time.
    Late,
    /// The connection or the stream ended too early.
    Broken,
    /// It answered with this status.
    Status(u16),
    /// It was slow.
    Slow,
    /// Its money is gone.
    Money,
    /// Its subscription is used up.
    Subscription,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("it could not be reached"),
            Self::Late => f.write_str("it did not answer in time"),
            Self::Broken => f.write_str("its answer broke off"),
            Self::Status(401) => f.write_str("it does not accept the key (401)"),
            Self::Status(429) => f.write_str("it was asked too often (429)"),
            Self::Status(status) => write!(f, "it answered with status {status}"),
            Self::Slow => f.write_str("it was slow to answer"),
            Self::Money => f.write_str("its account has no money left"),
            Self::Subscription => f.write_str("its subscription is used up"),
        }
    }
}

impl Outcome {
    /// Of a failed attempt.
    pub fn of(failure: &Failure, owner: Owner) -> Self {
        match failure {
            Failure::Unreachable => Self::Failed(Why::Unreachable),
            Failure::Late => Self::Failed(Why::Late),
            Failure::Broken | Failure::Empty => Self::Failed(Why::Broken),
            Failure::Refused(refused) | Failure::FirstEvent(refused) => Self::refused(refused, owner),
        }
    }

    fn refused(refused: &Refused, owner: Owner) -> Self {
        let why = Why::Status(refused.status);
        let waits = |longest: Duration| refused.retry_after.map(|wait| wait.min(longest));
        match (refused.status, refused.used_up) {
            // What one caller's key may not do says nothing about another's.
            (401 | 403 | 429, _) | (_, UsedUp::Money) if owner == Owner::Client => Self::Answered,
            (_, UsedUp::Money) => Self::KeyRefused(Why::Money),
            (401, _) => Self::KeyRefused(why),
            (_, UsedUp::Subscription(until)) => Self::Limited(until.or(waits(LONGEST_LIMIT)), Why::Subscription),
            (429 | 503 | 529, _) if refused.retry_after.is_some_and(|wait| wait <= QUICK) => Self::Failed(why),
            (429, _) => Self::Limited(waits(LONGEST_LIMIT), why),
            (503 | 529, _) if refused.retry_after.is_some() => Self::Limited(waits(LONGEST_OVERLOAD), why),
            (403 | 404 | 500.., _) => Self::Failed(why),
            _ => Self::Answered,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Good { first: Some(first) } if first > SLOW => Verdict::Slow,
            Self::Overtaken => Verdict::Slow,
            Self::Good { .. } | Self::Answered | Self::KeyRefused(_) => Verdict::Good,
            Self::Failed(why) => Verdict::Failed(why),
            Self::Limited(wait, why) => Verdict::Limited(wait, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, wait: Option<u64>, used_up: UsedUp, ours: Outcome, clients: Outcome) {
        let refused = Refused { status, retry_after: wait.map(Duration::from_secs), should_retry: None, used_up };
        for failure in [Failure::Refused(refused), Failure::FirstEvent(refused)] {
            assert_eq!(Outcome::of(&failure, Owner::Ours), ours, "{failure:?}");
            assert_eq!(Outcome::of(&failure, Owner::Client), clients, "{failure:?}");
        }
    }

    #[test]
    fn every_refusal_counts_for_what_it_says_of_the_target() {
        use Outcome::{Answered, Failed, KeyRefused, Limited};
        let failed = |status| Failed(Why::Status(status));
        let limited = |seconds: u64, status| Limited(Some(Duration::from_secs(seconds)), Why::Status(status));
        let rate = UsedUp::Rate;
        for status in [400, 408, 409, 413, 422] {
            check(status, None, rate, Answered, Answered);
        }
        check(401, None, rate, KeyRefused(Why::Status(401)), Answered);
        check(403, None, rate, failed(403), Answered);
        check(404, None, rate, failed(404), failed(404));
        for status in [500, 502, 503, 504, 524, 529] {
            check(status, None, rate, failed(status), failed(status));
        }
        check(500, Some(60), rate, failed(500), failed(500));
        check(529, Some(2), rate, failed(529), failed(529));
        check(529, Some(60), rate, limited(60, 529), limited(60, 529));
        check(503, Some(86_400), rate, limited(600, 503), limited(600, 503));
        check(429, None, rate, Limited(None, Why::Status(429)), Answered);
        check(429, Some(1), rate, failed(429), Answered);
        check(429, Some(30), rate, limited(30, 429), Answered);
        check(429, Some(1 << 20), rate, limited(6 * 3600, 429), Answered);
        for status in [400, 402, 429] {
            check(status, None, UsedUp::Money, KeyRefused(Why::Money), Answered);
        }
        let week = Duration::from_secs(7 * 86_400);
        check(429, Some(9), UsedUp::Subscription(Some(week)), Limited(Some(week), Why::Subscription), Answered);
    }
}
