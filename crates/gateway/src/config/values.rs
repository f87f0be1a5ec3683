//! The forms that are ours alone: addresses, references to credentials, providers, headers.

use std::net::SocketAddr;

use jsonc_parser::ast::Value;
use wire::protocol::Protocol;

use super::credential::CredentialRef;
use super::form::{Form, Kind, Shape, map_with, section, text};
use super::hours::Hours;
use super::keys::{Choice, Entry, ProviderConfig, Target};
use super::proxy::ProxySetting;
use super::read::{Place, Reader, Wrong, mistyped, offset};
use super::suggest::nearest;
use ledger::redact::Pattern;

use crate::catalog::{self, ProviderKind};
use crate::glob::Glob;
use crate::net::ProxyUrl;
use crate::origin::BaseUrl;
use crate::secret::Secret;

/// An address to listen on.
pub(super) fn listen() -> Form<SocketAddr> {
    text("address", "\"127.0.0.1:54548\"", |text, _| {
        text.parse().map_err(|_| {
            let help = match text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')) {
                Some(port) if port.parse::<u16>().is_ok() => format!("write \"127.0.0.1:{port}\""),
                _ if text.parse::<std::net::IpAddr>().is_ok() => {
                    format!("add the port, for example {:?}", with_port(text))
                }
                _ => "write IP address and port, for example \"127.0.0.1:54548\" or \"[::1]:54548\"".into(),
            };
            Wrong::new("not an address with a port", help)
        })
    })
}

fn with_port(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]:54548") } else { format!("{ip}:54548") }
}

/// A regular expression of what is taken out of bodies.
pub(super) fn pattern() -> Form<String> {
    text("pattern", "\"…\"", |text, _| match Pattern::new(text) {
        Ok(_) => Ok(text.to_string()),
        Err(bad) => Err(Wrong::new("no pattern that can be used", bad.to_string())),
    })
}

/// A name in a `Host` header; with a port it is meant for that port only.
pub(super) fn host() -> Form<String> {
    text("host name", "\"my-container\"", |text, _| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<std::net::IpAddr>() {
            return Ok(ip.to_string());
        }
        let (name, port) = text.rsplit_once(':').unwrap_or((text, "1"));
        let name_fine = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => (1..=253).contains(&name.len()) && name.bytes().all(fine),
        };
        if !name_fine || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            let help = "write name or address, without scheme and wildcard, for example \"my-container\" or \"my-container:8080\"";
            return Err(Wrong::new("not a host name", help));
        }
        Ok(text.to_ascii_lowercase())
    })
}

