//! The simulator over raw sockets: every marker, every fault, the journal, and time.

#![expect(clippy::unwrap_used, reason = "the whole crate is tests, its helpers too")]

mod answers;
mod client;
mod dialects;
mod faults;
mod journal;
mod loops;
mod time;
