//! Certificates and keys: where they come from, and their content when the configuration was loaded.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::DomainNames;
use crate::certificate::{CertFile, CertWarning, Certificate, Identity, RevocationLists};

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
    /// DER: an OCSP response that is stapled (RFC 6066 §8); `None`: no stapling.
    pub ocsp: Option<PathBuf>,
}

impl CertificateFiles {
    /// The file that holds `part`; the certificate's for an OCSP response without a file of its own.
    fn file_for(&self, part: CertFile) -> &Path {
        match part {
            CertFile::Key => &self.key,
            CertFile::Ocsp => self.ocsp.as_ref().unwrap_or(&self.cert),
            CertFile::Chain => &self.cert,
        }
    }
}

/// The content of the certificate and key files when the configuration was loaded; empty if only its
/// text was parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// Certificates of the listeners, with their keys.
    pub certificates: BTreeMap<CertificateFiles, Certificate>,
    /// Client certificates for peers, with their keys.
    pub identities: BTreeMap<CertificateFiles, Identity>,
    /// Trusted issuers of clients, peers and ACME servers, by file.
    pub issuers: BTreeMap<PathBuf, Vec<CertificateDer<'static>>>,
    /// Revocation lists of client certificates, by file.
    pub crls: BTreeMap<PathBuf, RevocationLists>,
    /// The key of the [`ExternalAccountBinding`](super::acme::ExternalAccountBinding).
    pub external_account: Option<Secret>,
    /// The password of the [`EtcdLogin`](super::etcd::EtcdLogin).
    pub etcd_password: Option<Secret>,
}

impl Credentials {
    /// The warnings at `now` (seconds since 1970), each with its file.
    pub fn warnings(&self, now: i64) -> impl Iterator<Item = (&Path, CertWarning)> {
        let identities = self.identities.iter();
        let identities = identities.map(|(files, identity)| (files, &identity.certificate));
        let certificates = self.certificates.iter().chain(identities);
        let certificates = certificates.flat_map(move |(files, read)| {
            let warnings = read.warnings(now);
            warnings.map(|warning| (files.file_for(warning.file()), warning))
        });
        let crls = self.crls.iter();
        let crls = crls.filter_map(move |(file, read)| Some((file.as_path(), read.warning(now)?)));
        certificates.chain(crls)
    }
}

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
