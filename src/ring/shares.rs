//! How much of the circle belongs to each member, where some of them take only a part of their keys.

use super::dialect::SAMPLE_KEYS;
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::overlay::{overlay, overlay_available};
use super::rendezvous::Rendezvous;

/// The number of hashes; of more, as many equal parts.
const HASH_SPACE: f64 = 4_294_967_296.0;

/// What each member has so far.
struct PartialShares<'a> {
    /// Of the keys that come to each member, the part that is home there.
    home_fractions: &'a [f64],
    shares: Vec<f64>,
}

impl Ring {
    /// How much of the circle belongs to each member, by [`MemberId`], in 2^32nds. They add up to
    /// 2^32, but for an empty ring, which has no shares.
    ///
    /// They are exact where hashes have 32 bits. Where they have 64, each arc is cut off to a multiple of
    /// 2^-32. Where there are no points they are those of a sample: see [`Self::sample`].
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.members()];
        overlay(self, self, |run| {
            if let Some(share) = shares.get_mut(run.from.index()) {
                *share += run.hashes;
            }
        });
        shares
    }

    /// How much of the circle each member has, by [`MemberId`], in 2^32nds, where of the keys that come to a
    /// member only a part is home there: `homes`, 0.0 ..= 1.0. The orders in which keys come home are taken
    /// as one, so that what a member leaves goes to the next on the walk that has come further.
    ///
    /// At least one must have all its keys; else the rest is nobody's. As exact as [`Self::shares`], in one
    /// round of the points; but in dialect `haproxy` in one for each part that there is.
    pub fn partial_shares(&self, homes: &[f64]) -> Vec<f64> {
        let mut shares = PartialShares {
            home_fractions: homes,
            shares: vec![0.0; self.members()],
        };
        match &self.order {
            LookupOrder::Clockwise => shares.sweep_points(self),
            LookupOrder::Nearest(_) => shares.sweep_each_fraction(self),
            LookupOrder::Rendezvous(_) => shares.count_sample(self),
        }
        shares.shares
    }

    /// Those that are too light for a point, which come after all others: the last first.
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

    /// From the last point to the first, so that it is known who comes after each: `ahead`, the next one
    /// last. Who has come no further than one before it gets nothing of what lies before both.
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
        // What lies behind the last point is the first one's.
        let around = ends.next_back().map_or(0.0, |last| HASH_SPACE - last);
        self.distribute(around, ahead.iter().rev().copied());
    }

    fn push_successor(&self, member: MemberId, ahead: &mut Vec<MemberId>) {
        let home = self.home_fraction(member);
        while ahead
            .pop_if(|next| self.home_fraction(*next) <= home)
            .is_some()
        {}
        ahead.push(member);
    }

    /// Gives so many hashes to those on the walk, each what it has come further than all before it.
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

    /// Where arcs end depends on who is up: on those that have come as far as each part.
    fn sweep_each_fraction(&mut self, ring: &Ring) {
        let homes = self.home_fractions;
        let mut parts: Vec<f64> = homes.iter().copied().filter(|home| *home > 0.0).collect();
        parts.sort_by(f64::total_cmp);
        parts.dedup();
        let mut before = 0.0;
        for part in parts {
            let up = |member: MemberId| homes.get(member.index()).is_some_and(|home| *home >= part);
            overlay_available((ring, up), (ring, up), |run| {
                if let Some(share) = self.shares.get_mut(run.from.index()) {
                    *share += hashes_as_f64(run.hashes) * (part - before);
                }
            });
            before = part;
        }
    }

    /// Without points: a sample of keys, each of which stands for as many hashes.
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
