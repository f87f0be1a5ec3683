//! One request to the gateway over our own socket, in the simplest form of HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use gateway::net::{self, OwnStream};

/// Bytes of an answer that are taken.
const LARGEST: u64 = 256 << 20;
/// A gateway that says nothing for so long is not there.
const SILENCE: Duration = Duration::from_secs(60);

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: BufReader<OwnStream>,
}

/// Sends a request and reads the head of its answer.
pub(super) fn ask(socket: &Path, method: &str, target: &str) -> io::Result<Answer> {
    let mut stream = net::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE))?;
    // A removal may take as long as it takes.
    if method == "POST" {
        stream.set_read_timeout(None)?;
    }
    // Version 1.0: the body ends with the connection, without chunks.
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: cco\r\nContent-Length: 0\r\n\r\n")?;
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    body.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    loop {
        line.clear();
        match body.read_line(&mut line)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if line.trim_end().is_empty() => return Ok(Answer { status, body }),
            _ => {}
        }
    }
}

impl Answer {
    /// The whole body.
    pub(super) fn bytes(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
