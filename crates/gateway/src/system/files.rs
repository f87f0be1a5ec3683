//! Files that nobody but us may read: reading, making, replacing and locking them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// What keeps a file or a folder from being trusted with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It is a symbolic link.
    Link,
    /// It is a folder, a pipe, a device.
    Special,
    /// It belongs to the user of this number.
    Foreign(u32),
    /// These bits of its mode let others in.
    Open(u32),
    /// These bits of a folder's mode let others change what is in it.
    Writable(u32),
    /// It has a second name.
    Twin,
    /// It is larger than so many bytes.
    Large(u64),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("it is a symbolic link"),
            Self::Special => f.write_str("it is not a plain file"),
            Self::Foreign(uid) => write!(f, "it belongs to another user (uid {uid})"),
            Self::Writable(mode) => write!(f, "others may write to it (mode {mode:04o})"),
            Self::Open(mode) => write!(f, "others may access it (mode {mode:04o})"),
            Self::Twin => f.write_str("it has a second name (hard link)"),
            Self::Large(limit) => write!(f, "it is larger than {} KiB", limit / 1024),
        }
    }
}

impl Flaw {
    /// The command that repairs it, where one does.
    pub fn repair(self, path: &Path) -> Option<String> {
        let at = quoted(path);
        match self {
            Self::Link => Some(format!("mv \"$(readlink -f {at})\" {at}")),
            Self::Foreign(_) => Some(format!("sudo chown \"$(id -u)\" {at}")),
            Self::Writable(_) => Some(format!("chmod 700 {at}")),
            Self::Open(_) => Some(format!("chmod 600 {at}")),
            Self::Twin => {
                let copy = quoted(&path.with_added_extension("copy"));
                Some(format!("cp {at} {copy} && mv {copy} {at}"))
            }
            Self::Special | Self::Large(_) => None,
        }
    }
}

/// A path as a shell reads it back.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+~@%:,=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Why a private file is not used.
#[derive(Debug)]
pub enum Refusal {
    /// It is not there.
    Missing,
    /// It is there, but not as a secret must be kept.
    Unsafe(Flaw),
    /// The operating system says no.
    Io(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is not there"),
            Self::Unsafe(flaw) => flaw.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Io(error) }
    }
}

/// Reads a file that must be ours alone: a plain file, no symbolic link, one name, our own, closed to everybody else.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    read_checked(path, limit, |about| {
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Some(Flaw::Foreign(about.uid()));
        }
        (about.mode() & 0o077 != 0).then_some(Flaw::Open(about.mode() & 0o7777))
    })
}

/// Reads a file that the system's manager laid out for us: root may own it, and the group's bits may stand for an
/// access list that names us; all others must be shut out.
pub fn read_given(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    read_checked(path, limit, |about| {
        if about.uid() != rustix::process::geteuid().as_raw() && about.uid() != 0 {
            return Some(Flaw::Foreign(about.uid()));
        }
        (about.mode() & 0o007 != 0).then_some(Flaw::Open(about.mode() & 0o7777))
    })
}

fn read_checked(
    path: &Path,
    limit: u64,
    flaw: impl Fn(&std::fs::Metadata) -> Option<Flaw>,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    // Without NONBLOCK, opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::LOOP) { Refusal::Unsafe(Flaw::Link) } else { error.into() }
    })?;
    read_opened(file, limit, flaw)
}

/// Everything is asked of the open file: its name may mean another one by now.
fn read_opened(
    file: File,
    limit: u64,
    flaw: impl Fn(&std::fs::Metadata) -> Option<Flaw>,
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Refusal::Unsafe(Flaw::Special));
    }
    if let Some(flaw) = flaw(&about) {
        return Err(Refusal::Unsafe(flaw));
    }
    // Without any name it was replaced since it was opened: it is whole, and was the one that counts.
    if about.nlink() > 1 {
        return Err(Refusal::Unsafe(Flaw::Twin));
    }
    if about.len() > limit {
        return Err(Refusal::Unsafe(Flaw::Large(limit)));
    }
    // The room is made at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len() as usize + 1));
    file.take(about.len() + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > about.len() {
        return Err(Refusal::Io(io::Error::other("it grew while it was read")));
    }
    Ok(bytes)
}

