//! `ketama`: four points per MD5, as in libketama (Richard Jones, last.fm, 2007), but with a fixed
//! number of points per unit of weight.
//!
//! Point `4k + i` of a label is the `i`-th little-endian `u32` of `MD5("{label}-{k}")`. libketama
//! itself gives every server a share of the total that is computed in floating point: there, one
//! changed weight moves keys between unrelated servers, and 61 equal servers get one digest less
//! each than 60. Equal weights agree with it wherever its rounding gives all 40 digests.

use super::label::Numbered;
use super::{Dialect, Placement, Setting, fixed};
use crate::ring::{Hash, Weight, digest};

/// How many points come out of one digest.
pub(super) const PER_DIGEST: u32 = 4;

/// See the module.
pub(super) struct Ketama {
    /// Points per unit of weight.
    pub(super) points: u32,
}

impl Placement for Ketama {
    fn name(&self) -> &'static str {
        "ketama"
    }

    fn options(&self) -> Vec<(&'static str, Setting)> {
        vec![("points", Setting::Number(self.points.into()))]
    }

    fn is_valid(&self) -> bool {
        (1..=Dialect::MAX_POINTS).contains(&self.points) && self.points.is_multiple_of(PER_DIGEST)
    }

    fn counts(&self, weights: &[Weight]) -> Vec<u64> {
        fixed(self.points, weights)
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        place(name, points, put);
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        let [first, ..] = digest::words(key);
        Hash(first.into())
    }
}

/// Puts the points of the first `points / 4` digests.
pub(super) fn place(name: &str, points: u32, put: &mut dyn FnMut(u64)) {
    let mut name = Numbered::new(name);
    for k in 0..points / PER_DIGEST {
        digest::words(name.with(k))
            .map(u64::from)
            .into_iter()
            .for_each(&mut *put);
    }
}
