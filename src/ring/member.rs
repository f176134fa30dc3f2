//! A member of a ring: its label, weight and number.

use std::num::NonZeroU16;

/// A member's share of the key space relative to the other members: 1 ..= 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// The smallest weight, and the default.
    pub const ONE: Self = Self(NonZeroU16::MIN);
    /// The largest weight.
    pub const MAX: Self = Self(NonZeroU16::MIN.saturating_add(255));

    /// Returns `None` outside 1 ..= 256.
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

/// The number of a member: its position, from 0, in the list that the ring was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

impl MemberId {
    /// The number as an index into a slice.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A member of a ring to be built. Converts from a label and a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The member's unique name.
    pub label: &'a str,
    /// The text that the dialect hashes instead of the label.
    pub id: Option<&'a str>,
    /// The member's share relative to the others.
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
