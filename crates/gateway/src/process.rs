//! This process, as others see it: where it listens, where its log is, and whether another one takes its place.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// What became of a wish for a successor: what it says of itself, or why there is none.
pub type Succession = Result<String, NoSuccessor>;

/// Why another process did not take this one's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoSuccessor {
    /// What it said, or what kept it from being started.
    pub why: String,
    /// Whether the configuration must be corrected before there can be one.
    pub is_configuration: bool,
}

/// A wish for a successor, and where to say what became of it.
pub type Wish = oneshot::Sender<Succession>;

/// What is known of this process beside its configuration.
#[derive(Debug, Default)]
pub struct Process {
    /// Where it listens.
    pub address: OnceLock<SocketAddr>,
    /// Where its log goes, if that is a file.
    pub log: OnceLock<PathBuf>,
    /// How long running answers may finish, where whoever asked for the end said it.
    pub within: OnceLock<Duration>,
    wishes: Mutex<Option<SyncSender<Wish>>>,
}

impl Process {
    /// From here on wishes for a successor arrive there, one at a time.
    pub fn open(&self) -> Receiver<Wish> {
        let (sender, receiver) = sync_channel(1);
        *self.wishes.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Has another process take this one's place, and waits for what becomes of it. `None`: that cannot be done here, or
    /// is being done.
    pub async fn succeed(&self) -> Option<Succession> {
        let (wish, told) = oneshot::channel();
        {
            let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
            wishes.as_ref()?.try_send(wish).ok()?;
        }
        told.await.ok()
    }
}
