//! The two servers of a client test: the simulated provider, and the gateway in front of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Fault, Places, shell};

/// How long a server may take until it says where it listens.
const START: Duration = Duration::from_secs(30);

/// The key that the gateway holds for the provider. It is nobody's: the provider is simulated.
pub(crate) const STORED_KEY: &str = "sk-ant-api03-stored-key-of-the-gateway";
/// The token that callers show to spend the stored key.
pub(crate) const GATEWAY_TOKEN: &str = "cco-test-gateway-token";

/// Both servers, which end when this is dropped.
pub(crate) struct Servers {
    pub(crate) gateway: String,
    pub(crate) upstream: String,
    pub(crate) journal: PathBuf,
    running: Vec<Running>,
}

struct Running {
    child: Child,
    log: PathBuf,
}

impl Servers {
    /// Starts both with an empty home and an empty journal in `home`, which is emptied first.
    pub(crate) fn start(places: &Places, home: &Path) -> Result<Self, Fault> {
        let io = |e| format!("cannot prepare `{}`: {e}", home.display());
        if home.exists() {
            fs::remove_dir_all(home).map_err(io)?;
        }
        fs::create_dir_all(home.join("cco")).map_err(io)?;
        let cco = places.target.join("debug").join("cco");
        let journal = home.join("journal.jsonl");
        let mut simulate = Self::command(&cco, home);
        // The bodies are there for the judges of what went up.
        simulate.args(["simulate", "--listen", "127.0.0.1:0", "--journal-bodies", "--journal"]).arg(&journal);
        let (upstream, simulator) = Running::start(simulate, home.join("simulate.log"), "simulator listening on ")?;

        let config = home.join("config.json");
        fs::write(&config, format!("{:#}\n", configuration(&upstream))).map_err(io)?;
        let mut serve = Self::command(&cco, home);
        serve.env("CCO_TEST_TOKEN", GATEWAY_TOKEN).env("CCO_TEST_STORED_KEY", STORED_KEY);
        serve.args(["serve", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        let (gateway, server) = Running::start(serve, home.join("serve.log"), "listening on ")?;
        Ok(Self { gateway, upstream, journal, running: vec![simulator, server] })
    }

    /// `cco` with nothing of the user's environment: neither keys nor configuration.
    fn command(cco: &Path, home: &Path) -> Command {
        let mut command = Command::new(cco);
        command.env_clear().env("HOME", home).env("CCO_HOME", home.join("cco")).current_dir(home);
        command
    }

    /// The last lines of both servers' logs, for the reader of a failure.
    pub(crate) fn logs(&self) -> String {
        self.running.iter().map(Running::tail).collect()
    }

    /// Which of the servers has ended although nobody asked it to.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.running.iter_mut().find_map(|running| {
            let status = running.child.try_wait().ok().flatten()?;
            Some(format!("the server of `{}` ended by itself: {status}", running.log.display()))
        })
    }
}

/// Providers that fail, each chosen by the project of its name: its fault, and where it is if not at the simulator.
const SHAKY: &[(&str, &str, Option<&str>)] = &[
    ("busy", "529", None),
    ("hanging", "no-bytes", None),
    ("cutting", "cut=0", None),
    ("failing", "error-first", None),
    // Nobody listens there.
    ("down", "500", Some("http://127.0.0.1:9")),
];

