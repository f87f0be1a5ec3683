//! The gateway in the background: started, looked at, replaced under load, killed, stopped.

use std::io::{BufRead as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::common::{Client, Ended, Upstream, contains, soon, streamed, until, upstream, whole};
use crate::home::{Home, Said};

/// A home whose gateway is ended with it.
pub(crate) struct Daemon(pub(crate) Home);

impl Daemon {
    /// Its only provider is this simulator; the port is any free one.
    pub(crate) fn new(upstream: &Upstream) -> Self {
        Self::listening(upstream, "127.0.0.1:0")
    }

    fn listening(upstream: &Upstream, address: &str) -> Self {
        let this = Self(Home::new());
        let config = serde_json::json!({
            "server": { "listen": address },
            "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr), "apiKeyRef": "" } },
        });
        std::fs::write(this.0.file("config.json"), config.to_string()).unwrap();
        this
    }

    fn run(&self, args: &[&str]) -> Said {
        self.0.command(args).output().unwrap().into()
    }

    pub(crate) fn start(&self) -> String {
        self.run(&["daemon", "start"]).done()
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.run(&["status", "--json"]).out).unwrap()
    }

    fn pid(&self) -> u64 {
        self.status()["pid"].as_u64().unwrap()
    }

    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.status()["address"].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.status()["pid"].as_u64();
        let _ = self.0.command(&["daemon", "stop"]).status();
        if let Some(pid) = pid.filter(|pid| is_alive(*pid)) {
            let _ = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// A process that has ended and was not waited for is not alive.
fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn signal(name: &str, pid: u64) {
    assert!(std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_shows_itself_and_stops() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let none = daemon.run(&["daemon", "status"]);
    assert_eq!((none.code, none.err.as_str()), (Some(3), ""));
    assert!(none.out.contains("\n   Running: false\n") && none.out.contains("cco daemon start"), "{}", none.out);
    assert_eq!(daemon.status(), serde_json::json!({ "running": false }));

    let started = daemon.start();
    let pid = daemon.pid();
    let lines: Vec<_> = started.lines().collect();
    assert_eq!(lines[0], format!("started: PID {pid}, http://{}", daemon.address()));
    assert!(lines[1].starts_with("log:    ") && lines[1].ends_with("/log/cco.log"), "{started}");
    assert!(lines[2].starts_with("config: ") && lines[2].ends_with("/config.json"), "{started}");
    assert!(is_alive(pid));

    let shown = daemon.run(&["status"]).done();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0], "✅ Daemon Status:");
    assert_eq!(lines[1], format!("   PID: {pid}"));
    assert_eq!(lines[2], "   Running: true");
    assert_eq!(lines[3], format!("   Port: {}", daemon.address().port()));
    assert!(lines[4].starts_with("   Version: 20") && lines[4].contains('+'), "{shown}");
    let at = lines[5].strip_prefix("   Started at: ").unwrap().strip_suffix(" UTC").unwrap();
    let form: String = at.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(form, "0000-00-00 00:00:00");
    assert_eq!(Client::connect(daemon.address()).await.ask(whole("text=ok")).await.status, 200);
    let shown = daemon.run(&["status"]).done();
    assert!(
        shown.contains("   Today: 1 request, <$0.0001\n") && shown.contains("   Provider anthropic: http://"),
        "{shown}"
    );
    assert!(daemon.start().starts_with(&format!("already running: PID {pid}")));
    let card = daemon.run(&["doctor"]).out;
    assert!(card.contains(&format!("serves at {}\n", daemon.address())), "{card}");
    let log = daemon.run(&["daemon", "logs", "--program"]).done();
    assert!(log.contains("\"message\":\"serving\"") || log.contains("serving"), "{log}");

    // On a slow machine it says in between that streams may finish.
    let stopped = daemon.run(&["daemon", "stop"]);
    assert_eq!((stopped.code, stopped.out), (Some(0), format!("stopped: PID {pid}\n")));
    assert!(!is_alive(pid));
    assert_eq!(daemon.run(&["daemon", "stop"]).done(), "not running\n");
    assert!(!daemon.0.file("cco.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_it_says_how_long_streams_may_finish() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let mut client = Client::connect(daemon.address()).await;
    client.send(streamed("events=100000 every=50")).await;
    client.head().await;
    let began = tokio::time::Instant::now();
    let stopped = daemon.run(&["daemon", "stop", "--within", "1"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    // 30 seconds would be the configuration's.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(daemon.run(&["daemon", "stop", "--within", "soon"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_can_look_at_a_gateway_elsewhere() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let url = format!("http://{}", daemon.address());
    assert_eq!(Client::connect(daemon.address()).await.ask(whole("text=ok")).await.status, 200);
    let mut elsewhere = Home::new();
    let run = |home: &Home, args: &[&str]| Said::from(home.command(args).output().unwrap());
    let status = run(&elsewhere, &["status", "--url", &url]).done();
    assert!(status.contains(&format!("Port: {}", daemon.address().port())), "{status}");
    let closed = run(&elsewhere, &["--url", &url, "logs", "--json"]).failed(1);
    assert!(closed.contains("admin token"), "{closed}");
    elsewhere.set("CCO_ADMIN_TOKEN", daemon.run(&["token"]).done().trim());
    let logs = run(&elsewhere, &["--url", &url, "logs", "--json"]).done();
    assert_eq!(logs.lines().count(), 1, "{logs}");
    let costs = run(&elsewhere, &["costs", "--json", "--url", &url]).done();
    assert!(costs.contains("\"requests\":1"), "{costs}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0, "nothing is made here");
    let refused = run(&elsewhere, &["--url", &url, "daemon", "stop"]).failed(2);
    assert!(refused.contains("works on this machine only"), "{refused}");
    assert_eq!(run(&elsewhere, &["--url", "https://127.0.0.1:1", "status"]).code, Some(2));
    let nobody = run(&elsewhere, &["--url", "http://127.0.0.1:9", "logs"]).failed(1);
    assert!(nobody.contains("nobody answers at http://127.0.0.1:9") && nobody.contains("\nhelp: "), "{nobody}");
    let status = run(&elsewhere, &["--url", "http://127.0.0.1:9", "status"]);
    assert_eq!(status.code, Some(3));
    assert!(status.out.ends_with("   Nobody answers at http://127.0.0.1:9\n"), "{}", status.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_told_at_once() {
    let upstream = upstream().await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let daemon = Daemon::listening(&upstream, &address);
    let refused = daemon.run(&["daemon", "start"]).failed(1);
    assert!(refused.contains(&format!("cannot listen on {address}")), "{refused}");
    assert!(refused.contains("the port is held by") && refused.contains("the gateway did not start"), "{refused}");
    std::fs::write(daemon.0.file("config.json"), "{ \"servr\": 1 }").unwrap();
    let refused = daemon.run(&["daemon", "start"]).failed(78);
    assert!(refused.contains("did you mean `server`?"), "{refused}");
    assert_eq!(daemon.status()["running"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_another_configuration_than_the_one_in_use_says_so() {
    let upstream = upstream().await;
    let mut daemon = Daemon::new(&upstream);
    daemon.start();
    let pid = daemon.pid();
    let (file, other, link) =
        (daemon.0.file("config.json"), daemon.0.file("it's other.json"), daemon.0.file("link.json"));
    std::fs::copy(&file, &other).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let [file, other, link] = [&file, &other, &link].map(|path| path.to_str().unwrap().to_owned());

    let refused = daemon.run(&["daemon", "start", "--config", &other]).failed(1);
    assert!(refused.starts_with("error: a gateway runs already, with another configuration\n"), "{refused}");
    assert!(refused.contains(&format!("cause: PID {pid} at http://{} reads {file}\n", daemon.address())), "{refused}");
    for same in [&file, &link] {
        let said = daemon.run(&["daemon", "start", "--config", same]).done();
        assert!(said.starts_with(&format!("already running: PID {pid}")), "{said}");
    }
    daemon.0.set("CCO_CONFIG", &other);
    let said = daemon.run(&["daemon", "start"]);
    assert!(said.code == Some(0) && said.out.starts_with(&format!("already running: PID {pid}")), "{}", said.out);
    assert!(
        said.err.contains("warning: it does not read the file that `CCO_CONFIG` names\nhelp: `cco "),
        "{}",
        said.err
    );
    daemon.0.unset("CCO_CONFIG");

    // What is advised is what helps.
    let command = refused.split("help: `").nth(1).unwrap().split("` lets").next().unwrap();
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_cco")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let done = daemon.0.wrapped("sh", &["-c", command]).env("PATH", path).output().unwrap();
    let said = Said::from(done);
    assert!(said.code == Some(0) && said.out.contains(&format!("config: {other}\n")), "{}{}", said.out, said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_named_from_its_own_folder_is_known_everywhere() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let mut command = daemon.0.command(&["serve", "--log-file", "--config", "config.json"]);
    let mut service = command.current_dir(daemon.0.path()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufReader::new(service.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    let file = daemon.0.file("config.json");
    let said = daemon.run(&["daemon", "start", "--config", file.to_str().unwrap()]).done();
    assert!(said.starts_with("already running: ") && said.contains(&format!("config: {}\n", file.display())), "{said}");
    assert_eq!(daemon.run(&["daemon", "stop"]).code, Some(0));
    assert!(service.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_starts_at_once_one_starts_it() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let children: Vec<_> = (0..4).map(|_| daemon.0.command(&["daemon", "start"]).spawn().unwrap()).collect();
    let said: Vec<Said> = children.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect();
    let pid = daemon.pid();
    let mut started = 0;
    for said in said {
        let out = said.done();
        assert!(out.contains(&format!("PID {pid},")), "{out}");
        started += usize::from(out.starts_with("started: "));
    }
    assert_eq!(started, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_leaves_nothing_in_the_way() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let first = daemon.pid();
    signal("KILL", first);
    until(async || !is_alive(first)).await;
    assert!(daemon.0.file("cco.sock").exists(), "it could not clean up");
    assert_eq!(daemon.run(&["status"]).code, Some(3));
    assert!(daemon.start().starts_with("started: "));
    assert_ne!(daemon.pid(), first);
}

/// Whoever is asked which process runs is the process itself: there is no file with a number in it that could be old.
#[tokio::test(flavor = "multi_thread")]
async fn no_number_of_a_process_is_kept_that_could_mean_another_one() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let pid = daemon.pid().to_string();
    for entry in std::fs::read_dir(daemon.0.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read(&path).unwrap_or_default();
        assert_ne!(String::from_utf8_lossy(&text).trim(), pid, "{}", path.display());
        assert!(!path.to_string_lossy().contains(&pid), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_that_does_not_start_leaves_the_old_one_in_place() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    daemon.start();
    let pid = daemon.pid();
    std::fs::write(daemon.0.file("config.json"), "{ nonsense").unwrap();
    let refused = daemon.run(&["daemon", "restart"]).failed(78);
    assert!(refused.contains("the old one serves on") && refused.contains("not well-formed"), "{refused}");
    assert!(refused.contains("config.json:1:3: ") && refused.contains("\nhelp: correct `"), "{refused}");
    assert_eq!(refused.matches("\nhelp: ").count(), 1, "{refused}");
    assert_eq!((daemon.pid(), is_alive(pid)), (pid, true));
    // The file is looked at twice a second.
    let status = || daemon.run(&["status"]).done();
    until(async || status().contains("The file has faults, and what held before holds on:\n")).await;
    assert!(status().contains("not well-formed"), "{}", status());
}

/// A gateway that answers until it is asked for more.
fn refusing(home: &Home) {
    let listener = std::os::unix::net::UnixListener::bind(home.file("cco.sock")).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let mut head = String::new();
            let mut lines = std::io::BufReader::new(stream.try_clone().unwrap());
            while lines.read_line(&mut head).unwrap() > 0 && !head.ends_with("\r\n\r\n") {}
            let (status, body) = match head.contains("after=") {
                true => (503, r#"{"error":{"message":"nothing is recorded any more"}}"#),
                false => (200, r#"{"records":[]}"#),
            };
            // Who only looked whether somebody is there has gone.
            let _ = write!(stream, "HTTP/1.0 {status} -\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        }
    });
}

#[test]
fn following_ends_where_the_gateway_goes_on_refusing() {
    let home = Home::new();
    refusing(&home);
    let said = Said::from(home.command(&["logs", "-f", "--json"]).output().unwrap());
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert_eq!(said.err.matches("note: waiting: nothing is recorded any more").count(), 1, "{}", said.err);
    assert!(said.err.contains("error: nothing is recorded any more"), "{}", said.err);
}

/// Whoever started it may never ask how it ended, as the first process of a container does.
#[tokio::test(flavor = "multi_thread")]
async fn stop_does_not_wait_for_somebody_to_notice_the_end() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let mut service = daemon.0.command(&["serve", "--log-file"]).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(service.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    let stop = tokio::process::Command::from(daemon.0.command(&["daemon", "stop"])).output();
    let said = Said::from(soon(stop).await.unwrap());
    assert_eq!((said.code, said.out), (Some(0), format!("stopped: PID {}\n", service.id())), "{}", said.err);
    assert!(service.wait().unwrap().success());
}

/// `CCO_TEST_RESTARTS` makes it longer.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_under_load_fail_no_request_and_double_no_record() {
    const CLIENTS: usize = 6;
    const STREAMS: usize = 12;
    #[expect(clippy::disallowed_methods, reason = "how long a test takes is for whoever runs it")]
    let restarts = std::env::var("CCO_TEST_RESTARTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let upstream = upstream().await;
    let daemon = Arc::new(Daemon::new(&upstream));
    daemon.start();
    let address = daemon.address();
    let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..STREAMS {
        asked.fetch_add(1, Ordering::Relaxed);
        let mut client = Client::connect(address).await;
        tasks.spawn(async move {
            let answer = client.ask(streamed("events=100 every=100")).await;
            assert_eq!((answer.status, answer.ended), (200, Ended::Whole));
            assert!(contains(&answer.body, b"event: message_stop") && !contains(&answer.body, b"event: error"));
        });
    }
    for n in 0..CLIENTS {
        let (over, asked) = (over.clone(), asked.clone());
        tasks.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let mut client = Client::connect(address).await;
                // Some keep their connections, some do not.
                for _ in 0..=n * 4 {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let script = if n % 2 == 0 { whole("text=ok") } else { streamed("events=3 every=5") };
                    let answer = client.ask(script).await;
                    assert_eq!((answer.status, answer.ended), (200, Ended::Whole), "{:?}", answer.body);
                    if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                        break;
                    }
                    // A load that leaves the restarts some of the processor.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
    }
    let mut pids = vec![daemon.pid()];
    for n in 0..restarts {
        let here = daemon.clone();
        let said = tokio::task::spawn_blocking(move || here.run(&["daemon", "restart"])).await.unwrap().done();
        let pid = daemon.pid();
        assert!(said.starts_with(&format!("restarted: PID {pid}, http://{address}\n")), "{n}: {said}");
        assert_ne!(pids.last(), Some(&pid));
        pids.push(pid);
    }
    over.store(true, Ordering::Relaxed);
    while let Some(done) = soon(tasks.join_next()).await {
        done.unwrap();
    }
    // What has handed over ends with its last connection.
    let last = pids.pop().unwrap();
    until(async || !pids.iter().any(|pid| is_alive(*pid))).await;
    assert!(is_alive(last));
    let logs = daemon.run(&["logs", "--json", "--limit", "100000"]).done();
    let mut ids: Vec<_> =
        logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert!(logs.lines().all(|line| line.contains("\"outcome\":\"success\"")));
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), all), (all, asked.load(Ordering::Relaxed)));
    // For whoever asks for the figures with `--nocapture`.
    println!("{restarts} restarts, {STREAMS} streams over them, {all} requests: none failed, one record each");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_is_one_that_systemd_accepts_and_says_when_it_is_ready() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let unit = daemon.run(&["daemon", "install", "--print"]).done();
    let exec = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let (program, args) = exec.strip_prefix('"').unwrap().split_once("\" ").unwrap();
    assert_eq!(program, env!("CARGO_BIN_EXE_cco"));
    let socket = daemon.0.file("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let args: Vec<_> = args.split(' ').collect();
    let mut service = daemon.0.command(&args).env("NOTIFY_SOCKET", &socket).spawn().unwrap();
    let mut message = [0; 256];
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(String::from_utf8_lossy(&message[..length]), format!("MAINPID={}\nREADY=1\n", service.id()));
    // The process that takes over tells the manager that it is the main one now.
    daemon.run(&["daemon", "restart"]).done();
    let length = manager.recv(&mut message).unwrap();
    assert_eq!(String::from_utf8_lossy(&message[..length]), format!("MAINPID={}\nREADY=1\n", daemon.pid()));
    assert!(service.wait().unwrap().success());
    let file = daemon.0.file("cco.service");
    std::fs::write(&file, unit).unwrap();
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["verify", "--user", "--man=no"]).arg(&file).env("XDG_RUNTIME_DIR", daemon.0.path());
    let said = verify.output().unwrap_or_else(|why| {
        panic!(
            "`systemd-analyze` is not here: `cargo xtask setup` installs it (Debian: `apt-get install systemd`): {why}"
        )
    });
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn uninstall_leaves_the_folder_as_it_was_before() {
    let upstream = upstream().await;
    let daemon = Daemon::new(&upstream);
    let user = daemon.0.path();
    let home = user.join("ours");
    let run = |args: &[&str]| Said::from(daemon.0.command(args).env("CCO_HOME", &home).output().unwrap());
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::rename(user.join("config.json"), home.join("config.json")).unwrap();
    run(&["config", "init", "--force"]).done();
    run(&["config", "set", "server.listen", "127.0.0.1:0"]).done();
    run(&["config", "set", "providers.anthropic.baseUrl", &format!("http://{}", upstream.addr)]).done();
    let mut store = daemon.0.command(&["credentials", "store", "A", "--backend", "file"]);
    let mut store = store.env("CCO_HOME", &home).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut store.stdin.take().unwrap(), b"sk-ant-api03-0123456789").unwrap();
    assert!(store.wait().unwrap().success());
    run(&["daemon", "start"]).done();
    let status: Value = serde_json::from_str(&run(&["status", "--json"]).out).unwrap();
    let address = status["address"].as_str().unwrap().parse().unwrap();
    assert_eq!(Client::connect(address).await.ask(whole("text=ok")).await.status, 200);
    run(&["setup", "claude", "--yes"]);
    assert!(user.join(".claude/settings.json").exists());

    let asked = run(&["uninstall"]);
    assert_eq!(asked.code, Some(1));
    for part in ["the gateway that runs (PID ", "the credential `A`", "set up in claude", "this stays: "] {
        assert!(asked.out.contains(part), "{part} in {}", asked.out);
    }
    assert!(home.join("ledger.db").exists() && asked.err.contains("nothing was removed"), "{}", asked.err);
    let done = run(&["uninstall", "--purge", "--yes"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let left: Vec<_> = std::fs::read_dir(user).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?} after {}", done.out);
    assert_eq!(run(&["uninstall"]).done(), "there is nothing to remove\n");
}
