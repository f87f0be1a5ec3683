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

/// Until when subscriptions are used up, bounded in number: the next to end are forgotten first.
#[derive(Debug, Default)]
pub struct Subscriptions {
    until: Mutex<HashMap<u64, Time>>,
    hasher: RandomState,
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Time>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By which a key is known again; it says nothing about the key.
    pub fn id(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The subscription behind this key is used up for so long.
    pub fn used_up(&self, now: Time, id: u64, wait: Option<Duration>) {
        let mut until = self.lock();
        if until.len() >= CALLERS {
            until.retain(|_, until| *until > now);
        }
        if until.len() >= CALLERS
            && let Some(next) = until.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id)
        {
            until.remove(&next);
        }
        until.insert(id, now + wait.unwrap_or(UNKNOWN));
    }

    /// Until when it is used up, if it is.
    pub fn until(&self, now: Time, id: u64) -> Option<Time> {
        self.lock().get(&id).copied().filter(|until| *until > now)
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
        subscriptions.used_up(at(0), one, Some(Duration::from_secs(60)));
        assert_eq!((subscriptions.until(at(59), one), subscriptions.until(at(60), one)), (Some(at(60)), None));
        assert_eq!(subscriptions.until(at(0), other), None);
        for id in 0..5000 {
            subscriptions.used_up(at(0), id, None);
        }
        assert!(subscriptions.lock().len() <= CALLERS);
    }
}
