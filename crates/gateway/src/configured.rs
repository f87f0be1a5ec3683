//! How the configuration in use is: which file it is from, what became of the last attempt to load it again, and the way
//! to ask for another one.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::SystemTime;

use tokio::sync::oneshot;

use crate::config::Note;

/// Questions that may wait for the thread that loads configurations.
const WAITING: usize = 16;

/// What came of loading the configuration again.
#[derive(Debug, Clone)]
pub struct Report {
    /// What changed, a line each, secrets masked.
    pub changes: Vec<String>,
    /// The keys that differ from what the process began with and that it looks at only then.
    pub waiting: Vec<String>,
    /// What is worth a line in the log.
    pub notes: Vec<Note>,
    /// The file; `None`: there is none.
    pub file: Option<PathBuf>,
}

/// A report, or what is wrong with the configuration.
pub type Told = Result<Report, String>;

/// What the thread that loads configurations is asked for.
#[derive(Debug)]
pub enum Ask {
    /// To load it now, and to tell what came of it if somebody waits.
    Reload(Option<oneshot::Sender<Told>>),
}

/// Where what is wrong with a configuration lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// In itself, or in a file that it names.
    Configuration,
    /// In prices.
    Prices,
}

/// How the configuration in use is.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The file; `None`: there is none.
    pub file: Option<PathBuf>,
    /// When what holds was loaded; `None`: it cannot be loaded again.
    pub loaded: Option<SystemTime>,
    /// How often it was loaded again.
    pub reloads: u64,
    /// What is wrong with what the file says now; what held before holds on.
    pub fault: Option<String>,
    /// The keys whose change takes effect at the next start.
    pub waiting: Vec<String>,
    /// How often one was not used since the start, by the place of [`Fault`].
    refused: [u64; 2],
}

/// The state, and the way to the thread that loads configurations.
#[derive(Debug, Default)]
pub struct Configured {
    state: Mutex<State>,
    asks: Mutex<Option<SyncSender<Ask>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A file as everybody finds it: who asks is in another folder.
fn whole(file: PathBuf) -> PathBuf {
    std::path::absolute(&file).unwrap_or(file)
}

impl Configured {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is now.
    pub fn state(&self) -> State {
        self.locked().clone()
    }

    /// It was loaded from here.
    pub fn begin(&self, file: Option<PathBuf>) {
        let file = file.map(whole);
        *self.locked() = State { file, loaded: Some(SystemTime::now()), ..State::default() };
    }

    /// It was loaded again.
    pub fn loaded(&self, report: &Report) {
        let mut state = self.locked();
        let (file, waiting, reloads) = (report.file.clone().map(whole), report.waiting.clone(), state.reloads + 1);
        let refused = state.refused;
        *state = State { file, loaded: Some(SystemTime::now()), reloads, fault: None, waiting, refused };
    }

    /// It was not: this is wrong with it.
    pub fn failed(&self, fault: Fault, why: &str) {
        let mut state = self.locked();
        state.fault = Some(why.into());
        state.refused[fault as usize] += 1;
    }

    /// How often one was not used since the start, and what was wrong.
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        let [configuration, prices] = self.locked().refused;
        [("configuration", configuration), ("prices", prices)]
    }

    /// From here on questions arrive there.
    pub fn open(&self) -> Receiver<Ask> {
        let (sender, receiver) = sync_channel(WAITING);
        *self.asks.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// This thread answers them.
    pub fn answered_by(&self, thread: JoinHandle<()>) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
    }

    /// From here on nobody answers them, and nothing is loaded any more: waits for what is being loaded.
    pub fn close(&self) {
        *self.asks.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    /// Asks without waiting. `false`: there is nobody to ask, or as many ask as may.
    pub fn ask(&self, ask: Ask) -> bool {
        let asks = self.asks.lock().unwrap_or_else(PoisonError::into_inner);
        asks.as_ref().is_some_and(|asks| asks.try_send(ask).is_ok())
    }

    /// Has it loaded again, and waits for what comes of it. `None`: there is nobody to ask.
    pub async fn reload(&self) -> Option<Told> {
        let (answer, told) = oneshot::channel();
        if !self.ask(Ask::Reload(Some(answer))) {
            return None;
        }
        told.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn once_closed_nothing_is_loaded_any_more() {
        let (configured, over) = (Configured::default(), Arc::new(AtomicBool::new(false)));
        assert!(!configured.ask(Ask::Reload(None)), "nobody is there");
        let (asked, end) = (configured.open(), over.clone());
        configured.answered_by(std::thread::spawn(move || {
            while asked.recv().is_ok() {}
            end.store(true, Ordering::Release);
        }));
        assert!(configured.ask(Ask::Reload(None)));
        configured.close();
        assert!(over.load(Ordering::Acquire), "its thread has ended");
        assert!(!configured.ask(Ask::Reload(None)));
        configured.close();
    }
}
