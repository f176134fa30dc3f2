//! `ats`: `round_robin=consistent_hash` of Apache Traffic Server's parent selection.
//!
//! Hashed for a member: the parent's name, or its `hash_string`. Point `i` is the SipHash, with a key of
//! zeros, of `"{i}-{name}"`; there are `replicas` points per unit of weight. A parent that is down is
//! skipped clockwise.

use std::hash::Hasher as _;

use siphasher::sip::{SipHasher13, SipHasher24};

use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, TieBreak, is_valid_points_per_weight,
    option_name,
};
use crate::ring::hash::Hash;

/// The options of dialect `ats`, as configured in Traffic Server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// `proxy.config.http.parent_proxy.consistent_hash_algorithm`.
    pub function: AtsHash,
    /// Points per unit of weight.
    pub replicas: u32,
}

/// The function that places parents and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsHash {
    /// SipHash-2-4, the only function before Traffic Server 10.2.
    Siphash24,
    /// SipHash-1-3.
    Siphash13,
}

impl AtsHash {
    /// The names in the configuration.
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
    /// Default points per unit of weight.
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

    /// From the reference code with a key of zeros; the published vectors use another key.
    #[test]
    fn ats_siphash_uses_a_zero_key() {
        assert_eq!(AtsHash::Siphash24.hash(b""), 0x1e92_4b9d_7377_00d7);
    }
}
