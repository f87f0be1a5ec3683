//! Processes: ours, closed to others, and helpers that can be ended with all their children.

use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process_group, setrlimit};

/// So far back it is looked who called.
const CALLERS: usize = 16;

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

/// Runs a command in front of the user and waits for it: what the terminal's keys send goes to both, and means the
/// command; what another process tells us to do is told to it. Its exit code; 128 and the signal's number, as shells
/// say it, where a signal ended it.
pub fn run_in_front(command: &mut Command) -> io::Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _within = runtime.enter();
    let (mut keys, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    let (mut end, mut gone) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (over, ended) = tokio::sync::oneshot::channel();
    let waiting = std::thread::Builder::new().name("child".into()).spawn(move || {
        let status = child.wait();
        // Nobody listens only where this function has failed.
        let _ = over.send(status);
    })?;
    let status = runtime.block_on(async {
        tokio::pin!(ended);
        loop {
            let passed_on = tokio::select! {
                status = &mut ended => break status,
                _ = keys.recv() => continue,
                _ = quit.recv() => continue,
                _ = end.recv() => Signal::TERM,
                _ = gone.recv() => Signal::HUP,
            };
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, passed_on);
            }
        }
    });
    let _ = waiting.join();
    let status = status.map_err(io::Error::other)??;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The names of the programs that this one was called by: its parent's first, as far as the system tells.
pub fn callers() -> impl Iterator<Item = String> {
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    let mut next = parent;
    std::iter::from_fn(move || {
        let (name, parent) = caller(next.take()?)?;
        next = Some(parent).filter(|parent| *parent > 1);
        Some(name)
    })
    .take(CALLERS)
}

/// The name of a process and the number of its parent.
fn caller(pid: i32) -> Option<(String, i32)> {
    // `4711 (some name) S 4710 …`: the name may hold anything.
    if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        return Some((name.to_owned(), rest.split_whitespace().nth(1)?.parse().ok()?));
    }
    let told = Command::new("ps").args(["-o", "ppid=,comm=", "-p", &pid.to_string()]).output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    let (parent, name) = told.trim().split_once(char::is_whitespace)?;
    // A path, and of a login shell with a sign before it.
    let name = name.rsplit('/').next().unwrap_or(name).trim();
    Some((name.strip_prefix('-').unwrap_or(name).to_owned(), parent.parse().ok()?))
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
