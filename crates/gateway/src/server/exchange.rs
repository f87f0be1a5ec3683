//! The life of one request, from its head to the last byte of its answer, read from top to bottom.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, ResponseHead, write};
use tokio::time::Instant;
use tracing::info;

use crate::client::inbound::{HeldBody, NoBody, Operation, Pace, read_held};
use crate::client::respond::Answer;
use crate::client::{Client, Interrupted};
use crate::coding::{Coding, Decoder};
use crate::config::KeyMode;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::headers::{self, REQUEST_ID};
use crate::io::Io;
use crate::net::DialError;
use crate::provider::Provider;
use crate::relay::{Ended, Events, Framed, Limits, Relay, View};
use crate::secret::Secret;
use crate::server::caller::{self, Payer, Rules};
use crate::upstream::{Connection, Flight, SendError, Sender, Upload, UploadError, UpstreamBody};

/// A non-stream answer may take this long, whatever `timeoutSecs` says: models think.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);
/// A pooled connection that ends this soon after a request was put on it was dead before: the request may go again.
const DEAD_ON_ARRIVAL: Duration = Duration::from_secs(1);
/// A batch object larger than this is not rewritten but refused.
const BATCH_OBJECT: usize = 16 * 1024 * 1024;
/// Decoded bytes of one compressed stream that the observer looks at.
const OBSERVED: usize = 256 * 1024 * 1024;

/// One request in flight: what its log line will say.
#[derive(Debug)]
struct Exchange {
    id: String,
    started: Instant,
    operation: Operation,
    provider: String,
    model: Option<String>,
    stream: bool,
    status: u16,
    attempts: u32,
    first_byte: Option<Duration>,
}

/// Why an exchange has no answer of an upstream's.
enum Failure {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves one request whose path is an upstream's. `true`: the connection can carry another.
pub async fn exchange<S: Io>(
    client: &mut Client<S>,
    head: &RequestHead,
    operation: Operation,
    worker: &Rc<Worker>,
    id: String,
) -> bool {
    let gateway = &*worker.gateway;
    let mut this = Exchange {
        id,
        started: Instant::now(),
        operation,
        provider: String::new(),
        model: None,
        stream: false,
        status: 0,
        attempts: 0,
        first_byte: None,
    };
    let _running = gateway.counters.running();
    match this.run(client, head, worker).await {
        Ok((ended, keep)) => {
            let (outcome, cause) = outcome(&ended, this.status);
            this.log(head, outcome, cause, gateway);
            keep
        }
        Err(Failure::Gone) => {
            this.log(head, "client_disconnected", None, gateway);
            false
        }
        Err(Failure::Refused(refusal)) => {
            this.status = refusal.kind.status();
            this.log(head, "rejected", Some(&refusal.message), gateway);
            let keep_alive = head.keep_alive && !refusal.close && !worker.phases.drain.is_cancelled();
            client.answer(&Answer::refusal(&refusal, &this.id), &this.id, keep_alive, head.method() == "HEAD").await
        }
    }
}

impl Exchange {
    async fn run<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
    ) -> Result<(Ended, bool), Failure> {
        let gateway = &*worker.gateway;
        // Who asks, and whose key travels on.
        let provider = gateway.target()?;
        self.provider.clone_from(&provider.name);
        let rules = Rules {
            token: gateway.token.as_ref(),
            open: gateway.open_stored_keys,
            always_stored: provider.key_mode == KeyMode::Stored,
            form: provider.kind.auth,
        };
        let payer = caller::payer(head, &client.peer, &rules)?;
        let auth = authorization(provider, &payer)?;

        // What is asked. A body that another attempt may need is held; any other goes up while it arrives.
        let body = if self.operation.is_held() {
            match read_held(client, head, &gateway.held, gateway.max_body).await {
                Ok(body) => Some(body),
                Err(NoBody::Refused(refusal)) => return Err(refusal.into()),
                Err(NoBody::Gone) => return Err(Failure::Gone),
            }
        } else {
            None
        };
        if let Some(body) = &body {
            self.model.clone_from(&body.envelope.model);
            self.stream = body.envelope.stream == Some(true);
        }

        // Up, and the head of the answer.
        let request = prepare(head, self.operation, provider, auth, body.as_ref());
        let patience = self.patience(head, provider);
        let (answer, mut source) = self.attempt(client, head, worker, provider, request, body, patience).await?;
        self.status = answer.status;
        self.first_byte = Some(self.started.elapsed());
        if (300..400).contains(&answer.status) && answer.status != 304 {
            let message = format!(
                "the provider `{}` answered with a redirect ({}), which is not followed: check its `baseUrl`",
                self.provider, answer.status
            );
            return Err(Refusal::new(ErrorKind::BadGateway, message).retry(Retry::Never).into());
        }

        // Down.
        if self.operation == Operation::Batches && head.method() != "HEAD" && is_json(&answer) {
            return self.batch_object(client, head, worker, provider, answer, source).await;
        }
        let view = view(self.operation, &answer);
        let keep_alive = head.keep_alive && !worker.phases.drain.is_cancelled() && !source.sending().0.is_uploading();
        let framed = framed(head, &answer, &view);
        let keep_alive = keep_alive && framed != Framed::Close;
        client.out.push(answer_head(&answer, &view, framed, keep_alive, &self.id, head.method() == "HEAD"));
        let limits = Limits {
            ping: gateway.ping,
            idle: provider.timeouts.idle,
            end: self.started + provider.timeouts.max_stream,
        };
        let report = Relay::new(client, &mut source, framed, view, limits, &self.id).run().await;
        gateway.counters.relayed(report.payload);
        if !report.aborted {
            source.release(&worker.pool, &provider.base.origin);
        } else if framed == Framed::Close {
            client.reset();
        }
        Ok((report.ended, keep_alive && !report.aborted))
    }

