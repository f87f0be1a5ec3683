//! `cco uninstall`: everything that cco did on this machine is taken back; what will go is said first.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use gateway::config::Env;
use gateway::credential::{Backend, Credentials, Patience, StoreError};
use gateway::setup;
use gateway::system::{self, Terminal};
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::Uninstall;
use crate::service::Registered;
use crate::source::{self, Failure, Source};
use crate::{background, launch, service, term};

/// What cco makes in its folder. Whatever else lies there is not ours to remove.
const OURS: &[&str] = &[
    "admin-token",
    "archive",
    "archive.key",
    "cco.lock",
    "cco.sock",
    "config.json",
    "config.schema.json",
    "journal",
    "ledger.db",
    "ledger.db.begun",
    "ledger.db-shm",
    "ledger.db-wal",
    "ledger.db.lock",
    "log",
    "setup",
    "setup.service",
    "token",
];

/// What holds credentials there.
const CREDENTIALS: &[&str] =
    &["credentials", "credentials.key", "credentials.lock", "credentials.seen", "credentials.used"];

/// How long a gateway that was replaced may take to write what became of its last streams.
const LAST_STREAMS: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

/// Says what will go, asks, and removes it.
pub(crate) fn run(options: &Uninstall) -> ExitCode {
    source::ended(uninstall(options))
}

fn uninstall(options: &Uninstall) -> Result<(), Failure> {
    let env = Env::process();
    let home = source::home(&env)?;
    close(&home);
    let kept = Kept::by(&env)?;
    let plan = plan(&env, &home, &kept, options);
    if plan.is_empty() {
        term::line("there is nothing to remove");
        return Ok(());
    }
    term::line("this will go:");
    plan.iter().for_each(|line| term::line(format_args!("  {line}")));
    if !options.purge && home.join("ledger.db").exists() {
        term::line(format_args!("this stays: records and configuration in {} (--purge removes them)", home.display()));
    }
    if !options.yes && !term::confirmed("Remove it?").unwrap_or(false) {
        return Err(Failure::new("nothing was removed").help("`--yes` removes it without asking"));
    }
    // The system's manager first: it would start again what is stopped.
    if matches!(service::registered(&env), Registered::Ours(_)) {
        // One that does not answer (in a container, under `su`) starts nothing either.
        if let Err(why) = background::uninstall(&env) {
            term::note(format_args!("the system's manager was not told: {}", why.whole()));
        }
    }
    if Source::gateway(&env).is_ok() {
        background::stop(&env)?;
    }
    if options.purge {
        await_last_streams(&home)?;
    }
    launch::undo_all(&home)?;
    kept.remove(&home)?;
    if options.purge {
        purge(&home)?;
    }
    if let Ok(program) = std::env::current_exe() {
        term::line(format_args!("the program itself is `{}`: remove it as you installed it", program.display()));
    }
    Ok(())
}

/// Credentials that others could read are used by nobody, but they can be taken back: first they are closed.
fn close(home: &Path) {
    let files = CREDENTIALS.iter().map(|name| home.join(name));
    for path in std::iter::once(home.to_path_buf()).chain(files) {
        if let Ok(Some(mode)) = system::close(&path) {
            term::note(format_args!("`{}` was open to others (mode {mode:04o}) and is closed now", path.display()));
        }
    }
}

/// The credentials that are kept.
enum Kept {
    /// These.
    Named(Credentials, Vec<String>),
    /// Some in a file that cannot be opened here. They are nowhere else.
    Sealed,
}

impl Kept {
    /// Whoever cannot tell what there is must not remove the list of it: keys would stay in the system's keyring that
    /// nothing finds any more.
    fn by(env: &Env) -> Result<Self, Failure> {
        let failed = |why: StoreError| {
            let help = why.help();
            Failure::new("nothing was removed: which credentials there are cannot be told").because(why).help(help)
        };
        let patience = if Terminal::open().is_some() { Patience::Prompt } else { Patience::Never };
        let store = Credentials::of(env, patience).map_err(failed)?;
        match store.list() {
            Ok(all) => Ok(Self::Named(store, all.into_iter().map(|entry| entry.name).collect())),
            Err(why) => match store.backend() {
                Ok(Some(Backend::File | Backend::Systemd | Backend::Passphrase)) => Ok(Self::Sealed),
                Ok(Some(Backend::Keyring) | None) | Err(_) => Err(failed(why)),
            },
        }
    }

