//! The server side of a section, while its lines are read.

use super::syntax::HaproxyWord;
use crate::migrate::draft::{PeerDraft, ProbeDraft, SendProxyDraft, UpstreamDraft};
use crate::migrate::tls::TlsOriginationDraft;

/// The upstream of a section so far.
#[derive(Default)]
pub(super) struct BackendDraft {
    /// Peers and health are set after the last line.
    pub(super) upstream: UpstreamDraft,
    pub(super) servers: Vec<BackendServer>,
    /// The servers of `server-template` lines since the last server.
    pub(super) template_servers: u32,
    /// TLS and protocol of the first used server.
    pub(super) transport: Option<ServerTransport>,
    /// `check-sni`: the name of probes if the SNI name is the client's `Host`.
    pub(super) check_sni: Option<String>,
    /// The parameters of `default-server`.
    pub(super) default_server: Vec<HaproxyWord>,
    pub(super) probe: ProbeDraft,
    pub(super) has_checks: bool,
}

/// One server; unused servers take ids as well.
pub(super) struct BackendServer {
    pub(super) peer: PeerDraft,
    /// The parameter `id`.
    pub(super) id: Option<u32>,
    /// The servers of `server-template` lines right before it, which take ids.
    pub(super) templates_before: u32,
    pub(super) used: bool,
    /// The name in SNI and in its certificate.
    pub(super) sni: SniSource,
    /// The PROXY header that it gets.
    pub(super) send_proxy: Option<SendProxyDraft>,
}

/// The name in SNI that the server's certificate must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SniSource {
    /// No name is given.
    #[default]
    Address,
    /// The client's `Host`.
    ClientHost,
    Fixed(String),
}

/// TLS and protocol to a server, without the name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct ServerTransport {
    pub(super) tls: Option<TlsOriginationDraft>,
    pub(super) protocol: Option<&'static str>,
}
