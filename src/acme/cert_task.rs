//! One task for one certificate: an order, a retried write to the disk, or a query for the renewal window.

use std::sync::Arc;

use instant_acme::{Account, CertificateIdentifier, RevocationRequest};
use rustls_pki_types::Der;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::account::{AcmeClient, is_unknown_account};
use super::order::{IssuedCertificate, order_certificate};
use super::storage::{OrderRecord, Storage};
use crate::certificate::{Certificate, renewal_info_id};
use crate::clock;
use crate::config::DomainNames;
use crate::policy::cert_renewal::{
    self, CertificateLifetime, OrderFailure, OrderFailures, RenewBefore,
};
use crate::telemetry::metrics::OperationResult;
use crate::tls::{CertAction, CertStatus, ManagedCert, ManagedCerts};

/// The shortest and the longest interval between queries for the renewal window; seconds. The authority sets
/// the interval (`Retry-After`).
const RENEWAL_INFO_INTERVAL: (i64, i64) = (60 * 60, 24 * 60 * 60);

/// The pause after a failed query for the renewal window; seconds.
const RENEWAL_INFO_RETRY: i64 = 6 * 60 * 60;

/// The pause after a failed write of a certificate; seconds.
const STORE_RETRY: i64 = 60;

/// The state of one certificate.
#[derive(Clone, Debug)]
pub(super) struct CertState {
    record: OrderRecord,
    /// The validity of the certificate, if it has all the configured names.
    current: Option<CertificateLifetime>,
    /// The private key and the chain of an issued certificate that is not on the disk yet.
    unsaved: Option<Arc<(String, String)>>,
    /// The time of the next [`CertTask::maintain`]; seconds since 1970.
    pub(super) check_at: i64,
    jitter_seed: u64,
}

impl CertState {
    /// The time of the next order; seconds since 1970.
    pub(super) fn due(&self, renew_before: RenewBefore) -> i64 {
        let current = self.current.map(|current| CertificateLifetime {
            suggested_window: self.record.suggested,
            ..current
        });
        let failures = self.record.failures();
        cert_renewal::next_order(current, renew_before, failures, self.jitter_seed)
    }

    fn record_failure(&mut self, error: String, failure: OrderFailure, now: i64) {
        let failures = OrderFailures::with_failure(self.record.failures(), failure, now);
        self.record.set_failures(failures);
        self.record.error = Some(error);
    }

    fn publish_status(&self, cert: &ManagedCert) {
        let failures = self.record.failures();
        cert.update_status(|status| {
            *status = CertStatus {
                failures: failures.map_or(0, |failures| failures.count),
                error: failures
                    .map(|failures| failures.last)
                    .zip(self.record.error.clone()),
                ..status.clone()
            };
        });
    }
}

/// Loads a certificate and its record from the disk, and puts the certificate in use.
pub(super) async fn load_state(
    storage: &Storage,
    cert: Arc<ManagedCert>,
) -> Result<CertState, Error> {
    let load = move |storage: &Storage| {
        let names = &cert.names;
        let (stored, record) = (storage.certificate(names)?, storage.record(names)?);
        let state = CertState {
            record,
            current: stored
                .as_ref()
                .and_then(|stored| current_validity(stored, names)),
            unsaved: None,
            check_at: i64::MIN,
            jitter_seed: jitter_seed(names),
        };
        if let Some(stored) = stored
            && cert.certificate.load().as_deref() != Some(&stored)
        {
            cert.certificate.store(Some(Arc::new(stored)));
        }
        state.publish_status(&cert);
        Ok(state)
    };
    storage.run_blocking(load).await
}

/// `None` if the certificate lacks a configured name: then a new one is ordered at once.
fn current_validity(certificate: &Certificate, names: &DomainNames) -> Option<CertificateLifetime> {
    let covers = |name| certificate.names.contains(name);
    let (from, until) = certificate.validity;
    names
        .as_slice()
        .iter()
        .all(covers)
        .then_some(CertificateLifetime {
            not_before: from,
            not_after: until,
            suggested_window: None,
        })
}

