//! Dialing: name, addresses, TCP, proxy, TLS, all within one time limit.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::error::{Cause, DialError, Fault, Step};
use super::proxy::{Proxy, ProxyUrl};
use super::resolve::{Lookup, Resolver, is_forbidden, names_loopback, plain, system_lookup};
use super::stream::Stream;
use super::tls::{ExtraRoots, SystemRoots, Tls, system_roots};
use super::tunnel;
use crate::origin::{Origin, Scheme};

/// The kernel's receive buffer of a connection. Left alone it grows to many megabytes for every stream whose reader has
/// stopped, and that memory shows nowhere in the process; half a megabyte still carries some MB/s over an ocean.
/// (Linux books twice this number, and caps it at `net.core.rmem_max`.)
pub const RECEIVE_BUFFER: usize = 512 * 1024;

/// How long an address has before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// A connection that carries nothing is probed after this time, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … again after this one, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// … and is dead after as many probes without an answer.
#[cfg(unix)]
const KEEPALIVE_PROBES: u32 = 4;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whoever can open connections to upstreams. Dropping the future gives the attempt up.
pub trait Dial: Send + Sync + fmt::Debug {
    /// Opens a connection that is ready for the first byte of a request, within `limit` for everything together.
    fn dial<'a>(&'a self, origin: &'a Origin, limit: Duration) -> BoxFuture<'a, Result<Stream, DialError>>;
}

/// What the configuration says about the network.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// `network.proxy`
    pub proxy: Proxy,
    /// `network.caFile`
    pub extra_roots: Option<ExtraRoots>,
}

/// The real thing: the system's resolver, TCP, the configured proxy, TLS.
#[derive(Debug)]
pub struct Dialer {
    resolver: Resolver,
    proxy: Proxy,
    tls: Tls,
}

impl Dialer {
    /// Does nothing yet: the system's roots are read at the first `https` upstream, or by [`Dialer::warm`].
    pub fn new(settings: Settings) -> Self {
        Self::with_system(settings, system_lookup(), system_roots)
    }

    /// The same with other sources for what the operating system knows, so that tests need neither a name server nor
    /// the machine's roots.
    pub fn with_system(settings: Settings, lookup: Lookup, roots: SystemRoots) -> Self {
        Self { resolver: Resolver::new(lookup), proxy: settings.proxy, tls: Tls::new(settings.extra_roots, roots) }
    }

    /// Reads the system's roots now, so that the first request does not wait for it. A failure is met again, with
    /// its message, by whoever dials.
    pub async fn warm(&self) {
        if let Err(fault) = self.tls.connector().await {
            tracing::warn!(cause = fault.cause.code(), "{}; {}", fault.cause.sentence(), fault.cause.remedy());
        }
    }

    async fn open(&self, origin: &Origin, deadline: Instant) -> Result<Stream, Fault> {
        let Some(proxy) = self.proxy.for_origin(origin) else {
            let tcp = self.connect(origin, deadline).await?;
            return match origin.scheme {
                Scheme::Http => Ok(Stream::Tcp(tcp)),
                Scheme::Https => self.secure(origin, Stream::Tcp(tcp), deadline).await,
            };
        };
        // The proxy looks names up itself; addresses are judged here.
        if let Ok(address) = origin.host.parse() {
            check(origin, address)?;
        }
        let mut stream = self.reach_proxy(proxy, deadline).await?;
        within(deadline, Step::Proxy, tunnel::open(&mut stream, proxy, origin)).await?;
        match origin.scheme {
            Scheme::Http => Ok(stream),
            Scheme::Https => self.secure(origin, stream, deadline).await,
        }
    }

    async fn reach_proxy(&self, proxy: &ProxyUrl, deadline: Instant) -> Result<Stream, Fault> {
        let reached = async {
            let tcp = self.connect(&proxy.origin, deadline).await?;
            match proxy.origin.scheme {
                Scheme::Http => Ok(Stream::Tcp(tcp)),
                Scheme::Https => self.secure(&proxy.origin, Stream::Tcp(tcp), deadline).await,
            }
        };
        reached.await.map_err(|fault: Fault| {
            let cause = match fault.cause {
                Cause::TimedOut(_) => Cause::TimedOut(Step::Proxy),
                _ => Cause::ProxyUnreachable,
            };
            Fault::new(cause, format_args!("{proxy}: {}: {}", fault.cause.sentence(), fault.detail))
        })
    }

