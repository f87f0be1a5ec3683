//! The store in a SQLite file: one connection that writes, any number that read.

mod about;
mod read;
mod row;
mod sums;
mod write;

use std::fs::TryLockError;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, TransactionBehavior};
use tokio::time::Instant;

use super::migrations::{Migration, SQLITE};
use super::{Reader, Store, StoreError, Writer};
use crate::private;

/// By which a file is known as ours: `cco` and one more.
const APPLICATION: i32 = 0x6363_6f01;
/// What another process may take for a migration, until we give up waiting.
const OPENING: Duration = Duration::from_secs(5);
/// How often it is looked whether it is done.
const LOCKED: Duration = Duration::from_millis(20);
/// What may lie beside the file at most, but for the last step.
const BESIDE: u64 = 64 * 1024 * 1024;
/// Steps of SQLite's machine between two looks at the clock.
const LOOK: i32 = 20_000;

/// Where the store is and how patient it is.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: PathBuf,
    /// How long a write waits for another program.
    busy: Duration,
    /// How long opening waits for one: it may be bringing the store up to date.
    opening: Duration,
    /// How long a question may take: a reader that stays pins what others have written since.
    question: Duration,
    /// Bytes of what is written and lies beside the file because somebody still reads what was there before.
    beside: u64,
    steps: &'static [Migration],
    /// As on a disk that has no room for what those who read share.
    #[cfg(test)]
    crowded: bool,
}

