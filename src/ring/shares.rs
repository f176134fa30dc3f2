//! How much of the circle belongs to each member, where some of them take only a part of their keys.

use super::scores::Scores;
use super::{MemberId, Order, Ring, overlay_up};

/// The number of hashes; of more, as many equal parts.
const SPACE: f64 = 4_294_967_296.0;

/// What each member has so far.
struct Shares<'a> {
    /// Of the keys that come to each member, the part that is home there.
    homes: &'a [f64],
    shares: Vec<f64>,
}

impl Ring {
    /// How much of the circle each member has, by [`MemberId`], in 2^32nds, where of the keys that come to a
    /// member only a part is home there: `homes`, 0.0 ..= 1.0. The orders in which keys come home are taken
    /// as one, so that what a member leaves goes to the next on the walk that has come further.
    ///
    /// At least one must have all its keys; else the rest is nobody's. As exact as [`Self::shares`], in one
    /// round of the points; but in dialect `haproxy` in one for each part that there is.
    pub fn shares_of(&self, homes: &[f64]) -> Vec<f64> {
        let mut shares = Shares {
            homes,
            shares: vec![0.0; self.members()],
        };
        match &self.order {
            Order::Clockwise => shares.sweep(self),
            Order::Nearest(_) => shares.sweep_each(self),
            Order::Scores(_) => shares.try_out(self),
        }
        shares.shares
    }

    /// Those that are too light for a point, which come after all others: the last first.
    fn without_points(&self) -> impl Iterator<Item = MemberId> {
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

impl Shares<'_> {
    fn home(&self, member: MemberId) -> f64 {
        self.homes.get(member.index()).copied().unwrap_or(0.0)
    }

    /// From the last point to the first, so that it is known who comes after each: `ahead`, the next one
    /// last. Who has come no further than one before it gets nothing of what lies before both.
    fn sweep(&mut self, ring: &Ring) {
        let points: Vec<_> = ring.points().collect();
        let mut ahead = Vec::new();
        let round = points.iter().rev().map(|(_, owner)| *owner);
        for member in ring.without_points().chain(round) {
            self.put(member, &mut ahead);
        }
        let mut ends = points.iter().map(|(end, _)| f64::from(*end) + 1.0);
        let begins = std::iter::once(0.0).chain(ends.clone());
        let begins: Vec<_> = begins.take(points.len()).collect();
        let arcs = points.iter().zip(ends.clone()).zip(begins);
        for (((_, owner), end), begin) in arcs.rev() {
            self.put(*owner, &mut ahead);
            self.give(end - begin, ahead.iter().rev().copied());
        }
        // What lies behind the last point is the first one's.
        let around = ends.next_back().map_or(0.0, |last| SPACE - last);
        self.give(around, ahead.iter().rev().copied());
    }

    fn put(&self, member: MemberId, ahead: &mut Vec<MemberId>) {
        let home = self.home(member);
        while ahead.pop_if(|next| self.home(*next) <= home).is_some() {}
        ahead.push(member);
    }

    /// Gives so many hashes to those on the walk, each what it has come further than all before it.
    fn give(&mut self, hashes: f64, walk: impl IntoIterator<Item = MemberId>) {
        let mut given = 0.0;
        for member in walk {
            let home = self.home(member);
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
    fn sweep_each(&mut self, ring: &Ring) {
        let homes = self.homes;
        let mut parts: Vec<f64> = homes.iter().copied().filter(|home| *home > 0.0).collect();
        parts.sort_by(f64::total_cmp);
        parts.dedup();
        let mut before = 0.0;
        for part in parts {
            let up = |member: MemberId| homes.get(member.index()).is_some_and(|home| *home >= part);
            overlay_up((ring, up), (ring, up), |run| {
                if let Some(share) = self.shares.get_mut(run.from.index()) {
                    *share += hashes(run.hashes) * (part - before);
                }
            });
            before = part;
        }
    }

    /// Without points: a sample of keys, each of which stands for as many hashes.
    fn try_out(&mut self, ring: &Ring) {
        let all_or_none = self.homes.iter().all(|home| *home <= 0.0 || *home >= 1.0);
        let hashes = SPACE / f64::from(Scores::SAMPLE);
        for text in Scores::sample() {
            let key = ring.key(text.as_bytes());
            if all_or_none {
                let first = ring.find(&key, |member| self.home(member) > 0.0);
                self.give(hashes, first);
            } else {
                self.give(hashes, ring.walk(&key));
            }
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
pub(super) fn hashes(run: u64) -> f64 {
    run as f64
}
