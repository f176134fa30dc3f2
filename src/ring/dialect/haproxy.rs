//! `haproxy`: `hash-type consistent` of HAProxy.
//!
//! Hashed for a member: the server's number, which is the `id` of its `server` line or a counter that
//! increases with every server and skips ids in use. So without ids the *order* of the servers places
//! them. Point `j` is [`full_hash`]`(4096 × number + j)`, with 16 points per unit of weight. A hash belongs
//! to the nearest point in *either* direction. A server that is down is taken off the ring, so its keys go
//! to the nearest point of another server.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::placement::{
    DialectOptionValue, InvalidId, OwnerRule, OwnershipRules, Placement, TieBreak, option_name,
};
use crate::ring::hash::Hash;
use crate::ring::member::Member;

const POINTS_PER_WEIGHT: u32 = 16;
/// Consecutive hash inputs reserved for the points of each server.
const MAX_POINTS_PER_SERVER: u32 = 4096;

/// The options of dialect `haproxy`, as in `hash-type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Haproxy {
    /// The second word of `hash-type`: the hash function of keys.
    pub function: HaproxyHash,
    /// The modifier `avalanche`: mixes the result of the function once more. Also HAProxy's behaviour if
    /// `hash-type` names no function.
    pub avalanche: bool,
}

/// The function that hashes a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaproxyHash {
    /// `sdbm`, the default.
    Sdbm,
    /// `djb2`.
    Djb2,
    /// `wt6`.
    Wt6,
    /// `crc32`.
    Crc32,
    /// `none`: the key is a decimal number, its own hash.
    None,
    /// `balance source`: the key is an IP address as text. Any other text is hashed with `sdbm`.
    Source,
}

impl HaproxyHash {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[
        ("sdbm", Self::Sdbm),
        ("djb2", Self::Djb2),
        ("wt6", Self::Wt6),
        ("crc32", Self::Crc32),
        ("none", Self::None),
        ("source", Self::Source),
    ];
}

impl Haproxy {
    /// The greatest id of a server.
    pub const MAX_ID: u32 = 0x7fff_ffff;
}

impl Default for Haproxy {
    fn default() -> Self {
        Self {
            function: HaproxyHash::Sdbm,
            avalanche: true,
        }
    }
}

impl Placement for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![
            ("hash", option_name(HaproxyHash::NAMES, &self.function)),
            ("avalanche", DialectOptionValue::Flag(self.avalanche)),
        ]
    }

    fn hash_names<'a>(&self, members: &[Member<'a>]) -> Result<Vec<Cow<'a, str>>, InvalidId> {
        let ids: Vec<_> = members.iter().map(parse_id).collect::<Result<_, _>>()?;
        let numbers = server_numbers(&ids).into_iter();
        Ok(numbers
            .map(|number| Cow::Owned(number.to_string()))
            .collect())
    }

    fn points_per_weight(&self) -> u32 {
        POINTS_PER_WEIGHT
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        // `hash_names` returns numbers only.
        let key = name
            .parse::<u32>()
            .unwrap_or(0)
            .wrapping_mul(MAX_POINTS_PER_SERVER);
        (0..points).for_each(|point| put(full_hash(key.wrapping_add(point)).into()));
    }

    fn hash(&self, key: &[u8]) -> Hash {
        let hash = match self.function {
            HaproxyHash::Sdbm => sdbm(key),
            HaproxyHash::Djb2 => djb2(key),
            HaproxyHash::Wt6 => wt6(key),
            HaproxyHash::Crc32 => crc32fast::hash(key),
            HaproxyHash::None => parse_decimal(key),
            HaproxyHash::Source => fold_address(key).unwrap_or_else(|| sdbm(key)),
        };
        Hash(
            if self.avalanche {
                full_hash(hash)
            } else {
                hash
            }
            .into(),
        )
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::Nearest,
            tie_break: TieBreak::ByMemberOrder,
            is_64_bit: false,
        }
    }
}

/// The number of each server: its `id`, or a counter that skips the `id`s in use. The counter also increases
/// at servers with an `id`.
pub fn server_numbers(ids: &[Option<u32>]) -> Vec<u32> {
    let mut numbers = ServerNumbers::new(ids.iter().flatten().copied());
    ids.iter().map(|id| numbers.assign(*id)).collect()
}

/// Assigns numbers to the servers of a backend, in their order.
#[derive(Clone, Debug)]
pub struct ServerNumbers {
    /// The `id`s of all servers.
    taken: BTreeSet<u32>,
    /// The number that was assigned last without an `id`, or the number of servers.
    last: u32,
}

impl ServerNumbers {
    /// `ids` are the `id`s of all servers, also of those that are skipped.
    pub fn new(ids: impl IntoIterator<Item = u32>) -> Self {
        Self {
            taken: ids.into_iter().collect(),
            last: 0,
        }
    }

    /// The number of the next server.
    pub fn assign(&mut self, id: Option<u32>) -> u32 {
        if let Some(id) = id {
            self.last = self.last.saturating_add(1);
            return id;
        }
        self.skip(1);
        self.last
    }

    /// Assigns numbers to this many servers without an `id`.
    pub fn skip(&mut self, servers: u32) {
        let Some(first) = self.last.checked_add(1).filter(|_| servers > 0) else {
            return;
        };
        // The last number, if none of the numbers before it were taken; each taken one moves it on by one.
        self.last = self.last.saturating_add(servers);
        for taken in self.taken.range(first..) {
            if *taken > self.last {
                break;
            }
            self.last = self.last.saturating_add(1);
        }
    }
}

