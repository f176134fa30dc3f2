//! Certificates of servers and clients, in the form that TLS needs.
//!
//! Parses PEM text into checked values: a [`Certificate`] has a chain, a matching key, and known names and
//! dates. Whether clients trust it is not checked. The caller reads the files and passes the current time. A
//! certificate that is usable but needs attention has a [`CertWarning`].

mod client_verifier;
mod crl;
mod error;
mod fields;
mod ocsp;
mod time;
mod warning;

use std::fmt;
use std::sync::Arc;

use rustls::Error::InconsistentKeys;
use rustls::InconsistentKeys::Unknown;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

pub(crate) use self::client_verifier::{VerifierError, client_verifier, root_store};
pub(crate) use self::crl::RevocationLists;
pub(crate) use self::error::{CertFile, Error};
pub(crate) use self::fields::{issuer_name, not_after, renewal_info_id, subject_name};
pub(crate) use self::ocsp::OcspError;
pub(crate) use self::warning::CertWarning;

use self::fields::{dns_names, validity};

/// The first byte of a DER file: the tag of a SEQUENCE (X.690 §8.1).
const DER_SEQUENCE: u8 = 0x30;

/// One signature scheme for each supported kind of key.
const SUPPORTED_SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The private key and the chain; the server's own certificate is the first of the chain.
    pub key: Arc<CertifiedKey>,
    /// The OCSP response for the certificate, if there is one.
    pub staple: Option<OcspStaple>,
    /// Its DNS names in lower case; wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// The first and the last second of its validity, since 1970.
    pub validity: (i64, i64),
}

/// An OCSP response to staple to the certificate.
#[derive(Clone)]
pub struct OcspStaple {
    /// Chain and key together with the response.
    key: Arc<CertifiedKey>,
    /// The first and the last second of its validity, since 1970; or why it is never valid.
    validity: Result<(i64, i64), OcspError>,
}

impl Certificate {
    /// Reads the chain and the key, both PEM, and the OCSP response (RFC 6960), DER.
    ///
    /// # Errors
    /// [`Error`]: which file, what is wrong with it, and what to do.
    pub fn read(chain: &[u8], key: &[u8], ocsp: Option<Vec<u8>>) -> Result<Self, Error> {
        let chain = certificates(chain)?;
        let key = any_supported_type(&private_key(key)?).map_err(|_| Error::UnsupportedKey)?;
        let certified = CertifiedKey::new(chain, key);
        check_key_matches(&certified)?;
        let leaf = certified.cert.first().ok_or(Error::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Error::BadCertificate(1))?;
        let staple = ocsp.map(|ocsp| OcspStaple::read(ocsp, &certified, &parsed));
        Ok(Self {
            staple: staple.transpose()?,
            names: dns_names(&parsed)?,
            validity: validity(&parsed),
            key: Arc::new(certified),
        })
    }

    /// The kind of its key, as the number of a signature scheme (RFC 8446 §4.2.3). If two certificates have
    /// the same name and kind of key, the second one is never served.
    pub fn key_kind(&self) -> u16 {
        let signer = self.key.key.choose_scheme(&SUPPORTED_SCHEMES);
        signer.map_or(0, |signer| signer.scheme().into())
    }

    /// Chain and key for a handshake at this time (seconds since 1970), with the OCSP response while it is
    /// valid.
    pub fn certified_key(&self, now: i64) -> &Arc<CertifiedKey> {
        match &self.staple {
            Some(staple) if staple.error_at(now).is_none() => &staple.key,
            _ => &self.key,
        }
    }

    /// Whether an OCSP response is stapled at this time (seconds since 1970).
    pub fn is_stapled(&self, now: i64) -> bool {
        self.certified_key(now).ocsp.is_some()
    }

