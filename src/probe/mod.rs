//! Do the peers answer? One task a peer asks, on its own clock; the answers go into the peer's state.
//!
//! Built on Pingora's [`HealthCheck`], with checks of ours ([`check`]): Pingora's own have one connector
//! each (and each loads the system's certificates), a connect time of one second, and one `Host` for all
//! peers. The schedule, the timeout around the whole check, rise and fall are ours too: Pingora's loop waits
//! for the slowest peer of a pass, and calls a peer healthy before it has asked it.

mod check;
mod grpc;

use std::sync::Arc;
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector;
use pingora_error::{Error, ErrorType};
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::Health;
use crate::policy::health::{State, Thresholds};
use crate::snapshot::Snapshot;
use crate::tls::{in_words, why};
use crate::upstream::{Peer, ProbeReport, Upstream};

/// Probes under way at once; a start with ten thousand peers must not need as many descriptors.
const AT_ONCE: usize = 512;

/// An interval is moved by up to this share of itself either way, so that probes do not march in
/// step.
const JITTER: f64 = 0.1;

type Check = Arc<dyn HealthCheck + Send + Sync>;

/// The running probes of one snapshot; dropping them ends them.
#[derive(Debug)]
pub struct Probes {
    tasks: Vec<JoinHandle<()>>,
    /// Peers that are asked before [`Self::go_on`].
    first: usize,
    /// Closed once each of them was asked once.
    first_pass: mpsc::Receiver<()>,
    all: watch::Sender<bool>,
}

impl Probes {
    /// Starts to probe every peer whose upstream asks for it. Call within a Tokio runtime.
    pub fn start(snapshot: &Snapshot, prober: &Prober) -> Self {
        Self::begin(snapshot, prober, |_| true)
    }

    /// Like [`Self::start`], but peers of which something is known are left to other probes until
    /// [`Self::go_on`].
    pub fn start_with_unknown(snapshot: &Snapshot, prober: &Prober) -> Self {
        Self::begin(snapshot, prober, |peer| {
            peer.state.health() == State::Unknown
        })
    }

    fn begin(snapshot: &Snapshot, prober: &Prober, at_once: impl Fn(&Peer) -> bool) -> Self {
        let (token, first_pass) = mpsc::channel(1);
        let mut begun = Self {
            tasks: Vec::new(),
            first: 0,
            first_pass,
            all: watch::Sender::new(false),
        };
        for upstream in snapshot.upstreams.values() {
            let Some(health) = &upstream.config.health else {
                continue;
            };
            for (place, peer) in upstream.peers().iter().enumerate() {
                if let Some(job) = Job::new(upstream, place, health, prober) {
                    begun.spawn(job, at_once(peer).then(|| token.clone()));
                }
            }
        }
        begun
    }

    fn spawn(&mut self, job: Job, token: Option<mpsc::Sender<()>>) {
        self.first += usize::from(token.is_some());
        let mut all = self.all.subscribe();
        self.tasks.push(tokio::spawn(async move {
            // The end of all probes is the end of this task, too.
            if token.is_some() || all.wait_for(|&all| all).await.is_ok() {
                job.run(token).await;
            }
        }));
    }

    /// Probes the peers that were left to others.
    pub fn go_on(&self) {
        self.all.send_replace(true);
    }

    /// How many times the longest timeout may pass until every peer was asked once.
    pub fn rounds(&self) -> u32 {
        u32::try_from(self.first.div_ceil(AT_ONCE)).unwrap_or(u32::MAX)
    }

    /// Waits until each of the first peers was asked once, and the longest time that may take has not
    /// passed; whether it was.
    pub async fn first_pass(&mut self, deadline: Duration) -> bool {
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
pub struct Prober {
    tcp: Arc<TransportConnector>,
    http: Arc<Connector>,
    permits: Arc<Semaphore>,
}

impl Prober {
    /// The connectors, without a connection.
    pub fn new() -> Self {
        Self {
            tcp: Arc::new(TransportConnector::new(None)),
            http: Arc::new(Connector::new(None)),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Default for Prober {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prober").finish_non_exhaustive()
    }
}

/// One peer's probes.
struct Job {
    upstream: Arc<Upstream>,
    peer: usize,
    health: Health,
    check: Check,
    target: Backend,
    permits: Arc<Semaphore>,
}

impl Job {
    fn new(
        upstream: &Arc<Upstream>,
        peer: usize,
        health: &Health,
        prober: &Prober,
    ) -> Option<Self> {
        let target = upstream.peers().get(peer)?;
        let Some((check, addr)) = check::of(upstream, target, health, prober) else {
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
            peer,
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
            Ok(Ok(Err(error))) if is_our_own(&error) => {
                log::debug!("no probe: {error}");
                return None;
            }
            Ok(Ok(Err(error))) => Some(brief(&error)),
            Ok(Err(_)) => Some(format!("no answer within {limit:?}")),
            Err(cut) if cut.is_cancelled() => return None,
            Err(_) => Some("the probe panicked".to_owned()),
        };
        let at = clock::since_start();
        Some(ProbeReport {
            at,
            took: at.saturating_sub(began),
            failure,
        })
    }

    fn report(&self, report: ProbeReport) {
        let Some(peer) = self.upstream.peers().get(self.peer) else {
            return;
        };
        if report.failure.is_some() {
            peer.metrics.probe_failures.inc();
        }
        let why = report.failure.clone().unwrap_or_default();
        let thresholds = Thresholds {
            rise: self.health.rise,
            fall: self.health.fall,
        };
        match peer.on_probe(report, thresholds) {
            Some(State::Down) => log::warn!(
                "upstream {}: peer {} is down: {why}",
                self.upstream.name,
                peer.label
            ),
            Some(State::Up) => {
                log::info!("upstream {}: peer {} is up", self.upstream.name, peer.label);
            }
            Some(State::Unknown) | None => {}
        }
    }
}

/// Running out of descriptors or local ports says nothing about the peer.
fn is_our_own(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError
    )
}

/// The kind of an error and its own words, without the causes below it.
fn brief(error: &Error) -> String {
    match error.etype() {
        ErrorType::HTTPStatus(status) => format!("status {status}"),
        ErrorType::CustomCode(name, code) => format!("{name} {code}"),
        ErrorType::TLSHandshakeFailure => in_words(why(&error.to_string())).to_owned(),
        kind => kind.as_str().to_owned(),
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * rand::random::<f64>() - 1.0))
}
