//! Start, serve, drain, stop: the threads, the accept loop, and the way out.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use wire::protocol::Protocol;

use crate::client::Phases;
use crate::client::peer::Peer;
use crate::client::respond::Answer;
use crate::configured::Ask;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::{Counters, Current, Desk};
use crate::io::Io;
use crate::net;
use crate::server::connection::serve_resettable;
use crate::system::Lock;

/// Accepted connections that may wait for a worker to take them.
const HANDED_OVER: usize = 1024;
/// How often a worker closes upstream connections that nobody needs.
const SWEEP: Duration = Duration::from_secs(10);
/// After running streams were told to end, they have this long to say so.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause after an accept failed for lack of something that others may give back.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What is needed to serve.
#[derive(Debug)]
pub struct Server {
    /// The bound socket, ours or a parent's.
    pub listener: std::net::TcpListener,
    /// The socket of our own user, if there is one.
    pub own: Option<net::OwnSocket>,
    /// What is locked as long as this home is served from here.
    pub place: Option<Arc<Lock>>,
    /// The configuration in use.
    pub current: Arc<Current>,
    /// The steps of a shutdown: cancelled from outside.
    pub phases: Phases,
    /// Threads that serve, the calling one among them.
    pub workers: usize,
    /// Client connections at a time that there is room for, whatever the configuration says.
    pub max_connections: usize,
}

/// A connection on its way to the worker that will serve it.
type Accepted = (std::net::TcpStream, Peer, Open);

/// A worker thread, as the acceptor sees it.
struct Remote {
    connections: mpsc::Sender<Accepted>,
    load: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// What was recorded, and which keys were used, is written down.
fn end(runtime: LocalRuntime, current: &Current) {
    // What was cut off in the middle is recorded as its task goes. A thread that does not end in time must not keep the
    // process: it is told off by the process's own end.
    runtime.shutdown_background();
    // Nothing may take the place of what is ended here.
    current.get().configured.close();
    let gateway = current.get();
    gateway.recorder.close();
    gateway.keys.close();
}

impl Server {
    /// Serves until draining begins and everything that was running has ended, or its time is up. Blocks the thread.
    pub fn run(self) -> io::Result<()> {
        let (runtime, current) = (runtime()?, self.current.clone());
        let served = runtime.block_on(as_task(self.accept_until_drained()));
        end(runtime, &current);
        served
    }

    /// As [`run`](Self::run), where SIGTERM or SIGINT begins the draining and a second one ends everything at once.
    /// `ready` is called when they do: whoever waits for it may send one.
    pub fn run_until_signalled(self, ready: impl FnOnce()) -> io::Result<()> {
        let (runtime, current) = (runtime()?, self.current.clone());
        let served = runtime.block_on(async {
            let phases = self.phases.clone();
            let (signalled, served) = (signals(phases, self.current.clone())?, self.accept_until_drained());
            ready();
            let either = async {
                tokio::select! {
                    never = signalled => match never {},
                    served = served => served,
                }
            };
            as_task(either).await
        });
        end(runtime, &current);
        served
    }

