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
        let early = &data[MIN..data.len().min(NORMAL)];
        let (border, hash) = self.border(early, 0, EARLY_BITS);
        if let Some(at) = border {
            return MIN + at;
        }
        let Some(late) = data.get(NORMAL..data.len().min(MAX)) else { return data.len() };
        let (border, _) = self.border(late, hash, LATE_BITS);
        border.map_or(NORMAL + late.len(), |at| NORMAL + at)
    }

    /// Where `data` may be cut: behind the first byte at which so many of the highest bits of the hash are zero; and the
    /// hash of all that was looked at. Its high bits depend on the last 64 bytes, the low ones on fewer. Every byte of
    /// every body goes through here, eight at a time, so that nothing else is counted on the way.
    fn border(&self, data: &[u8], mut hash: u64, bits: u32) -> (Option<usize>, u64) {
        let most = u64::MAX >> bits;
        let mut is_border = |byte: &u8| {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(*byte)]);
            hash <= most
        };
        let (eights, rest) = data.as_chunks::<8>();
        for (n, eight) in eights.iter().enumerate() {
            if let Some(at) = eight.iter().position(&mut is_border) {
                return (Some(n * 8 + at + 1), hash);
            }
        }
        let border = rest.iter().position(is_border).map(|at| eights.len() * 8 + at + 1);
        (border, hash)
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
    fn a_border_is_where_the_hash_says_wherever_it_falls() {
        let cutter = Cutter::new(&[7; 32]);
        let plain = |data: &[u8]| {
            let mut hash = 0_u64;
            for (at, byte) in data.iter().enumerate().take(MAX).skip(MIN) {
                hash = (hash << 1).wrapping_add(cutter.gear[usize::from(*byte)]);
                let bits = if at < NORMAL { EARLY_BITS } else { LATE_BITS };
                if hash >> (64 - bits) == 0 {
                    return at + 1;
                }
            }
            data.len().min(MAX)
        };
        let data = noise(3, 2 << 20);
        for at in 0..8192 {
            let rest = &data[at * 200..];
            let rest = &rest[..rest.len().min(at * 9)];
            assert_eq!(cutter.first(rest), plain(rest), "{at}");
        }
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
