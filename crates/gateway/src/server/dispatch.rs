//! The targets of a request, one after the other, until one gives an answer that its client can have.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use http1::{Framing, RequestHead, ResponseHead};
use ledger::record::{Fingerprint, Id};
use tokio::time::Instant;
use tracing::{debug, warn};
use wire::loss::Losses;

use crate::cap::Turn;
use crate::client::inbound::{HeldBody, Operation};
use crate::client::{Client, Interrupted};
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Gateway, Worker};
use crate::health::{Entry, Pass, Slot};
use crate::io::Io;
use crate::provider::Provider;
use crate::retry::{Failure as Why, Kept, Merit, Owner, Tried, UsedUp, Verdict, judge, same_target_limit};
use crate::route::{Cause, Changes, Facts, Plan, Purse, Target};
use crate::server::account::Said;
use crate::server::caller::Means;
use crate::server::exchange::{Exchange, Failure};
use crate::server::hedge::Hedge;
use crate::server::request::{Outgoing, Unfit, credential, prepare};
use crate::server::step::{Came, Passing, Step, Trial};
use crate::server::translated::{self, Asks};
use crate::translation::Answer;

/// No request waits longer for its turn at a provider while there is another one to ask.
const TURN: Duration = Duration::from_secs(10);

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
    pub(super) passing: Box<Passing>,
    /// What of the request a translation did not carry.
    pub(super) lost: Losses,
    pub(super) pass: Pass<'g>,
    /// When the attempt began.
    pub(super) since: Instant,
    /// The model that was asked for, and whether the body had to be changed to say so; where it may be asked again.
    pub(super) asked_for: Option<(Box<str>, bool)>,
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
    Answer(Box<Collected>),
    /// What the client is told.
    Refusal(Refusal),
}

/// A failed answer that is at hand, as its client may get it.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) head: ResponseHead,
    pub(super) body: Bytes,
    /// What the upstream's own head said.
    pub(super) said: Said,
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
            Self::Won(won) => Some((won.provider, won.passing.answer.status)),
            Self::Lost(lost) => match &lost.what {
                What::Answer(answer) => Some((lost.provider, answer.said.status)),
                What::Refusal(_) => None,
            },
            Self::Idle(..) => None,
        }
    }
}

/// Why a target was passed over without having been asked, as its client is told where nobody else is left.
fn passed_over(provider: &Provider, target: &Target<'_>, unfit: Unfit) -> Refusal {
    match unfit {
        Unfit::Refused(why) => Refusal::of(&why),
        Unfit::NoRoom => {
            let message = "the gateway holds as many request bodies as it may (`server.maxHeldMb`): try again";
            return Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(1));
        }
        Unfit::Model => Refusal::new(
            ErrorKind::InvalidRequest,
            format!(
                "the provider `{}` would be asked for the model `{}`, which cannot be written into this body: send it as \
                 a JSON object, in no coding or in one that can be read",
                provider.name, target.model
            ),
        ),
    }
    .retry(Retry::Never)
}

/// Whose key pays: its fingerprint, and whether that of a subscription.
pub(super) type Payer = Option<(Fingerprint, bool)>;

/// The request for a target, and who pays for it; or what the client is told where there is nobody else.
pub(super) fn ready(
    provider: &Provider,
    asked: &Asked<'_, '_>,
    operation: Operation,
    target: &Target<'_>,
    changes: &Changes<'_>,
) -> Result<(Outgoing, Payer), Refusal> {
    let home = asked.purse.own.map(|own| own.home);
    let way = provider.way(asked.asks.protocol);
    let credential = credential(provider, way, target.slot, asked.means, home).map_err(|()| no_key(provider))?;
    let (asks, head, body) = (asked.asks, asked.head, asked.body);
    let request = prepare(asks, head, operation, body, provider, target, changes, credential.as_ref());
    let request = request.map_err(|unfit| passed_over(provider, target, unfit))?;
    Ok((request, credential.map(|credential| (credential.fingerprint, credential.notional))))
}

