//! The request that goes up to one target: its head, its credential, its body with the model that the target is asked for.

use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, write};
use ledger::record::Fingerprint;
use wire::envelope::splice;

use crate::catalog::Auth;
use crate::client::inbound::{HeldBody, Operation};
use crate::config::KeyMode;
use crate::headers;
use crate::health::Slot;
use crate::provider::Provider;
use crate::route::{Changes, Target};
use crate::secret::Secret;
use crate::server::caller::Means;

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
        let value = Secret::new(format!("{}{}", form.prefix(), key.expose()));
        Self { form, value, fingerprint: Fingerprint::of(key.expose()), notional }
    }
}

/// The credential of a target: `Ok(None)` where it wants none, `Err` where there is none any more. A caller's own key
/// goes to no provider but the one at `home`, and each of ours to its own scheme, host and port.
pub(super) fn credential(
    provider: &Provider,
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
            Ok(Some(Credential::new(own.form.unwrap_or(provider.kind.auth), &own.key, is_subscription)))
        }
        Slot::Stored(at) => {
            let key = provider.keys.get(usize::from(at)).filter(|_| means.stored).ok_or(())?;
            let key = key.for_origin(&provider.base.origin).ok_or(())?;
            Ok(Some(Credential::new(provider.kind.auth, &key, false)))
        }
    }
}

/// A request as it goes up.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) head: Bytes,
    /// The body in slices of what was received, with what is changed between them; `None`: it goes up while it arrives,
    /// or there is none.
    pub(super) body: Option<[Bytes; 3]>,
}

/// The body for a target, and whether it is plain text although it came packed. `None`: the model cannot be written into
/// it. This is where a body in another protocol would be made.
fn body_for(body: &HeldBody, target: &Target<'_>) -> Option<([Bytes; 3], bool)> {
    if !target.renames {
        return Some(([body.bytes.clone(), Bytes::new(), Bytes::new()], false));
    }
    let text = &body.text;
    let model = serde_json::to_string(target.model).ok()?;
    let parts = match body.envelope.model_span.clone().filter(|span| span.end <= text.len()) {
        Some(span) => splice(text, span, model.into()),
        None => {
            let begin = text.iter().position(|b| !b.is_ascii_whitespace()).filter(|at| text[*at] == b'{')? + 1;
            let comma = if text[begin..].trim_ascii_start().starts_with(b"}") { "" } else { "," };
            splice(text, begin..begin, format!("\"model\":{model}{comma}").into())
        }
    };
    Some((parts, text.as_ptr() != body.bytes.as_ptr()))
}

/// The request for a target; `None` where it cannot be asked for the model that it should be asked for.
pub(super) fn prepare(
    head: &RequestHead,
    operation: Operation,
    body: Option<&HeldBody>,
    provider: &Provider,
    target: &Target<'_>,
    changes: &Changes<'_>,
    credential: Option<&Credential>,
) -> Option<Outgoing> {
    let body = match body {
        Some(body) => Some(body_for(body, target)?),
        None => None,
    };
    let mut out = BytesMut::with_capacity(2048);
    let path = head.target();
    if provider.base.path.is_empty() {
        write::request_line(&mut out, head.method(), path);
    } else {
        write::request_line(&mut out, head.method(), &format!("{}{path}", provider.base.path));
    }
    write::field(&mut out, b"host", provider.base.origin.host_header().as_bytes());
    let unpacked = body.as_ref().is_some_and(|(_, unpacked)| *unpacked);
    headers::request_fields(&mut out, head, operation.coding(), unpacked, changes.headers, &provider.headers);
    if let Some(credential) = credential {
        write::field(&mut out, credential.form.header().as_bytes(), credential.value.expose().as_bytes());
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
    Some(Outgoing { head: out.freeze(), body: body.map(|(parts, _)| parts) })
}
