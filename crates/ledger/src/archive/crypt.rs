//! Keys: one root key an installation, and from it one for each purpose and each file of bodies.

use std::io;
use std::path::Path;

use chacha20poly1305::aead::{AeadInOut as _, KeyInit as _};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::error::ArchiveError;
use crate::private;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;
/// How much longer sealed bytes are: a random nonce before them, an authenticator behind.
pub(super) const SEAL_LEN: usize = NONCE_LEN + TAG_LEN;

/// The name of a chunk: nobody without the key can tell what it names, or whether a known text is among the chunks.
pub(super) type ChunkId = [u8; 16];

/// What stands in for the key where nothing is to be secret: everybody knows it.
const NO_SECRET: [u8; KEY_LEN] = [0; KEY_LEN];

/// How a file of bodies is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nobody reads it without the key.
    Sealed,
    /// Whoever may read the file reads it. That it is as it was written is checked all the same.
    Plain,
}

/// The key of an installation, if it has one, and in which form it keeps what comes.
pub(super) struct RootKey {
    secret: Option<Zeroizing<[u8; KEY_LEN]>>,
    form: Form,
}

impl RootKey {
    /// Without a key: nothing that was sealed can be read, and nothing is.
    pub(super) fn plain() -> Self {
        Self { secret: None, form: Form::Plain }
    }

    /// The same, for keeping what comes in this form; `None`: there is no key to seal with.
    pub(super) fn keeping(self, form: Form) -> Option<Self> {
        (form == Form::Plain || self.secret.is_some()).then_some(Self { form, ..self })
    }

    /// In which form it keeps what comes.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Reads the key; makes it where none is there. Two processes that start at once end up with the same one.
    pub(super) fn load_or_create(path: &Path) -> Result<Self, ArchiveError> {
        match Self::load(path) {
            Err(ArchiveError::Private(private::Refusal::Missing(_))) => {}
            other => return other,
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            private::folder(folder)?;
        }
        let mut key = Zeroizing::new([0; KEY_LEN]);
        random(&mut *key).and_then(|()| private::create(path, &*key)).map_err(ArchiveError::io("write", path))?;
        // Also where another process was faster: what counts is what lies there.
        Self::load(path)
    }

    /// Reads the key.
    pub(super) fn load(path: &Path) -> Result<Self, ArchiveError> {
        let bytes = private::read(path, KEY_LEN as u64 + 1)?;
        let key = <[u8; KEY_LEN]>::try_from(bytes.as_slice()).map_err(|_| ArchiveError::BadKey(path.into()))?;
        Ok(Self { secret: Some(Zeroizing::new(key)), form: Form::Sealed })
    }

    /// What everything in this form follows from; `None`: the key is not there.
    fn of(&self, form: Form) -> Option<&[u8; KEY_LEN]> {
        match form {
            Form::Sealed => self.secret.as_deref(),
            Form::Plain => Some(&NO_SECRET),
        }
    }

    fn derive(&self, form: Form, purpose: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        self.of(form).map(|key| Zeroizing::new(blake3::derive_key(purpose, key)))
    }

    /// A name of this key that tells nothing about it.
    pub(super) fn id(&self, form: Form) -> Option<[u8; 8]> {
        self.derive(form, "cco archive v1: name of the key").map(|key| first(&key))
    }

    /// What decides where chunks end.
    pub(super) fn borders(&self, form: Form) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        self.derive(form, "cco archive v1: borders of chunks")
    }

    /// What names chunks and sessions.
    pub(super) fn names(&self, form: Form) -> Option<Names> {
        let chunks = self.derive(form, "cco archive v1: names of chunks")?;
        let sessions = self.derive(form, "cco archive v1: names of sessions")?;
        Some(Names { chunks, sessions })
    }

    /// The keys of one file of bodies. Whoever destroys the salt destroys the file, if it is sealed.
    pub(super) fn pack(&self, form: Form, salt: &[u8; 32]) -> Option<PackKeys> {
        let mut both = Zeroizing::new([0; KEY_LEN + 32]);
        both[..KEY_LEN].copy_from_slice(self.of(form)?);
        both[KEY_LEN..].copy_from_slice(salt);
        let derive = |purpose: &str| Zeroizing::new(blake3::derive_key(purpose, both.as_slice()));
        let cipher = || XChaCha20Poly1305::new(&Key::from(*derive("cco archive v1: content of a pack")));
        Some(PackKeys {
            cipher: (form == Form::Sealed).then(cipher),
            head: derive("cco archive v1: head of a pack"),
            mark: first(&derive("cco archive v1: mark of a group")),
        })
    }
}

