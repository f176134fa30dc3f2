//! Connections to peers: HTTP version and TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tls::{CertificateFiles, TlsVersion};

/// Protocol and TLS of the connections to the peers of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportConfig {
    /// The HTTP version.
    pub protocol: UpstreamProtocol,
    /// Settings of HTTP/2.
    pub h2: H2Config,
    /// TLS; `None`: plain text.
    pub tls: Option<PeerTlsConfig>,
}

/// The HTTP version of the connections to a peer.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS, no other version (RFC 9113, 3.2).
    H2,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113, 3.3).
    H2c,
    /// Over TLS the version that the peer selects by ALPN (RFC 7301); HTTP/2 is preferred.
    Auto,
}

impl UpstreamProtocol {
    /// The word in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2 => "h2",
            Self::H2c => "h2c",
            Self::Auto => "auto",
        }
    }

    /// Whether a connection may be HTTP/2.
    pub fn may_be_h2(self) -> bool {
        self != Self::Http1
    }

    /// Whether every connection is HTTP/2.
    pub fn is_always_h2(self) -> bool {
        matches!(self, Self::H2 | Self::H2c)
    }
}

/// Settings of HTTP/2 to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Config {
    /// Concurrent requests of one connection, 1 ..= 1000; the peer may allow fewer.
    pub max_streams: u16,
    /// Time between two PINGs on a connection; one that is not answered within 5 s closes it. `None`: no
    /// PINGs.
    pub ping: Option<Duration>,
}

/// TLS to peers. The name to verify is the [peer's](super::PeerConfig::server_name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsConfig {
    /// PEM: the issuers that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate for peers that request one.
    pub certificate: Option<CertificateFiles>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Whether a peer's certificate is verified. Without verification anything between this process and
    /// the peer can read and change the traffic.
    pub verify: bool,
}

impl PeerTlsConfig {
    /// The files that are read when the configuration is loaded.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let certificate = self.certificate.iter();
        let certificate = certificate.flat_map(|files| [files.cert.as_path(), &files.key]);
        self.ca.as_deref().into_iter().chain(certificate)
    }
}
