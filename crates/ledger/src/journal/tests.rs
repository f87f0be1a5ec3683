//! The journal against disks that work, fail, fill up and are slow.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Condvar, MutexGuard};
use std::task::{Context, Poll};

use super::frame::{Frames, Kind, Step};
use super::queue::Written;
use super::writer::{Disk, Sink};
use super::*;
use crate::record::Id;
use crate::sample::{id, record};

/// A disk in memory that does what it is told.
#[derive(Debug, Clone, Default)]
struct Puppet(Arc<(Mutex<Strings>, Condvar)>);

#[derive(Debug, Default)]
struct Strings {
    /// One a segment.
    segments: Vec<Vec<u8>>,
    /// What the next writes do; afterwards they work.
    acts: VecDeque<Act>,
    /// Every write fails.
    broken: bool,
    /// No segment can be made.
    crowded: bool,
    /// Writes wait.
    held: bool,
    /// Writes that were begun.
    begun: usize,
}

#[derive(Debug)]
enum Act {
    Work,
    Fail(io::ErrorKind),
    /// So many bytes are written, and then it fails.
    Part(usize),
}

#[derive(Debug)]
struct PuppetSegment {
    puppet: Puppet,
    at: usize,
}

impl Puppet {
    fn strings(&self) -> MutexGuard<'_, Strings> {
        self.0.0.lock().unwrap()
    }

    fn pull(&self, change: impl FnOnce(&mut Strings)) {
        change(&mut self.strings());
        self.0.1.notify_all();
    }

    fn wait(&self, until: impl Fn(&Strings) -> bool) -> MutexGuard<'_, Strings> {
        let waited = self.0.1.wait_timeout_while(self.strings(), Duration::from_secs(20), |s| !until(s));
        let (strings, late) = waited.unwrap();
        assert!(!late.timed_out(), "it never came to that");
        strings
    }

    fn ids(&self) -> Vec<(Kind, Id)> {
        let entry = |step| if let Step::Entry(frame, _) = step { Some((frame.kind.unwrap(), frame.id)) } else { None };
        let strings = self.strings();
        strings.segments.iter().flat_map(|segment| Frames::new(segment).filter_map(entry)).collect()
    }
}

impl Disk for Puppet {
    fn create(&mut self) -> io::Result<Box<dyn Sink>> {
        let mut strings = self.strings();
        if strings.crowded {
            return Err(io::ErrorKind::StorageFull.into());
        }
        strings.segments.push(Vec::new());
        Ok(Box::new(PuppetSegment { puppet: self.clone(), at: strings.segments.len() - 1 }))
    }
}

