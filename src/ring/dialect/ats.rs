//! `ats`: `round_robin=consistent_hash` of Apache Traffic Server's parent selection.
//!
//! What is hashed for a member is the parent's name, or its `hash_string`. Point `i` is the SipHash, with a key of
//! zeros, of `i`, `-` and the name, `replicas` for each unit of weight. A parent that is down is stepped
//! over clockwise.

use std::hash::Hasher as _;

use siphasher::sip::{SipHasher13, SipHasher24};

use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, TieBreak, is_valid_points_per_weight,
    option_name,
};
use crate::ring::hash::Hash;

/// How Traffic Server was told to place and to hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// `proxy.config.http.parent_proxy.consistent_hash_algorithm`.
    pub function: AtsHash,
    /// Points per unit of weight.
    pub replicas: u32,
}

/// The function by which Traffic Server places parents and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsHash {
    /// SipHash-2-4, the only one before 10.2.
    Siphash24,
    /// SipHash-1-3.
    Siphash13,
}

impl AtsHash {
    /// Their names in the configuration.
    pub const NAMES: &[(&str, Self)] = &[
        ("siphash24", Self::Siphash24),
        ("siphash13", Self::Siphash13),
    ];

    fn hash(self, text: &[u8]) -> u64 {
        match self {
            Self::Siphash24 => {
                let mut hasher = SipHasher24::new();
                hasher.write(text);
                hasher.finish()
            }
            Self::Siphash13 => {
                let mut hasher = SipHasher13::new();
                hasher.write(text);
                hasher.finish()
            }
        }
    }
}

impl Ats {
    /// The points per unit of weight where nothing is said.
    pub const DEFAULT_REPLICAS: u32 = 1024;
}

impl Default for Ats {
    fn default() -> Self {
        Self {
            function: AtsHash::Siphash24,
            replicas: Self::DEFAULT_REPLICAS,
        }
    }
}

impl Placement for Ats {
    fn name(&self) -> &'static str {
        "ats"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![
            ("hash", option_name(AtsHash::NAMES, &self.function)),
            ("replicas", DialectOptionValue::Number(self.replicas.into())),
        ]
    }

    fn is_valid(&self) -> bool {
        is_valid_points_per_weight(self.replicas)
    }

    fn points_per_weight(&self) -> u32 {
        self.replicas
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        (0..points).for_each(|point| put(self.function.hash(format!("{point}-{name}").as_bytes())));
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Hash(self.function.hash(key))
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::AtOrAfter,
            tie_break: TieBreak::KeepFirst,
            is_64_bit: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of SipHash's authors have another key; this one is the reference code's, with zeros.
    #[test]
    fn ats_siphash_uses_a_zero_key() {
        assert_eq!(AtsHash::Siphash24.hash(b""), 0x1e92_4b9d_7377_00d7);
    }
}
