//! A gateway between two pipes in memory, for the pieces that are counted: what an exchange takes without the part of the
//! system, which `bench calls` looks at.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway::client::Phases;
use gateway::client::peer::Peer;
use gateway::config::{Env, Paths, parse};
use gateway::gateway::Worker;
use gateway::net::{BoxFuture, Cause, Dial, DialError, Stream};
use gateway::origin::Origin;
use gateway::recorder::{Book, Recorder};
use gateway::server::connection::serve_connection;
use gateway::setup;
use ledger::journal::{Ack, Position};
use ledger::record::Record;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// Bytes that a pipe holds.
const PIPE: usize = 64 * 1024;
const BODY: &str = r#"{"model":"claude-sonnet-5-5","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"Say hello."}]}"#;
/// The end of every answer.
const END: &[u8] = b"0\r\n\r\n";

/// The way from a client to an upstream and back, taken again and again on the same two connections.
pub(crate) struct Inside {
    runtime: Runtime,
    tasks: LocalSet,
    client: DuplexStream,
    request: Vec<u8>,
    seen: Vec<u8>,
}

/// Has one connection to give.
#[derive(Debug)]
struct Once(Mutex<Option<DuplexStream>>);

impl Dial for Once {
    fn dial<'a>(&'a self, origin: &'a Origin, _: Duration) -> BoxFuture<'a, Result<Stream, DialError>> {
        let near = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let refused = || DialError { origin: origin.clone(), cause: Cause::Refused, detail: "it was given".into() };
        Box::pin(async move { near.map(Stream::pipe).ok_or_else(refused) })
    }
}

/// Takes everything and keeps nothing: what a record costs is counted by itself.
#[derive(Debug)]
struct Gone;

impl Book for Gone {
    fn start(&self, _: &mut Record) -> Ack {
        Ack::known(Ok(Position::default()))
    }

    fn finish(&self, _: Box<Record>) -> Ack {
        Ack::known(Ok(Position::default()))
    }
}

impl Inside {
    /// A gateway whose upstream answers with these pieces of a body, each of which is read before the next is written.
    pub(crate) fn new(kind: &str, pieces: &[Vec<u8>]) -> Self {
        let text = r#"{ "providers": { "anthropic": { "baseUrl": "http://upstream.test", "apiKeyRef": "env:KEY" } } }"#;
        let (config, _) = parse(text, &Paths::default()).expect("it is a configuration");
        let (near, far) = tokio::io::duplex(PIPE);
        let (env, dialer) = (Env::fixed([("KEY", "sk-ant-api03-0123456789")]), Arc::new(Once(Mutex::new(Some(near)))));
        let recorder = Recorder::to(Arc::new(Gone));
        let (gateway, _) = setup::gateway(&config, &env, "bench", dialer, recorder).expect("it can be served from");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("there is memory");
        let (tasks, (near, client)) = (LocalSet::new(), tokio::io::duplex(PIPE));
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = |piece: &Vec<u8>| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        let answer: Vec<_> =
            [head.into_bytes()].into_iter().chain(pieces.iter().map(chunk)).chain([END.to_vec()]).collect();
        tasks.spawn_local(upstream(far, answer));
        tasks.spawn_local(async move {
            let worker = Rc::new(Worker::new(Arc::new(gateway), &Phases::default()));
            let [remote, local] = ["127.0.0.1:40000", "127.0.0.1:54548"].map(|a| a.parse().expect("it is an address"));
            serve_connection(near, Peer::known(remote, local, true), worker).await;
        });
        let request = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: 127.0.0.1:54548\r\ncontent-type: application/json\r\n\
             anthropic-version: 2023-06-01\r\nuser-agent: claude-cli/2.1.330 (external, cli)\r\n\
             content-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        Self { runtime, tasks, client, request: request.into_bytes(), seen: Vec::with_capacity(PIPE) }
    }

    /// One exchange, from its request to the end of its answer.
    pub(crate) fn exchange(&mut self) {
        let Self { runtime, tasks, client, request, seen } = self;
        tasks.block_on(runtime, async {
            seen.clear();
            client.write_all(request).await.expect("the gateway stands");
            while !seen.ends_with(END) {
                let n = client.read_buf(seen).await.expect("the gateway stands");
                assert!(n > 0, "the gateway has closed: {}", String::from_utf8_lossy(seen));
            }
            assert!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(seen));
        });
    }
}

/// Answers every request in the same way.
async fn upstream(mut io: DuplexStream, answer: Vec<Vec<u8>>) {
    let mut asked = Vec::with_capacity(PIPE);
    while io.read_buf(&mut asked).await.is_ok_and(|n| n > 0) {
        if !asked.ends_with(BODY.as_bytes()) {
            continue;
        }
        asked.clear();
        for piece in &answer {
            if io.write_all(piece).await.is_err() {
                return;
            }
            // The gateway goes first: what it reads at once is one piece.
            tokio::task::yield_now().await;
        }
    }
}
