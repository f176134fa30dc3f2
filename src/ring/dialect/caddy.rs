//! `caddy`: the hashing policies of Caddy (`ip_hash`, `client_ip_hash`, `uri_hash`, `header`, `query`),
//! rendezvous hashing.
//!
//! There are no points. Every member's score for a key is the hash of one text, its name and then the key
//! (in 2.6 the key and then its name); the greatest has the key, and the walk goes down from there. What is hashed for a member is its address
//! as Caddy was told it, with the port: `10.0.0.1:8080`, `app.example:80`, `unix//run/app.sock`. Weights do not
//! count.
//!
//! A key is hashed as a text: `client_ip`, `path_and_query`, a header's value. Where a request has none, Caddy goes
//! by its `fallback`, which is chance where nothing is said.

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
    /// How a score is hashed.
    pub function: CaddyHash,
}

/// The function of a version of Caddy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaddyHash {
    /// XXH64 of the name and the key: the present one.
    #[default]
    Xxhash,
    /// The 32-bit FNV-1a of the key and the name: 2.6.
    Fnv1a32,
}

impl CaddyHash {
    /// Their names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[("xxhash", Self::Xxhash), ("fnv1a_32", Self::Fnv1a32)];

    /// The hash of both texts as one.
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

    /// Nothing of Caddy's: it decides about no owner.
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
