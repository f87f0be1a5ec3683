//! What an exchange leaves in the ledger: the facts as they become known, and the outcome before its client knows it.

use std::time::Duration;

use http1::{Framing, RequestHead, ResponseHead};
use ledger::limits::Limits;
use ledger::price::Billed;
use ledger::record::{Attempt, Fingerprint, Id, Operation, Outcome, Parties, Record, Start};
use ledger::redact;
use tokio::time::Instant;
use tracing::debug;
use wire::loss::Losses;
use wire::meter::{self, Counts, Meter, Metered};
use wire::protocol::Protocol;
use wire::sse::Splitter;
use wire::usage::Usage;

use crate::client::inbound::{self, HeldBody};
use crate::client::peer::Peer;
use crate::error::ErrorKind;
use crate::gateway::{Gateway, Routing};
use crate::headers::SIMULATED;
use crate::health::{self, Pass};
use crate::net;
use crate::party::Party;
use crate::provider::Provider;
use crate::recorder::{Draft, Owner, Settling, Tape, now_us};
use crate::relay::{Ended, Gate, Seen, Settle};
use crate::route::Target;
use crate::server::caller::Means;
use crate::server::exchange::Exchange;
use crate::server::limits;
use crate::server::step::Step;

impl Exchange {
    pub(super) fn record(&mut self) -> Option<&mut Record> {
        self.draft.as_mut()?.record()
    }

    /// The record begins: somebody asks for something of an upstream's.
    pub(super) fn open(&mut self, head: &RequestHead, gateway: &Gateway) {
        let parties = Parties {
            protocol: self.protocol.as_str().into(),
            endpoint: redact::path(head.path()).into(),
            ..Parties::default()
        };
        let operation = self.operation.recorded();
        let start = Start { id: Id(self.key), operation, started_us: now_us(), parties };
        self.draft = Some(Draft::new(gateway.recorder.clone(), start));
    }

    /// Who calls goes into the record.
    pub(super) fn know_caller(&mut self, peer: &Peer, means: &Means) {
        if let Some(record) = self.record() {
            record.parties.caller = Some(peer.name(means.by_token).into());
        }
    }

    /// Who asks goes into the record, without what must not be kept.
    pub(super) fn know_party(&mut self, party: &Party<'_>) {
        let Some(draft) = self.draft.as_mut() else { return };
        let Some(record) = draft.record() else { return };
        let parties = &mut record.parties;
        parties.session = party.session.as_deref().map(Box::from);
        parties.agent = party.agent.map(Box::from);
        parties.parent_agent = party.parent_agent.map(Box::from);
        parties.agent_type = party.agent_type().map(Box::from);
        parties.project = party.project.as_deref().map(Box::from);
        parties.run = party.run.map(Box::from);
        draft.clean();
    }

    /// What the body says goes into the record.
    pub(super) fn know(&mut self, head: &RequestHead, body: Option<&HeldBody>) {
        let (stream, model) = (self.stream, self.model.as_deref().map(Box::from));
        let Some(record) = self.record() else { return };
        record.parties.stream = stream;
        record.parties.model.clone_from(&model);
        record.parties.requested_model = model;
        if let Some(body) = body {
            record.bytes_in = body.bytes.len() as u64;
        } else if let Framing::Length(n) = head.framing {
            record.bytes_in = n;
        }
    }

    /// Of several tries at a time it is this one that the record goes on with.
    pub(super) fn goes_on_with(&mut self, step: &Step<'_, '_, '_>) {
        self.goes_to(step.provider, step.target, step.payer.clone());
        self.lose(&step.request.losses);
    }

