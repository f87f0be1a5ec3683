//! The gateway that clients are sent to: proven to be ours before its address is handed out.

use std::net::SocketAddr;
use std::path::PathBuf;

use gateway::config::{self, Config, CredentialRef, Env};
use gateway::credential::{self, Resolver};
use gateway::route::rehearsal::{Key, Question, Rehearsal};
use gateway::secret::Secret;
use serde_json::Value;

use super::client::{self, Client};
use crate::source::{self, Failure, Source};

/// A gateway of our own user that answers.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where clients reach it.
    pub(super) base: String,
    /// Whether that is where its configuration says that it is, also after its next start.
    pub(super) lasts: bool,
    /// With what it pays for this client, in words; `None`: it cannot.
    pub(super) stored: Option<String>,
    /// What helps where it cannot.
    pub(super) remedy: String,
    /// The configuration that it serves with, where it is a file.
    pub(super) file: Option<PathBuf>,
    /// The process that answers.
    pub(super) pid: Option<u64>,
    /// Its version.
    pub(super) version: String,
}

/// What clients ask for: their protocol, and models of theirs. Where their requests go, these do.
const CLAUDE: &[(&str, &str)] =
    &[("anthropic", "claude-opus"), ("anthropic", "claude-sonnet"), ("anthropic", "claude-haiku")];
const CODEX: &[(&str, &str)] = &[("openai-responses", "gpt-5-codex")];
const CHAT: &[(&str, &str)] = &[("openai-chat", "gpt-5")];

/// Where clients reach it, as it says.
pub(super) fn base(health: &Value) -> Option<String> {
    Some(client::base(listens(health)?))
}

fn listens(health: &Value) -> Option<SocketAddr> {
    health["process"]["address"].as_str()?.parse().ok()
}

/// The process that answers, as it says.
pub(super) fn pid(health: &Value) -> Option<u64> {
    health["process"]["pid"].as_u64()
}

impl Found {
    /// Asks over the socket in our folder, which nobody else can listen on: that proves it, where an answer from the
    /// port would not, since anybody may hold a port.
    pub(super) fn gateway(env: &Env, client: Client) -> Result<Self, Failure> {
        let mut gateway = Source::answering(env).map_err(|why| Failure::absent("no gateway of yours answers", &why))?;
        let health = gateway.json("/gateway/health")?;
        let listen = listens(&health)
            .ok_or_else(|| Failure::new("the gateway that answers is another version's").help("cco daemon restart"))?;
        let providers = gateway.json("/gateway/providers")?;
        let rows = providers["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let file = health["config"]["file"].as_str().map(PathBuf::from);
        let version = health["version"].as_str().unwrap_or_default().to_owned();
        let loaded = config::load(file.as_deref(), env);
        let lasts = loaded.as_ref().map_or(true, |loaded| loaded.config.server.listen.port() == listen.port());
        let (stored, remedy) = match loaded {
            Ok(loaded) => paying(&loaded.config, client, rows),
            // What serves is not what the file says by now.
            Err(_) => {
                let serving = rows.iter().find(|row| row["serves"] == true && row["key"] == "stored");
                (serving.map(|row| format!("stored key {}", keys_of(row))), "cco config validate".to_owned())
            }
        };
        Ok(Self { base: client::base(listen), lasts, stored, remedy, file, pid: pid(&health), version })
    }

    /// The token that spends stored keys.
    pub(super) fn token(&self, env: &Env) -> Result<Secret, Failure> {
        let home = source::home(env)?;
        let configured = config::load(self.file.as_deref(), env).ok().and_then(|loaded| loaded.config.server.token);
        let (token, note) = credential::server_token(configured.as_ref(), Some(&home), &Resolver::new(env.clone()))
            .map_err(|why| Failure::new("the gateway's token cannot be read").because(why))?;
        match (token.get(), note) {
            (Some(token), None) => Ok((*token).clone()),
            (_, Some(note)) => Err(Failure::new("the gateway's token cannot be read").because(note)),
            (None, None) => Err(Failure::new("the gateway has no token")),
        }
    }
}

/// With what the gateway pays where this client's requests go, in words, and what helps where it cannot.
/// Each request has targets in an order; the first that can be asked is. `rows` are the providers as the gateway knows
/// them: its keys are not those that this process would find.
fn paying(config: &Config, client: Client, rows: &[Value]) -> (Option<String>, String) {
    let asked: Vec<_> = match client {
        Client::Claude | Client::OpenCode => CLAUDE.iter().collect(),
        Client::Codex => CODEX.iter().collect(),
        Client::Other => CLAUDE.iter().chain(CHAT).collect(),
    };
    let configured = |name: &str| config.providers.iter().find(|provider| provider.name == name);
    let row = |name: &str| rows.iter().find(|row| row["name"] == name);
    let has_key = |name: &str| row(name).is_some_and(|row| row["key"] == "stored");
    let is_free = |name: &str| configured(name).is_some_and(|of| of.kind.keyless && of.api_keys.is_empty());
    let (rehearsal, mut payers, mut lacking) = (Rehearsal::new(config), Vec::new(), None);
    for (protocol, model) in asked {
        let question = Question {
            protocol: Some((*protocol).to_owned()),
            model: Some((*model).to_owned()),
            key: Key::Stored,
            ..Question::default()
        };
        let targets = rehearsal.ask(&question).map(|answer| answer.targets).unwrap_or_default();
        match targets.iter().find(|target| has_key(&target.provider) || is_free(&target.provider)) {
            Some(payer) if !payers.contains(&payer.provider) => payers.push(payer.provider.clone()),
            Some(_) => {}
            None => lacking = lacking.or(Some((targets.into_iter().next(), protocol, model))),
        }
    }
    let (paid, free): (Vec<_>, Vec<_>) = payers.into_iter().partition(|name| has_key(name));
    let keys: Vec<_> = paid.iter().filter_map(|name| row(name)).map(keys_of).collect();
    let keys = (!keys.is_empty()).then(|| format!("stored key {}", keys.join(", ")));
    let free = (!free.is_empty()).then(|| format!("nothing: `{}` wants no key", free.join("`, `")));
    let told: Vec<_> = keys.into_iter().chain(free).collect();
    let remedy = match lacking {
        // Nobody could take it, whoever pays.
        Some((None, protocol, model)) => format!("cco route explain --protocol {protocol} --model {model}"),
        Some((Some(target), ..)) => {
            let reference = configured(&target.provider).and_then(|of| of.api_keys.first());
            match reference.and_then(CredentialRef::stored_name) {
                Some(name) => format!("cco credentials store {name}"),
                None => format!(
                    "`providers.{}.apiKeyRef` says which key is its own: \"credential:NAME\", stored with \
                     `cco credentials store NAME`",
                    target.provider
                ),
            }
        }
        None => String::new(),
    };
    ((!told.is_empty()).then(|| told.join("; ")), remedy)
}

/// The keys of a provider that are there, as their owner knows them: where each is from, and its end.
fn keys_of(row: &Value) -> String {
    let key = |key: &Value| {
        let reference = key["reference"].as_str()?;
        let name = match reference.parse() {
            Ok(CredentialRef::Env(name) | CredentialRef::Stored(name)) => name,
            _ => reference.to_owned(),
        };
        Some(format!("{name} ({})", key["end"].as_str()?))
    };
    let keys: Vec<_> = row["stored_keys"].as_array().into_iter().flatten().filter_map(key).collect();
    // An older gateway does not tell them.
    if keys.is_empty() { format!("of `{}`", row["name"].as_str().unwrap_or_default()) } else { keys.join(", ") }
}

#[cfg(test)]
mod tests {
    use gateway::config::Paths;
    use serde_json::json;

