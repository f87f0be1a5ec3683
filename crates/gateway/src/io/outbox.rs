//! What is to be written: slices of received memory and the few bytes of framing between them, in one vectored write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http1::write::{CHUNK_END, ChunkSize, LAST_CHUNK};
use tokio::io::AsyncWrite;

/// Slices that one write hands to the kernel at most; more take a second write.
const SLICES: usize = 64;
/// Slices that most writes have at most: an event of a stream has three. Room for all of them takes longer to make.
const FEW: usize = 8;

#[derive(Debug)]
enum Piece {
    Memory(Bytes),
    Size(ChunkSize, u8),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Size(size, written) => &size.as_bytes()[usize::from(*written)..],
        }
    }
}

/// Pieces in the order in which they go out.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes that were written, framing included.
    written: u64,
}

impl Outbox {
    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes written so far, framing included.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Forgets what was not written.
    pub fn clear(&mut self) {
        self.pieces.clear();
    }

    /// Appends bytes as they are.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.pieces.push_back(Piece::Memory(bytes));
        }
    }

    /// Appends all of `payload` as one chunk; nothing where it is empty, since that would be the last chunk.
    pub fn push_chunk(&mut self, payload: impl IntoIterator<Item = Bytes>) {
        let at = self.pieces.len();
        let mut len = 0;
        for bytes in payload {
            len += bytes.len();
            self.push(bytes);
        }
        if len > 0 {
            self.pieces.insert(at, Piece::Size(ChunkSize::of(len), 0));
            self.pieces.push_back(Piece::Memory(Bytes::from_static(CHUNK_END)));
        }
    }

    /// Appends the end of a chunked body.
    pub fn push_last_chunk(&mut self) {
        self.pieces.push_back(Piece::Memory(Bytes::from_static(LAST_CHUNK)));
    }

    /// Writes until everything is out. `Ok` of how many bytes went out in this call.
    pub fn poll_flush<W: AsyncWrite + Unpin>(&mut self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pieces.is_empty() {
            ready!(self.poll_write(io, cx))?;
        }
        Pin::new(io).poll_flush(cx)
    }

    /// Writes once; the number of bytes that were taken.
    pub fn poll_write<W: AsyncWrite + Unpin>(&mut self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let written = if self.pieces.len() <= FEW {
            self.poll_slices::<FEW, W>(io, cx)
        } else {
            self.poll_slices::<SLICES, W>(io, cx)
        };
        let n = ready!(written)?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written += n as u64;
        self.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Writes the first `N` pieces once.
    fn poll_slices<const N: usize, W: AsyncWrite + Unpin>(
        &self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); N];
        let mut used = 0;
        for (slot, piece) in slices.iter_mut().zip(&self.pieces) {
            *slot = IoSlice::new(piece.bytes());
            used += 1;
        }
        Pin::new(io).poll_write_vectored(cx, &slices[..used])
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(front) = self.pieces.front_mut() {
            let len = front.bytes().len();
            if n < len {
                match front {
                    Piece::Memory(bytes) => bytes.advance(n),
                    Piece::Size(_, written) => *written += n as u8,
                }
                return;
            }
            n -= len;
            self.pieces.pop_front();
        }
    }

    /// Writes everything.
    pub async fn flush<W: AsyncWrite + Unpin>(&mut self, io: &mut W) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(io, cx)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn pieces_go_out_in_order_through_a_pipe_of_any_size() {
        for size in [1, 2, 3, 7, 1000] {
            let (mut near, mut far) = tokio::io::duplex(size);
            let mut outbox = Outbox::default();
            outbox.push(Bytes::from_static(b"head\r\n"));
            outbox.push_chunk([Bytes::from_static(b"hello "), Bytes::new(), Bytes::from_static(b"world, how are you")]);
            outbox.push_chunk([Bytes::new()]);
            outbox.push_last_chunk();
            let want = b"head\r\n18\r\nhello world, how are you\r\n0\r\n\r\n";
            let mut got = vec![0; want.len()];
            let (sent, read) = tokio::join!(outbox.flush(&mut near), far.read_exact(&mut got));
            sent.unwrap();
            read.unwrap();
            assert_eq!(got, want, "pipe of {size}");
            assert_eq!(outbox.written(), want.len() as u64);
        }
    }
}
