//! The archive in processes of its own: killed at any moment, and on a disk that is full.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use ledger::archive::{Archive, ArchiveError, Body, Kind, Options, Selection, Skip, usage};

const MINUTE: Duration = Duration::from_secs(60);

fn options(home: &Path) -> Options {
    Options { low_water: 0, reserve: 0, ..Options::new(home.join("archive"), home.join("archive.key")) }
}

fn id(number: u64) -> [u8; 16] {
    let mut id = [7; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    id
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// The body of this number: some small, some large, all with a part in common.
fn bytes(number: u64) -> Vec<u8> {
    let own = noise(number, 200 + (number * 7919 % 9000) as usize);
    if number.is_multiple_of(3) { [noise(0, 20_000), own].concat() } else { own }
}

fn submit(archive: &Archive, number: u64, bytes: Vec<u8>) -> Result<(), Skip> {
    archive.submit(Body {
        exchange: id(number),
        kind: Kind::Request,
        coding: None,
        session: None,
        pieces: vec![Bytes::from(bytes)],
        time_ms: number,
    })
}

/// This test program again, as the process that runs only the test of that name.
fn helper(name: &str) -> Vec<String> {
    let program = std::env::current_exe().expect("the system knows its programs").display().to_string();
    vec![program, name.into(), "--exact".into(), "--ignored".into(), "--nocapture".into()]
}

/// The first line that whoever started this process wrote to it; `None`: nobody did.
fn told() -> Option<String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("it is a pipe or nothing");
    Some(line.trim().to_owned()).filter(|line| !line.is_empty())
}

#[test]
fn what_was_written_survives_a_kill_at_any_moment() {
    let home = tempfile::tempdir().unwrap();
    let mut written: BTreeSet<u64> = BTreeSet::new();
    let mut first = 1;
    for cycle in 0..20_u64 {
        let words = helper("writes_until_it_is_killed");
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{first} {}", home.path().display()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Killed while it writes: after so many reports, wherever it is by then.
        let reports = u64::from(noise(cycle, 1)[0]) % 25;
        let mut seen = 0;
        for line in lines.by_ref() {
            if let Some(number) = line.strip_prefix("written ") {
                written.insert(number.parse().unwrap());
                seen += 1;
            }
            if seen > reports {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen > reports, "cycle {cycle}: the writer ended by itself");
        written.extend(lines.filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok()));
        first = written.last().unwrap() + 100;

        let archive = Archive::open(options(home.path())).unwrap();
        for number in &written {
            let found = archive.reader().read(id(*number), Kind::Request).unwrap();
            let found = found.unwrap_or_else(|| panic!("cycle {cycle}: body {number} is lost"));
            assert!(found.bytes().unwrap() == bytes(*number), "cycle {cycle}: body {number}");
        }
    }
    assert!(written.len() > 100);
    let (packs, _) = usage(&home.path().join("archive")).unwrap();
    assert!(packs < 10, "{packs} packs: each start should go on with the last one");
}

#[test]
#[ignore = "the process that the test of kills starts"]
fn writes_until_it_is_killed() {
    let Some(line) = told() else { return };
    let (first, home) = line.split_once(' ').unwrap();
    // Small packs, so that kills fall on the change from one to the next, too.
    let archive = Archive::open(Options { pack_bytes: 4 << 20, ..options(Path::new(home)) }).unwrap();
    let mut number: u64 = first.parse().unwrap();
    loop {
        let last = number + number % 7;
        for number in number..=last {
            submit(&archive, number, bytes(number)).unwrap();
        }
        assert!(archive.flush(MINUTE));
        for number in number..=last {
            println!("written {number}");
        }
        number = last + 1;
    }
}

#[test]
fn on_a_full_disk_bodies_are_counted_and_a_purge_still_works() {
    // In a name space of its own everybody may mount a small disk.
    let words = helper("lives_on_a_disk_of_8_mb");
    let mut child = Command::new("unshare")
        .args(["--map-root-user", "--mount"])
        .args(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let disk = tempfile::tempdir().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", disk.path().display()).unwrap();
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("all was seen"), "{said}");
}

#[test]
#[ignore = "the process that the test of the full disk starts, in a name space of its own"]
fn lives_on_a_disk_of_8_mb() {
    let Some(home) = told() else { return };
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", &home]).status().unwrap();
    assert!(mounted.success());
    let home = Path::new(&home);
    let small = || Options { pack_bytes: 1 << 20, reserve: 1_200_000, ..options(home) };
    let archive = Archive::open(small()).unwrap();
    archive.retain().unwrap();
    assert_eq!(std::fs::metadata(home.join("archive/reserve")).unwrap().len(), 1_200_000);

    // Written until the disk is full, and beyond: what is not stored is counted, one by one.
    let mut number = 0;
    while archive.counts().skipped(Skip::Disk) < 30 {
        number += 1;
        assert!(number < 2000, "the disk is never full: {:?}", archive.counts());
        submit(&archive, number, noise(number, 20_000)).unwrap();
        assert!(archive.flush(MINUTE));
    }
    let said = archive.trouble().unwrap();
    assert!(said.contains("bodies are not kept"), "{said}");
    // Not a byte more: what is left is filled from outside.
    let mut filler = std::fs::File::create(home.join("filler")).unwrap();
    while filler.write_all(&[1; 512]).is_ok() {}
    let counts = archive.counts();
    let there = |archive: &Archive, number: u64| {
        let found = archive.reader().read(id(number), Kind::Request).unwrap();
        found.is_some_and(|found| found.bytes().unwrap() == noise(number, 20_000))
    };
    let stored: Vec<u64> = (1..=number).filter(|number| there(&archive, *number)).collect();
    assert_eq!(stored.len() as u64, counts.stored);
    assert_eq!(counts.taken, number);
    assert_eq!(counts.stored + counts.all_skipped(), number);

    // Every other of the first bodies goes: their packs have to be written anew, where nothing can be written.
    let gone: Vec<u64> = stored.iter().copied().take(120).step_by(2).collect();
    let purged = archive.purge(Selection::Exchanges(gone.iter().map(|number| id(*number)).collect())).unwrap();
    assert_eq!((purged.bodies, purged.lost, purged.unreadable), (gone.len() as u64, 0, 0));
    assert!(purged.bytes > 1_000_000, "{purged:?}");
    for number in &stored {
        assert_eq!(there(&archive, *number), !gone.contains(number), "body {number}");
    }

    // Now there is room: it goes on by itself, and the reserve comes back.
    submit(&archive, 5000, noise(5000, 20_000)).unwrap();
    assert!(archive.flush(MINUTE));
    assert!(there(&archive, 5000));
    assert_eq!(archive.trouble(), None);
    archive.retain().unwrap();
    assert_eq!(std::fs::metadata(home.join("archive/reserve")).unwrap().len(), 1_200_000);

    // Full again, and no reserve: what goes as a whole goes anyway, and the rest is refused, not half done.
    let mut filler = std::fs::File::create(home.join("filler2")).unwrap();
    while filler.write_all(&[1; 512]).is_ok() {}
    std::fs::remove_file(home.join("archive/reserve")).unwrap();
    while filler.write_all(&[1; 512]).is_ok() {}
    let left: Vec<u64> = stored.iter().copied().filter(|number| !gone.contains(number)).collect();
    let refused = archive.purge(Selection::Exchanges(vec![id(*left.last().unwrap())]));
    assert!(matches!(refused, Err(ArchiveError::NoRoom(_))), "{refused:?}");
    assert!(left.iter().all(|number| there(&archive, *number)), "a purge that was refused changes nothing");
    assert!(archive.purge(Selection::Before(6000)).unwrap().bodies > 0);
    assert!(!stored.iter().any(|number| there(&archive, *number)));
    assert_eq!(usage(&home.join("archive")).unwrap().0, 0);
    println!("all was seen");
}
