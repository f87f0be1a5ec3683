//! What happens at the moment, for whoever watches: a bounded ring of events. Who serves never waits for who watches; who
//! watches too slowly loses events and is told how many.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use ledger::money::NanoUsd;
use ledger::record::{Id, Record};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use wire::anthropic;
use wire::protocol::Protocol;
use wire::sse::RawEvent;

/// Events that a viewer may be behind.
const BEHIND: usize = 1024;
/// Viewers at a time.
const VIEWERS: usize = 32;
/// Bytes of text in one event: a model's words are shorter.
const TEXT: usize = 4096;

/// Where events come together. Each is one whole server-sent event.
#[derive(Debug)]
pub struct Hub {
    events: broadcast::Sender<Bytes>,
    viewers: AtomicUsize,
    skipped: AtomicU64,
}

impl Default for Hub {
    fn default() -> Self {
        let events = broadcast::Sender::new(BEHIND);
        Self { events, viewers: AtomicUsize::new(0), skipped: AtomicU64::new(0) }
    }
}

impl Hub {
    /// Whether anybody would see an event: all that it costs when nobody does.
    pub fn is_watched(&self) -> bool {
        self.viewers.load(Ordering::Relaxed) > 0
    }

    /// How many watch.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Ordering::Relaxed)
    }

    /// Events that viewers lost so far, all viewers together.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Begins to watch; `None`: as many watch as may.
    pub fn watch(self: &Arc<Self>) -> Option<Viewer> {
        let room = |viewers| (viewers < VIEWERS).then_some(viewers + 1);
        self.viewers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Viewer { events: self.events.subscribe(), hub: self.clone() })
    }

    /// An exchange begins.
    pub fn started(&self, record: &Record) {
        self.tell("started", || {
            let mut event = serde_json::to_value(&record.parties).unwrap_or_default();
            event["id"] = json!(record.id);
            event["short"] = record.id.short().into();
            event["operation"] = json!(record.operation);
            event["started_us"] = record.started_us.into();
            event
        });
    }

    /// An exchange has ended, well or badly.
    pub fn ended(&self, record: &Record) {
        let name = if record.outcome.is_failure() { "error" } else { "completed" };
        self.tell(name, || {
            let tokens = record.used().map(|_| record.billed());
            let ms = |us: Option<u64>| us.map(|us| us as f64 / 1e3);
            json!({
                "id": record.id,
                "short": record.id.short(),
                "operation": record.operation,
                "outcome": record.outcome,
                "status": record.status,
                "provider": record.parties.provider,
                "model": record.parties.model,
                "session": record.parties.session,
                "agent": record.parties.agent,
                "project": record.parties.project,
                "stop_reason": record.stop_reason,
                "input_tokens": tokens.map(|t| t.input),
                "cache_read_tokens": tokens.map(|t| t.cache_read),
                "cache_write_tokens": tokens.map(|t| t.cache_write.total()),
                "output_tokens": tokens.map(|t| t.output),
                "cost_usd": record.cost.map(|NanoUsd(nano)| nano as f64 / 1e9),
                "duration_ms": ms(record.duration_us),
                "first_token_ms": ms(record.first_token_us),
                "error": record.error,
            })
        });
    }

    /// An answer that is no stream came whole: what it says.
    pub fn whole(&self, id: Id, body: &[u8]) {
        if self.is_watched()
            && let Some(text) = said_whole(body)
        {
            self.say(id, text);
        }
    }

    fn say(&self, id: Id, mut text: String) {
        let cut = text.len() > TEXT;
        if cut {
            text.truncate(text.floor_char_boundary(TEXT));
        }
        self.tell("text_delta", || {
            let mut event = json!({ "id": id, "short": id.short(), "text": text });
            if cut {
                event["cut"] = true.into();
            }
            event
        });
    }

    fn tell(&self, name: &str, event: impl FnOnce() -> Value) {
        if self.is_watched() {
            // The last viewer may have gone meanwhile.
            let _ = self.events.send(frame(name, &event()));
        }
    }
}

fn frame(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}

/// Who watches.
#[derive(Debug)]
pub struct Viewer {
    events: broadcast::Receiver<Bytes>,
    hub: Arc<Hub>,
}

