//! What all connections share: the checked configuration in use, and what one worker thread has of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use wire::usage::{Tokens, Usage};

use crate::client::Phases;
use crate::client::edge::Edge;
use crate::client::inbound::Held;
use crate::config::{Config, KeyMode, NanoUsd, Network, OnLoss, ProviderConfig};
use crate::configured::Configured;
use crate::credential::{Keeper, LiveKey};
use crate::error::Refusal;
use crate::health::{Health, Slot, Time};
use crate::net::Dial;
use crate::process::Process;
use crate::provider::Provider;
use crate::recorder::{Recorder, now_us};
use crate::replay::Shelf;
use crate::retry::Budget;
use crate::route::{Affinity, Keys, Prices, RuleSet, Subscriptions, View};
use crate::secret::Secret;
use crate::upstream::Pool;
use ledger::record::Id;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The gateway as its configuration made it.
pub struct Gateway {
    /// As `cco --version` prints it.
    pub version: String,
    /// When it began to serve.
    pub started: SystemTime,
    /// Who may talk to us.
    pub edge: Edge,
    /// Who presents it may spend stored keys.
    pub token: Arc<LiveKey>,
    /// Whether that is the token of the installation.
    pub is_token_own: bool,
    /// Who presents it may see and change everything.
    pub admin_token: Secret,
    /// Whether every local caller may.
    pub open_stored_keys: bool,
    /// Bytes that one held body may have.
    pub max_body: usize,
    /// All held bodies of requests, and what is made of them.
    pub held: Arc<Held>,
    /// All answers that have to be at hand as a whole.
    pub kept: Arc<Held>,
    /// Silence towards a client after which a stream gets a ping.
    pub ping: Duration,
    /// The enabled providers, in the order of the configuration.
    pub providers: Vec<Provider>,
    /// Notices when their keys change.
    pub keys: Keeper,
    /// The names of the others.
    pub disabled: Vec<String>,
    /// Makes connections to upstreams.
    pub dialer: Arc<dyn Dial>,
    /// Writes what happens to the ledger.
    pub recorder: Arc<Recorder>,
    /// What has happened so far.
    pub counters: Arc<Counters>,
    /// What was refused and is in no record.
    pub refused: Arc<Refused>,
    /// Where all this is from, and whether the file still says so.
    pub configured: Arc<Configured>,
    /// What is known of this process.
    pub process: Arc<Process>,
    /// How upstreams are reached.
    pub network: Network,
    /// Client connections at a time.
    pub max_connections: usize,
    /// How long running answers may finish at the end of the program.
    pub drain: Duration,
    /// How long they may when another process has taken this one's place.
    pub restart_drain: Duration,
    /// Cancelled by whoever asks for the end: running answers may finish.
    pub stop: CancellationToken,
    /// What follows where a translation cannot carry something.
    pub on_loss: OnLoss,
    /// Whom requests go to.
    pub routing: Routing,
    /// How long an answer waits for a client that has gone; nothing: not at all.
    pub replay: Duration,
    /// Answers that wait so.
    pub replays: Arc<Shelf>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gateway({})", self.version)
    }
}

impl Gateway {
    /// The provider that serves where no rule says otherwise: of the default one and the chain the first to which a
    /// request can be sent, with a key of ours or the caller's, or without one.
    pub fn serving(&self) -> Option<&Provider> {
        self.routing.rules.line().filter_map(|place| self.provider(place)).find(|provider| provider.is_usable())
    }

    /// The enabled provider at this place of the configuration.
    pub fn provider(&self, place: u16) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.place == place)
    }

    /// What routing may know at this moment; `chance` is any number.
    pub fn view(&self, chance: u64) -> View<'_> {
        let Routing { health, affinity, subscriptions, .. } = &self.routing;
        View { now: self.routing.now(), health, keys: self, affinity, subscriptions, prices: self, chance }
    }

    /// Whether it matters that the owner of a key of this provider, or of none, may spend keys of ours too.
    pub fn has_keys_beside(&self, home: Option<u16>) -> bool {
        let replaces = self.routing.rules.replaces_subscriptions();
        let matters = |p: &Provider| Some(p.place) != home || p.key_mode == KeyMode::Stored || replaces;
        self.providers.iter().any(|provider| matters(provider) && provider.has_key())
    }
}

