//! Where commands get their answers: from the gateway that runs, else from its files.

mod http;
mod zone;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gateway::admin::ask::{Bodied, Question, Told, Wrong, Zone, encoded};
use gateway::admin::change::Change;
use gateway::client::respond::without_details;
use gateway::config::{self, CCO_ADMIN_TOKEN, Config, Env};
use gateway::origin::{BaseUrl, Origin, Scheme};
use gateway::recorder::{Billing, Recorder};
use gateway::secret::Secret;
use gateway::{setup, system};
use ledger::archive;
use ledger::offline::Offline;
use ledger::query::Filter;
use ledger::store::StoreError;
use ledger::store::sqlite::Sqlite;
use serde_json::Value;

use crate::cli::look::Look;
use crate::{EXIT_NOT_RUNNING, term, text};

pub(crate) use http::Place;
pub(crate) use zone::{clock, exactly, here, micros};

/// Why a command ends without what it was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    cause: Option<String>,
    help: Option<Cow<'static, str>>,
    code: u8,
    /// Nobody was there to ask, or went away over it.
    unheard: bool,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None, help: None, code: 1, unheard: false }
    }

    /// Nobody answers who was to be asked, and why.
    pub(crate) fn absent(what: &str, why: &io::Error) -> Self {
        let absent = |what: String| Self { code: EXIT_NOT_RUNNING, unheard: true, ..Self::new(what) };
        if let Some(origin) = ELSEWHERE.get() {
            return absent(format!("nobody answers at {origin}")).because(why).help(AT_THE_URL);
        }
        match why.kind() {
            // Without a gateway there is no socket, or a dead one: that says no more than the words.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => absent(what.into()).help("cco daemon start"),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::new(what)
                .because("one is there, and says nothing: it is stopped, or stuck")
                .help("cco daemon logs --program"),
            _ => Self::new(what).because(why),
        }
    }

    /// What happened was said already.
    pub(crate) fn told(code: u8) -> Self {
        Self { code, ..Self::new("") }
    }

    /// What was typed cannot be meant.
    pub(crate) fn usage(what: impl fmt::Display) -> Self {
        Self { code: 2, ..Self::new(what.to_string()) }
    }

    /// With another exit code in the place of this one.
    pub(crate) fn coded(self, from: u8, to: u8) -> Self {
        if self.code == from { Self { code: to, ..self } } else { self }
    }

    pub(crate) fn because(self, cause: impl fmt::Display) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    /// Whether what was asked cannot be done as it is.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code == 2
    }

    /// Whether nobody answered, where another may.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// It was no exchange that is missing.
    pub(crate) fn unlisted(self) -> Self {
        Self { help: None, ..self }
    }

    pub(crate) fn help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// What happened and why, in one line for another message.
    pub(crate) fn whole(&self) -> String {
        self.cause.as_ref().map_or_else(|| self.what.clone(), |cause| format!("{}: {cause}", self.what))
    }
}

