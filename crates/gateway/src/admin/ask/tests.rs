use super::*;
use ledger::sample;
use ledger::store::sqlite::Sqlite;
use ledger::store::{Batch, Store};

fn question(target: &str) -> Result<Question, String> {
    Question::of(target).unwrap().map_err(|why| why.to_string())
}

/// What a store with these many records tells.
fn told(records: u64, target: &str) -> Result<Value, String> {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::new(folder.path().join("ledger.db"));
    let records: Vec<_> = (0..records).map(sample::record).collect();
    let batch = Batch { records: &records, segment: "s", position: 1, complete: false };
    store.writer().unwrap().load(&batch).unwrap();
    let mut reader = store.reader().unwrap();
    match question(target)?.ask(&mut *reader, &Bodied::None) {
        Ok(Told::Json(value)) => Ok(value),
        Ok(Told::Bytes(_)) => panic!("bytes"),
        Err(why) => Err(why.to_string()),
    }
}

#[test]
fn paths_and_queries_are_questions() {
    assert!(
        matches!(question("/gateway/audit?failed&limit=7"), Ok(Question::Records(f)) if f.failed && f.limit == Some(7))
    );
    assert!(matches!(question("/gateway/audit?grep=a.b"), Ok(Question::Search(..))));
    assert!(matches!(question("/gateway/audit/last-error"), Ok(Question::Record(w)) if w == "last-error"));
    assert!(matches!(question("/gateway/audit/1a2b/request"), Ok(Question::Body(_, Kind::Request))));
    assert!(matches!(question("/gateway/costs"), Ok(Question::Sums(_, keys, _)) if keys == [Key::Day]));
    assert!(matches!(question("/gateway/costs?by=model,day"), Ok(Question::Sums(_, keys, _)) if keys.len() == 2));
    assert!(matches!(question("/gateway/sessions?since=2h"), Ok(Question::Sessions(f)) if f.since_us.is_some()));
    for none in ["/gateway/nothing", "/gateway/audit/1a2b/else", "/gateway/cost"] {
        assert!(Question::of(none).is_none(), "{none}");
    }
}

#[test]
fn a_question_that_says_nothing_is_refused_with_what_it_may_be() {
    for (target, want) in [
        ("/gateway/audit?sinse=2h", "`since`"),
        ("/gateway/audit?limit=0", "from 1 to 100000"),
        ("/gateway/audit?grep=(", "correct it"),
        ("/gateway/costs?by=colour", "`project`"),
        ("/gateway/costs?by=day,model,agent,session", "`project`"),
        ("/gateway/costs?zone=here", "`3600`"),
        ("/gateway/audit?since=soon", "no time"),
        ("/gateway/audit?since=2h&since=3h", "`since` is given twice"),
        ("/gateway/costs?by=day&by=model", "`by` is given twice"),
        ("/gateway/audit?model=%f0", "cannot be read"),
        ("/gateway/audit?since=1h&until=2h", "nothing lies between"),
        ("/gateway/limits?model=m", "only `provider`"),
        ("/gateway/limits?failed", "only `provider`"),
    ] {
        let why = question(target).unwrap_err();
        assert!(why.contains(want), "{target}: {why}");
    }
}

#[test]
fn days_are_those_of_the_one_who_asks() {
    // The clock's zone comes after the time in the query, and holds for it all the same.
    let Ok(Question::Records(here)) = question("/gateway/audit?since=2026-11-22&zone=3600") else { panic!() };
    let Ok(Question::Records(utc)) = question("/gateway/audit?since=2026-11-22") else { panic!() };
    assert_eq!(utc.since_us.unwrap() - here.since_us.unwrap(), 3_600_000_000);
}

#[test]
fn records_come_the_last_first_and_are_found_by_parts_of_their_ids() {
    let list = told(10, "/gateway/audit?limit=3").unwrap();
    let ids: Vec<&str> = list["records"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [9, 8, 7].map(|n| sample::id(n).to_string()));
    for word in [sample::id(4).to_string(), sample::id(4).short(), sample::id(4).short()[..6].to_owned()] {
        let one = told(10, &format!("/gateway/audit/{word}")).unwrap();
        assert_eq!(one["record"]["id"], sample::id(4).to_string(), "{word}");
    }
    assert_eq!(told(10, "/gateway/audit/last").unwrap()["record"]["seq"], 10);
    let why = told(10, "/gateway/audit/ffff0000").unwrap_err();
    assert_eq!(why, "no exchange is known as `ffff0000`");
}

#[test]
fn sums_have_their_keys_and_add_up() {
    let told = told(300, "/gateway/costs?by=model,project").unwrap();
    assert_eq!(told["by"], json!(["model", "project"]));
    let groups = told["groups"].as_array().unwrap();
    assert!(groups.len() > 4 && groups.iter().all(|group| group["model"].is_string() && group["project"].is_string()));
    let requests: i64 = groups.iter().map(|group| group["requests"].as_i64().unwrap()).sum();
    assert_eq!((requests, &told["total"]["requests"]), (300, &json!(300)));
}

#[test]
fn sessions_hold_their_agents() {
    let told = told(300, "/gateway/sessions?limit=2").unwrap();
    let sessions = told["sessions"].as_array().unwrap();
    assert_eq!((sessions.len(), &told["more"], &told["total"]["requests"]), (2, &json!(true), &json!(300)));
    for session in sessions {
        assert_eq!(session["requests"], 50);
        assert!(session["agents"].as_array().is_some_and(|agents| !agents.is_empty()), "{session}");
    }
}

#[test]
fn without_bodies_there_is_nothing_to_search_or_to_show() {
    assert!(told(3, "/gateway/audit?grep=x").unwrap_err().contains("no bodies are kept"));
    let why = told(3, "/gateway/audit/last/request").unwrap_err();
    assert!(why.starts_with(&sample::id(2).to_string()) && why.contains("nothing of it is kept"), "{why}");
}
