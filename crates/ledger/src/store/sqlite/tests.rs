//! The store over real files.

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
fn filters_mean_the_same_for_rows_and_for_sums() {
    let mut records = samples(2000);
    records.iter_mut().step_by(37).for_each(|record| record.parties.session = None);
    some_in_runs(&mut records);
    let fixture = with(&records);
    let quarter = 900_000_000;
    let t = |n: i64| EPOCH_US + n * STEP_US;
    #[track_caller]
    fn check(fixture: &Fixture, records: &[Record], filter: Filter, meant: impl Fn(&Record) -> bool) {
        let mut want: Vec<Id> = records.iter().filter(|r| meant(r)).map(|r| r.id).collect();
        assert!(!want.is_empty(), "a filter that finds nothing shows nothing");
        want.reverse();
        let filter = Filter { limit: Some(5000), ..filter };
        assert_eq!(fixture.ids(&filter), want);
        let totals = by_hand(records, &meant);
        for keys in [
            &[][..],
            &[Key::Model],
            &[Key::Day, Key::Project],
            &[Key::Session],
            &[Key::Agent, Key::Outcome],
            &[Key::Agent, Key::AgentId],
            &[Key::AgentType],
            &[Key::Day, Key::AgentType],
        ] {
            let groups = fixture.totals(&filter, keys);
            assert_eq!(groups.totals, totals, "{keys:?}");
            let mut sum = Totals::default();
            groups.groups.iter().for_each(|group| sum.add(&group.totals));
            assert_eq!(sum, if keys.is_empty() { Totals::default() } else { totals }, "{keys:?}");
            assert!(!groups.more);
        }
    }
    let c = |filter: Filter, meant: &dyn Fn(&Record) -> bool| check(&fixture, &records, filter, meant);
    let f = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    c(f(), &|_| true);
    c(Filter { model: text("claude-opus-5-5"), ..f() }, &|r| r.parties.model.as_deref() == Some("claude-opus-5-5"));
    c(Filter { model: text("claude-*-5-5"), ..f() }, &|r| r.parties.model.as_ref().unwrap().starts_with("claude-"));
    c(Filter { provider: text("deepseek"), ..f() }, &|r| r.parties.provider.as_deref() == Some("deepseek"));
    c(Filter { project: text("infra"), ..f() }, &|r| r.parties.project.as_deref() == Some("infra"));
    c(Filter { agent: text("Explore"), ..f() }, &|r| r.parties.agent_type.is_some());
    c(Filter { agent_type: text("Expl*"), ..f() }, &|r| r.parties.agent_type.is_some());
    c(Filter { agent_type: text("Explore"), since_us: Some(t(100)), ..f() }, &|r| {
        r.parties.agent_type.is_some() && r.started_us >= t(100)
    });
    let agent = records[3].parties.agent.clone().unwrap();
    c(Filter { agent: text(&agent), ..f() }, &|r| r.parties.agent.as_ref() == Some(&agent));
    let session = records[120].parties.session.clone().unwrap();
    c(Filter { session: text(&session), ..f() }, &|r| r.parties.session.as_ref() == Some(&session));
    c(Filter { session: text(""), ..f() }, &|r| r.parties.session.is_none());
    c(Filter { run: text("run-1"), ..f() }, &|r| r.parties.run.as_deref() == Some("run-1"));
    c(Filter { run: text("run-1"), since_us: Some(t(100)), until_us: Some(t(300)), ..f() }, &|r| {
        r.parties.run.as_deref() == Some("run-1") && (t(100)..t(300)).contains(&r.started_us)
    });
    c(Filter { run: text(""), ..f() }, &|r| r.parties.run.is_none());
    c(Filter { agent: text(""), ..f() }, &|r| r.parties.agent.is_none());
    c(Filter { operation: Some(Operation::CountTokens), ..f() }, &|r| r.operation == Operation::CountTokens);
    c(Filter { failed: true, ..f() }, &|r| r.outcome == Outcome::UpstreamError);
    c(Filter { simulated: Some(true), ..f() }, &|r| r.parties.simulated);
    c(Filter { simulated: Some(false), failed: true, ..f() }, &|r| !r.parties.simulated && r.outcome.is_failure());
    c(Filter { since_us: Some(t(100)), ..f() }, &|r| r.started_us >= t(100));
    c(Filter { since_us: Some(t(100) + 1), until_us: Some(t(900)), ..f() }, &|r| {
        (t(100) + 1..t(900)).contains(&r.started_us)
    });
    c(Filter { until_us: Some(t(3)), ..f() }, &|r| r.started_us < t(3));
    let (from, to) = (EPOCH_US + quarter, EPOCH_US + 4 * quarter);
    c(Filter { since_us: Some(from), until_us: Some(to), ..f() }, &|r| (from..to).contains(&r.started_us));
    c(Filter { since_us: Some(t(5)), until_us: Some(t(9)), ..f() }, &|r| (t(5)..t(9)).contains(&r.started_us));
}

