//! TLS towards clients: what a listener's handshakes are made with. Towards peers: [`Client`].
//!
//! A [`Server`] is one listener's terms, built anew with every configuration from what its files
//! held then; connections keep the terms they were accepted with. The sockets are not here: the
//! handshake itself is [`connection`](crate::downstream)'s.

mod managed_certs;
mod resolver;
mod ticket_expiry;
mod tickets;
mod upstream_tls;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::crypto::ring::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets};
use rustls::{ConfigBuilder, ServerConfig, SupportedProtocolVersion, WantsVerifier, version};

pub use self::managed_certs::{
    CertAction, CertRequest, CertStatus, ChallengeGuard, ManagedCert, ManagedCerts,
    SharedChallenges,
};
pub use self::tickets::{SessionTickets, TicketKeys};
pub use self::upstream_tls::{UpstreamTls, classify_error, describe_failure};

use self::resolver::{CertResolver, ServedCert};
use crate::certificate;
use crate::config::{
    CertificateSource, ClientAuthConfig, Credentials, HstsConfig, TlsConfig, TlsVersion,
};

/// The name of HTTP/2 inside (RFC 9113, 3.1).
pub const ALPN_H2: &[u8] = b"h2";

/// What a client may speak inside, dearest first (RFC 7301).
const HTTP_PROTOCOLS: [&[u8]; 2] = [ALPN_H2, b"http/1.1"];

/// What a certificate authority speaks to see who is here (RFC 8737, 6.2): nothing, once it has seen.
pub const ALPN_ACME: &[u8] = b"acme-tls/1";

/// One listener's TLS.
#[derive(Debug)]
pub struct ListenerTls {
    config: HandshakeConfig,
    /// How long one may take in all.
    pub handshake_timeout: Duration,
    /// Clients are asked for a certificate.
    pub requests_client_cert: bool,
    /// `Strict-Transport-Security`, where responses have it from us.
    pub hsts: Option<HeaderValue>,
}

/// What handshakes are made with.
#[derive(Debug)]
enum HandshakeConfig {
    /// All with the same.
    Shared(Arc<ServerConfig>),
    /// Each with its own, by which its client's certificate is judged: see [`validity`].
    PerConnection(Box<ConfigTemplate>, Arc<dyn ClientCertVerifier>),
}

/// What all handshakes have in common.
#[derive(Debug)]
struct ConfigTemplate {
    builder: ConfigBuilder<ServerConfig, WantsVerifier>,
    resolver: Arc<CertResolver>,
    protocols: Vec<Vec<u8>>,
    tickets: Arc<dyn ProducesTickets>,
}

impl ConfigTemplate {
    fn build(
        &self,
        judge: Arc<dyn ClientCertVerifier>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Arc<ServerConfig> {
        let begun = self.builder.clone().with_client_cert_verifier(judge);
        let resolver = Arc::clone(&self.resolver);
        let mut config = begun.with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&self.protocols);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        Arc::new(config)
    }
}

/// Why a listener's TLS, or an upstream's, cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file was not read with the configuration.
    #[error("`{0}` was not read")]
    NotRead(String),
    /// The files are right one by one, but not together.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A certificate of a file cannot be read.
    #[error("certificate {0} of a file is not readable")]
    Unreadable(usize),
    /// A kind of private key that was unknown when this was built.
    #[error("this kind of private key is not supported")]
    UnknownKey,
    /// The clients' certificates cannot be judged by these files.
    #[error(transparent)]
    Verifier(#[from] certificate::VerifierError),
}

