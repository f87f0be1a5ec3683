//! The bodies of requests and responses, kept small and secret: cut into chunks that are stored once, compressed,
//! encrypted, and appended to files that are deleted as a whole when they are old.
//!
//! - **Packs.** A process appends to one pack (a file) at a time and locks it; nobody ever changes what was written. A
//!   pack is ended after a size or a day. Chunks are shared within a pack only, so that retention is the deletion of
//!   the oldest file: it really frees the disk, costs nothing, and works where nothing can be written.
//! - **Groups.** Whatever waits is written at one go: blocks of chunks, then a directory. A crash can only cut off the
//!   last group, which is then ignored; damage is an error for the bodies that it touches, and for no other.
//! - **Secrets.** All content is sealed with XChaCha20-Poly1305 under a key that follows from the installation's root key
//!   and the pack's salt; chunks are named by keyed BLAKE3, and these names are sealed too. Whoever destroys the salt
//!   destroys the pack. In clear are the times and sizes of packs and groups, the salt and a name of the key. Where
//!   encryption is turned off, the same bytes stand there unsealed, with a checksum: nothing but the rights of the files
//!   protects them, and what is deleted is as gone as the file system makes it.
//! - **Purge.** A pack that holds what must go is written anew without it, then destroyed. On a full disk a reserve
//!   file makes the room for that; what goes as a whole file needs none.
//! - **Load.** `submit` never waits. Bodies that cannot be kept are counted by reason; nothing else is affected.
//! - **Limits.** What was written survives the death of the process, not a power cut within the half minute that the
//!   system takes to write it down. Bodies wait up to 25 ms to be written together. Retention is by pack: a body lives up
//!   to a day longer than `keep`. On a disk that copies when it writes (SSD, some file systems), what was overwritten may
//!   be found by whoever takes the disk apart and has the root key as well.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use self::crypt::Form;
use crate::private;
use crate::redact::Redactor;

mod chunker;
mod crypt;
mod error;
mod format;
mod pack;
mod queue;
mod reader;
mod upkeep;
mod writer;

pub use error::ArchiveError;
pub use reader::{About, BodyReader, GrepLimits, Hit, Reader, Scan};
pub use upkeep::{Purged, Selection, purge_all, usage};

use queue::Queue;
use writer::{Command, Writer};

/// The id of an exchange: the bytes of its UUID.
pub type ExchangeId = [u8; 16];

/// Which body of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The body of the request.
    Request = 0,
    /// The body of the response.
    Response = 1,
    /// First line and headers of the request, as `redact::head` made them.
    RequestHead = 2,
    /// First line and headers of the response, as `redact::head` made them.
    ResponseHead = 3,
}

impl Kind {
    fn of(tag: u8) -> Self {
        match tag & 3 {
            0 => Self::Request,
            1 => Self::Response,
            2 => Self::RequestHead,
            _ => Self::ResponseHead,
        }
    }
}

/// A body that is to be kept. An exchange has at most one of each kind.
#[derive(Debug, Clone)]
pub struct Body {
    /// The exchange that it belongs to.
    pub exchange: ExchangeId,
    /// Which of its bodies it is.
    pub kind: Kind,
    /// The value of `content-encoding`; `None` where there was none.
    pub coding: Option<Box<str>>,
    /// The session, so that it can be purged by it. Not kept in clear.
    pub session: Option<Box<str>>,
    /// Its bytes as they were on the wire, in any pieces. A small piece of a large buffer keeps the buffer in memory until
    /// it is written: copy it out.
    pub pieces: Vec<Bytes>,
    /// Now, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Why a body is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Skip {
    /// More is waiting than may wait.
    QueueFull = 0,
    /// It is larger than a body may be.
    TooLarge = 1,
    /// Its coding cannot be undone, so that nothing can be taken out of it.
    Undecodable = 2,
    /// The disk is full, or refuses.
    Disk = 3,
    /// A fault of ours.
    Failed = 4,
    /// The archive is closed.
    Closed = 5,
}

impl Skip {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::TooLarge, Self::Undecodable, Self::Disk, Self::Failed, Self::Closed];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        ["queue_full", "too_large", "undecodable", "disk", "failed", "closed"][self as usize]
    }
}

/// How an archive behaves.
#[derive(Debug)]
pub struct Options {
    /// Where packs are.
    pub folder: PathBuf,
    /// The file of the root key; made where it is not there and needed.
    pub key: PathBuf,
    /// Whether what comes is encrypted. What is there already stays as it is, and can be read.
    pub encrypt: bool,
    /// Bytes of bodies that may be in memory.
    pub queue_bytes: usize,
    /// Bodies that may wait.
    pub queue_items: usize,
    /// Larger bodies are skipped, as they came and unpacked.
    pub max_body: usize,
    /// A pack is ended at this size …
    pub pack_bytes: u64,
    /// … or age.
    pub pack_age: Duration,
    /// Packs are deleted when all that is in them is older.
    pub keep: Duration,
    /// The oldest packs are deleted while all together are larger.
    pub max_bytes: u64,
    /// Room that is kept, so that a purge can be done on a full disk; should be a little more than `pack_bytes`.
    pub reserve: u64,
    /// With less than this free on the disk, nothing is kept.
    pub low_water: u64,
    /// zstd level.
    pub level: i32,
    /// What is taken out of bodies.
    pub redact: Arc<Redactor>,
    /// Undoes a content coding (its name, the bytes, how many bytes may come out); `None` where it cannot.
    pub decode: fn(&str, &[u8], usize) -> Option<Vec<u8>>,
    /// The time, in milliseconds since 1970.
    pub now_ms: fn() -> u64,
}

