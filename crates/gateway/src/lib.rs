//! The gateway: configuration, upstreams, relays and the server that joins them.

pub mod admin;
pub mod catalog;
pub mod client;
pub mod coding;
pub mod config;
pub mod credential;
pub mod daemon;
pub mod error;
pub mod gateway;
pub mod glob;
pub mod headers;
pub mod health;
pub mod io;
pub mod net;
pub mod origin;
pub mod party;
pub mod provider;
pub mod recorder;
pub mod relay;
pub mod retry;
pub mod route;
pub mod secret;
pub mod server;
pub mod setup;
pub mod signals;
pub mod upstream;
