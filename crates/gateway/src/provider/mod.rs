//! A provider that can be spoken to: the row of its kind, its configuration and its key.

mod context;
mod probe;
mod way;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wire::protocol::Protocol;

use crate::cap::Cap;
use crate::catalog::ProviderKind;
use crate::config::{Config, CredentialRef, KeyMode, ProviderConfig};
use crate::credential::{CredentialError, LiveKey, Resolver};
use crate::origin::{BaseUrl, Origin};
use crate::secret::Secret;

pub use context::Contexts;
pub use probe::{Probe, ProbeError, Verdict};

/// Keys of one provider that are used; each is a bit of a number.
const KEYS: usize = 63;

/// A key that is given out for one scheme, host and port only.
#[derive(Clone)]
pub struct BoundKey {
    live: Arc<LiveKey>,
    origin: Origin,
    /// Of its changes, those that somebody has taken notice of.
    seen: Arc<AtomicU32>,
}

impl BoundKey {
    /// Binds the key to where it may go.
    pub fn new(live: LiveKey, origin: Origin) -> Self {
        Self { live: Arc::new(live), origin, seen: Arc::default() }
    }

    /// The key, if this is where it may go and there is one.
    pub fn for_origin(&self, origin: &Origin) -> Option<Arc<Secret>> {
        if self.origin == *origin { self.live.spend() } else { None }
    }

    /// Whether it has become another one since the last call.
    pub fn has_changed(&self) -> bool {
        let changes = self.live.changes();
        self.seen.load(Ordering::Relaxed) != changes && self.seen.swap(changes, Ordering::Relaxed) != changes
    }

    /// What is behind it, as it is now.
    pub fn live(&self) -> &Arc<LiveKey> {
        &self.live
    }
}

impl fmt::Debug for BoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BoundKey(… for {})", self.origin)
    }
}

/// How long each part of an exchange may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Opening a connection.
    pub connect: Duration,
    /// The head of a streaming answer, from the end of the request on.
    pub head: Duration,
    /// Silence within an answer.
    pub idle: Duration,
    /// A whole stream.
    pub max_stream: Duration,
}

/// A provider that is enabled.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its place in the configuration, by which routing knows it.
    pub place: u16,
    /// As the configuration calls it.
    pub name: String,
    /// What it is.
    pub kind: &'static ProviderKind,
    /// The protocol that the configuration forces.
    pub protocol: Option<Protocol>,
    /// Azure: the deployment, which is what its models are called.
    pub deployment: Option<String>,
    /// Azure: the version of its dated API.
    pub api_version: Option<String>,
    /// Ollama: a fixed size of the context.
    pub num_ctx: Option<u64>,
    /// The most tokens of output that its models give, as the configuration says it.
    pub max_output: Option<u64>,
    /// Ollama: what is known of its models' limits.
    pub contexts: Arc<Contexts>,
    /// The models that the configuration names: what may be asked for here.
    pub models: Vec<Box<str>>,
    /// Under which name the price table knows it.
    pub billed_as: Arc<str>,
    /// Where it lives.
    pub base: BaseUrl,
    /// Our own keys for it, in the order in which the configuration refers to them.
    pub keys: Vec<BoundKey>,
    /// Whose key is used.
    pub key_mode: KeyMode,
    /// Added to every request: names in lower case, values that are fit for a header.
    pub headers: Vec<(String, Secret)>,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// Upper limit of tries of one target beside the first.
    pub max_retries: u32,
    /// How many requests it gets at a time.
    pub cap: Arc<Cap>,
}

impl Provider {
    /// All enabled providers, in the order of the configuration.
    pub fn all(config: &Config, resolver: &Resolver) -> Vec<Self> {
        Self::all_after(&[], config, resolver)
    }

    /// The same for a configuration that takes the place of another: keys that it refers to as before are not looked up
    /// again.
    pub fn all_after(before: &[Self], config: &Config, resolver: &Resolver) -> Vec<Self> {
        let at = |(place, provider): (usize, &ProviderConfig)| {
            let before = before.iter().find(|before| before.name == provider.name);
            Self::new(provider, u16::try_from(place).ok()?, resolver, before)
        };
        config.providers.iter().enumerate().filter_map(at).collect()
    }

