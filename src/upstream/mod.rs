//! An upstream in force: its peers, the ring they are placed on, and who gets a request.
//!
//! ```text
//!   Upstream ── ring        labels and weights only; never changes
//!      │
//!      └────── peers[member] ── Arc<PeerState>   health, drain, ejection, requests in flight
//! ```
//!
//! A peer's state is a cell that the ring looks at while it walks: a flip is one atomic store and
//! needs no rebuild. The state is keyed by the label and survives a new configuration, as far as it
//! is about the same server; the ring and the peers it indexes are made and swapped together.

mod address;
pub mod affinity;
mod bounded_load;
mod drain_status;
pub mod hot_keys;
mod http_peer;
pub mod in_flight;
mod key_space_shares;
mod peer;
mod peer_record;
pub mod persisted_state;
pub mod ring_selection;
mod select;
mod state_transfer;
mod tried;
mod weights;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::config;
use crate::policy::gcra;
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::weighted_round_robin::WeightedRoundRobin;
use crate::predict::KeyPlacement;
use crate::ring::{self, HashedKey, MemberId, Ring};
use crate::telemetry::metrics::{Metrics, PeerMetrics, UpstreamMetrics};
use crate::tls;

pub use self::address::Address;
pub use self::bounded_load::{AdmitOutcome, QueuedRequest};
pub use self::drain_status::{DrainStatus, PeerDrainProgress};
pub use self::peer::{Peer, PeerState, ProbeReport};
pub use self::persisted_state::{PersistedHotKey, PersistedPeer, PersistedState};
pub use self::select::Admission;
pub use self::state_transfer::MAX_EXPORTED_KEYS;
pub use self::tried::{MAX_ATTEMPTS, Tried};

use self::affinity::{AffinityTable, PeerEpochs};
use self::hot_keys::HotKeyTracker;
use self::in_flight::{PeerInFlight, PeerPermit, UpstreamInFlight, UpstreamPermit};
use self::key_space_shares::KeySpaceShares;
use self::peer_record::{ColdStart, PeerPolicy, PeerRecord};
use self::weights::{ServingWeights, WeightCache};

/// A named group of peers, ready to be selected from.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What the operator wrote of it.
    pub config: config::UpstreamConfig,
    /// Where it is counted.
    pub metrics: UpstreamMetrics,
    /// What its connections are encrypted with; `None`: they are not.
    pub tls: Option<Arc<tls::UpstreamTls>>,
    ring: Ring,
    /// In the ring's member order.
    peers: Box<[Peer]>,
    /// The places of the peers by label.
    index_by_label: HashMap<Arc<str>, usize>,
    round_robin: WeightedRoundRobin,
    shared: UpstreamSharedState,
    weights: WeightCache,
    shares: KeySpaceShares,
    /// Where hot keys are to be found.
    hot_keys: Option<Arc<HotKeyTracker>>,
    /// With whom the keys are that were active lately, where drains keep them there.
    affinity: Option<Arc<AffinityTable>>,
}

/// What the peers of an upstream share, in one configuration after the other.
#[derive(Clone, Debug, Default)]
struct UpstreamSharedState {
    /// Its requests in flight.
    in_flight: Arc<UpstreamInFlight>,
    /// How often one of its peers may have left the ring or come back.
    changes: Arc<AtomicU32>,
    /// How many requests without a key there were.
    round_robin_turns: Arc<AtomicUsize>,
    epochs: Arc<PeerEpochs>,
    /// When they were all equally cold.
    cold_start: Arc<ColdStart>,
    /// The [`Debt`](pace::Debt) of the streams that were ended, in nanoseconds.
    ended_streams: Arc<AtomicU64>,
}

impl UpstreamSharedState {
    fn at_start(config: &config::UpstreamConfig, now: Duration) -> Self {
        let shared = Self::default();
        if config.slow_start.is_some_and(|slow| slow.at_start) {
            shared.cold_start.set(now);
        }
        shared
    }
}

/// What a request brings to the choice of its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashTarget {
    /// Its key, in the upstream's ring.
    Key(HashedKey),
    /// It has no key; its turn among the peers is this one.
    RoundRobin(usize),
}

/// A peer and its place in the upstream.
#[derive(Clone, Copy, Debug)]
pub struct PeerChoice<'a> {
    /// The peer's place.
    pub member: MemberId,
    /// The peer.
    pub peer: &'a Peer,
}

/// An operator's order about a peer, on its way to the one that takes the peer's place.
#[derive(Debug)]
pub struct DrainHandover {
    from: Arc<PeerState>,
    to: Arc<PeerState>,
    policy: PeerPolicy,
    draining_since: Option<Duration>,
}

impl DrainHandover {
    fn begin(from: &Peer, to: &Peer, now: Duration) -> Self {
        let taken = from.state.draining_since();
        to.inherit_drain(taken, now);
        Self {
            from: Arc::clone(&from.state),
            to: Arc::clone(&to.state),
            policy: to.policy.clone(),
            draining_since: taken,
        }
    }

