//! Active health checks: one task per peer probes it at the configured interval and records the result in
//! its state.
//!
//! The checks implement Pingora's [`HealthCheck`](pingora::lb::health_check::HealthCheck). Pingora 0.9.1's
//! own checks are not used: each has a connector of its own (which loads the system's certificates), a
//! connect timeout of one second, and one `Host` for all peers. Nor is its loop: that waits for the slowest
//! peer of a pass, and takes a peer for healthy before the first probe.

mod check;
mod grpc_health;

use std::sync::Arc;
use std::time::Duration;

use pingora::lb::Backend;
use pingora::{Error, ErrorType};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::HealthConfig;
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::snapshot::Snapshot;
use crate::tls::{classify_error, describe_failure};
use crate::upstream::{Peer, ProbeReport, Upstream};

pub(crate) use self::check::ProbeConnectors;
use self::check::{MAX_CONCURRENT, ProbeCheck};

/// The jitter of an interval, as a share of it in either direction, so that probes do not run in step.
const JITTER: f64 = 0.1;

/// The running probes of one snapshot; dropped, they end.
#[derive(Debug)]
pub(crate) struct Probes {
    tasks: Vec<JoinHandle<()>>,
    /// The number of peers probed before [`Self::start_deferred`].
    first_pass_peers: usize,
    /// Closed once each of them was probed once.
    first_pass: mpsc::Receiver<()>,
    deferred_started: watch::Sender<bool>,
}

impl Probes {
    /// Starts probes of all peers in upstreams with `health`. Must be called inside a Tokio runtime.
    pub(crate) fn start(snapshot: &Snapshot, connectors: &ProbeConnectors) -> Self {
        Self::start_where(snapshot, connectors, |_| true)
    }

    /// Starts only probes of peers with unknown health. The others are left to the probes of the previous
    /// snapshot, until [`Self::start_deferred`].
    pub(crate) fn start_with_unknown(snapshot: &Snapshot, connectors: &ProbeConnectors) -> Self {
        Self::start_where(snapshot, connectors, |peer| {
            peer.state.health() == HealthStatus::Unknown
        })
    }

    fn start_where(
        snapshot: &Snapshot,
        connectors: &ProbeConnectors,
        at_once: impl Fn(&Peer) -> bool,
    ) -> Self {
        let (token, first_pass) = mpsc::channel(1);
        let mut probes = Self {
            tasks: Vec::new(),
            first_pass_peers: 0,
            first_pass,
            deferred_started: watch::Sender::new(false),
        };
        for upstream in snapshot.upstreams.values() {
            let Some(health) = &upstream.config.health else {
                continue;
            };
            let peers = upstream.peers().iter().enumerate();
            for (index, peer) in peers.filter(|(_, peer)| !peer.is_unresolved()) {
                if let Some(task) = ProbeTask::new(upstream, index, health, connectors) {
                    probes.spawn(task, at_once(peer).then(|| token.clone()));
                }
            }
        }
        probes
    }

    fn spawn(&mut self, task: ProbeTask, token: Option<mpsc::Sender<()>>) {
        self.first_pass_peers += usize::from(token.is_some());
        let mut started = self.deferred_started.subscribe();
        self.tasks.push(tokio::spawn(async move {
            // An error means that the probes were dropped.
            if token.is_some() || started.wait_for(|&started| started).await.is_ok() {
                task.run(token).await;
            }
        }));
    }

    /// Starts the probes that [`Self::start_with_unknown`] left out.
    pub(crate) fn start_deferred(&self) {
        self.deferred_started.send_replace(true);
    }

    /// How many probe timeouts the first pass takes at most: [`MAX_CONCURRENT`] peers are probed at a time.
    pub(crate) fn first_pass_rounds(&self) -> u32 {
        u32::try_from(self.first_pass_peers.div_ceil(MAX_CONCURRENT)).unwrap_or(u32::MAX)
    }

