//! Body framing: takes the payload out of length-delimited, chunked and close-delimited bodies.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

/// How a body's end is known (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Everything until the sender closes; of responses only.
    UntilClose,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The sender closed before the end.
    Truncated,
    /// A chunk's size line is not hexadecimal digits and an optional extension.
    ChunkSize,
    /// A chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A chunk extension or the trailer section beyond [`LINE_LIMIT`] bytes.
    TooLong,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the body ended before its announced length",
            Self::ChunkSize => "a chunk size is malformed",
            Self::ChunkEnd => "a chunk is longer than its size says",
            Self::TooLong => "a chunk extension or the trailer section is too long",
        })
    }
}

impl std::error::Error for BodyError {}

/// Bytes that a chunk's size line, and the trailer section as a whole, may have.
pub const LINE_LIMIT: usize = 8 * 1024;

/// What the next bytes of a body are.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Payload: the received memory itself.
    Data(Bytes),
    /// Nothing until more is read.
    More,
    /// The body is over; what is left in the input is not part of it.
    End,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailer { seen: usize },
    UntilClose,
    Done,
}

/// Takes the payload off the front of what is read.
#[derive(Debug, Clone)]
pub struct BodyDecoder(State);

impl BodyDecoder {
    /// A decoder at the first byte after the head.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the end was reached.
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// The next piece of payload at the front of `input`.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match self.0 {
                State::Done => return Ok(Step::End),
                _ if input.is_empty() => return Ok(Step::More),
                State::UntilClose => return Ok(Step::Data(input.split().freeze())),
                State::Length(left) => {
                    let data = take(input, left);
                    let left = left - data.len() as u64;
                    self.0 = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Step::Data(data));
                }
                State::ChunkData(left) => {
                    let data = take(input, left);
                    let left = left - data.len() as u64;
                    self.0 = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Ok(Step::Data(data));
                }
                State::ChunkEnd => {
                    if input[0] != b'\r' || input.get(1).is_some_and(|b| *b != b'\n') {
                        return Err(BodyError::ChunkEnd);
                    }
                    if input.len() < 2 {
                        return Ok(Step::More);
                    }
                    input.advance(2);
                    self.0 = State::ChunkSize;
                }
                State::ChunkSize => {
                    let (size, end) = match usual_size(input) {
                        Some(usual) => usual,
                        None => {
                            let Some(line) = line(input, BodyError::ChunkSize)? else { return Ok(Step::More) };
                            (chunk_size(&input[..line])?, line + 2)
                        }
                    };
                    input.advance(end);
                    self.0 = if size == 0 { State::Trailer { seen: 0 } } else { State::ChunkData(size) };
                }
                State::Trailer { seen } => {
                    let Some(line) = line(input, BodyError::ChunkEnd)? else { return Ok(Step::More) };
                    input.advance(line + 2);
                    if seen + line > LINE_LIMIT {
                        return Err(BodyError::TooLong);
                    }
                    // Trailer fields are hop-by-hop to us: read over, not handed on.
                    self.0 = if line == 0 { State::Done } else { State::Trailer { seen: seen + line + 2 } };
                }
            }
        }
    }

    /// The sender has closed: the end of a body that is delimited so, a fault in any other that is not over.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.0 {
            State::Done => Ok(()),
            State::UntilClose => {
                self.0 = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }
}

fn take(input: &mut BytesMut, at_most: u64) -> Bytes {
    let n = usize::try_from(at_most).unwrap_or(usize::MAX).min(input.len());
    input.split_to(n).freeze()
}

/// The length of the line at the front without its CRLF, once it is whole.
fn line(input: &[u8], bare: BodyError) -> Result<Option<usize>, BodyError> {
    match memchr(b'\n', input) {
        Some(lf) if lf > LINE_LIMIT => Err(BodyError::TooLong),
        Some(lf) if lf > 0 && input[lf - 1] == b'\r' => Ok(Some(lf - 1)),
        Some(_) => Err(bare),
        None if input.len() > LINE_LIMIT => Err(BodyError::TooLong),
        None => Ok(None),
    }
}

/// The size on a line that is whole and has nothing but digits, as nearly all are, and where that line ends.
fn usual_size(input: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (n, byte) in input.iter().take(16).enumerate() {
        let Some(digit) = (*byte as char).to_digit(16) else {
            return (n > 0 && input[n..].starts_with(b"\r\n")).then_some((size, n + 2));
        };
        size = size << 4 | u64::from(digit);
    }
    None
}

