//! TLS of a listener: certificates, versions, client authentication, HSTS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::acme::DomainNames;
use crate::certificate::CertFile;

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates, chosen by server name (SNI); at least one, the first is the default.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Limit for the whole handshake; above zero.
    pub handshake_timeout: Duration,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Client certificates; `None`: not requested.
    pub client_auth: Option<ClientAuthConfig>,
    /// `Strict-Transport-Security` (RFC 6797) of every response; `None`: the peers' header is passed on.
    pub hsts: Option<HstsConfig>,
}

impl TlsConfig {
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Files(files) => Some(files),
            CertificateSource::Acme(_) => None,
        });
        let certificates = files.flat_map(|files| {
            let ocsp = files.ocsp.as_deref();
            [files.cert.as_path(), &files.key].into_iter().chain(ocsp)
        });
        let clients = self.client_auth.iter();
        let clients = clients.flat_map(|auth| [Some(auth.ca.as_path()), auth.crl.as_deref()]);
        certificates.chain(clients.flatten())
    }
}

/// Values of the `Strict-Transport-Security` header (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HstsConfig {
    /// How long a browser uses HTTPS only, counted from each response; zero ends it.
    pub max_age: Duration,
    /// `includeSubDomains`.
    pub subdomains: bool,
    /// `preload`.
    pub preload: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    Tls12,
    /// 1.3 (RFC 8446).
    Tls13,
}

/// The source of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// Files of the operator.
    Files(CertificateFiles),
    /// Ordered for these names by ACME ([`Config::acme`](super::Config::acme)).
    Acme(DomainNames),
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// PEM: the server's certificate, then those of its issuers.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// DER: an OCSP response that is stapled (RFC 6066, 8); `None`: no stapling.
    pub ocsp: Option<PathBuf>,
}

impl CertificateFiles {
    /// The file that holds `part`; the certificate's for an OCSP response without a file of its own.
    pub(super) fn file_for(&self, part: CertFile) -> &Path {
        match part {
            CertFile::Key => &self.key,
            CertFile::Ocsp => self.ocsp.as_ref().unwrap_or(&self.cert),
            CertFile::Chain => &self.cert,
        }
    }
}

/// Client certificates: which are requested, and how they are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthConfig {
    /// Whether a handshake without a certificate fails.
    pub required: bool,
    /// PEM: the issuers that are trusted.
    pub ca: PathBuf,
    /// PEM: their revocation lists; `None`: revocation is not checked.
    pub crl: Option<PathBuf>,
}
