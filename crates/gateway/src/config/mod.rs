//! Configuration: text → tree that knows its places → typed [`Config`], with all faults at once.

mod check;
mod credential;
mod edit;
mod env;
mod fault;
mod form;
mod hours;
mod keys;
mod manual;
mod overrides;
mod path;
mod proxy;
mod read;
mod reference;
mod schema;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jsonc_parser::ast::Value;
use jsonc_parser::errors::ParseError;

pub use credential::{BadRef, CredentialRef};
pub use edit::{EditError, edited, edited_of_another, is_in, plain};
pub use env::{
    ALL_PROXY, CCO_ADMIN_TOKEN, CCO_CONFIG, CCO_HOME, CCO_PASSPHRASE, CREDENTIALS_DIRECTORY, DBUS_SESSION_BUS_ADDRESS,
    Env, HOME, HTTP_PROXY, HTTPS_PROXY, NO_COLOR, NO_PROXY, NOTIFY_SOCKET, VARIABLES, Variable, XDG_CONFIG_HOME,
    XDG_RUNTIME_DIR,
};
pub use fault::{Fault, Faults, Note, NoteLevel};
pub use form::{Effect, Key, NanoUsd, Shape};
pub use hours::{BadHours, Hours};
pub use keys::{
    Agent, Audit, Choice, Config, CostTracking, Format, KeyMode, Level, Log, Network, OnFailure, OnLoss, Pick, Price,
    ProviderConfig, Routing, Rule, Server, Target, Translation, Use, When,
};
pub use overrides::{Overrides, variable};
pub use path::{BadPath, KeyPath};
pub use proxy::ProxySetting;
pub use settings::{Difference, Setting, Source, differences};
pub use suggest::nearest;

use form::Keys;
use read::{Place, Reader, Wrong};

/// The largest file that is taken for a configuration.
const MAX_FILE: u64 = 4 << 20;

/// What paths in a configuration are relative to.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// The configuration file's folder.
    pub folder: Option<PathBuf>,
    /// What `~` stands for.
    pub user_home: Option<PathBuf>,
}

impl Paths {
    /// Those of a file, or of none.
    pub fn of(file: Option<&Path>, env: &Env) -> Self {
        let file = file.and_then(|file| std::path::absolute(file).ok());
        let folder = file.and_then(|file| file.parent().map(Path::to_path_buf));
        Self { folder, user_home: env.user_home() }
    }

    /// `~/` is the user's folder; a relative path begins at the configuration file's.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.user_home, &self.folder) {
            (Ok(rest), Some(home), _) => home.join(rest),
            (Err(_), _, Some(folder)) => folder.join(path),
            _ => path.to_path_buf(),
        }
    }
}

impl Config {
    /// All keys of the configuration.
    pub fn keys() -> Vec<Key> {
        <Self as Keys>::keys()
    }
}

/// The protocol that the configuration knows by this name.
pub fn protocol_named(name: &str) -> Option<wire::protocol::Protocol> {
    values::protocol().iter().find(|(known, _)| *known == name).map(|(_, protocol)| *protocol)
}

/// The tree of a JSON text with comments and trailing commas.
fn tree(text: &str) -> Result<Option<Value<'_>>, ParseError> {
    jsonc_parser::parse_to_ast(text, &Default::default(), &options()).map(|result| result.value)
}

/// The value of a JSON text with comments and trailing commas, if it is one.
pub(crate) fn json_of(text: &str) -> Option<serde_json::Value> {
    tree(text).ok().flatten().as_ref().map(settings::json)
}

fn options() -> jsonc_parser::ParseOptions {
    jsonc_parser::ParseOptions {
        allow_comments: true,
        allow_trailing_commas: true,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Complete and checked.
    pub config: Config,
    /// What is worth a line in the log.
    pub notes: Vec<Note>,
    /// The file it was read from; `None`: there is none.
    pub file: Option<PathBuf>,
    /// What holds, key by key.
    pub settings: Vec<Setting>,
}

/// Which file is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file.
    pub file: PathBuf,
    /// Who names it: an option, a variable, or nobody.
    pub named_by: &'static str,
}

/// Nobody names a file.
const DEFAULT: &str = "the default";