    /// How long the head of the answer may take once the request has gone up.
    fn patience(&self, head: &RequestHead, provider: &Provider) -> Duration {
        if self.stream {
            return provider.timeouts.head;
        }
        let clients = head
            .get("x-stainless-timeout")
            .and_then(|v| std::str::from_utf8(v).ok())
            .and_then(|v| v.parse::<u32>().ok());
        provider.timeouts.head.max(WHOLE_ANSWER).max(Duration::from_secs(u64::from(clients.unwrap_or(0).min(86_400))))
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the one place where everything that an attempt needs comes together"
    )]
    async fn attempt<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        provider: &Provider,
        request: Bytes,
        body: Option<HeldBody>,
        patience: Duration,
    ) -> Result<(ResponseHead, UpstreamBody), Failure> {
        let origin = &provider.base.origin;
        let held = body.as_ref().map(|body| body.bytes.clone());
        let streams_up = held.is_none() && head.framing != Framing::None;
        // A body that is gone once it is sent goes on a connection that cannot be dead already.
        let mut fresh = streams_up;
        loop {
            self.attempts += 1;
            let pooled = if fresh { None } else { worker.pool.take(origin) };
            let connection = match pooled {
                Some(connection) => connection,
                None => self.connect(client, worker, provider).await?,
            };
            let reused = connection.reused;
            let sent = Instant::now();
            let upload = if streams_up { Upload::new(head.framing) } else { None };
            if upload.is_some() && head.expects_continue {
                client.out.push(Bytes::from_static(b"HTTP/1.1 100 Continue\r\n\r\n"));
            }
            let sender = Sender::new([request.clone()].into_iter().chain(held.clone()), upload);
            let mut flight = Flight::new(connection, sender, head.method() == "HEAD");
            match self.answer_head(client, &mut flight, patience).await? {
                Ok(answer) => {
                    let source = flight.into_body(&answer);
                    return Ok((answer, source));
                }
                Err(SendError::Closed(_)) if reused && !streams_up && sent.elapsed() < DEAD_ON_ARRIVAL => fresh = true,
                Err(e) => {
                    let message = format!("the provider `{}` at {origin} could not be used: {e}", self.provider);
                    return Err(Refusal::new(ErrorKind::BadGateway, message).into());
                }
            }
        }
    }

    async fn connect<S: Io>(
        &self,
        client: &mut Client<S>,
        worker: &Worker,
        provider: &Provider,
    ) -> Result<Connection, Failure> {
        let timeout = provider.timeouts.connect;
        let mut dial = worker.gateway.dialer.dial(&provider.base.origin, timeout);
        // The dialer keeps its own time; ours is a second more, for a dialer that does not.
        let deadline = Instant::now() + timeout + Duration::from_secs(1);
        match client.watch(deadline, |cx| dial.as_mut().poll(cx)).await {
            Ok(Ok(io)) => Ok(Connection::new(io)),
            Ok(Err(e)) => Err(self.unreachable(&e).into()),
            Err(Interrupted::Gone) => Err(Failure::Gone),
            Err(Interrupted::Cut) => Err(Refusal::shutting_down().into()),
            Err(Interrupted::Deadline) => {
                let message = format!("no connection to the provider `{}` within {timeout:?}", self.provider);
                Err(Refusal::new(ErrorKind::UpstreamTimeout, message).into())
            }
        }
    }

    fn unreachable(&self, error: &DialError) -> Refusal {
        let kind = if error.is_timeout() { ErrorKind::UpstreamTimeout } else { ErrorKind::BadGateway };
        Refusal::new(kind, format!("the provider `{}` cannot be reached: {error}", self.provider))
    }

    /// Waits for the answer's head, feeding what is still to be fed.
    async fn answer_head<S: Io>(
        &self,
        client: &mut Client<S>,
        flight: &mut Flight,
        patience: Duration,
    ) -> Result<Result<ResponseHead, SendError>, Failure> {
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
            Ok(head) => Ok(head),
            Err(Stopped::Interrupted(Interrupted::Gone) | Stopped::Upload(UploadError::ClientGone)) => {
                Err(Failure::Gone)
            }
            Err(Stopped::SlowUpload) => Err(Pace::too_slow().into()),
            Err(Stopped::Upload(UploadError::Framing(e))) => {
                Err(Refusal::new(ErrorKind::InvalidRequest, e.to_string()).close().into())
            }
            Err(Stopped::Interrupted(Interrupted::Cut)) => Err(Refusal::shutting_down().into()),
            Err(Stopped::Interrupted(Interrupted::Deadline)) => {
                let message = format!("the provider `{}` did not begin its answer within {patience:?}", self.provider);
                Err(Refusal::new(ErrorKind::UpstreamTimeout, message).into())
            }
        }
    }

    /// A batch object names a URL of the upstream's, which clients call as it is: its origin becomes ours.
    async fn batch_object<S: Io>(
        &self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        provider: &Provider,
        answer: ResponseHead,
        mut source: UpstreamBody,
    ) -> Result<(Ended, bool), Failure> {
        let deadline = Instant::now() + provider.timeouts.idle;
        let whole = {
            let mut collect = std::pin::pin!(source.collect(BATCH_OBJECT));
            client.watch(deadline, |cx| collect.as_mut().poll(cx)).await
        };
        let whole = match whole {
            Ok(Ok(Some(whole))) => whole,
            Ok(Ok(None)) => {
                return Err(Refusal::new(ErrorKind::BadGateway, "the batch object is larger than 16 MB").into());
            }
            Ok(Err(e)) => return Err(Refusal::new(ErrorKind::BadGateway, e.to_string()).into()),
            Err(Interrupted::Gone) => return Err(Failure::Gone),
            Err(Interrupted::Cut) => return Err(Refusal::shutting_down().into()),
            Err(Interrupted::Deadline) => {
                return Err(Refusal::new(ErrorKind::UpstreamTimeout, "the batch object did not arrive in time").into());
            }
        };
        let ours = format!("http://{}", head.host());
        let body = Bytes::from(rehome(&whole, &provider.base.to_string(), &ours));
        let keep_alive = head.keep_alive && !worker.phases.drain.is_cancelled() && source.sending().0.is_done();
        let mut out = BytesMut::with_capacity(1024);
        write::status_line(&mut out, answer.status, answer.reason());
        headers::response_fields(&mut out, &answer);
        close_head(&mut out, &self.id, keep_alive);
        write::content_length(&mut out, body.len() as u64);
        headers::end(&mut out);
        client.out.push(out.freeze());
        client.out.push(body);
        source.release(&worker.pool, &provider.base.origin);
        let flushed = client.flush().await;
        Ok((if flushed { Ended::Complete } else { Ended::ClientGone }, keep_alive && flushed))
    }

    fn log(&self, head: &RequestHead, outcome: &'static str, cause: Option<&str>, gateway: &Gateway) {
        gateway.counters.ended(outcome);
        let (ms, first_ms) = (self.started.elapsed().as_millis() as u64, self.first_byte.map(|d| d.as_millis() as u64));
        info!(
            target: "cco::request",
            id = %self.id,
            method = head.method(),
            path = head.path(),
            operation = self.operation.as_str(),
            provider = %self.provider,
            model = self.model.as_deref(),
            stream = self.stream,
            status = self.status,
            outcome,
            cause,
            attempts = self.attempts,
            first_ms,
            ms,
            "request"
        );
    }
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

