//! Deleting: what is too old or too much, what somebody wants to be gone, and the reserve that makes it possible.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::crypt::{Form, RootKey};
use super::error::ArchiveError;
use super::format::{Directory, Entry, HEAD, Run, form_of};
use super::pack::{Engine, OpenPack, PackFile, PackWriter, Place, add_to, destroy, places};
use super::reader::Pack;
use super::{ExchangeId, Options};
use crate::private;

/// Held by whoever begins, goes on with, or deletes a pack: short, and never while bodies are written.
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Waits for other processes, which hold it for a moment.
    pub(super) fn take(folder: &Path) -> Result<Self, ArchiveError> {
        let path = folder.join("lock");
        let file = match private::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => private::open_existing(&path),
            other => other,
        };
        let locked = file.and_then(|file| file.lock().map(|()| file));
        Ok(Self { _file: locked.map_err(ArchiveError::io("lock", &path))? })
    }
}

/// The key of the packs in this folder, for keeping what comes in this form; a new key only where it is needed and
/// nothing was sealed with another.
pub(super) fn key_for(folder: &Path, key: &Path, form: Form) -> Result<RootKey, ArchiveError> {
    let mut sealed = PackFile::list(folder).map_err(ArchiveError::io("list", folder))?;
    // A pack that was only begun needs no key.
    sealed.retain(|pack| pack.len > 0 && !is_plain(&pack.path));
    let root = match (RootKey::load(key), sealed.last(), form) {
        (Err(ArchiveError::Private(private::Refusal::Missing(path))), Some(_), _) => {
            return Err(ArchiveError::KeyMissing { key: path, packs: sealed.len() });
        }
        (Err(ArchiveError::Private(private::Refusal::Missing(_))), None, Form::Sealed) => RootKey::load_or_create(key)?,
        (Err(ArchiveError::Private(private::Refusal::Missing(_))), None, Form::Plain) => RootKey::plain(),
        (found, ..) => found?,
    };
    if let Some(last) = sealed.last()
        && let Ok(file) = File::open(&last.path)
        && let Err(wrong @ ArchiveError::WrongKey(_)) = (OpenPack { file: &file, path: &last.path, root: &root }).keys()
    {
        return Err(wrong);
    }
    Ok(root.keeping(form).expect("a key was read or made"))
}

/// Whether a pack needs no key.
fn is_plain(pack: &Path) -> bool {
    let mut head = [0; HEAD];
    let read = File::open(pack).and_then(|file| file.read_at(&mut head, 0));
    read.is_ok_and(|read| form_of(&head[..read]) == Some(Form::Plain))
}

/// What is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All bodies of these exchanges.
    Exchanges(Vec<ExchangeId>),
    /// All bodies of this session.
    Session(String),
    /// All bodies before this time, in milliseconds since 1970.
    Before(u64),
    /// Everything.
    All,
}

/// What a purge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// Bodies that are gone.
    pub bodies: u64,
    /// Bytes that the disk got back.
    pub bytes: u64,
    /// Files that hold some of it and are being written by another process: purge again when it has ended.
    pub busy: u64,
    /// Files, or places in files, that could not be read: what was to be deleted may be in them.
    pub unreadable: u64,
    /// Bodies that were to stay and could not be read any more: they are gone as well.
    pub lost: u64,
}

pub(super) struct Upkeep {
    folder: PathBuf,
    root: Arc<RootKey>,
    /// Age beyond which all that is in a pack is too old, in milliseconds from its beginning.
    max_age: u64,
    max_bytes: u64,
    reserve: u64,
    low_water: u64,
    pending: bool,
}

impl Upkeep {
    pub(super) fn new(options: &Options, root: Arc<RootKey>) -> Self {
        Self {
            folder: options.folder.clone(),
            root,
            max_age: (options.keep + options.pack_age).as_millis() as u64,
            max_bytes: options.max_bytes,
            reserve: options.reserve,
            low_water: options.low_water,
            pending: true,
        }
    }

    /// Whether the last step left something to do.
    pub(super) fn pending(&self) -> bool {
        self.pending
    }

    /// What there is to do can wait.
    pub(super) fn postpone(&mut self) {
        self.pending = false;
    }

