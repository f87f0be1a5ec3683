//! What the journal's threads, those who hand in and the loader know of each other.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{JournalHealth, Position};

/// Closed segments of our own that stay locked while they wait to be loaded. Others wait unlocked.
const HELD: usize = 64;

/// A segment of this process that is not loaded yet.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) path: PathBuf,
    /// The position of its first byte.
    pub(crate) base: u64,
    /// The position after its last byte, once it is closed.
    pub(crate) end: Option<u64>,
    /// Keeps the segment locked.
    pub(crate) lock: Option<Arc<File>>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    written: AtomicU64,
    loaded: AtomicU64,
    entries: AtomicU64,
    late: AtomicU64,
    lost: AtomicU64,
    pending: AtomicU64,
    failing: AtomicBool,
    low_space: AtomicBool,
    last_error: Mutex<Option<String>>,
    segments: Mutex<VecDeque<Live>>,
    wake: Mutex<Wake>,
    woken: Condvar,
}

/// Why the loader should look.
#[derive(Debug, Default, Clone, Copy)]
struct Wake {
    /// There is something to load.
    news: bool,
    /// Somebody waits for it.
    urgent: bool,
}

impl Shared {
    pub(super) fn begun(&self, live: Live) {
        let mut segments = lock(&self.segments);
        if let Some(last) = segments.back_mut() {
            last.end = Some(live.base);
        }
        segments.push_back(live);
        let closed = segments.len() - 1;
        if let Some(oldest) = closed.checked_sub(HELD + 1).and_then(|at| segments.get_mut(at)) {
            oldest.lock = None;
        }
    }

    /// The oldest segment that is not loaded yet.
    pub(crate) fn oldest(&self) -> Option<Live> {
        lock(&self.segments).front().cloned()
    }

    /// The oldest segment is closed and was loaded.
    pub(crate) fn oldest_is_done(&self) {
        let mut segments = lock(&self.segments);
        if segments.front().is_some_and(|oldest| oldest.end.is_some()) {
            segments.pop_front();
        }
    }

    /// The journal is closed: whoever comes next may take its segments over. The last one has no end, because what is
    /// open in it was interrupted.
    pub(super) fn let_go(&self) {
        lock(&self.segments).iter_mut().for_each(|live| live.lock = None);
    }

    pub(super) fn wrote(&self, entries: u64, position: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.written.store(position, Ordering::Release);
        self.nudge(false);
    }

    pub(crate) fn written(&self) -> Position {
        Position(self.written.load(Ordering::Acquire))
    }

    pub(crate) fn loaded(&self) -> Position {
        Position(self.loaded.load(Ordering::Acquire))
    }

    pub(crate) fn set_loaded(&self, position: u64) {
        self.loaded.store(position, Ordering::Release);
    }

    pub(super) fn lost(&self, entries: u64) {
        self.lost.fetch_add(entries, Ordering::Relaxed);
    }

    pub(super) fn late(&self, entries: u64) {
        self.late.fetch_add(entries, Ordering::Relaxed);
    }

    pub(super) fn set_pending(&self, bytes: usize) {
        self.pending.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes that wait for the disk to work again.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed) as usize
    }

    pub(super) fn set_failing(&self, error: Option<String>) {
        self.failing.store(error.is_some(), Ordering::Relaxed);
        if error.is_some() {
            *lock(&self.last_error) = error;
        }
    }

    pub(super) fn note_error(&self, error: String) {
        *lock(&self.last_error) = Some(error);
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn set_low_space(&self, low: bool) {
        self.low_space.store(low, Ordering::Relaxed);
    }

    pub(super) fn is_low_space(&self) -> bool {
        self.low_space.load(Ordering::Relaxed)
    }

    pub(super) fn health(&self) -> JournalHealth {
        JournalHealth {
            failing: self.is_failing(),
            low_space: self.is_low_space(),
            last_error: lock(&self.last_error).clone(),
            written: self.entries.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            pending_bytes: self.pending.load(Ordering::Relaxed),
            behind_bytes: self.written().0.saturating_sub(self.loaded().0),
        }
    }

    /// Has the loader look; at once if somebody waits for it.
    pub(crate) fn nudge(&self, urgent: bool) {
        let mut wake = lock(&self.wake);
        let (news, hurry) = (!wake.news, urgent && !wake.urgent);
        *wake = Wake { news: true, urgent: wake.urgent || urgent };
        if news || hurry {
            self.woken.notify_all();
        }
    }

    /// Waits for something to load, at most this long; `true` if there is.
    pub(crate) fn wait_for_news(&self, most: Duration) -> bool {
        let wake = lock(&self.wake);
        let waited = self.woken.wait_timeout_while(wake, most, |wake| !wake.news);
        let (mut wake, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut wake.news)
    }

    /// Lets more come together, unless somebody waits.
    pub(crate) fn gather(&self, most: Duration) {
        let wake = lock(&self.wake);
        let waited = self.woken.wait_timeout_while(wake, most, |wake| !wake.urgent);
        let (mut wake, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *wake = Wake::default();
    }
}

/// A panic of another thread leaves these values as they were.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
