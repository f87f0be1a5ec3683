//! Records out of CBOR as `write` writes it, by hand: at half the cost of what the types' attributes do. Whatever is in
//! any other form is left to those.

use wire::usage::{CacheWrite, Tokens, Usage};

use super::write::{ARRAY, BYTES, FALSE, MAP, NEGATIVE, TEXT, TRUE};
use super::{Attempt, Fingerprint, Id, LIST, Operation, Outcome, Parties, Record, Start};
use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::price::{Flags, Unpriced};

/// What is not read yet. All that is read of it is `None` where it is not as this version writes it.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// What an item is, and the number that belongs to it.
    #[inline]
    fn head(&mut self) -> Option<(u8, u64)> {
        let (first, rest) = self.0.split_first()?;
        let (number, rest) = match first & 0x1F {
            short @ 0..=0x17 => (short.into(), rest),
            24 => rest.split_first_chunk().map(|(n, rest)| (u8::from_be_bytes(*n).into(), rest))?,
            25 => rest.split_first_chunk().map(|(n, rest)| (u16::from_be_bytes(*n).into(), rest))?,
            26 => rest.split_first_chunk().map(|(n, rest)| (u32::from_be_bytes(*n).into(), rest))?,
            27 => rest.split_first_chunk().map(|(n, rest)| (u64::from_be_bytes(*n), rest))?,
            _ => return None,
        };
        self.0 = rest;
        Some((first & 0xE0, number))
    }

    /// The number of an item that is this.
    fn of(&mut self, kind: u8) -> Option<u64> {
        self.head().filter(|(found, _)| *found == kind).map(|(_, number)| number)
    }

    fn number(&mut self) -> Option<u64> {
        self.of(0)
    }

    fn status(&mut self) -> Option<u16> {
        self.number()?.try_into().ok()
    }

    fn signed(&mut self) -> Option<i64> {
        match self.head()? {
            (0, number) => number.try_into().ok(),
            (NEGATIVE, number) => i64::try_from(number).ok().map(|number| !number),
            _ => None,
        }
    }

    fn flag(&mut self) -> Option<bool> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        match *first {
            TRUE => Some(true),
            FALSE => Some(false),
            _ => None,
        }
    }

    fn bytes(&mut self, kind: u8) -> Option<&'b [u8]> {
        let length = self.of(kind)?.try_into().ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn id(&mut self) -> Option<Id> {
        self.bytes(BYTES)?.try_into().ok().map(Id::from_bytes)
    }

    fn word(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes(TEXT)?).ok()
    }

    fn text(&mut self) -> Option<Box<str>> {
        self.word().map(Box::from)
    }

    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.of(ARRAY)?;
        let mut list = Vec::with_capacity(count.min(LIST as u64) as usize);
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }

    /// Gives the number of each field to `field`, which reads its value.
    fn map(&mut self, mut field: impl FnMut(&mut Self, u64) -> Option<()>) -> Option<()> {
        for _ in 0..self.of(MAP)? {
            let number = self.number()?;
            field(self, number)?;
        }
        Some(())
    }

    fn cache_write(&mut self) -> Option<CacheWrite> {
        let mut to = CacheWrite::default();
        self.map(|from, field| {
            match field {
                0 => to.m5 = from.number()?,
                1 => to.m30 = from.number()?,
                2 => to.h1 = from.number()?,
                3 => to.h12 = from.number()?,
                _ => return None,
            }
            Some(())
        })?;
        Some(to)
    }

    fn tokens(&mut self) -> Option<Tokens> {
        let mut to = Tokens::default();
        self.map(|from, field| {
            match field {
                0 => to.input = from.number()?,
                1 => to.cache_read = from.number()?,
                2 => to.cache_write = from.cache_write()?,
                3 => to.output = from.number()?,
                _ => return None,
            }
            Some(())
        })?;
        Some(to)
    }

    fn usage(&mut self) -> Option<Usage> {
        let mut to = Usage::default();
        self.map(|from, field| {
            match field {
                0 => to.tokens = from.tokens()?,
                1 => to.reasoning = from.number()?,
                2 => to.web_search = from.number()?,
                3 => to.web_fetch = from.number()?,
                4 => to.service_tier = Some(from.word()?.into()),
                5 => to.speed = Some(from.word()?.into()),
                6 => to.region = Some(from.text()?),
                8 => to.ttl_assumed = from.flag()?,
                9 => to.incomplete = from.flag()?,
                // Turns and tools of their own, which hardly any exchange has.
                _ => return None,
            }
            Some(())
        })?;
        Some(to)
    }

    fn flags(&mut self) -> Option<Flags> {
        let mut to = Flags::default();
        self.map(|from, field| {
            match field {
                0 => to.estimated = from.flag()?,
                1 => to.notional = from.flag()?,
                2 => to.rate_assumed = from.flag()?,
                3 => to.ttl_assumed = from.flag()?,
                4 => to.incomplete = from.flag()?,
                _ => return None,
            }
            Some(())
        })?;
        Some(to)
    }

    fn attempt(&mut self) -> Option<Attempt> {
        let (mut to, mut outcome) = (Attempt::new(Box::default(), Outcome::Success), None);
        self.map(|from, field| {
            match field {
                0 => to.provider = from.text()?,
                1 => to.model = Some(from.text()?),
                2 => outcome = Some(Outcome::known(from.word()?)),
                3 => to.status = Some(from.status()?),
                4 => to.started_us = from.number()?,
                5 => to.duration_us = from.number()?,
                6 => to.error = Some(from.text()?),
                7 => to.usage = Some(Box::new(from.usage()?)),
                8 => to.cost = Some(NanoUsd(from.signed()?)),
                9 => to.queued_us = from.number()?,
                _ => return None,
            }
            Some(())
        })?;
        to.outcome = outcome?;
        Some(to)
    }

    fn parties(&mut self) -> Option<Parties> {
        let mut to = Parties::default();
        self.map(|from, field| {
            match field {
                0 => to.protocol = from.text()?,
                1 => to.endpoint = from.text()?,
                2 => to.stream = from.flag()?,
                3 => to.session = Some(from.text()?),
                4 => to.agent = Some(from.text()?),
                5 => to.parent_agent = Some(from.text()?),
                6 => to.agent_type = Some(from.text()?),
                7 => to.project = Some(from.text()?),
                8 => to.caller = Some(from.text()?),
                9 => to.requested_model = Some(from.text()?),
                10 => to.provider = Some(from.text()?),
                11 => to.model = Some(from.text()?),
                12 => to.notional = from.flag()?,
                13 => to.simulated = from.flag()?,
                14 => to.run = Some(from.text()?),
                _ => return None,
            }
            Some(())
        })?;
        Some(to)
    }

    fn record(&mut self) -> Option<Record> {
        let start = Start { id: Id(0), operation: Operation::Opaque, started_us: 0, parties: Parties::default() };
        let mut to = Record::new(start, Outcome::Interrupted);
        let (mut id, mut operation, mut started_us, mut outcome) = (None, None, None, None);
        self.map(|from, field| {
            match field {
                0 => id = Some(from.id()?),
                1 => operation = Some(Operation::known(from.word()?)),
                2 => started_us = Some(from.signed()?),
                3 => to.ended_us = from.signed()?,
                4 => to.parties = from.parties()?,
                5 => outcome = Some(Outcome::known(from.word()?)),
                6 => to.status = Some(from.status()?),
                7 => to.attempts = from.list(Self::attempt)?,
                8 => to.stop_reason = Some(from.text()?),
                9 => to.upstream_request_id = Some(from.text()?),
                10 => to.usage = Some(from.usage()?),
                11 => to.estimated_output = Some(from.number()?),
                12 => to.usage_unknown = from.flag()?,
                13 => to.cost = Some(NanoUsd(from.signed()?)),
                14 => to.price_version = Some(from.text()?),
                15 => to.first_byte_us = Some(from.number()?),
                16 => to.first_token_us = Some(from.number()?),
                17 => to.duration_us = Some(from.number()?),
                18 => to.bytes_in = from.number()?,
                19 => to.bytes_out = from.number()?,
                20 => to.losses = from.list(Self::text)?,
                21 => to.credential = Some(Fingerprint::stored(from.text()?)),
                22 => to.limits = Some(Limits::stored(from.word()?.into())),
                23 => to.error = Some(from.text()?),
                24 => to.cost_flags = from.flags()?,
                25 => to.unpriced = Some(Unpriced::known(from.word()?)),
                26 => to.route = Some(from.text()?),
                27 => to.deliveries = from.number()?,
                28 => to.continued = from.number()?,
                _ => return None,
            }
            Some(())
        })?;
        (to.id, to.operation, to.started_us, to.outcome) = (id?, operation?, started_us?, outcome?);
        Some(to)
    }
}

