//! `network.proxy`: which proxy an upstream is reached through, if any.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::resolve::{names_loopback, plain};
use crate::origin::{Origin, Scheme};
use crate::secret::Secret;

/// The environment's opinion on proxies, read by the configuration; the lower-case spelling of a variable goes first.
#[derive(Clone, Default)]
pub struct ProxyEnv {
    /// `HTTPS_PROXY`
    pub https: Option<String>,
    /// `HTTP_PROXY`
    pub http: Option<String>,
    /// `ALL_PROXY`
    pub all: Option<String>,
    /// `NO_PROXY`
    pub no: Option<String>,
}

/// Says which variables are set; their values may hold a password.
impl fmt::Debug for ProxyEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("https", &self.https), ("http", &self.http), ("all", &self.all), ("no", &self.no)];
        f.debug_set().entries(named.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name)).finish()
    }
}

/// How upstreams are reached. Hosts that mean this machine (`localhost`, 127.0.0.0/8, ::1) are never sent to a proxy:
/// it would take them for itself.
#[derive(Debug, Clone, Default)]
pub enum Proxy {
    /// Directly.
    #[default]
    None,
    /// Through one proxy.
    Always(ProxyUrl),
    /// As the environment says.
    Env {
        /// For `https://` upstreams.
        https: Option<ProxyUrl>,
        /// For `http://` upstreams.
        http: Option<ProxyUrl>,
        /// Whom to reach directly all the same.
        except: NoProxy,
    },
}

impl Proxy {
    /// Reads the setting: `none`, `env`, or a URL.
    pub fn parse(setting: &str, env: &ProxyEnv) -> Result<Self, BadProxy> {
        match setting {
            "none" => Ok(Self::None),
            "env" => {
                // An empty variable is an unset one; a variable that nothing would use is not judged.
                let set = |value: &Option<String>| value.clone().filter(|v| !v.trim().is_empty());
                let pick = |name: &str, own: &Option<String>| {
                    let (name, value) = match (set(own), set(&env.all)) {
                        (Some(value), _) => (name, value),
                        (None, Some(value)) => ("ALL_PROXY", value),
                        (None, None) => return Ok(None),
                    };
                    ProxyUrl::parse(value.trim()).map(Some).map_err(|e| BadProxy(format!("`{name}`: {e}")))
                };
                Ok(Self::Env {
                    https: pick("HTTPS_PROXY", &env.https)?,
                    http: pick("HTTP_PROXY", &env.http)?,
                    except: NoProxy::parse(env.no.as_deref().unwrap_or("")),
                })
            }
            url if url.contains("://") => ProxyUrl::parse(url).map(Self::Always),
            _ => Err(BadProxy("write `none`, `env` or a URL such as `http://proxy.example:3128`".into())),
        }
    }

    /// The proxy for an upstream; none means directly.
    pub fn for_origin(&self, origin: &Origin) -> Option<&ProxyUrl> {
        if names_loopback(&origin.host) {
            return None;
        }
        match self {
            Self::None => None,
            Self::Always(proxy) => Some(proxy),
            Self::Env { https, http, except } => {
                let proxy = match origin.scheme {
                    Scheme::Https => https,
                    Scheme::Http => http,
                };
                proxy.as_ref().filter(|_| !except.covers(origin))
            }
        }
    }
}

/// A proxy that understands CONNECT. It prints without its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Where it is, and whether it is spoken to over TLS.
    pub origin: Origin,
    /// The value of `proxy-authorization`.
    pub(super) authorization: Option<Secret>,
}

impl ProxyUrl {
    /// Reads `http://[user[:password]@]host[:port]` (or `https://`); a text without a scheme is taken as `http://`.
    pub fn parse(text: &str) -> Result<Self, BadProxy> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        // The text may hold a password: no message repeats it.
        let url = url::Url::parse(&full).map_err(|e| BadProxy(format!("not a URL ({e})")))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            socks if socks.starts_with("socks") => {
                return Err(BadProxy(format!(
                    "`{socks}://` proxies are not supported, use an HTTP proxy: `http://host:port`"
                )));
            }
            other => return Err(BadProxy(format!("scheme `{other}` is not supported, write `http://host:port`"))),
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(BadProxy("a proxy URL ends after the port".into()));
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) => name.to_ascii_lowercase(),
            Some(url::Host::Ipv4(ip)) => ip.to_string(),
            Some(url::Host::Ipv6(ip)) => ip.to_string(),
            None => return Err(BadProxy("the host is missing".into())),
        };
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
            pair.push(b':');
            pair.extend(percent_decode_str(url.password().unwrap_or("")));
            Secret::new(format!("Basic {}", base64(&pair)))
        });
        Ok(Self { origin: Origin { scheme, host, port }, authorization })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = if self.authorization.is_some() { " with credentials" } else { "" };
        write!(f, "ProxyUrl({}{with})", self.origin)
    }
}

