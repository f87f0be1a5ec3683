//! `Record`: what became of one exchange, with its attempts; and `Start`: that one began.

mod read;
mod write;

use std::fmt;
use std::str::FromStr;

use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use wire::usage::{Tokens, Usage};

use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::price::{Flags, Unpriced};
use crate::redact::Redactor;

/// Bytes that are kept of a name: a model, a session, a project.
const NAME: usize = 256;
/// Bytes that are kept of an error's text.
const MESSAGE: usize = 1000;
/// Bytes that are kept of why it went where it went.
const ROUTE: usize = 4000;
/// Attempts and losses that are kept of one exchange.
const LIST: usize = 64;
/// More tokens than this are no count, but a fault of whoever counted.
const MOST_TOKENS: u64 = 1_000_000_000;

/// The id of an exchange: a UUIDv7, so that ids sort by the time of their making.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u128);

impl Id {
    /// An id of this time (milliseconds since 1970) and these random bits.
    pub fn v7(unix_ms: u64, random: u128) -> Self {
        let time = u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80;
        let random = random & ((0xFFF << 64) | 0x3FFF_FFFF_FFFF_FFFF);
        Self(time | (7 << 76) | (2 << 62) | random)
    }

    /// When it was made, in milliseconds since 1970.
    pub fn unix_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }

    /// What a person copies: the last eight digits. The first eight are the time, the same for all of a minute.
    pub fn short(self) -> String {
        format!("{:08x}", self.0 as u32)
    }

    /// As it is stored: the most significant byte first, so that bytes sort as ids do.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From what [`to_bytes`](Self::to_bytes) gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        let (a, b, c) = ((n >> 96) as u32, (n >> 80) as u16, (n >> 64) as u16);
        write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", (n >> 48) as u16, n & 0xFFFF_FFFF_FFFF)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no id of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadId(String);

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is no id of an exchange: an id has 32 hexadecimal digits, in groups or not", self.0)
    }
}

impl std::error::Error for BadId {}

