//! How a pack is laid out: a head, then groups; a group is blocks of chunks and a directory that says what is in them.
//!
//! ```text
//! pack   head head group*                  the head twice, so that one flipped bit does not lose a whole pack
//! head   "ccopack1" or "ccoplain" key-name[8] salt[32] created[8] check[16]
//! group  mark[8] data-len[4] directory-len[4] block* directory
//! block  nonce[24] sealed(zstd(chunks)) tag[16]         plain: zeros, zstd(chunks), a checksum
//! ```
//! A group is written at one go and only ever appended. Its directory comes last and names its own place, so what a
//! crash cut off cannot be taken for a group, and what lies behind a damaged one is still found by its mark.

use super::Kind;
use super::crypt::{ChunkId, Form, PackKeys, RootKey, SEAL_LEN};

/// How a pack begins that is kept in this form.
fn magic(form: Form) -> &'static [u8; 8] {
    match form {
        Form::Sealed => b"ccopack1",
        Form::Plain => b"ccoplain",
    }
}

/// In which form the pack with this head is kept; `None`: it is not a head any more.
pub(super) fn form_of(head: &[u8]) -> Option<Form> {
    let of = |one: &[u8]| [Form::Sealed, Form::Plain].into_iter().find(|form| one.get(..8) == Some(magic(*form)));
    head.chunks(HEAD_ONE).take(2).find_map(of)
}

const HEAD_ONE: usize = 8 + 8 + 32 + 8 + 16;
/// Where the first group begins.
pub(super) const HEAD: usize = 2 * HEAD_ONE;
/// What stands before the blocks of a group.
pub(super) const GROUP_HEAD: usize = 8 + 4 + 4;
/// No directory is longer; a bound for what a damaged length can ask for.
pub(super) const MAX_DIRECTORY: usize = 8 << 20;
/// No block is longer when unpacked.
pub(super) const MAX_BLOCK: usize = 1 << 20;

/// The head of a pack, as bytes.
pub(super) fn write_head(root: &RootKey, keys: &PackKeys, salt: &[u8; 32], created: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (one, two) = head.split_at_mut(HEAD_ONE);
    one[..8].copy_from_slice(magic(keys.form()));
    one[8..16].copy_from_slice(&root.id(keys.form()).unwrap_or_default());
    one[16..48].copy_from_slice(salt);
    one[48..56].copy_from_slice(&created.to_le_bytes());
    let check = keys.check(&one[..56]);
    one[56..].copy_from_slice(&check);
    two.copy_from_slice(one);
    head
}

/// Why a head gives no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// It was written with another key.
    WrongKey,
    /// It is not a head any more.
    Damaged,
}

/// The keys of the pack with this head, and its salt.
pub(super) fn read_head(root: &RootKey, head: &[u8]) -> Result<(PackKeys, [u8; 32]), BadHead> {
    let mut foreign = 0;
    for one in head.chunks_exact(HEAD_ONE).take(2) {
        let salt: [u8; 32] = std::array::from_fn(|at| one[16 + at]);
        let Some(form) = form_of(one) else { continue };
        if let Some(keys) = root.pack(form, &salt)
            && keys.check(&one[..56]) == one[56..]
        {
            return Ok((keys, salt));
        }
        foreign += usize::from(root.id(form).is_none_or(|id| one[8..16] != id));
    }
    Err(if foreign == 2 { BadHead::WrongKey } else { BadHead::Damaged })
}

/// The lengths of a group at `at`, if one begins there.
pub(super) fn read_group_head(keys: &PackKeys, bytes: &[u8]) -> Option<(u32, u32)> {
    let (mark, lengths) = bytes.get(..GROUP_HEAD)?.split_at(8);
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| lengths[at + i]));
    let (data, directory) = (word(0), word(4));
    let plausible = directory as usize >= SEAL_LEN && directory as usize <= MAX_DIRECTORY;
    (mark == keys.mark && plausible).then_some((data, directory))
}

pub(super) fn write_group_head(keys: &PackKeys, head: &mut [u8], data: u32, directory: u32) {
    head[..8].copy_from_slice(&keys.mark);
    head[8..12].copy_from_slice(&data.to_le_bytes());
    head[12..16].copy_from_slice(&directory.to_le_bytes());
}

/// Where a directory belongs: it opens nowhere else, and not with other lengths before it.
pub(super) fn directory_place(group: u64, data: u32) -> [u8; 13] {
    let mut place = [b'd'; 13];
    place[1..9].copy_from_slice(&group.to_le_bytes());
    place[9..].copy_from_slice(&data.to_le_bytes());
    place
}

