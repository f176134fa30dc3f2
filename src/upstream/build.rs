//! Builds an upstream from its configuration and from the state of the upstream that it replaces.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::weighted_round_robin::WeightedRoundRobin;
use crate::ring::{self, Ring};
use crate::telemetry::metrics::{Metrics, PeerMetrics};
use crate::tls;

use super::address::Address;
use super::affinity::AffinityTable;
use super::hot_keys::HotKeyTracker;
use super::in_flight::PeerInFlight;
use super::key_space_shares::KeySpaceShares;
use super::peer::Peer;
use super::peer_record::{PeerPolicy, PeerRecord};
use super::peer_state::PeerState;
use super::state_transfer::affinity_expiry;
use super::weights::WeightCache;
use super::{Upstream, UpstreamSharedState};

impl Upstream {
    /// Places the configured peers on a ring. `addresses` has theirs, in the order of the configuration; `tls` is
    /// for the connections to them. A peer with the label and the address of a peer of `previous` keeps its state;
    /// with only the label, an operator's drain.
    ///
    /// # Errors
    /// [`Ring::new`] fails, for example because the ring would have too many points.
    pub fn new(
        name: &str,
        config: config::UpstreamConfig,
        (addresses, tls): (&[Address], Option<Arc<tls::UpstreamTls>>),
        previous: Option<&Self>,
        metrics: &Metrics,
        now: Duration,
    ) -> Result<Self, ring::Error> {
        let ring = match previous {
            Some(previous) => {
                let before = (&previous.ring, previous.config.members());
                Ring::rebuilt(before, config.dialect, config.members())?
            }
            None => Ring::new(config.dialect, config.members())?,
        };
        let shared = previous.map_or_else(
            || UpstreamSharedState::at_start(&config, now),
            |previous| previous.shared.clone(),
        );
        let builder = PeerBuilder {
            name,
            config: &config,
            policy: peer_policy(&config, &shared),
            shared: &shared,
            previous,
            now,
        };
        let key_space = KeySpaceShares::for_config(&config, &ring);
        let configured = config.peers.iter().enumerate();
        let configured =
            configured.map(|(index, peer)| (peer, key_space.weighted_share(index, peer.weight)));
        let peers: Box<[Peer]> = configured
            .zip(addresses)
            .map(|(peer, address)| {
                builder.build_peer(peer, address, metrics.peer(name, &peer.0.label))
            })
            .collect();
        let indices = peers.iter().enumerate();
        Ok(Self {
            name: name.into(),
            metrics: metrics.upstream(name),
            tls,
            ring,
            index_by_label: indices
                .map(|(index, peer)| (Arc::clone(&peer.label), index))
                .collect(),
            round_robin: WeightedRoundRobin::new(peers.iter().map(|peer| peer.weight.get())),
            weights: WeightCache::default(),
            hot_keys: hot_key_tracker(&config, previous, now),
            affinity: affinity_table((&config, &peers), previous, now),
            peers,
            shares: key_space,
            shared,
            config,
        })
    }
}

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
        configured: (&config::PeerConfig, WeightedShare),
        address: &Address,
        metrics: PeerMetrics,
    ) -> Peer {
        let previous = self
            .previous
            .and_then(|upstream| upstream.peer_by_label(&configured.0.label));
        let state = self.initial_state(previous, address);
        let policy = self.policy.clone();
        Peer::new(
            self.name,
            configured,
            address.clone(),
            state,
            policy,
            metrics,
        )
    }

    /// The state that a peer begins with; `previous` is the peer that had its label. At the same address the state
    /// is kept, but the health is reset if probes were switched on or off. Another address is another server: only
    /// an operator's drain is kept, because it is for the label.
    fn initial_state(&self, previous: Option<&Peer>, address: &Address) -> Arc<PeerState> {
        let probed = self.config.health.is_some();
        match previous {
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
                let state = self.new_state(address);
                state.inherit_drain(peer.state.draining_since(), self.now, &self.policy);
                Arc::new(state)
            }
            None => Arc::new(self.new_state(address)),
        }
    }

    /// The state of a new peer. If the upstream is new as well, as at process start, the peer has a slow start only
    /// with `slow_start.at_start`.
    fn new_state(&self, address: &Address) -> PeerState {
        let at_start = self
            .config
            .slow_start
            .is_some_and(|slow_start| slow_start.at_start);
        let starts_slowly = at_start || self.previous.is_some();
        let up = self.config.health.is_none();
        let record = match address {
            Address::Unresolved => PeerRecord::unresolved(self.now, &self.policy),
            Address::Ip(_) | Address::Unix(_) => {
                PeerRecord::new(up, starts_slowly, self.now, &self.policy)
            }
        };
        PeerState::new(
            record,
            PeerInFlight::new(&self.shared.in_flight),
            &self.shared.changes,
        )
    }
}

fn peer_policy(config: &config::UpstreamConfig, shared: &UpstreamSharedState) -> PeerPolicy {
    PeerPolicy {
        cold_start: Arc::clone(&shared.cold_start),
        epochs: Arc::clone(&shared.epochs),
        slow_start: config.slow_start.map(|slow_start| slow_start.duration),
        flap_damping: config.flap_damping,
        drain_deadline: config.drain.map(|drain| drain.deadline),
    }
}

/// The table of `previous` if the size is the same, otherwise a new one that continues with its keys.
fn affinity_table(
    (config, peers): (&config::UpstreamConfig, &[Peer]),
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<AffinityTable>> {
    let keys = config.drain?.max_tracked_keys as usize;
    let expires_at = affinity_expiry(config, peers, now);
    let previous = previous.and_then(|previous| previous.affinity.as_ref());
    Some(previous.map_or_else(
        || Arc::new(AffinityTable::new(keys)),
        |previous| AffinityTable::resized_from(previous, keys, expires_at),
    ))
}

/// The tracker of `previous` if the threshold is the same, otherwise a new one that continues with its hot keys.
fn hot_key_tracker(
    config: &config::UpstreamConfig,
    previous: Option<&Upstream>,
    now: Duration,
) -> Option<Arc<HotKeyTracker>> {
    let threshold = config.hot_keys?.threshold;
    let previous = previous.and_then(|previous| previous.hot_keys.as_ref());
    Some(previous.map_or_else(
        || Arc::new(HotKeyTracker::new(threshold)),
        |previous| HotKeyTracker::carried_over(previous, threshold, now),
    ))
}
