//! One event of the log as one line of JSON, written without a detour: a line a request must not cost more than the
//! request.

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use ledger::calendar::civil;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use wire::json::is_plain;

/// Time, level and fields in the order of the event, then where it comes from.
#[derive(Debug)]
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // What a field shows may be of our own making and log something itself.
        let mut line = LINE.take();
        line.clear();
        let done = write_line(&mut line, event).and_then(|()| out.write_str(&line));
        line.shrink_to(LINE_KEPT);
        LINE.set(line);
        done
    }
}

thread_local! {
    /// Where a line takes its form: a string grows without asking anybody what it is.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

/// Bytes that a thread keeps for its next line.
const LINE_KEPT: usize = 4 * 1024;

fn write_line(out: &mut String, event: &Event<'_>) -> fmt::Result {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.write_str("{\"timestamp\":\"")?;
    second(now.as_secs(), out)?;
    // Six digits: the first of these is left out.
    out.write_str(".")?;
    out.write_str(&itoa::Buffer::new().format(1_000_000 + now.subsec_micros())[1..])?;
    out.write_str("Z\",\"level\":\"")?;
    out.write_str(event.metadata().level().as_str())?;
    out.write_str("\"")?;
    let mut fields = Fields { out: &mut *out, result: Ok(()) };
    event.record(&mut fields);
    fields.result?;
    out.write_str(",\"target\":")?;
    text(event.metadata().target(), out)?;
    out.write_str("}\n")
}

/// The second as RFC 3339 has it. Most lines fall into the second of the line before.
fn second(unix: u64, out: &mut String) -> fmt::Result {
    thread_local!(static LAST: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) });
    LAST.with_borrow_mut(|(last, text)| {
        if *last != unix {
            let ((year, month, day), rest) = (civil((unix / 86_400).cast_signed()), unix % 86_400);
            let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
            *text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
            *last = unix;
        }
        out.write_str(text)
    })
}

/// A JSON string.
fn text(text: &str, out: &mut impl Write) -> fmt::Result {
    out.write_char('"')?;
    Escape(out).write_str(text)?;
    out.write_char('"')
}

/// Whether a byte does not stand for itself in a JSON string.
fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

/// Writes into a JSON string.
struct Escape<'a, W>(&'a mut W);

impl<W: Write> Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // Most texts need nothing.
        if is_plain(text) {
            return self.0.write_str(text);
        }
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_special) {
            let (plain, special) = rest.split_at(at);
            self.0.write_str(plain)?;
            match special.as_bytes()[0] {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                other => write!(self.0, "\\u{other:04x}")?,
            }
            rest = &special[1..];
        }
        self.0.write_str(rest)
    }
}

/// Writes the fields of an event.
struct Fields<'a, W> {
    out: &'a mut W,
    result: fmt::Result,
}

impl<W: Write> Fields<'_, W> {
    fn put(&mut self, field: &Field, value: impl FnOnce(&mut W) -> fmt::Result) {
        if self.result.is_err() {
            return;
        }
        self.result = (|| {
            self.out.write_str(",\"")?;
            self.out.write_str(field.name())?;
            self.out.write_str("\":")?;
            value(self.out)
        })();
    }
}

impl<W: Write> Visit for Fields<'_, W> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, |out| {
            out.write_char('"')?;
            write!(Escape(out), "{value:?}")?;
            out.write_char('"')
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, |out| text(value, out));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, |out| out.write_str(itoa::Buffer::new().format(value)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, |out| out.write_str(if value { "true" } else { "false" }));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no word for what is no number.
        self.put(field, |out| if value.is_finite() { write!(out, "{value}") } else { out.write_str("null") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn every_text_is_a_string_of_json() {
        for sample in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\n\r\t\u{7f}", "ä → 🙂", "\\u0000"] {
            let mut out = String::new();
            text(sample, &mut out).unwrap();
            assert_eq!(serde_json::from_str::<String>(&out).unwrap(), sample, "{out}");
            assert!(!out.bytes().any(|b| b < 0x20 || b == 0x7f), "{out:?}");
        }
    }

    #[test]
    fn a_line_holds_the_event() {
        let (sink, lines) = super::super::collected();
        let subscriber = super::super::json_subscriber(sink, tracing::level_filters::LevelFilter::INFO);
        tracing::subscriber::with_default(subscriber, || {
            let none: Option<&str> = None;
            let list = vec!["a\"b"];
            tracing::info!(target: "t::x", id = %7, none, n = 3_u64, i = -1_i64, yes = true, f = 0.5, ?list, "said {}", "so\n");
            tracing::debug!("not this one");
        });
        let text = lines();
        let line: Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        let mut want = json!({
            "level": "INFO", "message": "said so\n", "id": "7", "n": 3, "i": -1, "yes": true, "f": 0.5,
            "list": "[\"a\\\"b\"]", "target": "t::x",
        });
        want["timestamp"] = line["timestamp"].clone();
        assert_eq!(line, want);
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.len() == 27 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    }
}
