//! The first half of an exchange: from a request's head to the head of its answer, read from top to bottom. The second
//! is [`down`](super::down).

use std::rc::Rc;
use std::time::Duration;

use http1::RequestHead;
use ledger::record::{self, Fingerprint, Id};
use ledger::redact;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;
use wire::protocol::Protocol;

use crate::client::inbound::{HeldBody, NoBody, Operation, protocol, read_held};
use crate::client::respond::Answer;
use crate::client::{Client, Interrupted};
use crate::error::{ErrorKind, Refusal};
use crate::gateway::{Gateway, Worker};
use crate::headers::told_fields;
use crate::io::Io;
use crate::party::{Guess, Party};
use crate::provider::Provider;
use crate::recorder::{Draft, now_us};
use crate::relay::Ended;
use crate::route::{Cause, Facts, OwnKey, Purse};
use crate::server::account::{outcome, refused};
use crate::server::answer::keeps;
use crate::server::caller::{self, Means, Rules};
use crate::server::continued::can_go_on;
use crate::server::dispatch::{Asked, Dispatched, What};
use crate::server::down::{Again, Carried};
use crate::server::replay;
use crate::server::request::Fitted;
use crate::server::translated::{Asks, does_not_count};

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
    /// What the client speaks.
    pub(super) protocol: Protocol,
    pub(super) provider: String,
    pub(super) model: Option<String>,
    pub(super) stream: bool,
    pub(super) status: u16,
    pub(super) attempts: u32,
    /// Whether a request went up that no answer has come to yet: what it used is not known.
    pub(super) unanswered: bool,
    /// Another provider serves because the caller's subscription is used up.
    pub(super) replaced: bool,
    pub(super) first_byte: Option<Duration>,
    /// Its client can have the whole of a good answer.
    pub(super) good: bool,
    /// Its answer may go to another client than the one that asked.
    pub(super) is_detached: bool,
    /// Then: how it ended, and why.
    pub(super) ended: Option<(record::Outcome, Option<Box<str>>)>,
}

/// What became of the first half of an exchange.
enum Up<'g> {
    /// It has ended, and whether its connection can carry another.
    Over((Ended, bool)),
    /// There is an answer.
    Won(Carried<'g>),
}

/// Why an exchange has no answer of an upstream's.
pub(super) enum Failure {
    Refused(Refusal),
    Gone,
}

impl From<Interrupted> for Failure {
    fn from(why: Interrupted) -> Self {
        match why {
            Interrupted::Gone => Self::Gone,
            Interrupted::Cut => Refusal::shutting_down().into(),
            Interrupted::Deadline => Refusal::new(ErrorKind::UpstreamTimeout, "it took too long").into(),
        }
    }
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
        protocol: protocol(head),
        provider: String::new(),
        model: None,
        stream: false,
        status: 0,
        attempts: 0,
        unanswered: false,
        replaced: false,
        first_byte: None,
        good: false,
        is_detached: false,
        ended: None,
    };
    let running = gateway.counters.running();
    this.open(head, gateway);
    let admitted = match this.admit(client, head, gateway).await {
        Ok(admitted) => admitted,
        Err(why) => {
            this.know_party(&Party::of(head, None, Guess::Never));
            return this.ended(client, head, worker, Err(why)).await;
        }
    };
    match admitted {
        (means, Some(body)) if !gateway.replay.is_zero() && operation == Operation::Generation && head.minor > 0 => {
            let key = replay::key(client, head, worker, &means, &body);
            drop(running);
            match replay::waiting_for(client, worker, key).await {
                Some(reader) => {
                    this.draft.take().into_iter().for_each(Draft::forget);
                    replay::rejoined(client, reader, worker, key).await
                }
                None => Box::pin(this.detached(client, head, worker, (means, body), key)).await,
            }
        }
        admitted => this.conclude(client, head, worker, admitted).await,
    }
}

