//! The request that goes up to one target: its head, its credential, its body with the model that the target is asked for.

use std::cell::OnceCell;

use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, write};
use ledger::record::Fingerprint;
use wire::envelope::{Envelope, splice};
use wire::error::ApiError;
use wire::loss::Losses;
use wire::protocol::Protocol;

use crate::catalog::{Auth, Way};
use crate::client::inbound::{Claim, HeldBody, Operation};
use crate::config::KeyMode;
use crate::headers;
use crate::health::Slot;
use crate::provider::Provider;
use crate::route::{Changes, Target};
use crate::secret::Secret;
use crate::server::caller::Means;
use crate::server::translated::{self, Asks};
use crate::translation::{self, Answer, Unsigned};

/// A credential as it goes up.
#[derive(Debug)]
pub(super) struct Credential {
    form: Auth,
    value: Secret,
    /// As records show it.
    pub(super) fingerprint: Fingerprint,
    /// Whether a subscription pays.
    pub(super) notional: bool,
}

impl Credential {
    fn new(form: Auth, key: &Secret, notional: bool) -> Self {
        let value = Secret::new([form.prefix(), key.expose()].concat());
        Self { form, value, fingerprint: Fingerprint::of(key.expose()), notional }
    }
}

impl Credential {
    /// Appends the field.
    pub(super) fn write(&self, out: &mut BytesMut) {
        write::field(out, self.form.header().as_bytes(), self.value.expose().as_bytes());
    }
}

/// The credential of a target: `Ok(None)` where it wants none, `Err` where there is none any more. A caller's own key
/// goes to no provider but the one at `home`, and each of ours to its own scheme, host and port.
pub(super) fn credential(
    provider: &Provider,
    way: &Way,
    slot: Slot,
    means: &Means,
    home: Option<u16>,
) -> Result<Option<Credential>, ()> {
    match slot {
        Slot::None => Ok(None),
        Slot::Client => {
            let is_home = home == Some(provider.place) && provider.key_mode == KeyMode::Client;
            let own = means.own.as_ref().filter(|_| is_home).ok_or(())?;
            let is_subscription = own.key.expose().starts_with("sk-ant-oat");
            Ok(Some(Credential::new(own.form.unwrap_or(provider.auth(way)), &own.key, is_subscription)))
        }
        Slot::Stored(at) => {
            let key = provider.keys.get(usize::from(at)).filter(|_| means.stored).ok_or(())?;
            let key = key.for_origin(&provider.base.origin).ok_or(())?;
            Ok(Some(Credential::new(provider.auth(way).of_key(key.expose()), &key, false)))
        }
    }
}

/// A request as it goes up.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) head: Bytes,
    /// The body in slices of what was received, with what is changed between them; `None`: it goes up while it arrives,
    /// or there is none.
    pub(super) body: Option<[Bytes; 3]>,
    /// How the answer becomes the client's, where the target speaks another protocol.
    pub(super) answer: Option<Answer>,
    /// What the translation does not carry.
    pub(super) losses: Losses,
    /// Whether there is nothing to ask.
    pub(super) is_idle: bool,
    /// The room of a body that was made anew.
    pub(super) _room: Option<Claim>,
}

/// Why a target is not asked.
#[derive(Debug)]
pub(super) enum Unfit {
    /// The model cannot be written into the request.
    Model,
    /// There is no room for another body beside the one that came.
    NoRoom,
    /// What is asked cannot be said in the target's protocol.
    Refused(Box<ApiError>),
}

/// What is made of a body once, however many targets are asked: what goes up of it between equal protocols where it brings
/// along reasoning of other providers, and what it comes to.
#[derive(Debug, Default)]
pub(super) struct Fitted {
    for_claude: OnceCell<Option<Stripped>>,
    for_others: OnceCell<Option<Stripped>>,
    /// What the prompt comes to, by estimate, where that is told to anybody; `None`: it cannot be read.
    pub(super) prompt: OnceCell<Option<u64>>,
}

/// A body without reasoning of other providers, and what that was.
#[derive(Debug)]
struct Stripped {
    text: Bytes,
    losses: Losses,
    /// `None`: there is none.
    room: Option<Claim>,
}

impl Fitted {
    /// The body without such reasoning; `None`: there is none.
    fn of(&self, protocol: Protocol, body: &HeldBody, unsigned: Unsigned) -> Option<&Stripped> {
        let made = match unsigned {
            Unsigned::Goes => &self.for_claude,
            Unsigned::Stays => &self.for_others,
        };
        let make = || {
            let (text, losses) = translation::without_foreign_reasoning(protocol, &body.text, unsigned)?;
            let room = body.room_for(text.len());
            Some(Stripped { text, losses, room })
        };
        made.get_or_init(make).as_ref()
    }
}

