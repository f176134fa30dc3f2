//! Simulates the load of each peer: requests, their rate, requests in flight, and the overflow.
//!
//! Requests arrive in the order of their start and take their logged duration, whatever the load of the peer. As in the
//! proxy, requests without a key are served round robin, a hot key is spread over several peers, and with a
//! [`BalanceFactor`] a request to a full peer goes to the next peer of its walk that has room.
//!
//! Not simulated: health changes, slow starts, drains, the `wait` of a bounded load. All requests are counted for hot
//! keys; a busy proxy counts a sample.
//!
//! Memory: one entry per peer, one per request in flight, and the counters of the hot keys.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use super::KeyPlacement;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::heavy_hitters::{HotKeyThreshold, SpaceSaving};
use crate::policy::hot_key_spread::{HotKeySpread, WeightedShare};
use crate::policy::weighted_round_robin::WeightedRoundRobin;
use crate::ring::{Hash, HashedKey, MemberId, Weight};

const MICROS_PER_SECOND: u64 = 1_000_000;

/// One request of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    /// The start, in microseconds since a fixed moment.
    pub start: u64,
    /// The duration, in microseconds.
    pub duration: u64,
    /// Bytes of the response body.
    pub bytes: u64,
    /// The hash of the key; `None`: the request had no key.
    pub hash: Option<Hash>,
}

/// The simulated load of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulatedLoad {
    /// The number of requests.
    pub requests: u64,
    /// The largest number of requests that started in one second of the clock.
    pub peak_rate: u64,
    /// The largest number of requests in flight.
    pub peak_in_flight: u32,
    /// The sum of the requests' durations, in microseconds.
    pub busy: u64,
    /// Bytes of the response bodies.
    pub bytes: u64,
    /// Requests that went to other peers because this peer, the owner of their keys, was full.
    pub overflow: u64,
}

/// The rules that send requests to a peer other than the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadRules {
    /// The bounded load; `None`: no limit.
    pub bound: Option<BalanceFactor>,
    /// The threshold of hot keys and their spread; `None`: off.
    pub hot_keys: Option<(HotKeyThreshold, HotKeySpread)>,
}

/// A simulation in progress.
#[derive(Debug)]
pub struct Simulation<'a> {
    placement: &'a KeyPlacement<'a>,
    bound: Option<BalanceFactor>,
    peers: Vec<SimulatedPeer>,
    /// The sum over all peers that are up.
    total: WeightedShare,
    /// The end and the peer of each request in flight.
    in_flight: BinaryHeap<Reverse<(u64, u32)>>,
    rotation: WeightedRoundRobin,
    /// Requests without a key so far.
    keyless_requests: usize,
    hot_keys: Option<HotKeySimulation>,
    /// Requests for which no peer was up.
    pub unserved: u64,
    /// Requests of hot keys.
    pub spread: u64,
}

/// The order in which peers are tried for a request.
enum PeerSelector {
    Key(HashedKey),
    RoundRobin(usize),
}

#[derive(Debug)]
struct HotKeySimulation {
    counters: SpaceSaving,
    spread: HotKeySpread,
    /// The number of requests of each key while it was hot.
    request_counts: HashMap<u64, u32>,
}

#[derive(Debug)]
struct SimulatedPeer {
    weight: Weight,
    /// The peer's share with all peers up.
    share: WeightedShare,
    in_flight: u32,
    /// The current second of the clock, and its requests so far.
    current_second: (u64, u64),
    load: SimulatedLoad,
}

impl ReplayRequest {
    /// The request with a later start; its end stays, unless it would precede the start.
    #[must_use]
    pub fn with_start(self, start: u64) -> Self {
        let end = self.end().max(start);
        Self {
            start,
            duration: end - start,
            ..self
        }
    }

    /// The end, in microseconds.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.duration)
    }
}

