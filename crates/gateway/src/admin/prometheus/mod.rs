//! `/metrics`: for Prometheus, in the names that OpenTelemetry gives to what models do.
//!
//! What is counted for ever comes from the ledger, what is of this process from its own counters. All labels are bounded:
//! models of which nobody paid for an answer share one.

mod page;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use ledger::LedgerHealth;
use ledger::archive::{Counts, Skip};
use ledger::query::{Filter, Group, Groups, Key, MOST, Totals, UTC};
use ledger::record::{Operation, Outcome};
use ledger::store::{Reader, StoreError};

use self::page::{Kind, Page};
use super::shape;
use super::upstreams::known;
use crate::client::respond::Answer;
use crate::gateway::Gateway;
use crate::health::{CircuitReport, Slot, State, Why};
use crate::recorder::{Histogram, OTHER, Recorder};

const PROVIDER: &str = "gen_ai_provider_name";
const MODEL: &str = "gen_ai_response_model";
const TOKEN_TYPE: &str = "gen_ai_token_type";
const OPERATION: &str = "gen_ai_operation_name";
/// What OpenTelemetry calls a generation.
const CHAT: (&str, &str) = (OPERATION, "chat");

/// Pairs of provider and model that are told apart: the dearest ones. And circuits.
const MODELS: usize = 100;
/// Operations by provider and outcome that are told apart.
const REQUESTS: usize = 500;

/// A page of everything that is counted. A ledger that cannot be read leaves its own numbers out and says so.
pub(super) async fn scrape(gateway: &Gateway) -> Answer {
    let mut page = Page::default();
    process(&mut page, gateway);
    upstreams(&mut page, gateway);
    recorder(&mut page, &gateway.recorder);
    if let Some(ledger) = gateway.recorder.ledger() {
        let sums = ledger.read(|reader| Sums::read(reader)).await;
        health(&mut page, &ledger.health());
        page.one("cco_ledger_readable", Kind::Gauge, "Whether the ledger answers: 1 or 0.", u8::from(sums.is_ok()));
        if let Ok(sums) = sums {
            sums.value.write(&mut page);
        }
    } else if gateway.recorder.trouble().is_some() {
        page.one("cco_ledger_good", Kind::Gauge, LEDGER_GOOD, 0);
    }
    if let Some(kept) = gateway.recorder.bodies() {
        bodies(&mut page, &kept.counts(), kept.trouble().is_none());
    } else if gateway.recorder.no_bodies().is_some() {
        page.one("cco_archive_good", Kind::Gauge, ARCHIVE_GOOD, 0);
    }
    let mut answer = Answer::text(page.into_text());
    answer.content_type = "text/plain; version=0.0.4; charset=utf-8";
    answer
}

fn process(page: &mut Page, gateway: &Gateway) {
    use Kind::{Counter, Gauge};
    let counters = &gateway.counters;
    let (requests, running, relayed) = counters.totals();
    let started = gateway.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    page.family("cco_build_info", Gauge, "The version that runs.");
    page.sample("cco_build_info", &[("version", &gateway.version)], 1);
    page.one("cco_start_time_seconds", Gauge, "When it began to serve, in seconds since 1970.", started);
    page.one("cco_received_total", Counter, "Requests for an upstream since the start.", requests);
    page.one("cco_running", Gauge, "Requests that are being served.", running);
    page.one("cco_relayed_bytes_total", Counter, "Bytes of answers handed on since the start.", relayed);
    let connections = counters.connections.load(Ordering::Relaxed);
    page.one("cco_connections", Gauge, "Connections of clients.", connections);
    let refused = counters.connections_refused.load(Ordering::Relaxed);
    page.one("cco_connections_refused_total", Counter, "Connections turned away at `server.maxConnections`.", refused);
    let dropped = counters.log_dropped.read();
    page.one("cco_log_dropped_total", Counter, "Lines of the program's log that were dropped.", dropped);
    page.family("cco_config_refused_total", Counter, "Configurations not used since the start, by what was wrong.");
    for (what, count) in gateway.configured.refused() {
        page.sample("cco_config_refused_total", &[("what", what)], count);
    }
    page.one("cco_held_bytes", Gauge, "Bytes of request bodies that are held.", gateway.held.used());
    page.one("cco_held_limit_bytes", Gauge, "Bytes that may be held (`server.maxHeldMb`).", gateway.held.limit());
    let counts = gateway.replays.counts();
    let help = "Answers that wait for clients that have gone (`routing.replaySecs`).";
    page.one("cco_replays_waiting", Gauge, help, gateway.replays.waiting());
    page.family("cco_replays_total", Counter, "What became of answers whose clients went before their end.");
    let whats =
        [("left", counts.left), ("joined", counts.joined), ("expired", counts.expired), ("outgrown", counts.outgrown)];
    for (what, count) in whats {
        page.sample("cco_replays_total", &[("what", what)], count);
    }
}

