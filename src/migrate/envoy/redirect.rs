//! Listeners that redirect all requests to HTTPS.

use super::message_fields::{FieldValue, MessageFields};
use super::tls::TransportSocket;
use crate::migrate::source::SourceSpan;

const HTTPS: u16 = 443;

/// The HTTPS port if every virtual host of these filter chains redirects all requests to it, and the span of
/// the first redirect.
pub(super) fn https_redirect_of(chains: &[FieldValue<'_>]) -> Option<(u16, SourceSpan)> {
    let mut found: Option<(u16, SourceSpan)> = None;
    for chain in chains {
        let fields = MessageFields::of(*chain);
        let socket = fields.message("transport_socket").map(TransportSocket::of);
        if !matches!(socket, None | Some(TransportSocket::RawBuffer)) {
            return None;
        }
        for filter in fields.list("filters") {
            let config = MessageFields::of(filter).message("typed_config")?;
            for host in config.message("route_config")?.list("virtual_hosts") {
                let (port, span) = virtual_host_redirect(host)?;
                if found.is_some_and(|(first, _)| first != port) {
                    return None;
                }
                found = found.or(Some((port, span)));
            }
        }
    }
    found
}

fn virtual_host_redirect(element: FieldValue<'_>) -> Option<(u16, SourceSpan)> {
    let fields = MessageFields::of(element);
    if let Some(required) = fields.get("require_tls").filter(|one| one.text() == "ALL") {
        return Some((HTTPS, required.span()));
    }
    let mut found: Option<(u16, SourceSpan)> = None;
    for route in fields.list("routes") {
        let action = MessageFields::of(route).get("redirect")?;
        let port = redirect_port(&MessageFields::of(action))?;
        if found.is_some_and(|(first, _)| first != port) {
            return None;
        }
        found = found.or(Some((port, action.span())));
    }
    found
}

/// The port of a redirect that changes only scheme and port.
fn redirect_port(action: &MessageFields<'_>) -> Option<u16> {
    let changed = [
        "host_redirect",
        "path_redirect",
        "prefix_rewrite",
        "regex_rewrite",
    ];
    let https = action.flag("https_redirect") || action.text("scheme_redirect") == Some("https");
    let changed = changed.into_iter().any(|name| action.get(name).is_some());
    if !https || changed || action.flag("strip_query") {
        return None;
    }
    let Some(port) = action.get("port_redirect") else {
        return Some(HTTPS);
    };
    let port = u16::try_from(port.number()?).ok();
    port.filter(|port| *port != 0)
}
