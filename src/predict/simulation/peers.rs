//! The peers of a simulation, and the view of them that a request is placed by.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use super::load::{LoadRules, SimulatedLoad};
use super::request::{MICROS_PER_SECOND, PeerSelector, ReplayRequest, SimulatedRequest};
use super::wait::WaitingRequest;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::hot_key_spread::{HotKeyHit, HotKeySpread, WeightedShare};
use crate::policy::selection::{
    DrainLimits, LoadView, MAX_WAITING, PARTS_PER_WEIGHT, PeerBound, PeerView, total_parts,
};
use crate::policy::slow_start::{Salt, SlowStartWindow};
use crate::policy::weighted_round_robin::WeightedRoundRobin;
use crate::predict::KeyPlacement;
use crate::ring::{MemberId, Weight};

/// All peers. Those that are down never serve.
#[derive(Debug)]
pub(super) struct SimulatedPeers<'a> {
    placement: &'a KeyPlacement<'a>,
    factor: Option<BalanceFactor>,
    slow_start: Option<Duration>,
    round_robin: WeightedRoundRobin,
    peers: Vec<SimulatedPeer>,
    /// The sums over the peers that are up and not in [`Self::starting`].
    serving: WeightedShare,
    /// The peers with a slow start.
    starting: Vec<MemberId>,
    /// When the slow starts begin: the start of the first request.
    started: Option<Duration>,
    /// The slow starts ended at once, because every peer that is up had one.
    slow_starts_ended: Cell<bool>,
    /// The requests in flight, with those that have no peer yet.
    in_flight: u32,
}

#[derive(Debug)]
struct SimulatedPeer {
    weight: Weight,
    /// Its share when all peers are up.
    share: WeightedShare,
    salt: Salt,
    is_starting: bool,
    in_flight: u32,
    waiting: VecDeque<WaitingRequest>,
    /// The second of the clock that is counted, and its requests so far.
    current_second: (u64, u64),
    load: SimulatedLoad,
}

impl<'a> SimulatedPeers<'a> {
    pub(super) fn new(
        placement: &'a KeyPlacement<'a>,
        weights: impl IntoIterator<Item = Weight>,
        rules: LoadRules,
    ) -> Self {
        let labels = placement.labels().iter().copied();
        let peers = labels.zip(weights);
        let mut peers: Vec<_> = peers
            .map(|(label, weight)| SimulatedPeer::new(label, weight))
            .collect();
        if rules.hot_keys.is_some() && placement.ring().sample_size().is_none() {
            let shares = placement.ring().shares();
            let keys = peers.iter_mut().zip(shares);
            keys.for_each(|(peer, share)| peer.share.key_space = share);
        }
        let mut all = Self {
            placement,
            factor: rules.bound,
            slow_start: rules.slow_start,
            round_robin: WeightedRoundRobin::new(peers.iter().map(|peer| peer.weight.get())),
            peers,
            serving: WeightedShare::default(),
            starting: Vec::new(),
            started: None,
            slow_starts_ended: Cell::new(false),
            in_flight: 0,
        };
        all.sum_up();
        all
    }

    pub(super) const fn placement(&self) -> &'a KeyPlacement<'a> {
        self.placement
    }

    /// Lets the peers that do not serve in `before` start slowly.
    pub(super) fn set_starting(&mut self, before: &KeyPlacement<'_>) {
        if self.slow_start.is_none() {
            return;
        }
        let served = before.serving_labels();
        let members = (0..).map(MemberId).zip(&mut self.peers);
        for (member, peer) in members {
            peer.is_starting =
                self.placement.is_up(member) && !served.contains(self.placement.label(member));
            if peer.is_starting {
                self.starting.push(member);
            }
        }
        self.sum_up();
    }