/// Whom requests go to: the rules, and what was learned since the start.
#[derive(Debug)]
pub struct Routing {
    /// The rules of the configuration.
    pub rules: RuleSet,
    /// Which targets work.
    pub health: Health,
    /// Where sessions were served last.
    pub affinity: Arc<Affinity>,
    /// Which callers' subscriptions are used up.
    pub subscriptions: Arc<Subscriptions>,
    /// How many more tries all requests together may have.
    pub budget: Arc<Budget>,
    /// After so long without content an accepted stream is kept.
    pub commit_after: Duration,
    /// After so long without the beginning of a stream a second target is asked beside the first.
    pub hedge_after: Option<Duration>,
    /// Whether an answer that broke off is gone on with where that can be done.
    pub continue_on_break: bool,
    began: Instant,
}

impl Routing {
    /// Of this configuration; nothing has been learned yet.
    pub fn new(config: &Config) -> Self {
        Self {
            rules: RuleSet::compile(config),
            health: Health::new(config.providers.iter().map(identity)),
            affinity: Arc::default(),
            subscriptions: Arc::default(),
            budget: Arc::default(),
            commit_after: config.routing.commit_after,
            hedge_after: config.routing.hedge_after,
            continue_on_break: config.routing.continue_on_break,
            began: Instant::now(),
        }
    }

    /// The same for another configuration: what was learned of those who are still there stays.
    #[must_use]
    pub fn again(&self, config: &Config) -> Self {
        let rules = RuleSet::compile(config);
        Self {
            health: self.health.renewed(config.providers.iter().map(identity)),
            affinity: Arc::new(self.affinity.moved(|old| rules.find(self.rules.name(old)))),
            subscriptions: self.subscriptions.clone(),
            budget: self.budget.clone(),
            commit_after: config.routing.commit_after,
            hedge_after: config.routing.hedge_after,
            continue_on_break: config.routing.continue_on_break,
            began: self.began,
            rules,
        }
    }

    /// This moment, for whatever has to do with targets.
    pub fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// A moment, for the same.
    pub fn time(&self, at: Instant) -> Time {
        Time::from_ms(u64::try_from((at - self.began).as_millis()).unwrap_or(u64::MAX))
    }
}

/// All that makes a provider the same one in another configuration. Of the references to its keys a number is enough: as
/// text they do not tell all.
fn identity(provider: &ProviderConfig) -> String {
    let base = provider.base_url.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut keys = DefaultHasher::new();
    provider.api_keys.hash(&mut keys);
    format!("{} {} {base} {:x}", provider.name, provider.kind.name, keys.finish())
}

impl Keys for Gateway {
    fn stored(&self, provider: u16) -> u64 {
        let Some(known) = self.provider(provider) else { return 0 };
        // What was held against a key does not hold against the one that has taken its place.
        for (at, _) in known.keys.iter().enumerate().filter(|(_, key)| key.has_changed()) {
            self.routing.health.forgive(provider, Slot::Stored(u8::try_from(at).unwrap_or(u8::MAX)));
        }
        known.known_keys()
    }

    fn why_none(&self, provider: u16) -> Option<String> {
        self.provider(provider)?.why_no_key()
    }
}

impl Prices for Gateway {
    fn cold(&self, provider: u16, model: &str, tokens: u64) -> Option<NanoUsd> {
        let usage = Usage { tokens: Tokens { input: tokens, ..Tokens::default() }, ..Usage::default() };
        let billed_as = &self.provider(provider)?.billed_as;
        self.recorder.cost_of(billed_as, model, now_us() / 1_000_000, &usage)
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    running: AtomicU64,
    relayed_bytes: AtomicU64,
    /// Connections that were turned away at the bound.
    pub connections_refused: AtomicU64,
    /// Connections open now.
    pub connections: AtomicU64,
    /// Lines of the program's log that were dropped.
    pub log_dropped: Gauge,
    /// By outcome; the outcomes are a short closed list.
    outcomes: Mutex<BTreeMap<&'static str, u64>>,
}

/// A number that somebody else keeps.
#[derive(Default)]
pub struct Gauge(OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>);

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gauge({})", self.read())
    }
}

impl Gauge {
    /// Says where it is read; only the first one counts.
    pub fn set(&self, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(read));
    }

    /// What it is; 0 where nobody keeps it.
    pub fn read(&self) -> u64 {
        self.0.get().map_or(0, |read| read())
    }
}

