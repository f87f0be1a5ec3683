//! Reading bodies back, also while another process writes: finding one by its exchange, searching through all.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::crypt::{Form, PackKeys, RootKey};
use super::error::ArchiveError;
use super::format::{CODED, Entry, REDACTED};
use super::pack::{BlockAt, ChunkAt, OpenPack, PackFile, Walk, places};
use super::upkeep::key_for;
use super::{ExchangeId, Kind};
use crate::redact::Pattern;

/// Blocks that are kept unpacked while a body is read …
const BLOCKS_OF_ONE: usize = 4;
/// … and while many are searched, of which neighbours are in the same blocks: 16 MB.
const BLOCKS_OF_MANY: usize = 128;
/// Bodies and chunks of which the directories are kept in memory: a few megabytes. One pack is always kept.
const ENTRIES_KEPT: usize = 50_000;
/// What is shown of a body around what was found in it, on each side.
const AROUND: usize = 100;

/// Reads what an archive holds. Needs no lock and disturbs no writer.
pub struct Reader {
    folder: PathBuf,
    root: Arc<RootKey>,
    recent: Mutex<VecDeque<Arc<Pack>>>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// All that the directories of a pack say. Not the open file: a pack that is deleted must give its room back.
pub(super) struct Pack {
    path: PathBuf,
    len: u64,
    salt: [u8; 32],
    keys: PackKeys,
    groups: Vec<Group>,
    pub(super) bodies: Vec<Entry>,
    pub(super) damaged: usize,
}

/// A pack and its open file.
struct Loaded {
    pack: Arc<Pack>,
    file: Arc<File>,
}

struct Group {
    first_chunk: u32,
    blocks: Vec<BlockAt>,
    chunks: Vec<ChunkAt>,
}

impl Pack {
    pub(super) fn load(open: &OpenPack<'_>) -> Result<Self, ArchiveError> {
        let (keys, salt) = open.keys()?;
        let (mut groups, mut bodies, mut damaged) = (vec![], vec![], 0);
        let walk = open.walk(&keys, |at, mut directory| {
            let Some((blocks, chunks)) = places(at, &directory) else {
                damaged += 1;
                return;
            };
            groups.push(Group { first_chunk: directory.first_chunk, blocks, chunks });
            bodies.append(&mut directory.bodies);
        })?;
        let path = open.path.into();
        Ok(Self { path, len: walk.end + walk.tail, salt, keys, groups, bodies, damaged: damaged + walk.damaged })
    }

    fn entries(&self) -> usize {
        self.bodies.len() + self.groups.iter().map(|group| group.chunks.len()).sum::<usize>()
    }

    /// Where the chunk of this number is.
    fn chunk(&self, number: u32) -> Result<(&BlockAt, ChunkAt), ArchiveError> {
        let after = self.groups.partition_point(|group| group.first_chunk <= number);
        let found = self.groups[..after].iter().rev().find(|group| !group.chunks.is_empty()).and_then(|group| {
            let chunk = *group.chunks.get((number - group.first_chunk) as usize)?;
            Some((group.blocks.get(chunk.block as usize)?, chunk))
        });
        found.ok_or_else(|| ArchiveError::damaged(&self.path, "the group that a body's chunk is in"))
    }
}

/// What is known of a body without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The exchange that it belongs to.
    pub exchange: ExchangeId,
    /// Which of its bodies it is.
    pub kind: Kind,
    /// When it was submitted, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its content coding on the wire. The bytes that are kept are the plain ones, unless `coded`.
    pub coding: Option<Box<str>>,
    /// The coding could not be undone: the bytes are as they were on the wire.
    pub coded: bool,
    /// Something was taken out before it was stored.
    pub redacted: bool,
    /// How many bytes are kept.
    pub len: u64,
}

impl From<&Entry> for About {
    fn from(entry: &Entry) -> Self {
        Self {
            exchange: entry.exchange,
            kind: entry.kind,
            time_ms: entry.time,
            coding: entry.coding.clone(),
            coded: entry.flags & CODED != 0,
            redacted: entry.flags & REDACTED != 0,
            len: entry.len,
        }
    }
}

