//! The environment: the one place in the workspace that reads it, through one list of variables.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::net::ProxyEnv;
use crate::secret::Secret;

/// A variable that means something to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// The spellings, the first that is set and not empty counts.
    pub names: &'static [&'static str],
    /// What it does, as the documentation prints it.
    pub meaning: &'static str,
}

/// The folder for configuration, token and data.
pub const CCO_HOME: Variable =
    Variable { names: &["CCO_HOME"], meaning: "folder for configuration, token and data (default: `~/.cco`)" };
/// The configuration file.
pub const CCO_CONFIG: Variable =
    Variable { names: &["CCO_CONFIG"], meaning: "configuration file (default: `config.json` in `CCO_HOME`)" };
/// The user's own folder.
pub const HOME: Variable = Variable { names: &["HOME"], meaning: "what `~` stands for" };
/// The proxy for encrypted upstreams.
pub const HTTPS_PROXY: Variable = Variable {
    names: &["https_proxy", "HTTPS_PROXY"],
    meaning: "proxy for https upstreams, read when `network.proxy` is \"env\"",
};
/// The proxy for plain upstreams.
pub const HTTP_PROXY: Variable = Variable {
    names: &["http_proxy", "HTTP_PROXY"],
    meaning: "proxy for http upstreams, read when `network.proxy` is \"env\"",
};
/// The proxy for all upstreams that have none of their own.
pub const ALL_PROXY: Variable = Variable {
    names: &["all_proxy", "ALL_PROXY"],
    meaning: "proxy for upstreams for which neither of the two is set, read when `network.proxy` is \"env\"",
};
/// Hosts that are reached directly.
pub const NO_PROXY: Variable = Variable {
    names: &["no_proxy", "NO_PROXY"],
    meaning: "hosts that are reached without the proxy, separated by commas; `*` = all",
};

/// Opens credentials that are locked with a passphrase.
pub const CCO_PASSPHRASE: Variable = Variable {
    names: &["CCO_PASSPHRASE"],
    meaning: "passphrase of the credentials, where they have one and nobody is there to type it",
};
/// What the system's manager gives to a service.
pub const CREDENTIALS_DIRECTORY: Variable = Variable {
    names: &["CREDENTIALS_DIRECTORY"],
    meaning: "set by systemd: where `cco-credentials-key` is, the key to the credentials",
};
/// Where the keyring of the session is asked.
pub const DBUS_SESSION_BUS_ADDRESS: Variable = Variable {
    names: &["DBUS_SESSION_BUS_ADDRESS"],
    meaning: "set by the session: the message bus on which the keyring answers",
};
/// Where the session's bus is when the variable before does not say it.
pub const XDG_RUNTIME_DIR: Variable =
    Variable { names: &["XDG_RUNTIME_DIR"], meaning: "set by the session: the folder of its message bus" };
/// Where the system's manager listens.
pub const NOTIFY_SOCKET: Variable =
    Variable { names: &["NOTIFY_SOCKET"], meaning: "set by systemd: where a service says that it is ready" };
/// Where users keep their configurations.
pub const XDG_CONFIG_HOME: Variable =
    Variable { names: &["XDG_CONFIG_HOME"], meaning: "folder of the systemd user unit (default: `~/.config`)" };
/// The admin token of a gateway that is asked with `--url`.
pub const CCO_ADMIN_TOKEN: Variable = Variable {
    names: &["CCO_ADMIN_TOKEN"],
    meaning: "admin token of the gateway that `--url` names (default, on this machine: that of `CCO_HOME`)",
};
/// Wishes of people who see no colours, or want none.
pub const NO_COLOR: Variable = Variable { names: &["NO_COLOR"], meaning: "anything: no colours" };

/// Every variable that is read under its own name. Beside these, a credential reference `env:NAME` reads `NAME`.
pub const VARIABLES: &[Variable] = &[
    CCO_HOME,
    CCO_CONFIG,
    HOME,
    HTTPS_PROXY,
    HTTP_PROXY,
    ALL_PROXY,
    NO_PROXY,
    CCO_PASSPHRASE,
    CREDENTIALS_DIRECTORY,
    DBUS_SESSION_BUS_ADDRESS,
    XDG_RUNTIME_DIR,
    NOTIFY_SOCKET,
    XDG_CONFIG_HOME,
    CCO_ADMIN_TOKEN,
    NO_COLOR,
];

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;
type Names = dyn Fn() -> Vec<String> + Send + Sync;

