//! A gateway without sockets: clients and upstreams are pipes in memory, and time moves only when everybody waits.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway::client::Phases;
use gateway::client::peer::Peer;
use gateway::config::{self, Env, Paths};
use gateway::gateway::{Gateway, Worker};
use gateway::io::Io;
use gateway::net::{BoxFuture, Cause, Dial, DialError, Stream};
use gateway::origin::Origin;
use gateway::recorder::{Book, Recorder};
use gateway::server::connection::serve_connection;
use gateway::setup;
use ledger::journal::{Ack, Position};
use ledger::record::Record;
use serde_json::{Value, json};
use sim::{Sim, SimConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;

/// Our own key, which the configuration refers to.
pub const STORED_KEY: &str = "sk-ant-api03-stored-0123456789";
/// The gateway's token.
pub const TOKEN: &str = "cco-token-0123456789abcdef";
/// Bytes that a pipe holds before its writer has to wait.
const PIPE: usize = 64 * 1024;

/// What stands at the other end of the next connection to an upstream.
#[derive(Debug)]
pub enum Upstream {
    /// The simulator.
    Sim,
    /// A script of bytes and waits.
    Raw(Vec<Step>),
    /// Any byte stream: the near end, for the gateway.
    Given(Stream),
    /// The connection is never made.
    Never,
    /// It fails.
    Fails(Cause),
}

/// One step of a scripted upstream.
#[derive(Debug, Clone)]
pub enum Step {
    /// Waits until so many bytes in all have come from the gateway.
    Take(usize),
    /// Waits for a head, and for the body if it has a `content-length`.
    Request,
    /// Writes.
    Send(Vec<u8>),
    /// Writes for ever, until the gateway goes.
    SendForEver(Vec<u8>),
    /// Waits.
    Wait(Duration),
    /// Reads nothing from here on, as a server that is busy, until [`House::hear`].
    Deaf,
    /// Waits until the gateway goes.
    Hang,
}

/// A step that writes a text.
pub fn send(text: impl Into<Vec<u8>>) -> Step {
    Step::Send(text.into())
}

/// A step that waits.
pub fn wait(seconds: f64) -> Step {
    Step::Wait(Duration::from_secs_f64(seconds))
}

/// What a scripted upstream saw on one connection.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Everything that was sent to it.
    pub bytes: Vec<u8>,
    /// When the gateway closed.
    pub closed: Option<Instant>,
    /// Whether the script has been worked off.
    pub over: bool,
}

impl Seen {
    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[derive(Debug)]
struct Pipes {
    next: Arc<Mutex<VecDeque<Upstream>>>,
    dialed: Arc<Mutex<Vec<Origin>>>,
    far: mpsc::Sender<(DuplexStream, Upstream, CancellationToken)>,
    up: Arc<Mutex<HashMap<String, CancellationToken>>>,
    size: usize,
}

impl Dial for Pipes {
    fn dial<'a>(&'a self, origin: &'a Origin, _limit: Duration) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async move {
            self.dialed.lock().unwrap().push(origin.clone());
            let up = self.up.lock().unwrap().entry(origin.host.clone()).or_default().clone();
            if up.is_cancelled() {
                return Err(DialError { origin: origin.clone(), cause: Cause::Refused, detail: String::new() });
            }
            let next = self.next.lock().unwrap().pop_front();
            match next.unwrap_or(Upstream::Sim) {
                Upstream::Never => std::future::pending().await,
                Upstream::Fails(cause) => Err(DialError { origin: origin.clone(), cause, detail: String::new() }),
                Upstream::Given(stream) => Ok(stream),
                served => {
                    let (near, far) = tokio::io::duplex(self.size);
                    self.far.send((far, served, up)).await.expect("the house stands");
                    Ok(Stream::pipe(near))
                }
            }
        })
    }
}

/// A gateway and everything around it.
pub struct House {
    pub gateway: Arc<Gateway>,
    pub worker: Rc<Worker>,
    pub phases: Phases,
    /// The provider behind every connection that is not scripted.
    pub sim: Arc<Sim>,
    /// What the scripted upstreams saw, in the order of their connections.
    pub seen: Rc<RefCell<Vec<Seen>>>,
    changed: Rc<Notify>,
    hear: CancellationToken,
    next: Arc<Mutex<VecDeque<Upstream>>>,
    dialed: Arc<Mutex<Vec<Origin>>>,
    up: Arc<Mutex<HashMap<String, CancellationToken>>>,
    book: Arc<Notebook>,
    /// Connections of clients.
    near: TaskTracker,
    /// Connections of upstreams.
    far: TaskTracker,
}

