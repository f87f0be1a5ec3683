//! What a user is told when something does not work: what, why, and what to do about it, always in the same form.

use crate::home::{Home, Said};

fn cco(home: &Home, args: &[&str]) -> Said {
    home.command(args).output().unwrap().into()
}

/// Every error says what to do: a command to type, or what to write where.
#[track_caller]
fn check_form(said: &str) {
    let is_place = |line: &str| line.split(':').skip(1).take(2).filter(|part| part.parse::<u32>().is_ok()).count() == 2;
    for line in said.lines() {
        let known =
            ["error: ", "cause: ", "help: ", "warning: ", "note: ", "  "].iter().any(|begin| line.starts_with(begin));
        assert!(known || is_place(line), "{line:?} in {said}");
    }
    assert!(said.lines().filter(|line| line.starts_with("error: ")).count() == 1, "{said}");
    let last = said.lines().last().unwrap();
    let help = last.strip_prefix("help: ").unwrap_or_else(|| panic!("no help in {said}"));
    let is_plain = help.starts_with("cco ");
    assert!(is_plain || help.contains(['`', '"']), "no command, nothing to write: {said}");
    for vague in ["try again", "correct the file and", "look at its rights", "correct it and start again"] {
        assert!(!help.contains(vague), "{said}");
    }
}

/// What is wrong in an empty home.
const EMPTY: &[(&[&str], i32)] = &[
    (&["config", "reload"], 3),
    (&["config", "get", "nonsense"], 2),
    (&["config", "get", "server"], 2),
    (&["config", "get", "providers.foo.baseUrl"], 1),
    (&["config", "show", "foo"], 2),
    (&["config", "set", "a.b", "c"], 2),
    (&["config", "set", "log.level", "loud"], 78),
    (&["config", "set", "server.listen"], 2),
    (&["config", "set", "routing.rules[3].name", "x"], 1),
    (&["config", "set", "providers.foo.baseUrl", "x"], 78),
    (&["config", "set", "providers.foo.baseUrl", "http://127.0.0.1:1"], 78),
    (&["config", "validate", "--config", "/nonexistent/cco.json"], 78),
    (&["config", "validate", "--config", "/"], 78),
    (&["config", "init", "--config", "/proc/cco/config.json"], 1),
    (&["credentials", "retrieve", "A"], 1),
    (&["credentials", "delete", "A"], 1),
    (&["credentials", "test", "A"], 1),
    (&["credentials", "test", "A", "--provider", "b"], 1),
    (&["credentials", "store", "A", "two words"], 1),
    (&["credentials", "store", "A B", "x"], 2),
    (&["credentials", "store", "A", "--backend", "cloud"], 2),
    (&["daemon", "logs", "--program"], 1),
    (&["daemon", "logs"], 1),
    (&["daemon", "stop", "--within", "soon"], 2),
    (&["logs"], 1),
    (&["logs", "--since", "never"], 2),
    (&["logs", "show", "zz"], 1),
    (&["costs", "--by", "foo"], 2),
    (&["sessions", "--limit", "x"], 2),
    (&["prices", "recompute", "--since", "x"], 2),
    (&["providers", "remove", "foo"], 1),
    (&["providers", "test", "foo"], 1),
    (&["providers", "reset", "foo"], 3),
    (&["providers", "add", "foo"], 2),
    (&["route", "test", "/nonexistent/cco.json"], 2),
    (&["translate"], 2),
    (&["audit", "purge", "--all"], 1),
    (&["audit", "purge", "--before", "soon"], 2),
    (&["completions", "foo"], 2),
    (&["man", "/proc/x"], 1),
    (&["serve", "--listen", "0.0.0.0:1"], 78),
    (&["serve", "--config", "/nonexistent/cco.json"], 78),
    (&["--url", "http://127.0.0.1:9", "logs"], 1),
    (&["--url", "http://127.0.0.1:9", "costs"], 1),
    (&["--url", "https://127.0.0.1:9", "logs"], 2),
    (&["--url", "http://127.0.0.1:9", "daemon", "stop"], 2),
    (&["--url", "nowhere", "logs"], 2),
    (&["--home", "/proc/cco", "serve", "--log-file"], 1),
    (&["--home", "/proc/cco", "credentials", "store", "A", "b"], 1),
    (&["deamon"], 2),
    (&["--hom", "x"], 2),
];

#[test]
fn every_error_says_what_to_do() {
    for (args, code) in EMPTY {
        let home = Home::new();
        let said = cco(&home, args);
        assert_eq!(said.code, Some(*code), "{args:?}: {}{}", said.out, said.err);
        check_form(&said.err);
    }
}

#[test]
fn every_error_of_a_faulty_configuration_names_the_file_the_line_and_what_to_do() {
    let home = Home::new();
    for text in [
        "{ \"servr\": 1 }",
        "{\n oops",
        "{ \"log\": { \"level\": 1 }, \"audit\": [] }",
        "[]",
        "{ \"server\": { \"listen\": \"0.0.0.0:1\" } }",
    ] {
        std::fs::write(home.file("config.json"), text).unwrap();
        for args in [
            &["config", "validate"][..],
            &["config", "show"],
            &["config", "get", "log.level"],
            &["serve"],
            &["credentials", "test", "A"],
            &["providers"],
            &["route", "explain"],
        ] {
            let said = cco(&home, args).failed(78);
            check_form(&said);
            let place = format!("\n{}:", home.file("config.json").display());
            assert!(said.contains(&place), "{args:?}: {said}");
        }
    }
}

#[test]
fn what_is_open_to_others_or_not_ours_is_told_with_the_command_that_helps() {
    let home = Home::new();
    std::fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    for args in [&["serve", "--log-file"][..], &["credentials", "store", "A", "b"]] {
        let said = cco(&home, args).failed(1);
        check_form(&said);
        assert!(said.contains("others may write to it (mode 0777)") && said.contains("`chmod 700 "), "{said}");
    }
    let said = cco(&home, &["daemon", "start"]).failed(1);
    assert!(said.starts_with("error: the gateway did not start\nerror: "), "{said}");
    check_form(said.split_once('\n').unwrap().1);
    assert!(said.contains("help: `chmod 700 "), "{said}");
}
