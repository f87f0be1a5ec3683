//! A client that hides nothing: what came, when it came, and how it ended.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::pipes::soon;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As its framing announced.
    Whole,
    /// By the end of the connection, which was announced so.
    Closed,
    /// The connection ended before that.
    Short,
    /// The framing cannot be read.
    Broken,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub ended: Ended,
    /// The payload, piece by piece, with the time since the request was sent.
    pub pieces: Vec<(Duration, Vec<u8>)>,
    /// When its end came.
    pub after: Duration,
}

impl Reply {
    /// The value of a header; it must not be there twice.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = named.next();
        assert_eq!(named.next(), None, "`{name}` twice");
        first
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Whether the connection can carry another request.
    pub fn keeps(&self) -> bool {
        self.ended == Ended::Whole && self.header("connection") != Some("close")
    }

    /// The error type and message of an answer of the gateway's own; checks its shape.
    #[track_caller]
    pub fn refusal(&self) -> (String, String) {
        let body = self.json();
        assert_eq!((self.ended, self.header("content-type")), (Ended::Whole, Some("application/json")));
        assert_eq!(body["type"], "error");
        let own = self.header("x-cco-request-id").expect("an id").replace('-', "");
        assert_eq!(self.header("request-id"), Some(&*format!("req_{own}")));
        assert_eq!(body["request_id"].as_str(), self.header("request-id"));
        let field = |name: &str| body["error"][name].as_str().expect("a text").to_string();
        assert!(!field("message").is_empty());
        (field("type"), field("message"))
    }
}

/// One connection to the gateway.
pub struct Client {
    io: DuplexStream,
    input: BytesMut,
    sent: Instant,
    over: bool,
}

impl Client {
    pub fn new(io: DuplexStream) -> Self {
        Self { io, input: BytesMut::new(), sent: Instant::now(), over: false }
    }

    /// Writes all; a gateway that does not want it is no fault here.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sent = Instant::now();
        soon(self.io.write_all(bytes.as_ref())).await.ok();
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request).await;
        self.reply().await
    }

    /// Reads once. `false`: the gateway has closed.
    pub async fn read(&mut self) -> bool {
        self.input.reserve(64 * 1024);
        self.over = !matches!(soon(self.io.read_buf(&mut self.input)).await, Ok(n) if n > 0);
        !self.over
    }

    /// Everything that comes until the gateway closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read().await {}
        self.input.split().to_vec()
    }

    /// Bytes that have come and belong to no answer that was read.
    pub fn unread(&self) -> &[u8] {
        &self.input
    }

    /// The head of the next answer.
    pub async fn head(&mut self) -> Reply {
        let end = loop {
            if let Some(at) = self.input.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read().await, "the gateway closed within the head: {:?}", self.input);
        };
        let head = self.input.split_to(end);
        let text = std::str::from_utf8(&head).expect("an ASCII head");
        let mut lines = text.split_terminator("\r\n");
        let status_line = lines.next().expect("a status line");
        assert!(status_line.starts_with("HTTP/1.") && status_line.as_bytes()[8] == b' ', "{status_line}");
        let headers = lines.filter(|l| !l.is_empty()).map(|line| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            (name.to_string(), value.to_string())
        });
        Reply {
            status: status_line[9..12].parse().expect("a status"),
            headers: headers.collect(),
            body: Vec::new(),
            ended: Ended::Whole,
            pieces: Vec::new(),
            after: self.sent.elapsed(),
        }
    }

    /// The next final answer.
    pub async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The next final answer to a request of this method.
    pub async fn reply_to(&mut self, method: &str) -> Reply {
        let mut reply = self.head().await;
        while (100..200).contains(&reply.status) {
            reply = self.head().await;
        }
        if method == "HEAD" || matches!(reply.status, 204 | 304) {
            return reply;
        }
        let chunked = reply.header("transfer-encoding").map(|value| assert_eq!(value, "chunked")).is_some();
        let length = reply.header("content-length").map(|v| v.parse::<usize>().expect("a number"));
        assert!(!chunked || length.is_none(), "two framings");
        reply.ended = match length {
            _ if chunked => self.chunks(&mut reply).await,
            Some(length) => self.length(&mut reply, length).await,
            None => {
                self.length(&mut reply, usize::MAX).await;
                Ended::Closed
            }
        };
        reply.after = self.sent.elapsed();
        reply
    }

    async fn chunks(&mut self, reply: &mut Reply) -> Ended {
        loop {
            let Some(at) = self.input.windows(2).position(|w| w == b"\r\n") else {
                match self.read().await {
                    true => continue,
                    false => return Ended::Short,
                }
            };
            let size = std::str::from_utf8(&self.input[..at]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
            let Some(size) = size else { return Ended::Broken };
            self.input.advance(at + 2);
            if self.length(reply, size).await == Ended::Short {
                return Ended::Short;
            }
            while self.input.len() < 2 {
                if !self.read().await {
                    return Ended::Short;
                }
            }
            match &self.input.split_to(2)[..] {
                b"\r\n" if size == 0 => return Ended::Whole,
                b"\r\n" => {}
                _ => return Ended::Broken,
            }
        }
    }

    /// So many bytes more. What comes of a part that stays unfinished counts: a client may have seen it.
    async fn length(&mut self, reply: &mut Reply, mut left: usize) -> Ended {
        loop {
            let data = self.input.split_to(self.input.len().min(left));
            left -= data.len();
            if !data.is_empty() {
                reply.body.extend_from_slice(&data);
                reply.pieces.push((self.sent.elapsed(), data.to_vec()));
            }
            if left == 0 {
                return Ended::Whole;
            }
            if !self.read().await {
                return Ended::Short;
            }
        }
    }

    /// Asserts that the gateway closes now, and that nothing more comes.
    #[track_caller]
    pub fn closes(&mut self) -> impl Future<Output = ()> {
        let place = std::panic::Location::caller();
        async move {
            let rest = self.rest().await;
            assert!(rest.is_empty(), "more came at {place}: {:?}", String::from_utf8_lossy(&rest));
        }
    }
}

/// A prompt's answer of 20 deltas.
pub const BODY: &str = r#"{"model":"claude-sonnet-4-5","max_tokens":1000,"stream":false,"messages":[{"role":"user","content":"hi [[sim events=20 size=40]]"}]}"#;

/// A messages request with these further header lines (each with its CRLF).
pub fn messages(stream: bool, fields: &str) -> Vec<u8> {
    let body = if stream { BODY.replace("\"stream\":false", "\"stream\":true") } else { BODY.to_string() };
    post("/v1/messages?beta=true", &format!("x-api-key: sk-ant-api03-callers-own\r\n{fields}"), &body)
}

/// A POST with a JSON body.
pub fn post(target: &str, fields: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {target} HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nanthropic-version: 2023-06-01\r\n\
         content-type: application/json\r\n{fields}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A GET.
pub fn get(target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:54548\r\nanthropic-version: 2023-06-01\r\n{fields}\r\n")
        .into_bytes()
}
