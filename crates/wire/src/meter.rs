//! A cheap fold over the events of a streamed answer: what has begun, what has ended and how, and what was used.
//!
//! It parses only what can carry news, and can never fail: an event that it cannot read is counted, and what that event
//! could have said is unknown from then on.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memmem};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::anthropic::usage::{report, text};
use crate::sse::RawEvent;
use crate::usage::{MODEL, Report, Usage, bounded};

/// Bytes that are kept of an id, a stop reason or an error's type.
const WORD: usize = 128;
/// Bytes that are kept of an error's message.
const MESSAGE: usize = 1024;

/// How far a streamed answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Progress {
    /// Nothing but comments and pings so far.
    #[default]
    Nothing,
    /// The first event of content has been seen.
    Begun,
    /// The event that ends every whole answer has been seen.
    Ended,
    /// The upstream said, inside the stream, that it failed.
    Failed,
}

/// What is known about the usage of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counts {
    /// Reported, and read.
    Known(Usage),
    /// Not reported, or not readable. This is not zero.
    Unknown,
}

impl Counts {
    /// The usage, if it is known.
    pub fn known(&self) -> Option<&Usage> {
        match self {
            Self::Known(usage) => Some(usage),
            Self::Unknown => None,
        }
    }
}

/// What an upstream said went wrong, in an answer that had begun well. Bounded; these are the upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamError {
    /// Its type, empty where it has none that can be read.
    pub kind: Box<str>,
    /// Its message.
    pub message: Box<str>,
}

/// What an answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metered {
    /// How far it came.
    pub progress: Progress,
    /// The model that the upstream names.
    pub model: Option<Box<str>>,
    /// The upstream's id of the message.
    pub message_id: Option<Box<str>>,
    /// Why it stopped, in the upstream's word.
    pub stop_reason: Option<Box<str>>,
    /// What it used.
    pub usage: Counts,
    /// Whether these are the closing counts. If not, the output that they name is only that of the beginning.
    pub is_final: bool,
    /// Bytes of text, thinking and tool input that were seen.
    pub text_bytes: u64,
    /// The error that ended it.
    pub error: Option<StreamError>,
    /// Events that should have been readable and were not.
    pub unreadable: u32,
}

impl Metered {
    /// Output tokens as far as the text shows them, at four bytes each; `None` where the closing counts are known.
    pub fn estimated_output(&self) -> Option<u64> {
        (!self.is_final).then(|| self.text_bytes.div_ceil(4))
    }
}

/// Follows one stream of the Anthropic Messages protocol.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    progress: Progress,
    has_content: bool,
    model: Option<Box<str>>,
    message_id: Option<Box<str>>,
    stop_reason: Option<Box<str>>,
    usage: Usage,
    /// Whether the input has been reported.
    input: Reading,
    /// Whether the output has been reported after the beginning.
    output: Reading,
    text_bytes: u64,
    error: Option<StreamError>,
    unreadable: u32,
}

/// What has become of a number that may be reported several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reading {
    #[default]
    Missing,
    Read,
    /// An event that could have changed it was not readable.
    Lost,
}

#[derive(Deserialize)]
struct MessageStart<'a> {
    #[serde(borrow)]
    message: Message<'a>,
}

/// A message as it stands in `message_start`, or as a whole answer that was not streamed.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    model: Option<&'a RawValue>,
    stop_reason: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
    /// The answer of `count_tokens` consists of this.
    input_tokens: Option<&'a RawValue>,
    #[serde(rename = "type")]
    kind: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct MessageDelta<'a> {
    #[serde(borrow)]
    delta: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    stop_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    error: &'a RawValue,
}

#[derive(Deserialize)]
struct FailureDetail<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

fn word(raw: Option<&RawValue>, most: usize) -> Option<Box<str>> {
    text(raw).map(|text| if text.len() > most { bounded(&text, most) } else { text })
}

impl Meter {
    /// How far the stream has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether the event that ends the stream, well or badly, has been seen.
    pub fn is_over(&self) -> bool {
        self.progress >= Progress::Ended
    }

    /// Whether a content block has begun: the moment of the first token.
    pub fn has_content(&self) -> bool {
        self.has_content
    }

