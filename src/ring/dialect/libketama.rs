//! `libketama`: libketama as it was published (Richard Jones, last.fm, 2007).
//!
//! Points and hashes are those of `ketama`, but how many digests a server gets is its share of the
//! total memory in floating point: one changed weight, or a server more, changes everybody's points
//! (laws (b) and (c)), at times equal servers get 39 digests instead of 40, and a server
//! that is far lighter than the others gets none: then it is asked after all others.
//!
//! The library's users take a dead server out of the list, which moves keys of others too; here the
//! ring stays as it is, and only the keys of that server go on clockwise.

use super::ketama::{self, Ketama, PER_DIGEST};
use super::{Placement, Rules};
use crate::ring::{Hash, Weight};

/// See the module.
pub(super) struct Libketama;

impl Placement for Libketama {
    fn name(&self) -> &'static str {
        "libketama"
    }

    fn counts(&self, weights: &[Weight]) -> Vec<u64> {
        ketama::by_share(weights, digests)
    }

    fn place(&self, name: &str, points: u32, put: &mut dyn FnMut(u64)) {
        ketama::place(name, points, put);
    }

    fn hash(&self, key: &[u8]) -> Hash {
        Ketama { points: PER_DIGEST }.hash(key)
    }

    fn rules(&self) -> Rules {
        Rules::IN_ORDER
    }
}

/// The share in single precision, its product in double, and that in single again.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the library's own arithmetic, which decides about points"
)]
fn digests(weight: Weight, total: u32, servers: u16) -> u64 {
    let share = f32::from(weight.get()) / total as f32;
    let digests = f64::from(share) * 40.0 * f64::from(servers);
    (digests as f32).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_servers_lose_a_digest_where_the_library_rounds_it_away() {
        for (servers, points) in [
            (1, 160),
            (25, 160),
            (60, 160),
            (61, 156),
            (122, 156),
            (237, 156),
        ] {
            let counts = Libketama.counts(&vec![Weight::ONE; servers]);
            assert!(
                counts.iter().all(|count| *count == points),
                "{servers}: {counts:?}"
            );
        }
    }

    #[test]
    fn weights_are_shares_of_the_total() {
        let weights = [1, 2, 5].map(|weight| Weight::new(weight).unwrap());
        assert_eq!(Libketama.counts(&weights), [60, 120, 300]);
    }
}