fn jitter_seed(names: &DomainNames) -> u64 {
    let digest = Sha256::digest(names.as_slice().join(" "));
    let first = digest.first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

/// One task for a certificate.
pub(super) struct CertTask {
    pub(super) client: Arc<AcmeClient>,
    pub(super) managed_certs: Arc<ManagedCerts>,
    pub(super) cert: Arc<ManagedCert>,
    /// The action that an operator requested; `None`: whatever is due.
    pub(super) action: Option<CertAction>,
}

/// The result of a [`CertTask`].
pub(super) struct CertTaskResult {
    pub(super) state: CertState,
    /// The outcome of the order; `None`: nothing was ordered.
    pub(super) order_outcome: Option<OperationResult>,
    /// The result for the operator, with a message.
    pub(super) result: Result<(), String>,
}

impl CertTaskResult {
    /// The result of a task that panicked. It counts as a rejected order, so that the pause is long.
    pub(super) fn panicked(state: Option<&CertState>) -> Self {
        let message =
            "the order panicked, which is a bug in Clockwise: see the error log".to_owned();
        let mut state = state.cloned().unwrap_or_else(|| CertState {
            record: OrderRecord::default(),
            current: None,
            unsaved: None,
            check_at: i64::MAX,
            jitter_seed: 0,
        });
        state.record_failure(
            message.clone(),
            OrderFailure::Rejected,
            clock::wall().as_second(),
        );
        Self {
            state,
            order_outcome: Some(OperationResult::Failed),
            result: Err(message),
        }
    }
}

impl CertTask {
    pub(super) async fn run(self, mut state: CertState) -> CertTaskResult {
        let now = clock::wall().as_second();
        let is_due = state.due(self.client.config.acme.renew_before) <= now;
        let (order_outcome, result) = if self.action.is_some() || is_due {
            let (outcome, result) = self.order(&mut state).await;
            (Some(outcome), result)
        } else {
            (None, self.maintain(&mut state, now).await)
        };
        state.publish_status(&self.cert);
        let result = result.map_err(|error| error.to_string());
        CertTaskResult {
            state,
            order_outcome,
            result,
        }
    }

    async fn order(&self, state: &mut CertState) -> (OperationResult, Result<(), Error>) {
        self.cert
            .update_status(|status| status.order_in_progress = true);
        let previous = self.cert.certificate.load_full();
        let ordered = self.order_and_install(state, previous.as_deref()).await;
        match &ordered {
            Ok(_) => state.record = OrderRecord::default(),
            Err(error) => {
                log::error!("acme: certificate {}: {error}", self.cert.names.primary());
                state.record_failure(
                    error.to_string(),
                    error.failure_kind(),
                    clock::wall().as_second(),
                );
            }
        }
        self.store_record(state).await;
        let account = match ordered {
            Ok(account) => account,
            Err(error) => return (OperationResult::Failed, Err(error)),
        };
        let result = match previous.filter(|_| self.action == Some(CertAction::Revoke)) {
            Some(previous) => self.revoke(&account, &previous).await,
            None => Ok(()),
        };
        let result = result.map_err(|error| Error::NotRevoked(error.to_string()));
        (OperationResult::Ok, result)
    }

    /// Orders a certificate, stores it and puts it in use; returns the account of the order.
    async fn order_and_install(
        &self,
        state: &mut CertState,
        previous: Option<&Certificate>,
    ) -> Result<Account, Error> {
        // A test write: a certificate that cannot be stored would be ordered again at each start.
        let (names, record) = (self.cert.names.clone(), state.record.clone());
        let test_write = move |storage: &Storage| {
            storage.create_directories()?;
            storage.store_record(&names, &record)
        };
        self.client.storage.run_blocking(test_write).await?;
        let replaces = state.current.and(previous).and_then(certificate_id);
        let (account, issued) = self.order_with_account(replaces).await?;
        let IssuedCertificate {
            certificate,
            key,
            chain,
        } = issued;
        let until = jiff::Timestamp::from_second(certificate.validity.1).unwrap_or_default();
        log::info!(
            "acme: certificate {} issued, valid until {until}",
            self.cert.names.primary()
        );
        state.current = current_validity(&certificate, &self.cert.names);
        state.unsaved = Some(Arc::new((key, chain)));
        let stored = self.store_certificate(state).await;
        // The certificate is used even if the write failed: `maintain` retries it.
        self.cert.certificate.store(Some(Arc::new(certificate)));
        stored.map(|()| account)
    }

    async fn order_with_account(
        &self,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<(Account, IssuedCertificate), Error> {
        let account = self.client.load_or_create_account().await?;
        let (names, certs) = (&self.cert.names, &self.managed_certs);
        match order_certificate(&account, &self.client, names, replaces, certs).await {
            Err(Error::Authority(error)) if is_unknown_account(&error) => {
                let account = self.client.replace_account(&account).await?;
                let issued = order_certificate(&account, &self.client, names, None, certs).await?;
                Ok((account, issued))
            }
            issued => Ok((account, issued?)),
        }
    }

    /// Revokes the previous certificate. Called only when the new one is in use.
    async fn revoke(&self, account: &Account, previous: &Certificate) -> Result<(), Error> {
        let Some(certificate) = previous.key.cert.first() else {
            return Ok(());
        };
        let request = RevocationRequest {
            certificate,
            reason: None,
        };
        account.revoke(&request).await?;
        log::info!(
            "acme: certificate {}: the previous one is revoked",
            self.cert.names.primary()
        );
        Ok(())
    }

    /// The work between two orders: retries a failed write, or otherwise queries the renewal window.
    async fn maintain(&self, state: &mut CertState, now: i64) -> Result<(), Error> {
        if state.unsaved.is_some() {
            self.store_certificate(state).await?;
            state.record = OrderRecord::default();
            self.store_record(state).await;
            return Ok(());
        }
        let certificate = self.cert.certificate.load_full();
        let Some(id) = certificate.as_deref().and_then(certificate_id) else {
            state.check_at = i64::MAX;
            return Ok(());
        };
        let renewal_info = self.fetch_renewal_info(&id).await;
        state.check_at = now.saturating_add(match &renewal_info {
            Ok((_, retry_after)) => {
                (*retry_after).clamp(RENEWAL_INFO_INTERVAL.0, RENEWAL_INFO_INTERVAL.1)
            }
            Err(Error::Authority(instant_acme::Error::Unsupported(_))) => RENEWAL_INFO_INTERVAL.1,
            Err(_) => RENEWAL_INFO_RETRY,
        });
        // After a failure the previous window stays.
        let (suggested, _) = renewal_info?;
        if state.record.suggested != Some(suggested) {
            state.record.suggested = Some(suggested);
            self.store_record(state).await;
        }
        Ok(())
    }

    /// The renewal window that the authority suggests, and the seconds until the next query (RFC 9773 §4.2).
    async fn fetch_renewal_info(
        &self,
        id: &CertificateIdentifier<'_>,
    ) -> Result<((i64, i64), i64), Error> {
        let account = self.client.load_or_create_account().await?;
        let (info, retry_after) = account.renewal_info(id).await?;
        let window = info.suggested_window;
        let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
        Ok((
            window,
            i64::try_from(retry_after.as_secs()).unwrap_or(i64::MAX),
        ))
    }

    /// Writes an unsaved certificate to the disk.
    async fn store_certificate(&self, state: &mut CertState) -> Result<(), Error> {
        let Some(unsaved) = state.unsaved.clone() else {
            return Ok(());
        };
        state.check_at = clock::wall().as_second().saturating_add(STORE_RETRY);
        let names = self.cert.names.clone();
        let write =
            move |storage: &Storage| storage.store_certificate(&names, &unsaved.0, &unsaved.1);
        self.client.storage.run_blocking(write).await?;
        state.unsaved = None;
        state.check_at = i64::MIN;
        Ok(())
    }

    /// Writes the record. A failure is only logged: the next process starts without the record.
    async fn store_record(&self, state: &CertState) {
        let (names, record) = (self.cert.names.clone(), state.record.clone());
        let write = move |storage: &Storage| storage.store_record(&names, &record);
        if let Err(error) = self.client.storage.run_blocking(write).await {
            log::error!("acme: {error}");
        }
    }
}

fn certificate_id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (key_id, serial) = renewal_info_id(certificate.key.cert.first()?)?;
    let id = CertificateIdentifier::new(Der::from_slice(&key_id), Der::from_slice(&serial));
    Some(id.into_owned())
}
