//! How many tries beside the first all requests together may have: a tenth of the requests.

use std::sync::atomic::{AtomicU32, Ordering};

/// What one more try costs, in the tenths that every request brings.
const TRY: u32 = 10;
/// The most that is saved up: so many tries in a row that a lone request can have its own.
const FULL: u32 = 10 * TRY;

/// A purse that every request puts a tenth of a try into, and every further try is paid from.
#[derive(Debug)]
pub struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(FULL))
    }
}

impl Budget {
    /// A request begins. While the purse is full nothing is written, so that threads do not get in each other's way.
    pub fn deposit(&self) {
        if self.0.load(Ordering::Relaxed) < FULL {
            let more = |tenths| (tenths < FULL).then_some(tenths + 1);
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Pays for one more try, if there is enough.
    pub fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tenths| tenths.checked_sub(TRY)).is_ok()
    }

    /// Tries that could be paid now.
    pub fn left(&self) -> u32 {
        self.0.load(Ordering::Relaxed) / TRY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_thousand_requests_that_all_fail_a_tenth_is_tried_again() {
        let budget = Budget::default();
        let first = std::iter::repeat_with(|| budget.withdraw()).take_while(|paid| *paid).count();
        assert_eq!((first, budget.left()), (10, 0), "what was saved up");
        let again = (0..1000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(again.count(), 100);
    }

    #[test]
    fn threads_neither_lose_nor_make_money() {
        let budget = Budget::default();
        while budget.withdraw() {}
        let threads: u32 = 4;
        let paid: u32 = std::thread::scope(|scope| {
            let work = || {
                (0..10_000).fold(0, |paid, _| {
                    budget.deposit();
                    paid + u32::from(budget.withdraw())
                })
            };
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let rest = budget.0.load(Ordering::Relaxed);
        assert_eq!(paid * TRY + rest, threads * 10_000, "{paid} tries were paid, {rest} tenths are left");
    }
}
