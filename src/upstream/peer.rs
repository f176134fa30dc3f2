//! One peer of an upstream, as configured, and the operations that change its state.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, PeerAddress};
use crate::policy::ejection::{EjectionPolicy, FailureKind};
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::slow_start::Salt;
use crate::ring::Weight;
use crate::telemetry::metrics::PeerMetrics;

use super::address::Address;
use super::in_flight::PeerInFlight;
use super::peer_record::{EjectionOutcome, FailureEffect, PeerPolicy, PeerRecord, ProbeReport};
use super::peer_state::PeerState;
use super::persisted_state::PersistedPeer;

/// One server of an upstream, in one configuration.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its upstream's name.
    pub(super) upstream: Arc<str>,
    /// Its label: determines its points on the ring.
    pub label: Arc<str>,
    /// Its resolved address. Without one ([`Address::Unresolved`]) it keeps its points on the ring and gets no request:
    /// its keys go on to the next peer of their walk, as those of a peer that is down.
    pub address: Address,
    /// The value of `host_header: peer`: the address as configured; for a Unix socket `localhost`, as nginx
    /// sends.
    pub host: Arc<str>,
    /// The server name for TLS (SNI), which its certificate must have; `None`: the client's, or no TLS.
    pub server_name: Option<Arc<str>>,
    /// Its share of the key space, relative to the others.
    pub weight: Weight,
    /// Its weight and its share of the ring, for the spread of hot keys; the weight replaces a share that
    /// was not computed.
    pub weighted_share: WeightedShare,
    /// Its state, which outlives this configuration.
    pub state: Arc<PeerState>,
    /// The counter that `state` holds too. Here as well, so that an admission loads it from memory while it
    /// still waits for the state.
    pub(super) in_flight: Arc<PeerInFlight>,
    /// Its metrics.
    pub metrics: PeerMetrics,
    /// With it, each peer admits keys in another order during slow start.
    pub salt: Salt,
    /// When it leaves the ring, and how it comes back.
    pub(super) policy: PeerPolicy,
}

impl Peer {
    pub(super) fn new(
        upstream: &str,
        (peer, weighted_share): (&config::PeerConfig, WeightedShare),
        address: Address,
        state: Arc<PeerState>,
        policy: PeerPolicy,
        metrics: PeerMetrics,
    ) -> Self {
        Self {
            host: host_header(&peer.address),
            server_name: peer.server_name.as_deref().map(Arc::from),
            upstream: upstream.into(),
            label: peer.label.as_str().into(),
            address,
            weight: peer.weight,
            weighted_share,
            in_flight: Arc::clone(state.in_flight_counter()),
            state,
            metrics,
            salt: Salt::of(&peer.label),
            policy,
        }
    }

    /// The name of its upstream.
    pub fn upstream_name(&self) -> &str {
        &self.upstream
    }

    /// Whether the probes of one of two peers are those of the other, if their upstreams are
    /// [alike](super::Upstream::probes_alike).
    pub fn is_probed_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
            && (&self.address, &self.host, &self.server_name)
                == (&other.address, &other.host, &other.server_name)
    }

    /// Whether its name has not been resolved yet.
    pub fn is_unresolved(&self) -> bool {
        self.address == Address::Unresolved
    }

    /// Records the result of a probe; the new health, if it changed.
    pub fn on_probe(
        &self,
        report: ProbeReport,
        thresholds: HealthThresholds,
    ) -> Option<HealthStatus> {
        let now = report.ended;
        self.update(now, |record| record.on_probe(report, thresholds))
    }

    /// Records a failure of real traffic; enough failed connects in a row eject the peer.
    pub(super) fn on_failure(
        &self,
        kind: FailureKind,
        policy: &EjectionPolicy,
        now: Duration,
    ) -> FailureEffect {
        self.update(now, |record| record.on_failure(kind, policy, now))
    }

    /// As [`PeerRecord::eject_if_due`].
    pub(super) fn eject_if_due(
        &self,
        is_allowed: bool,
        policy: &EjectionPolicy,
        now: Duration,
    ) -> Option<EjectionOutcome> {
        self.update(now, |record| record.eject_if_due(is_allowed, policy, now))
    }

    /// Records a success of real traffic at `now`; its attempt began at `began`.
    pub fn on_success(&self, began: Duration, now: Duration) {
        // The flag spares nearly every request the lock.
        if self.state.is_suspect() {
            self.update(now, |record| record.on_success(began, now));
        }
    }

    /// Begins a slow start: the peer is new to the process that handed its state over.
    pub(super) fn begin_slow_start(&self, now: Duration) {
        self.state
            .update(|record| record.begin_slow_start(now, &self.policy));
    }

    /// Takes over the operator's drain of its predecessor.
    pub(super) fn inherit_drain(&self, draining_since: Option<Duration>, now: Duration) {
        self.update(now, |record| record.draining_since = draining_since);
    }

    /// Drains the peer for an operator, or puts it back in service; false: nothing changed.
    pub fn set_draining(&self, draining: bool, now: Duration) -> bool {
        self.update(now, |record| {
            let is_change = record.draining_since.is_some() != draining;
            if is_change {
                record.draining_since = draining.then_some(now);
            }
            is_change
        })
    }

    /// Drains the peer while it is leaving: its source no longer has it, or an operator has removed it.
    pub(super) fn set_leaving(&self, is_leaving: bool, now: Duration) {
        if self.state.is_leaving() == is_leaving {
            return;
        }
        if self.update(now, |record| record.set_leaving(is_leaving, now)) && is_leaving {
            let (upstream, label) = (&self.upstream, &self.label);
            log::info!("upstream {upstream}: peer {label} has left; it drains");
        }
    }

    /// Ends its suppression by flap damping, if any; its slow start begins.
    pub fn lift_suppression(&self, now: Duration) {
        if self.update(now, |record| record.lift_suppression(now, &self.policy)) {
            let (upstream, label) = (&self.upstream, &self.label);
            log::info!("upstream {upstream}: peer {label}: flap suppression lifted");
        }
    }

    /// Takes over what changed in another process between its first and its second export.
    pub(super) fn apply_delta(
        &self,
        exports: (Option<&PersistedPeer>, &PersistedPeer),
        probed: bool,
        now: Duration,
    ) {
        self.state
            .update(|record| record.apply_delta(exports, probed, now, &self.policy));
    }

    /// Adjusts its slow start to this configuration.
    pub(super) fn reconcile_slow_start(&self, now: Duration) {
        self.state
            .update(|record| record.reconcile_slow_start(now, &self.policy));
    }

    /// Changes the record; logs and counts a suppression that begins or is extended by that.
    fn update<R>(&self, now: Duration, change: impl FnOnce(&mut PeerRecord) -> R) -> R {
        let (result, suppressed_until) = self.state.update(|record| {
            let before = record.flap_penalty.suppressed_until(now);
            let result = record.update(now, &self.policy, change);
            let until = record.flap_penalty.suppressed_until(now);
            (result, until.filter(|_| before != until))
        });
        if let Some(until) = suppressed_until {
            self.metrics.suppressions.inc();
            let (upstream, label) = (&self.upstream, &self.label);
            let length = until.saturating_sub(now);
            log::warn!(
                "upstream {upstream}: peer {label} is flapping; suppressed for {length:.1?}"
            );
        }
        result
    }
}

fn host_header(address: &PeerAddress) -> Arc<str> {
    match address {
        PeerAddress::Unix(_) => "localhost".into(),
        PeerAddress::Ip(_) | PeerAddress::Name(..) => address.to_string().into(),
    }
}
