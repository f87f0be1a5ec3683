//! The store over real files: what goes in, what is counted of it, what is taken out again.

mod forms;
mod questions;

use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value;
use wire::usage::{CacheWrite, Iteration, IterationKind, Tokens, Usage};

use super::*;
use crate::limits::Limits;
use crate::money::NanoUsd;
use crate::price::{Flags, Unpriced};
use crate::query::{Filter, Found, Group, Groups, Key, MOST, Metrics, Row, Sums, Totals, UTC};
use crate::record::{Fingerprint, Id, Operation, Outcome, Record};
use crate::sample::{EPOCH_US, STEP_US, id, record, start};
use crate::store::{Batch, Loaded, Priced, Progress, Purge};

struct Fixture {
    _folder: tempfile::TempDir,
    store: Sqlite,
    writer: Box<dyn Writer>,
}

fn empty() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path().join("ledger.db"));
    let writer = store.writer().unwrap();
    Fixture { _folder: folder, store, writer }
}

fn with(records: &[Record]) -> Fixture {
    let mut fixture = empty();
    fixture.load(records);
    fixture
}

fn samples(n: u64) -> Vec<Record> {
    (0..n).map(record).collect()
}

/// Some records belong to runs: `run-0` to `run-2`.
fn some_in_runs(records: &mut [Record]) {
    for (n, record) in records.iter_mut().enumerate().step_by(7) {
        record.parties.run = Some(format!("run-{}", n % 3).into());
    }
}

impl Fixture {
    fn load(&mut self, records: &[Record]) -> Loaded {
        self.writer.load(&Batch { records, segment: "s", position: 1, complete: false }).unwrap()
    }

    fn reader(&self) -> Box<dyn Reader> {
        self.store.reader().unwrap()
    }

    fn rows(&self, filter: &Filter) -> Vec<Row> {
        self.reader().rows(filter).unwrap()
    }

    fn ids(&self, filter: &Filter) -> Vec<Id> {
        self.rows(filter).iter().map(|row| row.record.id).collect()
    }

    fn totals(&self, filter: &Filter, keys: &[Key]) -> Groups {
        self.reader().totals(filter, keys, UTC).unwrap()
    }

    fn metrics(&self) -> Metrics {
        self.reader().metrics(20).unwrap()
    }

