//! An upstream of the configuration in force: its peers, their ring, and the selection of a peer for a request.
//!
//! ```text
//!   Upstream ─┬─ ring           labels and weights only; immutable
//!             ├─ peers[member] ── Arc<PeerState>   health, drain, ejection, slow start, requests in flight
//!             └─ shared         counters that outlive the configuration
//! ```
//!
//! A walk reads the state of each peer, so a peer goes up or down with one atomic store, and without a new
//! ring. A reload builds a new ring and new peers, and swaps them together; a peer with
//! the same label and address keeps its state.

// selection, in the order of a request
mod select;

mod admission;
mod load_view;

pub(crate) mod hot_keys;
pub(crate) mod in_flight;

// one peer
mod address;
mod ejection;
mod http_peer;
mod peer;
mod peer_epoch;
mod peer_record;
mod peer_state;
mod tried;

// all peers of an upstream
mod affinity;
mod drain_status;
mod key_space_shares;
mod peer_drain;
mod weights;

// reload and hot restart
mod build;
mod drain_handover;
mod persisted_state;
mod state_transfer;

// for other programs on Pingora
pub(crate) mod ring_selection;

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config;
use crate::policy::gcra;
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::weighted_round_robin::WeightedRoundRobin;
use crate::predict::KeyPlacement;
use crate::ring::{HashedKey, MemberId, Ring};
use crate::telemetry::metrics::UpstreamMetrics;
use crate::tls;

pub(crate) use self::address::Address;
pub(crate) use self::admission::{Admission, AdmitOutcome, QueuedRequest};
pub(crate) use self::drain_handover::DrainHandover;
pub(crate) use self::drain_status::DrainStatus;
pub(crate) use self::peer::Peer;
pub(crate) use self::peer_drain::LastPeer;
pub(crate) use self::peer_epoch::PeerEpoch;
pub(crate) use self::peer_record::EjectionOutcome;
pub(crate) use self::peer_record::ProbeReport;
pub(crate) use self::persisted_state::{
    PersistedChangeKind, PersistedFoundPeer, PersistedLeavingPeer, PersistedPeerChange,
    PersistedState,
};
pub(crate) use self::state_transfer::MAX_EXPORTED_KEYS;
pub(crate) use self::tried::MAX_ATTEMPTS;
pub use self::tried::Tried;

use self::affinity::AffinityTable;
use self::hot_keys::HotKeyTracker;
use self::in_flight::{PeerPermit, UpstreamInFlight, UpstreamPermit};
use self::key_space_shares::KeySpaceShares;
use self::peer_epoch::PeerEpochs;
use self::peer_record::ColdStart;
use self::weights::{ServingWeights, WeightCache};

/// A named group of peers and its policy.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its section of the configuration.
    pub config: config::UpstreamConfig,
    /// Its metrics.
    pub metrics: UpstreamMetrics,
    /// The TLS settings of connections to its peers; `None`: without TLS.
    pub tls: Option<Arc<tls::UpstreamTls>>,
    ring: Ring,
    /// In the ring's member order.
    peers: Box<[Peer]>,
    index_by_label: HashMap<Arc<str>, usize>,
    round_robin: WeightedRoundRobin,
    shared: UpstreamSharedState,
    weights: WeightCache,
    shares: KeySpaceShares,
    /// Present if `hot_keys` is configured.
    hot_keys: Option<Arc<HotKeyTracker>>,
    /// The peers of recently active keys; present if `drain` is configured.
    affinity: Option<Arc<AffinityTable>>,
}

/// State of an upstream that outlives a reload.
#[derive(Clone, Debug, Default)]
struct UpstreamSharedState {
    in_flight: Arc<UpstreamInFlight>,
    /// Incremented when a peer may have left the ring or come back.
    changes: Arc<AtomicU32>,
    /// The number of requests without a key so far.
    round_robin_turns: Arc<AtomicUsize>,
    epochs: Arc<PeerEpochs>,
    cold_start: Arc<ColdStart>,
    /// The [`TheoreticalArrivalTime`](gcra::TheoreticalArrivalTime) of `close_moved_streams`, in nanoseconds.
    ended_streams: Arc<AtomicU64>,
    /// Serializes drains by operators and ejections for failed responses: two at once could each count the other's
    /// peer as available, and remove the last one.
    removal_lock: Arc<Mutex<()>>,
}

impl UpstreamSharedState {
    fn at_start(config: &config::UpstreamConfig, now: Duration) -> Self {
        let shared = Self::default();
        if config
            .slow_start
            .is_some_and(|slow_start| slow_start.at_start)
        {
            shared.cold_start.set(now);
        }
        shared
    }
}

/// The input that selects the peer of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashTarget {
    /// The request's key, hashed for the upstream's ring.
    Key(HashedKey),
    /// The round-robin turn of a request without a key.
    RoundRobin(usize),
}

/// A peer and its index in the ring's member order.
#[derive(Clone, Copy, Debug)]
pub struct PeerChoice<'a> {
    /// The index.
    pub member: MemberId,
    /// The peer.
    pub peer: &'a Peer,
}

