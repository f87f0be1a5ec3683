//! The one table of what we change in the heads that pass through us. Whatever is not in it arrives as it was sent.

use std::sync::LazyLock;

use bytes::{BufMut, BytesMut};
use http1::head::tokens;
use http1::{Field, RequestHead, ResponseHead, write};

use crate::secret::Secret;

/// Why a field does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is about this connection only (RFC 9110 §7.6.1), or about the framing that each side does itself.
    Connection,
    /// It holds a credential: what travels on is decided by the caller's rules, never by copying.
    Credential,
    /// It tells the upstream about the network in front of us, or us about the one behind it.
    Network,
    /// It makes a browser do something in our name.
    Browser,
    /// It is spoken between the caller and us.
    Private,
}

/// Fields of a request that stay here. `accept-encoding` is in [`IDENTITY`].
pub const REQUEST: &[(&str, Why)] = &[
    ("host", Why::Connection),
    ("connection", Why::Connection),
    ("keep-alive", Why::Connection),
    ("proxy-authorization", Why::Credential),
    ("proxy-connection", Why::Connection),
    ("te", Why::Connection),
    ("trailer", Why::Connection),
    ("transfer-encoding", Why::Connection),
    ("upgrade", Why::Connection),
    ("expect", Why::Connection),
    ("content-length", Why::Connection),
    ("authorization", Why::Credential),
    ("x-api-key", Why::Credential),
    ("api-key", Why::Credential),
    ("x-goog-api-key", Why::Credential),
    ("cookie", Why::Credential),
    ("forwarded", Why::Network),
    ("x-forwarded-for", Why::Network),
    ("x-forwarded-host", Why::Network),
    ("x-forwarded-proto", Why::Network),
    ("x-forwarded-port", Why::Network),
    ("x-forwarded-server", Why::Network),
    ("x-real-ip", Why::Network),
    ("via", Why::Network),
];

/// Fields of an answer that stay here.
pub const RESPONSE: &[(&str, Why)] = &[
    ("connection", Why::Connection),
    ("keep-alive", Why::Connection),
    ("proxy-connection", Why::Connection),
    ("te", Why::Connection),
    ("trailer", Why::Connection),
    ("transfer-encoding", Why::Connection),
    ("upgrade", Why::Connection),
    ("content-length", Why::Connection),
    ("proxy-authenticate", Why::Credential),
    ("proxy-authorization", Why::Credential),
    ("www-authenticate", Why::Credential),
    ("authorization", Why::Credential),
    ("x-api-key", Why::Credential),
    ("api-key", Why::Credential),
    ("x-goog-api-key", Why::Credential),
    ("set-cookie", Why::Browser),
    ("set-cookie2", Why::Browser),
    ("location", Why::Browser),
    ("alt-svc", Why::Browser),
    ("strict-transport-security", Why::Browser),
    ("clear-site-data", Why::Browser),
    ("nel", Why::Browser),
    ("report-to", Why::Browser),
    ("reporting-endpoints", Why::Browser),
    ("refresh", Why::Browser),
    ("access-control-allow-origin", Why::Browser),
    ("access-control-allow-credentials", Why::Browser),
    ("access-control-allow-headers", Why::Browser),
    ("access-control-allow-methods", Why::Browser),
    ("access-control-expose-headers", Why::Browser),
    ("access-control-max-age", Why::Browser),
    ("access-control-allow-private-network", Why::Browser),
    ("server", Why::Network),
    ("via", Why::Network),
];

/// Every field of this prefix is spoken between the caller and us, in both directions.
pub const PRIVATE_PREFIX: &str = "x-cco-";

/// The version of Anthropic's protocol that we write.
pub const ANTHROPIC_VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// What replaces the caller's `accept-encoding` where we must read the answer.
pub const IDENTITY: (&str, &str) = ("accept-encoding", "identity");

