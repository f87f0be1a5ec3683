//! Keys that change while the gateway runs: read from memory by every request, looked after by threads of their own.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::store::Stamps;
use super::{CredentialError, Resolver};
use crate::config::CredentialRef;
use crate::secret::Secret;
use crate::system::{self, Stamp};

/// How often it is looked whether a key has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long after a failure that may pass it is tried again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often it is written down which keys were used.
const NOTE: Duration = Duration::from_secs(60);

/// The key behind a reference, as it is now.
pub struct LiveKey {
    /// Who uses it, for the log.
    owner: String,
    /// `None`: it cannot change.
    reference: Option<CredentialRef>,
    /// How long what a helper printed is good.
    max_age: Duration,
    known: RwLock<Known>,
    sign: Mutex<Sign>,
    used: AtomicBool,
    /// How often it has become another one.
    changes: AtomicU32,
}

#[derive(Clone)]
struct Known {
    key: Option<Arc<Secret>>,
    error: Option<CredentialError>,
}

/// What changes when a key may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Sign {
    /// A variable of ours, which cannot change.
    Fixed,
    /// A helper, which is asked again after a time.
    Helper,
    File(Option<Stamp>),
    Store(Option<Stamps>),
}

impl fmt::Debug for LiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reference {
            Some(reference) => write!(f, "LiveKey({reference})"),
            None => f.write_str("LiveKey(…)"),
        }
    }
}

impl LiveKey {
    /// Where it is, if it was looked up.
    pub fn reference(&self) -> Option<&CredentialRef> {
        self.reference.as_ref()
    }

    /// The key behind this reference, looked up now: this may take as long as a helper takes.
    pub fn new(owner: &str, reference: &CredentialRef, max_age: Duration, resolver: &Resolver) -> Self {
        let sign = sign(reference, resolver);
        let (key, error) = match resolver.resolve_within(reference, max_age, &|| false) {
            Ok(key) => (key.map(Arc::new), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            owner: owner.into(),
            reference: Some(reference.clone()),
            max_age,
            known: RwLock::new(Known { key, error }),
            sign: Mutex::new(sign),
            used: AtomicBool::new(false),
            changes: AtomicU32::new(0),
        }
    }

    /// The same after another lookup of it: what was found then stays in use where this one fails, and a key that is
    /// another one now counts as changed.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let mut known = self.known.into_inner().unwrap_or_else(PoisonError::into_inner);
        let earlier = before.get();
        if known.error.is_some() {
            known.key = earlier;
        } else if known.key != earlier {
            self.changes.store(1, Ordering::Relaxed);
        }
        Self { known: RwLock::new(known), ..self }
    }

    /// How long what a helper printed is good.
    pub fn max_age(&self) -> Duration {
        self.max_age
    }

    /// A key that never changes.
    pub fn fixed(owner: &str, key: Secret) -> Self {
        Self {
            owner: owner.into(),
            reference: None,
            max_age: Duration::MAX,
            known: RwLock::new(Known { key: Some(Arc::new(key)), error: None }),
            sign: Mutex::new(Sign::Fixed),
            used: AtomicBool::new(false),
            changes: AtomicU32::new(0),
        }
    }

