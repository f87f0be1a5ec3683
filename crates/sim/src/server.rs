//! The simulator itself: connections, and one request after another on each.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::Refusal;
use crate::api::Api;
use crate::config::SimConfig;
use crate::conn::{Conn, Gone};
use crate::deliver::{Finish, Occasion, Then, deliver};
use crate::dialect::{Dialect, canonical};
use crate::digest::hex;
use crate::http::{BadBody, BodyState, Head, read_head, read_piece};
use crate::journal::{Arrival, EndKind, Ending, Journal, Received, nothing_sent};
use crate::script::{Script, Turn};
use crate::upload::Upload;

/// A running simulator. All its connections share the journal, the queue of scripts and the stored batches and files.
#[derive(Debug)]
pub struct Sim {
    pub(crate) config: SimConfig,
    journal: Journal,
    pub(crate) api: Api,
    queue: Mutex<VecDeque<Turn>>,
    /// How often a script with `times` has come to bear, by what it answered.
    uses: Mutex<HashMap<String, u64>>,
    by_default: AtomicU64,
    open: watch::Sender<usize>,
    connections: AtomicU64,
    body_bytes: watch::Sender<u64>,
}

/// How many scripts may wait, and how many `times` are remembered.
const MAX_QUEUED: usize = 4096;

/// How much of an upload stays in memory.
const MAX_KEPT_UPLOAD: usize = 64 << 20;

