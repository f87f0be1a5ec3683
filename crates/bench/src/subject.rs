//! What is measured: no gateway at all, nginx, and cco as users run it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Fault;
use crate::process::{Running, poll};

/// One column of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The mock itself.
    Direct,
    Nginx,
    /// nginx once more at the end of a round: what the ratio of equals is on this machine.
    NginxAgain,
    /// With what users have, but the archive of bodies.
    Cco,
    /// The same once more.
    CcoAgain,
    /// Without a ledger.
    CcoOff,
    /// The same, not pinned and with workers as users have them.
    Soaked,
    /// With the archive of bodies, as it is where nothing is configured.
    CcoBodies,
    /// With `log.level` "warn", so without a line a request.
    CcoQuiet,
    /// Before an upstream that speaks Chat Completions.
    CcoTranslates,
    /// With a hundred rules, of which the last one matches, a second provider behind the first, and hedging.
    CcoRoutes,
    /// nginx before an upstream that speaks TLS; and once more.
    NginxTls,
    NginxTlsAgain,
    /// Before the same upstream.
    CcoTls,
    /// Another gateway: Portkey's, on Node.js.
    Portkey,
    /// Another gateway: LiteLLM's proxy, on Python.
    LiteLlm,
    /// With every system call counted, in the file of [`Places::calls`].
    Traced,
    /// One worker, not pinned; and once more.
    OneWorker,
    OneWorkerAgain,
    TwoWorkers,
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::NginxAgain => "nginx again",
            Self::Cco => "cco",
            Self::CcoAgain => "cco again",
            Self::CcoOff => "cco, no ledger",
            Self::Soaked => "cco, soaked",
            Self::CcoBodies => "cco, bodies",
            Self::CcoQuiet => "cco, log.level warn",
            Self::CcoTranslates => "cco, from chat",
            Self::CcoRoutes => "cco, 100 rules",
            Self::NginxTls => "nginx, TLS",
            Self::NginxTlsAgain => "nginx, TLS again",
            Self::CcoTls => "cco, TLS",
            Self::Portkey => "Portkey",
            Self::LiteLlm => "LiteLLM",
            Self::Traced => "cco, traced",
            Self::OneWorker => "cco, 1 worker",
            Self::OneWorkerAgain => "cco, 1 worker again",
            Self::TwoWorkers => "cco, 2 workers",
        }
    }

    pub(crate) fn is_nginx(self) -> bool {
        matches!(self, Self::Nginx | Self::NginxAgain | Self::NginxTls | Self::NginxTlsAgain)
    }

    /// Its upstream speaks TLS.
    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::NginxTls | Self::NginxTlsAgain | Self::CcoTls)
    }

    /// Neither cco nor nginx: measured only where it is asked for.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Portkey | Self::LiteLlm)
    }

    /// One of ours that shows what users do, in the training of a build.
    pub(crate) fn is_trained(self) -> bool {
        matches!(
            self,
            Self::Cco | Self::CcoBodies | Self::CcoTranslates | Self::CcoRoutes | Self::CcoTls | Self::TwoWorkers
        )
    }

    /// Headers without which this gateway does not know where to send a request.
    pub(crate) fn headers(self, mock: SocketAddr) -> Vec<String> {
        match self {
            Self::Portkey => {
                vec!["x-portkey-provider: anthropic".into(), format!("x-portkey-custom-host: http://{mock}/v1")]
            }
            Self::LiteLlm => vec!["authorization: Bearer sk-bench".into()],
            _ => Vec::new(),
        }
    }

    /// Workers share both cores with mock and load; everything else has one core, and they the other.
    pub(crate) fn is_pinned(self) -> bool {
        !matches!(self, Self::OneWorker | Self::OneWorkerAgain | Self::TwoWorkers | Self::Soaked | Self::Traced)
    }
}

/// What every tool is told that starts gateways.
#[derive(Debug, clap::Args)]
pub(crate) struct Site {
    /// The `cco` to start; to measure it, a release build
    #[arg(long)]
    cco: PathBuf,
    /// Folder for what is found and for what the gateways write
    #[arg(long)]
    pub(crate) out: PathBuf,
}

