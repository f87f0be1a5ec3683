//! The archive as its users see it: what goes in comes out, whatever happens in between.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::redact::Pattern;

const MINUTE: Duration = Duration::from_secs(60);

/// An archive in a folder of its own; no water marks, so that the disk of the test machine does not matter.
struct House {
    home: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> Options {
        let (folder, key) = (self.home.path().join("archive"), self.home.path().join("archive.key"));
        Options { low_water: 0, reserve: 0, ..Options::new(folder, key) }
    }

    fn open(&self) -> Archive {
        Archive::open(self.options()).unwrap()
    }

    fn reader(&self) -> Reader {
        let Options { folder, key, .. } = self.options();
        Reader::open(&folder, &key).unwrap()
    }

    fn packs(&self) -> Vec<pack::PackFile> {
        pack::PackFile::list(&self.options().folder).unwrap()
    }
}

fn id(number: u64) -> ExchangeId {
    let mut id = [0xa5; 16];
    id[6] = 0x75;
    id[8..].copy_from_slice(&number.to_be_bytes());
    id[..6].copy_from_slice(&number.to_be_bytes()[2..]);
    id
}

fn body(number: u64, kind: Kind, bytes: impl Into<Bytes>) -> Body {
    Body { exchange: id(number), kind, coding: None, session: None, pieces: vec![bytes.into()], time_ms: number }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Text as compressible as what agents send: words from a small list, with numbers.
fn prose(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: &[&str] = &[
        "the",
        "file",
        "function",
        "returns",
        "error",
        "let",
        "mut",
        "self",
        "value",
        "because",
        "test",
        "should",
        "line",
        "import",
        "const",
        "struct",
        "read",
        "write",
        "path",
        "\\n    ",
        "\\\"name\\\":",
        "if",
        "else",
        "match",
        "async",
    ];
    let mut out = Vec::with_capacity(len + 32);
    for (at, byte) in noise(seed, len / 3 + 8).into_iter().enumerate() {
        if out.len() >= len {
            break;
        }
        out.extend_from_slice(WORDS[usize::from(byte) % WORDS.len()].as_bytes());
        if byte > 200 {
            out.extend_from_slice(format!("_{}", seed.wrapping_mul(31).wrapping_add(at as u64) % 10_000).as_bytes());
        }
        out.push(b' ');
    }
    out.truncate(len);
    out
}

fn read(reader: &Reader, number: u64, kind: Kind) -> Option<Vec<u8>> {
    reader.read(id(number), kind).unwrap().map(|body| body.bytes().unwrap())
}

#[test]
fn bodies_of_all_sizes_come_back_from_the_same_process_and_from_the_next() {
    let house = House::new();
    let sizes = [0, 1, 500, 2047, 2048, 2049, 8192, 65_536, 65_537, 300_000, 3_000_000];
    let archive = house.open();
    for (number, size) in (0..).zip(sizes) {
        archive.submit(body(number, Kind::Request, noise(number, size))).unwrap();
        archive.submit(body(number, Kind::Response, prose(number, size))).unwrap();
    }
    assert!(archive.flush(MINUTE));
    let check = |reader: &Reader| {
        for (number, size) in (0..).zip(sizes) {
            assert!(read(reader, number, Kind::Request) == Some(noise(number, size)), "request of {size} bytes");
            assert!(read(reader, number, Kind::Response) == Some(prose(number, size)), "response of {size} bytes");
            assert_eq!(read(reader, number, Kind::RequestHead), None);
        }
        assert_eq!(read(reader, 99, Kind::Request), None);
    };
    check(archive.reader());
    let counts = archive.counts();
    assert_eq!((counts.taken, counts.stored, counts.all_skipped()), (22, 22, 0));
    assert_eq!(counts.raw_bytes, 2 * sizes.iter().sum::<usize>() as u64);
    assert_eq!(archive.trouble(), None);
    drop(archive);
    check(&house.reader());
    check(house.open().reader());
}

#[test]
fn a_body_can_be_read_in_small_steps() {
    let house = House::new();
    let archive = house.open();
    let whole = prose(1, 400_000);
    archive.submit(body(1, Kind::Response, whole.clone())).unwrap();
    assert!(archive.flush(MINUTE));
    let mut reader = archive.reader().read(id(1), Kind::Response).unwrap().unwrap();
    assert_eq!(reader.about().len, 400_000);
    let (mut step, mut all) = ([0; 777], vec![]);
    loop {
        match reader.read(&mut step).unwrap() {
            0 => break,
            count => all.extend_from_slice(&step[..count]),
        }
    }
    assert!(all == whole);
    let mut reader = archive.reader().read(id(1), Kind::Response).unwrap().unwrap();
    let mut all = vec![];
    while let Some(piece) = reader.next_piece().unwrap() {
        assert!(piece.len() <= chunker::MAX);
        all.extend_from_slice(&piece);
    }
    assert!(all == whole);
}

#[test]
fn of_two_bodies_of_a_kind_in_a_pack_the_last_one_counts() {
    let house = House::new();
    let archive = house.open();
    archive.submit(body(1, Kind::Response, "first")).unwrap();
    archive.submit(body(1, Kind::Response, "second")).unwrap();
    assert!(archive.flush(MINUTE));
    assert_eq!(read(archive.reader(), 1, Kind::Response).as_deref(), Some(&b"second"[..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_bytes_in_any_pieces_come_back(
        bodies in proptest::collection::vec((any::<u64>(), 0_usize..40_000, proptest::collection::vec(any::<u16>(), 0..6)), 1..6),
    ) {
        let house = House::new();
        let archive = house.open();
        let mut want = vec![];
        for (number, (seed, len, cuts)) in (0..).zip(bodies) {
            let whole = Bytes::from([noise(seed, len / 2), prose(seed, len - len / 2)].concat());
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (len + 1)).collect();
            cuts.extend([0, len]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| whole.slice(cut[0]..cut[1])).collect();
            archive.submit(Body { pieces, ..body(number, Kind::Request, "") }).unwrap();
            want.push(whole);
        }
        prop_assert!(archive.flush(MINUTE));
        for (number, whole) in (0..).zip(want) {
            prop_assert!(read(archive.reader(), number, Kind::Request).as_deref() == Some(&*whole));
        }
    }
}

/// What an agent sends in turn `turn`: all that was said so far, and the mark for the cache at another place each time.
fn context(turn: u64) -> Vec<u8> {
    let mut text = br#"{"model":"claude","stream":true,"system":[{"type":"text","text":""#.to_vec();
    text.extend(prose(1_000_000, 20_000));
    text.extend_from_slice(br#""}],"messages":["#);
    for past in 0..=turn {
        let mark = if past + 1 >= turn { r#","cache_control":{"type":"ephemeral"}"# } else { "" };
        text.extend_from_slice(br#"{"role":"user","content":[{"type":"tool_result","content":""#);
        text.extend(prose(past, 4800));
        text.extend_from_slice(format!("\"{mark}}}]}},").as_bytes());
    }
    text.extend_from_slice(br#"],"max_tokens":32000}"#);
    text
}

#[test]
fn a_session_of_a_hundred_turns_takes_a_twentieth_and_comes_back_byte_by_byte() {
    let house = House::new();
    let archive = house.open();
    let mut raw = 0;
    for turn in 0..100 {
        let request = context(turn);
        let response = prose(500_000 + turn, 3000);
        raw += (request.len() + response.len()) as u64;
        archive.submit(body(turn, Kind::Request, request)).unwrap();
        archive.submit(body(turn, Kind::Response, response)).unwrap();
        // Each turn is on disk before the next one: nothing is gained from turns that are written together.
        assert!(archive.flush(MINUTE));
    }
    assert!(context(99).len() > 500_000);
    let disk: u64 = house.packs().iter().map(|pack| pack.len).sum();
    println!("{raw} bytes became {disk}: 1/{:.1}", raw as f64 / disk as f64);
    assert!(disk * 20 <= raw, "{raw} bytes became {disk}");
    for turn in 0..100 {
        assert!(read(archive.reader(), turn, Kind::Request) == Some(context(turn)), "turn {turn}");
        assert!(read(archive.reader(), turn, Kind::Response) == Some(prose(500_000 + turn, 3000)), "turn {turn}");
    }
}

#[test]
fn a_restart_goes_on_with_the_same_pack_and_its_chunks() {
    let house = House::new();
    for turn in 0..3 {
        let archive = house.open();
        archive.submit(body(turn, Kind::Request, noise(1, 200_000))).unwrap();
        archive.submit(body(turn, Kind::Response, noise(turn + 5, 100))).unwrap();
    }
    let packs = house.packs();
    assert_eq!(packs.len(), 1);
    assert!(packs[0].len < 220_000, "{} bytes for three times the same", packs[0].len);
    let reader = house.reader();
    for turn in 0..3 {
        assert!(read(&reader, turn, Kind::Request) == Some(noise(1, 200_000)));
        assert!(read(&reader, turn, Kind::Response) == Some(noise(turn + 5, 100)));
    }
}

#[test]
fn packs_begun_in_one_millisecond_and_after_a_clock_went_back_keep_their_order() {
    static NOW: AtomicU64 = AtomicU64::new(1_000_000);
    let house = House::new();
    let now = || NOW.load(Ordering::Relaxed);
    let archive = Archive::open(Options { pack_bytes: 1000, now_ms: now, ..house.options() }).unwrap();
    for number in 0..20 {
        archive.submit(body(number, Kind::Request, noise(number, 2000))).unwrap();
        assert!(archive.flush(MINUTE));
        NOW.fetch_sub(number % 3 * 1000, Ordering::Relaxed);
    }
    assert_eq!(house.packs().len(), 20);
    let (all, mut found) = (Pattern::new("(?s-u).").unwrap(), vec![]);
    let each = |hit: Hit| {
        found.push(hit.about.time_ms);
        ControlFlow::Continue(())
    };
    archive.reader().grep(&all, &GrepLimits::default(), each).unwrap();
    assert!(found.iter().copied().eq((0..20).rev()), "{found:?}");
}

#[test]
fn two_processes_write_side_by_side() {
    let house = House::new();
    let (old, new) = (house.open(), house.open());
    for number in 0..20 {
        let archive = if number % 2 == 0 { &old } else { &new };
        archive.submit(body(number, Kind::Request, noise(number, 3000))).unwrap();
        assert!(archive.flush(MINUTE));
    }
    assert_eq!(house.packs().len(), 2);
    for number in 0..20 {
        assert!(read(old.reader(), number, Kind::Request) == Some(noise(number, 3000)));
    }
}

#[test]
fn a_tail_that_a_crash_cut_off_is_ignored_and_written_over() {
    let house = House::new();
    let archive = house.open();
    archive.submit(body(1, Kind::Request, noise(1, 5000))).unwrap();
    assert!(archive.flush(MINUTE));
    let whole = house.packs()[0].len;
    archive.submit(body(2, Kind::Request, noise(2, 5000))).unwrap();
    drop(archive);
    let pack = house.packs().remove(0);
    for len in (whole..pack.len).step_by(97) {
        let copy = House::new();
        std::fs::create_dir(copy.options().folder).unwrap();
        std::fs::copy(house.options().key, copy.options().key).unwrap();
        let path = copy.options().folder.join(pack.path.file_name().unwrap());
        std::fs::copy(&pack.path, &path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        let reader = copy.reader();
        assert!(read(&reader, 1, Kind::Request) == Some(noise(1, 5000)), "cut at {len}");
        assert_eq!(read(&reader, 2, Kind::Request), None, "cut at {len}");
        // The time in the name of the pack is now: the next process goes on with it.
        let archive = copy.open();
        archive.submit(body(3, Kind::Request, noise(3, 5000))).unwrap();
        assert!(archive.flush(MINUTE));
        assert_eq!(copy.packs().len(), 1);
        for number in [1, 3] {
            assert!(read(archive.reader(), number, Kind::Request) == Some(noise(number, 5000)), "cut at {len}");
        }
    }
}

#[test]
fn a_flipped_byte_is_an_error_for_the_bodies_that_it_touches_and_for_no_other() {
    let house = House::new();
    let archive = house.open();
    // Five groups; the last request is made of chunks of the first.
    let shared = noise(0, 4000);
    let want: HashMap<u64, Vec<u8>> =
        (0..5).map(|number| (number, if number == 4 { shared.clone() } else { noise(number, 4000) })).collect();
    let mut ends = vec![];
    for number in 0..5 {
        archive.submit(body(number, Kind::Request, want[&number].clone())).unwrap();
        assert!(archive.flush(MINUTE));
        ends.push(house.packs()[0].len);
    }
    drop(archive);
    let path = house.packs()[0].path.clone();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let len = *ends.last().unwrap();
    for at in (0..format::HEAD as u64).chain((format::HEAD as u64..len).step_by(23)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        // A group touches its own body; the first one touches the last, which shares its chunks.
        let group = ends.iter().filter(|end| **end <= at).count() as u64;
        let in_head = at < format::HEAD as u64;
        let reader = house.reader();
        let mut unread = 0;
        for number in 0..5 {
            let touched = !in_head && (number == group || number == 4 && group == 0);
            match reader.read(id(number), Kind::Request).and_then(|found| found.map(BodyReader::bytes).transpose()) {
                Ok(Some(bytes)) => assert!(bytes == want[&number], "byte {at}, body {number}"),
                Ok(None) => {
                    // The head of the last group: nothing tells it from what a crash left.
                    let head = ends[3]..ends[3] + format::GROUP_HEAD as u64;
                    assert!(head.contains(&at) && number == 4, "byte {at}, body {number} is just not there");
                }
                Err(ArchiveError::Damaged { .. } | ArchiveError::MaybeLost { .. }) => {
                    assert!(touched, "byte {at}, body {number}");
                    unread += 1;
                }
                Err(other) => panic!("byte {at}, body {number}: {other}"),
            }
        }
        assert!(in_head || unread > 0 || group == 4, "byte {at} was changed and nobody noticed");
        file.write_all_at(&byte, at).unwrap();
    }
    let reader = house.reader();
    assert!((0..5).all(|number| read(&reader, number, Kind::Request).as_ref() == Some(&want[&number])));
}

#[test]
fn a_damaged_pack_is_left_alone_and_a_new_one_begun() {
    let house = House::new();
    for number in 0..2 {
        let archive = house.open();
        archive.submit(body(number, Kind::Request, noise(number, 4000))).unwrap();
    }
    let pack = house.packs().remove(0);
    let file = File::options().write(true).open(&pack.path).unwrap();
    file.write_all_at(&[0xff; 8], format::HEAD as u64).unwrap();
    let archive = house.open();
    archive.submit(body(2, Kind::Request, noise(2, 4000))).unwrap();
    assert!(archive.flush(MINUTE));
    assert_eq!(house.packs().len(), 2);
    for number in [1, 2] {
        assert!(read(archive.reader(), number, Kind::Request) == Some(noise(number, 4000)));
    }
    let lost = archive.reader().read(id(0), Kind::Request).unwrap_err();
    assert!(matches!(lost, ArchiveError::MaybeLost { places: 1, .. }), "{lost}");
}

#[track_caller]
fn check_refused(house: &House, want: &str) {
    let said = Archive::open(house.options()).unwrap_err().to_string();
    assert!(said.contains(want), "{said:?} should say {want:?}");
}

#[test]
fn without_the_right_key_the_archive_is_not_opened() {
    let house = House::new();
    let archive = house.open();
    archive.submit(body(1, Kind::Request, "text")).unwrap();
    drop(archive);
    let key = house.options().key;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    check_refused(&house, "chmod 600");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let good = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    check_refused(&house, "is not there, and 1 files of bodies were written with it");
    assert!(!key.exists(), "no other key was made");
    private::create(&key, &[7; 32]).unwrap();
    check_refused(&house, "was written with another key");
    assert!(matches!(Reader::open(&house.options().folder, &key), Err(ArchiveError::WrongKey(_))));
    std::fs::write(&key, &good[..31]).unwrap();
    check_refused(&house, "32 bytes of a key");
    std::fs::write(&key, &good).unwrap();
    assert_eq!(read(house.open().reader(), 1, Kind::Request).as_deref(), Some(&b"text"[..]));
    // Whoever has lost the key can begin anew.
    std::fs::remove_file(&key).unwrap();
    purge_all(&house.options().folder).unwrap();
    assert_eq!(read(house.open().reader(), 1, Kind::Request), None);
}

/// In which form each pack is kept, the oldest first.
fn forms(house: &House) -> Vec<Form> {
    house.packs().iter().map(|pack| format::form_of(&std::fs::read(&pack.path).unwrap()).unwrap()).collect()
}

#[test]
fn without_encryption_there_is_no_key_and_everything_else_is_the_same() {
    let house = House::new();
    let open = || Archive::open(Options { encrypt: false, ..house.options() }).unwrap();
    for turn in 0..6 {
        // A restart goes on with the same pack, and knows what is in it.
        let archive = open();
        let session = Some("s".into());
        archive.submit(Body { session, ..body(turn, Kind::Request, context(turn)) }).unwrap();
        drop(archive);
    }
    assert!(!house.options().key.exists());
    assert_eq!(forms(&house), [Form::Plain]);
    let raw: usize = (0..6).map(|turn| context(turn).len()).sum();
    let pack = house.packs().remove(0);
    assert!(pack.len * 5 < raw as u64, "{} of {raw} bytes", pack.len);
    for turn in 0..6 {
        assert!(read(&house.reader(), turn, Kind::Request) == Some(context(turn)), "turn {turn}");
    }
    let bytes = std::fs::read(&pack.path).unwrap();

    // A changed byte is noticed all the same.
    let middle = bytes.len() / 2;
    let file = File::options().write(true).open(&pack.path).unwrap();
    file.write_all_at(&[!bytes[middle]], middle as u64).unwrap();
    let reader = house.reader();
    let whole = |turn| reader.read(id(turn), Kind::Request).and_then(|body| body.unwrap().bytes());
    assert!((0..6).any(|turn| whole(turn).is_err()));
    assert!((0..6).all(|turn| whole(turn).is_err() || whole(turn).unwrap() == context(turn)), "and never given out");
}

#[test]
fn encryption_is_turned_off_and_on_and_what_is_there_stays_as_it_is() {
    let house = House::new();
    for (number, encrypt) in [(0, true), (1, true), (2, false), (3, false), (4, true)] {
        let archive = Archive::open(Options { encrypt, ..house.options() }).unwrap();
        let session = Some("s".into());
        archive.submit(Body { session, ..body(number, Kind::Request, noise(number, 5000)) }).unwrap();
        archive.submit(body(number, Kind::Response, noise(number + 10, 5000))).unwrap();
    }
    assert_eq!(forms(&house), [Form::Sealed, Form::Plain, Form::Sealed]);
    let plain: Vec<bool> = (house.packs().iter().zip([0, 2, 4]))
        .map(|(pack, n)| memchr::memmem::find(&std::fs::read(&pack.path).unwrap(), &noise(n, 5000)[100..116]).is_some())
        .collect();
    assert_eq!(plain, [false, true, false], "what cannot be compressed is to be seen in the file, or is not");
    for number in 0..5 {
        assert!(read(&house.reader(), number, Kind::Request).is_some(), "{number}");
    }
    // Packs that are written anew keep their form: turning it off opens nothing that was sealed.
    let archive = Archive::open(Options { encrypt: false, ..house.options() }).unwrap();
    assert_eq!(archive.purge(Selection::Session("s".into())).unwrap().bodies, 5);
    assert_eq!(forms(&house), [Form::Sealed, Form::Plain, Form::Sealed]);
    for number in 0..5 {
        assert_eq!(read(archive.reader(), number, Kind::Request), None);
        assert!(read(archive.reader(), number, Kind::Response) == Some(noise(number + 10, 5000)));
    }
    drop(archive);
    // The key is needed while anything is sealed, whatever is to be done with what comes.
    std::fs::remove_file(house.options().key).unwrap();
    let refused = Archive::open(Options { encrypt: false, ..house.options() });
    assert!(matches!(refused, Err(ArchiveError::KeyMissing { packs: 2, .. })), "{refused:?}");
    let refused = Reader::open(&house.options().folder, &house.options().key);
    assert!(matches!(refused, Err(ArchiveError::KeyMissing { packs: 2, .. })), "{refused:?}");
}

#[test]
fn files_are_ours_alone() {
    let house = House::new();
    let archive = Archive::open(Options { reserve: 4096, ..house.options() }).unwrap();
    archive.submit(body(1, Kind::Request, "text")).unwrap();
    assert!(archive.flush(MINUTE));
    archive.retain().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&house.options().folder), 0o700);
    assert_eq!(mode(&house.options().key), 0o600);
    let mut names = vec![];
    for entry in std::fs::read_dir(house.options().folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        names.push(path.extension().or(path.file_name()).unwrap().to_os_string());
    }
    names.sort();
    assert_eq!(names, ["lock", "pack", "reserve"]);
}

#[test]
fn what_does_not_fit_is_skipped_and_counted() {
    let house = House::new();
    let options = Options { queue_bytes: 300_000, max_body: 200_000, ..house.options() };
    let archive = Archive::open(options).unwrap();
    let mut told = 0;
    let bytes = Bytes::from(noise(0, 100_000));
    for number in 0..200 {
        told += u64::from(archive.submit(body(number, Kind::Request, bytes.clone())).is_err());
    }
    assert_eq!(archive.submit(body(900, Kind::Request, noise(1, 200_001))), Err(Skip::TooLarge));
    assert!(archive.flush(MINUTE));
    let counts = archive.counts();
    assert!(told > 0, "200 bodies of 100 KB cannot pass a queue of 300 KB at once");
    assert_eq!(counts.skipped(Skip::QueueFull), told);
    assert_eq!(counts.skipped(Skip::TooLarge), 1);
    assert_eq!((counts.taken, counts.stored), (200 - told, 200 - told));
    let there = (0..200).filter(|number| read(archive.reader(), *number, Kind::Request).is_some()).count();
    assert_eq!(there as u64, counts.stored);
}

#[test]
fn below_the_low_water_mark_bodies_are_counted_and_the_reason_is_told() {
    let house = House::new();
    let archive = Archive::open(Options { low_water: u64::MAX, ..house.options() }).unwrap();
    for number in 0..7 {
        archive.submit(body(number, Kind::Request, "text")).unwrap();
    }
    assert!(archive.flush(MINUTE));
    let counts = archive.counts();
    assert_eq!((counts.taken, counts.stored, counts.skipped(Skip::Disk)), (7, 0, 7));
    assert!(archive.trouble().unwrap().contains("are free on the disk"));
}

/// A coding for tests: every byte is turned over; what begins with `!` cannot be undone.
fn turn_over(name: &str, bytes: &[u8], _cap: usize) -> Option<Vec<u8>> {
    (name == "upside-down" && bytes.first() != Some(&b'!')).then(|| bytes.iter().map(|byte| !byte).collect())
}

#[test]
fn a_body_is_kept_plain_with_the_name_of_its_coding() {
    let house = House::new();
    let archive = Archive::open(Options { decode: turn_over, ..house.options() }).unwrap();
    let coded = |number: u64, name: &str, bytes: &[u8]| {
        let body = body(number, Kind::Request, bytes.to_vec());
        archive.submit(Body { coding: Some(name.into()), ..body }).unwrap();
    };
    coded(1, "upside-down", &turn_over("upside-down", b"hello", 9).unwrap());
    coded(2, "upside-down", b"!broken");
    coded(3, "sideways", b"hello");
    coded(4, "Identity", b"hello");
    assert!(archive.flush(MINUTE));
    for (number, coding, as_it_was, bytes) in [
        (1, Some("upside-down"), false, &b"hello"[..]),
        (2, Some("upside-down"), true, b"!broken"),
        (3, Some("sideways"), true, b"hello"),
        (4, None, false, b"hello"),
    ] {
        let found = archive.reader().read(id(number), Kind::Request).unwrap().unwrap();
        assert_eq!((found.about().coding.as_deref(), found.about().coded), (coding, as_it_was), "{number}");
        assert_eq!(found.bytes().unwrap(), bytes);
    }
}

#[test]
fn what_a_pattern_matches_is_never_stored_and_what_cannot_be_searched_neither() {
    let house = House::new();
    let redact = Arc::new(Redactor::new(&["sk-[a-z]+", "hunter[0-9]"]).unwrap());
    let archive = Archive::open(Options { redact, decode: turn_over, ..house.options() }).unwrap();
    // The secret is cut in two by the network.
    let pieces = vec![Bytes::from_static(b"key sk-ab"), Bytes::from_static(b"cd and hunter2.")];
    archive.submit(Body { pieces, ..body(1, Kind::Request, "") }).unwrap();
    let hidden = turn_over("upside-down", b"a sk-abcd b", 99).unwrap();
    archive.submit(Body { coding: Some("upside-down".into()), ..body(2, Kind::Request, hidden) }).unwrap();
    archive.submit(Body { coding: Some("sideways".into()), ..body(3, Kind::Request, "sk-abcd") }).unwrap();
    archive.submit(body(4, Kind::Request, "harmless")).unwrap();
    assert!(archive.flush(MINUTE));
    assert_eq!(read(archive.reader(), 1, Kind::Request).as_deref(), Some(&b"key [redacted] and [redacted]."[..]));
    assert_eq!(read(archive.reader(), 2, Kind::Request).as_deref(), Some(&b"a [redacted] b"[..]));
    assert_eq!(read(archive.reader(), 3, Kind::Request), None);
    let flag = |number| archive.reader().read(id(number), Kind::Request).unwrap().unwrap().about().redacted;
    assert_eq!([1, 2, 4].map(flag), [true, true, false]);
    assert_eq!(archive.counts().skipped(Skip::Undecodable), 1);
}

#[test]
fn no_text_id_session_or_pattern_is_in_any_file() {
    let house = House::new();
    let redact = Arc::new(Redactor::new(&["PATTERN-[a-z]+"]).unwrap());
    let archive = Archive::open(Options { redact, ..house.options() }).unwrap();
    for number in 0..30 {
        // Not compressible, so that it is not compression that hides it.
        let text = [b"CANARY-in-the-body ".to_vec(), noise(number, 3000), b" PATTERN-abc".to_vec()].concat();
        let session = Some("CANARY-session".into());
        let coding = Some("CANARY-coding".into());
        let kind = if number % 2 == 0 { Kind::Request } else { Kind::ResponseHead };
        let body = Body { session, ..body(number, kind, text) };
        archive.submit(if number % 3 == 0 { Body { coding, ..body } } else { body }).unwrap();
        archive.submit(self::body(number, Kind::Response, "CANARY-in-a-small-body")).unwrap();
    }
    archive.purge(Selection::Exchanges(vec![id(3)])).unwrap();
    assert!(archive.flush(MINUTE));
    let mut files = 0;
    for entry in std::fs::read_dir(house.options().folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        files += 1;
        let key = std::fs::read(house.options().key).unwrap();
        let ids: Vec<Vec<u8>> = (0..30).map(|number| id(number).to_vec()).collect();
        let secrets = ids.iter().map(Vec::as_slice).chain([&b"CANARY"[..], b"PATTERN", b"redacted", &key[..8]]);
        for secret in secrets {
            assert!(memchr::memmem::find(&bytes, secret).is_none(), "{secret:x?} is in {path:?}");
        }
        assert!(memchr::memmem::find(&bytes, &noise(1, 3000)[100..116]).is_none());
    }
    assert!(files >= 2);
}

#[test]
fn packs_are_deleted_when_all_in_them_is_too_old() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let house = House::new();
    let day = 24 * 3600 * 1000;
    let now = || NOW.load(Ordering::Relaxed);
    NOW.store(1000 * day, Ordering::Relaxed);
    let archive = Archive::open(Options { now_ms: now, ..house.options() }).unwrap();
    for number in 0..4 {
        archive.submit(body(number, Kind::Request, noise(number, 3000))).unwrap();
        assert!(archive.flush(MINUTE));
        NOW.fetch_add(day + 1, Ordering::Relaxed);
        // Ends the pack of the day before.
        archive.retain().unwrap();
    }
    let kept = |archive: &Archive| {
        (0..4).map(|number| read(archive.reader(), number, Kind::Request).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&archive), [true; 4]);
    assert_eq!(house.packs().len(), 4, "a pack a day");
    NOW.store(1032 * day, Ordering::Relaxed);
    // How many it deletes is not said here: the writer may have looked by itself.
    archive.retain().unwrap();
    assert_eq!(kept(&archive), [false, true, true, true]);
    NOW.store(1034 * day, Ordering::Relaxed);
    archive.retain().unwrap();
    assert_eq!(kept(&archive), [false, false, false, true]);
    // A clock that went back deletes nothing.
    NOW.store(10 * day, Ordering::Relaxed);
    archive.retain().unwrap();
    assert_eq!(house.packs().len(), 1);
}

#[test]
fn a_clock_that_jumps_ahead_deletes_nothing_by_itself() {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let house = House::new();
    let day = 24 * 3600 * 1000;
    NOW.store(1000 * day, Ordering::Relaxed);
    let now = || NOW.load(Ordering::Relaxed);
    let archive = Archive::open(Options { now_ms: now, pack_bytes: 10_000, ..house.options() }).unwrap();
    let submit = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            archive.submit(body(number, Kind::Request, noise(number, 12_000))).unwrap();
            // The writer looks after old packs whenever it has ended one.
            assert!(archive.flush(MINUTE));
        }
    };
    submit(0..3);
    NOW.store(50_000 * day, Ordering::Relaxed);
    submit(3..6);
    assert!((0..6).all(|number| read(archive.reader(), number, Kind::Request).is_some()));
    NOW.store(1001 * day, Ordering::Relaxed);
    submit(6..8);
    assert!((0..8).all(|number| read(archive.reader(), number, Kind::Request).is_some()));
}

#[test]
fn the_oldest_packs_go_when_all_together_are_too_large() {
    let house = House::new();
    let options = Options { max_bytes: 1_000_000, pack_bytes: 100_000, ..house.options() };
    let archive = Archive::open(options).unwrap();
    for number in 0..100 {
        archive.submit(body(number, Kind::Request, noise(number, 50_000))).unwrap();
        assert!(archive.flush(MINUTE));
    }
    archive.retain().unwrap();
    let (packs, bytes) = usage(&house.options().folder).unwrap();
    assert!((800_000..=1_000_000).contains(&bytes), "{packs} packs, {bytes} bytes");
    let there = |number| read(archive.reader(), number, Kind::Request).is_some();
    assert!(!there(0) && !there(50) && there(90) && there(99));
    assert_eq!(archive.counts().stored, 100);
}

/// Ten exchanges in two sessions, with a context that both bodies of each share.
fn fill(archive: &Archive) {
    for number in 0..10 {
        let session = Some(if number % 2 == 0 { "even" } else { "odd" }.into());
        let text = [noise(77, 30_000), noise(number, 10_000)].concat();
        archive.submit(Body { session: session.clone(), ..body(number, Kind::Request, text) }).unwrap();
        archive.submit(Body { session, ..body(number, Kind::Response, noise(100 + number, 500)) }).unwrap();
    }
    assert!(archive.flush(MINUTE));
}

#[track_caller]
fn check_purge(selection: Selection, stays: impl Fn(u64) -> bool) {
    for (pack_bytes, encrypt) in [(14 << 20, true), (60_000, true), (14 << 20, false)] {
        let house = House::new();
        let archive = Archive::open(Options { pack_bytes, encrypt, ..house.options() }).unwrap();
        fill(&archive);
        // Whoever still has the old files open can read nothing from them, with the key or without.
        let old: Vec<File> = house.packs().iter().map(|pack| File::open(&pack.path).unwrap()).collect();
        let before: u64 = house.packs().iter().map(|pack| pack.len).sum();
        let purged = archive.purge(selection.clone()).unwrap();
        let after: u64 = house.packs().iter().map(|pack| pack.len).sum();
        let gone = (0..10).filter(|number| !stays(*number)).count() as u64;
        if selection != Selection::All {
            assert_eq!(purged.bodies, 2 * gone);
        }
        assert_eq!(purged.bytes, before - after);
        assert_eq!((purged.busy, purged.unreadable, purged.lost), (0, 0, 0));
        for number in 0..10 {
            let want = stays(number).then(|| [noise(77, 30_000), noise(number, 10_000)].concat());
            assert!(read(archive.reader(), number, Kind::Request) == want, "request {number}");
            let want = stays(number).then(|| noise(100 + number, 500));
            assert!(read(archive.reader(), number, Kind::Response) == want, "response {number}");
        }
        let names: Vec<_> = house.packs().iter().map(|pack| File::open(&pack.path).unwrap()).collect();
        for file in old {
            use std::os::unix::fs::MetadataExt as _;
            let inode = |file: &File| file.metadata().unwrap().ino();
            let mut head = [1; format::HEAD];
            file.read_exact_at(&mut head, 0).unwrap();
            let still_used = names.iter().any(|name| inode(name) == inode(&file));
            assert!(still_used || head == [0; format::HEAD], "a pack was deleted and not destroyed");
        }
        // The archive goes on.
        archive.submit(body(50, Kind::Request, "after")).unwrap();
        assert!(archive.flush(MINUTE));
        assert_eq!(read(archive.reader(), 50, Kind::Request).as_deref(), Some(&b"after"[..]));
        assert_eq!(archive.purge(Selection::Session("none".into())).unwrap(), Purged::default());
    }
}

#[test]
fn exchanges_are_purged_and_what_they_shared_with_others_stays() {
    check_purge(Selection::Exchanges(vec![id(0), id(3), id(999)]), |number| number != 0 && number != 3);
}

#[test]
fn a_session_is_purged() {
    check_purge(Selection::Session("odd".into()), |number| number % 2 == 0);
}

#[test]
fn all_before_a_time_is_purged() {
    check_purge(Selection::Before(7), |number| number >= 7);
}

#[test]
fn everything_is_purged() {
    check_purge(Selection::All, |_| false);
}

#[test]
fn what_another_process_is_writing_is_reported_as_busy() {
    let house = House::new();
    let (old, new) = (house.open(), house.open());
    for (number, archive) in [(1, &old), (2, &new)] {
        archive.submit(body(number, Kind::Request, noise(number, 3000))).unwrap();
        assert!(archive.flush(MINUTE));
    }
    let purged = new.purge(Selection::Exchanges(vec![id(1), id(2)])).unwrap();
    assert_eq!((purged.bodies, purged.busy), (1, 1));
    assert!(read(new.reader(), 1, Kind::Request).is_some());
    drop(old);
    assert_eq!(new.purge(Selection::Exchanges(vec![id(1)])).unwrap().bodies, 1);
    assert_eq!(read(new.reader(), 1, Kind::Request), None);
}

#[test]
fn a_purge_says_where_it_could_not_look_and_loses_only_what_was_lost() {
    let house = House::new();
    let archive = house.open();
    for number in 0..4 {
        archive.submit(body(number, Kind::Request, noise(number, 4000))).unwrap();
        assert!(archive.flush(MINUTE));
    }
    drop(archive);
    let pack = house.packs().remove(0);
    let file = File::options().write(true).open(&pack.path).unwrap();
    // A byte in a block of the second body.
    file.write_all_at(&[0, 0, 0], pack.len / 4 + 1000).unwrap();
    let archive = house.open();
    let purged = archive.purge(Selection::Exchanges(vec![id(3)])).unwrap();
    assert_eq!((purged.bodies, purged.lost), (1, 1));
    let there = |number| read(archive.reader(), number, Kind::Request).is_some();
    assert_eq!([0, 1, 2, 3].map(there), [true, false, true, false]);
}

#[test]
fn a_search_finds_the_newest_first_and_keeps_to_its_limits() {
    let house = House::new();
    let archive = Archive::open(Options { pack_bytes: 30_000, ..house.options() }).unwrap();
    for number in 0..20 {
        let word: &[u8] = if number % 3 == 0 { b" needle-17 " } else { b" hay " };
        let text = [noise(number, 4000), word.to_vec(), prose(number, 300)].concat();
        archive.submit(body(number, Kind::Request, text)).unwrap();
        assert!(archive.flush(MINUTE));
    }
    let pattern = Pattern::new("needle-[0-9]+").unwrap();
    let search = |limits: GrepLimits, at_most: usize| {
        let mut hits: Vec<Hit> = vec![];
        let scan = archive.reader().grep(&pattern, &limits, |hit| {
            hits.push(hit);
            if hits.len() < at_most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        (scan.unwrap(), hits)
    };
    let times = |hits: &[Hit]| hits.iter().map(|hit| hit.about.time_ms).collect::<Vec<_>>();
    let (scan, hits) = search(GrepLimits::default(), 99);
    assert_eq!(times(&hits), [18, 15, 12, 9, 6, 3, 0]);
    assert_eq!((scan.bodies, scan.hits, scan.unread, scan.cut), (20, 7, 0, false));
    assert_eq!(hits[0].at, 4001);
    assert_eq!(&hits[0].excerpt[hits[0].matched.clone()], b"needle-17");
    assert!(hits[0].excerpt.len() <= 300);
    let (scan, hits) = search(GrepLimits { hits: 2, ..GrepLimits::default() }, 99);
    assert_eq!((times(&hits), scan.cut), (vec![18, 15], true));
    let (scan, hits) = search(GrepLimits { bodies: 3, ..GrepLimits::default() }, 99);
    assert_eq!((times(&hits), scan.bodies, scan.cut), (vec![18], 3, true));
    let (scan, _) = search(GrepLimits { bytes: 9000, ..GrepLimits::default() }, 99);
    assert_eq!((scan.bodies, scan.cut), (3, true));
    let (scan, hits) = search(GrepLimits { since_ms: 3, until_ms: 10, ..GrepLimits::default() }, 99);
    assert_eq!((times(&hits), scan.bodies, scan.cut), (vec![9, 6, 3], 7, false));
    let (scan, _) = search(GrepLimits { body_bytes: 10, ..GrepLimits::default() }, 99);
    assert_eq!((scan.bodies, scan.unread), (0, 20));
    let (scan, hits) = search(GrepLimits::default(), 1);
    assert_eq!((times(&hits), scan.cut), (vec![18], true));
}

#[test]
fn a_fault_on_one_body_costs_that_body_and_is_counted() {
    fn fails_on_boom(_: &str, bytes: &[u8], _: usize) -> Option<Vec<u8>> {
        assert_ne!(bytes, b"boom");
        Some(bytes.to_vec())
    }
    let house = House::new();
    let archive = Archive::open(Options { decode: fails_on_boom, ..house.options() }).unwrap();
    archive.submit(body(1, Kind::Request, "before")).unwrap();
    assert!(archive.flush(MINUTE));
    let boom = Body { coding: Some("x".into()), ..body(2, Kind::Request, "boom") };
    archive.submit(boom).unwrap();
    archive.submit(body(3, Kind::Request, "after")).unwrap();
    assert!(archive.flush(MINUTE));
    let counts = archive.counts();
    assert_eq!((counts.stored, counts.skipped(Skip::Failed)), (2, 1));
    assert_eq!(read(archive.reader(), 3, Kind::Request).as_deref(), Some(&b"after"[..]));
}
