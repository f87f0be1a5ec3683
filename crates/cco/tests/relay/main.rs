//! The relay as users have it: the real program, real sockets, the simulator behind it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod events;
mod headers;
mod transcripts;
