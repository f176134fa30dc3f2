//! `upstreams`: the named groups of peers.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::uri::Authority;

use super::{balance, key, peers, policy};
use crate::config::fields::{Fields, accept, entries, text, written};
use crate::config::raw::{Entry, Node, Span};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::{self, nearest};
use crate::config::settings::{HostHeader, MissingKey, Peer, Upstream};
use crate::config::values::{Fault, percentage};
use crate::ring::{Dialect, Ring};

const HELP: &str = "write `upstreams:`, below it a name, and below that `peers:`";
const MAX_NAME: usize = 64;
const MISSING_KEY: &[(&str, MissingKey)] = &[
    ("round_robin", MissingKey::RoundRobin),
    ("reject", MissingKey::Reject),
];

/// The upstreams that could be read, and all names that were given, with their places.
pub(super) struct Upstreams<'a> {
    pub(super) resolved: BTreeMap<String, Upstream>,
    pub(super) names: Vec<(&'a str, Span)>,
    /// Every peer with its place.
    pub(super) peers: Vec<(Peer, Span)>,
}

pub(super) fn read<'a>(root: &Fields<'a>) -> Upstreams<'a> {
    let mut all = Upstreams {
        resolved: BTreeMap::new(),
        names: Vec::new(),
        peers: Vec::new(),
    };
    let Some(node) = root.require("upstreams", HELP) else {
        return all;
    };
    let Some(unique) = entries(node, "`upstreams`", || HELP.to_owned(), root.problems) else {
        return all;
    };
    if unique.is_empty() {
        root.error(node, "the map is empty", HELP);
    }
    for entry in written(node)
        .iter()
        .take_while(|_| !root.problems.is_full())
    {
        all.names.push((&entry.key, entry.key_span));
        check_name(entry, root.problems);
        if let Some((upstream, places)) = upstream(&entry.value, root.problems) {
            all.peers.extend(upstream.peers.iter().cloned().zip(places));
            all.resolved.insert(entry.key.clone(), upstream);
        }
    }
    all
}

/// Names stand in URLs, metrics and on command lines.
fn check_name(entry: &Entry, problems: &Problems) {
    let name = entry.key.as_str();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > MAX_NAME || !name.bytes().all(good) {
        let message = format!("{} cannot name an upstream", quote(name));
        let help = format!("use 1 to {MAX_NAME} letters, digits, `-`, `_` or `.`");
        problems.add(Problem::error(message, entry.key_span).help(help));
    }
}

fn upstream(node: &Node, problems: &Problems) -> Option<(Upstream, Vec<Span>)> {
    let fields = Fields::open(node, &schema::UPSTREAM, problems)?;
    let key = fields
        .get("key")
        .map_or_else(key::default, |node| key::read(node, problems));
    let dialect = fields.get("ring").and_then(|node| ring(node, problems));
    let dialect = dialect.unwrap_or(Dialect::Ketama {
        points: Dialect::DEFAULT_POINTS,
    });
    let (peers, places) = peers::read(&fields);
    check_ring(&fields, dialect, &peers);
    let upstream = Upstream {
        key,
        missing_key: fields.choice("missing_key", MissingKey::RoundRobin, MISSING_KEY),
        dialect,
        peers,
        health: policy::health(&fields),
        passive: policy::passive(&fields),
        retry: policy::retry(&fields),
        timeouts: policy::timeouts(&fields),
        host_header: fields
            .read("host_header", host_header)
            .unwrap_or(HostHeader::Keep),
        max_moved: fields.or_off("max_moved", None, percentage),
        bounded_load: balance::bounded_load(&fields),
        slow_start: balance::slow_start(&fields),
        drain: balance::drain(&fields),
        hot_keys: balance::hot_keys(&fields),
        flap_damping: balance::flap_damping(&fields),
        close_moved_streams: balance::close_moved_streams(&fields),
    };
    Some((upstream, places))
}

