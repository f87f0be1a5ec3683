//! What can be wrong with the store, and the command that helps.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::Backend;
use super::keyring::KeyringError;
use crate::system::{Flaw, quoted};

/// Why the store did not do what it was asked. It never names a value.
#[derive(Debug)]
pub enum StoreError {
    /// There is no folder to keep it in.
    NoHome,
    /// A file or folder is not as a secret must be kept.
    Unsafe(PathBuf, Flaw),
    /// A file cannot be read or written.
    Io(PathBuf, io::Error),
    /// The file ends before its content does.
    Truncated,
    /// The file is not as it was written.
    Damaged(String),
    /// A later version wrote it.
    Newer,
    /// The file is an older state of the store than the one that was written last.
    RolledBack {
        /// The state that was found.
        found: u64,
        /// The state that was written last.
        last: u64,
    },
    /// The file is gone, and there was one.
    Gone,
    /// The passphrase is not the one of this store.
    WrongPassphrase,
    /// The store needs a passphrase and was given none.
    NeedsPassphrase,
    /// A passphrase must not be empty.
    NoPassphrase,
    /// The key of this store is not where it should be.
    NoKey(PathBuf),
    /// `$CREDENTIALS_DIRECTORY` is not set.
    NoSystem,
    /// The file with the key holds less than a key.
    ShortKey(PathBuf),
    /// The key is another store's.
    WrongKey(Backend),
    /// There is no store yet, and the keyring cannot take it.
    NoKeyring(KeyringError),
    /// The keyring, which has the values, does not do it.
    Keyring(KeyringError),
    /// A credential is listed, and the keyring does not have it.
    Lost(String),
    /// What was written is not what is read back.
    NotKept(String),
    /// The store is there already, and keeps its values elsewhere.
    Chosen(Backend),
    /// No credential can have this name.
    BadName(String),
    /// The value is no key.
    BadValue,
    /// There is no room for more.
    Full,
    /// So many MiB of memory could not be had.
    Memory(u32),
}

/// The files of the store, for what it says.
fn store_file() -> &'static str {
    "the file `credentials`"
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => f.write_str("neither `CCO_HOME` nor `HOME` is set"),
            Self::Unsafe(path, flaw) => write!(f, "`{}` is not used: {flaw}", path.display()),
            Self::Io(path, why) => write!(f, "`{}`: {why}", path.display()),
            Self::Truncated => write!(f, "{} ends too early", store_file()),
            Self::Damaged(what) => write!(f, "{} is damaged: {what}", store_file()),
            Self::Newer => write!(f, "{} was written by a later version of cco", store_file()),
            Self::RolledBack { found, last } if found == last => {
                write!(f, "{} is not the one that was written last", store_file())
            }
            Self::RolledBack { found, last } => {
                write!(f, "{} is an older one: its state is {found}, and the last one was {last}", store_file())
            }
            Self::Gone => write!(f, "{} is gone", store_file()),
            Self::WrongPassphrase => f.write_str("the passphrase is wrong"),
            Self::NeedsPassphrase => f.write_str("the credentials are locked with a passphrase"),
            Self::NoPassphrase => f.write_str("the passphrase is empty"),
            Self::NoKey(path) => write!(f, "the key to the credentials is not in `{}`", path.display()),
            Self::NoSystem => {
                f.write_str("the system's manager gave no credential: `CREDENTIALS_DIRECTORY` is not set")
            }
            Self::ShortKey(path) => write!(f, "`{}` is too short for a key", path.display()),
            Self::WrongKey(_) => write!(f, "the key does not fit {}", store_file()),
            Self::NoKeyring(why) | Self::Keyring(why) => why.fmt(f),
            Self::Lost(name) => write!(f, "the keyring has no `{name}` any more"),
            Self::NotKept(name) => write!(f, "`{name}` was not kept: what was read back is not what was written"),
            Self::Chosen(backend) => write!(f, "the credentials are kept in another place already: {backend}"),
            Self::BadName(name) => write!(f, "`{name}` cannot be the name of a credential"),
            Self::BadValue => f.write_str("the value is not one word of visible ASCII characters, of at most 64 KiB"),
            Self::Full => f.write_str("the store is full: it holds 1,000 credentials or 1 MiB"),
            Self::Memory(mib) => {
                write!(f, "making the key of a passphrase takes {mib} MiB of memory, which are not there")
            }
        }
    }
}

