//! Requests as they come off the wire: the head, judged strictly, and the body in whatever pieces it comes.

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::conn::{Conn, Gone};

const MAX_HEAD: usize = 256 << 10;
const MAX_HEADERS: usize = 512;
const MAX_CHUNK_LINE: usize = 8 << 10;

/// The head of a request.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) minor: u8,
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) raw: Bytes,
    /// What a well-behaved client would not have sent.
    pub(crate) oddities: Vec<String>,
    pub(crate) body: BodyState,
    /// Why the request cannot be understood in one way only, if so.
    pub(crate) refuse: Option<(u16, String)>,
}

/// Where the reader of a body stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyState {
    Done,
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// Why a body did not come whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BadBody {
    Gone,
    Framing(String),
}

impl From<Gone> for BadBody {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.values(name).next()
    }

    pub(crate) fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        let named = self.headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    pub(crate) fn wants_close(&self) -> bool {
        let said = |word: &str| {
            self.values("connection")
                .flat_map(|value| value.split(','))
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        said("close") || (self.minor == 0 && !said("keep-alive"))
    }

    pub(crate) fn awaits_continue(&self) -> bool {
        self.minor > 0 && self.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"))
    }
}

/// The next head of a connection; `None` when the client has closed between two requests.
pub(crate) async fn read_head<S: AsyncRead + AsyncWrite + Unpin>(conn: &mut Conn<S>) -> Option<Head> {
    loop {
        // Empty lines before a request are allowed, and not part of it.
        while conn.input.starts_with(b"\r\n") {
            conn.input.advance(2);
        }
        if let Some(head) = parse(&mut conn.input) {
            return Some(head);
        }
        if conn.read().await.is_err() {
            if conn.input.is_empty() {
                return None;
            }
            return Some(refused(conn.input.split().freeze(), 400, "the request ends inside of its head"));
        }
    }
}

/// The head at the start of `input`, taken off it; `None` if more has to come.
fn parse(input: &mut BytesMut) -> Option<Head> {
    let mut space = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut space);
    let length = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(status) if status.is_complete() || input.len() > MAX_HEAD => {
            return Some(refused(input.split().freeze(), 431, "the head is longer than 256 KiB"));
        }
        Ok(_) => return None,
        Err(httparse::Error::TooManyHeaders) => {
            return Some(refused(input.split().freeze(), 431, "the head has more than 512 lines"));
        }
        Err(why) => return Some(refused(input.split().freeze(), 400, &format!("the head cannot be read: {why}"))),
    };
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        minor: request.version.unwrap_or(1),
        headers: request.headers.iter().map(|h| (h.name.to_owned(), Bytes::copy_from_slice(h.value))).collect(),
        raw: Bytes::new(),
        oddities: Vec::new(),
        body: BodyState::Done,
        refuse: None,
    };
    head.raw = input.split_to(length).freeze();
    judge(&mut head);
    Some(head)
}

fn refused(raw: Bytes, status: u16, why: &str) -> Head {
    Head {
        method: String::new(),
        target: String::new(),
        minor: 1,
        headers: Vec::new(),
        raw,
        oddities: vec![why.to_owned()],
        body: BodyState::Done,
        refuse: Some((status, why.to_owned())),
    }
}