/// What an `Origin` header may say.
pub(super) fn origin() -> Form<String> {
    text("origin", "\"https://editor.example.org\"", |text, _| {
        let wrong = || {
            let help = "write scheme and host, for example \"https://editor.example.org\" or \"vscode-webview://abc\"; \
                        neither `*` nor `null` can be allowed";
            Wrong::new("not an origin", help)
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let scheme_fine = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let rest_fine = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        if !scheme_fine || !rest_fine || text.len() > 512 {
            return Err(wrong());
        }
        Ok(text.to_ascii_lowercase())
    })
}

/// `none`, `env` or the URL of a proxy.
pub(super) fn proxy() -> Form<ProxySetting> {
    text("proxy", "\"env\"", |text, _| match text {
        "none" => Ok(ProxySetting::None),
        "env" => Ok(ProxySetting::Env),
        url => {
            let help = "write \"none\", \"env\" or a URL such as \"http://proxy.example.org:3128\"";
            let wrong = |why: &str| Wrong::new(format!("no proxy: {why}"), help);
            if !url.contains("://") {
                return Err(wrong("the scheme is missing"));
            }
            ProxyUrl::parse(url).map(ProxySetting::Url).map_err(|bad| wrong(&bad.0))
        }
    })
}

/// Where a provider lives.
pub(super) fn base_url() -> Form<BaseUrl> {
    text("url", "\"https://api.anthropic.com\"", |text, _| {
        text.parse().map_err(|bad: crate::origin::BadUrl| {
            Wrong::new(format!("no base URL: {bad}"), "write for example \"https://api.anthropic.com\"")
        })
    })
}

/// A reference to a credential.
pub(super) fn credential() -> Form<CredentialRef> {
    text("credential", "\"env:ANTHROPIC_API_KEY\"", |text, reader| {
        if text.is_empty() {
            return Err(Wrong::new("the reference is empty", "write null for none, or for example \"env:CCO_TOKEN\""));
        }
        match text.parse() {
            Ok(CredentialRef::File(path)) => Ok(CredentialRef::File(reader.paths.resolve(&path))),
            Ok(other) => Ok(other),
            Err(bad) => Err(Wrong { message: bad.message, help: Some(bad.help) }),
        }
    })
}

/// The references of a provider: one, a list, or the empty text for none.
pub(super) fn credentials(entry: Entry<'_>) -> Kind<Vec<CredentialRef>> {
    let (one, many) = (credential(), credential().list());
    let shape = Shape::Either(Box::new(one.shape), Box::new(many.shape));
    let read = move |value: &Value<'_>, place: &Place, reader: &mut Reader<'_>| match value {
        Value::StringLit(text) if text.value.is_empty() => Some(Vec::new()),
        Value::NullKeyword(_) => Some(Vec::new()),
        Value::StringLit(_) => (one.read)(value, place, reader).map(|reference| vec![reference]),
        Value::Array(_) => (many.read)(value, place, reader),
        other => {
            let wrong = mistyped("a reference or a list of references", "\"env:ANTHROPIC_API_KEY\"", other);
            reader.fault(offset(other), place, wrong);
            None
        }
    };
    Form { shape, read: Box::new(read) }.or(entry.kind.key_variable.map_or(String::new(), |name| format!("env:{name}")))
}

/// The words of the key `protocol`.
pub(super) fn protocol() -> &'static [(&'static str, Protocol)] {
    const WORDS: [(&str, Protocol); Protocol::ALL.len()] = {
        let mut words = [("", Protocol::AnthropicMessages); Protocol::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = (Protocol::ALL[at].as_str(), Protocol::ALL[at]);
            at += 1;
        }
        words
    };
    &WORDS
}

/// The name of a provider.
pub(super) fn provider_name() -> Form<String> {
    text("provider", "\"anthropic\"", |text, _| is_provider_name(text).map(|()| text.to_string()))
}

/// Names travel in headers, metrics and paths.
fn is_provider_name(name: &str) -> Result<(), Wrong> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Wrong::new("no name for a provider", "use letters, digits, `.`, `_` and `-`, at most 64"))
}

/// The kind of a provider; absence is a fault unless the provider is named as a kind.
pub(super) fn provider_type(entry: Entry<'_>) -> Kind<&'static ProviderKind> {
    let form = Form {
        shape: Shape::Choice(catalog::CATALOG.iter().map(|kind| kind.name).collect()),
        read: Box::new(|value, place, reader| match value {
            Value::StringLit(name) => catalog::find(&name.value).or_else(|| {
                let supported: Vec<_> = catalog::supported().map(|name| format!("\"{name}\"")).collect();
                let list = supported.join(", ");
                let help = match nearest(&name.value, catalog::CATALOG.iter().map(|kind| kind.name)) {
                    Some(near) => format!("did you mean \"{near}\"? This version speaks to {list}"),
                    None => format!("this version speaks to {list}"),
                };
                reader.fault(name.range.start, place, Wrong::new("no known kind of provider", help));
                None
            }),
            other => {
                reader.fault(offset(other), place, mistyped("a string", "\"anthropic\"", other));
                None
            }
        }),
    };
    if entry.kind_is_named { form.or(entry.kind.name) } else { form.required(entry.kind.name) }
}

/// The providers, in the order of the file.
pub(super) fn providers() -> Form<Vec<ProviderConfig>> {
    let anthropic = Entry { name: "anthropic", kind: catalog::anthropic(), kind_is_named: true };
    map_with(Shape::Section(ProviderConfig::keys_with(anthropic)), |name, property, place, reader| {
        if let Err(wrong) = is_provider_name(name) {
            reader.fault(property.range.start, place, wrong);
        }
        let stated = property.value.as_object().and_then(|object| object.get_string("providerType"));
        let stated = stated.map(|text| catalog::find(&text.value));
        let named = catalog::find(name);
        let entry = Entry {
            name,
            kind: stated.unwrap_or(named).unwrap_or(catalog::anthropic()),
            kind_is_named: stated.is_some() || named.is_some(),
        };
        Some(ProviderConfig::read_with(entry, Some(&property.value), place, reader))
    })
}

/// Headers that are ours or the connection's to set.
const RESERVED: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "api-key",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-api-key",
];

