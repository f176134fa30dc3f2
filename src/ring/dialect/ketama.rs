//! `ketama`: four points per MD5, as in libketama (Richard Jones, last.fm, 2007), but with a fixed
//! number of points per unit of weight.
//!
//! Point `4k + i` of a label is the `i`-th little-endian `u32` of `MD5("{label}-{k}")`. libketama itself
//! computes the share of each server in floating point. For this reason, one changed weight moves keys between
//! unrelated servers, and each of 61 equal servers has one digest less than each of 60. If the weights are equal
//! and libketama's rounding gives 40 digests per server, both place keys alike.

use super::numbered_name::NumberedName;
use super::placement::{DialectOptionValue, Placement, is_valid_points_per_weight};
use crate::ring::hash::Hash;
use crate::ring::md5;
use crate::ring::member::Weight;

/// Points from one MD5 digest.
pub(super) const POINTS_PER_DIGEST: u32 = 4;

/// The algorithm; see the module.
pub(super) struct Ketama {
    /// Points per unit of weight.
    pub(super) points: u32,
}

impl Placement for Ketama {
    fn name(&self) -> &'static str {
        "ketama"
    }

    fn options(&self) -> Vec<(&'static str, DialectOptionValue)> {
        vec![("points", DialectOptionValue::Number(self.points.into()))]
    }

    fn is_valid(&self) -> bool {
        is_valid_points_per_weight(self.points) && self.points.is_multiple_of(POINTS_PER_DIGEST)
    }

    fn points_per_weight(&self) -> u32 {
        self.points
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        place(name, points, put);
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> Hash {
        let [first, ..] = md5::words(key);
        Hash(first.into())
    }
}

/// The number of points of each server if it depends on the server's share of the total weight.
/// `digests` computes a server's number of digests from its weight, the sum of weights and the number of
/// servers.
pub(super) fn counts_by_share(
    weights: &[Weight],
    digests: fn(Weight, u32, u16) -> u64,
) -> Vec<u64> {
    let total = weights.iter().map(|weight| u32::from(weight.get())).sum();
    let servers = u16::try_from(weights.len()).unwrap_or(u16::MAX);
    let points = |weight: &Weight| digests(*weight, total, servers) * u64::from(POINTS_PER_DIGEST);
    weights.iter().map(points).collect()
}

/// Calls `put` with the points of the first `points / 4` digests.
pub(super) fn place(name: &str, points: u32, put: &mut dyn FnMut(u64)) {
    let mut name = NumberedName::new(name);
    for k in 0..points / POINTS_PER_DIGEST {
        md5::words(name.with_number(k))
            .map(u64::from)
            .into_iter()
            .for_each(&mut *put);
    }
}