impl Sim {
    /// Makes a simulator; it serves nothing yet. Fails if the journal's file cannot be opened.
    pub fn new(config: SimConfig) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            journal: Journal::new(&config)?,
            api: Api::default(),
            queue: Mutex::default(),
            uses: Mutex::default(),
            by_default: AtomicU64::new(0),
            open: watch::Sender::new(0),
            connections: AtomicU64::new(0),
            body_bytes: watch::Sender::new(0),
            config,
        }))
    }

    /// Listens where the configuration says.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        TcpListener::bind(self.config.listen).await
    }

    /// Serves connections until `stop` is cancelled; then ends all of them, and returns when they are gone.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.config.max_connections.max(1)));
        while let Some(Ok(place)) = stop.run_until_cancelled(places.clone().acquire_owned()).await {
            match stop.run_until_cancelled(listener.accept()).await {
                None => break,
                Some(Ok((stream, peer))) => {
                    // Events are to arrive one by one; where the option is refused they still arrive.
                    stream.set_nodelay(true).ok();
                    let (sim, stop) = (self.clone(), stop.clone());
                    tasks.spawn(async move {
                        let served = sim.run(stream, peer.to_string(), reset_tcp);
                        stop.run_until_cancelled(served).await;
                        drop(place);
                    });
                }
                // Out of file handles, or a connection that broke before it was taken: the next one may do better.
                Some(Err(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Serves one connection over any byte stream: an in-memory pipe, or TLS that somebody else has put in front. A
    /// `reset` is only a sudden end here. Dropping the future ends the connection.
    pub async fn serve_stream<S>(self: Arc<Self>, io: S, peer: impl Into<String>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.run(io, peer.into(), |_| {}).await;
    }

    /// Queues behaviours for the next requests under `/v1/`, one turn each, before headers, markers and the default.
    /// At most 4096 wait; what is beyond them is left out, and the count of those is returned.
    pub fn script(&self, scripts: Vec<Script>) -> usize {
        let mut queue = lock(&self.queue);
        let mut left_out = 0;
        for turn in scripts.into_iter().flat_map(|script| script.turns) {
            if queue.len() < MAX_QUEUED { queue.push_back(turn) } else { left_out += 1 }
        }
        left_out
    }

    /// What was received so far, oldest first, as far as it is still kept.
    pub fn requests(&self) -> Vec<Received> {
        self.journal.all()
    }

    /// How many requests have fallen out of the journal in memory.
    pub fn requests_fallen_out(&self) -> u64 {
        self.journal.fallen_out()
    }

    /// Waits until `holds` is true of what was received; it is asked again whenever a request arrives or ends. It runs
    /// under the journal's lock: it must not call the simulator.
    pub async fn wait_for(&self, holds: impl FnMut(&[Received]) -> bool) {
        self.journal.wait_for(holds).await;
    }

    /// How many connections are open.
    pub fn connections_open(&self) -> usize {
        *self.open.borrow()
    }

    /// How many connections there were, open ones included.
    pub fn connections_seen(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Waits until `holds` is true of the number of open connections.
    pub async fn wait_for_connections(&self, mut holds: impl FnMut(usize) -> bool) {
        let mut open = self.open.subscribe();
        open.wait_for(|open| holds(*open)).await.expect("the simulator itself holds the sender");
    }

    /// Waits until `holds` is true of the number of bytes of request bodies that have come in, over all requests, those
    /// included that are still coming: a request is in the journal only when it is there.
    pub async fn wait_for_body_bytes(&self, mut holds: impl FnMut(u64) -> bool) {
        let mut bytes = self.body_bytes.subscribe();
        bytes.wait_for(|bytes| holds(*bytes)).await.expect("the simulator itself holds the sender");
    }

    /// The next queued behaviour.
    pub(crate) fn next_queued(&self) -> Option<Turn> {
        lock(&self.queue).pop_front()
    }

    /// Whether the default still goes; counts this use.
    pub(crate) fn default_goes(&self) -> bool {
        let before = self.by_default.fetch_add(1, Ordering::Relaxed);
        self.config.default_for.is_none_or(|count| before < count)
    }

    /// Whether a script that goes `times` times for `key` still goes; counts this use.
    pub(crate) fn still_goes(&self, key: String, times: u64) -> bool {
        let mut uses = lock(&self.uses);
        if uses.len() >= MAX_QUEUED && !uses.contains_key(&key) {
            // Forgetting lets a fault come again; growing without end would be worse.
            uses.clear();
        }
        let used = uses.entry(key).or_default();
        *used += 1;
        *used <= times
    }

    async fn run<S>(self: Arc<Self>, io: S, peer: String, reset: fn(&S))
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _open = Open::new(&self.open);
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let mut conn = Conn::new(io, reset);
        while let Some(head) = read_head(&mut conn).await {
            match Box::pin(self.exchange(&mut conn, head, connection, &peer)).await {
                Then::Keep => {}
                Then::Close => break,
                Then::Reset => return conn.reset(),
            }
        }
        conn.close().await;
    }

    /// One request and its answer.
    async fn exchange<S>(&self, conn: &mut Conn<S>, mut head: Head, connection: u64, peer: &str) -> Then
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let sent = nothing_sent();
        let chunked = head.body == BodyState::ChunkSize;
        let mut body = Body::new(&head, &self.config);
        let came = match head.refuse.take() {
            Some((status, why)) => Came::Refused(status, why),
            None => body.receive(conn, &mut head, &sent, &self.body_bytes).await,
        };
        match &came {
            Came::Refused(400, why) if !head.oddities.contains(why) => head.oddities.push(why.clone()),
            Came::Gone => head.oddities.push("the client went inside of the body".to_owned()),
            Came::Refused(..) | Came::Whole => {}
        }
        let (bytes, body_len, body_sha256) = body.finish();
        let began = Instant::now();
        let arrival = Arrival {
            connection,
            peer: peer.to_owned(),
            method: head.method.clone(),
            target: head.target.clone(),
            head: head.raw.clone(),
            headers: head.headers.clone(),
            body: bytes.clone(),
            body_len,
            body_sha256: body_sha256.clone(),
            body_complete: matches!(came, Came::Whole),
            chunked,
            oddities: head.oddities.clone(),
        };
        let (seq, came) = match self.journal.received(arrival, sent.clone()) {
            Ok(seq) => (seq, came),
            Err((seq, why)) => (seq, Came::Refused(500, format!("the simulator's journal cannot be written: {why}"))),
        };
        let mut ending = Ending {
            journal: &self.journal,
            seq,
            began,
            sent: sent.clone(),
            status: None,
            faults: Vec::new(),
            kind: EndKind::Stopped,
        };
        let request = Request { head: &head, body: bytes, body_sha256, upload: body.upload, seq };
        let (answer, turn) = match &came {
            Came::Gone => {
                ending.kind = EndKind::ClientGone;
                return Then::Close;
            }
            Came::Refused(status, why) => (
                Refusal::new(*status, why).answer(&request.id(), Dialect::of(&head, &canonical(head.path()))),
                Turn::default(),
            ),
            Came::Whole => self.answer(&request),
        };
        ending.status = Some(answer.status);
        ending.faults = turn.faults.iter().map(ToString::to_string).collect();
        let occasion = Occasion {
            head_only: head.method == "HEAD",
            // Where a refused request ends is not known beyond doubt.
            last: head.wants_close() || !matches!(came, Came::Whole),
            old_client: head.minor == 0,
        };
        match deliver(conn, answer, &turn, occasion, &sent).await {
            Err(Gone) => {
                ending.kind = EndKind::ClientGone;
                Then::Close
            }
            Ok(Finish::Keep) => {
                ending.kind = EndKind::Complete;
                Then::Keep
            }
            Ok(Finish::Close) => {
                ending.kind = EndKind::Complete;
                Then::Close
            }
            Ok(Finish::Broken { fault, then }) => {
                ending.kind = EndKind::Fault(fault);
                then
            }
        }
    }
}

/// What became of reading a request.
enum Came {
    Whole,
    /// It is not read any further, and gets this answer.
    Refused(u16, String),
    Gone,
}

impl From<BadBody> for Came {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Gone => Self::Gone,
            BadBody::Framing(why) => Self::Refused(400, why),
        }
    }
}

