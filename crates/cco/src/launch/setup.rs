//! `cco setup`: a client's own settings file sends it to the gateway from now on.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gateway::config::Env;
use gateway::server::caller::PLACEHOLDER;
use serde_json::{Value, json};

use super::before;
use super::client::Client;
use super::difference;
use super::found;
use super::kept::{self, Change, Form, Keys, Refused};
use super::offer;
use super::pay::{self, Pay};
use crate::cli::launch::{Known, Setup};
use crate::source::{self, Failure, Source};
use crate::{folders, term, text};

/// Does, undoes or lists.
pub(crate) fn run(options: &Setup) -> ExitCode {
    source::ended(match options.client {
        _ if options.list => list(options.json),
        Some(client) if options.undo => undo(client, options.yes),
        Some(client) => set_up(client, options),
        None => Ok(()),
    })
}

impl Known {
    const ALL: [Self; 3] = [Self::Claude, Self::Codex, Self::Opencode];

    fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
        }
    }

    fn client(self) -> Client {
        match self {
            Self::Claude => Client::Claude,
            Self::Codex => Client::Codex,
            Self::Opencode => Client::OpenCode,
        }
    }

    /// Its settings file of this user, and how that is written.
    fn file(self, env: &Env) -> Option<(PathBuf, Form)> {
        let named = |name: &str| env.named(name).map(PathBuf::from);
        let under = |folder: &str| env.user_home().map(|home| home.join(folder));
        Some(match self {
            Self::Claude => (pay::claude_folder(env)?.join("settings.json"), Form::Json),
            Self::Codex => (named("CODEX_HOME").or_else(|| under(".codex"))?.join("config.toml"), Form::Toml),
            Self::Opencode => {
                let folder = named("XDG_CONFIG_HOME").or_else(|| under(".config"))?.join("opencode");
                let commented = folder.join("opencode.jsonc");
                (if commented.exists() { commented } else { folder.join("opencode.json") }, Form::Json)
            }
        })
    }

    /// What its file gets. The stored key is asked for with a word that is no secret: the gateway knows its own user.
    fn keys(self, base: &str, pay: &Pay) -> Keys {
        let stored = matches!(pay, Pay::Stored(_));
        let mut keys: Vec<(&str, Value)> = match self {
            Self::Claude => vec![("env.ANTHROPIC_BASE_URL", json!(base))],
            Self::Codex => vec![
                ("model_provider", json!("cco")),
                ("model_providers.cco.name", json!("cco")),
                ("model_providers.cco.base_url", json!(format!("{base}/v1"))),
                ("model_providers.cco.wire_api", json!("responses")),
            ],
            Self::Opencode => vec![("provider.anthropic.options.baseURL", json!(format!("{base}/v1")))],
        };
        match self {
            Self::Claude if stored => keys.push(("env.ANTHROPIC_AUTH_TOKEN", json!(PLACEHOLDER))),
            Self::Codex if !stored => keys.push(("model_providers.cco.env_key", json!("OPENAI_API_KEY"))),
            Self::Opencode if stored => keys.push(("provider.anthropic.options.apiKey", json!(PLACEHOLDER))),
            _ => {}
        }
        keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// What comes before its settings file, as far as it is set: each with what it says.
    fn wins(self, env: &Env) -> Vec<String> {
        if self != Self::Claude {
            return Vec::new();
        }
        let mut wins = Vec::new();
        for name in before::CLOUDS {
            if env.named(name).is_some() {
                wins.push(format!("{name} is set here: Claude Code then asks that cloud, not us"));
            }
        }
        let here = std::env::current_dir().unwrap_or_default();
        for path in before::of_project(&here).into_iter().chain([before::managed()]) {
            if let Some(url) = before::said(&path, "ANTHROPIC_BASE_URL") {
                wins.push(format!("`{}` says {}", path.display(), text::line(&url)));
            }
        }
        wins
    }
}

/// The part of a failure that all of them have in common.
fn refused(client: Known, why: impl std::fmt::Display) -> Failure {
    Failure::new(format!("the settings of {} are left as they are", client.name())).because(why)
}

/// The same where the file itself is at fault: which one, where in it, and what comes after its correction.
fn unreadable(client: Known, path: &Path, why: &Refused, again: &str) -> Failure {
    let (why, shown) = (why.to_string(), path.display().to_string());
    let cause = if why.contains(&shown) { why } else { format!("`{shown}`: {why}") };
    refused(client, cause).help(format!("correct `{shown}`, then `cco setup {}{again}`", client.name()))
}

fn set_up(client: Known, options: &Setup) -> Result<(), Failure> {
    let env = Env::process();
    let home = source::home(&env)?;
    let found = offer::gateway(&env, client.client())?;
    let pay = Pay::decide(options.pay, client.client(), &env, &found)?;
    let lost = || refused(client, "neither `HOME` nor a variable of its own says where they are");
    let (path, form) = client.file(&env).ok_or_else(lost)?;
    let earlier = kept::remembered(&home, client.name()).map_err(|why| refused(client, why))?;
    let earlier = earlier.into_iter().find(|earlier| earlier.path == path);
    let keys = client.keys(&found.base, &pay);
    let faulty = |why: Refused| unreadable(client, &path, &why, "");
    let change = Change::plan(&path, form, keys, earlier.as_ref()).map_err(faulty)?;
    let now = kept::read(&path).map_err(faulty)?;
    term::note(&pay);
    client.wins(&env).iter().for_each(|wins| term::warning(format_args!("this comes before it: {wins}"), None));
    if !found.lasts {
        let help =
            format!("`cco config set server.listen {}` keeps it there", found.base.trim_start_matches("http://"));
        term::warning("the gateway is somewhere else after its next start", Some(&help));
    }
    if now.as_deref() == Some(change.after.as_str()) {
        term::line(format_args!("{} is set up already: `{}`", client.name(), path.display()));
        return Ok(());
    }
    agreed(&path, now.as_deref().unwrap_or_default(), &change.after, options.yes)?;
    // Remembered first: whatever happens between the two, it can be taken back.
    kept::remember(&home, client.name(), &change).map_err(|why| refused(client, why))?;
    kept::write(&path, Some(&change.after)).map_err(|why| refused(client, why))?;
    term::line(format_args!(
        "{} now asks {}; `cco setup {} --undo` takes it back",
        client.name(),
        found.base,
        client.name()
    ));
    Ok(())
}