/// Makes a folder that only we may enter, if it is not there; one that others may write to is refused.
pub fn folder(path: &Path) -> Result<(), Refusal> {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        return Err(Refusal::Io(error));
    }
    sound(path)
}

/// Whether a folder that is there is ours, and nobody else may change what is in it.
pub fn sound(path: &Path) -> Result<(), Refusal> {
    let about = std::fs::metadata(path)?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refusal::Unsafe(Flaw::Foreign(about.uid())));
    }
    if about.mode() & 0o022 != 0 {
        return Err(Refusal::Unsafe(Flaw::Writable(about.mode() & 0o7777)));
    }
    Ok(())
}

/// Shuts everybody else out of a file or folder of ours; gives the mode that it had, if it let others in.
pub fn close(path: &Path) -> io::Result<Option<u32>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let about = file.metadata()?;
    let mode = about.mode() & 0o7777;
    let others = if about.is_dir() { 0o022 } else { 0o077 };
    if about.uid() != rustix::process::geteuid().as_raw() || mode & others == 0 {
        return Ok(None);
    }
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode & !0o077))?;
    Ok(Some(mode))
}

/// Whether files can be made in a folder, tried with one that is removed at once.
pub fn writable(folder: &Path) -> io::Result<()> {
    let trial = temporary(&folder.join("cco.lock"));
    write_new(&trial, b"")?;
    std::fs::remove_file(&trial)
}

/// Creates a file with this content, unless it is there by then: `false`. Nobody ever sees a half of it.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let temporary = temporary(path);
    let written = write_new(&temporary, content).and_then(|()| name_it(&temporary, path));
    match written {
        Ok(true) => File::open(folder_of(path))?.sync_all().map(|()| true),
        other => {
            // What we made and did not need, or could not finish.
            let _ = std::fs::remove_file(&temporary);
            other
        }
    }
}

/// Puts a file with this content in the place of whatever has the name: nobody ever sees a half of it, and it is on the
/// disk when this returns.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary(path);
    let written = write_new(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.and_then(|()| File::open(folder_of(path))?.sync_all())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside it that nobody else uses.
fn temporary(path: &Path) -> PathBuf {
    let mut random = [0; 8];
    getrandom::fill(&mut random).expect("the operating system has random numbers");
    path.with_added_extension(format!("{:016x}.new", u64::from_ne_bytes(random)))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Gives the finished file its name without taking the place of another: two processes may start at once.
fn name_it(temporary: &Path, path: &Path) -> io::Result<bool> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Some file systems know no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match std::fs::hard_link(temporary, path) {
            Ok(()) => std::fs::remove_file(temporary).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(other) => Err(other.into()),
    }
}

/// Opens a file of ours to write at its end; it is made where it is not there.
pub fn append(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(flags).open(path)
}

/// Bytes that may still be written where this is.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let about = rustix::fs::statvfs(path)?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Whether an open file is the one that has this name.
pub fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::symlink_metadata(path)) else { return false };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
}

/// A lock among processes; given back when it is dropped, and by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// The same lock in another process, which holds it as long as one of the two lives.
    pub fn handed_over(file: std::os::fd::OwnedFd) -> Self {
        Self(file.into())
    }
}

impl std::os::fd::AsFd for Lock {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until no other process holds the lock of this file, which is made where it is not there.
pub fn lock(path: &Path) -> io::Result<Lock> {
    let file = lock_file(path)?;
    file.lock().map(|()| Lock(file))
}

/// Takes the lock if nobody holds it.
pub fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    let file = lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

fn lock_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)
}

/// What tells one state of a file from another without reading it. A file that is not there has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// Whether what is read under this name comes from another process, and may never come.
pub fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo())
}

