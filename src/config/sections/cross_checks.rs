//! Checks of sections against each other: unused upstreams, loops, shared addresses, gaps in client authentication.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::upstreams::Upstreams;
use super::{AdminConfig, ListenAddress, ListenerConfig, PeerAddress, PeerConfig, RouteConfig};
use crate::config::fields::Fields;
use crate::config::report::{Problem, Problems, quote};
use crate::config::span::Span;

const CLIENT_AUTH_HELP: &str =
    "add `mode: required` here, too, or `client_cert: required` to the routes that need it";

/// Checks sections against each other.
pub(super) fn check_across_sections(
    root: &Fields<'_>,
    listeners: &[(ListenerConfig, Span)],
    routes: &[(RouteConfig, Span)],
    upstreams: &Upstreams<'_>,
    admin: Option<&AdminConfig>,
) {
    warn_unused(routes, upstreams, root.problems);
    warn_client_auth_gaps(listeners, routes, root.problems);
    let bound = listeners
        .iter()
        .filter_map(|(listener, span)| match listener.address {
            ListenAddress::Ip(address) => Some((address, *span)),
            ListenAddress::Unix(_) => None,
        })
        .collect();
    warn_loops(&bound, &upstreams.peers, root.problems);
    if let Some(admin) = admin.filter(|admin| admin.address.port() != 0) {
        refuse_shared_address(root, &bound, admin.address);
    }
}

fn warn_unused(routes: &[(RouteConfig, Span)], upstreams: &Upstreams<'_>, problems: &Problems) {
    // A route with an error may refer to an upstream that seems unused.
    if problems.has_errors() {
        return;
    }
    let used: HashSet<&str> = routes
        .iter()
        .map(|(route, _)| route.upstream.as_str())
        .collect();
    for (name, span) in upstreams
        .names
        .iter()
        .filter(|(name, _)| !used.contains(name))
    {
        let message = format!("no route goes to upstream {}", quote(name));
        problems.add(Problem::warning(message, *span).help("add a route, or remove the upstream"));
    }
}

fn warn_loops(
    bound: &HashMap<SocketAddr, Span>,
    peers: &[(PeerConfig, Span)],
    problems: &Problems,
) {
    for (peer, span) in peers {
        let PeerAddress::Ip(address) = peer.address else {
            continue;
        };
        if let Some(listener) = listen_addresses_for(address).find_map(|listen| bound.get(&listen))
        {
            let message = format!("peer `{address}` is this proxy itself");
            let problem = Problem::warning(message, *span).secondary(*listener, "listens here");
            problems.add(problem.help("requests would loop; use the address of the server"));
        }
    }
}

/// The addresses of listeners that accept connections to `address`. A listener on `0.0.0.0` or `[::]` also
/// accepts connections to this machine's own addresses; of these, only loopback addresses are recognized.
fn listen_addresses_for(address: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let unspecified = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let wildcard = address
        .ip()
        .is_loopback()
        .then(|| SocketAddr::new(unspecified, address.port()));
    [Some(address), wildcard].into_iter().flatten()
}

fn refuse_shared_address(root: &Fields<'_>, bound: &HashMap<SocketAddr, Span>, admin: SocketAddr) {
    if let Some(listener) = bound.get(&admin) {
        let message = format!("a listener uses the address of the admin server, `{admin}`");
        let problem = Problem::error(message, *listener);
        let problem = match root.get("admin") {
            Some(node) => problem.secondary(node.header_span(), "admin server here"),
            None => problem,
        };
        root.problems
            .add(problem.help("use another port for the listener, or set `admin.address`"));
    }
}

/// Warns of listeners that do not require client certificates next to one that does, unless a route
/// requires them: all listeners share the routes. Also warns of a route that requires a certificate when
/// no listener requests one.
fn warn_client_auth_gaps(
    listeners: &[(ListenerConfig, Span)],
    routes: &[(RouteConfig, Span)],
    problems: &Problems,
) {
    // The requirements of listeners and routes are incomplete if one of them has an error.
    if problems.has_errors() {
        return;
    }
    let auth =
        |listener: &ListenerConfig| Some(listener.tls.as_ref()?.client_auth.as_ref()?.required);
    let requires = |listener: &ListenerConfig| auth(listener) == Some(true);
    let requiring = listeners.iter().find(|(listener, _)| requires(listener));
    let by_route = routes.iter().find(|(route, _)| route.client_cert);
    if let Some((_, required)) = requiring.filter(|_| by_route.is_none()) {
        let others = listeners
            .iter()
            .filter(|(listener, _)| !requires(listener) && listener.https_redirect.is_none());
        for (_, span) in others {
            let message = "clients of this listener reach the routes without a certificate";
            let problem = Problem::warning(message, *span).secondary(*required, "required here");
            problems.add(problem.help(CLIENT_AUTH_HELP));
        }
    }
    let requested = listeners
        .iter()
        .any(|(listener, _)| auth(listener).is_some());
    if let Some((_, at)) = by_route.filter(|_| !requested) {
        let message = "the route requires a client certificate, but no listener requests one";
        let help = "add `client_auth: {mode: optional, ca: FILE}` to the `tls` of a listener";
        problems.add(Problem::warning(message, *at).help(help));
    }
}
