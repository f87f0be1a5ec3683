//! Processes: starting them on a core, and what the system says they used.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a process tree has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Nanoseconds on a core, of all threads.
    pub(crate) cpu: u64,
    /// Ticks in user space and in the kernel: coarse, for their proportion.
    pub(crate) user: u64,
    pub(crate) system: u64,
    /// Resident memory in KiB.
    pub(crate) rss: u64,
}

/// Of `pid` and everything below it.
pub(crate) fn used(pid: u32) -> Used {
    let mut sum = Used::default();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let folder = Path::new("/proc").join(pid.to_string());
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        let status = text("status");
        sum.rss += field(&status, "VmRSS:");
        for thread in fs::read_dir(folder.join("task")).into_iter().flatten().flatten() {
            let text = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            sum.cpu += first(&text("schedstat"));
            let stat = text("stat");
            // After the name, which may hold anything, come state, parent … and, as 12th and 13th, the ticks.
            let after: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
            sum.user += after.get(11).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            sum.system += after.get(12).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            open.extend(text("children").split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    sum
}

fn first(text: &str) -> u64 {
    text.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, first)
}

/// Nanoseconds that all cores together were busy since the start of the machine, with what its host took.
pub(crate) fn machine_busy() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|n| n.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|n| ticks.get(*n)).sum();
    busy * 10_000_000
}

/// A child that is ended when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Starts `command`, pinned to the cores given (all of them where there is none). Its stdout is the caller's to read.
    pub(crate) fn start(command: &[String], cores: Option<&str>, stderr: Stdio) -> std::io::Result<Self> {
        Self::start_to(command, cores, Stdio::piped(), stderr)
    }

    /// The same, with its stdout to wherever: a pipe that nobody reads would stop it after 64 KB.
    pub(crate) fn start_to(
        command: &[String],
        cores: Option<&str>,
        stdout: Stdio,
        stderr: Stdio,
    ) -> std::io::Result<Self> {
        let (program, args) = command.split_first().expect("a command has a program");
        let mut it = match cores {
            Some(cores) => {
                let mut taskset = Command::new("taskset");
                taskset.args(["-c", cores, program]);
                taskset
            }
            None => Command::new(program),
        };
        let child = it.args(args).stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?;
        Ok(Self(child))
    }

    /// Its id: `taskset` becomes the program it starts.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx leaves its worker behind when it is killed, so it is asked first.
        if let Ok(pid) = i32::try_from(self.0.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let ended = || (!matches!(self.0.try_wait(), Ok(None))).then_some(());
        if poll(Duration::from_secs(3), Duration::from_millis(10), ended).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Looks again and again at what another process does, until there is something to see; `None`: not in this time.
pub(crate) fn poll<T>(patience: Duration, every: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + patience;
    loop {
        let seen = look();
        if seen.is_some() || Instant::now() > until {
            return seen;
        }
        std::thread::sleep(every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tree_is_counted_with_its_children() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 600 & wait";
        let command = ["sh", "-c", script].map(String::from);
        let running = Running::start(&command, None, Stdio::null()).unwrap();
        let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap_or_default();
        while children().trim().is_empty() {
            std::thread::yield_now();
        }
        let child: u32 = children().trim().parse().unwrap();
        let (tree, part) = (used(running.pid()), used(child));
        assert!(tree.cpu > 0 && tree.rss > part.rss && part.rss > 0);
        // The shell does not take its child with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(child as i32).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
}