impl Site {
    /// Where things lie, with a folder for the gateways that is there. nginx changes its folder, so both are absolute.
    pub(crate) fn places(&self, peers: Option<Peers>) -> Result<Places, Fault> {
        let scratch = self.out.join("scratch");
        fs::create_dir_all(&scratch)?;
        Ok(Places { cco: self.cco.canonicalize()?, scratch: scratch.canonicalize()?, peers: peers.unwrap_or_default() })
    }
}

/// Where things lie.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) cco: PathBuf,
    /// A folder that may be written, by nginx too.
    pub(crate) scratch: PathBuf,
    pub(crate) peers: Peers,
}

/// Where other gateways are installed; each is measured where its folder is given.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Peers {
    /// Folder into which npm has installed Portkey's gateway: measures it too
    #[arg(long)]
    portkey: Option<PathBuf>,
    /// Virtual environment with LiteLLM's proxy: measures it too
    #[arg(long)]
    litellm: Option<PathBuf>,
}

impl Peers {
    /// The folder of this one; `None`: nobody asked for it, or it is none of them.
    pub(crate) fn folder(&self, subject: Subject) -> Option<&Path> {
        match subject {
            Subject::Portkey => self.portkey.as_deref(),
            Subject::LiteLlm => self.litellm.as_deref(),
            _ => None,
        }
    }
}

impl Places {
    /// The folder of cco's own.
    pub(crate) fn home(&self) -> PathBuf {
        self.scratch.join("cco-home")
    }

    /// What was counted of the system calls of a gateway that has ended.
    pub(crate) fn calls(&self) -> PathBuf {
        self.scratch.join("calls.txt")
    }

    /// The certificate of the mock that speaks TLS.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.scratch.join("mock.pem")
    }
}

/// A gateway that answers.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    /// From the start of the process to its first whole answer.
    pub(crate) started_in: Duration,
    /// `None` where there is no gateway.
    pub(crate) process: Option<Running>,
}

/// Starts `subject` before the mock at `mock`, and waits for its first answer.
pub(crate) fn start(subject: Subject, places: &Places, mock: SocketAddr, core: &str) -> Result<Gateway, Fault> {
    if subject == Subject::Direct {
        return Ok(Gateway { address: mock, started_in: Duration::ZERO, process: None });
    }
    let address = free_port()?;
    let command = match subject {
        _ if subject.is_nginx() => nginx_command(subject, &places.scratch, address, mock)?,
        Subject::Portkey | Subject::LiteLlm => peer_command(subject, places, address, mock)?,
        _ => cco_command(subject, places, address, mock)?,
    };
    let headers: String = subject.headers(mock).iter().map(|header| format!("{header}\r\n")).collect();
    // Others import for a long time before they listen.
    let patience = Duration::from_secs(if subject.is_peer() { 90 } else { 20 });
    // As users do it: the log goes to a file.
    let log = File::create(places.scratch.join("gateway.log"))?;
    let begun = Instant::now();
    let mut process = Running::start_to(
        &command,
        subject.is_pinned().then_some(core),
        Stdio::from(log.try_clone()?),
        Stdio::from(log),
    )?;
    let answered = poll(patience, Duration::from_micros(200), || {
        let answered = answers(address, &headers);
        (answered || !matches!(process.0.try_wait(), Ok(None))).then_some(answered)
    });
    if answered != Some(true) {
        let log = fs::read_to_string(places.scratch.join("gateway.log")).unwrap_or_default();
        return Err(format!("{} does not answer: {}", subject.name(), log.trim()).into());
    }
    Ok(Gateway { address, started_in: begun.elapsed(), process: Some(process) })
}

fn free_port() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// What became of the bodies of requests and answers, as the gateway's metrics tell it.
pub(crate) fn bodies(gateway: SocketAddr) -> Result<Value, Fault> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nhost: {gateway}\r\nconnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let sum = |name: &str| counted(&page, name).ok_or_else(|| format!("the gateway's metrics tell no `{name}`"));
    Ok(json!({ "kept": sum("cco_bodies_stored_total")?, "skipped": sum("cco_bodies_skipped_total")? }))
}

