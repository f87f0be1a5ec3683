//! The socket of the user's message bus.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A connection to a message bus, with a limit on every wait.
#[derive(Debug)]
pub struct BusStream(UnixStream);

/// Connects to where an address in the form of D-Bus points: `unix:path=…` or `unix:abstract=…`, the first of several
/// that answers.
pub fn connect(addresses: &str) -> io::Result<BusStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the address of the bus names no local socket");
    for address in addresses.split(';') {
        let Some(parameters) = address.strip_prefix("unix:") else { continue };
        for (name, value) in parameters.split(',').filter_map(|parameter| parameter.split_once('=')) {
            let Some(value) = unescaped(value) else { continue };
            let connected = match name {
                "path" => UnixStream::connect(Path::new(&value)),
                "abstract" => connect_abstract(&value),
                _ => continue,
            };
            match connected {
                Ok(stream) => return Ok(BusStream(stream)),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn connect_abstract(name: &str) -> io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn connect_abstract(_name: &str) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `%20` and the like.
fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

impl BusStream {
    /// No single read or write takes longer than this from now on.
    pub fn limit(&self, limit: Duration) -> io::Result<()> {
        // Zero would mean none.
        let limit = Some(limit.max(Duration::from_millis(1)));
        self.0.set_read_timeout(limit)?;
        self.0.set_write_timeout(limit)
    }

    /// The number of the user that we act as, in the form in which a bus wants to be told.
    pub fn own_user() -> String {
        rustix::process::geteuid().as_raw().to_string()
    }
}

impl io::Read for BusStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl io::Write for BusStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a bus");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let escaped = path.display().to_string().replace(' ', "%20");
        assert!(connect(&format!("unix:path=/does/not/exist;tcp:host=x;unix:path={escaped},guid=0123")).is_ok());
        assert!(connect("unix:path=/does/not/exist").is_err());
        assert_eq!(connect("tcp:host=127.0.0.1,port=1").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(connect("unix:path=%zz").is_err());
    }
}
