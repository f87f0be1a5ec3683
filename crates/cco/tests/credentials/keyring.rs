//! The Secret Service: a real gnome-keyring on a message bus of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::common::{Gateway, until, upstream};
use crate::home::{Home, KEY, OTHER};
use crate::live::unsigned;

/// A session with a bus and a keyring; both end when it is dropped.
struct Session {
    address: String,
    bus: Child,
    keyring: Child,
}

const MISSING: &str = "is not here: `cargo xtask setup` installs it (Debian: `apt-get install dbus gnome-keyring`)";

impl Session {
    /// A session whose keyring is unlocked with this passphrase, or stays as it is.
    fn start(home: &Path, passphrase: Option<&str>) -> Self {
        let socket = home.join("bus");
        let _ = std::fs::remove_file(&socket);
        let mut bus = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--address=unix:path={}", socket.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| panic!("`dbus-daemon` {MISSING}: {why}"));
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        let mut keyring = Command::new("gnome-keyring-daemon");
        keyring.args(["--foreground", "--components=secrets"]);
        if passphrase.is_some() {
            keyring.arg("--unlock");
        }
        keyring.env("HOME", home).env("XDG_RUNTIME_DIR", home).env("DBUS_SESSION_BUS_ADDRESS", &address);
        keyring.env_remove("XDG_DATA_HOME").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        let mut keyring = keyring
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|why| panic!("`gnome-keyring-daemon` {MISSING}: {why}"));
        keyring.stdin.take().unwrap().write_all(passphrase.unwrap_or_default().as_bytes()).unwrap();
        // It says where it listens once it does.
        let mut ready = String::new();
        BufReader::new(keyring.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let mut session = Self { address, bus, keyring };
        session.wait_for_the_keyring();
        session
    }

    /// Until its name is on the bus.
    fn wait_for_the_keyring(&mut self) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = Command::new("dbus-send")
                .arg(format!("--bus={}", self.address))
                .args(["--print-reply=literal", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"])
                .args(["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"])
                .output()
                .unwrap_or_else(|why| panic!("`dbus-send` {MISSING}: {why}"));
            if String::from_utf8_lossy(&asked.stdout).contains("true") {
                return;
            }
            assert_eq!(self.keyring.try_wait().unwrap(), None, "the keyring ended");
            assert!(Instant::now() < limit, "the keyring does not come: {}", String::from_utf8_lossy(&asked.stderr));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in [&mut self.keyring, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_key_makes_the_round_through_the_keyring() {
    let mut home = Home::new();
    let session = Session::start(home.path(), Some("login"));
    home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
    assert_eq!(
        home.run_with(&["store", "A"], KEY).done(),
        "stored `A` (…6789)\ncredentials are kept in the keyring of this system: it answers\n"
    );
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    assert_eq!(home.run_with(&["store", "A"], OTHER).done(), "replaced `A` (…3210)\n");
    assert_eq!(home.retrieve("A"), format!("{OTHER}\n"));
    let long = format!("eyJ{}", "x".repeat(60_000));
    home.store("LONG", &long);
    assert_eq!(home.retrieve("LONG"), format!("{long}\n"));
    let list = home.run(&["list"]).done();
    assert!(list.contains("A     keyring  …3210"), "{list}");
    // Nothing of it lies in a file of ours.
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("kanarie"), "{:?} shows the value", entry.path());
        }
    }
    assert!(!home.file("credentials.key").exists());
    assert_eq!(home.run(&["delete", "A"]).done(), "deleted `A`\n");
    assert!(home.run(&["retrieve", "A"]).failed(1).contains("no credential `A`"));
    assert_eq!(home.retrieve("LONG"), format!("{long}\n"));
}

#[test]
fn programs_that_write_to_the_keyring_at_once_lose_nothing() {
    let mut home = Home::new();
    let session = Session::start(home.path(), Some("login"));
    home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
    let names: Vec<String> = (0..6).map(|n| format!("KEY_{n}")).collect();
    let write =
        |name: &String| home.command(&["credentials", "store", name, &format!("value-of-{name}")]).spawn().unwrap();
    let children: Vec<_> = names.iter().map(write).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    for name in &names {
        assert_eq!(home.retrieve(name), format!("value-of-{name}\n"));
    }
}

#[test]
fn a_keyring_that_is_locked_or_gone_is_an_error_and_never_a_file() {
    let mut home = Home::new();
    {
        let session = Session::start(home.path(), Some("login"));
        home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
        home.store("A", KEY);
    }
    let gone = home.run(&["retrieve", "A"]).failed(1);
    assert!(gone.contains("cause: the session bus cannot be reached"), "{gone}");
    assert!(home.run_with(&["store", "B"], OTHER).failed(1).contains("error: `B` was not stored"));
    {
        let session = Session::start(home.path(), None);
        home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
        assert_eq!(
            home.run(&["retrieve", "A"]).failed(1),
            "error: `A` cannot be read\n\
             cause: the keyring is locked\n\
             help: unlock it and try again\n"
        );
        assert!(home.run_with(&["store", "B"], OTHER).failed(1).contains("cause: the keyring is locked"));
        assert!(home.run(&["list"]).done().contains("…6789"), "names can be told without it");
    }
    {
        let session = Session::start(home.path(), Some("login"));
        home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
        assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
    }
    assert!(!home.file("credentials.key").exists());
}

#[test]
fn a_locked_keyring_is_not_passed_over_for_the_first_key() {
    let mut home = Home::new();
    drop(Session::start(home.path(), Some("login")));
    let session = Session::start(home.path(), None);
    home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
    let said = home.run_with(&["store", "A"], KEY).failed(1);
    assert!(said.contains("cause: the keyring is locked") && said.contains("`--backend file`"), "{said}");
    assert!(!home.file("credentials").exists());
    assert!(home.run_with(&["store", "A", "--backend", "file"], KEY).done().contains("an encrypted file"));
}

#[test]
fn a_bus_without_a_keyring_leads_to_the_file() {
    let mut home = Home::new();
    let mut session = Session::start(home.path(), None);
    session.keyring.kill().unwrap();
    session.keyring.wait().unwrap();
    home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
    // Where the bus can start a keyring by itself, that one has no collection yet.
    let said = home.run_with(&["store", "A"], KEY).done();
    assert!(said.contains("an encrypted file"), "{said}");
    assert_eq!(home.retrieve("A"), format!("{KEY}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_spends_a_key_of_the_keyring_and_notices_when_it_changes() {
    let upstream = upstream().await;
    let mut home = Home::new();
    let session = Session::start(home.path(), Some("login"));
    home.set("DBUS_SESSION_BUS_ADDRESS", &session.address);
    home.store("A", KEY);
    home.configure(upstream.addr, "credential:A");
    let (folder, bus) = (home.path().to_str().unwrap(), session.address.as_str());
    let env = [("CCO_HOME", folder), ("HOME", folder), ("DBUS_SESSION_BUS_ADDRESS", bus)];
    let gateway = Gateway::start_with(serde_json::json!({}), &[], &env).await;
    gateway.ask(unsigned()).await;
    assert_eq!(upstream.last().header("x-api-key"), Some(KEY));
    home.store("A", OTHER);
    until(async || {
        gateway.ask(unsigned()).await;
        upstream.last().header("x-api-key") == Some(OTHER)
    })
    .await;
}