/// How an exchange ended, and why where that is not plain.
fn outcome(ended: &Ended, status: u16) -> (&'static str, Option<&str>) {
    match ended {
        Ended::Complete if status >= 400 => ("upstream_error", None),
        Ended::Complete => ("success", None),
        Ended::UpstreamError => ("upstream_error", None),
        Ended::Truncated(why) => ("truncated", Some(why)),
        Ended::ClientGone => ("client_disconnected", None),
        Ended::ClientStalled => ("client_disconnected", Some("it took nothing for too long")),
        Ended::Timeout(what) => ("timeout", Some(what)),
        Ended::Shutdown => ("shutdown", None),
    }
}

/// The credential field of the upstream request.
fn authorization(provider: &Provider, payer: &Payer) -> Result<(&'static str, Secret), Refusal> {
    let (form, key) = match payer {
        Payer::Own(form, key) => (*form, key),
        Payer::Stored => match provider.key.as_ref().and_then(|key| key.for_origin(&provider.base.origin)) {
            Some(key) => (provider.kind.auth, key),
            None => return Err(keyless(provider)),
        },
    };
    Ok((form.header(), Secret::new(format!("{}{}", form.prefix(), key.expose()))))
}

fn keyless(provider: &Provider) -> Refusal {
    let why = match (&provider.key_error, provider.kind.key_variable) {
        (Some(error), _) => error.to_string(),
        (None, Some(variable)) => {
            format!("set `{variable}` where the gateway runs, or `apiKeyRef`, or send your own key")
        }
        (None, None) => "set `apiKeyRef`, or send your own key".into(),
    };
    let message = format!("there is no key for the provider `{}`: {why}", provider.name);
    Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never)
}

