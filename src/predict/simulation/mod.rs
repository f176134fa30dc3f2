//! The load that traffic causes at each peer: requests, their rate, how many are in flight, overflow.
//!
//! The code that serves ([`selection`](crate::policy::selection)) places the requests, at the times of the log:
//! with hot keys, slow starts, the bound and its wait. A request takes as long as in the log, after its wait.
//! [`Simulation::notes`] says what is not modelled.
//!
//! Memory: one entry per peer, one per request in flight, and the counters of the hot keys.

mod hot_keys;
mod load;
mod peers;
mod request;
#[cfg(test)]
mod tests;
mod wait;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

pub(crate) use self::load::{LoadRules, SimulatedLoad};
pub(crate) use self::request::ReplayRequest;

use self::hot_keys::HotKeySimulation;
use self::peers::SimulatedPeers;
use self::request::{PeerSelector, SimulatedRequest};
use self::wait::{SimulatedWaits, WaitingRequest};
use super::KeyPlacement;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::selection::{
    AssignedPeerResult, admit_overflow, may_wait, peer_bound, try_assigned_peer,
};
use crate::ring::{Hash, MemberId, Weight};

/// The traffic of a log on its way through a placement.
#[derive(Debug)]
pub(crate) struct Simulation<'a> {
    rules: LoadRules,
    peers: SimulatedPeers<'a>,
    /// The end and the peer of each request in flight.
    ends: BinaryHeap<Reverse<(u64, MemberId)>>,
    waits: SimulatedWaits,
    hot_keys: Option<HotKeySimulation>,
    /// Requests without a key so far.
    keyless_requests: usize,
    /// Requests so far.
    requests: u64,
    placed: Vec<PlacedRequest>,
    /// Requests without a peer to serve them.
    pub unserved: u64,
    /// Requests of hot keys.
    pub spread: u64,
    /// Requests that waited for room at their assigned peer.
    pub waited: u64,
}

/// The peer of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedRequest {
    /// The request's number in the order of [`Simulation::add`], from 0.
    pub number: u64,
    /// `None`: no peer could serve it.
    pub peer: Option<MemberId>,
}

impl<'a> Simulation<'a> {
    /// A simulation without requests. `weights` are the members', in the ring's order.
    pub(crate) fn new(
        placement: &'a KeyPlacement<'a>,
        weights: impl IntoIterator<Item = Weight>,
        rules: LoadRules,
    ) -> Self {
        Self {
            rules,
            peers: SimulatedPeers::new(placement, weights, rules),
            ends: BinaryHeap::new(),
            waits: SimulatedWaits::default(),
            hot_keys: rules.hot_keys.map(HotKeySimulation::new),
            keyless_requests: 0,
            requests: 0,
            placed: Vec::new(),
            unserved: 0,
            spread: 0,
            waited: 0,
        }
    }

    /// Lets the peers that do not serve in `before` start slowly, from the first request on.
    #[must_use]
    pub(crate) fn with_slow_starts_after(mut self, before: &KeyPlacement<'_>) -> Self {
        self.peers.set_starting(before);
        self
    }

    /// The placement of the keys.
    pub(super) const fn placement(&self) -> &'a KeyPlacement<'a> {
        self.peers.placement()
    }

    /// Adds a request, which must not start before the previous one.
    pub(crate) fn add(&mut self, request: ReplayRequest) {
        self.run_until(request.start);
        let request = SimulatedRequest {
            number: self.requests,
            selector: self.selector(request.hash),
            logged: request,
        };
        self.requests += 1;
        let hot = match (&mut self.hot_keys, &request.selector) {
            (Some(hot_keys), PeerSelector::Key(key)) => {
                hot_keys.count_request(key.hash().0, Duration::from_micros(request.logged.start))
            }
            _ => None,
        };
        self.peers.count_in(request.logged.start);
        let view = self.peers.view(&request, hot, request.logged.start);
        match try_assigned_peer(&view, ()) {
            Err(()) => self.reject(&request),
            Ok(AssignedPeerResult::Admitted { peer, is_hot, .. }) => {
                self.spread += u64::from(is_hot);
                self.begin(&request, peer, request.logged.start);
            }
            Ok(AssignedPeerResult::AtCapacity {
                assigned,
                factor,
                is_hot,
                ..
            }) => {
                let wait = self.rules.wait.filter(|_| may_wait(&view, is_hot));
                let bound = peer_bound(&view, assigned, factor);
                self.spread += u64::from(is_hot);
                if let Some(wait) = wait
                    && self.peers.may_enqueue(assigned)
                {
                    let waiting = WaitingRequest { request, bound };
                    self.enqueue(waiting, assigned, wait);
                } else {
                    self.overflow(&request, (assigned, factor), request.logged.start);
                }
            }
        }
    }

