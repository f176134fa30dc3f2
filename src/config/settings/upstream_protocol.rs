//! How peers are spoken to: which HTTP, and what it is encrypted with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tls::{CertificateFiles, TlsVersion};

/// How the peers of an upstream are spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct TransportConfig {
    /// Which HTTP.
    pub protocol: UpstreamProtocol,
    /// What HTTP/2 may do.
    pub h2: H2Config,
    /// What the connections are encrypted with; `None`: they are not.
    pub tls: Option<PeerTlsConfig>,
}

/// Which HTTP a peer is spoken to.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS, and nothing else (RFC 9113, 3.2).
    H2,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    H2c,
    /// Over TLS what the peer chooses, HTTP/2 rather than HTTP/1.1 (RFC 7301).
    Auto,
}

impl UpstreamProtocol {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::H2 => "h2",
            Self::H2c => "h2c",
            Self::Auto => "auto",
        }
    }

    /// Whether it may turn out to be HTTP/2.
    pub fn may_be_h2(self) -> bool {
        self != Self::Http1
    }

    /// Whether it cannot be anything but HTTP/2.
    pub fn is_always_h2(self) -> bool {
        matches!(self, Self::H2 | Self::H2c)
    }
}

/// What HTTP/2 to a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Config {
    /// Requests at once on one connection; the peer may allow fewer. 1 ..= 1000.
    pub max_streams: u16,
    /// How often a connection is asked whether it is alive; one that does not answer within 5 s is
    /// closed. `None`: never.
    pub ping: Option<Duration>,
}

/// What connections to peers are encrypted with. The name that each must prove is the
/// [peer's](super::Peer::server_name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsConfig {
    /// PEM: the issuers whose certificates count; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// What peers are shown that ask for a certificate.
    pub certificate: Option<CertificateFiles>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether a peer has to prove who it is. Where it has not, anybody on the way can read and
    /// change everything.
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
