//! The thread that writes: everything that has come together in one `write`, and then its acknowledgements.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use tokio::time::Instant;

use super::ballast::Ballast;
use super::frame::{self, Kind};
use super::queue::{Handed, Queue};
use super::shared::{Live, Shared};
use super::sync::Syncer;
use super::{JournalOptions, Position, Unwritten, segment};
use crate::record::Id;

/// While the disk fails, it is tried again this often.
const RETRY: Duration = Duration::from_millis(250);
/// Exchanges in flight of which the beginning is carried into the next segment.
const OPEN: usize = 65_536;

/// Where segments are made: the disk, or something that fails on demand.
pub(crate) trait Disk: Send + std::fmt::Debug {
    /// A new segment, locked.
    fn create(&mut self) -> io::Result<Box<dyn Sink>>;
}

/// A segment that is written to.
pub(crate) trait Sink: Send + std::fmt::Debug {
    /// Appends all of it, or as good as nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Its length.
    fn len(&self) -> u64;
    /// Its path.
    fn path(&self) -> &Path;
    /// Nothing that it holds is needed.
    fn discard(&mut self);
    /// The locked file, for those who bring it to the disk.
    fn file(&self) -> Option<&Arc<File>>;
}

/// Segments on the disk.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Disk for Folder {
    fn create(&mut self) -> io::Result<Box<dyn Sink>> {
        let (file, path) = segment::create(&self.0)?;
        Ok(Box::new(Segment { file: Arc::new(file), path, len: 0 }))
    }
}

#[derive(Debug)]
struct Segment {
    file: Arc<File>,
    path: PathBuf,
    len: u64,
}

impl Sink for Segment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(why) => {
                // A part of it may be there. If it cannot be taken back, readers find what comes after it.
                if self.file.set_len(self.len).is_err() {
                    self.len = self.file.metadata().map_or(self.len, |about| about.len());
                }
                Err(why)
            }
        }
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn discard(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }

    fn file(&self) -> Option<&Arc<File>> {
        Some(&self.file)
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    options: JournalOptions,
    shared: Arc<Shared>,
    disk: Box<dyn Disk>,
    sink: Box<dyn Sink>,
    /// The position of the segment's first byte.
    base: u64,
    /// Frames that are to be written, and how many.
    buffer: Vec<u8>,
    entries: u64,
    /// The number of the last of them.
    last: u64,
    /// How many of them were said to be unsafe.
    refused: u64,
    /// While the disk fails: when it is tried again.
    retry: Instant,
    /// The beginnings of exchanges that have not ended, as they were written.
    open: HashMap<Id, Box<[u8]>>,
    ballast: Ballast,
    syncer: Syncer,
}

