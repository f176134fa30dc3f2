//! A running proxy: carries out what signals and operators ask, one thing at a time, until its end.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Pid, Signal as Number};
use tokio::sync::oneshot;

use super::chores::Chores;
use super::drain;
use super::notify;
use super::proxy::Proxy;
use super::signals::{Signal, Signals};
use super::sockets::{Listeners, OpenDoors};
use super::upgrade::{self, Candidate, Succession, Underway, answer};
use super::{Ending, reload};
use crate::acme::Keeper;
use crate::admin::Subject;
use crate::lifecycle::{Order, Orders, Refusal, Reply};
use crate::probe::{ProbeConnectors, Probes};
use crate::telemetry::Telemetry;

/// A running proxy.
pub(super) struct Instance {
    pub(super) subject: Arc<Subject>,
    /// The configuration file.
    pub(super) source: Option<PathBuf>,
    pub(super) orders: Orders,
    pub(super) proxy: Arc<Proxy>,
    pub(super) prober: ProbeConnectors,
    pub(super) probes: Probes,
    pub(super) listeners: Listeners,
    pub(super) doors: OpenDoors,
    pub(super) chores: Chores,
    /// Orders certificates, while this process leads.
    pub(super) keeper: Option<Keeper>,
    /// While it is under way nothing else changes, so that what was handed over stays true.
    pub(super) upgrading: Option<Underway>,
    /// A signal, or the watched file, asked for a reload while an upgrade was under way.
    pub(super) reload_due: bool,
    /// The log files were opened anew while an upgrade was under way: the new process may have the
    /// ones before.
    pub(super) reopen_due: bool,
}

/// What happens next.
enum Next {
    Signal(Signal),
    Order(Order, oneshot::Sender<Reply>),
    /// The configuration file is another one, and it is to be watched.
    Changed,
    /// The new process of the upgrade under way is ready, or there is none.
    Candidate(Box<Result<Candidate, Refusal>>),
}

/// Goes on, or comes to its end: with a successor, or without.
type Flow<T = ()> = ControlFlow<Option<Succession>, T>;

impl Instance {
    /// Serves until it is told to stop, or another process has taken over; then drains.
    pub(super) async fn serve(mut self, mut signals: Signals) -> (Ending, Arc<Telemetry>) {
        let succession = loop {
            let next = self.next(&mut signals).await;
            if let ControlFlow::Break(succession) = self.heed(next, &mut signals).await {
                break succession;
            }
        };
        notify::stopping(succession.is_some());
        drain::run(self, signals, succession).await
    }

    async fn next(&mut self, signals: &mut Signals) -> Next {
        let candidate = async {
            match &mut self.upgrading {
                Some(underway) => underway.candidate().await,
                None => std::future::pending().await,
            }
        };
        let snapshot = self.subject.snapshot.load_full();
        tokio::select! {
            signal = signals.recv() => Next::Signal(signal),
            () = self.chores.until_changed(&self.subject, &snapshot.config, self.source.as_deref()) => Next::Changed,
            Some((order, reply)) = self.orders.recv() => Next::Order(order, reply),
            candidate = candidate => Next::Candidate(Box::new(candidate)),
        }
    }

    async fn heed(&mut self, next: Next, signals: &mut Signals) -> Flow {
        match next {
            Next::Signal(Signal::Stop) => self.stop().await,
            Next::Signal(Signal::ReopenLogs) => {
                self.subject.telemetry.reopen();
                self.reopen_due = self.upgrading.is_some();
                Flow::Continue(())
            }
            Next::Signal(Signal::Reload) | Next::Changed => self.reload_unasked(signals).await,
            Next::Signal(Signal::Upgrade) => self.upgrade(signals, false, None).await,
            Next::Order(Order::Upgrade { force }, reply) => {
                self.upgrade(signals, force, Some(reply)).await
            }
            Next::Order(Order::Reload { dry_run, force }, reply) => {
                let done = match self.upgrading {
                    Some(_) => Err(busy()),
                    None => self.reload(signals, dry_run, force).await?,
                };
                answer(Some(reply), done);
                Flow::Continue(())
            }
            Next::Candidate(candidate) => self.succeed(*candidate, signals).await,
        }
    }

