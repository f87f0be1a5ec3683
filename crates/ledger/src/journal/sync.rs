//! The thread that brings to the disk what was written, and looks how much room is left there.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;

use super::ballast::{Ballast, free_space};
use super::shared::Shared;

/// How often the free space is looked at while entries come, and while there is too little of it.
const LOOK: Duration = Duration::from_secs(1);
/// As good as for ever.
const FOREVER: Duration = Duration::from_secs(3600);

/// A handle on the thread.
#[derive(Debug)]
pub(super) struct Syncer {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    folder: PathBuf,
    ballast: Ballast,
    low_water: u64,
    every: Duration,
    todo: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Todo {
    dirty: Vec<Arc<File>>,
    stop: bool,
}

impl Syncer {
    pub(super) fn new(
        shared: Arc<Shared>,
        folder: PathBuf,
        ballast: Ballast,
        low_water: u64,
        every: Duration,
    ) -> std::io::Result<Self> {
        let (todo, changed) = (Mutex::default(), Condvar::new());
        let inner = Arc::new(Inner { shared, folder, ballast, low_water, every, todo, changed });
        inner.look();
        let run = inner.clone();
        let thread = std::thread::Builder::new().name("journal-sync".into()).spawn(move || run.run())?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// This file was written to.
    pub(super) fn dirty(&self, file: &Arc<File>) {
        let mut todo = self.inner.todo.lock().unwrap_or_else(PoisonError::into_inner);
        if !todo.dirty.iter().any(|known| Arc::ptr_eq(known, file)) {
            todo.dirty.push(file.clone());
            self.inner.changed.notify_one();
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.inner.todo.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.inner.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Inner {
    fn run(&self) {
        let mut looked = Instant::now();
        loop {
            // Something to do, or time to look whether there is room again.
            let patience = if self.shared.is_low_space() { LOOK } else { FOREVER };
            let stop = self.wait(patience, |todo| !todo.dirty.is_empty()) || self.wait(self.every, |_| false);
            let dirty = std::mem::take(&mut self.todo.lock().unwrap_or_else(PoisonError::into_inner).dirty);
            for file in dirty {
                if let Err(why) = file.sync_data() {
                    self.shared.note_error(format!("the journal could not be brought to the disk: {why}"));
                }
            }
            if stop {
                break;
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look();
            }
        }
    }

    /// Waits for this, or for the end, at most so long. Whether it is the end.
    fn wait(&self, most: Duration, until: impl Fn(&Todo) -> bool) -> bool {
        let todo = self.todo.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(todo, most, |todo| !todo.stop && !until(todo));
        waited.unwrap_or_else(PoisonError::into_inner).0.stop
    }

    /// Takes the reserve again once there is room for it, and says whether there is room enough.
    fn look(&self) {
        let Some(available) = free_space(&self.folder) else { return };
        let reserve = self.ballast.fill(available, self.low_water);
        if let Err(why) = &reserve {
            self.shared.note_error(format!("the journal's reserve could not be made: {why}"));
        }
        self.shared.set_low_space(!reserve.unwrap_or(false) || available < self.low_water);
    }
}
