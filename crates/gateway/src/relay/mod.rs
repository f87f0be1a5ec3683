//! From an upstream's answer to its client: bytes as they come, looked at as they pass.

mod events;
mod opening;
mod stream;

pub use events::Events;
pub use opening::{Beginning, Opened, open};
pub use stream::{Ended, Framed, Gate, IDLE, Limits, Relay, Report, Seen, Settle, View, Whole};
