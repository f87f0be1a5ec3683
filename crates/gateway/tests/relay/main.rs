//! The whole way of a request, from the client's bytes to the upstream's and back, in memory and in a time of its own.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod attempts;
mod continued;
mod desync;
mod failover;
mod faults;
mod framing;
mod gone;
mod hedge;
mod keys;
mod local;
mod memory;
mod protocols;
mod records;
mod replay;
mod rest;
mod time;
mod weather;
