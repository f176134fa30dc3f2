//! TLS of a listener: certificates, versions, client authentication, HSTS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::acme::DomainNames;
use crate::certificate::CertFile;

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// What a client may be shown, by the name it asks for; at least one, the first for all others.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take in all; above zero.
    pub handshake_timeout: Duration,
    /// Clients may speak HTTP/2 inside.
    pub http2: bool,
    /// Clients are asked for a certificate; `None`: they are not.
    pub client_auth: Option<ClientAuthConfig>,
    /// `Strict-Transport-Security` (RFC 6797) in every response; `None`: what the peers send.
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

/// For how long browsers ask for nothing but HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HstsConfig {
    /// From each response on; zero ends it.
    pub max_age: Duration,
    /// Also for all names below.
    pub subdomains: bool,
    /// May be built into browsers.
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

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The operator has put it there.
    Files(CertificateFiles),
    /// It is ordered for these names ([`Config::acme`]).
    Acme(DomainNames),
}

/// Where a certificate lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// PEM: the server's certificate, then those of its issuers.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// DER: an OCSP response that is sent along (RFC 6066, 8); `None`: none is.
    pub ocsp: Option<PathBuf>,
}

impl CertificateFiles {
    /// The file of a part; of an OCSP response that there is none of, the certificate's.
    pub(super) fn file_for(&self, part: CertFile) -> &Path {
        match part {
            CertFile::Key => &self.key,
            CertFile::Ocsp => self.ocsp.as_ref().unwrap_or(&self.cert),
            CertFile::Chain => &self.cert,
        }
    }
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthConfig {
    /// A client without a certificate is turned away.
    pub required: bool,
    /// PEM: the issuers whose certificates count.
    pub ca: PathBuf,
    /// PEM: what they have revoked; `None`: nothing is looked up.
    pub crl: Option<PathBuf>,
}
