//! `ketama`: four points per MD5, as in libketama (Richard Jones, last.fm, 2007), but with a fixed
//! number of points per unit of weight.
//!
//! Point `4k + i` of a label is the `i`-th little-endian `u32` of `MD5("{label}-{k}")`. libketama
//! itself gives every server a share of the total that is computed in floating point: there, one
//! changed weight moves keys between unrelated servers, and 61 equal servers get one digest less
//! each than 60. Equal weights agree with it wherever its rounding gives all 40 digests.

use super::dialect::{Placement, Side};
use super::label::Numbered;
use super::{Hash, digest};

/// See the module.
pub(super) struct Ketama;

impl Placement for Ketama {
    fn points_per_digest(&self) -> u32 {
        4
    }

    fn place(&self, label: &str, points: u32, put: &mut dyn FnMut(u32)) {
        let mut name = Numbered::new(label);
        for k in 0..points / self.points_per_digest() {
            digest::words(name.with(k)).into_iter().for_each(&mut *put);
        }
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        let [first, ..] = digest::words(key);
        Hash(first)
    }

    fn side(&self) -> Side {
        Side::AtOrAfter
    }
}
