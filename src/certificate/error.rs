//! Errors in the files of a certificate.

/// What is wrong with a file of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file of the chain holds no certificate.
    #[error("the file holds no certificate")]
    NoCertificate,
    /// A file is not PEM, but may be DER.
    #[error("the file is not PEM, it looks like DER")]
    Der(CertFile),
    /// A file is neither PEM nor DER, or is damaged.
    #[error("the file is not readable as PEM")]
    NotPem(CertFile),
    /// A PEM block of the chain is not a certificate.
    #[error("certificate {0} of the file is not readable")]
    BadCertificate(usize),
    /// The file of the key holds no private key.
    #[error("the file holds no private key")]
    NoKey,
    /// The key is protected by a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// The kind of key is not supported.
    #[error("this kind of private key is not supported")]
    UnsupportedKey,
    /// The key belongs to another certificate.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// The key belongs to a later certificate of the chain.
    #[error("the chain does not begin with the certificate of the key")]
    WrongOrder,
    /// The OCSP file holds no OCSP response.
    #[error("the file holds no OCSP response")]
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
                "give the server's certificate and those of its issuers, `-----BEGIN CERTIFICATE-----`"
            }
            Self::Der(CertFile::Chain) => "convert it with `openssl x509 -inform der`",
            Self::Der(_) => "convert it with `openssl pkey -inform der`",
            Self::NotPem(CertFile::Chain) => "try `openssl x509 -noout -text -in FILE`",
            Self::NotPem(_) => "try `openssl pkey -noout -text -in FILE`",
            Self::BadCertificate(_) => "fetch the file again from its issuer",
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
