//! `twemproxy`: `distribution: ketama` of twemproxy (nutcracker), which has its arithmetic from libmemcached.
//!
//! Hashed for a member: the name of its node. A node without a name is hashed as `host:port`, or as `host` if the
//! port is 11211. The number of points of a node is its share of the total weight, computed in floating point as
//! in libketama, but rounded in another way. This breaks laws (b) and (c).
//!
//! With `auto_eject_hosts`, twemproxy rebuilds the ring without a node that is down. This also moves keys of
//! other nodes. Clockwise does not rebuild the ring: only the keys of that node move, to the next node clockwise.

use std::borrow::Cow;

use super::ketama;
use super::one_at_a_time::{one_at_a_time, signed_bytes};
use super::placement::{DialectOptionValue, InvalidId, OwnershipRules, Placement, option_name};
use crate::ring::hash::Hash;
use crate::ring::md5;
use crate::ring::member::{Member, Weight};

/// The options of dialect `twemproxy`, with the names that they have in twemproxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Twemproxy {
    /// `hash`: the hash function of keys.
    pub function: TwemproxyHash,
    /// `hash_tag`: an opening and a closing byte. If a key has text between them, only this text is hashed.
    pub hash_tag: Option<[u8; 2]>,
}

/// The function that hashes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TwemproxyHash {
    /// `fnv1a_64`, the default: the lower 32 bits of the hash.
    #[default]
    Fnv1a64,
    /// `fnv1_64`: the lower 32 bits of the hash.
    Fnv164,
    /// `fnv1a_32`.
    Fnv1a32,
    /// `fnv1_32`.
    Fnv132,
    /// `crc32`: bits 16 to 30, as in libmemcached.
    Crc32,
    /// `crc32a`: all 32 bits.
    Crc32a,
    /// `md5`: the first four bytes, little-endian.
    Md5,
    /// `one_at_a_time`.
    OneAtATime,
}

impl TwemproxyHash {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[
        ("fnv1a_64", Self::Fnv1a64),
        ("fnv1_64", Self::Fnv164),
        ("fnv1a_32", Self::Fnv1a32),
        ("fnv1_32", Self::Fnv132),
        ("crc32", Self::Crc32),
        ("crc32a", Self::Crc32a),
        ("md5", Self::Md5),
        ("one_at_a_time", Self::OneAtATime),
    ];
}

impl Placement for Twemproxy {
    fn name(&self) -> &'static str {
        "twemproxy"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        let mut options = vec![("hash", option_name(TwemproxyHash::NAMES, &self.function))];
        if let Some(tag) = self.hash_tag {
            let tag = String::from_utf8_lossy(&tag).into_owned();
            options.push(("hash_tag", DialectOptionValue::Text(tag)));
        }
        options
    }

    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        let without_default_port = |label: &'a str| label.strip_suffix(":11211").unwrap_or(label);
        let name = |member: &Member<'a>| {
            member
                .id
                .unwrap_or_else(|| without_default_port(member.label))
        };
        Ok(members
            .iter()
            .map(|member| Cow::Borrowed(name(member)))
            .collect())
    }

    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        ketama::counts_by_share(weights, digest_count)
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        ketama::place(name, points, put);
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let key = self
            .hash_tag
            .and_then(|tag| find_hash_tag(key, tag))
            .unwrap_or(key);
        let hash = match self.function {
            TwemproxyHash::Fnv1a64 => fnv1a_64(key),
            TwemproxyHash::Fnv164 => fnv1_64(key),
            TwemproxyHash::Fnv1a32 => fnv1a_32(key),
            TwemproxyHash::Fnv132 => fnv1_32(key),
            TwemproxyHash::Crc32 => (crc32fast::hash(key) >> 16) & 0x7fff,
            TwemproxyHash::Crc32a => crc32fast::hash(key),
            TwemproxyHash::Md5 => {
                let [first, ..] = md5::words(key);
                first
            }
            TwemproxyHash::OneAtATime => one_at_a_time(key),
        };
        Hash(hash.into())
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules::AT_OR_AFTER_BY_MEMBER_ORDER
    }
}

/// The number of digests of a node. As in twemproxy, all steps are in single precision, except for the addition of
/// 1e-10, which is in double precision.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the arithmetic of twemproxy: other rounding gives other points"
)]
fn digest_count(weight: Weight, total: u32, servers: u16) -> u64 {
    let share = f32::from(weight.get()) / total as f32;
    let digests = share * 160.0 / 4.0 * f32::from(servers);
    ((f64::from(digests) + 1e-10) as f32).floor() as u64
}

/// The text between the first opening byte and the first closing byte after it, if not empty.
fn find_hash_tag(key: &[u8], [open, close]: [u8; 2]) -> Option<&[u8]> {
    let start = key.iter().position(|byte| *byte == open)? + 1;
    let rest = key.get(start..)?;
    let end = rest.iter().position(|byte| *byte == close)?;
    rest.get(..end).filter(|tag| !tag.is_empty())
}

fn fnv1_64(key: &[u8]) -> u32 {
    // Only the lower 32 bits of 64-bit FNV-1 are used, and the upper bits of the offset basis and of the prime
    // (2^40 + 0x1b3) do not affect them.
    signed_bytes(key).fold(0x8422_2325, |hash: u32, byte| {
        hash.wrapping_mul(0x1b3) ^ byte
    })
}

fn fnv1a_64(key: &[u8]) -> u32 {
    signed_bytes(key).fold(0x8422_2325, |hash, byte| (hash ^ byte).wrapping_mul(0x1b3))
}

fn fnv1_32(key: &[u8]) -> u32 {
    signed_bytes(key).fold(0x811c_9dc5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ byte
    })
}

fn fnv1a_32(key: &[u8]) -> u32 {
    signed_bytes(key).fold(0x811c_9dc5, |hash, byte| {
        (hash ^ byte).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twemproxy_equal_nodes_lose_a_digest_to_rounding() {
        for (nodes, points) in [
            (1, 160),
            (24, 160),
            (25, 156),
            (47, 156),
            (60, 160),
            (61, 156),
        ] {
            let counts = Twemproxy::default().point_counts(&vec![Weight::ONE; nodes]);
            assert!(
                counts.iter().all(|count| *count == points),
                "{nodes}: {counts:?}"
            );
        }
    }

    #[test]
    fn twemproxy_hash_tag_limits_the_hashed_bytes() {
        let twemproxy = Twemproxy {
            hash_tag: Some(*b"{}"),
            ..Twemproxy::default()
        };
        let plain = |key: &str| Twemproxy::default().hash(key.as_bytes());
        for (key, part) in [
            ("a{b}c", "b"),
            ("{}x", "{}x"),
            ("a{b", "a{b"),
            ("}a{b}{c}", "b"),
        ] {
            assert_eq!(twemproxy.hash(key.as_bytes()), plain(part), "{key}");
        }
    }

    #[test]
    fn twemproxy_default_port_is_not_part_of_the_name() {
        let member = |label, id| Member {
            label,
            id,
            weight: Weight::ONE,
        };
        let members = [
            member("a:11211", None),
            member("b:11212", None),
            member("c:1", Some("c:11211")),
        ];
        let names = Twemproxy::default().hash_names(&members).unwrap();
        assert_eq!(names, ["a", "b:11212", "c:11211"]);
    }
}
