//! Runs a check on every input of a committed corpus.

use std::path::Path;

/// Calls `check` with each file of `fuzz/corpus/<target>`; an empty corpus is a fault.
pub(crate) fn each(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "`{}` holds {} inputs", folder.display(), files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&bytes))).is_err() {
            panic!("the check of `{target}` fails for `{}`", file.display());
        }
    }
}
