//! `ring`: the dialect and its options.

use std::ops::RangeInclusive;

use crate::config::fields::{Fields, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::{self, nearest};
use crate::config::settings::PeerConfig;
use crate::config::values::{InvalidValue, number};
use crate::ring::ats::{self, Ats};
use crate::ring::caddy::{self, Caddy};
use crate::ring::envoy::{self, Envoy};
use crate::ring::haproxy::{self, Haproxy};
use crate::ring::twemproxy::{self, Twemproxy};
use crate::ring::varnish::{self, Varnish};
use crate::ring::{Dialect, Ring};

/// A dialect, what it is without options, the options it has, and how they are read.
struct DialectSpec {
    name: &'static str,
    default: fn() -> Dialect,
    options: &'static [&'static str],
    read: fn(&Fields<'_>) -> Option<Dialect>,
}

const DIALECTS: &[DialectSpec] = &[
    DialectSpec {
        name: "ketama",
        default: Dialect::default,
        options: &["points"],
        read: |fields| parse_or_report(fields.get("points")?, fields.problems, points),
    },
    DialectSpec {
        name: "circle",
        default: || Dialect::Circle {
            replicas: Dialect::DEFAULT_REPLICAS,
        },
        options: &["replicas"],
        read: |fields| Dialect::circle(replicas(fields, Dialect::DEFAULT_REPLICAS)),
    },
    DialectSpec {
        name: "nginx",
        default: || Dialect::Nginx,
        options: &[],
        read: |_| None,
    },
    DialectSpec {
        name: "haproxy",
        default: || Dialect::Haproxy(Haproxy::default()),
        options: &["hash", "avalanche"],
        read: |fields| Some(Dialect::Haproxy(haproxy(fields))),
    },
    DialectSpec {
        name: "envoy",
        default: || Dialect::Envoy(Envoy::default()),
        options: &["hash", "minimum_ring_size", "maximum_ring_size"],
        read: |fields| Some(Dialect::Envoy(envoy(fields))),
    },
    DialectSpec {
        name: "varnish",
        default: || Dialect::Varnish(Varnish::default()),
        options: &["by", "replicas"],
        read: |fields| {
            Some(Dialect::Varnish(Varnish {
                by: fields.choice("by", varnish::ShardBy::Url, varnish::ShardBy::NAMES),
                replicas: replicas(fields, Varnish::DEFAULT_REPLICAS),
            }))
        },
    },
    DialectSpec {
        name: "libketama",
        default: || Dialect::Libketama,
        options: &[],
        read: |_| None,
    },
    DialectSpec {
        name: "twemproxy",
        default: || Dialect::Twemproxy(Twemproxy::default()),
        options: &["hash", "hash_tag"],
        read: |fields| Some(Dialect::Twemproxy(twemproxy(fields))),
    },
    DialectSpec {
        name: "ats",
        default: || Dialect::Ats(Ats::default()),
        options: &["hash", "replicas"],
        read: |fields| {
            let plain = Ats::default();
            Some(Dialect::Ats(Ats {
                function: fields.choice("hash", plain.function, ats::AtsHash::NAMES),
                replicas: replicas(fields, Ats::DEFAULT_REPLICAS),
            }))
        },
    },
    DialectSpec {
        name: "caddy",
        default: || Dialect::Caddy(Caddy::default()),
        options: &["hash"],
        read: |fields| {
            let plain = Caddy::default().function;
            Some(Dialect::Caddy(Caddy {
                function: fields.choice("hash", plain, caddy::CaddyHash::NAMES),
            }))
        },
    },
    DialectSpec {
        name: "traefik",
        default: || Dialect::Traefik,
        options: &[],
        read: |_| None,
    },
];

/// A name, or a name with options.
pub(super) fn read(node: &YamlNode, problems: &Problems) -> Option<Dialect> {
    if node.text().is_some() {
        return parse_or_report(node, problems, dialect_spec).map(|kind| (kind.default)());
    }
    let fields = Fields::open(node, &schema::RING, problems)?;
    let kind = match fields.get("dialect") {
        Some(_) => fields.read("dialect", dialect_spec)?,
        None => DIALECTS.first()?,
    };
    refuse_foreign_options(kind, &fields);
    (kind.read)(&fields).or_else(|| Some((kind.default)()))
}

/// A ring that cannot be built must not be found out at the start.
pub(super) fn check_size(fields: &Fields<'_>, dialect: Dialect, peers: &[PeerConfig]) {
    if peers.len() > Ring::MAX_MEMBERS {
        let message = format!("{} peers are more than a ring can have", peers.len());
        let help = format!(
            "use at most {}, in several upstreams if need be",
            Ring::MAX_MEMBERS
        );
        fields
            .problems
            .add(Problem::error(message, fields.header_span()).help(help));
    }
    warn_weights_ignored(fields, dialect, peers);
    let weights: Vec<_> = peers.iter().map(|peer| peer.weight).collect();
    let points = dialect.total_points(&weights);
    if points > u64::from(Ring::MAX_POINTS) {
        let message = format!(
            "the ring would have {points} points, more than {}",
            Ring::MAX_POINTS
        );
        let help = "divide the weights by a common factor, or ask for fewer points";
        fields
            .problems
            .add(Problem::error(message, fields.header_span()).help(help));
    }
}

/// What is written and counts for nothing on the ring.
fn warn_weights_ignored(fields: &Fields<'_>, dialect: Dialect, peers: &[PeerConfig]) {
    let differ = peers.windows(2).any(|pair| match pair {
        [one, other] => one.weight != other.weight,
        _ => false,
    });
    let Some(node) = fields
        .get("ring")
        .filter(|_| differ && !dialect.supports_weights())
    else {
        return;
    };
    let message = format!(
        "dialect `{}` has no weights: each peer owns as many keys as any other",
        dialect.name()
    );
    let help = "the weights only count for requests without a key and for `bounded_load`";
    let problem = Problem::warning(message, node.error_span());
    fields.problems.add(problem.help(help));
}

fn dialect_spec(node: &YamlNode) -> Result<&'static DialectSpec, InvalidValue> {
    let name = text(node, "a dialect")?;
    let found = DIALECTS.iter().find(|kind| kind.name == name);
    found.ok_or_else(|| {
        let names = DIALECTS.iter().map(|kind| kind.name);
        let help = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", list_or(names)),
        };
        (format!("there is no ring dialect {}", quote(name)), help)
    })
}

