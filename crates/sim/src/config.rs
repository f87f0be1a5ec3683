//! What a simulator is told before it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::script::Script;

/// The settings of one simulator. `SimConfig::default()` listens on a free port of the loopback, wants no key and
/// answers every prompt.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Where [`crate::Sim::bind`] listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The file to which every received request is appended, one JSON line each (see [`crate::HELP`]).
    pub journal: Option<PathBuf>,
    /// Whether the lines of `journal` hold the request bodies. The journal in memory always does.
    pub journal_bodies: bool,
    /// Whether the lines of `journal` hold credentials as they came. Otherwise they hold `sha256:` and the digest of the
    /// value, so that two can be compared. The journal in memory always holds them as they came.
    pub journal_secrets: bool,
    /// What is done where neither a queued script, a header nor a marker says something.
    pub default: Script,
    /// `default` goes for the first so many requests under `/v1/` only; `None` = for all.
    pub default_for: Option<u64>,
    /// The folder from which `raw=NAME` replays files.
    pub transcripts: Option<PathBuf>,
    /// Requests under `/v1/` without a credential get a 401.
    pub require_key: bool,
    /// If not empty, only these credentials are right; any other gets a 401.
    pub keys: Vec<String>,
    /// Whether answers say that they are simulated, in [`crate::SIMULATED`]: then a gateway counts them as what they are.
    /// Whoever tests what a real provider would cost leaves it out.
    pub says_so: bool,
    /// Models that `GET /v1/models` does not list get a 404.
    pub known_models_only: bool,
    /// The origin in `results_url` of a batch; `None` = `http://` and the `Host` of the request.
    pub origin: Option<String>,
    /// How many requests the journal in memory keeps. Older ones fall out and are counted.
    pub keep_requests: usize,
    /// How many bytes of request bodies the journal in memory keeps, all together.
    pub keep_bytes: usize,
    /// The longest body of a generation request; a longer one gets a 413. The provider's limit is 32 MB.
    pub max_body: u64,
    /// How many connections are served at a time; further ones wait to be accepted.
    pub max_connections: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            journal: None,
            journal_bodies: false,
            journal_secrets: false,
            default: Script::default(),
            default_for: None,
            transcripts: None,
            require_key: false,
            keys: Vec::new(),
            says_so: false,
            known_models_only: false,
            origin: None,
            keep_requests: 4096,
            keep_bytes: 256 << 20,
            max_body: 32 << 20,
            max_connections: 1024,
        }
    }
}
