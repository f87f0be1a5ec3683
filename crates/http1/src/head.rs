//! Request and response heads: from bytes to spans of the same memory.

use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memchr_iter;

use crate::body::Framing;
use crate::grammar::{self, Fault, RequestLine, Span, Spans, StatusLine};

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes from the first of the start line to the empty line's end.
    pub bytes: usize,
    /// Header fields; at most [`MAX_FIELDS`].
    pub fields: usize,
}

/// No head may have more fields than this, whatever its limits say.
pub const MAX_FIELDS: usize = 256;

/// Interim answers that are read over before a final one. Servers send one or two.
pub const MAX_INTERIM: u8 = 16;

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 * 1024, fields: 128 }
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// More bytes than [`Limits::bytes`].
    TooLarge,
    /// More fields than [`Limits::fields`].
    TooManyFields,
    /// A line that ends in LF without CR.
    BareLf,
    /// Not the grammar of a head.
    Malformed,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Not `/path`: an absolute URL, `*`, an authority, or with bytes that no path has.
    Target,
    /// No `Host` field.
    HostMissing,
    /// More than one `Host` field.
    HostTwice,
    /// A `Host` that is no name or address with an optional port.
    HostInvalid,
    /// A `Content-Length` that is not one decimal number.
    Length,
    /// More than one `Content-Length`, even of equal value.
    LengthTwice,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding,
    /// A `Transfer-Encoding` other than exactly one `chunked`, or one in HTTP/1.0.
    Encoding,
    /// More interim answers (1xx) than [`MAX_INTERIM`] before the final one.
    TooManyInterim,
    /// A status that is no final answer to a request that asked for none of its kind (101, or not 100..=999).
    Status,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the header section is too large",
            Self::TooManyFields => "there are too many header fields",
            Self::BareLf => "a header line ends in LF without CR",
            Self::Malformed => "the head is not HTTP/1.1",
            Self::Version => "the HTTP version is neither 1.0 nor 1.1",
            Self::Target => "the request target is not a path",
            Self::HostMissing => "the `Host` header is missing",
            Self::HostTwice => "there is more than one `Host` header",
            Self::HostInvalid => "the `Host` header is not a host name",
            Self::Length => "`Content-Length` is not a number",
            Self::LengthTwice => "there is more than one `Content-Length` header",
            Self::LengthAndEncoding => "`Content-Length` and `Transfer-Encoding` exclude each other",
            Self::Encoding => "`Transfer-Encoding` is not exactly `chunked`",
            Self::TooManyInterim => "there are too many interim answers",
            Self::Status => "the status is not one of a final answer",
        })
    }
}

impl std::error::Error for HeadError {}

/// Finds the end of a head in bytes that arrive in pieces, looking at each byte once.
#[derive(Debug, Default, Clone)]
pub struct Scan {
    /// Everything before this offset has been looked at.
    seen: usize,
    /// Where the current line begins.
    line: usize,
    /// Interim heads that came before this one.
    interim: u8,
}

impl Scan {
    /// Whether interim heads came before this one.
    pub fn is_behind_interim(&self) -> bool {
        self.interim > 0
    }

    /// The length of the head at the front of `buf`, with its empty line, once it is whole.
    pub fn end(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        for at in memchr_iter(b'\n', &buf[self.seen..]) {
            let at = self.seen + at;
            if at == 0 || buf[at - 1] != b'\r' || at - 1 < self.line {
                return Err(HeadError::BareLf);
            }
            if at - 1 == self.line {
                let end = at + 1;
                return if end > limits.bytes { Err(HeadError::TooLarge) } else { Ok(Some(end)) };
            }
            self.line = at + 1;
        }
        self.seen = buf.len();
        if buf.len() >= limits.bytes { Err(HeadError::TooLarge) } else { Ok(None) }
    }
}

/// One header field as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// In the sender's spelling; compare with [`Field::is`].
    pub name: &'a [u8],
    /// Without the white space around it.
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name (lower case given).
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

