//! Heads and chunk borders as bytes.

use bytes::{BufMut, BytesMut};

/// Appends `METHOD target HTTP/1.1`.
pub fn request_line(out: &mut BytesMut, method: &str, target: &str) {
    out.reserve(method.len() + target.len() + 12);
    out.put_slice(method.as_bytes());
    out.put_u8(b' ');
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\n");
}

/// Appends `HTTP/1.1 status reason`.
pub fn status_line(out: &mut BytesMut, status: u16, reason: &[u8]) {
    out.reserve(reason.len() + 15);
    out.put_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.put_u8(b' ');
    out.put_slice(reason);
    out.put_slice(b"\r\n");
}

/// Appends one field. The caller vouches that neither part holds CR, LF or NUL: they come from a parsed head, from
/// checked configuration, or from ourselves.
pub fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    debug_assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Appends `Content-Length`.
pub fn content_length(out: &mut BytesMut, bytes: u64) {
    out.put_slice(b"content-length: ");
    decimal(out, bytes);
    out.put_slice(b"\r\n");
}

/// Appends a number in decimal digits.
pub fn decimal(out: &mut BytesMut, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

/// What stands before a chunk's payload: its size and CRLF.
#[derive(Debug, Clone, Copy)]
pub struct ChunkSize {
    text: [u8; 18],
    start: u8,
}

impl ChunkSize {
    /// Of a chunk of this many bytes. Zero would be the last chunk: write [`LAST_CHUNK`] for that.
    pub fn of(payload: usize) -> Self {
        debug_assert!(payload > 0);
        let (mut text, mut at, mut n) = ([0; 18], 16, payload);
        text[16..].copy_from_slice(b"\r\n");
        loop {
            at -= 1;
            text[at] = b"0123456789abcdef"[n & 15];
            n >>= 4;
            if n == 0 {
                break;
            }
        }
        Self { text, start: at as u8 }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[usize::from(self.start)..]
    }
}

/// What stands after a chunk's payload.
pub const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for n in [0, 7, 10, 255, 4096, u64::MAX] {
            let mut out = BytesMut::new();
            decimal(&mut out, n);
            assert_eq!(out, n.to_string());
        }
        for n in [1, 15, 16, 4096, usize::MAX] {
            assert_eq!(ChunkSize::of(n).as_bytes(), format!("{n:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn a_head_reads_as_it_was_written() {
        let mut out = BytesMut::new();
        status_line(&mut out, 200, b"OK");
        field(&mut out, b"x-a", b"b");
        content_length(&mut out, 0);
        assert_eq!(out, "HTTP/1.1 200 OK\r\nx-a: b\r\ncontent-length: 0\r\n");
    }
}
