//! Why a request goes where it goes. A plan that nobody asks about says nothing, and costs nothing for it.

use std::fmt;

use super::answers::Subject;
use super::facts::Facts;
use super::rules::{RuleSet, Test};
use super::{Cause, Keys, NoPlan, Plan};
use crate::config::{Agent, NanoUsd};
use crate::health::{Look, Slot, Time, Why, write_number};

/// Bytes after which no more candidates are written into a record.
const NOTED: usize = 3000;

/// Who is told what a plan finds on its way.
pub(super) trait Trace {
    /// This rule does not match, because of the condition at this place.
    fn unmatched(&mut self, rule: usize, test: usize);
    /// So this target was judged.
    fn candidate(&mut self, provider: u16, slot: Option<Slot>, model: &str, verdict: Verdict);
}

/// Nobody.
impl Trace for () {
    fn unmatched(&mut self, _: usize, _: usize) {}

    fn candidate(&mut self, _: u16, _: Option<Slot>, _: &str, _: Verdict) {}
}

/// How a candidate was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is a target.
    Taken,
    /// It is not enabled.
    Disabled,
    /// It does not speak the client's protocol.
    OtherProtocol,
    /// It does not have the model, and nothing says what to ask it for instead.
    NoModel,
    /// There is no key for it.
    NoKey,
    /// The caller may not spend its stored keys.
    NoRight,
    /// It does not work at the moment.
    Unwell(Look),
    /// To go there costs this, which is more than is allowed.
    TooDear(NanoUsd),
    /// It does not work at the moment, but nothing else does.
    LastResort(Look),
}

impl Verdict {
    /// In a word, for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Disabled => "disabled",
            Self::OtherProtocol => "other_protocol",
            Self::NoModel => "no_model",
            Self::NoKey => "no_key",
            Self::NoRight => "no_right",
            Self::Unwell(_) => "unwell",
            Self::TooDear(_) => "too_dear",
            Self::LastResort(_) => "last_resort",
        }
    }

    fn write(self, help: Option<&str>, now: Time, f: &mut impl fmt::Write) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("taken"),
            Self::Disabled => f.write_str("it is not enabled"),
            Self::OtherProtocol => f.write_str("it does not speak the client's protocol"),
            Self::NoModel => f.write_str("it does not have this model: set its `modelAliases` or `defaultModel`"),
            Self::NoKey => write!(f, "there is no key for it: {}", help.unwrap_or("set its `apiKeyRef`")),
            Self::NoRight => f.write_str("the caller may not spend its stored key"),
            Self::Unwell(look) => write_look(look, now, f),
            Self::TooDear(cost) => {
                write!(f, "its cold prompt cache would cost ${}: more than `maxSwitchCostUsd`", dollars(cost))
            }
            Self::LastResort(look) => {
                f.write_str("taken, because nothing else can be used, though ")?;
                write_look(look, now, f)
            }
        }
    }
}

/// US dollars with as many decimals as it takes, and at least two.
fn dollars(amount: NanoUsd) -> String {
    let decimals = format!("{:09}", amount.0 % 1_000_000_000);
    let kept = decimals.trim_end_matches('0').len().max(2);
    format!("{}.{}", amount.0 / 1_000_000_000, &decimals[..kept])
}

fn write_look(look: Look, now: Time, f: &mut impl fmt::Write) -> fmt::Result {
    let seconds = |until: Time| now.until(until).as_millis().div_ceil(1000);
    match look {
        Look::Well | Look::Probing => f.write_str("it works"),
        Look::Open(until, why) => {
            write!(f, "it rests for {} s", seconds(until))?;
            why.map_or(Ok(()), |why| write!(f, ": {why}"))
        }
        Look::BeingTried(why) => {
            f.write_str("another request is finding out whether it works again")?;
            why.map_or(Ok(()), |why| write!(f, ": {why}"))
        }
        Look::Spent(until) => write!(f, "its rate limits leave no room for {} s", seconds(until)),
        Look::KeyRefused(until, Why::Money) => {
            write!(f, "its key has no money left; it is tried again in {} s", seconds(until))
        }
        Look::KeyRefused(until, _) => {
            write!(f, "its key was refused (401); it is tried again in {} s", seconds(until))
        }
    }
}

/// A rule that does not match, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruled {
    /// Its place.
    pub rule: usize,
    /// Its name.
    pub name: Option<String>,
    /// The condition that does not hold, as the configuration names it.
    pub condition: &'static str,
    /// What was found instead.
    pub found: String,
}

