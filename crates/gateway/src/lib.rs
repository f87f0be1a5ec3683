//! The gateway: configuration, upstreams, relays and the server that joins them.

pub mod net;
pub mod origin;
pub mod secret;
