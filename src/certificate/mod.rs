//! Certificates, a server's and its clients': what the operator's files hold, as TLS needs it.
//!
//! PEM text in, checked material out: a certificate that comes out of here has a chain, a key that
//! belongs to it, and known names and dates. What is not looked at: whether any client would trust
//! it. Reading the files, and knowing what day it is, is the caller's: what there is to say of a
//! certificate that is right but for its time is a [`Concern`].

mod issuer;
mod ocsp;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::Error::InconsistentKeys;
use rustls::InconsistentKeys::Unknown;
use rustls::crypto::ring::default_provider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

pub use self::issuer::{issuer_name, renewal_info_id};
pub use self::ocsp::OcspError;

/// Begins every file that holds one DER value (X.690, 8.1): a SEQUENCE.
const DER_SEQUENCE: u8 = 0x30;

const SECONDS_A_DAY: i64 = 86_400;

/// A certificate that is valid for no longer than this soon expires; seconds. Of one that has a short
/// life anyway, a quarter of that.
const EXPIRY_WARNING: i64 = 14 * SECONDS_A_DAY;

/// A scheme of each kind of key that TLS is served with here.
const SUPPORTED_SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// A certificate with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The chain, the server's own first, with the key.
    pub key: Arc<CertifiedKey>,
    /// The OCSP response that is sent along while it can be; `None`: there is none.
    pub staple: Option<OcspStaple>,
    /// What it is for: its DNS names, lower case, wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// From when until when it is valid, in seconds since 1970.
    pub validity: (i64, i64),
}

/// An OCSP response that was found beside a certificate.
#[derive(Clone)]
pub struct OcspStaple {
    /// The certificate together with the response.
    key: Arc<CertifiedKey>,
    /// From when until when it counts, in seconds since 1970; or why it never does.
    validity: Result<(i64, i64), OcspError>,
}

/// What its operator should know of a certificate that is served all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum CertWarning {
    /// Its time has not come; in seconds since 1970, as in all of these.
    #[error("the certificate is not valid before {}", DisplayTime(*.0))]
    NotYetValid(i64),
    /// It is time to renew it.
    #[error("the certificate expires on {}", DisplayTime(*.0))]
    ExpiresSoon(i64),
    /// Its time is over.
    #[error("the certificate expired on {}", DisplayTime(*.0))]
    Expired(i64),
    /// The OCSP response cannot be used.
    #[error("the OCSP response is not sent along: {0}")]
    OcspUnusable(OcspError),
    /// There is a newer list of revoked certificates; this one still counts.
    #[error("the revocation list was to be replaced by {}", DisplayTime(*.0))]
    StaleCrl(i64),
}

impl CertWarning {
    /// The certificate's file to look at.
    pub fn file(self) -> CertFile {
        match self {
            Self::OcspUnusable(_) => CertFile::Ocsp,
            _ => CertFile::Chain,
        }
    }

    /// What to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::NotYetValid(_) | Self::Expired(_) => "clients refuse it; give a valid one",
            Self::ExpiresSoon(_) => "renew it; where that is automatic, it is late",
            Self::OcspUnusable(OcspError::Revoked) => {
                "clients may refuse it; give another certificate"
            }
            Self::OcspUnusable(_) => "fetch it anew, as with `openssl ocsp -respout FILE`",
            Self::StaleCrl(_) => "fetch it anew: who was revoked since then is let in",
        }
    }
}

/// What is wrong with the files of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The chain's file has no certificate.
    #[error("the file holds no certificate")]
    NoCertificate,
    /// A file is not PEM, but may be DER.
    #[error("the file is not PEM, it looks like DER")]
    Der(CertFile),
    /// A file is not PEM at all, or broken.
    #[error("the file is not readable as PEM")]
    NotPem(CertFile),
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
    KeyMismatch,
    /// The key belongs to a later certificate of the chain.
    #[error("the chain does not begin with the certificate of the key")]
    WrongOrder,
    /// The OCSP file holds something else.
    #[error("the file holds no OCSP response")]
    BadOcsp,
}

/// Which file of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertFile {
    /// The certificates.
    Chain,
    /// The private key.
    Key,
    /// The OCSP response.
    Ocsp,
}

