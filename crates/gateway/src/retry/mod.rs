//! From what an attempt came to, to what follows: the same target again, the next one, or the end. Chance is passed in,
//! and time is not needed.
//!
//! Most clients repeat by themselves, so what is spent here goes into another target, not into more of the same.

mod budget;
mod failure;
mod kept;

use std::time::Duration;

use http1::RequestHead;

pub use budget::Budget;
pub use failure::{Failure, Refused, UsedUp};
pub use kept::{Kept, Merit};

/// An upstream that says to come again within this time is waited for; for a longer one the next target is better.
pub const QUICK: Duration = Duration::from_secs(2);
/// The first wait after a failed connection; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait for a connection is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Whose credential an attempt spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The caller's own.
    Client,
    /// One of ours, or none.
    Ours,
}

/// The attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Whose credential it spent.
    pub owner: Owner,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Whether the request is at hand and may be sent again.
    pub repeatable: bool,
    /// How often this target was tried again before.
    pub again: u32,
    /// How often it may be; see [`same_target_limit`].
    pub limit: u32,
    /// Whether another provider takes over when the client's subscription is used up.
    pub replaces_subscription: bool,
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same target after this wait. The budget has paid for it.
    Again(Duration),
    /// The next target, if there is one.
    Next,
    /// Nothing: this answer is the client's.
    GiveUp,
}

/// How often one target may be tried again for this client: `maxRetries`, and at most once where the client repeats by
/// itself.
pub fn same_target_limit(head: &RequestHead, max_retries: u32) -> u32 {
    let agent = head.get("user-agent").unwrap_or_default();
    let names = |word: &[u8]| agent.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    let repeats = names(b"claude-cli")
        || names(b"codex")
        || head.fields().any(|field| field.name.len() > 12 && field.name[..12].eq_ignore_ascii_case(b"x-stainless-"));
    if repeats { max_retries.min(1) } else { max_retries }
}

/// Judges a failed attempt whose answer the client has not begun to get.
pub fn judge(failure: &Failure, tried: &Tried, budget: &Budget, chance: u64) -> Verdict {
    let again = |wait: Duration| {
        if tried.again < tried.limit && budget.withdraw() { Verdict::Again(wait) } else { Verdict::Next }
    };
    match failure {
        // Nothing was sent: any request may go again.
        Failure::Unreachable => again(full_jitter(tried.again, chance)),
        _ if !tried.repeatable => Verdict::GiveUp,
        // An answer that is not streamed may be under way: to ask again is to pay twice.
        Failure::Late if !tried.stream => Verdict::GiveUp,
        Failure::Late | Failure::Broken | Failure::Empty => Verdict::Next,
        Failure::Refused(refused) | Failure::FirstEvent(refused) => match (refused.status, refused.used_up) {
            // The caller's own key and the caller's own money are the caller's own matter.
            (401 | 403, _) | (_, UsedUp::Money) if tried.owner == Owner::Client => Verdict::GiveUp,
            (_, UsedUp::Money) => Verdict::Next,
            (401 | 403 | 404, _) => Verdict::Next,
            (429, UsedUp::Subscription(_)) if tried.owner == Owner::Client && !tried.replaces_subscription => {
                Verdict::GiveUp
            }
            (429, UsedUp::Subscription(_)) => Verdict::Next,
            (429 | 503 | 529, _) if refused.should_retry != Some(false) => match refused.retry_after {
                Some(wait) if wait <= QUICK => again(wait + spread(wait, chance)),
                _ => Verdict::Next,
            },
            (429 | 500.., _) => Verdict::Next,
            _ => Verdict::GiveUp,
        },
    }
}

/// Anything from nothing to twice as much as the last time.
fn full_jitter(again: u32, chance: u64) -> Duration {
    fraction(FIRST_WAIT.saturating_mul(1 << again.min(10)).min(LONGEST_WAIT), chance)
}

/// Up to a tenth more, so that not all who were sent away come back in the same moment.
fn spread(wait: Duration, chance: u64) -> Duration {
    fraction((wait / 10).max(Duration::from_millis(20)), chance)
}

