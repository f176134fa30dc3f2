//! What is done for one certificate: it is ordered, or its authority is asked when to renew it.

use std::sync::Arc;

use instant_acme::{Account, CertificateIdentifier, RevocationRequest};
use rustls_pki_types::Der;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::account::{Authority, blocking};
use super::order::{Delivery, order};
use super::storage::{Record, Storage};
use crate::certificate::{Certificate, renewal_id};
use crate::clock;
use crate::config::Names;
use crate::issued::{Deed, Issued, Slot, Status};
use crate::policy::renewal::{self, Before, Failure, Failures, Held};
use crate::telemetry::metrics::Outcome;

/// How often the authority is asked when to renew a certificate: as it says, within these seconds.
const ASK: (i64, i64) = (60 * 60, 24 * 60 * 60);

/// How long to wait where it did not say, or where the disk did not take a certificate; seconds.
const ASK_AGAIN: i64 = 6 * 60 * 60;
const KEEP_AGAIN: i64 = 60;

const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What is known of one certificate.
#[derive(Clone, Debug)]
pub(super) struct Known {
    record: Record,
    /// What is there, if it is for all the names.
    held: Option<Held>,
    /// Ordered, and not on the disk yet: the key and the chain.
    unkept: Option<Arc<(String, String)>>,
    /// When to do what is not an order; seconds since 1970.
    pub(super) look_at: i64,
    seed: u64,
}

impl Known {
    /// When it is to be ordered; seconds since 1970.
    pub(super) fn due(&self, before: Before) -> i64 {
        let suggested = self.record.suggested;
        let held = self.held.map(|held| Held { suggested, ..held });
        renewal::due(held, before, self.record.failures(), self.seed)
    }

    fn fail(&mut self, error: String, failure: Failure, now: i64) {
        let failures = Failures::after(self.record.failures(), failure, now);
        self.record.set_failures(failures);
        self.record.error = Some(error);
    }

