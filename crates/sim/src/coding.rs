//! Content codings: answers packed although nobody asked for it, and requests unpacked.

use std::io::{Read as _, Write as _};

use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc};

use crate::fault::Coding;
use crate::reply::{Piece, Pieces};

impl Coding {
    /// The name in `content-encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Brotli => "br",
        }
    }
}

/// Packs a body piece by piece; each piece can be unpacked as soon as it is there.
pub(crate) fn pack(body: Pieces, coding: Coding) -> Pieces {
    let mut packer = Packer::new(coding);
    let mut body = Some(body);
    Box::new(std::iter::from_fn(move || {
        let pieces = body.as_mut()?;
        match pieces.next() {
            Some(piece) => Some(Piece { bytes: packer.piece(&piece.bytes), ..piece }),
            None => {
                body = None;
                Some(Piece::now(packer.end()))
            }
        }
    }))
}

/// zstd and brotli are written as stored blocks: valid for every decoder, and no encoder is needed.
enum Packer {
    Gzip(GzEncoder<Vec<u8>>),
    Deflate(ZlibEncoder<Vec<u8>>),
    Zstd { begun: bool },
    Brotli { begun: bool },
}

const IN_MEMORY: &str = "a vector takes all that is written";

impl Packer {
    fn new(coding: Coding) -> Self {
        match coding {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            Coding::Deflate => Self::Deflate(ZlibEncoder::new(Vec::new(), Compression::fast())),
            Coding::Zstd => Self::Zstd { begun: false },
            Coding::Brotli => Self::Brotli { begun: false },
        }
    }

    fn piece(&mut self, plain: &[u8]) -> Bytes {
        match self {
            Self::Gzip(packer) => {
                packer.write_all(plain).and_then(|()| packer.flush()).expect(IN_MEMORY);
                std::mem::take(packer.get_mut()).into()
            }
            Self::Deflate(packer) => {
                packer.write_all(plain).and_then(|()| packer.flush()).expect(IN_MEMORY);
                std::mem::take(packer.get_mut()).into()
            }
            Self::Zstd { begun } => {
                let mut out = BytesMut::new();
                if !std::mem::replace(begun, true) {
                    out.extend_from_slice(&ZSTD_START);
                }
                // A stored block holds up to 128 KiB.
                for part in plain.chunks(128 << 10) {
                    let header = (part.len() as u32) << 3;
                    out.extend_from_slice(&header.to_le_bytes()[..3]);
                    out.extend_from_slice(part);
                }
                out.freeze()
            }
            Self::Brotli { begun } => {
                let mut out = BytesMut::new();
                for part in plain.chunks(1 << 16) {
                    // From the lowest bit on: not last (1 bit), length in 4 nibbles (2 bits, 0), length less one (16 bits),
                    // stored (1 bit). In front of the first block one bit, 0, says that the window is 64 KiB.
                    let block = (part.len() as u32 - 1) << 3 | 1 << 19;
                    let header = if std::mem::replace(begun, true) { block } else { block << 1 };
                    out.extend_from_slice(&header.to_le_bytes()[..3]);
                    out.extend_from_slice(part);
                }
                out.freeze()
            }
        }
    }

    fn end(&mut self) -> Bytes {
        match self {
            Self::Gzip(packer) => {
                packer.try_finish().expect(IN_MEMORY);
                std::mem::take(packer.get_mut()).into()
            }
            Self::Deflate(packer) => {
                packer.try_finish().expect(IN_MEMORY);
                std::mem::take(packer.get_mut()).into()
            }
            // The last block: stored, empty.
            Self::Zstd { begun: true } => Bytes::from_static(&[1, 0, 0]),
            Self::Zstd { begun: false } => [&ZSTD_START[..], &[1, 0, 0]].concat().into(),
            // Last and empty; in front of it the window, if nothing came before.
            Self::Brotli { begun: true } => Bytes::from_static(&[0b11]),
            Self::Brotli { begun: false } => Bytes::from_static(&[0b110]),
        }
    }
}

/// Magic number, no flags, a window of 128 KiB.
const ZSTD_START: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];