/// The upstream request's head.
fn prepare(
    head: &RequestHead,
    operation: Operation,
    provider: &Provider,
    auth: (&str, Secret),
    body: Option<&HeldBody>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(2048);
    let target = head.target();
    if provider.base.path.is_empty() {
        write::request_line(&mut out, head.method(), target);
    } else {
        write::request_line(&mut out, head.method(), &format!("{}{target}", provider.base.path));
    }
    write::field(&mut out, b"host", provider.base.origin.host_header().as_bytes());
    headers::request_fields(&mut out, head, operation.coding(), &provider.headers);
    write::field(&mut out, auth.0.as_bytes(), auth.1.expose().as_bytes());
    match (body, head.framing) {
        (Some(body), _) => write::content_length(&mut out, body.bytes.len() as u64),
        (None, Framing::Length(n)) => write::content_length(&mut out, n),
        (None, Framing::Chunked) => write::field(&mut out, b"transfer-encoding", b"chunked"),
        (None, _) => {}
    }
    headers::end(&mut out);
    out.freeze()
}

fn is_json(answer: &ResponseHead) -> bool {
    let plain = matches!(Coding::of(answer.get("content-encoding")), Ok(None));
    plain && answer.get("content-type").is_some_and(|v| v.to_ascii_lowercase().starts_with(b"application/json"))
}

