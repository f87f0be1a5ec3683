//! What an attempt came to that did not come to a good answer.

use std::time::Duration;

use wire::error::{ApiError, ErrorKind};
use wire::refusal;

use crate::signals::Signals;

/// Why an attempt has no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or none that TLS accepts: nothing was sent.
    Unreachable,
    /// The head of the answer did not come in time.
    Late,
    /// The connection ended before the head was there, or the head could not be read.
    Broken,
    /// An answer that says no.
    Refused(Refused),
    /// A stream that was accepted and begins with an error.
    FirstEvent(Refused),
    /// A stream that was accepted and ended before its first event.
    Empty,
}

/// An answer that says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The status; where the body names a kind of error that has a status of its own, that one.
    pub status: u16,
    /// When to come again, if it says so.
    pub retry_after: Option<Duration>,
    /// Whether to come again at all, if it says so.
    pub should_retry: Option<bool>,
    /// What is used up, if anything.
    pub used_up: UsedUp,
}

/// What a refusal says is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsedUp {
    /// Nothing, or a rate that comes back by itself.
    #[default]
    Rate,
    /// Money: waiting does not help.
    Money,
    /// A subscription's window, until then.
    Subscription(Option<Duration>),
}

impl Refused {
    /// From the status, what the head signalled, and the body as far as it is known.
    pub fn of(status: u16, signals: &Signals, body: &[u8]) -> Self {
        let said = refusal::read(status, body);
        let status = match said.kind {
            // Some upstreams word an overload under another status, and clients go by the word.
            ErrorKind::Overloaded => 529,
            ErrorKind::RateLimit | ErrorKind::Quota if status == 500 => 429,
            // It is what was asked that is forbidden, not who asks.
            ErrorKind::InvalidRequest if status == 403 => 400,
            _ => status,
        };
        Self::said(status, signals, &said)
    }

    /// From the data of an `error` event, which has no status: the one that its kind stands for.
    pub fn of_event(data: &[u8], signals: &Signals) -> Self {
        Self::of_error(&refusal::within(std::str::from_utf8(data).unwrap_or_default()), signals)
    }

    /// From an error that has no status: the one that its kind stands for.
    pub fn of_error(said: &ApiError, signals: &Signals) -> Self {
        Self::said(said.kind.status(), signals, said)
    }

    /// From the word that ended a stream.
    pub fn of_word(word: &str) -> Self {
        Self::of_error(&ApiError::new(refusal::of_word(word), ""), &Signals::default())
    }

    fn said(status: u16, signals: &Signals, said: &ApiError) -> Self {
        let retry_after = signals.retry_after.or(said.retry_after);
        let is_money = matches!(said.kind, ErrorKind::Quota | ErrorKind::Billing)
            || status == 429 && said.code.as_deref() == Some("billing_error");
        let used_up = match signals.subscription {
            _ if is_money => UsedUp::Money,
            _ if status != 429 => UsedUp::Rate,
            Some(window) if window.rejected => UsedUp::Subscription(window.reset_in.or(retry_after)),
            _ => UsedUp::Rate,
        };
        Self { status, retry_after, should_retry: signals.should_retry, used_up }
    }

    /// Whether our credential was not accepted.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Subscription;

