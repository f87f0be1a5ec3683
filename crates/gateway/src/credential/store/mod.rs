//! Where credentials are kept by name: in the keyring of the operating system, else in an encrypted file.
//!
//! Which of the two is decided when the first one is stored, and written down in the file `credentials` of our folder;
//! from then on the store is there or it is an error. With a keyring, that file lists names; without one, it holds the
//! values, sealed. Four more lie beside it: `credentials.key` (the key, where no other place has it), `credentials.seen`
//! (which state was written last, so that an older copy is noticed), `credentials.used` (when each was last given out)
//! and `credentials.lock`.

mod error;
mod form;
mod keyring;
mod root;
#[cfg(test)]
mod tests;
mod uses;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::config::{CCO_PASSPHRASE, CREDENTIALS_DIRECTORY, CredentialRef, Env};
use crate::credential::text::random;
use crate::secret::Secret;
use crate::system::{self, Refusal, Stamp};
use form::{Header, Row, Sealed};
use keyring::{Item, Keyring};
use root::{Kdf, Root};

pub use error::StoreError;
pub use keyring::{KeyringError, Patience};

/// The credential of the system's manager that holds the key.
const SYSTEM_KEY: &str = "cco-credentials-key";

/// Where the values are, and where the key to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// In the keyring of the operating system.
    Keyring,
    /// In an encrypted file, whose key is in another file of ours.
    File,
    /// In an encrypted file, whose key the system's manager gives to the service.
    Systemd,
    /// In an encrypted file, whose key is made of a passphrase.
    Passphrase,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Keyring, Self::File, Self::Systemd, Self::Passphrase];

    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::File => "file",
            Self::Systemd => "systemd",
            Self::Passphrase => "passphrase",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyring => "the keyring of this system",
            Self::File => "an encrypted file, with its key in `credentials.key`",
            Self::Systemd => "an encrypted file, with its key from the system's manager",
            Self::Passphrase => "an encrypted file, with its key from a passphrase",
        })
    }
}

/// What is known of a credential without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it is kept.
    pub backend: Backend,
    /// Its last characters, if it is long enough to show them.
    pub last4: Option<String>,
    /// When it was stored, in seconds since 1970.
    pub stored: u64,
    /// When it was last given out, in the same way.
    pub used: Option<u64>,
}

/// What storing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Where it is kept.
    pub backend: Backend,
    /// Whether there was one of that name before.
    pub replaced: bool,
    /// Why there and not elsewhere, where that was decided just now.
    pub chosen: Option<String>,
}

/// What tells one state of the store from another, without reading it: its files, and whether its folder is safe.
pub type Stamps = ([Option<Stamp>; 3], bool);

/// The store of one folder.
pub struct Credentials {
    home: PathBuf,
    env: Env,
    keyring: Arc<dyn Keyring>,
    patience: Patience,
    /// The key, once it was made: a passphrase takes a second.
    root: Mutex<Option<Root>>,
    /// How a passphrase becomes the key of a new store.
    new_kdf: fn() -> Kdf,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", self.home.display())
    }
}

/// The store, opened.
struct State {
    header: Header,
    rows: Vec<Row>,
    root: Root,
}

/// Which state was written last.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    generation: u64,
    digest: String,
}

