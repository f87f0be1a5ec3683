//! What is said on the wire between clients and providers: no I/O, no HTTP, no clock.

pub mod anthropic;
pub mod envelope;
pub mod error;
pub mod meter;
pub mod protocol;
pub mod sse;
pub mod usage;
