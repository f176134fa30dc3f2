//! `envoy`: `ring_hash` of Envoy.
//!
//! Hashed for a member: its host key, which is `ip:port`, or the host name or `hash_key` if Envoy is so
//! configured. The ring has the smallest size of at least `minimum_ring_size` points that gives the
//! lightest host a whole number of points. The number of points per host is a running sum in floating
//! point: a host that is added, removed or reweighted changes the number of points of others (breaks laws
//! (b) and (c)), and the *order* of the hosts can decide one point.
//!
//! A key of several parts, as `{any: […]}` makes it, is hashed like several hash policies. The lines of a header, as
//! `{header: {name: x, values: sorted}}` makes them, are hashed each with the hash of the one before as its seed. If a host is
//! down, Envoy rebuilds the ring, and this also moves keys of other hosts. Clockwise does not rebuild it: only
//! the keys of that host move, to the next host clockwise.

use std::fmt::Write as _;

use twox_hash::XxHash64;

use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, TieBreak, option_name,
};
use crate::ring::hash::{Hash, KEY_LINE_SEPARATOR, KEY_PART_SEPARATOR};
use crate::ring::member::Weight;

/// The options of dialect `envoy`, as in Envoy's `RingHashLbConfig`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envoy {
    /// `hash_function`: hashes points. Keys are always hashed by XXH64.
    pub function: EnvoyHash,
    /// `minimum_ring_size`.
    pub minimum_ring_size: u32,
    /// `maximum_ring_size`.
    pub maximum_ring_size: u32,
}

/// The function that places hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvoyHash {
    /// `XX_HASH`, the default.
    Xxhash,
    /// `MURMUR_HASH_2`.
    Murmur2,
}

impl EnvoyHash {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[("xxhash", Self::Xxhash), ("murmur2", Self::Murmur2)];

    fn hash(self, text: &[u8]) -> u64 {
        match self {
            Self::Xxhash => XxHash64::oneshot(0, text),
            Self::Murmur2 => murmur2(text),
        }
    }
}

impl Envoy {
    /// The most points of a ring; Envoy's own bound.
    pub const MAX_RING_SIZE: u32 = 8 << 20;
    /// Default of `minimum_ring_size`.
    pub const DEFAULT_MINIMUM_RING_SIZE: u32 = 1024;
}

impl Default for Envoy {
    fn default() -> Self {
        Self {
            function: EnvoyHash::Xxhash,
            minimum_ring_size: Self::DEFAULT_MINIMUM_RING_SIZE,
            maximum_ring_size: Self::MAX_RING_SIZE,
        }
    }
}

impl Placement for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![
            ("hash", option_name(EnvoyHash::NAMES, &self.function)),
            (
                "minimum_ring_size",
                DialectOptionValue::Number(self.minimum_ring_size.into()),
            ),
            (
                "maximum_ring_size",
                DialectOptionValue::Number(self.maximum_ring_size.into()),
            ),
        ]
    }

    fn is_valid(&self) -> bool {
        (1..=Self::MAX_RING_SIZE).contains(&self.maximum_ring_size)
            && (1..=self.maximum_ring_size).contains(&self.minimum_ring_size)
    }

    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        let sum: u32 = weights.iter().map(|weight| u32::from(weight.get())).sum();
        let share = |weight: &Weight| f64::from(weight.get()) / f64::from(sum);
        let Some(least) = weights.iter().min().map(share) else {
            return Vec::new();
        };
        let scale = (least * f64::from(self.minimum_ring_size)).ceil() / least;
        let scale = scale.min(f64::from(self.maximum_ring_size));
        let (mut target, mut placed) = (0.0, 0.0);
        let count = |weight| {
            target += scale * share(weight);
            let mut points = 0;
            while placed < target {
                points += 1;
                placed += 1.0;
            }
            points
        };
        weights.iter().map(count).collect()
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let mut text = format!("{name}_");
        let prefix_len = text.len();
        for point in 0..points {
            text.truncate(prefix_len);
            // Writing to a string cannot fail.
            let _ = write!(text, "{point}");
            put(self.function.hash(text.as_bytes()));
        }
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let parts = key
            .split(|byte| *byte == KEY_PART_SEPARATOR)
            .map(hash_lines);
        Hash(parts.fold(0, |hash: u64, part| hash.rotate_left(1) ^ part))
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::AtOrAfter,
            tie_break: TieBreak::ByMemberOrder,
            is_64_bit: true,
        }
    }
}

/// The hash of a header's sorted lines; of one value its own.
fn hash_lines(part: &[u8]) -> u64 {
    let lines = part.split(|byte| *byte == KEY_LINE_SEPARATOR);
    lines.fold(0, XxHash64::oneshot)
}

/// `MurmurHash64A` (Austin Appleby) with the seed of the GNU C++ library.
fn murmur2(text: &[u8]) -> u64 {
    const SEED: u64 = 0xc70f_6907;
    const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;
    let (words, rest) = text.as_chunks();
    let mut hash = SEED ^ (text.len() as u64).wrapping_mul(MULTIPLIER);
    for word in words {
        let word = xor_shift(u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER), 47);
        hash = (hash ^ word.wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !rest.is_empty() {
        let last = rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(MULTIPLIER);
    }
    xor_shift(xor_shift(hash, 47).wrapping_mul(MULTIPLIER), 47)
}

const fn xor_shift(word: u64, shift: u32) -> u64 {
    word ^ (word >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(function: EnvoyHash, ports: std::ops::Range<u16>, minimum: u32) -> Vec<(u64, u16)> {
        let envoy = Envoy {
            function,
            minimum_ring_size: minimum,
            ..Envoy::default()
        };
        let counts = envoy.point_counts(&vec![Weight::ONE; ports.len()]);
        let mut points = Vec::new();
        for (port, count) in ports.zip(counts) {
            let count = u32::try_from(count).unwrap();
            envoy.place(&format!("127.0.0.1:{port}"), count, &mut |point| {
                points.push((point, port));
            });
        }
        points.sort_unstable();
        points
    }

    /// The rings of Envoy's own unit tests.
    #[test]
    fn envoy_points_match_envoy() {
        let points = ring(EnvoyHash::Xxhash, 90..96, 12);
        let first = [
            (833_437_586_790_550_860, 94),
            (928_266_305_478_181_108, 92),
            (1_033_482_794_131_418_490, 90),
            (3_551_244_743_356_806_947, 95),
        ];
        assert_eq!(points[..4], first);
        assert_eq!(points.last(), Some(&(16_117_243_373_044_804_889, 90)));
        let points = ring(EnvoyHash::Murmur2, 80..86, 12);
        assert_eq!(points[0], (1_358_027_074_129_602_068, 85));
        assert_eq!(points.last(), Some(&(17_613_279_263_364_193_813, 80)));
    }

    #[test]
    fn envoy_key_parts_combine_like_hash_policies() {
        let envoy = Envoy::default();
        let of = |text: &str| envoy.hash(text.as_bytes()).0;
        assert_eq!(of("a\u{1f}b"), of("a").rotate_left(1) ^ of("b"));
        let lines = XxHash64::oneshot(of("a"), b"b");
        assert_eq!(of("a\u{1e}b"), lines);
        assert_eq!(of("c\u{1f}a\u{1e}b"), of("c").rotate_left(1) ^ lines);
    }
}
