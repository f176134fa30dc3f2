//! Compares the owners of all hashes in two rings.
//!
//! Both rings are cut at every point of either. Between two neighbouring cuts each ring has one owner, so
//! one pass over the points counts all 2^32 hashes exactly. With 64-bit hashes the error is at most 2^-32
//! of the circle at each point; without points the result is an estimate from a sample of keys.

use super::dialect::SAMPLE_KEYS;
use super::lookup::{LookupOrder, Ring};
use super::member::MemberId;
use super::rendezvous::Rendezvous;

/// Hashes with the same owner in the first ring and the same owner in the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayRun {
    /// The owner in the first ring.
    pub from: MemberId,
    /// The owner in the second ring, numbered as there.
    pub to: MemberId,
    /// The number of hashes, of 2^32.
    pub hashes: u64,
}

/// Calls `each` for every run of hashes with the same pair of owners. The runs cover the whole space, in
/// ascending order, and a pair may occur more than once. `each` is not called if a ring is empty.
///
/// The rings must hash keys alike ([`Dialect::hashes_keys_like`]).
///
/// [`Dialect::hashes_keys_like`]: super::Dialect::hashes_keys_like
pub fn overlay(first: &Ring, second: &Ring, each: impl FnMut(OverlayRun)) {
    overlay_available((first, |_| true), (second, |_| true), each);
}

/// [`overlay`] with members down: a hash belongs to the first member of its walk for which the ring's
/// function is true. `each` is not called if a ring has no such member.
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

/// The number of 32-bit hashes. 64-bit hashes are counted in as many equal parts.
const HASH_SPACE: u64 = 1 << 32;

/// [`overlay`] without points: a sample of keys, each of which represents the same number of hashes.
fn overlay_sample(
    first: &(&Ring, impl Fn(MemberId) -> bool),
    second: &(&Ring, impl Fn(MemberId) -> bool),
    mut each: impl FnMut(OverlayRun),
) {
    let is_one_ring = std::ptr::eq(first.0, second.0);
    for text in Rendezvous::sample_keys() {
        let a = first.0.key(text.as_bytes());
        // Reused because making a key costs one hash per member.
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

/// Iterates over the runs of one ring, from hash 0 up.
///
/// The hashes up to a point belong to the point's owner. Whether that includes the point's own hash
/// differs between dialects but is the same in both rings.
struct ArcSweep<I: Iterator> {
    points: std::iter::Peekable<I>,
    /// The owner of the hashes after the last point, which is the first point's.
    wrap_owner: Option<MemberId>,
}

fn sweep(
    ring: &Ring,
    is_up: impl Fn(MemberId) -> bool,
) -> ArcSweep<impl Iterator<Item = (u32, MemberId)>> {
    let ends = arc_ends(ring, &is_up);
    let first = ends.first().map(|(_, owner)| *owner);
    // Members without points (too light for one) own hashes only if no member with points is up.
    let members = ring.points().next().map_or(0, |_| ring.members);
    let wrap_owner = first.or_else(|| (0..members).map(MemberId).find(|member| is_up(*member)));
    ArcSweep {
        points: ends.into_iter().peekable(),
        wrap_owner,
    }
}

/// The ends of the arcs of the members that are up.
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
    /// The end (exclusive) and the owner of the current run.
    fn current_run(&mut self) -> Option<(u64, MemberId)> {
        match self.points.peek() {
            Some(&(point, owner)) => Some((u64::from(point) + 1, owner)),
            None => self.wrap_owner.map(|owner| (HASH_SPACE, owner)),
        }
    }

    /// Skips the points before `end`. Of several points with one hash, the first owned the run.
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
                // In dialect `circle` a point's own hash belongs to the next point.
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
