//! Numbers that look random and come again with the same seed.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

/// A source of them.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed that no run had before.
    pub(crate) fn fresh_seed() -> u64 {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self(now.as_nanos() as u64 ^ u64::from(std::process::id())).number()
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to less than this.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.number() % most
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Lets so many milliseconds go by, in fine steps: a moment that nothing announces is what chance is to pick.
    pub(crate) async fn moment(&mut self, millis: RangeInclusive<u64>) {
        let (least, most) = (millis.start() * 1000, millis.end() * 1000);
        tokio::time::sleep(Duration::from_micros(least + self.below(most - least + 1))).await;
    }

    /// Letters and digits.
    pub(crate) fn word(&mut self, length: usize) -> String {
        const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        (0..length).map(|_| char::from(*self.pick(LETTERS))).collect()
    }
}
