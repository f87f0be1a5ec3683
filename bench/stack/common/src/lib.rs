//! What both relay prototypes share: flags, listeners, the two runtime layouts, the observer's scan.

use std::{future::Future, io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// The command line.
#[derive(Debug, Clone, Copy)]
pub struct Args {
    listen: SocketAddr,
    upstream: SocketAddr,
    workers: usize,
    steal: bool,
}

impl Args {
    /// Reads the flags; an error says which one was wrong.
    pub fn parse() -> Result<Self, String> {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut args = Self { listen: local(23200), upstream: local(23100), workers: 1, steal: false };
        let mut words = std::env::args().skip(1);
        while let Some(flag) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{flag}` needs a value"))?;
            let bad = |e: &dyn std::fmt::Display| format!("`{flag} {value}`: {e}");
            match flag.as_str() {
                "--listen" => args.listen = value.parse().map_err(|e| bad(&e))?,
                "--upstream" => args.upstream = value.parse().map_err(|e| bad(&e))?,
                "--workers" => args.workers = value.parse().map_err(|e| bad(&e))?,
                "--runtime" if value == "current" => args.steal = false,
                "--runtime" if value == "steal" => args.steal = true,
                _ => return Err(bad(&"unknown; write --listen, --upstream, --workers, --runtime current|steal")),
            }
        }
        Ok(args)
    }
}

/// Serves each accepted connection by `serve`, on one current-thread runtime per worker with its own
/// `SO_REUSEPORT` listener, or on one work-stealing runtime.
pub fn run<F, Fut>(serve: F) -> Result<(), String>
where
    F: Fn(TcpStream, SocketAddr) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let args = Args::parse()?;
    let text = |e: io::Error| e.to_string();
    if args.steal {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(args.workers).enable_io().build();
        let rt = rt.map_err(text)?;
        let tracker = TaskTracker::new();
        // The accept loop itself runs on a worker: the main thread only waits.
        return rt
            .block_on(tracker.spawn_on(accept(args, serve), rt.handle()))
            .map_err(|e| e.to_string())?
            .map_err(text);
    }
    let workers: Vec<_> = (0..args.workers)
        .map(|_| {
            std::thread::spawn(move || {
                let rt = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
                rt.block_on(accept(args, serve))
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?.map_err(text)?;
    }
    Ok(())
}

async fn accept<F, Fut>(args: Args, serve: F) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(!args.steal)?;
    socket.set_nonblocking(true)?;
    socket.bind(&args.listen.into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from_std(socket.into())?;
    let tracker = TaskTracker::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        client.set_nodelay(true)?;
        tracker.spawn(serve(client, args.upstream));
    }
}

/// Stands for the observer of the real gateway: finds where events end, over any split of the stream.
#[derive(Debug, Default)]
pub struct Scan {
    /// Events seen so far.
    pub events: u64,
    after_newline: bool,
}

impl Scan {
    /// Looks once at each byte.
    pub fn chunk(&mut self, data: &[u8]) {
        let Some((&last, _)) = data.split_last() else { return };
        self.events += u64::from(self.after_newline && data.first() == Some(&b'\n'));
        for at in memchr::memchr_iter(b'\n', data) {
            self.events += u64::from(data.get(at + 1) == Some(&b'\n'));
        }
        self.after_newline = last == b'\n';
    }
}

/// Header fields that belong to one connection and are never handed on.
pub const HOP_BY_HOP: [&str; 8] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect"];