    /// Looks at the next event.
    pub fn event(&mut self, event: &RawEvent<'_>) {
        if self.is_over() {
            return;
        }
        if let Some(string) = usual_delta(event.bytes()) {
            return self.delta(string_bytes(string));
        }
        match event.name() {
            Some(b"content_block_delta") => self.delta(delta_text(event.bytes())),
            Some(b"message_stop") => self.progress = Progress::Ended,
            Some(b"error") => {
                self.progress = Progress::Failed;
                self.failed(event);
            }
            Some(b"ping") | None => {}
            Some(b"message_start") => {
                self.begin();
                if self.message_start(event).is_none() {
                    self.lost();
                }
            }
            Some(b"message_delta") => {
                self.begin();
                if self.message_delta(event).is_none() {
                    self.lost();
                }
            }
            Some(b"content_block_start") => {
                self.begin();
                self.has_content = true;
            }
            Some(_) => self.begin(),
        }
    }

    /// What the answer has come to so far.
    pub fn metered(&self) -> Metered {
        // A stream that opens with an error has used nothing that anybody would bill.
        let refused = self.progress == Progress::Failed && !self.has_content && self.input == Reading::Missing;
        let known = self.output != Reading::Lost && (self.input == Reading::Read || refused);
        let closed = self.progress == Progress::Ended || self.stop_reason.is_some();
        Metered {
            progress: self.progress,
            model: self.model.clone(),
            message_id: self.message_id.clone(),
            stop_reason: self.stop_reason.clone(),
            usage: if known { Counts::Known(self.usage.clone()) } else { Counts::Unknown },
            is_final: known && closed && self.output == Reading::Read,
            text_bytes: self.text_bytes,
            error: self.error.clone(),
            unreadable: self.unreadable,
        }
    }

    fn delta(&mut self, bytes: u64) {
        self.begin();
        self.has_content = true;
        self.text_bytes = self.text_bytes.saturating_add(bytes);
    }

    fn begin(&mut self) {
        self.progress = self.progress.max(Progress::Begun);
    }

    /// An event that carries counts was not readable: what it could have said is unknown until a later event says it.
    fn lost(&mut self) {
        self.unreadable = self.unreadable.saturating_add(1);
        (self.input, self.output) = (Reading::Lost, Reading::Lost);
    }

    fn message_start(&mut self, event: &RawEvent<'_>) -> Option<()> {
        let data = whole_data(event)?;
        let MessageStart { message } = serde_json::from_slice(&data).ok()?;
        self.message(&message)?;
        // The output that stands here is that of the first token.
        self.output = Reading::Missing;
        Some(())
    }

    fn message(&mut self, message: &Message<'_>) -> Option<()> {
        self.model = word(message.model, MODEL);
        self.message_id = word(message.id, WORD);
        self.stop_reason = word(message.stop_reason, WORD);
        if let Some(usage) = message.usage {
            self.set(report(usage.get()).ok()?);
        }
        Some(())
    }

    fn message_delta(&mut self, event: &RawEvent<'_>) -> Option<()> {
        let data = whole_data(event)?;
        let message: MessageDelta<'_> = serde_json::from_slice(&data).ok()?;
        if let Some(delta) = message.delta {
            let delta: Delta<'_> = serde_json::from_str(delta.get()).ok()?;
            self.stop_reason = word(delta.stop_reason, WORD).or(self.stop_reason.take());
        }
        if let Some(usage) = message.usage {
            self.set(report(usage.get()).ok()?);
        }
        Some(())
    }

    fn set(&mut self, report: Report) {
        if report.input.is_some() {
            self.input = Reading::Read;
        }
        if report.output.is_some() {
            self.output = Reading::Read;
        }
        self.usage.set(report);
    }

    fn failed(&mut self, event: &RawEvent<'_>) {
        let error = whole_data(event).and_then(|data| {
            let failure: Failure<'_> = serde_json::from_slice(&data).ok()?;
            stream_error(failure.error)
        });
        self.unreadable = self.unreadable.saturating_add(u32::from(error.is_none()));
        self.error = Some(error.unwrap_or_default());
    }
}

fn stream_error(raw: &RawValue) -> Option<StreamError> {
    let detail: FailureDetail<'_> = serde_json::from_str(raw.get()).ok()?;
    let part = |raw, most| word(raw, most).unwrap_or_default();
    Some(StreamError { kind: part(detail.kind, WORD), message: part(detail.message, MESSAGE) })
}