/// A request that has arrived whole.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) head: &'a Head,
    pub(crate) body: Bytes,
    pub(crate) body_sha256: String,
    pub(crate) upload: Option<Upload>,
    pub(crate) seq: u64,
}

impl Request<'_> {
    /// What the answer carries as `request-id`.
    pub(crate) fn id(&self) -> String {
        format!("req_sim_{:08}", self.seq)
    }
}

/// A body while it comes: its digest and length, and as much of it as is kept.
struct Body {
    hash: Sha256,
    length: u64,
    kept: BytesMut,
    keep: usize,
    limit: u64,
    upload: Option<Upload>,
}

impl Body {
    fn new(head: &Head, config: &SimConfig) -> Self {
        let path = head.path();
        let is_upload = head.method == "POST" && path == "/v1/files";
        let (limit, keep) = match path {
            "/v1/messages/batches" => (256 << 20, 256 << 20),
            _ if path.starts_with("/v1/files") => (500 << 20, MAX_KEPT_UPLOAD),
            _ => (config.max_body, usize::try_from(config.max_body).unwrap_or(usize::MAX)),
        };
        let upload = is_upload.then(|| Upload::new(head.header("content-type").unwrap_or_default()));
        Self { hash: Sha256::new(), length: 0, kept: BytesMut::new(), keep, limit, upload }
    }

    /// Reads the whole of it, as far as it may be read.
    async fn receive<S>(
        &mut self,
        conn: &mut Conn<S>,
        head: &mut Head,
        sent: &AtomicU64,
        all: &watch::Sender<u64>,
    ) -> Came
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let too_large = || Came::Refused(413, "Request exceeds the maximum size".to_owned());
        if matches!(head.body, BodyState::Length(length) if length > self.limit) {
            return too_large();
        }
        if head.body != BodyState::Done && head.awaits_continue() && conn.input.is_empty() {
            let go_on = conn.send(b"HTTP/1.1 100 Continue\r\n\r\n", sent).await;
            if go_on.is_err() {
                return Came::Gone;
            }
        }
        loop {
            let piece = match read_piece(conn, &mut head.body).await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Came::Whole,
                Err(bad) => return bad.into(),
            };
            self.length += piece.len() as u64;
            all.send_modify(|all| *all += piece.len() as u64);
            if self.length > self.limit {
                return too_large();
            }
            self.hash.update(&piece);
            if let Some(upload) = &mut self.upload {
                upload.take(&piece);
            }
            let room = self.keep - self.kept.len();
            self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn finish(&mut self) -> (Bytes, u64, String) {
        (self.kept.split().freeze(), self.length, hex(&self.hash.finalize_reset()))
    }
}

/// Counts a connection as long as it is open.
struct Open<'a>(&'a watch::Sender<usize>);

impl<'a> Open<'a> {
    fn new(open: &'a watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

fn reset_tcp(stream: &TcpStream) {
    // If the option is refused the end is a clean one, and the journal says `reset` all the same.
    stream.set_zero_linger().ok();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks; if it did, a queue is still a queue.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