/// Headers to add: names in lower case, values that cannot end a header line.
pub(super) fn headers() -> Form<Vec<(String, Secret)>> {
    let value = text("header value", "\"value\"", |text, _| {
        if text.bytes().all(|b| b == b'\t' || (0x20..0x7f).contains(&b)) && text.trim() == text && text.len() <= 8192 {
            return Ok(Secret::new(text));
        }
        Err(Wrong::new(
            "no value for a header",
            "use visible ASCII characters, at most 8192, without blanks at the ends",
        ))
    });
    let read = value.read;
    map_with(value.shape, move |name, property, place, reader| {
        let lower = name.to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let wrong = if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            Some(Wrong::new("no name for a header", "use letters, digits and `-`"))
        } else if ["authorization", "x-api-key", "api-key", "x-goog-api-key"].contains(&lower.as_str()) {
            Some(Wrong::new("a key does not belong in a header of the configuration", "use `apiKeyRef`"))
        } else if RESERVED.contains(&lower.as_str()) || lower.starts_with("x-cco-") {
            Some(Wrong::new("this header is set by the connection or by cco itself", "remove it"))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            reader.fault(property.range.start, place, wrong);
        }
        Some((lower, read(&property.value, place, reader)?))
    })
}

/// A provider's name, or an object of provider and model.
pub(super) fn target() -> Form<Target> {
    let (name, object) = (provider_name(), section::<Target>());
    let shape = Shape::Either(Box::new(name.shape), Box::new(object.shape));
    let read = move |value: &Value<'_>, place: &Place, reader: &mut Reader<'_>| match value {
        Value::StringLit(_) => (name.read)(value, place, reader).map(|provider| Target { provider, model: None }),
        value => (object.read)(value, place, reader),
    };
    Form { shape, read: Box::new(read) }
}

/// A provider of a rule: its name, or an object with model and weight.
pub(super) fn chosen() -> Form<Choice> {
    let (name, object) = (provider_name(), section::<Choice>());
    let shape = Shape::Either(Box::new(name.shape), Box::new(object.shape));
    let read = move |value: &Value<'_>, place: &Place, reader: &mut Reader<'_>| match value {
        Value::StringLit(_) => {
            (name.read)(value, place, reader).map(|provider| Choice { provider, model: None, weight: 1 })
        }
        value => (object.read)(value, place, reader),
    };
    Form { shape, read: Box::new(read) }
}

/// A pattern.
pub(super) fn glob() -> Form<Glob> {
    text("pattern", "\"claude-*\"", |text, _| match text.trim() {
        "" => Err(Wrong::new("the pattern is empty", "write a pattern such as \"claude-*\", or remove it")),
        text => Ok(Glob::new(text)),
    })
}

/// Hours of the week.
pub(super) fn hours() -> Form<Hours> {
    text("hours", "\"mon-fri 09:00-17:00\"", |text, _| {
        text.parse().map_err(|_| {
            let help = "write for example \"mon-fri 09:00-17:00\", \"sat,sun 00:00-24:00\" or \"22:00-06:00\" (UTC)";
            Wrong::new("no hours of the week", help)
        })
    })
}

/// The name of a request header that a rule may look at. Keys are not among them: their values would stand in the file.
pub(super) fn header_name(name: &str) -> Result<(), Wrong> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !(1..=256).contains(&name.len()) || !name.bytes().all(token) {
        return Err(Wrong::new("no name for a header", "use letters, digits and `-`"));
    }
    let lower = name.to_ascii_lowercase();
    if ["authorization", "x-api-key", "api-key", "x-goog-api-key", "x-cco-token"].contains(&lower.as_str()) {
        return Err(Wrong::new("a key does not belong in a rule", "use `keyId`, which tells keys apart by their ends"));
    }
    Ok(())
}
