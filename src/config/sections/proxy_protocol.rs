//! `proxy_protocol` of a listener (headers from clients) and of an upstream (headers to peers).

use std::time::Duration;

use super::ListenAddress;
use super::networks::networks;
use crate::client_addr::TrustedProxies;
use crate::config::fields::{
    Fields, choose, collect_until_full, items, items_or_one, parse_or_report,
};
use crate::config::raw::YamlNode;
use crate::config::report::Problem;
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, InvalidValue};
use crate::proxy_protocol::ProxyHeaderVersion;

/// PROXY headers that a listener accepts, and the rule for untrusted sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Networks that must send a header and are trusted. On a Unix socket every client is.
    pub from: TrustedProxies,
    /// Limit for the arrival of the complete header; above zero.
    pub timeout: Duration,
    /// Whether connections from other networks are served, without a header; else they are closed.
    pub accept_untrusted: bool,
}

/// The PROXY header sent at the start of each connection to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendProxyConfig {
    /// The version of the protocol.
    pub version: ProxyHeaderVersion,
    /// Extensions of the header; none in version 1.
    pub tlvs: Vec<TlvKind>,
}

/// An extension of a PROXY header of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvKind {
    /// The server name of the client's TLS handshake (SNI).
    Authority,
    /// The protocol negotiated by ALPN.
    Alpn,
    /// TLS version and cipher, and the subject of the client's certificate.
    Tls,
    /// The connection's id from the PROXY header that was received, else the id of the request.
    UniqueId,
    /// `CRC32c` of the header.
    Checksum,
}

const TIMEOUT: Duration = Duration::from_secs(5);
const FROM_HELP: &str = "list the networks of the load balancers, as in `from: [10.0.0.0/8]`";
const UNTRUSTED: &[(&str, bool)] = &[("reject", false), ("accept", true)];

const VERSIONS: &[(&str, ProxyHeaderVersion)] = &[
    ("v1", ProxyHeaderVersion::V1),
    ("v2", ProxyHeaderVersion::V2),
];

const TLVS: &[(&str, TlvKind)] = &[
    ("authority", TlvKind::Authority),
    ("alpn", TlvKind::Alpn),
    ("tls", TlvKind::Tls),
    ("unique_id", TlvKind::UniqueId),
    ("checksum", TlvKind::Checksum),
];

pub(super) static ACCEPT_PROXY: SectionSchema = SectionSchema {
    title: "`proxy_protocol`",
    path: "listeners[].proxy_protocol",
    example: "{from: [10.0.0.0/8]}",
    keys: &["from", "timeout", "untrusted"],
    renamed: &[
        ("others", "untrusted"),
        ("untrusted: refuse", "untrusted: reject"),
        ("untrusted: serve", "untrusted: accept"),
    ],
    ..SectionSchema::EMPTY
};

/// PROXY headers that the listener at `address` accepts; `None`: off.
pub(super) fn accept_proxy(
    listener: &Fields<'_>,
    address: Option<&ListenAddress>,
) -> Option<AcceptProxyConfig> {
    let fields = listener
        .section_or_off("proxy_protocol", &ACCEPT_PROXY)
        .ok()??;
    match address {
        Some(ListenAddress::Unix(_)) => refuse_address_keys(&fields),
        _ if fields.get("from").is_none_or(is_empty) => {
            let at = fields
                .get("from")
                .map_or(fields.header_span(), YamlNode::error_span);
            let problem = Problem::error("`proxy_protocol` needs `from`, the sources to trust", at);
            fields.problems.add(problem.help(FROM_HELP));
        }
        _ => {}
    }
    let from = fields
        .get("from")
        .filter(|node| !node.is_null())
        .map(|node| networks(node, fields.problems));
    Some(AcceptProxyConfig {
        from: TrustedProxies::new(from.unwrap_or_default()),
        timeout: fields.duration("timeout", TIMEOUT, DURATION_BOUNDS),
        accept_untrusted: fields.choice("untrusted", false, UNTRUSTED),
    })
}

/// Refuses keys about addresses on a Unix socket, because there every client is trusted.
fn refuse_address_keys(fields: &Fields<'_>) {
    for key in ["from", "untrusted"] {
        if let Some(node) = fields.get(key) {
            let message =
                format!("`{key}` does not apply to a Unix socket: its clients have no address");
            let help = "remove the line; all clients that `mode` admits are trusted";
            fields.error(node, message, help);
        }
    }
}

fn is_empty(node: &YamlNode) -> bool {
    node.is_null() || items_or_one(node).is_empty()
}

pub(super) static SEND_PROXY: SectionSchema = SectionSchema {
    title: "`proxy_protocol`",
    path: "upstreams.NAME.proxy_protocol",
    example: "{version: v2, tlvs: [authority, tls]}",
    keys: &["version", "tlvs"],
    ..SectionSchema::EMPTY
};

/// The PROXY header for connections to peers; `None`: off.
pub(super) fn send_proxy(upstream: &Fields<'_>) -> Option<SendProxyConfig> {
    const KEY: &str = "proxy_protocol";
    let short = |version| SendProxyConfig {
        version,
        tlvs: Vec::new(),
    };
    if upstream.get(KEY).is_none_or(|node| node.scalar().is_some()) {
        return upstream.or_off(KEY, None, version).map(short);
    }
    let fields = upstream.section(KEY, &SEND_PROXY)?;
    fields.require("version", "write `version: v2`")?;
    let send_proxy = SendProxyConfig {
        version: fields.choice("version", ProxyHeaderVersion::V2, VERSIONS),
        tlvs: fields
            .get("tlvs")
            .map_or_else(Vec::new, |node| tlvs(&fields, node)),
    };
    if let (ProxyHeaderVersion::V1, Some(node)) = (send_proxy.version, fields.get("tlvs")) {
        let help = "write `version: v2`, or remove the line";
        fields.error(node, "`tlvs` needs version 2", help);
    }
    Some(send_proxy)
}

fn tlvs(fields: &Fields<'_>, node: &YamlNode) -> Vec<TlvKind> {
    let help = "list the extensions, as in `tlvs: [authority, tls]`";
    let problems = fields.problems;
    collect_until_full(items(node, help, problems), problems, |item| {
        parse_or_report(item, problems, |item| choose("tlvs", item, TLVS))
    })
}

fn version(node: &YamlNode) -> Result<ProxyHeaderVersion, InvalidValue> {
    choose("proxy_protocol", node, VERSIONS)
}
