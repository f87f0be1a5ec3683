//! The key to an encrypted store: from a file of ours, from the system's manager, or out of a passphrase.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::form::Hex;
use super::{StoreError, at};
use crate::credential::text::{base64url, random};
use crate::system;

/// The least that a key may be made of, in bytes.
const LEAST: usize = 32;
/// The largest file that is taken for a key.
const LARGEST: u64 = 4096;

/// A key, from which one is derived for each purpose.
pub(super) struct Root(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root(…)")
    }
}

impl Clone for Root {
    fn clone(&self) -> Self {
        Self(Zeroizing::new(*self.0))
    }
}

impl Root {
    /// From any bytes that nobody can guess.
    pub(super) fn of(material: &[u8]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("cco credentials v1: root", material)))
    }

    /// Of a store whose values are in the keyring: nothing in its file is a secret.
    pub(super) fn public(id: &Hex<8>) -> Self {
        Self(Zeroizing::new(blake3::derive_key("cco credentials v1: index of a keyring", &id.0)))
    }

    /// Seals the content.
    pub(super) fn content(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key("cco credentials v1: content", self.0.as_slice()))
    }

    /// What a file remembers of its key: enough to tell another one, and nothing about it.
    pub(super) fn check(&self) -> [u8; 16] {
        let derived = Zeroizing::new(blake3::derive_key("cco credentials v1: check", self.0.as_slice()));
        derived[..16].try_into().expect("16 of 32 bytes")
    }
}

/// How a passphrase becomes a key: Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kdf {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Hex<16>,
}

impl Kdf {
    /// A new one: 256 MiB, three passes, about a second.
    pub(super) fn new() -> Self {
        Self { memory_kib: 256 << 10, passes: 3, lanes: 1, salt: Hex(random()) }
    }

    /// The key. Takes the time and the memory that it says.
    pub(super) fn derive(&self, passphrase: &str) -> Result<Root, StoreError> {
        // A file that somebody else wrote must not make us take all memory.
        let sane = self.memory_kib <= 4 << 20 && self.passes <= 64 && self.lanes <= 64;
        let params = argon2::Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok().filter(|_| sane);
        let Some(params) = params else {
            return Err(StoreError::Damaged("its second line says how to make the key in a way that cannot be".into()));
        };
        let mut memory = Vec::new();
        let blocks = params.block_count();
        if memory.try_reserve_exact(blocks).is_err() {
            return Err(StoreError::Memory(self.memory_kib / 1024));
        }
        memory.resize(blocks, argon2::Block::default());
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut key = Zeroizing::new([0; 32]);
        argon2
            .hash_password_into_with_memory(passphrase.as_bytes(), &self.salt.0, &mut *key, &mut memory)
            .map_err(|why| StoreError::Damaged(format!("no key can be made as its second line says: {why}")))?;
        memory.zeroize();
        Ok(Root::of(key.as_slice()))
    }
}

/// The key in a file of ours; `None` where the file is not there.
pub(super) fn of_file(path: &Path) -> Result<Option<Root>, StoreError> {
    match system::read(path, LARGEST) {
        Ok(bytes) => material(path, &bytes).map(Some),
        Err(system::Refusal::Missing) => Ok(None),
        Err(refusal) => Err(at(path)(refusal)),
    }
}

/// The key in the file, made where it is not there.
pub(super) fn of_file_or_new(path: &Path) -> Result<Root, StoreError> {
    if let Some(root) = of_file(path)? {
        return Ok(root);
    }
    let text = Zeroizing::new(format!("{}\n", *base64url(Zeroizing::new(random::<32>()).as_slice())));
    // Also where another process was faster: what counts is what lies there.
    system::create(path, text.as_bytes()).map_err(|why| at(path)(system::Refusal::Io(why)))?;
    of_file(path)?.ok_or_else(|| StoreError::NoKey(path.into()))
}

/// The key that the system's manager laid out; `None` where it did not.
pub(super) fn of_system(path: &Path) -> Result<Option<Root>, StoreError> {
    match system::read_given(path, LARGEST) {
        Ok(bytes) => material(path, &bytes).map(Some),
        Err(system::Refusal::Missing) => Ok(None),
        Err(refusal) => Err(at(path)(refusal)),
    }
}

fn material(path: &Path, bytes: &[u8]) -> Result<Root, StoreError> {
    let bytes = bytes.trim_ascii();
    if bytes.len() < LEAST { Err(StoreError::ShortKey(path.into())) } else { Ok(Root::of(bytes)) }
}

#[cfg(test)]
impl Kdf {
    /// Quick, for tests that are not about this.
    pub(super) fn quick() -> Self {
        Self { memory_kib: 64, passes: 1, lanes: 1, salt: Hex([9; 16]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_always_makes_the_same_key_and_another_one_another() {
        let kdf = Kdf::quick();
        let check = kdf.derive("correct horse").unwrap().check();
        assert_eq!(kdf.derive("correct horse").unwrap().check(), check);
        assert_ne!(kdf.derive("correct horsf").unwrap().check(), check);
        assert_ne!(Kdf { salt: Hex([8; 16]), ..kdf }.derive("correct horse").unwrap().check(), check);
    }

    #[test]
    fn argon2id_is_what_it_is_elsewhere() {
        // From the reference program: `printf password | argon2 somesaltsomesalt -id -v 13 -k 64 -t 1 -p 1 -l 32 -r`.
        let want = "e793d64ef75d58f503d4631b2b149f7f80127c5f3993d89b1c9b781e51d0b413";
        let key: Hex<32> = serde_json::from_value(want.into()).unwrap();
        let kdf = Kdf { salt: Hex(*b"somesaltsomesalt"), ..Kdf::quick() };
        assert_eq!(kdf.derive("password").unwrap().check(), Root::of(&key.0).check());
    }

    #[test]
    fn a_file_cannot_ask_for_all_memory() {
        for kdf in [
            Kdf { memory_kib: u32::MAX, ..Kdf::quick() },
            Kdf { passes: u32::MAX, ..Kdf::quick() },
            Kdf { lanes: u32::MAX, ..Kdf::quick() },
            Kdf { memory_kib: 0, ..Kdf::quick() },
            Kdf { passes: 0, ..Kdf::quick() },
        ] {
            assert!(matches!(kdf.derive("x"), Err(StoreError::Damaged(_))), "{kdf:?}");
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_a_short_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(of_file(&path).unwrap().is_none());
        let made = of_file_or_new(&path).unwrap().check();
        assert_eq!(of_file_or_new(&path).unwrap().check(), made);
        system::replace(&path, b"too short\n").unwrap();
        assert!(matches!(of_file(&path), Err(StoreError::ShortKey(_))));
    }
}
