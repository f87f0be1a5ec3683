//! Through which proxy upstreams are reached.

use super::env::Env;
use super::keys::Network;
use crate::net::{BadProxy, Proxy, ProxyUrl};

/// The key `network.proxy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxySetting {
    /// `"none"`: directly.
    None,
    /// `"env"`: as `HTTPS_PROXY` and `NO_PROXY` say.
    Env,
    /// Through this one, always.
    Url(ProxyUrl),
}

impl Network {
    /// The setting with what the environment says put in, where that is asked for.
    pub fn proxy(&self, env: &Env) -> Result<Proxy, BadProxy> {
        match &self.proxy {
            ProxySetting::None => Ok(Proxy::None),
            ProxySetting::Env => Proxy::parse("env", &env.proxies()),
            ProxySetting::Url(url) => Ok(Proxy::Always(url.clone())),
        }
    }
}