/// Why a text names no proxy; never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadProxy(pub String);

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadProxy {}

/// The rules of `NO_PROXY`, separated by commas or spaces: `*` is everybody; `example.com` and `.example.com` are the
/// name and all below it; an address or `10.0.0.0/8` matches hosts that are written as addresses (nothing is looked
/// up); each may end in `:port`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    who: Who,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everybody,
    Net { base: IpAddr, bits: u32 },
    Name(String),
}

impl NoProxy {
    /// Reads the list. What is no address and no network is a name: no list is invalid.
    pub fn parse(list: &str) -> Self {
        let items = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
        Self(items.map(Rule::parse).collect())
    }

    /// The upstream is to be reached directly.
    pub fn covers(&self, origin: &Origin) -> bool {
        let host = origin.host.strip_suffix('.').unwrap_or(&origin.host).to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok().map(plain);
        self.0.iter().any(|rule| {
            rule.port.is_none_or(|port| port == origin.port)
                && match (&rule.who, address) {
                    (Who::Everybody, _) => true,
                    (Who::Net { base, bits }, Some(address)) => same_net(*base, address, *bits),
                    (Who::Name(name), None) => {
                        host.strip_suffix(name.as_str()).is_some_and(|left| left.is_empty() || left.ends_with('.'))
                    }
                    _ => false,
                }
        })
    }
}

impl Rule {
    fn parse(item: &str) -> Self {
        if let Some(who) = Who::address(item) {
            return Self { who, port: None };
        }
        let (host, port) = match item.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => (host, Some(port)),
            _ => (item, None),
        };
        let who = Who::address(host).unwrap_or_else(|| match host.trim_start_matches('*') {
            "" => Who::Everybody,
            name => Who::Name(name.trim_matches('.').to_ascii_lowercase()),
        });
        Self { who, port }
    }
}

