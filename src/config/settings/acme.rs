//! Certificates that are ordered from an authority (ACME, RFC 8555): the settings.
//!
//! [`acme`](crate::acme) orders and stores them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::cert_renewal::RenewBefore;

/// Settings of ACME.
#[derive(Clone, Debug, PartialEq)]
pub struct AcmeConfig {
    /// URL of the authority's directory (RFC 8555, 7.1.1); always `https`.
    pub directory: String,
    /// Contacts for the authority, as `mailto:…`; may be empty.
    pub contact: Vec<String>,
    /// Directory for the account and the certificates; readable by the process's user only.
    pub storage: PathBuf,
    /// The kind of key in the certificates.
    pub key_type: KeyType,
    /// An existing account that the authority requires; `None`: not required.
    pub external_account: Option<ExternalAccountBinding>,
    /// PEM: issuers that are trusted for the connection to the authority; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// How long before its expiry a certificate is renewed.
    pub renew_before: RenewBefore,
    /// The kind of challenge by which the authority verifies the names.
    pub challenge: AcmeChallenge,
}

impl AcmeConfig {
    /// The files that are read when the configuration is loaded.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let account = self.external_account.as_ref();
        let key = account.map(|account| account.hmac_key_file.as_path());
        self.ca.as_deref().into_iter().chain(key)
    }
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
}

/// A kind of challenge, by which the authority verifies that a name is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// A request on port 80 (RFC 8555, 8.3).
    Http01,
    /// A TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

/// An account with the authority outside of ACME (RFC 8555, 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccountBinding {
    /// The key identifier from the authority.
    pub id: String,
    /// The file of its HMAC key, base64url; the content is in
    /// [`Credentials`](super::Credentials::external_account).
    pub hmac_key_file: PathBuf,
}

/// The names of one certificate: at least one, in lower case. The first is the primary name, which
/// identifies the certificate; the order of the others is irrelevant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainNames(Arc<[String]>);

impl DomainNames {
    /// The most that public authorities put in one certificate.
    pub const MAX: usize = 100;

    /// `None` if `names` is empty.
    pub fn new(mut names: Vec<String>) -> Option<Self> {
        let (_, others) = names.split_first_mut()?;
        others.sort_unstable();
        Some(Self(names.into()))
    }

    /// The name that identifies the certificate in logs, files and the status.
    pub fn primary(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// All names, the primary one first.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// Bytes that are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
