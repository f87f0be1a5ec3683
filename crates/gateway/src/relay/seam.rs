//! Going on with an answer that broke off: what the model has said so far becomes the beginning of its turn in a further
//! request, and the second stream is put behind the first so that its client sees one answer.
//!
//! Only text can be gone on with: not thinking, and not a call of a tool. Where the upstream does not continue a turn it
//! says so, and the client gets the error event that it would have got anyway.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use wire::envelope::{Envelope, splice};
use wire::estimate::Sample;
use wire::meter::{Counts, Metered};
use wire::sse::{RawEvent, Splitter};
use wire::usage::Usage;

use super::Events;

/// Bytes of an answer that are kept to go on with; a longer one is not gone on with.
const KEPT: usize = 1024 * 1024;
/// Bytes of the longest event of the second stream.
const LONGEST: usize = 8 * 1024 * 1024;

/// What the model has said so far, as far as it can be gone on with.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// Blocks of text.
    blocks: Vec<String>,
    bytes: usize,
    /// The last block is not closed.
    open: bool,
    /// Something came that cannot be gone on with.
    lost: bool,
}

/// The parts of an event's data that matter here.
#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(default)]
    content_block: Option<Said>,
    #[serde(default)]
    delta: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    text: String,
}

impl Partial {
    /// Looks at the next event of the first stream.
    pub(super) fn observe(&mut self, event: &RawEvent<'_>) {
        let Some(name) = event.name() else { return };
        if self.lost || !matches!(name, b"content_block_start" | b"content_block_delta" | b"content_block_stop") {
            return;
        }
        let said = event.data().filter(|_| !event.is_cut());
        let data = said.as_deref().and_then(|data| serde_json::from_slice::<Data<'_>>(data).ok());
        let (Some(said), Some(data)) = (&said, data) else { return self.lose() };
        self.bytes += said.len();
        if self.bytes > KEPT || self.take(name, data).is_none() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        *self = Self { lost: true, ..Self::default() };
    }

    /// `None`: this cannot be gone on with.
    fn take(&mut self, name: &[u8], data: Data<'_>) -> Option<()> {
        match name {
            b"content_block_start" => {
                let block = data.content_block.filter(|block| block.kind == "text" && !self.open)?;
                self.blocks.push(block.text);
                self.open = true;
            }
            b"content_block_delta" => {
                let delta = data.delta.filter(|delta| delta.kind == "text_delta" && self.open)?;
                self.blocks.last_mut()?.push_str(&delta.text);
            }
            _ => self.open = false,
        }
        Some(())
    }

    /// What it takes to go on from here; `None`: that cannot be done.
    pub(super) fn seam(&self) -> Option<Seam> {
        let (last, before) = self.blocks.split_last()?;
        // A turn must not end in white space; what is cut off has been sent, and is taken off the second stream.
        let kept = last.trim_end();
        if kept.is_empty() || before.iter().any(|text| text.trim().is_empty()) {
            return None;
        }
        let text = |text: &str| serde_json::json!({ "type": "text", "text": text });
        let content: Vec<Value> = before.iter().map(|block| text(block)).chain([text(kept)]).collect();
        let turn = serde_json::json!({ "role": "assistant", "content": content });
        let (first, joins, skip) = (before.len() as u64, self.open, last[kept.len()..].to_string());
        Some(Seam { turn: turn.to_string(), first, joins, skip })
    }
}

/// How a second stream is put behind the first.
#[derive(Debug)]
pub struct Seam {
    /// The beginning of the model's turn.
    turn: String,
    /// The number that its first block has for the client.
    first: u64,
    /// Its first block is the rest of the one that is open.
    joins: bool,
    /// White space that the client has already.
    skip: String,
}

impl Seam {
    /// The body of the second request: the first one's, with one more message.
    pub fn body(&self, body: &Bytes, envelope: &Envelope) -> Option<Bytes> {
        let messages = envelope.messages_span.clone()?;
        let inner = body.get(messages.clone())?.strip_suffix(b"]")?;
        let comma = if inner.trim_ascii_end().ends_with(b"[") { "" } else { "," };
        let end = messages.end - 1;
        Some(splice(body, end..end, Bytes::from(format!("{comma}{}", self.turn))).concat().into())
    }

