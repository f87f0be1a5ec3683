//! The grammar of a head (RFC 9112): where method, target, names and values lie. Each byte is looked at once.

/// Fields that there is room for at once; most heads have fewer.
const USUAL: usize = 32;

/// Where a text lies in the head's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// Of no text.
    pub(crate) const EMPTY: Self = Self { start: 0, end: 0 };

    #[inline]
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }

    #[inline]
    pub(crate) fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..self.end as usize]
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The names and values of fields.
pub(crate) type Spans = Vec<(Span, Span)>;

/// Why it is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Something else than the grammar has, or less than all of it.
    Malformed,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// A status line without a status, or with bytes that no reason has.
    Status,
    /// More fields than there may be.
    TooManyFields,
}

/// What names and methods are made of.
const TOKEN: u8 = 1;
/// What a path with its query is made of.
const PATH: u8 = 2;
/// What any target is made of.
const TARGET: u8 = 4;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        let is_token = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        if is_token {
            classes[b] |= TOKEN;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\') {
            classes[b] |= PATH;
        }
        if byte.is_ascii_graphic() || !byte.is_ascii() {
            classes[b] |= TARGET;
        }
        b += 1;
    }
    classes
};

fn is_of(class: u8, byte: u8) -> bool {
    CLASSES[usize::from(byte)] & class != 0
}

/// Where the bytes of this class end that begin at `at`.
fn end_of(class: u8, head: &[u8], at: usize) -> usize {
    at + head[at..].iter().take_while(|byte| is_of(class, **byte)).count()
}

/// In every byte of a number.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Where the bytes end that begin at `at` and of which `is` holds. Eight at a time: `odd` sets the highest bit of each byte
/// that has to be looked at by itself; above the first of them it may set more.
#[inline]
fn end_by(head: &[u8], mut at: usize, odd: impl Fn(u64) -> u64, is: impl Fn(u8) -> bool) -> usize {
    while let Some(eight) = head.get(at..).and_then(<[u8]>::first_chunk) {
        let odd = odd(u64::from_le_bytes(*eight)) & each(0x80);
        if odd == 0 {
            at += 8;
            continue;
        }
        at += odd.trailing_zeros() as usize / 8;
        if !is(head[at]) {
            return at;
        }
        at += 1;
    }
    while head.get(at).is_some_and(|byte| is(*byte)) {
        at += 1;
    }
    at
}

/// Where a name ends. Nearly all are of letters and hyphens.
fn end_of_name(head: &[u8], at: usize) -> usize {
    let odd = |eight: u64| {
        let lower = (eight | each(0x20)) & each(0x7f);
        let is_letter = (lower + each(0x80 - b'a')) & !(lower + each(0x7f - b'z'));
        let is_hyphen = !(((eight ^ each(b'-')) & each(0x7f)) + each(0x7f));
        !(is_letter | is_hyphen) | eight
    };
    end_by(head, at, odd, |byte| is_of(TOKEN, byte))
}

/// Where a path with its query ends.
fn end_of_path(head: &[u8], at: usize) -> usize {
    let zeros = |eight: u64| eight.wrapping_sub(each(1)) & !eight;
    let odd = |eight: u64| {
        let is_low = eight.wrapping_sub(each(b'!')) & !eight;
        is_low | zeros(eight ^ each(0x7f)) | zeros(eight ^ each(b'#')) | zeros(eight ^ each(b'\\')) | eight
    };
    end_by(head, at, odd, |byte| is_of(PATH, byte))
}

/// Where a value or a reason ends: at the first control character that is no tab.
fn end_of_text(head: &[u8], at: usize) -> usize {
    let odd = |eight: u64| {
        let is_delete = eight ^ each(0x7f);
        eight.wrapping_sub(each(b' ')) & !eight | is_delete.wrapping_sub(each(1)) & !is_delete
    };
    end_by(head, at, odd, |byte| byte == b'\t' || !byte.is_ascii_control())
}

/// Behind this text, if it stands there.
#[inline]
fn behind(text: &[u8], head: &[u8], at: usize) -> Option<usize> {
    head.get(at..).is_some_and(|rest| rest.starts_with(text)).then_some(at + text.len())
}

fn version(head: &[u8], at: usize) -> Result<(u8, usize), Fault> {
    let digit = behind(b"HTTP/1.", head, at).ok_or(Fault::Version)?;
    match head.get(digit) {
        Some(b'0') => Ok((0, digit + 1)),
        Some(b'1') => Ok((1, digit + 1)),
        _ => Err(Fault::Version),
    }
}