/// Prints why a command failed, if it did.
pub(crate) fn ended(done: Result<(), Failure>) -> ExitCode {
    let Err(failure) = done else { return ExitCode::SUCCESS };
    if failure.what.is_empty() {
        return ExitCode::from(failure.code);
    }
    let cause = failure.cause.as_deref().map(text::lines);
    let help = failure.help.or_else(|| match (failure.code, ELSEWHERE.get()) {
        // It ends with the words of another process, and its help.
        _ if failure.what.contains("\nhelp: ") => None,
        // Whoever typed what cannot be meant is shown where the possibilities stand.
        (2, _) => Some(term::its_help().into()),
        (_, Some(origin)) => Some(format!("`cco doctor --url {origin}` examines that gateway").into()),
        (_, None) => Some("`cco doctor` looks for what is wrong".into()),
    });
    let cause = cause.as_ref().map(|cause| cause as &dyn fmt::Display);
    term::error(text::lines(&failure.what), cause, help.as_deref());
    ExitCode::from(failure.code)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

impl From<Wrong> for Failure {
    fn from(why: Wrong) -> Self {
        match why {
            Wrong::Question(why) => Self::usage(why),
            Wrong::Store(StoreError::Missing(_)) => {
                Self::new("nothing has been recorded yet").help("`cco run -- claude` sends something through it")
            }
            why @ (Wrong::Missing(_) | Wrong::Ambiguous(..)) => Self::new(why.to_string()).help(LISTED),
            why => Self::new(why.to_string()),
        }
    }
}

/// What is told where a gateway is needed, and there is none.
pub(crate) const NOBODY: &str = "no gateway is running here";

/// How long a question to the files may take.
const PATIENT: Duration = Duration::from_secs(120);

/// What to do where nobody is at the address that was named.
const AT_THE_URL: &str =
    "see that the gateway runs there (`cco status` on that machine) and that the address is its own";

/// What to do where no exchange is meant, or several.
const LISTED: &str = "`cco logs` lists what there is";

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        let kind = why.kind();
        let help = "`cco status` shows whether it runs, `cco daemon logs --program` what it says";
        let failure = Self::new("the gateway did not answer").because(why).help(help);
        // What is too large, or no HTTP, is it the next time as well.
        let unheard = !matches!(kind, io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidData);
        Self { unheard, ..failure }
    }
}

/// The path with the words of a query, and with the user's clock.
pub(crate) fn target(path: &str, words: &[(&str, String)], zone: &Zone) -> String {
    let words = words.iter().map(|(word, value)| encoded(word, value));
    let query: Vec<String> = words.chain([encoded("zone", &zone.text())]).collect();
    format!("{path}?{}", query.join("&"))
}

/// The words that say which exchanges are meant; wrong ones are told before anything is asked.
pub(crate) fn words(look: &Look, zone: &Zone) -> Result<Vec<(&'static str, String)>, Failure> {
    let words = look.words();
    let mut filter = Filter::default();
    for (word, value) in &words {
        filter.set(word, value, gateway::recorder::now_us(), &|at| zone.at(at)).map_err(Failure::usage)?;
    }
    filter.check().map_err(Failure::usage)?;
    Ok(words)
}

/// Where the gateway is that commands ask, if not in our own folder.
static ELSEWHERE: OnceLock<Origin> = OnceLock::new();

/// From now on the gateway there is asked. Of a process's calls only the first counts.
pub(crate) fn ask_at(url: &BaseUrl) -> Result<(), Failure> {
    if url.origin.scheme != Scheme::Http {
        return Err(Failure::usage("commands ask a gateway over http:// only")
            .help("have a tunnel lead to it, for example `ssh -L 8000:127.0.0.1:54548 host`"));
    }
    let _ = ELSEWHERE.set(url.origin.clone());
    Ok(())
}

/// What opens a gateway to whom it belongs. That of our own folder goes to nobody but this machine.
fn admin_token(env: &Env, origin: &Origin) -> Option<Secret> {
    if let Some(given) = env.read(&CCO_ADMIN_TOKEN).and_then(|token| token.into_string().ok()) {
        return Some(Secret::new(given));
    }
    let is_here = origin.host == "localhost" || origin.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let token = system::read(&env.home().filter(|_| is_here)?.join("admin-token"), 4096).ok()?;
    Some(Secret::new(std::str::from_utf8(&token).ok()?.trim()))
}

/// What is told where the store cannot be asked.
const ONLY_JOURNAL: &str = "only what waits in the journal is shown";

/// The gateway or its files.
pub(crate) enum Source {
    /// The gateway that answers there.
    Gateway(Place),
    /// The files of this home.
    Files(Box<Files>),
}