#[test]
fn a_name_with_signs_that_mean_something_to_sql_is_only_a_name() {
    let mut odd = record(1);
    odd.parties.project = Some("100%_'; DROP TABLE record; --".into());
    let fixture = with(&[odd.clone(), record(2)]);
    let project = |name: &str| Filter { project: Some(name.into()), ..Filter::default() };
    assert_eq!(fixture.ids(&project("100%_'; DROP TABLE record; --")), [odd.id]);
    assert_eq!(fixture.ids(&project("100%_*")), [odd.id]);
    assert!(fixture.ids(&project("%*")).is_empty() && fixture.ids(&project("100_*")).is_empty());
    assert_eq!(fixture.ids(&project("*")).len(), 2);
}

#[test]
fn lists_are_bounded_paged_and_followed_in_the_order_of_recording() {
    let fixture = with(&samples(250));
    assert_eq!(fixture.rows(&Filter::default()).len(), 100);
    let first = fixture.rows(&Filter { limit: Some(3), ..Filter::default() });
    assert_eq!(first.iter().map(|row| row.record.id).collect::<Vec<_>>(), [id(249), id(248), id(247)]);
    let next = Filter { limit: Some(2), before_seq: Some(first[2].seq), ..Filter::default() };
    assert_eq!(fixture.ids(&next), [id(246), id(245)]);
    let follow = Filter { after_seq: Some(first[1].seq), ..Filter::default() };
    assert_eq!(fixture.ids(&follow), [id(249)]);
    assert_eq!(fixture.totals(&follow, &[]).totals.all().requests, 1);
}

#[test]
fn a_clock_that_goes_back_changes_neither_the_order_nor_the_counting() {
    let mut fixture = with(&[record(1000)]);
    let mut back = record(2);
    back.ended_us = back.started_us - 3_600_000_000;
    let duration_us = back.duration_us;
    fixture.writer.reset(EPOCH_US * 2).unwrap();
    fixture.load(&[back]);
    assert_eq!(fixture.ids(&Filter::default()), [id(2), id(1000)], "the last recorded is the last");
    assert_eq!(fixture.rows(&Filter::default())[0].record.duration_us, duration_us);
    assert_eq!(fixture.metrics().summary.all().requests, 1, "what comes after a reset counts, whatever its clock says");
    let mut before_time = record(3);
    before_time.started_us = -5;
    fixture.load(&[before_time]);
    assert_eq!(fixture.rows(&Filter::default())[0].record.started_us, 0);
    fixture.check_sums();
}

#[test]
fn a_day_is_that_of_the_users_clock_and_sums_up_the_same() {
    let records = samples(20_000);
    let fixture = with(&records);
    let nepal: crate::query::Zone<'_> = &|_| 20_700;
    let days = fixture.reader().totals(&Filter::default(), &[Key::Day], nepal).unwrap();
    let names: Vec<&str> = days.groups.iter().map(|group| &*group.keys[0]).collect();
    assert_eq!(names, ["2026-11-01", "2026-11-02", "2026-11-03"]);
    for group in &days.groups {
        let day = |r: &Record| crate::query::day(r.started_us / 1_000_000, nepal);
        assert_eq!(group.totals, by_hand(&records, |r| day(r) == group.keys[0]));
    }
}