/// An option of another dialect does nothing here.
fn refuse_foreign_options(kind: &DialectSpec, fields: &Fields<'_>) {
    let options = schema::RING.keys.iter().filter(|key| **key != "dialect");
    for key in options.filter(|key| !kind.options.contains(key)) {
        let Some(node) = fields.get(key) else {
            continue;
        };
        let help = match kind.options {
            [] => format!("dialect `{}` has no options", kind.name),
            own => format!(
                "dialect `{}` has {}",
                kind.name,
                list_or(own.iter().copied())
            ),
        };
        let problem = Problem::error(
            format!("`{key}` does not fit the dialect"),
            node.header_span(),
        );
        fields.problems.add(problem.help(help));
    }
}

fn list_or(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn replicas(fields: &Fields<'_>, default: u32) -> u32 {
    fields.number("replicas", default, 1..=u64::from(Dialect::MAX_POINTS))
}

fn points(node: &YamlNode) -> Result<Dialect, InvalidValue> {
    let most = u64::from(Dialect::MAX_POINTS);
    let points = number("points", node, &(4..=most))?;
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

/// As in HAProxy, a function that is named is not followed by the avalanche unless that is named too;
/// `balance source` has no function to name.
fn haproxy(fields: &Fields<'_>) -> Haproxy {
    let plain = Haproxy::default();
    let function = fields.choice("hash", plain.function, haproxy::HaproxyHash::NAMES);
    let named = fields.get("hash").is_some() && function != haproxy::HaproxyHash::Source;
    Haproxy {
        function,
        avalanche: fields.flag("avalanche", !named),
    }
}

fn envoy(fields: &Fields<'_>) -> Envoy {
    let plain = Envoy::default();
    let size: RangeInclusive<u64> = 1..=u64::from(Envoy::MAX_RING_SIZE);
    let maximum = fields.number("maximum_ring_size", plain.maximum_ring_size, size.clone());
    let minimum = fields.number(
        "minimum_ring_size",
        plain.minimum_ring_size.min(maximum),
        size,
    );
    if let Some(node) = fields.get("minimum_ring_size")
        && minimum > maximum
    {
        let message = format!("`minimum_ring_size` is above `maximum_ring_size`, {maximum}");
        fields.error(node, message, "use a smaller one");
    }
    Envoy {
        function: fields.choice("hash", plain.function, envoy::EnvoyHash::NAMES),
        minimum_ring_size: minimum.min(maximum),
        maximum_ring_size: maximum,
    }
}

fn twemproxy(fields: &Fields<'_>) -> Twemproxy {
    let plain = Twemproxy::default();
    Twemproxy {
        function: fields.choice("hash", plain.function, twemproxy::TwemproxyHash::NAMES),
        hash_tag: fields.read("hash_tag", hash_tag),
    }
}

fn hash_tag(node: &YamlNode) -> Result<[u8; 2], InvalidValue> {
    let tag = text(node, "a text")?;
    tag.as_bytes().try_into().map_err(|_| {
        let help = "give the two characters around what is hashed, as in `hash_tag: \"{}\"`";
        (
            format!("{} are not two characters", quote(tag)),
            help.to_owned(),
        )
    })
}