impl<'a> Simulation<'a> {
    /// A simulation without requests. `weights` are in the order of the ring's members.
    pub fn new(
        placement: &'a KeyPlacement<'a>,
        weights: impl IntoIterator<Item = Weight>,
        rules: LoadRules,
    ) -> Self {
        let mut peers: Vec<_> = weights.into_iter().map(SimulatedPeer::new).collect();
        if rules.hot_keys.is_some() && placement.ring().sample_size().is_none() {
            let shares = placement.ring().shares();
            let keys = peers.iter_mut().zip(shares);
            keys.for_each(|(peer, share)| peer.share.key_space = share);
        }
        let up = (0..).map(MemberId).zip(&peers);
        let up = up.filter(|(member, _)| placement.is_up(*member));
        let up: Vec<_> = up.map(|(_, peer)| peer.share).collect();
        Self {
            placement,
            bound: rules.bound,
            total: WeightedShare {
                weight: up.iter().map(|part| part.weight).sum(),
                key_space: up.iter().map(|part| part.key_space).sum(),
            },
            rotation: WeightedRoundRobin::new(peers.iter().map(|peer| peer.weight.get())),
            keyless_requests: 0,
            hot_keys: rules.hot_keys.map(HotKeySimulation::new),
            peers,
            in_flight: BinaryHeap::new(),
            unserved: 0,
            spread: 0,
        }
    }

    /// The placement of the keys.
    pub(super) const fn placement(&self) -> &'a KeyPlacement<'a> {
        self.placement
    }

    /// Adds a request, which must not start before the previous one; returns its peer.
    pub fn add(&mut self, request: ReplayRequest) -> Option<MemberId> {
        self.complete_until(request.start);
        let selector = self.selector(request.hash);
        let hot = self.select_for_hot_key(&selector, request.start);
        self.spread += u64::from(hot.is_some());
        let assigned = hot.or_else(|| self.find(&selector, None));
        let serving = assigned.and_then(|assigned| self.apply_bound(assigned, &selector));
        let peer = serving.and_then(|member| self.peers.get_mut(member.index()));
        let (Some(member), Some(peer)) = (serving, peer) else {
            self.unserved += 1;
            return None;
        };
        peer.record(request);
        self.in_flight.push(Reverse((request.end(), member.0)));
        serving
    }

    /// The load of each peer, in the order of the ring's members.
    pub fn loads(self) -> Vec<SimulatedLoad> {
        self.peers.into_iter().map(|peer| peer.load).collect()
    }

    /// Completes requests; one that ends at `now` does not overlap with one that starts at `now`.
    fn complete_until(&mut self, now: u64) {
        while let Some(Reverse((end, member))) = self.in_flight.peek().copied()
            && end <= now
        {
            self.in_flight.pop();
            if let Some(peer) = self.peers.get_mut(member as usize) {
                peer.in_flight -= 1;
            }
        }
    }

    fn selector(&mut self, hash: Option<Hash>) -> PeerSelector {
        if let Some(hash) = hash {
            return PeerSelector::Key(self.placement.ring().key_from_hash(hash));
        }
        self.keyless_requests = self.keyless_requests.wrapping_add(1);
        PeerSelector::RoundRobin(self.keyless_requests.wrapping_sub(1))
    }

    /// The first peer that is up and has room.
    fn find(&self, selector: &PeerSelector, bound: Option<BalanceFactor>) -> Option<MemberId> {
        let may = |member| self.placement.is_up(member) && self.has_room(member, bound);
        match selector {
            PeerSelector::Key(key) => self.placement.ring().find(key, may),
            PeerSelector::RoundRobin(turn) => {
                let may = |place| may(MemberId(place));
                self.rotation.find_from(*turn, may).map(MemberId)
            }
        }
    }

    /// The peer for this request of a hot key.
    fn select_for_hot_key(&mut self, selector: &PeerSelector, now: u64) -> Option<MemberId> {
        let (Some(hot_keys), PeerSelector::Key(key)) = (&mut self.hot_keys, selector) else {
            return None;
        };
        let (share, turn) = hot_keys.observe(key.hash().0, Duration::from_micros(now))?;
        let serves = |member: MemberId| {
            let peer = self.peers.get(member.index())?;
            let is_up = self.placement.is_up(member);
            is_up.then_some((member, peer.share))
        };
        let walk = self.placement.ring().walk(key).filter_map(serves);
        let spread = hot_keys.spread;
        spread.select_peer(share, self.total, turn, walk)
    }