#[test]
fn an_exchange_is_found_by_the_beginning_of_its_short_or_its_whole_id() {
    let fixture = with(&samples(50));
    let find = |text: &str| fixture.reader().find(text).unwrap();
    let seven = Found::One(Box::new(fixture.reader().get(id(7)).unwrap().unwrap()));
    let (whole, short) = (id(7).to_string(), id(7).short());
    for text in [&*whole, &whole[..20], &whole.replace('-', ""), &short, &short.to_uppercase(), &short[..5]] {
        assert_eq!(find(text), seven, "{text}");
    }
    let Found::Many(rows) = find(&whole[..6]) else { panic!("it is the time, which all have in common") };
    assert_eq!(rows.iter().map(|row| row.record.id).collect::<Vec<_>>(), (40..50).rev().map(id).collect::<Vec<_>>());
    for nothing in ["", "-", "xyz1", "ffffffff-ffff", &format!("{}0", id(7)), "last-", "%", "é"] {
        assert_eq!(find(nothing), Found::None, "{nothing}");
    }
    assert_eq!(fixture.reader().get(id(7)).unwrap().unwrap().record, record(7));
    assert_eq!(fixture.reader().get(Id(0)).unwrap(), None);
}

/// Ids that differ in what it says only.
fn with_tail(n: u64, tail: u32) -> Record {
    let mut record = record(n);
    record.id = Id(id(n).0 >> 32 << 32 | u128::from(tail));
    record
}

#[test]
fn what_begins_more_than_one_short_id_names_the_candidates() {
    let tails = [0xabcd_0001, 0xabcd_0002, 0xabce_0000, 0x0193_0000];
    let records: Vec<Record> = tails.iter().zip(0..).map(|(tail, n)| with_tail(n, *tail)).collect();
    let fixture = with(&records);
    let find = |text: &str| match fixture.reader().find(text).unwrap() {
        Found::One(row) => vec![row.record.id],
        Found::None => vec![],
        Found::Many(rows) => rows.into_iter().map(|row| row.record.id).collect(),
    };
    let ids = |n: &[usize]| n.iter().map(|n| records[*n].id).collect::<Vec<_>>();
    assert_eq!(find("abc"), ids(&[2, 1, 0]));
    assert_eq!(find("abcd"), ids(&[1, 0]));
    assert_eq!(find("abcd0001"), ids(&[0]));
    assert_eq!(find("ABCE"), ids(&[2]));
    assert_eq!(find("0193"), ids(&[3]), "the short id counts, not the time that all others begin with");
}

#[test]
fn the_last_exchange_and_the_last_error_are_found_by_these_words() {
    let mut fixture = empty();
    let find = |fixture: &Fixture, word: &str| match fixture.reader().find(word).unwrap() {
        Found::One(row) => Some(row.record.id),
        other => (other != Found::None).then(|| panic!("{other:?}")),
    };
    assert_eq!((find(&fixture, "last"), find(&fixture, "last-error")), (None, None));
    fixture.load(&samples(30));
    assert_eq!((find(&fixture, "last"), find(&fixture, "last-error")), (Some(id(29)), Some(id(17))));
}