fn fraction(whole: Duration, chance: u64) -> Duration {
    whole.mul_f64((chance >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    pub(super) fn ours() -> Tried {
        Tried { owner: Owner::Ours, stream: true, repeatable: true, again: 0, limit: 1, replaces_subscription: false }
    }

    pub(super) fn theirs() -> Tried {
        Tried { owner: Owner::Client, ..ours() }
    }

    pub(super) fn refused(status: u16) -> Failure {
        Failure::Refused(Refused { status, retry_after: None, should_retry: None, used_up: UsedUp::Rate })
    }

    pub(super) fn waits(status: u16, seconds: u64) -> Failure {
        let retry_after = Some(Duration::from_secs(seconds));
        Failure::Refused(Refused { status, retry_after, should_retry: None, used_up: UsedUp::Rate })
    }

    fn used_up(used_up: UsedUp) -> Failure {
        Failure::Refused(Refused { status: 429, retry_after: None, should_retry: None, used_up })
    }

    /// The money is gone, said with this status.
    fn spent(status: u16) -> Failure {
        Failure::Refused(Refused { status, retry_after: None, should_retry: None, used_up: UsedUp::Money })
    }

    #[derive(Debug, PartialEq)]
    enum Want {
        Again,
        Next,
        GiveUp,
    }
    use Want::{Again, GiveUp, Next};

    #[track_caller]
    fn check(failure: Failure, tried: Tried, want: Want) {
        let got = match judge(&failure, &tried, &Budget::default(), u64::MAX) {
            Verdict::Again(_) => Again,
            Verdict::Next => Next,
            Verdict::GiveUp => GiveUp,
        };
        assert_eq!(got, want, "{failure:?} {tried:?}");
    }

    #[test]
    fn every_failure_leads_where_another_try_can_help() {
        for (failure, want) in [
            (Failure::Unreachable, Again),
            (Failure::Late, Next),
            (Failure::Broken, Next),
            (Failure::Empty, Next),
            (refused(400), GiveUp),
            (refused(401), Next),
            (refused(402), GiveUp),
            (refused(403), Next),
            (refused(404), Next),
            (refused(408), GiveUp),
            (refused(409), GiveUp),
            (refused(413), GiveUp),
            (refused(422), GiveUp),
            (refused(429), Next),
            (refused(500), Next),
            (refused(502), Next),
            (refused(503), Next),
            (refused(504), Next),
            (refused(524), Next),
            (refused(529), Next),
            (waits(429, 0), Again),
            (waits(429, 2), Again),
            (waits(429, 3), Next),
            (waits(503, 1), Again),
            (waits(529, 1), Again),
            (waits(500, 1), Next),
            (waits(400, 1), GiveUp),
            (spent(400), Next),
            (spent(402), Next),
            (spent(429), Next),
            (used_up(UsedUp::Subscription(None)), Next),
        ] {
            check(failure, ours(), want);
        }
    }

    #[test]
    fn a_stream_that_begins_with_an_error_is_judged_as_its_status() {
        for status in [400, 401, 404, 429, 500, 529] {
            let Failure::Refused(inner) = refused(status) else { unreachable!() };
            let as_event = judge(&Failure::FirstEvent(inner), &ours(), &Budget::default(), 0);
            assert_eq!(as_event, judge(&refused(status), &ours(), &Budget::default(), 0), "{status}");
        }
    }

    #[test]
    fn the_clients_own_key_is_the_clients_own_matter() {
        check(refused(401), theirs(), GiveUp);
        check(refused(403), theirs(), GiveUp);
        check(refused(404), theirs(), Next);
        check(refused(529), theirs(), Next);
        for status in [400, 402, 429] {
            check(spent(status), theirs(), GiveUp);
        }
        check(used_up(UsedUp::Subscription(None)), theirs(), GiveUp);
        check(used_up(UsedUp::Subscription(None)), Tried { replaces_subscription: true, ..theirs() }, Next);
    }

    #[test]
    fn what_is_not_streamed_is_not_paid_twice() {
        let whole = Tried { stream: false, ..ours() };
        check(Failure::Late, whole, GiveUp);
        check(refused(500), whole, Next);
        check(Failure::Broken, whole, Next);
        check(Failure::Unreachable, whole, Again);
    }

    #[test]
    fn a_body_that_is_gone_goes_nowhere_unless_none_of_it_was_sent() {
        let gone = Tried { repeatable: false, ..ours() };
        check(refused(500), gone, GiveUp);
        check(waits(429, 1), gone, GiveUp);
        check(Failure::Broken, gone, GiveUp);
        check(Failure::Unreachable, gone, Again);
    }

    #[test]
    fn the_same_target_is_tried_within_its_limit_and_the_budget() {
        check(Failure::Unreachable, Tried { again: 1, ..ours() }, Next);
        check(Failure::Unreachable, Tried { again: 1, limit: 2, ..ours() }, Again);
        check(waits(429, 1), Tried { limit: 0, ..ours() }, Next);
        let budget = Budget::default();
        while budget.withdraw() {}
        assert_eq!(judge(&Failure::Unreachable, &ours(), &budget, 0), Verdict::Next);
        let untouched = Budget::default();
        let _ = judge(&refused(500), &ours(), &untouched, 0);
        let _ = judge(&Failure::Unreachable, &Tried { limit: 0, ..ours() }, &untouched, 0);
        assert_eq!(untouched.left(), Budget::default().left(), "only another try is paid for");
    }

    #[test]
    fn an_upstream_that_says_not_to_come_again_is_not_asked_again() {
        let Failure::Refused(inner) = waits(529, 1) else { unreachable!() };
        check(Failure::Refused(Refused { should_retry: Some(false), ..inner }), ours(), Next);
        check(Failure::Refused(Refused { should_retry: Some(true), ..inner }), ours(), Again);
    }

    #[test]
    fn waits_are_as_long_as_asked_and_otherwise_up_to_chance() {
        let wait = |failure, again, chance| match judge(
            &failure,
            &Tried { again, limit: 99, ..ours() },
            &Budget::default(),
            chance,
        ) {
            Verdict::Again(wait) => wait.as_millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(waits(429, 2), 0, 0), 2000);
        assert_eq!(wait(waits(429, 2), 0, u64::MAX), 2200);
        assert_eq!(wait(waits(429, 0), 0, u64::MAX), 20);
        assert_eq!(wait(Failure::Unreachable, 0, 0), 0);
        assert_eq!(wait(Failure::Unreachable, 0, u64::MAX), 100);
        assert_eq!(wait(Failure::Unreachable, 3, u64::MAX), 800);
        assert_eq!(wait(Failure::Unreachable, 90, u64::MAX / 2 + 1), 1000);
    }

    #[test]
    fn a_client_that_repeats_by_itself_gets_one_more_try_at_most() {
        let limit = |fields: &str| {
            let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
            same_target_limit(&head.unwrap().unwrap(), 3)
        };
        for repeats in [
            "User-Agent: claude-cli/2.1.330 (external, sdk-cli)\r\n",
            "user-agent: codex_cli_rs/0.169.0\r\n",
            "X-Stainless-Lang: js\r\n",
        ] {
            assert_eq!(limit(repeats), 1, "{repeats}");
        }
        for plain in ["", "user-agent: curl/8\r\n", "x-stainless: no\r\n"] {
            assert_eq!(limit(plain), 3, "{plain}");
        }
    }
}
