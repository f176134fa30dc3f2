//! TLS configuration: [`ListenerTls`] for clients, [`UpstreamTls`] for peers.
//!
//! A [`ListenerTls`] is built for every configuration, from the files as they were read with it; a connection
//! keeps the one that it was accepted with. The handshake itself is in [`downstream`](crate::downstream).

mod alpn;
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

pub(crate) use self::alpn::{ALPN_ACME, ALPN_H2};
pub(crate) use self::managed_certs::{
    CertAction, CertRequest, CertStatus, ChallengeGuard, ManagedCert, ManagedCerts,
    SharedChallenges,
};
pub(crate) use self::tickets::{SessionTickets, TicketKeys};
pub(crate) use self::upstream_tls::{UpstreamTls, classify_error, describe_failure};

use self::resolver::{CertResolver, ServedCert};
use crate::certificate;
use crate::config::{
    CertificateSource, ClientAuthConfig, Credentials, HstsConfig, TlsConfig, TlsVersion,
};

/// The protocols for clients, in order of preference (RFC 7301).
const HTTP_PROTOCOLS: [&[u8]; 2] = [ALPN_H2, b"http/1.1"];

/// The TLS settings of one listener.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    config: HandshakeConfig,
    /// The limit on the duration of a handshake.
    pub handshake_timeout: Duration,
    /// Whether the handshake requests a client certificate.
    pub requests_client_cert: bool,
    /// The value of `Strict-Transport-Security`, if the proxy sets it.
    pub hsts: Option<HeaderValue>,
}

/// The rustls configuration of handshakes.
#[derive(Debug)]
enum HandshakeConfig {
    /// The same for all handshakes.
    Shared(Arc<ServerConfig>),
    /// One per connection, so that tickets expire with the client certificate: see [`ticket_expiry`].
    PerConnection(Box<ConfigTemplate>, Arc<dyn ClientCertVerifier>),
}

/// The part of the configuration that all handshakes share.
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
        verifier: Arc<dyn ClientCertVerifier>,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Arc<ServerConfig> {
        let builder = self.builder.clone().with_client_cert_verifier(verifier);
        let resolver = Arc::clone(&self.resolver);
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&self.protocols);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets;
        Arc::new(config)
    }
}

/// Why TLS cannot be set up for a listener or an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file was not read with the configuration: a bug of the program.
    #[error("the file `{0}` was not read with the configuration")]
    NotRead(String),
    /// rustls rejects the combination of files.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A certificate of a file cannot be parsed.
    #[error("certificate {0} of a file cannot be parsed")]
    Unreadable(usize),
    /// The private key has a format that this program does not support.
    #[error("this kind of private key is not supported")]
    UnknownKey,
    /// The verifier of client certificates cannot be built.
    #[error(transparent)]
    Verifier(#[from] certificate::VerifierError),
}

impl ListenerTls {
    /// Builds the TLS settings of a listener from the files that were read with the configuration.
    ///
    /// # Errors
    /// [`Error`]; not expected for a configuration that has passed its checks.
    pub(crate) fn new(
        tls: &TlsConfig,
        credentials: &Credentials,
        tickets: &Arc<SessionTickets>,
        managed_certs: &Arc<ManagedCerts>,
    ) -> Result<Self, Error> {
        let load = |source: &CertificateSource| match source {
            CertificateSource::Files(files) => {
                let read = credentials.certificates.get(files).cloned();
                let read = read.map(|read| ServedCert::Files(Arc::new(read)));
                read.ok_or_else(|| Error::NotRead(files.cert.display().to_string()))
            }
            CertificateSource::Acme(names) => {
                Ok(ServedCert::Managed(managed_certs.get_or_insert(names)))
            }
        };
        let certificates: Result<Vec<_>, _> = tls.certificates.iter().map(load).collect();
        let auth = tls.client_auth.as_ref();
        let template = ConfigTemplate {
            builder: ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_protocol_versions(versions(tls.min_version))?,
            resolver: Arc::new(CertResolver::new(certificates?, Arc::clone(managed_certs))),
            protocols: alpn_protocols(tls),
            tickets: SessionTickets::scoped(tickets, &ticket_scope(auth, credentials)),
        };
        let config = if let Some(auth) = auth {
            HandshakeConfig::PerConnection(Box::new(template), client_verifier(auth, credentials)?)
        } else {
            let tickets = Arc::clone(&template.tickets);
            HandshakeConfig::Shared(template.build(Arc::new(NoClientAuth), tickets))
        };
        Ok(Self {
            config,
            handshake_timeout: tls.handshake_timeout,
            requests_client_cert: auth.is_some(),
            hsts: tls.hsts.and_then(hsts_value),
        })
    }

    /// The configuration for the handshake of one connection.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        match &self.config {
            HandshakeConfig::Shared(config) => Arc::clone(config),
            HandshakeConfig::PerConnection(template, verifier) => {
                let (verifier, tickets) =
                    ticket_expiry::per_connection(verifier, &template.tickets);
                template.build(verifier, tickets)
            }
        }
    }
}

fn alpn_protocols(tls: &TlsConfig) -> Vec<Vec<u8>> {
    let is_acme = |source: &CertificateSource| matches!(source, CertificateSource::Acme(_));
    let acme = tls.certificates.iter().any(is_acme).then_some(ALPN_ACME);
    let offered = HTTP_PROTOCOLS
        .into_iter()
        .filter(|&protocol| tls.http2 || protocol != ALPN_H2);
    offered.chain(acme).map(<[u8]>::to_vec).collect()
}

/// The value of `Strict-Transport-Security` (RFC 6797 §6.1).
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

fn versions(min_version: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static NEW: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match min_version {
        TlsVersion::Tls12 => &ALL,
        TlsVersion::Tls13 => &NEW,
    }
}

fn client_verifier(
    auth: &ClientAuthConfig,
    credentials: &Credentials,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let not_read = || Error::NotRead(auth.ca.display().to_string());
    let issuers = credentials.issuers.get(&auth.ca).ok_or_else(not_read)?;
    let revoked = match &auth.crl {
        Some(file) => &credentials.crls.get(file).ok_or_else(not_read)?.lists[..],
        None => &[],
    };
    Ok(certificate::client_verifier(
        issuers,
        revoked,
        auth.required,
    )?)
}

/// The bytes that bind tickets to the rules for client certificates. A resumed session skips the
/// verification, so a ticket must be valid only in listeners with the same rules. For the expiry of the
/// certificate see [`ticket_expiry`].
fn ticket_scope(auth: Option<&ClientAuthConfig>, credentials: &Credentials) -> Vec<u8> {
    let Some(auth) = auth else { return Vec::new() };
    // Version 2: tickets with an expiry. Version 1 had none.
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
