//! One attempt at one target, judged: what succeeds is the relay's, what fails is recorded here.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http1::ResponseHead;
use ledger::record::{Fingerprint, Id, Outcome as Recorded};
use tokio::time::Instant;
use tracing::warn;
use wire::error::ApiError;
use wire::meter::{Meter, Metered};

use crate::cap::Turn;
use crate::client::inbound::{Claim, Operation};
use crate::client::{Client, Interrupted};
use crate::coding;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Worker;
use crate::health::Why::Money;
use crate::health::{Outcome, Pass};
use crate::io::Io;
use crate::provider::Provider;
use crate::relay::{Beginning, Opened, View, open};
use crate::retry::{Failure as Why, Kept, Merit, Owner, QUICK, Refused, Tried, Verdict};
use crate::route::Target;
use crate::server::account::{self, Said, is_simulated};
use crate::server::answer::view;
use crate::server::attempt::Try;
use crate::server::dispatch::{Asked, Collected, What, Won, our_trouble};
use crate::server::exchange::{Exchange, Failure};
use crate::server::request::Outgoing;
use crate::server::translated::{self, WHOLE};
use crate::signals::Signals;
use crate::translation::{self, Answer};
use crate::upstream::UpstreamBody;

/// Bytes of a failed answer that are kept while other targets are asked.
const KEPT: usize = 1024 * 1024;
/// How long the body of a failed answer may take.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// One target at hand.
pub(super) struct Step<'s, 'f, 'g> {
    pub(super) worker: &'g Worker,
    pub(super) asked: &'s Asked<'s, 'f>,
    pub(super) provider: &'g Provider,
    pub(super) target: &'s Target<'s>,
    pub(super) request: &'s Outgoing,
    /// How long the head may take.
    pub(super) patience: Duration,
    /// How long the answer may be silent.
    pub(super) idle: Duration,
    /// When the longest answer ends.
    pub(super) end: Instant,
    /// Whether another target is left.
    pub(super) has_next: bool,
    /// Whether there were attempts before.
    pub(super) has_failed: bool,
    pub(super) tried: Tried,
    /// When it begins: now, for a pooled connection is judged by it.
    pub(super) since: Instant,
    /// How long it waited for its turn before.
    pub(super) queued: Duration,
    /// Whose key pays, where several may be asked at a time: its fingerprint, and whether that of a subscription.
    pub(super) payer: Option<(Fingerprint, bool)>,
    /// Of the exchange, and what it asks for.
    pub(super) id: Id,
    pub(super) operation: Operation,
    pub(super) trial: Trial,
}

/// What is known of an attempt while it is under way.
#[derive(Debug, Default)]
pub(super) struct Trial {
    /// Whether its request went up and no answer has come to it yet: what it used is not known.
    pub(super) unanswered: Cell<bool>,
    /// Whether the head of its answer says that it is simulated.
    pub(super) simulated: Cell<bool>,
    /// Whether its answer has begun: with more than pings and comments, where it is a stream.
    pub(super) begun: Cell<bool>,
}

/// What an attempt came to.
pub(super) enum Came<'g> {
    /// The client gets it as it comes.
    Won(Box<Won<'g>>),
    /// It failed.
    Failed(Why, What),
}

/// An attempt before it is recorded.
pub(super) enum Judged {
    Passes(Box<Passing>),
    Fails(Box<Fault>),
}

/// An answer on its way, from its head on. It stays where it is until its client has it.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) answer: ResponseHead,
    pub(super) source: UpstreamBody,
    /// What the upstream's own head said.
    pub(super) said: Said,
    pub(super) view: View,
    /// The answer where it was translated as a whole, and what it came to.
    pub(super) whole: Option<Box<(Bytes, Metered)>>,
    /// The room of that.
    room: Option<Claim>,
    /// What was read and held back.
    pub(super) beginning: Beginning,
    /// What it says of its target; `None`: that shows when its first content comes.
    of_target: Option<Outcome>,
}

/// A failed attempt.
pub(super) struct Fault {
    pub(super) failure: Why,
    what: What,
    /// As its record says it.
    outcome: Recorded,
    pub(super) status: Option<u16>,
    error: Option<Cow<'static, str>>,
    /// What it says of its target, where that is not what the failure says.
    of_target: Option<Outcome>,
    /// What it came to until it failed, where the upstream had accepted it.
    pub(super) used: Option<Box<Metered>>,
}

