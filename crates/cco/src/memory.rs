//! Memory that nobody needs any more goes back to the system, also where nothing happens.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// The allocator gives back what has been free for a while when something else is freed. A gateway that has carried large
/// bodies and then stands idle would keep them for hours.
const EVERY: Duration = Duration::from_secs(5);
/// Large enough to be a block of the allocator's own; it is never written, so it costs no memory.
const BLOCK: usize = 8 * 1024 * 1024;

/// Has it done until it is dropped.
pub(crate) struct GivesBack {
    _until: SyncSender<()>,
}

impl GivesBack {
    /// In a thread of its own; without one, memory comes back with the next requests.
    pub(crate) fn start() -> Self {
        let (until, stop) = sync_channel::<()>(0);
        let run = move || {
            while stop.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                drop(std::hint::black_box(Vec::<u8>::with_capacity(BLOCK)));
            }
        };
        let _ = std::thread::Builder::new().name("cco-memory".into()).stack_size(64 * 1024).spawn(run);
        Self { _until: until }
    }
}