/// Tells those who wait when the thread ends, however it does.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(super) fn new(options: JournalOptions, shared: Arc<Shared>, mut disk: Box<dyn Disk>) -> io::Result<Self> {
        let ballast = Ballast::new(&options.folder, options.ballast_bytes);
        let sink = match disk.create() {
            Err(why) if why.kind() == io::ErrorKind::StorageFull && ballast.free() => disk.create(),
            done => done,
        }?;
        let (folder, low_water) = (options.folder.clone(), options.low_water_bytes);
        let syncer = Syncer::new(shared.clone(), folder, ballast.clone(), low_water, options.sync_every)?;
        let writer = Self {
            options,
            shared,
            disk,
            sink,
            base: 0,
            buffer: Vec::with_capacity(64 * 1024),
            entries: 0,
            last: 0,
            refused: 0,
            retry: Instant::now(),
            open: HashMap::new(),
            ballast,
            syncer,
        };
        writer.announce();
        Ok(writer)
    }

    pub(super) fn run(mut self, queue: &Queue) {
        let ending = Ending(queue);
        let mut handed = Handed::default();
        loop {
            // While the disk fails, entries come together in the buffer, which is tried again from time to time.
            let patience = (!self.buffer.is_empty()).then_some(RETRY);
            handed = queue.take(patience, handed);
            let length = self.sink.len();
            if self.buffer.is_empty() && length > 0 && length + handed.frames.len() as u64 > self.options.segment_bytes
            {
                // Before these are looked at: what they end is in flight until they are written. If there can be no
                // other segment, this one grows on.
                self.rotate();
            }
            self.add(&mut handed);
            // Who asks for another segment has made room.
            let now = handed.closing || !handed.rotations.is_empty();
            if now || !self.shared.is_failing() || self.retry <= Instant::now() {
                self.write(queue);
            } else {
                self.refuse(queue);
            }
            for done in handed.rotations.drain(..) {
                let turned = !self.shared.is_failing() && self.rotate();
                // Who has gone does not want to know.
                let _ = done.send(if turned { Ok(self.position()) } else { Err(Unwritten::DiskFailing) });
            }
            if handed.closing {
                break;
            }
        }
        self.end();
        drop(ending);
    }

    /// Puts what was handed in into the buffer.
    fn add(&mut self, handed: &mut Handed) {
        self.last = handed.last;
        self.entries += handed.entries.len() as u64;
        let mut from = 0;
        for entry in handed.entries.drain(..) {
            let frame = &handed.frames[from..entry.end];
            from = entry.end;
            if entry.kind == Kind::Record {
                self.open.remove(&entry.id);
            } else if self.open.len() < OPEN {
                self.open.insert(entry.id, frame[frame::HEAD..].into());
            }
        }
        if self.buffer.is_empty() {
            std::mem::swap(&mut self.buffer, &mut handed.frames);
        } else {
            self.buffer.append(&mut handed.frames);
        }
    }

    fn write(&mut self, queue: &Queue) {
        if self.buffer.is_empty() {
            return;
        }
        let mut written = self.sink.append(&self.buffer);
        if written.as_ref().is_err_and(|why| why.kind() == io::ErrorKind::StorageFull) && self.ballast.free() {
            self.shared.set_low_space(true);
            written = self.sink.append(&self.buffer);
        }
        match written {
            Ok(()) => {
                self.shared.late(std::mem::take(&mut self.refused));
                self.shared.set_failing(None);
                self.shared.set_pending(0);
                if let Some(file) = self.sink.file() {
                    self.syncer.dirty(file);
                }
                let position = self.position();
                self.shared.wrote(self.entries, position.0);
                self.entries = 0;
                self.buffer.clear();
                self.buffer.shrink_to(1024 * 1024);
                queue.wrote(self.last);
            }
            Err(why) => {
                let path = self.sink.path().display();
                self.shared.set_failing(Some(format!("the journal `{path}` cannot be written: {why}")));
                self.retry = Instant::now() + RETRY;
                self.refuse(queue);
            }
        }
    }

    /// Tells those who wait that their entries are not safe. They are kept all the same.
    fn refuse(&mut self, queue: &Queue) {
        self.shared.set_pending(self.buffer.len());
        self.refused = self.entries;
        queue.refuse(self.last);
    }

    /// Goes over to another segment, unless there is nothing in this one; `false`: there can be none.
    fn rotate(&mut self) -> bool {
        if self.sink.len() == 0 {
            return true;
        }
        let mut next = match self.disk.create() {
            Ok(next) => next,
            Err(why) => {
                self.shared.note_error(format!("no new segment of the journal can be made: {why}"));
                return false;
            }
        };
        // What is in flight begins again in the new segment, and only then the old one says that it is complete.
        let mut carried = Vec::new();
        for (id, start) in &self.open {
            frame::encode(&mut carried, Kind::Start, *id, start);
        }
        let mut closed = Vec::new();
        frame::encode(&mut closed, Kind::Closed, Id(0), b"{}");
        let done = next.append(&carried).and_then(|()| self.sink.append(&closed));
        if let Err(why) = done {
            next.discard();
            self.shared.note_error(format!("the journal could not go over to a new segment: {why}"));
            return false;
        }
        if let Some(file) = self.sink.file() {
            self.syncer.dirty(file);
        }
        self.base += self.sink.len();
        self.sink = next;
        self.announce();
        self.shared.wrote(0, self.position().0);
        true
    }

    fn announce(&self) {
        self.shared.begun(Live {
            path: self.sink.path().to_owned(),
            base: self.base,
            end: None,
            lock: self.sink.file().cloned(),
        });
    }

    fn position(&self) -> Position {
        Position(self.base + self.sink.len())
    }

    fn end(self) {
        let Self { shared, sink, syncer, entries, .. } = self;
        // What the disk did not take to the end.
        shared.lost(entries);
        drop(syncer);
        drop(sink);
        shared.let_go();
        shared.nudge(true);
    }
}
