//! A configuration that changes while the gateway serves: read, checked and put in the place of the old one, or refused
//! as a whole. What runs keeps the old one to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use ledger::price::PriceTable;
use tracing::{info, warn};

use crate::config::{self, Env, LoadError, Loaded, Log, NoteLevel, Setting, differences};
use crate::configured::{Ask, Fault, Report, Told};
use crate::gateway::Current;
use crate::setup::SetupError;
use crate::system::{self, Stamp};
use crate::{advice, setup};

/// How often the file is looked at: a `stat` call or two, also where a file system tells nobody of changes.
const LOOK: Duration = Duration::from_millis(500);

/// Keys whose change is seen at the next start only.
const AT_THE_START: &[&str] = &[
    "server.listen",
    "server.allowRemote",
    "audit.enabled",
    "audit.encrypt",
    "audit.retentionDays",
    "audit.maxGb",
    "audit.dbPath",
    "audit.redact",
    "log.maxMb",
    "log.files",
];

/// Whether a change of this key waits for the next start.
pub fn waits_for_a_start(path: &str) -> bool {
    AT_THE_START.contains(&path)
}

/// Why it is loaded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The file is another.
    Changed,
    /// Somebody asks for it.
    Asked,
}

/// Gives the program's log another level and form.
type ChangeLog = Box<dyn Fn(&Log) + Send>;

/// Loads the configuration again whenever that is asked for, or its file has changed.
pub struct Reloader {
    current: Arc<Current>,
    named: Option<PathBuf>,
    env: Env,
    /// What the process began with.
    first: Vec<Setting>,
    /// What holds now.
    settings: Vec<Setting>,
    seen: Seen,
    /// Gives the program's log another level and form.
    log: Option<ChangeLog>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reloader({:?})", self.seen)
    }
}

/// The state of the file when it was read, and of what it points at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen(Option<Stamp>, Option<Stamp>);

impl Seen {
    fn of(file: Option<&Path>) -> Self {
        let Some(file) = file else { return Self::default() };
        // Mounted configurations are links whose target is exchanged.
        let target = std::fs::canonicalize(file).ok();
        Self(system::stamp(file), target.as_deref().and_then(system::stamp))
    }
}

impl Reloader {
    /// Of a gateway that was made from this configuration.
    pub fn new(current: Arc<Current>, named: Option<&Path>, env: &Env, loaded: &Loaded) -> Self {
        let settings = loaded.settings.clone();
        let named = named.map(Path::to_path_buf);
        current.get().configured.begin(loaded.file.clone());
        // Nothing was seen yet: what changed since it was read is noticed at the first look.
        Self { current, named, env: env.clone(), first: settings.clone(), settings, seen: Seen::default(), log: None }
    }

    /// With a log that can be another while it is written.
    #[must_use]
    pub fn with_log(self, change: impl Fn(&Log) + Send + 'static) -> Self {
        Self { log: Some(Box::new(change)), ..self }
    }

    fn look(&self) -> Seen {
        Seen::of(config::place(self.named.as_deref(), &self.env).map(|place| place.file).as_deref())
    }

    /// Does that on a thread of its own until the configuration is closed.
    pub fn start(self) -> std::io::Result<()> {
        let configured = self.current.get().configured.clone();
        let asked = configured.open();
        let thread = std::thread::Builder::new().name("cco-config".into()).spawn(move || self.run(&asked))?;
        configured.answered_by(thread);
        Ok(())
    }

