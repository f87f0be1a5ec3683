//! The plan: the first rule that matches, then the kinds of agents, the tiers of models, the default, the chain.

use super::answers::Answers;
use super::candidates::Gatherer;
use super::explain::{Explanation, Noted, Recorder, Trace};
use super::facts::Facts;
use super::model::Rank;
use super::rules::{Compiled, RuleSet};
use super::{Candidate, Cause, Changes, Plan, Purse, Verdict, View};
use crate::error::{ErrorKind, Refusal, Retry};

/// Why a request goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlan<'p> {
    /// A rule says so.
    Refused {
        /// Its place.
        rule: usize,
        /// Its name.
        name: Option<&'p str>,
        /// What the client is told.
        message: &'p str,
    },
    /// No candidate can take it; [`RuleSet::refusal`] says why.
    NoTarget {
        /// The place of the rule that matched.
        rule: Option<usize>,
    },
}

impl RuleSet {
    /// Whom a request goes to.
    pub fn plan<'p>(&'p self, facts: &'p Facts<'_>, purse: &Purse, view: &View<'_>) -> Result<Plan<'p>, NoPlan<'p>> {
        self.plan_with(facts, purse, view, &mut ())
    }

    /// The same, with what decided and how each candidate was judged in words, for the record; nothing where there is
    /// nothing to choose from.
    pub fn plan_noted<'p>(
        &'p self,
        facts: &'p Facts<'_>,
        purse: &Purse,
        view: &View<'_>,
    ) -> (Result<Plan<'p>, NoPlan<'p>>, Option<Box<str>>) {
        if !self.has_choice() {
            return (self.plan(facts, purse, view), None);
        }
        let lines = String::with_capacity(256);
        let mut noted = Noted { rules: self, keys: view.keys, now: view.now, lines, taken: 0 };
        let plan = self.plan_with(facts, purse, view, &mut noted);
        let mut decided = String::with_capacity(64);
        self.write_decided(&plan, &mut decided);
        if noted.lines.is_empty() {
            decided.truncate(decided.trim_end().len());
        }
        // Made in its right size: to cut a buffer to its size costs more than to fill another one.
        let text = [&*decided, noted.lines.trim_end()].concat();
        (plan, Some(text.into()))
    }

    /// Whether there is anything to choose from.
    fn has_choice(&self) -> bool {
        let others = self.chain.iter().any(|provider| *provider != self.default);
        let pools = self.providers.iter().any(|provider| provider.keys > 1);
        others || pools || !self.rules.is_empty() || !self.agents.is_empty() || !self.tiers.is_empty()
    }

    /// The same, with the reasons.
    pub fn explain<'p>(
        &'p self,
        facts: &'p Facts<'_>,
        purse: &Purse,
        view: &View<'_>,
    ) -> (Result<Plan<'p>, NoPlan<'p>>, Explanation) {
        let mut recorder =
            Recorder { rules: self, facts, keys: view.keys, unmatched: Vec::new(), candidates: Vec::new() };
        let result = self.plan_with(facts, purse, view, &mut recorder);
        let explanation = recorder.finish(&result, view.now);
        (result, explanation)
    }

    /// What the client of a request without a plan is told.
    pub fn refusal(&self, facts: &Facts<'_>, purse: &Purse, view: &View<'_>) -> Refusal {
        let (result, explanation) = self.explain(facts, purse, view);
        if let Err(NoPlan::Refused { message, .. }) = result {
            return Refusal::new(ErrorKind::Permission, message.to_string()).retry(Retry::Never);
        }
        let verdicts = || explanation.candidates.iter().map(|candidate| candidate.verdict);
        let any = |verdict: Verdict| verdicts().any(|one| one == verdict);
        // What is not asked of a model passes to a provider of the client's own protocol, or to none: coming again is no use.
        let is_untranslated = any(Verdict::OtherProtocol)
            && verdicts().all(|verdict| matches!(verdict, Verdict::OtherProtocol | Verdict::Disabled));
        let kind = if any(Verdict::NoRight) || any(Verdict::NoKey) {
            ErrorKind::Authentication
        } else if any(Verdict::NoModel) || is_untranslated {
            ErrorKind::NotFound
        } else {
            ErrorKind::Unavailable
        };
        let message = if any(Verdict::NoRight) {
            "no key: send your own in `x-api-key` or `authorization`, or the gateway's token (`token` in CCO_HOME), or \
             set `server.openStoredKeys`"
                .into()
        } else if verdicts().all(|verdict| verdict == Verdict::Disabled) {
            "no provider is enabled: enable one of `routing.defaultProvider` and `routing.fallbackChain`".into()
        } else if is_untranslated {
            let protocol = facts.protocol.as_str();
            format!(
                "this is not translated: it takes a provider that speaks `{protocol}` itself; {}",
                explanation.refusals()
            )
        } else if let [Candidate { provider, verdict: Verdict::NoKey, help: Some(help), .. }] =
            &explanation.candidates[..]
        {
            format!("there is no key for the provider `{provider}`: {help}")
        } else {
            format!("no provider can take this request: {}", explanation.refusals())
        };
        let code = is_untranslated.then(|| "unknown_url".into());
        Refusal { code, ..Refusal::new(kind, message).retry(Retry::Never) }
    }

    fn plan_with<'p, T: Trace>(
        &'p self,
        facts: &'p Facts<'_>,
        purse: &Purse,
        view: &View<'_>,
        trace: &mut T,
    ) -> Result<Plan<'p>, NoPlan<'p>> {
        let session = if self.affinity { view.affinity.key(&facts.party, facts.model) } else { None };
        let home = session.and_then(|key| view.affinity.find(view.now, key));
        if let Some(home) = &home {
            let (bytes, tokens) = home.prompt();
            facts.scale_by(bytes, tokens);
        }
        let matched = self.matching(facts, trace);
        if let Some((rule, Compiled { rule: config, .. })) = matched
            && let Some(message) = config.then.refuse.as_deref()
        {
            return Err(NoPlan::Refused { rule, name: config.name.as_deref(), message });
        }

        let mut gatherer = Gatherer::new(self, facts, purse, view, home, trace);
        gatherer.model = matched.and_then(|(_, rule)| rule.rule.then.model.as_deref()).or(facts.model);
        let used_up = purse.own.is_some_and(|own| view.subscriptions.until(view.now, own.id).is_some());
        let instead = self.on_subscription_limit.filter(|_| used_up);
        let cause = match instead.is_some_and(|instead| gatherer.replaces(instead)) {
            true => Cause::Subscription,
            // Who cannot be served by another hears from the provider itself that the subscription is used up.
            false => {
                let cause = self.first(matched, &mut gatherer);
                if matched.is_none_or(|(_, rule)| rule.rule.then.fallback) {
                    for provider in &self.chain {
                        gatherer.consider(*provider, None, Rank::Fallback);
                    }
                }
                cause
            }
        };

        gatherer.settle();
        let (mut targets, resort) = (gatherer.targets, gatherer.resort);
        let rule = matched.map(|(at, _)| at);
        let mut last_resort = false;
        if targets.is_empty() {
            let Some((_, target, verdict)) = resort else { return Err(NoPlan::NoTarget { rule }) };
            trace.candidate(target.provider, Some(target.slot), target.model, verdict);
            targets.push(target);
            last_resort = true;
        }
        Ok(Plan {
            targets,
            cause,
            rule,
            changes: matched.map(|(_, rule)| Changes::of(&rule.rule)).unwrap_or_default(),
            last_resort,
            session,
        })
    }

    /// The first rule that matches.
    fn matching<T: Trace>(&self, facts: &Facts<'_>, trace: &mut T) -> Option<(usize, &Compiled)> {
        if self.gates.is_empty() {
            return None;
        }
        let mut answers = Answers::new(self, facts);
        let mut gates = self.gates.iter().enumerate();
        // Most rules are refused by their gates: a loop of its own that does nothing else.
        while let Some((at, _)) = gates.find(|(at, gate)| {
            let may_pass = answers.may_pass(gate);
            if !may_pass {
                trace.unmatched(*at, gate.test());
            }
            may_pass
        }) {
            let rule = &self.rules[at];
            let failed = rule.tests.iter().copied().find(|test| !answers.ask(*test));
            let Some(test) = failed else { return Some((at, rule)) };
            trace.unmatched(at, test);
        }
        None
    }

    /// Who comes first.
    fn first<'p, T: Trace>(
        &'p self,
        matched: Option<(usize, &'p Compiled)>,
        gatherer: &mut Gatherer<'p, '_, '_, T>,
    ) -> Cause<'p> {
        if let Some((at, rule)) = matched
            && !rule.choices.is_empty()
        {
            gatherer.choices(&rule.choices, rule.pick);
            return Cause::Rule(at, rule.rule.name.as_deref());
        }
        if !self.agents.is_empty()
            && let Some(agent) = gatherer.facts.party.agent_type()
            && let Some((name, choice)) = self.agents.iter().find(|(name, _)| name.matches(agent))
        {
            gatherer.consider(choice.provider, choice.model.as_deref(), Rank::Chosen);
            return Cause::Agent(name.as_str());
        }
        if let Some(model) = gatherer.model
            && let Some((tier, provider)) = self.tiers.iter().find(|(tier, _)| contains(model, tier))
        {
            gatherer.consider(*provider, None, Rank::Chosen);
            return Cause::Tier(tier);
        }
        gatherer.consider(self.default, None, Rank::Chosen);
        Cause::Default
    }
}

/// Whether a text contains a part, which is in lower case, in letters of either case.
fn contains(text: &str, part: &str) -> bool {
    text.as_bytes().windows(part.len().max(1)).any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}