#[derive(Clone)]
struct Fields {
    buf: Bytes,
    spans: Spans,
}

impl Fields {
    #[inline]
    fn iter(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.spans.iter().map(|(name, value)| Field { name: name.get(&self.buf), value: value.get(&self.buf) })
    }

    /// The values of the fields of this name (lower case given), in their order. Most names are told apart by their
    /// lengths, without a look at where they lie.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Span> + 'a {
        let of_that_length = |(had, _): &&(Span, Span)| had.len() == name.len();
        let named = move |(had, _): &&(Span, Span)| had.get(&self.buf).eq_ignore_ascii_case(name.as_bytes());
        self.spans.iter().filter(of_that_length).filter(named).map(|(_, value)| *value)
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        let first = self.named(name).next();
        first.map(|value| value.get(&self.buf))
    }
}

impl fmt::Debug for Fields {
    // Values can be credentials: names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|field| String::from_utf8_lossy(field.name).into_owned())).finish()
    }
}

fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// What the fields say about the message that follows and about the connection.
#[derive(Default)]
struct Meaning {
    length: Option<u64>,
    chunked: bool,
    close: Option<bool>,
    /// The first `Host`, and how many there are.
    host: Option<Span>,
    hosts: usize,
    expects_continue: bool,
}

impl Meaning {
    /// What these fields mean; whether they mean one thing only is the second half.
    fn of(fields: &Fields, minor: u8) -> (Self, Result<(), HeadError>) {
        let (mut meaning, mut good) = (Self::default(), Ok(()));
        for (name, value) in &fields.spans {
            // Few have the length of a name that means something here.
            if !matches!(name.len(), 4 | 6 | 10 | 14 | 17) {
                continue;
            }
            let field = Field { name: name.get(&fields.buf), value: value.get(&fields.buf) };
            if field.is("host") {
                meaning.hosts += 1;
                meaning.host.get_or_insert(*value);
            } else if field.is("expect") {
                meaning.expects_continue |= minor == 1 && field.value.eq_ignore_ascii_case(b"100-continue");
            } else if good.is_ok() {
                good = meaning.frame(&field, minor);
            }
        }
        if good.is_ok() && meaning.chunked && meaning.length.is_some() {
            good = Err(HeadError::LengthAndEncoding);
        }
        (meaning, good)
    }

    /// Takes what one field says about the framing of the body and about the connection.
    fn frame(&mut self, field: &Field<'_>, minor: u8) -> Result<(), HeadError> {
        if field.is("content-length") {
            self.length = Some(only(self.length, field.value)?);
        } else if field.is("transfer-encoding") {
            if self.chunked || minor == 0 || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::Encoding);
            }
            self.chunked = true;
        } else if field.is("connection") {
            for token in tokens(field.value) {
                if token.eq_ignore_ascii_case(b"close") {
                    self.close = Some(true);
                } else if token.eq_ignore_ascii_case(b"keep-alive") && self.close.is_none() {
                    self.close = Some(false);
                }
            }
        }
        Ok(())
    }

    fn framing(&self) -> Option<Framing> {
        if self.chunked { Some(Framing::Chunked) } else { self.length.map(Framing::Length) }
    }

    /// Whether the connection outlives the message, as far as the fields say.
    fn keeps_alive(&self, minor: u8) -> bool {
        if minor == 1 { self.close != Some(true) } else { self.close == Some(false) }
    }

    fn host(&self, buf: &[u8]) -> Result<Span, HeadError> {
        let host = self.host.ok_or(HeadError::HostMissing)?;
        if self.hosts > 1 {
            return Err(HeadError::HostTwice);
        }
        let is_host_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        let value = host.get(buf);
        if value.is_empty() || !value.iter().all(is_host_byte) {
            return Err(HeadError::HostInvalid);
        }
        Ok(host)
    }
}

