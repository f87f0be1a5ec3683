//! Finds the lines of a stream that arrives in pieces.

use memchr::memchr;

/// Keeps the line that is not whole yet, up to a bound.
#[derive(Debug)]
pub(super) struct Lines {
    carry: Vec<u8>,
    most: usize,
}

/// A line is longer than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    /// Lines of at most so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { carry: Vec::new(), most }
    }

    /// Hands each line that ends in the next piece to `each`, without its end; blank ones are left out.
    pub(super) fn push(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = (&piece[..end], &piece[end + 1..]);
            if self.carry.is_empty() {
                one(line, &mut each);
            } else {
                self.keep(line)?;
                one(&self.carry, &mut each);
                self.carry.clear();
            }
            piece = rest;
        }
        self.keep(piece)
    }

    /// Hands out the last line, whose end may be missing.
    pub(super) fn end(&mut self, mut each: impl FnMut(&[u8])) {
        one(&std::mem::take(&mut self.carry), &mut each);
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.carry.len() + bytes.len() > self.most {
            return Err(TooLong);
        }
        self.carry.extend_from_slice(bytes);
        Ok(())
    }
}

fn one(line: &[u8], each: &mut impl FnMut(&[u8])) {
    let line = line.trim_ascii();
    if !line.is_empty() {
        each(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut lines, mut seen) = (Lines::new(8), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| seen.push(line.to_vec())).unwrap();
        }
        lines.end(|line| seen.push(line.to_vec()));
        seen
    }

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let text = b"a\r\n\n{\"b\":1}\n c \nlast";
        let whole = lines(&[text]);
        assert_eq!(whole, [&b"a"[..], b"{\"b\":1}", b"c", b"last"]);
        for at in 0..text.len() {
            let (a, b) = text.split_at(at);
            assert_eq!(lines(&[a, b]), whole, "cut at byte {at}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut lines = Lines::new(8);
        assert_eq!(lines.push(b"12345678", |_| {}), Ok(()));
        assert_eq!(lines.push(b"9", |_| {}), Err(TooLong));
    }
}
