//! Active health checks: one task per peer probes it at the configured interval and records the result in
//! its state.
//!
//! The checks implement Pingora's [`HealthCheck`](pingora::lb::health_check::HealthCheck). Pingora 0.9.1's
//! own checks are not used: each has a connector of its own (which loads the system's certificates), a
//! connect timeout of one second, and one `Host` for all peers. Nor is its loop: that waits for the slowest
//! peer of a pass, and takes a peer for healthy before the first probe.

mod check;
mod grpc_health;
mod task;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::policy::health::HealthStatus;
use crate::snapshot::Snapshot;
use crate::upstream::{Peer, Upstream};

use self::check::MAX_CONCURRENT;
pub(crate) use self::check::ProbeConnectors;
use self::task::ProbeTask;

/// The running probes of the snapshot in force; dropped, they end.
#[derive(Debug, Default)]
pub(crate) struct Probes(HashMap<PeerName, RunningTask>);

/// An upstream's name and a label of its peers.
type PeerName = (Arc<str>, Arc<str>);

/// The probes of a snapshot that is not in force yet.
#[derive(Debug)]
pub(crate) struct PreparedProbes {
    tasks: HashMap<PeerName, RunningTask>,
    /// The peers with running probes that need no others.
    kept: HashSet<PeerName>,
    /// The first probes of the peers that are probed at once.
    pub(crate) first_pass: FirstPass,
    deferred_started: watch::Sender<bool>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct RunningTask(JoinHandle<()>);

impl Drop for RunningTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The first probes of peers with unknown health.
#[derive(Debug)]
pub(crate) struct FirstPass {
    peers: usize,
    /// The longest timeout of a probe.
    timeout: Duration,
    /// Closed once each of them was probed once.
    done: mpsc::Receiver<()>,
}

impl Probes {
    /// Starts probes of all peers in upstreams with `health`. Must be called inside a Tokio runtime.
    pub(crate) fn start(snapshot: &Snapshot, connectors: &ProbeConnectors) -> (Self, FirstPass) {
        let mut probes = Self::default();
        let prepared = probes.prepare_where(None, snapshot, connectors, |_| true);
        let first_pass = probes.adopt(prepared);
        (probes, first_pass)
    }

    /// Starts the probes that `after` needs besides those that run for `before`, the snapshot in force: at once those of peers
    /// with unknown health, the others when they are [adopted](Self::adopt). A peer that has not changed keeps its probes, so
    /// that lists of peers that change often neither delay a probe nor add one.
    pub(crate) fn prepare(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        connectors: &ProbeConnectors,
    ) -> PreparedProbes {
        self.prepare_where(Some(before), after, connectors, |peer| {
            peer.state.health() == HealthStatus::Unknown
        })
    }

    /// Replaces the probes by those of a snapshot that is in force now.
    pub(crate) fn adopt(&mut self, prepared: PreparedProbes) -> FirstPass {
        self.0.retain(|name, _| prepared.kept.contains(name));
        self.0.extend(prepared.tasks);
        prepared.deferred_started.send_replace(true);
        prepared.first_pass
    }

    fn prepare_where(
        &self,
        before: Option<&Snapshot>,
        after: &Snapshot,
        connectors: &ProbeConnectors,
        at_once: impl Fn(&Peer) -> bool,
    ) -> PreparedProbes {
        let (token, done) = mpsc::channel(1);
        let mut prepared = PreparedProbes {
            tasks: HashMap::new(),
            kept: HashSet::new(),
            first_pass: FirstPass {
                peers: 0,
                timeout: Duration::ZERO,
                done,
            },
            deferred_started: watch::Sender::new(false),
        };
        for (name, upstream) in &after.upstreams {
            let Some(health) = &upstream.config.health else {
                continue;
            };
            let before = before.and_then(|before| before.upstreams.get(name));
            let before = before.filter(|before| before.probes_alike(upstream));
            for peer in upstream.peers().iter().filter(|peer| !peer.is_unresolved()) {
                let peer_name = (Arc::clone(&upstream.name), Arc::clone(&peer.label));
                let is_at_once = at_once(peer);
                let keeps = |before: &Arc<Upstream>| {
                    let before = before.peer_by_label(&peer.label);
                    before.is_some_and(|before| before.is_probed_as(peer))
                };
                if !is_at_once && self.0.contains_key(&peer_name) && before.is_some_and(keeps) {
                    prepared.kept.insert(peer_name);
                } else if let Some(task) = ProbeTask::new(upstream, peer, health, connectors) {
                    let token = is_at_once.then(|| token.clone());
                    if is_at_once {
                        prepared.first_pass.add(health.timeout);
                    }
                    let task = prepared.spawn(task, token);
                    prepared.tasks.insert(peer_name, task);
                }
            }
        }
        prepared
    }
}

impl PreparedProbes {
    fn spawn(&self, task: ProbeTask, token: Option<mpsc::Sender<()>>) -> RunningTask {
        let mut started = self.deferred_started.subscribe();
        RunningTask(tokio::spawn(async move {
            // An error means that the probes were dropped.
            if token.is_some() || started.wait_for(|&started| started).await.is_ok() {
                task.run(token).await;
            }
        }))
    }
}

impl FirstPass {
    fn add(&mut self, timeout: Duration) {
        self.peers += 1;
        self.timeout = self.timeout.max(timeout);
    }

    /// The longest time that it takes: [`MAX_CONCURRENT`] peers are probed at a time.
    pub(crate) fn limit(&self) -> Duration {
        let rounds = u32::try_from(self.peers.div_ceil(MAX_CONCURRENT)).unwrap_or(u32::MAX);
        self.timeout.saturating_mul(rounds)
    }

    /// Waits until each peer was probed once, at most until `deadline` has elapsed; whether all were.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.done.recv())
            .await
            .is_ok()
    }
}
