//! From the journal into the store: what is live, and what processes left that are gone.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::journal::entry::{self, VERSION};
use crate::journal::frame::{Frame, Frames, Kind, Step};
use crate::journal::segment::{self, Taken};
use crate::journal::{Live, Shared};
use crate::record::{Id, Record, Start};
use crate::store::{Batch, Loaded, StoreError, Writer};

/// Records of one transaction.
const BATCH: usize = 1000;
/// About what an exchange takes in the journal, in bytes: room for its record is made at once.
const EXCHANGE: usize = 512;

/// What was loaded, and what was found on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records that were not known.
    pub new: u64,
    /// Records that were known already.
    pub known: u64,
    /// Records that took the place of one that said that the exchange was interrupted.
    pub corrected: u64,
    /// Exchanges that were in flight when their process ended.
    pub interrupted: u64,
    /// Segments that were loaded to their end.
    pub segments: u64,
    /// Segments whose last entry was torn, as a crash leaves it.
    pub torn: u64,
    /// Places of segments that are damaged: what stood there is lost.
    pub damaged: u64,
    /// Entries that are whole but say nothing that we understand. Their segment is kept.
    pub unreadable: u64,
    /// Segments that a newer version wrote and that are left to it.
    pub newer: u64,
}

impl Counts {
    /// Adds what another step counted.
    pub fn add(&mut self, other: &Self) {
        self.new += other.new;
        self.known += other.known;
        self.corrected += other.corrected;
        self.interrupted += other.interrupted;
        self.segments += other.segments;
        self.torn += other.torn;
        self.damaged += other.damaged;
        self.unreadable += other.unreadable;
        self.newer += other.newer;
    }

    fn loaded(&mut self, loaded: Loaded) {
        self.new += loaded.new;
        self.known += loaded.known;
        self.corrected += loaded.corrected;
    }
}

/// Why loading stopped. What was loaded until then stays loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The store did not take it.
    Store(StoreError),
    /// The journal could not be read.
    Journal(PathBuf, io::Error),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(why) => why.fmt(f),
            Self::Journal(path, why) => write!(f, "the journal `{}` cannot be read: {why}", path.display()),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<StoreError> for LoadError {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

fn journal(path: &Path) -> impl FnOnce(io::Error) -> LoadError + use<> {
    let path = path.to_owned();
    |why| LoadError::Journal(path, why)
}

/// Takes over what processes left that are gone.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Segments that a newer version wrote: looked at once.
    newer: HashSet<PathBuf>,
}

impl Recovery {
    /// Loads the segments whose locks are free; they go when they are in the store.
    pub fn take_over(&mut self, writer: &mut dyn Writer, folder: &Path) -> Result<Counts, LoadError> {
        let mut counts = Counts::default();
        for path in segment::all(folder).map_err(journal(folder))? {
            if self.newer.contains(&path) {
                continue;
            }
            if let Some(mut taken) = Taken::take(&path).map_err(journal(&path))? {
                let bytes = taken.read().map_err(journal(&path))?;
                let loaded = load_whole(writer, taken.path(), &bytes)?;
                if loaded.newer > 0 {
                    self.newer.insert(path);
                }
                counts.add(&loaded);
            }
        }
        segment::tidy(folder).map_err(journal(folder))?;
        let left = segment::all(folder).map_err(journal(folder))?;
        writer.forget_segments_but(&left.iter().map(|path| segment::name(path)).collect::<Vec<_>>())?;
        Ok(counts)
    }
}

/// Loads everything that is in the journal at the moment, also what living processes have written: for a command that
/// runs beside them, or without any.
pub fn catch_up(writer: &mut dyn Writer, folder: &Path) -> Result<Counts, LoadError> {
    let mut counts = Recovery::default().take_over(writer, folder)?;
    counts.add(&look_ahead(writer, folder)?);
    Ok(counts)
}

/// Loads what is in the journal and leaves it there.
pub(crate) fn look_ahead(writer: &mut dyn Writer, folder: &Path) -> Result<Counts, LoadError> {
    let mut counts = Counts::default();
    for path in segment::all(folder).map_err(journal(folder))? {
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            // Its own process was quicker.
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(journal(&path)(why)),
        };
        let name = segment::name(&path);
        let from = (writer.position(&name)? as usize).min(bytes.len());
        let mut load = Load::new(writer, &name);
        for step in Frames::new(&bytes[from..]) {
            // What is not whole at the end is being written. What cannot be read further up is for the one who finishes
            // the segment: it counts that and keeps it, and begins where this ends.
            let Step::Entry(frame, end) = step else { break };
            let before = load.position;
            load.entry(&frame, (from + end) as u64)?;
            if load.counts.unreadable + load.counts.newer > 0 {
                load.position = before;
                break;
            }
        }
        load.flush()?;
        counts.loaded(load.loaded);
    }
    Ok(counts)
}