/// A target that was thought of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The provider's name.
    pub provider: String,
    /// The credential, where it came to that.
    pub slot: Option<Slot>,
    /// The model that it would be asked for.
    pub model: String,
    /// How it was judged.
    pub verdict: Verdict,
    /// What to do about it, where the verdict alone does not say.
    pub help: Option<String>,
}

/// Why a request goes where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The rules that do not match, up to the one that does.
    pub unmatched: Vec<Ruled>,
    /// What decided, in words.
    pub decided: String,
    /// All who were thought of, in the order in which they were.
    pub candidates: Vec<Candidate>,
    now: Time,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Ruled { rule, name, condition, found } in &self.unmatched {
            write!(f, "rule {}", rule + 1)?;
            if let Some(name) = name {
                write!(f, " `{name}`")?;
            }
            writeln!(f, ": no, `{condition}` does not hold: {found}")?;
        }
        writeln!(f, "{}", self.decided)?;
        let mut taken = 0;
        for Candidate { provider, slot, model, verdict, help } in &self.candidates {
            write_candidate(f, &mut taken, (provider, model), *slot, *verdict, (help.as_deref(), self.now))?;
        }
        Ok(())
    }
}

/// One line of a candidate; those that are targets are counted. It is put together from its pieces: the record of every
/// request has such lines, and formatting would cost as much as all the rest of the decision.
fn write_candidate(
    out: &mut impl fmt::Write,
    taken: &mut usize,
    (provider, model): (&str, &str),
    slot: Option<Slot>,
    verdict: Verdict,
    (help, now): (Option<&str>, Time),
) -> fmt::Result {
    match verdict {
        Verdict::Taken | Verdict::LastResort(_) => {
            *taken += 1;
            write_number(*taken, out)?;
            out.write_str(". ")?;
        }
        _ => out.write_str("-  ")?,
    }
    out.write_str(provider)?;
    if !model.is_empty() {
        out.write_str(", model ")?;
        out.write_str(model)?;
    }
    if let Some(slot) = slot {
        out.write_str(", ")?;
        slot.write(out)?;
    }
    out.write_str(": ")?;
    verdict.write(help, now, out)?;
    out.write_char('\n')
}

