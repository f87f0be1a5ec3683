//! The relay as users have it: the real program, real sockets, the simulator behind it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;
/// TLS and proxies, as the gateway's own tests have them.
#[expect(dead_code, unreachable_pub, reason = "what these tests leave out others need")]
#[path = "../../../gateway/tests/common"]
mod net {
    pub mod certs;
    pub mod connect_proxy;
    pub mod tls_front;
}

mod bodies;
mod events;
mod headers;
mod serve;
mod time;
mod tls;
mod transcripts;