fn whole_data<'a>(event: &RawEvent<'a>) -> Option<Cow<'a, [u8]>> {
    if event.is_cut() { None } else { event.data() }
}

/// The string in a delta that is written as Anthropic writes it, which nearly every event of a stream is: from after its
/// opening quote.
fn usual_delta(event: &[u8]) -> Option<&[u8]> {
    const HEAD: &[u8] = b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":";
    let index = event.strip_prefix(HEAD)?;
    let digits = index.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let kind = index[digits..].strip_prefix(b",\"delta\":{\"type\":\"")?;
    kind.strip_prefix(b"text_delta\",\"text\":\"")
        .or_else(|| kind.strip_prefix(b"input_json_delta\",\"partial_json\":\""))
        .or_else(|| kind.strip_prefix(b"thinking_delta\",\"thinking\":\""))
}

/// Bytes of text in a `content_block_delta`, found by looking for the string and its end without parsing: an escape
/// counts as one byte, of `\u` escapes as three. Signatures and citations count nothing; of an event that was cut, what
/// is left of it counts.
fn delta_text(event: &[u8]) -> u64 {
    const KEY: &[u8] = b"\"delta\"";
    let Some(at) = memmem::find(event, KEY) else { return 0 };
    let mut rest = &event[at + KEY.len()..];
    let mut counts = false;
    while let Some(quote) = memchr(b'"', rest) {
        let string = &rest[quote + 1..];
        if counts {
            return string_bytes(string);
        }
        let Some(end) = memchr(b'"', string) else { return 0 };
        match &string[..end] {
            b"text" | b"thinking" | b"partial_json" | b"content" => {
                counts = string[end + 1..].trim_ascii_start().first() == Some(&b':');
            }
            b"citation" | b"signature" => return 0,
            _ => {}
        }
        rest = &string[end + 1..];
    }
    0
}

/// The length of a JSON string, from after its opening quote, when its escapes are undone.
fn string_bytes(string: &[u8]) -> u64 {
    let (mut bytes, mut rest) = (0, string);
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        bytes += at as u64;
        if rest[at] == b'"' {
            return bytes;
        }
        let unicode = rest.get(at + 1) == Some(&b'u');
        bytes += if unicode { 3 } else { 1 };
        rest = rest.get(at + if unicode { 6 } else { 2 }..).unwrap_or_default();
    }
    bytes + rest.len() as u64
}

/// Reads an answer that was not streamed: a message, an error, or the answer of `count_tokens` (whose count is the input).
pub fn whole(body: &[u8]) -> Metered {
    let mut meter = Meter { progress: Progress::Ended, ..Meter::default() };
    if read_whole(&mut meter, body).is_none() {
        meter.progress = Progress::Nothing;
        meter.lost();
    }
    meter.metered()
}