/// Counts one request as running while it lives.
#[derive(Debug)]
pub struct Running<'a>(&'a Counters);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// A request begins.
    pub fn running(&self) -> Running<'_> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// A request ended so.
    pub fn ended(&self, outcome: &'static str) {
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_default() += 1;
    }

    /// A request that was counted already runs on without its client.
    pub fn runs_on(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(self)
    }

    /// So many bytes of an answer were sent on.
    pub fn relayed(&self, bytes: u64) {
        self.relayed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Requests so far, those running now, bytes of answers relayed.
    pub fn totals(&self) -> (u64, u64, u64) {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        (get(&self.requests), get(&self.running), get(&self.relayed_bytes))
    }

    /// How requests ended.
    pub fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Refusals that are remembered.
const REFUSED: usize = 256;
/// Bytes that are kept of a path, and of a message.
const REFUSED_TEXT: usize = 512;

/// A request that was refused before it became an exchange.
#[derive(Debug, Clone)]
pub struct Turned {
    /// What the client was told.
    pub id: Id,
    /// When, by the wall clock.
    pub at: SystemTime,
    /// What was asked; empty where not even that could be read.
    pub method: Box<str>,
    /// Its path.
    pub path: Box<str>,
    /// The status of the answer.
    pub status: u16,
    /// Its message.
    pub message: Box<str>,
}

/// The last requests that were refused before they became exchanges: they leave no record, and people ask about them.
#[derive(Debug, Default)]
pub struct Refused(Mutex<VecDeque<Turned>>);

impl Refused {
    /// Remembers one; the oldest goes.
    pub fn push(&self, id: Id, asked: Option<(&str, &str)>, refusal: &Refusal) {
        let cut = |text: &str| text[..text.floor_char_boundary(REFUSED_TEXT)].into();
        let (method, path) = asked.unwrap_or_default();
        let (status, message) = (refusal.kind.status(), cut(&refusal.message));
        let turned = Turned { id, at: SystemTime::now(), method: cut(method), path: cut(path), status, message };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.truncate(REFUSED - 1);
        all.push_front(turned);
    }

    /// The last whose id, or short id, begins with these digits.
    pub fn find(&self, digits: &str) -> Option<Turned> {
        let digits = digits.to_ascii_lowercase();
        let fits = |id: Id| id.to_string().starts_with(&digits) || id.short().starts_with(&digits);
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|turned| digits.len() >= 4 && fits(turned.id)).cloned()
    }
}

/// The gateway in use. A reload puts another one in its place: what runs keeps the one it began with.
#[derive(Debug)]
pub struct Current {
    gateway: Mutex<Arc<Gateway>>,
    /// How many there were before: threads see by it that there is another one.
    generation: AtomicU64,
    /// Another process has taken this one's place: nothing is accepted here any more, and connections end after their
    /// next answer, not while they wait, so that no request meets a closed door.
    retired: CancellationToken,
}

impl Current {
    /// This one, until there is another.
    pub fn new(gateway: Gateway) -> Arc<Self> {
        Self::of(Arc::new(gateway))
    }

    fn of(gateway: Arc<Gateway>) -> Arc<Self> {
        let (gateway, generation) = (Mutex::new(gateway), AtomicU64::new(0));
        Arc::new(Self { gateway, generation, retired: CancellationToken::new() })
    }

