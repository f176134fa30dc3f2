//! The share of the circle that each member owns, also if members take only a part of their keys.

use super::dialect::SAMPLE_KEYS;
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::overlay::{overlay, overlay_available};
use super::rendezvous::Rendezvous;

/// The number of 32-bit hashes. 64-bit hashes are counted in as many equal parts.
const HASH_SPACE: f64 = 4_294_967_296.0;

/// A count in progress for [`Ring::partial_shares`].
struct PartialShares<'a> {
    /// For each member, the part of the keys arriving there that it takes, 0.0 ..= 1.0.
    home_fractions: &'a [f64],
    shares: Vec<f64>,
}

impl Ring {
    /// The share of the circle of each member, by [`MemberId`], in 2^32nds. The sum is 2^32; an empty ring
    /// has no shares.
    ///
    /// Exact with 32-bit hashes. With 64-bit hashes each arc is rounded down to a multiple of 2^-32.
    /// Without points: an estimate from a sample, see [`Self::sample_size`].
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.members()];
        overlay(self, self, |run| {
            if let Some(share) = shares.get_mut(run.from.index()) {
                *share += run.hashes;
            }
        });
        shares
    }

    /// The share of the circle of each member, by [`MemberId`], in 2^32nds, if a member takes only a part of
    /// the keys that arrive at it: `home_fractions`, 0.0 ..= 1.0. All members take keys in the same
    /// order, so the keys that a member leaves go to the next member of the walk with a greater fraction.
    ///
    /// At least one fraction must be 1.0; else some keys are counted for no member. As exact as
    /// [`Self::shares`]. Costs one pass over the points; in dialect `haproxy`, one for each distinct
    /// fraction.
    pub fn partial_shares(&self, home_fractions: &[f64]) -> Vec<f64> {
        let mut shares = PartialShares {
            home_fractions,
            shares: vec![0.0; self.members()],
        };
        match &self.order {
            LookupOrder::Clockwise => shares.sweep_points(self),
            LookupOrder::Nearest(_) => shares.sweep_each_fraction(self),
            LookupOrder::Rendezvous(_) => shares.count_sample(self),
        }
        shares.shares
    }

    /// The members without points (too light for one), which a walk gives after all others. Last first.
    fn members_without_points(&self) -> impl Iterator<Item = MemberId> {
        let mut has_point = vec![false; self.members()];
        for (_, owner) in self.points() {
            if let Some(has) = has_point.get_mut(owner.index()) {
                *has = true;
            }
        }
        let members = (0..self.members).map(MemberId).zip(has_point).rev();
        members.filter_map(|(member, has_point)| (!has_point).then_some(member))
    }
}

impl PartialShares<'_> {
    fn home_fraction(&self, member: MemberId) -> f64 {
        self.home_fractions
            .get(member.index())
            .copied()
            .unwrap_or(0.0)
    }

    /// Sweeps from the last point to the first with a stack of the members ahead, the nearest on top. A
    /// member with no greater fraction than a nearer one gets none of the arcs before both, so it is popped.
    fn sweep_points(&mut self, ring: &Ring) {
        let points: Vec<_> = ring.points().collect();
        let mut ahead = Vec::new();
        let round = points.iter().rev().map(|(_, owner)| *owner);
        for member in ring.members_without_points().chain(round) {
            self.push_successor(member, &mut ahead);
        }
        let mut ends = points.iter().map(|(end, _)| f64::from(*end) + 1.0);
        let begins = std::iter::once(0.0).chain(ends.clone());
        let begins: Vec<_> = begins.take(points.len()).collect();
        let arcs = points.iter().zip(ends.clone()).zip(begins);
        for (((_, owner), end), begin) in arcs.rev() {
            self.push_successor(*owner, &mut ahead);
            self.distribute(end - begin, ahead.iter().rev().copied());
        }
        // The hashes after the last point are the first point's.
        let wrap = ends.next_back().map_or(0.0, |last| HASH_SPACE - last);
        self.distribute(wrap, ahead.iter().rev().copied());
    }

    fn push_successor(&self, member: MemberId, ahead: &mut Vec<MemberId>) {
        let home = self.home_fraction(member);
        while ahead
            .pop_if(|next| self.home_fraction(*next) <= home)
            .is_some()
        {}
        ahead.push(member);
    }

    /// Distributes hashes along a walk: each member gets the part by which its fraction exceeds the
    /// greatest one before it.
    fn distribute(&mut self, hashes: f64, walk: impl IntoIterator<Item = MemberId>) {
        let mut given = 0.0;
        for member in walk {
            let home = self.home_fraction(member);
            if home > given
                && let Some(share) = self.shares.get_mut(member.index())
            {
                *share += hashes * (home - given);
                given = home;
            }
            if given >= 1.0 {
                return;
            }
        }
    }

    /// Counts once per distinct fraction: the ends of arcs depend on the members that reach it.
    fn sweep_each_fraction(&mut self, ring: &Ring) {
        let homes = self.home_fractions;
        let mut fractions: Vec<f64> = homes.iter().copied().filter(|home| *home > 0.0).collect();
        fractions.sort_by(f64::total_cmp);
        fractions.dedup();
        let mut before = 0.0;
        for fraction in fractions {
            let up = |member: MemberId| {
                homes
                    .get(member.index())
                    .is_some_and(|home| *home >= fraction)
            };
            overlay_available((ring, up), (ring, up), |run| {
                if let Some(share) = self.shares.get_mut(run.from.index()) {
                    *share += hashes_as_f64(run.hashes) * (fraction - before);
                }
            });
            before = fraction;
        }
    }

    /// Without points: a sample of keys, each of which represents the same number of hashes.
    fn count_sample(&mut self, ring: &Ring) {
        let all_or_none = self
            .home_fractions
            .iter()
            .all(|home| *home <= 0.0 || *home >= 1.0);
        let hashes = HASH_SPACE / f64::from(SAMPLE_KEYS);
        for text in Rendezvous::sample_keys() {
            let key = ring.key(text.as_bytes());
            if all_or_none {
                let first = ring.find(&key, |member| self.home_fraction(member) > 0.0);
                self.distribute(hashes, first);
            } else {
                self.distribute(hashes, ring.walk(&key));
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
pub(super) fn hashes_as_f64(run: u64) -> f64 {
    run as f64
}