#[test]
fn sessions_come_with_their_agents_the_last_recorded_first() {
    let mut records = samples(500);
    records[499].parties.session = None;
    some_in_runs(&mut records);
    let fixture = with(&records);
    let name = |n: u64| record(n * 50).parties.session.map_or_else(String::new, String::from);
    let two = fixture.reader().sessions(&Filter { limit: Some(2), ..Filter::default() }).unwrap();
    assert_eq!(two.sessions.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), [String::new(), name(9)]);
    assert!(two.more);
    assert_eq!(two.totals, by_hand(&records, |_| true), "the total is over all");
    let all = fixture.reader().sessions(&Filter::default()).unwrap();
    assert_eq!((all.sessions.len(), all.more), (11, false));
    let ninth = &all.sessions[1];
    assert_eq!(ninth.totals, by_hand(&records[450..499], |_| true));
    assert_eq!((ninth.first_us, ninth.last_us), (records[450].started_us, records[498].started_us));
    assert_eq!(ninth.projects, [record(450).parties.project.unwrap().to_string()]);
    let agent = record(453).parties.agent.unwrap();
    assert_eq!(ninth.agents.iter().map(|a| (&*a.id, &*a.kind)).collect::<Vec<_>>(), [("", ""), (&*agent, "Explore")]);
    assert_eq!(ninth.agents[1].totals, by_hand(&records[450..499], |r| r.parties.agent.is_some()));

    // The same from every source of sums.
    let t = |n: i64| EPOCH_US + n * STEP_US;
    let f = Filter::default;
    let check = |filter: Filter, meant: &dyn Fn(&Record) -> bool| {
        let found = fixture.reader().sessions(&filter).unwrap();
        assert!(!found.sessions.is_empty() && found.totals == by_hand(&records, meant), "{filter:?}");
        for session in &found.sessions {
            let of = |r: &&Record| r.parties.session.as_deref().unwrap_or_default() == session.id;
            let records: Vec<Record> = records.iter().filter(of).cloned().collect();
            assert_eq!(session.totals, by_hand(&records, meant), "{filter:?} {}", session.id);
        }
    };
    check(Filter { failed: true, ..f() }, &|r| r.outcome.is_failure());
    check(Filter { since_us: Some(t(120)), until_us: Some(t(260)), ..f() }, &|r| {
        (t(120)..t(260)).contains(&r.started_us)
    });
    check(Filter { agent_type: Some("Explore".into()), ..f() }, &|r| r.parties.agent_type.is_some());
    check(Filter { session: Some(name(3)), ..f() }, &|r| r.parties.session.as_deref() == Some(&*name(3)));
    check(Filter { run: Some("run-*".into()), since_us: Some(t(120)), ..f() }, &|r| {
        r.parties.run.is_some() && r.started_us >= t(120)
    });
    check(Filter { session: Some(String::new()), failed: false, ..f() }, &|r| r.parties.session.is_none());
}

#[test]
fn a_list_that_is_too_long_is_cut_and_its_sum_is_not() {
    let mut records = samples(read::GROUPS as u64 * 4);
    records.iter_mut().for_each(|record| record.parties.session = Some(record.id.to_string().into()));
    let fixture = with(&records);
    let since = EPOCH_US + 100 * STEP_US;
    for filter in [Filter::default(), Filter { since_us: Some(since), ..Filter::default() }] {
        let groups = fixture.totals(&filter, &[Key::Session]);
        assert_eq!((groups.groups.len(), groups.more), (read::GROUPS, true));
        assert_eq!(groups.totals, by_hand(&records, |r| filter.since_us.is_none_or(|since| r.started_us >= since)));
        let dearest = records.iter().filter(|r| !r.parties.notional && !r.parties.simulated).max_by_key(|r| r.cost);
        assert_eq!(groups.groups[0].keys[0], dearest.unwrap().id.to_string());
    }
}