    /// The one in use.
    pub fn get(&self) -> Arc<Gateway> {
        self.gateway.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another process takes over from here.
    pub fn retire(&self) {
        self.retired.cancel();
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Cancelled once another process has taken over.
    pub fn retired(&self) -> &CancellationToken {
        &self.retired
    }

    /// Puts another one in its place.
    pub fn replace(&self, gateway: Arc<Gateway>) {
        let before = std::mem::replace(&mut *self.gateway.lock().unwrap_or_else(PoisonError::into_inner), gateway);
        self.generation.fetch_add(1, Ordering::Release);
        // Outside the lock: it may be the last that held it.
        drop(before);
    }
}

/// What one thread has of its own: nothing in it is shared, so nothing in it is locked.
#[derive(Debug)]
pub struct Worker {
    /// What all share.
    pub gateway: Arc<Gateway>,
    /// Idle upstream connections.
    pub pool: Rc<Pool>,
    /// The steps of a shutdown.
    pub phases: Phases,
    /// Cancelled once another process has taken over.
    pub retired: CancellationToken,
    /// Whatever runs on this thread.
    pub tasks: TaskTracker,
}

impl Worker {
    /// A worker of this gateway.
    pub fn new(gateway: Arc<Gateway>, phases: &Phases) -> Self {
        let (pool, phases, retired) = (Rc::default(), phases.child(), CancellationToken::new());
        Self { gateway, pool, phases, retired, tasks: TaskTracker::new() }
    }

    /// The same thread's for another gateway. Connections are kept if they were made in the same way.
    fn again(&self, current: &Current) -> Self {
        let (gateway, mut phases) = (current.get(), self.phases.clone());
        let same = Arc::ptr_eq(&self.gateway.dialer, &gateway.dialer);
        let pool = if same { self.pool.clone() } else { Rc::default() };
        if current.retired.is_cancelled() {
            // For answers that begin now it is as if the process ended.
            phases.drain = current.retired.clone();
        }
        Self { gateway, pool, phases, retired: current.retired.clone(), tasks: self.tasks.clone() }
    }
}

/// Where a thread finds its worker for the gateway that is in use.
#[derive(Debug)]
pub struct Desk {
    current: Arc<Current>,
    /// The steps of a shutdown, for connections.
    pub phases: Phases,
    latest: RefCell<(u64, Rc<Worker>)>,
}

impl Desk {
    /// Of a thread that begins.
    pub fn new(current: Arc<Current>, phases: &Phases) -> Self {
        // The number first: a gateway that comes in between is then seen at the first look.
        let generation = current.generation.load(Ordering::Acquire);
        let worker = Worker::new(current.get(), phases);
        let worker = Rc::new(Worker { retired: current.retired.clone(), ..worker });
        let phases = worker.phases.clone();
        Self { current, phases, latest: RefCell::new((generation, worker)) }
    }

    /// One whose worker never changes.
    pub fn fixed(worker: Rc<Worker>) -> Self {
        let (current, phases) = (Current::of(worker.gateway.clone()), worker.phases.clone());
        Self { current, phases, latest: RefCell::new((0, worker)) }
    }

    /// Cancelled once another process has taken over.
    pub fn retired(&self) -> &CancellationToken {
        &self.current.retired
    }

    /// The worker for the gateway that is in use now.
    pub fn worker(&self) -> Rc<Worker> {
        let generation = self.current.generation.load(Ordering::Acquire);
        let mut latest = self.latest.borrow_mut();
        if latest.0 != generation {
            let worker = Rc::new(latest.1.again(&self.current));
            *latest = (generation, worker);
        }
        latest.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::inbound::Operation;
    use crate::config::{Paths, parse};
    use crate::health::{Entry, Look, Outcome, Place, Why};

    #[test]
    fn what_was_learned_stays_with_those_who_are_still_there() {
        let provider = |name: &str| {
            format!(r#""{name}": {{ "providerType": "anthropic-compatible", "baseUrl": "https://{name}.test" }}"#)
        };
        let routing = |names: &[&str]| {
            let providers: Vec<String> = names.iter().map(|name| provider(name)).collect();
            let text =
                format!(r#"{{ "providers": {{ {} }}, "routing": {{ "defaultProvider": "b" }} }}"#, providers.join(","));
            parse(&text, &Paths::default()).unwrap().0
        };
        let before = Routing::new(&routing(&["a", "b", "c"]));
        let place = |provider| Place { provider, slot: Slot::Client, model: "m", operation: Operation::Generation };
        for provider in [0, 2] {
            for _ in 0..3 {
                let mut pass = before.health.enter(before.now(), &place(provider), 0, Entry::LastResort).unwrap();
                pass.record(before.now(), Outcome::Failed(Why::Broken));
            }
        }
        let after = before.again(&routing(&["c", "b"]));
        let look = |provider| after.health.look(after.now(), &place(provider), 0).look;
        assert!(matches!(look(0), Look::Open(..)), "`c` has moved");
        assert_eq!(look(1), Look::Well);
        assert!(Arc::ptr_eq(&before.budget, &after.budget) && Arc::ptr_eq(&before.subscriptions, &after.subscriptions));
    }

    #[test]
    fn another_helper_of_the_same_program_makes_another_provider() {
        let identity = |command: &str| {
            let text = format!(r#"{{ "providers": {{ "anthropic": {{ "apiKeyRef": "exec:{command}" }} }} }}"#);
            identity(&parse(&text, &Paths::default()).unwrap().0.providers[0])
        };
        assert_eq!(identity("op read a"), identity("op read a"));
        assert_ne!(identity("op read a"), identity("op read b"));
        assert!(!identity("op read a").contains("read"));
    }
}
