//! The end: no new connection, and every open one to its own end.
//!
//! Each response now carries `Connection: close`; an idle connection keeps the idle time it was
//! promised, so that a request already on its way finds it open. The process ends when the last
//! connection has, or at the bound. Where a successor serves, it is told how far the drain is.

use std::sync::Arc;
use std::time::Duration;

use super::Ending;
use super::handover::Successor;
use super::instance::Instance;
use super::signals::{Signal, Signals};
use crate::admin::Subject;
use crate::lifecycle::{Refusal, Stage};
use crate::telemetry::Telemetry;

/// How often a successor is told of the connections that are left.
const TELL: Duration = Duration::from_millis(500);

pub(super) async fn run(
    mut instance: Instance,
    mut signals: Signals,
    mut successor: Option<Successor>,
) -> (Ending, Arc<Telemetry>) {
    let subject = Arc::clone(&instance.subject);
    let bound = subject.snapshot.load().config.drain_timeout;
    subject.lifecycle.advance(Stage::Draining);
    if successor.is_some() {
        instance.listeners.hand_over();
        instance.doors.leave().await;
        instance.chores.leave();
    }
    instance.listeners.close(|_| false).await;
    log::info!(
        "draining {} connections, for up to {bound:?}",
        subject.gate.inside()
    );
    let ending = tokio::select! {
        () = subject.gate.empty() => Ending::Drained,
        () = tokio::time::sleep(bound) => Ending::Cut,
        () = until_stop(&mut signals, &subject) => Ending::Cut,
        () = refuse_orders(&mut instance.orders) => Ending::Cut,
        () = tell(successor.as_mut(), &subject) => Ending::Cut,
    };
    report(&subject, ending);
    match &mut successor {
        Some(successor) => {
            let counters = subject.telemetry.metrics.counters();
            successor.leave(subject.gate.inside() as u64, counters);
        }
        None => instance.chores.finish(&subject),
    }
    instance.doors.settle().await;
    instance.doors.remove_control();
    (ending, Arc::clone(&subject.telemetry))
}

/// A second signal to stop is meant.
async fn until_stop(signals: &mut Signals, subject: &Subject) {
    loop {
        match signals.recv().await {
            Signal::Stop => return,
            Signal::ReopenLogs => subject.telemetry.reopen(),
            Signal::Reload | Signal::Upgrade => {
                log::warn!("too late for that: this process is draining");
            }
        }
    }
}

/// Never ends.
async fn refuse_orders(orders: &mut crate::lifecycle::Orders) {
    while let Some((_, reply)) = orders.recv().await {
        // Who asked may have left meanwhile.
        let _ = reply.send(Err(Refusal::Busy("the process is draining".to_owned())));
    }
    std::future::pending::<()>().await;
}

/// Never ends.
async fn tell(successor: Option<&mut Successor>, subject: &Subject) {
    if let Some(successor) = successor {
        while successor.tell(subject.gate.inside() as u64) {
            tokio::time::sleep(TELL).await;
        }
    }
    std::future::pending::<()>().await;
}

fn report(subject: &Subject, ending: Ending) {
    let left = subject.gate.inside();
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
