//! Why no connection came about, in words for the person who has to put it right.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use crate::origin::Origin;

/// The longest detail that is kept: parts of it come from the other side.
const MAX_DETAIL: usize = 300;

/// What dialing was busy with when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Looking the name up.
    Dns,
    /// Waiting for the TCP connection.
    Connect,
    /// Waiting for the proxy: its connection, or its answer.
    Proxy,
    /// Loading the system's roots, or waiting for the upstream's side of the TLS handshake.
    Tls,
}

/// The one reason why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The name does not exist.
    DnsNotFound,
    /// The name could not be looked up.
    DnsFailed,
    /// The name, or the configured address, is one that we never connect to.
    AddressForbidden,
    /// Nobody listens on the port.
    Refused,
    /// There is no way to the host.
    Unreachable,
    /// The other side closed the connection before it was ready for use.
    Reset,
    /// The time for connecting ran out.
    TimedOut(Step),
    /// This machine could not open a connection: limits, a local firewall.
    Local,
    /// The proxy could not be reached.
    ProxyUnreachable,
    /// The proxy answered with this status instead of a tunnel.
    ProxyRefused(u16),
    /// What the proxy answered is no answer to CONNECT.
    ProxyProtocol,
    /// The upstream's certificate was valid until a moment that has passed.
    CertificateExpired,
    /// The upstream's certificate becomes valid at a moment to come.
    CertificateNotYetValid,
    /// The upstream's certificate is for other names.
    CertificateWrongName,
    /// The upstream's certificate comes from an authority that this machine does not know.
    CertificateUnknownCa,
    /// The upstream's certificate has another fault.
    CertificateInvalid,
    /// This machine has no certificate authorities at all.
    NoRoots,
    /// The upstream does not speak TLS on this port.
    NotTls,
    /// The upstream speaks a TLS that does not fit ours.
    TlsProtocol,
}

impl Cause {
    /// A stable name for logs, records and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::DnsNotFound => "dns_not_found",
            Self::DnsFailed => "dns_failed",
            Self::AddressForbidden => "address_forbidden",
            Self::Refused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::Reset => "connection_reset",
            Self::TimedOut(Step::Dns) => "dns_timeout",
            Self::TimedOut(Step::Connect) => "connect_timeout",
            Self::TimedOut(Step::Proxy) => "proxy_timeout",
            Self::TimedOut(Step::Tls) => "tls_timeout",
            Self::Local => "local_limit",
            Self::ProxyUnreachable => "proxy_unreachable",
            Self::ProxyRefused(_) => "proxy_refused",
            Self::ProxyProtocol => "proxy_protocol",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::CertificateWrongName => "certificate_wrong_name",
            Self::CertificateUnknownCa => "certificate_unknown_ca",
            Self::CertificateInvalid => "certificate_invalid",
            Self::NoRoots => "no_roots",
            Self::NotTls => "not_tls",
            Self::TlsProtocol => "tls_protocol",
        }
    }

    /// What happened, as the end of a sentence that began with the origin.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::DnsNotFound => "the name does not exist",
            Self::DnsFailed => "the name could not be looked up",
            Self::AddressForbidden => "the address is one that is never connected to",
            Self::Refused => "the connection was refused",
            Self::Unreachable => "the host is unreachable",
            Self::Reset => "the other side closed the connection while it was being set up",
            Self::TimedOut(Step::Dns) => "looking the name up took too long",
            Self::TimedOut(Step::Connect) => "connecting took too long",
            Self::TimedOut(Step::Proxy) => "the proxy took too long",
            Self::TimedOut(Step::Tls) => "the TLS handshake took too long",
            Self::Local => "this machine could not open a connection",
            Self::ProxyUnreachable => "the proxy could not be reached",
            Self::ProxyRefused(407) => "the proxy asks for a user and a password",
            Self::ProxyRefused(_) => "the proxy refused to connect",
            Self::ProxyProtocol => "the proxy did not answer as a proxy does",
            Self::CertificateExpired => "the certificate has expired",
            Self::CertificateNotYetValid => "the certificate is not valid yet",
            Self::CertificateWrongName => "the certificate is for another name",
            Self::CertificateUnknownCa => "the certificate comes from an unknown authority",
            Self::CertificateInvalid => "the certificate is not valid",
            Self::NoRoots => "this machine has no certificate authorities",
            Self::NotTls => "the other side does not speak TLS",
            Self::TlsProtocol => "the TLS handshake failed",
        }
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::DnsNotFound => "check the host in `baseUrl`",
            Self::DnsFailed => "check the network and the machine's name servers",
            Self::AddressForbidden => {
                "link-local and reserved addresses are refused; for a service on this machine write its address, \
                 such as `http://127.0.0.1:PORT`, in `baseUrl`"
            }
            Self::Refused => "check that the service runs and that the port in `baseUrl` is right",
            Self::Unreachable => "check the network, VPN or firewall",
            Self::Reset => {
                "check that the scheme and port in `baseUrl` are right, then the firewall or `network.proxy`"
            }
            Self::TimedOut(Step::Dns) => "check the machine's name servers",
            Self::TimedOut(Step::Connect | Step::Tls) => {
                "check the network and firewall, or whether `network.proxy` is needed"
            }
            Self::TimedOut(Step::Proxy) | Self::ProxyUnreachable => "check `network.proxy`",
            Self::Local => "check the limit of open files (`ulimit -n`), free ports and the local firewall",
            Self::ProxyRefused(407) => "write them into `network.proxy`: `http://user:password@host:port`",
            Self::ProxyRefused(_) => "check that the proxy may connect to this host and port",
            Self::ProxyProtocol => "check that `network.proxy` names an HTTP proxy",
            Self::CertificateExpired => "check this machine's clock, then tell whoever runs the upstream",
            Self::CertificateNotYetValid => "check this machine's clock",
            Self::CertificateWrongName => "check the host in `baseUrl`",
            Self::CertificateUnknownCa => {
                "set `network.caFile` to a PEM file with the authority's certificate (a company proxy has one of its own)"
            }
            Self::CertificateInvalid => "tell whoever runs the upstream",
            Self::NoRoots => "install the package `ca-certificates`, or set `network.caFile`",
            Self::NotTls => "check the port in `baseUrl`, or write `http://` if the service has no TLS",
            Self::TlsProtocol => "the upstream must speak TLS 1.2 or 1.3 and HTTP/1.1",
        }
    }
}