impl Sink for PuppetSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.puppet.pull(|strings| strings.begun += 1);
        let mut strings = self.puppet.wait(|strings| !strings.held);
        if strings.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match strings.acts.pop_front() {
            None | Some(Act::Work) => {
                strings.segments[self.at].extend_from_slice(bytes);
                self.puppet.0.1.notify_all();
                Ok(())
            }
            Some(Act::Fail(kind)) => Err(kind.into()),
            Some(Act::Part(n)) => {
                let at = self.at;
                strings.segments[at].extend_from_slice(&bytes[..n]);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn len(&self) -> u64 {
        self.puppet.strings().segments[self.at].len() as u64
    }

    fn path(&self) -> &Path {
        Path::new("puppet")
    }

    fn discard(&mut self) {
        self.puppet.strings().segments[self.at].clear();
    }

    fn file(&self) -> Option<&Arc<File>> {
        None
    }
}

fn options(folder: &Path) -> JournalOptions {
    JournalOptions { ballast_bytes: 0, low_water_bytes: 0, ..JournalOptions::new(folder) }
}

fn puppet(change: impl FnOnce(&mut JournalOptions)) -> (Puppet, Journal) {
    let puppet = Puppet::default();
    let mut options = options(&std::env::temp_dir());
    change(&mut options);
    let journal = Journal::on(options, Box::new(puppet.clone())).unwrap();
    (puppet, journal)
}

fn poll(ack: &mut Ack) -> Poll<Written> {
    Pin::new(ack).poll(&mut Context::from_waker(std::task::Waker::noop()))
}

/// Asks twice: the first time, other tasks go first.
fn hurry(ack: &mut Ack) {
    assert!(poll(ack).is_pending() && poll(ack).is_pending());
}

#[track_caller]
fn all_written(acks: Vec<Ack>) {
    for ack in acks {
        ack.wait().unwrap();
    }
}

#[test]
fn nothing_is_acknowledged_before_its_write_has_returned() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.held = true);
    let mut acks = vec![journal.start(&mut record(1)), journal.finish(record(1)), journal.finish(record(2))];
    hurry(&mut acks[0]);
    drop(puppet.wait(|strings| strings.begun > 0));
    assert!(acks.iter_mut().all(|ack| poll(ack).is_pending()), "a write that has not returned acknowledges nothing");
    assert_eq!(journal.position(), Position(0));
    puppet.pull(|strings| strings.held = false);
    for ack in acks {
        let position = ack.wait().unwrap();
        assert!(position.0 > 0 && position <= journal.position());
    }
    assert_eq!(puppet.ids(), [(Kind::Start, id(1)), (Kind::Record, id(1)), (Kind::Record, id(2))]);
}

#[test]
fn what_comes_during_a_write_goes_together_in_the_next_one() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.held = true);
    let mut first = journal.finish(record(0));
    hurry(&mut first);
    drop(puppet.wait(|strings| strings.begun == 1));
    let rest: Vec<Ack> = (1..100).map(|n| journal.finish(record(n))).collect();
    puppet.pull(|strings| strings.held = false);
    first.wait().unwrap();
    all_written(rest);
    assert_eq!(puppet.strings().begun, 2);
}

#[test]
fn what_nobody_waits_for_is_written_all_the_same() {
    let (puppet, journal) = puppet(|_| {});
    drop(journal.finish(record(0)));
    let mut asked = journal.finish(record(1));
    assert!(poll(&mut asked).is_pending());
    drop(asked);
    drop(puppet.wait(|strings| Frames::new(&strings.segments.concat()).count() == 2));
    journal.close();
}

#[test]
fn a_full_queue_says_so_at_once_and_is_counted() {
    let (puppet, journal) = puppet(|options| options.queue = 4);
    puppet.pull(|strings| strings.held = true);
    let mut acks = vec![journal.finish(record(0))];
    hurry(&mut acks[0]);
    drop(puppet.wait(|strings| strings.begun == 1));
    acks.extend((1..=4).map(|n| journal.finish(record(n))));
    let mut over = journal.finish(record(5));
    assert_eq!(poll(&mut over), Poll::Ready(Err(Unwritten::QueueFull)));
    assert_eq!(journal.health().lost, 1);
    puppet.pull(|strings| strings.held = false);
    all_written(acks);
    assert_eq!(puppet.ids().len(), 5);
}

#[test]
fn a_failing_disk_delays_nobody_and_takes_everything_when_it_works_again() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.broken = true);
    for n in 0..10 {
        assert_eq!(journal.finish(record(n)).wait(), Err(Unwritten::DiskFailing));
    }
    let health = journal.health();
    assert!(health.failing && !journal.accepts() && health.last_error.is_some() && health.pending_bytes > 0);
    assert_eq!((health.written, health.lost), (0, 0));
    puppet.pull(|strings| strings.broken = false);
    drop(puppet.wait(|strings| !strings.segments[0].is_empty()));
    let ack = journal.finish(record(10));
    ack.wait().unwrap();
    let want: Vec<_> = (0..=10).map(|n| (Kind::Record, id(n))).collect();
    assert_eq!(puppet.ids(), want);
    let health = journal.health();
    assert!(!health.failing && journal.accepts());
    assert_eq!((health.written, health.late, health.lost, health.pending_bytes), (11, 10, 0, 0));
}