/// The first line of a request.
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    /// Whether the target has only bytes of a path. It is text in any case.
    pub(crate) is_path: bool,
    pub(crate) minor: u8,
}

impl RequestLine {
    /// The first line of `head`, and where the next begins.
    pub(crate) fn read(head: &[u8]) -> Result<(Self, usize), Fault> {
        let method = end_of(TOKEN, head, 0);
        let start = behind(b" ", head, method).filter(|_| method > 0).ok_or(Fault::Malformed)?;
        let path = end_of_path(head, start);
        let target = end_of(TARGET, head, path);
        let after = behind(b" ", head, target).filter(|_| target > start).ok_or(Fault::Malformed)?;
        let is_path = path == target;
        if !is_path && std::str::from_utf8(&head[start..target]).is_err() {
            return Err(Fault::Malformed);
        }
        let (minor, at) = version(head, after)?;
        let end = behind(b"\r\n", head, at).ok_or(Fault::Malformed)?;
        Ok((Self { method: Span::new(0, method), target: Span::new(start, target), is_path, minor }, end))
    }
}

/// The first line of a response.
pub(crate) struct StatusLine {
    pub(crate) minor: u8,
    /// Three digits.
    pub(crate) status: u16,
    /// Empty where it is not ASCII.
    pub(crate) reason: Span,
}

impl StatusLine {
    /// The first line of `head`, and where the next begins.
    pub(crate) fn read(head: &[u8]) -> Result<(Self, usize), Fault> {
        // A line end before the line is no other version: it is no head.
        if head.first() == Some(&b'\r') {
            return Err(Fault::Malformed);
        }
        let (minor, at) = version(head, 0)?;
        let at = behind(b" ", head, at).ok_or(Fault::Version)?;
        let digits = head.get(at..).and_then(<[u8]>::first_chunk::<3>).ok_or(Fault::Status)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(Fault::Status);
        }
        let status = digits.iter().fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
        let start = behind(b" ", head, at + 3);
        let reason = start.map_or(Span::new(at + 3, at + 3), |start| Span::new(start, end_of_text(head, start)));
        let end = behind(b"\r\n", head, reason.end as usize).ok_or(Fault::Status)?;
        let reason = if reason.get(head).is_ascii() { reason } else { Span::EMPTY };
        Ok((Self { minor, status, reason }, end))
    }
}

