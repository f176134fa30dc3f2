//! The content of the certificate and key files, as it was when the configuration was loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use super::acme::Secret;
use super::tls::CertificateFiles;
use crate::certificate::{CertWarning, Certificate, Identity, RevocationLists};

/// What the files for TLS held when the configuration was loaded. Empty where only its text was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// The servers' certificates.
    pub certificates: BTreeMap<CertificateFiles, Certificate>,
    /// What peers are shown.
    pub identities: BTreeMap<CertificateFiles, Identity>,
    /// The issuers of the clients' certificates, and of the peers'.
    pub issuers: BTreeMap<PathBuf, Vec<CertificateDer<'static>>>,
    /// What they have revoked.
    pub crls: BTreeMap<PathBuf, RevocationLists>,
    /// The key of [`ExternalAccount`](super::ExternalAccount).
    pub external_account: Option<Secret>,
}

impl Credentials {
    /// What there is to say of them at this time (seconds since 1970), each with its file.
    pub fn warnings(&self, now: i64) -> impl Iterator<Item = (&Path, CertWarning)> {
        let shown = self.identities.iter();
        let shown = shown.map(|(files, identity)| (files, &identity.certificate));
        let certificates = self.certificates.iter().chain(shown);
        let certificates = certificates.flat_map(move |(files, read)| {
            let concerns = read.warnings(now);
            concerns.map(|concern| (files.file_for(concern.file()), concern))
        });
        let crls = self.crls.iter();
        let crls = crls.filter_map(move |(file, read)| Some((file.as_path(), read.warning(now)?)));
        certificates.chain(crls)
    }
}