/// Providers of all kinds and protocols, each chosen by the project of its name: what stands behind the address, and what
/// the configuration says of it.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("claude", "", r#"{"providerType": "anthropic", "defaultModel": "claude-sonnet-5-5"}"#),
    ("anthropic-compatible", "", r#"{"providerType": "anthropic-compatible", "defaultModel": "claude-sonnet-5-5"}"#),
    ("openai", "", r#"{"providerType": "openai", "defaultModel": "gpt-5"}"#),
    ("openai-chat", "", r#"{"providerType": "openai", "protocol": "openai-chat", "defaultModel": "gpt-5"}"#),
    ("openai-responses", "", r#"{"providerType": "openai", "protocol": "openai-responses", "defaultModel": "gpt-5"}"#),
    ("azure", "", r#"{"providerType": "azure", "deployment": "gpt-5"}"#),
    ("azure-chat", "", r#"{"providerType": "azure", "deployment": "gpt-5", "protocol": "openai-chat"}"#),
    ("azure-dated", "", r#"{"providerType": "azure", "deployment": "gpt-5", "apiVersion": "2024-10-21"}"#),
    ("foundry", "", r#"{"providerType": "azure", "protocol": "anthropic", "defaultModel": "claude-sonnet-5-5"}"#),
    ("deepseek-own", "", r#"{"providerType": "deepseek", "defaultModel": "deepseek-v4-pro"}"#),
    ("deepseek", "", r#"{"providerType": "deepseek", "protocol": "openai-chat", "defaultModel": "deepseek-v4-pro"}"#),
    ("ollama", "", r#"{"providerType": "ollama", "defaultModel": "qwen3:30b"}"#),
    ("ollama-anthropic", "", r#"{"providerType": "ollama", "protocol": "anthropic", "defaultModel": "qwen3:30b"}"#),
    ("openrouter", "/api", r#"{"providerType": "openrouter", "defaultModel": "anthropic/claude-sonnet-5.5"}"#),
    (
        "openrouter-chat",
        "/api/v1",
        r#"{"providerType": "openrouter", "protocol": "openai-chat", "defaultModel": "qwen/qwen3-30b"}"#,
    ),
    ("vllm", "", r#"{"providerType": "vllm", "defaultModel": "qwen3"}"#),
    ("llamacpp", "", r#"{"providerType": "llamacpp", "defaultModel": "qwen3"}"#),
    ("openai-compatible", "/v1", r#"{"providerType": "openai-compatible", "defaultModel": "qwen3"}"#),
];

/// Agents whose requests go by lanes of their own.
const LANES: &[&str] = &["Explore", "scout"];

/// One provider that is as it should be, which all requests come to in the end.
fn configuration(upstream: &str) -> Value {
    let provider = |base: &str, name: &str, value: &str| {
        json!({
            "providerType": "anthropic-compatible",
            "baseUrl": base,
            "apiKeyRef": "env:CCO_TEST_STORED_KEY",
            "headers": { name: value },
            "timeoutSecs": 1,
        })
    };
    let mut config = json!({
        "server": { "token": "env:CCO_TEST_TOKEN" },
        "providers": { "anthropic": { "baseUrl": upstream, "apiKeyRef": "env:CCO_TEST_STORED_KEY" } },
        "routing": { "agentRules": {}, "rules": [] },
    });
    for (name, fault, base) in SHAKY {
        config["providers"][name] = provider(base.unwrap_or(upstream), "x-sim-fault", fault);
        let rule = json!({ "when": { "project": name }, "use": { "providers": [name] } });
        config["routing"]["rules"].as_array_mut().expect("it is a list").push(rule);
    }
    for (name, path, said) in FOREIGN {
        let mut provider: Value = serde_json::from_str(said).expect("each row is JSON");
        provider["baseUrl"] = format!("{upstream}{path}").into();
        provider["apiKeyRef"] = "env:CCO_TEST_STORED_KEY".into();
        provider["apiKeyMode"] = "stored".into();
        config["providers"][name] = provider;
        let rule = json!({ "when": { "project": name }, "use": { "providers": [name], "fallback": false } });
        config["routing"]["rules"].as_array_mut().expect("it is a list").push(rule);
    }
    for agent in LANES {
        let name = format!("lane-{agent}");
        config["providers"][&name] = provider(upstream, "x-lane", agent);
        config["providers"][&name]["timeoutSecs"] = 60.into();
        config["routing"]["agentRules"][agent] = name.into();
    }
    config
}

impl Running {
    /// Starts a server and waits for the line that says where it listens; what follows `said` in it is its URL.
    fn start(mut command: Command, log: PathBuf, said: &str) -> Result<(String, Self), Fault> {
        let name = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
        let mut file = File::create(&log).map_err(|e| format!("cannot write `{}`: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| format!("cannot write `{}`: {e}", log.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let child = command.spawn().map_err(|e| format!("cannot start `cco {name}`: {e}"))?;
        let mut running = Self { child, log };
        let (tx, rx) = sync_channel(1024);
        if let Some(out) = running.child.stdout.take() {
            shell::send_lines(out, tx);
        }
        let until = Instant::now() + START;
        let url = loop {
            match rx.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let _ = writeln!(file, "{line}");
                    if let Some(url) = line.strip_prefix(said) {
                        break url.trim().to_owned();
                    }
                }
                Err(_) => {
                    println!("{}", running.tail());
                    return Err(format!("`cco {name}` did not say `{said}…`"));
                }
            }
        };
        thread::spawn(move || {
            for line in rx {
                let _ = writeln!(file, "{line}");
            }
        });
        Ok((url, running))
    }

    fn tail(&self) -> String {
        let text = fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!("-- {}\n{}\n", self.log.display(), last.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
