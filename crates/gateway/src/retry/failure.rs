//! What an attempt came to that did not come to a good answer.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

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
        let said = Said::read(body).unwrap_or_default();
        // Some upstreams word an overload under another status, and clients go by the word.
        let status = if said.kind == "overloaded_error" && status >= 400 { 529 } else { status };
        let used_up = match signals.subscription {
            _ if status != 429 => UsedUp::Rate,
            _ if said.names_money() => UsedUp::Money,
            Some(window) if window.rejected => UsedUp::Subscription(window.reset_in.or(signals.retry_after)),
            _ => UsedUp::Rate,
        };
        Self { status, retry_after: signals.retry_after, should_retry: signals.should_retry, used_up }
    }

    /// From the data of an `error` event, which has no status: the one that its type stands for.
    pub fn of_event(data: &[u8], signals: &Signals) -> Self {
        let status = match Said::read(data).unwrap_or_default().kind.as_ref() {
            "invalid_request_error" => 400,
            "authentication_error" => 401,
            "billing_error" => 402,
            "permission_error" => 403,
            "not_found_error" => 404,
            "request_too_large" => 413,
            "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => 429,
            "timeout_error" => 504,
            "overloaded_error" => 529,
            _ => 500,
        };
        Self::of(status, signals, data)
    }

    /// Whether our credential was not accepted.
    pub fn is_about_the_key(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

/// What an error body says, in Anthropic's shape or OpenAI's.
#[derive(Default)]
struct Said<'a> {
    kind: Cow<'a, str>,
    code: Cow<'a, str>,
}

impl<'a> Said<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(borrow)]
            error: Error<'a>,
        }
        #[derive(Deserialize)]
        struct Error<'a> {
            #[serde(borrow, rename = "type", default)]
            kind: Option<Cow<'a, str>>,
            #[serde(borrow, default)]
            code: Option<Code<'a>>,
            #[serde(borrow, default)]
            details: Option<Details<'a>>,
        }
        #[derive(Deserialize)]
        struct Details<'a> {
            #[serde(borrow, default)]
            error_code: Option<Cow<'a, str>>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Code<'a> {
            #[serde(borrow)]
            Text(Cow<'a, str>),
            Other(serde::de::IgnoredAny),
        }
        let error = serde_json::from_slice::<Body<'a>>(body).ok()?.error;
        let code = match (error.details.and_then(|details| details.error_code), error.code) {
            (Some(code), _) | (None, Some(Code::Text(code))) => code,
            _ => Cow::Borrowed(""),
        };
        Some(Self { kind: error.kind.unwrap_or_default(), code })
    }

    fn names_money(&self) -> bool {
        self.code.ends_with("spend_limit_reached")
            || [&self.kind, &self.code]
                .iter()
                .any(|word| matches!(word.as_ref(), "insufficient_quota" | "billing_error"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::Subscription;

    #[track_caller]
    fn check(status: u16, body: &str, want: (u16, UsedUp)) {
        let refused = Refused::of(status, &Signals::default(), body.as_bytes());
        assert_eq!((refused.status, refused.used_up), want, "{status} {body}");
    }

    #[test]
    fn the_body_says_what_the_status_does_not() {
        check(500, r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, (529, UsedUp::Rate));
        check(500, r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#, (500, UsedUp::Rate));
        check(429, r#"{"error":{"type":"rate_limit_error","message":"m"}}"#, (429, UsedUp::Rate));
        check(
            429,
            r#"{"error":{"type":"rate_limit_error","details":{"error_code":"contract_spend_limit_reached"}}}"#,
            (429, UsedUp::Money),
        );
        check(429, r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#, (429, UsedUp::Money));
        check(429, r#"{"error":{"type":"billing_error"}}"#, (429, UsedUp::Money));
        check(429, r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#, (429, UsedUp::Rate));
        check(429, r#"{"error":{"code":429}}"#, (429, UsedUp::Rate));
        check(502, "<html>", (502, UsedUp::Rate));
        check(503, "", (503, UsedUp::Rate));
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
    }
}
