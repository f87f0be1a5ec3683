//! What can go wrong with the archive, said so that the reader knows what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::private::Refusal;

/// Why the archive cannot be opened, read or changed.
#[derive(Debug)]
pub enum ArchiveError {
    /// The operating system refused something.
    Io {
        /// What was to be done, as an infinitive: "read", "write".
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key or the folder is not kept as a secret must be.
    Private(Refusal),
    /// The key's file does not hold a key.
    BadKey(PathBuf),
    /// Bodies are there, and the key that they were written with is not.
    KeyMissing {
        /// Where the key should be.
        key: PathBuf,
        /// How many files of bodies need it.
        packs: usize,
    },
    /// A file of bodies was written with another key.
    WrongKey(PathBuf),
    /// Bytes of a file of bodies are not what was written.
    Damaged {
        /// The file of bodies.
        path: PathBuf,
        /// Which part of it.
        part: &'static str,
    },
    /// A body is not there, and a part of the archive that could have held it cannot be read.
    MaybeLost {
        /// How many damaged places there are.
        places: usize,
        /// Why the first of them cannot be read.
        first: Box<ArchiveError>,
    },
    /// The disk is full, also after the reserve was released.
    NoRoom(PathBuf),
    /// The writer has stopped.
    Closed,
}

impl ArchiveError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom(path),
            _ => Self::Io { what, path, source },
        }
    }

    pub(super) fn damaged(path: &Path, part: &'static str) -> Self {
        Self::Damaged { path: path.into(), part }
    }
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, path, source } => write!(f, "cannot {what} `{}`: {source}", path.display()),
            Self::Private(refusal) => refusal.fmt(f),
            Self::BadKey(path) => {
                write!(f, "`{}` does not hold the 32 bytes of a key: put back the one from a backup", path.display())
            }
            Self::KeyMissing { key, packs } => write!(
                f,
                "the key `{}` is not there, and {packs} files of bodies were written with it: put it back from a \
                 backup, or run `cco audit purge --all`",
                key.display()
            ),
            Self::WrongKey(path) => write!(
                f,
                "`{}` was written with another key: put back the key of that time, or run `cco audit purge --all`",
                path.display()
            ),
            Self::Damaged { path, part } => {
                write!(
                    f,
                    "`{}` is damaged: {part} is not what was written; restore the file from a backup",
                    path.display()
                )
            }
            Self::MaybeLost { places, first } => {
                write!(
                    f,
                    "the body was not found, and {places} places of the archive cannot be read; the first: {first}"
                )
            }
            Self::NoRoom(path) => {
                write!(f, "the disk that holds `{}` is full: free some room and try again", path.display())
            }
            Self::Closed => write!(f, "the archive is closed"),
        }
    }
}

impl std::error::Error for ArchiveError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Private(refusal) => Some(refusal),
            Self::MaybeLost { first, .. } => Some(first),
            _ => None,
        }
    }
}

impl From<Refusal> for ArchiveError {
    fn from(refusal: Refusal) -> Self {
        Self::Private(refusal)
    }
}