/// A body that is read back, piece by piece: at no time more than a few blocks of it are in memory.
pub struct BodyReader {
    about: About,
    pack: Arc<Pack>,
    file: Arc<File>,
    root: Arc<RootKey>,
    /// Numbers of the chunks that are still to come.
    runs: VecDeque<(u32, u32)>,
    blocks: Blocks,
    /// What `Read` has not handed out yet.
    rest: Vec<u8>,
    given: usize,
}

impl std::fmt::Debug for BodyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyReader").field("about", &self.about).finish_non_exhaustive()
    }
}

/// Unpacked blocks of a pack by where they are, the last used first.
struct Blocks {
    most: usize,
    kept: VecDeque<(u64, Arc<Vec<u8>>)>,
}

impl Blocks {
    fn new(most: usize) -> Self {
        Self { most, kept: VecDeque::new() }
    }

    fn get(
        &mut self,
        offset: u64,
        unpack: impl FnOnce() -> Result<Vec<u8>, ArchiveError>,
    ) -> Result<Arc<Vec<u8>>, ArchiveError> {
        let found = self.kept.iter().position(|(known, _)| *known == offset).and_then(|at| self.kept.remove(at));
        let block = match found {
            Some((_, block)) => block,
            None => Arc::new(unpack()?),
        };
        self.kept.truncate(self.most - 1);
        self.kept.push_front((offset, Arc::clone(&block)));
        Ok(block)
    }
}

impl BodyReader {
    fn new(root: &Arc<RootKey>, Loaded { pack, file }: &Loaded, entry: &Entry, blocks: Blocks) -> Self {
        Self {
            about: About::from(entry),
            pack: Arc::clone(pack),
            file: Arc::clone(file),
            root: Arc::clone(root),
            runs: entry.runs.iter().map(|run| (run.start, run.count)).collect(),
            blocks,
            rest: vec![],
            given: 0,
        }
    }

    /// What is known of it.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The next piece; `None` at the end.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, ArchiveError> {
        let mut piece = vec![];
        Ok(self.append_next(&mut piece)?.then_some(piece))
    }

    fn append_next(&mut self, out: &mut Vec<u8>) -> Result<bool, ArchiveError> {
        let number = loop {
            match self.runs.front_mut() {
                None => return Ok(false),
                Some((_, 0)) => drop(self.runs.pop_front()),
                Some((next, left)) => {
                    let number = *next;
                    // A forged count cannot get here; a wrong one of our own must not panic.
                    (*next, *left) = (next.saturating_add(1), *left - 1);
                    break number;
                }
            }
        };
        let (block, chunk) = self.pack.chunk(number)?;
        let open = OpenPack { file: &self.file, path: &self.pack.path, root: &self.root };
        let block = self.blocks.get(block.offset, || open.block(&self.pack.keys, block))?;
        let from = chunk.from as usize;
        let bytes = block.get(from..from + chunk.len as usize);
        out.extend_from_slice(bytes.ok_or_else(|| ArchiveError::damaged(&self.pack.path, "a block"))?);
        Ok(true)
    }

    /// The whole body.
    pub fn bytes(mut self) -> Result<Vec<u8>, ArchiveError> {
        self.whole()
    }

    fn whole(&mut self) -> Result<Vec<u8>, ArchiveError> {
        // The length is a hint from a file: no more room at once than bodies usually need.
        let mut bytes = Vec::with_capacity(usize::try_from(self.about.len).unwrap_or(0).min(1 << 20));
        while self.append_next(&mut bytes)? {}
        if bytes.len() as u64 == self.about.len {
            Ok(bytes)
        } else {
            Err(ArchiveError::damaged(&self.pack.path, "the list of a body's chunks"))
        }
    }
}

impl io::Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.rest.len() {
            let mut rest = std::mem::take(&mut self.rest);
            rest.clear();
            let more = self.append_next(&mut rest).map_err(io::Error::other)?;
            (self.rest, self.given) = (rest, 0);
            if !more {
                return Ok(0);
            }
        }
        let left = &self.rest[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }
}

/// How far a search goes. Whatever ends it first.
#[derive(Debug, Clone)]
pub struct GrepLimits {
    /// Bodies that are searched.
    pub bodies: u64,
    /// Bytes that are searched.
    pub bytes: u64,
    /// Bodies of more bytes than this are passed over, and counted.
    pub body_bytes: u64,
    /// Bodies in which something is found.
    pub hits: u64,
    /// Only bodies from this time on, in milliseconds since 1970.
    pub since_ms: u64,
    /// Only bodies before this time.
    pub until_ms: u64,
}

