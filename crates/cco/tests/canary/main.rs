//! No secret ever lands anywhere: canaries are planted wherever a secret can be, and looked for in everything that the
//! real program writes, says or shows.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

mod leaks;
mod search;
mod upstream;
