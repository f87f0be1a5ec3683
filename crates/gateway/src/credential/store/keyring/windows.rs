//! The credential manager of Windows. It takes values of at most 2,560 bytes.

use std::sync::Arc;

use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Entry, Error};
use windows_native_keyring_store::Store;
use zeroize::Zeroizing;

use super::{Item, Keyring, KeyringError, Patience};
use crate::secret::Secret;

/// The credential manager. It is open while its user is logged in.
#[derive(Debug)]
pub(super) struct Manager;

fn failed(error: &Error) -> KeyringError {
    match error {
        Error::NoStorageAccess(why) => KeyringError::Absent(why.to_string()),
        // Not as it prints itself: some kinds carry the value.
        Error::PlatformFailure(why) => KeyringError::Failed(why.to_string()),
        Error::TooLong(..) => KeyringError::Failed("the value is longer than the credential manager takes".into()),
        _ => KeyringError::Failed("the item is not as it was written".into()),
    }
}

fn entry(item: &Item<'_>) -> Result<Entry, KeyringError> {
    let store: Arc<Store> = Store::new().map_err(|error| failed(&error))?;
    store.build("cco", &item.account(), None).map_err(|error| failed(&error))
}

impl Keyring for Manager {
    fn get(&self, item: &Item<'_>, _: Patience) -> Result<Option<Secret>, KeyringError> {
        match entry(item)?.get_secret().map(Zeroizing::new) {
            Ok(bytes) => {
                let text =
                    std::str::from_utf8(&bytes).map_err(|_| KeyringError::Failed("the item is no text".into()))?;
                Ok(Some(Secret::new(text)))
            }
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    fn set(&self, item: &Item<'_>, value: &Secret, _: Patience) -> Result<(), KeyringError> {
        entry(item)?.set_secret(value.expose().as_bytes()).map_err(|error| failed(&error))
    }

    fn delete(&self, item: &Item<'_>, _: Patience) -> Result<bool, KeyringError> {
        match entry(item)?.delete_credential() {
            Ok(()) => Ok(true),
            Err(Error::NoEntry) => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    fn answers(&self, _: Patience) -> Result<(), KeyringError> {
        Store::new().map(drop).map_err(|error| failed(&error))
    }
}