/// The comma-separated tokens of a field's value.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim).filter(|t| !t.is_empty())
}

/// A length where none was given before.
fn only(before: Option<u64>, value: &[u8]) -> Result<u64, HeadError> {
    if before.is_some() { Err(HeadError::LengthTwice) } else { decimal(value) }
}

fn decimal(value: &[u8]) -> Result<u64, HeadError> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::Length);
    }
    Ok(value.iter().fold(0, |n, d| n * 10 + u64::from(d - b'0')))
}

impl From<Fault> for HeadError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::Malformed,
            Fault::Version => Self::Version,
            Fault::Status => Self::Status,
            Fault::TooManyFields => Self::TooManyFields,
        }
    }
}

/// A first line and the fields after it.
struct Lines<L> {
    first: L,
    spans: Spans,
    /// Where the head ends.
    end: usize,
}

impl<L> Lines<L> {
    /// The lines of the head at the front of `buf`, once it is whole. `first` reads the first and says where it ends.
    fn whole(
        buf: &[u8],
        scan: &mut Scan,
        limits: &Limits,
        first: impl Fn(&[u8]) -> Result<(L, usize), Fault>,
    ) -> Result<Option<Self>, HeadError> {
        let read = |head: &[u8]| {
            let (first, end) = first(head)?;
            let (spans, end) = grammar::fields(head, end, limits.fields.min(MAX_FIELDS))?;
            Ok::<_, Fault>(Self { first, spans, end })
        };
        // Nearly every head comes in one piece, and reading it finds its end. Of one that does not, or that has a fault,
        // the end is looked for first: what is wrong with it is decided there.
        if scan.seen == 0
            && let Ok(lines) = read(&buf[..buf.len().min(limits.bytes)])
        {
            return Ok(Some(lines));
        }
        let Some(end) = scan.end(buf, limits)? else { return Ok(None) };
        Ok(Some(read(&buf[..end])?))
    }
}

/// A request's head: method, target, fields, and what they mean for the body and the connection.
#[derive(Debug, Clone)]
pub struct RequestHead {
    fields: Fields,
    method: Span,
    target: Span,
    host: Span,
    /// 0 or 1: the HTTP version is 1.x.
    pub minor: u8,
    /// What body follows.
    pub framing: Framing,
    /// Whether the client can be sent another answer on this connection.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

impl RequestHead {
    /// Takes a head off the front of `buf`; `scan` belongs to this head and is fresh for the next.
    pub fn take(buf: &mut BytesMut, scan: &mut Scan, limits: &Limits) -> Result<Option<Self>, HeadError> {
        let Some(lines) = Lines::whole(buf, scan, limits, RequestLine::read)? else { return Ok(None) };
        let head = Self::of(buf.split_to(lines.end).freeze(), lines)?;
        *scan = Scan::default();
        Ok(Some(head))
    }

    fn of(buf: Bytes, lines: Lines<RequestLine>) -> Result<Self, HeadError> {
        let RequestLine { method, target, is_path, minor } = lines.first;
        if !is_path || target.get(&buf).first() != Some(&b'/') {
            return Err(HeadError::Target);
        }
        let fields = Fields { buf, spans: lines.spans };
        let (meaning, good) = Meaning::of(&fields, minor);
        let host = meaning.host(&fields.buf)?;
        good?;
        let framing = meaning.framing().unwrap_or(Framing::None);
        let (keep_alive, expects_continue) = (meaning.keeps_alive(minor), meaning.expects_continue);
        Ok(Self { fields, method, target, host, minor, framing, keep_alive, expects_continue })
    }

    /// The method, for example `POST`.
    pub fn method(&self) -> &str {
        // It is asked for at every turn, and nearly always one of these.
        match self.method.get(&self.fields.buf) {
            b"POST" => "POST",
            b"GET" => "GET",
            other => text(other),
        }
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        text(self.target.get(&self.fields.buf))
    }

