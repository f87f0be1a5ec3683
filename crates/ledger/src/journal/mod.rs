//! The journal: an append-only file per process that makes what was seen survive a crash.
//!
//! Workers hand in entries; one thread writes whatever has come together in one `write`, and only then acknowledges it. Another thread brings it to the disk every few milliseconds. A full disk, or one that fails, delays
//! nobody: acknowledgements say so at once, entries are kept and written when it works again.

mod ballast;
pub(crate) mod entry;
pub(crate) mod frame;
mod queue;
pub(crate) mod segment;
mod shared;
mod sync;
mod writer;

use std::borrow::BorrowMut;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::ballast::{Ballast, free_space};
use self::frame::Kind;
pub use self::queue::Ack;
use self::queue::Queue;
pub use self::segment::in_use;
pub(crate) use self::shared::{Live, Shared};
use self::writer::{Disk, Folder, Writer};
use crate::private;
use crate::record::Record;

/// Where a journal is, and how much of everything it may take.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The folder of all processes' segments.
    pub folder: PathBuf,
    /// A segment that is larger is followed by another.
    pub segment_bytes: u64,
    /// Entries that may wait for the thread that writes.
    pub queue: usize,
    /// Bytes of entries that are kept while the disk takes none.
    pub pending_bytes: usize,
    /// What is written is on the disk after this long, at the latest.
    pub sync_every: Duration,
    /// Room that is kept in reserve; 0 for none.
    pub ballast_bytes: u64,
    /// Below this much free space, `health` says so.
    pub low_water_bytes: u64,
}

impl JournalOptions {
    /// The usual ones, in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            segment_bytes: 16 * 1024 * 1024,
            queue: 4096,
            pending_bytes: 8 * 1024 * 1024,
            sync_every: Duration::from_millis(50),
            ballast_bytes: 16 * 1024 * 1024,
            low_water_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A place in what this process has written: it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// Why an entry is not known to be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwritten {
    /// More entries were waiting than may wait. It is lost, and counted.
    QueueFull,
    /// The disk takes nothing at the moment. It is kept as long as there is room for it.
    DiskFailing,
    /// It was not written in the time that was given. It may be written yet.
    Late,
    /// The journal is closed.
    Closed,
}

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "too many entries wait for the journal",
            Self::DiskFailing => {
                "the journal cannot be written: free some space on its disk, or see `cco daemon status`"
            }
            Self::Late => "the journal did not take the entry in time",
            Self::Closed => "the journal is closed",
        })
    }
}

impl std::error::Error for Unwritten {}

/// How the journal is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JournalHealth {
    /// Whether the last write failed.
    pub failing: bool,
    /// Whether there is less free space than there should be, or the reserve was needed.
    pub low_space: bool,
    /// What the system said last when something failed.
    pub last_error: Option<String>,
    /// Entries that were written.
    pub written: u64,
    /// Of these, entries of which the acknowledgement had to say that they were not.
    pub late: u64,
    /// Entries that were lost: the queue was full, or there was no room to keep them while the disk failed.
    pub lost: u64,
    /// Bytes of entries that wait for the disk to work again.
    pub pending_bytes: u64,
    /// Bytes that were written and are not in the store yet.
    pub behind_bytes: u64,
}

/// The journal of this process. Cheap to call from anywhere; never blocks.
#[derive(Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    shared: Arc<Shared>,
    options: JournalOptions,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Begins a segment of our own.
    pub fn open(options: JournalOptions) -> io::Result<Self> {
        let disk = Folder::new(&options.folder);
        private::folder(&options.folder).map_err(|why| {
            io::Error::other(format!("the journal's folder `{}` cannot be used: {why}", options.folder.display()))
        })?;
        segment::tidy(&options.folder)?;
        Self::on(options, Box::new(disk))
    }

    pub(crate) fn on(options: JournalOptions, disk: Box<dyn Disk>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let queue = Arc::new(Queue::new(&options, shared.clone()));
        let folder = options.folder.display().to_string();
        let writer = Writer::new(options.clone(), shared.clone(), disk)
            .map_err(|why| io::Error::new(why.kind(), format!("no journal can be begun in `{folder}`: {why}")))?;
        let handed = queue.clone();
        let thread = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&handed))?;
        Ok(Self { queue, shared, options, thread: Mutex::new(Some(thread)) })
    }

    /// Hands in that an exchange begins. Its request goes up when the acknowledgement has come, or was waited for.
    pub fn start(&self, record: &mut Record) -> Ack {
        record.parties.bound();
        self.queue.submit(Kind::Start, record.id, |out| entry::put_start(out, record))
    }

    /// Hands in what became of an exchange. Its last bytes go out when the acknowledgement has come, or was waited for.
    pub fn finish(&self, mut record: impl BorrowMut<Record>) -> Ack {
        let record = record.borrow_mut();
        record.bound();
        self.queue.submit(Kind::Record, record.id, |out| entry::put_record(out, record))
    }

    /// Whether entries can be written at the moment: what `audit.onFailure: refuse` asks before it takes a request.
    pub fn accepts(&self) -> bool {
        !self.shared.is_failing()
    }

    /// How far this process has written.
    pub fn position(&self) -> Position {
        self.shared.written()
    }

    /// How the journal is.
    pub fn health(&self) -> JournalHealth {
        self.shared.health()
    }

    /// Ends the segment and begins another, so that the store can take all of it in.
    pub fn rotate(&self) -> Ack {
        self.queue.rotate()
    }

    /// Gives the reserve back. It is taken again once there is room for it.
    pub fn make_room(&self) {
        if free_space(&self.options.folder).is_some_and(|bytes| bytes < self.options.low_water_bytes) {
            Ballast::new(&self.options.folder, self.options.ballast_bytes).free();
            self.shared.set_low_space(true);
        }
    }

    /// Writes what waits, brings it to the disk and ends the threads. What is handed in later is refused.
    pub fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The thread empties its queue whatever the disk does, so this waits for no more than one write.
            self.queue.close();
            let _ = thread.join();
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Journal {
    /// What waits is written, by a thread that nobody waits for: that is what [`close`](Self::close) is for.
    fn drop(&mut self) {
        self.queue.close();
    }
}

#[cfg(test)]
mod tests;