    /// Waits until each peer of the first pass was probed once, at most until `deadline` has elapsed;
    /// whether all were.
    pub(crate) async fn wait_first_pass(&mut self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.first_pass.recv())
            .await
            .is_ok()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The probes of one peer.
struct ProbeTask {
    upstream: Arc<Upstream>,
    peer_index: usize,
    health: HealthConfig,
    check: ProbeCheck,
    target: Backend,
    permits: Arc<Semaphore>,
}

impl ProbeTask {
    fn new(
        upstream: &Arc<Upstream>,
        peer: usize,
        health: &HealthConfig,
        connectors: &ProbeConnectors,
    ) -> Option<Self> {
        let target = upstream.peers().get(peer)?;
        let Some((check, addr)) = check::build_check(upstream, target, health, connectors) else {
            let (name, label) = (&upstream.name, &target.label);
            log::error!(
                "upstream {name}: peer {label} cannot be probed: no valid server name or address"
            );
            return None;
        };
        let target = Backend {
            addr,
            weight: 1,
            ext: http::Extensions::new(),
        };
        let permits = Arc::clone(&connectors.permits);
        Some(Self {
            upstream: Arc::clone(upstream),
            peer_index: peer,
            health: health.clone(),
            check,
            target,
            permits,
        })
    }

    async fn run(self, mut token: Option<mpsc::Sender<()>>) {
        loop {
            let started = clock::since_start();
            if let Some(report) = self.probe().await {
                self.report(report);
            }
            // `first_pass` is closed when the last token is dropped.
            token.take();
            let pause = jittered(self.health.interval)
                .saturating_sub(clock::since_start().saturating_sub(started));
            tokio::time::sleep(pause).await;
        }
    }

    /// Probes the peer once. `None` if that failed for a reason of this process: no descriptors, or the
    /// runtime is shutting down. The peer's health then stays as it is.
    async fn probe(&self) -> Option<ProbeReport> {
        let _permit = self.permits.acquire().await.ok()?;
        let started = clock::since_start();
        let (check, target, timeout) = (
            Arc::clone(&self.check),
            self.target.clone(),
            self.health.timeout,
        );
        // In a task of its own: a panic of a check counts as a failed check and does not end the probes.
        let checked =
            tokio::spawn(async move { tokio::time::timeout(timeout, check.check(&target)).await });
        let failure = match checked.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) if is_local_failure(&error) => {
                log::debug!("probe not sent: {error}");
                return None;
            }
            Ok(Ok(Err(error))) => Some(describe_error(&error)),
            Ok(Err(_)) => Some(format!("no answer within {timeout:?}")),
            Err(aborted) if aborted.is_cancelled() => return None,
            Err(_) => Some("the probe panicked".to_owned()),
        };
        let ended = clock::since_start();
        Some(ProbeReport {
            ended,
            duration: ended.saturating_sub(started),
            failure,
        })
    }

    /// Records a report in the peer's state, and logs a change of its health.
    fn report(&self, report: ProbeReport) {
        let Some(peer) = self.upstream.peers().get(self.peer_index) else {
            return;
        };
        if report.failure.is_some() {
            peer.metrics.probe_failures.inc();
        }
        let reason = report.failure.clone().unwrap_or_default();
        let thresholds = HealthThresholds {
            rise: self.health.rise,
            fall: self.health.fall,
        };
        match peer.on_probe(report, thresholds) {
            Some(HealthStatus::Down) => log::warn!(
                "upstream {}: peer {} is down: {reason}",
                self.upstream.name,
                peer.label
            ),
            Some(HealthStatus::Up) => {
                log::info!("upstream {}: peer {} is up", self.upstream.name, peer.label);
            }
            Some(HealthStatus::Unknown) | None => {}
        }
    }
}

/// Whether an error is local: without descriptors or local ports, nothing is known about the peer.
fn is_local_failure(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError
    )
}

/// The kind of an error, without its causes; also in the admin API and the log.
fn describe_error(error: &Error) -> String {
    match error.etype() {
        ErrorType::HTTPStatus(status) => format!("status {status}"),
        ErrorType::CustomCode(name, code) => format!("{name} {code}"),
        ErrorType::TLSHandshakeFailure => {
            describe_failure(classify_error(&error.to_string())).to_owned()
        }
        kind => kind.as_str().to_owned(),
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0))
}
