//! From a reference in the configuration to the key behind it.

mod helper;
mod live;
mod store;
mod text;
mod token;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::catalog::CATALOG;
use crate::config::{CCO_PASSPHRASE, CredentialRef, Env, Note};
use crate::secret::Secret;
use crate::system::{self, Flaw, Refusal};
use helper::Helpers;

pub use live::{Keeper, LiveKey};
pub use store::{Backend, Credentials, Entry, KeyringError, Patience, Put, Stamps, StoreError};
pub use token::{admin_token, install_token};

/// The largest file that is taken for a key, and the longest key.
pub const MAX_KEY: u64 = 64 * 1024;
/// How long what a helper printed is good, where nothing else is said.
const HELPER_AGE: Duration = Duration::from_secs(300);

/// Why there is no key behind a reference. It names the reference and the remedy, never the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialError {
    /// The reference, as it prints.
    pub reference: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// Whether waiting can help.
    pub may_pass: bool,
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}; {}", self.reference, self.message, self.help)
    }
}

impl std::error::Error for CredentialError {}

/// Finds the key behind a reference, each time anew (a helper's only when it is old).
#[derive(Clone)]
pub struct Resolver {
    env: Env,
    /// `None`: there is no folder to keep it in.
    store: Option<Arc<Credentials>>,
    helpers: Arc<Helpers>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// With this environment and the store of its folder. Nobody is asked to unlock a keyring.
    pub fn new(env: Env) -> Self {
        let store = Credentials::of(&env, Patience::Never).ok().map(Arc::new);
        let helpers = Helpers::default();
        helpers.hide(CCO_PASSPHRASE.names.iter().copied());
        // Headers of providers may hold keys, and an address of a proxy a password.
        let ours = env.names();
        let ours = ours.iter().map(String::as_str);
        helpers.hide(ours.filter(|name| name.starts_with("CCO_PROVIDERS_") || name.starts_with("CCO_NETWORK_")));
        helpers.hide(CATALOG.iter().filter_map(|row| row.key_variable));
        Self { env, store, helpers: Arc::new(helpers) }
    }

    /// Keeps the variables that these references name from all helpers.
    pub fn hide_from_helpers<'a>(&self, references: impl IntoIterator<Item = &'a CredentialRef>) {
        self.helpers.hide(references.into_iter().filter_map(|reference| match reference {
            CredentialRef::Env(name) => Some(name.as_str()),
            _ => None,
        }));
    }

    /// The key. `None`: a variable that is not set, a name that is not stored. This reads files, may ask the keyring
    /// and may run a helper: not for a thread that serves.
    pub fn resolve(&self, reference: &CredentialRef) -> Result<Option<Secret>, CredentialError> {
        self.resolve_within(reference, HELPER_AGE, &|| false)
    }

    /// The same, where what a helper said is good for this long, and `stopped` ends one that runs.
    fn resolve_within(
        &self,
        reference: &CredentialRef,
        max_age: Duration,
        stopped: &dyn Fn() -> bool,
    ) -> Result<Option<Secret>, CredentialError> {
        let error = |message: &str, help: String| CredentialError {
            reference: reference.to_string(),
            message: message.into(),
            help,
            may_pass: false,
        };
        let stored = |store: &Credentials, name: &str| {
            store
                .get(name)
                .map_err(|why| CredentialError { may_pass: why.may_pass(), ..error(&why.to_string(), why.help()) })
        };
        match reference {
            CredentialRef::Env(name) => match self.env.named(name) {
                Some(value) => {
                    let value = value.into_string().map(Zeroizing::new).map_err(|value| {
                        drop(Zeroizing::new(value.into_encoded_bytes()));
                        error("the variable is not UTF-8", "set it anew".into())
                    })?;
                    key(value.as_bytes())
                        .map_err(|what| error(what, format!("set the variable `{name}` to the key alone")))
                }
                None => self.store.as_ref().map_or(Ok(None), |store| stored(store, name)),
            },
            CredentialRef::Stored(name) => match &self.store {
                Some(store) => stored(store, name),
                None => Err(error(&StoreError::NoHome.to_string(), StoreError::NoHome.help())),
            },
            CredentialRef::File(path) => {
                let bytes = system::read(path, MAX_KEY).map_err(|refusal| match refusal {
                    Refusal::Missing => error("the file does not exist", "create it with mode 0600".into()),
                    Refusal::Unsafe(flaw) => error(&format!("the file is not used: {flaw}"), repair(flaw, path)),
                    Refusal::Io(why) => {
                        error(&format!("the file cannot be read: {why}"), "check the path and its owner".into())
                    }
                })?;
                let content = key(&bytes).map_err(|what| error(what, "the file must hold the key alone".into()))?;
                content.map(Some).ok_or_else(|| error("the file is empty", "write the key into it".into()))
            }
            CredentialRef::Exec(command) => match self.helpers.key(command, max_age, stopped) {
                Ok(key) => Ok(Some(key)),
                Err(why) => Err(CredentialError {
                    may_pass: true,
                    ..error(
                        &format!("the helper gave no key: {why}"),
                        "run it by hand: it must print the key alone and end with status 0".into(),
                    )
                }),
            },
        }
    }
}

