//! The store as a whole: every place that it can be in, and everything that can happen to its files.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use super::*;
use crate::system::Flaw;

const KEY: &str = "sk-ant-api03-secret0123456789";
const OTHER: &str = "sk-ant-api03-another012345678";

/// A keyring in memory.
#[derive(Debug, Default)]
pub(in crate::credential) struct Fake {
    items: Mutex<BTreeMap<(String, String), Secret>>,
    fault: Mutex<Option<KeyringError>>,
    /// Says that it kept what it forgot.
    forgets: bool,
}

impl Fake {
    fn check(&self) -> Result<(), KeyringError> {
        self.fault.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub(in crate::credential) fn fail(&self, fault: Option<KeyringError>) {
        *self.fault.lock().unwrap() = fault;
    }

    fn values(&self) -> Vec<String> {
        self.items.lock().unwrap().values().map(|value| value.expose().to_owned()).collect()
    }
}

fn key_of(item: &Item<'_>) -> (String, String) {
    (item.store.to_owned(), item.name.to_owned())
}

impl Keyring for Fake {
    fn get(&self, item: &Item<'_>, _: Patience) -> Result<Option<Secret>, KeyringError> {
        self.check()?;
        Ok(self.items.lock().unwrap().get(&key_of(item)).cloned())
    }

    fn set(&self, item: &Item<'_>, value: &Secret, _: Patience) -> Result<(), KeyringError> {
        self.check()?;
        if !self.forgets {
            self.items.lock().unwrap().insert(key_of(item), value.clone());
        }
        Ok(())
    }

    fn delete(&self, item: &Item<'_>, _: Patience) -> Result<bool, KeyringError> {
        self.check()?;
        Ok(self.items.lock().unwrap().remove(&key_of(item)).is_some())
    }

    fn answers(&self, _: Patience) -> Result<(), KeyringError> {
        self.check()
    }
}

impl Credentials {
    /// A store with such a keyring.
    pub(in crate::credential) fn with_fake(env: &Env) -> (Self, Arc<Fake>) {
        let keyring = Arc::new(Fake::default());
        let store = Self::of(env, Patience::Never).unwrap();
        (Self { keyring: keyring.clone(), ..store }, keyring)
    }
}

/// A folder with a store in it.
struct Home {
    folder: tempfile::TempDir,
    keyring: Arc<Fake>,
    variables: Vec<(&'static str, String)>,
}

impl Home {
    /// Without a keyring.
    fn new() -> Self {
        let home = Self::with_keyring(Fake::default());
        home.keyring.fail(Some(KeyringError::Absent("there is no session bus".into())));
        home
    }

    fn with_keyring(keyring: Fake) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), keyring: Arc::new(keyring), variables: Vec::new() }
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.variables.retain(|(there, _)| *there != name);
        self.variables.push((name, value.into()));
    }

    /// A store as another process would open it.
    fn open(&self) -> Credentials {
        let mut env = Env::fixed([("CCO_HOME", self.folder.path().join("home").to_str().unwrap())]);
        for (name, value) in &self.variables {
            let variable = crate::config::VARIABLES.iter().find(|variable| variable.names.contains(name)).unwrap();
            env = env.with(variable, Secret::new(value));
        }
        let mut store = Credentials::of(&env, Patience::Never).unwrap();
        store.keyring = self.keyring.clone();
        store.new_kdf = Kdf::quick;
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("home").join(name)
    }

    fn get(&self, name: &str) -> Option<String> {
        self.open().get(name).unwrap().map(|value| value.expose().to_owned())
    }

    fn put(&self, name: &str, value: &str) -> Put {
        self.open().put(name, &Secret::new(value), None).unwrap()
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path().join("home")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Checks that no file of ours holds a value as it is.
    fn check_hidden(&self) {
        for name in self.files() {
            let bytes = std::fs::read(self.path(&name)).unwrap();
            assert!(memchr::memmem::find(&bytes, b"secret0123").is_none(), "`{name}` shows the value");
        }
    }

    #[track_caller]
    fn check_fails(&self, what: &str, help: &str) -> StoreError {
        let error = self.open().get("A").expect_err("it is read");
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.help().contains(help), "{}", error.help());
        assert!(!format!("{error:?} {error} {}", error.help()).contains("secret0123"));
        // Nothing is written over what could not be read.
        let before = std::fs::read(self.path("credentials")).ok();
        assert!(self.open().put("B", &Secret::new(OTHER), None).is_err());
        assert_eq!(std::fs::read(self.path("credentials")).ok(), before);
        error
    }
}

