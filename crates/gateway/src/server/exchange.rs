//! The life of one request, from its head to the last byte of its answer, read from top to bottom.

use std::rc::Rc;
use std::time::Duration;

use http1::RequestHead;
use ledger::record::{Fingerprint, Id, Outcome};
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

use crate::client::Client;
use crate::client::inbound::{NoBody, Operation, read_held};
use crate::client::respond::Answer;
use crate::config::KeyMode;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::io::Io;
use crate::provider::Provider;
use crate::recorder::Draft;
use crate::relay::{Ended, Framed, Limits, Relay};
use crate::server::account::{self, Closing, outcome, refused};
use crate::server::answer::{answer_head, framed, is_json, view};
use crate::server::caller::{self, Payer, Rules};
use crate::server::request::{authorization, prepare};

/// A non-stream answer may take this long, whatever `timeoutSecs` says: models think.
const WHOLE_ANSWER: Duration = Duration::from_secs(600);

/// Where the official SDKs say how long they wait, in seconds: TypeScript's and Claude Code, and Python's.
const CLIENTS_PATIENCE: [&str; 2] = ["x-stainless-timeout", "x-stainless-read-timeout"];
/// More than a client's word is worth.
const LONGEST_PATIENCE: f64 = 86_400.0;

/// A number of seconds, whole or not.
fn seconds(value: &[u8]) -> Option<Duration> {
    let seconds = std::str::from_utf8(value).ok()?.parse::<f64>().ok().filter(|s| *s > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(LONGEST_PATIENCE)))
}

/// One request in flight: what its log line and its record will say.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) draft: Option<Draft>,
    pub(super) key: u128,
    pub(super) id: String,
    pub(super) started: Instant,
    pub(super) operation: Operation,
    pub(super) provider: String,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) status: u16,
    pub(super) attempts: u32,
    pub(super) first_byte: Option<Duration>,
}

/// Why an exchange has no answer of an upstream's.
pub(super) enum Failure {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves one request whose path is an upstream's. `true`: the connection can carry another.
pub(super) async fn exchange<S: Io>(
    client: &mut Client<S>,
    head: &RequestHead,
    operation: Operation,
    worker: &Rc<Worker>,
    id: Uuid,
) -> bool {
    let gateway = &*worker.gateway;
    let mut this = Exchange {
        draft: None,
        key: id.as_u128(),
        id: id.to_string(),
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
            this.log(head, outcome.as_str(), cause, gateway);
            keep
        }
        Err(Failure::Gone) => {
            drop(this.settle(Outcome::ClientDisconnected, None));
            this.log(head, "client_disconnected", None, gateway);
            false
        }
        Err(Failure::Refused(refusal)) => {
            this.status = refusal.kind.status();
            let outcome = refused(refusal.kind);
            if let Some(settling) = this.settle(outcome, Some(&refusal.message)) {
                settling.await;
            }
            this.log(head, outcome.as_str(), Some(&refusal.message), gateway);
            if this.draft.is_none() {
                gateway.refused.push(Id(this.key), Some((head.method(), head.path())), &refusal);
            }
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
        self.open(head, provider, gateway);
        let token = gateway.token.get();
        let rules = Rules {
            token: token.as_deref(),
            open: gateway.open_stored_keys,
            always_stored: provider.key_mode == KeyMode::Stored,
            form: provider.kind.auth,
        };
        let payer = caller::payer(head, &client.peer, &rules)?;
        let auth = authorization(provider, &payer)?;
        if let Some(record) = self.record() {
            record.credential = Some(Fingerprint::of(auth.1.expose()));
            record.parties.notional = matches!(&payer, Payer::Own(_, key) if key.expose().starts_with("sk-ant-oat"));
        }

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
        self.know(head, body.as_ref(), provider);

        // Up, and the head of the answer. From here on a crash leaves a trace.
        if let Some(start) = self.start() {
            gateway.recorder.begin(start).await?;
        }
        let bodies = gateway.recorder.bodies().filter(|_| self.operation.is_held());
        let owner = bodies.and_then(|_| self.owner());
        if let (Some(bodies), Some(owner), Some(body)) = (bodies, &owner, &body) {
            bodies.request(owner, head, &body.bytes);
        }
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
        let view = view(self.operation, head, &answer, self.stream).tapped(gateway.recorder.live(), Id(self.key));
        let keep_alive = head.keep_alive && !worker.phases.drain.is_cancelled() && !source.sending().0.is_uploading();
        let framed = framed(head, &answer, &view);
        let keep_alive = keep_alive && framed != Framed::Close;
        client.out.push(answer_head(&answer, &view, framed, keep_alive, &self.id, head.method() == "HEAD"));
        let limits = Limits {
            ping: gateway.ping,
            idle: provider.timeouts.idle,
            end: self.started + provider.timeouts.max_stream,
        };
        let upstream_id = answer.get("request-id").and_then(|id| std::str::from_utf8(id).ok());
        let tape = bodies.zip(owner).and_then(|(bodies, owner)| bodies.answer(owner, &answer));
        let (status, started, first_byte) = (self.status, self.started, self.first_byte);
        let draft = self.draft.as_mut();
        let said = account::limits(&answer);
        let mut closing = Closing { draft, status, started, first_byte, upstream_id, limits: said, tape };
        let report = Relay::new(client, &mut source, framed, view, limits, &self.id, &mut closing).run().await;
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
        let clients = CLIENTS_PATIENCE.iter().filter_map(|name| seconds(head.get(name)?)).max();
        provider.timeouts.head.max(WHOLE_ANSWER).max(clients.unwrap_or_default())
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
