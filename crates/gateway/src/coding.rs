//! Content codings (RFC 9110 §8.4.1), undone on a copy: what passes through us stays as it came.

use std::io::{self, Read, Write};

/// A coding that we can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `gzip`, RFC 1952.
    Gzip,
    /// `deflate`: the zlib format, RFC 1950.
    Deflate,
    /// `br`, RFC 7932.
    Brotli,
    /// `zstd`, RFC 8878.
    Zstd,
}

impl Coding {
    /// Of a `content-encoding` value. `Ok(None)`: no coding. `Err`: one that we cannot undo, or several.
    pub fn of(value: Option<&[u8]>) -> Result<Option<Self>, Unknown> {
        let Some(value) = value else { return Ok(None) };
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(None),
            b"gzip" | b"x-gzip" => Ok(Some(Self::Gzip)),
            b"deflate" => Ok(Some(Self::Deflate)),
            b"br" => Ok(Some(Self::Brotli)),
            b"zstd" => Ok(Some(Self::Zstd)),
            _ => Err(Unknown),
        }
    }
}

/// A coding that we cannot undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// The plain form of a whole body, of at most `cap` bytes; `None` where it is longer or not of this coding.
pub fn decode(coding: Coding, body: &[u8], cap: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = cap as u64 + 1;
    let read = match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(body).take(limit).read_to_end(&mut plain),
        Coding::Deflate => flate2::read::ZlibDecoder::new(body).take(limit).read_to_end(&mut plain),
        Coding::Brotli => brotli_decompressor::Decompressor::new(body, 4096).take(limit).read_to_end(&mut plain),
        Coding::Zstd => zstd_decoder(body).and_then(|z| z.take(limit).read_to_end(&mut plain)),
    };
    (read.is_ok() && plain.len() <= cap).then_some(plain)
}

/// Windows beyond 8 MB are refused: nobody needs them for a request, and a small body could ask for gigabytes.
fn zstd_decoder(body: &[u8]) -> io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::new(body)?;
    decoder.window_log_max(23)?;
    Ok(decoder)
}

/// Where decoded bytes go.
type Sink = Vec<u8>;

enum Machine {
    Gzip(flate2::write::MultiGzDecoder<Sink>),
    Deflate(flate2::write::ZlibDecoder<Sink>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Decoder<'static, Sink>),
}

/// Undoes a coding piece by piece, for an observer.
pub struct Decoder {
    machine: Machine,
    /// Decoded bytes that it may still give: a bomb is worth nothing more to an observer.
    left: usize,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({} bytes left)", self.left)
    }
}

/// Coded bytes that are decoded at a time: what they unfold to is bounded by the coding's largest ratio (about 1,000).
const STEP: usize = 4 * 1024;

impl Decoder {
    /// A decoder that gives at most `cap` bytes in all.
    pub fn new(coding: Coding, cap: usize) -> Option<Self> {
        let machine = match coding {
            Coding::Gzip => Machine::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            Coding::Deflate => Machine::Deflate(flate2::write::ZlibDecoder::new(Vec::new())),
            Coding::Brotli => Machine::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Vec::new(), 4096))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).ok()?;
                decoder.window_log_max(23).ok()?;
                Machine::Zstd(decoder)
            }
        };
        Some(Self { machine, left: cap })
    }

    /// Decodes the next piece. `false`: no more can be learnt from this body.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) -> bool {
        for step in piece.chunks(STEP) {
            let fed = match &mut self.machine {
                Machine::Gzip(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Deflate(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Brotli(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Zstd(m) => m.write_all(step).and_then(|()| m.flush()),
            };
            let plain = match &mut self.machine {
                Machine::Gzip(m) => m.get_mut(),
                Machine::Deflate(m) => m.get_mut(),
                Machine::Brotli(m) => m.get_mut(),
                Machine::Zstd(m) => m.get_mut(),
            };
            let over = plain.len() > self.left;
            self.left = self.left.saturating_sub(plain.len());
            if !over && !plain.is_empty() {
                each(plain);
            }
            plain.clear();
            plain.shrink_to(64 * 1024);
            if over || fed.is_err() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        zstd::encode_all(text, 1).unwrap()
    }

    #[test]
    fn each_coding_is_undone_whole_and_byte_by_byte() {
        let text = b"event: ping\ndata: {}\n\n".repeat(50);
        for (coding, coded) in
            [(Coding::Gzip, gzip(&text)), (Coding::Deflate, zlib(&text)), (Coding::Zstd, zstd(&text))]
        {
            assert_eq!(decode(coding, &coded, 1 << 20).as_deref(), Some(&text[..]), "{coding:?}");
            let (mut decoder, mut plain) = (Decoder::new(coding, 1 << 20).unwrap(), vec![]);
            for byte in coded.chunks(1) {
                assert!(decoder.push(byte, |p| plain.extend_from_slice(p)));
            }
            assert_eq!(plain, text, "{coding:?}");
        }
    }

    #[test]
    fn what_was_flushed_can_be_read_at_once() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"data: x\n\n").unwrap();
        encoder.flush().unwrap();
        let (mut decoder, mut plain) = (Decoder::new(Coding::Gzip, 1 << 20).unwrap(), vec![]);
        assert!(decoder.push(encoder.get_ref(), |p| plain.extend_from_slice(p)));
        assert_eq!(plain, b"data: x\n\n");
    }

    #[test]
    fn a_bomb_and_garbage_end_in_nothing() {
        let bomb = gzip(&vec![0; 10 << 20]);
        assert_eq!(decode(Coding::Gzip, &bomb, 1 << 20), None);
        assert!(!Decoder::new(Coding::Gzip, 1 << 20).unwrap().push(&bomb, |p| assert!(p.len() <= 1 << 20)));
        assert_eq!(decode(Coding::Brotli, b"\xff\xff\xff", 100), None);
        assert!(Coding::of(Some(b"gzip, br")).is_err());
        assert_eq!(Coding::of(Some(b"Identity")), Ok(None));
    }
}
