//! One timer a connection, for deadlines that move with every byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Wakes a task at a deadline. Moving the deadline away costs nothing: the timer fires where it stood, sees that it is
/// too early, and is set again. So a stream that lives for minutes touches the timer wheel a few times, not per event.
#[derive(Debug)]
pub struct Alarm {
    sleep: Pin<Box<Sleep>>,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::from_secs(3600))) }
    }
}

impl Alarm {
    /// Ready once `deadline` has passed.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            // An alarm that rang is set again, or it would ring at every poll.
            let next = if deadline > now { deadline } else { now + Duration::from_secs(3600) };
            self.sleep.as_mut().reset(next);
            if deadline <= now {
                return Poll::Ready(());
            }
        }
    }

    /// Waits for `deadline`.
    pub async fn wait(&mut self, deadline: Instant) {
        std::future::poll_fn(|cx| self.poll(deadline, cx)).await;
    }

    /// Awaits `work` until `deadline`; `None` if that comes first.
    pub async fn within<T>(&mut self, deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            self.poll(deadline, cx).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_its_deadline_also_when_that_has_moved() {
        let (mut alarm, start) = (Alarm::default(), Instant::now());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(alarm.poll(start + Duration::from_secs(1), &mut cx).is_pending());
        alarm.wait(start + Duration::from_secs(60)).await;
        assert_eq!(start.elapsed().as_secs(), 60);
        alarm.wait(start + Duration::from_secs(61)).await;
        assert_eq!(start.elapsed().as_secs(), 61);
        assert_eq!(alarm.within(Instant::now() + Duration::from_secs(2), std::future::pending::<()>()).await, None);
        assert_eq!(start.elapsed().as_secs(), 63);
        alarm.wait(start).await;
        assert_eq!(start.elapsed().as_secs(), 63);
    }
}