impl Fault {
    fn new(failure: Why, what: What, outcome: Recorded) -> Self {
        Self { failure, what, outcome, status: None, error: None, of_target: None, used: None }
    }

    fn status(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    fn error(self, error: impl Into<Cow<'static, str>>) -> Self {
        Self { error: Some(error.into()), ..self }
    }

    fn used(self, used: Option<Box<Metered>>) -> Self {
        Self { used, ..self }
    }
}

impl Passing {
    /// An answer of which nobody has looked at more than that its head is there.
    pub(super) fn new(answer: ResponseHead, source: UpstreamBody) -> Self {
        let (said, view, beginning) = (Said::default(), View::Plain, Beginning::default());
        Self { answer, source, said, view, whole: None, room: None, beginning, of_target: None }
    }

    /// Its stream, and what was read of that.
    pub(super) fn stream(self: Box<Self>) -> (UpstreamBody, View, Beginning) {
        (self.source, self.view, self.beginning)
    }
}

impl From<Fault> for Judged {
    fn from(fault: Fault) -> Self {
        Self::Fails(Box::new(fault))
    }
}

/// An attempt whose end nobody waits for any more.
pub(super) struct Stopped {
    pub(super) why: Failure,
    pub(super) status: Option<u16>,
    /// What it had come to, where the upstream had accepted it.
    pub(super) used: Option<Box<Metered>>,
}

impl From<Failure> for Stopped {
    fn from(why: Failure) -> Self {
        Self { why, status: None, used: None }
    }
}

/// Why a body is not at hand as a whole.
pub(super) enum NotWhole {
    Late,
    TooLong,
    /// As many are kept as may be.
    NoRoom,
    Broken(String),
}

/// What a client is told whose answer has no room.
pub(super) fn no_room() -> Refusal {
    let message = "the gateway keeps as many whole answers as it may (`server.maxHeldMb`): try again";
    Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(1))
}

/// Of an answer that was accepted and of which nothing else is known.
fn unknown() -> Option<Box<Metered>> {
    Some(Box::new(Meter::default().metered()))
}

/// The time in milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Whether a failed answer of this status may be followed by another attempt, so that its body is worth reading first.
fn may_be_followed(status: u16, owner: Owner) -> bool {
    matches!(status, 404 | 429 | 500..) || may_be_ours(status, owner)
}

/// Whether an error of this status may speak of our key, or of our money; some call the want of it a bad request.
fn may_be_ours(status: u16, owner: Owner) -> bool {
    owner == Owner::Ours && matches!(status, 400..=403 | 429)
}

/// Whether an error of this status could be over by itself.
fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

fn unreadable(provider: &Provider, status: u16) -> Refusal {
    Refusal::new(ErrorKind::BadGateway, format!("the provider `{}` answered with status {status}", provider.name))
}

impl Step<'_, '_, '_> {
    fn owner(&self) -> Owner {
        self.tried.owner
    }

    fn gave_nothing(&self, why: &str) -> What {
        let message = format!("the provider `{}` gave no answer: {why}", self.provider.name);
        What::Refusal(Refusal::new(ErrorKind::BadGateway, message))
    }

    fn was_silent(&self) -> What {
        let provider = &self.provider.name;
        let message = match Instant::now() < self.end {
            true => format!("the provider `{provider}` sent nothing for {:?}", self.idle),
            false => format!("the answer of the provider `{provider}` took longer than `maxStreamSecs`"),
        };
        What::Refusal(Refusal::new(ErrorKind::UpstreamTimeout, message))
    }

    /// An upstream's error in the client's protocol; what it says of a key is for the key's owner.
    fn told(&self, to: &Answer, theirs: &ResponseHead, error: ApiError, id: &str, said: Said) -> Box<Collected> {
        let error = if self.owner() == Owner::Ours { error.of_our_credential() } else { error };
        let (head, body) = translated::refused(to, theirs, &error, id);
        Box::new(Collected { head, body, said })
    }
}

