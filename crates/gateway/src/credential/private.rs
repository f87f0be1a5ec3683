//! Files that nobody but us may read: the one place of the credentials with calls that only Unix has.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// Why a private file is not used, and what to do.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not there.
    Missing,
    /// It is there, but not as a secret must be kept: what is wrong, and the remedy.
    Unsafe(String, String),
    /// The operating system says no.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Io(error) }
    }
}

/// Reads a file that must be ours alone: a plain file, no symbolic link, one name, our own, closed to everybody else.
pub(super) fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let shown = path.display();
    // Without NONBLOCK, opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::LOOP) {
            return Refusal::Unsafe("it is a symbolic link".into(), "name the file itself".into());
        }
        Refusal::from(error)
    })?;
    // Everything is asked of the open file: its name may mean another one by now.
    let about = file.metadata()?;
    let unsafe_because = |what: String, remedy: String| Err(Refusal::Unsafe(what, remedy));
    if !about.is_file() {
        return unsafe_because("it is not a plain file".into(), "name a file".into());
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return unsafe_because(
            format!("it belongs to another user (uid {})", about.uid()),
            "use a file of your own".into(),
        );
    }
    if about.mode() & 0o077 != 0 {
        let what = format!("others may access it (mode {:04o})", about.mode() & 0o7777);
        return unsafe_because(what, format!("run `chmod 600 {shown}`"));
    }
    if about.nlink() != 1 {
        return unsafe_because("it has a second name (hard link)".into(), "make a copy and use that".into());
    }
    let too_large = || format!("it is larger than {} KiB", limit / 1024);
    if about.len() > limit {
        return unsafe_because(too_large(), "a key is a line of text: is this the right file?".into());
    }
    // The room is made at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return unsafe_because(too_large(), "a key is a line of text: is this the right file?".into());
    }
    Ok(bytes)
}

/// Makes a folder that only we may enter, if it is not there; one that others may write to is refused.
pub(super) fn folder(path: &Path) -> Result<(), Refusal> {
    if let Err(error) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        return Err(Refusal::Io(error));
    }
    let about = std::fs::metadata(path)?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(Refusal::Unsafe(
            format!("it belongs to another user (uid {})", about.uid()),
            "use a folder of your own".into(),
        ));
    }
    if about.mode() & 0o022 != 0 {
        let what = format!("others may write to it (mode {:04o})", about.mode() & 0o7777);
        return Err(Refusal::Unsafe(what, format!("run `chmod 700 {}`", path.display())));
    }
    Ok(())
}

/// Creates a file with this content, unless it is there by then: `false`. Nobody ever sees a half of it.
pub(super) fn create(path: &Path, content: &[u8], mark: &str) -> io::Result<bool> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{mark}.new"));
    let temporary = folder.join(name);
    let written = write_new(&temporary, content).and_then(|()| name_it(&temporary, path));
    match written {
        Ok(true) => File::open(folder)?.sync_all().map(|()| true),
        other => {
            // What we made and did not need, or could not finish.
            let _ = std::fs::remove_file(&temporary);
            other
        }
    }
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