    pub(super) fn starting_labels(&self) -> Vec<&'a str> {
        let label = |member: &MemberId| self.placement.label(*member);
        self.starting.iter().map(label).collect()
    }

    /// The view of a request at `now`; `hot` if its key is.
    pub(super) fn view<'s>(
        &'s self,
        request: &'s SimulatedRequest,
        hot: Option<(HotKeySpread, HotKeyHit)>,
        now: u64,
    ) -> SimulatedView<'s> {
        SimulatedView {
            peers: self,
            selector: &request.selector,
            hot,
            now: Duration::from_micros(now),
        }
    }

    /// Counts a request that has no peer yet.
    pub(super) fn count_in(&mut self, now: u64) {
        self.started.get_or_insert(Duration::from_micros(now));
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Counts a request out that has no peer.
    pub(super) const fn count_out(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn count_overflow(&mut self, assigned: MemberId) {
        if let Some(peer) = self.peers.get_mut(assigned.index()) {
            peer.load.overflow += 1;
        }
    }

    /// Counts a request at a peer; it is in the total already.
    pub(super) fn begin(&mut self, peer: MemberId, request: &ReplayRequest, now: u64) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.begin(request, now);
        }
    }

    /// Counts a request out that was at a peer.
    pub(super) fn end(&mut self, peer: MemberId) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
        self.count_out();
    }

    pub(super) fn may_enqueue(&self, peer: MemberId) -> bool {
        self.get(peer)
            .is_some_and(|peer| peer.waiting.len() < MAX_WAITING)
    }

    pub(super) fn enqueue(&mut self, peer: MemberId, waiting: WaitingRequest) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.waiting.push_back(waiting);
        }
    }

    /// Removes the first waiting request, if the peer has room for it.
    pub(super) fn next_admitted(&mut self, peer: MemberId) -> Option<SimulatedRequest> {
        let total = self.in_flight;
        let peer = self.peers.get_mut(peer.index())?;
        let first = peer.waiting.front()?;
        if !first.bound.has_room(peer.in_flight, total) {
            return None;
        }
        Some(peer.waiting.pop_front()?.request)
    }

    /// Removes a request from the queue, if it is still there.
    pub(super) fn leave_queue(&mut self, peer: MemberId, number: u64) -> Option<SimulatedRequest> {
        let waiting = &mut self.peers.get_mut(peer.index())?.waiting;
        let mut numbers = waiting.iter().map(|waiting| waiting.request.number);
        let place = numbers.position(|waiting| waiting == number)?;
        Some(waiting.remove(place)?.request)
    }

    pub(super) fn loads(self) -> Vec<SimulatedLoad> {
        self.peers.into_iter().map(|peer| peer.load).collect()
    }

    fn get(&self, member: MemberId) -> Option<&SimulatedPeer> {
        self.peers.get(member.index())
    }

    fn sum_up(&mut self) {
        let peers = (0..).map(MemberId).zip(&self.peers);
        let serving =
            peers.filter(|(member, peer)| self.placement.is_up(*member) && !peer.is_starting);
        self.serving = serving.fold(WeightedShare::default(), |sum, (_, peer)| {
            add_share(sum, peer.share)
        });
    }
}

impl SimulatedPeer {
    fn new(label: &str, weight: Weight) -> Self {
        let weight_alone = weight.get().into();
        Self {
            weight,
            share: WeightedShare {
                weight: weight_alone,
                key_space: weight_alone.into(),
            },
            salt: Salt::of(label),
            is_starting: false,
            in_flight: 0,
            waiting: VecDeque::new(),
            current_second: (0, 0),
            load: SimulatedLoad::default(),
        }
    }

    fn begin(&mut self, request: &ReplayRequest, now: u64) {
        let second = now / MICROS_PER_SECOND;
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

/// The peers as one request sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimulatedView<'s> {
    peers: &'s SimulatedPeers<'s>,
    selector: &'s PeerSelector,
    hot: Option<(HotKeySpread, HotKeyHit)>,
    now: Duration,
}

impl SimulatedView<'_> {
    fn peer<R: Default>(&self, member: MemberId, read: impl FnOnce(&SimulatedPeer) -> R) -> R {
        self.peers.get(member).map(read).unwrap_or_default()
    }

    /// The parts of [`SimulatedPeers::starting`] that share the load.
    fn starting_parts(&self) -> u32 {
        let starting = self.peers.starting.iter();
        starting.map(|member| self.serving_parts(*member)).sum()
    }
}