/// Loads a segment whose process is gone. Nobody else can, meanwhile.
fn load_whole(writer: &mut dyn Writer, path: &Path, bytes: &[u8]) -> Result<Counts, LoadError> {
    let name = segment::name(path);
    let from = writer.position(&name)?;
    let mut load = Load::new(writer, &name);
    let (mut open, mut closed, mut seen_us) = (HashMap::new(), false, 0);
    for step in Frames::new(bytes) {
        let (frame, end) = match step {
            Step::Entry(frame, end) => (frame, end as u64),
            Step::Damage { .. } => {
                load.counts.damaged += 1;
                continue;
            }
            Step::Torn { .. } => {
                load.counts.torn += 1;
                continue;
            }
        };
        if frame.version > VERSION {
            load.counts.newer += 1;
            continue;
        }
        match frame.kind {
            None => load.counts.newer += 1,
            Some(Kind::Start) => match entry::read_start(&frame) {
                Some(start) => {
                    seen_us = seen_us.max(start.started_us);
                    open.insert(frame.id, start);
                }
                None => load.counts.unreadable += 1,
            },
            Some(Kind::Closed) => closed = true,
            Some(Kind::Record) => {
                open.remove(&frame.id);
                // What is in the store already is looked at only for what it ends.
                if end > from {
                    seen_us = seen_us.max(load.entry(&frame, end)?.unwrap_or(0));
                }
            }
        }
    }
    if load.counts.newer > 0 {
        load.flush()?;
        load.counts.newer = 1;
        return Ok(load.counted());
    }
    if !closed {
        // In the order in which they began.
        let mut open: Vec<(Id, Start)> = open.into_iter().collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        for (_, start) in open {
            load.counts.interrupted += 1;
            load.record(Record::interrupted(start, seen_us), bytes.len() as u64)?;
        }
    }
    load.counts.segments += 1;
    let damaged = load.counts.damaged + load.counts.unreadable > 0;
    load.finish(bytes.len() as u64)?;
    let counts = load.counted();
    segment::is_done(path, damaged).map_err(journal(path))?;
    Ok(counts)
}

/// Brings the records of one segment into the store, batch by batch.
struct Load<'a> {
    writer: &'a mut dyn Writer,
    segment: &'a str,
    records: Vec<Record>,
    /// How far the segment is loaded when these records are.
    position: u64,
    /// How far it is loaded.
    done: Option<u64>,
    loaded: Loaded,
    counts: Counts,
}

impl<'a> Load<'a> {
    fn new(writer: &'a mut dyn Writer, segment: &'a str) -> Self {
        let (loaded, counts) = (Loaded::default(), Counts::default());
        Self { writer, segment, records: Vec::new(), position: 0, done: None, loaded, counts }
    }

    /// Takes the next entry, which ends here; when the exchange ended, if it is a record.
    fn entry(&mut self, frame: &Frame<'_>, end: u64) -> Result<Option<i64>, StoreError> {
        self.position = end;
        if frame.version > VERSION || frame.kind.is_none() {
            self.counts.newer += 1;
            return Ok(None);
        }
        if frame.kind != Some(Kind::Record) {
            return Ok(None);
        }
        match entry::read_record(frame) {
            Some(record) => {
                let ended_us = record.ended_us;
                self.record(record, end)?;
                Ok(Some(ended_us))
            }
            None => {
                self.counts.unreadable += 1;
                Ok(None)
            }
        }
    }

    fn record(&mut self, record: Record, end: u64) -> Result<(), StoreError> {
        self.position = end;
        self.records.push(record);
        if self.records.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if self.records.is_empty() { Ok(()) } else { self.send(false) }
    }

    fn finish(&mut self, end: u64) -> Result<(), StoreError> {
        self.position = end;
        self.send(true)
    }

    fn send(&mut self, complete: bool) -> Result<(), StoreError> {
        let (segment, position) = (self.segment, self.position);
        let loaded = self.writer.load(&Batch { records: &self.records, segment, position, complete })?;
        self.loaded.new += loaded.new;
        self.loaded.known += loaded.known;
        self.loaded.corrected += loaded.corrected;
        self.done = Some(position);
        self.records.clear();
        Ok(())
    }

    fn counted(mut self) -> Counts {
        self.counts.loaded(self.loaded);
        self.counts
    }
}

/// Follows what this process writes.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    tail: Option<Tail>,
}

#[derive(Debug)]
struct Tail {
    path: PathBuf,
    name: String,
    file: File,
    /// How far it was read.
    offset: u64,
    damaged: bool,
}