/// Finds the framing and everything that is odd about the head.
fn judge(head: &mut Head) {
    let count = |name: &str| head.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).count();
    let mut faults: Vec<String> = Vec::new();
    let mut oddities: Vec<String> = Vec::new();

    let bare = memchr::memchr_iter(b'\n', &head.raw).any(|at| at == 0 || head.raw[at - 1] != b'\r');
    if bare {
        faults.push("a line of the head ends without a carriage return".to_owned());
    }
    match count("host") {
        1 => {}
        0 if head.minor == 0 => {}
        0 => faults.push("there is no `host`".to_owned()),
        _ => faults.push("there is more than one `host`".to_owned()),
    }
    if !head.target.starts_with('/') && head.target != "*" {
        faults.push("the target is not a path".to_owned());
    }
    let lengths: Vec<&Bytes> =
        head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, v)| v).collect();
    let codings = count("transfer-encoding");
    head.body = match (lengths.as_slice(), codings) {
        ([], 0) => BodyState::Done,
        ([length], 0) => match std::str::from_utf8(length).ok().and_then(digits) {
            Some(0) => BodyState::Done,
            Some(length) => BodyState::Length(length),
            None => {
                faults.push("`content-length` is no number".to_owned());
                BodyState::Done
            }
        },
        ([], 1) if head.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) => {
            BodyState::ChunkSize
        }
        ([], _) => {
            faults.push("the `transfer-encoding` is not just `chunked`".to_owned());
            BodyState::Done
        }
        (_, 0) => {
            faults.push("there is more than one `content-length`".to_owned());
            BodyState::Done
        }
        (_, _) => {
            faults.push("there are both `content-length` and `transfer-encoding`".to_owned());
            BodyState::Done
        }
    };
    for name in HOP_BY_HOP {
        if count(name) > 0 {
            oddities.push(format!("the hop-by-hop header `{name}`"));
        }
    }
    for name in ["cookie", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via"]
    {
        if count(name) > 0 {
            oddities.push(format!("the header `{name}`"));
        }
    }
    for name in ["authorization", "x-api-key", "content-type", "anthropic-version"] {
        if count(name) > 1 {
            oddities.push(format!("more than one `{name}`"));
        }
    }
    if count("authorization") > 0 && count("x-api-key") > 0 {
        oddities.push("both `authorization` and `x-api-key`".to_owned());
    }
    if head.headers.iter().any(|(name, _)| name.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("x-cco-"))) {
        oddities.push("a header that is private to the gateway (`x-cco-…`)".to_owned());
    }
    head.refuse = faults.first().map(|why| (400, why.clone()));
    head.oddities = faults;
    head.oddities.append(&mut oddities);
}

/// Headers that concern one connection only, and are nothing for a server behind a proxy to see.
const HOP_BY_HOP: [&str; 6] = ["keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "upgrade"];

/// A number written with digits only: no sign, no space.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The next piece of a body; `None` at its end. A piece is what one read brought.
pub(crate) async fn read_piece<S>(conn: &mut Conn<S>, state: &mut BodyState) -> Result<Option<Bytes>, BadBody>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match *state {
            BodyState::Done => return Ok(None),
            BodyState::Length(left) | BodyState::Chunk(left) => {
                if conn.input.is_empty() {
                    conn.read().await?;
                }
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(conn.input.len());
                let left = left - length as u64;
                *state = match *state {
                    BodyState::Length(_) if left == 0 => BodyState::Done,
                    BodyState::Length(_) => BodyState::Length(left),
                    _ if left == 0 => BodyState::ChunkEnd,
                    _ => BodyState::Chunk(left),
                };
                return Ok(Some(conn.input.split_to(length).freeze()));
            }
            BodyState::ChunkSize => {
                let line = read_line(conn).await?;
                let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                let readable = !size.is_empty() && size.len() <= 15 && size.iter().all(u8::is_ascii_hexdigit);
                let size =
                    std::str::from_utf8(size).ok().filter(|_| readable).and_then(|s| u64::from_str_radix(s, 16).ok());
                *state = match size {
                    None => return Err(BadBody::Framing("a chunk size is no number".to_owned())),
                    Some(0) => BodyState::Trailers,
                    Some(size) => BodyState::Chunk(size),
                };
            }
            BodyState::ChunkEnd => match read_line(conn).await? {
                line if line.is_empty() => *state = BodyState::ChunkSize,
                _ => return Err(BadBody::Framing("a chunk is longer than its size".to_owned())),
            },
            BodyState::Trailers => {
                if read_line(conn).await?.is_empty() {
                    *state = BodyState::Done;
                }
            }
        }
    }
}

/// A line of the chunked framing, without its end.
async fn read_line<S: AsyncRead + AsyncWrite + Unpin>(conn: &mut Conn<S>) -> Result<Bytes, BadBody> {
    loop {
        if let Some(at) = memchr::memchr(b'\n', &conn.input) {
            let line = conn.input.split_to(at + 1).freeze();
            let Some(line) = line.strip_suffix(b"\r\n") else {
                return Err(BadBody::Framing(
                    "a line of the chunked framing ends without a carriage return".to_owned(),
                ));
            };
            return Ok(Bytes::copy_from_slice(line));
        }
        if conn.input.len() > MAX_CHUNK_LINE {
            return Err(BadBody::Framing("a line of the chunked framing is longer than 8 KiB".to_owned()));
        }
        conn.read().await?;
    }
}
