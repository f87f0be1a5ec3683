//! What an answer came to does not depend on where its stream is cut, and is what a full parser reads wherever that reads
//! anything.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use wire::meter::{self, Meter, Metered, Progress};
use wire::sse::Splitter;

use crate::cuts;

/// Panics where what the meter says of `bytes`, as a stream or as a whole answer, is wrong.
pub(crate) fn check(bytes: &[u8]) {
    let want = metered(&[bytes]);
    cuts::each_way(bytes, |pieces| assert_eq!(metered(pieces), want, "{pieces:?}"));
    if let Some(told) = streamed(bytes) {
        told.check(&want);
    }
    let whole = meter::whole(bytes);
    if let Some(told) = whole_answer(bytes) {
        told.check(&whole);
    }
}

fn metered(pieces: &[&[u8]]) -> Metered {
    let (mut splitter, mut meter) = (Splitter::new(1 << 20), Meter::default());
    for piece in pieces {
        splitter.push(piece, |event| meter.event(&event));
    }
    meter.metered()
}

/// What a full parser reads.
#[derive(Debug, Default)]
struct Told {
    progress: Progress,
    model: Option<String>,
    id: Option<String>,
    stop_reason: Option<String>,
    input: Option<u64>,
    cache_read: Option<u64>,
    output: Option<u64>,
    /// Whether the output was told after the beginning.
    is_closed: bool,
    has_content: bool,
}

impl Told {
    fn check(&self, got: &Metered) {
        assert_eq!(got.progress, self.progress);
        let words = [&got.model, &got.message_id, &got.stop_reason].map(|word| word.as_deref());
        assert_eq!(words, [&self.model, &self.id, &self.stop_reason].map(|word| word.as_deref()));
        let tokens = got.usage.known().map(|usage| usage.tokens);
        let refused = self.progress == Progress::Failed && !self.has_content;
        assert_eq!(tokens.is_some(), self.input.is_some() || refused);
        if let Some(tokens) = tokens {
            let want = [self.input, self.cache_read, self.output].map(Option::unwrap_or_default);
            assert_eq!([tokens.input, tokens.cache_read, tokens.output], want);
        }
        let is_over = self.progress == Progress::Ended || self.stop_reason.is_some();
        assert_eq!(got.is_final, tokens.is_some() && is_over && self.is_closed);
    }

    /// Reads a message; `None` where nobody can say what it means.
    fn message(&mut self, message: &Map<String, Value>) -> Option<()> {
        self.model = word(message.get("model"), 256);
        self.id = word(message.get("id"), 128);
        self.stop_reason = word(message.get("stop_reason"), 128);
        self.usage(message.get("usage"))
    }

    fn usage(&mut self, usage: Option<&Value>) -> Option<()> {
        let Some(usage) = usage.filter(|usage| !usage.is_null()) else { return Some(()) };
        let usage = usage.as_object()?;
        // This one is counted by itself as well, so it has to be readable.
        count(usage.get("cache_creation_input_tokens"))?;
        self.input = count(usage.get("input_tokens"))?.or(self.input);
        self.cache_read = count(usage.get("cache_read_input_tokens"))?.or(self.cache_read);
        let output = count(usage.get("output_tokens"))?;
        self.is_closed |= output.is_some();
        self.output = output.or(self.output);
        Some(())
    }
}

/// A stream as a full parser reads it; `None` where that cannot read all of it.
fn streamed(stream: &[u8]) -> Option<Told> {
    let (mut told, mut is_readable) = (Told::default(), true);
    Splitter::new(stream.len()).push(stream, |event| {
        if is_readable && told.progress < Progress::Ended {
            let data = event.data();
            is_readable = of_event(&mut told, event.name(), data.as_deref()).is_some();
        }
    });
    is_readable.then_some(told)
}

fn of_event(told: &mut Told, name: Option<&[u8]>, data: Option<&[u8]>) -> Option<()> {
    let object = |data: Option<&[u8]>| match serde_json::from_slice(data?).ok()? {
        Unique(Value::Object(object)) => Some(object),
        Unique(_) => None,
    };
    let kind;
    let name = match name.filter(|name| !name.is_empty()) {
        Some(name) => name,
        None if data.is_none() => return Some(()),
        None => {
            kind = object(data)?.get("type").and_then(Value::as_str).unwrap_or("ping").to_owned();
            kind.as_bytes()
        }
    };
    if name != b"ping" {
        told.progress = Progress::Begun;
    }
    match name {
        b"message_start" => {
            told.message(object(data)?.get("message")?.as_object()?)?;
            // What stands there is the first token.
            told.is_closed = false;
        }
        b"message_delta" => {
            let data = object(data)?;
            if let Some(delta) = data.get("delta").filter(|delta| !delta.is_null()) {
                let reason = word(delta.as_object()?.get("stop_reason"), 128);
                told.stop_reason = reason.or(told.stop_reason.take());
            }
            told.usage(data.get("usage"))?;
        }
        b"content_block_start" | b"content_block_delta" => told.has_content = true,
        b"message_stop" => told.progress = Progress::Ended,
        b"error" => told.progress = Progress::Failed,
        _ => {}
    }
    Some(())
}

/// A whole answer as a full parser reads it; `None` where that cannot.
fn whole_answer(body: &[u8]) -> Option<Told> {
    let Unique(Value::Object(answer)) = serde_json::from_slice(body).ok()? else { return None };
    let mut told = Told { progress: Progress::Ended, ..Told::default() };
    if answer.get("error").is_some_and(|error| !error.is_null())
        && answer.get("type").is_some_and(|kind| kind == "error")
    {
        told.progress = Progress::Failed;
        return Some(told);
    }
    told.message(&answer)?;
    if let Some(input) = answer.get("input_tokens").filter(|input| !input.is_null()) {
        (told.input, told.output, told.is_closed) = (count(Some(input))?, Some(0), true);
    }
    Some(told)
}

fn word(value: Option<&Value>, most: usize) -> Option<String> {
    let text = value?.as_str()?;
    Some(text[..text.floor_char_boundary(most)].to_owned())
}

/// A count, if there is one; `None` for what is none.
fn count(value: Option<&Value>) -> Option<Option<u64>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Some(None) };
    let whole = |n: &f64| n.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(n);
    value.as_u64().or_else(|| value.as_f64().filter(whole).map(|n| n as u64)).map(Some)
}

/// A value in whose objects no key stands twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unique;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E: Error>(self) -> Result<Unique, E> {
                Ok(Unique(Value::Null))
            }
            fn visit_bool<E: Error>(self, b: bool) -> Result<Unique, E> {
                Ok(Unique(b.into()))
            }
            fn visit_i64<E: Error>(self, n: i64) -> Result<Unique, E> {
                Ok(Unique(n.into()))
            }
            fn visit_u64<E: Error>(self, n: u64) -> Result<Unique, E> {
                Ok(Unique(n.into()))
            }
            fn visit_f64<E: Error>(self, n: f64) -> Result<Unique, E> {
                Ok(Unique(n.into()))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Unique, E> {
                Ok(Unique(text.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Unique, A::Error> {
                let mut values = Vec::new();
                while let Some(Unique(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(Unique(values.into()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut members = Map::new();
                while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
                    if members.insert(key, value).is_some() {
                        return Err(A::Error::custom("a key stands twice"));
                    }
                }
                Ok(Unique(members.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
