//! A file that takes up room so that room can be made: on a full disk not even deleting works without some.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::private;

/// Less than this is no help.
const LEAST: u64 = 64 * 1024;
/// How it is called.
const NAME: &str = "ballast";

/// The room that is kept in reserve.
#[derive(Debug, Clone)]
pub struct Ballast {
    path: PathBuf,
    size: u64,
}

impl Ballast {
    /// In this folder, of this size. Nothing is written yet.
    pub fn new(folder: &Path, size: u64) -> Self {
        Self { path: folder.join(NAME), size }
    }

    /// Whether it is there, whole.
    pub fn is_there(&self) -> bool {
        self.len() >= self.size
    }

    fn len(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives the room back. `false`: there was none to give.
    pub fn free(&self) -> bool {
        self.size > 0 && std::fs::remove_file(&self.path).is_ok()
    }

    /// Takes the room, if `available` bytes leave at least `rest` after it. Where they do not, a part of what there is,
    /// if there is nothing in reserve: a disk that is small, or full already, needs it most, and the rest is taken once
    /// there is room. Whether all of it is there.
    pub fn fill(&self, available: u64, rest: u64) -> io::Result<bool> {
        if self.size == 0 || self.is_there() {
            return Ok(true);
        }
        let whole = available.saturating_add(self.len()) >= self.size.saturating_add(rest);
        let part = (available / 4).min(self.size);
        if whole || (self.len() == 0 && part >= LEAST) {
            self.write(if whole { self.size } else { part }).inspect_err(|_| {
                self.free();
            })?;
        }
        Ok(whole)
    }

    fn write(&self, size: u64) -> io::Result<()> {
        let _ = std::fs::remove_file(&self.path);
        let mut file = private::create_new(&self.path)?;
        // Noise, because some file systems store zeros in no room at all.
        let (mut noise, mut block) = (0x9E37_79B9_7F4A_7C15_u64, vec![0; 64 * 1024]);
        let mut left = size;
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                word.copy_from_slice(&noise.to_le_bytes());
            }
            let piece = left.min(block.len() as u64);
            file.write_all(&block[..piece as usize])?;
            left -= piece;
        }
        Ok(())
    }
}

/// Bytes that we may still write to the file system of this folder; `None` where nobody can tell.
pub fn free_space(folder: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(folder).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ballast_takes_room_only_where_enough_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path(), 100_000);
        assert!(!ballast.fill(150_000, 50_001).unwrap());
        assert!(!ballast.is_there() && !ballast.free(), "a quarter of what there is would be no help");
        assert!(ballast.fill(150_000, 50_000).unwrap());
        assert_eq!(std::fs::metadata(folder.path().join(NAME)).unwrap().len(), 100_000);
        assert!(ballast.free() && !ballast.is_there());
    }

    #[test]
    fn a_small_disk_gets_a_part_of_it_whenever_there_is_none_and_the_rest_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(folder.path(), 1_000_000);
        let len = || std::fs::metadata(folder.path().join(NAME)).map_or(0, |about| about.len());
        assert!(!ballast.fill(100_000, 0).unwrap());
        assert_eq!(len(), 0, "a disk that is as good as full keeps what it has");
        assert!(!ballast.fill(800_000, 500_000).unwrap());
        assert_eq!(len(), 200_000);
        assert!(!ballast.fill(600_000, 500_000).unwrap() && len() == 200_000, "no more is taken of what is left");
        assert!(!ballast.fill(1_299_999, 500_000).unwrap());
        assert!(ballast.fill(1_300_000, 500_000).unwrap() && len() == 1_000_000);
        assert!(ballast.free() && len() == 0);
        assert!(!ballast.fill(1_000_000, 500_000).unwrap());
        assert_eq!(len(), 250_000, "it was spent, and some room came back");
    }

    #[test]
    fn the_space_that_is_left_can_be_told() {
        assert!(free_space(&std::env::temp_dir()).is_some_and(|bytes| bytes > 0));
    }
}
