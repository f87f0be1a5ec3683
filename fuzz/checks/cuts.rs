//! Ways in which one stream of bytes can arrive.

/// Inputs up to this length are cut at every byte.
const EVERY: usize = 48;

/// Calls `each` with the stream whole, byte by byte, cut in two at every byte (at some bytes where it is long), and in
/// pieces of mixed lengths. The same stream is always cut in the same places.
pub(crate) fn each_way(stream: &[u8], mut each: impl FnMut(&[&[u8]])) {
    each(&[stream]);
    if stream.is_empty() {
        return;
    }
    each(&stream.chunks(1).collect::<Vec<_>>());
    let mut random = Random(stream.iter().fold(stream.len() as u64 | 1, |n, b| n.wrapping_mul(31) ^ u64::from(*b)));
    if stream.len() <= EVERY {
        (0..=stream.len()).for_each(|at| each(&[&stream[..at], &stream[at..]]));
    } else {
        for _ in 0..6 {
            let at = random.below(stream.len() + 1);
            each(&[&stream[..at], &stream[at..]]);
        }
    }
    for most in [3, 60] {
        let (mut pieces, mut rest) = (Vec::new(), stream);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(random.below(most + 1).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        each(&pieces);
    }
}

/// A generator of numbers that needs no crate and no system.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}
