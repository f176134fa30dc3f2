//! `protocol`, `h2`, `grpc_web` and `tls` of an upstream, and the server names of its peers.
//!
//! With TLS every peer needs a name to verify; a peer without one is refused. Only `verify: false` turns
//! verification off.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file_path::path_with_span;
use super::peer_sources::{DnsQuestion, PeerSource, SpannedSource};
use super::peers::SpannedPeer;
use super::tls::VERSIONS;
use super::{CertificateFiles, PeerAddress, PeerConfig, TlsVersion, server_name};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::Fields;
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::{InvalidValue, duration};

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
    /// HTTP/2 over TLS, no other version (RFC 9113 §3.2).
    H2,
    /// HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3).
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
    /// The receive window of one stream, in bytes: how much of a response may wait for its client.
    pub window: u32,
}

/// TLS to peers. The name to verify is the [peer's](super::PeerConfig::server_name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTlsConfig {
    /// The name of peers that have none of their own.
    pub server_name: ServerNamePolicy,
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
    /// The name of a peer in its certificate; `None`: the host of the client's request.
    ///
    /// # Errors
    /// The peer has no name that could be verified.
    pub(crate) fn server_name(&self, peer: &PeerConfig) -> Result<Option<String>, NoServerName> {
        if peer.server_name.is_some() {
            return Ok(peer.server_name.clone());
        }
        let name = match (&self.server_name, &peer.address) {
            (ServerNamePolicy::ClientHost, _) => return Ok(None),
            (ServerNamePolicy::Fixed(name), _) => name.clone(),
            (_, PeerAddress::Name(host, _)) => host.trim_end_matches('.').to_owned(),
            (_, PeerAddress::Ip(address)) if !self.verify => address.ip().to_string(),
            (_, PeerAddress::Unix(_)) if !self.verify => "localhost".to_owned(),
            (_, PeerAddress::Ip(_) | PeerAddress::Unix(_)) => return Err(NoServerName),
        };
        Ok(Some(name))
    }

    /// Whether a peer that is configured by its IP address has a name to verify, or needs none.
    pub(super) fn has_name_for_addresses(&self) -> bool {
        self.server_name != ServerNamePolicy::PerPeer || !self.verify
    }

    /// The own server name of a peer on this host, which counts if the upstream has none for all.
    pub(crate) fn name_of_host(&self, host: &str) -> Option<String> {
        (self.server_name == ServerNamePolicy::PerPeer).then(|| host.to_owned())
    }

    /// The files that are read when the configuration is loaded.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let certificate = self.certificate.iter();
        let certificate = certificate.flat_map(|files| [files.cert.as_path(), &files.key]);
        self.ca.as_deref().into_iter().chain(certificate)
    }
}

const PROTOCOLS: &[(&str, UpstreamProtocol)] = &[
    ("http1", UpstreamProtocol::Http1),
    ("h2", UpstreamProtocol::H2),
    ("h2c", UpstreamProtocol::H2c),
    ("auto", UpstreamProtocol::Auto),
];

/// gRPC servers treat more than two PINGs in five minutes without other frames as abuse.
const PING_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// A peer with TLS has no name that could be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoServerName;

/// The server name that is verified in the peers' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerNamePolicy {
    /// The name of each peer.
    PerPeer,
    /// One name for all peers.
    Fixed(String),
    /// The host of the client's request.
    ClientHost,
}

/// The transport of the upstream.
pub(super) fn read(upstream: &Fields<'_>, loader: &mut CredentialLoader) -> TransportConfig {
    let tls = tls(upstream, loader);
    TransportConfig {
        protocol: protocol(upstream, tls.is_some()),
        h2: h2(upstream),
        tls,
    }
}

/// Sets the server name of every peer; refuses peers that have none to verify.
pub(super) fn assign_server_names(
    peers: &mut [SpannedPeer],
    tls: Option<&PeerTlsConfig>,
    problems: &Problems,
) {
    for spanned in peers {
        let peer = &mut spanned.peer;
        match tls {
            Some(tls) => assign_server_name(peer, spanned.label_span, tls, problems),
            None if peer.server_name.is_some() => {
                let span = spanned.server_name_span;
                let problem = Problem::error("`server_name` without `tls`", span);
                problems.add(problem.help("add `tls: true` to the upstream, or remove it"));
            }
            None => {}
        }
    }
}

