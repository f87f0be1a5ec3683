//! The gateway that clients are sent to: proven to be ours before its address is handed out.

use gateway::config::{self, CredentialRef, Env};
use gateway::credential::{self, Resolver};
use gateway::secret::Secret;
use ledger::record::Fingerprint;

use super::client;
use crate::source::{self, Failure, Source};

/// A gateway of our own user that answers.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where clients reach it.
    pub(super) base: String,
    /// The key that it spends on behalf of others, as its owner knows it; `None`: it has none.
    pub(super) stored: Option<String>,
}

impl Found {
    /// Asks over the socket in our folder, which nobody else can listen on: that proves it, where an answer from the
    /// port would not, since anybody may hold a port.
    pub(super) fn gateway(env: &Env) -> Result<Self, Failure> {
        let none =
            |why: std::io::Error| Failure::new("no gateway of yours answers").because(why).help("cco daemon start");
        let mut gateway = Source::gateway(env).map_err(none)?;
        let health = gateway.json("/gateway/health")?;
        let listen = health["process"]["address"].as_str().and_then(|text| text.parse().ok());
        let listen = listen
            .ok_or_else(|| Failure::new("the gateway that answers is another version's").help("cco daemon restart"))?;
        let providers = gateway.json("/gateway/providers")?;
        let rows = providers["providers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let serving = rows.iter().find(|row| row["serves"] == true && row["key"] == "stored");
        let stored = serving.map(|row| key_name(row["name"].as_str().unwrap_or_default(), env));
        Ok(Self { base: client::base(listen), stored })
    }

    /// The token that spends stored keys.
    pub(super) fn token(&self, env: &Env) -> Result<Secret, Failure> {
        let home = source::home(env)?;
        let configured = config::load(None, env).ok().and_then(|loaded| loaded.config.server.token);
        let (token, note) = credential::server_token(configured.as_ref(), Some(&home), &Resolver::new(env.clone()))
            .map_err(|why| Failure::new("the gateway's token cannot be read").because(why))?;
        match (token.get(), note) {
            (Some(token), None) => Ok((*token).clone()),
            (_, Some(note)) => Err(Failure::new("the gateway's token cannot be read").because(note)),
            (None, None) => Err(Failure::new("the gateway has no token")),
        }
    }
}

/// The key of a provider, as its owner knows it: its name and its end. Helpers are not run for that.
fn key_name(provider: &str, env: &Env) -> String {
    let loaded = config::load(None, env).ok();
    let of = loaded.and_then(|loaded| loaded.config.providers.into_iter().find(|p| p.name == provider));
    let Some(reference) = of.and_then(|of| of.api_keys.into_iter().next()) else {
        return format!("of `{provider}`");
    };
    let name = match &reference {
        CredentialRef::Env(name) | CredentialRef::Stored(name) => name.clone(),
        CredentialRef::File(_) | CredentialRef::Exec(_) => return reference.to_string(),
    };
    match Resolver::new(env.clone()).resolve(&reference) {
        Ok(Some(key)) => format!("{name} ({})", Fingerprint::of(key.expose()).as_str()),
        _ => name,
    }
}
