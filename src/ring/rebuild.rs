//! Builds a ring from an earlier one with nearly the same members: only the points of the others are hashed and sorted.
//!
//! A list of 10,000 peers that changes by one has 1.6 million points in its ring, of which 160 are new.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use super::Ring;
use super::build::{self, Error, SortedPoints, TieOrder};
use super::dialect::{Dialect, OwnerRule, OwnershipRules, TieBreak};
use super::hash::low_half;
use super::lookup::LookupOrder;
use super::member::{Member, Weight};

/// A rebuild costs less than a new ring if at most one in this many members has changed.
const MIN_MEMBERS_PER_CHANGE: usize = 8;

impl Ring {
    /// The ring of `members`, equal to that of [`Ring::new`]. `previous`: an earlier ring and its members; their points are
    /// taken over if few members have changed.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn rebuilt<'a, 'b>(
        (previous, previous_members): (&Self, impl IntoIterator<Item = Member<'b>>),
        dialect: Dialect,
        members: impl IntoIterator<Item = Member<'a>>,
    ) -> Result<Self, Error> {
        let members: Vec<_> = members.into_iter().collect();
        let rules = dialect.with_placement(|placement| placement.ownership_rules());
        if previous.dialect() != dialect || !keeps_points(rules) {
            return Self::new(dialect, members);
        }
        let after = PlacedMembers::new(dialect, &members)?;
        let previous_members: Vec<_> = previous_members.into_iter().collect();
        let before = PlacedMembers::new(dialect, &previous_members)?;
        let change = MemberChange::between(&before, &after);
        if change.count().saturating_mul(MIN_MEMBERS_PER_CHANGE) > members.len() {
            return Self::new(dialect, members);
        }
        let order = TieOrder::new(&after.names, rules.tie_break);
        let kept = previous.index.points().filter_map(|(hash, owner)| {
            let member = (*change.new_index.get(owner.index())?)?;
            Some((hash, member))
        });
        let added = place_added(dialect, &after, &change.added, &order);
        let points = SortedPoints {
            points: merge(kept, added, &order),
            low_halves: Box::default(),
        };
        let count = members.len();
        Ok(Self::from_points(
            dialect,
            count,
            points,
            LookupOrder::Clockwise,
        ))
    }
}

/// Whether a ring of these rules has all points of its members, in an order that does not depend on other members.
fn keeps_points(rules: OwnershipRules) -> bool {
    !rules.is_64_bit
        && rules.tie_break == TieBreak::ByName
        && matches!(rules.owner_rule, OwnerRule::AtOrAfter | OwnerRule::After)
}

/// The texts that are hashed for members, and their numbers of points.
struct PlacedMembers<'a> {
    names: Vec<Cow<'a, str>>,
    counts: Vec<u32>,
}

impl<'a> PlacedMembers<'a> {
    fn new(dialect: Dialect, members: &[Member<'a>]) -> Result<Self, Error> {
        let weights: Vec<Weight> = members.iter().map(|member| member.weight).collect();
        Ok(Self {
            names: build::unique_names(dialect, members)?,
            counts: build::point_counts(dialect, &weights)?,
        })
    }
}

/// The members that two rings have in common, with the same points, and the others.
struct MemberChange {
    /// For each member before: its index after; `None`: it is gone, or has other points.
    new_index: Vec<Option<u16>>,
    /// The indices of the members after that are not in `new_index`.
    added: Vec<usize>,
}

impl MemberChange {
    fn between(before: &PlacedMembers<'_>, after: &PlacedMembers<'_>) -> Self {
        let names = before.names.iter().map(|name| &**name);
        let before_index: HashMap<&str, usize> = names.zip(0..).collect();
        let mut change = Self {
            new_index: vec![None; before.names.len()],
            added: Vec::new(),
        };
        for (index, (name, count)) in after.names.iter().zip(&after.counts).enumerate() {
            let old = before_index.get(&**name).copied();
            let old = old.filter(|old| before.counts.get(*old) == Some(count));
            let slot = old.and_then(|old| change.new_index.get_mut(old));
            match (slot, u16::try_from(index)) {
                (Some(slot), Ok(index)) => *slot = Some(index),
                _ => change.added.push(index),
            }
        }
        change
    }

    fn count(&self) -> usize {
        let gone = self.new_index.iter().filter(|index| index.is_none());
        gone.count() + self.added.len()
    }
}

/// The sorted points of the added members.
fn place_added(
    dialect: Dialect,
    members: &PlacedMembers<'_>,
    added: &[usize],
    order: &TieOrder,
) -> Vec<(u32, u16)> {
    let mut points = Vec::new();
    dialect.with_placement(|placement| {
        for index in added {
            let (name, count) = (members.names.get(*index), members.counts.get(*index));
            if let (Some(name), Some(count), Ok(member)) = (name, count, u16::try_from(*index)) {
                placement.place(name, *count, &mut |hash| {
                    points.push((low_half(hash), member));
                });
            }
        }
    });
    points.sort_unstable_by_key(|(hash, member)| (*hash, order.rank(*member)));
    points
}

/// Merges two sorted lists of points.
fn merge(
    kept: impl Iterator<Item = (u32, u16)>,
    added: Vec<(u32, u16)>,
    order: &TieOrder,
) -> Vec<(u32, u16)> {
    let mut merged = Vec::with_capacity(kept.size_hint().1.unwrap_or_default() + added.len());
    let mut added = added.into_iter().peekable();
    for point in kept {
        let precedes = |other: &(u32, u16)| match other.0.cmp(&point.0) {
            Ordering::Less => true,
            Ordering::Equal => order.rank(other.1) < order.rank(point.1),
            Ordering::Greater => false,
        };
        while let Some(other) = added.next_if(precedes) {
            merged.push(other);
        }
        merged.push(point);
    }
    merged.extend(added);
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn points() -> impl Strategy<Value = Vec<(u32, u16)>> {
        let hash = select(vec![0, 1, 7, u32::MAX - 1, u32::MAX]);
        prop::collection::vec((hash, 0..6_u16), 0..20)
    }

    proptest! {
        /// Points of several members on one hash are in the order of the names, whichever list they come from.
        #[test]
        fn merged_points_are_sorted(all in points()) {
            let names = ["f", "b", "a", "e", "c", "d"];
            let order = TieOrder::new(&names, TieBreak::ByName);
            let sorted = |mut points: Vec<(u32, u16)>| {
                points.sort_by_key(|(hash, member)| (*hash, order.rank(*member)));
                points
            };
            let (kept, added): (Vec<_>, Vec<_>) = all.iter().partition(|(_, member)| member % 2 == 0);
            let merged = merge(sorted(kept).into_iter(), sorted(added), &order);
            prop_assert_eq!(merged, sorted(all));
        }
    }
}
