//! Credentials and providers as users have them: the real program, the real keyring, the simulator as the provider.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[expect(dead_code, unused_imports, reason = "what these tests leave out others need")]
#[path = "../common/mod.rs"]
mod common;

#[cfg(target_os = "linux")]
mod closed;
mod commands;
mod home;
#[cfg(target_os = "linux")]
mod keyring;
mod live;
#[cfg(target_os = "linux")]
mod providers;
#[cfg(target_os = "linux")]
mod terminal;
