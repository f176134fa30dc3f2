//! Compares predictions with lookups: of a million keys, and of the hashes next to every point of both rings.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ring::haproxy::Haproxy;
use crate::ring::{Dialect, Hash, Ring, Weight};

const KEYS: u32 = 1_000_000;
const CHANGES: usize = 200;

/// The number of hashes that move, per pair of owners' labels.
type Moves = HashMap<(Option<String>, Option<String>), u64>;

fn peer(label: &str, weight: u16) -> PeerSpec {
    PeerSpec {
        label: label.to_owned(),
        weight: Weight::new(weight).unwrap(),
        id: None,
    }
}

fn ring(dialect: Dialect, peers: &[PeerSpec]) -> Ring {
    Ring::new(dialect, peers.iter().map(PeerSpec::member)).unwrap()
}

fn placement<'a>(ring: &'a Ring, peers: &'a [PeerSpec]) -> KeyPlacement<'a> {
    KeyPlacement::new(ring, peers.iter().map(|peer| peer.label.as_str()))
}

fn owner(placement: &KeyPlacement<'_>, hash: u32) -> Option<String> {
    let owner = placement.owner(&Hash(hash.into()).into())?;
    Some(placement.label(owner).to_owned())
}

/// Makes random changes: each adds, removes, reweights or replaces a peer.
struct History {
    random: StdRng,
    peers: Vec<PeerSpec>,
    new_peers: u32,
}

impl History {
    fn new() -> Self {
        let peers = (0..8).map(|number| peer(&format!("10.0.0.{number}:80"), 1));
        Self {
            random: StdRng::seed_from_u64(4),
            peers: peers.collect(),
            new_peers: 0,
        }
    }

    fn next(&mut self) -> PeerSetChange {
        let mut change = PeerSetChange::default();
        let weight = self.random.gen_range(1..=4);
        let old = self.peers[self.random.gen_range(0..self.peers.len())]
            .label
            .clone();
        self.new_peers += 1;
        let new = format!("10.1.{}.{}:80", self.new_peers / 256, self.new_peers % 256);
        match (self.random.gen_range(0..4), self.peers.len()) {
            (0, ..16) | (1, ..3) => change.add.push(peer(&new, weight)),
            (0 | 1, _) => change.remove.push(old),
            (2, _) => change.reweight.push(peer(&old, weight)),
            _ => {
                change.remove.push(old);
                change.add.push(peer(&new, weight));
            }
        }
        self.peers = change.apply(&self.peers).unwrap();
        change
    }
}

/// The hashes of [`KEYS`] keys, ascending.
fn hashes(ring: &Ring) -> Vec<u32> {
    let hash = |number: u32| {
        let hash = ring.key(format!("key-{number}").as_bytes()).hash().0;
        u32::try_from(hash).unwrap()
    };
    let mut hashes: Vec<_> = (0..KEYS).map(hash).collect();
    hashes.sort_unstable();
    hashes
}

/// The owner of every hash, by lookups.
fn owners(placement: &KeyPlacement<'_>, hashes: &[u32]) -> Vec<Option<u32>> {
    let owner = |hash: &u32| {
        placement
            .owner(&Hash(u64::from(*hash)).into())
            .map(|owner| owner.0)
    };
    hashes.iter().map(owner).collect()
}

/// The keys that move according to a comparison's runs, without lookups. `positions` of the keys, ascending.
fn count_in_runs(comparison: &Comparison<'_>, positions: &[u64]) -> KeyMoves {
    let mut moves = KeyMoves::default();
    let (mut at, mut first) = (0, 0);
    comparison.for_each_run(|owners, run| {
        at += run;
        let end = first + positions[first..].partition_point(|position| *position < at);
        (first..end).for_each(|_| {
            moves.count(owners);
        });
        first = end;
    });
    assert_eq!(at, HASH_SPACE);
    moves
}

