//! Puts an answer on the wire, byte by byte as the script wants it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::{Answer, reason};
use crate::coding;
use crate::conn::{Conn, Gone, Sent};
use crate::fault::{At, Fault, Kind};
use crate::reply::{Piece, Pieces};
use crate::script::Turn;

/// What becomes of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finish {
    /// The answer is complete, and another request may come.
    Keep,
    /// The answer is complete, and the connection ends.
    Close,
    /// This fault ended the answer, or broke its framing; the connection ends, or goes on.
    Broken { fault: String, then: Then },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Keep,
    Close,
    Reset,
}

/// What is special about the request that is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occasion {
    /// No body may follow, whatever the head says.
    pub(crate) head_only: bool,
    /// The client closes behind this answer, or cannot take chunks.
    pub(crate) last: bool,
    pub(crate) old_client: bool,
}

enum Framing {
    Length(u64),
    Chunked { bad: bool },
    UntilClose,
}

/// The tools of one delivery.
struct Writer<'a, S> {
    conn: &'a mut Conn<S>,
    sent: &'a Sent,
    out: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<'_, S> {
    async fn flush(&mut self) -> Result<(), Gone> {
        let out = self.out.split();
        self.conn.send(&out, self.sent).await
    }

    async fn wait(&mut self, time: Duration) -> Result<(), Gone> {
        if !time.is_zero() {
            self.flush().await?;
            self.conn.pause(time).await?;
        }
        Ok(())
    }
}