    /// Whom it goes to next goes into the record, and whose key pays: its fingerprint, and whether that of a subscription.
    pub(super) fn goes_to(&mut self, provider: &Provider, target: &Target<'_>, payer: Option<(Fingerprint, bool)>) {
        self.provider.clone_from(&provider.name);
        let Some(draft) = self.draft.as_mut() else { return };
        draft.bill(&provider.billed_as);
        let Some(record) = draft.record() else { return };
        let parties = &mut record.parties;
        parties.provider = Some(provider.name.as_str().into());
        parties.model = (!target.model.is_empty()).then(|| target.model.into());
        parties.simulated = false;
        (record.credential, parties.notional) = match payer {
            Some((fingerprint, notional)) => (Some(fingerprint), notional),
            None => (None, false),
        };
    }

    /// Whether what answers is the simulator goes into the record.
    pub(super) fn is_simulated(&mut self, simulated: bool) {
        if let Some(record) = self.record() {
            record.parties.simulated = simulated;
        }
    }

    /// Whose bodies go to the archive.
    pub(super) fn owner(&mut self) -> Option<Owner> {
        self.record().map(|record| Owner { id: record.id, session: record.parties.session.clone() })
    }

    /// What a translation does not carry goes into the record.
    pub(super) fn lose(&mut self, losses: &Losses) {
        if let Some(record) = self.record() {
            record.losses = told(losses).collect();
        }
    }

    /// Another try begins. What an earlier one used cannot be priced together with what this one will: that it is there
    /// stays known.
    pub(super) fn begin_try(&mut self) {
        let Some(record) = self.record() else { return };
        record.usage_unknown |= record.usage.take().is_some();
        (record.estimated_output, record.stop_reason, record.error) = (None, None, None);
    }

    /// What a try came to that ended before its client had anything of it; `None`: it was never accepted.
    pub(super) fn used(&mut self, metered: Option<Box<Metered>>) {
        let Some(metered) = metered else { return };
        self.unanswered = false;
        let is_nothing = matches!(&metered.usage, Counts::Known(usage) if *usage == Usage::default());
        let is_generation = self.operation == inbound::Operation::Generation;
        if let Some(record) = self.record().filter(|_| is_generation && !is_nothing) {
            measure(record, metered, 200);
        }
    }

    /// What a whole answer came to goes into the record.
    pub(super) fn came_to(&mut self, metered: Metered, said: Said, bytes: u64) {
        let (status, first_byte) = (self.status, self.first_byte);
        left_out(&self.id, &metered.lost);
        let Some(record) = self.record() else { return };
        record.bytes_out = bytes;
        said.told(record);
        record.first_byte_us = first_byte.map(micros);
        measure(record, Box::new(metered), status);
    }

    /// The answer broke off, and somebody may go on with it: the try that it was ended here.
    pub(super) fn broke_off(&mut self, why: &str) {
        let elapsed = micros(self.started.elapsed());
        let Some(last) = self.record().and_then(|record| record.attempts.last_mut()) else { return };
        last.outcome = Outcome::Truncated;
        last.duration_us = elapsed.saturating_sub(last.started_us);
        last.error = Some(why.into());
    }

    /// Another decision takes the place of the first: both are kept.
    pub(super) fn goes_elsewhere(&mut self, route: Option<Box<str>>) {
        let (Some(record), Some(route)) = (self.record(), route) else { return };
        record.route = Some(match record.route.take() {
            Some(before) => format!("{before}\n{route}").into(),
            None => route,
        });
    }

    /// One try is over, at this moment.
    pub(super) fn tried(
        &mut self,
        step: &Step<'_, '_, '_>,
        outcome: Outcome,
        status: Option<u16>,
        error: Option<&str>,
        at: Instant,
    ) {
        let attempt = self.attempt_of(step, outcome, status, at);
        let Some(record) = self.record() else { return };
        record.attempts.push(Attempt { error: error.map(Box::from), ..attempt });
    }

    fn attempt_of(&self, step: &Step<'_, '_, '_>, outcome: Outcome, status: Option<u16>, at: Instant) -> Attempt {
        let model = step.target.model;
        Attempt {
            model: (!model.is_empty()).then(|| model.into()),
            status,
            started_us: micros(step.since - self.started),
            duration_us: micros(at - step.since),
            queued_us: if step.queued >= Duration::from_millis(1) { micros(step.queued) } else { 0 },
            ..Attempt::new(step.provider.name.as_str().into(), outcome)
        }
    }

