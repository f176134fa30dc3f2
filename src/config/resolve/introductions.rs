//! `proxy_protocol` of a listener, and of an upstream: who says whose a connection is.

use std::time::Duration;

use super::{BOUNDS, client};
use crate::client::TrustedProxies;
use crate::config::fields::{Fields, accept, choose, collect, items, items_or_one};
use crate::config::raw::Node;
use crate::config::report::Problem;
use crate::config::schema;
use crate::config::settings::{Introduction, Introductions, ListenAddress, Tell};
use crate::config::values::Fault;
use crate::proxy_protocol::Version;

const TIMEOUT: Duration = Duration::from_secs(5);
const FROM: &str = "list the networks of those in front, as in `from: [10.0.0.0/8]`";

const OTHERS: &[(&str, bool)] = &[("refuse", false), ("serve", true)];
const VERSIONS: &[(&str, Version)] = &[("v1", Version::One), ("v2", Version::Two)];
const TELLS: &[(&str, Tell)] = &[
    ("authority", Tell::Authority),
    ("alpn", Tell::Alpn),
    ("tls", Tell::Tls),
    ("unique_id", Tell::UniqueId),
    ("checksum", Tell::Checksum),
];

/// Who tells the listener at this address whose connections it is given; `None`: nobody.
pub(super) fn awaited(
    listener: &Fields<'_>,
    address: Option<&ListenAddress>,
) -> Option<Introductions> {
    let fields = listener
        .section_or_off("proxy_protocol", &schema::INTRODUCTIONS)
        .ok()??;
    match address {
        Some(ListenAddress::Unix(_)) => refuse_addresses(&fields),
        _ if fields.get("from").is_none_or(is_empty) => {
            let at = fields.get("from").map_or(fields.head(), Node::place);
            let problem = Problem::error("nobody is named whose header is believed", at);
            fields.problems.add(problem.help(FROM));
        }
        _ => {}
    }
    let from = fields
        .get("from")
        .filter(|node| !node.is_null())
        .map(|node| client::networks(node, fields.problems));
    Some(Introductions {
        from: TrustedProxies::new(from.unwrap_or_default()),
        timeout: fields.duration("timeout", TIMEOUT, BOUNDS),
        serve_others: fields.choice("others", false, OTHERS),
    })
}

/// On a Unix socket nobody has an address: whoever may connect is believed.
fn refuse_addresses(fields: &Fields<'_>) {
    for key in ["from", "others"] {
        if let Some(node) = fields.get(key) {
            let message = format!("`{key}` on a Unix socket, where nobody has an address");
            let help = "remove the line; whoever may connect is believed, and `mode` says who may";
            fields.error(node, message, help);
        }
    }
}

fn is_empty(node: &Node) -> bool {
    node.is_null() || items_or_one(node).is_empty()
}

/// What a peer is told of each connection; `None`: nothing.
pub(super) fn told(upstream: &Fields<'_>) -> Option<Introduction> {
    const KEY: &str = "proxy_protocol";
    let short = |version| Introduction {
        version,
        tells: Vec::new(),
    };
    if upstream.get(KEY).is_none_or(|node| node.scalar().is_some()) {
        return upstream.or_off(KEY, None, version).map(short);
    }
    let fields = upstream.section(KEY, &schema::INTRODUCTION)?;
    fields.require("version", "write `version: v2`")?;
    let introduction = Introduction {
        version: fields.choice("version", Version::Two, VERSIONS),
        tells: fields
            .get("tlvs")
            .map_or_else(Vec::new, |node| tells(&fields, node)),
    };
    if let (Version::One, Some(node)) = (introduction.version, fields.get("tlvs")) {
        let help = "write `version: v2`, or remove the line";
        fields.error(node, "version 1 tells nothing but addresses", help);
    }
    Some(introduction)
}

fn tells(fields: &Fields<'_>, node: &Node) -> Vec<Tell> {
    let help = "list what is told, as in `tlvs: [authority, tls]`";
    let problems = fields.problems;
    collect(items(node, help, problems), problems, |item| {
        accept(item, problems, |item| choose(item, TELLS))
    })
}

fn version(node: &Node) -> Result<Version, Fault> {
    choose(node, VERSIONS)
}
