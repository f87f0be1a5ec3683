//! A log in files: when one is full, a new one is begun, and the oldest goes.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gateway::system;

/// The file that is written, and how many there may be. Two processes may write to it: one takes over from the other.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    max_bytes: u64,
    keep: u32,
    file: Option<File>,
}

impl Rotating {
    pub(super) fn new(path: &Path, max_bytes: u64, keep: u32) -> Self {
        Self { path: path.into(), max_bytes, keep, file: None }
    }

    /// The file for these bytes.
    fn file(&mut self, more: u64) -> io::Result<&mut File> {
        if let Some(file) = &self.file
            && !system::is_at(file, &self.path)
        {
            // Another process has begun a new one.
            self.file = None;
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => system::append(&self.path)?,
        };
        let is_full =
            |file: &File| file.metadata().is_ok_and(|about| about.len() > 0 && about.len() + more > self.max_bytes);
        if is_full(&file) {
            let _one_at_a_time = system::lock(&self.path.with_added_extension("lock"))?;
            // It may have been done while we waited.
            if system::is_at(&file, &self.path) {
                self.shift()?;
            }
            file = system::append(&self.path)?;
        }
        Ok(self.file.insert(file))
    }

    /// Gives every file the name of the one before it.
    fn shift(&self) -> io::Result<()> {
        let name = |n: u32| match n {
            0 => self.path.clone(),
            n => self.path.with_added_extension(n.to_string()),
        };
        let _ = std::fs::remove_file(name(self.keep.saturating_sub(1)));
        for n in (1..self.keep).rev() {
            match std::fs::rename(name(n - 1), name(n)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file(bytes.len() as u64)?.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
            .filter(|(name, _)| !name.ends_with(".lock"))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_full_file_gives_way_to_a_new_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cco.log");
        let mut log = Rotating::new(&path, 10, 3);
        for line in ["one....\n", "two....\n", "three..\n", "four...\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        let want = [("cco.log", "four...\n"), ("cco.log.1", "three..\n"), ("cco.log.2", "two....\n")];
        assert_eq!(files(folder.path()), want.map(|(name, text)| (name.to_owned(), text.to_owned())));
        Rotating::new(&path, 10, 1).write_all(b"five...\n").unwrap();
        assert_eq!(files(folder.path())[0], ("cco.log".into(), "five...\n".into()));
    }

    #[test]
    fn two_that_write_to_one_log_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cco.log");
        let (mut a, mut b) = (Rotating::new(&path, 20, 100), Rotating::new(&path, 20, 100));
        for n in 0..20 {
            a.write_all(format!("a {n:02}\n").as_bytes()).unwrap();
            b.write_all(format!("b {n:02}\n").as_bytes()).unwrap();
        }
        let all: String = files(folder.path()).into_iter().map(|(_, text)| text).collect();
        assert_eq!(all.lines().count(), 40);
        assert!(files(folder.path()).iter().all(|(_, text)| text.len() <= 20));
    }
}
