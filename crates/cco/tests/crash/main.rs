//! The ledger of the real program under everything that can happen to it: killed at any moment, its disk full, frozen,
//! locked or damaged. What clients saw, what the simulator journalled and what the store holds are one and the same.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod account;
mod cycles;
mod hold;
mod load;
mod order;
mod simulator;
