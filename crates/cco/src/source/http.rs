//! One request to the gateway over our own socket, or where `--url` says, in the simplest form of HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use gateway::net::{self, FarStream, OwnStream};
use gateway::origin::Origin;
use gateway::secret::Secret;

/// Bytes of an answer that are taken.
const LARGEST: u64 = 256 << 20;
/// A gateway that says nothing for so long to a question is not there: an answer may have to be searched for.
const SILENCE: Duration = Duration::from_secs(60);
/// To a greeting it has an answer at once, however much it does.
const GREETING: Duration = Duration::from_millis(1500);
/// A connection over a network may take so long to open.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a gateway is asked.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Its own socket: whoever may connect to it may ask.
    Socket(PathBuf),
    /// Over plain HTTP, with its admin token where we have it.
    Url(Origin, Option<Secret>),
}

/// A connection to it.
enum Connection {
    Own(OwnStream),
    Network(FarStream),
}

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: BufReader<Box<dyn Read>>,
    /// The bytes of the body, where the head says how many.
    length: Option<u64>,
}

impl Place {
    /// Whether somebody listens there.
    pub(super) fn is_there(&self) -> io::Result<()> {
        self.connect().map(drop)
    }

    /// Whether the gateway answers at all: one that is stopped still takes connections.
    pub(super) fn greet(&self) -> io::Result<()> {
        self.within("GET", "/health", Some(GREETING)).map(drop)
    }

    fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Socket(path) => net::connect(path).map(Connection::Own),
            Self::Url(origin, _) => net::connect_far(origin, CONNECT).map(Connection::Network),
        }
    }

    /// Sends a request and reads the head of its answer.
    pub(super) fn ask(&self, method: &str, target: &str) -> io::Result<Answer> {
        // A removal may take as long as it takes.
        self.within(method, target, (method != "POST").then_some(SILENCE))
    }

    fn within(&self, method: &str, target: &str, silence: Option<Duration>) -> io::Result<Answer> {
        let mut fields = String::from("Content-Length: 0\r\n");
        match self {
            Self::Socket(_) => fields += "Host: cco\r\n",
            Self::Url(origin, token) => {
                fields += &format!("Host: {}\r\n", origin.host_header());
                if let Some(token) = token {
                    fields += &format!("Authorization: Bearer {}\r\n", token.expose());
                }
            }
        }
        // Version 1.0: the body ends with the connection, without chunks.
        let head = format!("{method} {target} HTTP/1.0\r\n{fields}\r\n");
        let stream: Box<dyn Read> = match self.connect()? {
            Connection::Own(mut stream) => {
                stream.set_read_timeout(silence)?;
                stream.write_all(head.as_bytes())?;
                Box::new(stream)
            }
            Connection::Network(mut stream) => {
                stream.set_read_timeout(silence)?;
                stream.write_all(head.as_bytes())?;
                Box::new(stream)
            }
        };
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        body.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
        let mut length = None;
        loop {
            line.clear();
            match body.read_line(&mut line)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ if line.trim_end().is_empty() => return Ok(Answer { status, body, length }),
                _ => {}
            }
            let field = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            if let Some((_, value)) = field {
                length = value.trim().parse().ok();
            }
        }
    }
}

impl Answer {
    /// The whole body: one that is cut is none.
    pub(super) fn bytes(self) -> io::Result<Vec<u8>> {
        whole(self.body, self.length, LARGEST)
    }
}

fn whole(body: impl Read, length: Option<u64>, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.take(largest + 1).read_to_end(&mut bytes)?;
    let read = bytes.len() as u64;
    if read > largest {
        let what = format!("the answer is larger than {} MB: ask for less of it", largest >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    match length {
        Some(length) if read < length => {
            let what = format!("the answer ended after {read} of {length} bytes");
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, what))
        }
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_cut_is_no_body() {
        assert_eq!(whole(&b"abc"[..], Some(3), 3).unwrap(), b"abc");
        assert_eq!(whole(&b"abc"[..], None, 3).unwrap(), b"abc");
        assert_eq!(whole(&b"ab"[..], Some(3), 3).unwrap_err().to_string(), "the answer ended after 2 of 3 bytes");
        let why = whole(&[b'x'; (1 << 20) + 1][..], None, 1 << 20).unwrap_err();
        assert_eq!(why.to_string(), "the answer is larger than 1 MB: ask for less of it");
    }
}
