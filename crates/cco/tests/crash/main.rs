//! The ledger of the real program under everything that can happen to it: killed at any moment, its disk full, its store
//! held, newer or damaged. What clients saw, what the simulator journalled and what the store holds are the same.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod account;
mod cycles;
mod faults;
mod hold;
mod load;
mod order;
mod rights;
mod session;
mod simulator;