/// The positions of hashes in the runs. `offset` is 1 if a point's own hash belongs to the next point.
fn positions(hashes: &[u32], offset: u32) -> Vec<u64> {
    let mut positions: Vec<u64> = hashes
        .iter()
        .map(|hash| hash.wrapping_add(offset).into())
        .collect();
    positions.sort_unstable();
    positions
}

/// The hashes that move, by a lookup on each side of every point of either ring.
fn moves_by_lookups(before: &KeyPlacement<'_>, after: &KeyPlacement<'_>) -> Moves {
    let points = before.ring().points().chain(after.ring().points());
    let near = |(point, _)| (u64::from(point).saturating_sub(1)..).take(3);
    let mut ends: Vec<u64> = points.flat_map(near).chain([0, HASH_SPACE]).collect();
    ends.sort_unstable();
    ends.dedup();
    let mut moves = Moves::new();
    for ends in ends.windows(2).filter(|ends| ends[1] <= HASH_SPACE) {
        let hash = u32::try_from(ends[0]).unwrap();
        let pair = (owner(before, hash), owner(after, hash));
        if pair.0 != pair.1 {
            *moves.entry(pair).or_default() += ends[1] - ends[0];
        }
    }
    moves
}

fn by_label(movement: &Movement) -> Moves {
    let label = |owner| movement.label(owner).map(str::to_owned);
    let pairs = movement.pairs.iter();
    pairs
        .map(|(owners, hashes)| ((label(owners.from), label(owners.to)), *hashes))
        .collect()
}

fn assert_consistent(movement: &Movement) {
    let sum = |of: fn(&PeerMovement) -> u64| movement.peers.iter().map(of).sum::<u64>();
    let pairs: u64 = movement.pairs.iter().map(|(_, hashes)| hashes).sum();
    assert_eq!(movement.moved, pairs);
    assert!(sum(|peer| peer.gained) <= pairs && sum(|peer| peer.lost) <= pairs);
    for peer in &movement.peers {
        assert_eq!(
            peer.before + peer.gained,
            peer.after + peer.lost,
            "{peer:?}"
        );
    }
}

/// Asserts that the share of moved keys is within six standard deviations of the share of moved hashes.
fn assert_likely(movement: &Movement, keys: &KeyMoves) {
    let (expected, count) = (share(movement.moved), f64::from(KEYS));
    let measured = f64::from(u32::try_from(keys.moved).unwrap()) / count;
    let spread = (expected * (1.0 - expected) / count).sqrt();
    assert!(
        (measured - expected).abs() <= 6.0 * spread,
        "{measured} is not {expected}"
    );
}

/// Asserts for each of [`CHANGES`] changes that the prediction equals a million lookups before and after,
/// key by key, and lookups of the hashes next to each point, hash by hash.
fn assert_predictions_match_lookups(dialect: Dialect, offset: u32) {
    let mut history = History::new();
    let mut before = history.peers.clone();
    let hashes = hashes(&ring(dialect, &before));
    let positions = positions(&hashes, offset);
    let mut owned = owners(&placement(&ring(dialect, &before), &before), &hashes);
    for _ in 0..CHANGES {
        let change = history.next();
        let after = &history.peers;
        let (old_ring, new_ring) = (ring(dialect, &before), ring(dialect, after));
        let (old, new) = (placement(&old_ring, &before), placement(&new_ring, after));
        let comparison = Comparison::new(old.clone(), new.clone(), true);
        let movement = comparison.movement();

        let owned_after = owners(&new, &hashes);
        let mut measured: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (from, to) in owned.iter().zip(&owned_after) {
            let from = before[from.unwrap() as usize].label.as_str();
            let to = after[to.unwrap() as usize].label.as_str();
            if from != to {
                *measured.entry((from, to)).or_default() += 1;
            }
        }
        let keys = count_in_runs(&comparison, &positions);
        let predicted = keys.pairs.iter().map(|(owners, keys)| {
            let label = |owner| comparison.label(owner).unwrap();
            ((label(owners.from), label(owners.to)), *keys)
        });
        assert_eq!(
            predicted.collect::<BTreeMap<_, _>>(),
            measured,
            "{change:?}"
        );
        assert_eq!(keys.keys, u64::from(KEYS));
        assert_eq!(
            by_label(&movement),
            moves_by_lookups(&old, &new),
            "{change:?}"
        );
        assert_consistent(&movement);
        assert_likely(&movement, &keys);
        (before, owned) = (after.clone(), owned_after);
    }
}

