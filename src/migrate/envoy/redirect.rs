//! Listeners that send all their requests to HTTPS.

use super::fields::{Element, Fields};
use super::tls::Socket;
use crate::migrate::source::Place;

const HTTPS: u16 = 443;

/// The port, where every virtual host behind these filter chains sends all its requests to the same
/// one, and where that is said.
pub(super) fn of(chains: &[Element<'_>]) -> Option<(u16, Place)> {
    let mut found: Option<(u16, Place)> = None;
    for chain in chains {
        let fields = Fields::of(*chain);
        let socket = fields.map("transport_socket").map(Socket::of);
        if !matches!(socket, None | Some(Socket::Plain)) {
            return None;
        }
        for filter in fields.list("filters") {
            let config = Fields::of(filter).map("typed_config")?;
            for host in config.map("route_config")?.list("virtual_hosts") {
                let (port, place) = virtual_host(host)?;
                if found.is_some_and(|(first, _)| first != port) {
                    return None;
                }
                found = found.or(Some((port, place)));
            }
        }
    }
    found
}

fn virtual_host(element: Element<'_>) -> Option<(u16, Place)> {
    let fields = Fields::of(element);
    if let Some(required) = fields.get("require_tls").filter(|one| one.text() == "ALL") {
        return Some((HTTPS, required.place()));
    }
    let mut found: Option<(u16, Place)> = None;
    for route in fields.list("routes") {
        let action = Fields::of(route).get("redirect")?;
        let port = port(&Fields::of(action))?;
        if found.is_some_and(|(first, _)| first != port) {
            return None;
        }
        found = found.or(Some((port, action.place())));
    }
    found
}

/// The port, if nothing else is changed about the address but that it is one of HTTPS.
fn port(action: &Fields<'_>) -> Option<u16> {
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
