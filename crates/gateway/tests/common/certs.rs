//! A certificate authority for one test.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gateway::net::ExtraRoots;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// When a certificate is valid, seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// From yesterday until tomorrow.
    Now,
    /// Until yesterday.
    Expired,
    /// From tomorrow on.
    NotYet,
}

/// An authority that signs server certificates.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    /// A new authority; no machine trusts it.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate, as it would stand in `network.caFile`.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The same, ready for `net::Settings`.
    pub fn roots(&self) -> Option<ExtraRoots> {
        Some(ExtraRoots::parse(self.pem().as_bytes()).unwrap())
    }

    /// A server's certificate and key for some names or addresses.
    pub fn server(&self, names: &[&str], valid: Valid) -> ServerCert {
        const DAY: Duration = Duration::from_secs(86_400);
        let now = SystemTime::now();
        let (from, until) = match valid {
            Valid::Now => (now - DAY, now + DAY),
            Valid::Expired => (now - 3 * DAY, now - DAY),
            Valid::NotYet => (now + DAY, now + 3 * DAY),
        };
        let mut params = params(names);
        (params.not_before, params.not_after) = (from.into(), until.into());
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        ServerCert::of(&cert, &key)
    }
}

fn params(names: &[&str]) -> CertificateParams {
    CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// What a TLS server needs.
#[derive(Clone)]
pub struct ServerCert {
    /// The certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// The protocols that the server offers.
    pub alpn: Vec<Vec<u8>>,
}

impl ServerCert {
    /// A certificate that no authority signed, and its PEM text.
    pub fn self_signed(names: &[&str]) -> (Self, String) {
        let key = KeyPair::generate().unwrap();
        let cert = params(names).self_signed(&key).unwrap();
        (Self::of(&cert, &key), cert.pem())
    }

    fn of(cert: &Certificate, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Self { chain: vec![cert.der().clone()], key: Arc::new(key), alpn: vec![b"http/1.1".to_vec()] }
    }

    /// Accepts TLS 1.2 and 1.3 with it.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_for(&[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// Accepts only these versions.
    pub fn acceptor_for(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols.clone_from(&self.alpn);
        TlsAcceptor::from(Arc::new(config))
    }
}
