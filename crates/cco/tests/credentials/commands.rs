//! What the commands say and do, in a store that is an encrypted file.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use sim::SimConfig;

use crate::common::upstream_with;
use crate::home::{Home, KEY, OTHER};

#[test]
fn a_key_is_stored_shown_listed_replaced_and_deleted() {
    let home = Home::new();
    assert_eq!(home.run(&["list"]).done(), "no credentials are stored: `cco credentials store NAME` adds one\n");
    assert_eq!(home.run(&["list", "--json"]).done(), "[]\n");
    assert_eq!(
        home.run_with(&["store", "ANTHROPIC_API_KEY"], &format!("  {KEY}\r\n")).done(),
        "stored `ANTHROPIC_API_KEY` (…6789)\n\
         credentials are kept in an encrypted file, with its key in `credentials.key`: there is no session bus: \
         `DBUS_SESSION_BUS_ADDRESS` is not set\n"
    );
    assert_eq!(home.run_with(&["store", "b.2"], "short").done(), "stored `b.2`\n");
    assert_eq!(
        home.run(&["list"]).done(),
        "NAME               BACKEND  LAST 4  AGE      LAST USE\n\
         ANTHROPIC_API_KEY  file     …6789   moments  never\n\
         b.2                file     -       moments  never\n"
    );
    assert_eq!(home.retrieve("ANTHROPIC_API_KEY"), format!("{KEY}\n"));
    assert_eq!(home.run_with(&["store", "ANTHROPIC_API_KEY"], OTHER).done(), "replaced `ANTHROPIC_API_KEY` (…3210)\n");
    assert_eq!(home.retrieve("ANTHROPIC_API_KEY"), format!("{OTHER}\n"));
    let list: Value = serde_json::from_str(&home.run(&["list", "--json"]).done()).unwrap();
    let first = &list[0];
    assert_eq!(
        (&first["name"], &first["backend"], &first["last4"]),
        (&"ANTHROPIC_API_KEY".into(), &"file".into(), &"3210".into())
    );
    for time in ["stored_at", "last_used_at"] {
        let text = first[time].as_str().unwrap();
        assert!(text.len() == 20 && text.ends_with('Z'), "{time}: {text}");
    }
    assert_eq!((&list[1]["last4"], &list[1]["last_used_at"]), (&Value::Null, &Value::Null));
    assert!(home.run(&["list"]).done().contains("moments ago"));
    assert_eq!(home.run(&["delete", "ANTHROPIC_API_KEY"]).done(), "deleted `ANTHROPIC_API_KEY`\n");
    assert_eq!(
        home.run(&["retrieve", "ANTHROPIC_API_KEY"]).failed(1),
        "error: there is no credential `ANTHROPIC_API_KEY`\n\
         help: `cco credentials list` shows all, `cco credentials store ANTHROPIC_API_KEY` adds it\n"
    );
    assert!(home.run(&["delete", "ANTHROPIC_API_KEY"]).failed(1).starts_with("error: there is no credential"));
    assert_eq!(home.retrieve("b.2"), "short\n");
}

#[test]
fn a_key_on_the_command_line_works_with_a_warning() {
    let home = Home::new();
    let said = home.run(&["store", "A", "-starts-with-a-dash"]);
    assert_eq!(said.code, Some(0));
    assert!(said.out.starts_with("stored `A` (…dash)\n"), "{}", said.out);
    assert_eq!(
        said.err,
        "warning: the key is in the history of your shell now, and other users could see it while this ran\n\
         help: next time leave it out: `cco credentials store A` asks for it\n"
    );
    assert_eq!(home.retrieve("A"), "-starts-with-a-dash\n");
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let home = Home::new();
    let failed = |input: &str| home.run_with(&["store", "A"], input).failed(1);
    assert_eq!(
        failed(" \n"),
        "error: the key is empty\n\
         help: store the key alone, one word of visible ASCII characters of at most 64 KiB: `cco credentials store NAME < FILE`\n"
    );
    assert!(failed("two canary words").starts_with("error: a key is one word"));
    assert!(failed("canary\nx-evil: 1").starts_with("error: a key is one word"));
    assert!(failed(&"v".repeat(64 * 1024 + 1)).starts_with("error: the key is too long"));
    for args in
        [&["store", "a b"][..], &["store"], &["store", "A", "--backend", "plain"], &["retrieve"], &["show"], &[]]
    {
        let said = home.run(args);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {}", said.err);
    }
    assert!(!home.file("credentials").exists());
}

