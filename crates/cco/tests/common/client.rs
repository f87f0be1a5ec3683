//! A client that hides nothing: what came, in which pieces, and how it ended.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::soon;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As its framing announced.
    Whole,
    /// The connection was closed before that.
    Short,
    /// The connection was reset before that.
    Reset,
}

/// What comes next of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A chunk, or what one read brought of a body without chunks.
    Data(Bytes),
    End(Ended),
}

/// One answer: its head, and its body as far as it was read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// `HTTP/1.1` and the like.
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) reason: String,
    /// Names in their own case, values as bytes, in their order.
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Vec<u8>,
    pub(crate) ended: Ended,
}

impl Answer {
    /// The first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| std::str::from_utf8(value).unwrap())
    }

    /// The id of the exchange.
    #[track_caller]
    pub(crate) fn id(&self) -> &str {
        self.header("x-cco-request-id").expect("every answer has an id")
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    /// Checks that this is an answer of the gateway's own with this status, and returns its message.
    #[track_caller]
    pub(crate) fn refusal(&self, status: u16, kind: &str) -> String {
        assert_eq!((self.status, self.ended), (status, Ended::Whole), "{:?}", self.body);
        let body = self.json();
        assert_eq!((&body["type"], &body["error"]["type"]), (&"error".into(), &kind.into()), "{body}");
        assert_eq!(body["request_id"], format!("req_{}", self.id().replace('-', "")), "{body}");
        assert_eq!(body["request_id"].as_str(), self.header("request-id"), "{body}");
        body["error"]["message"].as_str().unwrap().to_owned()
    }
}

/// What is left of the body that is being read.
#[derive(Clone, Copy, Debug)]
enum Left {
    Nothing,
    Length(u64),
    Chunks,
    UntilClose,
    /// Nothing: the connection broke within a chunk.
    Broken(Ended),
}

/// A connection.
pub(crate) struct Client {
    io: TcpStream,
    input: BytesMut,
    left: Left,
}

