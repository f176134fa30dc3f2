//! `ring`: the dialect and its options.

use std::ops::RangeInclusive;

use super::PeerConfig;
use crate::config::fields::{Fields, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::{SectionSchema, nearest};
use crate::config::values::{InvalidValue, number};
use crate::ring::ats::{self, Ats};
use crate::ring::caddy::{self, Caddy};
use crate::ring::envoy::{self, Envoy};
use crate::ring::haproxy::{self, Haproxy};
use crate::ring::twemproxy::{Twemproxy, TwemproxyHash};
use crate::ring::varnish::{self, Varnish};
use crate::ring::{Dialect, Ring};

/// A dialect: its default, the names of its options, and the function that reads them.
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
        name: "libmemcached",
        default: || Dialect::Libmemcached,
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
            let default = Ats::default();
            Some(Dialect::Ats(Ats {
                function: fields.choice("hash", default.function, ats::AtsHash::NAMES),
                replicas: replicas(fields, Ats::DEFAULT_REPLICAS),
            }))
        },
    },
    DialectSpec {
        name: "caddy",
        default: || Dialect::Caddy(Caddy::default()),
        options: &["hash"],
        read: |fields| {
            let default = Caddy::default().function;
            Some(Dialect::Caddy(Caddy {
                function: fields.choice("hash", default, caddy::CaddyHash::NAMES),
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

pub(super) static RING: SectionSchema = SectionSchema {
    title: "`ring`",
    path: "upstreams.NAME.ring",
    example: "{dialect: ketama, points: 160}",
    keys: &[
        "dialect",
        "points",
        "replicas",
        "hash",
        "avalanche",
        "by",
        "hash_tag",
        "minimum_ring_size",
        "maximum_ring_size",
    ],
    ..SectionSchema::EMPTY
};

/// The name of a dialect, or a map with its options.
pub(super) fn read(node: &YamlNode, problems: &Problems) -> Option<Dialect> {
    if node.text().is_some() {
        return parse_or_report(node, problems, dialect_spec).map(|spec| (spec.default)());
    }
    let fields = Fields::open(node, &RING, problems)?;
    let spec = match fields.get("dialect") {
        Some(_) => fields.read("dialect", dialect_spec)?,
        None => DIALECTS.first()?,
    };
    refuse_foreign_options(spec, &fields);
    (spec.read)(&fields).or_else(|| Some((spec.default)()))
}

/// Refuses a ring that is too large to be built.
pub(super) fn check_size(fields: &Fields<'_>, dialect: Dialect, peers: &[PeerConfig]) {
    if peers.len() > Ring::MAX_MEMBERS {
        let message = format!("{} peers are too many for one upstream", peers.len());
        let help = format!("use at most {}, or several upstreams", Ring::MAX_MEMBERS);
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
        let help = "divide the weights by a common factor, or use fewer points";
        fields
            .problems
            .add(Problem::error(message, fields.header_span()).help(help));
    }
}

/// Warns of weights that the dialect ignores.
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
        "dialect `{}` ignores weights: all peers get equal shares of the keys",
        dialect.name()
    );
    let help = "weights affect only requests without a key and `bounded_load`";
    let problem = Problem::warning(message, node.error_span());
    fields.problems.add(problem.help(help));
}

fn dialect_spec(node: &YamlNode) -> Result<&'static DialectSpec, InvalidValue> {
    let name = text(node, "a dialect")?;
    let found = DIALECTS.iter().find(|spec| spec.name == name);
    found.ok_or_else(|| {
        let names = DIALECTS.iter().map(|spec| spec.name);
        let help = match nearest(name, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", list_or(names)),
        };
        (format!("unknown ring dialect {}", quote(name)), help)
    })
}

/// Refuses options of other dialects.
fn refuse_foreign_options(spec: &DialectSpec, fields: &Fields<'_>) {
    let options = RING.keys.iter().filter(|key| **key != "dialect");
    for key in options.filter(|key| !spec.options.contains(key)) {
        let Some(node) = fields.get(key) else {
            continue;
        };
        let help = match spec.options {
            [] => "remove it: the dialect has no options".to_owned(),
            own => format!("remove it, or use {}", list_or(own.iter().copied())),
        };
        let message = format!("`{key}` is not an option of dialect `{}`", spec.name);
        let problem = Problem::error(message, node.header_span());
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
            "use {} or {}: one MD5 hash gives four points",
            points / 4 * 4,
            points / 4 * 4 + 4
        );
        (format!("`{points}` is not a multiple of 4"), help)
    })
}

/// As in HAProxy, `hash` turns the avalanche off unless `avalanche` is set, too; except for `balance
/// source`, which has no `hash-type` function.
fn haproxy(fields: &Fields<'_>) -> Haproxy {
    let default = Haproxy::default();
    let function = fields.choice("hash", default.function, haproxy::HaproxyHash::NAMES);
    let named = fields.get("hash").is_some() && function != haproxy::HaproxyHash::Source;
    Haproxy {
        function,
        avalanche: fields.flag("avalanche", !named),
    }
}

fn envoy(fields: &Fields<'_>) -> Envoy {
    let default = Envoy::default();
    let size: RangeInclusive<u64> = 1..=u64::from(Envoy::MAX_RING_SIZE);
    let maximum = fields.number("maximum_ring_size", default.maximum_ring_size, size.clone());
    let minimum = fields.number(
        "minimum_ring_size",
        default.minimum_ring_size.min(maximum),
        size,
    );
    if let Some(node) = fields.get("minimum_ring_size")
        && minimum > maximum
    {
        let message = format!("`minimum_ring_size` is above `maximum_ring_size`, {maximum}");
        fields.error(node, message, "use a smaller one");
    }
    Envoy {
        function: fields.choice("hash", default.function, envoy::EnvoyHash::NAMES),
        minimum_ring_size: minimum.min(maximum),
        maximum_ring_size: maximum,
    }
}

fn twemproxy(fields: &Fields<'_>) -> Twemproxy {
    let default = Twemproxy::default();
    let function = fields.choice("hash", default.function, TwemproxyHash::NAMES);
    if let Some(node) = fields.get("hash")
        && function == TwemproxyHash::Crc32
    {
        let message =
            "`hash: crc32` is a number of 15 bits: one peer gets nearly all keys, as in twemproxy";
        let help = "the shares of `ring show` do not count this; `crc32a` has 32 bits";
        let problem = Problem::warning(message, node.error_span());
        fields.problems.add(problem.help(help));
    }
    Twemproxy {
        function,
        hash_tag: fields.read("hash_tag", hash_tag),
    }
}

fn hash_tag(node: &YamlNode) -> Result<[u8; 2], InvalidValue> {
    let tag = text(node, "a text")?;
    tag.as_bytes().try_into().map_err(|_| {
        let help = "use the two characters around the hashed part, as in `hash_tag: \"{}\"`";
        (
            format!("{} is not two characters", quote(tag)),
            help.to_owned(),
        )
    })
}
