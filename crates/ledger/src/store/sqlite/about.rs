//! What a row keeps in one piece of JSON, since nothing is looked for by it and nothing is summed of it.
//!
//! It is written by hand, in the same bytes as what the types' attributes would write and at a fourth of the cost: one is
//! written for every exchange.

use serde::{Deserialize, Serialize};
use wire::json::is_plain;
use wire::usage::{CacheWrite, ServiceTier, Speed, Tokens, Usage};

use crate::money::NanoUsd;
use crate::price::{Flags, Unpriced};
use crate::record::{Attempt, Fingerprint, Record};

/// As it is read. What is in a column is not in here.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(default)]
pub(super) struct About {
    pub(super) ended_us: i64,
    pub(super) protocol: Box<str>,
    pub(super) endpoint: Box<str>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<Box<str>>,
    /// The one thing in here that is looked for, among records of a short time: see [`RUN`](super::row::RUN).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Box<str>>,
    /// Where it is not the model that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) requested_model: Option<Box<str>>,
    /// The model was only asked for.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) unserved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_reason: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_request_id: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) estimated_output: Option<u64>,
    #[serde(skip_serializing_if = "Flags::is_none")]
    pub(super) cost_flags: Flags,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unpriced: Option<Unpriced>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) price_version: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempts: Option<Vec<Attempt>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) losses: Option<Vec<Box<str>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) route: Option<Box<str>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) deliveries: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) continued: u64,
}

#[cfg(test)]
fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What can be the value of a member.
trait Value {
    fn write(&self, out: &mut Vec<u8>);
}

impl Value for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Value for u16 {
    fn write(&self, out: &mut Vec<u8>) {
        u64::from(*self).write(out);
    }
}

impl Value for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
    }
}

impl Value for NanoUsd {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
}

impl Value for str {
    fn write(&self, out: &mut Vec<u8>) {
        if !is_plain(self) {
            return rare(self, out);
        }
        out.reserve(self.len() + 2);
        out.push(b'"');
        out.extend_from_slice(self.as_bytes());
        out.push(b'"');
    }
}

/// What hardly any exchange has.
fn rare(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    // A vector takes everything, and no type of ours refuses to be written.
    serde_json::to_writer(out, value).expect("memory takes every record");
}

impl Value for Box<str> {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

impl<T: Value> Value for [T] {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (n, one) in self.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            one.write(out);
        }
        out.push(b']');
    }
}

/// The members of an object. A name is given as `"name":`.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl Members<'_> {
    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.extend_from_slice(name.as_bytes());
    }

    fn put(&mut self, name: &str, value: impl Value) {
        self.name(name);
        value.write(self.out);
    }

    fn some(&mut self, name: &str, value: Option<impl Value>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn count(&mut self, name: &str, count: u64) {
        self.some(name, (count > 0).then_some(count));
    }

    fn flag(&mut self, name: &str, flag: bool) {
        if flag {
            self.name(name);
            self.out.extend_from_slice(b"true");
        }
    }

    fn list(&mut self, name: &str, list: &[impl Value]) {
        self.some(name, (!list.is_empty()).then_some(list));
    }

    fn rare<T: Serialize>(&mut self, name: &str, list: &[T]) {
        if !list.is_empty() {
            self.name(name);
            rare(list, self.out);
        }
    }
}

/// Writes the members that `write` puts in.
fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Members<'_>)) {
    out.push(b'{');
    let mut members = Members { out, first: true };
    write(&mut members);
    out.push(b'}');
}

