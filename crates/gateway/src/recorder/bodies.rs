//! Bodies on their way to the archive: copied as they pass, bounded in sum, and never waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http1::{RequestHead, ResponseHead};
use ledger::archive::{Archive, Body, Counts, Kind, Skip};
use ledger::record::Id;
use ledger::redact;

/// Bytes of answers that may be on their way at a time, all exchanges together.
const COLLECTED: usize = 64 * 1024 * 1024;
/// The first piece of a copy; most events of a stream together are this small.
const FIRST_PIECE: usize = 2 * 1024;
/// Further pieces.
const PIECE: usize = 16 * 1024;
/// How long a shutdown waits for bodies that are not written yet.
const LAST_BODIES: Duration = Duration::from_secs(10);

/// The archive, and which bodies go there.
pub struct Bodies {
    archive: Arc<Archive>,
    requests: bool,
    answers: bool,
    collected: Arc<AtomicUsize>,
}

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bodies")
            .field("requests", &self.requests)
            .field("answers", &self.answers)
            .finish_non_exhaustive()
    }
}

/// Whose bodies they are.
#[derive(Debug, Clone)]
pub struct Owner {
    /// The exchange.
    pub id: Id,
    /// Its session, by which they can be purged.
    pub session: Option<Box<str>>,
}

impl Bodies {
    /// Keeps these kinds of bodies.
    pub fn new(archive: Archive, requests: bool, answers: bool) -> Self {
        Self { archive: Arc::new(archive), requests, answers, collected: Arc::default() }
    }

    /// The same archive for other kinds of bodies.
    #[must_use]
    pub fn again(&self, requests: bool, answers: bool) -> Self {
        Self { archive: self.archive.clone(), requests, answers, collected: self.collected.clone() }
    }

    /// What the archive has done so far.
    pub fn counts(&self) -> Counts {
        self.archive.counts()
    }

    /// Why nothing is written at the moment; `None`: all is well.
    pub fn trouble(&self) -> Option<String> {
        self.archive.trouble()
    }

    /// The archive itself, to read and to purge.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Keeps a request's head and its body, which is shared and not copied.
    pub fn request(&self, owner: &Owner, head: &RequestHead, body: &Bytes) {
        if !self.requests {
            return;
        }
        let line = format!("{} {}", head.method(), head.target());
        let fields = head.fields().map(|field| (text(field.name), field.value));
        self.submit(owner, Kind::RequestHead, None, vec![redact::head(&line, fields).into()]);
        self.submit(owner, Kind::Request, head.get("content-encoding"), vec![body.clone()]);
    }

    /// Keeps an answer's head, and begins to copy its body.
    pub fn answer(self: &Arc<Self>, owner: Owner, head: &ResponseHead) -> Option<Tape> {
        if !self.answers {
            return None;
        }
        let line = format!("{} {}", head.status, String::from_utf8_lossy(head.reason()));
        let fields = head.fields().map(|field| (text(field.name), field.value));
        self.submit(&owner, Kind::ResponseHead, None, vec![redact::head(&line, fields).into()]);
        let coding = head.get("content-encoding").map(Box::from);
        Some(Tape {
            bodies: self.clone(),
            owner,
            coding,
            pieces: Vec::new(),
            last: BytesMut::new(),
            claimed: 0,
            cut: false,
        })
    }

    fn submit(&self, owner: &Owner, kind: Kind, coding: Option<&[u8]>, pieces: Vec<Bytes>) {
        let coding = coding.map(|value| String::from_utf8_lossy(value).into());
        let (exchange, session) = (owner.id.to_bytes(), owner.session.clone());
        // What is not taken is counted there.
        let _ = self.archive.submit(Body { exchange, kind, coding, session, pieces, time_ms: owner.id.unix_ms() });
    }

    /// Waits a while for what is not written yet. Blocks.
    pub(super) fn close(&self) {
        self.archive.flush(LAST_BODIES);
    }
}

fn text(name: &[u8]) -> &str {
    std::str::from_utf8(name).unwrap_or("?")
}

/// A copy of an answer's body in the making. It is handed over when it is dropped: an answer that broke off is kept as
/// far as it came.
pub struct Tape {
    bodies: Arc<Bodies>,
    owner: Owner,
    coding: Option<Box<[u8]>>,
    pieces: Vec<Bytes>,
    last: BytesMut,
    /// This copy's share of what may be on its way.
    claimed: usize,
    /// Whether there was no room for the rest: half an answer would be taken for a whole one.
    cut: bool,
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({} bytes)", self.claimed)
    }
}