impl Upstream {
    /// Counts a request in flight that has no peer yet.
    pub fn begin_request(&self) -> UpstreamPermit<'_> {
        UpstreamPermit::acquire(&self.shared.in_flight)
    }

    /// Releases a request from the peer of a failed attempt; it stays in flight. `permit` must be of this upstream.
    pub fn leave_peer(&self, permit: PeerPermit) -> UpstreamPermit<'_> {
        permit.into_upstream_permit(&self.shared.in_flight)
    }

    /// The requests in flight, without those at peers that are not available (draining, down, ejected, removed).
    pub fn in_flight(&self) -> u32 {
        self.shared.in_flight.get()
    }

    /// The hot keys; `None`: not configured.
    pub fn hot_keys(&self) -> Option<&HotKeyTracker> {
        self.hot_keys.as_deref()
    }

    /// Whether one more stream may be closed at `now` because its key has moved; if so, counts it
    /// (`close_moved_streams.per_second`).
    pub fn try_end_stream(&self, now: Duration) -> bool {
        let rate = self
            .config
            .close_moved_streams
            .map_or(0, |moved| moved.per_second);
        let Some(interval) = Duration::from_secs(1).checked_div(rate) else {
            return false;
        };
        // At most the streams of 50 ms at once: they are closed over the whole second, not all at its start.
        let burst = rate / 20;
        let take_token = |nanos| {
            let next = gcra::take_token(Duration::from_nanos(nanos), now, interval, burst)?;
            u64::try_from(next.as_nanos()).ok()
        };
        self.shared
            .ended_streams
            .fetch_update(Relaxed, Relaxed, take_token)
            .is_ok()
    }

    /// The total weight of the peers that take all their keys at `now`.
    pub fn serving_weight(&self, now: Duration) -> u32 {
        self.weights(now).full
    }

    fn weights(&self, now: Duration) -> ServingWeights {
        self.weights.weights(&self.peers, &self.shared.changes, now)
    }

    /// The weight of the peers that take all their keys at `now`, and the key space that they own when all peers
    /// are up. The keys of the other peers are assumed to spread over them in proportion: exact shares would cost
    /// a pass over the ring at each change.
    fn serving_share(&self, now: Duration) -> WeightedShare {
        self.weights
            .serving_share(&self.peers, &self.shared.changes, now)
    }

    /// How many of the 2^32 hashes each peer owns when all are up, in the order of [`Self::peers`].
    pub fn key_space_shares(&self) -> &[u64] {
        self.shares.all(&self.ring)
    }

    /// How many of the 2^32 hashes are assigned to each peer at `now`, in the order of [`Self::peers`]. If no
    /// peer is available, the last resorts (up but ejected, or of unknown health) have them; if there are none, all are 0.
    pub fn current_key_space_shares(&self, now: Duration) -> Vec<u64> {
        self.shares.current(&self.ring, &self.peers, now)
    }

    /// How many of the 2^32 hashes are assigned to a peer of this upstream at `now`.
    pub fn current_key_space_share(&self, peer: &Peer, now: Duration) -> u64 {
        let shares = self.current_key_space_shares(now);
        let index = self.peer_index(&peer.label);
        index
            .and_then(|index| shares.get(index).copied())
            .unwrap_or_default()
    }

    /// Hashes a key for this upstream's ring.
    pub fn key(&self, key: &[u8]) -> HashedKey {
        self.ring.key(key)
    }

    /// The target of a request without a key: the next round-robin turn.
    pub fn next_round_robin(&self) -> HashTarget {
        HashTarget::RoundRobin(self.shared.round_robin_turns.fetch_add(1, Relaxed))
    }

    /// Puts this upstream in force instead of `previous`: the total in flight then leaves out the requests at
    /// peers that only `previous` has.
    pub fn take_over_from(&self, previous: &Self) {
        if std::ptr::eq(self, previous) {
            return;
        }
        previous.weights.mark_replaced();
        let counter = |peer: &Peer| Arc::as_ptr(peer.state.in_flight_counter());
        let remaining: HashSet<_> = self.peers.iter().map(counter).collect();
        for peer in &previous.peers {
            if !remaining.contains(&counter(peer)) {
                peer.state.in_flight_counter().exclude_from_total();
            }
        }
    }

    /// Whether an upstream that is built of these would be equal.
    pub fn is_equal(
        &self,
        config: &config::UpstreamConfig,
        addresses: &[Address],
        tls: Option<&Arc<tls::UpstreamTls>>,
    ) -> bool {
        let pool = |tls: Option<&Arc<tls::UpstreamTls>>| tls.map(|tls| tls.pool_id);
        pool(self.tls.as_ref()) == pool(tls)
            && self.peers.iter().map(|peer| &peer.address).eq(addresses)
            && self.config == *config
    }

    /// The peers in the order of the configuration.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The peer with this label.
    pub fn peer_by_label(&self, label: &str) -> Option<&Peer> {
        self.peers.get(self.peer_index(label)?)
    }

    /// The index in [`Self::peers`] of the peer with this label.
    pub fn peer_index(&self, label: &str) -> Option<usize> {
        self.index_by_label.get(label).copied()
    }

    /// The ring, for reports.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The owner of every key when all peers are up.
    pub fn placement(&self) -> KeyPlacement<'_> {
        KeyPlacement::new(&self.ring, self.peers.iter().map(|peer| &*peer.label))
    }

    /// The peer at an index of the ring's member order.
    pub fn peer(&self, member: MemberId) -> Option<&Peer> {
        self.peers.get(member.index())
    }

    fn is_probed(&self) -> bool {
        self.config.health.is_some()
    }
}
