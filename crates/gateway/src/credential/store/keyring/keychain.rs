//! The login keychain of macOS.

use security_framework::passwords::{delete_generic_password, get_generic_password, set_generic_password};
use zeroize::Zeroizing;

use super::{Item, Keyring, KeyringError, Patience};
use crate::secret::Secret;

const SERVICE: &str = "cco";

// Result codes of the Security framework.
const NOT_FOUND: i32 = -25300;
const NO_INTERACTION: i32 = -25308;
const AUTHORIZATION_FAILED: i32 = -25293;
const USER_CANCELLED: i32 = -128;
const NO_DEFAULT_KEYCHAIN: i32 = -25307;

/// The login keychain. It asks the user itself where it must; over SSH it cannot.
#[derive(Debug)]
pub(super) struct Keychain;

fn failed(error: &security_framework::base::Error) -> KeyringError {
    match error.code() {
        NO_INTERACTION | AUTHORIZATION_FAILED | USER_CANCELLED => KeyringError::Locked,
        NO_DEFAULT_KEYCHAIN => KeyringError::Absent("there is no default keychain".into()),
        _ => KeyringError::Failed(error.to_string()),
    }
}

impl Keyring for Keychain {
    fn get(&self, item: &Item<'_>, _: Patience) -> Result<Option<Secret>, KeyringError> {
        match get_generic_password(SERVICE, &item.account()) {
            Ok(bytes) => {
                let bytes = Zeroizing::new(bytes);
                let text =
                    std::str::from_utf8(&bytes).map_err(|_| KeyringError::Failed("the item is no text".into()))?;
                Ok(Some(Secret::new(text)))
            }
            Err(error) if error.code() == NOT_FOUND => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    fn set(&self, item: &Item<'_>, value: &Secret, _: Patience) -> Result<(), KeyringError> {
        set_generic_password(SERVICE, &item.account(), value.expose().as_bytes()).map_err(|error| failed(&error))
    }

    fn delete(&self, item: &Item<'_>, _: Patience) -> Result<bool, KeyringError> {
        match delete_generic_password(SERVICE, &item.account()) {
            Ok(()) => Ok(true),
            Err(error) if error.code() == NOT_FOUND => Ok(false),
            Err(error) => Err(failed(&error)),
        }
    }

    fn answers(&self, _: Patience) -> Result<(), KeyringError> {
        match get_generic_password(SERVICE, "is anybody there") {
            Ok(_) => Ok(()),
            Err(error) if error.code() == NOT_FOUND => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }
}
