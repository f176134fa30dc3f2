//! What traffic does to each peer: requests, their rate, how many are in flight, and the overflow.
//!
//! Requests come in the order of their start and take as long as they took; a peer is as fast with
//! more of them as it was with fewer. With a [`Bound`] a request whose owner is full goes to the next
//! of its walk that has room for a guest, as in the proxy. A request without a key goes to the peers in turn.
//!
//! Memory: one entry per peer, and one per request in flight.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Placement;
use crate::policy::bound::Bound;
use crate::ring::{Hash, MemberId, Weight};

const SECOND: u64 = 1_000_000;

/// One request, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
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
pub struct Load {
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

/// Traffic on its way through a placement.
#[derive(Debug)]
pub struct Simulation<'a> {
    placement: &'a Placement<'a>,
    bound: Option<Bound>,
    peers: Vec<Peer>,
    /// The weight of all peers that are up.
    total_weight: u32,
    /// The ends of the requests in flight, and on whom they are.
    in_flight: BinaryHeap<Reverse<(u64, u32)>>,
    turns: Turns,
    /// Requests that nobody could take.
    pub unserved: u64,
}

#[derive(Debug)]
struct Peer {
    weight: Weight,
    held: u32,
    /// The second that is counted, and its requests so far.
    second: (u64, u64),
    load: Load,
}

impl Request {
    /// The same, but begun later; its end stays, where it is not before that.
    #[must_use]
    pub fn starting_at(self, start: u64) -> Self {
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
        placement: &'a Placement<'a>,
        weights: impl IntoIterator<Item = Weight>,
        bound: Option<Bound>,
    ) -> Self {
        let peers: Vec<_> = weights.into_iter().map(Peer::new).collect();
        let up = (0..).map(MemberId).zip(&peers);
        let up: Vec<_> = up
            .filter(|(member, _)| placement.is_up(*member))
            .map(|(member, peer)| (member, peer.weight))
            .collect();
        Self {
            placement,
            bound,
            total_weight: up.iter().map(|(_, w)| u32::from(w.get())).sum(),
            turns: Turns::new(up),
            peers,
            in_flight: BinaryHeap::new(),
            unserved: 0,
        }
    }

    /// One more request, which must not start before the one before it; who gets it.
    pub fn add(&mut self, request: Request) -> Option<MemberId> {
        self.finish_until(request.start);
        let taker = match request.hash {
            Some(hash) => self.by_key(hash),
            None => self.in_turn(),
        };
        let peer = taker.and_then(|member| self.peers.get_mut(member.index()));
        let (Some(member), Some(peer)) = (taker, peer) else {
            self.unserved += 1;
            return None;
        };
        peer.take(request);
        self.in_flight.push(Reverse((request.end(), member.0)));
        taker
    }

    /// What came to each peer, in the ring's order.
    pub fn loads(self) -> Vec<Load> {
        self.peers.into_iter().map(|peer| peer.load).collect()
    }

    /// Requests that end now are over before one that starts now.
    fn finish_until(&mut self, now: u64) {
        while let Some(Reverse((end, member))) = self.in_flight.peek().copied()
            && end <= now
        {
            self.in_flight.pop();
            if let Some(peer) = self.peers.get_mut(member as usize) {
                peer.held -= 1;
            }
        }
    }

    fn by_key(&mut self, hash: Hash) -> Option<MemberId> {
        let key = self.placement.ring().recall(hash);
        let owner = self.placement.owner(&key)?;
        if self.has_room(owner, self.bound) {
            return Some(owner);
        }
        if let Some(full) = self.peers.get_mut(owner.index()) {
            full.load.overflow += 1;
        }
        Bound::GUESTS.into_iter().find_map(|guest| {
            let has_room = |member| self.has_room(member, Some(guest));
            let may = |member| self.placement.is_up(member) && has_room(member);
            self.placement.ring().find(&key, may)
        })
    }

    fn in_turn(&mut self) -> Option<MemberId> {
        // Taken out, because the turns ask the rest of this who has room.
        let mut turns = std::mem::take(&mut self.turns);
        let next = turns.next(|member| self.has_room(member, self.bound));
        self.turns = turns;
        next
    }

    fn has_room(&self, member: MemberId, bound: Option<Bound>) -> bool {
        let Some((bound, peer)) = bound.zip(self.peers.get(member.index())) else {
            return true;
        };
        let total = u32::try_from(self.in_flight.len() + 1).unwrap_or(u32::MAX);
        bound.has_room(peer.held, total, peer.weight.get(), self.total_weight)
    }
}

