//! The store: records that can be asked. Loaded from the journal, never written by those who serve.
//!
//! What a store must be able to do stands here; [`sqlite`] is the one that is built in.

pub mod migrations;
pub mod sqlite;

use std::fmt;
use std::path::PathBuf;

use crate::money::NanoUsd;
use crate::price::{Cost, Flags, Unpriced};
use crate::query::{Filter, Found, Groups, Key, LastLimits, Metrics, Row, Sessions, Zone};
use crate::record::{Id, Record};

/// A store that can be opened again and again.
pub trait Store: Send + Sync + fmt::Debug {
    /// For the one who writes. Brings the store's form up to date if it is an older one.
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError>;
    /// For one who reads. There may be many.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
    /// How it is called in messages: a path, a host. Never a secret.
    fn name(&self) -> String;
}

/// What is loaded in one step: all of it, or nothing.
#[derive(Debug)]
pub struct Batch<'a> {
    /// In the order of the journal.
    pub records: &'a [Record],
    /// The journal's segment that they come from.
    pub segment: &'a str,
    /// How far the segment is loaded when they are.
    pub position: u64,
    /// Whether that was all of it. Such a step is on the disk when it returns, because the segment goes then.
    pub complete: bool,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Records that were not known.
    pub new: u64,
    /// Records that were known already and left alone.
    pub known: u64,
    /// Records that took the place of one that said that the exchange was interrupted.
    pub corrected: u64,
}

/// Which records go for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// This one.
    Id(Id),
    /// Those of this session.
    Session(String),
    /// Those that began before this time, in microseconds since 1970.
    Before(i64),
    /// All of them.
    All,
}

/// A price that was computed again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Priced {
    /// `None`: no price is known.
    pub cost: Option<NanoUsd>,
    /// What is to be known about it.
    pub flags: Flags,
    /// Why there is none.
    pub unpriced: Option<Unpriced>,
    /// The version of the prices.
    pub version: Option<Box<str>>,
}

impl Priced {
    /// At these prices.
    pub fn of(cost: Result<Cost, Unpriced>) -> Self {
        match cost {
            Ok(cost) => Self {
                cost: Some(cost.nano_usd),
                flags: cost.flags,
                unpriced: None,
                version: Some(Box::from(&*cost.price_version)),
            },
            Err(why) => Self { cost: None, flags: Flags::default(), unpriced: Some(why), version: None },
        }
    }

    /// Whether the record says so already.
    pub fn is_of(&self, record: &Record) -> bool {
        let Self { cost, flags, unpriced, version } = self;
        (*cost, *flags, *unpriced, version) == (record.cost, record.cost_flags, record.unpriced, &record.price_version)
    }
}

/// How far a long piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records that were looked at in this step.
    pub seen: u64,
    /// Of these, records that were changed or removed.
    pub changed: u64,
    /// Where the next step goes on; `None` when everything is done.
    pub next: Option<i64>,
}

/// Writes to a store. One thread has it.
pub trait Writer: Send {
    /// Loads a batch. Loading it twice changes nothing.
    fn load(&mut self, batch: &Batch<'_>) -> Result<Loaded, StoreError>;
    /// How far this segment is loaded.
    fn position(&mut self, segment: &str) -> Result<u64, StoreError>;
    /// These are the segments that there still are: others need not be remembered.
    fn forget_segments_but(&mut self, names: &[String]) -> Result<(), StoreError>;
    /// Begins another counting. Everything that was loaded belongs to earlier ones.
    fn reset(&mut self, now_us: i64) -> Result<(), StoreError>;
    /// Prices the next records after `after` that the filter means. `None` leaves a record as it is.
    fn reprice(
        &mut self,
        filter: &Filter,
        after: i64,
        price: &mut dyn FnMut(&Record) -> Option<Priced>,
    ) -> Result<Progress, StoreError>;
    /// Removes some records, with what they added to the sums; to be called until `next` is `None`.
    fn purge(&mut self, what: &Purge) -> Result<Progress, StoreError>;
    /// Removes some of the records that began before this time. What they added to the sums stays.
    fn trim(&mut self, before_us: i64) -> Result<Progress, StoreError>;
    /// Gives room back that records took which are gone.
    fn compact(&mut self) -> Result<(), StoreError>;
    /// After a removal: leaves no trace of what was removed, where the disk has room for that, and gives room back.
    fn scrub(&mut self) -> Result<(), StoreError>;
    /// Nothing is to be done at the moment: time to tidy up.
    fn idle(&mut self) -> Result<(), StoreError>;
    /// The bytes that the store takes, and the time at which its oldest record began.
    fn size(&mut self) -> Result<Size, StoreError>;
}

/// How large a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Bytes on the disk, as far as they are in use.
    pub bytes: u64,
    /// Records, to the nearest that is quickly known.
    pub records: u64,
    /// When the oldest record began.
    pub oldest_us: Option<i64>,
}

