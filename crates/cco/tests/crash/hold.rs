//! One thread of another process, held still: what waits for it then waits, and everything else goes on.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

/// A held thread; it goes on when this is dropped.
pub(crate) struct Held {
    release: SyncSender<()>,
    holder: Option<JoinHandle<()>>,
}

impl Held {
    /// Holds the thread of this name. That needs root's right to trace what closes its memory to others.
    pub(crate) fn thread(process: u32, name: &str) -> Self {
        let thread = Pid::from_raw(find(process, name));
        let (held, is_held) = sync_channel(1);
        let (release, released) = sync_channel(1);
        // The system binds the right to the thread that began.
        let holder = std::thread::spawn(move || {
            ptrace::seize(thread, ptrace::Options::empty()).expect("another process's thread can be held");
            ptrace::interrupt(thread).unwrap();
            waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            held.send(()).unwrap();
            let _ = released.recv();
            // A process that was killed meanwhile has no thread to let go.
            let _ = ptrace::detach(thread, None);
        });
        is_held.recv().expect("the thread is held");
        Self { release, holder: Some(holder) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.release.send(());
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}

/// The number of the only thread of this name.
fn find(process: u32, name: &str) -> i32 {
    let tasks = std::fs::read_dir(PathBuf::from(format!("/proc/{process}/task"))).unwrap();
    let called = |task: &std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    let found: Vec<_> = tasks.map(Result::unwrap).filter(|task| called(task).trim_end() == name).collect();
    let [task] = &found[..] else { panic!("{} threads are called `{name}`", found.len()) };
    task.file_name().to_str().unwrap().parse().unwrap()
}
