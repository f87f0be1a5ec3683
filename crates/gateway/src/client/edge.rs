//! What is refused before anything else is looked at: requests that a web page or a confused proxy made.

use std::net::IpAddr;

use http1::RequestHead;

use crate::client::peer::Peer;
use crate::error::{ErrorKind, Refusal, Retry};

/// The names and pages that may talk to us beside ourselves.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    /// Additional `Host` values, lower case, with or without a port.
    pub hosts: Vec<String>,
    /// Additional `Origin` values, lower case.
    pub origins: Vec<String>,
}

impl Edge {
    /// Whether this request may go on.
    pub fn check(&self, head: &RequestHead, peer: &Peer) -> Result<(), Refusal> {
        // What comes over our own socket was sent by no page and resolved from no name.
        if !peer.is_on_own_socket() {
            let host = head.host();
            if !self.is_ours(host, peer) {
                let host = host.to_ascii_lowercase();
                let message =
                    format!("the host `{host}` is not this gateway: add it to `server.hosts` if it should be");
                return Err(Refusal::new(ErrorKind::Permission, message).close());
            }
            self.check_origin(head, host)?;
        }
        check_method(head.method())?;
        check_path(head.path())
    }

    fn is_ours(&self, host: &str, peer: &Peer) -> bool {
        let (name, port) = split_port(host);
        let local = peer.local();
        let our_port = port.map_or(local.port() == 80, |port| is_port(port, local.port()));
        let is_local = |ip: IpAddr| ip == local.ip().to_canonical() || peer.is_loopback() && ip.is_loopback();
        let our_name = || {
            name.eq_ignore_ascii_case("localhost") && peer.is_loopback() || name.parse::<IpAddr>().is_ok_and(is_local)
        };
        let is_listed = |own: &String| own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(name);
        our_port && our_name() || self.hosts.iter().any(is_listed)
    }

    /// Browsers name the page that asks; programs do not.
    fn check_origin(&self, head: &RequestHead, host: &str) -> Result<(), Refusal> {
        let mut allowed = false;
        for origin in head.all("origin") {
            let origin = String::from_utf8_lossy(origin).to_ascii_lowercase();
            let ours = origin.strip_prefix("http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host));
            if !ours && !self.origins.contains(&origin) {
                let message =
                    "a web page of another origin may not use this gateway: add it to `server.origins` if it should";
                return Err(Refusal::new(ErrorKind::Permission, message).close());
            }
            allowed = true;
        }
        let mut sites = head.all("sec-fetch-site");
        if !allowed && !sites.all(|site| matches!(site, b"none" | b"same-origin")) {
            let message =
                "a web page of another site may not use this gateway: add its origin to `server.origins` if it should";
            return Err(Refusal::new(ErrorKind::Permission, message).close());
        }
        Ok(())
    }
}

/// Whether this is how that port is written: without a sign, without zeros before it.
fn is_port(text: &str, port: u16) -> bool {
    text.starts_with(|first| matches!(first, '1'..='9')) && text.parse() == Ok(port)
}

/// Name (without brackets) and port of a `Host` value.
fn split_port(host: &str) -> (&str, Option<&str>) {
    if let Some(rest) = host.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((name, port)) => (name, port.strip_prefix(':')),
            None => (host, None),
        };
    }
    match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    }
}

/// `TRACE` would echo the key that we put on; behind a `CONNECT` bytes have no meaning that we know.
fn check_method(method: &str) -> Result<(), Refusal> {
    if matches!(method, "TRACE" | "CONNECT") {
        let message = format!("the method `{method}` is not forwarded");
        let refusal = Refusal::new(ErrorKind::MethodNotAllowed, message).retry(Retry::Never);
        return Err(refusal.allow("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT").close());
    }
    Ok(())
}

/// Paths go up as they came, so one that a server behind us would resolve to another is refused.
fn check_path(path: &str) -> Result<(), Refusal> {
    let is_dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    let slash = |text: &str| text.to_ascii_lowercase().contains("%2f") || text.to_ascii_lowercase().contains("%5c");
    if path.contains('%') || path.contains("/.") {
        let decoded = path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/");
        if decoded.split('/').any(is_dots) || slash(path) && path.contains("..") {
            return Err(
                Refusal::new(ErrorKind::InvalidRequest, "a path with `.` or `..` segments is not forwarded").close()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use http1::{Limits, Scan};

    #[track_caller]
    fn check(edge: &Edge, head: &str, want: Option<u16>) {
        let text = format!("{head}\r\n\r\n");
        let head = RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default());
        let peer = Peer::known("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:54548".parse().unwrap(), true);
        let status = edge.check(&head.unwrap().unwrap(), &peer).err().map(|refusal| refusal.kind.status());
        assert_eq!(status, want, "{text}");
    }

    #[test]
    fn only_our_own_names_are_served() {
        let edge = Edge { hosts: vec!["host.docker.internal".into(), "dev.test:8080".into()], ..Edge::default() };
        for host in [
            "127.0.0.1:54548",
            "localhost:54548",
            "LOCALHOST:54548",
            "[::1]:54548",
            "host.docker.internal:9",
            "dev.test:8080",
        ] {
            check(&edge, &format!("GET / HTTP/1.1\r\nHost: {host}"), None);
        }
        for host in [
            "evil.test:54548",
            "127.0.0.1",
            "127.0.0.1:80",
            "localhost.evil.test:54548",
            "dev.test:1",
            "10.0.0.1:54548",
            "[::1",
        ] {
            check(&edge, &format!("GET / HTTP/1.1\r\nHost: {host}"), Some(403));
        }
    }

    #[test]
    fn web_pages_of_others_are_refused() {
        let edge = Edge { origins: vec!["vscode-webview://x".into()], ..Edge::default() };
        let with = |fields: &str| format!("GET / HTTP/1.1\r\nHost: localhost:54548\r\n{fields}");
        for fields in [
            "Origin: http://localhost:54548",
            "Origin: vscode-webview://x\r\nSec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: none",
            "Sec-Fetch-Mode: cors",
        ] {
            check(&edge, &with(fields), None);
        }
        for fields in [
            "Origin: null",
            "Origin: http://evil.test",
            "Origin: https://localhost:54548",
            "Origin:",
            "Sec-Fetch-Site: cross-site",
            "Sec-Fetch-Site: same-site",
            "Origin: http://localhost:54548\r\nOrigin: http://evil.test",
        ] {
            check(&edge, &with(fields), Some(403));
        }
    }

    #[test]
    fn methods_that_would_show_a_key_or_open_a_tunnel_are_refused() {
        for method in ["TRACE", "CONNECT"] {
            check(&Edge::default(), &format!("{method} /v1/models HTTP/1.1\r\nHost: localhost:54548"), Some(405));
        }
    }

    #[test]
    fn a_path_means_what_it_says() {
        let edge = Edge::default();
        for path in ["/v1/files/a..b", "/v1/files/%41", "/v1/.hidden", "/v1/a%20b"] {
            check(&edge, &format!("GET {path} HTTP/1.1\r\nHost: localhost:54548"), None);
        }
        for path in ["/v1/../x", "/v1/./x", "/v1/%2e%2E/x", "/v1/.%2e", "/v1/a%2f..%2fb", "/v1/..%5cb", "/.."] {
            check(&edge, &format!("GET {path} HTTP/1.1\r\nHost: localhost:54548"), Some(400));
        }
    }
}
