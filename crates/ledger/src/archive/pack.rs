//! One file of bodies: appended to, walked through, destroyed.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Cursor};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::chunker::{Cutter, MIN};
use super::crypt::{ChunkId, Form, Names, PackKeys, RootKey, SEAL_LEN, begin_seal, random};
use super::error::ArchiveError;
use super::format::{
    BadHead, Block, Chunk, Directory, Entry, GROUP_HEAD, HEAD, MAX_BLOCK, Run, block_place, directory_place,
    read_group_head, read_head, write_group_head, write_head,
};
use crate::private;

/// A block is closed at this many bytes: large enough to compress well, small enough to be unpacked for one chunk.
const BLOCK: usize = 128 * 1024;
/// A group is written at this many sealed bytes, so that a batch of large bodies needs little memory …
const GROUP: usize = 1 << 20;
/// … and at this many bodies.
const GROUP_BODIES: usize = 1024;

/// What the writing side needs for every pack: made once, used again.
pub(super) struct Engine {
    compressor: zstd::bulk::Compressor<'static>,
    cutter: Cutter,
    pub(super) names: Names,
}

impl Engine {
    pub(super) fn new(root: &RootKey, level: i32) -> io::Result<Self> {
        let compressor = zstd::bulk::Compressor::new(level)?;
        let keys = root.borders(root.form()).zip(root.names(root.form()));
        let (borders, names) = keys.expect("a root that seals has a key");
        Ok(Self { compressor, cutter: Cutter::new(&borders), names })
    }
}

/// A pack's name in the folder: when it was begun, and something that no other process chose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackFile {
    pub(super) created: u64,
    pub(super) path: PathBuf,
    pub(super) len: u64,
}

const SUFFIX: &str = "pack";
/// What a pack is called while it is written anew.
const DRAFT: &str = "draft";

impl PackFile {
    fn name(created: u64) -> io::Result<String> {
        let mut mark = [0; 4];
        random(&mut mark)?;
        Ok(format!("{created:012x}-{:08x}.{SUFFIX}", u32::from_le_bytes(mark)))
    }

    /// All packs of a folder, the oldest first. A folder that is not there holds none.
    pub(super) fn list(folder: &Path) -> io::Result<Vec<Self>> {
        let mut all = vec![];
        for entry in listing(folder)? {
            let entry = entry?;
            let path = entry.path();
            let created = path.file_stem().and_then(|stem| stem.to_str()?.get(..12));
            let Some(created) = created.and_then(|hex| u64::from_str_radix(hex, 16).ok()) else { continue };
            if path.extension().is_some_and(|ending| ending == SUFFIX) {
                // Another process may have removed it since.
                let Ok(about) = entry.metadata() else { continue };
                all.push(Self { created, path, len: about.len() });
            }
        }
        all.sort();
        Ok(all)
    }

    /// Removes what an interrupted rewriting left. To be called by whoever holds the folder's lock.
    pub(super) fn remove_drafts(folder: &Path) -> io::Result<()> {
        for entry in listing(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == DRAFT) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    pub(super) fn draft(&self) -> PathBuf {
        self.path.with_extension(DRAFT)
    }
}

fn listing(folder: &Path) -> io::Result<Box<dyn Iterator<Item = io::Result<std::fs::DirEntry>>>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(error),
    }
}

/// Makes a pack unreadable, also for one who has the root key: its salt is gone. The file is still there.
pub(super) fn destroy(file: &File) -> io::Result<()> {
    file.write_all_at(&[0; HEAD], 0)?;
    file.sync_data()
}

/// What is known of a body before it is written.
pub(super) struct About {
    pub(super) exchange: [u8; 16],
    pub(super) kind: super::Kind,
    pub(super) flags: u8,
    pub(super) time: u64,
    pub(super) session: Option<[u8; 16]>,
    pub(super) coding: Option<Box<str>>,
}

/// Names of chunks are as good as random: no need to mix them again.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    /// The length that precedes an array is always the same.
    fn write_usize(&mut self, _len: usize) {}
}