    /// Another try beside this one was quicker. What it has used is paid all the same: it is kept with it, and its cost
    /// is in that of the exchange.
    pub(super) fn overtaken(&mut self, step: &Step<'_, '_, '_>, status: Option<u16>, used: Option<Box<Metered>>) {
        let mut attempt = self.attempt_of(step, Outcome::HedgeLost, status, Instant::now());
        let model = used.as_ref().and_then(|used| used.model.clone()).or(attempt.model.clone());
        let (estimated, usage) = match used {
            Some(used) => (used.estimated_output(), Some(used.usage)),
            None => (None, None),
        };
        let notional = step.payer.as_ref().is_some_and(|(_, notional)| *notional);
        let mut unknown = step.trial.unanswered.get();
        match usage {
            Some(Counts::Known(usage)) => {
                let billed_as = &step.provider.billed_as;
                let recorder = &step.worker.gateway.recorder;
                let at = now_us() / 1_000_000;
                let billed = model.as_deref().map(|model| Billed {
                    provider: billed_as,
                    model,
                    at,
                    usage: &usage,
                    estimated_output: estimated,
                    notional,
                });
                attempt.cost = billed.and_then(|billed| recorder.cost_beside(&billed));
                attempt.usage = Some(Box::new(usage));
            }
            Some(Counts::Unknown) => unknown = true,
            None => {}
        }
        let is_generation = self.operation == inbound::Operation::Generation;
        let Some(record) = self.record() else { return };
        record.usage_unknown |= unknown && is_generation;
        record.attempts.push(attempt);
    }

    /// All targets have failed, and this answer of one of them is the client's.
    pub(super) fn gave_up(&mut self, provider: &Provider, status: u16, body: &[u8], said: Said) {
        let is_stream = (200..300).contains(&status);
        let Some(record) = self.record() else { return };
        record.parties.provider = Some(provider.name.as_str().into());
        record.bytes_out = body.len() as u64;
        said.told(record);
        let metered = if is_stream {
            let (mut meter, mut splitter) = (Meter::default(), Splitter::new(body.len()));
            splitter.push(body, |event| meter.event(&event));
            meter.metered()
        } else {
            meter::whole(body)
        };
        measure(record, Box::new(metered), status);
    }

    /// Ends the record of an exchange that has no answer of an upstream's.
    pub(super) fn settle(&mut self, outcome: Outcome, error: Option<&str>) -> Option<Settling> {
        let (status, started) = (self.status, self.started);
        let unknown = self.unanswered && self.operation == inbound::Operation::Generation;
        self.draft.as_mut()?.settle(|record| {
            record.outcome = outcome;
            record.usage_unknown |= unknown && record.usage.is_none();
            record.status = (status != 0).then_some(status);
            record.duration_us = Some(micros(started.elapsed()));
            if error.is_some() {
                record.error = error.map(Box::from);
            }
        })
    }
}

/// Whether the head of an answer says that it is simulated. It is believed of nobody beyond this machine: what costs
/// money is over there.
pub(super) fn is_simulated(provider: &Provider, answer: &ResponseHead) -> bool {
    answer.get(SIMULATED).is_some() && net::names_loopback(&provider.base.origin.host)
}

/// How an exchange ended, and why where that is not plain.
pub(super) fn outcome(ended: &Ended, status: u16) -> (Outcome, Option<&str>) {
    match ended {
        Ended::Complete if status >= 400 => (Outcome::UpstreamError, None),
        Ended::Complete => (Outcome::Success, None),
        Ended::UpstreamError => (Outcome::UpstreamError, None),
        Ended::Truncated(why) => (Outcome::Truncated, Some(why)),
        Ended::ClientGone => (Outcome::ClientDisconnected, None),
        Ended::ClientStalled => (Outcome::ClientDisconnected, Some("it took nothing for too long")),
        Ended::Timeout(what) => (Outcome::Timeout, Some(what)),
        Ended::Shutdown => (Outcome::Truncated, Some("the gateway was stopped")),
    }
}

