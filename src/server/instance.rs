//! A running proxy: carries out what signals and operators ask, one thing at a time, until its end.

use std::path::PathBuf;
use std::sync::Arc;

use pingora_proxy::HttpProxy;
use tokio::sync::oneshot;

use super::chores::Chores;
use super::drain;
use super::handover::{self, Predecessor};
use super::notify;
use super::signals::{Signal, Signals};
use super::sockets::{Listeners, OpenDoors};
use super::{Ending, reload, upgrade};
use crate::admin::Subject;
use crate::lifecycle::{Order, Orders, Refusal, Reply};
use crate::probe::{Prober, Probes};
use crate::proxy::Edge;
use crate::telemetry::Telemetry;

/// A running proxy.
pub(super) struct Instance {
    pub(super) subject: Arc<Subject>,
    /// The configuration file.
    pub(super) source: Option<PathBuf>,
    pub(super) orders: Orders,
    pub(super) proxy: Arc<HttpProxy<Edge>>,
    pub(super) prober: Prober,
    pub(super) probes: Probes,
    pub(super) listeners: Listeners,
    pub(super) doors: OpenDoors,
    pub(super) chores: Chores,
}

/// What happens next.
enum Next {
    Signal(Signal),
    Order(Order, oneshot::Sender<Reply>),
    /// The configuration file is another one, and it is to be watched.
    Changed,
    /// The upgrade under way has come to an end.
    Upgraded(Result<handover::Successor, Refusal>),
}

/// An upgrade under way: the instance serves on meanwhile.
type Upgrading = Option<(
    tokio::task::JoinHandle<Result<handover::Successor, Refusal>>,
    Vec<oneshot::Sender<Reply>>,
)>;

impl Instance {
    /// Serves until it is told to stop, or another process has taken over; then drains.
    pub(super) async fn serve(mut self, mut signals: Signals) -> (Ending, Arc<Telemetry>) {
        let mut upgrading: Upgrading = None;
        let successor = loop {
            match self.next(&mut signals, &mut upgrading).await {
                Next::Signal(Signal::Stop) => break None,
                Next::Signal(Signal::ReopenLogs) => self.subject.telemetry.reopen(),
                Next::Changed if upgrading.is_some() => {}
                Next::Changed | Next::Signal(Signal::Reload) => {
                    log_refusal("reload", &self.reload(false, false).await);
                }
                Next::Signal(Signal::Upgrade) => self.begin_upgrade(&mut upgrading, None),
                Next::Order(Order::Upgrade, reply) => {
                    self.begin_upgrade(&mut upgrading, Some(reply));
                }
                Next::Order(Order::Reload { dry_run, force }, reply) => {
                    let done = if upgrading.is_some() {
                        Err(busy())
                    } else {
                        self.reload(dry_run, force).await
                    };
                    // Who asked may have left meanwhile.
                    let _ = reply.send(done);
                }
                Next::Upgraded(outcome) => {
                    let waiting = upgrading
                        .take()
                        .map(|(_, waiting)| waiting)
                        .unwrap_or_default();
                    if let Some(successor) = settle(outcome, waiting) {
                        break Some(successor);
                    }
                }
            }
        };
        notify::stopping(successor.is_some());
        drain::run(self, signals, successor).await
    }

    /// Takes over from the process that started this one.
    pub(super) fn succeed(&self, predecessor: Predecessor) -> Result<(), handover::Error> {
        predecessor.acknowledge(Arc::clone(&self.subject))
    }

    async fn next(&mut self, signals: &mut Signals, upgrading: &mut Upgrading) -> Next {
        let upgraded = async {
            match upgrading {
                Some((task, _)) => task
                    .await
                    .unwrap_or_else(|error| Err(Refusal::Failed(error.to_string()))),
                None => std::future::pending().await,
            }
        };
        let snapshot = self.subject.snapshot.load_full();
        tokio::select! {
            signal = signals.recv() => Next::Signal(signal),
            () = self.chores.until_changed(&self.subject, &snapshot.config, self.source.as_deref()) => Next::Changed,
            Some((order, reply)) = self.orders.recv() => Next::Order(order, reply),
            outcome = upgraded => Next::Upgraded(outcome),
        }
    }

    async fn reload(&mut self, dry_run: bool, force: bool) -> Reply {
        notify::reloading();
        if !dry_run {
            self.chores.look(self.source.as_deref());
        }
        let done = reload::reload(self, dry_run, force).await;
        notify::ready();
        done
    }

    fn begin_upgrade(&self, upgrading: &mut Upgrading, reply: Option<oneshot::Sender<Reply>>) {
        if upgrading.is_some() {
            log::warn!("upgrade: refused, one is under way");
            if let Some(reply) = reply {
                let _ = reply.send(Err(busy()));
            }
            return;
        }
        match upgrade::Job::new(self) {
            Ok(job) => *upgrading = Some((tokio::spawn(job.run()), reply.into_iter().collect())),
            Err(refusal) => {
                log::error!("upgrade: {refusal}");
                if let Some(reply) = reply {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
    }
}

/// Tells who waits how the upgrade went.
fn settle(
    outcome: Result<handover::Successor, Refusal>,
    waiting: Vec<oneshot::Sender<Reply>>,
) -> Option<handover::Successor> {
    let (reply, successor) = match outcome {
        Ok(successor) => (
            Ok(serde_json::json!({ "pid": successor.pid })),
            Some(successor),
        ),
        Err(refusal) => {
            log::error!("upgrade: {refusal}; this process serves on");
            (Err(refusal), None)
        }
    };
    for asked in waiting {
        // Who asked may have left meanwhile.
        let _ = asked.send(reply.clone());
    }
    successor
}

fn busy() -> Refusal {
    Refusal::Busy("an upgrade is under way".to_owned())
}

fn log_refusal(what: &str, reply: &Reply) {
    if let Err(refusal) = reply {
        log::error!("{what}: {refusal}");
    }
}
