//! Property tests of the ring's laws, and vectors from independent programs.
//!
//! The laws:
//! - (a) the order in which members are given does not change the owner or the walk of a key;
//! - (b) a member that is removed, or is down, loses its keys to the next members of their walks; no other key moves;
//! - (c) a member with a raised weight loses no key, and no key moves between other members;
//! - (d) a walk contains each member once, the owner first;
//! - (e) a ring may have no members, one member, or 10^4;
//! - (f) a member's share of the keys is its share of the total weight, within the deviation of random points.

#![expect(
    clippy::cast_precision_loss,
    reason = "shares are compared with a wide margin"
)]

use std::collections::{BTreeMap, HashSet};

use proptest::collection::btree_map;
use proptest::prelude::*;
use proptest::sample::{Index as Choice, select};

use super::build::SortedPoints;
use super::dialect::OwnerRule;
use super::lookup::LookupOrder;
use super::nearest::NearestPoints;
use super::*;

/// Labels and weights, sorted by label.
type Members = BTreeMap<String, Weight>;

fn ring(dialect: Dialect, members: &Members) -> Ring {
    Ring::new(dialect, pairs(members)).unwrap()
}

fn pairs(members: &Members) -> impl DoubleEndedIterator<Item = (&str, Weight)> {
    members
        .iter()
        .map(|(label, weight)| (label.as_str(), *weight))
}

/// A ring with exactly these points for each member.
fn raw_ring(dialect: Dialect, points: &[Vec<u32>]) -> Ring {
    let labels: Vec<_> = (0..points.len())
        .map(|number| format!("{number:04}"))
        .collect();
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let owned = points.iter().zip(0..);
    let points = owned.flat_map(|(hashes, owner)| hashes.iter().map(move |hash| (*hash, owner)));
    let rules = dialect.with_placement(|placement| placement.ownership_rules());
    let arcs = SortedPoints::from_32_bit(&labels, rules, points.collect());
    let order = match rules.owner_rule {
        OwnerRule::Nearest => LookupOrder::Nearest(NearestPoints::new(&arcs.points)),
        _ => LookupOrder::Clockwise,
    };
    Ring::from_points(dialect, labels.len(), arcs, order)
}

fn label(members: &Members, member: Option<MemberId>) -> Option<&str> {
    members.keys().nth(member?.index()).map(String::as_str)
}

fn owner<'a>(ring: &Ring, members: &'a Members, hash: u32) -> Option<&'a str> {
    label(members, ring.owner(&at(hash)))
}

fn walk<'a>(ring: &Ring, members: &'a Members, hash: u32) -> Vec<Option<&'a str>> {
    ring.walk(&at(hash))
        .map(|member| label(members, Some(member)))
        .collect()
}

fn at(hash: u32) -> HashedKey {
    Hash(hash.into()).into()
}

/// A lookup by definition, without an index.
fn linear_search(ring: &Ring, hash: u32) -> Option<MemberId> {
    let strict = matches!(ring.dialect(), Dialect::Circle { .. });
    let owns = |point: u32| if strict { point > hash } else { point >= hash };
    let found = ring.points().find(|(point, _)| owns(*point));
    found
        .or_else(|| ring.points().next())
        .map(|(_, owner)| owner)
}

/// Every point of the ring, its neighbours, and both ends.
fn edges(ring: &Ring) -> Vec<u32> {
    let near = |point: u32| [point.wrapping_sub(1), point, point.wrapping_add(1)];
    let points = ring.points().flat_map(|(point, _)| near(point));
    points.chain([0, 1, u32::MAX - 1, u32::MAX]).collect()
}

fn dialects() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Dialect::default()),
        (1..20_u32).prop_map(|digests| Dialect::ketama(4 * digests).unwrap()),
        (1..20_u32).prop_map(|replicas| Dialect::circle(replicas).unwrap()),
    ]
}

