//! The splitter finds what a reader finds that looks at all lines of the whole stream, wherever the stream is cut, and
//! keeps no more than it may.

use wire::sse::Splitter;

use crate::cuts;

/// Name and data of one event.
type Event = (Option<Vec<u8>>, Option<Vec<u8>>);

/// Panics where the splitter is wrong about `stream`.
pub(crate) fn check(stream: &[u8]) {
    let (want, border, rest) = by_lines(stream);
    cuts::each_way(stream, |pieces| {
        let (mut splitter, mut got) = (Splitter::new(stream.len()), Vec::new());
        let (mut before, mut last) = (0, 0);
        for piece in pieces {
            let found = splitter.push(piece, |event| {
                assert!(!event.is_cut());
                got.push((event.name().map(<[u8]>::to_vec), event.data().map(|data| data.into_owned())));
            });
            if let Some(at) = found {
                assert!(at <= piece.len());
                last = before + at;
            }
            before += piece.len();
        }
        for (n, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!(got == want, "event {n} is {}, not {}, in {pieces:?}", show(got), show(want));
        }
        assert_eq!(got.len(), want.len());
        assert_eq!((last, splitter.at_border()), (border, !rest));
        if splitter.at_border() {
            assert_eq!(splitter.kept(), 0);
        }
    });
    for cap in [0, 16] {
        check_cap(stream, cap, &want);
    }
}

fn show((name, data): &Event) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{:?}: {:?}", text(name), text(data))
}

/// However little is kept, events are as many, and one that says it is whole is.
fn check_cap(stream: &[u8], cap: usize, want: &[Event]) {
    cuts::each_way(stream, |pieces| {
        let (mut splitter, mut seen) = (Splitter::new(cap), 0);
        for piece in pieces {
            splitter.push(piece, |event| {
                assert!(seen < want.len());
                if event.is_cut() {
                    assert!(event.bytes().len() <= cap);
                } else {
                    assert_eq!(event.name(), want[seen].0.as_deref());
                    assert_eq!(event.data().as_deref(), want[seen].1.as_deref());
                }
                seen += 1;
            });
            assert!(splitter.kept() <= cap);
        }
        assert_eq!(seen, want.len());
    });
}

/// The plain way: all lines, one after the other. Events, the offset of the last border, whether something follows it.
fn by_lines(stream: &[u8]) -> (Vec<Event>, usize, bool) {
    let (mut events, mut border) = (Vec::new(), 0);
    let (mut name, mut data, mut any): (Option<Vec<u8>>, Option<Vec<u8>>, bool) = (None, None, false);
    let mut at = 0;
    loop {
        let Some(len) = stream[at..].iter().position(|b| matches!(b, b'\r' | b'\n')) else {
            return (events, border, any || at < stream.len());
        };
        let line = &stream[at..at + len];
        let is_first = at == 0;
        at += len + if stream[at + len..].starts_with(b"\r\n") { 2 } else { 1 };
        if line.is_empty() {
            if std::mem::take(&mut any) {
                events.push((name.take(), data.take()));
            }
            border = at;
            continue;
        }
        any = true;
        // A byte order mark may begin the stream, and only the stream.
        let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => name = Some(value.to_vec()),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
}