pub(crate) async fn deliver<S>(
    conn: &mut Conn<S>,
    mut answer: Answer,
    turn: &Turn,
    occasion: Occasion,
    sent: &Sent,
) -> Result<Finish, Gone>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut writer = Writer { conn, sent, out: BytesMut::new() };
    let broken = |fault: &Fault, then| Ok(Finish::Broken { fault: fault.to_string(), then });
    let (mut gap, mut chunk) = (turn.gap, turn.chunk);
    let (mut place, mut surplus, mut wrong_length, mut drip_head) = (None, None, None, None);
    let mut framing = match answer.length {
        Some(length) => Framing::Length(length),
        None if occasion.old_client => Framing::UntilClose,
        None => Framing::Chunked { bad: false },
    };
    let mut http10 = false;
    let mut bad_chunk = None;
    let mut header_bomb = 0;
    for fault in &turn.faults {
        match &fault.kind {
            Kind::NoBytes => return Err(writer.conn.hang().await),
            Kind::CloseBeforeHead => return broken(fault, Then::Close),
            Kind::Garbage => {
                writer.out.extend(garbage(4096));
                writer.flush().await?;
                return broken(fault, Then::Close);
            }
            Kind::DelayHead(ms) => writer.conn.pause(Duration::from_millis(*ms)).await?,
            Kind::Drip(ms) => (gap, chunk) = (Duration::from_millis(*ms), Some(1)),
            Kind::DripHead(ms) => drip_head = Some(Duration::from_millis(*ms)),
            Kind::HeaderBomb(lines) => header_bomb = *lines,
            Kind::Cut(at) | Kind::Reset(at) | Kind::Stall(at) => place = Some((fault, *at)),
            Kind::Surplus => surplus = Some(fault),
            Kind::WrongLength(difference) => wrong_length = Some((fault, *difference)),
            Kind::BadChunk => {
                framing = Framing::Chunked { bad: true };
                bad_chunk = Some(fault);
            }
            Kind::Http10 => {
                framing = Framing::UntilClose;
                http10 = true;
            }
            Kind::Coded(how) => {
                answer.headers.push(("Content-Encoding".to_owned(), how.name().to_owned()));
                answer.body = coding::pack(answer.body, *how);
                if matches!(framing, Framing::Length(_)) {
                    framing = collect(&mut answer);
                }
            }
            // These have shaped the answer already.
            Kind::Status { .. }
            | Kind::Html502
            | Kind::ErrorFirst { .. }
            | Kind::ErrorMid { .. }
            | Kind::Truncate(_)
            | Kind::Endless
            | Kind::LongLine
            | Kind::Bomb(_)
            | Kind::Redirect(_)
            | Kind::SetCookie => {}
        }
    }
    if let Some((_, difference)) = wrong_length
        && let Framing::Length(length) = collect(&mut answer)
    {
        framing = Framing::Length(length.saturating_add_signed(difference));
    }
    let mut stop_at = u64::MAX;
    match place {
        Some((_, At::Byte(at))) => stop_at = at,
        // Events are counted before they are cut into other pieces.
        Some((_, At::Event(events))) => {
            answer.body = Box::new(answer.body.take(usize::try_from(events).unwrap_or(usize::MAX)));
        }
        None => {}
    }
    let body = recut(answer.body, chunk, turn.cuts.clone());

    // A whole answer is made before its head is sent; a stream's head comes at once.
    if answer.length.is_some() {
        writer.conn.pause(turn.first).await?;
    }
    let ends = occasion.last || http10 || matches!(framing, Framing::UntilClose);
    let version = if http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let head = head(version, &answer.status, &answer.headers, &framing, ends);
    match drip_head {
        Some(gap) => {
            for byte in &head {
                writer.conn.send(std::slice::from_ref(byte), sent).await?;
                writer.conn.pause(gap).await?;
            }
        }
        None => writer.out.extend_from_slice(&head),
    }
    for line in 0..header_bomb {
        writer.out.extend_from_slice(format!("x-bomb-{line:08}: {}\r\n", "b".repeat(80)).as_bytes());
        if writer.out.len() > 16 << 10 {
            writer.flush().await?;
        }
    }
    writer.out.extend_from_slice(b"\r\n");
    if occasion.head_only {
        writer.flush().await?;
        return Ok(if ends { Finish::Close } else { Finish::Keep });
    }

    let mut written = 0;
    if stop_at > 0 {
        for piece in body {
            writer.wait(piece.after).await?;
            let left = stop_at - written;
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.bytes.len());
            // What is cut off was announced all the same, as in a real break.
            if let Framing::Chunked { .. } = framing {
                writer.out.extend_from_slice(format!("{:x}\r\n", piece.bytes.len()).as_bytes());
            }
            writer.out.extend_from_slice(&piece.bytes[..now]);
            written += now as u64;
            if now == piece.bytes.len()
                && written < stop_at
                && let Framing::Chunked { bad } = framing
            {
                writer.out.extend_from_slice(if bad { b"\r\nxyz\r\n" } else { b"\r\n" });
            }
            writer.flush().await?;
            if written >= stop_at {
                break;
            }
            writer.wait(gap).await?;
        }
    }
    writer.flush().await?;
    if let Some((fault, _)) = place {
        match fault.kind {
            Kind::Stall(_) => return Err(writer.conn.hang().await),
            Kind::Reset(_) => {
                // A reset overtakes what is still under way; what was sent shall arrive.
                writer.conn.pause(Duration::from_millis(10)).await?;
                return broken(fault, Then::Reset);
            }
            _ => return broken(fault, Then::Close),
        }
    }
    if let Framing::Chunked { .. } = framing {
        writer.out.extend_from_slice(b"0\r\n\r\n");
    }
    if surplus.is_some() {
        writer.out.extend_from_slice(SURPLUS);
    }
    writer.flush().await?;
    match (bad_chunk.or(wrong_length.map(|(fault, _)| fault)), surplus) {
        (Some(fault), _) => broken(fault, Then::Close),
        (None, Some(fault)) => broken(fault, if ends { Then::Close } else { Then::Keep }),
        (None, None) if ends => Ok(Finish::Close),
        (None, None) => Ok(Finish::Keep),
    }
}

/// What a `surplus` sends: a whole answer that would be another request's.
const SURPLUS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"surplus\":true}";

fn head(version: &str, status: &u16, headers: &[(String, String)], framing: &Framing, ends: bool) -> BytesMut {
    let mut head = BytesMut::with_capacity(512);
    head.extend_from_slice(format!("{version} {status} {}\r\n", reason(*status)).as_bytes());
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match framing {
        Framing::Length(length) => head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes()),
        Framing::Chunked { .. } => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    head.extend_from_slice(if ends { b"Connection: close\r\n" } else { b"Connection: keep-alive\r\n" });
    head
}

