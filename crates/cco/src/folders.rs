//! Folders that are made for a file of ours outside of our own folder, and that go with it.

use std::path::{Path, PathBuf};

/// The folders that are not there and would be made for this one, the outermost first.
pub(crate) fn missing(folder: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
    missing.retain(|folder| !folder.as_os_str().is_empty());
    missing.reverse();
    missing
}

/// Removes them again; where something lies in one by now, it stays.
pub(crate) fn remove(made: &[PathBuf]) {
    for folder in made.iter().rev() {
        // Whatever keeps it is somebody else's.
        let _ = std::fs::remove_dir(folder);
    }
}