fn parse_id(member: &Member<'_>) -> Result<Option<u32>, InvalidId> {
    let number = |id: &str| {
        let number = id.parse().ok();
        let number = number.filter(|number| (1..=Haproxy::MAX_ID).contains(number));
        number.ok_or_else(|| InvalidId {
            id: id.to_owned(),
            max: Haproxy::MAX_ID,
        })
    };
    member.id.map(number).transpose()
}

/// Bob Jenkins' full-avalanche integer hash, without collisions.
const fn full_hash(mut a: u32) -> u32 {
    a = a.wrapping_add(0x7ed5_5d16).wrapping_add(a << 12);
    a = (a ^ 0xc761_c23c) ^ (a >> 19);
    a = a.wrapping_add(0x1656_67b1).wrapping_add(a << 5);
    a = a.wrapping_add(0xd3a2_646c) ^ (a << 9);
    a = a.wrapping_add(0xfd70_46c5).wrapping_add(a << 3);
    a = (a ^ 0xb55a_4f09) ^ (a >> 16);
    a.wrapping_mul(3_221_225_473)
}

fn sdbm(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(65_599).wrapping_add((*byte).into());
    key.iter().fold(0, step)
}

fn djb2(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| hash.wrapping_mul(33).wrapping_add((*byte).into());
    key.iter().fold(5381, step)
}

fn wt6(key: &[u8]) -> u32 {
    let (mut a, mut b) = (0xa53c_965a_u32, 0x5ca6_953a_u32);
    let (mut left, mut right) = (6, 18);
    for byte in key {
        let byte = u32::from(*byte);
        let (x, y) = (!(a ^ byte), !b.wrapping_add(byte));
        (a, b) = (y.rotate_left(left), x.rotate_left(right));
        let turns = ((a >> 16) ^ b) & 0xffff;
        (left, right) = (turns & 31, turns >> 11);
    }
    a ^ b
}

/// The decimal number at the start of the text, mod 2^32; 0 without digits.
fn parse_decimal(key: &[u8]) -> u32 {
    let (negative, digits) = match key {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, key),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.fold(0_u32, |value, digit| {
        value.wrapping_mul(10).wrapping_add(u32::from(digit - b'0'))
    });
    if negative {
        value.wrapping_neg()
    } else {
        value
    }
}

/// The XOR of the 32-bit words of an IP address; `None` for other text.
fn fold_address(key: &[u8]) -> Option<u32> {
    match std::str::from_utf8(key).ok()?.parse().ok()? {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(address) => {
            let octets = address.octets();
            let (words, _) = octets.as_chunks();
            Some(
                words
                    .iter()
                    .fold(0, |sum, word| sum ^ u32::from_be_bytes(*word)),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Dialect, Ring, Weight};

    #[test]
    fn haproxy_full_hash_matches_haproxy() {
        assert_eq!(
            [1, 4096, 4097].map(full_hash),
            [881_230_262, 1_237_450_891, 2_761_370_759]
        );
    }

    #[test]
    fn haproxy_keys_are_placed_as_in_haproxy() {
        let dialect = Dialect::Haproxy(Haproxy::default());
        let names = ["a", "b", "c", "d"];
        let ring = Ring::new(dialect, names.map(|name| (name, Weight::ONE))).unwrap();
        let cases = [
            ("/foo", 2_322_697_729, 3),
            ("/bar", 3_820_059_158, 3),
            ("user-1", 2_384_854_057, 2),
            ("user-2", 746_140_066, 3),
        ];
        for (key, expected, server) in cases {
            let placed = ring.key(key.as_bytes());
            assert_eq!(
                (placed.hash().0, ring.owner(&placed).unwrap().0),
                (expected, server),
                "{key}"
            );
        }
    }

    #[test]
    fn haproxy_server_numbers_are_assigned_as_in_haproxy() {
        let member = |id| Member {
            label: "x",
            id,
            weight: Weight::ONE,
        };
        let names = |ids: &[Option<&'static str>]| {
            let members: Vec<_> = ids.iter().map(|id| member(*id)).collect();
            Haproxy::default().hash_names(&members)
        };
        let given = [Some("11"), Some("7"), None, None];
        assert_eq!(names(&given).unwrap(), ["11", "7", "3", "4"]);
        let given = [None, Some("1"), None, Some("3")];
        assert_eq!(names(&given).unwrap(), ["2", "1", "4", "3"]);
        let mut numbers = ServerNumbers::new([2, 5, 6]);
        numbers.skip(0);
        assert_eq!(numbers.assign(None), 1);
        // 3, 4 and 7 are free.
        numbers.skip(3);
        assert_eq!((numbers.assign(Some(5)), numbers.assign(None)), (5, 9));
        numbers.skip(u32::MAX);
        assert_eq!(numbers.assign(None), u32::MAX);
        for bad in ["x", "0", "-1", "2147483648", ""] {
            let error = names(&[Some(bad)]).unwrap_err();
            assert_eq!(error.id, bad);
        }
    }

    #[test]
    fn haproxy_decimal_and_address_keys_are_parsed() {
        let cases: [(&[u8], u32); 5] = [
            (b"17", 17),
            (b"-1", u32::MAX),
            (b"+3x", 3),
            (b"", 0),
            (b"x", 0),
        ];
        for (key, value) in cases {
            assert_eq!(parse_decimal(key), value);
        }
        assert_eq!(fold_address(b"10.1.2.3"), Some(0x0a01_0203));
        assert_eq!(fold_address(b"1::2:0:3"), Some(0x0001_0000 ^ 2 ^ 3));
        assert_eq!(fold_address(b"x"), None);
    }
}