/// Makes one piece of a body, and tells its length.
fn collect(answer: &mut Answer) -> Framing {
    let body = std::mem::replace(&mut answer.body, Box::new(std::iter::empty()));
    let whole: BytesMut = body.fold(BytesMut::new(), |mut whole, piece| {
        whole.extend_from_slice(&piece.bytes);
        whole
    });
    let length = whole.len() as u64;
    answer.body = Box::new(std::iter::once(Piece::now(whole.freeze())).filter(|piece| !piece.bytes.is_empty()));
    Framing::Length(length)
}

/// Cuts a body into pieces of `chunk` bytes, or at the offsets `cuts`. A wait ends a piece early.
fn recut(body: Pieces, chunk: Option<u64>, cuts: Vec<u64>) -> Pieces {
    // An empty piece would be the end of a chunked body.
    let mut body = body.filter(|piece| !piece.bytes.is_empty() || !piece.after.is_zero());
    if chunk.is_none() && cuts.is_empty() {
        return Box::new(body.filter(|piece| !piece.bytes.is_empty()));
    }
    let mut cuts = cuts.into_iter().peekable();
    let (mut held, mut after, mut at) = (BytesMut::new(), Duration::ZERO, 0u64);
    let mut coming: Option<Piece> = None;
    let mut border = move |at: u64| -> u64 {
        while cuts.next_if(|cut| *cut <= at).is_some() {}
        let cut = cuts.peek().copied().unwrap_or(u64::MAX);
        chunk.map_or(cut, |size| cut.min((at / size + 1).saturating_mul(size)))
    };
    Box::new(std::iter::from_fn(move || {
        loop {
            let length = usize::try_from(border(at) - at).unwrap_or(usize::MAX);
            if held.len() >= length {
                at += length as u64;
                return Some(Piece { after: std::mem::take(&mut after), bytes: held.split_to(length).freeze() });
            }
            match coming.take().or_else(|| body.next()) {
                Some(piece) if held.is_empty() || piece.after.is_zero() => {
                    after += piece.after;
                    held.extend_from_slice(&piece.bytes);
                }
                other if held.is_empty() => {
                    debug_assert!(other.is_none(), "a piece is taken as long as none is held");
                    return None;
                }
                other => {
                    coming = other;
                    at += held.len() as u64;
                    return Some(Piece { after: std::mem::take(&mut after), bytes: held.split().freeze() });
                }
            }
        }
    }))
}

/// Bytes that are the same each time and look like nothing.
fn garbage(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(parts: &[(u64, &str)], chunk: Option<u64>, cuts: &[u64]) -> Vec<(u64, String)> {
        let part =
            |(ms, text): &(u64, &str)| Piece { after: Duration::from_millis(*ms), bytes: text.to_string().into() };
        let parts: Vec<Piece> = parts.iter().map(part).collect();
        recut(Box::new(parts.into_iter()), chunk, cuts.to_vec())
            .map(|piece| (piece.after.as_millis() as u64, String::from_utf8(piece.bytes.to_vec()).unwrap()))
            .collect()
    }

    fn owned(parts: &[(u64, &str)]) -> Vec<(u64, String)> {
        parts.iter().map(|(ms, text)| (*ms, (*text).to_owned())).collect()
    }

    #[test]
    fn pieces_are_cut_and_joined_to_the_size_that_was_asked() {
        assert_eq!(lengths(&[(0, "abcde"), (0, "fgh")], Some(3), &[]), owned(&[(0, "abc"), (0, "def"), (0, "gh")]));
        assert_eq!(
            lengths(&[(0, "abcde"), (0, "fgh")], None, &[1, 6, 99]),
            owned(&[(0, "a"), (0, "bcdef"), (0, "gh")])
        );
        assert_eq!(lengths(&[(0, "ab"), (0, "")], None, &[]), owned(&[(0, "ab")]));
    }

    #[test]
    fn a_wait_ends_a_piece_early() {
        assert_eq!(lengths(&[(5, "ab"), (7, "cd"), (0, "e")], Some(10), &[]), owned(&[(5, "ab"), (7, "cde")]));
        assert_eq!(lengths(&[(0, "abc"), (7, "d")], Some(2), &[]), owned(&[(0, "ab"), (0, "c"), (7, "d")]));
    }
}
