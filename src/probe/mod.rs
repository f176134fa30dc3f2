//! Do the peers answer? One task a peer asks, on its own clock; the answers go into the peer's state.
//!
//! Built on Pingora's [`HealthCheck`], with checks of ours ([`check`]): Pingora's own have one connector
//! each (and each loads the system's certificates), a connect time of one second, and one `Host` for all
//! peers. The schedule, the timeout around the whole check, rise and fall are ours too: Pingora's loop waits
//! for the slowest peer of a pass, and calls a peer healthy before it has asked it.

mod check;
mod grpc_health;

use std::sync::Arc;
use std::time::Duration;

use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::lb::Backend;
use pingora::lb::health_check::HealthCheck;
use pingora::{Error, ErrorType};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::HealthConfig;
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::snapshot::Snapshot;
use crate::tls::{classify_error, describe_failure};
use crate::upstream::{Peer, ProbeReport, Upstream};

/// Probes under way at once; a start with ten thousand peers must not need as many descriptors.
const MAX_CONCURRENT: usize = 512;

/// An interval is moved by up to this share of itself either way, so that probes do not march in
/// step.
const JITTER: f64 = 0.1;

type ProbeCheck = Arc<dyn HealthCheck + Send + Sync>;

/// The running probes of one snapshot; dropping them ends them.
#[derive(Debug)]
pub struct Probes {
    tasks: Vec<JoinHandle<()>>,
    /// Peers that are asked before [`Self::go_on`].
    first_pass_peers: usize,
    /// Closed once each of them was asked once.
    first_pass: mpsc::Receiver<()>,
    deferred_started: watch::Sender<bool>,
}

impl Probes {
    /// Starts to probe every peer whose upstream asks for it. Call within a Tokio runtime.
    pub fn start(snapshot: &Snapshot, prober: &ProbeConnectors) -> Self {
        Self::start_where(snapshot, prober, |_| true)
    }

    /// Like [`Self::start`], but peers of which something is known are left to other probes until
    /// [`Self::go_on`].
    pub fn start_with_unknown(snapshot: &Snapshot, prober: &ProbeConnectors) -> Self {
        Self::start_where(snapshot, prober, |peer| {
            peer.state.health() == HealthStatus::Unknown
        })
    }

    fn start_where(
        snapshot: &Snapshot,
        prober: &ProbeConnectors,
        at_once: impl Fn(&Peer) -> bool,
    ) -> Self {
        let (token, first_pass) = mpsc::channel(1);
        let mut begun = Self {
            tasks: Vec::new(),
            first_pass_peers: 0,
            first_pass,
            deferred_started: watch::Sender::new(false),
        };
        for upstream in snapshot.upstreams.values() {
            let Some(health) = &upstream.config.health else {
                continue;
            };
            for (place, peer) in upstream.peers().iter().enumerate() {
                if let Some(job) = ProbeTask::new(upstream, place, health, prober) {
                    begun.spawn(job, at_once(peer).then(|| token.clone()));
                }
            }
        }
        begun
    }

    fn spawn(&mut self, job: ProbeTask, token: Option<mpsc::Sender<()>>) {
        self.first_pass_peers += usize::from(token.is_some());
        let mut all = self.deferred_started.subscribe();
        self.tasks.push(tokio::spawn(async move {
            // The end of all probes is the end of this task, too.
            if token.is_some() || all.wait_for(|&all| all).await.is_ok() {
                job.run(token).await;
            }
        }));
    }

    /// Probes the peers that were left to others.
    pub fn start_deferred(&self) {
        self.deferred_started.send_replace(true);
    }

    /// How many times the longest timeout may pass until every peer was asked once.
    pub fn first_pass_rounds(&self) -> u32 {
        u32::try_from(self.first_pass_peers.div_ceil(MAX_CONCURRENT)).unwrap_or(u32::MAX)
    }

    /// Waits until each of the first peers was asked once, and the longest time that may take has not
    /// passed; whether it was.
    pub async fn wait_first_pass(&mut self, deadline: Duration) -> bool {
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

/// What all probes share: connectors are dear (each loads the system's certificates).
pub struct ProbeConnectors {
    tcp: Arc<TransportConnector>,
    http: Arc<Connector>,
    permits: Arc<Semaphore>,
}

impl ProbeConnectors {
    /// The connectors, without a connection.
    pub fn new() -> Self {
        Self {
            tcp: Arc::new(TransportConnector::new(None)),
            http: Arc::new(Connector::new(None)),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }
}

impl Default for ProbeConnectors {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ProbeConnectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").finish_non_exhaustive()
    }
}

/// One peer's probes.
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
        prober: &ProbeConnectors,
    ) -> Option<Self> {
        let target = upstream.peers().get(peer)?;
        let Some((check, addr)) = check::build_check(upstream, target, health, prober) else {
            let (name, label) = (&upstream.name, &target.label);
            log::error!("upstream {name}: there is no probe for {label}");
            return None;
        };
        let target = Backend {
            addr,
            weight: 1,
            ext: http::Extensions::new(),
        };
        let permits = Arc::clone(&prober.permits);
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
            let began = clock::since_start();
            if let Some(report) = self.probe().await {
                self.report(report);
            }
            token.take();
            let rest = jittered(self.health.interval)
                .saturating_sub(clock::since_start().saturating_sub(began));
            tokio::time::sleep(rest).await;
        }
    }

    /// `None` where the peer could not be asked: without descriptors, or while the runtime shuts
    /// down. What was known of it stands.
    async fn probe(&self) -> Option<ProbeReport> {
        let _permit = self.permits.acquire().await.ok()?;
        let began = clock::since_start();
        let (check, target, limit) = (
            Arc::clone(&self.check),
            self.target.clone(),
            self.health.timeout,
        );
        // In a task of its own: a check that panics is a failed check, not the end of all checks.
        let asked =
            tokio::spawn(async move { tokio::time::timeout(limit, check.check(&target)).await });
        let failure = match asked.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) if is_local_failure(&error) => {
                log::debug!("no probe: {error}");
                return None;
            }
            Ok(Ok(Err(error))) => Some(describe_error(&error)),
            Ok(Err(_)) => Some(format!("no answer within {limit:?}")),
            Err(cut) if cut.is_cancelled() => return None,
            Err(_) => Some("the probe panicked".to_owned()),
        };
        let at = clock::since_start();
        Some(ProbeReport {
            ended: at,
            duration: at.saturating_sub(began),
            failure,
        })
    }

    fn report(&self, report: ProbeReport) {
        let Some(peer) = self.upstream.peers().get(self.peer_index) else {
            return;
        };
        if report.failure.is_some() {
            peer.metrics.probe_failures.inc();
        }
        let why = report.failure.clone().unwrap_or_default();
        let thresholds = HealthThresholds {
            rise: self.health.rise,
            fall: self.health.fall,
        };
        match peer.on_probe(report, thresholds) {
            Some(HealthStatus::Down) => log::warn!(
                "upstream {}: peer {} is down: {why}",
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

/// Running out of descriptors or local ports says nothing about the peer.
fn is_local_failure(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError
    )
}

/// The kind of an error and its own words, without the causes below it.
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
