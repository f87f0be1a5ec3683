//! The pipeline from an accepted connection to an answer.

pub mod caller;
pub mod client;
pub mod connection;
pub mod edge;
pub mod exchange;
pub mod gateway;
pub mod inbound;
pub mod peer;
pub mod respond;