    async fn accept_until_drained(self) -> io::Result<()> {
        let (current, phases) = (self.current.clone(), self.phases.clone());
        let (stop, counters) = (current.get().stop.clone(), current.get().counters.clone());
        let remotes = (1..self.workers.max(1))
            .map(|n| spawn_worker(n, current.clone(), &phases))
            .collect::<io::Result<Vec<_>>>()?;
        let listener = TcpListener::from_std(self.listener)?;
        let own = self.own.as_ref().map(net::OwnSocket::listener).transpose()?;
        let here = Local::new(current.clone(), &phases);
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = phases.drain.cancelled() => break,
                () = current.retired().cancelled() => {
                    info!("another process has taken over: running streams may finish here");
                    break;
                }
                () = stop.cancelled() => {
                    info!("stopping: running streams may finish, a second signal ends them at once");
                    phases.drain.cancel();
                    break;
                }
                accepted = listener.accept() => accepted,
                accepted = accept_own(own.as_ref()) => {
                    match accepted {
                        Ok(stream) if net::is_own(&stream) => here.serve_own(stream),
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(BACK_OFF).await,
                    }
                    continue;
                }
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => {
                    failing = false;
                    accepted
                }
                Err(e) => {
                    // Once per episode: a full table of descriptors must not fill the disk as well.
                    if !std::mem::replace(&mut failing, true) {
                        warn!(error = %e, "no connection can be accepted: waiting");
                    }
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            let most = here.desk.worker().gateway.max_connections.min(self.max_connections);
            if counters.connections.load(Ordering::Relaxed) >= most as u64 {
                counters.connections_refused.fetch_add(1, Ordering::Relaxed);
                turn_away(&stream);
                continue;
            }
            let Some(peer) = prepared(&stream, remote) else { continue };
            let least = remotes.iter().min_by_key(|r| r.load.load(Ordering::Relaxed));
            match least.filter(|r| r.load.load(Ordering::Relaxed) < here.load.load(Ordering::Relaxed)) {
                None => here.serve(stream, peer, Open::new(&here.load, &counters)),
                Some(remote) => {
                    let Ok(stream) = stream.into_std() else { continue };
                    let open = Open::new(&remote.load, &counters);
                    if remote.connections.send((stream, peer, open)).await.is_err() {
                        error!("a worker thread has ended: its connections are lost");
                    }
                }
            }
        }
        drop((listener, own));
        // Whoever comes now finds nobody here, and may take the place.
        drop((self.own, self.place));
        let threads: Vec<_> = remotes.into_iter().map(|remote| remote.thread).collect();
        let gateway = current.get();
        let limit = if current.retired().is_cancelled() { gateway.restart_drain } else { gateway.drain };
        let limit = gateway.process.within.get().copied().unwrap_or(limit);
        drop(gateway);
        drain(here, threads, &phases, limit).await;
        Ok(())
    }
}

/// The next connection over our own socket; never, where there is none.
async fn accept_own(own: Option<&UnixListener>) -> io::Result<UnixStream> {
    match own {
        Some(own) => own.accept().await.map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// Returns when SIGTERM or SIGINT arrives.
#[cfg(unix)]
pub async fn signalled() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Returns when Ctrl-C is typed.
#[cfg(not(unix))]
pub async fn signalled() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

/// Turns signals into the steps of a shutdown; SIGHUP loads the configuration again, except where it says that the
/// terminal is gone.
#[cfg(unix)]
fn signals(phases: Phases, current: Arc<Current>) -> io::Result<impl Future<Output = std::convert::Infallible>> {
    use std::io::IsTerminal as _;
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (mut hangup, on_terminal) = (signal(SignalKind::hangup())?, io::stderr().is_terminal());
    Ok(async move {
        loop {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = hangup.recv() => {
                    if !on_terminal {
                        if !current.get().configured.ask(Ask::Reload(None)) {
                            warn!("SIGHUP: the configuration cannot be loaded again now");
                        }
                        continue;
                    }
                }
            }
            if phases.drain.is_cancelled() {
                phases.kill.cancel();
            } else {
                info!("stopping: running streams may finish, a second signal ends them at once");
                phases.drain.cancel();
            }
        }
    })
}

/// Turns Ctrl-C into the steps of a shutdown.
#[cfg(not(unix))]
fn signals(phases: Phases, _: Arc<Current>) -> io::Result<impl Future<Output = std::convert::Infallible>> {
    Ok(async move {
        loop {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            if phases.drain.is_cancelled() { phases.kill.cancel() } else { phases.drain.cancel() }
        }
    })
}

/// Waits for what is running, for as long as it may.
async fn drain(here: Local, threads: Vec<JoinHandle<()>>, phases: &Phases, limit: Duration) {
    let done = async {
        here.end().await;
        for thread in threads {
            // Joining blocks; the runtime has nothing else to do any more than to keep time.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    };
    let mut done = std::pin::pin!(done);
    tokio::select! {
        biased;
        () = &mut done => return,
        () = phases.kill.cancelled() => return,
        () = tokio::time::sleep(limit) => phases.cut.cancel(),
    }
    tokio::select! {
        biased;
        () = done => {}
        () = phases.kill.cancelled() => {}
        () = tokio::time::sleep(LAST_WORDS) => warn!("some connections did not end in time and were closed"),
    }
}

/// What a thread is there for, as one of its tasks. Else it would be polled whenever any other one wakes: each event of
/// each stream would look at the listening sockets, the signals and the ways to stop.
async fn as_task<T: 'static>(work: impl Future<Output = T> + 'static) -> T {
    match TaskTracker::new().spawn_local(work).await {
        Ok(done) => done,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// One thread with its own tasks, which never move to another one.
fn runtime() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Socket options, and who is on the other end; `None`: it is gone already.
fn prepared(stream: &TcpStream, remote: SocketAddr) -> Option<Peer> {
    net::accepted(stream).ok()?;
    Some(Peer::new(remote, stream.local_addr().ok()?))
}

/// Tells a client that there are too many, without waiting for it.
fn turn_away(stream: &TcpStream) {
    let message = "the gateway has as many connections as it may (`server.maxConnections`): try again";
    let refusal = Refusal::new(ErrorKind::Overloaded, message).retry(Retry::After(5));
    let [head, body] = Answer::refusal(&refusal, Protocol::AnthropicMessages, "").encode("none", false, false);
    // A fresh socket takes this much at once, or its client does without.
    let _ = stream.try_write(&[head, body].concat());
}

/// The connections of one thread.
struct Local {
    desk: Rc<Desk>,
    tasks: TaskTracker,
    load: Arc<AtomicUsize>,
}

/// Counts a connection while it lives: from the moment in which it was accepted, so that many at a time count too.
struct Open {
    load: Arc<AtomicUsize>,
    counters: Arc<Counters>,
}

impl Open {
    fn new(load: &Arc<AtomicUsize>, counters: &Arc<Counters>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self { load: load.clone(), counters: counters.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Local {
    fn new(current: Arc<Current>, phases: &Phases) -> Self {
        let desk = Rc::new(Desk::new(current, phases));
        let this = Self { tasks: desk.worker().tasks.clone(), desk, load: Arc::default() };
        let desk = this.desk.clone();
        this.tasks.spawn_local(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            let (drain, retired) = (desk.phases.drain.clone(), desk.retired().clone());
            while !drain.is_cancelled() && !retired.is_cancelled() {
                tokio::select! {
                    () = drain.cancelled() => {}
                    () = retired.cancelled() => {}
                    // A thread without requests gives up here what a reload has replaced.
                    _ = ticks.tick() => desk.worker().pool.sweep(),
                }
            }
            desk.worker().pool.clear();
        });
        this
    }

    fn serve(&self, stream: TcpStream, peer: Peer, open: Open) {
        self.serve_any(stream, peer, open, net::reset_on_close);
    }

    /// Commands of our own user are few: they all go to one thread.
    fn serve_own(&self, stream: UnixStream) {
        let open = Open::new(&self.load, &self.desk.worker().gateway.counters);
        self.serve_any(stream, Peer::over_own_socket(), open, |_| {});
    }

    fn serve_any<S: Io + 'static>(&self, stream: S, peer: Peer, open: Open, reset: fn(&S)) {
        let desk = self.desk.clone();
        self.tasks.spawn_local(async move {
            serve_resettable(stream, peer, desk, reset).await;
            drop(open);
        });
    }

    async fn end(self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn spawn_worker(n: usize, current: Arc<Current>, phases: &Phases) -> io::Result<Remote> {
    let (connections, mut accepted) = mpsc::channel::<Accepted>(HANDED_OVER);
    let (load, phases) = (Arc::new(AtomicUsize::new(0)), phases.clone());
    let (begun, begins) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("cco-{n}")).spawn(move || {
        let (runtime, failed) = runtime().map_or_else(|failed| (None, Err(failed)), |runtime| (Some(runtime), Ok(())));
        let _ = begun.send(failed);
        let Some(runtime) = runtime else { return };
        let serve = async move {
            let here = Local::new(current, &phases);
            while let Some((stream, peer, open)) = accepted.recv().await {
                match TcpStream::from_std(stream) {
                    Ok(stream) => here.serve(stream, peer, open),
                    Err(e) => warn!(error = %e, "an accepted connection could not be used"),
                }
            }
            here.end().await;
        };
        runtime.block_on(as_task(serve));
    })?;
    begins.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended as it began")))?;
    Ok(Remote { connections, load, thread })
}