/// The sum of a counter over all of its labels; `None`: it is not on the page.
pub(crate) fn counted(page: &str, name: &str) -> Option<u64> {
    let samples = page.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit_once(' ')?.1.trim().parse::<f64>().ok()
    });
    samples.map(|n| n as u64).reduce(|a, b| a + b)
}

/// Whether one small request comes back whole.
fn answers(address: SocketAddr, headers: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let body = r#"{"model":"claude-bench-1","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#;
        write!(
            stream,
            "POST /v1/messages HTTP/1.1\r\nhost: {address}\r\nx-api-key: bench\r\nx-bench: n=100\r\n\
             content-type: application/json\r\nanthropic-version: 2023-06-01\r\n{headers}\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200") && memchr::memmem::find(&answer, b"output_tokens").is_some())
    };
    ask().unwrap_or(false)
}

fn nginx_command(
    subject: Subject,
    scratch: &Path,
    listen: SocketAddr,
    mock: SocketAddr,
) -> std::io::Result<Vec<String>> {
    let text = include_str!("../nginx.conf")
        .replace("@SCHEME@", if subject.is_tls() { "https" } else { "http" })
        .replace("@MOCK@", &mock.port().to_string())
        .replace("@LISTEN@", &listen.port().to_string());
    let file = scratch.join("nginx.conf");
    fs::write(&file, text)?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    Ok(vec!["nginx".into(), "-p".into(), path(scratch), "-c".into(), path(&file)])
}

fn cco_command(
    subject: Subject,
    places: &Places,
    listen: SocketAddr,
    mock: SocketAddr,
) -> std::io::Result<Vec<String>> {
    let level = if subject == Subject::CcoQuiet { "warn" } else { "info" };
    let bodies = subject == Subject::CcoBodies;
    let base = format!("{}://{mock}", if subject.is_tls() { "https" } else { "http" });
    let (name, provider) = match subject {
        Subject::CcoTranslates => {
            ("chat", json!({ "providerType": "openai-compatible", "baseUrl": base, "defaultModel": "m" }))
        }
        _ => ("anthropic", json!({ "providerType": "anthropic", "baseUrl": base })),
    };
    let mut config = json!({
        "providers": { name: provider },
        "routing": { "defaultProvider": name },
        "audit": { "enabled": subject != Subject::CcoOff, "logRequestBodies": bodies, "logResponseBodies": bodies },
        // The model of the load has a price, so that pricing is part of what is measured.
        "costTracking": { "pricingOverrides": { "claude-bench-1": { "inputPerMillion": 3, "outputPerMillion": 15 } } },
        "log": { "level": level },
    });
    if subject.is_tls() {
        config["network"] = json!({ "caFile": places.certificate() });
    }
    if subject == Subject::CcoRoutes {
        config["providers"]["second"] =
            json!({ "providerType": "anthropic-compatible", "baseUrl": base, "apiKeyRef": "env:BENCH_KEY" });
        config["routing"] = routing(name);
    }
    let file = places.scratch.join("cco.json");
    fs::write(&file, config.to_string())?;
    let workers = if matches!(subject, Subject::TwoWorkers | Subject::Soaked) { "2" } else { "1" };
    let home = places.home();
    fs::create_dir_all(&home)?;
    let mut command = vec!["env".to_owned(), format!("CCO_HOME={}", home.display()), "BENCH_KEY=bench".into()];
    if subject == Subject::Traced {
        // Beside the process and not above it, so that a signal reaches the gateway.
        command.extend(["strace", "-D", "-f", "-qq", "-c", "-o"].map(String::from));
        command.push(places.calls().to_string_lossy().into_owned());
    }
    command.push(places.cco.to_string_lossy().into_owned());
    command.extend(["serve", "--workers", workers, "--listen"].map(String::from));
    command.extend([listen.to_string(), "--config".into(), file.to_string_lossy().into_owned()]);
    Ok(command)
}

