//! The head of the request that goes up.

use bytes::{Bytes, BytesMut};
use http1::{Framing, RequestHead, write};

use crate::client::inbound::{HeldBody, Operation};
use crate::config::CredentialRef;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::headers;
use crate::provider::Provider;
use crate::secret::Secret;
use crate::server::caller::Payer;

/// The credential field of the upstream request.
pub(super) fn authorization(provider: &Provider, payer: &Payer) -> Result<(&'static str, Secret), Refusal> {
    let stored;
    let (form, key) = match payer {
        Payer::Own(form, key) => (*form, key),
        Payer::Stored => {
            let key = provider.key.as_ref().and_then(|key| key.for_origin(&provider.base.origin));
            stored = key.ok_or_else(|| keyless(provider))?;
            (provider.kind.auth, &*stored)
        }
    };
    Ok((form.header(), Secret::new(format!("{}{}", form.prefix(), key.expose()))))
}

fn keyless(provider: &Provider) -> Refusal {
    let reference = provider.key.as_ref().and_then(|key| key.live().reference());
    let why = match (provider.key_error(), reference) {
        (Some(error), _) => error.to_string(),
        (None, Some(CredentialRef::Env(name))) => format!(
            "set `{name}` where the gateway runs, or store it (`cco credentials store {name}`), or send your own key"
        ),
        (None, Some(CredentialRef::Stored(name))) => {
            format!("store it (`cco credentials store {name}`), or send your own key")
        }
        (None, Some(reference)) => format!("there is nothing behind `{reference}`: send your own key"),
        (None, None) => "set its `apiKeyRef`, or send your own key".into(),
    };
    let message = format!("there is no key for the provider `{}`: {why}", provider.name);
    Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never)
}

/// The upstream request's head.
pub(super) fn prepare(
    head: &RequestHead,
    operation: Operation,
    provider: &Provider,
    auth: (&str, Secret),
    body: Option<&HeldBody>,
) -> Bytes {
    let mut out = BytesMut::with_capacity(2048);
    let target = head.target();
    if provider.base.path.is_empty() {
        write::request_line(&mut out, head.method(), target);
    } else {
        write::request_line(&mut out, head.method(), &format!("{}{target}", provider.base.path));
    }
    write::field(&mut out, b"host", provider.base.origin.host_header().as_bytes());
    headers::request_fields(&mut out, head, operation.coding(), &provider.headers);
    write::field(&mut out, auth.0.as_bytes(), auth.1.expose().as_bytes());
    match (body, head.framing) {
        (Some(body), _) => write::content_length(&mut out, body.bytes.len() as u64),
        (None, Framing::Length(n)) => write::content_length(&mut out, n),
        (None, Framing::Chunked) => write::field(&mut out, b"transfer-encoding", b"chunked"),
        (None, _) => {}
    }
    headers::end(&mut out);
    out.freeze()
}