impl ListenerTls {
    /// A listener's TLS, with what its files held when the configuration was loaded.
    ///
    /// # Errors
    /// [`Error`]; none is to be expected of a configuration that was loaded.
    pub fn new(
        tls: &TlsConfig,
        credentials: &Credentials,
        tickets: &Arc<SessionTickets>,
        issued: &Arc<ManagedCerts>,
    ) -> Result<Self, Error> {
        let open = |source: &CertificateSource| match source {
            CertificateSource::Files(files) => {
                let read = credentials.certificates.get(files).cloned();
                let read = read.map(|read| ServedCert::Files(Arc::new(read)));
                read.ok_or_else(|| Error::NotRead(files.cert.display().to_string()))
            }
            CertificateSource::Acme(names) => Ok(ServedCert::Managed(issued.get_or_insert(names))),
        };
        let certificates: Result<Vec<_>, _> = tls.certificates.iter().map(open).collect();
        let auth = tls.client_auth.as_ref();
        let terms = ConfigTemplate {
            builder: ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(versions(tls.min_version))?,
            resolver: Arc::new(CertResolver::new(certificates?, Arc::clone(issued))),
            protocols: alpn_protocols(tls),
            tickets: SessionTickets::scoped(tickets, &ticket_scope(auth, credentials)),
        };
        let handshakes = if let Some(auth) = auth {
            HandshakeConfig::PerConnection(Box::new(terms), client_verifier(auth, credentials)?)
        } else {
            let tickets = Arc::clone(&terms.tickets);
            HandshakeConfig::Shared(terms.build(Arc::new(NoClientAuth), tickets))
        };
        Ok(Self {
            config: handshakes,
            handshake_timeout: tls.handshake_timeout,
            requests_client_cert: auth.is_some(),
            hsts: tls.hsts.and_then(hsts_value),
        })
    }

    /// For the handshake of one connection.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        match &self.config {
            HandshakeConfig::Shared(config) => Arc::clone(config),
            HandshakeConfig::PerConnection(terms, judge) => {
                let (judge, tickets) = ticket_expiry::per_connection(judge, &terms.tickets);
                terms.build(judge, tickets)
            }
        }
    }
}

fn alpn_protocols(tls: &TlsConfig) -> Vec<Vec<u8>> {
    let ordered = |source: &CertificateSource| matches!(source, CertificateSource::Acme(_));
    let acme = tls.certificates.iter().any(ordered).then_some(ALPN_ACME);
    let spoken = HTTP_PROTOCOLS
        .into_iter()
        .filter(|&one| tls.http2 || one != ALPN_H2);
    spoken.chain(acme).map(<[u8]>::to_vec).collect()
}

/// RFC 6797, 6.1.
fn hsts_value(hsts: HstsConfig) -> Option<HeaderValue> {
    let subdomains = if hsts.subdomains {
        "; includeSubDomains"
    } else {
        ""
    };
    let preload = if hsts.preload { "; preload" } else { "" };
    let seconds = hsts.max_age.as_secs();
    format!("max-age={seconds}{subdomains}{preload}")
        .try_into()
        .ok()
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static NEW: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match least {
        TlsVersion::Tls12 => &ALL,
        TlsVersion::Tls13 => &NEW,
    }
}

fn client_verifier(
    auth: &ClientAuthConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let unread = || Error::NotRead(auth.ca.display().to_string());
    let issuers = credentials.issuers.get(&auth.ca).ok_or_else(unread)?;
    let revoked = match &auth.crl {
        Some(file) => &credentials.crls.get(file).ok_or_else(unread)?.lists[..],
        None => &[],
    };
    Ok(certificate::client_verifier(
        issuers,
        revoked,
        auth.required,
    )?)
}

/// A resumed session skips the judgement of the client's certificate: it counts only where, and as
/// long as, the same judgement would be made; as to its end, see [`validity`].
fn ticket_scope(auth: Option<&ClientAuthConfig>, credentials: &Credentials) -> Vec<u8> {
    let Some(auth) = auth else { return Vec::new() };
    // 1 were the scopes of tickets that had no date.
    let mut scope = vec![2, u8::from(auth.required)];
    for issuer in credentials.issuers.get(&auth.ca).into_iter().flatten() {
        scope.extend_from_slice(issuer);
    }
    for crl in auth
        .crl
        .iter()
        .filter_map(|file| credentials.crls.get(file))
        .flat_map(|revoked| &revoked.lists)
    {
        scope.extend_from_slice(crl);
    }
    scope
}
