//! The end: no new connection, and every open one to its own end.
//!
//! Each response now carries `Connection: close`; an idle connection keeps the idle time it was
//! promised, so that a request already on its way finds it open. A client of HTTP/2 is sent GOAWAY, and
//! what was on its way is served. The process ends when the last
//! connection has, or at the bound. Where a successor serves, it is told how far the drain is.

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal as Number;

use super::ShutdownOutcome;
use super::handover::SuccessorHandle;
use super::instance::{ServerInstance, forward_signal};
use super::signals::{Signal, Signals};
use super::sockets::Listeners;
use super::upgrade::CompletedUpgrade;
use crate::admin::AppState;
use crate::lifecycle::{ControlError, ControlReceiver, ProcessStage};
use crate::telemetry::Telemetry;

/// How often a successor is told of the connections that are left.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

pub(super) async fn run(
    mut instance: ServerInstance,
    mut signals: Signals,
    mut succession: Option<CompletedUpgrade>,
) -> (ShutdownOutcome, Arc<Telemetry>) {
    let subject = Arc::clone(&instance.app_state);
    let bound = subject.snapshot.load().config.drain_timeout;
    subject.lifecycle.advance(ProcessStage::Draining);
    if let Some(succession) = &mut succession {
        hand_over_sockets(&mut instance, succession).await;
    }
    // What is ordered from now on is the successor's, or the next start's.
    instance.cert_manager = None;
    let mut successor = succession.map(|succession| succession.successor);
    let leader = successor.as_ref().map(|successor| successor.pid);
    let ending = tokio::select! {
        () = drain_connections(&mut instance.listeners, &subject, bound) => ShutdownOutcome::Drained,
        () = tokio::time::sleep(bound) => ShutdownOutcome::Forced,
        () = wait_second_stop(&mut signals, &subject, leader) => ShutdownOutcome::Forced,
        () = reject_commands(&mut instance.commands) => ShutdownOutcome::Forced,
        () = report_progress(successor.as_mut(), &subject) => ShutdownOutcome::Forced,
    };
    log_outcome(&subject, ending);
    match &mut successor {
        Some(successor) => {
            let counters = subject.telemetry.metrics.export_counters();
            let left = subject.conn_limit.open_connections() as u64;
            successor.send_final_counters(left, counters).await;
        }
        None => instance.background.write_state_file(&subject),
    }
    instance.admin_sockets.finish_responses().await;
    instance.admin_sockets.remove_control_file();
    (ending, Arc::clone(&subject.telemetry))
}

/// Leaves the sockets to the successor. What operators did until the last moment is its to know, so
/// their doors are closed first; who asked for the upgrade finds the successor behind them.
async fn hand_over_sockets(instance: &mut ServerInstance, succession: &mut CompletedUpgrade) {
    let successor = &mut succession.successor;
    instance
        .admin_sockets
        .hand_over(&successor.adopted_sockets)
        .await;
    instance.background.release();
    // Who serves orders: the lock is free before the successor is told that it leads.
    instance.cert_manager = None;
    let subject = &instance.app_state;
    let memory = subject.snapshot.load().persisted_state();
    let connections = subject.conn_limit.open_connections() as u64;
    successor.send_final_state(connections, memory).await;
    // Before it is announced: who connects then does not meet this process.
    instance
        .listeners
        .hand_over(&successor.adopted_sockets)
        .await;
    succession.reply();
}

/// Lets nobody in any more, and waits for the last to leave.
async fn drain_connections(listeners: &mut Listeners, subject: &AppState, bound: Duration) {
    listeners.close_except(|_| false).await;
    let inside = subject.conn_limit.open_connections();
    log::info!("draining {inside} connections, for up to {bound:?}");
    subject.conn_limit.wait_until_empty().await;
}

/// A second signal to stop is meant. Others are for the process that leads, if one does.
async fn wait_second_stop(signals: &mut Signals, subject: &AppState, leader: Option<u32>) {
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
            Some(leader) => forward_signal(leader, number),
            None => log::warn!("too late for that: this process is draining"),
        }
    }
}

/// Never ends.
async fn reject_commands(orders: &mut ControlReceiver) {
    while let Some((_, reply)) = orders.recv().await {
        // Who asked may have left meanwhile.
        let _ = reply.send(Err(ControlError::Busy(
            "the process is draining".to_owned(),
        )));
    }
    std::future::pending::<()>().await;
}

/// Never ends.
async fn report_progress(successor: Option<&mut SuccessorHandle>, subject: &AppState) {
    if let Some(successor) = successor {
        while successor
            .send_progress(subject.conn_limit.open_connections() as u64)
            .await
        {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
    }
    std::future::pending::<()>().await;
}

fn log_outcome(subject: &AppState, ending: ShutdownOutcome) {
    let left = subject.conn_limit.open_connections();
    match ending {
        ShutdownOutcome::Drained => log::info!("drained; good-bye"),
        ShutdownOutcome::Forced => {
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