impl Value for CacheWrite {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |to| {
            to.count(r#""5m":"#, self.m5);
            to.count(r#""30m":"#, self.m30);
            to.count(r#""1h":"#, self.h1);
            to.count(r#""12h":"#, self.h12);
        });
    }
}

impl Value for Tokens {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |to| {
            to.count(r#""input":"#, self.input);
            to.count(r#""cache_read":"#, self.cache_read);
            to.some(r#""cache_write":"#, (self.cache_write != CacheWrite::default()).then_some(&self.cache_write));
            to.count(r#""output":"#, self.output);
        });
    }
}

impl Value for Usage {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |to| {
            to.put(r#""tokens":"#, self.tokens);
            to.count(r#""reasoning":"#, self.reasoning);
            to.count(r#""web_search":"#, self.web_search);
            to.count(r#""web_fetch":"#, self.web_fetch);
            to.some(r#""service_tier":"#, self.service_tier.as_ref().map(ServiceTier::as_str));
            to.some(r#""speed":"#, self.speed.as_ref().map(Speed::as_str));
            to.some(r#""region":"#, self.region.as_deref());
            to.rare(r#""iterations":"#, &self.iterations);
            to.flag(r#""ttl_assumed":"#, self.ttl_assumed);
            to.flag(r#""incomplete":"#, self.incomplete);
            to.rare(r#""other_tools":"#, &self.other_tools);
        });
    }
}

impl Value for Flags {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |to| {
            to.flag(r#""estimated":"#, self.estimated);
            to.flag(r#""notional":"#, self.notional);
            to.flag(r#""rate_assumed":"#, self.rate_assumed);
            to.flag(r#""ttl_assumed":"#, self.ttl_assumed);
            to.flag(r#""incomplete":"#, self.incomplete);
        });
    }
}

impl Value for Attempt {
    fn write(&self, out: &mut Vec<u8>) {
        object(out, |to| {
            to.put(r#""provider":"#, &*self.provider);
            to.some(r#""model":"#, self.model.as_deref());
            to.put(r#""outcome":"#, self.outcome.as_str());
            to.some(r#""status":"#, self.status);
            to.put(r#""started_us":"#, self.started_us);
            to.put(r#""duration_us":"#, self.duration_us);
            to.some(r#""error":"#, self.error.as_deref());
            to.some(r#""usage":"#, self.usage.as_deref());
            to.some(r#""cost":"#, self.cost);
            to.count(r#""queued_us":"#, self.queued_us);
        });
    }
}

/// Writes into `about` what has no column.
pub(super) fn write(record: &Record, about: &mut Vec<u8>) {
    let p = &record.parties;
    let (served, asked) = (p.model.as_deref(), p.requested_model.as_deref());
    about.clear();
    object(about, |to| {
        // The year 1970 is where clocks begin that were never set.
        to.put(r#""ended_us":"#, record.ended_us.max(0));
        to.put(r#""protocol":"#, &*p.protocol);
        to.put(r#""endpoint":"#, &*p.endpoint);
        to.flag(r#""stream":"#, p.stream);
        to.some(r#""caller":"#, p.caller.as_deref());
        to.some(r#""run":"#, p.run.as_deref());
        to.some(r#""requested_model":"#, asked.filter(|_| served.is_some()));
        to.flag(r#""unserved":"#, served.is_none() && asked.is_some());
        to.some(r#""status":"#, record.status);
        to.some(r#""stop_reason":"#, record.stop_reason.as_deref());
        to.some(r#""upstream_request_id":"#, record.upstream_request_id.as_deref());
        to.some(r#""usage":"#, record.usage.as_ref());
        to.some(r#""estimated_output":"#, record.estimated_output);
        to.some(r#""cost_flags":"#, (!record.cost_flags.is_none()).then_some(&record.cost_flags));
        to.some(r#""unpriced":"#, record.unpriced.map(Unpriced::as_str));
        to.some(r#""price_version":"#, record.price_version.as_deref());
        to.some(r#""credential":"#, record.credential.as_ref().map(Fingerprint::as_str));
        to.some(r#""error":"#, record.error.as_deref());
        to.list(r#""attempts":"#, &record.attempts);
        to.list(r#""losses":"#, &record.losses);
        to.some(r#""route":"#, record.route.as_deref());
        to.count(r#""deliveries":"#, record.deliveries);
        to.count(r#""continued":"#, record.continued);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Outcome, Parties};
    use crate::sample::{full, record, start};

    /// The members that `record` has, as the attributes write them.
    fn by_attributes(record: &Record) -> Vec<u8> {
        let Parties { model, requested_model, .. } = record.parties.clone();
        let unserved = model.is_none() && requested_model.is_some();
        let about = About {
            ended_us: record.ended_us.max(0),
            protocol: record.parties.protocol.clone(),
            endpoint: record.parties.endpoint.clone(),
            stream: record.parties.stream,
            caller: record.parties.caller.clone(),
            run: record.parties.run.clone(),
            requested_model: requested_model.filter(|_| model.is_some()),
            unserved,
            status: record.status,
            stop_reason: record.stop_reason.clone(),
            upstream_request_id: record.upstream_request_id.clone(),
            usage: record.usage.clone(),
            estimated_output: record.estimated_output,
            cost_flags: record.cost_flags,
            unpriced: record.unpriced,
            price_version: record.price_version.clone(),
            credential: record.credential.as_ref().map(|key| key.as_str().into()),
            error: record.error.clone(),
            attempts: Some(record.attempts.clone()).filter(|all| !all.is_empty()),
            losses: Some(record.losses.clone()).filter(|all| !all.is_empty()),
            route: record.route.clone(),
            deliveries: record.deliveries,
            continued: record.continued,
        };
        serde_json::to_vec(&about).unwrap()
    }

    #[test]
    fn it_is_what_the_attributes_write() {
        let odd = |text: &str| Record { error: Some(text.into()), ..full() };
        let empty = Record::new(start(1), Outcome::Timeout);
        let texts = ["", "a\"b\\c", "\u{0}\u{1f}\n\r\t\u{7f}\u{2028}", "ä → 🙂", &"long ".repeat(500)];
        let records = (0..200).map(record).chain(texts.map(odd)).chain([full(), empty]);
        let mut about = b"what was there".to_vec();
        for record in records {
            write(&record, &mut about);
            assert_eq!(std::str::from_utf8(&about), std::str::from_utf8(&by_attributes(&record)));
        }
    }
}
