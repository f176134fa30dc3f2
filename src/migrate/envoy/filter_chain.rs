//! Filter chains: their SNI names, and chains without TLS in the same listener as chains with TLS.

use super::message_fields::{FieldValue, MessageFields};
use super::tls::TransportSocket;
use super::tls_termination::DownstreamTls;
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::route::{HostPattern, UpgradeProtocols};

const SNI_SELECTS_CERTIFICATE: &str =
    "Clockwise chooses a certificate by the names in it, and a route by the host of the request";
const PLAIN_OR_TLS: &str = "a listener speaks TLS with all its clients or with none; give the plain filter chain an address of its own";

/// The settings of one filter chain that its routes need.
#[derive(Default)]
pub(super) struct FilterChain {
    /// SNI names of the chain; empty means any name.
    pub(super) server_names: Vec<HostPattern>,
    pub(super) tls: DownstreamTls,
    /// The protocols to which clients may switch: `upgrade_configs`.
    pub(super) upgrades: Vec<String>,
    /// Its listener redirects all requests to HTTPS.
    pub(super) is_https_redirect: bool,
}

/// Adds the protocols of `upgrade_configs` to those of the connection manager; removes those that are disabled. `CONNECT` is a
/// method, which Clockwise refuses.
pub(super) fn upgrades(fields: &MessageFields<'_>, inherited: &[String]) -> Vec<String> {
    let mut upgrades = inherited.to_vec();
    for item in fields.list("upgrade_configs") {
        let config = MessageFields::of(item);
        let protocol = config.text("upgrade_type").unwrap_or_default();
        upgrades.retain(|known| !known.eq_ignore_ascii_case(protocol));
        let is_enabled = config.text("enabled") != Some("false");
        let is_protocol = protocol != "CONNECT" && UpgradeProtocols::none().add(protocol).is_ok();
        if is_enabled && is_protocol {
            upgrades.push(protocol.to_owned());
        }
    }
    upgrades
}

/// The protocols of a route, unless they are the default.
pub(super) fn upgrade_of_route(upgrades: Vec<String>) -> Option<Vec<String>> {
    let is_default = matches!(&*upgrades, [only] if only.eq_ignore_ascii_case("websocket"));
    (!is_default).then_some(upgrades)
}

/// The SNI names of a filter chain.
pub(super) fn server_names(
    fields: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<HostPattern> {
    let Some(matched) = fields.message("filter_chain_match") else {
        return Vec::new();
    };
    matched.ignore(&["transport_protocol", "application_protocols"]);
    let mut names = Vec::new();
    for name in matched.list("server_names") {
        match HostPattern::parse(name.text()) {
            Ok(pattern) if names.contains(&pattern) => {}
            Ok(pattern) => names.push(pattern),
            Err(_) => {
                let why = "a host is a name or `*.name`; list the names";
                comments.push(notes.gap(name.span(), name.text(), why));
            }
        }
    }
    if let Some(field) = matched.get("server_names") {
        comments.push(notes.remark(field.span(), "server_names", SNI_SELECTS_CERTIFICATE));
    }
    matched.note_unread(comments, notes);
    names
}

/// Notes the plain filter chains of a listener with TLS.
pub(super) fn note_plain_chains(
    chains: &[FieldValue<'_>],
    listener: &mut ListenerDraft,
    notes: &Notes<'_>,
) {
    let plain = chains.iter().filter(|chain| {
        let socket = MessageFields::of(**chain)
            .message("transport_socket")
            .map(TransportSocket::of);
        matches!(socket, None | Some(TransportSocket::RawBuffer))
    });
    for chain in plain.filter(|_| listener.tls.is_some()) {
        let comment = notes.gap(chain.span(), "filter_chains", PLAIN_OR_TLS);
        listener.comments.push(comment);
    }
}