/// The file that holds the configuration: that of `--config`, else of `$CCO_CONFIG`, else `config.json` in our folder.
/// `None`: there is no folder either.
pub fn place(named: Option<&Path>, env: &Env) -> Option<Location> {
    let variable = env.read(&CCO_CONFIG).map(PathBuf::from);
    let (file, named_by) = match (named, variable, env.home()) {
        (Some(file), ..) => (file.to_path_buf(), "`--config`"),
        (None, Some(file), _) => (file, "the variable `CCO_CONFIG`"),
        (None, None, Some(home)) => (home.join("config.json"), DEFAULT),
        (None, None, None) => return None,
    };
    Some(Location { file, named_by })
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
        /// Who named it: an option or a variable.
        named_by: &'static str,
    },
    /// The file must be corrected.
    Faulty(Faults),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, error, named_by } => {
                let named = if *named_by == DEFAULT { String::new() } else { format!(", named by {named_by}") };
                write!(f, "cannot read `{}`{named}: {error}", file.display())
            }
            Self::Faulty(faults) => faults.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

/// Finds and reads the configuration: the file that `--config` names, else `$CCO_CONFIG`, else `config.json` in our
/// folder if there is one, else the defaults. `CCO_…` variables come before what the file says.
pub fn load(named: Option<&Path>, env: &Env) -> Result<Loaded, LoadError> {
    let place = place(named, env);
    let bytes = match &place {
        Some(Location { file, named_by }) => match read_file(file) {
            Ok(bytes) => Some(bytes),
            Err(error) if *named_by == DEFAULT && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(LoadError::Unreadable { file: file.clone(), error, named_by }),
        },
        None => None,
    };
    let file = place.filter(|_| bytes.is_some()).map(|place| place.file);
    let text = text(bytes.as_deref().unwrap_or_default());
    let shown = || file.as_ref().map_or_else(|| "the environment".into(), |file| file.display().to_string());
    let faulty = |faults| LoadError::Faulty(Faults { file: shown(), faults });
    let read = text.and_then(|text| read_all(text, &Paths::of(file.as_deref(), env), &Overrides::of(env)));
    let Read { config, notes, settings } = read.map_err(faulty)?;
    Ok(Loaded { config, notes, file, settings })
}

/// The text of a file.
fn text(bytes: &[u8]) -> Result<&str, Vec<Fault>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        let (line, column) = fault::Lines::new(&valid).at(valid.len());
        let help = Some("save the file as UTF-8".into());
        let message = "not UTF-8".into();
        vec![Fault { line, column, variable: None, path: String::new(), message, help }]
    })
}

fn read_file(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if crate::system::is_pipe(file) {
        // It may never end, and what serves reads its file again.
        return Err(std::io::Error::other("it is a pipe: write it to a file"));
    }
    std::fs::File::open(file)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}

/// Reads a configuration text: the configuration and what is worth a note, or everything that is wrong with it.
pub fn parse(text: &str, paths: &Paths) -> Result<(Config, Vec<Note>), Vec<Fault>> {
    read_all(text, paths, &Overrides::default()).map(|read| (read.config, read.notes))
}

/// What was read of a text.
#[derive(Debug)]
pub struct Read {
    /// Complete and checked.
    pub config: Config,
    /// What is worth a line in the log.
    pub notes: Vec<Note>,
    /// What holds, key by key.
    pub settings: Vec<Setting>,
}

/// The same, where variables come before the text, with what holds key by key.
pub fn read_all(text: &str, paths: &Paths, overrides: &Overrides) -> Result<Read, Vec<Fault>> {
    // Editors on Windows mark UTF-8 so; positions count from behind the mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::whole(text, paths, overrides);
    let root = match tree(text) {
        Ok(root) => root,
        Err(error) => {
            let wrong = Wrong {
                message: format!("not well-formed: {}", lower_first(&error.kind().to_string())),
                help: Some("the file is JSON, in which comments and trailing commas are allowed".into()),
            };
            reader.fault(error.range().start, &Place::default(), wrong);
            return Err(reader.finish().expect_err("a fault was noted"));
        }
    };
    let section = check::content(root.as_ref(), &mut reader);
    let mut config = Config::read(section, &Place::default(), &mut reader);
    check::whole(&mut config, section, &mut reader);
    let settings = reader.settings();
    reader.finish().map(|notes| Read { config, notes, settings })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
