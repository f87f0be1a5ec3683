//! What only Unix has: files that are ours alone, locks, open files that are handed to another process, a process closed to others, helpers that can be ended with all
//! their children, a terminal without echo, the socket of the session bus.

mod bus;
mod files;
mod handover;
mod process;
mod terminal;

pub use bus::{BusStream, connect};
pub use files::{
    Flaw, Lock, Refusal, Stamp, append, close, create, folder, free_space, is_at, is_pipe, lock, quoted, read,
    read_given, replace, sound, stamp, try_lock, writable,
};
pub use handover::{Other, Parent, Stillborn, Successor, leave_session, notify};
pub use process::{callers, close_to_others, end_group, own_group, run_in_front};
pub use terminal::{Hidden, Terminal};