/// How an exchange ended that got an answer of our own.
pub(super) fn refused(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::BadGateway => Outcome::UpstreamError,
        ErrorKind::UpstreamTimeout => Outcome::Timeout,
        _ => Outcome::Rejected,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What the head of an upstream's answer said that the record keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Said {
    /// Its status.
    pub(super) status: u16,
    /// The id that the upstream gave it.
    upstream_id: Option<Box<str>>,
    /// What it says of the provider's limits.
    limits: Option<Limits>,
}

impl Said {
    /// Of this head, which came at this time.
    pub(super) fn of(answer: &ResponseHead, unix_ms: i64) -> Self {
        let id = answer.get("request-id").or(answer.get("x-request-id"));
        let id = id.and_then(|id| std::str::from_utf8(id).ok()).map(Box::from);
        let fields = answer.fields().filter_map(|field| Some((std::str::from_utf8(field.name).ok()?, field.value)));
        // Those that are told under other names are kept under the same.
        let limits = Limits::of(fields).or_else(|| {
            let named = limits::fields(Protocol::AnthropicMessages, answer, unix_ms);
            Limits::of(named.iter().map(|(name, value)| (*name, value.as_bytes())))
        });
        Self { status: answer.status, upstream_id: id, limits }
    }

    /// Puts it into the record.
    fn told(self, record: &mut Record) {
        (record.upstream_request_id, record.limits) = (self.upstream_id, self.limits);
    }
}

/// What is not carried, as the record keeps it.
fn told(losses: &Losses) -> impl Iterator<Item = Box<str>> {
    losses.iter().map(|loss| loss.to_string().into())
}

/// What of an answer is not carried goes into the log.
fn left_out(id: &str, lost: &Losses) {
    if !lost.is_empty() {
        debug!(id, %lost, "not carried of the answer");
    }
}

/// Puts what the relay saw into the record, before the client can know the end.
pub(super) struct Closing<'a, 'p> {
    pub(super) id: &'a str,
    pub(super) draft: Option<&'a mut Draft>,
    pub(super) status: u16,
    pub(super) started: Instant,
    pub(super) first_byte: Option<Duration>,
    pub(super) said: Option<Said>,
    pub(super) tape: Option<Tape>,
    /// Whom it speaks for when it begins, where that was not clear before.
    pub(super) first: Option<First<'a, 'p>>,
    /// What the answer came to, once that is known.
    pub(super) seen: Option<Measured>,
    /// The try that was answered has ended before, and another one behind it: they stay as they are.
    pub(super) is_over: bool,
}

impl<'a, 'p> Closing<'a, 'p> {
    /// Of an answer that the exchange had the head of: `heard` is its status and when the first byte of it came.
    pub(super) fn new(
        id: &'a str,
        draft: Option<&'a mut Draft>,
        started: Instant,
        heard: (u16, Option<Duration>),
        said: Option<Said>,
        tape: Option<Tape>,
    ) -> Self {
        let (status, first_byte) = heard;
        Self { id, draft, status, started, first_byte, said, tape, first: None, seen: None, is_over: false }
    }
}

/// An attempt whose target is known to be good when the first content of its answer comes.
pub(super) struct First<'a, 'p> {
    pub(super) pass: &'a mut Pass<'p>,
    pub(super) routing: &'a Routing,
    pub(super) since: Instant,
}

/// What is learned of an answer for the requests that follow it.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Tokens of the prompt.
    pub(super) prompt: u64,
    /// Of these, how many the provider keeps in its cache, and for how long.
    pub(super) warm: u64,
    pub(super) keeps: Duration,
    /// The type of the error that ended the stream.
    pub(super) error: Option<Box<str>>,
}

