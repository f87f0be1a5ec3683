//! A provider that needs no key: speaks the protocols, scripted, with faults on demand.
//!
//! [`Sim`] serves the provider's API over TCP or any other byte stream. What it answers is decided by a queued script, a
//! header, a marker in the prompt or the configured default: see [`HELP`]. What it received is in its journal.

mod answer;
mod api;
mod coding;
mod config;
mod conn;
mod deliver;
mod dialect;
mod digest;
mod fault;
mod http;
mod journal;
mod prompt;
mod reply;
mod script;
mod server;
mod upload;

pub use config::SimConfig;
pub use fault::{FAULTS, Fault};
pub use journal::{End, EndKind, Received};
pub use script::{BadScript, Script};
pub use server::Sim;

/// The header by which an answer says that it is simulated, where [`SimConfig::says_so`] wants it.
pub const SIMULATED: &str = "x-cco-simulated";

/// The marker language, the faults and the journal, for users: the text of `docs/simulator.md`.
pub const HELP: &str = include_str!("../../../docs/simulator.md");