/// Where a block belongs: it opens nowhere else.
pub(super) fn block_place(group: u64, index: u32) -> [u8; 13] {
    let mut place = [b'b'; 13];
    place[1..9].copy_from_slice(&group.to_le_bytes());
    place[9..].copy_from_slice(&index.to_le_bytes());
    place
}

/// A block of a group: how long it is on disk, and unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) stored: u32,
    pub(super) raw: u32,
}

/// A chunk of a group; chunks follow each other in the blocks without gaps. Only those that may come again have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) len: u32,
    pub(super) id: Option<ChunkId>,
}

/// `count` chunks in a row, from number `start` of the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) count: u32,
}

/// A body: what it is, and the chunks that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) exchange: [u8; 16],
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) time: u64,
    pub(super) session: Option<[u8; 16]>,
    pub(super) coding: Option<Box<str>>,
    pub(super) len: u64,
    pub(super) runs: Vec<Run>,
}

/// Something was taken out of the body before it was stored.
pub(super) const REDACTED: u8 = 1;
/// The body is as it was on the wire: its coding could not be undone.
pub(super) const CODED: u8 = 2;

/// What a group holds. Chunks are numbered through a pack; the first of this group has the number `first_chunk`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) first_chunk: u32,
    pub(super) blocks: Vec<Block>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) bodies: Vec<Entry>,
}

impl Directory {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.first_chunk.into());
        put(out, self.blocks.len() as u64);
        for block in &self.blocks {
            put(out, block.stored.into());
            put(out, block.raw.into());
        }
        put(out, self.chunks.len() as u64);
        for chunk in &self.chunks {
            put(out, u64::from(chunk.len) << 1 | u64::from(chunk.id.is_some()));
            out.extend_from_slice(chunk.id.as_ref().map_or(&[][..], |id| id));
        }
        // Sessions and codings are few: named once, then by number.
        let sessions = distinct(self.bodies.iter().filter_map(|body| body.session.as_ref()));
        put(out, sessions.len() as u64);
        sessions.iter().for_each(|session| out.extend_from_slice(*session));
        let codings = distinct(self.bodies.iter().filter_map(|body| body.coding.as_deref()));
        put(out, codings.len() as u64);
        for coding in &codings {
            put(out, coding.len() as u64);
            out.extend_from_slice(coding.as_bytes());
        }
        put(out, self.bodies.len() as u64);
        let (mut time, mut next) = (0, 0);
        for body in &self.bodies {
            out.extend_from_slice(&body.exchange);
            out.push(body.kind as u8 | body.flags << 2);
            put_signed(out, body.time.wrapping_sub(time) as i64);
            time = body.time;
            put(out, number(&sessions, body.session.as_ref()));
            put(out, number(&codings, body.coding.as_deref()));
            put(out, body.len);
            put(out, body.runs.len() as u64);
            for run in &body.runs {
                put_signed(out, i64::from(run.start) - next);
                put(out, run.count.into());
                next = i64::from(run.start) + i64::from(run.count);
            }
        }
    }

    /// `None` where it is no directory: never a panic, and never more memory than its bytes explain.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Source(bytes);
        let first_chunk = from.word()?;
        let blocks = from.list(2, |from| Some(Block { stored: from.word()?, raw: from.word()? }))?;
        let chunks = from.list(1, |from| {
            let word = from.number()?;
            let id = (word & 1 == 1).then(|| from.array()).map_or(Some(None), |id| id.map(Some))?;
            Some(Chunk { len: u32::try_from(word >> 1).ok()?, id })
        })?;
        let sessions = from.list(16, Source::array::<16>)?;
        let codings = from.list(1, |from| {
            let len = from.word()? as usize;
            std::str::from_utf8(from.bytes(len)?).ok().map(Box::<str>::from)
        })?;
        let (mut time, mut next) = (0_u64, 0_i64);
        let bodies = from.list(16, |from| {
            let exchange = from.array()?;
            let tag = from.array::<1>()?[0];
            time = time.wrapping_add(from.signed()? as u64);
            let session = choose(&sessions, from.number()?)?.copied();
            let coding = choose(&codings, from.number()?)?.cloned();
            let len = from.number()?;
            let runs = from.list(2, |from| {
                let start = u32::try_from(next.checked_add(from.signed()?)?).ok()?;
                let count = from.word()?;
                next = i64::from(start) + i64::from(count);
                Some(Run { start, count })
            })?;
            Some(Entry { exchange, kind: Kind::of(tag & 3), flags: tag >> 2, time, session, coding, len, runs })
        })?;
        from.0.is_empty().then_some(Self { first_chunk, blocks, chunks, bodies })
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
        self.chunks.clear();
        self.bodies.clear();
    }
}

