//! Clients that ask for all sorts of answers and remember what they saw.

use std::net::SocketAddr;

use serde_json::json;

use crate::common::client::Client;
use crate::common::dice::Dice;
use crate::common::{Ended, Piece, contains, request, whole_events};
use crate::simulator::TAG;

/// A model whose price the configuration names.
pub(crate) const MODEL: &str = "claude-of-the-crash-test";

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Reads to the end.
    Reads,
    /// Goes when the first piece of text is there.
    Leaves,
    /// Goes before anything is there.
    HangsUp,
}

/// What the record must say of usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Used {
    /// Everything that the simulator reported.
    All,
    /// What it reported at the beginning.
    Prompt,
    /// That there is none.
    Nothing,
    /// Whatever it says.
    Any,
}

/// What is asked, and what must become of it.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    target: &'static str,
    script: &'static str,
    stream: bool,
    does: Does,
    pub(crate) outcome: &'static str,
    pub(crate) status: u16,
    pub(crate) used: Used,
    /// Whether it goes up at all.
    pub(crate) goes_up: bool,
}

const fn kind(
    name: &'static str,
    stream: bool,
    script: &'static str,
    outcome: &'static str,
    status: u16,
    used: Used,
) -> Kind {
    Kind { name, target: "/v1/messages", script, stream, does: Does::Reads, outcome, status, used, goes_up: true }
}

const fn left(name: &'static str, script: &'static str, does: Does) -> Kind {
    Kind { does, ..kind(name, true, script, "client_disconnected", 200, Used::Any) }
}

/// All sorts. Those that come first come more often.
pub(crate) const KINDS: &[Kind] = &[
    kind("a stream", true, "events=5", "success", 200, Used::All),
    kind("a slow stream", true, "events=20 every=4", "success", 200, Used::All),
    kind("a whole answer", false, "text=hello", "success", 200, Used::All),
    kind("a slow whole answer", false, "text=hello first=30", "success", 200, Used::All),
    kind("a stream in crumbs", true, "events=4 chunk=11 crlf pings", "success", 200, Used::All),
    kind("a packed stream", true, "events=4 fault=gzip", "success", 200, Used::All),
    kind("a packed answer", false, "text=hello fault=zstd", "success", 200, Used::All),
    kind("an answer by the end of the connection", false, "text=hello fault=http10", "success", 200, Used::All),
    kind("an overload", true, "fault=529", "upstream_error", 529, Used::Nothing),
    kind("a bad request", false, "fault=400", "upstream_error", 400, Used::Nothing),
    kind("an error page", true, "fault=502-html", "upstream_error", 502, Used::Nothing),
    kind("an error in the stream", true, "events=9 every=2 fault=error-mid", "upstream_error", 200, Used::Prompt),
    kind("an error at once", true, "fault=error-first", "upstream_error", 200, Used::Any),
    kind("a truncated stream", true, "events=9 fault=truncate", "truncated", 200, Used::Prompt),
    kind("a stream that breaks off", true, "events=9 every=2 fault=cut=5ev", "truncated", 200, Used::Prompt),
    kind("a stream that is reset", true, "events=9 every=2 fault=reset=5ev", "truncated", 200, Used::Any),
    kind("no answer", true, "fault=close-before-head", "upstream_error", 502, Used::Nothing),
    kind("no HTTP", false, "fault=garbage", "upstream_error", 502, Used::Nothing),
    left("a client that leaves", "events=9 every=2 fault=stall=5ev", Does::Leaves),
    left("a client that leaves an endless stream", "fault=endless every=3", Does::Leaves),
    Kind { status: 0, ..left("a client that hangs up", "fault=no-bytes", Does::HangsUp) },
    Kind { goes_up: false, ..kind("a broken request", false, "", "rejected", 400, Used::Nothing) },
    Kind { target: "/v1/messages/count_tokens", ..kind("a count", false, "", "success", 200, Used::Any) },
    Kind { target: "/v1/models", ..kind("a list of models", false, "", "success", 200, Used::Any) },
];

/// Token counts that the simulator reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) input: i64,
    pub(crate) cache_read: i64,
    pub(crate) cache_write: i64,
    pub(crate) output: i64,
}

impl Tokens {
    fn new(dice: &mut Dice) -> Self {
        let mut some = |most| 1 + dice.below(most) as i64;
        Self { input: some(5000), cache_read: some(90_000), cache_write: some(9000), output: some(4000) }
    }