#[test]
fn without_a_home_nothing_can_be_kept() {
    let home = Home::new();
    let mut command = home.command(&["credentials", "store", "A", "canary"]);
    let said = command.env_remove("CCO_HOME").env_remove("HOME").output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let err = String::from_utf8(said.stderr).unwrap();
    assert!(
        err.ends_with(
            "error: there is no place for credentials\n\
             cause: neither `CCO_HOME` nor `HOME` is set\n\
             help: set `CCO_HOME` to a folder of your own\n"
        ),
        "{err}"
    );
}

#[test]
fn a_file_that_others_may_read_is_refused_with_the_command_that_repairs_it() {
    let home = Home::new();
    home.store("A", KEY);
    for name in ["credentials", "credentials.key"] {
        let path = home.file(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let said = home.run(&["retrieve", "A"]).failed(1);
        let shown = path.display();
        assert_eq!(
            said,
            format!(
                "error: `A` cannot be read\n\
                 cause: `{shown}` is not used: others may access it (mode 0644)\n\
                 help: run `chmod 600 {shown}`\n"
            )
        );
        assert!(home.run_with(&["store", "B"], OTHER).failed(1).contains("chmod 600"));
        let repair = said.split('`').nth_back(1).unwrap();
        assert!(std::process::Command::new("sh").args(["-c", repair]).status().unwrap().success());
        assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    }
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o777)).unwrap();
    for command in [&["list"][..], &["retrieve", "A"], &["delete", "A"]] {
        let said = home.run(command).failed(1);
        assert!(
            said.contains("others may write to it (mode 0777)") && said.contains("help: run `chmod 700 "),
            "{said}"
        );
    }
    std::fs::set_permissions(home.path(), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    let (path, aside) = (home.file("credentials"), home.file("aside"));
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &path).unwrap();
    let said = home.run(&["retrieve", "A"]).failed(1);
    assert!(said.contains("symbolic link") && said.contains("help: run `mv "), "{said}");
}

#[test]
fn a_store_that_is_cut_changed_or_old_is_an_error() {
    let home = Home::new();
    home.store("A", OTHER);
    let path = home.file("credentials");
    let old = std::fs::read(&path).unwrap();
    home.store("A", KEY);
    let whole = std::fs::read(&path).unwrap();
    let check = |bytes: &[u8], cause: &str| {
        std::fs::write(&path, bytes).unwrap();
        for args in [&["retrieve", "A"][..], &["list"], &["delete", "A"], &["store", "A", "x"]] {
            let said = home.run(args);
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{args:?}");
            assert!(said.err.contains(cause) && said.err.contains("help: put the last copy back"), "{}", said.err);
        }
    };
    check(&whole[..whole.len() - 3], "cause: the file `credentials` ends too early");
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    check(&changed, "cause: the file `credentials` is damaged: its content does not fit its seal");
    check(&old, "cause: the file `credentials` is an older one: its state is 1, and the last one was 2");
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
}

#[test]
fn a_passphrase_is_needed_and_must_be_right() {
    let mut home = Home::new();
    let needed = home.run_with(&["store", "A", "--backend", "passphrase"], KEY).failed(1);
    assert_eq!(
        needed,
        "error: `A` was not stored\n\
         cause: the credentials are locked with a passphrase\n\
         help: run it on a terminal, or set `CCO_PASSPHRASE`\n"
    );
    home.set("CCO_PASSPHRASE", "correct horse");
    let stored = home.run_with(&["store", "A", "--backend", "passphrase"], KEY).done();
    assert!(stored.contains("with its key from a passphrase"), "{stored}");
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    assert!(!home.file("credentials.key").exists());
    home.set("CCO_PASSPHRASE", "wrong");
    let wrong = home.run(&["retrieve", "A"]).failed(1);
    assert!(wrong.contains("cause: the passphrase is wrong\nhelp: try again"), "{wrong}");
    home.unset("CCO_PASSPHRASE");
    assert!(home.run(&["list"]).failed(1).contains("locked with a passphrase"));
}

