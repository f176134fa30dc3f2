//! One peer: who it is, and the cell that says whether it serves.
//!
//! The cell has two halves. `flags` is what a select looks at: one load, no lock. They are stored after
//! the times that they speak of, so whoever sees them sees those, too. The `ledger` is what probes, failures and operators write to; whoever changes it computes the flags
//! anew under its lock, so that the two cannot drift apart.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, PeerAddress};
use crate::policy::ejection::EjectionPolicy;
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::policy::hot_key_spread::WeightedShare;
use crate::policy::slow_start::Salt;
use crate::ring::Weight;
use crate::telemetry::metrics::PeerMetrics;

use super::address::Address;
use super::in_flight::PeerInFlight;
use super::peer_record::{PeerPolicy, PeerRecord, ProbeReport};
use super::peer_state::PeerState;
use super::persisted_state::PersistedPeer;

/// One server of an upstream, in one configuration.
#[derive(Debug)]
pub struct Peer {
    /// The name of its upstream.
    pub(super) upstream: Arc<str>,
    /// What places it on the ring.
    pub label: Arc<str>,
    /// Where it is connected to.
    pub address: Address,
    /// What `host_header: peer` sends: the address as the operator wrote it; of a Unix socket, what
    /// nginx makes of it.
    pub host: Arc<str>,
    /// The name that it is asked for in TLS, and must prove; `None`: the client's, or no TLS.
    pub server_name: Option<Arc<str>>,
    /// Its share of the key space, relative to the others.
    pub weight: Weight,
    /// What the ring gives it of that, for the spread of hot keys; as much as its weight where that is not known.
    pub weighted_share: WeightedShare,
    /// What is known of it; outlives this configuration.
    pub state: Arc<PeerState>,
    /// The requests that it holds, which the state has, too: here both can be on their way from memory at once.
    pub(super) in_flight: Arc<PeerInFlight>,
    /// Where it is counted.
    pub metrics: PeerMetrics,
    /// What tells its order of keys from every other's.
    pub salt: Salt,
    /// How it leaves the ring and comes back.
    pub(super) policy: PeerPolicy,
}

impl Peer {
    pub(super) fn new(
        upstream: &str,
        (peer, part): (&config::PeerConfig, WeightedShare),
        address: Address,
        state: Arc<PeerState>,
        manners: PeerPolicy,
        metrics: PeerMetrics,
    ) -> Self {
        Self {
            host: host_header(&peer.address),
            server_name: peer.server_name.as_deref().map(Arc::from),
            upstream: upstream.into(),
            label: peer.label.as_str().into(),
            address,
            weight: peer.weight,
            weighted_share: part,
            in_flight: Arc::clone(state.in_flight_counter()),
            state,
            metrics,
            salt: Salt::of(&peer.label),
            policy: manners,
        }
    }

    /// Takes a probe's word; the new health, where it flipped.
    pub fn on_probe(
        &self,
        report: ProbeReport,
        thresholds: HealthThresholds,
    ) -> Option<HealthStatus> {
        let now = report.ended;
        self.update(now, |ledger| ledger.on_probe(report, thresholds))
    }

    /// A connect on real traffic failed; how long the peer is now ejected for, if that ejects it.
    pub fn on_connect_failure(&self, rules: &EjectionPolicy, now: Duration) -> Option<Duration> {
        let until = self.update(now, |ledger| ledger.on_connect_failure(rules, now))?;
        Some(until.saturating_sub(now))
    }

    /// A connect on real traffic succeeded.
    pub fn on_connect_success(&self, now: Duration) {
        if self.state.is_suspect() {
            self.update(now, |ledger| ledger.end_ejection(now));
        }
    }

    /// Begins a slow start: the peer is new, though the process that knew the others is not.
    pub(super) fn begin_slow_start(&self, now: Duration) {
        let manners = &self.policy;
        self.state
            .update(|ledger| ledger.begin_slow_start(now, manners));
    }

    /// Takes over an operator's order about the one before it.
    pub(super) fn inherit_drain(&self, draining: Option<Duration>, now: Duration) {
        self.update(now, |ledger| ledger.draining_since = draining);
    }

    /// Takes the peer out for an operator, or back in; whether that changed anything.
    pub fn set_draining(&self, draining: bool, now: Duration) -> bool {
        self.update(now, |ledger| {
            let changes = ledger.draining_since.is_some() != draining;
            if changes {
                ledger.draining_since = draining.then_some(now);
            }
            changes
        })
    }

    /// Ends its suppression, where it comes and goes and is off the ring for that; its slow start begins.
    pub fn lift_suppression(&self, now: Duration) {
        let manners = &self.policy;
        if self.update(now, |ledger| ledger.lift_suppression(now, manners)) {
            let (upstream, label) = (&self.upstream, &self.label);
            log::info!("upstream {upstream}: peer {label} is not suppressed any more");
        }
    }

    /// Takes over what another process has learned of it since it told of it first.
    pub(super) fn apply_delta(
        &self,
        (before, memory): (Option<&PersistedPeer>, &PersistedPeer),
        probed: bool,
        now: Duration,
    ) {
        let manners = &self.policy;
        let news = (before, memory);
        self.state
            .update(|ledger| ledger.apply_delta(news, probed, now, manners));
    }

    /// Makes its slow start what this configuration wants of it.
    pub(super) fn reconcile_slow_start(&self, now: Duration) {
        let manners = &self.policy;
        self.state
            .update(|ledger| ledger.reconcile_slow_start(now, manners));
    }

    fn update<R>(&self, now: Duration, change: impl FnOnce(&mut PeerRecord) -> R) -> R {
        let (result, until) = self.state.update(|ledger| {
            let before = ledger.flap_penalty.suppressed_until(now);
            let result = ledger.update(now, &self.policy, change);
            let until = ledger.flap_penalty.suppressed_until(now);
            (result, until.filter(|_| before != until))
        });
        if let Some(until) = until {
            self.metrics.suppressions.inc();
            let (upstream, label) = (&self.upstream, &self.label);
            let length = until.saturating_sub(now);
            log::warn!(
                "upstream {upstream}: peer {label} comes and goes: it stays off the ring for {length:.1?}"
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
