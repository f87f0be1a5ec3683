//! The targets of a request, one after the other, until one gives an answer that its client can have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http1::{Framing, RequestHead, ResponseHead};
use ledger::record::{Id, Outcome as Recorded};
use tokio::time::Instant;
use tracing::{debug, warn};
use wire::error::ApiError;
use wire::meter::Metered;

use crate::cap::Turn;
use crate::client::inbound::HeldBody;
use crate::client::{Client, Interrupted};
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::health::{Entry, Outcome, Pass, Slot};
use crate::io::Io;
use crate::provider::Provider;
use crate::relay::{Beginning, Opened, View, open};
use crate::retry::{Failure as Why, Kept, Merit, Owner, Refused, Tried, UsedUp, Verdict, judge, same_target_limit};
use crate::route::{Facts, Plan, Purse, Target};
use crate::server::answer::view;
use crate::server::attempt::Try;
use crate::server::caller::Means;
use crate::server::exchange::{Exchange, Failure};
use crate::server::request::{Outgoing, Unfit, credential, prepare};
use crate::server::translated::{self, Asks, WHOLE};
use crate::signals::Signals;
use crate::translation::{self, Answer};
use crate::upstream::UpstreamBody;

/// Bytes of a failed answer that are kept while other targets are asked.
const KEPT: usize = 1024 * 1024;
/// How long the body of a failed answer may take.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// What a request is, for as long as another attempt may be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a, 'f> {
    pub(super) head: &'a RequestHead,
    /// What the client speaks, and what follows where that cannot be carried.
    pub(super) asks: Asks<'a>,
    pub(super) body: Option<&'a HeldBody>,
    pub(super) facts: &'a Facts<'f>,
    pub(super) means: &'a Means,
    pub(super) purse: &'a Purse,
    /// Any number.
    pub(super) chance: u64,
}

/// An answer that its client gets, as far as it has come.
#[derive(Debug)]
pub(super) struct Won<'g> {
    pub(super) provider: &'g Provider,
    pub(super) slot: Slot,
    pub(super) answer: ResponseHead,
    /// The id that the upstream gave its answer.
    pub(super) upstream_id: Option<Box<str>>,
    pub(super) source: UpstreamBody,
    pub(super) view: View,
    /// The answer where it was translated as a whole, and what it came to.
    pub(super) whole: Option<(Bytes, Metered)>,
    /// What a translation did not carry.
    pub(super) lost: String,
    /// What was read and held back.
    pub(super) beginning: Beginning,
    pub(super) pass: Pass<'g>,
    /// Other targets had failed for reasons that do not pass by themselves.
    pub(super) final_word: bool,
    pub(super) _turn: Turn<'g>,
}

/// A failed answer.
#[derive(Debug)]
pub(super) struct Lost<'g> {
    pub(super) provider: &'g Provider,
    pub(super) what: What,
    pub(super) final_word: bool,
}

/// What a failed attempt left.
#[derive(Debug)]
pub(super) enum What {
    /// An answer of the upstream's, whole.
    Answer(Box<ResponseHead>, Bytes),
    /// What the client is told.
    Refusal(Refusal),
}

