//! Relay prototype (b): own HTTP/1.1 heads and framing; answers go out of the memory they were read into.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use common::Scan;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

mod head;
use head::{Bad, Decoder, Framing, Head};

/// The largest request body that is held.
const MAX_BODY: u64 = 64 << 20;

thread_local! {
    static POOL: RefCell<Vec<TcpStream>> = const { RefCell::new(Vec::new()) };
    /// One buffer per thread for every read of it: a waiting connection owns none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 << 10].into());
}

fn invalid(bad: Bad) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, bad.0)
}

async fn checkout(addr: SocketAddr) -> io::Result<TcpStream> {
    while let Some(up) = POOL.with_borrow_mut(Vec::pop) {
        // No system call unless the kernel reported an end or surplus bytes: either way it is no good.
        if matches!(up.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            return Ok(up);
        }
    }
    let up = TcpStream::connect(addr).await?;
    up.set_nodelay(true)?;
    Ok(up)
}

fn checkin(up: TcpStream) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < 1100 {
            pool.push(up);
        }
    });
}

/// Appends one read to `into`, by way of the thread's buffer; 0 is the end.
async fn fill(from: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|cx| {
        SCRATCH.with_borrow_mut(|scratch| {
            // Not more: the rest of a large body is read to where it stays.
            let mut buf = ReadBuf::new(&mut scratch[..16 << 10]);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buf))?;
            into.extend_from_slice(buf.filled());
            Poll::Ready(Ok(buf.filled().len()))
        })
    })
    .await
}

/// Reads one request whole. `held` then starts with its head and body as received, and may hold more after them.
async fn request(client: &mut TcpStream, held: &mut Vec<u8>) -> io::Result<Option<(Head, Option<Vec<u8>>, usize)>> {
    let head = loop {
        if !held.is_empty()
            && let Some(head) = head::request(held).map_err(invalid)?
        {
            break head;
        }
        if fill(client, held).await? == 0 {
            return Ok(None);
        }
    };
    match head.framing {
        Framing::Length(n) if n <= MAX_BODY => {
            let end = head.len + n as usize;
            if head.expect && held.len() < end {
                client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            // Some room to spare: a read that fills its buffer tells tokio nothing, and costs a second one that finds
            // the socket empty.
            held.reserve_exact((end + 512).saturating_sub(held.len()));
            while held.len() < end {
                if client.read_buf(held).await? == 0 {
                    return Ok(None);
                }
            }
            Ok(Some((head, None, end)))
        }
        Framing::Chunked => {
            let (mut decoder, mut at, mut body) = (Decoder::new(Framing::Chunked), head.len, Vec::new());
            loop {
                let mut data = &held[at..];
                while let Some(piece) = decoder.next(&mut data).map_err(invalid)? {
                    body.extend_from_slice(piece);
                }
                at = held.len() - data.len();
                if decoder.ended() {
                    return Ok(Some((head, Some(body), at)));
                }
                if body.len() as u64 > MAX_BODY || fill(client, held).await? == 0 {
                    return Ok(None);
                }
            }
        }
        _ => Err(invalid(Bad("body too large"))),
    }
}

async fn write_all(to: &mut TcpStream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        let n = to.write_vectored(parts).await?;
        IoSlice::advance_slices(&mut parts, n);
    }
    Ok(())
}

/// An answer on its way down.
struct Down {
    to_head: bool,
    /// The start of a head that did not come in one read.
    part: Vec<u8>,
    decoder: Option<Decoder>,
    chunked_out: bool,
    close: bool,
    /// What the client's socket did not take at once. While it is not empty, nothing is read.
    pending: Vec<u8>,
    scan: Scan,
}

