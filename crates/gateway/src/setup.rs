//! From a checked configuration to a gateway that can serve.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::catalog;
use crate::client::edge::Edge;
use crate::client::inbound::Held;
use ledger::archive::{self, Archive};
use ledger::journal::JournalOptions;
use ledger::price::{Override, PriceTable};
use ledger::redact::Redactor;
use ledger::retention::Retention;
use ledger::store::sqlite::Sqlite;
use ledger::{Ledger, LedgerOptions, money};
use tokio_util::sync::CancellationToken;

use crate::coding::{self, Coding};
use crate::config::{Audit, Config, CredentialRef, Env, NanoUsd, Note, NoteLevel, OnFailure, ProviderConfig};
use crate::configured::Configured;
use crate::credential::{self, CredentialError, Keeper, Resolver};
use crate::gateway::{Counters, Gateway, Refused, Routing};
use crate::net::{BadProxy, BadRoots, Dial, Dialer, ExtraRoots, Settings};
use crate::process::Process;
use crate::provider::Provider;
use crate::recorder::{Billing, Bodies, Recorder};
use crate::replay::Shelf;
use crate::secret::Secret;

/// Why a configuration that reads well cannot be used on this machine.
#[derive(Debug)]
pub enum SetupError {
    /// `server.token` leads nowhere.
    Token(CredentialError),
    /// `network.proxy` says "env", and the environment names no proxy that can be used.
    Proxy(BadProxy),
    /// `network.caFile` holds no certificates.
    Roots(PathBuf, BadRoots),
    /// `costTracking` holds prices that cannot be used.
    Prices(String),
    /// Nothing can be recorded, and `audit.onFailure` is "refuse".
    Ledger(String),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(e) => write!(f, "server.token: {e}"),
            Self::Proxy(e) => write!(f, "network.proxy: {e}"),
            Self::Roots(file, e) => {
                write!(f, "network.caFile: `{}`: {e}; name a file of PEM certificates, or write null", file.display())
            }
            Self::Prices(e) => write!(f, "costTracking.{e}"),
            Self::Ledger(e) => write!(f, "nothing can be recorded, and `audit.onFailure` is \"refuse\": {e}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// Everything that the configuration leads to and that is not as it should be, so that it can be put right in one go.
pub fn faults(config: &Config, env: &Env) -> Vec<SetupError> {
    // A helper asks people, and once is enough.
    let token = config.server.token.as_ref().filter(|token| !matches!(token, CredentialRef::Exec(_)));
    let token = token.map(|token| credential::server_token(Some(token), None, &Resolver::new(env.clone())));
    [
        token.and_then(Result::err).map(SetupError::Token),
        config.network.proxy(env).err().map(SetupError::Proxy),
        roots(config).err(),
        if config.cost_tracking.enabled { prices(config).err() } else { None },
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn roots(config: &Config) -> Result<Option<ExtraRoots>, SetupError> {
    let Some(file) = config.network.ca_file.as_deref() else { return Ok(None) };
    ExtraRoots::read(file).map(Some).map_err(|e| SetupError::Roots(file.into(), e))
}

/// The dialer of this configuration.
pub fn dialer(config: &Config, env: &Env) -> Result<Arc<dyn Dial>, SetupError> {
    let proxy = config.network.proxy(env).map_err(SetupError::Proxy)?;
    let extra_roots = roots(config)?;
    Ok(Arc::new(Dialer::new(Settings { proxy, extra_roots })))
}

/// Opens the ledger of this configuration. Where it cannot be opened, requests are served all the same, unless
/// `audit.onFailure` says otherwise.
pub fn recorder(config: &Config, env: &Env) -> Result<(Recorder, Vec<Note>), SetupError> {
    let prices = config.cost_tracking.enabled.then(|| prices(config)).transpose()?.map(Arc::new);
    let audit = &config.audit;
    if !audit.enabled {
        return Ok(kept_before(config, env));
    }
    // What cannot be cleaned is not kept.
    let redact = Redactor::new(&audit.redact).map_err(|why| format!("audit.redact: {why}"));
    let opened = redact.map(Arc::new).and_then(|redact| match env.home() {
        Some(home) => opened(config, &home).map(|ledger| (ledger, redact)).map_err(|why| why.to_string()),
        None => Err("neither `CCO_HOME` nor `HOME` is set".to_string()),
    });
    match opened {
        Ok((ledger, redact)) => {
            let recorder = Recorder::new(Arc::new(ledger), prices, audit.journal_wait, audit.on_failure);
            let recorder = recorder.redacting(redact);
            Ok(match env.home() {
                // What was kept before can still be read and purged.
                Some(home) if audit.request_bodies || audit.response_bodies || archive_paths(&home).0.exists() => {
                    with_bodies(recorder, audit, &home)
                }
                _ => (recorder, Vec::new()),
            })
        }
        Err(why) if audit.on_failure == OnFailure::Refuse => Err(SetupError::Ledger(why)),
        Err(why) => {
            let note = Note::new(NoteLevel::Warn, format!("nothing is recorded: {why}"));
            Ok((Recorder::failed(&why), vec![note]))
        }
    }
}

fn opened(config: &Config, home: &Path) -> std::io::Result<Ledger> {
    let retention = Retention { keep: Some(config.audit.retention), max_bytes: None };
    let options = LedgerOptions { journal: JournalOptions::new(journal_path(home)), retention };
    Ledger::open(options, Arc::new(Sqlite::new(store_path(config, home))))
}

/// Where nothing is recorded any more, what was kept before can still be read and purged, and goes when it is too old.
fn kept_before(config: &Config, env: &Env) -> (Recorder, Vec<Note>) {
    let is_kept = |home: &PathBuf| store_path(config, home).exists() || archive_paths(home).0.exists();
    let Some(home) = env.home().filter(is_kept) else { return (Recorder::off(), Vec::new()) };
    match opened(config, &home) {
        Ok(ledger) => {
            let recorder = Recorder::off().looking_after(Arc::new(ledger));
            let audit = Audit { request_bodies: false, response_bodies: false, ..config.audit.clone() };
            if archive_paths(&home).0.exists() { with_bodies(recorder, &audit, &home) } else { (recorder, Vec::new()) }
        }
        Err(why) => {
            let message = format!("what was recorded before `audit.enabled` was turned off does not go: {why}");
            (Recorder::off(), vec![Note::new(NoteLevel::Warn, message)])
        }
    }
}

/// Opens the archive of bodies. Where it cannot be opened, records are kept without them.
fn with_bodies(recorder: Recorder, audit: &Audit, home: &Path) -> (Recorder, Vec<Note>) {
    let (folder, key) = archive_paths(home);
    let first = !folder.exists();
    let options = archive::Options {
        keep: audit.retention,
        max_bytes: audit.max_bytes,
        encrypt: audit.encrypt,
        redact: recorder.redact().clone(),
        decode: |coding, body, cap| coding::decode(Coding::of(Some(coding.as_bytes())).ok()??, body, cap),
        ..archive::Options::new(folder, key)
    };
    match Archive::open(options) {
        Ok(archive) => {
            let note = first.then(|| {
                let (days, gb) = (audit.retention.as_secs() / 86_400, audit.max_bytes >> 30);
                let how = if audit.encrypt { "encrypted" } else { "not encrypted" };
                let message = format!(
                    "the bodies of requests and answers are kept on this machine, {how}, for {days} days and up to {gb} \
                     GB: `audit.logRequestBodies` and `audit.logResponseBodies` turn it off"
                );
                Note::new(NoteLevel::Info, message)
            });
            (
                recorder.with_bodies(Bodies::new(archive, audit.request_bodies, audit.response_bodies)),
                Vec::from_iter(note),
            )
        }
        Err(why) => {
            let note = Note::new(NoteLevel::Warn, format!("no bodies of requests and answers are kept: {why}"));
            (recorder.without_bodies(&why.to_string()), vec![note])
        }
    }
}

/// Where the gateway of this home answers its own user.
pub fn own_socket(home: &Path) -> PathBuf {
    home.join("cco.sock")
}

/// What is locked as long as a gateway serves this home.
pub fn lock_path(home: &Path) -> PathBuf {
    home.join("cco.lock")
}

/// Where the log of the gateway of this home goes when it runs in the background.
pub fn log_path(home: &Path) -> PathBuf {
    home.join("log").join("cco.log")
}

/// Where the store of this configuration is.
pub fn store_path(config: &Config, home: &Path) -> PathBuf {
    config.audit.db_path.clone().unwrap_or_else(|| home.join("ledger.db"))
}

/// Where the journal is.
pub fn journal_path(home: &Path) -> PathBuf {
    home.join("journal")
}

/// Under which names the prices of this configuration know its providers.
pub fn billing(config: &Config, recorder: &Recorder) -> Billing {
    let host = |p: &ProviderConfig| p.base_url.as_ref().map(|base| base.origin.host.clone()).unwrap_or_default();
    config.providers.iter().map(|p| (p.name.clone(), recorder.billed_as(p.kind.name, &host(p)))).collect()
}

/// Where the archive of bodies lies, and the key that it is encrypted with.
pub fn archive_paths(home: &Path) -> (PathBuf, PathBuf) {
    (home.join("archive"), home.join("archive.key"))
}

/// The built-in prices, with those of the configuration before them.
pub fn prices(config: &Config) -> Result<PriceTable, SetupError> {
    let costs = &config.cost_tracking;
    let mut table = PriceTable::built_in();
    if let Some(path) = &costs.prices_file {
        let text = std::fs::read_to_string(path)
            .map_err(|why| SetupError::Prices(format!("pricesFile: cannot read `{}`: {why}", path.display())))?;
        let file = path.display();
        table = table.with_file(&text).map_err(|why| SetupError::Prices(format!("pricesFile: `{file}`: {why}")))?;
        if let Some(name) = table.unused(|name| catalog::find(name).is_some()).first() {
            let help = "use the name of a kind of provider, or say which `hosts` it has";
            return Err(SetupError::Prices(format!(
                "pricesFile: `{file}`: `providers.{name}`: no provider would be billed at these prices: {help}"
            )));
        }
    }
    let overrides = costs.pricing_overrides.iter().map(|(model, price)| {
        let nano = |rate: Option<NanoUsd>| rate.and_then(|NanoUsd(n)| i64::try_from(n).ok()).map(money::NanoUsd);
        let rates = Override {
            input: nano(price.input),
            output: nano(price.output),
            cache_write: nano(price.cache_write),
            cache_read: nano(price.cache_read),
        };
        (model.as_str(), rates)
    });
    table.with_overrides(overrides).map_err(|why| SetupError::Prices(format!("pricingOverrides: {why}")))
}

/// What outlives a change of the configuration.
struct Kept {
    version: String,
    started: SystemTime,
    admin_token: Secret,
    counters: Arc<Counters>,
    refused: Arc<Refused>,
    replays: Arc<Shelf>,
    configured: Arc<Configured>,
    process: Arc<Process>,
    stop: CancellationToken,
}

/// Joins configuration, keys and network. The notes are worth a line in the log each.
pub fn gateway(
    config: &Config,
    env: &Env,
    version: &str,
    dialer: Arc<dyn Dial>,
    recorder: Recorder,
) -> Result<(Gateway, Vec<Note>), SetupError> {
    let (admin_token, note) = credential::admin_token(env.home().as_deref());
    let kept = Kept {
        version: version.to_string(),
        started: SystemTime::now(),
        admin_token,
        counters: Arc::default(),
        refused: Arc::default(),
        replays: Arc::default(),
        configured: Arc::default(),
        process: Arc::default(),
        stop: CancellationToken::new(),
    };
    let (gateway, notes) = joined(config, env, dialer, Arc::new(recorder), kept, None)?;
    // One word about the folder is enough.
    Ok((gateway, if notes.is_empty() { note.into_iter().collect() } else { notes }))
}

/// The same for a configuration that takes the place of another: what was counted goes on, the ledger stays open.
pub fn again(old: &Gateway, config: &Config, env: &Env) -> Result<(Gateway, Vec<Note>), SetupError> {
    // A file of certificates may have changed under the same name.
    let same = old.network == config.network && config.network.ca_file.is_none();
    let dialer = if same { old.dialer.clone() } else { dialer(config, env)? };
    let prices = config.cost_tracking.enabled.then(|| prices(config)).transpose()?.map(Arc::new);
    let audit = &config.audit;
    let recorder = old.recorder.again(prices, audit.journal_wait, audit.on_failure);
    let recorder = recorder.keeping(audit.request_bodies, audit.response_bodies);
    let kept = Kept {
        version: old.version.clone(),
        started: old.started,
        admin_token: old.admin_token.clone(),
        counters: old.counters.clone(),
        refused: old.refused.clone(),
        replays: old.replays.clone(),
        configured: old.configured.clone(),
        process: old.process.clone(),
        stop: old.stop.clone(),
    };
    joined(config, env, dialer, Arc::new(recorder), kept, Some(old))
}

fn joined(
    config: &Config,
    env: &Env,
    dialer: Arc<dyn Dial>,
    recorder: Arc<Recorder>,
    kept: Kept,
    old: Option<&Gateway>,
) -> Result<(Gateway, Vec<Note>), SetupError> {
    let resolver = Resolver::new(env.clone());
    // Before the first helper runs: none sees what is another's.
    let keys = config.providers.iter().flat_map(|provider| &provider.api_keys);
    resolver.hide_from_helpers(keys.chain(&config.server.token));
    let home = env.home();
    let (token, note) = match old {
        // That of the installation is for good; where it cannot be kept in a file, it lives as long as the process.
        Some(old) if config.server.token.is_none() && old.is_token_own => (old.token.clone(), None),
        _ => {
            let (token, note) = credential::server_token(config.server.token.as_ref(), home.as_deref(), &resolver)
                .map_err(SetupError::Token)?;
            (Arc::new(token), note)
        }
    };
    let mut providers = Provider::all_after(old.map_or(&[], |old| &old.providers), config, &resolver);
    for provider in &mut providers {
        provider.billed_as = recorder.billed_as(provider.kind.name, &provider.base.origin.host);
        // Whoever runs on counts as before.
        let before = old.and_then(|old| old.providers.iter().find(|before| before.name == provider.name));
        if let Some(before) = before.filter(|before| before.cap.limits() == provider.cap.limits()) {
            provider.cap = before.cap.clone();
        }
    }
    let mut notes: Vec<Note> = note.into_iter().collect();
    for provider in &providers {
        for error in provider.key_errors() {
            notes.push(Note::new(
                NoteLevel::Warn,
                format!("there is no key for the provider `{}`: {error}", provider.name),
            ));
        }
    }
    let of_providers = providers.iter().flat_map(|p| &p.keys).map(|key| key.live().clone());
    let keys = Keeper::start(&resolver, of_providers.chain([token.clone()]));
    let disabled = config.providers.iter().filter(|p| !p.enabled).map(|p| p.name.clone()).collect();
    let server = &config.server;
    let held = |held: Option<&Arc<Held>>| {
        held.filter(|held| held.limit() == server.max_held).cloned().unwrap_or_else(|| Held::new(server.max_held))
    };
    let Kept { version, started, admin_token, counters, refused, replays, configured, process, stop } = kept;
    let gateway = Gateway {
        version,
        started,
        edge: Edge { hosts: server.hosts.clone(), origins: server.origins.clone() },
        token,
        is_token_own: server.token.is_none(),
        admin_token,
        open_stored_keys: server.open_stored_keys,
        max_body: server.max_body,
        held: held(old.map(|old| &old.held)),
        kept: held(old.map(|old| &old.kept)),
        ping: server.ping,
        providers,
        keys,
        disabled,
        dialer,
        recorder,
        counters,
        refused,
        replay: config.routing.replay,
        replays,
        configured,
        process,
        network: config.network.clone(),
        max_connections: server.max_connections,
        drain: server.drain,
        restart_drain: server.restart_drain,
        stop,
        on_loss: config.translation.on_loss,
        routing: old.map_or_else(|| Routing::new(config), |old| old.routing.again(config)),
    };
    Ok((gateway, notes))
}
