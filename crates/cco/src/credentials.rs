//! `cco credentials`: keys are stored, shown, listed, deleted and tested.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use gateway::config::{CCO_PASSPHRASE, Config, CredentialRef, Env, ProviderConfig};
use gateway::credential::{self, Backend, Credentials, MAX_KEY, Patience, StoreError};
use gateway::provider::{Probe, Verdict};
use gateway::secret::Secret;
use gateway::setup;
use gateway::system::{Hidden, Terminal};
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{self, CredentialsCommand};
use crate::{load, term, when};

/// How long a provider may take to say what it thinks of a key.
const PROBE: Duration = Duration::from_secs(20);

/// Where there is no terminal to type at.
const FROM_A_FILE: &str = "give it on standard input: `cco credentials store NAME < FILE`";

/// Why a command did not do what it was asked.
pub(crate) struct Failed {
    what: String,
    cause: Option<String>,
    help: Option<String>,
}

impl Failed {
    fn new(what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None, help: Some(help.into()) }
    }

    /// Says it, and gives the exit code.
    pub(crate) fn told(self) -> ExitCode {
        let cause = self.cause.as_ref().map(|cause| cause as &dyn std::fmt::Display);
        term::error(self.what, cause, self.help.as_deref());
        ExitCode::FAILURE
    }

    fn because(what: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        |why| Self { what: what.into(), cause: Some(why.to_string()), help: Some(why.help()) }
    }
}

/// Runs one of the commands.
pub(crate) fn run(options: &cli::Credentials) -> ExitCode {
    let env = Env::process();
    let done = match &options.command {
        CredentialsCommand::Store(options) => store(env, options),
        CredentialsCommand::Retrieve(options) => retrieve(env, options),
        CredentialsCommand::List(options) => list(env, options),
        CredentialsCommand::Delete(options) => delete(env, options),
        CredentialsCommand::Test(options) => test(env, options),
    };
    done.unwrap_or_else(|failed| failed.told())
}

/// Keeps a key under this name, and says so.
pub(crate) fn keep(env: Env, name: &str, value: &Secret) -> Result<(), Failed> {
    put(env, name, value, None)
}

/// Whether a key of this name is kept.
pub(crate) fn is_kept(env: &Env, name: &str) -> bool {
    Credentials::of(env, Patience::Never).and_then(|store| store.get(name)).is_ok_and(|value| value.is_some())
}

/// The environment, with the passphrase of the store where it needs one and somebody is there to type it.
pub(crate) fn with_passphrase(env: Env) -> Env {
    unlocked(env.clone(), None).unwrap_or(env)
}

fn unlocked(env: Env, wish: Option<Backend>) -> Result<Env, Failed> {
    let backend = Credentials::of(&env, Patience::Never).and_then(|store| store.backend());
    // Whatever is wrong with it shows when it is used.
    let backend = backend.unwrap_or(None);
    let needed = backend == Some(Backend::Passphrase) || wish == Some(Backend::Passphrase);
    if !needed || env.read(&CCO_PASSPHRASE).is_some() {
        return Ok(env);
    }
    let Some(terminal) = Terminal::open() else { return Ok(env) };
    let passphrase = ask_hidden(&terminal, "Passphrase of the credentials: ")?;
    if backend != Some(Backend::Passphrase) && ask_hidden(&terminal, "The same once more: ")? != passphrase {
        return Err(Failed::new("the two passphrases differ", "run it again, and type the same twice"));
    }
    Ok(env.with(&CCO_PASSPHRASE, Secret::new(passphrase.as_str())))
}

fn ask_hidden(terminal: &Terminal, question: &str) -> Result<Zeroizing<String>, Failed> {
    match terminal.ask_hidden(question) {
        Ok(Hidden::Line(line)) => Ok(line),
        Ok(Hidden::Cancelled) => {
            Err(Failed::new("nothing was typed", "run it again, then type or paste it and press Enter"))
        }
        Err(why) => Err(Failed::new(format!("the terminal cannot be read: {why}"), FROM_A_FILE)),
    }
}

fn open(env: &Env) -> Result<Credentials, Failed> {
    let patience = if Terminal::open().is_some() { Patience::Prompt } else { Patience::Never };
    Credentials::of(env, patience).map_err(Failed::because("there is no place for credentials"))
}