    /// The sums that are kept must be what the records add up to.
    #[track_caller]
    fn check_sums(&self) {
        let db = Connection::open(&self.store.path).unwrap();
        let columns = sums::COUNTERS.iter().map(|name| format!("sum({name})")).collect::<Vec<_>>().join(", ");
        let sums = |keys: &str, from: &str| {
            let sql =
                format!("SELECT {keys}, {columns} FROM {from} WHERE requests > 0 GROUP BY {keys} ORDER BY {keys}");
            let mut statement = db.prepare(&sql).unwrap();
            let width = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Vec<Value>> {
                (0..width).map(|at| row.get(at)).collect()
            };
            statement.query_map([], row).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        for (table, keys, _) in sums::SUMS {
            assert_eq!(sums(keys, table), sums(keys, "record_usage"), "{table}");
        }
    }
}

/// The same question answered by adding up the records.
fn by_hand(records: &[Record], meant: impl Fn(&Record) -> bool) -> Totals {
    let mut totals = Totals::default();
    for record in records.iter().filter(|record| meant(record)) {
        let tokens = record.usage.as_ref().map(|usage| usage.tokens).unwrap_or_default();
        let sums = Sums {
            requests: 1,
            failed: i64::from(record.outcome.is_failure()),
            input: tokens.input as i64,
            cache_read: tokens.cache_read as i64,
            cache_write: tokens.cache_write.total() as i64,
            output: record.output() as i64,
            web_searches: 0,
            estimated: i64::from(record.is_estimated()),
            usage_unknown: i64::from(record.usage_unknown),
            unpriced: i64::from(
                record.operation == Operation::Generation && record.usage.is_some() && record.cost.is_none(),
            ),
            cost: record.cost.unwrap_or_default(),
            duration_us: record.duration_us.unwrap_or(0) as i64,
            timed: i64::from(record.duration_us.is_some()),
            first_token_us: record.first_token_us.unwrap_or(0) as i64,
            first_tokens: i64::from(record.first_token_us.is_some()),
            bytes_in: record.bytes_in as i64,
            bytes_out: record.bytes_out as i64,
            assumed: i64::from(record.cost_flags.is_assumed()),
            incomplete: i64::from(record.cost_flags.incomplete),
        };
        match (record.parties.simulated, record.parties.notional) {
            (true, _) => totals.simulated.add(&sums),
            (false, true) => totals.notional.add(&sums),
            (false, false) => totals.paid.add(&sums),
        }
    }
    totals
}

#[test]
fn a_record_comes_back_as_it_went_in() {
    let mut full = record(3);
    full.estimated_output = Some(123_456);
    full.losses = vec!["tools[0].cache_control: not known there".into()];
    full.parties.caller = Some("ana".into());
    full.error = Some("quotes ' and \" and \0 and é".into());
    full.usage.as_mut().unwrap().region = Some("eu".into());
    full.usage_unknown = true;
    full.cost_flags = Flags { rate_assumed: true, incomplete: true, ..Flags::default() };
    full.unpriced = Some(Unpriced::UnknownRate);
    (full.route, full.deliveries, full.continued) = (Some("rule 1 `a`: yes\n1. a, key 1: taken".into()), 2, 1);
    let lost = &mut full.attempts[0];
    (lost.outcome, lost.cost, lost.queued_us) = (Outcome::HedgeLost, Some(NanoUsd(7)), 9);
    lost.usage = full.usage.clone().map(Box::new);
    let bare = Record::new(start(4), Outcome::Rejected);
    let fixture = with(&[full.clone(), bare.clone()]);
    let back: Vec<Record> = fixture.rows(&Filter::default()).into_iter().map(|row| row.record).collect();
    assert_eq!(back, [bare, full]);
    for outcome in Outcome::ALL {
        assert_eq!(Outcome::named(outcome.as_str()), Some(*outcome));
    }
}

#[test]
fn loading_twice_changes_nothing() {
    let records = samples(300);
    let mut fixture = with(&records);
    let before = (fixture.rows(&Filter { limit: Some(1000), ..Filter::default() }), fixture.metrics());
    assert_eq!(fixture.load(&records), Loaded { new: 0, known: 300, corrected: 0 });
    let mut other = record(7);
    other.cost = Some(NanoUsd(1));
    assert_eq!(fixture.load(&[other]), Loaded { new: 0, known: 1, corrected: 0 }, "the first one stands");
    assert_eq!((fixture.rows(&Filter { limit: Some(1000), ..Filter::default() }), fixture.metrics()), before);
    fixture.check_sums();
}

#[test]
fn the_real_end_takes_the_place_of_interrupted_and_never_the_other_way_round() {
    let mut fixture = with(&[Record::interrupted(start(1), 5), record(2)]);
    assert_eq!(fixture.load(&[record(1)]), Loaded { new: 0, known: 0, corrected: 1 });
    assert_eq!(fixture.load(&[Record::interrupted(start(2), 5)]), Loaded { new: 0, known: 1, corrected: 0 });
    let both = [Record::interrupted(start(3), 5), record(3)];
    assert_eq!(fixture.load(&both), Loaded { new: 1, known: 0, corrected: 1 }, "in one batch");
    let outcomes: Vec<Outcome> = fixture.rows(&Filter::default()).iter().map(|row| row.record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Success; 3]);
    fixture.check_sums();
    assert_eq!(fixture.metrics().summary.all().requests, 3);
}

#[test]
fn the_newest_word_on_the_limits_of_each_credential_is_kept() {
    let limits = |n: u64| {
        let remaining = n.to_string();
        Limits::of([("anthropic-ratelimit-requests-remaining", remaining.as_bytes())]).unwrap()
    };
    let said = |n: u64, key: &str, ended_us: i64| Record {
        limits: Some(limits(n)),
        credential: Some(Fingerprint::of(key)),
        ended_us,
        ..record(0)
    };
    let (a, b) = ("sk-ant-a-long-key-AAAA", "sk-ant-a-long-key-BBBB");
    let mut fixture = with(&[said(1, a, 100), said(2, b, 300), said(3, a, 200), record(9)]);
    let now = |fixture: &Fixture| {
        let all = fixture.reader().limits().unwrap();
        all.into_iter().map(|last| (last.credential.unwrap(), last.seen_us, last.limits)).collect::<Vec<_>>()
    };
    let (ka, kb) = (Fingerprint::of(a), Fingerprint::of(b));
    assert_eq!(now(&fixture), [(kb.clone(), 300, limits(2)), (ka.clone(), 200, limits(3))]);
    fixture.load(&[said(4, a, 150)]);
    assert_eq!(now(&fixture)[1], (ka.clone(), 200, limits(3)), "an older word does not take the place of a newer one");
    let day = 86_400_000_000;
    fixture.load(&[said(5, a, 9 * day)]);
    fixture.load(&[said(6, a, 5 * day)]);
    assert_eq!(now(&fixture)[0], (ka, 5 * day, limits(6)), "unless that is from a clock that went wrong");
    purge_all(&mut fixture, &Purge::Before(400));
    assert_eq!(now(&fixture).len(), 1);
    for n in 0..150 {
        fixture.load(&[said(n, &format!("sk-ant-a-long-key-{n:04}"), 6 * day + n as i64)]);
    }
    fixture.writer.idle().unwrap();
    assert_eq!(now(&fixture).len(), write::LIMITS as usize);
    assert_eq!(now(&fixture)[0].1, 6 * day + 149);
    purge_all(&mut fixture, &Purge::All);
    assert!(now(&fixture).is_empty());
}

