//! HTTP/1.1 heads and body framing without I/O: one meaning per message, or an error.

use common::HOP_BY_HOP;

/// Why a message is refused; the first of its kind closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bad(pub &'static str);

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    /// Only answers: the body ends with the connection.
    Close,
}

/// A parsed head, rewritten for the next hop (without its framing header and the empty line).
#[derive(Debug)]
pub struct Head {
    pub len: usize,
    pub framing: Framing,
    pub close: bool,
    pub expect: bool,
    /// Of a request: its method is HEAD.
    pub head_only: bool,
    /// Of an answer.
    pub status: u16,
    pub out: Vec<u8>,
}

/// Parses a request head; `None` while it is incomplete.
pub fn request(buf: &[u8]) -> Result<Option<Head>, Bad> {
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut slots);
    let len = match parsed.parse(buf).map_err(|_| Bad("malformed head"))? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial if buf.len() > 64 << 10 => return Err(Bad("head too large")),
        httparse::Status::Partial => return Ok(None),
    };
    let (method, target) = (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""));
    if parsed.version != Some(1) {
        return Err(Bad("not HTTP/1.1"));
    }
    if !target.starts_with('/') && target != "*" {
        return Err(Bad("target not in origin form"));
    }
    let mut out = Vec::with_capacity(len + 64);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut head = fields(&buf[..len], parsed.headers, out, true)?;
    head.head_only = method == "HEAD";
    Ok(Some(head))
}

/// Parses an answer's head; `None` while it is incomplete.
pub fn response(buf: &[u8], to_head: bool) -> Result<Option<Head>, Bad> {
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut slots);
    let len = match parsed.parse(buf).map_err(|_| Bad("malformed head"))? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial if buf.len() > 64 << 10 => return Err(Bad("head too large")),
        httparse::Status::Partial => return Ok(None),
    };
    let status = parsed.code.unwrap_or(0);
    let mut out = Vec::with_capacity(len + 64);
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", parsed.reason.unwrap_or("")).as_bytes());
    let mut head = fields(&buf[..len], parsed.headers, out, false)?;
    head.close |= parsed.version != Some(1);
    if to_head || status < 200 || status == 204 || status == 304 {
        head.framing = Framing::Length(0);
    }
    head.status = status;
    Ok(Some(head))
}

fn fields(raw: &[u8], headers: &[httparse::Header<'_>], out: Vec<u8>, is_request: bool) -> Result<Head, Bad> {
    // httparse takes a lone LF for a line end; another parser on the way may not.
    if memchr::memchr_iter(b'\n', raw).any(|at| at == 0 || raw[at - 1] != b'\r') {
        return Err(Bad("bare LF"));
    }
    let mut head =
        Head { len: raw.len(), framing: Framing::Close, close: false, expect: false, head_only: false, status: 0, out };
    let (mut hosts, mut length, mut chunked, mut named) = (0, None, false, &b""[..]);
    for h in headers {
        let is = |name: &str| h.name.eq_ignore_ascii_case(name);
        match h.name.len() {
            4 if is("host") => hosts += 1,
            6 if is("expect") => head.expect = true,
            10 if is("connection") => {
                head.close |= lists(h.value, b"close");
                named = h.value;
            }
            14 if is("content-length") => {
                if length.is_some() {
                    return Err(Bad("two content-lengths"));
                }
                length = Some(decimal(h.value).ok_or(Bad("content-length is no number"))?);
            }
            17 if is("transfer-encoding") => {
                if chunked || !h.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Bad("transfer-encoding is not `chunked`"));
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if is_request && hosts != 1 {
        return Err(Bad("not exactly one host"));
    }
    head.framing = match (length, chunked) {
        (Some(_), true) => return Err(Bad("content-length with transfer-encoding")),
        (None, true) => Framing::Chunked,
        (Some(n), false) => Framing::Length(n),
        (None, false) if is_request => Framing::Length(0),
        (None, false) => Framing::Close,
    };
    for h in headers {
        let hop = HOP_BY_HOP.iter().any(|n| n.len() == h.name.len() && h.name.eq_ignore_ascii_case(n));
        if hop || h.name.eq_ignore_ascii_case("content-length") || lists(named, h.name.as_bytes()) {
            continue;
        }
        for part in [h.name.as_bytes(), b": ", h.value, b"\r\n"] {
            head.out.extend_from_slice(part);
        }
    }
    Ok(head)
}

fn lists(value: &[u8], item: &[u8]) -> bool {
    !value.is_empty() && value.split(|b| *b == b',').any(|p| p.trim_ascii().eq_ignore_ascii_case(item))
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.len() < 19 && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}

/// Takes a body's bytes out of its framing, over any split of the stream.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    framing: Framing,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size(u64, u8),
    Extension(u16, u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// Bytes of trailers so far, bytes in this line.
    Trailer(u16, u16),
    TrailerLf(u16, u16),
    End,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Chunked => State::Size(0, 0),
            Framing::Length(0) => State::End,
            Framing::Length(n) => State::Data(n),
            Framing::Close => State::Data(u64::MAX),
        };
        Self { framing, state }
    }

    pub fn ended(&self) -> bool {
        self.state == State::End
    }

    /// The next piece of body in `data`, which is moved on past it; `None`: no more in it.
    pub fn next<'a>(&mut self, data: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Bad> {
        while let Some((&byte, rest)) = data.split_first() {
            self.state = match (self.state, byte) {
                (State::End, _) => return Ok(None),
                (State::Data(left), _) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
                    let (piece, after) = data.split_at(n);
                    *data = after;
                    self.state = match (left - n as u64, self.framing) {
                        (0, Framing::Chunked) => State::DataCr,
                        (0, _) => State::End,
                        (_, Framing::Close) => State::Data(u64::MAX),
                        (left, _) => State::Data(left),
                    };
                    return Ok(Some(piece));
                }
                (State::Size(n, digits), b) if digits < 15 && b.is_ascii_hexdigit() => {
                    State::Size(n << 4 | u64::from(char::from(b).to_digit(16).unwrap_or(0)), digits + 1)
                }
                (State::Size(n, 1..), b'\r') => State::SizeLf(n),
                (State::Size(n, 1..), b';') => State::Extension(0, n),
                (State::Extension(_, n), b'\r') => State::SizeLf(n),
                (State::Extension(len, n), b) if len < 1024 && (b == b'\t' || b >= b' ') => {
                    State::Extension(len + 1, n)
                }
                (State::SizeLf(0), b'\n') => State::Trailer(0, 0),
                (State::SizeLf(n), b'\n') => State::Data(n),
                (State::DataCr, b'\r') => State::DataLf,
                (State::DataLf, b'\n') => State::Size(0, 0),
                (State::Trailer(all, line), b'\r') => State::TrailerLf(all, line),
                (State::Trailer(all, line), b) if all < 8192 && b != b'\n' => State::Trailer(all + 1, line + 1),
                (State::TrailerLf(_, 0), b'\n') => State::End,
                (State::TrailerLf(all, _), b'\n') => State::Trailer(all, 0),
                _ => return Err(Bad("malformed chunk")),
            };
            *data = rest;
        }
        Ok(None)
    }
}