    /// `None` for a provider that is not enabled. `before` is what it was in an earlier configuration.
    pub fn new(config: &ProviderConfig, place: u16, resolver: &Resolver, before: Option<&Self>) -> Option<Self> {
        let base = config.base_url.clone().filter(|_| config.enabled)?;
        let key = |reference: &CredentialRef| {
            let mut known = before.iter().flat_map(|before| &before.keys);
            let known = known.find(|key| key.live.reference() == Some(reference));
            if let Some(known) =
                known.filter(|key| key.origin == base.origin && key.live.max_age() == config.api_key_ttl)
            {
                return known.clone();
            }
            let live = LiveKey::new(&config.name, reference, config.api_key_ttl, resolver);
            let live = match known {
                Some(known) => live.after(&known.live),
                None => live,
            };
            BoundKey::new(live, base.origin.clone())
        };
        let keys = config.api_keys.iter().take(KEYS).map(key).collect();
        Some(Self {
            place,
            name: config.name.clone(),
            kind: config.kind,
            // A dated deployment has nothing but Chat Completions.
            protocol: config.protocol.or_else(|| config.api_version.as_ref().map(|_| Protocol::OpenAiChat)),
            deployment: config.deployment.clone(),
            api_version: config.api_version.clone(),
            num_ctx: config.num_ctx.map(u64::from),
            max_output: config.max_output.map(u64::from),
            contexts: Arc::default(),
            models: models(config),
            billed_as: config.kind.name.into(),
            base,
            keys,
            key_mode: config.key_mode,
            headers: config.headers.clone(),
            timeouts: Timeouts {
                connect: config.connect_timeout,
                head: config.timeout,
                idle: config.idle_timeout,
                max_stream: config.max_stream,
            },
            max_retries: config.max_retries,
            cap: Arc::new(Cap::new(config.max_concurrent, config.max_queued)),
        })
    }

    /// Whether a request can be sent there: with a key of ours or the caller's, or without one.
    pub fn is_usable(&self) -> bool {
        self.key_mode == KeyMode::Client || self.has_key() || self.kind.keyless && self.keys.is_empty()
    }

    /// Whether there is a key of ours now.
    pub fn has_key(&self) -> bool {
        self.keys.iter().any(|key| key.live.is_known())
    }

    /// One bit for each key of ours that is there now, the first the lowest.
    pub fn known_keys(&self) -> u64 {
        let bits = self.keys.iter().enumerate().map(|(at, key)| u64::from(key.live.is_known()) << at);
        bits.fold(0, |mask, bit| mask | bit)
    }

    /// Why a key cannot be looked up, for each of those that cannot.
    pub fn key_errors(&self) -> impl Iterator<Item = CredentialError> {
        self.keys.iter().filter_map(|key| key.live.error())
    }

    /// Why there is no key, and what to do; `None`: there is no reference to one.
    pub fn why_no_key(&self) -> Option<String> {
        if let Some(error) = self.key_errors().next() {
            return Some(error.to_string());
        }
        Some(match self.keys.first()?.live.reference()? {
            CredentialRef::Env(name) => format!(
                "set `{name}` where the gateway runs, or store it (`cco credentials store {name}`), or send your own key"
            ),
            CredentialRef::Stored(name) => format!("store it (`cco credentials store {name}`), or send your own key"),
            reference => format!("there is nothing behind `{reference}`: send your own key"),
        })
    }
}