/// The end of a pack at which bodies are appended.
pub(super) struct PackWriter {
    file: File,
    path: PathBuf,
    keys: PackKeys,
    pub(super) created: u64,
    /// Where the next group begins: everything before is written.
    end: u64,
    next_chunk: u32,
    /// Bodies that were written since it was opened.
    bodies: u64,
    /// Bytes that were written since somebody asked.
    bytes: u64,
    /// Chunks that need not be written again.
    known: HashMap<ChunkId, u32, BuildHasherDefault<AsItIs>>,
    group: Group,
}

/// The group that is being made.
#[derive(Default)]
struct Group {
    /// The group as it will be on disk: its head and the blocks that are done.
    out: Vec<u8>,
    /// The block that is being filled.
    open: Vec<u8>,
    directory: Directory,
}

impl PackWriter {
    /// Begins a pack of this form at this path, or under a new name where `folder` is given.
    pub(super) fn create(place: Place<'_>, root: &RootKey, form: Form, created: u64) -> io::Result<Self> {
        let path = match place {
            Place::In(folder) => folder.join(PackFile::name(created)?),
            Place::At(path) => path.to_path_buf(),
        };
        let mut salt = [0; 32];
        random(&mut salt)?;
        let keys = root.pack(form, &salt).ok_or_else(|| io::Error::other("there is no key to seal with"))?;
        let file = private::create_new(&path)?;
        let begun = file
            .try_lock()
            .map_err(io::Error::from)
            .and_then(|()| file.write_all_at(&write_head(root, &keys, &salt, created), 0));
        if let Err(error) = begun {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let (end, known) = (HEAD as u64, HashMap::default());
        Ok(Self { file, path, keys, created, end, next_chunk: 0, bodies: 0, bytes: 0, known, group: Group::default() })
    }

    /// Goes on with a pack that a process left: cuts off what it did not finish. `None`: it is in use, damaged, or kept in
    /// another form than what comes is to be.
    pub(super) fn reopen(pack: &PackFile, root: &RootKey) -> Result<Option<Self>, ArchiveError> {
        let Ok(file) = private::open_existing(&pack.path) else { return Ok(None) };
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut known = HashMap::default();
        let mut next_chunk = 0_u32;
        let open = OpenPack { file: &file, path: &pack.path, root };
        let Ok((keys, _)) = open.keys() else { return Ok(None) };
        if keys.form() != root.form() {
            return Ok(None);
        }
        let walk = open.walk(&keys, |_, directory| {
            for (number, chunk) in (directory.first_chunk..).zip(&directory.chunks) {
                known.extend(chunk.id.map(|id| (id, number)));
            }
            next_chunk = directory.first_chunk + directory.chunks.len() as u32;
        })?;
        if walk.damaged > 0 {
            return Ok(None);
        }
        if walk.tail > 0 {
            file.set_len(walk.end).map_err(ArchiveError::io("shorten", &pack.path))?;
        }
        let (path, created, end) = (pack.path.clone(), pack.created, walk.end);
        Ok(Some(Self {
            file,
            path,
            keys,
            created,
            end,
            next_chunk,
            bodies: 0,
            bytes: 0,
            known,
            group: Group::default(),
        }))
    }

    /// How long the pack is, with what is not written yet.
    pub(super) fn len(&self) -> u64 {
        self.end + (self.group.out.len() + self.group.open.len()) as u64
    }

    /// How many chunks it has: what it costs in memory.
    pub(super) fn chunks(&self) -> u32 {
        self.next_chunk
    }

    /// How many bodies were written since it was opened.
    pub(super) fn written(&self) -> u64 {
        self.bodies
    }

    /// How many bytes were written since this was last asked.
    pub(super) fn take_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Appends a body. It is in the file after the next `flush`.
    pub(super) fn put(&mut self, engine: &mut Engine, about: About, body: &[u8]) -> io::Result<()> {
        let mut runs: Vec<Run> = vec![];
        if body.len() <= MIN {
            // So short that a name would cost more than it can save: what repeats in it, the block's compression sees.
            if !body.is_empty() {
                add_to(&mut runs, self.chunk(engine, None, body)?);
            }
        } else {
            let mut rest = body;
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(engine.cutter.first(rest));
                rest = after;
                let id = engine.names.chunk(chunk);
                let number = match self.known.get(&id) {
                    Some(number) => *number,
                    None => self.chunk(engine, Some(id), chunk)?,
                };
                add_to(&mut runs, number);
            }
        }
        let About { exchange, kind, flags, time, session, coding } = about;
        self.entry(engine, Entry { exchange, kind, flags, time, session, coding, len: body.len() as u64, runs })
    }

