//! Anthropic Messages.

pub mod error;