/// A home without a gateway.
pub(crate) struct Files {
    env: Env,
    config: Config,
    store: Sqlite,
    journal: PathBuf,
    /// Closed while something is changed: on a full disk only one can be there.
    offline: Option<Offline>,
    /// The archive, or why it cannot be opened.
    bodies: Option<Result<archive::Reader, String>>,
    /// For changes: opened at the first.
    keeper: Option<Keeper>,
}

/// The ledger, open for changes.
struct Keeper {
    recorder: Arc<Recorder>,
    billing: Arc<Billing>,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.recorder.close();
    }
}

/// Our folder.
pub(crate) fn home(env: &Env) -> Result<PathBuf, Failure> {
    let help = "`export CCO_HOME=FOLDER`, or `cco --home FOLDER …`: a folder of your own";
    let lost = || Failure::new("neither `CCO_HOME` nor `HOME` is set").help(help);
    env.home().ok_or_else(lost)
}

/// The configuration as far as it can be read: what was recorded can be looked at whatever is wrong with it.
pub(crate) fn configuration(env: &Env) -> Config {
    match config::load(None, env) {
        Ok(loaded) => loaded.config,
        Err(why) => {
            term::note(format_args!("the configuration is not used, because of its faults:\n{why}"));
            Config::default()
        }
    }
}

impl Source {
    /// The gateway of this home if one runs and answers, else its files, and a word about that.
    pub(crate) fn open() -> Result<Self, Failure> {
        Self::opened(false)
    }

    /// The same for a removal, which must also be possible where nothing can be read.
    pub(crate) fn open_to_remove() -> Result<Self, Failure> {
        Self::opened(true)
    }

    fn opened(for_changes: bool) -> Result<Self, Failure> {
        let env = Env::process();
        if let Some(origin) = ELSEWHERE.get() {
            let nobody = |why| Failure::new(format!("nobody answers at {origin}")).because(why).help(AT_THE_URL);
            return Self::gateway(&env).map_err(nobody);
        }
        let home = home(&env)?;
        let mut silent = false;
        match Self::answering(&env) {
            Ok(gateway) => return Ok(gateway),
            // It is there, and says nothing: stopped, or stuck.
            Err(why) if matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => silent = true,
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => {
                let help = format!("see whose folder it is: `ls -ld {}`", system::quoted(&home));
                return Err(Failure::new("the gateway does not let you ask").because(why).help(help));
            }
            Err(_) => {}
        }
        let config = configuration(&env);
        let folder = home.display();
        if silent {
            term::note(format_args!("the gateway does not answer: this is from the files in `{folder}`"));
        }
        let files = Files::of(env, config, &home, silent, for_changes)?;
        if !silent {
            term::note(format_args!("no gateway is running here: this is from the files in `{folder}`"));
        }
        Ok(files.told())
    }

    /// The files of this home, beside whoever serves there with this configuration: with what a process has recorded
    /// that is about to end, and that the one in its place does not know of yet.
    pub(crate) fn beside(env: &Env, file: Option<&Path>) -> Result<Self, Failure> {
        let config = config::load(file, env).map(|loaded| loaded.config).unwrap_or_default();
        if !config.audit.enabled {
            return Err(Failure::new("nothing is recorded (`audit.enabled`)"));
        }
        Ok(Files::of(env.clone(), config, &home(env)?, false, false)?.told())
    }

    /// The gateway of this home, if it says a word at once.
    pub(crate) fn answering(env: &Env) -> io::Result<Self> {
        let gateway = Self::gateway(env)?;
        if let Self::Gateway(place) = &gateway {
            place.greet()?;
        }
        Ok(gateway)
    }

    /// The gateway of this home, if there is one.
    pub(crate) fn gateway(env: &Env) -> io::Result<Self> {
        let place = match ELSEWHERE.get() {
            Some(origin) => Place::Url(origin.clone(), admin_token(env, origin)),
            None => Place::Socket(setup::own_socket(&env.home().ok_or(io::ErrorKind::NotFound)?)),
        };
        place.is_there()?;
        Ok(Self::Gateway(place))
    }

