//! Whether the wall clock can be trusted to delete by it.

use std::time::Duration;

use tokio::time::Instant;

/// What no clock is set by that was about right.
const JUMP: Duration = Duration::from_secs(24 * 3600);
/// After a jump, it is believed when it has gone on steadily for this long.
const REST: Duration = Duration::from_secs(3600);

/// Watches the wall clock beside one that does not jump. A machine that was asleep for long looks like one whose clock
/// was set: then deleting waits, which does no harm; what is deleted by a wrong clock is gone.
#[derive(Debug)]
pub(crate) struct Steady {
    wall_ms: u64,
    at: Instant,
    jumped: Option<Instant>,
}

impl Steady {
    /// From now on; the time in milliseconds since 1970.
    pub(crate) fn new(wall_ms: u64) -> Self {
        Self { wall_ms, at: Instant::now(), jumped: None }
    }

    /// Looks again; `false`: nothing should be deleted by this clock yet. To be asked again and again.
    pub(crate) fn look(&mut self, wall_ms: u64) -> bool {
        let now = Instant::now();
        let expected = self.wall_ms.saturating_add((now - self.at).as_millis() as u64);
        if u128::from(expected.abs_diff(wall_ms)) > JUMP.as_millis() {
            self.jumped = Some(now);
        }
        (self.wall_ms, self.at) = (wall_ms, now);
        self.jumped.is_none_or(|jumped| now - jumped >= REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Hours that pass, what the wall clock shows then, and whether it is believed.
    async fn check(steps: &[(u64, u64, bool)]) {
        let mut clock = Steady::new(1000 * HOUR);
        for (n, (hours, shown, want)) in steps.iter().enumerate() {
            tokio::time::advance(Duration::from_secs(hours * 3600)).await;
            assert_eq!(clock.look(shown * HOUR), *want, "step {n}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_goes_on_or_is_set_by_a_little_is_believed() {
        check(&[(0, 1000, true), (1, 1001, true), (1, 1012, true), (5, 1008, true), (1000, 2008, true)]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumped_is_believed_when_it_has_gone_on_for_an_hour() {
        check(&[(0, 9000, false), (0, 1000, false), (0, 1000, false), (1, 1001, true)]).await;
        check(&[(1, 5, false), (1, 6, true), (1, 900, false)]).await;
    }
}