#[test]
fn what_a_failing_disk_makes_us_keep_is_bounded_and_what_falls_out_is_counted() {
    let (puppet, journal) = puppet(|options| options.pending_bytes = 3000);
    puppet.pull(|strings| strings.broken = true);
    for n in 0..50 {
        assert_eq!(journal.finish(record(n)).wait(), Err(Unwritten::DiskFailing));
    }
    let health = journal.health();
    assert!(health.pending_bytes < 6000 && health.lost > 0, "{health:?}");
    puppet.pull(|strings| strings.broken = false);
    journal.close();
    assert_eq!(puppet.ids().len() as u64 + journal.health().lost, 50);
}

#[test]
fn a_disk_that_fails_to_the_end_leaves_a_number_and_no_lie() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.broken = true);
    assert_eq!(journal.finish(record(0)).wait(), Err(Unwritten::DiskFailing));
    journal.close();
    assert_eq!(journal.health().lost, 1);
    assert_eq!(journal.finish(record(1)).wait(), Err(Unwritten::Closed));
}

#[test]
fn half_a_write_is_passed_over_by_readers_and_the_entry_comes_whole_after_it() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.acts = [Act::Part(50), Act::Fail(io::ErrorKind::Other)].into());
    assert_eq!(journal.finish(record(0)).wait(), Err(Unwritten::DiskFailing));
    drop(puppet.wait(|strings| strings.segments[0].len() > 50));
    journal.finish(record(1)).wait().unwrap();
    assert_eq!(puppet.ids(), [(Kind::Record, id(0)), (Kind::Record, id(1))]);
    assert_eq!(journal.health().late, 1);
}

#[test]
fn exchanges_in_flight_begin_again_in_the_next_segment_and_the_old_one_says_that_it_is_complete() {
    let (puppet, journal) = puppet(|options| options.segment_bytes = 4000);
    journal.start(&mut record(1)).wait().unwrap();
    journal.start(&mut record(2)).wait().unwrap();
    journal.finish(record(2)).wait().unwrap();
    let mut n = 100;
    while puppet.strings().segments.len() < 2 {
        journal.finish(record(n)).wait().unwrap();
        n += 1;
    }
    let strings = puppet.strings();
    let entries = |segment: usize| {
        Frames::new(&strings.segments[segment]).map(|step| match step {
            Step::Entry(frame, _) => (frame.kind.unwrap(), frame.id),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(entries(0).last(), Some((Kind::Closed, Id(0))));
    assert_eq!(entries(1).next(), Some((Kind::Start, id(1))), "the one in flight");
    assert_eq!(entries(1).filter(|(kind, _)| *kind == Kind::Start).count(), 1, "and no other");
}

#[test]
fn an_exchange_whose_end_is_lost_on_the_way_into_the_next_segment_is_in_flight_there() {
    let (puppet, journal) = puppet(|options| options.segment_bytes = 1);
    journal.start(&mut record(1)).wait().unwrap();
    // The next segment's beginning and the old one's end are written, what comes then is not.
    puppet.pull(|strings| strings.acts = [Act::Work, Act::Work, Act::Fail(io::ErrorKind::Other)].into());
    assert_eq!(journal.finish(record(1)).wait(), Err(Unwritten::DiskFailing));
    let strings = puppet.strings();
    let Some(Step::Entry(frame, _)) = Frames::new(&strings.segments[1]).next() else { panic!("no entry") };
    assert_eq!((frame.kind, frame.id), (Some(Kind::Start), id(1)));
}

#[test]
fn a_segment_that_cannot_be_followed_by_another_grows_on() {
    let (puppet, journal) = puppet(|options| options.segment_bytes = 1500);
    journal.start(&mut record(1)).wait().unwrap();
    // The beginnings go to the new segment first: that write fails.
    let before = puppet.strings().begun;
    let mut n = 2;
    while puppet.strings().segments.len() == 1 {
        let mut entry = Vec::new();
        entry::put_record(&mut entry, &record(n));
        if puppet.strings().segments[0].len() + entry.len() > 1500 {
            puppet.pull(|strings| strings.acts = [Act::Fail(io::ErrorKind::Other)].into());
        }
        journal.finish(record(n)).wait().unwrap();
        n += 1;
    }
    assert!(puppet.strings().begun > before);
    assert!(puppet.strings().segments[1].is_empty(), "nothing is left in the one that was given up");
    assert!(journal.health().last_error.is_some_and(|text| text.contains("new segment")));
    let records = puppet.ids().iter().filter(|(kind, _)| *kind == Kind::Record).count() as u64;
    assert_eq!(records, n - 2);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_is_waited_for_only_so_long() {
    let (puppet, journal) = puppet(|_| {});
    puppet.pull(|strings| strings.held = true);
    let began = tokio::time::Instant::now();
    assert_eq!(journal.finish(record(0)).within(Duration::from_millis(100)).await, Err(Unwritten::Late));
    assert_eq!(began.elapsed(), Duration::from_millis(100));
    puppet.pull(|strings| strings.held = false);
    drop(puppet.wait(|strings| !strings.segments[0].is_empty()));
}

#[test]
fn an_acknowledgement_wakes_a_task_of_another_runtime() {
    let (_puppet, journal) = puppet(|_| {});
    let journal = Arc::new(journal);
    let workers = (0..3u64).map(|worker| {
        let journal = journal.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                for n in 0..200 {
                    let record = record(worker * 1000 + n);
                    journal.finish(record).within(Duration::from_secs(10)).await.unwrap();
                }
            });
        })
    });
    workers.collect::<Vec<_>>().into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(journal.health().written, 600);
}

