//! What moves between two rings: exactly, for the whole space of 2^32 hashes. (Where hashes have 64
//! bits, to a 2^32nd part at each point; where there are no points, by a sample.)
//!
//! Both rings are cut at every point of either. Between two neighbouring cuts each ring has one
//! owner, so the space is counted in as many steps as there are points, with no sampling.

use super::dialect::SAMPLE_KEYS;
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::rendezvous::Rendezvous;

/// Hashes that go to another member, with how many they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayRun {
    /// The owner in the first ring.
    pub from: MemberId,
    /// The owner in the second ring; its number counts there.
    pub to: MemberId,
    /// How many of the 2^32 hashes.
    pub hashes: u64,
}

/// Calls `each` for every run of hashes with its owner in either ring; the runs make up the whole
/// space, and several may have the same pair. Nothing is called where a ring is empty.
///
/// Only rings that hash the keys alike can be compared like this ([`Dialect::hashes_like`]).
///
/// [`Dialect::hashes_like`]: super::Dialect::hashes_like
pub fn overlay(first: &Ring, second: &Ring, each: impl FnMut(OverlayRun)) {
    overlay_available((first, |_| true), (second, |_| true), each);
}

/// As [`overlay`], where only those members are up for which the ring's function is true: a hash
/// belongs to the first of its walk that is. Nothing is called where a ring has none.
pub fn overlay_available(
    first: (&Ring, impl Fn(MemberId) -> bool),
    second: (&Ring, impl Fn(MemberId) -> bool),
    mut each: impl FnMut(OverlayRun),
) {
    if let (LookupOrder::Rendezvous(_), LookupOrder::Rendezvous(_)) =
        (&first.0.order, &second.0.order)
    {
        return overlay_sample(&first, &second, each);
    }
    let (mut a, mut b) = (sweep(first.0, first.1), sweep(second.0, second.1));
    let mut from = 0_u64;
    while let (Some((end_a, owner_a)), Some((end_b, owner_b))) = (a.current_run(), b.current_run())
    {
        let end = end_a.min(end_b);
        if end > from {
            each(OverlayRun {
                from: owner_a,
                to: owner_b,
                hashes: end - from,
            });
            from = end;
        }
        if from == HASH_SPACE {
            return;
        }
        a.advance_to(end);
        b.advance_to(end);
    }
}

/// The number of hashes; of more, as many equal parts.
const HASH_SPACE: u64 = 1 << 32;

/// [`overlay`] without points: what becomes of a sample of keys, each of which stands for as many
/// hashes.
fn overlay_sample(
    first: &(&Ring, impl Fn(MemberId) -> bool),
    second: &(&Ring, impl Fn(MemberId) -> bool),
    mut each: impl FnMut(OverlayRun),
) {
    let is_one_ring = std::ptr::eq(first.0, second.0);
    for text in Rendezvous::sample_keys() {
        let a = first.0.key(text.as_bytes());
        // What makes a key costs a hash for each member.
        let b = if is_one_ring {
            a.clone()
        } else {
            second.0.key(text.as_bytes())
        };
        if let (Some(from), Some(to)) = (first.0.find(&a, &first.1), second.0.find(&b, &second.1)) {
            let hashes = HASH_SPACE / u64::from(SAMPLE_KEYS);
            each(OverlayRun { from, to, hashes });
        }
    }
}

/// The runs of one ring, from hash 0 up.
///
/// The hashes up to a point are its owner's; which side of the point itself belongs to it differs
/// between dialects, and is the same in both rings.
struct ArcSweep<I: Iterator> {
    points: std::iter::Peekable<I>,
    /// The owner of the hashes after the last point: that of the first one.
    wrap_owner: Option<MemberId>,
}

fn sweep(
    ring: &Ring,
    is_up: impl Fn(MemberId) -> bool,
) -> ArcSweep<impl Iterator<Item = (u32, MemberId)>> {
    let ends = arc_ends(ring, &is_up);
    let first = ends.first().map(|(_, owner)| *owner);
    // Who is too light for a point has the hashes of those who are down only when nobody else is up.
    let members = ring.points().next().map_or(0, |_| ring.members);
    let around = first.or_else(|| (0..members).map(MemberId).find(|member| is_up(*member)));
    ArcSweep {
        points: ends.into_iter().peekable(),
        wrap_owner: around,
    }
}

/// Where the arcs of the members that are up end.
fn arc_ends(ring: &Ring, is_up: impl Fn(MemberId) -> bool) -> Vec<(u32, MemberId)> {
    match &ring.order {
        LookupOrder::Nearest(nearest) => nearest.of_members(is_up).arc_ends(),
        _ => return ring.points().filter(|(_, owner)| is_up(*owner)).collect(),
    }
    .into_iter()
    .map(|(end, owner)| (end, MemberId(owner.into())))
    .collect()
}

impl<I: Iterator<Item = (u32, MemberId)>> ArcSweep<I> {
    /// Where the present run ends, and whose it is.
    fn current_run(&mut self) -> Option<(u64, MemberId)> {
        match self.points.peek() {
            Some(&(point, owner)) => Some((u64::from(point) + 1, owner)),
            None => self.wrap_owner.map(|owner| (HASH_SPACE, owner)),
        }
    }

    /// Goes beyond the points before `end`: of several on one hash, the first one had the run.
    fn advance_to(&mut self, end: u64) {
        while self
            .points
            .next_if(|&(point, _)| u64::from(point) < end)
            .is_some()
        {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::{Dialect, Hash, Weight};
    use super::*;

    fn ring(dialect: Dialect, members: &[(String, u16)]) -> Ring {
        let members = members
            .iter()
            .map(|(label, weight)| (label.as_str(), Weight::new(*weight).unwrap()));
        Ring::new(dialect, members).unwrap()
    }

    fn members() -> impl Strategy<Value = Vec<(String, u16)>> {
        let weights = prop::collection::btree_map("[a-f]{1,3}", 1_u16..4, 1..8);
        weights.prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn overlay_runs_cover_the_hash_space_and_agree_with_lookups(a in members(), b in members(), circle: bool) {
            let dialect = if circle { Dialect::circle(3) } else { Dialect::ketama(16) }.unwrap();
            let (first, second) = (ring(dialect, &a), ring(dialect, &b));
            let mut counted: HashMap<(u32, u32), u64> = HashMap::new();
            let mut at = 0_u64;
            overlay(&first, &second, |run| {
                // A circle's point does not own its own hash but the one before it.
                let last = u32::try_from(at + run.hashes - 1).unwrap();
                let probe = Hash(if circle { last.wrapping_sub(1) } else { last }.into()).into();
                assert_eq!((first.owner(&probe), second.owner(&probe)), (Some(run.from), Some(run.to)));
                at += run.hashes;
                *counted.entry((run.from.0, run.to.0)).or_default() += run.hashes;
            });
            prop_assert_eq!(at, HASH_SPACE);
            for (member, share) in (0_u32..).zip(first.shares()) {
                let sum: u64 = counted.iter().filter(|((from, _), _)| *from == member).map(|(_, n)| n).sum();
                prop_assert_eq!(sum, share);
            }
        }

        #[test]
        fn overlay_of_a_ring_with_itself_moves_nothing(a in members()) {
            let ring = ring(Dialect::ketama(16).unwrap(), &a);
            overlay(&ring, &ring, |run| assert_eq!(run.from, run.to));
        }
    }
}