#[test]
fn metrics_count_generations_since_the_last_reset() {
    let records = samples(500);
    let mut fixture = with(&records);
    let generation = |r: &Record| r.operation == Operation::Generation;
    let metrics = fixture.metrics();
    assert_eq!(metrics.summary, by_hand(&records, generation));
    assert_eq!(metrics.since_us, 0);
    let names = |groups: &[Group]| groups.iter().map(|group| group.keys[0].clone()).collect::<Vec<_>>();
    assert_eq!(names(&metrics.by_operation), ["generation", "count_tokens"]);
    assert_eq!(metrics.by_model.len(), 4);
    assert_eq!(metrics.by_session.len(), 10);
    assert_eq!(metrics.by_project.iter().map(|g| g.totals.all().requests).sum::<i64>(), metrics.summary.all().requests);
    let failed = metrics.by_outcome.iter().find(|group| group.keys[0] == "upstream_error").unwrap();
    assert_eq!(failed.totals.all().requests, metrics.summary.all().failed);
    let mut times: Vec<u64> = records.iter().filter(|r| generation(r)).filter_map(|r| r.duration_us).collect();
    times.sort_unstable();
    assert_eq!((metrics.duration.of as usize, metrics.duration.p50_us), (times.len(), times[times.len() / 2 - 1]));
    assert!(metrics.first_token.of < metrics.duration.of, "failures have no first token");
    assert_eq!(metrics.first_byte.of, metrics.duration.of, "they have a first byte");

    fixture.writer.reset(77).unwrap();
    let metrics = fixture.metrics();
    assert_eq!((metrics.summary, metrics.since_us, metrics.duration.of), (Totals::default(), 77, 0));
    fixture.load(&[record(501)]);
    assert_eq!(fixture.metrics().summary, by_hand(&[record(501)], generation));
    assert_eq!(fixture.totals(&Filter::default(), &[]).totals.all().requests, 501, "history is still there");
    let since = Filter { since_reset: true, ..Filter::default() };
    assert_eq!(fixture.ids(&since), [id(501)]);
    fixture.check_sums();
}

#[test]
fn turns_beside_an_answer_are_summed_and_counted_tokens_are_not_and_both_can_be_taken_away_again() {
    let tokens = |input, output| Tokens { input, output, ..Tokens::default() };
    let (mut answered, mut counted) = (record(0), record(24));
    let turn = |kind, tokens| Iteration { kind, model: None, tokens, ttl_assumed: false };
    answered.usage = Some(Usage {
        tokens: tokens(100, 50),
        iterations: vec![
            turn(IterationKind::Compaction, tokens(10_000, 500)),
            turn(IterationKind::Fallback, tokens(100, 50)),
            turn(IterationKind::Advisor, tokens(2000, 300)),
        ],
        ..Usage::default()
    });
    counted.usage = Some(Usage { tokens: tokens(70_000, 0), ..Usage::default() });
    assert_eq!(counted.operation, Operation::CountTokens);
    let mut fixture = with(&[answered.clone(), counted.clone()]);
    fixture.check_sums();
    let of = |fixture: &Fixture, filter: &Filter, keys: &[Key]| {
        let all = fixture.totals(filter, keys).totals.all();
        (all.requests, all.input, all.output)
    };
    let since = Filter { since_us: Some(answered.started_us), ..Filter::default() };
    for keys in [&[][..], &[Key::Day], &[Key::Model], &[Key::Session], &[Key::Outcome], &[Key::Operation]] {
        assert_eq!(of(&fixture, &Filter::default(), keys), (2, 12_100, 850), "{keys:?}");
        assert_eq!(of(&fixture, &since, keys), (2, 12_100, 850), "{keys:?}");
    }
    let asked = Filter { operation: Some(Operation::CountTokens), ..Filter::default() };
    assert_eq!(of(&fixture, &asked, &[]), (1, 70_000, 0), "who asks for it gets it");
    purge_all(&mut fixture, &Purge::Id(answered.id));
    fixture.check_sums();
    assert_eq!(of(&fixture, &Filter::default(), &[Key::Model]), (1, 0, 0));
}

