//! `circle`: the textbook ring, one point per MD5.
//!
//! Point `i` of a label is `MD5("{label}-{i}")` read as one big-endian number mod 2^32, which is
//! its last four bytes; a key is hashed the same way, without a number. A hash belongs to the
//! first point strictly after it, as in every textbook that searches with `bisect_right`.

use super::dialect::{Placement, Side};
use super::label::Numbered;
use super::{Hash, digest};

/// See the module.
pub(super) struct Circle;

impl Placement for Circle {
    fn points_per_digest(&self) -> u32 {
        1
    }

    fn place(&self, label: &str, points: u32, put: &mut dyn FnMut(u32)) {
        let mut name = Numbered::new(label);
        (0..points).for_each(|i| put(last_word(name.with(i))));
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        Hash(last_word(key))
    }

    fn side(&self) -> Side {
        Side::After
    }
}

/// MD5 as a big-endian number, mod 2^32.
#[inline]
fn last_word(text: &[u8]) -> u32 {
    let [.., last] = digest::words(text);
    last.swap_bytes()
}
