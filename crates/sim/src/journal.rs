//! What was received and what became of it: in memory for tests, in a file for everybody else.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SimConfig;
use crate::conn::Sent;
use crate::digest::{base64, sha256_hex};

/// One request as it was received, and how its answer ended.
#[derive(Clone, Debug)]
pub struct Received {
    /// Counts from 1, over all connections.
    pub seq: u64,
    /// Which connection it came on; counts from 1.
    pub connection: u64,
    /// Who sent it, as the caller of `serve_stream` said, or the peer's address.
    pub peer: String,
    /// When the whole of it was there, since the simulator was made.
    pub at: Duration,
    /// Empty if the head could not be read.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The head as it came, to the empty line.
    pub head: Bytes,
    /// Names in their own case and values as bytes, in the order in which they came.
    pub headers: Vec<(String, Bytes)>,
    /// The body without its framing. Of an upload only the first 64 MiB.
    pub body: Bytes,
    /// The length of the whole body.
    pub body_len: u64,
    /// The digest of the whole body, in hexadecimal.
    pub body_sha256: String,
    /// Whether the body came whole.
    pub body_complete: bool,
    /// Whether the body came in chunks.
    pub chunked: bool,
    /// What a well-behaved client would not have sent.
    pub oddities: Vec<String>,
    /// How it ended; `None` while the answer is under way.
    pub end: Option<End>,
    sent: Sent,
}

/// How the answer to a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The last thing that happened.
    pub kind: EndKind,
    /// The status that was sent; `None` if no head was.
    pub status: Option<u16>,
    /// The bytes of the answer that were written, head and framing included.
    pub sent_bytes: u64,
    /// Since the request was received.
    pub after: Duration,
    /// The faults of the script, whether or not they came to bear.
    pub faults: Vec<String>,
}

/// See [`End`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndKind {
    /// The whole answer was written, as the script wanted it.
    Complete,
    /// The client closed, or the connection broke, before the whole answer was written.
    ClientGone,
    /// The answer was ended, or its framing broken, by this fault.
    Fault(String),
    /// The simulator was told to stop, or the future that served the connection was dropped.
    Stopped,
}

impl Received {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.header_all(name).into_iter().next()
    }

    /// All headers of this name, in order. Those that are not UTF-8 are left out.
    pub fn header_all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.filter_map(|(_, value)| std::str::from_utf8(value).ok()).collect()
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The bytes of the answer that have been written so far, head and framing included.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the client went before its answer was complete.
    pub fn client_gone(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.kind == EndKind::ClientGone)
    }
}

/// What the connection knows about a request when it hands it in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: u64,
    pub(crate) peer: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: Bytes,
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Bytes,
    pub(crate) body_len: u64,
    pub(crate) body_sha256: String,
    pub(crate) body_complete: bool,
    pub(crate) chunked: bool,
    pub(crate) oddities: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    born: Instant,
    born_ms: u128,
    bodies: bool,
    secrets: bool,
    keep_requests: usize,
    keep_bytes: usize,
    kept: Mutex<Kept>,
    file: Option<Mutex<File>>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    next_seq: u64,
    received: VecDeque<Received>,
    bytes: usize,
    fallen_out: u64,
}

