//! Connections to upstreams, and facts about sockets: who is at the other end, who holds a port.
//!
//! The rest of the gateway sees a [`Dial`] that turns an [`Origin`](crate::origin::Origin) into a [`Stream`], or a
//! [`DialError`] that names the cause and what to do about it. Nothing here reads the environment: what it needs from
//! there ([`ProxyEnv`]) is handed in. One exception is not ours: the loader of the system's roots honours
//! `SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL does.

#[cfg(target_os = "linux")]
mod diag;
mod dial;
mod error;
mod local;
mod peer;
mod proxy;
mod resolve;
mod socket;
mod stream;
mod tls;
mod tunnel;

pub use dial::{BoxFuture, Dial, Dialer, RECEIVE_BUFFER, Settings};
pub use error::{Cause, DialError, Step};
pub use local::{FarStream, NoSocket, OwnSocket, OwnStream, connect, connect_far, is_own};
pub use peer::{own_uid, peer_uid, port_holder};
pub use proxy::{BadProxy, Proxy, ProxyEnv, ProxyUrl};
pub use resolve::{Lookup, names_loopback};
pub use socket::{Listener, SEND_BUFFER, accepted, listen, raise_nofile_limit, reset_on_close};
pub use stream::{Io, Stream};
pub use tls::{BadRoots, ExtraRoots, SystemRoots};