    /// The assigned peer if it has room, else the first peer with room for overflow.
    fn apply_bound(&mut self, assigned: MemberId, selector: &PeerSelector) -> Option<MemberId> {
        if self.has_room(assigned, self.bound) {
            return Some(assigned);
        }
        if let Some(full) = self.peers.get_mut(assigned.index()) {
            full.load.overflow += 1;
        }
        let mut steps = BalanceFactor::OVERFLOW_STEPS.into_iter();
        steps.find_map(|step| self.find(selector, Some(step)))
    }

    fn has_room(&self, member: MemberId, bound: Option<BalanceFactor>) -> bool {
        let Some((bound, peer)) = bound.zip(self.peers.get(member.index())) else {
            return true;
        };
        let total = u32::try_from(self.in_flight.len() + 1).unwrap_or(u32::MAX);
        bound.has_room(peer.in_flight, total, peer.weight.get(), self.total.weight)
    }
}

impl SimulatedPeer {
    fn new(weight: Weight) -> Self {
        let weight_alone = weight.get().into();
        Self {
            weight,
            share: WeightedShare {
                weight: weight_alone,
                key_space: weight_alone.into(),
            },
            in_flight: 0,
            current_second: (0, 0),
            load: SimulatedLoad::default(),
        }
    }

    fn record(&mut self, request: ReplayRequest) {
        let second = request.start / MICROS_PER_SECOND;
        if self.current_second.0 != second {
            self.current_second = (second, 0);
        }
        self.current_second.1 += 1;
        self.in_flight += 1;
        let load = &mut self.load;
        load.requests += 1;
        load.peak_rate = load.peak_rate.max(self.current_second.1);
        load.peak_in_flight = load.peak_in_flight.max(self.in_flight);
        load.busy = load.busy.saturating_add(request.duration);
        load.bytes = load.bytes.saturating_add(request.bytes);
    }
}

impl HotKeySimulation {
    fn new((threshold, spread): (HotKeyThreshold, HotKeySpread)) -> Self {
        Self {
            counters: SpaceSaving::new(threshold),
            spread,
            request_counts: HashMap::new(),
        }
    }