impl Measured {
    fn of(metered: &Metered) -> Self {
        let error = metered.error.as_ref().map(|error| error.kind.clone());
        let Counts::Known(usage) = &metered.usage else { return Self { error, ..Self::default() } };
        let tokens = &usage.tokens;
        let written = &tokens.cache_write;
        let minutes = if written.h1 > 0 || written.h12 > 0 { 60 } else { 5 };
        let warm = tokens.cache_read.saturating_add(written.total());
        Self { prompt: tokens.prompt(), warm, keeps: Duration::from_secs(minutes * 60), error }
    }
}

impl Settle for Closing<'_, '_> {
    fn keep(&mut self, piece: &[u8]) {
        if let Some(tape) = &mut self.tape {
            tape.keep(piece);
        }
    }

    fn begins(&mut self, at: Instant) {
        if let Some(First { pass, routing, since }) = &mut self.first
            && !pass.is_judged()
        {
            pass.record(routing.time(at), health::Outcome::Good { first: Some(at - *since) });
        }
    }

    fn settle(&mut self, seen: Seen<'_>) -> Option<Gate> {
        let (outcome, cause) = outcome(seen.ended, self.status);
        let (status, started) = (self.status, self.started);
        let took = micros(seen.at - started);
        let (first_byte, said) = (self.first_byte, self.said.take());
        self.seen = seen.metered.as_deref().map(Measured::of);
        if let Some(metered) = &seen.metered {
            left_out(self.id, &metered.lost);
        }
        let is_over = self.is_over;
        if let (Some(draft), Some(tape)) = (self.draft.as_deref(), &self.tape) {
            draft.show_whole(status, tape);
        }
        self.draft.as_mut()?.settle(|record| {
            record.outcome = outcome;
            record.status = Some(status);
            // The try that was answered lasts as long as its answer, and ends as that does.
            if let Some(last) = record.attempts.last_mut().filter(|_| !is_over) {
                last.outcome = outcome;
                last.duration_us = took.saturating_sub(last.started_us);
            }
            record.error = cause.map(Box::from);
            if let Some(said) = said {
                said.told(record);
            }
            record.bytes_out = seen.payload;
            record.first_byte_us = first_byte.map(micros);
            record.duration_us = Some(took);
            record.first_token_us = seen.first_token.map(|at| micros(at - started));
            if let Some(metered) = seen.metered {
                measure(record, metered, status);
            }
        })
    }
}

/// The type of an upstream's error. Its message is kept with the answer's body, in the archive alone: upstreams quote
/// keys and prompts in it.
fn named(kind: &str) -> &str {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if (1..=64).contains(&kind.len()) && kind.bytes().all(is_word) { kind } else { "an error of an unknown type" }
}

/// What an answer came to, as its record keeps it: the upstream's word apart from our own count.
fn measure(record: &mut Record, metered: Box<Metered>, status: u16) {
    if metered.model.is_some() {
        record.parties.model = metered.model.clone();
    }
    if let Some(error) = &metered.error {
        record.error = Some(named(&error.kind).into());
    }
    if status < 400 {
        // Nothing that could be counted is not the same as nothing said.
        let generated = record.operation == Operation::Generation;
        record.estimated_output = metered.estimated_output().filter(|tokens| generated && *tokens > 0);
        match metered.usage {
            Counts::Known(usage) => {
                // The provider itself may have gone over to another model.
                if let Some(model) = usage.fallback_model() {
                    record.parties.model = Some(model.into());
                }
                record.usage = Some(usage);
            }
            Counts::Unknown => record.usage_unknown = true,
        }
    }
    if let Some(tokens) = metered.told_input {
        // The end of the answer sets it right; until then its client has gone by this.
        let told = format!("usage.input_tokens: the client was first told of {tokens}, which is our estimate");
        record.losses.push(told.into());
    }
    record.losses.extend(told(&metered.lost));
    record.stop_reason = metered.stop_reason;
}