#[test]
fn a_segment_on_the_disk_is_locked_while_its_journal_lives_and_holds_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(options(folder.path())).unwrap();
    journal.start(&mut record(1)).wait().unwrap();
    journal.finish(record(1)).wait().unwrap();
    let paths = segment::all(folder.path()).unwrap();
    assert!(segment::Taken::take(&paths[0]).unwrap().is_none());
    journal.close();
    let bytes = segment::Taken::take(&paths[0]).unwrap().unwrap().read().unwrap();
    let entries: Vec<_> = Frames::new(&bytes).collect();
    let Step::Entry(frame, _) = entries[1] else { panic!("{entries:?}") };
    assert_eq!(entry::read_record(&frame), Some(record(1)));
    assert_eq!(entries.len(), 2, "it was not closed in order: what is open in it was interrupted");
}

#[test]
fn the_reserve_is_made_once_and_the_lack_of_room_for_it_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let usual = JournalOptions { ballast_bytes: 100_000, ..options(folder.path()) };
    let journal = Journal::open(usual.clone()).unwrap();
    assert!(!journal.health().low_space);
    assert!(Ballast::new(folder.path(), 100_000).is_there());
    let greedy = JournalOptions { low_water_bytes: u64::MAX, ..usual };
    assert!(Journal::open(greedy).unwrap().health().low_space);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let why = Journal::open(options(&file.path().join("journal"))).unwrap_err().to_string();
    assert!(why.contains("the journal's folder") && why.contains("cannot be used"), "{why}");
}

#[test]
fn who_wants_another_segment_is_told_that_there_is_none() {
    let (puppet, journal) = puppet(|_| {});
    journal.rotate().wait().unwrap();
    journal.finish(record(0)).wait().unwrap();
    puppet.pull(|strings| strings.crowded = true);
    assert_eq!(journal.rotate().wait(), Err(Unwritten::DiskFailing));
    journal.finish(record(1)).wait().unwrap();
    puppet.pull(|strings| strings.crowded = false);
    journal.rotate().wait().unwrap();
    assert_eq!(puppet.strings().segments.len(), 2);
}