    /// Takes over an order that came since; orders about the new peer itself stand.
    pub fn finish(self, now: Duration) {
        let draining = self.from.draining_since();
        if draining != self.draining_since {
            self.to.inherit_drain(draining, now, &self.policy);
        }
    }
}

impl Upstream {
    /// Places the peers on a ring. `addresses` are the peers' looked-up addresses, in order, `tls` what
    /// their connections are encrypted with; of a peer that `previous` had with the same label, what is still true is kept.
    ///
    /// # Errors
    /// What [`Ring::new`] says: more points than a ring can hold.
    pub fn new(
        name: &str,
        config: config::UpstreamConfig,
        (addresses, tls): (&[Address], Option<Arc<tls::UpstreamTls>>),
        previous: Option<&Self>,
        metrics: &Metrics,
        now: Duration,
    ) -> Result<Self, ring::Error> {
        let ring = Ring::new(config.dialect, config.members())?;
        let shared = previous.map_or_else(
            || UpstreamSharedState::at_start(&config, now),
            |previous| previous.shared.clone(),
        );
        let cradle = PeerBuilder {
            name,
            config: &config,
            policy: peer_policy(&config, &shared),
            shared: &shared,
            previous,
            now,
        };
        let counted = KeySpaceShares::for_config(&config, &ring);
        let written = config.peers.iter().enumerate();
        let written =
            written.map(|(place, peer)| (peer, counted.weighted_share(place, peer.weight)));
        let peers: Box<[Peer]> = written
            .zip(addresses)
            .map(|(peer, address)| {
                cradle.build_peer(peer, address, metrics.peer(name, &peer.0.label))
            })
            .collect();
        let places = peers.iter().enumerate();
        Ok(Self {
            name: name.into(),
            metrics: metrics.upstream(name),
            tls,
            ring,
            index_by_label: places
                .map(|(place, peer)| (Arc::clone(&peer.label), place))
                .collect(),
            round_robin: WeightedRoundRobin::new(peers.iter().map(|peer| peer.weight.get())),
            weights: WeightCache::default(),
            hot_keys: hot_key_tracker(&config, previous, now),
            affinity: affinity_table((&config, &peers), previous, now),
            peers,
            shares: counted,
            shared,
            config,
        })
    }

    /// Counts a request in that has no peer yet.
    pub fn begin_request(&self) -> UpstreamPermit<'_> {
        UpstreamPermit::acquire(&self.shared.in_flight)
    }

    /// Takes a request from the peer that failed it, one of this upstream's: it has none again.
    pub fn leave_peer(&self, place: PeerPermit) -> UpstreamPermit<'_> {
        place.into_upstream_permit(&self.shared.in_flight)
    }

    /// Its requests in flight, but for those that peers hold which do not share its load.
    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight.get()
    }

    /// Its hot keys, where they are to be found.
    pub fn hot_keys(&self) -> Option<&HotKeyTracker> {
        self.hot_keys.as_deref()
    }

    /// Whether one more stream may be ended at `now` because its key has moved; counts it.
    pub fn try_end_stream(&self, now: Duration) -> bool {
        let rate = self
            .config
            .close_moved_streams
            .map_or(0, |rules| rules.per_second);
        let take = |debt| {
            let debt = gcra::take_token(Duration::from_nanos(debt), now, rate)?;
            u64::try_from(debt.as_nanos()).ok()
        };
        self.shared
            .ended_streams
            .fetch_update(Relaxed, Relaxed, take)
            .is_ok()
    }

    /// The weight of the peers that take all their keys at `now`.
    pub fn serving_weight(&self, now: Duration) -> u32 {
        self.weights(now).full
    }

    fn weights(&self, now: Duration) -> ServingWeights {
        self.weights.weights(&self.peers, &self.shared.changes, now)
    }

    /// A key, in this upstream's ring.
    pub fn key(&self, key: &[u8]) -> HashedKey {
        self.ring.key(key)
    }

    /// The target of a request that has no key: the next turn.
    pub fn next_round_robin(&self) -> HashTarget {
        HashTarget::RoundRobin(self.shared.round_robin_turns.fetch_add(1, Relaxed))
    }

    /// It is in force in the place of `previous`: who shares the load is now said here, and those that are gone
    /// do not, whatever they still hold.
    pub fn take_over_from(&self, previous: &Self) {
        previous.weights.mark_replaced();
        let held = self
            .peers
            .iter()
            .map(|peer| Arc::as_ptr(peer.state.in_flight_counter()));
        let held: HashSet<_> = held.collect();
        let before = previous
            .peers
            .iter()
            .map(|peer| peer.state.in_flight_counter());
        let gone = before.filter(|before| !held.contains(&Arc::as_ptr(before)));
        gone.for_each(|gone| gone.exclude_from_total());
    }

    /// Takes over the orders about peers that are not the same in `previous`, by label.
    pub fn hand_over_drains(
        &self,
        previous: &Self,
        now: Duration,
    ) -> impl Iterator<Item = DrainHandover> {
        let pairs = self
            .peers
            .iter()
            .filter_map(|after| Some((previous.peer_by_label(&after.label)?, after)));
        pairs
            .filter(|(before, after)| !Arc::ptr_eq(&before.state, &after.state))
            .map(move |(before, after)| DrainHandover::begin(before, after, now))
    }

    /// Every peer, in the order of the configuration.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer with this label.
    pub fn peer_by_label(&self, label: &str) -> Option<&Peer> {
        self.peers.get(*self.index_by_label.get(label)?)
    }

    /// The labels in clockwise order from a key, owner first, whatever their health.
    pub fn walk(&self, key: &HashedKey) -> impl Iterator<Item = &Peer> {
        self.ring.walk(key).filter_map(|member| self.peer(member))
    }

    /// The ring, for reports.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Who has which keys when all peers are up.
    pub fn placement(&self) -> KeyPlacement<'_> {
        KeyPlacement::new(&self.ring, self.peers.iter().map(|peer| &*peer.label))
    }

    /// The peer at a place in the ring's member order.
    pub fn peer(&self, member: MemberId) -> Option<&Peer> {
        self.peers.get(member.index())
    }

    fn is_probed(&self) -> bool {
        self.config.health.is_some()
    }
}