fn read_whole(meter: &mut Meter, body: &[u8]) -> Option<()> {
    let message: Message<'_> = serde_json::from_slice(body).ok()?;
    if let Some(error) = message.error
        && text(message.kind).as_deref() == Some("error")
    {
        meter.progress = Progress::Failed;
        meter.error = Some(stream_error(error).unwrap_or_default());
        return Some(());
    }
    meter.message(&message)?;
    if let Some(tokens) = message.input_tokens {
        let input = serde_json::from_str(tokens.get()).ok()?;
        meter.set(Report { input: Some(input), output: Some(0), ..Report::default() });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sse::Splitter;
    use crate::usage::{CacheWrite, ServiceTier, Tokens};
    use serde_json::Value;
    use std::path::{Path, PathBuf};

    fn feed(meter: &mut Meter, pieces: &[&[u8]]) {
        let mut splitter = Splitter::new(1 << 20);
        for piece in pieces {
            splitter.push(piece, |event| meter.event(&event));
        }
    }

    fn metered(pieces: &[&[u8]]) -> Metered {
        let mut meter = Meter::default();
        feed(&mut meter, pieces);
        meter.metered()
    }

    fn fold(stream: &str) -> Progress {
        metered(&[stream.as_bytes()]).progress
    }

    const START: &str = "event: message_start\ndata: {\"message\":{\"model\":\"m\",\"usage\":{\"input_tokens\":25,\"cache_read_input_tokens\":3,\"output_tokens\":1}}}\n\n";
    const STOP: &str = "event: message_stop\ndata: {}\n\n";

    fn delta(usage: &str) -> String {
        format!("event: message_delta\ndata: {{\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{usage}}}\n\n")
    }

    /// Input, cache read, output of a whole stream with these events between start and stop; `None`: unknown.
    #[track_caller]
    fn check(events: &[&str], want: Option<(u64, u64, u64)>, unreadable: u32) {
        let got = metered(&[events.concat().as_bytes()]);
        let counts = got.usage.known().map(|u| (u.tokens.input, u.tokens.cache_read, u.tokens.output));
        assert_eq!((counts, got.unreadable), (want, unreadable));
    }

    #[test]
    fn pings_and_comments_are_no_beginning() {
        assert_eq!(fold(": hi\n\nevent: ping\ndata: {}\n\n"), Progress::Nothing);
        assert_eq!(fold("event: ping\ndata: {}\n\nevent: message_start\ndata: {}\n\n"), Progress::Begun);
        assert_eq!(fold("event: content_block_delta\ndata: {}\n\n"), Progress::Begun);
        assert_eq!(fold("event: an_event_of_tomorrow\ndata: {}\n\n"), Progress::Begun);
    }

    #[test]
    fn an_answer_ends_with_its_last_event_and_not_with_its_name_in_a_text() {
        assert_eq!(fold("event: content_block_delta\ndata: event: message_stop\n\n"), Progress::Begun);
        assert_eq!(fold("event: message_stop\ndata: {}\n\n"), Progress::Ended);
        assert_eq!(fold("event: message_stop\ndata: {}"), Progress::Nothing);
        assert_eq!(fold("event: error\ndata: {}\n\nevent: message_stop\ndata: {}\n\n"), Progress::Failed);
    }

    #[test]
    fn later_counts_replace_and_what_is_missing_or_null_stays() {
        check(&[START, &delta(r#"{"output_tokens":8}"#), STOP], Some((25, 3, 8)), 0);
        let nulls = delta(r#"{"output_tokens":8,"input_tokens":null,"cache_read_input_tokens":null}"#);
        check(&[START, &nulls, STOP], Some((25, 3, 8)), 0);
        let more = delta(r#"{"output_tokens":8,"input_tokens":90,"cache_read_input_tokens":4}"#);
        check(&[START, &more, STOP], Some((90, 4, 8)), 0);
        check(&[START, &more, &more, &more, STOP], Some((90, 4, 8)), 0);
        check(
            &[START, &delta(r#"{"output_tokens":0,"input_tokens":0,"cache_read_input_tokens":0}"#), STOP],
            Some((0, 0, 0)),
            0,
        );
        check(&[START, &delta("null"), STOP], Some((25, 3, 1)), 0);
        check(&[START, &delta(r#"{"output_tokens":18446744073709551615}"#), STOP], Some((25, 3, u64::MAX)), 0);
        check(&[START, &delta(r#"{"output_tokens":8}"#), STOP, &delta(r#"{"output_tokens":9}"#)], Some((25, 3, 8)), 0);
    }

    #[test]
    fn an_event_that_cannot_be_read_makes_unknown_and_never_zero() {
        let good = delta(r#"{"output_tokens":8}"#);
        let whole = delta(r#"{"output_tokens":8,"input_tokens":30}"#);
        for bad in ["{", "", "[]", "{\"message\":3}", "{\"message\":{\"usage\":{\"input_tokens\":-1}}}", "\u{1}"] {
            let start = format!("event: message_start\ndata: {bad}\n\n");
            check(&[&start, &good, STOP], None, 1);
            check(&[&start, STOP], None, 1);
            check(&[&start, &whole, STOP], Some((30, 0, 8)), 1);
        }
        check(&["event: message_start\n\n", &good, STOP], None, 1);
        for bad in [
            r#"{"output_tokens":"8"}"#,
            r#"{"output_tokens":1e99}"#,
            "7",
            "{]",
            r#"{"output_tokens":18446744073709551616}"#,
        ] {
            let bad = delta(bad);
            check(&[START, &bad, STOP], None, 1);
            check(&[START, &good, &bad, STOP], None, 1);
            check(&[START, &bad, &good, STOP], None, 1);
            check(&[START, &bad, &whole, STOP], Some((30, 3, 8)), 1);
        }
        check(&[STOP], None, 0);
        check(&["event: content_block_delta\ndata: garbage\n\n", &good, STOP], None, 0);
        let no_counts = "event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":null}}}\n\n";
        check(&[no_counts, &good, STOP], None, 0);
        let mut meter = Meter::default();
        feed(&mut meter, &[b"event: message_delta\ndata: {", &vec![b' '; 2 << 20], b"}\n\n"]);
        assert_eq!((meter.metered().usage, meter.metered().unreadable), (Counts::Unknown, 1), "cut");
    }

    #[test]
    fn counts_are_final_only_when_the_end_was_seen() {
        let text = "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"123456789\"}}\n\n";
        let estimate = |events: &[&str]| metered(&[events.concat().as_bytes()]).estimated_output();
        assert_eq!(estimate(&[START, text]), Some(3));
        assert_eq!(estimate(&[START, text, "event: error\ndata: {}\n\n"]), Some(3));
        assert_eq!(estimate(&[START, text, STOP]), Some(3), "no closing counts");
        assert_eq!(estimate(&[START, text, &delta("null"), STOP]), Some(3));
        assert_eq!(estimate(&[START, text, &delta(r#"{"output_tokens":8}"#)]), None);
        let open = "event: message_delta\ndata: {\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":2}}\n\n";
        assert_eq!(estimate(&[START, text, open]), Some(3), "more may come");
        assert_eq!(estimate(&[START, text, open, STOP]), None);
    }

    #[test]
    fn text_is_measured_without_being_parsed() {
        let mut usual = 0;
        let bytes = |delta: &str| {
            delta_text(format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n").as_bytes())
        };
        for (delta, want) in [
            (r#"{"type":"text_delta","text":"Cached."}"#, 7),
            (r#"{ "type" : "text_delta", "text" : "Cached." }"#, 7),
            (r#"{"text":"say \"type\"","type":"text_delta"}"#, 10),
            (r#"{"type":"text_delta","text":""}"#, 0),
            (r#"{"type":"text_delta","text":"\\"}"#, 1),
            (r#"{"type":"text_delta","text":"a\nb\u00e9"}"#, 6),
            (r#"{"type":"thinking_delta","thinking":"hm","estimated_tokens":5}"#, 2),
            (r#"{"type":"input_json_delta","partial_json":"{\"a\":"}"#, 5),
            (r#"{"type":"compaction_delta","content":"sum"}"#, 3),
            (r#"{"type":"signature_delta","signature":"RklY"}"#, 0),
            (r#"{"type":"citations_delta","citation":{"text":"quoted"}}"#, 0),
            (r#"{"type":"text"}"#, 0),
            (r#"{"type":"text","text":"ab"}"#, 2),
            (r#"{}"#, 0),
        ] {
            assert_eq!(bytes(delta), want, "{delta}");
            let event = format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{delta}}}\n\n"
            );
            assert_eq!(metered(&[event.as_bytes()]).text_bytes, want, "{delta}");
            if let Some(string) = usual_delta(event.as_bytes()) {
                usual += 1;
                assert_eq!(string_bytes(string), want, "{delta}");
            }
        }
        assert_eq!(usual, 6);
        assert_eq!(delta_text(br#"{"delta":{"text":"cut he"#), 6);
        assert_eq!(delta_text(br#"{"delta":{"text":"\"#), 1);
        assert_eq!(delta_text(br#"{"delta":{"text":"\u12"#), 3);
        assert_eq!(delta_text(br#"{"delta":{"te"#), 0);
    }

    #[test]
    fn the_upstreams_words_are_bounded() {
        let long = "x".repeat(5000);
        let start =
            format!("event: message_start\ndata: {{\"message\":{{\"model\":\"{long}\",\"id\":\"{long}\"}}}}\n\n");
        let error = format!("event: error\ndata: {{\"error\":{{\"type\":\"{long}\",\"message\":\"{long}\"}}}}\n\n");
        let got = metered(&[start.as_bytes(), error.as_bytes()]);
        let length = |text: &Option<Box<str>>| text.as_ref().map(|text| text.len());
        assert_eq!((length(&got.model), length(&got.message_id)), (Some(256), Some(128)));
        let error = got.error.unwrap();
        assert_eq!((error.kind.len(), error.message.len()), (128, 1024));
    }

    #[test]
    fn whole_answers_are_read_as_well() {
        let counts = |body: &str| whole(body.as_bytes()).usage.known().map(|u| (u.tokens.input, u.tokens.output));
        assert_eq!(counts(r#"{"input_tokens":2095}"#), Some((2095, 0)));
        assert_eq!(
            counts("\n\n {\"usage\":{\"input_tokens\":1,\"output_tokens\":2},\"content\":[{\"usage\":3}]}"),
            Some((1, 2))
        );
        assert_eq!(counts(r#"{"id":"m","usage":null}"#), None);
        assert_eq!(counts(r#"{"usage":{"output_tokens":2}}"#), None);
        for bad in
            ["", "<html>", r#"{"usage":{"input_tokens":1,"output_tokens":2}"#, r#"{"input_tokens":-1}"#, "[]", "null"]
        {
            let got = whole(bad.as_bytes());
            assert_eq!((got.usage, got.unreadable, got.progress), (Counts::Unknown, 1, Progress::Nothing), "{bad}");
        }
        let error = whole(br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#);
        assert_eq!(&*error.error.unwrap().kind, "overloaded_error");
        assert_eq!(whole(br#"{"type":"error","error":"odd"}"#).error, Some(StreamError::default()));
        assert_eq!(counts(r#"{"usage":{"input_tokens":1,"output_tokens":2}}"#), Some((1, 2)));
        assert!(whole(br#"{"usage":{"input_tokens":1,"output_tokens":2}}"#).is_final);
        assert!(!whole(br#"{"usage":{"input_tokens":1}}"#).is_final);
    }

    fn transcripts() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".expect.json")).collect();
        files.sort();
        assert!(files.len() >= 19, "only {} transcripts", files.len());
        files
    }

    /// What `expect.json` says, in the form of what was metered.
    fn expected(expect: &Value, got: &Metered) -> Metered {
        let usage = &expect["usage"];
        let n = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("no {name}"));
        let some = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let tokens = Tokens {
            input: n("input_tokens"),
            cache_read: n("cache_read_tokens"),
            cache_write: CacheWrite {
                m5: n("cache_write_5m_tokens"),
                h1: n("cache_write_1h_tokens"),
                ..Default::default()
            },
            output: n("output_tokens"),
        };
        let seen = got.usage.known().expect("known");
        let word = |name: &str| expect.get(name).and_then(Value::as_str).map(Into::into);
        let error = expect.get("error").map(|error| StreamError {
            kind: error["type"].as_str().unwrap().into(),
            message: error["message"].as_str().unwrap().into(),
        });
        Metered {
            progress: match expect["outcome"].as_str().unwrap() {
                "complete" => Progress::Ended,
                "truncated" => Progress::Begun,
                "error_event" => Progress::Failed,
                other => panic!("outcome {other}"),
            },
            stop_reason: word("stop_reason"),
            usage: Counts::Known(Usage {
                tokens,
                reasoning: some("reasoning_tokens"),
                web_search: some("web_search_requests"),
                service_tier: word("service_tier").map(Into::into).or(seen.service_tier.clone()),
                region: word("inference_geo").or(seen.region.clone()),
                ..Usage::default()
            }),
            is_final: expect["usage_final"].as_bool().unwrap(),
            error,
            unreadable: 0,
            ..got.clone()
        }
    }

    #[test]
    fn every_transcript_gives_its_accounting_at_every_cut() {
        for path in transcripts() {
            let expect: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let name = expect["file"].as_str().unwrap();
            let body = std::fs::read(path.with_file_name(name)).unwrap();
            if expect["outcome"] == "http_error" {
                let got = whole(&body);
                assert_eq!(got.progress, Progress::Failed, "{name}");
                assert_eq!(got.error.unwrap().kind.as_ref(), expect["error"]["type"], "{name}");
                assert_eq!(got.usage, Counts::Known(Usage::default()), "{name}");
                continue;
            }
            if name.ends_with(".json") {
                let got = whole(&body);
                assert_eq!(got, expected(&expect, &got), "{name}");
                continue;
            }
            let got = metered(&[&body]);
            assert_eq!(got, expected(&expect, &got), "{name}");
            assert_eq!(got.model.is_some(), expect["outcome"] != "error_event" || name.starts_with("a08"), "{name}");
            if expect["tool_calls"] == Value::Array(vec![]) && expect.get("server_tool_calls").is_none() {
                let length = |field| expect.get(field).and_then(Value::as_str).map_or(0, str::len) as u64;
                let text = length("text") + length("thinking");
                assert!(got.text_bytes.abs_diff(text) <= 2, "{name}: {} for {text}", got.text_bytes);
            }
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(metered(&bytes), got, "{name} byte by byte");
            for at in 0..body.len() {
                let (a, b) = body.split_at(at);
                assert_eq!(metered(&[a, b]), got, "{name} cut at byte {at}");
            }
            let mut pieces = vec![];
            let mut from = 0;
            for cut in expect.get("cuts").and_then(Value::as_array).into_iter().flatten() {
                let cut = cut.as_u64().unwrap() as usize;
                pieces.push(&body[from..cut]);
                from = cut;
            }
            pieces.push(&body[from..]);
            assert_eq!(metered(&pieces), got, "{name} in its own cuts");
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_keeps_the_input_it_announced() {
        for path in transcripts() {
            let body = std::fs::read(path.to_string_lossy().replace(".expect.json", ".sse"));
            let Ok(body) = body else { continue };
            let mut before = Counts::Unknown;
            for end in 0..body.len() {
                let got = metered(&[&body[..end]]);
                if before != Counts::Unknown {
                    assert_ne!(got.usage, Counts::Unknown, "{} after {end} bytes", path.display());
                }
                assert!(!got.is_final || got.stop_reason.is_some());
                before = got.usage;
            }
        }
    }

    #[test]
    fn the_tier_and_the_region_come_from_the_answer() {
        let read = |name: &str| {
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/transcripts").join(name)).unwrap()
        };
        let cached = metered(&[&read("a15_cache_5m_1h.sse")]);
        let usage = cached.usage.known().unwrap();
        assert_eq!((usage.region.as_deref(), &usage.service_tier), (Some("us"), &Some(ServiceTier::Standard)));
        assert_eq!(cached.model.as_deref(), Some("claude-opus-5-5"));
        assert_eq!(cached.message_id.as_deref(), Some("msg_01GwFixtureAAAAAAAAAAAA1"));
    }

    /// `cargo test --release -p wire -- --ignored --nocapture cost_of`
    #[test]
    #[ignore = "prints numbers and asserts none"]
    #[expect(clippy::disallowed_methods, reason = "measures real time")]
    fn cost_of_following_a_stream() {
        let deltas: String = (0..1000)
            .map(|n| format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\" word\\nnumber {n}\"}}}}\n\n"))
            .collect();
        let run = |name: &str, each: &mut dyn FnMut(&RawEvent<'_>)| {
            let mut best = u128::MAX;
            for _ in 0..200 {
                let mut splitter = Splitter::new(1 << 20);
                let began = std::time::Instant::now();
                splitter.push(std::hint::black_box(deltas.as_bytes()), |event| each(&event));
                best = best.min(began.elapsed().as_nanos());
            }
            println!("{name}: {}.{} ns an event", best / 1000, best % 1000 / 100);
        };
        run("splitter alone", &mut |event| {
            std::hint::black_box(event);
        });
        run("with names", &mut |event| {
            std::hint::black_box(event.name());
        });
        let mut meter = Meter::default();
        run("with meter", &mut |event| meter.event(event));
        std::hint::black_box(meter.metered());
    }

    proptest::proptest! {
        #[test]
        fn a_spoilt_stream_harms_nothing_and_reads_the_same_at_every_cut(
            which in 0_usize..100,
            spoilt in proptest::collection::vec((0_usize..4000, proptest::prelude::any::<u8>()), 0..4),
            cut in 0_usize..4000,
        ) {
            let files = transcripts();
            let path = files[which % files.len()].to_string_lossy().replace(".expect.json", ".sse");
            let mut body = std::fs::read(path).unwrap_or_else(|_| b"event: message_stop\n\n".to_vec());
            for (at, byte) in spoilt {
                let at = at % body.len();
                body[at] = byte;
            }
            let (a, b) = body.split_at(cut % body.len());
            proptest::prop_assert_eq!(metered(&[a, b]), metered(&[&body]));
            whole(&body);
        }
    }
}