impl Exchange {
    /// Serves a request that was admitted. `true`: the connection can carry another.
    pub(super) async fn conclude<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        admitted: (Means, Option<HeldBody>),
    ) -> bool {
        let served = self.run(client, head, worker, admitted).await;
        self.ended(client, head, worker, served).await
    }

    /// The end of an exchange: its log line, and its answer where that is a refusal of ours.
    async fn ended<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Worker,
        served: Result<(Ended, bool), Failure>,
    ) -> bool {
        let gateway = &*worker.gateway;
        match served {
            Ok((ended, keep)) => {
                let (outcome, cause) = outcome(&ended, self.status);
                self.good = !outcome.is_failure() && ended == Ended::Complete;
                self.tell(head, outcome, cause, gateway);
                keep
            }
            Err(Failure::Gone) => {
                drop(self.settle(record::Outcome::ClientDisconnected, None));
                self.tell(head, record::Outcome::ClientDisconnected, None, gateway);
                false
            }
            Err(Failure::Refused(refusal)) => {
                self.status = refusal.kind.status();
                let outcome = refused(refusal.kind);
                if let Some(settling) = self.settle(outcome, Some(&refusal.message)) {
                    settling.await;
                }
                self.tell(head, outcome, Some(&refusal.message), gateway);
                if self.draft.is_none() {
                    gateway.refused.push(Id(self.key), Some((head.method(), &redact::path(head.path()))), &refusal);
                }
                let keep_alive = keeps(client, head, worker) && !refusal.close;
                let mut answer = Answer::refusal(&refusal, self.protocol, &self.id);
                if self.attempts > 0 {
                    answer.fields.extend(told_fields(&self.provider, self.attempts));
                }
                client.answer(&answer, &self.id, keep_alive, head.method() == "HEAD").await
            }
        }
    }

    async fn run<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        admitted: (Means, Option<HeldBody>),
    ) -> Result<(Ended, bool), Failure> {
        // In memory of its own, which is given back before an answer streams for minutes. It is asked for before the future
        // is made, which is then made there: `Box::pin` would copy it, and it is some kilobytes.
        match Box::into_pin(Box::write(Box::new_uninit(), self.up(client, head, worker, admitted))).await? {
            Up::Over(over) => Ok(over),
            Up::Won(carried) => self.down(client, head, worker, carried).await,
        }
    }

    /// Whom it goes to, and the beginning of an answer.
    async fn up<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &'g Rc<Worker>,
        (means, body): (Means, Option<HeldBody>),
    ) -> Result<Up<'g>, Failure> {
        let gateway = &*worker.gateway;
        let routing = &gateway.routing;
        self.know_caller(&client.peer, &means);

        let key_id = means.own.as_ref().map(|own| Fingerprint::of(own.key.expose()));
        let text = body.as_ref().map(|body| (&body.text[..], &body.envelope));
        let mut facts = Facts::of(head, text, self.protocol, self.operation, routing.rules.guess());
        facts.key_id = key_id.as_ref().map(Fingerprint::as_str);
        facts.in_flight = gateway.counters.totals().1.saturating_sub(1);
        // The record began a moment ago, if there is one.
        facts.unix = self.record().map_or_else(now_us, |record| record.started_us) / 1_000_000;
        let own = means.own.as_ref().map(|own| own.key.expose());
        let of_own = |key| {
            let home = routing.rules.home_of_key(key, self.protocol)?;
            Some(OwnKey { home, id: routing.subscriptions.id(key) })
        };
        let purse = Purse { own: own.and_then(of_own), stored: means.stored };
        // Without a key of its own: the one that the gateway stands in for.
        let own_home = match own {
            Some(_) => purse.own.map(|own| own.home),
            None => routing.rules.home_of_key("", self.protocol),
        };
        self.know_party(&facts.party);
        self.know(head, body.as_ref());
        routing.budget.deposit();
        // The last bits of the id are random; the product's first ones depend on all of them.
        let chance = (self.key as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if self.operation == Operation::Models && head.method() == "GET" {
            let lists = |provider: &Provider| provider.way(self.protocol).protocol == self.protocol;
            let providers = &gateway.providers;
            if !providers.is_empty() && !providers.iter().any(lists) {
                return self.models(client, head, worker).await.map(Up::Over);
            }
        }
        let view = gateway.view(chance);
        let (planned, route) = routing.rules.plan_noted(&facts, &purse, &view);
        if let Some(record) = self.record() {
            record.route = route;
        }
        let Ok(plan) = planned else {
            let refusal = caller::homeless(&means, &purse, &routing.rules)
                .unwrap_or_else(|| routing.rules.refusal(&facts, &purse, &view));
            // Somebody has a list, but none of those that this request may go to.
            if self.operation == Operation::Models && head.method() == "GET" && refusal.code.is_some() {
                return self.models(client, head, worker).await.map(Up::Over);
            }
            return Err(refusal.into());
        };
        self.replaced = plan.cause == Cause::Subscription;
        if let (Some(first), Some(record)) = (plan.targets.first(), self.record()) {
            record.parties.provider = Some(routing.rules.name(first.provider).into());
        }

        // From here on a crash leaves a trace.
        if let Some(record) = self.record() {
            gateway.recorder.begin(record).await?;
        }
        let bodies = gateway.recorder.bodies().filter(|_| self.operation.is_held());
        let owner = bodies.and_then(|_| self.owner());
        if let (Some(bodies), Some(owner), Some(body)) = (bodies, &owner, &body) {
            bodies.request(owner, head, &body.bytes);
        }
        let (session, rule) = (plan.session, plan.rule);
        let (idle, max_stream) = (plan.changes.idle_timeout, plan.changes.max_stream);
        let prompt_bytes = facts.prompt_bytes();
        let (id, protocol) = (self.id.clone(), self.protocol);
        let fitted = Fitted::default();
        let asks = Asks { protocol, id: &id, on_loss: gateway.on_loss, home: own_home, fitted: &fitted };
        // Not every provider counts: then we do.
        if self.operation == Operation::CountTokens
            && let (Some(first), Some(body)) = (plan.targets.first(), &body)
            && let Some(provider) = gateway.provider(first.provider)
            && provider.way(protocol).protocol != protocol
        {
            return self.count(client, head, worker, provider, body).await.map(Up::Over);
        }
        let asked = Asked { head, asks, body: body.as_ref(), facts: &facts, means: &means, purse: &purse, chance };
        let dispatched = self.dispatch(client, worker, &asked, plan).await?;
        if let (Operation::CountTokens, Some(body), Some((provider, status))) =
            (self.operation, &body, dispatched.status())
            && does_not_count(provider, status)
        {
            return self.count(client, head, worker, provider, body).await.map(Up::Over);
        }
        let won = match dispatched {
            Dispatched::Won(won) => won,
            Dispatched::Lost(lost) => {
                if let (What::Answer(answer), Some((bodies, owner))) = (&lost.what, bodies.zip(owner))
                    && let Some(mut tape) = bodies.answer(owner, &answer.head)
                {
                    tape.keep(&answer.body);
                }
                return self.hand_over(client, head, worker, *lost).await.map(Up::Over);
            }
            Dispatched::Idle(provider, answer, lost) => {
                let (told, fields) = ((&*provider.name, &*lost), [answer.own_id()]);
                let (kind, body) = ((answer.content_type(), &fields[..]), answer.nothing().into());
                return self.answer_translated(client, head, worker, told, kind, body).await.map(Up::Over);
            }
        };
        let session = session.map(|session| (session, prompt_bytes));
        // What an answer could be gone on with is kept until it has ended.
        let goes_on = routing.continue_on_break && can_go_on(&won, &facts, body.as_ref());
        drop(facts);
        let again = body.filter(|_| goes_on).map(|body| {
            let home = own_home;
            Box::new(Again { body, means, purse, home, chance, rule })
        });
        Ok(Up::Won(Carried { won, owner, idle, max_stream, session, again }))
    }

    /// Who asks and what it may spend, and what is asked. A body that another attempt may need is held; any other goes
    /// up while it arrives.
    async fn admit<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        gateway: &Gateway,
    ) -> Result<(Means, Option<HeldBody>), Failure> {
        let token = gateway.token.get();
        let rules = Rules { token: token.as_deref(), open: gateway.open_stored_keys };
        let asks = |key: &str| gateway.has_keys_beside(gateway.routing.rules.home_of_key(key, self.protocol));
        let means = caller::means(head, &client.peer, &rules, asks)?;
        if !self.operation.is_held() {
            return Ok((means, None));
        }
        let body = match read_held(client, head, &gateway.held, gateway.max_body).await {
            Ok(body) => body,
            Err(NoBody::Refused(refusal)) => return Err(refusal.into()),
            Err(NoBody::Gone) => return Err(Failure::Gone),
        };
        self.model.clone_from(&body.envelope.model);
        self.stream = body.envelope.stream == Some(true);
        Ok((means, Some(body)))
    }

    /// How long the head of the answer may take once the request has gone up; `limit` is that of a stream.
    pub(super) fn patience(&self, head: &RequestHead, limit: Duration) -> Duration {
        if self.stream {
            return limit;
        }
        let clients = CLIENTS_PATIENCE.iter().filter_map(|name| seconds(head.get(name)?)).max();
        limit.max(WHOLE_ANSWER).max(clients.unwrap_or_default())
    }

    /// Logs how it ended: now, or once it is known who had the answer.
    fn tell(&mut self, head: &RequestHead, outcome: record::Outcome, cause: Option<&str>, gateway: &Gateway) {
        match self.is_detached {
            true => self.ended = Some((outcome, cause.map(Box::from))),
            false => self.log(head, outcome.as_str(), cause, gateway),
        }
    }

    pub(super) fn log(&self, head: &RequestHead, outcome: &'static str, cause: Option<&str>, gateway: &Gateway) {
        gateway.counters.ended(outcome);
        let (ms, first_ms) = (self.started.elapsed().as_millis() as u64, self.first_byte.map(|d| d.as_millis() as u64));
        info!(
            target: "cco::request",
            id = &*self.id,
            method = head.method(),
            path = &*redact::path(head.path()),
            operation = self.operation.as_str(),
            provider = &*self.provider,
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
