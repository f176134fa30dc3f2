//! `libketama`: libketama as published (Richard Jones, last.fm, 2007).
//!
//! Points and hashes are those of `ketama`, but the number of digests of a server is its share of the total
//! memory, computed in floating point. One changed weight or one more server changes the points of all servers
//! (breaks laws (b) and (c)). With some numbers of equal servers each gets 39 digests instead of 40. A
//! server far lighter than the others gets no digest and comes last in every walk.
//!
//! Programs that use the library remove a server that is down from the list. This also moves keys of other
//! servers. Clockwise does not rebuild the ring: only the keys of that server move, to the next server clockwise.

use super::ketama::{self, Ketama, POINTS_PER_DIGEST};
use super::placement::{OwnershipRules, Placement};
use crate::ring::hash::Hash;
use crate::ring::member::Weight;

/// The algorithm; see the module.
pub(super) struct Libketama;

impl Placement for Libketama {
    fn name(&self) -> &'static str {
        "libketama"
    }

    fn point_counts(&self, weights: &[Weight]) -> Vec<u64> {
        ketama::counts_by_share(weights, digest_count)
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        ketama::place(name, points, put);
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Ketama {
            points: POINTS_PER_DIGEST,
        }
        .hash(key)
    }

    fn ownership_rules(&self) -> OwnershipRules {
        OwnershipRules::AT_OR_AFTER_BY_MEMBER_ORDER
    }
}

/// Computes the share in single precision, the product in double, and rounds that to single again.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the library's own arithmetic, which decides about points"
)]
fn digest_count(weight: Weight, total: u32, servers: u16) -> u64 {
    let share = f32::from(weight.get()) / total as f32;
    let digests = f64::from(share) * 40.0 * f64::from(servers);
    (digests as f32).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libketama_equal_servers_lose_a_digest_to_rounding() {
        for (servers, points) in [
            (1, 160),
            (25, 160),
            (60, 160),
            (61, 156),
            (122, 156),
            (237, 156),
        ] {
            let counts = Libketama.point_counts(&vec![Weight::ONE; servers]);
            assert!(
                counts.iter().all(|count| *count == points),
                "{servers}: {counts:?}"
            );
        }
    }

    #[test]
    fn libketama_points_follow_the_share_of_total_weight() {
        let weights = [1, 2, 5].map(|weight| Weight::new(weight).unwrap());
        assert_eq!(Libketama.point_counts(&weights), [60, 120, 300]);
    }
}