    fn run(mut self, asked: &Receiver<Ask>) {
        let mut changing = None;
        loop {
            match asked.recv_timeout(LOOK) {
                Ok(Ask::Reload(answer)) => {
                    let told = self.reload(Why::Asked);
                    if let Some(answer) = answer {
                        // Whoever asked may be gone.
                        let _ = answer.send(told);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = self.look();
                    // A file that is being written is left to its writer until it has been still for one look.
                    match changing.take() {
                        _ if now == self.seen => {}
                        Some(before) if before == now => {
                            let _ = self.reload(Why::Changed);
                        }
                        _ => changing = Some(now),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Loads it now. `Err`: what is wrong with it; nothing has changed then.
    pub fn reload(&mut self, why: Why) -> Told {
        self.seen = self.look();
        let result = self.try_reload(why);
        let gateway = self.current.get();
        match &result {
            // A file that was touched, or a comment in it.
            Ok(report)
                if why == Why::Changed && report.changes.is_empty() && gateway.configured.state().fault.is_none() => {}
            Ok(report) => {
                for note in &report.notes {
                    match note.level {
                        NoteLevel::Warn => warn!(target: "cco::config", "{note}"),
                        NoteLevel::Info => info!(target: "cco::config", "{note}"),
                    }
                }
                for change in &report.changes {
                    info!(target: "cco::config", "{change}");
                }
                for key in &report.waiting {
                    warn!(target: "cco::config", key = %key, "this change takes effect at the next start");
                }
                info!(target: "cco::config", changes = report.changes.len(), "the configuration was loaded again");
                gateway.configured.loaded(report);
            }
            Err((fault, why)) => {
                warn!(target: "cco::config", cause = %why, "the configuration is not used: what held before holds on");
                gateway.configured.failed(*fault, why);
            }
        }
        result.map_err(|(_, why)| why)
    }

    fn try_reload(&mut self, why: Why) -> Result<Report, (Fault, String)> {
        let wrong = |why: String| (Fault::Configuration, why);
        let Loaded { config, mut notes, file, settings } =
            config::load(self.named.as_deref(), &self.env).map_err(|why| match why {
                LoadError::Faulty(faults) => wrong(faults.to_string()),
                other => wrong(other.to_string()),
            })?;
        let faults = setup::faults(&config, &self.env);
        if !faults.is_empty() {
            let of_prices = faults.iter().any(|fault| matches!(fault, SetupError::Prices(_)));
            let fault = if of_prices { Fault::Prices } else { Fault::Configuration };
            return Err((fault, faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
        }
        let mut changes: Vec<_> = differences(&self.settings, &settings).iter().map(ToString::to_string).collect();
        let mut waiting: Vec<_> = differences(&self.first, &settings)
            .into_iter()
            .map(|difference| difference.path)
            .filter(|path| waits_for_a_start(path))
            .collect();
        let wanted = config.audit.request_bodies || config.audit.response_bodies;
        if config.audit.enabled && wanted && self.current.get().recorder.bodies().is_none() {
            // The archive is opened at the start, or not at all.
            waiting.push("audit.logRequestBodies".into());
        }
        // The old one stays where nothing is different: its connections and keys are worth keeping. Who asks may mean a
        // file that the configuration names.
        if why == Why::Asked || !changes.is_empty() {
            let old = self.current.get();
            let (gateway, more) = setup::again(&old, &config, &self.env).map_err(|why| wrong(why.to_string()))?;
            let (before, prices) = (old.recorder.prices(), gateway.recorder.prices());
            // What else changes them is told already.
            if before != prices && !changes.iter().any(|change| change.starts_with("costTracking.")) {
                let of = |prices: Option<&PriceTable>| prices.map_or_else(String::new, PriceTable::version);
                changes.push(format!("costTracking.pricesFile: new prices, {} (before: {})", of(prices), of(before)));
            }
            if why == Why::Asked {
                // Keys that stay are looked up again where that is asked for; what is good stays good.
                gateway.keys.look_again();
            }
            notes.extend(more);
            notes.extend(advice::models(&config, advice::today()));
            self.current.replace(Arc::new(gateway));
            // From here on the new one looks after the keys. Whoever still holds the old one has no threads to wait for.
            old.keys.close();
            if let Some(change) = &self.log {
                change(&config.log);
            }
        }
        self.settings = settings;
        Ok(Report { file, changes, waiting, notes })
    }
}