#[test]
fn history_is_priced_again_and_the_sums_follow() {
    let records = samples(1200);
    let mut fixture = with(&records);
    let filter = Filter { since_us: Some(EPOCH_US + 100 * STEP_US), ..Filter::default() };
    let mut price = |record: &Record| {
        let tokens = record.usage.as_ref()?.tokens;
        let cost = (record.id != id(700)).then_some(NanoUsd(tokens.total() as i64));
        Some(Priced { cost, version: Some("new".into()), ..Priced::default() })
    };
    let (mut after, mut steps, mut changed) = (0, 0, 0);
    loop {
        let Progress { changed: now, next, .. } = fixture.writer.reprice(&filter, after, &mut price).unwrap();
        (steps, changed) = (steps + 1, changed + now);
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut want = records.clone();
    let mut due = 0;
    for record in &mut want[100..] {
        if let Some(usage) = &record.usage {
            record.cost = (record.id != id(700)).then_some(NanoUsd(usage.tokens.total() as i64));
            record.price_version = Some("new".into());
            due += 1;
        }
    }
    assert_eq!((changed, steps), (due, 3));
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Day]).totals, by_hand(&want, |_| true));
    assert_eq!(fixture.reader().get(id(800)).unwrap().unwrap().record, want[800]);
    assert_eq!(fixture.totals(&Filter::default(), &[]).totals.all().unpriced, 1);
    fixture.check_sums();
    let again = fixture.writer.reprice(&filter, 0, &mut price).unwrap();
    assert_eq!(again.changed, 0, "the second time nothing changes");
}

fn purge_all(fixture: &mut Fixture, what: &Purge) -> u64 {
    let mut removed = 0;
    loop {
        let step = fixture.writer.purge(what).unwrap();
        removed += step.changed;
        if step.next.is_none() {
            fixture.writer.scrub().unwrap();
            return removed;
        }
    }
}

#[test]
fn what_is_purged_is_gone_from_rows_sums_and_the_file() {
    let records = samples(1500);
    let mut fixture = with(&records);
    assert_eq!(purge_all(&mut fixture, &Purge::Id(id(5))), 1);
    assert_eq!(purge_all(&mut fixture, &Purge::Id(id(5))), 0);
    fixture.check_sums();
    let session = records[75].parties.session.clone().unwrap();
    let file = || {
        let wal = fixture.store.path.with_extension("db-wal");
        [std::fs::read(&fixture.store.path).unwrap(), std::fs::read(wal).unwrap_or_default()].concat()
    };
    let holds = |bytes: &[u8]| bytes.windows(session.len()).any(|part| part == session.as_bytes());
    fixture.writer.load(&Batch { records: &[], segment: "s", position: 1, complete: false }).unwrap();
    assert!(holds(&file()));
    let purged = Purge::Session(session.to_string());
    let again = |fixture: &mut Fixture| purge_all(fixture, &purged);
    assert_eq!(again(&mut fixture), 50);
    let wal = fixture.store.path.with_extension("db-wal");
    let bytes = [std::fs::read(&fixture.store.path).unwrap(), std::fs::read(wal).unwrap_or_default()].concat();
    assert!(!holds(&bytes), "not a trace of it is left in the file");
    fixture.check_sums();
    let left = by_hand(&records, |r| r.id != id(5) && r.parties.session.as_ref() != Some(&session));
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Session]).totals, left);
    let before = EPOCH_US + 1000 * STEP_US;
    assert_eq!(purge_all(&mut fixture, &Purge::Before(before)), 949);
    fixture.check_sums();
    let size = fixture.writer.size().unwrap();
    assert_eq!(size.oldest_us, Some(before));
    assert_eq!(purge_all(&mut fixture, &Purge::All), 500);
    assert_eq!(fixture.totals(&Filter::default(), &[]).totals, Totals::default());
    assert!(fixture.writer.size().unwrap().bytes < size.bytes);
}

