//! What others can see of keys: nothing in lists of processes, in children, in what a crash leaves behind.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::common::{Gateway, contains, until, upstream};
use crate::home::{Home, KEY};
use crate::live::unsigned;

/// Has a process die of a signal, where core files are wanted and may be written.
fn crash(home: &Home, command: &str, signal: &str) -> (std::process::ExitStatus, Vec<String>) {
    let folder = home.file("crash");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let script = format!("ulimit -c unlimited && cd '{}' && exec {command}", folder.display());
    let mut child = home.wrapped("sh", &["-c", &script]).spawn().unwrap();
    // It runs when it has said something, or when it is what it should become.
    let program = command.split(' ').next().unwrap();
    while !std::fs::read(format!("/proc/{}/cmdline", child.id())).unwrap().starts_with(program.as_bytes()) {
        std::thread::yield_now();
    }
    if program != "sleep" {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        assert!(line.starts_with("listening on"), "{line}");
    }
    // More than once: what looks for stack overflows takes the first SIGSEGV, and leaves the next to the system.
    let status = loop {
        let sent = std::process::Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
    };
    let left =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    (status, left.collect())
}

#[test]
fn a_crash_leaves_no_core() {
    let home = Home::new();
    home.store("A", KEY);
    // Another program shows that one would be left here.
    let (status, left) = crash(&home, "sleep 600", "SEGV");
    assert!(
        status.core_dumped() && !left.is_empty(),
        "core files are off on this machine (`ulimit -Hc`, /proc/sys/kernel/core_pattern), so this test can show nothing"
    );
    for (signal, number) in [("SEGV", 11), ("ABRT", 6)] {
        let command = format!("{} serve --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_cco"));
        let (status, left) = crash(&home, &command, signal);
        assert_eq!((status.signal(), status.core_dumped()), (Some(number), false), "{signal}");
        assert_eq!(left, Vec::<String>::new(), "{signal}");
    }
}

/// All that the processes of this machine show of themselves: how they were called, and with which variables.
fn shown() -> Vec<(String, Vec<u8>)> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let files = pids
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .flat_map(|pid| ["cmdline", "environ"].map(|what| format!("/proc/{pid}/{what}")));
    files.filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}

fn showing(value: &str) -> Vec<String> {
    let fits = |(path, bytes): (String, Vec<u8>)| contains(&bytes, value.as_bytes()).then_some(path);
    shown().into_iter().filter_map(fits).collect()
}

/// Whether a process has this in its memory; `None`: we may not look.
fn remembers(pid: u32, value: &str) -> Option<bool> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let found = maps.lines().filter(|line| line.contains(" rw-p ")).any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        memory.read_at(&mut bytes, from).is_ok_and(|read| contains(&bytes[..read], value.as_bytes()))
    });
    Some(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_no_longer_known_is_wiped_from_memory() {
    let upstream = upstream().await;
    let home = Home::new();
    // In parts, so that the one who looks for it does not show it.
    let (before, after) =
        (["sk-ant-canary", "before-0123456789"].join("-"), ["sk-ant-canary", "after-0123456789"].join("-"));
    home.store("A", &before);
    home.configure(upstream.addr, "credential:A");
    let folder = home.path().to_str().unwrap();
    let env = [("CCO_HOME", folder), ("HOME", folder)];
    let gateway = Gateway::start_with(json!({}), &[], &env).await;
    let root = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0;
    if !root {
        assert_eq!(remembers(gateway.pid(), &before), None, "the memory of a gateway can be read by its user");
        return;
    }
    assert_eq!(remembers(gateway.pid(), &before), Some(true), "what is looked for can be found");
    home.store("A", &after);
    gateway.log_line(&["the key is another one", "6789"]).await;
    assert_eq!(remembers(gateway.pid(), &after), Some(true));
    assert_eq!(remembers(gateway.pid(), &before), Some(false), "the old key is still in memory");
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_shows_a_stored_key() {
    // Of this test alone: others run at the same time, and one of them gives keys on the command line.
    let (stored, second) = ("sk-ant-canary-of-the-list-of-processes", "sk-ant-canary-of-standard-input");
    let upstream = upstream().await;
    let home = Home::new();
    home.store("A", stored);
    // One provider with the stored key, and one whose helper is running all the time.
    let dump = home.file("environment");
    let helper = format!(
        "test -e \"{0}\" && exec sleep 600; env > \"{0}.new\"; mv \"{0}.new\" \"{0}\"; echo helped",
        dump.display()
    );
    let config = json!({
        "providers": {
            "anthropic": { "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "credential:A" },
            "second": { "providerType": "anthropic-compatible", "baseUrl": "http://127.0.0.1:1", "apiKeyRef": "env:SECOND" },
            "helped": {
                "providerType": "anthropic-compatible", "baseUrl": "http://127.0.0.1:1",
                "apiKeyRef": format!("exec:sh -c '{helper}'"), "apiKeyTtlSecs": 0.05,
            },
        },
        "routing": { "defaultProvider": "anthropic" },
    });
    std::fs::write(home.file("config.json"), config.to_string()).unwrap();
    let folder = home.path().to_str().unwrap();
    let env = [
        ("CCO_HOME", folder),
        ("HOME", folder),
        ("PATH", "/usr/bin:/bin"),
        ("SECOND", "canary-of-the-environment"),
        ("ANTHROPIC_API_KEY", "canary-of-the-catalog"),
        ("CCO_PASSPHRASE", "canary-of-the-passphrase"),
        ("HARMLESS", "canary-of-the-control"),
    ];
    let gateway = Gateway::start_with(json!({}), &[], &env).await;
    assert_eq!(gateway.ask(unsigned()).await.status, 200);
    assert_eq!(upstream.last().header_all("x-api-key"), [stored]);
    // A store that has its key, and waits for the end of its input.
    let mut writing = home.command(&["credentials", "store", "B"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = writing.stdin.take().unwrap();
    input.write_all(second.as_bytes()).unwrap();
    let writing = Ended(writing);
    // Another program shows that what is on a command line is found.
    let control = home.wrapped("sleep", &["600"]).env("CONTROL", "canary-of-the-search").spawn().unwrap();
    let control = Ended(control);
    until(async || !showing("canary-of-the-search").is_empty()).await;
    for value in [stored, second] {
        assert_eq!(showing(value), Vec::<String>::new(), "{value}");
    }
    // A helper gets the variables that are there, but for those that hold keys.
    let environment = std::fs::read_to_string(&dump).unwrap();
    assert!(environment.contains("canary-of-the-control"), "{environment}");
    for hidden in ["canary-of-the-environment", "canary-of-the-catalog", "canary-of-the-passphrase"] {
        assert!(!environment.contains(hidden), "a helper gets {hidden}");
    }
    drop((input, writing, control));
}
