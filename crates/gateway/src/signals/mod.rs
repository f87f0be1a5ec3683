//! What the head of an answer says about coming again: when, whether at all, and how much may still be asked.
//!
//! All times are relative to the moment of reading. Whatever cannot be read is as if it were not there.

mod date;

use std::time::Duration;

use http1::Field;

/// No upstream's word is taken for longer than this.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);

/// What one head said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals {
    /// `retry-after-ms`, else `retry-after`.
    pub retry_after: Option<Duration>,
    /// `x-should-retry`.
    pub should_retry: Option<bool>,
    /// Requests that may still be made.
    pub requests: Option<Quota>,
    /// Tokens of any sort, of input and of output.
    pub tokens: [Option<Quota>; 3],
    /// How full the windows of a subscription are.
    pub subscription: Option<Subscription>,
}

/// One rate limit: a bucket that fills steadily.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// What the full bucket holds.
    pub limit: u64,
    /// What it holds now.
    pub remaining: u64,
    /// When it will be full.
    pub full_in: Duration,
}

/// The windows of a subscription, taken together: what one of them refuses is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription {
    /// Whether requests are refused.
    pub rejected: bool,
    /// When that ends, or the window begins anew.
    pub reset_in: Option<Duration>,
    /// How much of the fullest window is used, in thousandths.
    pub used: u32,
}

impl Signals {
    /// Reads the fields of an answer; `unix_ms` is now.
    pub fn read<'a>(fields: impl Iterator<Item = Field<'a>>, unix_ms: i64) -> Self {
        let mut signals = Self::default();
        let mut parts = [Part::default(); 4];
        let mut windows = Windows::default();
        let mut in_ms = false;
        for Field { name, value } in fields {
            // Most fields are none of ours: two letters tell.
            if !matches!(
                name,
                [b'a' | b'A', b'n' | b'N', ..] | [b'x' | b'X', b'-', ..] | [b'r' | b'R', b'e' | b'E', ..]
            ) {
                continue;
            }
            let Ok(value) = std::str::from_utf8(value) else { continue };
            let mut buffer = [0; 64];
            let Some(name) = lower(name, &mut buffer) else { continue };
            match name {
                "retry-after-ms" => {
                    if let Some(wait) = value.parse().ok().and_then(|ms: f64| bounded(ms / 1e3)) {
                        (signals.retry_after, in_ms) = (Some(wait), true);
                    }
                }
                "retry-after" if !in_ms => signals.retry_after = retry_after(value, unix_ms),
                "x-should-retry" => signals.should_retry = value.parse().ok(),
                _ => {
                    if let Some(rest) = name.strip_prefix("anthropic-ratelimit-unified-") {
                        windows.take(rest, value, unix_ms);
                    } else if let Some((what, field)) =
                        name.strip_prefix("anthropic-ratelimit-").and_then(|rest| rest.rsplit_once('-'))
                    {
                        if let Some(part) = index(what) {
                            parts[part].take(field, value, unix_ms);
                        }
                    } else if let Some((field, what)) =
                        name.strip_prefix("x-ratelimit-").and_then(|rest| rest.split_once('-'))
                        && let Some(part) = index(what)
                    {
                        parts[part].take(field, value, unix_ms);
                    }
                }
            }
        }
        let [requests, tokens @ ..] = parts.map(Part::quota);
        signals.requests = requests;
        signals.tokens = tokens;
        signals.subscription = windows.together();
        signals
    }
}

/// The name in lower case; `None` if it is longer than any of ours.
fn lower<'b>(name: &[u8], buffer: &'b mut [u8; 64]) -> Option<&'b str> {
    let buffer = buffer.get_mut(..name.len())?;
    buffer.copy_from_slice(name);
    buffer.make_ascii_lowercase();
    std::str::from_utf8(buffer).ok()
}

/// The place of a limit among the parts.
fn index(what: &str) -> Option<usize> {
    ["requests", "tokens", "input-tokens", "output-tokens"].iter().position(|name| *name == what)
}

fn bounded(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST).min(LONGEST))
}

/// Seconds, or a date.
fn retry_after(value: &str, unix_ms: i64) -> Option<Duration> {
    match value.parse::<f64>() {
        Ok(seconds) => bounded(seconds),
        Err(_) => date::http(value).map(|at| until(at * 1000, unix_ms)),
    }
}

