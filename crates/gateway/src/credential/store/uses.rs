//! When each credential was last given out: a file of its own, because it changes more often than the store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::form::MOST;
use crate::system;

/// Seconds since 1970, by name.
pub(super) type Uses = BTreeMap<String, u64>;

/// What is known. A file that cannot be read is as good as none: nothing depends on it.
pub(super) fn read(path: &Path) -> Uses {
    let Ok(bytes) = system::read(path, 1 << 20) else { return Uses::new() };
    let text = String::from_utf8_lossy(&bytes);
    let entries = text.lines().filter_map(|line| {
        let (name, at) = line.split_once(' ')?;
        Some((name.to_owned(), at.parse().ok()?))
    });
    entries.take(MOST).collect()
}

/// Adds these uses. Where another process is at it, nothing is done: `false`.
pub(super) fn add(path: &Path, lock: &Path, names: &[String], at: u64) -> io::Result<bool> {
    let Some(_lock) = system::try_lock(lock)? else { return Ok(false) };
    let mut uses = read(path);
    for name in names {
        if uses.len() < MOST || uses.contains_key(name) {
            let last = uses.entry(name.clone()).or_default();
            *last = at.max(*last);
        }
    }
    write(path, &uses).map(|()| true)
}

/// Forgets one.
pub(super) fn forget(path: &Path, name: &str) -> io::Result<()> {
    let mut uses = read(path);
    if uses.remove(name).is_some() { write(path, &uses) } else { Ok(()) }
}

fn write(path: &Path, uses: &Uses) -> io::Result<()> {
    let mut text = String::new();
    for (name, at) in uses {
        writeln!(text, "{name} {at}").expect("a string takes everything");
    }
    system::replace(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_use_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (path, lock) = (folder.path().join("used"), folder.path().join("lock"));
        assert_eq!(read(&path), Uses::new());
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        assert!(add(&path, &lock, &names(&["a", "b"]), 100).unwrap());
        assert!(add(&path, &lock, &names(&["b"]), 50).unwrap());
        assert!(add(&path, &lock, &names(&["b"]), 200).unwrap());
        assert_eq!(read(&path), Uses::from([("a".into(), 100), ("b".into(), 200)]));
        let held = system::lock(&lock).unwrap();
        assert!(!add(&path, &lock, &names(&["c"]), 1).unwrap());
        drop(held);
        forget(&path, "b").unwrap();
        assert_eq!(read(&path), Uses::from([("a".into(), 100)]));
        system::replace(&path, b"nonsense\na x\nc 7\n\xff 1\n").unwrap();
        assert_eq!(read(&path)["c"], 7);
    }
}