fn first<const N: usize>(bytes: &[u8; KEY_LEN]) -> [u8; N] {
    std::array::from_fn(|at| bytes[at])
}

/// Random bytes of the operating system.
pub(super) fn random(into: &mut [u8]) -> io::Result<()> {
    getrandom::fill(into).map_err(io::Error::from)
}

/// Names for what must be found again without being told.
pub(super) struct Names {
    chunks: Zeroizing<[u8; KEY_LEN]>,
    sessions: Zeroizing<[u8; KEY_LEN]>,
}

impl Names {
    /// The name of these bytes.
    pub(super) fn chunk(&self, bytes: &[u8]) -> ChunkId {
        first(blake3::keyed_hash(&self.chunks, bytes).as_bytes())
    }

    /// The name of a session.
    pub(super) fn session(&self, session: &str) -> [u8; 16] {
        first(blake3::keyed_hash(&self.sessions, session.as_bytes()).as_bytes())
    }
}

/// The keys of one file of bodies.
pub(super) struct PackKeys {
    /// `None`: nothing is sealed, and everything is only checked.
    cipher: Option<XChaCha20Poly1305>,
    head: Zeroizing<[u8; KEY_LEN]>,
    /// Where a group begins; looks like noise to everybody else.
    pub(super) mark: [u8; 8],
}

/// Sealed bytes are not what was written under these keys at this place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged;

impl PackKeys {
    /// How the file is kept.
    pub(super) fn form(&self) -> Form {
        if self.cipher.is_some() { Form::Sealed } else { Form::Plain }
    }

    /// Proves that a head is as it was written.
    pub(super) fn check(&self, head: &[u8]) -> [u8; 16] {
        first(blake3::keyed_hash(&self.head, head).as_bytes())
    }

    /// Seals `buffer[from + 24..]` in place: `buffer[from..]` is then nonce, sealed bytes and authenticator.
    /// `place` says where they belong: anywhere else they do not open.
    pub(super) fn seal(&self, place: &[u8], buffer: &mut Vec<u8>, from: usize) -> io::Result<()> {
        let Some(cipher) = &self.cipher else {
            let tag = self.tag(place, &buffer[from + NONCE_LEN..]);
            buffer.extend_from_slice(&tag);
            return Ok(());
        };
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce)?;
        let (head, plain) = buffer[from..].split_at_mut(NONCE_LEN);
        head.copy_from_slice(&nonce);
        let tag = cipher
            .encrypt_inout_detached(&XNonce::from(nonce), place, plain.into())
            .map_err(|_| io::Error::other("more bytes than can be sealed at once"))?;
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// What stands behind bytes that are not sealed, so that damage is noticed.
    fn tag(&self, place: &[u8], text: &[u8]) -> [u8; TAG_LEN] {
        let mut hasher = blake3::Hasher::new_keyed(&self.head);
        first(hasher.update(place).update(text).finalize().as_bytes())
    }

    /// Opens what `seal` made, in place, and returns what was in it.
    pub(super) fn open<'a>(&self, place: &[u8], sealed: &'a mut [u8]) -> Result<&'a [u8], Forged> {
        let (nonce, rest) = sealed.split_at_mut_checked(NONCE_LEN).ok_or(Forged)?;
        let (text, tag) = rest.split_at_mut_checked(rest.len().wrapping_sub(TAG_LEN)).ok_or(Forged)?;
        let Some(cipher) = &self.cipher else {
            let whole = nonce.iter().all(|byte| *byte == 0) && self.tag(place, text) == *tag;
            return if whole { Ok(text) } else { Err(Forged) };
        };
        let nonce = XNonce::try_from(&*nonce).map_err(|_| Forged)?;
        let tag = Tag::try_from(&*tag).map_err(|_| Forged)?;
        cipher.decrypt_inout_detached(&nonce, place, (&mut *text).into(), &tag).map_err(|_| Forged)?;
        Ok(text)
    }
}

