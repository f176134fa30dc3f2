//! The ACME account: created once, then loaded from the storage.

use std::io;

use instant_acme::{Account, AccountBuilder, AccountCredentials, ExternalAccountKey, NewAccount};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::Error;
use super::http_client::HttpsClient;
use super::storage::Storage;
use crate::config::{AcmeConfig, Secret};

/// A client of one authority, with the storage that has its account.
pub(super) struct AcmeClient {
    pub(super) config: AcmeClientConfig,
    pub(super) storage: Storage,
    http: HttpsClient,
    /// Held while the account is loaded, created or replaced: of concurrent orders, only one creates it.
    account_lock: Mutex<()>,
}

/// The configuration of a client.
#[derive(Clone, PartialEq)]
pub(super) struct AcmeClientConfig {
    pub(super) acme: AcmeConfig,
    /// The root certificates that verify the authority; `None`: those of the system.
    pub(super) root_certs: Option<Vec<CertificateDer<'static>>>,
    /// The HMAC key of the external account binding (RFC 8555 §7.3.4).
    pub(super) eab_key: Option<Secret>,
}

/// The error type for an account that the authority does not know (RFC 8555 §6.7).
const UNKNOWN_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The content of `account.json`.
#[derive(Deserialize, Serialize)]
struct StoredAccount {
    credentials: AccountCredentials,
    contact: Vec<String>,
}

impl AcmeClient {
    pub(super) async fn new(config: AcmeClientConfig) -> Result<Self, Error> {
        let root_certs = config.root_certs.clone();
        let http = spawn_blocking(move || HttpsClient::new(root_certs.as_deref())).await;
        let http = http.map_err(io::Error::other).and_then(|client| client);
        Ok(Self {
            storage: Storage::for_authority(&config.acme),
            config,
            http: http.map_err(Error::RootCerts)?,
            account_lock: Mutex::new(()),
        })
    }

    /// Loads the account, or creates it if the storage has none, or one that the authority does not know. The authority's
    /// directory (RFC 8555 §7.1.1) is fetched each time: it may change in the weeks between two orders.
    pub(super) async fn load_or_create_account(&self) -> Result<Account, Error> {
        let _guard = self.account_lock.lock().await;
        let Some(stored) = self.stored_account().await? else {
            return self.create_account().await;
        };
        let account = self.open_account(stored.credentials).await?;
        if stored.contact == self.config.acme.contact {
            return Ok(account);
        }
        match account.update_contacts(&self.contacts()).await {
            // `open_account` consumed the credentials, so this reads them again.
            Ok(()) => self.update_stored_contact().await.map(|()| account),
            Err(error) if is_unknown_account(&error) => self.set_aside_and_create().await,
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a new account, after the authority has answered an order that it does not know `unknown`. Of concurrent
    /// orders, the first creates one, and the others get that one.
    pub(super) async fn replace_account(&self, unknown: &Account) -> Result<Account, Error> {
        let _guard = self.account_lock.lock().await;
        let Some(stored) = self.stored_account().await? else {
            return self.create_account().await;
        };
        let account = self.open_account(stored.credentials).await?;
        // By key: an authority that has lost its accounts may give their names to new ones.
        if account.key_thumbprint() == unknown.key_thumbprint() {
            return self.set_aside_and_create().await;
        }
        Ok(account)
    }

    async fn stored_account(&self) -> Result<Option<StoredAccount>, Error> {
        self.storage.run_blocking(Storage::account).await
    }

    async fn open_account(&self, credentials: AccountCredentials) -> Result<Account, Error> {
        Ok(self.account_builder().from_credentials(credentials).await?)
    }

    /// Called with the lock held.
    async fn set_aside_and_create(&self) -> Result<Account, Error> {
        self.storage
            .run_blocking(Storage::set_aside_account)
            .await?;
        self.create_account().await
    }

    async fn create_account(&self) -> Result<Account, Error> {
        let external_account = self.config.acme.external_account.as_ref();
        let eab_key = external_account
            .zip(self.config.eab_key.as_ref())
            .map(|(account, key)| ExternalAccountKey::new(account.id.clone(), &key.0));
        let contact = self.contacts();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.config.acme.directory.clone();
        let (account, credentials) = self
            .account_builder()
            .create(&new, directory, eab_key.as_ref())
            .await?;
        let contact = self.config.acme.contact.clone();
        self.store_account(StoredAccount {
            credentials,
            contact,
        })
        .await?;
        log::info!("acme: created account {}", account.id());
        Ok(account)
    }

    async fn update_stored_contact(&self) -> Result<(), Error> {
        let contact = self.config.acme.contact.clone();
        self.storage
            .run_blocking(move |storage| match storage.account::<StoredAccount>()? {
                Some(stored) => storage.store_account(&StoredAccount { contact, ..stored }),
                None => Ok(()),
            })
            .await
    }

    async fn store_account(&self, account: StoredAccount) -> Result<(), Error> {
        self.storage
            .run_blocking(move |storage| storage.store_account(&account))
            .await
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

pub(super) fn is_unknown_account(error: &instant_acme::Error) -> bool {
    match error {
        instant_acme::Error::Api(problem) => problem.r#type.as_deref() == Some(UNKNOWN_ACCOUNT),
        _ => false,
    }
}