fn until(at_ms: i64, unix_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(at_ms.saturating_sub(unix_ms)).unwrap_or(0)).min(LONGEST)
}

/// Seconds since 1970 of a date as RFC 3339 writes it, or of such seconds.
pub fn moment(value: &str) -> Option<i64> {
    value.parse().ok().or_else(|| date::rfc3339(value))
}

fn until_moment(value: &str, unix_ms: i64) -> Option<Duration> {
    Some(until(i64::checked_mul(moment(value)?, 1000)?, unix_ms))
}

/// The time until a limit is full again, in any of the forms in which providers say it; `unix_ms` is now.
pub fn until_reset(value: &str, unix_ms: i64) -> Option<Duration> {
    span(value).or_else(|| until_moment(value, unix_ms))
}

/// A length of time as `6m0s`, `1h2m`, `8.64s` or `120ms` write it.
fn span(mut text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    while !text.is_empty() {
        let number = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = text[number..].find(|c: char| c.is_ascii_digit()).map_or(text.len(), |n| number + n);
        let scale = match &text[number..unit] {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        seconds += text[..number].parse::<f64>().ok()? * scale;
        text = &text[unit..];
    }
    bounded(seconds)
}

/// The three fields of one limit, as they come.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    limit: Option<u64>,
    remaining: Option<u64>,
    reset: Option<Duration>,
}

impl Part {
    fn take(&mut self, field: &str, value: &str, unix_ms: i64) {
        match field {
            "limit" => self.limit = value.parse().ok(),
            "remaining" => self.remaining = value.parse().ok(),
            "reset" => self.reset = until_reset(value, unix_ms),
            _ => {}
        }
    }

    fn quota(self) -> Option<Quota> {
        let (limit, remaining) = (self.limit?, self.remaining?);
        Some(Quota { limit, remaining: remaining.min(limit), full_in: self.reset? })
    }
}

/// The windows of a subscription, as they come. Where several refuse, the last to end decides.
#[derive(Debug, Default)]
struct Windows {
    whole: Option<bool>,
    whole_reset: Option<Duration>,
    /// Whether it refuses and when it ends: of five hours, of seven days, of any other.
    windows: [(Option<bool>, Option<Duration>); 3],
    used: Option<u32>,
}

impl Windows {
    fn take(&mut self, rest: &str, value: &str, unix_ms: i64) {
        let rejected = value == "rejected" || value == "rate_limited";
        let (window, field) = rest.rsplit_once('-').unwrap_or(("", rest));
        // Credits beside the subscription are another purse.
        if window.starts_with("overage") {
            return;
        }
        let slot = match window {
            "" => None,
            "5h" => Some(0),
            "7d" => Some(1),
            _ => Some(2),
        };
        match (field, slot) {
            ("status", None) => self.whole = Some(rejected),
            ("reset", None) => self.whole_reset = until_moment(value, unix_ms),
            ("status", Some(slot)) => self.windows[slot].0 = Some(rejected),
            ("reset", Some(slot)) => self.windows[slot].1 = until_moment(value, unix_ms),
            ("utilization", Some(_)) => {
                if let Ok(used) = value.parse::<f64>() {
                    self.used = self.used.max(Some((used.clamp(0.0, 10.0) * 1e3) as u32));
                }
            }
            _ => {}
        }
    }

