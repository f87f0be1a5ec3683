//! The ledger as a gateway holds it: the journal, the store, and the threads between them.

use std::borrow::BorrowMut;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::journal::segment;
use crate::journal::{Ack, Journal, JournalHealth, JournalOptions, Shared};
use crate::loader::{Counts, Follower, LoadError, Recovery};
use crate::query::Filter;
use crate::record::Record;
use crate::retention::Retention;
use crate::steady::Steady;
use crate::store::{Priced, Progress, Purge, Reader, Store, StoreError, Writer};

/// What comes together in this time is loaded in one transaction.
const GATHER: Duration = Duration::from_secs(1);
/// How often the segments of processes that are gone are looked for, and the store is tidied up.
const ROUND: Duration = Duration::from_secs(5);
/// How often it is looked whether records must go.
const RETAIN: Duration = Duration::from_secs(60);
/// A store that is locked is tried again after this long; one that fails, after twice as long each time, at most
/// [`LONGEST_PAUSE`]: when its disk has room again, it should be well a few seconds later.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Questions that may wait for a thread that reads.
const WAITING: usize = 64;
/// Threads that read.
const READERS: usize = 2;
/// A question waits this long for the store to have what the journal has.
const BARRIER: Duration = Duration::from_secs(1);
/// At the end, a store that is locked is tried again for this long.
const LAST_TRY: Duration = Duration::from_secs(2);

/// What a ledger is made of.
#[derive(Debug, Clone)]
pub struct LedgerOptions {
    /// The journal.
    pub journal: JournalOptions,
    /// How long records stay.
    pub retention: Retention,
}

/// How the ledger is. A failing store delays nobody and loses nothing: the journal keeps what it does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerHealth {
    /// The journal.
    pub journal: JournalHealth,
    /// Why the store does not take records at the moment.
    pub store: Option<StoreError>,
    /// What was loaded since the start, and what was found on the way.
    pub loaded: Counts,
    /// Files of the journal that were damaged, now or before, and are kept.
    pub damaged_files: u64,
}

impl LedgerHealth {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        let journal = !self.journal.failing && !self.journal.low_space && self.journal.lost == 0;
        let whole = self.loaded.damaged + self.loaded.unreadable + self.damaged_files == 0;
        journal && self.store.is_none() && whole
    }
}

/// What the store said, and whether it knew everything that was in the journal when it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// `false`: the newest records are missing because the store is behind.
    pub fresh: bool,
}

type Write = Box<dyn FnOnce(Result<&mut dyn Writer, StoreError>) + Send>;
/// `false`: the connection is not to be used again.
type Read = Box<dyn FnOnce(Result<&mut dyn Reader, StoreError>) -> bool + Send>;