impl PeerView for SimulatedView<'_> {
    type Peer = MemberId;

    fn now(&self) -> Duration {
        self.now
    }

    fn key_hash(&self) -> u64 {
        match self.selector {
            PeerSelector::Key(key) => key.hash().0,
            PeerSelector::RoundRobin(turn) => *turn as u64,
        }
    }

    fn has_key(&self) -> bool {
        matches!(self.selector, PeerSelector::Key(_))
    }

    fn is_first_attempt(&self) -> bool {
        true
    }

    fn owner(&self) -> Option<MemberId> {
        match self.selector {
            PeerSelector::Key(key) => self.peers.placement.ring().owner(key),
            PeerSelector::RoundRobin(_) => None,
        }
    }

    fn walk(&self) -> impl Iterator<Item = MemberId> + Clone {
        let (key, turn) = match self.selector {
            PeerSelector::Key(key) => (Some(key), None),
            PeerSelector::RoundRobin(turn) => (None, Some(*turn)),
        };
        let (ring, round_robin) = (self.peers.placement.ring(), &self.peers.round_robin);
        let walk = key.into_iter().flat_map(|key| ring.walk(key));
        let round = turn
            .into_iter()
            .flat_map(|turn| round_robin.round_from(turn));
        walk.chain(round.map(MemberId))
    }

    fn find(&self, mut accepts: impl FnMut(MemberId) -> bool) -> Option<MemberId> {
        match self.selector {
            PeerSelector::Key(key) => self.peers.placement.ring().find(key, accepts),
            PeerSelector::RoundRobin(turn) => {
                let accepts = |index| accepts(MemberId(index));
                let index = self.peers.round_robin.find_from(*turn, accepts);
                index.map(MemberId)
            }
        }
    }

    fn is_tried(&self, _: MemberId) -> bool {
        false
    }

    fn is_available(&self, member: MemberId) -> bool {
        self.peers.placement.is_up(member)
    }

    fn takes_all_keys(&self, member: MemberId) -> bool {
        self.is_available(member) && self.slow_start(member).is_none()
    }

    fn is_up(&self, member: MemberId) -> bool {
        self.is_available(member)
    }

    fn may_be_up(&self, member: MemberId) -> bool {
        self.is_available(member)
    }

    fn slow_start(&self, member: MemberId) -> Option<SlowStartWindow> {
        let is_starting = self.peer(member, |peer| peer.is_starting);
        if !is_starting || self.peers.slow_starts_ended.get() {
            return None;
        }
        let window = SlowStartWindow {
            start: self.peers.started?,
            duration: self.peers.slow_start?,
        };
        (!window.is_complete(self.now)).then_some(window)
    }

    fn slow_start_elapsed(&self, member: MemberId) -> Duration {
        let window = self.slow_start(member);
        window.map_or(Duration::ZERO, |window| window.elapsed(self.now))
    }

    fn salt(&self, member: MemberId) -> Salt {
        self.peers
            .get(member)
            .map_or_else(|| Salt::of(""), |peer| peer.salt)
    }

    fn is_draining(&self, _: MemberId) -> bool {
        false
    }

    fn draining_for(&self, _: MemberId) -> Option<Duration> {
        None
    }

    fn drain_limits(&self) -> Option<DrainLimits> {
        None
    }

    fn served_key_within(&self, _: MemberId, _: Duration) -> bool {
        false
    }
}

/// Only decides; [`Simulation`](super::Simulation) counts a request at the peer that admitted it.
impl LoadView for SimulatedView<'_> {
    type Permit<'t> = ();
    type Admitted = ();

    fn balance_factor(&self) -> Option<BalanceFactor> {
        self.peers.factor
    }

    fn peers(&self) -> impl Iterator<Item = MemberId> {
        (0..).map(MemberId).take(self.peers.peers.len())
    }

    fn weight(&self, member: MemberId) -> u16 {
        self.peer(member, |peer| peer.weight.get())
    }

    fn serving_parts(&self, member: MemberId) -> u32 {
        let parts = u32::from(total_parts(self.weight(member)));
        match self.slow_start(member) {
            _ if !self.is_available(member) => 0,
            Some(window) => window.scale(parts, self.now),
            None => parts,
        }
    }

    fn all_serving_parts(&self) -> u32 {
        let parts = u32::from(PARTS_PER_WEIGHT);
        let serving = self.peers.serving.weight.saturating_mul(parts);
        serving.saturating_add(self.starting_parts())
    }

    fn weighted_share(&self, member: MemberId) -> WeightedShare {
        self.peer(member, |peer| peer.share)
    }

    fn serving_share(&self) -> WeightedShare {
        let starting = self.peers.starting.iter();
        let started = starting.filter(|member| self.takes_all_keys(**member));
        started.fold(self.peers.serving, |sum, member| {
            add_share(sum, self.weighted_share(*member))
        })
    }

    fn count_hot_key(&self) -> Option<(HotKeySpread, HotKeyHit)> {
        self.hot
    }

    fn end_slow_starts(&self) {
        self.peers.slow_starts_ended.set(true);
    }

    fn in_flight(&self, member: MemberId) -> u32 {
        self.peer(member, |peer| peer.in_flight)
    }

    fn has_room(&self, member: MemberId, bound: PeerBound) -> bool {
        self.peer(member, |peer| peer.waiting.is_empty())
            && bound.has_room(self.in_flight(member), self.peers.in_flight)
    }

    fn try_admit<'t>(
        &self,
        member: MemberId,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<(), Self::Permit<'t>> {
        self.has_room(member, bound).then_some(()).ok_or(permit)
    }

    fn try_admit_before_queue<'t>(
        &self,
        member: MemberId,
        bound: PeerBound,
        permit: Self::Permit<'t>,
    ) -> Result<(), Self::Permit<'t>> {
        let has_room = bound.has_room(self.in_flight(member), self.peers.in_flight);
        has_room.then_some(()).ok_or(permit)
    }

    fn admit_unbounded(&self, _: MemberId, (): Self::Permit<'_>) {}
}

const fn add_share(sum: WeightedShare, share: WeightedShare) -> WeightedShare {
    WeightedShare {
        weight: sum.weight + share.weight,
        key_space: sum.key_space + share.key_space,
    }
}
