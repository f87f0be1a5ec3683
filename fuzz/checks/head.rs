//! A head is the same wherever its bytes are cut, has one meaning, and reads the same after it was written again.

use bytes::{BufMut, BytesMut};
use http1::{Field, Framing, HeadError, Limits, RequestHead, ResponseHead, Scan, write};

use crate::cuts;

const ALL_LIMITS: [Limits; 2] = [Limits { bytes: 64 * 1024, fields: 128 }, Limits { bytes: 100, fields: 4 }];

/// What is compared between two readings.
#[derive(Debug, PartialEq)]
struct Read {
    start: Vec<Vec<u8>>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    framing: Framing,
    keep_alive: bool,
    /// What follows the head.
    rest: usize,
}

fn owned<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.map(|f| (f.name.to_vec(), f.value.to_vec())).collect()
}

/// Feeds the pieces until there is a head or a fault, and appends what is left.
fn feed<H>(
    pieces: &[&[u8]],
    mut take: impl FnMut(&mut BytesMut, &mut Scan) -> Result<Option<H>, HeadError>,
) -> Result<Option<(H, usize)>, HeadError> {
    let (mut buf, mut scan) = (BytesMut::new(), Scan::default());
    let mut left: usize = pieces.iter().map(|piece| piece.len()).sum();
    for piece in pieces {
        buf.extend_from_slice(piece);
        left -= piece.len();
        if let Some(head) = take(&mut buf, &mut scan)? {
            return Ok(Some((head, buf.len() + left)));
        }
    }
    Ok(None)
}

/// Which fault it is may depend on how much was there when it was found; whether it is one may not.
#[track_caller]
fn same(a: &Result<Option<Read>, HeadError>, b: &Result<Option<Read>, HeadError>) {
    match (a, b) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(_), Err(_)) => {}
        _ => panic!("{a:?} and {b:?}"),
    }
}

/// Panics where reading `bytes` as a request is wrong.
pub(crate) fn check_request(bytes: &[u8]) {
    for limits in ALL_LIMITS {
        let read = |pieces: &[&[u8]]| {
            let head = feed(pieces, |buf, scan| RequestHead::take(buf, scan, &limits))?;
            Ok(head.map(|(head, rest)| {
                assert!(!head.method().is_empty() && head.target().starts_with('/'));
                assert_eq!(head.fields().filter(|f| f.is("host")).count(), 1);
                assert_eq!(head.get("host"), Some(head.host().as_bytes()));
                assert!(head.fields().count() <= limits.fields && bytes.len() - rest <= limits.bytes);
                assert!(head.framing != Framing::UntilClose);
                one_meaning(head.fields(), head.framing);
                Read {
                    start: vec![head.method().into(), head.target().into()],
                    fields: owned(head.fields()),
                    framing: head.framing,
                    // Written again it says 1.1, where the default is the other one.
                    keep_alive: head.keep_alive || head.minor == 0,
                    rest,
                }
            }))
        };
        let whole = read(&[bytes]);
        cuts::each_way(bytes, |pieces| same(&read(pieces), &whole));
        if let (Ok(Some(whole)), true) = (whole, limits.fields > 4) {
            let mut out = BytesMut::new();
            let text = |n: usize| std::str::from_utf8(&whole.start[n]).expect("method and target are text");
            write::request_line(&mut out, text(0), text(1));
            let again = read(&[&finish(out, &whole)]).expect("what was accepted is accepted again");
            let again = again.expect("a whole head");
            assert_eq!((again.start, again.fields, again.framing), (whole.start, whole.fields, whole.framing));
        }
    }
}

/// Panics where reading `bytes` as a response is wrong. The first byte decides whether it answers HEAD.
pub(crate) fn check_response(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let to_head = first % 2 == 1;
    for limits in ALL_LIMITS {
        let read = |pieces: &[&[u8]]| {
            let head = feed(pieces, |buf, scan| ResponseHead::take(buf, scan, &limits, to_head))?;
            Ok(head.map(|(head, rest)| {
                assert!((200..=999).contains(&head.status));
                assert!(head.fields().count() <= limits.fields);
                assert!(!(head.keep_alive && head.framing == Framing::UntilClose));
                if to_head || head.status == 204 || head.status == 304 {
                    assert_eq!(head.framing, Framing::None);
                } else {
                    one_meaning(head.fields(), head.framing);
                }
                Read {
                    start: vec![head.status.to_string().into(), head.reason().to_vec()],
                    fields: owned(head.fields()),
                    framing: head.framing,
                    keep_alive: head.keep_alive,
                    rest,
                }
            }))
        };
        let whole = read(&[bytes]);
        cuts::each_way(bytes, |pieces| same(&read(pieces), &whole));
        if let (Ok(Some(whole)), true) = (whole, limits.fields > 4) {
            let mut out = BytesMut::new();
            let status = std::str::from_utf8(&whole.start[0]).expect("digits").parse().expect("a number");
            write::status_line(&mut out, status, &whole.start[1]);
            let again = read(&[&finish(out, &whole)]).expect("what was accepted is accepted again");
            let again = again.expect("a whole head");
            assert_eq!((again.start, again.fields, again.framing), (whole.start, whole.fields, whole.framing));
        }
    }
}

fn finish(mut out: BytesMut, head: &Read) -> BytesMut {
    for (name, value) in &head.fields {
        write::field(&mut out, name, value);
    }
    out.put_slice(b"\r\n");
    out
}

/// No second reader can find another end of the body, or another field.
fn one_meaning<'a>(fields: impl Iterator<Item = Field<'a>>, framing: Framing) {
    let (mut lengths, mut encodings) = (Vec::new(), Vec::new());
    for field in fields {
        assert!(!field.name.is_empty() && field.name.iter().all(|b| b.is_ascii_graphic() && *b != b':'));
        assert!(!field.value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        if field.is("content-length") {
            lengths.push(field.value.to_vec());
        }
        if field.is("transfer-encoding") {
            encodings.push(field.value.to_ascii_lowercase());
        }
    }
    match framing {
        Framing::None | Framing::UntilClose => assert!(lengths.is_empty() && encodings.is_empty()),
        Framing::Length(n) => {
            assert!(lengths.len() == 1 && encodings.is_empty());
            assert_eq!(std::str::from_utf8(&lengths[0]).expect("digits").parse(), Ok(n));
        }
        Framing::Chunked => assert!(lengths.is_empty() && encodings == [b"chunked"]),
    }
}