#[test]
fn sessions_of_which_only_the_sums_are_left_are_listed_after_the_others() {
    let mut fixture = with(&samples(200));
    let before = fixture.reader().sessions(&Filter::default()).unwrap();
    while fixture.writer.trim(EPOCH_US + 100 * STEP_US).unwrap().next.is_some() {}
    let after = fixture.reader().sessions(&Filter::default()).unwrap();
    assert_eq!(after, before);
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

#[test]
fn a_question_that_takes_too_long_is_ended_and_the_next_one_is_not() {
    let fixture = with(&samples(3000));
    let hasty = fixture.store.clone().question(Duration::ZERO);
    let filter = Filter { session: Some("*a*b*".into()), limit: Some(MOST), ..Filter::default() };
    let mut reader = hasty.reader().unwrap();
    assert_eq!(reader.totals(&filter, &[Key::Day, Key::Session], UTC), Err(StoreError::TooLong));
    assert_eq!(reader.get(id(1)).unwrap().map(|row| row.record.id), Some(id(1)));
}

/// As programs wrote a record that knew forms up to the fourth.
mod before_five {
    use rusqlite::{Statement, params};

    use super::super::row;
    use crate::record::Record;

    pub(super) const INSERT: &str = "INSERT INTO record (id, epoch, operation, outcome, kind, started_us, ended_us, protocol, \
        endpoint, stream, session, agent, parent_agent, agent_type, project, caller, requested_model, provider, model, status, \
        stop_reason, upstream_request_id, usage, estimated_output, usage_unknown, cost, price_version, first_byte_us, \
        first_token_us, duration_us, bytes_in, bytes_out, credential, error, attempts, losses, \
        input, cache_read, cache_write, output, web_searches, estimated, unpriced) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
        ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40, ?41, ?42, ?43) \
        ON CONFLICT (id) DO NOTHING";

    pub(super) fn insert(statement: &mut Statement<'_>, epoch: i64, record: &Record) -> rusqlite::Result<usize> {
        fn list<T: serde::Serialize>(list: &[T]) -> Option<String> {
            (!list.is_empty()).then(|| serde_json::to_string(list).unwrap())
        }
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let some = |n: Option<u64>| n.map(int);
        let p = &record.parties;
        let usage = record.usage.as_ref().map(|usage| serde_json::to_string(usage).unwrap());
        let tokens = record.usage.as_ref().map(|usage| usage.tokens).unwrap_or_default();
        let searches = record.usage.as_ref().map_or(0, |usage| usage.web_search);
        statement.execute(params![
            record.id.to_bytes(),
            epoch,
            record.operation.as_str(),
            record.outcome.as_str(),
            row::kind(p),
            // The year 1970 is where clocks begin that were never set.
            record.started_us.max(0),
            record.ended_us.max(0),
            p.protocol,
            p.endpoint,
            p.stream,
            p.session,
            p.agent,
            p.parent_agent,
            p.agent_type,
            p.project,
            p.caller,
            p.requested_model,
            p.provider,
            p.model,
            record.status,
            record.stop_reason,
            record.upstream_request_id,
            usage,
            some(record.estimated_output),
            record.usage_unknown,
            record.cost.map(|cost| cost.0),
            record.price_version,
            some(record.first_byte_us),
            some(record.first_token_us),
            some(record.duration_us),
            int(record.bytes_in),
            int(record.bytes_out),
            record.credential.as_ref().map(|key| key.as_str()),
            record.error,
            list(&record.attempts),
            list(&record.losses),
            row::count(tokens.input),
            row::count(tokens.cache_read),
            row::count(tokens.cache_write.total()),
            row::count(record.output()),
            row::count(searches),
            record.is_estimated(),
            row::is_unpriced(record),
        ])
    }
}

const V1: &[Migration] = SQLITE.split_at(1).0;
const V4: &[Migration] = SQLITE.split_at(4).0;

/// A store of an old form, with these records.
fn of_form(steps: &'static [Migration], path: &Path, records: &[Record]) {
    let store = Sqlite::new(path).steps(steps);
    let db = store.open().unwrap();
    let mut insert = db.prepare(before_five::INSERT).unwrap();
    for record in records {
        assert_eq!(before_five::insert(&mut insert, 1, record).unwrap(), 1);
    }
}

