//! Stores of older forms, newer ones, and files that are none.

use super::*;

/// As programs wrote a record that knew forms up to the fourth.
mod before_five {
    use rusqlite::{Statement, params};

    use crate::record::Record;
    use crate::store::sqlite::row;

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
    let dump = include_str!("../../../../tests/data/form-1.sql");
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