fn ring(node: &Node, problems: &Problems) -> Option<Dialect> {
    if node.text().is_some() {
        return accept(node, problems, dialect_name).map(Name::default_dialect);
    }
    let fields = Fields::open(node, &schema::RING, problems)?;
    let name = fields.read("dialect", dialect_name);
    let name = if fields.get("dialect").is_some() {
        name?
    } else {
        Name::Ketama
    };
    match name {
        Name::Ketama => {
            refuse(
                &fields,
                "replicas",
                "dialect `ketama` has `points`; `replicas` is of `circle`",
            );
            let points = fields
                .get("points")
                .and_then(|node| accept(node, problems, points));
            points.or(Some(name.default_dialect()))
        }
        Name::Circle => {
            refuse(
                &fields,
                "points",
                "dialect `circle` has `replicas`; `points` is of `ketama`",
            );
            let most = u64::from(Dialect::MAX_POINTS);
            Dialect::circle(fields.number("replicas", Dialect::DEFAULT_REPLICAS, 1..=most))
        }
    }
}

#[derive(Clone, Copy)]
enum Name {
    Ketama,
    Circle,
}

impl Name {
    fn default_dialect(self) -> Dialect {
        match self {
            Self::Ketama => Dialect::Ketama {
                points: Dialect::DEFAULT_POINTS,
            },
            Self::Circle => Dialect::Circle {
                replicas: Dialect::DEFAULT_REPLICAS,
            },
        }
    }
}

fn dialect_name(node: &Node) -> Result<Name, Fault> {
    match text(node, "a dialect")? {
        "ketama" => Ok(Name::Ketama),
        "circle" => Ok(Name::Circle),
        other => Err((
            format!("there is no ring dialect {}", quote(other)),
            match nearest(other, ["ketama", "circle"]) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "use `ketama` or `circle`".to_owned(),
            },
        )),
    }
}

fn points(node: &Node) -> Result<Dialect, Fault> {
    let most = u64::from(Dialect::MAX_POINTS);
    let points = crate::config::values::number("points", node, &(4..=most))?;
    let dialect = u32::try_from(points).ok().and_then(Dialect::ketama);
    dialect.ok_or_else(|| {
        let help = format!(
            "one MD5 gives four points; use {} or {}",
            points / 4 * 4,
            points / 4 * 4 + 4
        );
        (format!("`{points}` is not a multiple of 4"), help)
    })
}

fn refuse(fields: &Fields<'_>, key: &'static str, help: &str) {
    if let Some(node) = fields.get(key) {
        let problem = Problem::error(format!("`{key}` does not fit the dialect"), node.head());
        fields.problems.add(problem.help(help));
    }
}

/// A ring that cannot be built must not be found out at the start.
fn check_ring(fields: &Fields<'_>, dialect: Dialect, peers: &[Peer]) {
    if peers.len() > Ring::MAX_MEMBERS {
        let message = format!("{} peers are more than a ring can have", peers.len());
        let help = format!(
            "use at most {}, in several upstreams if need be",
            Ring::MAX_MEMBERS
        );
        fields
            .problems
            .add(Problem::error(message, fields.head()).help(help));
    }
    let weights = peers
        .iter()
        .map(|peer| u64::from(peer.weight.get()))
        .sum::<u64>();
    let points = weights.saturating_mul(u64::from(points_per_weight(dialect)));
    if points > u64::from(Ring::MAX_POINTS) {
        let message = format!(
            "the ring would have {points} points, more than {}",
            Ring::MAX_POINTS
        );
        let help = "divide the weights by a common factor, or ask for fewer points";
        fields
            .problems
            .add(Problem::error(message, fields.head()).help(help));
    }
}

fn points_per_weight(dialect: Dialect) -> u32 {
    match dialect {
        Dialect::Ketama { points } => points,
        Dialect::Circle { replicas } => replicas,
    }
}

fn host_header(node: &Node) -> Result<HostHeader, Fault> {
    match text(node, "`keep`, `peer` or a host")? {
        "keep" => Ok(HostHeader::Keep),
        "peer" => Ok(HostHeader::Peer),
        host => host_value(host).map(HostHeader::Set),
    }
}

/// A literal `Host`, with or without a port.
pub(super) fn host_value(host: &str) -> Result<HeaderValue, Fault> {
    let valid = host
        .parse::<Authority>()
        .is_ok_and(|authority| !authority.as_str().contains('@'));
    let value = HeaderValue::from_str(host).ok().filter(|_| valid);
    value.ok_or_else(|| {
        let help = "give a host name, with a port if need be, as in `app.example.com:8080`";
        (
            format!("{} cannot be sent as `Host`", quote(host)),
            help.to_owned(),
        )
    })
}