impl Viewer {
    /// The next event; where some were lost, first one that says how many.
    pub async fn next(&mut self) -> Bytes {
        match self.events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(skipped)) => self.lag(skipped),
            // The hub lives as long as its viewers.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    /// Another event that is there already; that some were lost meanwhile is one.
    pub fn more(&mut self) -> Option<Bytes> {
        match self.events.try_recv() {
            Ok(event) => Some(event),
            Err(TryRecvError::Lagged(skipped)) => Some(self.lag(skipped)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    fn lag(&self, skipped: u64) -> Bytes {
        self.hub.skipped.fetch_add(skipped, Ordering::Relaxed);
        frame("lag", &json!({ "skipped": skipped }))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.hub.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells viewers what one answer says, as it passes.
#[derive(Debug)]
pub struct Tap {
    hub: Arc<Hub>,
    id: Id,
    protocol: Protocol,
}

/// What the model says in an event of Chat Completions.
#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

/// And in one of Responses.
#[derive(Deserialize)]
struct Said {
    delta: String,
}

/// What the model says in this event; `None` where it says nothing, thinks, or calls a tool.
fn said(protocol: Protocol, event: &RawEvent<'_>) -> Option<String> {
    let text = match protocol {
        Protocol::AnthropicMessages | Protocol::Ollama => return anthropic::said(event),
        _ if event.is_cut() => return None,
        Protocol::OpenAiChat => {
            let Chunk { choices } = serde_json::from_slice(&event.data()?).ok()?;
            choices.into_iter().next()?.delta.content?
        }
        Protocol::OpenAiResponses => {
            let is_text = event.name() == Some(b"response.output_text.delta");
            let Said { delta } = is_text.then(|| serde_json::from_slice(&event.data()?).ok()).flatten()?;
            delta
        }
    };
    (!text.is_empty()).then_some(text)
}

impl Tap {
    /// Of this exchange, whose client speaks that protocol.
    pub fn new(hub: Arc<Hub>, id: Id, protocol: Protocol) -> Self {
        Self { hub, id, protocol }
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.hub.is_watched()
    }

    /// Looks at an event of the stream, if anybody watches.
    pub fn event(&self, event: &RawEvent<'_>) {
        if self.hub.is_watched()
            && let Some(text) = said(self.protocol, event)
        {
            self.hub.say(self.id, text);
        }
    }
}

/// What an answer says that is no stream, whichever protocol it is of.
fn said_whole(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let all = |list: &'static str| body[list].as_array().into_iter().flatten();
    let parts = all("content").map(|part| &part["text"]);
    let choices = all("choices").map(|choice| &choice["message"]["content"]);
    let output = all("output").flat_map(|item| item["content"].as_array().into_iter().flatten());
    let texts = parts.chain(choices).chain(output.map(|part| &part["text"])).chain([&body["message"]["content"]]);
    let text: String = texts.filter_map(Value::as_str).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ledger::sample;
    use wire::sse::Splitter;

    fn data(event: &Bytes) -> Value {
        let text = std::str::from_utf8(event).unwrap();
        let (_, data) = text.strip_suffix("\n\n").unwrap().split_once("\ndata: ").unwrap();
        serde_json::from_str(data).unwrap()
    }

    #[tokio::test]
    async fn who_watches_sees_what_begins_afterwards() {
        let hub = Arc::new(Hub::default());
        hub.started(&sample::record(1));
        let mut viewer = hub.watch().unwrap();
        hub.started(&sample::record(2));
        hub.ended(&sample::record(2));
        let first = viewer.next().await;
        assert!(first.starts_with(b"event: started\n"));
        assert_eq!(data(&first)["id"], sample::id(2).to_string());
        assert_eq!(data(&viewer.more().unwrap())["short"], sample::id(2).short());
        assert_eq!(viewer.more(), None);
    }

    #[tokio::test]
    async fn who_is_too_slow_loses_the_oldest_and_is_told_how_many() {
        let hub = Arc::new(Hub::default());
        let mut slow = hub.watch().unwrap();
        let mut quick = hub.watch().unwrap();
        for n in 0..BEHIND as u64 + 10 {
            hub.started(&sample::record(n));
            assert_eq!(data(&quick.next().await)["id"], sample::id(n).to_string());
        }
        let lag = slow.next().await;
        assert!(lag.starts_with(b"event: lag\n"));
        assert_eq!(data(&lag)["skipped"], 10);
        assert_eq!(data(&slow.next().await)["id"], sample::id(10).to_string());
        assert_eq!(hub.skipped(), 10);
    }

    #[tokio::test]
    async fn what_is_lost_while_more_is_taken_is_told_too() {
        let hub = Arc::new(Hub::default());
        let mut slow = hub.watch().unwrap();
        for n in 0..BEHIND as u64 + 3 {
            hub.started(&sample::record(n));
        }
        let lag = slow.more().unwrap();
        assert!(lag.starts_with(b"event: lag\n"));
        assert_eq!((data(&lag)["skipped"].as_u64(), hub.skipped()), (Some(3), 3));
        assert_eq!(data(&slow.more().unwrap())["id"], sample::id(3).to_string());
    }

    #[test]
    fn what_is_said_is_told_in_every_protocol() {
        let all = |protocol, stream: &str| {
            let mut found = Vec::new();
            Splitter::new(1 << 20).push(stream.as_bytes(), |event| found.extend(said(protocol, &event)));
            found
        };
        let chat = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"content\":\"caf\\u00e9\"}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}\n\ndata: {\"choices\":[]}\n\ndata: [DONE]\n\n";
        assert_eq!(all(Protocol::OpenAiChat, chat), ["café"]);
        let responses = "event: response.created\ndata: {\"response\":{}}\n\n\
                         event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\n\
                         event: response.function_call_arguments.delta\ndata: {\"delta\":\"{}\"}\n\n";
        assert_eq!(all(Protocol::OpenAiResponses, responses), ["a"]);
        let anthropic = "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"b\"}}\n\n";
        assert_eq!(all(Protocol::AnthropicMessages, anthropic), ["b"]);
    }

    #[test]
    fn whole_answers_are_seen_in_every_protocol() {
        for (body, want) in [
            (
                r#"{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"a"},{"text":"b"}]}"#,
                Some("ab"),
            ),
            (r#"{"choices":[{"message":{"content":"a"}}]}"#, Some("a")),
            (r#"{"output":[{"type":"reasoning"},{"content":[{"type":"output_text","text":"a"}]}]}"#, Some("a")),
            (r#"{"message":{"content":"a"}}"#, Some("a")),
            (r#"{"input_tokens":3}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(said_whole(body.as_bytes()).as_deref(), want, "{body}");
        }
    }

    #[test]
    fn viewers_are_bounded_and_give_their_place_back() {
        let hub = Arc::new(Hub::default());
        let viewers: Vec<_> = (0..VIEWERS).map(|_| hub.watch().unwrap()).collect();
        assert!(hub.watch().is_none() && hub.is_watched());
        drop(viewers);
        assert!(!hub.is_watched());
        assert!(hub.watch().is_some());
    }
}