    /// The target before `?`.
    pub fn path(&self) -> &str {
        let target = self.target();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// Bytes of it, as it came.
    pub fn size(&self) -> usize {
        self.fields.buf.len()
    }

    /// The `Host` field, of which there is exactly one.
    pub fn host(&self) -> &str {
        text(self.host.get(&self.fields.buf))
    }

    /// All fields in their order.
    #[inline]
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.fields.iter()
    }

    /// The value of the first field of this name (lower case given).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// The values of all fields of this name (lower case given), in their order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.fields.named(name).map(|value| value.get(&self.fields.buf))
    }
}

/// ASCII was checked when the head was read.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    fields: Fields,
    reason: Span,
    /// 200..=999, never an interim answer.
    pub status: u16,
    /// What body follows.
    pub framing: Framing,
    /// Whether the connection can carry another request afterwards.
    pub keep_alive: bool,
}

impl ResponseHead {
    /// Takes the final head off the front of `buf`, dropping interim ones (100, 102, 103) before it. `to_head`: whether
    /// the request's method was HEAD, whose answers have no body whatever their fields say.
    pub fn take(
        buf: &mut BytesMut,
        scan: &mut Scan,
        limits: &Limits,
        to_head: bool,
    ) -> Result<Option<Self>, HeadError> {
        loop {
            let Some(lines) = Lines::whole(buf, scan, limits, StatusLine::read)? else { return Ok(None) };
            let parsed = Self::of(buf.split_to(lines.end).freeze(), lines, to_head)?;
            let interim = scan.interim + 1;
            *scan = Scan::default();
            if let Some(head) = parsed {
                return Ok(Some(head));
            }
            if interim > MAX_INTERIM {
                return Err(HeadError::TooManyInterim);
            }
            scan.interim = interim;
        }
    }

    fn of(buf: Bytes, lines: Lines<StatusLine>, to_head: bool) -> Result<Option<Self>, HeadError> {
        let StatusLine { minor, status, reason } = lines.first;
        match status {
            100 | 102..=199 => return Ok(None),
            200..=999 => {}
            _ => return Err(HeadError::Status),
        }
        let fields = Fields { buf, spans: lines.spans };
        let (meaning, good) = Meaning::of(&fields, minor);
        good?;
        let bodiless = to_head || status == 204 || status == 304;
        let framing = if bodiless { Framing::None } else { meaning.framing().unwrap_or(Framing::UntilClose) };
        let keep_alive = framing != Framing::UntilClose && meaning.keeps_alive(minor);
        Ok(Some(Self { fields, reason, status, framing, keep_alive }))
    }

    /// The reason phrase as it came, possibly empty.
    pub fn reason(&self) -> &[u8] {
        self.reason.get(&self.fields.buf)
    }

    /// All fields in their order.
    #[inline]
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> + Clone {
        self.fields.iter()
    }