impl Down {
    /// One turn: write what is left, else read once and hand on what came in one vectored write.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut TcpStream,
        up: &mut TcpStream,
        held: &mut Vec<u8>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.pending.is_empty() {
                let n = ready!(Pin::new(&mut *client).poll_write(cx, &self.pending))?;
                self.pending.drain(..n);
            }
            self.pending = Vec::new();
            if self.decoder.is_some_and(|d| d.ended()) {
                return Poll::Ready(Ok(()));
            }
            let turn = SCRATCH.with_borrow_mut(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *up).poll_read(cx, &mut buf))?;
                Poll::Ready(self.received(cx, client, buf.filled()))
            });
            if turn.is_pending() {
                // While the upstream is silent: is the client still there?
                let mut small = [0; 512];
                let mut buf = ReadBuf::new(&mut small);
                if Pin::new(&mut *client).poll_read(cx, &mut buf)?.is_ready() {
                    if buf.filled().is_empty() || held.len() > 64 << 10 {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    held.extend_from_slice(buf.filled());
                    continue;
                }
            }
            ready!(turn)?;
        }
    }

    fn received(&mut self, cx: &mut Context<'_>, client: &mut TcpStream, read: &[u8]) -> io::Result<()> {
        let ended_by_close = read.is_empty();
        if ended_by_close && !(self.close && self.decoder.is_some() && self.chunked_out) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let joined;
        let mut data = read;
        let mut first = Vec::new();
        if self.decoder.is_none() {
            if !self.part.is_empty() {
                self.part.extend_from_slice(read);
                joined = std::mem::take(&mut self.part);
                data = &joined;
            }
            let head = loop {
                let Some(head) = head::response(data, self.to_head).map_err(invalid)? else {
                    self.part = data.to_vec();
                    return Ok(());
                };
                data = &data[head.len..];
                if head.status >= 200 {
                    break head;
                }
            };
            first = head.out;
            match head.framing {
                Framing::Length(n) => write!(first, "content-length: {n}\r\n\r\n")?,
                _ => first.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n"),
            }
            self.chunked_out = !matches!(head.framing, Framing::Length(_));
            self.close = head.close || head.framing == Framing::Close;
            self.decoder = Some(Decoder::new(head.framing));
        }
        let Some(mut decoder) = self.decoder else { return Ok(()) };
        let mut size = [0u8; 18];
        loop {
            // Slot 0: the head; slot 1: our chunk's size; then the received pieces; then the chunk's end.
            let mut slots = [IoSlice::new(&[]); 192];
            let (mut used, mut sum) = (2, 0);
            while used < slots.len() - 1
                && let Some(piece) = decoder.next(&mut data).map_err(invalid)?
            {
                self.scan.chunk(piece);
                sum += piece.len();
                slots[used] = IoSlice::new(piece);
                used += 1;
            }
            slots[0] = IoSlice::new(&first);
            if self.chunked_out {
                if sum > 0 {
                    let mut to = &mut size[..];
                    write!(to, "{sum:x}\r\n")?;
                    let left = to.len();
                    slots[1] = IoSlice::new(&size[..18 - left]);
                }
                slots[used] = IoSlice::new(match (sum > 0, decoder.ended() || ended_by_close) {
                    (true, true) => b"\r\n0\r\n\r\n",
                    (true, false) => b"\r\n",
                    (false, true) => b"0\r\n\r\n",
                    (false, false) => b"",
                });
                used += 1;
            }
            self.send(cx, client, &mut slots[usize::from(first.is_empty())..used])?;
            first.clear();
            if data.is_empty() || decoder.ended() {
                break;
            }
        }
        self.decoder = Some(if ended_by_close { Decoder::new(Framing::Length(0)) } else { decoder });
        // Bytes after the end: the connection is not to be trusted with another answer.
        self.close |= !data.is_empty();
        Ok(())
    }

    fn send(&mut self, cx: &mut Context<'_>, client: &mut TcpStream, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        if parts.iter().all(|p| p.is_empty()) {
            return Ok(());
        }
        if self.pending.is_empty()
            && let Poll::Ready(n) = Pin::new(client).poll_write_vectored(cx, parts)?
        {
            IoSlice::advance_slices(&mut parts, n);
        }
        for part in parts {
            self.pending.extend_from_slice(part);
        }
        Ok(())
    }
}

async fn exchange(client: &mut TcpStream, addr: SocketAddr, held: &mut Vec<u8>) -> io::Result<bool> {
    let Some((mut head, body, end)) = request(client, held).await? else { return Ok(false) };
    let body = body.as_deref().unwrap_or(&held[head.len..end]);
    write!(head.out, "content-length: {}\r\n\r\n", body.len())?;
    let mut up = checkout(addr).await?;
    write_all(&mut up, &mut [IoSlice::new(&head.out), IoSlice::new(body)]).await?;
    // The gateway would hold the body until an answer came; what follows it stays.
    if held.len() == end {
        *held = Vec::new();
    } else {
        held.drain(..end);
    }
    let mut down = Down {
        to_head: head.head_only,
        part: Vec::new(),
        decoder: None,
        chunked_out: false,
        close: false,
        pending: Vec::new(),
        scan: Scan::default(),
    };
    drop(head.out);
    poll_fn(|cx| down.poll(cx, client, &mut up, held)).await?;
    if !down.close {
        checkin(up);
    }
    Ok(!head.close)
}

async fn serve(mut client: TcpStream, addr: SocketAddr) {
    let mut held = Vec::new();
    loop {
        match exchange(&mut client, addr, &mut held).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => {
                if e.kind() == io::ErrorKind::InvalidData {
                    let why = e.to_string();
                    let text = format!(
                        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{why}",
                        why.len()
                    );
                    // The connection ends here whether this arrives or not.
                    let _gone = client.write_all(text.as_bytes()).await;
                }
                return;
            }
        }
    }
}

fn main() -> Result<(), String> {
    common::run(serve)
}
