//! Callers whose subscription is used up, and until when.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::health::Time;

/// Callers that are remembered.
const CALLERS: usize = 1024;
/// Where the refusal does not say how long it holds.
const UNKNOWN: Duration = Duration::from_secs(300);

/// A subscription that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedUp {
    /// The provider's name.
    pub provider: Box<str>,
    /// The caller's key, as records show it.
    pub credential: Box<str>,
    /// Until then.
    pub until: Time,
}

/// Until when subscriptions are used up, bounded in number: the next to end are forgotten first.
#[derive(Debug, Default)]
pub struct Subscriptions {
    known: Mutex<HashMap<u64, UsedUp>>,
    hasher: RandomState,
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, UsedUp>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By which a key is known again; it says nothing about the key.
    pub fn id(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The subscription behind this key is used up for so long; `of`: the provider, and the key as records show it.
    pub fn used_up(&self, now: Time, id: u64, of: &(&str, &str), wait: Option<Duration>) {
        let mut known = self.lock();
        if known.len() >= CALLERS {
            known.retain(|_, one| one.until > now);
        }
        if known.len() >= CALLERS
            && let Some(next) = known.iter().min_by_key(|(_, one)| one.until).map(|(id, _)| *id)
        {
            known.remove(&next);
        }
        let (provider, credential) = (of.0.into(), of.1.into());
        known.insert(id, UsedUp { provider, credential, until: now + wait.unwrap_or(UNKNOWN) });
    }

    /// Until when it is used up, if it is.
    pub fn until(&self, now: Time, id: u64) -> Option<Time> {
        self.lock().get(&id).map(|one| one.until).filter(|until| *until > now)
    }

    /// All that are used up now, the first to end first.
    pub fn all(&self, now: Time) -> Vec<UsedUp> {
        let mut all: Vec<UsedUp> = self.lock().values().filter(|one| one.until > now).cloned().collect();
        all.sort_by(|a, b| (a.until, &a.credential).cmp(&(b.until, &b.credential)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_used_up_until_its_window_begins_anew() {
        let subscriptions = Subscriptions::default();
        let (one, other) = (subscriptions.id("sk-ant-oat01-a"), subscriptions.id("sk-ant-oat01-b"));
        let at = |seconds: u64| Time::from_ms(seconds * 1000);
        subscriptions.used_up(at(0), one, &("a", "…aaaa"), Some(Duration::from_secs(60)));
        assert_eq!((subscriptions.until(at(59), one), subscriptions.until(at(60), one)), (Some(at(60)), None));
        assert_eq!(subscriptions.until(at(0), other), None);
        let all = subscriptions.all(at(59));
        assert_eq!(all, [UsedUp { provider: "a".into(), credential: "…aaaa".into(), until: at(60) }]);
        assert!(subscriptions.all(at(60)).is_empty());
        for id in 0..5000 {
            subscriptions.used_up(at(0), id, &("a", "…"), None);
        }
        assert!(subscriptions.lock().len() <= CALLERS);
    }
}