impl Exchange {
    /// One attempt at one target.
    pub(super) async fn step<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        step: &Step<'_, '_, 'g>,
        kept: &RefCell<Kept<(&'g Provider, What)>>,
        pass: Pass<'g>,
        turn: &mut Option<Turn<'g>>,
    ) -> Result<Came<'g>, Failure> {
        let judged = step.judged(client, kept, &pass).await;
        self.concluded(step, kept, judged, pass, turn)
    }

    /// What an attempt came to. This is the one place where it is recorded and counted for or against its target.
    pub(super) fn concluded<'g>(
        &mut self,
        step: &Step<'_, '_, 'g>,
        kept: &RefCell<Kept<(&'g Provider, What)>>,
        judged: Result<Judged, Stopped>,
        mut pass: Pass<'g>,
        turn: &mut Option<Turn<'g>>,
    ) -> Result<Came<'g>, Failure> {
        let routing = &step.worker.gateway.routing;
        let now = Instant::now();
        self.begin_try();
        self.unanswered = step.trial.unanswered.get();
        self.is_simulated(step.trial.simulated.get());
        match judged {
            Ok(Judged::Passes(passing)) => {
                self.unanswered = false;
                let status = passing.answer.status;
                let outcome = if status >= 400 { Recorded::UpstreamError } else { Recorded::Success };
                self.tried(step, outcome, Some(status), None, now);
                if let Some(of_target) = passing.of_target {
                    pass.record(routing.time(now), of_target);
                }
                Ok(Came::Won(Box::new(Won {
                    provider: step.provider,
                    slot: step.target.slot,
                    passing,
                    lost: step.request.losses.clone(),
                    pass,
                    since: step.since,
                    asked_for: (routing.continue_on_break && step.tried.stream)
                        .then(|| (step.target.model.into(), step.target.renames)),
                    final_word: status >= 400 && step.has_failed && !kept.borrow().may_pass() && !may_pass(status),
                    _turn: turn.take().expect("a target is won once"),
                })))
            }
            Ok(Judged::Fails(fault)) => {
                let Fault { failure, what, outcome, status, error, of_target, used } = *fault;
                self.used(used);
                self.tried(step, outcome, status, error.as_deref(), now);
                let of_target = of_target.unwrap_or_else(|| Outcome::of(&failure, step.owner()));
                if let Outcome::KeyRefused(why) = of_target
                    && self.operation != Operation::CountTokens
                    && !pass.is_key_refused()
                {
                    let (provider, key) = (&step.provider.name, step.target.slot);
                    match why {
                        Money => {
                            warn!(id = %self.id, %provider, %key, "the account of a stored key has no money left: the key rests, `cco providers` says for how long")
                        }
                        _ => {
                            warn!(id = %self.id, %provider, %key, "a stored key is not accepted (401) and rests: `cco providers` says for how long, `cco credentials store` replaces it")
                        }
                    }
                }
                pass.record(routing.time(now), of_target);
                Ok(Came::Failed(failure, what))
            }
            Err(Stopped { why, status, used }) => {
                self.used(used);
                let (outcome, cause) = match &why {
                    Failure::Gone => (Recorded::ClientDisconnected, None),
                    Failure::Refused(refusal) => match refusal.kind {
                        ErrorKind::Unavailable => (Recorded::Truncated, Some("the gateway was stopped")),
                        kind => (account::refused(kind), Some(&*refusal.message)),
                    },
                };
                self.tried(step, outcome, status, cause, now);
                Err(why)
            }
        }
    }
}