/// Journal and store of one process.
pub struct Ledger {
    journal: Journal,
    inner: Arc<Inner>,
    writes: SyncSender<Write>,
    reads: SyncSender<Read>,
    reached: watch::Receiver<Reached>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the store has.
#[derive(Debug, Clone, Copy, Default)]
struct Reached {
    /// Everything that this process wrote up to here.
    position: u64,
    /// Everything that was left by processes that were gone when this one began.
    recovered: bool,
}

struct Inner {
    store: Arc<dyn Store>,
    folder: PathBuf,
    shared: Arc<Shared>,
    retention: Retention,
    /// Why the store takes nothing; empty until it was tried.
    error: Mutex<Option<StoreError>>,
    counts: Mutex<Counts>,
    reached: watch::Sender<Reached>,
    damaged: AtomicU64,
    closing: AtomicBool,
}

impl Inner {
    fn look_for_damage(&self) {
        if let Ok(damaged) = segment::damaged(&self.folder) {
            self.damaged.store(damaged as u64, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("store", &self.inner.store)
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Begins a journal and opens the store behind it. A store that cannot be opened is no error: `health` says so, it is
    /// tried again, and the journal keeps everything meanwhile.
    pub fn open(options: LedgerOptions, store: Arc<dyn Store>) -> std::io::Result<Self> {
        let folder = options.journal.folder.clone();
        let journal = Journal::open(options.journal)?;
        let (progress, reached) = watch::channel(Reached::default());
        let inner = Arc::new(Inner {
            store,
            folder,
            shared: journal.shared().clone(),
            retention: options.retention,
            error: Mutex::default(),
            counts: Mutex::default(),
            reached: progress,
            damaged: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        inner.look_for_damage();
        let (writes, to_write) = sync_channel(WAITING);
        let (reads, to_read) = sync_channel::<Read>(WAITING);
        let loader = inner.clone();
        let mut threads =
            vec![std::thread::Builder::new().name("ledger".into()).spawn(move || loading(&loader, &to_write))?];
        let to_read = Arc::new(Mutex::new(to_read));
        for n in 0..READERS {
            let (inner, to_read) = (inner.clone(), to_read.clone());
            let thread = std::thread::Builder::new().name(format!("ledger-read-{n}"));
            threads.push(thread.spawn(move || answer(&inner, &to_read))?);
        }
        Ok(Self { journal, inner, writes, reads, reached, threads: Mutex::new(threads) })
    }

    /// Hands in that an exchange begins: see [`Journal::start`].
    pub fn start(&self, record: &mut Record) -> Ack {
        self.journal.start(record)
    }

    /// Hands in what became of an exchange: see [`Journal::finish`].
    pub fn finish(&self, record: impl BorrowMut<Record>) -> Ack {
        self.journal.finish(record)
    }

    /// Whether entries can be written at the moment.
    pub fn accepts(&self) -> bool {
        self.journal.accepts()
    }

    /// How everything is.
    pub fn health(&self) -> LedgerHealth {
        LedgerHealth {
            journal: self.journal.health(),
            store: lock(&self.inner.error).clone(),
            loaded: *lock(&self.inner.counts),
            damaged_files: self.inner.damaged.load(Ordering::Relaxed),
        }
    }

    /// Waits until the store has what was written when this was called, at most this long; `false` if it has not.
    pub async fn caught_up(&self, most: Duration) -> bool {
        // A store that is not there will not be there in a second.
        let failing = lock(&self.inner.error).as_ref().is_some_and(|why| *why != StoreError::Busy);
        self.loaded(if failing { Duration::ZERO } else { most }).await
    }

    /// Waits until everything that was written before this call is in the store, whatever is wrong with it now.
    async fn loaded(&self, most: Duration) -> bool {
        let position = self.journal.position().0;
        let has_it = |reached: &Reached| reached.recovered && reached.position >= position;
        let mut reached = self.reached.clone();
        if has_it(&reached.borrow_and_update()) {
            return true;
        }
        if most.is_zero() {
            return false;
        }
        self.inner.shared.nudge(true);
        let loaded = reached.wait_for(has_it);
        tokio::time::timeout(most, loaded).await.is_ok_and(|waited| waited.is_ok())
    }

    /// Asks the store, on a thread of its own, once it knows what was in the journal at the call.
    pub async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Answer<T>, StoreError> {
        let fresh = self.caught_up(BARRIER).await;
        let (say, said) = oneshot::channel();
        let question: Read = Box::new(move |reader| {
            let answer = reader.and_then(ask);
            let keep = matches!(answer, Ok(_) | Err(StoreError::Busy | StoreError::TooLong));
            // Who has gone does not want to know.
            let _ = say.send(answer);
            keep
        });
        match self.reads.try_send(question) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(StoreError::Unavailable("too many questions are waiting".into())),
            Err(TrySendError::Disconnected(_)) => return Err(closed()),
        }
        let value = said.await.map_err(|_| closed())??;
        Ok(Answer { value, fresh })
    }

    /// Begins another counting for the metrics, after everything that is in the journal now.
    pub async fn reset(&self) -> Result<(), StoreError> {
        self.caught_up(BARRIER).await;
        self.write(|writer| writer.reset(now_us())).await
    }

    /// Prices the records again that the filter means. Loading goes on meanwhile.
    pub async fn reprice(
        &self,
        filter: Filter,
        price: impl Fn(&Record) -> Option<Priced> + Send + Sync + 'static,
    ) -> Result<Progress, StoreError> {
        let (price, mut all, mut after) = (Arc::new(price), Progress::default(), 0);
        loop {
            let price = price.clone();
            let step = self.reprice_step(filter.clone(), after, move |record| price(record)).await?;
            all.seen += step.seen;
            all.changed += step.changed;
            match step.next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// One step of the same: the next records after `after`; 0 at the beginning, then where the step before ended.
    pub async fn reprice_step(
        &self,
        filter: Filter,
        after: i64,
        price: impl Fn(&Record) -> Option<Priced> + Send + 'static,
    ) -> Result<Progress, StoreError> {
        if after == 0 {
            self.caught_up(BARRIER).await;
        }
        self.write(move |writer| writer.reprice(&filter, after, &mut |record| price(record))).await
    }

    /// Removes records for good: from the store, from the journal, from the disk.
    pub async fn purge(&self, what: Purge) -> Result<u64, StoreError> {
        // On a full disk, even removing needs room; and what is in the live segment must not come back.
        self.journal.make_room();
        let rotated = self.journal.rotate().await;
        // A store that failed for want of room is tried again at the next turn.
        if !self.loaded(BARRIER + LONGEST_PAUSE).await || rotated.is_err() {
            // What is wrong with the store itself is the better reason.
            if let Some(why) = lock(&self.inner.error).clone().filter(|why| !is_passing(why)) {
                return Err(why);
            }
            let help = if self.journal.health().low_space { "free some megabytes of its disk" } else { "try again" };
            let why = format!("the journal could not be loaded before the removal: {help}");
            return Err(StoreError::Unavailable(why));
        }
        segment::forget_damaged(&self.inner.folder).map_err(|why| StoreError::Other(why.to_string()))?;
        self.inner.look_for_damage();
        let (what, mut removed) = (Arc::new(what), 0);
        loop {
            let what = what.clone();
            let step = self.write(move |writer| writer.purge(&what)).await?;
            removed += step.changed;
            if step.next.is_none() {
                break;
            }
        }
        self.write(|writer| writer.scrub()).await?;
        Ok(removed)
    }

    async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut dyn Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (say, said) = oneshot::channel();
        let change: Write = Box::new(move |writer| {
            let _ = say.send(writer.and_then(change));
        });
        match self.writes.try_send(change) {
            Ok(()) => self.inner.shared.nudge(true),
            Err(TrySendError::Full(_)) => return Err(StoreError::Unavailable("too many changes are waiting".into())),
            Err(TrySendError::Disconnected(_)) => return Err(closed()),
        }
        said.await.map_err(|_| closed())?
    }

    /// Writes and loads what there is, and ends the threads. Blocks; what the store does not take stays in the journal.
    pub fn close(&self) {
        self.journal.close();
        self.inner.closing.store(true, Ordering::Release);
        self.inner.shared.nudge(true);
        for _ in 0..READERS {
            // A question wakes a thread that reads; having answered it, it sees that it is the end.
            let _ = self.reads.send(Box::new(|_| false));
        }
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.shared.nudge(true);
    }
}

/// Whether a store that fails so may do what is asked of it a moment later.
fn is_passing(why: &StoreError) -> bool {
    matches!(why, StoreError::Busy | StoreError::Full | StoreError::Unavailable(_))
}

fn closed() -> StoreError {
    StoreError::Unavailable("the ledger is closed".into())
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

fn now_ms() -> u64 {
    now_us().max(0).unsigned_abs() / 1000
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that reads.
fn answer(inner: &Inner, questions: &Mutex<Receiver<Read>>) {
    let mut open: Option<Box<dyn Reader>> = None;
    loop {
        // Whoever waits for the next question holds the lock while it waits; the others wait for the lock.
        let Ok(question) = lock(questions).recv() else { return };
        let keep = match open.as_mut() {
            Some(reader) => question(Ok(&mut **reader)),
            None => match inner.store.reader() {
                Ok(reader) => question(Ok(&mut **open.insert(reader))),
                Err(why) => question(Err(why)),
            },
        };
        if inner.closing.load(Ordering::Acquire) {
            return;
        }
        if !keep || open.as_ref().is_some_and(|reader| !reader.may_stay()) {
            open = None;
        }
    }
}

/// The thread that writes. If it ends by a fault of its own, `health` says so: the journal grows from then on.
fn loading(inner: &Arc<Inner>, changes: &Receiver<Write>) {
    struct Watch<'i>(&'i Inner);
    impl Drop for Watch<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let why = "its thread has failed, and records wait in the journal: restart the gateway";
                error!("{why}");
                *lock(&self.0.error) = Some(StoreError::Unavailable(why.into()));
            }
        }
    }
    let _watch = Watch(inner);
    Loading::new(inner.clone()).run(changes);
}

struct Loading {
    inner: Arc<Inner>,
    writer: Option<Box<dyn Writer>>,
    follower: Follower,
    pause: Duration,
    /// What the log says last of a store that does not take records.
    told: Option<StoreError>,
    /// When a store that fails is tried again.
    retry: Instant,
    /// When the next round is due.
    round: Instant,
    retain: Instant,
    clock: Steady,
    trimmed: bool,
    recovery: Recovery,
}

impl Loading {
    fn new(inner: Arc<Inner>) -> Self {
        let now = Instant::now();
        Self {
            inner,
            writer: None,
            follower: Follower::default(),
            pause: SHORTEST_PAUSE,
            told: None,
            retry: now,
            round: now,
            retain: now,
            clock: Steady::new(now_ms()),
            trimmed: false,
            recovery: Recovery::default(),
        }
    }

    fn run(mut self, changes: &Receiver<Write>) {
        loop {
            let closing = self.inner.closing.load(Ordering::Acquire);
            self.step(changes);
            if closing {
                break;
            }
            let now = Instant::now();
            let next = if self.writer.is_some() && !self.is_failing() { self.round } else { self.retry };
            if self.inner.shared.wait_for_news(next.saturating_duration_since(now)) {
                if self.is_failing() {
                    // News do not make it better.
                    let rest = self.retry.saturating_duration_since(Instant::now());
                    self.inner.shared.gather(rest.min(SHORTEST_PAUSE));
                } else if !self.inner.closing.load(Ordering::Acquire) {
                    self.inner.shared.gather(GATHER);
                }
            }
        }
        self.end(changes);
    }

    fn is_failing(&self) -> bool {
        lock(&self.inner.error).is_some()
    }

    /// One round of everything that is due.
    fn step(&mut self, changes: &Receiver<Write>) {
        let now = Instant::now();
        let changes: Vec<Write> = changes.try_iter().take(WAITING).collect();
        // Who wants a change has a reason to hope: room was made, a lock was let go.
        if now >= self.retry || !self.is_failing() || !changes.is_empty() {
            let done = self.load(now);
            self.judge(done);
        }
        for change in changes {
            match self.writer.as_mut() {
                Some(writer) => change(Ok(&mut **writer)),
                None => change(Err(lock(&self.inner.error).clone().unwrap_or_else(closed))),
            }
        }
    }

    fn load(&mut self, now: Instant) -> Result<(), LoadError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                // It may be another one than before: it says itself how far it is.
                self.follower = Follower::default();
                self.writer.insert(self.inner.store.writer()?)
            }
        };
        let writer = &mut **writer;
        let progress = |position: u64| {
            self.inner.shared.set_loaded(position);
            self.inner.reached.send_modify(|reached| reached.position = position);
        };
        let counts = self.follower.follow(writer, &self.inner.shared, &progress)?;
        lock(&self.inner.counts).add(&counts);
        if now >= self.round {
            self.round = now + ROUND;
            let counts = self.recovery.take_over(writer, &self.inner.folder)?;
            lock(&self.inner.counts).add(&counts);
            self.inner.look_for_damage();
            self.inner.reached.send_modify(|reached| reached.recovered = true);
            writer.idle()?;
        }
        if now >= self.retain && !self.clock.look(now_ms()) {
            self.retain = now + RETAIN;
        } else if now >= self.retain {
            if let Some(before) = self.inner.retention.before(now_us(), &writer.size()?) {
                // Step by step: what comes meanwhile is loaded between.
                writer.trim(before)?;
                self.trimmed = true;
                self.inner.shared.nudge(true);
            } else {
                self.retain = now + RETAIN;
                if std::mem::take(&mut self.trimmed) {
                    writer.compact()?;
                }
            }
        }
        Ok(())
    }