impl Error {
    /// The file to look at.
    pub fn file(self) -> CertFile {
        match self {
            Self::Der(part) | Self::NotPem(part) => part,
            Self::NoCertificate | Self::BadCertificate(_) | Self::WrongOrder => CertFile::Chain,
            Self::NoKey | Self::EncryptedKey | Self::UnsupportedKey | Self::KeyMismatch => {
                CertFile::Key
            }
            Self::BadOcsp => CertFile::Ocsp,
        }
    }

    /// What to do.
    pub fn help(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "give the server's certificate and those of its issuers, `-----BEGIN CERTIFICATE-----`"
            }
            Self::Der(CertFile::Chain) => "convert it with `openssl x509 -inform der`",
            Self::Der(_) => "convert it with `openssl pkey -inform der`",
            Self::NotPem(CertFile::Chain) => "try `openssl x509 -noout -text -in FILE`",
            Self::NotPem(_) => "try `openssl pkey -noout -text -in FILE`",
            Self::BadCertificate(_) => "fetch it anew from its issuer",
            Self::NoKey => "give the private key, `-----BEGIN PRIVATE KEY-----`",
            Self::EncryptedKey => {
                "remove the passphrase with `openssl pkey`, and let only this program read the file"
            }
            Self::UnsupportedKey => {
                "use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519"
            }
            Self::KeyMismatch => "give the key that the certificate was requested with",
            Self::WrongOrder => "put the server's certificate first, then those of its issuers",
            Self::BadOcsp => "give it as DER, as `openssl ocsp -respout FILE` writes it",
        }
    }
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

    /// The kind of its key, as the number of a scheme it signs by (RFC 8446, 4.2.3). Of two
    /// certificates with one name and keys of one kind no client is ever shown the second.
    pub fn key_kind(&self) -> u16 {
        let signer = self.key.key.choose_scheme(&SUPPORTED_SCHEMES);
        signer.map_or(0, |signer| signer.scheme().into())
    }

    /// What is shown at this time (seconds since 1970): the OCSP response only while it is fresh.
    pub fn certified_key(&self, now: i64) -> &Arc<CertifiedKey> {
        match &self.staple {
            Some(staple) if staple.error_at(now).is_none() => &staple.key,
            _ => &self.key,
        }
    }

    /// Whether an OCSP response is sent along at this time.
    pub fn is_stapled(&self, now: i64) -> bool {
        self.certified_key(now).ocsp.is_some()
    }

    /// What there is to say of it at this time.
    pub fn warnings(&self, now: i64) -> impl Iterator<Item = CertWarning> {
        let unfit = self.staple.as_ref().and_then(|staple| staple.error_at(now));
        let staple = unfit.map(CertWarning::OcspUnusable);
        self.date_warning(now).into_iter().chain(staple)
    }

    fn date_warning(&self, now: i64) -> Option<CertWarning> {
        let (from, until) = self.validity;
        let soon = EXPIRY_WARNING.min(until.saturating_sub(from) / 4);
        match now {
            now if now > until => Some(CertWarning::Expired(until)),
            now if now < from => Some(CertWarning::NotYetValid(from)),
            now if now >= until.saturating_sub(soon) => Some(CertWarning::ExpiresSoon(until)),
            _ => None,
        }
    }
}

impl OcspStaple {
    fn read(
        response: Vec<u8>,
        certified: &CertifiedKey,
        leaf: &X509Certificate<'_>,
    ) -> Result<Self, Error> {
        let fresh = ocsp::parse_response(&response, leaf).ok_or(Error::BadOcsp)?;
        let mut key = certified.clone();
        key.ocsp = Some(response);
        Ok(Self {
            key: Arc::new(key),
            validity: fresh,
        })
    }

    /// Why it is not sent along at this time.
    fn error_at(&self, now: i64) -> Option<OcspError> {
        match self.validity {
            Err(unfit) => Some(unfit),
            Ok((from, _)) if now < from => Some(OcspError::NotYetValid(from)),
            Ok((_, until)) if now > until => Some(OcspError::Expired(until)),
            Ok(_) => None,
        }
    }
}

impl PartialEq for Certificate {
    /// The same certificate has the same key.
    fn eq(&self, other: &Self) -> bool {
        let response = |one: &Self| Some(one.staple.as_ref()?.key.ocsp.clone());
        self.key.cert == other.key.cert && response(self) == response(other)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("valid", &self.validity)
            .finish_non_exhaustive()
    }
}

