//! Logs the certificates that need the operator's attention.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::certificate::CertWarning;
use crate::clock;
use crate::config::Config;
use crate::tls::ManagedCerts;

/// The warnings that were logged since the last reload, by file or certificate name.
#[derive(Debug, Default)]
pub(super) struct LoggedCertWarnings(BTreeSet<(PathBuf, CertWarning)>);

impl LoggedCertWarnings {
    /// Logs each warning that was not logged yet.
    pub(super) fn log_new(&mut self, config: &Config, managed_certs: &ManagedCerts) {
        let now = clock::wall().as_second();
        let of_files = config.credentials.warnings(now);
        let of_files = of_files.map(|(file, warning)| (file.to_owned(), warning));
        let of_managed = managed_certs
            .warnings(config.acme_certificate_names(), now)
            .into_iter();
        let of_managed = of_managed.map(|(name, warning)| (PathBuf::from(name), warning));
        for (file, warning) in of_files.chain(of_managed) {
            if self.0.insert((file.clone(), warning)) {
                let level = match warning {
                    CertWarning::Expired(_) => log::Level::Error,
                    _ => log::Level::Warn,
                };
                let (file, help) = (file.display(), warning.help());
                log::log!(level, "{file}: {warning}; {help}");
            }
        }
    }
}