    /// In billionths of a dollar, at 3, 0.30, 3.75 and 15 dollars a million.
    pub(crate) fn cost(&self) -> i64 {
        3000 * self.input + 300 * self.cache_read + 3750 * self.cache_write + 15_000 * self.output
    }
}

/// How an exchange ended for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client knows how it ended.
    Known,
    /// The connection broke, or there was none.
    Broken,
    /// The client went.
    Left,
}

/// What a client saw of an exchange.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) tag: String,
    pub(crate) kind: &'static Kind,
    pub(crate) tokens: Tokens,
    /// The gateway's name for it.
    pub(crate) id: Option<String>,
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) end: End,
}

/// One of them by chance.
pub(crate) fn any_kind(dice: &mut Dice) -> &'static Kind {
    let at = dice.below(KINDS.len() as u64).min(dice.below(KINDS.len() as u64 + 8));
    &KINDS[at as usize]
}

/// A client with a connection of its own, as long as there is one.
pub(crate) struct Asker {
    addr: SocketAddr,
    client: Option<Client>,
    dice: Dice,
}

impl Asker {
    pub(crate) fn new(addr: SocketAddr, dice: Dice) -> Self {
        Self { addr, client: None, dice }
    }

    /// One exchange. `at_end` is called in the moment in which the client knows the end. `None`: there is no gateway.
    pub(crate) async fn ask(
        &mut self,
        kind: &'static Kind,
        tag: String,
        at_end: &mut (dyn FnMut() + Send),
    ) -> Option<Seen> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::try_connect(self.addr).await.ok()?,
        };
        let tokens = Tokens::new(&mut self.dice);
        let mut seen = Seen { tag, kind, tokens, id: None, status: 0, bytes: 0, end: End::Broken };
        self.client = self.exchange(client, &mut seen, at_end).await;
        Some(seen)
    }

    async fn exchange(
        &mut self,
        mut client: Client,
        seen: &mut Seen,
        at_end: &mut (dyn FnMut() + Send),
    ) -> Option<Client> {
        client.try_send(request_of(seen)).await.ok()?;
        if seen.kind.does == Does::HangsUp {
            self.dice.moment(0..=30).await;
            seen.end = End::Left;
            return None;
        }
        let mut answer = client.try_head().await?;
        seen.id = Some(answer.id().to_owned());
        seen.status = answer.status;
        let events = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
            && answer.header("content-encoding").is_none();
        let ended = loop {
            match client.piece().await {
                Piece::Data(data) => answer.body.extend_from_slice(&data),
                Piece::End(ended) => break ended,
            }
            seen.bytes = answer.body.len() as u64;
            if seen.kind.does == Does::Leaves && contains(&answer.body, b"content_block_delta") {
                seen.end = End::Left;
                return None;
            }
            if events && seen.end == End::Broken && is_ended(&answer.body) {
                seen.end = End::Known;
                at_end();
            }
        };
        if ended == Ended::Whole && seen.end == End::Broken {
            seen.end = End::Known;
            at_end();
        }
        let goes_on = ended == Ended::Whole && answer.header("connection") != Some("close");
        goes_on.then_some(client)
    }
}

/// Whether a stream's last event is there, whole.
fn is_ended(body: &[u8]) -> bool {
    let events = &body[..whole_events(body)];
    contains(events, b"event: message_stop") || contains(events, b"event: error")
}

fn request_of(seen: &Seen) -> Vec<u8> {
    let (kind, t) = (seen.kind, seen.tokens);
    let script = format!(
        "{} input_tokens={} cache_read={} cache_5m={} output_tokens={}",
        kind.script, t.input, t.cache_read, t.cache_write, t.output
    );
    let fields = format!("{TAG}: {}\r\nx-sim: {script}\r\n", seen.tag);
    if kind.target == "/v1/models" {
        return request("GET", kind.target, &fields, "");
    }
    let mut body = json!({
        "model": MODEL, "max_tokens": 1000, "stream": kind.stream,
        "messages": [{ "role": "user", "content": seen.tag }],
    })
    .to_string();
    if !kind.goes_up {
        // Two models: nobody can say which is meant.
        body = body.replacen('{', "{\"model\":\"another\",", 1);
    }
    request("POST", kind.target, &fields, body)
}
