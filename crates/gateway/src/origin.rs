//! Where an upstream lives: scheme, host and port, and the path that its API hangs below.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Plain or encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

impl Scheme {
    /// As written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme means when it names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port: what a credential is bound to and what a connection is pooled by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Plain or encrypted.
    pub scheme: Scheme,
    /// Lower-case name, or an address; an IPv6 address is without its brackets.
    pub host: String,
    /// Always explicit, also where it is the default of the scheme.
    pub port: u16,
}

impl Origin {
    /// The value of a `Host` header: the port only where it is not the scheme's default.
    pub fn host_header(&self) -> Cow<'_, str> {
        match (self.host.contains(':'), self.port == self.scheme.default_port()) {
            (false, true) => Cow::Borrowed(&self.host),
            // Local upstreams have one, and each request to them needs it.
            (false, false) => Cow::Owned([&self.host, ":", itoa::Buffer::new().format(self.port)].concat()),
            (true, true) => Cow::Owned(format!("[{}]", self.host)),
            (true, false) => Cow::Owned(format!("[{}]:{}", self.host, self.port)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.host_header())
    }
}

/// An [`Origin`] and the path that requests are put below (empty, or `/…` without a slash at its end).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    /// Where it is.
    pub origin: Origin,
    /// What every path is put behind, for example `/anthropic`.
    pub path: String,
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.path)
    }
}

/// Why a text is no base URL: the reason, as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadUrl(pub String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadUrl {}

impl FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let url = url::Url::parse(text).map_err(|e| BadUrl(format!("not a URL ({e})")))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(BadUrl(format!("scheme `{other}` is not supported, write http:// or https://"))),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BadUrl("user and password do not belong in a URL, use `apiKeyRef`".into()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(BadUrl("a base URL has neither query nor fragment".into()));
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) => name.to_ascii_lowercase(),
            Some(url::Host::Ipv4(ip)) => ip.to_string(),
            Some(url::Host::Ipv6(ip)) => ip.to_string(),
            None => return Err(BadUrl("the host is missing".into())),
        };
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        let path = url.path().trim_end_matches('/').to_string();
        Ok(Self { origin: Origin { scheme, host, port }, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_keeps_host_port_and_path() {
        let url: BaseUrl = "https://Example.org/anthropic/".parse().unwrap();
        assert_eq!((url.origin.host.as_str(), url.origin.port, url.path.as_str()), ("example.org", 443, "/anthropic"));
        assert_eq!(url.to_string(), "https://example.org/anthropic");
        let v6: BaseUrl = "http://[::1]:8080".parse().unwrap();
        assert_eq!((v6.origin.host.as_str(), &*v6.origin.host_header()), ("::1", "[::1]:8080"));
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for bad in ["example.org", "ftp://x", "https://a:b@c", "https://x/?q=1", "https://", "/v1"] {
            assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
        }
    }
}
