//! One record an exchange: begun before its request goes up, settled before its client sees the end.

mod bodies;
mod delivery;
mod observed;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foldhash::HashMap;
use ledger::Ledger;
use ledger::journal::Ack;
use ledger::money::NanoUsd;
use ledger::price::{Billed, Cost, PriceTable, Unpriced};
use ledger::record::{Operation, Outcome, Record, Start};
use ledger::redact::Redactor;
use tracing::{debug, warn};
use wire::usage::Usage;

pub use bodies::{Bodies, Owner, Tape};
pub use delivery::Delivery;
pub use observed::{Histogram, OTHER, Observed, Series};

use crate::config::{self, OnFailure};
use crate::error::{ErrorKind, Refusal, Retry};
use crate::live::Hub;

/// Awaited before the last bytes of an answer leave; it ends by itself after `audit.journalWaitMs`.
pub type Settling = Pin<Box<dyn Future<Output = ()>>>;

/// Under which names the price table knows the providers of the configuration.
pub type Billing = HashMap<String, Arc<str>>;

/// Where records are written down.
pub trait Book: Send + Sync {
    /// An exchange begins.
    fn start(&self, record: &mut Record) -> Ack;

    /// An exchange ended.
    fn finish(&self, record: Box<Record>) -> Ack;
}

impl Book for Ledger {
    fn start(&self, record: &mut Record) -> Ack {
        Self::start(self, record)
    }

    fn finish(&self, record: Box<Record>) -> Ack {
        Self::finish(self, record)
    }
}

/// Writes what happens down, priced.
pub struct Recorder {
    book: Option<Arc<dyn Book>>,
    /// The same as the book, unless that is a test's.
    ledger: Option<Arc<Ledger>>,
    prices: Option<Arc<PriceTable>>,
    wait: Duration,
    on_failure: OnFailure,
    /// Entries that were not known to be written when their exchange went on.
    unsettled: Arc<AtomicU64>,
    unpriced: Arc<AtomicU64>,
    bodies: Option<Arc<Bodies>>,
    /// What is taken out of names and words before anybody sees them.
    redact: Arc<Redactor>,
    observed: Arc<Observed>,
    /// Why there is no ledger although there should be one.
    trouble: Option<Box<str>>,
    /// Why no bodies are kept although they should be.
    no_bodies: Option<Box<str>>,
    live: Arc<Hub>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder(ledger: {:?})", self.ledger.is_some())
    }
}

/// Microseconds since 1970 by the wall clock.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
}

impl Recorder {
    /// Records into this ledger, priced if there are prices.
    pub fn new(ledger: Arc<Ledger>, prices: Option<Arc<PriceTable>>, wait: Duration, on_failure: OnFailure) -> Self {
        let book: Arc<dyn Book> = ledger.clone();
        Self { book: Some(book), ledger: Some(ledger), prices, wait, on_failure, ..Self::off() }
    }

    /// Writes into a book that is no ledger, at the built-in prices.
    pub fn to(book: Arc<dyn Book>) -> Self {
        let prices = Some(Arc::new(PriceTable::built_in()));
        Self { book: Some(book), prices, wait: Duration::from_secs(1), ..Self::off() }
    }

    /// Takes this out of what others put in.
    #[must_use]
    pub fn redacting(self, redact: Arc<Redactor>) -> Self {
        Self { redact, ..self }
    }

    /// What must not be kept.
    pub fn redact(&self) -> &Arc<Redactor> {
        &self.redact
    }

    /// Keeps bodies as well.
    #[must_use]
    pub fn with_bodies(mut self, bodies: Bodies) -> Self {
        self.bodies = Some(Arc::new(bodies));
        self
    }

    /// Keeps no bodies because the archive cannot be opened.
    #[must_use]
    pub fn without_bodies(self, why: &str) -> Self {
        Self { no_bodies: Some(why.into()), ..self }
    }

    /// The same ledger and the same counts under other rules, for exchanges that begin from now on.
    #[must_use]
    pub fn again(&self, prices: Option<Arc<PriceTable>>, wait: Duration, on_failure: OnFailure) -> Self {
        Self {
            book: self.book.clone(),
            ledger: self.ledger.clone(),
            prices,
            wait,
            on_failure,
            unsettled: self.unsettled.clone(),
            unpriced: self.unpriced.clone(),
            bodies: self.bodies.clone(),
            redact: self.redact.clone(),
            observed: self.observed.clone(),
            trouble: self.trouble.clone(),
            no_bodies: self.no_bodies.clone(),
            live: self.live.clone(),
        }
    }

    /// Keeps these kinds of bodies, where there is an archive.
    #[must_use]
    pub fn keeping(self, requests: bool, answers: bool) -> Self {
        let bodies = self.bodies.as_ref().map(|bodies| Arc::new(bodies.again(requests, answers)));
        Self { bodies, ..self }
    }

    /// Why no bodies are kept although they should be.
    pub fn no_bodies(&self) -> Option<&str> {
        self.no_bodies.as_deref()
    }

