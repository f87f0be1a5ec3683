//! `CCO_…` variables: each key of the configuration has one, and what it says comes before the file.

use std::cell::RefCell;
use std::fmt;

use super::env::Env;
use super::fault::{Note, NoteLevel};
use super::form::{Key, Shape};
use super::keys::Config;
use super::suggest::nearest;

/// The variables that may stand for keys, as the environment has them.
#[derive(Clone, Default)]
pub struct Overrides {
    set: Vec<(String, String)>,
    /// Those that were looked up.
    used: RefCell<Vec<usize>>,
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.set.iter().map(|(name, _)| name)).finish()
    }
}

impl Overrides {
    /// Those of this environment.
    pub fn of(env: &Env) -> Self {
        let sections: Vec<_> = Config::keys().iter().map(|key| format!("{}_", variable(key.name))).collect();
        let mut set: Vec<_> = env
            .names()
            .into_iter()
            .filter(|name| sections.iter().any(|section| name.starts_with(section)))
            .filter_map(|name| {
                let value = env.named(&name)?.to_string_lossy().into_owned();
                Some((name, value))
            })
            .collect();
        set.sort();
        Self { set, used: RefCell::default() }
    }

    /// What stands for the key at this place: the variable and its value.
    pub(super) fn at(&self, place: &str) -> Option<(&str, &str)> {
        if self.set.is_empty() || place.contains('[') {
            return None;
        }
        let wanted = variable(place);
        let at = self.set.iter().position(|(name, _)| *name == wanted)?;
        self.used.borrow_mut().push(at);
        let (name, value) = &self.set[at];
        Some((name, value))
    }

    /// Whether something stands for a key below this place.
    pub(super) fn below(&self, place: &str) -> bool {
        !self.set.is_empty() && {
            let within = format!("{}_", variable(place));
            self.set.iter().any(|(name, _)| name.starts_with(&within))
        }
    }

    /// A note on each variable that no key was looked up by.
    pub(super) fn strangers(&self) -> Vec<Note> {
        let used = self.used.borrow();
        let strange = self.set.iter().enumerate().filter(|(at, _)| !used.contains(at));
        let known = documented();
        let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        let note = |name: &str| {
            let near = nearest(name, known.iter().copied()).map(|near| format!(": did you mean `{near}`?"));
            let message = format!("the variable `{name}` stands for no key{}", near.unwrap_or_default());
            Note::new(NoteLevel::Warn, message)
        };
        strange.map(|(_, (name, _))| note(name)).collect()
    }
}

/// The variable of a key: `server.maxBodyMb` has `CCO_SERVER_MAX_BODY_MB`.
pub fn variable(path: &str) -> String {
    let mut name = String::from("CCO_");
    // Where any provider is meant, `NAME` stands for one: it is no two words.
    for c in path.replace(".NAME.", ".name.").chars().filter(|c| *c != '"') {
        match c {
            'A'..='Z' => {
                name.push('_');
                name.push(c);
            }
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_uppercase()),
            _ => name.push('_'),
        }
    }
    name
}

/// Every variable with the key it stands for, in the order of the table.
pub(super) fn documented() -> Vec<(String, String)> {
    fn walk(keys: &[Key], above: &str, all: &mut Vec<(String, String)>) {
        for key in keys {
            let path = if above.is_empty() { key.name.to_string() } else { format!("{above}.{}", key.name) };
            match &key.shape {
                Shape::Section(keys) => walk(keys, &path, all),
                Shape::Map(value) if path == "providers" => {
                    if let Shape::Section(keys) = &**value {
                        walk(keys, "providers.NAME", all);
                    }
                }
                _ => all.push((variable(&path), path)),
            }
        }
    }
    let mut all = Vec::new();
    walk(&Config::keys(), "", &mut all);
    all
}

#[cfg(test)]
mod tests {
    use super::super::{Faults, Paths, read_all};
    use super::*;