impl Step<'_, '_, '_> {
    /// The attempt itself. Nothing of it is recorded yet: that is for [`Exchange::concluded`].
    pub(super) async fn judged<S: Io>(
        &self,
        client: &mut Client<S>,
        kept: &RefCell<Kept<(&Provider, What)>>,
        pass: &Pass<'_>,
    ) -> Result<Judged, Stopped> {
        let (head, worker, provider) = (self.asked.head, self.worker, self.provider);
        let mut passing = match self.attempt(client).await? {
            Try::Answer(passing) => passing,
            Try::Failed(failure, refusal, why) => {
                let outcome = if failure == Why::Late { Recorded::Timeout } else { Recorded::UpstreamError };
                return Ok(Fault::new(failure, What::Refusal(refusal), outcome).error(why).into());
            }
        };
        // A body that goes up while it arrives may have been read to its end by now.
        client.unread &= passing.source.sending().0.is_uploading();
        let unix_ms = unix_ms();
        let signals = Signals::read(passing.answer.fields(), unix_ms);
        pass.heed(|| worker.gateway.routing.now(), &signals);
        self.trial.simulated.set(is_simulated(provider, &passing.answer));
        passing.said = Said::of(&passing.answer, unix_ms);
        let status = passing.answer.status;
        // What was refused has used nothing.
        self.trial.unanswered.set(self.trial.unanswered.get() && status < 300);
        // What is not the way of nearly all requests is in memory of its own: the others do not carry its room about.
        let view = match &self.request.answer {
            _ if status >= 400 => return Box::pin(self.refused(client, kept, passing, signals)).await,
            _ if status >= 300 && status != 304 => return Ok(redirected(provider, status).into()),
            _ if self.is_page(&passing.answer) => {
                self.trial.unanswered.set(false);
                return Ok(page(provider, status).into());
            }
            None => view(self.operation, head, &passing.answer, self.tried.stream, &worker.gateway.kept)
                .speaking(self.asked.asks.protocol),
            Some(to) => match translated::view(to, &passing.answer) {
                Some(view) => {
                    let fields = translated::fields(to, &passing.answer);
                    passing.answer = translated::head(status, to.content_type(), &fields, None);
                    view
                }
                None => return Box::pin(self.translated_whole(client, to, passing, signals)).await,
            },
        };
        passing.view = view.tapped(worker.gateway.recorder.live(), self.id, self.asked.asks.protocol);
        if passing.view.can_wait() && self.has_next && self.tried.repeatable {
            return Box::pin(self.held_back(client, passing, signals)).await;
        }
        Ok(self.passes(passing))
    }

    /// An answer that its client gets. A stream that is not held back is known to be good, and how fast it was, when its
    /// first content comes.
    fn passes(&self, mut passing: Box<Passing>) -> Judged {
        let was_held = passing.beginning.is_something();
        let first = passing.beginning.first_content().map(|at| at.duration_since(self.since));
        passing.of_target = (was_held || !passing.view.can_wait()).then_some(Outcome::Good { first });
        Judged::Passes(passing)
    }

    /// Whether a page for people came in place of an answer, from a proxy or a wrong address. Where nobody else can be
    /// asked its client gets it.
    fn is_page(&self, answer: &ResponseHead) -> bool {
        let is_html = |kind: &[u8]| kind.get(..9).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/html"));
        self.has_next && self.asked.body.is_some() && answer.get("content-type").is_some_and(is_html)
    }

    /// An answer that says no. Its body is read first where another attempt may follow, where it is to be translated, or
    /// where it could speak of a key of ours; else the client gets it as it comes.
    async fn refused<S: Io>(
        &self,
        client: &mut Client<S>,
        kept: &RefCell<Kept<(&Provider, What)>>,
        mut passing: Box<Passing>,
        signals: Signals,
    ) -> Result<Judged, Stopped> {
        let (provider, owner, to) = (self.provider, self.owner(), self.request.answer.as_ref());
        let kept_room = &self.worker.gateway.kept;
        let status = passing.answer.status;
        let fault = |refused, what| Fault::new(Why::Refused(refused), what, Recorded::UpstreamError).status(status);
        let refused = Refused::of(status, &signals, b"");
        let quick = refused.retry_after.is_some_and(|wait| wait <= QUICK);
        let again = quick && self.tried.again < self.tried.limit;
        // Whether it is our trouble shows in the body alone.
        let ours = may_be_ours(status, owner);
        let replaced = status == 429 && self.tried.replaces_subscription;
        let follows = (self.has_next || again || replaced) && self.tried.repeatable && may_be_followed(status, owner);
        let has_body = self.asked.head.method() != "HEAD";
        if has_body && (follows || ours || to.is_some()) {
            let Passing { answer, mut source, said, .. } = *passing;
            let until = Instant::now() + KEPT_WITHIN;
            let collected = collected(client, &mut source, &mut kept_room.share(), KEPT, self.idle, until).await;
            let collected = collected.map_err(|why| Stopped { why: why.into(), status: Some(status), used: None })?;
            client.unread &= source.sending().0.is_uploading();
            let Ok(body) = collected else {
                return Ok(fault(refused, What::Refusal(unreadable(provider, status))).into());
            };
            let said_plain = coding::plain(answer.get("content-encoding"), &body, KEPT);
            let refused = Refused::of(status, &signals, &said_plain);
            source.release(&self.worker.pool, &provider.base.origin);
            let answer = match to {
                Some(to) => {
                    let error = translation::upstream_error(status, &said_plain, signals.retry_after);
                    self.told(to, &answer, error, self.asked.asks.id, said)
                }
                None => Box::new(Collected { head: answer, body, said }),
            };
            return Ok(fault(refused, What::Answer(answer)).into());
        }
        if ours && matches!(status, 401 | 403) {
            return Ok(fault(refused, What::Refusal(our_trouble(provider, status))).into());
        }
        let failure = Why::Refused(refused);
        // A file that is not there says nothing of who keeps files.
        let of_request = !self.operation.is_held() && matches!(status, 403 | 404);
        let of_target = if of_request { Outcome::Answered } else { Outcome::of(&failure, owner) };
        // The last of several: the client gets the one that tells it most.
        let verdict = if may_be_followed(status, owner) { Verdict::Next } else { Verdict::GiveUp };
        if self.has_failed && !kept.borrow().wants(Merit::of(&failure, &self.tried, verdict)) {
            let what = What::Refusal(unreadable(provider, status));
            return Ok(Fault { of_target: Some(of_target), ..fault(refused, what) }.into());
        }
        if to.is_none() {
            passing.view = view(self.operation, self.asked.head, &passing.answer, self.tried.stream, kept_room)
                .speaking(self.asked.asks.protocol);
        }
        passing.of_target = Some(of_target);
        Ok(Judged::Passes(passing))
    }

    /// A stream that was accepted while another target is left: it is held back until it is clear what it begins with.
    async fn held_back<S: Io>(
        &self,
        client: &mut Client<S>,
        mut passing: Box<Passing>,
        signals: Signals,
    ) -> Result<Judged, Stopped> {
        let (status, commit_after) = (passing.said.status, self.worker.gateway.routing.commit_after);
        let Passing { source, view, .. } = &mut *passing;
        let opened = open(client, source, view, self.idle, commit_after, &self.trial.begun).await;
        let fault = match opened {
            Err(why) => return Err(Stopped { why: why.into(), status: Some(status), used: passing.view.metered() }),
            Ok((Opened::Good, beginning)) => {
                passing.beginning = beginning;
                return Ok(self.passes(passing));
            }
            Ok((Opened::Failed(data), held)) => {
                let failure = Why::FirstEvent(Refused::of_event(&data, &signals));
                let (head, said) = (passing.answer.clone(), passing.said.clone());
                let answer = match &self.request.answer {
                    Some(to) => {
                        let error = translation::upstream_error(0, &data, signals.retry_after);
                        self.told(to, &head, error, self.asked.asks.id, said)
                    }
                    None => Box::new(Collected { head, body: held.bytes(), said }),
                };
                let fault = Fault::new(failure, What::Answer(answer), Recorded::UpstreamError);
                fault.error("its stream began with an error")
            }
            Ok((Opened::Empty(why), _)) => {
                Fault::new(Why::Empty, self.gave_nothing(&why), Recorded::Truncated).error(why)
            }
            Ok((Opened::Silent, _)) => {
                let fault = Fault::new(Why::Late, self.was_silent(), Recorded::Timeout);
                fault.error("it sent nothing for too long")
            }
        };
        Ok(fault.status(status).used(passing.view.metered()).into())
    }

    /// An answer in another protocol that does not stream: it is translated once it is whole.
    async fn translated_whole<S: Io>(
        &self,
        client: &mut Client<S>,
        to: &Answer,
        mut passing: Box<Passing>,
        signals: Signals,
    ) -> Result<Judged, Stopped> {
        let status = passing.said.status;
        let mut room = self.worker.gateway.kept.share();
        let collected = collected(client, &mut passing.source, &mut room, WHOLE, self.idle, self.end).await;
        let collected = collected.map_err(|why| Stopped { why: why.into(), status: Some(status), used: unknown() })?;
        let body = match collected {
            Ok(body) => body,
            Err(NotWhole::Late) => {
                let fault = Fault::new(Why::Late, self.was_silent(), Recorded::Timeout).status(status);
                return Ok(fault.error("its answer did not come in time").used(unknown()).into());
            }
            // It was generated and paid: nobody else is asked for it.
            Err(NotWhole::NoRoom) => return Ok(crowded(status).into()),
            Err(why) => {
                let why = match why {
                    NotWhole::Broken(why) => why,
                    _ => format!("its answer is longer than {} MB", WHOLE >> 20),
                };
                let fault = Fault::new(Why::Broken, self.gave_nothing(&why), Recorded::Truncated).status(status);
                return Ok(fault.error(why).used(unknown()).into());
            }
        };
        match translated::whole(to, &passing.answer, &body) {
            Ok((body, _)) if !room.grow(body.len()) => Ok(crowded(status).into()),
            Ok((body, metered)) => {
                let fields = translated::fields(to, &passing.answer);
                passing.answer = translated::head(status, to.content_type(), &fields, Some(body.len()));
                passing.of_target = Some(Outcome::Good { first: self.tried.stream.then(|| self.since.elapsed()) });
                (passing.whole, passing.room) = (Some(Box::new((body, metered))), Some(room));
                Ok(Judged::Passes(passing))
            }
            Err(error) => {
                // Some say within a good answer that they failed; what cannot be read may have been one.
                let used = unknown().filter(|_| error.kind == ErrorKind::BadGateway);
                self.trial.unanswered.set(false);
                let failure = Why::FirstEvent(Refused::of_error(&error, &signals));
                let told = self.told(to, &passing.answer, error, self.asked.asks.id, passing.said);
                let what = What::Answer(told);
                let fault = Fault::new(failure, what, Recorded::UpstreamError).status(status);
                Ok(fault.error("its answer is an error").used(used).into())
            }
        }
    }
}