/// What new peers are made of.
struct PeerBuilder<'a> {
    name: &'a str,
    config: &'a config::UpstreamConfig,
    policy: PeerPolicy,
    shared: &'a UpstreamSharedState,
    previous: Option<&'a Upstream>,
    now: Duration,
}

impl PeerBuilder<'_> {
    fn build_peer(
        &self,
        written: (&config::PeerConfig, WeightedShare),
        address: &Address,
        metrics: PeerMetrics,
    ) -> Peer {
        let before = self
            .previous
            .and_then(|upstream| upstream.peer_by_label(&written.0.label));
        let state = self.initial_state(before, address);
        let manners = self.policy.clone();
        Peer::new(self.name, written, address.clone(), state, manners, metrics)
    }

    /// What is known of a peer at first: what its label had before, as far as that is still true.
    /// Another address is another server; what was known while nobody probed is not what probes say,
    /// nor the other way round. An operator's order is about the label.
    fn initial_state(&self, before: Option<&Peer>, address: &Address) -> Arc<PeerState> {
        let probed = self.config.health.is_some();
        match before {
            Some(peer) if peer.address == *address => {
                if self.previous.is_some_and(Upstream::is_probed) == probed {
                    Arc::clone(&peer.state)
                } else {
                    Arc::new(
                        peer.state
                            .with_health_reset(!probed, self.now, &self.policy),
                    )
                }
            }
            Some(peer) => {
                let state = self.new_state();
                state.inherit_drain(peer.state.draining_since(), self.now, &self.policy);
                Arc::new(state)
            }
            None => Arc::new(self.new_state()),
        }
    }

    /// A peer that comes to an upstream which serves already begins slowly. One that is there from the
    /// start is warm, or as cold as all others, as it is asked for.
    fn new_state(&self) -> PeerState {
        let at_start = self.config.slow_start.is_some_and(|slow| slow.at_start);
        let slowly = at_start || self.previous.is_some();
        let up = self.config.health.is_none();
        let ledger = PeerRecord::new(up, slowly, self.now, &self.policy);
        PeerState::new(
            ledger,
            PeerInFlight::new(&self.shared.in_flight),
            &self.shared.changes,
        )
    }
}

fn peer_policy(config: &config::UpstreamConfig, shared: &UpstreamSharedState) -> PeerPolicy {
    PeerPolicy {
        cold_start: Arc::clone(&shared.cold_start),
        epochs: Arc::clone(&shared.epochs),
        slow_start: config.slow_start.map(|slow| slow.duration),
        flap_damping: config.flap_damping,
        drain_deadline: config.drain.map(|drain| drain.deadline),
    }
}

/// The same as before, or one of another size that goes on with what that has.
fn affinity_table(
    (config, peers): (&config::UpstreamConfig, &[Peer]),
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<AffinityTable>> {
    let keys = config.drain?.max_tracked_keys as usize;
    let until = state_transfer::affinity_expiry(config, peers, now);
    let before = previous.and_then(|previous| previous.affinity.as_ref());
    Some(before.map_or_else(
        || Arc::new(AffinityTable::new(keys)),
        |before| AffinityTable::resized_from(before, keys, until),
    ))
}

/// The same as before, or with another share ones that go on with those.
fn hot_key_tracker(
    config: &config::UpstreamConfig,
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<HotKeyTracker>> {
    let threshold = config.hot_keys?.threshold;
    let before = previous.and_then(|previous| previous.hot_keys.as_ref());
    Some(before.map_or_else(
        || Arc::new(HotKeyTracker::new(threshold)),
        |before| HotKeyTracker::carried_over(before, threshold, now),
    ))
}

/// The places of the first `count` members.
fn member_ids(count: usize) -> impl Iterator<Item = MemberId> {
    (0..u32::try_from(count).unwrap_or(u32::MAX)).map(MemberId)
}