/// What becomes of unsigned thinking there: real Claude models sign theirs, and take no other.
fn unsigned_at(provider: &Provider, target: &Target<'_>, body: &HeldBody) -> Unsigned {
    match provider.kind.name {
        "anthropic" | "azure" | "bedrock" | "vertex" => Unsigned::Goes,
        // It passes on what it is sent to whose model it is.
        "openrouter" if translated::model(provider, target, body).contains("claude") => Unsigned::Goes,
        _ => Unsigned::Stays,
    }
}

/// The body for a target, and whether it is plain text although it came packed. `None`: the model cannot be written into
/// it. `stripped` is what goes up in its place.
fn body_for(
    body: &HeldBody,
    stripped: Option<&Bytes>,
    provider: &Provider,
    target: &Target<'_>,
) -> Option<([Bytes; 3], bool)> {
    let model = provider.model(target.model);
    if !target.renames && model == target.model {
        let (whole, unpacked) = match stripped {
            Some(stripped) => (stripped.clone(), body.text.as_ptr() != body.bytes.as_ptr()),
            None => (body.bytes.clone(), false),
        };
        return Some(([whole, Bytes::new(), Bytes::new()], unpacked));
    }
    let again = stripped.and_then(|text| Envelope::read(text).ok());
    let (text, envelope) = match (stripped, &again) {
        (Some(text), Some(envelope)) => (text, envelope),
        _ => (&body.text, &body.envelope),
    };
    let model = serde_json::to_string(model).ok()?;
    let parts = match envelope.model_span.clone().filter(|span| span.end <= text.len()) {
        Some(span) => splice(text, span, model.into()),
        None => {
            let begin = text.iter().position(|b| !b.is_ascii_whitespace()).filter(|at| text[*at] == b'{')? + 1;
            let comma = if text[begin..].trim_ascii_start().starts_with(b"}") { "" } else { "," };
            splice(text, begin..begin, format!("\"model\":{model}{comma}").into())
        }
    };
    Some((parts, body.text.as_ptr() != body.bytes.as_ptr()))
}

/// The request for a target.
#[expect(
    clippy::too_many_arguments,
    reason = "the one place where everything that a request is made of comes together"
)]
pub(super) fn prepare(
    asks: Asks<'_>,
    head: &RequestHead,
    operation: Operation,
    body: Option<&HeldBody>,
    provider: &Provider,
    target: &Target<'_>,
    changes: &Changes<'_>,
    credential: Option<&Credential>,
) -> Result<Outgoing, Unfit> {
    let way = provider.way(asks.protocol);
    if way.protocol != asks.protocol {
        return match body.filter(|_| operation == Operation::Generation) {
            Some(body) => {
                let made = translated::prepare(asks, head, body, provider, target, changes, credential);
                let made = made.map_err(|why| Unfit::Refused(Box::new(why)))?;
                let size = made.body.iter().flatten().map(Bytes::len).sum();
                let _room = Some(body.room_for(size).ok_or(Unfit::NoRoom)?);
                Ok(Outgoing { _room, ..made })
            }
            None => Err(Unfit::Model),
        };
    }
    let stripped = body.and_then(|body| asks.fitted.of(asks.protocol, body, unsigned_at(provider, target, body)));
    if stripped.is_some_and(|stripped| stripped.room.is_none()) {
        return Err(Unfit::NoRoom);
    }
    let body = match body {
        Some(body) => {
            let text = stripped.map(|stripped| &stripped.text);
            Some(body_for(body, text, provider, target).ok_or(Unfit::Model)?)
        }
        None => None,
    };
    // As long as the client's, with another name, another key and what rules add.
    let mut out = BytesMut::with_capacity(head.size() + 384);
    write::request_line(&mut out, head.method(), &provider.target(way, head.target()));
    write::field(&mut out, b"host", provider.base.origin.host_header().as_bytes());
    let unpacked = body.as_ref().is_some_and(|(_, unpacked)| *unpacked);
    let to = headers::For {
        coding: operation.coding(),
        unpacked,
        is_home: asks.home == Some(provider.place),
        rule: changes.headers,
        provider: &provider.headers,
    };
    headers::request_fields(&mut out, head, to);
    if let Some(credential) = credential {
        credential.write(&mut out);
    }
    match (&body, head.framing) {
        (Some((parts, _)), _) => {
            write::content_length(&mut out, parts.iter().map(|part| part.len() as u64).sum());
        }
        (None, Framing::Length(n)) => write::content_length(&mut out, n),
        (None, Framing::Chunked) => write::field(&mut out, b"transfer-encoding", b"chunked"),
        (None, _) => {}
    }
    headers::end(&mut out);
    let (head, body) = (out.freeze(), body.map(|(parts, _)| parts));
    let losses = stripped.map(|stripped| stripped.losses.clone()).unwrap_or_default();
    Ok(Outgoing { head, body, answer: None, losses, is_idle: false, _room: None })
}
