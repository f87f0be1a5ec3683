//! What providers say about their rate limits: the newest word for each credential.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::calendar::{UTC, time};

/// What names of headers begin with that speak of limits. The first that fits is left out of what is kept.
const FAMILIES: [&str; 2] = ["anthropic-ratelimit-", "anthropic-priority-"];
/// Bytes that are kept of one value, and of all headers.
const VALUE: usize = 64;
const ALL: usize = 2048;

/// The headers of one answer that speak of limits, in one piece of text: a line each, `name=value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Limits(#[n(0)] Box<str>);

impl Limits {
    /// Of an answer's headers; `None` where none of them speaks of limits.
    pub fn of<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let mut text = String::new();
        for (name, value) in headers {
            // Most fields of a head are told apart from these by their first letter.
            if !name.starts_with(['a', 'A']) {
                continue;
            }
            let Some((family, name)) = FAMILIES.iter().find_map(|family| {
                let (head, rest) = name.split_at_checked(family.len())?;
                head.eq_ignore_ascii_case(family).then_some((*family, rest))
            }) else {
                continue;
            };
            let plain = value.len() <= VALUE && value.iter().all(|b| (b' '..=b'~').contains(b));
            let Some(value) = std::str::from_utf8(value).ok().filter(|_| plain && !name.contains('=')) else {
                continue;
            };
            if text.len() + family.len() + name.len() + value.len() + 2 > ALL {
                break;
            }
            if text.is_empty() {
                text.reserve(ALL / 4);
            }
            if family != FAMILIES[0] {
                text.push_str("priority-");
            }
            text.extend(name.chars().map(|c| c.to_ascii_lowercase()));
            text.push('=');
            text.push_str(value.trim());
            text.push('\n');
        }
        (!text.is_empty()).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// What was said, name by name, without `anthropic-ratelimit-`.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().filter_map(|line| line.split_once('='))
    }

    /// The same by what is limited: requests, tokens, a subscription's five hours and its week.
    pub fn windows(&self) -> Vec<Window> {
        let mut windows: Vec<Window> = Vec::new();
        for (name, value) in self.pairs() {
            let Some((of, what)) = name.rsplit_once('-') else { continue };
            let number = || value.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
            let mut window = Window { name: of.into(), ..Window::default() };
            match what {
                "limit" => window.limit = number(),
                "remaining" => window.remaining = number(),
                "utilization" => window.used = number(),
                "status" => window.status = Some(value.into()),
                "reset" => window.resets_us = moment(value),
                _ => continue,
            }
            match windows.iter_mut().find(|known| *known.name == *of) {
                Some(known) => known.add(window),
                None => windows.push(window),
            }
        }
        for window in &mut windows {
            if let (None, Some(limit), Some(left)) = (window.used, window.limit, window.remaining) {
                window.used = (limit > 0.0).then(|| (1.0 - left / limit).clamp(0.0, 1.0));
            }
        }
        windows
    }
}

/// A time as headers give it: seconds since 1970, or a date.
fn moment(value: &str) -> Option<i64> {
    match value.parse::<i64>() {
        Ok(seconds) => (seconds >= 0).then(|| seconds.checked_mul(1_000_000)).flatten(),
        // A date only: what is also a time span of ours is none of theirs.
        Err(_) if value.len() >= 10 => time(value, 0, UTC).ok(),
        Err(_) => None,
    }
}

/// One thing that is limited.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Window {
    /// What: `requests`, `input-tokens`, `unified-5h`, `unified-7d` …
    pub name: Box<str>,
    /// How much there may be of it.
    pub limit: Option<f64>,
    /// How much is left.
    pub remaining: Option<f64>,
    /// Which part is used: 1 is all of it. A provider may let it go over.
    pub used: Option<f64>,
    /// When it begins anew, in microseconds since 1970.
    pub resets_us: Option<i64>,
    /// The provider's own word: `allowed`, `rejected` …
    pub status: Option<Box<str>>,
}

impl Window {
    fn add(&mut self, other: Self) {
        self.limit = self.limit.or(other.limit);
        self.remaining = self.remaining.or(other.remaining);
        self.used = self.used.or(other.used);
        self.resets_us = self.resets_us.or(other.resets_us);
        self.status = self.status.take().or(other.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)]) -> Option<Limits> {
        Limits::of(headers.iter().map(|(name, value)| (*name, value.as_bytes())))
    }

    #[test]
    fn the_windows_of_a_key_and_of_a_subscription_are_read() {
        let limits = of(&[
            ("content-type", "text/event-stream"),
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("Anthropic-RateLimit-Requests-Remaining", "1000"),
            ("anthropic-ratelimit-requests-reset", "2026-11-22T14:30:00Z"),
            ("anthropic-ratelimit-unified-5h-utilization", "1.25"),
            ("anthropic-ratelimit-unified-5h-reset", "1795355900"),
            ("anthropic-ratelimit-unified-5h-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
            ("anthropic-priority-input-tokens-remaining", "7"),
        ])
        .unwrap();
        let windows = limits.windows();
        let names: Vec<&str> = windows.iter().map(|window| &*window.name).collect();
        assert_eq!(names, ["requests", "unified-5h", "priority-input-tokens"]);
        assert_eq!((windows[0].limit, windows[0].remaining, windows[0].used), (Some(4000.0), Some(1000.0), Some(0.75)));
        assert_eq!(windows[0].resets_us, Some(1_795_357_800_000_000));
        assert_eq!((windows[1].used, windows[1].resets_us), (Some(1.25), Some(1_795_355_900_000_000)));
        assert_eq!(windows[1].status.as_deref(), Some("allowed_warning"));
        assert_eq!((windows[2].remaining, windows[2].used), (Some(7.0), None));
        assert!(limits.pairs().any(|pair| pair == ("unified-representative-claim", "five_hour")));
    }

    #[test]
    fn what_speaks_of_no_limit_is_none_and_what_is_absurd_is_left_out() {
        assert_eq!(of(&[("retry-after", "3"), ("anthropic-organization-id", "x")]), None);
        let long = "9".repeat(VALUE + 1);
        assert_eq!(
            of(&[
                ("anthropic-ratelimit-a-limit", &long),
                ("anthropic-ratelimit-b-limit", "1\n2"),
                ("anthropic-ratelimit-c=d-limit", "1"),
            ]),
            None
        );
        let odd = of(&[
            ("anthropic-ratelimit-a-limit", "-1"),
            ("anthropic-ratelimit-a-remaining", "NaN"),
            ("anthropic-ratelimit-a-reset", "2h"),
            ("anthropic-ratelimit-b-reset", "99999999999999999"),
        ]);
        assert!(odd.unwrap().windows().iter().all(|w| *w == Window { name: w.name.clone(), ..Window::default() }));
        let many: Vec<(String, &str)> =
            (0..1000).map(|n| (format!("anthropic-ratelimit-w{n}-limit"), "12345")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (&**name, *value)).collect();
        assert!(of(&many).unwrap().as_str().len() <= ALL);
    }
}
