//! How entries lie in a segment: framed and checked one by one, so that damage costs no more than what it hits.

use super::entry::VERSION;
use crate::record::Id;

/// Begins every frame. Two of its bytes never occur in UTF-8, so no text in a payload holds it. Where a number does by
/// chance, the checksum tells.
const MARK: [u8; 4] = [0xC0, b'c', b'o', 0xF5];
/// Mark, kind, version, two bytes of nothing, length, checksum, id.
pub(crate) const HEAD: usize = 32;
/// No payload is longer; a length above it is damage.
pub(crate) const LONGEST: usize = 4 * 1024 * 1024;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An exchange began.
    Start = 1,
    /// An exchange ended.
    Record = 2,
    /// The segment was closed in order: what is open in it began again in the next one.
    Closed = 3,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Start, Self::Record, Self::Closed].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One entry as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it is; `None` if only a newer version knows.
    pub(crate) kind: Option<Kind>,
    /// The version of the payload.
    pub(crate) version: u8,
    /// The exchange; 0 if it belongs to none.
    pub(crate) id: Id,
    /// The entry itself.
    pub(crate) payload: &'a [u8],
}

/// Appends a frame with this payload, which is of the version that this program writes.
pub(crate) fn encode(out: &mut Vec<u8>, kind: Kind, id: Id, payload: &[u8]) {
    encode_with(out, kind, id, |out| out.extend_from_slice(payload));
}

/// Appends a frame whose payload `write` appends.
pub(crate) fn encode_with(out: &mut Vec<u8>, kind: Kind, id: Id, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[kind as u8, VERSION, 0, 0]);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&id.to_bytes());
    write(out);
    seal(&mut out[at..]);
}

/// Puts the length and the checksum into a frame that is whole otherwise.
fn seal(frame: &mut [u8]) {
    let length = (frame.len() - HEAD) as u32;
    frame[8..12].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(frame);
    frame[12..16].copy_from_slice(&sum.to_le_bytes());
}

/// Appends a frame as a program wrote it that wrote this version.
#[cfg(test)]
pub(crate) fn encode_version(out: &mut Vec<u8>, kind: Kind, version: u8, id: Id, payload: &[u8]) {
    let at = out.len();
    encode(out, kind, id, payload);
    out[at + 5] = version;
    seal(&mut out[at..]);
}

/// Of everything in a frame but the checksum itself.
fn checksum(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..12]);
    hasher.update(&frame[16..]);
    hasher.finalize()
}

/// What stands at a place in a segment.
#[derive(Debug, PartialEq, Eq)]
enum At<'a> {
    /// A whole frame of this length.
    Frame(Frame<'a>, usize),
    /// What can be the beginning of a frame, but not all of it.
    Part,
    /// Something else.
    Other,
}

fn at(bytes: &[u8]) -> At<'_> {
    let mark = &bytes[..bytes.len().min(MARK.len())];
    if mark != &MARK[..mark.len()] {
        return At::Other;
    }
    let Some(head) = bytes.first_chunk::<HEAD>() else { return At::Part };
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if length > LONGEST {
        return At::Other;
    }
    let Some(frame) = bytes.get(..HEAD + length) else { return At::Part };
    if checksum(frame) != u32::from_le_bytes([head[12], head[13], head[14], head[15]]) {
        return At::Other;
    }
    let mut id = [0; 16];
    id.copy_from_slice(&head[16..]);
    let frame =
        Frame { kind: Kind::from_byte(head[4]), version: head[5], id: Id::from_bytes(id), payload: &frame[HEAD..] };
    At::Frame(frame, HEAD + length)
}

/// One step through a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A whole entry, and where it ends.
    Entry(Frame<'a>, usize),
    /// Bytes that are no entry, with an entry after them.
    Damage {
        /// Where they begin.
        from: usize,
        /// Where they end.
        to: usize,
    },
    /// An entry that was being written when the writer ended; nothing whole comes after it.
    Torn {
        /// Where it begins.
        from: usize,
    },
}

