//! Answers whose client is gone, kept for a moment in case it comes back: so that an agent whose connection broke pays
//! once, and gets the answer that it paid for.
//!
//! With `replaySecs` an exchange writes its answer into a [`Spool`] and its client's connection reads it from there. When
//! the client goes, the exchange runs on, and its spool stands on the [`Shelf`]. A request that is the same byte for byte,
//! of the same credential, takes it from there; while one does, nobody else can. Two same requests whose clients are both
//! there are two requests.

#[cfg(test)]
mod orders;
mod spool;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http1::RequestHead;

use crate::lock::{Locked, lock};

pub use spool::{End, Piece, Pump, Reader, Spool, Stage};

/// Answers that wait at the same time.
const ANSWERS: usize = 1024;

/// Headers that differ between two tries of the same request.
const OF_A_TRY: [&str; 7] = [
    "x-stainless-retry-count",
    "x-client-request-id",
    "x-request-id",
    "request-id",
    "traceparent",
    "tracestate",
    "content-length",
];

/// A request as a whole: who asks, what for, its body. Two hashes under keys that nobody knows, so that nobody can make
/// two requests that are taken for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey(u64, u64);

/// What has happened to answers whose clients went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Clients that went before the end of their answer, which went on.
    pub left: u64,
    /// Clients that came back and got it.
    pub joined: u64,
    /// Answers for which nobody came in time.
    pub expired: u64,
    /// Answers that became too large to be kept, or for which there was no room.
    pub outgrown: u64,
}

/// Answers whose clients are gone, bounded in number, in memory and in time.
#[derive(Default)]
pub struct Shelf {
    answers: Mutex<HashMap<RequestKey, Arc<Spool>>>,
    /// Of all that run, the last one of each request: somebody reads it, or it waits as well.
    running: Mutex<HashMap<RequestKey, Arc<Spool>>>,
    hashers: [RandomState; 2],
    left: AtomicU64,
    joined: AtomicU64,
    expired: AtomicU64,
    outgrown: Arc<AtomicU64>,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shelf({} answers)", self.waiting())
    }
}

impl Shelf {
    fn lock(&self) -> Locked<'_, HashMap<RequestKey, Arc<Spool>>> {
        lock(&self.answers)
    }

    /// Answers that wait now.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        Counts {
            left: get(&self.left),
            joined: get(&self.joined),
            expired: get(&self.expired),
            outgrown: get(&self.outgrown),
        }
    }

    /// An answer begins; it runs until [`Shelf::remove`].
    pub fn begins(&self, key: RequestKey, spool: &Arc<Spool>) {
        self.running().insert(key, spool.clone());
    }

    /// An answer to the same request that somebody seems to read. Who comes back at once may be here before it is known
    /// that it went.
    pub fn twin(&self, key: RequestKey) -> Option<Arc<Spool>> {
        self.running().get(&key).cloned()
    }

    fn running(&self) -> Locked<'_, HashMap<RequestKey, Arc<Spool>>> {
        lock(&self.running)
    }

    /// The exchange's side of an answer.
    pub fn pump(&self, spool: &Arc<Spool>) -> Pump {
        Pump::new(spool.clone(), self.outgrown.clone())
    }

    /// A request as a whole; `who` asks.
    pub fn key(&self, head: &RequestHead, who: &[&str], body: &[u8]) -> RequestKey {
        let hash = |hasher: &RandomState| {
            let mut hash = hasher.build_hasher();
            (who, head.method(), head.target(), body).hash(&mut hash);
            for field in head.fields().filter(|field| !OF_A_TRY.iter().any(|name| field.is(name))) {
                (field.name.to_ascii_lowercase(), field.value).hash(&mut hash);
            }
            hash.finish()
        };
        RequestKey(hash(&self.hashers[0]), hash(&self.hashers[1]))
    }

    /// The client is gone: its answer waits for it, if there is any use in that.
    pub fn leave(&self, key: RequestKey, reader: Reader) {
        let spool = reader.spool().clone();
        let mut answers = self.lock();
        if !spool.keeps() || answers.len() >= ANSWERS {
            drop(answers);
            drop(reader);
            return spool.give_up();
        }
        answers.insert(key, spool);
        drop(reader);
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// A request comes: the answer that waits for it, if there is one.
    pub fn take(&self, key: RequestKey) -> Option<Reader> {
        let reader = self.lock().get(&key)?.read_again()?;
        self.joined.fetch_add(1, Ordering::Relaxed);
        Some(reader)
    }

    /// An answer that is over waits for nobody any more.
    pub fn remove(&self, key: RequestKey, spool: &Arc<Spool>) {
        for mut answers in [self.lock(), self.running()] {
            if answers.get(&key).is_some_and(|answer| Arc::ptr_eq(answer, spool)) {
                answers.remove(&key);
            }
        }
    }

    /// Nobody came for an answer in time.
    pub fn expire(&self, spool: &Spool) {
        if spool.expire() {
            self.expired.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    #[test]
    fn a_request_is_the_same_only_if_everything_is_that_counts() {
        let shelf = Shelf::default();
        let key = |fields: &str, who: &str, body: &str| {
            let text = format!("POST /v1/messages?beta=true HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
            let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
            shelf.key(&head.unwrap().unwrap(), &[who], body.as_bytes())
        };
        let beta = "anthropic-beta: a\r\n";
        let same = key(beta, "k", "{}");
        assert_eq!(same, key("Anthropic-Beta: a\r\nX-Stainless-Retry-Count: 1\r\n", "k", "{}"));
        for other in [
            key("anthropic-beta: b\r\n", "k", "{}"),
            key("anthropic-beta: a\r\nx-cco-project: p\r\n", "k", "{}"),
            key("", "k", "{}"),
            key(beta, "other", "{}"),
            key(beta, "k", "{ }"),
        ] {
            assert_ne!(same, other);
        }
        assert_ne!(
            Shelf::default().key(&head(), &["k"], b"{}"),
            shelf.key(&head(), &["k"], b"{}"),
            "nobody knows the keys"
        );
    }

    fn head() -> RequestHead {
        let text = "POST /v1/messages HTTP/1.1\r\nHost: h\r\n\r\n";
        RequestHead::take(&mut BytesMut::from(text), &mut Scan::default(), &Limits::default()).unwrap().unwrap()
    }
}
