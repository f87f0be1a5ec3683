//! Token counts of one exchange, in fields that never overlap, and the rule by which later reports replace earlier ones.

use std::fmt;

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::members::Malformed;

/// Bytes that are kept of a tier, speed or region that has no name here.
const WORD: usize = 64;
/// Bytes that are kept of a model's name.
pub(crate) const MODEL: usize = 256;
/// Iterations that are kept of one message.
pub(crate) const ITERATIONS: usize = 64;
/// Kinds of server tools without a name here that are kept of one message.
pub(crate) const TOOLS: usize = 8;

/// The longest beginning of `text` that is at most `most` bytes long.
pub(crate) fn bounded(text: &str, most: usize) -> Box<str> {
    text[..text.floor_char_boundary(most)].into()
}

/// What one exchange used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct Usage {
    /// The tokens of the answer itself.
    #[cbor(n(0), default)]
    pub tokens: Tokens,
    /// How many of the output tokens were reasoning. They are in the output already.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(1), skip_if = "is_zero")]
    pub reasoning: u64,
    /// Web searches that the provider ran.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(2), skip_if = "is_zero")]
    pub web_search: u64,
    /// Web pages that the provider fetched.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(3), skip_if = "is_zero")]
    pub web_fetch: u64,
    /// The tier that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(4)]
    pub service_tier: Option<ServiceTier>,
    /// The speed that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(5)]
    pub speed: Option<Speed>,
    /// The region that the provider says it served from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(6)]
    pub region: Option<Box<str>>,
    /// Turns within the exchange that are told apart from the rest. Not all of them are in `tokens`: see [`IterationKind`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cbor(n(7), skip_if = "Vec::is_empty")]
    pub iterations: Vec<Iteration>,
    /// Whether some cache writes came without a lifetime, so that one was assumed.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(8), skip_if = "is_false")]
    pub ttl_assumed: bool,
    /// Whether a part beside the token counts was reported in a form that could not be read: the true usage may be more.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(9), skip_if = "is_false")]
    pub incomplete: bool,
    /// Tools of the provider that have no name here, and how often they were used. None is known to be free.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cbor(n(10), skip_if = "Vec::is_empty")]
    pub other_tools: Vec<ToolUse>,
}

/// How often a tool of the provider was used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct ToolUse {
    /// The provider's word for it.
    #[cbor(n(0), default)]
    pub name: Box<str>,
    /// How often.
    #[cbor(n(1), default)]
    pub requests: u64,
}

impl ToolUse {
    /// A use as a provider reports it.
    pub fn new(name: &str, requests: u64) -> Self {
        Self { name: bounded(name, WORD), requests }
    }
}

/// Token counts that never overlap, so that each is billed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct Tokens {
    /// Input that was neither read from the cache nor written to it.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(0), skip_if = "is_zero")]
    pub input: u64,
    /// Input that was read from the cache.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(1), skip_if = "is_zero")]
    pub cache_read: u64,
    /// Input that was written to the cache, by how long it stays there.
    #[serde(skip_serializing_if = "CacheWrite::is_zero")]
    #[cbor(n(2), skip_if = "CacheWrite::is_zero")]
    pub cache_write: CacheWrite,
    /// Output, reasoning included.
    #[serde(skip_serializing_if = "is_zero")]
    #[cbor(n(3), skip_if = "is_zero")]
    pub output: u64,
}

/// Input that was written to the cache, by how long it stays there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct CacheWrite {
    /// For five minutes.
    #[serde(rename = "5m", skip_serializing_if = "is_zero")]
    #[cbor(n(0), skip_if = "is_zero")]
    pub m5: u64,
    /// For thirty minutes.
    #[serde(rename = "30m", skip_serializing_if = "is_zero")]
    #[cbor(n(1), skip_if = "is_zero")]
    pub m30: u64,
    /// For one hour.
    #[serde(rename = "1h", skip_serializing_if = "is_zero")]
    #[cbor(n(2), skip_if = "is_zero")]
    pub h1: u64,
    /// For twelve hours.
    #[serde(rename = "12h", skip_serializing_if = "is_zero")]
    #[cbor(n(3), skip_if = "is_zero")]
    pub h12: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_false(b: &bool) -> bool {
    !*b
}

impl CacheWrite {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.m5.saturating_add(self.m30).saturating_add(self.h1).saturating_add(self.h12)
    }

    fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The same lifetimes with another sum. What is added or missing is where the shortest lifetime is that was in use:
    /// providers want long-lived parts of a prompt before short-lived ones, so a prompt grows and shrinks at the short end.
    fn with_total(self, total: u64) -> Self {
        let mut slots = [self.m5, self.m30, self.h1, self.h12];
        let known = self.total();
        if total >= known {
            let at = slots.iter().position(|n| *n > 0).unwrap_or(0);
            slots[at] = slots[at].saturating_add(total - known);
        } else {
            let mut excess = known - total;
            for slot in &mut slots {
                let less = excess.min(*slot);
                *slot -= less;
                excess -= less;
            }
        }
        let [m5, m30, h1, h12] = slots;
        Self { m5, m30, h1, h12 }
    }
}