/// Reads from a store.
pub trait Reader: Send {
    /// Records, the last recorded first; with `after_seq`, the first recorded first.
    fn rows(&mut self, filter: &Filter) -> Result<Vec<Row>, StoreError>;
    /// The record of an exchange.
    fn get(&mut self, id: Id) -> Result<Option<Row>, StoreError>;
    /// The exchange whose short id, or whole id, begins with these digits; `last`: the last that was recorded;
    /// `last-error`: the last in which something went wrong.
    fn find(&mut self, word: &str) -> Result<Found, StoreError>;
    /// Sums for every value of these keys.
    fn totals(&mut self, filter: &Filter, keys: &[Key], zone: Zone<'_>) -> Result<Groups, StoreError>;
    /// The last sessions, with their agents.
    fn sessions(&mut self, filter: &Filter) -> Result<Sessions, StoreError>;
    /// What providers said last about their limits, the newest first.
    fn limits(&mut self) -> Result<Vec<LastLimits>, StoreError>;
    /// Whether others can write while this is there: one that is alone with the store must go when it has answered.
    fn may_stay(&self) -> bool {
        true
    }
    /// What `/gateway/metrics` tells; lists that can be long have at most `top` groups.
    fn metrics(&mut self, top: u32) -> Result<Metrics, StoreError>;
}

/// Why a store does not do what it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// Somebody else holds it. It is tried again.
    Busy,
    /// Its disk is full.
    Full,
    /// A newer version of the program has changed its form.
    Newer {
        /// The version of the form that was found.
        found: u32,
        /// The last one that this program knows.
        known: u32,
    },
    /// Its form is not what its version says.
    Altered {
        /// The version of which the description differs.
        version: u32,
    },
    /// It is a database, but none of ours.
    Foreign(PathBuf),
    /// It held records, and is not there any more, or is empty.
    Gone(PathBuf),
    /// It is damaged.
    Corrupt(String),
    /// The answer took longer than it may.
    TooLong,
    /// There is none: nothing was recorded yet.
    Missing(PathBuf),
    /// Nobody has it open at the moment: why, as far as it is known.
    Unavailable(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the store is locked by another program; it is tried again"),
            Self::Full => {
                f.write_str("the store's disk is full: free some space, or run `cco audit purge --before DATE`")
            }
            Self::Newer { found, known } => write!(
                f,
                "the store has form {found}, and this program knows forms up to {known}: use the newer `cco` that made it"
            ),
            Self::Altered { version } => write!(
                f,
                "form {version} of the store is not the one that this program knows: use the `cco` that made it"
            ),
            Self::Foreign(path) => {
                write!(f, "`{}` is the database of another program: give `audit.dbPath` another name", path.display())
            }
            Self::Gone(path) => {
                let path = path.display();
                write!(
                    f,
                    "`{path}` is gone or empty, although records were kept in it: put it back, or remove `{path}.begun` \
                     to begin a new one"
                )
            }
            Self::Corrupt(what) => {
                write!(
                    f,
                    "the store is damaged ({what}): nothing is lost that the journal holds; put a copy of it back, or \
                     move it and what has its name aside to begin a new one"
                )
            }
            Self::Missing(path) => write!(f, "nothing was recorded yet: there is no `{}`", path.display()),
            Self::TooLong => f.write_str("the answer took too long: ask for less, with `--since` or `--limit`"),
            Self::Unavailable(why) => write!(f, "the store cannot be used: {why}"),
            Self::Other(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}