/// What was recorded: in memory, because a paused clock waits for no disk.
#[derive(Debug, Default)]
struct Notebook {
    begun: Mutex<Vec<Record>>,
    finished: Mutex<Vec<Record>>,
}

impl Book for Notebook {
    fn start(&self, record: &mut Record) -> Ack {
        self.begun.lock().unwrap().push(record.clone());
        Ack::known(Ok(Position::default()))
    }

    fn finish(&self, record: Box<Record>) -> Ack {
        self.finished.lock().unwrap().push(*record);
        Ack::known(Ok(Position::default()))
    }
}

impl Notebook {
    /// Every exchange that was begun is finished once, and recorded as it was logged.
    fn check(&self, logged: &BTreeMap<&'static str, u64>) {
        let (begun, finished) = (self.begun.lock().unwrap(), self.finished.lock().unwrap());
        let mut outcomes = BTreeMap::<&str, u64>::new();
        for record in &*finished {
            *outcomes.entry(record.outcome.as_str()).or_default() += 1;
            let same = finished.iter().filter(|other| other.id == record.id).count();
            assert_eq!(same, 1, "recorded twice: {record:?}");
            let begins = begun.iter().filter(|start| start.id == record.id).count();
            let sent = !record.attempts.is_empty();
            assert!(begins == 1 || begins == 0 && !sent, "begun {begins} times: {record:?}");
        }
        for start in &*begun {
            assert!(finished.iter().any(|record| record.id == start.id), "never recorded: {start:?}");
        }
        for (outcome, count) in outcomes {
            assert!(logged.get(outcome) >= Some(&count), "{count} recorded as {outcome}, but logged {logged:?}");
        }
    }
}

/// The configuration of every house before the test has edited it.
fn settings() -> Value {
    json!({
        "server": { "token": "env:TOKEN", "pingSecs": 15 },
        "providers": { "anthropic": {
            "baseUrl": "http://upstream.test",
            "timeoutSecs": 100,
            "connectTimeoutSecs": 10,
            "idleTimeoutSecs": 60,
            "maxStreamSecs": 300,
        } },
    })
}

/// Runs a test in a house of its own; afterwards nothing of it may be left.
pub async fn in_house<T>(edit: impl FnOnce(&mut Value), test: impl AsyncFnOnce(&House) -> T) -> T {
    in_house_with_pipes_of(PIPE, edit, test).await
}

/// The same, with pipes to the upstreams that hold `size` bytes.
pub async fn in_house_with_pipes_of<T>(
    size: usize,
    edit: impl FnOnce(&mut Value),
    test: impl AsyncFnOnce(&House) -> T,
) -> T {
    let mut settings = settings();
    edit(&mut settings);
    LocalSet::new()
        .run_until(async move {
            let house = House::new(&settings, size);
            let out = test(&house).await;
            house.end().await;
            out
        })
        .await
}

/// Runs `check` on every row of a table, each in a time of its own, and fails with all rows that failed.
pub fn every_row<T: std::fmt::Debug>(table: &[T], check: impl AsyncFn(&T)) {
    let fails = |row: &&T| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(check(row)))).is_err()
    };
    let failed: Vec<String> = table.iter().filter(fails).map(|row| format!("{row:?}")).collect();
    assert!(failed.is_empty(), "of {} rows these failed, in this order:\n{}", table.len(), failed.join("\n"));
}

/// No target is tried again.
pub fn once(settings: &mut Value) {
    for provider in settings["providers"].as_object_mut().expect("there are some").values_mut() {
        provider["maxRetries"] = 0.into();
    }
}

/// Leaves the settings as they are.
pub fn plain(_: &mut Value) {}

