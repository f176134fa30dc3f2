//! The probes of one peer: a task that probes it again and again, and records the result in its state.

use std::sync::Arc;
use std::time::Duration;

use pingora::lb::Backend;
use pingora::{Error, ErrorType};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::check::{self, ProbeCheck, ProbeConnectors};
use crate::clock;
use crate::config::HealthConfig;
use crate::policy::health::{HealthStatus, HealthThresholds};
use crate::tls::{classify_error, describe_failure};
use crate::upstream::{Peer, ProbeReport, Upstream};

/// The jitter of an interval, as a share of it in either direction, so that probes do not run in step.
const JITTER: f64 = 0.1;

/// The probes of one peer.
pub(super) struct ProbeTask {
    /// A copy, so that the ring of its upstream can be replaced.
    peer: Peer,
    health: HealthConfig,
    check: ProbeCheck,
    target: Backend,
    permits: Arc<Semaphore>,
}

impl ProbeTask {
    pub(super) fn new(
        upstream: &Upstream,
        peer: &Peer,
        health: &HealthConfig,
        connectors: &ProbeConnectors,
    ) -> Option<Self> {
        let Some((check, addr)) = check::build_check(upstream, peer, health, connectors) else {
            let (name, label) = (&upstream.name, &peer.label);
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
            peer: peer.clone(),
            health: health.clone(),
            check,
            target,
            permits,
        })
    }

    pub(super) async fn run(self, mut token: Option<mpsc::Sender<()>>) {
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
        // In a task of its own, which ends with this one: a panic of a check counts as a failed check and does not end the
        // probes.
        let mut checks = JoinSet::new();
        checks.spawn(async move { tokio::time::timeout(timeout, check.check(&target)).await });
        let failure = match checks.join_next().await? {
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
        let (peer, upstream) = (&self.peer, self.peer.upstream_name());
        if report.failure.is_some() {
            peer.metrics.probe_failures.inc();
        }
        let reason = report.failure.clone().unwrap_or_default();
        let thresholds = HealthThresholds {
            rise: self.health.rise,
            fall: self.health.fall,
        };
        match peer.on_probe(report, thresholds) {
            Some(HealthStatus::Down) => {
                log::warn!("upstream {upstream}: peer {} is down: {reason}", peer.label);
            }
            Some(HealthStatus::Up) => log::info!("upstream {upstream}: peer {} is up", peer.label),
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
