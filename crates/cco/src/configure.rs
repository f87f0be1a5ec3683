//! `cco config`: the file is found, written, shown, checked and changed.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use gateway::config::{
    self, CCO_CONFIG, Config, EditError, Env, Fault, Faults, KeyPath, Loaded, Overrides, Paths, Setting,
    Source as Origin,
};
use gateway::{advice, setup, system};
use serde_json::{Value, json};

use crate::cli::config::{ConfigCommand, Configuration, Get, Init, Set, Show};
use crate::source::{self, Failure, Source};
use crate::{EXIT_CONFIG, load, logging, term, text};

/// Beside the configuration.
const SCHEMA: &str = "config.schema.json";

/// What `init` writes: all of it is the default, so that it changes nothing until somebody does.
const FIRST: &str = r#"// The configuration of cco. All keys and what holds: `cco config show`. What they mean: an editor shows it, from the
// schema beside this file. A change is checked and comes into use by itself while cco runs.
{
  "$schema": "./config.schema.json",
  "server": {
    // One port for everything.
    "listen": "127.0.0.1:54548",
  },
  "providers": {
    "anthropic": {
      // The client's own key or login comes first; without one, this key:
      // a variable, or what `cco credentials store ANTHROPIC_API_KEY` keeps.
      "apiKeyRef": "env:ANTHROPIC_API_KEY",
    },
  },
  "audit": {
    // Requests and answers are kept on this machine, encrypted, for so many days.
    "retentionDays": 30,
  },
}
"#;

/// Runs one of the commands.
pub(crate) fn run(options: &Configuration) -> ExitCode {
    let env = Env::process();
    let named = options.config.as_deref();
    let done = match &options.command {
        ConfigCommand::Init(options) => init(named, &env, options),
        ConfigCommand::Path => path(named, &env),
        ConfigCommand::Show(options) => show(named, &env, options),
        ConfigCommand::Validate => validate(named, &env),
        ConfigCommand::Schema => {
            term::line(pretty(&Config::schema()));
            Ok(())
        }
        ConfigCommand::Set(options) => set(named, &env, options),
        ConfigCommand::Get(options) => get(named, &env, options),
        ConfigCommand::Reload => reload(&env),
    };
    done.map_or_else(|code| code, |()| ExitCode::SUCCESS)
}

fn failed(what: impl std::fmt::Display, cause: Option<&dyn std::fmt::Display>, help: &str) -> ExitCode {
    term::error(what, cause, Some(help));
    ExitCode::FAILURE
}

