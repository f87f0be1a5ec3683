//! The second half of an exchange: an answer on its way down to its client, and what follows from how it ended.

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use http1::RequestHead;
use ledger::record::Id;
use tokio::time::Instant;
use wire::meter::Meter;

use crate::client::Client;
use crate::client::inbound::{HeldBody, Operation};
use crate::gateway::{Gateway, Worker};
use crate::health::{Outcome, Slot, Why};
use crate::io::Io;
use crate::recorder::{Owner, Tape};
use crate::relay::{Ended, Framed, IDLE, Limits, Paused, Relay, Report, View};
use crate::retry::{self, Refused};
use crate::route::{Facts, Measured, Purse, SessionKey};
use crate::server::account::{self, Closing, First, Said};
use crate::server::answer::{Told, answer_head, framed, is_json, keeps};
use crate::server::caller::Means;
use crate::server::continued::Broken;
use crate::server::dispatch::{Asked, Won};
use crate::server::exchange::{Exchange, Failure};
use crate::server::request::Fitted;
use crate::server::step::Passing;
use crate::server::translated::Asks;

/// What is left of the first half once there is an answer.
pub(super) struct Carried<'g> {
    pub(super) won: Box<Won<'g>>,
    /// Whose bodies are kept, if they are.
    pub(super) owner: Option<Owner>,
    /// How long the answer may be silent and how long it may take, where a rule says so.
    pub(super) idle: Option<Duration>,
    pub(super) max_stream: Option<Duration>,
    /// The session, and the bytes of its prompt.
    pub(super) session: Option<(SessionKey, u64)>,
    /// What it could be gone on with.
    pub(super) again: Option<Box<Again>>,
}

/// What the same target could be asked with once more.
pub(super) struct Again {
    pub(super) body: HeldBody,
    pub(super) means: Means,
    pub(super) purse: Purse,
    /// Where the caller's key belongs.
    pub(super) home: Option<u16>,
    /// Any number.
    pub(super) chance: u64,
    /// The rule that matched.
    pub(super) rule: Option<usize>,
}

/// An answer that broke off: what its record, its archive and its client have of it.
struct Rest {
    paused: Box<Paused>,
    said: Option<Said>,
    tape: Option<Tape>,
    framed: Framed,
    limits: Limits,
}

/// What an answer that ended badly after it had begun says of its target.
fn failed(ended: &Ended, error: Option<&str>, slot: Slot) -> Option<Outcome> {
    match ended {
        Ended::Truncated(_) => Some(Outcome::Failed(Why::Broken)),
        Ended::Timeout(IDLE) => Some(Outcome::Failed(Why::Late)),
        Ended::UpstreamError => {
            let refused = Refused::of_word(error?);
            let owner = if slot == Slot::Client { retry::Owner::Client } else { retry::Owner::Ours };
            Some(Outcome::of(&retry::Failure::FirstEvent(refused), owner))
        }
        _ => None,
    }
}

