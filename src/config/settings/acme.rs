//! Certificates that are ordered from an authority (ACME, RFC 8555): what the operator wrote of them.
//!
//! Only values; where the certificates lie, and when they are ordered, is [`acme`](crate::acme)'s.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::policy::cert_renewal::RenewBefore;

/// How certificates are ordered.
#[derive(Clone, Debug, PartialEq)]
pub struct AcmeConfig {
    /// Where the authority says what it offers (RFC 8555, 7.1.1); `https`.
    pub directory: String,
    /// Whom the authority may write to, as `mailto:…`; may be empty.
    pub contact: Vec<String>,
    /// A directory for the account and the certificates; nobody else may read it.
    pub storage: PathBuf,
    /// The kind of the certificates' keys.
    pub key_type: KeyType,
    /// The account that the operator has with the authority already; `None`: none is needed.
    pub external_account: Option<ExternalAccountBinding>,
    /// PEM: who vouches for the directory's own certificate; `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// How long before its end a certificate is renewed.
    pub renew_before: RenewBefore,
    /// How the authority sees that the names are served here.
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

/// How the authority sees that a name is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// By a request on port 80 (RFC 8555, 8.3).
    Http01,
    /// By a handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

/// An account outside of ACME (RFC 8555, 7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccountBinding {
    /// What the authority calls it.
    pub id: String,
    /// The key that proves it, base64url; its content is in
    /// [`Credentials`](super::Credentials::external_account).
    pub hmac_key_file: PathBuf,
}

/// The names of one certificate: at least one, each once, in lower case. The first is what the
/// certificate is called; the order of the others does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainNames(Arc<[String]>);

impl DomainNames {
    /// The most that public authorities put in one certificate.
    pub const MAX: usize = 100;

    /// The names; `None`: there are none.
    pub fn new(mut names: Vec<String>) -> Option<Self> {
        let (_, others) = names.split_first_mut()?;
        others.sort_unstable();
        Some(Self(names.into()))
    }

    /// What the certificate is called.
    pub fn primary(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

/// What nobody may see.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