/// A certificate whose key goes into handshakes that are made elsewhere. Its debug output keeps the key
/// secret.
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

    /// The chain, its holder's own first; at least one.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certificate.key.cert
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
        Ok(_) if pem.first() == Some(&DER_SEQUENCE) => Err(Error::Der(CertFile::Chain)),
        Ok(_) => Err(Error::NoCertificate),
        Err(_) => Err(Error::NotPem(CertFile::Chain)),
    }
}

/// Why others' certificates cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// One of the issuers is none.
    #[error("certificate {0} of the file is not that of an issuer")]
    Issuer(usize, #[source] rustls::Error),
    /// What they have revoked cannot be read.
    #[error("the revocation list cannot be used: {0}")]
    Crl(#[from] rustls::server::VerifierBuilderError),
}

/// Certificates that their issuers have taken back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RevocationLists {
    /// One list of each issuer, and of its issuers (RFC 5280, 5).
    pub lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them is to be replaced, in seconds since 1970; `None`: none says.
    pub next_update: Option<i64>,
}

impl RevocationLists {
    /// All lists of a PEM file; `None`: it holds none that can be read.
    pub fn read(pem: &[u8]) -> Option<Self> {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty())?;
        let read = |list| Some(CertificateRevocationList::from_der(list).ok()?.1);
        let read: Vec<_> = lists.iter().map(|list| read(list)).collect::<Option<_>>()?;
        let ends = read
            .iter()
            .filter_map(CertificateRevocationList::next_update);
        Some(Self {
            next_update: ends.map(|end| end.timestamp()).min(),
            lists,
        })
    }

    /// What there is to say of them at this time (seconds since 1970).
    pub fn warning(&self, now: i64) -> Option<CertWarning> {
        let until = self.next_update.filter(|&until| now > until);
        until.map(CertWarning::StaleCrl)
    }
}

/// What judges clients' certificates: they are issued by one of `issuers` and not revoked; `required`:
/// a client without one is turned away.
///
/// # Errors
/// [`VerifierError`].
pub fn client_verifier(
    issuers: &[CertificateDer<'static>],
    revoked: &[CertificateRevocationListDer<'static>],
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    let (roots, provider) = (Arc::new(root_store(issuers)?), Arc::new(default_provider()));
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider)
        .with_crls(revoked.iter().cloned());
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    Ok(builder.build()?)
}

/// What certificates are issued by, from the issuers' own certificates.
///
/// # Errors
/// [`VerifierError::Issuer`].
pub fn root_store(issuers: &[CertificateDer<'static>]) -> Result<RootCertStore, VerifierError> {
    let mut anchors = RootCertStore::empty();
    for (place, issuer) in issuers.iter().enumerate() {
        let added = anchors.add(issuer.clone());
        added.map_err(|error| VerifierError::Issuer(place + 1, error))?;
    }
    Ok(anchors)
}

/// Whom a certificate is for, as text that stays when it is renewed: its first name that is a URI, a
/// DNS name or a mail address, else the common name of its subject; `None`: it has none of these.
pub fn subject_name(certificate: &CertificateDer<'_>) -> Option<String> {
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

/// Until when a certificate is valid, in seconds since 1970; `None`: it is none.
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(validity(&parsed).1)
}

fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // Of PKCS #8 (RFC 5958), and as OpenSSL had it before (RFC 1421, 4.6.1.1).
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

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

/// The key belongs to the first certificate.
fn check_key_matches(certified: &CertifiedKey) -> Result<(), Error> {
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
                Error::WrongOrder
            } else {
                Error::KeyMismatch
            })
        }
        Err(_) => Err(Error::BadCertificate(1)),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    let [from, until] = [validity.not_before, validity.not_after].map(|time| time.timestamp());
    (from, until)
}

fn dns_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, Error> {
    let alternatives = certificate.subject_alternative_name();
    let alternatives = alternatives.map_err(|_| Error::BadCertificate(1))?;
    let names = alternatives.map_or(&[][..], |alternatives| &alternatives.value.general_names);
    Ok(names.iter().filter_map(dns_name).collect())
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}

/// Seconds since 1970, for people to read.
struct DisplayTime(i64);

impl fmt::Display for DisplayTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(time) => time.fmt(f),
            Err(_) => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