fn undo(client: Known, yes: bool) -> Result<(), Failure> {
    let home = source::home(&Env::process())?;
    let earlier = kept::remembered(&home, client.name()).map_err(|why| refused(client, why))?;
    if earlier.is_empty() {
        term::line(format_args!("{} is not set up: there is nothing to undo", client.name()));
    }
    earlier.iter().try_for_each(|change| undo_one(client, &home, change, yes))
}

fn undo_one(client: Known, home: &Path, change: &Change, yes: bool) -> Result<(), Failure> {
    let faulty = |why: Refused| unreadable(client, &change.path, &why, " --undo");
    let now = kept::read(&change.path).map_err(faulty)?;
    let after = change.undone(now.as_deref()).map_err(faulty)?;
    if now != after {
        agreed(&change.path, now.as_deref().unwrap_or_default(), after.as_deref().unwrap_or_default(), yes)?;
        kept::write(&change.path, after.as_deref()).map_err(|why| refused(client, why))?;
    }
    if after.is_none() {
        folders::remove(&change.made);
    }
    kept::forget(home, client.name(), &change.path).map_err(|why| refused(client, why))?;
    let how =
        if now.as_deref() == Some(change.after.as_str()) { "is as it was" } else { "has none of our keys any more" };
    term::line(format_args!("`{}` {how}", change.path.display()));
    Ok(())
}

/// The clients that were sent to the gateway.
pub(crate) fn set_up_clients(home: &Path) -> Vec<&'static str> {
    let is_set_up = |client: &Known| kept::remembered(home, client.name()).is_ok_and(|changes| !changes.is_empty());
    Known::ALL.into_iter().filter(is_set_up).map(Known::name).collect()
}

/// Takes everything back that was set up; whoever asks has been asked already.
pub(crate) fn undo_all(home: &Path) -> Result<(), Failure> {
    let names = set_up_clients(home);
    Known::ALL.into_iter().filter(|client| names.contains(&client.name())).try_for_each(|client| undo(client, true))
}

/// Shows a change, and asks.
fn agreed(path: &Path, before: &str, after: &str, yes: bool) -> Result<(), Failure> {
    term::line(format_args!("{}:", path.display()));
    for line in difference::difference(before, after) {
        term::line(text::line(&line));
    }
    if yes || term::confirmed("Change it?").unwrap_or(false) {
        return Ok(());
    }
    Err(Failure::new("nothing was changed").help("`--yes` changes it without asking"))
}

/// What is known of a client's settings.
struct Listed {
    client: Known,
    /// The file, and whether our keys are still in it.
    file: Option<(PathBuf, bool)>,
    /// Where it is sent, if no gateway of ours is there.
    lost: Option<String>,
}

impl Listed {
    fn state(&self) -> &'static str {
        match (&self.file, &self.lost) {
            (None, _) => "not set up",
            (Some((_, false)), _) => "changed since",
            (Some(_), Some(_)) => "sent elsewhere",
            (Some(_), None) => "set up",
        }
    }

    fn line(&self) -> String {
        let Some((path, stands)) = &self.file else { return "not set up".into() };
        let (path, name) = (path.display(), self.client.name());
        match &self.lost {
            _ if !stands => format!("was set up in `{path}`, which was changed since"),
            None => format!("set up in `{path}`"),
            Some(base) => format!("set up in `{path}` for {base}, and the gateway is not there: `cco setup {name}`"),
        }
    }
}

fn list(json: bool) -> Result<(), Failure> {
    let env = Env::process();
    let home = source::home(&env)?;
    // Where none answers nobody knows whether it will be there.
    let serving =
        Source::answering(&env).ok().and_then(|gateway| found::base(&gateway.answer("/gateway/health").ok()?));
    for client in Known::ALL {
        let changes = kept::remembered(&home, client.name()).map_err(|why| refused(client, why))?;
        let mut all: Vec<_> = changes
            .iter()
            .map(|change| {
                let base =
                    change.keys.iter().filter_map(|(_, value)| value.as_str()).find(|text| text.starts_with("http"));
                let base = base.map(|base| base.trim_end_matches("/v1"));
                let lost = base.filter(|base| serving.as_deref().is_some_and(|serving| serving != *base));
                Listed { client, file: Some((change.path.clone(), change.stands())), lost: lost.map(str::to_owned) }
            })
            .collect();
        if all.is_empty() {
            all.push(Listed { client, file: None, lost: None });
        }
        let wins = client.wins(&env);
        for listed in &all {
            if json {
                let file = listed.file.as_ref().map(|(path, _)| path.display().to_string());
                let (name, state) = (client.name(), listed.state());
                term::data(json!({ "client": name, "state": state, "file": file, "before_it": wins }));
            } else {
                term::line(format_args!("{:<9} {}", client.name(), listed.line()));
            }
        }
        for wins in wins.iter().filter(|_| !json) {
            term::line(format_args!("          comes before it: {wins}"));
        }
    }
    Ok(())
}