impl House {
    fn new(settings: &Value, size: usize) -> Self {
        let (config, _) = config::parse(&settings.to_string(), &Paths::default()).expect("good settings");
        let env = Env::fixed([
            ("ANTHROPIC_API_KEY", STORED_KEY),
            ("TOKEN", TOKEN),
            ("OTHER_KEY", "sk-other-key"),
            ("KEY_B", "sk-key-b"),
            ("KEY_C", "sk-key-c"),
            ("KEY_D", "sk-key-d"),
        ]);
        let next = Arc::new(Mutex::new(VecDeque::new()));
        let dialed = Arc::new(Mutex::new(Vec::new()));
        let (far_end, mut accepted) = mpsc::channel(64);
        let up = Arc::new(Mutex::new(HashMap::new()));
        let dialer = Pipes { next: next.clone(), dialed: dialed.clone(), far: far_end, up: up.clone(), size };
        let book = Arc::new(Notebook::default());
        let (gateway, _) =
            setup::gateway(&config, &env, "test", Arc::new(dialer), Recorder::to(book.clone())).expect("good settings");
        let (gateway, phases) = (Arc::new(gateway), Phases::default());
        let sim = Sim::new(SimConfig::default()).unwrap();
        let seen = Rc::new(RefCell::new(Vec::<Seen>::new()));
        let (changed, hear) = (Rc::new(Notify::new()), CancellationToken::new());
        let far = TaskTracker::new();
        let this = Self {
            worker: Rc::new(Worker::new(gateway.clone(), &phases)),
            gateway,
            phases,
            sim: sim.clone(),
            seen: seen.clone(),
            changed: changed.clone(),
            hear: hear.clone(),
            next,
            dialed,
            up,
            book,
            near: TaskTracker::new(),
            far: far.clone(),
        };
        this.far.spawn_local(async move {
            while let Some((io, upstream, up)) = accepted.recv().await {
                match upstream {
                    Upstream::Raw(steps) => {
                        let at = seen.borrow().len();
                        seen.borrow_mut().push(Seen::default());
                        let (seen, changed, hear) = (seen.clone(), changed.clone(), hear.clone());
                        far.spawn_local(async move {
                            play(io, steps, hear, |change| {
                                change(&mut seen.borrow_mut()[at]);
                                changed.notify_waiters();
                            })
                            .await;
                        });
                    }
                    _ => {
                        let serve = sim.clone().serve_stream(io, "pipe");
                        drop(far.spawn_local(async move {
                            tokio::select! {
                                _ = serve => {}
                                () = up.cancelled() => {}
                            }
                        }));
                    }
                }
            }
        });
        this
    }

    /// What the next connection to an upstream meets.
    pub fn next_upstream(&self, upstream: Upstream) {
        self.next.lock().unwrap().push_back(upstream);
    }

    /// The same, scripted.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.next_upstream(Upstream::Raw(steps.into_iter().collect()));
    }

    /// The next connection to an upstream leads to the simulator, through this: its near end, then its far one.
    pub fn through<F: Future<Output = ()> + 'static>(&self, proxy: impl FnOnce(DuplexStream, DuplexStream) -> F) {
        let (near, proxys_near) = tokio::io::duplex(PIPE);
        let (proxys_far, far) = tokio::io::duplex(PIPE);
        self.next_upstream(Upstream::Given(Stream::pipe(near)));
        drop(self.far.spawn_local(self.sim.clone().serve_stream(far, "through")));
        self.far.spawn_local(proxy(proxys_near, proxys_far));
    }

    /// A host goes down, with all that it was doing.
    pub fn take_down(&self, host: &str) {
        self.up.lock().unwrap().entry(host.to_string()).or_default().cancel();
    }

    /// It is there again.
    pub fn bring_back(&self, host: &str) {
        self.up.lock().unwrap().remove(host);
    }

    /// What was recorded so far, in the order of its end.
    pub fn records(&self) -> Vec<Record> {
        self.book.finished.lock().unwrap().clone()
    }

    /// How many connections to upstreams were asked for.
    pub fn dialed(&self) -> usize {
        self.dialed.lock().unwrap().len()
    }

    /// A client of our own user on this machine.
    pub fn client(&self) -> Client {
        self.client_as(peer("127.0.0.1:40000", true))
    }

    /// Some other client.
    pub fn client_as(&self, peer: Peer) -> Client {
        self.client_with_pipe_of(PIPE, peer)
    }

    /// One whose pipe holds `size` bytes.
    pub fn client_with_pipe_of(&self, size: usize, peer: Peer) -> Client {
        let (near, far) = tokio::io::duplex(size);
        self.serve(near, peer);
        Client::new(far)
    }

    /// Serves a byte stream.
    pub fn serve(&self, io: impl Io + 'static, peer: Peer) {
        self.near.spawn_local(serve_connection(io, peer, self.worker.clone()));
    }

    /// What the simulator answers to a request without us between. It is another simulator: this one's journal shows
    /// what came through the gateway, and nothing else.
    pub async fn direct(&self, request: &[u8]) -> super::client::Reply {
        let (near, far) = tokio::io::duplex(PIPE);
        let sim = Sim::new(SimConfig::default()).unwrap();
        self.far.spawn_local(sim.serve_stream(near, "direct"));
        let mut client = Client::new(far);
        client.send(request).await;
        client.reply().await
    }

    /// Waits until no request is running; nothing that takes time may be in the way.
    pub async fn settled(&self) {
        for _ in 0..10_000 {
            if self.gateway.counters.totals().1 == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a request is still running");
    }

    /// How requests ended since `before`.
    pub fn outcomes_since(&self, before: &BTreeMap<&'static str, u64>) -> Vec<(&'static str, u64)> {
        let now = self.gateway.counters.outcomes();
        now.into_iter().map(|(k, n)| (k, n - before.get(k).unwrap_or(&0))).filter(|(_, n)| *n > 0).collect()
    }

    /// How requests ended.
    pub fn outcomes(&self) -> Vec<(&'static str, u64)> {
        self.outcomes_since(&BTreeMap::new())
    }

    /// Waits until `holds` is true of what the scripted upstreams saw.
    #[track_caller]
    pub fn saw(&self, mut holds: impl FnMut(&[Seen]) -> bool) -> impl Future<Output = ()> {
        soon(async move {
            loop {
                let changed = self.changed.notified();
                if holds(&self.seen.borrow()) {
                    return;
                }
                changed.await;
            }
        })
    }

    /// Scripted upstreams that have become deaf read again.
    pub fn hear(&self) {
        self.hear.cancel();
    }

    /// Waits until every client connection has ended.
    #[track_caller]
    pub fn clients_gone(&self) -> impl Future<Output = ()> {
        let near = self.near.clone();
        near.close();
        soon(async move {
            near.wait().await;
            near.reopen();
        })
    }

    /// Everything ends: no task, no held byte, no connection may be left.
    async fn end(self) {
        self.hear();
        let Self { gateway, worker, near, far, book, .. } = self;
        near.close();
        soon(near.wait()).await;
        worker.tasks.close();
        soon(worker.tasks.wait()).await;
        assert_eq!(gateway.replays.waiting(), 0, "an answer still waits for a client");
        assert_eq!(gateway.held.used(), 0, "bytes of request bodies are still held");
        assert_eq!(gateway.kept.used(), 0, "bytes of answers are still kept");
        assert_eq!(gateway.counters.totals().1, 0, "a request counts as running");
        worker.pool.clear();
        assert_eq!(Rc::strong_count(&worker), 1, "somebody holds the worker");
        drop(worker);
        book.check(&gateway.counters.outcomes());
        assert_eq!(Arc::strong_count(&gateway), 1, "somebody holds the gateway");
        drop(gateway);
        far.close();
        soon(far.wait()).await;
    }
}

