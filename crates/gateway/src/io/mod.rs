//! Buffers between sockets and protocols: what was read, what is to be written, and the clock beside them.

mod alarm;
mod inbox;
mod outbox;

pub use alarm::Alarm;
pub use inbox::Inbox;
pub(crate) use inbox::{discard, is_quiet};
pub use outbox::Outbox;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream in both directions: a socket, a TLS session, an in-memory pipe.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}
