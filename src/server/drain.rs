//! The drain: no new connections, and time for the open ones to end.
//!
//! Each HTTP/1 response now carries `Connection: close`. An idle connection keeps its idle timeout, so that a request
//! that is already on its way is still served. An HTTP/2 client gets GOAWAY, and its open streams are served. The drain
//! ends with the last connection, or after `drain_timeout`.

use std::time::Duration;

use super::data_plane::DataPlane;
use super::hot_restart::SuccessorHandle;
use super::signals::{Signal, Signals};
use crate::admin::AppState;
use crate::lifecycle::{ControlError, ControlReceiver};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutdownOutcome {
    /// Every connection ended by itself.
    Drained,
    /// `drain_timeout` passed, or a second signal to stop came; connections were closed.
    Forced,
}

/// Drains until the last connection has ended, `drain_timeout` has passed, or a second signal to stop comes.
pub(super) async fn run(
    data_plane: &mut DataPlane,
    commands: &mut ControlReceiver,
    signals: &mut Signals,
    successor: Option<&mut SuccessorHandle>,
    app_state: &AppState,
) -> ShutdownOutcome {
    let limit = app_state.snapshot.load().config.drain_timeout;
    let leader = successor.as_ref().map(|successor| successor.pid);
    let outcome = tokio::select! {
        () = drain_connections(data_plane, app_state, limit) => ShutdownOutcome::Drained,
        () = tokio::time::sleep(limit) => ShutdownOutcome::Forced,
        () = wait_second_stop(signals, app_state, leader) => ShutdownOutcome::Forced,
        // The last two never end.
        () = reject_commands(commands) => ShutdownOutcome::Forced,
        () = report_progress(successor, app_state) => ShutdownOutcome::Forced,
    };
    log_outcome(app_state, outcome);
    outcome
}

async fn drain_connections(data_plane: &mut DataPlane, app_state: &AppState, limit: Duration) {
    data_plane.close_listeners().await;
    let open = app_state.conn_limit.open_connections();
    log::info!("draining {open} connections, for up to {limit:?}");
    app_state.conn_limit.wait_until_empty().await;
}

/// Waits for a second signal to stop. Other signals are forwarded to the leading process, if there is one.
async fn wait_second_stop(signals: &mut Signals, app_state: &AppState, leader: Option<u32>) {
    loop {
        match (signals.recv().await, leader) {
            (Signal::Stop, _) => return,
            (Signal::ReopenLogs, _) => app_state.telemetry.reopen(),
            (signal, Some(leader)) => signal.send_to(leader),
            (signal, None) => {
                log::warn!("signal {signal:?} ignored: this process is draining");
            }
        }
    }
}

async fn reject_commands(commands: &mut ControlReceiver) {
    while let Some((_, reply_to)) = commands.recv().await {
        // The client may have disconnected.
        let _ = reply_to.send(Err(ControlError::Busy(
            "the process is draining".to_owned(),
        )));
    }
    std::future::pending::<()>().await;
}

async fn report_progress(successor: Option<&mut SuccessorHandle>, app_state: &AppState) {
    if let Some(successor) = successor {
        while successor
            .send_progress(app_state.conn_limit.open_connections() as u64)
            .await
        {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
        }
    }
    std::future::pending::<()>().await;
}

fn log_outcome(app_state: &AppState, outcome: ShutdownOutcome) {
    let open = app_state.conn_limit.open_connections();
    match outcome {
        ShutdownOutcome::Drained => log::info!("drain complete; exiting"),
        ShutdownOutcome::Forced => {
            let process_metrics = &app_state.telemetry.metrics.process;
            process_metrics.drain_cut.inc_by(open as u64);
            log::warn!("drain incomplete; closing {open} connections");
        }
    }
}

/// How often the new process gets the number of open connections.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