impl Exchange {
    /// Tries the targets of a plan.
    pub(super) async fn dispatch<'p, 'g: 'p, S: Io>(
        &mut self,
        client: &mut Client<S>,
        worker: &'g Worker,
        asked: &Asked<'p, '_>,
        plan: Plan<'p>,
    ) -> Result<Dispatched<'g>, Failure> {
        let gateway = &*worker.gateway;
        let routing = &gateway.routing;
        let mut plan = plan;
        let kept: RefCell<Kept<(&'g Provider, What)>> = RefCell::default();
        let mut full = None;
        let mut passed = None;
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
            if let Some(body) = asked.body {
                let way = provider.way(asked.asks.protocol);
                if way.protocol != asked.asks.protocol {
                    Box::pin(translated::learn(client, worker, asked.asks, provider, way, &target, body)).await?;
                }
            }
            let (request, payer) = match ready(provider, asked, self.operation, &target, &plan.changes) {
                Ok(ready) => ready,
                Err(refusal) => {
                    passed.get_or_insert(refusal);
                    continue;
                }
            };
            if !request.losses.is_empty() {
                debug!(id = %self.id, provider = %provider.name, lost = %request.losses, "not carried");
            }
            self.lose(&request.losses);
            if let (true, Some(answer)) = (request.is_idle, &request.answer) {
                return Ok(Dispatched::Idle(provider, answer.clone(), request.losses.to_string()));
            }
            // Where somebody else can be asked, nobody waits long.
            let has_next = at < plan.targets.len();
            let wait = if has_next { provider.timeouts.head.min(TURN) } else { provider.timeouts.head };
            let came = Instant::now();
            let (turn, since) = match provider.cap.try_enter() {
                Some(turn) => (turn, came),
                None => match self.turn(client, provider, came + wait).await? {
                    Some(turn) => (turn, Instant::now()),
                    None => {
                        full.get_or_insert(provider);
                        continue;
                    }
                },
            };
            // A second one beside it is asked for streams alone: what comes whole would be paid twice.
            let hedge_after = routing.hedge_after.filter(|_| self.stream && asked.body.is_some());
            let payers = hedge_after.and_then(|_| payer.clone());
            self.goes_to(provider, &target, payer);
            let mut step = self.at(worker, asked, (provider, &target), &request, &plan, since);
            (step.queued, step.payer) = (step.since - came, payers);
            let replaces_subscription = step.tried.replaces_subscription;
            let mut turn = Some(turn);
            loop {
                let place = target.place(asked.facts);
                let Some(pass) = routing.health.enter(routing.time(step.since), &place, asked.facts, entry) else {
                    break;
                };
                step.trial = Trial::default();
                (step.has_next, step.has_failed) = (at < plan.targets.len(), self.attempts > 0);
                self.attempts += 1;
                let came = match hedge_after.filter(|_| step.has_next) {
                    None => self.step(client, &step, &kept, pass, &mut turn).await?,
                    Some(after) => {
                        let hedge = Hedge { after, plan: &plan, at };
                        // In memory of its own: most requests have no use for it.
                        let race = Box::pin(self.hedged(client, &step, &kept, pass, &mut turn, &hedge));
                        let (came, next) = race.await?;
                        at = next;
                        came
                    }
                };
                let (failure, what) = match came {
                    Came::Won(won) => {
                        if let Some(session) = plan.session
                            && won.passing.answer.status < 400
                        {
                            routing.affinity.remember(routing.now(), session, won.provider.place, won.slot);
                        }
                        return Ok(Dispatched::Won(won));
                    }
                    Came::Failed(failure, what) => (failure, what),
                };
                let verdict = judge(&failure, &step.tried, &routing.budget, asked.chance);
                kept.borrow_mut().offer(&failure, &step.tried, verdict, || (provider, what));
                if replaces_subscription && !self.replaced && self.is_used_up(gateway, asked, &failure) {
                    match self.instead(gateway, asked) {
                        Some(instead) => (plan, at) = (instead, 0),
                        // Nobody else can serve.
                        None => at = plan.targets.len(),
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
                            Err(why) => return Err(why.into()),
                        }
                        step.since = Instant::now();
                    }
                    Verdict::Next => break,
                    Verdict::GiveUp => {
                        at = plan.targets.len();
                        break;
                    }
                }
            }
        }
        self.last_word(gateway, asked, kept.into_inner(), passed, full)
    }

    /// Who serves now that the caller's subscription is used up, if the rules name somebody.
    fn instead<'p>(&mut self, gateway: &'p Gateway, asked: &Asked<'p, '_>) -> Option<Plan<'p>> {
        let view = gateway.view(asked.chance);
        let (instead, route) = gateway.routing.rules.plan_noted(asked.facts, asked.purse, &view);
        self.goes_elsewhere(route);
        let instead = instead.ok().filter(|instead| instead.cause == Cause::Subscription)?;
        self.replaced = true;
        Some(instead)
    }

    /// What a client gets whom no target had an answer for: the most useful of the failed ones, or why nobody was asked.
    fn last_word<'g>(
        &self,
        gateway: &'g Gateway,
        asked: &Asked<'_, '_>,
        kept: Kept<(&'g Provider, What)>,
        passed: Option<Refusal>,
        full: Option<&Provider>,
    ) -> Result<Dispatched<'g>, Failure> {
        let final_word = self.attempts > 1 && !kept.may_pass();
        let Some((merit, (provider, what))) = kept.take() else {
            let refusal = match (passed, full) {
                (Some(refusal), _) => refusal,
                (None, Some(provider)) => no_turn(provider),
                (None, None) => gateway.routing.rules.refusal(asked.facts, asked.purse, &gateway.view(asked.chance)),
            };
            return Err(refusal.into());
        };
        let what = match what {
            // An empty purse is told in the provider's words: clients know what to do about it.
            What::Answer(answer) if merit == Merit::Ours && matches!(answer.said.status, 401 | 403) => {
                What::Refusal(our_trouble(provider, answer.said.status))
            }
            What::Refusal(refusal) if final_word => What::Refusal(refusal.retry(Retry::Never)),
            what => what,
        };
        Ok(Dispatched::Lost(Box::new(Lost { provider, what, final_word })))
    }

    /// An attempt at a target that begins at this moment.
    pub(super) fn at<'s, 'f, 'g>(
        &self,
        worker: &'g Worker,
        asked: &'s Asked<'s, 'f>,
        (provider, target): (&'g Provider, &'s Target<'s>),
        request: &'s Outgoing,
        plan: &Plan<'_>,
        since: Instant,
    ) -> Step<'s, 'f, 'g> {
        let owner = if target.slot == Slot::Client { Owner::Client } else { Owner::Ours };
        let replaces_subscription = worker.gateway.routing.rules.replaces_subscriptions() && owner == Owner::Client;
        let repeatable = asked.body.is_some() || asked.head.framing == Framing::None;
        let limit = same_target_limit(asked.head, provider.max_retries);
        let (timeouts, changes) = (&provider.timeouts, &plan.changes);
        Step {
            worker,
            asked,
            provider,
            target,
            request,
            patience: self.patience(asked.head, changes.timeout.unwrap_or(timeouts.head)),
            idle: changes.idle_timeout.unwrap_or(timeouts.idle),
            end: self.started + changes.max_stream.unwrap_or(timeouts.max_stream),
            has_next: false,
            has_failed: false,
            tried: Tried { owner, stream: self.stream, repeatable, again: 0, limit, replaces_subscription },
            since,
            queued: Duration::ZERO,
            payer: None,
            id: Id(self.key),
            operation: self.operation,
            trial: Trial::default(),
        }
    }

    /// Waits for the provider's turn; `None`: too many wait already, or it did not come in time.
    async fn turn<'g, S: Io>(
        &self,
        client: &mut Client<S>,
        provider: &'g Provider,
        deadline: Instant,
    ) -> Result<Option<Turn<'g>>, Failure> {
        let mut entering = std::pin::pin!(provider.cap.enter());
        match client.watch(deadline, |cx| entering.as_mut().poll(cx)).await {
            Ok(turn) => Ok(turn.ok()),
            Err(Interrupted::Deadline) => {
                provider.cap.gave_up();
                Ok(None)
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Whether the caller's subscription is used up; if so, that is remembered.
    fn is_used_up(&self, gateway: &Gateway, asked: &Asked<'_, '_>, failure: &Why) -> bool {
        let (Why::Refused(refused) | Why::FirstEvent(refused)) = failure else { return false };
        let (UsedUp::Subscription(wait), Some(own)) = (refused.used_up, asked.purse.own) else { return false };
        let routing = &gateway.routing;
        // Several requests may find out at the same moment: each of them goes elsewhere, and one tells.
        if routing.subscriptions.until(routing.now(), own.id).is_some() {
            return true;
        }
        let key = asked.means.own.as_ref().map(|own| Fingerprint::of(own.key.expose()));
        let of = (&*self.provider, key.as_ref().map_or("", Fingerprint::as_str));
        routing.subscriptions.used_up(routing.now(), own.id, &of, wait);
        let seconds = wait.map(|wait| wait.as_secs());
        warn!(id = %self.id, provider = %self.provider, seconds, "a caller's subscription is used up: another provider serves");
        true
    }
}

fn no_key(provider: &Provider) -> Refusal {
    let why = provider.why_no_key().unwrap_or_else(|| "there is none any more".into());
    Refusal::new(ErrorKind::Authentication, format!("there is no key for the provider `{}`: {why}", provider.name))
        .retry(Retry::Never)
}

fn no_turn(provider: &Provider) -> Refusal {
    let message = format!(
        "as many requests as may (`maxConcurrent`, `maxQueued`) are at the provider `{}`: try again",
        provider.name
    );
    Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(1))
}

/// What the client is told where it is our key that is not accepted.
pub(super) fn our_trouble(provider: &Provider, status: u16) -> Refusal {
    let what = match status {
        401 => "does not accept the gateway's key (401): store another one",
        _ => "forbids this to the gateway's key (403)",
    };
    Refusal::new(ErrorKind::BadGateway, format!("the provider `{}` {what}", provider.name)).retry(Retry::Never)
}
