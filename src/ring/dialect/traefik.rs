//! `traefik`: `strategy: hrw` of Traefik, rendezvous hashing.
//!
//! There are no points. A member's score for a key is computed from the 64-bit FNV-1a hash of the key
//! followed by the server's URL, and from the weight. The member with the greatest score owns the key, and
//! the walk continues in descending order. Hashed for a member: the URL as configured in Traefik,
//! `http://10.0.0.1:8080`; set it as the `id`.
//!
//! FNV-1a hardly mixes the last bytes of a text, and URLs of servers differ mostly there. The shares are far from
//! even, as in Traefik.

use super::placement::{OwnerRule, OwnershipRules, Placement, TieBreak};
use crate::ring::hash::Hash;
use crate::ring::member::Weight;

/// The algorithm; see the module.
pub(super) struct Traefik;

impl Placement for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    /// The state of FNV-1a after the key; each member's score continues from it.
    fn hash(&self, key: &[u8]) -> Hash {
        Hash(fnv1a(0xcbf2_9ce4_8422_2325, key))
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::HighestScore,
            tie_break: TieBreak::ByMemberOrder,
            is_64_bit: true,
        }
    }

    /// The bits of positive floats sort as the floats do. A score that is not positive is 0, the least.
    #[expect(
        clippy::cast_precision_loss,
        reason = "Traefik's own arithmetic, which decides about keys"
    )]
    fn score(&self, name: &str, weight: Weight, hash: Hash, _key: &[u8]) -> u64 {
        let sum = fnv1a(hash.0, name.as_bytes());
        let share = sum as f64 / 2_f64.powi(64);
        let score = 1.0 / -share.ln() * f64::from(weight.get());
        if score > 0.0 { score.to_bits() } else { 0 }
    }
}

fn fnv1a(state: u64, text: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    text.iter().fold(state, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traefik_hash_covers_key_then_name() {
        assert_eq!(fnv1a(Traefik.hash(b"foo").0, b"bar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn traefik_score_doubles_with_the_weight() {
        let score = |weight| {
            let weight = Weight::new(weight).unwrap();
            f64::from_bits(Traefik.score("http://10.0.0.1", weight, Hash(7), b""))
        };
        assert!((score(2) / score(1) - 2.0).abs() < 1e-12);
    }
}
