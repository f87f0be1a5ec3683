//! Incremental splitter of server-sent events (WHATWG HTML §9.2), indifferent to where the stream is cut.
//!
//! It looks at bytes that are on their way and copies only what one read left unfinished. Line ends are LF, CRLF and CR,
//! and nothing else (U+2028 is text).

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One event as it came: every byte from after the previous event's border to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent<'a> {
    bytes: &'a [u8],
    cut: bool,
    /// Whether the stream begins with it.
    first: bool,
    lines: usize,
}

/// A line's field name and value (one space after the colon removed); comments and blank lines are skipped.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            // A CRLF leaves an empty line behind, which is skipped like any other.
            rest = rest.get(end + 1..).unwrap_or_default();
            match memchr(b':', line) {
                Some(0) => continue,
                Some(colon) => {
                    let value = &line[colon + 1..];
                    return Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)));
                }
                None if line.is_empty() => continue,
                None => return Some((line, &b""[..])),
            }
        }
        None
    })
}

/// Where the line ends. Every event has an empty one, for which no search has to begin.
#[inline]
fn line_end(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'\n' | b'\r' => Some(0),
        _ => memchr2(b'\n', b'\r', rest),
    }
}

impl<'a> RawEvent<'a> {
    /// Whether the event was too long to be kept: its name can be asked for, its data is incomplete.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The bytes, with line ends and comments; only the first part of them where the event [is cut](Self::is_cut).
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        // A byte order mark may begin a stream; anywhere else it is part of a field's name.
        let mark: &[u8] = if self.first { b"\xef\xbb\xbf" } else { b"" };
        fields(self.bytes.strip_prefix(mark).unwrap_or(self.bytes))
    }

    /// The value of the last `event:` line.
    pub fn name(&self) -> Option<&'a [u8]> {
        // Nearly every event of every provider is a line with its name and a line of data.
        if let (Some(rest), ..=2) = (self.bytes.strip_prefix(b"event: "), self.lines) {
            let end = memchr2(b'\n', b'\r', rest)?;
            if !rest[end..].trim_ascii_start().starts_with(b"event") {
                return Some(&rest[..end]);
            }
        }
        self.fields().filter(|(name, _)| *name == b"event").last().map(|(_, value)| value)
    }

    /// The `data:` lines, joined by LF; `None` where there are none, in which case the event is never dispatched.
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        let mut lines = self.fields().filter(|(name, _)| *name == b"data").map(|(_, value)| value);
        let first = lines.next()?;
        let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = [first, second].join(&b'\n');
        for line in lines {
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Some(Cow::Owned(joined))
    }
}

/// Finds the events in a stream that arrives in pieces.
#[derive(Debug, Clone)]
pub struct Splitter {
    /// The unfinished event's bytes from earlier pieces, at most `cap`.
    carry: Vec<u8>,
    cap: usize,
    /// Whether `carry` lacks bytes of the unfinished event.
    cut: bool,
    /// Whether the current line has bytes in an earlier piece.
    in_line: bool,
    /// Lines that the unfinished event has already.
    lines: usize,
    /// Whether the last byte was a CR that ended a line: an LF right after it belongs to it.
    after_cr: bool,
    /// Whether no border has been seen yet.
    first: bool,
}

impl Splitter {
    /// A splitter that keeps at most `cap` bytes of an event that arrives in several pieces.
    pub fn new(cap: usize) -> Self {
        Self { carry: Vec::new(), cap, cut: false, in_line: false, lines: 0, after_cr: false, first: true }
    }