/// What the targets of a request came to.
pub(super) enum Dispatched<'g> {
    Won(Box<Won<'g>>),
    Lost(Box<Lost<'g>>),
    /// There is nothing to ask: this is the answer.
    Idle(&'g Provider, Answer, String),
}

impl<'g> Dispatched<'g> {
    /// Who answered, and with which status.
    pub(super) fn status(&self) -> Option<(&'g Provider, u16)> {
        match self {
            Self::Won(won) => Some((won.provider, won.answer.status)),
            Self::Lost(lost) => match &lost.what {
                What::Answer(answer, _) => Some((lost.provider, answer.status)),
                What::Refusal(_) => None,
            },
            Self::Idle(..) => None,
        }
    }
}

/// One target at hand.
struct Step<'s, 'g> {
    provider: &'g Provider,
    target: &'s Target<'s>,
    request: &'s Outgoing,
    patience: Duration,
    idle: Duration,
    /// Whether another target is left.
    has_next: bool,
    /// Whether there were attempts before.
    has_failed: bool,
    tried: Tried,
    since: Instant,
}

/// What an attempt came to.
enum Came<'g> {
    /// The client gets it as it comes.
    Won(Box<Won<'g>>),
    /// It failed.
    Failed(Why, What),
}

/// The time in milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Whether a failed answer of this status may be followed by another attempt, so that its body is worth reading first.
fn may_be_followed(status: u16, owner: Owner) -> bool {
    matches!(status, 404 | 429 | 500..) || matches!(status, 401 | 403) && owner == Owner::Ours
}

impl Exchange {
    /// Tries the targets of a plan.
    pub(super) async fn dispatch<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        worker: &'g Worker,
        asked: &Asked<'_, '_>,
        plan: Plan<'_>,
    ) -> Result<Dispatched<'g>, Failure> {
        let gateway = &*worker.gateway;
        let routing = &gateway.routing;
        let mut plan = plan;
        let repeatable = asked.body.is_some() || asked.head.framing == Framing::None;
        let mut kept: Kept<(&'g Provider, What)> = Kept::default();
        let mut full = None;
        let mut unfit = None;
        let (mut at, mut entry) = (0, if plan.last_resort { Entry::LastResort } else { Entry::IfWell });
        loop {
            let Some(target) = plan.targets.get(at).copied() else {
                // All of them went bad since they were looked at: the first one is tried all the same.
                if self.attempts == 0 && full.is_none() && entry == Entry::IfWell {
                    (at, entry) = (0, Entry::LastResort);
                    continue;
                }
                break;
            };
            at += 1;
            let Some(provider) = gateway.provider(target.provider) else { continue };
            let home = asked.purse.own.map(|own| own.home);
            let way = provider.way(asked.asks.protocol);
            let Ok(credential) = credential(provider, way, target.slot, asked.means, home) else { continue };
            let (head, body) = (asked.head, asked.body);
            if let Some(body) = body {
                translated::learn(client, worker, provider, way, &target, body).await?;
            }
            let (asks, changes) = (asked.asks, &plan.changes);
            let request =
                match prepare(asks, head, self.operation, body, provider, &target, changes, credential.as_ref()) {
                    Ok(request) => request,
                    Err(Unfit::Model) => continue,
                    Err(Unfit::Refused(why)) => {
                        unfit.get_or_insert(why);
                        continue;
                    }
                };
            if !request.lost.is_empty() {
                debug!(id = %self.id, provider = %provider.name, lost = %request.lost, "not carried");
            }
            self.lose(&request.losses);
            if let (true, Some(answer)) = (request.is_idle, &request.answer) {
                return Ok(Dispatched::Idle(provider, answer.clone(), request.lost));
            }
            let Some(turn) = self.turn(client, provider).await? else {
                full.get_or_insert(provider);
                continue;
            };
            self.goes_to(provider, &target, credential);
            let owner = if target.slot == Slot::Client { Owner::Client } else { Owner::Ours };
            let replaces_subscription = routing.rules.replaces_subscriptions() && owner == Owner::Client;
            let limit = same_target_limit(head, provider.max_retries);
            let stream = self.stream;
            let mut step = Step {
                provider,
                target: &target,
                request: &request,
                patience: self.patience(head, plan.changes.timeout.unwrap_or(provider.timeouts.head)),
                idle: plan.changes.idle_timeout.unwrap_or(provider.timeouts.idle),
                has_next: false,
                has_failed: false,
                tried: Tried { owner, stream, repeatable, again: 0, limit, replaces_subscription },
                since: Instant::now(),
            };
            let mut turn = Some(turn);
            loop {
                let place = target.place(asked.facts);
                let Some(pass) = routing.health.enter(routing.now(), &place, asked.facts.prompt_tokens(), entry) else {
                    break;
                };
                step.since = Instant::now();
                (step.has_next, step.has_failed) = (at < plan.targets.len(), self.attempts > 0);
                self.attempts += 1;
                let (failure, what) = match self.step(client, worker, asked, &step, &kept, pass, &mut turn).await? {
                    Came::Won(won) => {
                        if let Some(session) = plan.session
                            && won.answer.status < 400
                        {
                            routing.affinity.remember(routing.now(), session, target.provider, target.slot);
                        }
                        return Ok(Dispatched::Won(won));
                    }
                    Came::Failed(failure, what) => (failure, what),
                };
                let verdict = judge(&failure, &step.tried, &routing.budget, asked.chance);
                kept.offer(&failure, &step.tried, verdict, || (provider, what));
                if replaces_subscription && self.is_used_up(gateway, asked, &failure) {
                    match routing.rules.plan(asked.facts, asked.purse, &gateway.view(asked.chance)) {
                        Ok(instead) => (self.replaced, plan, at) = (true, instead, 0),
                        Err(_) => at = plan.targets.len(),
                    }
                    entry = if plan.last_resort { Entry::LastResort } else { Entry::IfWell };
                    break;
                }
                match verdict {
                    Verdict::Again(wait) => {
                        step.tried.again += 1;
                        let deadline = Instant::now() + wait;
                        match client.watch(deadline, |_| std::task::Poll::<()>::Pending).await {
                            Err(Interrupted::Deadline) | Ok(()) => {}
                            Err(Interrupted::Gone) => return Err(Failure::Gone),
                            Err(Interrupted::Cut) => return Err(Refusal::shutting_down().into()),
                        }
                    }
                    Verdict::Next => break,
                    Verdict::GiveUp => {
                        at = plan.targets.len();
                        break;
                    }
                }
            }
        }
        let final_word = self.attempts > 1 && !kept.may_pass();
        let Some((merit, (provider, what))) = kept.take() else {
            let refusal = match (unfit, full) {
                (Some(why), _) => Refusal::of(&why).retry(Retry::Never),
                (None, Some(provider)) => no_turn(provider),
                (None, None) => routing.rules.refusal(asked.facts, asked.purse, &gateway.view(asked.chance)),
            };
            return Err(refusal.into());
        };
        let what = match what {
            What::Answer(answer, _) if merit == Merit::Ours => What::Refusal(our_trouble(provider, answer.status)),
            What::Refusal(refusal) if final_word => What::Refusal(refusal.retry(Retry::Never)),
            what => what,
        };
        Ok(Dispatched::Lost(Box::new(Lost { provider, what, final_word })))
    }

    /// Waits for the provider's turn; `None`: too many wait already.
    async fn turn<'g, S: Io>(
        &self,
        client: &mut Client<S>,
        provider: &'g Provider,
    ) -> Result<Option<Turn<'g>>, Failure> {
        let mut entering = std::pin::pin!(provider.cap.enter());
        let deadline = Instant::now() + provider.timeouts.head;
        match client.watch(deadline, |cx| entering.as_mut().poll(cx)).await {
            Ok(turn) => Ok(turn.ok()),
            Err(Interrupted::Gone) => Err(Failure::Gone),
            Err(Interrupted::Cut) => Err(Refusal::shutting_down().into()),
            Err(Interrupted::Deadline) => Ok(None),
        }
    }

    /// Whether the caller's subscription is used up; if so, that is remembered.
    fn is_used_up(&self, gateway: &Gateway, asked: &Asked<'_, '_>, failure: &Why) -> bool {
        let (Why::Refused(refused) | Why::FirstEvent(refused)) = failure else { return false };
        let (UsedUp::Subscription(wait), Some(own)) = (refused.used_up, asked.purse.own) else { return false };
        let routing = &gateway.routing;
        if routing.subscriptions.until(routing.now(), own.id).is_some() {
            return false;
        }
        routing.subscriptions.used_up(routing.now(), own.id, wait);
        let seconds = wait.map(|wait| wait.as_secs());
        warn!(id = %self.id, provider = %self.provider, seconds, "a caller's subscription is used up: another provider serves");
        true
    }

    /// One attempt at one target, judged. What fails is recorded here; what is won is the relay's.
    #[expect(
        clippy::too_many_arguments,
        reason = "the one place where everything that an attempt needs comes together"
    )]
    async fn step<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        worker: &'g Worker,
        asked: &Asked<'_, '_>,
        step: &Step<'_, 'g>,
        kept: &Kept<(&'g Provider, What)>,
        mut pass: Pass<'g>,
        turn: &mut Option<Turn<'g>>,
    ) -> Result<Came<'g>, Failure> {
        let routing = &worker.gateway.routing;
        let (provider, owner, since) = (step.provider, step.tried.owner, step.since);
        let tried = match self.attempt(client, asked.head, worker, provider, step.request, step.patience).await {
            Ok(tried) => tried,
            Err(why) => {
                if matches!(why, Failure::Gone) {
                    self.tried(since, Recorded::ClientDisconnected, None, None);
                }
                return Err(why);
            }
        };
        let (answer, mut source) = match tried {
            Try::Answer(came) => *came,
            Try::Failed(failure, refusal, why) => {
                let outcome = if failure == Why::Late { Recorded::Timeout } else { Recorded::UpstreamError };
                self.tried(since, outcome, None, Some(&why));
                pass.record(routing.now(), Outcome::of(&failure, owner));
                return Ok(Came::Failed(failure, What::Refusal(refusal)));
            }
        };
        let status = answer.status;
        let signals = Signals::read(answer.fields(), unix_ms());
        pass.heed(routing.now(), &signals);
        if (300..400).contains(&status) && status != 304 {
            self.tried(since, Recorded::UpstreamError, Some(status), Some("a redirect, which is not followed"));
            pass.record(routing.now(), Outcome::of(&Why::Broken, owner));
            let message = format!(
                "the provider `{}` answered with a redirect ({status}), which is not followed: check its `baseUrl`",
                provider.name
            );
            let refusal = Refusal::new(ErrorKind::BadGateway, message).retry(Retry::Never);
            return Ok(Came::Failed(Why::Broken, What::Refusal(refusal)));
        }
        let live = worker.gateway.recorder.live();
        let upstream_id = answer.get("request-id").or(answer.get("x-request-id"));
        let upstream_id = upstream_id.and_then(|id| std::str::from_utf8(id).ok()).map(Box::from);
        let to = step.request.answer.as_ref();
        let mut view = view(self.operation, asked.head, &answer, self.stream);
        let (mut answer, mut whole) = (answer, None);
        if let Some(to) = to
            && status < 400
        {
            match translated::view(to, &answer) {
                Some(streaming) => {
                    view = streaming;
                    answer = translated::head(status, to.content_type(), &translated::fields(to, &answer), None);
                }
                None => {
                    let theirs = match self.collected(client, step, &mut source, WHOLE, step.patience).await? {
                        Some(body) => translated::whole(to, &answer, &body),
                        None => Err(ApiError::new(ErrorKind::BadGateway, "the upstream's answer did not come whole")),
                    };
                    match theirs {
                        Ok((body, metered)) => {
                            let fields = translated::fields(to, &answer);
                            answer = translated::head(status, to.content_type(), &fields, Some(body.len()));
                            whole = Some((body, metered));
                        }
                        Err(error) => {
                            // Some say within a good answer that they failed.
                            let data = translation::error_event(&error);
                            let failure = Why::FirstEvent(Refused::of_event(&data, &signals));
                            self.tried(since, Recorded::UpstreamError, Some(status), Some("its answer is an error"));
                            pass.record(routing.now(), Outcome::of(&failure, owner));
                            let (head, body) = translated::refused(to, &answer, &error.of_our_credential(), &self.id);
                            return Ok(Came::Failed(failure, What::Answer(Box::new(head), body)));
                        }
                    }
                }
            }
        } else {
            view = view.speaking(asked.asks.protocol);
        }
        let mut view = view.tapped(live, Id(self.key));
        let mut beginning = Beginning::default();
        if status >= 400 {
            let refused = Refused::of(status, &signals, b"");
            let failure = Why::Refused(refused);
            let quick = refused.retry_after.is_some_and(|wait| wait <= crate::retry::QUICK);
            let again = quick && step.tried.again < step.tried.limit;
            // Whether it is our trouble shows in the body alone.
            let ours = owner == Owner::Ours && matches!(status, 401 | 403 | 429);
            let replaced = status == 429 && step.tried.replaces_subscription;
            let follows = step.has_next || again || ours || replaced;
            let may_follow = step.tried.repeatable && follows && may_be_followed(status, owner);
            if (may_follow || to.is_some()) && asked.head.method() != "HEAD" {
                let (refused, what) = match self.collected(client, step, &mut source, KEPT, KEPT_WITHIN).await? {
                    Some(body) => {
                        let refused = Refused::of(status, &signals, &body);
                        source.release(&worker.pool, &provider.base.origin);
                        let (answer, body) = match to {
                            Some(to) => {
                                let error = translation::upstream_error(status, &body, signals.retry_after);
                                translated::refused(to, &answer, &error, &self.id)
                            }
                            None => (answer, body),
                        };
                        (refused, What::Answer(Box::new(answer), body))
                    }
                    None => (refused, What::Refusal(unreadable(provider, status))),
                };
                let failure = Why::Refused(refused);
                self.tried(since, Recorded::UpstreamError, Some(status), None);
                pass.record(routing.now(), Outcome::of(&failure, owner));
                return Ok(Came::Failed(failure, what));
            }
            // A file that is not there says nothing of who keeps files.
            let of_request = !self.operation.is_held() && matches!(status, 403 | 404);
            let outcome = if of_request { Outcome::Answered } else { Outcome::of(&failure, owner) };
            pass.record(routing.now(), outcome);
            self.tried(since, Recorded::UpstreamError, Some(status), None);
            // The last of several: the client gets the one that tells it most.
            let verdict = if may_be_followed(status, owner) { Verdict::Next } else { Verdict::GiveUp };
            if step.has_failed && !kept.wants(Merit::of(&failure, &step.tried, verdict)) {
                return Ok(Came::Failed(failure, What::Refusal(unreadable(provider, status))));
            }
        } else {
            if view.can_wait() && whole.is_none() && step.has_next && step.tried.repeatable {
                let (opened, held) = match open(client, &mut source, &mut view, step.idle, routing.commit_after).await {
                    Ok(opened) => opened,
                    Err(Interrupted::Gone) => {
                        self.tried(since, Recorded::ClientDisconnected, Some(status), None);
                        return Err(Failure::Gone);
                    }
                    Err(_) => return Err(Refusal::shutting_down().into()),
                };
                let (failure, outcome, why, what) = match opened {
                    Opened::Good => {
                        beginning = held;
                        (None, Recorded::Success, None, None)
                    }
                    Opened::Failed(data) => {
                        let failure = Why::FirstEvent(Refused::of_event(&data, &signals));
                        let (head, body) = match to {
                            Some(to) => {
                                let error = translation::upstream_error(0, &data, signals.retry_after);
                                translated::refused(to, &answer, &error, &self.id)
                            }
                            None => (answer.clone(), held.bytes()),
                        };
                        let what = What::Answer(Box::new(head), body);
                        (
                            Some(failure),
                            Recorded::UpstreamError,
                            Some("its stream began with an error".into()),
                            Some(what),
                        )
                    }
                    Opened::Empty(why) => {
                        let message = format!("the provider `{}` gave no answer: {why}", provider.name);
                        let what = What::Refusal(Refusal::new(ErrorKind::BadGateway, message));
                        (Some(Why::Empty), Recorded::Truncated, Some(why), Some(what))
                    }
                    Opened::Silent => {
                        let message = format!("the provider `{}` sent nothing for {:?}", provider.name, step.idle);
                        let what = What::Refusal(Refusal::new(ErrorKind::UpstreamTimeout, message));
                        (Some(Why::Late), Recorded::Timeout, Some("it sent nothing for too long".into()), Some(what))
                    }
                };
                if let (Some(failure), Some(what)) = (failure, what) {
                    self.tried(since, outcome, Some(status), why.as_deref());
                    pass.record(routing.now(), Outcome::of(&failure, owner));
                    return Ok(Came::Failed(failure, what));
                }
            }
            let first = self.stream.then(|| since.elapsed());
            pass.record(routing.now(), Outcome::Good { first });
            self.tried(since, Recorded::Success, Some(status), None);
        }
        let final_word = status >= 400 && step.has_failed && !kept.may_pass() && !may_pass(status);
        let slot = step.target.slot;
        let turn = turn.take().expect("a target is won once");
        let lost = step.request.lost.clone();
        let won = Won {
            provider,
            slot,
            answer,
            upstream_id,
            source,
            view,
            whole,
            lost,
            beginning,
            pass,
            final_word,
            _turn: turn,
        };
        Ok(Came::Won(Box::new(won)))
    }

    /// The body of an answer that has to be at hand as a whole; `None`: it is too long, too slow or broken.
    async fn collected<S: Io>(
        &mut self,
        client: &mut Client<S>,
        step: &Step<'_, '_>,
        source: &mut UpstreamBody,
        most: usize,
        within: Duration,
    ) -> Result<Option<Bytes>, Failure> {
        let collected = {
            let mut collect = std::pin::pin!(source.collect(most));
            let deadline = Instant::now() + step.idle.min(within);
            client.watch(deadline, |cx| collect.as_mut().poll(cx)).await
        };
        match collected {
            Ok(body) => Ok(body.ok().flatten().map(Bytes::from)),
            Err(Interrupted::Deadline) => Ok(None),
            Err(Interrupted::Gone) => {
                self.tried(step.since, Recorded::ClientDisconnected, None, None);
                Err(Failure::Gone)
            }
            Err(Interrupted::Cut) => Err(Refusal::shutting_down().into()),
        }
    }
}

/// Whether an error of this status could be over by itself.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

fn no_turn(provider: &Provider) -> Refusal {
    let message = format!(
        "as many requests as may (`maxConcurrent`, `maxQueued`) are at the provider `{}`: try again",
        provider.name
    );
    Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(1))
}

fn unreadable(provider: &Provider, status: u16) -> Refusal {
    Refusal::new(ErrorKind::BadGateway, format!("the provider `{}` answered with status {status}", provider.name))
}

/// What the client is told where it is our key that is not accepted, or our money that is gone.
fn our_trouble(provider: &Provider, status: u16) -> Refusal {
    let what = match status {
        401 => "does not accept the gateway's key (401): store another one",
        403 => "forbids this to the gateway's key (403)",
        _ => "has no money left for the gateway's key",
    };
    Refusal::new(ErrorKind::BadGateway, format!("the provider `{}` {what}", provider.name)).retry(Retry::Never)
}