    /// Appends what the client gets of an event of the second stream. `false`: that cannot be told.
    fn pass(&mut self, event: &RawEvent<'_>, before: &Metered, out: &mut Vec<u8>) -> bool {
        if event.is_cut() {
            return false;
        }
        let (Some(name), Some(data)) = (event.name(), event.data()) else {
            out.extend_from_slice(event.bytes());
            return true;
        };
        match name {
            // The client has had its like.
            b"message_start" => return true,
            b"message_delta" => return summed(&data, before).is_some_and(|data| put(name, &data, out)),
            b"content_block_start" | b"content_block_delta" | b"content_block_stop" => {}
            _ => {
                out.extend_from_slice(event.bytes());
                return true;
            }
        }
        let Some(text) = std::str::from_utf8(&data).ok() else { return false };
        let Ok(read) = serde_json::from_str::<Data<'_>>(text) else { return false };
        let Some((token, index)) = read.index.and_then(|raw| Some((raw.get(), raw.get().parse::<u64>().ok()?))) else {
            return false;
        };
        if index == 0 && name == b"content_block_start" && self.joins {
            // It goes on in the block that is open; what is not text cannot.
            return read.content_block.is_some_and(|block| block.kind == "text" && block.text.is_empty());
        }
        // A block that is not the rest of the open one comes behind it.
        let index = index + self.first + u64::from(!self.joins);
        if let Some(delta) = read.delta.filter(|delta| delta.kind == "text_delta" && !self.skip.is_empty()) {
            let skip = std::mem::take(&mut self.skip);
            let kept = delta.text.strip_prefix(skip.as_str()).unwrap_or(&delta.text);
            let delta = serde_json::json!({ "type": "text_delta", "text": kept });
            let changed = serde_json::json!({ "type": "content_block_delta", "index": index, "delta": delta });
            return kept.is_empty() || put(name, changed.to_string().as_bytes(), out);
        }
        // The number is a slice of the text: everything around it stays as it is.
        let at = token.as_ptr() as usize - text.as_ptr() as usize;
        put(name, format!("{}{index}{}", &text[..at], &text[at + token.len()..]).as_bytes(), out)
    }
}

fn put(name: &[u8], data: &[u8], out: &mut Vec<u8>) -> bool {
    for part in [b"event: ", name, b"\ndata: ", data, b"\n\n"] {
        out.extend_from_slice(part);
    }
    true
}

/// What the first stream had said, in tokens.
fn said(before: &Metered) -> u64 {
    let told = match &before.usage {
        Counts::Known(usage) => usage.tokens.output,
        Counts::Unknown => 0,
    };
    before.estimated_output().unwrap_or(0).max(told)
}

/// The closing counts of the second stream, with those of the first.
fn summed(data: &[u8], before: &Metered) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(data).ok()?;
    if let (Some(usage), Counts::Known(first)) = (value.get_mut("usage").and_then(Value::as_object_mut), &before.usage)
    {
        let more = [
            ("input_tokens", first.tokens.input),
            ("cache_read_input_tokens", first.tokens.cache_read),
            ("cache_creation_input_tokens", first.tokens.cache_write.total()),
            ("output_tokens", said(before)),
        ];
        for (name, more) in more {
            if let Some(count) = usage.get(name).and_then(Value::as_u64) {
                usage.insert(name.into(), count.saturating_add(more).into());
            }
        }
    }
    serde_json::to_vec(&value).ok()
}

/// A second stream behind the first one, which broke off.
#[derive(Debug)]
pub struct Joined {
    seam: Seam,
    /// What the first one came to.
    before: Metered,
    /// Looks at the second one.
    events: Events,
    splitter: Splitter,
    out: Vec<u8>,
    good: bool,
}

impl Joined {
    /// Puts this stream behind one that came to `before`. What was read of it was seen already.
    pub fn new(before: Metered, seam: Seam, events: Events) -> Self {
        Self { seam, before, events, splitter: Splitter::new(LONGEST), out: Vec::new(), good: true }
    }

    /// Takes bytes that were looked at already. `false`: they cannot be put behind the first stream.
    pub(super) fn join(&mut self, piece: &[u8]) -> bool {
        let Self { seam, before, splitter, out, good, .. } = self;
        splitter.push(piece, |event| *good = *good && seam.pass(&event, before, out));
        self.good
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, piece: &[u8]) -> bool {
        self.events.look(piece);
        self.join(piece)
    }

