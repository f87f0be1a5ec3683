//! The HTTP client: one request on one connection, its answer, and the connections that wait for the next.

mod body;
mod flight;
mod pool;
mod sender;

pub use body::{Broken, UpstreamBody};
pub use flight::{Flight, SendError};
pub use pool::{Connection, Pool};
pub use sender::{Sender, Upload, UploadError};
