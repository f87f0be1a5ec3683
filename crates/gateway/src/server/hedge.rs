//! A second target beside the first, where that one does not begin its stream: the one that begins first answers, the
//! other is cancelled in the same moment.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::cap::Turn;
use crate::client::{Client, Interrupted, Phases};
use crate::health::{Entry, Outcome, Pass};
use crate::io::Io;
use crate::provider::Provider;
use crate::retry::{Kept, Tried, Verdict, judge};
use crate::route::{Plan, Target};
use crate::server::dispatch::{Payer, What, ready};
use crate::server::exchange::{Exchange, Failure};
use crate::server::request::Outgoing;
use crate::server::step::{Came, Judged, Step, Stopped};
use crate::translation;

/// Longer than anything here takes: each attempt keeps its own time.
const EVER: Duration = Duration::from_secs(366 * 86_400);

/// When a second target is asked, and which.
pub(super) struct Hedge<'h, 'p> {
    pub(super) after: Duration,
    pub(super) plan: &'h Plan<'p>,
    /// The place of the next target.
    pub(super) at: usize,
}

/// In place of a client, whom several attempts at a time cannot share: it says nothing, takes everything, and never goes.
/// Whoever waits for the attempts watches the real one.
#[derive(Debug)]
struct Nobody;

impl AsyncRead for Nobody {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Nobody {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What an attempt under way comes to.
type Judgement = Result<Judged, Stopped>;
type Running<'r> = Pin<Box<dyn Future<Output = Judgement> + 'r>>;

/// An attempt that can be stopped.
struct Runner<'r> {
    running: Option<Running<'r>>,
    stop: CancellationToken,
}

impl<'r> Runner<'r> {
    /// Begins it, with nobody for a client.
    fn new<'g: 'r, S: Io>(
        client: &Client<S>,
        step: &'r Step<'_, '_, 'g>,
        kept: &'r RefCell<Kept<(&'g Provider, What)>>,
        pass: &'r Pass<'g>,
    ) -> Self {
        let phases = step.worker.phases.child();
        let stop = phases.cut.clone();
        let mut nobody = Client::new(Nobody, client.peer.clone(), &Phases { ..phases }, |_| {});
        let running: Running<'r> = Box::pin(async move { step.judged(&mut nobody, kept, pass).await });
        Self { running: Some(running), stop }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Judgement> {
        let Some(running) = &mut self.running else { return Poll::Pending };
        let judged = std::task::ready!(running.as_mut().poll(cx));
        self.running = None;
        Poll::Ready(judged)
    }

    /// Ends it at once, with its connection; what it had come to.
    async fn stop(mut self) -> Judgement {
        self.stop.cancel();
        // Wherever it waits, it waits for this as well.
        let judged = std::future::poll_fn(|cx| match self.poll(cx) {
            Poll::Ready(judged) => Poll::Ready(judged),
            Poll::Pending => Poll::Ready(Err(Failure::Gone.into())),
        });
        judged.await
    }
}

/// An attempt whose client has the head of a stream of events already: what keeps that alive goes to it meanwhile.
pub(super) async fn kept_alive<'g, S: Io>(
    client: &mut Client<S>,
    step: &Step<'_, '_, 'g>,
    kept: &RefCell<Kept<(&'g Provider, What)>>,
    pass: &Pass<'g>,
    every: Duration,
) -> Judgement {
    let mut runner = Runner::new(client, step, kept, pass);
    let mut next = Instant::now() + every;
    let judged = std::future::poll_fn(|cx| {
        if let Poll::Ready(judged) = runner.poll(cx) {
            return Poll::Ready(Ok(judged));
        }
        loop {
            if let Poll::Ready(Err(_)) = client.out.poll_flush(&mut client.io, cx) {
                return Poll::Ready(Err(Interrupted::Gone));
            }
            match std::task::ready!(client.poll_interrupted(next, cx)) {
                Interrupted::Deadline => next = Instant::now() + every,
                why => return Poll::Ready(Err(why)),
            }
            // One who takes nothing is sent nothing more.
            if client.out.is_empty() {
                client.out.push_chunk([translation::ping(step.asked.asks.protocol)]);
            }
        }
    });
    match judged.await {
        Ok(judged) => judged,
        Err(why) => left(runner.stop().await, why),
    }
}

/// The second target, as far as it is ready.
struct Second<'p, 'g> {
    target: Target<'p>,
    provider: &'g Provider,
    request: Outgoing,
    payer: Payer,
    pass: Pass<'g>,
    turn: Turn<'g>,
    /// The place of the one behind it.
    next: usize,
}

/// How two attempts side by side ended.
struct Race {
    first: Judgement,
    second: Judgement,
    end: End,
}

/// Which of them answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Second,
    /// Both have failed.
    Neither,
    /// Nobody waits for an answer any more.
    Left(Interrupted),
}