fn upstreams(page: &mut Page, gateway: &Gateway) {
    use Kind::{Counter, Gauge};
    let each = || gateway.providers.iter().map(|provider| (&*provider.name, provider, provider.cap.counts()));
    page.family("cco_provider_running", Gauge, "Requests that have their turn at a provider.");
    for (name, _, counts) in each() {
        page.sample("cco_provider_running", &[("provider", name)], counts.running);
    }
    page.family("cco_provider_waiting", Gauge, "Requests that wait for their turn at a provider.");
    for (name, _, counts) in each() {
        page.sample("cco_provider_waiting", &[("provider", name)], counts.waiting);
    }
    page.family("cco_provider_turned_away_total", Counter, "Requests beyond a provider's `maxQueued`.");
    for (name, _, counts) in each() {
        page.sample("cco_provider_turned_away_total", &[("provider", name)], counts.refused);
    }
    let known: Vec<_> = each().map(|(name, provider, _)| (name, known(gateway, provider))).collect();
    page.family("cco_circuit_state", Gauge, "0: requests go through, 1: one finds out, 2: the target is left alone.");
    let circuits = known.iter().flat_map(|(name, (circuits, _))| circuits.iter().map(|circuit| (*name, circuit)));
    for ((provider, model, operation, key), state) in states(circuits) {
        let key = key.to_string();
        let labels = [("provider", provider), ("model", model), ("operation", operation), ("key", &key)];
        page.sample("cco_circuit_state", &labels, state);
    }
    page.family("cco_refused_keys", Gauge, "Keys of ours that a provider does not accept.");
    for (name, (_, keys)) in &known {
        page.sample("cco_refused_keys", &[("provider", name)], keys.len());
    }
}

/// Whether anything is known of a circuit but that its provider does not know the model: callers make up names.
fn is_of_a_model(circuit: &CircuitReport) -> bool {
    let is_answered = circuit.first_ms.is_some() || circuit.recent > circuit.failed;
    let is_failing = circuit.state != State::Closed || circuit.failed > 0;
    is_answered || is_failing && circuit.why != Some(Why::Status(404))
}

/// A circuit by its provider, model, operation and key.
type Circuit<'a> = (&'a str, &'a str, &'a str, Slot);

/// The states of circuits: of [`MODELS`] each, those first that are not closed; the others share a model and show the
/// worst of their states.
fn states<'a>(circuits: impl Iterator<Item = (&'a str, &'a CircuitReport)>) -> BTreeMap<Circuit<'a>, u8> {
    let mut circuits: Vec<_> = circuits.filter(|(_, circuit)| is_of_a_model(circuit)).collect();
    circuits.sort_by_key(|(_, circuit)| circuit.state == State::Closed);
    let mut states = BTreeMap::new();
    for (n, (provider, circuit)) in circuits.into_iter().enumerate() {
        let model = if n < MODELS { &circuit.model } else { OTHER };
        let state = match circuit.state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open(_) => 2,
        };
        let operation = circuit.operation.recorded().as_str();
        let worst = states.entry((provider, model, operation, circuit.slot)).or_insert(state);
        *worst = state.max(*worst);
    }
    states
}

