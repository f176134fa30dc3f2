//! `caddy`: the hashing policies of Caddy (`ip_hash`, `client_ip_hash`, `uri_hash`, `header`, `query`),
//! rendezvous hashing.
//!
//! There are no points. A member's score for a key is the hash of the member's name followed by the key (in
//! Caddy 2.6 of the key followed by the name). The member with the greatest score owns the key, and the
//! walk continues in descending order. Hashed for a member: its address with the port, as configured in
//! Caddy: `10.0.0.1:8080`, `app.example:80`, `unix//run/app.sock`. Weights have no effect.
//!
//! A key is hashed as text: `client_ip`, `path_and_query`, a header's value, or for `query` the decoded values of a
//! parameter, joined with commas; the key source `query` is the first value as sent. For a request without a key
//! Caddy uses its `fallback`, by default `random`.

use std::hash::Hasher as _;

use twox_hash::XxHash64;

use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, TieBreak, option_name,
};
use crate::ring::hash::Hash;
use crate::ring::member::Weight;

/// The options of dialect `caddy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caddy {
    /// The function that computes a score.
    pub function: CaddyHash,
}

/// The hash function, which depends on the version of Caddy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaddyHash {
    /// XXH64 of name and key: current versions.
    #[default]
    Xxhash,
    /// 32-bit FNV-1a of key and name: Caddy 2.6.
    Fnv1a32,
}

impl CaddyHash {
    /// The names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[("xxhash", Self::Xxhash), ("fnv1a_32", Self::Fnv1a32)];

    /// The hash of both texts, concatenated.
    fn hash(self, name: &[u8], key: &[u8]) -> u64 {
        match self {
            Self::Xxhash => {
                let mut hasher = XxHash64::with_seed(0);
                hasher.write(name);
                hasher.write(key);
                hasher.finish()
            }
            Self::Fnv1a32 => fnv1a(key.iter().chain(name)).into(),
        }
    }
}

impl Placement for Caddy {
    fn name(&self) -> &'static str {
        "caddy"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![("hash", option_name(CaddyHash::NAMES, &self.function))]
    }

    /// Not Caddy's: this hash identifies a key but determines no owner.
    fn hash(&self, key: &[u8]) -> Hash {
        Hash(XxHash64::oneshot(0, key))
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::HighestScore,
            tie_break: TieBreak::ByMemberOrder,
            is_64_bit: true,
        }
    }

    fn score(&self, name: &str, _weight: Weight, _hash: Hash, key: &[u8]) -> u64 {
        self.function.hash(name.as_bytes(), key)
    }
}

fn fnv1a<'a>(text: impl Iterator<Item = &'a u8>) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    text.fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caddy_score_hashes_name_then_key() {
        let score = |function, name, key: &str| {
            let hash = Hash(0);
            Caddy { function }.score(name, Weight::MAX, hash, key.as_bytes())
        };
        // The published vectors of XXH64 and FNV-1a.
        assert_eq!(score(CaddyHash::Xxhash, "", ""), 0xef46_db37_51d8_e999);
        assert_eq!(score(CaddyHash::Xxhash, "ab", "c"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(score(CaddyHash::Xxhash, "", "abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(score(CaddyHash::Fnv1a32, "bar", "foo"), 0xbf9c_f968);
    }
}
