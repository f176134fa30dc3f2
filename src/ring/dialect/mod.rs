//! The dialects: points of a member, hash of a key, and which point owns a hash.
//!
//! A dialect is one file with one implementation of [`Placement`], and one variant of [`Dialect`] that
//! [`Dialect::with_placement`] maps to it. Only our own dialects, `ketama` and `circle`, keep every law of
//! the ring. `ring/tests.rs` lists the laws, such as: removing a member moves only its keys. Each other dialect
//! places keys as another load balancer does, so that Clockwise can replace it without moving a key. The file
//! of each dialect says what it hashes for a member, and which laws that system breaks.

pub mod ats;
pub mod caddy;
mod circle;
pub mod envoy;
pub mod haproxy;
mod ketama;
mod libketama;
mod libmemcached;
mod nginx;
mod numbered_name;
mod one_at_a_time;
mod placement;
mod traefik;
pub mod twemproxy;
pub mod varnish;

use std::borrow::Cow;

use self::ats::Ats;
use self::caddy::Caddy;
use self::circle::Circle;
use self::envoy::Envoy;
use self::haproxy::Haproxy;
use self::ketama::Ketama;
use self::libketama::Libketama;
use self::libmemcached::Libmemcached;
use self::nginx::Nginx;
use self::placement::Placement;
pub use self::placement::{DialectOptionValue, InvalidId};
pub(super) use self::placement::{OwnerRule, OwnershipRules, TieBreak};
use self::traefik::Traefik;
use self::twemproxy::Twemproxy;
use self::varnish::Varnish;
use super::hash::Hash;
use super::member::{Member, Weight};

/// Keys in the sample from which the shares of a dialect without points are estimated.
pub(super) const SAMPLE_KEYS: u32 = 1 << 14;

/// The algorithm that places members and keys on the ring.
///
/// A change of the dialect or its options moves most keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Four points per MD5, as in libketama, but with a fixed number of points per unit of weight: a
    /// member's weight does not change the points of others.
    Ketama {
        /// Points per unit of weight: a multiple of 4, 4 ..= 4096.
        points: u32,
    },
    /// The textbook ring: one point per MD5.
    Circle {
        /// Points per unit of weight: 1 ..= 4096.
        replicas: u32,
    },
    /// `hash … consistent` of nginx.
    Nginx,
    /// `hash-type consistent` of HAProxy.
    Haproxy(Haproxy),
    /// `ring_hash` of Envoy.
    Envoy(Envoy),
    /// The shard director of Varnish.
    Varnish(Varnish),
    /// libketama as published.
    Libketama,
    /// The distributions `ketama` and `consistent` of libmemcached, without weights.
    Libmemcached,
    /// `distribution: ketama` of twemproxy.
    Twemproxy(Twemproxy),
    /// `consistent_hash` of Apache Traffic Server.
    Ats(Ats),
    /// The hashing policies of Caddy.
    Caddy(Caddy),
    /// `hrw` of Traefik.
    Traefik,
}

impl Dialect {
    /// Default points per unit of weight of [`Dialect::Ketama`].
    pub const DEFAULT_POINTS: u32 = 160;
    /// Default points per unit of weight of [`Dialect::Circle`].
    pub const DEFAULT_REPLICAS: u32 = 3;
    /// The most points per unit of weight in any dialect with a choice.
    pub const MAX_POINTS: u32 = placement::MAX_POINTS_PER_WEIGHT;

    /// [`Dialect::Ketama`]; `None` if `points` is out of bounds.
    pub fn ketama(points: u32) -> Option<Self> {
        Some(Self::Ketama { points }).filter(|dialect| dialect.is_valid())
    }