/// What we know of an answer's bytes before they come.
fn view(operation: Operation, answer: &ResponseHead) -> View {
    let is_stream =
        answer.get("content-type").is_some_and(|v| v.to_ascii_lowercase().starts_with(b"text/event-stream"));
    // An error answer is no stream, whatever it says: it passes as it is.
    let is_stream = is_stream && (200..300).contains(&answer.status);
    if operation != Operation::Generation || !is_stream || answer.framing == Framing::None {
        return View::Plain;
    }
    match Coding::of(answer.get("content-encoding")) {
        Ok(None) => View::Events(Box::default()),
        Ok(Some(coding)) => View::Coded(Box::<Events>::default(), Decoder::new(coding, OBSERVED).map(Box::new)),
        Err(_) => View::Coded(Box::<Events>::default(), None),
    }
}

/// How the client learns where the answer ends.
fn framed(head: &RequestHead, answer: &ResponseHead, view: &View) -> Framed {
    match (answer.framing, view) {
        (Framing::None, _) => Framed::Length,
        // A stream into which events may be put has no length that could be told before.
        (Framing::Length(_), View::Plain | View::Coded(..)) => Framed::Length,
        _ if head.minor == 0 => Framed::Close,
        _ => Framed::Chunked,
    }
}

fn close_head(out: &mut BytesMut, id: &str, keep_alive: bool) {
    write::field(out, REQUEST_ID.as_bytes(), id.as_bytes());
    write::field(out, b"connection", if keep_alive { b"keep-alive" } else { b"close" });
}

/// The head of an answer that is relayed.
fn answer_head(answer: &ResponseHead, view: &View, framed: Framed, keep_alive: bool, id: &str, to_head: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(1024);
    write::status_line(&mut out, answer.status, answer.reason());
    headers::response_fields(&mut out, answer);
    if !matches!(view, View::Plain) {
        headers::stream_fields(&mut out, answer);
    }
    close_head(&mut out, id, keep_alive);
    match (framed, answer.framing) {
        (Framed::Chunked, _) => write::field(&mut out, b"transfer-encoding", b"chunked"),
        (Framed::Length, Framing::Length(n)) => write::content_length(&mut out, n),
        // What an answer to HEAD says of the body it does not have.
        (Framed::Length, _) if to_head => {
            if let Some(length) = answer.get("content-length") {
                write::field(&mut out, b"content-length", length);
            }
        }
        (Framed::Length, _) if answer.status != 204 && answer.status != 304 => write::content_length(&mut out, 0),
        _ => {}
    }
    headers::end(&mut out);
    out.freeze()
}

/// Replaces the upstream's base by ours where a `results_url` begins with it.
fn rehome(body: &[u8], theirs: &str, ours: &str) -> Vec<u8> {
    let finder = memchr::memmem::Finder::new(b"\"results_url\"");
    let (mut out, mut rest) = (Vec::with_capacity(body.len()), body);
    while let Some(at) = finder.find(rest) {
        let value = at + b"\"results_url\"".len();
        let gap = rest[value..].iter().take_while(|b| b.is_ascii_whitespace() || **b == b':').count();
        let (before, after) = rest.split_at(value + gap);
        out.extend_from_slice(before);
        rest = after;
        if let Some(tail) = after.strip_prefix(b"\"").and_then(|a| a.strip_prefix(theirs.as_bytes()))
            && tail.first() == Some(&b'/')
        {
            out.push(b'"');
            out.extend_from_slice(ours.as_bytes());
            rest = tail;
        }
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_of_a_results_url_changes() {
        let body = br#"{"id":"b","results_url" : "https://api.anthropic.com/v1/messages/batches/b/results","x":"https://api.anthropic.com/"}"#;
        let want = br#"{"id":"b","results_url" : "http://127.0.0.1:1/v1/messages/batches/b/results","x":"https://api.anthropic.com/"}"#;
        assert_eq!(rehome(body, "https://api.anthropic.com", "http://127.0.0.1:1"), want);
        for same in [
            &br#"{"results_url":null}"#[..],
            br#"{"results_url":"https://api.anthropic.com.evil/x"}"#,
            br#"{"results_url""#,
        ] {
            assert_eq!(rehome(same, "https://api.anthropic.com", "http://a"), same);
        }
    }
}
