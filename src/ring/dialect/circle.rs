//! `circle`: the textbook ring, one point per MD5.
//!
//! Point `i` of a label is `MD5("{label}-{i}")` read as one big-endian number mod 2^32, which is
//! its last four bytes; a key is hashed the same way, without a number. A hash belongs to the
//! first point strictly after it, as in every textbook that searches with `bisect_right`.

use super::label::Numbered;
use super::{Owner, Placement, Rules, Setting, is_choice};
use crate::ring::{Hash, digest};

/// See the module.
pub(super) struct Circle {
    /// Points per unit of weight.
    pub(super) replicas: u32,
}

impl Placement for Circle {
    fn name(&self) -> &'static str {
        "circle"
    }

    fn options(&self) -> Vec<(&'static str, Setting)> {
        vec![("replicas", Setting::Number(self.replicas.into()))]
    }

    fn is_valid(&self) -> bool {
        is_choice(self.replicas)
    }

    fn per_weight(&self) -> u32 {
        self.replicas
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        let mut name = Numbered::new(name);
        (0..points).for_each(|i| put(last_word(name.with(i)).into()));
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        Hash(last_word(key).into())
    }

    fn rules(&self) -> Rules {
        Rules {
            owner: Owner::After,
            ..Rules::default()
        }
    }
}

/// MD5 as a big-endian number, mod 2^32.
#[inline]
fn last_word(text: &[u8]) -> u32 {
    let [.., last] = digest::words(text);
    last.swap_bytes()
}