/// What to do about a file that holds a key and must not.
fn repair(flaw: Flaw, path: &Path) -> String {
    match (flaw, flaw.repair(path)) {
        (Flaw::Link, _) => "name the file itself".into(),
        (Flaw::Large(_), _) => "a key is a line of text: is this the right file?".into(),
        (_, Some(command)) => format!("run `{command}`"),
        (_, None) => "name a file".into(),
    }
}

/// The key in these bytes, without the blanks and line ends around it; `None` if there is nothing else.
pub fn key(bytes: &[u8]) -> Result<Option<Secret>, &'static str> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Ok(None);
    }
    // Anything else could not stand in a header, or could end it.
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(u8::is_ascii_graphic) => Ok(Some(Secret::new(text))),
        _ => Err("a key is one word of visible ASCII characters, and this is not"),
    }
}

/// The token whose bearer may spend stored keys: the configured one, else that of this installation.
pub fn server_token(
    configured: Option<&CredentialRef>,
    home: Option<&Path>,
    resolver: &Resolver,
) -> Result<(LiveKey, Option<Note>), CredentialError> {
    const OWNER: &str = "server.token";
    let Some(reference) = configured else {
        let (token, note) = install_token(home);
        return Ok((LiveKey::fixed(OWNER, token), note));
    };
    let token = LiveKey::new(OWNER, reference, HELPER_AGE, resolver);
    if token.is_known() {
        return Ok((token, None));
    }
    Err(token.error().unwrap_or_else(|| CredentialError {
        reference: reference.to_string(),
        message: "there is no token behind this reference of `server.token`".into(),
        help: "set it, or remove `server.token`".into(),
        may_pass: false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "sk-ant-api03-secret0123456789";

    fn resolve(reference: &str, env: &Env) -> Result<Option<Secret>, CredentialError> {
        Resolver::new(env.clone()).resolve(&reference.parse().unwrap())
    }

    #[track_caller]
    fn check_refused(reference: &str, env: &Env, why: &str, help: &str) {
        let error = resolve(reference, env).expect_err("refused");
        assert!(error.message.contains(why), "{error}");
        assert!(error.help.contains(help), "{error}");
        assert!(!format!("{error:?} {error}").contains("secret0123"), "the key shows: {error}");
    }

    #[test]
    fn a_variable_holds_the_key_with_or_without_a_line_end() {
        let env = Env::fixed([("A", KEY), ("B", "  sk-ant-api03-secret0123456789\r\n"), ("EMPTY", " \n")]);
        assert_eq!(resolve("env:A", &env), Ok(Some(Secret::new(KEY))));
        assert_eq!(resolve("env:B", &env), Ok(Some(Secret::new(KEY))));
        assert_eq!(resolve("env:EMPTY", &env), Ok(None));
        assert_eq!(resolve("env:UNSET", &env), Ok(None));
    }

    #[test]
    fn a_value_that_could_break_a_header_is_refused() {
        for bad in ["secret0123\r\nx-evil: 1", "secret0123 two", "secret0123ß", "secret0123\u{7f}"] {
            check_refused("env:A", &Env::fixed([("A", bad)]), "visible ASCII", "variable `A`");
        }
    }

    #[test]
    fn the_store_serves_names_and_variables_that_are_not_set() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::fixed([("SET", "from-env"), ("CCO_HOME", home.path().to_str().unwrap())]);
        let store = Credentials::of(&env, Patience::Never).unwrap();
        store.put("KEPT", &Secret::new(KEY), None).unwrap();
        store.put("SET", &Secret::new("from-store"), None).unwrap();
        let get = |reference: &str| resolve(reference, &env).unwrap().map(|s| s.expose().to_string());
        assert_eq!(get("credential:KEPT").as_deref(), Some(KEY));
        assert_eq!(get("env:KEPT").as_deref(), Some(KEY));
        assert_eq!(get("env:SET").as_deref(), Some("from-env"));
        assert_eq!(get("credential:SET").as_deref(), Some("from-store"));
        assert_eq!((get("env:OTHER"), get("credential:OTHER")), (None, None));
    }

    #[test]
    fn a_store_that_cannot_be_read_says_what_helps() {
        check_refused("credential:A", &Env::fixed([]), "neither `CCO_HOME` nor `HOME`", "set `CCO_HOME`");
        let home = tempfile::tempdir().unwrap();
        let env = Env::fixed([("CCO_HOME", home.path().to_str().unwrap())]);
        let store = Credentials::of(&env, Patience::Never).unwrap();
        store.put("A", &Secret::new(KEY), None).unwrap();
        std::fs::set_permissions(store.path(), PermissionsExt::from_mode(0o644)).unwrap();
        for reference in ["credential:A", "env:A"] {
            check_refused(reference, &env, "others may access it (mode 0644)", "chmod 600");
        }
    }

    #[test]
    fn a_helper_prints_the_key() {
        let env = Env::fixed([]);
        assert_eq!(resolve(&format!("exec:echo {KEY}"), &env), Ok(Some(Secret::new(KEY))));
        check_refused("exec:false secret0123", &env, "exit status: 1", "run it by hand");
    }

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }

        fn file(&self, name: &str, content: &[u8], mode: u32) -> String {
            let path = self.path(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            format!("file:{path}")
        }
    }

    #[test]
    fn a_private_file_holds_the_key() {
        let (files, env) = (Files::new(), Env::fixed([]));
        for (name, mode) in [("a", 0o600), ("b", 0o400)] {
            let reference = files.file(name, format!("{KEY}\n").as_bytes(), mode);
            assert_eq!(resolve(&reference, &env), Ok(Some(Secret::new(KEY))));
        }
    }

    #[test]
    fn a_file_that_is_not_ours_alone_is_refused() {
        let (files, env) = (Files::new(), Env::fixed([]));
        let key = KEY.as_bytes();
        for mode in [0o640, 0o604, 0o660, 0o611] {
            check_refused(&files.file("open", key, mode), &env, "others may access it", "chmod 600");
        }
        let target = files.file("target", key, 0o600);
        std::os::unix::fs::symlink(files.path("target"), files.path("link")).unwrap();
        check_refused(&format!("file:{}", files.path("link")), &env, "symbolic link", "the file itself");
        std::fs::hard_link(files.path("target"), files.path("twin")).unwrap();
        check_refused(&target, &env, "hard link", "cp ");
        check_refused(&format!("file:{}", files.path("")), &env, "not a plain file", "name a file");
        check_refused(&format!("file:{}", files.path("none")), &env, "does not exist", "0600");
    }

    #[test]
    fn a_file_without_one_key_is_refused() {
        let (files, env) = (Files::new(), Env::fixed([]));
        check_refused(&files.file("empty", b"", 0o600), &env, "empty", "write the key");
        check_refused(&files.file("blank", b" \n", 0o600), &env, "empty", "write the key");
        check_refused(&files.file("two", b"secret0123\nsecret0123\n", 0o600), &env, "visible ASCII", "the key alone");
        check_refused(
            &files.file("large", &vec![b'a'; MAX_KEY as usize + 1], 0o600),
            &env,
            "larger than 64 KiB",
            "right file",
        );
        assert!(resolve(&files.file("full", &vec![b'a'; MAX_KEY as usize], 0o600), &env).is_ok());
    }

    #[test]
    fn a_pipe_does_not_hang_the_start() {
        let files = Files::new();
        let path = files.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        check_refused(&format!("file:{path}"), &Env::fixed([]), "not a plain file", "name a file");
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        // Only root can make one: for everybody else the kernel's own files are foreign, and open to all.
        let (files, env) = (Files::new(), Env::fixed([]));
        let reference = files.file("foreign", KEY.as_bytes(), 0o600);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(files.path("foreign"), Some(12345), None).unwrap();
            check_refused(&reference, &env, "another user (uid 12345)", "chown");
        } else {
            check_refused("file:/proc/1/cmdline", &env, "another user (uid 0)", "chown");
        }
    }

    #[test]
    fn a_configured_token_must_be_there() {
        let resolver = Resolver::new(Env::fixed([("TOKEN", "secret-token")]));
        let token = |text: &str| server_token(Some(&text.parse().unwrap()), None, &resolver);
        let value = |token: LiveKey| token.get().unwrap().expose().to_owned();
        assert_eq!(value(token("env:TOKEN").unwrap().0), "secret-token");
        assert!(token("env:UNSET").unwrap_err().to_string().contains("`env:UNSET`"));
        let folder = tempfile::tempdir().unwrap();
        let (made, note) = server_token(None, Some(folder.path()), &resolver).unwrap();
        assert!(value(made).starts_with("cco-") && note.is_none());
    }
}