fn models(config: &ProviderConfig) -> Vec<Box<str>> {
    // An alias may be a pattern, which nobody can ask for.
    let aliases = config.model_aliases.iter().map(|(asked, _)| asked).filter(|asked| !asked.contains(['*', '?']));
    config.default_model.iter().chain(aliases).map(|name| name.as_str().into()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Env, Paths, parse};

    #[test]
    fn a_key_goes_only_to_its_scheme_host_and_port() {
        let origin = |url: &str| url.parse::<BaseUrl>().unwrap().origin;
        let resolver = Resolver::new(Env::fixed([("A", "sk-ant-api03-abcdefgh")]));
        let live = LiveKey::new("a", &"env:A".parse().unwrap(), Duration::ZERO, &resolver);
        let key = BoundKey::new(live, origin("https://api.example.org/v1"));
        assert!(key.for_origin(&origin("https://API.example.org:443/other")).is_some());
        for other in [
            "http://api.example.org:443",
            "https://api.example.org:444",
            "https://example.org",
            "https://api.example.org.evil.test",
            "https://api.example.org.",
        ] {
            assert_eq!(key.for_origin(&origin(other)), None, "{other}");
        }
        assert_eq!(format!("{key:?}"), "BoundKey(… for https://api.example.org)");
    }

    #[test]
    #[cfg(unix)]
    fn a_reload_throws_no_good_key_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("key");
        let write = |key: &str| {
            std::fs::write(&file, key).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        let all = |before: &[Provider], more: &str| {
            let path = file.to_str().unwrap();
            let text = format!(r#"{{ "providers": {{ "anthropic": {{ "apiKeyRef": "file:{path}"{more} }} }} }}"#);
            let (config, _) = parse(&text, &Paths::default()).unwrap();
            Provider::all_after(before, &config, &Resolver::new(Env::fixed([] as [(&str, &str); 0])))
        };
        let key = |all: &[Provider]| all[0].keys[0].live.get().map(|key| key.expose().to_owned());
        write("sk-ant-api03-first");
        let first = all(&[], "");
        assert_eq!(key(&first).as_deref(), Some("sk-ant-api03-first"));
        std::fs::remove_file(&file).unwrap();
        // What is referred to as before is not looked up again; where it is, what was found stays.
        let same = all(&first, r#", "timeoutSecs": 7"#);
        assert!(Arc::ptr_eq(&same[0].keys[0].live, &first[0].keys[0].live));
        let other = all(&same, r#", "apiKeyTtlSecs": 77"#);
        assert_eq!(key(&other).as_deref(), Some("sk-ant-api03-first"));
        assert!(other[0].key_errors().next().is_some() && !other[0].keys[0].has_changed());
        // Another key in its place is known as another one: what was held against the first does not count.
        write("sk-ant-api03-second");
        let second = all(&other, r#", "apiKeyTtlSecs": 78"#);
        assert_eq!(key(&second).as_deref(), Some("sk-ant-api03-second"));
        assert!(second[0].keys[0].has_changed() && !second[0].keys[0].has_changed());
        // A key is never taken along to another address.
        let elsewhere = all(&second, r#", "baseUrl": "https://other.test""#);
        assert!(!Arc::ptr_eq(&elsewhere[0].keys[0].live, &second[0].keys[0].live));
    }

    #[test]
    fn a_provider_joins_row_configuration_and_key() {
        let text = r#"{ "providers": {
            "anthropic": { "timeoutSecs": 7, "headers": { "X-Team": "a" } },
            "local": { "providerType": "anthropic-compatible", "baseUrl": "http://127.0.0.1:1/x/", "apiKeyRef": "" },
            "file": { "providerType": "anthropic", "apiKeyRef": "file:/does/not/exist", "apiKeyMode": "stored" },
            "off": { "providerType": "anthropic", "enabled": false }
        } }"#;
        let (config, _) = parse(text, &Paths::default()).unwrap();
        let resolver = Resolver::new(Env::fixed([("ANTHROPIC_API_KEY", "sk-ant-api03-abcdefgh")]));
        let providers = Provider::all(&config, &resolver);
        let [anthropic, local, file] = &providers[..] else { panic!("{providers:?}") };
        assert_eq!(anthropic.base.to_string(), "https://api.anthropic.com");
        assert_eq!(anthropic.timeouts.head, Duration::from_secs(7));
        assert_eq!(anthropic.headers, [("x-team".to_string(), Secret::new("a"))]);
        let key = &anthropic.keys[0];
        assert_eq!(key.for_origin(&anthropic.base.origin).unwrap().expose(), "sk-ant-api03-abcdefgh");
        assert_eq!(key.for_origin(&local.base.origin), None);
        assert_eq!((local.base.path.as_str(), local.has_key(), local.why_no_key()), ("/x", false, None));
        assert!(anthropic.has_key() && !file.has_key());
        assert!(file.why_no_key().unwrap().contains("does not exist"));
        assert_eq!(file.key_mode, KeyMode::Stored);
        assert!(!format!("{providers:?}").contains("abcdefgh"));
    }
}
