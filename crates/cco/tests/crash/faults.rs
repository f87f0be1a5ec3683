//! What can happen to the ledger's files: held by another program, made by a newer version, damaged, switched off, on a
//! disk that is full or cannot be written. Relaying goes on, nothing that was recorded is lost, and the user is told.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::account::{check_store, files, open, recovered, rows, segments, stored};
use crate::common::{Client, Gateway, Upstream, binary, lay_over, pause, prompt, request, soon, until, upstream};
use crate::rights::on_a_small_disk;
use crate::simulator::TAG;

/// Asks for a stream or a whole answer, and says how long that took.
async fn ask(client: &mut Client, tag: &str) -> Duration {
    let stream = tag.len().is_multiple_of(2);
    let fields = format!("{TAG}: {tag}\r\nx-sim: text=hello\r\n");
    let began = Instant::now();
    let answer = client.ask(request("POST", "/v1/messages", &fields, prompt("Hello.", stream))).await;
    assert_eq!(answer.status, 200, "{tag}: {}", answer.text());
    began.elapsed()
}

/// So many of them; all of them came, and none had to wait for anything but a busy machine.
async fn ask_many(gateway: &Gateway, name: &str, many: usize) -> Vec<String> {
    let mut client = gateway.client().await;
    let mut tags = vec![];
    for n in 0..many {
        let tag = format!("{name}-{n}");
        let took = ask(&mut client, &tag).await;
        assert!(took < Duration::from_secs(3), "{tag} took {took:?}");
        tags.push(tag);
    }
    tags
}

/// Waits until `/gateway/health` says of this part that it is in this state, and returns the cause it names.
async fn told(gateway: &Gateway, part: &str, state: &str) -> String {
    gateway.wait_for_health(|health| health[part]["state"] == state).await;
    gateway.health().await[part]["cause"].as_str().unwrap_or_default().to_owned()
}

/// A number of `/metrics`.
async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let page = gateway.ask(request("GET", "/metrics", "", "")).await;
    let line = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("there is no `{name}`")).parse().unwrap()
}

fn config(upstream: &Upstream, more: Value) -> String {
    let mut config = json!({
        "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } },
        "audit": { "journalWaitMs": 10_000 },
    });
    lay_over(&mut config, more);
    config.to_string()
}

async fn start(home: &Path, upstream: &Upstream, more: Value) -> Gateway {
    std::fs::write(home.join("config.json"), config(upstream, more)).unwrap();
    Gateway::start_in(home, &[], &[]).await
}

