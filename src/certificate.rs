//! Certificates, a server's and its clients': what the operator's files hold, as TLS needs it.
//!
//! PEM text in, checked material out: a certificate that comes out of here has a chain, a key that
//! belongs to it, and known names and dates. What is not looked at: whether any client would trust
//! it. Reading the files, and knowing what day it is, is the caller's.

use std::fmt;
use std::sync::Arc;

use rustls::Error::InconsistentKeys;
use rustls::InconsistentKeys::Unknown;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Begins every file that holds one DER value (X.690, 8.1): a SEQUENCE.
const DER: u8 = 0x30;

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The chain, the server's own first, with the key and, where there is one, the OCSP response.
    pub key: Arc<CertifiedKey>,
    /// What it is for: its DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// From when until when it is valid, in seconds since 1970.
    pub valid: (i64, i64),
}

/// What is wrong with the files of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The chain's file has no certificate.
    #[error("the file holds no certificate")]
    NoCertificate,
    /// A file is not PEM, but may be DER.
    #[error("the file is not PEM, it looks like DER")]
    Der(Part),
    /// A file is not PEM at all, or broken.
    #[error("the file is not readable as PEM")]
    NotPem(Part),
    /// The PEM is right, and what is in it is no certificate.
    #[error("certificate {0} of the file is not readable")]
    BadCertificate(usize),
    /// The key's file has no private key.
    #[error("the file holds no private key")]
    NoKey,
    /// The key asks for a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// A kind of key that TLS is not served with here.
    #[error("this kind of private key is not supported")]
    UnsupportedKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    Mismatch,
    /// The key belongs to a later certificate of the chain.
    #[error("the chain does not begin with the certificate of the key")]
    Order,
}

/// Which file of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificates.
    Chain,
    /// The private key.
    Key,
}

impl Error {
    /// The file to look at.
    pub fn part(self) -> Part {
        match self {
            Self::Der(part) | Self::NotPem(part) => part,
            Self::NoCertificate | Self::BadCertificate(_) | Self::Order => Part::Chain,
            Self::NoKey | Self::EncryptedKey | Self::UnsupportedKey | Self::Mismatch => Part::Key,
        }
    }

    /// What to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "give the server's certificate and those of its issuers, `-----BEGIN CERTIFICATE-----`"
            }
            Self::Der(Part::Chain) => "convert it with `openssl x509 -inform der`",
            Self::Der(Part::Key) => "convert it with `openssl pkey -inform der`",
            Self::NotPem(Part::Chain) => "try `openssl x509 -noout -text -in FILE`",
            Self::NotPem(Part::Key) => "try `openssl pkey -noout -text -in FILE`",
            Self::BadCertificate(_) => "fetch it anew from its issuer",
            Self::NoKey => "give the private key, `-----BEGIN PRIVATE KEY-----`",
            Self::EncryptedKey => {
                "remove the passphrase with `openssl pkey`, and let only this program read the file"
            }
            Self::UnsupportedKey => {
                "use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519"
            }
            Self::Mismatch => "give the key that the certificate was requested with",
            Self::Order => "put the server's certificate first, then those of its issuers",
        }
    }
}

impl Certificate {
    /// Reads the chain and the key, both PEM, and takes the OCSP response (RFC 6960, DER) as it is.
    ///
    /// # Errors
    /// [`Error`]: which file, what is wrong with it, and what to do.
    pub fn read(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Self, Error> {
        let chain = certificates(chain)?;
        let key = any_supported_type(&private_key(key)?).map_err(|_| Error::UnsupportedKey)?;
        let certified = CertifiedKey {
            cert: chain,
            key,
            ocsp,
        };
        check_pair(&certified)?;
        let leaf = certified.cert.first().ok_or(Error::NoCertificate)?;
        let (names, valid) = describe(leaf)?;
        Ok(Self {
            names,
            valid,
            key: Arc::new(certified),
        })
    }
}

impl PartialEq for Certificate {
    /// The same certificate has the same key.
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert && self.key.ocsp == other.key.ocsp
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("valid", &self.valid)
            .finish_non_exhaustive()
    }
}