/// Room for a nonce, before what is to be sealed is appended.
pub(super) fn begin_seal(buffer: &mut Vec<u8>) -> usize {
    let from = buffer.len();
    buffer.resize(from + NONCE_LEN, 0);
    from
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(key: u8) -> RootKey {
        RootKey { secret: Some(Zeroizing::new([key; 32])), form: Form::Sealed }
    }

    fn keys(key: u8, salt: u8) -> PackKeys {
        root(key).pack(Form::Sealed, &[salt; 32]).unwrap()
    }

    fn sealed(keys: &PackKeys, place: &[u8], text: &[u8]) -> Vec<u8> {
        let mut buffer = b"before".to_vec();
        let from = begin_seal(&mut buffer);
        buffer.extend_from_slice(text);
        keys.seal(place, &mut buffer, from).unwrap();
        buffer.split_off(from)
    }

    #[test]
    fn sealed_bytes_open_only_whole_at_their_place_and_with_their_key() {
        let text = b"the quick brown fox";
        let good = sealed(&keys(1, 1), b"here", text);
        assert_eq!(good.len(), text.len() + SEAL_LEN);
        assert_eq!(keys(1, 1).open(b"here", &mut good.clone()).unwrap(), text);
        assert_eq!(keys(1, 1).open(b"there", &mut good.clone()), Err(Forged));
        assert_eq!(keys(2, 1).open(b"here", &mut good.clone()), Err(Forged));
        assert_eq!(keys(1, 2).open(b"here", &mut good.clone()), Err(Forged));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(keys(1, 1).open(b"here", &mut bad), Err(Forged), "bit of byte {at}");
            assert_eq!(keys(1, 1).open(b"here", &mut good[..at].to_vec()), Err(Forged), "cut at {at}");
        }
    }

    #[test]
    fn plain_bytes_are_as_they_were_and_every_change_is_noticed() {
        let keys = |salt: u8| RootKey::plain().pack(Form::Plain, &[salt; 32]).unwrap();
        let text = b"the quick brown fox";
        let good = sealed(&keys(1), b"here", text);
        assert_eq!(good.len(), text.len() + SEAL_LEN);
        assert_eq!(&good[NONCE_LEN..NONCE_LEN + text.len()], text);
        assert_eq!(keys(1).open(b"here", &mut good.clone()).unwrap(), text);
        assert_eq!(keys(1).open(b"there", &mut good.clone()), Err(Forged));
        assert_eq!(keys(2).open(b"here", &mut good.clone()), Err(Forged));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(keys(1).open(b"here", &mut bad), Err(Forged), "bit of byte {at}");
        }
        assert!(RootKey::plain().pack(Form::Sealed, &[1; 32]).is_none());
        assert!(RootKey::plain().keeping(Form::Sealed).is_none());
    }

    #[test]
    fn the_same_text_never_looks_the_same() {
        assert_ne!(sealed(&keys(1, 1), b"", b"text"), sealed(&keys(1, 1), b"", b"text"));
    }

    #[test]
    fn names_depend_on_the_key_and_the_purpose() {
        let names = |key: u8| root(key).names(Form::Sealed).unwrap();
        assert_eq!(names(1).chunk(b"x"), names(1).chunk(b"x"));
        assert_ne!(names(1).chunk(b"x"), names(2).chunk(b"x"));
        assert_ne!(names(1).chunk(b"x"), names(1).session("x"));
    }

    #[test]
    fn a_key_is_made_once_and_a_file_of_another_length_is_no_key() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys/archive.key");
        let id = || RootKey::load_or_create(&path).unwrap().id(Form::Sealed).unwrap();
        let first = id();
        assert_eq!(id(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 32);
        for len in [0, 31, 33, 34] {
            let bad = home.path().join(format!("bad{len}"));
            private::create(&bad, &vec![0; len]).unwrap();
            assert!(RootKey::load_or_create(&bad).is_err(), "{len} bytes");
        }
    }
}
