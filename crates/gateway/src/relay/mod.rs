//! From an upstream's answer to its client: bytes as they come, looked at as they pass.

mod events;
mod stream;

pub use events::Events;
pub use stream::{Ended, Framed, Gate, Limits, Relay, Report, Seen, Settle, View, Whole};