/// 1 to 15 hexadecimal digits, then nothing or `;` and an extension, which is read over.
fn chunk_size(line: &[u8]) -> Result<u64, BodyError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = &line[digits..];
    if digits == 0 || digits > 15 || rest.first().is_some_and(|b| *b != b';') || rest.contains(&b'\r') {
        return Err(BodyError::ChunkSize);
    }
    let value = |b: &u8| u64::from((*b as char).to_digit(16).unwrap_or(0));
    Ok(line[..digits].iter().fold(0, |n, b| n << 4 | value(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds the pieces one after the other; gives payload, what was left over, and how it ended.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let (mut decoder, mut input, mut out) = (BodyDecoder::new(framing), BytesMut::new(), vec![]);
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match decoder.next(&mut input)? {
                    Step::Data(data) => out.extend_from_slice(&data),
                    Step::More => break,
                    Step::End => break,
                }
            }
        }
        Ok((out, input.to_vec(), decoder.is_done()))
    }

    #[track_caller]
    fn check(framing: Framing, bytes: &[u8], payload: &[u8], rest: &[u8]) {
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(decode(framing, &[a, b]), Ok((payload.to_vec(), rest.to_vec(), true)), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_is_the_same_wherever_it_is_cut() {
        check(Framing::Length(5), b"helloGET", b"hello", b"GET");
        check(Framing::None, b"GET", b"", b"GET");
        check(Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", b"GET");
        check(Framing::Chunked, b"05;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n", b"hello0123456789", b"");
    }

    #[test]
    fn a_malformed_chunk_is_refused() {
        for (bytes, want) in [
            (&b"x\r\n"[..], BodyError::ChunkSize),
            (b"\r\n", BodyError::ChunkSize),
            (b"5\nhello", BodyError::ChunkSize),
            (b" 5\r\n", BodyError::ChunkSize),
            (b"5 \r\n", BodyError::ChunkSize),
            (b"0x5\r\n", BodyError::ChunkSize),
            (b"-1\r\n", BodyError::ChunkSize),
            (b"1234567890abcdef\r\n", BodyError::ChunkSize),
            (b"5;a\rb\r\nhello", BodyError::ChunkSize),
            (b"5\r\nhelloX", BodyError::ChunkEnd),
            (b"5\r\nhello\rX", BodyError::ChunkEnd),
            (b"5\r\nhello\n", BodyError::ChunkEnd),
            (b"0\r\nX: y\n\r\n", BodyError::ChunkEnd),
        ] {
            assert_eq!(decode(Framing::Chunked, &[bytes]), Err(want), "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"5;".as_slice(), &[b'a'; LINE_LIMIT + 1]].concat();
        assert_eq!(decode(Framing::Chunked, &[&long]), Err(BodyError::TooLong));
        let trailers = [b"0\r\n".as_slice(), "X: y\r\n".repeat(LINE_LIMIT).as_bytes()].concat();
        assert_eq!(decode(Framing::Chunked, &[&trailers]), Err(BodyError::TooLong));
    }

    #[test]
    fn an_early_end_is_told_from_a_clean_one() {
        let mut cut = BodyDecoder::new(Framing::Length(5));
        assert_eq!(cut.next(&mut BytesMut::from("hel")), Ok(Step::Data(Bytes::from("hel"))));
        assert_eq!(cut.eof(), Err(BodyError::Truncated));
        let mut open = BodyDecoder::new(Framing::UntilClose);
        assert_eq!(open.next(&mut BytesMut::from("hel")), Ok(Step::Data(Bytes::from("hel"))));
        assert_eq!(open.eof(), Ok(()));
        assert_eq!(BodyDecoder::new(Framing::Chunked).eof(), Err(BodyError::Truncated));
    }

    #[test]
    fn payload_is_handed_on_as_the_memory_it_came_in() {
        let mut input = BytesMut::from("5\r\nhello\r\n0\r\n\r\n");
        let at = input.as_ptr() as usize;
        let Ok(Step::Data(data)) = BodyDecoder::new(Framing::Chunked).next(&mut input) else { panic!("no data") };
        assert_eq!(data.as_ptr() as usize, at + 3);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_body_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(Framing::Chunked, &[&bytes]);
        }

        #[test]
        fn chunks_of_any_size_decode_to_their_payload(parts in proptest::collection::vec("[a-z\r\n]{1,30}", 0..8), cut in 0usize..200) {
            let mut bytes = vec![];
            for part in &parts { bytes.extend_from_slice(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes()); }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(decode(Framing::Chunked, &[a, b]), Ok((parts.concat().into_bytes(), vec![], true)));
        }
    }
}
