//! A client that hides nothing: what came, in which pieces, and how the connection ended.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sim::{Received, Sim, SimConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A simulator that listens on a free port.
pub(crate) struct Server {
    pub(crate) sim: Arc<Sim>,
    pub(crate) addr: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    _guard: DropGuard,
}

pub(crate) async fn start(config: SimConfig) -> Server {
    let sim = Sim::new(config).unwrap();
    let listener = sim.bind().await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(sim.clone().serve(listener, stop.clone()));
    tasks.close();
    Server { sim, addr, _guard: stop.clone().drop_guard(), stop, tasks }
}

impl Server {
    pub(crate) async fn client(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.addr).await.unwrap())
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Response {
        self.client().await.ask(request).await
    }

    pub(crate) async fn last_ended(&self) -> Received {
        let ended = |all: &[Received]| all.last().is_some_and(|last| last.end.is_some());
        soon(self.sim.wait_for(ended)).await;
        self.sim.requests().pop().unwrap()
    }
}

/// A time-out for what should happen at once: a hanging test says where it hangs.
#[track_caller]
pub(crate) fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move { tokio::time::timeout(Duration::from_secs(20), what).await.unwrap_or_else(|_| panic!("hangs at {place}")) }
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As its framing announced.
    Whole,
    /// The connection was closed before that.
    Short,
    Reset,
    /// The framing cannot be read.
    Broken,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The chunks of a chunked body, whole ones and the last one as far as it came.
    pub(crate) chunks: Vec<Vec<u8>>,
    pub(crate) ended: Ended,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {:?}", self.text()))
    }

    /// The whole events of a stream: name and data.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let text = self.text().replace("\r\n", "\n");
        let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
        whole
            .split("\n\n")
            .filter(|event| !event.is_empty())
            .map(|event| {
                let (name, data) = event.split_once('\n').unwrap();
                let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                let name = name.strip_prefix("event: ").unwrap();
                assert_eq!(data["type"], name);
                (name.to_owned(), data)
            })
            .collect()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.events().into_iter().map(|(name, _)| name).collect()
    }

    /// The content of a streamed message, put together again; checks the order of the events.
    pub(crate) fn message(&self) -> Value {
        let mut message = Value::Null;
        let mut open: Option<usize> = None;
        let mut input = String::new();
        let mut stopped = false;
        for (name, data) in self.events() {
            assert!(!stopped, "nothing comes behind message_stop");
            match name.as_str() {
                "message_start" => message = data["message"].clone(),
                "content_block_start" => {
                    let content = message["content"].as_array_mut().unwrap();
                    assert_eq!((open, data["index"].as_u64().unwrap() as usize), (None, content.len()));
                    open = Some(content.len());
                    content.push(data["content_block"].clone());
                    input.clear();
                }
                "content_block_delta" => {
                    assert_eq!(data["index"].as_u64().unwrap() as usize, open.unwrap());
                    let block = &mut message["content"][open.unwrap()];
                    for field in ["text", "thinking", "signature"] {
                        if let Some(more) = data["delta"][field].as_str() {
                            block[field] = format!("{}{more}", block[field].as_str().unwrap()).into();
                        }
                    }
                    input.push_str(data["delta"]["partial_json"].as_str().unwrap_or_default());
                }
                "content_block_stop" => {
                    let block = &mut message["content"][open.take().unwrap()];
                    if !input.is_empty() {
                        block["input"] = serde_json::from_str(&input).unwrap();
                    }
                }
                "message_delta" => {
                    for (field, value) in data["delta"].as_object().unwrap() {
                        message[field] = value.clone();
                    }
                    for (field, value) in data["usage"].as_object().unwrap() {
                        message["usage"][field] = value.clone();
                    }
                }
                "message_stop" => stopped = true,
                "ping" => {}
                other => panic!("an event `{other}`"),
            }
        }
        assert!(stopped, "the stream has no message_stop");
        message
    }
}

pub(crate) struct Client<S> {
    io: S,
    input: Vec<u8>,
}

