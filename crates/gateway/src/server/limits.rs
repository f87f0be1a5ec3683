//! What an upstream's head says of its limits, in the words of a client that speaks another protocol.

use std::time::Duration;

use http1::ResponseHead;
use ledger::calendar::{self, UTC};
use wire::protocol::Protocol;

use crate::signals;

/// Each limit as Anthropic's clients know it, and as those of OpenAI's protocols do.
const NAMES: [(&str, &str); 6] = [
    ("anthropic-ratelimit-requests-limit", "x-ratelimit-limit-requests"),
    ("anthropic-ratelimit-requests-remaining", "x-ratelimit-remaining-requests"),
    ("anthropic-ratelimit-requests-reset", "x-ratelimit-reset-requests"),
    ("anthropic-ratelimit-tokens-limit", "x-ratelimit-limit-tokens"),
    ("anthropic-ratelimit-tokens-remaining", "x-ratelimit-remaining-tokens"),
    ("anthropic-ratelimit-tokens-reset", "x-ratelimit-reset-tokens"),
];
/// What Anthropic may say in place of a limit for all tokens.
const OF_INPUT: [(&str, &str); 3] = [
    ("anthropic-ratelimit-input-tokens-limit", "x-ratelimit-limit-tokens"),
    ("anthropic-ratelimit-input-tokens-remaining", "x-ratelimit-remaining-tokens"),
    ("anthropic-ratelimit-input-tokens-reset", "x-ratelimit-reset-tokens"),
];

/// The fields that tell a client of that protocol; `unix_ms` is now.
pub(super) fn fields(client: Protocol, theirs: &ResponseHead, unix_ms: i64) -> Vec<(&'static str, String)> {
    let mut fields: Vec<(&'static str, String)> = Vec::new();
    // Most heads say nothing of limits: one look instead of one for every name.
    if !theirs.fields().any(|field| is_limit(field.name)) {
        return fields;
    }
    let is_anthropic = client == Protocol::AnthropicMessages;
    let more: &[_] = if is_anthropic { &[] } else { &OF_INPUT };
    for (anthropic, openai) in NAMES.iter().chain(more) {
        let (to, other) = if is_anthropic { (anthropic, openai) } else { (openai, anthropic) };
        if fields.iter().any(|(known, _)| known == to) {
            continue;
        }
        // The client's own names come from the other of OpenAI's protocols.
        let value = theirs.get(to).or(theirs.get(other)).and_then(|value| std::str::from_utf8(value).ok());
        let Some(value) = value.map(str::trim) else { continue };
        let value = match (to.contains("-reset"), is_anthropic) {
            (false, _) => value.parse::<u64>().ok().map(|n| n.to_string()),
            (true, true) => signals::until_reset(value, unix_ms).map(|wait| date(unix_ms, wait)),
            (true, false) => signals::until_reset(value, unix_ms).map(span),
        };
        fields.extend(value.map(|value| (*to, value)));
    }
    fields
}

/// Whether a field can be one of those above.
fn is_limit(name: &[u8]) -> bool {
    let begins = |with: &[u8]| name.get(..with.len()).is_some_and(|name| name.eq_ignore_ascii_case(with));
    begins(b"x-ratelimit-") || begins(b"anthropic-ratelimit-")
}

/// A moment as Anthropic writes it: whole seconds, rather late than early.
fn date(unix_ms: i64, wait: Duration) -> String {
    let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let seconds = unix_ms.saturating_add(wait).saturating_add(999).div_euclid(1000);
    let (hour, minute, second) = (seconds.rem_euclid(86_400) / 3600, seconds.rem_euclid(3600) / 60, seconds % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", calendar::day(seconds, UTC))
}

/// A length of time as OpenAI writes it: `120ms`, `8.64s`, `6m0s`.
fn span(wait: Duration) -> String {
    let (seconds, ms) = (wait.as_secs(), wait.subsec_millis());
    match seconds {
        0 => format!("{ms}ms"),
        1..60 if ms > 0 => format!("{seconds}.{ms:03}s"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use Protocol::{AnthropicMessages as A, OpenAiChat as C, OpenAiResponses as R};
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    use super::*;

    /// Sunday, 22 November 2026, 15:53:11 UTC.
    const NOW: i64 = 1_795_362_791_000;

    #[track_caller]
    fn check(client: Protocol, theirs: &str, want: &[(&str, &str)]) {
        let mut head = BytesMut::from(&*format!("HTTP/1.1 200 OK\r\n{theirs}content-length: 0\r\n\r\n"));
        let head = ResponseHead::take(&mut head, &mut Scan::default(), &Limits::default(), false).unwrap().unwrap();
        let got = fields(client, &head, NOW);
        let got: Vec<(&str, &str)> = got.iter().map(|(name, value)| (*name, &**value)).collect();
        assert_eq!(got, want, "{theirs}");
    }

    #[test]
    fn limits_are_told_in_the_words_of_the_client() {
        let openai = "x-ratelimit-limit-requests: 500\r\nx-ratelimit-remaining-requests: 499\r\n\
            x-ratelimit-reset-requests: 120ms\r\nx-ratelimit-remaining-tokens: 40000\r\nx-ratelimit-reset-tokens: 6m0s\r\n";
        check(
            A,
            openai,
            &[
                ("anthropic-ratelimit-requests-limit", "500"),
                ("anthropic-ratelimit-requests-remaining", "499"),
                ("anthropic-ratelimit-requests-reset", "2026-11-22T15:53:12Z"),
                ("anthropic-ratelimit-tokens-remaining", "40000"),
                ("anthropic-ratelimit-tokens-reset", "2026-11-22T15:59:11Z"),
            ],
        );
        check(R, "x-ratelimit-reset-tokens: 1.5s\r\n", &[("x-ratelimit-reset-tokens", "1.500s")]);
        let anthropic = "anthropic-ratelimit-requests-limit: 50\r\nanthropic-ratelimit-requests-reset: 2026-11-22T15:54:11Z\r\n\
            anthropic-ratelimit-input-tokens-limit: 2000\r\nanthropic-ratelimit-input-tokens-reset: 2026-11-22T17:53:12Z\r\n";
        check(
            C,
            anthropic,
            &[
                ("x-ratelimit-limit-requests", "50"),
                ("x-ratelimit-reset-requests", "1m0s"),
                ("x-ratelimit-limit-tokens", "2000"),
                ("x-ratelimit-reset-tokens", "2h0m1s"),
            ],
        );
        let both = "anthropic-ratelimit-tokens-limit: 7\r\nanthropic-ratelimit-input-tokens-limit: 2000\r\n";
        check(C, both, &[("x-ratelimit-limit-tokens", "7")]);
    }

    #[test]
    fn what_cannot_be_read_is_not_told() {
        check(A, "x-ratelimit-limit-requests: many\r\nx-ratelimit-reset-requests: soon\r\n", &[]);
        check(C, "anthropic-ratelimit-requests-reset: soon\r\nretry-after: 3\r\n", &[]);
        check(A, "", &[]);
    }
}