    /// Remembers how it went, and when to try again.
    fn judge(&mut self, done: Result<(), LoadError>) {
        let why = match done {
            Ok(()) => {
                *lock(&self.inner.error) = None;
                if self.told.take().is_some() {
                    info!(store = self.inner.store.name(), "the store takes records again");
                }
                self.pause = SHORTEST_PAUSE;
                return;
            }
            Err(LoadError::Store(why)) => why,
            Err(why @ LoadError::Journal(..)) => StoreError::Unavailable(why.to_string()),
        };
        if why == StoreError::Busy {
            self.pause = SHORTEST_PAUSE;
        } else {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            // A connection to a store that failed may know things that are no longer so.
            self.writer = None;
        }
        self.retry = Instant::now() + self.pause;
        let mut error = lock(&self.inner.error);
        // A lock of a moment is no news; what lasts is told once.
        if (why != StoreError::Busy || error.is_some()) && self.told.as_ref() != Some(&why) {
            warn!(store = self.inner.store.name(), "records wait in the journal: {why}");
            self.told = Some(why.clone());
        }
        *error = Some(why);
    }

    /// Everything that was written is loaded, and our own segments go.
    fn end(mut self, changes: &Receiver<Write>) {
        let deadline = Instant::now() + LAST_TRY;
        loop {
            self.round = Instant::now();
            self.retry = self.round;
            self.step(changes);
            let busy = *lock(&self.inner.error) == Some(StoreError::Busy);
            if !busy || Instant::now() >= deadline {
                return;
            }
            self.inner.shared.gather(SHORTEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::record;
    use crate::store::sqlite::Sqlite;

    /// A store whose disk has no room until it has.
    #[derive(Debug)]
    struct Crowded {
        store: Sqlite,
        full: AtomicBool,
    }

    impl Store for Crowded {
        fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
            if self.full.load(Ordering::Acquire) { Err(StoreError::Full) } else { self.store.writer() }
        }

        fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
            self.store.reader()
        }

        fn name(&self) -> String {
            "crowded".into()
        }
    }

    fn ledger(folder: &std::path::Path, store: Arc<dyn Store>) -> Ledger {
        let journal = JournalOptions { ballast_bytes: 0, ..JournalOptions::new(folder.join("journal")) };
        Ledger::open(LedgerOptions { journal, retention: Retention::default() }, store).unwrap()
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn who_had_to_be_alone_to_read_lets_others_write_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::new(folder.path().join("ledger.db"));
        drop(store.writer().unwrap());
        let store = Arc::new(Crowded { store: store.crowded(), full: true.into() });
        let ledger = ledger(folder.path(), store.clone());
        let rows = ledger.read(|reader| reader.rows(&Filter::default())).await.unwrap();
        assert!(rows.value.is_empty());
        store.full.store(false, Ordering::Release);
        ledger.finish(record(0)).await.unwrap();
        assert!(ledger.loaded(LONG).await, "{:?}", ledger.health());
    }

    #[derive(Debug)]
    struct Faulty;

    impl Store for Faulty {
        fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
            panic!("the fault that this test makes");
        }

        fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
            Err(StoreError::Full)
        }

        fn name(&self) -> String {
            "faulty".into()
        }
    }

    #[tokio::test]
    async fn a_thread_that_fails_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(folder.path(), Arc::new(Faulty));
        let told = async {
            while ledger.health().store.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LONG, told).await.unwrap();
        let health = ledger.health();
        assert!(!health.is_good() && health.store.unwrap().to_string().contains("restart the gateway"));
        assert!(!ledger.caught_up(LONG).await, "nobody waits for what will not come");
    }
}
