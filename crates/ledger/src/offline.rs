//! The ledger for a command that runs without a gateway: the store, and what the journal holds beyond it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::journal::segment;
use crate::loader::{LoadError, catch_up, look_ahead};
use crate::store::sqlite::Sqlite;
use crate::store::{Reader, Store, StoreError};

/// How often a store is tried that another process holds; it waits a while itself before it says so.
const TRIES: u32 = 4;
/// How long a question to the journal alone may take: it holds what one store did not take, and the rest is gone by then.
const QUESTION: Duration = Duration::from_secs(60);

/// A store that can be read, with everything in it that could be loaded.
pub struct Offline {
    /// Answers questions.
    pub reader: Box<dyn Reader>,
    /// Why the newest records may be missing; `None`: they are not.
    pub stale: Option<StoreError>,
    /// The store cannot be asked: this is what the journal holds, and nothing else.
    pub is_journal: bool,
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
                Ok(reader) => return Ok(Self { reader, stale: None, is_journal: false, damaged: damaged(journal)? }),
                Err(StoreError::Missing(path)) => return Err(StoreError::Missing(path)),
                // One of an older form: whoever writes brings it up to date.
                Err(_) => {}
            }
        }
        let stale = bring_up(store, journal).err();
        match (store.reader(), segments.is_empty()) {
            (Ok(reader), _) => Ok(Self { reader, stale, is_journal: false, damaged: damaged(journal)? }),
            (Err(why), true) => Err(stale.unwrap_or(why)),
            (Err(why), false) => Ok(Self { stale: Some(stale.unwrap_or(why)), ..Self::of_journal(journal)? }),
        }
    }

    /// Only what the journal holds, for when the store cannot be asked. Nothing is changed. [`StoreError::Missing`] where
    /// it holds nothing.
    pub fn of_journal(journal: &Path) -> Result<Self, StoreError> {
        if segment::all(journal).map_err(|why| unreadable(journal, &why))?.is_empty() {
            return Err(StoreError::Missing(journal.to_owned()));
        }
        let reader = Sqlite::in_memory(QUESTION, |writer| match look_ahead(writer, journal) {
            Ok(_) => Ok(()),
            Err(LoadError::Store(why)) => Err(why),
            Err(LoadError::Journal(path, why)) => Err(unreadable(&path, &why)),
        })?;
        Ok(Self { reader, stale: None, is_journal: true, damaged: damaged(journal)? })
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
