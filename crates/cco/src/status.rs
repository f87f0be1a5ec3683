//! `cco status`: whether the gateway of this home runs, and how it is.

use std::process::ExitCode;

use gateway::config::Env;
use serde_json::{Value, json};

use crate::source::{self, Failure, Source};
use crate::{EXIT_NOT_RUNNING, cli, costs, limits, term, text};

/// Prints it.
pub(crate) fn run(options: &cli::daemon::Status) -> ExitCode {
    let env = Env::process();
    let Ok(mut gateway) = Source::gateway(&env) else {
        not_running(&env, options.json);
        return ExitCode::from(EXIT_NOT_RUNNING);
    };
    match Told::by(&mut gateway) {
        Ok(told) if options.json => term::line(told.json()),
        Ok(told) => told.lines().iter().for_each(term::line),
        // It may have ended just now.
        Err(_) if Source::gateway(&env).is_err() => {
            not_running(&env, options.json);
            return ExitCode::from(EXIT_NOT_RUNNING);
        }
        Err(why) => return source::ended(Err(why)),
    }
    ExitCode::SUCCESS
}

/// State and next step in three lines.
pub(crate) fn glance() -> ExitCode {
    let env = Env::process();
    let told = Source::gateway(&env).and_then(|mut gateway| Told::by(&mut gateway).map_err(std::io::Error::other));
    match told {
        Ok(told) => {
            term::line(format_args!("cco {}: serves on http://{}", crate::VERSION, told.address()));
            let total = &told.today["total"];
            let cost = costs::paid(total);
            let state = match told.health["config"]["cause"].is_null() {
                true => format!("{} today, {cost}", requests(&total["requests"])),
                false => "the configuration file has faults: `cco config validate` lists them".into(),
            };
            term::line(state);
            term::line("next: cco run -- claude, or cco --help");
        }
        Err(_) => {
            term::line(format_args!("cco {}: not running", crate::VERSION));
            let file = gateway::config::place(None, &env).map(|place| place.file).filter(|file| file.exists());
            term::line(match file {
                Some(file) => format!("configuration: {}", file.display()),
                None => "configuration: none is needed".into(),
            });
            term::line(match has_faults(&env) {
                true => "next: cco config validate (it has faults, and nothing starts with them)",
                false => "next: cco daemon start, or cco --help",
            });
        }
    }
    ExitCode::SUCCESS
}

/// Whether the configuration keeps the gateway from starting.
fn has_faults(env: &Env) -> bool {
    gateway::config::load(None, env).is_err()
}

fn not_running(env: &Env, as_json: bool) {
    if as_json {
        return term::line(json!({ "running": false }));
    }
    term::line("❌ Daemon Status:");
    term::line("   Running: false");
    // What is on this machine says nothing of another one.
    if let Some(origin) = Source::elsewhere() {
        return term::line(format_args!("   Nobody answers at {origin}"));
    }
    term::line(match has_faults(env) {
        true => "   The configuration has faults: cco config validate",
        false => "   Start it: cco daemon start",
    });
}

/// So many requests, in words.
fn requests(count: &Value) -> String {
    let n = count.as_i64().unwrap_or(0);
    format!("{} request{}", text::count(n), if n == 1 { "" } else { "s" })
}

/// What is the matter with a part of the gateway; `None`: nothing.
fn trouble(part: &Value) -> Option<&str> {
    match part["state"].as_str() {
        Some("good") => None,
        Some("off") => Some("off"),
        _ => Some(part["cause"].as_str().unwrap_or("not as it should be, see `GET /gateway/health`")),
    }
}

/// What a gateway says of itself.
pub(crate) struct Told {
    health: Value,
    /// The sums of today.
    today: Value,
    limits: Value,
    providers: Value,
}

impl Told {
    /// Asks it.
    pub(crate) fn by(gateway: &mut Source) -> Result<Self, Failure> {
        let health = gateway.json("/gateway/health")?;
        let zone = source::here();
        let since = [("by", "provider".to_owned()), ("since", "today".to_owned())];
        // Without a ledger there are neither sums nor limits; the rest is worth telling all the same.
        let today = gateway.json(&source::target("/gateway/costs", &since, &zone)).unwrap_or_default();
        let limits = gateway.json("/gateway/limits").unwrap_or_default();
        let providers = gateway.json("/gateway/providers")?;
        Ok(Self { health, today, limits, providers })
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        u32::try_from(self.health["process"]["pid"].as_u64()?).ok()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.health["process"]["address"].as_str().unwrap_or("")
    }