    fn remove(&self, home: &Path) -> Result<(), Failure> {
        let Self::Named(store, names) = self else {
            for file in CREDENTIALS.iter().map(|name| home.join(name)).filter(|file| file.exists()) {
                std::fs::remove_file(&file).map_err(not_removed(&file))?;
            }
            term::line("removed: all credentials");
            return Ok(());
        };
        for name in names {
            let failed = |why| Failure::new(format!("the credential `{name}` was not removed")).because(why);
            store.delete(name).map_err(failed)?;
            term::line(format_args!("removed: credential `{name}`"));
        }
        Ok(())
    }
}

/// A gateway that another has replaced serves its last streams, and its records and bodies are not to go under it.
fn await_last_streams(home: &Path) -> Result<(), Failure> {
    let journal = setup::journal_path(home);
    let until = Instant::now() + LAST_STREAMS;
    loop {
        match ledger::journal::in_use(&journal) {
            Ok(0) => return Ok(()),
            Ok(_) if Instant::now() < until => std::thread::park_timeout(LOOK),
            Ok(_) => {
                let help = "the same again when it has ended, at the latest after `server.restartDrainSecs`";
                let what = "a gateway that was replaced still serves its last streams: what it records stays for now";
                return Err(Failure::new(what).help(help));
            }
            Err(why) => return Err(Failure::new(format!("`{}` cannot be read", journal.display())).because(why)),
        }
    }
}

fn plan(env: &Env, home: &Path, kept: &Kept, options: &Uninstall) -> Vec<String> {
    let mut plan = Vec::new();
    if let Ok(mut gateway) = Source::gateway(env) {
        let pid = gateway.json("/gateway/health").map(|health| health["process"]["pid"].clone()).unwrap_or(Value::Null);
        plan.push(format!("the gateway that runs (PID {pid}): its streams may finish"));
    }
    if let Registered::Ours(file) = service::registered(env) {
        plan.push(format!("its start with the login: {}", file.display()));
    }
    plan.extend(launch::set_up(home).into_iter().map(|client| format!("what was set up in {client}")));
    match kept {
        Kept::Named(_, names) => plan.extend(names.iter().map(|name| format!("the credential `{name}`"))),
        Kept::Sealed => plan.push("all credentials, with the file that holds them, which cannot be opened".into()),
    }
    if options.purge && home.exists() {
        plan.push(format!("configuration, records, requests, answers and logs in {}", home.display()));
    }
    plan
}

/// Whether a name is of those that we give: to a file, to a copy of the store, or to a file that is not whole yet.
fn is_ours(name: &str) -> bool {
    let is_known = |name: &str| OURS.contains(&name) || CREDENTIALS.contains(&name);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_mark = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((of, mark)) = name.strip_suffix(".new").and_then(|rest| rest.rsplit_once('.')) {
        return is_known(of) && is_mark(mark) || of == "cco" && is_number(mark);
    }
    let store = name.strip_suffix("-wal").or_else(|| name.strip_suffix("-shm")).unwrap_or(name);
    let copy = store.strip_prefix("ledger.db.before-form-").or_else(|| store.strip_prefix("ledger.db.aside-"));
    is_known(name) || copy.is_some_and(is_number)
}

fn not_removed(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let shown = path.display().to_string();
    move |why| Failure::new(format!("`{shown}` was not removed")).because(why)
}

/// Removes what is ours, and the folder if nothing else is in it.
fn purge(home: &Path) -> Result<(), Failure> {
    let Ok(entries) = std::fs::read_dir(home) else { return Ok(()) };
    let mut left = 0;
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !name.to_str().is_some_and(is_ours) {
            left += 1;
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(not_removed(&path))?;
    }
    if left == 0 {
        std::fs::remove_dir(home).map_err(not_removed(home))?;
        term::line(format_args!("removed: {}", home.display()));
    } else {
        let stay = if left == 1 { "1 other thing stays".into() } else { format!("{left} other things stay") };
        term::line(format_args!("removed: what was ours in {}; {stay} there", home.display()));
    }
    Ok(())
}