fn at(path: &Path) -> impl Fn(Refusal) -> StoreError + '_ {
    move |refusal| match refusal {
        Refusal::Missing => StoreError::Io(path.into(), std::io::ErrorKind::NotFound.into()),
        Refusal::Unsafe(flaw) => StoreError::Unsafe(path.into(), flaw),
        Refusal::Io(why) => StoreError::Io(path.into(), why),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

impl Credentials {
    /// The store in our folder. Nothing is read or made yet.
    pub fn of(env: &Env, patience: Patience) -> Result<Self, StoreError> {
        let home = env.home().ok_or(StoreError::NoHome)?;
        let keyring = keyring::system(env);
        Ok(Self { home, env: env.clone(), keyring, patience, root: Mutex::new(None), new_kdf: Kdf::new })
    }

    /// The file of the store.
    pub fn path(&self) -> PathBuf {
        self.home.join("credentials")
    }

    fn beside(&self, what: &str) -> PathBuf {
        self.home.join(format!("credentials.{what}"))
    }

    /// Changes whenever the store does; some system calls, no reading.
    pub fn stamps(&self) -> Stamps {
        let files = [self.path(), self.beside("key"), self.beside("seen")].map(|path| system::stamp(&path));
        (files, system::sound(&self.home).is_ok())
    }

    /// Where the values are kept; `None` before the first is stored. Takes no key.
    pub fn backend(&self) -> Result<Option<Backend>, StoreError> {
        Ok(match self.file()? {
            Some(file) => Some(Sealed::read(&file)?.header.backend),
            None => None,
        })
    }

    /// The credential of that name, if there is one.
    pub fn get(&self, name: &str) -> Result<Option<Secret>, StoreError> {
        let Some(state) = self.load()? else { return Ok(None) };
        let Some(row) = state.rows.into_iter().find(|row| row.name == name) else { return Ok(None) };
        if state.header.backend != Backend::Keyring {
            return Ok(row.secret);
        }
        let store = state.header.id.to_string();
        match self.keyring.get(&Item { name, store: &store }, self.patience)? {
            Some(value) => Ok(Some(value)),
            None => Err(StoreError::Lost(name.into())),
        }
    }

    /// All credentials, by name.
    pub fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let Some(state) = self.load()? else { return Ok(Vec::new()) };
        let uses = uses::read(&self.beside("used"));
        let backend = state.header.backend;
        let mut entries: Vec<Entry> = state
            .rows
            .into_iter()
            .map(|row| {
                let last4 = row.secret.as_ref().and_then(|secret| match backend {
                    Backend::Keyring => Some(secret.expose().to_owned()),
                    _ => secret.last4().map(str::to_owned),
                });
                Entry { used: uses.get(&row.name).copied(), name: row.name, backend, last4, stored: row.stored }
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Stores a value under this name, in the place of one that is there, and reads it back.
    ///
    /// The first one decides where all are kept: where `wish` says, else in the keyring if one answers, else in an
    /// encrypted file. A store that is empty can be moved by another wish.
    pub fn put(&self, name: &str, value: &Secret, wish: Option<Backend>) -> Result<Put, StoreError> {
        if !CredentialRef::is_stored_name(name) {
            return Err(StoreError::BadName(name.into()));
        }
        let text = value.expose();
        if text.len() as u64 > super::MAX_KEY || super::key(text.as_bytes()).ok().flatten().as_ref() != Some(value) {
            return Err(StoreError::BadValue);
        }
        system::folder(&self.home).map_err(at(&self.home))?;
        let _lock = self.lock()?;
        let (mut state, chosen) = match self.load()? {
            None => self.begin(wish, 0)?,
            Some(state) => match wish.filter(|wish| *wish != state.header.backend) {
                None => (state, None),
                Some(wish) if state.rows.is_empty() => self.begin(Some(wish), state.header.generation)?,
                Some(_) => return Err(StoreError::Chosen(state.header.backend)),
            },
        };
        let backend = state.header.backend;
        let secret = match backend {
            Backend::Keyring => {
                let store = state.header.id.to_string();
                let item = Item { name, store: &store };
                self.keyring.set(&item, value, self.patience)?;
                if self.keyring.get(&item, self.patience)?.as_ref() != Some(value) {
                    return Err(StoreError::NotKept(name.into()));
                }
                value.last4().map(Secret::new)
            }
            _ => Some(value.clone()),
        };
        let row = Row { name: name.into(), stored: now(), secret };
        let position = state.rows.iter().position(|row| row.name == name);
        match position {
            Some(position) => state.rows[position] = row,
            None if state.rows.len() >= form::MOST => return Err(StoreError::Full),
            None => state.rows.push(row),
        }
        self.write(&state, name)?;
        Ok(Put { backend, replaced: position.is_some(), chosen })
    }

    /// Removes a credential: `false` where there is none of that name.
    pub fn delete(&self, name: &str) -> Result<bool, StoreError> {
        let lock = match self.lock() {
            // Without the folder there is nothing in it.
            Err(StoreError::Io(_, why)) if why.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            lock => lock?,
        };
        let Some(mut state) = self.load()? else { return Ok(false) };
        let Some(position) = state.rows.iter().position(|row| row.name == name) else { return Ok(false) };
        if state.header.backend == Backend::Keyring {
            let store = state.header.id.to_string();
            // Where it is gone already, what remains is to forget it.
            self.keyring.delete(&Item { name, store: &store }, self.patience)?;
        }
        state.rows.remove(position);
        self.write(&state, name)?;
        let used = self.beside("used");
        uses::forget(&used, name).map_err(|why| StoreError::Io(used.clone(), why))?;
        drop(lock);
        Ok(true)
    }

    /// Notes that these were given out just now. `false`: another process is at the store, try again later.
    pub fn used(&self, names: &[String]) -> Result<bool, StoreError> {
        let used = self.beside("used");
        uses::add(&used, &self.beside("lock"), names, now()).map_err(|why| StoreError::Io(used.clone(), why))
    }

    fn lock(&self) -> Result<system::Lock, StoreError> {
        let path = self.beside("lock");
        system::lock(&path).map_err(|why| at(&path)(Refusal::Io(why)))
    }

    /// A store without credentials, as the next change will write it; and why there.
    fn begin(&self, wish: Option<Backend>, generation: u64) -> Result<(State, Option<String>), StoreError> {
        let system_key = self.system_key();
        let (backend, why) = match wish {
            Some(Backend::Keyring) => {
                self.keyring.answers(self.patience).map_err(StoreError::NoKeyring)?;
                (Backend::Keyring, "as you said".to_owned())
            }
            Some(wish) => (wish, "as you said".to_owned()),
            None => match self.keyring.answers(self.patience) {
                Ok(()) => (Backend::Keyring, "it answers".to_owned()),
                Err(KeyringError::Absent(why)) if system_key.as_ref().is_some_and(|path| path.exists()) => {
                    (Backend::Systemd, why)
                }
                Err(KeyringError::Absent(why)) => (Backend::File, why),
                // There is one, and it should be used: whoever wants the file must say so.
                Err(why) => return Err(StoreError::NoKeyring(why)),
            },
        };
        let id = form::Hex(random());
        let kdf = (backend == Backend::Passphrase).then(self.new_kdf);
        let root = match backend {
            Backend::Keyring => Root::public(&id),
            Backend::File => root::of_file_or_new(&self.beside("key"))?,
            Backend::Systemd => self.system_root()?,
            Backend::Passphrase => match self.passphrase() {
                Some(text) if text.expose().is_empty() => return Err(StoreError::NoPassphrase),
                Some(text) => kdf.expect("made above for this backend").derive(text.expose())?,
                None => return Err(StoreError::NeedsPassphrase),
            },
        };
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(root.clone());
        let header = form::new_header(backend, id.0, root.check(), kdf).at(generation);
        Ok((State { header, rows: Vec::new(), root }, Some(why)))
    }

    /// The store as it is; `None` before the first credential.
    fn load(&self) -> Result<Option<State>, StoreError> {
        // First: whoever writes puts the file there before this.
        let seen = self.seen()?;
        let Some(file) = self.file()? else {
            return if seen.is_some() { Err(StoreError::Gone) } else { Ok(None) };
        };
        let sealed = Sealed::read(&file)?;
        let root = self.root(&sealed.header)?;
        let rows = sealed.open(&root)?;
        let header = sealed.header;
        if let Some(seen) = seen {
            let forked = header.generation == seen.generation && digest(&file) != seen.digest;
            if header.generation < seen.generation || forked {
                return Err(StoreError::RolledBack { found: header.generation, last: seen.generation });
            }
        }
        Ok(Some(State { header, rows, root }))
    }

    /// Writes the next state of the store, and makes sure that it is what is there.
    fn write(&self, state: &State, name: &str) -> Result<(), StoreError> {
        let header = state.header.clone().at(state.header.generation + 1);
        let path = self.path();
        let file = form::seal(&header, &state.root, &state.rows)?;
        system::replace(&path, &file).map_err(|why| StoreError::Io(path.clone(), why))?;
        let back = system::read(&path, form::LARGEST).map_err(at(&path))?;
        if Sealed::read(&back)?.open(&state.root)? != state.rows {
            return Err(StoreError::NotKept(name.into()));
        }
        let seen = self.beside("seen");
        let text = format!("{} {}\n", header.generation, digest(&back));
        system::replace(&seen, text.as_bytes()).map_err(|why| StoreError::Io(seen.clone(), why))
    }

    fn file(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StoreError> {
        // Whoever may write to the folder may have put an earlier state of the files there.
        match system::sound(&self.home) {
            Ok(()) | Err(Refusal::Missing) => {}
            Err(refusal) => return Err(at(&self.home)(refusal)),
        }
        let path = self.path();
        match system::read(&path, form::LARGEST) {
            Ok(file) => Ok(Some(file)),
            Err(Refusal::Missing) => Ok(None),
            Err(refusal) => Err(at(&path)(refusal)),
        }
    }

    fn seen(&self) -> Result<Option<Seen>, StoreError> {
        let path = self.beside("seen");
        let bytes = match system::read(&path, 256) {
            Ok(bytes) => bytes,
            Err(Refusal::Missing) => return Ok(None),
            Err(refusal) => return Err(at(&path)(refusal)),
        };
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
            let (generation, digest) = text.strip_suffix('\n')?.split_once(' ')?;
            Some(Seen { generation: generation.parse().ok()?, digest: digest.to_owned() })
        });
        match parsed {
            Some(seen) => Ok(Some(seen)),
            None => Err(StoreError::Damaged("`credentials.seen` beside it does not say what was written last".into())),
        }
    }

    /// The key to the store with this header.
    fn root(&self, header: &Header) -> Result<Root, StoreError> {
        let mut cached = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = cached.as_ref().filter(|root| root.check() == header.check.0) {
            return Ok(root.clone());
        }
        let root = match (header.backend, &header.kdf) {
            (Backend::Keyring, _) => Root::public(&header.id),
            (Backend::File, _) => {
                let path = self.beside("key");
                root::of_file(&path)?.ok_or(StoreError::NoKey(path))?
            }
            (Backend::Systemd, _) => self.system_root()?,
            (Backend::Passphrase, Some(kdf)) => match self.passphrase() {
                Some(passphrase) => kdf.derive(passphrase.expose())?,
                None => return Err(StoreError::NeedsPassphrase),
            },
            (Backend::Passphrase, None) => {
                return Err(StoreError::Damaged("its second line does not say how to make the key".into()));
            }
        };
        if root.check() != header.check.0 {
            return Err(match header.backend {
                Backend::Passphrase => StoreError::WrongPassphrase,
                Backend::Keyring => StoreError::Damaged("its second line does not fit itself".into()),
                backend => StoreError::WrongKey(backend),
            });
        }
        *cached = Some(root.clone());
        Ok(root)
    }

    fn system_key(&self) -> Option<PathBuf> {
        self.env.read(&CREDENTIALS_DIRECTORY).map(|folder| Path::new(&folder).join(SYSTEM_KEY))
    }

    fn system_root(&self) -> Result<Root, StoreError> {
        let path = self.system_key().ok_or(StoreError::NoSystem)?;
        root::of_system(&path)?.ok_or(StoreError::NoKey(path))
    }

    fn passphrase(&self) -> Option<Secret> {
        let text = self.env.read(&CCO_PASSPHRASE)?.into_string().ok()?;
        Some(Secret::new(text))
    }
}

fn digest(file: &[u8]) -> String {
    blake3::hash(file).to_hex().to_string()
}