fn distinct<'a, T: ?Sized + PartialEq>(all: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut seen: Vec<&T> = vec![];
    for one in all {
        // The same as the one before, nearly always.
        if !seen.iter().rev().any(|known| *known == one) {
            seen.push(one);
        }
    }
    seen
}

fn number<T: ?Sized + PartialEq>(seen: &[&T], one: Option<&T>) -> u64 {
    one.and_then(|one| seen.iter().position(|known| *known == one)).map_or(0, |at| at as u64 + 1)
}

fn choose<T>(all: &[T], number: u64) -> Option<Option<&T>> {
    match usize::try_from(number).ok()?.checked_sub(1) {
        None => Some(None),
        Some(at) => all.get(at).map(Some),
    }
}

/// Seven bits a byte, the low ones first.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number << 1 ^ number >> 63) as u64);
}

struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.array::<1>()?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn word(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A count, then as many elements of at least `least` bytes each.
    fn list<T>(&mut self, least: usize, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len() / least)?;
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(one(self)?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let run = (any::<u32>(), 0_u32..9).prop_map(|(start, count)| Run { start, count });
        (
            (any::<[u8; 16]>(), 0_u8..4, 0_u8..4, any::<u64>()),
            (proptest::option::of(prop_oneof![Just([1; 16]), Just([2; 16])]), any::<u64>()),
            (proptest::option::of("[a-z]{1,5}"), proptest::collection::vec(run, 0..4)),
        )
            .prop_map(|((exchange, kind, flags, time), (session, len), (coding, runs))| {
                let coding = coding.map(String::into_boxed_str);
                Entry { exchange, kind: Kind::of(kind), flags, time, session, coding, len, runs }
            })
    }

    fn directory() -> impl Strategy<Value = Directory> {
        let block = (any::<u32>(), any::<u32>()).prop_map(|(stored, raw)| Block { stored, raw });
        let chunk = (any::<u32>(), any::<Option<[u8; 16]>>()).prop_map(|(len, id)| Chunk { len, id });
        (
            any::<u32>(),
            proptest::collection::vec(block, 0..4),
            proptest::collection::vec(chunk, 0..6),
            proptest::collection::vec(entry(), 0..6),
        )
            .prop_map(|(first_chunk, blocks, chunks, bodies)| Directory {
                first_chunk,
                blocks,
                chunks,
                bodies,
            })
    }

    proptest! {
        #[test]
        fn a_directory_comes_back_as_it_was(directory in directory()) {
            let mut bytes = vec![];
            directory.encode(&mut bytes);
            for len in 0..bytes.len() {
                prop_assert!(Directory::decode(&bytes[..len]).is_none(), "cut at {}", len);
            }
            prop_assert_eq!(Directory::decode(&bytes), Some(directory));
        }

        #[test]
        fn no_bytes_make_a_directory_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Directory::decode(&bytes);
        }
    }

    #[test]
    fn a_head_survives_any_flipped_bit_and_knows_another_key() {
        let home = tempfile::tempdir().unwrap();
        let [ours, other] = ["a", "b"].map(|name| RootKey::load_or_create(&home.path().join(name)).unwrap());
        let salt = [5; 32];
        let head = write_head(&ours, &ours.pack(Form::Sealed, &salt).unwrap(), &salt, 77);
        assert_eq!(read_head(&ours, &head).ok().map(|(_, salt)| salt), Some(salt));
        assert_eq!(read_head(&other, &head).err(), Some(BadHead::WrongKey));
        assert_eq!(read_head(&RootKey::plain(), &head).err(), Some(BadHead::WrongKey));
        for at in 0..HEAD {
            let mut bad = head;
            bad[at] ^= 0x10;
            assert!(read_head(&ours, &bad).is_ok(), "byte {at}");
        }
        assert_eq!(read_head(&ours, &[0; HEAD]).err(), Some(BadHead::Damaged));
        assert_eq!(read_head(&ours, &head[..10]).err(), Some(BadHead::Damaged));
    }
}