    /// The value of the first field of this name (lower case given).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<Option<RequestHead>, HeadError> {
        RequestHead::take(&mut BytesMut::from(text), &mut Scan::default(), &Limits::default())
    }

    fn response(text: &str) -> Result<Option<ResponseHead>, HeadError> {
        ResponseHead::take(&mut BytesMut::from(text), &mut Scan::default(), &Limits::default(), false)
    }

    #[track_caller]
    fn refused(text: &str, want: HeadError) {
        assert_eq!(request(text).unwrap_err(), want, "{text:?}");
    }

    #[test]
    fn a_head_gives_its_parts() {
        let head =
            request("POST /v1/messages?beta=true HTTP/1.1\r\nHost: a:1\r\nX-A:  b \r\nContent-Length: 12\r\n\r\n");
        let head = head.unwrap().unwrap();
        assert_eq!((head.method(), head.target(), head.path()), ("POST", "/v1/messages?beta=true", "/v1/messages"));
        assert_eq!((head.host(), head.get("x-a")), ("a:1", Some(&b"b"[..])));
        assert_eq!((head.framing, head.keep_alive, head.minor), (Framing::Length(12), true, 1));
    }

    #[test]
    fn a_head_is_found_wherever_its_bytes_are_cut() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nrest";
        for cut in 0..text.len() {
            let (mut buf, mut scan) = (BytesMut::new(), Scan::default());
            buf.extend_from_slice(&text[..cut]);
            let first = RequestHead::take(&mut buf, &mut scan, &Limits::default()).unwrap();
            assert_eq!(first.is_some(), cut >= text.len() - 4, "cut at {cut}");
            if first.is_none() {
                buf.extend_from_slice(&text[cut..]);
                assert!(RequestHead::take(&mut buf, &mut scan, &Limits::default()).unwrap().is_some());
                assert_eq!(&buf[..], b"rest");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use HeadError::*;
        refused("GET / HTTP/1.1\r\n\r\n", HostMissing);
        refused("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", HostTwice);
        refused("GET / HTTP/1.1\r\nHost: a/b?c#d\r\n\r\n", HostInvalid);
        refused("GET / HTTP/1.1\r\nHost:\r\n\r\n", HostInvalid);
        refused("GET / HTTP/1.1\nHost: a\n\n", BareLf);
        refused("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", BareLf);
        refused(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthAndEncoding,
        );
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", LengthTwice);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Length);
        refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Encoding);
        refused("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", Encoding);
        refused(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Encoding,
        );
        refused("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Encoding);
        refused("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Target);
        refused("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Target);
        refused("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", Target);
        refused("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Target);
        refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Version);
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET /\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(request(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_head_without_an_end_is_refused_at_its_limit() {
        let limits = Limits { bytes: 100, fields: 4 };
        let take = |text: String| RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &limits);
        assert_eq!(take(format!("GET /{}", "a".repeat(200))).unwrap_err(), HeadError::TooLarge);
        let fields = "a: b\r\n".repeat(4);
        let many = take(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(many.unwrap_err(), HeadError::TooManyFields);
    }

    #[test]
    fn the_connection_outlives_the_message_only_where_both_sides_know_it() {
        let keeps = |text: &str| request(text).unwrap().unwrap().keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn a_response_skips_interim_heads() {
        let head = response("HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let head = head.unwrap().unwrap();
        assert_eq!((head.status, head.reason(), head.framing), (200, &b"OK"[..], Framing::Length(2)));
        assert!(response("HTTP/1.1 101 Switching\r\n\r\n").is_err());
        assert!(response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n").is_err());
    }

    #[test]
    fn interim_heads_are_counted_also_over_several_reads() {
        let (mut buf, mut scan) = (BytesMut::new(), Scan::default());
        let mut take = |text: &str| {
            buf.extend_from_slice(text.as_bytes());
            ResponseHead::take(&mut buf, &mut scan, &Limits::default(), false)
        };
        for _ in 0..MAX_INTERIM {
            assert!(take("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n").unwrap().is_none());
        }
        assert_eq!(take("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n").unwrap_err(), HeadError::TooManyInterim);
        let last = format!("{}HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 100 Go\r\n\r\n".repeat(usize::from(MAX_INTERIM)));
        assert_eq!(response(&last).unwrap().unwrap().status, 200);
    }

    #[test]
    fn a_response_without_a_length_ends_with_its_connection() {
        let head = response("HTTP/1.1 200\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.framing, head.keep_alive, head.reason()), (Framing::UntilClose, false, &b""[..]));
        let none = response("HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((none.framing, none.keep_alive), (Framing::None, true));
    }

    #[test]
    fn a_head_does_not_print_its_values() {
        let head = request("GET / HTTP/1.1\r\nHost: a\r\nx-api-key: sk-secret\r\n\r\n").unwrap().unwrap();
        let printed = format!("{head:?}");
        assert!(printed.contains("x-api-key") && !printed.contains("sk-secret"), "{printed}");
    }
}
