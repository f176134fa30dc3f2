//! Which points a label gets, how a key is hashed, which point owns a hash.
//!
//! One dialect is one file with one implementation of [`Placement`]; it is entered here, in
//! [`Dialect`] and in [`Dialect::placement`], and nowhere else in the ring.

use super::circle::Circle;
use super::ketama::Ketama;
use super::{Hash, Weight};

/// How labels and keys are placed on the ring.
///
/// Changing the dialect, or its number, moves most keys.
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
}

impl Dialect {
    /// [`Dialect::Ketama`]'s points per unit of weight where none are given.
    pub const DEFAULT_POINTS: u32 = 160;
    /// [`Dialect::Circle`]'s points per unit of weight where none are given.
    pub const DEFAULT_REPLICAS: u32 = 3;
    /// The most points per unit of weight in any dialect.
    pub const MAX_POINTS: u32 = 4096;

    /// [`Dialect::Ketama`]; `None` where `points` is out of bounds.
    pub fn ketama(points: u32) -> Option<Self> {
        Some(Self::Ketama { points }).filter(|dialect| dialect.is_valid())
    }

    /// [`Dialect::Circle`]; `None` where `replicas` is out of bounds.
    pub fn circle(replicas: u32) -> Option<Self> {
        Some(Self::Circle { replicas }).filter(|dialect| dialect.is_valid())
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(self, key: &[u8]) -> Hash {
        self.placement().hash(key)
    }

    /// True where the numbers are within their bounds.
    pub(super) fn is_valid(self) -> bool {
        let step = self.placement().points_per_digest();
        let points = self.points_per_weight();
        (1..=Self::MAX_POINTS).contains(&points) && points.is_multiple_of(step)
    }

    /// Points that a member gets for each unit of its weight.
    pub(super) const fn points_per_weight(self) -> u32 {
        match self {
            Self::Ketama { points } => points,
            Self::Circle { replicas } => replicas,
        }
    }

    /// Puts every point of a label.
    pub(super) fn place(self, label: &str, weight: Weight, put: &mut dyn FnMut(u32)) {
        let points = self.points_per_weight() * u32::from(weight.get());
        self.placement().place(label, points, put);
    }

    /// How far a hash is turned so that its owner is the first point at or after it.
    pub(super) fn turn(self) -> u32 {
        match self.placement().side() {
            Side::AtOrAfter => 0,
            Side::After => 1,
        }
    }

    /// The one place where a dialect's name meets its algorithm.
    #[inline]
    fn placement(self) -> &'static dyn Placement {
        match self {
            Self::Ketama { .. } => &Ketama,
            Self::Circle { .. } => &Circle,
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

/// The algorithm of one dialect.
pub(super) trait Placement {
    /// How many points come out of one digest; a member's points are a multiple of it.
    fn points_per_digest(&self) -> u32;

    /// Puts the first `points` points of a label, in any order. More points for the same label
    /// must only ever add to them: that is why a raised weight takes no key from its member.
    fn place(&self, label: &str, points: u32, put: &mut dyn FnMut(u32));

    /// The hash of a key.
    fn hash(&self, key: &[u8]) -> Hash;

    /// Which point owns a hash.
    fn side(&self) -> Side;
}

/// Which point owns a hash that lies exactly on a point.
pub(super) enum Side {
    /// That point.
    AtOrAfter,
    /// The next one.
    After,
}
