//! Heads and body framing of HTTP/1.1 (RFC 9110, RFC 9112): strict, without I/O.
//!
//! A message that two programs could read in two ways is refused here, on both sides: a gateway that forwards what it
//! understood in one way to a server that understands it in another hands one caller's bytes to somebody else.

pub mod body;
mod grammar;
pub mod head;
pub mod write;

pub use body::{BodyDecoder, BodyError, Framing, Step};
pub use head::{Field, HeadError, Limits, RequestHead, ResponseHead, Scan};
