//! `cco uninstall` and the system's manager: only what is ours goes, and nothing is lost that is still being written.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::common::{Client, contains, soon, streamed, until, upstream};
use crate::daemon::Daemon;
use crate::home::{Home, Said};

fn run(home: &Home, args: &[&str]) -> Said {
    home.command(args).output().unwrap().into()
}

fn names(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_only_begins_like_ours_is_not_ours() {
    let home = Home::new();
    let theirs = ["archive-2024", "cco.toml", "config.json.bak", "journal.md", "logbook", "setup.py", "token-notes.md"];
    let ours = [
        "cco.12.new",
        "cco.lock",
        "config.schema.json",
        "ledger.db",
        "ledger.db-wal",
        "ledger.db.aside-1795000000",
        "ledger.db.before-form-2",
        "token",
        "token.0123456789abcdef.new",
    ];
    for name in ours.iter().chain(&theirs) {
        std::fs::write(home.file(name), "x").unwrap();
    }
    for folder in ["archive", "log", "setup"] {
        std::fs::create_dir(home.file(folder)).unwrap();
        std::fs::write(home.file(folder).join("x"), "x").unwrap();
    }
    let said = run(&home, &["uninstall", "--purge", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(names(&home), theirs);
    assert!(said.out.contains("7 other things stay there"), "{}", said.out);
}

/// A program in place of the system's manager, which writes down what it is told.
fn manager(home: &mut Home) -> PathBuf {
    let (folder, told) = (home.file("bin"), home.file("told"));
    std::fs::create_dir(&folder).unwrap();
    for name in ["systemctl", "launchctl"] {
        let program = folder.join(name);
        std::fs::write(&program, format!("#!/bin/sh\necho \"$*\" >> '{}'\n", told.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    home.set("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_another_home_is_left_alone() {
    let upstream = upstream().await;
    let mut daemon = Daemon::new(&upstream);
    let told = manager(&mut daemon.0);
    let unit = daemon.0.file(".config/systemd/user/cco.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    let another = daemon.0.file("another/my cco").display().to_string();
    let text = run(&daemon.0, &["--home", &another, "daemon", "install", "--print"]).done();
    std::fs::write(&unit, &text).unwrap();

    let refused = run(&daemon.0, &["daemon", "uninstall"]).failed(1);
    assert!(refused.contains(&format!("`{another}`")), "{refused}");
    let refused = run(&daemon.0, &["daemon", "install"]).failed(1);
    assert!(refused.contains(&format!("`{another}`")), "{refused}");
    assert!(daemon.start().starts_with("started: PID "));
    let said = run(&daemon.0, &["uninstall", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(!said.out.contains("start with the login"), "{}", said.out);
    assert_eq!(std::fs::read_to_string(&unit).unwrap(), text);
    assert!(!told.exists(), "{}", std::fs::read_to_string(&told).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_of_this_home_is_taken_back() {
    let upstream = upstream().await;
    let mut daemon = Daemon::new(&upstream);
    let told = manager(&mut daemon.0);
    let unit = daemon.0.file(".config/systemd/user/cco.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, run(&daemon.0, &["daemon", "install", "--print"]).done()).unwrap();
    let said = run(&daemon.0, &["daemon", "uninstall"]).done();
    assert!(said.contains("removed: "), "{said}");
    assert!(!unit.exists());
    let told = std::fs::read_to_string(&told).unwrap();
    assert_eq!(told, "--user disable --now cco.service\n--user daemon-reload\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manager_that_does_not_answer_holds_up_no_removal() {
    let upstream = upstream().await;
    let mut daemon = Daemon::new(&upstream);
    manager(&mut daemon.0);
    std::fs::write(daemon.0.file("bin/systemctl"), "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n").unwrap();
    let unit = daemon.0.file(".config/systemd/user/cco.service");
    std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
    std::fs::write(&unit, run(&daemon.0, &["daemon", "install", "--print"]).done()).unwrap();
    let said = run(&daemon.0, &["uninstall", "--purge", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("note: the system's manager was not told: "), "{}", said.err);
    assert!(!unit.exists());
    let kept = names(&daemon.0);
    assert!(kept.iter().all(|name| [".config", "bin", "told"].contains(&name.as_str())), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_manager_answers_nothing_is_installed_and_what_runs_runs_on() {
    let upstream = upstream().await;
    let mut daemon = Daemon::new(&upstream);
    manager(&mut daemon.0);
    std::fs::write(daemon.0.file("bin/systemctl"), "#!/bin/sh\necho 'Failed to connect to bus' >&2\nexit 1\n").unwrap();
    daemon.start();
    let before = daemon.status()["pid"].clone();
    let refused = run(&daemon.0, &["daemon", "install"]).failed(1);
    assert!(refused.contains("nothing was installed") && refused.contains("Failed to connect to bus"), "{refused}");
    assert!(refused.contains("\nhelp: `cco daemon start`"), "{refused}");
    assert_eq!(daemon.status()["pid"], before);
    assert!(!daemon.0.file(".config").exists());
}

#[test]
fn what_is_installed_reads_the_configuration_that_is_named() {
    let mut home = Home::new();
    let exec = |said: Said| said.done().lines().find(|line| line.starts_with("ExecStart=")).map(str::to_owned).unwrap();
    assert!(exec(run(&home, &["daemon", "install", "--print"])).ends_with("\" serve --log-file"));
    let named = exec(run(&home, &["daemon", "install", "--print", "--config", "/srv/a.json"]));
    assert!(named.ends_with("\" serve --log-file --config \"/srv/a.json\""), "{named}");
    home.set("CCO_CONFIG", "/srv/b.json");
    let named = exec(run(&home, &["daemon", "install", "--print"]));
    assert!(named.ends_with("\" serve --log-file --config \"/srv/b.json\""), "{named}");
}

/// Credentials whose key is given by the system's manager, and one that is stored with it.
fn sealed(home: &mut Home) {
    let given = home.file("given");
    std::fs::create_dir(&given).unwrap();
    std::fs::write(given.join("cco-credentials-key"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(given.join("cco-credentials-key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    home.set("CREDENTIALS_DIRECTORY", given.to_str().unwrap());
    let said = home.run_with(&["store", "A", "--backend", "systemd"], "sk-ant-api03-0123456789");
    assert_eq!(said.code, Some(0), "{}", said.err);
    home.unset("CREDENTIALS_DIRECTORY");
    std::fs::remove_dir_all(given).unwrap();
}

#[test]
fn a_file_of_credentials_that_cannot_be_opened_goes_whole() {
    let mut home = Home::new();
    sealed(&mut home);
    let asked = run(&home, &["uninstall"]);
    assert!(asked.out.contains("all credentials, with the file that holds them"), "{}", asked.out);
    let said = run(&home, &["uninstall", "--yes"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(names(&home), Vec::<String>::new());
}

/// Others may have read them: that is no reason to keep them.
#[test]
fn credentials_that_were_open_to_others_are_closed_and_go() {
    for open in ["credentials", "credentials.key", "credentials.seen", ""] {
        let home = Home::new();
        home.store("A", "sk-ant-api03-0123456789");
        let path = if open.is_empty() { home.path().to_owned() } else { home.file(open) };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(if open.is_empty() { 0o777 } else { 0o644 }))
            .unwrap();
        assert!(home.run(&["list"]).failed(1).contains("others may "), "{open}");
        let said = run(&home, &["uninstall", "--purge", "--yes"]);
        assert_eq!(said.code, Some(0), "{open}: {}", said.err);
        assert!(said.err.starts_with(&format!("note: `{}` was open to others", path.display())), "{}", said.err);
        assert!(said.out.contains("removed: credential `A`\n"), "{open}: {}", said.out);
        assert!(!home.path().exists());
    }
}

/// It may be the list of keys that are in the keyring of the system: without it nothing finds them any more.
#[test]
fn where_nobody_can_tell_which_credentials_there_are_nothing_goes() {
    let mut home = Home::new();
    sealed(&mut home);
    std::fs::write(home.file("credentials"), "nothing that was ever written by us").unwrap();
    let before = names(&home);
    let said = run(&home, &["uninstall", "--purge", "--yes"]).failed(1);
    assert!(said.contains("credentials") && said.contains("nothing was removed"), "{said}");
    assert_eq!(names(&home), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replaced_gateway_still_records_is_not_removed_under_it() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let mut client = Client::connect(daemon.address()).await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { client.ask(streamed("events=100 every=200")).await });
    until(async || daemon.status()["running_requests"].as_u64() != Some(0)).await;
    run(&daemon.0, &["daemon", "restart"]).done();
    let said = run(&daemon.0, &["uninstall", "--purge", "--yes"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("still serves its last streams"), "{}", said.err);
    assert!(daemon.0.file("ledger.db").exists() && daemon.0.file("journal").exists());
    let answer = soon(tasks.join_next()).await.unwrap().unwrap();
    assert!(answer.status == 200 && contains(&answer.body, b"event: message_stop"));
    let row = |said: String| -> Value { serde_json::from_str(said.trim()).unwrap() };
    let logs = Said::from(daemon.0.command(&["logs", "--json"]).output().unwrap());
    assert_eq!(row(logs.out)["outcome"], "success");
    let said = run(&daemon.0, &["uninstall", "--purge", "--yes"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}