enum Input {
    More,
    End,
    Reset,
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::from(TcpStream::connect(to).await.unwrap())
    }

    /// A connection to somebody who may be gone.
    pub(crate) async fn try_connect(to: SocketAddr) -> std::io::Result<Self> {
        soon(TcpStream::connect(to)).await.map(Self::from)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.try_send(bytes)).await.unwrap();
    }

    /// Sends to somebody who may not want it.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.io.write_all(&located(bytes.as_ref(), self.io.peer_addr()?)).await
    }

    /// Sends as it is, without a look at it.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Sends what is taken at once, and says how much that was.
    pub(crate) async fn write_some(&mut self, bytes: &[u8]) -> usize {
        self.io.write(bytes).await.unwrap()
    }

    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }

    /// The next answer, whole.
    pub(crate) async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        answer.ended = loop {
            match self.piece().await {
                Piece::Data(data) => answer.body.extend_from_slice(&data),
                Piece::End(ended) => break ended,
            }
        };
        answer
    }

    /// The next answer's head.
    pub(crate) async fn head(&mut self) -> Answer {
        soon(self.read_head()).await.expect("an answer, not the end of the connection")
    }

    /// The next answer's head; `None` if the connection ends before it.
    pub(crate) async fn try_head(&mut self) -> Option<Answer> {
        soon(self.read_head()).await.ok()
    }

    /// The answer to a HEAD request, which has no body whatever its head says.
    pub(crate) async fn head_only(&mut self) -> Answer {
        let answer = self.head().await;
        self.left = Left::Nothing;
        answer
    }

    /// Reads the next piece of the body whose head was read.
    pub(crate) async fn piece(&mut self) -> Piece {
        soon(self.read_piece()).await
    }

    /// Reads until the body holds `text`.
    pub(crate) async fn read_until(&mut self, answer: &mut Answer, text: &str) {
        while !contains(&answer.body, text.as_bytes()) {
            match self.piece().await {
                Piece::Data(data) => answer.body.extend_from_slice(&data),
                Piece::End(ended) => panic!("{ended:?} before `{text}`: {:?}", String::from_utf8_lossy(&answer.body)),
            }
        }
    }

    /// Whether the connection has ended, with nothing unread.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.input.is_empty() && !matches!(soon(self.more()).await, Input::More)
    }

    async fn more(&mut self) -> Input {
        self.input.reserve(256 * 1024);
        match self.io.read_buf(&mut self.input).await {
            Ok(0) => Input::End,
            Ok(_) => Input::More,
            Err(_) => Input::Reset,
        }
    }

    async fn line(&mut self) -> Result<Bytes, Ended> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.input[looked..].windows(2).position(|two| two == b"\r\n") {
                let line = self.input.split_to(looked + at).freeze();
                self.input.advance(2);
                return Ok(line);
            }
            looked = self.input.len().saturating_sub(1);
            self.need_more().await?;
        }
    }

    async fn need_more(&mut self) -> Result<(), Ended> {
        match self.more().await {
            Input::More => Ok(()),
            Input::End => Err(Ended::Short),
            Input::Reset => Err(Ended::Reset),
        }
    }

    async fn read_head(&mut self) -> Result<Answer, Ended> {
        assert!(matches!(self.left, Left::Nothing), "the body before was not read to its end: {:?}", self.left);
        let status = self.line().await?;
        let status = std::str::from_utf8(&status).unwrap();
        let mut words = status.splitn(3, ' ');
        let (version, code) = (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap());
        let reason = words.next().unwrap_or_default().to_owned();
        let (headers, body, ended) = (Vec::new(), Vec::new(), Ended::Whole);
        let mut answer = Answer { version, status: code, reason, headers, body, ended };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|b| *b == b':').unwrap_or_else(|| panic!("{line:?}"));
            assert_eq!(line[colon + 1], b' ', "{line:?}");
            answer.headers.push((String::from_utf8(line[..colon].to_vec()).unwrap(), line.slice(colon + 2..)));
        }
        self.left = match (answer.header("transfer-encoding"), answer.header("content-length")) {
            _ if matches!(code, 100 | 204 | 304) => Left::Nothing,
            (Some(coding), None) => {
                assert_eq!(coding, "chunked");
                Left::Chunks
            }
            (None, Some(length)) => Left::Length(length.parse().unwrap()),
            (None, None) => Left::UntilClose,
            (Some(_), Some(_)) => panic!("two framings: {:?}", answer.headers),
        };
        Ok(answer)
    }

    async fn read_piece(&mut self) -> Piece {
        match self.try_piece().await {
            Ok(Some(data)) => Piece::Data(data),
            Ok(None) => {
                self.left = Left::Nothing;
                Piece::End(Ended::Whole)
            }
            Err(ended) => Piece::End(ended),
        }
    }

    async fn try_piece(&mut self) -> Result<Option<Bytes>, Ended> {
        match self.left {
            Left::Nothing | Left::Length(0) => Ok(None),
            Left::Broken(ended) => Err(ended),
            Left::Length(left) => {
                if self.input.is_empty() {
                    self.need_more().await?;
                }
                let length = self.input.len().min(usize::try_from(left).unwrap());
                self.left = Left::Length(left - length as u64);
                Ok(Some(self.input.split_to(length).freeze()))
            }
            Left::UntilClose => {
                if self.input.is_empty() {
                    match self.more().await {
                        Input::More => {}
                        Input::End => return Ok(None),
                        Input::Reset => return Err(Ended::Reset),
                    }
                }
                Ok(Some(self.input.split().freeze()))
            }
            Left::Chunks => {
                let line = self.line().await?;
                let size = std::str::from_utf8(&line).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("a chunk size `{size}`"));
                while self.input.len() < size + 2 {
                    if let Err(ended) = self.need_more().await {
                        self.left = Left::Broken(ended);
                        let came = self.input.len().min(size);
                        return Ok(Some(self.input.split_to(came).freeze()));
                    }
                }
                let data = self.input.split_to(size).freeze();
                assert_eq!(&self.input[..2], b"\r\n", "the end of a chunk");
                self.input.advance(2);
                Ok((size > 0).then_some(data))
            }
        }
    }
}

impl From<TcpStream> for Client {
    fn from(io: TcpStream) -> Self {
        io.set_nodelay(true).unwrap();
        Self { io, input: BytesMut::new(), left: Left::Nothing }
    }
}

/// The request with the address it goes to in place of the plain `Host: localhost`.
fn located(request: &[u8], to: SocketAddr) -> std::borrow::Cow<'_, [u8]> {
    const PLACE: &[u8] = b"\r\nHost: localhost\r\n";
    match request.windows(PLACE.len()).take(4096).position(|part| part == PLACE) {
        Some(at) => {
            let host = format!("\r\nHost: {to}\r\n");
            [&request[..at], host.as_bytes(), &request[at + PLACE.len()..]].concat().into()
        }
        None => request.into(),
    }
}

pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|part| part == needle)
}
