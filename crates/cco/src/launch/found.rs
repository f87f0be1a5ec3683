//! The gateway that clients are sent to: proven to be ours before its address is handed out.

use std::path::PathBuf;

use gateway::config::{self, Config, CredentialRef, Env};
use gateway::credential::{self, Resolver};
use gateway::route::rehearsal::{Key, Question, Rehearsal};
use gateway::secret::Secret;
use ledger::record::Fingerprint;

use super::client::{self, Client};
use crate::source::{self, Failure, Source};

/// A gateway of our own user that answers.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where clients reach it.
    pub(super) base: String,
    /// The keys that it spends for this client, as their owner knows them; `None`: it has none.
    pub(super) stored: Option<String>,
    /// The credential that would be one, where there is none.
    pub(super) missing: Option<String>,
    /// The configuration that it serves with, where it is a file.
    pub(super) file: Option<PathBuf>,
}

/// What clients ask for: their protocol, and models of theirs. Where their requests go, these do.
const CLAUDE: &[(&str, &str)] =
    &[("anthropic", "claude-opus"), ("anthropic", "claude-sonnet"), ("anthropic", "claude-haiku")];
const CODEX: &[(&str, &str)] = &[("openai-responses", "gpt-5-codex")];
const CHAT: &[(&str, &str)] = &[("openai-chat", "gpt-5")];

impl Found {
    /// Asks over the socket in our folder, which nobody else can listen on: that proves it, where an answer from the
    /// port would not, since anybody may hold a port.
    pub(super) fn gateway(env: &Env, client: Client) -> Result<Self, Failure> {
        let none = |why: std::io::Error| {
            let failure = Failure::new("no gateway of yours answers").help("cco daemon start");
            // Without one there is no socket: that says no more than the words above.
            if why.kind() == std::io::ErrorKind::NotFound { failure } else { failure.because(why) }
        };
        let mut gateway = Source::gateway(env).map_err(none)?;
        let health = gateway.json("/gateway/health")?;
        let listen = health["process"]["address"].as_str().and_then(|text| text.parse().ok());
        let listen = listen
            .ok_or_else(|| Failure::new("the gateway that answers is another version's").help("cco daemon restart"))?;
        let providers = gateway.json("/gateway/providers")?;
        let rows = providers["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let file = health["config"]["file"].as_str().map(PathBuf::from);
        let (stored, missing) = match config::load(file.as_deref(), env) {
            Ok(loaded) => {
                let has_key = |name: &str| rows.iter().any(|row| row["name"] == name && row["key"] == "stored");
                paying(&loaded.config, client, has_key, env)
            }
            // What serves is not what the file says by now.
            Err(_) => {
                let serving = rows.iter().find(|row| row["serves"] == true && row["key"] == "stored");
                (serving.map(|row| format!("of `{}`", row["name"].as_str().unwrap_or_default())), None)
            }
        };
        Ok(Self { base: client::base(listen), stored, missing, file })
    }

    /// How the missing key comes to be there.
    pub(super) fn remedy(&self) -> String {
        match &self.missing {
            Some(name) => format!("cco credentials store {name}"),
            None => "`apiKeyRef` of a provider says which key is its own: \"credential:NAME\", stored with \
                     `cco credentials store NAME`"
                .into(),
        }
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

/// The keys that are spent where this client's requests go, and the one that is missing where none is. Each request has
/// targets in an order; the first that has a key is who is asked.
fn paying(
    config: &Config,
    client: Client,
    has_key: impl Fn(&str) -> bool,
    env: &Env,
) -> (Option<String>, Option<String>) {
    let asked: Vec<_> = match client {
        Client::Claude | Client::OpenCode => CLAUDE.iter().collect(),
        Client::Codex => CODEX.iter().collect(),
        Client::Other => CLAUDE.iter().chain(CHAT).collect(),
    };
    let (rehearsal, mut payers, mut lacking) = (Rehearsal::new(config), Vec::new(), None);
    for (protocol, model) in asked {
        let question = Question {
            protocol: Some((*protocol).to_owned()),
            model: Some((*model).to_owned()),
            key: Key::Stored,
            ..Question::default()
        };
        let targets = rehearsal.ask(&question).map(|answer| answer.targets).unwrap_or_default();
        match targets.iter().find(|target| has_key(&target.provider)) {
            Some(payer) if !payers.contains(&payer.provider) => payers.push(payer.provider.clone()),
            Some(_) => {}
            None => lacking = lacking.or(targets.into_iter().next()),
        }
    }
    let reference = |name: &str| {
        let of = config.providers.iter().find(|provider| provider.name == name);
        of.and_then(|of| of.api_keys.first())
    };
    let names: Vec<_> = payers.iter().map(|name| key_name(name, reference(name), env)).collect();
    let missing = lacking.and_then(|target| reference(&target.provider)?.stored_name().map(str::to_owned));
    ((!names.is_empty()).then(|| names.join(", ")), missing)
}

/// A key of a provider, as its owner knows it: its name and its end. Helpers are not run for that.
fn key_name(provider: &str, reference: Option<&CredentialRef>, env: &Env) -> String {
    let Some(reference) = reference else { return format!("of `{provider}`") };
    let name = match reference {
        CredentialRef::Env(name) | CredentialRef::Stored(name) => name.clone(),
        CredentialRef::File(_) | CredentialRef::Exec(_) => return reference.to_string(),
    };
    match Resolver::new(env.clone()).resolve(reference) {
        Ok(Some(key)) => format!("{name} ({})", Fingerprint::of(key.expose()).as_str()),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use gateway::config::Paths;

    use super::*;

    #[track_caller]
    fn check(client: Client, with_key: &[&str], stored: Option<&str>, missing: Option<&str>) {
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
        let got = paying(&config, client, |name| with_key.contains(&name), &Env::fixed([]));
        assert_eq!((got.0.as_deref(), got.1.as_deref()), (stored, missing), "{client:?} {with_key:?}");
    }

    #[test]
    fn who_pays_is_who_is_asked() {
        let all = &["anthropic", "openai", "deepseek"];
        check(Client::Codex, all, Some("WORK"), None);
        check(Client::Claude, all, Some("ANTHROPIC_API_KEY, DEEPSEEK_API_KEY"), None);
        check(Client::Other, all, Some("ANTHROPIC_API_KEY, DEEPSEEK_API_KEY, WORK"), None);
    }

    #[test]
    fn the_key_of_somebody_else_does_not_pay() {
        check(Client::Codex, &["anthropic"], None, Some("WORK"));
        check(Client::Claude, &["openai"], None, Some("ANTHROPIC_API_KEY"));
    }
}
