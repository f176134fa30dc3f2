//! The account with the authority: made once, and used from then on.

use std::io;

use instant_acme::{Account, AccountBuilder, AccountCredentials, ExternalAccountKey, NewAccount};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::https::Https;
use super::storage::Storage;
use super::{Error, storage};
use crate::config::{Acme, Secret};

/// Who orders, and from whom.
pub(super) struct Authority {
    pub(super) terms: Terms,
    pub(super) storage: Storage,
    https: Https,
    /// Orders that begin at once must not make an account each.
    making: Mutex<()>,
}

/// What was configured of it.
#[derive(Clone, PartialEq)]
pub(super) struct Terms {
    pub(super) acme: Acme,
    /// Who vouches for its directory; `None`: the system's authorities.
    pub(super) authorities: Option<Vec<CertificateDer<'static>>>,
    /// The key of the operator's account with it.
    pub(super) external: Option<Secret>,
}

/// What is kept of the account.
#[derive(Deserialize, Serialize)]
struct Kept {
    credentials: AccountCredentials,
    contact: Vec<String>,
}

impl Authority {
    pub(super) async fn new(terms: Terms) -> Result<Self, Error> {
        let authorities = terms.authorities.clone();
        let https = spawn_blocking(move || Https::new(authorities.as_deref())).await;
        let https = https.map_err(io::Error::other).and_then(|made| made);
        Ok(Self {
            storage: Storage::of(&terms.acme),
            terms,
            https: https.map_err(Error::Trust)?,
            making: Mutex::new(()),
        })
    }

    /// The account; made where there is none. The authority is asked what it offers each time: over
    /// the months between two orders that may change.
    pub(super) async fn account(&self) -> Result<Account, Error> {
        let _one = self.making.lock().await;
        let storage = self.storage.clone();
        let kept: Option<Kept> = blocking(move || Ok(storage.account())).await?;
        let Some(kept) = kept else {
            return self.make().await;
        };
        let account = self.builder().from_credentials(kept.credentials).await?;
        if kept.contact != self.terms.acme.contact {
            account.update_contacts(&self.contact()).await?;
            // `from_credentials` has taken them; they are read anew, with the contact of now.
            self.renote().await?;
        }
        Ok(account)
    }

    /// The authority says that it does not know the account: another one is made.
    pub(super) async fn renew_account(&self) -> Result<Account, Error> {
        let storage = self.storage.clone();
        blocking(move || {
            storage.forget_account();
            Ok(())
        })
        .await?;
        self.account().await
    }

    async fn make(&self) -> Result<Account, Error> {
        let external = self
            .terms
            .acme
            .external_account
            .as_ref()
            .zip(self.terms.external.as_ref());
        let external =
            external.map(|(account, key)| ExternalAccountKey::new(account.id.clone(), &key.0));
        let contact = self.contact();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.terms.acme.directory.clone();
        let made = self
            .builder()
            .create(&new, directory, external.as_ref())
            .await?;
        let (account, credentials) = made;
        let contact = self.terms.acme.contact.clone();
        self.keep(Kept {
            credentials,
            contact,
        })
        .await?;
        log::info!("acme: account {}", account.id());
        Ok(account)
    }

    async fn renote(&self) -> Result<(), Error> {
        let (storage, contact) = (self.storage.clone(), self.terms.acme.contact.clone());
        blocking(move || match storage.account::<Kept>() {
            Some(kept) => storage.keep_account(&Kept { contact, ..kept }),
            None => Ok(()),
        })
        .await
    }

    async fn keep(&self, kept: Kept) -> Result<(), Error> {
        let storage = self.storage.clone();
        blocking(move || storage.keep_account(&kept)).await
    }

    fn contact(&self) -> Vec<&str> {
        self.terms.acme.contact.iter().map(String::as_str).collect()
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.https.clone()))
    }
}

/// Work with the disk, beside the workers.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, storage::Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Error::Broken(error)),
    }
}