/// A view of the environment: the process's, or a fixed one for tests.
#[derive(Clone)]
pub struct Env {
    lookup: Arc<Lookup>,
    names: Arc<Names>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env(…)")
    }
}

/// Our folder, where an option names it.
static HOME_OPTION: OnceLock<OsString> = OnceLock::new();

impl Env {
    /// Names our folder, whatever the variable says. Of a process's calls only the first counts.
    pub fn set_home(home: &Path) {
        let _ = HOME_OPTION.set(home.into());
    }

    /// The environment of this process.
    pub fn process() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
        let lookup = |name: &str| match HOME_OPTION.get() {
            Some(home) if name == CCO_HOME.names[0] => Some(home.clone()),
            _ => std::env::var_os(name),
        };
        let names = || std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        Self { lookup: Arc::new(lookup), names: Arc::new(names) }
    }

    /// An environment of exactly these variables.
    pub fn fixed<const N: usize>(variables: [(&str, &str); N]) -> Self {
        let variables = variables.map(|(name, value)| (name.to_string(), OsString::from(value)));
        let names: Vec<_> = variables.iter().map(|(name, _)| name.clone()).collect();
        let lookup = move |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        Self { lookup: Arc::new(lookup), names: Arc::new(move || names.clone()) }
    }

    /// The same, but for one variable.
    #[must_use]
    pub fn with(&self, variable: &'static Variable, value: Secret) -> Self {
        let before = self.lookup.clone();
        let lookup =
            move |name: &str| if variable.names.contains(&name) { Some(value.expose().into()) } else { before(name) };
        Self { lookup: Arc::new(lookup), names: self.names.clone() }
    }

    /// The names of all variables.
    pub(crate) fn names(&self) -> Vec<String> {
        (self.names)()
    }

    /// The value of a variable that a credential reference `env:NAME` points at, or that a client reads; empty counts as
    /// not set.
    pub fn named(&self, name: &str) -> Option<OsString> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// The value, where the variable is set and not empty.
    pub fn read(&self, variable: &Variable) -> Option<OsString> {
        variable.names.iter().find_map(|name| (self.lookup)(name).filter(|value| !value.is_empty()))
    }

    /// Our folder: `CCO_HOME`, else `.cco` in the user's; `None` where neither variable is set.
    pub fn home(&self) -> Option<PathBuf> {
        match self.read(&CCO_HOME) {
            Some(home) => Some(PathBuf::from(home)),
            None => self.user_home().map(|home| home.join(".cco")),
        }
    }

    /// What the variables say of proxies.
    pub fn proxies(&self) -> ProxyEnv {
        let text = |variable| self.read(variable).map(|value| value.to_string_lossy().into_owned());
        ProxyEnv { https: text(&HTTPS_PROXY), http: text(&HTTP_PROXY), all: text(&ALL_PROXY), no: text(&NO_PROXY) }
    }

    /// What `~` stands for.
    pub fn user_home(&self) -> Option<PathBuf> {
        self.read(&HOME).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_folder_is_named_or_lies_in_the_users() {
        assert_eq!(Env::fixed([("HOME", "/h"), ("CCO_HOME", "/c")]).home(), Some("/c".into()));
        assert_eq!(Env::fixed([("HOME", "/h"), ("CCO_HOME", "")]).home(), Some("/h/.cco".into()));
        assert_eq!(Env::fixed([]).home(), None);
    }

    #[test]
    fn the_first_spelling_that_is_set_counts() {
        let env = Env::fixed([("https_proxy", ""), ("HTTPS_PROXY", "http://b"), ("NO_PROXY", "c"), ("no_proxy", "d")]);
        assert_eq!(env.read(&HTTPS_PROXY), Some("http://b".into()));
        assert_eq!(env.read(&NO_PROXY), Some("d".into()));
        assert_eq!(env.read(&HTTP_PROXY), None);
    }

    #[test]
    fn a_variable_can_be_laid_over_the_others() {
        let env = Env::fixed([("HOME", "/h"), ("CCO_PASSPHRASE", "old")]).with(&CCO_PASSPHRASE, Secret::new("new"));
        assert_eq!(env.read(&CCO_PASSPHRASE), Some("new".into()));
        assert_eq!(env.user_home(), Some("/h".into()));
    }

    #[test]
    fn the_environment_of_the_process_is_read() {
        assert!(Env::process().named("PATH").is_some(), "every test runs with a PATH");
    }
}