    /// Looks at the next piece; hands each event that ends in it to `each`. Returns the offset after the last event
    /// border in this piece: up to there, everything that was ever pushed is whole events.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(RawEvent<'_>)) -> Option<usize> {
        if piece.is_empty() {
            return None;
        }
        let (mut start, mut at, mut border) = (0, 0, None);
        if std::mem::take(&mut self.after_cr) && piece.first() == Some(&b'\n') {
            at = 1;
            if self.lines == 0 {
                // The second half of the border itself.
                (start, border) = (1, Some(1));
            }
        }
        while let Some(found) = line_end(&piece[at..]) {
            let end = at + found;
            let blank = found == 0 && !self.in_line;
            let mut next = end + 1;
            if piece[end] == b'\r' {
                match piece.get(next) {
                    Some(b'\n') => next += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if blank {
                if self.lines > 0 {
                    self.emit(&piece[start..next], &mut each);
                }
                self.first = false;
                border = Some(next);
                start = next;
            }
            self.lines = if blank { 0 } else { self.lines + 1 };
            self.in_line = false;
            at = next;
        }
        self.in_line |= at < piece.len();
        if start < piece.len() {
            self.keep(&piece[start..]);
        }
        border
    }

    /// Whether everything that was pushed is whole events.
    pub fn at_border(&self) -> bool {
        self.lines == 0 && !self.in_line
    }

    /// Bytes kept of the unfinished event: at most what [`new`](Self::new) allows.
    pub fn kept(&self) -> usize {
        self.carry.len()
    }

    fn keep(&mut self, part: &[u8]) {
        let room = self.cap - self.carry.len();
        self.cut |= part.len() > room;
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn emit(&mut self, last: &[u8], each: &mut impl FnMut(RawEvent<'_>)) {
        if self.carry.is_empty() && !self.cut {
            each(RawEvent { bytes: last, cut: false, first: self.first, lines: self.lines });
            return;
        }
        self.keep(last);
        each(RawEvent { bytes: &self.carry, cut: std::mem::take(&mut self.cut), first: self.first, lines: self.lines });
        self.carry.clear();
        // Idle streams are many: a buffer that one large event needed is not kept for the next hour.
        self.carry.shrink_to(4096);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parsed = Vec<(Option<Vec<u8>>, Option<Vec<u8>>)>;

    /// The events, and the offset in the whole stream after each border that `push` reported.
    fn split(pieces: &[&[u8]]) -> (Parsed, Option<usize>, bool) {
        let (mut splitter, mut events, mut border, mut before) = (Splitter::new(1 << 20), vec![], None, 0);
        for piece in pieces {
            let found = splitter.push(piece, |event| {
                assert!(!event.is_cut());
                events.push((event.name().map(<[u8]>::to_vec), event.data().map(Cow::into_owned)));
            });
            border = found.map(|at| before + at).or(border);
            before += piece.len();
        }
        (events, border, splitter.at_border())
    }

    #[track_caller]
    fn check(stream: &[u8], want: &[(Option<&str>, Option<&str>)]) {
        let owned = |text: &Option<&str>| text.map(|t| t.as_bytes().to_vec());
        let want: Parsed = want.iter().map(|(name, data)| (owned(name), owned(data))).collect();
        assert_eq!(split(&[stream]).0, want);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(split(&bytes).0, want, "byte by byte");
        for at in 0..stream.len() {
            let (a, b) = stream.split_at(at);
            assert_eq!(split(&[a, b]).0, want, "cut at byte {at}");
        }
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_is_cut() {
        check(b"event: a\ndata: 1\n\nevent: b\ndata: 2\n\n", &[(Some("a"), Some("1")), (Some("b"), Some("2"))]);
        check(b"event: a\r\ndata: 1\r\n\r\ndata: 2\r\n\r\n", &[(Some("a"), Some("1")), (None, Some("2"))]);
        check(b"event: a\rdata: 1\r\rdata: 2\r\r", &[(Some("a"), Some("1")), (None, Some("2"))]);
        check(b"data:x\nevent:a\n: note\nretry: 5\nid\ndata:y\n\n\n\n", &[(Some("a"), Some("x\ny"))]);
        check(b": only a comment\n\n", &[(None, None)]);
        check("data: \u{2028}\u{85}\n\n".as_bytes(), &[(None, Some("\u{2028}\u{85}"))]);
        check(b"\xef\xbb\xbfdata: x\n\n", &[(None, Some("x"))]);
        check(b"event: a\nevent: b\ndata\n\n", &[(Some("b"), Some(""))]);
    }

    #[test]
    fn an_unfinished_event_is_not_dispatched() {
        check(b"data: x\n\ndata: half", &[(None, Some("x"))]);
        check(b"data: x\n\ndata: half\n", &[(None, Some("x"))]);
    }

    #[test]
    fn a_border_is_where_whole_events_end() {
        for (stream, want) in [
            (&b"data: x\n\ndata: y"[..], Some(9)),
            (b"data: x\n", None),
            (b"\n\n", Some(2)),
            (b"data: x\r\n\r\nd", Some(11)),
            (b"data: x\r\n\r", Some(10)),
            (b"data: x\r\n\r\n", Some(11)),
        ] {
            assert_eq!(split(&[stream]).1, want, "{:?}", String::from_utf8_lossy(stream));
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(split(&bytes).1, want, "{:?} byte by byte", String::from_utf8_lossy(stream));
        }
        assert!(split(&[b"data: x\n\n"]).2 && !split(&[b"data: x\n\nd"]).2 && !split(&[b"data: x\n"]).2);
    }

    #[test]
    fn an_empty_piece_does_not_part_cr_and_lf() {
        for stream in [[&b"event: a\r"[..], b"", b"\ndata: x\r\n\r\n"], [b"event: a\r\ndata: x\r\n\r", b"", b"\n"]] {
            assert_eq!(split(&stream), split(&[&stream.concat()]));
        }
    }

    #[test]
    fn the_last_name_counts_wherever_it_stands() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = |lines: &[&str]| (lines.join(end) + end + end).into_bytes();
            check(&stream(&["event: a", "data: 1", "event: b"]), &[(Some("b"), Some("1"))]);
            check(&stream(&["event: a", "event: b"]), &[(Some("b"), None)]);
            check(&stream(&["event: a", "eventful: b"]), &[(Some("a"), None)]);
        }
    }

    #[test]
    fn a_byte_order_mark_is_one_only_where_the_stream_begins() {
        let bom = "\u{feff}";
        check(format!("{bom}data: x\n\ndata: y\n{bom}data: z\n\n").as_bytes(), &[(None, Some("x")), (None, Some("y"))]);
        check(format!("data: x\n\n{bom}event: message_stop\n\n").as_bytes(), &[(None, Some("x")), (None, None)]);
        check(format!("\n{bom}data: x\n\n").as_bytes(), &[(None, None)]);
    }

    #[test]
    fn an_event_over_the_cap_keeps_its_name_and_says_that_it_is_cut() {
        let mut splitter = Splitter::new(16);
        let mut seen = vec![];
        for piece in [&b"event: a\ndata: "[..], &[b'x'; 100], b"\n\nevent: b\ndata: y\n\n"] {
            splitter.push(piece, |e| seen.push((e.name().map(<[u8]>::to_vec), e.is_cut())));
        }
        assert_eq!(seen, [(Some(b"a".to_vec()), true), (Some(b"b".to_vec()), false)]);
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_events(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), any::<u8>()], 0..120),
            cuts in proptest::collection::vec(0usize..120, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.sort_unstable();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts { pieces.push(&stream[from..cut]); from = cut; }
            pieces.push(&stream[from..]);
            prop_assert_eq!(split(&pieces), split(&[&stream]));
        }
    }
}
