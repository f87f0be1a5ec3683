//! The mock upstream: answers of Anthropic, and streams of Chat Completions, made with as little work as possible.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use http1::{BodyDecoder, Limits, RequestHead, Scan, Step, write};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_rustls::TlsAcceptor;

use crate::Fault;
use crate::plan::{HEADER, Plan, Trouble, now};

/// Where the mock says how many requests it has seen; asking that is none.
pub(crate) const SEEN_PATH: &str = "/bench/seen";
/// Requests that came whole.
static SEEN: AtomicU64 = AtomicU64::new(0);
/// Connections that may wait while this process is given no core: thousands come at once.
const BACKLOG: u32 = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to listen; port 0 takes any free one, which is printed
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak TLS, with a certificate for `127.0.0.1` that is written here for those who are to trust it
    #[arg(long)]
    tls: Option<PathBuf>,
}

/// Serves until it is killed. The first line on stdout is the address.
pub(crate) async fn serve(options: Options) -> Result<(), Fault> {
    let tls = options.tls.as_deref().map(acceptor).transpose()?;
    gateway::net::raise_nofile_limit();
    let socket = if options.listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(options.listen)?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    loop {
        // A gateway that is killed resets its connections: no fault of the mock's.
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true)?;
        let tls = tls.clone();
        tokio::task::spawn_local(async move {
            let _ = match tls {
                None => answer(stream).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => answer(stream).await,
                    Err(why) => Err(why),
                },
            };
        });
    }
}

