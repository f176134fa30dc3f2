//! Errors in the files of a certificate: the chain, the private key, the OCSP response.

/// An error in one of the files of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file of the chain contains no certificate.
    #[error("the file contains no certificate")]
    NoCertificate,
    /// A file is not PEM, but may be DER.
    #[error("the file is not PEM, it looks like DER")]
    Der(CertFile),
    /// A file is neither PEM nor DER, or is damaged.
    #[error("the file cannot be parsed as PEM")]
    NotPem(CertFile),
    /// A PEM block of the chain is not a certificate.
    #[error("certificate {0} of the file cannot be parsed")]
    BadCertificate(usize),
    /// The file of the key contains no private key.
    #[error("the file contains no private key")]
    NoKey,
    /// The key is protected by a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// The kind of key is not supported.
    #[error("this kind of private key is not supported")]
    UnsupportedKey,
    /// The key does not match any certificate of the chain.
    #[error("the private key does not match the certificate")]
    KeyMismatch,
    /// The key matches a later certificate of the chain, not the first one.
    #[error("the private key matches a later certificate of the file, not the first one")]
    WrongOrder,
    /// The OCSP file contains no OCSP response.
    #[error("the file contains no OCSP response")]
    BadOcsp,
}

/// One of the files of a certificate.
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
    /// The file with the problem.
    pub fn file(self) -> CertFile {
        match self {
            Self::Der(file) | Self::NotPem(file) => file,
            Self::NoCertificate | Self::BadCertificate(_) | Self::WrongOrder => CertFile::Chain,
            Self::NoKey | Self::EncryptedKey | Self::UnsupportedKey | Self::KeyMismatch => {
                CertFile::Key
            }
            Self::BadOcsp => CertFile::Ocsp,
        }
    }

    /// What to do about it.
    pub fn help(self) -> &'static str {
        match self {
            Self::NoCertificate => {
                "the file must contain the server's certificate, then those of its issuers, as PEM (`-----BEGIN CERTIFICATE-----`)"
            }
            Self::Der(CertFile::Chain) => "convert it with `openssl x509 -inform der`",
            Self::Der(_) => "convert it with `openssl pkey -inform der`",
            Self::NotPem(CertFile::Chain) => "try `openssl x509 -noout -text -in FILE`",
            Self::NotPem(_) => "try `openssl pkey -noout -text -in FILE`",
            Self::BadCertificate(_) => "download the file again from the issuer of the certificate",
            Self::NoKey => {
                "the file must contain the private key as PEM (`-----BEGIN PRIVATE KEY-----`)"
            }
            Self::EncryptedKey => {
                "remove the passphrase with `openssl pkey`, and make the file readable only for Clockwise"
            }
            Self::UnsupportedKey => {
                "use ECDSA P-256 or P-384, RSA of 2048 to 8192 bits, or Ed25519"
            }
            Self::KeyMismatch => "use the private key that the certificate was requested with",
            Self::WrongOrder => "put the server's certificate first, then those of its issuers",
            Self::BadOcsp => "use DER, the format that `openssl ocsp -respout FILE` writes",
        }
    }
}
