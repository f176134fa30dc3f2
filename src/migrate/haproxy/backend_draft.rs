//! The server side of a section, while its lines are read.

use super::syntax::HaproxyWord;
use crate::migrate::draft::{PeerDraft, ProbeDraft, SendProxyDraft, UpstreamDraft};
use crate::migrate::tls::TlsOriginationDraft;

/// The upstream of a section so far.
#[derive(Default)]
pub(super) struct BackendDraft {
    /// Its peers and its health are set when all lines are read.
    pub(super) upstream: UpstreamDraft,
    pub(super) servers: Vec<BackendServer>,
    /// How the first of them is spoken to.
    pub(super) transport: Option<ServerTransport>,
    /// What probes ask for where only clients know the name.
    pub(super) check_sni: Option<String>,
    /// The parameters of `default-server`.
    pub(super) default_server: Vec<HaproxyWord>,
    pub(super) probe: ProbeDraft,
    pub(super) has_checks: bool,
}

/// One server, whether it is used or not: unused ones take ids, too.
pub(super) struct BackendServer {
    pub(super) peer: PeerDraft,
    /// The `id` that is written.
    pub(super) id: Option<u32>,
    pub(super) used: bool,
    /// What it must prove in TLS.
    pub(super) sni: SniSource,
    /// What it is told of each connection.
    pub(super) send_proxy: Option<SendProxyDraft>,
}

/// The name that a server must prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum SniSource {
    /// None is said.
    #[default]
    Address,
    /// The client's.
    ClientHost,
    Fixed(String),
}

/// How a server is spoken to, but for the name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct ServerTransport {
    pub(super) tls: Option<TlsOriginationDraft>,
    pub(super) protocol: Option<&'static str>,
}
