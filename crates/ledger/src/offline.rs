//! The ledger for a command that runs without a gateway: the store, and what the journal holds beyond it.

use std::fmt;
use std::path::Path;

use crate::journal::segment;
use crate::loader::{LoadError, catch_up};
use crate::store::{Reader, Store, StoreError};

/// How often a store is tried that another process holds; it waits a while itself before it says so.
const TRIES: u32 = 4;

/// A store that can be read, with everything in it that could be loaded.
pub struct Offline {
    /// Answers questions.
    pub reader: Box<dyn Reader>,
    /// Why the newest records may be missing; `None`: they are not.
    pub stale: Option<StoreError>,
    /// Files of the journal that were damaged, now or before, and are kept: what could not be read of them is missing.
    pub damaged: i64,
}

impl fmt::Debug for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offline").field("stale", &self.stale).finish_non_exhaustive()
    }
}

impl Offline {
    /// Loads what processes left in this journal that are gone, and what living ones have written; then reads. Blocks.
    /// Where nothing was ever recorded, nothing is made: [`StoreError::Missing`].
    pub fn open(store: &dyn Store, journal: &Path) -> Result<Self, StoreError> {
        let segments = segment::all(journal).map_err(|why| unreadable(journal, &why))?;
        if segments.is_empty() {
            match store.reader() {
                Ok(reader) => return Ok(Self { reader, stale: None, damaged: damaged(journal)? }),
                Err(StoreError::Missing(path)) => return Err(StoreError::Missing(path)),
                // One of an older form: whoever writes brings it up to date.
                Err(_) => {}
            }
        }
        let stale = bring_up(store, journal).err();
        match store.reader() {
            Ok(reader) => Ok(Self { reader, stale, damaged: damaged(journal)? }),
            Err(why) => Err(stale.unwrap_or(why)),
        }
    }
}

fn damaged(journal: &Path) -> Result<i64, StoreError> {
    let damaged = segment::damaged(journal).map_err(|why| unreadable(journal, &why))?;
    Ok(i64::try_from(damaged).unwrap_or(i64::MAX))
}

fn unreadable(journal: &Path, why: &std::io::Error) -> StoreError {
    StoreError::Other(format!("the journal `{}` cannot be read: {why}", journal.display()))
}

fn bring_up(store: &dyn Store, journal: &Path) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        let done = store.writer().map_err(LoadError::from).and_then(|mut writer| catch_up(&mut *writer, journal));
        match done {
            Ok(_) => return Ok(()),
            Err(LoadError::Store(StoreError::Busy)) if tries < TRIES => tries += 1,
            Err(LoadError::Store(why)) => return Err(why),
            Err(LoadError::Journal(path, why)) => return Err(unreadable(&path, &why)),
        }
    }
}