/// The body of an answer that has to be at hand as a whole, in its share of the room; no silence in it is longer than
/// `idle`.
pub(super) async fn collected<S: Io>(
    client: &mut Client<S>,
    source: &mut UpstreamBody,
    room: &mut Claim,
    most: usize,
    idle: Duration,
    until: Instant,
) -> Result<Result<Bytes, NotWhole>, Interrupted> {
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let mut silent = Instant::now() + idle;
    let collected = std::future::poll_fn(|cx| {
        while let Poll::Ready(read) = source.poll_read(&mut pieces, cx) {
            let end = match read {
                Ok(end) => end,
                Err(why) => return Poll::Ready(Ok(Err(NotWhole::Broken(why.to_string())))),
            };
            silent = Instant::now() + idle;
            let more = pieces.iter().map(Bytes::len).sum::<usize>();
            if whole.len() + more > most {
                return Poll::Ready(Ok(Err(NotWhole::TooLong)));
            }
            if !room.grow(more) {
                return Poll::Ready(Ok(Err(NotWhole::NoRoom)));
            }
            pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
            if end {
                return Poll::Ready(Ok(Ok(())));
            }
        }
        // An upstream may answer before it has read everything, and wait for the rest.
        let (sender, connection) = source.sending();
        let _ = sender.poll_write(&mut connection.io, cx);
        client.poll_interrupted(silent.min(until), cx).map(|why| match why {
            Interrupted::Deadline => Ok(Err(NotWhole::Late)),
            why => Err(why),
        })
    });
    Ok(collected.await?.map(|()| whole.into()))
}

