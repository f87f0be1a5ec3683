//! Helpers for tests with real sockets: certificates made on the spot, a TLS front, a CONNECT proxy. And for tests
//! without: a gateway between pipes, and a client that hides nothing.
//!
//! A test file says `mod common;` and takes what it needs. Every helper is a guard: dropped, it ends its tasks and
//! closes its port. All that listen do so on 127.0.0.1 and on a port of their own.

// Each test file is a crate of its own: what one leaves out another one needs.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod certs;
pub mod client;
pub mod connect_proxy;
pub mod pipes;
pub mod tls_front;