#[tokio::test]
async fn a_store_that_another_program_holds_delays_nobody_and_gets_everything_afterwards() {
    let (upstream, home) = (upstream().await, tempfile::tempdir().unwrap());
    let home = home.path();
    let mut gateway = start(home, &upstream, json!({})).await;
    let mut all = ask_many(&gateway, "before", 3).await;
    stored(home, &all).await;
    let holder = open(home);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    all.extend(ask_many(&gateway, "held", 40).await);
    assert_eq!(rows(home).len(), 3, "the store is held");
    let cause = told(&gateway, "ledger", "failing").await;
    assert!(cause.contains("locked by another program"), "{cause}");
    assert_eq!(metric(&gateway, "cco_store_up").await, 0);
    assert!(metric(&gateway, "cco_journal_behind_bytes").await > 0);
    holder.execute_batch("ROLLBACK").unwrap();
    stored(home, &all).await;
    told(&gateway, "ledger", "good").await;
    assert_eq!((metric(&gateway, "cco_store_up").await, metric(&gateway, "cco_unsettled_total").await), (1, 0));

    // Held at the end and at the beginning: the journal keeps it.
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let more = ask_many(&gateway, "at-the-end", 5).await;
    gateway.stop().await;
    assert!(segments(home) > 0, "what the store did not take stays in the journal");
    let mut gateway = start(home, &upstream, json!({})).await;
    all.extend(more);
    all.extend(ask_many(&gateway, "at-the-beginning", 5).await);
    holder.execute_batch("ROLLBACK").unwrap();
    stored(home, &all).await;
    gateway.stop().await;
    assert_eq!((rows(home).len(), segments(home)), (all.len(), 0));
    check_store(home);
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_left_as_it_is_and_the_journal_keeps_what_comes() {
    let (upstream, home) = (upstream().await, tempfile::tempdir().unwrap());
    let home = home.path();
    let mut gateway = start(home, &upstream, json!({})).await;
    let mut all = ask_many(&gateway, "before", 3).await;
    gateway.stop().await;
    let form: i32 = open(home).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    open(home).pragma_update(None, "user_version", 99).unwrap();
    let names = |home: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(home).unwrap().map(|file| file.unwrap().file_name()).collect();
        names.retain(|name| !name.to_str().unwrap().ends_with("-wal") && !name.to_str().unwrap().ends_with("-shm"));
        names.sort();
        names
    };
    let before = names(home);

    let mut gateway = start(home, &upstream, json!({})).await;
    all.extend(ask_many(&gateway, "meanwhile", 5).await);
    let cause = told(&gateway, "ledger", "failing").await;
    assert!(cause.contains("form 99") && cause.contains("newer"), "{cause}");
    let line = gateway.log_line(&["records wait in the journal", "form 99"]).await;
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!((metric(&gateway, "cco_ledger_good").await, metric(&gateway, "cco_ledger_readable").await), (0, 0));
    let totals = gateway.ask(request("GET", "/gateway/metrics", "", "")).await;
    let message = totals.refusal(503, "api_error");
    assert!(message.contains("form 99"), "no totals are better than those of an empty store: {message}");
    gateway.stop().await;
    let newer: i32 = open(home).query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!((newer, rows(home).len()), (99, 3), "it is as it was");
    assert_eq!(names(home), before, "no other store was begun");
    assert!(segments(home) > 0);

    open(home).pragma_update(None, "user_version", form).unwrap();
    let mut gateway = start(home, &upstream, json!({})).await;
    recovered(home).await;
    assert_eq!(rows(home).len(), all.len());
    gateway.stop().await;
    check_store(home);
}

/// What is done to the last segment of a process that was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// The last entry is not there to its end, as a crash in the middle of a write leaves it.
    Torn,
    /// Something else stands in the middle of the last entry.
    Wrong,
    /// Behind the last entry there is something that is none.
    Garbage,
}

#[tokio::test]
async fn a_damaged_last_entry_of_the_journal_costs_no_other() {
    for damage in [Damage::Torn, Damage::Wrong, Damage::Garbage] {
        let (upstream, home) = (upstream().await, tempfile::tempdir().unwrap());
        let home = home.path();
        let mut gateway = start(home, &upstream, json!({})).await;
        let mut all = ask_many(&gateway, "before", 2).await;
        stored(home, &all).await;
        // Nothing of what comes now gets further than to the journal.
        let holder = open(home);
        holder.execute_batch("BEGIN IMMEDIATE").unwrap();
        all.extend(ask_many(&gateway, "unloaded", 6).await);
        gateway.kill();
        gateway.ended().await;
        holder.execute_batch("ROLLBACK").unwrap();
        assert_eq!(rows(home).len(), 2, "the rest is in the journal alone");
        spoil(&only_segment(home), damage);

        let mut gateway = start(home, &upstream, json!({})).await;
        all.extend(ask_many(&gateway, "after", 2).await);
        recovered(home).await;
        stored(home, &all).await;
        let loaded = gateway.health().await["ledger"]["loaded"].clone();
        let lost = u64::from(damage != Damage::Garbage);
        assert_eq!(loaded["interrupted"], lost, "{damage:?}: {loaded}");
        // What a crash leaves is no damage.
        let damaged = damage != Damage::Torn;
        assert_eq!(loaded["damaged"].as_u64().unwrap() > 0, damaged, "{damage:?}: {loaded}");
        told(&gateway, "ledger", if damaged { "failing" } else { "good" }).await;
        gateway.stop().await;
        let rows = rows(home);
        assert_eq!(rows.len(), all.len(), "{damage:?}");
        for tag in &all {
            // Of the last one the beginning was there, so it is known that there was one.
            let lost = damage != Damage::Garbage && tag == "unloaded-5";
            assert_eq!(rows[tag].outcome, if lost { "interrupted" } else { "success" }, "{damage:?}: {tag}");
        }
        // What a crash leaves is no damage. Damage is kept, for a person to look at.
        let kept = usize::from(damage == Damage::Wrong);
        assert!(
            files(home, "damaged") >= kept && (damage != Damage::Torn || files(home, "damaged") == 0),
            "{damage:?}"
        );
        check_store(home);
    }
}

