//! What traffic does to each peer: requests, their rate, how many are in flight, and the overflow.
//!
//! Requests come in the order of their start and take as long as they took; a peer is as fast with
//! more of them as it was with fewer. As in the proxy, a request without a key goes to the peers in turn, one
//! of a hot key to the peers that it is spread over, and with a [`Bound`] a request whose home is full to the
//! next of its walk, or of the turns, that has room for a guest.
//!
//! Nobody comes back or starts slowly here: who is up is up all the while. All requests are counted for hot
//! keys, where a busy proxy counts a sample.
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

/// One request, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    /// When it started, in microseconds since any moment.
    pub start: u64,
    /// How long it took, in microseconds.
    pub duration: u64,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// The hash of its key; `None`: it had none.
    pub hash: Option<Hash>,
}

/// What came to one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimulatedLoad {
    /// Requests.
    pub requests: u64,
    /// The most of them that started in one second of the clock.
    pub peak_rate: u64,
    /// The most at once.
    pub peak_in_flight: u32,
    /// The time that all of them took together, in microseconds.
    pub busy: u64,
    /// Bytes of their responses' bodies.
    pub bytes: u64,
    /// Requests whose owner it is and that went to others, because it was full.
    pub overflow: u64,
}

/// What keeps requests from their home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadRules {
    /// How much a peer may hold; `None`: as much as comes.
    pub bound: Option<BalanceFactor>,
    /// From which share on a key is hot, and over how many peers it is spread at least; `None`: none is.
    pub hot_keys: Option<(HotKeyThreshold, HotKeySpread)>,
}

/// Traffic on its way through a placement.
#[derive(Debug)]
pub struct Simulation<'a> {
    placement: &'a KeyPlacement<'a>,
    bound: Option<BalanceFactor>,
    peers: Vec<SimulatedPeer>,
    /// What all peers that are up have together.
    total: WeightedShare,
    /// The ends of the requests in flight, and on whom they are.
    in_flight: BinaryHeap<Reverse<(u64, u32)>>,
    rotation: WeightedRoundRobin,
    /// Requests without a key so far.
    keyless_requests: usize,
    hot_keys: Option<HotKeySimulation>,
    /// Requests that nobody could take.
    pub unserved: u64,
    /// Requests of hot keys.
    pub spread: u64,
}

/// Where a request asks for a place.
enum PeerSelector {
    Key(HashedKey),
    RoundRobin(usize),
}

#[derive(Debug)]
struct HotKeySimulation {
    sketch: SpaceSaving,
    spread: HotKeySpread,
    /// How many requests each of them had while it was hot.
    request_counts: HashMap<u64, u32>,
}

#[derive(Debug)]
struct SimulatedPeer {
    weight: Weight,
    /// What it has, when all are up.
    share: WeightedShare,
    in_flight: u32,
    /// The second that is counted, and its requests so far.
    current_second: (u64, u64),
    load: SimulatedLoad,
}

impl ReplayRequest {
    /// The same, but begun later; its end stays, where it is not before that.
    #[must_use]
    pub fn with_start(self, start: u64) -> Self {
        let end = self.end().max(start);
        Self {
            start,
            duration: end - start,
            ..self
        }
    }

    /// When it was over.
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.duration)
    }
}

impl<'a> Simulation<'a> {
    /// Nothing in flight. `weights` are the members', in the ring's order.
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

    /// Who has which keys in it.
    pub(super) const fn placement(&self) -> &'a KeyPlacement<'a> {
        self.placement
    }

    /// One more request, which must not start before the one before it; who gets it.
    pub fn add(&mut self, request: ReplayRequest) -> Option<MemberId> {
        self.complete_until(request.start);
        let way = self.selector(request.hash);
        let hot = self.select_for_hot_key(&way, request.start);
        self.spread += u64::from(hot.is_some());
        let home = hot.or_else(|| self.find(&way, None));
        let taker = home.and_then(|home| self.apply_bound(home, &way));
        let peer = taker.and_then(|member| self.peers.get_mut(member.index()));
        let (Some(member), Some(peer)) = (taker, peer) else {
            self.unserved += 1;
            return None;
        };
        peer.record(request);
        self.in_flight.push(Reverse((request.end(), member.0)));
        taker
    }