/// The dialects of other systems.
fn other_systems() -> impl Strategy<Value = Dialect> {
    let envoy = envoy::Envoy {
        minimum_ring_size: 64,
        ..envoy::Envoy::default()
    };
    let ats = ats::Ats {
        replicas: 20,
        ..ats::Ats::default()
    };
    select(vec![
        Dialect::Nginx,
        Dialect::Haproxy(haproxy::Haproxy::default()),
        Dialect::Envoy(envoy),
        Dialect::Varnish(varnish::Varnish::default()),
        Dialect::Libketama,
        Dialect::Libmemcached,
        Dialect::Twemproxy(twemproxy::Twemproxy::default()),
        Dialect::Ats(ats),
        Dialect::Caddy(caddy::Caddy::default()),
        Dialect::Caddy(caddy::Caddy {
            function: caddy::CaddyHash::Fnv1a32,
        }),
        Dialect::Traefik,
    ])
}

/// Members with numbers as labels, which every dialect can hash.
fn numbered(count: std::ops::Range<usize>) -> impl Strategy<Value = Members> {
    btree_map("[1-9][0-9]{0,6}", weights(), count)
}

/// The ring of members with their labels as ids.
fn with_ids(dialect: Dialect, members: &Members) -> Ring {
    let member = |(label, weight)| Member {
        label,
        id: Some(label),
        weight,
    };
    Ring::new(dialect, pairs(members).map(member)).unwrap()
}

fn weights() -> impl Strategy<Value = Weight> {
    prop_oneof![8 => 1..=4_u16, 1 => 1..=256_u16].prop_map(|weight| Weight::new(weight).unwrap())
}

fn members(count: std::ops::Range<usize>) -> impl Strategy<Value = Members> {
    btree_map("[a-z0-9.:-]{1,12}", weights(), count)
}

