//! How many requests a provider gets at a time, and how many wait for their turn.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The bound of one provider. Those who wait are served in the order in which they came.
pub struct Cap {
    /// `None`: any number.
    turns: Option<Semaphore>,
    max_running: Option<usize>,
    max_waiting: usize,
    running: AtomicUsize,
    waiting: AtomicUsize,
    refused: AtomicU64,
}

impl fmt::Debug for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cap({:?})", self.counts())
    }
}

/// There is no turn, and no room to wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// What a bound has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests that have their turn.
    pub running: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Requests so far that found no room to wait, or whose turn did not come in time.
    pub refused: u64,
}

/// A request's turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn<'c> {
    cap: &'c Cap,
    _permit: Option<SemaphorePermit<'c>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.cap.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one request as waiting while it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Cap {
    /// At most so many at a time (`None`: any number) and so many that wait.
    pub fn new(max_running: Option<usize>, max_waiting: usize) -> Self {
        Self {
            turns: max_running.map(|max| Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            max_running,
            max_waiting,
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    fn turn<'c>(&'c self, permit: Option<SemaphorePermit<'c>>) -> Turn<'c> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Turn { cap: self, _permit: permit }
    }

    /// Waits for a turn. Whoever stops waiting gives up the place.
    pub async fn enter(&self) -> Result<Turn<'_>, Full> {
        let Some(turns) = &self.turns else { return Ok(self.turn(None)) };
        if let Ok(permit) = turns.try_acquire() {
            return Ok(self.turn(Some(permit)));
        }
        let room = |waiting| (waiting < self.max_waiting).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Full);
        }
        let waiting = Waiting(&self.waiting);
        let permit = turns.acquire().await.expect("it is never closed");
        drop(waiting);
        Ok(self.turn(Some(permit)))
    }

    /// A turn, if there is one without waiting.
    pub fn try_enter(&self) -> Option<Turn<'_>> {
        match &self.turns {
            None => Some(self.turn(None)),
            Some(turns) => turns.try_acquire().ok().map(|permit| self.turn(Some(permit))),
        }
    }

    /// Somebody has waited for a turn until it was too late: it counts as turned away.
    pub fn gave_up(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many at a time, and how many may wait.
    pub fn limits(&self) -> (Option<usize>, usize) {
        (self.max_running, self.max_waiting)
    }

    /// What it has seen.
    pub fn counts(&self) -> Counts {
        Counts {
            running: self.running.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::Poll;
    use std::time::Duration;

    #[track_caller]
    fn check(cap: &Cap, running: usize, waiting: usize, refused: u64) {
        assert_eq!(cap.counts(), Counts { running, waiting, refused });
    }

    #[tokio::test]
    async fn beyond_the_bound_requests_wait_in_order_and_beyond_the_queue_they_are_refused() {
        let cap = Cap::new(Some(1), 2);
        let first = cap.enter().await.unwrap();
        let (mut second, mut third) = (Box::pin(cap.enter()), Box::pin(cap.enter()));
        assert!(futures_poll(&mut second).is_none() && futures_poll(&mut third).is_none());
        check(&cap, 1, 2, 0);
        assert_eq!(cap.enter().await.err(), Some(Full));
        assert!(cap.try_enter().is_none());
        check(&cap, 1, 2, 1);
        drop(first);
        assert!(futures_poll(&mut third).is_none(), "the second comes first");
        let second = futures_poll(&mut second).unwrap().unwrap();
        check(&cap, 1, 1, 1);
        drop((second, third));
        check(&cap, 0, 0, 1);
        drop(cap.try_enter().unwrap());
        let _again = cap.enter().await.unwrap();
        check(&cap, 1, 0, 1);
    }

    /// The future's value, if it is there now.
    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        match std::pin::Pin::new(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_place_to_others() {
        let cap = Cap::new(Some(1), 1);
        let first = cap.enter().await.unwrap();
        let mut gone = Box::pin(cap.enter());
        assert!(futures_poll(&mut gone).is_none());
        drop(gone);
        let mut next = Box::pin(cap.enter());
        assert!(futures_poll(&mut next).is_none());
        drop(first);
        assert!(next.await.is_ok());
    }

    #[tokio::test]
    async fn without_a_bound_all_are_counted_and_none_waits() {
        let cap = Cap::new(None, 0);
        let turns = [cap.enter().await.unwrap(), cap.enter().await.unwrap()];
        check(&cap, 2, 0, 0);
        drop(turns);
        check(&cap, 0, 0, 0);
        assert_eq!(Cap::new(Some(1), 0).enter().await.map(|_| ()), Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn however_many_come_no_more_run_than_may() {
        let (cap, most) = (Arc::new(Cap::new(Some(3), 1000)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (cap, most) = (cap.clone(), most.clone());
            tasks.spawn(async move {
                let _turn = cap.enter().await.unwrap();
                most.fetch_max(cap.counts().running, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_micros(100)).await;
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        check(&cap, 0, 0, 0);
        assert!((1..=3).contains(&most.load(Ordering::Relaxed)));
    }
}