    /// Where bodies go, if they are kept.
    pub fn bodies(&self) -> Option<&Arc<Bodies>> {
        self.bodies.as_ref()
    }

    /// Records nothing: `audit.enabled` is off.
    pub fn off() -> Self {
        let (wait, on_failure) = (Duration::ZERO, OnFailure::Continue);
        let (unsettled, unpriced, observed) = (Arc::default(), Arc::default(), Arc::default());
        let (live, redact) = (Arc::default(), Arc::default());
        let (book, ledger, prices, bodies) = (None, None, None, None);
        let (trouble, no_bodies) = (None, None);
        Self {
            book,
            ledger,
            prices,
            wait,
            on_failure,
            unsettled,
            unpriced,
            bodies,
            redact,
            observed,
            trouble,
            no_bodies,
            live,
        }
    }

    /// Sees to what this ledger holds, and records nothing into it.
    #[must_use]
    pub fn looking_after(self, ledger: Arc<Ledger>) -> Self {
        Self { ledger: Some(ledger), ..self }
    }

    /// Whether anything is recorded.
    pub fn is_recording(&self) -> bool {
        self.book.is_some()
    }

    /// Records nothing because the ledger cannot be opened.
    pub fn failed(why: &str) -> Self {
        Self { trouble: Some(why.into()), ..Self::off() }
    }

    /// Why there is no ledger although there should be one.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The ledger, if there is one.
    pub fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }

    /// Writes what there is and ends the ledger's threads. Blocks.
    pub fn close(&self) {
        if let Some(ledger) = &self.ledger {
            ledger.close();
        }
        if let Some(bodies) = &self.bodies {
            bodies.close();
        }
    }

    /// Entries so far that were not known to be written when their exchange went on.
    pub fn unsettled(&self) -> u64 {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// Writes that an exchange begins. `Err`: it is not known to be written, and that matters here.
    pub async fn begin(&self, record: &mut Record) -> Result<(), Refusal> {
        // Later on, prices are found by the names as they were said.
        let said = (!self.redact.is_empty()).then(|| record.parties.clone());
        record.parties.clean(&self.redact);
        self.live.started(record);
        let begun = self.book.as_ref().map(|book| book.start(record));
        if let Some(said) = said {
            record.parties = said;
        }
        let why = match (begun, &self.trouble) {
            (Some(begun), _) => match begun.within(self.wait).await {
                Ok(_) => return Ok(()),
                Err(why) => why.to_string(),
            },
            // There should be a ledger. What holds for a start may have been changed since.
            (None, Some(why)) => format!("{why} (restart it when that is put right)"),
            (None, None) => return Ok(()),
        };
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        match self.on_failure {
            OnFailure::Continue => Ok(()),
            OnFailure::Refuse => {
                let message = format!("the request cannot be recorded, and `audit.onFailure` is \"refuse\": {why}");
                Err(Refusal::new(ErrorKind::Unavailable, message).retry(Retry::After(5)))
            }
        }
    }

    /// Prices a record and hands it to the journal.
    fn settle(&self, mut record: Box<Record>, billed_as: &str) -> Option<Settling> {
        record.doubt();
        // Prices are found by the names as they were said.
        self.price(&mut record, billed_as);
        record.clean(&self.redact);
        self.observed.add(&record);
        self.live.ended(&record);
        let book = self.book.as_ref()?;
        let (ack, wait, unsettled) = (book.finish(record), self.wait, self.unsettled.clone());
        Some(Box::pin(async move {
            if let Err(why) = ack.within(wait).await
                && unsettled.fetch_add(1, Ordering::Relaxed) == 0
            {
                warn!(
                    "a record is not known to be written, and its exchange went on: {why} (further ones are counted)"
                );
            }
        }))
    }

    /// The prices of now; `None`: costs are not computed.
    pub fn prices(&self) -> Option<&PriceTable> {
        self.prices.as_deref()
    }

    /// What it cost at the prices of now; no price is no cost, never 0.
    fn price(&self, record: &mut Record, billed_as: &str) {
        match self.cost(record, billed_as) {
            Some(Ok(cost)) => {
                record.cost = Some(cost.nano_usd);
                record.cost_flags = cost.flags;
                record.price_version = Some(Box::from(&*cost.price_version));
            }
            Some(Err(why)) => {
                record.unpriced = Some(why);
                self.unpriced.fetch_add(1, Ordering::Relaxed);
                debug!(model = record.parties.model.as_deref(), why = why.as_str(), "no price");
            }
            None => {}
        }
    }

    /// What a record costs at the prices of now; `None`: it has nothing that could be priced.
    pub fn cost(&self, record: &Record, billed_as: &str) -> Option<Result<Cost, Unpriced>> {
        let (prices, usage) = (self.prices.as_ref()?, record.usage.as_ref()?);
        let model = record.parties.model.as_deref().filter(|_| record.operation == Operation::Generation)?;
        if record.used().is_none() {
            return Some(Err(Unpriced::TooLarge));
        }
        let cost = prices.cost(&Billed {
            provider: billed_as,
            model,
            at: record.started_us / 1_000_000,
            usage,
            estimated_output: record.estimated_output,
            notional: record.parties.notional,
        });
        // What attempts beside the one that answered have cost was paid too.
        let beside = record
            .attempts
            .iter()
            .filter_map(|attempt| attempt.cost)
            .fold(0i64, |sum, cost| sum.saturating_add(cost.0));
        Some(cost.map(|cost| Cost { nano_usd: NanoUsd(cost.nano_usd.0.saturating_add(beside)), ..cost }))
    }

    /// What an attempt cost beside the one that answered; `None`: there is no price for it.
    pub fn cost_beside(&self, billed: &Billed<'_>) -> Option<NanoUsd> {
        Some(self.prices.as_ref()?.cost(billed).ok()?.nano_usd)
    }

    /// What this use would cost now; `None`: there is no price for it.
    pub fn cost_of(&self, billed_as: &str, model: &str, at: i64, usage: &Usage) -> Option<config::NanoUsd> {
        let billed = Billed { provider: billed_as, model, at, usage, estimated_output: None, notional: false };
        let cost = self.prices.as_ref()?.cost(&billed).ok()?;
        u64::try_from(cost.nano_usd.0).ok().map(config::NanoUsd)
    }

    /// Under which name the price table knows a provider of this kind at this host.
    pub fn billed_as(&self, kind: &str, host: &str) -> Arc<str> {
        let known = self.prices.as_ref().filter(|_| kind.ends_with("-compatible"));
        known.and_then(|prices| prices.provider_of_host(host)).unwrap_or(kind).into()
    }

    /// What happens at the moment.
    pub fn live(&self) -> &Arc<Hub> {
        &self.live
    }

    /// How long answers took and how many tokens they had, since the start.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Exchanges so far that had usage and no price.
    pub fn unpriced(&self) -> u64 {
        self.unpriced.load(Ordering::Relaxed)
    }
}

