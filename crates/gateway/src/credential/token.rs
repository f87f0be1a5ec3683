//! The tokens of this installation: who can read them is a user of this machine's account. One lets spend the stored
//! keys, the other see and change everything.

use std::path::Path;

use super::text::{base64url, random};
use crate::config::{Note, NoteLevel};
use crate::secret::Secret;
use crate::system::{self, Refusal};

/// What our tokens begin with, so that a scanner for leaked secrets can know them.
const PREFIX: &str = "cco-";
const RANDOM_BYTES: usize = 32;
/// 32 bytes in base64 without padding.
const LENGTH: usize = PREFIX.len() + 43;

/// The token in the file `token` of our folder, made at the first call. Where the folder cannot be used, a token that
/// lives as long as the process, and a note that says so.
pub fn install_token(home: Option<&Path>) -> (Secret, Option<Note>) {
    kept(home, "token")
}

/// The same for the file `admin-token`.
pub fn admin_token(home: Option<&Path>) -> (Secret, Option<Note>) {
    kept(home, "admin-token")
}

fn kept(home: Option<&Path>, name: &str) -> (Secret, Option<Note>) {
    let Some(home) = home else {
        return unsaved("neither `CCO_HOME` nor `HOME` is set".into());
    };
    let path = home.join(name);
    let shown = path.display();
    if let Err(refusal) = system::folder(home) {
        return unsaved(format!("the folder `{}` cannot be used: {}", home.display(), reason(home, refusal)));
    }
    // Once to read, and once more after making it: it may have been made by another process in between.
    match stored(&path) {
        Err(Refusal::Missing) => {}
        Ok(Some(token)) => return (token, None),
        Ok(None) => return unsaved(format!("`{shown}` holds no token of cco; delete it, and a new one is made")),
        Err(refusal) => return unsaved(format!("`{shown}` is not used: {}", reason(&path, refusal))),
    }
    let token = fresh();
    let content = zeroize::Zeroizing::new(format!("{}\n", token.expose()));
    if let Err(error) = system::create(&path, content.as_bytes()) {
        return unsaved(format!("`{shown}` cannot be written: {error}"));
    }
    match stored(&path) {
        Ok(Some(token)) => (token, None),
        Ok(None) => unsaved(format!("`{shown}` was replaced while it was made")),
        Err(refusal) => unsaved(format!("`{shown}` cannot be read back: {}", reason(&path, refusal))),
    }
}

/// `None`: the file holds something else.
fn stored(path: &Path) -> Result<Option<Secret>, Refusal> {
    let bytes = system::read(path, 1024)?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim_end();
    let fine = text.len() == LENGTH
        && text.starts_with(PREFIX)
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    Ok(fine.then(|| Secret::new(text)))
}

fn reason(path: &Path, refusal: Refusal) -> String {
    match refusal {
        Refusal::Missing => "it is not there".into(),
        Refusal::Unsafe(flaw) => match flaw.repair(path) {
            Some(command) => format!("{flaw}; run `{command}`"),
            None => flaw.to_string(),
        },
        Refusal::Io(error) => error.to_string(),
    }
}

fn unsaved(why: String) -> (Secret, Option<Note>) {
    let message = format!("the token of this installation lasts only until the end of the program, because {why}");
    (fresh(), Some(Note::new(NoteLevel::Warn, message)))
}

fn fresh() -> Secret {
    let bytes = zeroize::Zeroizing::new(random::<RANDOM_BYTES>());
    Secret::new(format!("{PREFIX}{}", *base64url(bytes.as_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn the_first_start_makes_a_token_and_later_ones_find_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("new/.cco");
        let (first, note) = install_token(Some(&home));
        assert_eq!(note, None);
        assert!(first.expose().starts_with("cco-") && first.expose().len() == LENGTH);
        assert_eq!(std::fs::metadata(&home).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(home.join("token")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(install_token(Some(&home)), (first, None));
        let left: Vec<_> = std::fs::read_dir(&home).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["token"], "nothing else is left behind");
    }

    #[test]
    fn two_installations_have_two_tokens() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(install_token(Some(a.path())).0, install_token(Some(b.path())).0);
    }

    #[test]
    fn processes_that_start_at_once_agree_on_one_token() {
        let folder = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(8);
        let tokens: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                install_token(Some(folder.path()))
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(tokens.iter().all(|(token, note)| *token == tokens[0].0 && note.is_none()), "{tokens:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[track_caller]
    fn check_unsaved(home: Option<&Path>, why: &str) {
        let (token, note) = install_token(home);
        let note = note.expect("a note says that the token is not kept");
        assert!(note.message.contains(why), "{note}");
        assert!(!note.message.contains(token.expose()));
        assert_eq!(token.expose().len(), LENGTH);
    }

    #[test]
    fn without_a_usable_folder_the_token_lives_in_memory() {
        check_unsaved(None, "neither `CCO_HOME` nor `HOME`");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        check_unsaved(Some(&file), "cannot be used");
        let open = folder.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        check_unsaved(Some(&open), "others may write to it (mode 0777)");
    }

    #[test]
    fn a_token_file_that_others_could_read_or_forge_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (token, _) = install_token(Some(folder.path()));
        let path = folder.path().join("token");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        check_unsaved(Some(folder.path()), "others may access it (mode 0644)");
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        std::fs::set_permissions(&aside, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&aside, &path).unwrap();
        check_unsaved(Some(folder.path()), "symbolic link");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        check_unsaved(Some(folder.path()), "holds no token");
        assert_eq!(std::fs::read_to_string(&aside).unwrap().trim(), token.expose(), "nothing was overwritten");
    }
}
