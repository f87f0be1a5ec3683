//! Files that nobody but us may read: keys, and the folders and files in which bodies are kept.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

/// Why a private file or folder is not used.
#[derive(Debug)]
pub enum Refusal {
    /// It is not there.
    Missing(PathBuf),
    /// It is there, but not as a secret must be kept.
    Unsafe {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, as a sentence that begins with "it".
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// The operating system says no.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "`{}` is not there", path.display()),
            Self::Unsafe { path, what, remedy } => write!(f, "`{}` is not used: {what}: {remedy}", path.display()),
            Self::Io(path, error) => write!(f, "`{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Missing(_) | Self::Unsafe { .. } => None,
        }
    }
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> Refusal + '_ {
    move |error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::Missing(path.into()),
        _ => Refusal::Io(path.into(), error),
    }
}

/// Reads a file that must be ours alone: a plain file of at most `limit` bytes, no symbolic link, one name, our own,
/// closed to everybody else.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let refuse = |what: String, remedy: String| Err(Refusal::Unsafe { path: path.into(), what, remedy });
    // Without NONBLOCK, opening a pipe would wait for its other end.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => {
            return refuse("it is a symbolic link".into(), "put the file itself there".into());
        }
        other => other.map_err(io_at(path))?,
    };
    // Everything is asked of the open file: its name may mean another one by now.
    let about = file.metadata().map_err(io_at(path))?;
    if !about.is_file() {
        return refuse("it is not a plain file".into(), "put a file there".into());
    }
    if about.uid() != rustix::process::geteuid().as_raw() {
        return refuse(format!("it belongs to another user (uid {})", about.uid()), "use a file of your own".into());
    }
    if about.mode() & 0o077 != 0 {
        let what = format!("others may access it (mode {:04o})", about.mode() & 0o7777);
        return refuse(what, format!("run `chmod 600 {}`", path.display()));
    }
    if about.nlink() != 1 {
        return refuse("it has a second name (hard link)".into(), "make a copy and use that".into());
    }
    // The room is made at once: growing would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io_at(path))?;
    if bytes.len() as u64 > limit {
        return refuse(format!("it is longer than {limit} bytes"), "is this the right file?".into());
    }
    Ok(bytes)
}

/// Makes a folder that only we may enter, if it is not there; one that is not ours, or that others may write to, is
/// refused.
pub fn folder(path: &Path) -> Result<(), Refusal> {
    let refuse = |what: String, remedy: String| Err(Refusal::Unsafe { path: path.into(), what, remedy });
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_at(path))?;
    let about = std::fs::metadata(path).map_err(io_at(path))?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return refuse(format!("it belongs to another user (uid {})", about.uid()), "use a folder of your own".into());
    }
    if about.mode() & 0o022 != 0 {
        let what = format!("others may write to it (mode {:04o})", about.mode() & 0o7777);
        return refuse(what, format!("run `chmod 700 {}`", path.display()));
    }
    Ok(())
}

/// Opens a new file for reading and writing that only we may access; fails where the name is taken.
pub fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW.bits() as i32;
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).custom_flags(flags).open(path)
}

/// Opens a file that is already there for reading and writing; a symbolic link is refused.
pub fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)
}

/// Creates a file with this content, unless it is there by then: `false`. Nobody ever sees a half of it, and what is
/// reported as created survives a power cut.
pub fn create(path: &Path, content: &[u8]) -> io::Result<bool> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut mark = [0; 8];
    getrandom::fill(&mut mark)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(mark)));
    let temporary = folder.join(name);
    let written = create_new(&temporary)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
        .and_then(|()| name_it(&temporary, path));
    match written {
        Ok(true) => File::open(folder)?.sync_all().map(|()| true),
        other => {
            // What we made and did not need, or could not finish.
            let _ = std::fs::remove_file(&temporary);
            other
        }
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_created_is_ours_alone_and_never_replaces_another() {
        let home = tempfile::tempdir().unwrap();
        let sub = home.path().join("a/b");
        folder(&sub).unwrap();
        assert_eq!(mode(&sub), 0o700);
        let path = sub.join("key");
        assert!(create(&path, b"one").unwrap());
        assert!(!create(&path, b"two").unwrap());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(&**read(&path, 10).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(&sub).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_file_that_is_not_kept_as_a_secret_is_refused_with_the_remedy() {
        #[track_caller]
        fn check(path: &Path, want: &str) {
            let said = read(path, 10).unwrap_err().to_string();
            assert!(said.contains(want), "{said:?} should say {want:?}");
        }
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        check(&at("none"), "is not there");
        create(&at("key"), b"secret").unwrap();
        symlink(at("key"), at("link")).unwrap();
        check(&at("link"), "symbolic link");
        for bits in [0o640, 0o604, 0o660, 0o644] {
            std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(bits)).unwrap();
            check(&at("key"), "chmod 600");
        }
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::hard_link(at("key"), at("second")).unwrap();
        check(&at("key"), "hard link");
        check(home.path(), "not a plain file");
        create(&at("long"), &[7; 11]).unwrap();
        check(&at("long"), "longer than 10 bytes");
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert!(folder(home.path()).unwrap_err().to_string().contains("chmod 700"));
    }

    #[test]
    fn a_new_file_does_not_follow_a_link() {
        let home = tempfile::tempdir().unwrap();
        symlink(home.path().join("target"), home.path().join("link")).unwrap();
        assert!(create_new(&home.path().join("link")).is_err());
        std::fs::write(home.path().join("target"), b"").unwrap();
        assert!(open_existing(&home.path().join("link")).is_err());
    }
}