impl Default for GrepLimits {
    fn default() -> Self {
        Self { bodies: 10_000, bytes: 1 << 30, body_bytes: 64 << 20, hits: 100, since_ms: 0, until_ms: u64::MAX }
    }
}

/// A body in which the pattern was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which body.
    pub about: About,
    /// Where the first match is.
    pub at: u64,
    /// What is around it. Bytes of a model or of a user: to be escaped before they are shown.
    pub excerpt: Vec<u8>,
    /// Which part of the excerpt matched.
    pub matched: std::ops::Range<usize>,
}

/// What a search looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scan {
    /// Bodies that were searched.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bodies in which the pattern was found.
    pub hits: u64,
    /// Bodies, and damaged places, that could not be read, and bodies that were too large.
    pub unread: u64,
    /// A limit ended the search before everything was seen.
    pub cut: bool,
}

impl Reader {
    /// A reader of the archive in this folder, with the key at this path, which need not be there if nothing is sealed.
    pub fn open(folder: &Path, key: &Path) -> Result<Self, ArchiveError> {
        Ok(Self::new(folder, Arc::new(key_for(folder, key, Form::Plain)?)))
    }

    pub(super) fn new(folder: &Path, root: Arc<RootKey>) -> Self {
        Self { folder: folder.into(), root, recent: Mutex::default() }
    }

    fn packs(&self) -> Result<Vec<PackFile>, ArchiveError> {
        PackFile::list(&self.folder).map_err(ArchiveError::io("list", &self.folder))
    }

    /// `None`: it was deleted since it was listed, or what is asked for is not in it.
    fn load(&self, listed: &PackFile, asked: Option<&ExchangeId>) -> Result<Option<Loaded>, ArchiveError> {
        let file = match File::open(&listed.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => Arc::new(other.map_err(ArchiveError::io("open", &listed.path))?),
        };
        let open = OpenPack { file: &file, path: &listed.path, root: &self.root };
        let (keys, salt) = match open.keys() {
            // Begun this moment, or left so by a crash: nothing can be in it.
            Err(_) if listed.len == 0 => return Ok(None),
            other => other?,
        };
        let len = file.metadata().map_err(ArchiveError::io("read", &listed.path))?.len();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter().find(|pack| pack.salt == salt && pack.len == len).map(Arc::clone);
        let pack = match known {
            Some(known) => known,
            None => {
                if let Some(exchange) = asked
                    && let (false, Walk { damaged: 0, .. }) = open.names(&keys, exchange)?
                {
                    return Ok(None);
                }
                let pack = Arc::new(Pack::load(&open)?);
                recent.retain(|known| known.salt != salt);
                recent.push_front(Arc::clone(&pack));
                let mut entries = 0;
                recent.retain(|pack| {
                    let first = entries == 0;
                    entries += pack.entries() + 1;
                    first || entries <= ENTRIES_KEPT
                });
                pack
            }
        };
        Ok(Some(Loaded { pack, file }))
    }

    /// The body of an exchange. `None`: there is none, it was skipped, or it has been deleted.
    pub fn read(&self, exchange: ExchangeId, kind: Kind) -> Result<Option<BodyReader>, ArchiveError> {
        let (mut places, mut first) = (0, None);
        for listed in likely_first(self.packs()?, began(exchange)) {
            match self.load(&listed, Some(&exchange)) {
                Ok(None) => {}
                Ok(Some(loaded)) => {
                    let pack = &loaded.pack;
                    let found = pack.bodies.iter().rev().find(|body| body.exchange == exchange && body.kind == kind);
                    if let Some(entry) = found {
                        let blocks = Blocks::new(BLOCKS_OF_ONE);
                        return Ok(Some(BodyReader::new(&self.root, &loaded, entry, blocks)));
                    }
                    if pack.damaged > 0 {
                        places += pack.damaged;
                        first.get_or_insert_with(|| ArchiveError::damaged(&listed.path, "a group"));
                    }
                }
                Err(error) => {
                    places += 1;
                    first.get_or_insert(error);
                }
            }
        }
        match first {
            // One way of being unreadable has a remedy of its own.
            Some(error @ ArchiveError::WrongKey(_)) => Err(error),
            Some(error) => Err(ArchiveError::MaybeLost { places, first: Box::new(error) }),
            None => Ok(None),
        }
    }

