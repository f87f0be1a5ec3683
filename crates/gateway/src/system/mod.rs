//! What only Unix has: files that are ours alone, locks, a process closed to others, helpers that can be ended with all
//! their children, a terminal without echo, the socket of the session bus.

mod bus;
mod files;
mod process;
mod terminal;

pub use bus::{BusStream, connect};
pub use files::{Flaw, Lock, Refusal, Stamp, create, folder, lock, quoted, read, read_given, replace, stamp, try_lock};
pub use process::{close_to_others, end_group, own_group, run_in_front};
pub use terminal::{Hidden, Terminal};