impl std::error::Error for StoreError {}

impl From<KeyringError> for StoreError {
    fn from(error: KeyringError) -> Self {
        Self::Keyring(error)
    }
}

impl StoreError {
    /// What to do about it, with the command where one helps.
    pub fn help(&self) -> String {
        const ANEW: &str = "put the last copy back into CCO_HOME, or delete `credentials` and `credentials.seen` there and \
                            store the credentials anew";
        match self {
            Self::NoHome => "set `CCO_HOME` to a folder of your own".into(),
            Self::Unsafe(path, flaw) => match flaw.repair(path) {
                Some(command) => format!("run `{command}`"),
                None => format!("look at what lies there: `ls -ld {}`", quoted(path)),
            },
            Self::Io(path, _) => {
                format!("check the folder and its owner: `ls -ld {}`", quoted(path.parent().unwrap_or(path)))
            }
            Self::Truncated | Self::Damaged(_) => ANEW.into(),
            Self::Newer => "use that version, or a later one".into(),
            Self::RolledBack { .. } => {
                "put the last copy back into CCO_HOME, or, if this one is what you want, delete \
                                        `credentials.seen` there"
                    .into()
            }
            Self::Gone => "put it back into CCO_HOME, or, to begin anew, delete `credentials.seen` there".into(),
            Self::WrongPassphrase => "try again, or check `CCO_PASSPHRASE`".into(),
            Self::NeedsPassphrase => "run it on a terminal, or set `CCO_PASSPHRASE`".into(),
            Self::NoPassphrase => "type one, or store with `--backend file`".into(),
            Self::NoKey(_) => format!("put that file back; without it the values are lost: {ANEW}"),
            Self::NoSystem => {
                "start it as a service with `LoadCredentialEncrypted=cco-credentials-key`, or store with \
                               `--backend file`"
                    .into()
            }
            Self::ShortKey(path) => {
                let path = quoted(path);
                format!(
                    "where credentials were stored with it, put it back as it was: without it the values are lost; a new \
                     one needs 32 bytes: `head -c 32 /dev/urandom | base64 > {path}`"
                )
            }
            Self::WrongKey(Backend::Systemd) => "give the service the credential that the store was made with".into(),
            Self::WrongKey(_) => {
                format!("put the right `credentials.key` back; without it the values are lost: {ANEW}")
            }
            Self::NoKeyring(KeyringError::Locked) => "unlock it and try again, or store with `--backend file`".into(),
            Self::NoKeyring(_) => "store with `--backend file`, or from a session that has a keyring".into(),
            Self::Keyring(KeyringError::Absent(_)) => "run it in a session that has the keyring".into(),
            Self::Keyring(KeyringError::Locked) => "unlock it and try again".into(),
            Self::Keyring(KeyringError::Failed(_)) => {
                "try again, and look at the keyring with the program that manages it".into()
            }
            Self::Lost(name) => format!("store it anew: `cco credentials store {name}`"),
            Self::NotKept(_) => "try again; if it happens again, store with another `--backend`".into(),
            Self::Chosen(backend) => {
                format!("leave `--backend` away, or use `--backend {}`; an empty store can move", backend.name())
            }
            Self::BadName(_) => "use letters, digits, `.`, `_` and `-`, at most 128".into(),
            Self::BadValue => "store the key alone, without quotes or a variable's name".into(),
            Self::Full => "delete what nobody needs: `cco credentials list`".into(),
            Self::Memory(_) => "give it that much memory".into(),
        }
    }

    /// Whether waiting can help: the keyring may be unlocked later.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Keyring(_))
    }
}