impl<C> Encode<C> for Id {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.to_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Id {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let at = d.position();
        let bytes = d.bytes()?.try_into().map_err(|_| decode::Error::message("an id has 16 bytes").at(at))?;
        Ok(Self::from_bytes(bytes))
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId(text.chars().take(64).collect());
        let digits = text.bytes().filter(|b| *b != b'-').count();
        let hex = text.bytes().filter(|b| *b != b'-').try_fold(0u128, |n, b| {
            let digit = char::from(b).to_digit(16)?;
            Some((n << 4) | u128::from(digit))
        });
        match hex {
            Some(n) if digits == 32 => Ok(Self(n)),
            _ => Err(bad()),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Declares an enum of which the names are also what is written and stored.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* } else $other:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As records, the store and the command line name it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// From its name; `None` if nothing has this name.
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// From its name, where a name that only a newer version knows must not cost the whole record.
            pub fn known(name: &str) -> Self {
                Self::named(name).unwrap_or(Self::$other)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<C> Encode<C> for $name {
            fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
                e.str(self.as_str())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $name {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                Ok(Self::known(d.str()?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Self::known(&<std::borrow::Cow<'de, str>>::deserialize(from)?))
            }
        }
    };
}

named! {
    /// What was asked for.
    Operation {
        /// An answer of a model.
        Generation = "generation",
        /// The size of a prompt.
        CountTokens = "count_tokens",
        /// The list of models, or one of them.
        Models = "models",
        /// Batches of requests.
        Batches = "batches",
        /// Anything else, which was forwarded unread.
        Opaque = "opaque",
    } else Opaque
}

named! {
    /// How an exchange ended.
    Outcome {
        /// The whole answer reached the client.
        Success = "success",
        /// The upstream answered with an error, could not be reached, or failed inside its stream.
        UpstreamError = "upstream_error",
        /// The client went before its answer was whole.
        ClientDisconnected = "client_disconnected",
        /// The upstream was too slow.
        Timeout = "timeout",
        /// The upstream's answer stopped before its end.
        Truncated = "truncated",
        /// We refused, after the request was routed.
        Rejected = "rejected",
        /// It was in flight when the process that served it ended without a word.
        Interrupted = "interrupted",
        /// Of an attempt only: another one, which was made beside it, answered sooner, and this one was cancelled.
        HedgeLost = "hedge_lost",
    } else UpstreamError
}

impl Outcome {
    /// Whether something went wrong. A client that goes is a person who pressed a key.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Success | Self::ClientDisconnected | Self::HedgeLost)
    }
}

/// The last digits of a credential, by which its owner knows it again: never the credential itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Encode, Decode)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct Fingerprint(#[n(0)] Box<str>);

impl Fingerprint {
    /// Four characters of a long key, none of a short one.
    pub fn of(key: &str) -> Self {
        let tail = key.len().checked_sub(4).filter(|_| key.len() >= 16).and_then(|at| key.get(at..));
        Self(["…", tail.unwrap_or_default()].concat().into())
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn stored(text: Box<str>) -> Self {
        Self(text)
    }
}

/// One try at one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct Attempt {
    /// Who was spoken to.
    #[cbor(n(0), default)]
    pub provider: Box<str>,
    /// The model that was asked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(1)]
    pub model: Option<Box<str>>,
    /// How it ended.
    #[n(2)]
    pub outcome: Outcome,
    /// The status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(3)]
    pub status: Option<u16>,
    /// When it began, in microseconds after the exchange did.
    #[serde(default)]
    #[cbor(n(4), skip_if = "is_zero")]
    pub started_us: u64,
    /// How long it took, in microseconds.
    #[serde(default)]
    #[cbor(n(5), skip_if = "is_zero")]
    pub duration_us: u64,
    /// What went wrong, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(6)]
    pub error: Option<Box<str>>,
    /// What it used beside what the exchange's own usage says: it was cancelled, and another one answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(7)]
    pub usage: Option<Box<Usage>>,
    /// What that cost; it is in the cost of the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(8)]
    pub cost: Option<NanoUsd>,
    /// How long it waited for its turn at the provider before it began, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cbor(n(9), skip_if = "is_zero")]
    pub queued_us: u64,
}

impl Attempt {
    /// One of which nothing more is known than who was asked, and how that ended.
    pub fn new(provider: Box<str>, outcome: Outcome) -> Self {
        Self {
            provider,
            model: None,
            outcome,
            status: None,
            started_us: 0,
            duration_us: 0,
            error: None,
            usage: None,
            cost: None,
            queued_us: 0,
        }
    }
}

/// Who takes part in an exchange, and what was asked: known when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
#[serde(default)]
pub struct Parties {
    /// The client's protocol, as configuration names it.
    #[cbor(n(0), default)]
    pub protocol: Box<str>,
    /// The path that was asked, without its query.
    #[cbor(n(1), default)]
    pub endpoint: Box<str>,
    /// Whether a stream was asked for.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(2), skip_if = "is_false")]
    pub stream: bool,
    /// The client's session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(3)]
    pub session: Option<Box<str>>,
    /// The agent within the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(4)]
    pub agent: Option<Box<str>>,
    /// The agent that called this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(5)]
    pub parent_agent: Option<Box<str>>,
    /// What kind of agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(6)]
    pub agent_type: Option<Box<str>>,
    /// The project, as the caller names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(7)]
    pub project: Option<Box<str>>,
    /// Who called: a user, a virtual key's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(8)]
    pub caller: Option<Box<str>>,
    /// The model that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(9)]
    pub requested_model: Option<Box<str>>,
    /// Who served, or was to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(10)]
    pub provider: Option<Box<str>>,
    /// The model that served, or was to serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(11)]
    pub model: Option<Box<str>>,
    /// Paid for by a subscription: the cost is what it would have been.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(12), skip_if = "is_false")]
    pub notional: bool,
    /// Served by the simulator.
    #[serde(skip_serializing_if = "is_false")]
    #[cbor(n(13), skip_if = "is_false")]
    pub simulated: bool,
    /// The one call of `cco run` that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[n(14)]
    pub run: Option<Box<str>>,
}

/// That an exchange began: written before its request goes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct Start {
    /// The exchange.
    #[n(0)]
    pub id: Id,
    /// What was asked for.
    #[n(1)]
    pub operation: Operation,
    /// When, in microseconds since 1970 by the wall clock.
    #[n(2)]
    pub started_us: i64,
    /// Who and what.
    #[serde(flatten)]
    #[cbor(n(3), default)]
    pub parties: Parties,
}

/// What became of one exchange. Fields that a newer version adds are ignored by an older one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// The same in header, log, record and live event.
    #[n(0)]
    pub id: Id,
    /// What was asked for.
    #[n(1)]
    pub operation: Operation,
    /// When it began, in microseconds since 1970 by the wall clock.
    #[n(2)]
    pub started_us: i64,
    /// When it ended, by the wall clock. Clocks jump: how long it took is `duration_us`.
    #[serde(default)]
    #[cbor(n(3), default)]
    pub ended_us: i64,
    /// Who and what.
    #[serde(flatten)]
    #[cbor(n(4), default)]
    pub parties: Parties,
    /// How it ended.
    #[n(5)]
    pub outcome: Outcome,
    /// The status that the client got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(6)]
    pub status: Option<u16>,
    /// Every try, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cbor(n(7), skip_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Why the model stopped, in the provider's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(8)]
    pub stop_reason: Option<Box<str>>,
    /// The id that the upstream gave the exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(9)]
    pub upstream_request_id: Option<Box<str>>,
    /// What the upstream reported, as it reported it: history can be priced again. `None`: it reported nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(10)]
    pub usage: Option<Usage>,
    /// Output tokens by our own count, where no end of the answer was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(11)]
    pub estimated_output: Option<u64>,
    /// Whether something was used that was not reported, or not readably. Never the same as nothing used.
    #[serde(default, skip_serializing_if = "is_false")]
    #[cbor(n(12), skip_if = "is_false")]
    pub usage_unknown: bool,
    /// What it cost. `None`: no price is known. Never 0 for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(13)]
    pub cost: Option<NanoUsd>,
    /// What is to be known about the cost.
    #[serde(default, skip_serializing_if = "Flags::is_none")]
    #[cbor(n(24), skip_if = "Flags::is_none")]
    pub cost_flags: Flags,
    /// Why something that was used has no cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(25)]
    pub unpriced: Option<Unpriced>,
    /// The version of the prices that gave the cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(14)]
    pub price_version: Option<Box<str>>,
    /// Until the first byte of the answer's body, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(15)]
    pub first_byte_us: Option<u64>,
    /// Until the first token, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(16)]
    pub first_token_us: Option<u64>,
    /// From its beginning to its end by a clock that does not jump, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(17)]
    pub duration_us: Option<u64>,
    /// Bytes of the client's body.
    #[serde(default)]
    #[cbor(n(18), skip_if = "is_zero")]
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    #[serde(default)]
    #[cbor(n(19), skip_if = "is_zero")]
    pub bytes_out: u64,
    /// What a translation could not carry: where, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cbor(n(20), skip_if = "Vec::is_empty")]
    pub losses: Vec<Box<str>>,
    /// Which credential was used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(21)]
    pub credential: Option<Fingerprint>,
    /// What the provider said about its limits. The store keeps the newest for each credential, and not with the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(22)]
    pub limits: Option<Limits>,
    /// What went wrong, for a person; never a key, never a prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(23)]
    pub error: Option<Box<str>>,
    /// Why it went where it went: the rule that matched, and how each candidate was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[n(26)]
    pub route: Option<Box<str>>,
    /// How many clients got the answer or a part of it, where that is not the one that asked.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cbor(n(27), skip_if = "is_zero")]
    pub deliveries: u64,
    /// How many times the answer broke off and was continued by a further request.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[cbor(n(28), skip_if = "is_zero")]
    pub continued: u64,
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Record {
    /// The record of an exchange of which nothing is known yet but its beginning.
    pub fn new(start: Start, outcome: Outcome) -> Self {
        Self {
            id: start.id,
            operation: start.operation,
            started_us: start.started_us,
            ended_us: start.started_us,
            parties: start.parties,
            outcome,
            status: None,
            attempts: Vec::new(),
            stop_reason: None,
            upstream_request_id: None,
            usage: None,
            estimated_output: None,
            usage_unknown: false,
            cost: None,
            cost_flags: Flags::default(),
            unpriced: None,
            price_version: None,
            first_byte_us: None,
            first_token_us: None,
            duration_us: None,
            bytes_in: 0,
            bytes_out: 0,
            losses: Vec::new(),
            credential: None,
            limits: None,
            error: None,
            route: None,
            deliveries: 0,
            continued: 0,
        }
    }

    /// What is left of an exchange whose process ended without a word, at the latest at `seen_us`.
    pub fn interrupted(start: Start, seen_us: i64) -> Self {
        let ended_us = seen_us.max(start.started_us);
        let usage_unknown = start.operation == Operation::Generation;
        Self { ended_us, usage_unknown, ..Self::new(start, Outcome::Interrupted) }
    }

    /// Whether the output was counted by us because the upstream did not say, or said less.
    pub fn is_estimated(&self) -> bool {
        self.estimated_output.is_some_and(|n| n > self.reported_output())
    }

    /// Output as it is billed: the larger of what was reported and what was counted.
    pub fn output(&self) -> u64 {
        self.reported_output().max(self.estimated_output.unwrap_or(0))
    }

    /// All tokens that are billed: those of the answer, its output as [`output`](Self::output) says, and those of the turns
    /// beside it.
    pub fn billed(&self) -> Tokens {
        let used = self.used();
        let own = Tokens { output: self.output(), ..used.map(|usage| usage.tokens).unwrap_or_default() };
        used.map_or(own, |usage| own.and(&usage.turns().1))
    }

    fn reported_output(&self) -> u64 {
        self.used().map_or(0, |usage| usage.tokens.output)
    }

    /// What was used, as far as the upstream's word can be believed: counts that nothing can come to are kept as they
    /// were reported, and count for nothing.
    pub fn used(&self) -> Option<&Usage> {
        self.usage.as_ref().filter(|usage| is_believable(usage))
    }

    /// Says of counts that are not believed that what was used is not known.
    pub fn doubt(&mut self) {
        self.usage_unknown |= self.usage.is_some() && self.used().is_none();
    }

    /// Takes out of everything that others put in what must not be kept.
    pub fn clean(&mut self, redactor: &Redactor) {
        if redactor.is_empty() {
            return;
        }
        self.parties.clean(redactor);
        for attempt in &mut self.attempts {
            attempt.model.iter_mut().chain(&mut attempt.error).for_each(|text| redactor.clean(text));
        }
        self.losses.iter_mut().for_each(|loss| redactor.clean(loss));
        let said = [&mut self.stop_reason, &mut self.upstream_request_id, &mut self.error, &mut self.route];
        said.into_iter().flatten().for_each(|text| redactor.clean(text));
    }

    /// Cuts what others put in to a size that is worth keeping.
    pub(crate) fn bound(&mut self) {
        self.parties.bound();
        self.attempts.truncate(LIST);
        for attempt in &mut self.attempts {
            cut(&mut attempt.provider, NAME);
            cut_some(&mut attempt.model, NAME);
            cut_some(&mut attempt.error, MESSAGE);
        }
        self.losses.truncate(LIST);
        self.losses.iter_mut().for_each(|loss| cut(loss, MESSAGE));
        for name in [&mut self.stop_reason, &mut self.upstream_request_id, &mut self.price_version] {
            cut_some(name, NAME);
        }
        cut_some(&mut self.error, MESSAGE);
        cut_some(&mut self.route, ROUTE);
    }
}

/// Whether something can have used so much: no provider takes a thousandth of it in one exchange.
pub fn is_believable(usage: &Usage) -> bool {
    let few = |tokens: &Tokens| tokens.total() <= MOST_TOKENS;
    few(&usage.tokens)
        && usage.iterations.iter().all(|turn| few(&turn.tokens))
        && usage.web_search.max(usage.web_fetch) <= MOST_TOKENS
}

impl Parties {
    /// Takes out of the names that others chose what must not be kept.
    pub fn clean(&mut self, redactor: &Redactor) {
        if redactor.is_empty() {
            return;
        }
        let names = [
            &mut self.session,
            &mut self.agent,
            &mut self.parent_agent,
            &mut self.agent_type,
            &mut self.project,
            &mut self.caller,
            &mut self.requested_model,
            &mut self.model,
            &mut self.run,
        ];
        names.into_iter().flatten().for_each(|name| redactor.clean(name));
        redactor.clean(&mut self.endpoint);
    }

