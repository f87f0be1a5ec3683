//! Segment files: who makes them, who may take them over, and when they go.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::private;

/// How segments are called.
const EXTENSION: &str = "journal";
/// How a segment is called until it is locked.
const UNBORN: &str = "new";
/// How a segment is called that was loaded and had damage in it: kept, so that a person can look.
const DAMAGED: &str = "damaged";
/// Damaged segments that are kept.
const DAMAGED_KEPT: usize = 8;

/// Makes a segment, locked from the moment at which others can see it.
pub(super) fn create(folder: &Path) -> io::Result<(File, PathBuf)> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{now:016}-{}-{made}.{EXTENSION}", std::process::id()));
        let unborn = path.with_extension(UNBORN);
        let file = private::create_new(&unborn)?;
        match file.try_lock() {
            Ok(()) => {}
            // Somebody who tidies up holds it for a moment.
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(why)) => return Err(why),
        }
        match std::fs::rename(&unborn, &path) {
            Ok(()) => {}
            Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
            Err(why) => return Err(why),
        }
        // The name survives a power cut.
        File::open(folder)?.sync_all()?;
        return Ok((file, path));
    }
}

/// A segment whose process has ended, taken over: nobody else can while this lives.
#[derive(Debug)]
pub(crate) struct Taken {
    file: File,
    path: PathBuf,
}

impl Taken {
    /// `None` while its process lives, and when it is gone.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).open(path) {
            Ok(file) => file,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(why) => return Err(why),
        };
        match file.try_lock() {
            // It may have been loaded and removed between the two calls.
            Ok(()) if path.exists() => Ok(Some(Self { file, path: path.to_owned() })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(why)) => Err(why),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All of it.
    pub(crate) fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io::Seek::rewind(&mut self.file)?;
        io::Read::read_to_end(&mut self.file, &mut bytes)?;
        Ok(bytes)
    }
}

/// How many segments have a process that lives and may write to them.
pub fn in_use(folder: &Path) -> io::Result<usize> {
    let mut held = 0;
    for path in all(folder)? {
        match OpenOptions::new().read(true).open(&path).map(|file| file.try_lock()) {
            Ok(Err(TryLockError::WouldBlock)) => held += 1,
            Ok(Err(TryLockError::Error(why))) => return Err(why),
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
    }
    Ok(held)
}

/// A segment is in the store, all of it: it goes. Of a damaged one, what could be read is there: it is kept, for a
/// person to look at. Whoever calls this holds its lock.
pub(crate) fn is_done(path: &Path, damaged: bool) -> io::Result<()> {
    let gone = |done: io::Result<()>| match done {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    };
    if !damaged {
        return gone(std::fs::remove_file(path));
    }
    gone(std::fs::rename(path, path.with_extension(DAMAGED)))?;
    let mut kept = listed(path.parent().unwrap_or(Path::new(".")), DAMAGED)?;
    while kept.len() > DAMAGED_KEPT {
        gone(std::fs::remove_file(kept.remove(0)))?;
    }
    Ok(())
}

/// How many damaged segments are kept.
pub(crate) fn damaged(folder: &Path) -> io::Result<usize> {
    Ok(listed(folder, DAMAGED)?.len())
}

/// Removes the damaged segments that were kept.
pub(crate) fn forget_damaged(folder: &Path) -> io::Result<()> {
    listed(folder, DAMAGED)?.iter().try_for_each(std::fs::remove_file)
}

/// The segments of all processes, oldest first.
pub(crate) fn all(folder: &Path) -> io::Result<Vec<PathBuf>> {
    listed(folder, EXTENSION)
}

/// The name by which the store knows a segment.
pub(crate) fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes what a process left that ended while it was making a segment. Nothing was written to such a file.
pub(crate) fn tidy(folder: &Path) -> io::Result<()> {
    for path in listed(folder, UNBORN)? {
        if let Some(unborn) = Taken::take(&path)? {
            is_done(unborn.path(), false)?;
        }
    }
    Ok(())
}

fn listed(folder: &Path, extension: &str) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(paths),
        Err(why) => return Err(why),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_can_be_taken_over_only_when_its_file_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = create(folder.path()).unwrap();
        assert!(Taken::take(&path).unwrap().is_none());
        assert_eq!(in_use(folder.path()).unwrap(), 1);
        drop(file);
        assert_eq!(in_use(folder.path()).unwrap(), 0);
        let taken = Taken::take(&path).unwrap().unwrap();
        assert!(Taken::take(&path).unwrap().is_none(), "by one only");
        is_done(taken.path(), false).unwrap();
        drop(taken);
        assert!(Taken::take(&path).unwrap().is_none());
        assert!(all(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn segments_and_their_folder_are_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("journal");
        private::folder(&folder).unwrap();
        let (_file, path) = create(&folder).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn what_a_process_left_half_made_is_removed_and_what_it_is_making_is_not() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("1-1-1.new"), b"").unwrap();
        let making = File::create(folder.path().join("2-2-2.new")).unwrap();
        making.try_lock().unwrap();
        tidy(folder.path()).unwrap();
        assert_eq!(listed(folder.path(), UNBORN).unwrap(), [folder.path().join("2-2-2.new")]);
    }

    #[test]
    fn damaged_segments_are_kept_but_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..DAMAGED_KEPT + 3 {
            let (file, path) = create(folder.path()).unwrap();
            drop(file);
            is_done(&path, true).unwrap();
        }
        assert_eq!(listed(folder.path(), DAMAGED).unwrap().len(), DAMAGED_KEPT);
    }
}