impl Peer {
    fn new(weight: Weight) -> Self {
        Self {
            weight,
            held: 0,
            second: (0, 0),
            load: Load::default(),
        }
    }

    fn take(&mut self, request: Request) {
        let second = request.start / SECOND;
        if self.second.0 != second {
            self.second = (second, 0);
        }
        self.second.1 += 1;
        self.held += 1;
        let load = &mut self.load;
        load.requests += 1;
        load.peak_rate = load.peak_rate.max(self.second.1);
        load.peak_in_flight = load.peak_in_flight.max(self.held);
        load.busy = load.busy.saturating_add(request.duration);
        load.bytes = load.bytes.saturating_add(request.bytes);
    }
}

/// Turns by weight: whoever is the furthest behind its share is next.
#[derive(Debug, Default)]
struct Turns(BinaryHeap<Reverse<(u64, MemberId, Weight)>>);

impl Turns {
    /// A unit of weight's step; every weight up to 256 divides it closely enough.
    const STEP: u64 = 1 << 24;

    fn new(up: Vec<(MemberId, Weight)>) -> Self {
        let first = |(member, weight)| Reverse((Self::step(weight) / 2, member, weight));
        Self(up.into_iter().map(first).collect())
    }

    fn step(weight: Weight) -> u64 {
        Self::STEP / u64::from(weight.get())
    }

    /// The next one that is accepted; those that are refused keep their turn.
    fn next(&mut self, accept: impl Fn(MemberId) -> bool) -> Option<MemberId> {
        let mut refused = Vec::new();
        let mut next = None;
        while let Some(Reverse((due, member, weight))) = self.0.pop() {
            if accept(member) {
                self.0
                    .push(Reverse((due + Self::step(weight), member, weight)));
                next = Some(member);
                break;
            }
            refused.push(Reverse((due, member, weight)));
        }
        self.0.extend(refused);
        next
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

    fn simulate(bound: Option<Bound>, requests: &[Request]) -> (Vec<Load>, Vec<u32>) {
        let ring = ring();
        let placement = Placement::new(&ring, LABELS);
        let mut simulation = Simulation::new(&placement, [Weight::ONE; 3], bound);
        let takers = requests
            .iter()
            .map(|request| simulation.add(*request).unwrap().0)
            .collect();
        (simulation.loads(), takers)
    }

    fn request(start: u64, duration: u64, key: &str) -> Request {
        let hash = (!key.is_empty()).then(|| ring().key(key.as_bytes()).hash());
        Request {
            start,
            duration,
            bytes: 10,
            hash,
        }
    }

    #[test]
    fn one_key_is_one_peers_load() {
        let all = [
            request(0, 500_000, "k"),
            request(400_000, 200_000, "k"),
            request(500_000, 1, "k"),
            request(1_000_000, 7, "k"),
        ];
        let (loads, takers) = simulate(None, &all);
        assert!(takers.iter().all(|taker| *taker == takers[0]));
        let expected = Load {
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
    fn a_full_owner_overflows_to_the_next_of_the_walk_and_gets_its_key_back() {
        let bound = Bound::new(1250);
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
    fn requests_without_a_key_go_in_turn() {
        let all: Vec<_> = (0..30).map(|start| request(start, 1, "")).collect();
        let (loads, _) = simulate(None, &all);
        assert_eq!(
            loads.iter().map(|l| l.requests).collect::<Vec<_>>(),
            [10; 3]
        );
    }

    #[test]
    fn turns_follow_the_weights() {
        let members = [
            (MemberId(0), Weight::ONE),
            (MemberId(1), Weight::new(3).unwrap()),
        ];
        let mut turns = Turns::new(members.to_vec());
        let taken: Vec<_> = (0..8).map(|_| turns.next(|_| true).unwrap().0).collect();
        assert_eq!(taken.iter().filter(|member| **member == 1).count(), 6);
    }

    proptest! {
        /// At every moment each peer holds no more than the bound allows for what is in flight.
        #[test]
        fn nobody_holds_more_than_the_bound(
            spans in prop::collection::vec((0..40_u64, 0..60_u64, 0..6_u32), 1..120),
        ) {
            let bound = Bound::new(1250).unwrap();
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
