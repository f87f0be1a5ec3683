//! Processes: ours, closed to others, and helpers that can be ended with all their children.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};

/// Keeps the memory of this process from others: a crash writes no core file, and no process without root's rights can
/// read it or attach to it.
pub fn close_to_others() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // The hard limit stays: what we start may decide for itself.
    let maximum = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum })?;
    Ok(())
}

/// Has the command run in a group of its own, so that [`end_group`] reaches what it starts.
pub fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// Ends a child that was started in a group of its own, and all of its group.
pub fn end_group(child: &mut Child) {
    // Until it is waited for, its number means no other process.
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}
