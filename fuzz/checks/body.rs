//! A body has the same payload and the same end wherever its bytes are cut, and what was read writes and reads again.

use bytes::{BufMut, BytesMut};
use http1::write::{CHUNK_END, ChunkSize, LAST_CHUNK};
use http1::{BodyDecoder, BodyError, Framing, Step};

use crate::cuts;

/// Payload so far, what follows the body, and how it went: over, not over yet, or a fault.
type Read = (Vec<u8>, Option<usize>, Result<bool, BodyError>);

fn read(framing: Framing, pieces: &[&[u8]]) -> Read {
    let (mut decoder, mut input, mut payload) = (BodyDecoder::new(framing), BytesMut::new(), Vec::new());
    let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
    for piece in pieces {
        input.extend_from_slice(piece);
        left -= piece.len();
        loop {
            match decoder.next(&mut input) {
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty(), "an empty piece would be written as the last chunk");
                    payload.extend_from_slice(&data);
                }
                Ok(Step::More) => break,
                Ok(Step::End) => {
                    assert!(decoder.is_done() && decoder.eof().is_ok());
                    return (payload, Some(input.len() + left), Ok(true));
                }
                Err(e) => return (payload, None, Err(e)),
            }
        }
    }
    let ended = decoder.is_done();
    assert_eq!(decoder.eof().is_ok(), ended || framing == Framing::UntilClose);
    (payload, None, Ok(ended))
}

/// Panics where the decoder is wrong about a body. The first byte says how the body is framed.
pub(crate) fn check(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let framing = match first {
        b'L' => Framing::Length(bytes.first().copied().unwrap_or(0).into()),
        b'U' => Framing::UntilClose,
        b'N' => Framing::None,
        _ => Framing::Chunked,
    };
    let whole = read(framing, &[bytes]);
    cuts::each_way(bytes, |pieces| {
        let cut = read(framing, pieces);
        assert_eq!((&cut.0, cut.1), (&whole.0, whole.1));
        assert_eq!(cut.2, whole.2);
    });
    let (payload, rest, Ok(true)) = whole else { return };
    if framing == Framing::Chunked {
        assert!(rest.is_some());
        let mut out = BytesMut::new();
        for chunk in payload.chunks(7) {
            out.put_slice(ChunkSize::of(chunk.len()).as_bytes());
            out.put_slice(chunk);
            out.put_slice(CHUNK_END);
        }
        out.put_slice(LAST_CHUNK);
        assert_eq!(read(framing, &[&out]), (payload, Some(0), Ok(true)));
    }
}
