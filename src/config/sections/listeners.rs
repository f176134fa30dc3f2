//! `listeners`: the sockets that clients connect to.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::{
    AcceptProxyConfig, ListenAddress, SocketOptions, TlsConfig, proxy_protocol, socket, tls,
};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, collect_until_full, items, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::{InvalidValue, number};

/// A listening socket and how its connections are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address to bind.
    pub address: ListenAddress,
    /// Socket options.
    pub socket: SocketOptions,
    /// PROXY headers that are expected from clients; `None`: the client is the socket's peer.
    pub proxy_protocol: Option<AcceptProxyConfig>,
    /// Connections that the kernel may queue before they are accepted (`listen(2)`); the system's
    /// `net.core.somaxconn` caps it.
    pub backlog: u32,
    /// TLS; `None`: plain text.
    pub tls: Option<TlsConfig>,
    /// Whether HTTP/2 without TLS is accepted (prior knowledge, RFC 9113 §3.3).
    pub h2c: bool,
    /// Redirects every request to HTTPS on this port; `None`: requests are served.
    pub https_redirect: Option<u16>,
}

impl ListenerConfig {
    /// A listener without TLS, with default options.
    pub fn plain(address: SocketAddr, backlog: u32) -> Self {
        Self {
            address: ListenAddress::Ip(address),
            socket: SocketOptions::default(),
            proxy_protocol: None,
            backlog,
            tls: None,
            h2c: false,
            https_redirect: None,
        }
    }
}

const DEFAULT_BACKLOG: u32 = 4096;
const HELP: &str = "write `- address: 0.0.0.0:8080`";

/// The listeners with the spans of their addresses.
pub(super) fn read(
    root: &Fields<'_>,
    loader: &mut CredentialLoader,
) -> Vec<(ListenerConfig, Span)> {
    let Some(node) = root.require("listeners", "write `listeners: [{address: 0.0.0.0:8080}]`")
    else {
        return Vec::new();
    };
    let problems = root.problems;
    let listeners = collect_until_full(items(node, HELP, problems), problems, |item| {
        listener(item, loader, problems)
    });
    refuse_duplicate_addresses(&listeners, problems);
    refuse_dual_stack_overlap(&listeners, problems);
    listeners
}

pub(super) static LISTENER: SectionSchema = SectionSchema {
    title: "a listener",
    path: "listeners[]",
    example: "{address: 0.0.0.0:8080}",
    keys: &[
        "address",
        "backlog",
        "ipv6_only",
        "reuse_port",
        "freebind",
        "mode",
        "owner",
        "group",
        "proxy_protocol",
        "tls",
        "h2c",
        "https_redirect",
    ],
    nested: &[&proxy_protocol::ACCEPT_PROXY, &tls::TLS],
    ..SectionSchema::EMPTY
};

fn listener(
    node: &YamlNode,
    loader: &mut CredentialLoader,
    problems: &Problems,
) -> Option<(ListenerConfig, Span)> {
    let fields = Fields::open(node, &LISTENER, problems)?;
    let backlog = fields.number("backlog", DEFAULT_BACKLOG, 1..=65_535);
    let tls = tls::read(&fields, loader);
    let https_redirect = fields.or_off("https_redirect", None, port);
    if let (Some(_), Some(redirect)) = (&tls, fields.get("https_redirect"))
        && https_redirect.is_some()
    {
        let help = "set it on the listener without TLS";
        fields.error(redirect, "`https_redirect` on a listener with TLS", help);
    }
    let h2c = h2c(&fields, tls.is_some());
    let written = fields.require("address", HELP);
    let address = written.and_then(|node| parse_or_report(node, problems, listen_address));
    let proxy_protocol = proxy_protocol::accept_proxy(&fields, address.as_ref());
    let (address, span) = (address?, written?.error_span());
    let listener = ListenerConfig {
        socket: socket::options(&fields, &address),
        address,
        proxy_protocol,
        backlog,
        tls,
        h2c,
        https_redirect,
    };
    Some((listener, span))
}