/// The fields whose first line begins at `at`, at most `most` of them, and where the head ends: behind the empty line.
pub(crate) fn fields(head: &[u8], mut at: usize, most: usize) -> Result<(Spans, usize), Fault> {
    let mut spans = Spans::with_capacity(USUAL.min(most));
    loop {
        let colon = end_of_name(head, at);
        if colon == at {
            let end = behind(b"\r\n", head, at).ok_or(Fault::Malformed)?;
            return Ok((spans, end));
        }
        let mut start = behind(b":", head, colon).ok_or(Fault::Malformed)?;
        while matches!(head.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let line_end = end_of_text(head, start);
        let next = behind(b"\r\n", head, line_end).ok_or(Fault::Malformed)?;
        if spans.len() == most {
            return Err(Fault::TooManyFields);
        }
        let mut end = line_end;
        while end > start && matches!(head[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        spans.push((Span::new(at, colon), Span::new(start, end)));
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a parser finds: texts of the first line, number of the version, names and values.
    type Found = (Vec<Vec<u8>>, u8, Vec<(Vec<u8>, Vec<u8>)>);

    const MOST: usize = 4;

    fn found(head: &[u8], first: &[Span], minor: u8, end: usize) -> Result<Found, Fault> {
        let (spans, end) = fields(head, end, MOST)?;
        assert_eq!(end, head.len());
        let text = |span: &Span| span.get(head).to_vec();
        let named = spans.iter().map(|(name, value)| (text(name), text(value))).collect();
        Ok((first.iter().map(text).collect(), minor, named))
    }

    fn request(head: &[u8]) -> Result<Found, Fault> {
        let (line, end) = RequestLine::read(head)?;
        found(head, &[line.method, line.target], line.minor, end)
    }

    fn response(head: &[u8]) -> Result<Found, Fault> {
        let (line, end) = StatusLine::read(head)?;
        let (mut start, minor, fields) = found(head, &[line.reason], line.minor, end)?;
        start.push(line.status.to_string().into_bytes());
        Ok((start, minor, fields))
    }

    /// The same by a parser that many use.
    mod other {
        use httparse::{EMPTY_HEADER, Error, Header, Request, Response, Status};

        use super::*;

        fn named(headers: &[Header<'_>]) -> Vec<(Vec<u8>, Vec<u8>)> {
            headers.iter().map(|h| (h.name.as_bytes().to_vec(), h.value.trim_ascii().to_vec())).collect()
        }

        fn fault(error: Error) -> Fault {
            match error {
                Error::TooManyHeaders => Fault::TooManyFields,
                Error::Version => Fault::Version,
                Error::Status => Fault::Status,
                _ => Fault::Malformed,
            }
        }

        pub(super) fn request(head: &[u8]) -> Result<Found, Fault> {
            let mut headers = [EMPTY_HEADER; MOST];
            let mut request = Request::new(&mut headers);
            let Status::Complete(_) = request.parse(head).map_err(fault)? else { return Err(Fault::Malformed) };
            let texts = [request.method, request.path].map(|text| text.unwrap().as_bytes().to_vec());
            Ok((texts.to_vec(), request.version.unwrap(), named(request.headers)))
        }

        pub(super) fn response(head: &[u8]) -> Result<Found, Fault> {
            let mut headers = [EMPTY_HEADER; MOST];
            let mut response = Response::new(&mut headers);
            let Status::Complete(_) = response.parse(head).map_err(fault)? else { return Err(Fault::Malformed) };
            let status = response.code.unwrap().to_string();
            let texts = vec![response.reason.unwrap().as_bytes().to_vec(), status.into_bytes()];
            Ok((texts, response.version.unwrap(), named(response.headers)))
        }
    }

    /// Bytes with which a head can be spoilt: those that mean something in it, those at the edges of a class, and any.
    fn byte() -> impl Strategy<Value = u8> {
        let edges = b" \t:\0\x08\x0b\x1f!#/09@AZ[\\`az{~\x7f\x80\xff\xc3\xbc".to_vec();
        prop_oneof![4 => proptest::sample::select(edges), 1 => any::<u8>()]
    }

    /// The head with some of its bytes replaced, or bytes put in, but with the line ends of one: what looks for the end
    /// of a head lets no other through.
    fn spoilt(head: &str, changes: &[(prop::sample::Index, u8, bool)]) -> Vec<u8> {
        let mut bytes = head.as_bytes().to_vec();
        for (at, byte, replace) in changes {
            let at = at.index(bytes.len());
            if *byte == b'\n' || *replace && bytes[at] == b'\n' {
                continue;
            }
            if *replace && !(bytes[at] == b'\r' && bytes[at + 1] == b'\n') {
                bytes[at] = *byte;
            } else if at == 0 || bytes[at - 1] != b'\r' {
                bytes.insert(at, *byte);
            }
        }
        bytes
    }

    fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, bool)>> {
        proptest::collection::vec((any::<prop::sample::Index>(), byte(), any::<bool>()), 0..4)
    }

    fn lines() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "[A-Za-z-]{1,20}: ?[ -~\u{80}-\u{ff}]{0,40}\r\n",
            "[!-9;-~]{1,12}:[ \t]{0,3}[\t -~]{0,20}[ \t]{0,3}\r\n",
        ];
        proptest::collection::vec(line, 0..6).prop_map(|lines| lines.concat() + "\r\n")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_request_is_what_another_strict_parser_takes_it_for(
            start in "[A-Z]{0,5} [/!-~\u{80}-\u{ff}]{0,20} HTTP/1\\.[012] ?\r\n", lines in lines(), changes in changes(),
        ) {
            let head = spoilt(&(start + &lines), &changes);
            prop_assert_eq!(request(&head), other::request(&head), "{:?}", String::from_utf8_lossy(&head));
        }

        #[test]
        fn a_response_is_what_another_strict_parser_takes_it_for(
            start in "HTTP/1\\.[012] [0-9]{2,4} ?[\t -~]{0,20}\u{e9}?\r\n", lines in lines(), changes in changes(),
        ) {
            let head = spoilt(&(start + &lines), &changes);
            prop_assert_eq!(response(&head), other::response(&head), "{:?}", String::from_utf8_lossy(&head));
        }
    }
}
