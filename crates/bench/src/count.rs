//! The pieces of work that are counted instead of timed: how many instructions and allocations one of them takes does not
//! depend on what else the machine does. `cargo xtask guard` runs them under valgrind.

use std::hint::black_box;
use std::path::PathBuf;

use bytes::BytesMut;
use gateway::client::inbound::Operation;
use gateway::config::{Paths, parse};
use gateway::health::{Health, Time};
use gateway::route::{Affinity, Assumed, Facts, Purse, RuleSet, Subscriptions, View};
use http1::{Limits, RequestHead, Scan};
use ledger::journal::{Journal, JournalOptions};
use ledger::loader::catch_up;
use ledger::price::{Billed, PriceTable};
use ledger::record::Record;
use ledger::store::Store as _;
use ledger::store::sqlite::Sqlite;
use serde_json::json;
use wire::codec::{Back, Front};
use wire::envelope::Envelope;
use wire::event::{Block, Delta, Event, Start, Stop, StopReason};
use wire::meter::{self, Meter};
use wire::protocol::Protocol;
use wire::sse::Splitter;
use wire::transcode::{self, Stream};

use crate::Fault;
use crate::inside::Inside;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Which piece; without one, their names are printed
    piece: Option<String>,
    /// How often
    #[arg(long, default_value_t = 1)]
    times: u64,
}

/// One piece of work, made ready; each call does it once.
type Piece = Box<dyn FnMut()>;

/// A name, how many things one call does, and what makes it ready.
type Named = (&'static str, u64, fn() -> Piece);

const PIECES: &[Named] = &[
    ("head", OFTEN, || often(head())),
    ("envelope", 1, envelope),
    ("route", OFTEN, || often(route())),
    ("meter-event", EVENTS, meter_event),
    ("meter-whole", OFTEN, || often(meter_whole())),
    ("translate-event", EVENTS, translate_event),
    ("price", OFTEN, || often(price())),
    ("record-encode", OFTEN, || often(record_encode())),
    ("record-decode", OFTEN, || often(record_decode())),
    ("load", LOADED, load),
    ("exchange", 1, exchange),
    ("relay-event", EVENTS, relay_event),
];

/// Events of a stream.
const EVENTS: u64 = 500;
/// What is small is done so often in one call: else what making it ready takes, which differs by some thousand instructions
/// from run to run (tables with hashes of their own), would look like a difference of the piece.
const OFTEN: u64 = 50;

/// Records that are loaded from the journal at once.
const LOADED: u64 = 50;

fn often(mut piece: Piece) -> Piece {
    Box::new(move || (0..OFTEN).for_each(|_| piece()))
}

/// Does one piece so often, or prints what there is.
pub(crate) fn run(options: &Options) -> Result<(), Fault> {
    let Some(wanted) = &options.piece else {
        PIECES.iter().for_each(|(name, things, _)| println!("{name} {things}"));
        return Ok(());
    };
    let (.., ready) = PIECES.iter().find(|(name, ..)| name == wanted).ok_or_else(|| format!("no piece `{wanted}`"))?;
    let mut piece = ready();
    (0..options.times).for_each(|_| piece());
    Ok(())
}

/// A head as Claude Code sends it.
const HEAD: &str = "POST /v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nAccept: application/json\r\n\
    Content-Type: application/json\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    User-Agent: claude-cli/2.1.330 (external, cli)\r\nX-Claude-Code-Session-Id: 00000000-0000-4000-8000-000000000001\r\n\
    x-claude-code-agent-type: Explore\r\nx-app: cli\r\nanthropic-version: 2023-06-01\r\nX-Stainless-Lang: js\r\n\
    X-Stainless-Retry-Count: 0\r\nX-Stainless-Timeout: 600\r\nx-api-key: k\r\n\
    anthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nContent-Length: 0\r\n\r\n";

fn taken() -> RequestHead {
    let head = RequestHead::take(&mut BytesMut::from(HEAD), &mut Scan::default(), &Limits::default());
    head.ok().flatten().expect("it is a whole head")
}

fn head() -> Piece {
    Box::new(|| _ = black_box(taken()))
}

/// A request body of 1 MB: what an agent sends after a day.
fn body() -> Vec<u8> {
    let line = "Read the file \"src/main.rs\" first.\nThen say what it does, in one sentence; nothing more.\n";
    let messages: Vec<_> = (0..100).map(|_| json!({"role": "user", "content": line.repeat(110)})).collect();
    let body = json!({"model": "claude-sonnet-5-5", "max_tokens": 8000, "stream": true, "messages": messages});
    body.to_string().into_bytes()
}

fn envelope() -> Piece {
    let body = body();
    Box::new(move || _ = black_box(Envelope::read(black_box(&body))))
}

/// A hundred rules of which the last one matches.
fn route() -> Piece {
    // Each unlike all others, since what rules share is looked at once.
    let never = |n: usize| {
        format!(r#"{{ "when": {{ "model": ["*haiku-{n}*", "gpt-{n}-*"] }}, "use": {{ "providers": ["b"] }} }},"#)
    };
    let last = r#"{ "when": { "model": "claude-*" }, "use": { "providers": ["b"] } }"#;
    let text = format!(
        r#"{{ "providers": {{
            "a": {{ "providerType": "anthropic", "apiKeyRef": "env:A" }},
            "b": {{ "providerType": "anthropic-compatible", "baseUrl": "https://b.test", "apiKeyRef": "env:B" }},
        }}, "routing": {{ "defaultProvider": "a", "fallbackChain": ["a", "b"], "rules": [{}{last}] }} }}"#,
        (0..99).map(never).collect::<String>()
    );
    let (config, _) = parse(&text, &Paths::default()).expect("it is a configuration");
    let (rules, head, body) = (RuleSet::compile(&config), taken(), body());
    let envelope = Envelope::read(&body).expect("nothing stands twice");
    let (keys, health) = (Assumed::of(&config), Health::new(["a", "b"].map(String::from)));
    let (affinity, subscriptions) = (Affinity::default(), Subscriptions::default());
    let purse = Purse { own: None, stored: true };
    Box::new(move || {
        let view = View {
            now: Time::from_ms(1),
            health: &health,
            keys: &keys,
            affinity: &affinity,
            subscriptions: &subscriptions,
            prices: &(),
            chance: 1,
        };
        let body = Some((&body[..], &envelope));
        let facts = Facts::of(&head, body, Protocol::AnthropicMessages, Operation::Generation, rules.guess());
        let targets = rules.plan(&facts, &purse, &view).map_or(0, |plan| plan.targets.len());
        assert_eq!(black_box(targets), 2);
    })
}

