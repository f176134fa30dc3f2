//! The end: no new connection, and every open one to its own end.
//!
//! Each response now carries `Connection: close`; an idle connection keeps the idle time it was
//! promised, so that a request already on its way finds it open. A client of HTTP/2 is sent GOAWAY, and
//! what was on its way is served. The process ends when the last
//! connection has, or at the bound. Where a successor serves, it is told how far the drain is.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal as Number;

use super::Ending;
use super::handover::Successor;
use super::instance::{Instance, pass_on};
use super::signals::{Signal, Signals};
use super::sockets::Listeners;
use super::upgrade::Succession;
use crate::admin::Subject;
use crate::lifecycle::{Orders, Refusal, Stage};
use crate::telemetry::Telemetry;

/// How often a successor is told of the connections that are left.
const TELL: Duration = Duration::from_millis(500);

pub(super) async fn run(
    mut instance: Instance,
    mut signals: Signals,
    mut succession: Option<Succession>,
) -> (Ending, Arc<Telemetry>) {
    let subject = Arc::clone(&instance.subject);
    let bound = subject.snapshot.load().config.drain_timeout;
    subject.lifecycle.advance(Stage::Draining);
    if let Some(succession) = &mut succession {
        leave(&mut instance, succession).await;
    }
    // What is ordered from now on is the successor's, or the next start's.
    instance.keeper = None;
    let mut successor = succession.map(|succession| succession.successor);
    let leader = successor.as_ref().map(|successor| successor.pid);
    let ending = tokio::select! {
        () = run_dry(&mut instance.listeners, &subject, bound) => Ending::Drained,
        () = tokio::time::sleep(bound) => Ending::Cut,
        () = until_stop(&mut signals, &subject, leader) => Ending::Cut,
        () = refuse_orders(&mut instance.orders) => Ending::Cut,
        () = tell(successor.as_mut(), &subject) => Ending::Cut,
    };
    report(&subject, ending);
    match &mut successor {
        Some(successor) => {
            let counters = subject.telemetry.metrics.counters();
            let left = subject.gate.open_connections() as u64;
            successor.leave(left, counters).await;
        }
        None => instance.chores.finish(&subject),
    }
    instance.doors.settle().await;
    instance.doors.remove_control();
    (ending, Arc::clone(&subject.telemetry))
}

/// Leaves the sockets to the successor. What operators did until the last moment is its to know, so
/// their doors are closed first; who asked for the upgrade finds the successor behind them.
async fn leave(instance: &mut Instance, succession: &mut Succession) {
    let successor = &mut succession.successor;
    instance.doors.leave(&successor.kept).await;
    instance.chores.leave();
    // Who serves orders: the lock is free before the successor is told that it leads.
    instance.keeper = None;
    let subject = &instance.subject;
    let memory = subject.snapshot.load().memory();
    let connections = subject.gate.open_connections() as u64;
    successor.update(connections, memory).await;
    // Before it is announced: who connects then does not meet this process.
    instance.listeners.hand_over(&successor.kept).await;
    succession.announce();
}

/// Lets nobody in any more, and waits for the last to leave.
async fn run_dry(listeners: &mut Listeners, subject: &Subject, bound: Duration) {
    listeners.close(|_| false).await;
    let inside = subject.gate.open_connections();
    log::info!("draining {inside} connections, for up to {bound:?}");
    subject.gate.wait_until_empty().await;
}

/// A second signal to stop is meant. Others are for the process that leads, if one does.
async fn until_stop(signals: &mut Signals, subject: &Subject, leader: Option<u32>) {
    loop {
        let number = match signals.recv().await {
            Signal::Stop => return,
            Signal::ReopenLogs => {
                subject.telemetry.reopen();
                continue;
            }
            Signal::Reload => Number::HUP,
            Signal::Upgrade => Number::USR2,
        };
        match leader {
            Some(leader) => pass_on(leader, number),
            None => log::warn!("too late for that: this process is draining"),
        }
    }
}

/// Never ends.
async fn refuse_orders(orders: &mut Orders) {
    while let Some((_, reply)) = orders.recv().await {
        // Who asked may have left meanwhile.
        let _ = reply.send(Err(Refusal::Busy("the process is draining".to_owned())));
    }
    std::future::pending::<()>().await;
}

/// Never ends.
async fn tell(successor: Option<&mut Successor>, subject: &Subject) {
    if let Some(successor) = successor {
        while successor.tell(subject.gate.open_connections() as u64).await {
            tokio::time::sleep(TELL).await;
        }
    }
    std::future::pending::<()>().await;
}

fn report(subject: &Subject, ending: Ending) {
    let left = subject.gate.open_connections();
    match ending {
        Ending::Drained => log::info!("drained; good-bye"),
        Ending::Cut => {
            subject
                .telemetry
                .metrics
                .process
                .drain_cut
                .inc_by(left as u64);
            log::warn!("cutting {left} connections");
        }
    }
}
