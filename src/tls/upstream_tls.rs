//! TLS towards peers: what the connections of an upstream are made with.
//!
//! A [`Client`] is built anew with every configuration, from what its files held then. Connections are
//! kept for reuse among those of one [identity](Client::identity) only, so after a change of issuers, of
//! our own certificate, or of what is demanded of a peer, no request takes a connection that was made
//! before it.
//!
//! The handshakes are Pingora's: it keeps connections by the socket behind them, and one that is
//! encrypted by anybody else has none that it could see (`pingora::protocols::l4::virt`). It makes
//! its terms anew with each connection where they are not the system's, which costs some 50 µs beside a
//! handshake of ten times that; and with each the cache of sessions.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use crate::certificate::Identity;
use crate::config::{Credentials, PeerTlsConfig, TlsVersion, TransportConfig};
use crate::telemetry::metrics::PeerTlsFailure as Failure;

/// What the connections to the peers of an upstream are made with.
pub struct UpstreamTls {
    /// Tells connections that were made with these terms from all others; never a small number.
    pub pool_id: u64,
    /// The issuers whose certificates count; `None`: the system's, as they were at the start.
    pub issuers: Option<Arc<CaType>>,
    /// What peers are shown that ask for a certificate.
    pub client_cert: Option<Arc<CertKey>>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether a peer has to prove who it is.
    pub verify: bool,
}

impl UpstreamTls {
    /// The terms of an upstream that has them, with what the files held when the configuration was
    /// loaded.
    ///
    /// # Errors
    /// [`Error`]; none is to be expected of a configuration that was loaded.
    pub fn new(
        link: &TransportConfig,
        credentials: &Credentials,
    ) -> Result<Option<Arc<Self>>, Error> {
        let Some(tls) = &link.tls else {
            return Ok(None);
        };
        let issuers = issuers(tls, credentials)?;
        let shown = client_identity(tls, credentials)?;
        let client = Self {
            pool_id: pool_id(link, tls, issuers, shown),
            issuers: issuers
                .map(Vec::as_slice)
                .map(parse_chain)
                .transpose()?
                .map(Arc::from),
            client_cert: shown.map(cert_key).transpose()?,
            min_version: tls.min_version,
            verify: tls.verify,
        };
        Ok(Some(Arc::new(client)))
    }

    /// Whether this version may be spoken, by the name that Pingora gives it.
    pub fn accepts_version(&self, version: &str) -> bool {
        self.min_version == TlsVersion::Tls12 || version == "TLSv1_3"
    }
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("identity", &self.pool_id)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

/// Why a peer could not be spoken to by TLS, from the words that rustls and Pingora have for it: the
/// error itself does not come through.
pub fn classify_error(error: &str) -> Failure {
    const WORDS: [(&str, Failure); 11] = [
        ("certificate not valid for name", Failure::Name),
        ("NotValidForName", Failure::Name),
        ("certificate expired", Failure::Date),
        ("Expired", Failure::Date),
        ("NotValidYet", Failure::Date),
        ("not valid yet", Failure::Date),
        ("UnknownIssuer", Failure::Issuer),
        // An issuer of the right name, with another key.
        ("BadSignature", Failure::Issuer),
        ("CaUsedAsEndEntity", Failure::Issuer),
        ("invalid peer certificate", Failure::Certificate),
        ("received fatal alert", Failure::Refused),
    ];
    let found = WORDS.iter().find(|(words, _)| error.contains(words));
    found.map_or(Failure::Other, |(_, failure)| *failure)
}

/// For those who read logs.
pub fn describe_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::Name => "TLS: its certificate is for other names",
        Failure::Date => "TLS: its certificate is not valid at this date",
        Failure::Issuer => "TLS: its certificate is of an unknown issuer",
        Failure::Certificate => "TLS: its certificate does not count",
        Failure::Refused => "TLS: it refused the handshake",
        Failure::Other => "TLS: the handshake failed",
    }
}

