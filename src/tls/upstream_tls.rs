//! The TLS configuration of the connections to an upstream's peers.
//!
//! An [`UpstreamTls`] is built for every configuration, from the files as they were read with it. Pooled
//! connections are shared only within one [`pool_id`](UpstreamTls::pool_id): after a change of the issuers, the
//! client certificate or the verification, no request uses a connection made before the change.
//!
//! Pingora 0.9.1 makes the handshakes, because its pool needs the socket below each connection, and a stream
//! that other code has encrypted does not show it (`pingora::protocols::l4::virt`). Unless the system's issuers
//! are used, Pingora builds the TLS configuration and its session cache for each connection: about 50 µs, a
//! tenth of the handshake.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pingora::protocols::tls::{CaType, SslDigest};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;
use crate::certificate::Identity;
use crate::config::{Credentials, PeerTlsConfig, TlsVersion, TransportConfig};
use crate::telemetry::metrics::PeerTlsFailure;

/// The TLS settings of the connections to an upstream's peers.
pub struct UpstreamTls {
    /// The pool shares only connections with the same id; at least 2^63.
    pub pool_id: u64,
    /// The trusted issuers; `None`: those of the system, which are read once at process start.
    pub issuers: Option<Arc<CaType>>,
    /// The client certificate for peers that request one.
    pub client_cert: Option<Arc<CertKey>>,
    /// The oldest TLS version that is accepted.
    pub min_version: TlsVersion,
    /// Whether the certificate of a peer is verified.
    pub verify: bool,
}

impl UpstreamTls {
    /// Builds the TLS settings of an upstream from the files that were read with the configuration; `None`: the
    /// upstream has no TLS.
    ///
    /// # Errors
    /// [`Error`]; not expected for a configuration that has passed its checks.
    pub fn new(
        transport: &TransportConfig,
        credentials: &Credentials,
    ) -> Result<Option<Arc<Self>>, Error> {
        let Some(tls) = &transport.tls else {
            return Ok(None);
        };
        let issuers = issuers(tls, credentials)?;
        let identity = client_identity(tls, credentials)?;
        let upstream_tls = Self {
            pool_id: pool_id(transport, tls, issuers, identity),
            issuers: issuers
                .map(Vec::as_slice)
                .map(parse_chain)
                .transpose()?
                .map(Arc::from),
            client_cert: identity.map(cert_key).transpose()?,
            min_version: tls.min_version,
            verify: tls.verify,
        };
        Ok(Some(Arc::new(upstream_tls)))
    }

    /// Whether the version that a peer has negotiated is not below `min_version`. Pingora 0.9.1 has no option for it.
    /// `session`: `None` without TLS.
    pub fn accepts_version(&self, session: Option<&SslDigest>) -> bool {
        // Pingora's name of the version.
        let is_tls13 = |session: &SslDigest| session.version == "TLSv1_3";
        self.min_version == TlsVersion::Tls12 || session.is_none_or(is_tls13)
    }
}

impl std::fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamTls")
            .field("pool_id", &self.pool_id)
            .field("verify", &self.verify)
            .finish_non_exhaustive()
    }
}

/// The reason for a failed handshake, from the message of rustls or Pingora: Pingora 0.9.1 passes on only the
/// text of the error.
pub(crate) fn classify_error(error: &str) -> PeerTlsFailure {
    const MESSAGES: [(&str, PeerTlsFailure); 11] = [
        ("certificate not valid for name", PeerTlsFailure::Name),
        ("NotValidForName", PeerTlsFailure::Name),
        ("certificate expired", PeerTlsFailure::Date),
        ("Expired", PeerTlsFailure::Date),
        ("NotValidYet", PeerTlsFailure::Date),
        ("not valid yet", PeerTlsFailure::Date),
        ("UnknownIssuer", PeerTlsFailure::Issuer),
        // The issuer has the right name but another key.
        ("BadSignature", PeerTlsFailure::Issuer),
        ("CaUsedAsEndEntity", PeerTlsFailure::Issuer),
        ("invalid peer certificate", PeerTlsFailure::Certificate),
        ("received fatal alert", PeerTlsFailure::Refused),
    ];
    let found = MESSAGES.iter().find(|(part, _)| error.contains(part));
    found.map_or(PeerTlsFailure::Other, |(_, failure)| *failure)
}