#[test]
fn a_store_of_the_fourth_form_is_compacted_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let mut records = samples(700);
    records[5].parties.model = None;
    records[6].parties.requested_model = None;
    records[7] = Record::new(start(7), Outcome::Rejected);
    records[8].losses = vec!["a \"loss\"".into()];
    records[9].parties.caller = Some("ana".into());
    (records[10].estimated_output, records[11].usage_unknown) = (Some(77_777), true);
    of_form(V4, &path, &records);
    let db = Connection::open(&path).unwrap();
    // The sums as the programs of then kept them, and one record that went by age: its place is not used again.
    let sums = |table: &str, key: &str| {
        let names = sums::COUNTERS[..17].join(", ");
        let sum: String = sums::COUNTERS[..17].iter().map(|name| format!(", sum({name})")).collect();
        let (more, values) = match table {
            "usage_time" => ("", ""),
            _ => (", first_us, last_us", ", min(started_us), max(started_us)"),
        };
        format!(
            "INSERT INTO {table} ({key}, {names}{more}) SELECT {key}{sum}{values} FROM record_usage GROUP BY {key};"
        )
    };
    let all: String = sums::SUMS.iter().map(|(table, key, _)| sums(table, key)).collect();
    db.execute_batch(&(all + "DELETE FROM record WHERE seq = 700")).unwrap();
    drop(db);
    let store = Sqlite::new(&path);
    let writer = store.writer().unwrap();
    let mut fixture = Fixture { _folder: folder, store, writer };
    let rows = fixture.rows(&Filter { limit: Some(5000), ..Filter::default() });
    let back: Vec<Record> = rows.into_iter().rev().map(|row| row.record).collect();
    assert_eq!(back, records[..699]);
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Session]).totals, by_hand(&records, |_| true));
    // Everything that looks for places finds them, of old records and of new ones.
    fixture.load(&(700..760).map(record).collect::<Vec<_>>());
    assert_eq!(fixture.rows(&Filter { limit: Some(1), ..Filter::default() })[0].seq, 760);
    let since = Filter { since_us: Some(EPOCH_US + 690 * STEP_US), limit: Some(5000), ..Filter::default() };
    assert_eq!(fixture.ids(&since).len(), 69);
    let until = Filter { until_us: Some(EPOCH_US + 10 * STEP_US), limit: Some(5000), ..Filter::default() };
    assert_eq!(fixture.ids(&until).len(), 10);
    let session = Filter { session: record(605).parties.session.map(String::from), ..Filter::default() };
    assert_eq!(fixture.ids(&session).len(), 50);
}