    /// Where `--url` says that the gateway is.
    pub(crate) fn elsewhere() -> Option<&'static Origin> {
        ELSEWHERE.get()
    }

    /// The answer to a question, as JSON.
    pub(crate) fn json(&mut self, target: &str) -> Result<Value, Failure> {
        let value = match self.told(target)? {
            Told::Json(value) => value,
            Told::Bytes(bytes) => serde_json::from_slice(&bytes)
                .map_err(|why| Failure::new("the gateway's answer cannot be read").because(why))?,
        };
        if value.get("fresh") == Some(&Value::Bool(false)) {
            term::note("the newest records may be missing: the store is behind, see `cco daemon status`");
        }
        Ok(value)
    }

    /// What the gateway says of itself.
    pub(crate) fn answer(&self, target: &str) -> Result<Value, Failure> {
        let Self::Gateway(place) = self else {
            return Err(Failure::absent(NOBODY, &io::ErrorKind::NotFound.into()));
        };
        serde_json::from_slice(&answered(place.ask("GET", target)?)?)
            .map_err(|why| Failure::new("the gateway's answer cannot be read").because(why))
    }

    /// The answer to a question, as bytes.
    pub(crate) fn bytes(&mut self, target: &str) -> Result<Vec<u8>, Failure> {
        Ok(match self.told(target)? {
            Told::Json(value) => value.to_string().into_bytes(),
            Told::Bytes(bytes) => bytes,
        })
    }

    fn told(&mut self, target: &str) -> Result<Told, Failure> {
        term::patiently("reading", || self.told_at_last(target))
    }

    fn told_at_last(&mut self, target: &str) -> Result<Told, Failure> {
        match self {
            Self::Gateway(place) => {
                let answer = place.ask("GET", target)?;
                let (status, is_ours) = (answer.status, matches!(place, Place::Socket(_)));
                answered(answer).map(Told::Bytes).or_else(|failure| match status {
                    // What the store has not taken yet, or cannot show, may still be in the journal. Who follows waits
                    // for the store.
                    404 | 503 if is_ours && !target.contains("after=") => from_journal(target, failure),
                    _ => Err(failure),
                })
            }
            Self::Files(files) => {
                let question = Question::of(target).expect("commands ask what can be asked")?;
                let bodied = match &files.bodies {
                    None => Bodied::None,
                    Some(Ok(files)) => Bodied::Files(files),
                    Some(Err(why)) => Bodied::Lost(why),
                };
                let offline = match &mut files.offline {
                    Some(offline) => offline,
                    closed => closed.insert(opened(&files.store, &files.journal)?),
                };
                Ok(question.ask(&mut *offline.reader, &bodied)?)
            }
        }
    }

    /// Makes a change, and says what came of it.
    pub(crate) fn change(&mut self, target: &str) -> Result<Value, Failure> {
        match self {
            Self::Gateway(place) => {
                let bytes = answered(place.ask("POST", target)?)?;
                serde_json::from_slice(&bytes)
                    .map_err(|why| Failure::new("the gateway's answer cannot be read").because(why))
            }
            Self::Files(files) => files.change(target),
        }
    }

    /// Everything that happens, event by event, until `each` says that it is enough.
    pub(crate) fn watch(&self, mut each: impl FnMut(&str, &str) -> bool) -> Result<(), Failure> {
        let Self::Gateway(place) = self else {
            return Err(Failure::absent(NOBODY, &io::ErrorKind::NotFound.into()));
        };
        let mut answer = place.ask("GET", "/api/streams/subscribe")?;
        if answer.status != 200 {
            return answered(answer).map(drop);
        }
        let (mut line, mut name) = (String::new(), String::new());
        while answer.body.read_line(&mut line)? > 0 {
            if let Some(event) = line.trim_end().strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.trim_end().strip_prefix("data: ")
                && !each(&name, data)
            {
                return Ok(());
            }
            line.clear();
        }
        Ok(())
    }
}