/// HTTP/2 without TLS; `tls.http2` is the key for HTTP/2 with TLS.
fn h2c(fields: &Fields<'_>, is_tls: bool) -> bool {
    let h2c = fields.flag("h2c", false);
    if let Some(node) = fields.get("h2c").filter(|_| h2c && is_tls) {
        let help = "remove it: with TLS, clients are offered HTTP/2 by default";
        fields.error(
            node,
            "`h2c` is HTTP/2 without TLS, and this listener has TLS",
            help,
        );
    }
    h2c
}

fn port(node: &YamlNode) -> Result<u16, InvalidValue> {
    let port = number("https_redirect", node, &(1..=65_535))?;
    u16::try_from(port).map_err(|_| (format!("`{port}` is not a port"), "use 443".to_owned()))
}

/// An address to bind, or the path of a Unix socket.
fn listen_address(node: &YamlNode) -> Result<ListenAddress, InvalidValue> {
    let text = text(node, "an address like `0.0.0.0:8080`")?;
    match text.strip_prefix("unix:") {
        Some(path) => socket::socket_path(path).map(ListenAddress::Unix),
        None if text.starts_with('/') => socket::socket_path(text).map(ListenAddress::Unix),
        None => bind_address(node).map(ListenAddress::Ip),
    }
}

/// An address to bind: an IP address and a port. Port 0 lets the system choose.
pub(super) fn bind_address(node: &YamlNode) -> Result<SocketAddr, InvalidValue> {
    let text = text(node, "an address like `0.0.0.0:8080`")?;
    text.parse().map_err(|_| {
        (
            format!("{} is not an address to listen on", quote(text)),
            address_help(text),
        )
    })
}

fn address_help(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    match (host, port.parse::<u16>()) {
        _ if text.matches(':').count() > 1 => {
            "an IPv6 address has brackets and a port, in quotes: `\"[::1]:8080\"`".to_owned()
        }
        ("" | "*", Ok(port)) => {
            format!("write `0.0.0.0:{port}` for all IPv4 addresses, `\"[::]:{port}\"` for IPv6")
        }
        ("localhost", Ok(port)) => format!("write `127.0.0.1:{port}`"),
        ("", Err(_)) => "add the port, as in `0.0.0.0:8080`".to_owned(),
        (_, Err(_)) => "a port is a number from 0 to 65535, as in `0.0.0.0:8080`".to_owned(),
        _ => "host names are not resolved here; use an IP address and a port".to_owned(),
    }
}

fn refuse_duplicate_addresses(listeners: &[(ListenerConfig, Span)], problems: &Problems) {
    let mut seen = HashMap::new();
    for (listener, span) in listeners.iter().filter(
        |(listener, _)| !matches!(listener.address, ListenAddress::Ip(ip) if ip.port() == 0),
    ) {
        if let Some(first) = seen.insert(&listener.address, *span) {
            let message = format!("two listeners on {}", quote(&listener.address.to_string()));
            let problem = Problem::error(message, *span).secondary(first, "first here");
            problems.add(problem.help("remove one, or give it another address or port"));
        }
    }
}

/// Refuses an IPv4 listener on a port that a dual-stack listener on `[::]` has.
fn refuse_dual_stack_overlap(listeners: &[(ListenerConfig, Span)], problems: &Problems) {
    let dual = listeners.iter().filter_map(|(listener, span)| {
        let both = listener.socket.ipv6_only != Some(true);
        match listener.address {
            ListenAddress::Ip(SocketAddr::V6(v6)) if both && v6.ip().is_unspecified() => {
                Some((v6.port(), *span))
            }
            _ => None,
        }
    });
    let dual: HashMap<u16, Span> = dual.filter(|(port, _)| *port != 0).collect();
    for (listener, span) in listeners {
        if let ListenAddress::Ip(SocketAddr::V4(v4)) = listener.address
            && let Some(other) = dual.get(&v4.port())
        {
            let message = format!("two listeners on port {} of IPv4", v4.port());
            let problem = Problem::error(message, *span).secondary(*other, "accepts IPv4, too");
            problems
                .add(problem.help("add `ipv6_only: true` to that listener, or remove this one"));
        }
    }
}