/// A gzip body that unpacks to the start of an event and then `mib` MiB of spaces.
pub(crate) fn bomb(mib: u64) -> Pieces {
    let first = b"event: message_start\ndata: {\"type\":\"message_start\"";
    let spaces = vec![b' '; 1 << 20];
    // Deflate without the gzip wrapper. After a flush to a byte border a block can be repeated as it is, as long as it
    // looks back no further than into spaces: so the first block of spaces is not the one that is repeated.
    let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
    packer.write_all(first).and_then(|()| packer.flush()).expect(IN_MEMORY);
    packer.write_all(&spaces).and_then(|()| packer.flush()).expect(IN_MEMORY);
    let opening = std::mem::take(packer.get_mut());
    packer.write_all(&spaces).and_then(|()| packer.flush()).expect(IN_MEMORY);
    let again: Bytes = std::mem::take(packer.get_mut()).into();
    packer.try_finish().expect(IN_MEMORY);
    let closing = std::mem::take(packer.get_mut());

    let mut sum = Crc::new();
    sum.update(first);
    let mut block = Crc::new();
    block.update(&spaces);
    (0..mib.max(1)).for_each(|_| sum.combine(&block));

    let head = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], &opening[..]].concat();
    let tail = [&closing[..], &sum.sum().to_le_bytes(), &sum.amount().to_le_bytes()].concat();
    let repeats = usize::try_from(mib.max(1) - 1).unwrap_or(usize::MAX);
    let middle = std::iter::repeat_n(again, repeats).map(Piece::now);
    Box::new(std::iter::once(Piece::now(head)).chain(middle).chain(std::iter::once(Piece::now(tail))))
}

/// A request body in plain, at most `limit` bytes of it.
pub(crate) fn unpack(body: &Bytes, coding: Option<&str>, limit: u64) -> Result<Bytes, Unpack> {
    let mut plain = Vec::new();
    let read = match coding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => return Ok(body.clone()),
        Some("gzip" | "x-gzip") => MultiGzDecoder::new(&body[..]).take(limit + 1).read_to_end(&mut plain),
        Some("br") => brotli_decompressor::Decompressor::new(&body[..], 4096).take(limit + 1).read_to_end(&mut plain),
        Some("zstd") => match zstd::stream::read::Decoder::new(&body[..]) {
            Ok(unpacker) => unpacker.take(limit + 1).read_to_end(&mut plain),
            Err(why) => Err(why),
        },
        Some("deflate") => ZlibDecoder::new(&body[..]).take(limit + 1).read_to_end(&mut plain),
        Some(other) => return Err(Unpack::Unknown(other.to_owned())),
    };
    match read {
        Err(_) => Err(Unpack::Broken),
        Ok(_) if plain.len() as u64 > limit => Err(Unpack::TooLarge),
        Ok(_) => Ok(plain.into()),
    }
}

/// Why a request body could not be unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unpack {
    Unknown(String),
    Broken,
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(coding: Coding, parts: &[&[u8]]) -> Vec<u8> {
        let parts: Vec<Piece> = parts.iter().map(|part| Piece::now(part.to_vec())).collect();
        pack(Box::new(parts.into_iter()), coding).flat_map(|piece| piece.bytes.to_vec()).collect()
    }

    #[test]
    fn every_coding_unpacks_to_what_was_packed() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Brotli] {
            let body = packed(coding, &[b"one ", b"two"]).into();
            assert_eq!(unpack(&body, Some(coding.name()), 100).unwrap(), "one two", "{coding:?}");
            assert_eq!(unpack(&body, Some(coding.name()), 6), Err(Unpack::TooLarge), "{coding:?}");
            let cut = body.slice(..body.len() - 1);
            assert_eq!(unpack(&cut, Some(coding.name()), 100), Err(Unpack::Broken), "{coding:?}");
            assert_eq!(unpack(&packed(coding, &[]).into(), Some(coding.name()), 100).unwrap(), "", "{coding:?}");
            // Longer than a stored block may be.
            let long = vec![b'x'; 300_000];
            let body = packed(coding, &[&long, b"y"]).into();
            assert_eq!(unpack(&body, Some(coding.name()), 1 << 20).unwrap().len(), 300_001, "{coding:?}");
        }
        assert_eq!(unpack(&Bytes::new(), Some("compress"), 1), Err(Unpack::Unknown("compress".to_owned())));
    }

    #[test]
    fn a_piece_can_be_unpacked_before_the_next_one_is_there() {
        let pieces = [Piece::now("one "), Piece::now("two")].into_iter();
        let first = pack(Box::new(pieces), Coding::Zstd).next().unwrap();
        let mut plain = [0; 4];
        zstd::stream::read::Decoder::new(&first.bytes[..]).unwrap().read_exact(&mut plain).unwrap();
        assert_eq!(&plain, b"one ");
        let pieces = [Piece::now("one "), Piece::now("two")].into_iter();
        let first = pack(Box::new(pieces), Coding::Brotli).next().unwrap();
        brotli_decompressor::Decompressor::new(&first.bytes[..], 16).read_exact(&mut plain).unwrap();
        assert_eq!(&plain, b"one ");
    }

    #[test]
    fn a_bomb_is_a_valid_gzip_body() {
        let body: Vec<u8> = bomb(3).flat_map(|piece| piece.bytes.to_vec()).collect();
        assert!(body.len() < 10_000);
        let plain = unpack(&body.into(), Some("gzip"), 10 << 20).unwrap();
        assert!(plain.starts_with(b"event: message_start\n") && plain.ends_with(b"  "));
        assert_eq!(plain.iter().filter(|b| **b == b' ').count(), (3 << 20) + 2);
    }
}
