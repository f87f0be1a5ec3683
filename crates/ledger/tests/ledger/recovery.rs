//! What a process leaves in its journal when it ends anyhow, and what the next one makes of it.

use super::*;

fn recover(home: &Home) -> Counts {
    let mut writer = home.store().writer().unwrap();
    Recovery::default().take_over(&mut *writer, &home.journal()).unwrap()
}

fn write_three(journal: &Journal) {
    journal.start(&mut record(1)).wait().unwrap();
    journal.finish(record(1)).wait().unwrap();
    journal.start(&mut record(2)).wait().unwrap();
    journal.finish(record(2)).wait().unwrap();
    journal.finish(record(3)).wait().unwrap();
}

#[test]
fn a_last_entry_torn_in_its_head_or_anywhere_in_it_costs_no_other() {
    let home = Home::new();
    let path = left_behind(&home, write_three);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let last = minicbor::to_vec(record(3)).unwrap();
    assert!(bytes.ends_with(&last));
    let begin = bytes.len() - last.len() - 32;
    // Every byte is cut in the tests of the frames; here it is about what becomes of the segment.
    let inside = (begin + 36..bytes.len()).step_by(29);
    for cut in (begin..begin + 36).chain(inside).chain([bytes.len() - 1, bytes.len()]) {
        let home = Home::new();
        std::fs::create_dir(home.journal()).unwrap();
        std::fs::write(home.journal().join("1-1-1.journal"), &bytes[..cut]).unwrap();
        let counts = recover(&home);
        let (whole, torn) = (cut == bytes.len(), cut != bytes.len() && cut != begin);
        let want = Counts { new: 2 + u64::from(whole), segments: 1, torn: u64::from(torn), ..Counts::default() };
        assert_eq!(counts, want, "cut at byte {cut}");
        assert_eq!(home.stored(), samples(1..3 + u64::from(whole)), "cut at byte {cut}");
        assert!(home.files("journal").is_empty() && home.files("damaged").is_empty());
    }
}

#[test]
fn damage_in_the_middle_costs_what_it_hits_and_the_segment_is_kept() {
    let home = Home::new();
    let path = left_behind(&home, write_three);
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = record(1).upstream_request_id.unwrap();
    let at = bytes.windows(needle.len()).position(|part| part == needle.as_bytes()).unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(&path, &bytes).unwrap();
    let counts = recover(&home);
    // The end of the first exchange cannot be read: it looks as if it had none.
    assert_eq!(counts, Counts { new: 3, interrupted: 1, segments: 1, damaged: 1, ..Counts::default() });
    let stored = home.stored();
    assert_eq!(stored[0].outcome, Outcome::Interrupted);
    assert_eq!(stored[1..], samples(2..4));
    assert!(home.files("journal").is_empty());
    assert_eq!(home.files("damaged").len(), 1);
}

#[test]
fn loading_the_same_segment_again_changes_nothing() {
    let home = Home::new();
    let path = left_behind(&home, |journal| {
        write_three(journal);
        journal.start(&mut record(9)).wait().unwrap();
    });
    let copy = std::fs::read(&path).unwrap();
    let first = recover(&home);
    assert_eq!((first.new, first.interrupted), (4, 1));
    let stored = home.stored();
    // As if the process had ended between the store's last word and the removal; and under another name.
    for name in [path, home.journal().join("2-2-2.journal")] {
        std::fs::write(&name, &copy).unwrap();
        let again = recover(&home);
        assert_eq!((again.new, again.corrected), (0, 0));
        assert_eq!(home.stored(), stored);
        assert!(!name.exists());
    }
}

/// After a power cut, the disk may have more of the store than of the journal, or less.
#[test]
fn a_power_cut_that_costs_the_journal_its_end_costs_the_store_nothing() {
    let home = Home::new();
    let journal = Journal::open(home.options().journal).unwrap();
    write_three(&journal);
    catch_up(&mut *home.store().writer().unwrap(), &home.journal()).unwrap();
    let path = home.files("journal").remove(0);
    let bytes = std::fs::read(&path).unwrap();
    journal.close();
    for cut in (0..=bytes.len()).rev().step_by(7) {
        // What was allocated and not written is zeros on some file systems.
        for zeros in [0, bytes.len() - cut] {
            std::fs::write(&path, [&bytes[..cut], &vec![0; zeros]].concat()).unwrap();
            let counts = recover(&home);
            assert_eq!((counts.new, counts.corrected), (0, 0), "cut at byte {cut}");
            assert_eq!(home.stored(), samples(1..4), "cut at byte {cut}");
            assert!(home.files("journal").is_empty());
        }
    }
}

#[test]
fn a_power_cut_that_costs_the_store_its_last_steps_costs_nothing_that_the_journal_has() {
    let home = Home::new();
    let journal = Journal::open(home.options().journal).unwrap();
    let mut writer = home.store().writer().unwrap();
    let mut snapshots = Vec::new();
    for n in 0..20 {
        journal.start(&mut record(n)).wait().unwrap();
        journal.finish(record(n)).wait().unwrap();
        catch_up(&mut *writer, &home.journal()).unwrap();
        if n % 7 == 0 {
            writer.idle().unwrap();
        }
        snapshots.push((std::fs::read(home.db()).unwrap(), std::fs::read(home.db().with_extension("db-wal")).unwrap()));
    }
    let path = home.files("journal").remove(0);
    let bytes = std::fs::read(&path).unwrap();
    journal.close();
    drop(writer);
    for (n, (db, wal)) in snapshots.iter().enumerate() {
        // Of what lies beside the file, any part may have arrived.
        for part in [0, wal.len() / 3, wal.len()] {
            let other = Home::new();
            std::fs::write(other.db(), db).unwrap();
            std::fs::write(other.db().with_extension("db-wal"), &wal[..part]).unwrap();
            std::fs::create_dir(other.journal()).unwrap();
            std::fs::write(other.journal().join(path.file_name().unwrap()), &bytes).unwrap();
            recover(&other);
            assert_eq!(other.stored(), samples(0..20), "after step {n}, with {part} bytes beside the file");
            let check: String = Connection::open(other.db())
                .and_then(|db| db.query_row("PRAGMA integrity_check", [], |row| row.get(0)))
                .unwrap();
            assert_eq!(check, "ok");
        }
    }
}

#[test]
fn a_segment_of_a_newer_version_is_left_to_it() {
    let home = Home::new();
    let path = left_behind(&home, |journal| {
        journal.start(&mut record(7)).wait().unwrap();
        journal.finish(record(1)).wait().unwrap();
    });
    // An entry as a later version might write it: kind 9, version 2, no payload, its checksum.
    let mut entry = vec![0xC0, b'c', b'o', 0xF5, 9, 2, 0, 0, 0, 0, 0, 0];
    entry.extend_from_slice(&[0; 20]);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&entry[..12]);
    hasher.update(&entry[16..]);
    entry[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    let bytes = [std::fs::read(&path).unwrap(), entry].concat();
    std::fs::write(&path, &bytes).unwrap();
    let mut writer = home.store().writer().unwrap();
    let mut recovery = Recovery::default();
    let counts = recovery.take_over(&mut *writer, &home.journal()).unwrap();
    assert_eq!(counts, Counts { new: 1, newer: 1, ..Counts::default() });
    assert_eq!(recovery.take_over(&mut *writer, &home.journal()).unwrap(), Counts::default(), "looked at once");
    assert_eq!(Recovery::default().take_over(&mut *writer, &home.journal()).unwrap().newer, 1, "by the next one again");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
