//! Anthropic Messages.

pub mod error;
pub(crate) mod usage;
