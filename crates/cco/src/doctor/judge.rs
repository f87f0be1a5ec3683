//! What an answer must be like, whoever gave it: legal orders of events, pieces that come when they are made, errors in
//! the protocol's shape.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::http::Whole;

/// The fields that a stream should carry, so that nobody on the way holds it back or closes behind it.
pub(super) const FIELDS: [(&str, &str); 4] = [
    ("content-type", "text/event-stream"),
    ("cache-control", "no-cache"),
    ("connection", "keep-alive"),
    ("x-accel-buffering", "no"),
];

/// What a whole stream came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Events {
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) text: String,
    /// The first thing that is against the protocol.
    pub(super) fault: Option<String>,
}

impl Events {
    /// Of a stream of Anthropic's protocol.
    pub(super) fn of(stream: &[u8]) -> Self {
        let mut this = Self::default();
        let text = String::from_utf8_lossy(stream).replace("\r\n", "\n");
        let (mut open, mut told, mut ended) = (false, false, false);
        let mut n = 0u64;
        for event in text.split("\n\n").filter(|event| !event.trim().is_empty()) {
            let of = |field: &str| event.lines().find_map(|line| line.strip_prefix(field)).map(str::trim_start);
            // A comment is a sign of life.
            let Some(name) = of("event:") else {
                if of("data:").is_some() {
                    this.wrong(n, "data without the name of an event");
                }
                continue;
            };
            n += 1;
            *this.counts.entry(name.to_owned()).or_default() += 1;
            let data: Value = of("data:").and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
            if data["type"] != name {
                this.wrong(n, &format!("`{name}` whose data is of another type"));
            }
            if ended {
                this.wrong(n, "something behind `message_stop`");
            }
            if (n == 1) != (name == "message_start") && name != "ping" {
                this.wrong(n, if n == 1 { "not `message_start`" } else { "a second `message_start`" });
            }
            match name {
                "content_block_start" if std::mem::replace(&mut open, true) => this.wrong(n, "a block within a block"),
                "content_block_stop" if !std::mem::replace(&mut open, false) => this.wrong(n, "the end of no block"),
                "content_block_delta" if !open => this.wrong(n, "a delta outside of a block"),
                "content_block_delta" => this.text += data["delta"]["text"].as_str().unwrap_or_default(),
                "message_delta" if open => this.wrong(n, "`message_delta` within a block"),
                "message_delta" => told = true,
                "message_stop" if !told => this.wrong(n, "`message_stop` without `message_delta`"),
                "message_stop" => ended = true,
                "error" => this.wrong(n, data["error"]["message"].as_str().unwrap_or("an error")),
                _ => {}
            }
        }
        if !ended {
            this.wrong(n, "no `message_stop`");
        }
        this
    }

    fn wrong(&mut self, at: u64, what: &str) {
        self.fault.get_or_insert_with(|| format!("{what} (event {at})"));
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }
}

/// The fields of [`FIELDS`] that a head does not have.
pub(super) fn missing(answer: &Whole) -> Vec<String> {
    let has = |(name, want): &(&str, &str)| answer.field(name).is_some_and(|value| value.starts_with(want));
    FIELDS.iter().filter(|field| !has(field)).map(|(name, want)| format!("`{name}: {want}`")).collect()
}

/// In how many pieces an answer came, over which time.
pub(super) fn pieces(answer: &Whole) -> (usize, Duration) {
    let span = match (answer.arrivals.first(), answer.arrivals.last()) {
        (Some((first, _)), Some((last, _))) => *last - *first,
        _ => Duration::ZERO,
    };
    (answer.arrivals.len(), span)
}

/// What is wrong with an error as Anthropic's protocol has it; `None`: nothing.
pub(super) fn error_fault(body: &Value) -> Option<&'static str> {
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    match () {
        () if body["type"] != "error" => Some("its body has no `\"type\": \"error\"`"),
        () if !text(&body["error"]["type"]) => Some("its body has no `error.type`"),
        () if !text(&body["error"]["message"]) => Some("its body has no `error.message`"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\"}\n\n\
        event: content_block_start\ndata: {\"type\":\"content_block_start\"}\n\n\
        event: ping\ndata: {\"type\":\"ping\"}\n\n: alive\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"Hi\"}}\n\n\
        event: content_block_stop\ndata: {\"type\":\"content_block_stop\"}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\"}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    #[track_caller]
    fn check(stream: &str, fault: Option<&str>) {
        let events = Events::of(stream.as_bytes());
        assert_eq!(events.fault.as_deref().map(|told| told.split(" (").next().unwrap()), fault, "{events:?}");
    }

    #[test]
    fn only_legal_orders_are_legal() {
        check(STREAM, None);
        check(&STREAM.replace('\n', "\r\n"), None);
        let told = Events::of(STREAM.as_bytes());
        assert_eq!((told.text.as_str(), told.count("ping"), told.count("error")), ("Hi", 1, 0));
        let events: Vec<&str> = STREAM.split_inclusive("\n\n").collect();
        let without = |n: usize| [&events[..n], &events[n + 1..]].concat().concat();
        check(&without(0), Some("not `message_start`"));
        check(&without(1), Some("a delta outside of a block"));
        check(&without(5), Some("`message_delta` within a block"));
        check(&without(6), Some("`message_stop` without `message_delta`"));
        check(&without(7), Some("no `message_stop`"));
        check(&format!("{STREAM}{}", events[2]), Some("something behind `message_stop`"));
        check(&format!("{}{STREAM}", events[0]), Some("a second `message_start`"));
        check(&STREAM.replace("event: ping", "event: pong"), Some("`pong` whose data is of another type"));
        check("", Some("no `message_stop`"));
    }

    #[test]
    fn an_error_has_its_three_parts() {
        let good = serde_json::json!({ "type": "error", "error": { "type": "api_error", "message": "x" } });
        assert_eq!(error_fault(&good), None);
        for (pointer, part) in [("/type", "type"), ("/error/type", "error.type"), ("/error/message", "error.message")] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).unwrap() = "".into();
            assert!(error_fault(&bad).unwrap().contains(part), "{bad}");
        }
    }
}