fn usage(what: impl std::fmt::Display, help: &str) -> ExitCode {
    term::error(what, None, Some(help));
    ExitCode::from(2)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// The file that is meant, whether it is there or not.
fn place(named: Option<&Path>, env: &Env) -> Result<PathBuf, ExitCode> {
    config::place(named, env).map(|place| place.file).ok_or_else(|| {
        let help = "`cco --home FOLDER …` (or `CCO_HOME`) names a folder, `--config FILE` a file";
        failed("there is no place for a configuration: neither `CCO_HOME` nor `HOME` is set", None, help)
    })
}

fn init(named: Option<&Path>, env: &Env, options: &Init) -> Result<(), ExitCode> {
    let file = place(named, env)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = |path: &Path, why: &dyn std::fmt::Display| {
        let help =
            "`cco config --config FILE init` writes it elsewhere, `cco --home FOLDER config init` to another home";
        failed(format!("`{}` cannot be written", path.display()), Some(why), help)
    };
    if !folder.is_dir() {
        system::folder(folder).map_err(|why| cannot(folder, &why))?;
    }
    let written = if options.force {
        system::replace(&file, FIRST.as_bytes()).map(|()| true)
    } else {
        system::create(&file, FIRST.as_bytes())
    };
    match written {
        Ok(true) => {}
        Ok(false) => {
            let help = "`cco config set KEY VALUE` changes it, `cco config init --force` begins anew";
            return Err(failed(format!("`{}` is there already", file.display()), None, help));
        }
        Err(why) => return Err(cannot(&file, &why)),
    }
    let schema = folder.join(SCHEMA);
    system::replace(&schema, format!("{}\n", pretty(&Config::schema())).as_bytes())
        .map_err(|why| cannot(&schema, &why))?;
    term::line(format_args!("written: {}", file.display()));
    term::line(format_args!("schema:  {}", schema.display()));
    term::line("All of it is the default. `cco config set KEY VALUE` changes a key, `cco config show` lists them all.");
    Ok(())
}

fn path(named: Option<&Path>, env: &Env) -> Result<(), ExitCode> {
    let file = place(named, env)?;
    term::line(file.display());
    if !file.exists() {
        match named {
            None if env.read(&CCO_CONFIG).is_none() => {
                term::warning("it is not there: the defaults hold", Some("`cco config init` writes a first one"));
            }
            _ => {
                let help = "`cco config init` writes a first one there";
                term::warning("it is not there, and nothing starts without a file that is named", Some(help));
            }
        }
    }
    Ok(())
}

fn show(named: Option<&Path>, env: &Env, options: &Show) -> Result<(), ExitCode> {
    let loaded = load::configuration(named, env)?;
    let wanted = |setting: &Setting| match &options.key {
        Some(key) => within(&setting.path, key),
        None => true,
    };
    let rows: Vec<_> = loaded
        .settings
        .iter()
        .filter(|setting| wanted(setting) && !(options.changed && setting.source == Origin::Default))
        .collect();
    if let Some(key) = options.key.as_ref().filter(|_| rows.is_empty() && !options.changed) {
        return Err(unknown(key));
    }
    if options.json {
        let rows: Vec<_> = rows.iter().map(|setting| row(setting)).collect();
        let file = loaded.file.as_ref().map(|file| file.display().to_string());
        term::line(pretty(&json!({ "file": file, "settings": rows })));
        return Ok(());
    }
    term::line(match &loaded.file {
        Some(file) => format!("# {}", file.display()),
        None => "# no file: `cco config init` writes one".into(),
    });
    let width = rows.iter().map(|setting| setting.path.len() + setting.shown.to_string().len()).max().unwrap_or(0);
    for setting in rows {
        let pair = format!("{} = {}", setting.path, setting.shown);
        term::line(format_args!("{pair:<width$}  # {}", setting.source, width = (width + 3).min(72)));
    }
    Ok(())
}

fn row(setting: &Setting) -> Value {
    let (line, variable) = match &setting.source {
        Origin::File(line) => (Some(line), None),
        Origin::Variable(name) => (None, Some(name)),
        Origin::Default => (None, None),
    };
    let from = match &setting.source {
        Origin::Default => "default",
        Origin::File(_) => "file",
        Origin::Variable(_) => "variable",
    };
    json!({ "key": setting.path, "value": setting.shown, "from": from, "line": line, "variable": variable })
}

/// Whether a path is this key or lies below it.
fn within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Says why a key has no value.
fn unknown(key: &str) -> ExitCode {
    match key.parse::<KeyPath>().and_then(|path| path.shape()) {
        Err(bad) => usage(bad.message, &bad.help),
        Ok(_) => failed(format!("`{key}` is not in the configuration"), None, "`cco config show` lists what there is"),
    }
}

fn get(named: Option<&Path>, env: &Env, options: &Get) -> Result<(), ExitCode> {
    let loaded = load::configuration(named, env)?;
    let key = &options.key;
    let exact = loaded.settings.iter().find(|setting| setting.path == *key).map(|setting| setting.shown.clone());
    let value = match exact {
        Some(value) => value,
        None => {
            let (above, rest) = loaded
                .settings
                .iter()
                .find_map(|setting| Some((&setting.shown, key.strip_prefix(&setting.path)?)))
                .ok_or_else(|| below(&loaded, key))?;
            inside(above, rest).ok_or_else(|| unknown(key))?
        }
    };
    match value {
        Value::String(text) => term::line(text),
        other => term::line(other),
    }
    Ok(())
}

/// A key that has keys of its own has no value that could be printed alone.
fn below(loaded: &Loaded, key: &str) -> ExitCode {
    if loaded.settings.iter().any(|setting| within(&setting.path, key)) {
        let help = format!("`cco config show {key}` prints them");
        return usage(format!("`{key}` has keys of its own"), &help);
    }
    unknown(key)
}

/// The value at the rest of a path within a value.
fn inside(value: &Value, rest: &str) -> Option<Value> {
    let mut at = value;
    for part in rest.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        at = match at {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            other => other.get(part.trim_matches('"'))?,
        };
    }
    Some(at.clone())
}

