//! One process starts another that outlives it: open files are handed over, and each tells the other how far it has come.

use std::io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags};
#[cfg(target_os = "linux")]
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use rustix::process::Pid;
use tokio::time::Instant;

/// Files that are handed over at most.
const MOST: usize = 4;
/// Bytes of a line, and of what a process says on stderr, that are read.
const LONGEST: u64 = 64 * 1024;
/// How often it is looked whether a process is there, where the system does not tell.
const LOOK: Duration = Duration::from_millis(50);

/// A process that was started and has not said yet that it is ready.
#[derive(Debug)]
pub struct Successor {
    child: Child,
    channel: UnixStream,
}

/// Why a process did not become ready.
#[derive(Debug)]
pub struct Stillborn {
    /// How it ended; `None`: it did not, and was ended.
    pub status: Option<ExitStatus>,
    /// What it said on stderr.
    pub said: String,
}

impl Successor {
    /// Starts the program and hands these files over to it. Its stdin is the channel between the two.
    pub fn start(command: &mut Command, files: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (channel, theirs) = UnixStream::pair()?;
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn()?;
        // The command keeps its end of the channel open as long as it lives: without that, its end is told by silence.
        command.stdin(Stdio::null());
        let mut this = Self { child, channel };
        match send(&this.channel, files) {
            Err(why) if !matches!(why.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                let _ = this.child.kill();
                let _ = this.child.wait();
                Err(why)
            }
            // One that has ended by now says why when it is waited for.
            _ => Ok(this),
        }
    }

    /// Waits until it says one line, which it says when it is ready, and returns that line. It then goes on by itself.
    pub fn ready(mut self, within: Duration) -> Result<String, Stillborn> {
        let said = self.child.stderr.take().map(collect);
        let _ = self.channel.set_read_timeout(Some(within));
        let mut line = String::new();
        let read = BufReader::new(&self.channel).take(LONGEST).read_line(&mut line);
        if matches!(read, Ok(n) if n > 0) && line.ends_with('\n') {
            return Ok(line.trim_end().to_owned());
        }
        let is_silent = |why: &io::Error| matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        let status = if read.as_ref().is_err_and(is_silent) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            None
        } else {
            // It has closed the channel, perhaps without having read what it got: it is ending, or has ended.
            self.child.wait().ok()
        };
        let said = said.flatten().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Err(Stillborn { status, said })
    }
}

/// Reads what a process says until it has closed its end.
fn collect(from: ChildStderr) -> Option<std::thread::JoinHandle<String>> {
    let read = move || {
        let mut said = Vec::new();
        let _ = from.take(LONGEST).read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    };
    std::thread::Builder::new().name("cco-stderr".into()).spawn(read).ok()
}

fn send(channel: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files to hand over"));
    }
    let sent = rustix::net::sendmsg(channel, &[IoSlice::new(b"f")], &mut control, SendFlags::empty())?;
    if sent == 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The process that started this one, as long as it waits.
#[derive(Debug)]
pub struct Parent(UnixStream);

impl Parent {
    /// The other end of stdin, and the files that it hands over, in its order.
    pub fn of_stdin() -> io::Result<(Self, Vec<OwnedFd>)> {
        let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let into = &mut [IoSliceMut::new(&mut byte)];
        let got = rustix::net::recvmsg(&channel, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(handed) = message {
                files.extend(handed);
            }
        }
        // From here on stdin is nobody's: what is started later must not hold the channel open.
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok((Self(channel), files))
    }

    /// Says that this process is ready.
    pub fn tell(mut self, line: &str) {
        // Whoever waited may be gone.
        let _ = self.0.write_all(format!("{line}\n").as_bytes());
    }
}

/// Leaves the session of whoever started this process: its terminal and its signals are no longer ours.
pub fn leave_session() {
    // A leader of a group cannot, and has a session of its own already.
    let _ = rustix::process::setsid();
}

/// Another process, of which only the end is of interest.
#[derive(Debug)]
pub struct Other {
    pid: Option<Pid>,
    /// Where the system has such: stands for this very process, whoever has its number later.
    #[cfg(target_os = "linux")]
    handle: Option<OwnedFd>,
}

impl Other {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Self {
            pid,
            #[cfg(target_os = "linux")]
            handle: pid.and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()),
        }
    }

    /// Waits for its end, no longer than this: `true` if it has ended, whether or not somebody has asked how.
    pub fn ends(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        #[cfg(target_os = "linux")]
        if let Some(handle) = &self.handle {
            let left = || rustix::event::Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
            loop {
                let mut ended = [PollFd::new(handle, PollFlags::IN)];
                match rustix::event::poll(&mut ended, left().as_ref()) {
                    Ok(ready) => return ready > 0,
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
        }
        while self.pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) {
            if Instant::now() >= until {
                return false;
            }
            std::thread::park_timeout(LOOK);
        }
        true
    }
}

/// Says something to the system's manager, at the address in `NOTIFY_SOCKET`.
pub fn notify(address: &std::ffi::OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = address.to_str().and_then(|address| address.strip_prefix('@')) {
        use std::os::linux::net::SocketAddrExt as _;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        return socket.send_to_addr(message.as_bytes(), &address).map(drop);
    }
    socket.send_to(message.as_bytes(), address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_that_is_ready_says_so_and_goes_on() {
        let line = Successor::start(&mut shell("echo '{\"a\":1}' >&0"), &[]).unwrap().ready(SOON);
        assert_eq!(line.unwrap(), "{\"a\":1}");
    }

    #[test]
    fn one_that_ends_instead_leaves_its_status_and_its_words() {
        let dead = Successor::start(&mut shell("echo error: no >&2; exit 78"), &[]).unwrap().ready(SOON).unwrap_err();
        assert_eq!((dead.status.unwrap().code(), dead.said.as_str()), (Some(78), "error: no\n"));
    }

    #[test]
    fn one_that_says_nothing_is_ended() {
        let dead = Successor::start(&mut shell("exec sleep 60"), &[]).unwrap().ready(Duration::from_millis(50));
        assert!(dead.unwrap_err().status.is_none());
    }

    #[test]
    fn files_are_handed_over_in_their_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (a, b) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        (&a).write_all(b"a").unwrap();
        (&b).write_all(b"bb").unwrap();
        send(&ours, &[a.as_fd(), b.as_fd()]).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let into = &mut [IoSliceMut::new(&mut byte)];
        rustix::net::recvmsg(&theirs, into, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let mut sizes = Vec::new();
        for message in control.drain() {
            let RecvAncillaryMessage::ScmRights(files) = message else { panic!("something else") };
            sizes.extend(files.map(|file| std::fs::File::from(file).metadata().unwrap().len()));
        }
        assert_eq!(sizes, [1, 2]);
    }

    #[test]
    fn the_manager_is_told_by_path_or_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), "READY=1").unwrap();
        let mut got = [0; 16];
        assert_eq!((socket.recv(&mut got).unwrap(), &got[..7]), (7, &b"READY=1"[..]));
    }

    #[test]
    fn a_process_has_ended_though_nobody_asked_how() {
        let mut child = shell("read line").stdin(Stdio::piped()).spawn().unwrap();
        let other = Other::of(child.id());
        assert!(!other.ends(Duration::from_millis(20)));
        drop(child.stdin.take());
        #[cfg(target_os = "linux")]
        assert!(other.ends(SOON));
        child.wait().unwrap();
        assert!(other.ends(SOON));
        assert!(Other::of(u32::MAX).ends(SOON), "there is no such number");
    }
}