/// No connection: to whom, why, and what is known beyond that. Holds neither keys nor the credentials of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// Where the connection should have gone.
    pub origin: Origin,
    /// Why there is none.
    pub cause: Cause,
    /// What the system or the other side said; may be empty.
    pub detail: String,
}

impl DialError {
    /// An error with its detail made safe to show: bounded, and without control characters.
    pub fn new(origin: &Origin, cause: Cause, detail: impl fmt::Display) -> Self {
        Fault::new(cause, detail).at(origin)
    }

    /// The time ran out (as opposed to: the answer was no).
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::TimedOut(_))
    }

    /// The upstream's certificate was not accepted.
    pub fn is_certificate(&self) -> bool {
        use Cause::*;
        matches!(
            self.cause,
            CertificateExpired
                | CertificateNotYetValid
                | CertificateWrongName
                | CertificateUnknownCa
                | CertificateInvalid
        )
    }

    /// The way to the proxy failed, or the proxy itself said no.
    pub fn is_proxy(&self) -> bool {
        use Cause::*;
        matches!(self.cause, ProxyUnreachable | ProxyRefused(_) | ProxyProtocol | TimedOut(Step::Proxy))
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot connect to `{}`: {}", self.origin, self.cause.sentence())?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        write!(f, "; {}", self.cause.remedy())
    }
}

impl Error for DialError {}

/// A [`DialError`] that does not know its origin yet.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) cause: Cause,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(cause: Cause, detail: impl fmt::Display) -> Self {
        let detail = detail.to_string();
        let detail = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL).collect();
        Self { cause, detail }
    }

    pub(super) fn at(self, origin: &Origin) -> DialError {
        DialError { origin: origin.clone(), cause: self.cause, detail: self.detail }
    }

    /// The cause behind a failed `connect`.
    pub(super) fn from_connect(e: &io::Error, to: impl fmt::Display) -> Self {
        use io::ErrorKind as K;
        let cause = match e.kind() {
            K::ConnectionRefused => Cause::Refused,
            K::HostUnreachable | K::NetworkUnreachable | K::NetworkDown => Cause::Unreachable,
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe | K::UnexpectedEof => Cause::Reset,
            K::TimedOut => Cause::TimedOut(Step::Connect),
            _ => Cause::Local,
        };
        Self::new(cause, format_args!("{to}: {e}"))
    }

    /// The cause behind a failed TLS handshake.
    pub(super) fn from_handshake(e: &io::Error) -> Self {
        match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::new(cause_of(tls), tls),
            None => match e.kind() {
                io::ErrorKind::TimedOut => Self::new(Cause::TimedOut(Step::Tls), e),
                _ => Self::new(Cause::Reset, format_args!("in the TLS handshake: {e}")),
            },
        }
    }
}

fn cause_of(e: &rustls::Error) -> Cause {
    use CertificateError as C;
    match e {
        rustls::Error::InvalidCertificate(bad) => match bad {
            C::Expired | C::ExpiredContext { .. } => Cause::CertificateExpired,
            C::NotValidYet | C::NotValidYetContext { .. } => Cause::CertificateNotYetValid,
            C::NotValidForName | C::NotValidForNameContext { .. } => Cause::CertificateWrongName,
            C::UnknownIssuer => Cause::CertificateUnknownCa,
            _ => Cause::CertificateInvalid,
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Cause::NotTls,
        _ => Cause::TlsProtocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::Scheme;

    #[test]
    fn an_error_names_the_origin_the_cause_and_the_remedy() {
        let origin = Origin { scheme: Scheme::Https, host: "llm.example".into(), port: 8443 };
        let e = DialError::new(&origin, Cause::CertificateUnknownCa, "UnknownIssuer");
        let said = e.to_string();
        assert!(said.starts_with("cannot connect to `https://llm.example:8443`: the certificate comes from"), "{said}");
        assert!(said.contains("(UnknownIssuer)") && said.contains("set `network.caFile`"), "{said}");
        assert!(e.is_certificate() && !e.is_timeout() && !e.is_proxy());
    }

    #[test]
    fn what_the_other_side_says_is_bounded_and_cannot_drive_a_terminal() {
        let origin = Origin { scheme: Scheme::Https, host: "llm.example".into(), port: 443 };
        let e = DialError::new(&origin, Cause::TlsProtocol, format!("\x1b[2J\r\n{}", "x".repeat(10_000)));
        assert_eq!(e.detail.chars().count(), MAX_DETAIL);
        assert!(!e.to_string().contains(char::is_control));
    }
}
