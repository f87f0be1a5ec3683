//! `cco providers`: which there are and how they are; adding, testing and removing them.

mod add;
mod trial;

use std::process::ExitCode;

use gateway::admin::ask::encoded;
use gateway::config::{self, Config, Env, KeyPath, Loaded};
use serde_json::{Value, json};

use crate::cli::providers::{ListProviders, Providers, ProvidersCommand, RemoveProvider};
use crate::source::{self, Failure, Source};
use crate::text::{self, Side, Table};
use crate::{configure, credentials, load, term};

/// Runs one of the commands.
pub(crate) fn run(options: &Providers) -> ExitCode {
    let env = Env::process();
    let done = match &options.command {
        None => list(&options.list, &env),
        Some(ProvidersCommand::List(options)) => list(options, &env),
        Some(ProvidersCommand::Add(options)) => add::add(options, credentials::with_passphrase(env)),
        Some(ProvidersCommand::Test(options)) => trial::test(options, &credentials::with_passphrase(env)),
        Some(ProvidersCommand::Remove(options)) => remove(options, &env),
        Some(ProvidersCommand::Reset { name }) => return source::ended(reset(name, &env)),
    };
    done.unwrap_or_else(|code| code)
}

fn reset(name: &str, env: &Env) -> Result<(), Failure> {
    let mut gateway = Source::gateway(env).map_err(|why| Failure::absent(source::NOBODY, &why))?;
    gateway.change(&format!("/gateway/providers/reset?{}", encoded("name", name))).map_err(Failure::unlisted)?;
    term::line(format_args!("`{}` is tried anew", text::line(name)));
    Ok(())
}

/// Those of the gateway that runs; without one, those of the configuration.
fn list(options: &ListProviders, env: &Env) -> Result<ExitCode, ExitCode> {
    let running = match Source::gateway(env) {
        Ok(gateway) if options.config.is_none() => Some(gateway),
        _ => None,
    };
    let told = match &running {
        Some(gateway) => gateway.answer("/gateway/providers").map_err(|why| source::ended(Err(why)))?,
        None => configured(&load::configuration(options.config.as_deref(), env)?.config),
    };
    if options.json {
        term::line(&told);
        return Ok(ExitCode::SUCCESS);
    }
    show(&told);
    if running.is_none() {
        term::note("this is what the configuration says: how they are is known where a gateway runs");
    }
    Ok(ExitCode::SUCCESS)
}