/// What a stream of events is sent with where the upstream sent no field of that name.
pub const STREAM: &[(&str, &str)] =
    &[("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];

/// The name under which the exchange's id goes out.
pub const REQUEST_ID: &str = "x-cco-request-id";
/// The name under which it goes out who answered.
pub const PROVIDER: &str = "x-cco-provider";
/// The name under which it goes out how many attempts it took.
pub const ATTEMPTS: &str = "x-cco-attempts";
/// By which a simulator says that nobody is paid for its answer.
pub const SIMULATED: &str = "x-cco-simulated";
/// The name under which it goes out that a caller's subscription is used up, so that another provider serves.
pub const SUBSCRIPTION: &str = "x-cco-subscription";
/// By which clients that repeat by themselves are told whether to.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// A table by the length of its names: most fields are told from all of them by that alone.
type ByLength = [Vec<(&'static str, Why)>; 40];

fn by_length(table: &[(&'static str, Why)]) -> ByLength {
    let mut lists = [const { Vec::new() }; 40];
    for entry in table {
        lists[entry.0.len()].push(*entry);
    }
    lists
}

static REQUEST_BY_LENGTH: LazyLock<ByLength> = LazyLock::new(|| by_length(REQUEST));
static RESPONSE_BY_LENGTH: LazyLock<ByLength> = LazyLock::new(|| by_length(RESPONSE));

fn look_up(table: &ByLength, field: &Field<'_>) -> Option<Why> {
    let listed = table.get(field.name.len())?.iter().find(|(name, _)| field.is(name)).map(|(_, why)| *why);
    listed.or_else(|| {
        let prefix = field.name.get(..PRIVATE_PREFIX.len())?;
        prefix.eq_ignore_ascii_case(PRIVATE_PREFIX.as_bytes()).then_some(Why::Private)
    })
}

/// Why a request's field stays here; `None`: it passes.
pub fn request_rule(field: &Field<'_>) -> Option<Why> {
    look_up(&REQUEST_BY_LENGTH, field)
}

/// Why an answer's field stays here; `None`: it passes.
pub fn response_rule(field: &Field<'_>) -> Option<Why> {
    look_up(&RESPONSE_BY_LENGTH, field)
}

/// The names that `connection` fields declare to be about this connection only, apart from those in the tables.
fn named<'a>(fields: impl Iterator<Item = Field<'a>>) -> Vec<&'a [u8]> {
    fields
        .filter(|f| f.is("connection"))
        .flat_map(|f| tokens(f.value))
        .filter(|t| !t.eq_ignore_ascii_case(b"close") && !t.eq_ignore_ascii_case(b"keep-alive"))
        .collect()
}

fn is_named(names: &[&[u8]], field: &Field<'_>) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case(field.name))
}

/// How much of the answer we must be able to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// The caller's `accept-encoding` passes.
    Callers,
    /// We ask for [`IDENTITY`].
    Identity,
}

/// Fields of a configuration: names in lower case, values that are fit for a header.
pub type Set<'a> = &'a [(String, Secret)];

/// Parts of a name that speak of a credential. Where none of our tables knows the name, it goes to the caller's own
/// provider and to no other.
const SECRET: [&str; 8] = ["auth", "authorization", "key", "apikey", "token", "secret", "password", "credential"];
/// Names that only sound like it.
const NO_SECRET: [&str; 2] = ["idempotency-key", "x-idempotency-key"];

/// The token of an `authorization: Bearer …`; `None`: it is of another kind.
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let end = value.iter().position(u8::is_ascii_whitespace).unwrap_or(value.len());
    let (scheme, token) = value.split_at(end);
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

/// Whether a field that is in no table may hold a credential of the caller's.
pub fn may_be_secret(field: &Field<'_>) -> bool {
    let speaks_of = |part: &[u8]| SECRET.iter().any(|word| part.eq_ignore_ascii_case(word.as_bytes()));
    field.name.split(|b| matches!(b, b'-' | b'_')).any(speaks_of) && !NO_SECRET.iter().any(|name| field.is(name))
}

/// For whom a request's head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct For<'a> {
    /// How much of the answer we must be able to read.
    pub coding: Coding,
    /// The body goes up as plain text although it came packed.
    pub unpacked: bool,
    /// It is the provider that the caller's own credentials are for.
    pub is_home: bool,
    /// What a rule sets.
    pub rule: Set<'a>,
    /// What the provider's configuration sets.
    pub provider: Set<'a>,
}

/// Appends the fields of `head` that pass, apart from those that the rule or, where the rule says nothing of them, the
/// provider sets anew.
pub fn request_fields(out: &mut BytesMut, head: &RequestHead, to: For<'_>) {
    let For { coding, unpacked, is_home, rule, provider } = to;
    let named = named(head.fields());
    for field in head.fields() {
        let ours = coding == Coding::Identity && field.is(IDENTITY.0)
            || unpacked && field.is("content-encoding")
            || !is_home && may_be_secret(&field);
        if ours || request_rule(&field).is_some() || is_named(&named, &field) {
            continue;
        }
        if rule.iter().chain(provider).any(|(name, _)| field.is(name)) {
            continue;
        }
        write::field(out, field.name, field.value);
    }
    if coding == Coding::Identity {
        write::field(out, IDENTITY.0.as_bytes(), IDENTITY.1.as_bytes());
    }
    own_fields(out, rule, provider);
}

/// Appends the fields that the configuration adds: those of a rule, and of the provider's those that the rule leaves.
pub fn own_fields(out: &mut BytesMut, rule: Set<'_>, provider: Set<'_>) {
    let of_provider = provider.iter().filter(|(name, _)| !rule.iter().any(|(set, _)| set == name));
    for (name, value) in rule.iter().chain(of_provider) {
        write::field(out, name.as_bytes(), value.expose().as_bytes());
    }
}

/// Appends the fields of an answer that pass. `final_word`: the client is told not to come again, whatever the upstream
/// said of it.
pub fn response_fields(out: &mut BytesMut, head: &ResponseHead, final_word: bool) {
    let named = named(head.fields());
    for field in head.fields() {
        let replaced = final_word && field.is(SHOULD_RETRY);
        if response_rule(&field).is_none() && !is_named(&named, &field) && !replaced {
            write::field(out, field.name, field.value);
        }
    }
}

/// Appends what we say of an exchange: its id, who served it, after how many attempts, and, where all of them failed for
/// reasons that do not pass by themselves, not to come again.
pub fn exchange_fields(out: &mut BytesMut, id: &str, provider: &str, attempts: u32, final_word: bool) {
    write::field(out, REQUEST_ID.as_bytes(), id.as_bytes());
    if is_field(provider) {
        write::field(out, PROVIDER.as_bytes(), provider.as_bytes());
    }
    out.put_slice(ATTEMPTS.as_bytes());
    out.put_slice(b": ");
    write::decimal(out, u64::from(attempts));
    out.put_slice(b"\r\n");
    if final_word {
        write::field(out, SHOULD_RETRY.as_bytes(), b"false");
    }
}

/// The same of an answer of our own that follows attempts: who was asked last, and how many attempts there were.
pub fn told_fields(provider: &str, attempts: u32) -> impl Iterator<Item = (&'static str, String)> {
    let named = (!provider.is_empty() && is_field(provider)).then(|| (PROVIDER, provider.to_string()));
    named.into_iter().chain([(ATTEMPTS, attempts.to_string())])
}

/// A name of the configuration can hold anything; a field cannot.
fn is_field(name: &str) -> bool {
    name.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Appends what a stream of events carries besides: only what the upstream did not say itself.
pub fn stream_fields(out: &mut BytesMut, head: &ResponseHead) {
    for (name, value) in STREAM {
        if head.get(name).is_none() {
            write::field(out, name.as_bytes(), value.as_bytes());
        }
    }
}

/// Ends a head.
pub fn end(out: &mut BytesMut) {
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http1::{Limits, Scan};

    fn request(fields: &str) -> RequestHead {
        let text = format!("POST /v1/messages HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        RequestHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default()).unwrap().unwrap()
    }

    fn response(fields: &str) -> ResponseHead {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let head = ResponseHead::take(&mut BytesMut::from(&*text), &mut Scan::default(), &Limits::default(), false);
        head.unwrap().unwrap()
    }

    #[track_caller]
    fn check_request(fields: &str, coding: Coding, want: &str) {
        let mut out = BytesMut::new();
        let rule = [("x-set".to_string(), Secret::new("ours"))];
        let provider = [("x-set".to_string(), Secret::new("the provider's"))];
        let to = For { coding, unpacked: false, is_home: true, rule: &rule, provider: &provider };
        request_fields(&mut out, &request(fields), to);
        assert_eq!(out, format!("{want}x-set: ours\r\n"));
    }

    #[test]
    fn what_may_be_a_credential_goes_to_its_own_provider_alone() {
        let secret = "cf-aig-authorization: a\r\nX-Portkey-Api-Key: b\r\nhelicone-auth: c\r\nocp-apim-subscription-key: d\r\n\
                      x_my_token: e\r\n";
        let plain = "idempotency-key: 1\r\nx-keyboard: us\r\nanthropic-beta: token-efficient-tools\r\nx-author: me\r\n";
        for (is_home, want) in [(true, format!("{secret}{plain}")), (false, plain.to_string())] {
            let mut out = BytesMut::new();
            let to = For { coding: Coding::Callers, unpacked: false, is_home, rule: &[], provider: &[] };
            request_fields(&mut out, &request(&format!("{secret}{plain}")), to);
            assert_eq!(out, want);
        }
    }

    #[test]
    fn fields_that_are_in_no_table_pass_in_order_and_spelling() {
        let fields = "anthropic-Version: 2023-06-01\r\nX-Stainless-Lang: js\r\nanthropic-beta: a,b\r\nanthropic-beta: c\r\n\
                      x-claude-code-session-id: s\r\nUser-Agent: x\r\nContent-Encoding: zstd\r\nAccept-Encoding: gzip\r\n";
        check_request(fields, Coding::Callers, fields);
    }

    #[test]
    fn every_entry_of_the_tables_stays_here_in_any_spelling() {
        for (name, why) in
            REQUEST.iter().filter(|(name, _)| !["host", "content-length", "transfer-encoding"].contains(name))
        {
            check_request(&format!("{}: v\r\nx-y: z\r\n", name.to_uppercase()), Coding::Callers, "x-y: z\r\n");
            assert_eq!(request_rule(&Field { name: name.as_bytes(), value: b"" }), Some(*why));
        }
        for (name, _) in RESPONSE.iter().filter(|(name, _)| !["content-length", "transfer-encoding"].contains(name)) {
            let mut out = BytesMut::new();
            response_fields(&mut out, &response(&format!("{}: v\r\nx-y: z\r\n", name.to_uppercase())), false);
            assert_eq!(out, "x-y: z\r\n", "{name}");
        }
        check_request("X-Cco-Agent: scout\r\nX-Set: theirs\r\n", Coding::Callers, "");
    }

    #[test]
    fn what_a_connection_field_names_stays_here() {
        check_request("Connection: close, X-Hop\r\nx-hop: 1\r\nx-y: z\r\n", Coding::Callers, "x-y: z\r\n");
    }

    #[test]
    fn identity_is_asked_for_in_place_of_the_callers_codings() {
        check_request("Accept-Encoding: gzip\r\n", Coding::Identity, "accept-encoding: identity\r\n");
    }

    #[test]
    fn a_body_that_was_unpacked_is_not_called_packed() {
        let (mut out, head) = (BytesMut::new(), request("content-encoding: gzip\r\nx-y: z\r\n"));
        let provider = [("x-set".into(), Secret::new("theirs"))];
        let to = For { coding: Coding::Callers, unpacked: true, is_home: true, rule: &[], provider: &provider };
        request_fields(&mut out, &head, to);
        assert_eq!(out, "x-y: z\r\nx-set: theirs\r\n");
    }

    #[test]
    fn a_final_word_replaces_what_the_upstream_said() {
        let mut out = BytesMut::new();
        response_fields(&mut out, &response("X-Should-Retry: true\r\nx-y: z\r\n"), true);
        exchange_fields(&mut out, "id", "a b", 12, true);
        exchange_fields(&mut out, "id", "ä", 0, false);
        let want = "x-y: z\r\nx-cco-request-id: id\r\nx-cco-provider: a b\r\nx-cco-attempts: 12\r\nx-should-retry: false\r\n\
                    x-cco-request-id: id\r\nx-cco-attempts: 0\r\n";
        assert_eq!(out, want);
    }

    #[test]
    fn stream_fields_fill_in_what_the_upstream_left_out() {
        let mut out = BytesMut::new();
        stream_fields(&mut out, &response("Cache-Control: no-store\r\n"));
        assert_eq!(out, "content-type: text/event-stream\r\nx-accel-buffering: no\r\n");
    }
}