fn only_segment(home: &Path) -> PathBuf {
    let paths = std::fs::read_dir(home.join("journal")).unwrap().map(|file| file.unwrap().path());
    let segments: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    let [path] = &segments[..] else { panic!("{segments:?}") };
    path.clone()
}

fn spoil(path: &Path, damage: Damage) {
    let mut file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    match damage {
        Damage::Torn => file.set_len(length - 20).unwrap(),
        Damage::Wrong => {
            let mut byte = [0];
            file.seek(SeekFrom::Start(length - 20)).unwrap();
            file.read_exact(&mut byte).unwrap();
            file.seek(SeekFrom::Start(length - 20)).unwrap();
            file.write_all(&[byte[0] ^ 0x55]).unwrap();
        }
        Damage::Garbage => {
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(&[0xA5; 300]).unwrap();
        }
    }
}

#[tokio::test]
async fn with_the_audit_switched_off_nothing_is_written() {
    let (upstream, home) = (upstream().await, tempfile::tempdir().unwrap());
    let home = home.path();
    let mut gateway = start(home, &upstream, json!({ "audit": { "enabled": false } })).await;
    ask_many(&gateway, "unrecorded", 3).await;
    let health = gateway.health().await;
    assert_eq!((&health["ledger"]["state"], &health["bodies"]["state"]), (&json!("off"), &json!("off")));
    gateway.stop().await;
    let mut names: Vec<_> = std::fs::read_dir(home).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.retain(|name| !["config.json", "token", "admin-token", "cco.lock"].iter().any(|ours| name == ours));
    assert_eq!(names, Vec::<std::ffi::OsString>::new());
}

#[test]
fn a_full_disk_stops_no_request_and_when_there_is_room_again_nothing_is_missing() {
    on_a_small_disk("faults::fill_up_and_heal", "136m");
}

#[test]
fn a_full_disk_stops_requests_where_the_user_wants_it_so() {
    on_a_small_disk("faults::fill_up_and_refuse", "136m");
}

#[test]
fn a_full_disk_can_be_looked_at_and_emptied_with_and_without_a_gateway() {
    on_a_small_disk("faults::fill_up_and_purge", "136m");
}

#[test]
fn a_disk_that_is_full_again_without_a_reserve_can_still_be_emptied() {
    on_a_small_disk("faults::fill_up_twice", "136m");
}