    /// The warnings at this time (seconds since 1970).
    pub fn warnings(&self, now: i64) -> impl Iterator<Item = CertWarning> {
        let ocsp_error = self.staple.as_ref().and_then(|staple| staple.error_at(now));
        let ocsp_warning = ocsp_error.map(CertWarning::OcspUnusable);
        let date_warning = CertWarning::of_validity(self.validity, now);
        date_warning.into_iter().chain(ocsp_warning)
    }
}

impl OcspStaple {
    fn read(
        response: Vec<u8>,
        certified: &CertifiedKey,
        leaf: &X509Certificate<'_>,
    ) -> Result<Self, Error> {
        let validity = ocsp::parse_response(&response, leaf).ok_or(Error::BadOcsp)?;
        let mut key = certified.clone();
        key.ocsp = Some(response);
        Ok(Self {
            key: Arc::new(key),
            validity,
        })
    }

    /// Why it is not stapled at this time.
    fn error_at(&self, now: i64) -> Option<OcspError> {
        match self.validity {
            Err(error) => Some(error),
            Ok((from, _)) if now < from => Some(OcspError::NotYetValid(from)),
            Ok((_, until)) if now > until => Some(OcspError::Expired(until)),
            Ok(_) => None,
        }
    }
}

impl PartialEq for Certificate {
    /// Compares the chains and the OCSP responses. Equal certificates have equal keys, so keys are not compared.
    fn eq(&self, other: &Self) -> bool {
        let response = |one: &Self| Some(one.staple.as_ref()?.key.ocsp.clone());
        self.key.cert == other.key.cert && response(self) == response(other)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A client certificate with its key as bytes, for handshakes that Pingora makes. The debug output does not
/// contain the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// Reads the chain and the key, both PEM.
    ///
    /// # Errors
    /// [`Error`], as for any [`Certificate`].
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        Ok(Self {
            certificate: Certificate::read(chain, key, None)?,
            key: Arc::new(private_key(key)?),
        })
    }

    /// The chain: the client's own certificate first, then those of its issuers, if any.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certificate.key.cert
    }
}

/// All certificates of a PEM file; at least one.
///
/// # Errors
/// [`Error::NoCertificate`], or an error if the file is not PEM.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if pem.first() == Some(&DER_SEQUENCE) => Err(Error::Der(CertFile::Chain)),
        Ok(_) => Err(Error::NoCertificate),
        Err(_) => Err(Error::NotPem(CertFile::Chain)),
    }
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // Marks of encrypted keys in PKCS #8 (RFC 5958) and in OpenSSL's older format (RFC 1421 §4.6.1.1).
    let marks: [&[u8]; 2] = [b"ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let encrypted = || marks.iter().any(|mark| contains(text, mark));
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(_) | Err(pem::Error::NoItemsFound) if encrypted() => Err(Error::EncryptedKey),
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if text.first() == Some(&DER_SEQUENCE) => {
            Err(Error::Der(CertFile::Key))
        }
        Err(pem::Error::NoItemsFound) => Err(Error::NoKey),
        Err(_) => Err(Error::NotPem(CertFile::Key)),
    }
}

fn contains(text: &[u8], pattern: &[u8]) -> bool {
    text.windows(pattern.len()).any(|window| window == pattern)
}

/// Checks that the key belongs to the first certificate.
fn check_key_matches(certified: &CertifiedKey) -> Result<(), Error> {
    let public = certified.key.public_key();
    let has_key = |certificate: &CertificateDer<'_>| {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let public = public.as_ref()?;
        Some(parsed.subject_public_key_info().as_ref() == public.as_ref())
    };
    match certified.keys_match() {
        Ok(()) | Err(InconsistentKeys(Unknown)) => Ok(()),
        Err(InconsistentKeys(_)) => {
            let later = certified.cert.iter().skip(1);
            let matches_later = later.filter_map(has_key).any(|has_key| has_key);
            Err(if matches_later {
                Error::WrongOrder
            } else {
                Error::KeyMismatch
            })
        }
        Err(_) => Err(Error::BadCertificate(1)),
    }
}

#[cfg(test)]
mod tests;
