//! What is done for one certificate: it is ordered, or its authority is asked when to renew it.

use std::sync::Arc;

use instant_acme::{Account, CertificateIdentifier, RevocationRequest};
use rustls_pki_types::Der;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::account::{AcmeClient, blocking_io};
use super::order::{IssuedCertificate, order};
use super::storage::{OrderRecord, Storage};
use crate::certificate::{Certificate, renewal_info_id};
use crate::clock;
use crate::config::DomainNames;
use crate::policy::cert_renewal::{
    self, CertificateLifetime, OrderFailure, OrderFailures, RenewBefore,
};
use crate::telemetry::metrics::OperationResult;
use crate::tls::{CertAction, CertStatus, ManagedCert, ManagedCerts};

/// How often the authority is asked when to renew a certificate: as it says, within these seconds.
const RENEWAL_INFO_INTERVAL: (i64, i64) = (60 * 60, 24 * 60 * 60);

/// How long to wait where it did not say, or where the disk did not take a certificate; seconds.
const RENEWAL_INFO_RETRY: i64 = 6 * 60 * 60;
const STORE_RETRY: i64 = 60;

const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What is known of one certificate.
#[derive(Clone, Debug)]
pub(super) struct CertState {
    record: OrderRecord,
    /// What is there, if it is for all the names.
    current: Option<CertificateLifetime>,
    /// Ordered, and not on the disk yet: the key and the chain.
    unsaved: Option<Arc<(String, String)>>,
    /// When to do what is not an order; seconds since 1970.
    pub(super) check_at: i64,
    jitter_seed: u64,
}

impl CertState {
    /// When it is to be ordered; seconds since 1970.
    pub(super) fn due(&self, before: RenewBefore) -> i64 {
        let suggested = self.record.suggested;
        let held = self.current.map(|held| CertificateLifetime {
            suggested_window: suggested,
            ..held
        });
        cert_renewal::next_order(held, before, self.record.failures(), self.jitter_seed)
    }

    fn record_failure(&mut self, error: String, failure: OrderFailure, now: i64) {
        let failures = OrderFailures::with_failure(self.record.failures(), failure, now);
        self.record.set_failures(failures);
        self.record.error = Some(error);
    }