#[test]
fn a_disk_that_is_too_small_for_the_whole_reserve_gets_a_part_of_it_again() {
    on_a_small_disk("faults::fill_up_small", "48m");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_stops_no_request() {
    on_a_small_disk("faults::read_only", "1m");
}

/// The folder on the file system of this test's own.
fn home() -> PathBuf {
    let home = PathBuf::from(std::io::stdin().lines().next().expect("a line").expect("it can be read"));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let own = mounts.lines().any(|line| line.split(' ').nth(1) == home.to_str() && line.starts_with("tmpfs "));
    assert!(own, "`{}` is no file system of its own", home.display());
    home
}

/// Takes all the room that is left.
fn fill(path: &Path) {
    let mut file = std::fs::File::options().append(true).create(true).open(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        let block = vec![7; size];
        while file.write_all(&block).is_ok() {}
    }
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_and_heal() {
    let (upstream, home) = (upstream().await, home());
    let mut gateway = start(&home, &upstream, json!({})).await;
    let mut all = ask_many(&gateway, "before", 5).await;
    stored(&home, &all).await;
    assert!(home.join("journal/ballast").exists());
    // Until the reserve is used up as well; what others give back meanwhile is filled up again.
    let deadline = Instant::now() + Duration::from_secs(60);
    for n in 0.. {
        fill(&home.join("filler"));
        all.extend(ask_many(&gateway, &format!("full-{n}"), 10).await);
        let disk = "cco_bodies_skipped_total{reason=\"disk\"}";
        if metric(&gateway, "cco_journal_failing").await == 1 && metric(&gateway, disk).await > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the disk never became full");
    }
    let cause = told(&gateway, "ledger", "failing").await;
    assert!(cause.contains("No space left") || cause.contains("disk is full"), "{cause}");
    let cause = told(&gateway, "bodies", "failing").await;
    assert!(!cause.is_empty());
    fill(&home.join("filler"));
    all.extend(ask_many(&gateway, "fuller", 50).await);
    gateway.log_line(&["WARN", "not known to be written"]).await;
    assert!(metric(&gateway, "cco_unsettled_total").await > 0);
    assert_eq!(metric(&gateway, "cco_journal_lost_total").await, 0);
    let reserve = std::fs::metadata(home.join("journal/ballast")).map_or(0, |about| about.len());
    assert!(reserve < 1 << 20, "the reserve was spent: {reserve}");

    // Room again: everything is there, without a restart.
    std::fs::remove_file(home.join("filler")).unwrap();
    let healing = Instant::now();
    stored(&home, &all).await;
    assert!(healing.elapsed() < Duration::from_secs(10), "{:?}", healing.elapsed());
    // That the archive is well again shows with the next body, that there is room with the next entries.
    soon(async {
        for n in 0.. {
            all.extend(ask_many(&gateway, &format!("healed-{n}"), 1).await);
            let health = gateway.health().await;
            let good = |part: &str| health[part]["state"] == "good";
            if good("ledger") && good("bodies") && home.join("journal/ballast").exists() {
                break;
            }
            pause().await;
        }
    })
    .await;
    gateway.stop().await;
    assert_eq!((rows(&home).len(), segments(&home)), (all.len(), 0));
    check_store(&home);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_and_purge() {
    let (upstream, home) = (upstream().await, home());
    let mut gateway = start(&home, &upstream, json!({})).await;
    let all = ask_many(&gateway, "one", 20).await;
    stored(&home, &all).await;
    let cco = async |args: &[&str]| {
        let mut command = binary();
        command.args(args).env("CCO_HOME", &home).env("HOME", &home);
        let output = soon(command.output()).await.unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The bodies come later than the records.
    until(async || metric(&gateway, "cco_bodies_stored_total").await >= 80).await;
    for (left, purge, removed) in [
        (20, &["audit", "purge", "last", "--yes"][..], "removed: 1 record, 4 bodies ("),
        (19, &["audit", "purge", "--all", "--yes"], "removed: 19 records, all bodies ("),
    ] {
        fill(&home.join("filler"));
        assert_eq!(cco(&["logs", "--json"]).await.lines().count(), left);
        assert!(cco(&["costs", "--csv"]).await.contains(&format!(",{left},0,")));
        assert!(cco(&["logs", "show", "last", "--request"]).await.contains("Hello."));
        let said = cco(purge).await;
        assert!(said.starts_with(removed), "{said}");
        assert_eq!(rows(&home).len(), if left == 20 { 19 } else { 0 });
        if left == 20 {
            // The reserve is taken again once there is room, and only then.
            std::fs::remove_file(home.join("filler")).unwrap();
            until(async || home.join("journal/ballast").exists()).await;
            gateway.stop().await;
        }
    }
    let packs = std::fs::read_dir(home.join("archive"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "pack"));
    assert_eq!(packs.count(), 0);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_twice() {
    let (upstream, home) = (upstream().await, home());
    let mut gateway = start(&home, &upstream, json!({})).await;
    // Something that takes room: no two of these words are alike.
    let mut client = gateway.client().await;
    for n in 0..10 {
        let words =
            (0..40_000_u64).map(|word| format!("{:x} ", (n * 40_000 + word).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let request = request("POST", "/v1/messages", "", prompt(&words.collect::<String>(), false));
        assert_eq!(client.ask(request).await.status, 200);
    }
    until(async || metric(&gateway, "cco_bodies_stored_total").await >= 40).await;
    full_again(&gateway, &home).await;
    let mut command = binary();
    command.args(["audit", "purge", "--all", "--yes"]).env("CCO_HOME", &home).env("HOME", &home);
    let output = soon(command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(rows(&home).len(), 0);
    std::fs::remove_file(home.join("filler")).unwrap();
    gateway.stop().await;
    check_store(&home);
}

/// Fills the disk until the reserve is spent, and what that gave is full as well.
async fn full_again(gateway: &Gateway, home: &Path) {
    soon(async {
        for n in 0.. {
            fill(&home.join("filler"));
            ask_many(gateway, &format!("full-{n}"), 5).await;
            if metric(gateway, "cco_journal_failing").await == 1 && !home.join("journal/ballast").exists() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_small() {
    let (upstream, home) = (upstream().await, home());
    let mut gateway = start(&home, &upstream, json!({})).await;
    let all = ask_many(&gateway, "one", 5).await;
    stored(&home, &all).await;
    assert!(home.join("journal/ballast").exists(), "a part of it");
    full_again(&gateway, &home).await;
    std::fs::remove_file(home.join("filler")).unwrap();
    soon(async {
        for n in 0.. {
            ask_many(&gateway, &format!("healed-{n}"), 1).await;
            if home.join("journal/ballast").exists() {
                break;
            }
        }
    })
    .await;
    gateway.stop().await;
    check_store(&home);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn fill_up_and_refuse() {
    let (upstream, home) = (upstream().await, home());
    let mut gateway = start(&home, &upstream, json!({ "audit": { "onFailure": "refuse" } })).await;
    let mut served = ask_many(&gateway, "before", 5).await;
    let mut client = gateway.client().await;
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut turn = 0;
    let mut next = || {
        turn += 1;
        let tag = format!("turn-{turn}");
        let request = request("POST", "/v1/messages", &format!("{TAG}: {tag}\r\n"), prompt("Hello.", false));
        (tag, request)
    };
    let arrived = loop {
        fill(&home.join("filler"));
        let arrived = upstream.sim.requests().len();
        let (tag, request) = next();
        let answer = client.ask(request).await;
        if answer.status == 503 {
            let message = answer.refusal(503, "api_error");
            for part in ["cannot be recorded", "`audit.onFailure` is \"refuse\"", "free some space"] {
                assert!(message.contains(part), "`{part}` is not in: {message}");
            }
            break arrived;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        served.push(tag);
        assert!(Instant::now() < deadline, "the disk never became full");
    };
    assert_eq!(upstream.sim.requests().len(), arrived, "what is refused does not go up");
    std::fs::remove_file(home.join("filler")).unwrap();
    loop {
        let (tag, request) = next();
        let answer = client.ask(request).await;
        if answer.status == 200 {
            served.push(tag);
            break;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(Instant::now() < deadline, "it never recovered");
        pause().await;
    }
    stored(&home, &served).await;
    gateway.stop().await;
    let rows = rows(&home);
    for (tag, row) in &rows {
        assert_eq!(row.outcome, if served.contains(tag) { "success" } else { "rejected" }, "{tag}");
    }
    check_store(&home);
}

#[tokio::test]
#[ignore = "run by another test, on a file system of its own"]
async fn read_only() {
    let (upstream, home) = (upstream().await, home());
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", &format!("remount,bind,{how}")]).arg(&home).status().unwrap();
        assert!(done.success(), "the file system can be mounted anew");
    };
    std::fs::write(home.join("config.json"), config(&upstream, json!({}))).unwrap();
    remount("ro");
    let mut gateway = Gateway::start_in(&home, &[], &[]).await;
    ask_many(&gateway, "unrecorded", 3).await;
    let note = gateway.log_line(&["WARN", "nothing is recorded"]).await["message"].to_string();
    for part in [home.join("journal").to_str().unwrap(), "Read-only file system"] {
        assert!(note.contains(part), "`{part}` is not in: {note}");
    }
    let cause = told(&gateway, "ledger", "failing").await;
    assert!(cause.contains("Read-only file system"), "{cause}");
    assert_eq!(metric(&gateway, "cco_ledger_good").await, 0);
    let totals = gateway.ask(request("GET", "/gateway/metrics", "", "")).await;
    assert!(totals.refusal(503, "api_error").contains("Read-only file system"));
    gateway.stop().await;

    remount("rw");
    let refuse = config(&upstream, json!({ "audit": { "onFailure": "refuse" } }));
    std::fs::write(home.join("config.json"), refuse).unwrap();
    remount("ro");
    let mut command = binary();
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("CCO_HOME", &home).env("HOME", &home);
    let output = soon(command.output()).await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    for part in ["nothing can be recorded, and `audit.onFailure` is \"refuse\"", "Read-only file system"] {
        assert!(said.contains(part), "`{part}` is not in: {said}");
    }
}