impl Tokens {
    /// The whole prompt: input with its cached parts.
    pub fn prompt(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write.total())
    }

    /// Prompt and output.
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// These and more together.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        let (a, b) = (&self.cache_write, &more.cache_write);
        Self {
            input: self.input.saturating_add(more.input),
            cache_read: self.cache_read.saturating_add(more.cache_read),
            cache_write: CacheWrite {
                m5: a.m5.saturating_add(b.m5),
                m30: a.m30.saturating_add(b.m30),
                h1: a.h1.saturating_add(b.h1),
                h12: a.h12.saturating_add(b.h12),
            },
            output: self.output.saturating_add(more.output),
        }
    }
}

impl Usage {
    /// Counts that nobody gave, by the estimate of the input and the bytes of the output: never zero.
    pub fn estimate(input: u64, bytes: u64) -> Self {
        let tokens = Tokens { input: input.max(1), output: bytes.div_ceil(4).max(1), ..Tokens::default() };
        Self { tokens, ..Self::default() }
    }

    /// The turns that are billed beside the tokens of the answer: how many, and their tokens together.
    pub fn turns(&self) -> (usize, Tokens) {
        let extra = self.iterations.iter().filter(|turn| turn.kind.is_extra());
        extra.fold((0, Tokens::default()), |(n, sum), turn| (n + 1, sum.and(&turn.tokens)))
    }

    /// The model that served in the end, where the provider itself went over to another one.
    pub fn fallback_model(&self) -> Option<&str> {
        let served = self.iterations.iter().rev().find(|i| i.kind == IterationKind::Fallback);
        served.and_then(|i| i.model.as_deref())
    }

    /// Takes a later report. Reports are totals, so a value replaces the earlier one and is never added to it; what a
    /// report does not name stays.
    pub fn set(&mut self, report: Report) {
        fn put<T>(to: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *to = value;
            }
        }
        put(&mut self.tokens.input, report.input);
        put(&mut self.tokens.cache_read, report.cache_read);
        put(&mut self.tokens.output, report.output);
        put(&mut self.reasoning, report.reasoning);
        put(&mut self.web_search, report.web_search);
        put(&mut self.web_fetch, report.web_fetch);
        if let Some(mut tools) = report.other_tools {
            self.incomplete |= tools.len() > TOOLS;
            tools.truncate(TOOLS);
            self.other_tools = tools;
        }
        match (report.cache_write, report.cache_write_by_ttl) {
            (None, None) => {}
            (None, Some(split)) => (self.tokens.cache_write, self.ttl_assumed) = (split, false),
            // A total under the sum of its own parts is no total: the parts are the better witness.
            (Some(total), Some(split)) => {
                let whole = split.with_total(total.max(split.total()));
                (self.tokens.cache_write, self.ttl_assumed) = (whole, split.total() != total);
            }
            (Some(total), None) if total == self.tokens.cache_write.total() => {}
            (Some(total), None) => {
                self.tokens.cache_write = self.tokens.cache_write.with_total(total);
                self.ttl_assumed = total > 0;
            }
        }
        put(&mut self.service_tier, report.service_tier.map(Some));
        put(&mut self.speed, report.speed.map(Some));
        put(&mut self.region, report.region.map(|region| Some(bounded(&region, WORD))));
        if let Some(mut iterations) = report.iterations {
            self.incomplete |= iterations.len() > ITERATIONS;
            iterations.truncate(ITERATIONS);
            self.iterations = iterations;
        }
        self.incomplete |= report.incomplete;
    }
}

/// A token count: a whole number that is not negative. Some translators write it with a fraction of zero.
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CountVisitor;
        impl Visitor<'_> for CountVisitor {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token count")
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Count, E> {
                Ok(Count(n))
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<Count, E> {
                // Up to 2^53 every whole number has its own form.
                let exact = n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&n);
                if exact { Ok(Count(n as u64)) } else { Err(E::invalid_value(Unexpected::Float(n), &self)) }
            }
        }
        deserializer.deserialize_u64(CountVisitor)
    }
}

/// A token count as it is written; `None` for `null`, and an error for what is none.
pub(crate) fn count(value: &[u8]) -> Result<Option<u64>, Malformed> {
    // Nearly all are a few digits. Nothing of up to 19 overflows, and a number does not begin with a zero.
    if value.len() <= 19 && value.iter().all(u8::is_ascii_digit) && (value.len() == 1 || value.first() > Some(&b'0')) {
        return Ok(Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))));
    }
    let read: Option<Count> = serde_json::from_slice(value).map_err(|_| Malformed)?;
    Ok(read.map(|Count(n)| n))
}