    #[track_caller]
    fn check(status: u16, error: &str, want: (u16, UsedUp)) {
        let body = format!(r#"{{"type":"error","error":{{"message":"m",{error}}}}}"#);
        let refused = Refused::of(status, &Signals::default(), body.as_bytes());
        assert_eq!((refused.status, refused.used_up), want, "{status} {body}");
    }

    #[test]
    fn the_body_says_what_the_status_does_not() {
        check(500, r#""type":"overloaded_error""#, (529, UsedUp::Rate));
        check(500, r#""type":"rate_limit_error""#, (429, UsedUp::Rate));
        check(500, r#""type":"api_error""#, (500, UsedUp::Rate));
        check(524, r#""type":"api_error""#, (524, UsedUp::Rate));
        check(429, r#""type":"rate_limit_error""#, (429, UsedUp::Rate));
        let spent = r#""type":"rate_limit_error","details":{"error_code":"contract_spend_limit_reached"}"#;
        check(429, spent, (429, UsedUp::Money));
        check(429, r#""type":"insufficient_quota","code":"insufficient_quota""#, (429, UsedUp::Money));
        check(429, r#""type":"billing_error""#, (429, UsedUp::Money));
        check(402, r#""type":"billing_error""#, (402, UsedUp::Money));
        check(402, r#""type":"something_new""#, (402, UsedUp::Money));
        check(400, r#""type":"invalid_request_error""#, (400, UsedUp::Rate));
        let no_credit = r#""type":"invalid_request_error","message":"Your credit balance is too low to access it.""#;
        let refused =
            |status| Refused::of(status, &Signals::default(), format!(r#"{{"error":{{{no_credit}}}}}"#).as_bytes());
        assert_eq!((refused(400).status, refused(400).used_up), (400, UsedUp::Money));
        assert_eq!(refused(403).used_up, UsedUp::Rate, "it is forbidden for another reason");
        for odd in ["<html>", "", "[]"] {
            let refused = Refused::of(502, &Signals::default(), odd.as_bytes());
            assert_eq!((refused.status, refused.used_up), (502, UsedUp::Rate), "{odd}");
        }
    }

    #[test]
    fn content_that_was_flagged_is_no_matter_of_the_key() {
        let refused = |metadata: &str| {
            let body = format!(r#"{{"error":{{"code":403,"message":"flagged","metadata":{metadata}}}}}"#);
            Refused::of(403, &Signals::default(), body.as_bytes())
        };
        let flagged = refused(r#"{"reasons":["harassment"],"flagged_input":"x"}"#);
        assert_eq!((flagged.status, flagged.is_about_the_key()), (400, false));
        assert_eq!(refused("{}").status, 403);
    }

    #[test]
    fn a_subscription_that_is_used_up_is_no_rate() {
        let subscription = |rejected| {
            let window = Subscription { rejected, reset_in: Some(Duration::from_secs(9)), used: 1000 };
            let signals = Signals { subscription: Some(window), ..Signals::default() };
            Refused::of(429, &signals, b"").used_up
        };
        assert_eq!(subscription(true), UsedUp::Subscription(Some(Duration::from_secs(9))));
        assert_eq!(subscription(false), UsedUp::Rate);
    }

    #[test]
    fn a_time_that_only_the_message_names_is_one_too() {
        let body = br#"{"error":{"message":"Rate limit reached, try again in 1.5s","code":"rate_limit_exceeded"}}"#;
        let heard = |signals: &Signals| Refused::of(429, signals, body).retry_after;
        assert_eq!(heard(&Signals::default()), Some(Duration::from_millis(1500)));
        let head = Signals { retry_after: Some(Duration::from_secs(9)), ..Signals::default() };
        assert_eq!(heard(&head), Some(Duration::from_secs(9)), "the head comes first");
    }

    #[test]
    fn an_error_event_has_the_status_that_its_type_stands_for() {
        for (kind, status) in [
            ("overloaded_error", 529),
            ("rate_limit_error", 429),
            ("api_error", 500),
            ("invalid_request_error", 400),
            ("something_new", 500),
        ] {
            let data = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}}}}"#);
            assert_eq!(Refused::of_event(data.as_bytes(), &Signals::default()).status, status, "{kind}");
        }
        assert_eq!(Refused::of_event(b"not json", &Signals::default()).status, 500);
        assert_eq!((Refused::of_word("overloaded_error").status, Refused::of_word("new").status), (529, 500));
        assert_eq!(Refused::of_word("billing_error").used_up, UsedUp::Money);
    }
}
