//! The thread that writes: takes what waits, takes out what must not be kept, appends, and keeps the house in order.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::crypt::RootKey;
use super::error::ArchiveError;
use super::format::{CODED, REDACTED};
use super::pack::{About, Engine, PackFile, PackWriter, Place};
use super::queue::{Item, Taken};
use super::upkeep::{FolderLock, Purged, Selection, Upkeep};
use super::{Body, Options, Shared, Skip};
use crate::steady::Steady;

/// How often it looks after old packs.
const UPKEEP: Duration = Duration::from_secs(60);
/// A pack with more chunks is ended: their names are in memory.
const MAX_CHUNKS: u32 = 400_000;
/// Room for joining pieces that is kept between bodies.
const SCRATCH: usize = 256 * 1024;

/// What the writer is asked to do, in the order of what it is given.
pub(super) enum Command {
    Flush(SyncSender<()>),
    Purge(Selection, SyncSender<Result<Purged, ArchiveError>>),
    Retain(SyncSender<Result<usize, ArchiveError>>),
}

pub(super) struct Writer {
    options: Options,
    root: Arc<RootKey>,
    shared: Arc<Shared>,
    engine: Engine,
    upkeep: Upkeep,
    pack: Option<PackWriter>,
    /// A body is being worked on that no count knows of yet.
    in_hand: bool,
    /// Bodies that were given to the pack since it was opened.
    given: u64,
    /// Of these, the ones that are in the shared count already.
    counted: u64,
    /// Bytes of them, as they came, since the last flush.
    raw: u64,
    scratch: Vec<u8>,
    batch: VecDeque<Item<Command>>,
    /// When old packs were last looked for.
    looked: u64,
    clock: Steady,
}

impl Writer {
    pub(super) fn new(mut options: Options, root: Arc<RootKey>, shared: Arc<Shared>) -> io::Result<Self> {
        // However small the whole may be: there are always some packs, so that deleting the oldest is a small step.
        options.pack_bytes = options.pack_bytes.min(options.max_bytes / 4).max(1);
        let engine = Engine::new(&root, options.level)?;
        let upkeep = Upkeep::new(&options, Arc::clone(&root));
        let clock = Steady::new((options.now_ms)());
        Ok(Self {
            options,
            root,
            shared,
            engine,
            upkeep,
            pack: None,
            in_hand: false,
            given: 0,
            counted: 0,
            raw: 0,
            scratch: vec![],
            batch: VecDeque::new(),
            looked: 0,
            clock,
        })
    }

