//! One try at one upstream: a connection, the request on its way up, the head of the answer.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http1::{Framing, ResponseHead};
use tokio::time::Instant;

use crate::client::inbound::Pace;
use crate::client::{Client, Interrupted};
use crate::error::{ErrorKind, Refusal};
use crate::io::Io;
use crate::net::DialError;
use crate::provider::Provider;
use crate::retry;
use crate::server::exchange::Failure;
use crate::server::step::{Passing, Step};
use crate::upstream::{Connection, Flight, SendError, Sender, Upload, UploadError};

/// A pooled connection that ends this soon after a request was put on it was dead before: the request may go again.
const DEAD_ON_ARRIVAL: Duration = Duration::from_secs(1);

/// What one try came to.
pub(super) enum Try {
    /// The head of an answer, whatever it says, and its body.
    Answer(Box<Passing>),
    /// There is none: what the client would be told, and what the record says.
    Failed(retry::Failure, Refusal, String),
}

impl Step<'_, '_, '_> {
    /// One try. `Err`: there is no point in another one.
    pub(super) async fn attempt<S: Io>(&self, client: &mut Client<S>) -> Result<Try, Failure> {
        let Self { worker, provider, request, patience, .. } = self;
        let (head, name) = (self.asked.head, &provider.name);
        let origin = &provider.base.origin;
        let streams_up = request.body.is_none() && head.framing != Framing::None;
        // A body that is gone once it is sent goes on a connection that cannot be dead already.
        let mut fresh = streams_up;
        loop {
            let pooled = if fresh { None } else { worker.pool.take(origin, self.since) };
            let connection = match pooled {
                Some(connection) => connection,
                None => match self.connect(client).await? {
                    Ok(connection) => connection,
                    Err((refusal, why)) => return Ok(Try::Failed(retry::Failure::Unreachable, refusal, why)),
                },
            };
            let reused = connection.reused;
            let upload = if streams_up { Upload::new(head.framing) } else { None };
            if upload.is_some() && head.expects_continue {
                client.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            let parts = [request.head.clone()].into_iter().chain(request.body.iter().flatten().cloned());
            let mut flight = Flight::new(connection, Sender::new(parts, upload), head.method() == "HEAD");
            self.trial.unanswered.set(true);
            match answer_head(client, &mut flight, *patience).await? {
                Head::Came(answer) => {
                    let source = flight.into_body(&answer);
                    return Ok(Try::Answer(Box::new(Passing::new(answer, source))));
                }
                // One that was at hand was taken as soon as the attempt began.
                Head::Broken(SendError::Closed(_))
                    if reused && !streams_up && self.since.elapsed() < DEAD_ON_ARRIVAL =>
                {
                    fresh = true;
                }
                Head::Broken(e) => {
                    let message = format!("the provider `{name}` at {origin} could not be used: {e}");
                    let refusal = Refusal::new(ErrorKind::BadGateway, message);
                    return Ok(Try::Failed(retry::Failure::Broken, refusal, e.to_string()));
                }
                Head::Late => {
                    let message = format!("the provider `{name}` did not begin its answer within {patience:?}");
                    let refusal = Refusal::new(ErrorKind::UpstreamTimeout, message);
                    return Ok(Try::Failed(
                        retry::Failure::Late,
                        refusal,
                        "it did not begin its answer in time".into(),
                    ));
                }
            }
        }
    }

    async fn connect<S: Io>(&self, client: &mut Client<S>) -> Result<Result<Connection, (Refusal, String)>, Failure> {
        let (provider, timeout) = (self.provider, self.provider.timeouts.connect);
        let mut dial = self.worker.gateway.dialer.dial(&provider.base.origin, timeout);
        // The dialer keeps its own time; ours is a second more, for a dialer that does not.
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        match client.watch(deadline, |cx| dial.as_mut().poll(cx)).await {
            Ok(Ok(io)) => Ok(Ok(Connection::new(io))),
            Ok(Err(e)) => Ok(Err((unreachable(provider, &e), e.cause.code().into()))),
            Err(Interrupted::Deadline) => {
                let message = format!("no connection to the provider `{}` within {timeout:?}", provider.name);
                Ok(Err((Refusal::new(ErrorKind::UpstreamTimeout, message), "no connection in time".into())))
            }
            Err(why) => Err(why.into()),
        }
    }
}

fn unreachable(provider: &Provider, error: &DialError) -> Refusal {
    let kind = if error.is_timeout() { ErrorKind::UpstreamTimeout } else { ErrorKind::BadGateway };
    Refusal::new(kind, format!("the provider `{}` cannot be reached: {error}", provider.name))
}

/// Waits for the answer's head, feeding what is still to be fed.
async fn answer_head<S: Io>(client: &mut Client<S>, flight: &mut Flight, patience: Duration) -> Result<Head, Failure> {
    let mut pace = Pace::new();
    let waited = std::future::poll_fn(|cx| {
        if !client.out.is_empty() && matches!(client.out.poll_flush(&mut client.io, cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Err(Interrupted::Gone.into()));
        }
        if let Poll::Ready(head) = flight.poll_head(cx) {
            return Poll::Ready(Ok(head));
        }
        let (sender, connection) = flight.sending();
        if sender.is_uploading() {
            let Client { io, inbox, .. } = &mut *client;
            if let Poll::Ready(Err(e)) = sender.poll_upload(&mut connection.io, io, inbox, cx) {
                return Poll::Ready(Err(Stopped::Upload(e)));
            }
        }
        // The upstream's time begins when it has taken what there is; until then it is the client's.
        pace.reached(sender.written());
        let (deadline, late) = match sender.awaits_client() {
            true => (pace.deadline(), Stopped::SlowUpload),
            false => (pace.last() + patience, Stopped::Interrupted(Interrupted::Deadline)),
        };
        // Once the last byte is up, the client's reads are there for nothing but its end.
        if !sender.is_uploading() {
            return client.poll_interrupted(deadline, cx).map(|why| match why {
                Interrupted::Deadline => Err(late),
                why => Err(why.into()),
            });
        }
        if client.poll_cut(cx).is_ready() {
            return Poll::Ready(Err(Interrupted::Cut.into()));
        }
        client.alarm.poll(deadline, cx).map(|()| Err(late))
    });
    match waited.await {
        Ok(Ok(head)) => Ok(Head::Came(head)),
        Ok(Err(e)) => Ok(Head::Broken(e)),
        Err(Stopped::Upload(UploadError::ClientGone)) => Err(Failure::Gone),
        Err(Stopped::SlowUpload) => Err(Pace::too_slow().into()),
        Err(Stopped::Upload(UploadError::Framing(e))) => {
            Err(Refusal::new(ErrorKind::InvalidRequest, e.to_string()).close().into())
        }
        Err(Stopped::Interrupted(Interrupted::Deadline)) => Ok(Head::Late),
        Err(Stopped::Interrupted(why)) => Err(why.into()),
    }
}

/// What became of the head of an answer.
enum Head {
    Came(ResponseHead),
    Broken(SendError),
    Late,
}

enum Stopped {
    Interrupted(Interrupted),
    Upload(UploadError),
    SlowUpload,
}

impl From<Interrupted> for Stopped {
    fn from(why: Interrupted) -> Self {
        Self::Interrupted(why)
    }
}
