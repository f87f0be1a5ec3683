//! Archives of files, in the form that every `tar` reads: owned by root, of one time, folders before what is in them.

use std::collections::BTreeSet;

use crate::Fault;
use crate::dist::Entry;

const BLOCK: usize = 512;

/// An archive of these files under these paths.
pub(crate) fn archive(entries: &[(String, &Entry)], time: u64) -> Result<Vec<u8>, Fault> {
    let (mut out, mut folders) = (Vec::new(), BTreeSet::new());
    for (path, entry) in entries {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..=at];
            if folder != "./" && folders.insert(folder.to_owned()) {
                out.extend_from_slice(&head(folder, 0o755, 0, b'5', time)?);
            }
        }
        let mode = if entry.is_program { 0o755 } else { 0o644 };
        out.extend_from_slice(&head(path, mode, entry.bytes.len(), b'0', time)?);
        out.extend_from_slice(&entry.bytes);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks are its end.
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn head(path: &str, mode: u32, size: usize, kind: u8, time: u64) -> Result<[u8; BLOCK], Fault> {
    // A long path is told in two halves, parted at a slash.
    let (before, name) = match path.len() {
        0..=99 => ("", path),
        _ => {
            let at = path[..path.len().min(155)].rfind('/').filter(|at| path.len() - at <= 100);
            at.map(|at| (&path[..at], &path[at + 1..])).ok_or_else(|| format!("`{path}` is too long for an archive"))?
        }
    };
    let mut head = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{time:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(265, b"root");
    put(297, b"root");
    put(345, before.as_bytes());
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_systems_own_tar_reads_what_is_written() {
        let deep = format!("a/{}/{}", "b".repeat(60), "c".repeat(60));
        let entry = |bytes: &[u8], is_program| Entry { path: String::new(), bytes: bytes.into(), is_program };
        let (one, two) = (entry(b"one\n", true), entry(&[7; 1500], false));
        let bytes = archive(&[("a/one".into(), &one), (deep.clone(), &two)], 86_400).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["-tv", "-f", "-"]).env("TZ", "UTC0").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut tar = tar.spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        let told = tar.wait_with_output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        assert!(lines[0].starts_with("drwxr-xr-x root/root") && lines[0].ends_with(" a/"), "{told}");
        assert!(lines[1].starts_with("-rwxr-xr-x root/root") && lines[1].contains("1970-01-02"), "{told}");
        assert!(lines[3].starts_with("-rw-r--r--") && lines[3].ends_with(&deep), "{told}");
        assert!(archive(&[("d".repeat(300), &one)], 0).is_err());
    }
}