    /// Appends a chunk and gives its number.
    pub(super) fn chunk(&mut self, engine: &mut Engine, id: Option<ChunkId>, bytes: &[u8]) -> io::Result<u32> {
        if self.group.out.len() >= GROUP {
            self.flush(engine)?;
        }
        let Group { open, directory, .. } = &mut self.group;
        open.extend_from_slice(bytes);
        if directory.chunks.is_empty() {
            directory.first_chunk = self.next_chunk;
        }
        directory.chunks.push(Chunk { len: bytes.len() as u32, id });
        let number = self.next_chunk;
        self.next_chunk += 1;
        self.known.extend(id.map(|id| (id, number)));
        if open.len() >= BLOCK {
            self.close_block(engine)?;
        }
        Ok(number)
    }

    /// Appends what a body is made of; its chunks are there already.
    pub(super) fn entry(&mut self, engine: &mut Engine, entry: Entry) -> io::Result<()> {
        let directory = &mut self.group.directory;
        if directory.chunks.is_empty() {
            directory.first_chunk = self.next_chunk;
        }
        directory.bodies.push(entry);
        if directory.bodies.len() >= GROUP_BODIES { self.flush(engine).map(drop) } else { Ok(()) }
    }

    fn close_block(&mut self, engine: &mut Engine) -> io::Result<()> {
        let Group { out, open, directory } = &mut self.group;
        if open.is_empty() {
            return Ok(());
        }
        out.resize(out.len().max(GROUP_HEAD), 0);
        let from = begin_seal(out);
        let plain = out.len();
        out.reserve(zstd::zstd_safe::compress_bound(open.len()));
        // Into the room behind what is there, which nobody has to fill before.
        let mut room = Cursor::new(&mut *out);
        room.set_position(plain as u64);
        engine.compressor.compress_to_buffer(open, &mut room)?;
        self.keys.seal(&block_place(self.end, directory.blocks.len() as u32), out, from)?;
        directory.blocks.push(Block { stored: (out.len() - from) as u32, raw: open.len() as u32 });
        open.clear();
        Ok(())
    }

    /// Writes what was appended, and says how many bytes that took. After an error, the pack must not be used any more:
    /// it ends where it ended before.
    pub(super) fn flush(&mut self, engine: &mut Engine) -> io::Result<u64> {
        self.close_block(engine)?;
        let Group { out, open, directory } = &mut self.group;
        if directory.bodies.is_empty() && directory.chunks.is_empty() {
            return Ok(0);
        }
        out.resize(out.len().max(GROUP_HEAD), 0);
        let data = (out.len() - GROUP_HEAD) as u32;
        let from = begin_seal(out);
        directory.encode(out);
        self.keys.seal(&directory_place(self.end, data), out, from)?;
        let length = (out.len() - from) as u32;
        write_group_head(&self.keys, &mut out[..GROUP_HEAD], data, length);
        if let Err(error) = self.file.write_all_at(out, self.end) {
            // What arrived of it gives its room back; if even that fails, it is no group and is ignored.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        let written = out.len() as u64;
        self.end += written;
        self.bytes += written;
        self.bodies += directory.bodies.len() as u64;
        directory.clear();
        out.clear();
        // A wave of large bodies does not keep its memory.
        out.shrink_to(2 * BLOCK);
        open.shrink_to(2 * BLOCK);
        Ok(written)
    }
}

/// Where a new pack goes.
pub(super) enum Place<'a> {
    /// Into this folder, under a new name.
    In(&'a Path),
    /// Exactly there.
    At(&'a Path),
}

pub(super) fn add_to(runs: &mut Vec<Run>, number: u32) {
    match runs.last_mut() {
        Some(run) if run.start + run.count == number => run.count += 1,
        _ => runs.push(Run { start: number, count: 1 }),
    }
}

/// A pack that is open for reading.
pub(super) struct OpenPack<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) root: &'a RootKey,
}