/// What every place must be able to do.
#[track_caller]
fn check_round_trip(home: &Home, wish: Option<Backend>, want: Backend) {
    assert_eq!(home.open().get("A").unwrap(), None);
    assert_eq!(home.open().list().unwrap(), []);
    assert!(!home.open().delete("A").unwrap());
    let put = home.open().put("A", &Secret::new(KEY), wish).unwrap();
    assert_eq!((put.backend, put.replaced), (want, false));
    assert!(put.chosen.is_some(), "the first one says why it went there");
    assert_eq!(home.get("A").as_deref(), Some(KEY));
    let put = home.put("A", OTHER);
    assert_eq!((put.backend, put.replaced, put.chosen), (want, true, None));
    home.put("b.c-D_9", "short");
    assert_eq!(home.get("A").as_deref(), Some(OTHER));
    assert_eq!(home.get("b.c-D_9").as_deref(), Some("short"));
    assert_eq!(home.open().backend().unwrap(), Some(want));
    let list = home.open().list().unwrap();
    let shown: Vec<_> = list.iter().map(|entry| (entry.name.as_str(), entry.last4.as_deref(), entry.backend)).collect();
    assert_eq!(shown, [("A", Some("5678"), want), ("b.c-D_9", None, want)]);
    assert!(list.iter().all(|entry| now() - entry.stored < 60 && entry.used.is_none()));
    assert!(home.open().used(&["A".into()]).unwrap());
    assert!(now() - home.open().list().unwrap()[0].used.unwrap() < 60);
    assert!(home.open().delete("A").unwrap());
    assert_eq!((home.get("A"), home.get("b.c-D_9").as_deref()), (None, Some("short")));
    home.put("A", KEY);
    assert_eq!(home.open().list().unwrap()[0].used, None, "a name that comes again has no past");
    home.check_hidden();
    for name in home.files() {
        assert_eq!(std::fs::metadata(home.path(&name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(home.path("")).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn without_a_keyring_values_go_into_an_encrypted_file() {
    let home = Home::new();
    check_round_trip(&home, None, Backend::File);
    let want = ["credentials", "credentials.key", "credentials.lock", "credentials.seen", "credentials.used"];
    assert_eq!(home.files(), want);
}

#[test]
fn with_a_keyring_values_go_there_and_nowhere_else() {
    let home = Home::with_keyring(Fake::default());
    check_round_trip(&home, None, Backend::Keyring);
    assert_eq!(home.keyring.values(), [KEY, "short"]);
    assert!(!home.files().contains(&"credentials.key".to_string()));
}

#[test]
fn a_passphrase_opens_its_store() {
    let mut home = Home::new();
    home.set("CCO_PASSPHRASE", "correct horse");
    check_round_trip(&home, Some(Backend::Passphrase), Backend::Passphrase);
    assert!(!home.files().contains(&"credentials.key".to_string()));
    home.set("CCO_PASSPHRASE", "wrong");
    assert!(matches!(home.check_fails("the passphrase is wrong", "`CCO_PASSPHRASE`"), StoreError::WrongPassphrase));
    home.variables.clear();
    assert!(matches!(home.check_fails("locked with a passphrase", "terminal"), StoreError::NeedsPassphrase));
    assert_eq!(home.open().backend().unwrap(), Some(Backend::Passphrase), "which can be told without it");
}

#[test]
fn a_service_gets_its_key_from_the_systems_manager() {
    let mut home = Home::new();
    let given = home.folder.path().join("given");
    std::fs::create_dir(&given).unwrap();
    system::replace(&given.join("cco-credentials-key"), b"0123456789abcdef0123456789abcdef\n").unwrap();
    home.set("CREDENTIALS_DIRECTORY", given.to_str().unwrap());
    check_round_trip(&home, None, Backend::Systemd);
    system::replace(&given.join("cco-credentials-key"), b"another 0123456789abcdef0123456789").unwrap();
    assert!(matches!(home.check_fails("does not fit", "the credential"), StoreError::WrongKey(Backend::Systemd)));
    std::fs::remove_file(given.join("cco-credentials-key")).unwrap();
    home.check_fails("cco-credentials-key", "put that file back");
    home.variables.clear();
    home.check_fails("CREDENTIALS_DIRECTORY", "LoadCredentialEncrypted");
}

#[test]
fn a_keyring_that_answers_but_does_not_open_is_no_reason_for_a_file() {
    for fault in [KeyringError::Locked, KeyringError::Failed("it is broken".into())] {
        let home = Home::with_keyring(Fake::default());
        home.keyring.fail(Some(fault));
        let error = home.open().put("A", &Secret::new(KEY), None).unwrap_err();
        assert!(error.help().contains("--backend file"), "{error}: {}", error.help());
        assert!(!home.files().contains(&"credentials".to_string()));
        let put = home.open().put("A", &Secret::new(KEY), Some(Backend::File)).unwrap();
        assert_eq!((put.backend, home.get("A").as_deref()), (Backend::File, Some(KEY)));
    }
}

#[test]
fn what_was_chosen_stays_whatever_answers_later() {
    let home = Home::new();
    home.put("A", KEY);
    home.keyring.fail(None);
    assert_eq!(home.put("B", OTHER).backend, Backend::File);
    assert_eq!(home.keyring.values(), Vec::<String>::new());

    let home = Home::with_keyring(Fake::default());
    home.put("A", KEY);
    for fault in [KeyringError::Absent("there is no session bus".into()), KeyringError::Locked] {
        home.keyring.fail(Some(fault.clone()));
        let error = home.open().get("A").unwrap_err();
        assert!(matches!(&error, StoreError::Keyring(why) if *why == fault), "{error:?}");
        assert!(error.may_pass());
        assert!(home.open().put("B", &Secret::new(OTHER), None).is_err());
        assert_eq!(home.open().list().unwrap().len(), 1, "names can be told without it");
    }
}

#[test]
fn only_an_empty_store_moves() {
    let home = Home::with_keyring(Fake::default());
    home.put("A", KEY);
    let file = || home.open().put("A", &Secret::new(OTHER), Some(Backend::File));
    assert!(matches!(file(), Err(StoreError::Chosen(Backend::Keyring))));
    assert!(home.open().put("A", &Secret::new(KEY), Some(Backend::Keyring)).is_ok());
    assert!(home.open().delete("A").unwrap());
    assert_eq!(file().unwrap().backend, Backend::File);
    assert_eq!((home.get("A").as_deref(), home.keyring.values()), (Some(OTHER), Vec::new()));
}

#[test]
fn a_value_that_is_not_kept_is_an_error() {
    let home = Home::with_keyring(Fake { forgets: true, ..Fake::default() });
    let error = home.open().put("A", &Secret::new(KEY), None).unwrap_err();
    assert!(matches!(error, StoreError::NotKept(_)), "{error:?}");
    assert!(!home.path("credentials").exists());
}

#[test]
fn an_item_that_is_gone_from_the_keyring_is_an_error_and_can_be_forgotten() {
    let home = Home::with_keyring(Fake::default());
    home.put("A", KEY);
    home.keyring.items.lock().unwrap().clear();
    let error = home.open().get("A").unwrap_err();
    assert!(matches!(error, StoreError::Lost(_)) && error.help().contains("cco credentials store A"), "{error:?}");
    assert!(home.open().delete("A").unwrap());
    assert_eq!(home.get("A"), None);
}

#[test]
fn two_folders_share_one_keyring_without_meeting() {
    let first = Home::with_keyring(Fake::default());
    let second = Home { keyring: first.keyring.clone(), ..Home::new() };
    second.keyring.fail(None);
    first.put("A", KEY);
    second.put("A", OTHER);
    assert_eq!((first.get("A").as_deref(), second.get("A").as_deref()), (Some(KEY), Some(OTHER)));
}

#[test]
fn names_and_values_that_cannot_be_kept_are_refused() {
    let home = Home::new();
    let put = |name: &str, value: &str| home.open().put(name, &Secret::new(value), None).unwrap_err();
    let long = "n".repeat(129);
    for name in ["", "a b", "a\nb", "../a", "é", &long] {
        assert!(matches!(put(name, KEY), StoreError::BadName(_)), "{name:?}");
    }
    let long = "v".repeat(64 * 1024 + 1);
    for value in ["", " ", " x", "two words", "x\n", "secret0123ß", &long] {
        assert!(matches!(put("A", value), StoreError::BadValue), "{value:?}");
    }
    assert!(!home.path("").exists(), "nothing was made for them");
}

#[test]
fn a_file_that_others_could_have_read_or_written_is_refused_with_the_command_that_helps() {
    let home = Home::new();
    home.put("A", KEY);
    for name in ["credentials", "credentials.key", "credentials.seen"] {
        let path = home.path(name);
        let run = |command: &str| {
            let done = std::process::Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(done.success(), "{command}");
        };
        let repaired = |error: StoreError| {
            let help = error.help();
            run(help.strip_prefix("run `").and_then(|rest| rest.strip_suffix('`')).expect(&help));
            assert_eq!(home.get("A").as_deref(), Some(KEY), "{name} after {help}");
        };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        repaired(home.check_fails("others may access it (mode 0644)", "chmod 600"));
        let aside = home.path("aside");
        std::fs::rename(&path, &aside).unwrap();
        symlink(&aside, &path).unwrap();
        repaired(home.check_fails("symbolic link", "mv "));
        assert!(!aside.exists());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            let error = home.check_fails("another user (uid 12345)", "sudo chown");
            assert!(matches!(error, StoreError::Unsafe(_, Flaw::Foreign(12345))));
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        }
    }
    std::fs::set_permissions(home.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    let error = home.open().put("B", &Secret::new(OTHER), None).unwrap_err();
    assert!(error.help().contains("chmod 700"), "{}", error.help());
    let store = home.open();
    let open = store.stamps();
    home.check_fails("others may write to it (mode 0777)", "chmod 700");
    assert!(store.list().is_err() && store.delete("A").is_err() && store.backend().is_err());
    std::fs::set_permissions(home.path(""), PermissionsExt::from_mode(0o700)).unwrap();
    assert_ne!(store.stamps(), open, "whoever waits for it notices that it is safe again");
    assert_eq!(home.get("A").as_deref(), Some(KEY));
}

#[test]
fn a_file_that_ends_too_early_says_so() {
    let home = Home::new();
    home.put("A", KEY);
    let whole = std::fs::read(home.path("credentials")).unwrap();
    for length in [0, 5, 40, whole.len() / 2, whole.len() - 1] {
        system::replace(&home.path("credentials"), &whole[..length]).unwrap();
        assert!(matches!(home.check_fails("ends too early", "the last copy"), StoreError::Truncated), "{length}");
    }
    system::replace(&home.path("credentials"), &whole).unwrap();
    assert_eq!(home.get("A").as_deref(), Some(KEY));
}

#[test]
fn a_file_that_was_tampered_with_is_not_read() {
    for home in [Home::new(), Home::with_keyring(Fake::default())] {
        home.put("A", KEY);
        let whole = std::fs::read(home.path("credentials")).unwrap();
        for at in (0..whole.len()).step_by(3).chain(whole.len() - 20..whole.len()) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            system::replace(&home.path("credentials"), &bad).unwrap();
            assert!(home.open().get("A").is_err(), "byte {at} of {}", String::from_utf8_lossy(&whole));
        }
        let mut bad = whole.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        system::replace(&home.path("credentials"), &bad).unwrap();
        assert!(matches!(home.check_fails("damaged", "the last copy"), StoreError::Damaged(_)));
    }
}

#[test]
fn an_older_copy_is_noticed() {
    let home = Home::new();
    home.put("A", OTHER);
    let (old, old_seen) =
        (std::fs::read(home.path("credentials")).unwrap(), std::fs::read(home.path("credentials.seen")).unwrap());
    home.put("A", KEY);
    system::replace(&home.path("credentials"), &old).unwrap();
    let error = home.check_fails("its state is 1, and the last one was 2", "credentials.seen");
    assert!(matches!(error, StoreError::RolledBack { found: 1, last: 2 }));
    // Two copies that went different ways have the same number.
    system::replace(&home.path("credentials.seen"), &old_seen).unwrap();
    assert_eq!(home.get("A").as_deref(), Some(OTHER));
    let seen_of_other = home.path("credentials.seen");
    home.put("B", "one-way-0123");
    let one_way = std::fs::read(&seen_of_other).unwrap();
    system::replace(&home.path("credentials"), &old).unwrap();
    system::replace(&seen_of_other, &old_seen).unwrap();
    home.put("C", "the-other-0123");
    system::replace(&seen_of_other, &one_way).unwrap();
    home.check_fails("not the one that was written last", "credentials.seen");
    // Whoever wants this one says so.
    std::fs::remove_file(&seen_of_other).unwrap();
    assert_eq!(home.get("C").as_deref(), Some("the-other-0123"));
}

#[test]
fn a_file_that_is_gone_is_not_taken_for_an_empty_store() {
    let home = Home::new();
    home.put("A", KEY);
    std::fs::remove_file(home.path("credentials")).unwrap();
    assert!(matches!(home.check_fails("is gone", "credentials.seen"), StoreError::Gone));
    std::fs::remove_file(home.path("credentials.seen")).unwrap();
    assert_eq!(home.get("A"), None);
}

#[test]
fn a_crash_between_the_two_files_loses_nothing() {
    let home = Home::new();
    home.put("A", OTHER);
    let seen = std::fs::read(home.path("credentials.seen")).unwrap();
    home.put("A", KEY);
    system::replace(&home.path("credentials.seen"), &seen).unwrap();
    assert_eq!(home.get("A").as_deref(), Some(KEY));
    home.put("B", OTHER);
    assert_eq!(home.get("A").as_deref(), Some(KEY));
}

#[test]
fn without_its_key_the_store_says_what_is_missing() {
    let home = Home::new();
    home.put("A", KEY);
    let key = std::fs::read(home.path("credentials.key")).unwrap();
    std::fs::remove_file(home.path("credentials.key")).unwrap();
    assert!(matches!(home.check_fails("credentials.key", "put that file back"), StoreError::NoKey(_)));
    assert!(!home.path("credentials.key").exists(), "no new key is made over values of the old one");
    system::replace(&home.path("credentials.key"), b"another key of at least 32 bytes").unwrap();
    assert!(matches!(home.check_fails("does not fit", "credentials.key"), StoreError::WrongKey(Backend::File)));
    system::replace(&home.path("credentials.key"), &key).unwrap();
    assert_eq!(home.get("A").as_deref(), Some(KEY));
}

#[test]
fn writers_at_once_lose_nothing() {
    for home in [Home::new(), Home::with_keyring(Fake::default())] {
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (home, barrier) = (&home, &barrier);
                scope.spawn(move || {
                    let store = home.open();
                    barrier.wait();
                    for n in 0..5 {
                        let name = format!("KEY-{writer}-{n}");
                        store.put(&name, &Secret::new(format!("value-{writer}-{n}")), None).unwrap();
                        if n == 2 {
                            assert!(store.delete(&format!("KEY-{writer}-0")).unwrap());
                        }
                        // Readers wait for nobody, and never see a half or an older state.
                        assert!(store.get(&name).unwrap().is_some());
                    }
                });
            }
        });
        let names: Vec<String> = home.open().list().unwrap().into_iter().map(|entry| entry.name).collect();
        let want: Vec<String> = (0..4).flat_map(|writer| (1..5).map(move |n| format!("KEY-{writer}-{n}"))).collect();
        assert_eq!(names, want);
        for name in want {
            assert_eq!(home.get(&name), Some(name.replace("KEY", "value")));
        }
    }
}

#[test]
fn each_state_has_a_stamp_of_its_own() {
    let home = Home::new();
    let store = home.open();
    let mut stamps = vec![store.stamps()];
    home.put("A", KEY);
    stamps.push(store.stamps());
    home.put("A", OTHER);
    stamps.push(store.stamps());
    home.put("A", OTHER);
    stamps.push(store.stamps());
    for (at, stamp) in stamps.iter().enumerate() {
        assert!(!stamps[..at].contains(stamp), "{at}");
    }
    assert_eq!(store.stamps(), stamps[3]);
    assert!(store.used(&["A".into()]).unwrap());
    assert_eq!(store.stamps(), stamps[3], "a use is no change");
}
