//! Records as CBOR (RFC 8949), written by hand: the same bytes as what the types' attributes would write, at a fourth of
//! the cost.

use wire::usage::{CacheWrite, ServiceTier, Speed, Tokens, Usage};

use super::{Attempt, Fingerprint, Id, Parties, Record};
use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::price::{Flags, Unpriced};

/// What an item is: the first three bits of its first byte. A number that is not negative has none of them.
pub(super) const NEGATIVE: u8 = 0x20;
pub(super) const BYTES: u8 = 0x40;
pub(super) const TEXT: u8 = 0x60;
pub(super) const ARRAY: u8 = 0x80;
pub(super) const MAP: u8 = 0xA0;
/// Items of one byte.
pub(super) const FALSE: u8 = 0xF4;
pub(super) const TRUE: u8 = 0xF5;

/// What can be the value of a field.
trait Value {
    fn write(&self, out: &mut Vec<u8>);
}

/// What an item is, and the number that belongs to it, in as few bytes as it takes.
#[inline]
fn head(out: &mut Vec<u8>, kind: u8, number: u64) {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    match number {
        0..=0x17 => out.push(kind | h),
        0x18..=0xFF => out.extend_from_slice(&[kind | 24, h]),
        0x100..=0xFFFF => out.extend_from_slice(&[kind | 25, g, h]),
        0x1_0000..=0xFFFF_FFFF => out.extend_from_slice(&[kind | 26, e, f, g, h]),
        _ => out.extend_from_slice(&[kind | 27, a, b, c, d, e, f, g, h]),
    }
}

impl Value for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        head(out, 0, *self);
    }
}

impl Value for u16 {
    fn write(&self, out: &mut Vec<u8>) {
        head(out, 0, (*self).into());
    }
}

impl Value for i64 {
    fn write(&self, out: &mut Vec<u8>) {
        match u64::try_from(*self) {
            Ok(number) => head(out, 0, number),
            Err(_) => head(out, NEGATIVE, !*self as u64),
        }
    }
}

impl<T: Value + ?Sized> Value for &T {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

impl Value for str {
    fn write(&self, out: &mut Vec<u8>) {
        head(out, TEXT, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
    }
}

impl Value for Box<str> {
    fn write(&self, out: &mut Vec<u8>) {
        (**self).write(out);
    }
}

impl Value for Id {
    fn write(&self, out: &mut Vec<u8>) {
        head(out, BYTES, 16);
        out.extend_from_slice(&self.to_bytes());
    }
}

impl<T: Value> Value for [T] {
    fn write(&self, out: &mut Vec<u8>) {
        head(out, ARRAY, self.len() as u64);
        self.iter().for_each(|one| one.write(out));
    }
}

/// The fields of one type, by their numbers, from the lowest up. What says nothing is left out.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    count: u8,
}

impl Fields<'_> {
    fn put(&mut self, number: u8, value: impl Value) {
        head(self.out, 0, number.into());
        value.write(self.out);
        self.count += 1;
    }

    fn some(&mut self, number: u8, value: Option<impl Value>) {
        if let Some(value) = value {
            self.put(number, value);
        }
    }

    fn count(&mut self, number: u8, count: u64) {
        self.some(number, (count > 0).then_some(count));
    }

    fn flag(&mut self, number: u8, flag: bool) {
        if flag {
            head(self.out, 0, number.into());
            self.out.push(TRUE);
            self.count += 1;
        }
    }

    fn list(&mut self, number: u8, list: &[impl Value]) {
        self.some(number, (!list.is_empty()).then_some(list));
    }
}

/// Writes the fields that `write` puts in.
fn map(out: &mut Vec<u8>, write: impl FnOnce(&mut Fields<'_>)) {
    let at = out.len();
    out.push(MAP);
    let mut fields = Fields { out, count: 0 };
    write(&mut fields);
    let count = fields.count;
    if count <= 0x17 {
        out[at] = MAP | count;
    } else {
        out[at] = MAP | 24;
        out.insert(at + 1, count);
    }
}

/// What a provider says in words of its own, which hardly any exchange has.
struct Rare<'a, T>(&'a T);

impl<T: minicbor::Encode<()>> Value for Rare<'_, T> {
    fn write(&self, out: &mut Vec<u8>) {
        // A vector takes everything, and no type of ours refuses to be written.
        minicbor::encode(self.0, out).expect("memory takes every entry");
    }
}

impl Value for CacheWrite {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.count(0, self.m5);
            fields.count(1, self.m30);
            fields.count(2, self.h1);
            fields.count(3, self.h12);
        });
    }
}

impl Value for Tokens {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.count(0, self.input);
            fields.count(1, self.cache_read);
            fields.some(2, (self.cache_write != CacheWrite::default()).then_some(&self.cache_write));
            fields.count(3, self.output);
        });
    }
}

impl Value for Usage {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.put(0, self.tokens);
            fields.count(1, self.reasoning);
            fields.count(2, self.web_search);
            fields.count(3, self.web_fetch);
            fields.some(4, self.service_tier.as_ref().map(ServiceTier::as_str));
            fields.some(5, self.speed.as_ref().map(Speed::as_str));
            fields.some(6, self.region.as_deref());
            fields.some(7, (!self.iterations.is_empty()).then_some(Rare(&self.iterations)));
            fields.flag(8, self.ttl_assumed);
            fields.flag(9, self.incomplete);
            fields.some(10, (!self.other_tools.is_empty()).then_some(Rare(&self.other_tools)));
        });
    }
}