    /// What came to each peer, in the ring's order.
    pub fn loads(self) -> Vec<SimulatedLoad> {
        self.peers.into_iter().map(|peer| peer.load).collect()
    }

    /// Requests that end now are over before one that starts now.
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

    /// The first that is up and has room.
    fn find(&self, way: &PeerSelector, bound: Option<BalanceFactor>) -> Option<MemberId> {
        let may = |member| self.placement.is_up(member) && self.has_room(member, bound);
        match way {
            PeerSelector::Key(key) => self.placement.ring().find(key, may),
            PeerSelector::RoundRobin(turn) => {
                let may = |place| may(MemberId(place));
                self.rotation.find_from(*turn, may).map(MemberId)
            }
        }
    }

    /// Of a hot key, the peer whose turn it is.
    fn select_for_hot_key(&mut self, way: &PeerSelector, now: u64) -> Option<MemberId> {
        let (Some(hot_keys), PeerSelector::Key(key)) = (&mut self.hot_keys, way) else {
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

    /// The home, if it has room; else who has room for a guest.
    fn apply_bound(&mut self, home: MemberId, way: &PeerSelector) -> Option<MemberId> {
        if self.has_room(home, self.bound) {
            return Some(home);
        }
        if let Some(full) = self.peers.get_mut(home.index()) {
            full.load.overflow += 1;
        }
        let mut guests = BalanceFactor::OVERFLOW_STEPS.into_iter();
        guests.find_map(|guest| self.find(way, Some(guest)))
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
            sketch: SpaceSaving::new(threshold),
            spread,
            request_counts: HashMap::new(),
        }
    }

    /// Counts a request; if its key is hot, the key's share and the request's number.
    fn observe(&mut self, key: u64, now: Duration) -> Option<(u32, u32)> {
        self.sketch.tick(now);
        self.sketch.record(key, 1);
        let mut hot = self.sketch.hot_keys().iter();
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
        let takers = requests
            .iter()
            .map(|request| simulation.add(*request).unwrap().0)
            .collect();
        (simulation.loads(), takers)
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
        let (loads, takers) = simulate(None, &all);
        assert!(takers.iter().all(|taker| *taker == takers[0]));
        let expected = SimulatedLoad {
            requests: 4,
            peak_rate: 3,
            peak_in_flight: 2,
            busy: 700_008,
            bytes: 40,
            overflow: 0,
        };
        assert_eq!(loads[takers[0] as usize], expected);
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
        let (loads, takers) = simulate(bound, &all);
        let ring = ring();
        let walk: Vec<_> = ring.walk(&ring.key(b"k")).map(|m| m.0).collect();
        assert_eq!(takers, [walk[0], walk[1], walk[0]]);
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
        let (loads, takers) = simulate(BalanceFactor::new(1250), &all);
        let full = takers[0];
        let expected = [0, 1, 2].map(|turn| if turn == full { (turn + 1) % 3 } else { turn });
        assert_eq!(takers[1..], expected);
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
        let mut takers = [0; 3];
        for request in all {
            let taker = simulation.add(request).unwrap();
            let is_hot = request.hash == Some(ring.key(b"hot").hash());
            takers[taker.index()] += u32::from(is_hot && request.start >= 1_000_000);
        }
        assert_eq!(simulation.spread, 1500);
        // Half of the requests are of it. Each peer takes as many as its other keys leave room for.
        let room = |hashes: u64| 1.1 / 3.0 - 0.5 * crate::predict::share(hashes);
        for (taken, hashes) in takers.iter().zip(ring.shares()) {
            let expected = 1500.0 * room(hashes) / 0.6;
            assert!(
                (f64::from(*taken) - expected).abs() < 8.0,
                "{takers:?}, {expected}"
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
            let (loads, takers) = simulate(Some(bound), &all);
            for (number, (one, taker)) in all.iter().zip(&takers).enumerate() {
                let earlier = all.iter().zip(&takers).take(number);
                let open: Vec<_> = earlier.filter(|(other, _)| other.end() > one.start).collect();
                let held = open.iter().filter(|(_, other)| *other == taker).count();
                let total = u32::try_from(open.len() + 1).unwrap();
                prop_assert!(held < bound.capacity(total, 1, 3) as usize);
            }
            prop_assert_eq!(loads.iter().map(|l| l.requests).sum::<u64>(), all.len() as u64);
        }
    }
}