/// A record in the making. It is settled once, whatever happens: what nobody settles is settled when it is dropped.
pub struct Draft {
    recorder: Arc<Recorder>,
    record: Option<Box<Record>>,
    /// Under which name the price table knows the provider.
    billed_as: Arc<str>,
    /// To whom the answer goes, where that may be another one than who asked.
    delivery: Option<Arc<Delivery>>,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({:?})", self.record.as_ref().map(|record| record.id))
    }
}

impl Draft {
    /// Of an exchange that begins.
    pub fn new(recorder: Arc<Recorder>, start: Start) -> Self {
        let record = Some(Box::new(Record::new(start, Outcome::Interrupted)));
        Self { recorder, record, billed_as: Arc::default(), delivery: None }
    }

    /// Forgets it: there is no exchange after all.
    pub fn forget(mut self) {
        self.record = None;
    }

    /// The answer may go to another client than the one that asked.
    pub fn delivered_by(&mut self, delivery: Arc<Delivery>) {
        self.delivery = Some(delivery);
    }

    /// What is known so far; `None` once it is settled.
    pub fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    /// Takes out of the names that the client chose what must not be kept.
    pub fn clean(&mut self) {
        if let Some(record) = &mut self.record {
            record.parties.clean(&self.recorder.redact);
        }
    }

    /// Shows an answer that is no stream, and came whole, to those who watch.
    pub fn show_whole(&self, status: u16, tape: &Tape) {
        if let Some(record) = self.record.as_ref()
            && self.recorder.live.is_watched()
            && status < 300
            && !record.parties.stream
            && record.operation == Operation::Generation
            && let Some(body) = tape.plain()
        {
            self.recorder.live.whole(record.id, &body);
        }
    }

    /// From here on it is this provider that would be paid.
    pub fn bill(&mut self, billed_as: &Arc<str>) {
        self.billed_as.clone_from(billed_as);
    }

    /// Settles it, with the last facts put in by `last`. Nothing happens the second time.
    pub fn settle(&mut self, last: impl FnOnce(&mut Record)) -> Option<Settling> {
        let mut record = self.record.take()?;
        record.ended_us = now_us();
        last(&mut record);
        match &self.delivery {
            Some(delivery) => delivery.settle(&self.recorder, record, &self.billed_as),
            None => self.recorder.settle(record, &self.billed_as),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // A panic on the way, or a runtime that was torn down: the exchange stays what it was begun as.
        drop(self.settle(|_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample;

    #[tokio::test]
    async fn who_must_not_serve_unrecorded_refuses_also_where_there_never_was_a_ledger() {
        let lost = Recorder::failed("the disk is full");
        assert!(lost.begin(&mut sample::record(1)).await.is_ok(), "it goes on, as it was told to");
        let strict = lost.again(None, Duration::ZERO, OnFailure::Refuse);
        let refusal = strict.begin(&mut sample::record(2)).await.unwrap_err();
        assert!(refusal.message.contains("the disk is full"), "{}", refusal.message);
        let off = Recorder::off().again(None, Duration::ZERO, OnFailure::Refuse);
        assert!(off.begin(&mut sample::record(3)).await.is_ok(), "nothing is to be recorded");
    }
}
