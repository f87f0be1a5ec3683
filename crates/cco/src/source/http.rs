//! One request to the gateway over our own socket, in the simplest form of HTTP.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::time::Duration;

use gateway::net::{self, OwnStream};

/// Bytes of an answer that are taken.
const LARGEST: u64 = 256 << 20;
/// A gateway that says nothing for so long to a question is not there: an answer may have to be searched for.
const SILENCE: Duration = Duration::from_secs(60);
/// To a greeting it has an answer at once, however much it does.
const GREETING: Duration = Duration::from_millis(1500);

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: BufReader<OwnStream>,
    /// The bytes of the body, where the head says how many.
    length: Option<u64>,
}

/// Whether the gateway answers at all: one that is stopped still takes connections.
pub(super) fn greet(socket: &Path) -> io::Result<()> {
    within(socket, "GET", "/health", Some(GREETING)).map(drop)
}

/// Sends a request and reads the head of its answer.
pub(super) fn ask(socket: &Path, method: &str, target: &str) -> io::Result<Answer> {
    // A removal may take as long as it takes.
    within(socket, method, target, (method != "POST").then_some(SILENCE))
}

fn within(socket: &Path, method: &str, target: &str, silence: Option<Duration>) -> io::Result<Answer> {
    let mut stream = net::connect(socket)?;
    stream.set_read_timeout(silence)?;
    // Version 1.0: the body ends with the connection, without chunks.
    write!(stream, "{method} {target} HTTP/1.0\r\nHost: cco\r\nContent-Length: 0\r\n\r\n")?;
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
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().ok();
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