/// As each of them says that it is run.
fn peer_command(
    subject: Subject,
    places: &Places,
    listen: SocketAddr,
    mock: SocketAddr,
) -> std::io::Result<Vec<String>> {
    let folder = places.peers.folder(subject).ok_or_else(|| std::io::Error::other("it is not installed"))?;
    let path = |path: PathBuf| path.to_string_lossy().into_owned();
    let port = listen.port().to_string();
    if subject == Subject::Portkey {
        let server = path(folder.join("node_modules/@portkey-ai/gateway/build/start-server.js"));
        return Ok(vec!["node".into(), server, "--headless".into(), format!("--port={port}")]);
    }
    let file = places.scratch.join("litellm.json");
    let config = json!({ "model_list": [{ "model_name": "claude-bench-1", "litellm_params": {
        "model": "anthropic/claude-bench-1", "api_base": format!("http://{mock}"), "api_key": "bench",
    } }], "general_settings": { "master_key": "sk-bench" } });
    fs::write(&file, config.to_string())?;
    let mut command: Vec<String> =
        ["env", "LITELLM_TELEMETRY=False", "LITELLM_LOCAL_MODEL_COST_MAP=True"].map(String::from).into();
    command.push(path(folder.join("bin/litellm")));
    command.extend(["--config".into(), path(file), "--host".into(), "127.0.0.1".into(), "--port".into(), port]);
    Ok(command)
}

/// Rules of every sort, and whatever else is there to route by.
fn routing(name: &str) -> Value {
    // Each unlike all others, since what rules share is looked at once.
    let never = |n: usize| {
        let when = match n % 9 {
            0 => json!({ "model": format!("gpt-{n}-*") }),
            1 => json!({ "model": [format!("*haiku-{n}*"), format!("*opus-{n}*")] }),
            2 => json!({ "headers": { "x-team": format!("go-{n}") } }),
            3 => json!({ "agentType": format!("Plan-{n}") }),
            4 => json!({ "promptTokensOver": 900_000 + n }),
            5 => json!({ "session": format!("x-{n}-*") }),
            6 => json!({ "agent": "sub", "model": format!("claude-{n}") }),
            7 => json!({ "project": format!("cco-{n}"), "tools": true }),
            _ => json!({ "inFlightOver": 5000 + n }),
        };
        json!({ "when": when, "use": { "providers": ["second"] } })
    };
    let mut rules: Vec<Value> = (0..99).map(never).collect();
    rules.push(json!({ "name": "all", "when": { "model": "claude-*" }, "use": { "providers": [name] } }));
    json!({
        "defaultProvider": name, "fallbackChain": [name, "second"], "rules": rules, "hedgeAfterMs": 5000,
        "agentRules": { "Explore": "second" }, "modelTierRules": { "haiku": "second" }, "continueOnBreak": true,
    })
}

/// Makes sure that nginx is there: installs it where we may. Why not, where we may not.
pub(crate) fn ensure_nginx() -> Result<String, String> {
    let version = || {
        let out = Command::new("nginx").arg("-v").output().ok()?;
        Some(String::from_utf8_lossy(&out.stderr).trim().trim_start_matches("nginx version: ").to_owned())
    };
    if let Some(version) = version() {
        return Ok(version);
    }
    if !rustix::process::geteuid().is_root() {
        return Err("nginx is not installed (Debian: `apt-get install nginx-light`)".into());
    }
    println!("nginx is not installed: installing it with `apt-get install nginx-light`, as root");
    let installed = Command::new("apt-get")
        .args(["install", "--yes", "--no-install-recommends", "nginx-light"])
        // It is not to be started as a service.
        .envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")])
        .stdin(Stdio::null())
        .output();
    match (installed, version()) {
        (_, Some(version)) => Ok(version),
        (Ok(out), None) => Err(format!(
            "nginx could not be installed: {}",
            String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or_default()
        )),
        (Err(e), None) => Err(format!("nginx is not installed, and there is no apt-get: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_missed_where_it_is_not() {
        let page = "# TYPE a_total counter\na_total{why=\"x y\"} 3\na_total{why=\"z\"} 4\na_total_more 9\nb 0\n";
        assert_eq!([counted(page, "a_total"), counted(page, "b"), counted(page, "c")], [Some(7), Some(0), None]);
    }
}
