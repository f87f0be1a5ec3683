//! The command line as a whole: what it says when little is typed, or something wrong.

use crate::home::{Home, Said};

fn cco(home: &Home, args: &[&str]) -> Said {
    home.command(args).output().unwrap().into()
}

#[test]
fn alone_it_tells_state_and_next_step_in_three_lines() {
    let home = Home::new();
    let said = cco(&home, &[]).done();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].starts_with("cco 20") && lines[0].ends_with(": not running"), "{said}");
    assert_eq!(lines[1..], ["configuration: none is needed", "next: cco daemon start, or cco --help"]);
}

/// A file on a full disk that holds the half of it is no answer.
#[cfg(target_os = "linux")]
#[test]
fn what_could_not_be_written_is_told_and_is_no_success() {
    let home = Home::new();
    for args in [&["config", "show"][..], &["config", "schema"], &["prices", "--json"], &["completions", "bash"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let said = Said::from(home.command(args).stdout(full).output().unwrap());
        assert_eq!(said.code, Some(1), "{args:?} {}", said.err);
        assert!(said.err.contains("error: the output is not whole\ncause: "), "{args:?} {}", said.err);
    }
    // What the command itself has to say comes first.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(home.command(&["status"]).stdout(full).output().unwrap().status.code(), Some(3));
    // Who has read enough has read enough.
    let mut child = home.command(&["prices", "--json"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_keeps_it_from_starting_is_the_next_step() {
    let home = Home::new();
    std::fs::write(home.file("config.json"), r#"{ "servr": {} }"#).unwrap();
    let said = cco(&home, &[]).done();
    assert!(said.lines().nth(2).unwrap().starts_with("next: cco config validate"), "{said}");
    let said = cco(&home, &["status"]);
    assert!(
        said.code == Some(3) && said.out.contains("   The configuration has faults: cco config validate\n"),
        "{}",
        said.out
    );
    assert_eq!(cco(&home, &["config", "validate"]).code, Some(78));
}

#[test]
fn the_help_has_its_commands_in_groups() {
    let home = Home::new();
    let help = cco(&home, &["--help"]).done();
    for group in ["\nRun     serve ", "\nLook    status ", "\nManage  config ", "\nCheck   doctor ", "\nOther   audit "]
    {
        assert!(help.contains(group), "{group:?} in {help}");
    }
    assert!(help.contains("--home <DIR>") && help.contains("Exit codes: 0 done"), "{help}");
    assert!(!help.contains("{"), "{help}");
    let short = cco(&home, &["-h"]).done();
    assert!(short.contains("\nRun     serve "), "{short}");
}

#[test]
fn the_help_fits_on_one_screen() {
    let help = cco(&Home::new(), &["--help"]).done();
    let lines = help.lines().count();
    // The smallest of screens has 24 lines of 80 characters, and the last is for what is typed next.
    assert!((15..=23).contains(&lines), "{lines} lines:\n{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

/// Every command's help shows how it is typed.
#[test]
fn every_help_has_examples() {
    let home = Home::new();
    let folder = home.file("man");
    cco(&home, &["man", folder.to_str().unwrap()]).done();
    let mut seen = 0;
    for page in std::fs::read_dir(&folder).unwrap() {
        let name = page.unwrap().file_name().into_string().unwrap();
        let words: Vec<&str> = name.trim_end_matches(".1").split('-').skip(1).collect();
        let said = cco(&home, &[&words[..], &["--help"]].concat());
        assert!(said.code == Some(0) && said.out.contains("Example"), "{words:?}: {}", said.out);
        assert!(!said.out.contains('\x1b'), "{words:?} has colours where nobody sees them");
        seen += 1;
    }
    assert!(seen > 40, "{seen}");
}

/// What operates it: these pages are read as they are here.
const PAGES: &[&str] = &[
    "",
    "serve",
    "run",
    "setup",
    "env",
    "daemon",
    "daemon start",
    "daemon stop",
    "daemon restart",
    "daemon status",
    "daemon logs",
    "daemon install",
    "daemon uninstall",
    "config",
    "config init",
    "config set",
    "credentials",
    "credentials store",
    "credentials retrieve",
    "credentials list",
    "credentials test",
    "providers",
    "providers list",
    "providers add",
    "providers test",
    "providers remove",
    "doctor",
    "uninstall",
];

/// `CCO_TEST_WRITE=1 cargo test -p cco --test operate help` writes them anew, to be looked at before they are kept.
#[test]
fn the_help_is_what_was_last_agreed_on() {
    let home = Home::new();
    let mut said = String::new();
    for page in PAGES {
        let words: Vec<&str> = page.split_whitespace().chain(["--help"]).collect();
        said += &format!("$ cco {}\n{}\n", words.join(" "), cco(&home, &words).done());
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operate/help.txt");
    #[expect(clippy::disallowed_methods, reason = "whether they are written anew is for whoever runs it")]
    if std::env::var("CCO_TEST_WRITE").is_ok() {
        std::fs::write(&file, &said).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap();
    let differs = said.lines().zip(kept.lines()).enumerate().find(|(_, (now, then))| now != then);
    assert!(differs.is_none() && said.len() == kept.len(), "line and what is there now and was: {differs:?}");
}

#[track_caller]
fn check_wrong(args: &[&str], error: &str, help: &str) {
    let said = cco(&Home::new(), args).failed(2);
    assert!(said.starts_with(&format!("error: {error}")), "{said}");
    assert!(said.lines().any(|line| line.starts_with("help: ") && line.contains(help)), "{said}");
    assert!(!said.contains("tip:") && !said.contains("Usage:") && !said.contains('\x1b'), "{said}");
}

#[test]
fn what_is_typed_wrong_is_told_with_what_was_probably_meant() {
    check_wrong(&["deamon"], "unrecognized subcommand 'deamon'", "'daemon'");
    check_wrong(&["daemon", "strat"], "unrecognized subcommand 'strat'", "'start'");
    check_wrong(&["serve", "--lisen", "x"], "unexpected argument '--lisen' found", "'--listen'");
    check_wrong(
        &["serve", "--listen", "nowhere"],
        "invalid value 'nowhere' for '--listen <ADDR>'",
        "`cco serve --help`",
    );
    check_wrong(
        &["config", "set"],
        "the following required arguments were not provided:\n  <KEY>\n  <VALUE>",
        "cco config set",
    );
    check_wrong(
        &["completions", "tcsh"],
        "invalid value 'tcsh' for '<SHELL>'\nhelp: ",
        "'zsh'; write one of bash, elvish, ",
    );
    check_wrong(&["--home", "/x", "logs", "--limit", "x"], "invalid value 'x'", "`cco logs --help`");
    check_wrong(&["logs", "--since", "soon"], "`soon` is no time", "`cco logs --help`");
}

#[test]
fn half_a_command_shows_its_other_half() {
    let said = cco(&Home::new(), &["daemon"]).failed(2);
    assert!(said.contains("start") && said.contains("Examples:"), "{said}");
}

#[test]
fn the_folder_can_be_named_and_notes_can_be_left_out() {
    let (home, other) = (Home::new(), Home::new());
    std::fs::write(other.file("config.json"), r#"{ "log": { "level": "warn" } }"#).unwrap();
    let named = other.path().to_str().unwrap();
    assert_eq!(cco(&home, &["--home", named, "config", "get", "log.level"]).done(), "warn\n");
    assert_eq!(cco(&home, &["config", "get", "log.level", "--home", named]).done(), "warn\n");
    assert!(cco(&home, &["config", "path"]).err.contains("warning: "));
    assert_eq!(cco(&home, &["-q", "config", "path"]).err, "");
}

#[test]
fn completions_and_pages_are_written_from_the_same_description() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = cco(&home, &["completions", shell]).done();
        assert!(script.contains("credentials") && script.contains("retrieve"), "{shell}");
    }
    let folder = home.file("man");
    cco(&home, &["man", folder.to_str().unwrap()]).done();
    let pages: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    for page in ["cco.1", "cco-daemon.1", "cco-daemon-start.1", "cco-config-set.1"] {
        assert!(pages.iter().any(|name| name == page), "{page} in {pages:?}");
    }
    assert_eq!(
        cco(&home, &["version"]).done().trim(),
        cco(&home, &["--version"]).done().trim().trim_start_matches("cco ")
    );
}

#[test]
fn without_a_home_that_can_be_written_what_needs_none_still_works() {
    let mut home = Home::new();
    home.set("HOME", "/nonexistent");
    home.set("CCO_HOME", "/nonexistent/cco");
    assert_eq!(cco(&home, &["config", "get", "server.listen"]).done(), "127.0.0.1:54548\n");
    assert_eq!(cco(&home, &["status"]).code, Some(3));
    assert_eq!(cco(&home, &[]).code, Some(0));
}

/// A folder in which not even root can make a file, and one below a file.
#[test]
fn the_doctor_is_not_content_with_a_home_that_cannot_be_written() {
    let mut home = Home::new();
    std::fs::write(home.file("file"), "x").unwrap();
    let below = home.file("file").join("cco");
    home.set("CCO_SERVER_LISTEN", "127.0.0.1:0");
    for folder in ["/proc/cco", "/proc", below.to_str().unwrap()] {
        home.set("CCO_HOME", folder);
        // The configuration is looked for there, too.
        home.set("CCO_CONFIG", home.file("config.json").to_str().unwrap());
        std::fs::write(home.file("config.json"), "{}").unwrap();
        let said = cco(&home, &["doctor"]);
        assert_eq!(said.code, Some(1), "{folder}: {}", said.out);
        let lines: Vec<_> = said.out.lines().collect();
        let at = lines.iter().position(|line| line.starts_with("✗ folder ")).unwrap_or_else(|| panic!("{}", said.out));
        assert!(lines[at].contains("cannot be written"), "{}", lines[at]);
        assert!(lines[at + 1].contains("-> export CCO_HOME="), "{}", lines[at + 1]);
    }
    let missing = home.file("a/b/cco");
    home.set("CCO_HOME", missing.to_str().unwrap());
    let said = cco(&home, &["doctor"]);
    assert!(said.out.contains("b/cco is made at the first start"), "{}", said.out);
    assert!(!home.file("a").exists(), "what was tried is taken back");
}

#[test]
fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let mut home = Home::new();
    // The usual port may be anybody's.
    home.set("CCO_SERVER_LISTEN", "127.0.0.1:0");
    let said = cco(&home, &["doctor"]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(
        said.out.contains("! gateway        not running\n") && said.out.contains("-> cco daemon start"),
        "{}",
        said.out
    );
    home.set("CCO_SERVER_LISTEN", "");
    home.set("HTTPS_PROXY", "http://proxy.example.org:1");
    std::fs::write(home.file("token"), "x").unwrap();
    std::fs::set_permissions(home.file("token"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = serde_json::json!({
        "server": { "listen": holder.local_addr().unwrap().to_string() },
        "providers": { "anthropic": { "defaultModel": "claude-3-opus-20240229" }, "deepseek": { "enabled": true } },
    });
    std::fs::write(home.file("config.json"), text.to_string()).unwrap();
    let said = cco(&home, &["doctor", "--json"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    let card: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let state = |what: &str| {
        let found = card["checks"].as_array().unwrap().iter().find(|check| check["what"] == what);
        found.map(|check| check["state"].as_str().unwrap().to_owned()).unwrap_or_default()
    };
    let fixes: Vec<_> = card["checks"].as_array().unwrap().iter().filter_map(|check| check["fix"].as_str()).collect();
    assert!(fixes.contains(&"cco credentials store DEEPSEEK_API_KEY"), "{fixes:?}");
    for (what, want) in [
        ("configuration", "good"),
        ("permissions", "bad"),
        ("port", "bad"),
        ("proxy", "odd"),
        ("models", "odd"),
        ("clock", "good"),
    ] {
        assert_eq!(state(what), want, "{what} in {card}");
    }
    std::fs::write(home.file("config.json"), "{ \"servr\": 1 }").unwrap();
    let said = cco(&home, &["doctor"]);
    assert!(
        said.code == Some(1) && said.out.contains("✗ configuration") && said.out.contains("`server`"),
        "{}",
        said.out
    );
    let column = " ".repeat(17);
    let mut card: Vec<_> = said.out.lines().collect();
    assert!(card.pop().is_some_and(|sum| sum.ends_with(" wrong")), "{}", said.out);
    assert!(card.iter().all(|line| line.starts_with(['✓', '!', '✗']) || line.starts_with(&column)), "{}", said.out);
}