fn store(env: Env, options: &cli::StoreCredential) -> Result<ExitCode, Failed> {
    let name = &options.name;
    let value = match &options.value {
        Some(value) => {
            term::warning(
                "the key is in the history of your shell now, and other users could see it while this ran",
                Some(&format!("next time leave it out: `cco credentials store {name}` asks for it")),
            );
            parse(value.expose().as_bytes())?
        }
        None => read(name)?,
    };
    put(env, name, &value, options.backend)?;
    Ok(ExitCode::SUCCESS)
}

fn put(env: Env, name: &str, value: &Secret, backend: Option<Backend>) -> Result<(), Failed> {
    let env = unlocked(env, backend)?;
    let put = open(&env)?.put(name, value, backend);
    let put = put.map_err(Failed::because(format!("`{name}` was not stored")))?;
    let last4 = value.last4().map(|last4| format!(" (…{last4})")).unwrap_or_default();
    term::line(format_args!("{} `{name}`{last4}", if put.replaced { "replaced" } else { "stored" }));
    if let Some(why) = put.chosen {
        term::line(format_args!("credentials are kept in {}: {why}", put.backend));
    }
    Ok(())
}

/// The key that is typed, or that comes in.
pub(crate) fn read(name: &str) -> Result<Secret, Failed> {
    if !std::io::stdin().is_terminal() {
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY as usize + 1));
        let mut from = std::io::stdin().lock().take(MAX_KEY + 1);
        from.read_to_end(&mut bytes)
            .map_err(|why| Failed::new(format!("standard input cannot be read: {why}"), FROM_A_FILE))?;
        return parse(&bytes);
    }
    let Some(terminal) = Terminal::open() else {
        return Err(Failed::new("there is no terminal to type the key at", FROM_A_FILE));
    };
    parse(ask_hidden(&terminal, &format!("Key for `{name}` (it is not shown): "))?.as_bytes())
}

fn parse(bytes: &[u8]) -> Result<Secret, Failed> {
    let bad = |what: &str| {
        Err(Failed::new(
            what,
            "store the key alone, one word of visible ASCII characters of at most 64 KiB: `cco credentials store NAME < FILE`",
        ))
    };
    match credential::key(bytes) {
        _ if bytes.len() as u64 > MAX_KEY => bad("the key is too long"),
        Ok(Some(key)) => Ok(key),
        Ok(None) => bad("the key is empty"),
        Err(what) => bad(what),
    }
}

/// The value of a credential that must be there.
fn get(store: &Credentials, name: &str) -> Result<Secret, Failed> {
    let value = store.get(name).map_err(Failed::because(format!("`{name}` cannot be read")))?;
    value.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Failed {
    Failed::new(
        format!("there is no credential `{name}`"),
        format!("`cco credentials list` shows all, `cco credentials store {name}` adds it"),
    )
}

fn note_use(store: &Credentials, name: &str) {
    // Nothing depends on it; where another process is at the store, this use is not noted.
    let _ = store.used(&[name.to_owned()]);
}

fn retrieve(env: Env, options: &cli::RetrieveCredential) -> Result<ExitCode, Failed> {
    let name = &options.name;
    if term::stdout_is_terminal() && !options.yes {
        let refused = || {
            let help =
                format!("`cco credentials retrieve {name} --yes` shows it here, `… | wl-copy` sends it elsewhere");
            Failed::new(format!("`{name}` is not shown"), help)
        };
        let terminal = Terminal::open().ok_or_else(refused)?;
        let answer = terminal.ask(&format!("Show `{name}` on this terminal? [y/N] ")).unwrap_or_default();
        if !matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") {
            return Err(refused());
        }
    }
    let store = open(&unlocked(env, None)?)?;
    let value = get(&store, name)?;
    note_use(&store, name);
    term::line(value.expose());
    Ok(ExitCode::SUCCESS)
}

