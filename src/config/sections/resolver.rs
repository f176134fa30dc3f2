//! `resolver`: the name servers that sources of peers in DNS ask.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::fields::{Fields, collect_until_full, items_or_one, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, quote};
use crate::config::schema::SectionSchema;
use crate::config::values::InvalidValue;

/// The name servers that `dns` and `srv` sources ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Asked one after the other until one answers; empty: those of `/etc/resolv.conf`, after `/etc/hosts`.
    pub servers: Vec<SocketAddr>,
    /// For the answer of one server.
    pub timeout: Duration,
}

const DNS_PORT: u16 = 53;
const MAX_SERVERS: usize = 8;
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const TIMEOUT_BOUNDS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(10);

pub(super) static RESOLVER: SectionSchema = SectionSchema {
    title: "`resolver`",
    path: "resolver",
    example: "{servers: [\"127.0.0.1:53\"], timeout: 2s}",
    keys: &["servers", "timeout"],
    ..SectionSchema::EMPTY
};

pub(super) fn read(root: &Fields<'_>) -> ResolverConfig {
    let fields = root.section("resolver", &RESOLVER);
    ResolverConfig {
        servers: fields.as_ref().map(servers).unwrap_or_default(),
        timeout: fields.map_or(DEFAULT_TIMEOUT, |fields| {
            fields.duration("timeout", DEFAULT_TIMEOUT, TIMEOUT_BOUNDS)
        }),
    }
}

fn servers(fields: &Fields<'_>) -> Vec<SocketAddr> {
    const HELP: &str = "list name servers, as in `servers: [\"127.0.0.1:53\"]`, or remove the line for those of the system";
    let Some(node) = fields.get("servers") else {
        return Vec::new();
    };
    let problems = fields.problems;
    let servers = collect_until_full(items_or_one(node), problems, |item| {
        let address = parse_or_report(item, problems, server)?;
        Some((address, item.error_span()))
    });
    if items_or_one(node).is_empty() {
        fields.error(node, "`servers` has no name server", HELP);
    }
    for (index, (address, span)) in servers.iter().enumerate() {
        let mut earlier = servers.iter().take(index);
        if let Some((_, first)) = earlier.find(|(first, _)| first == address) {
            let message = format!("name server {} twice", quote(&address.to_string()));
            let problem = Problem::error(message, *span).secondary(*first, "first here");
            problems.add(problem.help("remove one of the two"));
        }
    }
    if let Some((_, span)) = servers.get(MAX_SERVERS) {
        let message = format!("more than {MAX_SERVERS} name servers");
        let help = "a lookup waits for each of them in turn; list those that are near";
        problems.add(Problem::error(message, *span).help(help));
    }
    servers.into_iter().map(|(address, _)| address).collect()
}

/// An IP address, with a port unless it is that of DNS.
fn server(node: &YamlNode) -> Result<SocketAddr, InvalidValue> {
    let text = text(node, "an address like `127.0.0.1:53`")?;
    let with_port = text.parse::<SocketAddr>();
    let address = with_port.or_else(|_| {
        let address = text.parse::<IpAddr>();
        address.map(|address| SocketAddr::new(address, DNS_PORT))
    });
    match address {
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err((
            format!("{} is not the address of a name server", quote(text)),
            "write its IP address, with a port if it is not 53: `127.0.0.1:5353`, `\"[::1]:53\"`"
                .to_owned(),
        )),
    }
}
