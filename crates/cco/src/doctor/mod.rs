//! `cco doctor`: everything that can be wrong around a gateway, looked at one by one, with a remedy for each.

mod drive;
mod elsewhere;
mod http;
mod judge;
mod load;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gateway::config::{self, ALL_PROXY, Config, CredentialRef, Env, HTTP_PROXY, HTTPS_PROXY, LoadError, ProxySetting};
use gateway::credential::{Credentials, Patience, Resolver};
use gateway::origin::BaseUrl;
use gateway::provider::{Probe, Verdict};
use gateway::{advice, net, setup, system};
use serde_json::{Value, json};

use crate::cli::Doctor;
use crate::source::Source;
use crate::{folders, term, text};

/// How long a provider may take to say what it thinks of a key.
const PROBE: Duration = Duration::from_secs(20);
/// The model that a gateway elsewhere is asked for: the cheapest.
const ELSEWHERE: &str = "claude-haiku-5-5";
/// Less room than this is soon none.
const LOW: u64 = 512 << 20;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Odd,
    Bad,
}

/// One line of the score card.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    fix: Option<String>,
}

/// The score card.
#[derive(Debug, Default)]
struct Card(Vec<Finding>);

impl Card {
    fn good(&mut self, what: &'static str, found: impl Into<String>) {
        self.0.push(Finding { what, state: State::Good, found: found.into(), fix: None });
    }

    fn odd(&mut self, what: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { what, state: State::Odd, found: found.into(), fix: Some(fix.into()) });
    }

    fn bad(&mut self, what: &'static str, found: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { what, state: State::Bad, found: found.into(), fix: Some(fix.into()) });
    }
}

/// Looks at everything and prints the score card.
pub(crate) fn run(options: &Doctor, url: Option<&BaseUrl>) -> ExitCode {
    let env = Env::process();
    let mut card = Card::default();
    if let Some(base) = url {
        elsewhere(base, options, &env, &mut card);
        return print(&card, options);
    }
    let gateway = Source::gateway(&env).ok();
    let config = configuration(&env, &mut card);
    home(&env, &mut card);
    serving(gateway, config.as_ref(), &mut card);
    clock(&mut card);
    if let Some(config) = &config {
        credentials(&env, &mut card);
        proxies(config, &env, &mut card);
        providers(config, &env, options, &mut card);
    }
    clients(&env, &mut card);
    if let Some(config) = &config {
        let load = options.load.map(|streams| (usize::from(streams), Duration::from_secs(options.load_secs.into())));
        term::patiently("driving a second gateway", || drive::run(config, options.model.as_deref(), load, &mut card));
    }
    print(&card, options)
}

/// The gateway at a URL, with the key that the environment has for it.
fn elsewhere(base: &BaseUrl, options: &Doctor, env: &Env, card: &mut Card) {
    let set = |name| env.named(name).and_then(|value| value.into_string().ok());
    let key = match (set("ANTHROPIC_API_KEY"), set("ANTHROPIC_AUTH_TOKEN")) {
        (Some(key), _) => ("x-api-key".to_owned(), key),
        (None, Some(token)) => ("authorization".to_owned(), format!("Bearer {token}")),
        (None, None) => {
            let found = "there is none in `ANTHROPIC_API_KEY` or `ANTHROPIC_AUTH_TOKEN`";
            return card.bad("key", found, "export ANTHROPIC_API_KEY=…, then the same again");
        }
    };
    let fields = vec![key, ("anthropic-version".to_owned(), "2023-06-01".to_owned())];
    // What the configuration says of proxies and certificates goes for what it is asked to look at, too.
    let config = config::load(None, env).map(|loaded| loaded.config).unwrap_or_default();
    let dialer = setup::dialer(&config, env);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match (dialer, runtime) {
        (Ok(dialer), Ok(runtime)) => {
            let target = http::Target { base: base.clone(), dialer, fields };
            runtime.block_on(elsewhere::examine(&target, options.model.as_deref().unwrap_or(ELSEWHERE), card));
        }
        (Err(why), _) => card.bad("network", why.to_string(), "cco config validate"),
        (_, Err(why)) => card.bad("network", why.to_string(), "see what the system has left: ulimit -a"),
    }
}

