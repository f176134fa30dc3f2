//! `varnish`: the shard director of Varnish.
//!
//! Hashed for a member: its ident, by default the name of its backend. Point `j` is the last four bytes of
//! the SHA-256 of `"{ident}{j}"`; there are `replicas` points per unit of weight, which may have a fraction.
//! The ring does not wrap at the end: hashes above the last point belong to the last point. A member that is
//! down is skipped clockwise.

use sha2::{Digest, Sha256};

use super::numbered_name::NumberedName;
use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, TieBreak, is_valid_points_per_weight,
    option_name,
};
use crate::ring::hash::{Hash, KEY_PART_SEPARATOR};
use crate::ring::member::Weight;

/// The options of dialect `varnish`, as in the shard director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Varnish {
    /// The parameter `by`.
    pub by: ShardBy,
    /// Points per unit of weight.
    pub replicas: u32,
}

/// The parameter `by` of the shard director: how a key is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardBy {
    /// `by=URL`, and `by=HASH` in client context: the key is `req.url`.
    Url,
    /// `by=HASH` in backend context: each part of the key is one argument of `hash_data` in `vcl_hash`.
    Hash,
    /// `by=KEY`: the key is a decimal number, below 2^32.
    Key,
}

impl ShardBy {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] =
        &[("url", Self::Url), ("hash", Self::Hash), ("key", Self::Key)];
}

impl Varnish {
    /// Default points per unit of weight.
    pub const DEFAULT_REPLICAS: u32 = 67;
}

impl Default for Varnish {
    fn default() -> Self {
        Self {
            by: ShardBy::Url,
            replicas: Self::DEFAULT_REPLICAS,
        }
    }
}

impl Placement for Varnish {
    fn name(&self) -> &'static str {
        "varnish"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![
            ("by", option_name(ShardBy::NAMES, &self.by)),
            ("replicas", DialectOptionValue::Number(self.replicas.into())),
        ]
    }

    fn is_valid(&self) -> bool {
        is_valid_points_per_weight(self.replicas)
    }

    fn points_per_weight(&self) -> u32 {
        self.replicas
    }

    /// A product below a whole number is rounded down, as in C; a weight below 1 counts as 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 4096 × 256, and not negative"
    )]
    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        let weights = weights.iter().map(|weight| weight.as_f64().max(1.0));
        weights
            .map(|weight| (f64::from(self.replicas) * weight) as u64)
            .collect()
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let mut name = NumberedName::with_prefix(name.to_owned());
        (0..points).for_each(|point| put(sha256_last_word(name.with_number(point)).into()));
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let hash = match self.by {
            ShardBy::Url => sha256_last_word(key),
            ShardBy::Hash => vcl_hash(key),
            ShardBy::Key => parse_decimal(key),
        };
        Hash(hash.into())
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::AtOrAfterNoWrap,
            tie_break: TieBreak::ByMemberOrder,
            is_64_bit: false,
        }
    }
}

/// The last four bytes of the digest, little-endian.
fn sha256_last_word(text: &[u8]) -> u32 {
    let digest: [u8; 32] = Sha256::digest(text).into();
    digest
        .last_chunk()
        .map_or(0, |word| u32::from_le_bytes(*word))
}

/// The first four bytes of the request's digest, big-endian. A zero byte follows each part.
fn vcl_hash(key: &[u8]) -> u32 {
    let mut digest = Sha256::new();
    for part in key.split(|byte| *byte == KEY_PART_SEPARATOR) {
        digest.update(part);
        digest.update([0]);
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest
        .first_chunk()
        .map_or(0, |word| u32::from_be_bytes(*word))
}

/// The decimal number at the start of the text, mod 2^32; 0 without digits.
fn parse_decimal(key: &[u8]) -> u32 {
    let digits = key.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |value: u32, digit| {
        value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varnish_points_and_keys_match_varnish() {
        let mut points = Vec::new();
        Varnish::default().place("s1", 1, &mut |point| points.push(point));
        assert_eq!(points, [4_035_629_861]);
        assert_eq!(Varnish::default().hash(b"/foo"), Hash(2_499_551_155));
    }

    #[test]
    fn varnish_points_follow_a_weight_with_a_fraction() {
        for (thousandths, points) in [
            (500, 67),
            (1000, 67),
            (1015, 68),
            (3700, 247),
            (256_000, 17_152),
        ] {
            let weight = Weight::from_thousandths(thousandths).unwrap();
            assert_eq!(
                Varnish::default().point_counts(&[weight]),
                [points],
                "{weight}"
            );
        }
    }

    #[test]
    fn varnish_key_that_is_a_number_is_its_own_hash() {
        let by_key = Varnish {
            by: ShardBy::Key,
            ..Varnish::default()
        };
        assert_eq!(by_key.hash(b"4294967295"), Hash(u32::MAX.into()));
        assert_eq!(by_key.hash(b"no"), Hash(0));
    }
}