/// Points of few members on few hashes, most of them on shared hashes.
fn tied_points() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let hash = || select(vec![0, 1, 2, 7, 1 << 16, 1 << 31, u32::MAX - 1, u32::MAX]);
    prop::collection::vec(prop::collection::vec(hash(), 1..12), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A ring that takes the points of an earlier one over is the ring of its members.
    #[test]
    fn rebuilt_ring_is_the_ring_of_its_members(
        dialect in prop_oneof![dialects(), other_systems()],
        before in numbered(1..50), added in numbered(0..4),
        gone in prop::collection::vec(any::<Choice>(), 0..4), weight in weights(),
        hashes: [u32; 16],
    ) {
        let mut after = before.clone();
        for gone in gone {
            let label = before.keys().nth(gone.index(before.len())).unwrap();
            // The last one stays, with another weight perhaps.
            if after.len() > 1 {
                after.remove(label);
            }
        }
        after.extend(added);
        *after.values_mut().next().unwrap() = weight;
        let member = |(label, weight)| Member { label, id: Some(label), weight };
        let previous = with_ids(dialect, &before);
        // In another order, which changes the numbers of all members.
        let members = || pairs(&after).rev().map(member);
        let rebuilt = Ring::rebuilt((&previous, pairs(&before).map(member)), dialect, members());
        let (rebuilt, new) = (rebuilt.unwrap(), Ring::new(dialect, members()).unwrap());
        prop_assert!(rebuilt.points().eq(new.points()));
        for hash in hashes.into_iter().chain(edges(&new)) {
            prop_assert_eq!(rebuilt.owner(&at(hash)), new.owner(&at(hash)));
        }
    }

    /// Law (a).
    #[test]
    fn ring_is_independent_of_member_order(
        dialect in dialects(), members in members(0..12), hashes: [u32; 16],
    ) {
        let forward = ring(dialect, &members);
        let backward = Ring::new(dialect, pairs(&members).rev()).unwrap();
        let turned = |member: MemberId| {
            let last = u32::try_from(members.len()).unwrap() - 1;
            label(&members, Some(MemberId(last - member.0)))
        };
        for ((hash, one), (other_hash, other)) in forward.points().zip(backward.points()) {
            prop_assert_eq!((hash, label(&members, Some(one))), (other_hash, turned(other)));
        }
        for hash in hashes {
            let walked: Vec<_> = backward.walk(&at(hash)).map(turned).collect();
            prop_assert_eq!(walk(&forward, &members, hash), walked);
        }
    }

    /// Law (b). Adding a member is the reverse.
    #[test]
    fn removed_or_down_member_moves_only_its_keys_to_the_next_member(
        dialect in dialects(), members in members(2..12), gone: Choice, hashes: [u32; 64],
    ) {
        let gone = gone.index(members.len());
        let dead = members.keys().nth(gone).unwrap();
        let mut fewer = members.clone();
        fewer.remove(dead);
        let (before, after) = (ring(dialect, &members), ring(dialect, &fewer));
        for hash in hashes.into_iter().chain(edges(&before)) {
            let walk: Vec<_> = before.walk(&at(hash)).take(2).collect();
            let successor = walk.iter().copied().find(|member| member.index() != gone);
            let found = before.find(&at(hash), |member| member.index() != gone);
            prop_assert_eq!(found, successor);
            prop_assert_eq!(owner(&after, &fewer, hash), label(&members, successor));
        }
    }

    /// Law (b) for points on the same hash, which random labels hardly ever have.
    #[test]
    fn removed_and_down_member_agree_on_tied_points(points in tied_points(), gone: Choice) {
        for dialect in [Dialect::default(), Dialect::circle(1).unwrap()] {
            let gone = gone.index(points.len());
            let mut fewer = points.clone();
            fewer[gone].clear();
            let (before, after) = (raw_ring(dialect, &points), raw_ring(dialect, &fewer));
            for hash in edges(&before) {
                let found = before.find(&at(hash), |member| member.index() != gone);
                prop_assert_eq!(found, after.owner(&at(hash)));
            }
        }
    }

    #[test]
    fn tied_hash_belongs_to_the_smallest_label(points in tied_points()) {
        let ring = raw_ring(Dialect::default(), &points);
        for (hash, _) in ring.points() {
            let smallest = points.iter().position(|hashes| hashes.contains(&hash)).unwrap();
            prop_assert_eq!(ring.owner(&at(hash)).unwrap().index(), smallest);
        }
    }

    /// Law (c). Lowering a weight is the reverse.
    #[test]
    fn raised_weight_takes_no_key_from_its_member(
        dialect in dialects(), members in members(1..8), raised: Choice, weight in weights(),
        hashes: [u32; 64],
    ) {
        let raised = members.keys().nth(raised.index(members.len())).unwrap();
        let mut heavier = members.clone();
        heavier.insert(raised.clone(), weight.max(members[raised]));
        let (before, after) = (ring(dialect, &members), ring(dialect, &heavier));
        for hash in hashes {
            let (old, new) = (owner(&before, &members, hash), owner(&after, &heavier, hash));
            prop_assert!(old == new || new == Some(raised), "{old:?} -> {new:?}");
        }
    }

    /// Law (d).
    #[test]
    fn walk_yields_every_member_once_and_the_owner_first(
        dialect in dialects(), members in members(0..40), hashes: [u32; 8],
    ) {
        let ring = ring(dialect, &members);
        for hash in hashes {
            let walk: Vec<_> = ring.walk(&at(hash)).collect();
            prop_assert_eq!(walk.first().copied(), ring.owner(&at(hash)));
            let distinct: HashSet<_> = walk.iter().collect();
            prop_assert_eq!((walk.len(), distinct.len()), (members.len(), members.len()));
        }
    }

    /// Law (f). The standard deviation of a member's share, relative to its mean, is 1 / √(its points);
    /// 8 of them do not happen by chance.
    #[test]
    fn ring_shares_are_within_the_expected_deviation(members in members(1..12)) {
        let ring = ring(Dialect::default(), &members);
        let total: f64 = members.values().map(|weight| f64::from(weight.get())).sum();
        for (share, weight) in ring.shares().iter().zip(members.values()) {
            let weight = f64::from(weight.get());
            let mean = weight / total * 2_f64.powi(32);
            let spread = 8.0 / (160.0 * weight).sqrt();
            prop_assert!((*share as f64 / mean - 1.0).abs() < spread, "{share} of {mean}");
        }
    }

    #[test]
    fn find_equals_the_first_accepted_member_of_the_walk(
        dialect in dialects(), members in members(0..40), hashes: [u32; 8], up in any::<u64>(),
    ) {
        let ring = ring(dialect, &members);
        let accept = |member: &MemberId| up >> member.0 & 1 == 1;
        for hash in hashes.map(at) {
            let found = ring.find(&hash, |member| accept(&member));
            prop_assert_eq!(found, ring.walk(&hash).find(accept));
        }
    }

    #[test]
    fn lookup_equals_a_linear_search(
        dialect in dialects(), members in members(0..5), hashes: [u32; 64],
    ) {
        let ring = ring(dialect, &members);
        let edges = edges(&ring);
        for hash in hashes.into_iter().chain(edges.into_iter().take(300)) {
            prop_assert_eq!(ring.owner(&at(hash)), linear_search(&ring, hash));
        }
    }

    /// Points that no digest makes: many in one bucket, equal tails, equal hashes.
    #[test]
    fn lookup_equals_a_linear_search_on_adversarial_points(
        mut points in prop::collection::vec(
            prop::collection::vec(prop_oneof![any::<u32>(), 0..64_u32, Just(u32::MAX)], 0..40), 0..6
        ),
        clones in 0..3_usize,
    ) {
        points.extend_from_within(..clones.min(points.len()));
        for dialect in [Dialect::default(), Dialect::circle(1).unwrap()] {
            let ring = raw_ring(dialect, &points);
            for hash in edges(&ring) {
                prop_assert_eq!(ring.owner(&at(hash)), linear_search(&ring, hash));
            }
        }
    }

    /// All hashes from one point to the next have one owner, so shares are sums of distances.
    #[test]
    fn ring_shares_equal_the_sum_of_arc_lengths(dialect in dialects(), points in tied_points()) {
        let ring = raw_ring(dialect, &points);
        let mut ends: Vec<_> = edges(&ring).into_iter().map(u64::from).collect();
        ends.extend([0, 1 << 32]);
        ends.sort_unstable();
        ends.dedup();
        let mut counted = vec![0; points.len()];
        for ends in ends.windows(2) {
            let owner = linear_search(&ring, u32::try_from(ends[0]).unwrap()).unwrap();
            counted[owner.index()] += ends[1] - ends[0];
        }
        prop_assert_eq!(ring.shares().iter().sum::<u64>(), 1 << 32);
        prop_assert_eq!(ring.shares(), counted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Law (a), except in dialects of systems in which the order of members counts.
    #[test]
    fn ring_depends_on_member_order_only_if_the_other_system_does(
        dialect in other_systems(), members in numbered(0..12), keys: [[u8; 9]; 32],
    ) {
        // Envoy's running sum can give one point to another host.
        prop_assume!(!matches!(dialect, Dialect::Envoy(_)));
        // Point 11 of Varnish backend `2` and point 1 of `21` have one hash; the first backend owns it.
        let mut lengths = members.keys().map(String::len);
        let same = lengths.next().is_none_or(|first| lengths.all(|length| length == first));
        prop_assume!(same || !matches!(dialect, Dialect::Varnish(_)));
        let (forward, last) = (with_ids(dialect, &members), members.len().wrapping_sub(1));
        let backward = pairs(&members).rev().map(|(label, weight)| Member {
            label,
            id: Some(label),
            weight,
        });
        let backward = Ring::new(dialect, backward).unwrap();
        for key in keys {
            let turned = backward.owner(&backward.key(&key)).map(|member| last - member.index());
            prop_assert_eq!(forward.owner(&forward.key(&key)).map(MemberId::index), turned);
        }
    }

    /// Law (b) for a member that is down, without a rebuild; and law (d).
    #[test]
    fn down_member_moves_only_its_keys_in_every_dialect(
        dialect in other_systems(), members in numbered(1..20), gone: Choice, up: u64, keys: [[u8; 9]; 32],
    ) {
        let (ring, gone) = (with_ids(dialect, &members), gone.index(members.len()));
        for key in keys.map(|key| ring.key(&key)) {
            let walk: Vec<_> = ring.walk(&key).collect();
            let distinct: HashSet<_> = walk.iter().collect();
            prop_assert_eq!((walk.len(), distinct.len()), (members.len(), members.len()));
            prop_assert_eq!(walk.first().copied(), ring.owner(&key));
            let successor = ring.find(&key, |member| member.index() != gone);
            prop_assert_eq!(successor, walk.iter().copied().find(|member| member.index() != gone));
            let up = |member: MemberId| up >> member.0 & 1 == 1;
            let from_hash: Vec<_> = ring.walk(&ring.key_from_hash(key.hash())).collect();
            prop_assert!(from_hash == walk || !dialect.hash_determines_owner());
            prop_assert_eq!(ring.find(&key, up), walk.into_iter().find(|member| up(*member)));
        }
    }

    /// Law (b) for a removal, in dialects where a member's number of points does not depend on the others.
    #[test]
    fn removed_member_equals_a_down_member_if_points_are_fixed(
        members in numbered(2..12), gone: Choice, keys: [[u8; 9]; 64],
    ) {
        let dialects = [
            Dialect::Nginx,
            Dialect::Haproxy(haproxy::Haproxy::default()),
            Dialect::Libmemcached,
            Dialect::Ats(ats::Ats::default()),
            Dialect::Caddy(caddy::Caddy::default()),
            Dialect::Traefik,
        ];
        let gone = gone.index(members.len());
        let dead = members.keys().nth(gone).unwrap();
        let mut fewer = members.clone();
        fewer.remove(dead);
        for dialect in dialects {
            let (before, after) = (with_ids(dialect, &members), with_ids(dialect, &fewer));
            for key in &keys {
                let found = before.find(&before.key(key), |member| member.index() != gone);
                prop_assert_eq!(label(&members, found), label(&fewer, after.owner(&after.key(key))));
            }
        }
    }

    /// Law (c) with fractions, in the dialects that have them.
    #[test]
    fn raised_weight_with_a_fraction_takes_no_key_from_its_member(
        members in numbered(1..8), raised: Choice, light in 500..20_000_u32, more in 0..3_000_u32,
        keys: [[u8; 9]; 64],
    ) {
        let ats = ats::Ats { replicas: 20, ..ats::Ats::default() };
        let raised = members.keys().nth(raised.index(members.len())).unwrap();
        let with = |thousandths| {
            let mut members = members.clone();
            members.insert(raised.clone(), Weight::from_thousandths(thousandths).unwrap());
            members
        };
        for dialect in [Dialect::Varnish(varnish::Varnish::default()), Dialect::Ats(ats)] {
            let [before, after] = [light, light + more].map(|weight| with_ids(dialect, &with(weight)));
            for key in &keys {
                let (old, new) = (before.owner(&before.key(key)), after.owner(&after.key(key)));
                prop_assert!(old == new || label(&members, new) == Some(raised), "{old:?} -> {new:?}");
            }
        }
    }

    #[test]
    fn ring_shares_of_every_dialect_sum_to_the_hash_space(dialect in other_systems(), members in numbered(1..12)) {
        let ring = with_ids(dialect, &members);
        prop_assert_eq!(ring.shares().iter().sum::<u64>(), 1 << 32);
        prop_assert_eq!(ring.points().count(), ring.len());
    }

    /// Dialect `haproxy` by definition, without arcs.
    #[test]
    fn haproxy_hash_belongs_to_the_nearest_point(mut points in tied_points(), gone: Choice, more: [u32; 16]) {
        let dialect = Dialect::Haproxy(haproxy::Haproxy::default());
        let ring = raw_ring(dialect, &points);
        let edges: Vec<_> = edges(&ring).into_iter().chain(more).collect();
        for hash in &edges {
            prop_assert_eq!(ring.owner(&at(*hash)), nearest(&points, *hash));
        }
        let gone = gone.index(points.len());
        points[gone].clear();
        for hash in edges {
            let found = ring.find(&at(hash), |member| member.index() != gone);
            prop_assert_eq!(found, nearest(&points, hash));
        }
    }
}

/// The owner of the point nearest to a hash: of equal points at or after the hash the first member,
/// of equal points before it the last.
fn nearest(points: &[Vec<u32>], hash: u32) -> Option<MemberId> {
    let all = points
        .iter()
        .zip(0..)
        .flat_map(|(points, member)| points.iter().map(move |p| (*p, member)));
    let after = all
        .clone()
        .min_by_key(|(point, member)| (point.wrapping_sub(hash), *member))?;
    let before = |point: u32| hash.wrapping_sub(point).wrapping_sub(1);
    let (point, member) = all.min_by_key(|(point, member)| (before(*point), u32::MAX - *member))?;
    let (back, ahead) = (
        u64::from(before(point)) + 1,
        u64::from(after.0.wrapping_sub(hash)),
    );
    Some(MemberId(if back <= ahead { member } else { after.1 }))
}

/// If all points have one hash, the first and the last member have half of the circle each.
#[test]
fn haproxy_members_with_one_common_point_share_the_circle() {
    let points = vec![vec![1 << 16], vec![1 << 16]];
    let ring = raw_ring(Dialect::Haproxy(haproxy::Haproxy::default()), &points);
    for hash in [
        0,
        1 << 16,
        (1 << 16) + 1,
        (1 << 31) + (1 << 16),
        (1 << 31) + (1 << 16) + 1,
    ] {
        assert_eq!(ring.owner(&at(hash)), nearest(&points, hash), "{hash}");
        assert_eq!(
            ring.walk(&at(hash)).next(),
            nearest(&points, hash),
            "{hash}"
        );
    }
}

#[test]
fn ring_with_32_bit_hashes_rejects_a_64_bit_hash() {
    let ring = |dialect| Ring::new(dialect, [("a", Weight::ONE)]).unwrap();
    let wide = Hash(1 << 32);
    assert!(!ring(Dialect::default()).is_possible_hash(wide));
    assert!(ring(Dialect::default()).is_possible_hash(Hash(u32::MAX.into())));
    assert!(ring(Dialect::Envoy(envoy::Envoy::default())).is_possible_hash(wide));
    assert!(ring(Dialect::Caddy(caddy::Caddy::default())).is_possible_hash(wide));
}

#[test]
fn ring_with_64_bit_hashes_compares_the_lower_half() {
    let dialect = Dialect::Ats(ats::Ats::default());
    let ends = vec![(7, 0), (7, 1), (7, 2), (9, 3)];
    let low = [1, 5, u32::MAX, 0].into();
    let ring = Ring::from_points(
        dialect,
        4,
        SortedPoints {
            points: ends,
            low_halves: low,
        },
        LookupOrder::Clockwise,
    );
    let cases = [
        (7, 0, 0),
        (7, 1, 0),
        (7, 2, 1),
        (7, 5, 1),
        (7, 6, 2),
        (8, 0, 3),
        (9, 0, 3),
        (9, 1, 0),
    ];
    for (high, low, owner) in cases {
        assert_eq!(
            ring.owner(&Hash(high << 32 | low).into()),
            Some(MemberId(owner)),
            "{high} {low}"
        );
    }
}

/// The owner of a position by a lookup, to compare with the runs of [`overlay_available`].
fn found(ring: &Ring, place: u32, up: impl Fn(MemberId) -> bool) -> Option<MemberId> {
    let narrow = Hash(place.wrapping_sub(ring.hash_offset).into());
    let wide = Hash(u64::from(place) << 32);
    let hash = if ring.low_halves.is_empty() {
        narrow
    } else {
        wide
    };
    ring.find(&hash.into(), up)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The first and the last hash of every run have the owner that a lookup finds, also with members
    /// down.
    #[test]
    fn overlay_runs_agree_with_lookups_in_every_dialect(
        dialect in prop_oneof![dialects(), other_systems()], members in numbered(1..8), down: [u8; 2],
    ) {
        let ring = with_ids(dialect, &members);
        let up = |bits: u8| move |member: MemberId| bits >> (member.0 % 8) & 1 == 0;
        let (one, other) = (up(down[0]), up(down[1]));
        let mut at = 0;
        overlay_available((&ring, one), (&ring, other), |run| {
            if ring.sample_size().is_none() {
                let [first, last] = [at, at + run.hashes - 1].map(|at| u32::try_from(at).unwrap());
                for place in [first, last] {
                    let owners = (found(&ring, place, one), found(&ring, place, other));
                    assert_eq!(owners, (Some(run.from), Some(run.to)), "{dialect:?} at {place}");
                }
            }
            at += run.hashes;
        });
        let ids = || (0..ring.members).map(MemberId);
        let serves = ids().any(one) && ids().any(other);
        prop_assert_eq!(at, if serves { 1 << 32 } else { 0 });
    }
}

/// [`Ring::partial_shares`] by definition: one overlay per fraction, among the members that reach it.
fn shares_by_fraction(ring: &Ring, homes: &[f64]) -> Vec<f64> {
    let mut fractions: Vec<f64> = homes.to_vec();
    fractions.sort_by(f64::total_cmp);
    let mut shares = vec![0.0; homes.len()];
    let mut before = 0.0;
    for fraction in fractions {
        let up = |member: MemberId| homes[member.index()] >= fraction;
        overlay_available((ring, up), (ring, up), |run| {
            shares[run.from.index()] += shares::hashes_as_f64(run.hashes) * (fraction - before);
        });
        before = fraction;
    }
    shares
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// One pass over the points finds the same as one pass per fraction.
    #[test]
    fn partial_shares_equal_the_sum_over_each_fraction(
        dialect in prop_oneof![dialects(), other_systems()], members in numbered(1..8), steps: [u8; 8],
    ) {
        let ring = with_ids(dialect, &members);
        let mut homes: Vec<f64> = steps.iter().map(|step| f64::from(step % 5) / 4.0).collect();
        homes.truncate(ring.members());
        homes[0] = 1.0;
        let (expected, shares) = (shares_by_fraction(&ring, &homes), ring.partial_shares(&homes));
        for (expected, share) in expected.iter().zip(&shares) {
            prop_assert!((expected - share).abs() < 1e-3, "{dialect:?}: {expected} is not {share}");
        }
        homes.fill(1.0);
        for (whole, share) in ring.partial_shares(&homes).iter().zip(ring.shares()) {
            prop_assert!((whole - shares::hashes_as_f64(share)).abs() < 0.5);
        }
    }
}

/// Law (e), no members.
#[test]
fn empty_ring_has_no_owner() {
    let ring = Ring::empty();
    let key = ring.key(b"key");
    assert!(ring.is_empty());
    assert_eq!(ring.owner(&key), None);
    assert_eq!(ring.find(&key, |_| true), None);
    assert_eq!(ring.walk(&key).count(), 0);
    assert!(ring.shares().is_empty());
    assert_eq!(ring.points().count(), 0);
}

/// Law (e), one member, with the smallest and with the largest number of points.
#[test]
fn single_member_owns_everything() {
    for (dialect, weight) in [
        (Dialect::circle(1), Weight::ONE),
        (Dialect::ketama(4096), Weight::MAX),
    ] {
        let ring = Ring::new(dialect.unwrap(), [("only", weight)]).unwrap();
        assert_eq!(ring.shares(), [1 << 32]);
        for hash in [0, 1 << 31, u32::MAX].map(at) {
            assert_eq!(ring.owner(&hash), Some(MemberId(0)));
            assert_eq!(ring.find(&hash, |_| false), None);
        }
    }
}

/// Law (e), 10^4 members.
#[test]
fn ten_thousand_members_are_all_walked() {
    let labels: Vec<_> = (0..10_000)
        .map(|number| format!("peer-{number}:80"))
        .collect();
    let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
    let ring = Ring::new(Dialect::default(), members).unwrap();
    assert_eq!((ring.len(), ring.members()), (1_600_000, 10_000));
    assert_eq!(ring.shares().iter().sum::<u64>(), 1 << 32);
    let walked: HashSet<_> = ring.walk(&at(1)).collect();
    assert_eq!(walked.len(), 10_000);
    let only = MemberId(9_999);
    assert_eq!(ring.find(&at(1), |member| member == only), Some(only));
}

#[test]
fn find_without_a_match_tries_each_member_twice() {
    let labels: Vec<_> = (0..100).map(|number| format!("{number}")).collect();
    let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
    let ring = Ring::new(Dialect::default(), members).unwrap();
    let mut calls = 0;
    let refuse = |_| {
        calls += 1;
        false
    };
    assert_eq!(ring.find(&at(0), refuse), None);
    assert_eq!(calls, 1 + 100 + 100);
}

#[test]
fn ring_with_invalid_members_is_refused() {
    let build = |dialect, members: &[(&str, Weight)]| {
        Ring::new(dialect, members.iter().copied()).unwrap_err()
    };
    let twice = [("a", Weight::ONE), ("a", Weight::MAX)];
    assert_eq!(
        build(Dialect::default(), &twice),
        Error::DuplicateMember("a".to_owned())
    );
    let labels: Vec<_> = (0..=1 << 16)
        .map(|number: u32| number.to_string())
        .collect();
    let mut members: Vec<_> = labels
        .iter()
        .map(|label| (label.as_str(), Weight::MAX))
        .collect();
    assert_eq!(
        build(Dialect::default(), &members),
        Error::TooManyMembers((1 << 16) + 1)
    );
    members.truncate(65);
    let most = Dialect::ketama(4096).unwrap();
    assert_eq!(build(most, &members), Error::TooManyPoints(65 << 20));
    let odd = Dialect::Ketama { points: 161 };
    assert_eq!(build(odd, &[]), Error::InvalidOptions(odd));
}

#[test]
fn weight_and_points_out_of_bounds_are_refused() {
    assert_eq!([0, 257].map(Weight::new), [None, None]);
    assert_eq!(Weight::new(256), Some(Weight::MAX));
    assert_eq!([0, 2, 161, 4100].map(Dialect::ketama), [None; 4]);
    assert_eq!([0, 4097].map(Dialect::circle), [None; 2]);
}

const CIRCLE: &str = include_str!("../../tests/vectors/circle.tsv");
const KETAMA: &str = include_str!("../../tests/vectors/ketama.tsv");
const KETAMA_WEIGHTED: &str = include_str!("../../tests/vectors/ketama-weighted.tsv");

/// `server<TAB>weight`, an empty line, then `key<TAB>owner`; see `tests/vectors/README.md`.
fn check_vectors(dialect: Dialect, text: &str) {
    let (servers, owners) = text.split_once("\n\n").unwrap();
    let weight = |text: &str| Weight::new(text.parse().unwrap()).unwrap();
    let members = rows(servers)
        .map(|(label, number)| (label.to_owned(), weight(number)))
        .collect();
    let ring = ring(dialect, &members);
    assert_eq!(rows(owners).count(), 2_000);
    for (key, expected) in rows(owners) {
        let found = ring.owner(&ring.key(key.as_bytes()));
        assert_eq!(label(&members, found), Some(expected), "{key}");
    }
}

fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().map(|line| line.split_once('\t').unwrap())
}

#[test]
fn circle_matches_textbook_vectors() {
    check_vectors(Dialect::circle(3).unwrap(), CIRCLE);
}

#[test]
fn ketama_matches_uhashring_vectors() {
    check_vectors(Dialect::default(), KETAMA);
    check_vectors(Dialect::default(), KETAMA_WEIGHTED);
}