impl Journal {
    pub(crate) fn new(config: &SimConfig) -> io::Result<Self> {
        let file = config.journal.as_ref().map(|path| {
            let mut options = OpenOptions::new();
            options.create(true).append(true);
            // Prompts are in it: it is for its owner only.
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let opened = options.open(path);
            opened.map_err(|why| {
                io::Error::new(why.kind(), format!("the journal `{}` cannot be opened: {why}", path.display()))
            })
        });
        Ok(Self {
            born: Instant::now(),
            born_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis()),
            bodies: config.journal_bodies,
            secrets: config.journal_secrets,
            keep_requests: config.keep_requests.max(1),
            keep_bytes: config.keep_bytes,
            kept: Mutex::default(),
            file: file.transpose()?.map(Mutex::new),
            changed: Notify::new(),
        })
    }

    /// Takes a request in. When this returns its number it is in the file, and the file on the disk.
    pub(crate) fn received(&self, arrival: Arrival, sent: Sent) -> Result<u64, (u64, io::Error)> {
        let received = {
            let mut kept = self.kept();
            kept.next_seq += 1;
            Received {
                seq: kept.next_seq,
                connection: arrival.connection,
                peer: arrival.peer,
                at: self.born.elapsed(),
                method: arrival.method,
                target: arrival.target,
                head: arrival.head,
                headers: arrival.headers,
                body: arrival.body,
                body_len: arrival.body_len,
                body_sha256: arrival.body_sha256,
                body_complete: arrival.body_complete,
                chunked: arrival.chunked,
                oddities: arrival.oddities,
                end: None,
                sent,
            }
        };
        let seq = received.seq;
        let written = self.append(|| self.line(&received), true);
        let mut kept = self.kept();
        kept.bytes += received.body.len();
        // Another connection may have been quicker between the two locks: the order is that of the numbers.
        let place = kept.received.partition_point(|other| other.seq < seq);
        kept.received.insert(place, received);
        while kept.received.len() > self.keep_requests || (kept.bytes > self.keep_bytes && kept.received.len() > 1) {
            let out = kept.received.pop_front().expect("it holds more than one");
            kept.bytes -= out.body.len();
            kept.fallen_out += 1;
        }
        drop(kept);
        self.changed.notify_waiters();
        written.map(|()| seq).map_err(|why| (seq, why))
    }

    pub(crate) fn ended(&self, seq: u64, end: End) {
        let line = || {
            let kind = match &end.kind {
                EndKind::Complete => "complete".to_owned(),
                EndKind::ClientGone => "client_gone".to_owned(),
                EndKind::Fault(fault) => format!("fault:{fault}"),
                EndKind::Stopped => "stopped".to_owned(),
            };
            let gone = end.kind == EndKind::ClientGone;
            let after = end.after.as_millis() as u64;
            let mut line = json!({
                "seq": seq, "end": kind, "status": end.status, "sent_bytes": end.sent_bytes, "after_ms": after, "faults": end.faults,
            });
            if gone {
                line["aborted_after_ms"] = after.into();
                line["aborted_after_bytes"] = end.sent_bytes.into();
            }
            line
        };
        // The request itself is safe; of the end no more can be said if the disk does not take it.
        self.append(line, false).ok();
        let mut kept = self.kept();
        if let Ok(place) = kept.received.binary_search_by_key(&seq, |received| received.seq) {
            kept.received[place].end = Some(end);
        }
        drop(kept);
        self.changed.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.kept().received.iter().cloned().collect()
    }

    pub(crate) fn fallen_out(&self) -> u64 {
        self.kept().fallen_out
    }

    pub(crate) async fn wait_for(&self, mut holds: impl FnMut(&[Received]) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that nothing can happen between the two.
            changed.as_mut().enable();
            if holds(self.kept().received.make_contiguous()) {
                return;
            }
            changed.await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A panic of a caller's condition leaves the journal as it was.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, line: impl FnOnce() -> Value, durable: bool) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut line = line().to_string();
        line.push('\n');
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())?;
        if durable { file.sync_data() } else { Ok(()) }
    }

    fn line(&self, received: &Received) -> Value {
        let header = |(name, value): &(String, Bytes)| {
            if !self.secrets && CREDENTIALS.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                return json!([name, format!("sha256:{}", sha256_hex([value.as_ref()]))]);
            }
            json!([name, String::from_utf8_lossy(value)])
        };
        let mut line = json!({
            "seq": received.seq,
            "time_ms": (self.born_ms + received.at.as_millis()) as u64,
            "connection": received.connection,
            "peer": received.peer,
            "method": received.method,
            "target": received.target,
            "headers": received.headers.iter().map(header).collect::<Vec<_>>(),
            "body_len": received.body_len,
            "body_sha256": received.body_sha256,
            "body_complete": received.body_complete,
            "chunked": received.chunked,
            "oddities": received.oddities,
        });
        if self.bodies {
            match std::str::from_utf8(&received.body) {
                Ok(text) => line["body"] = text.into(),
                Err(_) => line["body_base64"] = base64(&received.body).into(),
            }
        }
        line
    }
}

const CREDENTIALS: [&str; 6] =
    ["authorization", "x-api-key", "api-key", "x-goog-api-key", "proxy-authorization", "cookie"];

/// Sees to it that a request gets its end, whatever becomes of the future that serves it.
#[derive(Debug)]
pub(crate) struct Ending<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) seq: u64,
    pub(crate) began: Instant,
    pub(crate) sent: Sent,
    pub(crate) status: Option<u16>,
    pub(crate) faults: Vec<String>,
    pub(crate) kind: EndKind,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let sent_bytes = self.sent.load(Ordering::Relaxed);
        self.journal.ended(
            self.seq,
            End {
                kind: std::mem::replace(&mut self.kind, EndKind::Stopped),
                status: self.status.filter(|_| sent_bytes > 0),
                sent_bytes,
                after: self.began.elapsed(),
                faults: std::mem::take(&mut self.faults),
            },
        );
    }
}

/// A counter that starts at nothing.
pub(crate) fn nothing_sent() -> Sent {
    Sent::new(AtomicU64::new(0))
}