    fn port(&self) -> Option<u16> {
        self.address().rsplit_once(':')?.1.parse().ok()
    }

    /// The file of its configuration.
    pub(crate) fn file(&self) -> &str {
        self.health["config"]["file"].as_str().unwrap_or("none: the defaults")
    }

    /// The file of its log.
    pub(crate) fn log(&self) -> &str {
        self.health["process"]["log"].as_str().unwrap_or("stderr of its process")
    }

    fn version(&self) -> &str {
        self.health["version"].as_str().unwrap_or("")
    }

    fn json(&self) -> Value {
        let health = &self.health;
        json!({
            "running": true,
            "pid": self.pid(),
            "port": self.port(),
            "address": self.address(),
            "version": self.version(),
            "started": health["process"]["started"],
            "uptime_secs": health["uptime_secs"],
            "running_requests": health["requests"]["running"],
            "today": self.today["total"],
            "config": health["config"],
            "log": health["process"]["log"],
            "health": health["status"],
            "ledger": health["ledger"]["state"],
            "archive": health["bodies"]["state"],
            "providers": self.providers["providers"],
            "limits": self.limits["limits"],
        })
    }

    fn lines(&self) -> Vec<String> {
        let health = &self.health;
        // `2025-12-02T06:03:55.000Z` as people read it.
        let started = health["process"]["started"].as_str().unwrap_or("");
        let started = format!("{} UTC", started.get(..19).unwrap_or(started).replace('T', " "));
        let mut lines = vec![
            "✅ Daemon Status:".to_owned(),
            format!("   PID: {}", self.pid().map_or_else(|| "unknown".into(), |pid| pid.to_string())),
            "   Running: true".into(),
            format!("   Port: {}", self.port().unwrap_or(0)),
            format!("   Version: {}", self.version()),
            format!("   Started at: {started}"),
            format!("   Uptime: {}", text::span(health["uptime_secs"].as_i64().unwrap_or(0))),
            format!("   In flight: {}", requests(&health["requests"]["running"])),
        ];
        let total = &self.today["total"];
        if total.is_object() {
            lines.push(format!("   Today: {}, {}", requests(&total["requests"]), costs::paid(total)));
        }
        lines.push(format!("   Config: {}", text::line(self.file())));
        if let Some(why) = health["config"]["cause"].as_str() {
            lines.push("   The file has faults, and what held before holds on:".to_owned());
            lines.extend(why.lines().map(|line| format!("      {}", text::line(line))));
        }
        for key in health["config"]["needs_restart"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            lines.push(format!("   Waits for `cco daemon restart`: {key}"));
        }
        lines.push(format!("   Log: {}", text::line(self.log())));
        if let Some(why) = trouble(&health["ledger"]) {
            lines.push(format!("   Ledger: {}", text::line(why)));
        }
        // That no bodies are kept is often what was wanted.
        if let Some(why) = trouble(&health["bodies"]).filter(|_| health["bodies"]["state"] == "failing") {
            lines.push(format!("   Archive of bodies: {}", text::line(why)));
        }
        for provider in self.providers["providers"].as_array().into_iter().flatten() {
            let text = |name: &str| text::line(provider[name].as_str().unwrap_or("")).into_owned();
            let usable = if provider["usable"] == true { "" } else { ", no key" };
            lines.push(format!("   Provider {}: {}{usable}", text("name"), text("base_url")));
        }
        let limits = limits::nearest(&self.limits["limits"], gateway::recorder::now_us());
        lines.extend(limits.into_iter().map(|line| format!("   Limit: {line}")));
        if self.version() != crate::VERSION {
            lines.push(format!(
                "   This command is {}: `cco daemon restart` lets the gateway become the same",
                crate::VERSION
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_off_is_called_off() {
        assert_eq!(trouble(&json!({ "state": "good", "cause": null })), None);
        assert_eq!(trouble(&json!({ "state": "off" })), Some("off"));
        assert_eq!(trouble(&json!({ "state": "failing", "cause": "little room" })), Some("little room"));
        assert!(trouble(&json!({ "state": "failing" })).is_some_and(|why| why != "off"));
    }
}