/// Makes a certificate, writes it to `file`, and serves with it.
fn acceptor(file: &Path) -> Result<TlsAcceptor, Fault> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(file, made.cert.pem())?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whoever asks, over whatever.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn answer(mut stream: impl Stream) -> io::Result<()> {
    let (mut input, mut scan, mut out) = (BytesMut::with_capacity(64 * 1024), Scan::default(), BytesMut::new());
    let bad = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
    loop {
        let head = loop {
            match RequestHead::take(&mut input, &mut scan, &Limits::default()).map_err(|e| bad(&e))? {
                Some(head) => break head,
                None => {
                    if more(&mut stream, &mut input).await? == 0 {
                        return Ok(());
                    }
                }
            }
        };
        let mut body = BodyDecoder::new(head.framing);
        loop {
            match body.next(&mut input).map_err(|e| bad(&e))? {
                Step::Data(_) => {}
                Step::End => break,
                Step::More => {
                    if more(&mut stream, &mut input).await? == 0 {
                        return Ok(());
                    }
                }
            }
        }
        if head.path() == SEEN_PATH {
            answered(&mut out, 200, &SEEN.load(Ordering::Relaxed).to_string());
            return send(&mut stream, &out).await;
        }
        SEEN.fetch_add(1, Ordering::Relaxed);
        // Where a gateway translates, it writes a head of its own: of the client's it keeps the name alone.
        let wanted = head.get(HEADER).or(head.get("user-agent")).unwrap_or_default();
        if let Some(trouble) = Trouble::from_value(wanted) {
            match trouble {
                Trouble::Refused(status) => {
                    answered(&mut out, status, r#"{"type":"error","error":{"type":"api_error","message":"no"}}"#);
                    send(&mut stream, &out).await?;
                    out.clear();
                    continue;
                }
                Trouble::Cut => {
                    write::status_line(&mut out, 200, b"OK");
                    write::field(&mut out, b"content-type", b"text/event-stream; charset=utf-8");
                    write::field(&mut out, b"transfer-encoding", b"chunked");
                    out.put_slice(b"\r\n");
                    chunk(&mut out, START);
                    return send(&mut stream, &out).await;
                }
                Trouble::Closed => return Ok(()),
                // Until who asked has enough of it.
                Trouble::Never => return more(&mut stream, &mut input).await.map(|_| ()),
            }
        }
        let plan = Plan::from_value(wanted);
        if head.path() == "/v1/chat/completions" {
            chat(&mut stream, &mut out, plan).await?;
        } else if plan.events == 0 {
            whole(&mut out, plan.bytes);
            send(&mut stream, &out).await?;
        } else {
            streamed(&mut stream, &mut out, plan).await?;
        }
        out.clear();
    }
}

async fn more(stream: &mut impl Stream, input: &mut BytesMut) -> io::Result<usize> {
    input.reserve(64 * 1024);
    stream.read_buf(input).await
}

/// All of it, on its way: TLS keeps what is only written.
async fn send(stream: &mut impl Stream, out: &[u8]) -> io::Result<()> {
    stream.write_all(out).await?;
    stream.flush().await
}

const OPENING: &str = r#"{"id":"msg_bench","type":"message","role":"assistant","model":"claude-bench-1","content":[{"type":"text","text":""#;
const CLOSING: &str =
    r#""}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":128,"output_tokens":200}}"#;

fn whole(out: &mut BytesMut, bytes: usize) {
    let text = bytes.saturating_sub(OPENING.len() + CLOSING.len());
    write::status_line(out, 200, b"OK");
    write::field(out, b"content-type", b"application/json");
    write::field(out, b"request-id", b"req_bench");
    write::content_length(out, (OPENING.len() + text + CLOSING.len()) as u64);
    out.put_slice(b"\r\n");
    out.put_slice(OPENING.as_bytes());
    out.put_bytes(b'x', text);
    out.put_slice(CLOSING.as_bytes());
}

fn chunk(out: &mut BytesMut, payload: &[u8]) {
    out.put_slice(write::ChunkSize::of(payload.len()).as_bytes());
    out.put_slice(payload);
    out.put_slice(write::CHUNK_END);
}

const START: &[u8] = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_bench\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-bench-1\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":128,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";

/// An answer without anything around it.
fn answered(out: &mut BytesMut, status: u16, body: &str) {
    write::status_line(out, status, b"");
    write::field(out, b"content-type", b"application/json");
    write::content_length(out, body.len() as u64);
    out.put_slice(b"\r\n");
    out.put_slice(body.as_bytes());
}

async fn streamed(stream: &mut impl Stream, out: &mut BytesMut, plan: Plan) -> io::Result<()> {
    write::status_line(out, 200, b"OK");
    write::field(out, b"content-type", b"text/event-stream; charset=utf-8");
    write::field(out, b"cache-control", b"no-cache");
    write::field(out, b"request-id", b"req_bench");
    write::field(out, b"transfer-encoding", b"chunked");
    out.put_slice(b"\r\n");
    chunk(out, START);
    send(stream, out).await?;
    let every = Duration::from_millis(plan.delay.max(1));
    let mut ticks = (plan.delay > 0).then(|| interval_at(Instant::now() + every, every));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let mut event = Vec::with_capacity(256);
    for _ in 0..plan.events {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        event.clear();
        event.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"t=");
        event.extend_from_slice(now().to_string().as_bytes());
        event.extend_from_slice(b"; and a few words\"}}\n\n");
        out.clear();
        chunk(out, &event);
        send(stream, out).await?;
    }
    out.clear();
    chunk(out, b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":200}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    out.put_slice(write::LAST_CHUNK);
    send(stream, out).await
}

const CHUNK: &str = r#"data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1795305600,"model":"m","choices":[{"index":0,"delta":{"content":""#;

/// The same stream in Chat Completions; a whole answer where there are no events.
async fn chat(stream: &mut impl Stream, out: &mut BytesMut, plan: Plan) -> io::Result<()> {
    if plan.events == 0 {
        let body = r#"{"id":"chatcmpl-bench","model":"m","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":128,"completion_tokens":200}}"#;
        write::status_line(out, 200, b"OK");
        write::field(out, b"content-type", b"application/json");
        write::content_length(out, body.len() as u64);
        out.put_slice(b"\r\n");
        out.put_slice(body.as_bytes());
        return send(stream, out).await;
    }
    write::status_line(out, 200, b"OK");
    write::field(out, b"content-type", b"text/event-stream; charset=utf-8");
    write::field(out, b"transfer-encoding", b"chunked");
    out.put_slice(b"\r\n");
    send(stream, out).await?;
    let mut event = Vec::with_capacity(256);
    for _ in 0..plan.events {
        event.clear();
        for part in [CHUNK, "t=", &now().to_string(), "; and a few words\"},\"finish_reason\":null}]}\n\n"] {
            event.extend_from_slice(part.as_bytes());
        }
        out.clear();
        chunk(out, &event);
        send(stream, out).await?;
    }
    out.clear();
    chunk(out, b"data: {\"id\":\"chatcmpl-bench\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"chatcmpl-bench\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":128,\"completion_tokens\":200}}\n\ndata: [DONE]\n\n");
    out.put_slice(write::LAST_CHUNK);
    send(stream, out).await
}