    /// How often it has become another one since it was first looked up.
    pub fn changes(&self) -> u32 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The key, to be looked at.
    pub fn get(&self) -> Option<Arc<Secret>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).key.clone()
    }

    /// The key, to be spent.
    pub fn spend(&self) -> Option<Arc<Secret>> {
        let key = self.get()?;
        // Looked at first: all threads read it, and only the first of a second writes.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        Some(key)
    }

    /// Whether there is one.
    pub fn is_known(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).key.is_some()
    }

    /// What went wrong when it was last looked up. An earlier key may still be there.
    pub fn error(&self) -> Option<CredentialError> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).error.clone()
    }

    /// Looks whether it may have changed, and if so looks it up.
    fn look(&self, resolver: &Resolver, again: bool) {
        let Some(reference) = &self.reference else { return };
        let sign = sign(reference, resolver);
        let changed = *self.sign.lock().unwrap_or_else(PoisonError::into_inner) != sign;
        let retry = again && self.error().is_some_and(|error| error.may_pass);
        if changed || retry {
            *self.sign.lock().unwrap_or_else(PoisonError::into_inner) = sign;
            self.refresh(resolver, &|| false);
        }
    }

    /// Looks it up. A key that was good stays until another one is found, or the reference leads to none.
    fn refresh(&self, resolver: &Resolver, stopped: &dyn Fn() -> bool) {
        let Some(reference) = &self.reference else { return };
        let found = resolver.resolve_within(reference, self.max_age, stopped);
        if stopped() {
            return;
        }
        let before = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let owner = &self.owner;
        let now = match found {
            Ok(key) => {
                if key.as_ref() == before.key.as_deref() && before.error.is_none() {
                    return;
                }
                match &key {
                    Some(key) => {
                        info!(target: "cco::keys", owner, %reference, last4 = key.last4(), "the key is another one");
                    }
                    None => info!(target: "cco::keys", owner, %reference, "the key is gone"),
                }
                Known { key: key.map(Arc::new), error: None }
            }
            Err(error) => {
                // Once an episode, not every half minute.
                if before.error.as_ref() != Some(&error) {
                    let kept = before.key.is_some();
                    warn!(target: "cco::keys", owner, %error, kept, "the key cannot be looked up");
                }
                Known { key: before.key.clone(), error: Some(error) }
            }
        };
        let is_other = now.key != before.key;
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = now;
        if is_other {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The stored credential that was given out since the last call.
    fn take_use(&self) -> Option<String> {
        let name = self.reference.as_ref()?.stored_name()?;
        let is_stored = matches!(*self.sign.lock().unwrap_or_else(PoisonError::into_inner), Sign::Store(_));
        (is_stored && self.used.swap(false, Ordering::Relaxed)).then(|| name.to_owned())
    }
}

fn sign(reference: &CredentialRef, resolver: &Resolver) -> Sign {
    match reference {
        CredentialRef::Env(name) if resolver.env.named(name).is_some() => Sign::Fixed,
        CredentialRef::Env(_) | CredentialRef::Stored(_) => Sign::Store(resolver.store.as_ref().map(|s| s.stamps())),
        CredentialRef::File(path) => Sign::File(system::stamp(path)),
        CredentialRef::Exec(_) => Sign::Helper,
    }
}

/// Keeps keys as they should be, until it is closed, or dropped: it then waits for its threads, which end as soon as what
/// they look up is there. Who must not wait sees to it that somebody else closes it first.
pub struct Keeper {
    resolver: Resolver,
    keys: Vec<Arc<LiveKey>>,
    stop: Arc<Stop>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Waits so long, or until the end: `true`.
    fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_set(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.close();
    }
}

impl Keeper {
    /// Looks after these keys from now on.
    pub fn start(resolver: &Resolver, keys: impl IntoIterator<Item = Arc<LiveKey>>) -> Self {
        let of_helper = |key: &Arc<LiveKey>| matches!(key.reference, Some(CredentialRef::Exec(_)));
        let keys: Vec<Arc<LiveKey>> = keys.into_iter().collect();
        let (helped, watched): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(of_helper);
        let stop = Arc::new(Stop::default());
        let mut threads = Vec::new();
        let mut start = |name: &str, work: Box<dyn FnOnce(&Stop) + Send>| {
            let stop = stop.clone();
            match std::thread::Builder::new().name(name.into()).spawn(move || work(&stop)) {
                Ok(thread) => threads.push(thread),
                Err(why) => warn!(target: "cco::keys", %why, "changed keys are not noticed: no thread can be started"),
            }
        };
        if !watched.is_empty() {
            let mut watch = Watch::new(resolver.clone(), watched);
            start("cco-keys", Box::new(move |stop| watch.run(stop)));
        }
        if !helped.is_empty() {
            let resolver = resolver.clone();
            start("cco-helpers", Box::new(move |stop| ask(&resolver, &helped, stop)));
        }
        Self { resolver: resolver.clone(), keys, stop, threads: Mutex::new(threads) }
    }

    /// Looks all of them up now: this may take as long as their helpers take.
    pub fn look_again(&self) {
        for key in &self.keys {
            key.refresh(&self.resolver, &|| false);
        }
    }

    /// Ends its threads, which write down what was used until then. It is for the end of a process, where others may
    /// still hold it.
    pub fn close(&self) {
        *self.stop.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks helpers again, each when what it said last is too old.
fn ask(resolver: &Resolver, keys: &[Arc<LiveKey>], stop: &Stop) {
    let start = Instant::now();
    let due = |key: &LiveKey| if key.error().is_some() { AGAIN.min(key.max_age) } else { key.max_age };
    let mut times: Vec<Instant> = keys.iter().map(|key| start + due(key)).collect();
    while let Some(next) = times.iter().min() {
        if stop.wait(next.saturating_duration_since(Instant::now())) {
            return;
        }
        for (key, time) in keys.iter().zip(&mut times) {
            if *time <= Instant::now() {
                key.refresh(resolver, &|| stop.is_set());
                *time = Instant::now() + due(key);
            }
        }
    }
}

/// Watches files and the store.
struct Watch {
    resolver: Resolver,
    keys: Vec<Arc<LiveKey>>,
    tried: Instant,
    /// Uses that are not written down yet, when some were last, and whether that failed.
    used: Vec<String>,
    noted: Option<Instant>,
    failed: bool,
}

impl Watch {
    fn new(resolver: Resolver, keys: Vec<Arc<LiveKey>>) -> Self {
        Self { resolver, keys, tried: Instant::now(), used: Vec::new(), noted: None, failed: false }
    }

    fn run(&mut self, stop: &Stop) {
        while !stop.wait(LOOK) {
            self.look();
        }
        self.collect();
        self.note();
    }

    /// One look at everything.
    fn look(&mut self) {
        let again = self.tried.elapsed() >= AGAIN;
        if again {
            self.tried = Instant::now();
        }
        for key in &self.keys {
            key.look(&self.resolver, again);
        }
        self.collect();
        if self.noted.is_none_or(|at| at.elapsed() >= NOTE) {
            self.note();
        }
    }

    fn collect(&mut self) {
        for name in self.keys.iter().filter_map(|key| key.take_use()) {
            if !self.used.contains(&name) {
                self.used.push(name);
            }
        }
    }

    fn note(&mut self) {
        let Some(store) = self.resolver.store.as_ref().filter(|_| !self.used.is_empty()) else { return };
        match store.used(&self.used) {
            Ok(true) => self.failed = false,
            // Another process is at the store: the next look tries again.
            Ok(false) => return,
            // Once an episode: the folder may be one that can only be read.
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn!(target: "cco::keys", %error, "when keys were used cannot be written down");
                }
            }
        }
        self.used.clear();
        self.noted = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;
    use crate::credential::{Credentials, KeyringError};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn env(&self) -> Env {
            Env::fixed([("CCO_HOME", self.0.path().to_str().unwrap()), ("SET", "key-of-the-environment")])
        }

        fn resolver(&self) -> Resolver {
            Resolver::new(self.env())
        }

        fn live(&self, reference: &str, resolver: &Resolver) -> Arc<LiveKey> {
            Arc::new(LiveKey::new("anthropic", &reference.parse().unwrap(), Duration::from_secs(300), resolver))
        }
    }

    fn value(key: &LiveKey) -> Option<String> {
        key.spend().map(|key| key.expose().to_owned())
    }

    #[test]
    fn a_stored_key_that_changes_comes_and_goes_is_noticed() {
        let home = Home::new();
        let resolver = home.resolver();
        let keys = ["credential:A", "env:A", "env:SET"].map(|text| home.live(text, &resolver));
        let mut watch = Watch::new(resolver.clone(), keys.to_vec());
        let values = || keys.each_ref().map(|key| value(key));
        let fixed = Some("key-of-the-environment".to_string());
        assert_eq!(values(), [None, None, fixed.clone()]);
        let store = resolver.store.clone().unwrap();
        for key in ["first-key-0123", "second-key-0123"] {
            store.put("A", &Secret::new(key), None).unwrap();
            watch.look();
            assert_eq!(values(), [Some(key.into()), Some(key.into()), fixed.clone()]);
        }
        assert!(store.delete("A").unwrap());
        watch.look();
        assert_eq!(values(), [None, None, fixed]);
        assert!(keys.iter().all(|key| key.error().is_none()));
    }

    #[test]
    fn nothing_is_looked_up_while_nothing_changes() {
        let home = Home::new();
        let resolver = home.resolver();
        resolver.store.as_ref().unwrap().put("A", &Secret::new("first-key-0123"), None).unwrap();
        let key = home.live("credential:A", &resolver);
        let mut watch = Watch::new(resolver, vec![key.clone()]);
        let before = Arc::as_ptr(&key.spend().unwrap());
        for _ in 0..3 {
            watch.look();
        }
        assert_eq!(Arc::as_ptr(&key.spend().unwrap()), before);
    }

    #[test]
    fn a_key_stays_while_its_store_cannot_be_read_and_the_next_one_is_taken() {
        let home = Home::new();
        let resolver = home.resolver();
        let store = resolver.store.clone().unwrap();
        store.put("A", &Secret::new("first-key-0123"), None).unwrap();
        let key = home.live("credential:A", &resolver);
        let mut watch = Watch::new(resolver, vec![key.clone()]);
        let good = std::fs::read(store.path()).unwrap();
        system::replace(&store.path(), b"garbage\n").unwrap();
        watch.look();
        assert_eq!(value(&key).as_deref(), Some("first-key-0123"));
        assert!(key.error().unwrap().message.contains("damaged"), "{:?}", key.error());
        system::replace(&store.path(), &good).unwrap();
        store.put("A", &Secret::new("second-key-0123"), None).unwrap();
        watch.look();
        assert_eq!((value(&key).as_deref(), key.error()), (Some("second-key-0123"), None));
    }

    #[test]
    fn a_keyring_that_is_unlocked_later_is_asked_again() {
        let home = Home::new();
        let (store, keyring) = Credentials::with_fake(&home.env());
        let store = Arc::new(store);
        let resolver = Resolver { store: Some(store.clone()), ..home.resolver() };
        store.put("A", &Secret::new("first-key-0123"), None).unwrap();
        keyring.fail(Some(KeyringError::Locked));
        let key = home.live("credential:A", &resolver);
        assert_eq!((value(&key), key.error().unwrap().may_pass), (None, true));
        let mut watch = Watch::new(resolver, vec![key.clone()]);
        keyring.fail(None);
        watch.look();
        assert_eq!(value(&key), None, "not every second");
        watch.tried -= AGAIN;
        watch.look();
        assert_eq!((value(&key).as_deref(), key.error()), (Some("first-key-0123"), None));
        // Locked again, the key stays.
        keyring.fail(Some(KeyringError::Locked));
        watch.tried -= AGAIN;
        watch.look();
        assert_eq!(value(&key).as_deref(), Some("first-key-0123"));
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let home = Home::new();
        let (resolver, path) = (home.resolver(), home.0.path().join("key"));
        let key = home.live(&format!("file:{}", path.display()), &resolver);
        let mut watch = Watch::new(resolver, vec![key.clone()]);
        assert!(key.error().unwrap().message.contains("does not exist"));
        for content in ["first-key-0123", "second-key-0123"] {
            system::replace(&path, content.as_bytes()).unwrap();
            watch.look();
            assert_eq!((value(&key).as_deref(), key.error()), (Some(content), None));
        }
    }

    #[test]
    fn a_helper_is_asked_again_and_its_last_word_stays_when_it_fails() {
        let home = Home::new();
        let (resolver, path) = (home.resolver(), home.0.path().join("key"));
        system::replace(&path, b"first-key-0123").unwrap();
        let reference = format!("exec:cat {}", path.display()).parse().unwrap();
        let key = Arc::new(LiveKey::new("anthropic", &reference, Duration::ZERO, &resolver));
        assert_eq!(value(&key).as_deref(), Some("first-key-0123"));
        system::replace(&path, b"second-key-0123").unwrap();
        let keeper = Keeper::start(&resolver, [key.clone()]);
        let until = |holds: &dyn Fn() -> bool| {
            let limit = Instant::now() + Duration::from_secs(30);
            while !holds() {
                assert!(Instant::now() < limit, "never");
                std::thread::yield_now();
            }
        };
        until(&|| value(&key).as_deref() == Some("second-key-0123"));
        std::fs::remove_file(&path).unwrap();
        until(&|| key.error().is_some());
        assert_eq!(value(&key).as_deref(), Some("second-key-0123"));
        drop(keeper);
    }

    #[test]
    fn the_end_does_not_wait_for_a_helper_that_hangs() {
        let home = Home::new();
        let (resolver, started) = (home.resolver(), home.0.path().join("started"));
        let script =
            format!("sh -c 'test -e {0} && touch {0}.again && sleep 600; touch {0}; echo key'", started.display());
        let reference = format!("exec:{script}").parse().unwrap();
        let key = Arc::new(LiveKey::new("anthropic", &reference, Duration::ZERO, &resolver));
        let keeper = Keeper::start(&resolver, [key]);
        while !started.with_extension("again").exists() {
            std::thread::yield_now();
        }
        let before = Instant::now();
        drop(keeper);
        assert!(before.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_was_spent_is_written_down() {
        let home = Home::new();
        let resolver = home.resolver();
        let store = resolver.store.clone().unwrap();
        for name in ["A", "B"] {
            store.put(name, &Secret::new("first-key-0123"), None).unwrap();
        }
        let (a, b) = (home.live("credential:A", &resolver), home.live("env:B", &resolver));
        let used = || store.list().unwrap().into_iter().map(|entry| entry.used.is_some()).collect::<Vec<_>>();
        let keeper = Keeper::start(&resolver, [a.clone(), b.clone()]);
        assert!(b.spend().is_some());
        drop(keeper);
        assert_eq!(used(), [false, true]);
        let mut watch = Watch::new(resolver, vec![a.clone(), b]);
        assert!(a.spend().is_some());
        watch.look();
        assert_eq!(used(), [true, true]);
    }
}