/// The same in the same form, as far as the configuration knows it.
fn configured(config: &Config) -> Value {
    let (enabled, disabled): (Vec<_>, Vec<_>) = config.providers.iter().partition(|provider| provider.enabled);
    let providers: Vec<Value> = enabled
        .iter()
        .map(|provider| {
            json!({
                "name": provider.name,
                "type": provider.kind.name,
                "state": null,
                "keys": provider.api_keys.len(),
                "base_url": provider.base_url.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    let disabled: Vec<&str> = disabled.iter().map(|provider| &*provider.name).collect();
    json!({ "providers": providers, "disabled": disabled })
}

/// Says what went wrong, and gives the exit code.
fn failed(what: impl std::fmt::Display, help: &str) -> ExitCode {
    term::error(what, None, Some(help));
    ExitCode::FAILURE
}

/// The place of a provider in the configuration.
fn place(name: &str) -> Result<KeyPath, ExitCode> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let path = if name.chars().all(fits) { format!("providers.{name}").parse().ok() } else { None };
    path.ok_or_else(|| {
        let what = format!("`{}` cannot be the name of a provider", text::line(name));
        term::error(what, None, Some("take letters, digits, `-` and `_`"));
        ExitCode::from(2)
    })
}

/// Whether the file itself names this provider: one is there without being written.
fn is_written(loaded: &Loaded, name: &str) -> bool {
    let text = loaded.file.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
    let told = text.and_then(|text| config::plain(&text).ok()).unwrap_or_default();
    told.get("llmGateway").unwrap_or(&told)["providers"].get(name).is_some()
}

fn remove(options: &RemoveProvider, env: &Env) -> Result<ExitCode, ExitCode> {
    let (name, named) = (&*options.name, options.config.as_deref());
    let path = place(name)?;
    let loaded = load::configuration(named, env)?;
    let provider = loaded.config.providers.iter().find(|provider| provider.name == name);
    let Some(provider) = provider.filter(|_| is_written(&loaded, name)) else {
        let what = format!("the configuration has no provider `{}`", text::line(name));
        return Err(failed(what, "`cco providers list` shows them"));
    };
    let others: Vec<&str> = loaded.config.providers.iter().map(|other| &*other.name).filter(|n| *n != name).collect();
    if loaded.config.routing.default_provider == name && !others.is_empty() {
        let what = format!("`{name}` is not removed: it is the default provider");
        let help = format!("`cco config set routing.defaultProvider NAME` names another: {}", others.join(", "));
        return Err(failed(what, &help));
    }
    let file = configure::change(named, env, &path, None)?;
    term::line(format_args!("removed `{name}` from {}", file.display()));
    // What still names it asks others from now on.
    let gone =
        |note: &&config::Note| note.path.starts_with("routing.") && note.message.starts_with(&format!("`{name}`"));
    for note in load::configuration(named, env)?.notes.iter().filter(gone) {
        term::note(note);
    }
    for key in provider.api_keys.iter().filter_map(|key| key.stored_name()) {
        if credentials::is_kept(env, key) {
            term::note(format_args!("its key stays: `cco credentials delete {key}` removes it"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a circuit is of: the model, and what is asked of it where that is not an answer.
fn asked(circuit: &Value) -> String {
    let word = |name: &str| text::line(circuit[name].as_str().unwrap_or_default()).into_owned();
    match (word("model"), word("operation")) {
        (model, operation) if operation == "generation" => model,
        (model, operation) if model.is_empty() => operation,
        (model, operation) => format!("{model} ({operation})"),
    }
}

/// Why a target is not asked now; `None`: it is.
fn state(circuit: &Value) -> Option<String> {
    let seconds = |name: &str| circuit[name].as_f64().map(f64::ceil);
    let why = || text::line(circuit["why"].as_str().unwrap_or("-")).into_owned();
    match (circuit["state"].as_str(), seconds("again_in_secs"), seconds("spent_for_secs")) {
        (Some("closed"), _, spent) => Some(format!("has no room in its rate limits for {:.0} s", spent?)),
        (_, Some(rest), _) => Some(format!("is left alone for {rest:.0} s: {}", why())),
        _ => Some(format!("is tried by one request: {}", why())),
    }
}

fn show(told: &Value) {
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| text::line(value.as_str().unwrap_or("-")).into_owned();
    let mut table = Table::new(&[
        ("PROVIDER", Side::Left),
        ("TYPE", Side::Left),
        ("STATE", Side::Left),
        ("KEYS", Side::Right),
        ("RUNNING", Side::Right),
        ("WAITING", Side::Right),
        ("AT", Side::Left),
    ]);
    let providers = list(&told["providers"]);
    for provider in &providers {
        let count = |name: &str| provider[name].as_u64().map_or("-".into(), |n| n.to_string());
        table.row(vec![
            word(&provider["name"]),
            word(&provider["type"]),
            word(&provider["state"]),
            count("keys"),
            count("running"),
            count("waiting"),
            word(&provider["base_url"]),
        ]);
    }
    let disabled: Vec<String> = list(&told["disabled"]).iter().map(word).collect();
    for name in disabled {
        table.row(vec![name, "-".into(), "disabled".into(), "-".into(), "-".into(), "-".into(), "-".into()]);
    }
    let widths = table.widths(&[]);
    term::line(table.heading(&widths));
    table.lines(&widths, None).for_each(term::line);
    for provider in &providers {
        let name = word(&provider["name"]);
        for circuit in list(&provider["circuits"]) {
            if let Some(state) = state(&circuit) {
                term::line(format_args!("{name}: {} with {} {state}", asked(&circuit), word(&circuit["key"])));
            }
        }
        for key in list(&provider["refused_keys"]) {
            let minutes = key["again_in_secs"].as_u64().unwrap_or(0).div_ceil(60);
            // An older gateway says no more than that it refuses a key.
            let why = key["why"].as_str().unwrap_or("it does not accept the key (401)");
            term::line(format_args!("{name}: {} rests: {why}; tried again in {minutes} min", word(&key["key"])));
        }
    }
}