/// The description of a failure for logs.
pub(crate) fn describe_failure(failure: PeerTlsFailure) -> &'static str {
    match failure {
        PeerTlsFailure::Name => "TLS: its certificate is for other names",
        PeerTlsFailure::Date => "TLS: its certificate is not valid at this date",
        PeerTlsFailure::Issuer => "TLS: its certificate is from an unknown issuer",
        PeerTlsFailure::Certificate => "TLS: its certificate is invalid",
        PeerTlsFailure::Refused => "TLS: it refused the handshake",
        PeerTlsFailure::Other => "TLS: the handshake failed",
    }
}

fn issuers<'a>(
    tls: &PeerTlsConfig,
    credentials: &'a Credentials,
) -> Result<Option<&'a Vec<CertificateDer<'static>>>, Error> {
    let Some(path) = &tls.ca else {
        return Ok(None);
    };
    let found = credentials.issuers.get(path);
    found
        .map(Some)
        .ok_or_else(|| Error::NotRead(path.display().to_string()))
}

fn client_identity<'a>(
    tls: &PeerTlsConfig,
    credentials: &'a Credentials,
) -> Result<Option<&'a Identity>, Error> {
    let Some(files) = &tls.certificate else {
        return Ok(None);
    };
    let found = credentials.identities.get(files);
    found
        .map(Some)
        .ok_or_else(|| Error::NotRead(files.cert.display().to_string()))
}

/// Hashes the content of the files, not their names.
fn pool_id(
    transport: &TransportConfig,
    tls: &PeerTlsConfig,
    issuers: Option<&Vec<CertificateDer<'static>>>,
    identity: Option<&Identity>,
) -> u64 {
    /// Smaller ids are for connections that are used only once.
    const LARGE: u64 = 1 << 63;
    let mut hasher = DefaultHasher::new();
    (
        transport.protocol,
        tls.verify,
        tls.min_version == TlsVersion::Tls13,
    )
        .hash(&mut hasher);
    issuers.hash(&mut hasher);
    identity.map(Identity::chain).hash(&mut hasher);
    hasher.finish() | LARGE
}

/// Converts a chain for Pingora. Parses each certificate first: Pingora 0.9.1 panics if it cannot parse one.
fn parse_chain(chain: &[CertificateDer<'_>]) -> Result<Box<CaType>, Error> {
    let parse = |(index, certificate): (usize, &CertificateDer<'_>)| {
        let readable = X509Certificate::from_der(certificate).is_ok();
        let parsed = || WrappedX509::new(certificate.to_vec(), parse_x509);
        readable.then(parsed).ok_or(Error::Unreadable(index + 1))
    };
    chain.iter().enumerate().map(parse).collect()
}

fn cert_key(identity: &Identity) -> Result<Arc<CertKey>, Error> {
    parse_chain(identity.chain())?;
    let chain = identity
        .chain()
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect();
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
            (CertificateError::NotValidForName, PeerTlsFailure::Name),
            (
                CertificateError::NotValidForNameContext {
                    expected: name,
                    presented: vec!["b.test".to_owned()],
                },
                PeerTlsFailure::Name,
            ),
            (CertificateError::Expired, PeerTlsFailure::Date),
            (
                CertificateError::ExpiredContext {
                    time,
                    not_after: time,
                },
                PeerTlsFailure::Date,
            ),
            (CertificateError::NotValidYet, PeerTlsFailure::Date),
            (
                CertificateError::NotValidYetContext {
                    time,
                    not_before: time,
                },
                PeerTlsFailure::Date,
            ),
            (CertificateError::UnknownIssuer, PeerTlsFailure::Issuer),
            (CertificateError::BadSignature, PeerTlsFailure::Issuer),
            (CertificateError::BadEncoding, PeerTlsFailure::Certificate),
        ];
        for (error, expected) in cases {
            let text = InvalidCertificate(error).to_string();
            assert_eq!(classify_error(&text), expected, "{text}");
        }
        let alert = AlertReceived(rustls::AlertDescription::CertificateRequired);
        assert_eq!(classify_error(&alert.to_string()), PeerTlsFailure::Refused);
        assert_eq!(
            classify_error("unexpected end of file"),
            PeerTlsFailure::Other
        );
    }
}