#[test]
fn a_store_of_the_first_form_is_brought_up_to_date_and_a_copy_of_it_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let records = samples(400);
    of_form(V1, &path, &records);
    let reader = Sqlite::new(&path).reader().map(drop);
    assert!(matches!(reader, Err(StoreError::Unavailable(_))), "a reader changes nothing: {reader:?}");
    let store = Sqlite::new(&path);
    let writer = store.writer().unwrap();
    let fixture = Fixture { _folder: folder, store, writer };
    assert_eq!(fixture.totals(&Filter::default(), &[Key::Model]).totals, by_hand(&records, |_| true));
    fixture.check_sums();
    let copy = fixture.store.copy(fixture.store.form());
    let kept = Connection::open(&copy).unwrap();
    let (form, rows): (u32, i64) = kept
        .query_row("SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM record)", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((form, rows), (1, 400));
    for file in [&fixture.store.path, &copy] {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

/// A file that was really written by a program of the first form, before there was a second.
#[test]
fn a_file_of_the_first_form_that_was_kept_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let dump = include_str!("../../../tests/data/form-1.sql");
    Connection::open(&path).unwrap().execute_batch(dump).unwrap();
    let mut writer = Sqlite::new(&path).writer().unwrap();
    assert_eq!(writer.position("0001-1-0").unwrap(), 4096);
    let mut reader = Sqlite::new(&path).reader().unwrap();
    let rows = reader.rows(&Filter::default()).unwrap();
    let back: Vec<Record> = rows.into_iter().map(|row| row.record).collect();
    assert_eq!(back, [record(17), record(3)]);
    assert_eq!(reader.totals(&Filter::default(), &[], UTC).unwrap().totals, by_hand(&back, |_| true));
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let fixture = with(&samples(3));
    let Fixture { _folder, store, mut writer } = fixture;
    Connection::open(&store.path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let newer = StoreError::Newer { found: 99, known: SQLITE.len() as u32 };
    assert_eq!(store.writer().map(drop), Err(newer.clone()));
    assert_eq!(store.reader().map(drop), Err(newer.clone()));
    let records = samples(4);
    let late = writer.load(&Batch { records: &records, segment: "s", position: 1, complete: false });
    assert_eq!(late, Err(newer.clone()), "also one that was open before");
    assert!(newer.to_string().contains("newer `cco`"));
    let rows: i64 =
        Connection::open(&store.path).unwrap().query_row("SELECT count(*) FROM record", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 3);
}

#[test]
fn a_store_whose_form_was_altered_is_refused() {
    let Fixture { _folder, store, writer } = empty();
    drop(writer);
    Connection::open(&store.path)
        .unwrap()
        .execute_batch("UPDATE migration SET checksum = 1 WHERE version = 2")
        .unwrap();
    assert_eq!(store.writer().map(drop), Err(StoreError::Altered { version: 2 }));
}

#[test]
fn the_database_of_another_program_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(Sqlite::new(&path).writer().map(drop), Err(StoreError::Foreign(path.clone())));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_damaged_store_is_named_never_replaced_and_can_be_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    std::fs::write(&path, vec![0x5A; 40_000]).unwrap();
    let store = Sqlite::new(&path);
    for _ in 0..2 {
        assert!(matches!(store.writer().map(drop), Err(StoreError::Corrupt(_))));
        assert!(matches!(store.reader().map(drop), Err(StoreError::Corrupt(_))));
    }
    let aside = store.set_aside().unwrap();
    assert_eq!(std::fs::read(aside).unwrap().len(), 40_000);
    store.writer().unwrap();
    store.reader().unwrap();
}

#[test]
fn damage_in_the_middle_of_the_file_is_an_error_of_its_kind() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path().join("ledger.db"));
    {
        let mut writer = store.writer().unwrap();
        writer.load(&Batch { records: &samples(500), segment: "s", position: 1, complete: false }).unwrap();
    }
    let mut bytes = std::fs::read(&store.path).unwrap();
    let middle = bytes.len() / 4;
    bytes[middle..].fill(0xA5);
    std::fs::write(&store.path, bytes).unwrap();
    let rows = store.reader().and_then(|mut reader| reader.rows(&Filter { limit: Some(1000), ..Filter::default() }));
    assert!(matches!(rows, Err(StoreError::Corrupt(_))), "{rows:?}");
}

#[test]
fn a_store_that_is_not_there_is_not_made_by_one_who_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deeper").join("ledger.db");
    assert_eq!(Sqlite::new(&path).reader().map(drop), Err(StoreError::Missing(path.clone())));
    assert!(!path.exists());
    Sqlite::new(&path).writer().unwrap();
    assert!(path.exists());
}

#[test]
fn who_comes_second_keeps_the_copy_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    of_form(V1, &path, &samples(3));
    let store = Sqlite::new(&path);
    // It has seen the first form, and then the other was quicker.
    let mut late = Connection::open(&path).unwrap();
    drop(store.writer().unwrap());
    store.migrate(&mut late, 1).unwrap();
    let copy = Connection::open(store.copy(store.form())).unwrap();
    let form: u32 = copy.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(form, 1);
}

#[test]
fn a_copy_goes_when_everything_in_it_is_too_old() {
    let mut fixture = with(&samples(3));
    let (old, young) = (fixture.store.copy(1), fixture.store.copy(2));
    for (copy, secs) in [(&old, EPOCH_US / 1_000_000 - 1), (&young, EPOCH_US / 1_000_000 + 1)] {
        let made = UNIX_EPOCH + Duration::from_secs(secs.unsigned_abs());
        std::fs::File::create(copy).unwrap().set_modified(made).unwrap();
    }
    fixture.writer.trim(EPOCH_US).unwrap();
    assert_eq!((old.exists(), young.exists()), (false, true));
}
