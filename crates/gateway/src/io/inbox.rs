//! What was read and not yet understood.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// Bytes that a read has room for at first. Large enough for a Claude Code head or a burst of events.
const READ: usize = 16 * 1024;
/// Reads of fewer bytes go on in the memory of the one before.
const SMALL: usize = 2 * 1024;
/// What it grows to while reads keep filling it: fewer system calls for large bodies.
const READ_MAX: usize = 256 * 1024;
/// Buffers of the first size that a thread keeps for its next reader: half a megabyte. The one that was given back last is
/// taken first, while it is still in the processor's cache.
const SPARES: usize = 32;

thread_local! {
    /// Empty buffers of exactly the first size, so that the thousands of connections that wait own none.
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

fn spare() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ))
}

/// A read buffer that owns memory only while it holds bytes or, where it is told so, while others hold slices of it. What is
/// split off it is the received memory itself.
#[derive(Debug)]
pub struct Inbox {
    bytes: BytesMut,
    /// Room that the next read should have.
    room: usize,
    /// Room without which a read is not worth its system call: little where little comes at a time.
    least: usize,
    eof: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: BytesMut::new(), room: READ, least: READ, eof: false }
    }
}

impl Deref for Inbox {
    type Target = BytesMut;
    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Inbox {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

impl Inbox {
    /// Reads once. `Ok(0)` is the end of the stream, now and for ever. Pending: it owns no memory but that of what is unread.
    pub fn poll_fill<R: AsyncRead + Unpin>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = self.poll_read(io, cx);
        if filled.is_pending() && self.bytes.is_empty() && !self.give_back() {
            self.bytes = BytesMut::new();
        }
        filled
    }

    fn poll_read<R: AsyncRead + Unpin>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        if self.bytes.capacity() == 0 {
            self.bytes = spare();
        }
        if self.bytes.capacity() - self.bytes.len() < self.least {
            // Takes the memory back where nobody holds a slice of it any more, else allocates.
            self.bytes.reserve(self.room);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        let n = ready!(poll_read_buf(Pin::new(io), cx, &mut self.bytes))?;
        self.eof = n == 0;
        if n == room && self.room < READ_MAX {
            self.room *= 2;
        } else if n < READ {
            self.room = READ;
        }
        // Slices of small reads share their memory: one that waits would else keep a whole buffer from being used.
        self.least = if n < SMALL { SMALL } else { self.room };
        Poll::Ready(Ok(n))
    }

    /// As [`poll_fill`](Self::poll_fill), but stops at `limit` unread bytes: pending until some are taken out. Memory of
    /// which slices are still held stays here until they are let go of, and is then read into again.
    pub fn poll_fill_to<R: AsyncRead + Unpin>(
        &mut self,
        limit: usize,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.len() >= limit {
            return Poll::Pending;
        }
        let filled = self.poll_read(io, cx);
        if filled.is_pending() && self.bytes.is_empty() {
            self.give_back();
        }
        filled
    }

    /// Reads into room for `bytes` in all, for a body whose length is known.
    pub fn expect(&mut self, bytes: usize) {
        self.bytes.reserve(bytes.saturating_sub(self.bytes.len()));
    }

    /// Takes `n` bytes off the front. What has come behind a large body moves into memory of its own: in the body's it
    /// would keep all of that from being given back.
    pub fn take(&mut self, n: usize) -> Bytes {
        let taken = self.bytes.split_to(n).freeze();
        if n > READ {
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
        taken
    }

    /// Lets go of the memory if it can be read into from its beginning, or has as much left as a buffer of the first size:
    /// one of just that size waits for its next reader. `false`: others hold slices of it.
    fn give_back(&mut self) -> bool {
        if !self.bytes.try_reclaim(READ) {
            return false;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        // What is left of a larger one would keep all of that.
        if bytes.capacity() == READ && !bytes.try_reclaim(READ + 1) {
            SPARE.with_borrow_mut(|spares| {
                if spares.len() < SPARES {
                    spares.push(bytes);
                }
            });
        }
        true
    }

    /// Whether the other side has closed its direction.
    pub fn is_eof(&self) -> bool {
        self.eof
    }

    /// Reads once.
    pub async fn fill<R: AsyncRead + Unpin>(&mut self, io: &mut R) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(io, cx)).await
    }
}

/// Whether a pooled connection is quiet: neither closed by its peer nor with bytes that nobody asked for.
pub(crate) fn is_quiet<R: AsyncRead + Unpin>(inbox: &mut Inbox, io: &mut R) -> bool {
    if !inbox.is_empty() {
        return false;
    }
    // A task at the end of its budget is told that nothing is there whatever there is: that would not do here.
    let filled = std::pin::pin!(tokio::task::unconstrained(inbox.fill(io)));
    filled.poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
}

/// Reads and throws away, at most `limit` bytes, until the other side closes: closing a socket with unread bytes would
/// reset it, and with it the answer that is still under way.
pub(crate) async fn discard<R: AsyncRead + Unpin>(inbox: &mut Inbox, io: &mut R, mut limit: usize) {
    inbox.clear();
    std::future::poll_fn(|cx| {
        loop {
            match ready!(inbox.poll_fill(io, cx)) {
                Ok(n) if n > 0 && n < limit => limit -= n,
                _ => return Poll::Ready(()),
            }
            inbox.clear();
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn what_is_split_off_is_the_memory_that_was_read() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let mut inbox = Inbox::default();
        far.write_all(b"hello").await.unwrap();
        assert_eq!(inbox.fill(&mut near).await.unwrap(), 5);
        let at = inbox.as_ptr();
        assert_eq!(inbox.split_to(5).freeze().as_ptr(), at);
    }

    #[tokio::test]
    async fn a_connection_that_waits_owns_no_memory() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let mut inbox = Inbox::default();
        assert!(is_quiet(&mut inbox, &mut near));
        assert_eq!(inbox.bytes.capacity(), 0);
        far.write_all(b"hello").await.unwrap();
        inbox.fill(&mut near).await.unwrap();
        drop(inbox.split_to(5).freeze());
        assert!(is_quiet(&mut inbox, &mut near));
        assert_eq!(inbox.bytes.capacity(), 0);
        drop(far);
        assert!(!is_quiet(&mut inbox, &mut near) && inbox.is_eof());
    }

    #[tokio::test]
    async fn memory_of_which_slices_are_held_is_read_into_again_once_they_are_let_go_of() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut inbox = Inbox::default();
        far.write_all(b"head").await.unwrap();
        inbox.fill(&mut near).await.unwrap();
        let (at, head) = (inbox.as_ptr(), inbox.split_to(4).freeze());
        assert!(inbox.poll_fill_to(READ, &mut near, &mut cx).is_pending());
        assert_eq!(inbox.bytes.as_ptr(), at.wrapping_add(4), "it stays while the head is held");
        drop(head);
        assert!(inbox.poll_fill_to(READ, &mut near, &mut cx).is_pending());
        assert_eq!(inbox.bytes.capacity(), 0, "and then waits for the next reader");
        far.write_all(b"next").await.unwrap();
        inbox.fill(&mut near).await.unwrap();
        assert_eq!(inbox.as_ptr(), at);
    }

    #[tokio::test]
    async fn what_is_left_of_a_large_buffer_waits_for_nobody() {
        SPARE.with_borrow_mut(Vec::clear);
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let large = 4 * READ;
        for (left, held) in [(READ, true), (READ + 1, true), (READ, false)] {
            let mut inbox = Inbox::default();
            inbox.expect(large);
            far.write_all(&vec![1; large - left]).await.unwrap();
            while inbox.len() < large - left {
                inbox.fill(&mut near).await.unwrap();
            }
            let slice = Some(inbox.split().freeze()).filter(|_| held);
            assert_eq!(inbox.bytes.capacity(), left);
            assert!(is_quiet(&mut inbox, &mut near));
            assert_eq!(inbox.bytes.capacity(), 0);
            // In the one case in a thousand in which just so much is left it cannot be told from a small one.
            let kept = SPARE.with_borrow_mut(|spares| spares.drain(..).count());
            assert_eq!(kept, usize::from(held && left == READ), "{left} left, held: {held}");
            drop(slice);
        }
    }

    #[tokio::test]
    async fn what_follows_a_large_body_does_not_keep_its_memory() {
        let (mut near, mut far) = tokio::io::duplex(1024 * 1024);
        let mut inbox = Inbox::default();
        for (length, moves) in [(100, false), (READ + 1, true), (300 * 1024, true)] {
            far.write_all(&vec![b'x'; length]).await.unwrap();
            far.write_all(b"GET").await.unwrap();
            inbox.expect(length);
            while inbox.len() < length + 3 {
                inbox.fill(&mut near).await.unwrap();
            }
            let (body, end) = (inbox.as_ptr(), inbox[length..].as_ptr());
            let taken = inbox.take(length);
            assert_eq!((taken.as_ptr(), taken.len(), &inbox[..]), (body, length, &b"GET"[..]));
            assert_eq!(inbox.as_ptr() != end, moves, "{length}");
            inbox.clear();
        }
    }

    #[tokio::test]
    async fn small_reads_that_wait_share_their_memory() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let (mut inbox, mut waiting) = (Inbox::default(), Vec::new());
        for _ in 0..10_000 {
            far.write_all(b"x").await.unwrap();
            inbox.fill(&mut near).await.unwrap();
            waiting.push(inbox.split().freeze());
        }
        let buffers = waiting.windows(2).filter(|two| two[0].as_ptr().wrapping_add(1) != two[1].as_ptr()).count();
        assert!(buffers <= 1, "{buffers} buffers for 10 KB");
    }

    #[tokio::test]
    async fn a_connection_is_not_quiet_only_because_its_task_has_worked_hard() {
        let (mut near, far) = tokio::io::duplex(1024);
        let mut inbox = Inbox::default();
        drop(far);
        std::future::poll_fn(|cx| {
            while let Poll::Ready(coop) = tokio::task::coop::poll_proceed(cx) {
                coop.made_progress();
            }
            assert!(!is_quiet(&mut inbox, &mut near));
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_full_inbox_does_not_read_on() {
        let (mut near, mut far) = tokio::io::duplex(1024);
        let mut inbox = Inbox::default();
        far.write_all(&[1; 100]).await.unwrap();
        inbox.fill(&mut near).await.unwrap();
        far.write_all(b"more").await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(inbox.poll_fill_to(100, &mut near, &mut cx).is_pending());
        assert!(inbox.poll_fill_to(101, &mut near, &mut cx).is_ready());
    }
}