impl Follower {
    /// Loads what was written since the last time. `on_progress` hears the position up to which everything is loaded.
    pub(crate) fn follow(
        &mut self,
        writer: &mut dyn Writer,
        shared: &Shared,
        on_progress: &dyn Fn(u64),
    ) -> Result<Counts, LoadError> {
        let mut counts = Counts::default();
        loop {
            // In this order: what was written by now lies in this segment, or the segment has an end.
            let written = shared.written().0;
            let Some(live) = shared.oldest() else { return Ok(counts) };
            counts.add(&self.read(writer, &live, written, on_progress)?);
            let Some(end) = live.end else { return Ok(counts) };
            if written < end {
                continue;
            }
            self.end_of(writer, &live, end)?;
            counts.segments += 1;
            shared.oldest_is_done();
            on_progress(end);
        }
    }

    fn read(
        &mut self,
        writer: &mut dyn Writer,
        live: &Live,
        written: u64,
        on_progress: &dyn Fn(u64),
    ) -> Result<Counts, LoadError> {
        if self.tail.as_ref().is_none_or(|tail| tail.path != live.path) {
            let file = match File::open(&live.path) {
                Ok(file) => file,
                // Closed, unlocked, and loaded by somebody else.
                Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Counts::default()),
                Err(why) => return Err(journal(&live.path)(why)),
            };
            let (path, name) = (live.path.clone(), segment::name(&live.path));
            // Not the beginning, where the store was opened anew.
            let offset = writer.position(&name)?;
            self.tail = Some(Tail { path, name, file, offset, damaged: false });
        }
        let tail = self.tail.as_mut().expect("it was just made");
        let to = written.min(live.end.unwrap_or(u64::MAX)) - live.base;
        if to <= tail.offset {
            return Ok(Counts::default());
        }
        let mut bytes = Vec::with_capacity((to - tail.offset) as usize);
        tail.file.seek(SeekFrom::Start(tail.offset)).map_err(journal(&tail.path))?;
        (&tail.file).take(to - tail.offset).read_to_end(&mut bytes).map_err(journal(&tail.path))?;
        let from = tail.offset;
        let mut load = Load::new(writer, &tail.name);
        load.records.reserve((bytes.len() / EXCHANGE + 1).min(BATCH));
        let mut failed = Ok(());
        for step in Frames::new(&bytes) {
            match step {
                Step::Entry(frame, end) => failed = load.entry(&frame, from + end as u64).map(drop),
                Step::Damage { .. } | Step::Torn { .. } => load.counts.damaged += 1,
            }
            // After every batch: those who wait for it should not wait for the rest.
            if let Some(done) = load.done.take() {
                tail.offset = done;
                on_progress(live.base + done);
            }
            if failed.is_err() {
                break;
            }
        }
        failed.and_then(|()| load.flush())?;
        let counts = load.counted();
        tail.damaged |= counts.damaged + counts.unreadable + counts.newer > 0;
        tail.offset = to;
        on_progress(live.base + to);
        Ok(counts)
    }

    /// A closed segment is loaded to its end. We hold its lock, or somebody took it over who does the same.
    fn end_of(&mut self, writer: &mut dyn Writer, live: &Live, end: u64) -> Result<(), LoadError> {
        let Some(tail) = &self.tail else { return Ok(()) };
        if tail.path == live.path {
            let position = end - live.base;
            writer.load(&Batch { records: &[], segment: &tail.name, position, complete: true })?;
            segment::is_done(&tail.path, tail.damaged).map_err(journal(&tail.path))?;
        }
        self.tail = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::frame;
    use crate::sample::{id, record};
    use crate::store::Store as _;
    use crate::store::sqlite::Sqlite;

    #[test]
    fn what_a_command_could_not_read_is_counted_and_kept_by_whoever_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0000000000000001-1-0.journal");
        let mut bytes = Vec::new();
        for n in 0..3 {
            let payload = if n == 1 { b"[]".to_vec() } else { minicbor::to_vec(record(n)).unwrap() };
            frame::encode(&mut bytes, Kind::Record, id(n), &payload);
        }
        std::fs::write(&path, &bytes).unwrap();
        let living = File::open(&path).unwrap();
        living.lock().unwrap();
        let mut writer = Sqlite::new(folder.path().join("ledger.db")).writer().unwrap();
        assert_eq!(catch_up(&mut *writer, folder.path()).unwrap().new, 1);
        drop(living);
        let counts = Recovery::default().take_over(&mut *writer, folder.path()).unwrap();
        assert_eq!((counts.new, counts.unreadable), (1, 1), "{counts:?}");
        assert!(path.with_extension("damaged").exists());
    }
}
