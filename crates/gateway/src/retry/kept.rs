//! Of several failed answers, the one that is most useful to the client.

use std::time::Duration;

use super::{Failure, Owner, Refused, Tried, UsedUp, Verdict};

/// A longer wait than this is no sensible thing to tell a client while another answer says a shorter one.
const SENSIBLE: Duration = Duration::from_secs(3600);

/// How much a failed answer says to the client; the greater, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Merit {
    /// Our own key, or our own money: nothing that a client should see as its own trouble.
    Ours,
    /// The model is not there.
    NotFound,
    /// There was no answer.
    NoAnswer,
    /// It broke.
    Broken,
    /// It is overloaded.
    Overloaded,
    /// It is asked too often; the longest sensible wait comes first, because the client should not come earlier.
    Limited(Duration),
    /// About the request itself: no other target would say better.
    Final,
}

impl Merit {
    /// Of a failed attempt that got this verdict.
    pub fn of(failure: &Failure, tried: &Tried, verdict: Verdict) -> Self {
        let (Failure::Refused(refused) | Failure::FirstEvent(refused)) = failure else { return Self::NoAnswer };
        match refused {
            refused if tried.owner == Owner::Ours && is_our_trouble(refused) => Self::Ours,
            _ if verdict == Verdict::GiveUp => Self::Final,
            Refused { status: 429, retry_after, .. } => {
                Self::Limited(retry_after.filter(|wait| *wait <= SENSIBLE).unwrap_or_default())
            }
            Refused { status: 503 | 529, .. } => Self::Overloaded,
            Refused { status: 404, .. } => Self::NotFound,
            _ => Self::Broken,
        }
    }
}

fn is_our_trouble(refused: &Refused) -> bool {
    refused.is_about_the_key() || refused.used_up == UsedUp::Money
}

/// The most useful failed answer so far, and whether repeating the request could help.
#[derive(Debug)]
pub struct Kept<T> {
    best: Option<(Merit, T)>,
    may_pass: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { best: None, may_pass: false }
    }
}

impl<T> Kept<T> {
    /// One more failed attempt; its answer is made only if it is the most useful one. Of equals the first stays: it is of
    /// the target that the client was meant to have.
    pub fn offer(&mut self, failure: &Failure, tried: &Tried, verdict: Verdict, answer: impl FnOnce() -> T) {
        self.may_pass |= passes(failure, tried);
        let merit = Merit::of(failure, tried, verdict);
        if self.best.as_ref().is_none_or(|(best, _)| merit > *best) {
            self.best = Some((merit, answer()));
        }
    }

    /// Whether an answer of this merit would be kept: what is to be kept must be read first.
    pub fn wants(&self, merit: Merit) -> bool {
        self.best.as_ref().is_none_or(|(best, _)| merit > *best)
    }

    /// Whether one of the failures could be over by itself; if none, the client is told not to repeat.
    pub fn may_pass(&self) -> bool {
        self.may_pass
    }

    /// The answer that the client gets. [`Merit::Ours`] must not reach it verbatim.
    pub fn take(self) -> Option<(Merit, T)> {
        self.best
    }
}

/// Whether the failure could be over by itself.
fn passes(failure: &Failure, tried: &Tried) -> bool {
    let (Failure::Refused(refused) | Failure::FirstEvent(refused)) = failure else { return true };
    match refused.status {
        _ if refused.should_retry.is_some() => refused.should_retry == Some(true),
        _ if refused.used_up == UsedUp::Money => false,
        // The caller may get itself another token; ours changes only when somebody does something.
        401 => tried.owner == Owner::Client,
        408 | 409 | 429 | 500.. => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::tests::{ours, refused, theirs, waits};
    use crate::retry::{Budget, judge};

    /// The place in the list of the answer that is handed on, and whether the client may repeat.
    #[track_caller]
    fn check(failures: &[(Failure, Tried)], want: (usize, bool)) {
        let mut kept = Kept::default();
        for (at, (failure, tried)) in failures.iter().enumerate() {
            let verdict = judge(failure, tried, &Budget::default(), 0);
            kept.offer(failure, tried, verdict, || at);
        }
        let may_pass = kept.may_pass();
        assert_eq!((kept.take().unwrap().1, may_pass), want, "{failures:?}");
    }

    #[test]
    fn the_client_gets_what_tells_it_most() {
        let (late, down) = (Failure::Late, Failure::Unreachable);
        let two = |a: Failure, b: Failure| [(a, ours()), (b, ours())];
        check(&two(refused(529), refused(500)), (0, true));
        check(&two(refused(500), refused(529)), (1, true));
        check(&two(refused(500), refused(502)), (0, true));
        check(&two(refused(529), refused(401)), (0, true));
        check(&two(refused(401), refused(404)), (1, false));
        check(&two(refused(404), down), (1, true));
        check(&two(down, refused(500)), (1, true));
        check(&two(late, down), (0, true));
        check(&two(refused(529), waits(429, 30)), (1, true));
        check(&two(waits(429, 30), waits(429, 60)), (1, true));
        check(&two(waits(429, 30), waits(429, 40_000)), (0, true));
        check(&two(refused(529), refused(400)), (1, true));
        check(&two(Failure::FirstEvent(Refused { status: 529, ..r(429) }), refused(500)), (0, true));
        check(&[(refused(401), theirs())], (0, true));
        check(&[(refused(403), theirs())], (0, false));
        check(&[(refused(403), ours())], (0, false));
    }

    #[test]
    fn money_that_is_gone_is_ours_to_know_or_the_clients() {
        let gone = Failure::Refused(Refused { used_up: UsedUp::Money, ..r(429) });
        check(&[(gone, ours()), (refused(404), ours())], (1, false));
        check(&[(gone, theirs())], (0, false));
        // The provider's words, and not ours: clients know what to do about it.
        let spent = Failure::Refused(Refused { used_up: UsedUp::Money, ..r(402) });
        check(&[(spent, ours()), (refused(529), ours())], (1, true));
        check(&[(spent, ours()), (spent, ours())], (0, false));
    }

    #[test]
    fn the_upstreams_own_word_on_repeating_counts() {
        let says = |status, should_retry| Failure::Refused(Refused { should_retry: Some(should_retry), ..r(status) });
        check(&[(says(529, false), ours())], (0, false));
        check(&[(says(400, true), ours())], (0, true));
        check(&[(says(529, false), ours()), (Failure::Unreachable, ours())], (0, true));
    }

    fn r(status: u16) -> Refused {
        Refused { status, retry_after: None, should_retry: None, used_up: UsedUp::Rate }
    }
}