/// Whether this is the last word, whatever another attempt comes to.
fn decides(judged: &Judgement, step: &Step<'_, '_, '_>) -> bool {
    let Ok(Judged::Fails(fault)) = judged else { return true };
    // Whether it would be tried again is not asked here, and costs nothing.
    let tried = Tried { limit: 0, ..step.tried };
    judge(&fault.failure, &tried, &step.worker.gateway.routing.budget, 0) == Verdict::GiveUp
}

/// Whether this answers. What speaks against the request may be only this target's opinion.
fn answers(judged: &Judgement) -> bool {
    matches!(judged, Ok(Judged::Passes(passing)) if passing.answer.status < 400)
}

/// Whether it came to nothing by itself.
fn failed(judged: &Judgement) -> bool {
    judged.is_ok() && !answers(judged)
}

/// An attempt that was under way when nobody waited for it any more.
fn left(judged: Judgement, why: Interrupted) -> Judgement {
    match judged {
        Ok(Judged::Fails(fault)) => Ok(Judged::Fails(fault)),
        Ok(Judged::Passes(passing)) => {
            Err(Stopped { why: why.into(), status: Some(passing.answer.status), used: passing.view.metered() })
        }
        Err(stopped) => Err(Stopped { why: why.into(), ..stopped }),
    }
}

/// Waits for both, until it is clear which one answers, and stops the other.
async fn race<S: Io>(
    client: &mut Client<S>,
    mut first: Runner<'_>,
    mut second: Runner<'_>,
    step: &Step<'_, '_, '_>,
) -> Race {
    let (mut of_first, mut of_second) = (None, None);
    let end = loop {
        let came = client.watch(Instant::now() + EVER, |cx| match first.poll(cx) {
            Poll::Ready(judged) => Poll::Ready((End::First, judged)),
            Poll::Pending => second.poll(cx).map(|judged| (End::Second, judged)),
        });
        match came.await {
            Ok((End::First, judged)) => {
                let decides = decides(&judged, step);
                of_first = Some(judged);
                if decides {
                    break End::First;
                }
            }
            Ok((_, judged)) => {
                let answers = answers(&judged);
                of_second = Some(judged);
                if answers {
                    break End::Second;
                }
            }
            Err(why) => break End::Left(why),
        }
        if of_first.is_some() && of_second.is_some() {
            break End::Neither;
        }
    };
    debug!(id = %step.asked.asks.id, first = %step.provider.name, ?end, "two attempts side by side");
    let first = match of_first {
        Some(judged) => judged,
        None => first.stop().await,
    };
    let second = match of_second {
        Some(judged) => judged,
        None => second.stop().await,
    };
    Race { first, second, end }
}

