//! From an upstream's answer to its client: bytes as they come, looked at as they pass.

mod events;
mod opening;
mod seam;
mod stream;
mod view;

pub use events::Events;
pub use opening::{Beginning, Opened, open};
pub use seam::{Joined, Seam};
pub use stream::{Ended, Framed, Gate, IDLE, Limits, Paused, Relay, Report, Seen, Settle};
pub use view::{View, Whole};
