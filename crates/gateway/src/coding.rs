//! Content codings (RFC 9110 §8.4.1), undone on a copy: what passes through us stays as it came.

use std::borrow::Cow;
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

/// A whole body without its `content-encoding`, of at most `cap` bytes; empty where that cannot be undone. Upstreams are
/// asked for none, and not every proxy before them cares.
pub fn plain<'b>(value: Option<&[u8]>, body: &'b [u8], cap: usize) -> Cow<'b, [u8]> {
    match Coding::of(value) {
        Ok(None) => Cow::Borrowed(body),
        Ok(Some(coding)) => decode(coding, body, cap).unwrap_or_default().into(),
        Err(Unknown) => Cow::Borrowed(&[]),
    }
}

/// Windows beyond 8 MB are refused: nobody needs them for a request, and a small body could ask for gigabytes.
fn zstd_decoder(body: &[u8]) -> io::Result<impl Read + '_> {
    let mut decoder = zstd::stream::read::Decoder::new(body)?;
    decoder.window_log_max(23)?;
    Ok(decoder)
}

/// Where decoded bytes go, as long as there is room: some codings unfold a few bytes to gigabytes at one go.
#[derive(Default)]
struct Sink {
    plain: Vec<u8>,
    left: u64,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            self.full = true;
            return Err(io::Error::other("there is no room for more"));
        };
        self.left = left;
        self.plain.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Machine {
    Gzip(flate2::write::MultiGzDecoder<Sink>),
    Deflate(flate2::write::ZlibDecoder<Sink>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink>>),
    Zstd(zstd::stream::write::Decoder<'static, Sink>),
}

/// What became of a piece that was decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpacked {
    /// It was.
    Plain,
    /// It is not of its coding: no more can be learnt from this body.
    Unreadable,
    /// It unfolds to more than anybody sends in good faith.
    Bomb,
}

/// Undoes a coding piece by piece, for an observer.
pub struct Decoder(Machine);

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

/// Coded bytes that are decoded at a time.
const STEP: usize = 4 * 1024;
/// How many times its size a body may unfold to beside its allowance: what is written for people packs to a tenth, and
/// the dullest of tests to a hundredth.
const RATIO: u64 = 200;

impl Decoder {
    /// A decoder that gives `allowance` bytes in all, and beside them a number of times of what it was given.
    pub fn new(coding: Coding, allowance: u64) -> Option<Self> {
        let sink = Sink { left: allowance, ..Sink::default() };
        Some(Self(match coding {
            Coding::Gzip => Machine::Gzip(flate2::write::MultiGzDecoder::new(sink)),
            Coding::Deflate => Machine::Deflate(flate2::write::ZlibDecoder::new(sink)),
            Coding::Brotli => Machine::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(sink, 4096))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(sink).ok()?;
                decoder.window_log_max(23).ok()?;
                Machine::Zstd(decoder)
            }
        }))
    }

    fn sink(&mut self) -> &mut Sink {
        match &mut self.0 {
            Machine::Gzip(m) => m.get_mut(),
            Machine::Deflate(m) => m.get_mut(),
            Machine::Brotli(m) => m.get_mut(),
            Machine::Zstd(m) => m.get_mut(),
        }
    }

    /// Decodes the next piece.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) -> Unpacked {
        for step in piece.chunks(STEP) {
            self.sink().left += RATIO * step.len() as u64;
            let fed = match &mut self.0 {
                Machine::Gzip(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Deflate(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Brotli(m) => m.write_all(step).and_then(|()| m.flush()),
                Machine::Zstd(m) => m.write_all(step).and_then(|()| m.flush()),
            };
            let Sink { plain, full, .. } = self.sink();
            if *full {
                return Unpacked::Bomb;
            }
            if !plain.is_empty() {
                each(plain);
            }
            plain.clear();
            plain.shrink_to(64 * 1024);
            if fed.is_err() {
                return Unpacked::Unreadable;
            }
        }
        Unpacked::Plain
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
                assert_eq!(decoder.push(byte, |p| plain.extend_from_slice(p)), Unpacked::Plain);
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
        assert_eq!(decoder.push(encoder.get_ref(), |p| plain.extend_from_slice(p)), Unpacked::Plain);
        assert_eq!(plain, b"data: x\n\n");
    }

    #[test]
    fn what_packs_well_is_no_bomb() {
        let event = |n| format!("event: content_block_delta\ndata: {{\"index\":0,\"delta\":{{\"text\":\"{n}\"}}}}\n\n");
        let text: Vec<u8> = (0..40_000).flat_map(|n| event(n).into_bytes()).collect();
        assert!(text.len() > 2 << 20);
        let (mut decoder, mut plain) = (Decoder::new(Coding::Gzip, 1 << 20).unwrap(), 0);
        assert_eq!(decoder.push(&gzip(&text), |p| plain += p.len()), Unpacked::Plain);
        assert_eq!(plain, text.len());
    }

    #[test]
    fn a_bomb_and_garbage_end_in_nothing() {
        let push = |coding, bytes: &[u8]| Decoder::new(coding, 1 << 20).unwrap().push(bytes, |_| {});
        // One that unfolds to a thousand times its size, one whose every few bytes unfold to 128 KB.
        for (coding, bomb) in [(Coding::Gzip, gzip(&vec![0; 10 << 20])), (Coding::Zstd, zstd(&vec![0; 100 << 20]))] {
            assert_eq!(decode(coding, &bomb, 1 << 20), None);
            assert_eq!(push(coding, &bomb), Unpacked::Bomb);
        }
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
            assert_eq!(push(coding, &[b'x'; 100]), Unpacked::Unreadable, "{coding:?}");
        }
        assert_eq!(decode(Coding::Brotli, b"\xff\xff\xff", 100), None);
        assert!(Coding::of(Some(b"gzip, br")).is_err());
        assert_eq!(Coding::of(Some(b"Identity")), Ok(None));
    }
}