fn issuers<'a>(
    tls: &PeerTlsConfig,
    credentials: &'a Credentials,
) -> Result<Option<&'a Vec<CertificateDer<'static>>>, Error> {
    let Some(path) = &tls.ca else {
        return Ok(None);
    };
    let read = credentials.issuers.get(path);
    read.map(Some)
        .ok_or_else(|| Error::NotRead(path.display().to_string()))
}

fn client_identity<'a>(
    tls: &PeerTlsConfig,
    credentials: &'a Credentials,
) -> Result<Option<&'a Identity>, Error> {
    let Some(files) = &tls.certificate else {
        return Ok(None);
    };
    let read = credentials.identities.get(files);
    read.map(Some)
        .ok_or_else(|| Error::NotRead(files.cert.display().to_string()))
}

/// The files' names are no part of it: what they hold is.
fn pool_id(
    link: &TransportConfig,
    tls: &PeerTlsConfig,
    issuers: Option<&Vec<CertificateDer<'static>>>,
    shown: Option<&Identity>,
) -> u64 {
    /// Below are the pools of connections that are used once.
    const LARGE: u64 = 1 << 63;
    let mut hasher = DefaultHasher::new();
    (
        link.protocol,
        tls.verify,
        tls.min_version == TlsVersion::Tls13,
    )
        .hash(&mut hasher);
    issuers.hash(&mut hasher);
    shown.map(Identity::chain).hash(&mut hasher);
    hasher.finish() | LARGE
}

/// Pingora panics where it cannot read one.
fn parse_chain(chain: &[CertificateDer<'_>]) -> Result<Box<CaType>, Error> {
    let parse = |(place, certificate): (usize, &CertificateDer<'_>)| {
        let readable = X509Certificate::from_der(certificate).is_ok();
        let parsed = || WrappedX509::new(certificate.to_vec(), parse_x509);
        readable.then(parsed).ok_or(Error::Unreadable(place + 1))
    };
    chain.iter().enumerate().map(parse).collect()
}

fn cert_key(identity: &Identity) -> Result<Arc<CertKey>, Error> {
    parse_chain(identity.chain())?;
    let chain = identity.chain().iter().map(|one| one.to_vec()).collect();
    let key = match &*identity.key {
        PrivateKeyDer::Pkcs1(key) => key.secret_pkcs1_der(),
        PrivateKeyDer::Sec1(key) => key.secret_sec1_der(),
        PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der(),
        _ => return Err(Error::UnknownKey),
    };
    Ok(Arc::new(CertKey::new(chain, key.to_vec())))
}

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use rustls::Error::{AlertReceived, InvalidCertificate};
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn rustls_error_texts_map_to_failure_reasons() {
        let name = ServerName::try_from("a.test").unwrap();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1));
        let cases = [
            (CertificateError::NotValidForName, Failure::Name),
            (
                CertificateError::NotValidForNameContext {
                    expected: name,
                    presented: vec!["b.test".to_owned()],
                },
                Failure::Name,
            ),
            (CertificateError::Expired, Failure::Date),
            (
                CertificateError::ExpiredContext {
                    time,
                    not_after: time,
                },
                Failure::Date,
            ),
            (CertificateError::NotValidYet, Failure::Date),
            (
                CertificateError::NotValidYetContext {
                    time,
                    not_before: time,
                },
                Failure::Date,
            ),
            (CertificateError::UnknownIssuer, Failure::Issuer),
            (CertificateError::BadSignature, Failure::Issuer),
            (CertificateError::BadEncoding, Failure::Certificate),
        ];
        for (error, expected) in cases {
            let text = InvalidCertificate(error).to_string();
            assert_eq!(classify_error(&text), expected, "{text}");
        }
        let alert = AlertReceived(rustls::AlertDescription::CertificateRequired);
        assert_eq!(classify_error(&alert.to_string()), Failure::Refused);
        assert_eq!(classify_error("unexpected end of file"), Failure::Other);
    }
}
