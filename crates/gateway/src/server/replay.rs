//! An exchange that does not end with its client: it runs in a task of its own, and whoever asked for it, or asks for the
//! same again after that one has gone, reads its answer from memory.

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http1::RequestHead;
use ledger::record::Outcome;
use tokio::time::Instant;
use tracing::debug;

use crate::client::Client;
use crate::client::inbound::HeldBody;
use crate::gateway::Worker;
use crate::io::Io;
use crate::replay::{End, Piece, Reader, RequestKey, Shelf, Spool, Stage};
use crate::server::caller::Means;
use crate::server::exchange::Exchange;

/// A client that takes nothing for so long has gone, whatever its connection says.
const STALLED: Duration = Duration::from_secs(300);
/// That a client has gone is known after this time.
const NEWS: Duration = Duration::from_millis(100);
/// And after the process was told to end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Who asks, as far as it must be the same one who may have the answer.
pub(super) fn key<S: Io>(
    client: &Client<S>,
    head: &RequestHead,
    worker: &Worker,
    means: &Means,
    body: &HeldBody,
) -> RequestKey {
    let own = means.own.as_ref().map_or("", |own| own.key.expose());
    let (name, stored) = (client.peer.name(means.by_token), if means.stored { "stored" } else { "" });
    worker.gateway.replays.key(head, &[own, &name, stored], &body.bytes)
}

/// An answer that waits for this client. One who comes back at once may be quicker than the news that it went: where
/// somebody still seems to read the same answer, that is waited for.
pub(super) async fn waiting_for<S: Io>(client: &mut Client<S>, worker: &Worker, key: RequestKey) -> Option<Reader> {
    let replays = &worker.gateway.replays;
    if let Some(reader) = replays.take(key) {
        return Some(reader);
    }
    let twin = replays.twin(key)?;
    let mut left = std::pin::pin!(twin.leaves(Stage::Read));
    let _ = client.watch(Instant::now() + NEWS, |cx| left.as_mut().poll(cx)).await;
    replays.take(key)
}

/// Ends an answer whose task was torn down.
struct Ends<'s>(&'s Arc<Spool>, &'s Shelf, RequestKey);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        let Self(spool, shelf, key) = self;
        spool.end(End { keep: false, good: false });
        shelf.remove(*key, spool);
    }
}

impl Exchange {
    /// Runs the rest of this exchange in a task of its own, and gives its answer to the client. `true`: the connection
    /// can carry another request.
    pub(super) async fn detached<S: Io>(
        mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        (means, body): (Means, HeldBody),
        key: RequestKey,
    ) -> bool {
        let gateway = &worker.gateway;
        let (spool, reader) = Spool::new(gateway.kept.share());
        gateway.replays.begins(key, &spool);
        self.is_detached = true;
        if let Some(draft) = &mut self.draft {
            draft.delivered_by(spool.delivery().clone());
        }
        let (pumps, head, peer) = (worker.clone(), head.clone(), client.peer.clone());
        worker.tasks.spawn_local(async move {
            let worker = pumps;
            let _ends = Ends(&spool, &worker.gateway.replays, key);
            let _running = worker.gateway.counters.runs_on();
            let pump = worker.gateway.replays.pump(&spool);
            let answer = async {
                let mut pump = Client::new(pump, peer, &worker.phases.child(), |_| {});
                let keep = self.conclude(&mut pump, &head, &worker, (means, Some(body))).await;
                spool.end(End { keep, good: self.good });
            };
            tokio::join!(answer, watch_over(&spool, &worker, key));
            if let Some((outcome, cause)) = self.ended.take() {
                let in_vain = spool.delivery().was_in_vain();
                let outcome = if in_vain { Outcome::ClientDisconnected } else { outcome };
                self.log(&head, outcome.as_str(), cause.as_deref(), &worker.gateway);
            }
        });
        deliver(client, reader, worker, key).await
    }
}

/// Sees to it that an answer waits for nobody longer than it may.
async fn watch_over(spool: &Arc<Spool>, worker: &Worker, key: RequestKey) {
    let gateway = &worker.gateway;
    loop {
        let stage = spool.stage();
        match stage {
            Stage::Over => return gateway.replays.remove(key, spool),
            Stage::Read => spool.leaves(stage).await,
            Stage::Waits(since) => tokio::select! {
                () = spool.leaves(stage) => {}
                () = tokio::time::sleep_until(since + gateway.replay) => gateway.replays.expire(spool),
                // Nobody can come back to a process that ends.
                () = worker.phases.drain.cancelled() => gateway.replays.expire(spool),
                () = worker.retired.cancelled() => gateway.replays.expire(spool),
            },
        }
    }
}

/// Gives an answer to a client that asks for it again.
pub(super) async fn rejoined<S: Io>(client: &mut Client<S>, reader: Reader, worker: &Worker, key: RequestKey) -> bool {
    debug!("a client came back for its answer");
    // A record that waited for this says so before anybody can know the end.
    if let Some(settling) = reader.spool().delivery().came() {
        settling.await;
    }
    deliver(client, reader, worker, key).await
}

/// Gives the client what comes. When it goes, the answer waits for it.
async fn deliver<S: Io>(client: &mut Client<S>, mut reader: Reader, worker: &Worker, key: RequestKey) -> bool {
    let mut taken = Instant::now();
    let end = std::future::poll_fn(|cx| {
        let mut end = None;
        loop {
            let before = client.out.written();
            let flushed = client.out.poll_flush(&mut client.io, cx);
            if client.out.written() != before {
                taken = Instant::now();
            }
            match flushed {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending => break,
            }
            if end.is_some() {
                return Poll::Ready(end);
            }
            match reader.poll_next(cx) {
                Poll::Ready(Piece::Data(bytes)) => client.out.push(bytes),
                Poll::Ready(Piece::End(how)) => end = Some(how),
                Poll::Pending => {
                    taken = Instant::now();
                    break;
                }
            }
        }
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(None);
        }
        let limit = if client.poll_cut(cx).is_ready() { LAST_WORD } else { STALLED };
        client.alarm.poll(taken + limit, cx).map(|()| None)
    });
    match end.await {
        Some(End { keep, .. }) => {
            reader.delivered();
            keep
        }
        None => {
            client.out.clear();
            worker.gateway.replays.leave(key, reader);
            false
        }
    }
}