/// A good answer for which there is no room: that says nothing of its target.
fn crowded(status: u16) -> Fault {
    let fault = Fault::new(Why::Late, What::Refusal(no_room()), Recorded::Rejected).status(status);
    let fault = fault.error("there is no room for its answer").used(unknown());
    Fault { of_target: Some(Outcome::Answered), ..fault }
}

/// A page for people says nothing of a model's.
fn page(provider: &Provider, status: u16) -> Fault {
    let message =
        format!("the provider `{}` answered with a web page in place of an answer: check its `baseUrl`", provider.name);
    let refusal = Refusal::new(ErrorKind::BadGateway, message);
    let fault = Fault::new(Why::Broken, What::Refusal(refusal), Recorded::UpstreamError).status(status);
    fault.error("a web page in place of an answer")
}

/// A redirect is never followed: the key would go with it.
fn redirected(provider: &Provider, status: u16) -> Fault {
    let message = format!(
        "the provider `{}` answered with a redirect ({status}), which is not followed: check its `baseUrl`",
        provider.name
    );
    let refusal = Refusal::new(ErrorKind::BadGateway, message).retry(Retry::Never);
    let fault = Fault::new(Why::Broken, What::Refusal(refusal), Recorded::UpstreamError).status(status);
    fault.error("a redirect, which is not followed")
}
