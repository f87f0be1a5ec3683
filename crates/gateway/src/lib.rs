//! The gateway: configuration, upstreams, relays and the server that joins them.

pub mod catalog;
pub mod config;
pub mod credential;
pub mod net;
pub mod origin;
pub mod provider;
pub mod secret;