#[test]
fn predicted_moves_of_200_changes_are_exact_in_ketama() {
    assert_predictions_match_lookups(Dialect::default(), 0);
}

#[test]
fn predicted_moves_of_200_changes_are_exact_in_circle() {
    assert_predictions_match_lookups(Dialect::circle(3).unwrap(), 1);
}

fn peers() -> impl Strategy<Value = Vec<PeerSpec>> {
    let weights = prop::collection::btree_map("[a-f]{1,2}", 1_u16..4, 1..8);
    weights.prop_map(|map| {
        map.iter()
            .map(|(label, weight)| peer(label, *weight))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Also with some or all peers down.
    #[test]
    fn predicted_moves_equal_lookups_next_to_every_point(
        before in peers(), after in peers(), circle: bool, bits: [u8; 2],
    ) {
        let dialect = if circle { Dialect::circle(3) } else { Dialect::ketama(8) }.unwrap();
        let (old_ring, new_ring) = (ring(dialect, &before), ring(dialect, &after));
        let down_of = |peers: &[PeerSpec], bits: u8| -> Vec<String> {
            let labels = peers.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
            labels.map(|(_, peer)| peer.label.clone()).collect()
        };
        let [old_down, new_down] = [down_of(&before, bits[0]), down_of(&after, bits[1])];
        let old = placement(&old_ring, &before).with_down(old_down.iter().map(String::as_str)).unwrap();
        let new = placement(&new_ring, &after).with_down(new_down.iter().map(String::as_str)).unwrap();
        let movement = Comparison::new(old.clone(), new.clone(), true).movement();
        prop_assert_eq!(by_label(&movement), moves_by_lookups(&old, &new));
        assert_consistent(&movement);
    }

    /// The number of hashes can be recovered from the percentage.
    #[test]
    fn percentage_text_is_distinct_for_every_number_of_hashes(hashes in 0..=HASH_SPACE) {
        let printed: f64 = percent(hashes).parse().unwrap();
        let back = printed / 100.0 * 2_f64.powi(32);
        prop_assert!((back - share(hashes) * 2_f64.powi(32)).abs() < 0.5);
    }
}

#[test]
fn percentage_text_has_eight_decimals() {
    let printed = [0, 1, HASH_SPACE / 3, HASH_SPACE - 1, HASH_SPACE].map(percent);
    assert_eq!(
        printed,
        [
            "0.00000000",
            "0.00000002",
            "33.33333333",
            "99.99999998",
            "100.00000000"
        ]
    );
}

#[test]
fn predicted_moves_with_another_hash_are_estimated() {
    let peers = ["a", "b", "c", "d"].map(|label| peer(label, 1));
    let one = ring(Dialect::default(), &peers);
    let other = ring(Dialect::circle(160).unwrap(), &peers);
    let comparison = Comparison::new(placement(&one, &peers), placement(&other, &peers), false);
    let movement = comparison.movement();
    assert!(movement.basis == MovementBasis::Expected && movement.pairs.is_empty());
    let mut keys = KeyMoves::default();
    for number in 0..100_000 {
        keys.add(&comparison, format!("key-{number}").as_bytes());
    }
    let measured = f64::from(u32::try_from(keys.moved).unwrap()) / 100_000.0;
    assert!(
        (share(movement.moved) - measured).abs() < 0.01,
        "{movement:?}, {measured}"
    );
}

/// In a dialect that numbers servers by position, replacing a server moves no other server's keys.
#[test]
fn peer_replacement_moves_the_same_keys_as_an_edit_in_place() {
    let peers = ["a", "b", "c"].map(|label| peer(label, 1));
    let change = PeerSetChange {
        remove: vec!["b".to_owned()],
        add: vec![peer("b2", 1)],
        ..PeerSetChange::default()
    };
    let after = change.apply(&peers).unwrap();
    assert_eq!(after, ["a", "b2", "c"].map(|label| peer(label, 1)));
    let dialect = Dialect::Haproxy(Haproxy::default());
    let rings = [ring(dialect, &peers), ring(dialect, &after)];
    let [one, other] = &rings;
    let comparison = Comparison::new(placement(one, &peers), placement(other, &after), true);
    let movement = comparison.movement();
    let third = peers.len() as u64;
    assert!(
        movement.moved < HASH_SPACE / third * 2,
        "{}",
        movement.moved
    );
    let stay = |label: &str| {
        movement
            .pairs
            .iter()
            .all(|(ends, _)| movement.label(ends.from) != Some(label))
    };
    assert!(stay("a") && stay("c"));
}

#[test]
fn peer_change_with_an_unknown_label_is_refused() {
    let peers = [peer("a", 1), peer("b", 2)];
    let change = PeerSetChange {
        remove: vec!["a".to_owned()],
        add: vec![
            PeerSpec::parse("c=3").unwrap(),
            PeerSpec::parse("[::1]:80").unwrap(),
        ],
        reweight: vec![PeerSpec::parse_with_weight("c=4").unwrap()],
    };
    let expected = [peer("c", 4), peer("b", 2), peer("[::1]:80", 1)];
    assert_eq!(change.apply(&peers).unwrap(), expected);
    let crossed = PeerSetChange {
        remove: vec!["b".to_owned(), "a".to_owned()],
        add: vec![peer("a", 5), peer("d", 6)],
        ..PeerSetChange::default()
    };
    assert_eq!(crossed.apply(&peers).unwrap(), [peer("d", 6), peer("a", 5)]);
    let twice = PeerSetChange {
        remove: vec!["a".to_owned(), "a".to_owned()],
        ..PeerSetChange::default()
    };
    let error = twice.apply(&peers).unwrap_err().to_string();
    assert_eq!(error, "there is no peer `a`; there are: b");
    for text in ["", "=1", "a b", "a=0", "a=257", "a=x"] {
        assert!(PeerSpec::parse(text).is_err(), "{text}");
    }
    assert!(PeerSpec::parse_with_weight("a").is_err());
}

#[test]
fn scenario_is_scaled_only_if_every_weight_changes_by_the_same_factor() {
    let scenario = |dialect, weights: &[(&str, u16)]| {
        let peers = weights.iter().map(|(label, weight)| peer(label, *weight));
        Scenario::new(dialect, peers.collect()).unwrap()
    };
    let before = scenario(Dialect::Nginx, &[("a", 2), ("b", 4)]);
    for (dialect, weights, is_scaled) in [
        (Dialect::Nginx, &[("a", 1), ("b", 2)][..], true),
        (Dialect::Nginx, &[("a", 3), ("b", 6)], true),
        (Dialect::Nginx, &[("a", 2), ("b", 4)], false),
        (Dialect::Nginx, &[("a", 2), ("b", 8)], false),
        (Dialect::Nginx, &[("a", 4), ("b", 4)], false),
        (Dialect::Nginx, &[("a", 1), ("c", 2)], false),
        (Dialect::Nginx, &[("a", 1)], false),
        (Dialect::Nginx, &[("a", 1), ("b", 2), ("c", 1)], false),
        (Dialect::default(), &[("a", 1), ("b", 2)], false),
    ] {
        let after = scenario(dialect, weights);
        assert_eq!(before.is_scaled_to(&after), is_scaled, "{weights:?}");
    }
}