    fn together(self) -> Option<Subscription> {
        let refusing = || self.windows.iter().filter(|(rejected, _)| *rejected == Some(true));
        let rejected = self.whole.unwrap_or_else(|| refusing().next().is_some());
        let known = self.whole.is_some() || self.windows.iter().any(|(status, _)| status.is_some());
        let ends = refusing().filter_map(|(_, end)| *end).max();
        known.then(|| Subscription {
            rejected,
            reset_in: if rejected { ends.or(self.whole_reset) } else { self.whole_reset },
            used: self.used.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sunday, 22 November 2026, 15:53:11 UTC.
    const NOW: i64 = 1_795_362_791_000;

    fn read(text: &str) -> Signals {
        let fields = text.lines().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            Field { name: name.trim().as_bytes(), value: value.as_bytes() }
        });
        Signals::read(fields, NOW)
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_time_to_come_again_is_read_in_all_its_forms() {
        for (text, want) in [
            ("retry-after: 17", Some(secs(17))),
            ("Retry-After: 0", Some(secs(0))),
            ("retry-after: 1.5", Some(Duration::from_millis(1500))),
            ("retry-after: Sun, 22 Nov 2026 15:53:21 GMT", Some(secs(10))),
            ("retry-after: Sun, 22 Nov 2026 15:00:00 GMT", Some(secs(0))),
            ("retry-after-ms: 250\nretry-after: 1", Some(Duration::from_millis(250))),
            ("retry-after: 1\nretry-after-ms: 250", Some(Duration::from_millis(250))),
            ("retry-after: 99999999999999", Some(LONGEST)),
            ("retry-after: inf", Some(LONGEST)),
            ("retry-after: -1", None),
            ("retry-after: NaN", None),
            ("retry-after: soon", None),
            ("retry-after-ms: soon\nretry-after: 3", Some(secs(3))),
        ] {
            assert_eq!(read(text).retry_after, want, "{text}");
        }
        assert_eq!(read("X-Should-Retry: false").should_retry, Some(false));
        assert_eq!(read("x-should-retry: true").should_retry, Some(true));
        assert_eq!(read("x-should-retry: maybe\nx-other: 1\nserver: x"), Signals::default());
    }

    #[test]
    fn limits_are_read_in_both_spellings_and_only_whole() {
        let anthropic = read(
            "anthropic-ratelimit-requests-limit: 50
            anthropic-ratelimit-requests-remaining: 0
            anthropic-ratelimit-requests-reset: 2026-11-22T15:54:11Z
            Anthropic-RateLimit-Input-Tokens-Limit: 2000000
            anthropic-ratelimit-input-tokens-remaining: 1999000
            anthropic-ratelimit-input-tokens-reset: 2026-11-22T15:53:12Z
            anthropic-ratelimit-tokens-limit: 7",
        );
        assert_eq!(anthropic.requests, Some(Quota { limit: 50, remaining: 0, full_in: secs(60) }));
        let input = Quota { limit: 2_000_000, remaining: 1_999_000, full_in: secs(1) };
        assert_eq!(anthropic.tokens, [None, Some(input), None]);
        let openai = read(
            "x-ratelimit-limit-requests: 500
            x-ratelimit-remaining-requests: 499
            x-ratelimit-reset-requests: 120ms
            x-ratelimit-limit-tokens: 30000
            x-ratelimit-remaining-tokens: 40000
            x-ratelimit-reset-tokens: 6m0s",
        );
        assert_eq!(openai.requests, Some(Quota { limit: 500, remaining: 499, full_in: Duration::from_millis(120) }));
        assert_eq!(openai.tokens[0], Some(Quota { limit: 30_000, remaining: 30_000, full_in: secs(360) }));
    }

    #[test]
    fn spans_of_time_have_units() {
        for (text, want) in [
            ("1h2m3s", Some(secs(3723))),
            ("8.64s", Some(Duration::from_millis(8640))),
            ("1d", Some(secs(86_400))),
            ("0s", Some(secs(0))),
            ("12", None),
            ("s", None),
            ("1y", None),
            ("1.2.3s", None),
        ] {
            assert_eq!(span(text), want, "{text}");
        }
    }

    #[test]
    fn of_the_windows_of_a_subscription_the_last_to_end_decides() {
        let at = NOW / 1000;
        let subscription = |text: String| read(&text).subscription;
        assert_eq!(
            subscription(format!(
                "anthropic-ratelimit-unified-status: rejected
                anthropic-ratelimit-unified-reset: {}
                anthropic-ratelimit-unified-5h-status: rejected
                anthropic-ratelimit-unified-5h-reset: {}
                anthropic-ratelimit-unified-5h-utilization: 1.02
                anthropic-ratelimit-unified-7d-status: rejected
                anthropic-ratelimit-unified-7d-reset: {}
                anthropic-ratelimit-unified-overage-status: rejected",
                at + 5,
                at + 100,
                at + 4000
            )),
            Some(Subscription { rejected: true, reset_in: Some(secs(4000)), used: 1020 })
        );
        assert_eq!(
            subscription(format!(
                "anthropic-ratelimit-unified-status: allowed_warning
                anthropic-ratelimit-unified-reset: {}
                anthropic-ratelimit-unified-7d-utilization: 0.8",
                at + 60
            )),
            Some(Subscription { rejected: false, reset_in: Some(secs(60)), used: 800 })
        );
        assert_eq!(
            subscription("anthropic-ratelimit-unified-overage-status: rejected".into()),
            None,
            "credits are not the subscription"
        );
    }
}