/// Walks through a segment. Whatever its bytes are, every whole frame in it is found.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Frames<'a> {
    /// Over these bytes, which begin where a frame does.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, place: 0 }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let from = self.place;
        let rest = &self.bytes[from..];
        if rest.is_empty() {
            return None;
        }
        if let At::Frame(frame, length) = at(rest) {
            self.place += length;
            return Some(Step::Entry(frame, self.place));
        }
        // The next mark with a good checksum is one of ours.
        let mut next = from + 1;
        while let Some(found) = self.bytes[next..].iter().position(|byte| *byte == MARK[0]) {
            next += found;
            if matches!(at(&self.bytes[next..]), At::Frame(..)) {
                self.place = next;
                return Some(Step::Damage { from, to: next });
            }
            next += 1;
        }
        self.place = self.bytes.len();
        // What a crash leaves is the beginning of an entry; what a power cut leaves can be zeros.
        let torn = matches!(at(rest), At::Part) || rest.iter().all(|byte| *byte == 0);
        Some(if torn { Step::Torn { from } } else { Step::Damage { from, to: self.place } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(payloads: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (Vec::new(), vec![0]);
        for (n, payload) in payloads.iter().enumerate() {
            encode(&mut out, Kind::Record, Id(n as u128), payload);
            ends.push(out.len());
        }
        (out, ends)
    }

    fn ids(bytes: &[u8]) -> Vec<u128> {
        let entry = |step| if let Step::Entry(frame, _) = step { Some(frame.id.0) } else { None };
        Frames::new(bytes).filter_map(entry).collect()
    }

    #[test]
    fn entries_torn_at_every_byte_leave_those_before_them() {
        let (bytes, ends) = segment(&[b"{\"a\":1}", b"", b"{\"a\":\"longer than the others\"}"]);
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(ids(&bytes[..cut]).len(), whole, "cut at byte {cut}");
            let last = Frames::new(&bytes[..cut]).last();
            if ends.contains(&cut) {
                assert!(!matches!(last, Some(Step::Torn { .. } | Step::Damage { .. })), "cut at byte {cut}");
            } else {
                assert_eq!(last, Some(Step::Torn { from: ends[whole] }), "cut at byte {cut}");
            }
        }
    }

    #[test]
    fn every_single_wrong_byte_costs_one_entry_and_is_seen() {
        let (bytes, ends) = segment(&[b"{\"first\":1}", b"{\"second\":2}", b"{\"third\":3}"]);
        for at in 0..bytes.len() {
            let hit = ends.iter().filter(|end| **end <= at).count() - 1;
            for flip in [0x01, 0x80, 0xFF] {
                let mut bad = bytes.clone();
                bad[at] ^= flip;
                let want: Vec<u128> = (0..3).filter(|n| *n != hit as u128).collect();
                assert_eq!(ids(&bad), want, "byte {at}, {flip:02x}");
                let damage = Frames::new(&bad).filter(|step| !matches!(step, Step::Entry(..))).count();
                assert_eq!(damage, 1, "byte {at}, {flip:02x}");
            }
        }
    }

    #[test]
    fn zeros_at_the_end_are_what_a_power_cut_leaves() {
        let (mut bytes, ends) = segment(&[b"one"]);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(Frames::new(&bytes).last(), Some(Step::Torn { from: ends[1] }));
    }

    #[test]
    fn an_entry_of_a_newer_version_is_passed_on_as_what_it_is() {
        let (mut bytes, _) = segment(&[b"x"]);
        (bytes[4], bytes[5]) = (200, 9);
        seal(&mut bytes);
        let Some(Step::Entry(frame, _)) = Frames::new(&bytes).next() else { panic!("no entry") };
        assert_eq!((frame.kind, frame.version), (None, 9));
    }

    proptest! {
        #[test]
        fn whatever_stands_between_entries_they_are_found(
            payloads in prop::collection::vec(prop::collection::vec(0u8..0x80, 0..60), 1..6),
            noise in prop::collection::vec(any::<u8>(), 1..80),
            place in any::<prop::sample::Index>(),
        ) {
            let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
            let (bytes, ends) = segment(&payloads);
            let place = ends[place.index(ends.len())];
            let noisy = [&bytes[..place], &noise, &bytes[place..]].concat();
            let all: Vec<u128> = (0..payloads.len() as u128).collect();
            prop_assert_eq!(ids(&noisy), all);
        }

        #[test]
        fn no_bytes_at_all_make_it_stumble(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut end = 0;
            for step in Frames::new(&bytes) {
                let (from, to) = match step {
                    Step::Entry(frame, to) => (to - HEAD - frame.payload.len(), to),
                    Step::Damage { from, to } => (from, to),
                    Step::Torn { from } => (from, bytes.len()),
                };
                prop_assert_eq!(from, end, "every byte is accounted for");
                prop_assert!(to > from);
                end = to;
            }
            prop_assert_eq!(end, bytes.len());
        }
    }
}