    async fn secure(&self, origin: &Origin, stream: Stream, deadline: Instant) -> Result<Stream, Fault> {
        match stream {
            Stream::Tcp(tcp) => {
                let tls = within(deadline, Step::Tls, self.tls.handshake(&origin.host, tcp)).await?;
                Ok(Stream::Tls(Box::new(tls)))
            }
            other => {
                let tls = within(deadline, Step::Tls, self.tls.handshake(&origin.host, other)).await?;
                Ok(Stream::pipe(tls))
            }
        }
    }

    /// A TCP connection to one of the host's addresses.
    async fn connect(&self, origin: &Origin, deadline: Instant) -> Result<TcpStream, Fault> {
        let found = within(deadline, Step::Dns, self.resolver.resolve(&origin.host)).await?;
        let mut allowed = Vec::with_capacity(found.len());
        let mut refused = None;
        for address in found.iter() {
            match check(origin, *address) {
                Ok(()) => allowed.push(SocketAddr::new(*address, origin.port)),
                Err(fault) => refused = Some(fault),
            }
        }
        if let (true, Some(fault)) = (allowed.is_empty(), refused) {
            return Err(fault);
        }
        let connected = within(deadline, Step::Connect, race(&allowed)).await;
        if connected.is_err() {
            self.resolver.doubt(&origin.host);
        }
        connected
    }
}

impl Dial for Dialer {
    fn dial<'a>(&'a self, origin: &'a Origin, limit: Duration) -> BoxFuture<'a, Result<Stream, DialError>> {
        Box::pin(async move {
            let deadline = Instant::now() + limit;
            self.open(origin, deadline).await.map_err(|fault| fault.at(origin))
        })
    }
}

async fn within<T>(deadline: Instant, step: Step, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(Fault::new(Cause::TimedOut(step), "")))
}

/// Whether an address may be connected to for this origin. A name that leads to this machine although it does not say so
/// is a sign of a name server that lies, and without TLS nothing else would notice.
fn check(origin: &Origin, address: IpAddr) -> Result<(), Fault> {
    let hidden_loopback =
        origin.scheme == Scheme::Http && plain(address).is_loopback() && !names_loopback(&origin.host);
    if is_forbidden(address) || hidden_loopback {
        return Err(Fault::new(Cause::AddressForbidden, format_args!("`{}` is {address}", origin.host)));
    }
    Ok(())
}

/// Tries the addresses in turn, the next one as soon as the one before failed or has been slow; the first wins.
async fn race(addresses: &[SocketAddr]) -> Result<TcpStream, Fault> {
    let mut waiting = addresses.iter();
    let mut running: Vec<BoxFuture<'_, (SocketAddr, io::Result<TcpStream>)>> = Vec::with_capacity(addresses.len());
    let mut worst: Option<Fault> = None;
    loop {
        if let Some(next) = waiting.next() {
            running.push(Box::pin(async move { (*next, connect_to(*next).await) }));
        }
        if running.is_empty() {
            return Err(worst.unwrap_or_else(|| Fault::new(Cause::DnsNotFound, "no address")));
        }
        let first_done = std::future::poll_fn(|cx| {
            for at in 0..running.len() {
                if let std::task::Poll::Ready(done) = running[at].as_mut().poll(cx) {
                    drop(running.swap_remove(at));
                    return std::task::Poll::Ready(done);
                }
            }
            std::task::Poll::Pending
        });
        let done = tokio::select! {
            done = first_done => done,
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => continue,
        };
        match done {
            (_, Ok(stream)) => return Ok(stream),
            (address, Err(e)) => {
                // A machine without IPv6 fails those addresses at once: that is not the news.
                let fault = Fault::from_connect(&e, address);
                if worst.is_none() || !matches!(fault.cause, Cause::Unreachable | Cause::Local) {
                    worst = Some(fault);
                }
            }
        }
    }
}

async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Before connecting: the window that is offered with the first packet depends on it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER as u32)?;
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    #[cfg(unix)]
    let keepalive = keepalive.with_retries(KEEPALIVE_PROBES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.connect(address).await
}