    use super::*;

    /// Of providers, those that have keys, each with where these are from.
    #[track_caller]
    fn check(client: Client, with_keys: &[(&str, &[&str])], stored: Option<&str>, remedy: &str) {
        let text = r#"{ "providers": {
            "anthropic": {},
            "openai": { "enabled": true, "apiKeyRef": "credential:WORK" },
            "deepseek": { "enabled": true }
        }, "routing": { "rules": [
            { "when": { "model": "*haiku*" }, "use": { "providers": [{ "provider": "deepseek", "model": "deepseek-flash" }], "fallback": false } },
            { "when": { "protocol": "openai-responses" }, "use": { "providers": ["openai"], "fallback": false } },
            { "when": { "protocol": "openai-chat" }, "use": { "providers": ["openai"], "fallback": false } }
        ] } }"#;
        let (config, _) = config::parse(text, &Paths::default()).unwrap();
        let keys = |of: &[&str]| of.iter().map(|at| json!({ "reference": at, "end": "…4f2a" })).collect::<Value>();
        let row = |(name, of): &(&str, &[&str])| json!({ "name": name, "key": "stored", "stored_keys": keys(of) });
        let got = paying(&config, client, &with_keys.iter().map(row).collect::<Vec<_>>());
        assert_eq!((got.0.as_deref(), &*got.1), (stored, remedy), "{client:?} {with_keys:?}");
    }

    const A: (&str, &[&str]) = ("anthropic", &["env:ANTHROPIC_API_KEY"]);
    const D: (&str, &[&str]) = ("deepseek", &["env:DEEP", "exec:pass deep"]);
    const O: (&str, &[&str]) = ("openai", &["credential:WORK"]);

    #[test]
    fn who_pays_is_who_is_asked() {
        let all = &[A, O, D];
        let keys = "stored key ANTHROPIC_API_KEY (…4f2a), DEEP (…4f2a), exec:pass deep (…4f2a)";
        check(Client::Codex, all, Some("stored key WORK (…4f2a)"), "");
        check(Client::Claude, all, Some(keys), "");
        check(Client::Other, all, Some(&format!("{keys}, WORK (…4f2a)")), "");
        check(Client::Codex, &[("openai", &[])], Some("stored key of `openai`"), "");
    }

    #[test]
    fn the_key_of_somebody_else_does_not_pay() {
        check(Client::Codex, &[A], None, "cco credentials store WORK");
        check(Client::Claude, &[O], None, "cco credentials store ANTHROPIC_API_KEY");
    }

    #[test]
    fn what_runs_on_ones_own_machine_is_not_paid() {
        let local = |more: &str| {
            let text = format!(
                r#"{{ "providers": {{ "anthropic": {{ "enabled": false }}, "ollama": {{ "enabled": true {more} }} }},
                "routing": {{ "defaultProvider": "ollama" }} }}"#
            );
            let (config, _) = config::parse(&text, &Paths::default()).unwrap();
            paying(&config, Client::Claude, &[json!({ "name": "ollama", "key": "none" })])
        };
        let nothing = Some("nothing: `ollama` wants no key".to_owned());
        assert_eq!(local(r#", "defaultModel": "llama3.2""#), (nothing, String::new()));
        assert_eq!(local(""), (None, "cco route explain --protocol anthropic --model claude-opus".to_owned()));
    }
}
