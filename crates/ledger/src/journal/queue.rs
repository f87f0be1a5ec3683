//! From those who hand in to the thread that writes, and its word back to them.
//!
//! Entries come together here as the bytes that are to be written. The thread is woken not when something is handed in
//! but when somebody waits for it and has let the other tasks of its runtime go first: what they hand in meanwhile goes
//! out in the same `write` and is acknowledged in one go.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use super::frame::Kind;
use super::shared::Shared;
use super::{JournalOptions, Position, Unwritten};
use crate::record::Id;

/// What an acknowledgement says.
pub(crate) type Written = Result<Position, Unwritten>;

/// One entry among the bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) id: Id,
    /// Where it ends.
    pub(super) end: usize,
}

/// What the thread that writes is given.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Frames, one after the other.
    pub(super) frames: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// The number of the last entry.
    pub(super) last: u64,
    /// Who wants another segment once all of this is written.
    pub(super) rotations: Vec<oneshot::Sender<Written>>,
    /// Nothing comes after this.
    pub(super) closing: bool,
}

impl Handed {
    /// Nothing is asked of the thread.
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.rotations.is_empty() && !self.closing
    }
}

#[derive(Debug, Default)]
struct Inbox {
    handed: Handed,
    /// Whether the thread waits to be woken.
    sleeping: bool,
    /// Who waits for the word on which entry.
    waiting: Vec<(u64, Waker)>,
}

impl Inbox {
    /// Whether the thread is to be woken now: it waits, and there is something to do. It counts as woken.
    fn rouses(&mut self) -> bool {
        !self.handed.is_empty() && std::mem::take(&mut self.sleeping)
    }
}

/// The queue of one journal.
#[derive(Debug)]
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    /// All entries up to this number are written.
    written: AtomicU64,
    /// Of all entries up to this number it was said at least that they are not written yet.
    refused: AtomicU64,
    /// The thread has ended.
    ended: AtomicBool,
    shared: Arc<Shared>,
    most_entries: usize,
    most_bytes: usize,
}