/// What one message of a provider says about the usage so far; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is that of the same name in `Usage` and `Tokens`")]
pub struct Report {
    pub input: Option<u64>,
    pub cache_read: Option<u64>,
    /// All cache writes together.
    pub cache_write: Option<u64>,
    pub cache_write_by_ttl: Option<CacheWrite>,
    pub output: Option<u64>,
    pub reasoning: Option<u64>,
    pub web_search: Option<u64>,
    pub web_fetch: Option<u64>,
    pub other_tools: Option<Vec<ToolUse>>,
    pub service_tier: Option<ServiceTier>,
    pub speed: Option<Speed>,
    pub region: Option<Box<str>>,
    pub iterations: Option<Vec<Iteration>>,
    pub incomplete: bool,
}

/// One turn of a model within an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct Iteration {
    /// What kind of turn.
    #[n(0)]
    pub kind: IterationKind,
    /// The model, where it is not the one of the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(1)]
    pub model: Option<Box<str>>,
    /// What it used.
    #[serde(default)]
    #[cbor(n(2), default)]
    pub tokens: Tokens,
    /// Whether its cache writes came without a lifetime, so that one was assumed.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cbor(n(3), skip_if = "is_false")]
    pub ttl_assumed: bool,
}

impl Iteration {
    /// A turn as a provider reports it.
    pub fn new(kind: IterationKind, model: Option<&str>, report: Report) -> Self {
        let mut usage = Usage::default();
        usage.set(report);
        let model = model.map(|name| bounded(name, MODEL));
        Self { kind, model, tokens: usage.tokens, ttl_assumed: usage.ttl_assumed }
    }
}