    /// Bytes that are free on the disk, for us.
    pub(super) fn free(&self) -> Option<u64> {
        rustix::fs::statvfs(&self.folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn reserve_path(&self) -> PathBuf {
        self.folder.join("reserve")
    }

    /// Puts the reserve back where there is room for it. Returns whether it is there.
    fn ensure_reserve(&self) -> io::Result<bool> {
        let path = self.reserve_path();
        if std::fs::metadata(&path).is_ok_and(|about| about.len() == self.reserve) {
            return Ok(true);
        }
        if self.reserve == 0 || self.free().is_none_or(|free| free < self.reserve.saturating_add(self.low_water)) {
            return Ok(false);
        }
        let _ = std::fs::remove_file(&path);
        let file = private::create_new(&path)?;
        let filled = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.reserve);
        if let Err(error) = filled {
            let _ = std::fs::remove_file(&path);
            return Err(error.into());
        }
        Ok(true)
    }

    /// Deletes at most one pack: the oldest that is too old, or the oldest if all together are too large. `true`: it
    /// did, and there may be more to do.
    pub(super) fn step(&mut self, now: u64, own: Option<&Path>) -> Result<bool, ArchiveError> {
        self.pending = false;
        let listed = ArchiveError::io("list", &self.folder);
        let packs = PackFile::list(&self.folder).map_err(listed)?;
        let mut all: u64 = packs.iter().map(|pack| pack.len).sum();
        for pack in packs {
            let old = now.saturating_sub(pack.created) > self.max_age;
            if !old && all <= self.max_bytes {
                break;
            }
            if own == Some(&*pack.path) {
                continue;
            }
            let _lock = FolderLock::take(&self.folder)?;
            let Ok(file) = private::open_existing(&pack.path) else { continue };
            if file.try_lock().is_err() {
                // Another process writes to it: it counts, and it is its owner's.
                all = all.saturating_sub(pack.len);
                continue;
            }
            // Its content is gone even where the file system keeps the old blocks for a while.
            let _ = destroy(&file);
            std::fs::remove_file(&pack.path).map_err(ArchiveError::io("delete", &pack.path))?;
            self.pending = true;
            return Ok(true);
        }
        let _lock = FolderLock::take(&self.folder)?;
        PackFile::remove_drafts(&self.folder).map_err(ArchiveError::io("clean up", &self.folder))?;
        self.ensure_reserve().map_err(ArchiveError::io("keep a reserve in", &self.folder))?;
        Ok(false)
    }

    /// Deletes what is selected. No pack of this process may be open for writing.
    pub(super) fn purge(&mut self, engine: &mut Engine, selection: &Selection) -> Result<Purged, ArchiveError> {
        let goes: Box<dyn Fn(&Entry) -> bool> = match selection {
            Selection::All => return purge_all(&self.folder),
            Selection::Exchanges(ids) => {
                let ids: std::collections::HashSet<ExchangeId> = ids.iter().copied().collect();
                Box::new(move |entry| ids.contains(&entry.exchange))
            }
            Selection::Session(session) => {
                let names = [Form::Sealed, Form::Plain].map(|form| self.root.names(form));
                let names = names.map(|names| names.map(|names| names.session(session)));
                Box::new(move |entry| entry.session.is_some() && names.contains(&entry.session))
            }
            Selection::Before(time) => {
                let time = *time;
                Box::new(move |entry| entry.time < time)
            }
        };
        let mut purged = Purged::default();
        for listed in PackFile::list(&self.folder).map_err(ArchiveError::io("list", &self.folder))? {
            let done = match self.purge_pack(engine, &listed, &*goes, &mut purged) {
                // The reserve is what it is kept for.
                Err(ArchiveError::NoRoom(_)) if std::fs::remove_file(self.reserve_path()).is_ok() => {
                    self.pending = true;
                    self.purge_pack(engine, &listed, &*goes, &mut purged)
                }
                other => other,
            };
            done?;
        }
        Ok(purged)
    }

    fn purge_pack(
        &self,
        engine: &mut Engine,
        listed: &PackFile,
        goes: &dyn Fn(&Entry) -> bool,
        purged: &mut Purged,
    ) -> Result<(), ArchiveError> {
        let _lock = FolderLock::take(&self.folder)?;
        // Deleted since it was listed.
        let Ok(file) = private::open_existing(&listed.path) else { return Ok(()) };
        // Looked at once nobody can add to it any more.
        let is_held = file.try_lock().is_ok();
        let Ok(pack) = Pack::load(&OpenPack { file: &file, path: &listed.path, root: &self.root }) else {
            purged.unreadable += u64::from(listed.len > 0);
            return Ok(());
        };
        let doomed = pack.bodies.iter().filter(|entry| goes(entry)).count() as u64;
        if doomed == 0 {
            purged.unreadable += pack.damaged as u64;
            return Ok(());
        }
        if !is_held {
            purged.busy += 1;
            return Ok(());
        }
        if doomed == pack.bodies.len() as u64 {
            destroy(&file).map_err(ArchiveError::io("overwrite", &listed.path))?;
            std::fs::remove_file(&listed.path).map_err(ArchiveError::io("delete", &listed.path))?;
            purged.bytes += listed.len;
        } else {
            let (len, lost) = self.rewrite(engine, listed, &file, &|entry| !goes(entry))?;
            purged.bytes += listed.len.saturating_sub(len);
            purged.lost += lost;
        }
        purged.bodies += doomed;
        Ok(())
    }

    /// Writes a pack anew with the bodies that stay, puts it in the place of the old one, and destroys that. Returns how
    /// long it is and how many bodies could not be taken over.
    fn rewrite(
        &self,
        engine: &mut Engine,
        listed: &PackFile,
        old: &File,
        stays: &dyn Fn(&Entry) -> bool,
    ) -> Result<(u64, u64), ArchiveError> {
        let draft = listed.draft();
        let _ = std::fs::remove_file(&draft);
        let copied = self.copy(engine, listed, old, stays);
        let named = copied.and_then(|(new, lost)| {
            new.file().sync_all().map_err(ArchiveError::io("write", &draft))?;
            std::fs::rename(&draft, &listed.path).map_err(ArchiveError::io("replace", &listed.path))?;
            Ok((new.len(), lost))
        });
        match named {
            Err(error) => {
                let _ = std::fs::remove_file(&draft);
                Err(error)
            }
            Ok(done) => {
                let folder = File::open(&self.folder).and_then(|folder| folder.sync_all());
                folder.map_err(ArchiveError::io("write", &self.folder))?;
                destroy(old).map_err(ArchiveError::io("overwrite", &listed.path))?;
                Ok(done)
            }
        }
    }

    fn copy(
        &self,
        engine: &mut Engine,
        listed: &PackFile,
        old: &File,
        stays: &dyn Fn(&Entry) -> bool,
    ) -> Result<(PackWriter, u64), ArchiveError> {
        let from = OpenPack { file: old, path: &listed.path, root: &self.root };
        let (keys, _) = from.keys()?;
        let mut groups: Vec<(u64, Directory)> = vec![];
        from.walk(&keys, |at, directory| groups.push((at, directory)))?;
        let chunks = groups.iter().map(|(_, group)| group.first_chunk as usize + group.chunks.len()).max().unwrap_or(0);
        let mut needed = vec![false; chunks];
        for entry in groups.iter().flat_map(|(_, group)| &group.bodies).filter(|entry| stays(entry)) {
            for number in numbers(&entry.runs) {
                if let Some(needed) = needed.get_mut(number as usize) {
                    *needed = true;
                }
            }
        }
        let draft = listed.draft();
        let made = PackWriter::create(Place::At(&draft), &self.root, keys.form(), listed.created);
        let mut to = made.map_err(ArchiveError::io("write", &draft))?;
        let mut moved: Vec<Option<u32>> = vec![None; chunks];
        let mut lost = 0;
        for (at, group) in groups {
            if let Some((blocks, places)) = places(at, &group) {
                let mut open = None;
                for ((number, chunk), place) in (group.first_chunk..).zip(&group.chunks).zip(places) {
                    if !needed[number as usize] {
                        continue;
                    }
                    if open.as_ref().is_none_or(|(index, _)| *index != place.block) {
                        let block = blocks.get(place.block as usize).and_then(|block| from.block(&keys, block).ok());
                        open = Some((place.block, block));
                    }
                    let bytes = open.as_ref().and_then(|(_, block)| block.as_ref());
                    let range = place.from as usize..(place.from + place.len) as usize;
                    if let Some(bytes) = bytes.and_then(|bytes| bytes.get(range)) {
                        let written = to.chunk(engine, chunk.id, bytes).map_err(ArchiveError::io("write", &draft))?;
                        moved[number as usize] = Some(written);
                    }
                }
            }
            for mut entry in group.bodies.into_iter().filter(|entry| stays(entry)) {
                let mut runs = vec![];
                let whole = numbers(&entry.runs).all(|number| {
                    let number = moved.get(number as usize).copied().flatten();
                    number.map(|number| add_to(&mut runs, number)).is_some()
                });
                if whole {
                    entry.runs = runs;
                    to.entry(engine, entry).map_err(ArchiveError::io("write", &draft))?;
                } else {
                    lost += 1;
                }
            }
        }
        to.flush(engine).map_err(ArchiveError::io("write", &draft))?;
        Ok((to, lost))
    }
}

fn numbers(runs: &[Run]) -> impl Iterator<Item = u32> + '_ {
    runs.iter().flat_map(|run| run.start..run.start.saturating_add(run.count))
}

/// Deletes everything in an archive that no process writes to. Needs neither the key nor any room on the disk.
pub fn purge_all(folder: &Path) -> Result<Purged, ArchiveError> {
    let mut purged = Purged::default();
    let _lock = FolderLock::take(folder)?;
    for pack in PackFile::list(folder).map_err(ArchiveError::io("list", folder))? {
        let Ok(file) = private::open_existing(&pack.path) else { continue };
        if file.try_lock().is_err() {
            purged.busy += 1;
            continue;
        }
        destroy(&file).map_err(ArchiveError::io("overwrite", &pack.path))?;
        std::fs::remove_file(&pack.path).map_err(ArchiveError::io("delete", &pack.path))?;
        purged.bytes += pack.len;
    }
    PackFile::remove_drafts(folder).map_err(ArchiveError::io("clean up", folder))?;
    Ok(purged)
}

/// How many packs there are, and their bytes on disk.
pub fn usage(folder: &Path) -> Result<(u64, u64), ArchiveError> {
    let packs = PackFile::list(folder).map_err(ArchiveError::io("list", folder))?;
    Ok((packs.len() as u64, packs.iter().map(|pack| pack.len).sum()))
}
