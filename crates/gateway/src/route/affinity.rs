//! Where a session's prompts are in a cache: the provider and the key that served it last.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::health::{AsItIs, Slot, Time};
use crate::party::Party;

/// Sessions that are remembered.
const SESSIONS: usize = 4096;
/// No provider keeps a prompt longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// A session, the agent within it and the model that it asks for: each has a cache of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

/// Where a session was served last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// The provider's place in the configuration.
    pub provider: u16,
    /// The credential.
    pub slot: Slot,
    used: Time,
    /// Bytes and tokens of the last prompt that was measured.
    prompt: (u64, u64),
    /// Tokens that the provider has in its cache.
    warm: u64,
    warm_until: Time,
}

impl Home {
    /// Whether it is there.
    pub(super) fn is_at(&self, provider: u16, slot: Slot) -> bool {
        (self.provider, self.slot) == (provider, slot)
    }

    /// Tokens that would have to be read anew elsewhere.
    pub(super) fn warm(&self, now: Time) -> u64 {
        if now < self.warm_until { self.warm } else { 0 }
    }

    /// Bytes and tokens of the last prompt.
    pub(super) fn prompt(&self) -> (u64, u64) {
        self.prompt
    }
}

/// What an answer told of its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Its bytes and tokens.
    pub prompt: (u64, u64),
    /// Tokens that the provider keeps in its cache.
    pub warm: u64,
    /// For how long.
    pub keeps: Duration,
}

type Homes = HashMap<SessionKey, Home, BuildHasherDefault<AsItIs>>;

/// The homes of sessions, bounded in number: those that were not used for longest are forgotten.
#[derive(Debug, Default)]
pub struct Affinity {
    homes: Mutex<Homes>,
    hasher: RandomState,
}

impl Affinity {
    fn lock(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session and agent that ask, and for which model; `None`: the client does not tell.
    pub fn key(&self, party: &Party<'_>, model: Option<&str>) -> Option<SessionKey> {
        let session = party.session.as_deref()?;
        // Clients that do not name their agents still keep them apart from the main loop.
        let agent = party.agent.unwrap_or(if party.is_sub_agent() { "sub" } else { "" });
        let mut hasher = self.hasher.build_hasher();
        // With the lengths no two of them are the same text.
        let lengths = (session.len() as u64) << 32 | (agent.len() as u64) << 1 | u64::from(model.is_some());
        hasher.write_u64(lengths);
        [session, agent, model.unwrap_or("")].iter().for_each(|text| hasher.write(text.as_bytes()));
        Some(SessionKey(hasher.finish()))
    }

    /// Where it was served last.
    pub fn find(&self, now: Time, key: SessionKey) -> Option<Home> {
        self.lock().get(&key).filter(|home| now < home.used + LONGEST).copied()
    }

    /// It is served here now.
    pub fn remember(&self, now: Time, key: SessionKey, provider: u16, slot: Slot) {
        let mut homes = self.lock();
        if homes.len() >= SESSIONS && !homes.contains_key(&key) {
            let mut times: Vec<Time> = homes.values().map(|home| home.used).collect();
            let (_, quarter, _) = times.select_nth_unstable(SESSIONS / 4);
            let quarter = *quarter;
            homes.retain(|_, home| home.used > quarter);
        }
        let fresh = Home { provider, slot, used: now, prompt: (0, 0), warm: 0, warm_until: now };
        let home = homes.entry(key).or_insert(fresh);
        if (home.provider, home.slot) != (provider, slot) {
            *home = Home { prompt: home.prompt, ..fresh };
        }
        home.used = now;
    }

    /// What its prompt came to there, and what of it the provider keeps. Nothing is learned of a home that it has left.
    pub fn measure(&self, now: Time, key: SessionKey, (provider, slot): (u16, Slot), seen: &Measured) {
        if let Some(home) = self.lock().get_mut(&key).filter(|home| home.is_at(provider, slot)) {
            (home.prompt, home.warm, home.warm_until) = (seen.prompt, seen.warm, now + seen.keeps.min(LONGEST));
        }
    }

    /// The same for another configuration: `place` gives a provider's new place, if it is still there.
    #[must_use]
    pub fn moved(&self, place: impl Fn(u16) -> Option<u16>) -> Self {
        let moved = |(key, home): (&SessionKey, &Home)| Some((*key, Home { provider: place(home.provider)?, ..*home }));
        Self { homes: Mutex::new(self.lock().iter().filter_map(moved).collect()), hasher: self.hasher.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_ms(seconds * 1000)
    }

    #[test]
    fn a_session_is_at_home_where_it_was_served_until_its_prompts_are_cold() {
        let (affinity, key) = (Affinity::default(), SessionKey(1));
        assert_eq!(affinity.find(at(0), key), None);
        affinity.remember(at(0), key, 3, Slot::Stored(1));
        let seen = Measured { prompt: (4000, 1000), warm: 900, keeps: Duration::from_secs(300) };
        affinity.measure(at(0), key, (3, Slot::Stored(1)), &seen);
        // Others that end later elsewhere say nothing of this home.
        affinity.measure(at(0), key, (3, Slot::Stored(0)), &Measured { warm: 0, ..seen });
        affinity.measure(at(0), key, (2, Slot::Stored(1)), &Measured { warm: 0, ..seen });
        let home = affinity.find(at(299), key).unwrap();
        assert_eq!((home.provider, home.slot, home.warm(at(299)), home.warm(at(300))), (3, Slot::Stored(1), 900, 0));
        affinity.remember(at(300), key, 3, Slot::Stored(0));
        let moved = affinity.find(at(300), key).unwrap();
        assert_eq!((moved.slot, moved.prompt(), moved.warm(at(1))), (Slot::Stored(0), (4000, 1000), 0));
        assert_eq!(affinity.find(at(300 + 3600), key), None);
    }

    #[test]
    fn sessions_without_end_find_an_end_and_the_oldest_go() {
        let affinity = Affinity::default();
        for n in 0..10_000 {
            affinity.remember(at(n), SessionKey(n), 0, Slot::Client);
            affinity.remember(at(n), SessionKey(0), 0, Slot::Client);
        }
        assert!(affinity.lock().len() <= SESSIONS);
        assert!(affinity.find(at(10_000), SessionKey(9_999)).is_some());
        assert!(affinity.find(at(10_000), SessionKey(0)).is_some(), "it is used all the time");
    }

    #[test]
    fn a_new_configuration_moves_the_providers() {
        let affinity = Affinity::default();
        affinity.remember(at(0), SessionKey(1), 0, Slot::Client);
        affinity.remember(at(0), SessionKey(2), 1, Slot::Client);
        let affinity = affinity.moved(|old| (old == 1).then_some(0));
        assert_eq!(affinity.find(at(0), SessionKey(1)), None);
        assert_eq!(affinity.find(at(0), SessionKey(2)).map(|home| home.provider), Some(0));
    }
}