impl Who {
    fn address(text: &str) -> Option<Self> {
        let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let (base, bits) = match text.split_once('/') {
            Some((base, bits)) => (base.parse::<IpAddr>().ok()?, Some(bits.parse::<u32>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        // With a length the address stays as written: a length counts within its own family.
        let base = if bits.is_some() { base } else { plain(base) };
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        (bits <= width).then_some(Self::Net { base, bits })
    }
}

fn same_net(a: IpAddr, b: IpAddr, bits: u32) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= bits,
        _ => false,
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        url.parse::<crate::origin::BaseUrl>().unwrap().origin
    }

    #[track_caller]
    fn check_no_proxy(list: &str, direct: &[&str], proxied: &[&str]) {
        let rules = NoProxy::parse(list);
        for url in direct {
            assert!(rules.covers(&origin(url)), "`{list}` should cover {url}");
        }
        for url in proxied {
            assert!(!rules.covers(&origin(url)), "`{list}` should not cover {url}");
        }
    }

    #[test]
    fn no_proxy_knows_names_suffixes_addresses_networks_and_ports() {
        check_no_proxy("", &[], &["https://example.com"]);
        check_no_proxy("*", &["https://example.com", "http://10.0.0.1"], &[]);
        check_no_proxy("*:8080", &["https://example.com:8080"], &["https://example.com"]);
        for list in ["example.com", ".example.com", "*.example.com", "EXAMPLE.com.", "x, example.com", "x example.com"]
        {
            check_no_proxy(
                list,
                &[
                    "https://example.com",
                    "https://a.example.com:8443",
                    "https://a.b.EXAMPLE.com",
                    "https://example.com.",
                ],
                &["https://notexample.com", "https://example.com.evil.org", "https://example.co", "https://com"],
            );
        }
        check_no_proxy("example.com:8443", &["https://example.com:8443"], &["https://example.com"]);
        check_no_proxy("10.1.2.3", &["http://10.1.2.3:99", "http://[::ffff:10.1.2.3]"], &["http://10.1.2.4"]);
        check_no_proxy("10.0.0.0/8", &["http://10.200.0.1"], &["http://11.0.0.1", "http://a10.example"]);
        check_no_proxy("10.1.2.3:80", &["http://10.1.2.3"], &["http://10.1.2.3:81"]);
        check_no_proxy("fd00::/8", &["http://[fd12::1]"], &["http://[fe12::1]", "http://10.0.0.1"]);
        check_no_proxy("fd12::1", &["http://[fd12::1]:8080"], &["http://[fd12::2]"]);
        check_no_proxy("[fd12::1]:8080", &["http://[fd12::1]:8080"], &["http://[fd12::1]"]);
        check_no_proxy("0.0.0.0/0", &["http://192.0.2.1"], &["http://[fd12::1]", "https://example.com"]);
        check_no_proxy("10.0.0.0/99,,:,  ,/8", &[], &["http://10.0.0.1", "https://example.com"]);
    }

    #[test]
    fn the_environment_gives_each_scheme_its_proxy_and_loopback_none() {
        let env = ProxyEnv {
            https: Some("http://secure.example:1".into()),
            http: Some(" ".into()),
            all: Some("any.example:2".into()),
            no: Some("direct.example".into()),
        };
        let proxy = Proxy::parse("env", &env).unwrap();
        let through = |url: &str| proxy.for_origin(&origin(url)).map(ToString::to_string);
        assert_eq!(through("https://llm.example").as_deref(), Some("http://secure.example:1"));
        assert_eq!(through("http://llm.example").as_deref(), Some("http://any.example:2"));
        for url in
            ["https://direct.example", "http://localhost:1", "http://127.9.9.9", "http://[::1]", "http://x.localhost"]
        {
            assert_eq!(through(url), None, "{url}");
        }
        let unset = Proxy::parse("env", &ProxyEnv::default()).unwrap();
        assert!(unset.for_origin(&origin("https://llm.example")).is_none());
    }

    #[test]
    fn an_unusable_proxy_is_named_unless_nothing_would_use_it() {
        let env = ProxyEnv { all: Some("socks5://s.example:1080".into()), ..ProxyEnv::default() };
        let why = Proxy::parse("env", &env).unwrap_err().0;
        assert!(why.contains("`ALL_PROXY`") && why.contains("not supported"), "{why}");
        let both = Some("http://p.example".to_owned());
        let env = ProxyEnv { https: both.clone(), http: both, ..env };
        assert!(Proxy::parse("env", &env).is_ok());
    }

    #[test]
    fn a_setting_that_is_no_proxy_is_refused_without_repeating_it() {
        for bad in [
            "",
            "proxy.example",
            "ftp://u:hunter2@x",
            "socks5://u:hunter2@x",
            "http://u:hunter2@",
            "http://u:hunter2@x/p",
        ] {
            let why = Proxy::parse(bad, &ProxyEnv::default()).unwrap_err().0;
            assert!(!why.contains("hunter2") && !why.is_empty(), "{bad}: {why}");
        }
    }

    #[test]
    fn credentials_of_a_proxy_are_decoded_and_never_printed() {
        let proxy = ProxyUrl::parse("http://us%40er:hunter%3A2@proxy.example:3128").unwrap();
        // base64 of `us@er:hunter:2`
        assert_eq!(proxy.authorization.as_ref().unwrap().expose(), "Basic dXNAZXI6aHVudGVyOjI=");
        let printed = format!("{proxy} {proxy:?} {:?}", Proxy::Always(proxy.clone()));
        for secret in ["hunter", "us@er", "us%40er", "dXNAZXI6aHVudGVyOjI"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        let env = ProxyEnv { https: Some("http://u:hunter2@x".into()), ..ProxyEnv::default() };
        assert_eq!(format!("{env:?}"), "{\"https\"}");
    }

    #[test]
    fn base64_pads_as_it_should() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}", "w78=")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
