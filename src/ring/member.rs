//! A member of a ring: its label, weight and number.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Serialize, Serializer};

/// A member's share of the key space relative to the other members: 0.001 ..= 256, in steps of 0.001.
///
/// Only the dialects of systems with such weights place a fraction ([`Dialect::allows_fractions`]); all others, and all
/// balancing without the ring, round it up.
///
/// [`Dialect::allows_fractions`]: super::Dialect::allows_fractions
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight {
    thousandths: NonZeroU32,
}

impl Weight {
    /// The smallest weight without a fraction, and the default.
    pub const ONE: Self = Self {
        thousandths: NonZeroU32::MIN.saturating_add(999),
    };
    /// The largest weight.
    pub const MAX: Self = Self {
        thousandths: NonZeroU32::MIN.saturating_add(255_999),
    };

    /// Returns `None` outside 1 ..= 256.
    pub fn new(weight: u16) -> Option<Self> {
        Self::from_thousandths(u32::from(weight) * 1000)
    }

    /// Returns `None` outside 1 ..= 256,000.
    pub fn from_thousandths(thousandths: u32) -> Option<Self> {
        NonZeroU32::new(thousandths)
            .map(|thousandths| Self { thousandths })
            .filter(|weight| *weight <= Self::MAX)
    }

    /// The weight in thousandths.
    pub const fn thousandths(self) -> u32 {
        self.thousandths.get()
    }

    /// The weight, rounded up to a whole number: 1 ..= 256.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 256, as Weight::MAX"
    )]
    pub const fn get(self) -> u16 {
        self.thousandths().div_ceil(1000) as u16
    }

    /// True if the weight is not a whole number.
    pub const fn has_fraction(self) -> bool {
        !self.thousandths().is_multiple_of(1000)
    }

    /// The weight with its fraction.
    pub fn as_f64(self) -> f64 {
        f64::from(self.thousandths()) / 1000.0
    }
}

/// `2`, `3.7`: as in the configuration.
impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_fraction() {
            self.as_f64().fmt(f)
        } else {
            self.get().fmt(f)
        }
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Weight({self})")
    }
}

/// A number; an integer without a fraction.
impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.has_fraction() {
            serializer.serialize_f64(self.as_f64())
        } else {
            serializer.serialize_u16(self.get())
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_shown_and_rounded_as_written() {
        for (thousandths, text, whole) in [
            (1000, "1", 1),
            (3700, "3.7", 4),
            (500, "0.5", 1),
            (1, "0.001", 1),
            (255_999, "255.999", 256),
            (256_000, "256", 256),
        ] {
            let weight = Weight::from_thousandths(thousandths).unwrap();
            assert_eq!((weight.to_string().as_str(), weight.get()), (text, whole));
            assert_eq!(serde_json::to_string(&weight).unwrap(), text);
            assert_eq!(weight.has_fraction(), text.contains('.'));
        }
        assert_eq!([0, 256_001].map(Weight::from_thousandths), [None, None]);
    }
}