const FRONT: Front<'static> = Front {
    id: "req_1",
    model: "claude-sonnet-5-5",
    created: 1_800_000_000,
    input_estimate: 50_000,
    stream_usage: true,
    show_reasoning: true,
};

/// A stream as an upstream of that protocol sends it, one event a piece.
fn pieces(protocol: Protocol) -> Vec<Vec<u8>> {
    let mut encoder = transcode::inbound(protocol).expect("clients speak it").encode_stream(&FRONT);
    let mut pieces = Vec::new();
    let mut write = |event: Event<'_>| {
        let mut out = Vec::new();
        encoder.event(&event, &mut out);
        pieces.push(out);
    };
    write(Event::Start(Start { id: "1".into(), model: "m".into(), usage: None }));
    write(Event::Open(Block::Text));
    (0..EVENTS).for_each(|n| write(Event::Delta(Delta::Text(format!(" word number {n}").into()))));
    write(Event::Close);
    write(Event::Stop(Stop::new(StopReason::EndTurn)));
    pieces
}

/// What is done for a stream that passes.
fn meter_event() -> Piece {
    let pieces = pieces(Protocol::AnthropicMessages);
    Box::new(move || {
        let (mut splitter, mut meter) = (Splitter::new(1 << 20), Meter::default());
        for piece in &pieces {
            splitter.push(black_box(piece), |event| meter.event(&event));
        }
        black_box(meter.metered());
    })
}

/// A whole answer of 1 KB.
fn answer() -> String {
    let text = "word ".repeat(160);
    let answer = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 160, "service_tier": "standard"},
    });
    answer.to_string()
}

fn meter_whole() -> Piece {
    let answer = answer();
    Box::new(move || _ = black_box(meter::whole(black_box(answer.as_bytes()))))
}

fn translate_event() -> Piece {
    let pieces = pieces(Protocol::OpenAiChat);
    let upstream = transcode::upstream(Protocol::OpenAiChat).expect("upstreams speak it");
    let inbound = transcode::inbound(Protocol::AnthropicMessages).expect("clients speak it");
    let mut out = Vec::with_capacity(1 << 16);
    Box::new(move || {
        let mut stream = Stream::new(upstream, inbound, &Back::default(), &FRONT);
        for piece in &pieces {
            out.clear();
            stream.push(black_box(piece), &mut out);
            black_box(&out);
        }
        stream.end(&mut out);
    })
}

fn price() -> Piece {
    let (table, record) = (PriceTable::built_in(), ledger::sample::record(1));
    let usage = record.usage.expect("it has one");
    Box::new(move || {
        let billed = Billed {
            provider: "anthropic",
            model: "claude-sonnet-4-5-20250929",
            at: 1_795_000_000,
            usage: &usage,
            estimated_output: None,
            notional: false,
        };
        _ = black_box(table.cost(black_box(&billed)));
    })
}

fn record_encode() -> Piece {
    let (record, mut out) = (ledger::sample::record(1), Vec::with_capacity(4096));
    Box::new(move || {
        out.clear();
        black_box(&record).write_cbor(&mut out);
        black_box(&out);
    })
}

fn record_decode() -> Piece {
    let mut bytes = Vec::new();
    ledger::sample::record(1).write_cbor(&mut bytes);
    Box::new(move || _ = black_box(Record::from_cbor(black_box(&bytes))))
}

/// What other threads do for a record: it is handed over to the journal, and goes from there into a store in a temporary
/// folder. Each call has records of its own, since those that are known are left alone.
fn load() -> Piece {
    let folder = Scratch::new();
    let mut writer = Sqlite::new(folder.0.join("ledger.db")).writer().expect("a store can be made");
    let mut next = 0;
    Box::new(move || {
        let options = JournalOptions { ballast_bytes: 0, ..JournalOptions::new(folder.0.join("journal")) };
        let journal = Journal::open(options).expect("a journal can be opened");
        let acks: Vec<_> = (next..next + LOADED).map(|n| journal.finish(ledger::sample::record(n))).collect();
        acks.into_iter().for_each(|ack| _ = ack.wait().expect("the journal takes it"));
        journal.close();
        drop(journal);
        let counts = catch_up(&mut *writer, &folder.0.join("journal")).expect("what was written can be loaded");
        assert_eq!(counts.new, LOADED);
        next += LOADED;
    })
}

/// A folder of this process that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("cco-count-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Self(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A small request and its answer, from head to record.
fn exchange() -> Piece {
    let mut inside = Inside::new("application/json", &[answer().into_bytes()]);
    Box::new(move || inside.exchange())
}

/// A stream that passes, one event at a time.
fn relay_event() -> Piece {
    let mut inside = Inside::new("text/event-stream", &pieces(Protocol::AnthropicMessages));
    Box::new(move || inside.exchange())
}
