//! `circle`: the textbook ring, one point per MD5.
//!
//! Point `i` of a label is `MD5("{label}-{i}")` read as one big-endian number mod 2^32, which is
//! its last four bytes. A key is hashed the same way, without a number. A hash belongs to the first
//! point strictly after it, as in textbook code that searches with `bisect_right`.

use super::numbered_name::NumberedName;
use super::placement::{
    DialectOptionValue, OwnerRule, OwnershipRules, Placement, is_valid_points_per_weight,
};
use crate::ring::hash::Hash;
use crate::ring::md5;

/// The algorithm; see the module.
pub(super) struct Circle {
    /// Points per unit of weight.
    pub(super) replicas: u32,
}

impl Placement for Circle {
    fn name(&self) -> &'static str {
        "circle"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![("replicas", DialectOptionValue::Number(self.replicas.into()))]
    }

    fn is_valid(&self) -> bool {
        is_valid_points_per_weight(self.replicas)
    }

    fn points_per_weight(&self) -> u32 {
        self.replicas
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let mut name = NumberedName::new(name);
        (0..points).for_each(|i| put(md5_last_word(name.with_number(i)).into()));
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        Hash(md5_last_word(key).into())
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules {
            owner_rule: OwnerRule::After,
            ..OwnershipRules::default()
        }
    }
}

/// MD5 read as a big-endian number, mod 2^32.
#[inline]
fn md5_last_word(text: &[u8]) -> u32 {
    let [.., last] = md5::words(text);
    last.swap_bytes()
}
