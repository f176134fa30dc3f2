//! Which points a member gets, how a key is hashed, which point owns a hash.
//!
//! One dialect is one file with one implementation of [`Placement`]; it is entered here, in
//! [`Dialect`] and in [`Dialect::with`], and nowhere else in the ring. `ketama` and `circle` are
//! our own, and only they keep every law of the ring. The others place each key as another load
//! balancer does, so that one can be replaced without a key that moves; each says in its file what
//! it hashes for a member, and which of our laws that system itself breaks.

pub mod ats;
pub mod caddy;
mod circle;
pub mod envoy;
pub mod haproxy;
mod ketama;
mod libketama;
mod nginx;
mod numbered_name;
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

/// How members and keys are placed on the ring.
///
/// Changing the dialect, or its options, moves most keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Four points per MD5, the layout of libketama, with a fixed number of points per unit of
    /// weight, so that no member's weight changes another's points.
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
    /// libketama as it was published.
    Libketama,
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
    /// [`Dialect::Ketama`]'s points per unit of weight where none are given.
    pub const DEFAULT_POINTS: u32 = 160;
    /// [`Dialect::Circle`]'s points per unit of weight where none are given.
    pub const DEFAULT_REPLICAS: u32 = 3;
    /// The most points per unit of weight in any dialect where they can be chosen.
    pub const MAX_POINTS: u32 = placement::MAX_POINTS_PER_WEIGHT;

    /// [`Dialect::Ketama`]; `None` where `points` is out of bounds.
    pub fn ketama(points: u32) -> Option<Self> {
        Some(Self::Ketama { points }).filter(|dialect| dialect.is_valid())
    }

    /// [`Dialect::Circle`]; `None` where `replicas` is out of bounds.
    pub fn circle(replicas: u32) -> Option<Self> {
        Some(Self::Circle { replicas }).filter(|dialect| dialect.is_valid())
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        self.with_placement(|placement| placement.name())
    }

    /// Its options, as in the configuration: a name and a value each.
    pub fn options(self) -> Vec<(&'static str, DialectOptionValue)> {
        self.with_placement(|placement| placement.options())
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(self, key: &[u8]) -> Hash {
        self.with_placement(|placement| placement.hash(key))
    }

    /// True where a member without an id is known by its place in the list: who is taken out of it
    /// renames those behind.
    pub const fn numbers_by_order(self) -> bool {
        matches!(self, Self::Haproxy(_))
    }

    /// What is hashed for each member, in order: the id, or the label, or what the dialect makes
    /// of a member that has no id.
    ///
    /// # Errors
    /// [`Error::Id`] where the dialect cannot use an id, [`Error::Duplicate`] where two members would
    /// have the same points.
    pub fn hash_names<'a>(self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        self.with_placement(|placement| placement.hash_names(members))
    }

    /// How many points members of these weights get in total.
    pub fn total_points(self, weights: &[Weight]) -> u64 {
        self.with_placement(|placement| placement.point_counts(weights))
            .iter()
            .sum()
    }

    /// How many keys are tried out to learn who has how much, where there are no points: the numbers from 0
    /// on, in decimal. `None`: there are points, and nothing has to be tried out.
    pub fn sample_size(self) -> Option<u32> {
        let owner = self
            .with_placement(|placement| placement.ownership_rules())
            .owner_rule;
        (owner == OwnerRule::HighestScore).then_some(SAMPLE_KEYS)
    }

    /// True where both put a key of one text at one place, so that their rings can be compared
    /// place by place; or where neither has places, and both are asked about the same texts.
    pub fn hashes_keys_like(self, other: Self) -> bool {
        let hashing = |dialect: Self| match dialect {
            // Of these the options below place members, not keys.
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

    /// True where a member's weight says how many keys it owns.
    pub const fn supports_weights(self) -> bool {
        !matches!(self, Self::Caddy(_))
    }

    /// True where the hash of a key is enough to know its owner.
    pub const fn hash_determines_owner(self) -> bool {
        !matches!(self, Self::Caddy(_))
    }

    /// True where the options are within their bounds.
    pub(super) fn is_valid(self) -> bool {
        self.with_placement(|placement| placement.is_valid())
    }

    /// The one place where a dialect's name meets its algorithm.
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