impl Options {
    /// The defaults.
    pub fn new(folder: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            key: key.into(),
            encrypt: true,
            queue_bytes: 32 << 20,
            queue_items: 16 << 10,
            max_body: 64 << 20,
            pack_bytes: 14 << 20,
            pack_age: Duration::from_secs(24 * 3600),
            keep: Duration::from_secs(30 * 24 * 3600),
            max_bytes: 2 << 30,
            reserve: 16 << 20,
            low_water: 64 << 20,
            level: 1,
            redact: Arc::default(),
            decode: |_, _, _| None,
            now_ms: system_time,
        }
    }
}

fn system_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What the archive has done since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bodies that were accepted.
    pub taken: u64,
    /// Bodies that were written.
    pub stored: u64,
    /// Their bytes, as they came.
    pub raw_bytes: u64,
    /// What that took on disk.
    pub disk_bytes: u64,
    /// Bodies that were not kept, in the order of `Skip::ALL`.
    pub skipped: [u64; Skip::ALL.len()],
    /// Entries that wait.
    pub queue_items: u64,
    /// Bytes of bodies that are in memory.
    pub queue_bytes: u64,
}

impl Counts {
    /// Bodies that were not kept for this reason.
    pub fn skipped(&self, why: Skip) -> u64 {
        self.skipped[why as usize]
    }

    /// Bodies that were not kept.
    pub fn all_skipped(&self) -> u64 {
        self.skipped.iter().sum()
    }
}

/// What the two sides of the queue share.
struct Shared {
    queue: Queue<Command>,
    taken: AtomicU64,
    stored: AtomicU64,
    raw_bytes: AtomicU64,
    disk_bytes: AtomicU64,
    skipped: [AtomicU64; Skip::ALL.len()],
    trouble: Mutex<Option<String>>,
}

impl Shared {
    fn skip(&self, why: Skip, count: u64) {
        self.skipped[why as usize].fetch_add(count, Ordering::Relaxed);
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

/// An archive that is open for writing. Dropping it writes what waits.
pub struct Archive {
    shared: Arc<Shared>,
    reader: Reader,
    max_body: usize,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens the archive and starts its writer. Where there are bodies and not the key that they were written with, it
    /// is not opened: nothing would be found, and nobody would know.
    pub fn open(options: Options) -> Result<Self, ArchiveError> {
        private::folder(&options.folder)?;
        let form = if options.encrypt { Form::Sealed } else { Form::Plain };
        let root = Arc::new(upkeep::key_for(&options.folder, &options.key, form)?);
        let shared = Arc::new(Shared {
            queue: Queue::new(options.queue_bytes, options.queue_items),
            taken: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            raw_bytes: AtomicU64::new(0),
            disk_bytes: AtomicU64::new(0),
            skipped: Default::default(),
            trouble: Mutex::default(),
        });
        let reader = Reader::new(&options.folder, Arc::clone(&root));
        let (max_body, folder) = (options.max_body, options.folder.clone());
        let start = || {
            let writer = Writer::new(options, root, Arc::clone(&shared))?;
            std::thread::Builder::new().name("cco-archive".into()).spawn(move || writer.run())
        };
        let thread = Some(start().map_err(ArchiveError::io("start a writer for", &folder))?);
        Ok(Self { shared, reader, max_body, thread })
    }

    /// Hands a body over. Never waits; a body that is not taken is counted.
    pub fn submit(&self, body: Body) -> Result<(), Skip> {
        let len = body.pieces.iter().map(Bytes::len).sum::<usize>();
        let taken = if len > self.max_body { Err(Skip::TooLarge) } else { self.shared.queue.submit(body) };
        match taken {
            Ok(()) => self.shared.taken.fetch_add(1, Ordering::Relaxed),
            Err(why) => self.shared.skipped[why as usize].fetch_add(1, Ordering::Relaxed),
        };
        taken
    }

    /// Counts a body that its owner had to give up before it could be submitted.
    pub fn skip(&self, why: Skip) {
        self.shared.skip(why, 1);
    }

    /// Waits until what was submitted before is written or counted as skipped; `false` after that time. Blocks.
    pub fn flush(&self, at_most: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.shared.queue.command(Command::Flush(done)).is_ok() && wait.recv_timeout(at_most).is_ok()
    }

    /// For reading what was written.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Deletes bodies for good, what was submitted before included. Blocks.
    pub fn purge(&self, selection: Selection) -> Result<Purged, ArchiveError> {
        self.ask(|done| Command::Purge(selection, done))?
    }

    /// Deletes what is too old or too much, now instead of in a while, and says how many packs that were. Blocks.
    pub fn retain(&self) -> Result<usize, ArchiveError> {
        self.ask(Command::Retain)?
    }

    fn ask<T>(&self, command: impl FnOnce(std::sync::mpsc::SyncSender<T>) -> Command) -> Result<T, ArchiveError> {
        let (done, wait) = sync_channel(1);
        self.shared.queue.command(command(done)).map_err(|_| ArchiveError::Closed)?;
        loop {
            match wait.recv_timeout(Duration::from_secs(3600)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ArchiveError::Closed),
            }
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (items, bytes) = self.shared.queue.load();
        Counts {
            taken: get(&self.shared.taken),
            stored: get(&self.shared.stored),
            raw_bytes: get(&self.shared.raw_bytes),
            disk_bytes: get(&self.shared.disk_bytes),
            skipped: self.shared.skipped.each_ref().map(get),
            queue_items: items as u64,
            queue_bytes: bytes as u64,
        }
    }

    /// Why nothing is written at the moment; `None`: all is well.
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics; there is nothing to be told.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
