//! What is asked of a store: filters, lists, sums, ids and sessions.

use super::*;

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
fn a_question_that_takes_too_long_is_ended_and_the_next_one_is_not() {
    let fixture = with(&samples(3000));
    let hasty = fixture.store.clone().question(Duration::ZERO);
    let filter = Filter { session: Some("*a*b*".into()), limit: Some(MOST), ..Filter::default() };
    let mut reader = hasty.reader().unwrap();
    assert_eq!(reader.totals(&filter, &[Key::Day, Key::Session], UTC), Err(StoreError::TooLong));
    assert_eq!(reader.get(id(1)).unwrap().map(|row| row.record.id), Some(id(1)));
}