impl Sqlite {
    /// In this file, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let (busy, question) = (Duration::from_millis(250), Duration::from_secs(5));
        Self {
            path: path.into(),
            busy,
            opening: OPENING,
            question,
            beside: BESIDE,
            steps: SQLITE,
            #[cfg(test)]
            crowded: false,
        }
    }

    /// Waits for nobody: who holds the store does not go on.
    pub fn impatient(self) -> Self {
        Self { opening: self.busy, ..self }
    }

    /// How long a question may take.
    pub fn question(self, most: Duration) -> Self {
        Self { question: most, ..self }
    }

    /// How much may lie beside the file.
    #[cfg(test)]
    pub(crate) fn beside_at_most(self, bytes: u64) -> Self {
        Self { beside: bytes, ..self }
    }

    /// On a disk that has no room for what those who read share.
    #[cfg(test)]
    pub(crate) fn crowded(self) -> Self {
        Self { crowded: true, ..self }
    }

    /// Up to this form only.
    #[cfg(test)]
    pub(crate) fn steps(self, steps: &'static [Migration]) -> Self {
        Self { steps, ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives a store that cannot be used another name, so that a new one can begin. What it held is not in the new one.
    pub fn set_aside(&self) -> std::io::Result<PathBuf> {
        let aside = self.aside("");
        std::fs::rename(&self.path, &aside)?;
        let _ = std::fs::remove_file(self.begun());
        for end in ["-wal", "-shm"] {
            match std::fs::rename(with(&self.path, end), with(&aside, end)) {
                Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
                _ => {}
            }
        }
        Ok(aside)
    }

    /// A name for what is kept and not used.
    fn aside(&self, end: &str) -> PathBuf {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.beside(&format!("aside-{now}{end}"))
    }

    /// The last form that this program knows.
    fn form(&self) -> u32 {
        self.steps.len() as u32
    }

    /// The copy that is made before the form becomes this one.
    fn copy(&self, form: u32) -> PathBuf {
        self.beside(&format!("before-form-{form}"))
    }

    /// Says that records are kept here: a store that is not there, or empty, is none that has yet to begin.
    fn begun(&self) -> PathBuf {
        self.beside("begun")
    }

    fn beside(&self, what: &str) -> PathBuf {
        with(&self.path, &format!(".{what}"))
    }

    /// The file, and what was written last and lies beside it.
    fn files(&self) -> [PathBuf; 2] {
        [self.path.clone(), with(&self.path, "-wal")]
    }

    /// A store in memory alone, which `fill` fills: for who can use no other. It goes with the reader.
    pub fn in_memory(
        question: Duration,
        fill: impl FnOnce(&mut dyn Writer) -> Result<(), StoreError>,
    ) -> Result<Box<dyn Reader>, StoreError> {
        let store = Self::new("").question(question);
        let mut db = Connection::open_in_memory()?;
        store.migrate(&mut db, 0)?;
        let mut writer = write::SqliteWriter::new(db, store);
        fill(&mut writer)?;
        Ok(Box::new(read::SqliteReader::new(writer.into_db(), question, true)))
    }

    /// Whether more lies beside the file than should.
    fn is_behind(&self) -> bool {
        std::fs::metadata(with(&self.path, "-wal")).is_ok_and(|about| about.len() > self.beside)
    }

    fn open(&self) -> Result<Connection, StoreError> {
        let io = |why: std::io::Error| StoreError::Other(format!("`{}` cannot be opened: {why}", self.path.display()));
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            private::folder(folder).map_err(|why| StoreError::Other(why.to_string()))?;
        }
        // Before the store is looked at: another process may be the one who begins it.
        let begun = self.begun().exists();
        if begun && !self.path.exists() {
            return Err(StoreError::Gone(self.path.clone()));
        }
        ensure(&self.path).map_err(io)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(self.opening)?;
        let form: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        let known = self.form();
        let application: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 && begun {
            return Err(StoreError::Gone(self.path.clone()));
        } else if tables == 0 {
            // These can be chosen only while there is nothing.
            db.execute_batch("PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL")?;
        } else if application != APPLICATION {
            return Err(StoreError::Foreign(self.path.clone()));
        } else if form > known {
            return Err(StoreError::Newer { found: form, known });
        }
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY")?;
        db.pragma_update(None, "journal_size_limit", i64::try_from(self.beside).unwrap_or(i64::MAX))?;
        db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON")?;
        self.check(&db, form)?;
        if form < known {
            self.migrate(&mut db, form)?;
        }
        if !begun {
            ensure(&self.begun()).map_err(io)?;
        }
        db.busy_timeout(self.busy)?;
        Ok(db)
    }

    /// The steps that were taken must be those that we know by these numbers.
    fn check(&self, db: &Connection, form: u32) -> Result<(), StoreError> {
        for step in self.steps.iter().filter(|step| step.version <= form) {
            let sql = "SELECT checksum FROM migration WHERE version = ?1";
            let found: Option<u32> = db.query_row(sql, [step.version], |row| row.get(0)).optional()?;
            if found != Some(step.checksum()) {
                return Err(StoreError::Altered { version: step.version });
            }
        }
        Ok(())
    }

    fn migrate(&self, db: &mut Connection, form: u32) -> Result<(), StoreError> {
        // One at a time: a second copy would be of the new form, in the place of the first.
        let _lock = if form > 0 { Some(self.lock()?) } else { None };
        let form = if form > 0 { db.query_row("PRAGMA user_version", [], |row| row.get(0))? } else { form };
        if form >= self.form() {
            return Ok(());
        }
        if form > 0 {
            let copy = self.copy(self.form());
            let _ = std::fs::remove_file(&copy);
            ensure(&copy).map_err(|why| StoreError::Other(format!("no copy can be made: {why}")))?;
            let name = copy.to_str().ok_or_else(|| StoreError::Other("the store's path is not UTF-8".into()))?;
            db.execute("VACUUM INTO ?1", [name])?;
        }
        let change = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been quicker.
        let form: u32 = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        change.execute_batch(
            "CREATE TABLE IF NOT EXISTS migration \
             (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum INTEGER NOT NULL, applied_us INTEGER NOT NULL) STRICT",
        )?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        for step in self.steps.iter().filter(|step| step.version > form) {
            change.execute_batch(step.sql)?;
            let sql = "INSERT INTO migration (version, name, checksum, applied_us) VALUES (?1, ?2, ?3, ?4)";
            change.execute(sql, (step.version, step.name, step.checksum(), now))?;
            change.pragma_update(None, "user_version", step.version)?;
        }
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.commit()?;
        Ok(())
    }

    /// Held by the process that brings the store up to date.
    fn lock(&self) -> Result<std::fs::File, StoreError> {
        let path = self.beside("lock");
        let io = |why: std::io::Error| StoreError::Other(format!("`{}` cannot be locked: {why}", path.display()));
        ensure(&path).map_err(io)?;
        let (file, until) = (private::open_existing(&path).map_err(io)?, Instant::now() + self.opening);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::park_timeout(LOCKED),
                Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
                Err(TryLockError::Error(why)) => return Err(io(why)),
            }
        }
    }

    /// Removes the copies of earlier forms that were made before this time.
    fn forget_copies(&self, before: SystemTime) {
        for form in 1..=self.form() {
            let copy = self.copy(form);
            if std::fs::metadata(&copy).and_then(|about| about.modified()).is_ok_and(|made| made < before) {
                let _ = std::fs::remove_file(&copy);
            }
        }
    }

    fn open_beside_others(&self) -> rusqlite::Result<(Connection, u32)> {
        #[cfg(test)]
        if self.crowded {
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL), None));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(self.busy)?;
        let form = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((db, form))
    }

    /// To look, while nobody else can.
    fn open_alone(&self) -> rusqlite::Result<(Connection, u32)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(self.busy)?;
        db.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON")?;
        let form = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((db, form))
    }

    /// Only to look: nothing is made that is not there. `true`: nobody else can write meanwhile.
    fn open_to_read(&self) -> Result<(Connection, bool), StoreError> {
        let begun = self.begun().exists();
        if !self.path.exists() {
            let path = self.path.clone();
            return Err(if begun { StoreError::Gone(path) } else { StoreError::Missing(path) });
        }
        let ((db, form), alone) = match self.open_beside_others() {
            // On a full disk there is no room for what those who read share. Who is alone does without it.
            Err(why) if is_no_room(&why) => (self.open_alone()?, true),
            opened => (opened?, false),
        };
        let application: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
        let known = self.form();
        if application != APPLICATION {
            let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            let path = self.path.clone();
            match (tables, begun) {
                (0, true) => return Err(StoreError::Gone(path)),
                (0, false) => {}
                _ => return Err(StoreError::Foreign(path)),
            }
        } else if form > known {
            return Err(StoreError::Newer { found: form, known });
        }
        if form < known || application != APPLICATION {
            let why = format!("`{}` is not brought up to date yet", self.path.display());
            return Err(StoreError::Unavailable(why));
        }
        db.execute_batch("PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF")?;
        Ok((db, alone))
    }
}

impl Store for Sqlite {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        Ok(Box::new(write::SqliteWriter::new(self.open()?, self.clone())))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        let (db, alone) = self.open_to_read()?;
        Ok(Box::new(read::SqliteReader::new(db, self.question, alone)))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// The path with this at its end.
fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Sees to it that a file is there and that only we may read it. One that is there is not opened: closing it would let
/// go of the locks that this process has on it.
fn ensure(path: &Path) -> std::io::Result<()> {
    match private::create_new(path) {
        Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => return made.map(drop),
    }
    if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Whether it failed for want of a file, or of room in one.
fn is_no_room(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen))
}

/// Ends a question that takes too long.
fn limit(db: &mut Connection, most: Duration) -> Result<(), StoreError> {
    let end = Instant::now() + most;
    db.progress_handler(LOOK, Some(move || Instant::now() > end))?;
    Ok(())
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt(error.to_string()),
            Some(ErrorCode::OperationInterrupted) => Self::TooLong,
            _ => Self::Other(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