enum Input {
    More,
    End,
    Reset,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, input: Vec::new() }
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Response {
        self.send(request).await;
        soon(self.response(false)).await.expect("an answer")
    }

    pub(crate) async fn send(&mut self, request: impl AsRef<[u8]>) {
        self.io.write_all(request.as_ref()).await.unwrap();
    }

    async fn more(&mut self) -> Input {
        match self.io.read_buf(&mut self.input).await {
            Ok(0) => Input::End,
            Ok(_) => Input::More,
            Err(_) => Input::Reset,
        }
    }

    /// Reads until `holds` is true of what is unread; `false` if the end comes first.
    pub(crate) async fn read_until(&mut self, holds: impl Fn(&[u8]) -> bool) -> bool {
        while !holds(&self.input) {
            if !matches!(soon(self.more()).await, Input::More) {
                return false;
            }
        }
        true
    }

    /// Waits until anything more comes, or the end.
    pub(crate) async fn read_more(&mut self) {
        self.more().await;
    }

    /// What came behind the last response.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.input
    }

    /// The next response; `None` if the connection ends before its head.
    pub(crate) async fn response(&mut self, to_head: bool) -> Option<Response> {
        let end = loop {
            if let Some(at) = find(&self.input, b"\r\n\r\n") {
                break at + 4;
            }
            match self.more().await {
                Input::More => {}
                Input::End | Input::Reset => return None,
            }
        };
        let head: Vec<u8> = self.input.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let mut status = lines.next().unwrap().split(' ');
        let mut response = Response {
            version: status.next().unwrap().to_owned(),
            status: status.next().unwrap().parse().unwrap(),
            headers: lines
                .map(|line| line.split_once(": ").unwrap())
                .map(|(n, v)| (n.to_owned(), v.to_owned()))
                .collect(),
            body: Vec::new(),
            chunks: Vec::new(),
            ended: Ended::Whole,
        };
        if response.status == 100 || to_head {
            return Some(response);
        }
        if let Some(length) = response.header("content-length") {
            let length = length.parse().unwrap();
            response.ended = self.fill(length).await;
            let length = self.input.len().min(length);
            response.body = self.input.drain(..length).collect();
        } else if response.header("transfer-encoding") == Some("chunked") {
            response.ended = self.chunks(&mut response.chunks).await;
            response.body = response.chunks.concat();
        } else {
            response.ended = loop {
                match self.more().await {
                    Input::More => {}
                    Input::End => break Ended::Whole,
                    Input::Reset => break Ended::Reset,
                }
            };
            response.body = std::mem::take(&mut self.input);
        }
        Some(response)
    }

    async fn fill(&mut self, length: usize) -> Ended {
        while self.input.len() < length {
            match self.more().await {
                Input::More => {}
                Input::End => return Ended::Short,
                Input::Reset => return Ended::Reset,
            }
        }
        Ended::Whole
    }

    async fn chunks(&mut self, chunks: &mut Vec<Vec<u8>>) -> Ended {
        loop {
            let line = loop {
                if let Some(at) = find(&self.input, b"\r\n") {
                    break self.input.drain(..at + 2).collect::<Vec<u8>>();
                }
                match self.more().await {
                    Input::More => {}
                    Input::End => return Ended::Short,
                    Input::Reset => return Ended::Reset,
                }
            };
            let size = std::str::from_utf8(&line).unwrap().trim_end();
            let Ok(size) = usize::from_str_radix(size, 16) else { return Ended::Broken };
            let ended = self.fill(size + 2).await;
            if ended != Ended::Whole {
                let came = self.input.len().min(size);
                chunks.push(self.input.drain(..came).collect());
                return ended;
            }
            let chunk: Vec<u8> = self.input.drain(..size).collect();
            let end: Vec<u8> = self.input.drain(..2).collect();
            assert_eq!(end, b"\r\n");
            if size == 0 {
                return Ended::Whole;
            }
            chunks.push(chunk);
        }
    }

    /// Reads to the end of the connection.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Ended) {
        let ended = loop {
            match soon(self.more()).await {
                Input::More => {}
                Input::End => break Ended::Short,
                Input::Reset => break Ended::Reset,
            }
        };
        (std::mem::take(&mut self.input), ended)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A request with the headers that the API wants, and `more` of them.
pub(crate) fn request(method: &str, target: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: sim.test\r\nanthropic-version: 2023-06-01\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    )
}

pub(crate) fn body(prompt: &str, stream: bool) -> String {
    serde_json::json!({"model": "claude-opus-5-5", "max_tokens": 100, "stream": stream, "messages": [{"role": "user", "content": prompt}]})
        .to_string()
}

/// A prompt, answered as a stream.
pub(crate) fn streamed(prompt: &str) -> String {
    request("POST", "/v1/messages?beta=true", "", &body(prompt, true))
}

/// A prompt, answered whole.
pub(crate) fn whole(prompt: &str) -> String {
    request("POST", "/v1/messages", "", &body(prompt, false))
}

pub(crate) fn get(target: &str) -> String {
    request("GET", target, "", "")
}