impl Explanation {
    /// In one line, for a message: who was refused and why.
    pub fn refusals(&self) -> String {
        struct Line<'a>(&'a Candidate, Time);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`: ", self.0.provider)?;
                self.0.verdict.write(self.0.help.as_deref(), self.1, f)
            }
        }
        let mut lines: Vec<String> = self.candidates.iter().map(|one| Line(one, self.now).to_string()).collect();
        lines.dedup();
        lines.join("; ")
    }
}

/// Writes down what a plan finds.
pub(super) struct Recorder<'r, 'f> {
    pub(super) rules: &'r RuleSet,
    pub(super) facts: &'r Facts<'f>,
    pub(super) keys: &'r dyn Keys,
    pub(super) unmatched: Vec<Ruled>,
    pub(super) candidates: Vec<Candidate>,
}

impl Trace for Recorder<'_, '_> {
    fn unmatched(&mut self, rule: usize, test: usize) {
        let name = self.rules.rules[rule].rule.name.clone();
        let (condition, found) = self.rules.tests[test].describe(self.facts, self.rules);
        self.unmatched.push(Ruled { rule, name, condition, found });
    }

    fn candidate(&mut self, provider: u16, slot: Option<Slot>, model: &str, verdict: Verdict) {
        let known = &self.rules.providers[usize::from(provider)];
        let help = (verdict == Verdict::NoKey)
            .then(|| self.keys.why_none(provider).unwrap_or_else(|| known.no_key.to_string()));
        self.candidates.push(Candidate { provider: known.name.to_string(), slot, model: model.into(), verdict, help });
    }
}

impl Recorder<'_, '_> {
    pub(super) fn finish(self, result: &Result<Plan<'_>, NoPlan<'_>>, now: Time) -> Explanation {
        let mut decided = String::new();
        self.rules.write_decided(result, &mut decided);
        Explanation { unmatched: self.unmatched, decided: decided.trim_end().into(), candidates: self.candidates, now }
    }
}

/// Writes down, in as few words as it takes, how candidates were judged: for the record of a request.
pub(super) struct Noted<'r> {
    pub(super) rules: &'r RuleSet,
    pub(super) keys: &'r dyn Keys,
    pub(super) now: Time,
    pub(super) lines: String,
    pub(super) taken: usize,
}

impl Trace for Noted<'_> {
    fn unmatched(&mut self, _: usize, _: usize) {}

    fn candidate(&mut self, provider: u16, slot: Option<Slot>, model: &str, verdict: Verdict) {
        if self.lines.len() > NOTED {
            return;
        }
        let known = &self.rules.providers[usize::from(provider)];
        let help = (verdict == Verdict::NoKey)
            .then(|| self.keys.why_none(provider).unwrap_or_else(|| known.no_key.to_string()));
        let about = (help.as_deref(), self.now);
        // Memory takes every line.
        let _ = write_candidate(&mut self.lines, &mut self.taken, (&known.name, model), slot, verdict, about);
    }
}

impl RuleSet {
    /// What decided, in words, a line each.
    pub(super) fn write_decided(&self, result: &Result<Plan<'_>, NoPlan<'_>>, out: &mut String) {
        match result {
            Ok(plan) => {
                if let Some(at) = plan.rule {
                    self.push_rule(at, out);
                    out.push_str(match plan.cause {
                        Cause::Rule(..) | Cause::Subscription => ": yes\n",
                        _ => ": yes, it leaves the providers to others\n",
                    });
                }
                match plan.cause {
                    Cause::Rule(..) => {}
                    Cause::Agent(name) => out.extend(["agent type `", name, "` is in `agentRules`\n"]),
                    Cause::Tier(tier) => out.extend(["the model contains `", tier, "` of `modelTierRules`\n"]),
                    Cause::Default => out.push_str("`defaultProvider`, then `fallbackChain`\n"),
                    Cause::Subscription => {
                        out.push_str("the caller's subscription is used up: `onSubscriptionLimit`\n");
                    }
                }
            }
            Err(NoPlan::Refused { rule, message, .. }) => {
                self.push_rule(*rule, out);
                out.extend([" refuses: ", message, "\n"]);
            }
            Err(NoPlan::NoTarget { rule }) => {
                if let Some(at) = rule {
                    self.push_rule(*at, out);
                    out.push_str(": yes\n");
                }
                out.push_str("no provider can take this request\n");
            }
        }
    }

    /// A rule by its number, and its name if it has one.
    fn push_rule(&self, at: usize, out: &mut String) {
        out.push_str("rule ");
        // Memory takes every digit.
        let _ = write_number(at + 1, out);
        if let Some(name) = self.rules.get(at).and_then(|rule| rule.rule.name.as_deref()) {
            out.extend([" `", name, "`"]);
        }
    }
}

impl Test {
    /// The condition's name in the configuration, and what was found where it does not hold.
    fn describe(&self, facts: &Facts<'_>, rules: &RuleSet) -> (&'static str, String) {
        let text = |name: &str, value: Option<&str>| value.map_or(format!("no {name}"), |value| format!("`{value}`"));
        let yes = |is: bool, what: &str| if is { what.to_string() } else { format!("no {what}") };
        match self {
            Self::Stream(_) => ("stream", yes(facts.stream, "stream")),
            Self::Protocol(_) => ("protocol", format!("{:?}", facts.protocol)),
            Self::InFlightOver(_) => ("inFlightOver", format!("{}", facts.in_flight)),
            Self::Text(Subject::Model, _) => ("model", text("model", facts.model)),
            Self::Text(Subject::Session, _) => ("session", text("session", facts.party.session.as_deref())),
            Self::Text(Subject::Project, _) => ("project", text("project", facts.party.project.as_deref())),
            Self::Text(Subject::KeyId, _) => ("keyId", text("key", facts.key_id)),
            Self::Text(Subject::AgentType, _) => ("agentType", text("agent type", facts.party.agent_type())),
            Self::Text(subject @ Subject::Header(at), _) => {
                // Its value may be anything; its name is the configuration's.
                let is_there = facts.text(*subject, &rules.headers).is_some();
                ("headers", format!("{} `{}`", if is_there { "another value of" } else { "no" }, rules.headers[*at]))
            }
            Self::Hours(_) => {
                let minute = facts.unix.rem_euclid(86_400) / 60;
                ("hoursUtc", format!("it is {:02}:{:02} UTC", minute / 60, minute % 60))
            }
            Self::Tools(_) => ("tools", yes(facts.tools(), "tools")),
            Self::Thinking(_) => ("thinking", yes(facts.thinking(), "thinking")),
            Self::Agent(Agent::Main) => ("agent", "an agent asks".into()),
            Self::Agent(Agent::Sub) => ("agent", "the main loop asks".into()),
            Self::PromptTokensOver(_) => ("promptTokensOver", format!("about {}", facts.prompt_tokens())),
            Self::PromptTokensUpTo(_) => ("promptTokensUpTo", format!("about {}", facts.prompt_tokens())),
            Self::Images(_) => ("images", yes(facts.images(), "images")),
            Self::Never => ("providers", "none of them is configured".into()),
        }
    }
}