/// The gateway has the last word: it knows its own file, variables and keys.
fn reload(env: &Env) -> Result<(), ExitCode> {
    let Ok(mut gateway) = Source::gateway(env) else {
        return Err(source::ended(Err(Failure::absent(source::NOBODY, &io::ErrorKind::NotFound.into()))));
    };
    let told = gateway.change("/gateway/reload").map_err(|why| {
        let help = "correct the file, then `cco config reload`";
        let why = if why.is_refusal() { why.help(help) } else { why };
        source::ended(Err(why.coded(2, EXIT_CONFIG)))
    })?;
    let lines = |name: &str| -> Vec<String> {
        let list = told[name].as_array();
        list.into_iter().flatten().filter_map(Value::as_str).map(|line| text::lines(line).into_owned()).collect()
    };
    let changes = lines("changes");
    term::line(match changes.len() {
        0 => "loaded: nothing changed".into(),
        1 => "loaded: 1 change".to_owned(),
        n => format!("loaded: {n} changes"),
    });
    changes.iter().for_each(|change| term::line(format_args!("  {change}")));
    for key in lines("needs_restart") {
        term::warning(format_args!("`{key}` waits for a new process"), Some("`cco daemon restart` starts one"));
    }
    lines("notes").iter().for_each(term::note);
    Ok(())
}