    /// Cuts what others put in to a size that is worth keeping.
    pub(crate) fn bound(&mut self) {
        cut(&mut self.protocol, NAME);
        cut(&mut self.endpoint, NAME);
        let names = [
            &mut self.session,
            &mut self.agent,
            &mut self.parent_agent,
            &mut self.agent_type,
            &mut self.project,
            &mut self.caller,
            &mut self.requested_model,
            &mut self.provider,
            &mut self.model,
            &mut self.run,
        ];
        names.into_iter().for_each(|name| cut_some(name, NAME));
    }
}

fn cut(text: &mut Box<str>, most: usize) {
    if text.len() > most {
        *text = text[..text.floor_char_boundary(most)].into();
    }
}

fn cut_some(text: &mut Option<Box<str>>, most: usize) {
    if let Some(text) = text {
        cut(text, most);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::usage::{CacheWrite, Tokens};

    use super::*;
    use crate::sample::{record, start};

    #[test]
    fn an_id_is_a_uuid_of_version_seven_and_sorts_by_time() {
        let id = Id::v7(0x0199_f3a2_1b3c, u128::MAX);
        assert_eq!(id.to_string(), "0199f3a2-1b3c-7fff-bfff-ffffffffffff");
        assert_eq!(id.unix_ms(), 0x0199_f3a2_1b3c);
        assert_eq!(Id::v7(1, 0).to_string(), "00000000-0001-7000-8000-000000000000");
        assert!(Id::v7(2, 0) > Id::v7(1, u128::MAX));
        assert!(Id::v7(2, 0).to_bytes() > Id::v7(1, u128::MAX).to_bytes());
        assert_eq!(id.short(), "ffffffff");
    }

    #[test]
    fn an_id_is_read_in_groups_or_not_and_nothing_else_is_one() {
        let id = Id::v7(77, 0x1234_5678_9abc);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().replace('-', "").to_uppercase().parse(), Ok(id));
        for bad in ["", "0199", "zz99f3a2-1b3c-7fff-bfff-ffffffffffff", "0199f3a2-1b3c-7fff-bfff-ffffffffffff0"] {
            assert!(bad.parse::<Id>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_record_is_the_same_after_it_was_written_and_read() {
        let record = record(3);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        let start = start(3);
        let text = serde_json::to_string(&start).unwrap();
        assert_eq!(serde_json::from_str::<Start>(&text).unwrap(), start);
    }

    #[test]
    fn fields_and_words_of_a_newer_version_do_not_cost_the_record() {
        let text = r#"{"id":"00000000-0001-7000-8000-000000000000","operation":"telepathy","started_us":5,
            "outcome":"abducted","new_field":{"a":[1]},"attempts":[{"provider":"p","outcome":"success","mood":"good"}]}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((record.operation, record.outcome), (Operation::Opaque, Outcome::UpstreamError));
        assert_eq!(record.attempts.len(), 1);
        assert!(record.usage.is_none() && record.cost.is_none());
    }

    #[test]
    fn what_others_put_in_is_cut_at_a_border_of_characters() {
        let mut record = record(1);
        record.error = Some("é".repeat(5000).into());
        record.parties.session = Some(format!("x{}", "é".repeat(5000)).into());
        record.attempts = vec![record.attempts[0].clone(); 100];
        record.losses = vec!["l".repeat(2000).into(); 100];
        record.bound();
        assert_eq!(record.error.as_ref().map(|e| e.len()), Some(1000));
        assert_eq!(record.parties.session.as_ref().map(|e| e.len()), Some(255));
        assert_eq!((record.attempts.len(), record.losses.len(), record.losses[0].len()), (64, 64, 1000));
    }

    #[test]
    fn a_fingerprint_shows_four_characters_of_a_long_key_only() {
        assert_eq!(Fingerprint::of("sk-ant-api03-abcdefghwxyz").as_str(), "…wxyz");
        assert_eq!(Fingerprint::of("short").as_str(), "…");
        assert_eq!(Fingerprint::of("ééééééééééééé").as_str(), "…éé");
        assert_eq!(Fingerprint::of("0123456789ab€cd").as_str(), "…", "a cut inside a character shows nothing");
    }

    #[test]
    fn output_is_the_larger_of_the_two_counts() {
        let mut record = record(1);
        let reported = record.usage.as_ref().unwrap().tokens.output;
        assert!(!record.is_estimated());
        record.estimated_output = Some(reported + 5);
        assert!(record.is_estimated());
        assert_eq!(record.output(), reported + 5);
        record.estimated_output = Some(1);
        assert_eq!((record.output(), record.is_estimated()), (reported, false));
    }

    prop_compose! {
        fn any_text()(text in proptest::option::of("\\PC{0,20}|[\u{0}-\u{7f}]{0,20}")) -> Option<Box<str>> {
            text.map(Into::into)
        }
    }

    prop_compose! {
        fn any_record()(
            numbers in prop::collection::vec(any::<u64>(), 9),
            times in prop::collection::vec(any::<i64>(), 3),
            texts in prop::collection::vec(any_text(), 10),
            outcome in prop::sample::select(Outcome::ALL),
            operation in prop::sample::select(Operation::ALL),
            flags in prop::collection::vec(any::<bool>(), 4),
            status in proptest::option::of(any::<u16>()),
        ) -> Record {
            let text = |n: usize| texts[n].clone();
            let some = |n: usize| Some(numbers[n]).filter(|n| n % 5 > 0);
            let tokens = Tokens {
                input: numbers[0],
                cache_read: numbers[1],
                cache_write: CacheWrite { h1: numbers[2], ..Default::default() },
                output: numbers[3],
            };
            let parties = Parties {
                protocol: text(0).unwrap_or_default(),
                endpoint: text(1).unwrap_or_default(),
                stream: flags[0],
                session: text(2),
                agent: text(3),
                project: text(4),
                model: text(5),
                run: text(9),
                notional: flags[1],
                simulated: flags[2],
                ..Parties::default()
            };
            let start = Start { id: Id(u128::from(numbers[4]) << 64 | u128::from(numbers[5])), operation, started_us: times[0], parties };
            Record {
                ended_us: times[1],
                status,
                usage: flags[3].then(|| Usage { tokens, ..Usage::default() }),
                estimated_output: some(6),
                usage_unknown: flags[0] ^ flags[3],
                cost: Some(NanoUsd(times[2])).filter(|_| flags[1] ^ flags[3]),
                first_token_us: some(7),
                duration_us: some(8),
                bytes_in: numbers[6],
                losses: texts[6..8].iter().flatten().cloned().collect(),
                stop_reason: text(8),
                error: text(9),
                route: text(7),
                deliveries: numbers[7] % 3,
                continued: numbers[8] % 2,
                ..Record::new(start, outcome)
            }
        }
    }

    proptest! {
        #[test]
        fn any_record_is_the_same_after_it_was_written_and_read(record in any_record()) {
            let text = serde_json::to_vec(&record).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
        }
    }
}