/// Warns of a source of addresses if all its peers would be left out: an address has no name that could be verified.
pub(super) fn warn_unverifiable_sources(
    sources: &[SpannedSource],
    tls: Option<&PeerTlsConfig>,
    problems: &Problems,
) {
    let is_unverifiable = |spanned: &&SpannedSource| {
        let has_addresses = matches!(
            spanned.source,
            PeerSource::Dns(DnsQuestion::Addresses { .. }) | PeerSource::Kubernetes(_)
        );
        has_addresses && tls.is_some_and(|tls| !tls.has_name_for_addresses())
    };
    for spanned in sources.iter().filter(is_unverifiable) {
        let message = "the peers of this source have no server name to verify, and are left out";
        let problem = Problem::warning(message, spanned.span);
        problems.add(problem.help("add `server_name` to `tls` of the upstream"));
    }
}

fn assign_server_name(peer: &mut PeerConfig, span: Span, tls: &PeerTlsConfig, problems: &Problems) {
    if let Ok(name) = tls.server_name(peer) {
        peer.server_name = name;
        return;
    }
    let message = format!("peer {} has no server name to verify", quote(&peer.label));
    let help = "add `server_name: app.example.com`, a name or IP address in its certificate";
    problems.add(Problem::error(message, span).help(help));
}

fn protocol(upstream: &Fields<'_>, tls: bool) -> UpstreamProtocol {
    let protocol = upstream.choice("protocol", UpstreamProtocol::Http1, PROTOCOLS);
    let (message, help) = match protocol {
        UpstreamProtocol::H2 if !tls => ("`h2` needs `tls`", "add `tls: true`, or write `h2c`"),
        UpstreamProtocol::Auto if !tls => (
            "`auto` needs `tls`: the peer selects the version by ALPN",
            "add `tls: true`, or write `http1` or `h2c`",
        ),
        UpstreamProtocol::H2c if tls => {
            ("`h2c` is HTTP/2 without TLS", "write `h2`, or remove `tls`")
        }
        _ => return protocol,
    };
    // An invalid `tls` has been reported; whether it would have been on is unknown.
    if let Some(node) = upstream.get("protocol")
        && (tls || upstream.get("tls").is_none_or(YamlNode::is_off))
    {
        upstream.error(node, message, help);
    }
    protocol
}

pub(super) static H2: SectionSchema = SectionSchema {
    title: "`h2`",
    path: "upstreams.NAME.h2",
    example: "{max_streams: 100}",
    keys: &["max_streams", "ping", "window"],
    ..SectionSchema::EMPTY
};

/// At least one frame (RFC 9113 §4.2), at most twice Pingora's default; bytes.
const WINDOW_BOUNDS: std::ops::RangeInclusive<u64> = 16 << 10..=16 << 20;

fn h2(upstream: &Fields<'_>) -> H2Config {
    let default = H2Config {
        max_streams: 100,
        ping: None,
        window: 48 << 10,
    };
    let Some(fields) = upstream.section("h2", &H2) else {
        return default;
    };
    H2Config {
        max_streams: fields.number("max_streams", default.max_streams, 1..=1000),
        ping: fields.or_off("ping", None, |node| duration(node, &PING_BOUNDS)),
        window: u32::try_from(fields.size("window", default.window.into(), WINDOW_BOUNDS))
            .unwrap_or(default.window),
    }
}

/// gRPC calls end with trailers, which need HTTP/2.
pub(super) fn grpc_web(upstream: &Fields<'_>) -> bool {
    let wanted = upstream.flag("grpc_web", false);
    // An unknown protocol is reported as such.
    let protocol = upstream.get("protocol");
    let http1 = protocol.is_none_or(|node| node.is_word(UpstreamProtocol::Http1.name()));
    if let (true, Some(node)) = (wanted && http1, upstream.get("grpc_web")) {
        let help = "add `protocol: h2c`, or `tls` and `protocol: h2`, or remove `grpc_web`";
        upstream.error(node, "`grpc_web` needs HTTP/2 to the peers", help);
    }
    wanted
}

