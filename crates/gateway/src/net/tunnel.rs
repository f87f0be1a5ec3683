//! CONNECT: asks an HTTP proxy for a tunnel and reads its answer, trusting it with nothing.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::{Cause, Fault};
use super::proxy::ProxyUrl;
use super::stream::Io;
use crate::origin::Origin;

/// The longest answer head that is read.
const MAX_HEAD: usize = 8 * 1024;

/// Asks the proxy at the other end of `io` for a tunnel to the origin. When it returns, `io` is that tunnel.
pub(super) async fn open(io: &mut impl Io, proxy: &ProxyUrl, origin: &Origin) -> Result<(), Fault> {
    let broken = |e: io::Error| Fault::new(Cause::ProxyProtocol, format_args!("{proxy}: {e}"));
    io.write_all(request(proxy, origin).as_bytes()).await.map_err(broken)?;
    io.flush().await.map_err(broken)?;

    let wrong = |what: &str| Fault::new(Cause::ProxyProtocol, format_args!("{proxy}: {what}"));
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        let room = MAX_HEAD - head.len();
        if room == 0 {
            return Err(wrong("the head of its answer is longer than 8 KB"));
        }
        let from = head.len();
        let read = (&mut *io).take(room as u64).read_buf(&mut head).await.map_err(broken)?;
        if read == 0 {
            return Err(wrong("it closed the connection before the end of its answer"));
        }
        let shown = head.len().min(VERSION.len());
        if head[..shown] != VERSION[..shown] {
            return Err(wrong("its answer is not HTTP/1"));
        }
        if let Some(at) = memchr::memmem::find(&head[from.saturating_sub(3)..], b"\r\n\r\n") {
            break from.saturating_sub(3) + at + 4;
        }
    };
    let status = status(&head).ok_or_else(|| wrong("its answer has no status"))?;
    if !(200..300).contains(&status) {
        return Err(Fault::new(Cause::ProxyRefused(status), format_args!("{proxy} answered {status}")));
    }
    // Nobody beyond the tunnel has been asked anything yet: bytes now could only be the proxy's own.
    if head.len() > end {
        return Err(wrong("bytes follow its answer"));
    }
    Ok(())
}

const VERSION: &[u8] = b"HTTP/1.";

fn request(proxy: &ProxyUrl, origin: &Origin) -> String {
    // Authority form, with the port always: `host_header` leaves out a default one.
    let host = if origin.host.contains(':') { format!("[{}]", origin.host) } else { origin.host.clone() };
    let target = format!("{host}:{}", origin.port);
    let authorization = match &proxy.authorization {
        Some(value) => format!("proxy-authorization: {}\r\n", value.expose()),
        None => String::new(),
    };
    format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{authorization}\r\n")
}

/// The number in `HTTP/1.x NNN …`.
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(VERSION)?;
    let [b'0' | b'1', b' ', digits @ ..] = rest else { return None };
    let (number, after) = digits.split_at_checked(3)?;
    if !number.iter().all(u8::is_ascii_digit) || !matches!(after.first(), Some(b' ' | b'\r')) {
        return None;
    }
    std::str::from_utf8(number).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Scheme;

    /// What comes of it when the proxy answers so, and the request that it saw.
    async fn answered(answer: &[u8]) -> (Result<(), Cause>, String) {
        let proxy = ProxyUrl::parse("http://u:p@proxy.example:3128").unwrap();
        let origin = Origin { scheme: Scheme::Https, host: "llm.example".into(), port: 443 };
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let result = open(&mut ours, &proxy, &origin).await.map_err(|fault| {
            assert!(!fault.detail.contains("u:p") && fault.detail.contains("proxy.example:3128"), "{}", fault.detail);
            fault.cause
        });
        drop(ours);
        let mut seen = String::new();
        theirs.read_to_string(&mut seen).await.unwrap();
        (result, seen)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_in_authority_form_with_the_credentials() {
        let (result, seen) = answered(b"HTTP/1.1 200 Connection established\r\nvia: x\r\n\r\n").await;
        assert_eq!(result, Ok(()));
        let want =
            "CONNECT llm.example:443 HTTP/1.1\r\nhost: llm.example:443\r\nproxy-authorization: Basic dTpw\r\n\r\n";
        assert_eq!(seen, want);
        assert_eq!(answered(b"HTTP/1.0 200\r\n\r\n").await.0, Ok(()));
    }

    #[tokio::test]
    async fn what_is_no_tunnel_is_a_typed_error() {
        let long = [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), &[b'x'; MAX_HEAD]].concat();
        let cases: [(&[u8], Cause); 11] = [
            (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", Cause::ProxyRefused(407)),
            (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\noops", Cause::ProxyRefused(502)),
            (b"HTTP/1.1 100 Continue\r\n\r\n", Cause::ProxyRefused(100)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Cause::ProxyProtocol),
            (b"HTTP/2 200\r\n\r\n", Cause::ProxyProtocol),
            (b"HTTP/1.1 2000 OK\r\n\r\n", Cause::ProxyProtocol),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", Cause::ProxyProtocol),
            (b"HTTP/1.1 200 OK\r\n\r\nsurplus", Cause::ProxyProtocol),
            (b"HTTP/1.1 200 OK\r\nhalf", Cause::ProxyProtocol),
            (b"", Cause::ProxyProtocol),
            (&long, Cause::ProxyProtocol),
        ];
        for (answer, want) in cases {
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(40)]);
            assert_eq!(answered(answer).await.0, Err(want), "{shown}");
        }
    }
}
