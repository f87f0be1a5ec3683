//! From an upstream's answer to its client: bytes as they come, looked at as they pass.

mod events;
mod stream;

pub use events::Events;
pub use stream::{Ended, Framed, Limits, Relay, Report, View};
