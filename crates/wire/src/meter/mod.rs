//! A cheap fold over the events of a streamed answer: what has begun, what has ended and how, and what was used.
//!
//! It parses only what can carry news, and can never fail: an event that it cannot read is counted, and what that event
//! could have said is unknown from then on.

use std::borrow::Cow;

use memchr::{memchr, memchr2, memmem};

use crate::anthropic::usage::{report, report_of};
use crate::estimate::Sample;
use crate::loss::Losses;
use crate::members::{Malformed, Member, Members, text};
use crate::sse::RawEvent;
use crate::usage::{MODEL, Report, Usage, bounded, count};

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
    /// How that text began.
    pub sample: Sample,
    /// The input that a client was told of at the beginning by our estimate, because its upstream had not said it.
    pub told_input: Option<u64>,
    /// The error that ended it.
    pub error: Option<StreamError>,
    /// Events that should have been readable and were not.
    pub unreadable: u32,
    /// What of it a translation did not carry.
    pub lost: Losses,
}

impl Metered {
    /// Output tokens as far as the text shows them, by how it began; `None` where the closing counts are known.
    pub fn estimated_output(&self) -> Option<u64> {
        (!self.is_final).then(|| self.sample.tokens(self.text_bytes))
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
    sample: Sample,
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

/// A message as it stands in `message_start`, or as a whole answer that was not streamed: what is asked of it, unread.
#[derive(Default)]
struct Message<'a> {
    id: Option<&'a [u8]>,
    model: Option<&'a [u8]>,
    stop_reason: Option<&'a [u8]>,
    /// Of no more than one; `null` is none.
    usage: Option<Result<Report, Malformed>>,
    /// The answer of `count_tokens` consists of this.
    input_tokens: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    error: Option<&'a [u8]>,
}

impl<'a> Message<'a> {
    fn read(text: &'a [u8]) -> Option<Self> {
        let (mut message, mut members) = (Self::default(), Members::of(text));
        let mut seen_usage = false;
        while let Some(key) = members.key().ok()? {
            if &*key == b"usage" {
                if std::mem::replace(&mut seen_usage, true) {
                    return None;
                }
                message.usage = members.object(report_of).ok()?;
                continue;
            }
            let value = members.text().ok()?;
            let place = match &*key {
                b"id" => &mut message.id,
                b"model" => &mut message.model,
                b"stop_reason" => &mut message.stop_reason,
                b"input_tokens" => &mut message.input_tokens,
                b"type" => &mut message.kind,
                b"error" => &mut message.error,
                _ => continue,
            };
            once(place, value)?;
        }
        Some(message)
    }
}

/// The members of an object that have these names, unread.
fn parts<'a, const N: usize>(text: &'a [u8], names: [&str; N]) -> Option<[Option<&'a [u8]>; N]> {
    let (mut parts, mut members) = ([None; N], Members::of(text));
    while let Some(Member { key, value, .. }) = members.next().ok()? {
        if let Some(at) = names.iter().position(|name| name.as_bytes() == &*key) {
            once(&mut parts[at], value)?;
        }
    }
    Some(parts)
}

/// Puts a value in its place; `None`: there is one already, and nobody knows which of them counts.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    let was = place.replace(value);
    was.is_none().then_some(())
}

/// A value that is there and is not `null`.
fn given(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| *value != b"null")
}