/// What a walk through a pack saw.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walk {
    /// Behind the last whole group.
    pub(super) end: u64,
    /// Places that are not what was written.
    pub(super) damaged: usize,
    /// Bytes behind the last group: what a crash cut off, or what is being written just now.
    pub(super) tail: u64,
}

impl OpenPack<'_> {
    pub(super) fn keys(&self) -> Result<(PackKeys, [u8; 32]), ArchiveError> {
        let mut head = [0; HEAD];
        match self.file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ArchiveError::damaged(self.path, "its head"));
            }
            other => other.map_err(ArchiveError::io("read", self.path))?,
        }
        read_head(self.root, &head).map_err(|bad| match bad {
            BadHead::WrongKey => ArchiveError::WrongKey(self.path.into()),
            BadHead::Damaged => ArchiveError::damaged(self.path, "its head"),
        })
    }

    /// Calls `each` with every readable group, in order, and where it begins.
    pub(super) fn walk(&self, keys: &PackKeys, mut each: impl FnMut(u64, Directory)) -> Result<Walk, ArchiveError> {
        self.walk_raw(keys, |at, bytes| match Directory::decode(bytes) {
            Some(directory) => {
                each(at, directory);
                true
            }
            None => false,
        })
    }

    /// Whether an exchange is named in this pack, without taking the directories apart.
    pub(super) fn names(&self, keys: &PackKeys, exchange: &[u8; 16]) -> Result<(bool, Walk), ArchiveError> {
        let (finder, mut found) = (memchr::memmem::Finder::new(exchange), false);
        let walk = self.walk_raw(keys, |_, bytes| {
            found |= finder.find(bytes).is_some();
            true
        })?;
        Ok((found, walk))
    }

    /// Calls `each` with the bytes of every directory that opens; `false`: they are no directory.
    fn walk_raw(&self, keys: &PackKeys, mut each: impl FnMut(u64, &[u8]) -> bool) -> Result<Walk, ArchiveError> {
        let len = self.file.metadata().map_err(ArchiveError::io("read", self.path))?.len();
        let mut walk = Walk { end: HEAD as u64, ..Walk::default() };
        let mut at = walk.end;
        while at < len {
            let before = walk.end;
            match self.group(keys, at, len, &mut each)? {
                Seen::Whole(end) => {
                    walk.damaged += usize::from(at != before);
                    (at, walk.end) = (end, end);
                }
                Seen::Forged(end) if end == len => {
                    // The last group, complete and not as it was written: no crash does that.
                    walk.damaged += 1;
                    walk.end = len;
                    at = len;
                }
                Seen::Forged(_) | Seen::Nothing => match self.next_mark(keys, at + 1, len)? {
                    Some(mark) => at = mark,
                    None => break,
                },
            }
        }
        walk.tail = len - walk.end;
        Ok(walk)
    }

    fn group(
        &self,
        keys: &PackKeys,
        at: u64,
        len: u64,
        each: &mut impl FnMut(u64, &[u8]) -> bool,
    ) -> Result<Seen, ArchiveError> {
        let failed = || ArchiveError::io("read", self.path);
        let mut head = [0; GROUP_HEAD];
        if len - at < GROUP_HEAD as u64 {
            return Ok(Seen::Nothing);
        }
        self.file.read_exact_at(&mut head, at).map_err(failed())?;
        let Some((data, directory)) = read_group_head(keys, &head) else { return Ok(Seen::Nothing) };
        let from = at + GROUP_HEAD as u64 + u64::from(data);
        let end = from + u64::from(directory);
        if end > len {
            return Ok(Seen::Nothing);
        }
        let mut sealed = vec![0; directory as usize];
        self.file.read_exact_at(&mut sealed, from).map_err(failed())?;
        let plain = keys.open(&directory_place(at, data), &mut sealed).ok();
        // The head as a whole is proven by this: the mark by comparison, one length as part of the place, the other
        // by what was opened.
        Ok(if plain.is_some_and(|plain| each(at, plain)) { Seen::Whole(end) } else { Seen::Forged(end) })
    }

    /// Where the next group may begin.
    fn next_mark(&self, keys: &PackKeys, mut from: u64, len: u64) -> Result<Option<u64>, ArchiveError> {
        let mut window = vec![0; 64 * 1024];
        while from + (keys.mark.len() as u64) <= len {
            let size = window.len().min((len - from) as usize);
            self.file.read_exact_at(&mut window[..size], from).map_err(ArchiveError::io("read", self.path))?;
            if let Some(at) = memchr::memmem::find(&window[..size], &keys.mark) {
                return Ok(Some(from + at as u64));
            }
            from += (size + 1 - keys.mark.len()) as u64;
        }
        Ok(None)
    }

    /// The bytes of a block.
    pub(super) fn block(&self, keys: &PackKeys, at: &BlockAt) -> Result<Vec<u8>, ArchiveError> {
        let damaged = || ArchiveError::damaged(self.path, "a block");
        if at.raw as usize > MAX_BLOCK || (at.stored as usize) < SEAL_LEN || at.stored as usize > 2 * MAX_BLOCK {
            return Err(damaged());
        }
        let mut sealed = vec![0; at.stored as usize];
        match self.file.read_exact_at(&mut sealed, at.offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(damaged()),
            other => other.map_err(ArchiveError::io("read", self.path))?,
        }
        let packed = keys.open(&block_place(at.group, at.index), &mut sealed).map_err(|_| damaged())?;
        let plain = zstd::bulk::decompress(packed, at.raw as usize).map_err(|_| damaged())?;
        if plain.len() == at.raw as usize { Ok(plain) } else { Err(damaged()) }
    }
}