fn recorder(page: &mut Page, recorder: &Recorder) {
    use Kind::Counter;
    let live = recorder.live();
    page.one("cco_live_viewers", Kind::Gauge, "Those who watch what happens.", live.viewers());
    page.one("cco_live_skipped_total", Counter, "Events that viewers were too slow for.", live.skipped());
    let help = "Entries not known to be written when their exchange went on, since the start.";
    page.one("cco_unsettled_total", Counter, help, recorder.unsettled());
    page.one("cco_unpriced_total", Counter, "Exchanges without a known price, since the start.", recorder.unpriced());
    let all = recorder.observed().all();
    let name = "gen_ai_client_operation_duration_seconds";
    page.family(name, Kind::Histogram, "Until the whole answer was there, since the start.");
    for (provider, model, series) in &all {
        for (outcome, histogram) in &series.duration {
            let mut labels = vec![CHAT, (PROVIDER, provider), (MODEL, model)];
            if *outcome != Outcome::Success {
                labels.push(("error_type", outcome.as_str()));
            }
            write_histogram(page, name, &labels, histogram, 1e6);
        }
    }
    let name = "gen_ai_server_time_to_first_token_seconds";
    page.family(name, Kind::Histogram, "Until the first token of a streamed answer, since the start.");
    for (provider, model, series) in &all {
        write_histogram(page, name, &[CHAT, (PROVIDER, provider), (MODEL, model)], &series.first_token, 1e6);
    }
    let name = "gen_ai_client_token_usage";
    page.family(name, Kind::Histogram, "Tokens of an exchange, cached ones included, since the start.");
    for (provider, model, series) in &all {
        for (kind, histogram) in [("input", &series.input), ("output", &series.output)] {
            let labels = [CHAT, (PROVIDER, provider), (MODEL, model), (TOKEN_TYPE, kind)];
            write_histogram(page, name, &labels, histogram, 1.0);
        }
    }
}

fn write_histogram(page: &mut Page, name: &str, labels: &[(&str, &str)], histogram: &Histogram, unit: f64) {
    if histogram.count() == 0 {
        return;
    }
    let bucket = format!("{name}_bucket");
    for (bound, count) in histogram.up_to() {
        let bound = (bound as f64 / unit).to_string();
        page.sample(&bucket, &[labels, &[("le", &bound)]].concat(), count);
    }
    page.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), histogram.count());
    page.sample(&format!("{name}_sum"), labels, histogram.sum as f64 / unit);
    page.sample(&format!("{name}_count"), labels, histogram.count());
}

const LEDGER_GOOD: &str = "Whether journal and store are as they should be.";
const ARCHIVE_GOOD: &str = "Whether bodies can be kept.";

fn bodies(page: &mut Page, counts: &Counts, good: bool) {
    use Kind::{Counter, Gauge};
    page.one("cco_archive_good", Gauge, ARCHIVE_GOOD, u8::from(good));
    page.one("cco_bodies_stored_total", Counter, "Bodies kept since the start.", counts.stored);
    page.one("cco_bodies_stored_bytes_total", Counter, "Their bytes, as they came.", counts.raw_bytes);
    page.one("cco_bodies_disk_bytes_total", Counter, "What that took on the disk.", counts.disk_bytes);
    page.one("cco_bodies_waiting_bytes", Gauge, "Bytes of bodies that wait to be kept.", counts.queue_bytes);
    page.family("cco_bodies_skipped_total", Counter, "Bodies not kept since the start, by why.");
    for why in Skip::ALL {
        page.sample("cco_bodies_skipped_total", &[("reason", why.name())], counts.skipped(why));
    }
}

fn health(page: &mut Page, health: &LedgerHealth) {
    use Kind::{Counter, Gauge};
    let (journal, loaded) = (&health.journal, &health.loaded);
    page.one("cco_ledger_good", Gauge, LEDGER_GOOD, u8::from(health.is_good()));
    page.one("cco_store_up", Gauge, "Whether the store takes records.", u8::from(health.store.is_none()));
    page.one("cco_journal_failing", Gauge, "Whether the last write failed.", u8::from(journal.failing));
    page.one("cco_journal_low_space", Gauge, "Whether its disk is nearly full.", u8::from(journal.low_space));
    page.one("cco_journal_written_total", Counter, "Entries written since the start.", journal.written);
    page.one("cco_journal_late_total", Counter, "Entries written after nobody waited for them.", journal.late);
    page.one("cco_journal_lost_total", Counter, "Entries lost since the start.", journal.lost);
    page.one("cco_journal_pending_bytes", Gauge, "Entries that wait for the disk.", journal.pending_bytes);
    page.one("cco_journal_behind_bytes", Gauge, "Entries that are not in the store yet.", journal.behind_bytes);
    page.family("cco_loaded_total", Counter, "What was loaded into the store since the start, by what it was.");
    for (what, count) in [
        ("record", loaded.new),
        ("corrected", loaded.corrected),
        ("interrupted", loaded.interrupted),
        ("torn", loaded.torn),
        ("damaged", loaded.damaged),
        ("unreadable", loaded.unreadable),
    ] {
        page.sample("cco_loaded_total", &[("what", what)], count);
    }
}