impl Exchange {
    /// An attempt at a target that may get a second one beside it. With what it came to comes the place of the target
    /// that is next.
    pub(super) async fn hedged<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        step: &Step<'_, '_, 'g>,
        kept: &RefCell<Kept<(&'g Provider, What)>>,
        mut pass: Pass<'g>,
        turn: &mut Option<Turn<'g>>,
        hedge: &Hedge<'_, '_>,
    ) -> Result<(Came<'g>, usize), Failure> {
        let mut first = Runner::new(client, step, kept, &pass);
        let alone = client.watch(step.since + hedge.after, |cx| first.poll(cx)).await;
        let second = match alone {
            Err(Interrupted::Deadline) if !step.trial.begun.get() => self.second(step, hedge),
            _ => None,
        };
        let Some(Second { target, provider, request, payer, pass: other_pass, turn: other_turn, next }) = second else {
            let judged = match alone {
                Err(Interrupted::Deadline) => client.watch(Instant::now() + EVER, |cx| first.poll(cx)).await,
                other => other,
            };
            let judged = match judged {
                Ok(judged) => {
                    drop(first);
                    judged
                }
                Err(why) => left(first.stop().await, why),
            };
            return Ok((self.concluded(step, kept, judged, pass, turn)?, hedge.at));
        };
        self.attempts += 1;
        let mut other = self.at(step.worker, step.asked, (provider, &target), &request, hedge.plan, Instant::now());
        (other.has_next, other.has_failed, other.payer) = (true, true, payer);
        let second = Runner::new(client, &other, kept, &other_pass);
        let Race { first, second, end } = race(client, first, second, step).await;
        let mut other_turn = Some(other_turn);
        let came = match end {
            End::First => {
                if failed(&second) {
                    self.goes_on_with(&other);
                    self.offer(&other, kept, second, other_pass, &mut other_turn)?;
                } else {
                    self.lost(&other, second);
                }
                self.goes_on_with(step);
                self.concluded(step, kept, first, pass, turn)?
            }
            End::Second => {
                if failed(&first) {
                    self.offer(step, kept, first, pass, turn)?;
                } else {
                    self.lost(step, first);
                    pass.record(step.worker.gateway.routing.now(), Outcome::Overtaken);
                }
                self.goes_on_with(&other);
                self.concluded(&other, kept, second, other_pass, &mut other_turn)?
            }
            End::Neither => {
                // What the second one says against the request is not kept: it was asked beside, and may be wrong.
                self.goes_on_with(&other);
                self.offer(&other, kept, second, other_pass, &mut other_turn)?;
                self.goes_on_with(step);
                self.concluded(step, kept, first, pass, turn)?
            }
            End::Left(why) => {
                self.goes_on_with(&other);
                let _ = self.concluded(&other, kept, left(second, why), other_pass, &mut other_turn);
                self.goes_on_with(step);
                self.concluded(step, kept, left(first, why), pass, turn)?
            }
        };
        Ok((came, next))
    }

    /// The next target that can be asked at once.
    fn second<'p, 'g>(&self, step: &Step<'_, '_, 'g>, hedge: &Hedge<'_, 'p>) -> Option<Second<'p, 'g>> {
        let (gateway, asked, plan) = (&step.worker.gateway, step.asked, hedge.plan);
        let routing = &gateway.routing;
        for (at, target) in plan.targets.iter().enumerate().skip(hedge.at) {
            let Some(provider) = gateway.provider(target.provider) else { continue };
            let Ok((request, payer)) = ready(provider, asked, self.operation, target, &plan.changes) else { continue };
            // Whom something has to be asked first is not quick.
            let way = provider.way(asked.asks.protocol);
            if request.is_idle || provider.has_to_tell_context(way, target.model) {
                continue;
            }
            let Some(turn) = provider.cap.try_enter() else { continue };
            let place = target.place(asked.facts);
            let Some(pass) = routing.health.enter(routing.now(), &place, asked.facts, Entry::IfWell) else { continue };
            // All requests together have a tenth as many further tries, so that a bad hour does not double the load.
            if !routing.budget.withdraw() {
                return None;
            }
            return Some(Second { target: *target, provider, request, payer, pass, turn, next: at + 1 });
        }
        None
    }

    /// One of two failed by itself: its answer is the client's if nothing better comes.
    fn offer<'g>(
        &mut self,
        step: &Step<'_, '_, 'g>,
        kept: &RefCell<Kept<(&'g Provider, What)>>,
        judged: Judgement,
        pass: Pass<'g>,
        turn: &mut Option<Turn<'g>>,
    ) -> Result<(), Failure> {
        if let Came::Failed(failure, what) = self.concluded(step, kept, judged, pass, turn)? {
            kept.borrow_mut().offer(&failure, &step.tried, Verdict::Next, || (step.provider, what));
        }
        Ok(())
    }

    /// One of two was stopped because the other one answers.
    fn lost(&mut self, step: &Step<'_, '_, '_>, judged: Judgement) {
        let (status, used) = match judged {
            Ok(Judged::Passes(passing)) => (Some(passing.answer.status), passing.view.metered()),
            Ok(Judged::Fails(fault)) => (fault.status, fault.used),
            Err(stopped) => (stopped.status, stopped.used),
        };
        self.overtaken(step, status, used);
    }
}