fn list(env: Env, options: &cli::ListCredentials) -> Result<ExitCode, Failed> {
    let store = open(&unlocked(env, None)?)?;
    let entries = store.list().map_err(Failed::because("the credentials cannot be listed"))?;
    if options.json {
        let rows: Vec<_> = entries
            .iter()
            .map(|entry| {
                json!({
                    "name": entry.name,
                    "backend": entry.backend.name(),
                    "last4": entry.last4,
                    "stored_at": when::rfc3339(entry.stored),
                    "last_used_at": entry.used.map(when::rfc3339),
                })
            })
            .collect();
        term::line(format_args!("{:#}", json!(rows)));
        return Ok(ExitCode::SUCCESS);
    }
    if entries.is_empty() {
        term::line("no credentials are stored: `cco credentials store NAME` adds one");
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["NAME", "BACKEND", "LAST 4", "AGE", "LAST USE"].map(str::to_owned);
    let rows = entries.into_iter().map(|entry| {
        let last4 = entry.last4.map_or("-".into(), |last4| format!("…{last4}"));
        let used = entry.used.map_or("never".into(), |at| format!("{} ago", when::ago(at)));
        [entry.name, entry.backend.name().into(), last4, when::ago(entry.stored), used]
    });
    table(std::iter::once(head).chain(rows).collect());
    Ok(ExitCode::SUCCESS)
}

/// Rows whose columns stand below each other.
fn table<const N: usize>(rows: Vec<[String; N]>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        term::line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn delete(env: Env, options: &cli::DeleteCredential) -> Result<ExitCode, Failed> {
    let name = &options.name;
    let store = open(&unlocked(env, None)?)?;
    let deleted = store.delete(name).map_err(Failed::because(format!("`{name}` was not deleted")))?;
    if !deleted {
        return Err(missing(name));
    }
    term::line(format_args!("deleted `{name}`"));
    Ok(ExitCode::SUCCESS)
}

fn test(env: Env, options: &cli::TestCredential) -> Result<ExitCode, Failed> {
    let name = &options.name;
    let config = match load::configuration(options.config.as_deref(), &env) {
        Ok(loaded) => loaded.config,
        Err(code) => return Ok(code),
    };
    let providers = tested(&config, options)?;
    let store = open(&unlocked(env.clone(), None)?)?;
    let key = get(&store, name)?;
    note_use(&store, name);
    let is_variable = |provider: &&ProviderConfig| provider.api_keys.contains(&CredentialRef::Env(name.clone()));
    if env.named(name).is_some() && providers.iter().any(is_variable) {
        term::warning(
            format_args!("the variable `{name}` is set here, and where it is set a gateway takes it instead"),
            None,
        );
    }
    let dialer = setup::dialer(&config, &env)
        .map_err(|why| Failed::new(format!("no provider can be reached: {why}"), "`cco config show network`"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| Failed::new(format!("no runtime can be started: {why}"), "see what is left: `ulimit -a`"))?;
    let mut code = ExitCode::SUCCESS;
    for provider in providers {
        let Some(base) = &provider.base_url else { continue };
        let limit = provider.timeout.min(PROBE);
        let probe = Probe { kind: provider.kind, base, headers: &provider.headers, limit };
        let (provider, at) = (&provider.name, &base.origin);
        match runtime.block_on(probe.run(&key, &*dialer)) {
            Ok(verdict) => {
                term::line(format_args!("`{name}` at {provider} ({at}): {verdict}"));
                if verdict != Verdict::Accepted {
                    code = ExitCode::FAILURE;
                }
            }
            Err(why) => {
                term::line(format_args!("`{name}` at {provider} ({at}): not reached: {why}"));
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// The providers to ask.
fn tested<'a>(config: &'a Config, options: &cli::TestCredential) -> Result<Vec<&'a ProviderConfig>, Failed> {
    let (name, all) = (&options.name, || config.providers.iter().filter(|provider| provider.base_url.is_some()));
    if let Some(wanted) = &options.provider {
        let named = all().find(|provider| provider.name == *wanted);
        let names: Vec<_> = all().map(|provider| format!("`{}`", provider.name)).collect();
        return named.map(|provider| vec![provider]).ok_or_else(|| {
            Failed::new(
                format!("the configuration has no provider `{wanted}` with an address"),
                format!("`--provider` takes one of {}", names.join(", ")),
            )
        });
    }
    let uses = |provider: &&ProviderConfig| provider.api_keys.iter().any(|key| key.stored_name() == Some(name));
    let users: Vec<_> = all().filter(uses).collect();
    if users.is_empty() {
        return Err(Failed::new(
            format!("no provider of the configuration uses `{name}`"),
            format!(
                "`cco config set providers.NAME.apiKeyRef credential:{name}` gives it to one, `cco credentials test {name} \
                 --provider NAME` asks one"
            ),
        ));
    }
    Ok(users)
}