impl Record {
    /// From what [`write_cbor`](Self::write_cbor) wrote, here or in another version; `None`: it is no record.
    pub fn from_cbor(bytes: &[u8]) -> Option<Self> {
        Reader(bytes).record().or_else(|| minicbor::decode(bytes).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{full, record};

    /// A record with every field, some of them in other forms than most.
    fn short() -> Record {
        Record { route: Some("r".repeat(300).into()), upstream_request_id: Some("é".into()), ..full() }
    }

    fn written(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        record.write_cbor(&mut out);
        out
    }

    #[test]
    fn what_is_written_is_read_without_the_attributes() {
        for record in (0..200).map(record) {
            assert_eq!(Reader(&written(&record)).record(), Some(record));
        }
        let mut all = full();
        assert_eq!(Reader(&written(&all)).record(), None, "it has turns and tools");
        assert_eq!(Record::from_cbor(&written(&all)), Some(all.clone()));
        for usage in all.usage.iter_mut().chain(all.attempts.iter_mut().flat_map(|one| one.usage.as_deref_mut())) {
            (usage.iterations, usage.other_tools) = (Vec::new(), Vec::new());
        }
        assert_eq!(Reader(&written(&all)).record(), Some(all));
    }

    #[test]
    fn whatever_the_bytes_are_they_say_what_the_attributes_say() {
        let check = |bytes: &[u8], what: &str, at: usize| {
            assert_eq!(Record::from_cbor(bytes), minicbor::decode(bytes).ok(), "{what} {at}");
        };
        for record in [record(3), record(17), short()] {
            let bytes = written(&record);
            for at in 0..bytes.len() {
                check(&bytes[..at], "cut at byte", at);
                for other in [0x01, 0x20, 0x40, 0x80, 0xE1, 0xFF] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= other;
                    check(&bytes, "another byte", at);
                }
            }
            check(&[&bytes[..], b"more"].concat(), "something behind", bytes.len());
        }
    }
}
