//! The content of the certificate and key files, as it was when the configuration was loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::acme::Secret;
use super::tls::CertificateFiles;
use crate::certificate::{CertWarning, Certificate, Identity, RevocationLists};

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
    /// The key of the [`ExternalAccountBinding`](super::ExternalAccountBinding).
    pub external_account: Option<Secret>,
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