    fn publish_status(&self, slot: &ManagedCert) {
        let failures = self.record.failures();
        slot.update_status(|status| {
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

/// What is on the disk of a certificate; it is shown from now on.
pub(super) async fn load_state(
    storage: Storage,
    slot: Arc<ManagedCert>,
) -> Result<CertState, Error> {
    blocking_io(move || {
        let names = &slot.names;
        let (found, record) = (storage.certificate(names), storage.record(names));
        let known = CertState {
            record,
            current: found
                .as_ref()
                .and_then(|found| current_validity(found, names)),
            unsaved: None,
            check_at: i64::MIN,
            jitter_seed: jitter_seed(names),
        };
        if let Some(found) = found
            && slot.certificate.load().as_deref() != Some(&found)
        {
            slot.certificate.store(Some(Arc::new(found)));
        }
        known.publish_status(&slot);
        Ok(known)
    })
    .await
}

/// Where names were added it counts as not there: a new one is ordered at once.
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

/// One thing to be done for a certificate.
pub(super) struct CertTask {
    pub(super) client: Arc<AcmeClient>,
    pub(super) managed_certs: Arc<ManagedCerts>,
    pub(super) cert: Arc<ManagedCert>,
    /// What an operator wants; `None`: whatever is due.
    pub(super) action: Option<CertAction>,
}

/// What came of it.
pub(super) struct CertTaskResult {
    pub(super) state: CertState,
    /// How the order ended; `None`: none was due.
    pub(super) order_outcome: Option<OperationResult>,
    /// What to tell an operator.
    pub(super) result: Result<(), String>,
}

impl CertTaskResult {
    /// It is a defect of the program: not to be repeated at once.
    pub(super) fn panicked(known: Option<&CertState>) -> Self {
        let why = "the order broke off: a defect of this program".to_owned();
        let mut known = known.cloned().unwrap_or_else(|| CertState {
            record: OrderRecord::default(),
            current: None,
            unsaved: None,
            check_at: i64::MAX,
            jitter_seed: 0,
        });
        known.record_failure(
            why.clone(),
            OrderFailure::Rejected,
            clock::wall().as_second(),
        );
        Self {
            state: known,
            order_outcome: Some(OperationResult::Failed),
            result: Err(why),
        }
    }
}

impl CertTask {
    pub(super) async fn run(self, mut known: CertState) -> CertTaskResult {
        let now = clock::wall().as_second();
        let due = known.due(self.client.config.acme.renew_before) <= now;
        let (ordered, result) = if self.action.is_some() || due {
            let (outcome, result) = self.order(&mut known).await;
            (Some(outcome), result)
        } else {
            (None, self.maintain(&mut known, now).await)
        };
        known.publish_status(&self.cert);
        let result = result.map_err(|error| error.to_string());
        CertTaskResult {
            state: known,
            order_outcome: ordered,
            result,
        }
    }

    async fn order(&self, known: &mut CertState) -> (OperationResult, Result<(), Error>) {
        self.cert
            .update_status(|status| status.order_in_progress = true);
        let before = self.cert.certificate.load_full();
        let ordered = self.order_and_install(known, before.as_deref()).await;
        match &ordered {
            Ok(_) => known.record = OrderRecord::default(),
            Err(error) => {
                log::error!("acme: certificate {}: {error}", self.cert.names.primary());
                known.record_failure(
                    error.to_string(),
                    error.failure_kind(),
                    clock::wall().as_second(),
                );
            }
        }
        self.store_record(known).await;
        let account = match ordered {
            Ok(account) => account,
            Err(error) => return (OperationResult::Failed, Err(error)),
        };
        let result = match before.filter(|_| self.action == Some(CertAction::Revoke)) {
            Some(before) => self.revoke(&account, &before).await,
            None => Ok(()),
        };
        let result = result.map_err(|error| Error::NotRevoked(error.to_string()));
        (OperationResult::Ok, result)
    }

    /// Orders, keeps and shows it; the account that it was ordered with.
    async fn order_and_install(
        &self,
        known: &mut CertState,
        before: Option<&Certificate>,
    ) -> Result<Account, Error> {
        // What cannot be kept would be ordered again with each start.
        let (storage, names) = (self.client.storage.clone(), self.cert.names.clone());
        let record = known.record.clone();
        blocking_io(move || {
            storage.create_directories()?;
            storage.store_record(&names, &record)
        })
        .await?;
        let replaces = known.current.and(before).and_then(certificate_id);
        let (account, delivery) = self.order_with_account(replaces).await?;
        let IssuedCertificate {
            certificate,
            key,
            chain,
        } = delivery;
        let until = jiff::Timestamp::from_second(certificate.validity.1).unwrap_or_default();
        log::info!(
            "acme: certificate {} until {until}",
            self.cert.names.primary()
        );
        known.current = current_validity(&certificate, &self.cert.names);
        known.unsaved = Some(Arc::new((key, chain)));
        let kept = self.store_certificate(known).await;
        self.cert.certificate.store(Some(Arc::new(certificate)));
        kept.map(|()| account)
    }

    async fn order_with_account(
        &self,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<(Account, IssuedCertificate), Error> {
        let account = self.client.load_or_create_account().await;
        let account = match account {
            Err(error) if is_unknown_account(&error) => self.client.recreate_account().await?,
            account => account?,
        };
        let (acme, names) = (&self.client.config.acme, &self.cert.names);
        match order(&account, acme, names, replaces, &self.managed_certs).await {
            Err(error) if is_unknown_account(&error) => {
                let account = self.client.recreate_account().await?;
                let delivery = order(&account, acme, names, None, &self.managed_certs).await?;
                Ok((account, delivery))
            }
            delivery => Ok((account, delivery?)),
        }
    }

    /// The one before is shown no more: only then may it be revoked.
    async fn revoke(&self, account: &Account, before: &Certificate) -> Result<(), Error> {
        let Some(certificate) = before.key.cert.first() else {
            return Ok(());
        };
        let request = RevocationRequest {
            certificate,
            reason: None,
        };
        account.revoke(&request).await?;
        log::info!(
            "acme: certificate {}: the one before is revoked",
            self.cert.names.primary()
        );
        Ok(())
    }

    /// What is to be done between two orders.
    async fn maintain(&self, known: &mut CertState, now: i64) -> Result<(), Error> {
        if known.unsaved.is_some() {
            self.store_certificate(known).await?;
            known.record = OrderRecord::default();
            self.store_record(known).await;
            return Ok(());
        }
        let certificate = self.cert.certificate.load_full();
        let Some(id) = certificate.as_deref().and_then(certificate_id) else {
            known.check_at = i64::MAX;
            return Ok(());
        };
        let asked = self.fetch_renewal_info(&id).await;
        known.check_at = now.saturating_add(match &asked {
            Ok((_, again)) => (*again).clamp(RENEWAL_INFO_INTERVAL.0, RENEWAL_INFO_INTERVAL.1),
            Err(Error::Authority(instant_acme::Error::Unsupported(_))) => RENEWAL_INFO_INTERVAL.1,
            Err(_) => RENEWAL_INFO_RETRY,
        });
        // No answer is no reason to forget the one before.
        let suggested = asked?.0;
        if known.record.suggested != Some(suggested) {
            known.record.suggested = Some(suggested);
            self.store_record(known).await;
        }
        Ok(())
    }

    /// Between which times the authority wants it renewed, and when to ask again (RFC 9773, 4.2).
    async fn fetch_renewal_info(
        &self,
        id: &CertificateIdentifier<'_>,
    ) -> Result<((i64, i64), i64), Error> {
        let account = self.client.load_or_create_account().await?;
        let (info, again) = account.renewal_info(id).await?;
        let window = info.suggested_window;
        let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
        Ok((window, i64::try_from(again.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Writes what was ordered to the disk.
    async fn store_certificate(&self, known: &mut CertState) -> Result<(), Error> {
        let Some(unkept) = known.unsaved.clone() else {
            return Ok(());
        };
        known.check_at = clock::wall().as_second().saturating_add(STORE_RETRY);
        let (storage, names) = (self.client.storage.clone(), self.cert.names.clone());
        blocking_io(move || storage.store_certificate(&names, &unkept.0, &unkept.1)).await?;
        known.unsaved = None;
        known.check_at = i64::MIN;
        Ok(())
    }

    /// Without it the next process begins anew: worth a word, and no more.
    async fn store_record(&self, known: &CertState) {
        let (storage, names) = (self.client.storage.clone(), self.cert.names.clone());
        let record = known.record.clone();
        if let Err(error) = blocking_io(move || storage.store_record(&names, &record)).await {
            log::error!("acme: {error}");
        }
    }
}

fn certificate_id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (issuer, number) = renewal_info_id(certificate.key.cert.first()?)?;
    let id = CertificateIdentifier::new(Der::from_slice(&issuer), Der::from_slice(&number));
    Some(id.into_owned())
}

fn is_unknown_account(error: &Error) -> bool {
    let Error::Authority(instant_acme::Error::Api(problem)) = error else {
        return false;
    };
    problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT)
}