thread_local! {
    /// Where an entry takes its form before it goes into the queue, so that nobody waits for that.
    static FORM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that a thread keeps for the next entry.
const FORM_KEPT: usize = 16 * 1024;

impl Queue {
    pub(super) fn new(options: &JournalOptions, shared: Arc<Shared>) -> Self {
        Self {
            inbox: Mutex::default(),
            filled: Condvar::new(),
            written: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            shared,
            most_entries: options.queue.max(1),
            most_bytes: options.pending_bytes,
        }
    }

    /// Takes an entry that `write` appends.
    pub(super) fn submit(self: &Arc<Self>, kind: Kind, id: Id, write: impl FnOnce(&mut Vec<u8>)) -> Ack {
        FORM.with_borrow_mut(|form| {
            write(form);
            let ack = self.put(kind, id, form);
            form.clear();
            form.shrink_to(FORM_KEPT);
            ack
        })
    }

    fn put(self: &Arc<Self>, kind: Kind, id: Id, frame: &[u8]) -> Ack {
        let mut inbox = self.lock();
        let handed = &mut inbox.handed;
        let bytes = handed.frames.len();
        let refused = if handed.closing {
            Some(Unwritten::Closed)
        } else if handed.entries.len() >= self.most_entries || bytes > self.most_bytes {
            Some(Unwritten::QueueFull)
        } else if self.shared.is_failing() && self.shared.pending() + bytes >= self.most_bytes {
            Some(Unwritten::DiskFailing)
        } else {
            None
        };
        if let Some(why) = refused {
            self.shared.lost(1);
            return Ack::known(Err(why));
        }
        handed.frames.extend_from_slice(frame);
        handed.entries.push(Entry { kind, id, end: handed.frames.len() });
        handed.last += 1;
        Ack(Acked::Queued(Queued { queue: self.clone(), number: handed.last, asked: Asked::No }))
    }

    /// Asks for another segment.
    pub(super) fn rotate(&self) -> Ack {
        let (done, ack) = oneshot::channel();
        let mut inbox = self.lock();
        if inbox.handed.closing {
            return Ack::known(Err(Unwritten::Closed));
        }
        inbox.handed.rotations.push(done);
        self.wake_thread(inbox);
        Ack(Acked::Rotated(ack))
    }

    /// Has the thread write what there is, and end.
    pub(super) fn close(&self) {
        let mut inbox = self.lock();
        inbox.handed.closing = true;
        self.wake_thread(inbox);
    }

    /// Waits until there is something to do, or at most so long, and takes all of it. `spare` takes the place of what is
    /// taken, so that memory is used again.
    pub(super) fn take(&self, patience: Option<Duration>, mut spare: Handed) -> Handed {
        let mut inbox = self.lock();
        let idle = |inbox: &mut Inbox| {
            inbox.sleeping = inbox.handed.is_empty();
            inbox.sleeping
        };
        inbox = match patience {
            None => self.filled.wait_while(inbox, idle).unwrap_or_else(PoisonError::into_inner),
            Some(most) => self.filled.wait_timeout_while(inbox, most, idle).unwrap_or_else(PoisonError::into_inner).0,
        };
        inbox.sleeping = false;
        (spare.last, spare.closing) = (inbox.handed.last, inbox.handed.closing);
        std::mem::replace(&mut inbox.handed, spare)
    }

    /// All entries up to this number are written.
    pub(super) fn wrote(&self, last: u64) {
        self.written.store(last, Ordering::Release);
        self.tell(last);
    }

    /// The entries up to this number are kept, and are not written.
    pub(super) fn refuse(&self, last: u64) {
        self.refused.store(last, Ordering::Release);
        self.tell(last);
    }

    /// The thread is gone: nobody waits for it any more.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        let mut inbox = self.lock();
        inbox.handed.closing = true;
        // What came after it had looked for the last time.
        self.shared.lost(inbox.handed.entries.len() as u64);
        inbox.handed.entries.clear();
        inbox.handed.rotations.clear();
        drop(inbox);
        self.tell(u64::MAX);
    }

    fn tell(&self, last: u64) {
        let told: Vec<_> = self.lock().waiting.extract_if(.., |(number, _)| *number <= last).collect();
        told.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// The word on an entry, if there is one.
    fn word(&self, number: u64) -> Option<Written> {
        if self.written.load(Ordering::Acquire) >= number {
            Some(Ok(self.shared.written()))
        } else if self.refused.load(Ordering::Acquire) >= number {
            Some(Err(Unwritten::DiskFailing))
        } else {
            self.ended.load(Ordering::Acquire).then_some(Err(Unwritten::Closed))
        }
    }

    /// Wakes the thread, and this task when there is a word on its entry; `Some` if there is one already.
    fn wait(&self, number: u64, waker: &Waker) -> Option<Written> {
        let mut inbox = self.lock();
        if self.word(number).is_none() && inbox.rouses() {
            drop(inbox);
            self.filled.notify_one();
            // Where all cores are busy, the thread runs at once and in our place, and has written when we go on: that
            // is why we are not among those who wait yet, whom it would wake by a detour through the system.
            inbox = self.lock();
        }
        let word = self.word(number);
        if word.is_none() {
            inbox.waiting.push((number, waker.clone()));
        }
        word
    }

    /// Wakes the thread, unless it is awake or has nothing to do.
    fn wake_thread(&self, mut inbox: MutexGuard<'_, Inbox>) {
        if inbox.rouses() {
            drop(inbox);
            self.filled.notify_one();
        }
    }

    /// A panic of another thread leaves the entries as they were.
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves when the entry was handed to the system by a `write` that returned, or cannot be at the moment. On any
/// runtime. It is to be awaited or dropped at once: either has the entry written.
#[derive(Debug)]
#[must_use = "the entry is safe only once this says so"]
pub struct Ack(Acked);

#[derive(Debug)]
enum Acked {
    Queued(Queued),
    Rotated(oneshot::Receiver<Written>),
    Known(Written),
}

#[derive(Debug)]
struct Queued {
    queue: Arc<Queue>,
    number: u64,
    asked: Asked,
}

#[derive(Debug)]
enum Asked {
    No,
    /// The other tasks go first.
    Once,
    /// The thread knows, and wakes this one.
    Waits(Waker),
}

impl Drop for Queued {
    fn drop(&mut self) {
        // Most entries went out with the first of their kind that somebody waited for.
        if !matches!(self.asked, Asked::Waits(_)) && self.queue.word(self.number).is_none() {
            self.queue.wake_thread(self.queue.lock());
        }
    }
}

/// Wakes a thread that waits.
struct Sleeper(std::thread::Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Ack {
    /// Of an entry whose fate is known already.
    pub fn known(fate: Result<Position, Unwritten>) -> Self {
        Self(Acked::Known(fate))
    }

    /// Waits this long and no longer.
    pub async fn within(mut self, most: Duration) -> Result<Position, Unwritten> {
        // Only who has to wait needs a timer: each that is due before all others wakes its runtime up for nothing.
        match poll_fn(|cx| self.asked(cx)).await {
            Some(word) => word,
            None => tokio::time::timeout(most, self).await.unwrap_or(Err(Unwritten::Late)),
        }
    }

    /// Ready as soon as the thread knows of the entry, with the word on it if that is there already.
    fn asked(&mut self, cx: &mut Context<'_>) -> Poll<Option<Written>> {
        match Pin::new(&mut *self).poll(cx) {
            Poll::Ready(word) => Poll::Ready(Some(word)),
            Poll::Pending => match &self.0 {
                Acked::Queued(Queued { asked: Asked::No | Asked::Once, .. }) => Poll::Pending,
                _ => Poll::Ready(None),
            },
        }
    }

    /// Waits on this thread, which must not be one that serves.
    pub fn wait(mut self) -> Result<Position, Unwritten> {
        let waker = Waker::from(Arc::new(Sleeper(std::thread::current())));
        loop {
            match Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(fate) => return fate,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Future for Ack {
    type Output = Result<Position, Unwritten>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Acked::Known(fate) => Poll::Ready(*fate),
            Acked::Rotated(ack) => Poll::Ready(ready!(Pin::new(ack).poll(cx)).unwrap_or(Err(Unwritten::Closed))),
            Acked::Queued(Queued { queue, number, asked }) => {
                if let Some(word) = queue.word(*number) {
                    return Poll::Ready(word);
                }
                match asked {
                    Asked::No => {
                        *asked = Asked::Once;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Asked::Waits(known) if known.will_wake(cx.waker()) => Poll::Pending,
                    Asked::Once | Asked::Waits(_) => match queue.wait(*number, cx.waker()) {
                        Some(word) => Poll::Ready(word),
                        None => {
                            *asked = Asked::Waits(cx.waker().clone());
                            Poll::Pending
                        }
                    },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn queue() -> Arc<Queue> {
        Arc::new(Queue::new(&JournalOptions::new("nowhere"), Arc::default()))
    }

    /// Hands in an entry; the thread waits to be woken.
    fn handed_in(queue: &Arc<Queue>) -> Ack {
        let ack = queue.submit(Kind::Start, sample::record(1).id, |out| out.push(1));
        queue.lock().sleeping = true;
        ack
    }

    #[test]
    fn who_does_not_wait_has_the_entry_written_all_the_same() {
        let queue = queue();
        drop(handed_in(&queue));
        assert!(!queue.lock().sleeping, "the thread was woken");
    }

    /// The tasks of a runtime go on one after the other: each hands in and waits before the first is asked again.
    #[test]
    fn what_the_tasks_of_a_runtime_hand_in_while_none_of_them_can_go_on_is_one_write() {
        let queue = queue();
        let mut acks: Vec<_> = (0..50).map(|_| handed_in(&queue)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for ack in &mut acks {
            assert!(Pin::new(ack).poll(&mut cx).is_pending());
        }
        assert!(queue.lock().sleeping, "nobody woke the thread yet");
        assert!(Pin::new(&mut acks[0]).poll(&mut cx).is_pending());
        assert!(!queue.lock().sleeping, "now somebody did");
        let handed = queue.take(None, Handed::default());
        assert_eq!(handed.entries.len(), 50);
        queue.wrote(handed.last);
        assert!(acks.iter_mut().all(|ack| matches!(Pin::new(ack).poll(&mut cx), Poll::Ready(Ok(_)))));
    }

    #[test]
    fn a_word_that_is_there_wakes_nobody() {
        let queue = queue();
        let ack = handed_in(&queue);
        let handed = queue.take(None, Handed::default());
        queue.wrote(handed.last);
        queue.lock().sleeping = true;
        assert!(ack.wait().is_ok());
        assert!(queue.lock().sleeping, "there is nothing to do");
        drop(queue.rotate());
        assert!(!queue.lock().sleeping, "now there is");
    }
}
