//! From a checked configuration to a gateway that can serve.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::client::edge::Edge;
use crate::client::inbound::Held;
use crate::config::{Config, Env, Note, NoteLevel};
use crate::credential::{self, CredentialError, Resolver};
use crate::gateway::{Counters, Gateway};
use crate::net::{BadProxy, BadRoots, Dial, Dialer, ExtraRoots, Settings};
use crate::provider::Provider;

/// Why a configuration that reads well cannot be used on this machine.
#[derive(Debug)]
pub enum SetupError {
    /// `server.token` leads nowhere.
    Token(CredentialError),
    /// `network.proxy` says "env", and the environment names no proxy that can be used.
    Proxy(BadProxy),
    /// `network.caFile` holds no certificates.
    Roots(BadRoots),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(e) => write!(f, "server.token: {e}"),
            Self::Proxy(e) => write!(f, "network.proxy: {e}"),
            Self::Roots(e) => write!(f, "network.caFile: {e}"),
        }
    }
}

impl std::error::Error for SetupError {}

/// The dialer of this configuration.
pub fn dialer(config: &Config, env: &Env) -> Result<Arc<dyn Dial>, SetupError> {
    let proxy = config.network.proxy(env).map_err(SetupError::Proxy)?;
    let extra_roots = config.network.ca_file.as_deref().map(ExtraRoots::read).transpose().map_err(SetupError::Roots)?;
    Ok(Arc::new(Dialer::new(Settings { proxy, extra_roots })))
}

/// Joins configuration, keys and network. The notes are worth a line in the log each.
pub fn gateway(
    config: &Config,
    env: &Env,
    version: &str,
    dialer: Arc<dyn Dial>,
) -> Result<(Gateway, Vec<Note>), SetupError> {
    let resolver = Resolver::new(env.clone());
    let home = env.home();
    let (token, note) = credential::server_token(config.server.token.as_ref(), home.as_deref(), &resolver)
        .map_err(SetupError::Token)?;
    let providers = Provider::all(config, &resolver);
    let mut notes: Vec<Note> = note.into_iter().collect();
    for provider in &providers {
        if let Some(error) = &provider.key_error {
            notes.push(Note::new(
                NoteLevel::Warn,
                format!("there is no key for the provider `{}`: {error}", provider.name),
            ));
        }
    }
    let disabled = config.providers.iter().filter(|p| !p.enabled).map(|p| p.name.clone()).collect();
    let mut chain = vec![config.routing.default_provider.clone()];
    for name in &config.routing.fallback_chain {
        if !chain.contains(name) {
            chain.push(name.clone());
        }
    }
    let server = &config.server;
    let gateway = Gateway {
        version: version.to_string(),
        started: SystemTime::now(),
        edge: Edge { hosts: server.hosts.clone(), origins: server.origins.clone() },
        token: Some(token),
        open_stored_keys: server.open_stored_keys,
        max_body: server.max_body,
        held: Held::new(server.max_held),
        ping: server.ping,
        providers,
        disabled,
        chain,
        dialer,
        counters: Counters::default(),
    };
    Ok((gateway, notes))
}