pub(super) static PEER_TLS: SectionSchema = SectionSchema {
    title: "`tls`",
    path: "upstreams.NAME.tls",
    example: "{ca: FILE, server_name: app.example.com}",
    keys: &["ca", "server_name", "cert", "key", "min_version", "verify"],
    ..SectionSchema::EMPTY
};

fn tls(upstream: &Fields<'_>, loader: &mut CredentialLoader) -> Option<PeerTlsConfig> {
    let node = upstream.get("tls").filter(|node| !node.is_off())?;
    if node.is_plain("true") {
        return Some(PeerTlsConfig {
            server_name: ServerNamePolicy::PerPeer,
            ca: None,
            certificate: None,
            min_version: TlsVersion::Tls12,
            verify: true,
        });
    }
    if node.text().is_some() {
        let help = "write `tls: true`, or a map as in `tls: {ca: FILE}`";
        upstream.error(
            node,
            "`tls` of an upstream is `true`, `off` or a map".to_owned(),
            help,
        );
        return None;
    }
    let fields = Fields::open(node, &PEER_TLS, upstream.problems)?;
    Some(read_tls(&fields, loader))
}

fn read_tls(fields: &Fields<'_>, loader: &mut CredentialLoader) -> PeerTlsConfig {
    let ca = path_with_span(fields, "ca");
    let tls = PeerTlsConfig {
        server_name: read_server_name(fields),
        ca: ca.as_ref().map(|ca| ca.path.clone()),
        certificate: certificate(fields, loader),
        min_version: fields.choice("min_version", TlsVersion::Tls12, VERSIONS),
        verify: fields.flag("verify", true),
    };
    if let Some(ca) = &ca {
        loader.load_trust_anchors(ca, fields.problems);
    }
    warn_verify_off(fields, &tls);
    tls
}

fn read_server_name(fields: &Fields<'_>) -> ServerNamePolicy {
    if fields.get("server_name").is_none() {
        return ServerNamePolicy::PerPeer;
    }
    // An invalid name is reported; it must not make the peers' own names count as missing.
    fields
        .read("server_name", server_name_policy)
        .unwrap_or(ServerNamePolicy::ClientHost)
}

fn certificate(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<CertificateFiles> {
    let help = "write both, as in `{cert: FILE, key: FILE}`";
    match (fields.get("cert"), fields.get("key")) {
        (None, None) => return None,
        (None, Some(node)) => fields.error(node, "`key` without `cert`", help),
        (Some(node), None) => fields.error(node, "`cert` without `key`", help),
        (Some(_), Some(_)) => {}
    }
    let (cert, key) = (
        path_with_span(fields, "cert")?,
        path_with_span(fields, "key")?,
    );
    Some(loader.load_identity(cert, key, fields.problems))
}

/// Warns of `verify: false` in every check, since it makes TLS useless against an active attacker.
fn warn_verify_off(fields: &Fields<'_>, tls: &PeerTlsConfig) {
    let Some(node) = fields.get("verify").filter(|_| !tls.verify) else {
        return;
    };
    if let Some(ca) = fields.get("ca") {
        let problem = Problem::error("`ca` has no effect with `verify: false`", ca.error_span());
        let problem = problem.secondary(node.error_span(), "turned off here");
        fields.problems.add(problem.help("remove one of the two"));
        return;
    }
    let message = "the peers' certificates are not verified: an attacker on the path can read and change all traffic";
    let help = "set `ca: FILE` to the issuer of their certificates, and remove `verify: false`";
    fields
        .problems
        .add(Problem::warning(message, node.error_span()).help(help));
}

fn server_name_policy(node: &YamlNode) -> Result<ServerNamePolicy, InvalidValue> {
    if node.is_word("host") {
        return Ok(ServerNamePolicy::ClientHost);
    }
    server_name::read(node).map(ServerNamePolicy::Fixed)
}