impl Value for Flags {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.flag(0, self.estimated);
            fields.flag(1, self.notional);
            fields.flag(2, self.rate_assumed);
            fields.flag(3, self.ttl_assumed);
            fields.flag(4, self.incomplete);
        });
    }
}

impl Value for Attempt {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.put(0, &*self.provider);
            fields.some(1, self.model.as_deref());
            fields.put(2, self.outcome.as_str());
            fields.some(3, self.status);
            fields.count(4, self.started_us);
            fields.count(5, self.duration_us);
            fields.some(6, self.error.as_deref());
            fields.some(7, self.usage.as_deref());
            fields.some(8, self.cost.map(|NanoUsd(cost)| cost));
            fields.count(9, self.queued_us);
        });
    }
}

impl Value for Parties {
    fn write(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.put(0, &*self.protocol);
            fields.put(1, &*self.endpoint);
            fields.flag(2, self.stream);
            fields.some(3, self.session.as_deref());
            fields.some(4, self.agent.as_deref());
            fields.some(5, self.parent_agent.as_deref());
            fields.some(6, self.agent_type.as_deref());
            fields.some(7, self.project.as_deref());
            fields.some(8, self.caller.as_deref());
            fields.some(9, self.requested_model.as_deref());
            fields.some(10, self.provider.as_deref());
            fields.some(11, self.model.as_deref());
            fields.flag(12, self.notional);
            fields.flag(13, self.simulated);
            fields.some(14, self.run.as_deref());
        });
    }
}

impl Record {
    /// Appends it as CBOR, which is how the journal keeps it.
    pub fn write_cbor(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.put(0, self.id);
            fields.put(1, self.operation.as_str());
            fields.put(2, self.started_us);
            fields.put(3, self.ended_us);
            fields.put(4, &self.parties);
            fields.put(5, self.outcome.as_str());
            fields.some(6, self.status);
            fields.list(7, &self.attempts);
            fields.some(8, self.stop_reason.as_deref());
            fields.some(9, self.upstream_request_id.as_deref());
            fields.some(10, self.usage.as_ref());
            fields.some(11, self.estimated_output);
            fields.flag(12, self.usage_unknown);
            fields.some(13, self.cost.map(|NanoUsd(cost)| cost));
            fields.some(14, self.price_version.as_deref());
            fields.some(15, self.first_byte_us);
            fields.some(16, self.first_token_us);
            fields.some(17, self.duration_us);
            fields.count(18, self.bytes_in);
            fields.count(19, self.bytes_out);
            fields.list(20, &self.losses);
            fields.some(21, self.credential.as_ref().map(Fingerprint::as_str));
            fields.some(22, self.limits.as_ref().map(Limits::as_str));
            fields.some(23, self.error.as_deref());
            fields.some(24, (!self.cost_flags.is_none()).then_some(&self.cost_flags));
            fields.some(25, self.unpriced.map(Unpriced::as_str));
            fields.some(26, self.route.as_deref());
            fields.count(27, self.deliveries);
            fields.count(28, self.continued);
        });
    }

    /// Appends what it says of its beginning, as a [`Start`](super::Start).
    pub(crate) fn write_start_cbor(&self, out: &mut Vec<u8>) {
        map(out, |fields| {
            fields.put(0, self.id);
            fields.put(1, self.operation.as_str());
            fields.put(2, self.started_us);
            fields.put(3, &self.parties);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Outcome, Start};
    use crate::sample::{full, record, start};

    #[track_caller]
    fn check(record: &Record, start: &Start) {
        let mut out = b"what was there".to_vec();
        record.write_cbor(&mut out);
        assert_eq!(out.strip_prefix(b"what was there"), Some(&minicbor::to_vec(record).unwrap()[..]));
        assert_eq!(minicbor::decode::<Record>(&out[14..]).unwrap(), *record);
        out.clear();
        record.write_start_cbor(&mut out);
        assert_eq!(out, minicbor::to_vec(start).unwrap());
    }

    #[test]
    fn what_is_written_is_what_the_attributes_say() {
        for n in 0..200 {
            check(&record(n), &start(n));
        }
        let full = full();
        let Record { id, operation, started_us, parties, .. } = full.clone();
        let start = Start { id, operation, started_us, parties };
        check(&full, &start);
        check(&Record::new(start.clone(), Outcome::Success), &start);
        // As many fields as just fit into one byte, and one more.
        let few = Record { deliveries: 0, continued: 0, route: None, unpriced: None, error: None, ..full.clone() };
        check(&Record { limits: None, ..few.clone() }, &start);
        check(&Record { limits: None, usage_unknown: false, ..few }, &start);
        for number in [0, 23, 24, 255, 256, 65_535, 65_536, 0xFFFF_FFFF, 0x1_0000_0000, i64::MAX] {
            for number in [number, !number] {
                check(&Record { ended_us: number, ..full.clone() }, &start);
            }
        }
    }
}