/// A peer at this address that connected to us at 127.0.0.1:54548.
pub fn peer(remote: &str, own_user: bool) -> Peer {
    Peer::known(remote.parse().unwrap(), "127.0.0.1:54548".parse().unwrap(), own_user)
}

/// A time-out for what should come to an end: a test that hangs says where.
#[track_caller]
pub fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let limit = Duration::from_secs(100_000);
        tokio::time::timeout(limit, what).await.unwrap_or_else(|_| panic!("hangs at {place}"))
    }
}

/// Whether `bytes` begin with a whole request; bodies in chunks are not looked at.
fn request_len(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok());
    let whole = head + length.unwrap_or(0usize);
    (bytes.len() >= whole).then_some(whole)
}

/// Plays a script on one connection. `note` changes what was seen.
async fn play(io: DuplexStream, steps: Vec<Step>, hear: CancellationToken, note: impl Fn(&dyn Fn(&mut Seen))) {
    let (mut read, mut write) = tokio::io::split(io);
    let came = RefCell::new(Vec::new());
    let (more, deaf) = (Notify::new(), std::cell::Cell::new(false));
    let reading = async {
        let mut space = vec![0; PIPE];
        loop {
            if deaf.get() {
                hear.cancelled().await;
            }
            match read.read(&mut space).await {
                Ok(n) if n > 0 => {
                    came.borrow_mut().extend_from_slice(&space[..n]);
                    note(&|seen| seen.bytes.extend_from_slice(&space[..n]));
                    more.notify_waiters();
                }
                _ => {
                    note(&|seen| seen.closed = Some(Instant::now()));
                    return;
                }
            }
        }
    };
    let writing = async {
        let mut used = 0;
        for step in steps {
            match step {
                Step::Take(n) => wait_for(&more, || came.borrow().len() >= n).await,
                Step::Request => {
                    wait_for(&more, || request_len(&came.borrow()[used..]).is_some()).await;
                    used += request_len(&came.borrow()[used..]).unwrap();
                }
                Step::Send(bytes) => {
                    if write.write_all(&bytes).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Step::SendForEver(bytes) => while write.write_all(&bytes).await.is_ok() {},
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Deaf => deaf.set(true),
                Step::Hang => std::future::pending().await,
            }
        }
        note(&|seen| seen.over = true);
    };
    tokio::select! {
        biased;
        () = reading => {}
        () = writing => {}
    }
}

async fn wait_for(changed: &Notify, mut holds: impl FnMut() -> bool) {
    loop {
        let next = changed.notified();
        if holds() {
            return;
        }
        next.await;
    }
}