    /// [`Dialect::Circle`]; `None` if `replicas` is out of bounds.
    pub fn circle(replicas: u32) -> Option<Self> {
        Some(Self::Circle { replicas }).filter(|dialect| dialect.is_valid())
    }

    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        self.with_placement(|placement| placement.name())
    }

    /// The options and their values, as in the configuration.
    pub fn options(self) -> Vec<(&'static str, DialectOptionValue)> {
        self.with_placement(|placement| placement.options())
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(self, key: &[u8]) -> Hash {
        self.with_placement(|placement| placement.hash(key))
    }

    /// True if a member without an id is hashed by its position in the list, so that removing a member
    /// renumbers the members after it.
    pub const fn numbers_by_order(self) -> bool {
        matches!(self, Self::Haproxy(_))
    }

    /// True if a member without an id is hashed by the host of its label, without the port, so that two ports of one
    /// host have the same points.
    pub const fn ignores_ports(self) -> bool {
        matches!(self, Self::Ats(_))
    }

    /// The text hashed for each member, in order: the id, the label, or the text that the dialect derives for
    /// a member without an id. Does not check for duplicates.
    ///
    /// # Errors
    /// The dialect cannot hash an id.
    pub fn hash_names<'a>(self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        self.with_placement(|placement| placement.hash_names(members))
    }

    /// The total number of points of members with these weights.
    pub fn total_points(self, weights: &[Weight]) -> u64 {
        self.with_placement(|placement| placement.point_counts(weights))
            .iter()
            .sum()
    }

    /// The number of keys in the sample that estimates shares in a dialect without points: the numbers from
    /// 0 on, in decimal. `None` in a dialect with points: its shares are computed.
    pub fn sample_size(self) -> Option<u32> {
        let owner = self
            .with_placement(|placement| placement.ownership_rules())
            .owner_rule;
        (owner == OwnerRule::HighestScore).then_some(SAMPLE_KEYS)
    }

    /// True if both dialects give each key the same position, so that their rings can be compared position by
    /// position, or if neither has points and both use the same sample.
    pub fn hashes_keys_like(self, other: Self) -> bool {
        let hashing = |dialect: Self| match dialect {
            // The options replaced by defaults here place members, not keys.
            Self::Ketama { .. } => Self::default(),
            Self::Circle { .. } => Self::Circle { replicas: 1 },
            Self::Envoy(_) => Self::Envoy(Envoy::default()),
            Self::Varnish(Varnish { by, .. }) => Self::Varnish(Varnish {
                by,
                ..Varnish::default()
            }),
            Self::Ats(Ats { function, .. }) => Self::Ats(Ats {
                function,
                ..Ats::default()
            }),
            Self::Caddy(_) => Self::Traefik,
            other => other,
        };
        hashing(self) == hashing(other)
    }

    /// True if a member's weight determines its share of the keys.
    pub const fn supports_weights(self) -> bool {
        !matches!(self, Self::Caddy(_) | Self::Libmemcached)
    }

    /// True if a weight with a fraction determines the number of points; all other dialects round it up.
    pub const fn allows_fractions(self) -> bool {
        matches!(self, Self::Varnish(_) | Self::Ats(_))
    }

    /// The least weight that the other system tells from the weights above it.
    pub fn least_weight(self) -> Weight {
        self.with_placement(|placement| placement.least_weight())
    }

    /// True if the hash of a key alone determines its owner.
    pub const fn hash_determines_owner(self) -> bool {
        !matches!(self, Self::Caddy(_))
    }

    /// True if an empty key is hashed; in nginx, a request with one has no key.
    pub const fn hashes_empty_key(self) -> bool {
        !matches!(self, Self::Nginx)
    }

    /// True if the options are within their bounds.
    pub(super) fn is_valid(self) -> bool {
        self.with_placement(|placement| placement.is_valid())
    }

    /// Runs a function with the dialect's algorithm. The only `match` from variant to implementation.
    #[inline]
    pub(super) fn with_placement<T>(self, run: impl FnOnce(&dyn Placement) -> T) -> T {
        match self {
            Self::Ketama { points } => run(&Ketama { points }),
            Self::Circle { replicas } => run(&Circle { replicas }),
            Self::Nginx => run(&Nginx),
            Self::Haproxy(haproxy) => run(&haproxy),
            Self::Envoy(envoy) => run(&envoy),
            Self::Varnish(varnish) => run(&varnish),
            Self::Libketama => run(&Libketama),
            Self::Libmemcached => run(&Libmemcached),
            Self::Twemproxy(twemproxy) => run(&twemproxy),
            Self::Ats(ats) => run(&ats),
            Self::Caddy(caddy) => run(&caddy),
            Self::Traefik => run(&Traefik),
        }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::Ketama {
            points: Self::DEFAULT_POINTS,
        }
    }
}