    /// What is to be sent now.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        (!self.out.is_empty()).then(|| std::mem::take(&mut self.out).into())
    }

    /// The events of the second stream.
    pub(super) fn events(&mut self) -> &mut Events {
        &mut self.events
    }

    pub(super) fn seen(&self) -> &Events {
        &self.events
    }

    /// What both came to.
    pub(super) fn metered(&self) -> Metered {
        let (before, after) = (&self.before, self.events.metered());
        let usage = match (&before.usage, &after.usage) {
            (Counts::Known(first), Counts::Known(second)) => Counts::Known(sum(first, second)),
            _ => Counts::Unknown,
        };
        // What the first one had said was never counted by its upstream: so the whole is an estimate, and no less than
        // the second one's own count.
        let counted = match &after.usage {
            Counts::Known(second) => second.tokens.output,
            Counts::Unknown => 0,
        };
        let tokens = said(before).saturating_add(counted.max(after.estimated_output().unwrap_or(0)));
        // Of no sample every four bytes are a token.
        let (text_bytes, sample) = (tokens.saturating_mul(4), Sample::default());
        Metered {
            usage,
            is_final: false,
            text_bytes,
            sample,
            message_id: before.message_id.clone(),
            told_input: before.told_input,
            unreadable: before.unreadable + after.unreadable,
            lost: before.lost.clone(),
            ..after
        }
    }
}

