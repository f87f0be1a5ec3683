//! The keyring of the operating system: one item a credential.

#[cfg(any(test, all(unix, not(target_os = "macos"))))]
mod dbus;
#[cfg(target_os = "macos")]
mod keychain;
#[cfg(all(unix, not(target_os = "macos")))]
mod secret_service;
#[cfg(windows)]
mod windows;

use std::fmt;
use std::sync::Arc;

use crate::config::Env;
use crate::secret::Secret;

/// Which item of the keyring is meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    /// The name of the credential.
    pub(super) name: &'a str,
    /// The store that it belongs to: two folders of ours share one keyring.
    pub(super) store: &'a str,
}

impl Item<'_> {
    /// What the item is found by, where a keyring knows attributes.
    fn attributes(&self) -> [(&str, &str); 3] {
        [("service", "cco"), ("username", self.name), ("store", self.store)]
    }

    /// What the user sees.
    fn label(&self) -> String {
        format!("cco: {}", self.name)
    }

    /// The name under the service `cco`, where a keyring knows only two names.
    #[cfg(any(target_os = "macos", windows))]
    fn account(&self) -> String {
        format!("{}/{}", self.store, self.name)
    }
}

/// Whether the user may be asked to unlock the keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Somebody is there to answer.
    Prompt,
    /// Nobody is: what is locked stays locked.
    Never,
}

/// Why the keyring did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyringError {
    /// There is none here.
    Absent(String),
    /// It is locked, and nobody unlocked it.
    Locked,
    /// It refused, or broke.
    Failed(String),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(why) => f.write_str(why),
            Self::Locked => f.write_str("the keyring is locked"),
            Self::Failed(why) => write!(f, "the keyring failed: {why}"),
        }
    }
}

/// A keyring.
pub(super) trait Keyring: Send + Sync + fmt::Debug {
    /// The value, if the item is there.
    fn get(&self, item: &Item<'_>, patience: Patience) -> Result<Option<Secret>, KeyringError>;
    /// Makes the item, or gives it another value.
    fn set(&self, item: &Item<'_>, value: &Secret, patience: Patience) -> Result<(), KeyringError>;
    /// Removes the item: `false` where it was not there.
    fn delete(&self, item: &Item<'_>, patience: Patience) -> Result<bool, KeyringError>;
    /// Whether it can be used now.
    fn answers(&self, patience: Patience) -> Result<(), KeyringError>;
}

/// The keyring of this system.
pub(super) fn system(env: &Env) -> Arc<dyn Keyring> {
    #[cfg(target_os = "macos")]
    let keyring = {
        let _ = env;
        keychain::Keychain
    };
    #[cfg(windows)]
    let keyring = {
        let _ = env;
        windows::Manager
    };
    #[cfg(all(unix, not(target_os = "macos")))]
    let keyring = secret_service::SecretService::new(env);
    Arc::new(keyring)
}
