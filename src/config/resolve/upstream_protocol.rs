//! `protocol`, `h2`, `grpc_web` and `tls` of an upstream: how its peers are spoken to, and the name
//! that each must prove.
//!
//! What would skip the verification without saying so is refused: a peer without a name to verify has
//! none that its certificate could be for.

use std::time::Duration;

use rustls_pki_types::ServerName;

use super::file_path::path_with_span;
use super::tls::VERSIONS;
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema;
use crate::config::settings::{
    CertificateFiles, H2Config, PeerAddress, PeerConfig, PeerTlsConfig, TlsVersion,
    TransportConfig, UpstreamProtocol,
};
use crate::config::span::Span;
use crate::config::values::{InvalidValue, duration};

const PROTOCOLS: &[(&str, UpstreamProtocol)] = &[
    ("http1", UpstreamProtocol::Http1),
    ("h2", UpstreamProtocol::H2),
    ("h2c", UpstreamProtocol::H2c),
    ("auto", UpstreamProtocol::Auto),
];

/// A server of gRPC takes more than two pings in five minutes for abuse, where nothing else happens.
const PING_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// Which name the peers of an upstream must prove.
pub(super) enum ServerNamePolicy {
    /// Each its own.
    PerPeer,
    /// All this one.
    Fixed(String),
    /// The one that the client asked for.
    ClientHost,
}

/// How the peers are spoken to, and which name they must prove; `None` without TLS.
pub(super) fn read(
    upstream: &Fields<'_>,
    files: &mut CredentialLoader,
) -> (TransportConfig, Option<ServerNamePolicy>) {
    let (tls, name) = tls(upstream, files).unzip();
    let link = TransportConfig {
        protocol: protocol(upstream, tls.is_some()),
        h2: h2(upstream),
        tls,
    };
    (link, name)
}

/// Gives every peer its name; what cannot be verified is refused.
pub(super) fn assign_server_names(
    peers: &mut [(PeerConfig, Span)],
    link: &TransportConfig,
    name: Option<&ServerNamePolicy>,
    problems: &Problems,
) {
    for (peer, span) in peers {
        match (&link.tls, name) {
            (Some(tls), Some(name)) => assign_server_name(peer, *span, tls, name, problems),
            _ if peer.server_name.is_some() => {
                let problem = Problem::error("`server_name` without `tls`", *span);
                problems.add(problem.help("add `tls: true` to the upstream, or remove it"));
            }
            _ => {}
        }
    }
}

fn assign_server_name(
    peer: &mut PeerConfig,
    span: Span,
    tls: &PeerTlsConfig,
    name: &ServerNamePolicy,
    problems: &Problems,
) {
    if peer.server_name.is_some() || matches!(name, ServerNamePolicy::ClientHost) {
        return;
    }
    peer.server_name = match (name, &peer.address) {
        (ServerNamePolicy::Fixed(name), _) => Some(name.clone()),
        (_, PeerAddress::Name(host, _)) => Some(host.trim_end_matches('.').to_owned()),
        (_, PeerAddress::Ip(address)) if !tls.verify => Some(address.ip().to_string()),
        (_, PeerAddress::Unix(_)) if !tls.verify => Some("localhost".to_owned()),
        (_, PeerAddress::Ip(_) | PeerAddress::Unix(_)) => {
            let message = format!("there is no name that {} could prove", quote(&peer.label));
            let problem = Problem::error(message, span);
            let help = "add `server_name: app.example.com`, a name (or address) that its certificate is for";
            problems.add(problem.help(help));
            None
        }
    };
}

fn protocol(upstream: &Fields<'_>, tls: bool) -> UpstreamProtocol {
    let protocol = upstream.choice("protocol", UpstreamProtocol::Http1, PROTOCOLS);
    let (message, help) = match protocol {
        UpstreamProtocol::H2 if !tls => ("`h2` needs `tls`", "add `tls: true`, or write `h2c`"),
        UpstreamProtocol::Auto if !tls => (
            "`auto` needs `tls`, within which the peer chooses",
            "add `tls: true`, or write `http1` or `h2c`",
        ),
        UpstreamProtocol::H2c if tls => {
            ("`h2c` is HTTP/2 without TLS", "write `h2`, or remove `tls`")
        }
        _ => return protocol,
    };
    // Where `tls` is there and wrong, what would have been is not known.
    if let Some(node) = upstream.get("protocol")
        && (tls || upstream.get("tls").is_none_or(is_off))
    {
        upstream.error(node, message, help);
    }
    protocol
}