impl Tape {
    /// Copies what passes.
    pub fn keep(&mut self, piece: &[u8]) {
        if self.cut || !self.claim(piece.len()) {
            return;
        }
        let mut rest = piece;
        while !rest.is_empty() {
            if self.last.len() == self.last.capacity() {
                let next = if self.last.is_empty() { FIRST_PIECE } else { PIECE };
                let full = std::mem::replace(&mut self.last, BytesMut::with_capacity(next));
                if !full.is_empty() {
                    self.pieces.push(full.freeze());
                }
            }
            let (now, later) = rest.split_at(rest.len().min(self.last.capacity() - self.last.len()));
            self.last.put_slice(now);
            rest = later;
        }
    }

    /// All that was copied so far, where it is as the client gets it; `None`: it is coded, or there was no room for it.
    pub fn plain(&self) -> Option<Vec<u8>> {
        let whole = !self.cut && self.coding.is_none();
        whole.then(|| self.pieces.iter().map(|piece| &piece[..]).chain([&self.last[..]]).collect::<Vec<_>>().concat())
    }

    fn claim(&mut self, more: usize) -> bool {
        let before = self.bodies.collected.fetch_add(more, Ordering::Relaxed);
        self.claimed += more;
        self.cut = before + more > COLLECTED;
        if self.cut {
            self.pieces = Vec::new();
            self.last = BytesMut::new();
            self.give_back();
            self.bodies.archive.skip(Skip::QueueFull);
        }
        !self.cut
    }

    fn give_back(&mut self) {
        self.bodies.collected.fetch_sub(std::mem::take(&mut self.claimed), Ordering::Relaxed);
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.give_back();
        if self.cut {
            return;
        }
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.push(std::mem::take(&mut self.last).freeze());
        self.bodies.submit(&self.owner, Kind::Response, self.coding.as_deref(), pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::{Limits, Scan};
    use ledger::archive::Options;

    fn bodies(folder: &std::path::Path) -> Arc<Bodies> {
        let archive = Archive::open(Options::new(folder.join("archive"), folder.join("archive.key"))).unwrap();
        Arc::new(Bodies::new(archive, true, true))
    }

    fn answer_head() -> ResponseHead {
        let mut bytes = BytesMut::from(&b"HTTP/1.1 200 OK\r\nset-cookie: secret\r\ncontent-length: 3\r\n\r\n"[..]);
        ResponseHead::take(&mut bytes, &mut Scan::default(), &Limits::default(), false).unwrap().unwrap()
    }

    fn read(bodies: &Bodies, id: Id, kind: Kind) -> Option<Vec<u8>> {
        assert!(bodies.archive.flush(Duration::from_secs(10)));
        bodies.archive.reader().read(id.to_bytes(), kind).unwrap().map(|body| body.bytes().unwrap())
    }

    #[test]
    fn what_passes_in_crumbs_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = bodies(folder.path());
        let owner = Owner { id: Id::v7(1, 7), session: None };
        let whole: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(31) as u8).collect();
        let mut tape = bodies.answer(owner.clone(), &answer_head()).unwrap();
        for piece in whole.chunks(777) {
            tape.keep(piece);
        }
        drop(tape);
        assert_eq!(read(&bodies, owner.id, Kind::Response), Some(whole));
        let head = String::from_utf8(read(&bodies, owner.id, Kind::ResponseHead).unwrap()).unwrap();
        assert_eq!(head, "200 OK\nset-cookie: ***\ncontent-length: 3\n");
        assert_eq!(bodies.collected.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_answer_that_there_is_no_room_for_is_counted_and_no_half_of_it_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let bodies = bodies(folder.path());
        let owner = Owner { id: Id::v7(1, 8), session: None };
        let mut tape = bodies.answer(owner.clone(), &answer_head()).unwrap();
        tape.keep(b"abc");
        bodies.collected.fetch_add(COLLECTED, Ordering::Relaxed);
        tape.keep(b"d");
        bodies.collected.fetch_sub(COLLECTED, Ordering::Relaxed);
        tape.keep(b"e");
        drop(tape);
        assert_eq!(read(&bodies, owner.id, Kind::Response), None);
        assert_eq!(bodies.counts().skipped(Skip::QueueFull), 1);
        assert_eq!(bodies.collected.load(Ordering::Relaxed), 0);
    }
}
