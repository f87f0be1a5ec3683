//! The socket of our own user: a file that nobody else can connect to, and that stands for the gateway of this home.
//! And how commands connect: to it, and to gateways elsewhere.

use std::fmt;
use std::io;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peer::own_uid;
use crate::origin::Origin;

/// A connection to such a socket, as a command opens it.
pub type OwnStream = std::os::unix::net::UnixStream;

/// A connection to a gateway elsewhere, as a command opens it.
pub type FarStream = std::net::TcpStream;

/// The longest path that a socket can have, with room for the name that it is made under.
const LONGEST: usize = 96;

/// Why there is no socket at a path.
#[derive(Debug)]
pub enum NoSocket {
    /// Another gateway answers there.
    Taken,
    /// What lies there is no socket, and not ours to remove.
    InTheWay,
    /// The path is longer than a socket's can be.
    TooLong,
    /// The system says no.
    Io(io::Error),
}

impl fmt::Display for NoSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken => f.write_str("another gateway answers there: it keeps it"),
            Self::InTheWay => f.write_str("what lies there is no socket: move it away"),
            Self::TooLong => write!(f, "the path is longer than {LONGEST} bytes: use a shorter `CCO_HOME`"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NoSocket {}

impl From<io::Error> for NoSocket {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The socket, as long as this lives.
#[derive(Debug)]
pub struct OwnSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, to know it again.
    file: (u64, u64),
}

impl OwnSocket {
    /// Listens at this path, in the place of the gateway that hands over to this one.
    pub fn take_over(path: &Path) -> Result<Self, NoSocket> {
        Self::bind_over(path, |_| Ok(false))
    }

    /// Listens at this path. What a gateway left there that is gone is replaced; one that answers keeps its place.
    pub fn bind(path: &Path) -> Result<Self, NoSocket> {
        Self::bind_over(path, answers)
    }

    fn bind_over(path: &Path, answers: fn(&Path) -> io::Result<bool>) -> Result<Self, NoSocket> {
        if path.as_os_str().len() > LONGEST {
            return Err(NoSocket::TooLong);
        }
        match std::fs::symlink_metadata(path) {
            Ok(about) if !about.file_type().is_socket() => return Err(NoSocket::InTheWay),
            Ok(_) if answers(path)? => return Err(NoSocket::Taken),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        // Made under a name of its own and closed to others before anybody can know it.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        let named = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::symlink_metadata(&fresh))
            .and_then(|about| std::fs::rename(&fresh, path).map(|()| (about.dev(), about.ino())))
            .and_then(|file| listener.set_nonblocking(true).map(|()| file));
        match named {
            Ok(file) => Ok(Self { listener, path: path.into(), file }),
            Err(error) => {
                let _ = std::fs::remove_file(&fresh);
                Err(error.into())
            }
        }
    }

    /// To be accepted from on a runtime.
    pub fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let is_ours = |about: std::fs::Metadata| (about.dev(), about.ino()) == self.file;
        // Another gateway may have its own there by now.
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody listens there.
fn answers(path: &Path) -> io::Result<bool> {
    match connect(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Connects to the socket at this path.
pub fn connect(path: &Path) -> io::Result<OwnStream> {
    OwnStream::connect(path)
}

/// Connects to whichever address of a host takes it, with so much time for each.
pub fn connect_far(to: &Origin, within: Duration) -> io::Result<FarStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (to.host.as_str(), to.port).to_socket_addrs()? {
        match FarStream::connect_timeout(&address, within) {
            Ok(stream) => return Ok(stream),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Whether the other end is a process of our own user: the kernel says so of the one that connected.
pub fn is_own(stream: &tokio::net::UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|who| who.uid() == own_uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_socket_is_closed_to_others_and_gone_with_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cco.sock");
        let socket = OwnSocket::bind(&path).unwrap();
        assert_eq!((mode(&path), names(folder.path())), (0o600, vec!["cco.sock".into()]));
        connect(&path).unwrap();
        drop(socket);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn one_that_answers_keeps_its_place_and_one_that_is_left_over_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cco.sock");
        let first = OwnSocket::bind(&path).unwrap();
        assert!(matches!(OwnSocket::bind(&path), Err(NoSocket::Taken)));
        connect(&path).unwrap();
        // As a process leaves it that was killed.
        let left = folder.path().join("left.sock");
        drop(UnixListener::bind(&left).unwrap());
        assert!(connect(&left).is_err() && left.exists());
        let second = OwnSocket::bind(&left).unwrap();
        connect(&left).unwrap();
        // What another one put in our place stays.
        std::fs::rename(&left, &path).unwrap();
        drop(first);
        connect(&path).unwrap();
        drop(second);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cco.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(OwnSocket::bind(&path), Err(NoSocket::InTheWay)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(OwnSocket::bind(&link), Err(NoSocket::InTheWay)));
        let long = folder.path().join("x".repeat(100));
        assert!(matches!(OwnSocket::bind(&long), Err(NoSocket::TooLong)));
    }
}