fn validate(named: Option<&Path>, env: &Env) -> Result<(), ExitCode> {
    let loaded = load::configuration(named, env)?;
    let faults = setup::faults(&loaded.config, env);
    if !faults.is_empty() {
        let told: String = faults.iter().map(|fault| format!("\n{fault}")).collect();
        let help = match &loaded.file {
            Some(file) => format!("correct `{}`, or what it names; `cco config validate` looks again", file.display()),
            None => "correct the variables; `cco config validate` looks again".into(),
        };
        term::error(format!("the configuration cannot be used{told}"), None, Some(&help));
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    for note in loaded.notes.iter().chain(&advice::models(&loaded.config, advice::today())) {
        term::line(logging::told(note));
    }
    term::line(match &loaded.file {
        Some(file) => format!("{}: good", file.display()),
        None => "no file: the defaults are good".into(),
    });
    Ok(())
}

fn set(named: Option<&Path>, env: &Env, options: &Set) -> Result<(), ExitCode> {
    let wrong = |bad: config::BadPath| usage(bad.message, &bad.help);
    let path: KeyPath = options.key.parse().map_err(wrong)?;
    let value = match (path.shape(), &options.value) {
        (Ok(shape), Some(typed)) if !options.default => Some(shape.value_of(typed)),
        (Ok(_), _) => None,
        // What is not known is a fault in the file, and can be taken out of it.
        (Err(_), _) if options.default && is_written(named, env, &path) => None,
        (Err(bad), _) => return Err(wrong(bad)),
    };
    change(named, env, &path, value.as_ref())?;
    match &value {
        Some(value) => term::line(format_args!("{path} = {value}")),
        None if path.shape().is_ok() => term::line(format_args!("{path}: the default holds")),
        None => term::line(format_args!("{path}: removed")),
    }
    let variable = config::variable(&path.to_string());
    if env.named(&variable).is_some() {
        let help = format!("`unset {variable}` lets the file decide");
        term::warning(format_args!("the variable `{variable}` comes before the file"), Some(&help));
    }
    Ok(())
}

/// Whether the file says something at this key.
fn is_written(named: Option<&Path>, env: &Env, path: &KeyPath) -> bool {
    let text = config::place(named, env).and_then(|place| std::fs::read_to_string(place.file).ok());
    text.is_some_and(|text| config::is_in(&text, path))
}

/// Writes a key into the file, or takes it out, so that everything else stays as it is; gives the file. It is refused
/// for what it would bring in; what was wrong before is told.
pub(crate) fn change(
    named: Option<&Path>,
    env: &Env,
    path: &KeyPath,
    value: Option<&Value>,
) -> Result<PathBuf, ExitCode> {
    let file = place(named, env)?;
    // A link is followed: what it points at is the file that somebody keeps.
    let file = std::fs::canonicalize(&file).unwrap_or(file);
    let cannot = |verb: &str, why: &dyn std::fmt::Display| {
        let help = format!("see what it is and whose: `ls -ld {}`", system::quoted(&file));
        failed(format!("`{}` cannot be {verb}", file.display()), Some(why), &help)
    };
    // Of two at once each writes what the other has written, too. The folder is locked: the file is exchanged.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _alone = std::fs::File::open(folder).ok().filter(|folder| folder.lock().is_ok());
    let (text, mode) = match std::fs::read_to_string(&file) {
        Ok(text) => (text, std::fs::metadata(&file).ok().map(|about| about.permissions())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => (String::new(), None),
        Err(why) => return Err(cannot("read", &why)),
    };
    // What the file says counts here, not what a variable says in its place.
    let faults = |text: &str| {
        let read = config::read_all(text, &Paths::of(Some(&file), env), &Overrides::default());
        read.err().unwrap_or_default()
    };
    let of_file = |faults| Faults { file: file.display().to_string(), faults };
    let before = faults(&text);
    let changed = match config::edited(&text, path, value) {
        Ok(changed) => changed,
        Err(EditError::Malformed { .. }) => {
            let faults = of_file(before);
            let what = format!("`{path}` is not set: the file cannot be read\n{faults}");
            term::error(what, None, Some(&load::remedy(named, &faults)));
            return Err(ExitCode::from(EXIT_CONFIG));
        }
        Err(why @ EditError::NoWay(_)) => {
            let help = match path.list() {
                Some(list) => format!(
                    "`cco config set {list} '[…]'` writes the whole list; what is in it: `cco config show {list}`"
                ),
                None => format!("`cco config set --help` shows how; what there is: `cco config show {}`", path.first()),
            };
            return Err(failed(format!("`{path}` is not set"), Some(&why), &help));
        }
    };
    let set = value.map(|_| path.to_string());
    let (brought, there) = Faults::brought_in(&before, faults(&changed), set.as_deref());
    if !brought.is_empty() {
        refused(path, &brought);
        return Err(ExitCode::from(EXIT_CONFIG));
    }
    if !folder.is_dir() {
        system::folder(folder).map_err(|why| cannot("written", &why))?;
    }
    system::replace(&file, changed.as_bytes()).map_err(|why| cannot("written", &why))?;
    if let Some(mode) = mode {
        std::fs::set_permissions(&file, mode).map_err(|why| cannot("given its mode back", &why))?;
    }
    if !there.is_empty() {
        let faults = of_file(there);
        let what = if faults.faults.len() == 1 { "a fault" } else { "faults" };
        let help = load::remedy(named, &faults);
        term::warning(
            format_args!("it is set, and the file still has {what} that it had before\n{faults}"),
            Some(&help),
        );
    }
    Ok(file)
}

/// Says why a key is not set. Lines are not told: the file is as it was.
fn refused(path: &KeyPath, faults: &[Fault]) {
    let set = path.to_string();
    let told = |fault: &Fault| match fault.path.is_empty() || fault.path == set {
        true => fault.message.clone(),
        false => format!("{}: {}", fault.path, fault.message),
    };
    // A provider is written whole, or not at all.
    let lacks = |name: &&str| {
        let below = format!("providers.{name}.");
        faults.iter().any(|fault| fault.path != set && fault.path.starts_with(&below))
    };
    let provider = path.provider().filter(lacks);
    let whole =
        provider.map(|name| format!("`cco providers add KIND --name {name}` writes a provider with all that it needs"));
    match faults {
        [fault] => {
            let help = whole.or_else(|| fault.help.clone()).unwrap_or_else(term::its_help);
            term::error(
                format!("`{path}` is not set: {}", told(fault)),
                None,
                Some(&format!("nothing was changed: {help}")),
            );
        }
        faults => {
            let lines = faults.iter().map(|fault| {
                let help = fault.help.as_ref().map(|help| format!("\n    help: {help}")).unwrap_or_default();
                format!("\n  {}{help}", told(fault))
            });
            let help = whole.unwrap_or_else(term::its_help);
            let what = format!(
                "`{path}` is not set: the file would have {} faults{}",
                faults.len(),
                lines.collect::<String>()
            );
            term::error(what, None, Some(&format!("nothing was changed: {help}")));
        }
    }
}
