//! Operating it, with the real program: configuration commands, changes while it serves, the daemon.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../credentials/home.rs"]
mod home;

mod configure;
mod daemon;
mod finish;
mod reload;
mod uninstall;
