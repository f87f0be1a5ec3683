//! A client that hides nothing: what came, when, and how it ended. It shares no code with the gateway that it judges.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gateway::net::{Dial, Stream};
use gateway::origin::BaseUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

/// A connection may take so long to open.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest silence, and the longest time that a body may take to be sent.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest head.
const HEAD: usize = 256 << 10;
/// The most of an answer that is kept.
const LARGEST: usize = 256 << 20;

/// Somebody who answers HTTP, and what every request to it carries.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) base: BaseUrl,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) fields: Vec<(String, String)>,
}

/// Why there is no answer, or only a part of one.
pub(super) type Broken = String;

/// An answer whose body is still coming.
pub(super) struct Answer {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    io: Stream,
    input: Vec<u8>,
    left: Left,
    /// How often something came, and when it did last.
    reads: (usize, Instant),
}

/// What is still to come of a body.
enum Left {
    Bytes(u64),
    /// Of the chunk that is being read.
    Chunk(u64),
    UntilClose,
    Nothing,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) status: u16,
    fields: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// How much had come by when.
    pub(super) arrivals: Vec<(Instant, usize)>,
    /// Whether the body ended as its framing said.
    pub(super) is_whole: bool,
}

fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

impl Target {
    /// Sends a request and reads the head of its answer. `more` comes behind what every request carries.
    pub(super) async fn begin(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Broken> {
        let io = self.dialer.dial(&self.base.origin, CONNECT).await.map_err(|why| why.to_string())?;
        let mut head = format!("{method} {}{path} HTTP/1.1\r\n", self.base.path);
        head += &format!("host: {}\r\n", self.base.origin.host_header());
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fields.chain(more.iter().copied()) {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        head += "\r\n";
        let (left, input) = (Left::Nothing, Vec::with_capacity(16 << 10));
        let reads = (0, Instant::now());
        let mut answer = Answer { status: 0, fields: Vec::new(), io, input, left, reads };
        let told = async {
            // Who refuses a body may answer before it has read it.
            let sent = answer.io.write_all(&[head.as_bytes(), body].concat()).await;
            answer.read_head().await.map_err(|why| sent.err().unwrap_or(why))
        };
        match timeout(SILENCE, told).await {
            Err(_) => Err(format!("no answer within {} s", SILENCE.as_secs())),
            Ok(Err(why)) => Err(format!("the connection broke before the answer: {why}")),
            Ok(Ok(())) => Ok(answer),
        }
    }

    /// The same, with the whole body.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Whole, Broken> {
        Ok(self.begin(method, path, more, body).await?.whole().await)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Answer {
    async fn fill(&mut self) -> io::Result<usize> {
        self.input.reserve(16 << 10);
        let read = self.io.read_buf(&mut self.input).await?;
        self.reads = (self.reads.0 + 1, Instant::now());
        Ok(read)
    }

    /// A line without its end.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8_lossy(&self.input[..end]).trim_end_matches('\r').to_owned();
                self.input.drain(..=end);
                return Ok(line);
            }
            if self.input.len() > HEAD {
                return Err(bad("a line without an end"));
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn read_head(&mut self) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|s| s.parse().ok());
            self.status = status.ok_or_else(|| bad("what came is not HTTP"))?;
            self.fields.clear();
            loop {
                let line = self.line().await?;
                let Some((name, value)) = line.split_once(':') else { break };
                self.fields.push((name.to_owned(), value.trim().to_owned()));
            }
            if self.status >= 200 {
                break;
            }
        }
        let is_chunked = self.field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = self.field("content-length").map(str::parse);
        self.left = match (is_chunked, length) {
            (true, _) => Left::Chunk(0),
            (_, Some(length)) => Left::Bytes(length.map_err(|_| bad("a `content-length` that is no number"))?),
            _ => Left::UntilClose,
        };
        Ok(())
    }

    /// A field of the head.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// What comes next of the body; empty: it has ended.
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        if let Left::Chunk(0) = self.left {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            match u64::from_str_radix(size, 16).map_err(|_| bad("a chunk without a size"))? {
                0 => {
                    while !self.line().await?.is_empty() {}
                    self.left = Left::Nothing;
                }
                size => self.left = Left::Chunk(size),
            }
        }
        let most = match self.left {
            Left::Nothing | Left::Bytes(0) => return Ok(Vec::new()),
            Left::Bytes(left) | Left::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
            Left::UntilClose => usize::MAX,
        };
        if self.input.is_empty() && self.fill().await? == 0 {
            return match self.left {
                Left::UntilClose => Ok(Vec::new()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        let rest = self.input.split_off(most.min(self.input.len()));
        let piece = std::mem::replace(&mut self.input, rest);
        match &mut self.left {
            Left::Bytes(left) => *left -= piece.len() as u64,
            Left::Chunk(left) => {
                *left -= piece.len() as u64;
                if *left == 0 {
                    self.line().await?;
                }
            }
            _ => {}
        }
        Ok(piece)
    }

    /// What comes next of the body; empty: it has ended.
    pub(super) async fn piece(&mut self) -> Result<Vec<u8>, Broken> {
        match timeout(SILENCE, self.next()).await {
            Err(_) => Err(format!("silence for {} s", SILENCE.as_secs())),
            Ok(piece) => piece.map_err(|why| format!("the answer broke off: {why}")),
        }
    }

    /// All of it, or as much as came.
    pub(super) async fn whole(mut self) -> Whole {
        let (mut body, mut arrivals, mut seen) = (Vec::new(), Vec::new(), usize::MAX);
        let is_whole = loop {
            match self.piece().await {
                Err(_) => break false,
                Ok(piece) if piece.is_empty() => break true,
                Ok(piece) => body.extend_from_slice(&piece),
            }
            // What one read brought came together, however many chunks it is.
            match arrivals.last_mut() {
                Some((_, length)) if seen == self.reads.0 => *length = body.len(),
                _ => arrivals.push((self.reads.1, body.len())),
            }
            seen = self.reads.0;
            if body.len() > LARGEST {
                break false;
            }
        };
        Whole { status: self.status, fields: self.fields, body, arrivals, is_whole }
    }
}

impl Whole {
    /// A field of the head.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// The body as JSON, `null` where it is none.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Status and the beginning of the body, for people.
    pub(super) fn shown(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        format!("status {}: {}", self.status, crate::text::line(&text))
    }
}
