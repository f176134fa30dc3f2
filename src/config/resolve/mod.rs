//! Turns the raw tree into a [`Config`].
//!
//! One file per section. Each reads its keys through [`Fields`], which reports invalid values and
//! continues with the default. This file reads the top level and checks sections against each other.
//! Only the [`CredentialLoader`] does I/O.

mod acme;
mod cookie;
mod downstream;
mod failure_policy;
mod file_path;
mod health;
mod host_header;
mod key;
mod listeners;
mod load_balancing;
mod networks;
mod peers;
mod process;
mod proxy_protocol;
mod ring;
mod routes;
mod socket;
mod tls;
mod upstream_protocol;
mod upstreams;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::credential_loader::CredentialLoader;
use super::fields::Fields;
use super::raw::YamlNode;
use super::report::{Problem, Problems, quote};
use super::schema;
use super::settings::{
    AdminConfig, Config, ListenAddress, ListenerConfig, PeerAddress, PeerConfig, RouteConfig,
};
use super::values::DURATION_BOUNDS;
use crate::config::span::Span;
pub(crate) use cookie::is_name as is_cookie_name;
pub(crate) use file_path::is_file_path;
pub(crate) use health::is_probe_path;
pub(crate) use host_header::is_host;
pub(crate) use key::is_query_name;
pub(crate) use peers::is_address;
pub(crate) use tls::MAX_HSTS_AGE;
use upstreams::Upstreams;

const UPGRADE_TIMEOUT: Duration = Duration::from_secs(60);

/// Resolves `root`. If an error was reported, the result must not be used: resolving continues after an error
/// only to find more problems.
pub(super) fn config(
    root: &YamlNode,
    mut loader: CredentialLoader,
    problems: &Problems,
) -> Option<Config> {
    let fields = Fields::open(root, &schema::ROOT, problems)?;
    let listeners = listeners::read(&fields, &mut loader);
    let upstreams = upstreams::read(&fields, &mut loader);
    let routes = routes::read(&fields, &upstreams);
    let admin = process::admin(&fields);
    check_across_sections(&fields, &listeners, &routes, &upstreams, admin.as_ref());
    let acme = acme::read(&fields, &listeners, &mut loader);
    Some(Config {
        listeners: without_spans(listeners),
        routes: without_spans(routes),
        upstreams: upstreams.resolved,
        downstream: downstream::downstream(&fields),
        forwarding: downstream::forwarding(&fields),
        trusted_proxies: downstream::trusted_proxies(&fields),
        admin,
        threads: process::threads(&fields),
        access_log: process::access_log(&fields),
        error_log: process::error_log(&fields),
        control: process::control(&fields),
        drain_timeout: process::drain_timeout(&fields),
        upgrade_timeout: fields.duration("upgrade_timeout", UPGRADE_TIMEOUT, DURATION_BOUNDS),
        watch: process::watch(&fields),
        state_file: process::state_file(&fields),
        pool_size: fields.number("pool_size", 512, 1..=65_536),
        acme,
        credentials: loader.credentials,
    })
}

fn without_spans<T>(spanned: Vec<(T, Span)>) -> Vec<T> {
    spanned.into_iter().map(|(value, _)| value).collect()
}

/// Checks sections against each other.
fn check_across_sections(
    root: &Fields<'_>,
    listeners: &[(ListenerConfig, Span)],
    routes: &[(RouteConfig, Span)],
    upstreams: &Upstreams<'_>,
    admin: Option<&AdminConfig>,
) {
    warn_unused(routes, upstreams, root.problems);
    tls::warn_client_auth_gaps(listeners, routes, root.problems);
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