/// What two requests used together.
fn sum(first: &Usage, second: &Usage) -> Usage {
    let mut sum = second.clone();
    let (to, from) = (&mut sum.tokens, &first.tokens);
    for (to, from) in [
        (&mut to.input, from.input),
        (&mut to.cache_read, from.cache_read),
        (&mut to.output, from.output),
        (&mut to.cache_write.m5, from.cache_write.m5),
        (&mut to.cache_write.m30, from.cache_write.m30),
        (&mut to.cache_write.h1, from.cache_write.h1),
        (&mut to.cache_write.h12, from.cache_write.h12),
        (&mut sum.web_search, first.web_search),
        (&mut sum.web_fetch, first.web_fetch),
    ] {
        *to = to.saturating_add(from);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use wire::meter::Meter;

    fn event(data: &Value) -> String {
        format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap())
    }

    fn start(index: u64, kind: &str) -> Value {
        let block = match kind {
            "text" => json!({ "type": "text", "text": "" }),
            other => json!({ "type": other, "id": "t", "name": "n", "input": {} }),
        };
        json!({ "type": "content_block_start", "index": index, "content_block": block })
    }

    fn text(index: u64, text: &str) -> Value {
        json!({ "type": "content_block_delta", "index": index, "delta": { "type": "text_delta", "text": text } })
    }

    fn stop(index: u64) -> Value {
        json!({ "type": "content_block_stop", "index": index })
    }

    fn message_start() -> Value {
        json!({ "type": "message_start", "message": { "id": "m", "usage": { "input_tokens": 10, "output_tokens": 1 } } })
    }

    fn partial(events: &[Value]) -> (Partial, Metered) {
        let (mut partial, mut meter) = (Partial::default(), Meter::default());
        let stream: String = events.iter().map(event).collect();
        Splitter::new(1 << 20).push(stream.as_bytes(), |event| {
            partial.observe(&event);
            meter.event(&event);
        });
        (partial, meter.metered())
    }

    /// What the client gets of the second stream, however it is cut.
    fn behind(first: &[Value], second: &[Value]) -> String {
        let stream: String = second.iter().map(event).collect();
        let mut all = Vec::new();
        for at in 0..stream.len() {
            let (partial, before) = partial(first);
            let mut joined = Joined::new(before, partial.seam().unwrap(), Events::default());
            let good = joined.push(&stream.as_bytes()[..at]) && joined.push(&stream.as_bytes()[at..]);
            assert!(good, "cut at {at}");
            all.push(String::from_utf8(joined.take().unwrap_or_default().to_vec()).unwrap());
        }
        all.dedup();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn an_open_text_goes_on_in_the_same_block_without_a_seam() {
        let first = [message_start(), start(0, "text"), text(0, "one "), text(0, "two ")];
        let seam = partial(&first).0.seam().unwrap();
        let body = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"count"}],"stream":true}"#);
        let sent: Value = serde_json::from_slice(&seam.body(&body, &Envelope::read(&body).unwrap()).unwrap()).unwrap();
        assert_eq!(
            sent["messages"][1],
            json!({ "role": "assistant", "content": [{ "type": "text", "text": "one two" }] })
        );
        assert_eq!((&sent["stream"], &sent["model"]), (&json!(true), &json!("m")));
        let end = json!({ "type": "message_stop" });
        let second = [message_start(), start(0, "text"), text(0, " three"), text(0, " four"), stop(0), end.clone()];
        let want: String = [text(0, "three"), text(0, " four"), stop(0), end].iter().map(event).collect();
        assert_eq!(behind(&first, &second), want);
    }

    #[test]
    fn blocks_behind_the_seam_are_numbered_on() {
        let first = [message_start(), start(0, "text"), text(0, "x"), stop(0), start(1, "text"), text(1, "a")];
        let second = [start(0, "text"), text(0, "b"), stop(0), start(1, "tool_use"), stop(1)];
        let want: String = [text(1, "b"), stop(1), start(2, "tool_use"), stop(2)].iter().map(event).collect();
        assert_eq!(behind(&first, &second), want);
        // Where the block was closed, the second stream's first block is the next one.
        let closed = [&first[..], &[stop(1)]].concat();
        let want: String = [start(2, "text"), text(2, "b"), stop(2)].iter().map(event).collect();
        assert_eq!(behind(&closed, &second[..3]), want);
    }

    #[test]
    fn what_was_used_is_summed_for_the_client_and_for_the_record() {
        let first = [message_start(), start(0, "text"), text(0, &"x".repeat(40))];
        let usage = json!({ "input_tokens": 20, "output_tokens": 7, "other": 1 });
        let delta = json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": usage });
        let got = behind(&first, &[message_start(), start(0, "text"), delta.clone()]);
        let got: Value = serde_json::from_str(got.split_once("data: ").unwrap().1.trim_end()).unwrap();
        let (partial, before) = partial(&first);
        let all = 7 + said(&before);
        assert!(all > 8, "{all}");
        assert_eq!(got["usage"], json!({ "input_tokens": 30, "output_tokens": all, "other": 1 }));
        let mut joined = Joined::new(before, partial.seam().unwrap(), Events::default());
        joined.push(format!("{}{}", event(&message_start()), event(&delta)).as_bytes());
        let both = joined.metered();
        let Counts::Known(usage) = &both.usage else { panic!("{both:?}") };
        assert_eq!((usage.tokens.input, usage.tokens.output, both.estimated_output()), (30, 8, Some(all)));
        assert_eq!(both.stop_reason.as_deref(), Some("end_turn"));
    }

    #[test]
    fn what_cannot_be_gone_on_with_is_not() {
        let thinking = json!({ "type": "thinking_delta", "thinking": "hm" });
        for events in [
            vec![],
            vec![message_start()],
            vec![start(0, "text")],
            vec![start(0, "text"), text(0, " \n")],
            vec![
                start(0, "thinking"),
                json!({ "type": "content_block_delta", "index": 0, "delta": thinking }),
                stop(0),
                start(1, "text"),
                text(1, "a"),
            ],
            vec![start(0, "text"), text(0, "a"), stop(0), start(1, "tool_use")],
            vec![
                start(0, "text"),
                json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "citations_delta" } }),
                text(0, "a"),
            ],
            vec![start(0, "text"), text(0, &"x".repeat(KEPT))],
        ] {
            assert!(partial(&events).0.seam().is_none(), "{} events", events.len());
        }
    }

    #[test]
    fn a_second_stream_that_is_no_continuation_is_not_put_behind_the_first() {
        let first = [message_start(), start(0, "text"), text(0, "a")];
        for second in [vec![start(0, "tool_use")], vec![json!({ "type": "content_block_start", "index": "x" })]] {
            let (partial, before) = partial(&first);
            let mut joined = Joined::new(before, partial.seam().unwrap(), Events::default());
            assert!(!second.iter().all(|one| joined.push(event(one).as_bytes())), "{second:?}");
        }
    }

    #[test]
    fn an_empty_conversation_gets_no_comma() {
        let seam = partial(&[start(0, "text"), text(0, "a")]).0.seam().unwrap();
        let body = Bytes::from_static(br#"{"messages":[ ]}"#);
        let joined = seam.body(&body, &Envelope::read(&body).unwrap()).unwrap();
        assert!(serde_json::from_slice::<Value>(&joined).is_ok());
        let odd = Bytes::from_static(br#"{"messages":"x"}"#);
        assert!(seam.body(&odd, &Envelope::read(&odd).unwrap()).is_none());
    }
}
