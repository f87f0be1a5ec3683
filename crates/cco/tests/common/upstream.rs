//! The simulator on a real socket, with its journal.

use std::net::SocketAddr;
use std::sync::Arc;

use sim::{Received, Sim, SimConfig};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{soon, transcripts};

/// A running simulator; it ends when this is dropped.
pub(crate) struct Upstream {
    pub(crate) sim: Arc<Sim>,
    pub(crate) addr: SocketAddr,
    /// When the simulator's clock stood at zero.
    pub(crate) born: Instant,
    _tasks: TaskTracker,
    _stop: DropGuard,
}

/// A simulator that knows the transcripts.
pub(crate) async fn upstream() -> Upstream {
    upstream_with(SimConfig::default()).await
}

/// One with settings of its own.
pub(crate) async fn upstream_with(mut config: SimConfig) -> Upstream {
    config.transcripts.get_or_insert_with(transcripts);
    let sim = Sim::new(config).unwrap();
    let born = Instant::now();
    let listener = sim.bind().await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(sim.clone().serve(listener, stop.clone()));
    Upstream { sim, addr, born, _tasks: tasks, _stop: stop.drop_guard() }
}

impl Upstream {
    /// What came last, once its answer has ended.
    pub(crate) async fn last_ended(&self) -> Received {
        soon(self.sim.wait_for(|all| all.last().is_some_and(|last| last.end.is_some()))).await;
        self.last()
    }

    /// What came last.
    pub(crate) fn last(&self) -> Received {
        self.sim.requests().pop().expect("a request arrived")
    }
}
