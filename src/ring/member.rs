//! A member of a ring: its label, weight and number.

use std::num::NonZeroU16;

/// How much of the key space a member gets, relative to the others: 1 ..= 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The smallest weight, and the default.
    pub const ONE: Self = Self(NonZeroU16::MIN);
    /// The largest weight.
    pub const MAX: Self = Self(NonZeroU16::MIN.saturating_add(255));

    /// A weight; `None` outside 1 ..= 256.
    pub fn new(weight: u16) -> Option<Self> {
        NonZeroU16::new(weight)
            .map(Self)
            .filter(|w| *w <= Self::MAX)
    }

    /// The weight as a number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

/// A member of a ring: its place in the order in which the members were given, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl MemberId {
    /// The same, to index a slice with.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A member as it is given to the ring; a label and a weight are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name among the members.
    pub label: &'a str,
    /// What the dialect hashes for it, where that is not the label.
    pub id: Option<&'a str>,
    /// How much of the key space it gets.
    pub weight: Weight,
}

impl<'a> From<(&'a str, Weight)> for Member<'a> {
    fn from((label, weight): (&'a str, Weight)) -> Self {
        Self {
            label,
            id: None,
            weight,
        }
    }
}