fn print(card: &Card, options: &Doctor) -> ExitCode {
    let count = |state| card.0.iter().filter(|finding| finding.state == state).count();
    let bad = count(State::Bad);
    if options.json {
        let name = |state| match state {
            State::Good => "good",
            State::Odd => "odd",
            State::Bad => "bad",
        };
        let row = |f: &Finding| json!({ "what": f.what, "state": name(f.state), "found": f.found, "fix": f.fix });
        let rows: Value = card.0.iter().map(row).collect();
        term::line(json!({ "checks": rows, "bad": bad, "odd": count(State::Odd) }));
    } else {
        for finding in &card.0 {
            let mark = match finding.state {
                State::Good => "✓",
                State::Odd => "!",
                State::Bad => "✗",
            };
            // What takes several lines stays in its column.
            let column = |text: &str| text::lines(text).replace('\n', &format!("\n{:17}", ""));
            term::line(format_args!("{mark} {:<14} {}", finding.what, column(&finding.found)));
            if let Some(fix) = &finding.fix {
                term::line(format_args!("  {:<14} -> {}", "", column(fix)));
            }
        }
        let (good, odd) = (count(State::Good), count(State::Odd));
        term::line(format_args!("{good} good, {odd} to look at, {bad} wrong"));
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn configuration(env: &Env, card: &mut Card) -> Option<Config> {
    let loaded = match config::load(None, env) {
        Ok(loaded) => loaded,
        Err(why) => {
            let count = if let LoadError::Faulty(faults) = &why { faults.faults.len() } else { 1 };
            let what = if count == 1 { "it".into() } else { format!("these {count} faults") };
            let fix = match config::place(None, env).map(|place| place.file) {
                Some(file) => format!("correct {what} in {}, then `cco config validate`", file.display()),
                None => format!("correct {what}, then `cco config validate`"),
            };
            card.bad("configuration", why.to_string(), fix);
            return None;
        }
    };
    let faults = setup::faults(&loaded.config, env);
    match (&faults[..], &loaded.file) {
        ([], Some(file)) => card.good("configuration", file.display().to_string()),
        ([], None) => card.good("configuration", "none: the defaults hold"),
        (faults, _) => {
            let told: Vec<_> = faults.iter().map(ToString::to_string).collect();
            card.bad(
                "configuration",
                told.join("\n"),
                "correct the file, or what it names, then `cco config validate`",
            );
        }
    }
    for note in advice::models(&loaded.config, advice::today()) {
        card.odd("models", note.to_string(), format!("cco config set {} …", note.path));
    }
    Some(loaded.config)
}

fn home(env: &Env, card: &mut Card) {
    let Some(home) = env.home() else {
        return card.bad("folder", "neither `CCO_HOME` nor `HOME` is set", "set `CCO_HOME` to a folder of your own");
    };
    let unwritable = |why: &dyn std::fmt::Display| {
        let found = format!("{} cannot be written: {why}; nothing is recorded, and no key is kept", home.display());
        (found, "export CCO_HOME=FOLDER, a folder of your own; in a container, a volume")
    };
    let missing = folders::missing(&home);
    if !missing.is_empty() {
        // Tried, as the first start would, and taken back.
        let made = system::folder(&home);
        folders::remove(&missing);
        return match made {
            Ok(()) => card.good("folder", format!("{} is made at the first start", home.display())),
            Err(why) => {
                let (found, fix) = unwritable(&why);
                card.bad("folder", found, fix);
            }
        };
    }
    match system::sound(&home).map_err(|why| (format!("{}: {why}", home.display()), repair(&home, &why))) {
        Ok(()) => match system::writable(&home) {
            Ok(()) => card.good("folder", home.display().to_string()),
            Err(why) => {
                let (found, fix) = unwritable(&why);
                card.bad("folder", found, fix);
            }
        },
        Err((found, fix)) => card.bad("folder", found, fix),
    }
    for name in ["token", "admin-token", "credentials", "credentials.key", "archive.key"] {
        let path = home.join(name);
        match system::read(&path, 16 << 20) {
            Ok(_) | Err(system::Refusal::Missing) => {}
            Err(why) => {
                let fix = match &why {
                    system::Refusal::Unsafe(flaw) => flaw.repair(&path),
                    _ => None,
                };
                let fix = fix.unwrap_or_else(|| format!("look at {}", system::quoted(&path)));
                card.bad("permissions", format!("{}: {why}", path.display()), fix);
            }
        }
    }
    match system::free_space(&home) {
        Ok(free) if free < LOW => {
            let found = format!("{} MB are free at {}", free >> 20, home.display());
            card.bad("disk", found, "make room: `cco audit purge --before 7d` removes what is kept of requests");
        }
        Ok(free) => card.good("disk", format!("{:.1} GB are free", free as f64 / f64::from(1 << 30))),
        Err(why) => {
            let found = format!("how much is free cannot be told: {why}");
            card.odd("disk", found, format!("df -h {}", system::quoted(&home)));
        }
    }
}

fn repair(home: &Path, why: &system::Refusal) -> String {
    let known = if let system::Refusal::Unsafe(flaw) = why { flaw.repair(home) } else { None };
    known.unwrap_or_else(|| format!("ls -ld {}", system::quoted(home)))
}

/// Whether a gateway serves, and where there is none, whether one could.
fn serving(gateway: Option<Source>, config: Option<&Config>, card: &mut Card) {
    let Some(mut gateway) = gateway else {
        card.odd("gateway", "not running", "cco daemon start");
        let Some(config) = config else { return };
        match net::listen(config.server.listen) {
            Ok(_) => card.good("port", format!("{} is free", config.server.listen)),
            Err(why) => {
                let holder = net::port_holder(config.server.listen).unwrap_or_else(|| why.to_string());
                card.bad(
                    "port",
                    format!("{}: {holder}", config.server.listen),
                    "stop it, or cco config set server.listen 127.0.0.1:PORT",
                );
            }
        }
        return;
    };
    let Ok(health) = gateway.json("/gateway/health") else {
        return card.bad("gateway", "it does not answer", "cco daemon restart");
    };
    let at = health["process"]["address"].as_str().unwrap_or("an unknown address");
    match health["version"].as_str() {
        Some(version) if version == crate::VERSION => card.good("gateway", format!("{version} serves at {at}")),
        version => {
            let found = format!("it is {}, this command is {}", version.unwrap_or("another version"), crate::VERSION);
            card.odd("gateway", found, "cco daemon restart");
        }
    }
    if let Some(why) = health["config"]["cause"].as_str() {
        card.bad(
            "reload",
            format!("what the file says is not what holds: {why}"),
            "correct the file, then `cco config reload`",
        );
    }
    let trouble =
        |of: &Value| (of["state"] == "failing").then(|| of["cause"].as_str().unwrap_or("no cause is told").to_owned());
    match trouble(&health["ledger"]).or_else(|| trouble(&health["bodies"])) {
        Some(why) => card.bad("ledger", why, "cco daemon logs --program; docs/ledger.md says what can be done"),
        None => card.good("ledger", health["ledger"]["state"].as_str().unwrap_or("unknown").to_owned()),
    }
}

/// A clock that lies makes prices, limits and certificates wrong.
fn clock(card: &mut Card) {
    let built = crate::VERSION.get(..10).unwrap_or_default().replace('.', "-");
    let today = ledger::query::day(advice::today(), ledger::query::UTC);
    if today < built {
        let found = format!("it is {today} here, before this program was built ({built})");
        card.bad("clock", found, "set the clock (timedatectl set-ntp true): certificates and prices depend on it");
    } else {
        card.good("clock", today);
    }
}

fn credentials(env: &Env, card: &mut Card) {
    let listed = Credentials::of(env, Patience::Never).and_then(|store| Ok((store.backend()?, store.list()?)));
    match listed {
        Ok((Some(backend), all)) => card.good("credentials", format!("{} in {backend}", all.len())),
        Ok((None, _)) => card.good("credentials", "none are stored"),
        Err(why) => card.bad("credentials", why.to_string(), why.help()),
    }
}

fn proxies(config: &Config, env: &Env, card: &mut Card) {
    let set: Vec<_> = [HTTPS_PROXY, HTTP_PROXY, ALL_PROXY]
        .iter()
        .filter(|variable| env.read(variable).is_some())
        .map(|variable| format!("`{}`", variable.names[variable.names.len() - 1]))
        .collect();
    match &config.network.proxy {
        ProxySetting::None if !set.is_empty() => card.odd(
            "proxy",
            format!("{} set, and not used: `network.proxy` is \"none\"", set.join(", ")),
            "cco config set network.proxy env",
        ),
        ProxySetting::None => card.good("proxy", "none"),
        ProxySetting::Env => card.good("proxy", format!("from the environment: {}", set.join(", "))),
        ProxySetting::Url(_) => card.good("proxy", "the configured one"),
    }
}

fn providers(config: &Config, env: &Env, options: &Doctor, card: &mut Card) {
    let resolver = Resolver::new(env.clone());
    let enabled: Vec<_> = config.providers.iter().filter(|provider| provider.enabled).collect();
    if enabled.is_empty() {
        card.bad("providers", "none is enabled", "cco config set providers.anthropic.enabled true");
    }
    for provider in enabled {
        let Some(base) = &provider.base_url else { continue };
        let at = format!("{} ({})", provider.name, base.origin);
        // A helper asks people: only where a key is tried.
        let reference = provider.api_keys.first().filter(|r| options.online || !matches!(r, CredentialRef::Exec(_)));
        let key = match reference.map(|reference| (reference, resolver.resolve(reference))) {
            None => {
                card.good("provider", format!("{at}: the client's own key"));
                continue;
            }
            Some((_, Ok(Some(key)))) => key,
            Some((reference, Ok(None))) => {
                let found = format!("{at}: no key of ours ({reference}); clients that bring their own are served");
                card.odd("provider", found, stored(reference));
                continue;
            }
            Some((reference, Err(why))) => {
                let found = format!("{at}: no key of ours: {why}; clients that bring their own are served");
                card.odd("provider", found, stored(reference));
                continue;
            }
        };
        if !options.online {
            card.good("provider", format!("{at}: there is a key; --online tries it"));
            continue;
        }
        match tried(config, env, provider, &key) {
            Ok(Verdict::Accepted) => card.good("provider", format!("{at}: reached, the key is accepted")),
            Ok(verdict @ Verdict::Rejected(..)) => {
                card.bad("provider", format!("{at}: {verdict}"), reference.map(stored).unwrap_or_default());
            }
            Ok(verdict) => card.odd("provider", format!("{at}: {verdict}"), "try again later"),
            Err(why) => {
                let fix = format!("cco config show network; cco config show providers.{}", provider.name);
                card.bad("provider", format!("{at}: not reached: {why}"), fix);
            }
        }
    }
}

/// How a reference comes to lead to a key.
fn stored(reference: &CredentialRef) -> String {
    match reference.stored_name() {
        Some(name) => format!("cco credentials store {name}"),
        None => format!("see to it that `{reference}` leads to a valid key"),
    }
}

fn tried(
    config: &Config,
    env: &Env,
    provider: &config::ProviderConfig,
    key: &gateway::secret::Secret,
) -> Result<Verdict, String> {
    let base = provider.base_url.as_ref().ok_or("it has no address")?;
    let dialer = setup::dialer(config, env).map_err(|why| why.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|why| why.to_string())?;
    let limit = provider.timeout.min(PROBE);
    let probe = Probe { kind: provider.kind, base, headers: &provider.headers, limit };
    runtime.block_on(probe.run(key, &*dialer)).map_err(|why| why.to_string())
}

/// Settings of clients that send their requests elsewhere.
fn clients(env: &Env, card: &mut Card) {
    let Some(base) = env.named("ANTHROPIC_BASE_URL") else { return };
    let base = base.to_string_lossy().into_owned();
    if base.contains("127.0.0.1") || base.contains("localhost") || base.contains("[::1]") {
        return card.good("clients", format!("`ANTHROPIC_BASE_URL` is {base} in this shell"));
    }
    let found = format!("`ANTHROPIC_BASE_URL` is {base} in this shell: clients that it starts do not come here");
    card.odd("clients", found, "unset ANTHROPIC_BASE_URL, or `eval \"$(cco env)\"`");
}
