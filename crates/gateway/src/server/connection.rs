//! One connection from its first byte to its last.

use std::rc::Rc;

use http1::{Framing, HeadError, RequestHead};
use ledger::record::Id;
use ledger::redact;
use tracing::{debug, info};
use uuid::Uuid;
use wire::protocol::Protocol;

use crate::admin::{self, Reply};
use crate::client::inbound::{Operation, protocol};
use crate::client::peer::Peer;
use crate::client::respond::Answer;
use crate::client::{Client, NoRequest};
use crate::error::{ErrorKind, Refusal};
use crate::gateway::{Desk, Worker};
use crate::io::Io;
use crate::server::answer::keeps;
use crate::server::exchange::exchange;

/// Serves requests off one connection until it ends.
pub async fn serve_connection<S: Io>(io: S, peer: Peer, worker: Rc<Worker>) {
    serve_resettable(io, peer, Rc::new(Desk::fixed(worker)), |_| {}).await;
}

/// The same where the connection can be made to end with a reset: `reset` arranges for that.
pub async fn serve_resettable<S: Io>(io: S, peer: Peer, desk: Rc<Desk>, reset: fn(&S)) {
    let mut client = Client::new(io, peer, &desk.phases, reset);
    loop {
        let came = client.next_head().await;
        // A request keeps the configuration that held when it came.
        let worker = desk.worker();
        match came {
            Ok(head) => {
                client.unread = head.framing != Framing::None;
                if !serve(&mut client, &head, &worker).await {
                    break;
                }
                client.unread = false;
            }
            Err(NoRequest::Closed) => break,
            Err(NoRequest::Slow) => {
                let refusal = Refusal::new(ErrorKind::RequestTimeout, "the request's head did not arrive in time");
                client.unread = true;
                refuse(&mut client, &worker, &refusal).await;
                break;
            }
            Err(NoRequest::Bad(error)) => {
                let kind = match error {
                    HeadError::TooLarge | HeadError::TooManyFields => ErrorKind::HeadTooLarge,
                    _ => ErrorKind::InvalidRequest,
                };
                client.unread = true;
                refuse(&mut client, &worker, &Refusal::new(kind, error.to_string())).await;
                break;
            }
        }
    }
    client.close().await;
}

async fn refuse<S: Io>(client: &mut Client<S>, worker: &Worker, refusal: &Refusal) -> bool {
    let id = new_id();
    remember(worker, id, None, refusal);
    let id = id.to_string();
    client.answer(&Answer::refusal(refusal, Protocol::AnthropicMessages, &id), &id, false, false).await
}

/// The one line of a request that never became an exchange, and what is kept of it for those who ask.
fn remember(worker: &Worker, id: Uuid, head: Option<&RequestHead>, refusal: &Refusal) {
    let (method, path) = (head.map(RequestHead::method), head.map(|head| redact::path(head.path())));
    let path = path.as_deref();
    worker.gateway.refused.push(Id(id.as_u128()), method.zip(path), refusal);
    let (id, status) = (id.to_string(), refusal.kind.status());
    info!(target: "cco::request", id, method, path, status, outcome = "rejected", cause = %refusal.message, "request");
}

/// The id of an exchange: UUIDv7, so that ids sort by time.
fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// One request. `true`: the connection can carry another.
async fn serve<S: Io>(client: &mut Client<S>, head: &RequestHead, worker: &Rc<Worker>) -> bool {
    let id = new_id();
    let answered = match worker.gateway.edge.check(head, &client.peer) {
        Ok(()) => match Operation::of(head.method(), head.path()) {
            Some(operation) => return exchange(client, head, operation, worker, id).await,
            // In memory of its own: a connection that is open for hours has no use for it.
            None => Box::pin(admin::answer(head, &client.peer, worker)).await,
        },
        Err(refusal) => Err(refusal),
    };
    let key = id;
    let id = id.to_string();
    let (answer, close) = match answered {
        Ok(Reply::Live(viewer)) => {
            Box::pin(admin::subscribe(client, head, worker, viewer, &id)).await;
            return false;
        }
        Ok(Reply::Answer(answer)) => {
            // Whoever watches asks every few seconds: such lines are for those who look for them.
            debug!(target: "cco::request", id, method = head.method(), path = &*redact::path(head.path()), status = answer.status, "request");
            (answer, false)
        }
        Err(refusal) => {
            remember(worker, key, Some(head), &refusal);
            (Answer::refusal(&refusal, protocol(head), &id), refusal.close)
        }
    };
    let keep_alive = keeps(client, head, worker) && !close;
    client.answer(&answer, &id, keep_alive, head.method() == "HEAD").await
}