    /// Counts a request; for a hot key returns its share and the number of the request.
    fn observe(&mut self, key: u64, now: Duration) -> Option<(u32, u32)> {
        self.counters.tick(now);
        self.counters.record(key, 1);
        let mut hot = self.counters.hot_keys().iter();
        let share = hot.find(|hot| hot.key == key)?.share;
        let turn = self.request_counts.entry(key).or_default();
        *turn = turn.wrapping_add(1);
        Some((share, *turn))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::{Dialect, Ring};

    const LABELS: [&str; 3] = ["a", "b", "c"];

    fn ring() -> Ring {
        let members = LABELS.map(|label| (label, Weight::ONE));
        Ring::new(Dialect::default(), members).unwrap()
    }

    fn simulate(
        bound: Option<BalanceFactor>,
        requests: &[ReplayRequest],
    ) -> (Vec<SimulatedLoad>, Vec<u32>) {
        let ring = ring();
        let placement = KeyPlacement::new(&ring, LABELS);
        let rules = LoadRules {
            bound,
            ..LoadRules::default()
        };
        let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], rules);
        let peers = requests
            .iter()
            .map(|request| simulation.add(*request).unwrap().0)
            .collect();
        (simulation.loads(), peers)
    }

    fn request(start: u64, duration: u64, key: &str) -> ReplayRequest {
        let hash = (!key.is_empty()).then(|| ring().key(key.as_bytes()).hash());
        ReplayRequest {
            start,
            duration,
            bytes: 10,
            hash,
        }
    }

    #[test]
    fn simulation_assigns_all_requests_of_a_key_to_one_peer() {
        let all = [
            request(0, 500_000, "k"),
            request(400_000, 200_000, "k"),
            request(500_000, 1, "k"),
            request(1_000_000, 7, "k"),
        ];
        let (loads, peers) = simulate(None, &all);
        assert!(peers.iter().all(|peer| *peer == peers[0]));
        let expected = SimulatedLoad {
            requests: 4,
            peak_rate: 3,
            peak_in_flight: 2,
            busy: 700_008,
            bytes: 40,
            overflow: 0,
        };
        assert_eq!(loads[peers[0] as usize], expected);
        assert_eq!(loads.iter().map(|load| load.requests).sum::<u64>(), 4);
    }

    #[test]
    fn simulation_overflows_from_a_full_owner_to_the_next_peer() {
        let bound = BalanceFactor::new(1250);
        // One request may be anywhere; of the second, the bound is still 1.
        let all = [
            request(0, 100, "k"),
            request(1, 100, "k"),
            request(150, 1, "k"),
        ];
        let (loads, peers) = simulate(bound, &all);
        let ring = ring();
        let walk: Vec<_> = ring.walk(&ring.key(b"k")).map(|m| m.0).collect();
        assert_eq!(peers, [walk[0], walk[1], walk[0]]);
        assert_eq!(loads[walk[0] as usize].overflow, 1);
        assert_eq!(loads[walk[1] as usize].overflow, 0);
    }

    #[test]
    fn simulation_sends_keyless_requests_round_robin() {
        let all: Vec<_> = (0..30).map(|start| request(start, 1, "")).collect();
        let (loads, _) = simulate(None, &all);
        assert_eq!(
            loads.iter().map(|l| l.requests).collect::<Vec<_>>(),
            [10; 3]
        );
    }

    #[test]
    fn simulation_overflows_keyless_requests_from_a_full_peer() {
        let turns = (1..4).map(|start| request(start, 0, ""));
        let all: Vec<_> = [request(0, 1000, "k")].into_iter().chain(turns).collect();
        let (loads, peers) = simulate(BalanceFactor::new(1250), &all);
        let full = peers[0];
        let expected = [0, 1, 2].map(|turn| if turn == full { (turn + 1) % 3 } else { turn });
        assert_eq!(peers[1..], expected);
        assert_eq!(loads[full as usize].overflow, 1);
    }

    #[test]
    fn simulation_spreads_a_hot_key() {
        let key = |number: u64| match number % 2 {
            0 => "hot".to_owned(),
            _ => format!("key-{number}"),
        };
        let all = (0..4000).map(|number| request(number * 1000, 1, &key(number)));
        let ring = ring();
        let placement = KeyPlacement::new(&ring, LABELS);
        let hot_keys = Some((HotKeyThreshold::DEFAULT, HotKeySpread { min_peers: 3 }));
        let rules = LoadRules {
            bound: None,
            hot_keys,
        };
        let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], rules);
        let mut peers = [0; 3];
        for request in all {
            let peer = simulation.add(request).unwrap();
            let is_hot = request.hash == Some(ring.key(b"hot").hash());
            peers[peer.index()] += u32::from(is_hot && request.start >= 1_000_000);
        }
        assert_eq!(simulation.spread, 1500);
        // Half of the requests are of it. Each peer takes as many as its other keys leave room for.
        let room = |hashes: u64| 1.1 / 3.0 - 0.5 * crate::predict::share(hashes);
        for (taken, hashes) in peers.iter().zip(ring.shares()) {
            let expected = 1500.0 * room(hashes) / 0.6;
            assert!(
                (f64::from(*taken) - expected).abs() < 8.0,
                "{peers:?}, {expected}"
            );
        }
    }

    proptest! {
        /// At every moment each peer holds no more than the bound allows for what is in flight.
        #[test]
        fn simulation_never_exceeds_the_load_bound(
            spans in prop::collection::vec((0..40_u64, 0..60_u64, 0..6_u32), 1..120),
        ) {
            let bound = BalanceFactor::new(1250).unwrap();
            let mut at = 0;
            let mut all = Vec::new();
            for (pause, duration, key) in spans {
                at += pause;
                all.push(request(at, duration, &key.to_string()));
            }
            let (loads, peers) = simulate(Some(bound), &all);
            for (number, (one, peer)) in all.iter().zip(&peers).enumerate() {
                let earlier = all.iter().zip(&peers).take(number);
                let open: Vec<_> = earlier.filter(|(other, _)| other.end() > one.start).collect();
                let held = open.iter().filter(|(_, other)| *other == peer).count();
                let total = u32::try_from(open.len() + 1).unwrap();
                prop_assert!(held < bound.capacity(total, 1, 3) as usize);
            }
            prop_assert_eq!(loads.iter().map(|l| l.requests).sum::<u64>(), all.len() as u64);
        }
    }
}