impl Exchange {
    /// Hands the answer down. How it ended, and whether its connection can carry another.
    pub(super) async fn down<S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &Rc<Worker>,
        carried: Carried<'_>,
    ) -> Result<(Ended, bool), Failure> {
        let Carried { mut won, owner, idle, max_stream, session, again } = carried;
        let gateway = &*worker.gateway;
        let routing = &gateway.routing;
        let provider = won.provider;
        let from = Instant::now();
        self.status = won.passing.answer.status;
        self.first_byte = Some(from - self.started);
        if self.operation == Operation::Batches && head.method() != "HEAD" && is_json(&won.passing.answer) {
            let Passing { answer, source, .. } = *won.passing;
            return Box::pin(self.batch_object(client, head, worker, provider, answer, source)).await;
        }
        let tape = owner.zip(gateway.recorder.bodies());
        let tape = tape.and_then(|(owner, bodies)| bodies.answer(owner, &won.passing.answer));
        if let Some(whole) = won.passing.whole.take() {
            let (body, metered) = *whole;
            gateway.recorder.live().whole(Id(self.key), &body);
            if let Some(mut tape) = tape {
                tape.keep(&body);
            }
            return Box::pin(self.whole(client, head, worker, *won, body, metered)).await;
        }
        let framed = framed(head, &won.passing.answer, &won.passing.view);
        let keep_alive = keeps(client, head, worker) && framed != Framed::Close;
        self.put_head(client, head, &won, framed, keep_alive);
        let limits = Limits {
            from,
            ping: gateway.ping,
            idle: idle.unwrap_or(provider.timeouts.idle),
            end: self.started + max_stream.unwrap_or(provider.timeouts.max_stream),
        };
        let passing = &mut *won.passing;
        if let (View::Events(events), true) = (&mut passing.view, again.is_some()) {
            events.follow(&passing.beginning);
        }
        let (heard, said) = ((self.status, self.first_byte), Some(mem::take(&mut passing.said)));
        let mut closing = Closing::new(&self.id, self.draft.as_mut(), self.started, heard, said, tape);
        closing.first = Some(First { pass: &mut won.pass, routing, since: won.since });
        let view = mem::replace(&mut passing.view, View::Plain);
        let mut relay = Relay::new(client, &mut passing.source, framed, view, limits, &self.id, &mut closing);
        relay.begin_with(mem::take(&mut passing.beginning));
        let mut report = relay.run().await;
        drop(relay);
        let mut seen = closing.seen.take();
        if let (Some(paused), Some(again)) = (report.paused.take(), again) {
            let Closing { tape, said, .. } = closing;
            let rest = Rest { paused, said, tape, framed, limits };
            // In memory of its own: hardly any answer breaks off.
            (report, seen) = Box::pin(self.resume(client, head, worker, &mut won, *again, rest)).await;
        }
        let seen = seen.unwrap_or_default();
        gateway.counters.relayed(report.payload);
        if let Some(failed) = failed(&report.ended, seen.error.as_deref(), won.slot) {
            won.pass.record(routing.now(), failed);
        } else if report.ended == Ended::Complete && !won.pass.is_judged() {
            won.pass.record(routing.now(), Outcome::Good { first: None });
        }
        if let Some((session, prompt_bytes)) = session
            && seen.prompt > 0
            && self.operation == Operation::Generation
        {
            let there = (provider.place, won.slot);
            let seen = Measured { prompt: (prompt_bytes, seen.prompt), warm: seen.warm, keeps: seen.keeps };
            routing.affinity.measure(routing.now(), session, there, &seen);
        }
        if !report.aborted {
            let Passing { answer, source, .. } = *won.passing;
            // It holds the memory that the next answer over this connection is read into.
            drop(answer);
            source.release(&worker.pool, &provider.base.origin);
        } else if framed == Framed::Close {
            client.reset();
        }
        Ok((report.ended, keep_alive && !report.aborted))
    }

    /// Puts the head of an answer where it is written from.
    fn put_head<S: Io>(
        &self,
        client: &mut Client<S>,
        head: &RequestHead,
        won: &Won<'_>,
        framed: Framed,
        keep_alive: bool,
    ) {
        let lost = won.lost.to_string();
        let told = Told { keep_alive, lost: &lost, ..self.told(&won.provider.name, won.final_word) };
        let Passing { answer, view, .. } = &*won.passing;
        client.out.push(answer_head(answer, view, framed, &told, head.method() == "HEAD"));
    }

    /// An answer broke off: its target is asked for the rest, and its client gets that, or is told of the break.
    async fn resume<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        head: &RequestHead,
        worker: &'g Rc<Worker>,
        won: &mut Won<'g>,
        again: Again,
        rest: Rest,
    ) -> (Report, Option<account::Measured>) {
        let gateway: &'g Gateway = &worker.gateway;
        let routing = &gateway.routing;
        let Rest { paused, said, tape, framed, limits } = rest;
        let Again { body, means, purse, home, chance, rule } = again;
        self.broke_off(&paused.why);
        won.pass.record(routing.now(), Outcome::Failed(Why::Broken));
        let (id, protocol, fitted) = (self.id.clone(), self.protocol, Fitted::default());
        let asks = Asks { protocol, id: &id, on_loss: gateway.on_loss, home, fitted: &fitted };
        let text = Some((&body.text[..], &body.envelope));
        let facts = Facts::of(head, text, protocol, self.operation, routing.rules.guess());
        let asked = Asked { head, asks, body: Some(&body), facts: &facts, means: &means, purse: &purse, chance };
        let (so_far, Paused { why, seam, view, .. }) = (paused.so_far(), *paused);
        let before = view.metered().map_or_else(|| Meter::default().metered(), |metered| *metered);
        let joined = self.go_on(client, worker, &asked, rule, won, Broken { seam, before }).await;
        let heard = (self.status, self.first_byte);
        let mut closing = Closing::new(&self.id, self.draft.as_mut(), self.started, heard, said, tape);
        closing.is_over = joined.is_none();
        let (view, beginning) = match joined {
            Some((view, beginning)) => (view, Some(beginning)),
            None => (view, None),
        };
        let limits = Limits { from: Instant::now(), ..limits };
        let relay = Relay::new(client, &mut won.passing.source, framed, view, limits, &self.id, &mut closing);
        let mut relay = relay.after(so_far.0, so_far.1);
        match beginning {
            Some(beginning) => relay.join(&beginning),
            None => relay.break_off(why),
        }
        let report = relay.run().await;
        drop(relay);
        (report, closing.seen)
    }
}