    pub(super) fn run(mut self) {
        loop {
            let idle = if self.upkeep.pending() { Duration::ZERO } else { UPKEEP };
            let shared = Arc::clone(&self.shared);
            let bytes = match shared.queue.take(&mut self.batch, idle) {
                Taken::Closed => return,
                Taken::Idle => 0,
                Taken::Items(bytes) => bytes,
            };
            // A fault of ours may cost the bodies at hand, never the thread.
            while catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                self.shared.skip(Skip::Failed, u64::from(std::mem::take(&mut self.in_hand)));
                self.abandon(Skip::Failed);
                self.shared.set_trouble(Some("the writer failed on a body: please report this".into()));
                if self.batch.is_empty() {
                    break;
                }
            }
            shared.queue.done(bytes);
        }
    }

    fn work(&mut self) {
        let room = self.batch.is_empty() || self.has_room();
        while let Some(item) = self.batch.pop_front() {
            match item {
                Item::Body(_) if !room => self.shared.skip(Skip::Disk, 1),
                Item::Body(body) => {
                    self.in_hand = true;
                    self.keep(body);
                    self.in_hand = false;
                }
                Item::Command(Command::Flush(done)) => {
                    self.flush();
                    // Whoever asked may have gone.
                    let _ = done.try_send(());
                }
                Item::Command(Command::Purge(selection, done)) => {
                    self.end_pack();
                    let _ = done.try_send(self.upkeep.purge(&mut self.engine, &selection));
                }
                Item::Command(Command::Retain(done)) => {
                    self.flush();
                    let _ = done.try_send(self.retain());
                }
            }
        }
        self.flush();
        self.look_after();
    }

    fn has_room(&self) -> bool {
        let (free, low) = (self.upkeep.free(), self.options.low_water);
        if free.is_none_or(|free| free >= low) {
            return true;
        }
        let folder = self.options.folder.display();
        let text = format!("bodies are not kept: less than {} MiB are free on the disk of `{folder}`", low >> 20);
        self.shared.set_trouble(Some(text));
        false
    }

    /// Takes out of a body what must not be kept, and appends it.
    fn keep(&mut self, body: Body) {
        let Body { exchange, kind, coding, session, pieces, time_ms } = body;
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let coded: &[u8] = match pieces.as_slice() {
            [one] => one,
            several => {
                several.iter().for_each(|piece| scratch.extend_from_slice(piece));
                &scratch
            }
        };
        let named = coding.as_deref().map(str::trim).filter(|name| !name.eq_ignore_ascii_case("identity"));
        let named = named.filter(|name| !name.is_empty());
        let (mut flags, mut plain) = (0, Cow::Borrowed(coded));
        let mut kept = true;
        if let Some(name) = named {
            match (self.options.decode)(name, coded, self.options.max_body) {
                Some(decoded) => plain = Cow::Owned(decoded),
                // What cannot be read cannot be cleaned.
                None if !self.options.redact.is_empty() => kept = false,
                None => flags |= CODED,
            }
        }
        if kept {
            if let Some(clean) = self.options.redact.apply(&plain) {
                flags |= REDACTED;
                plain = Cow::Owned(clean);
            }
            let session = session.map(|session| self.engine.names.session(&session));
            let coding = named.map(Box::<str>::from);
            let about = About { exchange, kind, flags, time: time_ms, session, coding };
            self.raw += coded.len() as u64;
            self.put(about, &plain);
        } else {
            self.shared.skip(Skip::Undecodable, 1);
        }
        drop(plain);
        scratch.shrink_to(SCRATCH);
        self.scratch = scratch;
    }

    fn put(&mut self, about: About, body: &[u8]) {
        if let Err(error) = self.ensure_pack() {
            self.shared.skip(Skip::Disk, 1);
            self.shared.set_trouble(Some(format!("bodies are not kept: {error}")));
            return;
        }
        let Some(pack) = &mut self.pack else { return };
        (self.given, self.in_hand) = (self.given + 1, false);
        if let Err(error) = pack.put(&mut self.engine, about, body) {
            self.failed(error);
            return;
        }
        if pack.len() >= self.options.pack_bytes || pack.chunks() >= MAX_CHUNKS {
            self.end_pack();
            self.looked = 0;
        }
    }

    /// Opens a pack if none is open: the one that was left last, or a new one.
    fn ensure_pack(&mut self) -> Result<(), ArchiveError> {
        if self.pack.is_some() {
            return Ok(());
        }
        let folder = &self.options.folder;
        let _lock = FolderLock::take(folder)?;
        let (mut now, age) = ((self.options.now_ms)(), self.options.pack_age.as_millis() as u64);
        (self.given, self.counted) = (0, 0);
        if let Some(last) = PackFile::list(folder).map_err(ArchiveError::io("list", folder))?.pop() {
            let fresh = now.abs_diff(last.created) < age;
            if fresh && last.len < self.options.pack_bytes {
                self.pack = PackWriter::reopen(&last, &self.root)?.filter(|pack| pack.chunks() < MAX_CHUNKS);
            }
            // Names are the order of packs, also of two in one millisecond and after a clock went back a little.
            if fresh {
                now = now.max(last.created + 1);
            }
        }
        if self.pack.is_none() {
            let made = PackWriter::create(Place::In(folder), &self.root, self.root.form(), now);
            self.pack = Some(made.map_err(ArchiveError::io("make a file in", folder))?);
        }
        Ok(())
    }

    fn flush(&mut self) {
        let Some(pack) = &mut self.pack else { return };
        match pack.flush(&mut self.engine) {
            Err(error) => self.failed(error),
            Ok(0) => {}
            Ok(_) => {
                self.count();
                self.shared.set_trouble(None);
            }
        }
    }

    /// Counts what has arrived on the disk.
    fn count(&mut self) {
        let Some(pack) = &mut self.pack else { return };
        let (bodies, bytes) = (pack.written() - self.counted, pack.take_bytes());
        self.counted += bodies;
        self.shared.stored.fetch_add(bodies, Ordering::Relaxed);
        self.shared.disk_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.raw_bytes.fetch_add(std::mem::take(&mut self.raw), Ordering::Relaxed);
    }

    fn failed(&mut self, error: io::Error) {
        let folder = self.options.folder.display();
        self.shared.set_trouble(Some(format!("bodies are not kept: cannot write in `{folder}`: {error}")));
        self.abandon(Skip::Disk);
    }

    /// Leaves a pack that cannot be written to; it is whole up to the last group.
    fn abandon(&mut self, why: Skip) {
        // Rather too few bytes than bytes that are not there.
        self.raw = 0;
        self.count();
        self.shared.skip(why, self.given - self.counted);
        (self.pack, self.given, self.counted, self.raw) = (None, 0, 0, 0);
    }

    fn end_pack(&mut self) {
        self.flush();
        self.pack = None;
    }

    /// One small step of what has to be done now and then.
    fn look_after(&mut self) {
        let now = (self.options.now_ms)();
        if now.abs_diff(self.looked) < UPKEEP.as_millis() as u64 && !self.upkeep.pending() {
            return;
        }
        self.looked = now;
        if !self.clock.look(now) {
            return self.upkeep.postpone();
        }
        // What cannot be deleted now is tried again later.
        let _ = self.tidy();
    }

    fn tidy(&mut self) -> Result<bool, ArchiveError> {
        let now = (self.options.now_ms)();
        let age = self.options.pack_age.as_millis() as u64;
        if self.pack.as_ref().is_some_and(|pack| now.abs_diff(pack.created) >= age) {
            self.end_pack();
        }
        self.upkeep.step(now, self.pack.as_ref().map(PackWriter::path))
    }

    fn retain(&mut self) -> Result<usize, ArchiveError> {
        let mut deleted = 0;
        while self.tidy()? {
            deleted += 1;
        }
        Ok(deleted)
    }
}