fn word(value: Option<&[u8]>, most: usize) -> Option<Box<str>> {
    text(value?).map(|text| bounded(&text, most))
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
        if let Some(string) = usual_delta(said(event)) {
            return self.delta(string);
        }
        match event.name() {
            Some(name) if !name.is_empty() => self.named(name, event),
            // A comment, or an event of a server that leaves its name to the `type` in the data.
            _ => {
                let kind = whole_data(event).and_then(|data| word(parts(&data, ["type"])?[0], WORD));
                if let Some(kind) = kind {
                    self.named(kind.as_bytes(), event);
                }
            }
        }
    }

    fn named(&mut self, name: &[u8], event: &RawEvent<'_>) {
        match name {
            b"content_block_delta" => self.delta(delta_text(said(event))),
            b"message_stop" => self.progress = Progress::Ended,
            b"error" => {
                self.progress = Progress::Failed;
                self.failed(event);
            }
            b"ping" => {}
            b"message_start" => {
                self.begin();
                if self.message_start(event).is_none() {
                    self.lost();
                }
            }
            b"message_delta" => {
                self.begin();
                if self.message_delta(event).is_none() {
                    self.lost();
                }
            }
            b"content_block_start" => {
                self.begin();
                self.has_content = true;
            }
            _ => self.begin(),
        }
    }

    /// What the answer has come to so far.
    pub fn metered(&self) -> Metered {
        self.clone().into_metered()
    }

    fn into_metered(self) -> Metered {
        // A stream that opens with an error has used nothing that anybody would bill.
        let refused = self.progress == Progress::Failed && !self.has_content && self.input == Reading::Missing;
        let known = self.output != Reading::Lost && (self.input == Reading::Read || refused);
        let closed = self.progress == Progress::Ended || self.stop_reason.is_some();
        Metered {
            progress: self.progress,
            model: self.model,
            message_id: self.message_id,
            stop_reason: self.stop_reason,
            usage: if known { Counts::Known(self.usage) } else { Counts::Unknown },
            is_final: known && closed && self.output == Reading::Read,
            text_bytes: self.text_bytes,
            sample: self.sample,
            told_input: None,
            error: self.error,
            unreadable: self.unreadable,
            lost: Losses::default(),
        }
    }

    /// A delta; `string` is its text, from after its opening quote.
    fn delta(&mut self, string: &[u8]) {
        self.begin();
        self.has_content = true;
        self.text_bytes = self.text_bytes.saturating_add(string_bytes(string));
        self.sample.push_json(string);
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
        let [message] = parts(&data, ["message"])?;
        self.message(Message::read(message?)?)?;
        // The output that stands here is that of the first token.
        self.output = Reading::Missing;
        Some(())
    }

    fn message(&mut self, message: Message<'_>) -> Option<()> {
        self.model = word(message.model, MODEL);
        self.message_id = word(message.id, WORD);
        self.stop_reason = word(message.stop_reason, WORD);
        if let Some(usage) = message.usage {
            self.set(usage.ok()?);
        }
        Some(())
    }

    fn message_delta(&mut self, event: &RawEvent<'_>) -> Option<()> {
        let data = whole_data(event)?;
        let [delta, usage] = parts(&data, ["delta", "usage"])?;
        if let Some(delta) = given(delta) {
            let [stop_reason] = parts(delta, ["stop_reason"])?;
            self.stop_reason = word(stop_reason, WORD).or(self.stop_reason.take());
        }
        if let Some(usage) = given(usage) {
            self.set(report(usage).ok()?);
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
            let [error] = parts(&data, ["error"])?;
            stream_error(error?)
        });
        self.unreadable = self.unreadable.saturating_add(u32::from(error.is_none()));
        self.error = Some(error.unwrap_or_default());
    }
}

fn stream_error(error: &[u8]) -> Option<StreamError> {
    let [kind, message] = parts(error, ["type", "message"])?;
    let part = |value, most| word(value, most).unwrap_or_default();
    Some(StreamError { kind: part(kind, WORD), message: part(message, MESSAGE) })
}

fn whole_data<'a>(event: &RawEvent<'a>) -> Option<Cow<'a, [u8]>> {
    if event.is_cut() { None } else { event.data() }
}

/// The event without the line ends that close it: how many of them it has depends on where the stream is cut.
fn said<'a>(event: &RawEvent<'a>) -> &'a [u8] {
    event.bytes().trim_ascii_end()
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

/// The text in a `content_block_delta`, from after its opening quote, found by looking for the string without parsing.
/// Signatures and citations are none; of an event that was cut, it is what is left.
fn delta_text(event: &[u8]) -> &[u8] {
    const KEY: &[u8] = b"\"delta\"";
    let Some(at) = memmem::find(event, KEY) else { return b"" };
    let mut rest = &event[at + KEY.len()..];
    let mut counts = false;
    while let Some(quote) = memchr(b'"', rest) {
        let string = &rest[quote + 1..];
        if counts {
            return string;
        }
        let Some(end) = memchr(b'"', string) else { return b"" };
        match &string[..end] {
            b"text" | b"thinking" | b"partial_json" | b"content" => {
                counts = string[end + 1..].trim_ascii_start().first() == Some(&b':');
            }
            b"citation" | b"signature" => return b"",
            _ => {}
        }
        rest = &string[end + 1..];
    }
    b""
}

/// The length of a JSON string, from after its opening quote, when its escapes are undone: an escape counts as one byte,
/// of `\u` escapes as three.
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
    meter.into_metered()
}

fn read_whole(meter: &mut Meter, body: &[u8]) -> Option<()> {
    let message = Message::read(body)?;
    if let Some(error) = given(message.error)
        && message.kind.and_then(text).as_deref() == Some("error")
    {
        meter.progress = Progress::Failed;
        meter.error = Some(stream_error(error).unwrap_or_default());
        return Some(());
    }
    let tokens = given(message.input_tokens);
    meter.message(message)?;
    if let Some(tokens) = tokens {
        let input = count(tokens).ok()?;
        meter.set(Report { input, output: Some(0), ..Report::default() });
    }
    Some(())
}

#[cfg(test)]
mod tests;