    /// Calls `each` with every body that matches, the newest first, until it breaks or a limit is reached.
    pub fn grep(
        &self,
        pattern: &Pattern,
        limits: &GrepLimits,
        mut each: impl FnMut(Hit) -> ControlFlow<()>,
    ) -> Result<Scan, ArchiveError> {
        let mut scan = Scan::default();
        for listed in self.packs()?.into_iter().rev() {
            let loaded = match self.load(&listed, None) {
                Ok(Some(loaded)) => loaded,
                Ok(None) => continue,
                Err(_) => {
                    scan.unread += 1;
                    continue;
                }
            };
            scan.unread += loaded.pack.damaged as u64;
            let mut blocks = Blocks::new(BLOCKS_OF_MANY);
            for entry in loaded.pack.bodies.iter().rev() {
                if !(limits.since_ms..limits.until_ms).contains(&entry.time) {
                    continue;
                }
                if scan.bodies >= limits.bodies || scan.bytes >= limits.bytes || scan.hits >= limits.hits {
                    scan.cut = true;
                    return Ok(scan);
                }
                if entry.len > limits.body_bytes {
                    scan.unread += 1;
                    continue;
                }
                let mut body = BodyReader::new(&self.root, &loaded, entry, blocks);
                let bytes = body.whole();
                blocks = body.blocks;
                let Ok(bytes) = bytes else {
                    scan.unread += 1;
                    continue;
                };
                scan.bodies += 1;
                scan.bytes += bytes.len() as u64;
                let Some(found) = pattern.find(&bytes) else { continue };
                scan.hits += 1;
                let from = found.start.saturating_sub(AROUND);
                let to = bytes.len().min(found.start.saturating_add(2 * AROUND).max(found.start)).max(from);
                let matched = found.start - from..found.end.min(to) - from;
                let excerpt = bytes[from..to].to_vec();
                if each(Hit { about: About::from(entry), at: found.start as u64, excerpt, matched }).is_break() {
                    scan.cut = true;
                    return Ok(scan);
                }
            }
        }
        Ok(scan)
    }
}

/// When an exchange began, if its id tells (UUID version 7).
fn began(exchange: ExchangeId) -> Option<u64> {
    let time = exchange[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
    (exchange[6] >> 4 == 7).then_some(time)
}

/// The packs in the order in which a body of that time is likely to be in them: the one that was being written then, the
/// later ones, the earlier ones.
fn likely_first(mut packs: Vec<PackFile>, began: Option<u64>) -> Vec<PackFile> {
    let Some(began) = began else {
        packs.reverse();
        return packs;
    };
    let current = packs.partition_point(|pack| pack.created <= began).saturating_sub(1);
    let later = packs.split_off(current.min(packs.len()));
    packs.reverse();
    later.into_iter().chain(packs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(began: Option<u64>) -> Vec<u64> {
        let pack = |created| PackFile { created, path: PathBuf::new(), len: 0 };
        likely_first([10, 20, 30, 40].map(pack).into(), began).into_iter().map(|pack| pack.created).collect()
    }

    #[test]
    fn the_pack_that_was_written_then_is_looked_at_first() {
        assert_eq!(order(Some(25)), [20, 30, 40, 10]);
        assert_eq!(order(Some(20)), [20, 30, 40, 10]);
        assert_eq!(order(Some(5)), [10, 20, 30, 40]);
        assert_eq!(order(Some(99)), [40, 30, 20, 10]);
        assert_eq!(order(None), [40, 30, 20, 10]);
        assert!(likely_first(vec![], Some(1)).is_empty());
    }

    #[test]
    fn only_ids_of_version_seven_tell_a_time() {
        let mut id = [0; 16];
        id[4..7].copy_from_slice(&[1, 2, 0x70]);
        assert_eq!(began(id), Some(258));
        id[6] = 0x40;
        assert_eq!(began(id), None);
    }
}