    #[track_caller]
    fn read(text: &str, set: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
        let all = Overrides {
            set: set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            used: RefCell::default(),
        };
        match read_all(text, &Paths::default(), &all) {
            Ok(read) => Ok((read.config, read.notes.iter().map(ToString::to_string).collect())),
            Err(faults) => Err(Faults { file: "c.json".into(), faults }.to_string()),
        }
    }

    #[test]
    fn no_two_keys_share_a_variable_and_none_is_one_of_another_meaning() {
        let mut names: Vec<_> = documented().into_iter().map(|(name, _)| name).collect();
        names.extend(super::super::VARIABLES.iter().flat_map(|variable| variable.names).map(|name| (*name).to_owned()));
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_variable_comes_before_the_file_and_before_the_default() {
        let (config, notes) = read(
            r#"{ "server": { "listen": "127.0.0.1:1", "maxBodyMb": 2 } }"#,
            &[
                ("CCO_SERVER_LISTEN", "127.0.0.1:7"),
                ("CCO_AUDIT_ENABLED", "false"),
                ("CCO_SERVER_HOSTS", "a,b"),
                ("CCO_PROVIDERS_ANTHROPIC_BASE_URL", "http://127.0.0.1:9"),
            ],
        )
        .unwrap();
        assert_eq!(config.server.listen, "127.0.0.1:7".parse().unwrap());
        assert_eq!((config.server.max_body, config.audit.enabled), (2 << 20, false));
        assert_eq!(config.server.hosts, ["a", "b"]);
        assert_eq!(config.providers[0].base_url.as_ref().unwrap().to_string(), "http://127.0.0.1:9");
        assert!(notes.is_empty(), "{notes:?}");
        let (config, _) = read("", &[("CCO_SERVER_PING_SECS", "3")]).unwrap();
        assert_eq!(config.server.ping, std::time::Duration::from_secs(3));
    }

    #[test]
    fn what_a_key_derives_from_another_follows_the_variable() {
        let text = r#"{ "providers": { "anthropic": {}, "b": { "providerType": "anthropic" } } }"#;
        let (config, _) = read(text, &[("CCO_ROUTING_DEFAULT_PROVIDER", "b")]).unwrap();
        assert_eq!((config.routing.default_provider, config.routing.fallback_chain), ("b".into(), vec!["b".into()]));
        let set = [("CCO_ROUTING_DEFAULT_PROVIDER", "b"), ("CCO_ROUTING_FALLBACK_CHAIN", "b,anthropic")];
        assert_eq!(read(text, &set).unwrap().0.routing.fallback_chain, ["b", "anthropic"]);
        let wrong = read(text, &[("CCO_ROUTING_DEFAULT_PROVIDER", "c")]).unwrap_err();
        assert!(wrong.contains("`c` is not a configured provider"), "{wrong}");
    }

    #[test]
    fn a_fault_in_a_variable_names_the_variable_and_not_a_line() {
        let fault = read("{}", &[("CCO_SERVER_MAX_CONNECTIONS", "many")]).unwrap_err();
        assert_eq!(
            fault,
            "`CCO_SERVER_MAX_CONNECTIONS`: server.maxConnections: must be a whole number, not a string\n  help: write for example `1`"
        );
    }

    #[test]
    fn a_variable_that_means_nothing_is_told() {
        let (_, notes) = read("{}", &[("CCO_SERVER_LISTN", "x"), ("CCO_LOG_COLOUR", "1")]).unwrap();
        assert_eq!(
            notes,
            [
                "the variable `CCO_SERVER_LISTN` stands for no key: did you mean `CCO_SERVER_LISTEN`?",
                "the variable `CCO_LOG_COLOUR` stands for no key"
            ]
        );
    }

    #[test]
    fn only_variables_of_our_sections_are_looked_at() {
        let env =
            Env::fixed([("CCO_TOKEN", "x"), ("CCO_HOME", "/h"), ("CCO_LOG_LEVEL", "warn"), ("CCO_LOG_FILES", "")]);
        assert_eq!(format!("{:?}", Overrides::of(&env)), "[\"CCO_LOG_LEVEL\"]");
    }
}