/// The stamp of what has this name; a link is looked at itself.
pub fn stamp(path: &Path) -> Option<Stamp> {
    let about = std::fs::symlink_metadata(path).ok()?;
    // The time of the last change of content, name or mode: nobody can set it.
    let changed = (about.ctime(), about.ctime_nsec());
    Some(Stamp { file: (about.dev(), about.ino()), size: about.len(), changed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_path_is_quoted_so_that_a_shell_reads_it_back() {
        for path in ["/a/b.c", "/a b/c", "/it's/$HOME", "~/x"] {
            let shell = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(Path::new(path)))])
                .env("HOME", "~")
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(shell.stdout).unwrap(), path);
        }
    }

    #[test]
    fn a_replaced_file_is_whole_private_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for content in ["one", "two, longer"] {
            let before = stamp(&path);
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(&**read(&path, 100).unwrap(), content.as_bytes());
            assert_ne!(stamp(&path), before);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(!create(&path, b"three").unwrap(), "a name that is taken stays with its file");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_replaced_while_it_is_read_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        replace(&path, b"one").unwrap();
        let opened = File::open(&path).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(&**read_opened(opened, 100, |_| None).unwrap(), b"one");
        assert_eq!(&**read(&path, 100).unwrap(), b"two");
    }

    #[test]
    fn the_command_that_is_named_repairs_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a key");
        let target = folder.path().join("target");
        let make = |flaw: Flaw| {
            let _ = (std::fs::remove_file(&path), std::fs::remove_file(&target));
            replace(&target, b"content").unwrap();
            match flaw {
                Flaw::Link => std::os::unix::fs::symlink(&target, &path).unwrap(),
                Flaw::Twin => std::fs::hard_link(&target, &path).unwrap(),
                _ => {
                    std::fs::rename(&target, &path).unwrap();
                    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
                }
            }
        };
        for flaw in [Flaw::Link, Flaw::Twin, Flaw::Open(0o644)] {
            make(flaw);
            let Err(Refusal::Unsafe(found)) = read(&path, 100) else { panic!("{flaw:?} is read") };
            assert_eq!(found, flaw);
            let done = std::process::Command::new("sh").args(["-c", &flaw.repair(&path).unwrap()]).status().unwrap();
            assert!(done.success());
            // A copy is made as open as the shell's user likes it: the next command closes it.
            if let Err(Refusal::Unsafe(next)) = read(&path, 100) {
                assert!(flaw == Flaw::Twin && matches!(next, Flaw::Open(_)), "{next:?} after {flaw:?}");
                std::process::Command::new("sh").args(["-c", &next.repair(&path).unwrap()]).status().unwrap();
            }
            assert_eq!(&**read(&path, 100).unwrap(), b"content", "{flaw:?}");
        }
    }

    #[test]
    fn what_is_open_to_others_is_closed_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a"), folder.path().join("link"));
        replace(&path, b"x").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(close(&path).unwrap(), None);
        for (path, open, closed) in [(&*path, 0o644, 0o600), (folder.path(), 0o777, 0o700)] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(open)).unwrap();
            assert!(close(&link).is_err(), "no link is followed");
            assert_eq!((close(path).unwrap(), mode(path)), (Some(open), closed));
        }
        // A folder may be looked into, as long as only we write there.
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!((close(folder.path()).unwrap(), sound(folder.path()).is_ok()), (None, true));
    }

    #[test]
    fn what_can_be_written_is_found_by_writing_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        writable(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(writable(&folder.path().join("missing")).is_err());
        assert!(writable(Path::new("/proc")).is_err(), "not even root may");
    }

    #[test]
    fn what_the_systems_manager_laid_out_may_be_open_to_a_group_but_not_to_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("given");
        replace(&path, b"x").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o440)).unwrap();
        assert!(read_given(&path, 10).is_ok());
        assert!(matches!(read(&path, 10), Err(Refusal::Unsafe(Flaw::Open(0o440)))));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
        assert!(matches!(read_given(&path, 10), Err(Refusal::Unsafe(Flaw::Open(0o444)))));
    }

    #[test]
    fn a_lock_is_held_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