fn h2(upstream: &Fields<'_>) -> H2Config {
    let default = H2Config {
        max_streams: 100,
        ping: None,
    };
    let Some(fields) = upstream.section("h2", &schema::H2) else {
        return default;
    };
    H2Config {
        max_streams: fields.number("max_streams", default.max_streams, 1..=1000),
        ping: fields.or_off("ping", None, |node| duration(node, &PING_BOUNDS)),
    }
}

/// Calls end with trailers, which come over HTTP/2 only.
pub(super) fn grpc_web(upstream: &Fields<'_>) -> bool {
    let wanted = upstream.flag("grpc_web", false);
    // One that is not known is reported as that.
    let protocol = upstream.get("protocol");
    let http1 = protocol.is_none_or(|node| node.is_word(UpstreamProtocol::Http1.name()));
    if let (true, Some(node)) = (wanted && http1, upstream.get("grpc_web")) {
        let help = "add `protocol: h2c`, or `tls` and `protocol: h2`, or remove `grpc_web`";
        upstream.error(node, "`grpc_web` needs peers that speak HTTP/2", help);
    }
    wanted
}

fn is_off(node: &YamlNode) -> bool {
    node.is_word("off") || node.is_word("false")
}

fn tls(
    upstream: &Fields<'_>,
    files: &mut CredentialLoader,
) -> Option<(PeerTlsConfig, ServerNamePolicy)> {
    let node = upstream.get("tls").filter(|node| !is_off(node))?;
    if node.is_word("true") {
        return Some((
            PeerTlsConfig {
                ca: None,
                certificate: None,
                min_version: TlsVersion::Tls12,
                verify: true,
            },
            ServerNamePolicy::PerPeer,
        ));
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
    let fields = Fields::open(node, &schema::PEER_TLS, upstream.problems)?;
    Some(read_tls(&fields, files))
}

fn read_tls(
    fields: &Fields<'_>,
    files: &mut CredentialLoader,
) -> (PeerTlsConfig, ServerNamePolicy) {
    let ca = path_with_span(fields, "ca");
    let tls = PeerTlsConfig {
        ca: ca.as_ref().map(|ca| ca.path.clone()),
        certificate: certificate(fields, files),
        min_version: fields.choice("min_version", TlsVersion::Tls12, VERSIONS),
        verify: fields.flag("verify", true),
    };
    if let Some(ca) = &ca {
        files.load_trust_anchors(ca, fields.problems);
    }
    warn_verify_off(fields, &tls);
    let name = fields.get("server_name").map(|_| {
        // One that is wrong is reported as that; no peer's own is missed for it.
        let read = fields.read("server_name", server_name_policy);
        read.unwrap_or(ServerNamePolicy::ClientHost)
    });
    (tls, name.unwrap_or(ServerNamePolicy::PerPeer))
}

fn certificate(fields: &Fields<'_>, files: &mut CredentialLoader) -> Option<CertificateFiles> {
    let help = "a certificate and its key belong together: `{cert: FILE, key: FILE}`";
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
    Some(files.load_identity(cert, key, fields.problems))
}

/// Said each time that it is looked at: it is the one thing that makes TLS worth nothing.
fn warn_verify_off(fields: &Fields<'_>, tls: &PeerTlsConfig) {
    let Some(node) = fields.get("verify").filter(|_| !tls.verify) else {
        return;
    };
    if let Some(ca) = fields.get("ca") {
        let problem = Problem::error("`ca` has no use where nothing is verified", ca.error_span());
        let problem = problem.secondary(node.error_span(), "turned off here");
        fields.problems.add(problem.help("remove one of the two"));
        return;
    }
    let message = "the peers' certificates are not verified: whoever is on the way can read and change everything";
    let help = "give the issuer of their certificates, `ca: FILE`, and remove `verify: false`";
    fields
        .problems
        .add(Problem::warning(message, node.error_span()).help(help));
}

fn server_name_policy(node: &YamlNode) -> Result<ServerNamePolicy, InvalidValue> {
    if node.is_word("host") {
        return Ok(ServerNamePolicy::ClientHost);
    }
    server_name(node).map(ServerNamePolicy::Fixed)
}

/// What a certificate can be for: a DNS name, or an IP address.
pub(super) fn server_name(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "a host name")?;
    if ServerName::try_from(name).is_ok() {
        return Ok(name.to_ascii_lowercase());
    }
    let help = "give a host name or an IP address, without a port, as in `app.example.com`";
    Err((
        format!("{} is no name that a certificate can be for", quote(name)),
        help.to_owned(),
    ))
}
