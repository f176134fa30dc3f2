//! The account with the authority: made once, and used from then on.

use std::io;

use instant_acme::{Account, AccountBuilder, AccountCredentials, ExternalAccountKey, NewAccount};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::http_client::HttpsClient;
use super::storage::Storage;
use super::{Error, storage};
use crate::config::{AcmeConfig, Secret};

/// Who orders, and from whom.
pub(super) struct AcmeClient {
    pub(super) config: AcmeClientConfig,
    pub(super) storage: Storage,
    http: HttpsClient,
    /// Orders that begin at once must not make an account each.
    account_lock: Mutex<()>,
}

/// What was configured of it.
#[derive(Clone, PartialEq)]
pub(super) struct AcmeClientConfig {
    pub(super) acme: AcmeConfig,
    /// Who vouches for its directory; `None`: the system's authorities.
    pub(super) root_certs: Option<Vec<CertificateDer<'static>>>,
    /// The key of the operator's account with it.
    pub(super) eab_key: Option<Secret>,
}

/// What is kept of the account.
#[derive(Deserialize, Serialize)]
struct StoredAccount {
    credentials: AccountCredentials,
    contact: Vec<String>,
}

impl AcmeClient {
    pub(super) async fn new(terms: AcmeClientConfig) -> Result<Self, Error> {
        let authorities = terms.root_certs.clone();
        let https = spawn_blocking(move || HttpsClient::new(authorities.as_deref())).await;
        let https = https.map_err(io::Error::other).and_then(|made| made);
        Ok(Self {
            storage: Storage::for_authority(&terms.acme),
            config: terms,
            http: https.map_err(Error::RootCerts)?,
            account_lock: Mutex::new(()),
        })
    }

    /// The account; made where there is none. The authority is asked what it offers each time: over
    /// the months between two orders that may change.
    pub(super) async fn load_or_create_account(&self) -> Result<Account, Error> {
        let _one = self.account_lock.lock().await;
        let storage = self.storage.clone();
        let kept: Option<StoredAccount> = blocking_io(move || Ok(storage.account())).await?;
        let Some(kept) = kept else {
            return self.create_account().await;
        };
        let account = self
            .account_builder()
            .from_credentials(kept.credentials)
            .await?;
        if kept.contact != self.config.acme.contact {
            account.update_contacts(&self.contacts()).await?;
            // `from_credentials` has taken them; they are read anew, with the contact of now.
            self.update_stored_contact().await?;
        }
        Ok(account)
    }

    /// The authority says that it does not know the account: another one is made.
    pub(super) async fn recreate_account(&self) -> Result<Account, Error> {
        let storage = self.storage.clone();
        blocking_io(move || {
            storage.set_aside_account();
            Ok(())
        })
        .await?;
        self.load_or_create_account().await
    }

    async fn create_account(&self) -> Result<Account, Error> {
        let external = self
            .config
            .acme
            .external_account
            .as_ref()
            .zip(self.config.eab_key.as_ref());
        let external =
            external.map(|(account, key)| ExternalAccountKey::new(account.id.clone(), &key.0));
        let contact = self.contacts();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.acme.directory.clone();
        let made = self
            .account_builder()
            .create(&new, directory, external.as_ref())
            .await?;
        let (account, credentials) = made;
        let contact = self.config.acme.contact.clone();
        self.store_account(StoredAccount {
            credentials,
            contact,
        })
        .await?;
        log::info!("acme: account {}", account.id());
        Ok(account)
    }

    async fn update_stored_contact(&self) -> Result<(), Error> {
        let (storage, contact) = (self.storage.clone(), self.config.acme.contact.clone());
        blocking_io(move || match storage.account::<StoredAccount>() {
            Some(kept) => storage.store_account(&StoredAccount { contact, ..kept }),
            None => Ok(()),
        })
        .await
    }

    async fn store_account(&self, kept: StoredAccount) -> Result<(), Error> {
        let storage = self.storage.clone();
        blocking_io(move || storage.store_account(&kept)).await
    }

    fn contacts(&self) -> Vec<&str> {
        self.config
            .acme
            .contact
            .iter()
            .map(String::as_str)
            .collect()
    }

    fn account_builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.http.clone()))
    }
}

/// Work with the disk, beside the workers.
pub(super) async fn blocking_io<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, storage::Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(Error::Panicked(error)),
    }
}