    /// Lets all requests end.
    pub(crate) fn finish(&mut self) {
        self.run_until(u64::MAX);
    }

    /// Takes the requests that were placed since the last call. If some waited, they are not in the order of
    /// their numbers.
    pub(crate) fn take_placed(&mut self) -> Vec<PlacedRequest> {
        std::mem::take(&mut self.placed)
    }

    /// The load of each peer, in the ring's order.
    pub(crate) fn loads(self) -> Vec<SimulatedLoad> {
        self.peers.loads()
    }

    /// The limits of the model and its assumptions, as sentences for the output.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "not simulated: probes, ejections, retries; a peer is up or down the whole time"
                .to_owned(),
        ];
        if self.rules.drain {
            notes.push(
                "not simulated: keys that a draining peer keeps; it counts as down".to_owned(),
            );
        }
        if self.rules.hot_keys.is_some() {
            notes.push(
                "hot keys: every request is counted; above 4,096 a second the proxy counts a sample"
                    .to_owned(),
            );
        }
        if self.rules.bound.is_some() && self.rules.wait.is_some() {
            notes.push(
                "bounded_load.wait: a request takes as long as in the log, after its wait"
                    .to_owned(),
            );
        }
        let starting = self.peers.starting_labels();
        if !starting.is_empty() {
            let labels = starting.join(", ");
            notes.push(format!("slow start from the first request on: {labels}"));
        }
        notes
    }

    /// Ends requests and waits up to `now`. A request that ends at a moment is over before one that starts then,
    /// and before a wait that times out then.
    fn run_until(&mut self, now: u64) {
        loop {
            let end = self.ends.peek().map(|Reverse((end, _))| *end);
            let deadline = self.waits.next_deadline();
            let first = end.into_iter().chain(deadline).min();
            if first.is_none_or(|first| first > now) {
                return;
            }
            if end.is_some() && end == first {
                self.end_first();
            } else {
                self.time_out_first();
            }
        }
    }

    fn end_first(&mut self) {
        let Some(Reverse((end, peer))) = self.ends.pop() else {
            return;
        };
        self.peers.end(peer);
        self.admit_waiting(peer, end);
    }

    /// Admits the requests that wait at a peer, the first first, as long as there is room.
    fn admit_waiting(&mut self, peer: MemberId, now: u64) {
        while let Some(request) = self.peers.next_admitted(peer) {
            self.begin(&request, peer, now);
        }
    }

    fn enqueue(&mut self, waiting: WaitingRequest, peer: MemberId, wait: Duration) {
        let (number, now) = (waiting.request.number, waiting.request.logged.start);
        self.waited += 1;
        self.waits.push(now, wait, (peer, number));
        self.peers.enqueue(peer, waiting);
        // The bound may have widened since the request before it was enqueued.
        self.admit_waiting(peer, now);
    }

    /// Ends the first wait: the request is admitted without a queue, unless it was admitted meanwhile.
    fn time_out_first(&mut self) {
        let Some((now, (peer, number))) = self.waits.pop() else {
            return;
        };
        let Some(request) = self.peers.leave_queue(peer, number) else {
            return;
        };
        self.admit_waiting(peer, now);
        let view = self.peers.view(&request, None, now);
        match try_assigned_peer(&view, ()) {
            Err(()) => self.reject(&request),
            Ok(AssignedPeerResult::Admitted { peer, .. }) => self.begin(&request, peer, now),
            Ok(AssignedPeerResult::AtCapacity {
                assigned, factor, ..
            }) => self.overflow(&request, (assigned, factor), now),
        }
    }

    fn overflow(
        &mut self,
        request: &SimulatedRequest,
        (assigned, factor): (MemberId, BalanceFactor),
        now: u64,
    ) {
        let view = self.peers.view(request, None, now);
        let admission = admit_overflow(&view, factor, assigned, ());
        self.peers.count_overflow(assigned);
        self.begin(request, admission.peer, now);
    }

    fn begin(&mut self, request: &SimulatedRequest, peer: MemberId, now: u64) {
        let end = now.saturating_add(request.logged.duration);
        self.peers.begin(peer, &request.logged, now);
        self.ends.push(Reverse((end, peer)));
        self.placed.push(PlacedRequest {
            number: request.number,
            peer: Some(peer),
        });
    }

    fn reject(&mut self, request: &SimulatedRequest) {
        self.peers.count_out();
        self.unserved += 1;
        self.placed.push(PlacedRequest {
            number: request.number,
            peer: None,
        });
    }

    fn selector(&mut self, hash: Option<Hash>) -> PeerSelector {
        if let Some(hash) = hash {
            return PeerSelector::Key(self.placement().ring().key_from_hash(hash));
        }
        let turn = self.keyless_requests;
        self.keyless_requests = turn.wrapping_add(1);
        PeerSelector::RoundRobin(turn)
    }
}
