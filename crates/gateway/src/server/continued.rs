//! An answer that broke off is gone on with at the same target, where that continues a turn of the model's.

use std::cell::RefCell;

use ledger::record::Outcome as Recorded;
use tokio::time::Instant;
use wire::meter::Metered;
use wire::protocol::Protocol;

use crate::client::Client;
use crate::client::inbound::HeldBody;
use crate::gateway::Worker;
use crate::health::Entry;
use crate::io::Io;
use crate::relay::{Beginning, Events, Joined, Seam, View};
use crate::retry::Kept;
use crate::route::{Facts, Plan, Target};
use crate::server::dispatch::{Asked, Won, ready};
use crate::server::exchange::Exchange;
use crate::server::hedge::kept_alive;
use crate::server::step::Judged;

/// Whether an answer could be gone on with if it broke off: plain text of a model that takes the beginning of its turn.
pub(super) fn can_go_on(won: &Won<'_>, facts: &Facts<'_>, body: Option<&HeldBody>) -> bool {
    let is_plain = |body: &HeldBody| body.text.as_ptr() == body.bytes.as_ptr();
    let is_stream = won.passing.answer.status == 200 && matches!(won.passing.view, View::Events(_));
    facts.protocol == Protocol::AnthropicMessages
        && is_stream
        && body.is_some_and(is_plain)
        && won.asked_for.as_ref().is_some_and(|(model, _)| wire::models::continues_turns(model))
        && !facts.thinking()
}

/// An answer that broke off.
pub(super) struct Broken {
    pub(super) seam: Seam,
    /// What it had come to.
    pub(super) before: Metered,
}

impl Exchange {
    /// Asks for the rest of an answer that broke off. With the stream of that comes what was read of it already; `None`:
    /// there is none, and the client is told of the break.
    pub(super) async fn go_on<'g, S: Io>(
        &mut self,
        client: &mut Client<S>,
        worker: &'g Worker,
        asked: &Asked<'_, '_>,
        rule: Option<usize>,
        won: &mut Won<'g>,
        broken: Broken,
    ) -> Option<(View, Beginning)> {
        let routing = &worker.gateway.routing;
        let changes = routing.rules.changes(rule);
        let first = asked.body?;
        let (provider, (model, renames)) = (won.provider, won.asked_for.clone()?);
        let target = Target { provider: provider.place, slot: won.slot, model: &model, renames };
        let body = first.another(broken.seam.body(&first.text, &first.envelope)?)?;
        let fitted = Default::default();
        let asks = crate::server::translated::Asks { fitted: &fitted, ..asked.asks };
        let asked = Asked { body: Some(&body), asks, ..*asked };
        if !routing.budget.withdraw() {
            return None;
        }
        let (request, _) = ready(provider, &asked, self.operation, &target, &changes).ok()?;
        let place = target.place(asked.facts);
        let pass = routing.health.enter(routing.now(), &place, asked.facts, Entry::IfWell)?;
        self.attempts += 1;
        let plan = Plan::of(target, changes);
        let mut step = self.at(worker, &asked, (provider, &target), &request, &plan, Instant::now());
        // Held back until it has content: an error is none of the client's business, who is told of the break.
        (step.has_next, step.has_failed) = (true, true);
        let kept = RefCell::new(Kept::default());
        let judged = kept_alive(client, &step, &kept, &pass, worker.gateway.ping).await;
        let judged = match judged {
            Ok(Judged::Passes(passing)) if passing.answer.status == 200 && matches!(passing.view, View::Events(_)) => {
                self.tried(&step, Recorded::Success, Some(200), None, Instant::now());
                let (source, view, beginning) = passing.stream();
                (won.passing.source, won.pass) = (source, pass);
                let View::Events(events) = view else { return None };
                let events: Events = *events;
                let joined = Joined::new(broken.before, broken.seam, events);
                if let Some(record) = self.record() {
                    record.continued += 1;
                }
                return Some((View::Joined(Box::new(joined)), beginning));
            }
            // It is not what it should be, and nobody gets it.
            Ok(Judged::Passes(passing)) => {
                let status = passing.answer.status;
                let why = Some("it does not go on with the answer");
                self.tried(&step, Recorded::UpstreamError, Some(status), why, Instant::now());
                return None;
            }
            judged => judged,
        };
        let unanswered = step.trial.unanswered.get();
        let unknown = self.record().map(|record| record.usage_unknown);
        let _ = self.concluded(&step, &kept, judged, pass, &mut None);
        // What this one used is not known to be nothing; but the answer's own use is still to come.
        if let (Some(record), Some(unknown)) = (self.record(), unknown) {
            record.usage_unknown |= unknown || unanswered || record.usage.take().is_some();
        }
        None
    }
}
