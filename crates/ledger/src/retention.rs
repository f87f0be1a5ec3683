//! How long records stay. What they added to the sums stays for good.

use std::time::Duration;

use crate::store::Size;

/// What may stay; nothing set, nothing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Records that began longer ago than this go.
    pub keep: Option<Duration>,
    /// While the store takes more bytes than this, the oldest records go.
    pub max_bytes: Option<u64>,
}

/// The part of the time that a store covers which goes in one step when it is too large.
const SLICE: i64 = 50;

impl Retention {
    /// Records that began before this time are to go; `None` if all may stay.
    pub fn before(&self, now_us: i64, size: &Size) -> Option<i64> {
        let oldest = size.oldest_us?;
        let by_age = self.keep.map(|keep| now_us.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX)));
        let too_large = self.max_bytes.is_some_and(|most| size.bytes > most);
        let by_size = too_large.then(|| oldest.saturating_add((now_us.saturating_sub(oldest) / SLICE).max(1)));
        by_age.max(by_size).filter(|before| oldest < *before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[track_caller]
    fn check(keep_hours: Option<u64>, max_bytes: Option<u64>, oldest_hour: Option<i64>, want: Option<i64>) {
        let retention = Retention { keep: keep_hours.map(|h| Duration::from_secs(h * 3600)), max_bytes };
        let size = Size { bytes: 1000, records: 10, oldest_us: oldest_hour.map(|hour| hour * HOUR) };
        assert_eq!(retention.before(100 * HOUR, &size), want.map(|hour| hour * HOUR));
    }

    #[test]
    fn what_is_too_old_goes_and_of_what_is_too_large_the_oldest() {
        check(None, None, Some(0), None);
        check(Some(30), None, Some(60), Some(70));
        check(Some(30), None, Some(70), None);
        check(None, Some(1000), Some(0), None);
        check(None, Some(999), Some(0), Some(2));
        check(Some(99), Some(999), Some(0), Some(2));
        check(Some(30), Some(999), Some(0), Some(70));
        check(Some(30), Some(1), None, None);
    }

    #[test]
    fn a_clock_that_went_back_removes_nothing_that_is_young() {
        let size = Size { bytes: 1, records: 1, oldest_us: Some(500 * HOUR) };
        let retention = Retention { keep: Some(Duration::from_secs(3600)), max_bytes: None };
        assert_eq!(retention.before(100 * HOUR, &size), None);
    }
}
