//! What entries hold: the beginning and the end of an exchange, in the form that this version writes and those that it
//! reads.
//!
//! Version 2 is CBOR (RFC 8949) with numbered fields: what a newer version adds is passed over, what an older one left
//! out is empty. Version 1 was JSON.

use serde::Deserialize;

use super::frame::{self, Frame, Kind};
use crate::record::{Record, Start};

/// The version that this program writes. Entries of a later one are left for the program that knows them.
pub(crate) const VERSION: u8 = 2;
/// The first one.
const JSON: u8 = 1;

/// Appends the entry that says that this exchange began.
pub(crate) fn put_start(out: &mut Vec<u8>, record: &Record) {
    frame::encode_with(out, Kind::Start, record.id, |out| record.write_start_cbor(out));
}

/// Appends the entry that says what became of this exchange.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record) {
    frame::encode_with(out, Kind::Record, record.id, |out| record.write_cbor(out));
}

/// What the entry says of an exchange that began; `None` if it cannot be read.
pub(crate) fn read_start(frame: &Frame<'_>) -> Option<Start> {
    read(frame, |payload| minicbor::decode(payload).ok())
}

/// What the entry says of an exchange that ended; `None` if it cannot be read.
pub(crate) fn read_record(frame: &Frame<'_>) -> Option<Record> {
    read(frame, Record::from_cbor)
}

fn read<'b, T: Deserialize<'b>>(frame: &Frame<'b>, cbor: impl FnOnce(&'b [u8]) -> Option<T>) -> Option<T> {
    match frame.version {
        JSON => serde_json::from_slice(frame.payload).ok(),
        _ => cbor(frame.payload),
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{Frames, Step};
    use super::*;
    use crate::record::{Id, Operation, Outcome};
    use crate::sample::{record, start};

    fn only(bytes: &[u8]) -> Frame<'_> {
        let mut frames = Frames::new(bytes);
        let Some(Step::Entry(frame, end)) = frames.next() else { panic!("no entry") };
        assert_eq!(end, bytes.len());
        frame
    }

    #[test]
    fn entries_are_the_same_after_they_were_written_and_read() {
        for n in 0..200 {
            let mut out = Vec::new();
            put_record(&mut out, &record(n));
            assert_eq!(read_record(&only(&out)), Some(record(n)));
            out.clear();
            put_start(&mut out, &record(n));
            assert_eq!(only(&out).kind, Some(Kind::Start));
            assert_eq!(read_start(&only(&out)), Some(start(n)));
        }
        let mut rare = record(3);
        (rare.route, rare.deliveries, rare.continued) = (Some("`defaultProvider`".into()), 2, 1);
        let (usage, lost) = (rare.usage.clone(), &mut rare.attempts[0]);
        (lost.usage, lost.cost, lost.queued_us) = (usage.map(Box::new), Some(crate::money::NanoUsd(7)), 9);
        let mut out = Vec::new();
        put_record(&mut out, &rare);
        assert_eq!(read_record(&only(&out)), Some(rare));
    }

    #[test]
    fn entries_of_the_first_version_are_read() {
        let mut out = Vec::new();
        let text = serde_json::to_vec(&record(3)).unwrap();
        frame::encode_version(&mut out, Kind::Record, JSON, Id(3), &text);
        assert_eq!(read_record(&only(&out)), Some(record(3)));
        out.clear();
        let text = serde_json::to_vec(&start(3)).unwrap();
        frame::encode_version(&mut out, Kind::Start, JSON, Id(3), &text);
        assert_eq!(read_start(&only(&out)), Some(start(3)));
    }

    #[test]
    fn fields_and_words_of_a_newer_version_do_not_cost_the_record() {
        let mut out = Vec::new();
        let mut e = minicbor::Encoder::new(&mut out);
        e.map(6).unwrap().u8(0).unwrap().bytes(&Id(7).to_bytes()).unwrap();
        e.u8(1).unwrap().str("telepathy").unwrap().u8(2).unwrap().i64(5).unwrap();
        e.u8(5).unwrap().str("abducted").unwrap();
        // What this version does not know, as deep as it likes to be.
        e.u16(999).unwrap().map(1).unwrap().str("a").unwrap().array(2).unwrap().u8(1).unwrap().null().unwrap();
        e.u16(1000).unwrap().bool(true).unwrap();
        let record = Record::from_cbor(&out).unwrap();
        assert_eq!((record.operation, record.outcome), (Operation::Opaque, Outcome::UpstreamError));
        assert!(record.usage.is_none() && record.cost.is_none() && record.attempts.is_empty());
    }

    #[test]
    fn what_is_no_entry_is_read_as_none() {
        let mut out = Vec::new();
        put_record(&mut out, &record(3));
        let frame = only(&out);
        for cut in 0..frame.payload.len() {
            assert_eq!(read_record(&Frame { payload: &frame.payload[..cut], ..frame }), None, "cut at byte {cut}");
        }
    }
}