/// What the ledger adds: everything that it ever recorded.
struct Sums {
    /// By operation, provider and outcome.
    requests: Groups,
    /// Generations by provider and model.
    models: Groups,
}

impl Sums {
    fn read(reader: &mut dyn Reader) -> Result<Self, StoreError> {
        let all = Filter { limit: Some(MOST), ..Filter::default() };
        let requests = reader.totals(&all, &[Key::Operation, Key::Provider, Key::Outcome], UTC)?;
        let generations = Filter { operation: Some(Operation::Generation), ..all };
        let models = reader.totals(&generations, &[Key::Provider, Key::Model], UTC)?;
        Ok(Self { requests, models })
    }

    fn write(&self, page: &mut Page) {
        use Kind::Counter;
        page.family("cco_requests_total", Counter, "Exchanges that were recorded, by how they ended.");
        for (labels, totals) in rows(&self.requests, ["operation", PROVIDER, "outcome"], REQUESTS) {
            page.sample("cco_requests_total", &labels, totals.all().requests);
        }
        let models = rows(&self.models, [PROVIDER, MODEL], MODELS);
        page.family("cco_tokens_total", Counter, "Tokens that were recorded; each is counted under one type only.");
        for (labels, totals) in &models {
            let all = totals.all();
            for (kind, count) in [
                ("input", all.input),
                ("cache_read", all.cache_read),
                ("cache_write", all.cache_write),
                ("output", all.output),
            ] {
                page.sample("cco_tokens_total", &[&labels[..], &[(TOKEN_TYPE, kind)]].concat(), count);
            }
        }
        let help = "What was recorded would cost; `notional`: a subscription paid for it, `simulated`: nobody did.";
        page.family("cco_cost_usd_total", Counter, help);
        for (labels, totals) in &models {
            for (billing, sums) in
                [("paid", &totals.paid), ("notional", &totals.notional), ("simulated", &totals.simulated)]
            {
                if sums.requests > 0 {
                    let labels = [&labels[..], &[("billing", billing)]].concat();
                    page.sample("cco_cost_usd_total", &labels, shape::usd(sums.cost));
                }
            }
        }
        let all = self.models.totals.all();
        let help = "Recorded exchanges without a known price.";
        page.one("cco_requests_unpriced_total", Counter, help, all.unpriced);
        let help = "Recorded exchanges of which the usage is not known.";
        page.one("cco_requests_usage_unknown_total", Counter, help, all.usage_unknown);
        let help = "Recorded exchanges of which we counted the output.";
        page.one("cco_requests_estimated_total", Counter, help, all.estimated);
    }
}

type Labelled<'a, const N: usize> = ([(&'static str, &'a str); N], Totals);

/// The first groups with their labels, and one for all the others together.
fn rows<'a, const N: usize>(groups: &'a Groups, names: [&'static str; N], most: usize) -> Vec<Labelled<'a, N>> {
    let labels = |group: &'a Group| {
        let mut values = group.keys.iter().map(|key| &**key);
        names.map(|name| (name, values.next().unwrap_or_default()))
    };
    let (first, others) = groups.groups.split_at(groups.groups.len().min(most));
    let mut rows: Vec<Labelled<'a, N>> = first.iter().map(|group| (labels(group), group.totals)).collect();
    if !others.is_empty() {
        let mut rest = Totals::default();
        others.iter().for_each(|group| rest.add(&group.totals));
        rows.push((names.map(|name| (name, OTHER)), rest));
    }
    rows
}

#[cfg(test)]
mod tests;