/// All certificates of a PEM file; at least one.
///
/// # Errors
/// [`Error::NoCertificate`], or that it is not PEM.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if pem.first() == Some(&DER) => Err(Error::Der(Part::Chain)),
        Ok(_) => Err(Error::NoCertificate),
        Err(_) => Err(Error::NotPem(Part::Chain)),
    }
}

/// Why clients' certificates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// One of the issuers is none.
    #[error("certificate {0} of the file cannot issue others: {1}")]
    Issuer(usize, rustls::Error),
    /// What they have revoked cannot be read.
    #[error("the revocation list cannot be used: {0}")]
    Revoked(#[from] rustls::server::VerifierBuilderError),
}

/// What judges clients' certificates: they are issued by one of `issuers` and not revoked; `required`:
/// a client without one is turned away.
///
/// # Errors
/// [`VerifierError`].
pub fn verifier(
    issuers: &[CertificateDer<'static>],
    revoked: &[CertificateRevocationListDer<'static>],
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    let mut roots = RootCertStore::empty();
    for (place, issuer) in issuers.iter().enumerate() {
        let added = roots.add(issuer.clone());
        added.map_err(|error| VerifierError::Issuer(place + 1, error))?;
    }
    let (roots, provider) = (Arc::new(roots), Arc::new(default_provider()));
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider)
        .with_crls(revoked.iter().cloned());
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    Ok(builder.build()?)
}

/// Whom a certificate is for, as text that stays when it is renewed: its first name that is a URI, a
/// DNS name or a mail address, else the common name of its subject; `None`: it has none of these.
pub fn holder(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let alternatives = parsed.subject_alternative_name().ok()?;
    let names = alternatives.map(|alternatives| &alternatives.value.general_names);
    let first = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    let common = || {
        let common = parsed.subject().iter_common_name().next()?;
        common.as_str().ok().map(str::to_owned)
    };
    first.or_else(common).filter(|name| !name.is_empty())
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // Of PKCS #8 (RFC 5958), and as OpenSSL had it before (RFC 1421, 4.6.1.1).
    let marks: [&[u8]; 2] = [b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let encrypted = || marks.iter().any(|mark| contains(text, mark));
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(_) | Err(pem::Error::NoItemsFound) if encrypted() => Err(Error::EncryptedKey),
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if text.first() == Some(&DER) => Err(Error::Der(Part::Key)),
        Err(pem::Error::NoItemsFound) => Err(Error::NoKey),
        Err(_) => Err(Error::NotPem(Part::Key)),
    }
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

/// The key belongs to the first certificate.
fn check_pair(certified: &CertifiedKey) -> Result<(), Error> {
    let public = certified.key.public_key();
    let fits = |certificate: &CertificateDer<'_>| {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let public = public.as_ref()?;
        Some(parsed.subject_public_key_info().as_ref() == public.as_ref())
    };
    match certified.keys_match() {
        Ok(()) | Err(InconsistentKeys(Unknown)) => Ok(()),
        Err(InconsistentKeys(_)) => {
            let later = certified.cert.iter().skip(1);
            let belongs = later.filter_map(fits).any(|fits| fits);
            Err(if belongs {
                Error::Order
            } else {
                Error::Mismatch
            })
        }
        Err(_) => Err(Error::BadCertificate(1)),
    }
}

/// The DNS names of a certificate, and its validity.
fn describe(der: &CertificateDer<'_>) -> Result<(Vec<String>, (i64, i64)), Error> {
    let unreadable = |_| Error::BadCertificate(1);
    let (_, parsed) = X509Certificate::from_der(der).map_err(unreadable)?;
    let validity = parsed.validity();
    let valid = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let alternatives = parsed
        .subject_alternative_name()
        .map_err(|_| Error::BadCertificate(1))?;
    let names = alternatives.map_or_else(Vec::new, |alternatives| {
        let names = alternatives.value.general_names.iter();
        names.filter_map(dns_name).collect()
    });
    Ok((names, valid))
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}
