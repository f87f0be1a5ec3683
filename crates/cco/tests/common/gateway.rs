//! `cco serve` as a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Client, Upstream, lay_over, soon};

/// The program under test, with an empty environment.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cco"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A running gateway; it is killed when this is dropped.
pub(crate) struct Gateway {
    pub(crate) addr: SocketAddr,
    process: Process,
    home: Home,
}

/// Whose folder a gateway works in.
enum Home {
    Own(TempDir),
    Given(PathBuf),
}

/// A gateway's process, which may not have said yet where it listens.
pub(crate) struct Process {
    child: Child,
    out: watch::Receiver<String>,
    log: watch::Receiver<String>,
    readers: TaskTracker,
}

impl Process {
    /// Begins one that works in this folder.
    pub(crate) fn begin(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = binary();
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(args);
        command.env("CCO_HOME", home).env("HOME", home).envs(env.iter().copied());
        let mut child = command.spawn().unwrap();
        let readers = TaskTracker::new();
        let out = collect(&readers, child.stdout.take().unwrap());
        let log = collect(&readers, child.stderr.take().unwrap());
        Self { child, out, log, readers }
    }

    /// Where it listens, as soon as it does.
    pub(crate) async fn ready(&mut self) -> SocketAddr {
        let ready = soon(self.out.wait_for(|out| out.contains('\n'))).await;
        let Ok(ready) = ready.map(|out| out.clone()) else {
            panic!("the gateway did not start: {}", self.log.borrow().as_str())
        };
        ready.trim().strip_prefix("listening on http://").expect(&ready).parse().unwrap()
    }

    /// SIGKILL, in this moment.
    pub(crate) fn kill(&mut self) {
        self.child.start_kill().unwrap();
    }

    /// Waits until it has ended and all that it wrote has been read.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = soon(self.child.wait()).await.unwrap();
        self.readers.close();
        soon(self.readers.wait()).await;
        status
    }
}

impl Gateway {
    /// One whose only provider is this simulator. `more` is laid over its configuration.
    pub(crate) async fn start(upstream: &Upstream, more: Value) -> Self {
        let mut config = json!({ "providers": { "anthropic": { "baseUrl": format!("http://{}", upstream.addr) } } });
        lay_over(&mut config, more);
        Self::start_with(config, &[], &[]).await
    }

    /// One with this configuration, further arguments, and further variables.
    pub(crate) async fn start_with(config: Value, args: &[&str], env: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.json"), config.to_string()).unwrap();
        let process = Process::begin(home.path(), args, env);
        Self::of(process, Home::Own(home)).await
    }

    /// One in a folder that others have worked in, or will.
    pub(crate) async fn start_in(home: &Path, args: &[&str], env: &[(&str, &str)]) -> Self {
        Self::of(Process::begin(home, args, env), Home::Given(home.to_owned())).await
    }

    async fn of(mut process: Process, home: Home) -> Self {
        Self { addr: process.ready().await, process, home }
    }

    /// A connection to it.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.addr).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> super::Answer {
        self.client().await.ask(request).await
    }

    /// The gateway's own account of itself.
    pub(crate) async fn health(&self) -> Value {
        self.ask(super::request("GET", "/gateway/health", "", "")).await.json()
    }

    /// Waits until `holds` is true of the gateway's own account of itself.
    pub(crate) async fn wait_for_health(&self, holds: impl Fn(&Value) -> bool) {
        super::until(async || holds(&self.health().await)).await;
    }

    /// What it has written to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.process.log.borrow().clone()
    }

    /// The first line of the log that contains all of `parts`.
    pub(crate) async fn log_line(&self, parts: &[&str]) -> Value {
        let fits = |line: &str| parts.iter().all(|part| line.contains(part));
        let mut log = self.process.log.clone();
        // A last line without its end may still be under way.
        let whole = |log: &str| log.rsplit_once('\n').map(|(whole, _)| whole.to_owned()).unwrap_or_default();
        let log = soon(log.wait_for(|log| whole(log).lines().any(fits))).await.expect("the gateway still runs").clone();
        let line = log.lines().find(|line| fits(line)).expect("the log only grows");
        serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"))
    }

    /// The process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id().expect("it runs")
    }

    /// Its own folder.
    pub(crate) fn home(&self) -> &Path {
        match &self.home {
            Home::Own(folder) => folder.path(),
            Home::Given(folder) => folder,
        }
    }

    /// Sends a signal, by the name that kill(1) knows.
    pub(crate) async fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// SIGKILL, in this moment.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and the end in order that follows.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM").await;
        let status = self.ended().await;
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// The most memory that the process has ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that it has resident now, in bytes.
    pub(crate) fn memory_now(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{}/status", self.pid()))).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }
}

/// Collects what a process writes; the sender is gone when it has closed the pipe.
fn collect(tasks: &TaskTracker, from: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(String::new());
    tasks.spawn(async move {
        let (mut from, mut line) = (BufReader::new(from), Vec::new());
        while matches!(from.read_until(b'\n', &mut line).await, Ok(n) if n > 0) {
            sender.send_modify(|all| all.push_str(&String::from_utf8_lossy(&line)));
            line.clear();
        }
    });
    receiver
}
