//! The pipeline from an accepted connection to an answer.

pub mod caller;
pub mod connection;
pub mod exchange;
