//! TLS towards upstreams: which authorities are trusted, and one configuration that every connection shares.
//!
//! The system's roots are read as certificates (`rustls-native-certs`) and checked by rustls on every platform, rather
//! than handing each check to the operating system: the causes of a refusal are then the same everywhere, and no
//! handshake waits in a blocking system call. What a company adds to the system's store is found either way.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{Cause, Fault};
use super::stream::Io;

/// A larger file of roots is a mistake.
const MAX_PEM: u64 = 16 << 20;
/// Sessions that are remembered for resumption, over all upstreams.
const SESSIONS: usize = 256;

/// Certificate authorities that are trusted beside the system's (`network.caFile`).
#[derive(Clone)]
pub struct ExtraRoots(Vec<CertificateDer<'static>>);

impl ExtraRoots {
    /// Takes every certificate of a PEM text; each must be usable, and there must be one.
    pub fn parse(pem: &[u8]) -> Result<Self, BadRoots> {
        let certs = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| BadRoots(format!("not valid PEM ({e})")))?;
        if certs.is_empty() {
            return Err(BadRoots("no `BEGIN CERTIFICATE` in it, write the authority's certificate as PEM".into()));
        }
        let mut store = RootCertStore::empty();
        for (n, cert) in certs.iter().enumerate() {
            let bad = |e| BadRoots(format!("certificate {} of {} cannot be used ({e})", n + 1, certs.len()));
            store.add(cert.clone()).map_err(bad)?;
        }
        Ok(Self(certs))
    }

    /// Reads and takes a PEM file.
    pub fn read(path: &Path) -> Result<Self, BadRoots> {
        use io::Read;
        let mut pem = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut pem));
        match read {
            Err(e) => Err(BadRoots(format!("cannot be read ({e})"))),
            Ok(n) if n as u64 > MAX_PEM => Err(BadRoots("larger than 16 MB".into())),
            Ok(_) => Self::parse(&pem),
        }
    }

    /// How many authorities these are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for ExtraRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExtraRoots({})", self.0.len())
    }
}

/// Why a text holds no authorities: the end of a sentence that began with the file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRoots(pub String);

impl fmt::Display for BadRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadRoots {}

/// Where the system's authorities come from; called once, on a thread that may block.
pub type SystemRoots = fn() -> Vec<CertificateDer<'static>>;

/// What the operating system trusts; what it cannot read is left out.
pub(super) fn system_roots() -> Vec<CertificateDer<'static>> {
    let loaded = rustls_native_certs::load_native_certs();
    if !loaded.errors.is_empty() {
        tracing::warn!(errors = loaded.errors.len(), first = %loaded.errors[0], "some system roots could not be read");
    }
    loaded.certs
}

/// The client side of TLS, made when it is first needed: who has plain upstreams only never pays for it.
pub(super) struct Tls {
    extra: Option<ExtraRoots>,
    system: SystemRoots,
    made: OnceCell<TlsConnector>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("extra", &self.extra).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(extra: Option<ExtraRoots>, system: SystemRoots) -> Self {
        Self { extra, system, made: OnceCell::new() }
    }

    /// The shared configuration. A failure is not remembered: the roots may be installed while we run.
    pub(super) async fn connector(&self) -> Result<&TlsConnector, Fault> {
        self.made
            .get_or_try_init(|| async {
                let (extra, system) = (self.extra.clone(), self.system);
                let made = tokio::task::spawn_blocking(move || config(extra.as_ref(), system));
                let config = made.await.map_err(|e| Fault::new(Cause::TlsProtocol, e))??;
                Ok(TlsConnector::from(Arc::new(config)))
            })
            .await
    }

    /// Shakes hands over a connection with the host that it should lead to.
    pub(super) async fn handshake<S: Io>(&self, host: &str, io: S) -> Result<TlsStream<S>, Fault> {
        let connector = self.connector().await?;
        let bad = |_| Fault::new(Cause::CertificateWrongName, format_args!("`{host}` cannot stand in a certificate"));
        let name = ServerName::try_from(host.to_owned()).map_err(bad)?;
        connector.connect(name, io).await.map_err(|e| Fault::from_handshake(&e))
    }
}

fn config(extra: Option<&ExtraRoots>, system: SystemRoots) -> Result<ClientConfig, Fault> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(system());
    roots.add_parsable_certificates(extra.into_iter().flat_map(|extra| extra.0.iter().cloned()));
    if roots.is_empty() {
        return Err(Fault::new(Cause::NoRoots, ""));
    }
    // Passed in rather than installed for the process: nothing depends on what ran before.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has suites for both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused_with_the_reason() {
        let why = |pem: &[u8]| ExtraRoots::parse(pem).unwrap_err().0;
        assert!(why(b"").contains("no `BEGIN CERTIFICATE`"));
        assert!(why(b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n").contains("not valid PEM"));
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(why(junk.as_bytes()).contains("certificate 1 of 1"));
        assert!(ExtraRoots::read(Path::new("/does/not/exist")).unwrap_err().0.contains("cannot be read"));
    }

    #[tokio::test]
    async fn without_any_authority_the_message_says_what_to_install() {
        let tls = Tls::new(None, Vec::new);
        let fault = tls.connector().await.err().unwrap();
        assert_eq!(fault.cause, Cause::NoRoots);
        assert!(fault.cause.remedy().contains("ca-certificates"));
    }
}
