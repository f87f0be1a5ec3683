//! Content-defined chunks: borders that depend on what is around them, so that an insertion moves only the nearest ones.

/// No chunk but the last of a body is shorter.
pub(super) const MIN: usize = 2 * 1024;
/// Where the condition for a border becomes easier.
const NORMAL: usize = 8 * 1024;
/// No chunk is longer.
pub(super) const MAX: usize = 64 * 1024;
/// A border needs this many zero bits before `NORMAL`: rare, so that few chunks are short …
const EARLY_BITS: u32 = 15;
/// … and this many after it: frequent, so that few are long.
const LATE_BITS: u32 = 11;

/// Finds the borders. The table that mixes bytes is secret, so that the sizes of chunks say nothing about what is in them.
pub(super) struct Cutter {
    gear: [u64; 256],
}

impl Cutter {
    /// A cutter whose borders follow from `seed` alone.
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        let mut stream = blake3::Hasher::new_keyed(seed).finalize_xof();
        let gear = std::array::from_fn(|_| {
            let mut word = [0; 8];
            stream.fill(&mut word);
            u64::from_le_bytes(word)
        });
        Self { gear }
    }

    /// The length of the first chunk of `data`, which is the rest of a body.
    pub(super) fn first(&self, data: &[u8]) -> usize {
        if data.len() <= MIN {
            return data.len();
        }
        let mut hash = 0_u64;
        // The high bits depend on the last 64 bytes, the low ones on fewer.
        for (at, byte) in data.iter().enumerate().take(NORMAL).skip(MIN) {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if hash >> (64 - EARLY_BITS) == 0 {
                return at + 1;
            }
        }
        for (at, byte) in data.iter().enumerate().take(MAX).skip(NORMAL) {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            if hash >> (64 - LATE_BITS) == 0 {
                return at + 1;
            }
        }
        data.len().min(MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn chunks<'a>(cutter: &'a Cutter, mut data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + 'a {
        std::iter::from_fn(move || {
            let (chunk, rest) = data.split_at(cutter.first(data));
            data = rest;
            (!chunk.is_empty()).then_some(chunk)
        })
    }

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn chunks_are_of_the_sizes_that_are_promised() {
        let (cutter, data) = (Cutter::new(&[7; 32]), noise(1, 8 << 20));
        let lengths: Vec<_> = chunks(&cutter, &data).map(<[u8]>::len).collect();
        let (last, others) = lengths.split_last().unwrap();
        assert!(*last <= MAX && others.iter().all(|len| (MIN..=MAX).contains(len)));
        let mean = data.len() / lengths.len();
        assert!((7 * 1024..12 * 1024).contains(&mean), "mean {mean}");
    }

    #[test]
    fn a_body_without_any_border_is_cut_at_the_limit() {
        let cutter = Cutter::new(&[7; 32]);
        let lengths: Vec<_> = chunks(&cutter, &[0; 200_000]).map(<[u8]>::len).collect();
        assert!(lengths.iter().all(|len| *len <= MAX), "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>(), 200_000);
    }

    #[test]
    fn another_key_gives_other_borders() {
        let data = noise(2, 1 << 20);
        let borders = |key: u8| chunks(&Cutter::new(&[key; 32]), &data).map(<[u8]>::len).collect::<Vec<_>>();
        assert_eq!(borders(1), borders(1));
        assert_ne!(borders(1), borders(2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn an_insertion_changes_only_the_chunks_around_it(
            seed in any::<u64>(), at in 0_usize..400_000, inserted in proptest::collection::vec(any::<u8>(), 1..3000),
        ) {
            let (cutter, before) = (Cutter::new(&[7; 32]), noise(seed, 400_000));
            let mut after = before.clone();
            after.splice(at..at, inserted.iter().copied());
            let old: HashSet<&[u8]> = chunks(&cutter, &before).collect();
            let new: usize = chunks(&cutter, &after).filter(|chunk| !old.contains(chunk)).map(<[u8]>::len).sum();
            prop_assert!(new < inserted.len() + 2 * MAX, "{new} bytes are in new chunks");
            prop_assert_eq!(chunks(&cutter, &after).flatten().copied().collect::<Vec<_>>(), after);
        }
    }
}
