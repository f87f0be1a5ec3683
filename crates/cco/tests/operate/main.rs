//! Operating it, with the real program: configuration commands, changes while it serves, the daemon.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;
#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../credentials/home.rs"]
mod home;

#[expect(dead_code, reason = "what these tests leave out others need")]
#[path = "../scripts/broken.rs"]
mod broken;
mod configure;
mod daemon;
mod doctor;
mod errors;
mod finish;
mod reload;
mod uninstall;
