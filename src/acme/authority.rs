//! The client and the storage of one authority, with the state of each certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::account::AcmeClient;
use super::cert_task::{self, CertState};
use super::storage::{FileStamp, Storage};
use crate::clock;
use crate::config::{Config, DomainNames};
use crate::tls::{ManagedCert, ManagedCerts};

/// State that belongs to one authority and one account.
pub(super) struct AuthorityState {
    pub(super) client: Arc<AcmeClient>,
    /// Locked if this process is the leader.
    pub(super) storage: Storage,
    pub(super) certs: BTreeMap<DomainNames, CertState>,
    /// Why the files of a certificate could not be loaded; nothing is ordered for it until they can.
    pub(super) load_errors: BTreeMap<DomainNames, String>,
    /// The stamps of the certificate files that this process has loaded as a follower.
    pub(super) file_stamps: BTreeMap<DomainNames, Option<FileStamp>>,
}

impl AuthorityState {
    pub(super) fn new(client: AcmeClient) -> Self {
        Self {
            storage: client.storage.clone(),
            client: Arc::new(client),
            certs: BTreeMap::new(),
            load_errors: BTreeMap::new(),
            file_stamps: BTreeMap::new(),
        }
    }

    /// Loads the state of certificates that have none. A certificate with files that cannot be loaded does not stop the others.
    pub(super) async fn load_new(
        &mut self,
        configured: &BTreeSet<&DomainNames>,
        managed_certs: &ManagedCerts,
    ) {
        self.certs.retain(|names, _| configured.contains(names));
        self.load_errors.clear();
        for &names in configured {
            if self.certs.contains_key(names) {
                continue;
            }
            let cert = managed_certs.get_or_insert(names);
            cert.update_status(|status| status.ordered_elsewhere = false);
            match cert_task::load_state(&self.storage, Arc::clone(&cert)).await {
                Ok(state) => {
                    self.certs.insert(names.clone(), state);
                }
                Err(error) => {
                    let message = error.to_string();
                    report_load_error(&cert, &message);
                    self.load_errors.insert(names.clone(), message);
                }
            }
        }
    }

    /// Loads a certificate that the leader has stored; returns whether that succeeded.
    pub(super) async fn load_from_leader(&self, cert: Arc<ManagedCert>) -> bool {
        let state = cert_task::load_state(&self.storage, Arc::clone(&cert)).await;
        cert.update_status(|status| {
            status.ordered_elsewhere = true;
            status.next_order = state.as_ref().ok().map(|state| self.next_order(state));
        });
        if let Err(error) = &state {
            report_load_error(&cert, &error.to_string());
        }
        state.is_ok()
    }

    /// The time of the next order of a certificate; seconds since 1970.
    pub(super) fn next_order(&self, state: &CertState) -> i64 {
        state.due(self.client.config.acme.renew_before)
    }

    /// The configured certificate with this first name.
    ///
    /// # Errors
    /// A message for the operator.
    pub(super) fn find_by_name(&self, name: &str) -> Result<DomainNames, String> {
        if let Some(names) = self.certs.keys().find(|names| names.primary() == name) {
            return Ok(names.clone());
        }
        let mut errors = self.load_errors.iter();
        match errors.find(|(names, _)| names.primary() == name) {
            Some((_, error)) => Err(error.clone()),
            None => Err(format!("no ACME certificate has the first name `{name}`")),
        }
    }
}

/// Loads the stored certificates that are not in use yet. Reads files, so it blocks.
pub(crate) fn load_stored(config: &Config, managed_certs: &Arc<ManagedCerts>) {
    let Some(acme) = &config.acme else { return };
    let storage = Storage::for_authority(acme);
    for names in config.acme_certificate_names() {
        let cert = managed_certs.get_or_insert(names);
        if cert.certificate.load().is_none() {
            match storage.certificate(names) {
                Ok(stored) => cert.certificate.store(stored.map(Arc::new)),
                Err(error) => log::error!("acme: {error}"),
            }
        }
    }
}

/// Sets the error in the status of a certificate, and counts it; returns whether it differs from the previous one.
pub(super) fn record_error(cert: &ManagedCert, message: &str) -> bool {
    let (now, status) = (clock::wall().as_second(), cert.status.load());
    let previous = status.error.as_ref();
    cert.update_status(|status| {
        status.failures = status.failures.saturating_add(1);
        status.error = Some((now, message.to_owned()));
    });
    previous.is_none_or(|(_, previous)| previous != message)
}

/// Records that the files of a certificate could not be loaded; logs it once.
fn report_load_error(cert: &ManagedCert, message: &str) {
    if record_error(cert, message) {
        log::error!("acme: certificate {}: {message}", cert.names.primary());
    }
}