fn opened(store: &Sqlite, journal: &Path) -> Result<Offline, Failure> {
    let opened = term::patiently("reading", || Offline::open(store, journal));
    opened.map_err(|why| Wrong::from(why).into())
}

/// The answer of the journal alone to what the gateway could not answer; `failure` if it has none.
fn from_journal(target: &str, failure: Failure) -> Result<Told, Failure> {
    let asked = || -> Result<Told, Failure> {
        let question = Question::of(target).ok_or_else(|| Failure::new("the journal cannot tell"))??;
        let mut offline = Offline::of_journal(&setup::journal_path(&home(&Env::process())?)).map_err(Wrong::from)?;
        Ok(question.ask(&mut *offline.reader, &Bodied::None)?)
    };
    let Ok(told) = asked() else { return Err(failure) };
    term::note(format_args!("{ONLY_JOURNAL}: {}", failure.what));
    Ok(told)
}

/// The body of an answer, or what its error says.
fn answered(answer: http::Answer) -> Result<Vec<u8>, Failure> {
    let status = answer.status;
    let bytes = answer.bytes()?;
    if status == 200 {
        return Ok(bytes);
    }
    let error: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = error["error"]["message"].as_str().unwrap_or("the gateway's answer cannot be read");
    let failure = Failure::new(without_details(message));
    Err(match status {
        400 => Failure { code: 2, ..failure },
        404 | 409 => failure.help(LISTED),
        _ => failure,
    })
}

impl Files {
    /// Those of this home; `stuck`: whoever holds them does not go on.
    fn of(env: Env, config: Config, home: &Path, stuck: bool, for_changes: bool) -> Result<Self, Failure> {
        // Nobody waits for the store but who asks.
        let store = Sqlite::new(setup::store_path(&config, home)).question(PATIENT);
        let store = if stuck { store.impatient() } else { store };
        let journal = setup::journal_path(home);
        // A removal is to say for itself what is wrong with the store.
        let offline = if for_changes { None } else { Some(opened(&store, &journal)?) };
        let (folder, key) = setup::archive_paths(home);
        let bodies = if folder.exists() { Some(archive::Reader::open(&folder, &key)) } else { None };
        let bodies = bodies.map(|opened| opened.map_err(|why| why.to_string()));
        Ok(Self { env, config, store, journal, offline, bodies, keeper: None })
    }

    /// Says what of them may be missing.
    fn told(self) -> Source {
        let offline = self.offline.as_ref();
        if let Some((why, is_journal)) = offline.and_then(|all| Some((all.stale.as_ref()?, all.is_journal))) {
            let told = if is_journal { ONLY_JOURNAL } else { "the newest records may be missing" };
            term::note(format_args!("{told}: {why}"));
        }
        if let Some(damaged @ 1..) = offline.map(|offline| offline.damaged) {
            term::note(format_args!(
                "the journal was damaged ({}): what could be read of it is here, the rest is kept as `{}`",
                text::of(damaged, "file"),
                self.journal.join("*.damaged").display()
            ));
        }
        Source::Files(Box::new(self))
    }

    fn change(&mut self, target: &str) -> Result<Value, Failure> {
        self.offline = None;
        let keeper = match &mut self.keeper {
            Some(keeper) => keeper,
            None => {
                let (recorder, _) = setup::recorder(&self.config, &self.env)
                    .map_err(|why| Failure::new("the ledger cannot be opened").because(why))?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let billing = Arc::new(setup::billing(&self.config, &recorder));
                self.keeper.insert(Keeper { recorder: Arc::new(recorder), billing, runtime })
            }
        };
        let change = Change::of(target).expect("commands ask for what can be done")?;
        Ok(keeper.runtime.block_on(change.apply(&keeper.recorder, &keeper.billing))?)
    }
}