#[test]
fn what_goes_by_age_stays_in_the_sums() {
    let records = samples(1200);
    let mut fixture = with(&records);
    let before = EPOCH_US + 700 * STEP_US;
    let mut removed = 0;
    loop {
        let step = fixture.writer.trim(before).unwrap();
        removed += step.changed;
        if step.next.is_none() {
            break;
        }
    }
    assert_eq!(removed, 700);
    assert_eq!(fixture.rows(&Filter { limit: Some(5000), ..Filter::default() }).len(), 500);
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Day]).totals, by_hand(&records, |_| true));
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Session]).totals, by_hand(&records, |_| true));
    assert_eq!(purge_all(&mut fixture, &Purge::Before(EPOCH_US + 1000 * STEP_US)), 300);
    let left = fixture.totals(&Filter::default(), &[Key::Session]).totals;
    assert_eq!(left, by_hand(&records[1000..], |_| true), "a wish of the user's removes what went by age as well");
}

#[test]
fn absurd_numbers_of_a_hostile_upstream_break_no_sum() {
    let mut fixture = empty();
    let most = u64::MAX;
    for n in 0..300 {
        let mut absurd = record(n);
        let cache_write = CacheWrite { m5: most, m30: most, h1: most, h12: most };
        let tokens = Tokens { input: most, cache_read: most, cache_write, output: most };
        absurd.usage = Some(Usage { tokens, web_search: most, ..Usage::default() });
        absurd.cost = Some(NanoUsd(i64::MAX));
        (absurd.duration_us, absurd.first_token_us, absurd.bytes_in, absurd.bytes_out) =
            (Some(most), Some(most), most, most);
        absurd.estimated_output = Some(most);
        fixture.load(&[absurd]);
    }
    let all = fixture.totals(&Filter::default(), &[Key::Day]).totals.all();
    assert_eq!((all.requests, all.input, all.cache_write, all.failed), (300, 0, 0, 8), "nobody uses that much");
    assert_eq!((all.usage_unknown, all.unpriced), (300, 0), "what was used is not known, and that is counted");
    assert_eq!(
        fixture.rows(&Filter::default())[0].record.usage.as_ref().unwrap().tokens.input,
        most,
        "the record keeps it"
    );
    fixture.check_sums();
}

#[test]
fn how_far_a_segment_is_loaded_is_remembered_until_it_is_gone() {
    let mut fixture = empty();
    assert_eq!(fixture.writer.position("a").unwrap(), 0);
    let step = |position, complete| Batch { records: &[], segment: "a", position, complete };
    fixture.writer.load(&step(10, false)).unwrap();
    fixture.writer.load(&step(7, false)).unwrap();
    assert_eq!(fixture.writer.position("a").unwrap(), 10, "it never goes back");
    fixture.writer.load(&step(12, true)).unwrap();
    fixture.writer.forget_segments_but(&["a".into()]).unwrap();
    assert_eq!(fixture.writer.position("a").unwrap(), 12);
    fixture.writer.forget_segments_but(&[]).unwrap();
    assert_eq!(fixture.writer.position("a").unwrap(), 0);
}

#[test]
fn a_locked_store_says_so_and_takes_everything_afterwards() {
    let mut fixture = empty();
    let other = Connection::open(&fixture.store.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let records = samples(5);
    let batch = Batch { records: &records, segment: "s", position: 1, complete: false };
    assert_eq!(fixture.writer.load(&batch), Err(StoreError::Busy));
    assert!(fixture.rows(&Filter::default()).is_empty(), "readers are not disturbed");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(fixture.writer.load(&batch).unwrap().new, 5);
}

#[test]
fn a_reader_that_stands_still_does_not_make_the_store_grow_without_end() {
    let folder = tempfile::tempdir().unwrap();
    let most = 1_000_000;
    let store = Sqlite::new(folder.path().join("ledger.db")).beside_at_most(most);
    let mut writer = store.writer().unwrap();
    let records = samples(3000);
    let mut batches = records.chunks(20).map(|records| Batch { records, segment: "s", position: 1, complete: false });
    writer.load(&batches.next().unwrap()).unwrap();
    let reader = Connection::open(&store.path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM record").unwrap();
    let refused = batches.find(|batch| writer.load(batch) == Err(StoreError::Busy)).expect("it grew without end");
    let beside = || std::fs::metadata(super::with(&store.path, "-wal")).unwrap().len();
    assert!((most..2 * most).contains(&beside()), "{}", beside());
    reader.execute_batch("COMMIT").unwrap();
    writer.load(&refused).unwrap();
    for batch in batches {
        writer.load(&batch).unwrap();
        assert!(beside() < 2 * most, "{}", beside());
    }
    writer.idle().unwrap();
    assert_eq!(beside(), 0);
    assert_eq!(writer.size().unwrap().records, 3000);
}