    /// A new process that does not serve yet must not come to do so.
    async fn stop(&mut self) -> Flow {
        if let Some(underway) = self.upgrading.take() {
            underway.call_off().await;
        }
        Flow::Break(None)
    }

    /// Where nobody waits for an answer, the log is told.
    async fn reload_unasked(&mut self, signals: &mut Signals) -> Flow {
        if self.upgrading.is_some() {
            log::warn!("reload: put off, an upgrade is under way");
            self.reload_due = true;
            return Flow::Continue(());
        }
        self.reload_due = false;
        if let Err(refusal) = self.reload(signals, false, false).await? {
            log::error!("reload: {refusal}");
        }
        Flow::Continue(())
    }

    /// Names that are looked up and peers that are asked take their time; a signal to stop does not
    /// wait for them. Until a reload's swap nothing has changed.
    async fn reload(&mut self, signals: &mut Signals, dry_run: bool, force: bool) -> Flow<Reply> {
        notify::reloading();
        if !dry_run {
            let snapshot = self.subject.snapshot.load();
            self.chores.look(self.source.as_deref(), &snapshot.config);
        }
        let done = tokio::select! {
            biased;
            () = signals.stop() => return Flow::Break(None),
            done = reload::reload(self, dry_run, force) => done,
        };
        notify::ready();
        Flow::Continue(done)
    }

    async fn upgrade(
        &mut self,
        signals: &mut Signals,
        force: bool,
        waiting: Option<oneshot::Sender<Reply>>,
    ) -> Flow {
        let job = match self.upgrading {
            Some(_) => Err(busy()),
            None => self.job(signals, force).await?,
        };
        match job {
            Ok(job) => self.upgrading = Some(Underway::begin(job, waiting)),
            Err(refusal) => {
                log::error!("upgrade: {refusal}");
                answer(waiting, Err(refusal));
            }
        }
        Flow::Continue(())
    }

    /// The new process moves as many keys as a reload would, and is held to the same limit. Whatever
    /// else is wrong with the file is the new program's to say: it may know more than this one.
    async fn job(
        &mut self,
        signals: &mut Signals,
        force: bool,
    ) -> Flow<Result<upgrade::Job, Refusal>> {
        if !force && self.source.is_some() {
            let plan = tokio::select! {
                biased;
                () = signals.stop() => return Flow::Break(None),
                plan = reload::reload(self, true, false) => plan,
            };
            if let Err(limit @ Refusal::Limit(_)) = plan {
                return Flow::Continue(Err(limit));
            }
        }
        Flow::Continue(upgrade::Job::new(self))
    }

    /// Gives the word. What was asked of the service meanwhile is the next leader's to do.
    async fn succeed(
        &mut self,
        candidate: Result<Candidate, Refusal>,
        signals: &mut Signals,
    ) -> Flow {
        let Some(underway) = self.upgrading.take() else {
            return Flow::Continue(());
        };
        let reopen = std::mem::take(&mut self.reopen_due);
        let outcome = match candidate {
            Ok(candidate) => candidate.go(&self.subject).await,
            Err(refusal) => Err(refusal),
        };
        match underway.settle(outcome) {
            Some(succession) => {
                let leader = succession.successor.pid;
                if reopen {
                    pass_on(leader, Number::USR1);
                }
                if std::mem::take(&mut self.reload_due) {
                    pass_on(leader, Number::HUP);
                }
                if signals.stop_has_come().await {
                    pass_on(leader, Number::TERM);
                }
                Flow::Break(Some(succession))
            }
            None if self.reload_due => self.reload_unasked(signals).await,
            None => Flow::Continue(()),
        }
    }
}

/// Sends a signal that came for the service to the process that leads it now.
pub(super) fn pass_on(leader: u32, number: Number) {
    let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may be gone; then there is nobody to tell.
        let _ = rustix::process::kill_process(pid, number);
    }
}

fn busy() -> Refusal {
    Refusal::Busy("an upgrade is under way".to_owned())
}