#[test]
fn where_keys_are_is_decided_once() {
    let home = Home::new();
    let absent = home.run_with(&["store", "A", "--backend", "keyring"], KEY).failed(1);
    assert!(absent.contains("cause: there is no session bus") && absent.contains("`--backend file`"), "{absent}");
    assert!(!home.file("credentials").exists(), "it does not fall back to anything");
    home.store("A", KEY);
    let chosen = home.run_with(&["store", "B", "--backend", "passphrase"], OTHER).failed(1);
    assert!(chosen.contains("cause: the credentials are kept in another place already: an encrypted file"), "{chosen}");
}

#[test]
fn programs_that_write_at_once_lose_nothing() {
    let home = Home::new();
    let names: Vec<String> = (0..12).map(|n| format!("KEY_{n:02}")).collect();
    let children: Vec<_> = names
        .iter()
        .map(|name| home.command(&["credentials", "store", name, &format!("value-of-{name}")]).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    for name in &names {
        assert_eq!(home.retrieve(name), format!("value-of-{name}\n"));
    }
    assert_eq!(home.run(&["list"]).done().lines().count(), names.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_whether_it_takes_a_key() {
    let upstream = upstream_with(SimConfig { keys: vec![KEY.into()], ..SimConfig::default() }).await;
    let mut home = Home::new();
    home.configure(upstream.addr, "credential:A");
    home.store("A", KEY);
    let at = upstream.addr;
    assert_eq!(home.run(&["test", "A"]).done(), format!("`A` at anthropic (http://{at}): accepted\n"));
    let asked = upstream.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/v1/models?limit=1"));
    assert_eq!(asked.header_all("x-api-key"), [KEY]);
    assert!(asked.oddities.is_empty(), "{:?}", asked.oddities);
    home.store("A", OTHER);
    let said = home.run(&["test", "A"]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""));
    assert_eq!(said.out, format!("`A` at anthropic (http://{at}): rejected (401: invalid x-api-key)\n"));

    // A variable that the configuration names stands for the credential of its name, unless it is set.
    home.configure(upstream.addr, "env:A");
    home.store("A", KEY);
    assert!(home.run(&["test", "A"]).done().contains("accepted"));
    home.set("A", OTHER);
    let said = home.run(&["test", "A"]);
    assert!(said.err.starts_with("warning: the variable `A` is set here"), "{}", said.err);
    assert!(said.out.contains("accepted"), "it is the stored one that is tested");
    home.unset("A");

    // One that no provider uses, and one that is named.
    home.store("B", KEY);
    let unused = home.run(&["test", "B"]).failed(1);
    assert!(unused.contains("no provider of the configuration uses `B`") && unused.contains("--provider"), "{unused}");
    assert!(home.run(&["test", "B", "--provider", "anthropic"]).done().contains("accepted"));
    let unknown = home.run(&["test", "B", "--provider", "nobody"]).failed(1);
    assert!(unknown.contains("no provider `nobody`") && unknown.contains("takes one of `anthropic`"), "{unknown}");
    assert!(home.run(&["test", "C", "--provider", "anthropic"]).failed(1).contains("no credential `C`"));

    // Nobody there, nothing to be told, and a configuration that is none.
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    home.configure(nobody, "credential:A");
    let said = home.run(&["test", "A"]);
    assert!(said.code == Some(1) && said.out.contains("(http://127.0.0.1:1): not reached: "), "{}", said.out);
    let overloaded = SimConfig { default: "fault=529".parse().unwrap(), ..SimConfig::default() };
    let overloaded = upstream_with(overloaded).await;
    home.configure(overloaded.addr, "credential:A");
    let said = home.run(&["test", "A"]);
    assert!(said.code == Some(1) && said.out.contains("cannot be told (529: "), "{}", said.out);
    std::fs::write(home.file("config.json"), "{ \"nonsense\": 1 }").unwrap();
    assert!(home.run(&["test", "A"]).failed(78).starts_with("error: the configuration has a fault\n"));
}
