//! One candidate after the other: whether it can be a target, under which name of the model and with which key.

use super::explain::{Trace, Verdict};
use super::facts::Facts;
use super::model::Rank;
use super::rules::{Choice, RuleSet};
use super::{Home, Purse, TARGETS, Target, View};
use crate::config::{NanoUsd, Pick};
use crate::health::{Place, Slot, Time};

/// Which key a candidate may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// The caller's own where it belongs, else ours.
    Any,
    /// Ours only.
    Stored,
}

/// Gathers targets.
pub(super) struct Gatherer<'p, 'f, 'g, T> {
    pub(super) rules: &'p RuleSet,
    pub(super) facts: &'p Facts<'f>,
    pub(super) purse: &'g Purse,
    pub(super) view: &'g View<'g>,
    /// Where the session was served last.
    pub(super) home: Option<Home>,
    /// The model, as the rule or the request names it.
    pub(super) model: Option<&'p str>,
    keys: Keys,
    pub(super) trace: &'g mut T,
    pub(super) targets: Vec<Target<'p>>,
    /// Those to which it would cost too much to switch: for a session that can stay where it is.
    dear: Vec<(NanoUsd, Target<'p>)>,
    /// Whether the session's home is among the candidates.
    stays: bool,
    /// The one that could be used the soonest of those that cannot be used.
    pub(super) resort: Option<(Time, Target<'p>, Verdict)>,
    /// Provider and model of all who were thought of, and the name that this model was asked for by if they have it.
    considered: Vec<(u16, &'p str, Option<&'p str>)>,
}

impl<'p, 'f, 'g, T: Trace> Gatherer<'p, 'f, 'g, T> {
    pub(super) fn new(
        rules: &'p RuleSet,
        facts: &'p Facts<'f>,
        purse: &'g Purse,
        view: &'g View<'g>,
        home: Option<Home>,
        trace: &'g mut T,
    ) -> Self {
        Self {
            rules,
            facts,
            purse,
            view,
            home,
            model: facts.model,
            keys: Keys::Any,
            trace,
            targets: Vec::with_capacity(rules.chain.len() + 1),
            dear: Vec::new(),
            stays: false,
            resort: None,
            considered: Vec::with_capacity(rules.chain.len() + 1),
        }
    }

    /// The providers of a rule, in the order of its choice.
    pub(super) fn choices(&mut self, choices: &'p [Choice], pick: Pick) {
        let mut order: [usize; TARGETS] = std::array::from_fn(|at| at);
        let order = &mut order[..choices.len().min(TARGETS)];
        match pick {
            Pick::Order => {}
            Pick::Weight => draw(order, |at| u64::from(choices[at].weight), self.view.chance),
            Pick::Latency => order.sort_by_key(|at| self.first_ms(&choices[*at])),
        }
        // Among equals a session stays where it is.
        if let (Pick::Weight | Pick::Latency, Some(home)) = (pick, self.home)
            && let Some(at) = order.iter().position(|at| choices[*at].provider == home.provider)
        {
            order[..=at].rotate_right(1);
        }
        for at in order.iter() {
            self.consider(choices[*at].provider, choices[*at].model.as_deref(), Rank::Chosen);
        }
    }

    /// How long a choice takes to begin an answer; one that has never been asked comes first, to be known.
    fn first_ms(&self, choice: &'p Choice) -> u32 {
        let known = &self.rules.providers[usize::from(choice.provider)];
        let asked = choice.model.as_deref().or(self.model).unwrap_or("");
        let Ok(model) = known.names.resolve(asked, Rank::Chosen) else { return u32::MAX };
        let stored = self.view.keys.stored(choice.provider);
        let slots = (0..64).filter(|bit| stored & (1 << bit) != 0).map(Slot::Stored);
        let seen = slots.chain([Slot::Client, Slot::None]).filter_map(|slot| {
            let place = Place { provider: choice.provider, slot, model, operation: self.facts.operation };
            self.view.health.look(self.view.now, &place, 0).first_ms
        });
        seen.min().unwrap_or(0)
    }

    /// Whether more targets are wanted.
    pub(super) fn is_full(&self) -> bool {
        // What is not held cannot go to a second one.
        self.targets.len() >= if self.facts.operation.is_held() { TARGETS } else { 1 }
    }

    /// One provider in place of all others, with a key of ours. `false`: it cannot be asked, and is as if nobody had
    /// thought of it.
    pub(super) fn replaces(&mut self, provider: u16) -> bool {
        self.keys = Keys::Stored;
        self.consider(provider, None, Rank::Fallback);
        let can = !self.targets.is_empty() || !self.dear.is_empty() || self.resort.is_some();
        if !can {
            self.keys = Keys::Any;
            self.considered.clear();
        }
        can
    }

    /// One provider.
    pub(super) fn consider(&mut self, provider: u16, model: Option<&'p str>, rank: Rank) {
        if self.is_full() {
            return;
        }
        let known = &self.rules.providers[usize::from(provider)];
        let asked = model.or(self.model).unwrap_or("");
        let resolved = if asked.is_empty() { Ok("") } else { known.names.resolve(asked, rank) };
        let name = resolved.unwrap_or(asked);
        // One that takes the model by its name is not asked for another in its place as well.
        let known_already =
            |(of, model, by): &(u16, &str, Option<&str>)| *of == provider && (*model == name || *by == Some(asked));
        if self.considered.iter().any(known_already) {
            return;
        }
        self.considered.push((provider, name, resolved.is_ok().then_some(asked)));
        if !known.enabled {
            return self.refuse(provider, asked, Verdict::Disabled);
        }
        if !known.serves(self.facts.protocol, self.facts.operation) {
            return self.refuse(provider, asked, Verdict::OtherProtocol);
        }
        let Ok(model) = resolved else {
            return self.refuse(provider, asked, Verdict::NoModel);
        };
        let takes_own = self.keys == Keys::Any && known.takes_callers_keys;
        if takes_own && self.purse.own.is_some_and(|own| own.home == provider) {
            return self.judge(provider, Slot::Client, model);
        }
        match self.view.keys.stored(provider) {
            0 if known.keyless => self.judge(provider, Slot::None, model),
            0 => self.refuse(provider, model, Verdict::NoKey),
            _ if !self.purse.stored => self.refuse(provider, model, Verdict::NoRight),
            stored if stored.is_power_of_two() => {
                self.judge(provider, Slot::Stored(stored.trailing_zeros() as u8), model);
            }
            stored => self.pool(provider, stored, model),
        }
    }

    fn refuse(&mut self, provider: u16, model: &'p str, verdict: Verdict) {
        self.trace.candidate(provider, None, model, verdict);
    }

    fn place(&self, provider: u16, slot: Slot, model: &'p str) -> Place<'p> {
        Place { provider, slot, model, operation: self.facts.operation }
    }

    /// Several stored keys: the one that the session knows, then the ones with the most left, by chance among equals.
    fn pool(&mut self, provider: u16, stored: u64, model: &'p str) {
        let (now, health, chance) = (self.view.now, self.view.health, self.view.chance);
        let home = self.home.filter(|home| home.provider == provider).map(|home| home.slot);
        let count = stored.count_ones();
        let mut keys: Vec<(bool, u32, u32, Slot)> = (0..64u8)
            .filter(|bit| stored & (1 << bit) != 0)
            .enumerate()
            .map(|(nth, bit)| {
                let slot = Slot::Stored(bit);
                let left = health.look(now, &self.place(provider, slot, model), 0).left.unwrap_or(1000);
                // Steps of a tenth: small differences are no reason to prefer one.
                let used = 10 - (left / 100).min(10);
                (home != Some(slot), used, (nth as u32 + (chance % u64::from(count)) as u32) % count, slot)
            })
            .collect();
        keys.sort_unstable();
        for (.., slot) in keys {
            self.judge(provider, slot, model);
        }
    }

    /// One target: whether it works, and what it costs to go there.
    fn judge(&mut self, provider: u16, slot: Slot, model: &'p str) {
        if self.is_full() {
            return;
        }
        let target = Target { provider, slot, model, renames: self.renames(model) };
        self.stays |= self.home.is_some_and(|home| home.is_at(provider, slot));
        let verdict = match self.too_dear(&target) {
            Some(cost) => {
                self.dear.push((cost, target));
                Verdict::TooDear(cost)
            }
            None => self.take(target),
        };
        self.trace.candidate(provider, Some(slot), model, verdict);
    }

    /// Takes a target if it works.
    fn take(&mut self, target: Target<'p>) -> Verdict {
        let place = self.place(target.provider, target.slot, target.model);
        let look = self.view.health.look(self.view.now, &place, self.facts).look;
        if look.is_open_to_requests() {
            self.targets.push(target);
            return Verdict::Taken;
        }
        let until = look.until().unwrap_or(self.view.now);
        if self.resort.as_ref().is_none_or(|(soonest, ..)| until < *soonest) {
            self.resort = Some((until, target, Verdict::LastResort(look)));
        }
        Verdict::Unwell(look)
    }

    fn renames(&self, model: &str) -> bool {
        !model.is_empty() && (self.facts.long_context || self.facts.model != Some(model))
    }

    /// What it would cost to go there, if that is more than is allowed.
    fn too_dear(&self, target: &Target<'p>) -> Option<NanoUsd> {
        let (limit, home) = (self.rules.max_switch?, self.home?);
        if home.is_at(target.provider, target.slot) {
            return None;
        }
        let warm = home.warm(self.view.now);
        let cost = (warm > 0).then(|| self.view.prices.cold(target.provider, target.model, warm))??;
        (cost > limit).then_some(cost)
    }

    /// Once all candidates were looked at: no price keeps a session at a home that is none of them. Then it goes where it
    /// has to go, and of those that are dear to the cheapest first.
    pub(super) fn settle(&mut self) {
        if self.stays {
            return;
        }
        self.dear.sort_by_key(|(cost, _)| cost.0);
        for (_, target) in std::mem::take(&mut self.dear) {
            if self.is_full() {
                return;
            }
            let verdict = self.take(target);
            self.trace.candidate(target.provider, Some(target.slot), target.model, verdict);
        }
    }
}

/// Puts an order by chance, each first as often as its weight says; those of no weight stay behind.
fn draw(order: &mut [usize], weight: impl Fn(usize) -> u64, mut chance: u64) {
    for from in 0..order.len() {
        let sum: u64 = order[from..].iter().map(|at| weight(*at)).sum();
        if sum == 0 {
            return;
        }
        chance = mix(chance);
        let mut at = chance % sum;
        let mut drawn = from;
        while at >= weight(order[drawn]) {
            at -= weight(order[drawn]);
            drawn += 1;
        }
        order[from..=drawn].rotate_right(1);
    }
}

/// The next number of a sequence in which every bit depends on every bit before.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}
