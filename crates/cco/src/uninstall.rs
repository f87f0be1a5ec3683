//! `cco uninstall`: everything that cco did on this machine is taken back; what will go is said first.

use std::path::Path;
use std::process::ExitCode;

use gateway::config::Env;
use gateway::credential::{Credentials, Patience};
use serde_json::Value;

use crate::cli::Uninstall;
use crate::source::{self, Failure, Source};
use crate::{background, launch, service, term};

/// What cco makes in its folder, by the beginnings of the names. Whatever else lies there is not ours to remove.
const OURS: &[&str] = &[
    "admin-token",
    "archive",
    "cco.",
    "config.json",
    "config.schema.json",
    "credentials",
    "journal",
    "ledger.db",
    "log",
    "setup",
    "token",
];

/// Says what will go, asks, and removes it.
pub(crate) fn run(options: &Uninstall) -> ExitCode {
    source::ended(uninstall(options))
}

fn uninstall(options: &Uninstall) -> Result<(), Failure> {
    let env = Env::process();
    let home = source::home(&env)?;
    let plan = plan(&env, &home, options);
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
    if service::file(&env).is_some_and(|file| file.exists()) {
        background::uninstall(&env)?;
    }
    if Source::gateway(&env).is_ok() {
        background::stop(&env)?;
    }
    launch::undo_all(&home)?;
    for name in stored(&env) {
        let failed = |why| Failure::new(format!("the credential `{name}` was not removed")).because(why);
        Credentials::of(&env, Patience::Never).and_then(|store| store.delete(&name)).map_err(failed)?;
        term::line(format_args!("removed: credential `{name}`"));
    }
    if options.purge {
        purge(&home)?;
    }
    if let Ok(program) = std::env::current_exe() {
        term::line(format_args!("the program itself is `{}`: remove it as you installed it", program.display()));
    }
    Ok(())
}

fn stored(env: &Env) -> Vec<String> {
    let listed = Credentials::of(env, Patience::Never).and_then(|store| store.list());
    listed.map(|all| all.into_iter().map(|entry| entry.name).collect()).unwrap_or_default()
}

fn plan(env: &Env, home: &Path, options: &Uninstall) -> Vec<String> {
    let mut plan = Vec::new();
    if let Ok(mut gateway) = Source::gateway(env) {
        let pid = gateway.json("/gateway/health").map(|health| health["process"]["pid"].clone()).unwrap_or(Value::Null);
        plan.push(format!("the gateway that runs (PID {pid}): its streams may finish"));
    }
    if let Some(file) = service::file(env).filter(|file| file.exists()) {
        plan.push(format!("its start with the login: {}", file.display()));
    }
    plan.extend(launch::set_up(home).into_iter().map(|client| format!("what was set up in {client}")));
    plan.extend(stored(env).into_iter().map(|name| format!("the credential `{name}`")));
    if options.purge && home.exists() {
        plan.push(format!("configuration, records, requests, answers and logs in {}", home.display()));
    }
    plan
}

/// Removes what is ours, and the folder if nothing else is in it.
fn purge(home: &Path) -> Result<(), Failure> {
    let failed = |path: &Path| {
        let shown = path.display().to_string();
        move |why: std::io::Error| Failure::new(format!("`{shown}` was not removed")).because(why)
    };
    let Ok(entries) = std::fs::read_dir(home) else { return Ok(()) };
    let mut left = 0;
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if !OURS.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
            left += 1;
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(failed(&path))?;
    }
    if left == 0 {
        std::fs::remove_dir(home).map_err(failed(home))?;
        term::line(format_args!("removed: {}", home.display()));
    } else {
        term::line(format_args!("removed: what was ours in {}; {left} other things stay there", home.display()));
    }
    Ok(())
}
