//! Puts an answer on the wire, byte by byte as the script wants it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::{Answer, reason};
use crate::coding;
use crate::conn::{Conn, Gone, Sent};
use crate::fault::{At, Coding, Fault, Kind};
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

#[derive(Clone, Copy, Debug)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the faults of a turn mean for its delivery.
#[derive(Debug, Default)]
struct Plan<'a> {
    /// Takes the place of any answer.
    instead: Option<&'a Fault>,
    delay_head: Duration,
    drip_head: Option<Duration>,
    header_bomb: u64,
    coding: Option<Coding>,
    http10: bool,
    wrong_length: Option<(&'a Fault, i64)>,
    bad_chunk: Option<&'a Fault>,
    stop: Option<(&'a Fault, At)>,
    surplus: Option<&'a Fault>,
    drip: Option<Duration>,
}

impl<'a> Plan<'a> {
    fn new(faults: &'a [Fault]) -> Self {
        let mut plan = Self::default();
        for fault in faults {
            match &fault.kind {
                Kind::NoBytes | Kind::CloseBeforeHead | Kind::Garbage => plan.instead = plan.instead.or(Some(fault)),
                Kind::DelayHead(ms) => plan.delay_head = Duration::from_millis(*ms),
                Kind::Drip(ms) => plan.drip = Some(Duration::from_millis(*ms)),
                Kind::DripHead(ms) => plan.drip_head = Some(Duration::from_millis(*ms)),
                Kind::HeaderBomb(lines) => plan.header_bomb = *lines,
                Kind::Cut(at) | Kind::Reset(at) | Kind::Stall(at) => plan.stop = Some((fault, *at)),
                Kind::Surplus => plan.surplus = Some(fault),
                Kind::WrongLength(difference) => plan.wrong_length = Some((fault, *difference)),
                Kind::BadChunk => plan.bad_chunk = Some(fault),
                Kind::Http10 => plan.http10 = true,
                Kind::Coded(coding) => plan.coding = Some(*coding),
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
        plan
    }

    /// Packs the body if so ordered, and decides how its end will be known.
    fn frame(&self, answer: &mut Answer, occasion: Occasion) -> Framing {
        if let Some(coding) = self.coding {
            answer.headers.push(("Content-Encoding".to_owned(), coding.name().to_owned()));
            let body = std::mem::replace(&mut answer.body, Box::new(std::iter::empty()));
            answer.body = coding::pack(body, coding);
            if answer.length.is_some() {
                answer.length = Some(collect(answer));
            }
        }
        if let Some((_, difference)) = self.wrong_length {
            return Framing::Length(collect(answer).saturating_add_signed(difference));
        }
        match answer.length {
            _ if self.http10 => Framing::UntilClose,
            _ if self.bad_chunk.is_some() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None if occasion.old_client => Framing::UntilClose,
            None => Framing::Chunked,
        }
    }

    /// What becomes of the connection behind a body that was written to its end.
    fn finish(&self, ends: bool) -> Finish {
        match (self.bad_chunk.or(self.wrong_length.map(|(fault, _)| fault)), self.surplus) {
            (Some(fault), _) => broken(fault, Then::Close),
            (None, Some(fault)) => broken(fault, if ends { Then::Close } else { Then::Keep }),
            (None, None) if ends => Finish::Close,
            (None, None) => Finish::Keep,
        }
    }
}

fn broken(fault: &Fault, then: Then) -> Finish {
    Finish::Broken { fault: fault.to_string(), then }
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
    let plan = Plan::new(&turn.faults);
    let mut writer = Writer { conn, sent, out: BytesMut::new() };
    if let Some(fault) = plan.instead {
        return writer.instead(fault).await;
    }
    // A whole answer is made before its head is sent; a stream's head comes at once.
    let making = if answer.length.is_some() { turn.first } else { Duration::ZERO };
    writer.conn.pause(plan.delay_head + making).await?;

    let framing = plan.frame(&mut answer, occasion);
    let ends = occasion.last || plan.http10 || matches!(framing, Framing::UntilClose);
    let head = head(&answer, framing, ends, plan.http10);
    writer.head(&head, &plan).await?;
    if occasion.head_only {
        writer.flush().await?;
        return Ok(if ends { Finish::Close } else { Finish::Keep });
    }
    let (body, stop_at) = match plan.stop {
        Some((_, At::Byte(at))) => (answer.body, at),
        // Events are counted before they are cut into other pieces.
        Some((_, At::Event(count))) => {
            let events: Pieces = Box::new(answer.body.take(usize::try_from(count).unwrap_or(usize::MAX)));
            (events, u64::MAX)
        }
        None => (answer.body, u64::MAX),
    };
    let chunk = if plan.drip.is_some() { Some(1) } else { turn.chunk };
    let body = recut(body, chunk, turn.cuts.clone());
    writer.body(body, stop_at, framing, plan.drip.unwrap_or(turn.gap), plan.bad_chunk.is_some()).await?;
    if let Some((fault, _)) = plan.stop {
        return writer.stop(fault).await;
    }
    if let Framing::Chunked = framing {
        writer.out.extend_from_slice(b"0\r\n\r\n");
    }
    if plan.surplus.is_some() {
        writer.out.extend_from_slice(SURPLUS);
    }
    writer.flush().await?;
    Ok(plan.finish(ends))
}

/// The hand that writes one answer; what is in `out` is not sent yet.
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

    async fn instead(&mut self, fault: &Fault) -> Result<Finish, Gone> {
        match fault.kind {
            Kind::NoBytes => return Err(self.conn.hang().await),
            Kind::Garbage => self.out.extend(garbage(4096)),
            _ => {}
        }
        self.flush().await?;
        Ok(broken(fault, Then::Close))
    }

    async fn head(&mut self, head: &[u8], plan: &Plan<'_>) -> Result<(), Gone> {
        match plan.drip_head {
            Some(gap) => {
                for byte in head {
                    self.out.extend_from_slice(std::slice::from_ref(byte));
                    self.flush().await?;
                    self.conn.pause(gap).await?;
                }
            }
            None => self.out.extend_from_slice(head),
        }
        for line in 0..plan.header_bomb {
            self.out.extend_from_slice(format!("x-bomb-{line:08}: {}\r\n", "b".repeat(81)).as_bytes());
            if self.out.len() > 16 << 10 {
                self.flush().await?;
            }
        }
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes pieces up to the byte `stop_at`.
    async fn body(
        &mut self,
        body: Pieces,
        stop_at: u64,
        framing: Framing,
        gap: Duration,
        bad: bool,
    ) -> Result<(), Gone> {
        let chunked = matches!(framing, Framing::Chunked);
        let mut left = stop_at;
        // Nothing may be asked of the body beyond the place where it stops: its next piece may be long in coming.
        let mut body = body;
        while left > 0
            && let Some(piece) = body.next()
        {
            self.wait(piece.after).await?;
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.bytes.len());
            // What is cut off was announced all the same, as in a real break.
            if chunked {
                self.out.extend_from_slice(format!("{:x}\r\n", piece.bytes.len()).as_bytes());
            }
            self.out.extend_from_slice(&piece.bytes[..now]);
            left -= now as u64;
            if chunked && left > 0 {
                self.out.extend_from_slice(if bad { b"\r\nxyz\r\n" } else { b"\r\n" });
            }
            self.flush().await?;
            if left > 0 {
                self.wait(gap).await?;
            }
        }
        self.flush().await
    }

    async fn stop(&mut self, fault: &Fault) -> Result<Finish, Gone> {
        match fault.kind {
            Kind::Stall(_) => Err(self.conn.hang().await),
            Kind::Reset(_) => {
                // A reset overtakes what is still under way; what was sent shall arrive.
                self.conn.pause(Duration::from_millis(10)).await?;
                Ok(broken(fault, Then::Reset))
            }
            _ => Ok(broken(fault, Then::Close)),
        }
    }
}

/// What a `surplus` sends: a whole answer that would be another request's.
const SURPLUS: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"surplus\":true}";

fn head(answer: &Answer, framing: Framing, ends: bool, http10: bool) -> BytesMut {
    let version = if http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut head = BytesMut::with_capacity(1024);
    head.extend_from_slice(format!("{version} {} {}\r\n", answer.status, reason(answer.status)).as_bytes());
    for (name, value) in &answer.headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match framing {
        Framing::Length(length) => head.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes()),
        Framing::Chunked => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    head.extend_from_slice(if ends { b"Connection: close\r\n" } else { b"Connection: keep-alive\r\n" });
    head
}

/// Makes one piece of a body, and tells its length.
fn collect(answer: &mut Answer) -> u64 {
    let body = std::mem::replace(&mut answer.body, Box::new(std::iter::empty()));
    let whole: BytesMut = body.fold(BytesMut::new(), |mut whole, piece| {
        whole.extend_from_slice(&piece.bytes);
        whole
    });
    let length = whole.len() as u64;
    answer.body = Box::new(std::iter::once(Piece::now(whole.freeze())).filter(|piece| !piece.bytes.is_empty()));
    length
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