    fn note(&self, slot: &Slot) {
        let failures = self.record.failures();
        slot.note(|status| {
            *status = Status {
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
pub(super) async fn look(storage: Storage, slot: Arc<Slot>) -> Result<Known, Error> {
    blocking(move || {
        let names = &slot.names;
        let (found, record) = (storage.certificate(names), storage.record(names));
        let known = Known {
            record,
            held: found.as_ref().and_then(|found| held(found, names)),
            unkept: None,
            look_at: i64::MIN,
            seed: seed(names),
        };
        if let Some(found) = found
            && slot.certificate.load().as_deref() != Some(&found)
        {
            slot.certificate.store(Some(Arc::new(found)));
        }
        known.note(&slot);
        Ok(known)
    })
    .await
}

/// Where names were added it counts as not there: a new one is ordered at once.
fn held(certificate: &Certificate, names: &Names) -> Option<Held> {
    let covers = |name| certificate.names.contains(name);
    let (from, until) = certificate.valid;
    names.all().iter().all(covers).then_some(Held {
        from,
        until,
        suggested: None,
    })
}

fn seed(names: &Names) -> u64 {
    let digest = Sha256::digest(names.all().join(" "));
    let first = digest.first_chunk().copied();
    u64::from_be_bytes(first.unwrap_or_default())
}

/// One thing to be done for a certificate.
pub(super) struct Work {
    pub(super) authority: Arc<Authority>,
    pub(super) issued: Arc<Issued>,
    pub(super) slot: Arc<Slot>,
    /// What an operator wants; `None`: whatever is due.
    pub(super) wish: Option<Deed>,
}

/// What came of it.
pub(super) struct Done {
    pub(super) known: Known,
    /// How the order ended; `None`: none was due.
    pub(super) ordered: Option<Outcome>,
    /// What to tell an operator.
    pub(super) result: Result<(), String>,
}

impl Done {
    /// It is a defect of the program: not to be repeated at once.
    pub(super) fn panicked(known: Option<&Known>) -> Self {
        let why = "the order broke off: a defect of this program".to_owned();
        let mut known = known.cloned().unwrap_or_else(|| Known {
            record: Record::default(),
            held: None,
            unkept: None,
            look_at: i64::MAX,
            seed: 0,
        });
        known.fail(why.clone(), Failure::Refused, clock::wall().as_second());
        Self {
            known,
            ordered: Some(Outcome::Failed),
            result: Err(why),
        }
    }
}

impl Work {
    pub(super) async fn run(self, mut known: Known) -> Done {
        let now = clock::wall().as_second();
        let due = known.due(self.authority.terms.acme.renew_before) <= now;
        let (ordered, result) = if self.wish.is_some() || due {
            let (outcome, result) = self.order(&mut known).await;
            (Some(outcome), result)
        } else {
            (None, self.look_after(&mut known, now).await)
        };
        known.note(&self.slot);
        let result = result.map_err(|error| error.to_string());
        Done {
            known,
            ordered,
            result,
        }
    }

    async fn order(&self, known: &mut Known) -> (Outcome, Result<(), Error>) {
        self.slot.note(|status| status.busy = true);
        let before = self.slot.certificate.load_full();
        let ordered = self.attempt(known, before.as_deref()).await;
        match &ordered {
            Ok(_) => known.record = Record::default(),
            Err(error) => {
                log::error!("acme: certificate {}: {error}", self.slot.names.first());
                known.fail(
                    error.to_string(),
                    error.failure(),
                    clock::wall().as_second(),
                );
            }
        }
        self.keep_record(known).await;
        let account = match ordered {
            Ok(account) => account,
            Err(error) => return (Outcome::Failed, Err(error)),
        };
        let result = match before.filter(|_| self.wish == Some(Deed::Revoke)) {
            Some(before) => self.revoke(&account, &before).await,
            None => Ok(()),
        };
        let result = result.map_err(|error| Error::Unrevoked(error.to_string()));
        (Outcome::Ok, result)
    }

    /// Orders, keeps and shows it; the account that it was ordered with.
    async fn attempt(
        &self,
        known: &mut Known,
        before: Option<&Certificate>,
    ) -> Result<Account, Error> {
        // What cannot be kept would be ordered again with each start.
        let (storage, names) = (self.authority.storage.clone(), self.slot.names.clone());
        let record = known.record.clone();
        blocking(move || {
            storage.prepare()?;
            storage.keep_record(&names, &record)
        })
        .await?;
        let replaces = known.held.and(before).and_then(identifier);
        let (account, delivery) = self.deliver(replaces).await?;
        let Delivery {
            certificate,
            key,
            chain,
        } = delivery;
        let until = jiff::Timestamp::from_second(certificate.valid.1).unwrap_or_default();
        log::info!(
            "acme: certificate {} until {until}",
            self.slot.names.first()
        );
        known.held = held(&certificate, &self.slot.names);
        known.unkept = Some(Arc::new((key, chain)));
        let kept = self.keep(known).await;
        self.slot.certificate.store(Some(Arc::new(certificate)));
        kept.map(|()| account)
    }

    async fn deliver(
        &self,
        replaces: Option<CertificateIdentifier<'static>>,
    ) -> Result<(Account, Delivery), Error> {
        let account = self.authority.account().await;
        let account = match account {
            Err(error) if is_unknown_account(&error) => self.authority.renew_account().await?,
            account => account?,
        };
        let (acme, names) = (&self.authority.terms.acme, &self.slot.names);
        match order(&account, acme, names, replaces, &self.issued).await {
            Err(error) if is_unknown_account(&error) => {
                let account = self.authority.renew_account().await?;
                let delivery = order(&account, acme, names, None, &self.issued).await?;
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
            self.slot.names.first()
        );
        Ok(())
    }

    /// What is to be done between two orders.
    async fn look_after(&self, known: &mut Known, now: i64) -> Result<(), Error> {
        if known.unkept.is_some() {
            self.keep(known).await?;
            known.record = Record::default();
            self.keep_record(known).await;
            return Ok(());
        }
        let certificate = self.slot.certificate.load_full();
        let Some(id) = certificate.as_deref().and_then(identifier) else {
            known.look_at = i64::MAX;
            return Ok(());
        };
        let asked = self.ask(&id).await;
        known.look_at = now.saturating_add(match &asked {
            Ok((_, again)) => (*again).clamp(ASK.0, ASK.1),
            Err(Error::Authority(instant_acme::Error::Unsupported(_))) => ASK.1,
            Err(_) => ASK_AGAIN,
        });
        // No answer is no reason to forget the one before.
        let suggested = asked?.0;
        if known.record.suggested != Some(suggested) {
            known.record.suggested = Some(suggested);
            self.keep_record(known).await;
        }
        Ok(())
    }

    /// Between which times the authority wants it renewed, and when to ask again (RFC 9773, 4.2).
    async fn ask(&self, id: &CertificateIdentifier<'_>) -> Result<((i64, i64), i64), Error> {
        let account = self.authority.account().await?;
        let (info, again) = account.renewal_info(id).await?;
        let window = info.suggested_window;
        let window = (window.start.unix_timestamp(), window.end.unix_timestamp());
        Ok((window, i64::try_from(again.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Writes what was ordered to the disk.
    async fn keep(&self, known: &mut Known) -> Result<(), Error> {
        let Some(unkept) = known.unkept.clone() else {
            return Ok(());
        };
        known.look_at = clock::wall().as_second().saturating_add(KEEP_AGAIN);
        let (storage, names) = (self.authority.storage.clone(), self.slot.names.clone());
        blocking(move || storage.keep_certificate(&names, &unkept.0, &unkept.1)).await?;
        known.unkept = None;
        known.look_at = i64::MIN;
        Ok(())
    }

    /// Without it the next process begins anew: worth a word, and no more.
    async fn keep_record(&self, known: &Known) {
        let (storage, names) = (self.authority.storage.clone(), self.slot.names.clone());
        let record = known.record.clone();
        if let Err(error) = blocking(move || storage.keep_record(&names, &record)).await {
            log::error!("acme: {error}");
        }
    }
}

fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (issuer, number) = renewal_id(certificate.key.cert.first()?)?;
    let id = CertificateIdentifier::new(Der::from_slice(&issuer), Der::from_slice(&number));
    Some(id.into_owned())
}

fn is_unknown_account(error: &Error) -> bool {
    let Error::Authority(instant_acme::Error::Api(problem)) = error else {
        return false;
    };
    problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT)
}