/// Declares an enum of words that a provider uses, open for words that are not known yet.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(from = "Box<str>", into = "Box<str>")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A word that has no name here.
            Other(Box<str>),
        }

        impl $name {
            /// The provider's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(bounded(other, WORD)),
                }
            }
        }

        impl From<Box<str>> for $name {
            fn from(word: Box<str>) -> Self {
                (&*word).into()
            }
        }

        impl From<$name> for Box<str> {
            fn from(name: $name) -> Self {
                name.as_str().into()
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.str(self.as_str())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Ok(d.str()?.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The tier that served an exchange.
    ServiceTier {
        /// The ordinary one.
        Standard = "standard",
        /// Capacity that was bought ahead, or a dearer and faster tier.
        Priority = "priority",
        /// A batch.
        Batch = "batch",
        /// Cheaper and slower.
        Flex = "flex",
    }
}

words! {
    /// The speed that served an exchange.
    Speed {
        /// The ordinary one.
        Standard = "standard",
        /// Faster and dearer.
        Fast = "fast",
    }
}

words! {
    /// What kind of turn an iteration was, which says whether its tokens are in those of the exchange.
    IterationKind {
        /// A turn of the exchange's model: its tokens are in those of the exchange.
        Message = "message",
        /// A summary of the conversation, written by the exchange's model: not in them, billed beside them.
        Compaction = "compaction",
        /// A turn of another model that was asked for advice: not in them, billed beside them at that model's price.
        Advisor = "advisor_message",
        /// The turn of the model that served in the end: the tokens of the exchange are those of this model.
        Fallback = "fallback_message",
    }
}

impl IterationKind {
    /// Whether such a turn is billed beside the tokens of the exchange.
    pub fn is_extra(&self) -> bool {
        matches!(self, Self::Compaction | Self::Advisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(m5: u64, h1: u64) -> CacheWrite {
        CacheWrite { m5, h1, ..Default::default() }
    }

    fn after(reports: Vec<Report>) -> Usage {
        let mut usage = Usage::default();
        reports.into_iter().for_each(|report| usage.set(report));
        usage
    }

    #[test]
    fn a_later_report_replaces_and_a_missing_value_keeps() {
        let start = Report { input: Some(25), cache_read: Some(7), output: Some(1), ..Default::default() };
        let delta = Report { output: Some(8), ..Default::default() };
        let usage = after(vec![start.clone(), delta.clone(), delta]);
        assert_eq!(usage.tokens, Tokens { input: 25, cache_read: 7, output: 8, ..Default::default() });
        let zero = Report { input: Some(0), ..Default::default() };
        assert_eq!(after(vec![start, zero]).tokens.input, 0, "zero is a value");
    }

    #[test]
    fn a_total_after_a_split_keeps_the_split_and_follows_the_sum() {
        let split = |total, by_ttl| Report { cache_write: total, cache_write_by_ttl: by_ttl, ..Default::default() };
        #[track_caller]
        fn check(reports: Vec<Report>, want: CacheWrite, assumed: bool) {
            let usage = after(reports);
            assert_eq!((usage.tokens.cache_write, usage.ttl_assumed), (want, assumed));
        }
        let start = || split(Some(5300), Some(writes(1300, 4000)));
        check(vec![start(), split(Some(5300), None)], writes(1300, 4000), false);
        check(vec![start(), split(None, None)], writes(1300, 4000), false);
        check(vec![start(), split(Some(6000), None)], writes(2000, 4000), true);
        check(vec![start(), split(Some(4100), None)], writes(100, 4000), true);
        check(vec![start(), split(Some(3000), None)], writes(0, 3000), true);
        check(vec![start(), split(Some(0), None)], writes(0, 0), false);
        check(vec![split(Some(10), Some(writes(0, 10))), split(Some(25), None)], writes(0, 25), true);
        check(vec![split(Some(10), None)], writes(10, 0), true);
        check(vec![split(Some(10), None), split(Some(10), Some(writes(4, 6)))], writes(4, 6), false);
        check(vec![split(None, Some(writes(4, 6)))], writes(4, 6), false);
        check(vec![split(Some(3), Some(writes(4, 6)))], writes(4, 6), true);
        check(vec![split(Some(12), Some(writes(4, 6)))], writes(6, 6), true);
        check(vec![split(Some(0), None)], writes(0, 0), false);
        check(vec![split(Some(u64::MAX), Some(writes(u64::MAX, 9)))], writes(u64::MAX, 9), false);
    }

    #[test]
    fn turns_beside_the_answer_are_told_apart_from_those_within_it() {
        let turn = |kind: IterationKind, n: u64| {
            let report = Report { input: Some(n), cache_write: Some(2 * n), output: Some(3 * n), ..Default::default() };
            Iteration::new(kind, None, report)
        };
        let all = vec![
            turn(IterationKind::Compaction, 100),
            turn(IterationKind::Advisor, 7),
            turn(IterationKind::Fallback, 1000),
            turn(IterationKind::Message, 5000),
        ];
        let usage = after(vec![Report { input: Some(1), iterations: Some(all), ..Default::default() }]);
        let want = Tokens { input: 107, cache_write: writes(214, 0), output: 321, ..Default::default() };
        assert_eq!(usage.turns(), (2, want));
        assert_eq!(usage.tokens.and(&want).prompt(), 1 + 107 + 214);
        assert_eq!(Usage::default().turns(), (0, Tokens::default()));
    }

    #[test]
    fn sums_of_huge_counts_stop_at_the_top() {
        let tokens =
            Tokens { input: u64::MAX, cache_read: 1, cache_write: writes(u64::MAX, u64::MAX), output: u64::MAX };
        assert_eq!((tokens.prompt(), tokens.total()), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_usage_is_the_same_after_it_was_written_and_read() {
        let advice =
            Iteration::new(IterationKind::Advisor, Some("m"), Report { output: Some(3), ..Default::default() });
        let odd = Iteration::new("turn".into(), None, Report { cache_write: Some(3), ..Default::default() });
        let usage = after(vec![Report {
            input: Some(u64::MAX),
            cache_write_by_ttl: Some(CacheWrite { m5: 1, m30: 2, h1: 3, h12: 4 }),
            output: Some(9),
            service_tier: Some(ServiceTier::Batch),
            speed: Some("warp".into()),
            region: Some("us".into()),
            other_tools: Some(vec![ToolUse::new("foo_requests", 3)]),
            iterations: Some(vec![advice, odd]),
            ..Default::default()
        }]);
        let text = serde_json::to_string(&usage).unwrap();
        assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
        assert_eq!(serde_json::to_string(&Usage::default()).unwrap(), r#"{"tokens":{}}"#);
        assert_eq!(serde_json::from_str::<Usage>(r#"{"newer":1}"#).unwrap(), Usage::default());
    }

    #[test]
    fn words_and_lists_of_a_provider_are_bounded() {
        let turn = Iteration::new(IterationKind::Compaction, Some(&"é".repeat(500)), Report::default());
        assert_eq!(turn.model.as_deref().map(str::len), Some(256));
        let usage = after(vec![Report {
            region: Some("r".repeat(500).into()),
            service_tier: Some((&*"t".repeat(500)).into()),
            iterations: Some(vec![turn; 70]),
            ..Default::default()
        }]);
        assert_eq!(usage.region.unwrap().len(), 64);
        assert_eq!(usage.service_tier.unwrap().as_str().len(), 64);
        assert!(usage.iterations.len() == 64 && usage.incomplete);
    }
}