enum Seen {
    /// A group that ends there.
    Whole(u64),
    /// Looks like a group that ends there, and is not what was written.
    Forged(u64),
    Nothing,
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockAt {
    pub(super) group: u64,
    pub(super) index: u32,
    pub(super) offset: u64,
    pub(super) stored: u32,
    pub(super) raw: u32,
}

/// Where the blocks and chunks of a group are.
pub(super) fn places(group: u64, directory: &Directory) -> Option<(Vec<BlockAt>, Vec<ChunkAt>)> {
    let mut offset = group + GROUP_HEAD as u64;
    let mut blocks = Vec::with_capacity(directory.blocks.len());
    for (index, Block { stored, raw }) in (0..).zip(&directory.blocks) {
        blocks.push(BlockAt { group, index, offset, stored: *stored, raw: *raw });
        offset += u64::from(*stored);
    }
    let mut chunks = Vec::with_capacity(directory.chunks.len());
    let (mut block, mut within) = (0_u32, 0_u32);
    for chunk in &directory.chunks {
        let raw = directory.blocks.get(block as usize)?.raw;
        let end = within.checked_add(chunk.len).filter(|end| *end <= raw)?;
        chunks.push(ChunkAt { block, from: within, len: chunk.len });
        (block, within) = if end == raw { (block + 1, 0) } else { (block, end) };
    }
    Some((blocks, chunks))
}

/// Where a chunk is: in which block of its group, and where in that.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkAt {
    pub(super) block: u32,
    pub(super) from: u32,
    pub(super) len: u32,
}
