//! Who may ask for what is not a model's answer.

use http1::RequestHead;

use crate::client::peer::Peer;
use crate::error::{ErrorKind, Refusal, Retry};
use crate::gateway::Gateway;
use crate::headers::bearer;

/// Whom a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches it.
    Anyone,
    /// Everybody on this machine; over a network, who shows the gateway's token or the admin token.
    Machine,
    /// Who shows the admin token, or comes over our own socket.
    Admin,
}

/// Whether a request may go on.
pub(super) fn check(access: Access, head: &RequestHead, peer: &Peer, gateway: &Gateway) -> Result<(), Refusal> {
    let (allowed, message) = match access {
        Access::Anyone => return Ok(()),
        Access::Machine => (
            peer.is_loopback() || shows_token(head, gateway) || is_admin(head, peer, gateway),
            "over a network this needs the gateway's token: send it as `authorization: Bearer …`",
        ),
        Access::Admin => (
            is_admin(head, peer, gateway),
            "this needs the admin token: send what `cco token` prints as `authorization: Bearer …`, or use the socket `cco.sock` in CCO_HOME",
        ),
    };
    if allowed { Ok(()) } else { Err(Refusal::new(ErrorKind::Authentication, message).retry(Retry::Never)) }
}

/// Whether the request comes from one who may see and change everything: over our own socket, or with the admin token.
pub fn is_admin(head: &RequestHead, peer: &Peer, gateway: &Gateway) -> bool {
    peer.is_on_own_socket() || shown(head).any(|value| gateway.admin_token.matches(value))
}

fn shows_token(head: &RequestHead, gateway: &Gateway) -> bool {
    gateway.token.get().is_some_and(|token| shown(head).any(|value| token.matches(value)))
}

/// Everything in a head that can be a token.
fn shown(head: &RequestHead) -> impl Iterator<Item = &[u8]> {
    head.fields().filter_map(|field| {
        if field.is("authorization") {
            return bearer(field.value);
        }
        (field.is("x-api-key") || field.is("x-cco-token")).then_some(field.value)
    })
}
